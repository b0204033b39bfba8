"""Views: predictions of a trained run that has seen less than whole videos. They are kept in the run's folder.

RUN/views/online-3/predictions.npz
RUN/views/online-3/result.json      the summary and the view's key; written last
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from cache_schema.run_folder import CONFIG, read_json, write_json
from policy.baselines.uniform import Uniform
from policy.config import RunConfig
from policy.data.batches import VideoSet
from policy.evaluation.predictions import Predictions
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
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> Path:
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
    method, predictions = _evaluate(task, cache, labels, device)
    try:
        task.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{task.folder}: cannot be made: {error.strerror or error}") from error
    predictions.save(task.folder / PREDICTIONS)
    result = Result.of(task.run.config.method, method, predictions, predictions.labels.shape[1])
    write_json(task.folder / RESULT, {"result": asdict(result), "key": task.key})
    return Run(task.folder, result, reused=False)


def _evaluate(
    task: ViewTask, cache: FeatureCache, labels: LabelSet, device_name: str
) -> tuple[Method, Predictions]:
    device, k = choose_device(device_name), task.view.online

    def load(run: Training) -> tuple[Method, VideoSet]:
        data = open_data(run.config, cache, labels)
        return load_method(run.folder, run.config, data), data.evaluation

    # The classes of both methods are checked when the table is read.
    method, videos = load(task.follows or task.run)
    assert isinstance(method, GatedMethod)
    predictions = emissions(method, videos, [k], device=device).points[0].predictions
    if task.follows is None:
        return method, predictions
    uniform, videos = load(task.run)
    assert isinstance(uniform, Uniform)
    return uniform, uniform_k(uniform, videos, predictions.row_counts, k, device=device).predictions
