"""1×1 convolutions that are computed by oneDNN compute what they did, and only where it is worth it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.backbones.pointwise import MIN_MACS, MIN_PLACES, convolve_by_onednn

CPU = torch.device("cpu")
ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
needs_onednn = pytest.mark.skipif(not ONEDNN, reason="torch without oneDNN")


def calls(work: Any) -> set[str]:
    """The convolutions that torch calls, by what computes them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    known = ("aten::mkldnn_convolution", "aten::_slow_conv2d_forward", "aten::slow_conv3d_forward")
    return {event.key for event in profile.key_averages() if event.key in known}


LARGE = (1, 128, 16, 16)
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "1×1": (nn.Conv2d(128, 192, 1), LARGE),
    "without bias": (nn.Conv2d(128, 192, 1, bias=False), LARGE),
    "with strides": (nn.Conv2d(128, 192, 1, stride=2), (2, 128, 32, 32)),
    "padded": (nn.Conv2d(128, 192, 1, padding=1), LARGE),
    "in groups": (nn.Conv2d(128, 192, 1, groups=4), (8, 128, 16, 16)),
    "of clips": (nn.Conv3d(64, 96, 1, bias=False), (1, 64, 4, 16, 16)),
    "along time": (nn.Conv3d(64, 96, (3, 1, 1), padding=(1, 0, 0)), (1, 64, 4, 16, 16)),
}


@needs_onednn
@pytest.mark.parametrize("layer", LAYERS)
@torch.inference_mode()
def test_the_same_maps_come_out(layer: str, one_thread: None) -> None:
    module, shape = LAYERS[layer]
    layout: Any = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    network = nn.Sequential(module).to(memory_format=layout).requires_grad_(False)
    changed = copy.deepcopy(network)
    convolve_by_onednn(changed)
    assert changed.state_dict().keys() == network.state_dict().keys()
    x = torch.randn(shape).to(memory_format=layout)
    expected, maps = network(x), changed(x)
    assert maps.shape == expected.shape and maps.is_contiguous(memory_format=layout)
    torch.testing.assert_close(maps, expected)
    assert calls(lambda: changed(x)) == {"aten::mkldnn_convolution"}


@needs_onednn
@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(1024, 1024, 1), (1, 1024, 7, 7)),  # few places
        (nn.Conv2d(8, 8, 1), (1, 8, 32, 32)),  # little to do at each
    ],
)
@torch.inference_mode()
def test_what_is_not_worth_it_stays_as_it_was(
    module: nn.Conv2d, shape: tuple[int, ...], one_thread: None
) -> None:
    x = torch.randn(shape).to(memory_format=torch.channels_last)
    places = x.numel() // shape[1]
    assert places < MIN_PLACES or places * module.weight.numel() < MIN_MACS
    before = calls(lambda: module(x))
    expected = module(x)
    convolve_by_onednn(module)
    assert torch.equal(module(x), expected) and calls(lambda: module(x)) == before


class Doubling(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 1, padding="same"),
        nn.Conv2d(4, 4, 1, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(4, 4, 1),
        Doubling(4, 4, 1),
        nn.Linear(4, 4),
    ],
    ids=str,
)
def test_what_is_something_else_is_left_alone(module: nn.Module) -> None:
    kind = type(module)
    convolve_by_onednn(module)
    assert type(module) is kind


def test_without_onednn_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    module = nn.Conv2d(128, 192, 1)
    convolve_by_onednn(module)
    assert type(module) is nn.Conv2d


@pytest.mark.slow
@needs_onednn
def test_a_backbone_leaves_no_convolution_to_blas(one_thread: None) -> None:
    backbone = Backbone(parse_stream("timm:resnet50@96"), weights="random:0", device=CPU)
    pixels = torch.zeros(8, *backbone.view.row_shape, dtype=torch.uint8)
    assert calls(lambda: backbone(pixels)) == {"aten::mkldnn_convolution"}


@pytest.fixture
def one_thread() -> Any:
    """As in each thread of the batcher: where torch would have BLAS do it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
