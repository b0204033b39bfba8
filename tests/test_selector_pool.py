"""Pools of models: what they say of videos, what they cost, and tables that are not kept in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, softmax

from cache_schema import FeatureCache, Sampling, UserError, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from policy.data.opening import Dataset, open_dataset
from policy.selection import opening, pool
from policy.selection.config import SelectorConfig
from policy.selection.opening import Pool, cheapest_stream
from policy.selection.pool import ModelName, PoolTable, all_of, parse_models
from tests.caches import make_spec, write_stream
from tests.pool_tables import averaged

CLASSES = 5
NAMES = tuple(f"class {c}" for c in range(CLASSES))
VIDEOS = {f"v{video}": 1 + video % 4 for video in range(20)}
"""By id, seconds: frames at 1 fps."""
CLIPS = 3
FRAME_MACS, CLIP_MACS, DIM = 400, 5_000, 8


def label_set(*, several: bool = False) -> LabelSet:
    videos = []
    for i, name in enumerate(VIDEOS):
        shown = (NAMES[i % CLASSES], NAMES[(i + 2) % CLASSES])
        videos.append(VideoLabel(name, shown if several else shown[:1], "train" if i < 12 else "test"))
    return LabelSet(Path("labels.csv"), tuple(videos))


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    """Frames of a network for images, as many as a video has seconds, and three clips of one for videos."""
    frames = make_spec("frames", dim=DIM, classes=CLASSES, macs_per_row=FRAME_MACS)
    clips = make_spec(
        "clips",
        dim=DIM,
        classes=CLASSES,
        macs_per_row=CLIP_MACS,
        sampling=Sampling(kind="clips", frames=4, window=37, clips=CLIPS, fps=30.0),
    )
    for seed, (spec, videos) in enumerate([(frames, VIDEOS), (clips, dict.fromkeys(VIDEOS, CLIPS))]):
        write_stream(tmp_path, type(spec)(**{**vars(spec), "classes": NAMES}), videos, seed=seed)
    return FeatureCache(tmp_path)


def dataset(cache: FeatureCache, *, several: bool = False, coarse: str = "frames") -> Dataset:
    return open_dataset(cache, label_set(several=several), {"coarse": coarse}, pool=("frames", "clips"))


def config(*models: str, **more: object) -> SelectorConfig:
    return SelectorConfig(models=models or ("frames", "clips"), temperature="none", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("several", [False, True])
def test_probabilities(several: bool, cache: FeatureCache) -> None:
    """The mean over rows of the softmax or, with several classes, of a sigmoid for each."""
    data = dataset(cache, several=several)
    table = Pool.of(config(), data).table(data.train)
    assert table.models == ("frames", "clips") and table.video_ids == data.train.ids
    for m, video in enumerate(table.video_ids):
        for n, stream in enumerate(table.models):
            logits = np.asarray(cache[stream][video].scores, np.float64)
            each = expit(logits) if several else softmax(logits, axis=1)
            np.testing.assert_allclose(table.probabilities[m, n], each.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_losses_confidence_and_correctness(several: bool, cache: FeatureCache) -> None:
    data = dataset(cache, several=several)
    table = Pool.of(config(), data).table(data.train)
    for m, shown in enumerate(data.train.labels):
        for n in range(2):
            p = table.probabilities[m, n].astype(np.float64)
            loss = -np.where(shown, np.log(p), np.log(1 - p)).mean() if several else -np.log(p[shown][0])
            assert table.losses[m, n] == pytest.approx(loss, rel=1e-5)
            assert table.confidence[m, n] == p.max()
            assert table.correct[m, n] == shown[p.argmax()]


def test_different_kinds_of_models(cache: FeatureCache) -> None:
    """Frames are as many as a video is long, clips always three: what a model costs depends on the video."""
    data = dataset(cache)
    table = Pool.of(config(), data).table(data.train)
    head = DIM * CLASSES
    seconds = np.array([VIDEOS[video] for video in table.video_ids])
    np.testing.assert_array_equal(table.macs[:, 0], seconds * (FRAME_MACS + head))
    np.testing.assert_array_equal(table.macs[:, 1], np.full(len(table), CLIPS * (CLIP_MACS + head)))
    np.testing.assert_array_equal(table.mean_macs, table.macs.mean(axis=0))
    both = np.full(len(table), all_of(2), np.uint32)
    np.testing.assert_array_equal(table.spent(both), table.macs.sum(axis=1))


def test_rows_of_a_model(cache: FeatureCache) -> None:
    data = dataset(cache)
    table = Pool.of(config("frames:2", "clips", rows=1), data).table(data.train)
    head = DIM * CLASSES
    for m, video in enumerate(table.video_ids):
        assert table.macs[m].tolist() == [min(2, VIDEOS[video]) * (FRAME_MACS + head), CLIP_MACS + head]
        middle = np.asarray(cache["clips"][video].scores, np.float64)[1]
        np.testing.assert_allclose(table.probabilities[m, 1], softmax(middle), atol=1e-6)


def test_the_cheapest_is_so_for_the_rows_that_are_looked_at(tmp_path: Path) -> None:
    """Many rows of a cheap network cost more than few of a dear one; --input is by default the first."""
    for name, macs, rows in (("often", 100, 30), ("once", 1_000, 1)):
        spec = make_spec(name, dim=2, classes=CLASSES, macs_per_row=macs)
        write_stream(tmp_path, type(spec)(**{**vars(spec), "classes": NAMES}), dict.fromkeys(VIDEOS, rows))
    cache = FeatureCache(tmp_path)
    for models, cheapest in ((("often", "once"), "once"), (("often:5", "once"), "often")):
        asked = config(*models)
        data = open_dataset(cache, label_set(), {"coarse": "once"}, pool=("often", "once"))
        assert cheapest_stream(asked, cache) == cheapest
        assert Pool.of(asked, data).names[0] == cheapest


def test_clips_are_taken_with_all_of_their_crops(tmp_path: Path) -> None:
    clips, crops = 4, 3
    spec = make_spec(
        "crops",
        dim=2,
        classes=CLASSES,
        sampling=Sampling(kind="clips", frames=4, window=37, clips=clips, fps=30.0, crops=crops),
    )
    spec = type(spec)(**{**vars(spec), "classes": NAMES})
    write_stream(tmp_path, spec, dict.fromkeys(VIDEOS, clips * crops))
    plain = make_spec("plain", dim=2, classes=CLASSES)
    write_stream(tmp_path, type(plain)(**{**vars(plain), "classes": NAMES}), dict.fromkeys(VIDEOS, 1))
    data = open_dataset(FeatureCache(tmp_path), label_set(), {"coarse": "plain"}, pool=("plain", "crops"))
    members = {m.name.stream: m for m in Pool.of(config("plain", "crops:2"), data)}
    assert members["crops"].rows(clips * crops).tolist() == [3, 4, 5, 9, 10, 11]
    assert members["plain"].rows(1).tolist() == [0]


@pytest.mark.parametrize("several", [False, True])
def test_a_table_that_is_not_kept_says_the_same(
    several: bool, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(cache, several=several)
    opened = Pool.of(config(), data)
    kept = opened.table(data.train)
    whole = PoolTable(
        models=kept.models,
        video_ids=kept.video_ids,
        labels=kept.labels,
        first=kept.first,
        multi_label=several,
        probabilities=kept.probabilities,
        macs=kept.macs,
    )
    monkeypatch.setattr(opening, "_KEPT_BYTES", 0)
    monkeypatch.setattr(pool, "_PART_BYTES", 4 * 2 * CLASSES * 5)  # five videos
    parted = opened.table(data.train)
    answering = np.random.default_rng(0).integers(1, 4, len(parted)).astype(np.uint32)
    np.testing.assert_allclose(parted.losses, whole.losses, rtol=1e-6)
    np.testing.assert_array_equal(parted.confidence, whole.confidence)
    np.testing.assert_array_equal(parted.correct, whole.correct)
    np.testing.assert_array_equal(parted.of_model(1), whole.of_model(1))
    np.testing.assert_array_equal(parted.scores_of(answering), whole.scores_of(answering))
    np.testing.assert_array_equal(parted.correct_of(answering), whole.correct_of(answering))
    assert "probabilities" not in vars(parted)
    np.testing.assert_array_equal(parted.probabilities, whole.probabilities)


def test_models_that_answer_together(cache: FeatureCache) -> None:
    data = dataset(cache)
    table = Pool.of(config(), data).table(data.train)
    masks = np.array([[0, 1, 2, 3]] * len(table), np.uint32).T
    right = table.correct_of(masks)
    together = np.stack([averaged(said, multi_label=False) for said in table.probabilities])
    every = np.arange(len(table))
    np.testing.assert_array_equal(right[0], np.zeros(len(table), np.bool_))
    np.testing.assert_array_equal(right[1:3], table.correct.T)
    np.testing.assert_array_equal(right[3], data.train.labels[every, together.argmax(axis=1)])
    np.testing.assert_allclose(table.scores_of(masks[3]), together, rtol=1e-5)


def test_names_of_models() -> None:
    assert parse_models(["a:3", "b"]) == (ModelName("a", 3), ModelName("b"))
    assert parse_models(["a:3", "b"], rows=2) == (ModelName("a", 3), ModelName("b", 2))
    with pytest.raises(UserError, match="17 models; at most 16"):
        parse_models([f"m{n}" for n in range(17)])


def test_streams_of_other_files_are_not_mixed(tmp_path: Path) -> None:
    """As the streams of other methods: a video that was replaced between two extractions."""
    spec = make_spec("frames", dim=DIM, classes=CLASSES)
    write_stream(tmp_path, spec, VIDEOS)
    records = [
        VideoRecord(
            id=v,
            features=np.zeros((1, DIM), np.float16),
            scores=np.zeros((1, CLASSES), np.float16),
            spans=np.zeros((1, 2)),
            fingerprint="another",
        )
        for v in VIDEOS
    ]
    write_shard(tmp_path / "clips", make_spec("clips", dim=DIM, classes=CLASSES), records, tools={})
    with pytest.raises(UserError, match="'v0' was another file when stream"):
        dataset(FeatureCache(tmp_path))
