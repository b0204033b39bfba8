"""Is extraction as quick as the slower of its two halves, decoding and the forward pass?

    python -m benchmarks.extraction
    python -m benchmarks.extraction --quick        # a smoke test of seconds

Writes videos (640×360 H.264, a camera that moves over a textured scene with sensor noise), then times, in
turn and with the same worker processes, threads and batch size:

- decoding alone: what arrives from the workers is thrown away;
- the forward pass alone: the same frames from memory;
- extraction end to end, into a cache.

"of the slower" is the ratio of the slower half to the whole, of the medians: 1 means that the other half and the
writing cost no time at all. With one worker and one thread each half has a core to itself (of two or more). With
the defaults of batch-extract both halves want every core, and the whole can be no quicker than one after the
other, were they perfectly parallel: "of the sum" is the ratio of both halves' seconds to the whole. In brackets,
behind the seconds by the clock: those of the processor, of all threads and processes together.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.tables import Spent, as_written, load, machine, markdown, spent_in_turn
from benchmarks.videos import write_video
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.batch import extract
from extract.batcher import Batcher
from extract.pipeline import Settings
from extract.sources import Sources, find_videos
from extract.workers import DecodeJob, Frames, Message, decode_all

WIDTH, HEIGHT, RATE = 640, 360, 25
Pixels = list[NDArray[np.uint8]]


def scene(count: int, *, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Yield RGB frames (HEIGHT, WIDTH, 3) of a camera that wanders over a scene, with noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (90, 160, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BICUBIC)
    texture = np.asarray(picture).astype(np.int16)
    # Drawing noise anew for every frame would take longer than encoding it.
    noise = [random.normal(0, 6, (HEIGHT, WIDTH, 3)).astype(np.int16) for _ in range(8)]
    for number in range(count):
        left = int((1 + np.sin(number / 97 + seed)) / 2 * WIDTH)
        top = int((1 + np.sin(number / 61)) / 2 * HEIGHT)
        view = texture[top : top + HEIGHT, left : left + WIDTH] + noise[number % len(noise)]
        yield np.clip(view, 0, 255).astype(np.uint8)


def write_videos(folder: Path, *, videos: int, seconds: int) -> Sources:
    """Write what the folder lacks."""
    with click.progressbar(range(videos), label="writing videos", file=sys.stderr) as bar:
        for seed in bar:
            path = folder / f"scene-{seconds}s-{seed:03d}.mp4"
            if not path.exists():
                half = path.with_suffix(".part")
                write_video(half, scene(seconds * RATE, seed=seed), fps=RATE, container="mp4")
                half.replace(path)
    return find_videos(sorted(folder.glob(f"scene-{seconds}s-*.mp4"))[:videos])


def decoded(sources: Sources, backbone: Backbone, settings: Settings) -> Iterator[Message]:
    jobs = [DecodeJob(i, video.path, (backbone.view,)) for i, video in enumerate(sources.videos)]
    return decode_all(jobs, workers=settings.decode_workers, deadline_s=settings.deadline_s)


def forward(pixels: Pixels, backbone: Backbone, settings: Settings) -> None:
    batcher = Batcher(backbone, settings.batch)
    for chunk in pixels:
        deque(batcher.add(None, 0, chunk), maxlen=0)
    deque(batcher.flush(), maxlen=0)


def end_to_end(sources: Sources, backbone: Backbone, settings: Settings, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        outcome = extract(sources, {backbone.spec.name: backbone}, Path(cache), settings)
    if outcome.failed:
        raise click.ClickException(f"videos failed: {outcome.failed}")


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
@click.option("--batch", default=16, show_default=True)
@click.option("--repeats", default=3, show_default=True, help="Timed runs of each, alternating.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Keep the videos here. [default: a temporary one]"
)
@click.option("--quick", is_flag=True, help="Three videos of 8 s, mobilenetv2_112, once.")
def main(
    *,
    streams: tuple[str, ...],
    videos: int,
    seconds: int,
    batch: int,
    repeats: int,
    folder: Path | None,
    quick: bool,
) -> None:
    if quick:
        streams, videos, seconds, repeats = ("mobilenetv2_112",), 3, 8, 1
    with video_folder(folder) as place:
        rows = []
        for stream in streams:
            count = max(1, videos // 4) if stream == "resnet101_224" else videos
            sources = write_videos(place, videos=count, seconds=seconds)
            rows += measure(sources, stream, place, batch=batch, repeats=repeats)
    click.echo(
        f"videos of {seconds} s, {WIDTH}×{HEIGHT} H.264, batch {batch}; medians of {repeats}; {machine()}\n"
    )
    header = [
        "stream, resources",
        "videos",
        "decoding s",
        "forward s",
        "whole s",
        "of the slower",
        "of the sum",
        "load",
    ]
    click.echo(markdown(header, rows))


def video_folder(folder: Path | None) -> AbstractContextManager[Path]:
    """The folder that the user named, for videos to stay in; or one that is removed."""
    if folder is None:
        return _temporary()
    folder.mkdir(parents=True, exist_ok=True)
    return nullcontext(folder)


@contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def measure(sources: Sources, stream: str, folder: Path, *, batch: int, repeats: int) -> list[list[str]]:
    import torch  # after extract, which tells OpenMP how to wait

    backbone = Backbone(parse_stream(stream), weights="random:0", device=torch.device("cpu"))
    default_threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    rows = []
    for workers, threads in ((1, 1), (cores, default_threads)):
        torch.set_num_threads(threads)
        settings = Settings(decode_workers=workers, batch=batch, deadline_s=120.0)
        times = compare(sources, backbone, settings, folder, repeats)
        decoding, forwarding, whole = (spent.clock_s for spent in times.values())
        title = f"{stream}, {workers} {plural('worker', workers)}, {threads} {plural('thread', threads)}"
        ratios = max(decoding, forwarding) / whole, (decoding + forwarding) / whole
        cells = [*map(str, times.values()), *(f"{ratio:.2f}" for ratio in ratios)]
        rows.append([title, str(len(sources.videos)), *cells, load()])
    torch.set_num_threads(default_threads)
    return rows


def plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def compare(
    sources: Sources, backbone: Backbone, settings: Settings, folder: Path, repeats: int
) -> dict[str, Spent]:
    """Median seconds of each half and of the whole, run in turn."""
    pixels = [m.pixels for m in decoded(sources, backbone, settings) if isinstance(m, Frames)]
    forward(pixels[:1], backbone, settings)  # warms up, as reading the files just did
    works: dict[str, Callable[[], object]] = {
        "decoding": lambda: deque(decoded(sources, backbone, settings), maxlen=0),
        "forward": lambda: forward(pixels, backbone, settings),
        "whole": lambda: end_to_end(sources, backbone, settings, folder),
    }
    return spent_in_turn(works, repeats)


if __name__ == "__main__":
    main()
