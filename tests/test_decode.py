"""Every row is the frame that was on screen, for each kind of video; or one line says why not.

Frames carry their numbers in their pixels (`benchmarks.videos`), and the tests know when each was shown because
they made the file: the reference is arithmetic on what was written, not another reading of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.videos import (
    media_data,
    noisy_frames,
    numbered_frames,
    read_frame_number,
    rotate_mp4,
    write_audio,
    write_video,
)
from extract import decode_decord
from extract.decode import SampledVideo, VideoError, open_video

B_FRAMES = {"preset": "veryfast", "bf": "3"}
FASTSTART = {"movflags": "faststart"}
DECODERS = ("decord", "pyav", "auto")


def rows_of(video: SampledVideo, **limits: int) -> NDArray[np.uint8]:
    chunks: list[NDArray[np.uint8]] = []
    for first, frames in video.chunks(**limits):
        assert first == sum(map(len, chunks))
        chunks.append(frames)
    rows = np.concatenate(chunks)
    assert rows.dtype == np.uint8
    assert len(rows) == len(video.times_s)
    return rows


def numbers_of(path: Path, *, fps: float = 1) -> tuple[str, list[int]]:
    """Return the decoder that did it, of decord where it is right, and the number painted on each row by any."""
    found = []
    for decoder in DECODERS:
        video = open_video(path, fps=fps, decoder=decoder)
        found.append((video, [read_frame_number(row) for row in rows_of(video)]))
    (by_decord, numbers), *others = found
    assert all(same == numbers for _, same in others)
    return by_decord.decoder, numbers


def expected_numbers(starts_s: Sequence[float], *, end_s: float, fps: float = 1) -> list[int]:
    """By the definition, in a loop: the last frame whose start is not after k / fps."""
    shown = []
    k = 0
    while k / fps < end_s - starts_s[0] - 1e-6:
        shown.append(max(i for i, s in enumerate(starts_s) if s - starts_s[0] <= k / fps + 1e-6))
        k += 1
    return shown


def constant_rate(count: int, rate: float) -> list[float]:
    return [i / rate for i in range(count)]


def reason(path: Path) -> str:
    """Decode it all and return why it cannot be."""
    with pytest.raises(VideoError) as caught:
        rows_of(open_video(path, fps=1))
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# What decord is trusted with, and what it gets wrong (and PyAV must do): measured with decord2 3.4.0.
KINDS: list[tuple[str, str, dict[str, Any]]] = [
    ("h264.mp4", "decord", {}),
    ("b_frames.mp4", "decord", {"options": B_FRAMES}),
    ("b_frames.mkv", "decord", {"options": B_FRAMES}),
    ("sound.mp4", "decord", {"audio_s": 4.0}),
    ("fragmented.mp4", "decord", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    ("ten_bit.mp4", "pyav", {"pix_fmt": "yuv420p10le"}),
    ("full_chroma.mp4", "decord", {"pix_fmt": "yuv444p"}),
    ("mpeg4.mov", "pyav", {"codec": "mpeg4"}),
    ("vp9.webm", "pyav", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    ("cavlc.mp4", "pyav", {"options": {"preset": "ultrafast"}}),
    ("cavlc.mkv", "pyav", {"options": {"preset": "ultrafast"}}),
    ("open_gop.mp4", "pyav", {"options": {**B_FRAMES, "x264-params": "open-gop=1:keyint=24:scenecut=0"}}),
    ("intra_refresh.mp4", "pyav", {"options": {**B_FRAMES, "x264-params": "intra-refresh=1:keyint=24"}}),
    ("hevc.mp4", "pyav", {"codec": "libx265"}),
    ("b_frames.ts", "pyav", {"options": B_FRAMES}),
    ("b_frames.mpg", "pyav", {"codec": "mpeg2video", "options": {"bf": "2"}}),
    ("mpeg4.avi", "pyav", {"codec": "mpeg4"}),
    ("mpeg4_b_frames.avi", "pyav", {"codec": "mpeg4", "options": {"bf": "2"}}),
    ("h264.avi", "pyav", {}),
    ("h264_b_frames.avi", "pyav", {"options": B_FRAMES}),
    ("motion_jpeg.avi", "pyav", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "audio_s": 4.0}),
    ("bare.h264", "pyav", {"options": B_FRAMES}),
    ("wmv2.wmv", "pyav", {"codec": "wmv2"}),
    ("flash.flv", "pyav", {"codec": "flv1"}),
]


@pytest.mark.parametrize(("name", "decoder", "how"), KINDS, ids=[name for name, _, _ in KINDS])
def test_constant_rate(tmp_path: Path, name: str, decoder: str, how: dict[str, Any]) -> None:
    path = tmp_path / name
    write_video(path, numbered_frames(100), fps=25, gop=24, **how)
    for fps in (1, 7.3):
        expected = expected_numbers(constant_rate(100, 25), end_s=4, fps=fps)
        assert numbers_of(path, fps=fps) == (decoder, expected)
    video = open_video(path, fps=1)
    assert video.duration_s == pytest.approx(4, abs=0.01)
    assert video.fps == pytest.approx(25, abs=0.1)


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
@pytest.mark.parametrize("fps", [0.4, 1, 3])
def test_pyav_leaves_out_only_what_no_row_needs(tmp_path: Path, name: str, fps: float) -> None:
    # Pictures that nothing refers to, and the rest of a group after its last row, are not decoded.
    path = tmp_path / name
    write_video(
        path, noisy_frames(100), fps=25, gop=24, options={"preset": "veryfast", "bf": "5", "b-pyramid": "1"}
    )
    by_decord, by_pyav = (open_video(path, fps=fps, decoder=decoder) for decoder in DECODERS[:2])
    assert np.array_equal(rows_of(by_decord), rows_of(by_pyav))
    assert by_decord.decoder == "decord"
    with av.open(str(path)) as container:
        everything = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    expected = expected_numbers(constant_rate(100, 25), end_s=4, fps=fps)
    assert np.array_equal(rows_of(open_video(path, fps=fps)), np.stack([everything[i] for i in expected]))


@pytest.mark.parametrize("name", ["variable.mp4", "variable.mkv"])
@pytest.mark.parametrize("late_s", [0.0, 1.25])
def test_variable_rate_and_late_start(tmp_path: Path, name: str, late_s: float) -> None:
    # Gaps from 8 ms to 1.2 s, in whole milliseconds so that every container can write them.
    gaps_ms = np.random.default_rng(5).permutation([8, 16, 33, 40, 70, 150, 300, 1200] * 8)
    starts_s = (np.concatenate([[0], np.cumsum(gaps_ms)]) / 1000 + late_s).tolist()
    path = tmp_path / name
    write_video(path, numbered_frames(len(starts_s)), fps=25, pts=starts_s, options=B_FRAMES)
    for fps in (1, 4):
        video = open_video(path, fps=fps)
        assert video.duration_s >= starts_s[-1] - starts_s[0]
        expected = expected_numbers(starts_s, end_s=starts_s[0] + video.duration_s, fps=fps)
        decoder, found = numbers_of(path, fps=fps)
        assert (decoder, found) == ("decord", expected)


@pytest.mark.parametrize("skipped", [7, 30, 60])
def test_edit_list_that_starts_inside_a_group_of_pictures(tmp_path: Path, skipped: int) -> None:
    path = tmp_path / "edited.mp4"
    write_video(path, numbered_frames(100), fps=25, gop=24, options=B_FRAMES)
    trim_by_edit_list(path, start_s=skipped / 25, duration_s=(90 - skipped) / 25)
    decoder, numbers = numbers_of(path)
    assert decoder == "pyav"
    assert numbers == list(range(skipped, 90, 25))


@pytest.mark.parametrize(("count", "rate"), [(1, 25), (2, 25), (12, 25), (25, 25), (24, 24000 / 1001)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_short(tmp_path: Path, count: int, rate: float, suffix: str) -> None:
    path = tmp_path / f"short.{suffix}"
    write_video(path, numbered_frames(count), fps=rate, codec="mpeg4" if suffix == "avi" else "libx264")
    # Matroska's clock ticks in milliseconds: 24 frames at 24000/1001 last 1.001 s, and it writes 1.000.
    end_s = count / rate if suffix != "mkv" else round(count / rate, 2)
    assert numbers_of(path)[1] == expected_numbers(constant_rate(count, rate), end_s=end_s)


def test_more_rows_than_frames_decodes_each_once(tmp_path: Path) -> None:
    path = tmp_path / "slow.mp4"
    write_video(path, numbered_frames(8), fps=2)
    video = open_video(path, fps=50)
    rows = rows_of(video, max_bytes=3 * 128 * 192 * 3)  # three rows at a time
    assert [read_frame_number(row) for row in rows] == [k // 25 for k in range(200)]


def test_chunks_keep_their_bound(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, numbered_frames(100), fps=25)
    frame_bytes = 128 * 192 * 3
    for rows, expected in ((0.5, 1), (1, 1), (7.9, 7), (1000, 100)):
        lengths = [len(c) for _, c in open_video(path, fps=25).chunks(max_bytes=int(rows * frame_bytes))]
        assert max(lengths) == expected
        assert sum(lengths) == 100


@pytest.mark.parametrize(("width", "height"), [(193, 129), (254, 130)])
def test_odd_sizes(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "odd.mp4"
    write_video(path, numbered_frames(30, width=width, height=height), fps=25, pix_fmt="yuv444p")
    video = open_video(path, fps=1)
    rows = rows_of(video)
    assert rows.shape == (2, height, width, 3)
    assert [read_frame_number(row) for row in rows] == [0, 25]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_rotation(tmp_path: Path, degrees: int, decoder: str) -> None:
    path = tmp_path / "turned.mp4"
    lying = (
        np.rot90(frame, degrees // 90).copy() for frame in numbered_frames(60)
    )  # the player turns it back
    write_video(path, lying, fps=25)
    rotate_mp4(path, degrees)
    video = open_video(path, fps=1, decoder=decoder)
    rows = rows_of(video)
    assert video.decoder == decoder
    assert rows.shape == (3, 128, 192, 3)
    assert [read_frame_number(row) for row in rows] == [0, 25, 50]


@pytest.mark.slow
def test_4k_portrait_with_rotation(tmp_path: Path) -> None:
    path = tmp_path / "phone.mp4"
    lying = (np.rot90(frame).copy() for frame in numbered_frames(7, width=2160, height=3840))
    write_video(path, lying, fps=5)
    rotate_mp4(path, 90)
    with av.open(str(path)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (3840, 2160)
    video = open_video(path, fps=1)
    lengths = []
    for first, frames in video.chunks():
        assert frames.shape[1:] == (3840, 2160, 3)
        assert [read_frame_number(frame) for frame in frames] == [
            row * 5 for row in range(first, first + len(frames))
        ]
        lengths.append(len(frames))
    assert lengths == [2]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuvj420p"])
def test_both_decoders_see_the_same_colours(tmp_path: Path, pix_fmt: str) -> None:
    path = tmp_path / "colours.mp4"
    write_video(
        path, numbered_frames(50), fps=25, pix_fmt=pix_fmt, options={"preset": "superfast", "crf": "10"}
    )
    pictures = list(numbered_frames(50))
    rows = {}
    for decoder in DECODERS[:2]:
        video = open_video(path, fps=1, decoder=decoder)
        rows[decoder] = rows_of(video).astype(int)
        assert video.decoder == decoder
    assert np.array_equal(rows["decord"], rows["pyav"])
    original = np.stack([pictures[0], pictures[25]])
    assert (
        np.abs(rows["decord"] - original).mean() < 6
    )  # the range is right: the wrong one is off by 10 and more


def test_names_that_are_not_utf8_or_look_like_urls(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    write_video(whole, numbered_frames(60), fps=25)
    for name in (b"na\xffme.mp4", "näme.mp4".encode(), b"a:b %03d.mp4", b"-i.mp4"):
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(whole.read_bytes())
        assert numbers_of(path)[1] == [0, 25, 50]


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "file:odd.mp4", numbered_frames(30), fps=25, container="mp4")
    monkeypatch.chdir(tmp_path)
    assert numbers_of(Path("file:odd.mp4"))[1] == [0, 25]


# ---------------------------------------------------------------------------------------------- bad input


def test_not_a_video(tmp_path: Path) -> None:
    cases = {
        "words.mp4": b"these are words\n" * 100,
        "words.txt": b"these are words\n" * 100,
        "noise.mkv": np.random.default_rng(0).bytes(50_000),
        "playlist.m3u8": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        assert reason(tmp_path / name).startswith("not a video")


def test_still_image_is_no_video(tmp_path: Path) -> None:
    write_video(
        tmp_path / "photo.png", numbered_frames(1), fps=1, codec="png", pix_fmt="rgb24", container="image2"
    )
    assert reason(tmp_path / "photo.png").startswith("not a video")


def test_empty_missing_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert reason(tmp_path / "empty.mp4") == "empty file"
    assert reason(tmp_path / "absent.mp4") == "No such file or directory"
    assert reason(tmp_path) == "not a file"


@pytest.mark.parametrize("name", ["sound.m4a", "sound.mp4", "sound.wav"])
def test_audio_only(tmp_path: Path, name: str) -> None:
    if name.endswith("wav"):
        import wave

        with wave.open(str(tmp_path / name), "wb") as sound:
            sound.setparams((1, 2, 16000, 0, "NONE", ""))
            sound.writeframes(bytes(32000))
    else:
        write_audio(tmp_path / name, duration_s=2, container="mp4")
    assert reason(tmp_path / name) == "no video stream (audio only)"


@pytest.mark.slow
@pytest.mark.parametrize("audio_s", [None, 14.0])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.8])
@pytest.mark.parametrize(
    ("name", "how"),
    [("a.mp4", {"container_options": FASTSTART}), ("a.mkv", {}), ("a.avi", {"codec": "mpeg4"})],
)
def test_truncated(
    tmp_path: Path, name: str, how: dict[str, Any], kept: float, audio_s: float | None
) -> None:
    path = tmp_path / name
    write_video(path, numbered_frames(350), fps=25, audio_s=audio_s, **how)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    assert reason(path).startswith("truncated")


def test_mp4_cut_before_its_index(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, numbered_frames(50), fps=25)
    path.write_bytes(path.read_bytes()[:-2000])
    assert "moov atom not found" in reason(path)


@pytest.mark.parametrize("cut", [0.1, 0.3])
@pytest.mark.parametrize("open_gop", [0, 1])
def test_stream_recorded_from_the_middle(tmp_path: Path, cut: float, open_gop: int) -> None:
    # What precedes the first key frame cannot be decoded: the first frame shown is that key frame.
    path = tmp_path / "a.ts"
    options = {**B_FRAMES, "x264-params": f"open-gop={open_gop}:keyint=24:scenecut=0"}
    write_video(path, numbered_frames(100), fps=25, options=options)
    whole = path.read_bytes()
    path.write_bytes(whole[int(len(whole) * cut) // 188 * 188 :])
    numbers = numbers_of(path)[1]
    assert numbers[0] % 24 == 0
    assert numbers[0] > 0
    assert numbers == list(range(numbers[0], 100, 25))


def test_sound_longer_than_the_picture_is_not_truncation(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv"):
        write_video(tmp_path / name, numbered_frames(50), fps=25, audio_s=9)
        assert numbers_of(tmp_path / name)[1] == [0, 25]


@pytest.mark.parametrize("options", [B_FRAMES, {"preset": "ultrafast"}], ids=["cabac", "cavlc"])
def test_damaged_packets(tmp_path: Path, options: dict[str, str]) -> None:
    # A lost disk block: 200 bytes of the picture data, anywhere. Right rows, or a VideoError.
    path = tmp_path / "whole.mp4"
    write_video(path, noisy_frames(75), fps=25, gop=24, options=options)
    right = rows_of(open_video(path, fps=5))
    first, last = media_data(path)
    random = np.random.default_rng(4)
    damaged = tmp_path / "damaged.mp4"
    outcomes = {"right": 0, "refused": 0}
    for at in random.integers(first, last - 200, 25).tolist():
        content = bytearray(path.read_bytes())
        content[at : at + 200] = random.bytes(200)
        damaged.write_bytes(content)
        try:
            rows = rows_of(open_video(damaged, fps=5))
        except VideoError:
            outcomes["refused"] += 1
        else:
            assert np.array_equal(rows, right), f"damage at byte {at} went unnoticed"
            outcomes["right"] += 1
    assert outcomes["refused"] > 10


def test_damage_between_the_rows_does_not_refuse_them(tmp_path: Path) -> None:
    # At 1 fps and a key frame every 10, frame 15 is needed for no row: decord never decodes it.
    path = tmp_path / "whole.mp4"
    write_video(path, noisy_frames(60), fps=25, gop=10)
    with av.open(str(path)) as container:
        packet = next(p for i, p in enumerate(container.demux(video=0)) if i == 15)
        at, size = packet.pos, packet.size
    content = bytearray(path.read_bytes())
    content[at : at + size] = bytes(size)
    path.write_bytes(content)
    assert numbers_of(path)[1] == [0, 25, 50]


def test_decord_error_hands_over_to_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, numbered_frames(100), fps=25)

    def fail(*_: object) -> None:
        raise decode_decord.DecordDoubt("a test")

    monkeypatch.setattr(decode_decord, "_check", fail)
    assert numbers_of(path) == ("pyav", [0, 25, 50, 75])


def test_takeover_in_the_middle_keeps_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, numbered_frames(100), fps=25)
    monkeypatch.setattr(decode_decord, "_BATCH_BYTES", 1)
    from extract import decode

    real = decode_decord.decord_frames

    def tires(*arguments: Any) -> Any:
        for given, frame in enumerate(real(*arguments)):
            if given == 2:
                raise decode_decord.DecordDoubt("tired")
            yield frame

    monkeypatch.setattr(decode, "decord_frames", tires)
    assert numbers_of(path) == ("pyav", [0, 25, 50, 75])


def test_without_decord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, numbered_frames(60), fps=25)
    monkeypatch.setitem(sys.modules, "decord", None)
    assert numbers_of(path) == ("pyav", [0, 25, 50])


def test_worker_needs_no_torch() -> None:
    code = "import sys, extract.decode; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------------------------------- MP4 surgery


def trim_by_edit_list(path: Path, *, start_s: float, duration_s: float) -> None:
    """Rewrite the one entry of an MP4's edit list: show `duration_s` from `start_s` on, as editors do.

    An `elst` box of version 0 holds, after its type, version and flags (4 bytes), the number of entries (4),
    then per entry the duration in the movie's clock, the start in the track's clock and the rate.
    """
    content = bytearray(path.read_bytes())

    def number_at(box: bytes, offset: int) -> int:
        at = content.find(box) + 4 + offset
        return int.from_bytes(content[at : at + 4], "big")

    movie_clock, track_clock = number_at(b"mvhd", 12), number_at(b"mdhd", 12)
    assert number_at(b"elst", 0) == 0
    assert number_at(b"elst", 4) == 1
    entry = content.find(b"elst") + 12
    old_start = int.from_bytes(content[entry + 4 : entry + 8], "big")  # the delay of the B-frames
    content[entry : entry + 4] = round(duration_s * movie_clock).to_bytes(4, "big")
    content[entry + 4 : entry + 8] = (old_start + round(start_s * track_clock)).to_bytes(4, "big")
    path.write_bytes(content)
