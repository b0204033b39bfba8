"""The rule of Sec. 3.4 and the price, at one value and at all, against brute force."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cache_schema import UserError
from policy.selection.config import WhenNone
from policy.selection.rule import choose, choose_at_price, prices, thresholds, within_budget

Floats = npt.NDArray[np.float64]

GFLOPS = np.array([0.0, 2.0, 4.7, 18.4])
# Few values, so that there are equal ones; and any, so that there are neighbouring ones.
VALUES = st.one_of(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.floats(0, 1))
CONFIDENCES = st.integers(1, 6).flatmap(lambda videos: arrays(np.float64, (videos, 4), elements=VALUES))
KINDS = st.sampled_from(get_args(WhenNone))


@given(CONFIDENCES, VALUES, KINDS)
def test_the_cheapest_above_the_threshold(said: Floats, threshold: float, when_none: WhenNone) -> None:
    for video, chosen in zip(said, choose(said, threshold, when_none), strict=True):
        above = [n for n in range(4) if video[n] >= threshold]
        if above:
            assert chosen == above[0]
        else:
            assert chosen == (3 if when_none == "largest" else max(range(4), key=lambda n: (video[n], -n)))


@given(CONFIDENCES, KINDS, st.lists(VALUES, min_size=2, max_size=6))
def test_a_higher_threshold_is_never_cheaper(said: Floats, when_none: WhenNone, values: list[float]) -> None:
    chosen = np.stack([choose(said, value, when_none) for value in sorted(values)])
    assert (np.diff(chosen, axis=0) >= 0).all()


@given(CONFIDENCES, KINDS, st.data())
def test_between_neighbouring_thresholds_nothing_changes(
    said: Floats, when_none: WhenNone, data: st.DataObject
) -> None:
    values = thresholds(said, when_none, None)
    assert values[0] == 0 and (np.diff(values) > 0).all()
    chosen = [choose(said, value, when_none) for value in values]
    assert all(not np.array_equal(a, b) for a, b in pairwise(chosen))
    any_value = data.draw(st.one_of(st.floats(0, 2), st.sampled_from(said.ravel().tolist())))
    last = int(np.searchsorted(values, any_value, side="right")) - 1
    assert np.array_equal(choose(said, any_value, when_none), chosen[last])


@given(CONFIDENCES, KINDS, st.integers(2, 8))
def test_fewer_thresholds_are_some_of_them(said: Floats, when_none: WhenNone, points: int) -> None:
    every, some = thresholds(said, when_none, None), thresholds(said, when_none, points)
    assert len(some) <= points and set(some) <= set(every)
    assert (some[0], some[-1]) == (every[0], every[-1])


def test_the_sweep_goes_from_the_cheapest_to_the_dearest() -> None:
    said = np.random.default_rng(0).dirichlet(np.ones(4), size=50)
    values = thresholds(said, "largest", None)
    assert choose(said, values[0], "largest").tolist() == [0] * 50
    assert choose(said, values[-1], "largest").tolist() == [3] * 50
    sure = thresholds(said, "most-confident", None)
    assert choose(said, sure[-1], "most-confident").tolist() == said.argmax(axis=1).tolist()


@given(CONFIDENCES, st.floats(0, 1))
def test_the_best_at_a_price(said: Floats, price: float) -> None:
    for video, chosen in zip(said, choose_at_price(said, GFLOPS, price), strict=True):
        worth = [video[n] - price * GFLOPS[n] for n in range(4)]
        assert worth[chosen] == max(worth)


@given(CONFIDENCES, st.data())
def test_between_prices_at_which_a_comparison_turns_nothing_changes(
    said: Floats, data: st.DataObject
) -> None:
    values = prices(said, GFLOPS, None)
    assert values[-1] == 0 and (np.diff(values) < 0).all()
    assert choose_at_price(said, GFLOPS, values[0]).tolist() == [0] * len(said)
    assert np.array_equal(said[np.arange(len(said)), choose_at_price(said, GFLOPS, 0.0)], said.max(axis=1))
    costs = GFLOPS[np.stack([choose_at_price(said, GFLOPS, value) for value in values])]
    assert (np.diff(costs, axis=0) >= 0).all()
    # Whatever another price chooses, one of these does, too.
    price = data.draw(st.floats(1e-3, 1))
    turning = [
        (video[a] - video[b]) / (GFLOPS[a] - GFLOPS[b]) for video in said for a in range(4) for b in range(a)
    ]
    if min(abs(price - each) for each in turning) > 1e-9:
        chosen = GFLOPS[choose_at_price(said, GFLOPS, price)]
        assert any(np.array_equal(chosen, each) for each in costs)


@given(CONFIDENCES, st.integers(2, 8))
def test_fewer_prices_are_some_of_them(said: Floats, points: int) -> None:
    every, some = prices(said, GFLOPS, None), prices(said, GFLOPS, points)
    assert len(some) <= points and set(some) <= set(every)
    assert (some[0], some[-1]) == (every[0], every[-1])


@given(CONFIDENCES, KINDS, st.floats(0, 20))
def test_a_budget_is_spent_as_far_as_it_goes(said: Floats, when_none: WhenNone, budget: float) -> None:
    values = thresholds(said, when_none, None)
    costs = {value: GFLOPS[choose(said, value, when_none)].mean() for value in values.tolist()}
    found = within_budget(budget, values, costs.__getitem__)
    assert costs[found] <= budget
    dearer = [cost for value, cost in costs.items() if value > found]
    assert not dearer or dearer[0] > budget


def test_a_budget_below_the_cheapest() -> None:
    with pytest.raises(UserError, match=r"--budget 0.5: the least that is possible is 0.6 GFLOPs per video"):
        within_budget(0.5, np.array([0.0, 0.3]), lambda value: 0.6 + value)
