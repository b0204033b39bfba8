"""What a trained run says when asked for less than whole videos. Kept in the run's folder, as a run's own results.

RUN/views/online-3/predictions.npz
RUN/views/online-3/result.json      the summary, and the key of what it is of; written last
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from cache_schema.run_folder import read_json, write_json
from policy.baselines.uniform import Uniform
from policy.config import RunConfig
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
class Trained:
    """A finished run: its configuration, the key of that and of its data, and its folder."""

    config: RunConfig
    key: str
    folder: Path


@dataclass(frozen=True)
class ViewTask:
    """A view of a run; `follows` is the run that its own `follows` names."""

    title: str
    view: View
    run: Trained
    follows: Trained | None = None

    @property
    def key(self) -> str:
        """SHA-256 of all that decides what is seen."""
        said = {"online": self.view.online, "run": self.run.key, "follows": self.follows and self.follows.key}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        after = f"-after-{self.follows.key[:8]}" if self.follows else ""
        return self.run.folder / "views" / f"online-{self.view.online}{after}"


def kept(task: ViewTask) -> Run | None:
    """The view, if it was made before."""
    try:
        held = read_json(task.folder / RESULT)
    except UserError:
        return None
    if held.get("key") != task.key or of_earlier_version(task.folder):
        return None
    return Run(task.folder, read_result(task.folder), reused=True)


def make(task: ViewTask, cache: FeatureCache, labels: LabelSet, device: str) -> Run:
    """Evaluate the run and keep the view.

    Raises:
        UserError: the run's files cannot be read, or the view's not written.
    """
    method, predictions = _seen(task, cache, labels, device)
    try:
        task.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{task.folder}: cannot be made: {error.strerror or error}") from error
    predictions.save(task.folder / PREDICTIONS)
    result = Result.of(task.run.config.method, method, predictions, predictions.labels.shape[1])
    write_json(task.folder / RESULT, {"result": asdict(result), "key": task.key})
    return Run(task.folder, result, reused=False)


def _seen(task: ViewTask, cache: FeatureCache, labels: LabelSet, device: str) -> tuple[Method, Predictions]:
    chosen = choose_device(device)
    k = task.view.online

    def said_by(run: Trained) -> tuple[Method, Predictions]:
        data = open_data(run.config, cache, labels)
        method = load_method(run.folder, run.config, data)
        assert isinstance(method, GatedMethod)  # checked where the table is read
        return method, emissions(method, data.evaluation, [k], device=chosen).points[0].predictions

    if task.follows is None:
        return said_by(task.run)
    _, followed = said_by(task.follows)
    data = open_data(task.run.config, cache, labels)
    method = load_method(task.run.folder, task.run.config, data)
    assert isinstance(method, Uniform)
    return method, uniform_k(method, data.evaluation, followed.row_counts, k, device=chosen).predictions
