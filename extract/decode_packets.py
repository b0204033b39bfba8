"""A video's packets, as a container gives them: which become frames, when, and whether that can be true."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Decoders put pictures in order over at most 16 (ITU-T H.264, A.3.1; H.265, A.4.2): this is far beyond.
MAX_REORDERED = 32
# MPEG streams give a time every 0.7 s (ITU-T H.222.0, 2.7.4); like ffmpeg, take ten seconds for a new clock.
MAX_JUMP_S = 10.0


class VideoError(Exception):
    """A video that cannot be decoded right. The message is the reason alone: one line, without the name."""

    def __init__(self, reason: object) -> None:
        super().__init__(" ".join(str(reason).split()))


class Packet(NamedTuple):
    """What the container says of one packet, and what its first bytes say of an H.264 picture."""

    pts: int | None
    dts: int | None
    duration: int
    key: bool
    discard: bool
    idr: bool  # of H.264, a key frame that needs nothing before it; of other codecs, as `key`
    reference: bool  # False: no other picture needs it
    picture: bool  # of H.264, whether a picture was found in it; of other codecs, True


def shown(packets: list[Packet]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pts and durations, in ticks and in order, of the packets that become frames on screen.

    Not shown: what an edit list discards; what precedes the first key frame (a recording that starts in the
    middle of a group of pictures), which cannot be decoded; a packet without a time of its own (the second
    field of an interlaced frame).
    """
    keys = [packet.pts for packet in packets if packet.key and packet.pts is not None]
    first = keys[0] if keys else min(packet.pts for packet in packets if packet.pts is not None)
    shown = sorted(
        (packet.pts, packet.duration)
        for packet in packets
        if packet.pts is not None and packet.pts >= first and not packet.discard
    )
    if not shown:
        raise VideoError("no frames: its edit list discards them all")
    table = np.array(shown, np.int64)
    return table[:, 0], table[:, 1]


def repeats(packets: list[Packet]) -> bool:
    return len({packet.pts for packet in packets}) < len(packets)


def has_closed_groups(packets: list[Packet]) -> bool:
    """Whether it starts with a key frame, no frame after a key frame is shown before it, and all are IDRs.

    A key frame of H.264 that is none may be a recovery point, which needs some frames until all is refreshed.
    """
    key_pts: int | None = None
    for packet in packets:
        if packet.key:
            key_pts = packet.pts
        if packet.pts is None or key_pts is None or packet.pts < key_pts or packet.key != packet.idr:
            return False
    return True


def require_no_complaint(demuxer: str, errors: list[str]) -> None:
    """Raise VideoError where the demuxer spoke of damage, which it then skipped with the frames in it.

    Only of Matroska and AVI, which it reads from one element to the next: about MP4 and FLV it complains that are
    odd and whole.
    """
    if demuxer in ("matroska,webm", "avi"):
        for error in errors:
            if error.startswith(demuxer):
                raise VideoError(f"damaged container: {error.removeprefix(f'{demuxer}: ')}")


def require_order(packets: list[Packet], tick_s: float) -> None:
    """Raise VideoError where a timestamp cannot be right: its frame is far from its place in the file."""
    pts = np.array([packet.pts for packet in packets if packet.pts is not None], np.int64)
    by_time = np.argsort(pts, kind="stable")
    moved = np.abs(by_time - np.arange(len(pts)))
    if len(pts) and moved.max() > MAX_REORDERED:
        at_s = float(pts[by_time[moved.argmax()]] - pts.min()) * tick_s
        raise VideoError(
            f"timestamps in disorder: the frame at {at_s:.2f} s is {moved.max()} frames out of place"
        )


def require_no_jump(frame_pts: NDArray[np.int64], tick_s: float) -> None:
    """Raise VideoError where the clock of an MPEG stream jumps: the frame before it would last as long."""
    gaps_s = np.diff(frame_pts) * tick_s
    if len(gaps_s) and gaps_s.max() > MAX_JUMP_S:
        at_s = float(frame_pts[gaps_s.argmax()] - frame_pts[0]) * tick_s
        raise VideoError(f"damaged timestamps: they jump by {gaps_s.max():.0f} s after {at_s:.2f} s")


def require_promise_kept(
    whole_file: bool,
    promise_s: float,
    ends_s: dict[int, float],
    stream: int,
    period_s: float,
    container_format: str,
) -> None:
    """Raise VideoError where the packets end before the promised duration, or long after it.

    Muxers disagree about the end of the last frame, hence the frame and a half; and where the promise is the
    whole file's, any of its streams may keep it.
    """
    reached_s = max(ends_s.values()) if whole_file else ends_s[stream]
    if promise_s - reached_s > (0.5 if whole_file else 0) + 1.5 * period_s:
        raise VideoError(f"truncated: {reached_s:.1f} s of the {promise_s:.1f} s its container promises")
    if container_format == "matroska" and not whole_file and reached_s - promise_s > 1 + 1.5 * period_s:
        raise VideoError(f"damaged timestamps: up to {reached_s:.1f} s, and {promise_s:.1f} s are promised")
