"""The localization demo's collection is what it says: places before and after actions, motion in them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.localization_demo.collection import (
    CLASSES,
    FPS,
    HEIGHT,
    TEST,
    TRAIN,
    WIDTH,
    Video,
    plan,
    write,
    write_labels,
)
from cache_schema.annotations import read_labels


def frames_of(video: Video, folder: Path) -> np.ndarray:
    write(video, folder)
    with av.open(str(folder / f"{video.name}.mp4")) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_the_labels_are_the_segments(tmp_path: Path) -> None:
    videos = plan(train=8, test=4, seed=1)
    write_labels(videos, tmp_path / "labels.csv")
    labels = read_labels(tmp_path / "labels.csv")
    assert labels.classes == tuple(sorted(CLASSES)) and labels.multi_label
    for video, label in zip(videos, labels.videos, strict=True):
        duration_s = sum(scene.duration_s for scene in video.scenes)
        assert (label.video_id, label.subset) == (video.name, video.subset)
        shown = [(one.start_s, one.end_s, one.label) for one in label.segments]
        assert shown == [(round(a, 2), round(b, 2), name) for a, b, name in video.segments()]
        assert all(0 < start < end < duration_s for start, end, _ in shown)
    assert [sum(v.subset == name for v in videos) for name in (TRAIN, TEST)] == [8, 4]


@pytest.mark.parametrize("number", range(len(CLASSES)))
def test_a_place_is_in_view_longer_than_its_action_and_moves_in_it_alone(number: int, tmp_path: Path) -> None:
    video = plan(train=len(CLASSES), test=0, seed=2)[number]
    frames = frames_of(video, tmp_path)
    assert frames.shape[1:] == (HEIGHT, WIDTH, 3)
    counts = [round(scene.duration_s * FPS) for scene in video.scenes]
    scenes = np.repeat(np.arange(len(counts)), counts)
    in_place = np.repeat([bool(scene.place) for scene in video.scenes], counts)
    in_action = np.concatenate(
        [
            np.any([(a <= at_s) & (at_s < b) for a, b in scene.moves_s], axis=0) & bool(scene.place)
            if scene.moves_s
            else np.zeros(len(at_s), bool)
            for scene, at_s in (
                (scene, np.arange(n) / FPS) for scene, n in zip(video.scenes, counts, strict=True)
            )
        ]
    )
    assert len(frames) == len(scenes) and in_action[in_place].mean() < 0.65

    # The place's colour tells it from the corridor, whether or not something happens.
    colours = frames[:, :20].mean(axis=(1, 2))
    tint = colours.max(axis=1) - colours.min(axis=1)
    assert tint[in_place].min() > tint[~in_place].max()
    # What changes much from frame to frame, but for cuts and where actions begin and end, is the actor.
    small = frames[:, ::4, ::4].astype(np.int16)
    changed = (np.abs(np.diff(small, axis=0)) > 40).any(axis=3).mean(axis=(1, 2))
    steady = (np.diff(scenes) == 0) & (np.diff(in_action.astype(int)) == 0) & in_place[1:]
    assert np.median(changed[steady & in_action[1:]]) > 10 * np.median(changed[steady & ~in_action[1:]])


def test_the_same_seed_is_the_same_video(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        video = plan(train=1, test=0, seed=5)[0]
        write(video, tmp_path / name)
        contents.append((tmp_path / name / f"{video.name}.mp4").read_bytes())
    assert contents[0] == contents[1]
