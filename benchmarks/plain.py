"""What a player shows of a video, found by decoding every frame of it: the reference that `extract` is checked by.

It shares no code with `extract`: PyAV, one thread, every packet in the order of the file, no seeking, nothing left
out, and on after an error. A frame is taken to need every packet from its key frame's to its own, but for pictures
that nothing refers to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.logging
import numpy as np
from numpy.typing import NDArray

# What libav makes of a picture or a text is no video.
_STILLS = re.compile(r"image2|.*_pipe|tty|bin|xbin|adf|idf")
# What they hold may move, or not.
_PICTURES = frozenset({"gif", "apng", "webp", "jpegxl_anim", "avif"})
# Their packets have no times, or libav's guesses: frames come at the rate.
_BARE = frozenset({"h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu", "h263", "h261", "dirac", "cavsvideo"})
_MPEG_STREAMS = frozenset({"mpegts", "mpeg"})
_MILLISECONDS = re.compile(r"matroska|flv|asf")
_INCOMPLETE = "the demuxer takes a packet to be incomplete"
_BY_THE_WAY = ("concealing", "Skipping invalid undecodable NALU", "dqt: 0 quant value")
# They come with right pictures, too: a command of H.264 that tidies up a reference which a cut has left behind;
# counters of an MPEG-TS that start anew where it was joined.
_HARMLESS = re.compile(rf"mmco: unref short failure|{_INCOMPLETE}")


class NoVideo(Exception):
    """libav finds no moving pictures in a file, or none that can be shown. The message is one line."""


class Heard(NamedTuple):
    """A complaint, and the packet that it was at; -1: before the first."""

    packet: int
    text: str


class _Decoded(NamedTuple):
    """A frame as it came out of the decoder: times in ticks, and the packets from its key frame's to its own."""

    pts: int | None
    dts: int | None
    duration: int
    needs: range
    corrupt: bool


@dataclass
class Showing:
    """What a player would show of a file, and when.

    container, codec: libav's names.
    starts_s: when each frame comes on screen, in seconds after the first; empty where none can be decoded.
    duration_s: from the start of the first frame to the end of the last.
    tolerance_s: how far the container may have rounded a start.
    heard: what demuxer and decoder complained of; empty for a whole file.
    harmless: complaints that may come with right pictures.
    missing: what the container promises and does not hold, or None.

    Raises NoVideo.
    """

    path: Path
    container: str = ""
    codec: str = ""
    starts_s: list[float] = field(default_factory=list)
    duration_s: float = 0.0
    tolerance_s: float = 5e-4
    heard: list[Heard] = field(default_factory=list)
    harmless: list[Heard] = field(default_factory=list)
    missing: str | None = None
    _needs: list[range] = field(default_factory=list)
    _lost: dict[int, list[tuple[float, int]]] = field(default_factory=dict)  # after a frame: when, packet
    _disposable: set[int] = field(default_factory=set)  # packets that no other refers to
    # Of HEVC: packets shown before their key frame, which no others need.
    _leading: set[int] = field(default_factory=set)
    _left_out: set[int] = field(default_factory=set)  # places of frames, among all that are decoded

    def __post_init__(self) -> None:
        decoded: list[_Decoded] = []
        slots: list[int] = []  # dts of each packet
        times: list[int | None] = []  # pts of each packet
        place_of: dict[int | None, int] = {}  # the packet with a pts
        disposable: set[int] = set()
        keys: list[tuple[int, int | None]] = []  # packet, pts
        with _opened(self.path) as (container, stream):
            self.container = container.format.name.split(",")[0]
            self.codec = stream.codec_context.codec.canonical_name
            tick_s = float(stream.time_base or 0)
            rate = float(stream.average_rate or stream.guessed_rate or 25)
            announced = stream.frames
            promised_s, slack_s = _promised_s(container, stream, self.container)
            for at, packet, frames in _fed(container, stream, self._hear):
                if packet is not None:
                    times.append(packet.pts)
                    if _is_disposable(packet, self.codec):
                        disposable.add(at)
                    place_of[packet.pts] = at
                    slots.append(at if packet.dts is None else packet.dts)
                    if packet.is_keyframe:
                        keys.append((at, packet.pts))
                for frame in frames:
                    pts = frame.pts
                    key = next((k for k, t in reversed(keys) if t is None or pts is None or t <= pts), None)
                    own = at if pts is None else place_of.get(pts, at)
                    needs = range(min(key or 0, own), own + 1)
                    decoded.append(_Decoded(pts, frame.dts, frame.duration or 0, needs, frame.is_corrupt))
            index = getattr(stream, "index_entries", ()) if self.container == "avi" else ()
            in_index = sum(entry.size > 0 for entry in index)
        if self.container in _PICTURES and len(slots) == 1:
            raise NoVideo(f"a still picture ({self.container})")
        if not decoded:
            self.missing = "every frame"
            return
        if keys:
            self._forget_before(*keys[0], decoded, times)
        self._disposable = disposable
        self._leading = _leading(times, keys) if self.codec == "hevc" else set()
        if self.container == "mpegts":
            self._hear_of_torn({at for at, _ in keys}, len(slots))
        begin_s = self._set_times(decoded, slots, place_of, tick_s, rate)
        period_s = self.duration_s / len(self.starts_s)
        reached_s = begin_s + self.duration_s
        # Where every frame that is announced has come, the header only says too much.
        if len(self.starts_s) - 1 in self._lost:
            self.missing = f"every frame after {self.starts_s[-1]:.2f} s"
        elif len(slots) < in_index:
            self.missing = f"{in_index - len(slots)} packets that its index has"
        elif len(slots) != announced and promised_s - reached_s > slack_s + 1.5 * period_s:
            self.missing = f"{reached_s:.1f} of {promised_s:.1f} s"

    def _forget_before(
        self, key: int, key_pts: int | None, decoded: list[_Decoded], times: list[int | None]
    ) -> None:
        """Leave out what comes before the first key frame, in the file or on screen: it lacks what it needs."""

        def unseen(at: int, pts: int | None) -> bool:
            return at < key or (pts is not None and key_pts is not None and pts < key_pts)

        left_out = {n for n, frame in enumerate(decoded) if unseen(frame.needs[-1], frame.pts)}
        if len(left_out) < len(decoded):  # else there is nothing better to be shown
            self._left_out = left_out
            packets = {at for at, pts in enumerate(times) if unseen(at, pts)}
            self.heard = [said for said in self.heard if said.packet not in packets]

    def _hear(self, at: int, text: str) -> None:
        (self.harmless if _HARMLESS.search(text) else self.heard).append(Heard(at, text))

    def _hear_of_torn(self, keys: set[int], count: int) -> None:
        """Counters of an MPEG-TS that do not go on within a packet: a part of it is missing, or of the next.

        Not so the last but one before a key frame: there something else was joined.
        """
        torn = {at for at, text in self.harmless if text == _INCOMPLETE}
        if 2 * len(torn) <= count:
            for at in torn - {key - 2 for key in keys}:
                self.heard += [Heard(at, _INCOMPLETE), Heard(at + 1, _INCOMPLETE)]

    def _set_times(
        self,
        decoded: list[_Decoded],
        slots: list[int],
        place_of: dict[int | None, int],
        tick_s: float,
        rate: float,
    ) -> float:
        """Return when the first frame is shown on the container's clock, in seconds."""
        shown = [frame for place, frame in enumerate(decoded) if place not in self._left_out]
        last = shown[-1].duration
        if self.container == "avi":
            ticks = _in_slots(shown, sorted(slots))
            last = 1
        elif self.container in _BARE or any(frame.pts is None for frame in shown):
            ticks, tick_s, last = list(range(len(shown))), 1 / rate, 1
        else:
            ticks = [frame.pts or 0 for frame in shown]
            if self.container in _MPEG_STREAMS:
                ticks = _joined(ticks, round(1 / rate / tick_s))
            ticks.sort()  # a decoder's order is that of the pictures; it is times which are exchanged
        self.starts_s = [(tick - ticks[0]) * tick_s for tick in ticks]
        self._needs = [frame.needs for frame in shown]
        for frame in shown:
            if frame.corrupt:
                self.heard.append(Heard(frame.needs[-1], "a frame is marked corrupt"))
        self._put_lost_frames_down(shown, place_of, tick_s)
        spread_s = self.starts_s[-1] / (len(shown) - 1) if self.starts_s[-1] > 0 else 1 / rate
        self.duration_s = self.starts_s[-1] + (last * tick_s or spread_s)
        self.tolerance_s = 5e-4 if _MILLISECONDS.match(self.container) else min(tick_s / 2, 5e-4)
        return ticks[0] * tick_s

    def _put_lost_frames_down(
        self, shown: list[_Decoded], place_of: dict[int | None, int], tick_s: float
    ) -> None:
        """A packet that was complained of and gave no frame: the frame before it is shown for too long."""
        complained = {at for at, _ in self.heard}
        came = {frame.pts for frame in shown}
        times = [frame.pts or 0 for frame in shown]
        for pts, at in place_of.items():
            if pts is not None and at in complained and pts not in came:
                before = max(int(np.searchsorted(times, pts)) - 1, 0)
                since_s = self.starts_s[before] + (pts - times[before]) * tick_s
                self._lost.setdefault(before, []).append((since_s, at))

    def instants(self, fps: float) -> list[float]:
        """0, 1 / fps, 2 / fps ... before the end; at least one."""
        end_s = self.duration_s - min(5e-4, 0.25 / fps)
        return [k / fps for k in range(int(self.duration_s * fps) + 2) if k == 0 or k / fps < end_s]

    def at(self, instant_s: float) -> int:
        """The number of the frame on screen: the last that began by then; before all of them, the first."""
        begun = int(np.searchsorted(self.starts_s, instant_s + self.tolerance_s, side="right"))
        return max(begun - 1, 0)

    def heard_of(self, numbers: Iterable[int]) -> list[str]:
        """What was said of the packets that these frames need."""
        if not self.heard:
            return []
        wanted = list(numbers)
        packets = {at for number in wanted for at in self._needs[number]} - self._disposable
        packets.update(self._needs[number][-1] for number in wanted)
        packets.update(at for number in wanted for _, at in self._lost.get(number, ()))
        return self._said_of(packets)

    def heard_at(self, instants_s: Iterable[float]) -> list[str]:
        """What was said of the packets that what is on screen then needs, or that should have been on screen."""
        if not self.heard:
            return []
        packets: set[int] = set()
        for instant_s in instants_s:
            number = self.at(instant_s)
            own = self._needs[number][-1]
            needless = self._disposable if own in self._leading else self._disposable | self._leading
            packets |= set(self._needs[number]) - needless | {own}
            until_s = instant_s + self.tolerance_s
            packets |= {at for since_s, at in self._lost.get(number, ()) if since_s <= until_s}
        return self._said_of(packets)

    def _said_of(self, packets: set[int]) -> list[str]:
        return [text for at, text in self.heard if at in packets]

    def rows(self, fps: float = 1.0) -> list[NDArray[np.uint8]]:
        """What is on screen at each of the `instants`."""
        numbers = [self.at(instant_s) for instant_s in self.instants(fps)]
        pictures = dict(zip(sorted(set(numbers)), self.frames(numbers), strict=True))
        return [pictures[number] for number in numbers]

    def frames(self, numbers: Iterable[int]) -> Iterator[NDArray[np.uint8]]:
        """The frames with these numbers in order, RGB (H, W, 3), each of its own size, turned as players do.

        Raises NoVideo where libav has no arithmetic for their colours.
        """
        wanted = set(numbers)
        place = number = -1
        with _opened(self.path) as (container, stream):
            for _, _, frames in _fed(container, stream, lambda _at, _text: None):
                for frame in frames:
                    place += 1
                    number += place not in self._left_out
                    if place not in self._left_out and number in wanted:
                        yield _upright(frame)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A container and the stream of it that a player shows, to be decoded by one thread. Raises NoVideo."""
    try:
        container = av.open(
            path.absolute(), options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except (av.FFmpegError, ValueError) as error:
        raise NoVideo(f"libav cannot open it: {error}") from error
    with container:
        if _STILLS.fullmatch(container.format.name.split(",")[0]):
            raise NoVideo(f"a still picture or a text ({container.format.name})")
        covers = av.stream.Disposition.attached_pic
        streams: list[Any] = [s for s in container.streams.video if not s.disposition & covers]
        best = container.streams.best("video")
        stream = next((s for s in streams if best is not None and s.index == best.index), None)
        stream = stream or next(iter(streams), None)
        if stream is None or stream.codec_context is None:
            raise NoVideo("no stream of pictures that libav can decode")
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        yield container, stream


def _fed(
    container: Any, stream: Any, hear: Callable[[int, str], None]
) -> Iterator[tuple[int, Any, list[av.VideoFrame]]]:
    """Yield each packet of the stream with its number and the frames that came out when it was fed.

    Last, None and those that come out at the end. `hear` is told what was said of each.
    """
    at = failures = 0
    ended = False
    packets = container.demux(stream)
    while not ended:
        with _logged(at, stream.index, hear):
            packet = None
            try:
                packet = next(packets, None)
                ended = packet is None or (packet.size == 0 and packet.dts is None)
            except IndexError:  # PyAV knows the streams that were there when it opened the file
                hear(at, "a stream begins in the middle that the beginning does not announce")
                ended = True
            except av.FFmpegError as error:
                hear(at, f"demuxer: {error.strerror}")
                failures += 1
                ended = failures > 3
                packets = container.demux(stream)
                continue
            if packet is not None and packet.is_corrupt:
                hear(at, _INCOMPLETE)
            if not ended and packet is not None and packet.size == 0:
                continue  # AVI: the picture before it stays
            frames: list[av.VideoFrame] = []
            try:
                frames = stream.codec_context.decode(None if ended else packet)
            except av.FFmpegError as error:
                hear(at, f"decoder: {error.strerror}")
        yield at, None if ended else packet, frames
        at += 1


def _is_disposable(packet: Any, codec: str) -> bool:
    """Whether no other picture refers to this one, where its first bytes say so.

    H.264: nal_ref_idc is 0 (ITU-T H.264, 7.4.1); HEVC: even types below 16 (ITU-T H.265, 7.4.2.2);
    MPEG-1 and 2: picture_coding_type B (ITU-T H.262, 6.3.9); MPEG-4: vop_coding_type B.
    """
    content = bytes(packet)
    if codec in ("mpeg1video", "mpeg2video"):
        header = content.find(b"\0\0\1\0") + 5
        return header > 4 and len(content) > header and (content[header] >> 3 & 7) == 3
    if codec == "mpeg4":
        header = content.find(b"\0\0\1\xb6") + 4
        return header > 3 and len(content) > header and content[header] >> 6 == 2
    if codec not in ("h264", "hevc"):
        return False
    # A description in front, which begins with 1, says that units have their lengths before them.
    described = (packet.stream.codec_context.extradata or b"").startswith(b"\1")
    start_codes = not described or content[:4] == b"\0\0\0\1"
    at = 0
    while at + 5 < len(content):
        if start_codes:
            at = content.find(b"\0\0\1", at) + 3
            if at < 3 or at >= len(content):
                break
            header, following = content[at], at
        else:
            header, following = content[at + 4], at + 4 + int.from_bytes(content[at : at + 4], "big")
        if codec == "h264" and 1 <= header & 31 <= 5:
            return header & 0x60 == 0
        if codec == "hevc" and header >> 1 < 32:
            return header >> 1 < 16 and header >> 1 & 1 == 0
        at = following
    return False


def _leading(times: list[int | None], keys: list[tuple[int, int | None]]) -> set[int]:
    """Packets that are shown before the key frame that they follow (ITU-T H.265, 3.77)."""
    found = set()
    for (key, key_pts), following in zip(keys, [*(at for at, _ in keys[1:]), len(times)], strict=True):
        for at in range(key, following):
            pts = times[at]
            if pts is not None and key_pts is not None and pts < key_pts:
                found.add(at)
    return found


@contextmanager
def _logged(at: int, stream: int, hear: Callable[[int, str], None]) -> Iterator[None]:
    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.INFO)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as logs:
            yield
        for importance, name, text in logs:
            # That it makes up for what is damaged, or leaves it out, a decoder says by the way.
            if importance <= av.logging.ERROR or text.startswith(_BY_THE_WAY):
                hear(at, f"{name}: {' '.join(text.split())}")
            elif f"Packet corrupt (stream = {stream}," in text:
                # The parser behind the demuxer may keep it to itself.
                hear(at, _INCOMPLETE)
    finally:
        av.logging.set_skip_repeated(skip)
        av.logging.set_level(level)


def _in_slots(frames: list[_Decoded], slots: list[int]) -> list[int]:
    """When AVI's frames are shown: each packet is a slot.

    Where packets are more than frames, some hold no picture: a frame's slot is then that of the packet which made
    it come out, for codecs of MPEG-4's time have one frame of delay or none.
    """
    if len(frames) == len(slots):
        return slots
    ticks: list[int] = []
    step = int(np.median(np.diff(slots))) if len(slots) > 1 else 1  # of those that come out at the end
    for frame in frames:
        last = ticks[-1] if ticks else -step
        ticks.append(last + step if frame.dts is None else max(frame.dts, last + 1))
    return ticks


def _joined(ticks: list[int], period: int) -> list[int]:
    """The times of MPEG streams joined one behind the other: where the clock goes back, it goes on instead."""
    joined: list[int] = []
    offset = 0
    for tick in ticks:
        if joined and tick + offset < joined[-1]:
            offset = joined[-1] + period - tick
        joined.append(tick + offset)
    return joined


def _promised_s(container: Any, stream: Any, name: str) -> tuple[float, float]:
    """When, by its header, the pictures end, in seconds, and by how much that may be wrong; 0: it does not say.

    Of MPEG streams and bare ones, libav takes it from what is there.
    """
    tag = str(stream.metadata.get("DURATION", "")) if name == "matroska" else ""
    if re.fullmatch(r"\d+:\d+:\d+(\.\d+)?", tag):
        hours, minutes, seconds = tag.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds), 0.0
    if name == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate), 0.0
    if name == "mov" and stream.duration:
        return float(stream.duration * stream.time_base), 0.0
    if name in ("matroska", "flv", "asf", "ogg") and len(container.streams) == 1 and container.duration:
        return (container.duration + (container.start_time or 0)) / 1e6, 0.5
    return 0.0, 0.0


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """A frame as RGB, turned and mirrored by its display matrix (ISO/IEC 14496-12, 6.2.2), in quarter turns."""
    try:
        picture: NDArray[np.uint8] = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    except (av.FFmpegError, ValueError) as error:
        raise NoVideo(f"its pixels cannot be turned into RGB: {error}") from error
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return picture
    a, b, _, c, d = np.frombuffer(side_data, np.int32)[:5].astype(int).tolist()
    # A point (x, y) goes to (a x + c y, b x + d y).
    if abs(b) > 10 * abs(a) and abs(c) > 10 * abs(d):
        picture, a, d = picture.transpose(1, 0, 2), c, b
    elif abs(a) < 10 * abs(b) or abs(d) < 10 * abs(c):
        return picture  # by an angle that is no quarter turn, or by nothing that makes sense
    upright: NDArray[np.uint8] = picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return upright
