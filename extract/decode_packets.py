"""A video's packets, as a container gives them: which become frames, when, and whether that can be true."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Decoders put pictures in order over at most 16 (ITU-T H.264, A.3.1; H.265, A.4.2): this is far beyond.
MAX_REORDERED = 32
# MPEG streams give a time every 0.7 s (ITU-T H.222.0, 2.7.4); a longer gap is a pause, a slide show, or damage.
LONG_GAP_S = 10.0
# Half of what their clocks of 33 bits count: beyond, forwards cannot be told from backwards.
MAX_GAP_S = 2**32 / 90_000
# How far, in packets, a gap may be from where counters do not go on: pictures are put in order in between.
_NEAR = 8
# libav takes a packet of MPEG-4 that is no longer than this, and gives no frame, for a picture that is not coded.
NOT_CODED_BYTES = 19
# Whose pictures may be "not coded": the one before stays on screen.
HOLDING_CODECS = frozenset({"mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "h263", "flv1"})

# The remark on a file that begins within another.
CUT_OUT = "cut out of a longer video: it refers to pictures before its beginning"


class VideoError(Exception):
    """A video that cannot be decoded right. The message is the reason alone: one line, without the name."""

    def __init__(self, reason: object) -> None:
        super().__init__(" ".join(str(reason).split()))


class TimesGoBack(VideoError):
    """Frames come out of the decoder in another order than their times have."""


@dataclass
class Findings:
    """What was found out about a file that is not as it should be.

    keep: whether what can be had of a damaged file is wanted.
    remarks: what is odd and harmless, a line each.
    damage: with `keep`, the first reason why rows may be missing.
    """

    keep: bool = False
    remarks: list[str] = field(default_factory=list)
    damage: str | None = None

    def remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)

    def refuse(self, reason: object) -> None:
        """Raise VideoError; with `keep`, put the first reason down and go on."""
        error = VideoError(reason)
        if not self.keep:
            raise error
        self.damage = self.damage or str(error)


class Packet(NamedTuple):
    """What the container says of one packet, and what its first bytes say of its picture."""

    pts: int | None
    dts: int | None
    duration: int
    size: int
    key: bool
    discard: bool
    corrupt: bool  # so the demuxer says: in MPEG-TS, that counters do not go on
    entry: bool  # decoding may begin here: a key frame that needs nothing before it
    reference: bool  # False: no other picture needs it
    picture: bool  # False: no picture was found in it (of H.264)


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


def leading(packets: list[Packet]) -> list[bool]:
    """Say of each packet whether it is shown before the entry that it follows: it may need what came before."""
    entry_pts: int | None = None
    answer = []
    for packet in packets:
        if packet.entry:
            entry_pts = packet.pts
        answer.append(packet.pts is not None and entry_pts is not None and packet.pts < entry_pts)
    return answer


def no_complaint(demuxer: str, errors: list[str], findings: Findings) -> None:
    """Refuse where the demuxer spoke of damage, which it then skipped with the frames in it.

    Only of Matroska and AVI, which it reads from one element to the next: about MP4 and FLV it complains that are
    odd and whole. But where the sizes before and behind a packet of FLV are not the same, it drops that.
    """
    for error in errors:
        if error.startswith("flv: Packet mismatch"):
            findings.refuse("damaged container: a packet is not as long as it says")
    if demuxer in ("matroska,webm", "avi"):
        for error in errors:
            if error.startswith(demuxer):
                findings.refuse(f"damaged container: {error.removeprefix(f'{demuxer}: ')}")


def order(packets: list[Packet], tick_s: float, findings: Findings) -> None:
    """Refuse where a timestamp cannot be right: its frame is far from its place in the file."""
    pts = np.array([packet.pts for packet in packets if packet.pts is not None], np.int64)
    by_time = np.argsort(pts, kind="stable")
    moved = np.abs(by_time - np.arange(len(pts)))
    if len(pts) and moved.max() > MAX_REORDERED:
        at_s = float(pts[by_time[moved.argmax()]] - pts.min()) * tick_s
        findings.refuse(
            f"timestamps in disorder: the frame at {at_s:.2f} s is {moved.max()} frames out of place"
        )


def all_found(packets: list[Packet], entries: Iterable[Any], findings: Findings) -> None:
    """Refuse an AVI that holds fewer pictures than its index: its demuxer goes on at the next, and says nothing.

    Everything after them would be taken for earlier than it is.
    """
    missing = sum(entry.size > 0 for entry in entries) - len(packets)
    if missing > 0:
        findings.refuse(
            f"damaged: {missing} of the {len(packets) + missing} pictures of its index are missing"
        )


def new_clocks(packets: list[Packet]) -> list[int]:
    """Where the clock of an MPEG stream goes back for good: it was joined from several, one behind the other.

    Only at a key frame from which time goes on; a single time that goes back is damage.
    """
    decoded_at = [packet.dts if packet.dts is not None else packet.pts for packet in packets]
    found = []
    for at, (before, after) in enumerate(pairwise(decoded_at), 1):
        if before is None or after is None or after >= before or not packets[at].key:
            continue
        following = [tick for tick in decoded_at[at : at + 4] if tick is not None]
        if following == sorted(following):
            found.append(at)
    return found


def on_one_clock(packets: list[Packet], starts: list[int]) -> list[Packet]:
    """The packets with times that go on where the clock starts anew, a frame after what came before."""
    if not starts:
        return packets
    steps = [b.dts - a.dts for a, b in pairwise(packets) if a.dts is not None and b.dts is not None]
    period = int(np.median([step for step in steps if step > 0] or [0]))
    moved: list[Packet] = []
    offset, end = 0, 0
    for at, packet in enumerate(packets):
        if at in starts:
            group = packets[at : at + MAX_REORDERED]
            first = min(p.pts for p in group if p.pts is not None)
            offset = end + period - first
        pts, dts = (None if tick is None else tick + offset for tick in (packet.pts, packet.dts))
        end = max(end, pts) if pts is not None else end
        moved.append(packet._replace(pts=pts, dts=dts))
    return moved


def long_gaps(frame_pts: NDArray[np.int64], tick_s: float, findings: Findings) -> None:
    """Remark gaps between the frames of an MPEG stream; refuse what cannot be true.

    A damaged time of the last frame looks like a gap: unless there were others like it, it is taken for that.
    """
    gaps_s = np.diff(frame_pts) * tick_s
    for at in np.flatnonzero(gaps_s > LONG_GAP_S).tolist():
        after_s = float(frame_pts[at] - frame_pts[0]) * tick_s
        others_s = np.delete(gaps_s, at)
        lone = at == len(gaps_s) - 1 and gaps_s[at] > 3 * others_s.max(initial=0.0)
        if gaps_s[at] > MAX_GAP_S or lone:
            findings.refuse(f"damaged timestamps: they jump by {gaps_s[at]:.0f} s after {after_s:.2f} s")
        else:
            findings.remark(f"no picture for {gaps_s[at]:.0f} s after {after_s:.2f} s")


def lost_frames(packets: list[Packet], tick_s: float, findings: Findings) -> None:
    """Refuse an MPEG-TS whose counters do not go on where its pictures do not either; else only remark it.

    Where recordings were joined the counters start anew, but at a key frame.
    """
    if not any(packet.corrupt for packet in packets):
        return
    timed = [(packet.pts, at) for at, packet in enumerate(packets) if packet.pts is not None]
    timed.sort()
    steps = np.diff([pts for pts, _ in timed])
    period = float(np.median(steps)) if len(steps) else 0.0
    start = timed[0][0] if timed else 0
    corrupt = {at for at, packet in enumerate(packets) if packet.corrupt}
    for (before, _), (after, at) in pairwise(timed):
        if (
            after - before > 1.5 * period
            and not packets[at].key
            and corrupt & set(range(at - _NEAR, at + _NEAR))
        ):
            findings.refuse(f"damaged: pictures are missing after {(before - start) * tick_s:.2f} s")
            return
    first = packets[min(corrupt)].pts
    where = "" if first is None else f" at {max(0, first - start) * tick_s:.2f} s"
    findings.remark(f"counters of its packets do not go on{where}: joined from several, perhaps")


def torn(packets: list[Packet]) -> frozenset[int]:
    """Packets of an MPEG-TS of which a part may be missing: its counters do not go on within them.

    That is said of a packet or, as a parser puts pictures together, of the one before it. Nothing is missing where
    recordings were joined: then it is said of the last but one before a key frame; nor where counters never go on.
    """
    marked = [at for at, packet in enumerate(packets) if packet.corrupt]
    if 2 * len(marked) > len(packets):
        return frozenset()
    found = {at for at in marked if at + 2 >= len(packets) or not packets[at + 2].key}
    return frozenset(found | {at + 1 for at in found})


def beside(broken: list[int]) -> frozenset[int]:
    """Damaged packets and those before them: damage often begins in one and shows only in the next."""
    return frozenset(broken) | frozenset(at - 1 for at in broken if at)


def has_holes(frame_pts: NDArray[np.int64]) -> bool:
    """Whether frames that come evenly leave a place empty here and there: some may have been lost."""
    steps = np.diff(frame_pts)
    if len(steps) < 2:
        return False
    period = float(np.median(steps))
    longer = steps > 1.5 * period
    return bool(longer.any()) and float(longer.mean()) < 0.1


def with_empty_places(
    frame_pts: NDArray[np.int64], durations: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where frames that come evenly leave places empty, a frame for each: one that no packet will give."""
    period = int(np.median(np.diff(frame_pts)))
    missing: list[int] = []
    for before, after in pairwise(frame_pts.tolist()):
        missing += (
            range(before + period, after - period // 2, period) if after - before > 1.5 * period else ()
        )
    everything = np.concatenate([frame_pts, np.array(missing, np.int64)])
    order = np.argsort(everything, kind="stable")
    return everything[order], np.concatenate([durations, np.full(len(missing), period)])[order]


def promise_kept(
    findings: Findings,
    whole_file: bool,
    promise_s: float,
    ends_s: dict[int, float],
    stream: int,
    period_s: float,
    container_format: str,
) -> None:
    """Refuse where the packets end before the promised duration, or long after it.

    Muxers disagree about the end of the last frame, hence the frame and a half; and where the promise is the
    whole file's, any of its streams may keep it.
    """
    reached_s = max(ends_s.values()) if whole_file else ends_s[stream]
    if promise_s - reached_s > (0.5 if whole_file else 0) + 1.5 * period_s:
        findings.refuse(f"truncated: {reached_s:.1f} s of the {promise_s:.1f} s its container promises")
    if container_format == "matroska" and not whole_file and reached_s - promise_s > 1 + 1.5 * period_s:
        findings.refuse(f"damaged timestamps: up to {reached_s:.1f} s, and {promise_s:.1f} s are promised")
