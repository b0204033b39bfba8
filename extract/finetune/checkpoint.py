"""Files of a run folder, each replaced as a whole; an unfinished run is kept as safetensors, never pickled."""

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

_JSON = "state"  # key of the file's metadata that holds all that is not a tensor


def write_weights(path: Path, model: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write a model's parameters and buffers. Raises UserError where it cannot be written."""
    _write_tensors(path, model.state_dict(), metadata)


def write_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Write all that training needs to go on as if it had not been stopped; `state` is JSON.

    Raises:
        UserError: it cannot be written.
    """
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer/{index}/{name}": value
            for name, value in moments.items()
            if value is not None  # what SGD says of a parameter that had no gradient
        }
    _write_tensors(path, tensors, {_JSON: json.dumps(dict(state))})


def read_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load what `write_checkpoint` wrote, and return its `state`.

    Raises:
        UserError: the file is damaged or of another model.
    """
    moments: dict[int, dict[str, Tensor]] = {}
    weights: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read; delete the run folder to start again ({error})") from error
    try:
        for name, value in tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "model":
                weights[rest] = value
            elif kind == "optimizer":
                index, _, moment = rest.partition("/")
                moments.setdefault(int(index), {})[moment] = value
        model.load_state_dict(weights)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        state: dict[str, Any] = json.loads(metadata[_JSON])
    except (RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"{path}: a checkpoint of another program; delete it to start again") from error
    return state


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    # Copies: two names of one tensor cannot be written, and other memory formats would not be.
    copies = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    # Not by save_file, whose file nobody else may read, whatever the umask.
    write_atomically(path, save(copies, metadata=dict(metadata)))
