"""What a method is: a network, its loss on a batch, its predictions and what they cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache_schema import FeatureCache, UserError
from cache_schema.costs import stream_cost
from policy.config import RunConfig
from policy.data.batches import Batch, Role, VideoSet, batches, every_row, read_ahead
from policy.data.opening import Dataset
from policy.evaluation.ledger import Ledger, charge
from policy.evaluation.predictions import Judged, Predictions
from policy.session import Session, TrainedRun

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
        gates: per video (T,) of 0 and 1 over the rows the method saw: where the backbone of the gated stream has
            run. None: on all of them.
        spent: (B,) int64 MACs by name, of what ran beside the method's streams and networks: of the models that
            were chosen from a pool.
    """

    scores: Tensor
    gates: list[Tensor] | None = None
    spent: Mapping[str, IntArray] = field(default_factory=dict)


Predict = Callable[[Batch, torch.Generator], Prediction]
"""As `Method.predict`."""


class Method(ABC):
    """One row of a results table.

    A method is made for a dataset: networks are sized and their input scales fitted. Making one draws its
    initial weights from torch's global generator.

    Attributes:
        title: as the paper's tables call it.
        roles: the streams it reads, by what it calls them, which are fields of its configuration, too. Their
            backbones run on all rows that it looks at.
        gated: the one whose backbone runs only where the gates of its predictions are open; None: none.
        judged: what `evaluate` returns, and what a run's folder keeps of it.
        splits_batches: whether several processes can each compute the loss of a part of a batch.
        teacher: (M, C) on the device, a teacher's class probabilities of the M training videos; set before
            training where the configuration names one.
    """

    title: ClassVar[str]
    roles: ClassVar[tuple[Role, ...]]
    gated: ClassVar[Role | None] = None
    judged: ClassVar[type[Judged]] = Predictions
    splits_batches: ClassVar[bool] = True

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
    def needs(cls, config: RunConfig) -> Mapping[str, str]:
        """Folders of the finished runs that it builds on, by the field of the configuration that names each."""
        return {}

    @classmethod  # noqa: B027  # most need none
    def check_needed(cls, config: RunConfig, name: str, needed: RunConfig) -> None:
        """Raises UserError where such a run is not of the kind that it builds on.

        Args:
            name: as in `needs`.
            needed: the configuration of that run.
        """

    def build_on(self, trained: Mapping[str, Method], data: Dataset, device: torch.device) -> None:  # noqa: B027
        """Called before training with the methods of the runs in `needs`, trained, on the CPU, on the same data.

        What is kept of them must be in the model's state: the runs are not needed afterwards.
        """

    @classmethod
    def class_scores(cls, data: Dataset) -> str:
        """Where its class scores come from, if that depends on the streams; else empty."""
        return ""

    @classmethod
    def decisive_data(cls, data: Dataset) -> Mapping[str, str]:
        """Digests by name of what decides a result beside labels and features (`Dataset.digest`)."""
        return {}

    def notes(self, data: Dataset) -> Sequence[str]:
        """What the user should know of how it was made, a line each."""
        return ()

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session | None:
        """What was trained, ready for raw video; None: it cannot be run on it.

        Raises:
            UserError: the weights are not there, damaged or of another model.
        """
        return None

    def session_tensors(self) -> Mapping[str, Tensor]:
        """What a session needs beside the model's state and what decided the run; empty for most."""
        return {}

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

    def epoch_order(self, videos: VideoSet, generator: torch.Generator) -> Tensor:
        """(n,) int64: positions of the training videos in the order of an epoch, one batch after the other; by
        default each video once, shuffled.

        Args:
            generator: on the CPU; the only source of randomness.
        """
        return torch.randperm(len(videos), generator=generator)

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

    @classmethod
    def details_lines(cls, details: Mapping[str, Any]) -> Sequence[str]:
        """What a command prints of the details below the results, a line each."""
        return ()

    @abstractmethod
    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        """Class probabilities and decisions of a batch, without gradient and in evaluation mode."""

    @abstractmethod
    def network_macs(self, seen: IntArray, gated: IntArray) -> Mapping[str, IntArray]:
        """MACs (M,) of its own networks by name (`Ledger`) on videos of which `seen` (M,) rows were looked at,
        `gated` (M,) of them with the gated stream's backbone. Under a stream's name: of a classifier on it."""

    def evaluate(self, videos: VideoSet, *, device: torch.device) -> Judged:
        """What it says of videos, by which it is judged: class scores, unless a family says something else."""
        return evaluate(self, videos, device=device)


def class_probabilities(logits: Tensor, multi_label: bool) -> Tensor:
    """(..., C) logits to probabilities: softmax, or with several classes per video a sigmoid for each."""
    return logits.sigmoid() if multi_label else logits.softmax(-1)


@torch.no_grad()
def evaluate(
    method: Method,
    videos: VideoSet,
    *,
    device: torch.device,
    rows: Sequence[IntArray] | None = None,
    predict: Predict | None = None,
    draws: int | None = None,
) -> Predictions:
    """Run a method on videos. Draws, where it has any, follow from the seed of its configuration.

    Args:
        rows: per video those it looks at, instead of `method.rows`.
        predict: the same network under another rule, instead of `method.predict`.
        draws: how often, instead of `method.draws`.
    """
    method.model.to(device).eval()
    generator = torch.Generator().manual_seed(method.config.seed)
    predict = predict or method.predict
    draws = draws or method.draws
    offsets = row_offsets(videos)
    looked = rows or [method.rows(int(length)) for length in np.diff(offsets)]
    seen = np.array([len(chosen) for chosen in looked], np.int64)

    scores = np.empty((draws, *videos.labels.shape), np.float32)
    gates = np.zeros((draws, int(offsets[-1])), np.uint8)
    spent: dict[str, IntArray] = {}
    for draw in range(draws):
        start = 0
        read = batches(videos, method.config.batch, rows=looked, scored=method.scored, read=method.reads)
        for batch in read_ahead(read) if device.type != "cpu" else read:
            predicted = predict(batch.to(device), generator)
            stop = start + len(predicted.scores)
            scores[draw, start:stop] = predicted.scores.float().cpu().numpy()
            for name, macs in predicted.spent.items():
                spent.setdefault(name, np.zeros((draws, len(videos)), np.int64))[draw, start:stop] = macs
            for k, video in enumerate(range(start, stop)):
                at = looked[video] + offsets[video]
                if predicted.gates is not None:
                    gates[draw, at] = predicted.gates[k].cpu().numpy() > 0
                else:
                    gates[draw, at] = method.gated is not None
            start = stop
    return with_costs(method, videos, scores, offsets, gates, seen, spent)


def row_offsets(videos: VideoSet) -> IntArray:
    """(M+1,): where each video's rows begin, and where the last ends, were all rows laid end to end."""
    lengths = [videos.length(i) for i in range(len(videos))]
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def with_costs(
    method: Method,
    videos: VideoSet,
    scores: npt.NDArray[np.float32],
    offsets: IntArray,
    gates: npt.NDArray[np.uint8],
    seen: IntArray,
    spent: Mapping[str, IntArray] | None = None,
) -> Predictions:
    """What was decided, charged by the cost table and for the method's networks.

    Args:
        scores, offsets, gates, seen: as in Predictions.
        spent: (R, M) by name, as in Prediction.
    """
    read = {role: stream for role, stream in videos.streams.items() if role in method.roles}
    draws = []
    for opened in gates:
        gated = np.add.reduceat(opened.astype(np.int64), offsets[:-1])
        streams = [
            (stream.name, gated if role == method.gated else seen, stream_cost(stream.spec).macs)
            for role, stream in read.items()
        ]
        draws.append(charge(streams, method.network_macs(seen, gated)))
    ledger = Ledger.summed([Ledger.of_draws(draws), spent or {}])
    return Predictions(videos.ids, videos.labels, scores, offsets, gates, seen, ledger)
