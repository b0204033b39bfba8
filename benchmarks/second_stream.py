"""Does a second stream in the same run cost a second decode?

    python -m benchmarks.second_stream
    python -m benchmarks.second_stream --quick        # a smoke test of seconds

The same videos are extracted three ways, in turn: the first stream alone; both streams in one run; both, each in
a run of its own. Inside the decoder processes it is counted how often a file is opened to be decoded, how many
frames its decoder hands over, and the processor seconds spent in the decoder (threads of libav included) and in
all that these processes do for a video: besides decoding, resizing for each stream and sending the pixels.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.extraction import HEIGHT, RATE, WIDTH, video_folder, write_videos
from benchmarks.tables import as_written, load, machine, markdown
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.batch import extract
from extract.pipeline import Settings
from extract.sources import Sources
from extract.workers import DecodeJob, Message, decode, serve

COUNTS_FILE = (
    "THRIFTVID_BENCHMARK_COUNTS"  # an environment variable: decoder processes take no arguments of ours
)


@dataclass
class Counts:
    """What decoder processes did, in total. Seconds are the processor's."""

    opened: int = 0
    frames: int = 0
    decoding_s: float = 0.0
    process_s: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def serve_counted(pipe: Connection) -> None:
    """What a decoder process runs here: `extract.workers.serve`, which also notes what each video took."""
    serve(pipe, counted)


def counted(job: DecodeJob, alive: Callable[[], None]) -> Iterator[Message]:
    from extract.decode import VideoFile as Video

    counts = Counts(opened=1)
    plain: Callable[..., Iterator[Any]] = Video.frames

    def frames(video: Video, numbers: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.uint8]]:
        passed = plain(video, numbers)
        while True:
            started = time.process_time()
            frame = next(passed, None)
            counts.decoding_s += time.process_time() - started
            if frame is None:
                return
            counts.frames += 1
            yield frame

    changed: Any = Video
    changed.frames = frames
    started = time.process_time()
    try:
        *messages, last = decode(
            job, alive
        )  # all before any is sent: waiting for the network takes no processor
        yield from messages
        counts.process_s = time.process_time() - started
    finally:
        changed.frames = plain
    with Path(os.environ[COUNTS_FILE]).open("a") as file:
        file.write(
            json.dumps(astuple(counts)) + "\n"
        )  # one short write: lines of several processes do not mix
    yield last


@click.command(help=as_written(__doc__))
@click.option("--first", default="mobilenetv2_112", show_default=True)
@click.option("--second", default="resnet101_224", show_default=True)
@click.option("--videos", default=4, show_default=True)
@click.option("--seconds", default=60, show_default=True, help="Length of each video.")
@click.option("--repeats", default=3, show_default=True, help="Timed runs of each way, alternating.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Keep the videos here. [default: a temporary one]"
)
@click.option("--quick", is_flag=True, help="Three videos of 8 s, a small second network, once.")
def main(
    *, first: str, second: str, videos: int, seconds: int, repeats: int, folder: Path | None, quick: bool
) -> None:
    if quick:
        second, videos, seconds, repeats = "timm:resnet18@64", 3, 8, 1
    with video_folder(folder) as place:
        sources = write_videos(place, videos=videos, seconds=seconds)
        rows = measure(sources, place, first, second, repeats)
    click.echo(
        f"{videos} videos of {seconds} s, {WIDTH}×{HEIGHT} H.264, {seconds * RATE} frames each; "
        f"medians of {repeats}; {machine()}\n"
    )
    header = [
        "",
        "opened",
        "frames handed over",
        "decoding s",
        "ratio",
        "decoder processes s",
        "ratio",
        "run s",
    ]
    click.echo(markdown([*header, "ratio", "load"], rows))


def measure(sources: Sources, folder: Path, first: str, second: str, repeats: int) -> list[list[str]]:
    import torch  # after extract, which tells OpenMP how to wait

    backbones = {
        name: Backbone(parse_stream(name), weights="random:0", device=torch.device("cpu"))
        for name in (first, second)
    }
    ways: dict[str, list[list[str]]] = {
        f"{first} alone": [[first]],
        f"and {second}, one run": [[first, second]],
        f"and {second}, two runs": [[first], [second]],
    }
    taken: dict[str, list[tuple[Counts, float]]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, runs in ways.items():
            counts, run_s = Counts(), 0.0
            for names in runs:
                started = time.perf_counter()
                counts += counted_run(sources, {name: backbones[name] for name in names}, folder)
                run_s += time.perf_counter() - started
            taken[way].append((counts, run_s))
    medians = {way: _median(results) for way, results in taken.items()}
    unit, unit_s = next(iter(medians.values()))
    return [
        [
            way,
            f"{counts.opened:.0f}",
            f"{counts.frames:.0f}",
            f"{counts.decoding_s:.2f}",
            f"{counts.decoding_s / unit.decoding_s:.2f}",
            f"{counts.process_s:.2f}",
            f"{counts.process_s / unit.process_s:.2f}",
            f"{run_s:.1f}",
            f"{run_s / unit_s:.2f}",
            load(),
        ]
        for way, (counts, run_s) in medians.items()
    ]


def counted_run(sources: Sources, backbones: dict[str, Backbone], folder: Path) -> Counts:
    """Extract into a new cache; what the decoders did."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        notes = Path(name) / "counts"
        os.environ[COUNTS_FILE] = str(notes)
        settings = Settings(
            os.cpu_count() or 1, 16, 120.0, decode_target="benchmarks.second_stream:serve_counted"
        )
        outcome = extract(sources, backbones, Path(name) / "cache", settings)
        if outcome.failed:
            raise click.ClickException(f"videos failed: {outcome.failed}")
        return sum((Counts(*json.loads(line)) for line in notes.read_text().splitlines()), Counts())


def _median(results: Sequence[tuple[Counts, float]]) -> tuple[Counts, float]:
    counts = Counts(
        *(statistics.median(getattr(c, field.name) for c, _ in results) for field in fields(Counts))
    )
    return counts, statistics.median(run_s for _, run_s in results)


if __name__ == "__main__":
    main()
