"""kill -9 at any moment, then the same command again: the cache of an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from benchmarks.videos import numbered_frames, write_video
from cache_schema import FeatureCache
from cache_schema.cli import feature_cache

VIDEOS = 36
KILLS_A_ROUND, KILLS = 6, 10
STREAMS = ("timm:test_resnet@64", "timm:test_convnext@64")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(4):
        frames = numbered_frames(25 * (2 + i), first=100 * i, width=320, height=240)
        write_video(folder / f"v{i:02d}.mp4", frames, fps=25)
    for i in range(4, VIDEOS):
        shutil.copy(folder / f"v{i % 4:02d}.mp4", folder / f"v{i:02d}.mp4")
    return folder


@contextmanager
def batch_extract(videos: Path, cache: Path) -> Iterator[subprocess.Popen[str]]:
    """The command as a process group of its own."""
    streams = [option for stream in STREAMS for option in ("--stream", stream)]
    code = "from extract.cli import batch_extract; batch_extract()"
    options = ["--weights", "random:0", "--shard-size", "2", "--workers", "2", "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(videos), "--cache", str(cache), *streams, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def finish(videos: Path, cache: Path) -> None:
    with batch_extract(videos, cache) as process:
        out, _ = process.communicate(timeout=500)
        assert process.returncode == 0, out


def wait_for_workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Until it decodes: before that it only imports. None, if it ended without."""
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            children: list[psutil.Process] = psutil.Process(process.pid).children()
            if children:
                return children
        time.sleep(0.01)
    return []


def shard_count(cache: Path) -> int:
    return len(list(cache.rglob("shard-*.h5")))


def contents(cache: Path) -> dict[str, tuple[str, dict[str, bytes]]]:
    opened = FeatureCache(cache)
    return {
        name: (
            stream.digest(),
            {v: np.hstack([stream[v].features, stream[v].spans]).tobytes() for v in stream},
        )
        for name, stream in opened.items()
    }


@pytest.mark.slow
def test_killed_runs_end_with_the_same_cache(videos: Path, tmp_path: Path) -> None:
    with batch_extract(videos, tmp_path / "undisturbed") as process:
        started = time.monotonic()
        assert wait_for_workers(process)
        imports_s = time.monotonic() - started
        process.communicate(timeout=500)
        works_s = time.monotonic() - started - imports_s
    expected = contents(tmp_path / "undisturbed")
    shards = shard_count(tmp_path / "undisturbed")
    assert [len(rows) for _, rows in expected.values()] == [VIDEOS, VIDEOS]

    moments = random.Random(0)
    killed_at_work = 0
    counts = []
    for round_ in range(6):  # two are enough, unless a loaded machine kills some of them too late
        if killed_at_work >= KILLS:
            break
        cache = tmp_path / f"round {round_}"
        for kill in range(KILLS_A_ROUND):
            with batch_extract(videos, cache) as process:
                if kill == 0 and round_ == 0:  # once before anything has begun
                    time.sleep(moments.uniform(0, imports_s))
                    workers = []
                else:
                    workers = wait_for_workers(process)
                    # After none to three further shards, and somewhere in the next one.
                    target = shard_count(cache) + moments.randint(0, 3)
                    while process.poll() is None and shard_count(cache) < target:
                        time.sleep(0.002)
                    time.sleep(works_s / shards * moments.uniform(0, 1))
                killed_at_work += process.poll() is None and bool(workers)
                if kill % 2:
                    process.kill()  # the parent alone: its workers must notice
                    process.wait()
                    _, alive = psutil.wait_procs(workers, timeout=120)
                    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
                else:
                    with suppress(ProcessLookupError):  # it was done
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            counts.append(shard_count(cache))
        finish(videos, cache)
        assert contents(cache) == expected
        assert not [path for path in cache.rglob("*") if path.is_file() and not path.match("shard-*.h5")]
        verified = CliRunner().invoke(feature_cache, ["verify", str(cache)])
        assert verified.exit_code == 0 and "all good" in verified.stdout
    assert killed_at_work >= KILLS, counts
    assert len({count for count in counts if 0 < count < shards}) >= 4, counts
