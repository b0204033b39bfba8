"""Selection combined with a cascade: what it decides, what it is charged, what it learns on planted pools."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from cache_schema import UserError
from policy.config import RunConfig, TrainingConfig, method_options, names_of
from policy.data.batches import VideoSet
from policy.data.opening import Dataset
from policy.method import Moment
from policy.registry import CONFIGS, configure
from policy.runs import Listener, load_method, open_data, run_method
from policy.selection.area import compare
from policy.selection.config import SelectorAnswer, SelectorCascadeConfig
from policy.selection.controls import cascade, single_models
from policy.selection.method import Selector
from policy.selection.rule import walk
from policy.selection.sequential import SelectorCascade, Walks
from policy.selection.sequential_network import Evidence, SequentialNetwork
from policy.training.cross_fitting import cross_fitted
from policy.training.loop import CHECKPOINT, Epoch
from tests.pool_tables import averaged
from tests.pools import PlantedPool, plant_pool

MODELS = ("m0", "m1", "m2", "m3")
CONFIG = SelectorCascadeConfig(
    models=MODELS,
    decisions="perceptron",
    temperature="none",
    epochs=3,
    batch=32,
    lr=3e-3,
    selector_hidden=16,
    threshold=0.02,
)
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> PlantedPool:
    return plant_pool(tmp_path_factory.mktemp("small"), train=150, test=60, classes_per_group=2, telling=True)


def trained(config: RunConfig, pool: PlantedPool, folder: Path) -> SelectorCascade:
    run_method(config, pool.cache, pool.labels, folder, device="cpu")
    method = load_method(folder, config, open_data(config, pool.cache, pool.labels))
    assert isinstance(method, SelectorCascade)
    return method


# --- the walk ---


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.floats(0, 0.3))
def test_the_walk_is_a_loop_over_videos(seed: int, models: int, price: float) -> None:
    random = np.random.default_rng(seed)
    count = 7
    sure = random.random((1 << models, count))
    chances = random.random((1 << models, count, models))
    gflops = np.sort(random.random(models)) * 10
    start = int(random.integers(models))
    asked: set[tuple[int, int]] = set()

    def look(mask: int, videos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.update((mask, int(video)) for video in videos)
        return sure[mask, videos], chances[mask, videos]

    ran = walk(look, count, 1 << start, gflops, price)
    needed = set()
    for video in range(count):
        mine = [start]
        while len(mine) < models:
            mask = sum(1 << n for n in mine)
            needed.add((mask, video))
            worth = {n: chances[mask, video, n] - price * gflops[n] for n in range(models) if n not in mine}
            best = max(worth, key=lambda n: worth[n])
            if worth[best] <= sure[mask, video]:
                break
            mine.append(best)
        assert ran[video] == sum(1 << n for n in mine)
    assert asked == needed


def test_at_a_price_that_nothing_is_worth_only_the_first_runs() -> None:
    def look(mask: int, videos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(len(videos)), np.ones((len(videos), 3))

    gflops = np.array([1.0, 2.0, 5.0])
    assert walk(look, 4, 1, gflops, 0.51).tolist() == [1] * 4
    assert walk(look, 4, 1, gflops, 0.49).tolist() == [0b011] * 4
    assert walk(look, 4, 0b111, gflops, 0.0).tolist() == [0b111] * 4


# --- the network ---


@pytest.mark.parametrize("multi_label", [False, True])
def test_nothing_is_seen_of_models_that_have_not_run(multi_label: bool) -> None:
    random = torch.Generator().manual_seed(0)
    network = SequentialNetwork(classes=5, models=3, features=2, hidden=8).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    probabilities = torch.rand(4, 3, 5, generator=random).softmax(2)
    more = torch.randn(4, 2, generator=random)
    ran = torch.tensor([[True, False, True], [True, False, False], [True, True, True], [False, True, False]])
    others = torch.where(ran[:, :, None], probabilities, probabilities.flip(2).roll(1, 2))
    assert not torch.equal(others, probabilities)
    answers = [network(Evidence.of(p, more, multi_label=multi_label), ran) for p in (probabilities, others)]
    for ours, theirs in zip(*answers, strict=True):
        assert torch.equal(ours, theirs)


def test_the_answer_begins_as_the_mean_of_what_is_said() -> None:
    network = SequentialNetwork(classes=4, models=3, features=0, hidden=8).eval()
    said = torch.rand(6, 3, 4, generator=torch.Generator().manual_seed(1)).softmax(2)
    ran = torch.tensor([[True, True, False]]).expand(6, -1)
    answer, _ = network(Evidence.of(said, torch.zeros(6, 0), multi_label=False), ran)
    assert torch.allclose(answer, said[:, :2].log().mean(1), atol=1e-6)


# --- the method, as it is deployed ---


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["learned", "largest", "mean"])
def test_decisions_answers_and_costs_against_a_loop(
    kind: SelectorAnswer, small: PlantedPool, tmp_path: Path
) -> None:
    config = replace(CONFIG, answer=kind, threshold=0.005)
    method = trained(config, small, tmp_path / "run")
    data = open_data(config, small.cache, small.labels)
    said = run_method(config, small.cache, small.labels, tmp_path / "run", device="cpu").predictions()
    assert said.video_ids == data.evaluation.ids
    table, _ = method.look(data.evaluation)
    gflops = method.look(data.train)[0].macs.mean(axis=0) / 1e9
    sizes = set()
    for video in range(len(table)):
        probabilities = table.probabilities[video]
        mine = [0]
        while True:
            on = torch.zeros(1, 4, dtype=torch.bool)
            on[0, mine] = True
            evidence = Evidence.of(
                torch.from_numpy(probabilities)[None], torch.zeros(1, 0), multi_label=False
            )
            with torch.no_grad():
                logits, chances = method.model(evidence, on)
            posterior = logits[0].softmax(0).numpy()
            answer = {
                "learned": posterior,
                "largest": probabilities[max(mine)],
                "mean": averaged(probabilities[mine], multi_label=False),
            }[kind]
            left = [n for n in range(4) if n not in mine]
            if not left:
                break
            expected = chances[0].sigmoid().numpy()
            best = max(left, key=lambda n: expected[n] - 0.005 * gflops[n])
            if expected[best] - 0.005 * gflops[best] <= posterior[answer.argmax()]:
                break
            mine.append(best)
        assert said.scores[0, video] == pytest.approx(answer, abs=1e-5)
        assert said.ledger.total[0, video] == table.macs[video, mine].sum() + len(mine) * method.model.macs
        sizes.add(len(mine))
    assert len(sizes) > 1
    point = Walks(method, data.evaluation, CPU).curve(np.array([0.005]))
    assert point.gflops[0] == pytest.approx(said.gflops.mean())
    assert point.top1[0] == pytest.approx(said.top1())
    assert np.allclose(point.scores(0), said.scores[0], atol=1e-5)


def test_a_curve_goes_from_the_first_model_alone_to_where_nothing_costs(
    small: PlantedPool, tmp_path: Path
) -> None:
    method = trained(CONFIG, small, tmp_path / "run")
    data = open_data(CONFIG, small.cache, small.labels)
    curve = method.curve(data.evaluation, CPU, points=9)
    assert 2 <= len(curve.values) <= 9 and (np.diff(curve.values) < 0).all() and curve.values[-1] == 0
    assert (curve.ran[0] == 1).all()
    assert (curve.ran & 1).all()  # the first always runs
    assert curve.gflops[-1] == curve.gflops.max() > curve.gflops[0]
    table, _ = method.look(data.evaluation)
    assert curve.gflops[0] == pytest.approx((table.macs[:, 0].mean() + method.model.macs) / 1e9)


@pytest.mark.slow
def test_of_two_prices_one_is_above_all_and_one_is_none(small: PlantedPool, tmp_path: Path) -> None:
    method = trained(CONFIG, small, tmp_path / "run")
    data = open_data(CONFIG, small.cache, small.labels)
    every, ends = (method.curve(data.evaluation, CPU, points=points) for points in (500, 2))
    assert len(ends.values) == 2 and ends.values[1] == 0
    assert ends.values[0] == every.values[0] and (ends.ran[0] == 1).all()


def held_out(method: SelectorCascade, data: Dataset) -> list[tuple[SelectorCascade, VideoSet]]:
    """The training videos in parts, each with a method that was trained on the others."""
    parts = cross_fitted(method, data, CPU)
    return [(one, videos) for one, videos in parts if isinstance(one, SelectorCascade)]


@pytest.mark.slow
def test_a_budget_sets_the_price_on_the_training_videos(small: PlantedPool, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=40, budget=5.0)
    method = trained(config, small, tmp_path / "run")
    data = open_data(config, small.cache, small.labels)
    at = np.array([float(method.model.price)])

    def spent(parts: list[tuple[SelectorCascade, VideoSet]]) -> float:
        macs = [Walks(one, videos, CPU).curve(at).macs[0] for one, videos in parts]
        return float(np.concatenate(macs).mean() / 1e9)

    parts = held_out(method, data)
    # What parts cost that each has not had, and by how much this one costs more on those that each has had.
    had = [
        (one, data.train.part([v for v in range(150) if data.train.ids[v] not in videos.ids]))
        for one, videos in parts
    ]
    assert 4.5 < spent(parts) + spent([(method, data.train)]) - spent(had) <= 5.0
    assert method.expected_cost([(method, data.evaluation)], CPU)(float(at[0])) == pytest.approx(
        spent([(method, data.evaluation)])
    )
    with pytest.raises(UserError, match=r"--budget 0\.1: the least that is possible"):
        trained(replace(config, budget=0.1), small, tmp_path / "less")
    assert not (tmp_path / "less" / CHECKPOINT).exists()


def test_what_cannot_be_first(small: PlantedPool, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--input m3: the model that runs first must be one of the pool"):
        trained(replace(CONFIG, models=MODELS[:3], coarse="m3"), small, tmp_path / "a")
    with pytest.raises(UserError, match=r"give --selector-input scores\+features"):
        trained(replace(CONFIG, selector_input="features"), small, tmp_path / "b")
    first = trained(replace(CONFIG, coarse="m1"), small, tmp_path / "c")
    data = open_data(replace(CONFIG, coarse="m1"), small.cache, small.labels)
    assert (first.curve(data.evaluation, CPU).ran & 2).all()


@pytest.mark.slow
def test_a_stopped_run_comes_to_the_same_bits(small: PlantedPool, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        if epoch["epoch"] == 2:
            raise Stop

    trained(CONFIG, small, tmp_path / "whole")
    torch.rand(3)
    with pytest.raises(Stop):
        run_method(
            CONFIG, small.cache, small.labels, tmp_path / "run", device="cpu", listener=Listener(epoch=stop)
        )
    trained(CONFIG, small, tmp_path / "run")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours | theirs)
    assert len({(tmp_path / name / "predictions.npz").read_bytes() for name in ("run", "whole")}) == 1


def test_options_are_what_it_reads(small: PlantedPool) -> None:
    read: set[str] = set()

    class Watched(SelectorCascadeConfig):
        def __getattribute__(self, attribute: str) -> object:
            read.add(attribute)
            return super().__getattribute__(attribute)

    data = open_data(CONFIG, small.cache, small.labels)
    method = SelectorCascade(Watched(**vars(CONFIG)), data)
    batch = data.train.batch([3, 0, 7], method.rows, method.scored)
    method.losses(batch, Moment(0.5), torch.Generator())
    method.model.eval()
    method.finish(data.train, CPU)
    method.predict(batch, torch.Generator())
    names = names_of(*CONFIGS.values()) - names_of(TrainingConfig)
    options = set(method_options(SelectorCascadeConfig))
    # Of heads and folds the pool reads what it needs.
    unread = options - {"coarse"} - (read & names)
    assert read & names <= options
    assert unread <= {"heads", "folds", "out_of_fold", "score_classes"}


# --- what it learns ---


@pytest.mark.slow
def test_it_beats_selector_and_cascade_where_both_know_something(tmp_path: Path) -> None:
    """The group shows in the scores, and whether a model is right in how sure it is: selector and cascade go by
    one of them each."""
    pool = plant_pool(tmp_path / "cache", train=2500, test=2000, telling=True)
    config = replace(CONFIG, epochs=40, batch=128, selector_hidden=256, weight_decay=1e-4, lr_drop=(16, 32))
    method = trained(config, pool, tmp_path / "run")
    data = open_data(config, pool.cache, pool.labels)
    plain = configure("selector", vars(config), epochs=20, lr=1e-3, lr_drop=(8, 16), target="loss")
    run_method(plain, pool.cache, pool.labels, tmp_path / "plain", device="cpu")
    selector = load_method(tmp_path / "plain", plain, data)
    assert isinstance(selector, Selector)
    table, training = method.look(data.evaluation)[0], method.look(data.train)[0]
    curves = {
        "own": method.curve(data.evaluation, CPU),
        "selector": selector.curve(data.evaluation, CPU),
        "cascade": cascade(table, training),
        "random": single_models(table),
    }
    compared = compare(curves, resamples=200)
    for other in ("selector", "cascade"):
        area = compared.area_above("own", other)
        assert area is not None and area.low > 0, other
