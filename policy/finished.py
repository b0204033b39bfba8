"""Finished runs on other videos: judged, or asked for predictions, also at another operating point.

A run's folder is only read. An operating point is found on videos of its own, never on those that are judged:

- on a subset that the run was not trained on, which is what to give where there is one;
- or on the training videos. Of regressions a run keeps what each price costs when every video is judged by some
  that have not seen it. A selector's perceptron is trained again without each of `FOLDS` parts of them,
  and decides for that part (cross-fitting). LiteEval's networks are too large for that: its
  threshold is set on videos that they have been trained on, on which gates open more, or less, than on others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from cache_schema import FeatureCache, StreamSpec, UserError
from cache_schema.annotations import LabelSet
from cache_schema.annotations.groups import grouped, in_both
from cache_schema.command import count
from cache_schema.costs import gflops_digits
from cache_schema.errors import LabelError
from cache_schema.files import remove_stale_temporaries
from cache_schema.frames import table_of
from cache_schema.run_folder import CONFIG, alone, not_ours, read_json
from cache_schema.schema import differences
from policy.config import DataConfig, RunConfig, names_of
from policy.data.batches import Role, VideoSet
from policy.data.groups import independent
from policy.data.opening import ALL, EVAL_SUBSETS, Dataset, open_videos, unlabelled
from policy.deploy.session import read_trained
from policy.evaluation.operating import OperatingTarget
from policy.evaluation.predictions import Predictions
from policy.method import Calibration, Method, Note
from policy.registry import METHODS
from policy.runs import (
    DETAILS,
    WEIGHTS,
    Outcome,
    Result,
    claim_folder,
    judge,
    load_method,
    open_data,
    read_config,
    read_grouping,
    read_sharing,
    settled_values,
)
from policy.session import TrainedRun
from policy.training.checkpoint import read_weights, write_weights
from policy.training.cross_fitting import FOLDS, cross_fitted
from policy.training.sharing import check_sharing, evaluated, share
from policy.training.validation import calibration_videos

if TYPE_CHECKING:
    import pandas as pd

_NOTED = 0.1
"""Of a budget: by how much videos may miss it without a note."""
_HARMLESS = ("name", "weights", "macs_per_row", "precision")
"""Fields of a stream that may differ from the run's where its weights and its input do not."""


@dataclass(frozen=True)
class MovedPoint:
    """Where a policy was moved to.

    Attributes:
        value: by which it decides; value_name: what that is, in words.
        found_on: the videos on which it was found, in words; empty where the value itself was given.
        trained_on: whether what decides was trained on those.
    """

    target: OperatingTarget
    value: float
    value_name: str
    found_on: str = ""
    trained_on: bool = False

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            self.target.kind: self.target.value,
            "value": self.value,
            "found_on": self.found_on,
            "trained_on": self.trained_on,
        }


@dataclass(frozen=True)
class Evaluated:
    """A finished run, judged on other videos.

    Attributes:
        folder: of the run, or the one that was written.
        class_scores: as `Run.class_scores`.
        point: None where it is as it was trained.
    """

    folder: Path
    config: RunConfig
    outcome: Outcome
    subset: str
    class_scores: str
    point: MovedPoint | None

    @property
    def result(self) -> Result:
        """The summary, as that of a run."""
        return self.outcome.result

    def __repr__(self) -> str:
        target = self.point and self.point.target
        moved = f", moved to {target.kind} {target.value:g}" if target else ""
        return f"Evaluated({str(self.folder)!r} on {self.subset!r}{moved}: {self.result})"


@dataclass(frozen=True)
class ClassProbabilities:
    """What a finished run says of all videos of a cache.

    Attributes:
        probabilities: (M, C), means over draws.
        failed: by id, why a video has none.
    """

    video_ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    failed: dict[str, str]
    point: MovedPoint | None

    def best(self, top: int) -> list[tuple[str, int, str, float]]:
        """The likeliest classes of each video: its id, the rank from 1 on, the class and its probability."""
        places = (-self.probabilities).argsort(axis=1, kind="stable")[:, :top]
        return [
            (video, rank, self.classes[place], float(self.probabilities[v, place]))
            for v, video in enumerate(self.video_ids)
            for rank, place in enumerate(places[v].tolist(), 1)
        ]

    def to_frame(self, top: int = 5) -> pd.DataFrame:
        """`best` as a table of pandas. Raises UserError where that is not installed."""
        columns = zip(*self.best(top), strict=True)
        return table_of(
            dict(zip(("video_id", "rank", "class", "probability"), columns, strict=True)),
            index=("video_id", "rank"),
        )

    def __repr__(self) -> str:
        return (
            f"ClassProbabilities(videos {len(self.video_ids):,}, classes {len(self.classes):,}, "
            f"failed {len(self.failed):,})"
        )


def evaluate_run(
    folder: Path,
    cache: FeatureCache,
    labels: LabelSet,
    *,
    config: DataConfig | None = None,
    target: OperatingTarget | None = None,
    calibrate_subset: str | None = None,
    device: torch.device | None = None,
    out: Path | None = None,
    described: bool = True,
    note: Note = lambda line: None,
) -> Evaluated:
    """Judge a finished run.

    Args:
        config: the subset to judge it on, by default that of the run, and which videos to leave out.
        target: the operating point to move it to; by default where it is.
        calibrate_subset: on which that is found; by default the subset that the run was trained on.
        out: a run folder for what comes of it, with weights that keep the operating point.
        described: with the method's details, which may take longer than the rest.

    Raises:
        UserError: the run is not finished, or cache and labels do not fit it; the operating point is impossible.
    """
    config, device = config or DataConfig(), device or torch.device("cpu")
    if out is not None and out.resolve() == folder.resolve():
        raise UserError(f"--out {out}: is the run itself, which is only read; choose another folder")
    run = _Finished(folder, cache, labels, config, note)
    subset = config.eval_subset or run.usual_subset()
    videos = run.videos(subset, "for evaluation")
    crossing = in_both(run.training_groups, videos.groups, (run.train_subset, subset))
    if crossing and subset != run.train_subset:
        note(crossing)
    compared = METHODS[run.config.method].describes_training and (described or out is not None)
    on_training = _on_training(run, target, calibrate_subset)
    method, data = run.method(videos, training=compared or on_training)
    method.model.to(device).eval()
    if compared and run.own_data is None:
        if out is not None:
            raise UserError(
                f"--out: a run of {run.config.method} is described with its training videos: {run.lack}"
            )
        note(f"what the policy is compared with is left out, as its training videos are not here: {run.lack}")
        described = False
    point = None
    if target is not None:
        point = _moved(run, method, data, target, calibrate_subset, device)
    outcome = judge(method, data, device, described=described or out is not None)
    if isinstance(outcome.judged, Predictions):
        note_spent(target, outcome.result, note)
    if point and outcome.details and method.describes_training:
        threshold = {**outcome.details["threshold"], "found_on": point.found_on}
        outcome = replace(outcome, details={**outcome.details, "threshold": threshold})
    if out is not None:
        _write(run, out, method, outcome, videos, point, device)
    return Evaluated(out or folder, method.config, outcome, subset, type(method).class_scores(data), point)


def note_spent(target: OperatingTarget | None, result: Result, note: Note) -> None:
    """Say where videos spend much less than a budget, or more."""
    if target is None or target.kind not in ("budget", "shared_budget"):
        return
    spent = result.gflops_mean
    if spent < (1 - _NOTED) * target.value:
        note(
            f"{target}: {gflops_digits(spent)} GFLOPs per video are spent; what {result.title} could do next "
            "costs more than is left, promises too little, or is not there"
        )
    elif spent > (1 + _NOTED) * target.value:
        note(
            f"{target}: these videos spend {gflops_digits(spent)} GFLOPs each, more than those it was found on"
        )


def predict_run(
    folder: Path,
    cache: FeatureCache,
    *,
    labels: LabelSet | None = None,
    target: OperatingTarget | None = None,
    calibrate_subset: str | None = None,
    device: torch.device | None = None,
    note: Note = lambda line: None,
) -> ClassProbabilities:
    """Class probabilities of all videos of a cache.

    Args:
        labels: of the videos on which an operating point is found; else not looked at.
        target, calibrate_subset: as in `evaluate_run`.

    Raises:
        UserError: as `evaluate_run`; no video has rows in all streams.
    """
    device = device or torch.device("cpu")
    run = _Finished(folder, cache, labels, DataConfig(skip_missing=True), note)
    failed = _incomplete(cache, run.stream_names)
    ids = sorted({video for name in run.stream_names for video in cache[name]} - failed.keys())
    if not ids:
        names = " and ".join(run.stream_names)
        raise UserError(f"no video of the cache has rows in {names}, which the run reads")
    videos = run.videos(ALL, "for prediction", unlabelled(cache, ids))
    method, data = run.method(videos, training=_on_training(run, target, calibrate_subset))
    method.model.to(device).eval()
    point = None
    if target is not None:
        point = _moved(run, method, data, target, calibrate_subset, device, apart=False)
    scores = np.asarray(evaluated(method, videos, device).class_probabilities, np.float32)
    return ClassProbabilities(videos.ids, data.classes, scores, failed, point)


def _grouped_as(folder: Path, labels: LabelSet, note: Note) -> LabelSet:
    """Labels with groups told as those of a run were, unless they have others, or cannot be told so."""
    grouping = read_grouping(folder)
    if grouping is None or labels.grouping is not None:
        return labels
    try:
        return grouped(labels, grouping)
    except LabelError as error:
        note(
            f"{error}; the run's videos had groups: here each video is on its own, intervals are over videos"
        )
        return labels


class _Finished:
    """A finished run beside a cache and labels.

    Args:
        labels: None: there are none.
    """

    def __init__(
        self, folder: Path, cache: FeatureCache, labels: LabelSet | None, config: DataConfig, note: Note
    ) -> None:
        self.folder, self.cache, self.note = folder, cache, note
        self.labels = None if labels is None else _grouped_as(folder, labels, note)
        self.trained: TrainedRun = read_trained(folder)
        self.content = read_json(folder / CONFIG)
        self.of_run = read_config(folder)
        self.data_config = config
        self.streams, self.pool = self._streams()
        options = names_of(type(self.of_run))  # streams of a list of any length have no option of their own
        named: dict[str, Any] = {role: name for role, name in self.streams.items() if role in options}
        self.config = replace(self.of_run, **named)
        self.lack = ""

    def usual_subset(self) -> str:
        """The run's, or else the usual one."""
        assert self.labels is not None
        data = self.content["data"]
        names = (str(data.get("judged_subset", data["eval_subset"])), *EVAL_SUBSETS)
        for name in names:
            if any(video.subset == name for video in self.labels.videos):
                return name
        if self.labels.subsets == ("",):
            raise self.labels.no_subset(names, "--eval-subset")
        raise UserError(
            f"{self.labels.source}: no subset {names[0]!r}, on which the run was judged; say which of "
            f"{', '.join(self.labels.subsets)} to use with --eval-subset"
        )

    @property
    def train_subset(self) -> str:
        return str(self.content["data"]["train_subset"])

    @property
    def training_groups(self) -> list[str]:
        """Of the videos in that subset of the labels, if it is there."""
        videos = self.labels.videos if self.labels else ()
        return [video.group for video in videos if video.subset == self.train_subset and video.group]

    @property
    def stream_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.streams.values(), *self.pool]))

    def _streams(self) -> tuple[dict[Role, str], tuple[str, ...]]:
        """The streams that the run reads, by role, and those of its pool; all are those that it was trained on."""
        trained = self.trained
        streams, pool = {}, tuple(trained.pool)
        if trained.pool.keys() != self.content.get("pool", {}).keys():
            raise not_ours(self.folder / DETAILS)
        for role, spec in trained.streams.items():
            named = getattr(self.of_run, role, None)
            streams[role] = named or next((n for n, one in trained.pool.items() if one == spec), spec.name)
            self._check(streams[role], spec)
        for name, spec in trained.pool.items():
            self._check(name, spec)
        return streams, pool

    def _check(self, name: str, spec: StreamSpec) -> None:
        found = self.cache[name].spec
        alike = replace(found, **{field: getattr(spec, field) for field in _HARMLESS})
        if different := differences(spec, alike):
            raise UserError(
                f"stream {name!r} of the cache is not what {self.folder} was trained on: {different}"
            )
        if different := differences(spec, replace(found, name=spec.name)):
            self.note(
                f"stream {name!r} differs from the run's, though not in its weights and its input: {different}"
            )

    def videos(self, subset: str, purpose: str, labels: LabelSet | None = None) -> VideoSet:
        """The videos of a subset. Raises UserError where they do not fit the run."""
        labels = labels or self.labels
        assert labels is not None
        videos, notes = open_videos(
            self.cache,
            self.streams,
            labels,
            subset,
            self.trained.classes,
            replace(
                self.data_config,
                whole_only=self.data_config.whole_only or self.of_run.whole_only,
                classes_present=self.data_config.classes_present or self.of_run.classes_present,
            ),
            multi_label=self.trained.multi_label,
            l2=self.config.input_norm == "l2",
            pool=self.pool,
        )
        for line in (*notes, f"{count(len(videos), 'videos')} of subset {subset!r} {purpose}"):
            self.note(line)
        return videos

    @cached_property
    def own_data(self) -> Dataset | None:
        """What the run was trained and judged on, if cache and labels hold it; else `lack` says why not."""
        if self.labels is None:
            self.lack = "there are no labels"
            return None
        if self.train_subset not in self.labels.subsets:
            self.lack = f"{self.labels.source} has no subset {self.train_subset!r}, which it was trained on"
            return None
        try:
            data = open_data(self.of_run, self.cache, self.labels)
        except UserError as error:
            self.lack = str(error)
            return None
        digests = self.content["data"]
        if differing := [name for name, digest in data.digest().items() if digests.get(name) != digest]:
            self.lack = f"cache and labels are not those of the run: another content of {differing[0]}"
            return None
        return data

    def method(self, videos: VideoSet, *, training: bool) -> tuple[Method, Dataset]:
        """The trained method, and its data: the training videos, if they are wanted and there, and `videos`."""
        if training and self.own_data is not None:
            data = replace(self.own_data, evaluation=videos)
            return load_method(self.folder, self.of_run, data), data
        data = Dataset(videos.part([0]), videos, self.trained.classes, ())
        method = METHODS[self.config.method].restored(replace(self.trained, config=self.config), data)
        read_weights(self.folder / WEIGHTS, method.model)
        method.sharing = read_sharing(self.folder)
        return method, data


def _on_training(run: _Finished, target: OperatingTarget | None, subset: str | None) -> bool:
    """Whether an operating point is to be found on the training videos."""
    method = METHODS[run.config.method]
    if target is None or target.kind == method.direct_target or method.keeps_spending(run.config):
        return False
    return subset is None or subset == run.train_subset


def _moved(
    run: _Finished,
    method: Method,
    data: Dataset,
    target: OperatingTarget,
    subset: str | None,
    device: torch.device,
    *,
    apart: bool = True,
) -> MovedPoint:
    """Move a method to an operating point.

    Args:
        data: with the training videos, if these are there.
        subset: on which it is found; None: on the training videos.
        apart: refuse videos that are judged.
    """
    method.sharing = None
    if target.kind == method.direct_target:
        return MovedPoint(target, method.move_to(target, (), device), method.value_name)
    shares = target.kind == "shared_budget"
    if shares:
        check_sharing(method, target)
    else:
        method.check_target(target)
    if subset in (None, run.train_subset) and type(method).keeps_spending(run.config):
        words = "the training videos, each judged by regressions that have not seen it"
        run.note(f"{target} is set on {words}")
        return MovedPoint(target, method.move_to(target, (), device), method.value_name, words)
    if run.labels is None:
        raise UserError(f"{target}: --labels must say which videos it is found on")
    on_training = _on_training(run, target, subset)
    if on_training and run.own_data is None:
        raise UserError(
            f"{target} is found on the videos that the run was trained on, unless --calibrate-subset names "
            f"others; they are not here: {run.lack}"
        )
    others = None if on_training else run.videos(str(subset), f"to find {target} on")
    videos = others or calibration_videos(method, data)
    if apart and (both := sorted(set(videos.ids).intersection(data.evaluation.ids))):
        raise UserError(
            f"{target} would be found on videos that are judged, {len(both):,} of them, such as {both[0]!r}: give "
            "another --calibrate-subset or --eval-subset"
        )
    words = f"{count(len(videos), 'videos')} of subset {videos.subset!r}"
    calibration: Calibration = [(method, videos)]
    held_out = on_training and videos is not data.train
    trained_on = on_training and not held_out and not method.cross_fits
    if held_out:
        words += " that were held out from the training"
    if shares:
        if on_training and not held_out:
            raise UserError(
                f"{target}: how sure answers are shows on videos that {run.config.method} was not trained on: "
                "name some with --calibrate-subset, or hold some out from its training with --validation"
            )
        method.sharing = share(method, target, videos, device)
        begin = method.sharing.values[method.sharing.rule.start]
        name = (
            f"all begin at {method.value_name} {begin:.4g} and go on for right answers per GFLOP of at least"
        )
        return MovedPoint(target, method.sharing.price, name, words)
    if trained_on:
        run.note(
            f"{target} is set on {words}, which {run.config.method} was trained on: others may use more or less; "
            "--calibrate-subset names a subset that it was not trained on"
        )
    elif on_training and not held_out:
        parts = count(min(FOLDS, independent(len(videos), videos.groups)), "parts")
        words += f", in {parts}, each judged by a selector that has not seen it"
        run.note(
            f"{target} is set on {words}; videos that it was not trained on (--calibrate-subset) are surer"
        )
        calibration = cross_fitted(method, data, device)
    value = method.move_to(target, calibration, device)
    return MovedPoint(target, value, method.value_name, words, trained_on)


def _incomplete(cache: FeatureCache, names: Sequence[str]) -> dict[str, str]:
    """By id, why a video of the cache has no rows in some of the streams."""
    streams = [cache[name] for name in names]
    every = {video for stream in streams for video in (*stream, *stream.failures)}
    failed = {}
    for video in sorted(every):
        for stream in streams:
            if video not in stream:
                why = stream.failures.get(video)
                failed[video] = f"failed in extraction: {why}" if why else f"not in {stream.name}"
                break
    return failed


def _write(
    run: _Finished,
    out: Path,
    method: Method,
    outcome: Outcome,
    videos: VideoSet,
    point: MovedPoint | None,
    device: torch.device,
) -> None:
    """Write a run folder that keeps the operating point, and what came of the videos."""
    moved = {
        name: getattr(method.config, name)
        for name in ("threshold", "budget", "usage", "frames")
        if name in run.content["config"]
    }
    held: list[Any] = [
        [video, np.flatnonzero(row).tolist()] for video, row in zip(videos.ids, videos.labels, strict=True)
    ]
    if videos.groups:
        held.append(videos.groups)
    content = {
        **run.content,
        "config": {**run.content["config"], **settled_values(run.folder), **moved},
        "data": {
            **run.content["data"],
            "judged_subset": videos.subset,
            "of_run": run.content.get("key"),
            "operating_point": None if point is None else point.as_json(),
            "judged_on": hashlib.sha256(json.dumps(held).encode()).hexdigest(),
        },
        "videos": {**run.content["videos"], "evaluation": len(videos)},
    }
    with alone(out):
        remove_stale_temporaries(out)
        claim_folder(out, content)
        write_weights(out / WEIGHTS, method.model)
        outcome.save(out, method, device)
