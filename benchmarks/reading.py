"""Is reading through FeatureCache nearly as quick as a bare memory map?

    python -m benchmarks.reading
    python -m benchmarks.reading --quick        # a smoke test of seconds

Both read whole videos in the same random order from the same shards: `FeatureCache` by stream and id, the bare
reader by an `np.memmap` of each file's features and a table of offsets. What is read is copied out, as a training
batch is. The first reading of a video through FeatureCache checks its rows against their checksum; the second
table row is what every later epoch sees. Everything is in the page cache: disks are not compared.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import h5py
import numpy as np

from benchmarks.tables import as_written
from cache_schema import FeatureCache, Preprocessing, StreamSpec, VideoRecord, write_shard
from cache_schema.cache import shard_paths
from cache_schema.schema import Float16Array

SPEC = StreamSpec(
    name="random_1280",
    backbone="none",
    weights="random:0",
    weights_digest="0" * 64,
    preprocessing=Preprocessing(128, 112, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    feature_dim=1280,
    num_classes=0,
    macs_per_row=0,
)
Reader = Callable[[str], Float16Array]


def write_cache(folder: Path, *, videos: int, shard_size: int, seed: int) -> None:
    """Videos of 60 to 180 rows, 120 on average."""
    random = np.random.default_rng(seed)
    for start in range(0, videos, shard_size):
        records = []
        for number in range(start, min(start + shard_size, videos)):
            rows = int(random.integers(60, 181))
            seconds = np.arange(rows, dtype=np.float64)
            records.append(
                VideoRecord(
                    id=f"video_{number:05d}",
                    features=random.standard_normal((rows, SPEC.feature_dim), np.float32).astype(np.float16),
                    spans=np.stack([seconds, seconds], axis=1),
                    duration_s=float(rows),
                    fps=25.0,
                )
            )
        write_shard(folder / SPEC.name, SPEC, records, tools={})


def bare_reader(folder: Path) -> Reader:
    """What a program would do that knows the files by heart."""
    place: dict[str, tuple[np.memmap[tuple[int, ...], np.dtype[np.float16]], int, int]] = {}
    for path in shard_paths(folder / SPEC.name):
        with h5py.File(path, "r") as file:
            features = file["features"]
            mapped = np.memmap(
                path, np.float16, mode="r", offset=features.id.get_offset(), shape=features.shape
            )
            ids = [bytes(name).decode() for name in file["videos/id"][()]]
            offsets = file["videos/offsets"][()].tolist()
        for name, start, stop in zip(ids, offsets[:-1], offsets[1:], strict=True):
            place[name] = mapped, start, stop

    def read(name: str) -> Float16Array:
        mapped, start, stop = place[name]
        return mapped[start:stop]

    return read


def cache_reader(folder: Path) -> Reader:
    stream = FeatureCache(folder)[SPEC.name]
    return lambda name: stream[name].features


def rate(read: Reader, names: Sequence[str], *, copy: bool) -> float:
    """Videos per second."""
    buffer = np.empty((256, SPEC.feature_dim), np.float16)
    started = time.perf_counter()
    for name in names:
        features = read(name)
        if copy:
            buffer[: len(features)] = features
    return len(names) / (time.perf_counter() - started)


@click.command(help=as_written(__doc__))
@click.option("--videos", default=1200, show_default=True)
@click.option("--shard-size", default=256, show_default=True)
@click.option("--reads", default=6000, show_default=True, help="Random reads in a timed run.")
@click.option("--repeats", default=5, show_default=True, help="Timed runs of each, alternating.")
@click.option("--seed", default=0, show_default=True)
@click.option("--quick", is_flag=True, help="60 videos, 200 reads, twice.")
def main(*, videos: int, shard_size: int, reads: int, repeats: int, seed: int, quick: bool) -> None:
    if quick:
        videos, shard_size, reads, repeats = 60, 16, 200, 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cache(folder, videos=videos, shard_size=shard_size, seed=seed)
        bare = bare_reader(folder)
        random = np.random.default_rng(seed)
        ids = sorted(FeatureCache(folder)[SPEC.name])
        names = random.choice(ids, reads).tolist()
        rate(bare, ids, copy=True)  # the page cache

        click.echo(
            f"{videos} videos of about 120×{SPEC.feature_dim} float16, shards of {shard_size}; videos/s"
        )
        click.echo(f"{'':42}{'memmap':>12}{'FeatureCache':>14}{'ratio':>8}")
        for title, fresh, copy in (
            ("first reading of each (checksums), copied", True, True),
            ("random reads, copied", False, True),
            ("random reads, the slices alone", False, False),
        ):
            rates: tuple[list[float], list[float]] = [], []
            order = random.permutation(ids).tolist() if fresh else names
            ours_reads = cache_reader(folder)
            rate(ours_reads, ids, copy=True)
            for _ in range(repeats):
                if fresh:
                    ours_reads = cache_reader(folder)
                rates[0].append(rate(bare, order, copy=copy))
                rates[1].append(rate(ours_reads, order, copy=copy))
            theirs, ours = map(statistics.median, rates)
            click.echo(f"{title:42}{theirs:12,.0f}{ours:14,.0f}{ours / theirs:8.2f}")


if __name__ == "__main__":
    main()
