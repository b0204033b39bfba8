"""What a selector is to learn of training videos."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from policy.selection.affinity import hard_affinity, model_errors, normalised_costs, soft_affinity
from policy.selection.config import SelectorConfig
from policy.selection.pool import PoolTable

FloatArray = npt.NDArray[np.float64]


def affinities(table: PoolTable, config: SelectorConfig, alpha: float) -> FloatArray:
    """(M, N): G of Eq. 1 and 2, as the configuration has it but for α."""
    losses = _losses(table, config)
    costs = normalised_costs(table.mean_macs)
    if config.affinity == "hard":
        return hard_affinity(losses, costs, alpha)
    return soft_affinity(losses, costs, alpha, config.affinity_tau)


def qualities(table: PoolTable, config: SelectorConfig) -> FloatArray:
    """(M, N), in [0, 1]: exp(−loss), for a single label the probability that a model gives what is right; with the
    0-1 loss whether it is right.

    With several labels per video the loss is a mean over classes, and the smaller the more of them there are: it
    is divided by its mean over the videos and models, or all models would seem alike.
    """
    losses = _losses(table, config)
    if config.affinity_loss == "error":
        return 1 - losses
    return np.asarray(np.exp(-losses / losses.mean() if table.multi_label else -losses))


def _losses(table: PoolTable, config: SelectorConfig) -> FloatArray:
    return model_errors(table.correct) if config.affinity_loss == "error" else table.losses
