"""FrameExit: its order, its decisions as released, its losses and costs, many budgets from one training."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence

from cache_schema import FeatureCache, UserError, write_shard
from cache_schema.annotations import LabelSet
from policy.data.batches import Batch, uniform_rows
from policy.deploy.session import open_session
from policy.evaluation.curves import hull_area
from policy.evaluation.operating import OperatingTarget
from policy.evaluation.predictions import Predictions
from policy.finished import evaluate_run
from policy.method import Moment
from policy.registry import configure
from policy.runs import Listener, load_method, open_data, run_method
from policy.samplers.exits import CURVE_POINTS, exit_order
from policy.samplers.frame_exit import FrameExit
from tests.caches import make_record, make_spec
from tests.planted import write_planted
from tests.planted_rows import plant_rows
from tests.sessions import drive

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "fine": "fine_224",
    "epochs": 3,
    "batch": 6,
    "lr": 1e-2,
    "row_hidden": 12,
    "frames": 7,
}
DIM, CLASSES = 6, 4
RELEASED_ORDER = [5, 0, 9, 2, 7, 4, 6, 3, 8, 1]  # of 10 frames, in its configurations
Data = tuple[FeatureCache, LabelSet]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("small")
    return write_planted(folder, train=16, test=9, classes=CLASSES, dim=DIM, lengths=(1, 12))


@pytest.fixture(scope="module")
def trained(small: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_method(configure("frame-exit", SMALL, further_streams=("coarse_112",)), *small, folder, device="cpu")
    return folder


def made(data: Data, **more: Any) -> FrameExit:
    """With random weights and statistics, of which the decisions differ from video to video."""
    config = configure("frame-exit", {**SMALL, **more})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        method = FrameExit(config, open_data(config, *data))  # type: ignore[arg-type]
        method.model.rows.fill_(7)
        for name, tensor in method.model.state_dict().items():
            if tensor.is_floating_point() and "scales" not in name and name != "threshold":
                noise = torch.randn_like(tensor)
                tensor.copy_(noise.abs() + 0.5 if "var" in name else tensor + noise * 0.3)
                if name.endswith("decide.bias"):
                    tensor.sub_(6.0)  # so that about as many stop as go on
    method.model.eval()
    return method


LENGTHS = [6, 1, 7, 4, 7, 2, 3, 5] * 3


def batch_of(lengths: list[int], *, several: bool = False, roles: tuple[str, ...] = ("fine",)) -> Batch:
    random = torch.Generator().manual_seed(len(lengths))
    videos = [torch.randn(length, DIM, generator=random) * 2 for length in lengths]
    targets = torch.arange(len(lengths)) % CLASSES
    return Batch(
        {role: pack_sequence([v + (role == "fine") for v in videos], False) for role in roles},
        F.one_hot(targets, CLASSES).float() if several else targets,
    )


def videos_of(batch: Batch) -> list[Tensor]:
    padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(batch.inputs["fine"], batch_first=True)
    return [video[:length] for video, length in zip(padded, lengths.tolist(), strict=True)]


# --- the order ---


def test_the_order_is_the_released_one() -> None:
    assert list(exit_order(10)) == RELEASED_ORDER
    assert [exit_order(rows) for rows in range(4)] == [(), (0,), (1, 0), (1, 0, 2)]


@given(st.integers(1, 150))
def test_every_row_has_its_turn_and_no_gap_is_left_while_a_wider_one_is(rows: int) -> None:
    order = exit_order(rows)
    assert sorted(order) == list(range(rows)) and order[0] == rows // 2
    for count in range(3, rows):
        known = sorted(order[:count])
        widest = max(right - left for left, right in pairwise(known))
        row = order[count]
        left, right = max(k for k in known if k < row), min(k for k in known if k > row)
        assert right - left == widest and abs(2 * row - left - right) <= 1


# --- decisions, as the released code takes them ---


def as_released(method: FrameExit) -> dict[str, Tensor]:
    """Our weights by the names that they have in the released checkpoints."""
    state = method.model.state_dict()
    weights = {"mlp.layers.0": "layer.linear", "mlp.layers.1": "layer.norm"}
    for number in range(len(method.model.classifiers)):
        weights[f"classifiers.{number}"] = f"classifiers.{number}"
    for number in range(len(method.model.gates)):
        ours, theirs = f"gates.{number}", f"exit_selector.{number}"
        weights |= {f"{theirs}.conv{k + 1}": f"{ours}.layers.{k}.linear" for k in (0, 1)}
        weights |= {f"{theirs}.bn{k + 1}": f"{ours}.layers.{k}.norm" for k in (0, 1)}
        weights[f"{theirs}.linear"] = f"{ours}.decide"
    released = {}
    for theirs, ours in weights.items():
        for name, tensor in state.items():
            if name.startswith(f"{ours}."):
                is_convolution = ".conv" in theirs and name.endswith("weight")
                released[theirs + name.removeprefix(ours)] = (
                    tensor[:, :, None, None] if is_convolution else tensor
                )
    return released


def released_answer(
    weights: dict[str, Tensor], frames: Tensor, num_frames: int, first_threshold: float, several: bool
) -> tuple[int, Tensor]:
    """Frames of a video in order, (T, D): how many are looked at, and the probabilities.

    Written from the layers, names and comparisons of the released model: each frame by itself, gates as 1 × 1
    convolutions on a map of one place, a gate value of at least 0.5 goes on.
    """

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def branch(z: Tensor, gate: str) -> Tensor:
        x = z.view(1, -1, 1, 1)
        for k in (1, 2):
            x = F.conv2d(x, weights[f"{gate}.conv{k}.weight"], weights[f"{gate}.conv{k}.bias"])
            x = norm(x, f"{gate}.bn{k}").relu()
        return x.flatten(1)

    def chances(z: Tensor, t: int) -> Tensor:
        y = linear(z, f"classifiers.{t}")
        return y.sigmoid() if several else y.softmax(1)

    before = None
    for t in range(len(frames)):
        z = norm(linear(frames[t][None], "mlp.layers.0"), "mlp.layers.1").relu()
        if before is not None:
            z = torch.stack([z, before]).max(0).values
        if t == len(frames) - 1 or t == num_frames - 1:
            return t + 1, chances(z, t)[0]
        if before is None:
            if chances(z, 0).max() > first_threshold:
                return 1, chances(z, 0)[0]
        else:
            gate = f"exit_selector.{t - 1}"
            value = linear(torch.cat([branch(z, gate), branch(before, gate)], 1), f"{gate}.linear").sigmoid()
            if not value >= 0.5:
                return t + 1, chances(z, t)[0]
        before = z
    raise AssertionError("the last frame is an exit")


@pytest.mark.parametrize(
    ("several", "first_confidence"), [(False, 0.99), (False, 0.6), (True, 0.99), (True, 0.85)]
)
@torch.no_grad()
def test_decisions_are_those_of_the_released_code(
    several: bool, first_confidence: float, small: Data
) -> None:
    method = made(small, input_norm="none", first_confidence=first_confidence)
    method.multi_label = method.model.multi_label = several
    weights, batch = as_released(method), batch_of(LENGTHS, several=several)
    found = method.predict(batch, torch.Generator())
    assert found.gates is not None
    counts = []
    for video, scores, gates in zip(videos_of(batch), found.scores, found.gates, strict=True):
        order = exit_order(len(video))
        count, expected = released_answer(weights, video[list(order)], 7, first_confidence, several)
        assert sorted(order[:count]) == gates.nonzero().flatten().tolist()
        assert torch.allclose(scores, expected, atol=1e-5)
        counts.append(count)
    stopped = [count for count, length in zip(counts, LENGTHS, strict=True) if count < length]
    assert len(set(stopped)) > 2 and len(stopped) < len(counts)
    assert 1 in stopped or first_confidence > 0.9


@torch.no_grad()
def test_rows_after_the_exit_do_not_matter(small: Data) -> None:
    method, batch = made(small), batch_of(LENGTHS)
    before = method.predict(batch, torch.Generator())
    assert before.gates is not None
    unread = [
        torch.where(gates[:, None] > 0, video, 1e4)
        for video, gates in zip(videos_of(batch), before.gates, strict=True)
    ]
    changed = Batch({"fine": pack_sequence(unread, False)}, batch.targets)
    after = method.predict(changed, torch.Generator())
    assert torch.allclose(before.scores, after.scores, atol=1e-6) and after.gates is not None
    assert all(map(torch.equal, before.gates, after.gates)) and any((g == 0).any() for g in after.gates)


# --- training ---


@pytest.mark.parametrize("several", [False, True])
def test_the_loss_video_by_video_and_row_by_row(several: bool, small: Data) -> None:
    method, batch = made(small, beta=0.5), batch_of(LENGTHS, several=several)
    method.multi_label = method.model.multi_label = several
    losses = method.losses(batch, Moment(0.0), torch.Generator())  # batch norm as in evaluation
    classification, gates, labels = 0.0, 0.0, []
    for number, video in enumerate(videos_of(batch)):
        rows = video[list(exit_order(len(video)))][None]
        logits, going_on = method.model.every_exit({"fine": rows}, torch.tensor([len(video)]))
        for t in range(1, len(video) + 1):
            scores = logits[0, t - 1].detach().double()
            if several:
                chances = scores.sigmoid()
                has = batch.targets[number] > 0
                loss = -sum(math.log(p if h else 1 - p) for p, h in zip(chances, has, strict=True))
            else:
                loss = -math.log(scores.softmax(0)[batch.targets[number]])
            classification += loss / len(video) / len(LENGTHS)
            if 1 < t < len(video):
                goes_on = loss > 0.5 * math.exp(t / 2)
                against = -going_on[0, t - 1].item() if goes_on else going_on[0, t - 1].item()
                gates += math.log1p(math.exp(against)) / len(video) / len(LENGTHS)
                labels.append(goes_on)
    assert any(labels) and not all(labels)
    assert float(torch.as_tensor(losses["classification"]).detach()) == pytest.approx(
        classification, rel=1e-4
    )
    assert float(torch.as_tensor(losses["gates"]).detach()) == pytest.approx(gates, rel=1e-4)
    assert float(torch.as_tensor(losses["loss"]).detach()) == pytest.approx(classification + gates, rel=1e-4)


def test_the_gradient_of_the_loss(small: Data) -> None:
    """Against differences, in double precision, of some weights of each part."""
    method, batch = made(small, beta=0.3, input_norm="none"), batch_of([5, 3, 7])
    method.model.double()
    batch = Batch(
        {"fine": batch.inputs["fine"]._replace(data=batch.inputs["fine"].data.double())}, batch.targets
    )

    def loss() -> Tensor:
        value = method.losses(batch, Moment(0.0), torch.Generator())["loss"]
        assert isinstance(value, Tensor)
        return value

    loss().backward()  # type: ignore[no-untyped-call]
    state = dict(method.model.named_parameters())
    for name in (
        "layer.linear.weight",
        "gates.0.layers.0.linear.weight",
        "classifiers.2.weight",
        "gates.2.decide.bias",
    ):
        flat, gradient = state[name].data.view(-1), state[name].grad
        assert gradient is not None and gradient.any()
        place, step = int(gradient.abs().argmax()), 1e-6
        ends = []
        for sign in (1, -1):
            flat[place] += sign * step
            ends.append(float(loss().detach()))
            flat[place] -= sign * step
        assert float(gradient.flatten()[place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_easy_videos_pay_for_hard_ones(seed: int, tmp_path: Path) -> None:
    """Half of the videos tell their class in every row, the others in two of ten.

    The oracle stops at the first row that tells; the null control reads as many rows of every video. The trained
    policy comes, over all budgets, at least 0.8 of the way from one to the other.
    """
    planted = plant_rows(tmp_path / "cache", seed=seed, train=240, test=120, signal=8.0)
    config = configure("frame-exit", SMALL, frames=10, row_hidden=32, epochs=30, batch=32, lr=3e-3, seed=seed)
    run = run_method(config, planted.cache, planted.labels, tmp_path / "run", device="cpu")
    data = open_data(config, planted.cache, planted.labels)
    method = load_method(run.folder, config, data)
    assert isinstance(method, FrameExit)
    curve = method.operating_curve(data.evaluation, data.train, device=CPU)
    rows_read = [
        1 + next(k for k, row in enumerate(exit_order(10)) if planted.informative[video][row])
        for video in data.evaluation.ids
    ]
    forced = []
    with torch.no_grad():
        for count in range(10):
            batch = data.evaluation.batch(range(len(data.evaluation)))
            lengths, inputs = method.inputs(batch)
            right = method.model(inputs, lengths).answers[:, count].argmax(1) == batch.targets
            forced.append(float(right.double().mean()))
    costs = [4.0 * count for count in range(1, 11)]
    high, low = 40.0, 4.1
    null = hull_area(costs, forced, low, high)
    oracle = hull_area([4.0, 4 * float(np.mean(rows_read))], [forced[0], 1.0], low, high)
    ours = hull_area(curve.gflops, curve.top1, low, high)
    print(f"share of the oracle's gain: {(ours - null) / (oracle - null):.2f}")
    assert ours - null >= 0.8 * (oracle - null)


# --- costs and sessions ---


def test_it_pays_for_what_it_reads(small: Data, trained: Path) -> None:
    config = configure("frame-exit", SMALL, further_streams=("coarse_112",))
    found = run_method(config, *small, trained).predictions()
    assert set(found.ledger) == {"fine_224", "coarse_112", "FrameExit network"}
    count, looked_at = found.fine_rows[0], np.minimum(found.lengths, 7)
    assert np.array_equal(found.row_counts, looked_at)
    assert np.array_equal(found.ledger["fine_224"][0], count * 7_800_000_000)
    assert np.array_equal(found.ledger["coarse_112"][0], count * 80_000_000)
    gate = 2 * (12 * 128 + 128 * 64) + 128
    for video, steps in enumerate(count.tolist()):
        # A gate after each row but the first and the last that there is; the first classifier, and the last.
        gates = sum(1 < t < looked_at[video] for t in range(1, steps + 1))
        network = steps * 2 * DIM * 12 + gates * gate + min(steps, 2) * 12 * CLASSES
        assert found.ledger["FrameExit network"][0, video] == network


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"input_norm": "l2", "further_streams": ("coarse_112",)},
        {"multi_label": True, "first_confidence": 0.5},
        {"frames": 1},
        {"frames": 2},
        {"frames": 40},
    ],
)
def test_a_session_decides_as_the_run(change: dict[str, Any], small: Data, tmp_path: Path) -> None:
    run = run_method(configure("frame-exit", SMALL, **change), *small, tmp_path / "run", device="cpu")
    session, found = open_session(run.folder), run.predictions()
    for video, video_id in enumerate(found.video_ids):
        trace = drive(session, small[0], video_id)
        fine = [int(wanted.rows[0]) for wanted in trace if wanted.stream == "fine_224"]
        rows = uniform_rows(int(found.lengths[video]), int(found.row_counts[video]))
        assert fine == [rows[place] for place in exit_order(len(rows))][: len(fine)]
        gates = found.gates[0, found.offsets[video] : found.offsets[video + 1]]
        assert sorted(fine) == np.flatnonzero(gates).tolist()
        assert np.allclose(session.probabilities, found.scores[0, video], atol=1e-6)
        assert session.macs_by_name == {name: macs[0, video] for name, macs in found.ledger.items()}
    other = session.another()
    assert other.wanted() is None
    other.begin({name: np.zeros((3, 2)) for name in other.streams})
    assert other.probabilities.tolist() == [0.25] * 4 and other.macs == 0


# --- budgets ---


def test_one_training_has_many_budgets(small: Data, trained: Path) -> None:
    config = configure("frame-exit", SMALL, further_streams=("coarse_112",))
    data = open_data(config, *small)
    method = load_method(trained, config, data)
    weights = {name: value.clone() for name, value in method.model.state_dict().items()}
    curve = method.operating_curve(data.evaluation, data.train, device=CPU)
    assert all(torch.equal(value, weights[name]) for name, value in method.model.state_dict().items())
    assert 3 <= len(curve.points) <= CURVE_POINTS and (np.diff(curve.gflops) >= 0).all()
    values = [point.value for point in curve.points]
    assert values == sorted(values, reverse=True)
    gates = [point.predictions.gates for point in curve.points]
    assert all((less <= more).all() for less, more in pairwise(gates))
    first, last = (point.predictions for point in (curve.points[0], curve.points[-1]))
    assert (first.fine_rows == 1).all() and (last.fine_rows[0] == np.minimum(last.lengths, 7)).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["usage", "budget"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_a_target_is_kept_and_nearly_spent(kind: Any, share: float, small: Data, trained: Path) -> None:
    config = configure("frame-exit", SMALL, further_streams=("coarse_112",))
    data = open_data(config, *small)
    method = load_method(trained, config, data)
    assert isinstance(method, FrameExit)

    def spent(threshold: float) -> float:
        method.set_value(threshold, OperatingTarget("threshold", threshold))
        judged = method.evaluate(data.train, device=CPU)
        assert isinstance(judged, Predictions)
        return float((judged.usage if kind == "usage" else judged.gflops).mean())

    with torch.no_grad():
        lengths, inputs = method.inputs(data.train.batch(range(16), method.rows))
        occurring = method.model(inputs, lengths).going_on
    possible = [spent(float(value)) for value in (1e9, *occurring[occurring.isfinite()].tolist(), -1e9)]
    wanted = min(possible) + share * (max(possible) - min(possible))
    value = method.move_to(OperatingTarget(kind, wanted), [(method, data.train)], CPU)
    assert math.isfinite(value) and method.model.threshold.item() == np.float32(value)
    best = max(each for each in possible if each <= wanted * (1 + 1e-9))
    assert spent(value) == pytest.approx(best, rel=1e-9)


def test_a_budget_below_the_first_row(small: Data, trained: Path) -> None:
    config = configure("frame-exit", SMALL, further_streams=("coarse_112",))
    data = open_data(config, *small)
    method = load_method(trained, config, data)
    with pytest.raises(UserError, match=r"--budget 2: the least that is possible is 7\.88 GFLOPs per video"):
        method.move_to(OperatingTarget("budget", 2.0), [(method, data.train)], CPU)


def test_a_finished_run_is_moved(small: Data, trained: Path, tmp_path: Path) -> None:
    """With a stream that has no option of its own."""
    target = OperatingTarget("budget", 20.0)
    moved = evaluate_run(trained, *small, target=target, out=tmp_path / "moved")
    assert moved.point is not None and moved.result.gflops_mean < 25
    session, found = open_session(tmp_path / "moved"), moved.outcome.judged
    for video, video_id in enumerate(found.video_ids):
        drive(session, small[0], video_id)
        assert session.macs == found.ledger.total[0, video]
    assert float(load_file(tmp_path / "moved" / "model.safetensors")["threshold"]) == np.float32(
        moved.point.value
    )


# --- what does not fit ---


def test_streams_that_do_not_fit(small: Data, tmp_path: Path) -> None:
    cache, labels = small
    for name in ("coarse_112", "fine_224"):
        write_shard(tmp_path / name, cache[name].spec, [cache[name][v] for v in cache[name]], tools={})
    shorter = [make_record(v, cache["fine_224"].rows(v) + 1, dim=2) for v in cache["fine_224"]]
    write_shard(tmp_path / "longer", make_spec("longer", dim=2), shorter, tools={})
    for streams, problem in (
        (("fine_224",), "stream 'fine_224' is named twice"),
        (("coarse_112", "coarse_112"), "stream 'coarse_112' is named twice"),
        (("other",), "no stream 'other' in this cache"),
        (("longer",), "rows in stream 'fine_224' but"),
    ):
        config = configure("frame-exit", SMALL, further_streams=streams)
        with pytest.raises(UserError, match=problem):
            open_data(config, FeatureCache(tmp_path), labels)
    with pytest.raises(UserError, match="frame-exit needs a fine stream"):
        open_data(configure("frame-exit", SMALL, fine=None), cache, labels)


def test_exits_that_no_training_video_comes_to(tmp_path: Path) -> None:
    """A longer video is read as far as there is something to say."""
    cache, labels = write_planted(tmp_path / "cache", train=16, test=8, classes=4, dim=6, lengths=(9, 9))
    videos = {video.video_id: video.subset for video in labels.videos}
    for name in ("coarse_112", "fine_224"):
        records = [
            make_record(v, 9, dim=6, features=cache[name][v].features)
            if videos[v] == "test"
            else make_record(v, 4, dim=6, features=cache[name][v].features[:4])
            for v in videos
        ]
        write_shard(tmp_path / "short" / name, cache[name].spec, records, tools={})
    notes: list[str] = []
    config = replace(configure("frame-exit", SMALL), first_confidence=0.999)  # type: ignore[call-arg]
    run = run_method(
        config,
        FeatureCache(tmp_path / "short"),
        labels,
        tmp_path / "run",
        device="cpu",
        listener=Listener(notes.append),
    )
    assert "--frames 7: no training video has more than 4 rows; exits after more are left out" in notes
    assert (run.predictions().row_counts == 4).all()
    session = open_session(run.folder)
    drive(session, FeatureCache(tmp_path / "short"), run.predictions().video_ids[0])
    assert session.macs == run.predictions().ledger.total[0, 0]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("frames", 0, "frames must be positive, not 0"),
        ("beta", 0.0, "beta must be positive, not 0.0"),
        ("row_hidden", 0, "row-hidden must be positive"),
        ("first_confidence", 1.0, "first-confidence must be at least 0 and below 1"),
        ("dropout", 1.0, "dropout must be at least 0 and below 1"),
    ],
)
def test_options_that_make_no_sense(name: str, value: float, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        configure("frame-exit", SMALL, **{name: value}).check()
