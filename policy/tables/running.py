"""Runs of a table: those that are there are reused, the others trained, in this process or several."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from cache_schema.run_folder import read_json
from policy.config import RunConfig
from policy.data import Dataset, Role
from policy.runs import METHODS, Run, key_of, open_data, read_result, run_key, run_method
from policy.tables.experiment import Experiment
from policy.tables.progress import Progress, Silent
from policy.training import CHECKPOINT

_LONGEST = ("liteeval-rl", "liteeval")  # they see every frame, and the first does so three times a step
_KEY_DIGITS = 12  # 48 bits: two of a million runs share them with a chance of 1 in 500


@dataclass(frozen=True)
class Source:
    """Opened cache and labels, and the datasets that methods make of them."""

    cache: FeatureCache
    labels: LabelSet
    datasets: dict[tuple[Role, ...], Dataset]

    @staticmethod
    def open(config: RunConfig, cache: FeatureCache, labels: LabelSet) -> Source:
        """Args:
            config: names both streams; its method and seed do not matter.

        Raises:
            UserError: configuration, cache and labels do not fit each other.
        """
        both = open_data(replace(config, method="liteeval"), cache, labels)
        if config.skip_missing:
            # A method that reads one stream must not be judged on videos that the others lack.
            ids = {*both.train.ids, *both.evaluation.ids}
            kept = [v for v in labels.videos if not ids.isdisjoint((v.video_id, *v.aliases))]
            labels = LabelSet(labels.source, tuple(kept))
        return Source(cache, labels, {("coarse", "fine"): both})

    @property
    def both(self) -> Dataset:
        """With the coarse and the fine stream."""
        return self.datasets["coarse", "fine"]

    def dataset(self, config: RunConfig) -> Dataset:
        roles = METHODS[config.method].roles
        if roles not in self.datasets:
            self.datasets[roles] = open_data(config, self.cache, self.labels)
        return self.datasets[roles]


@dataclass(frozen=True)
class Task:
    """One run of an experiment, and where it is or will be."""

    experiment: Experiment
    config: RunConfig
    key: str
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.experiment.title}, seed {self.config.seed}"


def carry_out(
    experiments: Sequence[Experiment],
    config: RunConfig,
    seeds: Sequence[int],
    source: Source,
    runs: Path,
    *,
    device: str = "auto",
    jobs: int = 1,
    progress: Progress | None = None,
) -> Mapping[str, tuple[Run, ...]]:
    """The runs of each experiment that is built, by method, in the order of the seeds.

    Args:
        config: of all runs; each experiment sets its method, seed and usage.
        runs: folder of run folders, each named by its method and the key of its configuration and data.
        jobs: processes that train at once.

    Raises:
        UserError: a run cannot be made, or a folder cannot be used.
    """
    progress = progress or Silent()
    found: dict[tuple[str, int], Run] = {}
    for wave in _waves(experiments):
        tasks = [_task(one, config, seed, source, runs, found) for one in wave for seed in seeds]
        missing = []
        for experiment in wave:
            mine = [task for task in tasks if task.experiment is experiment]
            reused = [task for task in mine if _finished(task)]
            for task in reused:
                found[_place(task)] = Run(task.folder, read_result(task.folder), reused=True)
            if reused:
                progress.reused(experiment.title, len(reused))
            missing += [task for task in mine if task not in reused]
        # The longest trainings first, so that several processes end together.
        missing.sort(key=lambda task: (*_LONGEST, task.config.method).index(task.config.method))
        with progress.watch({task.folder: task.name for task in missing}):
            for task, run, seconds, how in _train_all(missing, source, device, jobs):
                found[_place(task)] = run
                progress.trained(task.name, task.folder, seconds=seconds, how=how)
    methods = dict.fromkeys(method for method, _ in found)
    return {method: tuple(found[method, seed] for seed in seeds) for method in methods}


def _waves(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """First those that need no other run, then the others."""
    built = [experiment for experiment in experiments if experiment.method is not None]
    waves = [[e for e in built if e.usage_of is None], [e for e in built if e.usage_of is not None]]
    return [wave for wave in waves if wave]


def _task(
    experiment: Experiment,
    config: RunConfig,
    seed: int,
    source: Source,
    runs: Path,
    found: Mapping[tuple[str, int], Run],
) -> Task:
    method = str(experiment.method)
    usage = found[experiment.usage_of, seed].result.usage if experiment.usage_of else None
    mine = replace(config, method=method, seed=seed, usage=usage)
    key = key_of(mine, source.dataset(mine))
    return Task(experiment, mine, key, runs / f"{method}-{key[:_KEY_DIGITS]}")


def _place(task: Task) -> tuple[str, int]:
    return task.config.method, task.config.seed


def _finished(task: Task) -> bool:
    """Whether the folder holds this very run, finished. Says nothing about folders that hold something else:
    `run_method` does."""
    try:
        held = read_json(task.folder / "config.json")
    except UserError:
        return False
    return held.get("key") == task.key and (task.folder / "result.json").exists()


def _train_all(
    tasks: Sequence[Task], source: Source, device: str, jobs: int
) -> Iterator[tuple[Task, Run, float, str]]:
    """Train in some order; yields each run as it is done, with its seconds and what was done."""
    if jobs == 1 or len(tasks) <= 1:
        for task in tasks:
            yield _train(task, source.cache, source.labels, device)
        return
    parallel = Parallel(n_jobs=min(jobs, len(tasks)), backend="loky", return_as="generator_unordered")
    cache = source.cache.folder
    try:
        yield from parallel(delayed(_train_elsewhere)(task, cache, source.labels, device) for task in tasks)
    except TerminatedWorkerError as error:
        raise UserError(
            "a training process was ended from outside, perhaps for lack of memory; run the same command again, "
            "with fewer --jobs"
        ) from error


def _train_elsewhere(task: Task, folder: Path, labels: LabelSet, device: str) -> tuple[Task, Run, float, str]:
    """In a process of its own: memory maps do not travel, so it opens the cache anew."""
    cache = FeatureCache(folder)
    if run_key(task.config, cache, labels) != task.key:
        raise UserError(f"{folder}: the cache has changed since this command began; run it again")
    return _train(task, cache, labels, device)


def _train(task: Task, cache: FeatureCache, labels: LabelSet, device: str) -> tuple[Task, Run, float, str]:
    resumed = (task.folder / CHECKPOINT).exists()
    started = time.monotonic()
    run = run_method(task.config, cache, labels, task.folder, device=device)
    how = "trained" if run.result.trained else "evaluated"
    return task, run, time.monotonic() - started, f"resumed and {how}" if resumed else how


__all__ = ["Source", "Task", "carry_out"]
