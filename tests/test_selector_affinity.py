"""Model affinity (Eq. 1 and 2) against transcriptions, and the report of its labels."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from policy.cli.selection_text import render_affinities
from policy.cli.train_policy import train_policy
from policy.selection.affinity import affinities, label_distributions, qualities, relabelled
from policy.selection.config import SelectorConfig
from policy.selection.pool import PoolTable
from tests.planted import write_planted_labels
from tests.pools import PlantedPool, plant_pool

MACS = (600_000_000, 2_000_000_000, 4_700_000_000, 18_400_000_000)
CONFIG = SelectorConfig(models=("a", "b"), decisions="perceptron")


def table_of(seed: int, *, several: bool = False, videos: int = 40, classes: int = 6) -> PoolTable:
    """Random opinions of four models, of random cost for each video."""
    random = np.random.default_rng(seed)
    labels = np.zeros((videos, classes), np.bool_)
    first = random.integers(classes, size=videos)
    labels[np.arange(videos), first] = True
    odds = random.gamma(0.3, size=(videos, len(MACS), classes))
    if several:
        labels |= random.random(labels.shape) < 0.3
        probabilities = random.random(odds.shape)
    else:
        probabilities = odds / odds.sum(axis=2, keepdims=True)
    return PoolTable(
        models=("a", "b", "c", "d"),
        video_ids=tuple(f"v{v}" for v in range(videos)),
        labels=labels,
        first=first,
        multi_label=several,
        probabilities=probabilities.astype(np.float32),
        macs=np.array(MACS) * random.integers(1, 4, size=(videos, 1)),
    )


def transcribed_loss(table: PoolTable, video: int, model: int) -> float:
    said = [float(p) for p in table.probabilities[video, model]]
    if not table.multi_label:
        return -math.log(max(said[int(table.first[video])], 1e-7))
    terms = [
        -math.log(min(max(p if is_so else 1 - p, 1e-7), 1.0))
        for p, is_so in zip(said, table.labels[video], strict=True)
    ]
    return sum(terms) / len(terms)


def transcribed(table: PoolTable, alpha: float) -> list[list[float]]:
    """L_cls + α·F of Eq. 2."""
    models = range(len(table.models))
    mean = [sum(int(m) for m in table.macs[:, n]) / len(table) for n in models]
    return [
        [transcribed_loss(table, video, n) + alpha * mean[n] / sum(mean) for n in models]
        for video in range(len(table))
    ]


@given(st.integers(0, 1000), st.booleans(), st.sampled_from([0.0, 5e-4, 5e-3, 0.5, 20.0]))
def test_eq_2(seed: int, several: bool, alpha: float) -> None:
    table = table_of(seed, several=several)
    said = affinities(table, CONFIG, alpha)
    for video, sums in enumerate(transcribed(table, alpha)):
        assert sorted(said[video]) == [0, 0, 0, 1]
        assert sums[int(said[video].argmax())] == pytest.approx(min(sums), rel=1e-5)


@given(st.integers(0, 1000), st.booleans(), st.sampled_from([0.0, 5e-3, 0.5]), st.floats(0.05, 3))
def test_soft_affinity(seed: int, several: bool, alpha: float, tau: float) -> None:
    table = table_of(seed, several=several, videos=10)
    said = affinities(table, replace(CONFIG, affinity="soft", affinity_tau=tau), alpha)
    for video, sums in enumerate(transcribed(table, alpha)):
        odds = [math.exp((min(sums) - each) / tau) for each in sums]
        assert said[video] == pytest.approx([each / sum(odds) for each in odds], abs=1e-4)


def test_models_that_cost_nothing() -> None:
    table = replace(table_of(0), macs=np.zeros((40, 4), np.int64))
    least = affinities(table, CONFIG, 5.0)
    assert np.array_equal(least.argmax(axis=1), table.losses.argmin(axis=1))


def test_soft_becomes_hard() -> None:
    table = table_of(3)
    soft = affinities(table, replace(CONFIG, affinity="soft", affinity_tau=1e-6), 5e-4)
    assert soft == pytest.approx(affinities(table, CONFIG, 5e-4), abs=1e-6)


def test_of_models_that_are_right_the_cheapest() -> None:
    """The 0-1 loss with any α that is smaller than it: what Sec. 3.2 prefers where the models agree."""
    table = table_of(4, videos=200)
    said = affinities(table, replace(CONFIG, affinity_loss="error"), 0.5)
    for video in range(len(table)):
        right = [n for n in range(4) if table.probabilities[video, n].argmax() == table.first[video]]
        assert said[video].argmax() == (right[0] if right else 0)


@pytest.mark.parametrize("several", [False, True])
def test_qualities(several: bool) -> None:
    table = table_of(5, several=several)
    said = qualities(table, CONFIG)
    losses = [[transcribed_loss(table, video, model) for model in range(4)] for video in range(len(table))]
    scale = sum(map(sum, losses)) / (4 * len(table)) if several else 1.0
    for video, each in enumerate(losses):
        assert said[video] == pytest.approx([math.exp(-loss / scale) for loss in each], rel=1e-4)
    right = qualities(table, replace(CONFIG, affinity_loss="error"))
    assert np.array_equal(right, table.correct)


@given(st.integers(0, 1000), st.lists(st.floats(0, 50), min_size=2, max_size=6))
def test_a_larger_alpha_labels_with_cheaper_models(seed: int, alphas: list[float]) -> None:
    rows = label_distributions(table_of(seed), CONFIG, sorted(alphas))
    costs = [row.gflops for row in rows]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("affinity", ["hard", "soft"])
def test_label_distributions(affinity: str) -> None:
    table = table_of(6)
    config = replace(CONFIG, affinity=affinity)  # type: ignore[arg-type]
    (row,) = label_distributions(table, config, [0.5])
    weights: npt.NDArray[np.float64] = affinities(table, config, 0.5)
    cost = right = 0.0
    for video in range(len(table)):
        for model in range(4):
            cost += weights[video, model] * int(table.macs[video, model]) / 1e9 / len(table)
            right += weights[video, model] * bool(table.correct[video, model]) / len(table)
    assert [row.gflops, row.top1] == pytest.approx([cost, right])
    assert sum(row.shares) == pytest.approx(1)
    assert relabelled(table, config, 0.5, 0.5) == 0
    # From nothing but the loss to nothing but the cost: all labels but those that were the cheapest model's.
    hard = replace(CONFIG)
    assert relabelled(table, hard, 0, 1e6) == pytest.approx(1 - affinities(table, hard, 0)[:, 0].mean())


def test_what_is_said_of_alpha() -> None:
    """That it hardly matters, where it hardly does."""
    table = table_of(7, videos=400)
    assert relabelled(table, CONFIG, 5e-5, 5e-3) < 0.01
    assert "hardly matters" in " ".join(render_affinities(table, CONFIG, [0.0], width=80).split())
    close = replace(table, probabilities=(0.5 + 0.001 * table.probabilities).astype(np.float32))
    assert relabelled(close, CONFIG, 5e-5, 5e-3) > 0.2
    assert "hardly matters" not in " ".join(render_affinities(close, CONFIG, [0.0], width=80).split())


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedPool:
    folder = tmp_path_factory.mktemp("pool")
    pool = plant_pool(folder / "cache", train=60, test=40, classes_per_group=2)
    write_planted_labels(pool.labels, folder / "labels.csv")
    return pool


def affinity(pool: PlantedPool, *words: str, models: Sequence[str] = ("m0", "m2", "m3")) -> Result:
    folder = pool.cache.folder
    data = ["--cache", str(folder), "--labels", str(folder.parent / "labels.csv")]
    chosen = [word for model in models for word in ("--model", model)]
    return CliRunner().invoke(train_policy, ["affinity", *data, *chosen, *words])


def test_the_command(planted: PlantedPool, tmp_path: Path) -> None:
    before = sorted(planted.cache.folder.rglob("*"))
    said = affinity(planted, "--json", "--alpha", "0", "--alpha", "1000")
    assert said.exit_code == 0, said.output
    held = json.loads(said.stdout)
    assert held["models"] == ["m0", "m2", "m3"] and held["videos"] == 60
    assert [row["alpha"] for row in held["alphas"]] == [0, 1000]
    assert held["alphas"][1]["shares"] == [1, 0, 0]
    assert held["alphas"][1]["gflops"] == pytest.approx(held["model_gflops"][0]) == pytest.approx(0.6)
    assert held["alphas"][1]["top1"] == pytest.approx(held["model_top1"][0])
    shown = affinity(planted, "--affinity", "soft")
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["α", "m0", "m2", "m3", "GFLOPs", "top-1", "%"] in lines
    shares = {
        line[0]: [float(each) for each in line[1:4]] for line in lines if len(line) == 6 and line[0] != "α"
    }
    assert {"0", "5e-05", "0.0005", "0.005"} <= shares.keys()
    assert all(sum(each) == pytest.approx(100, abs=0.2) for each in shares.values())
    assert sorted(planted.cache.folder.rglob("*")) == before


def test_the_command_says_how_the_pool_was_opened(planted: PlantedPool) -> None:
    said = affinity(planted, "--heads", "linear", "--folds", "1")
    assert said.exit_code == 0, said.output
    assert "linear heads judge the videos that they were fitted on (--folds 1)" in said.stderr


@pytest.mark.parametrize(
    ("words", "models", "said"),
    [
        (["--alpha", "-1"], ["m0", "m1"], "alpha must not be negative, not -1.0"),
        (["--alpha", "nan"], ["m0", "m1"], "alpha must be finite, not nan"),
        (["--alpha", "inf"], ["m0", "m1"], "alpha must be finite, not inf"),
        (["--folds", "3"], ["m0", "m1"], "--folds is about linear heads"),
        (["--out-of-fold", "m7=m1"], ["m0", "m1"], "'m7' is no model of the pool"),
        (["--affinity-tau", "0"], ["m0", "m1"], "affinity-tau must be positive"),
        ([], ["m0"], "a pool needs at least two models"),
        ([], ["m0", "m9"], "no stream 'm9' in this cache"),
        (["--train-subset", "val"], ["m0", "m1"], "no subset 'val'"),
    ],
)
def test_mistakes(words: list[str], models: list[str], said: str, planted: PlantedPool) -> None:
    result = affinity(planted, *words, models=models)
    assert result.exit_code == 2, result.output
    assert said in result.stderr.splitlines()[-1]
