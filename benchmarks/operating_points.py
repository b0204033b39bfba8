"""Whether a policy that was moved to an operating point keeps it on videos that were held out.

    python -m benchmarks.operating_points

Each policy is trained once per seed on planted data, and then moved as by `train-policy evaluate`: with a
calibration subset that it was not trained on, and on its training videos. Cascades have nothing to train: their
threshold is found on the one or the other. Shown is what held-out videos cost: of selectors and cascades in %
beyond the budget, of LiteEval in points of usage beyond its target; the mean over the seeds, and the seed that is
furthest off. ± is the standard error of a single seed that comes of the number of held-out videos alone: with so
many videos nothing can be nearer than that, but for luck.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.tables import as_written, load, machine, markdown
from cache_schema import FeatureCache
from cache_schema.annotations import LabelSet
from policy.data.batches import VideoSet
from policy.evaluation.operating import OperatingTarget
from policy.evaluation.predictions import Judged
from policy.localization.judged import Localizations
from policy.method import Calibration, Method
from policy.registry import configure
from policy.runs import load_method, open_data, read_config, run_method
from policy.selection.config import PAPER, SelectionConfig, with_schedule
from policy.selection.controls import cascade
from policy.selection.opening import Pool
from policy.selection.pool import FloatArray
from policy.training.cross_fitting import cross_fitted
from tests.planted import write_planted
from tests.planted_actions import STREAMS, plant_actions, small
from tests.pools import plant_pool

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Trained:
    """A finished run on planted data of which a part is held out, and another for calibration."""

    folder: Path
    cache: FeatureCache
    labels: LabelSet


@dataclass(frozen=True)
class Case:
    """A policy, and the operating points that it is moved to."""

    name: str
    train: Callable[[Path, int, bool], Trained]
    targets: Sequence[OperatingTarget]


def with_validation(labels: LabelSet, calibration: int) -> LabelSet:
    """The first test videos become the subset "val"."""
    test = [video.video_id for video in labels.videos if video.subset == "test"]
    first = set(test[:calibration])
    videos = (replace(v, subset="val") if v.video_id in first else v for v in labels.videos)
    return LabelSet(labels.source, tuple(videos))


def liteeval(method: str) -> Callable[[Path, int, bool], Trained]:
    def train(folder: Path, seed: int, quick: bool) -> Trained:
        test = 40 if quick else 4000
        cache, labels = write_planted(folder / "cache", seed=seed, train=120, test=test, dim=32)
        labels = with_validation(labels, test // 2)
        settings = {"coarse": "coarse_112", "fine": "fine_224", "gamma": 0.1, "epochs": 2 if quick else 40}
        settings |= {"batch": 16, "lr": 3e-3, "coarse_hidden": 16, "fine_hidden": 32, "warmup": 0.5}
        run_method(configure(method, {**settings, "seed": seed}), cache, labels, folder / "run", device="cpu")
        return Trained(folder / "run", cache, labels)

    return train


def selector(method: str, **more: object) -> Callable[[Path, int, bool], Trained]:
    def train(folder: Path, seed: int, quick: bool) -> Trained:
        cache, labels, config = planted_selection(folder, method, seed, quick, **more)
        run_method(config, cache, labels, folder / "run", device="cpu")
        return Trained(folder / "run", cache, labels)

    return train


def planted_selection(
    folder: Path, method: str, seed: int, quick: bool, **more: object
) -> tuple[FeatureCache, LabelSet, SelectionConfig]:
    """A planted pool, and what is to be trained on it."""
    size = 100 if quick else 2000
    pool = plant_pool(folder / "cache", seed=seed, train=size, test=3 * size, telling=True)
    settings = {"models": pool.models, "batch": 64, "seed": seed, **more}
    settings |= {"epochs": 1} if quick else {}
    config = configure(method, settings)
    assert isinstance(config, SelectionConfig)
    return pool.cache, with_validation(pool.labels, size), with_schedule(config, settings.keys())


def localization(folder: Path, seed: int, quick: bool) -> Trained:
    test = 12 if quick else 450
    cache, labels = plant_actions(
        folder / "cache", seed=seed, train=24 if quick else 60, test=test, lengths=(45, 60), context=True
    )
    labels = with_validation(labels, test // 3)
    settings: dict[str, object] = {}
    for role, stream in zip(("appearance", "motion"), STREAMS, strict=True):
        alone = small(appearance=None, motion=None, epochs=2, input_norm="standard") | {role: stream}
        run_method(configure("wtalc", alone), cache, labels, folder / role, device="cpu")
        settings |= {role: stream, f"{role}_run": str(folder / role)}
    config = configure("localization-selector", {**settings, "epochs": 10, "seed": seed})
    run_method(config, cache, labels, folder / "run", device="cpu")
    return Trained(folder / "run", cache, labels)


USAGES = [OperatingTarget("usage", share) for share in (0.05, 0.1, 0.2)]
BUDGETS = [OperatingTarget("budget", gflops) for gflops in (3.0, 5.0, 8.0)]
CASES = (
    Case("liteeval", liteeval("liteeval"), USAGES),
    Case("liteeval-rl", liteeval("liteeval-rl"), USAGES),
    Case("selector", selector("selector"), BUDGETS),
    Case("selector-cascade", selector("selector-cascade"), BUDGETS),
    Case("selector --recipe paper", selector("selector", **PAPER, threshold=0.2), BUDGETS),
    Case(
        "selector --decisions perceptron --rule price",
        selector("selector", decisions="perceptron", rule="price", threshold=0.02, epochs=20),
        BUDGETS,
    ),
    Case(
        "selector-cascade --decisions perceptron",
        selector("selector-cascade", decisions="perceptron", epochs=20),
        BUDGETS,
    ),
    Case(
        "localization-selector", localization, [OperatingTarget("budget", gflops) for gflops in (15.0, 30.0)]
    ),
)


CASCADES = ("confidence cascade", "committee cascade")
THRESHOLDS = 1000
"""Of a cascade, among which that of a budget is found."""


@click.command(help=as_written(__doc__))
@click.option("--seeds", default=4, show_default=True)
@click.option(
    "--policy", "names", multiple=True, type=click.Choice([*(case.name for case in CASES), *CASCADES])
)
@click.option("--quick", is_flag=True, help="Only to see whether it runs.")
def main(seeds: int, names: tuple[str, ...], quick: bool) -> None:
    torch.set_num_threads(1)
    print(f"{machine()}, load {load()}; {1 if quick else seeds} seeds\n")
    rows = []
    for case in CASES:
        if not names or case.name in names:
            rows += measured(case, 1 if quick else seeds, quick)
    for name in CASCADES:
        if not names or name in names:
            rows += measured_cascade(name, 1 if quick else seeds, quick)
    header = ["policy", "moved to", "val: mean", "worst", "training: mean", "worst", "±", "unit"]
    print(markdown(header, rows))


def measured(case: Case, seeds: int, quick: bool) -> list[list[str]]:
    """A row for each operating point."""
    beyond = np.empty((len(case.targets), 2, seeds))
    errors = np.empty((len(case.targets), seeds))
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            trained = case.train(Path(folder), seed, quick)
            method, test, calibrations = opened(trained)
            for t, target in enumerate(case.targets):
                for k, calibration in enumerate(calibrations):
                    method.move_to(target, calibration, CPU)
                    beyond[t, k, seed], errors[t, seed] = spent_beyond(
                        method.evaluate(test, device=CPU), target
                    )
    return rows_of(case.name, case.targets, beyond, errors)


def measured_cascade(name: str, seeds: int, quick: bool) -> list[list[str]]:
    """The same of a cascade."""
    committee = name.startswith("committee")
    beyond, errors = np.empty((len(BUDGETS), 2, seeds)), np.empty((len(BUDGETS), seeds))
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            cache, labels, config = planted_selection(Path(folder), "selector", seed, quick)
            opened = [
                open_data(replace(config, eval_subset=subset), cache, labels) for subset in ("test", "val")
            ]
            pool = Pool.of(config, opened[0])
            test, other = (pool.table(data.evaluation) for data in opened)
            for k, calibration in enumerate((other, pool.table(opened[0].train))):
                found, new = (
                    cascade(table, calibration, committee=committee, points=THRESHOLDS)
                    for table in (calibration, test)
                )
                for t, target in enumerate(BUDGETS):
                    spent = new.macs[np.flatnonzero(found.gflops <= target.value)[-1]] / 1e9
                    beyond[t, k, seed] = 100 * (spent.mean() / target.value - 1)
                    errors[t, seed] = 100 * spent.std() / len(spent) ** 0.5 / target.value
    return rows_of(name, BUDGETS, beyond, errors)


def rows_of(
    name: str, targets: Sequence[OperatingTarget], beyond: FloatArray, errors: FloatArray
) -> list[list[str]]:
    """Args:
    beyond: (targets, 2, seeds). errors: (targets, seeds).
    """
    unit = "points of usage" if targets[0].kind == "usage" else "% of the budget"
    rows = []
    for t, target in enumerate(targets):
        shown = [
            f"{value:+.2f}"
            for of_subset in beyond[t]
            for value in (of_subset.mean(), of_subset[np.abs(of_subset).argmax()])
        ]
        rows.append([name, str(target), *shown, f"{errors[t].mean():.2f}", unit])
    return rows


def opened(trained: Trained) -> tuple[Method, VideoSet, tuple[Calibration, Calibration]]:
    """The policy, the held-out videos, and what `evaluate` calibrates on: with a subset, and without one."""
    config = read_config(trained.folder)
    data, other = (
        open_data(replace(config, eval_subset=subset), trained.cache, trained.labels)
        for subset in ("test", "val")
    )
    method = load_method(trained.folder, config, data)
    training: Calibration = [(method, data.train)]
    if type(method).keeps_spending(config):
        training = ()
    elif method.cross_fits:
        training = cross_fitted(method, data, CPU)
    return method, data.evaluation, ([(method, other.evaluation)], training)


def spent_beyond(judged: Judged, target: OperatingTarget) -> tuple[float, float]:
    """By how much held-out videos spend more than the target, and the standard error of that."""
    if target.kind == "usage":
        usage = 100 * np.asarray(getattr(judged, "usage"))[0]  # noqa: B009
        return float(usage.mean() - 100 * target.value), float(usage.std() / len(usage) ** 0.5)
    spent = judged.gflops[0]
    mean = spent.mean()
    error = spent.std() / len(spent) ** 0.5
    if isinstance(judged, Localizations):  # per clip; videos differ in length
        per_clip = judged.lengths.mean()
        mean, error = mean / per_clip, (spent / judged.lengths).std() / len(spent) ** 0.5
    return float(100 * (mean / target.value - 1)), float(100 * error / target.value)


if __name__ == "__main__":
    main()
