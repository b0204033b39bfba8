"""Controls of a selector against plain loops and exhaustive search."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.evaluation.curves import hull_height, upper_hull
from policy.selection import pool
from policy.selection.controls import (
    NEVER,
    cascade,
    ensemble,
    oracle,
    random_mixtures,
    single_models,
    weighted_cascade,
)
from policy.selection.pool import PoolTable
from tests.pool_tables import averaged, random_choices, random_table

SEEDS = st.integers(0, 10_000)


def run_cascade(
    table: PoolTable, threshold: float, committee: bool
) -> tuple[list[int], list[np.ndarray], list[int]]:
    """Video by video: how many models ran, the answer, the MACs."""
    depths, answers, spent = [], [], []
    for said, macs in zip(table.probabilities, table.macs, strict=True):
        for n in range(len(said)):
            answer = averaged(said[: n + 1], table.multi_label) if committee else said[n]
            if answer.max() >= threshold:
                break
        depths.append(n + 1)
        answers.append(answer)
        spent.append(int(macs[: n + 1].sum()))
    return depths, answers, spent


@pytest.mark.parametrize("committee", [False, True])
def test_cascades_of_a_table_that_is_read_part_by_part(
    committee: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, training = random_table(0), random_table(1)
    whole = cascade(table, training, committee=committee)
    monkeypatch.setattr(pool, "_PART_BYTES", 4 * 3 * 5 * 7)  # seven videos
    in_parts = cascade(table, training, committee=committee)
    assert np.array_equal(whole.values, in_parts.values) and np.array_equal(whole.ran, in_parts.ran)


@settings(max_examples=40)
@given(
    seed=SEEDS,
    models=st.integers(2, 4),
    multi_label=st.booleans(),
    committee=st.booleans(),
    coarse=st.booleans(),
)
def test_cascades(seed: int, models: int, multi_label: bool, committee: bool, coarse: bool) -> None:
    coarse = coarse and not committee  # of whose answers, computed otherwise, equal ones would differ
    table = random_table(seed, videos=15, models=models, multi_label=multi_label, coarse=coarse)
    training = random_table(seed + 1, videos=20, models=models, multi_label=multi_label, coarse=coarse)
    curve = cascade(table, training, committee=committee, points=8)
    assert len(curve.values) <= 8
    assert (np.diff(curve.values) > 0).all() and (np.diff(curve.gflops) >= 0).all()
    for point, threshold in enumerate(curve.values):
        depths, answers, spent = run_cascade(table, threshold, committee)
        assert curve.macs[point].tolist() == spent
        assert curve.ran[point].tolist() == [2**depth - 1 for depth in depths]
        assert curve.scores(point) == pytest.approx(np.array(answers), abs=1e-6)


def test_a_weighted_cascade_against_a_loop() -> None:
    table, training = random_table(3, videos=25), random_table(4, videos=60)
    curve = weighted_cascade(table, training)
    assert curve.weights is not None and set(curve.weights) == {0b1, 0b11, 0b111}
    for point in (0, len(curve.values) // 2, len(curve.values) - 1):
        for video, logs in enumerate(np.log(table.probabilities)):
            for count in (1, 2, 3):
                answer = np.exp(
                    sum(w * log for w, log in zip(curve.weights[2**count - 1], logs, strict=False))
                )
                answer /= answer.sum()
                if answer.max() >= curve.values[point]:
                    break
            assert curve.ran[point, video] == 2**count - 1
            assert curve.scores(point)[video] == pytest.approx(answer, abs=1e-5)


@pytest.mark.parametrize("committee", [False, True])
def test_ends_of_a_cascade(committee: bool) -> None:
    table, training = random_table(0), random_table(1)
    curve = cascade(table, training, committee=committee)
    single, every = single_models(table), ensemble(table)
    assert curve.values[0] == 0 and curve.values[-1] == NEVER
    assert (curve.gflops[0], curve.top1[0]) == (single.gflops[0], single.top1[0])
    assert curve.gflops[-1] == every.gflops[-1]
    assert curve.top1[-1] == (every.top1[-1] if committee else single.top1[-1])


def test_thresholds_of_a_cascade_split_the_training_videos_evenly() -> None:
    training = random_table(3, videos=400, models=2)
    curve = cascade(random_table(4, models=2), training, points=12)
    stopped = [(training.confidence[:, 0] >= threshold).sum() for threshold in curve.values]
    assert stopped[0] == 400 and stopped[-1] == 0
    steps = -np.diff(stopped[1:-1])
    assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize("multi_label", [False, True])
def test_ensemble_and_single_models(multi_label: bool) -> None:
    table = random_table(5, models=4, multi_label=multi_label)
    every, single = ensemble(table), single_models(table)
    assert every.values.tolist() == [1, 2, 3, 4]
    for n in range(4):
        means = [averaged(said[: n + 1], multi_label) for said in table.probabilities]
        assert every.scores(n) == pytest.approx(np.array(means), abs=1e-6)
        assert np.array_equal(every.macs[n], table.macs[:, : n + 1].sum(axis=1))
        assert np.array_equal(single.scores(n), table.probabilities[:, n])
        assert np.array_equal(single.macs[n], table.macs[:, n])


@settings(max_examples=25)
@given(seed=SEEDS, coarse=st.booleans())
def test_no_choice_of_a_model_per_video_is_above_the_oracle(seed: int, coarse: bool) -> None:
    table = random_table(seed, videos=6, models=3, coarse=coarse)
    best = oracle(table, points=100)
    assert (np.diff(best.gflops) > 0).all() and (np.diff(best.values) < 0).all()
    everyone = np.arange(6)
    for chosen in product(range(3), repeat=6):
        cost = table.macs[everyone, chosen].mean() / 1e9
        right = table.correct[everyone, chosen].mean()
        assert right <= hull_height(best.gflops, best.top1, cost + 1e-9) + 1e-9
    # At its prices it is what the best of all these choices comes to.
    for price, cost, right in zip(best.values, best.gflops, best.top1, strict=True):
        value = (table.correct - price * table.macs / 1e9).max(axis=1).mean()
        assert right - price * cost == pytest.approx(value)


def test_the_oracle_takes_the_cheapest_where_no_model_is_right() -> None:
    table = random_table(7, videos=300, multi_label=True)
    best = oracle(table)
    chosen = best.answering[-1]
    right = table.correct
    expected = np.where(right.any(axis=1), right.argmax(axis=1), 0)
    assert np.array_equal(chosen, 1 << expected)
    assert best.values[-1] == 0


def test_random_mixtures() -> None:
    table = random_table(8, videos=3000, multi_label=True)
    single = single_models(table)
    corners = upper_hull(single.gflops, single.mean_average_precision)
    curves = random_mixtures(table, shares=(0.2, 0.7), draws=2, seed=3)
    assert len(curves) == 2
    for curve in curves:
        assert curve.values.tolist() == pytest.approx(
            [k + share for k in range(len(corners) - 1) for share in (0, 0.2, 0.7)] + [len(corners) - 1]
        )
        for value, shares, gflops in zip(curve.values, curve.shares, curve.gflops, strict=True):
            k = min(int(value), len(corners) - 2)
            assert shares[corners[k + 1]] == pytest.approx(value - k, abs=0.03)
            assert shares[corners[k]] + shares[corners[k + 1]] == pytest.approx(1)
            cheaper, dearer = single.gflops[corners[k]], single.gflops[corners[k + 1]]
            assert gflops == pytest.approx(cheaper + (value - k) * (dearer - cheaper), rel=0.05)
        # Who gets the dearer model at a small share, gets it at a larger one.
        assert (curve.answering[2] >= curve.answering[1]).all()
    assert not np.array_equal(curves[0].answering, curves[1].answering)
    again = random_mixtures(table, shares=(0.2, 0.7), draws=2, seed=3)
    assert all(np.array_equal(a.answering, b.answering) for a, b in zip(curves, again, strict=True))


def test_random_selection_is_on_the_hull_of_the_single_models() -> None:
    table = random_table(9, videos=20_000)
    single = single_models(table)
    for curve in random_mixtures(table):
        for cost, right in zip(curve.gflops, curve.top1, strict=True):
            assert right <= hull_height(single.gflops, single.top1, cost + 0.05) + 0.01
    drawn = random_choices(table, 1)
    assert drawn.top1 == pytest.approx(np.full(6, single.top1.mean()), abs=0.01)
    assert drawn.gflops == pytest.approx(np.full(6, single.gflops.mean()), rel=0.01)
