"""SlowFast computes what pytorchvideo's SlowFast computes, from the same parameters, at the published cost."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from pytorchvideo.models.slowfast import create_slowfast
from torch import Tensor
from torch.nn.functional import cross_entropy

from extract.backbones.slowfast import SLOW_FRAMES, SLOWFAST_8X8_R50, SlowFast
from tests.test_x3d import assert_close, assert_initialised_alike, macs, randomise


def reference() -> Any:
    """pytorchvideo's network, by the arguments of its hub."""
    return create_slowfast(model_depth=50, slowfast_fusion_conv_kernel_size=(7, 1, 1)).eval()


@cache
def pair() -> tuple[SlowFast, Any]:
    """Ours and pytorchvideo's, with the same random parameters."""
    theirs = reference()
    randomise(theirs)
    ours = SlowFast().eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def random_clip(size: int) -> Tensor:
    return torch.randn(1, 3, SLOWFAST_8X8_R50.frames, size, size)


@pytest.mark.slow
@torch.inference_mode()
def test_computes_what_pytorchvideo_does() -> None:
    ours, theirs = pair()
    clip = random_clip(SLOWFAST_8X8_R50.test_crop)
    slow = clip.index_select(2, torch.linspace(0, 31, 8).long())  # PackPathway of the release's example
    positions = []
    hook = theirs.blocks[5].register_forward_hook(lambda *call: positions.append(call[2]))
    logits = theirs([slow, clip])
    hook.remove()
    our_features, our_logits = ours(clip)
    assert our_features.shape == (1, ours.feature_dim)
    assert our_logits.shape == (1, ours.num_classes)
    assert_close(our_features, positions[0].mean(dim=(2, 3, 4)))
    assert_close(our_logits, logits)
    projection: Any = ours.blocks[-1].proj
    assert_close(projection(our_features), our_logits, 1e-5)


def test_sees_the_slow_frames_of_the_release() -> None:
    assert list(SLOW_FRAMES) == torch.linspace(0, 31, 8).long().tolist()


def test_has_the_parameters_of_the_released_checkpoint() -> None:
    with torch.device("meta"):
        ours, theirs = SlowFast(), reference()
    shapes = [{name: tensor.shape for name, tensor in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    counts = [sum(parameter.numel() for parameter in net.parameters()) for net in (ours, theirs)]
    assert counts[0] == counts[1]


def test_costs_what_was_published() -> None:
    at_256, at_224 = (macs(SlowFast, 1, 3, 32, size, size) / 1e9 for size in (256, 224))
    assert (round(at_256, 3), round(at_224, 2)) == (65.712, 50.31)


def test_training_reaches_every_parameter() -> None:
    # Without values, for time: what is done to them is X3D's, tested there.
    with torch.device("meta"):
        model, clip, label = SlowFast().train(), random_clip(193), torch.tensor([3])
    torch.autograd.backward(cross_entropy(model(clip)[1], label))
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_classifier_drops_features_in_training() -> None:
    classifier = deepcopy(pair()[0].blocks[-1]).train()
    positions = torch.ones(1, 2304, 1, 2, 2)
    assert not torch.equal(classifier(positions), classifier(positions))
    classifier.eval()
    assert torch.equal(classifier(positions), classifier(positions))


@pytest.mark.slow
def test_begins_as_released() -> None:
    torch.manual_seed(0)
    assert_initialised_alike(SlowFast(), reference())


@pytest.mark.slow
@torch.inference_mode()
def test_runs_in_bfloat16_and_channels_last_whether_with_logits_or_without() -> None:
    ours, _ = pair()
    clip = random_clip(193)
    layout = torch.channels_last_3d
    half = deepcopy(ours).to(dtype=torch.bfloat16, memory_format=layout)  # type: ignore[call-overload]
    half_clip = clip.to(torch.bfloat16, memory_format=layout)
    features, logits = half(half_clip)
    assert features.dtype == logits.dtype == torch.bfloat16
    assert torch.equal(half.forward_features(half_clip), features)
    expected_features, expected_logits = ours(clip)
    assert_close(features.float(), expected_features, 0.2)
    assert_close(logits.float(), expected_logits, 0.2)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 3, 8, 256, 256),
        (1, 3, 32, 31, 256),
        (1, 3, 32, 256, 31),
        (1, 32, 3, 256, 256),
        (3, 32, 256, 256),
    ],
)
def test_refuses_other_clips(shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model, clip = SlowFast(), torch.empty(shape)
    for call in (model, model.forward_features):
        with pytest.raises(ValueError, match=r"SlowFast takes clips \(B, 3, 32, H, W\) with H and W from 32"):
            call(clip)
