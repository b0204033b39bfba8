"""What classifiers read over time, and what recurrent methods are trained with beside Eq. 7."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn.utils.rnn import pack_sequence

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from policy.cli.train_policy import train_policy
from policy.config import ReadoutKind
from policy.data.batches import VideoSet
from policy.evaluation.operating import OperatingTarget
from policy.evaluation.predictions import Judged, Predictions
from policy.finished import evaluate_run
from policy.liteeval.calibration import usage_of
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.method import LiteEvalMethod
from policy.method import Method, log_loss
from policy.networks.packing import split_videos
from policy.networks.readout import Readout, dropped
from policy.recipes import with_recipe
from policy.registry import METHODS, configure
from policy.runs import Listener, load_method, open_data, run_method
from policy.training.loop import Epoch, best_epoch
from policy.training.validation import calibration_videos, split
from tests.planted import write_planted

Data = tuple[FeatureCache, LabelSet]
Floats = npt.NDArray[np.float64]
pytestmark = pytest.mark.usefixtures("one_thread")
KINDS: Sequence[ReadoutKind] = get_args(ReadoutKind)
CONFIG = LiteEvalConfig(
    coarse="coarse_112",
    fine="fine_224",
    epochs=3,
    batch=8,
    lr=1e-2,
    coarse_hidden=4,
    fine_hidden=6,
    usage_loss="constrained",
    gate_hidden=5,
    gamma=0.3,
)
TRAINED_ALIKE = {"readout": "attention", "step_loss": 0.5, "dropout": 0.2, "validation": 0.25}
RECURRENT = ("lstm", "lstm-cf", "coarse-only", "random-gating", "liteeval", "liteeval-rl")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return write_planted(tmp_path_factory.mktemp("planted"), train=24, test=8, classes=4, dim=8)


def read_by_hand(states: Floats, kind: ReadoutKind, weights: Floats) -> Floats:
    """(H,) of all states (T, H) of a video."""
    if kind == "last":
        return np.asarray(states[-1])
    if kind == "max":
        return np.array([max(unit) for unit in states.T])
    shares = np.array([np.exp(state @ weights) if kind == "attention" else 1.0 for state in states])
    total = np.zeros(len(weights))
    for share, state in zip(shares, states, strict=True):
        total += share * state
    return np.asarray(total / shares.sum())


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 9),
    scale=st.sampled_from([0.1, 3.0, 100.0]),
)
def test_after_each_step_there_is_what_its_definition_says(
    lengths: list[int], kind: ReadoutKind, seed: int, scale: float
) -> None:
    torch.manual_seed(seed)
    readout = Readout(kind, 3).double()
    videos = [torch.randn(length, 3).double() * scale for length in lengths]
    packed = pack_sequence(videos, enforce_sorted=False)
    read = readout(packed.data, packed.batch_sizes.tolist())
    weights = np.zeros(3) if readout.score is None else readout.score.weight[0].detach().numpy()
    parts = split_videos(read.detach(), packed.batch_sizes, packed.unsorted_indices)
    for video, part in zip(videos, parts, strict=True):
        for stop in range(1, len(video) + 1):
            states = video[:stop].numpy()
            top = (states @ weights).max() * weights / max(weights @ weights, 1e-300)
            expected = read_by_hand(states - top, kind, weights) + top  # exp of large numbers overflows
            np.testing.assert_allclose(part[stop - 1], expected, rtol=1e-9, atol=1e-9 * scale)


def test_attention_learns_from_every_step() -> None:
    readout = Readout("attention", 3).double()
    assert readout.score is not None
    states = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)

    def read(values: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = readout(values, [3, 3, 1])
        return out

    assert torch.autograd.gradcheck(read, states)
    read(states).sum().backward()  # type: ignore[no-untyped-call]
    assert readout.score.weight.grad is not None and bool(readout.score.weight.grad.isfinite().all())


def test_dropout_keeps_the_mean_and_follows_its_generator() -> None:
    ones = torch.ones(1000, 20)
    values = dropped(ones, 0.3, torch.Generator().manual_seed(1))
    assert set(values.flatten().tolist()) == {0.0, float(torch.tensor(1.0) / 0.7)}
    assert abs(float(values.mean()) - 1) < 0.02
    assert torch.equal(values, dropped(ones, 0.3, torch.Generator().manual_seed(1)))
    generator = torch.Generator().manual_seed(1)
    assert dropped(ones, 0, generator) is ones
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(1).get_state())


# --- methods ---


def alike(name: str, **more: Any) -> Any:
    return configure(name, {**vars(CONFIG), "usage": 0.3, **TRAINED_ALIKE, **more})


@pytest.mark.parametrize("name", RECURRENT)
def test_controls_take_what_liteeval_takes(name: str, planted: Data, tmp_path: Path) -> None:
    """Stopped and continued, they come to the same bits: nothing is drawn elsewhere, the best weights are kept."""

    class Stop(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        if epoch["epoch"] == 2:
            raise Stop

    config = alike(name)
    run = run_method(config, *planted, tmp_path / "whole", device="cpu")
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert all({"step_loss", "validation_loss"} <= json.loads(line).keys() for line in lines)
    with pytest.raises(Stop):
        run_method(config, *planted, tmp_path / "parts", device="cpu", listener=Listener(epoch=stop))
    run_method(config, *planted, tmp_path / "parts", device="cpu")
    ours, whole = (load_file(tmp_path / part / "model.safetensors") for part in ("parts", "whole"))
    assert ours.keys() == whole.keys() and all(torch.equal(ours[key], whole[key]) for key in ours)
    assert "readout.score.weight" in ours


@pytest.mark.parametrize("name", [*RECURRENT, "frame-glimpse", "fast-forward"])
@pytest.mark.parametrize("readout", KINDS)
def test_readouts_are_trained_and_charged(name: str, readout: str, planted: Data) -> None:
    config = configure(name, {**vars(CONFIG), "usage": 0.3, "readout": readout})
    data = open_data(config, *planted)
    torch.manual_seed(0)
    method = METHODS[name](config, data)
    method.model.eval()
    rows, opened = np.array([5]), np.array([4 if name == "frame-glimpse" else 5])
    macs = sum(int(of[0]) for of in method.network_macs(rows, opened).values())
    plain = METHODS[name](configure(name, {**vars(config), "readout": "last"}), data)
    steps = opened if name in ("frame-glimpse", "fast-forward") else rows
    extra = 6 * int(steps[0]) if readout == "attention" else 0
    assert macs - sum(int(of[0]) for of in plain.network_macs(rows, opened).values()) == extra
    plain.model.load_state_dict(method.model.state_dict(), strict=False)
    plain.model.eval()
    batch, scores = data.train.batch([0, 1, 2, 3]), []
    for each in (method, plain):
        generator = torch.Generator().manual_seed(0)
        # In evaluation an agent that was not trained stops at once.
        jumps = name == "fast-forward"
        of = (
            each.model(batch.inputs["fine"], generator).logits
            if jumps
            else each.predict(batch, generator).scores
        )
        scores.append(of)
    assert torch.equal(*scores) == (readout == "last")


def test_options_at_their_defaults_are_no_part_of_a_run(planted: Data, tmp_path: Path) -> None:
    """A run that was finished before there were these options is still this run."""
    assert CONFIG.decisive().keys().isdisjoint({"readout", "dropout", "validation"})
    assert "step_loss" in CONFIG.decisive()  # LiteEval always had it
    assert replace(CONFIG, dropout=0.1).decisive()["dropout"] == 0.1
    run_method(CONFIG, *planted, tmp_path, device="cpu")
    assert run_method(CONFIG, *planted, tmp_path, device="cpu").reused
    with pytest.raises(UserError, match="another value of readout"):
        run_method(replace(CONFIG, readout="mean"), *planted, tmp_path, device="cpu")


def test_the_robust_recipe_is_of_all_that_are_compared(planted: Data) -> None:
    for name in RECURRENT:
        config = with_recipe(configure(name, {**vars(CONFIG), "usage": 0.3}), "robust", {"dropout"})
        values = {field: getattr(config, field) for field in ("readout", "dropout")}
        assert values == {"readout": "attention", "dropout": 0.0}  # what is given wins
    assert (
        with_recipe(configure("uniform", vars(CONFIG)), "robust").decisive()["classifier"]
        == "cross-validated"
    )
    for name in (*RECURRENT, "uniform", "uniform-cf", "frame-glimpse", "fast-forward"):
        shown = CliRunner().invoke(train_policy, [name, "--help"]).output
        assert "[default: robust]" in " ".join(shown.split())


# --- videos that are held out ---


def test_the_best_epoch_is_kept(planted: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses, weights = iter([3.0, 1.0, 2.0]), []

    def validation_loss(self: Method, judged: Judged, videos: VideoSet, device: torch.device) -> float:
        weights.append(self.model.classifier.weight.detach().clone())  # type: ignore[union-attr, operator]
        return next(losses)

    monkeypatch.setattr(LiteEvalMethod, "validation_loss", validation_loss)
    run_method(replace(CONFIG, validation=0.25), *planted, tmp_path, device="cpu")
    kept = load_file(tmp_path / "model.safetensors")["classifier.weight"]
    assert len(weights) == 3 and torch.equal(kept, weights[1]) and not torch.equal(kept, weights[2])


def test_an_epoch_of_the_warm_up_is_never_the_best(planted: Data, tmp_path: Path) -> None:
    config = replace(CONFIG, validation=0.25, warmup=0.9)
    run = run_method(config, *planted, tmp_path, device="cpu")
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert all("validation_loss" in line for line in lines)
    # However good the first two are.
    better = [{**line, "validation_loss": float(n)} for n, line in enumerate(lines)]
    method = LiteEvalMethod(config, open_data(config, *planted))
    assert best_epoch(method, better) is better[2] and best_epoch(method, better[:2]) is None


def test_held_out_videos_are_of_all_classes_and_not_trained_on(planted: Data) -> None:
    config = replace(CONFIG, validation=0.25)
    data = open_data(config, *planted)
    method = LiteEvalMethod(config, data)
    trained, held_out = split(method, data.train)
    assert sorted([*trained, *held_out]) == list(range(24)) and len(held_out) == 6
    assert set(np.bincount(data.train.first[held_out])) <= {1, 2}
    assert split(method, data.train)[1].tolist() == held_out.tolist()
    other = LiteEvalMethod(replace(config, seed=1), data)
    assert split(other, data.train)[1].tolist() != held_out.tolist()
    with pytest.raises(UserError, match=r"validation 0.01 of 24 training videos leaves none"):
        split(LiteEvalMethod(replace(config, validation=0.01), data), data.train)


def test_thresholds_are_set_on_videos_that_are_held_out(planted: Data, tmp_path: Path) -> None:
    config = replace(CONFIG, validation=0.5, epochs=6)
    run = run_method(config, *planted, tmp_path, device="cpu")
    data = open_data(config, *planted)
    method = load_method(tmp_path, config, data)
    assert isinstance(method, LiteEvalMethod)
    held_out = calibration_videos(method, data)
    assert len(held_out) == 12
    used = usage_of(method.model, held_out, batch=8, device=torch.device("cpu")).mean
    assert abs(used - 0.3) < 0.05  # a row of a video is a hundredth of it
    notes: list[str] = []
    moved = evaluate_run(run.folder, *planted, target=OperatingTarget("usage", 0.5), note=notes.append).point
    assert moved is not None and not moved.trained_on
    assert moved.found_on == "12 videos of subset 'train' that were held out from the training"
    assert not any("was trained on" in note for note in notes)


def test_a_teacher_goes_with_its_videos(planted: Data, tmp_path: Path) -> None:
    """The rows of the teacher's opinion are those of the videos that are trained on."""
    run_method(configure("lstm-cf", vars(CONFIG)), *planted, tmp_path / "teacher", device="cpu")
    config = replace(CONFIG, validation=0.25, distill=1.0, teacher=str(tmp_path / "teacher"))
    found: list[tuple[int, int]] = []

    class Watched(LiteEvalMethod):
        def losses(self, batch: Any, moment: Any, generator: torch.Generator) -> Any:
            assert self.teacher is not None and batch.videos is not None
            found.append((len(self.teacher), len(batch.videos)))
            return super().losses(batch, moment, generator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("policy.liteeval.method.LiteEvalMethod", Watched)
        run_method(config, *planted, tmp_path / "student", device="cpu")
    assert found and set(found) == {(18, 18)}


@pytest.mark.parametrize("multi_label", [False, True])
def test_validation_loss_is_that_of_the_definition(multi_label: bool, planted: Data) -> None:
    config = replace(CONFIG, multi_label=multi_label)
    data = open_data(config, *planted)
    method = LiteEvalMethod(config, data)
    said = method.evaluate(data.evaluation, device=torch.device("cpu"))
    assert isinstance(said, Predictions)
    total = 0.0
    for m, label in enumerate(data.evaluation.first):
        p = said.scores[0, m].astype(np.float64)
        if multi_label:
            total += sum(-np.log(p[c] if c == label else 1 - p[c]) for c in range(len(p)))
        else:
            total += -np.log(p[label])
    assert log_loss(said, data.evaluation) == pytest.approx(total / len(data.evaluation), rel=1e-5)
