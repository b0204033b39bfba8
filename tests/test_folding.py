"""Networks with BatchNorm folded into their convolutions compute what they did, and are described as they were."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone, build_network
from extract.backbones.folding import fold_batch_norms
from extract.backbones.i3d import I3D
from extract.backbones.slowfast import SlowFast
from extract.backbones.weights import weights_digest
from extract.backbones.x3d import X3D

CPU = torch.device("cpu")


def norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def as_if_trained(model: nn.Module) -> Any:
    """In evaluation, with statistics and scales as training may leave them; anew, they would fold to nothing."""
    torch.manual_seed(1)
    for norm in norms(model):
        for tensor, low, high in (
            (norm.running_mean, -0.2, 0.2),
            (norm.running_var, 0.5, 2.0),
            (norm.weight, 0.5, 1.5),
            (norm.bias, -0.2, 0.2),
        ):
            if tensor is not None:
                nn.init.uniform_(tensor, low, high)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def assert_same(ours: Any, theirs: Any, x: Tensor) -> None:
    """Far closer than the float16 that rows are kept in: 2⁻¹¹ of a value."""
    for a, b in zip(
        *(out if isinstance(out, tuple) else (out,) for out in (ours(x), theirs(x))), strict=True
    ):
        assert b.abs().max() > 0
        assert (a - b).abs().max() < 2**-15 * b.abs().max()


FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "mobilenetv2": (lambda: timm.create_model("mobilenetv2_050"), (3, 64, 64), 0),
    "resnet": (lambda: timm.create_model("test_resnet"), (3, 96, 96), 0),
    "efficientnet": (lambda: timm.create_model("test_efficientnet"), (3, 96, 96), 0),
    "padded as in TensorFlow": (lambda: timm.create_model("tf_efficientnet_lite0"), (3, 75, 75), 0),
    # DPN and ResNetV2 normalise before they convolve; ConvMixer after the activation.
    "dpn": (lambda: timm.create_model("dpn48b"), (3, 64, 64), 21),
    "resnetv2": (lambda: timm.create_model("resnetv2_18"), (3, 64, 64), 9),
    "weights standardised": (lambda: timm.create_model("resnetv2_50x1_bit", num_classes=3), (3, 64, 64), 0),
    "no convolutions": (lambda: timm.create_model("test_vit"), (3, 160, 160), 0),
    "x3d": (lambda: X3D("xs", 5), (3, 4, 160, 160), 0),
    "slowfast": (lambda: SlowFast(5), (3, 32, 193, 193), 0),
    "i3d": (lambda: I3D(2, 5), (2, 9, 193, 193), 0),
}


@pytest.mark.parametrize(
    "family",
    ["resnet", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "resnet")],
)
def test_every_family_computes_the_same(family: str) -> None:
    make, shape, left = FAMILIES[family]
    model = as_if_trained(make())
    folded = copy.deepcopy(model)
    fold_batch_norms(folded, (1, *shape))
    assert len(norms(folded)) == left
    assert_same(folded, model, torch.randn(2 if len(shape) == 3 else 1, *shape))


class Strange(nn.Module):
    """A network in which folding would be wrong, or is at its edge."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.other, self.other_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        if kind == "tied":
            self.other = nn.Conv2d(4, 4, 3, padding=1)
            self.other.weight = self.conv.weight
        if kind == "scaled":
            self.norm = Doubling(4)
        if kind == "of the batch":
            self.norm = nn.BatchNorm2d(4, track_running_stats=False)
        if kind == "without scale":
            self.norm = nn.BatchNorm2d(4, affine=False)
        if kind == "under two names":
            self.a_conv, self.a_norm = self.conv, self.norm
        if kind == "transposed":
            self.conv = nn.ConvTranspose2d(4, 4, 3)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Any:
        conv, norm = self.conv, self.norm
        if self.kind == "under two names":
            return self.a_norm(self.a_conv(x))
        if self.kind == "out of order":
            return self.other_norm(conv(norm(self.other(x))))
        y = conv(x)
        if self.kind == "seen by two":
            return norm(y) + y
        if self.kind == "seen by foreign code":
            return norm(y) + Foreign.apply(y)
        if self.kind == "handed out":
            return norm(y), y
        if self.kind == "in a list":
            return torch.cat([norm(y), y])
        if self.kind == "changed":
            return norm(y.relu_())
        if self.kind == "seen from elsewhere":
            return norm(y.flip(3))
        if self.kind == "twice convolved":
            return norm(y) + self.other_norm(conv(2 * x))
        if self.kind == "twice normalised":
            return norm(y) + norm(self.other(x))
        if self.kind == "tied":
            return norm(y) + self.other_norm(self.other(x))
        return norm(y)


class Doubling(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Foreign(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.sin()


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        *(("plain", 1), ("without scale", 1), ("under two names", 1), ("out of order", 0)),
        *(
            (kind, 2)
            for kind in ("seen by two", "seen by foreign code", "handed out", "in a list", "changed")
        ),
        *((kind, 2) for kind in ("seen from elsewhere", "twice convolved", "twice normalised", "tied")),
        *((kind, 2) for kind in ("scaled", "of the batch", "transposed")),
    ],
)
def test_nothing_is_folded_that_more_depends_on(kind: str, left: int) -> None:
    model = as_if_trained(Strange(kind))
    folded = copy.deepcopy(model)
    fold_batch_norms(folded, (1, 4, 8, 8))
    assert len(norms(folded)) == left
    assert_same(folded, model, torch.randn(3, 4, 8, 8))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_backbone_is_described_as_it_was_trained(precision: str, tmp_path: Path) -> None:
    model = as_if_trained(timm.create_model("test_resnet"))
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    request = parse_stream("timm:test_resnet@96")
    backbone = Backbone(request, weights=str(path), device=CPU, precision=precision)
    assert not norms(backbone.parameters)
    assert backbone.spec.weights_digest == weights_digest(model)
    assert backbone.spec.precision == precision
    assert len(norms(build_network(request, str(path)).model)) == len(norms(model))  # what is fine-tuned

    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8))
    pre = backbone.spec.preprocessing
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (pre.mean, pre.std))
    with torch.inference_mode():
        expected = model((pixels.permute(0, 3, 1, 2) / 255 - mean) / std)
    scores = backbone(pixels)[1]
    assert scores is not None
    tolerance = {"fp32": 2**-15, "bf16": 2**-4}[precision]
    assert (scores - expected).abs().max() < tolerance * expected.abs().max()
