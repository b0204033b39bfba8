"""2-D backbones from timm."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from cache_schema import Preprocessing, UserError
from extract.backbones import StreamRequest
from extract.backbones.downloads import fetching, quick_hub
from extract.backbones.network import Network, count
from extract.backbones.weights import classes_of, first_line, load_into, random_seed, read_weights

_HUB = "hf-hub:"


class _FeaturesAndScores(nn.Module):
    """A network of timm's: frames (B, 3, S, S) to features (B, D) and scores (B, C), None without a classifier."""

    def __init__(self, model: Any, num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        maps = self.model.forward_features(x)
        features = self.model.forward_head(maps, pre_logits=True)
        # Scores by the head itself: what lies between features and logits is the network's own business.
        return features, self.model.forward_head(maps) if self.num_classes else None


def build(request: StreamRequest, weights: str) -> Network:
    """The network with its weights. Raises UserError: no such network or weights, or weights that do not fit."""
    return network_of(request, *_create(request, weights))


def network_of(request: StreamRequest, model: Any, weights: str, classes: tuple[str, ...] | None) -> Network:
    """What must be known of timm's network with its weights. Raises UserError: it cannot take such an input."""
    model.eval()
    feature_dim, num_classes = _output_sizes(model, request)
    return Network(
        model=_FeaturesAndScores(model, num_classes),
        parameters=model,
        weights=weights,
        preprocessing=_preprocessing(model, request.size),
        feature_dim=feature_dim,
        num_classes=num_classes,
        classes=classes,
        classifier=_classifier(model),
    )


def count_macs(request: StreamRequest) -> int:
    """Multiply-accumulates for one frame up to the features, counted on a network without memory."""
    with torch.device("meta"):
        model = new_model(request, num_classes=0).eval()
        frame = torch.empty(1, 3, request.size, request.size)
    return count(model, frame)


def _create(request: StreamRequest, weights: str) -> tuple[Any, str, tuple[str, ...] | None]:
    """The network with its weights, what to call them, and the names of its classes where known."""
    if weights == "pretrained":
        return *_pretrained(request), None
    if weights.partition(":")[0] == "random":
        with random_seed(weights):
            return new_model(request), weights, None
    path = Path(weights)
    state, classes = read_weights(path)
    model = new_model(request)
    if head := _classifier(model):
        model.reset_classifier(classes_of(state, f"{head}.weight", path) or 0)
    load_into(model, state, path)
    # Not the file's name: the digest tells weights apart, and the same ones may be called otherwise tomorrow.
    return model, "file", classes


def _pretrained(request: StreamRequest) -> tuple[Any, str]:
    otherwise = ", or give a file with --weights FILE, or ask for --weights random:SEED"
    with fetching(f"the pretrained weights of {_timm_name(request)}", otherwise), quick_hub():
        model = new_model(request, pretrained=True)
    name = _timm_name(request)
    return (
        model,
        f"pretrained:{name if name.startswith(_HUB) else model.pretrained_cfg.get('tag') or 'default'}",
    )


def new_model(request: StreamRequest, **options: Any) -> Any:
    """timm's network for such an input. Raises UserError: there is none of that name, or it cannot take one."""
    name = _timm_name(request)
    if name.startswith(_HUB):
        config, name, of_repository = _hub_config(name.removeprefix(_HUB))
        options = {**of_repository, "pretrained_cfg": config, **options}
        fixed_size = config.get("fixed_input_size", False)
    elif timm.is_model(name):
        known = timm.get_pretrained_cfg(name)
        fixed_size = known is not None and known.fixed_input_size
    else:
        close = timm.list_models(f"*{name.split('_')[0]}*")[:3]
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise UserError(f"timm {timm.__version__} has no network {name!r}{hint}")
    if (
        fixed_size
    ):  # made for one resolution (transformers), and must be told another; convolutional ones take any
        options["img_size"] = request.size
    try:
        return timm.create_model(name, **options)
    except AssertionError as error:  # transformers whose patches do not fill the picture
        raise _unusable(request, error) from error


@cache
def _hub_config(repository: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """What a repository of the hub says of its weights, the name of the network, and how it is made."""
    otherwise = "; it must be a repository with the config.json of a network of timm"
    with fetching(f"{_HUB}{repository}", otherwise), quick_hub():
        config, name, more = timm.models.load_model_config_from_hf(repository)
    return config, name, more or {}


def _unusable(request: StreamRequest, error: Exception) -> UserError:
    return UserError(
        f"{_timm_name(request)} cannot work on {request.size}×{request.size} pixels ({first_line(error)})"
    )


def _timm_name(request: StreamRequest) -> str:
    return request.network.removeprefix("timm:")


def _classifier(model: Any) -> str | None:
    name = model.pretrained_cfg.get("classifier")
    return name if isinstance(name, str) else None


def _preprocessing(model: Any, size: int) -> Preprocessing:
    config = model.pretrained_cfg
    return Preprocessing(
        resize=int(size / config["crop_pct"]),  # rounds down, as timm's own transform does
        crop=size,
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _output_sizes(model: Any, request: StreamRequest) -> tuple[int, int]:
    """(D, C), by looking at what comes out: timm's attributes do not agree for every network."""
    frame = torch.zeros(1, 3, request.size, request.size)
    try:
        with torch.inference_mode():
            maps = model.forward_features(frame)
            features = model.forward_head(maps, pre_logits=True)
    except (RuntimeError, AssertionError) as error:
        raise _unusable(request, error) from error
    if features.ndim != 2:
        raise UserError(f"{_timm_name(request)} gives no single feature vector for a frame")
    return features.shape[1], int(model.num_classes)
