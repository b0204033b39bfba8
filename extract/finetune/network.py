"""A backbone with a classifier of the collection's classes, ready to be trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cache_schema import UserError
from extract.backbones import FAMILIES, StreamRequest
from extract.backbones.backbone import build_network
from extract.backbones.network import Network
from extract.backbones.weights import weights_digest
from extract.flow import BOUND_PX
from extract.views import View


class Trainee(nn.Module):
    """Pixels of a stream to logits.

    Attributes:
        parameters_of: the part whose parameters are the weights, by the names they have in files.
        head: names of the classifier's parameters.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, parameters_of: nn.Module, head: frozenset[str], view: View) -> None:
        super().__init__()
        self.model, self.parameters_of, self.head, self.view = model, parameters_of, head, view
        shape = (3, *(1,) * (len(view.row_shape) - 1))
        preprocessing = view.preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(shape), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, *view.row_shape), uint8 or flow in pixels as float16, to logits (B, C)."""
        # Channels come last: seen as the networks want it, that is their memory format already, without a copy.
        x = pixels.movedim(-1, 1).float()
        if self.view.preprocessing.flow is None:
            x = (x / 255 - self.mean) / self.std
        else:
            x = x.clamp(-BOUND_PX, BOUND_PX) / BOUND_PX
        out = self.model(x)
        logits: Tensor = out[1] if isinstance(out, tuple) else out
        return logits

    def train_as(self, *, head_only: bool, norms_frozen: bool) -> None:
        """Training mode, but of what stays as it is."""
        self.train()
        for name, module in self.parameters_of.named_modules():
            in_head = any(parameter.startswith(f"{name}.") for parameter in self.head)
            if (head_only and not in_head) or (norms_frozen and isinstance(module, _BatchNorm)):
                module.training = False
        for name, parameter in self.parameters_of.named_parameters():
            parameter.requires_grad_(name in self.head or not head_only)


@dataclass(frozen=True)
class Start:
    """What training starts from.

    Attributes:
        weights: "pretrained:TAG", "random:SEED" or "file".
        digest: SHA-256 of the parameters before the classifier was replaced.
        new_head: whether it was.
    """

    trainee: Trainee
    weights: str
    digest: str
    new_head: bool


def build(request: StreamRequest, weights: str, classes: tuple[str, ...], *, seed: int) -> Start:
    """The network of a stream, its classifier replaced unless the weights already have one for these classes.

    Args:
        seed: of the new classifier.

    Raises:
        UserError: no such network or weights, weights that do not fit, or a network that cannot be trained here.
    """
    if request.flow is not None and request.flow.startswith("raft"):
        raise UserError(
            f"{request.name}: is trained on flow computed while decoding: use --flow tvl1 or --flow dis; "
            "its weights then serve every stream of the network"
        )
    network = build_network(request, weights)
    digest = weights_digest(network.parameters)
    view = View(request.sampling, network.preprocessing)
    if network.classes is not None:
        keep = network.classes == classes
    else:  # a file that names no classes, but has as many: the user's own
        keep = network.weights == "file" and network.num_classes == len(classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make = _video3d if FAMILIES[request.network.partition(":")[0]] == "video3d" else _replaceable
        trainee = make(network, request, view, None if keep else len(classes))
    return Start(trainee, network.weights, digest, not keep)


def _replaceable(network: Network, request: StreamRequest, view: View, classes: int | None) -> Trainee:
    model: Any = network.parameters
    name = network.classifier
    if name is None:
        raise UserError(
            f"{request.network.rpartition(':')[2]} has no single classifier that could be trained"
        )
    if classes is not None and hasattr(model, "reset_classifier"):  # timm's
        model.reset_classifier(classes)
    elif classes is not None:
        before = model.get_submodule(name)
        if not isinstance(before, nn.Linear):
            raise UserError(
                f"{request.network}: its classifier, {type(before).__name__}, cannot be trained anew"
            )
        model.set_submodule(name, nn.Linear(before.in_features, classes))
    return Trainee(model, model, _below(model, name), view)


def _video3d(network: Network, request: StreamRequest, view: View, classes: int | None) -> Trainee:
    from extract.backbones import video3d

    model, family = network.parameters, video3d.FAMILIES[request.network]
    head = _below(model, family.classifier.rpartition(".")[0])
    if classes is not None:
        before, model = model.state_dict(), family.make(classes)
        kept = {
            name: before.get(name, value) for name, value in model.state_dict().items() if name not in head
        }
        model.load_state_dict(kept, strict=False)
    return Trainee(model, model, head, view)


def _below(model: nn.Module, module: str) -> frozenset[str]:
    return frozenset(name for name, _ in model.named_parameters() if name.startswith(f"{module}."))


def weights_are_random(weights: str) -> bool:
    """Whether nothing has been learnt yet: BatchNorm's statistics are those of no data."""
    return weights.partition(":")[0] == "random"
