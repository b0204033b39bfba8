"""Frames by PyAV: sequential, by timestamp, right for whatever libav can play.

First only what the wanted frames need is decoded, and the decoder is told to be strict. Where it complains,
everything is decoded from the beginning, as a player would, and what is said then is weighed: a file may begin in
the middle of something.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from extract.decode_index import Logs, VideoIndex, complaints, demuxed, heard, in_order, open_container
from extract.decode_packets import (
    CUT_OUT,
    HOLDING_CODECS,
    MAX_REORDERED,
    NOT_CODED_BYTES,
    Findings,
    Packet,
    TimesGoBack,
    VideoError,
)

# What libav's decoders are to check beyond what they need. "aggressive" finds slices that end too early or too
# late, which are else taken for whole: with a block of 200 random bytes in Baseline H.264, 5 of 40 files had wrong
# pixels and no error without it, none with it. Seen to pass: x264, x265, libvpx, SVT-AV1
# and JPEG, in MP4, Matroska, AVI, MPEG-TS, FLV and bare. Not so MPEG-4, where DivX and XviD write markers
# that it does not like; there, and for all others, the checks that these pass.
_STRICT = "crccheck+bitstream+buffer+careful+compliant+aggressive+explode"
_ORDINARY = "crccheck+bitstream+buffer+careful+compliant+explode"
# MPEG-1 and MPEG-2 are padded by multiplexers and broadcasters, behind the end of slices.
_PADDED = "crccheck+careful+explode"
_AGGRESSIVE_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mjpeg"})
# A command that removes a reference which the file, cut out of a longer one, never had.
_CUT_OFF = ("mmco: unref short failure", "number of reference frames")

_LEFT_OUT, _NEEDED, _WANTED = range(3)


def pyav_frames(
    index: VideoIndex, wanted: NDArray[np.int64], findings: Findings
) -> Iterator[NDArray[np.uint8] | None]:
    """Yield the frames with these numbers (increasing) as RGB (H, W, 3), upright, each of its own size.

    Decoded by one thread; nothing is kept. Raises VideoError where what they need is damaged: the decoder reports
    an error or a concealed frame, or a frame never comes. Where damaged files are wanted, None instead of it.
    """
    done = 0
    try:
        for picture in _pictures(index, wanted, _plan(index, wanted), Findings()):
            yield picture
            done += 1
        return
    except TimesGoBack:
        index = _by_order(index, findings)
    except VideoError:
        pass  # to be judged by decoding all of it
    weighed = Findings(keep=findings.keep)
    yield from _pictures(index, wanted[done:], _everything(index), weighed, strict=False)
    for remark in weighed.remarks:
        findings.remark(remark)
    if weighed.damage:
        findings.refuse(weighed.damage)


def _by_order(index: VideoIndex, findings: Findings) -> VideoIndex:
    """The same frames, numbered as they come out; their times, put in order, are still when they are shown.

    Only where the container gives the times of decoding for those of showing, as ASF and MXF do.
    Elsewhere times that go back are damage, or of pictures that may not be coded.
    """
    discarded = sum(packet.discard for packet in index.packets)
    at_the_front = all(packet.discard for packet in index.packets[:discarded])
    complete = len(index.frame_pts) + discarded == len(index.packets)
    if not in_order(index.packets) or not at_the_front or not complete:
        return index
    findings.remark("its times are not those of the pictures: they are taken in the order of decoding")
    first = next(at for at, packet in enumerate(index.packets) if packet.entry)
    packets = [packet._replace(entry=at == first) for at, packet in enumerate(index.packets)]
    return replace(index, timed=False, lost=discarded, packets=packets)


def left_out(index: VideoIndex, wanted: NDArray[np.int64]) -> float:
    """The part of the pictures that decord would decode and PyAV would not: those which nothing refers to.

    decord, too, ends in each group with the last that is wanted.
    """
    plan = _plan(index, wanted)
    decoded = 0
    used = False
    for packet, use in zip(reversed(index.packets), reversed(plan), strict=True):
        used |= use != _LEFT_OUT
        decoded += used
        if packet.entry:
            used = False
    return 1 - sum(use != _LEFT_OUT for use in plan) / decoded if decoded else 0.0


def _plan(index: VideoIndex, wanted: NDArray[np.int64]) -> list[int]:
    """Say for each packet, in the order of the file, whether a wanted frame needs it.

    A group of pictures is needed up to its last wanted frame, and in it no picture that others do not refer to.
    Pictures that are shown before the entry that they follow may need the group before, and nothing needs them but
    others of their kind (ITU-T H.265, 8.3.1 and 3.77). Nothing is left out where frames are counted.
    """
    if not index.timed:
        return _plan_by_order(index, wanted)
    if index.whole:
        return _everything(index)
    wanted_pts = set(index.frame_pts[wanted].tolist())
    plan = [_LEFT_OUT] * len(index.packets)
    group_wanted = leading_wanted = False
    pts_of = _own_or_previous_pts(index.packets)
    for at in reversed(range(len(index.packets))):
        packet = index.packets[at]
        is_wanted = pts_of[at] in wanted_pts
        if index.leading[at]:
            leading_wanted |= is_wanted
            needed = leading_wanted
        else:
            group_wanted |= is_wanted
            needed = group_wanted or leading_wanted
        if is_wanted:
            plan[at] = _WANTED
        elif needed and packet.reference:
            plan[at] = _NEEDED
        if packet.entry:
            group_wanted, leading_wanted = leading_wanted, False
    return _from_first_entry(index, plan)


def _plan_by_order(index: VideoIndex, wanted: NDArray[np.int64]) -> list[int]:
    """Groups that show a wanted frame, up to where the last of them has come out.

    That is as far beyond its place as decoders put pictures in order; what may hold a picture back is one behind.
    """
    ahead = 2 if index.codec in HOLDING_CODECS else MAX_REORDERED
    plan = [_LEFT_OUT] * len(index.packets)
    entries = [at for at, packet in enumerate(index.packets) if packet.entry]
    places = wanted + index.lost
    for start, stop in pairwise([*entries, len(plan)]):
        within = places[(places >= start) & (places < stop)]
        if len(within):
            end = min(stop, int(within[-1]) + ahead)
            plan[start:end] = [_WANTED] * (end - start)
    return _from_first_entry(index, plan)


def _everything(index: VideoIndex) -> list[int]:
    """All but the beginning of a recording cut out of a longer one: it lacks what it needs, and is not shown."""
    first_pts = int(index.frame_pts[0])
    entry_pts = next(packet.pts for packet in index.packets if packet.entry)
    if entry_pts is not None:  # it may take some pictures until all are whole
        first_pts = min(first_pts, entry_pts)
    plan = [
        _WANTED if not index.timed or p.pts is None or p.pts >= first_pts or p.discard else _LEFT_OUT
        for p in index.packets
    ]
    return _from_first_entry(index, plan)


def _from_first_entry(index: VideoIndex, plan: list[int]) -> list[int]:
    first = next(at for at, packet in enumerate(index.packets) if packet.entry)
    return [_LEFT_OUT] * first + plan[first:]


def _own_or_previous_pts(packets: list[Packet]) -> list[int | None]:
    """The second field of a frame has no time of its own."""
    found: list[int | None] = []
    for packet in packets:
        found.append(packet.pts if packet.pts is not None or not found else found[-1])
    return found


def _pictures(
    index: VideoIndex,
    wanted: NDArray[np.int64],
    plan: list[int],
    findings: Findings,
    *,
    strict: bool = True,
) -> Iterator[NDArray[np.uint8] | None]:
    reformatter = VideoReformatter()  # one for all frames: making it takes longer than what it does
    with open_container(index.path) as container:
        decoding = _Decoding(index, plan, findings, strict, container)
        frames = decoding.frames(set(wanted.tolist()))
        number, frame = -1, None
        held: av.VideoFrame | None = None
        ended = False
        for target in wanted.tolist():
            while not ended and number < target:
                held = frame if frame is not None else held
                following = next(frames, None)
                if following is None:
                    ended = True
                else:
                    number, frame = following
            if not ended and number == target and frame is not None:
                yield _upright_rgb(frame, reformatter) if not decoding.is_tainted(number) else None
            elif held is not None and decoding.stays(target) and not decoding.is_tainted(target):
                yield _upright_rgb(held, reformatter)
            else:
                at_s = index.frame_starts_s[target]
                findings.refuse(f"damaged: no frame could be decoded at {at_s:.2f} s")
                yield None
        if not index.timed:
            for _ in frames:
                pass  # to the end, to count


@dataclass
class _Decoding:
    """One pass over a file's packets. Complaints are refused; with `findings.keep`, what they touch is tainted."""

    index: VideoIndex
    plan: list[int]
    findings: Findings
    strict: bool
    container: av.container.InputContainer
    _tainted: list[tuple[int, int]] = field(default_factory=list)  # packets from, before
    _empty: set[int] = field(default_factory=set)  # numbers of frames whose packets held no picture

    def __post_init__(self) -> None:
        self._logs: Logs = []
        stream = self.container.streams[self.index.stream]
        assert isinstance(stream, av.video.stream.VideoStream)
        self._stream, self._context = stream, stream.codec_context
        stream.thread_type = "NONE"
        self._context.thread_count = 1
        checks = _STRICT if self.index.codec in _AGGRESSIVE_CODECS else _ORDINARY
        if self.index.codec in ("mpeg1video", "mpeg2video"):
            checks = _PADDED
        self._context.options = {"err_detect": checks if self.strict else checks.removesuffix("+explode")}
        packets = self.index.packets
        self._first = next(at for at, packet in enumerate(packets) if packet.entry)
        keys = [at for at, packet in enumerate(packets) if packet.key and at > self._first]
        self._second_key = keys[0] if keys else len(packets)
        self._number = _ByTime(self.index) if self.index.timed else _ByOrder(self.index, self._empty)

    def frames(self, wanted: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (number, frame), numbers increasing: all that are wanted and those before them."""
        fed = self._fed()
        ended = False
        while not ended:
            out: list[tuple[int, av.VideoFrame]] = []
            at = -1
            failure: str | None = None
            with heard() as logs:
                self._logs = logs
                while not out and not logs and failure is None:
                    try:
                        at, frames = next(fed)
                    except StopIteration:
                        ended = True
                        break
                    except av.FFmpegError as error:
                        failure = str(error.strerror)
                        fed = self._fed(self._at + 1)
                        break
                    if at in self.index.doubtful:
                        failure = "Invalid data, as the container shows"
                    numbered = self._number(at, frames)
                    out = [pair for pair in numbered if pair[0] in wanted or pair[1].is_corrupt]
                    out = numbered if out or self.index.codec in HOLDING_CODECS else []
            self._weigh(max(at, self._at), complaints(logs), failure)
            for number, frame in out:
                if frame.is_corrupt:
                    self._complain(
                        self._packet_of(number) or 0,
                        f"damaged packets: the decoder concealed errors at {self._at_s(number):.2f} s",
                    )
                yield number, frame
        if trouble := self._number.trouble():
            self.findings.refuse(trouble)

    def stays(self, number: int) -> bool:
        """Whether the frame before it stays on screen instead of this one, which is not coded."""
        if not self.index.timed:
            return number in self._empty or number >= len(self.index.frame_pts) - 1
        at = self._packet_of(number)
        if at is None:
            return False
        packet = self.index.packets[at]
        return self.index.codec in HOLDING_CODECS and packet.size <= NOT_CODED_BYTES

    def is_tainted(self, number: int) -> bool:
        """Whether something that the frame needs is damaged."""
        if not self._tainted:
            return False
        at = self._packet_of(number)
        return at is None or any(start <= at < stop for start, stop in self._tainted)

    def _fed(self, start: int = 0) -> Iterator[tuple[int, list[av.VideoFrame]]]:
        """Feed the packets of the plan; yield each one's place and what came out. Last, what was left inside."""
        if start == 0:
            self._packets = enumerate(
                p for p in demuxed(self.container, self._stream) if p.size or p.pts is not None
            )
            self._at = -1
        running = start > 0
        for at, packet in self._packets:
            if at >= len(self.plan):
                break
            use = self.plan[at]
            if use == _LEFT_OUT:
                self._logs.clear()  # what was said when it was read
                continue
            skipped = at - self._at > 1 or (self._tainted and self._tainted[-1][1] == at)
            if running and skipped and self.index.packets[at].entry:
                # A group for itself, as if the file began here.
                frames = self._context.decode(None)
                self._context.flush_buffers()
                yield -1, frames
            self._at, running = at, True
            # Decoded only if another picture refers to it: the decoder knows. Where frames are counted, all are.
            self._context.skip_frame = "NONREF" if use == _NEEDED else "DEFAULT"
            yield at, self._context.decode(packet)
        if running:
            yield -1, self._context.decode(None)

    def _weigh(self, at: int, lines: list[str], failure: str | None) -> None:
        for line in lines:
            if self._is_harmless(at, line):
                self.findings.remark(CUT_OUT)
            else:
                failure = line if failure is None or failure.startswith("Invalid data") else failure
                break
        else:
            if failure is None:
                return
        self._complain(at, f"damaged packets after {self._at_s_of_packet(at):.2f} s: {failure}")

    def _is_harmless(self, at: int, line: str) -> bool:
        if self.strict:
            return False
        if at < self._second_key and not self.index.packets[0].key:
            return True  # a recording that starts in the middle complains about what came before
        # So does what follows a key frame that is no entry: at the beginning, and where two cuts were joined.
        return self.index.codec == "h264" and any(text in line for text in _CUT_OFF) and self._is_open(at)

    def _is_open(self, at: int) -> bool:
        """Whether the group of a packet begins with a key frame that needs what was before it."""
        packets = self.index.packets
        key = next((k for k in range(min(at, len(packets) - 1), -1, -1) if packets[k].key), 0)
        return self.index.begins_within if key <= self._first else not packets[key].entry

    def _complain(self, at: int, reason: str) -> None:
        self.findings.refuse(reason)
        packets = self.index.packets
        at = max(at, 0)
        following = next((k for k in range(at + 1, len(packets)) if packets[k].entry), len(packets))
        while following < len(packets) - 1 and self.index.leading[following + 1]:
            following += 1  # they may need what is damaged
        self._tainted.append((at, len(packets) if self.index.packets_lost else following))

    def _packet_of(self, number: int) -> int | None:
        if not self.index.timed:
            return min(number + self.index.lost, len(self.index.packets) - 1)
        if not hasattr(self, "_places"):
            self._places = {packet.pts: at for at, packet in enumerate(self.index.packets)}
        return self._places.get(int(self.index.frame_pts[number]))

    def _at_s(self, number: int) -> float:
        return float(self.index.frame_starts_s[min(number, len(self.index.frame_starts_s) - 1)])

    def _at_s_of_packet(self, at: int) -> float:
        """When the picture of a packet is shown, or the one that is by then."""
        if not self.index.timed:
            return self._at_s(max(at - self.index.lost, 0))
        pts = _own_or_previous_pts(self.index.packets)[at] if at >= 0 else None
        if pts is None:
            return 0.0
        return self._at_s(max(0, int(np.searchsorted(self.index.frame_pts, pts, side="right")) - 1))


class _ByTime:
    """Numbers frames by their pts. Raises TimesGoBack where these go back."""

    def __init__(self, index: VideoIndex) -> None:
        self._index = index
        self._last_pts: int | None = None
        self._alike = 0  # how many came before it at the very same time

    def __call__(self, at: int, frames: list[av.VideoFrame]) -> list[tuple[int, av.VideoFrame]]:
        numbered = []
        frame_pts = self._index.frame_pts
        for frame in frames:
            if frame.pts is None or frame.pts < frame_pts[0]:
                continue  # not shown
            if self._last_pts is not None and frame.pts < self._last_pts:
                at_s = float((self._last_pts - frame_pts[0]) * (frame.time_base or 0))
                raise TimesGoBack(f"damaged timestamps: they go back after {at_s:.2f} s")
            self._alike = self._alike + 1 if frame.pts == self._last_pts else 0
            self._last_pts = frame.pts
            number = int(np.searchsorted(frame_pts, frame.pts)) + self._alike
            if number < len(frame_pts) and frame_pts[number] == frame.pts:
                numbered.append((number, frame))
        return numbered

    def trouble(self) -> None:
        return None


class _ByOrder:
    """Numbers frames by the packets that they come out for: in each group the first is that of its entry.

    A packet of the codecs that may hold a picture back holds none if nothing comes out for it; of the others,
    every packet is a frame.
    """

    def __init__(self, index: VideoIndex, empty: set[int]) -> None:
        self._index, self._empty = index, empty
        self._holds, self._lost = index.holding, index.lost
        self._start = self._delay = self._next = 0
        self._fed = self._came = self._silent = 0
        self._begun = False
        self._trouble: str | None = None

    def __call__(self, at: int, frames: list[av.VideoFrame]) -> list[tuple[int, av.VideoFrame]]:
        if at < 0:
            numbered = [(self._next + ahead, frame) for ahead, frame in enumerate(frames)]
            self._came += len(frames)
            self._end()
            return numbered
        if self._fed == 0:
            self._start = max(at, self._lost)
            self._next = self._start - self._lost
            self._silent = self._start - at  # packets that are known to give no frame
        self._fed += 1
        self._came += len(frames)
        if self._holds:
            if not self._begun and frames:
                self._begun, self._delay = True, at - self._start
            elif self._begun and not frames:
                self._empty.add(at - self._delay - self._lost)
                if self._index.packets[at].size > NOT_CODED_BYTES:
                    self._trouble = self._trouble or f"damaged: packet {at} gave no picture"
            if frames:
                self._next = max(self._next, at - self._delay - self._lost)
        numbered = [(self._next + ahead, frame) for ahead, frame in enumerate(frames)]
        self._next += len(frames)
        return numbered

    def _end(self) -> None:
        if not self._holds and self._came != self._fed - self._silent:
            self._trouble = self._trouble or f"damaged: {self._came} frames decoded from {self._fed} packets"
        self._fed = self._came = 0
        self._begun = False

    def trouble(self) -> str | None:
        """What is wrong with the number of frames."""
        return self._trouble


def _upright_rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    """RGB as players show it: turned and mirrored by quarter turns (display matrix, ISO/IEC 14496-12, 6.2.2)."""
    try:
        picture = reformatter.reformat(frame, format="rgb24").to_ndarray()
    except (av.FFmpegError, ValueError) as error:  # libav has no arithmetic for its colour matrix, say
        reason = error.strerror if isinstance(error, av.FFmpegError) else error
        raise VideoError(f"its pixels cannot be turned into RGB ({reason})") from error
    image: NDArray[np.uint8] = picture.astype(np.uint8, copy=False)  # it is, but its type cannot say so
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    # A point (x, y) goes to (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(int).tolist()
    if abs(b) > 10 * abs(a) and abs(c) > 10 * abs(d):
        image, right, down = image.transpose(1, 0, 2), c, b
    elif abs(a) > 10 * abs(b) and abs(d) > 10 * abs(c):
        right, down = a, d
    else:
        return image
    return image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
