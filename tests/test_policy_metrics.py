"""Metrics against definitions written out otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from policy.evaluation.metrics import average_precision, mean_average_precision, top1


@settings(max_examples=150)
@given(
    videos=st.integers(1, 40),
    distinct=st.sampled_from([1, 2, 5, 1000]),
    positives=st.sampled_from(["one", "some", "all"]),
    kind=st.sampled_from([np.float16, np.float32, np.float64]),
    seed=st.integers(0, 10_000),
)
def test_average_precision_is_scikit_learns(
    videos: int, distinct: int, positives: str, kind: type[np.floating], seed: int
) -> None:
    """With ties, scores that are all the same, and scores that round to the same."""
    random = np.random.default_rng(seed)
    scores = (random.integers(-distinct, distinct, videos) / distinct).astype(kind)
    positive = random.random(videos) < {"one": 0, "some": 0.4, "all": 1}[positives]
    positive[random.integers(videos)] = True
    expected = average_precision_score(positive, scores)
    assert average_precision(scores, positive) == pytest.approx(expected, rel=0, abs=1e-12)


@settings(max_examples=60)
@given(videos=st.integers(1, 12), classes=st.integers(1, 5), seed=st.integers(0, 10_000), ties=st.booleans())
def test_mean_average_precision(videos: int, classes: int, seed: int, ties: bool) -> None:
    """Of the classes that have a positive, and of them alone, whatever the arrays' layout in memory."""
    random = np.random.default_rng(seed)
    scores = random.random((videos, classes))
    if ties:
        scores = scores.round(1)
    labels = random.random((videos, classes)) < 0.4
    labels[0, 0] = True
    shown = labels.any(axis=0)
    expected = average_precision_score(labels[:, shown], scores[:, shown], average="macro")
    assert mean_average_precision(scores, labels) == pytest.approx(expected, rel=0, abs=1e-12)
    columns = mean_average_precision(np.asfortranarray(scores), np.asfortranarray(labels))
    assert columns == mean_average_precision(scores, labels)


def test_perfect_and_worst() -> None:
    labels = np.eye(3, dtype=np.bool_)
    assert mean_average_precision(np.eye(3), labels) == 1
    assert top1(np.eye(3), labels) == 1
    assert top1(1 - np.eye(3), labels) == 0


def test_top1_counts_a_hit_on_any_of_several_classes() -> None:
    labels = np.array([[True, True, False], [False, True, True], [True, False, False]])
    scores = np.array([[0.1, 0.9, 0.2], [0.9, 0.1, 0.2], [0.4, 0.4, 0.4]])
    assert top1(scores, labels) == pytest.approx(2 / 3)


def test_what_is_no_pair_of_arrays() -> None:
    with pytest.raises(ValueError, match="equal"):
        top1(np.zeros((2, 3)), np.zeros((3, 2), np.bool_))
    with pytest.raises(ValueError, match="no video has a class"):
        mean_average_precision(np.zeros((2, 3)), np.zeros((2, 3), np.bool_))
    with pytest.raises(ValueError, match="no positive"):
        average_precision(np.zeros(3), np.zeros(3, np.bool_))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite(wrong: float) -> None:
    scores, labels = np.eye(3), np.eye(3, dtype=np.bool_)
    scores[1, 0] = wrong
    with pytest.raises(ValueError, match="not finite"):
        mean_average_precision(scores, labels)
