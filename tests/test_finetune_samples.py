"""What fine-tuning sees of a video: what is drawn, in which order, how it is mirrored, and what fails."""

# No torch in here: the workers of some tests import this file.

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.videos import numbered_frames, read_frame_number, write_video
from cache_schema import Preprocessing, Sampling
from extract.finetune import draws
from extract.finetune.cutting import TrainingJob, ValidationJob, answer
from extract.finetune.samples import Job, Sample, decode_in_order, in_batches
from extract.sampling import clip_times
from extract.views import View
from extract.workers import Finished, Frames, Message, decode, serve

PIXELS = Preprocessing(128, 128, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FRAMES = View(Sampling(), PIXELS)
CLIPS = Sampling("clips", fps=25.0, frames=4, window=13, clips=10)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six videos of 2 s, square, whose frames say their numbers: 100 i onwards."""
    folder = tmp_path_factory.mktemp("numbered")
    paths = [folder / f"v{i}.mp4" for i in range(6)]
    for i, path in enumerate(paths):
        write_video(path, numbered_frames(50, first=100 * i, width=192, height=192), fps=25)
    return paths


def pixels_of(job: Job) -> np.ndarray[Any, Any]:
    *messages, finished = answer(job)
    assert finished == Finished(job.key, None)
    return np.concatenate([message.pixels for message in messages if isinstance(message, Frames)])


# ------------------------------------------------------------------------------------------------------- the draws


def test_one_instant_in_each_part() -> None:
    chance = draws.generator(0, 0, "v")
    for _ in range(100):
        times_s = draws.random_times(chance, Sampling(), duration_s=12, rows=3)
        assert times_s.shape == (3, 1)
        assert ((times_s // 4)[:, 0] == [0, 1, 2]).all()


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("kind", ["clips", "dense", "snippets"])
def test_clips_are_the_streams_own_at_random_starts(kind: str, flow: bool) -> None:
    sampling = replace(CLIPS, kind=kind, rows_per_s=1.0)
    times_s = draws.random_times(draws.generator(0, 0, "v"), sampling, duration_s=60, rows=5, flow=flow)
    (reference_s,) = clip_times(replace(CLIPS, clips=1), duration_s=13 / 25, flow=flow)
    np.testing.assert_allclose(
        times_s - times_s[:, :1], np.broadcast_to(reference_s, (5, 4 + flow)), atol=1e-9
    )
    starts_s = times_s[:, 0] / (60 - 13 / 25) * 5
    assert (np.floor(starts_s) == np.arange(5)).all()
    short_s = draws.random_times(draws.generator(0, 0, "v"), sampling, duration_s=0.2, rows=2, flow=flow)
    assert (short_s[:, 0] == 0).all() and short_s.max() == 0.2


def test_what_is_drawn_depends_on_seed_epoch_and_video_alone() -> None:
    drawn = [draws.generator(*key).random() for key in [(0, 0, "a"), (0, 0, "b"), (0, 1, "a"), (1, 0, "a")]]
    assert len(set(drawn)) == 4
    assert drawn[0] == draws.generator(0, 0, "a").random()
    ids = [str(i) for i in range(50)]
    assert sorted(draws.order(3, 1, ids)) == list(range(50))
    assert draws.order(3, 1, ids) == draws.order(3, 1, ids) != draws.order(3, 2, ids)


@pytest.mark.parametrize(("width", "height"), [(320, 240), (64, 64), (1000, 90), (5, 3)])
def test_crops_lie_in_the_picture(width: int, height: int) -> None:
    chance = draws.generator(0, 0, "v")
    crops = [
        draws.random_crop(chance, width=width, height=height, min_area=0.35, flip=True) for _ in range(300)
    ]
    for left, top, w, h, _ in crops:
        assert 0 <= left <= left + w <= width and 0 <= top <= top + h <= height and min(w, h) > 0
    if width / height == 4 / 3:
        areas = [w * h / (width * height) for _, _, w, h, _ in crops]
        assert 0.34 < min(areas) < 0.4 and max(areas) > 0.9
    assert 100 < sum(crop.mirrored for crop in crops) < 200
    assert not draws.random_crop(chance, width=9, height=9, min_area=0.3, flip=False).mirrored


# ------------------------------------------------------------------------------------------------------ the pixels


def test_training_frames_are_those_drawn(videos: list[Path]) -> None:
    job = TrainingJob(0, videos[2], (FRAMES,), epoch=4, video_id="v2", rows=4, min_area=1.0)
    times_s = draws.random_times(draws.generator(0, 4, "v2"), Sampling(), duration_s=2, rows=4)
    # Nearly all of the picture, not mirrored: its number can be read.
    found = [read_frame_number(pixels) for pixels in pixels_of(job)]
    assert found == [200 + int(time_s * 25) for (time_s,) in times_s]


def test_a_clip_is_cropped_and_mirrored_as_one(videos: list[Path]) -> None:
    view = View(CLIPS, PIXELS)
    job = TrainingJob(0, videos[1], (view,), video_id="v1", rows=8, min_area=0.5, flip=True)
    clips = pixels_of(job)
    assert clips.shape == (8, 4, 128, 128, 3)
    # Red rises to the right in the lower half of every frame; mirrored, it falls.
    rises = clips[:, :, 100:, 100:, 0].mean((2, 3)) > clips[:, :, 100:, :28, 0].mean((2, 3))
    assert (rises == rises[:, :1]).all()
    assert 0 < rises[:, 0].sum() < 8
    # Green rises downwards, by the same amount in every frame of a clip: one crop.
    slope = clips[:, :, 100:120, :, 1].mean((2, 3))
    assert np.ptp(slope, axis=1).max() < 4 < np.ptp(slope[:, 0])
    np.testing.assert_array_equal(clips, pixels_of(job))


def test_mirrored_flow_is_that_of_the_mirrored_video(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    random = np.random.default_rng(0)
    texture = random.integers(0, 255, (12, 24, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    write_video(
        tmp_path / "right.mp4", [np.roll(texture, 3 * i, axis=1)[:128, :160] for i in range(40)], fps=20
    )
    view = View(Sampling("dense", fps=20.0, frames=4, window=4), replace(PIXELS, crop=96, flow="dis"))
    job = TrainingJob(0, tmp_path / "right.mp4", (view,), video_id="v", rows=12, flip=True)
    flow = pixels_of(job).astype(np.float32)
    assert flow.shape == (12, 4, 96, 96, 2)
    x, y = np.median(flow, axis=(1, 2, 3)).T
    assert np.abs(np.abs(x) - 3).max() < 0.5 and np.abs(y).max() < 0.5
    assert 0 < (x > 0).sum() < 12


@pytest.mark.parametrize("flow", [False, True])
def test_a_picture_that_changes_size_is_cropped_in_proportion(tmp_path: Path, flow: bool) -> None:
    if flow:
        pytest.importorskip("cv2")
    content = b""
    for width, height in ((192, 128), (384, 256)):
        path = tmp_path / "part.h264"
        rows = np.linspace(0, 255, height)[:, None, None]
        still = np.broadcast_to(rows, (height, width, 3)).astype(np.uint8)
        write_video(path, [still] * 5, fps=20, options={"preset": "ultrafast"})
        content += path.read_bytes()
    path = tmp_path / "joined.h264"
    path.write_bytes(content)
    clip = Sampling("dense", fps=20.0, frames=8, window=8)
    view = View(clip, replace(PIXELS, resize=112, crop=96, flow="dis" if flow else None))
    pixels = pixels_of(TrainingJob(0, path, (view,), video_id="v", rows=6, min_area=0.3))
    assert pixels.shape == (6, 8, 96, 96, 2 if flow else 3)
    if not flow:  # the same part of the picture before and after
        levels = pixels.mean(axis=(2, 3, 4))
        assert np.ptp(levels, axis=1).max() < 4 < np.ptp(levels[:, 0])


@pytest.mark.parametrize("sampling", [replace(Sampling(), fps=5.0), CLIPS, replace(CLIPS, crops=3)])
def test_validation_sees_rows_of_the_cache(sampling: Sampling, videos: list[Path]) -> None:
    view = View(sampling, replace(PIXELS, resize=140, crop=120))
    job = ValidationJob(0, videos[0], (view,))
    whole = np.concatenate([m.pixels for m in decode(job) if isinstance(m, Frames)])
    assert len(whole) == 10 * sampling.crops
    np.testing.assert_array_equal(pixels_of(job), whole)
    some = np.stack(np.split(whole, 10))[[1, 5, 8]].reshape(-1, *whole.shape[1:])
    np.testing.assert_array_equal(pixels_of(replace(job, rows=3)), some)


# ------------------------------------------------------------------------------------------- order, and what fails


def in_order(
    paths: list[Path], target: str, *, workers: int, deadline_s: float = 120, decoder: str = "auto"
) -> list[Sample]:
    jobs = (ValidationJob(0, path, (FRAMES,), decoder, index=i) for i, path in enumerate(paths))
    target = f"tests.test_finetune_samples:{target}"
    return list(decode_in_order(jobs, workers=workers, deadline_s=deadline_s, ahead=4, target=target))


def waits_for_the_others(pipe: Connection) -> None:
    """A worker's target: the first video waits for three others, which note that they were given out."""
    serve(pipe, _wait_for_the_others)


def _wait_for_the_others(job: Any, alive: Callable[[], None]) -> Iterator[Message]:
    folder = job.path.parent
    if job.path.name == "v0.mp4":
        while len(list(folder.glob("*.decoded"))) < 3:
            time.sleep(0.01)
        time.sleep(0.3)  # enough for a fourth, if it were given out
        (folder / "count").write_text(str(len(list(folder.glob("*.decoded")))))
    elif job.path.name:
        (folder / f"{job.path.name}.decoded").write_text("")
    return answer(job, alive)


@pytest.mark.slow
def test_samples_come_in_order_and_not_too_far_ahead(videos: list[Path], tmp_path: Path) -> None:
    paths = [Path(os.path.realpath(path)) for path in videos]
    links = [tmp_path / path.name for path in paths]
    for link, path in zip(links, paths, strict=True):
        link.hardlink_to(path)
    samples = in_order(links, "waits_for_the_others", workers=3)
    assert [sample.job.index for sample in samples] == list(range(6))
    assert all(sample.pixels is not None and sample.error is None for sample in samples)
    numbers = [read_frame_number(sample.pixels[1]) for sample in samples if sample.pixels is not None]
    assert numbers == [100 * i + 25 for i in range(6)]
    assert (tmp_path / "count").read_text() == "3"  # and the first: four


def misbehaves(pipe: Connection) -> None:
    """A worker's target: videos 1 and 3 crash and hang."""
    serve(pipe, _misbehave)


def _misbehave(job: Any, alive: Callable[[], None]) -> Iterator[Message]:
    if job.path.name == "v1.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job.path.name == "v3.mp4":
        ctypes.CDLL(None).sleep(1000)
    return answer(job, alive)


@pytest.mark.slow
def test_videos_that_crash_or_hang_are_named(videos: list[Path]) -> None:
    # What cannot be decoded is given to PyAV; with PyAV from the start, to nobody.
    samples = in_order(videos, "misbehaves", workers=2, deadline_s=20, decoder="pyav")
    assert [sample.job.index for sample in samples if sample.pixels is not None] == [0, 2, 4, 5]
    assert "the decoder crashed (SIGSEGV)" in str(samples[1].error)
    assert "got no further for 20 s" in str(samples[3].error)


def test_batches() -> None:
    videos = [(i, np.full((rows, 2), i)) for i, rows in enumerate([3, 1, 7, 2])]
    batches = list(in_batches(videos, 4))
    assert [len(owners) for _, owners in batches] == [4, 4, 4, 1]
    assert [owner for _, owners in batches for owner in owners] == [0] * 3 + [1] + [2] * 7 + [3] * 2
    assert all((pixels[:, 0] == owners).all() for pixels, owners in batches)
