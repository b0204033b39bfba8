"""LiteEval as a method that is trained and judged like the others, and what methods with its network share."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cache_schema import UserError
from cache_schema.costs import gflops_digits, stream_cost
from policy.baselines.lstm import step_loss
from policy.config import RunConfig, names_of
from policy.data.batches import Batch, Role, VideoSet
from policy.data.opening import Dataset
from policy.evaluation.ledger import charge
from policy.evaluation.operating import Curve, OperatingTarget, TargetKind
from policy.evaluation.predictions import Judged, Predictions
from policy.liteeval.budgets import USAGES, predicted, threshold_curve
from policy.liteeval.calibration import calibrated_threshold
from policy.liteeval.config import GatedConfig, LiteEvalConfig, LiteEvalRLConfig, NetworkConfig
from policy.liteeval.gate import DrawnGates
from policy.liteeval.loss import ascend, distillation_loss, liteeval_loss
from policy.liteeval.model import LiteEval, LiteEvalOutput
from policy.liteeval.session import NETWORK, LiteEvalSession
from policy.method import (
    Calibration,
    IntArray,
    Losses,
    Method,
    Moment,
    Prediction,
    log_loss,
    row_offsets,
)
from policy.networks.packing import mean_per_video
from policy.networks.standardize import fit_scale
from policy.session import Session, TrainedRun
from policy.training.checkpoint import read_weights


class GatedMethod(Method):
    """LiteEval's network (Sec. 3); how its gates come about is left to the methods.

    Attributes:
        final_usage: share of a video's rows that the training should make it use in the end.
    """

    roles: ClassVar[tuple[Role, ...]] = ("coarse", "fine")
    gated = "fine"

    config: GatedConfig
    model: LiteEval
    final_usage: float

    def __init__(self, config: GatedConfig, data: Dataset) -> None:
        super().__init__(config, data)
        if config.coarse_hidden > config.fine_hidden:
            raise UserError(
                f"coarse-hidden ({config.coarse_hidden}) must not exceed fine-hidden ({config.fine_hidden}): "
                "the coarse state is copied into the fine one (Eq. 5)"
            )
        coarse_dim, fine_dim = (data.train.feature_dim(role) for role in self.roles)
        self.model = network(config, coarse_dim, fine_dim, len(data.classes))
        if config.input_norm == "standard":
            fit_scale(self.model.coarse_scale, data.train, "coarse")
            fit_scale(self.model.fine_scale, data.train, "fine")

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session:
        coarse, fine = (run.streams[role] for role in cls.roles)
        model = network(run.config, coarse.feature_dim, fine.feature_dim, len(run.classes))
        read_weights(run.weights, model)
        return LiteEvalSession(
            model.to(device),
            coarse,
            fine,
            l2=run.config.input_norm == "l2",
            multi_label=run.multi_label,
            classes=run.classes,
            drawn=cls.drawn_gates(run.config),
        )

    @classmethod
    def drawn_gates(cls, config: RunConfig) -> DrawnGates | None:
        """What opens the gates of a session at random; None: the model does."""
        return None

    def with_step_loss(self, losses: Losses, out: LiteEvalOutput, batch: Batch) -> Losses:
        """With the loss of the prediction after every step, if it has a weight."""
        weight = self.config.step_loss
        if not weight:
            return losses
        every_step = step_loss(self.model.classifier(out.read), batch.targets, batch.inputs["coarse"])
        return {**losses, "loss": losses["loss"] + weight * every_step, "step_loss": every_step}

    def validates(self, progress: float) -> bool:
        """Only when the usage that is aimed at is the final one."""
        return progress >= self.config.warmup

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        return predicted(self.model(batch.inputs["coarse"], batch.inputs["fine"]), self.multi_label)

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        return {NETWORK: self.model.cost.total(steps=row_counts, opened=gated_counts)}

    def fine_rows_within(self, budget: float, videos: VideoSet) -> float:
        """The mean number of a video's fine rows that a budget in GFLOPs per video pays for, at most all of them.

        Raises:
            UserError: not even videos without any keep the budget.
        """
        lengths = np.diff(row_offsets(videos))

        def gflops(opened: IntArray) -> float:
            rows = {"coarse": lengths, "fine": opened}
            streams = [
                (stream.name, rows[role], stream_cost(stream.spec).macs)
                for role, stream in videos.streams.items()
            ]
            return float(charge(streams, self.network_macs(lengths, opened)).total.mean() / 1e9)

        least, most = gflops(np.zeros_like(lengths)), gflops(lengths)
        if budget < least:
            raise UserError(
                f"--budget {budget:g}: the least that is possible is {gflops_digits(least)} GFLOPs per video, of "
                "the coarse stream and the gate, which see all rows"
            )
        return float(min((budget - least) / (most - least), 1.0) * lengths.mean())

    def target_usage(self, progress: float) -> float:
        """The final usage, after a linear descent from 1 during the share `warmup` of the training.

        The descent is our addition, off by default. With it the fine network learns what the fine features say
        before the gate learns to do without them: if the budget is enforced from the first step, the gate opens at
        the start of a video and nowhere else (docs/better.md).
        """
        if progress >= self.config.warmup:
            return self.final_usage
        return 1 - (1 - self.final_usage) * progress / self.config.warmup


class LearnedGating(GatedMethod):
    """Gates that are trained to open for a share γ of the rows (Eq. 7).

    Its threshold is on the log-odds of opening: 0 is Algorithm 1, and a higher one opens less.
    """

    operating_targets: ClassVar[tuple[TargetKind, ...]] = ("usage", "threshold", "budget")
    value_buffer = "threshold"

    config: LiteEvalConfig | LiteEvalRLConfig

    def __init__(self, config: LiteEvalConfig | LiteEvalRLConfig, data: Dataset) -> None:
        super().__init__(config, data)
        self.final_usage = config.gamma

    @classmethod
    def cost_target(cls, config: RunConfig) -> OperatingTarget:
        assert isinstance(config, (LiteEvalConfig, LiteEvalRLConfig))
        return OperatingTarget("usage", config.gamma)

    def value_at(self, target: OperatingTarget, calibration: Calibration, device: torch.device) -> float:
        ((_, videos),) = calibration
        counted = target.kind == "budget"
        usage = self.fine_rows_within(target.value, videos) if counted else target.value
        model, batch = self.model.to(device), self.config.batch
        return calibrated_threshold(model, videos, usage, batch=batch, device=device, counted=counted)

    @property
    def value_name(self) -> str:
        return "threshold on the log-odds of opening a gate"

    def operating_curve(self, videos: VideoSet, calibration: VideoSet, *, device: torch.device) -> Curve:
        # A gate that opens changes those after it: on other videos a higher usage may come to a lower one.
        return threshold_curve(self, videos, USAGES, calibration, device=device).by_cost()

    def validation_loss(self, judged: Judged, videos: VideoSet, device: torch.device) -> float:
        """Eq. 7 with the gates of evaluation and the final γ and λ."""
        assert isinstance(judged, Predictions)
        penalty = np.mean((judged.usage - self.final_usage) ** 2)
        return log_loss(judged, videos) + self.config.lam * float(penalty)

    def penalty_weight(self, moment: Moment) -> float:
        """λ, growing from `lam_start`, if that is given."""
        config = self.config
        start, end, by_step = config.lam_start, config.lam, config.lam_growth == "step"
        if start is None:
            return end
        way = 1 - math.exp(-moment.step / config.epochs) if by_step else moment.progress
        return start + (end - start) * way


class LiteEvalMethod(LearnedGating):
    """Gates by Gumbel-softmax, trained on Eq. 7 and what may be added to it."""

    title = "LiteEval"

    config: LiteEvalConfig

    def __init__(self, config: LiteEvalConfig, data: Dataset) -> None:
        super().__init__(config, data)
        self.batch_share = min(1.0, config.batch / len(data.train))

    @property
    def constrained(self) -> bool:
        """Whether γ is kept by a multiplier and a threshold."""
        return self.config.usage_loss == "constrained"

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        config = self.config
        tau, gamma = self.temperature(moment), self.target_usage(moment.progress)
        lam = self.penalty_weight(moment)
        out: LiteEvalOutput = self.model(
            batch.inputs["coarse"],
            batch.inputs["fine"],
            temperature=tau,
            noise_scale=config.noise,
            generator=generator,
            dropout=config.dropout,
        )
        usages = decided_usage(out, batch) if self.constrained else out.usage
        loss = liteeval_loss(
            out.logits, usages, batch.targets, gamma=gamma, lam=lam, of_batch=config.usage_loss != "video"
        )
        total, usage = loss.total, usages.mean()
        parts: dict[str, Tensor | float] = {
            "classification": loss.classification,
            "usage": usage.detach(),
            "tau": tau,
            "target_usage": gamma,
            "lam": lam,
        }
        if self.constrained:
            multiplier = parts["multiplier"] = self.model.multiplier.clone()
            total = total + multiplier * (usage - gamma)
        if config.distill:
            assert self.teacher is not None  # set before training (`policy.runs`)
            distance = parts["distillation"] = distillation_loss(
                out.logits,
                self.teacher[list(batch.indices)],
                tau=config.distill_tau,
                multi_label=self.multi_label,
            )
            total = total + config.distill * distance
        return self.with_step_loss({"loss": total, **parts}, out, batch)

    def after_step(self, losses: Losses) -> None:
        if self.constrained:
            # An epoch moves it by λ times its mean gap, however many batches that makes.
            rate = losses["lam"] * self.batch_share
            ascend(self.model.multiplier, losses["usage"] - losses["target_usage"], rate=rate)

    def finish(self, videos: VideoSet, device: torch.device) -> None:
        if self.constrained:
            threshold = calibrated_threshold(
                self.model, videos, self.final_usage, batch=self.config.batch, device=device
            )
            self.model.threshold.fill_(threshold)

    def validation_loss(self, judged: Judged, videos: VideoSet, device: torch.device) -> float:
        if not self.constrained:
            return super().validation_loss(judged, videos, device)
        assert isinstance(judged, Predictions)
        return log_loss(judged, videos)  # the threshold has set the usage

    def temperature(self, moment: Moment) -> float:
        """τ, falling exponentially from its start to its end: over the training, or step by step in each epoch."""
        start, end, decay = self.config.tau_start, self.config.tau_end, self.config.tau_decay
        if decay is not None:
            return max(end, start * math.exp(-decay * moment.step))
        return float(start * (end / start) ** moment.progress)


def decided_usage(out: LiteEvalOutput, batch: Batch) -> Tensor:
    """(B,) share of rows that each video's gates would open without noise, with the gradient of what they opened.

    Noise opens a few rows of those that a gate is sure about: with ten informative ones in a hundred it may open
    half as many again. A budget that is kept by the gates with noise therefore leaves too little for the rows that
    are worth it, and evaluation, which has no noise, spends less than it may.
    """
    opens = (out.log_odds > 0).to(out.log_odds)[:, None]
    return mean_per_video(opens, batch.inputs["coarse"])[:, 0] + out.usage - out.usage.detach()


def network(config: RunConfig, coarse_dim: int, fine_dim: int, num_classes: int) -> LiteEval:
    """The network of a configuration that has the fields of `NetworkConfig`, which are arguments of `LiteEval`."""
    options = {name: getattr(config, name) for name in names_of(NetworkConfig)}
    return LiteEval(coarse_dim=coarse_dim, fine_dim=fine_dim, num_classes=num_classes, **options)
