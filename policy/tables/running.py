"""The runs of a table: existing ones are reused, the others trained; then the views of rows that have one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from policy.config import RunConfig
from policy.registry import METHODS
from policy.runs import RESULT, Run, key_of, read_result, run_key, run_method
from policy.tables import views
from policy.tables.progress import Progress, Working
from policy.tables.requests import Order, Request
from policy.tables.source import Source, skipping
from policy.tables.views import Training, ViewTask
from policy.training.loop import CHECKPOINT

R = TypeVar("R")

_LONGEST = ("liteeval-rl", "liteeval")  # they see every frame, and the first does so three times a step
_KEY_DIGITS = 12  # 48 bits: two of a million runs share them with a chance of 1 in 500


def carry_out(order: Order, progress: Progress) -> dict[str, tuple[Run, ...]]:
    """The runs of each row with a method, by its name, in the order of the seeds.

    Run folders are named by their method and the key of their configuration and data.

    Raises:
        UserError: a run cannot be made, or a folder cannot be used.
    """
    setting, source, requested = order.setting, order.source, order.requests
    runs = setting.runs.absolute() if setting.workers.elsewhere else setting.runs
    rows = {row.name: row for row in order.table.experiments if row.name in requested}
    # Of rows that share their runs, the first stands for all.
    first: dict[Request, str] = {}
    for name in rows:
        first.setdefault(requested[name], name)
    trainings: dict[tuple[str, int], Training] = {}
    done: dict[Path, Run] = {}
    # Rows that need another row's runs are trained after all others.
    for waits in (False, True):
        wave = [name for name in first.values() if bool(requested[name].needs) == waits]
        for name in wave:
            for seed in setting.seeds:
                needed = {
                    other: done[trainings[first[other], seed].folder] for other in requested[name].needs
                }
                config = replace(_completed(requested[name], needed), seed=seed)
                trainings[name, seed] = _training(rows[name].title, config, source, runs)
        missing = _reuse([[trainings[name, seed] for seed in setting.seeds] for name in wave], done, progress)
        with progress.watch({one.folder: Working(one.name, one.config.epochs) for one in missing}):
            train = partial(_train, labels=source.labels, device=setting.device)
            for training, run, seconds, how in setting.workers.each(*_anywhere(train, source.cache), missing):
                done[training.folder] = run
                progress.trained(training.name, training.folder, seconds=seconds, how=how)
    by_row = {name: [trainings[first[requested[name]], seed] for seed in setting.seeds] for name in rows}
    viewed = _view(order, by_row, progress)
    return {name: viewed.get(name) or tuple(done[one.folder] for one in by_row[name]) for name in rows}


def _anywhere(function: Callable[..., R], cache: FeatureCache) -> tuple[partial[R], partial[R]]:
    """A function of a cache for this process, and for others, which open the cache: memory maps cannot be sent."""
    return partial(function, cache=cache), partial(function, cache=cache.folder.absolute())


def _completed(request: Request, needed: Mapping[Request, Run]) -> RunConfig:
    """The configuration with what it takes from the needed runs of the same seed."""
    values: dict[str, Any] = {name: str(needed[other].folder) for name, other in request.runs_of}
    if request.usage_of is not None:
        values["usage"] = needed[request.usage_of].result.metrics["usage"]
    return replace(request.config, **values)


def _training(title: str, config: RunConfig, source: Source, runs: Path) -> Training:
    config = skipping(config)
    key = key_of(config, source.dataset(config))
    return Training(title, config, key, runs / f"{config.method}-{key[:_KEY_DIGITS]}")


def _reuse(rows: Sequence[Sequence[Training]], done: dict[Path, Run], progress: Progress) -> list[Training]:
    """Add the finished runs to `done`; return the others, the longest first, each folder once."""
    missing: dict[Path, Training] = {}
    for trainings in rows:
        finished = [one for one in trainings if one.folder in done or one.finished]
        for training in finished:
            if training.folder not in done:
                done[training.folder] = Run(training.folder, read_result(training.folder), reused=True)
        if finished:
            progress.reused(trainings[0].title, len(finished))
        missing |= {one.folder: one for one in trainings if one not in finished}
    # The longest first, so that several processes finish at about the same time.
    order = (*_LONGEST, *METHODS)
    return sorted(missing.values(), key=lambda one: order.index(one.config.method))


def _train(
    training: Training, *, cache: FeatureCache | Path, labels: LabelSet, device: str
) -> tuple[Training, Run, float, str]:
    if isinstance(cache, Path):
        folder, cache = cache, FeatureCache(cache)
        if run_key(training.config, cache, labels) != training.key:
            raise UserError(f"{folder}: the cache has changed since this command began; run it again")
    resumed = (training.folder / CHECKPOINT).exists()
    again = (training.folder / RESULT).exists()
    started = time.monotonic()
    run = run_method(training.config, cache, labels, training.folder, device=device)
    how = "trained" if run.result.trained and not again else "evaluated"
    return training, run, time.monotonic() - started, f"resumed and {how}" if resumed else how


def _view(
    order: Order, trained: Mapping[str, Sequence[Training]], progress: Progress
) -> dict[str, tuple[Run, ...]]:
    """The views of those rows that have one, by the rows' names."""
    by_row: dict[str, list[ViewTask]] = {}
    for row in order.table.experiments:
        if row.view is not None:
            runs = trained[row.name]
            followed = trained[row.view.follows] if row.view.follows else [None] * len(runs)
            by_row[row.name] = [
                ViewTask(f"{row.title}, seed {run.config.seed}", row.view, run, other)
                for run, other in zip(runs, followed, strict=True)
            ]
    tasks = [task for tasks in by_row.values() for task in tasks]
    done = {task.folder: run for task in tasks if (run := views.stored(task))}
    missing = [task for task in tasks if task.folder not in done]
    see = partial(_see, labels=order.source.labels, device=order.setting.device)
    anywhere = _anywhere(see, order.source.cache)
    for count, (task, run) in enumerate(order.setting.workers.each(*anywhere, missing), 1):
        done[task.folder] = run
        progress.note(f"{task.name}: evaluated {task.way}, {count} of {len(missing)}")
    return {name: tuple(done[task.folder] for task in tasks) for name, tasks in by_row.items()}


def _see(
    task: ViewTask, *, cache: FeatureCache | Path, labels: LabelSet, device: str
) -> tuple[ViewTask, Run]:
    opened = FeatureCache(cache) if isinstance(cache, Path) else cache
    return task, views.make(task, opened, labels, device)
