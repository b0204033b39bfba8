"""The videos people have, as they have them, through the commands: endings, names, lists, folders of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.videos import numbered_frames, read_frame_number, write_video
from cache_schema import FeatureCache
from extract.cli import batch_extract
from extract.decode import open_video
from extract.finetune.cli import finetune_backbone
from tests.test_extract import NAME, STREAM, answer, extract
from tests.test_finetune import CLASSES, finetune, same_run, tinted_frames

COUNT, FPS = 26, 25
# By ending: container, codec, pixels.
MADE: dict[str, tuple[str | None, str, str]] = {
    "264": ("h264", "libx264", "yuv420p"),
    "3g2": ("3g2", "libx264", "yuv420p"),
    "apng": ("apng", "apng", "rgb24"),
    "av1": ("obu", "libsvtav1", "yuv420p"),
    "divx": ("avi", "mpeg4", "yuv420p"),
    "f4v": ("f4v", "libx264", "yuv420p"),
    "gif": ("gif", "gif", "rgb8"),
    "hevc": ("hevc", "libx265", "yuv420p"),
    "ivf": ("ivf", "libsvtav1", "yuv420p"),
    "m1v": ("mpeg1video", "mpeg1video", "yuv420p"),
    "m2t": ("mpegts", "mpeg2video", "yuv420p"),
    "m2v": ("mpeg2video", "mpeg2video", "yuv420p"),
    "mj2": ("mov", "jpeg2000", "yuv420p"),
    "mpe": ("mpeg", "mpeg1video", "yuv420p"),
    "mpv": ("mpeg2video", "mpeg2video", "yuv420p"),
    "nut": ("nut", "mpeg4", "yuv420p"),
    "obu": ("obu", "libsvtav1", "yuv420p"),
    "ogm": ("ogg", "libvpx", "yuv420p"),
    "qt": ("mov", "mjpeg", "yuvj420p"),
    "rm": ("rm", "rv20", "yuv420p"),
    "rmvb": ("rm", "rv10", "yuv420p"),
    "swf": ("swf", "flv", "yuv420p"),
    "tp": ("mpegts", "libx264", "yuv420p"),
    "vob": ("vob", "mpeg2video", "yuv420p"),
    "wtv": ("wtv", "mpeg2video", "yuv420p"),
    "xvid": ("avi", "mpeg4", "yuv420p"),
    "y4m": ("yuv4mpegpipe", "wrapped_avframe", "yuv420p"),
}


def test_videos_of_every_ending_are_found_and_extracted(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for ending, (container, codec, pixels) in MADE.items():
        quick = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx" else {}
        path = videos / f"of_{ending}.{ending}"
        frames = numbered_frames(COUNT)
        write_video(path, frames, fps=FPS, codec=codec, container=container, pix_fmt=pixels, options=quick)
        rows = [frame for _, chunk in open_video(path, fps=5).chunks() for frame in chunk]
        assert list(map(read_frame_number, rows)) == [0, 5, 10, 15, 20, 25], ending
    ran = extract(videos, tmp_path / "cache", "--json")
    assert ran.code == 0, ran.err
    assert answer(ran)["extracted"] == len(MADE) and answer(ran)["left_out"] == {}
    stream = FeatureCache(tmp_path / "cache")[NAME]
    assert {len(stream[video].features) for video in stream} == {2}


def test_what_a_folder_held_and_was_not_taken_is_told(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v/a.mp4", numbered_frames(3), fps=3)
    for name in ("notes.txt", "cover.jpg", "poster.jpg", "README"):
        (tmp_path / "v" / name).touch()
    ran = extract(tmp_path / "v", tmp_path / "cache", "--json")
    assert ran.code == 0
    assert answer(ran)["left_out"] == {".txt": 1, ".jpg": 2, "": 1}
    assert f"left out of {tmp_path}/v: 2 .jpg, 1 without ending, 1 .txt" in ran.lines


@pytest.mark.parametrize("command", [batch_extract, finetune_backbone])
def test_a_name_that_is_taken_for_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-x.mp4").touch()
    Path("--json.mp4").touch()
    options = ["--stream", STREAM, "--cache", "cache", "--labels", "l.csv", "--out", "run"]
    for name in ("-x.mp4", "--json.mp4"):
        result = CliRunner().invoke(command, [name, *options])
        assert result.exit_code == 2
        assert result.stderr.splitlines()[-1] == (
            f"Error: {name} is taken for an option; as a file it is ./{name}"
        )
    result = CliRunner().invoke(command, ["--nonsense", *options])
    assert result.exit_code == 2 and result.stderr.splitlines()[-1].startswith("Error: No such option")


@pytest.mark.slow
def test_names_that_begin_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "-x.mp4", numbered_frames(3), fps=3)
    options = ["--cache", "cache", "--stream", STREAM, "--weights", "random:0", "--workers", "1"]
    assert CliRunner().invoke(batch_extract, [*options, "./-x.mp4"]).exit_code == 0
    again = CliRunner().invoke(batch_extract, [*options, "--", "-x.mp4"])
    assert again.exit_code == 0 and "1 already there" in again.stdout


def test_a_table_of_paths_with_labels(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/001.mp4", numbered_frames(3), fps=3)
    (tmp_path / "paths.csv").write_text("path,label\nvideos/001.mp4,0\nvideos/002.mp4,1\n")
    ran = extract(tmp_path / "paths.csv", tmp_path / "cache")
    assert ran.code == 1
    assert f"{tmp_path}/paths.csv: only its paths are read, not what stands beside them" in ran.lines
    assert (
        f"{tmp_path}/paths.csv: missing: 1 of the 2 it names, the first: {tmp_path}/videos/002.mp4"
        in ran.lines[0]
    )
    assert f"failed: {tmp_path}/videos/002.mp4: no such file" in ran.lines
    assert list(FeatureCache(tmp_path / "cache")[NAME]) == ["001"]
    elsewhere = extract(tmp_path / "paths.csv", tmp_path / "other", "--root", tmp_path / "videos").error
    assert f"the first: {tmp_path}/videos/videos/001.mp4: no such file; its paths are taken" in elsewhere


@pytest.mark.parametrize("argument", ["https://example.org/a.mp4", "videos/*.mp4", "a.zip"])
def test_requests_for_what_is_no_file_end_before_anything_is_made(tmp_path: Path, argument: str) -> None:
    (tmp_path / "a.zip").touch()
    named = argument if "://" in argument else str(tmp_path / argument)
    assert named in extract([Path(named)], tmp_path / "cache").error
    assert not (tmp_path / "cache").exists()


def test_frames_at_another_rate_are_another_video(tmp_path: Path) -> None:
    (tmp_path / "frames/v").mkdir(parents=True)
    for number, frame in enumerate(numbered_frames(4)):
        Image.fromarray(frame).save(tmp_path / f"frames/v/{number}.png")
    frames, cache = tmp_path / "frames", tmp_path / "cache"
    assert "--frames-fps RATE" in extract(frames, cache).error
    assert extract(frames, cache, "--frames-fps", "2").code == 0
    assert "--frames-fps': '2/0' is no rate" in extract(frames, cache, "--frames-fps", "2/0").error
    for rate in ("1e999999999", "0", "inf", "-1/2"):
        assert "must be positive and finite" in extract(frames, cache, "--frames-fps", rate).error
    ran = extract(frames, cache, "--frames-fps", "4000/1000")
    assert ran.code == 1
    [line] = [line for line in ran.lines if line.startswith("failed: v: ")]
    assert line.startswith("failed: v: it was extracted with --frames-fps 2.0; `feature-cache drop ")
    Image.fromarray(frame).save(tmp_path / "frames/v/0.png")
    [line] = [
        line for line in extract(frames, cache, "--frames-fps", "2").lines if line.startswith("failed: v: ")
    ]
    assert line.startswith("failed: v: it has changed since it was extracted; `feature-cache drop ")


def test_fine_tuning_on_folders_of_frames_is_that_on_videos_of_them(tmp_path: Path) -> None:
    lines = ["video_id,label,subset"]
    for seed, (name, subset) in enumerate(
        (n, s) for n in CLASSES for s in ("training", "training", "validation")
    ):
        video_id = f"{name}_{seed}"
        lines.append(f"{video_id},{name},{subset}")
        pictures = tinted_frames([name], seed, count=8)
        for kind in ("videos", "frames"):
            (tmp_path / kind / video_id).mkdir(parents=True)
        write_video(
            tmp_path / f"videos/{video_id}/{video_id}.mkv", pictures, fps=4, codec="ffv1", pix_fmt="bgr0"
        )
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / f"frames/{video_id}/{number}.png")
    for kind, options in (("videos", []), ("frames", ["--frames-fps", "4"])):
        (tmp_path / kind / "labels.csv").write_text("\n".join(lines))
        ran = finetune(tmp_path / kind, tmp_path / f"of_{kind}", *options, epochs=1)
        assert ran.code == 0, ran.err
    assert same_run(tmp_path / "of_videos", tmp_path / "of_frames")
    assert "next: batch-extract" in ran.out and "--frames-fps 4.0 --cache CACHE" in ran.out
