"""Options of LiteEval, of its variant with REINFORCE and of its random control.

Values without a source are the paper's; docs/recipes.md compares them with those of the authors' released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import click

from cache_schema import UserError
from policy.config import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Cell,
    CoarseConfig,
    FineConfig,
    FineHiddenConfig,
    GateState,
    Precision,
    ReadoutConfig,
    RunConfig,
    StepTrainingConfig,
    option,
)

UsageLoss = Literal["video", "batch", "constrained"]
LamGrowth = Literal["linear", "step"]


@dataclass(frozen=True, kw_only=True)
class PenaltyConfig:
    """γ and λ of Eq. 7. Sec. 4.1: λ = 2."""

    gamma: float = option(
        0.05, "Target usage of fine features (Eq. 7).", SHARE, search=(0.02, 0.5), sets_cost=True
    )
    lam: float = option(2.0, "Weight of the usage penalty (Eq. 7).", NOT_NEGATIVE, search=(0.5, 200))
    lam_start: float | None = option(
        None, "λ at the beginning, growing towards --lam; by default --lam.", NOT_NEGATIVE
    )
    lam_growth: LamGrowth = option(
        "linear",
        "linear: from --lam-start to --lam over the epochs; step: by 1 − exp(−step / epochs) of the way, anew in "
        "each epoch.",
        added=True,
    )


@dataclass(frozen=True, kw_only=True)
class WarmupConfig:
    warmup: float = option(
        0.0,
        "Share of the epochs over which the usage in training falls from 1 to its target.",
        SHARE,
        search=(0, 0.8),
    )


@dataclass(frozen=True, kw_only=True)
class GumbelConfig:
    """Eq. 8, and additions to Eq. 7. Sec. 3.2 anneals τ and gives no values: AR-Net and AdaMML start at 5."""

    tau_start: float = option(5.0, "Gumbel-softmax temperature at the start.", POSITIVE)
    tau_end: float = option(0.5, "Gumbel-softmax temperature at the end.", POSITIVE)
    tau_decay: float | None = option(
        None, "Let it fall by exp(-this) each step instead, anew in each epoch.", NOT_NEGATIVE
    )
    noise: float = option(1.0, "Scale of the Gumbel noise.", NOT_NEGATIVE)
    usage_loss: UsageLoss = option(
        "video",
        "video: Eq. 7; batch: for the mean of a batch; constrained: a learned multiplier, and a gate threshold "
        "that makes the usage of the training videos γ; both count gates without noise.",
    )
    # As in `StepTrainingConfig`, but not added: runs of all versions have it.
    step_loss: float = option(
        0.0, "Weight of the classification loss averaged over all steps.", NOT_NEGATIVE, search=(0, 3)
    )


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Distillation (Hinton et al., 2015)."""

    distill: float = option(
        0.0, "Weight of a teacher's opinion of the training videos; needs --teacher.", NOT_NEGATIVE
    )
    distill_tau: float = option(2.0, "Temperature of that comparison.", POSITIVE)
    teacher: str | None = option(
        None,
        "The teacher: run folder of a finished run on the same videos.",
        type=click.Path(exists=True, file_okay=False),
    )


@dataclass(frozen=True, kw_only=True)
class CoarseHiddenConfig:
    coarse_hidden: int = option(64, "Units of the coarse LSTM.", POSITIVE)  # Sec. 4.1, on ActivityNet


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ReadoutConfig, FineHiddenConfig, CoarseHiddenConfig):
    sync: bool = option(
        True, "Copy the coarse state where the gate is closed (Eq. 5).", flag="--sync/--no-sync"
    )
    cell: Cell = option("lstm", "Recurrent networks (Table 6).")
    # The learned layer: batch norm, linear, batch norm, ReLU.
    coarse_projection: int = option(
        0, "Width of a learned layer before the coarse features; 0: none.", NOT_NEGATIVE
    )
    fine_projection: int = option(0, "The same for the fine features.", NOT_NEGATIVE)
    # Eq. 2 has the hidden state.
    gate_state: GateState = option("hidden", "What the gate sees of the fine network's state.")
    precision: Precision = option("float32", "Of matrix products in training.")

    def check_together(self) -> None:
        if self.gate_state != "hidden" and self.cell == "gru":
            raise UserError(
                f"gate-state must be hidden with a GRU, which has no cell state, not {self.gate_state}"
            )


@dataclass(frozen=True, kw_only=True)
class LiteEvalConfig(
    NetworkConfig,
    TeacherConfig,
    GumbelConfig,
    StepTrainingConfig,
    WarmupConfig,
    PenaltyConfig,
    FineConfig,
    CoarseConfig,
    RunConfig,
):
    method = "liteeval"
    tuned = ("lr", "usage_loss", "lam", "warmup", "step_loss")

    def check_together(self) -> None:
        super().check_together()
        if self.distill > 0 and self.teacher is None:
            raise UserError(
                "distill needs a teacher: a finished run on the same videos, of lstm-cf for example"
            )
        if self.teacher is not None and not self.distill:
            raise UserError("a teacher has no say without distill: give it a weight, 1 for example")


@dataclass(frozen=True, kw_only=True)
class LiteEvalRLConfig(
    NetworkConfig, StepTrainingConfig, WarmupConfig, PenaltyConfig, FineConfig, CoarseConfig, RunConfig
):
    method = "liteeval-rl"
    tuned = ("lr", "lam", "warmup")


@dataclass(frozen=True, kw_only=True)
class RandomUsageConfig:
    usage: float | None = option(None, "Probability that a gate opens.", SHARE, sets_cost=True)
    gate_draws: int = option(10, "Draws of the gates that the metrics are averaged over.", POSITIVE)


@dataclass(frozen=True, kw_only=True)
class RandomGatingConfig(
    NetworkConfig, StepTrainingConfig, WarmupConfig, RandomUsageConfig, FineConfig, CoarseConfig, RunConfig
):
    method = "random-gating"
    tuned = ("lr", "weight_decay", "warmup")


GatedConfig: TypeAlias = LiteEvalConfig | LiteEvalRLConfig | RandomGatingConfig
"""The configurations of methods with LiteEval's network."""
