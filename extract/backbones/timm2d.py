"""2-D backbones from timm: frames in, penultimate features and class scores out."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cache_schema import Preprocessing, Sampling, StreamSpec, UserError
from extract.backbones import StreamRequest
from extract.backbones.weights import first_line, load_into, read_weights, weights_digest

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Backbone:
    """A network on a device, ready to turn batches of pixels into rows of a stream.

    Args:
        request: which network, at which resolution.
        weights: "pretrained", "random:SEED", or the path of a file.
        precision: "fp32" or "bf16", the type that the network computes in.

    Raises:
        UserError: no such network or weights, or weights that do not fit.
    """

    def __init__(
        self, request: StreamRequest, *, weights: str, device: torch.device, precision: str = "fp32"
    ) -> None:
        model, chosen, classes = _create(request, weights)
        model.eval().requires_grad_(False)
        self.device = device
        self.dtype = PRECISIONS[precision]
        preprocessing = _preprocessing(model, request.size)
        feature_dim, num_classes = _output_sizes(model, request)
        if classes is not None and len(classes) != num_classes:
            raise UserError(f"{weights}: names {len(classes)} classes, but its classifier has {num_classes}")
        if classes is not None and len(set(classes)) != len(classes):
            raise UserError(f"{weights}: a class name occurs twice in its metadata")
        self.spec = StreamSpec(
            name=request.name,
            backbone=f"timm:{request.timm_name}",
            weights=chosen,
            weights_digest=weights_digest(model),
            preprocessing=preprocessing,
            feature_dim=feature_dim,
            num_classes=num_classes,
            macs_per_row=count_macs(request),
            sampling=Sampling(kind="frames", fps=request.fps),
            classes=classes,
        )
        self.model = model.to(device=device, dtype=self.dtype, memory_format=torch.channels_last)
        self._mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute the rows of a batch.

        Args:
            pixels: (B, crop, crop, 3) uint8 RGB, on any device.

        Returns:
            Features (B, D) float32 and scores (B, C) float32 or None, on the backbone's device.
        """
        # NHWC seen as NCHW is channels-last already: no copy.
        x = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        x = ((x / 255 - self._mean) / self._std).to(self.dtype)
        maps = self.model.forward_features(x)
        features = self.model.forward_head(maps, pre_logits=True)
        # Scores by the head itself: what lies between features and logits is the network's own business.
        scores = self.model.forward_head(maps).float() if self.spec.num_classes else None
        return features.float(), scores


def count_macs(request: StreamRequest) -> int:
    """Multiply-accumulates for one frame up to the features, counted on a network without memory."""
    with torch.device("meta"):
        model = _new_model(request, num_classes=0).eval()
        frame = torch.empty(1, 3, request.size, request.size)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(frame)
    # The counter counts a multiplication and an addition as two.
    return int(counter.get_total_flops()) // 2


def _create(request: StreamRequest, weights: str) -> tuple[Any, str, tuple[str, ...] | None]:
    """The network with its weights, what to call them, and the names of its classes where known."""
    if not timm.is_model(request.timm_name):
        close = timm.list_models(f"*{request.timm_name.split('_')[0]}*")[:3]
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise UserError(f"timm {timm.__version__} has no network {request.timm_name!r}{hint}")
    kind, _, argument = weights.partition(":")
    if weights == "pretrained":
        return *_pretrained(request), None
    if kind == "random":
        if not re.fullmatch(r"[0-9]{1,18}", argument):  # what torch takes
            raise UserError(f"--weights {weights}: say which seed, as in random:0")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(argument))
            return _new_model(request), weights, None
    path = Path(weights)
    state, classes = read_weights(path)
    model = _new_model(request)
    head = model.pretrained_cfg.get("classifier")
    if isinstance(head, str):
        weight = state.get(f"{head}.weight")
        model.reset_classifier(0 if weight is None else weight.shape[0])
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
            f"the pretrained weights of {request.timm_name} cannot be had ({first_line(error)}); connect to "
            "the network once, or give a file with --weights FILE, or ask for --weights random:SEED"
        ) from error
    return model, f"pretrained:{model.pretrained_cfg.get('tag') or 'default'}"


def _new_model(request: StreamRequest, **options: Any) -> Any:
    # Networks made for one resolution (transformers) must be told another; convolutional ones take any.
    config = timm.get_pretrained_cfg(request.timm_name)
    if config is not None and config.fixed_input_size:
        options["img_size"] = request.size
    try:
        return timm.create_model(request.timm_name, **options)
    except AssertionError as error:  # transformers whose patches do not fill the picture
        raise _unusable(request, error) from error


def _unusable(request: StreamRequest, error: Exception) -> UserError:
    return UserError(
        f"{request.timm_name} cannot work on {request.size}×{request.size} pixels ({first_line(error)})"
    )


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
        raise UserError(f"{request.timm_name} gives no single feature vector for a frame")
    return features.shape[1], int(model.num_classes)
