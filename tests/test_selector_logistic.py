"""Regressions that decide: what they predict held out, the answers of several models, budgets on new videos."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from cache_schema import FeatureCache, UserError, write_shard
from policy.cli.train_policy import train_policy
from policy.evaluation.operating import OperatingTarget
from policy.finished import evaluate_run
from policy.runs import Listener, Run, load_method, open_data, read_config, run_method
from policy.selection.area import compare
from policy.selection.combining import answer_weights
from policy.selection.config import SelectionConfig, SelectorCascadeConfig, SelectorConfig
from policy.selection.controls import cascade, single_models
from policy.selection.logistic import STRENGTHS, fit_stage, stage_features
from policy.selection.method import Selector
from policy.selection.pool import all_of
from policy.selection.sequential import SelectorCascade
from tests.planted import write_planted_labels
from tests.pool_tables import random_table
from tests.pools import PlantedPool, plant_pool

CPU = torch.device("cpu")
MODELS = ("m0", "m1", "m2", "m3")
CASCADE = SelectorCascadeConfig(models=MODELS)
SELECTOR = SelectorConfig(models=MODELS, threshold=0.01)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> PlantedPool:
    return plant_pool(tmp_path_factory.mktemp("telling"), train=1000, test=3000, telling=True)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> PlantedPool:
    return plant_pool(tmp_path_factory.mktemp("few"), train=200, test=80, classes_per_group=2, telling=True)


def trained(config: SelectionConfig, pool: PlantedPool, folder: Path) -> Selector | SelectorCascade:
    run_method(config, pool.cache, pool.labels, folder, device="cpu")
    method = load_method(folder, config, open_data(config, pool.cache, pool.labels))
    assert isinstance(method, Selector | SelectorCascade)
    return method


# --- the regressions ---


def test_what_is_held_out_is_what_a_fit_without_the_fold_predicts() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(400, 3)).astype(np.float32)
    best, fold = random.integers(2, size=400), random.permutation(400) % 20
    right = (features @ [2.0, -1.0, 0.0] + random.logistic(size=400) > 0)[:, None]
    fitted = fit_stage(features, best, right, fold, classes=2)
    for number in (0, 7):
        out = fold == number
        counts = [right[~out & (best == c), 0] for c in range(2)]
        rates = [(c.sum() + 5 * right.mean()) / (len(c) + 5) for c in counts]
        seen = np.log(np.array(rates) / (1 - np.array(rates)))[best]
        inputs = np.column_stack([(features - features.mean(0)) / features.std(0), seen])
        near = [
            LogisticRegression(C=strength).fit(inputs[~out], right[~out, 0]).predict_proba(inputs[out])[:, 1]
            for strength in STRENGTHS
        ]
        assert min(np.abs(fitted.held_out[out, 0] - each).max() for each in near) < 0.02


def test_an_outcome_that_is_always_the_same_is_likely() -> None:
    features = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    right = np.stack([np.ones(30, np.bool_), np.zeros(30, np.bool_)], axis=1)
    fitted = fit_stage(features, np.zeros(30, np.int64), right, np.arange(30) % 3, classes=1)
    assert not fitted.weights.any()
    assert fitted.held_out[:, 0] == pytest.approx(31 / 32) and fitted.held_out[:, 1] == pytest.approx(1 / 32)


def test_what_is_seen_of_two_models() -> None:
    probabilities = torch.tensor([[[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]]])
    answer = torch.tensor([[0.5, 0.4, 0.1]])
    features, best = stage_features(answer, probabilities, multi_label=False)
    assert best.tolist() == [0]

    def sure(p: list[float]) -> list[float]:
        return [*np.log(sorted(p, reverse=True)), -float(np.sum(np.array(p) * np.log(p)))]

    expected = [*sure([0.5, 0.4, 0.1]), *sure([0.7, 0.2, 0.1]), *sure([0.3, 0.6, 0.1])]
    expected += [np.log(0.7), np.log(0.3), 1, 0, 0]  # of the best class; which agree with it; with each other
    assert features[0].tolist() == pytest.approx(expected, abs=1e-5)


# --- the answer ---


def test_weights_are_those_of_most_likelihood() -> None:
    table = random_table(3, videos=300, models=3, classes=4)
    weights = answer_weights("weighted", table, [0b011, 0b111])
    assert weights[0b011][2] == 0
    logs = np.log(table.probabilities.astype(np.float64))

    def loss(at: np.ndarray) -> float:
        return -float(log_softmax(np.tensordot(logs, at, (1, 0)), axis=1)[np.arange(300), table.first].mean())

    best = minimize(loss, np.ones(3), method="Nelder-Mead").x
    assert weights[0b111][:3] == pytest.approx(best.clip(0), abs=0.05)
    mean = table.correct_of(np.full((1, 300), all_of(3), np.uint32)).mean()
    fitted = table.correct_of(np.full((1, 300), all_of(3), np.uint32), weights).mean()
    assert fitted >= mean - 0.02


# --- the methods ---


@pytest.mark.slow
def test_decisions_and_costs_against_a_loop(few: PlantedPool, tmp_path: Path) -> None:
    method = trained(CASCADE, few, tmp_path / "run")
    assert isinstance(method, SelectorCascade)
    data = open_data(CASCADE, few.cache, few.labels)
    run = run_method(CASCADE, few.cache, few.labels, tmp_path / "run", device="cpu").predictions()
    table, _ = method.look(data.evaluation)
    answers = method.model.state_dict()["answers"].numpy()
    sizes = set()
    for video in range(len(table)):
        said = torch.from_numpy(table.probabilities[video : video + 1])
        mine = [0]
        while True:
            mask = sum(1 << n for n in mine)
            logs = np.log(table.probabilities[video].astype(np.float64).clip(1e-7))
            answer = softmax(answers[mask, :-1] @ logs)
            if len(mine) == 4:
                break
            with torch.no_grad():
                _, sure, chances = method.model.look(said, torch.zeros(1, 0), mask)
            worth = {n: float(chances[0, n]) - 0.01 * method.gflops[n] for n in range(4) if n not in mine}
            best = max(worth, key=lambda n: worth[n])
            if worth[best] <= float(sure[0]):
                break
            mine.append(best)
        assert run.scores[0, video] == pytest.approx(answer, abs=1e-5)
        assert run.ledger.total[0, video] == table.macs[video, mine].sum() + len(mine) * method.model.macs
        sizes.add(len(mine))
    assert len(sizes) > 1


@pytest.mark.slow
@pytest.mark.parametrize("config", [SELECTOR, CASCADE], ids=["selector", "cascade"])
def test_a_budget_is_kept_on_new_videos(
    config: SelectionConfig, telling: PlantedPool, tmp_path: Path
) -> None:
    """Found when the run is trained, and without its training videos later."""
    asked = replace(config, budget=4.0, threshold=None)
    run = run_method(asked, telling.cache, telling.labels, tmp_path / "run", device="cpu")
    assert run.result.gflops_mean == pytest.approx(4.0, rel=0.12)  # of 1,000 and 3,000 videos: ± 4 %
    only_test = replace(telling.labels, videos=tuple(v for v in telling.labels.videos if v.subset == "test"))
    moved = evaluate_run(run.folder, telling.cache, only_test, target=OperatingTarget("budget", 8.0))
    assert moved.outcome.result.gflops_mean == pytest.approx(8.0, rel=0.12)
    assert moved.point is not None and not moved.point.trained_on
    with pytest.raises(UserError, match=r"--budget 0\.3: the least that is possible is 0\.6"):
        evaluate_run(run.folder, telling.cache, only_test, target=OperatingTarget("budget", 0.3))


@pytest.mark.slow
@pytest.mark.parametrize("tells", [True, False])
def test_it_is_above_the_cascade_whatever_confidence_tells(tells: bool, tmp_path: Path) -> None:
    pool = plant_pool(tmp_path / "cache", seed=5, train=600, test=1000, telling=tells)
    method = trained(CASCADE, pool, tmp_path / "run")
    data = open_data(CASCADE, pool.cache, pool.labels)
    table, training = method.look(data.evaluation)[0], method.look(data.train)[0]
    curves = {"own": method.curve(data.evaluation, CPU), "cascade": cascade(table, training)}
    compared = compare(curves | {"random": single_models(table)}, resamples=200)
    for other in ("cascade", "random"):
        area = compared.area_above("own", other)
        assert area is not None and area.low > 0, other


# --- scores of several scales, and what is wrong with them ---


def with_scores(
    pool: PlantedPool, folder: Path, change: Callable[[int, np.ndarray], np.ndarray]
) -> FeatureCache:
    """A copy of a cache: class scores (videos, classes) of each model changed by its place."""
    for n, name in enumerate(pool.models):
        stream = pool.cache[name]
        old = [stream[video] for video in stream]
        scores = change(n, np.stack([np.asarray(record.scores, np.float64)[0] for record in old]))
        records = [
            replace(r, features=r.features.copy(), spans=r.spans.copy(), scores=row[None].astype(np.float16))
            for r, row in zip(old, scores, strict=True)
        ]
        write_shard(folder / name, stream.spec, records, tools={})
    return FeatureCache(folder)


def notes(cache: FeatureCache, pool: PlantedPool, folder: Path) -> tuple[Run, list[str]]:
    told: list[str] = []
    config = replace(CASCADE, threshold=0.005)
    return run_method(config, cache, pool.labels, folder, device="cpu", listener=Listener(told.append)), told


@pytest.mark.slow
def test_scores_of_other_scales_decide_the_same(few: PlantedPool, tmp_path: Path) -> None:
    """Sums over 100 frames, log-probabilities and logits: only float16 tells them apart."""
    plain, told = notes(few.cache, few, tmp_path / "plain")
    assert any("they are divided by: m0 logits, " in line for line in told)
    assert not any("summed over frames" in line for line in told)

    def change(n: int, scores: np.ndarray) -> np.ndarray:
        return np.asarray({1: 100 * scores, 2: log_softmax(scores, axis=1)}.get(n, scores))

    scaled, told = notes(with_scores(few, tmp_path / "scaled", change), few, tmp_path / "run")
    assert sum("m1 on 100 %" in line and "summed over frames" in line for line in told) == 1
    assert any("m2 log-probabilities" in line for line in told)
    ours, theirs = scaled.predictions(), plain.predictions()
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=0.03)
    assert (ours.ledger.total == theirs.ledger.total).mean() > 0.95


@pytest.mark.slow
def test_cascades_that_are_compared_have_fitted_temperatures_whatever_decides(
    few: PlantedPool, tmp_path: Path
) -> None:
    """With the scores of one model summed over 100 frames, a cascade of scores as they are would never go on."""
    cache = with_scores(few, tmp_path / "scaled", lambda n, scores: scores * (100 if n == 0 else 1))
    as_they_are: dict[str, Any] = {"decisions": "perceptron", "temperature": "none", "epochs": 1}
    curves = []
    for number, config in enumerate(
        [SELECTOR, replace(SELECTOR, **as_they_are), replace(CASCADE, **as_they_are)]
    ):
        run = run_method(config, cache, few.labels, tmp_path / str(number), device="cpu")
        details = run.details()["curves"]
        curves.append([details[name] for name in ("cascade", "committee", "weighted", "ensemble")])
    assert curves[1] == curves[0] and curves[2] == curves[0]


@pytest.mark.slow
def test_models_that_say_nothing_new_are_named(few: PlantedPool, tmp_path: Path) -> None:
    twin = np.stack([np.asarray(few.cache["m0"][video].scores, np.float64)[0] for video in few.cache["m0"]])

    def change(n: int, scores: np.ndarray) -> np.ndarray:
        return np.asarray({1: twin, 2: np.ones_like(scores)}.get(n, scores))

    run, told = notes(with_scores(few, tmp_path / "odd", change), few, tmp_path / "run")
    assert "WARNING: m1 predicts what m0 does for all training videos: leave one of them out" in told
    assert "WARNING: m2 predicts the same for all training videos: leave it out" in told
    assert np.isfinite(run.predictions().scores).all()
    assert not run.predictions().ledger["m2"].any()


@pytest.mark.slow
def test_a_fold_without_a_class_and_a_class_of_one_video(few: PlantedPool, tmp_path: Path) -> None:
    seen: set[str] = set()
    videos = []
    for video in few.labels.videos:  # one training video of the first class
        name = video.labels[0]
        if video.subset == "test" or name != "class 000" or name not in seen:
            videos.append(video)
        seen.add(name)
    pool = replace(few, labels=replace(few.labels, videos=tuple(videos)))
    config = replace(CASCADE, skip_missing=True)
    run = run_method(config, pool.cache, pool.labels, tmp_path / "run", device="cpu")
    assert np.isfinite(run.predictions().scores).all()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"answer": "learned"}, "--answer learned is for other decisions: give --decisions perceptron"),
        ({"decisions": "perceptron", "answer": "weighted"}, "give --decisions logistic"),
        ({"selector_input": "scores+features"}, "is for the perceptron: give --decisions perceptron"),
        ({"models": tuple(f"m{n}" for n in range(9))}, "a pool of 9 models: every set of them"),
    ],
)
def test_requests(change: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=re.escape(line)):
        replace(CASCADE, **change).check()


def test_the_command(few: PlantedPool, tmp_path: Path) -> None:
    write_planted_labels(few.labels, tmp_path / "labels.csv")
    words = ["--cache", few.cache.folder, "--labels", tmp_path / "labels.csv", "--device", "cpu"]
    words += [word for model in MODELS for word in ("--model", model)]

    def run(*more: object) -> Result:
        given = ("selector", *words, "--out", tmp_path / "run", *more)
        return CliRunner().invoke(train_policy, [str(word) for word in given])

    for more in (["--epochs", 3], ["--rule", "price"], ["--alpha", 0.1]):
        refused = run(*more)
        assert refused.exit_code == 2
        assert f"Error: {more[0]} is about the perceptron" in refused.stderr.splitlines()[-1]
    assert run("--recipe", "paper", "--epochs", 1).exit_code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["decisions"], config["rule"], config["epochs"]) == ("perceptron", "threshold", 1)
    assert (config["temperature"], config["answer"], config["lr"]) == ("none", "chosen", 1e-3)


def test_a_run_of_an_earlier_version_is_a_perceptron(few: PlantedPool, tmp_path: Path) -> None:
    config = SelectorConfig(models=MODELS, decisions="perceptron", epochs=1)
    run_method(config, few.cache, few.labels, tmp_path / "run", device="cpu")
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    for name in ("decisions", "temperature", "answer"):
        del content["config"][name]
    path.write_text(json.dumps(content))
    earlier = read_config(tmp_path / "run")
    assert isinstance(earlier, SelectorConfig)
    assert (earlier.decisions, earlier.answers_by, earlier.fits_temperature) == (
        "perceptron",
        "largest",
        False,
    )
    assert load_method(tmp_path / "run", earlier, open_data(earlier, few.cache, few.labels)).trains
