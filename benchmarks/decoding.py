"""How quick is decoding at one frame a second, beside decord's bare `get_batch` and torchcodec?

    python -m benchmarks.decoding
    python -m benchmarks.decoding FILE ...      # these instead of videos that are written for it
    python -m benchmarks.decoding --quick       # a smoke test of seconds

Each opens a file and decodes the same frames, those at 0, 1, 2 ... seconds, by one thread: ours as `batch-extract`
does (and by either of its decoders alone), decord's `VideoReader(num_threads=1).get_batch`, and torchcodec's exact
`VideoDecoder(num_ffmpeg_threads=1).get_frames_played_at`. Processor seconds of the whole process are counted, its
threads included, in turn, and medians taken. Ratios are theirs to ours: above 1, ours takes less. "differs" is the
largest difference from ours in grey levels: decord and torchcodec may give other frames, or other colours.

Ours also checks what it decodes; decord does not. torchcodec is left out where it is not installed
(`pip install '.[benchmark]'`) or finds no libraries of FFmpeg.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch  # before decord, which a network would crash after
from numpy.typing import NDArray

from benchmarks.extraction import RATE, scene, video_folder
from benchmarks.tables import as_written, load, machine, markdown
from benchmarks.videos import write_video
from extract.decode import read_video
from extract.sampling import sample_times

Frames = NDArray[np.uint8] | list[NDArray[np.uint8]]
HD = "1080p"

KINDS: dict[str, dict[str, Any]] = {
    "x264 medium.mp4": {"options": {"preset": "medium"}, "gop": 250},
    "x264 veryfast.mp4": {"options": {"preset": "veryfast"}, "gop": 250},
    "x264 superfast.mp4": {"options": {"preset": "superfast"}, "gop": 250},
    "x264 ultrafast, CAVLC.mp4": {"options": {"preset": "ultrafast"}, "gop": 250},
    "x264 baseline.mp4": {"options": {"preset": "veryfast", "profile": "baseline"}, "gop": 250},
    "x264 medium, gop 48.mp4": {"options": {"preset": "medium"}, "gop": 48},
    "x264 veryfast, gop 48.mp4": {"options": {"preset": "veryfast"}, "gop": 48},
    "x264 veryfast, gop 12.mp4": {"options": {"preset": "veryfast"}, "gop": 12},
    "x264 veryfast, 8 B-frames.mkv": {"options": {"preset": "veryfast", "bf": "8"}, "gop": 250},
    "x264 veryfast, open groups.mp4": {
        "options": {"preset": "veryfast", "x264-params": "open-gop=1"},
        "gop": 48,
    },
    "x264 veryfast.ts": {"options": {"preset": "veryfast"}, "gop": 48},
    f"x264 medium, {HD}.mp4": {"options": {"preset": "medium"}, "gop": 250},
    f"x264 veryfast, {HD}, gop 48.mp4": {"options": {"preset": "veryfast"}, "gop": 48},
    "x265.mp4": {"codec": "libx265", "gop": 250},
    "VP9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}, "gop": 128},
    "AV1.mp4": {"codec": "libsvtav1", "options": {"preset": "12"}, "gop": 128},
    "MPEG-4.mp4": {"codec": "mpeg4", "options": {"q": "4", "bf": "2"}, "gop": 48},
    "MPEG-4.avi": {"codec": "mpeg4", "options": {"q": "4"}, "gop": 48},
    "MPEG-2.mpg": {"codec": "mpeg2video", "options": {"q": "4", "bf": "2"}, "gop": 12},
    "MJPEG.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "MJPEG.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}
QUICK = ("x264 superfast.mp4", "MPEG-4.avi")


def write_kind(path: Path, *, seconds: int) -> None:
    """Write a video of a kind, named by its file name, unless it is there."""
    if path.exists():
        return
    pictures: Iterable[NDArray[np.uint8]] = scene(seconds * RATE, seed=7)
    if HD in path.name:
        pictures = (picture.repeat(3, 0).repeat(3, 1) for picture in pictures)
    half = path.with_name(f"half.{path.name}")
    write_video(half, pictures, fps=RATE, **KINDS[path.name])
    half.replace(path)


def ours(path: Path, times_s: NDArray[np.float64], *, decoder: str = "auto") -> Frames:
    video = read_video(path, decoder=decoder)
    frames = video.frames(np.unique(video.numbers_at(times_s)))
    return [frame for frame in frames if frame is not None]  # None is for damaged videos that are kept


def by_decord(path: Path, numbers: NDArray[np.int64]) -> Frames:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    frames: NDArray[np.uint8] = decord.VideoReader(str(path), num_threads=1).get_batch(numbers).asnumpy()
    return frames


def by_torchcodec(path: Path, instants_s: NDArray[np.float64]) -> Frames:
    """The frames on screen then, in seconds after the first."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
    begin_s = decoder.metadata.begin_stream_seconds
    frames: NDArray[np.uint8] = decoder.get_frames_played_at((begin_s + instants_s).tolist()).data.numpy()
    return frames


def processor_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def difference(frames: Frames, others: Frames) -> str:
    if len(frames) != len(others) or any(a.shape != b.shape for a, b in zip(frames, others, strict=True)):
        return "size"
    pairs: Iterator[tuple[Any, Any]] = zip(frames, others, strict=True)
    return str(max(int(np.abs(frame.astype(np.int16) - other).max()) for frame, other in pairs))


def measure(path: Path, repeats: int) -> tuple[list[str], dict[str, str]]:
    """The table's line for a file, and why others do not decode it."""
    video = read_video(path)
    times_s = sample_times(duration_s=video.duration_s, fps=1)
    numbers = np.unique(video.numbers_at(times_s))
    middles_s = times_s + 0.5 / video.fps  # lest the start of a frame be rounded otherwise
    works: dict[str, Callable[[], Frames]] = {
        "ours": partial(ours, path, times_s),
        "only decord": partial(ours, path, times_s, decoder="decord"),
        "only pyav": partial(ours, path, times_s, decoder="pyav"),
        "decord": partial(by_decord, path, numbers),
        "torchcodec": partial(by_torchcodec, path, middles_s),
    }
    right = works["ours"]()
    differences, reasons = {"ours": "0"}, {}
    for name in list(works)[1:]:  # warms up, too
        try:
            differences[name] = difference(right, works[name]())
        except Exception as error:  # each has kinds of its own, and RuntimeError
            reasons[name] = " ".join(str(error).split())[:200]
            del works[name]
    count = len(right)
    del right
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            seconds[name].append(processor_seconds(work))
    medians_s = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {name: f"{median_s / medians_s['ours']:.2f}" for name, median_s in medians_s.items()}
    frames = video.frames(numbers)
    deque(frames, maxlen=0)  # it chooses a decoder as it begins
    return [
        path.name,
        str(count),
        f"{1000 * medians_s['ours'] / count:.1f}",
        video.decoder,
        *(ratios.get(name, "–") for name in ("decord", "torchcodec", "only decord", "only pyav")),
        *(differences.get(name, "–") for name in ("decord", "torchcodec")),
        load(),
    ], reasons


@click.command(help=as_written(__doc__))
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seconds", default=30, show_default=True, help="Length of each video.")
@click.option("--repeats", default=5, show_default=True, help="Timed runs of each, alternating.")
@click.option("--kind", "kinds", multiple=True, help="Only kinds whose names begin so. May be repeated.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Keep the videos here. [default: a temporary one]"
)
@click.option("--quick", is_flag=True, help="Two kinds of 3 s, once.")
def main(
    *,
    files: tuple[Path, ...],
    seconds: int,
    repeats: int,
    kinds: tuple[str, ...],
    folder: Path | None,
    quick: bool,
) -> None:
    names = [name for name in KINDS if not kinds or name.startswith(kinds)]
    if quick:
        names, seconds, repeats = list(QUICK), 3, 1
    torch.set_num_threads(1)
    rows, notes = [], []
    with video_folder(folder) as place:
        for path in files or [place / name for name in names]:
            if not files:
                write_kind(path, seconds=seconds)
            row, reasons = measure(path, repeats)
            rows.append(row)
            notes += [f"{path.name}: {name} does not decode it: {why}" for name, why in reasons.items()]
            click.echo(f"{path.name}: done", err=True)
    what = "" if files else f"videos of {seconds} s at {RATE} frames/s, 640×360 but for {HD}; "
    click.echo(f"{what}one thread; medians of {repeats}; {machine()}\n")
    header = ["video", "frames", "ours ms/frame", "by", "decord", "torchcodec", "only decord", "only pyav"]
    click.echo(markdown([*header, "decord differs", "torchcodec differs", "load"], rows))
    click.echo("\n".join(["", *notes]) if notes else "", nl=bool(notes))


if __name__ == "__main__":
    main()
