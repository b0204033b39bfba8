"""Frames by PyAV: sequential, by timestamp, right for whatever libav can play."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
from numpy.typing import NDArray

from extract.decode_index import VideoIndex, demuxed, heard_errors, open_container
from extract.decode_packets import VideoError


def pyav_frames(index: VideoIndex, wanted: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames with these numbers (increasing) as RGB (H, W, 3), upright, all of one size.

    What they need is decoded, once, by one thread, and nothing is kept. Raises VideoError at the first sign of
    damage in it: an error or a concealed frame that the decoder reports, or a frame that never comes. Frames
    without timestamps of their own are counted, and the count is checked at the end.
    """
    remaining = iter(wanted.tolist())
    target = next(remaining, None)
    size: tuple[int, int] | None = None
    with open_container(index.path) as container:
        stream = container.streams[index.stream]
        assert isinstance(stream, av.video.stream.VideoStream)
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        decoded = 0
        for number, frame in _numbered(_decoded(container, stream, index, _needed(index, wanted)), index):
            decoded += 1
            if index.timed and (target is None or number > target):
                break
            if number != target:
                continue  # if there are no times, to the end, to count
            if size is None:
                size = frame.width, frame.height
            yield _upright_rgb(frame, *size)
            target = next(remaining, None)
    if target is not None:
        raise VideoError(f"damaged: no frame could be decoded at {index.frame_starts_s[target]:.2f} s")
    if not index.timed and decoded != len(index.frame_pts):
        raise VideoError(f"damaged: {decoded} frames decoded from {len(index.frame_pts)} packets")


def _numbered(frames: Iterator[av.VideoFrame], index: VideoIndex) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield each frame with its number in the index. Raises VideoError where the timestamps go back."""
    if not index.timed:
        yield from enumerate(frames)
        return
    last_pts: int | None = None
    alike = 0  # how many came before it at the very same time
    for frame in frames:
        if frame.pts is None:
            continue
        if last_pts is not None and frame.pts < last_pts:
            at_s = float((last_pts - index.frame_pts[0]) * (frame.time_base or 0))
            raise VideoError(f"damaged timestamps: they go back after {at_s:.2f} s")
        alike = alike + 1 if frame.pts == last_pts else 0
        last_pts = frame.pts
        number = int(np.searchsorted(index.frame_pts, frame.pts)) + alike
        if number < len(index.frame_pts) and index.frame_pts[number] == frame.pts:
            yield number, frame


def _upright_rgb(frame: av.VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
    try:
        picture = frame.to_ndarray(format="rgb24", width=width, height=height)
    except (av.FFmpegError, ValueError) as error:  # libav has no arithmetic for its colour matrix, say
        reason = error.strerror if isinstance(error, av.FFmpegError) else error
        raise VideoError(f"its pixels cannot be turned into RGB ({reason})") from error
    image = picture.astype(np.uint8, copy=False)  # it is, but to_ndarray's type cannot say so
    # libav's angle is counter-clockwise, as is rot90's.
    quarter_turns = round(frame.rotation / 90) % 4
    return np.rot90(image, quarter_turns) if quarter_turns else image


def _needed(index: VideoIndex, wanted: NDArray[np.int64]) -> list[bool]:
    """Say for each packet, in the order of the file, whether the wanted frames need it to be decoded.

    Where groups of pictures are closed, a group is needed up to its last wanted frame and no further, and in
    it no picture that others do not refer to. Elsewhere everything is, but for the beginning of a recording
    cut out of a longer one: what precedes its first key frame, in the file or on screen, lacks what it needs.
    """
    if not index.closed_groups:
        started = not index.timed or not any(packet.key for packet in index.packets)
        first_pts = int(index.frame_pts[0])
        needed = []
        for packet in index.packets:
            started |= packet.key
            shown = packet.pts is None or packet.pts >= first_pts or packet.discard or not index.timed
            needed.append(started and shown)
        return needed
    wanted_pts = set(index.frame_pts[wanted].tolist())
    needed = [False] * len(index.packets)
    later_wanted = False
    for at in reversed(range(len(index.packets))):
        packet = index.packets[at]
        is_wanted = packet.pts in wanted_pts
        later_wanted |= is_wanted
        needed[at] = is_wanted or (later_wanted and packet.reference)
        if packet.key:
            later_wanted = False
    return needed


def _decoded(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    index: VideoIndex,
    needed: list[bool],
) -> Iterator[av.VideoFrame]:
    """Yield the frames of the needed packets, the first shown onwards.

    Raises VideoError where the decoder reports damage.
    """
    # "aggressive" finds slices that end too early or too late, which are else taken for whole: with a block of
    # 200 random bytes in Baseline H.264, 5 of 40 files had wrong pixels and no error without it, none with it.
    # A recording that starts in the middle complains, harmlessly, about what came before: no "explode" then.
    from_middle = not index.packets[0].key
    checks = "aggressive" if from_middle else "aggressive+explode"
    stream.codec_context.options = {"err_detect": checks}
    keys_seen = 0
    tick_s = float(stream.time_base or 0)
    at_s = 0.0
    for packet, parser_errors in _sent(container, stream, needed):
        keys_seen += packet.is_keyframe
        with heard_errors() as errors:
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                raise VideoError(f"damaged packets after {at_s:.2f} s: {error.strerror}") from error
        heard = parser_errors + errors
        if heard and not (from_middle and keys_seen < 2):
            raise VideoError(f"damaged packets after {at_s:.2f} s: {heard[0]}")
        for frame in frames:
            if index.timed and frame.pts is not None:
                if frame.pts < index.frame_pts[0]:
                    continue  # not shown
                at_s = float(frame.pts - index.frame_pts[0]) * tick_s
            if frame.is_corrupt:
                raise VideoError(f"damaged packets: the decoder concealed errors at {at_s:.2f} s")
            yield frame


def _sent(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, needed: list[bool]
) -> Iterator[tuple[av.Packet[av.video.stream.VideoStream], list[str]]]:
    """Yield the needed packets of the stream, each with what was said of it when it was read.

    And the empty one at its end that makes the decoder finish.
    """
    at = 0
    packets = demuxed(container, stream)
    while True:
        with heard_errors() as errors:
            packet = next(packets, None)
        if packet is None:
            return
        if packet.size == 0 and packet.pts is None:
            if packet.dts is None:
                yield packet, errors
            continue
        if at >= len(needed) or needed[at]:
            yield packet, errors
        at += 1
