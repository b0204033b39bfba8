"""I3D has the layout of its release, TensorFlow's padding, and the arithmetic that the two make together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from extract.backbones.i3d import I3D, _MaxPool, same_padding
from extract.backbones.weights import read_weights

# Inception-v1 as in Szegedy et al. 2015, Table 1: input, #1×1, #3×3 reduce, #3×3, #5×5 reduce, #5×5, pool proj,
# output; its modules are called a, b … there, and b, c … here.
TABLE = """
Mixed_3b  192  64  96 128 16  32  32  256
Mixed_3c  256 128 128 192 32  96  64  480
Mixed_4b  480 192  96 208 16  48  64  512
Mixed_4c  512 160 112 224 24  64  64  512
Mixed_4d  512 128 128 256 24  64  64  512
Mixed_4e  512 112 144 288 32  64  64  528
Mixed_4f  528 256 160 320 32 128 128  832
Mixed_5b  832 256 160 320 32 128 128  832
Mixed_5c  832 384 192 384 48 128 128 1024
"""
MODULES = {row.split()[0]: [int(n) for n in row.split()[1:]] for row in TABLE.strip().splitlines()}


def released_shapes(in_channels: int, num_classes: int) -> dict[str, tuple[int, ...]]:
    """The state dict of pytorch-i3d, written out from the table."""
    convolutions = {
        "Conv3d_1a_7x7": (64, in_channels, 7),
        "Conv3d_2b_1x1": (64, 64, 1),
        "Conv3d_2c_3x3": (192, 64, 3),
    }
    for name, (before, one, reduce3, three, reduce5, five, pooled, after) in MODULES.items():
        assert one + three + five + pooled == after
        convolutions |= {
            f"{name}.b0": (one, before, 1),
            f"{name}.b1a": (reduce3, before, 1),
            f"{name}.b1b": (three, reduce3, 3),
            f"{name}.b2a": (reduce5, before, 1),
            f"{name}.b2b": (five, reduce5, 3),
            f"{name}.b3b": (pooled, before, 1),
        }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (after, before, kernel) in convolutions.items():
        shapes[f"{name}.conv3d.weight"] = (after, before, kernel, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{part}"] = (after,)
        shapes[f"{name}.bn.num_batches_tracked"] = ()
    shapes["logits.conv3d.weight"] = (num_classes, 1024, 1, 1, 1)
    shapes["logits.conv3d.bias"] = (num_classes,)
    return shapes


def on_meta(in_channels: int) -> I3D:
    with torch.device("meta"):
        return I3D(in_channels).eval()


@cache
def small() -> I3D:
    """Random weights, and statistics that a forgotten or misplaced normalisation would not survive."""
    torch.manual_seed(0)
    model = I3D(2, num_classes=5).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith(("bn.weight", "running_var")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("bn.bias", "running_mean")):
            tensor.normal_(std=0.3)
    return model


def clip(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ------------------------------------------------------------------------------------------------------ layout


@pytest.mark.parametrize(("in_channels", "num_classes"), [(3, 400), (2, 400), (3, 7)])
def test_names_and_shapes_are_the_release_s(in_channels: int, num_classes: int) -> None:
    with torch.device("meta"):
        state = I3D(in_channels, num_classes).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == released_shapes(
        in_channels, num_classes
    )


# As torch 0.3 wrote files: no counters, tensors by `_rebuild_tensor`, no zip. The released ones are such.
def test_a_file_without_batch_counters_loads_with_strict_matching(tmp_path: Path) -> None:
    state = OrderedDict((k, v) for k, v in small().state_dict().items() if "num_batches" not in k)
    path = tmp_path / "flow.pt"
    rebuild = torch._utils._rebuild_tensor

    def reduce(tensor: Tensor, _protocol: int) -> Any:
        storage = tensor._typed_storage()  # type: ignore[no-untyped-call]
        return rebuild, (storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride())

    with mock.patch.object(Tensor, "__reduce_ex__", reduce):
        torch.save(state, path, _use_new_zipfile_serialization=False)
    assert b"_rebuild_tensor\n" in path.read_bytes()

    read, _ = read_weights(path)
    model = I3D(2, num_classes=5).eval()
    model.load_state_dict(read, strict=True)
    for name, tensor in small().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


# ----------------------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 7, 2, (2, 3)),  # the first layer on an even size: 112 windows span 229
        (225, 7, 2, (3, 3)),
        (16, 7, 2, (2, 3)),
        (9, 7, 2, (3, 3)),
        (112, 3, 2, (0, 1)),
        (7, 3, 2, (1, 1)),
        (8, 2, 2, (0, 0)),
        (5, 2, 2, (0, 1)),
        (7, 3, 1, (1, 1)),
        (1, 7, 2, (3, 3)),
        (3, 1, 2, (0, 0)),  # the kernel is shorter than its step: nothing to add
    ],
)
def test_same_padding_by_hand(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def test_pooling_by_hand() -> None:
    row = torch.tensor([3.0, 1, 4, 1, 5, 9, 2, 6])

    def pooled(values: Tensor, kernel: int, stride: int) -> list[float]:
        out: list[float] = (
            _MaxPool((1, 1, kernel), (1, 1, stride))(values.view(1, 1, 1, 1, -1)).flatten().tolist()
        )
        return out

    assert pooled(row, 3, 2) == [4, 5, 9, 6]  # (3 1 4) (4 1 5) (5 9 2) (2 6 –)
    assert pooled(row[:7], 3, 2) == [3, 4, 9, 9]  # (– 3 1) (1 4 1) (1 5 9) (9 2 –)
    assert pooled(row[:5], 2, 2) == [3, 4, 5]  # (3 1) (4 1) (5 –)
    assert pooled(row[:4], 3, 1) == [3, 4, 4, 4]


# -------------------------------------------------------------------------------------------------- arithmetic


def padded(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int], value: float) -> Tensor:
    """SAME as TensorFlow's documentation has it: by the remainder of the size, one case after the other."""
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=2):
        remainder = x.shape[axis] % s
        total = max(k - s, 0) if remainder == 0 else max(k - remainder, 0)
        shape = list(x.shape)
        shape[axis] = total // 2
        before = x.new_full(shape, value)
        shape[axis] = total - total // 2
        x = torch.cat([before, x, x.new_full(shape, value)], dim=axis)
    return x


def reference(state: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The network over its state dict: features (B, D, t, h, w) of every window, and its scores there."""

    def unit(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.conv3d.weight"]
        k = weight.shape[-1]
        x = F.conv3d(padded(x, (k, k, k), (stride,) * 3, 0.0), weight, stride=stride)
        mean, var, scale, shift = (
            state[f"{name}.bn.{part}"].view(-1, 1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-3).sqrt() * scale + shift).clamp(min=0)

    def pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
        return F.max_pool3d(padded(x, kernel, stride, 0.0), kernel, stride)  # zeros, as in the release

    x = unit(x, "Conv3d_1a_7x7", stride=2)
    x = pool(x, (1, 3, 3), (1, 2, 2))
    x = unit(unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3")
    x = pool(x, (1, 3, 3), (1, 2, 2))
    for name in MODULES:
        if name == "Mixed_4b":
            x = pool(x, (3, 3, 3), (2, 2, 2))
        if name == "Mixed_5b":
            x = pool(x, (2, 2, 2), (2, 2, 2))
        x = torch.cat(
            [
                unit(x, f"{name}.b0"),
                unit(unit(x, f"{name}.b1a"), f"{name}.b1b"),
                unit(unit(x, f"{name}.b2a"), f"{name}.b2b"),
                unit(pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.b3b"),
            ],
            dim=1,
        )
    height, width = (min(7, side) for side in x.shape[3:])
    windows = x.unfold(2, 2, 1).unfold(3, height, 1).unfold(4, width, 1).mean((-3, -2, -1))
    return windows, F.conv3d(windows, state["logits.conv3d.weight"], state["logits.conv3d.bias"])


# 9 × 193 is the smallest clip that fills the last window, 9 × 64 × 100 does not. The sizes of 9 × 193 are odd at
# nearly every layer, those of 17 × 226 × 200 even and odd.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "windows"),
    [
        ((16, 224, 224), (1, 1, 1)),
        ((9, 193, 193), (1, 1, 1)),
        ((17, 226, 200), (2, 2, 1)),
        ((9, 64, 100), (1, 1, 1)),
    ],
)
@torch.inference_mode()
def test_the_whole_network_is_the_reference(
    shape: tuple[int, int, int], windows: tuple[int, int, int]
) -> None:
    x = clip(1, 2, *shape)
    features, logits = small()(x)
    expected, scores = reference(small().state_dict(), x)
    assert expected.shape[2:] == windows
    torch.testing.assert_close(features, expected.mean((2, 3, 4)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits, scores.mean((2, 3, 4)), rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1  # neither dead nor blown up


@pytest.mark.slow
@torch.inference_mode()
def test_features_alone_are_those_of_the_pair_and_clips_do_not_mix() -> None:
    x = clip(2, 2, 9, 193, 193)
    features, logits = small()(x)
    assert features.shape == (2, I3D.feature_dim) == (2, 1024)
    assert logits.shape == (2, small().num_classes)
    torch.testing.assert_close(small().forward_features(x[1:]), features[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@torch.inference_mode()
def test_bfloat16_and_channels_last() -> None:
    x = clip(1, 2, 9, 193, 193)
    exact, _ = small()(x)
    model = I3D(2, num_classes=5).eval()
    model.load_state_dict(small().state_dict())
    model = model.to(dtype=torch.bfloat16, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    features, logits = model(x.bfloat16().contiguous(memory_format=torch.channels_last_3d))
    assert features.dtype == logits.dtype == torch.bfloat16
    assert float((features.float() - exact).norm() / exact.norm()) < 0.02


def test_random_weights_keep_the_signal_s_size() -> None:
    torch.manual_seed(0)
    model = I3D(3).eval()
    with torch.inference_mode():
        features, logits = model(clip(1, 3, 9, 193, 193))
    assert 0.1 < float(features.std()) < 10
    assert 0.01 < float(logits.std()) < 10


# -------------------------------------------------------------------------------------------------------- cost


# 12.29 million without the classifier. With it OpenVINO's page on the TensorFlow original has 12.69, as that has
# no scales in its batch normalisation (7,280). The model selection paper's 56 GFLOPs, for each of the two, is
# 27.8·10⁹ multiply-accumulates times two.
@pytest.mark.parametrize(
    ("in_channels", "parameters", "macs"), [(3, 12_287_264, 27_787_978_752), (2, 12_265_312, 25_585_051_648)]
)
def test_parameters_and_cost(in_channels: int, parameters: int, macs: int) -> None:
    model = on_meta(in_channels)
    count = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("logits"))
    assert count == parameters
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        features, logits = model(torch.empty(1, in_channels, 16, 224, 224, device="meta"))
    assert counter.get_total_flops() // 2 == macs
    assert (tuple(features.shape), tuple(logits.shape)) == ((1, 1024), (1, 400))


# ------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 16, 224, 224), r"\(B, 2, T, H, W\)"),
        ((2, 16, 224, 224), r"\(B, 2, T, H, W\)"),
        ((1, 2, 8, 224, 224), "needs 9 frames of 32×32 or more, not 8 of 224×224"),
        ((1, 2, 16, 31, 224), "not 16 of 31×224"),
        ((1, 2, 16, 224, 31), "not 16 of 224×31"),
    ],
)
def test_clips_that_do_not_fit_are_refused_in_one_line(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        on_meta(2)(torch.empty(shape, device="meta"))
    assert "\n" not in str(caught.value)


def test_no_other_number_of_channels() -> None:
    with pytest.raises(ValueError, match=r"3 channels \(RGB\) or 2 \(flow\), not 1"):
        I3D(1)
