"""AR-Net: its choices and answer against loops in NumPy and against the released layout, gradients, costs, what it
learns on a planted cache, its session, its operating points, what it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from cache_schema import UserError, write_shard
from policy.cli.train_policy import train_policy
from policy.data.batches import Batch
from policy.deploy.session import open_session
from policy.evaluation.operating import OperatingTarget
from policy.evaluation.predictions import Predictions
from policy.method import Moment
from policy.networks.packing import split_videos
from policy.registry import completed, configure
from policy.runs import load_method, open_data, run_method
from policy.samplers.ar_net import NETWORK, ARNet, ARNetNetwork, Chosen
from tests.caches import make_record, make_spec
from tests.planted import plant, write_planted_labels
from tests.resolutions import GFLOPS, STREAMS, Resolutions, plant_resolutions
from tests.sessions import drive

CPU = torch.device("cpu")
DIMS, HIDDEN, CLASSES, SKIPS = (5, 7, 6), 9, 4, (1, 2, 4)
SPECS = [
    make_spec(name, dim=dim, macs_per_row=round(gflops * 1e9))
    for name, dim, gflops in zip(STREAMS, DIMS, GFLOPS, strict=True)
]
CONFIG: dict[str, Any] = {"streams": STREAMS, "policy_hidden": 12, "epochs": 3, "batch": 16, "lr": 3e-3}
Floats = npt.NDArray[np.float64]

pytestmark = pytest.mark.usefixtures("one_thread")


def network(seed: int, skips: Sequence[int] = SKIPS, scale: float = 4.0) -> ARNetNetwork:
    """Of random weights, with which choices differ from row to row."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ARNetNetwork(SPECS, skips, HIDDEN, CLASSES).eval()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.copy_(scale * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
            made.decision.bias.zero_()
    return made


def videos(seed: int, lengths: Sequence[int]) -> list[list[Tensor]]:
    """Rows (T, D) of each video, by stream."""
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(length, dim, generator=generator) * 2 for length in lengths] for dim in DIMS]


def packed(rows: Sequence[Tensor]) -> PackedSequence:
    return pack_sequence([*rows], enforce_sorted=False)


def run_network(model: ARNetNetwork, rows: Sequence[Sequence[Tensor]]) -> tuple[Chosen, Tensor]:
    """Choices, and probabilities (B, C)."""
    streams = [packed(each) for each in rows]
    chosen = model.choose(streams[0])
    logits = model.row_logits(chosen.hidden, [each.data for each in streams[1:]])
    return chosen, model.answer(chosen, logits, streams[0]).softmax(1)


def sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


def transcribed(
    weights: Mapping[str, Floats], rows: Sequence[Floats], skips: Sequence[int], price: float
) -> tuple[list[int], Floats]:
    """One video by plain loops: its choices, −1 on rows that are skipped after one, and its answer (C,)."""
    h = c = np.zeros(HIDDEN)
    choices, logits, looks, t = [-1] * len(rows[0]), [], [], 0
    while t < len(rows[0]):
        gates = weights["cell.weight_ih"] @ rows[0][t] + weights["cell.bias_ih"]
        gates = gates + weights["cell.weight_hh"] @ h + weights["cell.bias_hh"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        scores = weights["decision.weight"] @ h + weights["decision.bias"]
        costs = [0.0, *GFLOPS[1:], *(-(k - 1) * GFLOPS[0] for k in skips)]
        choice = choices[t] = int(np.argmax(scores - price * np.array(costs)))
        looks.append(weights["classifiers.0.weight"] @ h + weights["classifiers.0.bias"])
        if choice >= len(rows):
            t += skips[choice - len(rows)]
            continue
        inputs = h if choice == 0 else rows[choice][t]
        logits.append(
            weights[f"classifiers.{choice}.weight"] @ inputs + weights[f"classifiers.{choice}.bias"]
        )
        t += 1
    mean = np.mean(logits or looks, axis=0)
    exponentials = np.exp(mean - mean.max())
    return choices, exponentials / exponentials.sum()


@pytest.mark.parametrize("price", [0.0, 0.3, -0.2, 1e3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_choices_and_answer_are_those_of_plain_loops(seed: int, price: float) -> None:
    model, rows = network(seed), videos(seed, [7, 1, 12, 5, 9])
    model.price.fill_(price)
    weights = {name: values.double().numpy() for name, values in model.state_dict().items()}
    chosen, answer = run_network(model, rows)
    sizes = packed(rows[0])
    actions, looked = (
        split_videos(part, sizes.batch_sizes, sizes.unsorted_indices)
        for part in (chosen.actions, chosen.looked)
    )
    seen = set()
    for video in range(5):
        of_video = [each[video].double().numpy() for each in rows]
        choices, expected = transcribed(weights, of_video, SKIPS, price)
        ours = np.where(looked[video], actions[video].argmax(1), -1)
        assert ours.tolist() == choices
        np.testing.assert_allclose(answer[video].detach(), expected, atol=1e-5)
        seen.update(choices)
    assert len(seen) > (4 if abs(price) < 1 else 1)


class Released(nn.Module):
    """Policy network in the layout of the authors' code: an LSTM cell `rnn`; `linear` from its hidden state to the
    choices, the dearest stream first, the LSTM's own prediction last (`lite_fc`), then the skips."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTMCell(DIMS[0], HIDDEN)
        self.linear = nn.Linear(HIDDEN, len(DIMS) + len(SKIPS))
        self.lite_fc = nn.Linear(HIDDEN, CLASSES)

    def forward(self, rows: Tensor, *, keeps_cell: bool) -> tuple[list[int], Tensor]:
        """The choice at each row (T, D), that of a skip also on those it skips; predictions (T, C).

        A skip of k rows counts down from k, and its own row is the first. On the others the hidden state is that
        before; the cell state goes on, unless `keeps_cell`.
        """
        h = c = torch.zeros(1, HIDDEN)
        choices: list[int] = []
        remaining, predictions = 0, []
        for row in rows:
            new_h, new_c = self.rnn(row[None], (h, c))
            predictions.append(self.lite_fc(new_h)[0])
            if remaining:
                choices.append(choices[-1])
                c = c if keeps_cell else new_c
            else:
                h, c = new_h, new_c
                choice = int(self.linear(h).argmax())
                choices.append(choice)
                if choice >= len(DIMS):
                    remaining = SKIPS[choice - len(DIMS)]
            remaining = max(0, remaining - 1)
        return choices, torch.stack(predictions)


@pytest.mark.parametrize("seed", range(5))
@torch.no_grad()
def test_weights_of_the_released_layout_decide_the_same(seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        released = Released()
        for parameter in released.parameters():
            parameter.copy_(4.0 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
        released.linear.bias.zero_()
    model, theirs = network(seed), released.state_dict()
    order = [2, 1, 0, 3, 4, 5]  # theirs begins with the dearest stream
    tensors = {
        f"cell.{name}": theirs[f"rnn.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    for name in ("weight", "bias"):
        tensors[f"decision.{name}"] = theirs[f"linear.{name}"][order]
        tensors[f"classifiers.0.{name}"] = theirs[f"lite_fc.{name}"]
    model.load_state_dict({**model.state_dict(), **tensors})
    rows = videos(seed, [40])
    chosen, _ = run_network(model, rows)
    ours = chosen.actions.argmax(1).tolist()
    choices, predictions = released(rows[0][0], keeps_cell=True)
    assert [order.index(choice) for choice in choices] == ours and len(set(ours)) > 3
    of_looks = chosen.looked
    torch.testing.assert_close(model.classifiers[0](chosen.hidden)[of_looks], predictions[of_looks])
    # As it is, its cell state goes on: the same up to the first row after a skip of several.
    as_it_is, _ = released(rows[0][0], keeps_cell=False)
    first = (~of_looks).int().argmax().item() if not of_looks.all() else len(ours)
    assert [order.index(choice) for choice in as_it_is][: int(first)] == ours[: int(first)]


# --- what it is trained on ---


def batch_of(rows: Sequence[Sequence[Tensor]], *, several: bool = False) -> Batch:
    targets = torch.arange(len(rows[0])) % CLASSES
    inputs = {f"stream {place}": packed(each) for place, each in enumerate(rows)}
    return Batch(inputs, F.one_hot(targets, CLASSES).float() if several else targets)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Resolutions:
    return plant_resolutions(tmp_path_factory.mktemp("small"), train=36, test=15, lengths=(3, 7), dim=6)


def method_of(small: Resolutions, **change: Any) -> ARNet:
    config = configure("ar-net", {**CONFIG, "dropout": 0.0, **change})
    data = open_data(config, small.cache, small.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ARNet(config, data)  # type: ignore[arg-type]


def sets(model: ARNetNetwork, method: ARNet) -> None:
    method.model, method.specs = model, SPECS


@pytest.mark.parametrize("several", [False, True])
def test_the_loss_is_that_of_plain_loops(small: Resolutions, several: bool) -> None:
    """With the choices that the noise makes; 0.95, 0.05 and 3 as in the released scripts."""
    method = method_of(small)
    sets(network(4).train(), method)
    rows = videos(8, [6, 3, 9])
    batch = batch_of(rows, several=several)
    losses = method.losses(batch, Moment(1.0), torch.Generator().manual_seed(5))
    chosen = method.model.choose(
        batch.inputs["stream 0"], temperature=0.5, generator=torch.Generator().manual_seed(5)
    )
    logits = method.model.row_logits(chosen.hidden, [batch.inputs[f"stream {n}"].data for n in (1, 2)])
    sizes = batch.inputs["stream 0"]

    def by_video(part: Tensor) -> list[Floats]:
        each = split_videos(part, sizes.batch_sizes, sizes.unsorted_indices)
        return [video.detach().double().numpy() for video in each]

    actions, of_streams = by_video(chosen.actions), [by_video(part) for part in logits]
    classification, spent = [], []
    for video, of_video in enumerate(actions):
        terms = [
            of_streams[n][video][t] for t in range(len(of_video)) for n in range(3) if of_video[t, n] == 1
        ]
        mean = torch.from_numpy(np.mean(terms, axis=0))
        target = batch.targets[video]
        classification.append(
            F.binary_cross_entropy_with_logits(mean, target.double(), reduction="sum")
            if several
            else F.cross_entropy(mean, target)
        )
        spent.append(np.mean(of_video @ np.array([0, *GFLOPS[1:], 0, 0, 0])))
    shares = np.concatenate(actions).mean(axis=0)
    balance = np.sqrt(((shares - 1 / 6) ** 2).sum())
    expected = 0.95 * float(torch.stack(classification).mean()) + 0.05 * (np.mean(spent) + 3 * balance)
    found = {name: float(torch.as_tensor(value).detach()) for name, value in losses.items()}
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["balance"] == pytest.approx(balance, rel=1e-5)
    assert found["tau"] == pytest.approx(0.5)


@torch.no_grad()
def test_at_first_each_classifier_is_trained_on_all_rows(small: Resolutions) -> None:
    method = method_of(small)
    sets(network(4).train(), method)
    batch = batch_of(videos(8, [6, 3, 9]))
    loss = method.losses(batch, Moment(0.0), torch.Generator().manual_seed(5))["loss"]
    lstm = nn.LSTM(DIMS[0], HIDDEN)
    lstm.load_state_dict({f"{name}_l0": values for name, values in method.model.cell.state_dict().items()})
    total = 0.0
    for video in range(3):
        rows = [each[video] for each in videos(8, [6, 3, 9])]
        states = lstm(rows[0])[0]
        for layer, inputs in zip(method.model.classifiers, [states, *rows[1:]], strict=True):
            total += float(F.cross_entropy(layer(inputs).mean(0), batch.targets[video])) / 3
    assert isinstance(loss, Tensor) and float(loss) == pytest.approx(total, rel=1e-5)
    assert not method.validates(0.1) and method.validates(0.15)


def test_the_gradient_of_a_choice_is_that_of_its_relaxation(small: Resolutions) -> None:
    """One video of one row: by finite differences of the loss, at the choice, as its relaxation changes."""
    method = method_of(small, balance=0.0)
    sets(network(2).train().double(), method)
    batch = batch_of([[row.double() for row in each] for each in videos(3, [1])])
    bias = method.model.decision.bias

    def noise() -> torch.Generator:
        return torch.Generator().manual_seed(11)

    loss = method.losses(batch, Moment(1.0), noise())["loss"]
    assert isinstance(loss, Tensor)
    (gradient,) = torch.autograd.grad(loss, bias)

    with torch.no_grad():
        chosen = method.model.choose(batch.inputs["stream 0"], temperature=0.5, generator=noise())
        rows = [batch.inputs[f"stream {n}"].data for n in (1, 2)]
        logits = torch.cat(method.model.row_logits(chosen.hidden, rows))
        gumbel = -torch.empty(1, 6).exponential_(generator=noise()).log()
        scores = method.model.decision(chosen.hidden)

        def relaxed(shift: Tensor) -> Tensor:
            return F.softmax((scores + shift + gumbel).log_softmax(1) / 0.5, 1)

        def at(shift: Tensor) -> float:
            weights = chosen.actions + relaxed(shift) - relaxed(torch.zeros_like(shift))
            classified = weights[:, :3].sum()
            answer = weights[:, :3] @ logits / classified if chosen.actions[0, :3].sum() else logits[:1]
            cost = (weights @ method.model.gflops.clamp_min(0)).sum()
            return float(0.95 * F.cross_entropy(answer, batch.targets) + 0.05 * cost)

        steps = 1e-6 * torch.eye(6, dtype=torch.float64)
        numeric = [(at(step) - at(-step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(gradient.numpy(), numeric, rtol=1e-5, atol=1e-8)
    assert np.abs(numeric).max() > 1e-3


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_gradients_are_those_of_plain_loops(small: Resolutions, progress: float) -> None:
    """Each row of each video by torch's own cell, which computes rows that are skipped, too."""
    method = method_of(small)
    sets(network(6).train().double(), method)
    model, tau = method.model, 5.0 * 0.1 ** (max(0.0, progress - 0.15) / 0.85)
    rows = [[row.double() for row in each] for each in videos(8, [6, 1, 3, 9])]
    batch = batch_of(rows)
    sizes = batch.inputs["stream 0"]
    exponential = torch.empty(19, 6).exponential_(generator=torch.Generator().manual_seed(5))
    noise = split_videos(-exponential.log().double(), sizes.batch_sizes, sizes.unsorted_indices)
    answers, spent, actions, every = [], [], [], []
    for video, of_video in enumerate(zip(*rows, strict=True)):
        h = c = torch.zeros(1, HIDDEN, dtype=torch.float64)
        left, drawn, terms, looks = 0, torch.zeros(6), [], []
        for t in range(len(of_video[0])):
            after = model.cell(of_video[0][t : t + 1], (h, c))
            if not left:
                h, c = after
                noisy = model.decision(h).log_softmax(1)[0] + noise[video][t]
                relaxed = (noisy / tau).softmax(0)
                drawn = F.one_hot(noisy.argmax(), 6) + relaxed - relaxed.detach()
                choice = int(noisy.argmax())
                left = SKIPS[choice - 3] if progress and choice >= 3 else 1
                looks.append(model.classifiers[0](h[0]))
            left -= 1
            inputs = [h[0], of_video[1][t], of_video[2][t]]
            logits = [layer(part) for layer, part in zip(model.classifiers, inputs, strict=True)]
            terms.append((drawn, torch.stack(logits)))
        of_rows, of_streams = (torch.stack(parts) for parts in zip(*terms, strict=True))
        shares = of_rows[:, :3]
        mean = (shares[:, :, None] * of_streams).sum((0, 1)) / shares.sum()
        answers.append(mean if shares.detach().any() else torch.stack(looks).mean(0))
        spent.append((of_rows @ torch.tensor([0, *GFLOPS[1:], 0, 0, 0], dtype=torch.float64)).mean())
        actions.append(of_rows)
        every.append(of_streams.mean(0))
    if progress:
        shares = torch.cat(actions).mean(0)
        efficiency = torch.stack(spent).mean() + 3 * (shares - shares.mean()).norm()
        expected = 0.95 * F.cross_entropy(torch.stack(answers), batch.targets) + 0.05 * efficiency
    else:
        of_streams = torch.stack(every, 1)
        expected = torch.stack([F.cross_entropy(each, batch.targets) for each in of_streams]).sum()
    loss = method.losses(batch, Moment(progress), torch.Generator().manual_seed(5))["loss"]
    assert isinstance(loss, Tensor)
    parameters = [values for name, values in model.named_parameters() if progress or "decision" not in name]
    gradients = torch.autograd.grad(loss, parameters)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, parameters), rtol=1e-9, atol=1e-12)
    assert all(gradient.abs().max() > 1e-4 for gradient in gradients)


# --- what it is charged, and its session ---


def undecided(small: Resolutions, folder: Path, **change: Any) -> ARNet:
    """Of a run with weights that choose differently from row to row."""
    config = configure("ar-net", {**CONFIG, **change})
    run_method(config, small.cache, small.labels, folder, device="cpu")
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name in ("decision.weight", "cell.weight_ih"):
        tensors[name] = torch.randn(tensors[name].shape, generator=generator)
    save_file(tensors, folder / "model.safetensors")
    method = load_method(folder, config, open_data(config, small.cache, small.labels))
    assert isinstance(method, ARNet)
    return method


@pytest.fixture
def method(small: Resolutions, tmp_path: Path) -> ARNet:
    return undecided(small, tmp_path / "run")


@pytest.mark.parametrize("change", [{}, {"input_norm": "l2"}, {"multi_label": True}, {"skips": (3,)}])
def test_a_session_does_and_costs_what_the_run_does(
    small: Resolutions, change: Mapping[str, Any], tmp_path: Path
) -> None:
    method = undecided(small, tmp_path / "run", **change)
    data = open_data(method.config, small.cache, small.labels)
    session, predicted = open_session(tmp_path / "run"), method.evaluate(data.evaluation, device=CPU)
    assert isinstance(predicted, Predictions)
    streams: set[str] = set()
    skipped = 0
    for video, video_id in enumerate(predicted.video_ids):
        trace = drive(session, small.cache, video_id)
        np.testing.assert_allclose(session.probabilities, predicted.scores[0, video], atol=1e-5)
        of_video = {name: int(macs[0, video]) for name, macs in predicted.ledger.items()}
        assert dict(session.macs_by_name) == of_video
        rows = {name: [int(w.rows[0]) for w in trace if w.stream == name] for name in STREAMS}
        for name, gflops in zip(STREAMS, GFLOPS, strict=True):
            assert of_video[name] == len(rows[name]) * round(gflops * 1e9)
        gates = predicted.gates[0, predicted.offsets[video] : predicted.offsets[video + 1]]
        assert sorted(rows[STREAMS[1]] + rows[STREAMS[2]]) == np.flatnonzero(gates).tolist()
        assert set(rows[STREAMS[1]]) | set(rows[STREAMS[2]]) <= set(rows[STREAMS[0]])
        streams.update(name for name, wanted in rows.items() if wanted)
        skipped += len(gates) - len(rows[STREAMS[0]])
        looks = len(rows[STREAMS[0]])
        hidden, dim = 12, 6
        look = 4 * hidden * (dim + hidden) + hidden * (3 + len(change.get("skips", SKIPS))) + hidden * CLASSES
        assert of_video[NETWORK] == looks * look + int(gates.sum()) * dim * CLASSES
    assert streams == set(STREAMS) and skipped


# --- operating points ---


def test_a_price_moves_it_from_skips_to_the_dearest_stream(small: Resolutions, method: ARNet) -> None:
    data = open_data(method.config, small.cache, small.labels)
    before = {name: values.clone() for name, values in method.model.state_dict().items()}
    curve = method.operating_curve(data.evaluation, data.train, device=CPU)
    costs = curve.gflops
    assert 5 <= len(costs) <= 9 and (np.diff(costs) > 0).all()
    assert all(torch.equal(values, before[name]) for name, values in method.model.state_dict().items())
    cheapest, dearest = curve.points[0], curve.points[-1]
    assert (
        cheapest.predictions.ledger.gflops[STREAMS[2]] < 0.1 < dearest.predictions.ledger.gflops[STREAMS[2]]
    )
    assert cheapest.value > 0 > dearest.value


@pytest.mark.parametrize("budget", [4.0, 10.0])
def test_a_budget_is_kept_on_the_videos_it_is_found_on(
    small: Resolutions, method: ARNet, budget: float
) -> None:
    data = open_data(method.config, small.cache, small.labels)
    target, calibration = OperatingTarget("budget", budget), [(method, data.train)]
    price = method.move_to(target, calibration, CPU)
    judged = method.evaluate(data.train, device=CPU)
    assert isinstance(judged, Predictions)
    assert 0.97 * budget < judged.gflops.mean() <= budget
    assert method.move_to(target, calibration, CPU) == price  # whatever it was before


def test_a_budget_below_the_least_is_refused(small: Resolutions, method: ARNet) -> None:
    data = open_data(method.config, small.cache, small.labels)
    with pytest.raises(
        UserError, match=r"--budget 0.001: the least that is possible is [\d.]+ GFLOPs per video"
    ):
        method.move_to(OperatingTarget("budget", 0.001), [(method, data.train)], CPU)


# --- it learns ---


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_takes_the_stream_that_tells(seed: int, tmp_path: Path) -> None:
    """An oracle knows of a video which stream tells, which the cheapest shows; it is right everywhere, and pays
    for all rows of that stream. A stream chosen blindly is right on a third of the videos, else by chance."""
    planted = plant_resolutions(tmp_path / "cache", seed=seed)
    config = completed("ar-net", {"streams": STREAMS, "policy_hidden": 32, "seed": seed}, "robust")
    predicted = run_method(
        config, planted.cache, planted.labels, tmp_path / "run", device="cpu"
    ).predictions()
    told_at = np.array([planted.told_at[video] for video in predicted.video_ids])
    oracle = (predicted.lengths * (GFLOPS[0] + np.array([0, *GFLOPS[1:]])[told_at])).mean()
    blind = (1 + 2 / CLASSES) / 3
    gain = (predicted.correct[0].mean() - blind) / (1 - blind)
    assert gain > 0.8
    assert predicted.gflops.mean() < 1.1 * oracle
    spent = [predicted.gflops[0, told_at == place].mean() for place in range(3)]
    assert spent[0] < spent[1] < spent[2]


@pytest.mark.slow
def test_it_takes_the_fine_stream_in_the_rows_that_tell(tmp_path: Path) -> None:
    """Of half of the classes the fine features of 2 to 4 rows alone tell which it is; the coarse ones say where.
    An oracle takes these rows, and is right everywhere."""
    planted = plant(tmp_path / "cache", dim=64)
    config = completed("ar-net", {"streams": ("coarse_112", "fine_224"), "policy_hidden": 64}, "robust")
    predicted = run_method(
        config, planted.cache, planted.labels, tmp_path / "run", device="cpu"
    ).predictions()
    informative = np.concatenate([planted.informative[video] for video in predicted.video_ids])
    chosen = predicted.gates[0] > 0
    assert predicted.correct[0].mean() > 0.95
    assert chosen[informative].mean() > 0.8 and chosen[~informative].mean() < 0.1


# --- bad input, and the command ---


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"streams": ()}, "give --stream twice or more; given: none"),
        ({"streams": STREAMS[:1]}, "give --stream twice or more; given: only 'low_84'"),
        ({"streams": (*STREAMS, STREAMS[0])}, "--stream low_84 is given twice"),
        ({"skips": (2, 2)}, "--skip 2 is given twice"),
        ({"skips": (0,)}, "skips must be positive"),
        ({"streams": ("low_84", "other")}, "other"),
    ],
)
def test_what_is_refused(small: Resolutions, change: dict[str, Any], line: str, tmp_path: Path) -> None:
    config = configure("ar-net", {**CONFIG, **change})
    with pytest.raises(UserError) as caught:
        run_method(config, small.cache, small.labels, tmp_path / "run", device="cpu")
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_stream_that_lacks_rows_of_others(small: Resolutions, tmp_path: Path) -> None:
    spec = replace(small.cache[STREAMS[2]].spec, name="short")
    records = [make_record(video, 2, dim=6) for video in small.cache[STREAMS[2]]]
    write_shard(small.cache.folder / "short", spec, records, tools={"thriftvid": "test"})
    cache = type(small.cache)(small.cache.folder)
    config = configure("ar-net", {**CONFIG, "streams": (STREAMS[0], "short")})
    with pytest.raises(UserError, match=r"short.*\n?.*rows|rows.*short"):
        run_method(config, cache, small.labels, tmp_path / "run", device="cpu")


def test_the_command(small: Resolutions, tmp_path: Path) -> None:
    write_planted_labels(small.labels, tmp_path / "labels.csv")
    data = ["--cache", small.cache.folder, "--labels", tmp_path / "labels.csv"]
    streams = [word for name in reversed(STREAMS) for word in ("--stream", name)]
    words = ["ar-net", *data, *streams, "--epochs", 2, "--policy-hidden", 8, "--out", tmp_path / "run"]
    shown = CliRunner().invoke(train_policy, [str(word) for word in words])
    assert shown.exit_code == 0, shown.output
    assert "ar-net decides from low_84" in shown.output and "high_224 " in shown.output
    words = ["evaluate", tmp_path / "run", *data, "--budget", 8, "--out", tmp_path / "moved"]
    moved = CliRunner().invoke(train_policy, [str(word) for word in words])
    assert moved.exit_code == 0, moved.output
