"""Policies from Python: train one, open a finished run, judge it, draw its curve, put it to work.

Each function calls what the command of its name calls; docs/python.md goes through all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet, read_labels
from cache_schema.arguments import checks_arguments, speaks_python
from cache_schema.files import StrPath
from cache_schema.names import did_you_mean
from policy import runs
from policy.config import DataConfig, RunConfig, types_of
from policy.deploy.applying import Answers, answers_to, prepare
from policy.deploy.arguments import Ids, Weights, find_videos, weight_words
from policy.deploy.trained import TrainedPolicy, open_run
from policy.evaluation.operating import Curve, OperatingPoint, OperatingTarget, TargetKind
from policy.evaluation.predictions import Predictions
from policy.finished import ClassProbabilities, Evaluated, evaluate_run, predict_run
from policy.registry import completed, config_of, instead_of, usual_recipe
from policy.runs import choose_device, read_config, read_result, run_method
from policy.training.loop import Epoch

Cache = StrPath | FeatureCache
Labels = StrPath | LabelSet
Note = Callable[[str], None]

_in_python = speaks_python(
    classes="score_classes",
    format="labels_format",
    input="coarse",
    model="models",
    no_sync="sync=False",
    price="threshold",
    single_label="multi_label=False",
    **{name: f"read_labels' {name}" for name in ("class_file", "split", "val_fraction")},
)


class Run(runs.Run):
    """A finished run, and what can be done with it. Its folder is only read.

    Attributes:
        folder, result, reused, class_scores: as `policy.runs.Run` has them.
    """

    @staticmethod
    @checks_arguments
    def load(folder: StrPath) -> Run:
        """Open a run folder. Raises UserError where it holds no finished run."""
        return Run(Path(folder), read_result(Path(folder)), reused=True)

    @property
    def config(self) -> RunConfig:
        """Every choice of the run: the options of its method and of its data."""
        return read_config(self.folder)

    def open(self) -> TrainedPolicy:
        """For videos whose frames, or rows, come from you: sessions, cameras, ONNX."""
        return open_run(self.folder)

    @_in_python
    @checks_arguments
    def evaluate(
        self,
        cache: Cache,
        labels: Labels,
        *,
        labels_format: str | None = None,
        eval_subset: str | None = None,
        skip_missing: bool = False,
        whole_only: bool = False,
        classes_present: bool = False,
        usage: float | None = None,
        budget: float | None = None,
        shared_budget: float | None = None,
        threshold: float | None = None,
        calibrate_subset: str | None = None,
        out: StrPath | None = None,
        described: bool = True,
        device: str = "auto",
        note: Note = print,
    ) -> Evaluated:
        """Judge it on a subset, as train-policy evaluate does; the arguments are its options.

        Args:
            eval_subset: by default that of the run.
            usage, budget, shared_budget, threshold: at most one: the operating point to move the policy to, a
                share of rows, mean GFLOPs per video (shared: each gets what its answers promise), or what it
                decides by.
            calibrate_subset: the videos on which a usage or a budget is found; by default the training videos, of
                a shared budget those of them that the training held out.
            out: a run folder for what comes of it.
            described: with the method's details, which may take longer than the rest.
            note: is called with each line that the user should know.

        Raises:
            UserError: cache and labels do not fit the run, or the operating point is impossible.
        """
        return evaluate_run(
            self.folder,
            _opened(cache),
            _read(labels, labels_format),
            config=DataConfig(
                eval_subset=eval_subset,
                skip_missing=skip_missing,
                whole_only=whole_only,
                classes_present=classes_present,
            ),
            target=OperatingTarget.chosen(
                usage=usage,
                budget=budget,
                shared_budget=shared_budget,
                threshold=threshold,
                calibrate_subset=calibrate_subset,
            ),
            calibrate_subset=calibrate_subset,
            device=choose_device(device),
            out=None if out is None else Path(out),
            described=described,
            note=note,
        )

    @_in_python
    @checks_arguments
    def predict(
        self,
        cache: Cache,
        *,
        labels: Labels | None = None,
        labels_format: str | None = None,
        usage: float | None = None,
        budget: float | None = None,
        shared_budget: float | None = None,
        threshold: float | None = None,
        calibrate_subset: str | None = None,
        device: str = "auto",
        note: Note = print,
    ) -> ClassProbabilities:
        """Class probabilities of all videos of a cache, as train-policy predict gives them.

        Args:
            labels: of the videos on which a usage or a budget is found; else not needed.

        Raises:
            UserError: as `evaluate`; no video has rows in all streams of the run.
        """
        return predict_run(
            self.folder,
            _opened(cache),
            labels=None if labels is None else _read(labels, labels_format),
            target=OperatingTarget.chosen(
                usage=usage,
                budget=budget,
                shared_budget=shared_budget,
                threshold=threshold,
                calibrate_subset=calibrate_subset,
            ),
            calibrate_subset=calibrate_subset,
            device=choose_device(device),
            note=note,
        )

    @_in_python
    @checks_arguments
    def curve(
        self,
        cache: Cache,
        labels: Labels,
        *,
        usages: Sequence[float] | None = None,
        budgets: Sequence[float] | None = None,
        shared_budgets: Sequence[float] | None = None,
        thresholds: Sequence[float] | None = None,
        labels_format: str | None = None,
        eval_subset: str | None = None,
        skip_missing: bool = False,
        whole_only: bool = False,
        classes_present: bool = False,
        calibrate_subset: str | None = None,
        device: str = "auto",
        note: Note = print,
    ) -> Curve:
        """Accuracy against cost: the policy judged at several operating points, each as by `evaluate`.

        Args:
            usages, budgets, shared_budgets, thresholds: one of them: the points, in any order.

        Returns:
            The points in that order; `gflops`, `top1` and `mean_average_precision` are (P,) arrays.

        Raises:
            UserError: as `evaluate`; or the method gives no class scores.
        """
        given: dict[TargetKind, Sequence[float] | None] = {
            "usage": usages,
            "budget": budgets,
            "shared_budget": shared_budgets,
            "threshold": thresholds,
        }
        chosen = [(kind, values) for kind, values in given.items() if values is not None]
        if len(chosen) != 1 or not len(chosen[0][1]):
            raise UserError(
                "a curve has points: give one of usages, budgets, shared_budgets and thresholds, with at least "
                "one value"
            )
        kind, values = chosen[0]
        targets = [OperatingTarget(kind, float(value)) for value in values]  # all are checked first
        opened, label_set = _opened(cache), _read(labels, labels_format)
        points: list[OperatingPoint] = []
        noted: dict[str, None] = {}  # once for all points
        for target in targets:
            lines: list[str] = []
            point: dict[str, Any] = {kind: target.value}
            found = self.evaluate(
                opened,
                label_set,
                eval_subset=eval_subset,
                skip_missing=skip_missing,
                whole_only=whole_only,
                classes_present=classes_present,
                calibrate_subset=calibrate_subset,
                described=False,
                device=device,
                note=lines.append,
                **point,
            )
            if not isinstance(found.outcome.judged, Predictions):
                raise UserError(
                    f"{self.folder}: a run of {self.result.method}, no curve of class scores: use evaluate"
                )
            points.append(OperatingPoint(target.value, found.outcome.judged))
            noted |= dict.fromkeys(line.replace(str(target).removeprefix("--"), kind) for line in lines)
        for line in noted:
            note(line)
        return Curve(self.result.title, tuple(points))

    @_in_python
    @checks_arguments
    def apply(
        self,
        videos: StrPath | Sequence[StrPath],
        *,
        weights: Weights | None = None,
        ids: Ids = "stem",
        frames_fps: float | None = None,
        root: StrPath | None = None,
        device: str = "auto",
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        batch: int | None = None,
        in_flight: int | None = None,
        damaged: Literal["refuse", "keep"] = "refuse",
        decoder: Literal["auto", "decord", "pyav"] = "auto",
        note: Note = print,
    ) -> Answers:
        """What the policy says of video files, as run-policy does; the arguments are its options.

        Neither the cache nor the labels are needed. Only what the policy wants is decoded and computed.

        Args:
            videos: files, folders, or lists of paths (.txt, .csv).
            weights: of all streams, or by stream, as `extract` takes them; of streams that were extracted with
                the weights of a file they are needed.

        Raises:
            UserError: there are no videos, or the policy does not work on videos or with these weights.
        """
        sources = find_videos(videos, ids=ids, frames_fps=frames_fps, root=root)
        for line in sources.notes:
            note(line)
        ready = prepare(
            self.folder,
            weights=weight_words(weights or ()),
            device=device,
            precision=precision,
            batch=batch,
            in_flight=in_flight,
            decoder=decoder,
            damaged=damaged,
            note=note,
        )
        return answers_to(sources, ready)


@_in_python
@checks_arguments
def train(
    method: str | RunConfig,
    cache: Cache,
    labels: Labels,
    out: StrPath,
    *,
    labels_format: str | None = None,
    recipe: str | None = None,
    device: str = "auto",
    note: Note = print,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    **options: Any,
) -> Run:
    """Train a policy in a run folder and judge it, as train-policy does.

    A run that was stopped goes on; of a finished one with the same options and data the result is read.

    Args:
        method: a name, as "liteeval" (`policy.registry.CONFIGS`), or its configuration.
        labels: a file, the folder of a benchmark, or what `cache_schema.annotations.read_labels` has read, which
            takes splits and groups, too.
        out: the run folder.
        recipe: sets what is not given, as --recipe; by default that of the command. Of a name only.
        note: is called with each line that the user should know.
        on_epoch: is called with the losses of each epoch.
        options: of train-policy METHOD, with "_" for "-"; of a name only.

    Raises:
        UserError: there is no such method or option, a value is impossible, cache and labels do not fit, or the
            folder holds another run.
    """
    if isinstance(method, str):
        config = configured(method, options, recipe)
    elif options or recipe:
        extra = ", ".join([*options, *(["recipe"] if recipe else [])])
        raise UserError(
            f"{extra}: options go with a method's name; with a configuration, they are its fields"
        )
    else:
        config = method
    config.check()
    listener = runs.Listener(note, on_epoch)
    done = run_method(
        config, _opened(cache), _read(labels, labels_format), Path(out), device=device, listener=listener
    )
    return Run(done.folder, done.result, done.reused, done.class_scores)


def configured(method: str, options: Mapping[str, Any], recipe: str | None = None) -> RunConfig:
    """A method's configuration from options as Python gives them: lists, paths and numbers of NumPy are welcome.

    Raises:
        UserError: there is no such method or option, one that is needed is missing, or a value is of another type
            or contradicts others.
    """
    config = config_of(method)
    by_name = {option.name: option for option in fields(config) if option.name in config.read_names()}
    for name in options:
        if name not in by_name:
            close = (
                instead_of(method, name) or did_you_mean(name, by_name) or f"; it has: {', '.join(by_name)}"
            )
            raise UserError(f"{method} has no option {name!r}{close}")
    values = {}
    for name, value in options.items():
        parse = by_name[name].metadata["parse"]
        if parse and isinstance(value, (str, os.PathLike)):
            values[name] = parse(Path(value))
        else:
            values[name] = _converted(name, value, types_of(config)[name])
    for name, option in by_name.items():
        if option.metadata["required"] and values.get(name) in (None, ()):
            raise UserError(f"{method} needs {name}: {option.metadata['help']}")
    return completed(method, values, recipe or usual_recipe(method))


def _converted(name: str, value: Any, kind: Any) -> Any:
    """A value as a configuration's field of this type has it. Raises UserError where it is of another."""
    kinds = get_args(kind) if NoneType in get_args(kind) else (kind,)
    if value is None and NoneType in kinds:
        return value
    (kind,) = set(kinds) - {NoneType}
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        values = [value] if isinstance(value, (str, os.PathLike)) or not hasattr(value, "__iter__") else value
        return tuple(_converted(name, one, item) for one in values)
    if get_origin(kind) is Literal:
        return value  # `check` names the choices
    fits: Mapping[Any, Any] = {str: (str, os.PathLike), bool: bool, int: Integral, float: Real}
    if isinstance(value, fits[kind]) and (kind is bool or not isinstance(value, bool)):
        return os.fspath(value) if kind is str else kind(value)
    raise UserError(f"{name}: {value!r} is no {kind.__name__}")


def _opened(cache: Cache) -> FeatureCache:
    return cache if isinstance(cache, FeatureCache) else FeatureCache(cache)


def _read(labels: Labels, labels_format: str | None) -> LabelSet:
    return labels if isinstance(labels, LabelSet) else read_labels(labels, labels_format)
