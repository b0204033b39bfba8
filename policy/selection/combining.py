"""The answer of several models together: a weighted sum of their log-probabilities.

With equal weights this is their mean. Weights that make the classes of the training videos most likely, fitted for
each set of models, leave out what says nothing new; they are few numbers, which know no video.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import expit, log_softmax

from policy.networks.temperature import less_certain
from policy.selection.config import SelectorAnswer
from policy.selection.pool import (
    AnswerWeights,
    FloatArray,
    Floats,
    PoolTable,
    log_scores,
    mean_weights,
)

_FITTED_ON = 1 << 20
"""Scores of a model, at most, that weights are fitted to."""


def answer_weights(kind: SelectorAnswer, table: PoolTable, sets: Sequence[int]) -> AnswerWeights:
    """The weights with which each of some sets of models answers.

    Args:
        table: of the training videos.
    """
    models = len(table.models)
    weights: dict[int, Floats] = {}
    for mask in sets:
        members = table.members(mask)
        if kind == "weighted":
            weights[mask] = _fitted_weights(table, members)
        else:
            members = members[-1:] if kind == "largest" else members
            weights[mask] = mean_weights(np.isin(np.arange(models), members))
    return weights


def _fitted_weights(table: PoolTable, members: Sequence[int]) -> Floats:
    """(N + 1,)."""
    sample = slice(0, None, -(-table.labels.size // _FITTED_ON))
    probabilities = torch.from_numpy(table.part(sample)[:, members])
    scores = log_scores(probabilities, table.multi_label).numpy().swapaxes(0, 1)
    labels = table.labels if table.multi_label else np.eye(table.labels.shape[1], dtype=np.bool_)[table.first]
    targets = less_certain(labels[sample], table.multi_label).astype(np.float32)

    def loss(at: FloatArray) -> tuple[float, FloatArray]:
        """Cross-entropy, and its gradient."""
        logits = np.tensordot(at[:-1].astype(np.float32), scores, 1) + np.float32(at[-1])
        if table.multi_label:
            value = np.logaddexp(0, logits).sum() - (targets * logits).sum()
            excess = expit(logits) - targets
        else:
            logs = log_softmax(logits, axis=1)
            value, excess = -(targets * logs).sum(), np.exp(logs) - targets
        gradient = np.append(np.tensordot(scores, excess, 2), excess.sum() * table.multi_label)
        return float(value) / len(targets), gradient.astype(np.float64) / len(targets)

    start = np.append(np.full(len(members), 1 / len(members)), 0.0)
    bounds = [(0.0, None)] * len(members) + [(None, None)]
    from scipy.optimize import minimize  # a quarter of a second, for those that train alone

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = np.zeros(len(table.models) + 1, np.float32)
    weights[[*members, -1]] = found
    return weights
