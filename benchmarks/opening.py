"""What does the index spare when a cache of many shards is opened?

    python -m benchmarks.opening
    python -m benchmarks.opening --quick        # a smoke test of seconds

The same cache is opened in turn without its index, when every shard's header is read and checked, and with it.
Opening ends when ids, row counts and failures of the stream can be asked for. With the index, a shard's header is
read and checked when rows of it are first asked for. Everything is in the page cache: on a disk, or over a
network, headers cost more.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.reading import SPEC
from benchmarks.tables import as_written
from cache_schema import FeatureCache, VideoRecord, write_shard
from cache_schema.command import size
from cache_schema.index import INDEX_NAME, open_table, write_index


def write_cache(folder: Path, *, shards: int, videos: int) -> None:
    """Videos of one row: headers are what counts here."""
    row = np.zeros((1, SPEC.feature_dim), np.float16)
    for shard in range(shards):
        records = [
            VideoRecord(
                id=f"video_{shard * videos + i:08d}",
                features=row,
                spans=np.zeros((1, 2)),
                duration_s=1.0,
                fps=25.0,
                source=f"video_{shard * videos + i:08d}.mp4",
                fingerprint=f"1234567-{shard * videos + i:032x}",
            )
            for i in range(videos)
        ]
        write_shard(folder, SPEC, records, tools={"thriftvid": "benchmark"})


def seconds(folder: Path) -> float:
    """One opening, as a program does it."""
    started = time.perf_counter()
    stream = FeatureCache(folder.parent)[folder.name]
    assert stream.total_rows() == len(stream) and not stream.failures
    return time.perf_counter() - started


@click.command(help=as_written(__doc__))
@click.option("--shards", default=2000, show_default=True)
@click.option("--videos", default=256, show_default=True, help="In a shard.")
@click.option("--repeats", default=3, show_default=True, help="Openings of each kind, alternating.")
@click.option("--quick", is_flag=True, help="20 shards of 16, twice.")
def main(*, shards: int, videos: int, repeats: int, quick: bool) -> None:
    if quick:
        shards, videos, repeats = 20, 16, 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / SPEC.name
        write_cache(folder, shards=shards, videos=videos)
        times: dict[str, list[float]] = {"headers": [], "headers, and the index is written": [], "index": []}
        for _ in range(repeats):
            (folder / INDEX_NAME).unlink(missing_ok=True)
            started = time.perf_counter()
            opened = open_table(folder)
            times["headers"].append(time.perf_counter() - started)
            assert opened is not None
            started = time.perf_counter()
            write_index(folder, opened.table)
            written = time.perf_counter() - started
            times["headers, and the index is written"].append(times["headers"][-1] + written)
            times["index"].append(seconds(folder))
        index_bytes = (folder / INDEX_NAME).stat().st_size
        click.echo(f"a stream of {shards:,} shards of {videos} videos; index {size(index_bytes)}")
        click.echo(f"{'opened from':36}{'seconds':>10}{'ratio':>8}")
        slowest = statistics.median(times["headers"])
        for what, taken in times.items():
            median = statistics.median(taken)
            click.echo(f"{what:36}{median:10.3f}{slowest / median:8.1f}")


if __name__ == "__main__":
    main()
