"""Null control: LiteEval's network with gates that open at random, as often as LiteEval's do."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cache_schema import UserError
from policy.config import RunConfig
from policy.data.batches import Batch, VideoSet
from policy.data.opening import Dataset
from policy.evaluation.operating import Curve, OperatingTarget, TargetKind
from policy.liteeval.budgets import USAGES, predicted, random_curve, with_drawn_gates
from policy.liteeval.config import RandomGatingConfig
from policy.liteeval.gate import DrawnGates
from policy.liteeval.method import GatedMethod
from policy.liteeval.model import LiteEvalOutput
from policy.method import Calibration, Losses, Moment, Prediction, draw_seed, row_offsets
from policy.training.losses import classification_loss


class RandomGating(GatedMethod):
    """Trained and evaluated with gates that open independently with probability `usage`.

    In training that probability descends to `usage` as LiteEval's target does to γ, where `warmup` is given.
    What LiteEval gains over it is what knowing *when* to look is worth.

    In evaluation, the gates of a video follow from the seed, the number of the draw and the video's id
    (`DrawnGates`). A session opens those of the first draw.
    """

    title = "Random gating"
    operating_targets: ClassVar[tuple[TargetKind, ...]] = ("usage", "budget")
    direct_target = "usage"

    config: RandomGatingConfig

    def __init__(self, config: RandomGatingConfig, data: Dataset) -> None:
        super().__init__(config, data)
        if config.usage is None:
            raise UserError("random gating needs the usage to match: give it LiteEval's")
        self.final_usage = config.usage
        self.model.gate.requires_grad_(False)

    @classmethod
    def cost_target(cls, config: RunConfig) -> OperatingTarget | None:
        assert isinstance(config, RandomGatingConfig)
        return None if config.usage is None else OperatingTarget("usage", config.usage)

    @classmethod
    def drawn_gates(cls, config: RunConfig) -> DrawnGates:
        assert isinstance(config, RandomGatingConfig) and config.usage is not None
        return DrawnGates(config.usage, draw_seed(config.seed, 0))

    def value_at(self, target: OperatingTarget, calibration: Calibration, device: torch.device) -> float:
        ((_, videos),) = calibration
        return self.fine_rows_within(target.value, videos) / float(np.diff(row_offsets(videos)).mean())

    @property
    def value_name(self) -> str:
        return "probability of opening a gate"

    def set_value(self, value: float, target: OperatingTarget) -> None:
        self.final_usage, self.config = value, replace(self.config, usage=value)

    @property
    def draws(self) -> int:
        return self.config.gate_draws

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        usage = self.target_usage(moment.progress)
        coarse, dropout = batch.inputs["coarse"], self.config.dropout
        gates: Tensor = (torch.rand(len(coarse.data), generator=generator) < usage).float()
        gates = gates.to(coarse.data.device)
        out: LiteEvalOutput = self.model(
            coarse, batch.inputs["fine"], gates=gates, generator=generator, dropout=dropout
        )
        loss = classification_loss(out.logits, batch.targets)
        losses: Losses = {"loss": loss, "usage": out.usage.mean(), "target_usage": usage}
        return self.with_step_loss(losses, out, batch)

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        return predicted(with_drawn_gates(self.model, batch, self.final_usage, generator), self.multi_label)

    def operating_curve(self, videos: VideoSet, calibration: VideoSet, *, device: torch.device) -> Curve:
        curve = random_curve(self, videos, USAGES, device=device, draws=self.draws)
        return replace(curve, name=self.title)
