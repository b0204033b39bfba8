"""Any backbone of the registry on a device: pixels in, the rows of a stream out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cache_schema import StreamSpec, UserError
from cache_schema.command import count
from extract.backbones import StreamRequest, family_of
from extract.backbones.folding import fold_batch_norms
from extract.backbones.network import Network, told_apart
from extract.backbones.pointwise import convolve_by_onednn
from extract.backbones.weights import weights_digest
from extract.flow import BOUND_PX, clip_flow
from extract.views import View

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Backbone:
    """A network on a device, ready to turn batches of pixels into rows of a stream.

    Args:
        request: which network, at which resolution, on what part of a video.
        weights: "pretrained", "random:SEED", or the path of a file.
        precision: "fp32" or "bf16", the type that the network computes in.

    Attributes:
        parameters: the part whose parameters are the weights, on the device; on a CPU with BatchNorm folded into
            them, which `spec` counts and tells apart as they were.

    Raises:
        UserError: no such network or weights, or weights that do not fit.
    """

    def __init__(
        self, request: StreamRequest, *, weights: str, device: torch.device, precision: str = "fp32"
    ) -> None:
        network = build_network(request, weights)
        preprocessing = network.preprocessing
        self.spec = stream_of(request, network, precision=precision)
        self.device = device
        self.dtype = PRECISIONS[precision]
        self.view = View(request.sampling, preprocessing)
        frames = request.sampling.kind == "frames"
        layout = torch.channels_last if frames else torch.channels_last_3d
        model = network.model.eval().requires_grad_(False)
        if device.type == "cpu":  # python -m benchmarks.cpu_forward: neither step loses anything
            clip = () if frames else (request.sampling.frames,)
            channels = 3 if preprocessing.flow is None else 2
            fold_batch_norms(model, (1, channels, *clip, preprocessing.crop, preprocessing.crop))
            if precision == "fp32":  # in bf16 torch has oneDNN do it itself
                convolve_by_onednn(model)
        self._model = model.to(device, self.dtype)
        if frames or all(parameter.ndim != 4 for parameter in model.parameters()):
            self._model.to(memory_format=layout)  # not of networks that see clips frame by frame
        self._flow = None if network.flow is None else network.flow.to(device)
        self.parameters = network.parameters
        if self.view.flow_here:  # now, not in the decoders: is what it needs installed?
            clip_flow(np.zeros((2, 16, 16, 3), np.uint8), str(preprocessing.flow))
        # Of every value in a line of a picture: three alone are too short a stretch for vector instructions.
        self._mean = torch.tensor(preprocessing.mean, device=device).repeat(preprocessing.crop)
        self._std = torch.tensor(preprocessing.std, device=device).repeat(preprocessing.crop)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute the rows of a batch.

        Args:
            pixels: (B, *view.row_shape), on any device.

        Returns:
            Features (B, D) float32 and scores (B, C) float32 or None, on the backbone's device.
        """
        x = self._normalised(pixels.to(self.device, non_blocking=True)).to(self.dtype)
        # Channels come last: seen as the networks want it, that is their memory format already, without a copy.
        features, scores = self._model(x.movedim(-1, 1))
        return features.float(), None if scores is None else scores.float()

    def _normalised(self, pixels: Tensor) -> Tensor:
        if self.spec.preprocessing.flow is None:
            lines = (pixels.float() / 255).flatten(-2)
            return lines.sub_(self._mean).div_(self._std).view(pixels.shape)
        if self._flow is None:
            return pixels.float().clamp(-BOUND_PX, BOUND_PX) / BOUND_PX
        flow: Tensor = self._flow(pixels.movedim(-1, 2).float())  # (B, T, 2, R, R)
        crop = self.spec.preprocessing.crop
        start = round((flow.shape[-1] - crop) / 2)
        flow = flow[..., start : start + crop, start : start + crop]
        return flow.movedim(2, -1).clamp(-BOUND_PX, BOUND_PX) / BOUND_PX


def stream_of(request: StreamRequest, network: Network, *, precision: str) -> StreamSpec:
    """The stream that a network gives."""
    return StreamSpec(
        name=request.name,
        backbone=request.network,
        weights=network.weights,
        weights_digest=weights_digest(network.parameters),
        preprocessing=network.preprocessing,
        feature_dim=network.feature_dim,
        num_classes=network.num_classes,
        macs_per_row=count_macs(request),
        sampling=request.sampling,
        classes=network.classes,
        precision=precision,
    )


def build_network(request: StreamRequest, weights: str) -> Network:
    """The network that a request asks for, on the CPU. Raises UserError as Backbone does."""
    network: Network = family_of(request.network).build(request, weights)
    classes = network.classes
    if classes is not None and len(classes) != network.num_classes:
        raise UserError(
            f"{weights}: names {count(len(classes), 'classes')}, but its classifier has {network.num_classes}"
        )
    classes = classes and told_apart(classes)
    if classes is not None and len(set(classes)) != len(classes):
        raise UserError(f"{weights}: a class name occurs twice in its metadata, and again with its column")
    return replace(network, classes=classes)


def count_macs(request: StreamRequest) -> int:
    """Multiply-accumulates for one row up to the features, counted on a network without memory.

    Flow estimation is not in it, as in the papers.
    """
    macs: int = family_of(request.network).count_macs(request)
    return macs
