"""What a study searches, and a trial: the method trained and judged on each fold."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
import torch

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from policy.config import RunConfig
from policy.data.opening import Dataset
from policy.evaluation.operating import OperatingTarget
from policy.method import Method
from policy.registry import METHODS, completed
from policy.runs import make_method, open_data
from policy.training.loop import Epoch, train
from policy.training.validation import as_trained_so_far
from policy.tuning.folds import HELD_OUT
from policy.tuning.space import Choice, Range

ALLOWED = 1.1
"""A trial keeps the cost if it spends no more than this times what is asked for."""
REPORTS, FIRST_REPORT = 10, 5
"""A training is looked at after each of so many parts; in the first fold from a later one on, after a warm-up."""
FOLDS, AGAIN = "folds", "again"
"""Attributes of a trial: what its finished folds measured; of which stopped trial it is the repetition."""


@dataclass(frozen=True)
class Measured:
    """A trained policy on the videos that were held out, or means over several folds.

    Attributes:
        metric: the method's main metric, in words.
        accuracy: that metric, from 0 to 1.
        cost: the usage, from 0 to 1, where a policy's usage can be asked for, else mean GFLOPs per video.
        gflops: mean per video.
    """

    metric: str
    accuracy: float
    cost: float
    gflops: float

    @staticmethod
    def mean(folds: Sequence[Measured]) -> Measured:
        numbers = ((fold.accuracy, fold.cost, fold.gflops) for fold in folds)
        return Measured(folds[0].metric, *map(statistics.fmean, zip(*numbers, strict=True)))


@dataclass(frozen=True)
class Problem:
    """What a study searches.

    Attributes:
        values: the options that the user has given, which are fixed.
        recipe: sets the others.
        folds: the labels of each fold.
    """

    method: str
    values: Mapping[str, Any]
    recipe: str | None
    ranges: tuple[Range, ...]
    folds: tuple[LabelSet, ...]
    subset: str

    def config(self, params: Mapping[str, Choice]) -> RunConfig:
        """The configuration of a trial, or without parameters of none. Raises UserError where it is invalid."""
        config = completed(self.method, {**self.values, **params}, self.recipe)
        return replace(config, train_subset=self.subset, eval_subset=HELD_OUT)

    def data(self, fold: int, config: RunConfig, cache: FeatureCache) -> Dataset:
        """The data of a fold. Raises UserError where configuration, cache and labels do not fit."""
        return replace(open_data(config, cache, self.folds[fold]), judges_training=True)

    @property
    def defaults(self) -> dict[str, Choice]:
        """The first trial: what would be trained without tuning, as far as the ranges allow."""
        config = self.config({})
        return {one.name: one.nearest(getattr(config, one.name)) for one in self.ranges}

    @cached_property
    def target(self) -> OperatingTarget | None:
        """The usage or budget that is to be kept; None where there is none, or where it is searched."""
        if any(one.sets_cost for one in self.ranges):
            return None
        return METHODS[self.method].cost_target(self.config({}))

    @property
    def has_front(self) -> bool:
        """Whether accuracy and cost are both optimised, as no option says what a policy is to cost."""
        if any(one.sets_cost for one in self.ranges):
            return True
        method = METHODS[self.method]
        return bool(method.operating_targets) and not method.trained_for_cost and self.target is None

    @property
    def costs_usage(self) -> bool:
        """Whether costs are usages rather than GFLOPs."""
        if self.target is not None:
            return self.target.kind == "usage"
        method = METHODS[self.method]
        return "usage" in method.operating_targets and not method.trained_for_cost

    def keeps_cost(self, measured: Measured) -> bool:
        return self.target is None or measured.cost <= ALLOWED * self.target.value

    def values_for_optuna(self, measured: Measured) -> tuple[float, ...]:
        """What is optimised: accuracy, and the cost where both are.

        Where a cost is to be kept, trials that exceed it rank below all that keep it, by how far they do."""
        if self.has_front:
            return measured.accuracy, measured.cost
        if self.target is None or self.keeps_cost(measured):
            return (measured.accuracy,)
        return (-measured.cost / max(self.target.value, 1e-6),)

    def measure(self, method: Method, data: Dataset, device: torch.device) -> Measured:
        """Judge a method on the videos that are held out."""
        judged = method.evaluate(data.evaluation, device=device)
        metrics, gflops = judged.metrics(), float(judged.gflops.mean())
        name, words = method.judged.main_metric(metrics, multi_label=data.multi_label)
        return Measured(words, metrics[name], metrics["usage"] if self.costs_usage else gflops, gflops)


def attempt(
    problem: Problem,
    trial: optuna.Trial,
    values: Mapping[str, Choice],
    cache: FeatureCache,
    folder: Path,
    device: torch.device,
    *,
    prunes: bool,
) -> Measured:
    """Train and judge the configuration that a trial proposes, fold by fold.

    What a stopped trial that this one repeats has done is not done again: its folds are the trial's attribute, and
    the checkpoint of the fold that it was at is in the folder.

    Args:
        values: of the options that are searched.
        folder: for checkpoints.
        prunes: whether it is given up where other trials were better.

    Raises:
        optuna.TrialPruned: at the same point other trials were better.
        UserError: the values of the options contradict each other, or the loss is no longer finite.
        CacheError, LabelError: cache or labels cannot be used.
    """
    config = problem.config(values)
    done = [Measured(**fold) for fold in trial.user_attrs.get(FOLDS, [])]
    for fold in range(len(done), len(problem.folds)):
        data = problem.data(fold, config, cache)
        method = make_method(config, data)
        if method.by_descent:
            _train(problem, trial if prunes else None, method, data, folder / str(fold), device, done)
        method.model.to(device).eval()
        method.finish(data.train, device)
        done.append(problem.measure(method, data, device))
        trial.set_user_attr(FOLDS, [asdict(one) for one in done])
        shutil.rmtree(folder / str(fold), ignore_errors=True)
        if prunes and len(done) < len(problem.folds):
            _report(trial, Measured.mean(done).accuracy, len(done) * REPORTS)
    return Measured.mean(done)


def _train(
    problem: Problem,
    trial: optuna.Trial | None,
    method: Method,
    data: Dataset,
    folder: Path,
    device: torch.device,
    done: Sequence[Measured],
) -> None:
    """Train a method, and report to the trial, if there is one, what it comes to on the way."""
    folder.mkdir(parents=True, exist_ok=True)
    epochs = method.config.epochs

    def on_epoch(epoch: Epoch) -> None:
        number, before = int(epoch["epoch"]), len(done) * REPORTS
        step = REPORTS * number // epochs
        is_due = number < epochs and step > REPORTS * (number - 1) // epochs
        if trial is not None and is_due and before + step >= FIRST_REPORT:
            measured = _preview(problem, method, data, device)
            _report(trial, Measured.mean([*done, measured]).accuracy, before + step)

    train(method, data.train, folder, device=device, on_epoch=on_epoch)


def _preview(problem: Problem, method: Method, data: Dataset, device: torch.device) -> Measured:
    """Judge a method in the middle of its training, which goes on as if nothing had been.

    Where a cost is to be kept, at that cost on the very videos that it is judged on: accuracies at different costs
    would say little about each other, and those early in a training are of any cost.
    """
    with as_trained_so_far(method):
        if problem.target is not None and problem.target.kind in method.operating_targets:
            method.move_to(problem.target, [(method, data.evaluation)], device)
        else:
            method.finish(data.train, device)
        return problem.measure(method, data, device)


def _report(trial: optuna.Trial, accuracy: float, step: int) -> None:
    """Raises TrialPruned where other trials were better at this step."""
    trial.report(accuracy, step)
    if trial.should_prune():
        raise optuna.TrialPruned


def check(problem: Problem, cache: FeatureCache) -> Dataset:
    """The first fold's data, once all folds are known to fit.

    Raises:
        UserError: the method cannot be tuned, or the first trial does not fit the data.
    """
    config, method = problem.config(problem.defaults), METHODS[problem.method]
    built_on = list(method.needs(config)) + (["teacher"] if getattr(config, "teacher", None) else [])
    if built_on:
        names = " and ".join("--" + name.replace("_", "-") for name in built_on)
        raise UserError(
            f"{problem.method} with {names} cannot be tuned: it builds on finished runs, which have been trained "
            "on the very videos that would be held out"
        )
    datasets = [problem.data(fold, config, cache) for fold in range(len(problem.folds))]
    make_method(config, datasets[0])
    return datasets[0]
