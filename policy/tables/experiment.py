"""The description of a table: its rows, each a method to run, with the values that a paper prints for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from policy.data.batches import Role
from policy.evaluation.detection import PROTOCOLS, THUMOS14_IOUS
from policy.localization.judged import AVERAGES, metric_name
from policy.selection.pool import ModelName

Measure = str
"""A key of MEASURES."""

ExhibitName = Literal[
    "budgets",
    "frames",
    "localization-methods",
    "localization-ablation",
    "localization-table",
    "online",
    "policies",
    "runtime",
    "selection-alpha",
    "selection-budgets",
    "selection-inputs",
    "selection-table",
    "usage",
    "watched",
]
"""What can be made of a table's runs instead of the table (`exhibits.MAKERS`)."""

DETECTION: Mapping[Measure, str] = {
    metric_name(protocol, iou): f"mAP@{iou} %" + ("" if protocol == "thumos14" else f" ({protocol})")
    for protocol in PROTOCOLS
    for iou in (*(f"{iou:g}" for iou in THUMOS14_IOUS), *AVERAGES)
}
"""Detection mAP, of methods that localize: by protocol, at an IoU or averaged over several."""
MEASURES: Mapping[Measure, str] = {
    "map_percent": "mAP %",
    "top1_percent": "top-1 %",
    "gflops": "GFLOPs",
    "fine_features": "fine features",
    "fine_features_spread": "± over videos",
    "usage_percent": "usage %",
    **DETECTION,
}
"""The measures that are reported of a run, and the titles of their columns."""

METHODS_GROUP = "methods"
CONTROLS_GROUP = "null controls"

_PRINTED = re.compile(r"\d+(\.\d+)?( ± \d+(\.\d+)?)?")


@dataclass(frozen=True)
class Printed:
    """A value as a paper prints it: "183.40", or "8.00 ± 5.90"."""

    text: str

    def __post_init__(self) -> None:
        if not _PRINTED.fullmatch(self.text):
            raise ValueError(f"{self.text!r} is not a number as printed, such as '80.0' or '8.00 ± 5.90'")

    @property
    def mean(self) -> str:
        """The digits before the ±."""
        return self.text.partition(" ± ")[0]

    @property
    def std(self) -> str | None:
        """The digits after the ±, if there is one."""
        return self.text.partition(" ± ")[2] or None

    @property
    def value(self) -> float:
        return float(self.mean)


Published = Mapping[Measure, Printed]
"""The values that a paper prints for a row on one data set."""


@dataclass(frozen=True)
class View:
    """Other predictions of a trained run: before the end of the videos (LiteEval paper, Sec. 4.2.1), or with
    other proposals.

    Attributes:
        online: K: LiteEval's prediction after its K-th fine feature, or that of UNIFORM-K. None: of whole videos.
        follows: for UNIFORM-K, the experiment whose K-th fine feature limits how much of a video it may see.
        action_bytes: a localization model's detections after ActionBytes post-processing.
    """

    online: int | None = None
    follows: str | None = None
    action_bytes: bool = False


@dataclass(frozen=True)
class Experiment:
    """One row.

    Attributes:
        name: by which other rows refer to it, unique in its table.
        title: as the paper prints it, made unique in its table.
        method: a key of `policy.registry.METHODS`; None where the paper only cites a result of others.
        group: the heading above neighbouring rows of the same group.
        streams: the paper's stream for each role that the method reads.
        models: the paper's pool, for a method that chooses from one: "STREAM" or "STREAM:ROWS" each, the cheapest
            first. Such a method looks at the coarse stream or, without one, at the cheapest model of the pool.
        lists: the paper's streams by configuration field, for each field that takes any number of them.
        settings: configuration fields that distinguish this row; they override the command line.
        usage_of: the experiment whose run with the same seed determines how often gates open.
        teacher_of: the experiment whose run with the same seed is the teacher.
        runs_of: by configuration field, the experiment whose run with the same seed this one is built on.
        view: None: predictions for whole videos.
        columns: texts for the table's `columns`.
        published: the paper's values by data set.
        emphasised: the paper proposes it.
    """

    name: str
    title: str
    method: str | None = None
    group: str = METHODS_GROUP
    streams: Mapping[Role, str] = field(default_factory=dict)
    models: Sequence[str] = ()
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    usage_of: str | None = None
    teacher_of: str | None = None
    runs_of: Mapping[str, str] = field(default_factory=dict)
    view: View | None = None
    columns: Sequence[str] = ()
    published: Mapping[str, Published] = field(default_factory=dict)
    emphasised: bool = False

    @property
    def pool(self) -> tuple[str, ...]:
        """The streams of its models."""
        return tuple(ModelName.parse(model).stream for model in self.models)

    @property
    def reads(self) -> tuple[str, ...]:
        """All streams of the paper that it reads, each once."""
        listed = (stream for streams in self.lists.values() for stream in streams)
        return tuple(dict.fromkeys((*self.streams.values(), *listed, *self.pool)))


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper, or one of the same kind.

    Attributes:
        source: the paper and the number of the table in it.
        measures: of our runs, one column each.
        datasets: the paper's data sets with values for some row: keys of `datasets.DATASETS`, or other names.
        experiments: the rows, in the paper's order, followed by those that we add.
        columns: titles of columns of text beside the rows' titles.
        notes: remarks on the paper's values, a sentence each.
        backbones: how the paper trained its backbones.
        exhibit: made of the runs instead of a table, or None.
        videos: the videos themselves can be given, to show their frames or to time policies on them.
        pool_of_dataset: rows choose from the paper's pool for the data set named by --dataset.
        cost_of_dataset: without a threshold or budget from the user, the budget is the cost that the paper prints.
        budget_over_threshold: a budget from the user replaces the rows' own thresholds and prices.
        verdicts: below it stands whether it shows what the emphasised row is for (`verdicts.verdicts`).
        rows_within_cache: rows that need more clips than the cache has are left out.
        of_packages: the methods of other packages are rows, too, on the streams of the rows before them.
        streams_within_cache: so are rows of which the cache lacks a stream that the emphasised row does not read.
    """

    name: str
    title: str
    source: str
    measures: Sequence[Measure]
    datasets: Sequence[str]
    experiments: Sequence[Experiment]
    columns: Sequence[str] = ()
    notes: Sequence[str] = ()
    backbones: str = "fine-tuned on the target videos"
    exhibit: ExhibitName | None = None
    videos: bool = False
    pool_of_dataset: bool = False
    cost_of_dataset: bool = False
    budget_over_threshold: bool = False
    rows_within_cache: bool = False
    streams_within_cache: bool = False
    of_packages: bool = False
    verdicts: bool = False

    @property
    def accuracy(self) -> Measure:
        """The first of mAP, top-1 and detection mAP that the table shows; top-1 for a table of costs."""
        accuracies = ("map_percent", "top1_percent", *DETECTION)
        return next((measure for measure in accuracies if measure in self.measures), "top1_percent")

    @property
    def printed(self) -> tuple[Measure, ...]:
        """The measures that the paper prints for some row, in the order of MEASURES."""
        printed = {m for row in self.experiments for values in row.published.values() for m in values}
        return tuple(measure for measure in MEASURES if measure in printed)

    @property
    def streams(self) -> Mapping[Role, tuple[str, ...]]:
        """The paper's streams that its rows read, by role, each once."""
        by_role: dict[Role, dict[str, None]] = {"coarse": {}, "fine": {}}
        for row in self.experiments:
            for role, stream in row.streams.items():
                by_role.setdefault(role, {})[stream] = None
        return {role: tuple(streams) for role, streams in by_role.items()}

    @property
    def pool(self) -> tuple[str, ...]:
        """The paper's streams of the pools that its rows choose from, each once."""
        return tuple(dict.fromkeys(stream for one in self.experiments for stream in one.pool))

    @property
    def reads(self) -> tuple[str, ...]:
        """All streams of the paper that its rows read, each once."""
        by_role = (stream for streams in self.streams.values() for stream in streams)
        of_rows = (stream for row in self.experiments for stream in row.reads)
        return tuple(dict.fromkeys((*by_role, *self.pool, *of_rows)))
