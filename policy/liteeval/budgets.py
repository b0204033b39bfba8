"""One trained LiteEval at many budgets, without training again; its null control and its oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from policy.data.batches import Batch, VideoSet
from policy.evaluation.curves import oracle_choices
from policy.evaluation.ledger import Ledger
from policy.evaluation.operating import Curve, OperatingPoint
from policy.evaluation.predictions import Predictions
from policy.liteeval.calibration import calibrated_threshold
from policy.liteeval.gate import DrawnGates
from policy.liteeval.model import LiteEval, LiteEvalOutput
from policy.method import Method, Prediction, class_probabilities, evaluate
from policy.networks.packing import lengths_of, packed_rows

USAGES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
"""Usages of an operating curve, on the calibration videos."""


def threshold_curve(
    method: Method,
    videos: VideoSet,
    usages: Sequence[float],
    calibration: VideoSet,
    *,
    device: torch.device,
) -> Curve:
    """One policy at the gate thresholds at which it would use a given share of the calibration videos' rows.

    The values of the curve are the thresholds, on the log-odds of opening: 0 is Algorithm 1, higher opens less.
    The usage of `videos` may differ from that of `calibration`; `Predictions.usage` has it. The model's threshold
    is left as it was.

    Args:
        method: of LiteEval's network.
        usages: means over the calibration videos, each in [0, 1].
        calibration: the training videos; thresholds fitted to the evaluation videos would look too good.

    Raises:
        ValueError: a usage is not in [0, 1].
    """
    _check_usages(usages)
    model = _network(method).to(device)
    batch = method.config.batch
    thresholds = [
        calibrated_threshold(model, calibration, usage, batch=batch, device=device) for usage in usages
    ]
    return method.at_values(thresholds, videos, device=device)


def random_curve(
    method: Method,
    videos: VideoSet,
    usages: Sequence[float],
    *,
    device: torch.device,
    draws: int = 10,
) -> Curve:
    """The null control: the same trained network, its gates opened at random (`draws` times) instead.

    The gap between the policy's curve and this one is what knowing *when* to look is worth. The network was
    trained with learned gates, not with random ones; `RandomGating` is trained with those, one usage at a time.

    Args:
        usages: probability that a gate opens, each in [0, 1]; the values of the curve. All usages share their
            uniform random numbers, so that a gate that opens at a low usage also opens at a higher one.

    Raises:
        ValueError: a usage is not in [0, 1], or there is no draw.
    """
    _check_usages(usages)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")

    def at(usage: float) -> Predictions:
        def predict(batch: Batch, generator: torch.Generator) -> Prediction:
            out = with_drawn_gates(_network(method), batch, usage, generator)
            return predicted(out, method.multi_label)

        return evaluate(method, videos, device=device, predict=predict, draws=draws)

    return Curve("Random gates", tuple(OperatingPoint(usage, at(usage)) for usage in usages))


def with_drawn_gates(
    model: LiteEval, batch: Batch, usage: float, generator: torch.Generator
) -> LiteEvalOutput:
    """Run a batch that was read from a set, in evaluation mode, with gates that are open with probability `usage`.

    Args:
        generator: its initial seed is that of the draw.
    """
    coarse, fine = batch.inputs["coarse"], batch.inputs["fine"]
    assert batch.videos is not None, "gates are drawn by a video's id"
    drawn = DrawnGates(usage, generator.initial_seed())
    gates = torch.empty(len(coarse.data))
    for number, (index, length) in enumerate(zip(batch.indices, lengths_of(coarse).tolist(), strict=True)):
        drawn.begin(batch.videos.ids[index])
        places = packed_rows(coarse, torch.full((length,), number), torch.arange(length))
        gates[places] = torch.from_numpy(drawn.next(length)).float()
    out: LiteEvalOutput = model(coarse, fine, gates=gates.to(coarse.data.device))
    return out


def predicted(out: LiteEvalOutput, multi_label: bool) -> Prediction:
    """Class probabilities and gates of a forward pass."""
    return Prediction(class_probabilities(out.logits, multi_label), out.split(out.gates))


def oracle_curves(curves: Sequence[Curve], *, points: int = 20) -> list[Curve]:
    """The best possible choice among a curve's points for each video, made with the labels known.

    The trade-offs are those of `policy.evaluation.curves.oracle_choices`, at prices in videos per GFLOP; correct
    is top-1, with several classes hit@1. Accuracy and cost both fall as the price rises.

    Args:
        curves: one per seed, each of one draw; any order of points.
        points: how many trade-offs at most; at least 2.

    Returns:
        One for each of `curves`, all with the same prices, which are those of the videos of all curves together:
        points by rising price λ, their value. mAP says little here: it ranks scores of different points against
        each other.

    Raises:
        ValueError: a curve has no points, or more than one draw, or other videos at one point than at another.
    """
    all_options = [[point.predictions for point in curve.points] for curve in curves]
    for options in all_options:
        if not options or any(len(p.scores) != 1 or p.video_ids != options[0].video_ids for p in options):
            raise ValueError("the oracle needs points of one draw each, with the same videos at each")
    cost = np.concatenate([np.stack([p.gflops[0] for p in options]) for options in all_options], axis=1)
    correct = np.concatenate([np.stack([p.correct[0] for p in options]) for options in all_options], axis=1)
    prices, choices = oracle_choices(cost, correct, points)
    starts = np.cumsum([len(options[0].video_ids) for options in all_options])[:-1]
    found = []
    for curve, options, chosen in zip(curves, all_options, np.split(choices, starts, axis=1), strict=True):
        pairs = zip(prices.tolist(), chosen, strict=True)
        by_price = tuple(OperatingPoint(price, _combined(options, choice)) for price, choice in pairs)
        found.append(Curve(f"{curve.name}, oracle", by_price))
    return found


def _check_usages(usages: Sequence[float]) -> None:
    if not all(0 <= usage <= 1 for usage in usages):
        raise ValueError(f"usages must be between 0 and 1, not {list(usages)}")


def _combined(options: Sequence[Predictions], choice: npt.NDArray[np.int64]) -> Predictions:
    """The predictions that take video m from options[choice[m]]."""
    first, videos = options[0], np.arange(len(choice))
    row_choice = np.repeat(choice, first.lengths)
    macs = {
        name: np.stack([option.ledger[name] for option in options])[choice, :, videos].T
        for name in first.ledger
    }
    return replace(
        first,
        scores=np.stack([option.scores[0] for option in options])[choice, videos][None],
        gates=np.stack([option.gates[0] for option in options])[row_choice, np.arange(len(row_choice))][None],
        row_counts=np.stack([option.row_counts for option in options])[choice, videos],
        ledger=Ledger(macs),
    )


def _network(method: Method) -> LiteEval:
    model = method.model
    assert isinstance(model, LiteEval), f"{method.title} has no gates"
    return model
