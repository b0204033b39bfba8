"""Metrics against definitions written out otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.metrics import mean_average_precision, top1


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean, over the positives, of the precision among all that score at least as much."""
    return float(np.mean([positive[scores >= threshold].mean() for threshold in scores[positive]]))


@settings(max_examples=60, deadline=None)
@given(videos=st.integers(1, 12), classes=st.integers(1, 5), seed=st.integers(0, 10_000), ties=st.booleans())
def test_mean_average_precision(videos: int, classes: int, seed: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    scores = random.random((videos, classes))
    if ties:
        scores = scores.round(1)
    labels = random.random((videos, classes)) < 0.4
    labels[0, 0] = True
    present = [c for c in range(classes) if labels[:, c].any()]
    expected = np.mean([average_precision(scores[:, c], labels[:, c]) for c in present])
    assert mean_average_precision(scores, labels) == pytest.approx(expected)


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
    with pytest.raises(ValueError, match="finite"):
        mean_average_precision(np.full((2, 1), np.nan), np.ones((2, 1), np.bool_))
