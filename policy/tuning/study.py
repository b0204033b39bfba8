"""A study: trials one after another, or several at once, in a folder that knows which have been.

STUDY/config.json     what is searched, on which videos
STUDY/journal.jsonl   Optuna's journal: every trial, its values and what its folds measured, a JSON object a line
STUDY/trials/         checkpoints of the trials at work
STUDY/table.*, figure.png, report.html, best.txt      what came of it (`policy.tuning.report`)
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import optuna
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from cache_schema import CacheError, FeatureCache, UserError
from cache_schema.errors import LabelError
from cache_schema.files import remove_stale_temporaries
from cache_schema.run_folder import CONFIG, alone, claim
from policy.runs import choose_device
from policy.tables import output
from policy.tables.workers import Workers
from policy.tuning.problem import AGAIN, FOLDS, Problem, attempt
from policy.tuning.space import shown

JOURNAL, TRIALS, BEST, BEST_TXT = "journal.jsonl", "trials", "best", "best.txt"
REASON = "reason"
"""Attribute of a trial: why it failed."""
_FILES = frozenset(
    {CONFIG, JOURNAL, TRIALS, BEST, BEST_TXT, output.REPORT_HTML}
    | {output.TABLE_MD, output.TABLE_CSV, output.TABLE_TEX, output.FIGURE_PNG}
)
_COMPARED = {"config": "value of ", "tuned": "range of ", "data": "content of "}
_NAME = "tuning"  # of the one study in a journal
_COMPLETED = 5
"""Nothing is pruned before so many trials have been completed."""
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Budget:
    """Attributes:
    trials: of the whole study; None: as many as the time allows.
    minutes: from now; after that no trial is begun, and those at work are finished.
    """

    trials: int | None
    minutes: float | None = None


@dataclass(frozen=True)
class _Slots(Sequence[int]):
    """Numbers of the trials to come, until the time is over."""

    numbers: range
    deadline: float

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        return self.numbers[place]

    def __iter__(self) -> Iterator[int]:
        for number in self.numbers:
            if time.time() >= self.deadline:
                return
            yield number


def carry_out(
    problem: Problem,
    cache: FeatureCache,
    folder: Path,
    described: Mapping[str, Any],
    *,
    budget: Budget,
    workers: Workers,
    device: str,
    prunes: bool,
    tried: Callable[[FrozenTrial, list[FrozenTrial]], None],
) -> list[FrozenTrial]:
    """Make the trials that a study lacks, and return all that it has.

    A study goes on where it stopped. Trials that were at work when their process ended are repeated with the same
    values, from their last checkpoint.

    Args:
        described: the content of config.json, by the parts of which a folder's study is known to be this one.
        tried: called after each trial with it and with all of the study.

    Raises:
        UserError: the folder holds another study or cannot be used; no trial could be completed; cache or labels
            cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    choose_device(device)
    seed = problem.config({}).seed
    with alone(folder):
        remove_stale_temporaries(folder)
        claim(folder, described, decisive=_COMPARED, begun=(JOURNAL,), is_own=_FILES.__contains__)
        with _readable(folder):
            _mend(folder / JOURNAL)
            study = _study(folder, problem)
            if not study.trials:
                study.enqueue_trial(problem.defaults)
            _repeat_stopped(study)
            finished = sum(is_finished(trial) for trial in study.trials)
        stop = finished + 10**6 if budget.trials is None else budget.trials
        deadline = np.inf if budget.minutes is None else time.time() + 60 * budget.minutes
        where = folder.absolute() if workers.elsewhere else folder
        common: dict[str, Any] = {
            "problem": problem,
            "folder": where,
            "device": device,
            "prunes": prunes and not problem.has_front,
        }  # in two dimensions nothing is pruned
        common |= {"seed": seed, "deadline": deadline}
        here, away = (
            partial(_try, cache=cache, **common),
            partial(_try, cache=cache.folder.absolute(), **common),
        )
        for number in workers.each(here, away, _Slots(range(finished, max(stop, finished)), deadline)):
            if number is not None:
                trials = study.trials
                tried(trials[number], trials)
        shutil.rmtree(folder / TRIALS, ignore_errors=True)
        with _readable(folder):
            return study.trials


def is_finished(trial: FrozenTrial) -> bool:
    """Whether a trial counts: one that was stopped does not, as it is made again."""
    return trial.state in _FINISHED or REASON in trial.user_attrs


def _try(
    slot: int,
    *,
    problem: Problem,
    cache: FeatureCache | Path,
    folder: Path,
    device: str,
    prunes: bool,
    seed: int,
    deadline: float,
) -> int | None:
    """Make a trial; returns its number, or None where the time is over.

    What is proposed depends on the slot, the seed and the trials that are finished, whatever process makes it.
    """
    if time.time() >= deadline:
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    opened = _opened(cache) if isinstance(cache, Path) else cache
    sampler_seed = int(np.random.SeedSequence([seed, slot]).generate_state(1)[0])
    study = _study(folder, problem, TPESampler(seed=sampler_seed, constant_liar=True), prunes=prunes)
    trial = study.ask()
    values = {one.name: one.draw(trial) for one in problem.ranges}
    words = ", ".join(f"{name.replace('_', '-')} {shown(value)}" for name, value in values.items())
    click.echo(f"trial {trial.number}: {words}", err=True)
    place = folder / TRIALS / str(trial.user_attrs.get(AGAIN, trial.number))
    try:
        measured = attempt(problem, trial, values, opened, place, choose_device(device), prunes=prunes)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except (CacheError, LabelError):  # of the data: no other trial would do better
        raise
    except UserError as error:
        trial.set_user_attr(REASON, " ".join(str(error).split()))
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, problem.values_for_optuna(measured))
    shutil.rmtree(place, ignore_errors=True)
    return trial.number


@lru_cache(maxsize=1)
def _opened(folder: Path) -> FeatureCache:
    return FeatureCache(folder)


def _study(
    folder: Path, problem: Problem, sampler: TPESampler | None = None, *, prunes: bool = False
) -> optuna.Study:
    # Not Optuna's RDB storage, which needs a server or locks that network file systems lack. This backend takes no
    # snapshots, the only part of the journal that would be pickled.
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    pruner = MedianPruner(n_startup_trials=_COMPLETED) if prunes else NopPruner()
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: 1 + problem.has_front]
    return optuna.create_study(
        storage=storage,
        sampler=sampler,
        pruner=pruner,
        study_name=_NAME,
        directions=directions,
        load_if_exists=True,
    )


def _repeat_stopped(study: optuna.Study) -> None:
    """Trials that were at work when their process ended have failed, and are made again before all others."""
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        again = {AGAIN: trial.user_attrs.get(AGAIN, trial.number), FOLDS: trial.user_attrs.get(FOLDS, [])}
        study.enqueue_trial(values, user_attrs=again)
        study.tell(trial.number, state=TrialState.FAIL)


def _mend(journal: Path) -> None:
    """Remove what a process that was killed has left: its lock, and a line that is not complete."""
    journal.with_name(JOURNAL + ".lock").unlink(missing_ok=True)
    if journal.exists():
        with journal.open("r+b") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Raises UserError where the journal cannot be read in this block."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder / JOURNAL}: cannot be used: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f"{folder / JOURNAL}: cannot be read as a journal; delete the folder to start again"
        ) from error
