"""Exit by confidence: streams from the cheapest to the dearest, row by row, until the largest class probability is
high enough. Nothing decides that would be trained.

Each stream has class scores of rows, or a linear classifier of them. The answer is the mean of the probabilities
of the rows that were read of the dearest stream so far, with a temperature (Guo et al., ICML 2017), or of several
classes per video a slope and a shift of its log-odds (Platt, 1999), so that it is as sure as it should be. For
each step they are those with which training videos are likeliest, judged by classifiers that were not fitted to
them. Class scores of the cache are taken as they are: of videos on which their network was trained it is too sure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cache_schema import StreamSpec
from cache_schema.costs import stream_cost
from policy.baselines.uniform import CLASSIFIER, score_columns, source_of_scores
from policy.data.batches import Role, VideoSet
from policy.data.opening import Dataset
from policy.method import LEAST_PROBABILITY, class_probabilities
from policy.networks.temperature import Calibration, calibration_sample
from policy.samplers.exits import ExitMethod, ExitNetwork, Exits, ExitSession, Step, exit_order, unsure
from policy.samplers.judge import RowJudge, notes_on_scores
from policy.samplers.rows_config import ConfidenceExitConfig
from policy.samplers.shared import FittedAtOnce
from policy.session import Graph, Session, TrainedRun


class ConfidenceNetwork(ExitNetwork):
    """Reads all rows of a stream, then the next dearer one's.

    Args:
        specs: by role.

    Attributes:
        slopes, shifts: (S, T), of the answer after each row of each stream, the cheapest stream first.
    """

    slopes: Tensor
    shifts: Tensor

    def __init__(
        self,
        config: ConfidenceExitConfig,
        specs: Mapping[Role, StreamSpec],
        classes: Sequence[str],
        *,
        multi_label: bool,
    ) -> None:
        super().__init__(sorted(specs, key=lambda role: stream_cost(specs[role]).macs), config.frames)
        judges = {role: RowJudge(specs[role], classes, multi_label=multi_label) for role in self.roles}
        self.judges, self.row_macs = nn.ModuleDict(judges), [judge.macs for judge in judges.values()]
        self.confidence, self.multi_label, self.num_classes = config.confidence, multi_label, len(classes)
        self.register_buffer("slopes", torch.ones(len(self.roles), config.frames))
        self.register_buffer("shifts", torch.zeros(len(self.roles), config.frames))

    def plan(self, rows: int) -> Sequence[Step]:
        return [Step((role,), row) for role in self.roles for row in exit_order(rows)]

    def forward(self, inputs: Mapping[Role, Tensor], lengths: Tensor) -> Exits:
        answers, steps = [], []
        for stage, role in enumerate(role for role in self.roles if role in inputs):
            scores = self.scores(self.judges[role](inputs[role]))
            place = torch.arange(scores.shape[1], device=scores.device)
            slopes, shifts = (of[stage, : len(place), None] for of in (self.slopes, self.shifts))
            answers.append(class_probabilities(slopes * scores + shifts, self.multi_label))
            steps.append(stage * lengths[:, None] + torch.minimum(place + 1, lengths[:, None]))
        answer, step = torch.cat(answers, 1), torch.cat(steps, 1)
        is_step = step.diff(dim=1, prepend=step.new_zeros(len(step), 1)) > 0
        going_on = unsure(answer, self.confidence).masked_fill(~is_step, torch.inf)
        return Exits(going_on, answer, step)

    def scores(self, probabilities: Tensor) -> Tensor:
        """(B, K, C) of a stream's rows to the logarithms, or log-odds, of their means up to each row."""
        rows = torch.arange(1, probabilities.shape[1] + 1, device=probabilities.device)
        return self.logarithms(probabilities.cumsum(1) / rows[:, None])

    def logarithms(self, probabilities: Tensor) -> Tensor:
        """Of probabilities, or the log-odds, where a video may have several classes."""
        inside = probabilities.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        return inside.logit() if self.multi_label else inside.log()

    def macs(self, rows: int, steps: int) -> dict[str, int]:
        read = [min(max(steps - rows * stage, 0), rows) for stage in range(len(self.roles))]
        return {CLASSIFIER: sum(macs * count for macs, count in zip(self.row_macs, read, strict=True))}

    def graphs(self, specs: Mapping[Role, StreamSpec], *, l2: bool) -> Sequence[Graph]:
        """The graph "step-NAME" of each stream, the cheapest first."""
        facts = {"streams": [specs[role].name for role in self.roles], **self.graph_facts()}
        states = {"total": torch.zeros(1, self.num_classes), "steps": torch.zeros(1)}
        steps = [_Step(self, stage, l2) for stage in range(len(self.roles))]
        return [
            Graph(
                f"step-{specs[role].name}",
                step,
                {**step.judge.graph_inputs(specs[role], 1), **states},
                ("log_odds", *(f"{name}_next" for name in states), "probabilities"),
                {"stream": specs[role].name, **facts},
            )
            for role, step in zip(self.roles, steps, strict=True)
        ]


class _Step(nn.Module):
    """What to do after a row (1, D) of a stream, and the class probabilities.

    Args:
        stage: place of the stream among the network's roles.
    """

    def __init__(self, network: ConfidenceNetwork, stage: int, l2: bool) -> None:
        super().__init__()
        self.network, self.stage, self.l2, self.rows = network, stage, l2, int(network.rows)
        judge = network.judges[network.roles[stage]]
        assert isinstance(judge, RowJudge)
        self.judge = judge

    def forward(
        self, total: Tensor, steps: Tensor, features: Tensor | None = None, scores: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Log-odds (1,) of going on, `total` and `steps` after the row, and class probabilities (1, C).

        Args:
            total: (1, C), the sum of the class probabilities of the stream's rows before, zeros before the first.
            steps: (1,), how many rows that were.
        """
        network = self.network
        place, steps = steps.long().clamp_max(self.rows - 1), steps + 1
        total = total + self.judge.of_graph(features, scores, l2=self.l2)
        slope, shift = (of[self.stage].index_select(0, place) for of in (network.slopes, network.shifts))
        answer = class_probabilities(slope * network.logarithms(total / steps) + shift, network.multi_label)
        return unsure(answer, network.confidence), total, steps, answer


class ConfidenceExit(FittedAtOnce, ExitMethod):
    """Stops when its answer is sure. Only classifiers of rows, and how sure they are, are fitted."""

    title = "Confidence exit"

    config: ConfidenceExitConfig
    model: ConfidenceNetwork

    def __init__(self, config: ConfidenceExitConfig, data: Dataset) -> None:
        specs = {role: stream.spec for role, stream in data.train.streams.items()}
        for role, spec in specs.items():
            if score_columns(spec, data.classes) is None:
                data.train.feature_dim(role)  # which raises the user's error where there are none
        network = ConfidenceNetwork(config, specs, data.classes, multi_label=data.multi_label)
        super().__init__(config, data, network)
        if config.input_norm == "standard":
            for role, judge in self._judges():
                judge.fit_scale(data.train, role)

    @classmethod
    def class_scores(cls, data: Dataset) -> str:
        return ", ".join(
            source_of_scores(stream.spec, data.classes) for stream in data.train.streams.values()
        )

    def notes(self, data: Dataset) -> Sequence[str]:
        return [*notes_on_scores(self.specs.values(), data.classes)]

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session:
        assert isinstance(run.config, ConfidenceExitConfig)
        network = ConfidenceNetwork(run.config, run.streams, run.classes, multi_label=run.multi_label)
        scored = [role for role, judge in network.judges.items() if judge.columns is not None]
        return ExitSession.of_run(network, run, device, scored=scored)

    @property
    def scored(self) -> tuple[Role, ...]:
        return tuple(role for role, judge in self._judges() if judge.columns is not None)

    @property
    def trains(self) -> bool:
        return True

    @torch.no_grad()
    def finish(self, videos: VideoSet, device: torch.device) -> None:
        """Fit classifiers to the rows of training videos, and for each step how sure it may be."""
        self.cap_rows(videos)
        sample = calibration_sample(videos.trained_labels)
        targets = videos.trained_labels[sample]
        rows = [self.rows(videos.length(index)) for index in sample.tolist()]
        lengths = np.array([len(each) for each in rows])
        for stage, role in enumerate(self.model.roles):
            judge = self.model.judges[role]
            assert isinstance(judge, RowJudge)
            judged = torch.full((len(sample), int(lengths.max()), videos.labels.shape[1]), 0.5)
            for places, judged_by in judge.fit(videos, role, self.config.seed):
                for place in np.flatnonzero(np.isin(sample, places)).tolist():
                    order = rows[place][list(exit_order(len(rows[place])))]
                    read = judge.rows_of(videos, role, int(sample[place]))[order]
                    judged[place, : len(read)] = judged_by(torch.from_numpy(read).to(device)).cpu()
            for place, scores in enumerate(self.model.scores(judged).unbind(1)):
                has = lengths > place
                found = Calibration.fit(scores.numpy()[has], targets[has], videos.multi_label)
                self.model.slopes[stage, place], self.model.shifts[stage, place] = found.slope, found.shift

    def _judges(self) -> list[tuple[Role, RowJudge]]:
        return [(role, judge) for role, judge in self.model.judges.items() if isinstance(judge, RowJudge)]
