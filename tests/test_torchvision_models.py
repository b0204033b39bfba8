"""Networks of torchvision: its own transforms in, its own features and scores out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision import models

from cache_schema import Sampling, UserError
from extract.backbones import _TORCHVISION_CLIPS, parse_stream
from extract.backbones.backbone import Backbone, count_macs
from extract.backbones.weights import weights_digest
from extract.finetune.network import build as build_trainee
from extract.transform import resize_and_crop
from policy.deploy.speed import request_of
from tests.test_backbones import picture

CPU = torch.device("cpu")


def build(stream: str, weights: str = "random:0") -> Backbone:
    return Backbone(parse_stream(stream), weights=weights, device=CPU)


def reference(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return models.get_model(name, **options).eval()


def features_and_scores(model: Any, classifier: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """What goes into the classifier, by a hook, and what the network says."""
    inputs: list[Tensor] = []
    model.get_submodule(classifier).register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.inference_mode():
        scores = model(x)
    return inputs[0], scores


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stream", "classifier", "options"),
    [
        ("torchvision:resnet18@64", "fc", {}),
        ("torchvision:vit_b_32@64", "heads.head", {"image_size": 64}),
        ("torchvision:mobilenet_v3_small@72", "classifier.3", {}),
    ],
)
def test_frames_are_as_torchvision_sees_them(stream: str, classifier: str, options: dict[str, Any]) -> None:
    backbone = build(stream)
    request = parse_stream(stream)
    name = request.network.removeprefix("torchvision:")
    frame = picture(180, 320)
    seen: Any = models.get_model_weights(name).DEFAULT.transforms
    resize = int(request.size * seen().resize_size[0] / seen().crop_size[0])
    x = seen(crop_size=request.size, resize_size=resize)(Image.fromarray(frame))[None]
    features, scores = features_and_scores(reference(name, **options), classifier, x)
    ours = backbone(torch.tensor(resize_and_crop(frame, backbone.spec.preprocessing)[None]))
    assert ours[1] is not None
    # A grey level differs here and there, of a resize that computes the crop alone.
    torch.testing.assert_close(ours[0], features, atol=0.03, rtol=0.02)
    torch.testing.assert_close(ours[1], scores, atol=0.03, rtol=0.02)


@pytest.mark.parametrize(
    ("stream", "classifier", "options"),
    [
        ("torchvision:r3d_18@32", "fc", {}),
        ("torchvision:swin3d_t@32", "head", {}),
        pytest.param("torchvision:mvit_v2_s", "head.1", {}, marks=pytest.mark.slow),
        pytest.param("torchvision:s3d@224", "classifier.1", {}, marks=pytest.mark.slow),
    ],
)
def test_clips_are_as_torchvision_normalises_them(
    stream: str, classifier: str, options: dict[str, Any]
) -> None:
    backbone = build(stream)
    request = parse_stream(stream)
    name = request.network.removeprefix("torchvision:")
    size, frames = request.size, request.sampling.frames
    pixels = np.stack([picture(size, size, seed) for seed in range(frames)])
    seen: Any = models.get_model_weights(name).DEFAULT.transforms
    x = seen(crop_size=(size, size), resize_size=(size, size))(torch.tensor(pixels).permute(0, 3, 1, 2))
    model = reference(name, **options)
    features, scores = features_and_scores(model, classifier, x[None])
    features = features.flatten(2).mean(2) if features.ndim > 2 else features
    ours = backbone(torch.tensor(pixels[None]))
    assert ours[1] is not None
    torch.testing.assert_close(ours[0], features, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(ours[1], scores, atol=1e-3, rtol=1e-3)
    assert backbone.spec.weights_digest == weights_digest(model)
    assert Backbone(request_of(backbone.spec), weights="random:0", device=CPU).spec == backbone.spec


@pytest.mark.parametrize("name", _TORCHVISION_CLIPS)
def test_frames_and_rates_are_those_that_the_weights_were_tested_with(name: str) -> None:
    """torchvision has them in words alone."""
    frames, fps, size, resize = _TORCHVISION_CLIPS[name]
    weights: Any = models.get_model_weights(name).DEFAULT
    words = weights.meta["_docs"]
    rate, length = re.findall(r"frame_rate=([\d.]+).*clip_len=(\d+)", words, re.DOTALL)[0]
    seen = weights.transforms()
    expected = (int(length), float(rate), seen.crop_size[0], seen.resize_size[0])
    assert (frames, fps, size, resize) == expected
    request = parse_stream(f"torchvision:{name}")
    assert request.sampling == Sampling("clips", fps=fps, frames=frames, window=frames, clips=10)
    assert (request.name, request.resize) == (f"torchvision_{name}_{size}", resize)


def test_every_network_of_clips_has_a_line() -> None:
    assert set(models.list_models(module=models.video)) == set(_TORCHVISION_CLIPS)


@pytest.mark.parametrize(
    ("stream", "gmacs"),
    [
        ("torchvision:resnet18@224", 1.814),
        ("torchvision:r3d_18", 40.697),
        ("torchvision:r2plus1d_18", 40.519),
    ],
)
def test_costs_are_those_that_torchvision_prints(stream: str, gmacs: float) -> None:
    name = parse_stream(stream).network.removeprefix("torchvision:")
    weights: Any = models.get_model_weights(name).DEFAULT
    assert weights.meta["_ops"] == gmacs
    assert count_macs(parse_stream(stream)) / 1e9 == pytest.approx(gmacs, rel=0.01)


def test_weights_from_a_file_with_other_classes(tmp_path: Path) -> None:
    model = reference("resnet18", num_classes=7)
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    spec = build("torchvision:resnet18@64", str(tmp_path / "mine.safetensors")).spec
    assert (spec.weights, spec.num_classes) == ("file", 7)
    assert spec.weights_digest == weights_digest(model)


def test_pretrained_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weights: Any = models.get_model_weights("resnet18").DEFAULT
    state = reference("resnet18").state_dict()
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: state)
    monkeypatch.setattr("extract.backbones.downloads.require_connection", lambda url: None)
    spec = build("torchvision:resnet18@64", "pretrained").spec
    assert spec.weights == "pretrained:IMAGENET1K_V1"
    assert spec.classes is not None and len(set(spec.classes)) == 1000
    assert spec.classes[504] == "coffee mug"

    def unreachable(url: str) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr("extract.backbones.downloads.require_connection", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/nowhere")
    with pytest.raises(
        UserError, match=r"of resnet18 cannot be had \(no route\).*fetch https://.*\.pth"
    ) as caught:
        build("torchvision:resnet18@64", "pretrained")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ("torchvision:resnet18", r"say at which size, as in torchvision:resnet18@224"),
        ("torchvision:resnet_18@64", r"has no network 'resnet_18' of frames; did you mean .*resnet18"),
        ("torchvision:fasterrcnn_resnet50_fpn@224", "has no network"),
        ("torchvision:squeezenet1_0@224", "gives no single feature vector"),
        ("torchvision:vit_b_16@100", "vit_b_16 cannot work on 100×100 pixels"),
        ("torchvision:mvit_v2_s@112", "works on 224×224 pixels alone"),
        ("torchvision:a/b@64", "unknown stream"),
    ],
)
def test_networks_that_cannot_be_had(stream: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(stream)
    assert "\n" not in str(caught.value)


def test_its_classifier_can_be_trained_anew() -> None:
    request = parse_stream("torchvision:r3d_18@32")
    start = build_trainee(request, "random:0", ("a", "b", "c"), seed=0)
    assert start.new_head and start.trainee.head == {"fc.weight", "fc.bias"}
    pixels = torch.zeros(2, *start.trainee.view.row_shape, dtype=torch.uint8)
    assert start.trainee(pixels).shape == (2, 3)
