"""Class probabilities of single rows, for methods that train nothing else on what they judge by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cache_schema import StreamSpec
from policy.baselines.uniform import FrameClassifier, classifier_macs, fit_classifier, score_columns
from policy.data.batches import HalfArray, Role, VideoSet, uniform_rows
from policy.method import IntArray, class_probabilities
from policy.networks.standardize import fit_scale, unit_rows

FITTED_ON = 25
"""Uniformly spaced rows of each training video to which a classifier is fitted, as many as Uniform's."""


class RowJudge(nn.Module):
    """Those of rows of a stream: of its class scores, where it has those of the classes, or of a linear classifier
    of its features, regularised by cross-validation.

    Attributes:
        columns: of the class scores, which are read then; None: features are.
        macs: of a row.
    """

    frames: FrameClassifier

    def __init__(self, spec: StreamSpec, classes: Sequence[str], *, multi_label: bool) -> None:
        super().__init__()
        self.columns = score_columns(spec, classes)
        if self.columns is None:
            self.frames = FrameClassifier(spec.feature_dim, len(classes)).requires_grad_(False)
        self.macs = classifier_macs(spec, classes)
        self.multi_label = multi_label

    def forward(self, rows: Tensor) -> Tensor:
        """(..., D) features or (..., C') class scores to class probabilities (..., C)."""
        logits = self.frames(rows) if self.columns is None else rows[..., self.columns].float()
        return class_probabilities(logits, self.multi_label)

    def graph_inputs(self, spec: StreamSpec, rows: int) -> dict[str, Tensor]:
        """Examples of what an exported network gets of rows of its stream."""
        if self.columns is None:
            return {"features": torch.zeros(rows, spec.feature_dim)}
        return {"scores": torch.zeros(rows, spec.num_classes)}

    def of_graph(self, features: Tensor | None, scores: Tensor | None, *, l2: bool) -> Tensor:
        """`forward` in an exported network, of whichever it gets; `l2`: features are brought to length 1 first."""
        rows = scores if features is None else unit_rows(features) if l2 else features
        assert rows is not None
        return self.forward(rows)

    def fit_scale(self, videos: VideoSet, role: Role) -> None:
        """To features of the training videos."""
        if self.columns is None:
            fit_scale(self.frames.scale, videos, role, _fitted_rows)

    def fit(
        self, videos: VideoSet, role: Role, seed: int
    ) -> Iterator[tuple[IntArray, Callable[[Tensor], Tensor]]]:
        """Fit the classifier, if there is any to fit.

        Returns:
            For parts of the videos, by position, a judge that was not fitted to them; fitted only if it is wanted.
            Class scores of the cache are taken as they are. A single video is in no part.
        """
        if self.columns is not None:
            return iter([(np.arange(len(videos)), self)])
        others = fit_classifier(self.frames, videos, role, _fitted_rows, seed)
        return ((np.flatnonzero(mask), self._by(frames)) for mask, frames in others)

    def rows_of(self, videos: VideoSet, role: Role, index: int) -> HalfArray:
        """What it reads of all rows of a video."""
        return (videos.features if self.columns is None else videos.scores)(role, index)

    def _by(self, frames: FrameClassifier) -> Callable[[Tensor], Tensor]:
        return lambda rows: class_probabilities(frames(rows), self.multi_label)


def notes_on_scores(specs: Iterable[StreamSpec], classes: Sequence[str]) -> Iterator[str]:
    """What to know of class scores that are judged by as they are."""
    for spec in specs:
        if score_columns(spec, classes) is not None:
            yield (
                f"class scores of {spec.name} are taken as they are: if its network was trained on the training "
                "videos, it is surer of these than of others, and what is learned from that is worth less"
            )


def _fitted_rows(length: int) -> IntArray:
    return uniform_rows(length, FITTED_ON)
