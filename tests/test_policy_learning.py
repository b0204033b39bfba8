"""LiteEval learns when to look: on a planted cache as good as LSTM+CF for half the cost, better than chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policy.config import RunConfig
from policy.runs import Result, run_method
from tests.planted import write_planted

CONFIG = RunConfig(
    "liteeval",
    coarse="coarse_112",
    fine="fine_224",
    epochs=30,
    batch=16,
    lr=1e-3,
    coarse_hidden=16,
    fine_hidden=64,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_liteeval_looks_where_it_pays(seed: int, tmp_path: Path) -> None:
    cache, labels = write_planted(tmp_path / "cache", seed=seed)

    def result(method: str, usage: float | None = None) -> Result:
        config = replace(CONFIG, method=method, seed=seed, usage=usage)
        return run_method(config, cache, labels, tmp_path / method, device="cpu").result

    ours, dense = result("liteeval"), result("lstm-cf")
    chance = result("random-gating", ours.usage)
    assert ours.mean_average_precision > dense.mean_average_precision - 0.02
    assert ours.top1 > dense.top1 - 0.02
    assert ours.gflops_mean < 0.5 * dense.gflops_mean
    assert 0 < ours.usage < 0.5
    assert abs(chance.usage - ours.usage) < 0.03
    assert ours.mean_average_precision > chance.mean_average_precision + 0.1
    assert ours.top1 > chance.top1 + 0.1

    # Videos whose class shows in the coarse features need no fine ones, the others do.
    predictions = run_method(
        replace(CONFIG, seed=seed), cache, labels, tmp_path / "liteeval", device="cpu"
    ).predictions()
    readable = predictions.labels[:, :5].any(axis=1)
    used = predictions.usage[0]
    assert np.mean(used[~readable]) > np.mean(used[readable])
