"""Methods of K uniformly spaced rows at other K, without another training."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policy.data.batches import uniform_rows
from policy.evaluation.operating import doubled_up_to
from policy.evaluation.predictions import Predictions
from policy.registry import configure
from policy.runs import load_method, open_data, run_method
from tests.planted import write_planted

SMALL: dict[str, Any] = {
    **{"coarse": "coarse_112", "fine": "fine_224", "frames": 4},
    **{"epochs": 2, "batch": 6, "lr": 1e-2, "fine_hidden": 5},
}

pytestmark = pytest.mark.usefixtures("one_thread")


@given(st.integers(1, 5000))
def test_budgets_are_doubled(most: int) -> None:
    counts = doubled_up_to(most)
    assert counts[0] == 1 and counts[-1] == most and len(counts) <= 14
    assert all(less < more <= 2 * less for less, more in pairwise(counts))


@pytest.mark.parametrize("name", ["uniform", "uniform-cf", "lstm", "lstm-cf"])
def test_other_numbers_of_rows(name: str, tmp_path: Path) -> None:
    cache, labels = write_planted(tmp_path / "cache", train=12, test=9, classes=4, dim=6, lengths=(1, 11))
    config, cpu = configure(name, SMALL), torch.device("cpu")
    run = run_method(config, cache, labels, tmp_path / "run", device="cpu")
    data = open_data(config, cache, labels)
    method = load_method(run.folder, config, data)
    weights = {key: value.clone() for key, value in method.model.state_dict().items()}
    curve = method.operating_curve(data.evaluation, data.train, device=cpu)
    assert not method.is_incremental and (np.diff(curve.gflops) > 0).all()
    assert all(torch.equal(value, weights[key]) for key, value in method.model.state_dict().items())
    assert [point.value for point in curve.points] == doubled_up_to(int(run.predictions().lengths.max()))
    for point in curve.points:
        found = point.predictions
        assert np.array_equal(found.row_counts, np.minimum(found.lengths, point.value))
        for video, length in enumerate(found.lengths.tolist()):
            gates = found.gates[0, found.offsets[video] : found.offsets[video + 1]]
            assert np.flatnonzero(gates).tolist() == uniform_rows(length, int(point.value)).tolist()
    (at_own,) = (point.predictions for point in curve.points if point.value == 4)
    again = method.evaluate(data.evaluation, device=cpu)
    assert isinstance(again, Predictions)
    for judged in (run.predictions(), again):
        assert np.allclose(at_own.scores, judged.scores, atol=1e-6)
        assert np.array_equal(at_own.ledger.total, judged.ledger.total)
