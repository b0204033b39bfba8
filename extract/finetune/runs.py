"""Runs of fine-tuning: a collection and choices in; a run folder out.

RUN/config.json              every choice, what the collection and the first weights were, versions
RUN/metrics.jsonl            a line per epoch
RUN/checkpoint.safetensors   while unfinished: weights and optimiser after the last epoch
RUN/best-N.safetensors       while unfinished: the weights of the best epoch so far
RUN/weights.safetensors      the weights of the best epoch; its metadata names the classes
RUN/result.json              the summary; written last, so that its presence means a finished run
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cache_schema import UserError
from cache_schema.annotations import LabelSet
from cache_schema.shard import remove_stale_temporaries
from extract.backbones import StreamRequest
from extract.batch import tool_versions
from extract.finetune.checkpoint import write_json
from extract.finetune.choices import Choices
from extract.finetune.collection import Collection, divide
from extract.finetune.network import Start, build
from extract.finetune.training import (
    CHECKPOINT,
    METRICS,
    History,
    Listener,
    Machine,
    best_weights,
    default_batch,
    train,
)
from extract.sources import Sources

WEIGHTS = "weights.safetensors"
RESULT = "result.json"
CONFIG = "config.json"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        result: what result.json holds.
        reused: it had been finished before.
    """

    folder: Path
    result: Mapping[str, Any]
    reused: bool

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS


def fine_tune(
    choices: Choices,
    request: StreamRequest,
    sources: Sources,
    labels: LabelSet,
    folder: Path,
    machine: Machine,
    listener: Listener | None = None,
    *,
    skip_missing: bool = False,
) -> Run:
    """Fine-tune a backbone; go on with what the folder holds of the same run, or reuse it if finished.

    Raises:
        UserError: the request does not fit the videos, labels or weights, or the folder holds another run or
            cannot be written to.
    """
    listener = listener or Listener()
    choices.check()
    collection = divide(sources, labels, choices, skip_missing=skip_missing)
    for note in collection.notes:
        listener.note(note)
    start = build(request, choices.weights, collection.classes, seed=choices.seed)
    described = _description(choices, request, collection, start)
    with _alone(folder):
        if _claim(folder, described):
            if (folder / RESULT).exists():
                return Run(folder, _read_json(folder / RESULT), True)
            if (folder / CHECKPOINT).exists():
                listener.note(f"{folder}: going on with an unfinished run")
        remove_stale_temporaries(folder)
        history = train(choices, collection, start, folder, machine, listener)
        return Run(folder, _finish(folder, history, collection, request, machine), False)


def with_precision(choices: Choices, precision: str, device: torch.device) -> Choices:
    """The choices with "auto" resolved: bf16 on a GPU, else fp32."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    return replace(choices, precision=precision)


def _finish(
    folder: Path, history: History, collection: Collection, request: StreamRequest, machine: Machine
) -> dict[str, Any]:
    best = history.best
    kept = best_weights(folder, best)
    with contextlib.suppress(FileNotFoundError):  # a run that was killed right here has renamed it already
        kept.replace(folder / WEIGHTS)
    result = {
        "stream": request.name,
        "weights": WEIGHTS,
        "epoch": best["epoch"],
        "epochs": len(history.epochs),
        "metric": "mAP" if collection.multi_label else "top-1",
        "val_videos": best["val_videos"],
        "val_rows": best["val_rows"],
        "val_loss": best["val_loss"],
        "classes": len(collection.classes),
        "train_videos": len(collection.train),
        "validation_videos": len(collection.validation),
        "failed": history.failed,
        "device": str(machine.device),
    }
    write_json(folder / RESULT, result)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return result


def _description(
    choices: Choices, request: StreamRequest, collection: Collection, start: Start
) -> dict[str, Any]:
    clips = request.sampling.kind != "frames"
    config = {
        **asdict(choices),
        "stream": request.name,
        "batch": choices.batch or default_batch(clips=clips),
        "lr": choices.learning_rate,
        "multi_label": collection.multi_label,
        # Not where a file lay: what was in it.
        "weights": start.weights,
    }
    return {
        "config": config,
        "content": {"videos": collection.digest(), "weights": start.digest},
        "classes": list(collection.classes),
        "preprocessing": asdict(start.trainee.view.preprocessing),
        "sampling": asdict(request.sampling),
        "videos": {"train": len(collection.train), "validation": len(collection.validation)},
        "versions": tool_versions(choices.precision),
    }


_FILES = {CONFIG, METRICS, CHECKPOINT, WEIGHTS, RESULT}
_COMPARED = {"config": "value of --", "content": "content of the "}


def _claim(folder: Path, described: Mapping[str, Any]) -> bool:
    """Make the folder this run's. True: it already was. Raises UserError if it is another's."""
    path = folder / CONFIG
    if any((folder / name).exists() for name in (CHECKPOINT, RESULT)):
        held = _read_json(path)
        for part, what in _COMPARED.items():
            ours, theirs = described[part], held.get(part)
            if not isinstance(theirs, dict):
                raise UserError(f"{path}: not a config of this version; delete the run folder")
            for name in sorted({*ours, *theirs}):
                if ours.get(name) != theirs.get(name):
                    raise UserError(
                        f"{folder}: holds a run with another {what}{name.replace('_', '-')} "
                        f"({_shown(theirs.get(name))}, not {_shown(ours.get(name))}); choose another folder"
                    )
        return True
    # Of a run that ended before its first checkpoint nothing is lost, so another may take its place.
    ours = {*_FILES, *(entry.name for entry in folder.glob("best-*.safetensors"))}
    if any(not entry.name.startswith(".") and entry.name not in ours for entry in folder.iterdir()):
        raise UserError(f"{folder}: is neither empty nor a run folder; choose another")
    write_json(path, described)
    return False


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read; delete the run folder to start again") from error
    if not isinstance(read, dict):
        raise UserError(f"{path}: not a {path.stem} of this version; delete the run folder")
    return read


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make the folder and hold it: two programs in one run folder would undo each other's work.

    Raises:
        UserError: it cannot be made or written to, or another program is at work in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"{folder}: cannot be used as a run folder: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder}: another program is at work in this run folder") from error
        except OSError:
            pass  # a file system without locks
        yield
