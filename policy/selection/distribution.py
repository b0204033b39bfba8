"""Which models the affinities of training videos name, α by α: what a selector is told, before it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policy.selection.config import SelectorConfig
from policy.selection.pool import PoolTable
from policy.selection.targets import affinities

FloatArray = npt.NDArray[np.float64]

PAPER = (5e-5, 5e-3)
"""Range of α in Sec. 4.2."""
ALPHAS = (0.0, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.05, 0.5, 5.0)


@dataclass(frozen=True)
class LabelDistribution:
    """Affinities of M videos for N models at one α.

    Attributes:
        shares: (N,), share of the videos labelled with each model; of soft affinities their mean.
        gflops: mean 10⁹ MACs per video, were each judged by the model it is labelled with (of soft affinities:
            drawn by them), and by no other. A selector adds its own model.
        top1: in [0, 1], of the same. The labels know the answers: no selector comes to it.
    """

    alpha: float
    shares: tuple[float, ...]
    gflops: float
    top1: float


def label_distributions(
    table: PoolTable, config: SelectorConfig, alphas: Sequence[float] = ALPHAS
) -> list[LabelDistribution]:
    """For each α, with all else as the configuration has it."""
    said = []
    for alpha in alphas:
        weights = affinities(table, config, alpha)
        said.append(
            LabelDistribution(
                alpha=alpha,
                shares=tuple(weights.mean(axis=0).tolist()),
                gflops=float((weights * table.macs).sum(axis=1).mean() / 1e9),
                top1=float((weights * table.correct).sum(axis=1).mean()),
            )
        )
    return said


def relabelled(table: PoolTable, config: SelectorConfig, low: float, high: float) -> float:
    """Share of the videos labelled otherwise at one α than at another; of soft affinities the share of their
    weight that lies elsewhere."""
    moved = np.abs(affinities(table, config, low) - affinities(table, config, high))
    return float(moved.sum(axis=1).mean() / 2)


def describe_affinities(table: PoolTable, config: SelectorConfig, alphas: Sequence[float]) -> dict[str, Any]:
    """The label distributions, and how good each model is, ready for JSON."""
    return {
        "videos": len(table),
        "models": list(table.models),
        "model_gflops": (table.mean_macs / 1e9).tolist(),
        "model_top1": table.correct.mean(axis=0).tolist(),
        "affinity": config.affinity,
        "alphas": [asdict(row) for row in label_distributions(table, config, alphas)],
        "relabelled_between": list(PAPER),
        "relabelled": relabelled(table, config, *PAPER),
    }
