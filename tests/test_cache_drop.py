"""feature-cache drop: what is to go goes, and at no moment anything else."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema import FeatureCache, MissingVideoError, VideoRecord, write_shard
from cache_schema.shard import _mapped
from cache_schema.tools.drop import drop, plan_drop
from cache_schema.tools.merge import merge
from tests.cache_commands import files_of, killed_at_random, run
from tests.caches import make_partial, make_record, make_spec, write_stream

SPEC = make_spec()
TOOLS = {"thriftvid": "test"}


def failed(video_id: str) -> VideoRecord:
    return VideoRecord.failed(SPEC, video_id, "empty file", source=f"{video_id}.mp4", fingerprint="p")


@pytest.mark.slow
@settings(max_examples=10)
@given(data=st.data())
def test_dropped_and_merged_again_is_the_original(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("drop")
    videos = {f"v{i}": i % 3 + 1 for i in range(data.draw(st.integers(1, 9)))}
    for name in ("original", "copy"):
        write_stream(folder / name, SPEC, videos, shard_size=3)
    gone = data.draw(st.sets(st.sampled_from(sorted(videos))))
    original = FeatureCache(folder / "original")[SPEC.name]
    drop(plan_drop(FeatureCache(folder / "copy")[SPEC.name], gone))
    rest = sorted(set(videos) - gone)
    if rest:
        left = FeatureCache(folder / "copy")[SPEC.name]
        assert list(left) == rest and left.digest() == original.digest(rest)
    else:
        assert not files_of(folder / "copy")
    merge([folder / "original"], folder / "copy")
    assert FeatureCache(folder / "copy")[SPEC.name].digest() == original.digest()


def test_videos_of_one_stream_and_of_all(tmp_path: Path) -> None:
    videos = {f"v{i}": 2 for i in range(5)}
    for spec in (SPEC, make_spec("other_8")):
        write_stream(tmp_path, spec, videos, shard_size=2)
    before = files_of(tmp_path)
    code, out, _ = run("drop", tmp_path, "--stream", SPEC.name, "--video", "v0", "--dry-run")
    assert code == 0 and "1 video with 2 rows and 0 failures would go; 1 shard" in out
    assert "0 deleted, 1 rewritten" in out and files_of(tmp_path) == before
    assert run("drop", tmp_path, "--stream", SPEC.name, "--video", "v0", "--video", "v4")[0] == 0
    assert [len(stream) for stream in FeatureCache(tmp_path).values()] == [5, 3]
    (tmp_path / "ids.txt").write_text("v1\n\nv0\n", encoding="utf-8-sig")
    code, out, _ = run("drop", tmp_path, "--all-streams", "--list", tmp_path / "ids.txt", "--json")
    told = json.loads(out)
    assert code == 0 and told["not_there"] == []
    assert {name: plan["videos"] for name, plan in told["streams"].items()} == {"other_8": 2, "tiny_8": 1}
    assert [list(stream) for stream in FeatureCache(tmp_path).values()] == [["v2", "v3", "v4"], ["v2", "v3"]]
    code, _, err = run("drop", tmp_path, "--all-streams", "--video", "../x")
    assert code == 1 and err == "'../x': not there, in any stream\n"


def test_failures_alone(tmp_path: Path) -> None:
    write_shard(tmp_path / SPEC.name, SPEC, [failed("a"), make_record("b", 2), failed("c")], tools=TOOLS)
    write_shard(tmp_path / SPEC.name, SPEC, [failed("b")], tools=TOOLS)
    assert run("drop", tmp_path, "--stream", SPEC.name, "--failed", "--video", "c")[0] == 0
    assert list(FeatureCache(tmp_path)[SPEC.name].failures) == ["a"]
    code, out, _ = run("drop", tmp_path, "--stream", SPEC.name, "--failed")
    stream = FeatureCache(tmp_path)[SPEC.name]
    assert code == 0 and "1 failure gone (1 entry more" in out
    assert list(stream) == ["b"] and not stream.failures and len(stream.shards) == 1


def test_parts_alone(tmp_path: Path) -> None:
    records = [failed("a"), make_record("b", 2), make_partial("c", 3, [1]), make_partial("d", 3, [0])]
    write_shard(tmp_path / SPEC.name, SPEC, records, tools=TOOLS)
    write_shard(tmp_path / SPEC.name, SPEC, [make_partial("b", 2, [1])], tools=TOOLS)  # the other one counts
    code, _, err = run("drop", tmp_path, "--stream", SPEC.name, "--partial", "--video", "a")
    assert code == 1 and err == "'a': not partial, in tiny_8\n"
    assert run("drop", tmp_path, "--stream", SPEC.name, "--partial", "--video", "d")[0] == 0
    assert list(FeatureCache(tmp_path)[SPEC.name].partial) == ["c"]
    code, out, _ = run("drop", tmp_path, "--all-streams", "--partial")
    assert code == 0 and "1 video with 2 rows and 0 failures gone (1 entry more" in out
    stream = FeatureCache(tmp_path)[SPEC.name]
    assert list(stream) == ["b"] and list(stream.failures) == ["a"] and len(stream.shards) == 1
    write_shard(tmp_path / SPEC.name, SPEC, [make_partial("c", 3, [1])], tools=TOOLS)
    assert run("drop", tmp_path, "--all-streams", "--partial", "--failed")[0] == 0
    stream = FeatureCache(tmp_path)[SPEC.name]
    assert list(stream) == ["b"] and not stream.failures and not stream.partial


def test_a_whole_stream_asks_first(tmp_path: Path) -> None:
    write_stream(tmp_path, SPEC, {f"v{i}": 2 for i in range(5)}, shard_size=2)
    write_stream(tmp_path, make_spec("other_8"), {"a": 1})
    before = files_of(tmp_path)
    code, _, err = run("drop", tmp_path, "--stream", SPEC.name)
    assert code == 2 and "give --yes" in err and files_of(tmp_path) == before
    assert "would go" in run("drop", tmp_path, "--stream", SPEC.name, "--dry-run")[1]
    [shard, *_] = (tmp_path / SPEC.name).glob("shard-*.h5")
    shard.write_bytes(b"damaged")
    assert run("drop", tmp_path, "--stream", SPEC.name, "--yes")[0] == 0
    assert FeatureCache(tmp_path).streams == ("other_8",) and not (tmp_path / SPEC.name).exists()
    for name in (SPEC.name, "..", ".", ""):
        code, _, err = run("drop", tmp_path, "--stream", name, "--yes")
        assert code == 2 and "it has: other_8" in err
    for options in ([], ["--all-streams"], ["--all-streams", "--stream", "other_8", "--failed"]):
        assert run("drop", tmp_path, *options)[0] == 2
    assert "other_8" in FeatureCache(tmp_path)


def test_only_the_rows_that_stay_must_be_good(tmp_path: Path) -> None:
    [path] = write_stream(tmp_path, SPEC, {"a": 100, "b": 100})
    content = bytearray(path.read_bytes())
    at = content.index(make_record("a", 100).features.tobytes())
    content[at + 5] ^= 1
    path.write_bytes(content)
    code, _, err = run("drop", tmp_path, "--stream", SPEC.name, "--video", "b")
    assert code == 2 and "rows of video 'a'" in err and path.exists()
    assert run("drop", tmp_path, "--stream", SPEC.name, "--video", "a")[0] == 0
    assert run("verify", tmp_path)[0] == 0 and list(FeatureCache(tmp_path)[SPEC.name]) == ["b"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_changes_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stream(tmp_path, SPEC, {"a": 2, "b": 2})
    before = files_of(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    code, _, err = run("drop", tmp_path, "--stream", SPEC.name, "--video", "a")
    assert code == 2 and os.strerror(number) in err and err.count("\n") == 1
    assert files_of(tmp_path) == before


def test_who_has_the_cache_open_reads_on(tmp_path: Path) -> None:
    write_stream(tmp_path, SPEC, {f"v{i}": 2 for i in range(6)}, shard_size=3)
    stream = FeatureCache(tmp_path)[SPEC.name]
    assert run("drop", tmp_path, "--stream", SPEC.name, "--video", "v0")[0] == 0
    _mapped.cache_clear()  # what is mapped stays readable; the drop ran in this process and has mapped the shard
    assert len(stream["v1"].features) == 2 and len(stream["v5"].features) == 2
    with pytest.raises(MissingVideoError):
        stream["v0"]


def test_a_drop_that_was_killed_half_way_is_finished(tmp_path: Path) -> None:
    [path] = write_stream(tmp_path, SPEC, {"a": 2, "b": 2, "c": 1})
    whole = path.read_bytes()
    command = ("drop", tmp_path, "--stream", SPEC.name, "--video", "a")
    assert run(*command)[0] == 0
    after = files_of(tmp_path)
    path.write_bytes(whole)  # as if killed before the old shard was deleted
    stream = FeatureCache(tmp_path)[SPEC.name]
    assert list(stream) == ["a", "b", "c"] and [len(stream[v].features) for v in stream] == [2, 2, 1]
    assert run(*command)[0] == 0 and files_of(tmp_path) == after


@pytest.mark.slow
def test_killed_drops_end_as_undisturbed_ones(tmp_path: Path) -> None:
    videos = {f"v{i:03d}": 2 for i in range(120)}
    write_stream(tmp_path / "cache", SPEC, videos, shard_size=4)
    original = FeatureCache(tmp_path / "cache")[SPEC.name]
    digest_of_all, gone = original.digest(), sorted(videos)[::4]
    rest = sorted(set(videos) - set(gone))
    digest = original.digest(rest)
    (tmp_path / "ids").write_text("\n".join(gone))
    command = ("drop", tmp_path / "cache", "--stream", SPEC.name, "--list", tmp_path / "ids")
    for _ in killed_at_random(*command, watched=tmp_path / "cache"):
        stream = FeatureCache(tmp_path / "cache")[SPEC.name]
        assert all(len(stream[v].features) == 2 for v in stream)  # every checksum, too
        assert stream.digest(rest) == digest
    assert run(*command)[0] in {0, 1}  # 1: some had gone before
    left = FeatureCache(tmp_path / "cache")[SPEC.name]
    assert list(left) == rest and left.digest() == digest != digest_of_all
    assert run("verify", tmp_path / "cache")[0] == 0 and not list((tmp_path / "cache").rglob("*.tmp"))
