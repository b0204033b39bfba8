"""Extraction and training from Python: what the commands do, with errors of one line."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import policy
from cache_schema import (
    FeatureCache,
    UserError,
    VideoRecord,
    export_features,
    import_features,
    write_shard,
)
from cache_schema.annotations import LabelSet, VideoLabel, read_labels
from cache_schema.arguments import in_python
from extract import extract
from extract.cli import batch_extract
from extract.sources import SourceVideo
from policy.api import _converted, configured
from policy.cli.train_policy import train_policy
from policy.config import types_of
from policy.data.padded import Item
from policy.deploy.applying import Answers
from policy.deploy.engine import Answer, Spent
from policy.evaluation.detection import Detections, GroundTruth
from policy.evaluation.ledger import Ledger
from policy.finished import ClassProbabilities
from policy.localization.judged import Localizations
from policy.registry import CONFIGS, usual_recipe
from tests.caches import make_partial, make_record, make_spec, write_stream
from tests.planted import write_planted, write_planted_labels

pytestmark = pytest.mark.usefixtures("one_thread")

WRONG: Any = 7
LITEEVAL: dict[str, Any] = {
    "coarse": "coarse_112",
    "fine": "fine_224",
    "epochs": 2,
    "batch": 8,
    "lr": 1e-3,
    "coarse_hidden": 6,
    "fine_hidden": 8,
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cache/, labels.csv and runs/liteeval, trained from Python."""
    folder = tmp_path_factory.mktemp("planted")
    _, labels = write_planted(folder / "cache", train=16, test=12, classes=4, dim=8, lengths=(3, 6))
    write_planted_labels(labels, folder / "labels.csv")
    policy.train(
        "liteeval",
        str(folder / "cache"),
        str(folder / "labels.csv"),
        str(folder / "runs/liteeval"),
        **LITEEVAL,
    )
    return folder


def test_train_and_train_policy_make_the_same_run(planted: Path, tmp_path: Path) -> None:
    options = [
        word for name, value in LITEEVAL.items() for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    places = ["--cache", planted / "cache", "--labels", planted / "labels.csv", "--out", tmp_path / "run"]
    done = CliRunner().invoke(train_policy, ["liteeval", *options, *map(str, places), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    ours, theirs = (policy.Run.load(folder) for folder in (planted / "runs/liteeval", tmp_path / "run"))
    assert ours.result == theirs.result and ours.config == theirs.config
    assert (ours.folder / "model.safetensors").read_bytes() == (
        theirs.folder / "model.safetensors"
    ).read_bytes()
    again = policy.train(
        configured("liteeval", LITEEVAL), planted / "cache", planted / "labels.csv", ours.folder
    )
    assert again.reused and again.result == ours.result
    assert repr(ours).startswith(f"Run({str(ours.folder)!r}: LiteEval, videos 12, classes 4: mAP ")


@pytest.mark.slow
def test_a_run_is_judged_moved_and_asked(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, cache, labels = policy.Run.load(planted / "runs/liteeval"), planted / "cache", planted / "labels.csv"
    judged = run.evaluate(cache, labels)
    assert judged.result == run.result and "12 videos of subset 'test'" in capsys.readouterr().out
    notes: list[str] = []
    curve = run.curve(cache, labels, usages=[0.0, 0.5, 1.0], note=notes.append)
    assert curve.gflops.shape == curve.top1.shape == (3,) and (np.diff(curve.gflops) > 0).all()
    assert sum("was trained on" in note for note in notes) == 1 and not capsys.readouterr().out
    alone = run.evaluate(cache, labels, usage=1.0, note=notes.append)
    assert alone.result.gflops_mean == curve.gflops[2] and alone.result.metrics["top1"] == curve.top1[2]
    assert "at 0.5: " in repr(curve) and "moved to usage 1" in repr(alone)
    found = run.predict(cache)
    assert found.probabilities.shape == (28, 4) and not found.failed and "videos 28" in repr(found)
    [first, second] = found.best(2)[:2]
    assert first[:2] == (found.video_ids[0], 1) and second[1] == 2 and first[3] >= second[3]
    assert first[2] == found.classes[found.probabilities[0].argmax()]
    for weights in ("random:0", ["random:0"], {"fine_224": "random:0"}):
        assert list(run.apply(__file__, weights=weights).failed) == ["test_api"]
    assert "top-1" in repr(run.predictions()) and "fine_224" in repr(run.open())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda run, cache, labels: run.curve(cache, labels),
            "one of usages, budgets, shared_budgets and thresholds",
        ),
        (
            lambda run, cache, labels: run.curve(cache, labels, usages=[0.1], budgets=[1.0]),
            "one of usages, budgets, shared_budgets and thresholds",
        ),
        (lambda run, cache, labels: run.curve(cache, labels, usages=[]), "at least one value"),
        (
            lambda run, cache, labels: run.evaluate(cache, labels, budgt=3.0),
            "evaluate takes no argument 'budgt'; did you mean budget",
        ),
        (lambda run, cache, labels: run.curve(cache, labels, usages=[0.1, 2]), "must be between 0 and 1"),
        (lambda run, cache, labels: run.evaluate(cache, labels, usage=0.1, budget=3.0), "give one of"),
        (
            lambda run, cache, labels: run.evaluate(cache, labels, calibrate_subset="train"),
            "give one of them",
        ),
        (lambda run, cache, labels: run.evaluate(cache, labels, out=run.folder), "is the run itself"),
        (lambda run, cache, labels: run.apply("nowhere.mp4"), "no such file or folder"),
        (
            lambda run, cache, labels: run.apply(__file__, weights={"x3d_m": "random:0"}),
            "weights x3d_m=random:0: 'x3d_m' is none of the streams",
        ),
        (lambda run, cache, labels: run.apply(__file__, weights=7), "weights: str or Path or a list of str"),
        (
            lambda run, cache, labels: run.apply([pickle]),
            "videos: str or Path or a list of str or Path is taken",
        ),
        (
            lambda run, cache, labels: run.evaluate(cache, labels, usage="0.1"),
            "usage: float or None is taken",
        ),
        (
            lambda run, cache, labels: run.curve(cache, labels, usages=["0.1"]),
            "usages: a list of float or None",
        ),
        (lambda run, cache, labels: run.predict(7), "cache: str or Path or FeatureCache is taken, not 7"),
        (lambda run, cache, labels: policy.Run.load(WRONG), "folder: str or Path is taken, not 7"),
        (lambda run, cache, labels: FeatureCache(WRONG), "folder: str or Path is taken, not 7"),
        (lambda run, cache, labels: read_labels(WRONG), "path: str or Path is taken, not 7"),
        (
            lambda run, cache, labels: policy.PaddedDataset(cache, [WRONG], labels),
            "streams: str or a list of str is taken, not [7]",
        ),
        (
            lambda run, cache, labels: policy.train("liteeval", WRONG, labels, "x"),
            "cache: str or Path or Feature",
        ),
        (lambda run, cache, labels: policy.Run.load("nowhere"), "no run folder of train-policy"),
        (
            lambda run, cache, labels: policy.train("litevall", cache, labels, "x"),
            "; did you mean liteeval or liteeval-rl?",
        ),
        (
            lambda run, cache, labels: policy.train("liteeval", cache, labels, "x", gama=1),
            "no option 'gama'; did you mean gamma?",
        ),
        (
            lambda run, cache, labels: policy.train("liteeval", cache, labels, "x", coarse="a"),
            "liteeval needs fine: Stream with the",
        ),
        (
            lambda run, cache, labels: policy.train(
                "liteeval", cache, labels, "x", **{**LITEEVAL, "epochs": "many"}
            ),
            "epochs: 'many' is no int",
        ),
        (
            lambda run, cache, labels: policy.train(
                "liteeval", cache, labels, "x", **{**LITEEVAL, "epochs": True}
            ),
            "epochs: True is no int",
        ),
        (
            lambda run, cache, labels: policy.train(
                "liteeval", cache, labels, "x", **{**LITEEVAL, "input_norm": "max"}
            ),
            "input-norm must be one of standard, l2, none",
        ),
        (
            lambda run, cache, labels: policy.train(run.config, cache, labels, "x", epochs=3),
            "epochs: options go with a method's",
        ),
        (
            lambda run, cache, labels: policy.train("liteeval", "nowhere", labels, "x", **LITEEVAL),
            "no such cache folder",
        ),
        (
            lambda run, cache, labels: policy.train("liteeval", cache, "nowhere.csv", "x", **LITEEVAL),
            "nowhere.csv",
        ),
        (
            lambda run, cache, labels: policy.train(
                "selector-cascade", cache, labels, "x", models=["coarse_112"], budget=1.0, threshold=0.1
            ),
            "give threshold or budget",
        ),
        (
            lambda run, cache, labels: policy.train("ar-net", cache, labels, "x", coarse="coarse_112"),
            "ar-net has no option 'coarse'; ar-net names its streams by streams (A stream that it may choose",
        ),
        (
            lambda run, cache, labels: policy.train("motion-difference", cache, labels, "x", epochs=3),
            "motion-difference has no option 'epochs'; nothing of motion-difference is trained by gradient",
        ),
    ],
)
def test_mistakes_are_a_line(
    call: Any, message: str, planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = policy.Run.load(planted / "runs/liteeval")
    with pytest.raises(UserError) as caught:
        call(run, planted / "cache", planted / "labels.csv")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("method", CONFIGS)
def test_every_default_is_a_value_of_its_option(method: str) -> None:
    config = CONFIGS[method]
    for option in fields(config):
        assert _converted(option.name, option.default, types_of(config)[option.name]) == option.default


@pytest.mark.parametrize("method", CONFIGS)
def test_a_method_has_the_recipe_of_its_command(method: str) -> None:
    defaults = [option.default for option in train_policy.commands[method].params if option.name == "recipe"]
    assert usual_recipe(method) == (defaults[0] if defaults and isinstance(defaults[0], str) else None)


def test_options_may_be_lists_paths_and_numbers_of_numpy() -> None:
    config = configured(
        "liteeval",
        {
            **LITEEVAL,
            "lr_drop": [np.int64(3)],
            "lr": np.float32(0.5),
            "epochs": np.int64(7),
            "weight_decay": 1,
        },
    )
    assert (config.lr_drop, config.lr, config.epochs, config.weight_decay) == ((3,), 0.5, 7, 1.0)
    assert [type(v) for v in (config.lr_drop[0], config.lr, config.epochs)] == [int, float, int]


def test_extract_and_batch_extract_say_the_same(tmp_path: Path) -> None:
    """Mistakes: what comes of videos is in test_python_page.py and, through the command, test_extract.py."""
    (tmp_path / "v.mp4").write_bytes(b"no video")
    for options, words in (
        ({"streams": "resnet1000"}, ["--stream", "resnet1000"]),
        ({"streams": ["x3d_m"], "fps": 2.0}, ["--stream", "x3d_m", "--fps", "2"]),
        ({"streams": "x3d_m", "weights": {"x3d_s": "a"}}, ["--stream", "x3d_m", "--weights", "x3d_s=a"]),
        (
            {"streams": "x3d_m", "backend": "dask"},
            ["--stream", "x3d_m", "--backend", "dask"],
        ),
    ):
        told = CliRunner().invoke(
            batch_extract, [str(tmp_path / "v.mp4"), "--cache", str(tmp_path / "cache"), *words]
        )
        assert told.exit_code == 2
        with pytest.raises(UserError) as caught:
            extract(str(tmp_path / "v.mp4"), str(tmp_path / "cache"), **options)
        words_of_command = in_python(told.output, {"stream": "streams", "deadline": "deadline_s"})
        assert f"Error: {caught.value}\n" in words_of_command
    with pytest.raises(UserError, match="no stream to extract"):
        extract(tmp_path / "v.mp4", tmp_path / "cache", [])
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"streams": [pickle]}, "streams: str or a list of str is taken, not [<module 'pickle'"),
        ({"fps": "2"}, "fps: float or None is taken, not '2'"),
        ({"fps": True}, "fps: float or None is taken, not True"),
        ({"damaged": "kept"}, "damaged: 'refuse' or 'keep' is taken, not 'kept'"),
        ({"weights": {"x3d_m": 0}}, "weights: str or Path or a list of str or Path or a dict of"),
    ]
    for given_wrongly, message in wrong:
        with pytest.raises(UserError) as caught:
            extract(tmp_path / "v.mp4", tmp_path / "cache", **{"streams": "x3d_m", **given_wrongly})
        assert str(caught.value).startswith(message)


@pytest.mark.slow
def test_what_cannot_be_read_is_named_and_not_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video")
    threads = torch.get_num_threads()
    stream = {"streams": "timm:resnet10t@32", "weights": "random:0", "threads": 2, "workers": 1}
    planned = extract(tmp_path, tmp_path / "cache", dry_run=True, **stream)  # type: ignore[arg-type]
    assert (
        planned.forecast is not None and list(planned.failed) == ["v"] and not (tmp_path / "cache").exists()
    )
    done = extract([tmp_path], tmp_path / "cache", **stream)  # type: ignore[arg-type]
    assert list(done.failed) == ["v"] and done.open()["resnet10t_32"].failures == done.failed
    assert repr(done).startswith("1 video: 0 extracted (0 frames), 0 already there, 1 failed; cache ")
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["policy", "extract", "cache_schema"])
def test_an_import_is_quick(name: str) -> None:
    code = (
        f"import sys, {name}; assert {{*{name}.__all__}} <= {{*dir({name})}}; "
        f"assert not {{'torch', 'pandas', 'av'}} & set(sys.modules); {name}.nothing"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines()[-1] == f"AttributeError: module '{name}' has no attribute 'nothing'"


def three_videos(folder: Path) -> list[VideoRecord]:
    """In stream tiny_8: one whole, one in part, one failed."""
    spec = make_spec(classes=3)
    records = [
        make_record("a", 4, classes=3),
        make_partial("p", 6, [0, 3], classes=3),
        VideoRecord.failed(spec, "f", "no frames", source="f.mp4", fingerprint="x"),
    ]
    write_shard(folder / spec.name, spec, records, tools={})
    return records


def test_lines_name_arguments_and_commands_keep_their_options(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, places = policy.Run.load(planted / "runs/liteeval"), (planted / "cache", planted / "labels.csv")
    run.evaluate(*places, usage=0.5)
    told = capsys.readouterr().out
    assert "usage 0.5 is set on " in told and "; calibrate_subset names a subset" in told and "--" not in told
    with pytest.raises(
        UserError, match=r"^calibrate_subset says on which videos usage, budget or shared_budget is found"
    ):
        run.evaluate(*places, calibrate_subset="test")
    undivided, lines = planted / "undivided.csv", (planted / "labels.csv").read_text().splitlines()
    undivided.write_text("\n".join(line.rpartition(",")[0] for line in lines))
    with pytest.raises(UserError, match=r"; read_labels' val_fraction 0\.2 sets a fifth"):
        policy.train("liteeval", planted / "cache", undivided, planted / "none", **LITEEVAL)
    options = [run.folder, "--cache", places[0], "--labels", places[1], "--usage", "0.5"]
    done = CliRunner().invoke(train_policy, ["evaluate", *map(str, options)])
    assert "--usage 0.5 is set on " in done.output and "; --calibrate-subset names" in done.output


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--skip-missing leaves them out", "skip_missing leaves them out"),
        ("give --model A (--model, repeated)", "give models A (models, repeated)"),
        ("`feature-cache drop C --all-streams`, or --out", "`feature-cache drop C --all-streams`, or out"),
        ("a--b, x --- y -- z --1", "a--b, x --- y -- z --1"),
    ],
)
def test_a_line_in_python(line: str, words: str) -> None:
    assert in_python(line, {"model": "models"}) == words


def test_reprs_are_a_line(tmp_path: Path) -> None:
    records = three_videos(tmp_path)
    cache = FeatureCache(tmp_path)
    stream = cache["tiny_8"]
    assert repr(cache) == f"FeatureCache({str(tmp_path)!r}: tiny_8)"
    assert repr(stream) == "Stream('tiny_8': videos 2 (1 failed), rows 8, features 8, scores 3)"
    assert repr(stream["a"]) == "VideoRecord('a': rows 4, features 8, scores 3, duration_s 4)"
    assert repr(stream["p"]).endswith("duration_s 6, partial: damaged at 3 s)")
    assert (
        repr(records[2])
        == "VideoRecord('f': rows 0, features 8, scores 3, duration_s nan, failed: no frames)"
    )


def test_reprs_of_what_was_found() -> None:
    none, places = np.zeros(0, np.int64), np.array([0, 0, 1])
    found = Detections(places, places, np.zeros((3, 2)), np.zeros(3))
    assert repr(found) == "Detections(3 in 2 videos)"
    judged = Localizations(
        ("a", "b"),
        ("x", "y", "z"),
        np.zeros((2, 3), np.bool_),
        np.zeros((2, 3), np.float32),
        np.array([0, 4, 6]),
        Ledger({"s": np.array([1_000_000_000, 2_000_000_000])}),
        found,
        GroundTruth(none, none, np.zeros((0, 2)), none, np.zeros((0, 2))),
    )
    assert repr(judged) == "Localizations(videos 2, classes 3: detections 3, 1.500 GFLOPs per video)"


def test_features_go_out_of_a_cache_and_into_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three_videos(tmp_path / "cache")
    stream = FeatureCache(tmp_path / "cache")["tiny_8"]
    done = export_features(stream, str(tmp_path / "out"), video_ids=["a", "f"])
    assert (done.written, done.failed) == (1, {"f": "no frames"})
    [made] = import_features(str(tmp_path / "out"), str(tmp_path / "other"))
    again = FeatureCache(tmp_path / "other")["tiny_8"]
    assert np.array_equal(again["a"].features, stream["a"].features) and list(again) == ["a"]
    assert made.spec == again.spec and (made.imported.videos, made.imported.rows) == (1, 4)
    assert "an export of stream tiny_8, whose sampling is taken" in capsys.readouterr().out
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(2, 3)))
    how: dict[str, Any] = {"ids": ["a", "b"], "classes": ["x", "y", "z"], "gflops_per_row": np.float32(2)}
    [made] = import_features(tmp_path / "x.npy", tmp_path / "more", "x", note=print, **how)
    assert made.spec.classes == ("x", "y", "z") and made.spec.macs_per_row == 2_000_000_000
    with pytest.raises(UserError, match=r"^say what a row costs, .*: gflops_per_row 4\.73"):
        import_features(tmp_path / "x.npy", tmp_path / "more", "y", ids=["a", "b"])
    with pytest.raises(
        UserError, match=r"^overwrite: form hf writes a folder as a whole: choose another out$"
    ):
        export_features(stream, tmp_path / "hf", form="hf", overwrite=True)
    with pytest.raises(
        UserError, match="form: 'npy' or 'npz' or 'csv' or 'parquet' or 'hf' is taken, not 'h5'"
    ):
        export_features(stream, tmp_path / "h5", form=cast(Any, "h5"))


def test_predictions_and_curves_as_tables(planted: Path) -> None:
    pytest.importorskip("pandas")
    run = policy.Run.load(planted / "runs/liteeval")
    found = run.predictions()
    table = found.to_frame()
    assert table.index.tolist() == list(found.video_ids) and table["rows"].tolist() == found.lengths.tolist()
    for number, video in enumerate(found.video_ids):
        start, end = found.offsets[number : number + 2]
        line, scores = table.loc[video], found.scores[:, number].mean(axis=0)
        assert line["fine_rows"] == found.gates[:, start:end].sum() / len(found.gates)
        assert np.isclose(line["usage"], found.gates[:, start:end].mean())
        assert line["class"] == scores.argmax() and np.isclose(line["probability"], scores.max())
        assert line["correct"] == found.labels[number, found.scores[:, number].argmax(axis=1)].mean()
    assert np.isclose(table["gflops"].mean(), run.result.gflops_mean)
    curve = run.curve(planted / "cache", planted / "labels.csv", usages=[0.5, 0.0], note=lambda line: None)
    points = curve.to_frame()
    assert points.index.tolist() == [0.5, 0.0] and points["top1"].tolist() == curve.top1.tolist()
    assert list(points.columns) == ["gflops", "top1", "mean_average_precision"]
    assert points["gflops"].tolist() == curve.gflops.tolist()


def test_detections_as_a_table() -> None:
    pytest.importorskip("pandas")
    found = Detections(
        np.array([1, 0, 1]),
        np.array([1, 0, 0]),
        np.array([[1.0, 2.0], [0.5, 3.0], [4.0, 6.0]]),
        np.array([0.2, 0.1, 0.9]),
    )
    none = GroundTruth(
        *(np.zeros(0, np.int64),) * 2, np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros((0, 2))
    )
    judged = Localizations(
        ("a", "b"),
        ("x", "y"),
        np.ones((2, 2), np.bool_),
        np.ones((2, 2), np.float32),
        np.array([0, 1, 2]),
        Ledger({"a network": np.ones((1, 2), np.int64)}),
        found,
        none,
    )
    table = judged.to_frame()
    assert table.index.tolist() == [("a", 1), ("b", 1), ("b", 2)]
    assert table["class"].tolist() == ["x", "x", "y"] and table["score"].tolist() == [0.1, 0.9, 0.2]
    assert table["start_s"].tolist() == [0.5, 4.0, 1.0] and table["end_s"].tolist() == [3.0, 6.0, 2.0]
    nothing = replace(judged, detections=Detections(*(part[:0] for part in vars(found).values())))
    assert not len(nothing.to_frame())


def test_a_cache_goes_to_other_processes_without_its_rows(tmp_path: Path) -> None:
    write_stream(tmp_path, make_spec(), {"a": 2000, "b": 3})
    cache = FeatureCache(str(tmp_path))
    rows = cache["tiny_8"]["a"].features
    packed = pickle.dumps(cache)
    assert len(packed) < 1000
    assert np.array_equal(pickle.loads(packed)["tiny_8"]["a"].features, rows)


def test_tables(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    three_videos(tmp_path)
    stream = FeatureCache(tmp_path)["tiny_8"]
    videos = stream.to_frame()
    assert list(videos.index) == ["a", "p", "f"] and list(videos["rows"]) == [4, 4, 0]
    assert list(videos["status"]) == ["ok", "partial", "failed"]
    assert list(videos["reason"]) == ["", "damaged at 3 s", "no frames"]
    assert videos.loc["a", ["duration_s", "fps", "source"]].tolist() == [4.0, 25.0, "a.mp4"]
    rows = stream.to_frame("features")
    assert list(rows.loc["p"].index) == [1, 2, 4, 5] and rows.index.names == ["video_id", "row"]
    assert np.array_equal(rows.loc["a"].iloc[:, 2:].to_numpy().astype(np.float16), stream["a"].features)
    assert np.array_equal(rows.loc["p"][["start_s", "end_s"]].to_numpy(), stream["p"].spans)
    assert list(stream.to_frame("scores", ["p"]).columns) == ["start_s", "end_s", 0, 1, 2]
    with pytest.raises(UserError, match="'x' is not in stream 'tiny_8'"):
        stream.to_frame("videos", ["x"])
    with pytest.raises(UserError, match="could not be read when it was extracted: no frames"):
        stream.to_frame("features", ["f"])
    write_stream(tmp_path / "bare", make_spec(), {"a": 1})
    with pytest.raises(UserError, match="this stream has no scores"):
        FeatureCache(tmp_path / "bare")["tiny_8"].to_frame("scores")
    assert isinstance(videos, pandas.DataFrame)


def test_without_pandas_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    write_stream(tmp_path, make_spec(), {"a": 2})
    with pytest.raises(
        UserError, match=r"a table needs a package that is not installed: pip install '\.\[pandas\]'"
    ):
        FeatureCache(tmp_path)["tiny_8"].to_frame()


def test_tables_of_predictions() -> None:
    pytest.importorskip("pandas")
    probabilities = np.array([[0.2, 0.8], [0.6, 0.4]], np.float32)
    found = ClassProbabilities(("a", "b"), ("x", "y"), probabilities, {}, None).to_frame(1)
    assert found.reset_index().values[:, :3].tolist() == [["a", 1, "y"], ["b", 1, "x"]]
    video = SourceVideo("a", Path("a.mp4"))
    answer = Answer(video, 3.0, np.array([0.25, 0.75]), {"s": 1.0, "t": 0.5}, (1, 4), None, (), 9, 2, Spent())
    answers = Answers(("x", "y"), {"a": answer}, {"b": "no frames"})
    assert list(answers) == ["a"] and answers.probabilities.tolist() == [[0.25, 0.75]]
    line = answers.to_frame(2).loc["a"]
    assert (line["label_1"], line["probability_1"], line["label_2"], line["gflops"]) == ("y", 0.75, "x", 1.5)
    assert (line["expensive_share"], line["duration_s"], line["damage"]) == (0.25, 3.0, "")
    assert repr(answers).splitlines() == [
        "Answers(1 video of 2 classes, 1 failed)",
        "  a: y (0.750), 1.500 GFLOPs",
    ]
    assert repr(answer) == "Answer('a': 3 s, 1 of 4 expensive rows, 1.500 GFLOPs)"
    nothing = Answers(("x", "y"), {}, {})
    assert nothing.probabilities.shape == (0, 2) and not len(nothing.to_frame())


# ---- networks of one's own


def two_streams(folder: Path) -> FeatureCache:
    """One of clips, which has other rows than the frames."""
    write_stream(folder, make_spec("frames_8"), {"a": 4, "b": 1, "c": 2})
    write_stream(folder, make_spec("other_5", dim=5, classes=3), {"a": 2, "b": 2, "d": 1}, seed=1)
    return FeatureCache(folder)


def test_a_dataset_gives_rows_that_may_be_written_to(tmp_path: Path) -> None:
    cache = two_streams(tmp_path)
    labels = LabelSet(
        Path("l.csv"),
        (VideoLabel("b", ("x",), "train"), VideoLabel("a", ("y",), "train"), VideoLabel("c", ("x",), "test")),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = policy.PaddedDataset(str(tmp_path), ["frames_8", "other_5"], labels, subset="train")
        item = dataset[1]
        item.features["frames_8"] += 1
        assert torch.equal(
            torch.tensor(cache["frames_8"]["a"].features), dataset[-1].features["frames_8"].half()
        )
    assert dataset.video_ids == ("b", "a") and dataset.classes == ("x", "y") and len(dataset) == 2
    assert item.video_id == "a" and item.target == 1 and item.features["other_5"].shape == (2, 5)
    assert repr(dataset) == "PaddedDataset(features of frames_8 and other_5: videos 2, classes 2)"
    with pytest.raises(IndexError):
        dataset[2]
    scores = policy.PaddedDataset(cache, "other_5", scores=True)
    assert scores.video_ids == ("a", "b", "d") and scores[0].target == -1
    assert scores[0].features["other_5"].tolist() == np.asarray(cache["other_5"]["a"].scores).tolist()
    several = LabelSet(Path("l.csv"), (VideoLabel("a", ("y", "x"), "all"), VideoLabel("b", ("z",), "all")))
    assert policy.PaddedDataset(cache, "frames_8", several)[0].target.tolist() == [1.0, 1.0, 0.0]
    assert policy.PaddedDataset(cache, "frames_8", several, multi_label=False)[0].target == 1
    both = policy.PaddedDataset(cache, ["frames_8", "other_5"])
    assert both.video_ids == ("a", "b")


def test_a_dataset_says_what_does_not_fit(tmp_path: Path) -> None:
    cache = two_streams(tmp_path)
    labels = LabelSet(Path("l.csv"), (VideoLabel("a", ("x",), "train"), VideoLabel("c", ("x",), "test")))
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: policy.PaddedDataset(cache, []), "no stream to read"),
        (lambda: policy.PaddedDataset(cache, "x"), "no stream 'x' in this cache"),
        (lambda: policy.PaddedDataset(cache, "frames_8", scores=True), "stream 'frames_8' has no scores"),
        (lambda: policy.PaddedDataset(cache, "frames_8", subset="train"), "of which labels?"),
        (lambda: policy.PaddedDataset(cache, "frames_8", labels), "which subset. It has: train, test"),
        (lambda: policy.PaddedDataset(cache, "other_5", labels, subset="test"), "'c'"),
    ]
    for call, message in calls:
        with pytest.raises(UserError, match=message):
            call()


@pytest.mark.slow
def test_workers_of_a_loader_read_it(tmp_path: Path) -> None:
    dataset = policy.PaddedDataset(two_streams(tmp_path), "frames_8")
    loader = DataLoader(
        dataset, batch_size=2, collate_fn=policy.pad, num_workers=1, multiprocessing_context="spawn"
    )
    batches = list(loader)
    assert [batch.video_ids for batch in batches] == [("a", "b"), ("c",)]
    assert torch.equal(batches[1].features["frames_8"][0], dataset[2].features["frames_8"])


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 3)), min_size=1, max_size=5))
def test_padding(sizes: list[tuple[int, int]]) -> None:
    random = np.random.default_rng(len(sizes))
    items = [
        Item(
            str(number),
            {
                "long": torch.from_numpy(random.standard_normal((long, 3)).astype(np.float32)),
                "short": torch.from_numpy(random.standard_normal((short, 2)).astype(np.float32)),
            },
            torch.tensor(number),
        )
        for number, (long, short) in enumerate(sizes)
    ]
    batch = policy.pad(items)
    assert batch.video_ids == tuple(map(str, range(len(sizes)))) and batch.targets.tolist() == list(
        range(len(sizes))
    )
    for place, name in enumerate(("long", "short")):
        lengths = [size[place] for size in sizes]
        rows, mask = batch.features[name], batch.mask[name]
        assert batch.lengths[name].tolist() == lengths
        assert rows.shape[:2] == mask.shape == (len(sizes), max(lengths))
        for number, length in enumerate(lengths):
            assert torch.equal(rows[number, :length], items[number].features[name])
            assert not rows[number, length:].any()
            assert mask[number].tolist() == [row < length for row in range(max(lengths))]
