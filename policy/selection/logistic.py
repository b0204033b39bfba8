"""Is one more model worth it? Logistic regressions on how sure models are, and whether they agree.

A regression for each set of models that may have run and for each model that may be next says how likely the
answer is to be right then. They see few numbers, and what they predict for videos that were not among their
examples is known without fitting them again (`fit_stage`): a budget found on that is kept on new videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from scipy.special import expit, logit
from torch import Tensor, nn
from torch.nn import functional

from policy.networks.macs import linear_macs
from policy.selection.network import confidence_features
from policy.selection.pool import LEAST, BoolArray, FloatArray, Floats, IntArray

STRENGTHS = (0.01, 0.1, 1.0)
"""Of the penalty, the inverse: that of least held-out loss is taken."""
FOLDS = 50
"""Of the held-out predictions. With five the regressions would know a fifth less of the classes, and decide so."""
_TOP = 3
_SURE = _TOP + 1
_COUNTED = 5.0
"""Videos that a class is taken to have had, right as often as all, beside its own."""
_LIKELY = 0.01
_UNPENALISED = 1e-6


# --- what is seen ---


def feature_count(models: int) -> int:
    """Numbers that are seen of a set of all the models; of a smaller one less."""
    if models == 1:
        return _SURE
    return _SURE + models * (_SURE + 2) + models * (models - 1) // 2


def stage_features(answer: Tensor, probabilities: Tensor, *, multi_label: bool) -> tuple[Tensor, Tensor]:
    """What is seen of a set of models.

    Args:
        answer: (B, C), class probabilities of the models together.
        probabilities: (B, S, C), of each of them.

    Returns:
        (B, F): the largest logarithms in order and the entropy, of the answer and of each model, what each makes
        of the answer's best class, and which of them agree; (B,) the answer's best class.
    """
    answer, each = (part.clamp(LEAST, 1 - LEAST) for part in (answer, probabilities))
    best = answer.argmax(1)
    seen = [confidence_features(answer, _TOP, multi_label=multi_label)]
    count = each.shape[1]
    if count > 1:
        seen.append(confidence_features(each, _TOP, multi_label=multi_label).flatten(1))
        seen.append(each.log().gather(2, best[:, None, None].expand(-1, count, 1))[..., 0])
        best_of_each = each.argmax(2)
        seen.append((best_of_each == best[:, None]).float())
        pairs = combinations(range(count), 2)
        seen += [(best_of_each[:, a] == best_of_each[:, b]).float()[:, None] for a, b in pairs]
    return torch.cat(seen, 1), best


class StageHeads(nn.Module):
    """N logistic regressions for each of S sets of models that have run.

    Attributes:
        weights: (S, N, F). bias: (S, N).
        of_class: (S, N, C), added where a class is the answer's best one.
        macs: of one look, at any set.
    """

    weights: Tensor
    bias: Tensor
    of_class: Tensor

    def __init__(self, stages: int, models: int, features: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(stages, models, features))
        self.register_buffer("bias", torch.zeros(stages, models))
        self.register_buffer("of_class", torch.zeros(stages, models, classes))
        self.macs = linear_macs(features, models)

    def forward(self, stage: int, features: Tensor, best: Tensor) -> Tensor:
        """(B, N): logits, from `stage_features`."""
        weights = self.weights[stage, :, : features.shape[1]]
        fitted: Tensor = functional.linear(features, weights, self.bias[stage])
        return fitted + self.of_class[stage].T[best]

    def take(self, stage: int, places: list[int], fitted: FittedStage) -> None:
        """Set the regressions of some of the models."""
        count = fitted.weights.shape[1]
        self.weights[stage, places, :count] = torch.from_numpy(fitted.weights).float()
        self.bias[stage, places] = torch.from_numpy(fitted.bias).float()
        self.of_class[stage, places] = torch.from_numpy(fitted.of_class).float()


# --- how it is fitted ---


@dataclass(frozen=True)
class FittedStage:
    """J regressions on M videos.

    Attributes:
        weights: (J, F). bias: (J,). of_class: (J, C).
        held_out: (M, J), the chance that each predicts for a video without having had its fold among its examples.
    """

    weights: FloatArray
    bias: FloatArray
    of_class: FloatArray
    held_out: FloatArray


def fit_stage(
    features: Floats, best: IntArray, right: BoolArray, fold: IntArray, classes: int
) -> FittedStage:
    """Fit regressions to whether answers are right.

    How often they are right where a class is the best one is counted, out of fold, and seen as a further feature.

    Args:
        features: (M, F). best: (M,), the class that each video's answer names.
        right: (M, J). fold: (M,), from 0.
    """
    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    std[std < 1e-6] = 1.0
    scaled = (features - mean) / std
    parts = []
    for column in right.T:
        of_class, seen = _class_rates(best, column, fold, classes)
        inputs = np.column_stack([scaled, seen])
        weights, bias, held_out = min(
            (_fit(inputs, column, fold, strength) for strength in STRENGTHS),
            key=lambda fitted: -np.log(np.where(column, fitted[2], 1 - fitted[2]).clip(LEAST)).mean(),
        )
        slopes = weights[:-1] / std
        parts.append((slopes, bias - slopes @ mean, weights[-1] * of_class, held_out))
    stacked = [np.stack(each) for each in zip(*parts, strict=True)]
    return FittedStage(stacked[0], stacked[1], stacked[2], stacked[3].T)


def _class_rates(
    best: IntArray, right: BoolArray, fold: IntArray, classes: int
) -> tuple[FloatArray, FloatArray]:
    """Log-odds of being right: (C,) where each class is the best; (M,) of each video without its fold."""
    folds, mean = int(fold.max()) + 1, right.mean()
    places = fold * classes + best
    counts = [
        np.bincount(places, of, minlength=folds * classes).reshape(folds, classes)
        for of in (np.ones(len(best)), right.astype(np.float64))
    ]
    totals = [each.sum(axis=0) for each in counts]

    def odds(videos: FloatArray, right_ones: FloatArray) -> FloatArray:
        rates = (right_ones + _COUNTED * mean) / (videos + _COUNTED)
        return np.asarray(logit(rates.clip(_LIKELY, 1 - _LIKELY)))

    held_out = (total[best] - each[fold, best] for total, each in zip(totals, counts, strict=True))
    return odds(*totals), odds(*held_out)


def _fit(
    inputs: FloatArray, right: BoolArray, fold: IntArray, strength: float
) -> tuple[FloatArray, float, FloatArray]:
    """Weights (F,), bias, and held-out chances (M,).

    What the regression would be without a fold is a Newton step from what it is with all (as in approximate
    leave-one-out: Rad and Maleki, 2020): for so few numbers and so small folds nearly exact.
    """
    if right.all() or not right.any():  # there is nothing to tell apart
        chance = (right.sum() + 1) / (len(right) + 2)
        return np.zeros(inputs.shape[1]), float(logit(chance)), np.full(len(right), chance)
    from sklearn.linear_model import LogisticRegression  # half a second, for those that train alone

    fitted = LogisticRegression(C=strength, solver="newton-cholesky").fit(inputs, right)
    rows = np.column_stack([inputs, np.ones(len(inputs))])
    weights = np.append(fitted.coef_[0], fitted.intercept_)
    chances = expit(rows @ weights)
    variances = chances * (1 - chances)
    penalty = np.append(np.full(inputs.shape[1], 1 / strength), _UNPENALISED)
    curvature = (rows * variances[:, None]).T @ rows + np.diag(penalty)
    held_out = np.empty(len(right))
    for number in np.unique(fold):
        out = fold == number
        of_fold = rows[out]
        without = curvature - (of_fold * variances[out, None]).T @ of_fold
        step = np.linalg.solve(without, of_fold.T @ (chances[out] - right[out]))
        held_out[out] = expit(of_fold @ (weights + step))
    return weights[:-1], float(weights[-1]), held_out
