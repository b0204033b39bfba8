"""The results of a table's runs: means, spreads and intervals, and the sentences below the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from cache_schema import StreamSpec
from cache_schema.annotations.groups import in_both, uninformative
from cache_schema.command import count
from cache_schema.costs import cost_table, stream_cost
from policy.config import StepTrainingConfig
from policy.data.opening import Dataset
from policy.runs import Result, Run
from policy.sheets.sheet import INTERVALS, Spread
from policy.sheets.words import gflops_text
from policy.tables.datasets import DATASETS, dataset_title
from policy.tables.experiment import DETECTION, MEASURES, Experiment, Measure, PaperTable
from policy.tables.requests import Order
from policy.tables.streams import Substitution
from policy.tables.uncertainty import Intervals

MARK = "†"
"""Marks the title of a row that reads another stream than the paper's."""

Status = Literal["built", "cited", "not built yet"]

_METRICS: Mapping[Measure, tuple[str, float]] = {
    "map_percent": ("mean_average_precision", 100),
    "top1_percent": ("top1", 100),
    "fine_features": ("fine_features_mean", 1),
    "fine_features_spread": ("fine_features_std", 1),
    "usage_percent": ("usage", 100),
    **{measure: (measure, 100) for measure in DETECTION},
}
"""For measures, the metric of a run's result, and the factor into the measure's unit."""


def measure_of(result: Result, measure: Measure) -> float | None:
    """A run's mean over the evaluation videos, or their standard deviation; None where its family has another
    measure."""
    if measure == "gflops":
        return result.gflops_mean
    metric, factor = _METRICS[measure]
    value = result.metrics.get(metric)
    return None if value is None else factor * value


@dataclass(frozen=True)
class Row:
    """One experiment and its runs: one per seed, or none.

    Attributes:
        substituted: the cache's stream by the paper's, for streams that are replaced.
        marked: whether its title has a mark for that.
    """

    experiment: Experiment
    runs: tuple[Run, ...]
    intervals: Intervals = field(default_factory=dict)
    substituted: Mapping[str, str] = field(default_factory=dict)
    marked: bool = False

    @property
    def name(self) -> str:
        return self.experiment.name

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
        """The title, with the mark if there is one."""
        return f"{self.experiment.title} {MARK}" if self.marked else self.experiment.title

    @property
    def measures(self) -> Mapping[Measure, Spread]:
        """Those that its method has; empty without runs."""
        spreads = {}
        for measure in MEASURES:
            values = [value for run in self.runs if (value := measure_of(run.result, measure)) is not None]
            if values:
                interval = self.intervals.get(measure)
                ends = {} if interval is None else {"low": interval.low, "high": interval.high}
                spreads[measure] = replace(Spread.of(values), **ends)
        return spreads


@dataclass(frozen=True)
class Report:
    """A table with our numbers.

    Attributes:
        dataset: the paper's data set that the cache holds, a key of DATASETS, or None.
        state: how the numbers were obtained, a sentence each.
        command: the command line that prints this table again.
    """

    table: PaperTable
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    labels_name: str
    dataset: str | None
    state: tuple[str, ...]
    command: str

    def row(self, name: str) -> Row:
        """The row of an experiment."""
        return next(row for row in self.rows if row.name == name)

    @property
    def heading(self) -> str:
        """The table's title, with a mark where streams are replaced."""
        return f"{self.table.title} {MARK}" if any(row.marked for row in self.rows) else self.table.title

    def subtitle(self, spread: str) -> str:
        """The line below a figure's title; `spread` names what is shown of several seeds."""
        seeds = f", {spread} of {len(self.seeds)} seeds" if len(self.seeds) > 1 else ""
        replaced = f"; {MARK} streams replaced" if any(row.marked for row in self.rows) else ""
        return f"{self.labels_name}{seeds}{replaced}"


def make_report(
    order: Order,
    runs: Mapping[str, tuple[Run, ...]],
    intervals: Mapping[str, Intervals],
    *,
    command: str,
    spread: str,
) -> Report:
    """Args:
    runs, intervals: by row, as `running.carry_out` and `uncertainty.find_intervals` return them.
    command: the command line that prints the report again.
    spread: what is shown of the numbers of several seeds.
    """
    table, streams, setting, source = order.table, order.streams, order.setting, order.source
    seeds, labels_name, dataset = tuple(setting.seeds), setting.labels.source.name, setting.dataset
    rows = tuple(
        Row(one, runs.get(one.name, ()), intervals.get(one.name, {}), streams.of(one), streams.marks(one))
        for one in table.experiments
    )
    data = next(iter(source.datasets.values()))
    # A selector's own model is named once, among those that it chooses from.
    papers = {
        role: [name for name in names if name not in table.pool] for role, names in table.streams.items()
    }
    named = {name for names in papers.values() for name in (*names, *table.pool)}
    further = [name for name in table.reads if name not in named]
    specs = {
        role: {paper: source.cache[streams.stream(paper)].spec for paper in names}
        for role, names in (*papers.items(), ("further", further), ("model", table.pool))
        if names
    }
    state = (
        _videos(
            data, labels_name, sorted({one.config.validation for one in order.requests.values()} - {0.0})
        ),
        *_groups(data),
        *(_stream(role, spec) for role, by_paper in specs.items() for spec in _unique(by_paper)),
        *_replaced(streams),
        *_trained_alike(order),
        _reading(
            table, seeds, spread, row_word(spec for by_paper in specs.values() for spec in by_paper.values())
        ),
        *([f"{INTERVALS} over {data.evaluation.drawn}."] if any(row.intervals for row in rows) else []),
        *_differences(table, data, specs, dataset),
        *table.notes,
    )
    return Report(table, rows, seeds, labels_name, dataset, state, command)


def _videos(data: Dataset, labels_name: str, shares: Sequence[float]) -> str:
    """How many videos are trained on and judged on; `shares` of those for training are held out in some rows."""
    train, evaluation = data.train, data.evaluation
    kind = "several labels per video" if data.multi_label else "one label per video"
    if not data.multi_label and any((part.labels.sum(axis=1) > 1).any() for part in (train, evaluation)):
        kind = "several labels per video, of which the first is trained on"
    parts = [f"{count(len(train), 'videos')} for training ({train.subset})"]
    if shares:
        parts[0] += (
            f", of which {' or '.join(f'{100 * share:g} %' for share in shares)} held out for validation"
        )
    if data.validation is not None:
        parts.append(f"{len(data.validation):,} for validation ({data.validation.subset})")
    return (
        f"Ours: {labels_name}, {', '.join(parts)} and {len(evaluation):,} for evaluation ({evaluation.subset}) in "
        f"{count(len(data.classes), 'classes')}, {kind}."
    )


def _groups(data: Dataset) -> Iterable[str]:
    """Which videos belong together, if that is known, and which groups are in both subsets."""
    train, evaluation = data.train, data.evaluation
    if data.grouping is not None:
        counts = f"{len(set(train.groups)):,} for training and {len(set(evaluation.groups)):,} for evaluation"
        yield (
            f"Groups of videos ({data.grouping}): {counts}; held out, and drawn for intervals, as a whole."
        )
    warnings = (
        uninformative(train.groups, train.subset),
        uninformative(evaluation.groups, evaluation.subset),
        in_both(train.groups, evaluation.groups, (train.subset, evaluation.subset)),
    )
    yield from (f"{warning}." for warning in warnings if warning)


def _unique(specs: Mapping[str, StreamSpec]) -> Iterable[StreamSpec]:
    """Each stream of the cache once."""
    return {spec.name: spec for spec in specs.values()}.values()


def _trained_alike(order: Order) -> Iterable[str]:
    """How the rows that read over time were trained beside their papers: all alike, or which otherwise."""
    names = [*(option.name for option in fields(StepTrainingConfig)), "validation"]
    rows: dict[str, list[str]] = {}
    partly = False  # whether some read over time, but have not all of these options
    for one in order.table.experiments:
        if (request := order.requests.get(one.name)) is None:
            continue
        values = {name: getattr(request.config, name, None) for name in names}
        if None not in values.values():
            if subset := request.config.validation_subset:
                values["validation"] = f"on subset {subset!r}"
            text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
            rows.setdefault(text, []).append(one.title)
        elif any(values[name] is not None for name in names[:-1]):
            partly = True
    if len(rows) == 1 and not partly:
        yield f"All rows that read over time were trained with {next(iter(rows))}."
    else:
        yield from (f"Trained with {text}: {', '.join(titles)}." for text, titles in rows.items())


def _stream(role: str, spec: StreamSpec) -> str:
    cost = stream_cost(spec)
    title = spec.name if cost.title == spec.name else f"{spec.name} ({cost.title})"
    return (
        f"{role.capitalize()}: {title}, weights {spec.weights}, {gflops_text(cost.gflops())} GFLOPs per "
        f"{spec.sampling.row}."
    )


def _replaced(streams: Substitution) -> Iterable[str]:
    """Which streams are replaced, with the mark for those whose rows have it."""
    for marked, prefix in ((True, f"{MARK} "), (False, "")):
        pairs = [
            f"{ours} in place of {paper}"
            for paper, ours in streams.replaced.items()
            if (paper in streams.marked) == marked
        ]
        if pairs:
            yield f"{prefix}Streams replaced: {', '.join(pairs)}."


def row_word(specs: Iterable[StreamSpec]) -> str:
    """What a row of several streams is of, in a word: that of all of them, or "row"."""
    words = {spec.sampling.row for spec in specs}
    return words.pop() if len(words) == 1 else "row"


def _reading(table: PaperTable, seeds: Sequence[int], spread: str, row: str) -> str:
    over = f"{spread} over seeds" if len(seeds) > 1 else "seed"
    videos = "; the paper's ± of those two is over videos" if "fine_features_spread" in table.measures else ""
    gated = any(not {"coarse", "fine"}.isdisjoint(one.streams) for one in table.experiments if not one.models)
    what = "GFLOPs and fine features" if gated else "GFLOPs"
    per = "video"
    if str(table.exhibit).startswith("localization-"):  # where a clip is whatever a row is
        per = "clip" if row == "clip" else f"clip (here a {row})"
    return (
        f"Numbers: {over} {', '.join(map(str, seeds))}. {what} are per "
        f"{per}{videos}; 1 GFLOP is 10⁹ multiply-accumulates, as in the papers, and the methods' own networks are "
        "counted in."
    )


def _differences(
    table: PaperTable,
    data: Dataset,
    specs: Mapping[str, Mapping[str, StreamSpec]],
    dataset: str | None,
) -> list[str]:
    """Why the paper's values may differ from ours."""
    if not table.datasets:
        return []
    reasons = []
    if dataset is None or dataset not in table.datasets:
        reasons.append(" and ".join(map(dataset_title, table.datasets)))
    elif splits := DATASETS[dataset].differs(len(data.train), len(data.evaluation)):
        reasons.append(splits)
    backbones = table.backbones
    papers = [paper for by_paper in specs.values() for paper in by_paper]
    if any(spec.name != paper for by_paper in specs.values() for paper, spec in by_paper.items()):
        costs = cost_table()
        titles = [costs[paper].title if paper in costs else paper for paper in papers]
        backbones = f"{' and '.join(titles)}, {backbones}"
    weights = ", ".join(
        f"{spec.weights} ({role if len(by_paper) == 1 else spec.name})"
        for role, by_paper in specs.items()
        for spec in _unique(by_paper)
    )
    reasons.append(f"their backbones are {backbones}; the weights here are {weights}")
    return [f"The paper's values ({table.source}) are for another setting: {'; '.join(reasons)}."]
