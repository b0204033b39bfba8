"""Frames by decord: quick random access, for the videos whose index shows that decord counts them right."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.decode_index import VideoIndex
from extract.decode_packets import Findings, VideoError
from extract.decode_pyav import pyav_frames

_BATCH_BYTES = 32 << 20  # of pixels: what get_batch may hold at once, beside the caller's chunk
_GREY_LEVELS = 2  # of rounding
_LIBAV_ERROR = 16
_LIBAV_INFO = 32


class DecordDoubt(Exception):
    """decord failed, or its answer cannot be trusted: PyAV is to judge."""


def decord_frames(index: VideoIndex, wanted: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames with these numbers (increasing) as RGB (H, W, 3), upright.

    Raises DecordDoubt, before a doubtful frame is yielded: decord lacks the means to hear its decoder, raised
    an error, counts other frames than the index has, or its decoder reported or concealed an error.
    """
    if index.decord_objection is not None:
        raise DecordDoubt(index.decord_objection)
    try:
        name = str(index.path.absolute()).encode().decode()  # decord takes UTF-8 only
        import decord
    except (UnicodeEncodeError, ImportError, OSError) as error:
        raise DecordDoubt(str(error)) from error
    decord.logging.set_level(decord.logging.QUIET)  # while it is opened: PyAV has read the same packets
    reader = None
    try:
        reader = decord.VideoReader(name, num_threads=1)
        _check(reader, index)
        with _heard_errors(decord) as errors:
            at = 0
            batch = 1  # until the size is known
            while at < len(wanted):
                frames = reader.get_batch(wanted[at : at + batch]).asnumpy()
                if errors:
                    raise DecordDoubt(errors[0])
                if at == 0:
                    _compare(frames[0], index, wanted)
                yield from frames
                at += len(frames)
                batch = max(1, _BATCH_BYTES // frames[0].nbytes)
            del reader  # stops its thread, which reads ahead, while there is someone to listen
    except (DecordDoubt, VideoError) as error:
        raise DecordDoubt(str(error)) from error
    except Exception as error:  # decord raises its own kinds and RuntimeError, AssertionError, IndexError
        raise DecordDoubt(str(error)) from error


def _check(reader: Any, index: VideoIndex) -> None:
    """Raise DecordDoubt unless decord's frames are the index's: as many, at the same times."""
    count = len(index.frame_pts)
    if len(reader) != count:
        raise DecordDoubt(f"decord counts {len(reader)} frames, not {count}")
    starts_s = reader.get_frame_timestamp(np.arange(count))[:, 0].astype(np.float64)
    # float32: seven digits. An offset is no matter (decord may keep or drop the first pts).
    with np.errstate(invalid="ignore"):  # infinity less infinity
        since_s = starts_s - starts_s[0]
    if not np.allclose(since_s, index.frame_starts_s, rtol=1e-6, atol=1e-3):
        raise DecordDoubt("decord's timestamps are not the container's")


def _compare(frame: NDArray[np.uint8], index: VideoIndex, wanted: NDArray[np.int64]) -> None:
    """Raise DecordDoubt unless PyAV shows the same: decord knows no mirrored pictures and no cropping."""
    [same] = pyav_frames(index, wanted[:1], Findings())
    if (
        same is None
        or same.shape != frame.shape
        or np.abs(frame.astype(np.int16) - same).max() > _GREY_LEVELS
    ):
        raise DecordDoubt("decord's first picture is another")


_listeners: list[list[str]] = []


def _hear(_context: int, level: int, text: bytes, _arguments: int) -> None:
    # Concealment is reported as information ("concealing %d DC, %d AC, %d MV errors").
    if level <= _LIBAV_ERROR or (level <= _LIBAV_INFO and text.startswith(b"concealing")):
        for errors in _listeners:
            errors.append(text.decode("ascii", "replace").strip())


# Kept for good: decord's thread may be inside it when the last listener has gone.
_callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_hear)


@contextmanager
def _heard_errors(decord: Any) -> Iterator[list[str]]:
    """Collect what decord's decoder reports: decord itself returns the frames it concealed as if whole.

    libav reports through a callback for the whole library, found among the symbols libdecord loads. It is
    called while ctypes has let go of Python's lock, so it cannot block. Two readers at once hear each other:
    too careful, not too trusting. Raises DecordDoubt where the symbols are not to be found.
    """
    try:
        library = ctypes.CDLL(decord._ffi.base._LIB._name)
        set_callback, default = library.av_log_set_callback, library.av_log_default_callback
    except (AttributeError, OSError) as error:
        raise DecordDoubt("decord's decoder cannot be heard") from error
    errors: list[str] = []
    _listeners.append(errors)
    set_callback(_callback)
    try:
        yield errors
    finally:
        # By identity: two lists that heard nothing are equal.
        _listeners[:] = [others for others in _listeners if others is not errors]
        if not _listeners:
            set_callback(default)
