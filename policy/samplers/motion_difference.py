"""Motion difference: the rows around which cheap features change most. Nothing decides that would be trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from policy.data.batches import VideoSet
from policy.samplers.salient_rows import SalientRows, SalientRowsMethod
from policy.samplers.shared import FittedAtOnce


class Changes(SalientRows):
    """A row is as salient as its features are far from those of its neighbours, on average."""

    def saliency(self, features: Tensor) -> Tensor:
        steps = self.scale(features).diff(dim=0).norm(dim=1)  # (T − 1,)
        neighbours = F.pad(torch.ones_like(steps), (1, 0)) + F.pad(torch.ones_like(steps), (0, 1))
        return (F.pad(steps, (1, 0)) + F.pad(steps, (0, 1))) / neighbours.clamp_min(1)


class MotionDifference(FittedAtOnce, SalientRowsMethod):
    """Averages class probabilities of the rows around which most changes. Only their classifier is fitted."""

    title = "Motion difference"

    network = Changes

    @property
    def trains(self) -> bool:
        return self.model.fine.columns is None

    def finish(self, videos: VideoSet, device: torch.device) -> None:
        self.model.fine.fit(videos, "fine", self.config.seed)
