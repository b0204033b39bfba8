"""train-policy evaluate and predict: finished runs on other videos, and at other operating points."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from cache_schema import FeatureCache, StreamSpec, UserError, VideoRecord, write_shard
from cache_schema.annotations import LabelSet
from policy.cli.train_policy import train_policy
from policy.config import DataConfig
from policy.deploy.session import open_session
from policy.evaluation.operating import OperatingTarget, TargetKind
from policy.evaluation.predictions import Judged, Predictions
from policy.finished import evaluate_run, predict_run
from policy.registry import configure
from policy.runs import load_method, open_data, read_config, run_method
from policy.selection.config import SelectionConfig, with_schedule
from policy.training.cross_fitting import cross_fitted
from tests.planted import write_planted, write_planted_labels
from tests.planted_actions import STREAMS, plant_actions, small
from tests.pools import plant_pool

CPU = torch.device("cpu")
BASELINES = (
    "liteeval-rl",
    "uniform",
    "uniform-cf",
    "lstm",
    "lstm-cf",
    "frame-glimpse",
    "fast-forward",
    "coarse-only",
)
TEST = DataConfig(eval_subset="test")
pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Trained:
    """Finished runs on one cache, of which the subset "val" is not used in training."""

    folder: Path
    cache: FeatureCache
    labels: LabelSet

    def add(self, method: str, name: str = "", **settings: Any) -> Path:
        values = {"epochs": 2, "batch": 16, "eval_subset": "test", **settings}
        config = configure(method, values)
        if isinstance(config, SelectionConfig):
            config = with_schedule(config, settings.keys())
        out = self.folder / (name or method)
        run_method(config, self.cache, self.labels, out, device="cpu")
        return out

    def run(self, name: str) -> Path:
        return self.folder / name

    def evaluated(self, name: str, **more: Any) -> Judged:
        return evaluate_run(self.run(name), self.cache, self.labels, config=TEST, **more).outcome.judged


def with_validation(labels: LabelSet) -> LabelSet:
    """The first half of the test videos become the subset "val"."""
    test = [video.video_id for video in labels.videos if video.subset == "test"]
    first = set(test[: len(test) // 2])
    videos = (replace(v, subset="val") if v.video_id in first else v for v in labels.videos)
    return LabelSet(labels.source, tuple(videos))


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("frames")
    cache, labels = write_planted(folder / "cache", train=32, test=48, classes=4, dim=8)
    trained = Trained(folder, cache, with_validation(labels))
    write_planted_labels(trained.labels, folder / "labels.csv")
    hidden: dict[str, Any] = {
        "coarse": "coarse_112",
        "fine": "fine_224",
        "coarse_hidden": 6,
        "fine_hidden": 12,
        "lr": 1e-2,
    }
    trained.add("liteeval", **hidden)
    trained.add("random-gating", **hidden, usage=0.5, gate_draws=2)
    both = {"coarse": "coarse_112", "fine": "fine_224"}
    for method in BASELINES:
        trained.add(method, **both, coarse_hidden=6, fine_hidden=12, epochs=1)
    return trained


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("pool")
    planted = plant_pool(folder / "cache", train=120, test=160, classes_per_group=2, telling=True)
    trained = Trained(folder, planted.cache, with_validation(planted.labels))
    trained.add("selector", models=planted.models, epochs=4, decisions="perceptron")
    trained.add(
        "selector", "price", models=planted.models, epochs=4, decisions="perceptron", rule="price", budget=6.0
    )
    trained.add("selector", "linear", models=planted.models, heads="linear", folds=3)
    trained.add("selector-cascade", models=planted.models, epochs=4, decisions="perceptron")
    trained.add("selector", "regressions", models=planted.models)
    trained.add("selector-cascade", "staged", models=planted.models)
    return trained


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("clips")
    cache, labels = plant_actions(folder / "cache", train=12, test=12, context=True)
    trained = Trained(folder, cache, with_validation(labels))
    settings: dict[str, Any] = {}
    for role, stream in zip(("appearance", "motion"), STREAMS, strict=True):
        alone = small(appearance=None, motion=None, epoch_steps=20) | {role: stream}
        settings |= {role: stream, f"{role}_run": str(trained.add("wtalc", role, **alone))}
    trained.add("localization-selector", **settings, epochs=4, batch=4)
    return trained


@pytest.fixture
def trained(request: pytest.FixtureRequest) -> Trained:
    found: Trained = request.getfixturevalue(request.param)
    return found


FAMILIES = [
    ("frames", "liteeval"),
    *(("frames", method) for method in BASELINES),
    ("pool", "selector"),
    ("pool", "price"),
    ("pool", "linear"),
    ("pool", "selector-cascade"),
    ("clips", "appearance"),
    ("clips", "localization-selector"),
]


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def copied(cache: FeatureCache, folder: Path, ids: Sequence[str], **changed: Any) -> FeatureCache:
    """A cache with some of the videos; `changed` are fields of the specifications."""
    for name in cache:
        stream = cache[name]
        records = [
            VideoRecord(
                id=video,
                features=np.array(stream[video].features),
                spans=np.array(stream[video].spans),
                scores=None if stream[video].scores is None else np.array(stream[video].scores),
                duration_s=100.0,
                fps=25.0,
            )
            for video in ids
        ]
        write_shard(folder / name, replace(stream.spec, **changed), records, tools={"thriftvid": "test"})
    return FeatureCache(folder)


def held_out_ids(trained: Trained) -> list[str]:
    return [video.video_id for video in trained.labels.videos if video.subset == "test"]


# --- other videos ---


@pytest.mark.slow
@pytest.mark.parametrize(("trained", "name"), FAMILIES, indirect=["trained"])
def test_the_run_judged_again_is_the_run(trained: Trained, name: str) -> None:
    before = digest(trained.run(name))
    done = evaluate_run(trained.run(name), trained.cache, trained.labels)
    result = json.loads((trained.run(name) / "result.json").read_text())["result"]
    assert done.subset == "test" and done.point is None
    assert done.outcome.result.as_json() == {
        **{k: v for k, v in result.items() if k != "metrics"},
        **result["metrics"],
    }
    assert digest(trained.run(name)) == before


@pytest.mark.slow
@pytest.mark.parametrize(("trained", "name"), FAMILIES, indirect=["trained"])
def test_another_cache_needs_no_training_videos(trained: Trained, name: str, tmp_path: Path) -> None:
    few = copied(trained.cache, tmp_path / "cache", held_out_ids(trained)[3:])
    labels = LabelSet(
        trained.labels.source, tuple(v for v in trained.labels.videos if v.video_id in few[next(iter(few))])
    )
    there = evaluate_run(trained.run(name), few, labels).outcome.judged
    here = trained.evaluated(name)
    assert there.video_ids == here.video_ids[3:]
    np.testing.assert_allclose(there.class_probabilities, here.class_probabilities[3:], atol=1e-5)
    np.testing.assert_array_equal(there.gflops, here.gflops[:, 3:])


@pytest.mark.slow
def test_the_order_of_a_pool_is_that_of_the_run(pool: Trained, tmp_path: Path) -> None:
    """Here the cheapest model looks at the most rows, so that by cost the order would be another."""
    cache = copied(pool.cache, tmp_path / "cache", held_out_ids(pool))
    dear = cache["m0"].spec.macs_per_row * 1000
    shutil.rmtree(tmp_path / "cache" / "m0")
    only = {"m0": pool.cache["m0"]}
    records = [
        VideoRecord(
            video,
            np.array(stream[video].features),
            np.array(stream[video].spans),
            np.array(stream[video].scores),
        )
        for stream in only.values()
        for video in held_out_ids(pool)
    ]
    write_shard(
        tmp_path / "cache" / "m0", replace(pool.cache["m0"].spec, macs_per_row=dear), records, tools={}
    )
    labels = LabelSet(pool.labels.source, tuple(v for v in pool.labels.videos if v.subset == "test"))
    for name in ("selector", "selector-cascade"):
        there = evaluate_run(pool.run(name), FeatureCache(tmp_path / "cache"), labels).outcome.judged
        np.testing.assert_allclose(
            there.class_probabilities, pool.evaluated(name).class_probabilities, atol=1e-6
        )


def test_another_subset_and_new_labels(frames: Trained) -> None:
    run = frames.run("liteeval")
    val = evaluate_run(run, frames.cache, frames.labels, config=DataConfig(eval_subset="val"))
    assert set(val.outcome.judged.video_ids).isdisjoint(held_out_ids(frames)) and val.subset == "val"
    two = tuple(
        v for v in frames.labels.videos if v.subset == "test" and v.labels[0] in ("class 0", "class 1")
    )
    few = evaluate_run(run, frames.cache, LabelSet(frames.labels.source, two)).outcome
    assert few.result.classes == 4 and few.result.videos == len(two) < len(held_out_ids(frames))


def test_a_class_that_the_run_does_not_know(frames: Trained) -> None:
    odd = [replace(v, labels=("heron",)) if v.subset == "test" else v for v in frames.labels.videos]
    with pytest.raises(UserError, match=r"1 class: 'heron' of subset 'test' that the run does not know"):
        evaluate_run(frames.run("liteeval"), frames.cache, LabelSet(frames.labels.source, tuple(odd)))


def test_another_network_is_refused_and_another_precision_named(frames: Trained, tmp_path: Path) -> None:
    run, ids = frames.run("liteeval"), held_out_ids(frames)
    other = copied(frames.cache, tmp_path / "a", ids, weights_digest="f" * 64)
    with pytest.raises(
        UserError, match=r"stream 'coarse_112' of the cache is not what .* weights_digest ffff"
    ):
        evaluate_run(run, other, frames.labels, config=TEST)
    notes: list[str] = []
    bf16 = copied(frames.cache, tmp_path / "b", ids, precision="bf16")
    evaluate_run(run, bf16, frames.labels, config=TEST, note=notes.append)
    assert sum("precision bf16 is not" in note for note in notes) == 2


# --- operating points ---

MOVED: list[tuple[str, str, TargetKind, float]] = [
    ("frames", "liteeval", "usage", 0.1),
    ("frames", "liteeval", "usage", 0.4),
    ("frames", "liteeval", "budget", 30.0),
    ("frames", "random-gating", "usage", 0.2),
    ("frames", "random-gating", "budget", 30.0),
    ("pool", "selector", "budget", 5.0),
    ("pool", "price", "budget", 3.0),
    ("pool", "selector-cascade", "budget", 5.0),
    ("clips", "localization-selector", "budget", 30.0),
    ("clips", "localization-selector", "usage", 0.3),
]


@pytest.mark.slow
@pytest.mark.parametrize(("trained", "name", "kind", "value"), MOVED, indirect=["trained"])
def test_calibration_videos_keep_the_operating_point(
    trained: Trained, name: str, kind: TargetKind, value: float, tmp_path: Path
) -> None:
    """Found on "val", and measured there through the folder that keeps it."""
    moved = tmp_path / "moved"
    trained.evaluated(name, target=OperatingTarget(kind, value), calibrate_subset="val", out=moved)
    val = DataConfig(eval_subset="val")
    judged = evaluate_run(moved, trained.cache, trained.labels, config=val).outcome.judged
    if kind == "usage":
        spent = judged.metrics()["usage"]
        few = 0.12 if name == "random-gating" else 0.01
        assert spent == pytest.approx(value, abs=few)
    else:
        mean_rows = judged.lengths.mean() if name.startswith("localization") else 1.0
        spent = judged.gflops.mean() / mean_rows
        assert spent == pytest.approx(value, rel=0.2 if name == "random-gating" else 0.06)
        if trained.folder.name.startswith("pool"):
            assert spent <= value


def test_a_moved_run_is_a_run_folder(frames: Trained, tmp_path: Path) -> None:
    before, moved = digest(frames.run("liteeval")), tmp_path / "moved"
    done = evaluate_run(
        frames.run("liteeval"),
        frames.cache,
        frames.labels,
        target=OperatingTarget("usage", 0.1),
        calibrate_subset="val",
        out=moved,
    )
    assert done.point is not None and done.point.value != 0
    assert float(load_file(moved / "model.safetensors")["threshold"]) == pytest.approx(done.point.value)
    open_session(moved)
    again = evaluate_run(moved, frames.cache, frames.labels).outcome
    assert again.result == done.outcome.result
    assert digest(frames.run("liteeval")) == before
    saved = Predictions.load(moved / "predictions.npz")
    np.testing.assert_array_equal(saved.scores, done.outcome.judged.class_probabilities[None])
    with pytest.raises(UserError, match="holds a run with another"):
        run_method(read_config(frames.run("liteeval")), frames.cache, frames.labels, moved, device="cpu")


@pytest.mark.slow
def test_a_moved_selector_is_a_run_folder(pool: Trained, tmp_path: Path) -> None:
    for name in ("price", "selector-cascade", "linear"):
        moved = tmp_path / name
        judged = pool.evaluated(
            name, target=OperatingTarget("budget", 4.0), calibrate_subset="val", out=moved
        )
        config = read_config(moved)
        assert isinstance(config, SelectionConfig) and config.budget == 4.0 and config.threshold is None
        assert open_session(moved).classes
        again = evaluate_run(moved, pool.cache, pool.labels).outcome.judged
        np.testing.assert_array_equal(again.gflops, judged.gflops)


def test_a_threshold_needs_no_videos(frames: Trained, pool: Trained) -> None:
    closed = frames.evaluated("liteeval", target=OperatingTarget("threshold", 1e6))
    opened = frames.evaluated("liteeval", target=OperatingTarget("threshold", -1e6))
    assert (closed.metrics()["usage"], opened.metrics()["usage"]) == (0, 1)
    cheapest = pool.evaluated("price", target=OperatingTarget("threshold", 1e6))
    assert (cheapest.gflops < 0.7).all()


@pytest.mark.parametrize(
    ("trained", "name"),
    [("pool", "selector"), ("pool", "selector-cascade"), ("clips", "localization-selector")],
    indirect=["trained"],
)
def test_training_videos_are_judged_by_networks_that_have_not_seen_them(trained: Trained, name: str) -> None:
    config = read_config(trained.run(name))
    data = open_data(config, trained.cache, trained.labels)
    method = load_method(trained.run(name), config, data)
    parts = cross_fitted(method, data, CPU, folds=3)
    assert sorted(video for _, videos in parts for video in videos.ids) == sorted(data.train.ids)
    whole = method.model.state_dict()
    for part, _ in parts:
        weights = part.model.state_dict()
        assert any(not torch.equal(weights[key], whole[key]) for key in whole if key.endswith("weight"))
    # What a network has learned does not change with the videos that it is held back from.
    kept, held = parts[0]
    flipped = data.train.labels.copy()
    places = [data.train.ids.index(video) for video in held.ids]
    flipped[places] = np.roll(flipped[places], 1, axis=1)
    first = flipped.argmax(axis=1)
    changed = replace(data, train=replace(data.train, labels=flipped, first=first))
    (again, _), *_ = cross_fitted(method, changed, CPU, folds=3)
    for key, value in kept.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[key], value)


def test_a_budget_on_the_training_videos(pool: Trained, frames: Trained) -> None:
    notes: list[str] = []
    done = evaluate_run(
        pool.run("selector"),
        pool.cache,
        pool.labels,
        target=OperatingTarget("budget", 5.0),
        note=notes.append,
    )
    assert done.point is not None and not done.point.trained_on
    assert any("each judged by a selector that has not seen it" in note for note in notes)
    assert done.outcome.details["threshold"]["found_on"] == done.point.found_on
    done = evaluate_run(
        frames.run("liteeval"),
        frames.cache,
        frames.labels,
        target=OperatingTarget("usage", 0.2),
        note=notes.append,
    )
    assert done.point is not None and done.point.trained_on
    assert any("which liteeval was trained on: others may use more or less" in note for note in notes)


# --- mistakes ---


@pytest.mark.parametrize(
    ("trained", "name", "kind", "value", "subset", "message"),
    [
        (
            "pool",
            "selector",
            "usage",
            0.1,
            "val",
            "has no such operating point; give --threshold or --budget",
        ),
        ("frames", "coarse-only", "budget", 9.0, "val", "coarse-only has no operating point that could be"),
        (
            "frames",
            "lstm",
            "budget",
            0.1,
            "val",
            "the least that is possible is 7.8 GFLOPs per video, with one",
        ),
        ("frames", "uniform", "threshold", 2.5, None, "K, the number of rows, is a whole number"),
        ("frames", "random-gating", "threshold", 1.0, None, "give --usage or --budget"),
        (
            "frames",
            "liteeval",
            "budget",
            0.01,
            "val",
            r"the least that is possible is [\d.]+ GFLOPs per video",
        ),
        ("pool", "selector", "budget", 0.1, "val", r"the least that is possible is 0\.6\d* GFLOPs"),
        ("pool", "selector-cascade", "budget", 0.1, None, r"the least that is possible is 0\.6\d* GFLOPs"),
        ("pool", "selector", "threshold", 2.0, None, "no confidence is larger than 1"),
        ("pool", "price", "threshold", -1.0, None, "threshold must not be negative"),
        ("clips", "localization-selector", "budget", 1.0, "val", r"cost 4\.\d+; that is the least possible"),
        ("clips", "localization-selector", "threshold", 1.5, None, "threshold must be between 0 and 1"),
        ("frames", "liteeval", "usage", 0.1, "test", r"videos that are judged, 24 of them, such as "),
        ("frames", "liteeval", "usage", 0.1, "vla", "no subset 'vla'; it has: train, val, test"),
    ],
    indirect=["trained"],
)
def test_impossible(
    trained: Trained, name: str, kind: TargetKind, value: float, subset: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        trained.evaluated(name, target=OperatingTarget(kind, value), calibrate_subset=subset)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("usage", 1.5), ("usage", -0.1), ("budget", 0), ("budget", float("nan")), ("threshold", float("inf"))],
)
def test_impossible_for_any(kind: TargetKind, value: float) -> None:
    with pytest.raises(UserError, match=f"--{kind} .* is impossible: it must be"):
        OperatingTarget(kind, value)


def test_training_videos_that_are_not_there(frames: Trained, pool: Trained, tmp_path: Path) -> None:
    few = copied(frames.cache, tmp_path / "cache", held_out_ids(frames))
    labels = LabelSet(frames.labels.source, tuple(v for v in frames.labels.videos if v.subset == "test"))
    with pytest.raises(UserError, match=r"--calibrate-subset names others; they are not here: .*'train'"):
        evaluate_run(frames.run("liteeval"), few, labels, target=OperatingTarget("usage", 0.1))
    undivided = LabelSet(Path("l.csv"), tuple(replace(v, subset="") for v in frames.labels.videos))
    with pytest.raises(UserError, match=r"not here: l\.csv has no subset 'train', which it was trained on$"):
        predict_run(
            frames.run("liteeval"), frames.cache, labels=undivided, target=OperatingTarget("usage", 0.1)
        )
    other = copied(pool.cache, tmp_path / "pool", held_out_ids(pool))
    with pytest.raises(UserError, match="--out: a run of selector is described with its training videos"):
        evaluate_run(pool.run("selector"), other, pool.labels, config=TEST, out=tmp_path / "out")


# --- commands ---


def command(*words: object) -> Result:
    result = CliRunner().invoke(train_policy, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def data_of(trained: Trained) -> list[object]:
    return ["--cache", trained.folder / "cache", "--labels", trained.folder / "labels.csv"]


def test_evaluate_on_the_command_line(frames: Trained) -> None:
    words = [frames.run("liteeval"), *data_of(frames), "--usage", 0.1, "--calibrate-subset", "val"]
    text = command("evaluate", *words)
    assert text.exit_code == 0, text.output
    assert re.search(r"GFLOPs per video +[\d.]+ ± [\d.]+", text.stdout)
    assert re.search(
        r"moved to --usage 0\.1: threshold on the log-odds of opening a gate -?[\d.]+, found on 24 videos of "
        r"subset 'val'",
        text.stdout,
    )
    assert "24 videos of subset 'test' for evaluation" in text.stderr
    shown = json.loads(command("evaluate", *words, "--json").stdout)
    assert shown["operating_point"]["usage"] == 0.1 and shown["subset"] == "test"
    assert shown["usage"] == pytest.approx(
        frames.evaluated("liteeval", target=OperatingTarget("usage", 0.1), calibrate_subset="val").metrics()[
            "usage"
        ]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--usage", 0.1, "--budget", 3], "give one of --usage 0.1 and --budget 3"),
        (["--calibrate-subset", "val"], "says on which videos --usage, --budget or --shared-budget is found"),
        (["--eval-subset", "nowhere"], "no subset 'nowhere'"),
        (["--budget", 0.01, "--calibrate-subset", "val"], "--budget 0.01: the least that is possible is "),
    ],
)
def test_mistakes_on_the_command_line(frames: Trained, words: list[object], message: str) -> None:
    result = command("evaluate", frames.run("liteeval"), *data_of(frames), *words)
    assert result.exit_code == 2 and message in result.stderr.splitlines()[-1]


def test_the_run_itself_is_no_place_to_write(frames: Trained, tmp_path: Path) -> None:
    run = frames.run("liteeval")
    assert "is the run itself" in command("evaluate", run, *data_of(frames), "--out", run).stderr
    assert "no run folder of train-policy" in command("evaluate", tmp_path, *data_of(frames)).stderr


@pytest.mark.slow
@pytest.mark.parametrize(("trained", "name"), FAMILIES, indirect=["trained"])
def test_predictions_need_no_labels(trained: Trained, name: str) -> None:
    said = predict_run(trained.run(name), trained.cache)
    assert set(said.video_ids) == set(trained.cache[next(iter(trained.cache))]) and not said.failed
    judged = trained.evaluated(name)
    places = [said.video_ids.index(video) for video in judged.video_ids]
    np.testing.assert_allclose(said.probabilities[places], judged.class_probabilities, atol=1e-5)


def test_predict_writes_the_best_classes(frames: Trained, tmp_path: Path) -> None:
    out = tmp_path / "predictions.csv"
    words = ["predict", frames.run("liteeval"), "--cache", frames.folder / "cache", "--out", out, "--top", 2]
    shown = json.loads(command(*words, "--json").stdout)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    said = predict_run(frames.run("liteeval"), frames.cache)
    assert len(rows) == 2 * len(said.video_ids)
    for place, video in enumerate(said.video_ids):
        lines = [row for row in rows if row["video_id"] == video]
        best = sorted(said.probabilities[place].tolist(), reverse=True)[:2]
        assert [int(row["rank"]) for row in lines] == [1, 2]
        assert [float(row["probability"]) for row in lines] == pytest.approx(best, rel=1e-4)
        assert list(shown["predictions"][video]) == [row["class"] for row in lines]
        assert said.classes[int(said.probabilities[place].argmax())] == lines[0]["class"]


def test_videos_without_rows_are_named(frames: Trained, tmp_path: Path) -> None:
    ids = held_out_ids(frames)
    cache = copied(frames.cache, tmp_path / "cache", ids)
    spec: StreamSpec = cache["coarse_112"].spec
    alone = VideoRecord("alone", np.zeros((3, 8), np.float16), np.zeros((3, 2)), duration_s=3, fps=1)
    broken = VideoRecord(
        "broken", np.zeros((0, 8), np.float16), np.zeros((0, 2)), error="moov atom not found"
    )
    write_shard(tmp_path / "cache" / "coarse_112", spec, [alone, broken], tools={})
    out = tmp_path / "predictions.csv"
    result = command("predict", frames.run("liteeval"), "--cache", tmp_path / "cache", "--out", out)
    assert result.exit_code == 1
    assert "no prediction for 'alone': not in fine_224" in result.stderr
    assert "no prediction for 'broken': failed in extraction: moov atom not found" in result.stderr
    assert f"{len(ids)} videos" in result.stdout
    assert (
        "is a folder"
        in command("predict", frames.run("lstm"), "--cache", frames.folder, "--out", tmp_path).stderr
    )


def test_predict_at_an_operating_point(frames: Trained, tmp_path: Path) -> None:
    run, target = frames.run("liteeval"), OperatingTarget("usage", 0.1)
    with pytest.raises(UserError, match="--labels must say which videos it is found on"):
        predict_run(run, frames.cache, target=target)
    with pytest.raises(UserError, match="--labels must say"):
        predict_run(run, frames.cache, target=target, calibrate_subset="val")
    said = predict_run(run, frames.cache, labels=frames.labels, target=target, calibrate_subset="val")
    moved = frames.evaluated("liteeval", target=target, calibrate_subset="val")
    places = [said.video_ids.index(video) for video in moved.video_ids]
    np.testing.assert_allclose(said.probabilities[places], moved.class_probabilities, atol=1e-5)
