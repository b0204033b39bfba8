"""What the runs of a table come to: means and spreads over seeds, and the state under the table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cache_schema.costs import cost_table, stream_cost
from policy.data import Dataset, Role
from policy.runs import Result, Run
from policy.tables.datasets import DATASETS
from policy.tables.experiment import Experiment, PaperTable

Measure = Literal["map_percent", "top1_percent", "gflops", "fine_features", "usage_percent"]

MEASURES: Mapping[Measure, Callable[[Result], float]] = {
    "map_percent": lambda result: 100 * result.mean_average_precision,
    "top1_percent": lambda result: 100 * result.top1,
    "gflops": lambda result: result.gflops_mean,
    "fine_features": lambda result: result.fine_features_mean,
    "usage_percent": lambda result: 100 * result.usage,
}
"""What is reported of a run: each a mean over the videos of the evaluation subset."""

PAPER_STREAMS: Mapping[Role, str] = {"coarse": "mobilenetv2_112", "fine": "resnet101_224"}
"""Sec. 4.1."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds (of a sample: n − 1); None of a single one."""

    mean: float
    std: float | None

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Row:
    """One experiment and its runs: one per seed, or none if it is not built yet."""

    experiment: Experiment
    runs: tuple[Run, ...]

    @property
    def built(self) -> bool:
        return bool(self.runs)

    @property
    def measures(self) -> Mapping[Measure, Spread]:
        """Empty if it is not built yet."""
        if not self.runs:
            return {}
        return {name: Spread.of([of(run.result) for run in self.runs]) for name, of in MEASURES.items()}


@dataclass(frozen=True)
class Report:
    """A table with our numbers.

    Attributes:
        dataset: the paper's data set that ours is, a key of DATASETS, or None.
        state: what one has to know to read the numbers, a sentence each.
        command: prints this table again.
    """

    table: PaperTable
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    labels_name: str
    dataset: str | None
    state: tuple[str, ...]
    command: str


def make_report(
    table: PaperTable,
    runs: Mapping[str, tuple[Run, ...]],
    data: Dataset,
    *,
    seeds: Sequence[int],
    labels_name: str,
    dataset: str | None,
    command: str,
) -> Report:
    """Args:
    runs: by method, as `running.carry_out` returns them.
    data: with both streams.
    """
    rows = tuple(Row(one, runs.get(one.method or "", ())) for one in table.experiments)
    state = (
        _videos(data, labels_name),
        *(f"{_stream(data, role)}." for role in ("coarse", "fine")),
        _reading(seeds),
        *_differences(data, table, dataset),
    )
    return Report(table, rows, tuple(seeds), labels_name, dataset, state, command)


def _videos(data: Dataset, labels_name: str) -> str:
    train, evaluation = data.train, data.evaluation
    kind = "several labels per video" if data.multi_label else "one label per video"
    if not data.multi_label and any((part.labels.sum(axis=1) > 1).any() for part in (train, evaluation)):
        kind = "several labels per video, of which the first is trained on"
    return (
        f"Ours: {labels_name}, {len(train):,} videos for training ({train.subset}) and {len(evaluation):,} for "
        f"evaluation ({evaluation.subset}) in {len(data.classes)} classes, {kind}."
    )


def _stream(data: Dataset, role: Role) -> str:
    spec = data.train.streams[role].spec
    cost = stream_cost(spec)
    title = spec.name if cost.title == spec.name else f"{spec.name} ({cost.title})"
    return f"{role.capitalize()}: {title}, weights {spec.weights}, {_figure(cost.gflops())} GFLOPs per frame"


def _reading(seeds: Sequence[int]) -> str:
    spread = "mean ± standard deviation over seeds" if len(seeds) > 1 else "seed"
    return (
        f"Numbers: {spread} {', '.join(map(str, seeds))}. GFLOPs and fine features are per video; 1 GFLOP is 10⁹ "
        "multiply-accumulates, as in the papers, and the methods' own networks are counted in."
    )


def _differences(data: Dataset, table: PaperTable, dataset: str | None) -> list[str]:
    """Why the paper's values need not be ours."""
    why = []
    if dataset is None:
        why.append("FCVID and ActivityNet")
    else:
        paper = DATASETS[dataset]
        theirs = (paper.train_videos, paper.eval_videos)
        if theirs != (len(data.train), len(data.evaluation)):
            why.append(f"{theirs[0]:,} training and {theirs[1]:,} evaluation videos of {paper.title}")
    specs = {role: stream.spec for role, stream in data.train.streams.items()}
    tuned = "fine-tuned on the target videos"
    if any(spec.name != PAPER_STREAMS[role] for role, spec in specs.items()):
        titles = " and ".join(cost_table()[name].title for name in PAPER_STREAMS.values())
        tuned = f"{titles}, {tuned}"
    ours = ", ".join(f"{spec.weights} ({role})" for role, spec in specs.items())
    why.append(f"their backbones are {tuned}; the weights here are {ours}")
    return [f"The paper's values ({table.source}) are for another setting: {'; '.join(why)}."]


def _figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.3g}" if value >= 0.001 else f"{value:.6f}"


__all__ = ["MEASURES", "Measure", "Report", "Row", "Spread", "make_report"]
