"""A figure with the numbers behind it, and what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from policy.config import RunConfig
from policy.data.batches import VideoSet
from policy.data.opening import Dataset
from policy.method import Method
from policy.runs import Run, load_method, read_config
from policy.selection.config import SelectionConfig
from policy.sheets.sheet import Picture, Sheet, Thumbnails
from policy.tables.experiment import PaperTable
from policy.tables.report import MARK, Report
from policy.tables.running import Request
from policy.tables.source import Source

M = TypeVar("M", bound=Method)


@dataclass(frozen=True)
class Exhibit:
    """Attributes:
    report: of the runs that it is made from.
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
    """A run and what it was made from."""

    run: Run
    config: RunConfig
    data: Dataset

    @property
    def evaluation(self) -> VideoSet:
        return self.data.evaluation

    def method(self) -> Method:
        return load_method(self.run.folder, self.config, self.data)

    def method_of(self, kind: type[M]) -> M:
        """Of a kind, as the rows of our own figures are."""
        method = self.method()
        assert isinstance(method, kind), f"{self.run.folder} is no {kind.__name__}"
        return method


@dataclass(frozen=True)
class Material:
    """What an exhibit is made from.

    Attributes:
        runs: by row of the table, one per seed.
        asked: what those rows asked for.
        videos: folder of the videos themselves, where there is one.
        say: told what takes long.
    """

    table: PaperTable
    report: Report
    runs: Mapping[str, Sequence[Run]]
    asked: Mapping[str, Request]
    seeds: Sequence[int]
    source: Source
    device: torch.device
    resamples: int
    videos: Path | None = None
    say: Callable[[str], None] = lambda line: None

    def title(self, row: str) -> str:
        """Of a row, with its mark."""
        return next(one.title for one in self.report.rows if one.experiment.name == row)

    @property
    def heading(self) -> str:
        """Of the exhibit, with a mark where streams are replaced."""
        marked = any(row.marked for row in self.report.rows)
        return f"{self.table.title} {MARK}" if marked else self.table.title

    def trained(self, row: str) -> list[Trained]:
        """The runs of a row, by seed."""
        data = self.source.dataset(self.asked[row].config)
        # What a row takes from another's run is written down with its own.
        return [Trained(run, read_config(run.folder), data) for run in self.runs[row]]

    def selecting(self, row: str) -> SelectionConfig:
        """What a row with a pool of models asks for."""
        config = self.asked[row].config
        assert isinstance(config, SelectionConfig), "the rows of our own figures are what they are"
        return config

    @property
    def subtitle(self) -> str:
        """What stands below a figure's title."""
        seeds = len(self.seeds)
        replaced = f"; {MARK} streams replaced" if any(row.marked for row in self.report.rows) else ""
        return f"{self.report.labels_name}{f', mean of {seeds} seeds' if seeds > 1 else ''}{replaced}"
