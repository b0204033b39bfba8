"""A pool of models whose class scores are in the cache, and what they say of videos."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from policy.selector.affinity import model_losses

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
Masks = npt.NDArray[np.uint32]
"""Sets of models: bit n is model n."""

MOST_MODELS = 16
"""Sets of models are told apart one by one, and there are 2^N of them."""


@dataclass(frozen=True)
class PoolTable:
    """What N models, the cheapest first, say of M videos.

    Attributes:
        models: names of the N models.
        video_ids: M.
        labels: (M, C) bool.
        first: (M,) class index, the one that single-label training takes.
        multi_label: whether losses are binary cross-entropy over all classes, or cross-entropy.
        probabilities: (M, N, C) float32, mean over the rows of a video.
        macs: (M, N), what each model costs on each video, its classifier included.
    """

    models: tuple[str, ...]
    video_ids: tuple[str, ...]
    labels: BoolArray
    first: IntArray
    multi_label: bool
    probabilities: npt.NDArray[np.float32]
    macs: IntArray

    def __len__(self) -> int:
        return len(self.video_ids)

    @cached_property
    def losses(self) -> FloatArray:
        """(M, N): the classification loss of each model on each video, in nats (L_cls of Eq. 2)."""
        targets = self.labels if self.multi_label else self.first
        return model_losses(self.probabilities, targets)

    @cached_property
    def confidence(self) -> FloatArray:
        """(M, N): the largest class probability."""
        return np.asarray(self.probabilities.max(axis=2), np.float64)

    @cached_property
    def correct(self) -> BoolArray:
        """(M, N): whether the best-scored class is one of the video's (with several classes hit@1)."""
        every = np.arange(len(self))
        best = self.probabilities.argmax(axis=2)
        return np.asarray(self.labels[every[:, None], best])

    @cached_property
    def mean_macs(self) -> FloatArray:
        """(N,): mean over the videos."""
        return np.asarray(self.macs.mean(axis=0))

    def spent(self, ran: Masks) -> IntArray:
        """(..., M): MACs of running the sets of models `ran` (..., M)."""
        total = np.zeros(ran.shape, np.int64)
        for n in range(len(self.models)):  # (..., M, N) at once would be large
            total += np.where(ran >> np.uint32(n) & 1, self.macs[:, n], 0)
        return total

    def scores_of(self, answering: Masks) -> npt.NDArray[np.float32]:
        """(M, C): class probabilities of video m, averaged over the models of the set answering[m]."""
        answer = np.empty(self.labels.shape, np.float32)
        for mask in np.unique(answering):
            asked = answering == mask
            members = self.members(int(mask))
            total = self.probabilities[asked, members[0]]
            for n in members[1:]:
                total += self.probabilities[asked, n]
            answer[asked] = total / len(members)
        return answer

    def correct_of(self, answering: Masks) -> BoolArray:
        """(..., M): whether the sets of models answering (..., M) are right together; none is never."""
        right = np.zeros(answering.shape, np.bool_)
        for mask in np.unique(answering):
            right |= (answering == mask) & self._right_together(int(mask))
        return right

    def members(self, mask: int) -> list[int]:
        """The models of a set."""
        return [n for n in range(len(self.models)) if mask >> n & 1]

    @cached_property
    def _known(self) -> dict[int, BoolArray]:
        return {1 << n: self.correct[:, n] for n in range(len(self.models))}

    def _right_together(self, mask: int) -> BoolArray:
        if mask not in self._known:
            answer = self.scores_of(np.full(len(self), mask, np.uint32)).argmax(axis=1)
            self._known[mask] = np.asarray(self.labels[np.arange(len(self)), answer])
        return self._known[mask]


def only(models: npt.NDArray[np.integer] | int) -> Masks:
    """Sets of a single model each."""
    return np.asarray(np.uint32(1) << np.asarray(models, np.uint32), np.uint32)


def all_of(count: int) -> int:
    """The set of all of `count` models."""
    return (1 << count) - 1


__all__ = ["MOST_MODELS", "Masks", "PoolTable", "all_of", "only"]
