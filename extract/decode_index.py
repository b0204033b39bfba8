"""What a video file holds, read from its packets without decoding a frame: when each frame is shown, and
whether the file keeps what its container promises.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np
from numpy.typing import NDArray

from extract.decode_packets import (
    Packet,
    VideoError,
    has_closed_groups,
    repeats,
    require_no_complaint,
    require_no_jump,
    require_order,
    require_promise_kept,
    shown,
)
from extract.h264 import h264_picture, is_cavlc, nal_length_size
from extract.sampling import CLOCK_TOLERANCE_S

# Guesses libav makes from a file's name or first bytes that are no video: a text file is "tty" (ANSI art).
_STILL_OR_TEXT_FORMATS = ("tty", "image2", "bin", "xbin", "adf", "idf")
# Without usable presentation times: frames are taken in the order in which the decoder returns them.
_UNTIMED_FORMATS = frozenset({"avi", "h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu", "ivf"})
# Where decord seeks to exactly the key frame it asks for (it counts frames from there), and codecs tested so.
_DECORD_FORMATS = frozenset({"mov", "matroska"})
_DECORD_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg"})


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a video in the order in which they are shown, from its packets.

    frame_pts: (F,) int64, not decreasing, in ticks of the stream's clock; F >= 1.
    frame_starts_s: (F,) float64, seconds after the first frame shown.
    duration_s: seconds from the start of the first frame to the end of the last.
    tolerance_s: how far the container may have rounded a start.
    stream: index of the video stream in its container.
    timed: whether decoded frames carry these pts; if not, they correspond in order.
    packets: in the order of the file, which is that of decoding.
    closed_groups: whether every key frame starts afresh: nothing after it needs, or is shown, before it.
    decord_objection: why decord's frame numbers would be wrong, or None.
    """

    path: Path
    frame_pts: NDArray[np.int64]
    frame_starts_s: NDArray[np.float64]
    duration_s: float
    tolerance_s: float
    stream: int
    timed: bool
    packets: list[Packet]
    closed_groups: bool
    decord_objection: str | None


@contextmanager
def heard_errors() -> Iterator[list[str]]:
    """Collect the errors that PyAV's libav reports meanwhile, as lines such as 'h264: missing picture'."""
    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    errors: list[str] = []
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # else the repeats of one file are reported in the next
    try:
        with av.logging.Capture() as logs:
            try:
                yield errors
            finally:
                errors.extend(f"{name}: {' '.join(text.split())}" for _, name, text in logs)
    finally:
        av.logging.set_skip_repeated(skip)
        av.logging.set_level(level)


def open_container(path: Path, *, heard: list[str] | None = None) -> av.container.InputContainer:
    """Open a file for PyAV. Raises VideoError where libav recognises nothing in it.

    What it complains of meanwhile is added to `heard`. Only local files are read, whatever a playlist or an
    external reference inside the file says. The path is made absolute: libav would take 'a:b.mp4' for a protocol.
    """
    with heard_errors() as errors:
        try:
            container = av.open(
                path.absolute(), "r", options={"protocol_whitelist": "file"}, metadata_errors="replace"
            )
        except (av.FFmpegError, ValueError) as error:
            raise VideoError(f"not a video: {_reason(error)}") from error
    if heard is not None:
        heard.extend(errors)
    return container


def read_index(path: Path) -> VideoIndex:
    """Read the index of a video by walking over its packets. Raises VideoError: not a video, truncated ..."""
    _require_content(path)
    opening: list[str] = []
    with open_container(path, heard=opening) as container, heard_errors() as errors:
        demuxer = container.format.name
        container_format = demuxer.split(",")[0]
        if container_format in _STILL_OR_TEXT_FORMATS or container_format.endswith("_pipe"):
            raise VideoError(f"not a video: a text or still image ({container_format})")
        stream = _video_stream(container)
        time_base = stream.time_base
        codec_context: Any = stream.codec_context  # None where libav knows no decoder
        if time_base is None or codec_context is None:
            raise VideoError("no decoder for its video stream")
        packets, ends_s, cut = _walk(container, stream)
        promised_s = _promised_duration_s(container, stream, container_format)
        codec = codec_context.codec.canonical_name
        cavlc = is_cavlc(stream)
        bits = _bits_a_sample(codec_context)
        stream_index = stream.index  # a closed container's attributes are whatever is in memory
        rate = float(stream.average_rate or stream.guessed_rate or 25)

    if not packets:
        raise VideoError("no frames: its video stream has no packet" + (f" ({errors[-1]})" if errors else ""))
    if not packets[0].key and not packets[0].picture:
        raise VideoError("damaged: there is no picture in its first packet")
    timed, frame_pts, durations, tick_s = _timeline(packets, container_format, float(time_base), rate)
    starts_s = (frame_pts - frame_pts[0]) * tick_s
    period_s = float(starts_s[-1]) / (len(starts_s) - 1) if starts_s[-1] > 0 else 1 / rate
    duration_s = float(starts_s[-1]) + (float(durations[-1]) * tick_s if durations[-1] > 0 else period_s)

    if promised_s is not None:
        require_promise_kept(*promised_s, ends_s, stream_index, period_s, container_format)
    require_no_complaint(demuxer, opening + errors)
    if cut is not None:
        raise VideoError(f"truncated or damaged: the packet at {cut:.1f} s is incomplete")

    closed_groups = timed and has_closed_groups(packets)
    objection = _decord_objection(packets, container_format, codec, timed, closed_groups, cavlc, bits)
    return VideoIndex(
        path=path,
        frame_pts=frame_pts,
        frame_starts_s=starts_s,
        duration_s=duration_s,
        tolerance_s=min(tick_s / 2, CLOCK_TOLERANCE_S),
        stream=stream_index,
        timed=timed,
        packets=packets,
        closed_groups=closed_groups,
        decord_objection=objection,
    )


def _timeline(
    packets: list[Packet], container_format: str, tick_s: float, rate: float
) -> tuple[bool, NDArray[np.int64], NDArray[np.int64], float]:
    """Return whether frames carry these times, the frames' times and durations in ticks, and the tick."""
    timed = container_format not in _UNTIMED_FORMATS and any(packet.pts is not None for packet in packets)
    if container_format == "mpeg" and repeats(packets):
        timed = False  # an MPEG program stream that times only some frames: libav's guesses overlap
    if timed:
        require_order(packets, tick_s)
        frame_pts, durations = shown(packets)
        if container_format in ("mpegts", "mpeg"):
            require_no_jump(frame_pts, tick_s)
    elif container_format == "avi" and all(packet.dts is not None for packet in packets):
        frame_pts = np.sort(np.array([packet.dts for packet in packets], np.int64))
        durations = np.array([packet.duration for packet in packets], np.int64)
    else:  # nothing but the rate is known
        frame_pts, durations, tick_s = np.arange(len(packets)), np.ones(len(packets), np.int64), 1 / rate
    return timed, frame_pts, durations, tick_s


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


def _walk(
    container: av.container.InputContainer, video: av.video.stream.VideoStream
) -> tuple[list[Packet], dict[int, float], float | None]:
    """Return the video's packets, the end in seconds of every stream, and where an incomplete packet is."""
    packets: list[Packet] = []
    ends_s = {stream.index: 0.0 for stream in container.streams}
    cut: float | None = None
    length_size = nal_length_size(video)
    try:
        for packet in demuxed(container):
            if packet.size == 0 and packet.pts is None:
                continue  # the end of a stream, or a repeated frame in AVI
            instant = packet.pts if packet.pts is not None else packet.dts
            if instant is not None and packet.time_base:
                end_s = float((instant + (packet.duration or 0)) * packet.time_base)
                ends_s[packet.stream_index] = max(ends_s[packet.stream_index], end_s)
            if packet.stream_index != video.index:
                continue
            if packet.is_corrupt and cut is None:
                cut = ends_s[video.index]
            key = packet.is_keyframe
            idr, reference, picture = key, True, True
            if length_size is not None:
                idr, reference, picture = h264_picture(packet, length_size)
            times = packet.pts, packet.dts, packet.duration or 0
            packets.append(Packet(*times, key, packet.is_discard, idr, reference, picture))
    except av.FFmpegError as error:
        raise VideoError(f"damaged container after {ends_s[video.index]:.1f} s: {_reason(error)}") from error
    return packets, ends_s, cut


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


def _decord_objection(
    packets: list[Packet],
    container_format: str,
    codec: str,
    timed: bool,
    closed_groups: bool,
    cavlc: bool,
    bits: int,
) -> str | None:
    """Say why decord would return wrong frames, or None.

    decord numbers packets by pts, seeks to the last key frame before the one wanted and counts decoded frames
    from there. That is right only if every packet becomes one frame, the seek lands where it should, and
    nothing that follows a key frame in the file is shown before it or needs what came earlier. And its decoder
    must notice damage, and show the colours that others do.
    """
    reason = None
    if container_format not in _DECORD_FORMATS or codec not in _DECORD_CODECS:
        reason = f"{codec} in {container_format}"
    elif not timed or any(packet.pts is None for packet in packets):
        reason = "missing timestamps"
    elif repeats(packets):
        reason = "repeated timestamps"
    elif any(packet.discard for packet in packets):
        reason = "edit list"
    elif not closed_groups:
        reason = "open groups of pictures"
    elif cavlc:
        reason = "h264 coded by CAVLC"  # see `is_cavlc`
    elif bits > 8:
        # It scales the chroma of these by another method: up to 14 grey levels from PyAV's picture at an edge.
        reason = f"{bits} bits a sample"
    return reason


def _bits_a_sample(codec_context: Any) -> int:
    picture = codec_context.format  # None where the header does not say
    return 8 if picture is None else max((component.bits for component in picture.components), default=8)
