"""Model affinity: which model of a pool suits a video best, weighing its loss against its cost (Eq. 1 and 2).

First the targets that a selector learns, then how these label the training videos at each α.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from policy.selection.config import SelectorConfig
from policy.selection.pool import FloatArray, PoolTable

PAPER = (5e-5, 5e-3)
"""Range of α in Sec. 4.2."""
ALPHAS = (0.0, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.05, 0.5, 5.0)


# --- targets of a selector ---


def affinities(table: PoolTable, config: SelectorConfig, alpha: float) -> FloatArray:
    """(M, N): G of Eq. 1 and 2, as the configuration has it but for α.

    F of Eq. 2 is the mean cost of each model, divided by the sum of these; zero where nothing costs anything.
    Hard: 1 for the model of least loss + α·F, else 0; of equal ones the first, the cheapest (Eq. 2).
    Soft: softmax of −(loss + α·F) / τ. Eq. 1 leaves open where G is not binary; this becomes Eq. 2 as τ, in nats,
    goes to 0.
    """
    shares = table.mean_macs / (table.mean_macs.sum() or 1.0)
    weighed = _losses(table, config) + alpha * shares
    if config.affinity == "hard":
        return np.asarray(np.eye(len(table.models))[weighed.argmin(axis=1)])
    return np.asarray(softmax(-weighed / config.affinity_tau, axis=1))


def qualities(table: PoolTable, config: SelectorConfig) -> FloatArray:
    """(M, N), in [0, 1]: exp(−loss), which for a single label is the probability of the right class; with the 0-1
    loss whether a model is right.

    With several labels per video the loss is a mean over classes, and the smaller the more of them there are: it
    is divided by its mean over the videos and models, or all models would seem alike.
    """
    losses = _losses(table, config)
    if config.affinity_loss == "error":
        return 1 - losses
    return np.asarray(np.exp(-losses / losses.mean() if table.multi_label else -losses))


def _losses(table: PoolTable, config: SelectorConfig) -> FloatArray:
    """(M, N): L_cls or (our addition) the 0-1 loss in its place: 1 where a model's best-scored class is wrong."""
    return np.asarray(~table.correct, np.float64) if config.affinity_loss == "error" else table.losses


# --- labels of the training videos, before a selector is trained ---


@dataclass(frozen=True)
class LabelDistribution:
    """Affinities of M videos for N models at one α.

    Attributes:
        shares: (N,), share of the videos labelled with each model; of soft affinities their mean.
        gflops: mean 10⁹ MACs per video, were each judged by the model it is labelled with (of soft affinities:
            drawn by them), and by no other. A selector adds its own model.
        top1: in [0, 1], of the same. The labels know the answers: no selector reaches it.
    """

    alpha: float
    shares: tuple[float, ...]
    gflops: float
    top1: float


def label_distributions(
    table: PoolTable, config: SelectorConfig, alphas: Sequence[float] = ALPHAS
) -> list[LabelDistribution]:
    """For each α, with all else as the configuration has it."""
    distributions = []
    for alpha in alphas:
        weights = affinities(table, config, alpha)
        distributions.append(
            LabelDistribution(
                alpha=alpha,
                shares=tuple(weights.mean(axis=0).tolist()),
                gflops=float((weights * table.macs).sum(axis=1).mean() / 1e9),
                top1=float((weights * table.correct).sum(axis=1).mean()),
            )
        )
    return distributions


def relabelled(table: PoolTable, config: SelectorConfig, low: float, high: float) -> float:
    """Share of the videos whose label differs between two α; of soft affinities the share of the weight."""
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
