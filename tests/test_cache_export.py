"""feature-cache export: other tools read what the cache holds, and nothing is written elsewhere."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema import FeatureCache, VideoRecord, write_shard
from cache_schema.tools.export import LIST_COLUMNS, SPEC_NAME, file_name
from tests.cache_commands import files_of, run
from tests.caches import make_partial, make_record, make_spec, write_stream

SPEC = make_spec(classes=3)
HOSTILE = [
    "../x",
    "/etc/x",
    "a/../../x",
    "..",
    ".",
    "/",
    "a//b",
    "a",
    "a.npz/b",
    "videos.csv/c",
    ".a",
    "é" * 200,
]
HOSTILE += ["con:1", "back\\..\\x", "%2E%2E/x", "new\nline", "x" * 240, "x" * 241, "a/b", "-rf", ".x.h-1.tmp"]


AGAIN = ("--stream", "again", "--fps", "1", "--gflops-per-row", "1")


def listed(out: Path) -> list[dict[str, str]]:
    with (out / "videos.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_npz_holds_everything(tmp_path: Path) -> None:
    write_stream(tmp_path / "cache", SPEC, {"a": 4, "b/c": 2})
    out = tmp_path / "out"
    code, told, _ = run("export", tmp_path / "cache", "--stream", SPEC.name, "--out", out, "--json")
    assert code == 0 and json.loads(told) == {"written": 2, "present": 0, "partial": {}, "failed": {}}
    assert sorted(files_of(out)) == ["a.npz", "b/c.npz", SPEC_NAME, "videos.csv"]
    record = FeatureCache(tmp_path / "cache")[SPEC.name]["b/c"]
    with np.load(out / "b/c.npz", allow_pickle=False) as kept:
        assert sorted(kept) == ["duration_s", "features", "fps", "scores", "spans"]
        for name in ("features", "scores", "spans"):
            assert np.array_equal(kept[name], getattr(record, name))
        assert (kept["duration_s"], kept["fps"], kept["features"].dtype) == (2.0, 25.0, np.float16)
    [first, _] = listed(out)
    assert tuple(first) == LIST_COLUMNS
    assert (first["id"], first["file"], first["rows"], first["last_s"]) == ("a", "a.npz", "4", "3.0")


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_a_part_is_listed_as_one_and_imported_as_one(form: str, tmp_path: Path) -> None:
    spec = make_spec()
    records = [make_partial("a", 6, [0, 3, 4]), make_record("b", 2)]
    write_shard(tmp_path / "cache" / spec.name, spec, records, tools={})
    out, exported = tmp_path / "out", FeatureCache(tmp_path / "cache")[spec.name]
    command: list[str | Path] = [
        "export",
        tmp_path / "cache",
        "--stream",
        spec.name,
        "--out",
        out,
        "--format",
        form,
    ]
    code, told, _ = run(*command)
    assert code == 0 and "2 files written, 0 there already, 1 of them partial, 0 without" in told
    assert json.loads(run(*command, "--json")[1])["partial"] == {"a": "damaged at 3 s"}
    assert [(video["partial"], video["lost"]) for video in listed(out)] == [
        ("damaged at 3 s", "0 3-4"),
        ("", ""),
    ]
    command = ["import", out, *AGAIN]
    assert run(*command, "--into", tmp_path / "other")[0] == 0
    again = FeatureCache(tmp_path / "other")["again"]
    assert again.partial == exported.partial and again["a"].numbers.tolist() == [1, 2, 5]
    assert all(np.array_equal(again[v].spans, exported[v].spans) for v in exported)
    lines = (out / "videos.csv").read_text()
    for wrong, message in (
        (lines.replace("0 3-4", "x"), "'x'"),
        (lines.replace("0 3-4", "9"), "cannot lack row 9"),
        (lines.replace("damaged at 3 s", ""), "is not partial"),
    ):
        (out / "videos.csv").write_text(wrong)
        code, _, err = run(*command, "--into", tmp_path / "third")
        assert code == 2 and message in err and err.count("\n") == 1


def test_a_list_of_before_there_were_parts_is_read(tmp_path: Path) -> None:
    spec = make_spec()
    write_stream(tmp_path / "cache", spec, {"a": 3})
    out = tmp_path / "out"
    assert run("export", tmp_path / "cache", "--stream", spec.name, "--out", out, "--format", "npy")[0] == 0
    lines = (out / "videos.csv").read_text().splitlines()
    columns = [line.removesuffix(",partial,lost").removesuffix(",,") for line in lines]
    (out / "videos.csv").write_text("\n".join(columns))
    assert run("import", out, *AGAIN, "--into", tmp_path / "other")[0] == 0
    assert FeatureCache(tmp_path / "other")["again"].fingerprint("a") == "print of a"


def test_npy_of_scores_in_float32(tmp_path: Path) -> None:
    write_stream(tmp_path / "cache", SPEC, {"a": 4, "b": 2})
    command = (
        "export",
        tmp_path / "cache",
        "--stream",
        SPEC.name,
        "--out",
        tmp_path / "out",
        "--format",
        "npy",
    )
    assert run(*command, "--what", "scores", "--dtype", "float32", "--video", "a")[0] == 0
    scores = np.load(tmp_path / "out/a.npy", allow_pickle=False)
    expected = FeatureCache(tmp_path / "cache")[SPEC.name]["a"].scores
    assert expected is not None and scores.dtype == np.float32 and np.array_equal(scores, expected)
    assert sorted(files_of(tmp_path / "out")) == ["a.npy", SPEC_NAME, "videos.csv"]
    write_stream(tmp_path / "cache", make_spec("other_8"), {"a": 1})
    code, _, err = run(*command[:3], "other_8", *command[4:], "--what", "scores")
    assert code == 2 and "no scores" in err


def test_what_is_there_stays_unless_it_is_something_else(tmp_path: Path) -> None:
    write_stream(tmp_path / "cache", SPEC, {"a": 4, "b": 2})
    command = ("export", tmp_path / "cache", "--stream", SPEC.name, "--out", tmp_path / "out")
    assert run(*command)[0] == 0
    before = files_of(tmp_path / "out")
    (tmp_path / "out/b.npz").unlink()
    assert "1 file written, 1 there already" in run(*command)[1]
    assert files_of(tmp_path / "out") == before
    (tmp_path / "out/a.npz").write_bytes(before["a.npz"][:-40])
    code, _, err = run(*command)
    assert code == 1 and "a.npz is there and is something else: use --overwrite" in err
    code, _, err = run(*command, "--dtype", "float32")
    assert code == 1 and err.count("something else") == 2
    assert run(*command, "--overwrite")[0] == 0 and files_of(tmp_path / "out") == before


def test_failed_and_unknown_videos_are_named(tmp_path: Path) -> None:
    failed = VideoRecord.failed(SPEC, "bad", "empty file", source="bad.mp4", fingerprint="p")
    records = [failed, make_record("good", 2, classes=3)]
    write_shard(tmp_path / "cache" / SPEC.name, SPEC, records, tools={})
    command = ("export", tmp_path / "cache", "--stream", SPEC.name, "--out", tmp_path / "out")
    code, out, err = run(*command)
    assert code == 1 and err == "'bad': empty file\n" and "1 file written, 0 there already, 1 without" in out
    code, _, err = run(*command, "--video", "none", "--video", "good")
    assert code == 1 and err.startswith("'none': video 'none' is not in stream")


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_hostile_ids_stay_below_the_folder(form: str, tmp_path: Path) -> None:
    write_stream(tmp_path / "cache", SPEC, dict.fromkeys(HOSTILE, 1))
    out = tmp_path / "deep" / "out"
    command = ("export", tmp_path / "cache", "--stream", SPEC.name, "--out", out, "--format", form)
    assert run(*command) == (0, f"{out}: {len(HOSTILE)} files written, 0 there already, 0 without; "
                             "listed in videos.csv\n", "")  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] in (["cache", "deep"], ["deep", "cache"])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    table = listed(out)
    assert sorted(line["id"] for line in table) == sorted(HOSTILE)
    assert sorted(line["file"] for line in table) == sorted(set(files_of(out)) - {"videos.csv", SPEC_NAME})
    assert f"0 files written, {len(HOSTILE)} there already" in run(*command)[1]


@settings(max_examples=300)
@given(st.sets(st.text(st.sampled_from("./%~a2E\\zpnvideos.csv"), min_size=1, max_size=8), max_size=30))
def test_no_two_ids_share_a_file_or_stand_in_each_others_way(ids: set[str]) -> None:
    names = [file_name(video_id, "npz") for video_id in ids]
    assert len(set(names)) == len(ids)
    folders = {str(parent) for name in names for parent in Path(name).parents}
    assert not folders & {*names, "videos.csv"}
    assert all(part and not part.startswith(".") for name in names for part in name.split("/"))


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    write_stream(tmp_path / "cache", SPEC, {"a/b": 1, "c": 1})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").symlink_to(tmp_path / "elsewhere")
    code, _, err = run("export", tmp_path / "cache", "--stream", SPEC.name, "--out", tmp_path / "out")
    assert code == 1 and "'a/b'" in err and "leads out of" in err
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stream(tmp_path / "cache", SPEC, {"a": 1, "b": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run("export", tmp_path / "cache", "--stream", SPEC.name, "--out", tmp_path / "out")
    assert code == 2 and "No space left on device" in err and err.count("\n") == 1
    assert not files_of(tmp_path / "out")
