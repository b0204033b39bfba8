"""Folders of frames: the same rows as of a video of these pictures, whatever they are called and made of."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from benchmarks.videos import numbered_frames, read_frame_number, write_video
from cache_schema import FeatureCache
from extract.decode import Video, VideoError, read_video
from extract.decode_images import FrameFolder
from extract.decode_packets import Findings
from extract.frame_folders import frame_names, gaps
from tests.test_extract import NAME, answer, assert_features, extract

Picture = NDArray[np.uint8]


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


# ------------------------------------------------------------------------------------------ which, in which order


@pytest.mark.parametrize(
    "names",
    [
        ["image_00001.jpg", "image_00002.jpg", "image_00003.jpg"],
        ["img_1.JPG", "img_2.jpg", "img_10.JPG"],  # 2 before 10
        ["000001.png", "000002.png"],
        ["frame000009.webp", "frame000010.webp"],
        ["v_Run_g01_c01_001.bmp", "v_Run_g01_c01_002.bmp"],
        ["clip2.mp4_1.tif", "clip2.mp4_3.tif"],
        ["0000001-000000123.jpg", "0000002-000000090.jpg"],  # a number, and something else
        ["img_1.jpg"],
    ],
)
def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path, names: list[str]) -> None:
    touch(tmp_path, *reversed(names))
    assert list(frame_names(tmp_path).values()) == names


@pytest.mark.parametrize(
    "others",
    [
        ["flow_x_00001.jpg", "flow_y_00001.jpg", "flow_x_00002.jpg", "flow_y_00002.jpg"],  # TSN, mmaction2
        ["img_flow_1.png", "Flow-1.jpg"],
        ["mask_1.png", "depth_1.png", "thumb_1.jpg", "img_00001 (2).jpg"],
        ["cover.jpg", "notes_1.txt", ".img_00003.jpg", "._img_00001.jpg"],
    ],
)
def test_other_files_may_lie_beside_the_frames(tmp_path: Path, others: list[str]) -> None:
    touch(tmp_path, "img_00001.jpg", "img_00002.jpg", *others)
    assert frame_names(tmp_path) == {1: "img_00001.jpg", 2: "img_00002.jpg"}


def test_a_single_picture_beside_many_is_no_frame(tmp_path: Path) -> None:
    touch(tmp_path, "vid_1.jpg", "vid_2.jpg", "poster_1.jpg", "1.png")
    assert frame_names(tmp_path) == {1: "vid_1.jpg", 2: "vid_2.jpg"}


def test_a_film_of_flowers_is_no_optical_flow(tmp_path: Path) -> None:
    assert len(frame_names(touch(tmp_path, "flower_1.jpg", "flower_2.jpg"))) == 2


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "no numbered pictures in it"),
        (["a.jpg", "b.jpg", "1.txt"], "no numbered pictures in it"),
        (["flow_x_1.jpg", "flow_y_1.jpg"], "only optical flow in it"),
        (
            ["left_1.jpg", "right_1.jpg"],
            r"2 series of pictures in it \(1 like left_1.jpg, 1 like right_1.jpg\)",
        ),
        (["1.jpg", "1.png"], "2 series of pictures"),
        (["img_1.jpg", "img_01.jpg"], "two pictures with one number in it: img_01.jpg and img_1.jpg"),
        (["a1_1.jpg", "a1_2.jpg", "a2_1.jpg", "a2_2.jpg"], r"several videos in it \(a1_1.jpg to a2_2.jpg\)"),
    ],
)
def test_where_it_cannot_be_told_which_are_the_frames(tmp_path: Path, names: list[str], reason: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(VideoError, match=reason):
        frame_names(tmp_path)


@given(
    st.sets(st.integers(0, 10**30), min_size=2, max_size=40),
    st.sampled_from(["", "img_", "v1_2_", "Frame ", "käse-"]),
    st.integers(1, 8),
)
def test_any_numbers_with_or_without_zeros(
    tmp_path_factory: pytest.TempPathFactory, numbers: set[int], prefix: str, digits: int
) -> None:
    folder = touch(tmp_path_factory.mktemp("v"), *(f"{prefix}{number:0{digits}d}.jpg" for number in numbers))
    assert list(frame_names(folder)) == sorted(numbers)


def test_every_fifth_frame_has_no_gaps() -> None:
    assert gaps([1, 2, 3]) == gaps([0, 5, 10]) == gaps([7]) == gaps([3, 9]) == []
    assert gaps([1, 2, 5, 6, 9]) == [2, 6]


# ------------------------------------------------------------------------------------------------- what they show


def write_frames(folder: Path, pictures: list[Picture], name: str = "img_{:05d}.png", **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures, 1):
        Image.fromarray(picture).save(folder / name.format(number), **options)
    return folder


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return list(numbered_frames(64))


def test_rows_are_those_of_a_video_of_the_pictures(tmp_path: Path, pictures: list[Picture]) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/v.mkv", pictures, fps=25, codec="ffv1", pix_fmt="bgr0")
    write_frames(tmp_path / "frames/v", pictures)
    write_frames(tmp_path / "frames/v", pictures, "flow_x_{:05d}.jpg")
    of_video = extract(tmp_path / "videos", tmp_path / "a", "--fps", "7")
    of_frames = extract(tmp_path / "frames", tmp_path / "b", "--fps", "7", "--frames-fps", "25", "--json")
    assert (of_video.code, of_frames.code) == (0, 0)
    assert answer(of_frames)["frames_decoded"] == 18 and answer(of_frames)["left_out"] == {}
    one, other = (FeatureCache(tmp_path / cache)[f"{NAME}@7fps"]["v"] for cache in "ab")
    assert np.array_equal(one.features, other.features) and np.array_equal(one.spans, other.spans)
    assert (other.duration_s, other.fps) == (64 / 25, 25)
    again = extract(tmp_path / "frames", tmp_path / "b", "--fps", "7", "--frames-fps", "25", "--json")
    assert answer(again)["already_there"] == 1


def shown(video: Video, numbers: Sequence[int]) -> list[Picture]:
    return [frame for frame in video.frames(np.array(numbers)) if frame is not None]


@pytest.mark.parametrize("rate", [25.0, 30000 / 1001, 1 / 3])
def test_instants_and_length_follow_from_the_rate(tmp_path: Path, rate: float) -> None:
    video = FrameFolder(
        touch(tmp_path, *(f"{number}.jpg" for number in range(300))), frames_fps=rate, findings=Findings()
    )
    assert video.fps == pytest.approx(rate) and video.duration_s == pytest.approx(300 / rate)
    starts_s = np.arange(300) / rate
    assert video.numbers_at(starts_s).tolist() == list(range(300))
    assert video.numbers_at(starts_s + 0.99 / rate).tolist() == list(range(300))
    assert video.numbers_at(np.array([[-1.0, 1e9]])).tolist() == [[0, 299]]


def test_only_the_pictures_asked_for_are_read(tmp_path: Path, pictures: list[Picture]) -> None:
    folder = write_frames(tmp_path, pictures[:10])
    for number in (2, 4, 6):
        (folder / f"img_{number:05d}.png").write_bytes(b"damaged")
    video = read_video(folder, frames_fps=25)
    assert [read_frame_number(frame) for frame in shown(video, [0, 4, 9])] == [0, 4, 9]
    assert (video.decoder, video.remarks) == ("images", [])


def test_missing_numbers_are_remarked_on(tmp_path: Path, pictures: list[Picture]) -> None:
    folder = write_frames(tmp_path, pictures[:10])
    for number in (4, 5, 8):
        (folder / f"img_{number:05d}.png").unlink()
    video = read_video(folder, frames_fps=25)
    assert [read_frame_number(frame) for frame in shown(video, range(7))] == [0, 1, 2, 5, 6, 8, 9]
    assert video.remarks == [
        "numbers are missing, first after img_00003.png (2 gaps); the pictures are shown one after another all "
        "the same"
    ]


def decoded(folder: Path) -> Picture:
    [frame] = shown(read_video(folder, frames_fps=1), [0])
    assert frame.dtype == np.uint8 and frame.flags.c_contiguous
    return frame


def grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L")


def sixteen_bits(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)


def half_transparent(picture: Image.Image) -> Image.Image:
    picture = picture.copy()
    picture.putalpha(128)
    return picture


@pytest.mark.parametrize(
    ("name", "change", "options", "worst"),
    [
        ("1.png", lambda picture: picture, {}, 0),
        ("1.png", half_transparent, {}, 0),
        ("1.png", lambda picture: picture.quantize(256), {}, 40),
        ("1.png", lambda picture: picture.quantize(16), {"transparency": 0}, 110),
        ("1.png", lambda picture: picture.convert("1"), {}, None),
        ("1.png", grey, {}, None),
        ("1.png", sixteen_bits, {}, None),
        ("1.tif", sixteen_bits, {}, None),
        ("1.png", lambda picture: picture.convert("LA"), {}, None),
        ("1.bmp", lambda picture: picture, {}, 0),
        ("1.tiff", lambda picture: picture.convert("CMYK"), {}, 0),
        ("1.ppm", lambda picture: picture, {}, 0),
        ("1.tga", lambda picture: picture, {}, 0),
        ("1.webp", lambda picture: picture, {"lossless": True}, 0),
        ("1.jp2", lambda picture: picture, {}, 3),
        ("1.jpg", lambda picture: picture, {"quality": 98, "subsampling": 0}, 12),
        ("1.jpg", lambda picture: picture.convert("CMYK"), {"quality": 98}, 24),
        ("1.jpg", lambda picture: picture, {"progressive": True, "quality": 98, "subsampling": 0}, 12),
        ("1.jpg", grey, {"quality": 98}, None),
        ("1.png", lambda picture: picture, {"format": "JPEG", "quality": 98, "subsampling": 0}, 12),
    ],
)
def test_pictures_of_every_kind_become_rgb(
    tmp_path: Path,
    pictures: list[Picture],
    name: str,
    change: Callable[[Image.Image], Image.Image],
    options: dict[str, Any],
    worst: int | None,
) -> None:
    change(Image.fromarray(pictures[5])).save(tmp_path / name, **options)
    frame = decoded(tmp_path)
    assert read_frame_number(frame) == 5
    if worst is None:  # grey
        assert np.ptp(frame, axis=2).max() == 0
    else:
        assert np.abs(frame.astype(int) - pictures[5]).max() <= worst


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path: Path, pictures: list[Picture], orientation: int) -> None:
    upright = Image.fromarray(pictures[9])
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = upright.transpose(stored[orientation]) if orientation in stored else upright
    turned.save(tmp_path / "1.jpg", exif=exif, quality=95)
    assert read_frame_number(decoded(tmp_path)) == 9


def test_pictures_of_other_sizes_keep_them(tmp_path: Path) -> None:
    sizes = [(128, 192), (96, 160), (256, 144)]
    folder = write_frames(tmp_path, [np.zeros((*size, 3), np.uint8) for size in sizes])
    frames = shown(read_video(folder, frames_fps=25), range(3))
    assert [frame.shape[:2] for frame in frames] == sizes


# ------------------------------------------------------------------------------------------------------ damage


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def with_a_hole(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(512) + content[middle + 512 :]


def noise() -> Picture:
    return np.random.default_rng(0).integers(0, 255, (128, 192, 3), np.uint8)


@pytest.mark.parametrize(
    ("suffix", "damage", "reason"),
    [
        (".jpg", cut, "damaged: image file is truncated"),
        (".jpg", with_a_hole, "damaged: mjpeg: "),
        (".png", cut, "damaged: image file is truncated"),
        (".png", with_a_hole, "damaged: "),
        (".bmp", cut, "damaged: image file is truncated"),
        (".webp", cut, "damaged|not a picture"),
        (".jpg", lambda content: b"", "empty file"),
        (".jpg", lambda content: b"<html>not found</html>", "not a picture, or damaged"),
        (".png", lambda content: b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a picture, or damaged"),
    ],
)
def test_a_damaged_picture_is_named(
    tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes], reason: str
) -> None:
    folder = write_frames(tmp_path, [noise()] * 3, f"img_{{}}{suffix}")
    path = folder / f"img_2{suffix}"
    path.write_bytes(damage(path.read_bytes()))
    video = read_video(folder, frames_fps=25)
    with pytest.raises(VideoError, match=f"^img_2{suffix}: ({reason})"):
        list(video.frames(np.arange(3)))


def test_what_can_be_had_of_a_damaged_folder_is_kept(tmp_path: Path, pictures: list[Picture]) -> None:
    folder = write_frames(tmp_path / "f/v", pictures[:60])
    for number in (26, 30):  # the row at 1 s, and a picture that no row shows
        path = folder / f"img_{number:05d}.png"
        path.write_bytes(cut(path.read_bytes()))
    video = read_video(folder, frames_fps=25, keep_damaged=True)
    kept = [
        frame if frame is None else read_frame_number(frame) for frame in video.frames(np.array([0, 25, 50]))
    ]
    assert kept == [0, None, 50]
    assert video.damage is not None and video.damage.startswith(
        "img_00026.png: damaged: image file is truncated"
    )
    options = ("--frames-fps", "25", "--json", "--damaged", "keep")
    ran = extract(tmp_path / "f", tmp_path / "cache", *options)
    assert (
        ran.code == 0 and list(answer(ran)["partial"]) == ["v"] and answer(ran)["decoders"] == {"images": 1}
    )
    assert FeatureCache(tmp_path / "cache")[NAME]["v"].spans[:, 0].tolist() == [0, 2]
    dry = answer(extract(tmp_path / "f", tmp_path / "cache", *options, "--dry-run"))
    assert (dry["already_there"], list(dry["partial"]), dry["to_extract"]) == (1, ["v"], 0)


def test_ordinary_jpegs_pass_the_check_for_damage(tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [
        {
            "quality": quality,
            "subsampling": subsampling,
            "progressive": progressive,
            "restart_marker_rows": restart,
        }
        for quality in (5, 75, 100)
        for subsampling in (0, 1, 2)
        for progressive in (False, True)
        for restart in (0, 1)
    ]
    random_bytes = random.Random(0).randbytes
    for number, options in enumerate(kinds):
        content = io.BytesIO()
        Image.fromarray(noise()[: 128 - number, : 192 - number]).save(content, "JPEG", **options)
        # What cameras and editors leave in a file: metadata that nobody understands, and bytes behind the end.
        odd = b"\xff\xd8\xff\xe1\x00\x12" + random_bytes(16) + content.getvalue()[2:] + random_bytes(number)
        (tmp_path / f"{number}.jpg").write_bytes(odd)
    assert len(list(read_video(tmp_path, frames_fps=25).frames(np.arange(len(kinds))))) == len(kinds)


def test_damage_ends_as_a_failure_with_the_pictures_name(tmp_path: Path, pictures: list[Picture]) -> None:
    write_frames(tmp_path / "f/good", pictures[:30])
    bad = write_frames(tmp_path / "f/bad", pictures[:30])
    (bad / "img_00026.png").write_bytes(cut((bad / "img_00026.png").read_bytes()))
    touch(tmp_path / "f/two", "left_1.jpg", "right_1.jpg")
    ran = extract(tmp_path / "f", tmp_path / "cache", "--frames-fps", "25", "--json")
    assert ran.code == 1 and answer(ran)["extracted"] == 1
    failed = answer(ran)["failed"]
    assert failed["bad"].startswith("img_00026.png: damaged: image file is truncated")
    assert failed["two"].startswith("2 series of pictures in it")
    (tmp_path / "f/two/right_1.jpg").unlink()
    Image.fromarray(pictures[0]).save(tmp_path / "f/two/left_1.jpg")
    again = extract(tmp_path / "f", tmp_path / "cache", "--frames-fps", "25", "--json")
    assert answer(again)["extracted"] == 1 and list(answer(again)["failed"]) == ["bad"]
    record = FeatureCache(tmp_path / "cache")[NAME]["two"]
    assert record.source == os.fspath(tmp_path / "f/two")
    assert_features(record, [np.asarray(Image.open(tmp_path / "f/two/left_1.jpg"))])
