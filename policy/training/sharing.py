"""Trained policies whose videos share a budget (`policy.evaluation.collection`): how that is found, and judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cache_schema import UserError
from cache_schema.costs import gflops_digits
from policy.data.batches import VideoSet
from policy.evaluation.collection import Sharing, looks
from policy.evaluation.curves import hull_height
from policy.evaluation.metrics import Interval, percentile_interval, resampled_weights, weighted_mean
from policy.evaluation.operating import Curve, OperatingTarget
from policy.evaluation.predictions import Judged, Predictions
from policy.evaluation.rehearsal import Rehearsal
from policy.evaluation.reuse import Reuse
from policy.method import Method

RESAMPLES = 1000


def reuse_of(method: Method, videos: VideoSet) -> Reuse:
    """What of a cheaper point of a method a dearer one need not compute again."""
    gated = videos.streams.get(method.gated) if method.gated is not None else None
    return Reuse(method.is_incremental, gated.name if gated is not None else None)


def check_sharing(method: Method, target: OperatingTarget) -> None:
    """Raises UserError for a method whose videos cannot share a budget."""
    name = method.config.method
    if method.draws > 1:
        raise UserError(f"{target}: {name} cannot share a budget, as it draws at random")
    if not method.has_values and method.operating_targets:
        raise UserError(
            f"{target}: of {name} give --budget: what it chooses, it chooses for each video or clip already"
        )
    if not method.has_values:
        raise UserError(f"{target}: {name} cannot share a budget, as it has one operating point")


def share(method: Method, target: OperatingTarget, calibration: VideoSet, device: torch.device) -> Sharing:
    """How a trained method shares a budget among the videos of a collection.

    Args:
        target: mean GFLOPs per video.
        calibration: videos with labels that it was not trained on: they say how sure its answers are.

    Raises:
        UserError: as `check_sharing`; or it costs more at the least.
    """
    check_sharing(method, target)
    curve = method.operating_curve(calibration, calibration, device=device).by_cost()
    if (least := float(curve.gflops[0])) > target.value:
        raise UserError(
            f"{target}: the least that {method.config.method} comes to is {gflops_digits(least)} GFLOPs per video"
        )
    rehearsal = Rehearsal.of([point.predictions for point in curve.points], reuse_of(method, calibration))
    return rehearsal.sharing(target.value, [point.value for point in curve.points])


@dataclass(frozen=True)
class Shared:
    """What a policy makes of videos that share a budget.

    Attributes:
        curve: the policy at each of its points, for all videos alike.
    """

    predictions: Predictions
    curve: Curve

    @property
    def gain(self) -> Interval:
        """By how many points of top-1 it is above the same policy that spends as much on these videos, but alike:
        above the hull of its curve. The 95 % bootstrap interval is over videos, or groups of them."""
        points = [point.predictions for point in self.curve.points]
        gflops = np.stack([self.predictions.gflops[0], *(each.gflops[0] for each in points)])
        correct = 100.0 * np.stack([self.predictions.correct[0], *(each.correct[0] for each in points)])

        def above(costs: np.ndarray[Any, Any], top1: np.ndarray[Any, Any]) -> float:
            return float(top1[0] - hull_height(costs[1:], top1[1:], costs[0]))

        weights = resampled_weights(gflops.shape[1], RESAMPLES, 0, self.predictions.groups)
        samples = zip(weighted_mean(gflops, weights).T, weighted_mean(correct, weights).T, strict=True)
        value = above(gflops.mean(axis=1), correct.mean(axis=1))
        return percentile_interval(value, np.array([above(*sample) for sample in samples]))

    def as_json(self) -> dict[str, float]:
        """Ready for JSON."""
        gain = self.gain
        return {"gain_top1_points": gain.value, "gain_low": gain.low, "gain_high": gain.high}


def evaluate_shared(method: Method, sharing: Sharing, videos: VideoSet, device: torch.device) -> Shared:
    """Judge a method on videos that share a budget."""
    curve = method.at_values(sharing.values, videos, device=device)
    return Shared(shared_predictions(sharing, curve, reuse_of(method, videos)), curve)


def shared_predictions(sharing: Sharing, curve: Curve, reuse: Reuse) -> Predictions:
    """What is said of videos that share a budget.

    Args:
        curve: the policy at each of its values.
    """
    points = [point.predictions for point in curve.points]
    looked = [looks(each.class_probabilities) for each in points]
    ends = sharing.last_points(looked, points[0].lengths)
    return reuse.answered(points, sharing.rule.start, ends)


def evaluated(method: Method, videos: VideoSet, device: torch.device) -> Judged:
    """What a trained method says of videos, as it is to spend on them."""
    if method.sharing is None:
        return method.evaluate(videos, device=device)
    return evaluate_shared(method, method.sharing, videos, device).predictions
