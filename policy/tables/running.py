"""Runs of a table: those that are there are reused, the others trained; then what they say in other views."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from cache_schema.run_folder import CONFIG, read_json
from policy.config import RunConfig
from policy.liteeval.config import GatedConfig
from policy.registry import METHODS, configure
from policy.runs import RESULT, Run, key_of, of_earlier_version, read_result, run_key, run_method
from policy.selection.config import SelectionConfig, with_schedule
from policy.tables import views
from policy.tables.experiment import Experiment, PaperTable, View
from policy.tables.progress import Progress, Silent, Working
from policy.tables.source import Source, skipping
from policy.tables.streams import Substitution
from policy.tables.views import Trained, ViewTask
from policy.tables.workers import Workers
from policy.training.loop import CHECKPOINT

_LONGEST = ("liteeval-rl", "liteeval")  # they see every frame, and the first does so three times a step
_KEY_DIGITS = 12  # 48 bits: two of a million runs share them with a chance of 1 in 500


@dataclass(frozen=True)
class Request:
    """What a row with a method asks for. Rows of one request share their runs.

    Attributes:
        config: of its runs; the seed does not matter.
        usage_of: the one whose run with the same seed has the usage to match.
        teacher_of: the one whose run with the same seed is the teacher.
    """

    config: RunConfig
    usage_of: Request | None = None
    teacher_of: Request | None = None

    @property
    def needs(self) -> Request | None:
        """The one whose runs come first."""
        return self.usage_of or self.teacher_of


def requests(
    table: PaperTable,
    values: Mapping[str, Any],
    chosen: Substitution,
    *,
    of_pools: Mapping[str, Any] | None = None,
) -> dict[str, Request]:
    """By the rows' names; a row's own settings win over the values that were given.

    Args:
        values: of fields that are not to have their defaults.
        of_pools: the same for the rows that choose from a pool, where they are not to have these.

    Raises:
        UserError: the two do not go together.
    """
    made: dict[str, Request] = {}
    for one in table.experiments:
        if one.method is None:
            continue
        given = values if of_pools is None or not one.models else of_pools
        mine: dict[str, Any] = {
            **given,
            **one.settings,
            **{role: chosen.stream(paper) for role, paper in one.streams.items()},
        }
        if one.models:
            mine["models"] = tuple(chosen.model(paper) for paper in one.models)
        if "threshold" in one.settings and "budget" not in one.settings:
            mine["budget"] = None  # which would set another
        config = configure(one.method, mine)
        try:
            if isinstance(config, SelectionConfig):
                config = with_schedule(config, _said_of(one, given, mine))
            _check(config, one)
        except UserError as error:
            raise UserError(f"{table.name}, row {one.title!r}: {error}") from error
        made[one.name] = Request(config)
    for one in table.experiments:
        if one.usage_of is not None:
            made[one.name] = replace(made[one.name], usage_of=made[one.usage_of])
        if one.teacher_of is not None:
            made[one.name] = replace(made[one.name], teacher_of=made[one.teacher_of])
    return made


def _said_of(one: Experiment, given: Mapping[str, Any], mine: Mapping[str, Any]) -> set[str]:
    """Of what `with_schedule` completes, that which a row says itself or else the user."""
    decides = {"threshold", "budget"}
    drops = {"lr_drop"} if mine.get("lr_drop") or "lr_drop" in one.settings else set()
    return (decides & one.settings.keys() or decides & given.keys()) | drops


def _check(config: RunConfig, one: Experiment) -> None:
    taught: dict[str, Any] = (
        {"teacher": one.teacher_of} if one.teacher_of else {}
    )  # not yet there, but to come
    replace(config, **taught).check()
    if isinstance(config, GatedConfig) and config.coarse_hidden > config.fine_hidden:
        # Its method says so too, but only when it is made: for the last row, hours into the table.
        raise UserError(
            f"coarse-hidden ({config.coarse_hidden}) must not exceed fine-hidden ({config.fine_hidden})"
        )


@dataclass(frozen=True)
class Task:
    """One training."""

    title: str
    config: RunConfig
    key: str
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.title}, seed {self.config.seed}"

    @property
    def finished(self) -> bool:
        """Whether the folder holds this very run, finished. Says nothing about folders that hold something else:
        `run_method` does."""
        try:
            held = read_json(self.folder / CONFIG)
        except UserError:
            return False
        ours = held.get("key") == self.key and (self.folder / RESULT).exists()
        return ours and not of_earlier_version(self.folder)


def carry_out(
    table: PaperTable,
    asked: Mapping[str, Request],
    seeds: Sequence[int],
    source: Source,
    runs: Path,
    *,
    device: str = "auto",
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> dict[str, tuple[Run, ...]]:
    """The runs of each row with a method, by its name, in the order of the seeds.

    Args:
        asked: as `requests` returns it.
        runs: folder of run folders, each named by its method and the key of its configuration and data.

    Raises:
        UserError: a run cannot be made, or a folder cannot be used.
    """
    workers, progress = workers or Workers(), progress or Silent()
    if workers.elsewhere:
        runs = runs.absolute()
    rows = {one.name: one for one in table.experiments if one.name in asked}
    # Of the rows that share their runs, the first stands for all.
    first = {asked[name]: name for name in reversed(rows)}
    tasks: dict[tuple[str, int], Task] = {}
    made: dict[Path, Run] = {}
    for wave in _waves(asked, first):
        for name in wave:
            for seed in seeds:
                needed = asked[name].needs
                other = made[tasks[first[needed], seed].folder] if needed else None
                config = replace(_completed(asked[name], other), seed=seed)
                tasks[name, seed] = _task(rows[name].title, config, source, runs)
        missing = _reuse([[tasks[name, seed] for seed in seeds] for name in wave], made, progress)
        with progress.watch({task.folder: Working(task.name, task.config.epochs) for task in missing}):
            here = partial(_train, cache=source.cache, labels=source.labels, device=device)
            away = partial(
                _train_elsewhere, cache=source.cache.folder.absolute(), labels=source.labels, device=device
            )
            for task, run, seconds, how in workers.each(here, away, missing):
                made[task.folder] = run
                progress.trained(task.name, task.folder, seconds=seconds, how=how)
    trained = {name: [tasks[first[asked[name]], seed] for seed in seeds] for name in rows}
    seen = _look(rows.values(), trained, source, device, workers, progress)
    return {name: seen.get(name) or tuple(made[task.folder] for task in trained[name]) for name in rows}


def _waves(asked: Mapping[str, Request], first: Mapping[Request, str]) -> list[list[str]]:
    """Names of the rows to train for: first those that need no other's runs, then the others."""
    names = [name for name, request in asked.items() if first[request] == name]
    waves = [
        [n for n in names if asked[n].needs is None],
        [n for n in names if asked[n].needs is not None],
    ]
    return [wave for wave in waves if wave]


def _completed(request: Request, other: Run | None) -> RunConfig:
    """Its configuration, with what it takes from another's run of the same seed."""
    if other is None:
        return request.config
    if request.usage_of is not None:
        taken: dict[str, Any] = {"usage": other.result.metrics["usage"]}
    else:
        taken = {"teacher": str(other.folder)}
    return replace(request.config, **taken)


def _task(title: str, config: RunConfig, source: Source, runs: Path) -> Task:
    config = skipping(config)
    key = key_of(config, source.dataset(config))
    return Task(title, config, key, runs / f"{config.method}-{key[:_KEY_DIGITS]}")


def _reuse(rows: Sequence[Sequence[Task]], made: dict[Path, Run], progress: Progress) -> list[Task]:
    """Enter the finished runs; return the tasks that are left, the longest first, each folder once."""
    missing: dict[Path, Task] = {}
    for tasks in rows:
        finished = [task for task in tasks if task.folder in made or task.finished]
        for task in finished:
            if task.folder not in made:
                made[task.folder] = Run(task.folder, read_result(task.folder), reused=True)
        if finished:
            progress.reused(tasks[0].title, len(finished))
        missing |= {task.folder: task for task in tasks if task not in finished}
    # So that several processes end together.
    order = (*_LONGEST, *METHODS)
    return sorted(missing.values(), key=lambda task: order.index(task.config.method))


def _train_elsewhere(
    task: Task, *, cache: Path, labels: LabelSet, device: str
) -> tuple[Task, Run, float, str]:
    """In a process of its own: memory maps do not travel, so it opens the cache anew."""
    opened = FeatureCache(cache)
    if run_key(task.config, opened, labels) != task.key:
        raise UserError(f"{cache}: the cache has changed since this command began; run it again")
    return _train(task, cache=opened, labels=labels, device=device)


def _train(task: Task, *, cache: FeatureCache, labels: LabelSet, device: str) -> tuple[Task, Run, float, str]:
    resumed = (task.folder / CHECKPOINT).exists()
    again = (task.folder / RESULT).exists()
    started = time.monotonic()
    run = run_method(task.config, cache, labels, task.folder, device=device)
    how = "trained" if run.result.trained and not again else "evaluated"
    return task, run, time.monotonic() - started, f"resumed and {how}" if resumed else how


def _look(
    rows: Iterable[Experiment],
    trained: Mapping[str, Sequence[Task]],
    source: Source,
    device: str,
    workers: Workers,
    progress: Progress,
) -> dict[str, tuple[Run, ...]]:
    """What the runs say in the views of those rows that have one, by the rows' names."""
    asked = {one.name: _view_tasks(one, one.view, trained) for one in rows if one.view is not None}
    tasks = [task for mine in asked.values() for task in mine]
    made = {task.folder: run for task in tasks if (run := views.kept(task))}
    missing = [task for task in tasks if task.folder not in made]
    here = partial(_see, cache=source.cache, labels=source.labels, device=device)
    away = partial(_see_elsewhere, cache=source.cache.folder.absolute(), labels=source.labels, device=device)
    for count, (task, run) in enumerate(workers.each(here, away, missing), 1):
        made[task.folder] = run
        progress.note(f"{task.title}: evaluated online, {count} of {len(missing)}")
    return {name: tuple(made[task.folder] for task in mine) for name, mine in asked.items()}


def _view_tasks(one: Experiment, view: View, trained: Mapping[str, Sequence[Task]]) -> list[ViewTask]:
    follows: Sequence[Task | None] = (
        trained[view.follows] if view.follows else [None] * len(trained[one.name])
    )
    return [
        ViewTask(
            f"{one.title}, seed {task.config.seed}",
            view,
            _as_trained(task),
            _as_trained(other) if other else None,
        )
        for task, other in zip(trained[one.name], follows, strict=True)
    ]


def _as_trained(task: Task) -> Trained:
    return Trained(task.config, task.key, task.folder)


def _see(task: ViewTask, *, cache: FeatureCache, labels: LabelSet, device: str) -> tuple[ViewTask, Run]:
    return task, views.make(task, cache, labels, device)


def _see_elsewhere(task: ViewTask, *, cache: Path, labels: LabelSet, device: str) -> tuple[ViewTask, Run]:
    return _see(task, cache=FeatureCache(cache), labels=labels, device=device)


__all__ = ["Request", "Task", "carry_out", "requests"]
