"""feature-cache merge: the union, whatever the parts, and nothing but whole shards at any moment."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema import CacheError, FeatureCache, VideoRecord, write_shard
from cache_schema.tools.merge import merge
from tests.cache_commands import files_of, killed_at_random, run
from tests.caches import make_partial, make_record, make_spec, write_stream

SPEC = make_spec(classes=2)
TOOLS = {"thriftvid": "test"}


def failed(video_id: str, reason: str = "empty file", content: str = "p") -> VideoRecord:
    return VideoRecord.failed(SPEC, video_id, reason, source=f"{video_id}.mp4", fingerprint=content)


def digest(cache: Path) -> str:
    return FeatureCache(cache)[SPEC.name].digest()


@pytest.mark.slow
@settings(max_examples=10)
@given(data=st.data())
def test_any_parts_make_the_whole(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("merge")
    videos = {f"v{i}": i % 3 + 1 for i in range(data.draw(st.integers(1, 12)))}
    write_stream(folder / "whole", SPEC, videos, shard_size=data.draw(st.integers(1, 5)))
    parts = data.draw(st.lists(st.sets(st.sampled_from(sorted(videos)), min_size=1), min_size=1, max_size=4))
    parts.append(set(videos) - set().union(*parts))
    sources = []
    for number, part in enumerate(filter(None, parts)):
        sources.append(folder / f"part {number}")
        write_stream(
            sources[-1], SPEC, {v: videos[v] for v in sorted(part)}, shard_size=data.draw(st.integers(1, 5))
        )
        if data.draw(st.booleans()):  # what failed here and is there elsewhere counts as there
            write_shard(sources[-1] / SPEC.name, SPEC, [failed(v) for v in videos], tools=TOOLS)
    into = folder / "into"
    merge(sources, into, link=data.draw(st.booleans()))
    assert digest(into) == digest(folder / "whole")
    assert not FeatureCache(into)[SPEC.name].failures
    assert run("verify", into)[0] == 0  # no video is there twice
    before = files_of(into)
    again = merge(sources, into)
    assert files_of(into) == before and (again.videos, again.shards_whole, again.shards_in_part) == (0, 0, 0)


def test_whole_shards_are_taken_over_as_they_are(tmp_path: Path) -> None:
    [a, b] = write_stream(tmp_path / "one", SPEC, {f"a{i}": 2 for i in range(6)}, shard_size=3)
    write_stream(tmp_path / "two", SPEC, {"a0": 2, "b0": 3}, shard_size=2)
    write_stream(tmp_path / "two", make_spec("other_8"), {"c": 1})
    code, out, _ = run("merge", tmp_path / "one", tmp_path / "two", "--into", tmp_path / "all", "--json")
    told = json.loads(out)
    assert code == 0
    counts = {
        "videos": 8,
        "failed": 0,
        "streams": 2,
        "shards_whole": 3,
        "shards_in_part": 1,
        "shards_present": 0,
    }
    assert {k: told[k] for k in counts} == counts
    assert all((tmp_path / "all" / SPEC.name / p.name).read_bytes() == p.read_bytes() for p in (a, b))
    assert sorted(FeatureCache(tmp_path / "all")[SPEC.name]) == [*(f"a{i}" for i in range(6)), "b0"]
    assert (
        "0 videos and 0 failures added in 0 streams"
        in run("merge", tmp_path / "one", "--into", tmp_path / "all")[1]
    )


def test_links_share_the_file(tmp_path: Path) -> None:
    [path] = write_stream(tmp_path / "one", SPEC, {"a": 2})
    assert run("merge", tmp_path / "one", "--into", tmp_path / "all", "--link")[0] == 0
    assert (tmp_path / "all" / SPEC.name / path.name).samefile(path)


def test_failures_are_kept_where_nobody_has_rows(tmp_path: Path) -> None:
    for name, records in {
        "one": [failed("a"), failed("b", content="old"), make_record("c", 2, classes=2)],
        "two": [failed("a"), failed("b", content="new"), failed("c")],
    }.items():
        write_shard(tmp_path / name / SPEC.name, SPEC, records, tools=TOOLS)
    merge([tmp_path / "one", tmp_path / "two"], tmp_path / "all")
    stream = FeatureCache(tmp_path / "all")[SPEC.name]
    assert list(stream) == ["c"] and list(stream.failures) == ["a", "b"]
    assert stream.failure("b", "old") and stream.failure("b", "new") and not stream.failure("c", "p")
    assert sum(map(len, stream.shards)) == 4
    # Rows of a video that the target could not read are welcome.
    write_shard(tmp_path / "three" / SPEC.name, SPEC, [make_record("a", 1, classes=2)], tools=TOOLS)
    merge([tmp_path / "three"], tmp_path / "all")
    assert list(FeatureCache(tmp_path / "all")[SPEC.name]) == ["a", "c"]


def test_a_whole_video_goes_before_a_part_of_it(tmp_path: Path) -> None:
    """Also where the part is of another file: a damaged one and its good copy never are the same."""
    whole = make_record("a", 4, classes=2)
    part = replace(make_partial("a", 4, [2], classes=2), fingerprint="of the damaged file")
    alone = make_partial("b", 3, [0], classes=2)
    write_shard(tmp_path / "one" / SPEC.name, SPEC, [part, alone, failed("c")], tools=TOOLS)
    write_shard(tmp_path / "two" / SPEC.name, SPEC, [whole, failed("b")], tools=TOOLS)
    for order in (("one", "two"), ("two", "one")):
        into = tmp_path / "-".join(order)
        assert run("merge", *(tmp_path / name for name in order), "--into", into)[0] == 0
        stream = FeatureCache(into)[SPEC.name]
        assert stream["a"].damage is None and len(stream["a"].features) == 4
        assert list(stream.partial) == ["b"] and list(stream.failures) == ["c"]
        assert stream["b"].numbers.tolist() == [1, 2]
        before = files_of(into)
        assert run("merge", *(tmp_path / name for name in order), "--into", into)[0] == 0
        assert files_of(into) == before
    # The target has the part already.
    assert run("merge", tmp_path / "two", "--into", tmp_path / "one")[0] == 0
    assert FeatureCache(tmp_path / "one")[SPEC.name]["a"].damage is None
    assert run("verify", tmp_path / "one")[0] == 0
    # Parts of different files are of nobody knows which.
    other = replace(alone, fingerprint="other")
    write_shard(tmp_path / "three" / SPEC.name, SPEC, [other], tools=TOOLS)
    code, _, err = run("merge", tmp_path / "three", "--into", tmp_path / "one")
    assert code == 2 and "video 'b' in" in err


def test_the_same_id_from_another_file_is_refused(tmp_path: Path) -> None:
    write_stream(tmp_path / "one", SPEC, {"a": 2, "b": 2})
    other = [replace(make_record(v, 2, classes=2), fingerprint="other") for v in ("a", "b")]
    write_shard(tmp_path / "two" / SPEC.name, SPEC, [*other, make_record("c", 1, classes=2)], tools=TOOLS)
    write_stream(tmp_path / "two", make_spec("before_8"), {"z": 1})
    for into, sources in {"all": ("one", "two"), "one": ("two",)}.items():
        before = files_of(tmp_path)
        code, _, err = run("merge", *(tmp_path / s for s in sources), "--into", tmp_path / into)
        assert code == 2 and "video 'a'" in err and "video 'b'" in err and err.count("\n") == 1
        assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ({"weights_digest": "1" * 64}, "weights_digest 1111.* is not 0000"),
        ({"weights": "file"}, "weights file is not random:0"),
        ({"precision": "bf16"}, "precision bf16 is not fp32"),
    ],
)
def test_streams_made_otherwise_are_refused(difference: dict[str, Any], message: str, tmp_path: Path) -> None:
    for name, spec in {"one": SPEC, "two": make_spec(classes=2, **difference)}.items():
        write_shard(tmp_path / name / SPEC.name, spec, [make_record(name, 2, classes=2)], tools=TOOLS)
    before = files_of(tmp_path)
    with pytest.raises(CacheError, match=message):
        merge([tmp_path / "one", tmp_path / "two"], tmp_path / "all")
    assert files_of(tmp_path) == before


def test_requests_that_make_no_sense(tmp_path: Path) -> None:
    write_stream(tmp_path / "one", SPEC, {"a": 2})
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for sources, into, message in (
        ("one", "one", "both a source and the cache to merge into"),
        ("none", "all", "no such cache folder"),
        ("empty", "all", "nothing to merge"),
        ("one", "file", "cannot write to the cache"),
    ):
        code, _, err = run("merge", tmp_path / sources, "--into", tmp_path / into)
        assert code == 2 and message in err and err.count("\n") == 1, err


def test_damaged_rows_are_not_handed_on(tmp_path: Path) -> None:
    [path] = write_stream(tmp_path / "one", SPEC, {"a": 200})
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    code, _, err = run("merge", tmp_path / "one", "--into", tmp_path / "all")
    assert code == 2 and "do not match their checksum" in err
    assert not files_of(tmp_path / "all")


@pytest.mark.parametrize("function", ["fsync", "copyfile"])
def test_a_full_disk_leaves_nothing_half_written(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stream(tmp_path / "one", SPEC, {f"v{i}": 2 for i in range(4)}, shard_size=2)
    write_stream(tmp_path / "all", SPEC, {"v0": 2})
    before = files_of(tmp_path / "all")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if function == "fsync" else shutil, function, full)
    code, _, err = run("merge", tmp_path / "one", "--into", tmp_path / "all")
    assert code == 2 and "No space left" in err and err.count("\n") == 1
    present = files_of(tmp_path / "all")
    assert before.items() <= present.items() and not [n for n in present if n.endswith(".tmp")]
    monkeypatch.undo()
    assert run("merge", tmp_path / "one", "--into", tmp_path / "all")[0] == 0
    assert digest(tmp_path / "all") == digest(tmp_path / "one")


def test_a_target_that_takes_no_files_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stream(tmp_path / "one", SPEC, {"a": 2})

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    code, _, err = run("merge", tmp_path / "one", "--into", tmp_path / "all")
    assert code == 2 and "cannot write to the cache: Read-only file system" in err


@pytest.mark.slow
def test_killed_merges_end_with_the_same_cache(tmp_path: Path) -> None:
    videos = {f"v{i:03d}": 2 for i in range(120)}
    write_stream(tmp_path / "whole", SPEC, videos, shard_size=7)
    for name, some, size in (("one", slice(0, 80), 3), ("two", slice(40, 120), 4)):
        write_stream(tmp_path / name, SPEC, dict(list(videos.items())[some]), shard_size=size)
    into = tmp_path / "all"
    for _ in killed_at_random("merge", tmp_path / "one", tmp_path / "two", "--into", into, watched=into):
        if into.is_dir() and FeatureCache(into).streams:
            assert run("verify", into)[0] == 0
    assert run("merge", tmp_path / "one", tmp_path / "two", "--into", into)[0] == 0
    assert digest(into) == digest(tmp_path / "whole") and run("verify", into)[0] == 0
    assert not list(into.rglob("*.tmp"))
