"""Agents that choose the next frame by what they have seen: what they share, and their session on raw video."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cache_schema import StreamSpec
from cache_schema.costs import stream_cost
from policy.config import RunConfig
from policy.data.batches import Role, unit_length
from policy.data.opening import Dataset
from policy.method import IntArray, Method, class_probabilities
from policy.networks.readout import Readout
from policy.networks.standardize import Standardize, fit_scale
from policy.session import Session, TrainedRun, Wanted
from policy.training.checkpoint import read_weights


class Agent(nn.Module, ABC):
    """An LSTM over the frames that it visits; from its last state, or another readout, the classes."""

    scale: Standardize
    cell: nn.LSTMCell
    readout: Readout
    classifier: nn.Linear

    def visit(self, features: Tensor, place: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The state (n, H) twice after a frame of each of n videos.

        Args:
            features: (n, D) of the frames.
            place: (n,), where in the video they are, from 0 to 1.
            h, c: the state before.
        """
        state: tuple[Tensor, Tensor] = self.cell(torch.cat([self.scale(features), place[:, None]], 1), (h, c))
        return state

    @abstractmethod
    def following(self, visited: Sequence[int], length: int, h: Tensor) -> tuple[int, Tensor] | None:
        """Where it goes next in one video: the frame's row, and its place (1,). None: it has ended.

        Args:
            visited: rows so far, in order.
            length: T rows of the video.
            h: (1, H), its state.
        """

    @abstractmethod
    def macs(self, steps: IntArray) -> dict[str, IntArray]:
        """(M,) of so many steps and one prediction, by the network's name in the ledger."""


class AgentMethod(Method):
    """Looks at frames of one stream, and pays for a frame once."""

    roles: ClassVar[tuple[Role, ...]] = ("fine",)
    gated = "fine"

    def __init__(self, config: RunConfig, data: Dataset) -> None:
        super().__init__(config, data)
        agent = self.agent(config, data.train.feature_dim("fine"), len(data.classes))
        if config.input_norm == "standard":
            fit_scale(agent.scale, data.train, "fine")
        self.model = agent

    @classmethod
    @abstractmethod
    def agent(cls, config: RunConfig, dim: int, num_classes: int) -> Agent:
        """The network that a configuration asks for, for D features."""

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session:
        stream = run.streams["fine"]
        agent = cls.agent(run.config, stream.feature_dim, len(run.classes))
        read_weights(run.weights, agent)
        l2 = run.config.input_norm == "l2"
        return AgentSession(agent.to(device), stream, run.classes, l2=l2, multi_label=run.multi_label)


class AgentSession(Session):
    """Wants the frame that the agent goes to next, one at a time; a frame that it knows is not wanted again.

    Args:
        agent: trained; it is put in evaluation mode.
        l2: features are brought to length 1 first.
        multi_label: the agent was trained with a sigmoid for each class instead of a softmax.
    """

    def __init__(
        self, agent: Agent, stream: StreamSpec, classes: tuple[str, ...], *, l2: bool, multi_label: bool
    ) -> None:
        super().__init__({stream.name: stream}, classes)
        self.agent, self._stream, self._l2, self._multi_label = agent.eval(), stream, l2, multi_label
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
        while following := self.agent.following(self._visited, length, self._state[0]) if length else None:
            self._next, place = following
            if self._next not in self._known:
                return
            self._state = self.agent.visit(self._known[self._next], place, *self._state)
            self._reading = self.agent.readout.step(self._reading, self._state[0])
            self._visited.append(self._next)
        self._next = -1

    def wanted(self) -> Wanted | None:
        if not self._spans_s or self._next < 0:
            return None
        row = np.array([self._next], np.int64)
        return Wanted(self._stream.name, row, self._spans_s[self._stream.name][row])

    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        row = self._need(stream, "features", features)
        if self._l2:
            row = torch.from_numpy(unit_length(row.cpu().numpy()))
        self._known[self._next] = row.to(self._state[0])
        self._go_on()

    @property
    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """(C,): of the classes; the same for all until a frame was taken."""
        if not self._visited:
            return torch.full((len(self.classes),), 1 / len(self.classes))
        return class_probabilities(self.agent.classifier(self._reading.value), self._multi_label)[0].cpu()

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        macs = {self._stream.name: len(self._known) * stream_cost(self._stream).macs}
        if self._visited:
            networks = self.agent.macs(np.array([len(self._visited)]))
            macs |= {name: int(of_video[0]) for name, of_video in networks.items()}
        return macs
