"""LiteEval against the paper's equations in NumPy, against torch's own LSTM, and its invariants."""

import inspect
import math
import pkgutil
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, linear
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence
from torch.utils.flop_counter import FlopCounterMode

import policy.liteeval
from policy.liteeval.cost import PolicyCost
from policy.liteeval.gate import CLOSED, OPEN, gumbel_pairs
from policy.liteeval.loss import liteeval_loss
from policy.liteeval.model import LiteEval, LiteEvalOutput
from policy.networks.gated import GatedRun, GateInput, State, mixed
from policy.networks.gated_lstm import gated_lstm
from policy.networks.standardize import Standardize

Array = NDArray[np.float64]
SIZES = {"coarse_dim": 3, "fine_dim": 4, "num_classes": 5, "coarse_hidden": 2, "fine_hidden": 6}
lengths_strategy = st.lists(st.integers(1, 7), min_size=1, max_size=5)


def build(seed: int = 0, *, sync: bool = True, dtype: torch.dtype = torch.float64, **sizes: Any) -> LiteEval:
    torch.manual_seed(seed)
    model = LiteEval(**(SIZES | sizes), sync=sync).to(dtype)
    with torch.no_grad():
        model.gate.weight.mul_(4)  # decisions far from a tie, open and closed both
    return model


def cell_of(network: nn.Module) -> nn.LSTMCell:
    assert isinstance(network, nn.LSTMCell)
    return network


def videos(lengths: list[int], seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Coarse and fine features of videos of these lengths; video k depends on k and the seed only."""

    def features(dim: int, salt: int) -> list[Tensor]:
        rngs = [np.random.default_rng([seed, k, salt]) for k in range(len(lengths))]
        return [torch.from_numpy(rng.normal(size=(n, dim))) for rng, n in zip(rngs, lengths, strict=True)]

    return features(SIZES["coarse_dim"], 0), features(SIZES["fine_dim"], 1)


def pack(parts: list[Tensor]) -> PackedSequence:
    return pack_sequence(parts, enforce_sorted=False)


def run(model: LiteEval, coarse: list[Tensor], fine: list[Tensor], **options: Any) -> LiteEvalOutput:
    output: LiteEvalOutput = model(pack(coarse), pack(fine), **options)
    return output


# --- the paper's equations in NumPy ---


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def numpy_lstm(cell: nn.LSTMCell, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    w_x, w_h, b_x, b_h = (w.detach().numpy() for w in weights)
    i, f, g, o = np.split(w_x @ x + b_x + w_h @ h + b_h, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def numpy_liteeval(model: LiteEval, coarse: Array, fine: Array) -> tuple[Array, list[int], list[Array]]:
    """Logits, gates and b_t of one video: Eq. 1-6 and Algorithm 1, a line each."""
    h_c = c_c = np.zeros(model.coarse_cell.hidden_size)
    h_f = c_f = np.zeros(model.fine_cell.hidden_size)
    width = len(h_c)
    w_g, b_g = model.gate.weight.detach().numpy(), model.gate.bias.detach().numpy()
    gates, scores = [], []
    for v_c, v_f in zip(coarse, fine, strict=True):
        h_c, c_c = numpy_lstm(cell_of(model.coarse_cell), v_c, h_c, c_c)  # Eq. 1
        b_t = w_g @ np.concatenate([v_c, h_f]) + b_g  # Eq. 2
        if model.gate.hidden is not None:  # ours
            inner, bias, outer = (weights.numpy() for weights in model.gate.hidden.state_dict().values())
            b_t[OPEN] += outer[0] @ np.maximum(inner @ v_c + bias, 0)
        gate = int(np.argmax(b_t))
        if gate == OPEN:
            h_f, c_f = numpy_lstm(cell_of(model.fine_cell), np.concatenate([v_c, v_f]), h_f, c_f)  # Eq. 3, 4
        elif model.sync:
            h_f = np.concatenate([h_c, h_f[width:]])  # Eq. 5
            c_f = np.concatenate([c_c, c_f[width:]])
        gates.append(gate)
        scores.append(b_t)
    logits = model.classifier.weight.detach().numpy() @ h_f + model.classifier.bias.detach().numpy()  # Eq. 6
    return logits, gates, scores


@pytest.mark.parametrize("gate", [OPEN, CLOSED])
def test_one_step_by_hand(gate: int) -> None:
    """Every number of Eq. 1-6 for one unit each, worked out from scratch: B_t = 1 and B_t = 0."""
    model = build(coarse_dim=1, fine_dim=1, num_classes=1, coarse_hidden=1, fine_hidden=2).eval()
    v_c, v_f = 0.5, -1.0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        cell_of(model.coarse_cell).weight_ih.copy_(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))  # i, f, g, o
        # Rows: i of both units, f, g, o; columns: v^c, v^f.
        cell_of(model.fine_cell).weight_ih.copy_(torch.arange(16, dtype=torch.float64).view(8, 2) / 10)
        model.gate.bias[gate] = 1.0
        model.gate.weight[OPEN, 0] = 0.2
        model.classifier.weight.copy_(torch.tensor([[2.0, 3.0]]))
    c_c = sigmoid(np.float64(1 * v_c)) * np.tanh(3 * v_c)
    h_c = sigmoid(np.float64(4 * v_c)) * np.tanh(c_c)
    log_odds = (1.0 if gate == OPEN else -1.0) + 0.2 * v_c
    if gate == OPEN:
        z = np.array([0.0 * v_c + 0.1 * v_f, 0.2 * v_c + 0.3 * v_f])  # i
        g = np.array([0.8 * v_c + 0.9 * v_f, 1.0 * v_c + 1.1 * v_f])
        o = np.array([1.2 * v_c + 1.3 * v_f, 1.4 * v_c + 1.5 * v_f])
        h_f = sigmoid(o) * np.tanh(sigmoid(z) * np.tanh(g))
    else:
        h_f = np.array([h_c, 0.0])
    for training in (False, True):
        given = torch.tensor([float(gate)]) if training else None
        out = run(model.train(training), [torch.tensor([[v_c]])], [torch.tensor([[v_f]])], gates=given)
        assert out.gates.tolist() == [gate]
        assert out.probabilities.item() == pytest.approx(sigmoid(np.float64(log_odds)), abs=1e-12)
        np.testing.assert_allclose(out.states[0].detach(), h_f, atol=1e-12)
        assert out.logits.item() == pytest.approx(2 * h_f[0] + 3 * h_f[1], abs=1e-12)


@pytest.mark.parametrize(("sync", "gate_hidden"), [(True, 0), (False, 0), (True, 7)])
def test_whole_videos_against_numpy(sync: bool, gate_hidden: int) -> None:
    model = build(sync=sync, gate_hidden=gate_hidden).eval()
    coarse, fine = videos([4, 1, 9, 9, 6])
    out = run(model, coarse, fine)
    gates, probabilities = out.split(out.gates), out.split(out.probabilities)
    assert 0.2 < out.gates.mean() < 0.8, "both cases must occur"
    for k in range(5):
        logits, expected_gates, scores = numpy_liteeval(model, coarse[k].numpy(), fine[k].numpy())
        np.testing.assert_allclose(out.logits[k].detach(), logits, atol=1e-12)
        assert gates[k].tolist() == expected_gates
        assert out.usage[k].item() == pytest.approx(np.mean(expected_gates))
        softmax = [1 / (1 + math.exp(b[CLOSED] - b[OPEN])) for b in scores]
        np.testing.assert_allclose(probabilities[k].detach(), softmax, atol=1e-12)


def test_step_by_step_equals_whole_videos() -> None:
    model = build().eval()
    coarse, fine = videos([8, 8])
    model.coarse_scale.fit(2 * c + 1 for c in coarse)
    model.fine_scale.fit(3 * f + 1 for f in fine)
    (coarse_state, fine_state), gates = model.initial_state(2), []
    for t in range(8):
        v_c = torch.stack([c[t] for c in coarse])
        log_odds, coarse_state = model.look(v_c, coarse_state, fine_state)
        candidate = model.refine(v_c, torch.stack([f[t] for f in fine]), fine_state)
        gates.append(log_odds > 0)
        fine_state = mixed(model.reuse(coarse_state, fine_state), candidate, gates[-1].double())
    out = run(model, coarse, fine)
    torch.testing.assert_close(model.classifier(fine_state.h), out.logits)
    assert torch.equal(torch.stack(gates, 1).double(), torch.stack(out.split(out.gates)))


# --- no video depends on its neighbours ---


@settings(max_examples=25)
@given(lengths=lengths_strategy, extra=st.integers(1, 15), data=st.data())
def test_batch_composition_changes_nothing(lengths: list[int], extra: int, data: st.DataObject) -> None:
    model = build().eval()
    coarse, fine = videos([*lengths, extra])
    alone = run(model, coarse[:-1], fine[:-1])
    order = data.draw(st.permutations(range(len(lengths) + 1)))
    together = run(model, [coarse[k] for k in order], [fine[k] for k in order])
    for place, k in enumerate(order):
        if k < len(lengths):
            torch.testing.assert_close(together.logits[place], alone.logits[k], atol=1e-5, rtol=0)
            torch.testing.assert_close(together.usage[place], alone.usage[k], atol=1e-5, rtol=0)
            assert torch.equal(together.split(together.gates)[place], alone.split(alone.gates)[k])


@settings(max_examples=25)
@given(lengths=lengths_strategy, seed=st.integers(0, 1000), sync=st.booleans())
def test_sparse_evaluation_equals_dense_training(lengths: list[int], seed: int, sync: bool) -> None:
    model = build(seed, sync=sync)
    coarse, fine = videos(lengths, seed)
    chosen = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, sum(lengths)))
    for options in ({"gates": chosen}, {"gates": None}):
        evaluated = run(model.eval(), coarse, fine, **options)
        trained = run(model.train(), coarse, fine, gates=evaluated.gates)
        torch.testing.assert_close(trained.logits, evaluated.logits)
        torch.testing.assert_close(trained.states, evaluated.states)
        torch.testing.assert_close(trained.probabilities, evaluated.probabilities)
        torch.testing.assert_close(trained.usage, evaluated.usage)


# --- forced gates, against torch's LSTM ---


def reference(cell: nn.LSTMCell, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Hidden states, all (packed) and final (caller's order), of ``nn.LSTM`` with the cell's weights."""
    whole = nn.LSTM(cell.input_size, cell.hidden_size).to(cell.weight_ih.dtype)
    whole.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    states, (final, _) = whole(pack(parts))
    return states.data, final[0]


@pytest.mark.parametrize("training", [True, False])
def test_all_open_is_an_lstm(training: bool) -> None:
    model = build().train(training)
    coarse, fine = videos([5, 2, 7])
    out = run(model, coarse, fine, gates=torch.ones(14))
    both = [torch.cat(pair, 1) for pair in zip(coarse, fine, strict=True)]
    states, final = reference(cell_of(model.fine_cell), both)
    torch.testing.assert_close(out.states, states)
    torch.testing.assert_close(out.logits, model.classifier(final))
    assert out.usage.tolist() == [1, 1, 1]


@pytest.mark.parametrize("training", [True, False])
def test_all_closed_is_the_coarse_lstm(training: bool) -> None:
    model = build().train(training)
    coarse, fine = videos([5, 2, 7])
    out = run(model, coarse, fine, gates=torch.zeros(14))
    states, final = reference(cell_of(model.coarse_cell), coarse)
    width = SIZES["coarse_hidden"]
    torch.testing.assert_close(out.states[:, :width], states)
    torch.testing.assert_close(out.logits, model.classifier(torch.nn.functional.pad(final, (0, 6 - width))))
    assert not out.states[:, width:].any()
    assert out.usage.tolist() == [0, 0, 0]


def test_without_sync_a_closed_gate_keeps_the_state() -> None:
    model = build(sync=False).eval()
    coarse, fine = videos([6])
    out = run(model, coarse, fine, gates=torch.tensor([0, 1, 0, 0, 1, 0]))
    assert not out.states[0].any()
    assert torch.equal(out.states[1], out.states[3])
    assert torch.equal(out.states[4], out.states[5])
    assert not torch.equal(out.states[3], out.states[4])


def test_unopened_fine_features_are_not_read() -> None:
    model = build().eval()
    coarse, fine = videos([5, 9, 3])
    whole = run(model, coarse, fine)
    holes = [
        features.masked_fill(gates[:, None] == 0, torch.nan)
        for features, gates in zip(fine, whole.split(whole.gates), strict=True)
    ]
    assert torch.cat(holes).isnan().any()
    holed = run(model, coarse, holes)
    assert torch.equal(holed.logits, whole.logits)
    assert torch.equal(holed.gates, whole.gates)


# --- gradients ---


def plain_training(
    model: LiteEval, coarse: list[Tensor], fine: list[Tensor], noise: Tensor, tau: float
) -> Tensor:
    """Eq. 7 by torch's own gradients, one video at a time. ``noise`` (N, 2) is packed like the features."""
    video_noise = unpack_sequence(pack(coarse)._replace(data=noise))
    width = model.coarse_cell.hidden_size
    logits, usage = [], []
    for v_cs, v_fs, gumbel in zip(coarse, fine, video_noise, strict=True):
        h_c = c_c = v_cs.new_zeros(width)
        h_f = c_f = v_cs.new_zeros(model.fine_cell.hidden_size)
        gates = []
        for v_c, v_f, g in zip(v_cs, v_fs, gumbel, strict=True):
            h_c, c_c = model.coarse_cell(v_c, (h_c, c_c))
            relaxed = ((model.gate(torch.cat([v_c, h_f])).log_softmax(0) + g) / tau).softmax(0)[OPEN]
            gate = (relaxed > 0.5).double() + relaxed - relaxed.detach()
            new_h, new_c = model.fine_cell(torch.cat([v_c, v_f]), (h_f, c_f))
            h_f = gate * new_h + (1 - gate) * (torch.cat([h_c, h_f[width:]]) if model.sync else h_f)
            c_f = gate * new_c + (1 - gate) * (torch.cat([c_c, c_f[width:]]) if model.sync else c_f)
            gates.append(gate)
        logits.append(model.classifier(h_f))
        usage.append(torch.stack(gates).mean())
    targets = torch.arange(len(coarse)) % SIZES["num_classes"]
    return liteeval_loss(torch.stack(logits), torch.stack(usage), targets, gamma=0.1).total


@pytest.mark.parametrize("sync", [True, False])
def test_training_step_equals_plain_autograd(sync: bool) -> None:
    model = build(sync=sync).train()
    coarse, fine = videos([4, 1, 9, 6])
    tau = 0.7
    noise = gumbel_pairs(20, torch.Generator().manual_seed(5)).double()
    expected = plain_training(model, coarse, fine, noise, tau)
    expected.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    out = run(model, coarse, fine, temperature=tau, generator=torch.Generator().manual_seed(5))
    targets = torch.arange(4) % SIZES["num_classes"]
    loss = liteeval_loss(out.logits, out.usage, targets, gamma=0.1).total
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, expected)
    assert 0 < out.gates.mean() < 1
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], msg=name)
    assert model.gate.weight.grad is not None
    assert model.gate.weight.grad.abs().max() > 1e-4, "the straight-through gradient reaches the gate"


def flat(run: GatedRun) -> tuple[Tensor | None, ...]:
    return (*run.states, run.gates, run.log_odds)


def gradcheck(function: Callable[..., Any], *inputs: Tensor) -> None:
    assert torch.autograd.gradcheck(function, tuple(x.detach().double().requires_grad_() for x in inputs))


@pytest.mark.slow
@pytest.mark.parametrize("sync", [True, False])
def test_recurrence_gradcheck(sync: bool) -> None:
    """Finite differences of every output by every input. Gates are relaxed: a hard gate has no derivative."""
    torch.manual_seed(0)
    sizes, total, width, hidden = [3, 2, 2, 1], 8, 2, 4
    cell = nn.LSTMCell(3, hidden).double()
    noise = torch.randn(total, dtype=torch.float64)
    parameters = list(cell.parameters())

    def relaxed(x: Tensor, h: Tensor, c: Tensor, odds: Tensor, w: Tensor, *_: Tensor) -> Any:
        gate = GateInput(odds, w, noise=noise, temperature=0.8, hard=False)
        return flat(gated_lstm(cell, x, sizes, gate, State(h, c) if sync else None))

    def imposed(*values: Tensor) -> Any:
        x, h, c, odds, w, b = values
        gate = GateInput(odds, w, fixed=b)
        return flat(gated_lstm(cell, x, sizes, gate, State(h, c) if sync else None))

    inputs = torch.randn(total, 3), torch.randn(total, width), torch.randn(total, width)
    gate_inputs = torch.randn(total), torch.randn(hidden)
    gradcheck(relaxed, *inputs, *gate_inputs)
    gradcheck(imposed, *inputs, *gate_inputs, torch.rand(total))

    def of_parameters(*values: Tensor) -> Any:
        names = [name for name, _ in cell.named_parameters()]
        replaced = nn.LSTMCell(3, hidden).double()
        for name, value in zip(names, values, strict=True):
            delattr(replaced, name)
            setattr(replaced, name, value)
        gate = GateInput(gate_inputs[0].double(), gate_inputs[1].double(), noise=noise, hard=False)
        x, h, c = (y.double() for y in inputs)
        gated = gated_lstm(replaced, x, sizes, gate, State(h, c) if sync else None)
        return flat(gated) + tuple(gated_lstm(replaced, x, sizes, None, None).states)

    gradcheck(of_parameters, *parameters)


def test_gradients_with_nothing_open() -> None:
    model = build().train()
    coarse, fine = videos([3, 2])
    out = run(model, coarse, fine, gates=torch.zeros(5))
    out.logits.sum().backward()  # type: ignore[no-untyped-call]
    of_fine, of_coarse = (cell_of(c).weight_ih.grad for c in (model.fine_cell, model.coarse_cell))
    assert of_fine is not None and not of_fine.any()
    assert of_coarse is not None and of_coarse.any()


# --- sampling ---


def test_same_seed_same_bits() -> None:
    coarse, fine = videos([20, 30])

    def once(seed: int) -> tuple[Tensor, Tensor]:
        model = build(dtype=torch.float32).train()
        out = run(model, coarse, fine, generator=torch.Generator().manual_seed(seed))
        out.logits.sum().backward()  # type: ignore[no-untyped-call]
        assert model.gate.weight.grad is not None
        return out.gates.detach(), model.gate.weight.grad

    assert all(torch.equal(a, b) for a, b in zip(once(1), once(1), strict=True))
    assert not torch.equal(once(1)[0], once(2)[0])


def test_sampled_gates_follow_their_probability() -> None:
    """Gumbel-max samples exactly the softmax of b_t (Eq. 8), whatever τ is."""
    model = build().train()
    n = 20_000
    with torch.no_grad():
        model.gate.weight.zero_()
        model.gate.bias.copy_(torch.tensor([0.3, -0.9]))
    coarse, fine = [torch.zeros(1, 3)] * n, [torch.zeros(1, 4)] * n
    out = run(model, coarse, fine, temperature=0.1, generator=torch.Generator().manual_seed(0))
    p = 1 / (1 + math.exp(1.2))
    torch.testing.assert_close(out.probabilities, torch.full((n,), p, dtype=torch.float64))
    assert abs(out.gates.mean().item() - p) < 5 * math.sqrt(p * (1 - p) / n)


# --- inputs, errors, loss, cost ---


def test_errors_are_clear() -> None:
    with pytest.raises(ValueError, match="coarse_hidden"):
        build(coarse_hidden=7)
    with pytest.raises(ValueError, match="at least 1"):
        build(num_classes=0)
    model = build().train()
    coarse, fine = videos([3, 2])
    with pytest.raises(ValueError, match="Generator"):
        run(model, coarse, fine)
    with pytest.raises(ValueError, match="lengths"):
        run(model, coarse, [*fine[::-1], fine[0]])
    with pytest.raises(ValueError, match="orders"):
        run(model, coarse, fine[::-1])
    with pytest.raises(ValueError, match="columns"):
        run(model, fine, fine)
    with pytest.raises(ValueError, match="gates have shape"):
        run(model, coarse, fine, gates=torch.zeros(4))
    with pytest.raises(ValueError, match="0 or 1"):
        run(model, coarse, fine, gates=torch.full((5,), 0.5))
    with pytest.raises(ValueError, match="temperature"):
        run(model, coarse, fine, temperature=0.0, generator=torch.Generator())


def test_standardize() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(3, 5, (50, 4)).astype(np.float16)
    rows[:, 2] = 7
    scale = Standardize(4)
    assert torch.equal(scale(torch.from_numpy(rows)), torch.from_numpy(rows).float()), "identity until fitted"
    scale.fit([rows[:20], rows[:0], torch.from_numpy(rows[20:])])
    exact = rows.astype(np.float64)
    np.testing.assert_allclose(scale.mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(scale.std[[0, 1, 3]], exact.std(0)[[0, 1, 3]], rtol=1e-6)
    assert scale.std[2] == 1
    standard = scale(torch.from_numpy(rows))
    assert standard.dtype == torch.float32
    torch.testing.assert_close(standard.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    assert set(scale.state_dict()) == {"mean", "std"}
    with pytest.raises(ValueError, match="no feature"):
        scale.fit([])
    with pytest.raises(ValueError, match="NaN"):
        scale.fit([np.full((2, 4), np.nan)])


@pytest.mark.parametrize("training", [True, False])
def test_model_standardizes_its_inputs(training: bool) -> None:
    """Fitted on raw features, the model does with them what a fresh one does with standardized ones."""
    coarse, fine = videos([5, 3])
    raw, model = build().train(training), build().train(training)
    raw.coarse_scale.fit(c * 50 + 3 for c in coarse)
    raw.fine_scale.fit(f * 0.01 for f in fine)
    gates = torch.tensor([1, 0, 0, 1, 1, 0, 1, 1])
    got = run(raw, [c * 50 + 3 for c in coarse], [f * 0.01 for f in fine], gates=gates)

    def standard(parts: list[Tensor]) -> list[Tensor]:
        rows = torch.cat(parts)
        return [(part - rows.mean(0)) / rows.std(0, correction=0) for part in parts]

    torch.testing.assert_close(got.logits, run(model, standard(coarse), standard(fine), gates=gates).logits)


def test_float16_features_of_the_cache() -> None:
    model = build(dtype=torch.float32).eval()
    coarse, fine = videos([5, 3])
    half = run(model, [c.half() for c in coarse], [f.half() for f in fine])
    rounded = run(model, [c.half().float() for c in coarse], [f.half().float() for f in fine])
    assert half.logits.dtype == torch.float32
    assert torch.equal(half.logits, rounded.logits)


def test_loss() -> None:
    logits, usage = torch.randn(3, 4), torch.tensor([0.0, 0.5, 1.0])
    penalty = (0.01 + 0.16 + 0.81) / 3
    single = liteeval_loss(logits, usage, torch.tensor([1, 0, 3]), gamma=0.1, lam=2.0)
    assert single.usage_penalty.item() == pytest.approx(penalty)
    torch.testing.assert_close(single.classification, cross_entropy(logits, torch.tensor([1, 0, 3])))
    torch.testing.assert_close(single.total, single.classification + 2 * penalty)
    targets = torch.tensor([[0.0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    multi = liteeval_loss(logits, usage, targets, gamma=0.1)
    torch.testing.assert_close(
        multi.classification, 4 * binary_cross_entropy_with_logits(logits, targets), msg="summed over classes"
    )
    for wrong in (torch.zeros(3), torch.zeros(3, 4, dtype=torch.long), torch.zeros(4, dtype=torch.long)):
        with pytest.raises(ValueError, match="fit logits"):
            liteeval_loss(logits, usage, wrong, gamma=0.1)


@pytest.mark.parametrize("gate_hidden", [0, 4])
def test_cost_against_the_flop_counter(gate_hidden: int) -> None:
    model = build(
        coarse_dim=7, fine_dim=11, coarse_hidden=5, fine_hidden=13, num_classes=3, gate_hidden=gate_hidden
    )

    def macs(*products: tuple[Tensor, Tensor]) -> int:
        with FlopCounterMode(display=False) as counter:
            for x, weight in products:
                linear(x, weight)
        return int(counter.get_total_flops()) // 2

    def ones(dim: int) -> Tensor:
        return torch.ones(1, dim, dtype=torch.float64)

    coarse, fine = cell_of(model.coarse_cell), cell_of(model.fine_cell)
    cost = model.cost
    assert cost.coarse_step == macs((ones(7), coarse.weight_ih), (ones(5), coarse.weight_hh))
    hidden = model.gate.hidden
    weights = [] if hidden is None else [x for x in hidden.state_dict().values() if x.ndim == 2]
    layers = [(ones(weight.shape[1]), weight) for weight in weights]
    assert cost.gate_step == macs((ones(20), model.gate.weight), *layers)
    assert cost.fine_step == macs((ones(18), fine.weight_ih), (ones(13), fine.weight_hh))
    assert cost.classifier == macs((ones(13), model.classifier.weight))
    assert cost.total(steps=10, opened=3) == (
        10 * (cost.coarse_step + cost.gate_step) + 3 * cost.fine_step + cost.classifier
    )


def test_cost_of_the_paper_sizes() -> None:
    cost = PolicyCost.of(coarse_dim=1280, fine_dim=2048, num_classes=239, coarse_hidden=512, fine_hidden=2048)
    assert cost.coarse_step == 3_670_016
    assert cost.fine_step == 44_040_192


def test_the_map_of_equations_points_at_what_is_there() -> None:
    assert policy.liteeval.__doc__ is not None
    places = re.findall(r"Eq\. (\d) .*`(policy\.[\w.]+)`", policy.liteeval.__doc__)
    assert [int(number) for number, _ in places] == list(range(1, 10))
    for number, place in places:
        assert f"Eq. {number}" in inspect.getsource(pkgutil.resolve_name(place)), place
