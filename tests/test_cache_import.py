"""feature-cache import: what people have already becomes streams, and what it is not is not made up."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cache_schema import FeatureCache, Sampling, Stream, write_shard
from cache_schema.costs import cost_table, stream_cost
from cache_schema.importers.instants import Timing, spans_of
from cache_schema.importers.lists import read_lengths
from cache_schema.importers.rows import Rows
from cache_schema.tools.export import SPEC_NAME
from extract.backbones import BUILT_IN
from extract.sampling import clip_times
from tests.cache_commands import files_of, killed_at_random, run
from tests.caches import make_record, make_spec, write_stream

COST = ("--gflops-per-row", "4.73")
IDS = [f"v{i}" for i in range(7)]
CLASSES = ["cat", "dog", "ant"]


def scores(*shape: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, 3, shape)


def write_ids(folder: Path, ids: Sequence[str] = IDS) -> Path:
    path = folder / "ids.txt"
    path.write_text("\n".join(ids) + "\n", encoding="utf-8")
    return path


def write_csv(path: Path, ids: Sequence[str], values: npt.NDArray[np.float64]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["video_id", *CLASSES])
        table.writerows([video_id, *row] for video_id, row in zip(ids, values.tolist(), strict=True))
    return path


def write_folder(folder: Path, videos: dict[str, npt.NDArray[np.float32]]) -> Path:
    for video_id, values in videos.items():
        path = folder / f"{video_id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)
    return folder


def imported(cache: Path, *words: str | Path, stream: str = "mine") -> Stream:
    code, out, err = run("import", *words, "--into", cache, "--stream", stream)
    assert code == 0, (out, err)
    assert run("verify", cache)[0] == 0
    return FeatureCache(cache)[stream]


def refused(*words: str | Path, into: Path) -> str:
    """The one line of an import that is refused, after which the cache holds nothing."""
    stream = () if "--stream" in words else ("--stream", "mine")
    code, out, err = run("import", *words, *stream, "--into", into)
    assert (code, out) == (2, ""), (code, out, err)
    assert err.startswith("Error: ") and err.count("\n") == 1, err
    assert not list(into.rglob("shard-*"))
    return err


# Class scores


def test_every_form_of_the_same_scores_is_the_same_stream(tmp_path: Path) -> None:
    values = scores(7, 3)
    np.save(tmp_path / "a.npy", values.astype(np.float32))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(values))
    np.save(tmp_path / "big.npy", values.astype(">f8"))
    np.savez(tmp_path / "b.npz", scores=values, ids=IDS, classes=np.array(CLASSES))
    np.savez(tmp_path / "bytes.npz", other=values, mine=values, ids=np.array(IDS, "S2"))
    np.savez_compressed(tmp_path / "each.npz", **dict(zip(IDS, values, strict=True)))
    write_csv(tmp_path / "c.csv", IDS, values)
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    write_csv(tmp_path / "ids.csv", IDS, values)
    ids, named = ("--ids", write_ids(tmp_path)), ("--classes", tmp_path / "names.txt")
    forms: dict[str, tuple[str | Path, ...]] = {
        "a.npy": (*ids, *named),
        "fortran.npy": ("--ids", tmp_path / "ids.csv", *named),
        "big.npy": (*ids, *named),
        "b.npz": (),
        "bytes.npz": named,
        "each.npz": named,
        "c.csv": (),
    }
    digests = {
        form: imported(tmp_path / f"cache {form}", tmp_path / form, *COST, *words).digest()
        for form, words in forms.items()
    }
    assert len(set(digests.values())) == 1, digests
    stream = FeatureCache(tmp_path / "cache c.csv")["mine"]
    assert (stream.spec.classes, stream.spec.macs_per_row) == (tuple(CLASSES), 4_730_000_000)
    for video_id, row in zip(IDS, values, strict=True):
        record = stream[video_id]
        assert record.features.shape == (1, 0) and record.scores is not None
        assert np.array_equal(record.scores, row.astype(np.float16)[None])
        assert np.isnan(record.spans).all() and np.isnan(record.duration_s)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("excel.csv", "\ufeffVideo ID;cat ; dog;ant;;\r\na;0,5;-1,25;2\r\nb ;1;2;3;;\r\n;;;;;\r\n"),
        ("stated.csv", "sep=;\r\nvideo_id;cat;dog;ant\r\na;0,5;-1,25;2\r\nb;1;2;3\r\n"),
        ("tabs.tsv", "filename\tcat\tdog\tant\na\t0,5\t-1.25\t2e0\nb\t1\t2\t3\n"),
        ("quoted.csv", '"video_id","cat","dog","ant"\n"a","0.5","-1.25","2"\n"b","1","2","3"\n'),
        ("pandas.csv", ",cat,dog,ant\na,0.5,-1.25,2\nb,1,2,3\n"),
        ("numbered.csv", ",video_id,cat,dog,ant\n0,a,0.5,-1.25,2\n1,b,1,2,3\n"),
        ("write.csv", '"","cat","dog","ant"\n"a",0.5,-1.25,2\n"b",1,2,3\n'),
        ("write.table.txt", '"cat" "dog" "ant"\n"a" 0.5 -1.25 2\n"b" 1 2 3\n'),
        ("rows.txt", '"video_id" "cat" "dog" "ant"\n"1" "a" 0.5 -1.25 2\n"2" "b" 1 2 3\n'),
        ("csv2.csv", '"video_id";"cat";"dog";"ant"\n"1";"a";0,5;-1,25;2\n"2";"b";1;2;3\n'),
    ],
)
def test_scores_as_spreadsheets_pandas_and_r_write_them(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode())
    stream = imported(tmp_path / "cache", tmp_path / name, *COST)
    assert list(stream) == ["a", "b"] and stream.spec.classes == tuple(CLASSES)
    for video_id, expected in {"a": [0.5, -1.25, 2], "b": [1, 2, 3]}.items():
        found = stream[video_id].scores
        assert found is not None and found.tolist() == [expected]


def test_ids_and_lengths_are_in_tables_of_spreadsheets(tmp_path: Path) -> None:
    values = scores(2, 4, 3)
    np.save(tmp_path / "a.npy", values)
    tables = {
        "labels.csv": "\ufeffVideo ID;Label;Subset\r\nb;swim, freestyle;train\r\na;run;test\r\n",
        "labels.tsv": "subset\tvideo\ntrain\tb\ntest\ta\n",
        "labels.txt": "video_id\tlabel\nb\tswim\na\trun\n",
        "rows.txt": '"id" "label"\n"1" "b" "swim"\n"2" "a" "run"\n',
        "plain.txt": "b\na\n",
    }
    for number, (name, text) in enumerate(tables.items()):
        (tmp_path / name).write_bytes(text.encode())
        words = (tmp_path / "a.npy", "--ids", tmp_path / name, *COST)
        stream = imported(tmp_path / f"cache{number}", *words)
        assert np.array_equal(stream["b"].scores, values[0].astype(np.float16)), name  # type: ignore[arg-type]
    (tmp_path / "lengths.csv").write_text("Video ID;Duration\na;4,25\nb;3,5\n")
    lengths = read_lengths(tmp_path / "lengths.csv")
    assert (lengths.of("a"), lengths.of("b")) == (4.25, 3.5)


def test_clips_of_each_video(tmp_path: Path) -> None:
    values = scores(7, 10, 3)
    np.save(tmp_path / "a.npy", values)
    write_csv(tmp_path / "c.csv", np.repeat(IDS, 10).tolist(), values.reshape(70, 3))
    streams = [
        imported(tmp_path / "1", tmp_path / "a.npy", "--ids", write_ids(tmp_path), "--like", "x3d_m"),
        imported(tmp_path / "2", tmp_path / "c.csv", *COST),
    ]
    for stream in streams:
        assert stream.total_rows() == 70
        assert np.array_equal(stream["v3"].scores, values[3].astype(np.float16))  # type: ignore[arg-type]
    assert streams[0].spec.sampling == BUILT_IN["x3d_m"].sampling
    assert streams[0].spec.macs_per_row == cost_table()["x3d_m"].macs
    assert streams[1].spec.sampling == Sampling("clips", fps=0, frames=0, window=0, clips=10)


@settings(max_examples=8)
@given(data=st.data())
def test_any_scores_come_back(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("import")
    ids = data.draw(st.lists(st.text("aé/.% 0", min_size=1).filter(str.strip), min_size=1, unique=True))
    shape = (len(ids), *data.draw(st.sampled_from([(1,), (4,), (3, 2)])))
    kind = data.draw(st.sampled_from(["f2", "f4", ">f8", "i4"]))
    values = data.draw(arrays.arrays(kind, shape, elements=st.integers(-2048, 2048)))
    np.savez(folder / "a.npz", ids=np.array(ids), scores=values)
    size = str(data.draw(st.integers(1, 4)))
    stream = imported(folder / "cache", folder / "a.npz", *COST, "--shard-size", size, "--kind", "logits")
    assert sorted(stream) == sorted(ids)
    for video_id, expected in zip(ids, values, strict=True):
        assert np.array_equal(stream[video_id].scores, np.atleast_2d(expected))  # type: ignore[arg-type]
    assert run("export", folder / "cache", "--stream", "mine", "--out", folder / "out")[0] == 0
    again = imported(folder / "again", folder / "out", *COST, "--kind", "logits")
    assert again.digest() == stream.digest()


# Probabilities


def softmax(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    exponents = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_probabilities_are_told_from_logits_and_turned_back(kind: str, dtype: str, tmp_path: Path) -> None:
    logits = scores(7, 3)
    p = (softmax(logits) if kind == "softmax" else 1 / (1 + np.exp(-logits))).astype(dtype)
    p[0] = [1, 0, 0]
    np.savez(tmp_path / "p.npz", scores=p, ids=IDS)
    err = refused(tmp_path / "p.npz", *COST, into=tmp_path / "cache")
    assert f"probabilities of a {kind} do: give --kind {kind}, or --kind logits" in err
    stream = imported(tmp_path / "cache", tmp_path / "p.npz", *COST, "--kind", kind)
    kept = np.concatenate([np.asarray(stream[i].scores, np.float64) for i in IDS])
    back = softmax(kept) if kind == "softmax" else 1 / (1 + np.exp(-kept))
    assert np.abs(back - p).max() < 2e-3 and np.isfinite(kept).all()
    assert np.allclose(kept[0, 1:], np.log(2.0**-24), atol=0.01)
    # Nothing can be known of one video: all must look so.
    np.savez(tmp_path / "l.npz", scores=np.vstack([p[:-1], logits[-1:]]), ids=IDS)
    imported(tmp_path / "logits", tmp_path / "l.npz", *COST)


def test_what_contradicts_its_kind_names_the_video(tmp_path: Path) -> None:
    p = softmax(scores(7, 3))
    for name, row, kind, told in (
        ("negative", [-3.25, 4, 0.25], "softmax", "a score of -3.25 is no probability, but --kind softmax says"),
        ("high", [0.5, 1.5, 0], "sigmoid", "a score of 1.5 is no probability, but --kind sigmoid says"),
        ("sum", [0.5, 0.5, 0.5], "softmax", "its scores sum to 1.5, not to 1 as --kind softmax says"),
        ("nan", [np.nan, 0.5, 0.5], "softmax", "a score of nan is no probability"),
    ):  # fmt: skip
        values = p.copy()
        values[4] = row
        path = tmp_path / f"{name}.npz"
        np.savez(path, scores=values, ids=IDS)
        err = refused(path, *COST, "--kind", kind, into=tmp_path / "cache")
        assert f"{path}: video 'v4': {told}" in err


# Features


def test_a_folder_of_frames(tmp_path: Path) -> None:
    videos = {f"day {i}/v{i}": scores(i + 1, 5, seed=i).astype(np.float32) for i in range(5)}
    folder = write_folder(tmp_path / "features", videos)
    np.save(folder / "vector.npy", np.arange(5))
    (folder / "readme.txt").touch()
    (folder / "._v.npy").write_bytes(b"what a Mac leaves")
    code, out, _ = run(
        "import", folder, "--into", tmp_path / "cache", "--stream", "mine", "--fps", "2", *COST
    )
    assert code == 0 and out == (
        f"{tmp_path}/cache/mine: 6 videos with 16 rows in 1 shard imported, 0 there already\n"
        "row: 5 features, no scores, 4.73 GFLOPs\nsampling: 2 frames a second\n"
        "note: 1 file in the folder neither npy nor npz: not read\n"
    )
    stream = FeatureCache(tmp_path / "cache")["mine"]
    assert sorted(stream) == sorted([*videos, "vector"])
    assert stream.spec.sampling == Sampling(fps=2.0) and stream.source("vector") == "vector.npy"
    record = stream["day 4/v4"]
    assert np.array_equal(record.features, videos["day 4/v4"].astype(np.float16))
    assert record.spans.tolist() == [[k / 2, k / 2] for k in range(5)]


@pytest.mark.parametrize("name", ["resnet101_224", "i3d_rgb_dense16", "slowfast_8x8_256", "every 4 frames"])
def test_rows_lie_where_extraction_puts_them(name: str) -> None:
    rows = Rows("a", "a", features=np.zeros((9, 1)))
    built_in = BUILT_IN.get(name)
    timing = Timing(like=built_in.sampling) if built_in else Timing(30.0, clip_frames=16, stride=4)
    sampling = timing.sampling(rows)
    seconds = clip_times(sampling, duration_s=1000.0)[:9]
    expected = np.stack([seconds.min(axis=1), seconds.max(axis=1)], axis=1)
    found = spans_of(rows, sampling)
    clipped = expected[:, 0] == 0  # extraction moves what is before the start to it
    assert np.allclose(found, expected) and clipped.sum() <= 2


def test_the_cost_table_samples_as_extraction_does() -> None:
    assert {name: cost.sampling for name, cost in cost_table().items()} == {
        name: request.sampling for name, request in BUILT_IN.items()
    }


def test_clips_end_to_end(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "features", {"a": np.ones((3, 2), np.float32)})
    stream = imported(tmp_path / "cache", folder, "--clip-frames", "16", "--fps", "25", *COST)
    assert stream.spec.sampling == BUILT_IN["i3d_rgb_dense16"].sampling
    assert np.allclose(stream["a"].spans, [[0, 0.6], [0.64, 1.24], [1.28, 1.88]])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--clips", "3", *COST), Sampling("clips", fps=0, frames=0, window=0, clips=3)),
        (("--like", "x3d_s"), replace(BUILT_IN["x3d_s"].sampling, clips=3)),
        (("--like", "x3d_s", "--clips", "3"), replace(BUILT_IN["x3d_s"].sampling, clips=3)),
        (("--like", "x3d_s", "--what", "scores"), replace(BUILT_IN["x3d_s"].sampling, clips=3)),
        (
            ("--like", "resnet101_224", "--what", "scores"),
            Sampling("clips", fps=0, frames=0, window=0, clips=3),
        ),
        (("--like", "x3d_s", "--fps", "1"), Sampling("snippets", 30.0, 13, 78, rows_per_s=1.0)),
        (("--like", "slowfast_8x8_256", "--fps", "2"), Sampling("snippets", 30.0, 32, 64, rows_per_s=2.0)),
        (("--like", "i3d_rgb_dense16", "--fps", "30"), Sampling("dense", 30.0, 16, 16)),
        (("--like", "resnet101_224"), Sampling()),
    ],
)
def test_where_rows_are(words: tuple[str, ...], expected: Sampling, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "features", {"a": 2 * np.ones((3, 2), np.float32)})
    assert imported(tmp_path / "cache", folder, *words).spec.sampling == expected


def test_a_single_row_may_be_the_mean_of_many_clips(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", IDS, scores(7, 3))
    words = ("import", path, "--into", tmp_path / "cache", "--like", "x3d_s")
    code, out, _ = run(*words, "--stream", "mean")
    assert (
        code == 0
        and "note: a video costs one row, 1.962 GFLOPs; where that is the mean of several clips or" in out
    )
    assert FeatureCache(tmp_path / "cache")["mean"].spec.sampling.frames == 0
    assert "note:" not in run(*words, "--stream", "mean2", "--gflops-per-row", "19.6")[1]
    assert "note:" not in run(*words, "--stream", "one", "--clips", "1")[1]
    assert FeatureCache(tmp_path / "cache")["one"].spec.sampling == replace(
        BUILT_IN["x3d_s"].sampling, clips=1
    )


# There and back


@pytest.mark.parametrize(("form", "classes"), [("npz", 3), ("npy", 0)])
def test_export_import_export_changes_no_byte(form: str, classes: int, tmp_path: Path) -> None:
    spec = make_spec(classes=classes)
    write_stream(tmp_path / "cache", spec, {"a": 4, "b/c": 2, ".d": 3, "é" * 200: 1, "100%": 2}, shard_size=2)

    def export(cache: str, stream: str, out: str) -> dict[str, bytes]:
        words = ("--stream", stream, "--out", tmp_path / out, "--format", form)
        assert run("export", tmp_path / cache, *words)[0] == 0
        files = files_of(tmp_path / out)
        assert json.loads(files.pop(SPEC_NAME))["name"] == stream
        return files

    first = export("cache", spec.name, "first")
    stream = imported(tmp_path / "again", tmp_path / "first", "--fps", "1", *COST)
    assert export("again", "mine", "second") == first
    before = FeatureCache(tmp_path / "cache")[spec.name]
    assert [stream.fingerprint(v) for v in stream] == [before.fingerprint(v) for v in before]
    for video_id in before:
        theirs, ours = before[video_id], stream[video_id]
        assert np.array_equal(ours.features, theirs.features) and np.array_equal(ours.spans, theirs.spans)
        assert (ours.duration_s, ours.fps, ours.source) == (theirs.duration_s, theirs.fps, theirs.source)


def test_spans_of_the_file_stay_and_must_fit(tmp_path: Path) -> None:
    clips = Sampling("clips", fps=30.0, frames=16, window=80, clips=3)
    spec = make_spec(sampling=clips)
    spans = np.array([[0, 2.6], [5, 7.6], [10, 12.6]])
    write_shard(tmp_path / "cache" / spec.name, spec, [replace(make_record("a", 3), spans=spans)], tools={})
    assert run("export", tmp_path / "cache", "--stream", spec.name, "--out", tmp_path / "out")[0] == 0
    stream = imported(tmp_path / "again", tmp_path / "out", "--like", "x3d_m", stream="x3d_m@3clips")
    assert stream.spec.sampling == clips and np.array_equal(stream["a"].spans, spans)
    np.savez(tmp_path / "b.npz", ids=["b"], a=np.ones((1, 3, 8)))
    words = ("--array", "a", "--what", "features", "--clips", "3", *COST)
    unknown = imported(tmp_path / "unknown", tmp_path / "b.npz", *words)
    assert np.isnan(unknown["b"].spans).all()
    assert run("export", tmp_path / "unknown", "--stream", "mine", "--out", tmp_path / "nan")[0] == 0
    assert imported(tmp_path / "known", tmp_path / "nan", *COST, "--fps", "2")["b"].spans[:, 1].tolist() == [
        0,
        0.5,
        1,
    ]
    err = refused(tmp_path / "out", *COST, "--fps", "1", into=tmp_path / "other")
    assert "row 0 saw second 0 to 2.6 according to its spans, but a frame at 0" in err


def test_ids_are_as_those_of_labels(tmp_path: Path) -> None:
    values = scores(3, 3)
    np.save(tmp_path / "a.npy", values)
    (tmp_path / "ids.txt").write_text("run/a.mp4\nb.AVI\nwalk.in.the.park\n")
    (tmp_path / "lengths.csv").write_text("video_id,duration_s\nrun/a.mp4,4.5\n")
    words = ("--ids", tmp_path / "ids.txt", *COST, "--into", tmp_path / "cache", "--stream", "mine")
    code, out, _ = run("import", tmp_path / "a.npy", *words, "--lengths", tmp_path / "lengths.csv")
    assert code == 0 and "note: ids are without the videos' endings, run/a for run/a.mp4" in out
    stream = FeatureCache(tmp_path / "cache")["mine"]
    assert list(stream) == ["b", "run/a", "walk.in.the.park"] and stream["run/a"].duration_s == 4.5
    assert np.array_equal(stream["b"].scores, values[1:2].astype(np.float16))  # type: ignore[arg-type]
    (tmp_path / "ids.txt").write_text("a.mp4\na.avi\nb.mp4\n")
    words = (*words[:-3], tmp_path / "both", *words[-2:])
    code, out, _ = run("import", tmp_path / "a.npy", *words)
    assert code == 0 and "note: ids keep the videos' endings, without which two would be the same" in out
    assert list(FeatureCache(tmp_path / "both")["mine"]) == ["a.avi", "a.mp4", "b.mp4"]
    for cache in ("cache", "both"):  # of an export they are those of a cache
        out_folder = tmp_path / f"out of {cache}"
        assert run("export", tmp_path / cache, "--stream", "mine", "--out", out_folder)[0] == 0
        assert run("import", out_folder, "--into", tmp_path / f"{cache} again")[0] == 0
        again, kept = (FeatureCache(tmp_path / name)["mine"] for name in (f"{cache} again", cache))
        assert list(again) == list(kept) and again.digest() == kept.digest()


# What a row costs


def test_what_a_row_costs_must_be_said_and_be_true(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", IDS, scores(7, 3))
    table = cost_table()["x3d_m"].macs
    for stream, words, macs in (
        ("mine", ("--macs-per-row", "4.73e9"), 4_730_000_000),
        ("two", ("--like", "x3d_m"), table),
        ("three", ("--like", "x3d_m", "--gflops-per-row", "47.3"), 47_300_000_000),
        ("x3d_m", (), table),
        ("x3d_m@1clips", ("--gflops-per-row", "4.73"), table),
    ):
        spec = imported(tmp_path / "cache", path, *words, stream=stream).spec
        assert spec.macs_per_row == macs == stream_cost(spec).macs
    into = tmp_path / "none"
    assert "say what a row costs" in refused(path, into=into)
    assert "--macs-per-row and --gflops" in refused(path, *COST, "--macs-per-row", "1", into=into)
    for number in ("0", "-1", "nan", "inf", "1e30"):
        assert "at least one" in refused(path, "--gflops-per-row", number, into=into)
    err = refused(path, "--stream", "x3d_m", "--gflops-per-row", "47.3", into=into)
    assert "name of a built-in one, a row of which costs 4.732 GFLOPs, not 47.3" in err
    assert "costs 4.732 GFLOPs, not 1.962" in refused(path, "--stream", "x3d_m", "--like", "x3d_s", into=into)
    assert "there are: mobilenetv2_112," in refused(path, "--like", "x3d", into=into)


# Again


def test_again_nothing_is_done_and_more_is_added(tmp_path: Path) -> None:
    videos = {f"v{i}": scores(2, 4, seed=i).astype(np.float32) for i in range(9)}
    folder = write_folder(tmp_path / "features", {v: videos[v] for v in list(videos)[:5]})
    words = ("import", folder, "--into", tmp_path / "cache", "--stream", "mine", "--fps", "1", *COST)
    assert json.loads(run(*words, "--shard-size", "2", "--json")[1])["shards"] == 3
    before = files_of(tmp_path / "cache")
    assert "0 videos with 0 rows in 0 shards imported, 5 there already" in run(*words)[1]
    assert files_of(tmp_path / "cache") == before
    write_folder(folder, videos)
    answer = json.loads(run(*words, "--json")[1])
    assert (answer["videos"], answer["present"], answer["feature_dim"]) == (4, 5, 4)
    assert before.items() <= files_of(tmp_path / "cache").items()
    before = files_of(tmp_path / "cache")
    np.save(folder / "v3.npy", videos["v3"] + 1)
    code, _, err = run(*words)
    assert code == 2 and "v3.npy: video 'v3': stream mine has other rows of it already" in err
    for others, told in (
        (("--fps", "2"), "sampling.fps 1.0 is not 2.0"),
        (
            ("--gflops-per-row", "5"),
            "a row of 4,730,000,000 multiply-accumulates is not one of 5,000,000,000",
        ),
        (("--what", "scores"), "feature_dim 4 is not 0, num_classes 0 is not 4"),
    ):
        code, _, err = run(*(words if "--gflops-per-row" not in others else words[:-2]), *others)
        assert code == 2 and "there already and is another" in err and told in err, err
    assert files_of(tmp_path / "cache") == before


def test_another_stream_of_that_name_is_not_added_to(tmp_path: Path) -> None:
    write_stream(tmp_path / "cache", make_spec("mine", dim=3), {"a": 2})
    folder = write_folder(tmp_path / "features", {"b": np.ones((2, 3), np.float32)})
    before = files_of(tmp_path / "cache")
    code, _, err = run(
        "import", folder, "--into", tmp_path / "cache", "--stream", "mine", "--fps", "1", *COST
    )
    assert (
        code == 2 and "another (backbone timm:tiny is not imported, weights random:0 is not imported)" in err
    )
    assert files_of(tmp_path / "cache") == before


def test_names_that_come_later_need_another_import(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", scores(7, 3))
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    cache = tmp_path / "cache"
    words = (
        "import",
        tmp_path / "a.npy",
        "--ids",
        write_ids(tmp_path),
        *COST,
        "--into",
        cache,
        "--stream",
        "mine",
    )
    remedy = f"give `feature-cache drop {cache} --stream mine --yes`, then this"
    code, out, _ = run(*words)
    assert code == 0 and f"To name them, {remedy} again with --classes FILE" in out
    named = (*words, "--classes", tmp_path / "names.txt")
    before = files_of(cache)
    code, _, err = run(*named)
    assert code == 2 and "without class names" in err and f"{remedy} command again" in err
    assert files_of(cache) == before
    assert run("drop", cache, "--stream", "mine", "--yes")[0] == run(*named)[0] == 0
    assert FeatureCache(cache)["mine"].spec.classes == tuple(CLASSES)
    code, _, err = run(*words)
    assert code == 2 and "another (classes cat, dog, ant is not unknown)" in err


def test_merge_tells_other_rows_of_the_same_video(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        path = write_csv(tmp_path / f"{name}.csv", IDS, scores(7, 3, seed=seed))
        imported(tmp_path / name, path, *COST)
    sources = [tmp_path / "one", tmp_path / "same"]
    assert "7 videos and 0 failures added" in run("merge", *sources, "--into", tmp_path / "all")[1]
    code, _, err = run("merge", tmp_path / "other", "--into", tmp_path / "all")
    assert code == 2 and "7 under the same id from files with other content" in err


def test_the_other_commands_on_scores_alone(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    imported(cache, write_csv(tmp_path / "a.csv", IDS, scores(7, 3)), *COST)
    out = run("info", cache)[1]
    for line in (
        "row        no features, scores of 3 classes (names known), 4.73 GFLOPs",
        "sampling   1 row a video, of unknown instants",
        "input      unknown",
        "network    imported",
        "weights    imported",
    ):
        assert f"  {line}\n" in out
    words = ("export", cache, "--stream", "mine", "--out", tmp_path / "out", "--format", "npy")
    code, _, err = run(*words)
    assert code == 2 and "this stream has no features; use --what scores" in err
    assert run(*words, "--what", "scores")[0] == 0 and len(files_of(tmp_path / "out")) == 9
    again = imported(tmp_path / "again", tmp_path / "out", *COST, "--what", "scores")
    assert again.spec.num_classes == 3 and again.spec.classes == tuple(CLASSES)
    assert run("drop", cache, "--stream", "mine", "--video", "v3")[0] == 0
    assert len(FeatureCache(cache)["mine"]) == 6 and run("verify", cache)[0] == 0


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "features", {f"v{i:03d}": scores(3, 4, seed=i).astype(np.float32) for i in range(160)}
    )
    words = ("import", folder, "--stream", "mine", "--fps", "1", *COST, "--shard-size", "3")
    assert run(*words, "--into", tmp_path / "whole")[0] == 0
    into = tmp_path / "cache"
    statuses = []
    for status in killed_at_random(*words, "--into", into, watched=into):
        statuses.append(status)
        if into.is_dir() and FeatureCache(into).streams:
            assert run("verify", into)[0] == 0
    assert statuses.count(-9) >= 3, statuses
    assert run(*words, "--into", into)[0] == 0
    assert files_of(into) == files_of(tmp_path / "whole")
