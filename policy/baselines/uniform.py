"""Uniform and Uniform+CF: class scores of K uniformly spaced frames, averaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cache_schema import StreamSpec
from policy.baselines import cross_validated
from policy.baselines.config import UniformCFConfig, UniformConfig
from policy.baselines.cross_validated import BoolArray, Floats
from policy.baselines.even_rows import EvenRows
from policy.baselines.session import FixedRowsSession, graph_facts
from policy.data.batches import Batch, Role, RowChoice, VideoSet, uniform_rows
from policy.data.opening import Dataset
from policy.method import IntArray, Losses, Moment, Prediction, class_probabilities
from policy.networks.macs import linear_macs
from policy.networks.packing import mean_per_video, video_of_row
from policy.networks.standardize import Standardize, fit_scale, unit_rows
from policy.session import Graph, Session, TrainedRun
from policy.training.checkpoint import read_weights
from policy.training.losses import classification_loss

CLASSIFIER = "frame classifier"
"""Its name in the ledger of costs."""


class FrameClassifier(nn.Module):
    """Scaled features -> linear classifier, frame by frame."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.scale = Standardize(dim)
        self.classifier = nn.Linear(dim, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> logits (N, C)."""
        logits: Tensor = self.classifier(self.scale(features))
        return logits


class Uniform(EvenRows):
    """Averages the class probabilities of the fine backbone over K uniformly spaced frames.

    If the stream has scores for all target classes, by name, these are used: the softmax is over their logits
    only. Otherwise a linear classifier is fitted to the features of the training videos' K frames, each frame an
    example of its video's class, as the papers fine-tune their backbones (Sec. 4.1). It stays that of this K where
    K is changed.
    """

    title = "Uniform"
    fits_at_once = True
    roles: ClassVar[tuple[Role, ...]] = ("fine",)

    config: UniformConfig | UniformCFConfig
    model: nn.ModuleDict

    def __init__(self, config: UniformConfig | UniformCFConfig, data: Dataset) -> None:
        super().__init__(config, data)
        self.model = nn.ModuleDict()
        self.columns: dict[Role, list[int]] = {}
        self.classifier_macs = 0
        for role in self.roles:
            spec = data.train.streams[role].spec
            self.classifier_macs += classifier_macs(spec, data.classes)
            columns = score_columns(spec, data.classes)
            if columns is not None:
                self.columns[role] = columns
                continue
            classifier = FrameClassifier(data.train.feature_dim(role), len(data.classes))
            if config.input_norm == "standard":
                fit_scale(classifier.scale, data.train, role, self.rows)
            self.model[role] = classifier
        if config.classifier != "adam":
            self.model.requires_grad_(False)

    @property
    def trains(self) -> bool:
        return len(self.model) > 0

    @classmethod
    def class_scores(cls, data: Dataset) -> str:
        return ", ".join(source_of_scores(data.train.streams[role].spec, data.classes) for role in cls.roles)

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session:
        config = run.config
        assert isinstance(config, (UniformConfig, UniformCFConfig)), (
            "the methods of this family have no other"
        )
        specs = {role: run.streams[role] for role in cls.roles}
        columns = {
            role: found
            for role, spec in specs.items()
            if (found := score_columns(spec, run.classes)) is not None
        }
        model = nn.ModuleDict(
            {
                role: FrameClassifier(spec.feature_dim, len(run.classes))
                for role, spec in specs.items()
                if role not in columns
            }
        )
        read_weights(run.weights, model)
        model.to(device).eval()
        macs = sum(classifier_macs(spec, run.classes) for spec in specs.values())

        def predict(rows: Mapping[Role, Tensor]) -> Tensor:
            logits = [row_logits(model, columns, role, rows[role].to(device)) for role in cls.roles]
            return torch.stack([class_probabilities(each, run.multi_label).mean(0) for each in logits]).mean(
                0
            )

        l2 = config.input_norm == "l2"

        def graphs() -> Sequence[Graph]:
            inputs = {
                f"{role}_scores" if role in columns else role: torch.zeros(
                    3, spec.num_classes if role in columns else spec.feature_dim
                )
                for role, spec in specs.items()
            }
            answer = _Answer(model, columns, l2, run.multi_label)
            facts = graph_facts(specs, config.frames)
            return [Graph("answer", answer, inputs, ("probabilities",), facts, rows=True)]

        return FixedRowsSession(
            specs,
            run.classes,
            frames=config.frames,
            predict=predict,
            network_macs=lambda count: {CLASSIFIER: count * macs},
            scored=columns,
            l2=l2,
            graphs=graphs,
        )

    @property
    def scored(self) -> tuple[Role, ...]:
        return tuple(self.columns)

    def rows(self, length: int) -> IntArray:
        return uniform_rows(length, self.config.frames)

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        losses = []
        for role, classifier in self.model.items():
            packed = batch.inputs[role]
            video = video_of_row(packed).to(packed.data.device)
            losses.append(classification_loss(classifier(packed.data), batch.targets[video]))
        # The classifiers of two streams have no common weights, so the sum trains each as if alone.
        return {"loss": torch.stack(losses).sum()}

    @torch.no_grad()
    def finish(self, videos: VideoSet, device: torch.device) -> None:
        """Fit the classifiers that are not trained by descent."""
        if self.by_descent:
            return
        for role, frames in self.model.items():
            assert isinstance(frames, FrameClassifier)
            fit_classifier(frames, videos, role, self.rows, self.config.seed)

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        per_stream = []
        for role in self.roles:
            packed = (batch.scores if role in self.columns else batch.inputs)[role]
            logits = row_logits(self.model, self.columns, role, packed.data)
            per_stream.append(mean_per_video(class_probabilities(logits, self.multi_label), packed))
        return Prediction(torch.stack(per_stream).mean(0))

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        return {CLASSIFIER: row_counts * self.classifier_macs}


@torch.no_grad()
def fit_classifier(
    frames: FrameClassifier, videos: VideoSet, role: Role, rows: RowChoice, seed: int
) -> Iterator[tuple[BoolArray, FrameClassifier]]:
    """Fit a classifier by cross-validation to some rows of videos, each an example of its video's class.

    Args:
        frames: its scale is fitted already.
        rows: of each video that are examples.

    Returns:
        Classifiers for videos on which they were not fitted, which are only fitted if they are wanted: which of
        the videos, in a mask (M,), and the classifier that was fitted to the others.
    """
    chosen = [videos.features(role, index, rows) for index in range(len(videos))]
    video = np.repeat(np.arange(len(videos)), [len(each) for each in chosen])
    scaled = frames.scale(torch.from_numpy(np.concatenate(chosen)).to(frames.scale.mean)).cpu().numpy()
    examples = scaled, video, videos.trained_labels
    folds: dict[str, Any] = {"multi_label": videos.multi_label, "seed": seed, "groups": videos.groups}
    weights, bias, penalty = cross_validated.fit(*examples, **folds)
    _set(frames, weights, bias)

    def others() -> Iterator[tuple[BoolArray, FrameClassifier]]:
        for held_out, *fitted in cross_validated.fit_without_folds(*examples, penalty, **folds):
            yield held_out, _set(deepcopy(frames), *fitted)

    return others()


@torch.no_grad()
def _set(frames: FrameClassifier, weights: Floats, bias: Floats) -> FrameClassifier:
    frames.classifier.weight.copy_(torch.from_numpy(weights))
    frames.classifier.bias.copy_(torch.from_numpy(bias))
    return frames


def score_columns(spec: StreamSpec, classes: Sequence[str]) -> list[int] | None:
    """Those of the stream's class scores that are of the classes; None where it lacks some."""
    if spec.classes is None or not set(classes) <= set(spec.classes):
        return None
    return [spec.classes.index(name) for name in classes]


def source_of_scores(spec: StreamSpec, classes: Sequence[str]) -> str:
    """Where class scores of a stream's rows come from, in words."""
    how = "fits a linear classifier" if score_columns(spec, classes) is None else "averages the stream's own"
    return f"{how} ({spec.name})"


def classifier_macs(spec: StreamSpec, classes: Sequence[str]) -> int:
    """Of the classifier on a row: the stream's, or the one that is fitted."""
    covered = score_columns(spec, classes) is not None
    return linear_macs(spec.feature_dim, spec.num_classes if covered else len(classes))


def row_logits(model: nn.ModuleDict, columns: Mapping[Role, list[int]], role: Role, rows: Tensor) -> Tensor:
    """(N, C) of rows of a stream: its class scores, or its features."""
    if role in columns:
        return rows[:, columns[role]].float()
    logits: Tensor = model[role](rows)
    return logits


class _Answer(nn.Module):
    """Rows of a video, features or class scores (logits) of each stream, to the class probabilities (C,)."""

    def __init__(
        self, model: nn.ModuleDict, columns: Mapping[Role, list[int]], l2: bool, multi_label: bool
    ) -> None:
        super().__init__()
        self.model, self.columns, self.l2, self.multi_label = model, columns, l2, multi_label

    def forward(
        self,
        coarse: Tensor | None = None,
        fine: Tensor | None = None,
        coarse_scores: Tensor | None = None,
        fine_scores: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        given = {"coarse": (coarse, coarse_scores), "fine": (fine, fine_scores)}
        means = []
        for role, (features, scores) in given.items():
            rows = scores if features is None else unit_rows(features) if self.l2 else features
            if rows is not None:
                logits = row_logits(self.model, self.columns, role, rows)
                means.append(class_probabilities(logits, self.multi_label).mean(0))
        return (torch.stack(means).mean(0),)


class UniformCF(Uniform):
    """Uniform+CF: the mean of both backbones' class probabilities for each frame, averaged over K frames."""

    title = "Uniform+CF"
    roles = ("coarse", "fine")
