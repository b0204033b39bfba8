"""Disks that are full or read-only, weights that are none, a decord that lies: one line, or the right rows."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache as once
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click import Command
from click.testing import CliRunner
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.videos import numbered_frames, write_video
from cache_schema import FeatureCache, Stream, write_shard
from cache_schema import files as processes
from cache_schema.cli import feature_cache
from extract import claims, pipeline
from extract.backbones.i3d import I3D
from extract.backbones.x3d import X3D
from extract.cli import batch_extract
from extract.workers import DecodeJob, Message, decode
from policy.cli.train_policy import train_policy
from tests.caches import make_spec, write_stream
from tests.planted import write_planted, write_planted_labels
from tests.test_backbones import Bomb
from tests.test_decode import B_FRAMES, numbers_of
from tests.test_extract import NAME, STREAM, Ran, assert_rows, check, extract

ONE_EACH = ("--shard-size", "1")
READ_ONLY = OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of 1, 3 and 40 rows, whose shards are of 10, 15 and 97 kB."""
    folder = tmp_path_factory.mktemp("originals")
    for name, rows in (("a", 1), ("b", 3), ("c", 40)):
        write_video(folder / f"{name}.mp4", numbered_frames(rows), fps=1)
    return folder


@pytest.fixture
def videos(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "videos"))


@pytest.fixture(scope="module")
def undisturbed(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    cache = tmp_path_factory.mktemp("undisturbed") / "cache"
    assert extract(originals, cache, *ONE_EACH).code == 0
    return FeatureCache(cache)[NAME]


@pytest.fixture(scope="module")
def expected(undisturbed: Stream) -> str:
    """The digest of what an undisturbed run makes."""
    return undisturbed.digest()


def files_in(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.rglob("*") if not path.is_dir()}


def assert_only_whole_shards(cache: Path, shards: int | None = None) -> None:
    files = files_in(cache)
    assert all(Path(name).match(f"{NAME}/shard-*.h5") for name in files)
    assert not (cache / ".claims").exists()
    assert shards is None or len(files) == shards
    if files:
        verified = check("verify", cache)
        assert verified.code == 0, verified.lines


def assert_finishes(videos: Path, cache: Path, digest: str) -> None:
    ran = extract(videos, cache)
    assert ran.code == 0, ran.lines
    assert FeatureCache(cache)[NAME].digest() == digest
    assert_only_whole_shards(cache)


# -------------------------------------------------------------------------------------------- a disk that is full

COMMANDS = {"batch-extract": batch_extract, "feature-cache": feature_cache}


def _be(command: str, words: list[str], bytes_a_file: int | None, out: Connection, err: Connection) -> None:
    """What a process of `run_apart` is."""
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    if bytes_a_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write that goes further fails with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file))
    COMMANDS[command](words)


def _all_of(pipe: Connection) -> str:
    with os.fdopen(os.dup(pipe.fileno()), encoding="utf-8") as text:
        return text.read()


def run_apart(command: str, *words: str | Path, bytes_a_file: int | None = None) -> Ran:
    """A command in a process of its own, which may crash, and whose files may be no larger than this.

    Forked from a process that has imported everything, which is begun once: torch takes its time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    sent = [theirs for _, theirs in pipes]
    process = context.Process(target=_be, args=(command, [str(word) for word in words], bytes_a_file, *sent))
    process.start()
    for theirs in sent:
        theirs.close()
    err, out = (_all_of(ours) for ours, _ in reversed(pipes))
    process.join()
    return Ran(process.exitcode or 0, out, err)


def extract_apart(videos: Path, cache: Path, *options: str, bytes_a_file: int | None = None) -> Ran:
    made = ("--stream", STREAM, "--weights", "random:0", "--workers", "1")
    return run_apart("batch-extract", videos, "--cache", cache, *made, *options, bytes_a_file=bytes_a_file)


def assert_told(ran: Ran, cache: Path, reason: str) -> None:
    """Exactly one line, of what is wrong with which cache, and nothing of the libraries' own."""
    assert (ran.code, ran.out) == (2, ""), ran.err[-2000:]
    assert ran.err.endswith("\n")
    told = [line for line in ran.lines if " frames/s, " not in line]  # progress, every half minute
    assert len(told) == 1, ran.err[-2000:]
    assert told[0].startswith(f"Error: {cache}") and told[0].endswith(f": {reason}")


# How much of which shard can be written: of the first not its header, of the others more or less of their rows.
@pytest.mark.parametrize(
    ("shard", "share"),
    [
        pytest.param(0, 0.1, marks=pytest.mark.slow),
        pytest.param(0, 0.95, marks=pytest.mark.slow),
        pytest.param(1, 0.8, marks=pytest.mark.slow),
        pytest.param(1, 0.95, marks=pytest.mark.slow),
        (2, 0.2),
        pytest.param(2, 0.95, marks=pytest.mark.slow),
    ],
)
def test_files_that_cannot_grow(
    videos: Path, tmp_path: Path, undisturbed: Stream, shard: int, share: float
) -> None:
    cache = tmp_path / "cache"
    sizes = sorted(shard.path.stat().st_size for shard in undisturbed.shards)
    ran = extract_apart(videos, cache, *ONE_EACH, bytes_a_file=round(sizes[shard] * share))
    assert_told(ran, cache, os.strerror(errno.EFBIG))
    assert_only_whole_shards(cache, shard)
    assert_finishes(videos, cache, undisturbed.digest())


def test_claims_that_cannot_be_written(videos: Path, tmp_path: Path) -> None:
    ran = extract_apart(videos, tmp_path / "cache", bytes_a_file=100)
    assert_told(ran, tmp_path / "cache", os.strerror(errno.EFBIG))
    assert_only_whole_shards(tmp_path / "cache", 0)


@pytest.mark.slow
def test_files_that_cannot_grow_under_many_jobs(videos: Path, tmp_path: Path, expected: str) -> None:
    ran = extract_apart(videos, tmp_path / "cache", *ONE_EACH, "--jobs", "2", bytes_a_file=60_000)
    assert_told(ran, tmp_path / "cache", os.strerror(errno.EFBIG))
    assert_only_whole_shards(tmp_path / "cache")
    assert_finishes(videos, tmp_path / "cache", expected)


def mount(*words: str | Path) -> None:
    try:
        subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not allowed here")


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system in memory, of this size."""
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield folder
    finally:  # lazily: what was read of it is still mapped
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    "size", [*(pytest.param(size, marks=pytest.mark.slow) for size in ("4k", "28k", "64k")), "16k"]
)
def test_a_disk_that_is_full(videos: Path, tmp_path: Path, expected: str, size: str) -> None:
    with disk(tmp_path / "disk", size) as full:
        cache = full / "cache"
        assert_told(extract_apart(videos, cache, *ONE_EACH), cache, os.strerror(errno.ENOSPC))
        assert_only_whole_shards(cache)
        mount("-o", "remount,size=10m", full)
        assert_finishes(videos, cache, expected)


@pytest.mark.slow
def test_reading_needs_no_room(tmp_path: Path) -> None:
    """So many shards have an index, made by whoever reads them first; on a full disk it is done without."""
    with disk(tmp_path / "disk", "10m") as full:
        [*_] = write_stream(full / "cache", make_spec(), {f"v{i}": 1 for i in range(70)}, shard_size=1)
        before = files_in(full)
        used = sum(-(-(full / name).stat().st_size // 4096) * 4096 for name in before)
        for room in (0, 4096, 12_288):
            mount("-o", f"remount,size={used + room}", full)
            for command in ("info", "verify"):
                ran = run_apart("feature-cache", command, full / "cache")
                assert (ran.code, ran.lines) == (0, []), ran.err[-2000:]
                assert files_in(full) == before


# --------------------------------------------------------------------------------------- a disk that is read-only


def train(cache: Path, labels: Path, out: Path) -> Ran:
    words = ["uniform", "--fine", "fine_224", "--epochs", "1", "--batch", "8", "--device", "cpu"]
    places = ["--cache", str(cache), "--labels", str(labels), "--out", str(out)]
    result = CliRunner().invoke(train_policy, [*words, *places])
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.mark.slow
def test_a_read_only_cache_is_read_and_not_written(videos: Path, tmp_path: Path, expected: str) -> None:
    labels = tmp_path / "labels.csv"
    with disk(tmp_path / "disk", "10m") as folder:
        cache = folder / "cache"
        write_planted_labels(write_planted(cache, train=16, test=8, classes=4, dim=8)[1], labels)
        write_stream(cache, make_spec(), {f"v{i}": 1 for i in range(70)}, shard_size=1)
        assert extract(videos / "a.mp4", cache).code == 0
        before = files_in(cache)
        mount("-o", "remount,ro", folder)
        error = extract(videos, cache).error
        assert error == f"Error: {cache / NAME}: cannot write to the cache: {READ_ONLY.strerror}"
        assert "cannot write to the cache" in extract(videos, folder / "new").error
        for command in ("info", "verify"):
            ran = check(command, cache)
            assert (ran.code, ran.lines) == (0, []), ran.err
        assert train(cache, labels, tmp_path / "run").code == 0
        assert files_in(folder) == {f"cache/{name}" for name in before}
        mount("-o", "remount,rw", folder)
        assert extract(videos, cache).code == 0
        assert FeatureCache(cache)[NAME].digest() == expected


@pytest.mark.slow
def test_a_disk_that_becomes_read_only(
    videos: Path, tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Linux does when a disk errs. The claims stay there, for nobody can remove them; the next run does."""
    with disk(tmp_path / "disk", "10m") as folder:
        cache = folder / "cache"

        def turn(*arguments: Any, **named: Any) -> Path:
            if (cache / NAME).exists() and list((cache / NAME).glob("shard-*")):
                mount("-o", "remount,ro", folder)
            return write_shard(*arguments, **named)

        monkeypatch.setattr(pipeline, "write_shard", turn)
        ended = {
            "machine": processes.machine(),
            "process": str(os.getpid()),
            "started": "by one that has ended",
        }
        monkeypatch.setattr(claims, "_identity", lambda: ended)
        error = extract(videos, cache, *ONE_EACH).error
        assert error.startswith(f"Error: {cache}") and error.endswith(f": {READ_ONLY.strerror}")
        shards = {name for name in files_in(cache) if not name.startswith(".claims/")}
        assert len(shards) == 1 and Path(shards.pop()).match(f"{NAME}/shard-*.h5")
        assert check("verify", cache).code == 0
        mount("-o", "remount,rw", folder)
        monkeypatch.undo()
        assert_finishes(videos, cache, expected)


@pytest.mark.parametrize(
    "call",
    [
        "h5py.h5f.create",
        pytest.param("tempfile.TemporaryFile", marks=pytest.mark.slow),
        pytest.param("os.fsync", marks=pytest.mark.slow),
        pytest.param("pathlib.Path.replace", marks=pytest.mark.slow),
    ],
)
def test_a_write_that_is_refused(
    videos: Path, tmp_path: Path, expected: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be mounted: the calls that a shard is written by."""

    def refuse(*_: object, **__: object) -> None:
        raise READ_ONLY

    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(call, refuse)
        ran = extract(videos, cache)
    assert_told(ran, cache / NAME, str(READ_ONLY.strerror))
    assert_only_whole_shards(cache, shards=0)
    assert_finishes(videos, cache, expected)


# ----------------------------------------------------------------- files that are no weights of a 3-D network

HEAD = "blocks.5.proj.weight"
State = dict[str, Tensor]


@once
def x3d(variant: str = "xs") -> State:
    return X3D(variant, num_classes=7).state_dict()


def refused_weights(
    videos: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, *, stream: str = "x3d_xs"
) -> str:
    """The one line, after which nothing was decoded or written."""
    monkeypatch.setattr("extract.workers._SERVE", "tests.bad_decoders:recording")
    ran = extract(videos, tmp_path / "cache", "--weights", weights, stream=stream)
    assert len(ran.lines) == 1 and ran.error.startswith(f"Error: {weights}: ")
    assert not (tmp_path / "cache").exists() and not list(videos.glob("*.decoded"))
    return ran.error.removeprefix(f"Error: {weights}: ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: x3d("l"), r"has unknown blocks.1.res_blocks.3.branch2.conv_a.weight, .* and \d+ more"),
        (
            lambda state: I3D(3, 7).state_dict(),
            r"or by other names: it has .*; blocks.0.conv.conv_t.weight, .*",
        ),
        (lambda state: {k: state[k] for k in state if k != HEAD}, f"lacks {HEAD}"),
        (lambda state: {**state, "alien.weight": torch.zeros(3)}, r"has unknown alien.weight"),
        (
            lambda state: {**state, "blocks.0.norm.weight": torch.zeros(3)},
            r"does not fit: blocks.0.norm.weight is \(3,\), not \(24,\)",
        ),
        (lambda state: {**state, HEAD: torch.tensor(3.0)}, rf"does not fit: {HEAD} is \(\), not"),
    ],
    ids=["x3d_l", "i3d", "without classifier", "more", "another shape", "a number as classifier"],
)
def test_weights_of_another_network(
    videos: Path, tmp_path: Path, change: Callable[[State], State], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "other.pyth"
    torch.save({"model_state": change(x3d())}, path)
    line = refused_weights(videos, tmp_path, path, monkeypatch)
    assert re.match(f"weights of another network(: |, ){said}", line), line


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_weights_is_not_run(
    videos: Path, tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, trace = tmp_path / "evil.pyth", tmp_path / "it ran"
    content = {"model_state": x3d(), "cfg": Bomb(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    line = refused_weights(videos, tmp_path, path, monkeypatch)
    assert line.startswith("refused: it holds more than tensors, and reading it could run code from it")
    assert not trace.exists()


@pytest.mark.parametrize("ending", ["pyth", "safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 0.5, -1])
def test_weights_that_are_cut(
    videos: Path, tmp_path: Path, ending: str, kept: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing, a byte, a half, all but a byte."""
    path = tmp_path / f"cut.{ending}"
    (save_file if ending == "safetensors" else torch.save)(x3d(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if kept == 0.5 else int(kept)])
    assert refused_weights(videos, tmp_path, path, monkeypatch).startswith("not a file of weights (")


# ----------------------------------------------------------------------------------------- a decord that lies

Times = NDArray[np.float32]


def _with(times: Times, at: int | slice, value: float) -> Times:
    times = times.copy()
    times[at] = value
    return times


LIES: dict[str, Callable[[Times], Times]] = {
    "nothing but NaN": lambda times: _with(times, slice(None), np.nan),
    "NaN first": lambda times: _with(times, 0, np.nan),
    "NaN last": lambda times: _with(times, -1, np.nan),
    "nothing but -3.7e17": lambda times: _with(times, slice(None), -3.7e17),
    "-3.7e17 first": lambda times: _with(times, 0, -3.7e17),
    "-3.7e17 in the middle": lambda times: _with(times, 30, -3.7e17),
    "infinity first": lambda times: _with(times, 0, np.inf),
    "infinity in the middle": lambda times: _with(times, 30, np.inf),
    "two exchanged": lambda times: times[[*range(29), 30, 29, *range(31, len(times))]],
    "backwards": lambda times: times[::-1],
    "standing still": lambda times: _with(times, slice(50, None), float(times[50])),
    "at another rate": lambda times: times * np.float32(1.01),
    "too few": lambda times: times[:-1],
    "none": lambda times: times[:0],
}


class LyingReader:
    """decord's reader, but for what it says of when its frames are shown."""

    real: Callable[..., Any]
    lie: Callable[[Times], Times]
    asked = 0
    frames = 0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._reader = type(self).real(*arguments, **named)

    def __len__(self) -> int:
        return len(self._reader)

    def get_frame_timestamp(self, numbers: NDArray[np.int64]) -> Times:
        type(self).asked += 1
        times: Times = self._reader.get_frame_timestamp(numbers)
        return np.stack([type(self).lie(column) for column in times.T], axis=1)

    def get_batch(self, numbers: NDArray[np.int64]) -> Any:
        type(self).frames += len(numbers)
        return self._reader.get_batch(numbers)


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> type[LyingReader]:
    """Decoded in this process, by a decord that lies."""
    import decord  # after torch: they crash the other way round

    def here(jobs: Iterable[DecodeJob], **_: object) -> Iterator[Message]:
        for job in jobs:
            yield from decode(job)

    class Reader(LyingReader):
        real = staticmethod(decord.VideoReader)

    monkeypatch.setattr(pipeline, "decode_all", here)
    monkeypatch.setattr(decord, "VideoReader", Reader)
    return Reader


QUICK = ("nothing but NaN", "-3.7e17 first", "two exchanged")


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lie, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, lie in LIES.items()
    ],
)
def test_rows_are_right_though_decord_lies(
    tmp_path: Path, lie: Callable[[Times], Times], lying: type[LyingReader], recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, numbered_frames(80), fps=25, options=B_FRAMES)
    lying.lie = staticmethod(lie)
    ran = extract(path, tmp_path / "cache", "--decoder", "decord")
    assert (ran.code, ran.lines, len(recwarn)) == (0, [], 0)
    assert (lying.asked, lying.frames) == (1, 0)  # it was asked, and not trusted with a frame
    record = FeatureCache(tmp_path / "cache")[NAME]["a"]
    assert_rows(record, path, [0, 25, 50, 75])
    assert record.spans.tolist() == [[k, k] for k in range(4)]
    assert record.duration_s == pytest.approx(3.2)
    assert numbers_of(path) == ("pyav", [0, 25, 50, 75])


@pytest.mark.slow
def test_decord_is_trusted_while_it_tells_the_truth(tmp_path: Path, lying: type[LyingReader]) -> None:
    """And where it counts from another instant than the first frame: nothing depends on that."""
    path = tmp_path / "a.mp4"
    write_video(path, numbered_frames(80), fps=25, options=B_FRAMES)
    for name, lie in (("true", lambda times: times), ("late", lambda times: times + np.float32(7.5))):
        lying.lie = staticmethod(lie)
        lying.frames = 0
        assert extract(path, tmp_path / name, "--decoder", "decord").code == 0
        assert lying.frames == 4
        assert_rows(FeatureCache(tmp_path / name)[NAME]["a"], path, [0, 25, 50, 75])


LONG = "x" * 300


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (feature_cache, ("info", LONG)),
        (feature_cache, ("import", LONG, "--stream", "a", "--into", "CACHE")),
        (
            feature_cache,
            ("export", "CACHE", "--stream", "fine_224", "--format", "hf", "--out", f"{LONG}/out"),
        ),
        (batch_extract, ("VIDEOS", "--cache", LONG, "--stream", STREAM, "--weights", "random:0")),
        (train_policy, ("uniform", "--cache", LONG, "--labels", "LABELS", "--fine", "f", "--out", "OUT")),
        (
            train_policy,
            ("uniform", "--cache", "CACHE", "--labels", "LABELS", "--fine", "fine_224", "--out", LONG),
        ),
    ],
)
def test_a_path_that_is_too_long(
    command: Command, words: tuple[str, ...], videos: Path, tmp_path: Path
) -> None:
    cache, labels = write_planted(tmp_path / "CACHE", train=4, test=2, classes=2, dim=4)
    write_planted_labels(labels, tmp_path / "labels.csv")
    places = {
        "CACHE": cache.folder,
        "LABELS": tmp_path / "labels.csv",
        "VIDEOS": videos,
        "OUT": tmp_path / "OUT",
    }
    given = [str(tmp_path / word) if LONG in word else str(places.get(word, word)) for word in words]
    result = CliRunner().invoke(command, given)
    assert result.exit_code == 2, result.output
    assert re.fullmatch(rf"Error: .*{LONG}.*: File name too long", result.stderr.splitlines()[-1])
    assert {path.name for path in tmp_path.iterdir()} == {"CACHE", "labels.csv", "videos"}
