"""Table 2 of the model selection paper: weakly supervised localization, and what a clip costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cache_schema.costs import gflops_digits
from policy.deploy.flow_speed import FlowTimes, measure_flow
from policy.localization.curve import RANDOM
from policy.localization.judged import metric_name
from policy.runs import Run
from policy.sheets.sheet import Column, Picture, Sheet, Spread, Value
from policy.tables.clip_rows import clip_costs
from policy.tables.costs.components import PAIRS, RAFT_GMACS
from policy.tables.datasets import dataset_title
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.exhibits.localization_curves import Measured
from policy.tables.experiment import DETECTION, MEASURES, METHODS_GROUP, Experiment, Measure
from policy.tables.plots.curves import Line, draw_against_cost
from policy.tables.report import Row
from policy.tables.timelines import timelines

PAPER_COST = "GFLOPs per clip as the paper counts (X3D 1, I3D 2 per multiply-accumulate)"
_IOUS = {"thumos14": ("0.5", "0.7", "0.1:0.7"), "activitynet": ("0.5", "0.1:0.5")}
"""By protocol, at which thresholds of IoU the paper prints mAP for the data set that is judged by it."""


@dataclass(frozen=True)
class _Clip:
    """The mean cost of a clip of the evaluation videos, over a row's runs.

    Attributes:
        motion: share of the clips for which the motion stream is computed.
        gflops: 10⁹ multiply-accumulates, networks included.
        paper_gflops: as the paper counts, backbones alone.
    """

    motion: float
    gflops: float
    paper_gflops: float


def make(material: Material) -> Exhibit:
    """From all rows, whether they are run or cited."""
    measured = Measured.on(material.report.dataset)
    measures = [metric_name(measured.protocol, iou) for iou in _IOUS[measured.protocol]]
    clips = {row.name: _clip(material, row) for row in material.report.rows if row.built}
    flow = measure_flow(report=material.say)
    accuracy = metric_name(measured.protocol, measured.over)
    drawing = draw_against_cost(
        _lines(material, clips, accuracy), **material.titles(), accuracy=measured.title, cost=PAPER_COST
    )
    return Exhibit(
        material.report,
        (_table(material, measures, clips), _costs(material, clips), _flow(material, clips, flow)),
        (
            Picture(drawing.png, "Average mAP against GFLOPs per clip; crosses are the paper's values"),
            *_timelines(material),
        ),
        notes=(
            measured.note,
            "Timelines: of clip selection's first seed, its best, median and worst video "
            "(`paper-tables timeline` draws others).",
            *_budget(material),
            "Random clips: as many as clip selection has at its threshold, mean of several draws.",
            "As the paper counts: backbones alone, X3D-M 4.73 by one per multiply-accumulate, I3D 56 by two (43.8 "
            "= 4.73 + 0.698 · 56), other streams in the unit of the one in whose place they stand.",
            f"Optical flow: for the {PAIRS} pairs of frames of each clip for which motion runs. RAFT's GFLOPs, "
            "for 256² frames, are added to the others; TV-L1 and DIS have no meaningful count. The paper's "
            "figures have no flow.",
            flow.note,
        ),
    )


def _timelines(material: Material) -> Iterator[Picture]:
    """Of clip selection, with the first seed: its best, median and worst video."""
    for row in material.report.rows:
        if row.built and row.experiment.emphasised:
            yield from timelines(row.runs[0].folder)


def _clip(material: Material, row: Row) -> _Clip:
    costs = clip_costs(row.experiment, material.order.streams, material.order.source.cache)
    motion = _motion(row) if "motion" in costs else 0.0
    paper = costs.get("appearance", (0.0, 0.0))[1] + motion * costs.get("motion", (0.0, 0.0))[1]
    gflops = np.mean([run.result.gflops_mean / run.result.rows_mean for run in row.runs])
    return _Clip(motion, float(gflops), paper)


def _motion(row: Row) -> float:
    return float(np.mean([run.result.metrics.get("usage", 1.0) for run in row.runs]))


# --- the tables ---


def _table(material: Material, measures: Sequence[Measure], clips: dict[str, _Clip]) -> Sheet:
    papers = _paper_columns(material)
    columns = [
        Column("method", "method", numeric=False),
        *(Column(_title(measure), measure, numeric=True, heading="ours") for measure in measures),
        Column("GFLOPs", "gflops", 2, numeric=True, heading="ours"),
        *(
            Column(
                _title(measure),
                f"paper_{dataset}_{measure}",
                numeric=True,
                paper=dataset_title(dataset),
                emphasised=dataset == material.report.dataset,
            )
            for dataset, measure in papers
        ),
    ]
    rows: list[list[Value]] = []
    groups, group, emphasised = {}, METHODS_GROUP, set()
    for row in material.report.rows:
        if row.experiment.group != group:
            groups[len(rows)] = group = row.experiment.group
        if row.experiment.emphasised:
            emphasised.add(len(rows))
        published = row.experiment.published
        printed = [published.get(dataset, {}).get(measure) for dataset, measure in papers]
        cells: list[Value] = [row.measures.get(measure) for measure in measures]
        gflops = clips[row.name].gflops if row.built else None
        rows.append([row.title, *cells, gflops, *(one.text if one else None for one in printed)])
        if row.experiment.emphasised:
            random = _random(row.runs, measures)
            rows.append(["random clips", *random, gflops, *[None] * len(papers)])
    return Sheet(material.report.heading, columns, rows, groups=groups, emphasised=frozenset(emphasised))


def _title(measure: Measure) -> str:
    """Without the protocol and the thresholds of an average, which a note names."""
    if measure not in DETECTION:
        return MEASURES[measure]
    return "avg. %" if ":" in measure else DETECTION[measure].partition(" (")[0]


def _paper_columns(material: Material) -> list[tuple[str, Measure]]:
    """Data sets and measures that the paper prints; of one data set, where the cache holds it."""
    table, dataset = material.table, material.report.dataset
    wanted = [name for name in table.datasets if dataset not in table.datasets or name == dataset]
    measures = (*DETECTION, "gflops")
    return [
        (name, measure)
        for name in wanted
        for measure in measures
        if any(measure in one.published.get(name, {}) for one in table.experiments)
    ]


def _random(runs: Sequence[Run], measures: Sequence[Measure]) -> list[Value]:
    """Random clips where the runs have their threshold; details have averages alone."""
    points = [
        one
        for run in runs
        for one in [run.details()]
        for one in one["points"]
        if one["choice"] == RANDOM and one["at"] == run.details()["share"]
    ]
    return [
        Spread.of([100 * one[measure] for one in points]) if all(measure in one for one in points) else None
        for measure in measures
    ]


def _costs(material: Material, clips: dict[str, _Clip]) -> Sheet:
    columns = (
        Column("per clip", "method"),
        Column("motion %", "motion_percent"),
        Column("GFLOPs", "gflops", 2),
        Column("as the paper counts", "paper_gflops", 2),
        Column("paper", "paper", numeric=True),
    )
    rows: list[list[Value]] = []
    for row in material.report.rows:
        if row.built:
            clip = clips[row.name]
            numbers = (100 * clip.motion, clip.gflops, clip.paper_gflops)
            rows.append([row.title, *numbers, _printed_gflops(row.experiment)])
    return Sheet("What a clip costs, without optical flow", columns, rows)


def _flow(material: Material, clips: dict[str, _Clip], flow: FlowTimes) -> Sheet:
    columns = (
        Column("per clip", "method"),
        *(Column(name, f"gflops_{name}", heading="GFLOPs") for name in RAFT_GMACS),
        *(Column(name, f"{name}_s", 2, heading="seconds of flow") for name in flow.pair_s),
    )
    rows: list[list[Value]] = [
        [
            row.title,
            *(clip.gflops + clip.motion * PAIRS * gmacs for gmacs in RAFT_GMACS.values()),
            *(clip.motion * PAIRS * seconds for seconds in flow.pair_s.values()),
        ]
        for row in material.report.rows
        if row.built
        for clip in [clips[row.name]]
    ]
    return Sheet("With optical flow", columns, rows)


def _printed_gflops(row: Experiment) -> str | None:
    """The paper's, which it prints once for all data sets."""
    printed = (values["gflops"].text for values in row.published.values() if "gflops" in values)
    return next(printed, None)


def _budget(material: Material) -> Iterator[str]:
    for row in material.report.rows:
        config = material.order.requests[row.name].config if row.built else None
        budget = getattr(config, "budget", None)
        if row.experiment.emphasised and budget is not None:
            printed = " pays for the share of clips with motion for which the paper's 43.8 does, and"
            origin = printed if "budget" in row.experiment.settings else ""
            yield (
                f"{row.title}: the paper's “Ours”, on ActionBytes. Its budget of {gflops_digits(budget)} GFLOPs "
                f"per clip{origin} is kept on training videos; test videos cost what they cost."
            )


# --- the figure ---


def _lines(material: Material, clips: dict[str, _Clip], accuracy: Measure) -> list[Line]:
    lines = []
    for row in material.report.rows:
        if row.built and accuracy in row.measures:
            spread, cost = row.measures[accuracy], clips[row.name].paper_gflops
            ends = (spread.low, spread.high)
            low, high = [[end] if end is not None and math.isfinite(end) else [] for end in ends]
            lines.append(
                Line(
                    row.title,
                    "proposed" if row.experiment.emphasised else "baseline",
                    [cost],
                    [spread.mean],
                    low=low,
                    high=high,
                )
            )
    return [*lines, *_cited(material, accuracy)]


def _cited(material: Material, accuracy: Measure) -> list[Line]:
    """The paper's points for the data set of the cache, where that is known."""
    dataset = material.report.dataset
    points = {}
    for row in material.table.experiments:
        cost, value = _printed_gflops(row), row.published.get(dataset or "", {}).get(accuracy)
        if cost is not None and value is not None:
            points[row.title] = (float(cost), value.value)
    if not points:
        return []
    xs, ys = zip(*points.values(), strict=True)
    return [Line(dataset_title(str(dataset)), "cited", xs, ys, labels=[*points])]
