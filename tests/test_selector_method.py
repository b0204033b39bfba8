"""The selector as a method: what it learns, what it is charged for; its runs are as those of other methods."""

from __future__ import annotations

import csv
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from cache_schema import FeatureCache, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel, read_labels
from policy.cli.train_policy import train_policy
from policy.config import RunConfig, TrainingConfig, method_options, names_of
from policy.method import Moment
from policy.registry import CONFIGS
from policy.runs import Listener, load_method, open_data, run_method
from policy.selection.config import SelectorConfig
from policy.selection.method import Selector
from policy.training.cross_fitting import cross_fitted
from policy.training.loop import CHECKPOINT
from tests.caches import make_spec
from tests.planted import write_planted_labels
from tests.pools import PlantedPool, plant_pool
from tests.test_policy_distributed import torchrun

CPU = torch.device("cpu")
CONFIG = SelectorConfig(
    decisions="perceptron",
    temperature="none",
    models=("m0", "m1", "m2", "m3"),
    epochs=3,
    batch=32,
    lr=1e-2,
    selector_hidden=16,
    rows=2,
)
BACKBONES = (600_000_000, 2_000_000_000, 4_700_000_000, 18_400_000_000)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedPool:
    folder = tmp_path_factory.mktemp("pool")
    pool = plant_pool(folder / "cache", train=120, test=60, classes_per_group=2, rows=2)
    write_planted_labels(pool.labels, folder / "labels.csv")
    return pool


def made(pool: PlantedPool, config: RunConfig, folder: Path) -> Selector:
    """A trained one."""
    run_method(config, pool.cache, pool.labels, folder, device="cpu")
    method = load_method(folder, config, open_data(config, pool.cache, pool.labels))
    assert isinstance(method, Selector)
    return method


def test_options_are_what_it_reads(planted: PlantedPool) -> None:
    read: set[str] = set()

    class Watched(SelectorConfig):
        def __getattribute__(self, attribute: str) -> object:
            read.add(attribute)
            return super().__getattribute__(attribute)

    data = open_data(CONFIG, planted.cache, planted.labels)
    for change in ({"affinity": "soft"}, {}):
        config = replace(CONFIG, **change)  # type: ignore[arg-type]
        method = Selector(
            Watched(**{field.name: getattr(config, field.name) for field in fields(config)}), data
        )
        batch = data.train.batch([5, 3], read=method.reads)
        method.losses(batch, Moment(0.5), torch.Generator())
        method.model.eval()
        method.finish(data.train, CPU)
        method.within(5.0, [(method, data.train)], CPU)
        method.predict(batch, torch.Generator())
        method.network_macs(np.array([2]), np.array([0]))
    names = names_of(*CONFIGS.values()) - names_of(TrainingConfig)
    elsewhere = {"coarse", "heads", "folds", "out_of_fold"}  # where the class scores come from
    assert (read & names) - elsewhere == set(method_options(SelectorConfig)) - elsewhere


@pytest.mark.parametrize("affinity", ["hard", "soft"])
def test_the_loss_is_eq_1(affinity: str, planted: PlantedPool) -> None:
    config = replace(CONFIG, affinity=affinity, alpha=0.3)  # type: ignore[arg-type]
    data = open_data(config, planted.cache, planted.labels)
    method = Selector(config, data)
    indices = [7, 0, 33, 21]
    loss = method.losses(data.train.batch(indices), Moment(0.0), torch.Generator())["loss"]
    assert isinstance(loss, torch.Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    # By hand: the network on the cheapest model's mean probabilities, brought to zero mean and unit variance.
    logits = [planted.cache["m0"][video].scores for video in data.train.ids]
    odds = [np.exp(each.astype(np.float64)) for each in logits if each is not None]
    inputs = np.array([(each / each.sum(axis=1, keepdims=True)).mean(axis=0) for each in odds])
    scaled = torch.from_numpy((inputs - inputs.mean(axis=0)) / inputs.std(axis=0))[indices]
    weights = {name: value.double() for name, value in method.model.state_dict().items()}
    hidden = (scaled @ weights["layers.0.weight"].T + weights["layers.0.bias"]).relu()
    said = (hidden @ weights["layers.2.weight"].T + weights["layers.2.bias"]).softmax(1).numpy()
    wanted = method.targets(data.train).double().numpy()[indices]
    assert float(loss.detach()) == pytest.approx(-(wanted * np.log(said)).sum() / len(indices), rel=1e-4)
    bias = dict(method.model.named_parameters())["layers.2.bias"].grad
    assert bias is not None
    assert bias.numpy() == pytest.approx(
        (said - wanted).mean(axis=0), abs=1e-5
    )  # as softmax and entropy have it


def test_what_it_looks_at_is_always_charged(planted: PlantedPool, tmp_path: Path) -> None:
    method = made(planted, CONFIG, tmp_path / "run")
    data = open_data(CONFIG, planted.cache, planted.labels)
    curve = method.curve(data.evaluation, CPU)
    chosen = np.log2(curve.answering).astype(int)
    network = 8 * 16 + 16 * 4
    for point, video in np.ndindex(*chosen.shape):
        model = int(chosen[point, video])
        assert curve.macs[point, video] == BACKBONES[0] + (BACKBONES[model] if model else 0) + network
    # The cheapest for all, at nothing but its own cost; the dearest for all.
    assert not chosen[0].any() and (chosen[-1] == 3).all()
    assert (np.diff(curve.gflops) >= 0).all()


@pytest.mark.parametrize("target", ["affinity", "loss"])
def test_a_dearer_model_to_look_at(target: str, planted: PlantedPool, tmp_path: Path) -> None:
    """Fig. 4a: the curve begins at what it costs."""
    config = replace(CONFIG, coarse="m2", target=target)  # type: ignore[arg-type]
    method = made(planted, config, tmp_path / "run")
    curve = method.curve(open_data(config, planted.cache, planted.labels).evaluation, CPU)
    least = BACKBONES[2] + 8 * 16 + 16 * 4
    assert curve.macs.min() == least and (curve.macs[0] == least).all()
    assert (curve.answering[0] == 1 << 2).all()  # it has run anyway: nothing is cheaper
    cheaper = curve.answering == 1 << 0
    assert (curve.macs[cheaper] == least + BACKBONES[0]).all()


def test_a_model_outside_the_pool_is_charged(planted: PlantedPool, tmp_path: Path) -> None:
    config = replace(CONFIG, models=("m1", "m2"), coarse="m0", threshold=0.4)
    run = run_method(config, planted.cache, planted.labels, tmp_path / "run", device="cpu")
    said = run.predictions()
    network = 8 * 16 + 16 * 2
    assert (said.ledger["m0"][0] == BACKBONES[0]).all()  # its classifier with it
    chosen = said.ledger["m1"][0] > 0
    assert (said.ledger["m1"][0] == np.where(chosen, BACKBONES[1], 0)).all()
    assert (said.ledger["m2"][0] == np.where(chosen, 0, BACKBONES[2])).all()
    assert (said.ledger["selector network"][0] == network).all()
    method = load_method(run.folder, config, open_data(config, planted.cache, planted.labels))
    assert isinstance(method, Selector)
    videos = open_data(config, planted.cache, planted.labels).evaluation
    curve = method.curve(videos, CPU, points=500)
    assert set(np.unique(curve.answering)) <= {1, 2}  # it answers nothing
    point = int(np.searchsorted(curve.values, 0.4, side="right")) - 1
    assert np.array_equal(curve.macs[point], said.ledger.total[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{}, {"when_none": "most-confident"}, {"rule": "price", "threshold": 0.02}]
)
def test_the_run_is_a_point_of_the_curve(
    change: dict[str, object], planted: PlantedPool, tmp_path: Path
) -> None:
    config = replace(CONFIG, **{"threshold": 0.3, **change})  # type: ignore[arg-type]
    method = made(planted, config, tmp_path / "run")
    said = run_method(config, planted.cache, planted.labels, tmp_path / "run", device="cpu")
    assert said.reused
    predictions = said.predictions()
    videos = open_data(config, planted.cache, planted.labels).evaluation
    chosen = method.choose(method.confidences(videos, CPU), method.threshold)
    table, _ = method.look(videos)
    assert np.allclose(predictions.scores[0], table.probabilities[np.arange(60), chosen])
    curve = method.decided(table, np.array([config.threshold]), chosen[None], videos)
    assert np.array_equal(predictions.ledger.total[0], curve.macs[0])
    assert said.result.metrics["top1"] == pytest.approx(curve.top1[0])
    assert said.result.gflops_mean == pytest.approx(curve.gflops[0])
    with (tmp_path / "run" / "choices.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video_id"] for row in rows] == list(videos.ids)
    assert [row["answers"] for row in rows] == [table.models[n] for n in chosen]
    first = table.models[method.input_place or 0]
    assert [set(row["ran"].split("+")) for row in rows] == [{first, table.models[n]} for n in chosen]
    assert [float(row["gflops"]) for row in rows] == pytest.approx(curve.macs[0] / 1e9, rel=1e-5)


def test_without_a_threshold_some_model_always_clears(planted: PlantedPool, tmp_path: Path) -> None:
    config = replace(CONFIG, threshold=None)
    method = made(planted, config, tmp_path / "run")
    videos = open_data(config, planted.cache, planted.labels).evaluation
    said = method.confidences(videos, CPU)
    chosen = method.choose(said, method.threshold)
    assert (said[np.arange(len(said)), chosen] >= 1 / said.shape[1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"rule": "price"}, {"target": "loss"}])
@pytest.mark.parametrize("budget", [0.7, 3.0, 100.0])
def test_a_budget_holds_on_training_videos_that_are_held_out(
    change: dict[str, object], budget: float, planted: PlantedPool, tmp_path: Path
) -> None:
    config = replace(CONFIG, budget=budget, **change)  # type: ignore[arg-type]
    method = made(planted, config, tmp_path / "run")
    calibration = cross_fitted(method, open_data(config, planted.cache, planted.labels), CPU)
    parts = [(one, videos) for one, videos in calibration if isinstance(one, Selector)]
    values = method.values(np.concatenate([one.confidences(videos, CPU) for one, videos in parts]), None)
    cost = method.expected_cost(calibration, CPU)
    found = float(method.model.threshold)
    assert cost(found) <= budget
    (place,) = np.flatnonzero(values == found)
    assert place + 1 == len(values) or cost(values[place + 1]) > budget


def test_what_it_can_see(planted: PlantedPool) -> None:
    data = open_data(CONFIG, planted.cache, planted.labels)
    widths = {
        ("scores", False): 8,
        ("features", False): 1,
        ("scores+features", True): 8 + 6 + 1,
        ("features", True): 6 + 1,
    }
    for (seen, sure), width in widths.items():
        config = replace(CONFIG, selector_input=seen, confidence_input=sure)  # type: ignore[arg-type]
        _, inputs = Selector(config, data).look(data.train)
        assert inputs.shape == (120, width) and inputs.isfinite().all()


def test_how_sure(planted: PlantedPool) -> None:
    data = open_data(CONFIG, planted.cache, planted.labels)
    method = Selector(replace(CONFIG, confidence_input=True), data)
    table, inputs = method.look(data.train)
    for video, seen in enumerate(inputs.double().numpy()):
        p = table.probabilities[video, 0].astype(np.float64)
        expected = [*np.log(sorted(p, reverse=True)[:5]), -sum(each * np.log(each) for each in p)]
        assert seen == pytest.approx([*p, *expected], abs=1e-4)


def test_how_sure_of_several_classes(tmp_path: Path) -> None:
    cache, labels = several_labels(tmp_path / "cache")
    config = SelectorConfig(models=("m0", "m1"), decisions="perceptron", confidence_input=True)
    table, inputs = (method := Selector(config, open_data(config, cache, labels))).look(
        open_data(config, cache, labels).train
    )
    said = torch.from_numpy(table.probabilities[:, 0]).double().clamp(1e-7, 1 - 1e-7)
    entropy = torch.nn.functional.binary_cross_entropy(said, said, reduction="none").sum(dim=1)
    assert method.multi_label
    assert torch.allclose(inputs[:, -1].double(), entropy, rtol=1e-4)


def run_of(config: RunConfig, pool: PlantedPool, folder: Path) -> dict[str, bytes]:
    run_method(config, pool.cache, pool.labels, folder, device="cpu")
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "predictions.npz")}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(planted: PlantedPool, tmp_path: Path) -> None:
    first, again = (run_of(CONFIG, planted, tmp_path / name) for name in ("a", "b"))
    assert first == again
    assert run_of(replace(CONFIG, seed=1), planted, tmp_path / "c") != first


@pytest.mark.slow
def test_a_stopped_run_goes_on(planted: PlantedPool, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(epoch: object) -> None:
        raise Stop

    config = replace(CONFIG, budget=4.0, lr_drop=(1,))
    undisturbed = run_of(config, planted, tmp_path / "a")
    with pytest.raises(Stop):
        listener = Listener(epoch=stop)
        run_method(config, planted.cache, planted.labels, tmp_path / "b", device="cpu", listener=listener)
    assert (tmp_path / "b" / CHECKPOINT).exists()
    assert run_of(config, planted, tmp_path / "b") == undisturbed


@pytest.mark.slow
def test_two_processes_train_what_one_does(planted: PlantedPool, tmp_path: Path) -> None:
    folder = planted.cache.folder
    config = replace(CONFIG, rows=None, budget=4.0)
    run_method(
        config, planted.cache, read_labels(folder.parent / "labels.csv"), tmp_path / "one", device="cpu"
    )
    words = ["--cache", folder, "--labels", folder.parent / "labels.csv"]
    words += [word for model in config.models for word in ("--model", model)]
    words += ["--epochs", 3, "--batch", 32, "--lr", 1e-2, "--lr-drop", 99, "--selector-hidden", 16]
    words += ["--decisions", "perceptron", "--temperature", "none"]
    done = torchrun("selector", *words, "--budget", 4, "--device", "cpu", "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two" / "result.json").read_text())["processes"] == 2
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def several_labels(folder: Path) -> tuple[FeatureCache, LabelSet]:
    """Two models of which the dear one is better on videos that the cheap one calls "c0"; videos of 1 or 2
    classes."""
    random = np.random.default_rng(0)
    names = tuple(f"c{c}" for c in range(6))
    labels = random.random((200, 6)) < 0.2
    labels[np.arange(200), random.integers(6, size=200)] = True
    for model, (macs, sure) in enumerate(((10, 1.0), (90, 3.0))):
        spec = replace(make_spec(f"m{model}", dim=1, classes=6, macs_per_row=macs * 1_000_000), classes=names)
        easy = ~labels[:, 0]
        strength = np.where(easy, 3.0, sure)[:, None]
        logits = (2 * labels - 1) * strength + random.normal(0, 0.5, labels.shape)
        records = [
            VideoRecord(
                id=f"v{v:03d}",
                features=np.zeros((1, 1), np.float16),
                scores=row[None].astype(np.float16),
                spans=np.zeros((1, 2)),
            )
            for v, row in enumerate(logits)
        ]
        write_shard(folder / f"m{model}", spec, records, tools={"thriftvid": "test"})
    videos = [
        VideoLabel(f"v{v:03d}", tuple(np.array(names)[row]), "train" if v < 120 else "test")
        for v, row in enumerate(labels)
    ]
    return FeatureCache(folder), LabelSet(Path("labels.csv"), tuple(videos))


@pytest.mark.slow
def test_several_classes_per_video(tmp_path: Path) -> None:
    """Probabilities are sigmoids, losses binary cross-entropy; the selector finds out which videos are hard."""
    cache, labels = several_labels(tmp_path / "cache")
    config = SelectorConfig(
        models=("m0", "m1"),
        decisions="perceptron",
        temperature="none",
        epochs=40,
        batch=20,
        lr=1e-2,
        alpha=0.05,
    )
    run = run_method(config, cache, labels, tmp_path / "run", device="cpu")
    said = run.predictions()
    dear = said.ledger["m1"][0] > 0
    assert np.mean(dear == said.labels[:, 0]) > 0.8
    for video, name in enumerate(said.video_ids):
        scores = cache["m1" if dear[video] else "m0"][name].scores
        assert scores is not None
        assert said.scores[0, video] == pytest.approx(
            1 / (1 + np.exp(-scores[0].astype(np.float64))), abs=1e-5
        )


def selector(pool: PlantedPool, folder: Path, *words: str) -> Result:
    data = ["--cache", str(pool.cache.folder), "--labels", str(pool.cache.folder.parent / "labels.csv")]
    models = ["--model", "m0", "--model", "m1", "--epochs", "2", "--device", "cpu", "--out", str(folder)]
    return CliRunner().invoke(train_policy, ["selector", *data, *models, "--decisions", "perceptron", *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--alpha", "-0.1"], "alpha must not be negative, not -0.1"),
        (["--alpha", "nan"], "alpha must be finite, not nan"),
        (["--threshold", "inf"], "threshold must be finite, not inf"),
        (["--budget", "inf"], "budget must be finite, not inf"),
        (["--threshold", "1.5"], "--threshold 1.5: no confidence is larger than 1"),
        (["--threshold", "-1"], "threshold must not be negative"),
        (["--budget", "0"], "budget must be positive"),
        (["--budget", "0.3"], "--budget 0.3: the least that is possible is 0.6 GFLOPs per video"),
        (["--budget", "3", "--threshold", "0.2"], "give --threshold or --budget"),
        (["--target", "loss"], "--target loss weighs models by the price of a GFLOP: give --budget GFLOPS"),
        (["--rule", "price"], "--rule price weighs models by the price of a GFLOP"),
        (
            ["--target", "loss", "--rule", "threshold", "--budget", "3"],
            "--rule threshold is for --target affinity",
        ),
        (["--target", "accuracy"], "'accuracy' is not one of"),
        (["--gamma", "1"], "No such option"),
        (["--eval-subset", "val"], "no subset 'val'; it has: train, test"),
        (["--input", "m7"], "no stream 'm7' in this cache"),
    ],
)
def test_mistakes(words: list[str], said: str, planted: PlantedPool, tmp_path: Path) -> None:
    result = selector(planted, tmp_path / "run", *words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr.splitlines()[-1]


def test_a_budget_that_is_too_small_is_told_before_training(planted: PlantedPool, tmp_path: Path) -> None:
    """Nothing is left of the run that another one would have to make room for."""
    for words in (["--budget", "0.3"], ["--input", "m2", "--budget", "4.7"]):
        assert selector(planted, tmp_path / "run", *words).exit_code == 2
        assert not (tmp_path / "run" / CHECKPOINT).exists()
    assert selector(planted, tmp_path / "run", "--budget", "3").exit_code == 0


@pytest.mark.slow
def test_the_learning_rate_falls_with_the_epochs(planted: PlantedPool, tmp_path: Path) -> None:
    """Sec. 4.1: at epochs 2 and 4 of 5."""
    for epochs, drops in ((5, [2, 4]), (10, [4, 8]), (1, [])):
        folder = tmp_path / str(epochs)
        assert selector(planted, folder, "--epochs", str(epochs)).exit_code == 0
        assert json.loads((folder / "config.json").read_text())["config"]["lr_drop"] == drops
    assert selector(planted, tmp_path / "own", "--lr-drop", "1").exit_code == 0
    assert json.loads((tmp_path / "own" / "config.json").read_text())["config"]["lr_drop"] == [1]
