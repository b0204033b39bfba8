"""3-D backbones: clips to the networks of x3d.py, slowfast.py and i3d.py, with the weights that were released."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cache_schema import Preprocessing
from extract.backbones import StreamRequest
from extract.backbones.downloads import fetching, otherwise_a_file, require_connection
from extract.backbones.i3d import I3D, I3D_FLOW_URL, I3D_RGB_URL
from extract.backbones.network import Network, count
from extract.backbones.raft import RaftFlow, create_raft
from extract.backbones.slowfast import SLOWFAST_8X8_R50, SlowFast
from extract.backbones.weights import classes_of, load_into, random_seed, read_weights
from extract.backbones.x3d import X3D, X3D_VARIANTS

_Triple = tuple[float, float, float]


@dataclass(frozen=True)
class _Family:
    """How a network is made, for a number of classes, and read.

    classifier: the parameter whose first axis is as long as there are classes.
    url, tag: the checkpoint that its authors released, trained on Kinetics-400, and what to call it.
    """

    make: Callable[[int], nn.Module]
    classifier: str
    url: str
    tag: str
    mean: _Triple
    std: _Triple
    channels: int = 3


def _families() -> Mapping[str, _Family]:
    # Means and deviations: configs/Kinetics/*.yaml of SlowFast, and its defaults, 0.45 and 0.225 each; I3D takes
    # [-1, 1] (https://github.com/deepmind/kinetics-i3d).
    ours: dict[str, _Family] = {}
    for variant, constants in X3D_VARIANTS.items():
        ours[f"x3d_{variant}"] = _Family(
            lambda classes, variant=variant: X3D(variant, classes),  # type: ignore[misc]
            "blocks.5.proj.weight",
            constants.url,
            "pytorchvideo_k400",
            (0.45, 0.45, 0.45),
            (0.225, 0.225, 0.225),
        )
    ours["slowfast_8x8"] = _Family(
        SlowFast,
        "blocks.6.proj.weight",
        SLOWFAST_8X8_R50.url,
        "pytorchvideo_k400",
        (0.45, 0.45, 0.45),
        (0.225, 0.225, 0.225),
    )
    for kind, channels, url in (("rgb", 3, I3D_RGB_URL), ("flow", 2, I3D_FLOW_URL)):
        ours[f"i3d_{kind}"] = _Family(
            lambda classes, channels=channels: I3D(channels, classes),  # type: ignore[misc]
            "logits.conv3d.weight",
            url,
            "pytorch_i3d_k400",
            (0.5, 0.5, 0.5),
            (0.5, 0.5, 0.5),
            channels,
        )
    return ours


FAMILIES = _families()
_CLASSES = 400


def build(request: StreamRequest, weights: str) -> Network:
    """The network with its weights. Raises UserError: weights that cannot be had, or do not fit."""
    family = FAMILIES[request.network]
    classes = None
    if weights.partition(":")[0] == "random":
        with random_seed(weights):
            model, chosen = family.make(_CLASSES), weights
    else:
        if weights == "pretrained":
            path, chosen = _released(request.network, family), f"pretrained:{family.tag}"
        else:
            # Not the file's name: the digest tells weights apart, and the same ones may be renamed.
            path, chosen = Path(weights), "file"
        state, classes = read_weights(path)
        model = family.make(classes_of(state, family.classifier, path) or _CLASSES)
        load_into(model, state, path)
    flow, flow_model, parameters = request.flow, None, model
    if flow is not None and flow.startswith("raft"):
        # RAFT's own weights: random only where everything is.
        raft, raft_weights = create_raft(flow, weights if chosen == weights else "pretrained")
        flow, flow_model = f"{flow} {raft_weights}", RaftFlow(raft)
        parameters = nn.ModuleDict({"i3d": model, "raft": raft})
    described: Any = model
    return Network(
        model=model,
        parameters=parameters,
        weights=chosen,
        preprocessing=Preprocessing(
            resize=request.resize or request.size,
            crop=request.size,
            interpolation="bilinear",
            mean=family.mean,
            std=family.std,
            flow=flow,
        ),
        feature_dim=described.feature_dim,
        num_classes=described.num_classes,
        classes=classes,
        flow=flow_model,
    )


def count_macs(request: StreamRequest) -> int:
    """Multiply-accumulates for one clip up to the features, counted on a network without memory."""
    family = FAMILIES[request.network]
    with torch.device("meta"):
        model: Any = family.make(_CLASSES).eval()
        clip = torch.empty(1, family.channels, request.sampling.frames, request.size, request.size)
    return count(model.forward_features, clip)


def _released(network: str, family: _Family) -> Path:
    """The released checkpoint, from torch's folder of downloads or, once, from its authors' address."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / f"{network}-{Path(family.url).name}"
    if path.exists():
        return path
    with fetching(f"the pretrained weights of {network}", otherwise_a_file(family.url)):
        require_connection(family.url)
        folder.mkdir(parents=True, exist_ok=True)
        # Downloads to a temporary name of its own, and renames: a killed download leaves no half file.
        torch.hub.download_url_to_file(family.url, os.fspath(path), progress=False)
    return path
