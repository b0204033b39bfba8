"""LiteEval with every cell and option of its network: against NumPy, torch's own cells, autograd and itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence
from torch.utils.flop_counter import FlopCounterMode

from cache_schema import FeatureCache
from cache_schema.annotations import LabelSet
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.cost import PolicyCost
from policy.liteeval.gate import OPEN, gumbel_pairs
from policy.liteeval.model import LiteEval, LiteEvalOutput
from policy.networks.cells import GRU, NETWORKS, SRU
from policy.networks.gated import mixed
from policy.networks.projection import Projection, segments
from policy.recipes import with_recipe
from policy.registry import configure
from policy.runs import Listener, run_method
from policy.training.loop import Epoch
from tests.planted import write_planted

Array = NDArray[np.float64]
SIZES = {"coarse_dim": 3, "fine_dim": 4, "num_classes": 5, "coarse_hidden": 2, "fine_hidden": 6}
PROJECTIONS = {"coarse_projection": 5, "fine_projection": 7}
VARIANTS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "lstm, cell state": {"gate_state": "hidden+cell"},
    "lstm, released": {"gate_state": "hidden+cell", **PROJECTIONS},
    "gru": {"cell": "gru"},
    "gru, projections": {"cell": "gru", **PROJECTIONS},
    "sru": {"cell": "sru"},
    "sru, highway as it is": {"cell": "sru", "coarse_hidden": 3, "fine_hidden": 7},
    "sru, released": {"cell": "sru", "gate_state": "hidden+cell", **PROJECTIONS},
    "coarse projection alone": {"coarse_projection": 5},
    "fine projection alone, no sync": {"fine_projection": 7, "sync": False},
    "gru, no sync": {"cell": "gru", "sync": False},
    "sru, no sync": {"cell": "sru", "gate_state": "hidden+cell", "sync": False},
}
PLAIN = [name for name, options in VARIANTS.items() if not PROJECTIONS.keys() & options.keys()]
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def build(variant: str, seed: int = 0) -> LiteEval:
    """A model whose gates are open and closed both, and whose batch norms have seen something."""
    torch.manual_seed(seed)
    model = LiteEval(**(SIZES | VARIANTS[variant])).double()
    with torch.no_grad():
        model.gate.weight.mul_(6)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                assert module.running_mean is not None and module.running_var is not None
                for values in (module.running_mean, module.bias):
                    values.normal_()
                for values in (module.running_var, module.weight):
                    values.uniform_(0.5, 2)
        log_odds = run(model.eval(), *videos([9] * 4, seed=7)).log_odds
        model.gate.bias[OPEN] -= log_odds.median()
    return model.train()


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


# --- evaluation against the equations in NumPy ---


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def array(module: nn.Module, name: str) -> Array:
    return np.asarray(module.get_parameter(name).detach().numpy())


def numpy_lstm(cell: nn.Module, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    w_x, w_h, b_x, b_h = (array(cell, f"{k}_{s}") for k in ("weight", "bias") for s in ("ih", "hh"))
    i, f, g, o = np.split(w_x @ x + b_x + w_h @ h + b_h, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def numpy_gru(cell: nn.Module, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    w_x, w_h, b_x, b_h = (array(cell, f"{k}_{s}") for k in ("weight", "bias") for s in ("ih", "hh"))
    (r_x, z_x, n_x), (r_h, z_h, n_h) = np.split(w_x @ x + b_x, 3), np.split(w_h @ h + b_h, 3)
    z = sigmoid(z_x + z_h)
    return (1 - z) * np.tanh(n_x + sigmoid(r_x + r_h) * n_h) + z * h, c


def numpy_sru(cell: nn.Module, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    candidate, f_x, r_x, *highway = np.split(array(cell, "weight") @ x, len(array(cell, "weight")) // len(c))
    b_f, b_r = np.split(array(cell, "bias"), 2)
    f, r = sigmoid(f_x + b_f), sigmoid(r_x + b_r)
    c = f * c + (1 - f) * candidate
    return r * np.tanh(c) + (1 - r) * (highway[0] if highway else x), c


NUMPY_STEPS: dict[str, Callable[..., tuple[Array, Array]]] = {
    "lstm": numpy_lstm,
    "gru": numpy_gru,
    "sru": numpy_sru,
}


def numpy_projection(layers: Projection | None, x: Array) -> Array:
    if layers is None:
        return x

    def normalised(norm: nn.BatchNorm1d, x: Array) -> Array:
        mean, var = (norm.get_buffer(f"running_{k}").numpy() for k in ("mean", "var"))
        return np.asarray((x - mean) / np.sqrt(var + norm.eps) * array(norm, "weight") + array(norm, "bias"))

    x = array(layers.linear, "weight") @ normalised(layers.norm, x) + array(layers.linear, "bias")
    return np.maximum(normalised(layers.output_norm, x), 0)


class Reference(NamedTuple):
    logits: Array
    gates: list[int]
    log_odds: list[float]
    states: Array


def numpy_liteeval(variant: str, model: LiteEval, coarse: Array, fine: Array) -> Reference:
    """One video by Eq. 1-6, a line each."""
    step = NUMPY_STEPS[VARIANTS[variant].get("cell", "lstm")]
    h_c = c_c = np.zeros(model.coarse_cell.hidden_size)
    h_f = c_f = np.zeros(model.fine_cell.hidden_size)
    width = len(h_c)
    w_g, b_g = array(model.gate, "weight"), array(model.gate, "bias")
    gates, log_odds, states = [], [], []
    for raw_c, raw_f in zip(coarse, fine, strict=True):
        v_c = numpy_projection(model.coarse_projection, raw_c)
        h_c, c_c = step(model.coarse_cell, v_c, h_c, c_c)
        seen = [v_c, h_f, c_f] if VARIANTS[variant].get("gate_state") == "hidden+cell" else [v_c, h_f]
        b_t = w_g @ np.concatenate(seen) + b_g
        gates.append(int(np.argmax(b_t)))
        log_odds.append(b_t[OPEN] - b_t[1 - OPEN])
        if gates[-1] == OPEN:
            v_f = numpy_projection(model.fine_projection, raw_f)
            h_f, c_f = step(model.fine_cell, np.concatenate([v_c, v_f]), h_f, c_f)
        elif model.sync:
            h_f, c_f = np.concatenate([h_c, h_f[width:]]), np.concatenate([c_c, c_f[width:]])
        states.append(h_f)
    logits = array(model.classifier, "weight") @ h_f + array(model.classifier, "bias")
    return Reference(logits, gates, log_odds, np.stack(states))


@every_variant
def test_whole_videos_against_numpy(variant: str) -> None:
    model = build(variant).eval()
    coarse, fine = videos([4, 1, 9, 9, 6, 8])
    out = run(model, coarse, fine)
    assert 0.1 < out.gates.mean() < 0.9, "both cases must occur"
    parts = [out.split(part.detach()) for part in (out.gates, out.log_odds, out.states)]
    for k, (gates, log_odds, states) in enumerate(zip(*parts, strict=True)):
        expected = numpy_liteeval(variant, model, coarse[k].numpy(), fine[k].numpy())
        assert gates.tolist() == expected.gates
        np.testing.assert_allclose(log_odds, expected.log_odds, atol=1e-12)
        np.testing.assert_allclose(states, expected.states, atol=1e-12)
        np.testing.assert_allclose(out.logits[k].detach(), expected.logits, atol=1e-12)
        np.testing.assert_allclose(model.classifier(states[-1]).detach(), expected.logits, atol=1e-12)


@every_variant
def test_step_by_step_equals_whole_videos(variant: str) -> None:
    """At a threshold of its own."""
    model = build(variant).eval()
    coarse, fine = videos([8, 8, 8])
    model.coarse_scale.fit(2 * c + 1 for c in coarse)
    model.fine_scale.fit(3 * f + 1 for f in fine)
    model.threshold.fill_(0.25)
    out = run(model, coarse, fine)
    (coarse_state, fine_state), gates, states = model.initial_state(3), [], []
    with torch.no_grad():
        for t in range(8):
            v_c = torch.stack([c[t] for c in coarse])
            log_odds, coarse_state = model.look(v_c, coarse_state, fine_state)
            candidate = model.refine(v_c, torch.stack([f[t] for f in fine]), fine_state)
            gates.append(log_odds > model.threshold)
            fine_state = mixed(model.reuse(coarse_state, fine_state), candidate, gates[-1].double())
            states.append(fine_state.h)
    assert (coarse_state.c is None) == (VARIANTS[variant].get("cell") == "gru")
    assert torch.equal(torch.stack(gates, 1).double(), torch.stack(out.split(out.gates)))
    torch.testing.assert_close(torch.stack(states, 1), torch.stack(out.split(out.states.detach())))
    torch.testing.assert_close(model.classifier(fine_state.h), out.logits)


@every_variant
def test_unopened_fine_features_are_not_read(variant: str) -> None:
    model = build(variant).eval()
    coarse, fine = videos([5, 9, 3])
    whole = run(model, coarse, fine)
    holes = [
        features.masked_fill(gates[:, None] == 0, torch.nan)
        for features, gates in zip(fine, whole.split(whole.gates), strict=True)
    ]
    assert torch.cat(holes).isnan().any() and not torch.cat(holes).isnan().all()
    holed = run(model, coarse, holes)
    assert torch.equal(holed.logits, whole.logits)
    assert torch.equal(holed.gates, whole.gates)


@every_variant
def test_a_video_does_not_depend_on_those_beside_it(variant: str) -> None:
    model = build(variant).eval()
    coarse, fine = videos([5, 2, 8, 8])
    together = run(model, coarse, fine)
    gates = together.split(together.gates)
    for k in range(4):
        alone = run(model, coarse[k : k + 1], fine[k : k + 1])
        torch.testing.assert_close(together.logits[k], alone.logits[0])
        assert torch.equal(gates[k], alone.gates)


# --- against torch's own networks ---


@pytest.mark.parametrize("training", [True, False])
def test_open_and_closed_grus_are_torchs(training: bool) -> None:
    """All open: nn.GRU on both features. All closed: nn.GRU on the coarse ones, in the first entries."""

    def torchs(cell: nn.Module, parts: list[Tensor]) -> Tensor:
        whole = nn.GRU(len(parts[0][0]), int(cell.hidden_size)).double()  # type: ignore[arg-type]
        whole.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
        states: Tensor = whole(pack(parts))[0].data
        return states

    model = build("gru").train(training)
    coarse, fine = videos([5, 2, 7])
    opened = run(model, coarse, fine, gates=torch.ones(14))
    both = [torch.cat(pair, 1) for pair in zip(coarse, fine, strict=True)]
    torch.testing.assert_close(opened.states, torchs(model.fine_cell, both))
    closed = run(model, coarse, fine, gates=torch.zeros(14))
    torch.testing.assert_close(closed.states[:, :2], torchs(model.coarse_cell, coarse))
    assert not closed.states[:, 2:].any()


@pytest.mark.parametrize("training", [True, False])
@every_variant
def test_closed_gates_leave_the_coarse_state_or_nothing(variant: str, training: bool) -> None:
    model = build(variant).train(training)
    coarse, fine = videos([5, 2, 7])
    width = model.coarse_cell.hidden_size
    states = run(model, coarse, fine, gates=torch.zeros(14)).states
    if model.sync:
        seen = model.coarse_input(pack(coarse).data, pack(coarse).batch_sizes.tolist())
        expected = model.coarse_cell.run(seen, pack(coarse).batch_sizes.tolist())
        torch.testing.assert_close(states[:, :width], expected.h)
        assert not states[:, width:].any()
    else:
        assert not states.any()


@pytest.mark.parametrize("variant", ["fine projection alone, no sync", "gru, no sync", "sru, no sync"])
def test_without_sync_a_closed_gate_keeps_the_state(variant: str) -> None:
    model = build(variant).eval()
    coarse, fine = videos([6])
    out = run(model, coarse, fine, gates=torch.tensor([0, 1, 0, 0, 1, 0]))
    assert not out.states[0].any()
    assert torch.equal(out.states[1], out.states[3])
    assert torch.equal(out.states[4], out.states[5])
    assert not torch.equal(out.states[3], out.states[4])


# --- training ---


@settings(max_examples=25)
@given(
    variant=st.sampled_from(PLAIN),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
)
def test_sparse_evaluation_equals_dense_training(variant: str, lengths: list[int], seed: int) -> None:
    """With the same gates, chosen or its own. (Batch norm has other statistics in training.)"""
    model = build(variant, seed)
    coarse, fine = videos(lengths, seed)
    chosen = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, sum(lengths)))
    for gates in (chosen, None):
        evaluated = run(model.eval(), coarse, fine, gates=gates)
        trained = run(model.train(), coarse, fine, gates=evaluated.gates)
        torch.testing.assert_close(trained.logits, evaluated.logits)
        torch.testing.assert_close(trained.states, evaluated.states)
        torch.testing.assert_close(trained.log_odds, evaluated.log_odds)


def torch_sru(cell: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    rows = list((cell.get_parameter("weight") @ x).split(len(c)))  # type: ignore[no-untyped-call]
    b_f, b_r = cell.get_parameter("bias").chunk(2)
    f, r = (rows[1] + b_f).sigmoid(), (rows[2] + b_r).sigmoid()
    c = f * c + (1 - f) * rows[0]
    return r * c.tanh() + (1 - r) * (rows[3] if len(rows) == 4 else x), c


def plain_training(
    variant: str, model: LiteEval, coarse: list[Tensor], fine: list[Tensor], noise: Tensor, tau: float
) -> tuple[Tensor, Tensor]:
    """Logits and usage by torch's own gradients, one video at a time; noise (N, 2), packed."""
    steps: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
        "lstm": lambda cell, x, h, c: cell(x, (h, c)),
        "gru": lambda cell, x, h, c: (cell(x, h), c),
        "sru": torch_sru,
    }
    step = steps[VARIANTS[variant].get("cell", "lstm")]
    width = model.coarse_cell.hidden_size
    logits, usage = [], []
    video_noise = unpack_sequence(pack(coarse)._replace(data=noise))
    for v_cs, v_fs, gumbel in zip(coarse, fine, video_noise, strict=True):
        h_c = c_c = v_cs.new_zeros(width)
        h_f = c_f = v_cs.new_zeros(model.fine_cell.hidden_size)
        gates = []
        for v_c, v_f, g in zip(v_cs, v_fs, gumbel, strict=True):
            h_c, c_c = step(model.coarse_cell, v_c, h_c, c_c)
            seen = [v_c, h_f, c_f] if VARIANTS[variant].get("gate_state") == "hidden+cell" else [v_c, h_f]
            relaxed = ((model.gate(torch.cat(seen)).log_softmax(0) + g) / tau).softmax(0)[OPEN]
            gate = (relaxed > 0.5).double() + relaxed - relaxed.detach()
            new_h, new_c = step(model.fine_cell, torch.cat([v_c, v_f]), h_f, c_f)
            h_f = gate * new_h + (1 - gate) * (torch.cat([h_c, h_f[width:]]) if model.sync else h_f)
            c_f = gate * new_c + (1 - gate) * (torch.cat([c_c, c_f[width:]]) if model.sync else c_f)
            gates.append(gate)
        logits.append(model.classifier(h_f))
        usage.append(torch.stack(gates).mean())
    return torch.stack(logits), torch.stack(usage)


@pytest.mark.parametrize("variant", PLAIN)
def test_training_step_equals_plain_autograd(variant: str) -> None:
    model = build(variant).train()
    coarse, fine = videos([4, 1, 9, 6])
    noise = 0.5 * gumbel_pairs(20, torch.Generator().manual_seed(5)).double()

    def gradients(logits: Tensor, usage: Tensor) -> tuple[Tensor, dict[str, Tensor | None]]:
        model.zero_grad(set_to_none=True)
        loss = logits.square().sum() + (usage - 0.1).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss, {name: p.grad for name, p in model.named_parameters()}

    expected_loss, expected = gradients(*plain_training(variant, model, coarse, fine, noise, 0.7))
    options = {"temperature": 0.7, "noise_scale": 0.5, "generator": torch.Generator().manual_seed(5)}
    out = run(model, coarse, fine, **options)
    assert 0 < out.gates.mean() < 1
    assert set(out.gates.tolist()) == {0, 1}
    loss, got = gradients(out.logits, out.usage)
    torch.testing.assert_close(loss, expected_loss)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, msg=name)
    of_gate = got["gate.weight"]
    assert of_gate is not None and (of_gate.abs().amax(0) > 1e-5).all(), "every input of the gate learns"


def test_noise_of_any_scale() -> None:
    """Gates open where log-odds + s·(G₁ − G₀) > 0, that is with probability sigmoid(log-odds / s)."""
    model = build("lstm").train()
    with torch.no_grad():
        model.gate.weight.zero_()
        model.gate.bias.copy_(torch.tensor([0.0, -0.6]))
    n = 20_000
    coarse, fine = [torch.zeros(1, 3)] * n, [torch.zeros(1, 4)] * n

    def share(scale: float) -> float:
        generator = torch.Generator().manual_seed(0)
        return run(model, coarse, fine, noise_scale=scale, generator=generator).gates.mean().item()

    assert share(0) == 0
    for scale in (0.5, 2.0):
        p = float(sigmoid(np.float64(-0.6 / scale)))
        assert abs(share(scale) - p) < 5 * (p * (1 - p) / n) ** 0.5
    with pytest.raises(ValueError, match="noise_scale"):
        share(-1)


# --- projections ---


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_a_projection_is_its_layers_called_segment_by_segment(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    ours = Projection(3, 5).double()
    layers = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU()).double()
    layers.load_state_dict(dict(zip(layers.state_dict(), ours.state_dict().values(), strict=True)))
    batch_sizes = pack([torch.zeros(n) for n in lengths]).batch_sizes.tolist()
    sizes = segments(batch_sizes)
    if sizes == [1]:
        return  # which torch's batch norm refuses; see below
    rows = torch.randn(sum(lengths), 3, dtype=torch.float64)
    got = [rows.clone().requires_grad_() for _ in range(2)]
    expected = torch.cat([layers(part) for part in torch.split(got[0], sizes)])
    out = ours(got[1], batch_sizes)
    torch.testing.assert_close(out, expected)
    for x in (expected, out):
        x.pow(3).sum().backward()
    torch.testing.assert_close(got[1].grad, got[0].grad)
    theirs = dict(zip(ours.state_dict(), layers.state_dict().values(), strict=True))
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs[name], msg=name)
    torch.testing.assert_close(ours.eval()(rows, batch_sizes), layers.eval()(rows))


@given(
    batch_sizes=st.lists(st.integers(1, 40), min_size=1, max_size=20).map(lambda x: sorted(x, reverse=True))
)
def test_segments_are_steps_with_enough_rows(batch_sizes: list[int]) -> None:
    sizes = segments(batch_sizes)
    ends, steps = np.cumsum(sizes), np.cumsum(batch_sizes)
    assert set(ends) <= set(steps) and ends[-1] == steps[-1]
    assert min(sizes) >= min(8, steps[-1])
    if batch_sizes[-1] >= 8:
        assert sizes == batch_sizes
    for size, end in zip(sizes[:-1], ends[:-1], strict=True):  # no step more than it takes
        assert size - batch_sizes[int(np.searchsorted(steps, end))] < 8


def test_a_single_row_is_normalised_as_in_evaluation() -> None:
    projection = Projection(3, 5)
    projection(torch.randn(9, 3), [9])
    row, before = torch.randn(1, 3), copy.deepcopy(projection.state_dict())
    assert torch.equal(projection(row, [1]), projection.eval()(row, [1]))
    assert all(torch.equal(value, before[name]) for name, value in projection.state_dict().items())


# --- sizes and costs ---


@every_variant
def test_costs_against_the_flop_counter(variant: str) -> None:
    model = build(variant).eval()

    def macs(*products: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            for product in products:
                product()
        return int(counter.get_total_flops()) // 2

    def step(network: nn.Module) -> Callable[[], object]:
        """One step of one video; nn.LSTMCell is one opaque operator to the counter, these are its products."""
        size, hidden = int(network.input_size), int(network.hidden_size)  # type: ignore[arg-type]
        x = torch.ones(1, size, dtype=torch.float64)
        if isinstance(network, SRU | GRU):
            return lambda: network.step(x, network.zero_state(x, 1))
        h = torch.ones(1, hidden, dtype=torch.float64)
        weights = network.get_parameter("weight_ih"), network.get_parameter("weight_hh")
        return lambda: (linear(x, weights[0]), linear(h, weights[1]))

    def layers(projection: Projection | None, dim: int) -> int:
        row = torch.ones(1, dim, dtype=torch.float64)
        return 0 if projection is None else macs(lambda: projection(row, [1]))

    cost = model.cost
    assert cost.coarse_step == macs(step(model.coarse_cell))
    assert cost.fine_step == macs(step(model.fine_cell))
    seen = torch.ones(1, model.gate.in_features, dtype=torch.float64)
    assert cost.gate_step == macs(lambda: model.gate(seen))
    assert cost.coarse_projection == layers(model.coarse_projection, 3)
    assert cost.fine_projection == layers(model.fine_projection, 4)
    hidden = torch.ones(1, model.fine_cell.hidden_size, dtype=torch.float64)
    assert cost.classifier == macs(lambda: model.classifier(hidden))
    every, opened = (
        cost.coarse_projection + cost.coarse_step + cost.gate_step,
        cost.fine_projection + cost.fine_step,
    )
    assert cost.total(steps=10, opened=3) == 10 * every + 3 * opened + cost.classifier


def test_costs_of_the_released_sizes() -> None:
    sizes = {
        "coarse_dim": 1280,
        "fine_dim": 2048,
        "num_classes": 239,
        "coarse_hidden": 512,
        "fine_hidden": 2048,
    }
    cost = PolicyCost.of(**sizes, coarse_projection=512, fine_projection=2048, gate_state="hidden+cell")  # type: ignore[arg-type]
    assert cost.coarse_step + cost.fine_step == 39_845_888
    assert (cost.coarse_projection, cost.fine_projection) == (1280 * 512, 2048 * 2048)
    assert cost.gate_step == 2 * (512 + 2 * 2048)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_its_sizes(name: str) -> None:
    network = NETWORKS[name](4, 6)  # type: ignore[index]
    inputs = torch.randn(7, 4)
    state = network.run(inputs, [3, 3, 1])
    assert state.h.shape == (7, 6)
    assert (state.c is not None) == network.has_cell_state
    assert (network.zero_state(inputs, 3).c is not None) == network.has_cell_state


def test_errors_are_clear() -> None:
    with pytest.raises(ValueError, match="cell state of a GRU"):
        LiteEval(**SIZES, cell="gru", gate_state="hidden+cell")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="learned layer"):
        LiteEval(**SIZES, coarse_projection=-1)  # type: ignore[arg-type]


# --- runs ---

RUN = LiteEvalConfig(
    coarse="coarse_112",
    fine="fine_224",
    epochs=2,
    batch=8,
    lr=1e-3,
    coarse_hidden=4,
    fine_hidden=6,
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureCache, LabelSet]:
    return write_planted(tmp_path_factory.mktemp("planted"), train=16, test=8, classes=4, dim=10)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("liteeval", {"cell": "gru"}),
        ("liteeval", {"cell": "sru", "gate_state": "hidden+cell"}),
        ("liteeval-rl", {"cell": "sru", "coarse_projection": 3}),
        ("random-gating", {"gate_state": "hidden+cell", "coarse_projection": 3, "fine_projection": 5}),
    ],
)
def test_runs_train_and_pay_for_their_network(
    method: str, options: dict[str, Any], planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    done = run_method(
        configure(method, vars(RUN), usage=0.3, gate_draws=2, **options),
        *planted,
        tmp_path / "run",
        device="cpu",
    )
    said = done.predictions()
    cost = PolicyCost.of(coarse_dim=10, fine_dim=10, num_classes=4, coarse_hidden=4, fine_hidden=6, **options)
    for draw, macs in enumerate(said.ledger["LiteEval networks"]):
        expected = [
            cost.total(steps=int(length), opened=int(opened))
            for length, opened in zip(said.lengths, said.fine_rows[draw], strict=True)
        ]
        assert macs.tolist() == expected


def test_a_stopped_run_of_the_released_recipe_comes_to_the_same_bits(
    planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    """With batch norms, whose running statistics are part of the checkpoint."""

    class Stop(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        raise Stop

    config = with_recipe(RUN, "released")
    run_method(config, *planted, tmp_path / "whole", device="cpu")
    with pytest.raises(Stop):
        run_method(config, *planted, tmp_path / "parts", device="cpu", listener=Listener(epoch=stop))
    run_method(config, *planted, tmp_path / "parts", device="cpu")
    ours, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("parts", "whole"))
    assert ours.keys() == whole.keys() and all(torch.equal(ours[name], whole[name]) for name in ours)
    assert "fine_projection.norm.running_mean" in ours
