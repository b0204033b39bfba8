"""What each policy of `paper-tables policies` takes to train and to judge, on videos of 129 rows.

    python -m benchmarks.policies
    python -m benchmarks.policies --quick       # a smoke test of seconds

Writes a cache with 1280 coarse and 2048 fine float16 features a row. An epoch is what training with two epochs
takes beyond training with one; methods that are fitted instead have one such fit. "curve" is the policy at all its
budgets. The last columns are those rates on 91,000 videos (FCVID) and 100 epochs, and are no measurement.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import torch

from benchmarks.feeding import DIMS, ROWS, write_cache
from benchmarks.tables import as_written, load, machine, markdown, seconds_of
from cache_schema import FeatureCache
from cache_schema.annotations import LabelSet
from policy.registry import completed, usual_recipe
from policy.runs import load_method, open_data, read_config, run_method
from policy.tables.catalogue import EXPERIMENTS, LEADERBOARD
from policy.tables.experiment import Experiment
from policy.tables.reading import read_table

COLLECTION, EPOCHS = 91_000, 100


def measured(
    row: Experiment, cache: FeatureCache, labels: LabelSet, folder: Path
) -> tuple[float, float, bool]:
    """Seconds of an epoch, or of the fit, and of the curve; whether it has epochs."""
    assert row.method is not None
    roles = dict(zip(("coarse", "fine"), DIMS, strict=True))
    streams: dict[str, object] = {role: roles[role] for role in row.streams}
    streams |= {name: tuple(DIMS)[: len(papers)] for name, papers in row.lists.items()}
    usage = {"usage": 0.1} if row.method == "random-gating" else {}
    config = completed(row.method, {**streams, **usage, "epochs": 1}, usual_recipe(row.method))

    def train(epochs: int) -> object:
        run = folder / f"{row.name}-{epochs}"
        return run_method(replace(config, epochs=epochs), cache, labels, run, device="cpu")

    times = [seconds_of(partial(train, epochs)) for epochs in (1, 2)]
    data = open_data(config, cache, labels)
    run = folder / f"{row.name}-1"
    method = load_method(run, read_config(run), data)
    curve = seconds_of(
        lambda: method.operating_curve(data.evaluation, data.evaluation, device=torch.device("cpu"))
    )
    has_epochs = method.by_descent
    return (times[1] - times[0] if has_epochs else min(times)), curve, has_epochs


@click.command(help=as_written(__doc__))
@click.option("--videos", default=512, show_default=True, help="A quarter of them is judged.")
@click.option("--quick", is_flag=True, help="Few videos: does it run?")
def main(videos: int, quick: bool) -> None:
    click.echo(f"{machine()}; load {load()}\n")
    videos = 16 if quick else videos
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = write_cache(folder / "cache", videos, seed=0)
        judged = videos // 4
        labels = replace(
            labels,
            videos=tuple(
                replace(video, labels=(f"class {number % 4}",), subset="test" if number < judged else "train")
                for number, video in enumerate(labels.videos)
            ),
        )
        cache = FeatureCache(folder / "cache")
        rows = [row for row in read_table(EXPERIMENTS / LEADERBOARD).experiments if row.method]
        found = {row.title: measured(row, cache, labels, folder) for row in rows}
    first = found["LiteEval"]
    table = []
    for title, (training, curve, has_epochs) in found.items():
        per_video, per_judged = training / (videos - judged), curve / judged
        hours = COLLECTION * (per_video * (EPOCHS if has_epochs else 1)) / 3600
        table.append(
            [
                title,
                f"{1e3 * per_video:.2f}" + ("" if has_epochs else " (the fit)"),
                f"{training / first[0]:.2f}" if has_epochs else "–",
                f"{1e3 * per_judged:.2f}",
                f"{hours:.1f}",
                f"{COLLECTION * per_judged / 3600:.1f}",
            ]
        )
    header = ["policy", "epoch, ms a video", "of LiteEval's", "curve, ms a video", "training, h", "curve, h"]
    click.echo(f"{videos} videos of {ROWS} rows; hours are of {COLLECTION:,} videos, {EPOCHS} epochs\n")
    click.echo(markdown(header, table))


if __name__ == "__main__":
    main()
