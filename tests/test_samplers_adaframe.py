"""AdaFrame: what it computes, learns, pays for and says on raw video; where it goes and when it stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from policy.cli.train_policy import train_policy
from policy.data.batches import Batch, uniform_rows
from policy.data.opening import Dataset
from policy.deploy.session import open_session
from policy.evaluation.operating import OperatingTarget
from policy.evaluation.predictions import Predictions
from policy.method import Moment
from policy.networks.packing import lengths_of, packed_rows
from policy.recipes import with_recipe
from policy.registry import configure
from policy.runs import load_method, open_data, run_method
from policy.samplers.adaframe import AdaFrame, margins, returns, stop_scores
from policy.samplers.adaframe_config import AdaFrameConfig
from tests.planted import plant, write_planted, write_planted_labels
from tests.sessions import drive

CPU = torch.device("cpu")
COARSE_MACS, FINE_MACS = 80_000_000, 7_800_000_000
DIM, CLASSES = 6, 4
CONFIG: dict[str, Any] = {
    "coarse": "coarse_112",
    "fine": "fine_224",
    "epochs": 2,
    "batch": 7,
    "lr": 1e-3,
    "fine_hidden": 5,
    "attention_units": 7,
    "looks": 5,
    "memory_rows": 6,
    "margin": 0.02,
    "falls": 1,
}
POINTERS: dict[str, Any] = {
    "train": 384,
    "test": 128,
    "classes": CLASSES,
    "dim": 16,
    "noise": 0.5,
    "readable": 0,
    "shown": (2, 2),
    "lengths": (12, 16),
}
"""Coarse rows say where a class is shown, fine ones there which it is; nothing else says anything."""
Data = tuple[FeatureCache, LabelSet]
Array = npt.NDArray[np.float64]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return write_planted(
        tmp_path_factory.mktemp("planted"), train=16, test=14, classes=CLASSES, dim=DIM, lengths=(1, 14)
    )


def adaframe(planted: Data, **change: Any) -> tuple[AdaFrame, Dataset]:
    """With random weights, of which the decisions differ from video to video."""
    config = configure("adaframe", CONFIG, **change)
    data = open_data(config, *planted)
    assert isinstance(config, AdaFrameConfig)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        method = AdaFrame(config, data)
        with torch.no_grad():
            for parameter in method.model.parameters():
                parameter.add_(0.7 * torch.randn_like(parameter))
    return method, data


# --- what it computes ---


def transcribed(
    method: AdaFrame, coarse: Array, fine: Array
) -> tuple[list[int], list[Array], list[float], int]:
    """One video, in evaluation: rows and logits of K looks, the utilities, and after how many looks it stops."""
    agent, config = method.model, method.config
    weights = {name: value.double().numpy() for name, value in agent.state_dict().items()}
    length, hidden, units = len(fine), config.fine_hidden, config.attention_units

    def sigmoid(x: Array | float) -> Any:
        return 1 / (1 + np.exp(-np.asarray(x)))

    memory, keys, places = [], [], []
    for row in uniform_rows(length, config.memory_rows):
        place = (row + 0.5) / length
        scaled = (coarse[row] - weights["coarse_scale.mean"]) / weights["coarse_scale.std"]
        key = weights["key.weight"] @ scaled
        for unit in range(units):
            rate = 10_000 ** (-(unit - unit % 2) / units)
            angle = config.memory_rows * place * rate
            key[unit] += np.sin(angle) if unit % 2 == 0 else np.cos(angle)
        memory.append(scaled)
        keys.append(key)
        places.append(place)
    h, c = np.zeros(hidden), np.zeros(hidden)
    rows, logits, utilities = [], [], []
    for look in range(config.looks):
        query = weights["query.weight"] @ h + weights["query.bias"]
        scores = np.array([query @ key for key in keys])
        attention = np.exp(scores - scores.max())
        attention /= attention.sum()
        context = sum(a * features for a, features in zip(attention, memory, strict=True))
        place = 0.5
        if look:
            attended = float(sum(a * p for a, p in zip(attention, places, strict=True)))
            place = float(sigmoid(weights["locate.weight"][0] @ h + weights["start"][look - 1]))
            if config.points:
                share = float(sigmoid(weights["pointing.weight"][0] @ h + weights["pointing.bias"][0]))
                place = share * attended + (1 - share) * place
        row = min(int(place * length), length - 1)
        scaled = (fine[row] - weights["scale.mean"]) / weights["scale.std"]
        gates = (
            weights["cell.weight_ih"] @ np.concatenate([scaled, [place], context]) + weights["cell.bias_ih"]
        )
        gates += weights["cell.weight_hh"] @ h + weights["cell.bias_hh"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        rows.append(row)
        logits.append(weights["classifier.weight"] @ h + weights["classifier.bias"])
        utilities.append(float(weights["utility.weight"][0] @ h + weights["utility.bias"][0]))
    falls = best = 0.0
    for look, utility in enumerate(utilities, 1):
        best = utility if look == 1 else max(best, utility)
        falls = falls + 1 if best - utility > config.margin else 0
        if falls == config.falls:
            return rows, logits, utilities, look
    return rows, logits, utilities, config.looks


@pytest.mark.parametrize("change", [{}, {"falls": 2, "margin": 0.0}, {"points": False, "input_norm": "none"}])
def test_predictions_are_those_of_a_transcription_with_loops(change: dict[str, Any], planted: Data) -> None:
    method, data = adaframe(planted, **change)
    judged = method.evaluate(data.evaluation, device=CPU)
    assert isinstance(judged, Predictions)
    counts = []
    for video, gates in enumerate(np.split(judged.gates[0], judged.offsets[1:-1])):
        coarse, fine = (data.evaluation.features(role, video).astype(np.float64) for role in method.roles)
        rows, logits, _, count = transcribed(method, coarse, fine)
        assert np.flatnonzero(gates).tolist() == sorted({*rows[:count]})
        chances = np.exp(logits[count - 1] - logits[count - 1].max())
        assert np.allclose(judged.scores[0, video], chances / chances.sum(), atol=1e-5)
        counts.append(count)
    assert len({*counts}) > 1  # it stops early at some videos


def test_each_look_is_that_of_the_transcription(planted: Data) -> None:
    method, data = adaframe(planted)
    method.model.eval()
    batch = data.evaluation.batch(range(len(data.evaluation)))
    with torch.no_grad():
        out = method.model(batch.inputs["coarse"], batch.inputs["fine"])
    for video in range(len(data.evaluation)):
        coarse, fine = (data.evaluation.features(role, video).astype(np.float64) for role in method.roles)
        rows, logits, utilities, _ = transcribed(method, coarse, fine)
        assert out.rows[video].tolist() == rows
        assert np.allclose(out.logits[video], np.stack(logits), atol=1e-4)
        assert np.allclose(out.utilities[video], utilities[:-1], atol=1e-4)


@settings(max_examples=200)
@given(
    utilities=st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=9),
    falls=st.integers(1, 4),
    margin=st.floats(0, 2),
)
def test_it_stops_after_p_looks_in_a_row_below_the_maximum(
    utilities: list[float], falls: int, margin: float
) -> None:
    scores = stop_scores(torch.tensor([utilities], dtype=torch.float64), falls)[0]
    for look in range(len(utilities)):
        last = range(look - falls + 1, look + 1)
        expected = look >= falls and all(
            max(utilities[: place + 1]) - utilities[place] > margin for place in last
        )
        assert bool(scores[look] > margin) == expected


def test_margins_below_0_stop_after_fewer_looks_than_the_rule_needs() -> None:
    scores = stop_scores(torch.zeros(1, 5), 3)[0].tolist()
    assert scores == pytest.approx([-1, -2 / 3, -1 / 3, 0, 0])


def test_margins_of_predictions() -> None:
    logits = torch.tensor([[[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]], [[0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]]).log()
    assert np.allclose(margins(logits, torch.tensor([0, 2])), [[-0.3, 0.5], [0.7, 0.1]], atol=1e-6)
    several = torch.logit(torch.tensor([[[0.9, 0.6, 0.7]], [[0.9, 0.6, 0.7]]]))
    targets = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    assert np.allclose(margins(several, targets), [[0.75 - 0.7], [2.2 / 3]], atol=1e-6)


def test_returns_are_discounted_sums() -> None:
    assert returns(torch.tensor([[1.0, 2.0, 4.0]]), 0.5).tolist() == [[3.0, 4.0, 4.0]]


# --- what it learns from ---


@pytest.mark.parametrize("several", [False, True])
def test_it_follows_the_gradient_of_the_expected_loss_and_reward(several: bool, planted: Data) -> None:
    """Two looks at a video of two frames, the expectation as a sum over a grid of the second location."""
    change = {"looks": 2, "location_std": 0.4, "exploration": 0.7, "fine_hidden": 3, "multi_label": several}
    method, _ = adaframe(planted, **change)
    method.model.double().train()
    random = torch.Generator().manual_seed(1)
    coarse, fine = torch.randn(2, 2, DIM, dtype=torch.float64, generator=random)
    target = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64) if several else torch.tensor(2)

    # What training comes to on average: many copies of the video, with evenly spread noise instead of drawn one.
    count = 20_000
    noise = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)[:, None]
    batch = Batch(
        {role: pack_sequence([rows] * count) for role, rows in (("coarse", coarse), ("fine", fine))},
        target.expand(count, *target.shape),
    )
    named = dict(method.model.named_parameters())
    loss = method.loss_of(method.model(batch.inputs["coarse"], batch.inputs["fine"], noise), batch.targets)[
        "loss"
    ]
    assert isinstance(loss, Tensor)
    ours = torch.autograd.grad(loss, [*named.values()], allow_unused=True)

    agent, out = method.model, []
    for row in (0, 1):  # the second frame; the first is at the middle: row 1
        memory = agent.remember([coarse], [2])
        zero = coarse.new_zeros(1, 3)
        context, _ = agent.recall(memory, zero)
        h, c = agent.visit(agent.scale(fine[1:]), coarse.new_tensor([0.5]), zero, zero, context)
        context, attended = agent.recall(memory, h)
        mean, utility, first = agent.location(h, attended, 1), agent.utility(h)[0, 0], agent.classifier(h)
        step = (
            0.01  # 1/2, where the other frame is seen, and 0 and 1, the ends, are edges of the grid's cells
        )
        grid = torch.arange(-2 + step / 2, 3, step, dtype=torch.float64)
        grid = grid[grid < 0.5] if row == 0 else grid[grid > 0.5]
        density = (-0.5 * ((grid - mean) / 0.4) ** 2).exp() / (0.4 * (2 * np.pi) ** 0.5) * step
        frames = agent.scale(fine[[row]]).expand(len(grid), -1)
        second, _ = agent.visit(
            frames,
            grid.clamp(0, 1),
            h.expand(len(grid), -1),
            c.expand(len(grid), -1),
            context.expand(len(grid), -1),
        )
        logits = torch.stack([first.expand(len(grid), -1), agent.classifier(second)], 1)
        out.append((density, logits, utility))
    terms, total = [], 0.0
    for density, logits, utility in out:
        targets = target.expand(len(density), *target.shape)
        reached = margin_by_hand(logits.detach(), target)
        gain = (reached[:, 1] - reached[:, 0]).clamp_min(0)
        classification = sum(classification_by_hand(logits[:, k], targets) for k in (0, 1)) / 2
        error = 0.5 * (gain - utility) ** 2
        terms.append((density.detach() * (classification + 0.7 * error) - 0.7 * density * gain).sum())
        total += density.sum().item()
    assert total == pytest.approx(1, abs=1e-3)
    expected = torch.autograd.grad(torch.stack(terms).sum(), [*named.values()], allow_unused=True)
    reached_scale = 0.0
    for name, mine, theirs in zip(named, ours, expected, strict=True):
        assert mine is not None and theirs is not None, name
        scale = float(theirs.abs().max())
        assert (mine - theirs).abs().max() <= 0.01 * scale + 2e-4, name
        reached_scale = max(reached_scale, scale)
    assert reached_scale > 1e-2


def margin_by_hand(logits: Tensor, target: Tensor) -> Tensor:
    if target.is_floating_point():
        p = logits.sigmoid()
        return p[..., target > 0].mean(-1) - p[..., target == 0].amax(-1)
    p = logits.softmax(-1)
    others = [k for k in range(CLASSES) if k != int(target)]
    return p[..., int(target)] - p[..., others].amax(-1)


def classification_by_hand(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.is_floating_point():
        p = logits.sigmoid()
        return -(targets * p.log() + (1 - targets) * (1 - p).log()).sum(1)
    return -logits.log_softmax(1)[torch.arange(len(targets)), targets]


def test_the_logged_loss_is_that_without_the_policy(planted: Data) -> None:
    method, data = adaframe(planted, exploration=0.5, dropout=0.3)
    batch = data.train.batch(range(8))
    losses = method.losses(batch, Moment(0.0), torch.Generator().manual_seed(0))
    values = {key: float(torch.as_tensor(value).detach()) for key, value in losses.items()}
    assert values["loss"] == pytest.approx(values["classification"] + 0.5 * values["utility_error"], rel=1e-5)
    again = method.losses(batch, Moment(0.0), torch.Generator().manual_seed(0))
    assert float(torch.as_tensor(again["loss"]).detach()) == values["loss"] and 0 <= values["reward"] <= 2


# --- what it looks at, and pays ---


def test_rows_outside_of_memory_and_looks_do_not_matter(planted: Data) -> None:
    method, data = adaframe(planted)
    method.model.eval()
    batch = data.evaluation.batch(range(len(data.evaluation)))
    before = method.predict(batch, torch.Generator())
    with torch.no_grad():
        rows = method.model(batch.inputs["coarse"], batch.inputs["fine"]).rows
    hidden = {}
    for role, packed in batch.inputs.items():
        values = torch.full_like(packed.data, torch.nan)
        for video, length in enumerate(lengths_of(packed).tolist()):
            kept = torch.from_numpy(uniform_rows(length, 6)) if role == "coarse" else rows[video]
            places = packed_rows(packed, torch.full_like(kept, video), kept)
            values[places] = packed.data[places]
        assert values.isnan().any()
        hidden[role] = packed._replace(data=values)
    after = method.predict(Batch(hidden, batch.targets), torch.Generator())
    assert torch.equal(before.scores, after.scores) and after.scores.isfinite().all()


def test_it_pays_for_the_memory_for_frames_once_and_for_every_look(planted: Data) -> None:
    method, data = adaframe(planted)
    judged = method.evaluate(data.evaluation, device=CPU)
    assert isinstance(judged, Predictions)
    assert set(judged.ledger) == {"coarse_112", "fine_224", "AdaFrame network"}
    looked_twice = 0
    for video, length in enumerate(judged.lengths.tolist()):
        coarse, fine = (data.evaluation.features(role, video).astype(np.float64) for role in method.roles)
        rows, _, _, count = transcribed(method, coarse, fine)
        remembered, frames = min(length, 6), len({*rows[:count]})
        looked_twice += count > frames
        assert judged.ledger["coarse_112"][0, video] == remembered * COARSE_MACS
        assert judged.ledger["fine_224"][0, video] == frames * FINE_MACS
        # Keys; in each look query, scores, context with its place, and an LSTM of 5 units on 6 + 6 + 1 inputs;
        # utilities, locations with shares, 4 classes.
        network = remembered * 6 * 7 + count * (5 * 7 + remembered * (7 + 6 + 1) + 4 * 5 * (13 + 5))
        network += 5 * (min(count, 4) + 2 * (count - 1)) + 5 * CLASSES
        assert judged.ledger["AdaFrame network"][0, video] == network
    assert looked_twice


@pytest.mark.parametrize("most", [1, 10**9])
@pytest.mark.parametrize(
    "change",
    [{}, {"falls": 2, "margin": 0.0}, {"input_norm": "l2", "multi_label": True}, {"fine": "coarse_112"}],
)
def test_a_session_answers_and_pays_as_its_run(
    change: dict[str, Any], most: int, planted: Data, tmp_path: Path
) -> None:
    run = run_method(
        configure("adaframe", CONFIG, lr=0.1, **change), *planted, tmp_path / "run", device="cpu"
    )
    predicted, session = run.predictions(), open_session(run.folder)
    for video, video_id in enumerate(predicted.video_ids):
        trace = drive(session, planted[0], video_id, most)
        assert np.allclose(session.probabilities, predicted.scores[0, video], atol=1e-5)
        assert session.macs == pytest.approx(1e9 * predicted.gflops[0, video], abs=0.1)
        length = int(predicted.lengths[video])
        assert trace[0].rows.tolist() == uniform_rows(length, 6).tolist()  # the memory comes first
        fine = [w.rows[0] for w in trace[min(length, 6) if most == 1 else 1 :]]
        gates = predicted.gates[0, predicted.offsets[video] : predicted.offsets[video + 1]]
        assert sorted(fine) == np.flatnonzero(gates).tolist() and fine[0] == length // 2
    with pytest.raises(ValueError, match=r"spans of .*: of shape"):
        session.begin({})
    session.begin({name: np.zeros((3, 2)) for name in session.streams})
    assert session.probabilities.tolist() == [0.25] * 4 and session.macs == 0
    if len(session.streams) == 2:
        with pytest.raises(ValueError, match="as many rows in each of the streams"):
            session.begin({"coarse_112": np.zeros((3, 2)), "fine_224": np.zeros((2, 2))})


# --- where it goes, and when it stops ---


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_it_goes_where_cheap_rows_point_and_stops_there(seed: int, tmp_path: Path) -> None:
    """0.8 and more of what an oracle gains over answers without the telling rows, at less than four frames."""
    planted = plant(tmp_path / "cache", seed=seed, **POINTERS)
    values = {**CONFIG, "fine_hidden": 32, "attention_units": 64, "memory_rows": 16, "dropout": 0.2}
    values |= {"epochs": 20, "batch": 32, "lr": 3e-3, "margin": 0.1, "falls": 2}
    config = configure("adaframe", values, seed=seed)
    run = run_method(config, planted.cache, planted.labels, tmp_path / "run", device="cpu")
    predicted = run.predictions()
    telling = [
        bool(gates[planted.informative[video]].any())
        for video, gates in zip(
            predicted.video_ids, np.split(predicted.gates[0], predicted.offsets[1:-1]), strict=True
        )
    ]
    blind, oracle = 0.25, oracle_top1(planted.cache, planted.labels, planted.informative)
    assert oracle > 0.95
    assert (predicted.top1() - blind) / (oracle - blind) >= 0.8
    assert np.mean(telling) > 0.9 and predicted.fine_rows.mean() < 4

    data = open_data(config, planted.cache, planted.labels)
    method = load_method(run.folder, config, data)
    curve = method.operating_curve(data.evaluation, data.train, device=CPU)
    assert (np.diff(curve.gflops) > 0).all() and len(curve.points) >= 5
    assert curve.top1[0] < 0.5 and curve.top1[1] > 0.8  # the first look is at the middle, the second is not
    value = method.move_to(OperatingTarget("budget", 8 + 0.08 * 16), [(method, data.train)], CPU)
    assert value < -1  # one look


def oracle_top1(cache: FeatureCache, labels: LabelSet, informative: Any) -> float:
    """Nearest class mean of the fine rows that tell."""
    rows = {
        v.video_id: cache["fine_224"][v.video_id].features[informative[v.video_id]].astype(float).mean(axis=0)
        for v in labels.videos
    }
    classes = sorted({v.labels[0] for v in labels.videos})
    means = np.stack(
        [
            np.mean(
                [rows[v.video_id] for v in labels.videos if v.subset == "train" and v.labels[0] == name], 0
            )
            for name in classes
        ]
    )
    test = [v for v in labels.videos if v.subset == "test"]
    found = [classes[int(np.linalg.norm(means - rows[v.video_id], axis=1).argmin())] for v in test]
    return float(np.mean([name == v.labels[0] for name, v in zip(found, test, strict=True)]))


# --- options ---


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"looks": 1}, "looks must be at least 2, as the first is always at the middle"),
        ({"memory_rows": 0}, "memory-rows must be positive, not 0"),
        ({"margin": -0.1}, "margin must not be negative, not -0.1"),
        ({"falls": 0}, "falls must be positive, not 0"),
        ({"discount": 1.1}, "discount must be between 0 and 1, not 1.1"),
    ],
)
def test_options_that_make_no_sense(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        configure("adaframe", CONFIG, **change).check()


def test_it_needs_both_streams(planted: Data) -> None:
    with pytest.raises(
        UserError, match="adaframe needs a coarse stream; the cache has: coarse_112, fine_224"
    ):
        open_data(configure("adaframe", CONFIG, coarse=None), *planted)


def test_the_robust_recipe_has_dropout() -> None:
    config = with_recipe(configure("adaframe", CONFIG), "robust", {"lr"})
    assert isinstance(config, AdaFrameConfig)
    assert (config.dropout, config.batch, config.lr) == (0.3, 32, 1e-3)


def test_on_the_command_line(planted: Data, tmp_path: Path) -> None:
    write_planted_labels(planted[1], tmp_path / "labels.csv")
    data = ["--cache", str(planted[0].folder), "--labels", str(tmp_path / "labels.csv"), "--device", "cpu"]
    streams = ["--coarse", "coarse_112", "--fine", "fine_224", "--out", str(tmp_path / "run")]
    small = ["--epochs", "1", "--fine-hidden", "5", "--looks", "3", "--falls", "1", "--no-points"]
    result = CliRunner().invoke(train_policy, ["adaframe", *data, *streams, *small])
    assert result.exit_code == 0 and "AdaFrame" in result.output, result.output
    moved = ["evaluate", str(tmp_path / "run"), *data, "--budget", "16"]
    result = CliRunner().invoke(train_policy, moved)
    assert result.exit_code == 0 and "AdaFrame" in result.output, result.output
    result = CliRunner().invoke(train_policy, [*moved[:-1], "0.5"])
    assert result.exit_code == 2 and "the least that adaframe comes to is" in result.output
    assert "train-policy adaframe --cache" in CliRunner().invoke(train_policy, ["adaframe", "--help"]).output
