"""What a video file holds, read from its packets without decoding a frame: when each frame is shown, and
whether the file keeps what its container promises.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np
from numpy.typing import NDArray

from extract.decode_packets import (
    CUT_OUT,
    HOLDING_CODECS,
    MAX_REORDERED,
    NOT_CODED_BYTES,
    Findings,
    Packet,
    VideoError,
    all_found,
    beside,
    has_holes,
    leading,
    long_gaps,
    lost_frames,
    new_clocks,
    no_complaint,
    on_one_clock,
    order,
    promise_kept,
    repeats,
    shown,
    torn,
    with_empty_places,
)
from extract.pictures import are_whole, h264_oddity, h264_picture, mpeg4_kinds, nal_length_size
from extract.sampling import CLOCK_TOLERANCE_S

# Guesses libav makes from a file's name or first bytes that are no video: a text file is "tty" (ANSI art).
_STILL_OR_TEXT_FORMATS = ("tty", "image2", "bin", "xbin", "adf", "idf")
# Moving pictures, or one that does not move.
_PICTURE_FORMATS = ("gif", "apng", "webp", "jpegxl_anim", "avif")
# Without usable presentation times: frames are taken in the order in which the decoder returns them.
_UNTIMED_FORMATS = frozenset(
    {"avi", "h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu", "ivf", "h263", "h261", "dirac", "cavsvideo"}
)
# Where decord seeks to exactly the key frame it asks for: it counts frames from there.
_DECORD_FORMATS = frozenset({"mov", "matroska"})
# Where what a container calls a key frame is one, or the decoder says that it lacks what comes before.
# fmt: off
_KEYED_CODECS = frozenset({
    "hevc", "mpeg4", "mpeg1video", "mpeg2video", "h263", "flv1", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1",
    "wmv2", "vp8", "vp9", "av1",
})
# fmt: on
# Whose decoder gives nothing for pictures that need what was before its first, and says nothing.
_LEAVING_OUT_CODECS = frozenset({"hevc", "mpeg1video", "mpeg2video", "mpeg4"})
# Of these, those that show pictures in another order than that of their packets.
_REORDERING_CODECS = frozenset({"hevc", "mpeg1video", "mpeg2video", "av1"})


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a video in the order in which they are shown, from its packets.

    frame_pts: (F,) int64, not decreasing, in ticks of the stream's clock; F >= 1.
    frame_starts_s: (F,) float64, seconds after the first frame shown.
    duration_s: seconds from the start of the first frame to the end of the last.
    tolerance_s: how far the container may have rounded a start.
    codec: libav's name.
    stream: index of the video stream in its container.
    timed: whether decoded frames carry these pts; if not, frames are counted.
    lost: where frames are counted, how many packets at the beginning give none, those before the entry and some
        behind it, as what they need was cut off. Frame n is what packet n + lost is decoded to, or follows it.
    packets: in the order of the file, which is that of decoding; at least one is an entry.
    leading: of each, whether it is shown before the entry that it follows.
    begins_within: whether it begins with a key frame of H.264 that may need what was before it, in a longer video.
    packets_lost: whether untimed packets are missing, so that frames after a damaged one cannot be placed.
    whole: whether all pictures must be decoded to find out what is wrong: some of an MPEG stream may have been
        lost, or the times may be those of decoding.
    holding: whether packets may hold no picture, or two, so that the one before stays or comes late.
    doubtful: places of packets that are damaged, or lie beside damage, as their container shows.
    decord_objection: why decord's frames would be wrong, or None.
    """

    path: Path
    frame_pts: NDArray[np.int64]
    frame_starts_s: NDArray[np.float64]
    duration_s: float
    tolerance_s: float
    codec: str
    stream: int
    timed: bool
    lost: int
    packets: list[Packet]
    leading: list[bool]
    begins_within: bool
    packets_lost: bool
    whole: bool
    holding: bool
    doubtful: frozenset[int]
    decord_objection: str | None


Logs = list[tuple[int, str, str]]
# Of H.264 and MPEG-4 what was made up for; of HEVC that a slice was left undecoded; of JPEG a table that none has.
_BY_THE_WAY = ("concealing", "Skipping invalid undecodable NALU", "dqt: 0 quant value")


@contextmanager
def heard() -> Iterator[Logs]:
    """Collect what PyAV's libav reports meanwhile; `complaints` picks out what matters."""
    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.INFO)
    av.logging.set_skip_repeated(False)  # else the repeats of one file are reported in the next
    try:
        with av.logging.Capture() as logs:
            yield logs
    finally:
        av.logging.set_skip_repeated(skip)
        av.logging.set_level(level)


def complaints(logs: Logs) -> list[str]:
    """The errors among what was heard, as lines such as 'h264: missing picture'.

    Some damage is reported as information, or as a warning, with a frame that is given for whole.
    """
    return [
        f"{name}: {' '.join(text.split())}"
        for level, name, text in logs
        if level <= av.logging.ERROR or text.startswith(_BY_THE_WAY)
    ]


def open_container(path: Path, *, log: list[str] | None = None) -> av.container.InputContainer:
    """Open a file for PyAV. Raises VideoError where libav recognises nothing in it.

    What it complains of meanwhile is added to `log`. Only local files are read, whatever a playlist or an
    external reference inside the file says. The path is made absolute: libav would take 'a:b.mp4' for a protocol.
    """
    with heard() as logs:
        try:
            container = av.open(
                path.absolute(), "r", options={"protocol_whitelist": "file"}, metadata_errors="replace"
            )
        except (av.FFmpegError, ValueError) as error:
            raise VideoError(f"not a video: {_reason(error)}") from error
    if log is not None:
        log.extend(complaints(logs))
    return container


def read_index(path: Path, findings: Findings) -> VideoIndex:
    """Read the index of a video by walking over its packets.

    Raises VideoError: not a video, truncated ...; what is only a part of a video is left to `findings`.
    """
    _require_content(path)
    opening: list[str] = []
    with open_container(path, log=opening) as container, heard() as logs:
        demuxer = container.format.name
        container_format = demuxer.split(",")[0]
        if container_format in _STILL_OR_TEXT_FORMATS or container_format.endswith("_pipe"):
            raise VideoError(f"not a video: a text or still image ({container_format})")
        stream = _video_stream(container)
        codec_context: Any = stream.codec_context  # None where libav knows no decoder
        if stream.time_base is None or codec_context is None:
            raise VideoError("no decoder for its video stream")
        tick_s = float(stream.time_base)
        walk = _walk(container, stream, findings, logs)
        promised_s = _promised_duration_s(container, stream, container_format)
        codec = codec_context.codec.canonical_name
        objection = _decord_objection(container_format, codec, stream)
        stream_index = stream.index  # a closed container's attributes are whatever is in memory
        rate = float(stream.average_rate or stream.guessed_rate or 25)

    packets, errors = walk.packets, complaints(logs)
    _require_moving_pictures(walk, container_format, errors, findings)
    stream_tick_s = tick_s
    holding = codec in HOLDING_CODECS and (walk.packed or any(p.size <= NOT_CODED_BYTES for p in packets))
    first = _first_key(packets)
    if packets[first].pts is not None and repeats(packets[first : first + 2]):
        # Times before zero are zero in Matroska: of pictures that are not shown, perhaps.
        hidden = slice(first + 1, _lost_at_beginning(path, stream_index, codec, walk, holding) + 1)
        packets[hidden] = [packet._replace(pts=None) for packet in packets[hidden]]
    clock = _timeline(packets, container_format, tick_s, rate, walk.packed, findings)
    timed, frame_pts, durations, tick_s = clock
    begins_within = _begins_within(packets, codec)
    if begins_within and timed:
        first_pts = _first_shown(path, stream_index, packets, int(frame_pts[0]))
        durations, frame_pts = durations[frame_pts >= first_pts], frame_pts[frame_pts >= first_pts]
    period_s = _period_s(frame_pts, tick_s, rate)
    lost = 0 if timed else _lost_at_beginning(path, stream_index, codec, walk, holding)
    if promised_s is not None:
        promise_kept(findings, *promised_s, walk.ends_s, stream_index, period_s, container_format)
    no_complaint(demuxer, opening + errors, findings)
    _incomplete(packets, container_format, stream_tick_s, findings)
    doubtful = beside(walk.broken) | (torn(packets) if container_format == "mpegts" else frozenset())
    holes = timed and has_holes(frame_pts)
    if findings.damage is not None and holes:
        # What was lost is to be missed, not to be taken for a long frame.
        frame_pts, durations = with_empty_places(frame_pts, durations)
    if lost:
        frame_pts, durations = _without_lost(frame_pts, lost), durations[lost:]
        findings.remark(CUT_OUT)
    starts_s = (frame_pts - frame_pts[0]) * tick_s
    duration_s = float(starts_s[-1]) + (float(durations[-1]) * tick_s if durations[-1] > 0 else period_s)

    packets = _with_entries(packets, codec, timed, walk, intra_only=av.Codec(codec, "r").intra_only)
    behind = leading(packets) if timed else [False] * len(packets)
    return VideoIndex(
        path=path,
        frame_pts=frame_pts,
        frame_starts_s=starts_s,
        duration_s=duration_s,
        tolerance_s=min(tick_s / 2, CLOCK_TOLERANCE_S),
        codec=codec,
        stream=stream_index,
        timed=timed,
        lost=lost,
        packets=packets,
        leading=behind,
        begins_within=begins_within,
        packets_lost=not timed and findings.damage is not None,
        whole=(holes and container_format in ("mpegts", "mpeg"))
        or (timed and walk.delayed and _times_of_decoding(packets)),
        holding=holding,
        doubtful=doubtful,
        decord_objection=objection
        or walk.oddity
        or ("damaged packets" if doubtful else _packets_objection(packets, timed, behind)),
    )


def _require_moving_pictures(
    walk: _Walk, container_format: str, errors: list[str], findings: Findings
) -> None:
    if not walk.packets:
        raise VideoError("no frames: its video stream has no packet" + (f" ({errors[-1]})" if errors else ""))
    if not walk.packets[0].key and not walk.packets[0].picture:
        findings.refuse("damaged: there is no picture in its first packet")
    if container_format in _PICTURE_FORMATS and len(walk.packets) == 1:
        raise VideoError(f"not a video: a still image ({container_format})")
    if walk.packed:
        findings.remark("packed B-frames: some packets hold two pictures, others none")


def _begins_within(packets: list[Packet], codec: str) -> bool:
    """Whether H.264 was cut out of a longer stream at a key frame that may need what was before it."""
    return codec == "h264" and not next((packet.entry for packet in packets if packet.key), True)


def _first_shown(path: Path, stream_index: int, packets: list[Packet], default: int) -> int:
    """The pts of the first frame that the decoder shows: it waits until a picture is refreshed as a whole.

    Where it shows none, the default.
    """
    first_key = next(at for at, packet in enumerate(packets) if packet.key)
    with open_container(path) as container, heard(), contextlib.suppress(av.FFmpegError):
        stream: Any = container.streams[stream_index]
        stream.thread_type = "NONE"
        every = (packet for packet in demuxed(container, stream) if packet.size or packet.pts is not None)
        for at, packet in enumerate(every):
            for frame in stream.codec_context.decode(packet) if at >= first_key else ():
                if frame.pts is not None and frame.pts >= default:
                    return int(frame.pts)
    return default


def _times_of_decoding(packets: list[Packet]) -> bool:
    """Whether no picture is shown later than it is decoded: where a decoder holds frames back, that cannot be.

    A stream that allows B-frames and has none is shown a little later throughout.
    """
    return all(packet.pts == packet.dts for packet in packets)


def in_order(packets: list[Packet]) -> bool:
    """Whether the times of the packets never go back."""
    times = [packet.pts for packet in packets if packet.pts is not None]
    return all(before <= after for before, after in pairwise(times))


def _lost_at_beginning(path: Path, stream_index: int, codec: str, walk: _Walk, holding: bool) -> int:
    """How many packets at the beginning give no frame: those before the first key frame, and pictures behind it
    that need them, which a decoder leaves out without a word.
    """
    first = _first_key(walk.packets)
    if codec not in _LEAVING_OUT_CODECS or (codec == "mpeg4" and not walk.reordered):
        return first
    stop = min(len(walk.packets), first + 1 + MAX_REORDERED)
    came_at = _came_at(path, stream_index, [*range(first, stop)], enough=1 if holding else stop)
    if not came_at:  # damage, to be judged where it is
        return first
    if holding:  # frames come one packet late, at most
        return max(first, came_at[0] - 1)
    missing = stop - first - len(came_at)
    without = [first, *range(first + 1 + missing, stop)]
    # If others are missing, that is damage, too.
    found = missing > 0 and len(_came_at(path, stream_index, without, enough=stop)) == len(without)
    return first + missing if found else first


def _first_key(packets: list[Packet]) -> int:
    return next((at for at, packet in enumerate(packets) if packet.key), 0)


def _without_lost(frame_pts: NDArray[np.int64], lost: int) -> NDArray[np.int64]:
    """A frame comes on screen with the packet that makes it come out, which is the one after its own."""
    step = int(np.median(np.diff(frame_pts))) if len(frame_pts) > 1 else 1
    return np.append(frame_pts[lost + 1 :], frame_pts[-1] + step)


def _came_at(path: Path, stream_index: int, places: list[int], *, enough: int) -> list[int]:
    """At which of these packets each frame came out, until they are enough; none where the decoder complains."""
    came_at: list[int] = []
    try:
        with open_container(path) as container, heard() as logs:
            stream: Any = container.streams[stream_index]
            stream.thread_type = "NONE"
            every = (packet for packet in demuxed(container, stream) if packet.size or packet.pts is not None)
            for at, packet in enumerate(every):
                if at > places[-1] or len(came_at) >= enough:
                    break
                came_at += [at] * len(stream.codec_context.decode(packet)) if at in places else []
            came_at += [places[-1]] * len(stream.codec_context.decode(None))
    except av.FFmpegError:
        return []
    return [] if complaints(logs) else came_at


def _period_s(frame_pts: NDArray[np.int64], tick_s: float, rate: float) -> float:
    """Seconds that a frame is shown, on average."""
    length = int(frame_pts[-1] - frame_pts[0])
    return length * tick_s / (len(frame_pts) - 1) if length > 0 else 1 / rate


def _timeline(
    packets: list[Packet],
    container_format: str,
    tick_s: float,
    rate: float,
    packed: bool,
    findings: Findings,
) -> tuple[bool, NDArray[np.int64], NDArray[np.int64], float]:
    """Return whether frames carry these times, the frames' times and durations in ticks, and the tick."""
    timed = container_format not in _UNTIMED_FORMATS and any(packet.pts is not None for packet in packets)
    if container_format == "mpeg" and repeats(packets):
        timed = False  # an MPEG program stream that times only some frames: libav's guesses overlap
    if timed and container_format == "matroska" and packets[0].pts is None:
        timed = False  # libav knows no times before zero
        findings.remark("its times begin before zero: frames are taken to come at its rate")
    mpeg = container_format in ("mpegts", "mpeg")
    if timed and mpeg and (starts := new_clocks(packets)):
        findings.remark("its clock starts anew: joined from several")
        packets, timed = on_one_clock(packets, starts), False
        frame_pts, durations = shown(packets)
        if len(frame_pts) == len(packets):
            return False, frame_pts, durations, tick_s
    dts_known = all(packet.dts is not None for packet in packets)
    if timed and packed:
        timed = False
        if not dts_known:
            frame_pts, durations = shown(packets)
            return False, frame_pts, durations, tick_s
    elif timed:
        order(packets, tick_s, findings)
        frame_pts, durations = shown(packets)
        if mpeg:
            long_gaps(frame_pts, tick_s, findings)
        return True, frame_pts, durations, tick_s
    if (container_format == "avi" or packed) and dts_known:
        frame_pts = np.sort(np.array([packet.dts for packet in packets], np.int64))
        return False, frame_pts, np.array([packet.duration for packet in packets], np.int64), tick_s
    # Nothing but the rate is known.
    return False, np.arange(len(packets)), np.ones(len(packets), np.int64), 1 / rate


def _incomplete(packets: list[Packet], container_format: str, tick_s: float, findings: Findings) -> None:
    """Refuse where the demuxer says that a packet is not whole."""
    if container_format == "mpegts":
        lost_frames(on_one_clock(packets, new_clocks(packets)), tick_s, findings)
        return
    cut = next((packet for packet in packets if packet.corrupt), None)
    if cut is not None:
        first = min((p.pts for p in packets if p.pts is not None), default=0)
        at_s = ((cut.pts if cut.pts is not None else first) - first) * tick_s
        findings.refuse(f"truncated or damaged: the packet at {at_s:.1f} s is incomplete")


def _with_entries(
    packets: list[Packet], codec: str, timed: bool, walk: _Walk, *, intra_only: bool
) -> list[Packet]:
    """Say of each packet whether decoding may begin there: at the first key frame, and where that is certain."""
    first = _first_key(packets)
    trusted = codec == "h264" or (
        # Files without a list of key frames call all packets so.
        codec in _KEYED_CODECS and not all(packet.key for packet in packets)
    )
    if not timed and (codec in _REORDERING_CODECS or walk.reordered):
        trusted = False  # frames are counted, and those of two groups may be mixed
    found = []
    for at, packet in enumerate(packets):
        begins = packet.entry if codec == "h264" else packet.key
        found.append(packet._replace(entry=intra_only or at == first or (at > first and trusted and begins)))
    return found


def _require_content(path: Path) -> None:
    try:
        status = os.stat(path)  # noqa: PTH116 - Path.stat refuses nothing more, and this takes odd names too
        if not stat.S_ISREG(status.st_mode):
            raise VideoError("not a file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise VideoError(error.strerror or error) from error
    if status.st_size == 0:
        raise VideoError("empty file")


def _reason(error: Exception) -> str:
    if isinstance(error, av.FFmpegError):
        log: Any = error.log  # (level, name, text), if libav said more
        return f"{error.strerror} ({log[2].strip()})" if log else str(error.strerror)
    return str(error)


def _video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    """Return the stream a player would show; the cover picture of a song is none."""
    pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    best = container.streams.best("video")
    if best is not None and any(stream.index == best.index for stream in pictures):
        return container.streams.video[container.streams.video.index(best)]
    if pictures:
        return pictures[0]
    kinds = sorted({stream.type for stream in container.streams})
    raise VideoError(f"no video stream ({' and '.join(kinds) or 'nothing'} only)")


def demuxed(container: av.container.InputContainer, *streams: Any) -> Iterator[av.Packet[Any]]:
    """Yield the packets of all streams, or of these. Raises VideoError where one begins that was not announced."""
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except IndexError as error:  # PyAV knows the streams that were there when it opened the file
            raise VideoError(
                "a stream begins in the middle of it that its beginning does not announce"
            ) from error
        yield packet


@dataclass
class _Walk:
    """What a walk over the packets found.

    ends_s: the end in seconds of every stream, counted as the video's first packet is at 0.
    packed: packets of MPEG-4 with two pictures. reordered: it has pictures that are shown before earlier ones.
    delayed: the decoder holds frames back, to put them in order.
    oddity: what keeps the pictures from decord. broken: packets that have not the form they should.
    """

    packets: list[Packet]
    ends_s: dict[int, float]
    packed: bool = False
    reordered: bool = False
    delayed: bool = False
    oddity: str | None = None
    broken: list[int] = field(default_factory=list)


def _walk(
    container: av.container.InputContainer, video: av.video.stream.VideoStream, findings: Findings, logs: Logs
) -> _Walk:
    """Read all packets; `logs` is where what libav reports meanwhile goes."""
    walk = _Walk([], {})
    warnings = f"Packet corrupt (stream = {video.index},", f"Continuity check failed for pid {video.id} "
    listened = 0
    if container.format.name == "mpegts":
        av.logging.set_level(av.logging.DEBUG)  # else it keeps the second to itself
    ends = {stream.index: 0 for stream in container.streams}  # in ticks: quicker to compare
    length_size = nal_length_size(video)
    codec = video.codec_context.name
    parameters: bytes | None = None
    try:
        for packet in demuxed(container):
            if packet.size == 0 and packet.pts is None:
                continue  # the end of a stream, or a repeated frame in AVI
            instant = packet.pts if packet.pts is not None else packet.dts
            if instant is not None:
                end = instant + (packet.duration or 0)
                ends[packet.stream_index] = max(ends[packet.stream_index], end)
            if packet.stream_index != video.index:
                continue
            key = entry = packet.is_keyframe
            reference, picture = True, True
            if length_size is not None and not are_whole(memoryview(packet), length_size):
                walk.broken.append(len(walk.packets))
            if codec == "h264":
                entry, reference, picture, found = h264_picture(bytes(packet), length_size)
                parameters = parameters or found
                if found is not None and found != parameters:
                    walk.oddity = "parameters that change"  # of its size, perhaps
            elif codec == "mpeg4":
                content = bytes(packet)
                count, reordered = mpeg4_kinds(content)
                if packet.size > NOT_CODED_BYTES and b"\0\0\1" not in content:
                    walk.broken.append(len(walk.packets))
                walk.packed |= count > 1
                walk.reordered |= reordered
            times = packet.pts, packet.dts, packet.duration or 0
            # The parser behind the demuxer may drop the flag.
            news = logs[listened:]
            corrupt = packet.is_corrupt or any(text.startswith(warnings) for _, _, text in news)
            logs[listened:] = [line for line in news if line[0] <= av.logging.INFO]
            listened = len(logs)
            flags = key, packet.is_discard, corrupt, entry, reference, picture
            walk.packets.append(Packet(*times, packet.size, *flags))
    except av.FFmpegError as error:
        first = min((p.pts for p in walk.packets if p.pts is not None), default=0)
        at_s = max(0.0, float((ends[video.index] - first) * (video.time_base or 0)))
        findings.refuse(f"damaged container after {at_s:.1f} s: {_reason(error)}")
    walk.delayed = bool(video.codec_context.has_b_frames)
    index = getattr(video, "index_entries", ()) if container.format.name == "avi" else ()
    all_found(walk.packets, index, findings)
    for stream in container.streams:
        walk.ends_s[stream.index] = float(ends[stream.index] * (stream.time_base or 0))
    return walk


def _promised_duration_s(
    container: av.container.InputContainer, stream: Any, container_format: str
) -> tuple[bool, float] | None:
    """Return (whether it is the whole file's, seconds) as the header has it, or None where none promises.

    MPEG-TS and bare streams promise nothing: libav estimates their duration from what is there.
    """
    tag = stream.metadata.get("DURATION", "")  # Matroska, per track, as 00:00:14.040000000
    if container_format == "matroska" and tag.count(":") == 2:
        hours, minutes, seconds = tag.split(":")
        try:
            return False, 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        except ValueError:
            pass
    if container_format == "avi" and stream.frames and stream.average_rate:
        return False, stream.frames / float(stream.average_rate)
    if container_format == "mov" and stream.duration and stream.time_base:
        return False, float(stream.duration * stream.time_base)
    if container_format in ("matroska", "flv", "asf", "mov") and container.duration:
        return True, container.duration / 1e6
    return None


def _decord_objection(container_format: str, codec: str, stream: av.video.stream.VideoStream) -> str | None:
    """Say why decord would return wrong frames, or None.

    decord numbers packets by pts, seeks to the last key frame before the one wanted and counts decoded frames
    from there. That is right only if every packet becomes one frame, the seek lands where it should, and
    nothing that follows a key frame in the file is shown before it or needs what came earlier. Its decoder must
    notice damage, and its frames, all scaled to one size, must have the colours that others show.
    """
    if container_format not in _DECORD_FORMATS or codec != "h264":
        return f"{codec} in {container_format}"  # of the other codecs none is quicker there
    context = stream.codec_context
    bits = (
        max((component.bits for component in context.format.components), default=8) if context.format else 8
    )
    if bits > 8:
        # It scales the chroma of these by another method: up to 14 grey levels from PyAV's picture at an edge.
        return f"{bits} bits a sample"
    if context.width % 2 or context.height % 2:
        return "an odd size"  # chroma is up to 44 grey levels apart
    return h264_oddity(stream)


def _packets_objection(packets: list[Packet], timed: bool, behind: list[bool]) -> str | None:
    """Say why decord would count frames wrong, or None."""
    if not timed or any(packet.pts is None for packet in packets):
        return "missing timestamps"
    if repeats(packets):
        return "repeated timestamps"
    if any(packet.discard for packet in packets):
        return "edit list"
    # A key frame that is no entry may be a recovery point, which needs some frames until all is refreshed.
    if any(behind) or not packets[0].entry or any(packet.key != packet.entry for packet in packets):
        return "open groups of pictures"
    return None
