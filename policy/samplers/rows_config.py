"""Options of the methods that choose rows by saliency, or stop when they are sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from policy.config import (
    NOT_NEGATIVE,
    PART,
    POSITIVE,
    CoarseConfig,
    DropoutConfig,
    FineConfig,
    RunConfig,
    option,
)


@dataclass(frozen=True, kw_only=True)
class FurtherStreamsConfig:
    further_streams: tuple[str, ...] = option(
        (), "Further stream that is read, beside those above; repeat it.", flag="--stream", metavar="STREAM"
    )


@dataclass(frozen=True, kw_only=True)
class FittedAtOnceConfig(RunConfig):
    """Of methods of which nothing is trained by gradient descent."""

    by_descent = False
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    batch: int = option(32, "Videos that are judged at a time.", POSITIVE)


@dataclass(frozen=True, kw_only=True)
class ExitRowsConfig:
    frames: int = option(
        10,  # FrameExit's released configurations
        "T, uniformly spaced rows per video, read from the middle, both ends, then the middles of the widest "
        "gaps.",
        POSITIVE,
        sets_cost=True,
        beyond="exits after more are left out",
    )


@dataclass(frozen=True, kw_only=True)
class FrameExitConfig(DropoutConfig, ExitRowsConfig, FurtherStreamsConfig, FineConfig, RunConfig):
    """FrameExit: rows in a fixed order until a gate says that they are enough.

    Features of a row, of all streams side by side, pass a layer and are pooled with those before by their maximum;
    after each row there are a classifier and a gate. On a cache the backbones are as they were extracted: the
    authors fine-tuned theirs with the rest. One training has many budgets (train-policy evaluate --budget).

    \b
    Example:
      train-policy frame-exit --cache CACHE --labels labels.csv --fine resnet101_224 --beta 1e-2 \\
        --out runs/frame-exit
    """

    method = "frame-exit"
    tuned = ("lr", "weight_decay", "beta", "dropout")
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"input_norm": "none"},
        "released": {"input_norm": "none", "row_hidden": 4096},
    }

    beta: float = option(
        1e-2,  # on HVU 1e-2 and 1e-3 (Jain et al., Table 1); for its curves 1e-6 to 1e-2, as we know the paper
        "β: a gate learns to stop after t rows where the loss is at most β·exp(t/2); a higher one stops earlier.",
        POSITIVE,
        search=(1e-6, 1e-2),
        sets_cost=True,
    )
    row_hidden: int = option(
        1024,  # ours, for small collections; several times as quick as the 4096 of the released code
        "Units of the layer on a row's features; the authors have 4096.",
        POSITIVE,
    )
    first_confidence: float = option(
        0.99,
        "After the first row, which has no gate, it stops where the largest class probability is higher; the "
        "authors have 0.99 for ActivityNet and 0.95 for Mini-Kinetics.",
        PART,
        sets_cost=True,
    )


@dataclass(frozen=True, kw_only=True)
class TopRowsConfig(FurtherStreamsConfig, FineConfig, CoarseConfig, RunConfig):
    top_rows: int = option(
        10,  # SCSampler's, as we know the paper, and AR-Net's code for it (--top_k)
        "K, rows of a video that are looked at in the fine stream.",
        POSITIVE,
        sets_cost=True,
        beyond="all of them are looked at",
    )


@dataclass(frozen=True, kw_only=True)
class SCSamplerConfig(DropoutConfig, TopRowsConfig):
    """SCSampler: class scores of the K rows that cheap features say are most salient, averaged.

    Saliency is learned from how the fine stream scores each row of the training videos. Cheap features are those
    of the coarse stream and of further ones (--stream), side by side. Class scores are the fine stream's, where
    the cache has them for the classes of the labels; else a linear classifier is fitted, by cross-validation.
    On a cache the cheap backbones are as they were extracted: the authors trained theirs.

    \b
    Example:
      train-policy scsampler --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --top-rows 10 --out runs/scsampler
    """

    method = "scsampler"
    tuned = ("lr", "weight_decay", "saliency=ranking,classes", "saliency_hidden", "dropout")
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"input_norm": "none"}}

    saliency: Literal["ranking", "classes"] = option(
        "ranking",  # SAL-RANK and AC, as we know the paper
        "What makes a row salient. ranking: trained to order a video's rows as the fine stream's scores of its "
        "class do; classes: the largest class probability of a classifier of cheap rows.",
    )
    saliency_hidden: int = option(128, "Units between cheap features and saliency.", POSITIVE)  # ours
    ranking_margin: float = option(
        1.0, "By how much the more salient of two rows is to be ahead, with ranking.", NOT_NEGATIVE
    )  # ours; AR-Net's code for it has 0


@dataclass(frozen=True, kw_only=True)
class MotionDifferenceConfig(FittedAtOnceConfig, TopRowsConfig):
    """Training-free: class scores of the K rows around which cheap features change most, averaged.

    The change at a row is the mean distance of its cheap features (of the coarse stream and of further ones) from
    those of its neighbours. Class scores are the fine stream's, where the cache has them for the classes of the
    labels; else a linear classifier is fitted, which is all that is.

    \b
    Example:
      train-policy motion-difference --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --top-rows 10 --out runs/motion-difference
    """

    method = "motion-difference"
    tuned = ("top_rows", "input_norm=standard,l2")


@dataclass(frozen=True, kw_only=True)
class ConfidenceExitConfig(FittedAtOnceConfig, ExitRowsConfig, FurtherStreamsConfig, FineConfig):
    """Training-free: rows in FrameExit's order, until the largest class probability is high enough.

    With further streams (--stream) all rows of the cheapest one are read first, then those of the next dearer one.
    Class scores are the streams', where the cache has them for the classes of the labels; else linear classifiers
    are fitted, which is all that is, with a temperature for each step.

    \b
    Example:
      train-policy confidence-exit --cache CACHE --labels labels.csv --fine resnet101_224 \\
        --stream mobilenetv2_112 --confidence 0.9 --out runs/confidence-exit
    """

    method = "confidence-exit"
    tuned = ("confidence", "frames", "input_norm=standard,l2")

    confidence: float = option(
        0.9,
        "It stops where the largest class probability is higher.",
        PART,
        search=(0.5, 0.99),
        sets_cost=True,
    )
