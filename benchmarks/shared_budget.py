"""What a budget gains that the videos of a collection share, and whether new videos keep it.

    python -m benchmarks.shared_budget
    python -m benchmarks.shared_budget --quick       # a smoke test of seconds

Policies are trained on planted data, half of whose classes are easy: every fine row shows them, and of the others
only a few rows do. Each is then moved to budgets that videos share, as by `train-policy evaluate --shared-budget`,
by held-out videos with labels. Shown is what other videos spend, in % beyond the budget, and the gain in points of
top-1 above the same policy that spends as much on all of them alike; means over the seeds, and the seed that is
furthest from the budget or gains least.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.operating_points import with_validation
from benchmarks.tables import as_written, load, machine, markdown
from policy.evaluation.operating import OperatingTarget
from policy.registry import completed, usual_recipe
from policy.runs import load_method, open_data, run_method
from policy.training.sharing import evaluate_shared, share
from tests.planted import write_planted

CPU = torch.device("cpu")
METHODS = ("uniform", "lstm", "frame-glimpse", "frame-exit", "liteeval")
SHARES = (0.1, 0.25, 0.5)
"""Of what all fine rows cost."""


def measured(method_name: str, seed: int, calibration: int, quick: bool) -> list[tuple[float, float]]:
    """For each budget, in % by how much it is exceeded, and the gain in points of top-1."""
    videos = 12 if quick else 2000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache, labels = write_planted(
            folder / "cache", seed=seed, train=40 if quick else 400, test=calibration + videos, dim=32
        )
        labels = with_validation(labels, calibration)
        streams = {"coarse": "coarse_112", "fine": "fine_224"}
        settings = {
            **streams,
            "epochs": 2 if quick else 40,
            "coarse_hidden": 32,
            "fine_hidden": 64,
            "seed": seed,
        }
        config = completed(method_name, settings, usual_recipe(method_name))
        run_method(config, cache, labels, folder / "run", device="cpu")
        data, other = (
            open_data(replace(config, eval_subset=subset), cache, labels) for subset in ("test", "val")
        )
        method = load_method(folder / "run", config, data)
        rows = np.mean([data.evaluation.length(index) for index in range(len(data.evaluation))])
        found = []
        for part in SHARES:
            budget = part * float(rows) * 7.8
            sharing = share(method, OperatingTarget("shared_budget", budget), other.evaluation, CPU)
            shared = evaluate_shared(method, sharing, data.evaluation, CPU)
            beyond = 100 * (float(shared.predictions.gflops.mean()) / budget - 1)
            found.append((beyond, shared.gain.value))
    return found


@click.command(help=as_written(__doc__))
@click.option("--seeds", default=3, show_default=True)
@click.option("--calibration", default=500, show_default=True, help="Held-out videos with labels.")
@click.option("--quick", is_flag=True, help="Few videos: does it run?")
def main(seeds: int, calibration: int, quick: bool) -> None:
    torch.set_num_threads(1)
    seeds, calibration = (1, 12) if quick else (seeds, calibration)
    click.echo(f"{machine()}; load {load()}; seeds {seeds}, calibration videos {calibration}\n")
    rows = []
    for name in METHODS:
        values = np.array([measured(name, seed, calibration, quick) for seed in range(seeds)])
        for part, of_budget in zip(SHARES, values.swapaxes(0, 1), strict=True):
            beyond, gain = of_budget.T
            furthest = beyond[np.abs(beyond).argmax()]
            figures = (beyond.mean(), furthest, gain.mean(), gain.min())
            rows.append([name, f"{100 * part:g} %", *(f"{figure:+.1f}" for figure in figures)])
    header = ["policy", "budget, of all rows", "spent beyond it, %", "furthest", "gain, points", "least"]
    click.echo(markdown(header, rows))


if __name__ == "__main__":
    main()
