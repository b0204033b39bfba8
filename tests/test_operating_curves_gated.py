"""Operating curves of LiteEval's family and of agents: trained once, at many budgets, and left as they were."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from policy.baselines.agent import AgentMethod, stopping_thresholds
from policy.baselines.fast_forward import STOP, FastForward, JumpAgent
from policy.config import DataConfig
from policy.deploy.session import open_session
from policy.evaluation.operating import OperatingTarget, TargetKind
from policy.evaluation.predictions import Predictions
from policy.finished import Evaluated, evaluate_run
from policy.liteeval.budgets import USAGES
from policy.method import Method, moved
from policy.registry import configure
from policy.runs import load_method, open_data, read_config, run_method
from policy.tuning.problem import Problem
from tests.planted import write_planted
from tests.sessions import drive

CPU = torch.device("cpu")
CONFIG: dict[str, Any] = {
    "coarse": "coarse_112",
    "fine": "fine_224",
    "epochs": 2,
    "batch": 7,
    "lr": 1e-2,
    "coarse_hidden": 6,
    "fine_hidden": 12,
    "usage": 0.3,
    "gate_draws": 3,
    "glimpses": 5,
    "strides": 2,
    "frame_price": 0.0,
    "looks": 5,
    "memory_rows": 6,
}
AGENTS = ("frame-glimpse", "fast-forward", "adaframe")
METHOD_NAMES = ("liteeval", "liteeval-rl", "random-gating", "coarse-only", *AGENTS)
Data = tuple[FeatureCache, LabelSet]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return write_planted(tmp_path_factory.mktemp("planted"), train=24, test=18, classes=4, dim=10)


@pytest.fixture(scope="module")
def runs(planted: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each method, with weights by which its decisions differ from video to video."""
    folder = tmp_path_factory.mktemp("runs")
    for name in METHOD_NAMES:
        run_method(configure(name, CONFIG), *planted, folder / name, device="cpu")
        weights, random = load_file(folder / name / "model.safetensors"), torch.Generator().manual_seed(2)
        for key, value in weights.items():
            if key.startswith(("locate.", "decision.", "utility.", "query.", "cell.")):
                value.add_(0.5 * torch.randn(value.shape, generator=random))
        save_file(weights, folder / name / "model.safetensors")
    return folder


def loaded(name: str, runs: Path, planted: Data) -> tuple[Method, Any]:
    config = read_config(runs / name)
    data = open_data(config, *planted)
    return load_method(runs / name, config, data), data


def evaluated(name: str, runs: Path, planted: Data, **more: Any) -> Evaluated:
    return evaluate_run(runs / name, *planted, config=DataConfig(eval_subset="test"), **more)


# --- curves ---


@pytest.mark.slow
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_curve_rises_in_cost_and_leaves_the_method_as_it_was(name: str, runs: Path, planted: Data) -> None:
    method, data = loaded(name, runs, planted)
    before = method.evaluate(data.evaluation, device=CPU)
    state = {key: value.clone() for key, value in method.model.state_dict().items()}
    curve = method.operating_curve(data.evaluation, data.train, device=CPU)
    assert curve.name == method.title and (np.diff(curve.gflops) >= 0).all()
    after = method.evaluate(data.evaluation, device=CPU)
    assert isinstance(before, Predictions) and isinstance(after, Predictions)
    assert np.array_equal(before.scores, after.scores) and np.array_equal(before.gates, after.gates)
    assert all(torch.equal(state[key], value) for key, value in method.model.state_dict().items())
    assert (len(curve.points) == 1) == (name == "coarse-only")
    assert name == "coarse-only" or curve.gflops[-1] > 1.5 * curve.gflops[0]
    assert all(point.predictions.video_ids == data.evaluation.ids for point in curve.points)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["liteeval", "liteeval-rl"])
def test_gates_are_set_to_usages_of_the_calibration_videos(name: str, runs: Path, planted: Data) -> None:
    method, data = loaded(name, runs, planted)
    curve = method.operating_curve(data.train, data.train, device=CPU)  # of the very videos, to see it
    usages = [float(point.predictions.usage.mean()) for point in curve.points]
    assert len(usages) == len(USAGES) and np.allclose(usages, USAGES, atol=0.06)
    assert np.all(np.diff([point.value for point in curve.points]) <= 0)  # thresholds


@pytest.mark.slow
def test_random_gates_are_drawn_as_often_as_in_its_evaluation(runs: Path, planted: Data) -> None:
    method, data = loaded("random-gating", runs, planted)
    curve = method.operating_curve(data.evaluation, data.train, device=CPU)
    assert [point.value for point in curve.points] == list(USAGES)
    assert all(len(point.predictions.scores) == 3 for point in curve.points)
    method.set_value(0.5, OperatingTarget("usage", 0.5))
    moved, point = method.evaluate(data.evaluation, device=CPU), curve.points[USAGES.index(0.5)]
    assert isinstance(moved, Predictions) and np.array_equal(moved.gates, point.predictions.gates)


@pytest.mark.parametrize("name", AGENTS)
def test_a_dearer_point_of_an_agent_looks_where_the_cheaper_looked_first(
    name: str, runs: Path, planted: Data
) -> None:
    method, data = loaded(name, runs, planted)
    assert method.is_incremental
    points = [p.predictions for p in method.operating_curve(data.evaluation, data.train, device=CPU).points]
    assert len(points) >= 4 and (points[0].fine_rows == 1).all()
    for cheaper, dearer in pairwise(points):
        assert (cheaper.gates <= dearer.gates).all()
        assert (cheaper.gflops <= dearer.gflops).all()
    if name == "frame-glimpse":
        assert [p.value for p in method.operating_curve(data.evaluation, data.train, device=CPU).points] == [
            *range(1, 6)
        ]


def test_thresholds_are_spread_over_the_frames_that_they_add() -> None:
    """Three videos, with loops: how many frames each visits at each threshold."""
    scores = [np.array([-2.0, 1.0, 0.5]), np.array([0.0]), np.array([-1.0, -3.0])]

    def frames(threshold: float) -> int:
        total = 0
        for video in scores:
            total += 1
            for score in video:
                if score >= threshold:
                    break
                total += 1
        return total

    thresholds = stopping_thresholds(scores)
    assert len(thresholds) == 7 and (np.diff(thresholds) >= 0).all()
    counts = [frames(threshold) for threshold in thresholds]
    assert counts[0] == 3 and counts[-1] == 9 and sorted({*counts}) == [3, 4, 6, 7, 9]
    assert stopping_thresholds([np.empty(0)]).tolist() == [0.0]


# --- a point that is asked for ---


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("kind", ["usage", "budget"])
def test_an_agent_is_moved_to_a_usage_or_a_budget(
    name: str, kind: TargetKind, runs: Path, planted: Data
) -> None:
    """The nearest usage, and the most that a budget pays for, of all that there are."""
    method, data = loaded(name, runs, planted)
    assert isinstance(method, AgentMethod)
    videos, spent = data.train.part(range(8)), {}
    for value in np.unique(method.thresholds(videos, CPU)).tolist():
        with moved(method.model.threshold, value):
            judged = method.evaluate(videos, device=CPU)
        assert isinstance(judged, Predictions)
        spent[value] = float((judged.usage if kind == "usage" else judged.gflops).mean())
    low, high = min(spent.values()), max(spent.values())
    target = OperatingTarget(kind, low + 0.4 * (high - low))
    value = method.move_to(target, [(method, videos)], CPU)
    assert float(method.model.threshold) == pytest.approx(value)
    if kind == "budget":
        assert spent[value] == max(cost for cost in spent.values() if cost <= target.value)
    else:
        assert abs(spent[value] - target.value) == min(abs(cost - target.value) for cost in spent.values())
    least = f"{low:.4g} {'GFLOPs per video' if kind == 'budget' else 'of the rows'}"
    with pytest.raises(UserError, match=f"the least that {name} comes to is {least}"):
        method.value_at(OperatingTarget(kind, 0.5 * low), [(method, videos)], CPU)
    if kind == "usage":
        with pytest.raises(UserError, match=f"the most that {name} comes to is {high:.4g} of the rows"):
            method.value_at(OperatingTarget("usage", 1.0), [(method, videos)], CPU)


@pytest.mark.parametrize(
    ("name", "value", "fewest"), [("frame-glimpse", 2, 1), ("fast-forward", -0.5, 1), ("adaframe", -0.75, 1)]
)
def test_a_moved_agent_is_kept_and_its_session_follows(
    name: str, value: float, fewest: int, runs: Path, planted: Data, tmp_path: Path
) -> None:
    target = OperatingTarget("threshold", value)
    done = evaluated(name, runs, planted, target=target, out=tmp_path / "moved")
    predicted, before = done.outcome.judged, evaluated(name, runs, planted).outcome.judged
    assert isinstance(predicted, Predictions) and isinstance(before, Predictions)
    assert predicted.fine_rows.sum() < before.fine_rows.sum() and (predicted.fine_rows >= fewest).all()
    assert float(load_file(tmp_path / "moved" / "model.safetensors")["threshold"]) == value
    session = open_session(tmp_path / "moved")
    for video, video_id in enumerate(predicted.video_ids):
        drive(session, planted[0], video_id)
        assert np.allclose(session.probabilities, predicted.scores[0, video], atol=1e-5)
        assert session.macs == pytest.approx(1e9 * predicted.gflops[0, video], abs=0.1)


@pytest.mark.parametrize("value", [0, 6, 2.5, -1])
def test_frame_glimpse_takes_as_many_glimpses_as_it_was_trained_for(
    value: float, runs: Path, planted: Data
) -> None:
    with pytest.raises(
        UserError, match="how many glimpses it takes, from 1 to the 5 that it was trained for"
    ):
        evaluated("frame-glimpse", runs, planted, target=OperatingTarget("threshold", value))


def test_fast_forward_decides_by_what_is_likeliest_as_trained() -> None:
    agent = JumpAgent(3, 4, 2, 3)
    log_probabilities = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    assert torch.equal(agent.best(log_probabilities), log_probabilities.argmax(1))
    agent.threshold.fill_(torch.inf)
    assert (agent.best(log_probabilities) != STOP).all()
    agent.threshold.fill_(-torch.inf)
    assert (agent.best(log_probabilities) == STOP).all()


@pytest.mark.parametrize("name", ["frame-glimpse", "fast-forward"])
def test_runs_of_earlier_versions_decide_as_they_did(
    name: str, runs: Path, planted: Data, tmp_path: Path
) -> None:
    """Their weights have no threshold."""
    expected = evaluated(name, runs, planted).outcome.judged
    old = tmp_path / "old"
    old.mkdir()
    for file in (runs / name).iterdir():
        (old / file.name).write_bytes(file.read_bytes())
    weights = load_file(old / "model.safetensors")
    del weights["threshold"]
    save_file(weights, old / "model.safetensors")
    judged = evaluate_run(old, *planted, config=DataConfig(eval_subset="test")).outcome.judged
    assert isinstance(judged, Predictions) and isinstance(expected, Predictions)
    assert np.array_equal(judged.scores, expected.scores) and np.array_equal(judged.gates, expected.gates)
    drive(session := open_session(old), planted[0], judged.video_ids[0])
    assert np.allclose(session.probabilities, judged.scores[0, 0], atol=1e-6)


def test_fast_forward_stops_by_its_log_odds(runs: Path, planted: Data) -> None:
    """Frame by frame, with the threshold between: each video by itself."""
    method, data = loaded("fast-forward", runs, planted)
    assert isinstance(method, FastForward)
    with moved(method.model.threshold, 0.3):
        judged = method.evaluate(data.evaluation, device=CPU)
    assert isinstance(judged, Predictions)
    agent, start = method.model, 0
    for index, length in enumerate(judged.lengths.tolist()):
        features = torch.from_numpy(data.evaluation.features("fine", index).astype(np.float32))
        h = c = torch.zeros(1, 12)
        row, visited = 0, []
        with torch.no_grad():
            while row < length:
                visited.append(row)
                place = torch.tensor([[(row + 0.5) / length]])
                h, c = agent.cell(torch.cat([agent.scale(features[row : row + 1]), place], 1), (h, c))
                scores = agent.decision(h)[0].tolist()
                if scores[0] - max(scores[1:]) >= 0.3:
                    break
                row += 2 ** (int(np.argmax(scores[1:])))
        assert np.flatnonzero(judged.gates[0, start : start + length]).tolist() == visited
        start += length


@pytest.mark.parametrize("name", AGENTS)
def test_tuning_an_agent_weighs_no_cost_that_its_options_set(name: str) -> None:
    streams = {"coarse": "coarse_112", "fine": "fine_224"} if name == "adaframe" else {"fine": "fine_224"}
    problem = Problem(name, streams, None, (), (), "train")
    assert not problem.has_front and not problem.costs_usage
    gated = Problem("random-gating", {**streams, "coarse": "coarse_112"}, None, (), (), "train")
    assert gated.has_front and gated.costs_usage
