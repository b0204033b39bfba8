"""Networks of torchvision, of frames and of clips, with the weights that it releases."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from cache_schema import Preprocessing, UserError
from cache_schema.names import did_you_mean
from extract.backbones import StreamRequest
from extract.backbones.downloads import fetching, otherwise_a_file, require_torch_download
from extract.backbones.network import Network, count
from extract.backbones.weights import classes_of, first_line, load_into, random_seed, read_weights

# Networks made for one size of picture, and the option that says which, or the only one.
_SIZED = {"vit_": "image_size", "maxvit_": "input_size"}
_MVIT_SIZE = 224


class _FeaturesAndScores(nn.Module):
    """Everything before a network's classifier, and the classifier: x to features (B, D) and scores (B, C)."""

    def __init__(self, body: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.body, self.classifier = body, classifier

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features: Tensor = self.body(x)
        if isinstance(self.classifier, nn.Conv3d):  # S3D's, of one position as good as linear
            return features, self.classifier(features[..., None, None, None]).flatten(1)
        return features, self.classifier(features)


def build(request: StreamRequest, weights: str) -> Network:
    """The network with its weights. Raises UserError: no such network or weights, or weights that do not fit."""
    released = _released(request)
    classifier = _classifier(_without_memory(request), request)
    classes = None
    if weights == "pretrained":
        model, chosen = _pretrained(request, released), f"pretrained:{released.name}"
        classes = tuple(released.meta["categories"])
    elif weights.partition(":")[0] == "random":
        with random_seed(weights):
            model, chosen = _new_model(request), weights
    else:
        path, chosen = Path(weights), "file"
        state, classes = read_weights(path)
        count_classes = classes_of(state, f"{classifier}.weight", path)
        model = _new_model(request, **({"num_classes": count_classes} if count_classes else {}))
        load_into(model, state, path)
    model.eval()
    head: Any = model.get_submodule(classifier)
    feature_dim, num_classes = (
        (head.in_channels, head.out_channels)
        if isinstance(head, nn.Conv3d)
        else (head.in_features, head.out_features)
    )
    return Network(
        model=_FeaturesAndScores(_body(model, classifier), head),
        parameters=model,
        weights=chosen,
        preprocessing=_preprocessing(request, released),
        feature_dim=feature_dim,
        num_classes=num_classes,
        classes=classes,
        classifier=classifier,
    )


def count_macs(request: StreamRequest) -> int:
    """Multiply-accumulates for one row up to the features, counted on a network without memory."""
    model = _without_memory(request)
    clip = () if request.sampling.kind == "frames" else (request.sampling.frames,)
    x = torch.empty(1, 3, *clip, request.size, request.size, device="meta")
    try:
        return count(_body(model, _classifier(model, request)).eval(), x)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _unusable(request, error) from error


def _name(request: StreamRequest) -> str:
    return request.network.removeprefix("torchvision:")


def _released(request: StreamRequest) -> Any:
    """The weights that torchvision takes by default, and what it knows of them."""
    name = _name(request)
    kinds = models if request.sampling.kind == "frames" else models.video
    known = models.list_models(module=kinds)
    if name not in known:
        close = did_you_mean(name, known)
        raise UserError(f"torchvision has no network {name!r} of {request.sampling.kind}{close}")
    weights: Any = models.get_model_weights(name)
    return weights.DEFAULT


def _pretrained(request: StreamRequest, released: Any) -> nn.Module:
    with fetching(f"the pretrained weights of {_name(request)}", otherwise_a_file(released.url)):
        require_torch_download(released.url)
        return _new_model(request, weights=released)


def _new_model(request: StreamRequest, **options: Any) -> nn.Module:
    name, size = _name(request), request.size
    if name.startswith("mvit_") and size != _MVIT_SIZE:
        raise UserError(f"{name} works on {_MVIT_SIZE}×{_MVIT_SIZE} pixels alone, not {size}×{size}")
    for prefix, option in _SIZED.items():
        if name.startswith(prefix):
            options[option] = size if option == "image_size" else (size, size)
    try:
        model: nn.Module = models.get_model(name, **options)
    except (
        ValueError,
        AssertionError,
    ) as error:  # weights for another size, patches that do not fill the picture
        raise _unusable(request, error) from error
    return model


def _without_memory(request: StreamRequest) -> nn.Module:
    with torch.device("meta"):
        return _new_model(request)


def _unusable(request: StreamRequest, error: Exception) -> UserError:
    return UserError(
        f"{_name(request)} cannot work on {request.size}×{request.size} pixels ({first_line(error)})"
    )


def _classifier(model: nn.Module, request: StreamRequest) -> str:
    """The name of the last layer, which tells classes apart."""
    name = [parameter for parameter, _ in model.named_parameters()][-1].rpartition(".")[0]
    last = type(model.get_submodule(name))
    if last not in (nn.Linear, nn.Conv3d):
        raise UserError(f"{_name(request)} gives no single feature vector: its last layer is {last.__name__}")
    return name


def _body(model: nn.Module, classifier: str) -> nn.Module:
    """The network without its classifier: other modules, the same parameters."""
    tensors = (*model.parameters(), *model.buffers())
    body = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    body.set_submodule(classifier, nn.Identity())
    return body


def _preprocessing(request: StreamRequest, released: Any) -> Preprocessing:
    # The short side is resized, also where the release resizes both and changes the picture's proportions.
    seen = released.transforms()
    resize = request.resize or int(request.size * seen.resize_size[0] / seen.crop_size[0])
    return Preprocessing(
        resize=resize,
        crop=request.size,
        interpolation=seen.interpolation.value,
        mean=tuple(seen.mean),
        std=tuple(seen.std),
    )
