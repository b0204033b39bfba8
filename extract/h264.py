"""What H.264 says of a picture in its first bytes (ITU-T H.264, 7.3 and 7.4)."""

from __future__ import annotations

from typing import Any

import av

_IDR_SLICE = 5


def nal_length_size(video: av.video.stream.VideoStream) -> int | None:
    """Return how many bytes precede each H.264 unit with its length (MP4, Matroska), else None."""
    extradata = video.codec_context.extradata
    if video.codec_context.name != "h264" or not extradata or len(extradata) < 7 or extradata[0] != 1:
        return None
    return (extradata[4] & 3) + 1


def is_cavlc(video: av.video.stream.VideoStream) -> bool:
    """Whether H.264 is coded by CAVLC (as all Baseline is), of which damage often decodes without an error.

    PyAV's decoder can be told to check that each slice ends where it should; decord's cannot. The picture
    parameter set says which: a header byte, two Exp-Golomb numbers, then the flag (ITU-T H.264, 7.3.2.2).
    """
    if nal_length_size(video) is None:
        return False
    content = video.codec_context.extradata or b""
    at = 6
    for _ in range(content[5] & 31):  # sequence parameter sets
        at += 2 + int.from_bytes(content[at : at + 2], "big")
    bits = "".join(f"{byte:08b}" for byte in content[at + 4 : at + 12]) + "1" * 64
    at = 0
    for _ in range(2):
        at += 2 * (bits.index("1", at) - at) + 1
    return bits[at] == "0"


def h264_picture(packet: av.Packet[Any], nal_length_size: int) -> tuple[bool, bool, bool]:
    """Return whether an H.264 packet holds an IDR picture, whether others may refer to it, whether it holds any.

    Each unit begins with a byte: 2 bits nal_ref_idc, 5 bits nal_unit_type; 1 to 5 are slices (ITU-T H.264, 7.4.1).
    """
    content = memoryview(packet)
    at = 0
    while at + nal_length_size < len(content):
        header = content[at + nal_length_size]
        length = int.from_bytes(content[at : at + nal_length_size], "big")
        if at + nal_length_size + length > len(content):
            break
        if 1 <= header & 31 <= _IDR_SLICE:
            return header & 31 == _IDR_SLICE, bool(header & 0x60), True
        at += nal_length_size + length
    return False, True, False
