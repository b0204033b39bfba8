"""The gate threshold at which a trained LiteEval uses a given share of its rows."""

from __future__ import annotations

from math import inf

import torch

from policy.data import VideoSet, batches
from policy.liteeval.method import LiteEvalMethod

_TOLERANCE = 5e-4  # of the usage: a tenth of what a budget may be missed by
_RESOLUTION = 1e-4  # of the threshold, a log-odds
_PASSES = 40


@torch.no_grad()
def calibrated_threshold(
    method: LiteEvalMethod,
    videos: VideoSet,
    usage: float,
    device: torch.device,
    *,
    tried: dict[float, float] | None = None,
) -> float:
    """Bisect for the threshold on the log-odds of opening at which the mean usage of the videos is `usage`.

    The usage falls with the threshold as a staircase, and not strictly, for what opens changes the states behind
    it: of the thresholds tried, the one whose usage is nearest is returned. The model keeps its own threshold.

    Args:
        videos: the training videos.
        usage: mean over videos of the share of rows with fine features, in [0, 1].
        tried: usages of these videos by threshold, known from other calls; those found are added. Each spares a
            pass over the videos.

    Raises:
        ValueError: the usage is not in [0, 1].
    """
    if not 0 <= usage <= 1:
        raise ValueError(f"usage must be between 0 and 1, not {usage}")
    model = method.model.to(device).eval()
    before = model.threshold.clone()
    tried = {} if tried is None else tried
    tolerance = _TOLERANCE if 0 < usage < 1 else 0.0  # none at all, and all, are meant

    def used(threshold: float) -> float:
        model.threshold.fill_(threshold)
        total = 0.0
        for batch in batches(videos, method.config.batch):
            moved = batch.to(device)
            total += float(model(moved.inputs["coarse"], moved.inputs["fine"]).usage.sum())
        return total / len(videos)

    try:
        for _ in range(_PASSES):
            low = max((at for at, reached in tried.items() if reached > usage), default=-inf)
            high = min((at for at, reached in tried.items() if reached < usage and at > low), default=inf)
            met = any(abs(reached - usage) <= tolerance for reached in tried.values())
            if met or high - low <= _RESOLUTION:
                break
            middle = _between(low, high)
            tried[middle] = used(middle)
    finally:
        model.threshold.copy_(before)
    return min(tried, key=lambda at: (abs(tried[at] - usage), abs(at)))


def _between(low: float, high: float) -> float:
    """The middle; where an end is not known yet, further out on that side."""
    if low == -inf:
        return 0.0 if high == inf else min(-1.0, 4 * high)
    return max(1.0, 4 * low) if high == inf else (low + high) / 2
