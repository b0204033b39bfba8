"""A linear classifier of frames: logistic regression, regularised as is best on folds of the videos."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from policy.data.groups import random_folds
from policy.method import LEAST_PROBABILITY, IntArray

Floats = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""λ of mean −log p + λ/2 ‖W‖², for features of variance 1, in the order in which they are tried."""
FOLDS = 5
_NEVER = -30.0
"""Logit of a class without a video."""
_ITERATIONS = 200


def fit(
    features: Floats,
    video: IntArray,
    targets: BoolArray,
    *,
    multi_label: bool,
    seed: int,
    groups: Sequence[str] = (),
) -> tuple[Floats, Floats, float]:
    """Weights (C, D), bias (C,) and the penalty that was chosen.

    That is the one with which videos that are held out are likeliest, by the mean class probabilities of their
    frames. Ever weaker ones are tried for as long as that grows.

    Args:
        features: (N, D) of all frames, standardised.
        video: (N,) which of the M videos each is of.
        targets: (M, C), the classes of each video; exactly one of them unless `multi_label`.
        groups: M, equal for videos that are held out together; empty where each is on its own.

    Raises:
        UserError: all videos are of one group.
    """
    fitted = _each_class if multi_label else _softmax
    fold = random_folds(len(targets), FOLDS, seed, groups)
    best, least = PENALTIES[0], np.inf
    for penalty in PENALTIES if fold.max() else ():
        loss = 0.0
        for held_out, weights, bias in _without_folds(features, video, targets, fold, penalty, multi_label):
            rows = held_out[video]
            logits = features[rows] @ weights.T + bias
            loss += _loss(logits, video[rows], targets, multi_label)
        if loss >= least:
            break
        best, least = penalty, loss
    return (*fitted(features, targets[video], best), best)


def fit_without_folds(
    features: Floats,
    video: IntArray,
    targets: BoolArray,
    penalty: float,
    *,
    multi_label: bool,
    seed: int,
    groups: Sequence[str] = (),
) -> Iterator[tuple[BoolArray, Floats, Floats]]:
    """For each fold, which of the M videos are in it, and weights and bias fitted to all others. A single video
    is in none.

    Args:
        features, video, targets, multi_label, seed, groups: as of `fit`, whose folds these are.
        penalty: of all of them.

    Raises:
        UserError: all videos are of one group.
    """
    fold = random_folds(len(targets), FOLDS, seed, groups)
    return _without_folds(features, video, targets, fold, penalty, multi_label)


def _without_folds(
    features: Floats,
    video: IntArray,
    targets: BoolArray,
    fold: IntArray,
    penalty: float,
    multi_label: bool,
) -> Iterator[tuple[BoolArray, Floats, Floats]]:
    for number in range(fold.max() + 1) if fold.max() else ():
        held_out = fold == number
        others = ~held_out[video]
        fitted = _each_class if multi_label else _softmax
        yield (held_out, *fitted(features[others], targets[video[others]], penalty))


def _softmax(features: Floats, targets: BoolArray, penalty: float) -> tuple[Floats, Floats]:
    label = targets.argmax(axis=1)
    classes, dim = targets.shape[1], features.shape[1]
    weights, bias = np.zeros((classes, dim)), np.full(classes, _NEVER)
    present = np.unique(label)
    if len(present) == 1:
        bias[present] = 0.0
        return weights, bias
    model = _regression(features, label, penalty)
    if len(present) == 2:  # scikit-learn has the difference of the two
        weights[present] = np.concatenate([-model.coef_, model.coef_]) / 2
        bias[present] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        weights[present], bias[present] = model.coef_, model.intercept_
    return weights, bias


def _each_class(features: Floats, targets: BoolArray, penalty: float) -> tuple[Floats, Floats]:
    weights, bias = np.zeros((targets.shape[1], features.shape[1])), np.full(targets.shape[1], _NEVER)
    for index, of_class in enumerate(targets.T):
        if of_class.all():
            bias[index] = -_NEVER
        elif of_class.any():
            model = _regression(features, of_class, penalty)
            weights[index], bias[index] = model.coef_[0], model.intercept_[0]
    return weights, bias


def _regression(features: Floats, label: npt.NDArray[Any], penalty: float) -> Any:
    # Half a second, for those that train alone.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # With the weakest penalties the last iterations hardly move the probabilities: what has come about by then
        # is what is compared on the videos held out, and what is kept.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=1 / (penalty * len(features)), max_iter=_ITERATIONS).fit(features, label)


def _loss(logits: Floats, video: IntArray, targets: BoolArray, multi_label: bool) -> float:
    """Sum over videos of −log p of their mean probabilities."""
    of_frame = expit(logits) if multi_label else softmax(logits, axis=1)
    videos, place = np.unique(video, return_inverse=True)
    sums = np.zeros((len(videos), targets.shape[1]))
    np.add.at(sums, place, of_frame)
    p = np.clip(sums / np.bincount(place)[:, None], LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    of_class = targets[videos]
    if multi_label:
        return float(-np.where(of_class, np.log(p), np.log1p(-p)).sum())
    return float(-np.log(p[of_class]).sum())
