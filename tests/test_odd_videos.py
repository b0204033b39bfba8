"""Odd and healthy: files that play are read, with the frames that a player shows; the odd is remarked on.

Each is made here as encoders, cutters and recorders make it, and frames carry their numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.plain import NoVideo, Showing
from benchmarks.videos import noisy_frames, numbered_frames, read_frame_number, write_video
from cache_schema import Preprocessing, Sampling
from extract.cutting import Cutter
from extract.decode import VideoError, open_video, read_video
from extract.decode_index import read_index
from extract.decode_packets import Findings
from extract.views import View
from tests.test_decode import B_FRAMES
from tests.test_extract import overwritten

OPEN_GROUPS = {
    "preset": "veryfast",
    "bf": "3",
    "x264-params": "open-gop=1:keyint=24:min-keyint=24:scenecut=0",
}
PLACEHOLDER = b"\x7f"
VOP_START = b"\0\0\1\xb6"


def rows(path: Path, **how: Any) -> tuple[list[NDArray[np.uint8]], list[str]]:
    video = open_video(path, fps=1, **how)
    frames = [frame for _, chunk in video.chunks() for frame in chunk]
    return frames, video.remarks


def numbers(path: Path, **how: Any) -> list[int]:
    return [read_frame_number(frame) for frame in rows(path, **how)[0]]


def packets_of(path: Path) -> Iterator[av.Packet[Any]]:
    with av.open(str(path)) as container:
        yield from (packet for packet in container.demux(video=0) if packet.size)


def remux(source: Path, target: Path, packets: Iterable[tuple[bytes, int, int, bool]]) -> None:
    """Write packets, given as content, pts, dts and whether it is a key frame, as the source's stream."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        time_base = container.streams.video[0].time_base
        for content, pts, dts, key in packets:
            packet = av.Packet(content)
            packet.pts, packet.dts, packet.time_base, packet.stream = pts, dts, time_base, stream
            packet.is_keyframe = key
            output.mux(packet)


def copied(packet: av.Packet[Any], first: int) -> tuple[bytes, int, int, bool]:
    assert packet.pts is not None and packet.dts is not None
    return bytes(packet), packet.pts - first, packet.dts - first, packet.is_keyframe


# ------------------------------------------------------------------------------------------------- MPEG-4 part 2


@pytest.fixture(scope="module")
def with_b_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mpeg4") / "plain.avi"
    write_video(path, numbered_frames(90), fps=25, gop=12, codec="mpeg4", options={"bf": "1"})
    return path


@pytest.mark.parametrize("suffix", ["avi", "mkv"])
def test_packed_b_frames(with_b_frames: Path, tmp_path: Path, suffix: str) -> None:
    # As DivX and XviD write them: a picture and the B picture before it in one packet, then a placeholder.
    contents = [(bytes(packet), packet.is_keyframe) for packet in packets_of(with_b_frames)]
    start = contents[0][0].index(VOP_START)
    # libav takes a stream for packed where its writer says so.
    contents[0] = contents[0][0][:start] + b"\0\0\1\xb2DivX503b1393p" + contents[0][0][start:], True
    kinds = [content[content.index(VOP_START) + 4] >> 6 for content, _ in contents]
    packed: list[tuple[bytes, bool]] = []
    for (content, key), kind, following in zip(contents, kinds, [*kinds[1:], 0], strict=True):
        if kind == 2:
            packed[-1] = packed[-1][0] + content, packed[-1][1]
            packed.append((PLACEHOLDER, False))
        else:
            packed.append((content, key))
        assert kind != 2 or following != 2
    path = tmp_path / f"packed.{suffix}"
    remux(with_b_frames, path, ((content, at, at, key) for at, (content, key) in enumerate(packed)))
    assert numbers(path) == numbers(with_b_frames) == [0, 25, 50, 75]
    assert any("packed" in remark for remark in rows(path)[1])


def test_a_picture_that_is_not_coded_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "plain.avi"
    write_video(path, numbered_frames(60), fps=25, gop=12, codec="mpeg4")
    contents = [(bytes(packet), packet.is_keyframe) for packet in packets_of(path)]
    # Time stands still for a frame: everything after it is one later.
    contents.insert(20, (PLACEHOLDER, False))
    held = tmp_path / "held.avi"
    remux(path, held, ((content, at, at, key) for at, (content, key) in enumerate(contents)))
    assert numbers(held) == [0, 24, 49]


def test_damage_in_packed_b_frames_is_named(tmp_path: Path) -> None:
    path = tmp_path / "whole.avi"
    write_video(path, noisy_frames(60), fps=25, gop=12, codec="mpeg4", options={"bf": "1"})
    content = bytearray(path.read_bytes())
    middle = len(content) * 2 // 5
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    with pytest.raises(VideoError, match="damaged"):
        rows(path)


# ----------------------------------------------------------------------------------------- cut, joined, paused


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("group", [1, 2])
def test_cut_out_of_open_groups(tmp_path: Path, suffix: str, group: int) -> None:
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    write_video(whole, numbered_frames(120), fps=25, gop=24, options=OPEN_GROUPS)
    packets = list(packets_of(whole))
    start = [at for at, packet in enumerate(packets) if packet.is_keyframe][group]
    first = packets[start].dts or 0
    kept = [packet for packet in packets[start:] if packet.pts is not None and packet.dts is not None]
    # Without the pictures that are shown before the key frame, or with them.
    remux(whole, cut, (copied(p, first) for p in kept))
    shown = numbers(cut)
    assert shown[0] == 24 * group and np.diff(shown).tolist() == [25] * (len(shown) - 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("mpeg2video", {"bf": "2"}),
        ("mpeg4", {"bf": "2"}),
        ("libx265", {"preset": "ultrafast", "x265-params": "open-gop=1:keyint=12:bframes=2:log-level=none"}),
    ],
)
@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4", "bare"])
def test_pictures_behind_the_first_that_lack_what_they_need(
    tmp_path: Path, codec: str, options: dict[str, str], suffix: str
) -> None:
    # Where frames have no usable times they are counted, and these give none. The decoder says nothing of them.
    suffix = {"libx265": "hevc", "mpeg4": "m4v", "mpeg2video": "m2v"}[codec] if suffix == "bare" else suffix
    if (codec, suffix) == ("libx265", "avi"):
        pytest.skip("PyAV writes no HEVC into AVI")
    whole, cut = tmp_path / "whole.mkv", tmp_path / f"cut.{suffix}"
    write_video(whole, numbered_frames(90), fps=25, gop=12, codec=codec, options=options)
    packets = list(packets_of(whole))
    first = [at for at, packet in enumerate(packets) if packet.is_keyframe][1]
    start = packets[first].dts
    assert start is not None
    remux(whole, cut, (copied(packet, start) for packet in packets[first:]))
    assert_as_plain(cut)


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("skipped", [0, 8])
def test_b_frames_with_the_times_of_decoding(tmp_path: Path, suffix: str, skipped: int) -> None:
    # As ffmpeg copies them out of an AVI, which has no others; with some before zero, as when it cuts.
    whole, copy = tmp_path / "whole.avi", tmp_path / f"copy.{suffix}"
    write_video(whole, numbered_frames(90), fps=25, gop=12, codec="mpeg4", options={"bf": "2"})
    contents = [(bytes(packet), packet.is_keyframe) for packet in packets_of(whole)]
    remux(
        whole,
        copy,
        ((content, at - skipped, at - skipped, key) for at, (content, key) in enumerate(contents)),
    )
    assert_as_plain(copy)
    assert any("order of decoding" in remark for remark in rows(copy)[1])


def test_joined_segments_whose_counters_start_anew(tmp_path: Path) -> None:
    joined = tmp_path / "joined.ts"
    content = b""
    for part in range(3):
        path = tmp_path / f"part{part}.ts"
        starts_s = [(part * 50 + at) / 25 for at in range(50)]
        frames = numbered_frames(50, first=50 * part)
        write_video(path, frames, fps=25, gop=25, pts=starts_s, options={"preset": "veryfast", "bf": "0"})
        content += path.read_bytes()
    joined.write_bytes(content)
    shown, remarks = rows(joined)
    assert [read_frame_number(frame) for frame in shown] == [0, 25, 50, 75, 100, 125]
    assert any("counters" in remark for remark in remarks)


def test_joined_segments_whose_clock_starts_anew(tmp_path: Path) -> None:
    content = b""
    for part in range(2):
        path = tmp_path / f"part{part}.ts"
        write_video(path, numbered_frames(50, first=50 * part), fps=25, gop=25, options=B_FRAMES)
        content += path.read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(content)
    frames, remarks = rows(joined)
    assert [read_frame_number(frame) for frame in frames] == [0, 25, 50, 75]
    assert any("clock" in remark for remark in remarks)


def test_a_lost_packet_is_damage_and_its_time_counts_from_the_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "lost.ts"
    starts_s = [40_000 + at / 25 for at in range(75)]
    write_video(
        path, noisy_frames(75), fps=25, gop=75, pts=starts_s, options={"preset": "veryfast", "bf": "0"}
    )
    content = path.read_bytes()
    middle = len(content) // 2 // 188 * 188
    path.write_bytes(content[:middle] + content[middle + 188 :])
    with pytest.raises(VideoError, match="damaged") as caught:
        list(read_video(path).frames(np.arange(75)))
    assert "4000" not in str(caught.value)


def test_pauses_of_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "paused.ts"
    starts_s = [at / 25 + 15 * (at // 25) for at in range(75)]
    write_video(path, numbered_frames(75), fps=25, pts=starts_s, options=B_FRAMES)
    frames, remarks = rows(path)
    # How long the last frame stays is not known.
    assert [read_frame_number(frame) for frame in frames][:33] == [0, *[24] * 15, 25, *[49] * 15, 50]
    assert sum("no picture for 15 s" in remark for remark in remarks) == 2


# ------------------------------------------------------------------------------- one picture whatever the decoder


@pytest.mark.slow
@pytest.mark.parametrize("size", [(193, 129), (192, 129), (193, 128)])
@pytest.mark.parametrize(("codec", "suffix"), [("libvpx-vp9", "mp4"), ("libvpx", "webm"), ("mpeg4", "mp4")])
def test_odd_sizes_of_subsampled_chroma(
    tmp_path: Path, size: tuple[int, int], codec: str, suffix: str
) -> None:
    path = tmp_path / f"odd.{suffix}"
    width, height = size
    write_video(path, noisy_frames(30, width=width, height=height), fps=25, codec=codec)
    assert_as_plain(path)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("order", ["tff", "bff"])
def test_interlaced(tmp_path: Path, suffix: str, order: str) -> None:
    path = tmp_path / f"interlaced.{suffix}"
    options = {"preset": "superfast", "bf": "0", "x264-params": f"{order}=1:bframes=0"}
    write_video(path, noisy_frames(50, width=96, height=64), fps=25, options=options)
    assert_as_plain(path)


@pytest.mark.parametrize("suffix", ["h264", "ts"])
def test_a_picture_that_changes_size_is_not_squeezed(tmp_path: Path, suffix: str) -> None:
    content = b""
    sizes = [(192, 128), (128, 192)]
    for part, (width, height) in enumerate(sizes):
        path = tmp_path / f"part{part}.{suffix}"
        starts_s = [(part * 50 + at) / 25 for at in range(50)]
        frames = noisy_frames(50, width=width, height=height)
        write_video(path, frames, fps=25, gop=25, pts=starts_s, options={"bf": "0", "preset": "superfast"})
        content += path.read_bytes()
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(content)
    assert [frame.shape[:2] for frame in rows(path)[0]] == [(128, 192)] * 2 + [(192, 128)] * 2


def assert_as_plain(path: Path) -> None:
    """By each decoder to 2 grey levels what a plain decoding of every frame shows."""
    with av.open(str(path)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for decoder in ("auto", "decord", "pyav"):
        shown, _ = rows(path, decoder=decoder)
        assert len(shown) == -(-len(plain) // 25)
        for row, frame in enumerate(shown):
            assert frame.shape == plain[25 * row].shape
            assert np.abs(frame.astype(int) - plain[25 * row]).max() <= 2


# ------------------------------------------------------------------------------------------------ --damaged keep


@pytest.mark.parametrize(("suffix", "size"), [("mp4", 400), ("avi", 20), ("avi", 400)])
def test_what_can_be_had_of_a_damaged_file(tmp_path: Path, suffix: str, size: int) -> None:
    path = tmp_path / f"a.{suffix}"
    codec = "mpeg4" if suffix == "avi" else "libx264"
    options = {"bf": "0"} if suffix == "avi" else {"preset": "veryfast", "bf": "2"}
    write_video(path, noisy_frames(125), fps=25, gop=25, codec=codec, options=options)
    right = list(read_video(path).frames(np.arange(125)))
    content = bytearray(path.read_bytes())
    at = (list(packets_of(path))[60].pos or 0) + 30  # in a picture; the many bytes are those of several
    content[at : at + size] = np.random.default_rng(1).bytes(size)
    path.write_bytes(content)
    with pytest.raises(VideoError):
        list(read_video(path).frames(np.arange(125)))
    video = read_video(path, keep_damaged=True)
    count = round(video.duration_s * video.fps)
    kept = list(video.frames(np.arange(count)))
    assert video.damage is not None and len(kept) == count
    # Frames that an AVI has lost leave no gap: what follows them cannot be placed.
    assert sum(frame is not None for frame in kept) >= (50 if (suffix, size) == ("avi", 400) else 75)
    for frame, whole in zip(kept, right, strict=False):
        assert frame is None or (whole is not None and np.array_equal(frame, whole))


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("avi", "mpeg4", {}),
        ("avi", "mpeg4", {"bf": "2"}),
        ("avi", "mpeg2video", {"bf": "2"}),
        ("m2v", "mpeg2video", {"bf": "2"}),
    ],
)
def test_damage_at_the_beginning_moves_no_frame_that_is_kept(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    # Where frames are counted, pictures that are damaged are not to be taken for cut off.
    path = tmp_path / f"a.{suffix}"
    write_video(path, numbered_frames(90), fps=25, gop=12, codec=codec, options=options)
    packet = list(packets_of(path))[5]
    assert packet.pos is not None
    overwritten_at = packet.pos + packet.size // 3
    content = bytearray(path.read_bytes())
    content[overwritten_at : overwritten_at + 40] = bytes(range(7, 47))
    path.write_bytes(content)
    video = read_video(path, keep_damaged=True)
    assert len(video.frame_starts_s) == 90
    frames = list(video.frames(np.arange(90)))
    kept = [(at, read_frame_number(frame)) for at, frame in enumerate(frames) if frame is not None]
    assert video.damage is not None and 0 < len(kept) < 90
    assert all(at == number for at, number in kept)


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "libx264"), ("a.mkv", "libx265")])
def test_pictures_that_a_container_lost_are_missed(tmp_path: Path, name: str, codec: str) -> None:
    whole, damaged = tmp_path / f"whole_{name}", tmp_path / name
    write_video(whole, noisy_frames(150, width=64, height=48), fps=25, gop=25, codec=codec)
    damaged.write_bytes(overwritten(whole.read_bytes()))
    right, video = read_video(whole), read_video(damaged, keep_damaged=True)
    times_s = np.arange(30) / 5
    kept = list(video.frames(video.numbers_at(times_s)))
    assert video.damage is not None and 0 < sum(frame is None for frame in kept) < 15
    for frame, same in zip(kept, right.frames(right.numbers_at(times_s)), strict=True):
        assert frame is None or (same is not None and np.array_equal(frame, same))


@pytest.mark.parametrize(("suffix", "codec", "pix_fmt"), [("gif", "gif", "rgb8"), ("apng", "apng", "rgb24")])
def test_a_still_image_is_no_video_and_a_moving_one_is(
    tmp_path: Path, suffix: str, codec: str, pix_fmt: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    for count in (1, 30):
        write_video(path, numbered_frames(count), fps=10, codec=codec, pix_fmt=pix_fmt)
        if count == 1:
            with pytest.raises(VideoError, match="still image"):
                read_video(path)
            with pytest.raises(NoVideo, match="still picture"):
                Showing(path)
    assert numbers(path) == [0, 10, 20]


def test_flow_where_a_picture_changes_size(tmp_path: Path) -> None:
    content = b""
    for width, height in ((96, 64), (64, 96)):
        path = tmp_path / "part.h264"
        write_video(
            path, noisy_frames(16, width=width, height=height), fps=16, options={"preset": "ultrafast"}
        )
        content += path.read_bytes()
    path = tmp_path / "joined.h264"
    path.write_bytes(content)
    preprocessing = Preprocessing(32, 32, "bilinear", (0, 0, 0), (1, 1, 1), flow="dis")
    view = View(Sampling("dense", fps=8.0, frames=4, window=4), preprocessing)
    chunks = list(Cutter(read_video(path), [view]).chunks())
    assert sum(len(chunk.pixels) for chunk in chunks) >= 2
    assert all(chunk.pixels.shape[1:] == view.row_shape for chunk in chunks)


def test_cut_out_of_a_stream_that_is_refreshed_bit_by_bit(tmp_path: Path) -> None:
    # Nothing is shown until the picture is whole, and the first frame is the one that is.
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    options = {"preset": "veryfast", "bf": "0", "x264-params": "intra-refresh=1:keyint=24:min-keyint=24"}
    write_video(whole, numbered_frames(120), fps=25, gop=24, options=options)
    packets = list(packets_of(whole))
    start = next(at for at, packet in enumerate(packets) if packet.is_keyframe and at > 0)
    first = packets[start].dts or 0
    remux(whole, cut, (copied(packet, first) for packet in packets[start:]))
    plain = Showing(cut)
    shown, _ = rows(cut)
    expected = list(plain.frames(plain.at(second) for second in plain.instants(1)))
    assert len(shown) == len(expected) >= 2
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(shown, expected, strict=True))
    assert read_frame_number(shown[0]) > start


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_b_frames_that_are_allowed_and_not_there_cost_nothing(tmp_path: Path, suffix: str) -> None:
    # Of noise x264 makes none. What no row needs is left out all the same, damaged or not.
    path = tmp_path / f"a.{suffix}"
    write_video(path, noisy_frames(50), fps=25, gop=24, options={"preset": "veryfast", "bf": "3"})
    assert not read_index(path, Findings()).whole
