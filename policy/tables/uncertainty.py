"""Bootstrap intervals of a table's rows, stored because many videos and seeds take a while.

RUNS/intervals/3f2a….json    named by the content of the predictions
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cache_schema import UserError
from cache_schema.run_folder import read_json, write_json
from policy.evaluation.metrics import Interval
from policy.registry import METHODS
from policy.runs import Run
from policy.tables.experiment import DETECTION, Measure
from policy.tables.progress import Progress
from policy.tables.views import PREDICTIONS
from policy.tables.workers import Workers

Intervals = Mapping[Measure, Interval]

_MEASURES: Mapping[str, tuple[Measure, float]] = {
    "mean_average_precision": ("map_percent", 100),
    "top1": ("top1_percent", 100),
    "gflops": ("gflops", 1),
    "fine_features": ("fine_features", 1),
    "usage": ("usage_percent", 100),
    **{measure: (measure, 100) for measure in DETECTION},
}
"""For names of intervals (`Judged.intervals`), the measure and the factor into its unit."""


@dataclass(frozen=True)
class _Task:
    """Intervals of one row; `key` is a digest of the predictions' content and `resamples`."""

    key: str
    method: str
    folders: tuple[Path, ...]
    resamples: int
    path: Path


def find_intervals(
    rows: Mapping[str, Sequence[Run]],
    folder: Path,
    *,
    resamples: int,
    workers: Workers,
    progress: Progress,
) -> dict[str, Intervals]:
    """By row: 95 % intervals over the evaluation videos (`Judged.intervals`), stored ones or new ones.

    Args:
        rows: the runs of each row, one per seed.
        folder: the folder of the run folders.
        resamples: bootstrap samples; 0 gives no intervals.

    Raises:
        UserError: predictions cannot be read, or the folder cannot be written to.
    """
    if not resamples:
        return {}
    tasks = {name: _task(runs, folder, resamples) for name, runs in rows.items()}
    found = {task.key: stored for task in tasks.values() if (stored := _load(task)) is not None}
    missing = list({task.key: task for task in tasks.values() if task.key not in found}.values())
    if missing:
        progress.note(f"bootstrap intervals of {len(missing)} rows")
    for task, computed in workers.each(_compute, _compute, missing):
        _store(task, computed)
        found[task.key] = computed
    return {name: found[task.key] for name, task in tasks.items()}


def _task(runs: Sequence[Run], folder: Path, resamples: int) -> _Task:
    digest = hashlib.sha256(f"resamples {resamples}".encode())
    for run in runs:
        try:
            digest.update(hashlib.sha256((run.folder / PREDICTIONS).read_bytes()).digest())
        except OSError as error:
            raise UserError(
                f"{run.folder / PREDICTIONS}: cannot be read; delete the run folder to start again"
            ) from error
    key = digest.hexdigest()
    path = folder / "intervals" / f"{key[:16]}.json"
    return _Task(key, runs[0].result.method, tuple(run.folder for run in runs), resamples, path)


def _compute(task: _Task) -> tuple[_Task, Intervals]:
    judged = METHODS[task.method].judged
    found = judged.intervals([judged.load(f / PREDICTIONS) for f in task.folders], resamples=task.resamples)
    return task, {
        measure: Interval(scale * one.value, scale * one.low, scale * one.high)
        for name, (measure, scale) in _MEASURES.items()
        if (one := found.get(name)) is not None
    }


def _load(task: _Task) -> Intervals | None:
    try:
        content = read_json(task.path)
        if content["key"] != task.key:
            return None
        return {measure: Interval(**ends) for measure, ends in content["intervals"].items()}
    except (UserError, KeyError, TypeError, AttributeError):
        return None  # computed again


def _store(task: _Task, computed: Intervals) -> None:
    try:
        task.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{task.path.parent}: cannot be made: {error.strerror or error}") from error
    write_json(
        task.path, {"key": task.key, "intervals": {name: asdict(one) for name, one in computed.items()}}
    )
