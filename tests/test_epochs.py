"""Epochs of every method: validation videos decide which is kept and when to stop; what diverges says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from policy.baselines.fast_forward import FastForward
from policy.cli.train_policy import train_policy
from policy.config import RunConfig
from policy.evaluation.predictions import Predictions
from policy.finished import evaluate_run
from policy.localization.method import WTALC
from policy.method import log_loss
from policy.registry import METHODS, configure
from policy.runs import Listener, load_method, make_method, open_data, run_method
from policy.selection.method import Selector
from policy.training.loop import Epoch, best_epoch
from policy.training.validation import split, validate, validation_videos
from tests.planted import write_planted, write_planted_labels
from tests.planted_actions import STREAMS, plant_actions, small
from tests.pools import plant_pool

CPU = torch.device("cpu")
EPOCHS = 3
TRAINED = [name for name in METHODS if name not in ("motion-difference", "confidence-exit")]
"""All but those of which only a classifier is fitted."""
RECURRENT = ("liteeval", "liteeval-rl", "random-gating", "lstm", "lstm-cf", "coarse-only")
FRAMES = {
    **{"coarse": "coarse_112", "fine": "fine_224", "coarse_hidden": 6, "fine_hidden": 12, "usage": 0.3},
    **{
        "usage_loss": "constrained",
        "row_hidden": 12,
        "saliency_hidden": 12,
        "top_rows": 3,
        "frames": 5,
        "glimpses": 3,
        "lr": 1e-2,
        "batch": 8,
        "epochs": EPOCHS,
    },
    **{"streams": ("coarse_112", "fine_224"), "policy_hidden": 6},
}
POOL = {
    **{"models": ("m0", "m1", "m2"), "decisions": "perceptron", "budget": 8.0, "selector_hidden": 8},
    **{"lr": 1e-2, "batch": 8, "epochs": EPOCHS, "weight_decay": 0.0},
}

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class World:
    """Videos of subsets "train", "val" and "test", and settings of methods that they are for."""

    cache: FeatureCache
    labels: LabelSet
    settings: Mapping[str, Any]

    def config(self, method: str, **more: Any) -> RunConfig:
        return configure(method, {**self.settings, "eval_subset": "test", **more})

    def run(self, config: RunConfig, folder: Path) -> list[dict[str, float]]:
        """Train, and return the lines of metrics.jsonl without the seconds."""
        run = run_method(config, self.cache, self.labels, folder, device="cpu")
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def with_validation(labels: LabelSet) -> LabelSet:
    """Half of the subset "test", of which consecutive videos are of different classes, is "val" instead."""
    tests = [video.video_id for video in labels.videos if video.subset == "test"]
    held = frozenset(tests[: len(tests) // 2])
    return replace(
        labels,
        videos=tuple(
            replace(video, subset="val") if video.video_id in held else video for video in labels.videos
        ),
    )


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("frames")
    cache, labels = write_planted(folder, train=24, test=16, classes=4, dim=8)
    labels = with_validation(labels)
    write_planted_labels(labels, folder / "labels.csv")
    return World(cache, labels, FRAMES)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> World:
    planted = plant_pool(tmp_path_factory.mktemp("pool"), train=60, test=60, classes_per_group=2)
    return World(planted.cache, with_validation(planted.labels), POOL)


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("actions")
    cache, labels = plant_actions(folder / "cache", train=12, test=12, lengths=(30, 40))
    labels = with_validation(labels)
    for role, stream in zip(("appearance", "motion"), STREAMS, strict=True):
        alone = small(appearance=None, motion=None, epochs=1, input_norm="standard") | {
            role: stream,
            "eval_subset": "test",
        }
        run_method(configure("wtalc", alone), cache, labels, folder / role, device="cpu")
    runs = {f"{role}_run": str(folder / role) for role in ("appearance", "motion")}
    settings = {**small(epochs=EPOCHS, epoch_steps=5), **runs, "budget": 25.0, "batch": 6}
    return World(cache, labels, settings)


def world_of(method: str, request: pytest.FixtureRequest) -> World:
    names = {"selector": "pool", "selector-cascade": "pool"}
    names |= {"wtalc": "actions", "localization-selector": "actions"}
    world: World = request.getfixturevalue(names.get(method, "frames"))
    return world


@pytest.mark.slow
@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("asked", [{"validation_subset": "val"}, {"validation": 0.25}])
def test_every_method_keeps_the_best_epoch(
    method: str, asked: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """What the kept weights come to on the validation videos is what the best epoch's line says."""
    world = world_of(method, request)
    config = world.config(method, **asked)
    lines = world.run(config, tmp_path)
    assert len(lines) == EPOCHS
    data = open_data(config, world.cache, world.labels)
    kept = load_method(tmp_path, config, data)
    videos = validation_videos(kept, data)
    assert videos is not None and len(videos) == (
        round(0.25 * len(data.train))
        if "validation" in asked
        else sum(v.subset == "val" for v in world.labels.videos)
    )
    assert set(videos.ids) <= set(data.train.ids) or not set(videos.ids) & set(data.train.ids)
    best = best_epoch(kept, lines)
    assert best is not None
    accuracy = "video_map" if method in ("wtalc", "localization-selector") else "top1"
    assert {f"validation_{accuracy}", "validation_gflops", "validation_loss"} <= best.keys()
    if method != "localization-selector":  # whose runs need what it was built on to be judged by a loss
        found = validate(kept, videos, CPU)
        assert found == pytest.approx({name: best[name] for name in found}, rel=1e-5, abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("method", TRAINED)
def test_a_training_does_not_notice_that_it_is_validated(
    method: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    world = world_of(method, request)
    plain = world.run(world.config(method), tmp_path / "plain")
    validated = world.run(world.config(method, validation_subset="val", keep="last"), tmp_path / "validated")
    trained = [
        {name: line[name] for name in line if not name.startswith("validation_")} for line in validated
    ]
    assert trained == plain
    ours, theirs = (load_file(tmp_path / part / "model.safetensors") for part in ("plain", "validated"))
    found = {"threshold", "price"}  # where they are found on videos, these are the validation videos now
    assert (
        all(torch.equal(ours[name], theirs[name]) for name in ours.keys() - found)
        and ours.keys() == theirs.keys()
    )


def test_the_loss_of_wtalc(actions: World, tmp_path: Path) -> None:
    """The multiple-instance loss, video by video and class by class."""
    config = actions.config("wtalc", validation_subset="val")
    data = open_data(config, actions.cache, actions.labels)
    method, videos = WTALC(config, data), data.validation  # type: ignore[arg-type]
    assert videos is not None
    expected = 0.0
    for logits, classes in zip(method.activations(videos, CPU), videos.labels, strict=True):
        highest = np.sort(logits.astype(np.float64), axis=0)[::-1][: -(-len(logits) // 8)].mean(axis=0)
        log_sum = np.log(sum(np.exp(value) for value in highest))
        expected -= sum(highest[c] - log_sum for c in np.flatnonzero(classes)) / classes.sum()
    found = validate(method, videos, CPU)
    assert found["validation_loss"] == pytest.approx(expected / len(videos), rel=1e-5)
    assert "validation_thumos14_map_0.5" in found  # "val" has segments


def test_the_loss_of_a_selector(pool: World) -> None:
    """Eq. 1 on videos that are not trained on: the model of least entropy + α · share of the cost."""
    config = pool.config("selector", validation_subset="val", alpha=1e-2)
    data = open_data(config, pool.cache, pool.labels)
    method, videos = Selector(config, data), data.validation  # type: ignore[arg-type]
    assert videos is not None
    table, inputs = method.look(videos)
    cost = np.array([table.mean_macs[n] for n in range(3)])
    logits, total = method.model(inputs).detach().double(), 0.0
    for m, label in enumerate(videos.first):
        losses = [-np.log(table.probabilities[m, n, label]) + 1e-2 * cost[n] / cost.sum() for n in range(3)]
        total -= float(logits[m].log_softmax(0)[int(np.argmin(losses))])
    assert validate(method, videos, CPU)["validation_loss"] == pytest.approx(total / len(videos), rel=1e-5)


def test_fast_forward_pays_for_frames(frames: World) -> None:
    config = frames.config("fast-forward", validation_subset="val", frame_price=0.5)
    data = open_data(config, frames.cache, frames.labels)
    method = FastForward(config, data)
    judged = method.evaluate(data.evaluation, device=CPU)
    assert isinstance(judged, Predictions)
    looked = sum(int(gates) for gates in judged.gates[0]) / len(data.evaluation)
    loss = method.validation_loss(judged, data.evaluation, CPU)
    assert loss == pytest.approx(log_loss(judged, data.evaluation) + 0.5 * (looked - 1))


# --- when to stop ---


def scripted(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Make the validation losses of LSTMs these, epoch by epoch."""
    left = iter(losses)
    monkeypatch.setattr(METHODS["lstm"], "validation_loss", lambda *arguments: next(left))


def test_patience(frames: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = [3.0, 2.0, 2.5, 2.0, 1.0, 0.0]  # equal is no better
    scripted(monkeypatch, losses)
    config = frames.config("lstm", epochs=6, validation_subset="val", patience=2)
    notes: list[str] = []
    run_method(config, frames.cache, frames.labels, tmp_path, device="cpu", listener=Listener(notes.append))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["validation_loss"] for line in lines] == losses[:4]
    assert "stopped after epoch 4 of 6; epoch 2 is kept: validation loss 2" in notes


@pytest.mark.parametrize("stopped_after", [1, 3, 4])
def test_a_stopped_run_is_as_patient(
    stopped_after: int, frames: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        if epoch["epoch"] == stopped_after:
            raise Stop

    losses = [3.0, 2.0, 2.5, 2.0, 1.0, 0.0]
    config = frames.config("lstm", epochs=6, validation_subset="val", patience=2)
    scripted(monkeypatch, losses)
    run_method(config, frames.cache, frames.labels, tmp_path / "whole", device="cpu")
    scripted(monkeypatch, losses)
    with pytest.raises(Stop):
        run_method(
            config,
            frames.cache,
            frames.labels,
            tmp_path / "parts",
            device="cpu",
            listener=Listener(epoch=stop),
        )
    run_method(config, frames.cache, frames.labels, tmp_path / "parts", device="cpu")
    whole, parts = (load_file(tmp_path / part / "model.safetensors") for part in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert len((tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()) == 4


# --- what a run is ---


def test_the_validation_subset_is_not_evaluated_on_by_default(frames: World) -> None:
    data = open_data(frames.config("lstm", eval_subset=None), frames.cache, frames.labels)
    assert data.evaluation.subset == "val" and data.validation is None
    config = frames.config("lstm", eval_subset=None, validation_subset="val")
    data = open_data(config, frames.cache, frames.labels)
    assert data.validation is not None
    assert (data.evaluation.subset, data.validation.subset) == ("test", "val")


def test_another_validation_subset_is_another_run(frames: World, tmp_path: Path) -> None:
    config = frames.config("lstm", validation_subset="val")
    frames.run(config, tmp_path)
    assert run_method(config, frames.cache, frames.labels, tmp_path, device="cpu").reused
    with pytest.raises(UserError, match="validation"):
        frames.run(frames.config("lstm"), tmp_path)
    fewer = replace(
        frames.labels, videos=tuple(v for v in frames.labels.videos if v.video_id != "video_0024")
    )
    with pytest.raises(UserError, match="content of validation"):
        run_method(replace(config, skip_missing=True), frames.cache, fewer, tmp_path, device="cpu")


def test_operating_points_are_found_on_the_validation_subset(frames: World, tmp_path: Path) -> None:
    from policy.evaluation.operating import OperatingTarget

    config = frames.config("liteeval", validation_subset="val")
    frames.run(config, tmp_path)
    target = OperatingTarget("usage", 0.5)
    point = evaluate_run(tmp_path, frames.cache, frames.labels, target=target).point
    assert point is not None and not point.trained_on
    assert point.found_on == "8 videos of subset 'val' that were held out from the training"


def test_a_teacher_need_not_have_been_validated(frames: World, tmp_path: Path) -> None:
    frames.run(frames.config("lstm-cf"), tmp_path / "teacher")
    teacher = {"distill": 1.0, "teacher": str(tmp_path / "teacher")}
    assert frames.run(frames.config("liteeval", validation_subset="val", **teacher), tmp_path / "student")


@pytest.mark.slow
def test_what_has_no_epochs_is_fitted_to_what_is_not_held_out(frames: World, tmp_path: Path) -> None:
    notes: list[str] = []
    for name, asked in (
        ("plain", {}),
        ("share", {"validation": 0.25}),
        ("subset", {"validation_subset": "val"}),
    ):
        config = frames.config("uniform", classifier="cross-validated", **asked)
        run_method(
            config,
            frames.cache,
            frames.labels,
            tmp_path / name,
            device="cpu",
            listener=Listener(notes.append),
        )
    assert (
        notes.count("uniform is not trained in epochs here: held-out videos are for its operating points")
        == 2
    )
    plain, share, subset = (
        load_file(tmp_path / name / "model.safetensors") for name in ("plain", "share", "subset")
    )
    assert all(torch.equal(plain[key], subset[key]) for key in plain)
    # Of a share it is fitted to the others alone, as methods with epochs are trained on the others alone.
    config = frames.config("uniform", classifier="cross-validated", validation=0.25)
    data = open_data(config, frames.cache, frames.labels)
    method = make_method(config, data)
    trained_on, held_out = split(method, data.train)
    assert len(held_out) == round(0.25 * len(data.train))
    method.finish(data.train.part(trained_on.tolist()), torch.device("cpu"))
    assert all(torch.equal(share[key], value) for key, value in method.model.state_dict().items())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--patience", "3"],
            "--patience 3 goes by validation videos: give --validation or --validation-subset",
        ),
        (["--keep", "last"], "--keep last goes by validation videos"),
        (
            ["--validation", "0.2", "--validation-subset", "val"],
            "give --validation or --validation-subset, not both",
        ),
        (["--validation-subset", "test"], "both for evaluation and validation"),
        (["--validation-subset", "train"], "both for training and validation"),
        (["--validation-subset", "vla"], "no subset 'vla'; it has: train, val, test"),
        (["--validation-subset", "val", "--patience", "0"], "patience must be positive, not 0"),
    ],
)
def test_mistakes(words: list[str], line: str, frames: World, tmp_path: Path) -> None:
    folder = frames.cache.folder
    data = ["--cache", str(folder), "--labels", str(folder / "labels.csv")]
    data += ["--train-subset", "train", "--eval-subset", "test"]
    command = ["lstm", *data, "--fine", "fine_224", "--out", str(tmp_path / "run"), *words]
    result = CliRunner().invoke(train_policy, command)
    assert result.exit_code == 2 and line in result.stderr.splitlines()[-1], result.output
    assert not (tmp_path / "run").exists()


def test_regressions_have_no_epochs(pool: World, tmp_path: Path) -> None:
    write_planted_labels(pool.labels, tmp_path / "labels.csv")
    data = ["--cache", str(pool.cache.folder), "--labels", str(tmp_path / "labels.csv")]
    command = ["selector", *data, "--model", "m0", "--model", "m1", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(train_policy, [*command, "--validation", "0.2"])
    assert result.exit_code == 2
    assert "--validation is about the perceptron" in result.stderr.splitlines()[-1]


# --- what diverges ---


@pytest.mark.parametrize("method", TRAINED)
def test_a_loss_that_is_not_finite_is_one_line(
    method: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Whatever fails first: the optimiser, a draw with a probability of NaN, a row of that index, a metric."""
    world, line = (
        world_of(method, request),
        "run: in epoch 1 the loss is not finite any more: try a lower --lr than",
    )
    with pytest.raises(UserError, match=f"{line} 1e\\+38, or --grad-clip"):
        world.run(world.config(method, lr_drop=(), lr=1e38), tmp_path / "run")
    try:
        losses = [
            line["loss"] for line in world.run(world.config(method, lr=1e36, validation=0.25), tmp_path / "2")
        ]
    except UserError as error:
        assert "in epoch 1 the loss is not finite any more" in str(error)
    else:  # a classifier on saturated states may come through
        assert np.isfinite(losses).all() and method in ("uniform", "uniform-cf", *RECURRENT)


def test_a_result_that_is_not_finite_is_one_line(
    frames: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last step, whose loss was of the weights before it."""
    monkeypatch.setattr(
        METHODS["lstm"], "finish", lambda self, *_: self.model.classifier.weight.data.fill_(np.nan)
    )
    with pytest.raises(UserError, match="in epoch 3 the loss is not finite any more"):
        frames.run(frames.config("lstm"), tmp_path)


def test_other_errors_stay_what_they_are(
    frames: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*arguments: object) -> None:
        raise IndexError("a mistake of ours")

    monkeypatch.setattr(METHODS["lstm"], "losses", wrong)
    with pytest.raises(IndexError, match="a mistake of ours"):
        frames.run(frames.config("lstm"), tmp_path)
