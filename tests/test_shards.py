"""Shards and caches: what was written is what is read, and damage is told, never served."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema import (
    CacheError,
    FeatureCache,
    MissingVideoError,
    Shard,
    StreamSpec,
    VideoRecord,
    write_shard,
)
from cache_schema.cli import feature_cache
from cache_schema.files import remove_stale_temporaries
from cache_schema.index import open_table, write_index
from cache_schema.schema import numbers_of, ranges, to_float16
from cache_schema.shard import prepare_folder
from tests.caches import make_partial, make_record, make_spec, write_stream

TOOLS = {"thriftvid": "test"}


def same(a: VideoRecord, b: VideoRecord) -> bool:
    arrays = all(
        np.array_equal(x, y) if x is not None and y is not None else x is y
        for x, y in ((a.features, b.features), (a.scores, b.scores), (a.spans, b.spans))
    )
    rest = [field.name for field in fields(a) if field.name not in ("features", "scores", "spans")]
    # As text: of a video whose rate is unknown it is NaN, which is not itself.
    return arrays and all(str(getattr(a, name)) == str(getattr(b, name)) for name in rest)


ids = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=40)
@given(
    videos=st.dictionaries(ids, st.integers(0, 5), min_size=1, max_size=6),
    classes=st.integers(0, 3),
)
def test_what_was_written_is_read(
    videos: dict[str, int], classes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = make_spec(classes=classes)
    records = [
        make_record(v, rows, classes=classes)
        if rows
        else VideoRecord.failed(spec, v, "no video stream", source="x", fingerprint="y")
        for v, rows in videos.items()
    ]
    path = write_shard(tmp_path_factory.mktemp("cache") / spec.name, spec, records, tools=TOOLS)
    shard = Shard(path)
    assert shard.spec == spec and shard.tools == TOOLS
    assert all(same(read, written) for read, written in zip(shard.records(), records, strict=True))


@settings(max_examples=20)
@given(
    lost=st.sets(st.integers(0, 11), max_size=11),
    remarks=st.lists(
        st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), min_size=1)
    ),
    decoder=st.sampled_from(["", "decord", "pyav"]),
)
def test_what_is_said_of_a_decoding_is_read(
    lost: set[int], remarks: list[str], decoder: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = make_spec(classes=2)
    partial = make_partial("a", 12, sorted(lost), classes=2)
    records = [replace(partial, remarks=tuple(remarks), decoder=decoder), make_record("b", 1, classes=2)]
    cache = tmp_path_factory.mktemp("cache")
    path = write_shard(cache / spec.name, spec, records, tools=TOOLS)
    assert all(same(read, written) for read, written in zip(Shard(path).records(), records, strict=True))
    stream = FeatureCache(cache)[spec.name]
    assert stream["a"].numbers.tolist() == sorted(set(range(12)) - lost)
    assert stream.partial == {"a": "damaged at 3 s"} and not stream.failures and len(stream) == 2
    assert stream.remarks() == ({"a": tuple(remarks)} if remarks else {})
    assert sum(stream.decoders().values()) == 2 and stream.decoders()[decoder] == (1 if decoder else 2)


@given(numbers=st.sets(st.integers(0, 60)))
def test_numbers_as_ranges(numbers: set[int]) -> None:
    text = ranges(sorted(numbers))
    assert numbers_of(text) == tuple(sorted(numbers))
    assert len(text.split()) == sum(number - 1 not in numbers for number in numbers)


@pytest.mark.parametrize("text", ["3-1", "5 4", "1 1", "1-", "x", "-1", "1 2"])
def test_what_are_no_ranges(text: str) -> None:
    with pytest.raises(ValueError):
        numbers_of(text)


def test_layout_is_schema_2(tmp_path: Path) -> None:
    """Read the file with h5py alone, as another program would from the documentation."""
    spec = make_spec(classes=3)
    path = write_shard(
        tmp_path / spec.name,
        spec,
        [
            make_record("a", 2, classes=3),
            replace(make_partial("b", 5, [0, 3], classes=3), decoder="pyav", remarks=("odd", "very odd")),
        ],
        tools=TOOLS,
    )
    assert path.parent.name == "tiny_8" and path.name.startswith("shard-") and path.suffix == ".h5"
    with h5py.File(path) as file:
        assert (file["features"].shape, file["features"].dtype) == ((5, 8), np.float16)
        assert (file["scores"].shape, file["scores"].dtype) == ((5, 3), np.float16)
        assert (file["spans"].shape, file["spans"].dtype) == ((5, 2), np.float64)
        for dataset in ("features", "scores", "spans"):
            assert file[dataset].chunks is None and file[dataset].compression is None
        assert file["videos/offsets"][()].tolist() == [0, 2, 5]
        assert file["videos/id"][()].tolist() == [b"a", b"b"]
        assert file["videos/status"][()].tolist() == [b"ok", b"partial"]
        assert file["videos/error"][()].tolist() == [b"", b"damaged at 3 s"]
        assert file["videos/lost"][()].tolist() == [b"", b"0 3"]
        assert file["videos/decoder"][()].tolist() == [b"", b"pyav"]
        assert file["videos/remarks"][()].tolist() == [b"", b"odd\nvery odd"]
        assert file.attrs["schema_version"] == 2
        assert StreamSpec.from_json(bytes(file.attrs["spec"]).decode()) == spec


def test_rows_are_views_of_the_file(tmp_path: Path) -> None:
    spec = make_spec()
    write_stream(tmp_path, spec, {"a": 4})
    features = FeatureCache(tmp_path)[spec.name]["a"].features
    assert not features.flags.owndata and not features.flags.writeable
    base = features
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)


@pytest.mark.slow
def test_more_shards_than_file_descriptors(tmp_path: Path) -> None:
    spec = make_spec(classes=2)
    write_stream(tmp_path, spec, {f"v{i:03d}": 2 for i in range(120)}, shard_size=1)
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
        "from cache_schema import FeatureCache\n"
        "stream = FeatureCache(sys.argv[1])[sys.argv[2]]\n"
        "print(sum(float(stream[v].features.sum()) != 0 for v in stream))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path, spec.name], capture_output=True, text=True, check=False
    )
    assert done.stdout == "120\n", done.stderr


def test_trouble_of_the_machine_is_not_called_damage(tmp_path: Path) -> None:
    [path] = write_stream(tmp_path, make_spec(), {"a": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(CacheError, match="cannot be read: Too many open files"):
            Shard(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Opens a shard in each way that h5py knows, and meanwhile as the cache does.
OPEN_ELSEWHERE = """
import sys, h5py
from pathlib import Path
from cache_schema import FeatureCache, Shard
[path] = Path(sys.argv[1]).glob("tiny_8/*.h5")
semi = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
semi.set_fclose_degree(h5py.h5f.CLOSE_SEMI)
ways = [
    *(lambda mode=mode: h5py.File(path, mode) for mode in ("r", "r+", "a")),
    *(lambda how=how: h5py.File(path, "r", locking=how) for how in (True, False, "best-effort")),
    *(lambda how=how: h5py.File(path, "r", driver=how) for how in ("core", "stdio")),
    lambda: h5py.File(path, "r", libver="latest"),
    lambda: h5py.File(path, "r", libver="latest", swmr=True),
    lambda: h5py.h5f.open(bytes(path), h5py.h5f.ACC_RDONLY, semi),
]
for way in ways:
    file = way()
    assert len(FeatureCache(sys.argv[1])["tiny_8"]["a"].features) == 4
    assert Shard(path).ids == ("a",)
    file.close()
print(len(ways))
"""


@pytest.mark.parametrize("locking", [None, "TRUE", "FALSE"])
def test_a_shard_that_this_process_has_open_elsewhere_is_read(locking: str | None, tmp_path: Path) -> None:
    """In a process of its own: HDF5 looks at the variable once."""
    write_stream(tmp_path, make_spec(), {"a": 4})
    environment = {name: value for name, value in os.environ.items() if name != "HDF5_USE_FILE_LOCKING"}
    done = subprocess.run(
        [sys.executable, "-c", OPEN_ELSEWHERE, tmp_path],
        env=environment if locking is None else {**environment, "HDF5_USE_FILE_LOCKING": locking},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "11\n", done.stderr


def test_a_shard_that_a_writing_program_died_with_is_read(tmp_path: Path) -> None:
    """HDF5 marks a file that is open for writing, and the mark stays; whether anything changed, checksums tell."""
    [path] = write_stream(tmp_path, make_spec(), {"a": 4})
    program = "import h5py, os, sys; file = h5py.File(sys.argv[1], 'r+'); os._exit(0)"
    subprocess.run([sys.executable, "-c", program, path], check=True)
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(path)
    assert len(FeatureCache(tmp_path)["tiny_8"]["a"].features) == 4


def test_commands_on_a_cache_whose_shards_are_open_elsewhere(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    paths = write_stream(cache, make_spec(), {"a": 4, "b": 1}, shard_size=1)
    assert run("verify", cache, "--repair-index")[0] == 0
    with contextlib.ExitStack() as stack:
        for path in (*paths, cache / "tiny_8" / "index.h5"):
            stack.enter_context(h5py.File(path))
        assert run("info", cache)[0] == run("verify", cache)[0] == 0
        assert run("merge", cache, "--into", tmp_path / "merged")[0] == 0
        assert run("export", cache, "--stream", "tiny_8", "--out", tmp_path / "files")[0] == 0
        assert run("drop", cache, "--stream", "tiny_8", "--video", "a")[0] == 0
        assert run("verify", cache, "--repair-index")[:2] == (
            0,
            "1 shard, 1 video in 1 stream, 1 row: all good\n",
        )


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (lambda: OSError(errno.ETIMEDOUT, "x"), "Connection timed out"),
        (MemoryError, "not enough memory"),
    ],
)
def test_trouble_while_a_shard_is_read_is_not_called_damage(
    trouble: Callable[[], Exception], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [path] = write_stream(tmp_path, make_spec(), {"a": 1})

    class Failing(io.FileIO):
        def readinto(self, buffer: object) -> int:
            raise trouble()

    monkeypatch.setattr(Path, "open", lambda path, mode: Failing(path))
    with pytest.raises(CacheError, match=rf"shard-.*h5: cannot be read: {told}$"):
        Shard(path)


def test_cache_is_a_mapping(tmp_path: Path) -> None:
    spec = make_spec(classes=2)
    videos = {f"v{i}": i + 1 for i in range(9)}
    write_stream(tmp_path, spec, videos)
    write_stream(tmp_path, make_spec("other_8"), {"v0": 1})
    cache = FeatureCache(tmp_path)
    assert cache.streams == ("other_8", "tiny_8") and "tiny_8" in cache and "none" not in cache
    stream = cache["tiny_8"]
    assert {v: stream.rows(v) for v in stream} == videos
    assert all(len(stream[v].features) == rows for v, rows in videos.items())
    with pytest.raises(CacheError, match=r"no stream 'resnet101_224'.*other_8, tiny_8"):
        cache["resnet101_224"]
    with pytest.raises(MissingVideoError, match="video 'v99' is not in stream 'tiny_8'"):
        stream["v99"]
    with pytest.raises(CacheError, match="no such cache folder"):
        FeatureCache(tmp_path / "nowhere")


def test_a_shard_of_schema_1_is_read_beside_new_ones(tmp_path: Path) -> None:
    """The file was written by the last version of this program that wrote schema 1."""
    spec = make_spec(dim=2, classes=2)
    (tmp_path / spec.name).mkdir()
    shutil.copy(Path(__file__).with_name("shard-of-schema-1.h5"), tmp_path / spec.name)
    write_shard(tmp_path / spec.name, spec, [make_partial("d", 4, [1], dim=2, classes=2)], tools=TOOLS)
    assert run("verify", tmp_path, "--repair-index")[0] == 0
    stream = FeatureCache(tmp_path)[spec.name]
    assert stream.spec == spec and list(stream) == ["a", "b", "d"] and list(stream.partial) == ["d"]
    assert same(stream["a"], make_record("a", 3, dim=2, classes=2)) and stream.decoders() == {"": 3}
    assert stream.failures == {"c": "no video stream"} and not stream.remarks()
    assert run("merge", tmp_path, "--into", tmp_path / "merged")[0] == 0
    assert FeatureCache(tmp_path / "merged")[spec.name].digest() == stream.digest()


def test_of_a_videos_entries_the_best_counts(tmp_path: Path) -> None:
    spec = make_spec()
    entries = [
        VideoRecord.failed(spec, "a", "no video stream", source="", fingerprint="p"),
        make_partial("a", 6, [0, 1, 2], seed=1),
        make_partial("a", 6, [4], seed=2),
        make_record("a", 2, seed=3),
    ]
    for count, indexed in itertools.product(range(1, 5), (False, True)):
        cache = tmp_path / f"{count} {indexed}"
        for entry in entries[:count]:
            write_shard(cache / spec.name, spec, [entry], tools=TOOLS)
            opened = open_table(cache / spec.name)
            if indexed and opened is not None:  # so that the next is sorted into it
                write_index(cache / spec.name, opened.table)
        stream = FeatureCache(cache)[spec.name]
        assert list(stream.failures) == (["a"] if count == 1 else [])
        assert list(stream.partial) == (["a"] if count in (2, 3) else [])
        assert count == 1 or same(stream["a"], entries[count - 1])
        assert run("verify", cache)[0] == 0


def test_readable_entry_goes_before_failed_one(tmp_path: Path) -> None:
    spec = make_spec()
    failed = VideoRecord.failed(spec, "a", "deadline of 5 s passed", source="a.mp4", fingerprint="p")
    write_shard(tmp_path / spec.name, spec, [failed], tools=TOOLS)
    with pytest.raises(MissingVideoError, match=r"'a' could not be read.*deadline"):
        FeatureCache(tmp_path)[spec.name]["a"]
    assert FeatureCache(tmp_path)[spec.name].failures == {"a": "deadline of 5 s passed"}
    write_stream(tmp_path, spec, {"a": 3})
    stream = FeatureCache(tmp_path)[spec.name]
    assert len(stream["a"].features) == 3 and not stream.failures


def test_digest_depends_on_content_not_on_shards(tmp_path: Path) -> None:
    spec = make_spec()
    videos = {f"v{i}": 2 for i in range(6)}
    for name, size in (("by2", 2), ("by3", 3)):
        write_stream(tmp_path / name, spec, videos, shard_size=size)
    write_stream(tmp_path / "changed", spec, videos, seed=1)
    by2, by3, changed = (FeatureCache(tmp_path / n)[spec.name].digest() for n in ("by2", "by3", "changed"))
    assert by2 == by3 != changed


def test_shards_that_disagree_are_refused(tmp_path: Path) -> None:
    write_stream(tmp_path, make_spec(), {"a": 1})
    write_stream(tmp_path, make_spec(weights="random:1"), {"b": 1})
    with pytest.raises(CacheError, match=r"shard-.*another stream specification"):
        FeatureCache(tmp_path)["tiny_8"]


def test_records_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    spec = make_spec()
    good = make_record("a", 2)
    for bad in (
        [good, good],
        [make_record("a", 2, dim=7)],
        [make_record("a", 2, classes=1)],
        [make_record("a", 0)],
        [replace(good, error="failed, yet has rows")],
        [replace(make_partial("a", 3, [1]), damage=None)],
        [replace(make_partial("a", 3, [1]), damage="")],
        [replace(make_partial("a", 3, [1]), lost=(3,))],
        [replace(make_partial("a", 4, [1, 2]), lost=(2, 1))],
        [replace(good, remarks=("two\nlines",))],
        [replace(good, remarks=("",))],
        [],
    ):
        with pytest.raises(ValueError):
            write_shard(tmp_path / spec.name, spec, bad, tools=TOOLS)
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize(("value", "message"), [(65600.0, "65504"), (np.inf, "finite"), (np.nan, "finite")])
def test_float16_is_checked_before_casting(value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_float16(np.array([1.0, -value]), "features")
    assert to_float16(np.array([65504.0]), "features")[0] == 65504


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CacheError, match="No space left"):
        write_stream(tmp_path, make_spec(), {"a": 1})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# Begins to write a file, says so, and ends without a word when its standard input does.
WRITER = """
import os, pathlib, sys
from cache_schema.files import replacing
with replacing(pathlib.Path(sys.argv[1])) as temporary:
    temporary.touch()
    print(flush=True)
    sys.stdin.read()
    os._exit(1)
"""


def test_only_dead_writers_are_cleaned_up_after(tmp_path: Path) -> None:
    begin = [sys.executable, "-c", WRITER]
    with subprocess.Popen(
        [*begin, tmp_path / "alive.h5"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"\n"
        subprocess.run([*begin, tmp_path / "dead.h5"], stdin=subprocess.DEVNULL, check=False)
        elsewhere, forgotten = (tmp_path / f".{name}.h5.1.another-1.tmp" for name in ("new", "old"))
        elsewhere.touch()
        forgotten.touch()
        os.utime(forgotten, (0, 0))
        assert len(list(tmp_path.iterdir())) == 4
        remove_stale_temporaries(tmp_path)
        left = {path.name.split(".")[1] for path in tmp_path.iterdir()}
        writer.communicate(b"")
    assert left == {"alive", "new"}


def refuse_or_same(path: Path, expected: list[VideoRecord]) -> bool:
    """Whether reading the shard is refused; if it is not, it must give what was written."""
    try:
        records = list(Shard(path).records())
    except CacheError as error:
        assert path.name in str(error) and "\n" not in str(error)
        return True
    assert all(same(a, b) for a, b in zip(records, expected, strict=True))
    return False


def test_cut_shards_are_refused(tmp_path: Path) -> None:
    spec = make_spec(classes=2)
    [path] = write_stream(tmp_path, spec, {"a": 40, "b": 3})
    whole = path.read_bytes()
    for length in [0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert refuse_or_same(path, [])


@pytest.mark.slow
def test_flipped_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    spec = make_spec(classes=2)
    [path] = write_stream(tmp_path, spec, {"a": 12, "b": 3})
    whole = path.read_bytes()
    expected = list(Shard(path).records())
    copy = tmp_path / path.name
    refused = 0
    step = 3
    for position in range(0, len(whole), step):
        copy.write_bytes(whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :])
        refused += refuse_or_same(copy, expected)
    rows = sum(
        r.features.nbytes + r.spans.nbytes + (r.scores.nbytes if r.scores is not None else 0)
        for r in expected
    )
    assert refused * step >= rows  # every flip in the rows at least


def test_other_schema_version_is_refused(tmp_path: Path) -> None:
    [path] = write_stream(tmp_path, make_spec(), {"a": 1})
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 3
    with pytest.raises(CacheError, match=r"shard-.*schema 3, but this program reads schema 1 to 2"):
        FeatureCache(tmp_path)["tiny_8"]


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(feature_cache, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_info(tmp_path: Path) -> None:
    spec = make_spec(classes=2)
    write_stream(tmp_path, spec, {"a": 4, "b": 2})
    failed = VideoRecord.failed(spec, "c", "empty file", source="c.mp4", fingerprint="p")
    write_shard(tmp_path / spec.name, spec, [failed], tools=TOOLS)
    code, out, _ = run("info", tmp_path, "--json")
    described = json.loads(out)["tiny_8"]
    assert code == 0
    assert (described["videos"], described["rows"], described["failures"]) == (2, 6, {"empty file": 1})
    code, out, _ = run("info", tmp_path)
    assert code == 0 and "tiny_8" in out and "1 × empty file" in out
    assert max(map(len, out.splitlines()[1:])) <= 80


def test_info_of_what_is_no_cache(tmp_path: Path) -> None:
    assert run("info", tmp_path) == (0, f"{tmp_path}: an empty cache\n", "")
    (tmp_path / "holiday.mp4").touch()
    code, out, err = run("info", tmp_path, "--json")
    assert (code, out, err.count("\n")) == (2, "", 1) and "no feature cache" in err and "'holiday.mp4'" in err


def test_verify(tmp_path: Path) -> None:
    spec = make_spec()
    paths = write_stream(tmp_path, spec, {f"v{i}": 2 for i in range(6)}, shard_size=2)
    code, out, _ = run("verify", tmp_path)
    assert code == 0 and out == "3 shards, 6 videos in 1 stream, 12 rows: all good\n"
    # A video counts once, in however many streams and shards it is, and not where it failed.
    other = tmp_path / "other_8"
    write_stream(tmp_path, make_spec("other_8"), {"v0": 2, "v6": 1})
    write_shard(
        other,
        make_spec("other_8"),
        [VideoRecord.failed(spec, "c", "cut", source="c", fingerprint="p")],
        tools=TOOLS,
    )
    out = run("verify", tmp_path)[1]
    assert out == "5 shards, 7 videos in 2 streams, 15 rows: all good\n"
    shutil.rmtree(other)
    paths[0].write_bytes(paths[0].read_bytes()[:-100])
    shutil.copy(paths[1], paths[1].with_name("shard-twice.h5"))
    code, out, err = run("verify", tmp_path)
    assert code == 1 and paths[0].name in err and "is also in" in err
    assert json.loads(run("verify", tmp_path, "--json")[1])["problems"]


def test_verify_finds_rows_that_were_wrong_from_the_start(tmp_path: Path) -> None:
    spec = make_spec()
    record = make_record("a", 3)
    bad = replace(record, spans=record.spans[::-1].copy())
    other = replace(make_partial("b", 3, [1]), lost=(0,))
    write_shard(tmp_path / spec.name, spec, [bad, other], tools=TOOLS)
    code, _, err = run("verify", tmp_path)
    assert code == 1 and "video 'a': spans are not finite and in order" in err
    assert "video 'b': the rows that it lacks are not those that its spans leave out" in err


@pytest.mark.parametrize("command", ["info", "verify"])
def test_a_missing_cache_is_one_line(command: str, tmp_path: Path) -> None:
    code, out, err = run(command, tmp_path / "none")
    assert (
        code == 2
        and out == ""
        and err == f"Error: {tmp_path}/none: no such cache folder; make one with batch-extract\n"
    )


def test_verify_refuses_what_is_no_cache(tmp_path: Path) -> None:
    assert run("verify", tmp_path)[0] == 2
    write_stream(tmp_path, make_spec(), {"a": 1})
    code, out, err = run("verify", tmp_path / "tiny_8")
    assert code == 2 and out == "" and "give its parent" in err


def test_costs_of_the_streams_of_a_cache(tmp_path: Path) -> None:
    write_stream(tmp_path, make_spec("of_my_own_network", macs_per_row=2_500_000_000), {"a": 1, "b": 4})
    write_stream(tmp_path, make_spec("mobilenetv2_112", macs_per_row=1), {"a": 2})
    code, out, _ = run("costs", "--cache", tmp_path)
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()[2:]}
    assert [*lines] == ["stream", "mobilenetv2_112", "of_my_own_network"]
    assert lines["of_my_own_network"].split()[1:4] == ["2.500", "5.000", "–"]
    assert lines["of_my_own_network"].endswith("; 2.5 rows a video, 6.25 GFLOPs")
    assert lines["mobilenetv2_112"].split()[1:4] == ["0.081", "0.162", "0.08"]  # the table's, not the cache's
    records = json.loads(run("costs", "--cache", tmp_path, "--json")[1])
    assert [(one["stream"], one["rows_a_video"]) for one in records] == [
        ("mobilenetv2_112", 2.0),
        ("of_my_own_network", 2.5),
    ]
    assert "no such cache folder" in run("costs", "--cache", tmp_path / "none")[2]
    (tmp_path / "empty").mkdir()
    assert "no streams here" in run("costs", "--cache", tmp_path / "empty")[2]


def test_costs_stand_beside_the_papers() -> None:
    code, out, _ = run("costs")
    assert code == 0
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert lines["mobilenetv2_112"][1:4] == ["0.081", "0.162", "0.08"]
    assert lines["i3d_rgb_dense16"][1:4] == ["27.788", "55.575", "56.00"]
    assert len(json.loads(run("costs", "--json")[1])) == len(lines) - 2  # a title and the column names


def test_several_begin_in_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    """As workers on several machines do: none takes from another what that has just found or made."""
    workers = 4
    for number in range(40):
        folder, together = tmp_path / str(number) / "stream", threading.Barrier(workers)

        def begin(worker: int, folder: Path = folder, together: threading.Barrier = together) -> Path:
            together.wait()
            prepare_folder(folder)
            return write_shard(folder, make_spec(), [make_record(f"v{worker}", 2)], tools={})

        with ThreadPoolExecutor(workers) as pool:
            written = set(pool.map(begin, range(workers)))
        assert set(folder.glob("*.h5")) == written and len(written) == workers


def test_looking_whether_a_folder_can_be_written_to_leaves_no_trace(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "a" / "b")
    assert not [*tmp_path.iterdir()]
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="file/stream: cannot write to the cache: Not a directory"):
        prepare_folder(tmp_path / "file" / "stream")
