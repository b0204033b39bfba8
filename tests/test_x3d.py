"""X3D computes what pytorchvideo's X3D computes, from the same parameters, at the published cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorchvideo.models.x3d import create_x3d
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from extract.backbones.video_layers import window_means
from extract.backbones.weights import load_into, read_weights
from extract.backbones.x3d import X3D, X3D_VARIANTS

VARIANTS = tuple(X3D_VARIANTS)


def reference(variant: str, **options: Any) -> Any:
    """pytorchvideo's network, by the arguments of its hub; without the softmax, so that it averages logits."""
    frames, crop, depth = {
        "xs": (4, 160, 2.2),
        "s": (13, 160, 2.2),
        "m": (16, 224, 2.2),
        "l": (16, 312, 5.0),
    }[variant]
    return create_x3d(
        **{
            "input_clip_length": frames,
            "input_crop_size": crop,
            "depth_factor": depth,
            "head_activation": None,
        }
        | options
    ).eval()


def randomise(model: nn.Module) -> None:
    """Draw every scale, shift, bias and running statistic anew: as made they are 0 or 1, which hides mistakes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1:
                tensor.normal_(std=0.1)


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    """Equal but for `tolerance` times the deviation of what was expected, which must not be constant."""
    assert ours.shape == theirs.shape
    assert theirs.std() > 0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * float(theirs.std()))


def macs(make: Callable[[], nn.Module], *shape: int) -> int:
    """Multiply-accumulates of features and logits; the counter counts two for each."""
    with torch.device("meta"):
        model, clip = make().eval(), torch.empty(*shape)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(clip)
    return int(counter.get_total_flops()) // 2


def assert_initialised_alike(ours: nn.Module, theirs: nn.Module) -> None:
    """Every parameter is the same constant, or drawn with about the same deviation."""
    for name, expected in theirs.state_dict().items():
        drawn = ours.state_dict()[name]
        if expected.min() == expected.max():
            assert torch.equal(drawn, expected), name
        else:
            # Within some six standard errors, so that no seed fails.
            error = float(expected.std()) / math.sqrt(expected.numel())
            assert float(drawn.std()) == pytest.approx(float(expected.std()), abs=6 * error), name
            assert float(drawn.mean()) == pytest.approx(0, abs=6 * error), name


@cache
def pair(variant: str) -> tuple[X3D, Any]:
    """Ours and pytorchvideo's, with the same random parameters."""
    theirs = reference(variant)
    randomise(theirs)
    ours = X3D(variant).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def random_clip(variant: str, height: int, width: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, X3D_VARIANTS[variant].frames, height, width)


# The sizes of training and of three crops, and a map where the window has one place down and four across.
@pytest.mark.parametrize(
    ("variant", "height", "width"),
    [
        ("xs", 160, 160),
        ("xs", 182, 182),
        ("xs", 129, 230),
        ("s", 182, 182),
        ("m", 224, 224),
        ("m", 256, 256),
        pytest.param("l", 356, 356, marks=pytest.mark.slow),
    ],
)
@torch.inference_mode()
def test_computes_what_pytorchvideo_does(variant: str, height: int, width: int) -> None:
    ours, theirs = pair(variant)
    clip = random_clip(variant, height, width)
    positions = []
    hook = theirs.blocks[5].pool.register_forward_hook(lambda *call: positions.append(call[2]))
    logits = theirs(clip)
    hook.remove()
    our_features, our_logits = ours(clip)
    assert our_features.shape == (1, ours.feature_dim)
    assert our_logits.shape == (1, ours.num_classes)
    assert_close(our_features, positions[0].mean(dim=(2, 3, 4)))
    assert_close(our_logits, logits)


@torch.inference_mode()
def test_features_alone_are_those_of_one_pass_and_give_the_logits() -> None:
    ours, _ = pair("xs")
    clip = random_clip("xs", 182, 182, batch=2)
    features, logits = ours(clip)
    assert torch.equal(ours.forward_features(clip), features)
    projection: Any = ours.blocks[-1].proj
    assert_close(projection(features), logits, 1e-5)
    # Each clip by itself.
    assert_close(ours(clip[1:])[0], features[1:], 1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_has_the_parameters_of_the_released_checkpoint(variant: str) -> None:
    with torch.device("meta"):
        ours, theirs = X3D(variant), reference(variant)
    shapes = [{name: tensor.shape for name, tensor in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    counts = [sum(parameter.numel() for parameter in net.parameters()) for net in (ours, theirs)]
    assert counts[0] == counts[1]


def test_reads_a_checkpoint_as_released(tmp_path: Path) -> None:
    theirs = pair("xs")[1]
    path = tmp_path / "X3D_XS.pyth"
    torch.save({"model_state": theirs.state_dict()}, path)
    ours = X3D("xs")
    load_into(ours, read_weights(path)[0], path)
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items())


@pytest.mark.parametrize(
    ("variant", "train_gmacs", "test_gmacs"),
    [("xs", 0.605, 0.844), ("s", 1.963, 2.727), ("m", 4.732, 6.186), ("l", 18.368, 24.778)],
)
def test_costs_what_was_published(variant: str, train_gmacs: float, test_gmacs: float) -> None:
    constants = X3D_VARIANTS[variant]
    sizes = (constants.train_crop, constants.test_crop)
    gmacs = [macs(lambda: X3D(variant), 1, 3, constants.frames, size, size) / 1e9 for size in sizes]
    assert [round(value, 3) for value in gmacs] == [train_gmacs, test_gmacs]


def test_training_reaches_every_parameter_and_drops_features_of_the_classifier_only() -> None:
    model = X3D("xs", num_classes=5)
    randomise(model)
    model.train()
    clip = random_clip("xs", 129, 129, batch=2)
    features, logits = model(clip)
    again_features, again_logits = model(clip)
    assert torch.equal(features, again_features)
    assert not torch.equal(logits, again_logits)
    assert logits.shape == (2, 5)
    torch.autograd.backward(cross_entropy(logits, torch.tensor([0, 3])))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.slow
def test_begins_as_released_and_the_same_from_the_same_seed() -> None:
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(X3D("s", num_classes=7))
    first, same, other = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["blocks.5.proj.weight"], other["blocks.5.proj.weight"])
    assert_initialised_alike(models[0], reference("s", model_num_class=7))


@torch.inference_mode()
def test_runs_in_bfloat16_and_channels_last() -> None:
    ours, _ = pair("xs")
    clip = random_clip("xs", 129, 129)
    features, logits = ours(clip)
    other = deepcopy(ours).to(memory_format=torch.channels_last_3d)
    last = clip.to(memory_format=torch.channels_last_3d)
    for mine, expected in zip(other(last), (features, logits), strict=True):
        assert_close(mine, expected)
    for mine, expected in zip(other.bfloat16()(last.bfloat16()), (features, logits), strict=True):
        assert mine.dtype == torch.bfloat16
        assert_close(mine.float(), expected, 0.2)


def test_a_map_smaller_than_the_window_is_averaged_as_a_whole() -> None:
    maps = torch.randn(2, 5, 4, 3, 6)
    torch.testing.assert_close(window_means(maps, 7)[:, :, 0, 0, 0], maps.mean((2, 3, 4)))
    means = window_means(maps, 5)
    assert means.shape == (2, 5, 1, 1, 2)
    torch.testing.assert_close(means[..., 0, 1], maps[..., 1:6].mean((3, 4)).mean(2, keepdim=True))
    with torch.device("meta"):
        assert X3D("xs").forward_features(torch.empty(1, 3, 4, 64, 96)).shape == (1, 2048)


@pytest.mark.parametrize(
    "shape",
    [(1, 3, 13, 160, 160), (1, 3, 4, 31, 160), (1, 3, 4, 160, 31), (1, 4, 3, 160, 160), (3, 4, 160, 160)],
)
def test_refuses_other_clips(shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model, clip = X3D("xs"), torch.empty(shape)
    for call in (model, model.forward_features):
        with pytest.raises(
            ValueError, match=r"X3D-XS takes clips \(B, 3, 4, H, W\) with H and W from 32, not"
        ):
            call(clip)


def test_refuses_an_unknown_variant() -> None:
    with pytest.raises(ValueError, match="no X3D variant 'xl': use xs, s, m, l"):
        X3D("xl")
