"""Trained policies whose videos share a budget: on a cache, in sessions, from the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from policy.cli.train_policy import train_policy
from policy.config import DataConfig
from policy.deploy.export import export_onnx
from policy.deploy.session import open_session
from policy.deploy.sharing import SharedSession
from policy.evaluation.operating import OperatingTarget, TargetKind
from policy.evaluation.predictions import Predictions
from policy.finished import Evaluated, evaluate_run, predict_run
from policy.registry import configure
from policy.runs import SHARING, run_method
from policy.training.sharing import RESAMPLES
from tests.planted import write_planted, write_planted_labels
from tests.sessions import drive

CPU = torch.device("cpu")
TEST = DataConfig(eval_subset="test")
SHARE: Mapping[str, Mapping[str, Any]] = {
    "liteeval": {},
    "uniform": {},
    "uniform-cf": {},
    "lstm": {},
    "lstm-cf": {},
    "frame-glimpse": {},
    "fast-forward": {},
    "scsampler": {},
    "ar-net": {"streams": ("coarse_112", "fine_224"), "policy_hidden": 12},
    "frame-exit": {},
    "adaframe": {},
    "motion-difference": {},
    "confidence-exit": {},
}
QUICK = ("lstm", "frame-exit")
pytestmark = pytest.mark.usefixtures("one_thread")


class Runs:
    """Finished runs on one cache, made when they are asked for; the subset "val" is not used in training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        cache, labels = write_planted(folder / "cache", train=40, test=80, classes=4, dim=8, signal=3.0)
        test = [video.video_id for video in labels.videos if video.subset == "test"]
        half = set(test[: len(test) // 2])
        videos = (replace(v, subset="val") if v.video_id in half else v for v in labels.videos)
        self.cache: FeatureCache = cache
        self.labels = LabelSet(labels.source, tuple(videos))
        write_planted_labels(self.labels, folder / "labels.csv")

    def of(self, name: str, **more: Any) -> Path:
        folder = self.folder / "-".join([name, *map(str, more.values())])
        both: dict[str, Any] = {
            "coarse": "coarse_112",
            "fine": "fine_224",
            "coarse_hidden": 6,
            "fine_hidden": 12,
        }
        values = {**both, "epochs": 3, "batch": 8, "lr": 1e-2, "eval_subset": "test"}
        run_method(
            configure(name, {**values, **SHARE.get(name, {}), **more}),
            self.cache,
            self.labels,
            folder,
            device="cpu",
        )
        return folder

    def shared(self, run: Path, budget: float, **more: Any) -> Evaluated:
        target = OperatingTarget("shared_budget", budget)
        options = {"config": TEST, "calibrate_subset": "val", **more}
        return evaluate_run(run, self.cache, self.labels, target=target, **options)

    def between(self, run: Path, share: float) -> float:
        """A budget between the cheapest point and the dearest."""
        with pytest.raises(UserError, match=r"the least that .* comes to is") as raised:
            self.shared(run, 1e-6)
        least = float(str(raised.value).split(" GFLOPs per video")[0].split()[-1])
        most = float(np.mean([len(self.cache["fine_224"][v.video_id].features) for v in self.labels.videos]))
        return least + share * (7.9 * most - least)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SHARE]
)
def test_videos_share_a_budget_on_the_cache_and_in_sessions_alike(
    name: str, runs: Runs, tmp_path: Path
) -> None:
    """Rows that both points look at are computed, and charged, once."""
    run, out = runs.of(name), tmp_path / "out"
    runs.shared(run, runs.between(run, 0.2), out=out)
    promise_more(out / SHARING)
    judged = evaluate_run(out, runs.cache, runs.labels, config=TEST).outcome.judged
    assert isinstance(judged, Predictions)
    session = open_session(out)
    assert isinstance(session, SharedSession)
    went_on = []
    for place, video in list(enumerate(judged.video_ids))[::4]:
        drive(session, runs.cache, video, most=3)
        assert session.probabilities.numpy() == pytest.approx(judged.scores[0, place], abs=1e-5)
        assert session.macs / 1e9 == pytest.approx(judged.gflops[0, place])
        went_on.append(session._point > 0)
    assert any(went_on)


def promise_more(path: Path) -> None:
    """All videos start at the cheapest point, and are told that dearer ones are better."""
    content = json.loads(path.read_bytes())
    biases = np.array(content["biases"])
    biases += 0.5 * np.arange(len(biases))
    path.write_text(json.dumps({**content, "biases": biases.tolist(), "start": 0, "price": 0.003}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["liteeval", "frame-exit", "lstm"])
def test_sessions_go_on_together_as_they_do_alone(name: str, runs: Runs, tmp_path: Path) -> None:
    run = runs.of(name)
    done = runs.shared(run, runs.between(run, 0.2), out=tmp_path / "out")
    judged = done.outcome.judged
    assert isinstance(judged, Predictions)
    first = open_session(tmp_path / "out")
    ids = judged.video_ids[:6]
    sessions = [first, *(first.another() for _ in ids[1:])]
    for session, video in zip(sessions, ids, strict=True):
        spans = {stream: runs.cache[stream][video].spans for stream in session.streams}
        session.begin(spans, video_id=video)
    while waiting := [(s, v) for s, v in zip(sessions, ids, strict=True) if s.wanted() is not None]:
        given = []
        for session, video in waiting:
            wanted = session.wanted()
            assert wanted is not None
            given.append((runs.cache[wanted.stream][video].features[wanted.rows], None))
        assert type(first).take_together([s for s, _ in waiting], given) == [None] * len(waiting)
    for place, session in enumerate(sessions):
        assert session.probabilities.numpy() == pytest.approx(judged.scores[0, place], abs=1e-5)
        assert session.macs / 1e9 == pytest.approx(judged.gflops[0, place])


def invoke(*words: object) -> Any:
    return CliRunner().invoke(train_policy, [*map(str, words)])


@pytest.mark.slow
def test_the_command_says_what_sharing_gains(runs: Runs, tmp_path: Path) -> None:
    run, out = runs.of("frame-exit"), tmp_path / "out"
    data = ("--cache", runs.folder / "cache", "--labels", runs.folder / "labels.csv")
    budget = runs.between(run, 0.2)
    target = ("--shared-budget", budget, "--calibrate-subset", "val", "--eval-subset", "test")
    told = invoke("evaluate", run, *data, *target, "--out", out)
    assert told.exit_code == 0, told.output
    assert "for this cost, spent on all videos alike (95 %: " in told.output
    assert "all begin at threshold on the log-odds of going on" in told.output
    assert "found on 40 videos of subset 'val'" in told.output
    found = json.loads(invoke("evaluate", run, *data, *target, "--json").stdout)
    gain = found["details"]["shared"]
    assert gain["gain_low"] <= gain["gain_top1_points"] <= gain["gain_high"]
    assert found["operating_point"]["shared_budget"] == budget
    again = json.loads(invoke("evaluate", out, *data, "--eval-subset", "test", "--json").stdout)
    assert again["gflops_mean"] == found["gflops_mean"] and again["top1"] == found["top1"]
    predicted = tmp_path / "predicted.csv"
    assert invoke("predict", out, *data[:2], "--out", predicted).exit_code == 0
    done = runs.shared(run, budget)
    shared = predict_run(out, runs.cache)
    judged = done.outcome.judged
    places = [shared.video_ids.index(video) for video in judged.video_ids]
    assert shared.probabilities[places] == pytest.approx(judged.class_probabilities, abs=1e-6)


@pytest.mark.slow
def test_the_gain_is_over_the_hull_of_the_policy_itself(runs: Runs) -> None:
    """In plain loops: of bootstrap samples, too, and by scipy's hull."""
    from scipy.spatial import ConvexHull

    from policy.evaluation.metrics import resampled_weights
    from policy.runs import load_method, open_data, read_config
    from policy.training.sharing import evaluate_shared, share

    run = runs.of("frame-exit")
    config = replace(read_config(run), eval_subset="test")
    data = open_data(config, runs.cache, runs.labels)
    method = load_method(run, config, data)
    val = open_data(replace(config, eval_subset="val"), runs.cache, runs.labels).evaluation
    sharing = share(method, OperatingTarget("shared_budget", runs.between(run, 0.2)), val, CPU)
    found = evaluate_shared(method, sharing, data.evaluation, CPU)
    points = [point.predictions for point in found.curve.points]

    def gain(weights: Any) -> float:
        costs = [np.average(each.gflops[0], weights=weights) for each in points]
        top1 = [100 * np.average(each.correct[0], weights=weights) for each in points]
        spent = np.average(found.predictions.gflops[0], weights=weights)
        corners = [*zip(costs, top1, strict=True), (1e6, max(top1)), (1e6, -1.0), (min(costs), -1.0)]
        hull = ConvexHull(np.array(corners))
        # The highest height at `spent` that is within all half planes.
        above = [(-c - a * spent) / b for a, b, c in hull.equations if b > 1e-12]
        return float(100 * np.average(found.predictions.correct[0], weights=weights) - min(above))

    videos = len(points[0].video_ids)
    assert found.gain.value == pytest.approx(gain(np.ones(videos)), abs=1e-3)
    samples = [gain(each) for each in resampled_weights(videos, RESAMPLES, 0).T]
    low, high = np.percentile(samples, [2.5, 97.5])
    assert (found.gain.low, found.gain.high) == pytest.approx((low, high), abs=1e-2)


def test_held_out_videos_say_how_sure_answers_are(runs: Runs, tmp_path: Path) -> None:
    run = runs.of("lstm", validation=0.3)
    target = OperatingTarget("shared_budget", runs.between(run, 0.2))
    done = evaluate_run(run, runs.cache, runs.labels, config=TEST, target=target)
    assert done.point is not None and done.point.found_on.endswith("held out from the training")
    trained = runs.of("lstm")
    for subset in (None, "train"):
        with pytest.raises(
            UserError, match=r"was not trained on: name some with --calibrate-subset, or hold"
        ):
            evaluate_run(
                trained, runs.cache, runs.labels, config=TEST, target=target, calibrate_subset=subset
            )


@pytest.mark.parametrize(
    ("name", "kind", "budget", "lines"),
    [("lstm", "budget", 1e4, 1), ("lstm", "budget", 50.0, 0), ("frame-exit", "shared_budget", 1e4, 1)],
)
def test_a_budget_beyond_all_use_says_so(
    name: str, kind: TargetKind, budget: float, lines: int, runs: Runs
) -> None:
    notes: list[str] = []
    places, target = (runs.of(name), runs.cache, runs.labels), OperatingTarget(kind, budget)
    evaluate_run(*places, config=TEST, target=target, calibrate_subset="val", note=notes.append)
    told = [note for note in notes if "GFLOPs per video are spent; what" in note]
    assert len(told) == lines and all(note.startswith(f"{target}: ") for note in told)


def test_another_operating_point_ends_the_sharing(runs: Runs, tmp_path: Path) -> None:
    run, shared = runs.of("frame-exit"), tmp_path / "shared"
    runs.shared(run, runs.between(run, 0.2), out=shared)
    back = OperatingTarget("threshold", 0.0)
    moved = evaluate_run(shared, runs.cache, runs.labels, config=TEST, target=back, out=tmp_path / "moved")
    plain = evaluate_run(run, runs.cache, runs.labels, config=TEST)
    assert np.array_equal(moved.outcome.judged.ledger.total, plain.outcome.judged.ledger.total)
    assert not (tmp_path / "moved" / SHARING).exists() and (shared / SHARING).exists()


@pytest.mark.slow
def test_a_lost_file_is_missed(runs: Runs, tmp_path: Path) -> None:
    run, out = runs.of("frame-exit"), tmp_path / "out"
    runs.shared(run, runs.between(run, 0.2), out=out)
    (out / SHARING).unlink()
    with pytest.raises(
        UserError, match=r"sharing\.json: is missing; it says how the videos of this run share"
    ):
        open_session(out)
    with pytest.raises(UserError, match=r"sharing\.json: is missing"):
        evaluate_run(out, runs.cache, runs.labels, config=TEST)
    other = runs.of("lstm")
    runs.shared(other, runs.between(other, 0.2), out=tmp_path / "other")
    (out / SHARING).write_bytes((tmp_path / "other" / SHARING).read_bytes())
    with pytest.raises(UserError, match=r"sharing\.json"):
        open_session(out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "path"),
    [("{}", SHARING), ('{"values": [1]}', SHARING), ("[", SHARING), ('{"values": "no"}', SHARING)],
)
def test_a_damaged_file_is_named(content: str, path: str, runs: Runs, tmp_path: Path) -> None:
    run, out = runs.of("frame-exit"), tmp_path / "out"
    runs.shared(run, runs.between(run, 0.2), out=out)
    (out / path).write_text(content)
    with pytest.raises(UserError, match=path):
        open_session(out)


def test_what_is_not_exported_says_so(runs: Runs, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    run, out = runs.of("frame-exit"), tmp_path / "out"
    runs.shared(run, runs.between(run, 0.2), out=out)
    with pytest.raises(UserError, match="its videos share a budget, which is not exported"):
        export_onnx(out, tmp_path / "onnx")


@pytest.mark.parametrize(
    ("name", "why"), [("coarse-only", "has one operating point"), ("random-gating", "draws at random")]
)
def test_who_cannot_share(name: str, why: str, runs: Runs) -> None:
    more = {"usage": 0.5} if name == "random-gating" else {}
    with pytest.raises(UserError, match=f"{name} cannot share a budget, as it {why}"):
        runs.shared(runs.of(name, **more), 50.0)


@pytest.mark.parametrize("name", ["uniform", "lstm-cf"])
def test_evenly_spaced_rows_keep_a_budget_without_another_training(
    name: str, runs: Runs, tmp_path: Path
) -> None:
    run, out, spent = runs.of(name), tmp_path / "out", {}
    for budget in (30.0, 60.0):
        target = OperatingTarget("budget", budget)
        done = evaluate_run(
            run,
            runs.cache,
            runs.labels,
            config=TEST,
            target=target,
            calibrate_subset="val",
            out=out / str(budget),
        )
        assert done.point is not None
        rows = int(done.point.value)
        spent[rows] = done.result.gflops_mean
        session = open_session(out / str(budget))
        judged = done.outcome.judged
        assert isinstance(judged, Predictions)
        video = judged.video_ids[0]
        wanted = drive(session, runs.cache, video)
        assert sum(len(each.rows) for each in wanted if each.stream == "fine_224") == rows
        assert session.probabilities.numpy() == pytest.approx(judged.scores[0, 0], abs=1e-5)
        # Of videos with at least so many rows as are looked at, one row more is too much.
        assert done.result.gflops_mean <= budget < done.result.gflops_mean / rows * (rows + 1)
    assert len(spent) == 2
