"""run-policy by several processes, of this machine and of a Dask cluster, some of which die."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cache_schema import UserError
from extract.sources import find_videos
from policy.deploy.engine import Answer, Failure, Settings
from policy.deploy.jobs import Recipe, run_by_jobs
from policy.deploy.session import open_session
from policy.runs import Run
from tests import test_run_policy
from tests.clusters import dask
from tests.test_run_policy import (
    CHEAP,
    CPU,
    DEAR,
    SECONDS,
    Collection,
    answers,
    command,
    lines_of,
    opened_rows,
    traced,
    wait_for_lines,
)

collection = test_run_policy.collection
liteeval = test_run_policy.liteeval

pytestmark = pytest.mark.usefixtures("one_thread")

MISBEHAVING = Settings(2, target="tests.bad_processes:misbehaving")


def by_jobs(
    run: Run, sources: Any, settings: Settings = MISBEHAVING, **options: Any
) -> dict[str, Answer | Failure]:
    """What became of each video."""
    recipe = Recipe(run.folder, (), "cpu", "fp32", 16, 1, settings, finished_ns=0)
    backbones = recipe.backbones(open_session(run.folder).streams, CPU)
    options = {"jobs": 2, "total": len(sources), **options}
    outcomes = list(run_by_jobs(sources, recipe, backbones, **options))
    found = {outcome.video.id: outcome for outcome in outcomes}
    assert len(found) == len(outcomes)
    return found


@pytest.fixture
def videos(collection: Collection, tmp_path: Path) -> Path:
    """Some videos, and among them those that kill who asks for them."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b", "c", "fatal", "fatal-once", "x", "y", "z"):
        shutil.copy(collection.videos / "v00.mp4", folder / f"{name}.mp4")
    return folder


def assert_whole(found: dict[str, Answer | Failure], usual: Answer) -> None:
    """All have the answer of the same video in one process, but the one that killed twice."""
    assert found.keys() == {"a", "b", "c", "fatal", "fatal-once", "x", "y", "z"}
    for name, outcome in found.items():
        if name == "fatal":
            assert isinstance(outcome, Failure)
            assert outcome.reason.startswith("the process at work on it died, twice (")
        else:
            assert isinstance(outcome, Answer)
            np.testing.assert_allclose(outcome.probabilities, usual.probabilities, atol=1e-5)


@pytest.mark.slow
def test_jobs_answer_as_one_process(collection: Collection, liteeval: Run, tmp_path: Path) -> None:
    sources = [collection.source(video) for video in SECONDS]
    usual = answers(liteeval, sources)
    found = by_jobs(liteeval, sources, Settings(2))
    assert found.keys() == usual.keys()
    for video, outcome in found.items():
        assert isinstance(outcome, Answer)
        np.testing.assert_allclose(outcome.probabilities, usual[video].probabilities, atol=1e-5)
        assert opened_rows(outcome) == opened_rows(usual[video])
    out, trace = tmp_path / "out.csv", tmp_path / "trace.jsonl"
    ran = command(liteeval, collection.videos, out, "--jobs", "2", "--trace", trace, "--json")
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    opened = sum(len(opened_rows(answer)) for answer in usual.values())
    assert summary["predicted"] == 12 and summary["rows"] == {CHEAP: sum(SECONDS.values()), DEAR: opened}
    assert summary["network_seconds"].keys() == {CHEAP, DEAR}
    assert lines_of(out).keys() == traced(trace).keys() == SECONDS.keys()


@pytest.mark.slow
def test_a_process_that_dies(collection: Collection, liteeval: Run, videos: Path) -> None:
    usual = answers(liteeval, [collection.source("v00")])["v00"]
    notes: list[str] = []
    sources = find_videos([videos]).videos
    assert_whole(by_jobs(liteeval, sources, note=notes.append), usual)
    assert len((videos / "fatal.killed").read_text().split()) == 2
    assert 1 <= len(notes) <= 2 and all(note.startswith("a process died (SIGKILL) with ") for note in notes)


@pytest.mark.slow
def test_processes_that_always_die(collection: Collection, liteeval: Run, tmp_path: Path) -> None:
    for number in range(8):
        shutil.copy(collection.videos / "v00.mp4", tmp_path / f"fatal{number}.mp4")
    sources = find_videos([tmp_path]).videos
    with pytest.raises(UserError, match=r"die again and again \(SIGKILL\)"):
        by_jobs(liteeval, sources)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--weights", f"{CHEAP}=random:1"), "are not those that the policy was trained on"),
        (("--weights", f"{CHEAP}=nowhere.safetensors"), "nowhere.safetensors"),
    ],
)
def test_backbones_that_cannot_be_built(
    collection: Collection, liteeval: Run, words: tuple[str, ...], problem: str, tmp_path: Path
) -> None:
    ran = command(liteeval, collection.videos, tmp_path / "out.csv", "--jobs", "2", *words)
    assert problem in ran.error and len(ran.err.splitlines()) == 1


def test_backend_and_scheduler_go_together(collection: Collection, liteeval: Run, tmp_path: Path) -> None:
    for words in (("--backend", "dask"), ("--scheduler", "tcp://127.0.0.1:9")):
        assert "go together" in command(liteeval, collection.videos, tmp_path / "out.csv", *words).error


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_command(
    collection: Collection, liteeval: Run, how: signal.Signals, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    words = [liteeval.folder, collection.videos, "--out", out, "--in-flight", "1", "--jobs", "2"]
    code = "from policy.cli.run_policy import run_policy; run_policy()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for_lines(process, out, 3)
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 3
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.kill()
    _, error = process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert b"Traceback" not in error and (how == signal.SIGKILL or b"run the same command again" in error)
    _, alive = psutil.wait_procs(below, timeout=60)
    for child in alive:
        with suppress(psutil.NoSuchProcess):
            assert child.status() == psutil.STATUS_ZOMBIE
    before = lines_of(out) if how == signal.SIGINT else {}
    ran = command(liteeval, collection.videos, out, "--jobs", "2")
    assert ran.code == 0 and "12 predicted" not in ran.out
    assert lines_of(out).keys() == SECONDS.keys() and before.items() <= lines_of(out).items()


@pytest.mark.slow
def test_a_full_disk(collection: Collection, liteeval: Run, tmp_path: Path) -> None:
    """The command alone writes: it says so in one line, and the next call goes on."""
    out = tmp_path / "out.csv"
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, usual[1]))  # of a file, in bytes
    try:
        ran = command(liteeval, collection.videos, out, "--jobs", "2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert f"{out}: cannot be read or written: " in ran.error
    before = lines_of(out)
    assert 0 < len(before) < len(SECONDS)
    assert command(liteeval, collection.videos, out, "--jobs", "2").code == 0
    assert lines_of(out).keys() == SECONDS.keys() and before.items() <= lines_of(out).items()


@pytest.mark.slow
def test_a_dask_cluster_loses_workers(
    collection: Collection, liteeval: Run, videos: Path, tmp_path: Path
) -> None:
    from distributed import Client

    usual = answers(liteeval, [collection.source("v00")])["v00"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    worker = ("worker", address, "--nthreads", "1", "--no-dashboard")  # its nanny starts another when it dies
    scheduler = ("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    with dask(*scheduler), dask(*worker), dask(*worker):
        with Client(address, timeout=120) as client:
            client.wait_for_workers(2, timeout=120)
        sources = find_videos([videos]).videos
        assert_whole(by_jobs(liteeval, sources, scheduler=address), usual)
        assert len((videos / "fatal.killed").read_text().split()) == 2
        # The command itself, and once more, when the workers have everything open.
        for folder, number in ((collection.videos, 12), (videos, 8)):
            out = tmp_path / f"{folder.name}{number}.csv"
            (videos / "fatal.mp4").unlink(missing_ok=True)
            ran = command(liteeval, folder, out, "--backend", "dask", "--scheduler", address, "--json")
            assert ran.code == 0, ran.err
            assert json.loads(ran.out)["predicted"] == number - (number == 8)
        wrong = ("--weights", f"{CHEAP}=random:1", "--backend", "dask", "--scheduler", address)
        ran = command(liteeval, collection.videos, tmp_path / "wrong.csv", *wrong)
        assert "are not those that the policy was trained on" in ran.error
