"""What a table is: rows, each one run of a method with the values that a paper prints for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from policy.data.batches import Role
from policy.selection.pool import ModelName

Measure = Literal[
    "map_percent", "top1_percent", "gflops", "fine_features", "fine_features_spread", "usage_percent"
]
Accuracy = Literal["map_percent", "top1_percent"]

ExhibitName = Literal[
    "budgets",
    "frames",
    "online",
    "runtime",
    "selection-alpha",
    "selection-budgets",
    "selection-inputs",
    "selection-table",
    "usage",
    "watched",
]
"""What can be made of a table's runs besides the table (`exhibits.MAKERS`)."""

MEASURES: Mapping[Measure, str] = {
    "map_percent": "mAP %",
    "top1_percent": "top-1 %",
    "gflops": "GFLOPs",
    "fine_features": "fine features",
    "fine_features_spread": "± over videos",
    "usage_percent": "usage %",
}
"""What is reported of a run, and the title of its column."""

METHODS_GROUP = "methods"
CONTROLS_GROUP = "null controls"

_PRINTED = re.compile(r"(?P<mean>\d+(\.\d+)?)( ± (?P<std>\d+(\.\d+)?))?")


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
        return self._part("mean") or ""

    @property
    def std(self) -> str | None:
        """The digits after the ±, if there is one."""
        return self._part("std")

    @property
    def value(self) -> float:
        return float(self.mean)

    def _part(self, name: str) -> str | None:
        match = _PRINTED.fullmatch(self.text)
        assert match is not None
        return match[name]


Published = Mapping[Measure, Printed]
"""What a paper prints for a row on one data set."""


@dataclass(frozen=True)
class View:
    """What a trained run is asked for, where it is not its predictions for whole videos.

    Attributes:
        online: K: LiteEval's prediction after its K-th fine feature, or UNIFORM-K's (LiteEval paper, Sec. 4.2.1).
        follows: of UNIFORM-K, the experiment whose K-th fine feature says how much of a video it may see.
    """

    online: int
    follows: str | None = None


@dataclass(frozen=True)
class Experiment:
    """One row.

    Attributes:
        name: what other rows call it, unique in its table.
        title: as the paper prints it, made unique in its table.
        method: a key of `policy.registry.METHODS`; None where the paper only cites a result of others.
        group: rows of one group stand together under its name.
        streams: the paper's stream for each role that the method reads.
        models: the paper's pool, for a method that chooses from one: "STREAM" or "STREAM:ROWS" each, the cheapest
            first. Such a method looks at the coarse stream or, without one, at the pool's cheapest.
        settings: fields of RunConfig that are what this row is about; they win over the command line.
        usage_of: the experiment whose run with the same seed says how often gates open here.
        teacher_of: the experiment whose run with the same seed is the teacher here.
        view: None: whole videos.
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
    settings: Mapping[str, Any] = field(default_factory=dict)
    usage_of: str | None = None
    teacher_of: str | None = None
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
        """All the paper's streams that it reads, each once."""
        return tuple(dict.fromkeys((*self.streams.values(), *self.pool)))


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper, or one made like it.

    Attributes:
        source: the paper and the number of the table in it.
        measures: of ours, one column each.
        datasets: of the paper, with values for some row; keys of `datasets.DATASETS`, or names of the user's own.
        experiments: in the paper's order, then what we add.
        columns: titles of columns of text beside the rows' titles.
        notes: what one should know of the paper's values, a sentence each.
        backbones: what the paper trained its own on.
        exhibit: what is made of the runs instead of a table, or None.
        videos: it can show frames of the videos themselves.
        pool_of_dataset: its rows choose from the pool that the paper has for a data set, where one is named.
        cost_of_dataset: where neither threshold nor budget is given, the budget is what the paper prints for it.
        budget_over_threshold: a budget that is given sets what rows would set as their own threshold or price.
        rows_within_cache: rows that would judge by more clips than the cache has are left out.
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

    @property
    def accuracy(self) -> Accuracy:
        """The first of the two that it shows."""
        return "top1_percent" if "map_percent" not in self.measures else "map_percent"

    @property
    def printed(self) -> tuple[Measure, ...]:
        """The measures that the paper prints for some row, in the order of MEASURES."""
        found = {
            measure for one in self.experiments for values in one.published.values() for measure in values
        }
        return tuple(measure for measure in MEASURES if measure in found)

    @property
    def streams(self) -> Mapping[Role, tuple[str, ...]]:
        """The paper's streams that its rows read, by role."""
        found: dict[Role, dict[str, None]] = {"coarse": {}, "fine": {}}
        for one in self.experiments:
            for role, stream in one.streams.items():
                found.setdefault(role, {})[stream] = None
        return {role: tuple(streams) for role, streams in found.items()}

    @property
    def pool(self) -> tuple[str, ...]:
        """The paper's streams that its rows choose from, each once."""
        return tuple(dict.fromkeys(stream for one in self.experiments for stream in one.pool))

    @property
    def reads(self) -> tuple[str, ...]:
        """All the paper's streams that its rows read, each once."""
        by_role = (stream for streams in self.streams.values() for stream in streams)
        return tuple(dict.fromkeys((*by_role, *self.pool)))
