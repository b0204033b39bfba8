"""The state of an unfinished training run as one safetensors file: nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cache_schema import UserError
from cache_schema.run_folder import write_atomically

_JSON = "state"  # key of the file's metadata; holds all that is not a tensor


def write_weights(path: Path, model: nn.Module) -> None:
    """Write a model's parameters and buffers."""
    write_tensors(path, model.state_dict())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors by name. Raises UserError where the file cannot be written."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(plain, metadata=metadata))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Load what `write_tensors` wrote. Raises UserError where the file is missing or damaged."""
    return _read(path)[0]


def read_weights(path: Path, model: nn.Module) -> None:
    """Load what `write_weights` wrote.

    Raises:
        UserError: the file is missing, damaged, or of another model.
    """
    tensors = read_tensors(path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path}: weights of another model: {error}") from error


def write_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    state: Mapping[str, Any],
    order: Tensor | None = None,
    best: Mapping[str, Tensor] | None = None,
) -> None:
    """Write all that training needs to continue as if it had not been stopped.

    Args:
        state: for JSON.
        order: (n,) of the videos, in the middle of an epoch.
        best: the weights that are best so far, by name, where videos are held out to tell.
    """
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in moments.items()}
    tensors |= {f"best/{name}": value for name, value in (best or {}).items()}
    tensors["generator"] = generator.get_state()
    if order is not None:
        tensors["order"] = order
    write_tensors(path, tensors, {_JSON: json.dumps(dict(state))})


def read_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> tuple[dict[str, Any], Tensor | None, dict[str, Tensor]]:
    """Load what `write_checkpoint` wrote, and return its `state`, `order` and `best`, on the model's device.

    Raises:
        UserError: the file is damaged or of another model.
    """
    tensors, metadata = _read(path)
    moments: dict[int, dict[str, Tensor]] = {}
    weights: dict[str, Tensor] = {}
    best: dict[str, Tensor] = {}
    device = next(model.parameters()).device
    try:
        for name, value in tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "model":
                weights[rest] = value
            elif kind == "best":
                best[rest] = value.to(device)
            elif kind == "optimizer":
                index, _, moment = rest.partition("/")
                moments.setdefault(int(index), {})[moment] = value
        model.load_state_dict(weights)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        generator.set_state(tensors["generator"])
        state: dict[str, Any] = json.loads(metadata[_JSON])
    except (RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"{path}: a checkpoint of another program; delete it to start again") from error
    return state, tensors.get("order"), best


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
