"""What is requested of a table, checked before the first training: its rows' configurations, and their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from policy.config import RunConfig
from policy.deploy.frames import find_videos
from policy.liteeval.config import GatedConfig
from policy.registry import METHODS, configure
from policy.runs import choose_device
from policy.selection.config import SelectionConfig, with_schedule
from policy.tables import pool_rows
from policy.tables.experiment import Experiment, PaperTable
from policy.tables.source import Source
from policy.tables.streams import Substitution, check_streams, substitution
from policy.tables.workers import Workers


@dataclass(frozen=True)
class Request:
    """The runs that a row with a method needs. Rows with equal requests share their runs.

    Attributes:
        config: of the runs, whatever its seed.
        usage_of: the request whose run with the same seed has the usage to match.
        teacher_of: the request whose run with the same seed is the teacher.
    """

    config: RunConfig
    usage_of: Request | None = None
    teacher_of: Request | None = None

    @property
    def needs(self) -> Request | None:
        """The request whose runs come first."""
        return self.usage_of or self.teacher_of


def requests(
    table: PaperTable,
    values: Mapping[str, Any],
    streams: Substitution,
    *,
    of_pools: Mapping[str, Any] | None = None,
) -> dict[str, Request]:
    """The requests by the rows' names; a row's own settings override `values`.

    Args:
        values: of configuration fields, in place of their defaults.
        of_pools: replaces `values` for rows that choose from a pool; by default the same.

    Raises:
        UserError: the values and a row's settings contradict each other.
    """
    found: dict[str, Request] = {}
    for row in table.experiments:
        if row.method is None:
            continue
        common = values if of_pools is None or not row.models else of_pools
        fields: dict[str, Any] = {
            **common,
            **row.settings,
            **{role: streams.stream(paper) for role, paper in row.streams.items()},
        }
        if row.models:
            fields["models"] = tuple(map(streams.model, row.models))
        if "threshold" in row.settings and "budget" not in row.settings:
            fields["budget"] = None  # which would set another threshold
        config = configure(row.method, fields)
        try:
            if isinstance(config, SelectionConfig):
                config = with_schedule(config, _decided(row, common, fields))
            _check(config, row)
        except UserError as error:
            raise UserError(f"{table.name}, row {row.title!r}: {error}") from error
        found[row.name] = Request(config)
    for row in table.experiments:
        if row.usage_of is not None:
            found[row.name] = replace(found[row.name], usage_of=found[row.usage_of])
        if row.teacher_of is not None:
            found[row.name] = replace(found[row.name], teacher_of=found[row.teacher_of])
    return found


def _decided(row: Experiment, common: Mapping[str, Any], fields: Mapping[str, Any]) -> set[str]:
    """The fields that `with_schedule` must not set: those that a row sets, or else the user."""
    point = {"threshold", "budget"}
    drops = {"lr_drop"} if fields.get("lr_drop") or "lr_drop" in row.settings else set()
    return (point & row.settings.keys() or point & common.keys()) | drops


def _check(config: RunConfig, row: Experiment) -> None:
    # The teacher's run does not exist yet, but will.
    teacher: dict[str, Any] = {"teacher": row.teacher_of} if row.teacher_of else {}
    replace(config, **teacher).check()
    if isinstance(config, GatedConfig) and config.coarse_hidden > config.fine_hidden:
        # The method raises this, too, but only when it is built: for the last row, hours into the table.
        raise UserError(
            f"coarse-hidden ({config.coarse_hidden}) must not exceed fine-hidden ({config.fine_hidden})"
        )


@dataclass(frozen=True)
class Setting:
    """Settings that several tables may share.

    Attributes:
        values: of configuration fields, for all rows without a setting of their own.
        of_pools: the same for rows that choose from a pool of models.
        dataset: the paper's data set that the cache holds, or None.
        runs: folder of the run folders.
        resamples: bootstrap samples.
        videos: folder of the videos themselves, or None.
        models: replace the paper's pool, if there are any.
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
        """Raises UserError for settings that are wrong for every table."""
        for method in METHODS:  # also those without a row in the table
            configure(method, self.values).check_each()
        configure("liteeval", self.values).check()
        if not self.workers.elsewhere:
            choose_device(self.device)
        if self.videos is not None and not self.videos.is_dir():
            raise UserError(f"{self.videos}: no such folder of videos")


@dataclass(frozen=True)
class Order:
    """A checked request for a table, and the data that it reads."""

    table: PaperTable
    setting: Setting
    streams: Substitution
    requests: dict[str, Request]
    source: Source


def order(
    table: PaperTable,
    setting: Setting,
    substitutes: Sequence[str],
    *,
    coarse: str | None = None,
    fine: str | None = None,
) -> Order:
    """Check everything about a request before the first training.

    Raises:
        UserError: something is wrong with it.
    """
    if table.pool:
        table = _with_pool(table, setting)
    elif setting.models:
        raise UserError(f"--model {setting.models[0]}: no row of {table.name} chooses from a pool of models")
    streams = substitution(table, substitutes, coarse=coarse, fine=fine)
    check_streams(table, streams, setting.cache)
    if table.rows_within_cache:
        table = pool_rows.within_cache(table, streams, setting.of_pools.get("rows"), setting.cache)
    requested = requests(table, setting.values, streams, of_pools=setting.of_pools)
    source = Source.open([one.config for one in requested.values()], setting.cache, setting.labels)
    if setting.videos is not None and table.videos:
        (data,) = source.datasets.values()
        find_videos(setting.videos, data.evaluation.ids)
    return Order(table, setting, streams, requested, source)


def _with_pool(table: PaperTable, setting: Setting) -> PaperTable:
    if table.pool_of_dataset:
        table = pool_rows.of_dataset(table, setting.dataset)
    if table.cost_of_dataset and setting.of_pools.keys().isdisjoint({"threshold", "budget"}):
        table = pool_rows.at_paper_costs(table, setting.dataset)
    if table.budget_over_threshold and "budget" in setting.of_pools:
        table = pool_rows.at_budget(table)
    if setting.models:
        table = pool_rows.with_pool(table, setting.models, setting.of_pools.get("rows"), setting.cache)
    return table
