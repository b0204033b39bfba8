"""What a decode worker may run instead of a decoder: named to `decode_all` as "tests.bad_decoders:…"."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

from extract.workers import DecodeJob, Frames, decode


def misbehaving(pipe: Connection) -> None:
    """Decode as usual, but for what a video's name asks for."""
    while True:
        try:
            job: DecodeJob = pipe.recv()
        except EOFError:
            return
        name = job.path.name
        if "hang" in name:
            ctypes.CDLL(None).sleep(1000)  # in C, holding on to nothing that Python could interrupt
        if "last" in name:
            _until_shards(job.path.parents[1], 4)
        if "crash" in name:
            os.kill(os.getpid(), signal.SIGSEGV)
        for message in decode(job):
            pipe.send(message)
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
    while True:
        try:
            job: DecodeJob = pipe.recv()
        except EOFError:
            return
        with Path(f"{job.path}.decoded").open("a") as file:
            file.write("once\n")
        for message in decode(job):
            pipe.send(message)
