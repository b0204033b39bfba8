"""What a survey may be given instead of `read_video`: readers that are wrong, one in each way.

Named to `python -m benchmarks.survey --reader` as "tests.bad_readers:…".
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.plain import Showing
from extract.decode import Video, VideoError, read_video


class Spoilt:
    """A video but for what a subclass does otherwise."""

    def __init__(self, video: Video) -> None:
        self._video = video

    def __getattr__(self, name: str) -> Any:
        return getattr(self._video, name)


class _Brighter(Spoilt):
    def frames(self, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        for frame in self._video.frames(numbers):
            assert frame is not None
            yield np.where(frame < 128, frame + self.by, frame).astype(np.uint8)

    by = 3


class _HardlyBrighter(_Brighter):
    by = 2


class _Later(Spoilt):
    def numbers_at(self, times_s: NDArray[np.float64]) -> NDArray[np.int64]:
        return self._video.numbers_at(times_s + 0.04)


class _Shorter(Spoilt):
    @property
    def duration_s(self) -> float:
        return self._video.duration_s - 1


class _Squeezed(Spoilt):
    def frames(self, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        for frame in self._video.frames(numbers):
            assert frame is not None
            yield frame[:, ::2]


def _of(kind: type[Spoilt], path: Path, decoder: str) -> Video:
    return cast(Video, kind(read_video(path, decoder=decoder)))


def brighter(path: Path, *, decoder: str) -> Video:
    return _of(_Brighter, path, decoder)


def hardly_brighter(path: Path, *, decoder: str) -> Video:
    return _of(_HardlyBrighter, path, decoder)


def later(path: Path, *, decoder: str) -> Video:
    return _of(_Later, path, decoder)


def shorter(path: Path, *, decoder: str) -> Video:
    return _of(_Shorter, path, decoder)


def squeezed(path: Path, *, decoder: str) -> Video:
    return _of(_Squeezed, path, decoder)


class _ByDecord(Spoilt):
    decoder = "decord"


def pyav_brighter(path: Path, *, decoder: str) -> Video:
    return _of(_Brighter if decoder == "pyav" else _ByDecord, path, decoder)


def pyav_refusing(path: Path, *, decoder: str) -> Video:
    return refusing(path, decoder=decoder) if decoder == "pyav" else _of(_ByDecord, path, decoder)


def refusing(path: Path, *, decoder: str) -> Video:
    raise VideoError(f"a test has {decoder} refuse it")


class Trusting:
    """Whatever can be decoded, as if nothing had been complained of."""

    def __init__(self, path: Path, decoder: str) -> None:
        self._showing = Showing(path)
        self.decoder, self.remarks = decoder, list[str]()
        self.duration_s = self._showing.duration_s

    def numbers_at(self, times_s: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.array([self._showing.at(time_s) for time_s in times_s.tolist()], np.int64)

    def frames(self, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        return self._showing.frames(numbers.tolist())


def trusting(path: Path, *, decoder: str) -> Video:
    return cast(Video, Trusting(path, decoder))


def failing(path: Path, *, decoder: str) -> Video:
    """By name: a traceback, a crash, no end; or right."""
    if "traceback" in path.name:
        raise KeyError(decoder)
    if "crash" in path.name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in path.name:
        ctypes.CDLL(None).sleep(1000)
    return read_video(path, decoder=decoder)
