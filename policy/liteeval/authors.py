"""Import and export of weights in the layout of the code that LiteEval's authors released (2022, for FCVID).

    model = load_released(Path("checkpoint.pth"))
    safetensors.torch.save_file(to_released(model), "checkpoint.safetensors")

Their layout, with D the features, P the projected ones, H the units, c for coarse and f for fine:

    proj_mlp.{0,1,2}         BatchNorm D_f, Linear D_f → P_f, BatchNorm P_f
    small_proj_mlp.{0,1,2}   the same of the coarse features
    large_rnn                LSTMCell on [fine P_f, coarse P_c], H_f units
    small_rnn                LSTMCell on coarse P_c, H_c units
    linear                   [coarse P_c, h^f, c^f] → 2, index 0 = use the fine features
    classifier               H_f → C

Ours differs in two orders: the fine network reads [coarse, fine], and index 1 of the gate opens it. The released
code divides each frame's features by their L2 norm first; here that is done to the data (`input_norm="l2"`).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cache_schema import UserError
from policy.liteeval.gate import OPEN
from policy.liteeval.model import LiteEval
from policy.networks.cells import LSTM

_MODULES = {
    "small_proj_mlp.0": "coarse_projection.norm",
    "small_proj_mlp.1": "coarse_projection.linear",
    "small_proj_mlp.2": "coarse_projection.output_norm",
    "proj_mlp.0": "fine_projection.norm",
    "proj_mlp.1": "fine_projection.linear",
    "proj_mlp.2": "fine_projection.output_norm",
    "small_rnn": "coarse_cell",
    "large_rnn": "fine_cell",
    "linear": "gate",
    "classifier": "classifier",
}
"""The authors' name of each module, and ours."""
_COUNTER = "num_batches_tracked"  # of batch norms; files of torch before 0.4.1 lack it, and nothing reads it


def load_released(path: Path) -> LiteEval:
    """Read a .safetensors file or a torch checkpoint into a model in evaluation mode.

    On features of unit L2 norm it gives the logits and gates of the released code. Its sizes are those of the
    tensors. A checkpoint may hold the tensors under "state_dict", and their names may begin with "module.".

    Raises:
        UserError: the file cannot be read without running code from it, or holds other weights.
    """
    tensors = _read(path)
    try:
        return from_released(tensors)
    except ValueError as error:
        raise UserError(f"{path}: not weights of LiteEval's released code: {error}") from error


def from_released(tensors: Mapping[str, Tensor]) -> LiteEval:
    """The model, in evaluation mode, of a state dict in the authors' layout.

    Raises:
        ValueError: a tensor is missing, unknown, or of a shape that does not fit the others.
    """
    fine_projection, fine_dim = _shape(tensors, "proj_mlp.1.weight")
    coarse_projection, coarse_dim = _shape(tensors, "small_proj_mlp.1.weight")
    num_classes, fine_hidden = _shape(tensors, "classifier.weight")
    model = LiteEval(
        coarse_dim=coarse_dim,
        fine_dim=fine_dim,
        num_classes=num_classes,
        coarse_hidden=_shape(tensors, "small_rnn.weight_hh")[1],
        fine_hidden=fine_hidden,
        coarse_projection=coarse_projection,
        fine_projection=fine_projection,
        gate_state="hidden+cell",
    )
    expected = to_released(model)
    _require_fit(tensors, expected)
    state = model.state_dict()
    state |= {_renamed(name, _MODULES): value for name, value in {**expected, **tensors}.items()}
    model.load_state_dict(_reordered(state, fine_projection))
    return model.eval()


def to_released(model: LiteEval) -> dict[str, Tensor]:
    """The weights of a model in the authors' layout, on the CPU.

    A gate threshold other than 0 becomes part of the gate's bias, as the released code has none.

    Raises:
        ValueError: the released code has no such network.
    """
    if not (
        isinstance(model.coarse_cell, LSTM)
        and model.coarse_projection is not None
        and model.fine_projection is not None
        and model.gate.sees_cell_state
        and model.gate.hidden is None
        and model.readout.kind == "last"
        and model.sync
    ):
        raise ValueError(
            "only LSTMs with both projections, synchronisation, a gate that sees h and c and has no hidden layer, "
            "and the readout of the last state are in the released code"
        )
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    for scale in ("coarse_scale", "fine_scale"):
        if state.pop(f"{scale}.mean").any() or (state.pop(f"{scale}.std") != 1).any():
            raise ValueError(
                "the released code does not standardise features: train with input_norm l2 or none"
            )
    state["gate.bias"][OPEN] -= state.pop("threshold")
    state.pop("multiplier")  # for training only
    state = _reordered(state, model.gate.coarse_dim)
    author_names = {ours: name for name, ours in _MODULES.items()}
    return {_renamed(name, author_names): value for name, value in state.items()}


def _reordered(state: dict[str, Tensor], first: int) -> dict[str, Tensor]:
    """Swap the two outputs of the gate, and the first columns of the fine network's inputs with the others."""
    columns = state["fine_cell.weight_ih"]
    swapped = torch.cat([columns[:, first:], columns[:, :first]], 1)
    gate = {name: state[name].flip(0) for name in ("gate.weight", "gate.bias")}
    return state | gate | {"fine_cell.weight_ih": swapped}


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    module, _, parameter = name.rpartition(".")
    return f"{modules[module]}.{parameter}"


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """Rows and columns of a matrix from which the sizes of the networks follow."""
    if name not in tensors:
        raise ValueError(f"it lacks {name}")
    if tensors[name].ndim != 2:
        raise ValueError(f"{name} is {tuple(tensors[name].shape)}, not a matrix")
    rows, columns = tensors[name].shape
    return rows, columns


def _require_fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in tensors and not name.endswith(_COUNTER)]
    unknown = [name for name in tensors if name not in expected]
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    for problem, names in (("it lacks", missing), ("it has unknown", unknown), ("sizes differ:", shapes)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(f"{problem} {', '.join(names[:3])}{more}")


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises UserError."""
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: refused: it is no checkpoint of tensors alone, and reading more could run code from it; "
            "save its state_dict() by itself"
        ) from error
    except Exception as error:  # a damaged file makes torch and safetensors raise whatever Python can
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path}: cannot be read as weights: {reason}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(map(_is_plain, content.values())):
        raise UserError(
            f"{path}: not weights of LiteEval's released code: it holds more than plain tensors by name"
        )
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_complex() or value.is_quantized or value.is_meta)
    )
