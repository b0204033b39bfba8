"""AdaFrame: an LSTM with a global memory looks at a frame, says where to look next, and stops where that no longer
pays.

After Wu, Xiong, Ma, Socher and Davis, "AdaFrame: Adaptive Frame Selection for Fast Video Recognition" (CVPR 2019).
We know of no released code. Sections and constants are checked against published notes on the paper, not its text:

- Memory (Sec. 3.1): cheap features of uniformly spaced frames. At each step the state attends to them, with
  positional encoding; what it reads is an input of the LSTM beside the frame's expensive features.
- Three linear layers on the state (Sec. 3.1): the classes; the mean of a Gaussian of fixed variance from which the
  next location is drawn (in evaluation, the mean itself); and the utility, the discounted sum of future rewards.
- Reward (Sec. 3.1): how far a look raises the margin m, the probability of the right class minus the largest of
  the others, above its maximum so far.
- Loss (Sec. 3.1): the cross-entropy of the prediction, plus λ times the squared error of the utility and the
  policy gradient, whose baseline the utility is.
- Adaptive lookahead (Sec. 3.2): it stops when the utility has been below its maximum by more than μ after each of
  p looks in a row. μ may change after training.

What is other here, and what was left open:

- Features come from the cache: neither backbone is fine-tuned with the policy.
- The cross-entropy is the mean over the predictions after all looks, as any look may be the last; the paper has
  that of the last one alone.
- The LSTM is by default as large as LiteEval's; the paper's has 2,048 units on FCVID and 1,024 on ActivityNet.
- The first look is at the middle of the video; the others start spread over it, each with its own bias, as the
  glimpses of FrameGlimpse do, and training moves them.
- The LSTM is told the place of the frame.
- Selection goes a share of the way, which the state decides, to the place that it attends to in the memory
  (`points`). As we read the paper, positional encoding is in the weights of the attention alone: what the state
  reads does not tell where it was found, and selection from the state alone cannot go where a cheap row points.
- State and memory are compared in a dimension of our own; in the paper it is that of the memory's features. The
  state's query has a bias, so that the zero state before the first look can attend to something, too.
- With several classes per video, m is the mean probability of its classes minus the largest of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pad_sequence

from cache_schema.costs import stream_cost
from policy.baselines.agent import (
    Agent,
    AgentMethod,
    AgentSession,
    drawn_location,
    row_at,
    stopping_thresholds,
)
from policy.config import RunConfig
from policy.data.batches import Batch, Role, VideoSet, batched, fed, uniform_rows
from policy.data.opening import Dataset
from policy.method import IntArray, Losses, Moment, Prediction, class_probabilities
from policy.networks.macs import linear_macs, lstm_step_macs
from policy.networks.packing import lengths_of, marked, packed_rows
from policy.networks.readout import Readout, dropped
from policy.networks.standardize import Standardize, unit_rows
from policy.samplers.adaframe_config import AdaFrameConfig
from policy.session import FloatArray, Graph, Wanted
from policy.training.losses import classification_loss, policy_gradient

NETWORK = "AdaFrame network"
"""Its name in the ledger of costs."""
_GOLDEN = 0.6180339887498949
"""Multiples of it, without their whole part, are spread evenly over [0, 1), however many there are."""


class Memory(NamedTuple):
    """The global memory of n videos, of S rows, or fewer in shorter videos.

    Attributes:
        features: (n, S, D), coarse and scaled.
        places: (n, S), where in the video the rows are, from 0 to 1.
        keys: (n, S, A), with positional encoding.
        present: (n, S) bool.
    """

    features: Tensor
    places: Tensor
    keys: Tensor
    present: Tensor


@dataclass(frozen=True)
class Looks:
    """K looks at each of B videos, in the caller's order.

    Attributes:
        logits: (B, K, C) after each look.
        rows: (B, K) int64, the frames.
        log_probabilities: (B, K − 1) log densities of the locations after the first, up to a constant.
        utilities: (B, K − 1) the utility before each of these.
    """

    logits: Tensor
    rows: Tensor
    log_probabilities: Tensor
    utilities: Tensor


class AdaFrameAgent(Agent):
    """The memory-augmented LSTM.

    Its threshold is the margin μ. The rule needs at least p + 1 looks. Below 0, where it has no meaning, a margin
    stops after fewer: one below −1, two below −1 + 1/p, and so on.

    Args:
        coarse_dim, fine_dim: D of the features.
        attention: A.
        looks: K.
        std: of the Gaussian around a location, in training, as a share of the video.
        falls: p.
        points: selection goes a share of the way to the place that the state attends to.
    """

    def __init__(
        self,
        coarse_dim: int,
        fine_dim: int,
        hidden: int,
        num_classes: int,
        *,
        looks: int,
        memory_rows: int,
        attention: int,
        std: float,
        margin: float,
        falls: int,
        points: bool,
    ) -> None:
        super().__init__()
        self.scale, self.coarse_scale = Standardize(fine_dim), Standardize(coarse_dim)
        self.query = nn.Linear(hidden, attention)
        self.key = nn.Linear(coarse_dim, attention, bias=False)
        self.cell = nn.LSTMCell(fine_dim + coarse_dim + 1, hidden)
        self.locate = nn.Linear(hidden, 1, bias=False)
        # Biases of the locations after the first.
        self.start = nn.Parameter(torch.logit((0.5 + _GOLDEN * torch.arange(1, looks)) % 1))
        self.pointing = nn.Linear(hidden, 1) if points else None
        self.utility = nn.Linear(hidden, 1)
        self.readout = Readout("last", hidden)
        self.classifier = nn.Linear(hidden, num_classes)
        self.register_buffer("threshold", torch.tensor(float(margin)))
        self.looks, self.memory_rows, self.std, self.falls = looks, memory_rows, std, falls

    @property
    def scales(self) -> Mapping[Role, Standardize]:
        return {"coarse": self.coarse_scale, "fine": self.scale}

    def remember(self, rows: Sequence[Tensor], lengths: Sequence[int]) -> Memory:
        """The memory of n videos.

        Args:
            rows: of each the coarse features (S', D) of its `uniform_rows`.
            lengths: T of each.
        """
        places = [self._places(length) for length in lengths]
        present = pad_sequence([torch.ones_like(each) for each in places], batch_first=True) > 0
        place = pad_sequence(places, batch_first=True)
        return self.memory(pad_sequence(list(rows), batch_first=True), place, present)

    def memory(self, rows: Tensor, places: Tensor, present: Tensor) -> Memory:
        """Of n videos with coarse features (n, S, D), at places (n, S); present (n, S)."""
        features = self.coarse_scale(rows)
        place = places.to(features)
        keys = self.key(features) + self._encoding(place)
        return Memory(features, place, keys, present.to(features.device))

    def _places(self, length: int) -> Tensor:
        """(S',): where in a video of T rows those of its memory are."""
        return torch.from_numpy((uniform_rows(length, self.memory_rows) + 0.5) / length)

    def _encoding(self, place: Tensor) -> Tensor:
        """(n, S, A) sines and cosines of places (n, S), as of the positions of as many rows as the memory has
        (Vaswani et al., 2017)."""
        units = self.key.out_features
        rates = 10_000.0 ** (-torch.arange(0, units, 2, device=place.device).to(place) / units)
        angles = self.memory_rows * place[..., None] * rates
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[..., :units]

    def recall(self, memory: Memory, h: Tensor) -> tuple[Tensor, Tensor]:
        """What states (n, H) read of the memory: features (n, D) and their mean place (n,)."""
        scores = (memory.keys @ self.query(h)[..., None]).squeeze(2)
        weights = scores.masked_fill(~memory.present, -torch.inf).softmax(1)[:, None]
        return (weights @ memory.features).squeeze(1), (weights @ memory.places[..., None]).flatten()

    def forward(
        self,
        coarse: PackedSequence,
        fine: PackedSequence,
        noise: Tensor | None = None,
        *,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Looks:
        """K looks at each of B videos, (N, D) features packed; only rows of the memory and of looks are read.

        Args:
            noise: (B, K − 1) standard normal, for locations around the means; None takes the means.
            dropout: share of the features, and of what the classifier reads, that is left out.
            generator: of dropout, on the CPU.
        """
        lengths = lengths_of(fine)
        videos = torch.arange(len(lengths), device=lengths.device)
        memory = self.remember(*self._memory_rows(coarse, lengths))
        h = c = self.utility.weight.new_zeros(len(lengths), self.cell.hidden_size)
        place, rows, logits, log_probabilities, utilities = self.middle(h), [], [], [], []
        for k in range(self.looks):
            context, attended = self.recall(memory, h)
            if k:
                utilities.append(self.utility(h).squeeze(1))
                place, log_probability = drawn_location(
                    self.location(h, attended, k), self.std, None if noise is None else noise[:, k - 1]
                )
                log_probabilities.append(log_probability)
            row = row_at(place, lengths)
            features = self.scale(fine.data[packed_rows(fine, videos, row)])
            features, context = (dropped(part, dropout, generator) for part in (features, context))
            h, c = self.visit(features, place, h, c, context)
            logits.append(self.classifier(dropped(h, dropout, generator)))
            rows.append(row)
        return Looks(*(torch.stack(parts, 1) for parts in (logits, rows, log_probabilities, utilities)))

    def _memory_rows(self, coarse: PackedSequence, lengths: Tensor) -> tuple[list[Tensor], list[int]]:
        features, counts = [], lengths.tolist()
        for video, length in enumerate(counts):
            rows = torch.from_numpy(uniform_rows(length, self.memory_rows)).to(lengths.device)
            features.append(coarse.data[packed_rows(coarse, torch.full_like(rows, video), rows)])
        return features, counts

    @staticmethod
    def middle(h: Tensor) -> Tensor:
        """(n,): the place of the first look at n videos."""
        return torch.full_like(h[:, 0], 0.5)

    def location(self, h: Tensor, attended: Tensor, k: int) -> Tensor:
        """(n,), from 0 to 1: the mean of look k ≥ 1 from the states (n, H) before it.

        Args:
            attended: (n,), the place that these attend to.
        """
        return self.located(h, attended, self.start[k - 1])

    def located(self, h: Tensor, attended: Tensor, bias: Tensor) -> Tensor:
        """`location`, with the bias of the look."""
        location: Tensor = (self.locate(h).squeeze(1) + bias).sigmoid()
        if self.pointing is None:
            return location
        return location.lerp(attended, self.pointing(h).squeeze(1).sigmoid())

    def stops(self, utilities: Tensor) -> Tensor:
        """(n, t) bool: whether videos stop at the looks after which they had these utilities (n, t)."""
        return stop_scores(utilities, self.falls) > self.threshold

    def following(
        self, visited: Sequence[int], length: int, h: Tensor, *context: Tensor
    ) -> tuple[int, Tensor] | None:
        if len(visited) == self.looks:
            return None
        place = self.location(h, context[0], len(visited)) if visited else self.middle(h)
        return int(row_at(place, torch.tensor([length], device=place.device))), place

    def macs(self, steps: IntArray, memory_rows: IntArray | int = 0) -> dict[str, IntArray]:
        """(M,) of so many steps and one prediction.

        Args:
            memory_rows: (M,), of the videos.
        """
        hidden, attention, features = self.cell.hidden_size, self.query.out_features, self.key.in_features
        keys = memory_rows * linear_macs(features, attention)
        recalled = linear_macs(hidden, attention) + memory_rows * (attention + features + 1)
        # Utilities after each look but the K-th, and a location before each but the first.
        location = linear_macs(hidden, 1 if self.pointing is None else 2)
        heads = linear_macs(hidden, 1) * np.minimum(steps, self.looks - 1) + location * (steps - 1)
        step = lstm_step_macs(self.cell.input_size, hidden) + recalled
        return {NETWORK: keys + steps * step + heads + linear_macs(hidden, self.classifier.out_features)}


def stop_scores(utilities: Tensor, falls: int) -> Tensor:
    """(n, t): a video stops at a look if its score is above the margin μ.

    The score is the least of the last p differences of the utility from its maximum so far. For the first p looks,
    of which fewer are known, it is −1, −1 + 1/p, … −1/p.

    Args:
        utilities: (n, t) after each look.
        falls: p.
    """
    drops = utilities.cummax(1).values - utilities
    scores = F.pad(drops, (falls - 1, 0), value=torch.inf).unfold(1, falls, 1).amin(2)
    few = torch.arange(utilities.shape[1], device=scores.device)
    return torch.where(few < falls, (few - falls).to(scores) / falls, scores)


@torch.no_grad()
def margins(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, K): m, from −1 to 1, of predictions (B, K, C) for targets as `classification_losses` takes them."""
    several = targets.is_floating_point()
    probabilities = class_probabilities(logits, several)
    right = (targets if several else F.one_hot(targets, logits.shape[2]))[:, None] > 0
    of_right = (probabilities * right).sum(2) / right.sum(2).clamp_min(1)
    return of_right - probabilities.masked_fill(right, 0).amax(2)


def returns(gains: Tensor, discount: float) -> Tensor:
    """(B, n): Σ_i γ^i r_{t+i} of rewards (B, n)."""
    total, sums = torch.zeros_like(gains[:, 0]), []
    for gain in reversed(gains.unbind(1)):
        total = gain + discount * total
        sums.append(total)
    return torch.stack(sums[::-1], 1)


class AdaFrameSession(AgentSession):
    """Wants the coarse rows of the memory first, then frame after frame."""

    agent: AdaFrameAgent

    def _restart(self) -> None:
        self._coarse = next(iter(self.streams.values()))
        self._remembered: list[Tensor] = []
        self._memory: Memory | None = None
        self._utilities: list[Tensor] = []
        super()._restart()

    def wanted(self) -> Wanted | None:
        if not self._spans_s or self._memory is not None:
            return super().wanted()
        spans_s = self._spans_s[self._coarse.name]
        rows = uniform_rows(len(spans_s), self.agent.memory_rows)[len(self._remembered) :]
        return Wanted(self._coarse.name, rows, spans_s[rows])

    @torch.no_grad()
    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        if self._memory is not None:
            super()._see(stream, features, scores)
            return
        self._remembered += self._read(stream, features)
        length = len(self._spans_s[stream])
        if len(self._remembered) == min(length, self.agent.memory_rows):
            self._memory = self.agent.remember([torch.stack(self._remembered)], [length])
            self._go_on()

    def _following(self, length: int) -> tuple[int, Tensor] | None:
        if self._memory is None:
            return None
        if self._utilities and self.agent.stops(torch.cat(self._utilities, 1))[0, -1]:
            return None
        _, attended = self.agent.recall(self._memory, self._state[0])
        return self.agent.following(self._visited, length, self._state[0], attended)

    def _visit(self, features: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        assert self._memory is not None
        context, _ = self.agent.recall(self._memory, self._state[0])
        state = self.agent.visit(self.agent.scale(features), place, *self._state, context)
        self._utilities.append(self.agent.utility(state[0]))
        return state

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        macs = Counter({self._coarse.name: len(self._remembered) * stream_cost(self._coarse).macs})
        macs.update(super().macs_by_name)
        return macs

    def _network_macs(self, steps: int) -> Mapping[str, int]:
        macs = self.agent.macs(np.array([steps]), len(self._remembered))
        return {name: int(of_video[0]) for name, of_video in macs.items()}

    def graphs(self) -> Sequence[Graph]:
        agent, hidden = self.agent, self.agent.cell.hidden_size
        memory = {
            "coarse": torch.zeros(agent.memory_rows, self._coarse.feature_dim),
            "coarse_places": torch.zeros(agent.memory_rows),
            "coarse_rows": torch.ones(1),
        }
        states = {name: torch.zeros(1, hidden) for name in ("h", "c")}
        states |= {"steps": torch.zeros(1), "highest": torch.zeros(1), "drops": torch.zeros(agent.falls)}
        look = {"fine": torch.zeros(1, self._stream.feature_dim), "place": torch.full((1,), 0.5)}
        facts = {
            "streams": {"coarse": self._coarse.name, "fine": self._stream.name},
            "rows": agent.memory_rows,
            "looks": agent.looks,
            "threshold": float(agent.threshold),
            "stops": "where score is above the threshold, or after so many looks",
            "input_scaling": "inside: rows as the backbones give them",
        }
        outputs = ("score", "place_next", *(f"{name}_next" for name in states), "probabilities")
        step = _Step(agent, self._l2, self._multi_label)
        return (Graph("step", step, {**memory, **look, **states}, outputs, facts),)


class _Step(nn.Module):
    """A look, at fine features (1, D) of a place (1,), and where to look next."""

    def __init__(self, agent: AdaFrameAgent, l2: bool, multi_label: bool) -> None:
        super().__init__()
        self.agent, self.l2, self.multi_label = agent, l2, multi_label

    def forward(
        self,
        coarse: Tensor,
        coarse_places: Tensor,
        coarse_rows: Tensor,
        fine: Tensor,
        place: Tensor,
        h: Tensor,
        c: Tensor,
        steps: Tensor,
        highest: Tensor,
        drops: Tensor,
    ) -> tuple[Tensor, ...]:
        """The score (1,) of stopping, the next place, the state after the look, and class probabilities (1, C).

        Args:
            coarse, coarse_places, coarse_rows: (S, D), (S,) and (1,): rows of the memory, zeros after them, their
                places, and how many they are.
            h, c, steps, highest, drops: the state, zeros before the first look: (1, H) twice, how many looks
                there were, the maximum of the utility, and its last p differences from it.
        """
        agent, falls = self.agent, self.agent.falls
        if self.l2:
            coarse, fine = unit_rows(coarse), unit_rows(fine)
        present = torch.arange(agent.memory_rows) < coarse_rows
        memory = agent.memory(coarse[None], coarse_places[None], present[None])
        context, _ = agent.recall(memory, h)
        h, c = agent.visit(agent.scale(fine), place, h, c, context)
        utility = agent.utility(h).squeeze(1)
        highest = torch.where(steps < 1, utility, torch.maximum(highest, utility))
        drops = torch.cat([drops[1:], highest - utility])
        score = torch.where(steps < falls, (steps - falls) / falls, drops.amin(0, keepdim=True))
        _, attended = agent.recall(memory, h)
        bias = agent.start.index_select(
            0, steps.long().clamp_max(agent.looks - 2)
        )  # nothing is after the last
        after = agent.located(h, attended, bias)
        probabilities = class_probabilities(agent.classifier(h), self.multi_label)
        return score, after, h, c, steps + 1, highest, drops, probabilities


class AdaFrame(AgentMethod):
    """Its threshold is the margin μ (`AdaFrameAgent`)."""

    title = "AdaFrame"
    roles: ClassVar[tuple[Role, ...]] = ("coarse", "fine")
    session_class = AdaFrameSession

    config: AdaFrameConfig
    model: AdaFrameAgent

    @classmethod
    def agent(cls, config: RunConfig, dims: Mapping[Role, int], num_classes: int) -> AdaFrameAgent:
        assert isinstance(config, AdaFrameConfig)
        return AdaFrameAgent(
            dims["coarse"],
            dims["fine"],
            config.fine_hidden,
            num_classes,
            looks=config.looks,
            memory_rows=config.memory_rows,
            attention=config.attention_units,
            std=config.location_std,
            margin=config.margin,
            falls=config.falls,
            points=config.points,
        )

    @property
    def value_name(self) -> str:
        return "margin by which utility must fall"

    def notes(self, data: Dataset) -> Sequence[str]:
        if not self.config.points:
            return []
        return [
            "adaframe looks, as far as it decides, where its memory points: ours; --no-points is the paper's"
        ]

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        config, targets = self.config, batch.targets
        noise = torch.randn(len(targets), config.looks - 1, generator=generator).to(targets.device)
        return self.loss_of(self._looks(batch, noise, config.dropout, generator), targets)

    def loss_of(self, out: Looks, targets: Tensor) -> Losses:
        """The losses of looks at locations that were drawn."""
        config = self.config
        reached = margins(out.logits, targets)
        gains = (reached[:, 1:] - reached.cummax(1).values[:, :-1]).clamp_min(0)
        future = returns(gains, config.discount)
        classification = torch.stack(
            [classification_loss(each, targets) for each in out.logits.unbind(1)]
        ).mean()
        advantage = future - out.utilities
        policy = policy_gradient(out.log_probabilities.flatten(), advantage.flatten()) / len(targets)
        utility = 0.5 * advantage.square().mean()
        return {
            "loss": classification + config.exploration * (utility + policy),
            "classification": classification,
            "utility_error": utility,
            "reward": future[:, 0].mean(),
        }

    @torch.no_grad()
    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        out = self._looks(batch)
        count = self._counts(self.model.stops(out.utilities))
        videos = torch.arange(len(count), device=count.device)
        looked = torch.arange(self.config.looks, device=count.device) < count[:, None]
        lengths = lengths_of(batch.inputs["fine"])
        gates = marked(lengths, videos[:, None].expand_as(looked)[looked], out.rows[looked])
        memory_rows = np.minimum(lengths.cpu().numpy(), self.config.memory_rows)
        macs = self.model.macs(count.cpu().numpy(), memory_rows)
        return Prediction(class_probabilities(out.logits[videos, count - 1], self.multi_label), gates, macs)

    def _looks(
        self,
        batch: Batch,
        noise: Tensor | None = None,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Looks:
        looks: Looks = self.model(
            batch.inputs["coarse"], batch.inputs["fine"], noise, dropout=dropout, generator=generator
        )
        return looks

    @staticmethod
    def _counts(stops: Tensor) -> Tensor:
        """(B,) int64: how many looks, of stops (B, K − 1) after all but the last."""
        ends = F.pad(stops, (0, 1), value=True)
        return 1 + ends.int().argmax(1)

    def stream_rows(self, role: Role, row_counts: IntArray, gated_counts: IntArray) -> IntArray:
        if role == "coarse":
            return np.minimum(row_counts, self.config.memory_rows)
        return gated_counts

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        return {}  # of looks, which may be several at a frame: `predict` charges them

    @torch.no_grad()
    def thresholds(self, videos: VideoSet, device: torch.device) -> FloatArray:
        scores: list[FloatArray] = []
        for batch in fed(videos, batched(range(len(videos)), self.config.batch), device):
            scores += [*stop_scores(self._looks(batch).utilities, self.config.falls).double().cpu().numpy()]
        return stopping_thresholds(scores)
