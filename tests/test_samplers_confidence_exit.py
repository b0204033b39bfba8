"""Exit by confidence: its answers and decisions in plain NumPy, its temperatures, costs and budgets."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.optimize import minimize_scalar

from cache_schema import FeatureCache, UserError, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from policy.data.batches import uniform_rows
from policy.deploy.session import open_session
from policy.evaluation.curves import hull_area
from policy.evaluation.operating import OperatingTarget
from policy.evaluation.predictions import Predictions
from policy.finished import evaluate_run
from policy.method import LEAST_PROBABILITY
from policy.registry import configure
from policy.runs import Listener, load_method, open_data, run_method
from policy.samplers.confidence_exit import ConfidenceExit
from policy.samplers.exits import exit_order
from tests.caches import make_record, make_spec
from tests.planted import write_planted
from tests.planted_rows import plant_rows
from tests.sessions import drive

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"fine": "fine_224", "frames": 5, "batch": 6, "confidence": 0.7}
DIM, CLASSES = 6, 4
Data = tuple[FeatureCache, LabelSet]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Also with a stream between the two in price that has class scores, in an order of its own."""
    folder = tmp_path_factory.mktemp("small")
    cache, labels = write_planted(folder, train=24, test=16, classes=CLASSES, dim=DIM, lengths=(1, 12))
    names = tuple(f"class {label}" for label in (3, 1, 0, 2, 9))
    spec = replace(make_spec("scored", dim=2, classes=5, macs_per_row=500_000_000), classes=names)
    videos = {video: cache["fine_224"].rows(video) for video in cache["fine_224"]}
    records = [make_record(video, rows, dim=2, classes=5) for video, rows in videos.items()]
    write_shard(folder / "scored", spec, records, tools={})
    return FeatureCache(folder), labels


def trained(data: Data, folder: Path, **more: Any) -> tuple[ConfidenceExit, Predictions]:
    config = configure("confidence-exit", {**SMALL, **more})
    run = run_method(config, *data, folder, device="cpu")
    method = load_method(folder, config, open_data(config, *data))
    assert isinstance(method, ConfidenceExit)
    return method, run.predictions()


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"confidence": 0.9, "further_streams": ("coarse_112",)},
        {"confidence": 0.6, "further_streams": ("scored", "coarse_112")},
        {"multi_label": True, "input_norm": "l2", "further_streams": ("coarse_112", "scored")},
        {"fine": "scored", "frames": 100, "confidence": 0.25, "input_norm": "none"},
    ],
)
def test_answers_and_decisions_in_plain_numpy_and_sessions(
    change: dict[str, Any], small: Data, tmp_path: Path
) -> None:
    _, found = trained(small, tmp_path / "run", **change)
    weights = {key: value.numpy() for key, value in load_file(tmp_path / "run" / "model.safetensors").items()}
    cache, settings, session = small[0], {**SMALL, **change}, open_session(tmp_path / "run")
    several, confidence = bool(settings.get("multi_label")), settings["confidence"]
    roles = {"fine": settings["fine"]}
    roles |= {f"stream {n}": name for n, name in enumerate(settings.get("further_streams", ()), 1)}
    stages = sorted(roles.items(), key=lambda item: ["coarse_112", "scored", "fine_224"].index(item[1]))

    def chances(logits: Any) -> Any:
        if several:
            return 1 / (1 + np.exp(-logits))
        return np.exp(logits) / np.exp(logits).sum()

    def judged(role: str, stream: str, video: str, row: int) -> Any:
        if stream == "scored":
            scores = cache[stream][video].scores
            assert scores is not None
            return chances(scores[row][[2, 1, 3, 0]].astype(np.float64))
        x = cache[stream][video].features[row].astype(np.float64)
        if settings.get("input_norm") == "l2":
            x = (x / np.linalg.norm(x)).astype(np.float16).astype(np.float64)
        at = f"judges.{role}.frames"
        x = (x - weights[f"{at}.scale.mean"]) / weights[f"{at}.scale.std"]
        return chances(weights[f"{at}.classifier.weight"] @ x + weights[f"{at}.classifier.bias"])

    counts = []
    for number, video in enumerate(found.video_ids):
        places = uniform_rows(int(found.lengths[number]), int(found.row_counts[number]))
        rows = places[list(exit_order(len(places)))]
        read: list[tuple[str, int]] = []
        answer = np.zeros(CLASSES)
        for stage, (role, stream) in enumerate(stages):
            of_rows: list[Any] = []
            for k, row in enumerate(rows):
                of_rows.append(judged(role, stream, video, row))
                read.append((stream, int(row)))
                mean = np.clip(np.mean(of_rows, axis=0), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
                logits = np.log(mean) - (np.log1p(-mean) if several else 0)
                answer = chances(weights["slopes"][stage, k] * logits + weights["shifts"][stage, k])
                if answer.max() > confidence:
                    break
            if answer.max() > confidence:
                break
        counts.append(len(read) / len(stages) / len(rows))
        assert np.allclose(found.scores[0, number], answer, atol=1e-5)
        trace = drive(session, cache, video)
        assert [(wanted.stream, int(wanted.rows[0])) for wanted in trace] == read
        assert np.allclose(session.probabilities, found.scores[0, number], atol=1e-6)
        gates = found.gates[0, found.offsets[number] : found.offsets[number + 1]]
        fine_rows = sorted(row for stream, row in read if stream == settings["fine"])
        assert np.flatnonzero(gates).tolist() == fine_rows
        macs = {"coarse_112": 80_000_000, "scored": 500_000_000, "fine_224": 7_800_000_000}
        classifier = {"coarse_112": DIM * CLASSES, "scored": 2 * 5, "fine_224": DIM * CLASSES}
        spent = {name: macs[name] * sum(stream == name for stream, _ in read) for _, name in stages}
        spent["frame classifier"] = sum(classifier[stream] for stream, _ in read)
        assert {name: of[0, number] for name, of in found.ledger.items()} == spent
        assert dict(session.macs_by_name) == spent
    assert min(counts) < 1  # some stop


def test_temperatures_are_the_likeliest_on_videos_held_out(tmp_path: Path) -> None:
    """Of features that say nothing a classifier is sure about the videos that it was fitted to."""
    random, folder = np.random.default_rng(0), tmp_path / "cache"
    records = [make_record(f"v{n}", 3, dim=60, features=random.standard_normal((3, 60))) for n in range(60)]
    write_shard(folder / "fine_224", make_spec("fine_224", dim=60), records, tools={})
    videos = tuple(VideoLabel(f"v{n}", ("ab"[n % 2],), "train" if n < 40 else "test") for n in range(60))
    method, found = trained((FeatureCache(folder), LabelSet(folder / "labels.csv", videos)), tmp_path / "run")
    assert found.scores.max(axis=2).mean() < 0.7  # half of the videos are right
    on_training = method.evaluate(
        open_data(method.config, FeatureCache(folder), LabelSet(folder / "labels.csv", videos)).train,
        device=CPU,
    )
    assert isinstance(on_training, Predictions)
    method.model.slopes.fill_(1.0)
    untempered = method.evaluate(
        open_data(method.config, FeatureCache(folder), LabelSet(folder / "labels.csv", videos)).train,
        device=CPU,
    )
    assert isinstance(untempered, Predictions)
    assert untempered.scores.max(axis=2).mean() > on_training.scores.max(axis=2).mean() + 0.03


def test_a_temperature_of_class_scores(small: Data, tmp_path: Path) -> None:
    """The likeliest, with targets a little less than certain, of the answers after each row."""
    method, _ = trained(small, tmp_path / "run", fine="scored")
    videos = open_data(method.config, *small).train
    for k in range(3):
        logs, targets = [], []
        for number, video in enumerate(videos.ids):
            scores = small[0]["scored"][video].scores
            assert scores is not None
            rows = uniform_rows(len(scores), 5)
            if len(rows) <= k:
                continue
            odds = np.exp(
                scores[rows][list(exit_order(len(rows))[: k + 1])][:, [2, 1, 3, 0]].astype(np.float64)
            )
            logs.append(np.log((odds / odds.sum(axis=1, keepdims=True)).mean(axis=0)))
            targets.append(np.eye(CLASSES)[videos.first[number]])
        log, target = np.array(logs), (len(logs) * np.array(targets) + 1 / CLASSES) / (len(logs) + 1)

        def loss(log_slope: float, log: Any = log, target: Any = target) -> float:
            scaled = np.exp(log_slope) * log
            return float((np.log(np.exp(scaled).sum(axis=1)) - (target * scaled).sum(axis=1)).mean())

        best = minimize_scalar(loss, bounds=(np.log(1e-4), np.log(1000.0)), method="bounded")
        assert loss(float(np.log(method.model.slopes[0, k].item()))) == pytest.approx(
            float(best.fun), abs=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_easy_videos_pay_for_hard_ones(seed: int, tmp_path: Path) -> None:
    """Half of the videos tell their class in every row, the others in two of ten.

    The oracle stops at the first row that tells, with the answer that the policy has then; the null control reads
    as many rows of every video.
    """
    planted = plant_rows(tmp_path / "cache", seed=seed, train=240, test=120, signal=8.0)
    method, _ = trained((planted.cache, planted.labels), tmp_path / "run", frames=10, seed=seed)
    data = open_data(method.config, planted.cache, planted.labels)
    curve = method.operating_curve(data.evaluation, data.train, device=CPU)
    first = [
        1 + next(k for k, row in enumerate(exit_order(10)) if planted.informative[video][row])
        for video in data.evaluation.ids
    ]
    with torch.no_grad():
        batch = data.evaluation.batch(range(len(data.evaluation)))
        lengths, inputs = method.inputs(batch)
        right = method.model(inputs, lengths).answers.argmax(2) == batch.targets[:, None]
    forced = right.double().mean(0).tolist()
    told = float(right[torch.arange(len(first)), torch.tensor(first) - 1].double().mean())
    low, high = 4.1, 40.0
    null = hull_area([4.0 * count for count in range(1, 11)], forced, low, high)
    oracle = hull_area([4.0, 4 * float(np.mean(first)), 40.0], [forced[0], told, forced[-1]], low, high)
    ours = hull_area(curve.gflops, curve.top1, low, high)
    print(f"share of the oracle's gain: {(ours - null) / (oracle - null):.2f}")
    assert ours - null >= 0.8 * (oracle - null)


def test_one_fit_has_many_budgets(small: Data, tmp_path: Path) -> None:
    method, _ = trained(small, tmp_path / "run", further_streams=("coarse_112",))
    data = open_data(method.config, *small)
    weights = {name: value.clone() for name, value in method.model.state_dict().items()}
    curve = method.operating_curve(data.evaluation, data.train, device=CPU)
    assert all(torch.equal(value, weights[name]) for name, value in method.model.state_dict().items())
    assert (np.diff(curve.gflops) >= 0).all() and len(curve.points) > 3
    ledgers = [point.predictions.ledger for point in curve.points]
    assert all((less[name] <= more[name]).all() for less, more in pairwise(ledgers) for name in less)
    looked_at = curve.points[0].predictions.row_counts
    assert np.array_equal(ledgers[0]["coarse_112"][0], np.full(16, 80_000_000))
    assert not ledgers[0]["fine_224"].any()
    assert np.array_equal(ledgers[-1]["fine_224"][0], looked_at * 7_800_000_000)


@pytest.mark.slow
def test_a_finished_run_is_moved(small: Data, tmp_path: Path) -> None:
    trained(small, tmp_path / "run", further_streams=("coarse_112",))
    least = evaluate_run(tmp_path / "run", *small, target=OperatingTarget("threshold", 1e6))
    assert least.result.gflops_mean == pytest.approx(0.08, rel=1e-3)
    moved = evaluate_run(
        tmp_path / "run", *small, target=OperatingTarget("budget", 10.0), out=tmp_path / "moved"
    )
    session = open_session(tmp_path / "moved")
    for number, video in enumerate(moved.outcome.judged.video_ids):
        drive(session, small[0], video)
        assert session.macs == moved.outcome.judged.ledger.total[0, number]
    with pytest.raises(
        UserError, match=r"--budget 0\.01: the least that is possible is 0\.08 GFLOPs per video"
    ):
        evaluate_run(tmp_path / "run", *small, target=OperatingTarget("budget", 0.01))


@pytest.mark.parametrize("name", ["confidence-exit", "scsampler"])
def test_a_note_on_class_scores_of_the_cache(name: str, small: Data, tmp_path: Path) -> None:
    notes: list[str] = []
    for fine in ("scored", "fine_224"):
        config = configure(name, SMALL, coarse="coarse_112", fine=fine, epochs=1)
        run_method(config, *small, tmp_path / fine, device="cpu", listener=Listener(notes.append))
    (note,) = (line for line in notes if "taken as they are" in line)
    assert note.startswith("class scores of scored are taken as they are: if its network was trained on")


def test_what_does_not_fit(small: Data, tmp_path: Path) -> None:
    for change, problem in (
        ({"fine": None}, "confidence-exit needs a fine stream"),
        ({"further_streams": ("fine_224",)}, "stream 'fine_224' is named twice"),
        ({"confidence": 1.0}, "confidence must be at least 0 and below 1"),
        ({"frames": 0}, "frames must be positive"),
    ):
        with pytest.raises(UserError, match=problem):
            open_data(configure("confidence-exit", {**SMALL, **change}), *small)
