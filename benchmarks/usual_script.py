"""How much quicker is batch-extract's pipeline than the usual script?

    python -m benchmarks.usual_script
    python -m benchmarks.usual_script --quick        # a smoke test of seconds

The usual script is `benchmarks/usual_features.py`, forty lines: one video at a time, every frame decoded by one
thread, one frame a second resized with PIL, a forward pass for the video, an .npy. It is run in a process of its
own, beside ours with the defaults of batch-extract, in turn; neither's imports and building of the network count.
Both have the same weights, and the benchmark ends with an error where their features are not equal up to rounding:
the cache's to float16, and that of resizing, which differs by one grey level in one of 10,000 values. The script
with as many decoding threads as libav likes stands beside. In brackets, behind the seconds by the clock: those of
the processor, of all threads and processes together.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np

from benchmarks.extraction import HEIGHT, WIDTH, end_to_end, video_folder, write_videos
from benchmarks.tables import Spent, as_written, load, machine, markdown, median, spent_on
from cache_schema import FeatureCache
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.batch import extract
from extract.pipeline import Settings
from extract.sources import Sources

SEED = 0


@click.command(help=as_written(__doc__))
@click.option(
    "--stream",
    "streams",
    multiple=True,
    default=["mobilenetv2_112", "resnet101_224"],
    show_default=True,
    help="May be repeated.",
)
@click.option("--videos", default=20, show_default=True, help="resnet101_224 takes a quarter of them.")
@click.option("--seconds", default=60, show_default=True, help="Length of each video.")
@click.option("--repeats", default=3, show_default=True, help="Timed runs of each, alternating.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Keep the videos here. [default: a temporary one]"
)
@click.option("--quick", is_flag=True, help="Three videos of 8 s, mobilenetv2_112, once.")
def main(
    *, streams: tuple[str, ...], videos: int, seconds: int, repeats: int, folder: Path | None, quick: bool
) -> None:
    if quick:
        streams, videos, seconds, repeats = ("mobilenetv2_112",), 3, 8, 1
    with video_folder(folder) as place:
        rows = []
        for stream in streams:
            count = max(1, videos // 4) if stream == "resnet101_224" else videos
            sources = write_videos(place, videos=count, seconds=seconds)
            rows += measure(sources, stream, place, repeats)
    click.echo(f"videos of {seconds} s, {WIDTH}×{HEIGHT} H.264; medians of {repeats}; {machine()}\n")
    header = ["stream", "videos", "usual s", "its decoding threaded s", "ours s", "ratio", "to threaded"]
    click.echo(markdown([*header, "features differ by", "load"], rows))


def measure(sources: Sources, stream: str, folder: Path, repeats: int) -> list[list[str]]:
    import torch  # after extract, which tells OpenMP how to wait

    backbone = Backbone(parse_stream(stream), weights=f"random:{SEED}", device=torch.device("cpu"))
    settings = Settings(decode_workers=os.cpu_count() or 1, batch=16, deadline_s=120.0)
    difference = compare_features(sources, backbone, settings, folder)
    times: dict[str, list[Spent]] = {"usual": [], "threaded": [], "ours": []}
    for _ in range(repeats):
        times["usual"].append(usual_script(sources, stream, folder, threads=1))
        times["threaded"].append(usual_script(sources, stream, folder, threads=0))
        times["ours"].append(spent_on(lambda: end_to_end(sources, backbone, settings, folder)))
    usual, threaded, ours = map(median, times.values())
    ratios = [f"{taken.clock_s / ours.clock_s:.2f}" for taken in (usual, threaded)]
    cells = [*map(str, (usual, threaded, ours)), *ratios, f"{difference:.0e}", load()]
    return [[stream, str(len(sources.videos)), *cells]]


def usual_script(sources: Sources, stream: str, out: Path, *, threads: int) -> Spent:
    """What the usual script says it took. Its features are below `out` then."""
    request = parse_stream(stream)
    script = Path(__file__).with_name("usual_features.py")
    network = request.network.removeprefix("timm:")
    arguments = [network, str(request.size), str(SEED), str(threads), str(out)]
    # extract/ has told OpenMP here how to wait; nobody tells the usual script.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, str(script), *arguments, *(str(video.path) for video in sources.videos)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        raise click.ClickException(f"the usual script failed: {done.stderr}")
    return Spent(*map(float, done.stdout.split()))


def compare_features(sources: Sources, backbone: Backbone, settings: Settings, folder: Path) -> float:
    """The largest difference between the usual features and ours, as a part of the largest feature."""
    stream = backbone.spec.name
    differences = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        usual_script(sources, stream, place, threads=1)
        extract(sources, {stream: backbone}, place / "cache", settings)
        ours = FeatureCache(place / "cache")[stream]
        for video in sources.videos:
            usual = np.load(place / f"{video.path.stem}.npy")
            features = ours[video.id].features
            if usual.shape != features.shape:
                raise click.ClickException(f"other frames: {usual.shape} and {features.shape}")
            differences.append(float(np.abs(usual - features).max() / np.abs(usual).max()))
    if max(differences) > 5e-3:
        raise click.ClickException(f"other features: they differ by {max(differences):.1e} of the largest")
    return max(differences)


if __name__ == "__main__":
    main()
