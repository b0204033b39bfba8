"""What a decode worker may run instead of a decoder: named to `decode_all` as "tests.bad_decoders:…"."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract import decode as decoding
from extract.decode import Video
from extract.workers import DecodeJob, Frames, Message, decode, serve


def misbehaving(pipe: Connection) -> None:
    """Decode as usual, but for what a video's name asks for; names with "decord" ask it of decord alone."""
    patch_read_video()
    serve(pipe, _misbehave)


def patch_read_video() -> None:
    """In this process: of a video named "…lost30-55…" frames 30 to 54 do not decode right; an "odd" one is odd."""
    read_video = decoding.read_video

    def patchy(path: Path, *, keep_damaged: bool = False, **how: Any) -> Video:
        video = read_video(path, keep_damaged=keep_damaged, **how)
        if "odd" in path.stem:
            video.remarks.append("an odd file")
        if (lost := re.search(r"lost(\d+)-(\d+)", path.stem)) is None:
            return video
        decoded = video.frames

        def frames(numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint8] | None]:
            first, last = map(int, lost.groups())
            for number, frame in zip(numbers.tolist(), decoded(numbers), strict=True):
                if first <= number < last:
                    video._findings.refuse(f"damaged at {first / video.fps:.1f} s")
                yield None if first <= number < last else frame

        video.frames = frames  # type: ignore[method-assign]
        return video

    decoding.read_video = patchy


def _misbehave(job: DecodeJob, alive: Callable[[], None]) -> Iterator[Message]:
    name = "" if "decord" in job.path.name and job.decoder == "pyav" else job.path.name
    if "hang" in name:
        ctypes.CDLL(None).sleep(1000)  # in C, holding on to nothing that Python could interrupt
    if "last" in name:
        _until_shards(job.path.parents[1], 4)
    if "crash" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    for message in decode(job, alive):
        yield message
        if isinstance(message, Frames) and "die_midway" in name:
            os._exit(3)
        if isinstance(message, Frames) and "stay" in name:
            time.sleep(1000)


def _until_shards(folder: Path, count: int) -> None:
    """Wait for others' shards below a folder; a minute without them is a crash."""
    for _ in range(6000):
        if len(list(folder.rglob("shard-*.h5"))) >= count:
            return
        time.sleep(0.01)
    os._exit(4)


def recording(pipe: Connection) -> None:
    """Decode as usual, and note each decoding in a file beside the video."""
    serve(pipe, _record)


def _record(job: DecodeJob, alive: Callable[[], None]) -> Iterator[Message]:
    with Path(f"{job.path}.decoded").open("a") as file:
        file.write("once\n")
    return decode(job, alive)


def killing_job(pipe: Connection) -> None:
    """Decode as usual, but for what `patch_read_video` says; kill, once, who asks for a video named "fatal"."""
    patch_read_video()
    serve(pipe, _kill_job)


def _kill_job(job: DecodeJob, alive: Callable[[], None]) -> Iterator[Message]:
    once = Path(f"{job.path}.killed")
    if "fatal" in job.path.name and not once.exists():
        once.write_text(str(os.getppid()))
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)  # this process dies with it
    yield from decode(job, alive)


def always_killing_job(pipe: Connection) -> None:
    """Kill the process that asks, whatever it asks for."""
    serve(pipe, _always_kill_job)


def _always_kill_job(job: DecodeJob, alive: Callable[[], None]) -> Iterator[Message]:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(1000)
    yield from decode(job, alive)
