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
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from cache_schema.annotations import LabelSet
from cache_schema.files import remove_stale_temporaries
from cache_schema.run_folder import CONFIG, alone, claim, read_json, write_json
from extract.backbones import StreamRequest
from extract.batch import tool_versions
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
    classes_present: bool = False,
) -> Run:
    """Fine-tune a backbone; go on with what the folder holds of the same run, or reuse it if finished.

    Raises:
        UserError: the request does not fit the videos, labels or weights, or the folder holds another run or
            cannot be written to.
    """
    listener = listener or Listener()
    choices.check()
    collection = divide(sources, labels, choices, skip_missing=skip_missing, classes_present=classes_present)
    for note in collection.notes:
        listener.note(note)
    start = build(request, choices.weights, collection.classes, seed=choices.seed)
    described = _description(choices, request, collection, start)
    with alone(folder):
        begun = (CHECKPOINT, RESULT)
        if claim(folder, described, decisive=_COMPARED, begun=begun, is_own=_is_own):
            if (folder / RESULT).exists():
                return Run(folder, read_json(folder / RESULT), True)
            if (folder / CHECKPOINT).exists():
                listener.note(f"{folder}: going on with an unfinished run")
        remove_stale_temporaries(folder)
        history = train(choices, collection, start, folder, machine, listener)
        return Run(folder, _finish(folder, history, collection, request, machine), False)


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
        "versions": tool_versions(),
    }


_FILES = {CONFIG, METRICS, CHECKPOINT, WEIGHTS, RESULT}
_COMPARED = {"config": "value of --", "content": "content of the "}


def _is_own(name: str) -> bool:
    return name in _FILES or fnmatch(name, "best-*.safetensors")
