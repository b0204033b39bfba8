"""Weights in the authors' layout against a plain transcription of what their code does, step by step."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import batch_norm, linear, normalize
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from cache_schema import UserError
from policy.liteeval.authors import from_released, load_released, to_released
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.gate import CLOSED, OPEN, gumbel_pairs
from policy.liteeval.model import LiteEval, LiteEvalOutput
from policy.recipes import RECIPES

D_C, D_F, P_C, P_F, H_C, H_F, CLASSES = 6, 9, 5, 7, 4, 8, 3
T, B = 11, 9
Weights = dict[str, Tensor]


def random_weights(seed: int = 1) -> Weights:
    """In the authors' layout, written down from its description."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    weights: Weights = {}
    for name, inputs, outputs in (("proj_mlp", D_F, P_F), ("small_proj_mlp", D_C, P_C)):
        for place, size in ((0, inputs), (2, outputs)):
            weights[f"{name}.{place}.weight"] = 1 + 0.2 * normal(size)
            weights[f"{name}.{place}.bias"] = 0.3 * normal(size)
            weights[f"{name}.{place}.running_mean"] = 0.1 * normal(size)
            weights[f"{name}.{place}.running_var"] = normal(size).square() + 0.1
            weights[f"{name}.{place}.num_batches_tracked"] = torch.tensor(17)
        weights[f"{name}.1.weight"] = normal(outputs, inputs)
        weights[f"{name}.1.bias"] = normal(outputs)
    for name, inputs, hidden in (("large_rnn", P_F + P_C, H_F), ("small_rnn", P_C, H_C)):
        weights[f"{name}.weight_ih"] = 0.5 * normal(4 * hidden, inputs)
        weights[f"{name}.weight_hh"] = 0.5 * normal(4 * hidden, hidden)
        weights[f"{name}.bias_ih"], weights[f"{name}.bias_hh"] = normal(4 * hidden), normal(4 * hidden)
    weights["linear.weight"], weights["linear.bias"] = normal(2, P_C + 2 * H_F), 0.3 * normal(2)
    weights["classifier.weight"], weights["classifier.bias"] = normal(CLASSES, H_F), normal(CLASSES)
    return weights


class Said(NamedTuple):
    logits: Tensor
    gates: Tensor
    """(T, B), differentiable in training."""


def released(w: Weights, coarse: Tensor, fine: Tensor, noise: Tensor | None = None, tau: float = 1.0) -> Said:
    """All of it inside the time loop. Features (T, B, D) as the backbones give them; trained with noise (T, B, 2).

    In training, the running statistics in `w` move.
    """

    def layers(name: str, x: Tensor) -> Tensor:
        for place in (0, 1, 2):
            weight, bias = w[f"{name}.{place}.weight"], w[f"{name}.{place}.bias"]
            if place == 1:
                x = linear(x, weight, bias)
                continue
            running = w[f"{name}.{place}.running_mean"], w[f"{name}.{place}.running_var"]
            x = batch_norm(x, *running, weight, bias, training=noise is not None, momentum=0.1, eps=1e-5)
            w[f"{name}.{place}.num_batches_tracked"] += noise is not None
        return x.relu()

    def cell(name: str, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        products = linear(x, w[f"{name}.weight_ih"], w[f"{name}.bias_ih"])
        i, f, g, o = (products + linear(h, w[f"{name}.weight_hh"], w[f"{name}.bias_hh"])).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    videos = coarse.shape[1]
    h_c = c_c = coarse.new_zeros(videos, H_C)
    h_f = c_f = coarse.new_zeros(videos, H_F)
    gates = []
    for t in range(len(coarse)):
        v_c = layers("small_proj_mlp", coarse[t] / coarse[t].norm(dim=1, keepdim=True))
        v_f = layers("proj_mlp", fine[t] / fine[t].norm(dim=1, keepdim=True))
        h_c, c_c = cell("small_rnn", v_c, h_c, c_c)
        scores = linear(torch.cat([v_c, h_f, c_f], 1), w["linear.weight"], w["linear.bias"])
        if noise is None:
            use = (scores.argmax(1) == 0).double()[:, None]
        else:
            soft = ((scores.log_softmax(1) + 0.5 * noise[t]) / tau).softmax(1)
            hard = (soft.argmax(1, keepdim=True) == torch.arange(2)).double()
            use = (hard - soft.detach() + soft)[:, :1]
        new_h, new_c = cell("large_rnn", torch.cat([v_f, v_c], 1), h_f, c_f)
        h_f = use * new_h + (1 - use) * torch.cat([h_c, h_f[:, H_C:]], 1)
        c_f = use * new_c + (1 - use) * torch.cat([c_c, c_f[:, H_C:]], 1)
        gates.append(use[:, 0])
    return Said(linear(h_f, w["classifier.weight"], w["classifier.bias"]), torch.stack(gates))


def features(seed: int = 1, steps: int = T) -> tuple[Tensor, Tensor]:
    """(T, B, D) of both streams, as backbones give them: not of unit length."""
    random = torch.Generator().manual_seed(seed)
    coarse, fine = (torch.randn(steps, B, d, generator=random, dtype=torch.float64) for d in (D_C, D_F))
    return 3 * coarse + 1, fine.relu() + 0.1


def packed(features: Tensor) -> PackedSequence:
    return PackedSequence(normalize(features, dim=2).flatten(0, 1), torch.full((len(features),), B))


def double(weights: Weights) -> Weights:
    return {name: w.double() if w.is_floating_point() else w.clone() for name, w in weights.items()}


def test_same_logits_and_gates_at_test_time() -> None:
    weights = random_weights()
    model = from_released(weights).double()
    coarse, fine = features()
    expected = released(double(weights), coarse, fine)
    out: LiteEvalOutput = model(packed(coarse), packed(fine))
    assert 0.1 < expected.gates.mean() < 0.9, "both cases must occur"
    assert torch.equal(out.gates.view(T, B), expected.gates)
    torch.testing.assert_close(out.logits, expected.logits)


def test_videos_of_other_lengths_are_not_padded() -> None:
    """Each as the released code has it by itself, as if it were the longest of its batch."""
    weights = random_weights()
    model = from_released(weights).double()
    coarse, fine = features()
    lengths = [3, 11, 1, 7, 7, 11, 2, 5, 9]
    parts = [
        pack_sequence([normalize(stream[:n, k], dim=1) for k, n in enumerate(lengths)], enforce_sorted=False)
        for stream in (coarse, fine)
    ]
    out: LiteEvalOutput = model(*parts)
    for k, gates in enumerate(out.split(out.gates)):
        alone = released(double(weights), coarse[: lengths[k], k : k + 1], fine[: lengths[k], k : k + 1])
        torch.testing.assert_close(out.logits[k], alone.logits[0])
        assert torch.equal(gates, alone.gates[:, 0])


def test_same_training_step_with_the_same_noise() -> None:
    """Logits, gates, every gradient and every running statistic, for videos of one length."""
    weights = random_weights()
    model = from_released(weights).double().train()
    coarse, fine = features()
    noise = gumbel_pairs(T * B, torch.Generator().manual_seed(3)).double().view(T, B, 2)
    theirs = {
        name: w.requires_grad_(w.is_floating_point() and "running" not in name)
        for name, w in double(weights).items()
    }
    expected = released(theirs, coarse, fine, noise[..., [OPEN, CLOSED]], tau=0.8)
    options = {"temperature": 0.8, "noise_scale": 0.5, "generator": torch.Generator().manual_seed(3)}
    out: LiteEvalOutput = model(packed(coarse), packed(fine), **options)
    assert 0.1 < expected.gates.mean() < 0.9, "both cases must occur"
    assert torch.equal(out.gates.view(T, B), expected.gates.round())
    torch.testing.assert_close(out.logits, expected.logits)

    for logits, gates in ((expected.logits, expected.gates), (out.logits, out.gates)):
        loss = logits.square().sum() + (gates.mean() - 0.1).square()
        loss.backward()  # type: ignore[no-untyped-call]
    moved = to_released(model)
    gradients = copy.deepcopy(model)
    for held, parameter in zip(gradients.parameters(), model.parameters(), strict=True):
        assert parameter.grad is not None
        held.data = parameter.grad
    gradient = to_released(gradients)
    for name, tensor in theirs.items():
        if tensor.requires_grad:
            # A bias in front of a batch norm has no effect: its gradient is rounding.
            torch.testing.assert_close(gradient[name], tensor.grad, atol=1e-10, rtol=1e-6, msg=name)
        else:
            torch.testing.assert_close(moved[name], tensor, msg=name)
    assert int(moved["proj_mlp.2.num_batches_tracked"]) == 17 + T


# --- files ---


def test_there_and_back() -> None:
    weights = random_weights()
    model = from_released(weights)
    back = to_released(model)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    model.threshold.fill_(0.5)
    folded = from_released(to_released(model))
    coarse, fine = features()
    assert torch.equal(
        folded.double()(packed(coarse), packed(fine)).gates,
        model.double()(packed(coarse), packed(fine)).gates,
    )


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped", "parallel", "old"])
def test_files(kind: str, tmp_path: Path) -> None:
    weights = random_weights()
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(weights, path)
    elif kind == "wrapped":
        torch.save({"state_dict": weights, "epoch": 3}, path)
    elif kind == "parallel":
        torch.save({f"module.{name}": w for name, w in weights.items()}, path)
    elif kind == "old":
        torch.save({name: w for name, w in weights.items() if "batches" not in name}, path)
    else:
        torch.save(weights, path)
    model = load_released(path)
    assert not model.training
    for name, value in from_released(weights).state_dict().items():
        if "batches" not in name:
            assert torch.equal(model.state_dict()[name], value)


class Foreign:
    """Something that a torch checkpoint may hold and that only unpickling can bring back."""


@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_wrong_files(tmp_path: Path) -> None:
    weights = random_weights()

    def refusal(held: object, name: str = "weights.pth") -> str:
        path = tmp_path / name
        if isinstance(held, bytes):
            path.write_bytes(held)
        else:
            torch.save(held, path)
        with pytest.raises(UserError) as raised:
            load_released(path)
        said = str(raised.value)
        assert said.startswith(f"{path}: ") and "\n" not in said
        return said

    some = {name: w for name, w in weights.items() if name not in ("large_rnn.bias_hh", "linear.bias")}
    assert re.search("it lacks large_rnn.bias_hh, linear.bias$", refusal(some))
    assert re.search("it lacks proj_mlp.1.weight$", refusal({"fc.weight": torch.zeros(2, 3)}))
    assert re.search("it has unknown fc.bias$", refusal({**weights, "fc.bias": torch.zeros(2)}))
    short = {**weights, "linear.weight": weights["linear.weight"][:, : P_C + H_F]}
    assert re.search(r"sizes differ: linear.weight is \(2, 13\), not \(2, 21\)$", refusal(short))
    flat = {**weights, "classifier.weight": torch.zeros(3)}
    assert re.search(r"classifier.weight is \(3,\), not a matrix", refusal(flat))
    tall = {**weights, "small_rnn.weight_hh": torch.zeros(4 * 9, 9)}
    assert "coarse_hidden (9) must not exceed fine_hidden (8)" in refusal(tall)
    assert "more than plain tensors" in refusal({**weights, "optimizer": {"lr": 0.1}})
    assert "more than plain tensors" in refusal([1, 2])
    sparse = {**weights, "linear.weight": weights["linear.weight"].to_sparse()}
    assert "more than plain tensors" in refusal(sparse)
    assert "refused" in refusal(Foreign())
    assert "cannot be read" in refusal(b"", "empty.safetensors")
    assert "cannot be read" in refusal(b"\x00" * 40, "zeros.safetensors")
    refusal(b"", "empty.pth")
    refusal(b"PK\x03\x04 no archive", "damaged.pth")
    with pytest.raises(UserError, match=r"missing.pth: cannot be read: No such file"):
        load_released(tmp_path / "missing.pth")
    with pytest.raises(UserError, match=r"missing.safetensors: cannot be read"):
        load_released(tmp_path / "missing.safetensors")


def test_only_the_released_network_has_their_layout() -> None:
    sizes = {"coarse_dim": 3, "fine_dim": 4, "num_classes": 2, "coarse_hidden": 2, "fine_hidden": 3}
    with pytest.raises(ValueError, match="only LSTMs with both projections"):
        to_released(LiteEval(**sizes))  # type: ignore[arg-type]
    model = from_released(random_weights())
    model.coarse_scale.fit([torch.randn(5, D_C)])
    with pytest.raises(ValueError, match="does not standardise"):
        to_released(model)


# --- recipes ---

DOC = Path(__file__).parent.parent / "docs" / "recipes.md"


def test_the_recipes_are_as_documented() -> None:
    """The table of docs/recipes.md: `option` | paper | released, in the spelling of the command line."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in DOC.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `--")
    ]
    defaults = LiteEvalConfig()
    named = set()
    for option, *values in rows:
        field = option.strip("`").removeprefix("--").replace("-", "_")
        named.add(field)
        for recipe, said in zip(("paper", "released"), values[:2], strict=True):
            value = RECIPES[recipe].get(field, getattr(defaults, field))
            assert said.strip("`") == spelled(value), f"{option} of {recipe}"
    assert named == RECIPES["paper"].keys() | RECIPES["released"].keys() | {"cell", "sync"}
    others = {field for field, value in RECIPES["paper"].items() if value != getattr(defaults, field)}
    assert others == {"input_norm"}, "the defaults are the paper's, but for this one"


def spelled(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)
