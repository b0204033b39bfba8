"""`--decisions auto`: which of the two is taken, what a run keeps of that, and what is found crosswise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache_schema import FeatureCache, UserError, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from policy.deploy.session import open_session
from policy.evaluation.operating import OperatingTarget
from policy.finished import evaluate_run
from policy.runs import Listener, load_method, open_data, read_config, run_method
from policy.selection.config import SelectorCascadeConfig, with_schedule
from policy.selection.controls import cascade, oracle, single_models
from policy.selection.sequential import SelectorCascade
from policy.selection.session import CascadeSession
from policy.selection.settling import JoinedCurve, better, too_few
from tests.caches import make_spec
from tests.pool_tables import random_table
from tests.pools import plant_pool

CPU = torch.device("cpu")
MODELS = ("small", "large")
CLASSES = ("a", "b", "c")
CONFIG = with_schedule(
    SelectorCascadeConfig(models=MODELS, epochs=15, batch=32, lr=0.03, selector_hidden=16), {"threshold"}
)

pytestmark = pytest.mark.usefixtures("one_thread")


def pool(folder: Path, *, shifted: bool, train: int = 330, test: int = 90) -> tuple[FeatureCache, LabelSet]:
    """The small model is always sure of the right class, or `shifted` of the one after it, which a weight for each
    model cannot put right; the large one is right on three of four."""
    random = np.random.default_rng(0)
    label = np.arange(train + test) % len(CLASSES)
    named = {
        "small": (label + shifted) % len(CLASSES),
        "large": np.where(random.random(len(label)) < 0.75, label, (label + 1) % len(CLASSES)),
    }
    for n, (model, classes) in enumerate(named.items()):
        spec = make_spec(model, dim=1, classes=len(CLASSES), macs_per_row=10**9 * (1 + 9 * n))
        scores = random.normal(0, 0.3, (len(label), len(CLASSES)))
        scores[np.arange(len(label)), classes] += 3
        records = [
            VideoRecord(
                id=f"v{v:04d}",
                features=np.zeros((1, 1), np.float16),
                scores=row[None].astype(np.float16),
                spans=np.zeros((1, 2)),
            )
            for v, row in enumerate(scores)
        ]
        write_shard(folder / model, replace(spec, classes=CLASSES), records, tools={})
    videos = tuple(
        VideoLabel(f"v{v:04d}", (CLASSES[c],), "train" if v < train else "test") for v, c in enumerate(label)
    )
    return FeatureCache(folder), LabelSet(Path("labels.csv"), videos)


@pytest.mark.slow
def test_the_perceptron_where_it_is_better(tmp_path: Path) -> None:
    cache, labels = pool(tmp_path / "cache", shifted=True)
    lines: list[str] = []
    run = run_method(CONFIG, cache, labels, tmp_path / "run", device="cpu", listener=Listener(lines.append))
    assert run.result.metrics["top1"] > 0.95
    assert any(line.startswith("--decisions auto: perceptron; areas above random") for line in lines)
    kept = json.loads((run.folder / "settled.json").read_text())
    assert kept["values"] == {"decisions": "perceptron", "temperature": "fitted"}
    assert kept["figures"]["lead_of_perceptron"] > kept["figures"]["standard_error"]
    assert kept["figures"]["above_random"]["perceptron"] > kept["figures"]["above_random"]["logistic"]

    config = read_config(run.folder)
    assert isinstance(config, SelectorCascadeConfig)
    assert (config.decisions, config.answers_by, config.fits_temperature) == ("perceptron", "learned", True)
    assert run_method(CONFIG, cache, labels, tmp_path / "run", device="cpu").reused
    moved = evaluate_run(
        run.folder, cache, labels, target=OperatingTarget("threshold", 0.02), out=tmp_path / "moved"
    )
    assert moved.outcome.result.metrics["top1"] > 0.95
    (again,) = {read_config(tmp_path / "moved")}
    assert isinstance(again, SelectorCascadeConfig) and again.decisions == "perceptron"

    session = open_session(run.folder)
    assert isinstance(session, CascadeSession)
    session.begin({name: np.zeros((1, 2)) for name in MODELS})
    session.take(scores=torch.tensor([[0.0, 3.0, 0.0]]))
    assert session.probabilities.argmax() == 0  # what the small model calls b is a


@pytest.mark.slow
def test_regressions_where_the_perceptron_is_no_better(tmp_path: Path) -> None:
    cache, labels = pool(tmp_path / "cache", shifted=False)
    lines: list[str] = []
    run = run_method(CONFIG, cache, labels, tmp_path / "run", device="cpu", listener=Listener(lines.append))
    assert any(line.startswith("--decisions auto: logistic; areas above random") for line in lines)
    config = read_config(run.folder)
    assert isinstance(config, SelectorCascadeConfig) and config.decisions == "logistic"
    plain = run_method(replace(CONFIG, decisions="logistic"), cache, labels, tmp_path / "plain", device="cpu")
    np.testing.assert_array_equal(run.predictions().scores, plain.predictions().scores)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"answer": "weighted"}, {}], ids=["answer", "few videos"])
def test_what_is_not_tried(change: dict[str, str], tmp_path: Path) -> None:
    cache, labels = pool(tmp_path / "cache", shifted=True, train=330 if change else 60)
    lines: list[str] = []
    config = replace(CONFIG, **change)  # type: ignore[arg-type]
    run = run_method(config, cache, labels, tmp_path / "run", device="cpu", listener=Listener(lines.append))
    found = read_config(run.folder)
    assert isinstance(found, SelectorCascadeConfig) and found.decisions == "logistic"
    few = "--decisions auto: logistic; for a perceptron 60 training videos of 3 classes are too few"
    assert (few in lines) == (not change)
    assert too_few(299, 3) and not too_few(300, 3)


@pytest.mark.slow
def test_a_damaged_or_stale_choice(tmp_path: Path) -> None:
    cache, labels = pool(tmp_path / "cache", shifted=True, train=60)
    run = run_method(CONFIG, cache, labels, tmp_path / "run", device="cpu")
    path = run.folder / "settled.json"
    for damage in ("{", '{"values": 3}', '{"values": {"flavour": 1}}'):
        path.write_text(damage)
        with pytest.raises(UserError, match=r"settled\.json"):
            read_config(run.folder)
    # A choice without results is of a run that came to nothing.
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/settled.json").write_text('{"values": {"decisions": "perceptron"}}')
    config = replace(CONFIG, decisions="logistic")
    run_method(config, cache, labels, tmp_path / "begun", device="cpu")
    found = read_config(tmp_path / "begun")
    assert isinstance(found, SelectorCascadeConfig) and found.decisions == "logistic"


# --- the choice ---


def test_a_tie_goes_to_the_regressions() -> None:
    table = random_table(1, videos=200, models=3, classes=4)
    curve = cascade(table, table)
    name, figures = better(curve, curve)
    assert (name, figures["lead_of_perceptron"]) == ("logistic", 0)
    assert better(curve, oracle(table))[0] == "perceptron"
    assert better(oracle(table), curve)[0] == "logistic"


def test_parts_are_joined_in_the_order_of_the_table() -> None:
    table = random_table(2, videos=40, models=3, classes=4)
    whole = single_models(table)
    parts = []
    for number in (1, 0):
        places = np.arange(40) % 2 == number
        part = replace(
            table,
            video_ids=tuple(np.array(table.video_ids)[places]),
            labels=table.labels[places],
            first=table.first[places],
            probabilities=table.probabilities[places],
            macs=table.macs[places],
        )
        parts.append(single_models(part))
    joined = JoinedCurve.of(table, parts)
    np.testing.assert_array_equal(joined.macs, whole.macs)
    np.testing.assert_array_equal(joined.correct, whole.correct)
    np.testing.assert_array_equal(joined.top1, whole.top1)


# --- a budget of the perceptron ---


@pytest.mark.slow
def test_a_budget_of_the_perceptron_is_found_on_videos_that_it_was_not_trained_on(tmp_path: Path) -> None:
    """It knows the training videos by heart, and is surer of them than of others, which would cost more."""
    planted = plant_pool(tmp_path / "cache", train=240, test=1000, classes_per_group=2, telling=True)
    plain = SelectorCascadeConfig(models=planted.models, decisions="perceptron", epochs=60, batch=48, lr=0.01)
    config = with_schedule(replace(plain, weight_decay=0.0, selector_hidden=64, budget=5.0), {"budget"})
    run = run_method(config, planted.cache, planted.labels, tmp_path / "run", device="cpu")
    data = open_data(config, planted.cache, planted.labels)
    method = load_method(run.folder, config, data)
    assert isinstance(method, SelectorCascade)
    by_heart = method.within(5.0, [(method, data.train)], CPU)
    overspent = method.curve(data.evaluation, CPU, values=np.array([by_heart]))
    assert run.result.gflops_mean < 5.25 < overspent.gflops[0]
