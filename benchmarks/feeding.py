"""Does a LiteEval training step ever wait for its data?

    python -m benchmarks.feeding
    python -m benchmarks.feeding --videos 10000     # 8.6 GB on disk; it should fit in memory for the warm rows
    python -m benchmarks.feeding --quick            # a smoke test of seconds

Writes a cache of videos of 129 rows, 1280 coarse and 2048 fine float16 features each, and reads random batches of
it as training does. The first table is reading alone: with the files out of the page cache, where the system can
put them out; the first reading of each video in a process, whose rows are compared with their checksum; what every
later epoch sees; and the same brought to length 1. The second is training: the time that the loop waited for a
batch beside that of the step, with a thread that reads ahead and without; first of a real step, then of one that
takes as long as a quick GPU would and leaves the cores alone.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.tables import as_written, load, machine, markdown
from cache_schema import FeatureCache, Preprocessing, StreamSpec, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from policy.config import RunConfig
from policy.data.batches import Batch, VideoSet, batched, read_ahead
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.method import LiteEvalMethod
from policy.method import Method, Moment
from policy.runs import choose_device, open_data

ROWS, SHARD, CLASSES = 129, 256, 200
DIMS = {"coarse_1280": 1280, "fine_2048": 2048}


def spec(name: str) -> StreamSpec:
    return StreamSpec(
        name=name,
        backbone="none",
        weights="random:0",
        weights_digest="0" * 64,
        preprocessing=Preprocessing(128, 112, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        feature_dim=DIMS[name],
        num_classes=0,
        macs_per_row=1,
    )


def write_cache(folder: Path, videos: int, seed: int) -> LabelSet:
    """The shards of both streams. All have the same rows, each time from another one on."""
    seconds = np.arange(ROWS, dtype=np.float64)
    for name, dim in DIMS.items():
        random = np.random.default_rng(seed)
        rows = random.standard_normal((SHARD * ROWS, dim), np.float32).astype(np.float16)
        for start in range(0, videos, SHARD):
            numbers = range(start, min(start + SHARD, videos))
            rolled = np.roll(rows, start, axis=0).reshape(SHARD, ROWS, dim)
            records = [
                VideoRecord(
                    id=f"video_{number:06d}",
                    features=features,
                    spans=np.stack([seconds, seconds], axis=1),
                    duration_s=float(ROWS),
                    fps=25.0,
                )
                for number, features in zip(numbers, rolled, strict=False)
            ]
            write_shard(folder / name, spec(name), records, tools={})
    labels = [
        VideoLabel(f"video_{n:06d}", (f"class {n % CLASSES}",), "test" if n < 10 else "train")
        for n in range(videos)
    ]
    return LabelSet(folder / "labels.csv", tuple(labels))


def forget(folder: Path) -> bool:
    """Put the shards, which nobody has mapped yet, out of the page cache; False: this system cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.rglob("*.h5"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def reading_ms(videos: VideoSet, parts: list[list[int]]) -> float:
    """Median milliseconds of a batch."""
    times = []
    for part in parts:
        started = time.perf_counter()
        videos.batch(part)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def training_step(method: Method, device: torch.device) -> Callable[[Batch], None]:
    """A step as training makes it; returns when it is done, also on a GPU."""
    model = method.model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, foreach=False)
    generator = torch.Generator().manual_seed(0)

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = method.losses(batch.to(device), Moment(0.0), generator)["loss"]
        assert isinstance(loss, torch.Tensor)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def waited(read: Iterator[Batch], step: Callable[[Batch], None], steps: int) -> list[str]:
    """For the table: milliseconds that a step waited for its batch, and that it took. The first is not counted."""
    step(next(read))
    waits, works = [], []
    for _ in range(steps):
        started = time.perf_counter()
        batch = next(read)
        arrived = time.perf_counter()
        step(batch)
        waits.append(arrived - started)
        works.append(time.perf_counter() - arrived)
    wait, work = sum(waits), sum(works)
    return [f"{1000 * wait / steps:.1f}", f"{1000 * work / steps:.1f}", f"{wait / (wait + work):.1%}"]


@click.command(help=as_written(__doc__))
@click.option("--videos", default=1000, show_default=True, type=click.IntRange(min=CLASSES + 10))
@click.option("--batch", default=32, show_default=True)
@click.option("--fine-hidden", default=2048, show_default=True)
@click.option("--coarse-hidden", default=512, show_default=True)
@click.option("--steps", default=4, show_default=True, help="Training steps of each kind.")
@click.option("--gpu-ms", default=30, show_default=True, help="Of a step that leaves the cores alone.")
@click.option("--device", default="auto", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the cache is written and removed.")
@click.option("--seed", default=0, show_default=True)
@click.option("--quick", is_flag=True, help="210 videos, batches of 4, 64/16 units, 1 step.")
def main(
    *,
    videos: int,
    batch: int,
    fine_hidden: int,
    coarse_hidden: int,
    steps: int,
    gpu_ms: int,
    device: str,
    folder: Path | None,
    seed: int,
    quick: bool,
) -> None:
    if quick:
        videos, batch, fine_hidden, coarse_hidden, steps = CLASSES + 10, 4, 64, 16, 1
    chosen = choose_device(device)
    config = LiteEvalConfig(coarse="coarse_1280", fine="fine_2048", input_norm="none")
    config = replace(config, coarse_hidden=coarse_hidden, fine_hidden=fine_hidden, batch=batch)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        cache = Path(name)
        labels = write_cache(cache, videos, seed)
        cold = forget(cache)

        def opened(config: RunConfig = config) -> VideoSet:
            return open_data(config, FeatureCache(cache), labels).train

        click.echo(f"{videos} videos of {ROWS}×{sum(DIMS.values())} float16, batches of {batch}; {machine()}")
        order = np.random.default_rng(seed).permutation(len(opened())).tolist()
        parts = [order[start : start + batch] for start in range(0, len(order) - batch + 1, batch)]
        rows: list[tuple[str, float]] = []
        if cold:
            rows.append(("first reading, from the disk", reading_ms(opened(), parts)))
        else:
            reading_ms(opened(), parts)  # into the page cache
        train = opened()
        rows.append(("first reading, from memory", reading_ms(train, parts)))
        rows.append(("later readings", reading_ms(train, parts)))
        unit = opened(replace(config, input_norm="l2"))
        reading_ms(unit, parts)
        rows.append(("later readings, l2", reading_ms(unit, parts)))
        megabytes = batch * ROWS * sum(DIMS.values()) * 2 / 1e6
        click.echo(
            markdown(
                ["reading", "ms a batch", "MB/s"],
                [[title, f"{ms:.1f}", f"{1000 * megabytes / ms:,.0f}"] for title, ms in rows],
            )
        )

        method = LiteEvalMethod(config, open_data(config, FeatureCache(cache), labels))
        units = f"{fine_hidden}/{coarse_hidden} units, {chosen}"
        kinds = (
            (units, training_step(method, chosen), steps),
            (f"{gpu_ms} ms elsewhere", lambda batch: time.sleep(gpu_ms / 1000), min(100, len(parts) - 2)),
        )
        told = []
        for title, step, count in kinds:
            for how, ahead in (("as they come", False), ("read ahead", True)):
                read = map(train.batch, batched(order, batch))
                told.append([title, how, *waited(read_ahead(read) if ahead else read, step, count)])
        click.echo(f"\n{torch.get_num_threads()} threads")
        click.echo(markdown(["step", "batches", "wait, ms", "step, ms", "share of the wait"], told))
        click.echo(f"load {load()}")


if __name__ == "__main__":
    main()
