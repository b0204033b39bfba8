"""Methods that read a video step by step and stop as soon as they are sure: what they share, and their session.

A step is a row of one stream, or of several. After each there is an answer, and the log-odds of going on; a video
goes on where these are at least the threshold, which is 0 until it is moved. A higher one spends less, and what it
computes is computed at a lower one, too.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from cache_schema import FeatureCache, StreamSpec, UserError
from cache_schema.costs import stream_cost
from policy.config import RunConfig
from policy.data.batches import Batch, Role, VideoSet, batched, fed, uniform_rows, unit_length
from policy.data.opening import Dataset
from policy.evaluation.operating import Curve, OperatingTarget, TargetKind
from policy.method import LEAST_PROBABILITY, Calibration, IntArray, Method, Prediction
from policy.networks.packing import lengths_of, packed_rows
from policy.samplers.shared import further_streams
from policy.session import AlignedSession, Graph, TrainedRun, Wanted
from policy.training.checkpoint import read_weights

CURVE_POINTS = 8
FORCED = 1e9
"""A threshold beyond all log-odds: below −FORCED all rows are read, above FORCED only the first."""


@cache
def exit_order(rows: int) -> tuple[int, ...]:
    """The middle row, the first and the last, then again and again the middle of the widest gap between rows that
    were read; of equally wide ones, of the gap next to the middle row.

    After FrameExit, Appendix A. The middle and the ties are those of the order of 10 frames that was released: the
    appendix's Algorithm 1 begins at the fifth of them, the released order at the sixth.
    """
    order = list(dict.fromkeys((rows // 2, 0, rows - 1))) if rows else []
    while len(order) < rows:
        gaps = [(left, right) for left, right in pairwise(sorted(order)) if right - left > 1]
        middles = {gap: round(sum(gap) / 2) for gap in gaps}
        order.append(middles[min(gaps, key=lambda gap: (gap[0] - gap[1], abs(middles[gap] - order[0])))])
    return tuple(order)


class Step(NamedTuple):
    """What is read before the next decision: a row, of which streams."""

    roles: tuple[Role, ...]
    row: int


@dataclass(frozen=True)
class Exits:
    """What is to be done with B videos after each of at most J steps.

    Attributes:
        going_on: (B, J) log-odds of going on; infinite at places that are no step of a video.
        answers: (B, J, C) class probabilities.
        step: (B, J) int64, which step of the video it is, from 1; of a place that is none, the one before.
    """

    going_on: Tensor
    answers: Tensor
    step: Tensor

    def taken(self, threshold: Tensor | float) -> tuple[Tensor, Tensor]:
        """Steps (B,) until each video stops, and its class probabilities (B, C) there."""
        is_last = self.going_on.isfinite() & (self.step == self.step[:, -1:])
        stops = (self.going_on < threshold) | is_last
        place = stops.int().argmax(1)  # the first
        videos = torch.arange(len(place), device=place.device)
        return self.step[videos, place], self.answers[videos, place]


class ExitNetwork(nn.Module):
    """A network that decides after every step.

    Attributes:
        roles: of the streams it reads.
        threshold: () on the log-odds of going on.
        rows: () int64, how many rows of a video it reads at most.
    """

    threshold: Tensor
    rows: Tensor

    def __init__(self, roles: Sequence[Role], rows: int) -> None:
        super().__init__()
        self.roles = tuple(roles)
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("rows", torch.tensor(rows))

    def plan(self, rows: int) -> Sequence[Step]:
        """The steps of a video of which so many rows may be read."""
        return [Step(self.roles, row) for row in exit_order(rows)]

    @abstractmethod
    def forward(self, inputs: Mapping[Role, Tensor], lengths: Tensor) -> Exits:
        """What to do after each step.

        Args:
            inputs: (B, K, D), K ≥ 1, by role, in the order in which rows are read; of a stream that no video has
                come to there is none.
            lengths: (B,), how many of the K are rows of a video.
        """

    @abstractmethod
    def macs(self, rows: int, steps: int) -> dict[str, int]:
        """Of the networks by name, for a video of so many rows that stops after so many steps."""

    def graphs(self, specs: Mapping[Role, StreamSpec], *, l2: bool) -> Sequence[Graph]:
        """For other runtimes; none where nobody has written them.

        Args:
            specs: by role.
            l2: features are brought to length 1 first.
        """
        return ()

    def graph_facts(self) -> dict[str, object]:
        """What one must know to use its graphs."""
        rows = int(self.rows)
        return {
            "rows": rows,
            "orders": [exit_order(count) for count in range(1, rows + 1)],
            "threshold": float(self.threshold),
            "goes_on": "where log_odds is at least the threshold, as long as there are rows",
        }


def unsure(probabilities: Tensor, confidence: float) -> Tensor:
    """(…,) log-odds of going on, below 0 where the largest of class probabilities (…, C) is above a confidence."""
    least, most = LEAST_PROBABILITY, 1 - LEAST_PROBABILITY
    sure = min(max(confidence, least), most)
    return math.log(sure / (1 - sure)) - probabilities.detach().amax(-1).clamp(least, most).logit()


class Spending:
    """What a video costs after each step, by its number of rows.

    Args:
        specs: by role.
    """

    def __init__(self, network: ExitNetwork, specs: Mapping[Role, StreamSpec]) -> None:
        self.network, self.specs = network, specs
        self._known: dict[int, list[dict[str, int]]] = {}

    def after(self, rows: int, steps: int) -> dict[str, int]:
        """MACs by the name of the stream or network."""
        if rows not in self._known:
            plan = self.network.plan(rows)
            self._known[rows] = [self._macs(plan[:count], rows) for count in range(len(plan) + 1)]
        return self._known[rows][steps]

    def _macs(self, plan: Sequence[Step], rows: int) -> dict[str, int]:
        computed = {
            spec.name: stream_cost(spec).macs * sum(role in step.roles for step in plan)
            for role, spec in self.specs.items()
        }
        return computed | (self.network.macs(rows, len(plan)) if plan else {})


class ExitMethod(Method):
    """Reads a video step by step until it is sure."""

    roles: ClassVar[tuple[Role, ...]] = ("fine",)
    gated = "fine"
    operating_targets: ClassVar[tuple[TargetKind, ...]] = ("usage", "threshold", "budget")
    value_buffer = "threshold"
    is_incremental = True

    model: ExitNetwork

    def __init__(self, config: RunConfig, data: Dataset, network: ExitNetwork) -> None:
        super().__init__(config, data)
        self.model = network
        self.specs = {role: stream.spec for role, stream in data.train.streams.items()}
        self.spending = Spending(network, self.specs)

    @classmethod
    def streams(cls, config: RunConfig, cache: FeatureCache) -> dict[Role, str]:
        return further_streams(config, super().streams(config, cache))

    def rows(self, length: int) -> IntArray:
        return uniform_rows(length, int(self.model.rows))

    def cap_rows(self, videos: VideoSet) -> None:
        """Read no more rows than the longest training video has: what comes after more has learned nothing."""
        longest = max(map(videos.length, range(len(videos))))
        self.model.rows.clamp_(max=longest)

    def inputs(self, batch: Batch) -> tuple[Tensor, dict[Role, Tensor]]:
        """How many rows (B,) of each video may be read, and these in order, as `ExitNetwork` takes them."""
        packed = {role: (batch.scores if role in self.scored else batch.inputs)[role] for role in self.specs}
        lengths = lengths_of(next(iter(packed.values())))
        return lengths, {role: in_reading_order(each, lengths) for role, each in packed.items()}

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        lengths, inputs = self.inputs(batch)
        exits: Exits = self.model(inputs, lengths)
        steps, answers = exits.taken(self.model.threshold)
        gates, spent = [], []
        for rows, count in zip(lengths.tolist(), steps.tolist(), strict=True):
            of_video = torch.zeros(rows)
            of_video[[step.row for step in self.model.plan(rows)[:count] if "fine" in step.roles]] = 1.0
            gates.append(of_video)
            spent.append(self.spending.after(rows, count))
        fine = self.specs["fine"].name  # which is charged by the gates
        further = {name: np.array([each[name] for each in spent]) for name in spent[0] if name != fine}
        return Prediction(answers, gates, further)

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        return {}  # they are among those of a prediction: they depend on the step, not only on the fine rows

    # --- operating points ---

    @property
    def value_name(self) -> str:
        return "threshold on the log-odds of going on"

    @torch.no_grad()
    def _further_steps(self, videos: VideoSet, device: torch.device, *, gflops: bool) -> _FurtherSteps:
        """Of videos, with their costs in GFLOPs, or in shares of the fine rows."""
        self.model.to(device).eval()
        thresholds, costs, base = [], [], 0.0
        parts = batched(range(len(videos)), self.config.batch)
        for batch in fed(videos, parts, device, rows=self.rows, scored=self.scored):
            lengths, inputs = self.inputs(batch)
            exits: Exits = self.model(inputs, lengths)
            # A step is taken if the video has not stopped after any before it.
            least = exits.going_on.cummin(1).values.cpu().numpy()
            for index, going_on, step in zip(batch.indices, least, exits.step.cpu().numpy(), strict=True):
                length = videos.length(index)
                places = np.searchsorted(step, np.arange(1, step[-1] + 1))
                spent = np.array([self._spent(length, count, gflops) for count in range(1, step[-1] + 1)])
                base += spent[0] / len(videos)
                thresholds.append(going_on[places[:-1]])
                costs.append(np.diff(spent) / len(videos))
        return _FurtherSteps(np.concatenate(thresholds), np.concatenate(costs), base)

    def _spent(self, length: int, steps: int, gflops: bool) -> float:
        rows = len(self.rows(length))
        if gflops:
            return sum(self.spending.after(rows, steps).values()) / 1e9
        return sum("fine" in step.roles for step in self.model.plan(rows)[:steps]) / length

    def value_at(self, target: OperatingTarget, calibration: Calibration, device: torch.device) -> float:
        ((_, videos),) = calibration
        steps = self._further_steps(videos, device, gflops=target.kind == "budget")
        if target.value < steps.base:
            unit = "GFLOPs per video" if target.kind == "budget" else "of the rows"
            raise UserError(
                f"{target}: the least that is possible is {steps.base:.4g} {unit}, with one step each"
            )
        return steps.threshold_within(target.value)

    def operating_curve(self, videos: VideoSet, calibration: VideoSet, *, device: torch.device) -> Curve:
        """At thresholds from one step for each video to all steps. Their mean costs on the calibration videos are
        closer to each other where they are low, as more is gained there."""
        steps = self._further_steps(calibration, device, gflops=True)
        budgets = steps.base + np.linspace(0, 1, CURVE_POINTS)[1:-1] ** 2 * steps.costs.sum()
        between = {steps.threshold_within(float(budget)) for budget in budgets}
        values = (FORCED, *sorted(between, reverse=True), -FORCED)
        return self.at_values(values, videos, device=device)


class _FurtherSteps(NamedTuple):
    """The N steps of all videos beyond the first one of each.

    Attributes:
        thresholds: (N,), the highest at which each is taken.
        costs: (N,), what each adds to the mean cost over videos.
        base: mean cost of the first steps.
    """

    thresholds: npt.NDArray[np.float32]
    costs: npt.NDArray[np.float64]
    base: float

    def threshold_within(self, budget: float) -> float:
        """The lowest at which the mean cost is at most the budget."""
        order = np.argsort(-self.thresholds, kind="stable")
        falling, total = self.thresholds[order], self.base + np.cumsum(self.costs[order])
        edges = np.flatnonzero(np.diff(falling)) + 1  # equal ones are taken together
        counts = np.array([0, *edges, len(falling)])
        # A little more for what rounding has added to a sum.
        spent = np.concatenate([[self.base], total])[counts]
        affordable = counts[spent <= budget * (1 + 1e-9)][-1]
        if affordable == 0:
            return float(falling[0]) + 1 if len(falling) else 0.0
        last = falling[affordable - 1]
        if affordable == len(falling):
            return float(last) - 1
        middle = np.float32((last + falling[affordable]) / 2)
        return float(middle if middle > falling[affordable] else last)


def in_reading_order(packed: PackedSequence, lengths: Tensor) -> Tensor:
    """(B, K, D) of packed rows (N, D), in the order in which a video's rows are read; beyond them any row."""
    most = int(lengths.max())
    order = torch.tensor(
        [[*exit_order(length), *[0] * (most - length)] for length in lengths.tolist()], device=lengths.device
    )
    videos = torch.arange(len(lengths), device=lengths.device)[:, None].expand_as(order)
    return packed.data[packed_rows(packed, videos.flatten(), order.flatten())].view(*order.shape, -1)


class ExitSession(AlignedSession):
    """Wants a row of a stream at a time, until the network is sure.

    Args:
        network: trained; on its device. It is put in evaluation mode.
        scored: the roles of which it reads class scores instead of features.
        l2: features are brought to length 1 first.
    """

    def __init__(
        self,
        network: ExitNetwork,
        specs: Mapping[Role, StreamSpec],
        classes: tuple[str, ...],
        *,
        scored: Sequence[Role] = (),
        l2: bool,
    ) -> None:
        super().__init__({spec.name: spec for spec in specs.values()}, classes)
        self.network, self._specs, self._scored, self._l2 = network.eval(), specs, scored, l2
        self._spending = Spending(network, specs)
        self._restart()

    @classmethod
    def of_run(
        cls, network: ExitNetwork, run: TrainedRun, device: torch.device, **more: Sequence[Role]
    ) -> ExitSession:
        """With the weights of a run."""
        read_weights(run.weights, network)
        return cls(network.to(device), run.streams, run.classes, l2=run.config.input_norm == "l2", **more)

    def _restart(self) -> None:
        length = len(next(iter(self._spans_s.values()), ()))
        self._rows = uniform_rows(length, int(self.network.rows))
        self._plan = self.network.plan(len(self._rows))
        self._taken: dict[Role, list[Tensor]] = {}
        self._step, self._within = 0, 0  # the step at work, and how many of its streams were taken
        self._going_on = math.inf  # log-odds, after the last step
        self._answer = torch.full((len(self.classes),), 1 / len(self.classes))

    def wanted(self) -> Wanted | None:
        is_sure = not self._within and self._going_on < self.network.threshold
        if is_sure or self._step == len(self._plan):
            return None
        roles, row = self._plan[self._step]
        name, place = self._specs[roles[self._within]].name, self._rows[[row]]
        return Wanted(name, place, self._spans_s[name][place])

    @torch.no_grad()
    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        roles = self._plan[self._step].roles
        role = roles[self._within]
        if role in self._scored:
            row = self._need(stream, "class scores", scores)
        else:
            row = self._need(stream, "features", features)
            row = torch.from_numpy(unit_length(row.cpu().numpy())) if self._l2 else row
        self._taken.setdefault(role, []).append(row)
        self._within += 1
        if self._within < len(roles):
            return
        self._step, self._within = self._step + 1, 0
        device = self.network.threshold.device
        inputs = {role: torch.cat(rows)[None].to(device) for role, rows in self._taken.items()}
        exits: Exits = self.network(inputs, torch.tensor([len(self._rows)], device=device))
        place = int((exits.step[0] == self._step).nonzero()[0])
        self._answer = exits.answers[0, place].cpu()
        self._going_on = float(exits.going_on[0, place])

    @property
    def operating_value(self) -> Tensor:
        return self.network.threshold

    @property
    def probabilities(self) -> Tensor:
        """(C,): of the classes; the same for all until a step was taken."""
        return self._answer

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        spent = self._spending.after(len(self._rows), self._step)
        begun = self._plan[self._step].roles[: self._within] if self._within else ()
        for role in begun:
            spec = self._specs[role]
            spent = spent | {spec.name: spent[spec.name] + stream_cost(spec).macs}
        return spent

    def graphs(self) -> Sequence[Graph]:
        return self.network.graphs(self._specs, l2=self._l2)
