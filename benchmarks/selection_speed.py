"""How long does it take to train a model selector on cached class scores, and to sweep its whole curve?

    python -m benchmarks.selection_speed
    python -m benchmarks.selection_speed --quick     # a smoke test of seconds

Writes a cache with the class scores of four models for 10,000 videos of 400 classes, nine tenths of them for
training; that is not timed. Then `train-policy selector`, or `--method selector-cascade`, as a process of its own,
and its parts within this one, in turn. Held-out predictions are part of the fit. What is printed are medians:
seconds by the clock and, in brackets, of the processor, which count where others are at work on the machine.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
import torch

from benchmarks.tables import Spent, load, machine, markdown, median, spent_on
from cache_schema import FeatureCache, Preprocessing, StreamSpec, VideoRecord, write_shard
from cache_schema.annotations import read_labels
from policy.method import evaluate
from policy.registry import METHODS, configure
from policy.runs import open_data
from policy.selection.pool_method import PoolMethod

T = TypeVar("T")

GFLOPS = (0.6, 2.0, 4.7, 18.4)
MODELS = tuple(f"m{n}" for n in range(len(GFLOPS)))
SHARD, DIM = 256, 16


def spec(model: int, classes: int) -> StreamSpec:
    return StreamSpec(
        name=MODELS[model],
        backbone="none",
        weights="random:0",
        weights_digest="0" * 64,
        preprocessing=Preprocessing(128, 112, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        feature_dim=DIM,
        num_classes=classes,
        macs_per_row=round(GFLOPS[model] * 1e9),
    )


def write(folder: Path, videos: int, classes: int) -> None:
    """A cache and its labels. A larger model is right more often."""
    random = np.random.default_rng(0)
    label = random.integers(classes, size=videos)
    label[:classes] = label[-classes:] = np.arange(classes)  # every class has training and evaluation videos
    for model in range(len(MODELS)):
        for start in range(0, videos, SHARD):
            part = label[start : start + SHARD]
            logits = random.normal(0, 1, (len(part), classes))
            logits[np.arange(len(part)), part] += random.normal(2 + model, 2, len(part))
            records = [
                VideoRecord(
                    id=f"video_{start + v:06d}",
                    features=np.zeros((1, DIM), np.float16),
                    scores=row[None].astype(np.float16),
                    spans=np.zeros((1, 2)),
                )
                for v, row in enumerate(logits)
            ]
            write_shard(folder / "cache" / MODELS[model], spec(model, classes), records, tools={})
    train = videos - max(videos // 10, classes)
    lines = [f"video_{v:06d},class {c:03d},{'train' if v < train else 'test'}\n" for v, c in enumerate(label)]
    (folder / "labels.csv").write_text("video_id,label,subset\n" + "".join(lines))


def command(name: str, folder: Path, out: Path) -> None:
    """What a user would type, in a process of its own."""
    program = "from policy.cli.train_policy import train_policy; train_policy()"
    words = [
        *(name, "--cache", folder / "cache", "--labels", folder / "labels.csv"),
        *(word for model in MODELS for word in ("--model", model)),
        *("--device", "cpu", "--out", out),
    ]
    subprocess.run([sys.executable, "-c", program, *map(str, words)], check=True, capture_output=True)


def parts(name: str, folder: Path) -> dict[str, Spent]:
    """What its parts take, in this process."""
    cpu = torch.device("cpu")
    labels = read_labels(folder / "labels.csv")
    config = configure(name, {"models": MODELS})
    spent = {}

    def part(name: str, work: Callable[[], T]) -> T:
        done: list[T] = []
        spent[name] = spent_on(lambda: done.append(work()))
        return done[0]

    data = part(
        "open the cache, match the labels", lambda: open_data(config, FeatureCache(folder / "cache"), labels)
    )
    method = part("take in the training videos", lambda: METHODS[name](config, data))
    assert isinstance(method, PoolMethod)
    part("fit answers and regressions", lambda: method.finish(data.train, cpu))
    part("take in the evaluation videos", lambda: method.look(data.evaluation))
    part("judge them", lambda: evaluate(method, data.evaluation, device=cpu))
    part("sweep every threshold", lambda: method.curve(data.evaluation, cpu, points=10_000).top1)
    return spent


@click.command()
@click.option("--videos", default=10_000, show_default=True)
@click.option("--classes", default=400, show_default=True)
@click.option("--method", "name", default="selector", show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--quick", is_flag=True, help="A smoke test.")
def main(videos: int, classes: int, name: str, repeats: int, quick: bool) -> None:
    """Seconds to train and sweep a model selector."""
    if quick:
        videos, classes, repeats = 300, 10, 1
    print(f"{machine()}, load {load()}\n")
    taken: list[dict[str, Spent]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, videos, classes)
        for repeat in range(repeats):
            spent = parts(name, folder)
            run = partial(command, name, folder, folder / f"run {repeat}")
            spent[f"train-policy {name}, all of it"] = spent_on(run)
            taken.append(spent)
    rows = [[part, str(median([each[part] for each in taken]))] for part in taken[0]]
    print(markdown([f"{videos:,} videos, {classes} classes, {len(MODELS)} models", "s (processor)"], rows))


if __name__ == "__main__":
    main()
