"""Parameters of a backbone: read without unpickling foreign code, and told apart by a digest."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from cache_schema import UserError

# How torch's restricted unpickler says that it met a function or class of somebody else's.
_FOREIGN_CODE = re.compile("unsupported (global|class)|is blocked", re.IGNORECASE)
_WRAPPERS = ("state_dict", "model", "model_state")


def read_weights(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    """Read a .safetensors file, or a torch checkpoint that holds tensors only.

    Returns:
        The parameters by name, and the names of the classes where the file's metadata has them
        (safetensors: key "classes", a JSON list).

    Raises:
        UserError: the file cannot be read, or reading it would mean running code from it.
    """
    state, classes = _read(path)
    _require_plain(state, path)
    return state, classes


def _read(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return state, _class_names(metadata["classes"]) if "classes" in metadata else None
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot read the weights: {error.strerror or error}") from error
    except Exception as error:  # a damaged file makes torch's unpickler raise whatever Python can
        if isinstance(error, pickle.UnpicklingError) and _FOREIGN_CODE.search(str(error)):
            raise UserError(
                f"{path}: refused: it holds more than tensors, and reading it could run code from it; "
                "convert it to .safetensors"
            ) from error
        # Of an odd pickle torch says how to read it without care: nothing to pass on.
        odd = isinstance(error, pickle.UnpicklingError)
        reason = "no checkpoint of tensors" if odd else first_line(error)
        raise UserError(f"{path}: not a file of weights ({reason})") from error
    for key in _WRAPPERS:
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
    if not isinstance(checkpoint, dict) or not any(isinstance(v, Tensor) for v in checkpoint.values()):
        raise UserError(f"{path}: not a file of weights: it holds no tensors by name")
    tensors = {str(k).removeprefix("module."): v for k, v in checkpoint.items() if isinstance(v, Tensor)}
    return tensors, None


def _require_plain(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError for what torch saves beside plain numbers: networks cannot compute with it."""
    bytes_in_file = path.stat().st_size
    for name, tensor in state.items():
        dense = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
        if not dense or tensor.is_complex():
            raise UserError(f"{path}: not a file of weights: {name} is no plain tensor ({tensor.type()})")
        if tensor.numel() * tensor.element_size() > bytes_in_file:  # one number, expanded to many
            raise UserError(f"{path}: not a file of weights: {name} is larger than the file")


def classes_of(state: Mapping[str, Tensor], classifier: str, path: Path) -> int | None:
    """How many classes the classifier with this weight tells apart; None where the file has none."""
    weight = state.get(classifier)
    if weight is not None and (weight.ndim == 0 or len(weight) == 0):
        shape = tuple(weight.shape)
        raise UserError(
            f"{path}: weights of another network: does not fit: {classifier} is {shape}, not (C, …)"
        )
    return None if weight is None else len(weight)


@contextmanager
def random_seed(weights: str) -> Iterator[None]:
    """Randomness as "random:SEED" asks for, and nobody else's touched. Raises UserError where it names no seed."""
    seed = weights.partition(":")[2]
    if not re.fullmatch(r"[0-9]{1,18}", seed):  # what torch takes
        raise UserError(f"--weights {weights}: say which seed, as in random:0")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        yield


def first_line(error: Exception) -> str:
    """The beginning of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _class_names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError('"classes" in its metadata is no list of names')
    return tuple(names)


def load_into(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load every parameter and buffer. Raises UserError that says which do not fit."""
    expected = model.state_dict()
    # Files of torch before 0.4.1 lack these counters, which load_state_dict then sets to 0; nothing reads them.
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if missing and unexpected:
        raise UserError(
            f"{path}: weights of another network, or by other names: it has {_some(unexpected)}; {_some(missing)} "
            "are wanted; docs/extracting.md#weights-by-other-names shows how to rename them"
        )
    for problem, names in (("lacks", missing), ("has unknown", unexpected), ("does not fit:", shapes)):
        if names:
            raise UserError(f"{path}: weights of another network: {problem} {_some(names)}")
    model.load_state_dict(state)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
