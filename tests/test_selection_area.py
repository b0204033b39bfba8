"""Areas between curves and their intervals against integration on a fine grid and videos drawn again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from policy.evaluation.curves import hull_height
from policy.evaluation.metrics import Interval
from policy.selection import area
from policy.selection.area import Drawn, compare
from policy.selection.controls import cascade, oracle, random_mixtures, single_models
from policy.selection.curve import SelectionCurve
from policy.selection.pool import PoolTable, only
from tests.pool_tables import random_choices, random_table

SEEDS = st.integers(0, 10_000)


def area_above(curve: Drawn, other: Drawn, **options: Any) -> Interval | None:
    """Of two curves alone: over the budgets that these two have in common."""
    return compare({"a": curve, "b": other}, **options).area_above("a", "b")


def achievable(costs: np.ndarray, accuracies: np.ndarray, budget: float) -> float:
    """The best of any point, or mix of two, that costs at most the budget."""
    best = max((a for c, a in zip(costs, accuracies, strict=True) if c <= budget), default=-np.inf)
    for c0, a0 in zip(costs, accuracies, strict=True):
        for c1, a1 in zip(costs, accuracies, strict=True):
            if c0 <= budget < c1:
                best = max(best, a0 + (a1 - a0) * (budget - c0) / (c1 - c0))
    return best


def integrated(a: SelectionCurve, b: SelectionCurve, accuracy: str = "top1") -> float:
    low = max(a.gflops.min(), b.gflops.min())
    grid = np.linspace(low, a.table.mean_macs.max() / 1e9, 2001)
    grid = (grid[1:] + grid[:-1]) / 2
    return float(
        np.mean(
            [
                achievable(a.gflops, getattr(a, accuracy), budget)
                - achievable(b.gflops, getattr(b, accuracy), budget)
                for budget in grid
            ]
        )
    )


def drawn_again(curve: SelectionCurve, videos: np.ndarray) -> SelectionCurve:
    """The same choices for some of the videos, each as often as it is named."""
    table = curve.table
    fewer = PoolTable(
        table.models,
        tuple(map(str, range(len(videos)))),
        table.labels[videos],
        table.first[videos],
        table.multi_label,
        table.probabilities[videos],
        table.macs[videos],
    )
    return replace(
        curve,
        table=fewer,
        ran=curve.ran[:, videos],
        answering=curve.answering[:, videos],
        overhead=curve.overhead[videos],
    )


@settings(max_examples=12)
@given(seed=SEEDS)
def test_area_is_the_mean_height_between_what_both_achieve(seed: int) -> None:
    table = random_table(seed)
    curve, random = random_choices(table, seed), single_models(table)
    assume(curve.gflops.min() < 0.99 * table.mean_macs.max() / 1e9)
    found = area_above(curve, random, resamples=0)
    assert found is not None
    assert found.value == pytest.approx(integrated(curve, random), abs=2e-4)
    assert np.isnan([found.low, found.high]).all()


@settings(max_examples=12)
@given(seed=SEEDS)
def test_order_of_the_controls(seed: int) -> None:
    table = random_table(seed, coarse=seed % 2 == 0)
    assume(table.mean_macs[0] < table.mean_macs[-1])
    single, chosen = single_models(table), random_choices(table, seed)
    itself = area_above(single, single, resamples=5)
    assert itself is not None and (itself.value, itself.low, itself.high) == (0, 0, 0)
    compared = compare({"oracle": oracle(table, points=200), "random": single, "chosen": chosen}, resamples=5)
    if compared.budgets is not None:
        for name in ("random", "chosen"):
            above = compared.area_above("oracle", name)
            assert above is not None and above.value >= -1e-12


def test_a_point_that_is_dearer_and_no_better_changes_nothing() -> None:
    table = random_table(2)
    random = single_models(table)
    curve = cascade(table, random_table(3))
    # The first point once more, with all models run for nothing.
    wasteful = replace(
        curve,
        values=np.append(curve.values, 9.0),
        ran=np.concatenate([curve.ran, np.full_like(curve.ran[:1], 7)]),
        answering=np.concatenate([curve.answering, curve.answering[:1]]),
    )
    assert area_above(wasteful, random) == area_above(curve, random)


def test_the_interval_is_that_of_videos_drawn_again() -> None:
    table = random_table(4, videos=150)
    curve, random = cascade(table, random_table(5), points=10), single_models(table)
    found = area_above(curve, random, resamples=2000, seed=1)
    generator = np.random.default_rng(11)
    areas = []
    for _ in range(600):
        videos = generator.integers(150, size=150)
        again = area_above(drawn_again(curve, videos), drawn_again(random, videos), resamples=0)
        assert again is not None
        areas.append(again.value)
    low, high = np.quantile(areas, [0.025, 0.975])
    assert found is not None
    assert found.low < found.value < found.high
    assert found.low == pytest.approx(low, abs=0.12 * (high - low))
    assert found.high == pytest.approx(high, abs=0.12 * (high - low))


@pytest.mark.parametrize("metric", ["top1", "map"])
def test_samples_are_videos_drawn_again(metric: area.Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_table(13, videos=60, multi_label=True)
    curves = {
        "cascade": cascade(table, random_table(14, multi_label=True), points=5),
        "random": single_models(table),
        "chosen": random_choices(table, 1),
    }
    samples = np.random.default_rng(2).integers(60, size=(3, 60))
    weights = np.stack([np.bincount(sample, minlength=60) for sample in samples], axis=1)
    monkeypatch.setattr(area, "resampled_weights", lambda *asked: weights.astype(np.float32))
    monkeypatch.setattr(area, "FEWEST_RESAMPLES", 1)
    compared = compare(curves, at=curves["chosen"].thinned(1), metric=metric, resamples=3)
    accuracy = {"top1": "top1", "map": "mean_average_precision"}[metric]
    for name, curve in curves.items():
        for row, again in enumerate([curve, *(drawn_again(curve, sample) for sample in samples)]):
            assert compared.curves[name].gflops[row] == pytest.approx(again.gflops)
            assert compared.curves[name].accuracies[row] == pytest.approx(getattr(again, accuracy), abs=1e-6)
            assert compared.dearest[row] == pytest.approx(again.table.mean_macs.max() / 1e9)
    assert compared.at is not None
    assert compared.at.gflops[:, 0] == pytest.approx(compared.curves["chosen"].gflops[:, 0])
    assert compared.at.accuracies[:, 0] == pytest.approx(compared.curves["chosen"].accuracies[:, 0])
    heights = []
    for sample in samples:
        point, other = drawn_again(curves["chosen"], sample), drawn_again(curves["cascade"], sample)
        best = achievable(other.gflops, getattr(other, accuracy), point.gflops[0])
        heights.append(getattr(point, accuracy)[0] - best)
    found = compared.point_above("cascade")
    assert found is not None
    assert [found.low, found.high] == pytest.approx(np.quantile(heights, [0.025, 0.975]).tolist(), abs=1e-6)


def test_samples_are_alike_however_much_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_table(4, videos=100)
    curve, random = cascade(table, random_table(5), points=10), single_models(table)
    whole = area_above(curve, random, resamples=900)
    monkeypatch.setattr(area, "_WEIGHTS_AT_A_TIME", 7_000)
    parts = compare({"a": curve, "b": random}, resamples=900)
    assert parts.dearest.shape == (901,)
    in_parts = parts.area_above("a", "b")
    assert whole is not None and in_parts is not None
    assert in_parts.value == whole.value
    width = whole.high - whole.low
    assert [in_parts.low, in_parts.high] == pytest.approx([whole.low, whole.high], abs=0.15 * width)


def test_paired_differences() -> None:
    table = random_table(6, videos=200)
    training = random_table(7, videos=200)
    curves = {
        "random": single_models(table),
        "cascade": cascade(table, training),
        "committee": cascade(table, training, committee=True),
    }
    compared = compare(curves, resamples=300)
    over = {name: compared.area_above(name, "random") for name in curves}
    forth = compared.area_above("cascade", "committee")
    back = compared.area_above("committee", "cascade")
    assert (
        forth is not None
        and back is not None
        and over["cascade"] is not None
        and over["committee"] is not None
    )
    assert forth.value == pytest.approx(over["cascade"].value - over["committee"].value)
    assert (back.value, back.low, back.high) == pytest.approx((-forth.value, -forth.high, -forth.low))
    # The same videos in each sample: surer than two intervals taken apart.
    apart = over["cascade"].high - over["cascade"].low + over["committee"].high - over["committee"].low
    assert forth.high - forth.low < apart


def test_one_point_against_a_curve() -> None:
    table = random_table(8, videos=200)
    single, other = single_models(table), cascade(table, random_table(9))
    point = random_choices(table, 3, points=1)
    compared = compare({"random": single, "cascade": other}, at=point, resamples=400)
    for name, curve in (("random", single), ("cascade", other)):
        found = compared.point_above(name)
        assert found is not None and found.low < found.value < found.high
        expected = point.top1[0] - achievable(curve.gflops, curve.top1, point.gflops[0])
        assert found.value == pytest.approx(expected)
    with pytest.raises(ValueError, match="2 points"):
        compare({"random": single}, at=single.thinned(2), resamples=0)
    with pytest.raises(ValueError, match="no point"):
        compare({"random": single}, resamples=0).point_above("random")


def test_a_model_that_always_runs() -> None:
    """A selector on a dear model: areas begin where it can, and there are none where it never can."""
    table = random_table(10, coarse=True)
    single = single_models(table)
    chosen = only(np.tile(np.arange(3)[:, None], (1, len(table))))

    def on(own: int, overhead: int) -> SelectionCurve:
        nothing = np.full(len(table), overhead, np.int64)
        return SelectionCurve("on", table, np.arange(3.0), chosen | only(own), chosen, nothing)

    middle = compare({"selector": on(1, 1000), "random": single}, resamples=50)
    cost = (table.macs[0] / 1e9).tolist()
    assert middle.budgets == pytest.approx((cost[1] + 1e-6, cost[2]))
    assert middle.area_above("selector", "random") is not None
    dear = compare({"selector": on(2, 1000), "random": single}, at=single.thinned(1), resamples=50)
    assert dear.budgets is None and dear.area_above("selector", "random") is None
    assert dear.point_above("selector") is None  # at the cost of the cheapest model


def test_mean_average_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_table(11, videos=120, multi_label=True)
    curve = cascade(table, random_table(12, multi_label=True), points=6)
    single = single_models(table)
    found = area_above(curve, single, metric="map", resamples=200)
    assert found is not None and found.low < found.value < found.high
    assert found.value == pytest.approx(integrated(curve, single, "mean_average_precision"), abs=2e-4)
    drawn = random_mixtures(table)
    mixed = compare({"a": drawn, "b": single}, metric="map", resamples=0).curves["a"]
    assert mixed.accuracies[0] == pytest.approx(
        np.mean([one.mean_average_precision for one in drawn], axis=0)
    )
    assert mixed.gflops[0] == pytest.approx(np.mean([one.gflops for one in drawn], axis=0))
    # Too much to rank again and again: the figure without an interval.
    monkeypatch.setattr(area, "MOST_RANKED", 1000)
    bare = area_above(curve, single, metric="map", resamples=200)
    assert bare is not None and bare.value == found.value and np.isnan([bare.low, bare.high]).all()


@settings(max_examples=50)
@given(
    points=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), min_size=1, max_size=8),
    budget=st.floats(0, 40),
)
def test_height_of_a_hull(points: list[tuple[int, int]], budget: float) -> None:
    costs, accuracies = np.array(points, np.float64).T
    height = hull_height(costs, accuracies, budget)
    expected = achievable(costs, accuracies, budget)
    assert np.isnan(height) if expected == -np.inf else height == pytest.approx(expected)
