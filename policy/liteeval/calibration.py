"""The gate threshold at which a trained LiteEval uses a given share of its rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from policy.data.batches import VideoSet, batches
from policy.liteeval.model import LiteEval
from policy.networks.packing import place_of_row

FloatArray = npt.NDArray[np.float64]

PASSES = 50  # over the videos, at most; some five are usual
TOLERANCE = 1e-3  # relative to the wanted usage


class Usage(NamedTuple):
    """What a model does with videos of N rows in all at one threshold.

    Attributes:
        mean: over videos, of the share of rows that it opens.
        log_odds: (N,) of opening, in no order.
        weights: (N,) share of each row in `mean`, were it opened.
    """

    mean: float
    log_odds: FloatArray
    weights: FloatArray


def calibrated_threshold(
    model: LiteEval, videos: VideoSet, usage: float, *, batch: int, device: torch.device
) -> float:
    """The threshold on the log-odds of opening at which videos have a wanted mean usage.

    Bisection over the log-odds that occur. Were these fixed, their quantile would be the answer; but a gate that
    opens changes the state behind it, and with it the log-odds of later rows. So the quantile is tried, and the
    videos are run again; where it lies outside the thresholds between which the answer must be, the median of what
    lies between them is tried instead. The usage is a staircase of the threshold, and may have no step at the
    wanted height: of the thresholds tried, the nearest is returned.

    Args:
        model: on the device. It is left in evaluation mode, with the threshold it had.
        usage: the wanted mean over videos of the share of rows with fine features, in [0, 1].
        batch: videos per batch.
    """
    model.eval()
    before = model.threshold.clone()
    low, high = -np.inf, np.inf  # the usage is above the wanted one at `low`, not at `high`
    threshold, tried = 0.0, {}
    for _ in range(PASSES):
        model.threshold.fill_(threshold)
        threshold = float(model.threshold)  # as the model has rounded it
        found = usage_of(model, videos, batch=batch, device=device)
        tried[threshold] = found.mean
        if abs(found.mean - usage) <= TOLERANCE * usage:
            break
        low, high = (threshold, high) if found.mean > usage else (low, threshold)
        threshold = _quantile(found, usage)
        if not low < threshold < high:
            between = found.log_odds[(found.log_odds > low) & (found.log_odds < high)]
            if not len(between):
                break
            threshold = float(np.median(between))
        if np.float32(threshold) in tried:
            break
    model.threshold.copy_(before)
    return min(tried, key=lambda one: (abs(tried[one] - usage), abs(one)))


@torch.no_grad()
def usage_of(model: LiteEval, videos: VideoSet, *, batch: int, device: torch.device) -> Usage:
    """Run a model in evaluation mode on videos, at the threshold it has."""
    means, log_odds, weights = [], [], []
    for read in batches(videos, batch):
        moved = read.to(device)
        out = model(moved.inputs["coarse"], moved.inputs["fine"])
        place, lengths = place_of_row(out.batch_sizes)
        means.append(out.usage.double().cpu().numpy())
        log_odds.append(out.log_odds.double().cpu().numpy())
        weights.append(1 / (lengths[place].double().numpy() * len(videos)))
    return Usage(float(np.concatenate(means).mean()), np.concatenate(log_odds), np.concatenate(weights))


def _quantile(found: Usage, usage: float) -> float:
    """Between the log-odds of the last row to open and of the first to stay closed, were they all fixed."""
    order = np.argsort(-found.log_odds, kind="stable")
    falling = found.log_odds[order]
    edges = np.concatenate([falling[:1] + 1, falling, falling[-1:] - 1])
    reached = np.concatenate([[0.0], np.cumsum(found.weights[order])])
    opened = int(np.argmin(np.abs(reached - usage)))
    return float(edges[opened : opened + 2].mean())
