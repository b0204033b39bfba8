"""Options of the methods with which LiteEval is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policy.config import (
    NOT_NEGATIVE,
    POSITIVE,
    CoarseConfig,
    FineConfig,
    FineHiddenConfig,
    ReadoutConfig,
    RunConfig,
    StepTrainingConfig,
    option,
)

Classifier = Literal["adam", "cross-validated"]


@dataclass(frozen=True, kw_only=True)
class FramesConfig:
    frames: int = option(
        25,
        "K, uniformly spaced frames per video.",
        POSITIVE,
        sets_cost=True,
        beyond="all of them are looked at",
    )  # Sec. 4.2.1


@dataclass(frozen=True, kw_only=True)
class GlimpsesConfig:
    # Table 1: 29.9 and 32.9 GFLOPs, 4 frames at 7.82.
    glimpses: int = option(
        4,
        "K of FrameGlimpse: how many times it looks.",
        POSITIVE,
        sets_cost=True,
        beyond="it looks at some of them again",
    )
    location_std: float = option(
        0.1, "Of FrameGlimpse: spread of the locations drawn in training, as a share of the video.", POSITIVE
    )


@dataclass(frozen=True, kw_only=True)
class JumpsConfig:
    strides: int = option(6, "Of FastForward: how many strides it chooses from, 1, 2, 4, … frames.", POSITIVE)
    frame_price: float = option(
        0.01,
        "Of FastForward: what a frame after the first takes off a reward of at most 1.",
        NOT_NEGATIVE,
        sets_cost=True,
    )


@dataclass(frozen=True, kw_only=True)
class FrameClassifierConfig:
    classifier: Classifier = option(
        "adam",
        "Of frames. adam: trained like all networks; cross-validated: logistic regression with a penalty chosen "
        "by cross-validation, without --epochs, --lr and the like.",
        added=True,
    )


@dataclass(frozen=True, kw_only=True)
class UniformConfig(FrameClassifierConfig, FramesConfig, FineConfig, RunConfig):
    """Uniform: class scores of K uniformly spaced frames, averaged.

    Uses the cache's class scores where they cover the classes of the labels, else fits a linear classifier.

    \b
    Example:
      train-policy uniform --cache CACHE --labels labels.csv --fine resnet101_224 --frames 25 --out runs/uniform
    """

    method = "uniform"


@dataclass(frozen=True, kw_only=True)
class UniformCFConfig(FrameClassifierConfig, FramesConfig, FineConfig, CoarseConfig, RunConfig):
    """Uniform+CF: as uniform, with the mean of coarse and fine class scores.

    \b
    Example:
      train-policy uniform-cf --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --out runs/uniform-cf
    """

    method = "uniform-cf"


@dataclass(frozen=True, kw_only=True)
class FineLSTMConfig(StepTrainingConfig, FineHiddenConfig, FramesConfig, FineConfig, RunConfig):
    """LSTM: one LSTM over the fine features of K uniformly spaced frames.

    \b
    Example:
      train-policy lstm --cache CACHE --labels labels.csv --fine resnet101_224 --out runs/lstm
    """

    method = "lstm"
    tuned = ("lr", "weight_decay", "readout", "dropout")


@dataclass(frozen=True, kw_only=True)
class CoarseFineLSTMConfig(
    StepTrainingConfig, FineHiddenConfig, FramesConfig, FineConfig, CoarseConfig, RunConfig
):
    """LSTM+CF: one LSTM over coarse and fine features of K uniformly spaced frames.

    \b
    Example:
      train-policy lstm-cf --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --out runs/lstm-cf
    """

    method = "lstm-cf"
    tuned = ("lr", "weight_decay", "readout", "dropout")


@dataclass(frozen=True, kw_only=True)
class CoarseOnlyConfig(StepTrainingConfig, FineHiddenConfig, CoarseConfig, RunConfig):
    """Null control: an LSTM over the coarse features of every frame.

    \b
    Example:
      train-policy coarse-only --cache CACHE --labels labels.csv --coarse mobilenetv2_112 --out runs/coarse-only
    """

    method = "coarse-only"
    tuned = ("lr", "weight_decay", "readout", "dropout")


@dataclass(frozen=True, kw_only=True)
class FrameGlimpseConfig(ReadoutConfig, FineHiddenConfig, GlimpsesConfig, FineConfig, RunConfig):
    """FrameGlimpse: an agent looks at K frames, each time choosing the next from anywhere in the video.

    Trained with REINFORCE. A frame that it looks at again is computed, and charged, once.

    \b
    Example:
      train-policy frame-glimpse --cache CACHE --labels labels.csv --fine resnet101_224 --glimpses 4 \\
        --out runs/frame-glimpse
    """

    method = "frame-glimpse"
    tuned = ("lr", "weight_decay", "location_std", "readout")


@dataclass(frozen=True, kw_only=True)
class FastForwardConfig(ReadoutConfig, FineHiddenConfig, JumpsConfig, FineConfig, RunConfig):
    """FastForward: an agent starts at the first frame and decides at each how far to jump, or to stop.

    Trained with REINFORCE, for recognition minus a price per frame.

    \b
    Example:
      train-policy fast-forward --cache CACHE --labels labels.csv --fine resnet101_224 --frame-price 0.01 \\
        --out runs/fast-forward
    """

    method = "fast-forward"
    tuned = ("lr", "weight_decay", "frame_price", "readout")
