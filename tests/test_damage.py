"""Damage that decoders pass over in silence, and a container, a demuxer or a warning gives away.

`python -m benchmarks.damage` says how much there is of it; `docs/damage.md` has the figures.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.plain import Showing
from benchmarks.videos import noisy_frames, write_video
from extract.decode import VideoError, read_video
from extract.pictures import are_whole
from tests.test_odd_videos import packets_of

LONG = {"b": "600k"}  # 3,000 bytes a picture


def made(path: Path, codec: str, count: int = 75, **options: str) -> Path:
    write_video(path, noisy_frames(count), fps=25, gop=24, codec=codec, options={**LONG, **options})
    return path


def frames(path: Path, *numbers: int) -> NDArray[np.uint8]:
    return np.stack([frame for frame in read_video(path).frames(np.array(numbers)) if frame is not None])


def blank(path: Path, start: int, stop: int) -> None:
    content = bytearray(path.read_bytes())
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)


def packets_at(path: Path) -> list[tuple[int, int]]:
    """Where each packet begins, and its size."""
    return [(packet.pos or 0, packet.size) for packet in packets_of(path)]


@pytest.mark.slow
def test_slices_of_hevc_that_were_not_decoded(tmp_path: Path) -> None:
    # The decoder gives a frame for whole and says, as a warning, that it has left out a slice of it.
    path = made(tmp_path / "whole.mp4", "libx265", 30)
    whole = path.read_bytes()
    first, _ = packets_at(path)[0]
    left_out = 0
    for bit in range(8 * 4, 8 * 24):
        content = bytearray(whole)
        content[first + bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        if any("Skipping invalid" in text for _, text in Showing(path).heard):
            left_out += 1
            with pytest.raises(VideoError):
                frames(path, 0)
    assert left_out > 0


def test_damage_that_shows_in_the_packet_behind_only(tmp_path: Path) -> None:
    # That one no row needs; the decoder takes the end of the one before it for pixels.
    path = made(tmp_path / "whole.mp4", "libx265")
    (first, size), (second, _) = packets_at(path)[:2]
    assert second == first + size
    right = frames(path, 30)
    blank(path, second - 40, second + 40)
    with pytest.raises(VideoError, match="damaged"):
        frames(path, 0)
    assert np.array_equal(frames(path, 30), right)


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (b"\0\0\0\2ab\0\0\0\1c", True),
        (b"\0\0\0\2ab\0\0\0\2c", False),
        (b"\0\0\0\2ab\0\0\0\0\0\0", True),
        (b"\0\0\0\0ab", False),
        (b"\0\0\0\1ab\0\0\0\1abc", True),
        (b"", True),
    ],
    ids=["units", "too long", "zeros behind", "no length", "start codes", "empty"],
)
def test_units_that_are_as_long_as_they_say(content: bytes, whole: bool) -> None:
    assert are_whole(memoryview(content), 4) is whole


def test_a_part_of_a_picture_lost_from_a_transport_stream(tmp_path: Path) -> None:
    path = made(tmp_path / "whole.ts", "libx265")
    right = frames(path, 60)
    start = packets_at(path)[0][0] + 5 * 188  # in the first picture
    content = path.read_bytes()
    path.write_bytes(content[:start] + content[start + 188 :])
    with pytest.raises(VideoError, match=r"damaged packets after 0\.00 s"):
        frames(path, 0)
    # The other groups are whole.
    assert np.array_equal(frames(path, 60), right)
    video = read_video(path)
    list(video.frames(np.array([60])))
    assert any("counters" in remark for remark in video.remarks)


@pytest.mark.parametrize(
    ("name", "codec", "first", "last"),
    [("a.ts", "libx264", 20, 26), ("a.ts", "mpeg2video", 20, 26), ("a.mpg", "mpeg2video", 24, 25)],
)
def test_whole_pictures_lost_from_an_mpeg_stream(
    tmp_path: Path, name: str, codec: str, first: int, last: int
) -> None:
    # With the key frame that begins the second group; or those behind it, and what has been hit no row needs.
    path = made(tmp_path / name, codec, bf="2")
    places = packets_at(path)
    blank(path, places[first][0] + 2900, places[last][0] + 2900)
    with pytest.raises(VideoError, match="damaged"):
        frames(path, 0, 25)


def test_a_picture_lost_from_an_avi(tmp_path: Path) -> None:
    # Its demuxer goes on at the next, and everything behind would be taken for a frame earlier than it is.
    path = made(tmp_path / "whole.avi", "mpeg4", bf="2")
    start, _ = packets_at(path)[1]
    blank(path, start - 8, start)
    with pytest.raises(VideoError, match="1 of the 75 pictures of its index"):
        frames(path, 0, 50)


def test_a_picture_lost_from_flash_video(tmp_path: Path) -> None:
    path = made(tmp_path / "whole.flv", "flv")
    start, size = packets_at(path)[40]
    blank(path, start + size - 20, start + size + 20)
    with pytest.raises(VideoError, match="not as long as it says"):
        frames(path, 0)


def test_counters_that_never_go_on_are_no_damage(tmp_path: Path) -> None:
    path = made(tmp_path / "whole.ts", "libx264", 50)
    right = frames(path, 0, 30)
    content = bytearray(path.read_bytes())
    for at in range(0, len(content), 188):
        content[at + 3] &= 0xF0
    path.write_bytes(content)
    assert np.array_equal(frames(path, 0, 30), right)


def test_sound_lost_from_a_transport_stream_is_no_damage_to_pictures(tmp_path: Path) -> None:
    path = tmp_path / "whole.ts"
    write_video(path, noisy_frames(50), fps=25, gop=24, codec="libx265", options=LONG, audio_s=2.0)
    right = frames(path, 0, 30)
    with av.open(str(path)) as container:
        sounds = [packet.pos for packet in container.demux(audio=0) if packet.pos is not None]
    content = bytearray(path.read_bytes())
    for at in sorted(sounds, reverse=True):
        del content[at // 188 * 188 : at // 188 * 188 + 188]
    path.write_bytes(content)
    assert np.array_equal(frames(path, 0, 30), right)
