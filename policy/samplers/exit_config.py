"""Options of the methods that stop when they are sure: FrameExit, and exit by confidence."""

from __future__ import annotations

from dataclasses import dataclass

from policy.config import (
    PART,
    POSITIVE,
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
class ExitRowsConfig:
    frames: int = option(
        10,  # FrameExit, Sec. 4, and its released configurations
        "T, uniformly spaced rows per video, read from the middle, both ends, then the middles of the widest "
        "gaps.",
        POSITIVE,
        sets_cost=True,
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

    beta: float = option(
        1e-2,  # Sec. 3.2; the paper draws its curves with 1e-6 to 1e-2
        "β: a gate learns to stop after t rows where the loss is at most β·exp(t/2); a higher one stops earlier.",
        POSITIVE,
        search=(1e-6, 1e-2),
        sets_cost=True,
    )
    row_hidden: int = option(4096, "Units of the layer on a row's features.", POSITIVE)  # released code
    first_confidence: float = option(
        0.99,  # released configurations
        "After the first row, which has no gate, it stops where the largest class probability is higher.",
        PART,
        sets_cost=True,
    )
