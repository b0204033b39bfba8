"""What packets say of their pictures in their first bytes: H.264 (ITU-T H.264, 7.3, 7.4), MPEG-4 (ISO/IEC
14496-2, 6.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import av

_IDR_SLICE = 5
_SEQUENCE_PARAMETERS = 7
_START = b"\0\0\1"
_VOP_START = b"\0\0\1\xb6"
_B_VOP = 2
# Profiles whose sequence parameter sets say more about chroma and scaling (ITU-T H.264, 7.3.2.1.1).
_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})


class Picture(NamedTuple):
    """What the first bytes of a packet say.

    idr: decoding may begin here, and nothing after it needs what came before it.
    reference: another picture may need it.
    found: there is a picture in the packet.
    parameters: the sequence parameter set before it, if there is one.
    """

    idr: bool
    reference: bool
    found: bool
    parameters: bytes | None


class Bits:
    """Reads a header bit by bit. Behind its end there are ones, so that no number is endless."""

    def __init__(self, content: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in content) + "1" * 64
        self._at = 0

    def take(self, count: int) -> int:
        self._at += count
        return int(self._bits[self._at - count : self._at] or "1", 2)

    def golomb(self) -> int:
        """An unsigned Exp-Golomb number (ITU-T H.264, 9.1)."""
        zeros = self._bits.find("1", self._at) - self._at
        if zeros < 0:
            return 0
        self._at += zeros
        return self.take(zeros + 1) - 1


def nal_length_size(video: av.video.stream.VideoStream) -> int | None:
    """Return how many bytes precede each unit of H.264 or HEVC with its length (MP4, Matroska).

    None: start codes do.
    """
    extradata = video.codec_context.extradata or b""
    # ISO/IEC 14496-15, 5.3.3.1 and 8.3.3.1
    place = {"h264": 4, "hevc": 21}.get(video.codec_context.name)
    if place is None or len(extradata) < place + 3 or extradata[0] != 1:
        return None
    return (extradata[place] & 3) + 1


def are_whole(content: memoryview, length_size: int) -> bool:
    """Whether the units of a packet are as long as they say.

    Behind them there may be zeros. Some packets have start codes, whatever the header says: these are let pass.
    """
    at = len(content) if bytes(content[:4]) == b"\0\0\0\1" else 0
    while at + length_size < len(content):
        size = int.from_bytes(content[at : at + length_size], "big")
        if size == 0:
            return at > 0
        at += length_size + size
    return at <= len(content)


def _parameter_sets(extradata: bytes) -> tuple[bytes, bytes]:
    """Return the first sequence and the first picture parameter set of an MP4 (ISO/IEC 14496-15, 5.3.3.1)."""
    sequences, at = _first_of(extradata, 6, extradata[5] & 31)
    pictures, _ = _first_of(extradata, at + 1, extradata[at] if at < len(extradata) else 0)
    return sequences, pictures


def _first_of(content: bytes, at: int, count: int) -> tuple[bytes, int]:
    """The first of `count` sets, each behind its length in two bytes, and where they end."""
    first = b""
    for _ in range(count):
        size = int.from_bytes(content[at : at + 2], "big")
        first = first or content[at + 2 : at + 2 + size]
        at += 2 + size
    return first, at


def h264_oddity(video: av.video.stream.VideoStream) -> str | None:
    """Say what keeps H.264 in MP4 or Matroska from decord, from its parameter sets; None: nothing does."""
    if nal_length_size(video) is None:
        return "h264 without its parameters in front"
    sequence, picture = _parameter_sets(video.codec_context.extradata or b"")
    # A header byte, two numbers, then the flag (7.3.2.2). PyAV's decoder can be told to check that each slice of
    # CAVLC (as all Baseline is) ends where it should; decord's cannot, and damage there often decodes in silence.
    bits = Bits(picture[1:9])
    bits.golomb(), bits.golomb()
    if bits.take(1) == 0:
        return "h264 coded by CAVLC"
    if not _is_progressive(sequence):
        return "h264 that may be interlaced"  # decord's colours are others then
    return None


def _is_progressive(sequence: bytes) -> bool:
    """Whether frame_mbs_only_flag is set (7.3.2.1.1); False, too, where what precedes it is unusual."""
    bits = Bits(sequence[4:36].replace(b"\0\0\3", b"\0\0"))
    bits.golomb()  # seq_parameter_set_id
    if sequence[1:2] and sequence[1] in _HIGH_PROFILES:
        if bits.golomb() == 3:
            bits.take(1)
        bits.golomb(), bits.golomb(), bits.take(1)  # depths, qpprime_y_zero_transform_bypass_flag
        if bits.take(1):
            return False  # scaling lists
    bits.golomb()  # log2_max_frame_num_minus4
    kind = bits.golomb()  # pic_order_cnt_type
    if kind == 1:
        return False
    if kind == 0:
        bits.golomb()
    bits.golomb(), bits.take(1), bits.golomb(), bits.golomb()  # references, gaps, width, height
    return bits.take(1) == 1


def _units(content: bytes, length_size: int | None) -> Iterator[tuple[int, int]]:
    """Yield where each unit begins and ends; without lengths, the end is that of the packet."""
    at = 0
    if length_size is None:
        while (at := content.find(_START, at)) >= 0 and at + 3 < len(content):
            yield at + 3, len(content)
            at += 3
        return
    while at + length_size < len(content):
        end = at + length_size + int.from_bytes(content[at : at + length_size], "big")
        if end > len(content):
            return
        yield at + length_size, end
        at = end


def h264_picture(content: bytes, length_size: int | None) -> Picture:
    """Look for the first slice in a packet.

    Each unit begins with a byte: 2 bits nal_ref_idc, 5 bits nal_unit_type; 1 to 5 are slices (7.4.1).
    """
    parameters = None
    for at, end in _units(content, length_size):
        kind = content[at] & 31
        if 1 <= kind <= _IDR_SLICE:
            return Picture(kind == _IDR_SLICE, bool(content[at] & 0x60), True, parameters)
        if kind == _SEQUENCE_PARAMETERS and parameters is None:
            parameters = content[at:end] if length_size else content[at : content.find(_START, at)]
    return Picture(False, True, False, parameters)


def mpeg4_kinds(content: bytes) -> tuple[int, bool]:
    """Return how many pictures (VOPs) a packet of MPEG-4 holds, and whether one is a B picture.

    Packed bitstreams have two in one packet, and a placeholder in the next.
    """
    count, reordered, at = 0, False, 0
    while (at := content.find(_VOP_START, at)) >= 0:
        at += len(_VOP_START)
        count += 1
        reordered |= content[at : at + 1] != b"" and content[at] >> 6 == _B_VOP
    return count, reordered
