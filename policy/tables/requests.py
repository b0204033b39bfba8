"""What is requested of a table, checked before the first training: its rows' configurations, and their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from policy.config import RunConfig
from policy.deploy.file_speed import TimedVideos, videos_to_time
from policy.deploy.frames import find_videos
from policy.liteeval.config import GatedConfig
from policy.registry import METHODS, configure
from policy.runs import choose_device
from policy.selection.config import SelectionConfig, with_schedule
from policy.tables import clip_rows, pool_rows
from policy.tables.experiment import Experiment, PaperTable
from policy.tables.package_rows import with_packages
from policy.tables.source import Source
from policy.tables.streams import Substitution, check_streams, substitution
from policy.tables.workers import Workers


@dataclass(frozen=True)
class Request:
    """The runs that a row with a method needs. Rows with equal requests share their runs.

    Attributes:
        config: of the runs, whatever its seed.
        usage_of: the request whose run with the same seed has the usage to match.
        runs_of: configuration fields that name a run, such as "teacher", and the request whose run with the same
            seed each names.
    """

    config: RunConfig
    usage_of: Request | None = None
    runs_of: tuple[tuple[str, Request], ...] = ()

    @property
    def needs(self) -> tuple[Request, ...]:
        """The requests whose runs come first."""
        usage_of = () if self.usage_of is None else (self.usage_of,)
        return (*usage_of, *(request for _, request in self.runs_of))


def requests(
    table: PaperTable,
    values: Mapping[str, Any],
    streams: Substitution,
    *,
    of_pools: Mapping[str, Any] | None = None,
    of_methods: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Request]:
    """The requests by the rows' names; a row's own settings override `values`.

    Args:
        values: of configuration fields, in place of their defaults.
        of_pools: replaces `values` for rows that choose from a pool; by default the same.
        of_methods: by method, replaces `values` for its rows.

    Raises:
        UserError: the values and a row's settings, or two rows, contradict each other.
    """
    found: dict[str, Request] = {}
    for row in table.experiments:
        if row.method is None:
            continue
        common = values if of_pools is None or not row.models else of_pools
        common = (of_methods or {}).get(row.method, common)
        fields: dict[str, Any] = {
            **common,
            **row.settings,
            **{role: streams.stream(paper) for role, paper in row.streams.items()},
        }
        fields |= {name: tuple(map(streams.stream, papers)) for name, papers in row.lists.items()}
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
        if row.method is None:
            continue
        if row.usage_of is not None:
            found[row.name] = replace(found[row.name], usage_of=found[row.usage_of])
        named = row.runs_of if row.teacher_of is None else {"teacher": row.teacher_of, **row.runs_of}
        if named:
            runs_of = tuple((name, found[other]) for name, other in named.items())
            found[row.name] = replace(found[row.name], runs_of=runs_of)
        _check_runs(found[row.name], row, table)
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


def _check_runs(request: Request, row: Experiment, table: PaperTable) -> None:
    """Raises UserError where a row's method cannot be built on the runs of the rows that it names."""
    titles = {one.name: one.title for one in table.experiments}
    # Their runs do not exist yet, so that the rows stand for them.
    named: dict[str, Any] = {name: titles[other] for name, other in row.runs_of.items()}
    config = replace(request.config, **named)
    try:
        METHODS[config.method].needs(config)
        for name, needed in request.runs_of:
            METHODS[config.method].check_needed(config, name, needed.config)
    except UserError as error:
        raise UserError(f"{table.name}, row {row.title!r}: {error}") from error


@dataclass(frozen=True)
class Setting:
    """Settings that several tables may share.

    Attributes:
        values: of configuration fields, for all rows without a setting of their own.
        of_pools: the same for rows that choose from a pool of models.
        of_methods: the same for rows of some methods.
        dataset: the paper's data set that the cache holds, or None.
        runs: folder of the run folders.
        resamples: bootstrap samples.
        videos: files of the videos themselves, their folders or lists; none: without them.
        weights: of the networks that are timed on them, as --weights of run-policy.
        models: replace the paper's pool, if there are any.
    """

    values: Mapping[str, Any]
    of_pools: Mapping[str, Any]
    of_methods: Mapping[str, Mapping[str, Any]]
    cache: FeatureCache
    labels: LabelSet
    dataset: str | None
    seeds: Sequence[int]
    runs: Path
    resamples: int
    workers: Workers
    device: str
    videos: tuple[Path, ...] = ()
    weights: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @property
    def sets_clip_threshold(self) -> bool:
        """Whether the user has set how often clip selection uses motion."""
        return not self.of_methods["localization-selector"].keys().isdisjoint({"threshold", "budget"})

    def check(self) -> None:
        """Raises UserError for settings that are wrong for every table."""
        for method in METHODS:  # also those without a row in the table
            configure(method, self.of_methods.get(method, self.values)).check_each()
        configure("liteeval", self.values).check()
        if not self.workers.elsewhere:
            choose_device(self.device)
        for path in self.videos:
            if not path.exists():
                raise UserError(f"{path}: no such file or folder of videos")
        if self.weights and not self.videos:
            raise UserError("--weights: of the networks that are timed on --videos: give those, too")


@dataclass(frozen=True)
class Order:
    """A checked request for a table, and the data that it reads.

    Attributes:
        timed: videos on which its policies are timed.
    """

    table: PaperTable
    setting: Setting
    streams: Substitution
    requests: dict[str, Request]
    source: Source
    timed: TimedVideos | None = None


def order(
    table: PaperTable,
    setting: Setting,
    substitutes: Sequence[str],
    *,
    coarse: str | None = None,
    fine: str | None = None,
    further: Sequence[str] = (),
) -> Order:
    """Check everything about a request before the first training.

    Args:
        coarse, fine: as `substitution` takes them.
        further: streams of the cache, added to those of rows that take any number.

    Raises:
        UserError: something is wrong with it.
    """
    if table.of_packages:
        table = with_packages(table)
    if table.pool:
        table = _with_pool(table, setting)
    elif setting.models:
        raise UserError(f"--model {setting.models[0]}: no row of {table.name} chooses from a pool of models")
    streams = substitution(table, substitutes, coarse=coarse, fine=fine)
    if further:
        table = with_further_streams(table, further, streams)
    if table.streams_within_cache:
        table = clip_rows.within_cache(table, streams, setting.cache)
    check_streams(table, streams, setting.cache)
    if table.cost_of_dataset and not table.pool and not setting.sets_clip_threshold:
        table = clip_rows.at_paper_cost(table, streams, setting.cache)
    if table.rows_within_cache:
        table = pool_rows.within_cache(table, streams, setting.of_pools.get("rows"), setting.cache)
    requested = requests(
        table, setting.values, streams, of_pools=setting.of_pools, of_methods=setting.of_methods
    )
    source = Source.open([one.config for one in requested.values()], setting.cache, setting.labels)
    if table.exhibit is not None and table.exhibit.startswith("localization-"):
        clip_rows.check_segments(source)
    timed = None
    if setting.videos and table.videos:
        evaluations = [data.evaluation for data in source.datasets.values()]
        if table.exhibit == "runtime":
            timed = videos_to_time(
                setting.videos,
                evaluations[0],
                [stream.spec for videos in evaluations for stream in videos.streams.values()],
                setting.weights,
                skip_missing=setting.values.get("skip_missing", False),
            )
        else:
            find_videos(setting.videos, evaluations[0].ids)
    return Order(table, setting, streams, requested, source, timed)


def with_further_streams(table: PaperTable, further: Sequence[str], streams: Substitution) -> PaperTable:
    """The table with these streams added to every list of streams. Raises UserError where one is there already."""
    for number, name in enumerate(further):
        if name in further[:number]:
            raise UserError(f"--stream {name}: is given twice")
        for role, papers in table.streams.items():
            if name in map(streams.stream, papers):
                raise UserError(
                    f"--stream {name}: is read already, as the {role} stream (--{role}): leave it out, --stream "
                    "adds others"
                )
    rows = (
        replace(row, lists={name: (*papers, *further) for name, papers in row.lists.items()})
        for row in table.experiments
    )
    return replace(table, experiments=tuple(rows))


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
