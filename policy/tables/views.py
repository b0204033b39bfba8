"""Views: other predictions of a trained run, before the end of the videos or with other proposals. They are kept
in the run's folder.

RUN/views/online-3/predictions.npz
RUN/views/action-bytes/predictions.npz
RUN/views/online-3/result.json      the summary and the view's key; written last
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from cache_schema.run_folder import CONFIG, read_json, write_json
from policy.baselines.uniform import Uniform
from policy.config import RunConfig
from policy.data.opening import Dataset
from policy.evaluation.predictions import Judged
from policy.liteeval.method import GatedMethod
from policy.liteeval.online import emissions, uniform_k
from policy.method import Method
from policy.runs import (
    RESULT,
    Result,
    Run,
    choose_device,
    load_method,
    of_earlier_version,
    open_data,
    read_result,
)
from policy.tables.experiment import View

PREDICTIONS = "predictions.npz"


@dataclass(frozen=True)
class Training:
    """A run to be trained, or trained already; `key` is of its configuration and data."""

    title: str
    config: RunConfig
    key: str
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.title}, seed {self.config.seed}"

    @property
    def finished(self) -> bool:
        """Whether the folder holds this very run, finished. `run_method` rejects folders that hold another."""
        return _holds(self.folder, CONFIG, self.key)


@dataclass(frozen=True)
class ViewTask:
    """A view of a run; `follows` is the run of the row that the view's `follows` names."""

    name: str
    view: View
    run: Training
    follows: Training | None = None

    @property
    def key(self) -> str:
        """SHA-256 of everything that determines the view."""
        parts = {
            "online": self.view.online,
            "run": self.run.key,
            "follows": self.follows and self.follows.key,
            **({"action_bytes": True} if self.view.action_bytes else {}),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def way(self) -> str:
        """In which way the run is evaluated, for a message."""
        return "with ActionBytes post-processing" if self.view.action_bytes else "online"

    @property
    def folder(self) -> Path:
        if self.view.action_bytes:
            return self.run.folder / "views" / "action-bytes"
        after = f"-after-{self.follows.key[:8]}" if self.follows else ""
        return self.run.folder / "views" / f"online-{self.view.online}{after}"


def _holds(folder: Path, file: str, key: str) -> bool:
    """Whether a folder has a result of this version, and its JSON file has the key."""
    try:
        if read_json(folder / file).get("key") != key:
            return False
    except UserError:
        return False
    return (folder / RESULT).exists() and not of_earlier_version(folder)


def stored(task: ViewTask) -> Run | None:
    """The view, if its folder holds it."""
    if not _holds(task.folder, RESULT, task.key):
        return None
    return Run(task.folder, read_result(task.folder), reused=True)


def make(task: ViewTask, cache: FeatureCache, labels: LabelSet, device: str) -> Run:
    """Evaluate the run and store the view.

    Raises:
        UserError: the run's files cannot be read, or the view's cannot be written.
    """
    method, predictions, classes = _evaluate(task, cache, labels, device)
    try:
        task.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{task.folder}: cannot be made: {error.strerror or error}") from error
    predictions.save(task.folder / PREDICTIONS)
    result = Result.of(task.run.config.method, method, predictions, classes)
    write_json(task.folder / RESULT, {"result": asdict(result), "key": task.key})
    return Run(task.folder, result, reused=False)


def _evaluate(
    task: ViewTask, cache: FeatureCache, labels: LabelSet, device_name: str
) -> tuple[Method, Judged, int]:
    """Method, predictions, and the number of classes."""
    device, k = choose_device(device_name), task.view.online

    def load(run: Training, **changed: Any) -> tuple[Method, Dataset]:
        config = replace(run.config, **changed)
        data = open_data(config, cache, labels)
        return load_method(run.folder, config, data), data

    # The classes of all methods are checked when the table is read.
    if k is None:
        localizer, data = load(task.run, action_bytes=True)
        return localizer, localizer.evaluate(data.evaluation, device=device), len(data.classes)
    method, data = load(task.follows or task.run)
    assert isinstance(method, GatedMethod)
    predictions = emissions(method, data.evaluation, [k], device=device).points[0].predictions
    if task.follows is None:
        return method, predictions, len(data.classes)
    uniform, data = load(task.run)
    assert isinstance(uniform, Uniform)
    predictions = uniform_k(uniform, data.evaluation, predictions.row_counts, k, device=device).predictions
    return uniform, predictions, len(data.classes)
