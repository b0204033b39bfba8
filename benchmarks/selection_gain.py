"""How much of what can be gained by choosing each way to train a selector gains, where the answer is known.

    python -m benchmarks.selection_gain

On planted pools (tests/pools.py) the chance that each of four models is right is known for every group of videos,
and the smallest model's scores show the group. The figure is the share of what the best choice per group gains
over random selection (the hull of the single models) at equal cost, averaged over all costs; it is measured by
the planted chances on 1,000 videos that were not trained on. One column for each seed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.tables import load, machine, markdown
from policy.runs import load_method, open_data, run_method
from policy.selection.config import SelectorConfig, with_schedule
from policy.selection.method import Selector
from tests.pools import PlantedPool, plant_pool

WAYS: Mapping[str, Mapping[str, Any]] = {
    "hard labels, threshold (the paper's)": {},
    "hard labels, --rule price": {"rule": "price"},
    "--affinity soft --rule price": {"affinity": "soft", "rule": "price"},
    "--target loss": {"target": "loss"},
}


@click.command()
@click.option("--seed", "seeds", type=int, multiple=True, default=(11, 12, 13, 14), show_default=True)
@click.option("--epochs", default=20, show_default=True)
@click.option("--quick", is_flag=True, help="Only to see whether it runs.")
def main(seeds: tuple[int, ...], epochs: int, quick: bool) -> None:
    """Train selectors on planted pools in several ways, and print what each gains."""
    if quick:
        seeds, epochs = seeds[:1], 1
    print(f"{machine()}, load {load()}; {epochs} epochs\n")
    rows = {name: [name] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            size = 200 if quick else 2000
            pool = plant_pool(Path(folder, f"pool-{seed}"), seed=seed, train=size, test=size // 2)
            for name, change in WAYS.items():
                rows[name].append(f"{gain(pool, Path(folder, f'{seed}-{name}'), epochs, change):.3f}")
    print(markdown(["selector", *(f"seed {seed}" for seed in seeds)], list(rows.values())))


def gain(pool: PlantedPool, folder: Path, epochs: int, change: Mapping[str, Any]) -> float:
    """Of one training."""
    plain = SelectorConfig(models=pool.models, epochs=epochs, batch=64, lr=1e-3, threshold=0.02)
    config = with_schedule(replace(plain, **change), {"threshold"})
    run_method(config, pool.cache, pool.labels, folder, device="cpu")
    data = open_data(config, pool.cache, pool.labels)
    method = load_method(folder, config, data)
    assert isinstance(method, Selector)
    return pool.gain(method.curve(data.evaluation, torch.device("cpu"), points=200))


if __name__ == "__main__":
    main()
