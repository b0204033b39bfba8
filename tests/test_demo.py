"""The demo's collection is what the demo says it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.demo.__main__ import Took, compared, run_folder
from benchmarks.demo.collection import CLASSES, DETAIL_CLASSES, HEIGHT, WIDTH, plan, write_clip, write_labels
from cache_schema import Preprocessing
from cache_schema.annotations import read_labels
from extract.transform import UInt8Array, resize_and_crop

# timm's for the demo's two networks.
COARSE = Preprocessing(128, 112, "bicubic", (0.5,) * 3, (0.5,) * 3)
FINE = Preprocessing(235, 224, "bicubic", (0.5,) * 3, (0.5,) * 3)


def test_plan_is_what_the_issue_of_a_demo_needs() -> None:
    clips = plan(videos_per_class=28, seed=0)
    assert len(CLASSES) == 8 and len(clips) >= 160
    assert len({clip.name for clip in clips}) == len({clip.seed for clip in clips}) == len(clips)
    for subset, count in (("train", 17), ("test", 11)):
        assert sum(clip.subset == subset for clip in clips) == 8 * count


@pytest.mark.parametrize("label", ["beach", *DETAIL_CLASSES])
def test_videos_are_what_the_labels_say(label: str, tmp_path: Path) -> None:
    clip = next(clip for clip in plan(videos_per_class=2, seed=3) if clip.label == label)
    write_clip(clip, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{clip.name}.mp4"]
    with av.open(str(tmp_path / f"{clip.name}.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and (stream.width, stream.height) == (WIDTH, HEIGHT)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert 8 <= len(frames) / 12 <= 20
    has_card = [bool((frame[..., 2].astype(int) - frame[..., 0] > 40).mean() > 0.02) for frame in frames]
    if label not in DETAIL_CLASSES:
        return
    assert 2 <= sum(has_card) / 12 <= 4.1  # on screen for a few seconds
    frame = frames[int(np.flatnonzero(has_card)[1])]
    along, across = stripes(resize_and_crop(frame, FINE))
    assert (along > 5 * across) if label.endswith("columns") else (across > 5 * along)
    assert max(stripes(resize_and_crop(frame, COARSE))) < 0.15 * max(along, across)


def stripes(pixels: UInt8Array) -> tuple[float, float]:
    """Variance on the card of what alternates from column to column, and from row to row."""
    card = pixels[..., 2].astype(float) - pixels[..., 0] > 40
    rows, columns = np.flatnonzero(card.mean(1) > 0.1), np.flatnonzero(card.mean(0) > 0.1)
    inside = pixels[rows[4] : rows[-4], columns[4] : columns[-4], 1].astype(float)
    return float(np.var(inside.mean(0))), float(np.var(inside.mean(1)))


def test_same_seed_same_video(tmp_path: Path) -> None:
    clip = plan(videos_per_class=1, seed=1)[-1]
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_clip(clip, tmp_path / name)
        contents.append((tmp_path / name / f"{clip.name}.mp4").read_bytes())
    assert contents[0] == contents[1]


def test_labels_are_read_by_the_product(tmp_path: Path) -> None:
    clips = plan(videos_per_class=5, seed=0)
    write_labels(clips, tmp_path / "labels.csv")
    labels = read_labels(tmp_path / "labels.csv")
    assert set(labels.classes) == set(CLASSES) and not labels.multi_label
    assert {v.video_id: v.subset for v in labels.videos} == {clip.name: clip.subset for clip in clips}


def test_the_policy_run_is_the_latest_of_its_method_and_the_first_seed(tmp_path: Path) -> None:
    runs = (
        ("liteeval", 0, 1),
        ("liteeval", 0, 3),
        ("liteeval", 1, 4),
        ("liteeval-rl", 0, 5),
        ("lstm-cf", 0, 2),
    )
    for method, seed, time_s in runs:
        folder = tmp_path / f"{method}-{time_s}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"config": {"method": method, "seed": seed}}))
        os.utime(folder, (time_s, time_s))
    assert run_folder(tmp_path, "liteeval").name == "liteeval-3"
    assert run_folder(tmp_path, "lstm-cf").name == "lstm-cf-2"


def test_what_the_policy_saves_is_said_of_all_videos() -> None:
    before, after = Took(10, 200.0, 8.0, 10.0), Took(10, 50.0, 6.0, 11.0)
    assert compared(before, after) == (
        "10 videos from their files, LSTM+CF → LiteEval: 20.0 → 5.0 GFLOPs a video (-75%),\n"
        "networks 8.0 → 6.0 s (-25%), with decoding and start 10.0 → 11.0 s (+10%)"
    )
