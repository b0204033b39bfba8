"""An exhibit, which is a figure with the numbers behind it, and the runs from which it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict, TypeVar

import torch

from policy.config import RunConfig
from policy.data.batches import VideoSet
from policy.data.opening import Dataset
from policy.method import Method
from policy.runs import Run, load_method, read_config
from policy.selection.config import SelectionConfig
from policy.sheets.sheet import Picture, Sheet, Thumbnails, Value
from policy.tables.experiment import Measure, PaperTable
from policy.tables.report import Report
from policy.tables.requests import Order

M = TypeVar("M", bound=Method)


@dataclass(frozen=True)
class Exhibit:
    """Attributes:
    report: of the runs from which it is made.
    thumbnails: for the page only.
    notes: how to read it, a sentence each.
    """

    report: Report
    sheets: tuple[Sheet, ...]
    pictures: tuple[Picture, ...] = ()
    thumbnails: tuple[Thumbnails, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """A run with its configuration and data."""

    run: Run
    config: RunConfig
    data: Dataset

    @property
    def evaluation(self) -> VideoSet:
        return self.data.evaluation

    def method(self) -> Method:
        return load_method(self.run.folder, self.config, self.data)

    def method_of(self, kind: type[M]) -> M:
        """The method, whose class the exhibit's rows determine."""
        method = self.method()
        assert isinstance(method, kind), f"{self.run.folder} is no {kind.__name__}"
        return method


class Titles(TypedDict):
    """Title and subtitle of a figure, as the functions of `plots` take them."""

    title: str
    subtitle: str


@dataclass(frozen=True)
class Material:
    """What an exhibit is made from: a report and its request. `say` receives a line before long work."""

    report: Report
    order: Order
    device: torch.device
    say: Callable[[str], None]

    @property
    def table(self) -> PaperTable:
        return self.report.table

    @property
    def resamples(self) -> int:
        return self.order.setting.resamples

    @property
    def drawn(self) -> str:
        """What bootstrap samples are of, in words."""
        return next(iter(self.order.source.datasets.values())).evaluation.drawn

    def runs(self, row: str) -> Sequence[Run]:
        """The runs of a row, by seed."""
        return self.report.row(row).runs

    def title(self, row: str) -> str:
        """The title of a row, with its mark."""
        return self.report.row(row).title

    def titles(self, panel: str = "") -> Titles:
        return {"title": f"{self.table.title}{panel}", "subtitle": self.report.subtitle("mean")}

    def trained(self, row: str) -> list[Trained]:
        """The runs of a row with their data, by seed."""
        data = self.order.source.dataset(self.order.requests[row].config)
        # From the run folder, which also records what a row takes from another row's run.
        return [Trained(run, read_config(run.folder), data) for run in self.runs(row)]

    def selecting(self, row: str) -> SelectionConfig:
        """The configuration requested by a row with a pool of models."""
        config = self.order.requests[row].config
        assert isinstance(config, SelectionConfig), f"{row} has no pool of models"
        return config

    def means(self, row: str, *measures: Measure) -> list[Value]:
        """Means over the runs of a row, at the thresholds at which they decide."""
        spreads = self.report.row(row).measures
        return [spreads[measure].mean for measure in measures]
