"""The index of a stream: it spares the headers, and is never believed over the shards."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema import CacheError, FeatureCache, Shard, Stream, VideoRecord, write_shard
from cache_schema import index as indexing
from cache_schema.command import group_reasons, size
from cache_schema.index import INDEX_NAME, open_table, read_index, write_index
from cache_schema.schema import Sampling
from cache_schema.tools.describe import sampling_in_words
from tests.cache_commands import files_of, run
from tests.caches import make_partial, make_record, make_spec, write_stream

SPEC = make_spec(classes=2)
FOLDER, INDEX = SPEC.name, f"{SPEC.name}/{INDEX_NAME}"
TOOLS = {"thriftvid": "test"}


def said(stream: Stream) -> dict[str, object]:
    """All that a stream answers without its rows."""
    return {
        "spec": stream.spec,
        "failures": stream.failures,
        "partial": stream.partial,
        "remarks": stream.remarks(),
        "decoders": stream.decoders(),
        "videos": {v: (stream.rows(v), stream.fingerprint(v), stream.source(v)) for v in stream},
        "known": [stream.failure(v, "p") for v in stream.failures],
        "digest": stream.digest(),
        "shards": [(s.path.name, len(s), s.tools, s.digest) for s in stream.shards],
        "rows": stream.total_rows(),
        "lookups": ["nothing" in stream, "" in stream, *(v in stream for v in stream.failures)],
    }


def from_headers(cache: Path) -> dict[str, object]:
    (cache / INDEX).unlink(missing_ok=True)
    return said(FeatureCache(cache)[SPEC.name])


def headers_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards whose header is read from now on."""
    names: list[str] = []
    reads: Callable[[Shard, h5py.File], None] = Shard._read_header

    def counted(self: Shard, file: h5py.File) -> None:
        names.append(self.path.name)
        reads(self, file)

    monkeypatch.setattr(Shard, "_read_header", counted)
    return names


ids = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6)


@pytest.mark.slow
@settings(max_examples=25)
@given(data=st.data())
def test_says_what_the_headers_say_whatever_happened_since(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    names = data.draw(st.lists(ids, min_size=1, max_size=12, unique=True))

    def add(count: int) -> None:
        for _ in range(count):
            some = sorted(data.draw(st.sets(st.sampled_from(names), min_size=1, max_size=4)))
            rows = [data.draw(st.integers(0, 5)) for _ in some]
            records = [
                (
                    make_record(v, r, classes=2)
                    if r < 3
                    else replace(make_partial(v, r, [1], classes=2), decoder="pyav", remarks=("odd",) * r)
                )
                if r
                else VideoRecord.failed(SPEC, v, f"reason {len(v)}", source="x", fingerprint="p")
                for v, r in zip(some, rows, strict=True)
            ]
            write_shard(cache / FOLDER, SPEC, records, tools={"run": str(data.draw(st.integers(0, 1)))})

    add(data.draw(st.integers(1, 6)))
    opened = open_table(cache / FOLDER)
    assert opened is not None
    write_index(cache / FOLDER, opened.table)
    add(data.draw(st.integers(0, 3)))
    shards = sorted((cache / FOLDER).glob("shard-*.h5"))
    for path in data.draw(st.lists(st.sampled_from(shards), max_size=len(shards) - 1, unique=True)):
        if data.draw(st.booleans()):
            path.unlink()
        else:
            os.utime(path, ns=(0, data.draw(st.integers(0, 2**40))))
    with_index = said(FeatureCache(cache)[SPEC.name])
    assert with_index == from_headers(cache)


def test_many_shards_open_without_their_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "WRITE_ABOVE", 8)
    monkeypatch.setattr("cache_schema.cache._OPEN_SHARDS", 3)
    write_stream(tmp_path, SPEC, {f"v{i:02d}": 2 for i in range(16)}, shard_size=2)
    FeatureCache(tmp_path)[SPEC.name]
    assert not (tmp_path / INDEX).exists()
    write_stream(tmp_path, SPEC, {"w": 1})
    expected = from_headers(tmp_path)
    read = headers_read(monkeypatch)
    stream = FeatureCache(tmp_path)[SPEC.name]
    assert not read and len(stream) == 17 and stream.rows("v03") == 2
    assert len(stream["v03"].features) == 2 and len(stream["v02"].features) == 2 and len(read) == 1
    assert said(stream) == expected
    assert all(len(stream[v].features) for v in [*stream, *stream]) and len(stream._open) == 3
    read.clear()
    [new] = write_stream(tmp_path, SPEC, {"x": 1})
    assert "x" in FeatureCache(tmp_path)[SPEC.name] and read == [new.name]


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"empty file")] ^= 1
    path.write_bytes(content)


def damage_version(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        text = json.dumps({**json.loads(bytes(file.attrs["about"])), "version": 99}).encode()
        file.attrs["about"] = np.bytes_(text)
        file.attrs["about_crc"] = zlib.crc32(text)


def damage_other(path: Path) -> None:
    path.write_bytes(b"something else")


@pytest.mark.parametrize("damage", [damage_cut, damage_flip, damage_version, damage_other])
def test_a_damaged_index_is_ignored_told_and_repaired(damage: Callable[[Path], None], tmp_path: Path) -> None:
    write_stream(tmp_path, SPEC, {"a": 2, "b": 1}, shard_size=1)
    failed = VideoRecord.failed(SPEC, "c", "empty file", source="c.mp4", fingerprint="p")
    write_shard(tmp_path / FOLDER, SPEC, [failed], tools=TOOLS)
    expected = from_headers(tmp_path)
    assert run("verify", tmp_path, "--repair-index") == (
        0,
        "3 shards, 2 videos in 1 stream, 3 rows: all good\n",
        "",
    )
    good = (tmp_path / INDEX).read_bytes()
    damage(tmp_path / INDEX)
    assert said(FeatureCache(tmp_path)[SPEC.name]) == expected
    code, _, err = run("info", tmp_path)
    assert code == 0 and err.startswith("warning: ") and INDEX in err and "--repair-index" in err
    code, _, err = run("verify", tmp_path)
    assert code == 1 and err.startswith("warning: ") and err.count("\n") == 1
    assert run("verify", tmp_path, "--repair-index")[0] == 0
    assert run("verify", tmp_path)[0] == 0 and len((tmp_path / INDEX).read_bytes()) == len(good)


@pytest.mark.slow
def test_flipped_bytes_of_an_index_change_no_answer(tmp_path: Path) -> None:
    write_stream(tmp_path, SPEC, {"a": 2, "b": 1}, shard_size=1)
    expected = from_headers(tmp_path)
    assert run("verify", tmp_path, "--repair-index")[0] == 0
    whole = (tmp_path / INDEX).read_bytes()
    for position in range(0, len(whole), 97):
        flipped = bytes([whole[position] ^ 0x41])
        (tmp_path / INDEX).write_bytes(whole[:position] + flipped + whole[position + 1 :])
        assert said(FeatureCache(tmp_path)[SPEC.name]) == expected


def test_an_index_that_lies_is_found_out(tmp_path: Path) -> None:
    """Its own checksums are right, and so are its shards' sizes and times."""
    write_stream(tmp_path, SPEC, {"a": 2, "b": 1})
    opened = open_table(tmp_path / FOLDER)
    assert opened is not None
    table, rows = opened.table, opened.table.entries.rows
    write_index(tmp_path / FOLDER, replace(table, entries=replace(table.entries, rows=rows[::-1].copy())))
    code, _, err = run("verify", tmp_path)
    assert code == 1 and "index says something else of it: run `feature-cache verify --repair-index`" in err
    other = tuple(replace(shard, digest="0" * 64) for shard in table.shards)
    write_index(tmp_path / FOLDER, replace(table, shards=other))
    with pytest.raises(CacheError, match=r"shard-.*not what the stream's index says"):
        FeatureCache(tmp_path)[SPEC.name]["a"]
    assert run("verify", tmp_path, "--repair-index")[0] == 0 and run("verify", tmp_path)[0] == 0


def test_shards_that_changed_are_read_anew(tmp_path: Path) -> None:
    [path] = write_stream(tmp_path, SPEC, {"a": 40})
    assert run("verify", tmp_path, "--repair-index")[0] == 0
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CacheError, match=r"shard-.*damaged"):
        FeatureCache(tmp_path)[SPEC.name]
    code, _, err = run("verify", tmp_path, "--repair-index")
    assert code == 1 and "the index was not written" in err
    shutil.rmtree(tmp_path / FOLDER)
    (tmp_path / FOLDER).mkdir()
    write_stream(tmp_path, SPEC, {"b": 1})
    assert list(FeatureCache(tmp_path)[SPEC.name]) == ["b"]


def test_a_read_only_cache_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "WRITE_ABOVE", 0)
    write_stream(tmp_path, SPEC, {"a": 1, "b": 1}, shard_size=1)

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "fsync", read_only)
    before = files_of(tmp_path)
    assert list(FeatureCache(tmp_path)[SPEC.name]) == ["a", "b"] and files_of(tmp_path) == before
    code, _, err = run("verify", tmp_path, "--repair-index")
    assert code == 1 and "cannot write the index: Read-only file system" in err


def _open_often(cache: Path, errors: multiprocessing.Queue[str]) -> None:
    indexing.WRITE_ABOVE = -1  # each opening writes
    try:
        for _ in range(15):
            stream = FeatureCache(cache)[SPEC.name]
            assert stream.index_trouble is None and all(len(stream[f"v{i}"].features) == 2 for i in range(6))
    except Exception as error:
        errors.put(repr(error))


@pytest.mark.slow
def test_readers_and_index_writers_and_a_writer_of_shards_at_once(tmp_path: Path) -> None:
    write_stream(tmp_path, SPEC, {f"v{i}": 2 for i in range(6)}, shard_size=2)
    context = multiprocessing.get_context("fork")
    errors: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=_open_often, args=(tmp_path, errors)) for _ in range(3)]
    for process in processes:
        process.start()
    for i in range(10):
        write_stream(tmp_path, SPEC, {f"w{i}": 1})
    for process in processes:
        process.join(60)
    assert errors.empty(), errors.get()
    assert len(FeatureCache(tmp_path)[SPEC.name]) == 16 and read_index(tmp_path / FOLDER) is not None
    assert not list(tmp_path.rglob("*.tmp")) and run("verify", tmp_path)[0] == 0


def test_ids_with_the_same_crc(tmp_path: Path) -> None:
    one, other = "plumless", "buckeroo"  # a known pair
    assert zlib.crc32(one.encode()) == zlib.crc32(other.encode())
    write_stream(tmp_path, SPEC, {one: 1})
    assert other not in FeatureCache(tmp_path)[SPEC.name]
    write_stream(tmp_path, SPEC, {other: 2})
    stream = FeatureCache(tmp_path)[SPEC.name]
    assert (stream.rows(one), stream.rows(other)) == (1, 2)


def test_info_groups_reasons_and_says_what_a_stream_is(tmp_path: Path) -> None:
    reasons = {
        "a": "deadline of 5 s passed",
        "b": "deadline of 7.5 s passed",
        "c": "empty file",
        "d": "cut at 3",
    }
    assert group_reasons(reasons.items()) == {
        "deadline of … s passed": (2, "a"),
        "cut at 3": (1, "d"),
        "empty file": (1, "c"),
    }
    failed = [VideoRecord.failed(SPEC, k, v, source="x", fingerprint="p") for k, v in reasons.items()]
    good = make_record("v", 5, classes=2)
    paths = [
        write_shard(tmp_path / FOLDER, SPEC, [*failed, good], tools={"precision": "fp32", "torch": "2.6"}),
        write_shard(
            tmp_path / FOLDER, SPEC, [replace(good, id="w")], tools={"precision": "fp32", "torch": "2.7"}
        ),
    ]
    code, out, _ = run("info", tmp_path)
    assert code == 0 and max(map(len, out.splitlines()[1:])) <= 100
    for part in (
        "2 × deadline of … s passed, e.g. 'a'",
        "a frame every second",
        "random:0 (digest 000000000000)",
        "2 videos with 10 rows, 4 failed",
        "torch 2.6, 2.7",
        "in 2 shards",
    ):
        assert part in out
    told = json.loads(run("info", tmp_path, "--json")[1])[FOLDER]
    assert told["bytes"] == sum(path.stat().st_size for path in paths)
    assert told["failure_examples"]["empty file"] == "c" and told["mixed_tools"] == {"torch": ["2.6", "2.7"]}


def test_info_tells_what_decoded_what_is_odd_and_what_is_partial(tmp_path: Path) -> None:
    def video(name: str, decoder: str, *remarks: str, damage: str = "") -> VideoRecord:
        whole, part = make_record(name, 3, classes=2), make_partial(name, 3, [1], damage=damage, classes=2)
        return replace(part if damage else whole, decoder=decoder, remarks=remarks)

    records = [
        video("a", "pyav", "time jumps by 3 s", "packed bitstream"),
        video("b", "decord", "time jumps by 14.5 s", "time jumps by 2 s"),
        video("c", "pyav", damage="element 0x1ab ends at 3 s"),
        video("d", "pyav", damage="element 0x2f0 ends at 14 s"),
        video("e", "", "packed bitstream"),
    ]
    write_shard(tmp_path / FOLDER, SPEC, records, tools=TOOLS)
    assert run("verify", tmp_path, "--repair-index")[0] == 0
    code, out, _ = run("info", tmp_path)
    assert code == 0 and max(map(len, out.splitlines()[1:])) <= 80
    for line in (
        "videos     5 videos with 13 rows, 2 of them partial, 0 failed",
        "decoder    pyav 3, unknown 1, decord 1",
        "remark     2 × packed bitstream, e.g. 'a'",
        "remark     2 × time jumps by … s, e.g. 'a'",
        "partial    2 × element … ends at … s, e.g. 'c'",
    ):
        assert f"  {line}\n" in out, out
    told = json.loads(run("info", tmp_path, "--json")[1])[FOLDER]
    assert told["partial"] == 2 and told["damage"] == {"element … ends at … s": 2}
    assert told["damage_by_video"] == {"c": "element 0x1ab ends at 3 s", "d": "element 0x2f0 ends at 14 s"}
    assert told["decoders"] == {"pyav": 3, "decord": 1, "unknown": 1}
    assert told["remarks"] == {"packed bitstream": 2, "time jumps by … s": 2}
    assert told["remarks_by_video"]["b"] == ["time jumps by 14.5 s", "time jumps by 2 s"]


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (Sampling(fps=2.0), "2 frames a second"),
        (Sampling("snippets", 30.0, 8, 64, 1.0), "1 snippets a second, 8 frames of 64 at 30 a second"),
        (Sampling("clips", 30.0, 4, 48, clips=10, crops=3), "10 clips spread evenly, 4 frames"),
        (Sampling("dense", 25.0, 16, 16), "clips end to end, 16 frames of 16 at 25 a second"),
        (Sampling("dense", 30.0, 16, 16, stride=4), "clips every 4 frames, 16 frames of 16 at 30 a second"),
        (Sampling("dense", 0.0, 0, 16, stride=8), "clips of 16 frames every 8, at each video's own rate"),
        (Sampling("dense", 0.0, 0, 0), "clips end to end, at each video's own rate"),
    ],
)
def test_sampling_in_words(sampling: Sampling, words: str) -> None:
    assert sampling_in_words(sampling).startswith(words)


def test_sizes_for_people() -> None:
    assert [size(n) for n in (0, 1, 999, 1000, 999_960, 2_500_000_000)] == [
        *("0 bytes", "1 byte", "999 bytes", "1.0 kB", "1.0 MB", "2.5 GB"),
    ]
