"""A table or figure from a cache: what is wrong with the request first, then its runs, then what they come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from policy.deploy.frames import find_videos
from policy.registry import METHODS, configure
from policy.runs import choose_device
from policy.tables import selection
from policy.tables.exhibits import MAKERS, Exhibit, Material
from policy.tables.experiment import PaperTable
from policy.tables.progress import Told
from policy.tables.report import Report, make_report
from policy.tables.running import Request, carry_out, requests
from policy.tables.source import Source
from policy.tables.streams import Substitution, check_streams, substitution
from policy.tables.uncertainty import find_intervals
from policy.tables.workers import Workers


@dataclass(frozen=True)
class Setting:
    """What several tables may have in common.

    Attributes:
        values: of fields that are not to have their defaults, of all rows that have no setting of their own.
        of_pools: the same of the rows that choose from a pool of models.
        models: a pool in place of the paper's, or none.
        dataset: the paper's data set that the cache holds, or None.
        runs: folder of the run folders.
        resamples: of the bootstrap.
        videos: folder of the videos themselves, where there is one.
    """

    values: Mapping[str, Any]
    of_pools: Mapping[str, Any]
    cache: FeatureCache
    labels: LabelSet
    dataset: str | None
    seeds: Sequence[int]
    runs: Path
    resamples: int
    workers: Workers
    device: str
    videos: Path | None = None
    models: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises UserError where it makes no sense, whatever the table."""
        for method in METHODS:  # also where the table has no row for it
            configure(method, self.values).check_each()
        configure("liteeval", self.values).check()
        if not self.workers.elsewhere:
            choose_device(self.device)
        if self.videos is not None and not self.videos.is_dir():
            raise UserError(f"{self.videos}: no such folder of videos")


@dataclass(frozen=True)
class Order:
    """A table whose request is in order, and what is read for it."""

    table: PaperTable
    setting: Setting
    chosen: Substitution
    asked: dict[str, Request]
    source: Source


def order(
    table: PaperTable,
    setting: Setting,
    substitutes: Sequence[str],
    *,
    coarse: str | None = None,
    fine: str | None = None,
) -> Order:
    """Find all that can be wrong with a request before the first training.

    Raises:
        UserError: something is.
    """
    if table.pool:
        table = _with_pool(table, setting)
    elif setting.models:
        raise UserError(f"--model {setting.models[0]}: no row of {table.name} chooses from a pool of models")
    chosen = substitution(table, substitutes, coarse=coarse, fine=fine)
    check_streams(table, chosen, setting.cache)
    if table.rows_within_cache:
        table = selection.within_cache(table, chosen, setting.of_pools.get("rows"), setting.cache)
    asked = requests(table, setting.values, chosen, of_pools=setting.of_pools)
    source = Source.open([one.config for one in asked.values()], setting.cache, setting.labels)
    if setting.videos is not None and table.videos:
        (data,) = source.datasets.values()
        find_videos(setting.videos, data.evaluation.ids)
    return Order(table, setting, chosen, asked, source)


def _with_pool(table: PaperTable, setting: Setting) -> PaperTable:
    if table.pool_of_dataset:
        table = selection.of_dataset(table, setting.dataset)
    if table.cost_of_dataset and setting.of_pools.keys().isdisjoint({"threshold", "budget"}):
        table = selection.at_paper_costs(table, setting.dataset)
    if table.budget_over_threshold and "budget" in setting.of_pools:
        table = selection.at_budget(table)
    if setting.models:
        table = selection.with_pool(table, setting.models, setting.of_pools.get("rows"), setting.cache)
    return table


def fill(ordered: Order, command: str, say: Callable[[str], None]) -> Report | Exhibit:
    """Train what is missing, and make the table, or what its `exhibit` makes of the runs.

    Args:
        command: makes it again.
        say: told what is worth a line.

    Raises:
        UserError: a run cannot be made, or a folder cannot be used.
    """
    table, setting, source = ordered.table, ordered.setting, ordered.source
    for note in source.notes:
        say(note)
    progress = Told(len(set(ordered.asked.values())) * len(setting.seeds))
    runs = carry_out(
        table,
        ordered.asked,
        setting.seeds,
        source,
        setting.runs,
        device=setting.device,
        workers=setting.workers,
        progress=progress,
    )
    make = MAKERS[table.exhibit] if table.exhibit else None
    intervals = find_intervals(
        runs,
        setting.runs,
        resamples=setting.resamples if make is None else 0,
        workers=setting.workers,
        progress=progress,
    )
    report = make_report(
        table,
        runs,
        source,
        chosen=ordered.chosen,
        intervals=intervals,
        seeds=setting.seeds,
        labels_name=setting.labels.source.name,
        dataset=setting.dataset,
        command=command,
        spread="mean ± standard deviation" if make is None else "mean",
    )
    if make is None:
        return report
    device = choose_device("auto" if setting.workers.elsewhere else setting.device)
    return make(
        Material(
            table=table,
            report=report,
            runs=runs,
            asked=ordered.asked,
            seeds=setting.seeds,
            source=source,
            device=device,
            resamples=setting.resamples,
            videos=setting.videos,
            say=say,
        )
    )
