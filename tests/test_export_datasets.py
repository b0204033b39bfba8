"""CSVs, parquet and data sets of Hugging Face: out of a cache and back, to the last bit."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema import FeatureCache, Sampling, StreamSpec, VideoRecord, write_shard
from cache_schema.columns import digits, of_digits
from cache_schema.costs import stream_cost
from cache_schema.tools.export import SPEC_NAME, file_name
from tests.cache_commands import files_of, killed_at_random, run
from tests.caches import make_partial, make_record, make_spec, without_rows, write_stream

FORMS = ("csv", "parquet", "hf")
AGAIN = ("--stream", "again", "--fps", "1", "--gflops-per-row", "1", "--kind", "logits")
SPEC = make_spec(classes=3)


@pytest.fixture(autouse=True)
def with_pyarrow() -> Any:
    return pytest.importorskip("pyarrow")


def exported(form: str, cache: Path, out: Path, *more: str | Path) -> tuple[int, str, str]:
    return run("export", cache, "--stream", SPEC.name, "--out", out, "--format", form, *more)


def test_every_number_of_float16_survives_as_digits() -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = numbers[np.isfinite(numbers)][:, None]
    again = np.array(of_digits(digits(finite))).astype(np.float16)
    assert np.array_equal(again.view(np.uint16), finite.view(np.uint16))
    assert digits(np.array([[0.1, np.nan]])) == [["0.1", ""]] and np.isnan(of_digits([[" "]])[0][0])


NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=8).map(str.strip).filter(bool)
TAKEN = {"video_id", "row", "start_s", "end_s"}


@st.composite
def streams(draw: st.DrawFn) -> tuple[StreamSpec, list[VideoRecord]]:
    dim, classes = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    if not dim and not classes:
        dim = 1
    names = draw(
        st.lists(
            NAMES.filter(lambda name: name not in TAKEN), min_size=classes, max_size=classes, unique=True
        )
    )
    spec = make_spec(SPEC.name, dim=dim, classes=classes)
    if classes and draw(st.booleans()):
        spec = replace(spec, classes=tuple(names))
    ids = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    records = []
    for video_id in ids:
        rows = draw(st.integers(1, 5))
        record = make_record(video_id, rows, dim=dim, classes=classes)
        bits = random.integers(0, 0x7BFF, (rows, dim + classes)) | (
            random.integers(0, 2, (rows, dim + classes)) << 15
        )
        values = bits.astype(np.uint16).view(np.float16)
        scores = values[:, dim:] if classes else None
        record = replace(record, features=values[:, :dim], scores=scores, duration_s=float(random.random()))
        if rows > 1 and draw(st.booleans()):
            record = without_rows(record, [int(random.integers(rows))])
        records.append(record)
    return spec, records


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25)
@given(given_stream=streams(), both=st.booleans())
def test_back_and_forth(form: str, given_stream: tuple[StreamSpec, list[VideoRecord]], both: bool) -> None:
    spec, records = given_stream
    what = "features" if spec.feature_dim and (both or not spec.num_classes) else "scores"
    only = () if form == "hf" and both else ("--what", what)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shard(folder / "cache" / spec.name, spec, records, tools={})
        code, _, err = exported(form, folder / "cache", folder / "out", *only)
        assert code == 0, err
        with_scores = what == "scores" or (form == "hf" and both and spec.num_classes)
        options = AGAIN if with_scores else AGAIN[:-2]
        code, _, err = run("import", folder / "out", *only, *options, "--into", folder / "other")
        assert code == 0, err
        again = FeatureCache(folder / "other")["again"]
        kept = FeatureCache(folder / "cache")[spec.name]
        assert sorted(again) == sorted(kept) and again.partial == kept.partial
        for record in records:
            ours, theirs = again[record.id], kept[record.id]
            for array in ("features", "scores") if form == "hf" and both else (what,):
                wanted, found = getattr(theirs, array), getattr(ours, array)
                if wanted is not None and wanted.shape[1]:
                    assert wanted.tobytes() == found.tobytes()
            assert ours.spans.tobytes() == theirs.spans.tobytes() and ours.lost == theirs.lost
            assert (ours.source, ours.fingerprint) == (theirs.source, theirs.fingerprint)
            assert (ours.duration_s, ours.fps) == (theirs.duration_s, theirs.fps)
        if spec.classes and again.spec.num_classes:
            assert again.spec.classes == spec.classes


@settings(max_examples=200)
@given(st.sets(st.text(st.sampled_from("./%~vVidEeoscsv"), min_size=1, max_size=8), max_size=20))
def test_no_csv_stands_in_the_way_of_the_list(ids: set[str]) -> None:
    names = [file_name(video_id, "csv") for video_id in {*ids, "videos", "Videos", "%76ideos"}]
    assert len(set(names)) == len(names) and "videos.csv" not in {name.lower() for name in names}


SAMPLINGS = {
    "frames": Sampling(fps=2.0),
    "snippets": Sampling("snippets", fps=30.0, frames=32, window=64, rows_per_s=1.0),
    "clips": Sampling("clips", fps=30.0, frames=16, window=80, clips=2, crops=3),
    "dense": Sampling("dense", fps=25.0, frames=16, window=16, stride=8),
}


@pytest.mark.parametrize("kind", SAMPLINGS)
@pytest.mark.parametrize("form", ("npy", "npz", *FORMS))
def test_an_export_says_what_its_stream_is(form: str, kind: str, tmp_path: Path) -> None:
    spec = replace(make_spec(SPEC.name, classes=3, sampling=SAMPLINGS[kind]), classes=("b", "a", "c"))
    seconds = {"frames": 3.0, "dense": 2.24}  # as long as six rows are
    record = replace(make_record("a.mp4", 6, classes=3), duration_s=seconds.get(kind, 6.0))
    if kind == "frames":
        record = replace(record, spans=record.spans / 2)
    write_shard(tmp_path / "cache" / spec.name, spec, [record], tools={})
    for what in ("features", "scores"):
        words = ("--what", what)
        assert exported(form, tmp_path / "cache", tmp_path / what, *words)[0] == 0
        code, out, err = run("import", tmp_path / what, *words, "--into", tmp_path / f"{what} again")
        assert code == 0 and f"note: an export of stream {spec.name}, whose sampling is taken" in out, err
        again = FeatureCache(tmp_path / f"{what} again")[spec.name]
        assert list(again) == ["a.mp4"] and again.spec.sampling == spec.sampling
        assert again.spec.classes == (spec.classes if what == "scores" else None)
        # Alone, scores cost what the classifier does, too, so that nothing is cheaper after than before.
        assert stream_cost(again.spec).macs == spec.macs_per_row + (8 * 3 if what == "scores" else 0)
    if form != "npy":
        assert np.array_equal(again["a.mp4"].spans, record.spans)
    code, _, err = run("import", tmp_path / "scores", *words, "--fps", "7", "--into", tmp_path / "other")
    assert (code == 2 and "according to the options" in err) or form == "npy"
    crops = ("--stream", "x3d_m@3crops", "--into", tmp_path / "other")
    if kind == "clips":  # three crops are larger ones, which the table's cost is not of
        assert run("import", tmp_path / "features", *crops)[0] == 0
        assert stream_cost(FeatureCache(tmp_path / "other")["x3d_m@3crops"].spec).macs == spec.macs_per_row
    other = ("--stream", "other", "--gflops-per-row", "2", "--into", tmp_path / "other")
    assert run("import", tmp_path / "scores", *words, *other)[0] == 0
    assert FeatureCache(tmp_path / "other")["other"].spec.macs_per_row == 2_000_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "does not say what its stream is"),
        (b"[1", "does not say what its stream is"),
        (b"\xff", "does not say what its stream is"),
        (make_spec(dim=9).to_json().encode(), "not 9 features a row, as the export says of its stream"),
    ],
)
def test_an_export_that_says_something_else(content: bytes, message: str, tmp_path: Path) -> None:
    write_stream(tmp_path / "cache", make_spec(SPEC.name), {"a": 3})
    assert run("export", tmp_path / "cache", "--stream", SPEC.name, "--out", tmp_path / "out")[0] == 0
    (tmp_path / "out" / SPEC_NAME).write_bytes(content)
    code, _, err = run("import", tmp_path / "out", *AGAIN[:-2], "--into", tmp_path / "again")
    assert code == 2 and message in err and err.count("\n") == 1


def test_seconds_that_are_not_known_stay_so(tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("video_id,cat,dog\na,1,-2\na,3,4\nb,5,6\nb,-1,0\n")
    made = ("--stream", SPEC.name, "--clips", "2", "--gflops-per-row", "1")
    assert run("import", scores, *made, "--into", tmp_path / "cache")[0] == 0
    for form in FORMS:
        assert exported(form, tmp_path / "cache", tmp_path / form)[0] == 0
        code, _, err = run("import", tmp_path / form, *made, "--into", tmp_path / f"{form} again")
        assert code == 0, err
        again, kept = (FeatureCache(tmp_path / name)[SPEC.name] for name in (f"{form} again", "cache"))
        assert again.digest() == kept.digest() and again.spec.classes == ("cat", "dog")


def test_other_programs_read_them(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    records = [make_record("a", 4, classes=3), make_partial("p", 6, [0, 3], classes=3)]
    failed = VideoRecord.failed(SPEC, "f", "no frames", source="f.mp4", fingerprint="x")
    write_shard(tmp_path / "cache" / SPEC.name, SPEC, [*records, failed], tools={})
    for form in FORMS:
        code, told, err = exported(form, tmp_path / "cache", tmp_path / form, "--json")
        assert code == 1 and err == "'f': no frames\n"
        assert json.loads(told) == {
            "written": 2,
            "present": 0,
            "partial": {"p": "damaged at 3 s"},
            "failed": {"f": "no frames"},
        }
    table = pq.read_table(tmp_path / "parquet/scores.parquet").to_pydict()
    assert table["video_id"] == ["a"] * 4 + ["p"] * 4 and table["row"] == [0, 1, 2, 3, 1, 2, 4, 5]
    scores = np.stack([table[f"score_{column}"] for column in range(3)], axis=1)
    assert np.array_equal(scores, np.concatenate([np.asarray(record.scores) for record in records]))
    first, *lines = (tmp_path / "csv/p.csv").read_text().splitlines()
    assert first == "start_s,end_s,score_0,score_1,score_2" and [line[:3] for line in lines] == [
        f"{second}.0" for second in (1, 2, 4, 5)
    ]
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_from_disk(str(tmp_path / "hf"))
    assert loaded["video_id"][:] == ["a", "p"] and loaded["lost"][:] == ["", "0 3"]
    assert loaded.features["features"].feature.length == 8
    for line, record in zip(loaded.with_format("numpy"), records, strict=True):
        for name in ("features", "scores"):
            assert np.array_equal(line[name], getattr(record, name))
        assert np.array_equal(line["spans"], record.spans) and line["duration_s"] == record.duration_s


def test_a_data_set_that_another_program_has_saved(tmp_path: Path) -> None:
    import pyarrow as pa

    datasets = pytest.importorskip("datasets")
    random = np.random.default_rng(0)
    rows = {"x": random.standard_normal((2, 4)), "y": random.standard_normal((3, 4))}
    table = pa.table(
        {
            "id": list(rows),
            "embedding": [one.astype(np.float32).tolist() for one in rows.values()],
            "mean": [one.mean(0).tolist() for one in rows.values()],
            "note": ["", ""],
        }
    )
    saved = datasets.Dataset(table, fingerprint="0")  # or it pickles the table, which not every version can
    saved.save_to_disk(str(tmp_path / "saved"))
    code, _, err = run("import", tmp_path / "saved", *AGAIN[:-2], "--into", tmp_path / "cache")
    assert (
        code == 2 and "no columns video_id and features, or scores; it has: id, embedding, mean, note" in err
    )
    nameless = datasets.Dataset(
        table.rename_columns(["subject", "embedding", "mean", "note"]), fingerprint="1"
    )
    nameless.save_to_disk(str(tmp_path / "nameless"))
    into = ("--into", tmp_path / "cache")
    code, _, err = run("import", tmp_path / "nameless", "--array", "embedding", *AGAIN[:-2], *into)
    assert (
        code == 2 and "no column 'video_id', or 'id', of the videos' ids; it has: subject, embedding" in err
    )
    for array, counts in (("embedding", [2, 3]), ("mean", [1, 1])):
        options = ("--array", array, "--stream", array, *AGAIN[2:-2])
        code, _, err = run("import", tmp_path / "saved", *options, "--into", tmp_path / "cache")
        assert code == 0, err
        stream = FeatureCache(tmp_path / "cache")[array]
        assert [len(stream[video].features) for video in rows] == counts
    assert np.array_equal(
        FeatureCache(tmp_path / "cache")["embedding"]["y"].features,
        rows["y"].astype(np.float32).astype(np.float16),
    )
    code, _, err = run(
        "import", tmp_path / "saved", "--array", "note", *AGAIN[:-2], "--into", tmp_path / "cache"
    )
    assert code == 2 and "no list of numbers" in err
    datasets.DatasetDict({"train": saved}).save_to_disk(str(tmp_path / "dict"))
    code, _, err = run("import", tmp_path / "dict", *AGAIN[:-2], "--into", tmp_path / "cache")
    assert code == 2 and "several data sets in one: give one of its folders" in err


def test_parquet_of_lists_and_of_pandas(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    rows = {"x": random.standard_normal((2, 4)), "y": random.standard_normal((3, 4))}
    lists = [one.astype(np.float32).tolist() for one in rows.values()]
    table = pa.table({"file_name": ["x.mp4", "y.mp4"], "features": lists, "mean": [one[0] for one in lists]})
    pq.write_table(table, tmp_path / "one.parquet")
    (tmp_path / "many/data").mkdir(parents=True)
    for number in range(2):
        pq.write_table(table.slice(number, 1), tmp_path / f"many/data/train-0000{number}-of-00002.parquet")
    for name in ("one.parquet", "many"):
        code, _, err = run("import", tmp_path / name, *AGAIN[:-2], "--into", tmp_path / f"of {name}")
        assert code == 0, err
        stream = FeatureCache(tmp_path / f"of {name}")["again"]
        for video, expected in rows.items():
            assert np.array_equal(stream[video].features, expected.astype(np.float32).astype(np.float16))
    words = ("--array", "mean", "--stream", "mean", *AGAIN[2:-2], "--into", tmp_path / "mean")
    assert run("import", tmp_path / "one.parquet", *words)[0] == 0
    found = FeatureCache(tmp_path / "mean")["mean"]["y"].features
    assert np.array_equal(found, rows["y"][:1].astype(np.float32).astype(np.float16))
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"cat": [1.5, -2.0], "dog": [0.0, 3.0]}, index=["x", "y"])
    frame.to_parquet(tmp_path / "scores.parquet")
    assert run("import", tmp_path / "scores.parquet", *AGAIN, "--into", tmp_path / "pandas")[0] == 0
    stream = FeatureCache(tmp_path / "pandas")["again"]
    assert stream.spec.classes == ("cat", "dog")
    assert np.array_equal(stream["y"].scores, [[-2.0, 3.0]])  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["parquet", "hf"])
def test_what_is_there_stays(form: str, tmp_path: Path) -> None:
    write_stream(tmp_path / "cache", SPEC, {"a": 4, "b": 2})
    out = tmp_path / "deep/out"
    out.mkdir(parents=True)  # an empty folder is nobody's
    assert exported(form, tmp_path / "cache", out)[0] == 0
    before = files_of(out)
    code, _, err = exported(form, tmp_path / "cache", out)
    assert code == 2 and "is there already" in err and err.count("\n") == 1
    code, _, err = exported(form, tmp_path / "cache", out, "--overwrite")
    assert code == 2 and "as a whole" in err and files_of(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    code, _, err = exported(form, tmp_path / "cache", tmp_path / "none" / "x", "--video", "c")
    assert code == 2 and "nothing to write" in err and not (tmp_path / "none").exists()


def test_a_csv_that_is_there_stays_unless_it_is_something_else(tmp_path: Path) -> None:
    write_stream(tmp_path / "cache", SPEC, {"a": 4, "b": 2})
    assert exported("csv", tmp_path / "cache", tmp_path / "out")[0] == 0
    before = files_of(tmp_path / "out")
    (tmp_path / "out/b.csv").unlink()
    assert "1 file written, 1 there already" in exported("csv", tmp_path / "cache", tmp_path / "out")[1]
    assert files_of(tmp_path / "out") == before
    (tmp_path / "out/a.csv").write_bytes(before["a.csv"][:-40])
    code, _, err = exported("csv", tmp_path / "cache", tmp_path / "out")
    assert code == 1 and "a.csv is there and is something else: use --overwrite" in err
    code, _, err = exported("csv", tmp_path / "cache", tmp_path / "out", "--dtype", "float32")
    assert code == 2 and "a CSV has digits" in err


@pytest.mark.parametrize("form", ["parquet", "hf"])
@pytest.mark.parametrize("moment", ["writing", "closing"])
def test_a_full_disk_leaves_nothing(
    form: str, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stream(tmp_path / "cache", SPEC, {"a": 1, "b": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if moment == "closing":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
        monkeypatch.setattr("cache_schema.tools.datasets._hf_columns", full)
    code, _, err = exported(form, tmp_path / "cache", tmp_path / "out")
    assert code == 2 and "No space left on device" in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "hf"])
def test_killed_it_leaves_nothing_or_all(form: str, tmp_path: Path) -> None:
    write_stream(tmp_path / "cache", SPEC, {f"v{number}": 3 for number in range(40)})
    out = tmp_path / "exported" / "out"
    out.parent.mkdir()
    assert exported(form, tmp_path / "cache", tmp_path / "undisturbed")[0] == 0
    expected = set(files_of(tmp_path / "undisturbed"))
    command = ("export", tmp_path / "cache", "--stream", SPEC.name, "--out", out, "--format", form)
    for _ in killed_at_random(*command, watched=out.parent, kills=4):
        assert not out.exists() or set(files_of(out)) == expected
        shutil.rmtree(out, ignore_errors=True)
    assert exported(form, tmp_path / "cache", out)[0] == 0
    assert [path.name for path in out.parent.iterdir()] == ["out"]  # nor what killed ones left


def test_without_pyarrow_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stream(tmp_path / "cache", SPEC, {"a": 1})
    for form in ("parquet", "hf"):
        assert exported(form, tmp_path / "cache", tmp_path / form)[0] == 0
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for form in ("parquet", "hf"):
        code, _, err = exported(form, tmp_path / "cache", tmp_path / "out")
        assert (
            code == 2
            and f"--format {form} needs a package that is not installed: pip install '.[{form}]'" in err
        )
        code, _, err = run("import", tmp_path / form, *AGAIN, "--into", tmp_path / "other")
        assert code == 2 and f"pip install '.[{form}]'" in err and err.count("\n") == 1


def test_a_class_called_as_a_column_is(tmp_path: Path) -> None:
    spec = replace(SPEC, classes=("cat", "row", "dog"))
    write_stream(tmp_path / "cache", spec, {"a": 2})
    code, _, err = exported("parquet", tmp_path / "cache", tmp_path / "out")
    assert code == 2 and "a class is called 'row'" in err and not (tmp_path / "out").exists()
    code, _, err = exported("hf", tmp_path / "cache", tmp_path / "out")
    assert code == 0
    code, _, err = run("import", tmp_path / "out", *AGAIN, "--into", tmp_path / "other")
    assert code == 0 and FeatureCache(tmp_path / "other")["again"].spec.classes == spec.classes


def _state(folder: Path, files: Sequence[object]) -> None:
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))


def _table(**columns: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), folder / "scores.parquet")

    return write


@pytest.mark.parametrize(
    ("form", "damage", "message"),
    [
        (
            "hf",
            lambda out: (out / "state.json").write_text("[" * 100_000),
            "cannot be read as that of a data set",
        ),
        ("hf", lambda out: _state(out, []), "names no files beside it"),
        ("hf", lambda out: _state(out, [{"filename": "../../x"}]), "names no files beside it"),
        ("hf", lambda out: _state(out, [{"filename": "none"}]), "cannot be read"),
        (
            "hf",
            lambda out: (out / "data-00000.arrow").write_bytes(b"x" * 100),
            "not a readable file of arrow",
        ),
        ("hf", lambda out: os.truncate(out / "data-00000.arrow", 2000), "data-00000.arrow: "),
        (
            "parquet",
            lambda out: os.truncate(out / "scores.parquet", 200),
            "scores.parquet: not a readable file",
        ),
        ("parquet", lambda out: (out / "scores.parquet").write_bytes(b""), "scores.parquet: "),
        ("parquet", _table(a=[1.0]), "no column 'video_id'"),
        ("parquet", _table(video_id=["a"]), "a column for each class"),
        ("parquet", _table(video_id=[1], x=[1.0]), "its video_id are no texts"),
        ("parquet", _table(video_id=["a", "b", "a"], x=[1.0, 2.0, 3.0]), "video 'a' occurs twice"),
        ("parquet", _table(video_id=["a"], x=["1"]), "'x' is string, which is no type of numbers"),
        ("parquet", _table(video_id=["a"], x=[None]), "no type of numbers"),
        ("parquet", _table(video_id=["a", "a"], x=[None, 1.0]), "not finite"),
        ("csv", lambda out: (out / "a.csv").write_text("start_s,end_s,x\n"), "no rows in it"),
        ("csv", lambda out: (out / "a.csv").write_text("video_id,x\na,1\n"), "must be start_s,end_s,NAME"),
        (
            "csv",
            lambda out: (out / "a.csv").write_text("start_s,end_s,x\n0,0,1,2\n"),
            "line 2: 4 cells, but 3",
        ),
        ("csv", lambda out: (out / "a.csv").write_text("start_s,end_s,x\n0,0,one\n"), "'one'"),
        ("csv", lambda out: (out / "a.csv").write_bytes(b"start_s,end_s,x\n\xff"), "not CSV in UTF-8"),
        ("csv", lambda out: (out / "b.csv").write_text("start_s,end_s,x\n0,0,1\n"), "other columns than"),
        ("csv", lambda out: (out / "a.csv").unlink(), "lists a.csv, which is not there"),
    ],
)
def test_what_is_damaged_is_refused_in_a_line(
    form: str, damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write_stream(tmp_path / "cache", SPEC, {"a": 3, "b": 2})
    assert exported(form, tmp_path / "cache", tmp_path / "out")[0] == 0
    damage(tmp_path / "out")
    code, _, err = run("import", tmp_path / "out", *AGAIN, "--into", tmp_path / "other")
    assert code == 2 and message in err and err.count("\n") == 1
    assert not (tmp_path / "other/again").exists() or not FeatureCache(tmp_path / "other").streams


def test_many_videos_are_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stream(tmp_path / "cache", SPEC, {f"v{number}": 1 + number % 5 for number in range(20)})
    monkeypatch.setattr("cache_schema.tools.datasets._PART_BYTES", 100)
    monkeypatch.setattr("cache_schema.tools.datasets._FILE_BYTES", 400)
    monkeypatch.setattr("cache_schema.importers.arrow._LINES", 3)
    monkeypatch.setattr("cache_schema.importers.arrow._VIDEOS", 2)
    for form in ("parquet", "hf"):
        assert exported(form, tmp_path / "cache", tmp_path / form)[0] == 0
        code, _, err = run("import", tmp_path / form, *AGAIN, "--into", tmp_path / f"{form} again")
        assert code == 0, err
        again, kept = (
            FeatureCache(tmp_path / f"{form} again")["again"],
            FeatureCache(tmp_path / "cache")[SPEC.name],
        )
        assert list(again) == list(kept)
        assert all(np.array_equal(np.asarray(again[v].scores), np.asarray(kept[v].scores)) for v in kept)
    assert len(list((tmp_path / "hf").glob("*.arrow"))) > 1
