"""Agents that choose the next frame by what they have seen: what they share, and their session on raw video."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cache_schema import StreamSpec, UserError
from cache_schema.costs import stream_cost
from policy.config import RunConfig
from policy.data.batches import Role, VideoSet, unit_length
from policy.data.opening import Dataset
from policy.evaluation.operating import Curve, OperatingTarget, TargetKind
from policy.evaluation.predictions import Predictions
from policy.method import Calibration, IntArray, Method, class_probabilities, moved
from policy.networks.readout import Readout
from policy.networks.standardize import Standardize, fit_scale
from policy.session import AlignedSession, FloatArray, Session, TrainedRun, Wanted
from policy.training.checkpoint import read_weights

POINTS = 8
"""Of an operating curve, at most."""


class Drawn(NamedTuple):
    """Where n videos are looked at next.

    Attributes:
        location: (n,), from 0 to 1.
        log_probability: (n,) log density of the location before clipping, up to a constant.
    """

    location: Tensor
    log_probability: Tensor


def drawn_location(mean: Tensor, std: float, noise: Tensor | None) -> Drawn:
    """A location of a Gaussian policy; the clipping to the video is part of the environment.

    Args:
        mean: (n,), differentiable.
        noise: (n,) standard normal; None takes the mean.
    """
    location = mean.detach() if noise is None else mean.detach() + std * noise
    return Drawn(location.clamp(0, 1), -0.5 * ((location - mean) / std) ** 2)


def row_at(location: Tensor, lengths: Tensor) -> Tensor:
    """(n,) int64: of T equal parts of a video, a frame each, the one of a location in [0, 1]."""
    return (location * lengths).long().clamp_max(lengths - 1)


class Agent(nn.Module, ABC):
    """An LSTM over the frames that it visits; from its last state, or another readout, the classes.

    Attributes:
        threshold: (), a buffer: decides when it stops. The higher, the more frames it visits, and those before
            are the same.
    """

    threshold: Tensor
    scale: Standardize
    cell: nn.LSTMCell
    readout: Readout
    classifier: nn.Linear

    @property
    def scales(self) -> Mapping[Role, Standardize]:
        """Of the streams that it reads."""
        return {"fine": self.scale}

    def visit(
        self, features: Tensor, place: Tensor, h: Tensor, c: Tensor, *context: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The state (n, H) twice after a frame of each of n videos.

        Args:
            features: (n, D) of the frames, scaled.
            place: (n,), where in the video they are, from 0 to 1.
            h, c: the state before.
            context: (n, …), what else the agent is told.
        """
        state: tuple[Tensor, Tensor] = self.cell(torch.cat([features, place[:, None], *context], 1), (h, c))
        return state

    @abstractmethod
    def following(
        self, visited: Sequence[int], length: int, h: Tensor, *context: Tensor
    ) -> tuple[int, Tensor] | None:
        """Where it goes next in one video: the frame's row, and its place (1,). None: it has ended.

        Args:
            visited: rows so far, in order.
            length: T rows of the video.
            h: (1, H), its state.
            context: what else the agent is told.
        """

    @abstractmethod
    def macs(self, steps: IntArray) -> dict[str, IntArray]:
        """(M,) of so many steps and one prediction, by the network's name in the ledger."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}threshold", self.threshold)  # runs of earlier versions had none
        super()._load_from_state_dict(state_dict, prefix, *rest)


class AgentSession(AlignedSession):
    """Wants the frame that the agent goes to next, one at a time; a frame that it knows is not wanted again.

    Args:
        agent: trained; it is put in evaluation mode.
        streams: that it reads; the last is that of the frames.
        l2: features are brought to length 1 first.
        multi_label: the agent was trained with a sigmoid for each class instead of a softmax.
    """

    def __init__(
        self, agent: Agent, *streams: StreamSpec, classes: tuple[str, ...], l2: bool, multi_label: bool
    ) -> None:
        super().__init__({spec.name: spec for spec in streams}, classes)
        self.agent, self._stream, self._l2, self._multi_label = agent.eval(), streams[-1], l2, multi_label
        self._restart()

    def _restart(self) -> None:
        self._visited: list[int] = []
        self._known: dict[int, Tensor] = {}  # features (1, D) by row
        zero = self.agent.classifier.weight.new_zeros(1, self.agent.cell.hidden_size)
        self._state = zero, zero
        self._reading = self.agent.readout.start(zero, 1)
        self._go_on()

    @torch.no_grad()
    def _go_on(self) -> None:
        """Visit frames that are known, up to one that is not: `_next`, if there is one."""
        length = len(self._spans_s.get(self._stream.name, ()))
        while following := self._following(length) if length else None:
            self._next, place = following
            if self._next not in self._known:
                return
            self._state = self._visit(self._known[self._next], place)
            self._reading = self.agent.readout.step(self._reading, self._state[0])
            self._visited.append(self._next)
        self._next = -1

    def _following(self, length: int) -> tuple[int, Tensor] | None:
        return self.agent.following(self._visited, length, self._state[0])

    def _visit(self, features: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        return self.agent.visit(self.agent.scale(features), place, *self._state)

    def wanted(self) -> Wanted | None:
        if not self._spans_s or self._next < 0:
            return None
        row = np.array([self._next], np.int64)
        return Wanted(self._stream.name, row, self._spans_s[self._stream.name][row])

    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        self._known[self._next] = self._read(stream, features)
        self._go_on()

    def _read(self, stream: str, features: Tensor | None) -> Tensor:
        """(m, D) as the agent takes them."""
        rows = self._need(stream, "features", features)
        if self._l2:
            rows = torch.from_numpy(unit_length(rows.cpu().numpy()))
        return rows.to(self._state[0])

    @property
    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """(C,): of the classes; the same for all until a frame was taken."""
        if not self._visited:
            return torch.full((len(self.classes),), 1 / len(self.classes))
        return class_probabilities(self.agent.classifier(self._reading.value), self._multi_label)[0].cpu()

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        macs = Counter({self._stream.name: len(self._known) * stream_cost(self._stream).macs})
        if self._visited:
            macs.update(self._network_macs(len(self._visited)))
        return macs

    @property
    def operating_value(self) -> Tensor:
        return self.agent.threshold

    def resume(self) -> None:
        self._go_on()

    def _network_macs(self, steps: int) -> Mapping[str, int]:
        return {name: int(of_video[0]) for name, of_video in self.agent.macs(np.array([steps])).items()}


class AgentMethod(Method):
    """Looks at frames of one stream, one after the other, and pays for a frame once.

    After training, its agent's threshold sets how many.
    """

    roles: ClassVar[tuple[Role, ...]] = ("fine",)
    gated = "fine"
    operating_targets: ClassVar[tuple[TargetKind, ...]] = ("usage", "threshold", "budget")
    value_buffer = "threshold"
    trained_for_cost = True
    is_incremental = True

    session_class: ClassVar[type[AgentSession]] = AgentSession

    model: Agent

    def __init__(self, config: RunConfig, data: Dataset) -> None:
        super().__init__(config, data)
        dims = {role: data.train.feature_dim(role) for role in self.roles}
        self.model = self.agent(config, dims, len(data.classes))
        if config.input_norm == "standard":
            for role, scale in self.model.scales.items():
                fit_scale(scale, data.train, role)

    @classmethod
    @abstractmethod
    def agent(cls, config: RunConfig, dims: Mapping[Role, int], num_classes: int) -> Agent:
        """The network that a configuration asks for, for D features of each stream."""

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session:
        streams = [run.streams[role] for role in cls.roles]
        dims = {role: stream.feature_dim for role, stream in zip(cls.roles, streams, strict=True)}
        agent = cls.agent(run.config, dims, len(run.classes))
        read_weights(run.weights, agent)
        return cls.session_class(
            agent.to(device),
            *streams,
            classes=run.classes,
            l2=run.config.input_norm == "l2",
            multi_label=run.multi_label,
        )

    # --- another operating point ---

    @abstractmethod
    def thresholds(self, videos: VideoSet, device: torch.device) -> FloatArray:
        """Rising thresholds, from the fewest possible frames to the most. From each to the next, the number of
        frames in `videos` grows by about as much, or not at all."""

    def value_at(self, target: OperatingTarget, calibration: Calibration, device: torch.device) -> float:
        ((_, videos),) = calibration
        self.model.to(device).eval()
        values = np.unique(self.thresholds(videos, device)).tolist()

        @cache
        def spent(value: float) -> float:
            """Mean usage or GFLOPs."""
            with moved(self.model.threshold, value):
                judged = self.evaluate(videos, device=device)
            assert isinstance(judged, Predictions)
            return float((judged.gflops if target.kind == "budget" else judged.usage).mean())

        unit = "GFLOPs per video" if target.kind == "budget" else "of the rows"
        affordable = bisect_right(values, target.value, key=spent)
        if not affordable:
            least = f"{spent(values[0]):.4g} {unit}"
            raise UserError(f"{target}: the least that {self.config.method} comes to is {least}")
        most = spent(values[-1])
        if target.kind == "usage" and most < 0.99 * target.value:
            raise UserError(f"{target}: the most that {self.config.method} comes to is {most:.4g} {unit}")
        around = values[affordable - 1 : affordable + (target.kind == "usage")]
        return float(min(around, key=lambda value: abs(spent(value) - target.value)))

    def operating_curve(self, videos: VideoSet, calibration: VideoSet, *, device: torch.device) -> Curve:
        self.model.to(device).eval()
        values = self.thresholds(calibration, device)
        places = np.linspace(0, len(values) - 1, min(len(values), POINTS)).round().astype(int)
        return self.at_values(np.unique(values[places]).tolist(), videos, device=device)


def stopping_thresholds(scores: Sequence[FloatArray]) -> FloatArray:
    """Thresholds at which videos stop after other numbers of frames, as `AgentMethod.thresholds` gives them.

    Args:
        scores: for each video and each frame after which it may stop, the score above which the threshold must
            be for it to go on.
    """
    # A video goes on past a frame where all scores up to there are below the threshold.
    edges = np.sort(np.concatenate([np.maximum.accumulate(each) for each in scores]))
    if not len(edges):  # videos of one frame
        return np.zeros(1)
    return np.concatenate([edges[:1] - 1, (edges[:-1] + edges[1:]) / 2, edges[-1:] + 1])
