"""The gate threshold at which a trained LiteEval uses a given share of its rows."""

from __future__ import annotations

import torch

from policy.data import VideoSet, batches
from policy.liteeval.method import LiteEvalMethod

_HALVINGS = 24
_TOLERANCE = 5e-4  # of the usage


@torch.no_grad()
def calibrated_threshold(
    method: LiteEvalMethod, videos: VideoSet, usage: float, device: torch.device
) -> float:
    """Bisect for the threshold on the log-odds of opening at which the mean usage of the videos is `usage`.

    The usage falls with the threshold as a staircase, and not strictly, for what opens changes the states behind
    it: of the thresholds tried, the one whose usage is nearest is returned.

    Args:
        videos: the training videos.
        usage: mean over videos of the share of rows with fine features, in [0, 1].

    Raises:
        ValueError: the usage is not in [0, 1].
    """
    if not 0 <= usage <= 1:
        raise ValueError(f"usage must be between 0 and 1, not {usage}")
    model = method.model.to(device).eval()
    before = model.threshold.clone()
    tried: dict[float, float] = {}

    def used(threshold: float) -> float:
        model.threshold.fill_(threshold)
        total = 0.0
        for batch in batches(videos, method.config.batch):
            moved = batch.to(device)
            total += float(model(moved.inputs["coarse"], moved.inputs["fine"]).usage.sum())
        tried[threshold] = total / len(videos)
        return tried[threshold]

    try:
        low, high = -1.0, 1.0
        while used(low) < usage and low > -1e6:
            low *= 4
        while used(high) > usage and high < 1e6:
            high *= 4
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            reached = used(middle)
            if abs(reached - usage) <= _TOLERANCE:
                break
            low, high = (middle, high) if reached > usage else (low, middle)
    finally:
        model.threshold.copy_(before)
    return min(tried, key=lambda threshold: (abs(tried[threshold] - usage), abs(threshold)))
