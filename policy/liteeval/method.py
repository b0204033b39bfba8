"""LiteEval as a method that is trained and judged like the others."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cache_schema import UserError
from policy.data.batches import Batch, Role, VideoSet
from policy.data.opening import Dataset
from policy.liteeval.calibration import calibrated_threshold
from policy.liteeval.config import GatedConfig, LiteEvalConfig, LiteEvalRLConfig, RandomGatingConfig
from policy.liteeval.loss import ascend, distillation_loss, liteeval_loss, step_loss
from policy.liteeval.model import LiteEval, LiteEvalOutput
from policy.liteeval.session import NETWORK, LiteEvalSession
from policy.method import IntArray, Losses, Method, Moment, Prediction, class_probabilities
from policy.networks.standardize import fit_scale
from policy.session import Session, TrainedRun
from policy.training.checkpoint import read_weights


class LiteEvalMethod(Method):
    """Sec. 3 of the paper."""

    title = "LiteEval"
    roles: ClassVar[tuple[Role, ...]] = ("coarse", "fine")
    gated = "fine"

    config: GatedConfig
    model: LiteEval

    def __init__(self, config: GatedConfig, data: Dataset) -> None:
        super().__init__(config, data)
        if not isinstance(config, RandomGatingConfig):
            self.final_usage = config.gamma
        self.batch_share = min(1.0, config.batch / len(data.train))
        if config.coarse_hidden > config.fine_hidden:
            raise UserError(
                f"coarse-hidden ({config.coarse_hidden}) must not exceed fine-hidden ({config.fine_hidden}): "
                "the coarse state is copied into the fine one (Eq. 5)"
            )
        dims = {role: data.train.feature_dim(role) for role in data.train.streams}
        self.model = self.network(config, dims["coarse"], dims["fine"], len(data.classes))
        if config.input_norm == "standard":
            fit_scale(self.model.coarse_scale, data.train, "coarse")
            fit_scale(self.model.fine_scale, data.train, "fine")

    @staticmethod
    def network(config: GatedConfig, coarse_dim: int, fine_dim: int, num_classes: int) -> LiteEval:
        """The network that a configuration asks for, without its data."""
        return LiteEval(
            coarse_dim=coarse_dim,
            fine_dim=fine_dim,
            num_classes=num_classes,
            coarse_hidden=config.coarse_hidden,
            fine_hidden=config.fine_hidden,
            sync=config.sync,
            cell=config.cell,
            coarse_projection=config.coarse_projection,
            fine_projection=config.fine_projection,
            gate_state=config.gate_state,
            precision=config.precision,
        )

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session | None:
        coarse, fine = (run.streams[role] for role in cls.roles)
        assert isinstance(run.config, (LiteEvalConfig, LiteEvalRLConfig)), "random gates have no session"
        model = cls.network(run.config, coarse.feature_dim, fine.feature_dim, len(run.classes))
        read_weights(run.weights, model)
        return LiteEvalSession(
            model.to(device),
            coarse,
            fine,
            l2=run.config.input_norm == "l2",
            multi_label=run.multi_label,
            classes=run.classes,
        )

    @property
    def constrained(self) -> bool:
        """Whether γ is kept by a multiplier and a threshold."""
        return isinstance(self.config, LiteEvalConfig) and self.config.usage_loss == "constrained"

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        config = self.config
        assert isinstance(config, LiteEvalConfig)  # the other methods have losses of their own
        tau, gamma = self.temperature(moment), self.target_usage(moment.progress)
        lam = self.penalty_weight(moment.progress)
        coarse = batch.inputs["coarse"]
        out: LiteEvalOutput = self.model(
            coarse, batch.inputs["fine"], temperature=tau, noise_scale=config.noise, generator=generator
        )
        loss = liteeval_loss(
            out.logits, out.usage, batch.targets, gamma=gamma, lam=lam, of_batch=config.usage_loss != "video"
        )
        total, usage = loss.total, out.usage.mean()
        said: dict[str, Tensor | float] = {
            "classification": loss.classification,
            "usage": usage.detach(),
            "tau": tau,
            "target_usage": gamma,
            "lam": lam,
        }
        if self.constrained:
            multiplier = said["multiplier"] = self.model.multiplier.clone()
            total = total + multiplier * (usage - gamma)
        if config.step_loss:
            every_step = said["step_loss"] = step_loss(
                self.model.classifier(out.states), batch.targets, coarse
            )
            total = total + config.step_loss * every_step
        if config.distill:
            assert self.teacher is not None  # set before training (`policy.runs`)
            taught = self.teacher[list(batch.indices)]
            distance = said["distillation"] = distillation_loss(
                out.logits, taught, tau=config.distill_tau, multi_label=self.multi_label
            )
            total = total + config.distill * distance
        return {"loss": total, **said}

    def after_step(self, losses: Losses) -> None:
        if self.constrained:
            ascend(
                self.model.multiplier,
                losses["usage"] - losses["target_usage"],
                # An epoch moves it by λ times its mean gap, however many batches that makes.
                rate=losses["lam"] * self.batch_share,
            )

    def finish(self, videos: VideoSet, device: torch.device) -> None:
        if self.constrained:
            threshold = calibrated_threshold(
                self.model, videos, self.final_usage, batch=self.config.batch, device=device
            )
            self.model.threshold.fill_(threshold)

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        out: LiteEvalOutput = self.model(batch.inputs["coarse"], batch.inputs["fine"])
        return Prediction(class_probabilities(out.logits, self.multi_label), out.split(out.gates))

    def network_macs(self, seen: IntArray, gated: IntArray) -> dict[str, IntArray]:
        cost = self.model.cost
        macs = [cost.total(steps=int(s), opened=int(o)) for s, o in zip(seen, gated, strict=True)]
        return {NETWORK: np.array(macs, np.int64)}

    def temperature(self, moment: Moment) -> float:
        """τ, falling exponentially from its start to its end: over the training, or step by step in each epoch."""
        assert isinstance(self.config, LiteEvalConfig)
        start, end, decay = self.config.tau_start, self.config.tau_end, self.config.tau_decay
        if decay is not None:
            return max(end, start * math.exp(-decay * moment.step))
        return float(start * (end / start) ** moment.progress)

    def penalty_weight(self, progress: float) -> float:
        """λ, growing linearly from `lam_start`, if that is given."""
        assert not isinstance(self.config, RandomGatingConfig)
        start, end = self.config.lam_start, self.config.lam
        return end if start is None else start + (end - start) * progress

    def target_usage(self, progress: float) -> float:
        """The final usage, γ, after a linear descent from 1 during the share `warmup` of the training.

        The descent is our addition, off by default. With it the fine network learns what the fine features say
        before the gate learns to do without them: where a budget is pressed for from the first step, the gate
        opens at the start of a video and nowhere else (docs/better.md).
        """
        if progress >= self.config.warmup:
            return self.final_usage
        return 1 - (1 - self.final_usage) * progress / self.config.warmup
