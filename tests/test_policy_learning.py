"""LiteEval learns when to look: on planted caches as good as LSTM+CF for half the cost, nearly as an oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy.config import RunConfig
from policy.evaluation.predictions import Predictions
from policy.liteeval.config import LiteEvalConfig
from policy.registry import configure
from policy.runs import Result, run_method
from tests.planted import Planted, oracle, plant, write_planted

CONFIG = LiteEvalConfig(
    coarse="coarse_112",
    fine="fine_224",
    epochs=30,
    batch=16,
    lr=1e-3,
    coarse_hidden=16,
    fine_hidden=64,
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_liteeval_looks_where_it_pays(seed: int, tmp_path: Path) -> None:
    cache, labels = write_planted(tmp_path / "cache", seed=seed)

    def result(method: str, usage: float | None = None) -> Result:
        config = configure(method, vars(CONFIG), seed=seed, usage=usage)
        return run_method(config, cache, labels, tmp_path / method, device="cpu").result

    ours, dense = result("liteeval"), result("lstm-cf")
    chance = result("random-gating", ours.metrics["usage"])
    assert ours.metrics["mean_average_precision"] > dense.metrics["mean_average_precision"] - 0.02
    assert ours.metrics["top1"] > dense.metrics["top1"] - 0.02
    assert ours.gflops_mean < 0.5 * dense.gflops_mean
    assert 0 < ours.metrics["usage"] < 0.5
    assert abs(chance.metrics["usage"] - ours.metrics["usage"]) < 0.03
    assert ours.metrics["mean_average_precision"] > chance.metrics["mean_average_precision"] + 0.1
    assert ours.metrics["top1"] > chance.metrics["top1"] + 0.1

    # Videos whose class shows in the coarse features need no fine ones, the others do.
    predictions = run_method(
        replace(CONFIG, seed=seed), cache, labels, tmp_path / "liteeval", device="cpu"
    ).predictions()
    readable = predictions.labels[:, :5].any(axis=1)
    used = predictions.usage[0]
    assert np.mean(used[~readable]) > np.mean(used[readable])


# Where the answer is known: half of the classes show in many coarse features, the others in the fine features of a
# few frames, which are anywhere or late.
ANSWERED = replace(CONFIG, lr=2e-3, usage_loss="constrained", warmup=0.5)
CACHES: Mapping[str, Mapping[str, Any]] = {
    "anywhere": {"lengths": (8, 20)},
    "late": {"lengths": (20, 30), "place": (0.75, 1.0)},
}
GAMMAS = {"anywhere": 0.13, "late": 0.075}
"""The oracle uses some 11 and 6 %."""


def answered(where: str, seed: int, folder: Path) -> tuple[Planted, LiteEvalConfig]:
    planted = plant(folder, seed=seed, train=160, test=160, dim=32, readable_signal=2.0, **CACHES[where])
    return planted, replace(ANSWERED, gamma=GAMMAS[where], seed=seed)


def said(config: RunConfig, planted: Planted, folder: Path) -> Predictions:
    return run_method(config, planted.cache, planted.labels, folder, device="cpu").predictions()


@pytest.mark.slow
@pytest.mark.parametrize("where", CACHES)
@pytest.mark.parametrize("seed", range(5))
def test_liteeval_finds_what_an_oracle_knows(where: str, seed: int, tmp_path: Path) -> None:
    planted, config = answered(where, seed, tmp_path / "cache")
    coarse = said(configure("coarse-only", vars(config)), planted, tmp_path / "coarse")
    told = oracle(config, planted, tmp_path / "oracle")
    ours = said(config, planted, tmp_path / "ours")
    assert told.top1() > coarse.top1() + 0.25
    assert ours.top1() - coarse.top1() >= 0.9 * (told.top1() - coarse.top1())
    assert ours.usage.mean() <= 1.5 * told.usage.mean()
    # Table 8: what the coarse network has seen is lost where it is not copied.
    apart = said(replace(config, sync=False), planted, tmp_path / "apart")
    assert apart.top1() < ours.top1() - 0.02


@pytest.mark.slow
def test_a_plainly_trained_gate_opens_at_the_start(tmp_path: Path) -> None:
    """Eq. 7 with a λ that does keep the usage down: the gate is shut before it knows what for."""
    planted, config = answered("late", 0, tmp_path / "cache")
    informative = np.concatenate([planted.informative[f"video_{i:04d}"] for i in range(160, 320)])

    def found(config: RunConfig, folder: Path) -> tuple[float, float]:
        """Shares of the informative rows and of the first three of each video that are opened."""
        predictions = said(config, planted, folder)
        gates, starts = predictions.gates[0], predictions.offsets[:-1, None] + np.arange(3)
        return float(gates[informative].mean()), float(gates[starts].mean())

    plain = replace(config, usage_loss="video", warmup=0.0, lam=100.0)
    late, first = found(plain, tmp_path / "plain")
    assert late < 0.2 and first > 0.1
    assert found(config, tmp_path / "ours")[0] > 0.4


@pytest.mark.slow
def test_a_budget_is_met_where_the_penalty_misses_it(tmp_path: Path) -> None:
    """On videos that were not trained on, so many that chance is small: within 0.5 points of γ."""
    small: Mapping[str, Any] = {"dim": 16, "lengths": (6, 10), "classes": 6}
    planted = plant(tmp_path / "cache", train=1500, test=1500, **small)
    config = replace(ANSWERED, gamma=0.05, epochs=4, batch=32, coarse_hidden=8, fine_hidden=16)
    kept = said(config, planted, tmp_path / "kept")
    assert abs(kept.usage.mean() - 0.05) < 0.005
    penalty = said(replace(config, usage_loss="video", warmup=0.0), planted, tmp_path / "penalty")
    assert abs(penalty.usage.mean() - 0.05) > 0.02
