"""What weakly supervised localization can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cache_schema import UserError
from policy.config import NOT_NEGATIVE, POSITIVE, SHARE, InputNorm, Limit, Precision, RunConfig, option

Proposals = Literal["wtalc", "contrast"]

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

    appearance: str | None = option(None, "Stream with the appearance (RGB) features.", metavar="STREAM")
    motion: str | None = option(None, "Stream with the motion (optical flow) features.", metavar="STREAM")
    hidden: int | None = option(
        None, "Units of the hidden layer; by default as many as input features.", POSITIVE
    )
    dropout: float = option(0.7, "Share of hidden units that a training step leaves out.", _BELOW_ONE)
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
    weight_decay: float = option(5e-4, "Of Adam.", NOT_NEGATIVE)
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
