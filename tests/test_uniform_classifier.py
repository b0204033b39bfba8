"""`--classifier cross-validated` of Uniform: logistic regression, as strongly regularised as is best on folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from cache_schema import FeatureCache
from cache_schema.annotations import LabelSet
from policy.baselines import cross_validated
from policy.baselines.cross_validated import PENALTIES, fit
from policy.deploy.session import open_session
from policy.evaluation.predictions import Predictions
from policy.registry import configure
from policy.runs import run_method
from tests.planted import write_planted

Floats = npt.NDArray[np.float64]
pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(videos: int, classes: int, dim: int, noise: float) -> tuple[Floats, Any, Any]:
    """Three frames a video, around the direction of its class."""
    random = np.random.default_rng(0)
    label = np.arange(videos) % classes
    video = np.repeat(np.arange(videos), 3)
    centres = random.standard_normal((classes, dim))
    features = centres[label[video]] + noise * random.standard_normal((len(video), dim))
    return features, video, label[:, None] == np.arange(classes)


@pytest.mark.parametrize("classes", [2, 4])
def test_weights_are_those_of_the_definition(classes: int) -> None:
    features, video, targets = drawn(24, classes, 3, 2.0)
    weights, bias, penalty = fit(features, video, targets, multi_label=False, seed=0)

    def objective(values: Floats) -> float:
        w, b = values[: classes * 3].reshape(classes, 3), values[classes * 3 :]
        likelihood = log_softmax(features @ w.T + b, axis=1)[targets[video]].mean()
        return float(-likelihood + penalty / 2 * (w**2).sum())

    found = objective(np.concatenate([weights.ravel(), bias]))
    best = minimize(objective, np.zeros(classes * 4), options={"gtol": 1e-8}).fun
    assert found == pytest.approx(best, abs=1e-3 if classes > 2 else 2e-2)


def test_noise_asks_for_a_stronger_penalty() -> None:
    clear = fit(*drawn(40, 4, 20, 0.5), multi_label=False, seed=0)[2]
    noisy = fit(*drawn(40, 4, 20, 20.0), multi_label=False, seed=0)[2]
    assert noisy == PENALTIES[0] and clear < noisy


def test_videos_are_never_in_two_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    features, video, targets = drawn(10, 2, 3, 1.0)
    plain, parts = cross_validated._softmax, []

    def watched(rows: Floats, of_row: Any, penalty: float) -> Any:
        parts.append({int(np.flatnonzero((features == row).all(1))[0]) // 3 for row in rows})
        assert len(rows) == 3 * len(parts[-1])
        return plain(rows, of_row, penalty)

    monkeypatch.setattr(cross_validated, "_softmax", watched)
    fit(features, video, targets, multi_label=False, seed=0)
    assert {len(part) for part in parts} == {8, 10}


def test_classes_without_a_video_are_never_said() -> None:
    features, video, targets = drawn(12, 3, 4, 1.0)
    wider = np.concatenate([targets, np.zeros((12, 1), bool)], 1)
    for multi_label in (False, True):
        weights, bias, _ = fit(features, video, wider, multi_label=multi_label, seed=0)
        assert not weights[3].any() and bias[3] == -30
        assert ((features @ weights.T + bias)[:, 3] < -20).all()
    one = np.zeros((12, 3), bool)
    one[:, 1] = True
    assert fit(features, video, one, multi_label=False, seed=0)[1].argmax() == 1


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureCache, LabelSet]:
    return write_planted(tmp_path_factory.mktemp("planted"), train=60, test=60, dim=40, signal=2.0)


def surprise(said: Predictions, multi_label: bool) -> float:
    """−log p of what is so, summed over videos."""
    p = said.scores[0].astype(np.float64).clip(1e-7, 1 - 1e-7)
    return float(-np.log(p)[said.labels].sum() - multi_label * np.log1p(-p)[~said.labels].sum())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["uniform", "uniform-cf"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_it_is_a_run_like_any_other(
    method: str, multi_label: bool, planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    values = {
        "coarse": "coarse_112",
        "fine": "fine_224",
        "multi_label": multi_label,
        "epochs": 40,
        "lr": 1e-2,
    }
    adam, ours = (
        run_method(configure(method, {**values, "classifier": how}), *planted, tmp_path / how, device="cpu")
        for how in ("adam", "cross-validated")
    )
    assert ours.result.trained and not (ours.folder / "metrics.jsonl").exists()
    said, cache = ours.predictions(), planted[0]
    assert surprise(said, multi_label) < surprise(
        adam.predictions(), multi_label
    )  # which has learnt the training videos by heart
    session = open_session(ours.folder)
    session.begin({name: cache[name][said.video_ids[0]].spans for name in session.streams})
    while (wanted := session.wanted()) is not None:
        features = cache[wanted.stream][said.video_ids[0]].features[wanted.rows]
        session.take(features)
    np.testing.assert_allclose(session.probabilities.numpy(), said.scores[0, 0], atol=1e-5)
