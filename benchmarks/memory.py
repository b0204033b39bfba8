"""How much memory does batch-extract take, whatever the length of the videos?

    python -m benchmarks.memory
    python -m benchmarks.memory --quick        # a smoke test of seconds

Runs batch-extract on the CPU as a command of its own, on a video of hours and one of three seconds together, and
looks at it and all its processes every 50 ms. PSS counts a page that several processes share once in all, RSS once
in each; both are sums, and the peak is that of the sum. The three-second video alone, with the same streams, says
what the program takes without any video to speak of. The stream that sees every frame (clips of 16 frames,
one after another) stands beside, on a video of minutes: its network takes too long on a CPU for hours. The limit
is 4 GiB. The long video is one minute, encoded once and repeated without coding it anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import click
import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.extraction import HEIGHT, RATE, WIDTH, scene, video_folder
from benchmarks.tables import as_written, load, machine, markdown
from benchmarks.videos import write_video

LIMIT_BYTES = 4 << 30
EVERY_S = 0.05
_SHORT_S = 3


@dataclass
class Peak:
    """Bytes of a process and all below it, each at its own highest."""

    pss: int = 0
    rss: int = 0
    parent_rss: int = 0
    child_rss: int = 0  # the largest of the processes below
    samples: int = 0

    def look(self, parent: psutil.Process) -> None:
        try:
            own = parent.memory_full_info()
            children = parent.children(recursive=True)
        except psutil.NoSuchProcess:
            return
        pss, rss = own.pss, own.rss
        for child in children:
            try:
                info = child.memory_full_info()
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
                continue
            pss, rss = pss + info.pss, rss + info.rss
            self.child_rss = max(self.child_rss, info.rss)
        self.pss, self.rss = max(self.pss, pss), max(self.rss, rss)
        self.parent_rss = max(self.parent_rss, own.rss)
        self.samples += 1


def still_scene(count: int) -> Iterator[NDArray[np.uint8]]:
    """A scene before a camera that stands still, in which a square wanders: quick to decode."""
    picture = next(scene(1, seed=1))
    for number in range(count):
        frame = picture.copy()
        left, top = number * 3 % (WIDTH - 64), number % (HEIGHT - 64)
        frame[top : top + 64, left : left + 64] = number % 256
        yield frame


def write_long_video(path: Path, *, seconds: int, part_s: int) -> None:
    """Encode a part and repeat its packets, with their times moved on, until the video is long enough.

    `seconds` is a multiple of `part_s`.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        part = Path(name) / "part.mp4"
        write_video(part, still_scene(part_s * RATE), fps=RATE)
        half = Path(name) / "whole.mp4"
        with av.open(str(half), "w") as output:
            stream = None
            for number in range(seconds // part_s):
                with av.open(str(part)) as source:
                    pictures = source.streams.video[0]
                    stream = stream or output.add_stream_from_template(pictures)
                    assert pictures.time_base is not None
                    offset = round(number * part_s / pictures.time_base)
                    for packet in source.demux(pictures):
                        if packet.pts is None or packet.dts is None:
                            continue  # the empty one at the end
                        packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                        packet.stream = stream
                        output.mux_one(packet)
        half.replace(path)


def run(
    videos: Sequence[Path], streams: Sequence[str], folder: Path
) -> tuple[Peak, float, dict[str, object]]:
    """Extract into a new cache. Returns the peak, the seconds, and what the command says of the run."""
    peak = Peak()
    with tempfile.TemporaryDirectory(dir=folder) as cache, tempfile.TemporaryFile("w+", dir=folder) as told:
        options = ["--cache", cache, "--weights", "random:0", "--device", "cpu", "--json"]
        for stream in streams:
            options += ["--stream", stream]
        command = "import sys; from extract.cli import batch_extract; sys.exit(batch_extract())"
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", command, *map(str, videos), *options], stdout=told, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        errors = b""
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            peak.look(parent)
            errors += process.stderr.read() or b""
            time.sleep(EVERY_S)
        took_s = time.monotonic() - started
        errors += process.stderr.read() or b""
        process.stderr.close()
        if process.returncode:
            raise click.ClickException(f"batch-extract ended with {process.returncode}: {errors.decode()}")
        told.seek(0)
        return peak, took_s, json.load(told)


@click.command(help=as_written(__doc__))
@click.option("--hours", default=3.0, show_default=True, help="Length of the long video.")
@click.option(
    "--stream",
    "streams",
    multiple=True,
    default=["mobilenetv2_112", "timm:mobilenetv3_small_050@112", "x3d_xs"],
    show_default=True,
    help="May be repeated: all of them in one run.",
)
@click.option("--dense-minutes", default=5, show_default=True, help="Length of the video for clips.")
@click.option("--dense-stream", default="x3d_m_dense16", show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Keep the videos here. [default: a temporary one]"
)
@click.option("--quick", is_flag=True, help="Videos of 40 s and 4 s instead, and fewer networks.")
def main(
    *,
    hours: float,
    streams: tuple[str, ...],
    dense_minutes: int,
    dense_stream: str,
    folder: Path | None,
    quick: bool,
) -> None:
    long_s, dense_s, part_s = round(hours * 60) * 60, dense_minutes * 60, 60
    if quick:
        long_s, dense_s, part_s, streams = 40, 4, 4, ("mobilenetv2_112",)
    rows = []
    with video_folder(folder) as place:
        short = _video(place, _SHORT_S, _SHORT_S)
        for seconds, names in ((long_s, streams), (dense_s, (dense_stream,))):
            long = _video(place, seconds, min(part_s, seconds))
            for title, videos in (
                (f"{_SHORT_S} s", [short]),
                (f"{_length(seconds)} and {_SHORT_S} s", [long, short]),
            ):
                rows.append(_row(title, names, *run(videos, names, place)))
    click.echo(f"{WIDTH}×{HEIGHT} H.264 at {RATE} frames/s; defaults of batch-extract; MiB; {machine()}\n")
    header = [
        "videos",
        "streams",
        "frames decoded",
        "seconds",
        "peak PSS",
        "peak RSS",
        "main process",
        "decoder",
    ]
    click.echo(markdown([*header, "load"], [row for row, _ in rows]))
    highest = max(peak for _, peak in rows)
    verdict = "yes" if highest < LIMIT_BYTES else "NO"
    click.echo(
        f"\n{verdict}: the highest peak (RSS) is {highest >> 20:,} MiB, to be below {LIMIT_BYTES >> 20:,}"
    )


def _video(folder: Path, seconds: int, part_s: int) -> Path:
    path = folder / f"still-{seconds}s.mp4"
    if not path.exists():
        write_long_video(path, seconds=seconds, part_s=part_s)
    return path


def _length(seconds: int) -> str:
    if seconds % 3600 == 0:
        return f"{seconds // 3600} h"
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"


def _row(
    title: str, streams: Sequence[str], peak: Peak, took_s: float, told: dict[str, object]
) -> tuple[list[str], int]:
    cells = [title, ", ".join(streams), f"{told['frames_decoded']:,}", f"{took_s:.0f}"]
    sizes = [f"{size >> 20:,}" for size in (peak.pss, peak.rss, peak.parent_rss, peak.child_rss)]
    return [*cells, *sizes, load()], peak.rss


if __name__ == "__main__":
    main()
