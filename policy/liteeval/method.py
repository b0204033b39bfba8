"""LiteEval as a method that is trained and judged like the others."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch

from cache_schema import UserError
from policy.config import RunConfig
from policy.data import Batch, Dataset, Role
from policy.liteeval.loss import liteeval_loss
from policy.liteeval.model import LiteEval, LiteEvalOutput
from policy.method import TRAINING_OPTIONS, IntArray, Losses, Method, Moment, Prediction, class_probabilities
from policy.scales import fit_scale

NETWORK_OPTIONS = frozenset(
    {
        "coarse_hidden",
        "fine_hidden",
        "sync",
        "cell",
        "coarse_projection",
        "fine_projection",
        "gate_state",
        "precision",
    }
)
"""What decides the network."""


class LiteEvalMethod(Method):
    """Sec. 3 of the paper."""

    title = "LiteEval"
    roles: ClassVar[tuple[Role, ...]] = ("coarse", "fine")
    options = (
        TRAINING_OPTIONS
        | NETWORK_OPTIONS
        | {"gamma", "lam", "lam_start", "usage_loss", "warmup"}
        | {"tau_start", "tau_end", "tau_decay", "noise", "step_loss", "distill", "distill_tau", "teacher"}
    )

    model: LiteEval

    def __init__(self, config: RunConfig, data: Dataset) -> None:
        super().__init__(config, data)
        self.final_usage = config.gamma
        if config.coarse_hidden > config.fine_hidden:
            raise UserError(
                f"coarse-hidden ({config.coarse_hidden}) must not exceed fine-hidden ({config.fine_hidden}): "
                "the coarse state is copied into the fine one (Eq. 5)"
            )
        streams = data.train.streams
        self.model = LiteEval(
            coarse_dim=streams["coarse"].spec.feature_dim,
            fine_dim=streams["fine"].spec.feature_dim,
            num_classes=len(data.classes),
            coarse_hidden=config.coarse_hidden,
            fine_hidden=config.fine_hidden,
            sync=config.sync,
            cell=config.cell,
            coarse_projection=config.coarse_projection,
            fine_projection=config.fine_projection,
            gate_state=config.gate_state,
            precision=config.precision,
        )
        if config.input_norm == "standard":
            fit_scale(self.model.coarse_scale, data.train, "coarse")
            fit_scale(self.model.fine_scale, data.train, "fine")

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        tau = self.temperature(moment)
        gamma = self.target_usage(moment.progress)
        out = self.model(batch.inputs["coarse"], batch.inputs["fine"], temperature=tau, generator=generator)
        loss = liteeval_loss(out.logits, out.usage, batch.targets, gamma=gamma, lam=self.config.lam)
        return {
            "loss": loss.total,
            "classification": loss.classification,
            "usage": out.usage.detach().mean(),
            "tau": tau,
            "target_usage": gamma,
        }

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        out: LiteEvalOutput = self.model(batch.inputs["coarse"], batch.inputs["fine"])
        return Prediction(class_probabilities(out.logits, self.multi_label), out.split(out.gates))

    def network_macs(self, seen: IntArray, fine: IntArray) -> IntArray:
        cost = self.model.cost
        return np.array(
            [cost.total(steps=int(s), opened=int(o)) for s, o in zip(seen, fine, strict=True)], np.int64
        )

    def temperature(self, moment: Moment) -> float:
        """τ, falling exponentially from its start to its end: over the training, or step by step in each epoch."""
        start, end, decay = self.config.tau_start, self.config.tau_end, self.config.tau_decay
        if decay is not None:
            return max(end, start * math.exp(-decay * moment.step))
        return float(start * (end / start) ** moment.progress)

    def target_usage(self, progress: float) -> float:
        """The final usage, γ, after a linear descent from 1 during the share `warmup` of the training.

        The descent is our addition, off by default. With it the fine LSTM learns what the fine features say
        before the gate learns to do without them. It helped where classes are hard to tell apart in short
        videos, and did harm where a few of many frames matter (on synthetic features).
        """
        if progress >= self.config.warmup:
            return self.final_usage
        return 1 - (1 - self.final_usage) * progress / self.config.warmup
