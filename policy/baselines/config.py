"""What the methods that LiteEval is compared with can be asked for."""

from __future__ import annotations

from dataclasses import dataclass

from policy.config import (
    NOT_NEGATIVE,
    POSITIVE,
    CoarseConfig,
    FineConfig,
    FineHiddenConfig,
    RunConfig,
    option,
)


@dataclass(frozen=True, kw_only=True)
class FramesConfig:
    frames: int = option(25, "K, uniformly spaced frames per video.", POSITIVE)  # Sec. 4.2.1


@dataclass(frozen=True, kw_only=True)
class GlimpsesConfig:
    # Table 1: 29.9 and 32.9 GFLOPs, 4 frames at 7.82.
    glimpses: int = option(4, "K of FrameGlimpse: how many times it looks.", POSITIVE)
    location_std: float = option(
        0.1,
        "Of FrameGlimpse: spread of the locations drawn in training, as a share of the video.",
        POSITIVE,
    )


@dataclass(frozen=True, kw_only=True)
class JumpsConfig:
    strides: int = option(6, "Of FastForward: how many strides it chooses from, 1, 2, 4, … frames.", POSITIVE)
    frame_price: float = option(
        0.01, "Of FastForward: what a frame after the first takes off a reward of at most 1.", NOT_NEGATIVE
    )


@dataclass(frozen=True, kw_only=True)
class UniformConfig(FramesConfig, FineConfig, RunConfig):
    method = "uniform"


@dataclass(frozen=True, kw_only=True)
class UniformCFConfig(FramesConfig, FineConfig, CoarseConfig, RunConfig):
    method = "uniform-cf"


@dataclass(frozen=True, kw_only=True)
class FineLSTMConfig(FineHiddenConfig, FramesConfig, FineConfig, RunConfig):
    method = "lstm"


@dataclass(frozen=True, kw_only=True)
class CoarseFineLSTMConfig(FineHiddenConfig, FramesConfig, FineConfig, CoarseConfig, RunConfig):
    method = "lstm-cf"


@dataclass(frozen=True, kw_only=True)
class CoarseOnlyConfig(FineHiddenConfig, CoarseConfig, RunConfig):
    method = "coarse-only"


@dataclass(frozen=True, kw_only=True)
class FrameGlimpseConfig(FineHiddenConfig, GlimpsesConfig, FineConfig, RunConfig):
    method = "frame-glimpse"


@dataclass(frozen=True, kw_only=True)
class FastForwardConfig(FineHiddenConfig, JumpsConfig, FineConfig, RunConfig):
    method = "fast-forward"
