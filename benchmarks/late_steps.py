"""What each training option of LiteEval is worth, where the answer is known.

    python -m benchmarks.late_steps

On planted caches (tests/planted.py) an oracle knows which rows are informative. Half of the classes show in the
coarse features alone, weakly, so that it takes many frames to tell them. Of the others a detail is on screen for
2 to 4 frames, anywhere or late in the video, and only the fine features of these frames say which. "gain" is how
much of what the oracle's gates gain in top-1 over coarse features alone a training gains; "usage" the share of
rows with fine features, also over the oracle's; "found" the share of the informative rows that are opened;
"first 3" that of every video's first three. All rows of a table have the same sizes, epochs and learning rate;
means over seeds.

The second table is about budgets: what usage on videos that were not trained on comes of a γ.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch

from benchmarks.tables import as_written, load, machine, markdown
from policy.config import RunConfig
from policy.evaluation.predictions import Predictions
from policy.liteeval.config import LiteEvalConfig
from policy.recipes import with_recipe
from policy.registry import configure
from policy.runs import run_method
from tests.planted import Planted, oracle, plant

BASE = LiteEvalConfig(
    coarse="coarse_112",
    fine="fine_224",
    epochs=30,
    batch=16,
    lr=2e-3,
    coarse_hidden=16,
    fine_hidden=64,
)
CACHES: Mapping[str, Mapping[str, Any]] = {
    "anywhere": {"lengths": (8, 20)},
    "late": {"lengths": (20, 30), "place": (0.75, 1.0)},
}
SIZES: Mapping[str, Any] = {"train": 160, "test": 160, "dim": 32, "readable_signal": 2.0}
GAMMAS = {"anywhere": 0.13, "late": 0.075}
"""Of the caches above: the oracle uses some 11 and 6 %."""

KEPT: Mapping[str, Any] = {"usage_loss": "constrained", "warmup": 0.5}
TRAININGS: Mapping[str, Mapping[str, Any]] = {
    "Eq. 7": {},
    "Eq. 7, warm-up": {"warmup": 0.5},
    "Eq. 7, λ = 100": {"lam": 100.0},
    "Eq. 7, λ = 100, warm-up": {"lam": 100.0, "warmup": 0.5},
    "constrained": {"usage_loss": "constrained"},
    "constrained, warm-up": KEPT,
    "… without sync": {**KEPT, "sync": False},
    "… and step loss": {**KEPT, "step_loss": 0.5},
    "… and distillation": {**KEPT, "distill": 1.0},
}
"""The warm-up is half of the epochs, the step loss has weight 0.5, the distillation from LSTM+CF weight 1."""


class Row(NamedTuple):
    """What came of one training."""

    top1: float
    usage: float
    found: float
    first: float

    @staticmethod
    def of(said: Predictions, planted: Planted) -> Row:
        informative = np.concatenate([planted.informative[video] for video in said.video_ids])
        gates = said.gates[0].astype(np.float64)
        first = (said.offsets[:-1, None] + np.arange(3)).ravel()
        return Row(
            said.top1(),
            float(said.usage.mean()),
            float(gates[informative].mean()),
            float(gates[first].mean()),
        )


def trainings(config: LiteEvalConfig, planted: Planted, folder: Path, names: Sequence[str]) -> dict[str, Row]:
    """Coarse only, the oracle, and LiteEval trained in every way."""

    def row(name: str, config: RunConfig) -> Row:
        run = run_method(config, planted.cache, planted.labels, folder / name, device="cpu")
        return Row.of(run.predictions(), planted)

    rows = {
        "coarse only": row("coarse-only", configure("coarse-only", vars(config))),
        "oracle": Row.of(oracle(config, planted, folder / "oracle"), planted),
    }
    chosen = {name: replace(config, **TRAININGS[name]) for name in TRAININGS}
    # Both recipes' rates are for a training a hundred times as long, their projections for 1280 and 2048 features.
    given = {"lr", "lr_drop", "coarse_projection", "fine_projection"}
    sizes = {"paper": (0, 0), "released": (16, 64)}
    for name, (coarse, fine) in sizes.items():
        projected = replace(config, coarse_projection=coarse, fine_projection=fine)
        chosen[f"recipe {name}"] = with_recipe(projected, name, given)
    for number, (name, one) in enumerate(chosen.items()):
        if names and name not in names:
            continue
        if one.distill:
            row("teacher", configure("lstm-cf", vars(config)))
        teacher = str(folder / "teacher") if one.distill else None
        rows[name] = row(f"run-{number}", replace(one, teacher=teacher))
    return rows


def table(cache: str, seeds: int, sizes: Mapping[str, Any], epochs: int, names: Sequence[str]) -> str:
    """A table of means over seeds, and the worst of gain and usage."""
    per_seed: list[dict[str, Row]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            here = Path(folder) / str(seed)
            planted = plant(here / "cache", seed=seed, **{**CACHES[cache], **sizes})
            config = replace(BASE, gamma=GAMMAS[cache], epochs=epochs, seed=seed)
            per_seed.append(trainings(config, planted, here, names))
    lines = []
    for name in per_seed[0]:
        rows = [one[name] for one in per_seed]
        gains, over = [], []
        for one in per_seed:
            low, best = one["coarse only"], one["oracle"]
            to_gain = best.top1 - low.top1
            gains.append((one[name].top1 - low.top1) / to_gain if to_gain else np.nan)
            over.append(one[name].usage / best.usage)
        means = [float(np.mean(values)) for values in zip(*rows, strict=True)]
        lines.append(
            [
                name,
                f"{means[0]:.1%}",
                f"{np.mean(gains):.2f}",
                f"{min(gains):.2f}",
                f"{means[1]:.1%}",
                f"{np.mean(over):.2f}",
                f"{max(over):.2f}",
                f"{means[2]:.0%}",
                f"{means[3]:.0%}",
            ]
        )
    header = ["training", "top-1", "gain", "least", "usage", "× oracle's", "most", "found", "first 3"]
    return markdown(header, lines)


def budgets(gammas: Sequence[float], videos: int, epochs: int, seeds: int) -> str:
    """Realised usage, over many videos: what is left of the difference is not chance."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for gamma in gammas:
            cells = []
            for kind, more in {"penalty": {}, "constrained": KEPT}.items():
                usages, top1 = [], []
                for seed in range(seeds):
                    here = Path(folder) / str(seed)
                    sizes = {**SIZES, "train": videos, "test": videos}
                    planted = plant(here / f"cache-{gamma}-{kind}", seed=seed, **{**CACHES["late"], **sizes})
                    config = replace(BASE, gamma=gamma, epochs=epochs, seed=seed, **more)
                    run = run_method(
                        config, planted.cache, planted.labels, here / f"{kind}-{gamma}", device="cpu"
                    )
                    usages.append(run.result.metrics["usage"])
                    top1.append(run.result.metrics["top1"])
                apart = max(abs(usage - gamma) for usage in usages)
                cells += [f"{np.mean(usages):.2%}", f"{100 * apart:.2f}", f"{np.mean(top1):.1%}"]
            lines.append([f"{gamma:.0%}", *cells])
    said = ["usage", "points off", "top-1"]
    header = ["γ", *(f"Eq. 7: {one}" for one in said), *(f"constrained: {one}" for one in said)]
    return markdown(header, lines)


@click.command(help=as_written(__doc__))
@click.option("--seeds", default=3, show_default=True, help="Caches and trainings per figure.")
@click.option("--only", multiple=True, help="Of the trainings, only these; repeat it.")
@click.option("--budgets/--no-budgets", "with_budgets", default=True, show_default=True)
@click.option("--quick", is_flag=True, help="One seed and hardly any training: does it run?")
def main(seeds: int, only: tuple[str, ...], with_budgets: bool, quick: bool) -> None:
    torch.set_num_threads(1)  # networks this small would wait for a second one
    click.echo(f"{machine()}; load {load()}")
    sizes = {**SIZES, "train": 20, "test": 20} if quick else SIZES
    epochs = 1 if quick else BASE.epochs
    for cache, gamma in GAMMAS.items():
        click.echo(f"\nInformative rows {cache}, γ = {gamma:.0%}, {1 if quick else seeds} seeds\n")
        click.echo(table(cache, 1 if quick else seeds, sizes, epochs, only))
    if with_budgets:
        click.echo("\nBudgets\n")
        gammas = (0.1,) if quick else (0.01, 0.03, 0.05, 0.1)
        click.echo(budgets(gammas, 40 if quick else 1600, 1 if quick else 8, 1 if quick else min(seeds, 2)))


if __name__ == "__main__":
    main()
