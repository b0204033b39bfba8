"""The gate threshold at which a trained LiteEval uses a given share, or number, of a video's rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from policy.data.batches import VideoSet, batched, fed
from policy.liteeval.model import LiteEval
from policy.networks.packing import place_of_row

FloatArray = npt.NDArray[np.float64]

PASSES = 50  # over the videos, at most; about five are usual
TOLERANCE = 1e-3  # relative to the target usage


class Usage(NamedTuple):
    """What a model does with videos of N rows in all at one threshold.

    Attributes:
        mean: over videos, of the share, or number, of rows that it opens.
        log_odds: (N,) of opening, in no particular order.
        weights: (N,), what each row adds to `mean` if it opens.
    """

    mean: float
    log_odds: FloatArray
    weights: FloatArray


def calibrated_threshold(
    model: LiteEval,
    videos: VideoSet,
    usage: float,
    *,
    batch: int,
    device: torch.device,
    counted: bool = False,
) -> float:
    """The threshold on the log-odds of opening at which videos have a target mean usage.

    Bisection over the log-odds that occur. If these were fixed, their quantile would be the answer; but a gate
    that opens changes the state, and with it the log-odds of later rows. So the quantile is tried and the videos
    are run again; if it is outside the bracket, the middle between the log-odds inside it is tried instead.
    Usage is a step function of the threshold and may jump over the target: the nearest of the thresholds tried is
    returned.

    Args:
        model: on the device. It is left in evaluation mode, with its threshold unchanged.
        usage: target mean over videos of the share of rows with fine features, in [0, 1].
        batch: videos per batch.
        counted: `usage` is the mean number of such rows instead, of which long videos may have many.
    """
    model.eval()
    before = model.threshold.clone()
    low, high = -np.inf, np.inf  # the usage is above the target at `low`, not at `high`
    threshold, usage_at = 0.0, dict[float, float]()
    for _ in range(PASSES):
        model.threshold.fill_(threshold)
        threshold = float(model.threshold)  # as the model has rounded it
        measured = usage_of(model, videos, batch=batch, device=device, counted=counted)
        usage_at[threshold] = measured.mean
        if abs(measured.mean - usage) <= TOLERANCE * usage:
            break
        low, high = (threshold, high) if measured.mean > usage else (low, threshold)
        threshold = _quantile(measured, usage)
        if not low < threshold < high:
            between = measured.log_odds[(measured.log_odds > low) & (measured.log_odds < high)]
            # Between rows: by a threshold that is a row's log-odds rounding would decide.
            edges = np.unique(between)
            if low == -np.inf:
                edges = np.concatenate([edges[:1] - 1, edges])
            if high == np.inf:
                edges = np.concatenate([edges, edges[-1:] + 1])
            if len(edges) < 2:
                break
            threshold = float(edges[len(edges) // 2 - 1 : len(edges) // 2 + 1].mean())
        if np.float32(threshold) in usage_at:
            break
    model.threshold.copy_(before)
    return min(usage_at, key=lambda threshold: (abs(usage_at[threshold] - usage), abs(threshold)))


@torch.no_grad()
def usage_of(
    model: LiteEval, videos: VideoSet, *, batch: int, device: torch.device, counted: bool = False
) -> Usage:
    """Run a model in evaluation mode on videos, at its current threshold; rows are `counted`, or a share."""
    means, log_odds, weights = [], [], []
    for part in fed(videos, batched(range(len(videos)), batch), device):
        out = model(part.inputs["coarse"], part.inputs["fine"])
        place, lengths = place_of_row(out.batch_sizes)
        usage = out.usage.double().cpu().numpy()
        of_row = np.ones(len(place)) if counted else 1 / lengths[place].double().numpy()
        means.append(usage * [videos.length(index) for index in part.indices] if counted else usage)
        log_odds.append(out.log_odds.double().cpu().numpy())
        weights.append(of_row / len(videos))
    return Usage(float(np.concatenate(means).mean()), np.concatenate(log_odds), np.concatenate(weights))


def _quantile(measured: Usage, usage: float) -> float:
    """The threshold for a target usage if all log-odds were fixed: midway between the last row that opens and the
    first that stays closed."""
    order = np.argsort(-measured.log_odds, kind="stable")
    falling = measured.log_odds[order]
    edges = np.concatenate([falling[:1] + 1, falling, falling[-1:] - 1])
    cumulative = np.concatenate([[0.0], np.cumsum(measured.weights[order])])
    open_count = int(np.argmin(np.abs(cumulative - usage)))
    return float(edges[open_count : open_count + 2].mean())
