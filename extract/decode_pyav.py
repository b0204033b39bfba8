"""Frames by PyAV: sequential, by timestamp, right for whatever libav can play."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
from numpy.typing import NDArray

from extract.decode_index import VideoError, VideoIndex, heard_errors, open_container


def pyav_frames(index: VideoIndex, wanted: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames with these numbers (increasing) as RGB (H, W, 3), upright, all of one size.

    What they need is decoded, once, by one thread, and nothing is kept. Raises VideoError at the first sign of
    damage in it: an error or a concealed frame that the decoder reports, or a frame that never comes. Frames
    without timestamps of their own are counted, and the count is checked at the end.
    """
    remaining = iter(wanted.tolist())
    number = next(remaining, None)
    size: tuple[int, int] | None = None
    with open_container(index.path) as container:
        stream = container.streams[index.stream]
        assert isinstance(stream, av.video.stream.VideoStream)
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        decoded = 0
        for frame in _decoded(container, stream, index, _needed(index, wanted)):
            at, decoded = decoded, decoded + 1
            if number is None:
                if index.timed:
                    break
                continue  # to the end, to count
            if index.timed:
                if frame.pts is None or frame.pts < index.frame_pts[number]:
                    continue
                if frame.pts > index.frame_pts[number]:
                    break
            elif at < number:
                continue
            if size is None:
                size = frame.width, frame.height
            picture = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
            image = picture.astype(np.uint8, copy=False)  # it is, but to_ndarray's type cannot say so
            # libav's angle is counter-clockwise, as is rot90's.
            quarter_turns = round(frame.rotation / 90) % 4
            yield np.rot90(image, quarter_turns) if quarter_turns else image
            number = next(remaining, None)
    if number is not None:
        raise VideoError(f"damaged: no frame could be decoded at {index.frame_starts_s[number]:.2f} s")
    if not index.timed and decoded != len(index.frame_pts):
        raise VideoError(f"damaged: {decoded} frames decoded from {len(index.frame_pts)} packets")


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
    for packet in _sent(container, stream, needed):
        keys_seen += packet.is_keyframe
        with heard_errors() as errors:
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                raise VideoError(f"damaged packets after {at_s:.2f} s: {error.strerror}") from error
        if errors and not (from_middle and keys_seen < 2):
            raise VideoError(f"damaged packets after {at_s:.2f} s: {errors[0]}")
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
) -> Iterator[av.Packet[av.video.stream.VideoStream]]:
    """Yield the needed packets of the stream, and the empty one at its end that makes the decoder finish."""
    at = 0
    for packet in container.demux(stream):
        if packet.size == 0 and packet.pts is None:
            if packet.dts is None:
                yield packet
            continue
        if at >= len(needed) or needed[at]:
            yield packet
        at += 1
