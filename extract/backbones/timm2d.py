"""2-D backbones from timm."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from cache_schema import Preprocessing, UserError
from extract.backbones import StreamRequest
from extract.backbones.network import Network, count
from extract.backbones.weights import classes_of, first_line, load_into, random_seed, read_weights


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
    model, chosen, classes = _create(request, weights)
    model.eval()
    feature_dim, num_classes = _output_sizes(model, request)
    return Network(
        model=_FeaturesAndScores(model, num_classes),
        parameters=model,
        weights=chosen,
        preprocessing=_preprocessing(model, request.size),
        feature_dim=feature_dim,
        num_classes=num_classes,
        classes=classes,
    )


def count_macs(request: StreamRequest) -> int:
    """Multiply-accumulates for one frame up to the features, counted on a network without memory."""
    with torch.device("meta"):
        model = _new_model(request, num_classes=0).eval()
        frame = torch.empty(1, 3, request.size, request.size)
    return count(model, frame)


def _create(request: StreamRequest, weights: str) -> tuple[Any, str, tuple[str, ...] | None]:
    """The network with its weights, what to call them, and the names of its classes where known."""
    name = _timm_name(request)
    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('_')[0]}*")[:3]
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise UserError(f"timm {timm.__version__} has no network {name!r}{hint}")
    if weights == "pretrained":
        return *_pretrained(request), None
    if weights.partition(":")[0] == "random":
        with random_seed(weights):
            return _new_model(request), weights, None
    path = Path(weights)
    state, classes = read_weights(path)
    model = _new_model(request)
    head = model.pretrained_cfg.get("classifier")
    if isinstance(head, str):
        model.reset_classifier(classes_of(state, f"{head}.weight", path) or 0)
    load_into(model, state, path)
    # Not the file's name: the digest tells weights apart, and the same ones may be called otherwise tomorrow.
    return model, "file", classes


def _pretrained(request: StreamRequest) -> tuple[Any, str]:
    # Without a network the hub's client tells of every retry; one line at the end is enough.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    try:
        model = _new_model(request, pretrained=True)
    except Exception as error:  # the hub's client raises many kinds; each means that there are no weights
        raise UserError(
            f"the pretrained weights of {_timm_name(request)} cannot be had ({first_line(error)}); connect to "
            "the network once, or give a file with --weights FILE, or ask for --weights random:SEED"
        ) from error
    return model, f"pretrained:{model.pretrained_cfg.get('tag') or 'default'}"


def _new_model(request: StreamRequest, **options: Any) -> Any:
    # Networks made for one resolution (transformers) must be told another; convolutional ones take any.
    config = timm.get_pretrained_cfg(_timm_name(request))
    if config is not None and config.fixed_input_size:
        options["img_size"] = request.size
    try:
        return timm.create_model(_timm_name(request), **options)
    except AssertionError as error:  # transformers whose patches do not fill the picture
        raise _unusable(request, error) from error


def _unusable(request: StreamRequest, error: Exception) -> UserError:
    return UserError(
        f"{_timm_name(request)} cannot work on {request.size}×{request.size} pixels ({first_line(error)})"
    )


def _timm_name(request: StreamRequest) -> str:
    return request.network.removeprefix("timm:")


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
