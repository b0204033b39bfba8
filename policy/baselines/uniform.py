"""Uniform and Uniform+CF: class scores of K uniformly spaced frames, averaged."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from cache_schema import StreamSpec
from policy.baselines.config import UniformCFConfig, UniformConfig
from policy.data.batches import Batch, Role, uniform_rows
from policy.data.opening import Dataset
from policy.method import IntArray, Losses, Method, Moment, Prediction, class_probabilities
from policy.networks.macs import linear_macs
from policy.networks.packing import mean_per_video, video_of_row
from policy.networks.standardize import Standardize, fit_scale
from policy.training.losses import classification_loss


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


class Uniform(Method):
    """Averages the class probabilities of the fine backbone over K uniformly spaced frames.

    If the stream has scores for all target classes, by name, these are used: the softmax is over their logits
    only. Otherwise a linear classifier is fitted to the features of the training videos' K frames, each frame an
    example of its video's class, as the papers fine-tune their backbones (Sec. 4.1).
    """

    title = "Uniform"
    roles: ClassVar[tuple[Role, ...]] = ("fine",)
    gated = "fine"

    config: UniformConfig | UniformCFConfig
    model: nn.ModuleDict

    def __init__(self, config: UniformConfig | UniformCFConfig, data: Dataset) -> None:
        super().__init__(config, data)
        self.model = nn.ModuleDict()
        self.columns: dict[Role, list[int]] = {}
        self.classifier_macs = 0
        for role in self.roles:
            spec = data.train.streams[role].spec
            if spec.classes is not None and _covers(spec, data):
                self.columns[role] = [spec.classes.index(name) for name in data.classes]
                self.classifier_macs += linear_macs(spec.feature_dim, spec.num_classes)
                continue
            classifier = FrameClassifier(data.train.feature_dim(role), len(data.classes))
            if config.input_norm == "standard":
                fit_scale(classifier.scale, data.train, role, self.rows)
            self.model[role] = classifier
            self.classifier_macs += linear_macs(spec.feature_dim, len(data.classes))

    @classmethod
    def class_scores(cls, data: Dataset) -> str:
        sources = []
        for role in cls.roles:
            spec = data.train.streams[role].spec
            how = "averages the stream's own" if _covers(spec, data) else "fits a linear classifier"
            sources.append(f"{how} ({spec.name})")
        return ", ".join(sources)

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

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        per_stream = []
        for role in self.roles:
            if role in self.columns:
                packed = batch.scores[role]
                logits = packed.data[:, self.columns[role]].float()
            else:
                packed = batch.inputs[role]
                logits = self.model[role](packed.data)
            per_stream.append(mean_per_video(class_probabilities(logits, self.multi_label), packed))
        return Prediction(torch.stack(per_stream).mean(0))

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        return {"frame classifier": row_counts * self.classifier_macs}


def _covers(spec: StreamSpec, data: Dataset) -> bool:
    """Whether the stream has class scores for all classes of the labels."""
    return spec.classes is not None and set(data.classes) <= set(spec.classes)


class UniformCF(Uniform):
    """Uniform+CF: the mean of both backbones' class probabilities for each frame, averaged over K frames."""

    title = "Uniform+CF"
    roles = ("coarse", "fine")
