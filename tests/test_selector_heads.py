"""Linear heads: the least squares and the calibration behind them, and pools of features without scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge

from cache_schema import FeatureCache, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from policy.cli.train_policy import train_policy
from policy.data.opening import Dataset, open_dataset
from policy.networks.temperature import Calibration
from policy.selection.config import SelectorConfig
from policy.selection.least_squares import moments, ridge_regression
from policy.selection.linear_head import assign_folds
from policy.selection.notes import pool_notes
from policy.selection.opening import Pool
from policy.selection.pool import PoolTable
from tests.caches import make_spec


def examples(
    seed: int = 0, count: int = 90, dim: int = 7, classes: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, D), targets (n, C) and class indices (n,)."""
    random = np.random.default_rng(seed)
    label = random.integers(classes, size=count)
    features = random.standard_normal((classes, dim))[label] + 0.8 * random.standard_normal((count, dim))
    return features.astype(np.float32), np.eye(classes, dtype=np.bool_)[label], label


@pytest.mark.parametrize("ridge", [0.01, 1.0, 30.0])
def test_least_squares_against_scikit_learn(ridge: float) -> None:
    features, targets, _ = examples()
    ours = ridge_regression(moments(features, targets), ridge)
    theirs = Ridge(alpha=ridge * len(features)).fit(features.astype(np.float64), targets)
    np.testing.assert_allclose(ours.weights, theirs.coef_.T, atol=1e-5)
    np.testing.assert_allclose(ours(features), theirs.predict(features), atol=1e-5)


def test_what_is_taken_off_has_never_been_there() -> None:
    features, targets, _ = examples()
    fold = np.arange(len(features)) % 3 == 0
    without = moments(features, targets) - moments(features[fold], targets[fold])
    ours = ridge_regression(without, 0.1)
    anew = ridge_regression(moments(features[~fold], targets[~fold]), 0.1)
    np.testing.assert_allclose(ours.weights, anew.weights, atol=1e-5)
    np.testing.assert_allclose(ours.bias, anew.bias, atol=1e-5)


def test_temperature_against_a_search() -> None:
    _, targets, label = examples()
    scores = (0.3 * targets + 0.2 * np.random.default_rng(1).standard_normal(targets.shape)).astype(
        np.float32
    )

    def loss(slope: float) -> float:
        logs = np.log(softmax(slope * scores, axis=1))
        right = logs[np.arange(len(label)), label]
        others = 1 / (len(label) + 1)  # how little certain a label is
        return -float(((1 - others) * right + others * logs.mean(axis=1)).mean())

    best = minimize_scalar(loss, bounds=(0.1, 100), method="bounded").x
    calibration = Calibration.fit(scores, targets, multi_label=False)
    assert calibration.slope == pytest.approx(best, rel=1e-2)
    np.testing.assert_allclose(calibration(scores), softmax(calibration.slope * scores, axis=1), rtol=1e-4)


def test_sigmoid_against_logistic_regression() -> None:
    random = np.random.default_rng(2)
    targets = random.random((300, 5)) < 0.2
    scores = (0.3 * targets + 0.3 * random.standard_normal(targets.shape)).astype(np.float32)
    calibration = Calibration.fit(scores, targets, multi_label=True)
    theirs = LogisticRegression(C=np.inf).fit(scores.reshape(-1, 1), targets.ravel())
    np.testing.assert_allclose(
        calibration(scores).ravel(), theirs.predict_proba(scores.reshape(-1, 1))[:, 1], atol=3e-3
    )


@given(
    seed=st.integers(0, 2**16),
    folds=st.integers(1, 7),
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=6),
)
def test_folds_share_videos_and_classes_alike(seed: int, folds: int, counts: list[int]) -> None:
    label = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    targets = np.eye(len(counts), dtype=np.bool_)[label]
    if len(label) < folds:
        return
    fold = assign_folds(targets, folds, seed)
    assert fold.tolist() == assign_folds(targets, folds, seed).tolist()
    for videos in (np.ones(len(label), np.bool_), *targets.T):
        sizes = np.bincount(fold[videos], minlength=folds)
        assert sizes.max() - sizes.min() <= 1


def test_a_video_of_several_classes_counts_for_the_rarest() -> None:
    """Every video shows class 0; the others are in the folds in equal parts nevertheless."""
    label = np.repeat([1, 2, 3], 4)
    targets = np.eye(4, dtype=np.bool_)[label]
    targets[:, 0] = True
    for fold in np.unique(assigned := assign_folds(targets, 4, 0)):
        assert sorted(label[assigned == fold]) == [1, 2, 3]


ROWS = 3
NAMES = tuple("abcd")


def featured(
    folder: Path, *, seed: int = 0, train: int = 60, test: int = 40, several: bool = False
) -> Dataset:
    """Two streams of features, "good" of the better ones; with `several` a video has up to two classes."""
    random = np.random.default_rng(seed)
    count = train + test
    shown = np.zeros((count, len(NAMES)), np.bool_)
    shown[np.arange(count), np.arange(count) % len(NAMES)] = True
    if several:
        shown[np.arange(count), random.integers(len(NAMES), size=count)] = True
    ids = [f"v{video:03d}" for video in range(count)]
    for name, noise, dim in (("bad", 3.0, 6), ("good", 0.5, 9)):
        means = shown @ random.standard_normal((len(NAMES), dim))
        rows = means[:, None] + noise * random.standard_normal((count, ROWS, dim))
        records = [
            VideoRecord(id=v, features=r.astype(np.float16), spans=np.zeros((ROWS, 2)))
            for v, r in zip(ids, rows, strict=True)
        ]
        spec = make_spec(name, dim=dim, macs_per_row=1_000 if name == "bad" else 5_000)
        write_shard(folder / name, spec, records, tools={})
    videos = tuple(
        VideoLabel(v, tuple(np.array(NAMES)[s].tolist()), "train" if ids.index(v) < train else "test")
        for v, s in zip(ids, shown, strict=True)
    )
    cache = FeatureCache(folder)
    return open_dataset(cache, LabelSet(folder, videos), {"coarse": "bad"}, pool=("bad", "good"))


def tables(data: Dataset, **more: object) -> tuple[PoolTable, PoolTable]:
    config = SelectorConfig(models=("bad", "good"), heads="linear", **more)  # type: ignore[arg-type]
    pool = Pool.of(config, data)
    return pool.table(data.train), pool.table(data.evaluation)


@pytest.mark.parametrize("several", [False, True])
def test_a_pool_of_features(several: bool, tmp_path: Path) -> None:
    data = featured(tmp_path, several=several)
    train, evaluation = tables(data)
    chance = data.evaluation.labels.mean()
    assert evaluation.models == ("bad", "good")
    assert evaluation.correct[:, 1].mean() > max(0.8, evaluation.correct[:, 0].mean())
    assert train.correct[:, 1].mean() > 0.8
    if several:
        # Calibrated: as many classes are expected as there are.
        assert abs(train.probabilities.mean() - data.train.labels.mean()) < 0.02
        assert not np.allclose(evaluation.probabilities.sum(axis=2), 1, atol=0.05)
    else:
        np.testing.assert_allclose(evaluation.probabilities.sum(axis=2), 1, atol=1e-5)
        assert evaluation.losses[:, 1].mean() < -np.log(chance)
    # Backbone for each row, the head once.
    assert evaluation.macs[0].tolist() == [ROWS * 1_000 + 6 * 4, ROWS * 5_000 + 9 * 4]


def test_training_videos_are_judged_by_heads_that_have_not_seen_them(tmp_path: Path) -> None:
    """Labels that have nothing to do with the features can only be known by heart."""
    data = featured(tmp_path, train=24)
    random = np.random.default_rng(0)
    lot = random.permutation(len(data.train))
    for videos in (data.train.labels, data.train.first):
        videos[:] = videos[lot]
    folded, _ = tables(data, folds=6)
    seen, _ = tables(data, folds=1)
    assert seen.correct.mean() > 0.55
    assert folded.correct.mean() < 0.4
    assert folded.losses.mean() > seen.losses.mean()


def test_the_same_seed_gives_the_same_folds(tmp_path: Path) -> None:
    data = featured(tmp_path)
    first, _ = tables(data, seed=1)
    again, _ = tables(data, seed=1)
    other, _ = tables(data, seed=2)
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    assert not np.array_equal(first.probabilities, other.probabilities)


@pytest.mark.slow
def test_digits_against_logistic_regression() -> None:
    """On features that are few, where least squares is at its worst."""
    features, label = load_digits(return_X_y=True)
    features = ((features - features.mean(axis=0)) / (features.std(axis=0) + 1e-9)).astype(np.float32)
    targets = np.eye(10, dtype=np.bool_)[label]
    known = np.arange(len(label)) % 2 == 0
    head = ridge_regression(moments(features[known], targets[known]), 0.01)
    calibration = Calibration.fit(head(features[known]), targets[known], multi_label=False)
    said = calibration(head(features[~known]))
    theirs = LogisticRegression(C=0.1, max_iter=1000).fit(features[known], label[known])
    ours = (said.argmax(axis=1) == label[~known]).mean()
    assert ours > theirs.score(features[~known], label[~known]) - 0.04
    own = said[np.arange(len(said)), label[~known]]
    assert -np.log(own).mean() < 0.35


def write_labels(data: Dataset, path: Path) -> Path:
    lines = ["video_id,label,subset"]
    for videos in (data.train, data.evaluation):
        for v, first in zip(videos.ids, videos.first, strict=True):
            lines.append(f"{v},{NAMES[first]},{videos.subset}")
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
def test_on_the_command_line(tmp_path: Path) -> None:
    labels = write_labels(featured(tmp_path / "cache"), tmp_path / "labels.csv")

    def run(out: str, *more: str) -> tuple[dict[str, Any], str]:
        words = ["selector", "--cache", tmp_path / "cache", "--labels", labels, "--out", tmp_path / out]
        words += [
            "--model",
            "good",
            "--model",
            "bad",
            "--heads",
            "linear",
            "--json",
            "--device",
            "cpu",
            *more,
        ]
        result = CliRunner().invoke(train_policy, list(map(str, words)))
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout), result.stderr

    said, notes = run("folds")
    assert said["gflops"]["bad"] == pytest.approx((ROWS * 1_000 + 6 * 4) / 1e9)  # on the cheapest
    assert "optimistic" not in notes
    _, notes = run("seen", "--folds", "1")
    assert "judge the videos that they were fitted on (--folds 1)" in notes


def test_a_class_with_one_training_video(tmp_path: Path) -> None:
    data = featured(tmp_path)
    rare = data.train.labels[:, 3].nonzero()[0]
    for v in rare[1:]:
        data.train.labels[v] = [True, False, False, False]
        data.train.first[v] = 0
    config = SelectorConfig(models=("bad", "good"), heads="linear")
    pool = Pool.of(config, data)
    table = pool.table(data.train)
    notes = pool_notes(config, data, pool, table, pool.table(data.evaluation))
    assert any("1 class has a single training video" in note for note in notes)
    assert not table.correct[rare[0]].any()
    assert np.isfinite(table.losses).all()
