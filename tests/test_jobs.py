"""Many processes fill one cache: of one run, of several runs at once, and when some of them are killed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from benchmarks.videos import numbered_frames, write_video
from cache_schema import CacheError, FeatureCache, UserError
from cache_schema import command as cluster_module
from cache_schema.cli import feature_cache
from extract import claims as claims_module
from extract.backbones import parse_stream
from extract.batch import extract_by_many
from extract.claims import STALE_S, Claims, clear_dead, wait_for
from extract.cli import batch_extract
from extract.jobs import Recipe
from extract.pipeline import Progress, Settings
from extract.planning import Outcome
from extract.sources import find_videos
from tests.clusters import dask

STREAM, NAME = "timm:test_resnet@64", "test_resnet_64"
RECIPE = Recipe((parse_stream(STREAM),), ("random:0",), "cpu", "fp32", 1)
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    for i in range(6):
        write_video(folder / f"v{i}.mp4", numbered_frames(30 + 10 * i, first=100 * i), fps=25)
    (folder / "broken.mp4").write_bytes(b"these are words")
    return folder


@pytest.fixture
def videos(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "videos"))


@pytest.fixture(scope="module")
def expected(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of what one process makes."""
    cache = tmp_path_factory.mktemp("expected") / "cache"
    result = CliRunner().invoke(batch_extract, words(originals, cache))
    assert result.exit_code == 1
    return FeatureCache(cache)[NAME].digest()


def words(videos: Path, cache: Path, *options: str) -> list[str]:
    options = ("--stream", STREAM, "--weights", "random:0", "--workers", "1", *options)
    return [str(videos), "--cache", str(cache), *options]


def assert_whole(cache: Path, digest: str, *, shards_at_least: int = 1) -> None:
    """Every video once, nothing left over, and nothing damaged."""
    stream = FeatureCache(cache)[NAME]
    assert stream.digest() == digest
    ids = [id for shard in stream.shards for id in shard.open().ids]
    assert len(ids) == len(set(ids)) and set(stream.failures) == {"broken"}
    assert len(stream.shards) >= shards_at_least
    assert not [path for path in cache.rglob("*") if path.is_file() and not path.match("shard-*.h5")]
    verified = CliRunner().invoke(feature_cache, ["verify", str(cache)])
    assert verified.exit_code == 0, verified.output


# --------------------------------------------------------------------------------------------- one run, many jobs


@pytest.mark.slow
def test_jobs_make_what_one_process_makes(videos: Path, tmp_path: Path, expected: str) -> None:
    options = ("--jobs", "2", "--shard-size", "2", "--json")
    result = CliRunner().invoke(batch_extract, words(videos, tmp_path / "cache", *options))
    assert result.exit_code == 1, result.output
    answer = json.loads(result.stdout)
    assert (answer["extracted"], list(answer["failed"])) == (6, ["broken"])
    assert answer["frames_decoded"] == sum(-(-(30 + 10 * i) // 25) for i in range(6))
    assert_whole(tmp_path / "cache", expected, shards_at_least=4)
    result = CliRunner().invoke(batch_extract, words(videos, tmp_path / "cache", *options))
    assert json.loads(result.stdout)["already_there"] == 6


def run_by_many(
    videos: Path,
    cache: Path,
    *,
    target: str,
    notes: list[str],
    backend: str = "loky",
    scheduler: str = "",
    retry_failed: bool = False,
) -> Outcome:
    target = f"tests.bad_decoders:{target}"
    return extract_by_many(
        find_videos([videos]),
        RECIPE,
        cache,
        Settings(decode_workers=1, batch=16, deadline_s=60, keep_damaged=True, decode_target=target),
        jobs=2,
        backend=backend,
        scheduler=scheduler,
        shard_size=1,
        warn=notes.append,
        retry_failed=retry_failed,
    )


def without_costs(notes: list[str]) -> list[str]:
    """But for the lines that say what streams cost."""
    return [note for note in notes if " GFLOPs a row, " not in note]


@pytest.mark.slow
def test_a_job_that_dies_has_its_shards_done_by_others(videos: Path, tmp_path: Path) -> None:
    for name in ("fatal", "part_lost30-55_odd"):
        shutil.copy(videos / "v5.mp4", videos / f"{name}.mp4")
    notes: list[str] = []
    outcome = run_by_many(videos, tmp_path / "cache", target="killing_job", notes=notes)
    (note,) = without_costs(notes)
    assert note.startswith("a process that extracts has died")
    assert (outcome.extracted, list(outcome.failed), list(outcome.partial)) == (
        8,
        ["broken"],
        ["part_lost30-55_odd"],
    )
    assert outcome.partial["part_lost30-55_odd"].startswith("damaged at 1.2 s; 1 of 4 rows lost")
    stream = FeatureCache(tmp_path / "cache")[NAME]
    assert np.array_equal(stream["fatal"].features, stream["v5"].features)
    assert not (tmp_path / "cache" / ".claims").exists()


@pytest.mark.slow
def test_jobs_that_always_die_are_given_up_in_one_line(videos: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    with pytest.raises(UserError, match="die again and again") as caught:
        run_by_many(videos, tmp_path / "cache", target="always_killing_job", notes=notes)
    assert "\n" not in str(caught.value) and len(without_costs(notes)) == 2
    assert not (tmp_path / "cache" / ".claims").exists()


@pytest.mark.slow
def test_failures_are_tried_again_though_a_job_dies(videos: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    run_by_many(videos, tmp_path / "cache", target="recording", notes=notes)
    shutil.copy(videos / "v5.mp4", videos / "fatal.mp4")
    outcome = run_by_many(videos, tmp_path / "cache", target="killing_job", notes=notes, retry_failed=True)
    assert len(without_costs(notes)) == 1 and outcome.extracted == 1
    assert "known from an earlier run" not in outcome.failed["broken"]


# A run whose decoders do not come to an end, to be killed.
STAYING = """
import sys
from pathlib import Path
from tests.test_jobs import run_by_many
run_by_many(Path(sys.argv[1]), Path(sys.argv[2]), target="misbehaving", notes=[])
"""


@pytest.mark.slow
def test_jobs_end_with_the_command_that_started_them(videos: Path, tmp_path: Path, expected: str) -> None:
    """Else they would go on with videos that a second command takes, too."""
    for i in range(4):
        (videos / f"stay{i}.mp4").hardlink_to(videos / "v5.mp4")
    arguments = [sys.executable, "-c", STAYING, str(videos), str(tmp_path / "cache")]
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
    command = psutil.Process(process.pid)

    def decoders() -> int:
        return sum("extract.workers" in words for _, words in below())

    def below() -> list[tuple[psutil.Process, str]]:
        """The processes that are running, and how they were called."""
        found = []
        for child in command.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.append((child, " ".join(child.cmdline())))
        return found

    while decoders() < 2:
        assert process.poll() is None
        time.sleep(0.05)
    others = [child for child, _ in below()]
    process.kill()  # it alone
    process.wait()
    _, alive = psutil.wait_procs(others, timeout=300)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    for i in range(4):
        (videos / f"stay{i}.mp4").unlink()
    run_by_many(videos, tmp_path / "cache", target="recording", notes=[])
    assert_whole(tmp_path / "cache", expected)


# ------------------------------------------------------------------------------------------------- a Dask cluster


@pytest.mark.slow
def test_a_dask_cluster_loses_a_worker(videos: Path, tmp_path: Path) -> None:
    from distributed import Client

    shutil.copy(videos / "v5.mp4", videos / "fatal.mp4")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    worker = ("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
    scheduler = ("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    with dask(*scheduler), dask(*worker) as first, dask(*worker) as second:
        with Client(address, timeout=120) as client:
            client.wait_for_workers(2, timeout=120)
        notes: list[str] = []
        outcome = run_by_many(
            videos, tmp_path / "cache", target="killing_job", notes=notes, backend="dask", scheduler=address
        )
        killed = int((videos / "fatal.mp4.killed").read_text())
        [lost] = [process for process in (first, second) if process.pid == killed]
        assert lost.wait(timeout=60) == -9
        [left] = {first, second} - {lost}
        assert left.poll() is None
        # The command itself, with what is left of the cluster: nothing to do, and says so.
        options = ("--backend", "dask", "--scheduler", address, "--json")
        result = CliRunner().invoke(batch_extract, words(videos, tmp_path / "cache", *options))
        assert json.loads(result.stdout)["already_there"] == 7
    assert (outcome.extracted, list(outcome.failed)) == (7, ["broken"])
    stream = FeatureCache(tmp_path / "cache")[NAME]
    ids = [id for shard in stream.shards for id in shard.open().ids]
    assert len(ids) == len(set(ids)) == 8
    assert np.array_equal(stream["fatal"].features, stream["v5"].features)


@pytest.mark.slow
def test_an_unreachable_scheduler(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_TIMEOUT_S", 1)
    for address in ("tcp://127.0.0.1:9", "nowhere.invalid:8786", "what is this"):
        options = ("--backend", "dask", "--scheduler", address)
        result = CliRunner().invoke(batch_extract, words(videos, tmp_path / "cache", *options))
        assert result.exit_code == 2
        assert result.stderr.splitlines()[-1].startswith(
            f"Error: --scheduler {address}: no Dask scheduler answers"
        )
        assert "Traceback" not in result.output


@pytest.mark.parametrize("options", [("--backend", "dask"), ("--scheduler", "tcp://127.0.0.1:9")])
def test_backend_and_scheduler_go_together(videos: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    result = CliRunner().invoke(batch_extract, words(videos, tmp_path / "cache", *options))
    assert result.exit_code == 2 and "go together" in result.stderr


# ------------------------------------------------------------------------------------------- several runs at once


def start_run(videos: Path, cache: Path, *options: str) -> subprocess.Popen[str]:
    """batch-extract, with decoders that note what they decode."""
    code = (
        "import extract.workers as w; w._SERVE = 'tests.bad_decoders:recording'; "
        "from extract.cli import batch_extract; batch_extract()"
    )
    command = [sys.executable, "-c", code, *words(videos, cache, "--json", *options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.slow
def test_runs_at_once_share_the_work(videos: Path, tmp_path: Path, expected: str) -> None:
    runs = [start_run(videos, tmp_path / "cache", "--shard-size", "1") for _ in range(3)]
    answers = []
    for run in runs:
        out, err = run.communicate(timeout=300)
        assert run.returncode == 1, err  # broken.mp4 is known to all of them
        answers.append(json.loads(out))
    assert_whole(tmp_path / "cache", expected)
    assert sum(answer["extracted"] for answer in answers) == 6
    assert all(answer["extracted"] + answer["already_there"] == 6 for answer in answers)
    noted = {path.name: path.read_text() for path in videos.glob("*.decoded")}
    assert noted == {f"{path.name}.decoded": "once\n" for path in videos.glob("*.mp4")}


def test_a_run_leaves_claimed_videos_and_does_them_when_their_owner_is_gone(
    videos: Path, tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Claims(tmp_path / "cache")
    other.take(["v1", "v3"])
    seen: list[set[str]] = []

    def wait(claims: Claims, ids: Iterator[str]) -> None:
        """The other run dies while it is waited for."""
        waiting = set(ids)
        seen.append(waiting)
        assert claims.elsewhere(waiting) == {"v1", "v3"}
        assert set(FeatureCache(tmp_path / "cache")[NAME]) == {"v0", "v2", "v4", "v5"}
        other.__exit__()
        wait_for(claims, waiting)

    monkeypatch.setattr("extract.batch.wait_for", wait)
    result = CliRunner().invoke(batch_extract, words(videos, tmp_path / "cache"))
    assert result.exit_code == 1 and seen == [{"v1", "v3"}]
    assert "waiting for 2 videos that another run is at" in result.stderr
    assert_whole(tmp_path / "cache", expected, shards_at_least=2)


def test_what_another_run_has_done_meanwhile_is_not_done_again(
    videos: Path, tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the cache and the claim, another run does everything."""
    take = Claims.take

    def late(self: Claims, ids: Iterator[str]) -> object:
        monkeypatch.setattr(Claims, "take", take)
        assert CliRunner().invoke(batch_extract, words(videos, tmp_path / "cache")).exit_code == 1
        return take(self, ids)

    monkeypatch.setattr(Claims, "take", late)
    result = CliRunner().invoke(batch_extract, words(videos, tmp_path / "cache", "--json"))
    answer = json.loads(result.stdout)
    assert (answer["extracted"], answer["already_there"], answer["frames_decoded"]) == (0, 6, 0)
    assert list(answer["failed"]) == ["broken"]
    assert_whole(tmp_path / "cache", expected)


def test_claims_are_exclusive_until_released(tmp_path: Path) -> None:
    with Claims(tmp_path) as first, Claims(tmp_path) as second:
        mine, others = first.take(["a", "b", "ü/\udcff"])
        assert (mine.ids, others) == (("a", "b", "ü/\udcff"), frozenset())
        theirs, others = second.take(["b", "c", "ü/\udcff"])
        assert theirs.ids == ("c",) and others == {"a", "b", "ü/\udcff"}
        assert second.elsewhere(["a", "c", "d"]) == {"a"} and first.elsewhere(["a", "c", "d"]) == {"c"}
        first.release(mine)
        assert second.take(["a", "b"])[0].ids == ("a", "b")
    assert list(tmp_path.iterdir()) == []


def test_the_claims_of_the_dead_count_no_more(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from extract.claims import Claims; "
        "Claims(Path(sys.argv[1])).take(['a']); print('taken', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == b"taken\n"
        with Claims(tmp_path) as ours:
            assert ours.take(["a", "b"])[0].ids == ("b",)
            process.kill()
            process.wait()
            assert ours.take(["a"])[0].ids == ("a",)
    assert list(tmp_path.iterdir()) == []


def test_claims_from_elsewhere_are_trusted_while_they_are_fresh(tmp_path: Path) -> None:
    folder = tmp_path / ".claims"
    folder.mkdir()
    foreign = folder / "0-1.json"
    foreign.write_text(json.dumps({"owner": {"machine": "another", "process": "1"}, "videos": ["a"]}))
    with Claims(tmp_path) as ours:
        assert ours.take(["a"])[0].ids == ()
        long_ago = time.time() - STALE_S - 60
        os.utime(foreign, (long_ago, long_ago))
        assert ours.take(["a"])[0].ids == ("a",)
        assert not foreign.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"owner": 1, "videos": 2}', b"\xff"])
def test_half_a_claim_is_nobodys(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".claims").mkdir()
    (tmp_path / ".claims" / "0-1.json").write_bytes(content)
    clear_dead(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_claims_beat_while_their_owner_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "_HEARTBEAT_S", 0.01)
    with Claims(tmp_path) as ours:
        claim, _ = ours.take(["a"])
        os.utime(claim.path, (1.0, 1.0))
        deadline = time.monotonic() + 60
        while claim.path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert claim.path.stat().st_mtime > 2


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(CacheError, match=r"\.claims: cannot be used"):
        Claims(tmp_path / "cache")


@pytest.mark.slow
def test_progress_adds_up_over_jobs(videos: Path, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []

    def report(progress: Progress) -> None:
        reports.append((progress.videos_done, progress.videos_total))

    extract_by_many(
        find_videos([videos]),
        RECIPE,
        tmp_path / "cache",
        Settings(decode_workers=1, batch=16, deadline_s=60),
        jobs=2,
        backend="loky",
        shard_size=3,
        report=report,
    )
    assert reports == sorted(reports) and reports[-1] == (7, 7) and len(reports) == 3
