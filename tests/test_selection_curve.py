"""A curve's costs, answers and accuracies against plain loops over points, videos and models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.evaluation.metrics import mean_average_precision
from policy.selection.curve import SelectionCurve
from tests.pool_tables import averaged, random_choices, random_table


@pytest.mark.slow
@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), models=st.integers(1, 5), multi_label=st.booleans())
def test_sets_of_models(seed: int, models: int, multi_label: bool) -> None:
    table = random_table(seed, videos=9, models=models, multi_label=multi_label)
    random = np.random.default_rng(seed)
    answering = random.integers(1, 2**models, size=(4, 9)).astype(np.uint32)
    ran = answering | random.integers(2**models, size=(4, 9)).astype(np.uint32)
    overhead = random.integers(10**9, size=9)
    curve = SelectionCurve("any", table, np.arange(4.0), ran, answering, overhead)
    for p in range(4):
        used = np.zeros(models)
        macs = np.zeros(9)
        scores = np.zeros((9, table.labels.shape[1]))
        for v in range(9):
            asked = [n for n in range(models) if answering[p, v] >> n & 1]
            used[asked] += 1 / 9
            scores[v] = averaged(table.probabilities[v, asked], table.multi_label)
            macs[v] = sum(table.macs[v, n] for n in range(models) if ran[p, v] >> n & 1) + overhead[v]
        assert np.array_equal(curve.macs[p], macs)
        assert curve.gflops[p] == pytest.approx(macs.mean() / 1e9)
        assert curve.scores(p) == pytest.approx(scores, abs=1e-6)
        assert curve.shares[p] == pytest.approx(used)
        right = [table.labels[v, curve.scores(p)[v].argmax()] for v in range(9)]
        assert np.array_equal(curve.correct[p], right)
        assert curve.top1[p] == pytest.approx(np.mean(right))
        assert curve.mean_average_precision[p] == mean_average_precision(curve.scores(p), table.labels)


def test_fewer_points_are_spread_over_all() -> None:
    curve = random_choices(random_table(0), 1, points=10)
    few = curve.thinned(4)
    assert few.values.tolist() == [0, 3, 6, 9]
    assert np.array_equal(few.gflops, curve.gflops[[0, 3, 6, 9]])
    assert np.array_equal(few.top1, curve.top1[[0, 3, 6, 9]])
    assert curve.thinned(50).values.tolist() == curve.values.tolist()
