"""A pool of models: their names, and the class probabilities that they give videos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache_schema import UserError
from policy.data.batches import uniform_rows
from policy.method import class_probabilities

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Masks = npt.NDArray[np.uint32]
"""Sets of models: bit n is model n."""
AnswerWeights = Mapping[int, Floats]
"""By set of models, (N + 1,) weights of their answer, as `combined` takes them."""

MOST_MODELS = 16
"""Sets of models are enumerated, and there are 2^N of them."""
LEAST = 1e-7
"""Probabilities are clipped to [LEAST, 1 − LEAST], the range that float32 tells from 0 and 1."""
_PART_BYTES = 1 << 24
"""Of probabilities that are looked at together."""
_VIDEOS_AT_A_TIME = 1024


# --- names ---


@dataclass(frozen=True)
class ModelName:
    """ "x3d_s" or "x3d_s:3".

    Attributes:
        rows: clips or frames of a video, evenly spread; None: all that the cache has.
    """

    stream: str
    rows: int | None = None

    def rows_of(self, length: int, crops: int) -> IntArray:
        """The rows that it looks at of a video of `length` rows; of a clip with several crops all, or none."""
        clips = length // crops
        chosen = uniform_rows(clips, clips if self.rows is None else self.rows)
        return np.asarray((chosen[:, None] * crops + np.arange(crops)).ravel(), np.int64)

    @staticmethod
    def parse(text: str, rows: int | None = None) -> ModelName:
        """Args:
            rows: where the text gives no number.

        Raises:
            UserError: the text is neither STREAM nor STREAM:ROWS.
        """
        stream, colon, count = text.partition(":")
        if not stream or (colon and not (count.isascii() and count.isdigit() and int(count) > 0)):
            raise UserError(
                f"model {text!r}: give STREAM, or STREAM:ROWS with a number of rows, as in x3d_s:3"
            )
        return ModelName(stream, int(count) if colon else rows)


def parse_models(texts: Sequence[str], rows: int | None = None) -> tuple[ModelName, ...]:
    """The models of a pool, in the order given.

    Raises:
        UserError: there are fewer than two or too many, a stream occurs twice, or a text is no model.
    """
    models = tuple(ModelName.parse(text, rows) for text in texts)
    streams = [model.stream for model in models]
    if len(models) < 2:
        given = f"only {streams[0]!r}" if streams else "none"
        raise UserError(
            f"a pool needs at least two models to choose from; given: {given} (--model STREAM, repeated)"
        )
    if len(models) > MOST_MODELS:
        raise UserError(f"a pool of {len(models)} models; at most {MOST_MODELS} are possible")
    for stream in streams:
        if streams.count(stream) > 1:
            raise UserError(f"model {stream!r} is given twice")
    return models


# --- predictions ---


@dataclass(frozen=True)
class PoolTable:
    """Predictions of N models, the cheapest first, for M videos.

    Losses, confidence and correctness are computed from the probabilities part by part, so that a table need not
    have all of these in memory (`policy.selection.opening.CacheTable`).

    Attributes:
        models: names of the N models.
        video_ids: M.
        labels: (M, C) bool.
        first: (M,) class index, the one that single-label training takes.
        multi_label: whether losses are binary cross-entropy over all classes, or cross-entropy.
        probabilities: (M, N, C) float32, mean over the rows of a video.
        macs: (M, N), what each model costs on each video, its classifier included.
        groups: M, equal for videos that belong together; empty where nothing is known of that.
    """

    models: tuple[str, ...]
    video_ids: tuple[str, ...]
    labels: BoolArray
    first: IntArray
    multi_label: bool
    probabilities: Floats
    macs: IntArray
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.video_ids)

    def part(self, videos: slice) -> Floats:
        """(m, N, C): `probabilities` of some of the videos."""
        return self.probabilities[videos]

    def parts(self) -> Iterator[tuple[slice, Floats]]:
        """Consecutive videos, with their probabilities."""
        size = max(1, _PART_BYTES // (4 * len(self.models) * self.labels.shape[1]))
        for start in range(0, len(self), size):
            videos = slice(start, min(start + size, len(self)))
            yield videos, self.part(videos)

    def of_model(self, model: int) -> Floats:
        """(M, C): `probabilities` of one model."""
        return self.probabilities[:, model]

    @property
    def losses(self) -> FloatArray:
        """(M, N): the classification loss of each model on each video, in nats (L_cls of Eq. 2)."""
        return self._judged[0]

    @property
    def confidence(self) -> FloatArray:
        """(M, N): the largest class probability."""
        return self._judged[1]

    @property
    def correct(self) -> BoolArray:
        """(M, N): whether the best-scored class is one of the video's (with several classes hit@1)."""
        return self._judged[2]

    @cached_property
    def mean_macs(self) -> FloatArray:
        """(N,): mean over the videos."""
        return np.asarray(self.macs.mean(axis=0))

    def spent(self, ran: Masks) -> IntArray:
        """(..., M): MACs of running the sets of models `ran` (..., M)."""
        total = np.zeros(ran.shape, np.int64)
        for n in range(len(self.models)):  # (..., M, N) at once would be large
            total += np.where(contains(ran, n), self.macs[:, n], 0)
        return total

    def scores_of(self, answering: Masks, weights: AnswerWeights | None = None) -> Floats:
        """(M, C): class probabilities of video m, the answer of the models of the set answering[m].

        Args:
            weights: of the answer of each set; by default it is the mean of the models.
        """
        answer = np.empty(self.labels.shape, np.float32)
        for videos, probabilities in self.parts():
            for mask in np.unique(answering[videos]).tolist():
                answered = answering[videos] == mask
                answer[videos][answered] = self._answer(probabilities[answered], mask, weights)
        return answer

    def correct_of(self, answering: Masks, weights: AnswerWeights | None = None) -> BoolArray:
        """(..., M): whether the sets of models answering (..., M) are right together; none is never.

        Args:
            weights: as `scores_of` has them.
        """
        masks = np.unique(answering).tolist()
        known = self._correct_sets if weights is None else {0: self._correct_sets[0]}
        new = {mask: np.empty(len(self), np.bool_) for mask in masks if mask not in known}
        for videos, probabilities in self.parts() if new else ():
            every = np.arange(len(probabilities))
            for mask, right in new.items():
                best = self._answer(probabilities, mask, weights).argmax(axis=1)
                right[videos] = self.labels[videos][every, best]
        known.update(new)
        correct = np.zeros(answering.shape, np.bool_)
        for mask in masks:
            correct |= (answering == mask) & known[mask]
        return correct

    def members(self, mask: int) -> list[int]:
        """The models of a set."""
        return [n for n in range(len(self.models)) if mask >> n & 1]

    def _answer(self, probabilities: Floats, mask: int, weights: AnswerWeights | None) -> Floats:
        """(m, N, C) -> (m, C): of the models of a set."""
        members = self.members(mask)
        if weights is None:
            if len(members) == 1:
                return probabilities[:, members[0]]
            of_set = mean_weights(np.isin(np.arange(len(self.models)), members))
        else:
            of_set = weights[mask]
        scores = log_scores(torch.from_numpy(probabilities[:, members]), self.multi_label)
        return combined(scores, torch.from_numpy(of_set[[*members, -1]]), self.multi_label).numpy()

    @cached_property
    def _judged(self) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Losses, confidence, correct: in one pass."""
        targets = self.labels if self.multi_label else self.first
        shape = len(self), len(self.models)
        losses, confidence, correct = np.empty(shape), np.empty(shape), np.empty(shape, np.bool_)
        for videos, probabilities in self.parts():
            losses[videos] = model_losses(probabilities, targets[videos])
            confidence[videos] = probabilities.max(axis=2)
            correct[videos] = np.take_along_axis(self.labels[videos], probabilities.argmax(axis=2), axis=1)
        return losses, confidence, correct

    @cached_property
    def _correct_sets(self) -> dict[int, BoolArray]:
        """By set of models, (M,): whether they are right together; filled by `correct_of`."""
        alone = {1 << n: self.correct[:, n] for n in range(len(self.models))}
        return {0: np.zeros(len(self), np.bool_), **alone}


def model_losses(probabilities: Floats, targets: IntArray | BoolArray) -> FloatArray:
    """L_cls of Eq. 2 (Sec. 3.2).

    Args:
        probabilities: (M, N, C) of N models.
        targets: (M,) class indices: cross-entropy. (M, C) bool: binary cross-entropy, the mean over the classes.

    Returns:
        (M, N), in nats.
    """
    if targets.ndim == 1:
        right = probabilities[np.arange(len(targets)), :, targets]
        return np.asarray(-np.log(right.astype(np.float64).clip(LEAST, None)))
    losses = np.empty(probabilities.shape[:2])
    for start in range(0, len(losses), _VIDEOS_AT_A_TIME):
        part = slice(start, start + _VIDEOS_AT_A_TIME)
        p = probabilities[part].astype(np.float64).clip(LEAST, 1 - LEAST)
        losses[part] = -np.where(targets[part, None], np.log(p), np.log1p(-p)).mean(axis=2)
    return losses


# --- answers of several models ---


def log_scores(probabilities: Tensor, multi_label: bool) -> Tensor:
    """(…, C) -> (…, C): log-probabilities or, with several classes per video, log-odds."""
    clipped = probabilities.clamp(LEAST, 1 - LEAST)
    return clipped.logit() if multi_label else clipped.log()


def combined(scores: Tensor, weights: Tensor, multi_label: bool) -> Tensor:
    """(B, C): class probabilities of the answer of N models: a weighted sum of their scores (a logarithmic opinion
    pool: Heskes, 1998).

    Args:
        scores: (B, N, C), as `log_scores` returns them.
        weights: (N + 1,) or (B, N + 1): of the models, 0 of those without a say; then what log-odds are moved by.
    """
    total = (weights[..., :-1, None] * scores).sum(-2)
    return class_probabilities(total + weights[..., -1:] if multi_label else total, multi_label)


def mean_weights(members: BoolArray) -> Floats:
    """(…, N + 1): the weights with which `combined` is the mean of the members (…, N) of sets."""
    counts = members.sum(axis=-1, keepdims=True)
    return np.concatenate([members / counts.clip(1), np.zeros_like(counts)], axis=-1, dtype=np.float32)


# --- sets of models ---


def only(models: npt.NDArray[np.integer] | int) -> Masks:
    """Sets of a single model each."""
    return np.asarray(np.uint32(1) << np.asarray(models, np.uint32), np.uint32)


def all_of(count: int) -> int:
    """The set of all of `count` models."""
    return (1 << count) - 1


def contains(masks: Masks | int, models: npt.NDArray[np.integer] | int) -> BoolArray:
    """Whether each set has a model: of shapes that broadcast against each other."""
    return np.asarray(masks >> np.asarray(models, np.uint32) & 1, np.bool_)


def membership(masks: Masks, models: int) -> BoolArray:
    """(..., N): the sets as rows of truth values."""
    return contains(masks[..., None], np.arange(models))
