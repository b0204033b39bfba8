"""What weakly supervised localization can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cache_schema import UserError
from policy.config import NOT_NEGATIVE, POSITIVE, SHARE, InputNorm, Limit, Precision, RunConfig, option

Proposals = Literal["wtalc", "contrast"]
ClipTarget = Literal["affinity", "pseudo-labels", "disparity"]
ClipInput = Literal["features", "features+activations"]
ClipAnswer = Literal["motion", "both"]

_SEVERAL = Limit("must be at least 2", lambda value: value >= 2)
PAPER_BETA = 0.7
"""Sec. 5.2: "we choose our default motion-affinity and β = 0.7 here on"."""
_BELOW_ONE = Limit("must be at least 0 and less than 1", lambda value: 0 <= value < 1)


@dataclass(frozen=True, kw_only=True)
class ProposalsConfig:
    proposals: Proposals = option(
        "wtalc",
        "wtalc: clips above the middle of a class's range in the video, as W-TALC localizes; contrast: many "
        "thresholds, scored by inner minus outer contrast, with soft-NMS.",
    )
    action_bytes: bool = option(
        False,
        "ActionBytes post-processing: proposals of what lies between abrupt changes of the features, and ends "
        "moved to these (our reading; there is no public code).",
    )


@dataclass(frozen=True, kw_only=True)
class WTALCConfig(ProposalsConfig, RunConfig):
    """W-TALC: actions found in time by a network that is trained on the labels of whole videos.

    Trained on one stream, or on appearance and motion side by side. Segments are read only to judge it. Defaults
    are those of the authors' released code, whose 100,000 steps are 200 epochs of 500.

    \b
    Example:
      train-policy wtalc --cache CACHE --labels labels.csv \\
        --appearance i3d_rgb_dense16 --motion i3d_flow_dense16 --out runs/wtalc
    """

    method = "wtalc"
    tuned = ("lr", "weight_decay", "dropout", "mil_weight")

    appearance: str | None = option(None, "Stream with the appearance (RGB) features.", metavar="STREAM")
    motion: str | None = option(None, "Stream with the motion (optical flow) features.", metavar="STREAM")
    hidden: int | None = option(
        None, "Units of the hidden layer; by default as many as input features.", POSITIVE
    )
    dropout: float = option(
        0.7, "Share of hidden units that a training step leaves out.", _BELOW_ONE, search=(0, 0.9)
    )
    pairs: int = option(3, "Pairs of videos of one class in each batch, for the co-activity loss.", POSITIVE)
    max_clips: int = option(
        750, "Clips of a video in a training step; of a longer one a random stretch.", POSITIVE
    )
    mil_weight: float = option(
        0.5, "Weight of the multiple-instance loss; the co-activity loss has the rest.", SHARE
    )
    margin: float = option(0.5, "Of the co-activity loss, between cosine distances.", NOT_NEGATIVE)
    epoch_steps: int = option(
        500, "Steps of an epoch: batches are drawn with replacement, so that an epoch is no pass.", POSITIVE
    )
    precision: Precision = option("float32", "Of the hidden layer's matrix products.")

    epochs: int = option(200, "Of --epoch-steps steps each.", POSITIVE)
    batch: int = option(10, "Videos per step: the pairs, the others drawn from all.", POSITIVE)
    weight_decay: float = option(5e-4, "Of Adam.", NOT_NEGATIVE, search=(1e-6, 1e-2))
    input_norm: InputNorm = option(
        "none",
        "none: as extracted; standard: zero mean, unit variance per feature over the training videos; l2: each "
        "clip to length 1.",
    )

    def check_together(self) -> None:
        if self.batch < 2 * self.pairs:
            raise UserError(
                f"batch must be at least {2 * self.pairs}, for {self.pairs} pairs, not {self.batch}"
            )
        if self.appearance is not None and self.appearance == self.motion:
            raise UserError(f"appearance and motion are both {self.appearance}: give it once")


@dataclass(frozen=True, kw_only=True)
class LocalizationSelectorConfig(ProposalsConfig, RunConfig):
    """Clip selection: for each clip, whether the motion model is worth what it costs.

    Both models are finished runs of wtalc on the same videos, each on its stream alone. A perceptron on the
    appearance stream learns where they disagree (Conditional Model Selection, Sec. 3.3); the motion stream's
    backbone runs on the clips that it chooses, and nowhere else.

    \b
    Example:
      train-policy wtalc --cache CACHE --labels labels.csv --appearance x3d_m_dense16 --out runs/rgb
      train-policy wtalc --cache CACHE --labels labels.csv --motion i3d_flow_dense16 --out runs/motion
      train-policy localization-selector --cache CACHE --labels labels.csv \\
        --appearance x3d_m_dense16 --appearance-run runs/rgb \\
        --motion i3d_flow_dense16 --motion-run runs/motion --budget 40 --out runs/selector
    """

    method = "localization-selector"

    appearance: str | None = option(
        None,
        "Stream of the cheap model, whose rows are computed for all clips.",
        metavar="STREAM",
        required=True,
    )
    motion: str | None = option(
        None, "Stream of the expensive model, for the clips that need it.", metavar="STREAM", required=True
    )
    appearance_run: str | None = option(
        None,
        "Run folder of a finished wtalc run on the appearance stream alone.",
        metavar="RUN",
        required=True,
        is_run=True,
    )
    motion_run: str | None = option(
        None,
        "Run folder of a finished wtalc run on the motion stream alone.",
        metavar="RUN",
        required=True,
        is_run=True,
    )
    beta: float | None = option(
        None,
        "Share of a training video's clips that motion is taught for (β); by default what the budget pays for, as "
        f"Sec. 3.3 has it, and without a budget {PAPER_BETA:g}.",
        SHARE,
    )
    target: ClipTarget = option(
        "affinity",
        "affinity: the further a clip's disparity is from the video's threshold, the more it counts (Eq. 4); "
        "pseudo-labels: all clips count alike; disparity: the disparity itself is the likelihood of motion, "
        "without β (our addition).",
    )
    selector_input: ClipInput = option(
        "features",
        "What the selector sees of a clip: the appearance stream's row, or its class activations, too.",
    )
    selector_hidden: int = option(256, "Units of the selector's hidden layer.", POSITIVE)
    threshold: float | None = option(
        None, "Confidence in motion from which a clip uses it; by default 0.5.", SHARE
    )
    budget: float | None = option(
        None,
        "Mean GFLOPs per clip, all included; finds the threshold on training videos, each judged by a selector "
        "that has not seen it.",
        POSITIVE,
        metavar="GFLOPS",
    )
    folds: int = option(5, "Of a budget: into so many parts training videos are divided for that.", _SEVERAL)
    answer: ClipAnswer = option(
        "motion",
        "Of a clip for which both models ran: motion: the chosen model answers, as in the paper; both: the mean "
        "of the two.",
    )

    epochs: int = option(20, "Passes over the training videos.", POSITIVE)
    batch: int = option(8, "Videos per step, with all of their clips.", POSITIVE)
    lr: float = option(1e-3, "Learning rate of Adam.", POSITIVE)
    input_norm: InputNorm = option(
        "standard",
        "Of the selector. standard: zero mean, unit variance per input over the training videos; l2: each clip to "
        "length 1, as both runs must have it then; none: as extracted.",
    )

    def check_together(self) -> None:
        if self.appearance is not None and self.appearance == self.motion:
            raise UserError(f"appearance and motion are both {self.appearance}: there is nothing to choose")
        if self.threshold is not None and self.budget is not None:
            raise UserError("give --threshold or --budget, which sets the threshold")
