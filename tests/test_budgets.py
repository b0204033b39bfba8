"""One policy at many budgets: thresholds that meet a usage, the null control, the oracle against all choices."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema import FeatureCache
from cache_schema.annotations import LabelSet
from policy.data.opening import Dataset
from policy.evaluation.curves import upper_hull
from policy.evaluation.ledger import Ledger
from policy.evaluation.operating import Curve, OperatingPoint
from policy.evaluation.predictions import Predictions
from policy.liteeval.budgets import oracle_curves, random_curve, threshold_curve
from policy.liteeval.config import LiteEvalConfig, RandomGatingConfig
from policy.liteeval.method import LiteEvalMethod
from policy.liteeval.random_gating import RandomGating
from policy.method import evaluate, moved
from policy.registry import configure
from policy.runs import open_data
from tests.planted import write_planted

CPU = torch.device("cpu")
CONFIG = LiteEvalConfig(
    coarse="coarse_112", fine="fine_224", batch=7, coarse_hidden=6, fine_hidden=12, seed=5
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureCache, LabelSet]:
    return write_planted(tmp_path_factory.mktemp("planted"), train=24, test=12, classes=4, dim=10)


@pytest.fixture(scope="module")
def data(planted: tuple[FeatureCache, LabelSet]) -> Dataset:
    return open_data(CONFIG, *planted)


@pytest.fixture(scope="module")
def method(data: Dataset) -> LiteEvalMethod:
    torch.manual_seed(0)
    return LiteEvalMethod(CONFIG, data)


# --- thresholds ---


def same_costs(ours: Ledger, theirs: Ledger) -> bool:
    return set(ours) == set(theirs) and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_threshold_curve(method: LiteEvalMethod, data: Dataset) -> None:
    usages = [0.0, 0.1, 0.5, 1.0]
    method.model.threshold.fill_(0.125)
    curve = threshold_curve(method, data.evaluation, usages, data.train, device=CPU)
    assert float(method.model.threshold) == 0.125
    values = [point.value for point in curve.points]
    assert values == sorted(values, reverse=True)
    step = 1 / sum(data.train.length(i) for i in range(len(data.train)))
    for usage, point in zip(usages, curve.points, strict=True):
        with moved(method.model.threshold, point.value):
            reached = evaluate(method, data.train, device=CPU).usage.mean()
            said = evaluate(method, data.evaluation, device=CPU)
        # One row of one video is the least that a threshold can change, and may change others behind it.
        assert reached == pytest.approx(usage, abs=4 * step)
        assert np.array_equal(point.predictions.scores, said.scores)
        assert same_costs(point.predictions.ledger, said.ledger)
    assert not curve.points[0].predictions.gates.any()
    assert curve.points[-1].predictions.gates.all()


def test_the_threshold_comes_back_whatever_happens(method: LiteEvalMethod) -> None:
    method.model.threshold.fill_(0.25)
    with pytest.raises(KeyError), moved(method.model.threshold, 7.0):
        assert float(method.model.threshold) == 7
        raise KeyError
    assert float(method.model.threshold) == 0.25


# --- random gates ---


@pytest.mark.slow
def test_random_curve(method: LiteEvalMethod, data: Dataset) -> None:
    curve = random_curve(method, data.evaluation, [0.0, 0.2, 0.6, 1.0], device=CPU, draws=30)
    never, seldom, often, always = (point.predictions for point in curve.points)
    rows = never.gates.shape[1]
    assert never.scores.shape == (30, 12, 4)
    assert not never.gates.any() and always.gates.all()
    # 30 draws of every row: six standard deviations of a proportion.
    for said, usage in ((seldom, 0.2), (often, 0.6)):
        assert said.gates.mean() == pytest.approx(usage, abs=6 * (usage * (1 - usage) / (30 * rows)) ** 0.5)
    assert (seldom.gates <= often.gates).all()  # common random numbers
    assert (np.diff(curve.gflops) > 0).all()
    # Draws differ, and the gates say what the network did: all closed is what an infinite threshold gives.
    assert not np.array_equal(seldom.gates[0], seldom.gates[1])
    with moved(method.model.threshold, np.inf):
        closed = evaluate(method, data.evaluation, device=CPU)
    assert np.allclose(never.scores, closed.scores, atol=1e-6)
    assert same_costs(Ledger({name: spent[:1] for name, spent in never.ledger.items()}), closed.ledger)


def test_random_curve_draws_as_random_gating_does(
    method: LiteEvalMethod, data: Dataset, planted: tuple[FeatureCache, LabelSet]
) -> None:
    config = configure("random-gating", vars(CONFIG), usage=0.4, gate_draws=3)
    assert isinstance(config, RandomGatingConfig)
    control = RandomGating(config, open_data(config, *planted))
    control.model.load_state_dict(method.model.state_dict())
    theirs = evaluate(control, data.evaluation, device=CPU)
    ours = random_curve(method, data.evaluation, [0.4], device=CPU, draws=3).points[0].predictions
    assert np.array_equal(ours.gates, theirs.gates)
    assert np.array_equal(ours.scores, theirs.scores)


def test_what_cannot_be_drawn(method: LiteEvalMethod, data: Dataset) -> None:
    with pytest.raises(ValueError, match="usages must be between 0 and 1"):
        random_curve(method, data.evaluation, [1.2], device=CPU)
    with pytest.raises(ValueError, match="draws must be at least 1"):
        random_curve(method, data.evaluation, [0.2], device=CPU, draws=0)
    with pytest.raises(ValueError, match="usages must be between 0 and 1"):
        threshold_curve(method, data.evaluation, [-0.1], data.train, device=CPU)


# --- the oracle ---


def made_up(seed: int, *, points: int = 3, videos: int = 5, draws: int = 1) -> Curve:
    """Points with costs of a few whole GFLOPs, so that many are equal, and scores of two classes."""
    random = np.random.default_rng(seed)
    lengths = np.random.default_rng(0).integers(1, 4, videos)
    return Curve(
        "made up",
        tuple(
            OperatingPoint(
                float(p),
                Predictions(
                    video_ids=tuple(map(str, range(videos))),
                    labels=np.eye(2, dtype=np.bool_)[np.zeros(videos, np.int64)],
                    scores=random.random((draws, videos, 2)).astype(np.float32),
                    offsets=np.concatenate([[0], np.cumsum(lengths)]),
                    gates=random.integers(0, 2, (draws, lengths.sum())).astype(np.uint8),
                    row_counts=random.integers(1, 9, videos),
                    ledger=Ledger(
                        {
                            name: random.integers(0, 4, (draws, videos)) * 10**9
                            for name in ("small", "large", "network")
                        }
                    ),
                ),
            )
            for p in range(points)
        ),
    )


def accuracy_and_cost(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """(P, M) each."""
    correct = np.stack([p.predictions.scores[0, :, 0] > p.predictions.scores[0, :, 1] for p in curve.points])
    return correct.astype(float), np.stack([p.predictions.ledger.total[0] / 1e9 for p in curve.points])


@settings(max_examples=60)
@given(seed=st.integers(0, 100_000), points=st.integers(1, 3), videos=st.integers(1, 5))
def test_no_choice_is_above_the_oracle(seed: int, points: int, videos: int) -> None:
    curve = made_up(seed, points=points, videos=videos)
    correct, cost = accuracy_and_cost(curve)
    everyone = np.arange(videos)
    choices = [np.array(choice) for choice in product(range(points), repeat=videos)]
    reached = np.array([correct[choice, everyone].mean() for choice in choices])
    paid = np.array([cost[choice, everyone].mean() for choice in choices])

    oracle = oracle_curves([curve], points=100)[0]
    hull = upper_hull(oracle.gflops, oracle.top1)
    best = np.interp(paid, oracle.gflops[hull], oracle.top1[hull])
    assert (reached <= best + 1e-9).all()
    for point, gflops, top1 in zip(oracle.points, oracle.gflops, oracle.top1, strict=True):
        value = reached - point.value * paid
        assert top1 - point.value * gflops == pytest.approx(value.max())
        cheapest = paid[value > value.max() - 1e-9].min()
        # At λ = 0, the cheapest of the choices that are equally right; at other prices, of equally good ones.
        assert gflops == pytest.approx(cheapest)
    prices = [point.value for point in oracle.points]
    assert prices[0] == 0 and prices == sorted(set(prices))
    assert (np.diff(oracle.gflops) < 0).all() and (np.diff(oracle.top1) < 0).all()
    assert oracle.gflops[-1] == pytest.approx(cost.min(axis=0).mean())


def test_oracle_takes_everything_from_the_chosen_point() -> None:
    curve = made_up(1, points=4, videos=30)
    correct, cost = accuracy_and_cost(curve)
    full = oracle_curves([curve])[0].points[0].predictions
    for video in range(30):
        price = np.where(correct[:, video] > 0, cost[:, video], 1e6 + cost[:, video])
        chosen = curve.points[int(price.argmin())].predictions
        rows = slice(*full.offsets[video : video + 2])
        assert np.array_equal(full.scores[:, video], chosen.scores[:, video])
        assert np.array_equal(full.gates[:, rows], chosen.gates[:, rows])
        assert all(
            np.array_equal(spent[:, video], chosen.ledger[name][:, video])
            for name, spent in full.ledger.items()
        )
        assert full.row_counts[video] == chosen.row_counts[video]


def test_oracle_keeps_its_ends_when_sampled() -> None:
    curve = made_up(2, points=5, videos=60)
    fine, rough = (oracle_curves([curve], points=points)[0] for points in (1000, 2))
    assert len(rough.points) == 2 < len(fine.points)
    assert np.array_equal(rough.gflops, fine.gflops[[0, -1]])
    assert np.array_equal(rough.top1, fine.top1[[0, -1]])


def test_the_oracle_of_several_seeds_pays_the_same_price_in_each() -> None:
    curves = [made_up(seed, points=4, videos=20) for seed in (3, 4, 5)]
    oracles = oracle_curves(curves)
    prices = [[point.value for point in oracle.points] for oracle in oracles]
    assert prices[0] == prices[1] == prices[2] and len(prices[0]) > 2
    for curve, oracle in zip(curves, oracles, strict=True):
        correct, cost = accuracy_and_cost(curve)
        for price, gflops, top1 in zip(prices[0], oracle.gflops, oracle.top1, strict=True):
            best = (correct - price * cost).max(axis=0).mean()
            assert top1 - price * gflops == pytest.approx(best)


def test_what_has_no_oracle() -> None:
    drawn, short, long = made_up(0, draws=2), made_up(0, videos=4), made_up(0)
    for curve in (drawn, Curve("mixed", short.points + long.points), Curve("empty", ())):
        with pytest.raises(ValueError, match="one draw each, with the same videos"):
            oracle_curves([curve])
