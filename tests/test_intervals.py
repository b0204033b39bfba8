"""Bootstrap intervals: weighted metrics against scikit-learn, intervals against SciPy and against repetition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from policy.evaluation.ledger import Ledger
from policy.evaluation.metrics import (
    mean_average_precision,
    percentile_interval,
    resampled_weights,
    weighted_average_precision,
    weighted_mean,
    weighted_mean_average_precision,
)
from policy.evaluation.predictions import Predictions, intervals


def predictions(videos: int = 40, classes: int = 3, *, draws: int = 1, seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    lengths = np.random.default_rng(7).integers(1, 6, videos)
    labels = np.eye(classes, dtype=np.bool_)[np.arange(videos) % classes]
    return Predictions(
        video_ids=tuple(map(str, range(videos))),
        labels=labels,
        scores=(random.random((draws, videos, classes)) + 0.5 * labels).astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        gates=random.integers(0, 2, (draws, lengths.sum())).astype(np.uint8),
        row_counts=lengths,
        ledger=Ledger({name: random.integers(1, 10**10, (draws, videos)) for name in ("small", "network")}),
    )


@settings(max_examples=80)
@given(
    videos=st.integers(1, 15),
    distinct=st.sampled_from([1, 2, 4, 1000]),
    whole=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_weighted_average_precision_is_scikit_learns(
    videos: int, distinct: int, whole: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, distinct, videos) / distinct
    positive = random.random(videos) < 0.4
    positive[random.integers(videos)] = True
    weights = random.integers(0, 4, (videos, 5)) if whole else random.random((videos, 5))
    ours = weighted_average_precision(scores, positive, weights.astype(np.float64))
    for value, column in zip(ours, weights.T, strict=True):
        if column[positive].sum() == 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(average_precision_score(positive, scores, sample_weight=column))


def test_weights_mean_repetition() -> None:
    """A video of weight 3 counts as three such videos."""
    random = np.random.default_rng(1)
    scores, labels = random.random((30, 6)).round(1), random.random((30, 6)) < 0.1
    weights = resampled_weights(30, 50, seed=0)
    assert (weights.sum(axis=0) == 30).all()
    assert weights.std(axis=1).min() > 0
    ours = weighted_mean_average_precision(scores, labels, weights)
    for value, column in zip(ours, weights.astype(int).T, strict=True):
        drawn = np.repeat(np.arange(30), column)
        assert value == pytest.approx(mean_average_precision(scores[drawn], labels[drawn]), rel=1e-5)


def test_mean_and_interval_are_scipys() -> None:
    values = np.random.default_rng(3).exponential(size=200)
    ours = percentile_interval(
        values.mean(), weighted_mean(values, resampled_weights(200, 20_000, seed=0)), 0.9
    )
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=0.9, method="percentile", random_state=0
    )
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    # Two independent sets of 20,000 samples: their quantiles differ by about a hundredth of the width.
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.03 * width)
    assert ours.low < ours.value < ours.high


def test_intervals_of_a_run() -> None:
    run = predictions()
    said = intervals([run], resamples=500)
    assert said["top1"].value == pytest.approx(run.top1())
    assert said["mean_average_precision"].value == pytest.approx(run.mean_average_precision())
    assert said["gflops"].value == pytest.approx(run.gflops.mean())
    assert said["usage"].value == pytest.approx(run.usage.mean())
    assert said["fine_features"].value == pytest.approx(run.fine_rows.mean())
    assert all(interval.low < interval.value < interval.high for interval in said.values())
    assert intervals([run], resamples=500) == said
    assert intervals([run], resamples=500, seed=1) != said
    wider = intervals([run], resamples=500, confidence=0.99)
    assert all(wider[name].high - wider[name].low > one.high - one.low for name, one in said.items())


def test_runs_are_resampled_together_and_averaged() -> None:
    """Against the samples themselves, run by run and draw by draw."""
    runs = [predictions(seed=seed, draws=2) for seed in range(3)]
    said = intervals(runs, resamples=40)
    drawn = [np.repeat(np.arange(40), column) for column in resampled_weights(40, 40, 0).astype(int).T]
    measured: dict[str, Callable[[Predictions, np.ndarray], object]] = {
        "top1": lambda run, videos: np.mean(
            [run.labels[v, run.scores[d, v].argmax()] for d in range(2) for v in videos]
        ),
        "mean_average_precision": lambda run, videos: np.mean(
            [mean_average_precision(run.scores[d, videos], run.labels[videos]) for d in range(2)]
        ),
        "gflops": lambda run, videos: run.ledger.total[:, videos].mean() / 1e9,
    }
    for name, measure in measured.items():
        samples = [np.mean([np.asarray(measure(run, videos)) for run in runs]) for videos in drawn]
        low, high = np.quantile(samples, [0.025, 0.975])
        assert (said[name].low, said[name].high) == pytest.approx((low, high), rel=1e-5)
    # Runs that err alike say no more than one of them.
    assert intervals([runs[0]] * 3, resamples=40)["top1"] == intervals(runs[:1], resamples=40)["top1"]


def test_one_video_has_no_spread() -> None:
    said = intervals([predictions(1, 1)], resamples=10)
    assert all(one.low == pytest.approx(one.value) == one.high for one in said.values())


def test_what_has_no_interval() -> None:
    run = predictions()
    with pytest.raises(ValueError, match="no predictions"):
        intervals([])
    with pytest.raises(ValueError, match="different videos or labels"):
        intervals([run, replace(run, labels=~run.labels)])
    with pytest.raises(ValueError, match="different videos or labels"):
        intervals([run, replace(run, video_ids=tuple("x" * 40))])
