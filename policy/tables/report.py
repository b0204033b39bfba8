"""What the runs of a table come to: means, spreads and intervals, and the state under the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cache_schema import StreamSpec
from cache_schema.costs import cost_table, stream_cost
from policy.data.opening import Dataset
from policy.runs import Result, Run
from policy.sheets.sheet import INTERVALS, Spread
from policy.tables.datasets import DATASETS, dataset_title
from policy.tables.experiment import Experiment, Measure, PaperTable
from policy.tables.source import Source
from policy.tables.streams import Substitution
from policy.tables.uncertainty import Intervals

MARK = "†"
"""Beside the title of a row that reads another stream than the paper's."""

Status = Literal["built", "cited", "not built yet"]

_OF_A_RUN: Mapping[Measure, Callable[[Result], float]] = {
    "map_percent": lambda result: 100 * result.metrics["mean_average_precision"],
    "top1_percent": lambda result: 100 * result.metrics["top1"],
    "gflops": lambda result: result.gflops_mean,
    "fine_features": lambda result: result.metrics["fine_features_mean"],
    "fine_features_spread": lambda result: result.metrics["fine_features_std"],
    "usage_percent": lambda result: 100 * result.metrics["usage"],
}
"""Each a mean over the videos of the evaluation subset, or their standard deviation."""


@dataclass(frozen=True)
class Row:
    """One experiment and its runs: one per seed, or none.

    Attributes:
        substituted: the cache's stream by the paper's, for those it reads that are not the same.
        marked: whether its title bears a mark for that.
    """

    experiment: Experiment
    runs: tuple[Run, ...]
    intervals: Intervals = field(default_factory=dict)
    substituted: Mapping[str, str] = field(default_factory=dict)
    marked: bool = False

    @property
    def built(self) -> bool:
        return bool(self.runs)

    @property
    def status(self) -> Status:
        if self.runs:
            return "built"
        return "cited" if self.experiment.method is None else "not built yet"

    @property
    def title(self) -> str:
        """With the mark."""
        return f"{self.experiment.title} {MARK}" if self.marked else self.experiment.title

    @property
    def measures(self) -> Mapping[Measure, Spread]:
        """Empty without runs."""
        if not self.runs:
            return {}
        return {name: self._spread(name, of) for name, of in _OF_A_RUN.items()}

    def _spread(self, name: Measure, of: Callable[[Result], float]) -> Spread:
        spread = Spread.of([of(run.result) for run in self.runs])
        found = self.intervals.get(name)
        return Spread(spread.mean, spread.std, found.low, found.high) if found else spread


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
    source: Source,
    *,
    chosen: Substitution,
    intervals: Mapping[str, Intervals],
    seeds: Sequence[int],
    labels_name: str,
    dataset: str | None,
    command: str,
    spread: str = "mean ± standard deviation",
) -> Report:
    """Args:
    runs, intervals: by row, as `running.carry_out` and `uncertainty.find_intervals` return them.
    spread: what the numbers are of those of several seeds.
    """
    rows = tuple(
        Row(
            one,
            runs.get(one.name, ()),
            intervals.get(one.name, {}),
            chosen.of(one),
            marked=chosen.marks(one),
        )
        for one in table.experiments
    )
    data = next(iter(source.datasets.values()))
    # A model that a selector looks at is said once, among those that it chooses from.
    papers: dict[str, Sequence[str]] = {
        role: [paper for paper in streams if paper not in table.pool]
        for role, streams in table.streams.items()
    }
    papers["model"] = table.pool
    specs = {
        role: {paper: source.cache[chosen.stream(paper)].spec for paper in streams}
        for role, streams in papers.items()
        if streams
    }
    state = (
        _videos(data, labels_name),
        *(_stream(role, ours) for role, found in specs.items() for ours in _by_stream(found)),
        *_replaced(chosen),
        _reading(table, seeds, spread),
        *([INTERVALS] if any(row.intervals for row in rows) else []),
        *_differences(table, data, specs, dataset),
        *table.notes,
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


def _by_stream(specs: Mapping[str, StreamSpec]) -> Iterator[StreamSpec]:
    """Each stream of the cache once."""
    yield from {spec.name: spec for spec in specs.values()}.values()


_ROWS = {"clips": "clip", "snippets": "snippet", "dense": "clip"}


def _stream(role: str, spec: StreamSpec) -> str:
    cost = stream_cost(spec)
    title = spec.name if cost.title == spec.name else f"{spec.name} ({cost.title})"
    row = _ROWS.get(spec.sampling.kind, "frame") if role == "model" else "frame"
    return f"{role.capitalize()}: {title}, weights {spec.weights}, {_figure(cost.gflops())} GFLOPs per {row}."


def _replaced(chosen: Substitution) -> list[str]:
    """What stands for what, with the mark where rows bear it."""
    sentences = []
    for marked in (True, False):
        pairs = [
            f"{ours} in place of {paper}"
            for paper, ours in chosen.replaced.items()
            if (paper in chosen.marked) == marked
        ]
        if pairs:
            sentences.append(f"{f'{MARK} ' if marked else ''}Streams replaced: {', '.join(pairs)}.")
    return sentences


def _reading(table: PaperTable, seeds: Sequence[int], spread: str) -> str:
    over = f"{spread} over seeds" if len(seeds) > 1 else "seed"
    videos = "; the paper's ± of those two is over videos" if "fine_features_spread" in table.measures else ""
    what = (
        "GFLOPs and fine features"
        if any(not one.models for one in table.experiments if one.method)
        else "GFLOPs"
    )
    return (
        f"Numbers: {over} {', '.join(map(str, seeds))}. {what} are per "
        f"video{videos}; 1 GFLOP is 10⁹ multiply-accumulates, as in the papers, and the methods' own networks are "
        "counted in."
    )


def _differences(
    table: PaperTable,
    data: Dataset,
    specs: Mapping[str, Mapping[str, StreamSpec]],
    dataset: str | None,
) -> list[str]:
    """Why the paper's values need not be ours."""
    if not table.datasets:
        return []
    why = []
    if dataset is None or dataset not in table.datasets:
        why.append(" and ".join(map(dataset_title, table.datasets)))
    elif theirs := DATASETS[dataset].differs(len(data.train), len(data.evaluation)):
        why.append(theirs)
    known = cost_table()
    tuned = table.backbones
    if any(spec.name != paper for found in specs.values() for paper, spec in found.items()):
        papers = [paper for found in specs.values() for paper in found]
        titles = [known[paper].title if paper in known else paper for paper in papers]
        tuned = f"{' and '.join(titles)}, {tuned}"
    ours = ", ".join(
        f"{spec.weights} ({role if len(found) == 1 else spec.name})"
        for role, found in specs.items()
        for spec in _by_stream(found)
    )
    why.append(f"their backbones are {tuned}; the weights here are {ours}")
    return [f"The paper's values ({table.source}) are for another setting: {'; '.join(why)}."]


def _figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.3g}" if value >= 0.001 else f"{value:.6f}"


__all__ = ["INTERVALS", "MARK", "Report", "Row", "Spread", "make_report"]
