"""One trained LiteEval at many budgets, without training again; its null control and its oracle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from policy.data.batches import Batch, VideoSet
from policy.evaluation.ledger import Ledger
from policy.evaluation.operating import Curve, OperatingPoint
from policy.evaluation.oracle import oracle_choices
from policy.evaluation.predictions import Predictions
from policy.liteeval.calibration import calibrated_threshold
from policy.liteeval.method import LiteEvalMethod
from policy.liteeval.model import LiteEval
from policy.liteeval.random_gating import with_random_gates
from policy.method import Prediction, class_probabilities, evaluate


def threshold_curve(
    method: LiteEvalMethod,
    videos: VideoSet,
    usages: Sequence[float],
    calibration: VideoSet,
    *,
    device: torch.device,
) -> Curve:
    """One policy at the gate thresholds at which it would use a given share of the calibration videos' rows.

    The values of the curve are the thresholds, on the log-odds of opening: 0 is Algorithm 1, higher opens less.
    The usage of `videos` may differ from that of `calibration`; `Predictions.usage` has it. The model keeps its
    own threshold.

    Args:
        usages: means over the calibration videos, each in [0, 1].
        calibration: the training videos: thresholds chosen on the videos that are judged would be flattered.

    Raises:
        ValueError: a usage is not in [0, 1].
    """
    _check_usages(usages)
    model = method.model.to(device)
    points = []
    for usage in usages:
        threshold = calibrated_threshold(model, calibration, usage, batch=method.config.batch, device=device)
        with gate_threshold(method.model, threshold):
            points.append(OperatingPoint(threshold, evaluate(method, videos, device=device)))
    return Curve(method.title, tuple(points))


@contextmanager
def gate_threshold(model: LiteEval, value: float) -> Iterator[None]:
    """Within it the gate opens above this value; afterwards above the one before."""
    before = model.threshold.clone()
    model.threshold.fill_(value)
    try:
        yield
    finally:
        model.threshold.copy_(before)


def random_curve(
    method: LiteEvalMethod,
    videos: VideoSet,
    usages: Sequence[float],
    *,
    device: torch.device,
    draws: int = 10,
) -> Curve:
    """The null control: the same trained network, its gates opened at random (`draws` times) instead.

    What the policy's curve has above this one is what knowing *when* to look is worth. The network was trained
    with its own gates, which random ones are not like: `RandomGating` is trained for them, one usage at a time.

    Args:
        usages: probability that a gate opens, each in [0, 1]; the values of the curve. Every usage has the same
            uniform numbers drawn, so that what opens at a low one also opens at a higher.

    Raises:
        ValueError: a usage is not in [0, 1], or there is no draw.
    """
    _check_usages(usages)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")

    def at(usage: float) -> Predictions:
        def predict(batch: Batch, generator: torch.Generator) -> Prediction:
            out = with_random_gates(method.model, batch, usage, generator)
            return Prediction(class_probabilities(out.logits, method.multi_label), out.split(out.gates))

        return evaluate(method, videos, device=device, predict=predict, draws=draws)

    return Curve("Random gates", tuple(OperatingPoint(usage, at(usage)) for usage in usages))


def oracle_curve(curve: Curve, *, points: int = 20) -> Curve:
    """The best that choosing among a curve's points video by video could do, knowing the labels.

    As `policy.evaluation.oracle.oracle_choices` trades, at prices in videos per GFLOP; correct is top-1, with
    several classes hit@1. Accuracy and cost both fall as the price rises.

    Args:
        curve: of one draw; any order of points.
        points: how many trade-offs at most; at least 2.

    Returns:
        By rising λ, which is the value. mAP says little here: it ranks the scores of different points against
        each other.

    Raises:
        ValueError: the curve has no points, or more than one draw, or other videos at one point than at another.
    """
    said = [point.predictions for point in curve.points]
    if not said or any(len(one.scores) != 1 or one.video_ids != said[0].video_ids for one in said):
        raise ValueError("the oracle needs points of one draw each, with the same videos at each")
    cost = np.stack([one.gflops[0] for one in said])
    correct = np.stack([one.correct[0] for one in said])
    prices, choices = oracle_choices(cost, correct, points)
    result = [
        OperatingPoint(float(price), _chosen(said, chosen))
        for price, chosen in zip(prices, choices, strict=True)
    ]
    return Curve(f"{curve.name}, oracle", tuple(result))


def _check_usages(usages: Sequence[float]) -> None:
    if not all(0 <= usage <= 1 for usage in usages):
        raise ValueError(f"usages must be between 0 and 1, not {list(usages)}")


def _chosen(said: Sequence[Predictions], chosen: npt.NDArray[np.int64]) -> Predictions:
    """Of video m what point chosen[m] said."""
    first = said[0]
    scores, gates = np.empty_like(first.scores), np.empty_like(first.gates)
    seen = np.empty_like(first.seen)
    row_chosen = np.repeat(chosen, first.lengths)
    for point, one in enumerate(said):
        videos, rows = chosen == point, row_chosen == point
        scores[:, videos], gates[:, rows] = one.scores[:, videos], one.gates[:, rows]
        seen[videos] = one.seen[videos]
    every = np.arange(len(chosen))
    ledger = Ledger(
        {name: np.stack([one.ledger[name] for one in said])[chosen, :, every].T for name in first.ledger}
    )
    return replace(first, scores=scores, gates=gates, seen=seen, ledger=ledger)
