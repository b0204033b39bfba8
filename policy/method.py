"""What a method is: a network, its loss on a batch, its predictions and what they cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache_schema import FeatureCache, UserError
from policy.config import RunConfig
from policy.data.batches import Batch, Role, VideoSet, every_row
from policy.data.opening import Dataset

IntArray = npt.NDArray[np.int64]
Losses = Mapping[str, Tensor | float]
"""What one batch gives to the metrics; "loss" is what is minimised. Tensors are scalars."""


@dataclass(frozen=True)
class Moment:
    """Where training is.

    Attributes:
        progress: from 0 in the first epoch to 1 in the last.
        step: batches of this epoch that are behind it.
    """

    progress: float
    step: int = 0


@dataclass(frozen=True)
class Prediction:
    """For B videos, in the caller's order.

    Attributes:
        scores: (B, C) class probabilities.
        gates: per video (T,) of 0 and 1 over the rows the method saw: where the fine backbone has run. None:
            on all of them, or on none if the method does not use the fine stream.
        further_macs: (B,) int64, of backbones that ran beside those of the method's roles: of the models that were
            chosen from a pool.
    """

    scores: Tensor
    gates: list[Tensor] | None = None
    further_macs: Tensor | None = None


class Method(ABC):
    """One row of a results table.

    A method is made for a dataset: networks are sized and their input scales fitted. Making one draws its
    initial weights from torch's global generator.

    Attributes:
        title: as the paper's tables call it.
        roles: the streams it reads.
        teacher: (M, C) on the device, a teacher's class probabilities of the M training videos; set before
            training where the configuration names one.
    """

    title: ClassVar[str]
    roles: ClassVar[tuple[Role, ...]]

    model: nn.Module
    teacher: Tensor | None = None

    def __init__(self, config: RunConfig, data: Dataset) -> None:
        self.config = config
        self.multi_label = data.multi_label

    @classmethod
    def streams(cls, config: RunConfig, cache: FeatureCache) -> dict[Role, str]:
        """Names of the streams that it reads. Raises UserError where the configuration does not say one."""
        named: dict[Role, str] = {}
        for role in cls.roles:
            name = getattr(config, role)
            if name is None:
                raise UserError(f"{config.method} needs a {role} stream; the cache has: {', '.join(cache)}")
            named[role] = name
        return named

    @classmethod
    def pool(cls, config: RunConfig) -> Sequence[str]:
        """Names of the streams from which it chooses, video by video."""
        return ()

    @classmethod
    def held_out(cls, config: RunConfig) -> Sequence[str]:
        """Names of the streams that have class scores of training videos from models that have not seen them."""
        return ()

    @classmethod
    def class_scores(cls, data: Dataset) -> str:
        """Where its class scores come from, if that depends on the streams; else empty."""
        return ""

    def notes(self, data: Dataset) -> Sequence[str]:
        """What the user should know of how it was made, a line each."""
        return ()

    @property
    def draws(self) -> int:
        """How many times evaluation is repeated, where it draws at random."""
        return 1

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return any(parameter.requires_grad for parameter in self.model.parameters())

    @property
    def scored(self) -> tuple[Role, ...]:
        """The streams of which it reads the class scores instead of the features."""
        return ()

    @property
    def reads(self) -> bool:
        """Whether its batches hold rows of its streams; False where it keeps what it needs of them."""
        return True

    def rows(self, length: int) -> IntArray:
        """Which rows of a video it looks at."""
        return every_row(length)

    @abstractmethod
    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        """The loss of a training batch, differentiable, and whatever else is worth a log.

        Args:
            moment: how far the training is.
            generator: on the CPU; the only source of randomness.
        """

    def after_step(self, losses: Losses) -> None:  # noqa: B027  # most learn by gradient descent alone
        """Called after each step of the optimiser, with the losses of its batch: for what learns otherwise.

        What is set must be in the model's state.
        """

    def finish(self, videos: VideoSet, device: torch.device) -> None:  # noqa: B027  # most have nothing to set
        """Called once after training, with the training videos: for what is set when the weights are final.

        The model is on the device and in evaluation mode. What is set must be in the model's state, and the same
        whenever this is called again.
        """

    def listing(self, videos: VideoSet, device: torch.device) -> str:
        """What was decided for each video, as CSV; empty for most."""
        return ""

    def details(self, data: Dataset, device: torch.device) -> Mapping[str, Any]:
        """What else a finished run has to say, ready for JSON; empty for most."""
        return {}

    @abstractmethod
    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        """Class probabilities and decisions of a batch, without gradient and in evaluation mode."""

    @abstractmethod
    def network_macs(self, seen: IntArray, fine: IntArray) -> IntArray:
        """MACs (M,) of its own networks on videos of which `seen` (M,) rows were looked at, `fine` (M,) of
        them with the fine backbone."""


def class_probabilities(logits: Tensor, multi_label: bool) -> Tensor:
    """(..., C) logits to probabilities: softmax, or with several classes per video a sigmoid for each."""
    return logits.sigmoid() if multi_label else logits.softmax(-1)
