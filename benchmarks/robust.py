"""LiteEval without tuning: one recipe on planted tasks, and on tasks of real pictures in sequence.

    python -m benchmarks.robust

Of every video it is known which rows are informative (benchmarks/robust_tasks.py): an oracle opens its gates
there. "robust" is what `--recipe robust` sets, for the controls as for LiteEval, with the default number of
epochs; all other rows have 30 epochs of batches of 16 at a learning rate of 2e-3. All have the same sizes. "told"
has the gates that a logistic regression would open, of coarse features alone, were it told which training rows are
informative: what a gate can know before it looks.

"of oracle" is how much of what the oracle gains in top-1 over the better row of coarse features alone comes of a
training, "of all-fine" the same of the better LSTM+CF on every row; in between the former for every seed.
"points off" is usage on test videos beyond the target, "found" the share of the informative rows that are opened.
Means over seeds.

What the recipe sets was chosen on other seeds (--first-seed 100, --parts).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.late_steps import BASE, KEPT
from benchmarks.robust_tasks import TASKS
from benchmarks.tables import as_written, load, machine, markdown
from policy.evaluation.predictions import Predictions
from policy.liteeval.config import LiteEvalConfig
from policy.recipes import RECIPES
from policy.registry import configure
from policy.runs import run_method
from tests.planted import Planted, oracle

ROBUST = {**RECIPES["robust"], "epochs": LiteEvalConfig.epochs}
EVERY_ROW = 1000
SETTINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "coarse only": ("coarse-only", {}),
    "coarse only, robust": ("coarse-only", ROBUST),
    "all-fine": ("lstm-cf", {"frames": EVERY_ROW}),
    "all-fine, robust": ("lstm-cf", {"frames": EVERY_ROW, **ROBUST}),
    "oracle": ("oracle", {}),
    "told": ("told", {}),
    "random gates, robust": ("random-gating", ROBUST),
    "LiteEval, Eq. 7": ("liteeval", {}),
    "LiteEval, constrained, warm-up": ("liteeval", KEPT),
    "LiteEval, robust": ("liteeval", ROBUST),
}
PARTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "LiteEval, robust, but readout last": ("liteeval", {**ROBUST, "readout": "last"}),
    "… but readout mean": ("liteeval", {**ROBUST, "readout": "mean"}),
    "… but readout max": ("liteeval", {**ROBUST, "readout": "max"}),
    "… but no dropout": ("liteeval", {**ROBUST, "dropout": 0.0}),
    "… but dropout 0.5": ("liteeval", {**ROBUST, "dropout": 0.5}),
    "… but warm-up 0.8": ("liteeval", {**ROBUST, "warmup": 0.8}),
    "… but no warm-up": ("liteeval", {**ROBUST, "warmup": 0.0}),
    "… but no hidden layer of the gate": ("liteeval", {**ROBUST, "gate_hidden": 0}),
    "… but batch 128, lr 1e-4": ("liteeval", {**ROBUST, "batch": 128, "lr": 1e-4}),
    "… and a learned layer of 64 before both networks": ("liteeval", {**ROBUST, "coarse_projection": 64}),
    "… and step loss 0.5": ("liteeval", {**ROBUST, "step_loss": 0.5}),
    "… and validation 0.2": ("liteeval", {**ROBUST, "validation": 0.2}),
    "… and weight decay 0.001": ("liteeval", {**ROBUST, "weight_decay": 1e-3}),
}
"""What the recipe is without each of its parts, and with further ones."""
COARSE, ALL_FINE = ("coarse only", "coarse only, robust"), ("all-fine", "all-fine, robust")
GATES_GIVEN = ("oracle", "told")


@dataclass(frozen=True)
class Outcome:
    """What came of one training."""

    task: str
    seed: int
    setting: str
    top1: float
    usage: float
    found: float

    @staticmethod
    def of(task: str, seed: int, setting: str, said: Predictions, informative: np.ndarray) -> Outcome:
        found = float(said.gates[:, informative].mean())
        return Outcome(task, seed, setting, said.top1(), float(said.usage.mean()), found)


def told(planted: Planted, gamma: float) -> Planted:
    """With the rows in place of the informative ones that are likeliest to be, of coarse features, a share γ."""
    coarse = planted.cache["coarse_112"]
    train_ids = [video.video_id for video in planted.labels.videos if video.subset == "train"]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    features = np.concatenate([coarse[video].features for video in train_ids]).astype(np.float64)
    model.fit(features, np.concatenate([planted.informative[video] for video in train_ids]))
    threshold = np.quantile(model.decision_function(features), 1 - gamma)
    return replace(
        planted,
        informative={
            video: model.decision_function(coarse[video].features.astype(np.float64)) > threshold
            for video in planted.informative
        },
    )


def outcomes(
    task: str,
    seed: int,
    settings: Mapping[str, tuple[str, Mapping[str, Any]]],
    sizes: Sequence[int],
    shared: Mapping[str, Any],
) -> list[Outcome]:
    """Of all settings on one task; none is trained twice."""
    torch.set_num_threads(1)  # networks this small would wait for a second one
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planted = TASKS[task].write(folder / "cache", seed, *sizes)
        gamma = TASKS[task].gamma
        base = {**vars(BASE), "gamma": gamma, "usage": gamma, "seed": seed, "gate_draws": 3}
        for number, (setting, (method, values)) in enumerate(settings.items()):
            given = method in GATES_GIVEN
            config = configure("liteeval" if given else method, {**base, **values, **shared})
            if given:
                assert isinstance(config, LiteEvalConfig)
                gates = planted if method == "oracle" else told(planted, gamma)
                said = oracle(config, gates, folder / str(number))
            else:
                run = run_method(config, planted.cache, planted.labels, folder / str(number), device="cpu")
                said = run.predictions()
            informative = np.concatenate([planted.informative[video] for video in said.video_ids])
            found.append(Outcome.of(task, seed, setting, said, informative))
    return found


def table(task: str, rows: Sequence[Outcome]) -> str:
    """One task's: means over seeds, and the gain of each."""
    of = {(row.setting, row.seed): row for row in rows if row.task == task}
    settings = [setting for setting in {**SETTINGS, **PARTS} if any(setting == name for name, _ in of)]
    seeds = sorted({seed for _, seed in of})

    missing = [names for names in (COARSE, ALL_FINE, ("oracle",)) if not set(settings).intersection(names)]
    if missing:
        of_each = [
            f"- {row.setting}, seed {row.seed}: {row.top1:.1%}, usage {row.usage:.1%}, found {row.found:.0%}"
            for row in of.values()
        ]
        return "\n".join([f"**{task}**, without the rows that gains are measured by", "", *of_each, ""])

    def mean(setting: str, measure: str = "top1") -> float:
        return float(np.mean([getattr(of[setting, seed], measure) for seed in seeds]))

    low = max((setting for setting in COARSE if setting in settings), key=mean)
    all_fine = max((setting for setting in ALL_FINE if setting in settings), key=mean)

    def gain(setting: str, seed: int, high: str) -> float:
        """Of the references' means over seeds: of a seed alone the difference may be small."""
        possible = mean(high) - mean(low)
        return (of[setting, seed].top1 - of[low, seed].top1) / possible if possible else np.nan

    lines = []
    for setting in settings:
        gains = [gain(setting, seed, "oracle") for seed in seeds]
        of_all_fine = float(np.mean([gain(setting, seed, all_fine) for seed in seeds]))
        gated = setting.startswith(("LiteEval", "…", "random", "told"))
        off = f"{100 * (mean(setting, 'usage') - TASKS[task].gamma):+.1f}" if gated else "–"
        found = f"{mean(setting, 'found'):.0%}" if gated else "–"
        each = " ".join(f"{value:.2f}" for value in gains)
        shares = f"{np.mean(gains):.2f}", each, f"{of_all_fine:.2f}"
        lines.append([setting, f"{mean(setting):.1%}", *shares, off, found])
    header = ["trained", "top-1", "of oracle", "each seed", "of all-fine", "points off", "found"]
    title = f"**{task}**, γ = {TASKS[task].gamma:.1%}, {len(seeds)} seeds; gains are over {low}"
    return f"{title}\n\n{markdown(header, lines)}\n"


@click.command(help=as_written(__doc__))
@click.option("--seeds", default=5, show_default=True)
@click.option("--first-seed", default=0, show_default=True)
@click.option("--task", "tasks", multiple=True, type=click.Choice([*TASKS]), help="Only this one; repeat it.")
@click.option("--setting", "chosen", multiple=True, help="Only this row of the tables; repeat it.")
@click.option(
    "--parts", is_flag=True, help="Also the recipe without each of its parts, and with further ones."
)
@click.option("--test-videos", default=600, show_default=True)
@click.option("--large", is_flag=True, help="5,000 training videos instead of 300.")
@click.option("--jobs", default=2, show_default=True, help="Trainings at a time.")
@click.option(
    "--results", type=click.Path(path_type=Path), help="File of what is done: a later call goes on."
)
@click.option("--quick", is_flag=True, help="One seed and hardly any training: does it run?")
def main(
    seeds: int,
    first_seed: int,
    tasks: tuple[str, ...],
    chosen: tuple[str, ...],
    parts: bool,
    test_videos: int,
    large: bool,
    jobs: int,
    results: Path | None,
    quick: bool,
) -> None:
    click.echo(f"{machine()}; load {load()}\n")
    sizes = (100, 40) if quick else (5000 if large else 300, test_videos)
    # Of 5,000 videos an epoch is as many steps as 17 of 300.
    shared = {"epochs": 1} if quick else {"epochs": BASE.epochs} if large else {}
    settings = {**SETTINGS, **PARTS} if parts else SETTINGS
    if unknown := set(chosen) - set(settings):
        raise click.BadParameter(f"no row {', '.join(sorted(unknown))}; there are: {', '.join(settings)}")
    settings = {name: how for name, how in settings.items() if not chosen or name in chosen}
    names, numbers = tasks or tuple(TASKS), range(first_seed, first_seed + (1 if quick else seeds))
    rows: list[Outcome] = []
    if results is not None and results.exists():
        rows = [Outcome(**json.loads(line)) for line in results.read_text(encoding="utf-8").splitlines()]
    done = {(row.task, row.seed, row.setting) for row in rows}
    pending = []
    for seed in numbers:
        for task in names:
            left = {name: how for name, how in settings.items() if (task, seed, name) not in done}
            if left:
                pending.append(delayed(partial(outcomes, task, seed, left, sizes, shared))())
    for found in Parallel(jobs, return_as="generator_unordered")(pending):
        rows += found
        if results is not None:
            with results.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(row)) + "\n" for row in found)
        click.echo(f"{found[0].task}, seed {found[0].seed}: {len(found)} trainings", err=True)
    shown = [row for row in rows if row.seed in numbers and row.setting in settings]
    for task in names:
        click.echo(table(task, shown))


if __name__ == "__main__":
    main()
