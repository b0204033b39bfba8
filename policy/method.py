"""The interface of methods: a network, its loss on a batch, its predictions and their costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache_schema import FeatureCache, UserError
from cache_schema.costs import stream_cost
from policy.config import RunConfig
from policy.data.batches import Batch, Role, VideoSet, batched, every_row, fed
from policy.data.opening import Dataset
from policy.evaluation.collection import Sharing
from policy.evaluation.ledger import Ledger, charge
from policy.evaluation.operating import (
    Curve,
    OperatingPoint,
    OperatingTarget,
    TargetKind,
)
from policy.evaluation.predictions import Judged, Predictions
from policy.session import Session, TrainedRun

IntArray = npt.NDArray[np.int64]
LEAST_PROBABILITY = 1e-7
"""Probabilities are kept this far from 0 (or, of a sigmoid, from 1): near 1 float32 has no finer steps."""
Losses = Mapping[str, Tensor | float]
"""Values of one batch for the log; "loss" is minimised. Tensors are scalars."""


@dataclass(frozen=True)
class Moment:
    """The current point of a training.

    Attributes:
        progress: from 0 in the first epoch to 1 in the last.
        step: number of batches of this epoch before it.
    """

    progress: float
    step: int = 0


@dataclass(frozen=True)
class Prediction:
    """Predictions for B videos, in the caller's order.

    Attributes:
        scores: (B, C) class probabilities.
        gates: per video (T,) of 0 and 1 over the rows the method looked at, 1 where the backbone of the gated
            stream ran. None: it ran on all of them.
        further_macs: (B,) int64 MACs by name, of what ran beside the method's streams and networks: the models
            that were chosen from a pool.
        ran: of streams by name, per video (T,) bool, as `gates`: of those whose backbones did not run on all rows
            that it looked at.
    """

    scores: Tensor
    gates: list[Tensor] | None = None
    further_macs: Mapping[str, IntArray] = field(default_factory=dict)
    ran: Mapping[str, list[Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Settled:
    """What the training videos have decided of a configuration.

    Attributes:
        values: of its fields, by name, ready for JSON.
        figures: by which they were decided, ready for JSON.
    """

    values: Mapping[str, Any]
    figures: Mapping[str, Any]


Note = Callable[[str], None]
"""Takes a line that is shown to the user."""
Calibration = Sequence[tuple["Method", VideoSet]]
"""Videos on which an operating point is found, in parts, each with the trained method that decides for them: one
that was not trained on them, if there is one."""
Predict = Callable[[Batch, torch.Generator], Prediction]
"""As `Method.predict`."""


class Method(ABC):
    """One row of a results table.

    A method is created for a dataset: networks get their sizes, and their input scales are fitted. Initial weights
    are drawn from torch's global generator.

    Attributes:
        title: its name in the paper's tables.
        roles: the method's names of the streams that it reads; each is also a field of its configuration. Their
            backbones run on all rows that it looks at, unless it has other `stream_rows`.
        gated: the role of the stream whose backbone runs only where the gates of its predictions are open, if any.
        judged: what `evaluate` returns, and what a run's folder keeps of it.
        splits_batches: whether several processes can each compute the loss of a part of a batch.
        operating_targets: the kinds of operating point that it can be moved to once it is trained.
        direct_target: the kind of them whose value is itself what decides, so that no videos are needed.
        value_buffer: the name of the buffer of its model that an operating point is in, if it is in one.
        trained_for_cost: whether options of its training decide what it costs, though it can be moved afterwards.
        fits_at_once: whether `finish` fits it to the videos that it is given, where nothing is trained by descent;
            of such a method, too, videos are held out for validation.
        is_incremental: whether a point of its `operating_curve` computes all that the cheaper ones do, and more,
            so that who goes on to it pays the difference.
        cross_fits: whether `refitted` can train what decides again on a part of the training videos.
        describes_training: whether its details need the training videos.
        sharing: how its videos share a budget, if they do (`policy.training.sharing`).
        teacher: (M, C) on the device, a teacher's class probabilities of the M training videos; set before
            training where the configuration names one.
    """

    title: ClassVar[str]
    roles: ClassVar[tuple[Role, ...]]
    gated: ClassVar[Role | None] = None
    judged: ClassVar[type[Judged]] = Predictions
    splits_batches: ClassVar[bool] = True
    operating_targets: ClassVar[tuple[TargetKind, ...]] = ()
    direct_target: ClassVar[TargetKind] = "threshold"
    value_buffer: ClassVar[str | None] = None
    trained_for_cost: ClassVar[bool] = False
    fits_at_once: ClassVar[bool] = False
    is_incremental: ClassVar[bool] = False
    cross_fits: ClassVar[bool] = False
    describes_training: ClassVar[bool] = False

    model: nn.Module
    sharing: Sharing | None = None
    teacher: Tensor | None = None

    def __init__(self, config: RunConfig, data: Dataset) -> None:
        self.config = config
        self.multi_label = data.multi_label

    @classmethod
    def settle(cls, config: RunConfig, data: Dataset, device: torch.device, note: Note) -> Settled | None:
        """What a configuration leaves to the training videos; None where that is nothing.

        It is called before training. What it finds is kept in the run's folder.
        """
        return None

    @classmethod
    def streams(cls, config: RunConfig, cache: FeatureCache) -> dict[Role, str]:
        """Names of the streams that it reads. Raises UserError where the configuration lacks one."""
        names: dict[Role, str] = {}
        for role in cls.roles:
            name = getattr(config, role)
            if name is None:
                raise UserError(f"{config.method} needs a {role} stream; the cache has: {', '.join(cache)}")
            names[role] = name
        return names

    @classmethod
    def pool(cls, config: RunConfig) -> Sequence[str]:
        """Names of the streams among which it chooses for each video."""
        return ()

    @classmethod
    def held_out(cls, config: RunConfig) -> Sequence[str]:
        """Names of streams with class scores of training videos, from models that were not trained on these."""
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
        """Notes shown before training, one line each."""
        return ()

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session:
        """The trained policy, ready for raw video.

        Raises:
            UserError: the weights are missing, damaged or of another model; or the method has none.
        """
        raise UserError(f"{run.weights.parent}: {run.config.method} has no session: it runs on caches alone")

    def session_tensors(self) -> Mapping[str, Tensor]:
        """What a session needs beside the model's state and the configuration; empty for most."""
        return {}

    @classmethod
    def restored(cls, run: TrainedRun, data: Dataset) -> Method:
        """The method of a finished run without its training videos; its weights are still to be read.

        Args:
            data: other videos; its training set is looked at for sizes alone, and may be a single one of them.
        """
        return cls(run.config, data)

    @classmethod
    def cost_target(cls, config: RunConfig) -> OperatingTarget | None:
        """The usage or budget that a configuration asks for; None where it asks for none."""
        return None

    def refitted(self, data: Dataset, device: torch.device) -> Method:
        """A method of the same kind, to be trained on the training videos of `data`, a part of its own.

        It shares what this one was built on. Only of one that `cross_fits`.
        """
        raise NotImplementedError

    def move_to(self, target: OperatingTarget, calibration: Calibration, device: torch.device) -> float:
        """Move the trained method to another operating point, without training it again.

        Args:
            calibration: not needed for a `direct_target`.

        Returns:
            The threshold, price or share that it decides by from now on; kept in the model's state or the
            configuration.

        Raises:
            UserError: the method has no such operating point, or none of this value; the message says the nearest.
        """
        self.check_target(target)
        is_direct = target.kind == self.direct_target
        value = target.value if is_direct else self.value_at(target, calibration, device)
        self.set_value(value, target)
        return value

    def check_target(self, target: OperatingTarget) -> None:
        """Raises UserError for an operating point that it does not have, whatever the videos."""
        name = self.config.method
        if not self.operating_targets:
            raise UserError(f"{target}: {name} has no operating point that could be moved after training")
        if target.kind not in self.operating_targets:
            others = " or ".join(f"--{kind}" for kind in self.operating_targets)
            raise UserError(f"{target}: {name} has no such operating point; give {others}")

    def value_at(self, target: OperatingTarget, calibration: Calibration, device: torch.device) -> float:
        """The value at which calibration videos reach a usage or keep a budget.

        Raises:
            UserError: none does; the message says the nearest possible.
        """
        raise NotImplementedError

    def set_value(self, value: float, target: OperatingTarget) -> None:
        """Decide by a value from now on, which a target has set."""
        assert self.operating_value is not None, f"{self.title} has no such value"
        self.operating_value.fill_(value)

    def operating_curve(self, videos: VideoSet, calibration: VideoSet, *, device: torch.device) -> Curve:
        """The trained method at several budgets, without training it again; at its own alone, if it has no others.

        It is left as it was.

        Args:
            calibration: videos on which values are found that have a usage; not those that are judged.

        Returns:
            Points of class scores, by rising mean cost.
        """
        judged = self.evaluate(videos, device=device)
        assert isinstance(judged, Predictions), f"{self.title} says something else than class scores"
        return Curve(self.title, (OperatingPoint(float(judged.gflops.mean()), judged),))

    @property
    def value_name(self) -> str:
        """What the value is that an operating point sets (`set_value`), in words."""
        return "threshold"

    @property
    def operating_value(self) -> Tensor | None:
        """The buffer of its model that a threshold, price or number of rows is in; None where it has none."""
        return None if self.value_buffer is None else self.model.get_buffer(self.value_buffer)

    @property
    def has_values(self) -> bool:
        """Whether it can be judged `at_values`."""
        return self.operating_value is not None

    def at_values(self, values: Iterable[float], videos: VideoSet, *, device: torch.device) -> Curve:
        """The trained method at several thresholds, prices or numbers of rows. It is left as it was."""
        assert self.operating_value is not None, f"{self.title} has no such value"
        points = []
        for value in values:
            with moved(self.operating_value, value):
                judged = self.evaluate(videos, device=device)
            assert isinstance(judged, Predictions), f"{self.title} says something else than class scores"
            points.append(OperatingPoint(value, judged))
        return Curve(self.title, tuple(points))

    @classmethod
    def keeps_spending(cls, config: RunConfig) -> bool:
        """Whether a finished run knows what each value costs on held-out predictions of its training videos, so
        that a budget needs no calibration videos."""
        return False

    @property
    def draws(self) -> int:
        """How often evaluation is repeated, if it draws at random."""
        return 1

    def validates(self, progress: float) -> bool:
        """Whether the weights of an epoch at this progress may be the final ones."""
        return True

    def validation_loss(self, judged: Judged, videos: VideoSet, device: torch.device) -> float:
        """By which epochs are compared, on videos that it was not trained on; the least is best.

        The model is in evaluation mode, at its operating point (`finish`).

        Args:
            judged: what `evaluate` says of the videos.
        """
        assert isinstance(judged, Predictions), f"{self.title} says something else than class scores"
        return log_loss(judged, videos)

    @property
    def by_descent(self) -> bool:
        """Whether there is anything that gradient descent trains."""
        return any(parameter.requires_grad for parameter in self.model.parameters())

    @property
    def trains(self) -> bool:
        """Whether there is anything to train, in this or another way."""
        return self.by_descent

    @property
    def scored(self) -> tuple[Role, ...]:
        """The streams of which it reads class scores instead of features."""
        return ()

    @property
    def reads(self) -> bool:
        """Whether its batches hold rows of its streams; False if it keeps what it needs of them."""
        return True

    def rows(self, length: int) -> IntArray:
        """The rows that it looks at, of a video of `length` rows."""
        return every_row(length)

    def epoch_order(self, videos: VideoSet, generator: torch.Generator) -> Tensor:
        """(n,) int64: positions of the training videos in the order of an epoch, one batch after the other; by
        default each video once, shuffled.

        Args:
            generator: on the CPU; the only source of randomness.
        """
        return torch.randperm(len(videos), generator=generator)

    def prepare(self, videos: VideoSet, device: torch.device) -> None:  # noqa: B027  # most need nothing
        """Called once before the first step, with the training videos: for what losses need of all of them.

        The model is on the device. Also where a stopped training goes on: what this changes in the model is then
        replaced by what was saved.
        """

    @abstractmethod
    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        """The loss of a training batch, differentiable, and further values for the log.

        Args:
            moment: the current point of the training.
            generator: on the CPU; the only source of randomness.
        """

    def after_step(self, losses: Losses) -> None:  # noqa: B027  # most learn by gradient descent alone
        """Called after each step of the optimiser, with the losses of its batch: for what learns otherwise.

        What it changes must be in the model's state.
        """

    def finish(self, videos: VideoSet, device: torch.device) -> None:  # noqa: B027  # most have nothing to set
        """Called once after training, with the training videos: for what depends on the final weights.

        The model is on the device and in evaluation mode. What it changes must be in the model's state, and be the
        same if this is called again.
        """

    def listing(self, videos: VideoSet, device: torch.device) -> str:
        """The decision for each video, as CSV; empty for most."""
        return ""

    def details(self, data: Dataset, device: torch.device) -> Mapping[str, Any]:
        """Further results of a finished run, ready for JSON; empty for most."""
        return {}

    @classmethod
    def details_lines(cls, details: Mapping[str, Any]) -> Sequence[str]:
        """What a command prints of the details below the results, a line each."""
        return ()

    @abstractmethod
    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        """Class probabilities and decisions of a batch, without gradient and in evaluation mode.

        Args:
            generator: on the CPU; the only source of randomness. Its initial seed is another for each repetition.
        """

    def stream_rows(self, role: Role, row_counts: IntArray, gated_counts: IntArray) -> IntArray:
        """(M,): on how many rows of each video the backbone of a stream runs.

        Args:
            row_counts, gated_counts: as in `network_macs`.
        """
        return gated_counts if role == self.gated else row_counts

    @abstractmethod
    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> Mapping[str, IntArray]:
        """(M,) MACs by name (`Ledger`) of the method's networks, for M videos. Under a stream's name: of a
        classifier on it.

        Args:
            row_counts: (M,), how many rows of each video the method looked at.
            gated_counts: (M,), on how many of those the gated stream's backbone ran.
        """

    def evaluate(self, videos: VideoSet, *, device: torch.device) -> Judged:
        """Predictions for videos: class scores, unless a family predicts something else."""
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
    """Run a method on videos. Random draws, if it has any, follow from the seed of its configuration.

    Args:
        rows: the rows of each video that it looks at, instead of `method.rows`.
        predict: the same network with another rule, instead of `method.predict`.
        draws: number of repetitions, instead of `method.draws`.
    """
    method.model.to(device).eval()
    predict = predict or method.predict
    draws = draws or method.draws
    offsets = row_offsets(videos)
    rows = rows or [method.rows(int(length)) for length in np.diff(offsets)]
    row_counts = np.array([len(places) for places in rows], np.int64)

    scores = np.empty((draws, *videos.labels.shape), np.float32)
    gates = np.zeros((draws, int(offsets[-1])), np.uint8)
    further_macs: dict[str, IntArray] = {}
    looked = np.zeros(gates.shape[1], np.bool_)
    for place, start in zip(rows, offsets, strict=False):
        looked[place + start] = True
    ran = {stream.name: looked[None] for role, stream in videos.streams.items() if role != method.gated}
    further_rows: dict[str, npt.NDArray[np.bool_]] = {}
    for draw in range(draws):
        generator = torch.Generator().manual_seed(draw_seed(method.config.seed, draw))
        start = 0
        parts = batched(range(len(videos)), method.config.batch)
        for batch in fed(videos, parts, device, rows=rows, scored=method.scored, read=method.reads):
            prediction = predict(batch, generator)
            stop = start + len(prediction.scores)
            scores[draw, start:stop] = prediction.scores.float().cpu().numpy()
            for name, macs in prediction.further_macs.items():
                further_macs.setdefault(name, np.zeros((draws, len(videos)), np.int64))[draw, start:stop] = (
                    macs
                )
            for k, video in enumerate(range(start, stop)):
                places = rows[video] + offsets[video]
                if prediction.gates is not None:
                    gates[draw, places] = prediction.gates[k].cpu().numpy() > 0
                else:
                    gates[draw, places] = method.gated is not None
                for name, of_videos in prediction.ran.items():
                    of_stream = further_rows.setdefault(name, np.zeros(gates.shape, np.bool_))
                    of_stream[draw, places] = of_videos[k].cpu().numpy()
            start = stop
    ran |= further_rows
    return with_costs(method, videos, scores, offsets, gates, row_counts, further_macs, ran)


@contextmanager
def moved(threshold: Tensor, value: float) -> Iterator[None]:
    """Within it a model decides by this threshold, one of its buffers; afterwards by the one before."""
    before = threshold.clone()
    threshold.fill_(value)
    try:
        yield
    finally:
        threshold.copy_(before)


def log_loss(predictions: Predictions, videos: VideoSet) -> float:
    """The first term of Eq. 7 of class probabilities, mean over videos and draws: −log p of the class or, with
    several per video, the binary cross-entropies summed over classes."""
    scores = np.clip(predictions.scores.astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    if not videos.multi_label:
        return float(-np.log(scores[:, np.arange(len(videos)), videos.first]).mean())
    return float(-np.where(videos.labels, np.log(scores), np.log1p(-scores)).sum(axis=2).mean())


def draw_seed(seed: int, draw: int) -> int:
    """The seed of a repetition of an evaluation, from that of its configuration."""
    return int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])


def row_offsets(videos: VideoSet) -> IntArray:
    """(M+1,): with the rows of all videos end to end, where each video begins, and where the last one ends."""
    return np.cumsum([0, *map(videos.length, range(len(videos)))], dtype=np.int64)


def with_costs(
    method: Method,
    videos: VideoSet,
    scores: npt.NDArray[np.float32],
    offsets: IntArray,
    gates: npt.NDArray[np.uint8],
    row_counts: IntArray,
    further_macs: Mapping[str, IntArray] | None = None,
    ran: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> Predictions:
    """Predictions with their ledger: rows by the cost table, and the method's networks.

    Args:
        scores, offsets, gates, row_counts, ran: as in Predictions.
        further_macs: (R, M) by name, as in Prediction.
    """
    streams = {role: stream for role, stream in videos.streams.items() if role in method.roles}
    draws = []
    for gates_of_draw in gates:
        gated_counts = np.add.reduceat(gates_of_draw.astype(np.int64), offsets[:-1])
        charged = [
            (
                stream.name,
                method.stream_rows(role, row_counts, gated_counts),
                stream_cost(stream.spec).macs,
            )
            for role, stream in streams.items()
        ]
        draws.append(charge(charged, method.network_macs(row_counts, gated_counts)))
    ledger = Ledger.summed([Ledger.of_draws(draws), further_macs or {}])
    return Predictions(
        videos.ids, videos.labels, scores, offsets, gates, row_counts, ledger, videos.groups, ran or {}
    )
