"""`--heads linear`: a linear classifier fitted on a stream's features, out of fold for the training videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cache_schema import CacheError, Stream, UserError
from cache_schema.command import count
from policy.data.batches import RowChoice, VideoSet
from policy.data.groups import stratified_folds
from policy.networks.macs import linear_macs
from policy.networks.standardize import Standardize
from policy.networks.temperature import Calibration, calibration_sample
from policy.selection.least_squares import Linear, moments, ridge_regression
from policy.selection.pool import BoolArray, FloatArray, Floats, IntArray

_RIDGES = (100.0, 10.0, 1.0, 0.1, 0.01)
"""Tried in turn for as long as the error falls; the features have variance 1."""
_RIDGE_IN_SAMPLE = 1.0
"""With one fold there is nothing to choose by."""
_PART = 4096


@dataclass(frozen=True)
class WholeHead:
    """The head fitted on all training videos, which judges all others; it needs neither cache nor labels."""

    scale: Standardize
    linear: Linear
    calibration: Calibration

    @property
    def macs(self) -> int:
        """D·C once per video, for the mean of its rows; the standardisation folds into weights and bias."""
        return linear_macs(*self.linear.weights.shape)

    def __call__(self, features: Floats) -> Floats:
        """(M, D), means over a video's rows, to (M, C) class probabilities."""
        return self.calibration(self.linear(scaled(self.scale, features)))

    def tensors(self, stream: str) -> dict[str, Tensor]:
        """By name, for a file that may have the heads of other streams, too."""
        return {
            f"{stream}/mean": self.scale.mean,
            f"{stream}/std": self.scale.std,
            f"{stream}/weights": torch.from_numpy(self.linear.weights),
            f"{stream}/bias": torch.from_numpy(self.linear.bias),
            **self.calibration.tensors(stream),
        }

    @staticmethod
    def of(tensors: Mapping[str, Tensor], stream: str, *, multi_label: bool) -> WholeHead:
        """The inverse of `tensors`. Raises KeyError where this stream's are not among them."""
        mean, std, weights, bias = (
            tensors[f"{stream}/{part}"] for part in ("mean", "std", "weights", "bias")
        )
        scale = Standardize(len(mean))
        scale.load_state_dict({"mean": mean, "std": std})
        linear = Linear(weights.numpy(), bias.numpy())
        return WholeHead(scale, linear, Calibration.of(tensors, stream, multi_label=multi_label))


@dataclass(frozen=True)
class LinearHead:
    """Classifies the mean of the features of a video's rows, standardised over the training videos.

    Least squares with a ridge, and a calibration; both are fitted to scores out of fold. A training video is
    judged by the head that was fitted without its fold, any other by the one fitted on all of them. The folds
    share the mean and variance of each feature, the ridge and the calibration: few numbers, which know no video.

    Attributes:
        whole: the one fitted on all training videos.
        folds: the head fitted without each fold; of a single fold, the one fitted on it.
        fold_of: by id of a training video.
    """

    stream: Stream
    whole: WholeHead
    folds: tuple[Linear, ...]
    fold_of: Mapping[str, int]

    def macs(self, rows: IntArray) -> IntArray:
        """Of `WholeHead`, for each video."""
        return np.full_like(rows, self.whole.macs)

    def probabilities(self, videos: VideoSet, which: Sequence[int], rows: RowChoice) -> Floats:
        features = mean_features(self.stream, videos, which, rows, needed_by="--heads linear")
        fold = np.array([self.fold_of.get(videos.ids[video], len(self.folds)) for video in which], np.int64)
        heads = *self.folds, self.whole.linear
        return self.whole.calibration(_by_fold(heads, fold, scaled(self.whole.scale, features)))


def fit_linear_head(
    stream: Stream, videos: VideoSet, rows: RowChoice, *, folds: int, seed: int
) -> LinearHead:
    """Fit on training videos.

    Args:
        folds: see `assign_folds`; with 1 a head judges the videos that it was fitted on, which is optimistic.

    Raises:
        UserError: there are fewer videos than folds.
    """
    features = mean_features(stream, videos, range(len(videos)), rows, needed_by="--heads linear")
    scale = Standardize(features.shape[1])
    scale.fit(features[start : start + _PART] for start in range(0, len(features), _PART))
    features = scaled(scale, features)
    targets = videos.trained_labels
    fold = assign_folds(targets, folds, seed, videos.groups)
    parts = [moments(features[fold == k], targets[fold == k]) for k in range(folds)]
    whole = sum(parts[1:], parts[0])
    if folds == 1:
        head = ridge_regression(whole, _RIDGE_IN_SAMPLE)
        heads: tuple[Linear, ...] = (head,)
    else:
        ridge, heads = _best_ridge(features, targets, fold, whole, parts)
        head = ridge_regression(whole, ridge)
    sample = calibration_sample(targets)
    predicted = _by_fold(heads, fold[sample], features[sample])
    calibration = Calibration.fit(predicted, targets[sample], videos.multi_label)
    fold_of = dict(zip(videos.ids, fold.tolist(), strict=True))
    return LinearHead(stream, WholeHead(scale, head, calibration), heads, fold_of)


def _best_ridge(
    features: Floats, targets: BoolArray, fold: IntArray, whole: FloatArray, parts: Sequence[FloatArray]
) -> tuple[float, tuple[Linear, ...]]:
    """The ridge of least squared error out of fold, and the heads with it.

    Args:
        whole, parts: `moments` of all videos, and of each fold.
    """
    least, best = np.inf, (_RIDGES[0], tuple[Linear, ...]())
    for ridge in _RIDGES:
        heads = tuple(ridge_regression(whole - part, ridge) for part in parts)
        error = 0.0
        for start in range(0, len(fold), _PART):
            of = slice(start, start + _PART)
            predicted = _by_fold(heads, fold[of], features[of])
            error += float(np.square(predicted - targets[of]).sum(dtype=np.float64))
        if error >= least:
            break
        least, best = error, (ridge, heads)
    return best


def _by_fold(heads: Sequence[Linear], fold: IntArray, features: Floats) -> Floats:
    """(m, C): scores of each video by the head of its fold."""
    predicted = np.empty((len(fold), len(heads[0].bias)), np.float32)
    for number in np.unique(fold):
        predicted[fold == number] = heads[number](features[fold == number])
    return predicted


def assign_folds(targets: BoolArray, folds: int, seed: int, groups: Sequence[str] = ()) -> IntArray:
    """(M,): a fold for each video, drawn at random: folds of equal size, with equally many videos of each class.

    Both hold up to one video; with groups, as nearly as these allow. A video of several classes counts for the
    rarest of them. The only video, or group, of a class is judged by a head fitted on no example: to it the class
    is as likely as one that no video has.

    Args:
        targets: (M, C).
        groups: M, equal for videos that are in the same fold; empty where each is on its own.

    Raises:
        UserError: there are fewer videos, or groups, than folds.
    """
    if len(targets) < folds:
        raise UserError(f"--folds {folds}: only {count(len(targets), 'videos')} to train on")
    counts = targets.sum(axis=0)
    rarest = np.where(targets, counts, len(targets) + 1).argmin(axis=1)
    if groups and folds > 1:
        return stratified_folds(groups, rarest, folds, seed)
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    by_class = shuffled[np.argsort(rarest[shuffled], kind="stable")]
    fold = np.empty(len(targets), np.int64)
    fold[by_class] = np.arange(len(targets)) % folds
    return fold


def mean_features(
    stream: Stream, videos: VideoSet, which: Sequence[int], rows: RowChoice, *, needed_by: str
) -> Floats:
    """(m, D): of the videos at positions `which`, each the mean over the chosen rows.

    Args:
        needed_by: the option that needs them.

    Raises:
        CacheError: the stream has none, because scores alone were imported, or they are not finite.
    """
    if not stream.spec.feature_dim:
        raise CacheError(
            f"stream {stream.name!r} has no features, only class scores, and {needed_by} needs features"
        )
    means = np.empty((len(which), stream.spec.feature_dim), np.float32)
    for mean, video in zip(means, which, strict=True):
        videos.features_of(stream, video, rows).mean(axis=0, dtype=np.float32, out=mean)
    return means


def scaled(scale: Standardize, features: Floats) -> Floats:
    """(M, D), standardised."""
    return np.asarray((features - scale.mean.numpy()) / scale.std.numpy(), np.float32)
