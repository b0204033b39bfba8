"""The hand-written recurrence against the same equations in plain torch, and against finite differences."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from benchmarks.liteeval_step import QUICK, Setting
from policy.config import Cell, Precision, ReadoutKind
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.model import LiteEval
from policy.networks import products
from policy.networks.gated import GatedRun, GateInput, State
from policy.networks.gated_lstm import gated_lstm
from policy.networks.sparse import LAY_OUT_AFTER
from policy.runs import run_method
from tests.planted import write_planted

PLANTED = LiteEvalConfig(
    coarse="coarse_112",
    fine="fine_224",
    epochs=30,
    batch=16,
    lr=1e-3,
    coarse_hidden=16,
    fine_hidden=64,
)
SIZES = [3, 2, 2, 1]
INPUTS, HIDDEN, WIDTH = 3, 4, 2


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def plain_loop(
    cell: nn.LSTMCell,
    inputs: Tensor,
    sizes: list[int],
    gate: GateInput,
    sync: State | None,
) -> GatedRun:
    """Eq. 2-5 and 9 step by step, by ``nn.LSTMCell`` and torch's own gradients."""
    h = c = inputs.new_zeros(sizes[0], cell.hidden_size)
    steps = []
    for start, stop in itertools.pairwise([0, *itertools.accumulate(sizes)]):
        h, c = h[: stop - start], c[: stop - start]
        log_odds = gate.log_odds[start:stop] + h @ gate.state_weight
        if gate.cell_weight is not None:
            log_odds = log_odds + c @ gate.cell_weight
        noisy = log_odds if gate.noise is None else log_odds + gate.noise[start:stop]
        relaxed = torch.sigmoid(noisy / gate.temperature)
        opened = relaxed + ((relaxed > 0.5) * 1.0 - relaxed).detach() if gate.hard else relaxed
        if gate.fixed is not None:
            opened = gate.fixed[start:stop]
        new_h, new_c = cell(inputs[start:stop], (h, c))
        if sync is not None:
            assert sync.c is not None
            h, c = (
                torch.cat([s[start:stop], old[:, WIDTH:]], 1)
                for s, old in zip((sync.h, sync.c), (h, c), strict=True)
            )
        h, c = (
            b * new + (1 - b) * old
            for b, new, old in ((opened[:, None], new_h, h), (opened[:, None], new_c, c))
        )
        steps.append((h, c, opened, log_odds))
    all_h, all_c, gates, all_log_odds = (torch.cat(parts) for parts in zip(*steps, strict=True))
    return GatedRun(State(all_h, all_c), gates, all_log_odds)


def flat(run: GatedRun) -> tuple[Tensor, ...]:
    """h, c, gates and log-odds."""
    assert run.states.c is not None
    return run.states.h, run.states.c, run.gates, run.log_odds


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
    sees_cell=st.booleans(),
    sync=st.booleans(),
    hard=st.booleans(),
    imposed=st.booleans(),
)
def test_equals_the_plain_loop(
    lengths: list[int], seed: int, sees_cell: bool, sync: bool, hard: bool, imposed: bool
) -> None:
    """Every output, and the gradient of a random mixture of them by every input."""
    torch.manual_seed(seed)
    sizes = [sum(length > t for length in lengths) for t in range(max(lengths))]
    total = sum(sizes)
    cell = nn.LSTMCell(INPUTS, HIDDEN).double()
    x, h, c = random(total, INPUTS), random(total, WIDTH), random(total, WIDTH)
    odds, state_weight, cell_weight = random(total), random(HIDDEN), random(HIDDEN)
    opened = torch.rand(total, dtype=torch.float64).requires_grad_()
    gate = GateInput(
        odds,
        state_weight,
        cell_weight if sees_cell else None,
        noise=torch.randn(total, dtype=torch.float64),
        fixed=opened if imposed else None,
        temperature=0.7,
        hard=hard,
    )
    mixture = [torch.randn_like(y) for y in (random(total, HIDDEN), random(total, HIDDEN), odds, odds)]
    sources = [x, h, c, odds, state_weight, cell_weight, opened, *cell.parameters()]
    results = []
    for recurrence in (gated_lstm, plain_loop):
        outputs = flat(recurrence(cell, x, sizes, gate, State(h, c) if sync else None))
        total_of = sum(((m * y).sum() for m, y in zip(mixture, outputs, strict=True)), start=torch.zeros(()))
        gradients = torch.autograd.grad(total_of, sources, allow_unused=True)
        results.append((outputs, [torch.zeros(()) if g is None else g for g in gradients]))
    (ours, our_gradients), (plain, plain_gradients) = results
    torch.testing.assert_close(ours, plain)
    for mine, expected in zip(our_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(mine, expected.expand_as(mine) if mine.dim() else expected)


@pytest.mark.parametrize("sync", [True, False])
def test_gradient_where_the_gate_sees_the_cell_state(sync: bool) -> None:
    """Finite differences of every output by every input. The gate is relaxed: a hard one has no derivative."""
    torch.manual_seed(0)
    total = sum(SIZES)
    cell = nn.LSTMCell(INPUTS, HIDDEN).double()
    noise = torch.randn(total, dtype=torch.float64)

    def relaxed(x: Tensor, h: Tensor, c: Tensor, odds: Tensor, w_h: Tensor, w_c: Tensor) -> Any:
        gate = GateInput(odds, w_h, w_c, noise=noise, temperature=0.8, hard=False)
        return flat(gated_lstm(cell, x, SIZES, gate, State(h, c) if sync else None))

    inputs = random(total, INPUTS), random(total, WIDTH), random(total, WIDTH)
    assert torch.autograd.gradcheck(relaxed, (*inputs, random(total), random(HIDDEN), random(HIDDEN)))


# --- precision ---


def gradients(precision: Precision, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """States and gradients of two videos with given gates; weights and inputs are the same in every precision."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    sizes, total = [2] * 9 + [1] * 3, 21
    torch.manual_seed(0)
    cell = nn.LSTMCell(48, 64).to(dtype)
    inputs, sync = draw(total, 48), State(draw(total, 16), draw(total, 16))
    odds, weight = draw(total), draw(64)
    gate = GateInput(odds, weight, fixed=(draw(total) > 0).to(dtype).requires_grad_())
    h, c, _, log_odds = flat(gated_lstm(cell, inputs, sizes, gate, sync, precision))
    (h.square().sum() + c.sum() + log_odds.sum()).backward()  # type: ignore[no-untyped-call]
    leaves = {"inputs": inputs, "sync": sync.h, "odds": odds, "weight": weight, "fixed": gate.fixed}
    leaves |= dict(cell.named_parameters())
    found = {name: leaf.grad for name, leaf in leaves.items() if leaf is not None and leaf.grad is not None}
    assert len(found) == len(leaves)
    return found | {"h": h.detach(), "c": c.detach()}


@pytest.mark.parametrize("onednn", [True, False])
def test_float32_is_exact(onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding, whether or not the weights are laid out for oneDNN. (float64 has no such layout.)"""
    expected = gradients("float32", torch.float64)
    monkeypatch.setattr(products, "WORTH_LAYING_OUT", 1 if onednn else 1 << 40)
    found = gradients("float32")
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("onednn", [True, False])
def test_bfloat16_rounds_products_alone(onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gradients("float32")
    monkeypatch.setattr(products, "WORTH_LAYING_OUT", 1 if onednn else 1 << 40)
    found = gradients("bfloat16")
    for name, value in found.items():
        assert value.dtype == torch.float32
        relative = (value - expected[name]).norm() / expected[name].norm()
        assert relative < 0.02, name
    assert not torch.equal(found["h"], expected["h"])
    # A state that is not rounded has entries between those that bfloat16 knows.
    assert not torch.equal(found["h"], found["h"].bfloat16().float())


@pytest.mark.parametrize("cell", get_args(Cell))
def test_precision_reaches_every_network_in_training_alone(cell: Cell) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"coarse_dim": 6, "fine_dim": 7, "num_classes": 3}
    sizes |= {"coarse_hidden": 8, "fine_hidden": 8, "coarse_projection": 8, "fine_projection": 8}
    features = [torch.randn(16, dim) for dim in (6, 7)]
    coarse, fine = (PackedSequence(x, torch.tensor([8, 8])) for x in features)
    weights = LiteEval(**sizes, cell=cell).state_dict()
    logits: dict[tuple[bool, Precision], Tensor] = {}
    for precision, training in itertools.product(get_args(Precision), (True, False)):
        model = LiteEval(**sizes, cell=cell, precision=precision)
        model.load_state_dict(weights)
        logits[training, precision] = model.train(training)(coarse, fine, gates=torch.ones(16)).logits
    assert torch.equal(logits[False, "float32"], logits[False, "bfloat16"])
    assert not torch.equal(logits[True, "float32"], logits[True, "bfloat16"])
    torch.testing.assert_close(logits[True, "float32"], logits[True, "bfloat16"], rtol=0.05, atol=0.05)


def test_the_whole_step_equals_the_loop() -> None:
    """The released recipe against everything inside the time loop, as benchmarks.liteeval_step has it."""
    setting = Setting(QUICK, gate_bias=0.0, device=torch.device("cpu"))
    expected, step, rounded = setting.in_the_loop(), setting.ours("float32"), setting.ours("bfloat16")
    assert 0 < expected.gates.mean() < 1
    torch.testing.assert_close(step.loss, expected.loss)
    assert torch.equal(step.gates, expected.gates)
    assert step.gradients.keys() == expected.gradients.keys()
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(step.gradients[name], gradient, rtol=1e-3, atol=1e-6, msg=name)
    torch.testing.assert_close(rounded.loss, expected.loss, rtol=1e-2, atol=0)


# --- evaluation ---


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 14), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    cell=st.sampled_from(get_args(Cell)),
    sync=st.booleans(),
    sees_cell=st.booleans(),
    threshold=st.sampled_from([-1.0, 0.0, 0.3]),
    readout=st.sampled_from(["last", "mean", "max", "attention"]),
)
def test_videos_at_their_own_pace_equal_one_step_at_a_time(
    lengths: list[int],
    seed: int,
    cell: Cell,
    sync: bool,
    sees_cell: bool,
    threshold: float,
    readout: ReadoutKind,
) -> None:
    torch.manual_seed(seed)
    model = LiteEval(
        readout=readout,
        coarse_dim=3,
        fine_dim=4,
        num_classes=5,
        coarse_hidden=2,
        fine_hidden=6,
        cell=cell,
        sync=sync,
        gate_state="hidden+cell" if sees_cell and cell != "gru" else "hidden",
    )
    model = model.double().eval()
    with torch.no_grad():
        model.gate.weight.mul_(4)
        model.threshold.fill_(threshold)
    coarse, fine = ([torch.randn(length, dim).double() for length in lengths] for dim in (3, 4))
    with torch.no_grad():
        out = model(*(pack_sequence(parts, enforce_sorted=False) for parts in (coarse, fine)))
        for k, (v_c, v_f) in enumerate(zip(coarse, fine, strict=True)):
            coarse_state, fine_state = model.initial_state(1)
            reading = model.readout.start(v_c, 1)
            gates, odds, states, read = [], [], [], []
            for c, f in zip(v_c[:, None], v_f[:, None], strict=True):
                log_odds, coarse_state = model.look(c, coarse_state, fine_state)
                opened = bool(log_odds > model.threshold)
                fine_state = (
                    model.refine(c, f, fine_state) if opened else model.reuse(coarse_state, fine_state)
                )
                gates.append(float(opened))
                odds.append(log_odds)
                states.append(fine_state.h)
                reading = model.readout.step(reading, fine_state.h)
                read.append(reading.value)
            assert out.split(out.gates)[k].tolist() == gates
            torch.testing.assert_close(out.split(out.log_odds)[k], torch.cat(odds))
            torch.testing.assert_close(out.split(out.states)[k], torch.cat(states))
            torch.testing.assert_close(out.split(out.read)[k], torch.cat(read))
            torch.testing.assert_close(out.logits[k], model.classifier(reading.value)[0])


def test_evaluation_with_many_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than it takes to lay out the weights: the same states as an LSTM whose gates are all open."""
    monkeypatch.setattr(products, "WORTH_LAYING_OUT", 1)
    torch.manual_seed(0)
    model = LiteEval(coarse_dim=3, fine_dim=4, num_classes=5, coarse_hidden=2, fine_hidden=6).eval()
    steps = LAY_OUT_AFTER + 5
    coarse, fine = torch.randn(steps, 3), torch.randn(steps, 4)
    whole = nn.LSTM(7, 6)
    whole.load_state_dict({f"{name}_l0": value for name, value in model.fine_cell.state_dict().items()})
    with torch.no_grad():
        sizes = torch.ones(steps, dtype=torch.int64)
        out = model(PackedSequence(coarse, sizes), PackedSequence(fine, sizes), gates=torch.ones(steps))
        torch.testing.assert_close(out.states, whole(torch.cat([coarse, fine], 1))[0])


# --- training ---


@pytest.mark.slow
def test_bfloat16_learns_as_well(tmp_path: Path) -> None:
    """mAP on videos that were not trained on, and usage: means of three seeds (docs/training-speed.md: six)."""
    maps: dict[Precision, list[float]] = {precision: [] for precision in get_args(Precision)}
    usages: dict[Precision, list[float]] = {precision: [] for precision in get_args(Precision)}
    for seed in range(3):
        cache, labels = write_planted(tmp_path / f"cache{seed}", seed=seed)
        for precision in get_args(Precision):
            config = replace(PLANTED, seed=seed, precision=precision)
            result = run_method(config, cache, labels, tmp_path / f"{precision}{seed}", device="cpu").result
            maps[precision].append(result.metrics["mean_average_precision"])
            usages[precision].append(result.metrics["usage"])
    assert maps["float32"] != maps["bfloat16"]
    assert np.mean(maps["bfloat16"]) > np.mean(maps["float32"]) - 0.02
    assert abs(np.mean(usages["bfloat16"]) - np.mean(usages["float32"])) < 0.03
