"""Runs: a method, its configuration and its data in; a run folder and a result out.

RUN/config.json              every choice, what the labels and features were, versions
RUN/settled.json             what a choice left to the training videos, and why it is so
RUN/metrics.jsonl            a line per epoch
RUN/checkpoint.safetensors   while unfinished: weights, optimiser, generator
RUN/model.safetensors        the final weights
RUN/sharing.json             of a policy whose videos share a budget, how
RUN/session.safetensors      further tensors that a method keeps for raw video, if any
RUN/predictions.npz          per video of the evaluation subset: scores, gates, MACs by stream and network
RUN/details.json             further results of a method, if it has any
RUN/choices.csv              which models a selector chose for each of these videos
RUN/detections.json, .csv    what was found in them, of a method that localizes
RUN/result.json              the summary; written last, so that its presence means a finished run
RUN/tensorboard/, wandb/     scalars, if they are wanted (policy.training.scalars)
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cache_schema import FeatureCache, Stream, UserError
from cache_schema.annotations import Grouping, LabelSet
from cache_schema.command import count
from cache_schema.files import remove_stale_temporaries
from cache_schema.run_folder import CONFIG, alone, claim, not_ours, read_json, write_atomically, write_json
from policy.config import RunConfig, counts_rows, flag_of, names_of
from policy.data.batches import Role, VideoSet
from policy.data.opening import GROUPS, Dataset, open_dataset
from policy.evaluation.collection import Sharing
from policy.evaluation.predictions import DETECTIONS, Judged, Predictions
from policy.method import Method
from policy.registry import CONFIGS, METHODS
from policy.training.checkpoint import read_weights, write_tensors, write_weights
from policy.training.distributed import Ranks
from policy.training.loop import CHECKPOINT, METRICS, Epoch, best_epoch, divergence_reported, train
from policy.training.scalars import TENSORBOARD, WANDB
from policy.training.sharing import evaluate_shared, evaluated
from policy.training.validation import finishing_videos, split, validation_videos

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "Mapping[str, float]": dict,
}
"""JSON types by the types of the fields of a Result."""
RESULT = "result.json"
SETTLED = "settled.json"
DETAILS = "details.json"
SHARED = "shared"
"""In the details, what a budget gains that videos share."""
CHOICES = "choices.csv"
WEIGHTS = "model.safetensors"
SESSION = "session.safetensors"
SHARING = "sharing.json"

PREDICTIONS = "predictions.npz"
_FILES = frozenset(
    {
        CONFIG,
        SETTLED,
        METRICS,
        CHECKPOINT,
        WEIGHTS,
        SESSION,
        SHARING,
        PREDICTIONS,
        *DETECTIONS,
        DETAILS,
        CHOICES,
        RESULT,
        TENSORBOARD,
        WANDB,
    }
)
_COMPARED = {"config": "value of ", "data": "content of "}
"""The parts of config.json that decide what a run is, and how messages call them."""


@dataclass(frozen=True)
class Result:
    """The result of a run on the evaluation subset. Means and standard deviations are over videos (and draws).

    Attributes:
        metrics: the metrics of the method's family (`Judged.metrics`).
        gflops_mean, gflops_std: 10⁹ MACs per video, the papers' unit, everything included.
        gflops: the same, means by the name of the stream or network (`Ledger`).
        rows_mean: rows of a video (seconds, at 1 fps).
        trained: False where class scores of the cache were used as they are.
    """

    method: str
    title: str
    videos: int
    classes: int
    metrics: Mapping[str, float]
    gflops_mean: float
    gflops_std: float
    gflops: Mapping[str, float]
    rows_mean: float
    trained: bool

    @staticmethod
    def of(method_name: str, method: Method, predictions: Judged, classes: int) -> Result:
        return Result(
            method=method_name,
            title=method.title,
            videos=len(predictions.video_ids),
            classes=classes,
            metrics=predictions.metrics(),
            gflops_mean=float(predictions.gflops.mean()),
            gflops_std=float(predictions.gflops.std()),
            gflops=predictions.ledger.gflops,
            rows_mean=float(predictions.lengths.mean()),
            trained=method.trains,
        )

    def __str__(self) -> str:
        cost = {"GFLOPs per video": f"{self.gflops_mean:.2f}"}
        judged = METHODS[self.method].judged
        figures = judged.summary(self.metrics, self.rows_mean, cost).items()
        figures_text = ", ".join(f"{name} {value}" for name, value in figures)
        return f"{self.title}, videos {self.videos:,}, classes {self.classes:,}: {figures_text}"

    def as_json(self) -> dict[str, Any]:
        """As commands print it: the metrics are among the other fields."""
        flat: dict[str, Any] = {}
        for name, value in asdict(self).items():
            flat |= value if name == "metrics" else {name: value}
        return flat


@dataclass(frozen=True)
class Outcome:
    """What a trained method makes of the videos for evaluation.

    Attributes:
        details, listing: as `Method.details` and `Method.listing` have them.
    """

    judged: Judged
    result: Result
    details: Mapping[str, Any]
    listing: str

    def save(self, folder: Path, method: Method, device: torch.device, *, processes: int = 1) -> None:
        """Write it, and what sessions need of the method, to a run folder; the result last."""
        tensors = method.session_tensors()
        if tensors:
            write_tensors(folder / SESSION, tensors)
        if method.sharing is not None:
            write_json(folder / SHARING, {"method": method.config.method, **method.sharing.as_json()})
        self.judged.save(folder / PREDICTIONS)
        if self.details:
            write_json(folder / DETAILS, dict(self.details))
        if self.listing:
            write_atomically(folder / CHOICES, self.listing.encode())
        content = {"result": asdict(self.result), "device": str(device), "processes": processes}
        write_json(folder / RESULT, content)


def judge(method: Method, data: Dataset, device: torch.device, *, described: bool = True) -> Outcome:
    """Judge a trained method, on the device and in evaluation mode, on the videos for evaluation.

    Args:
        described: with details.
    """
    details = dict(method.details(data, device)) if described else {}
    if method.sharing is None:
        judged = method.evaluate(data.evaluation, device=device)
    else:
        shared = evaluate_shared(method, method.sharing, data.evaluation, device)
        judged, details[SHARED] = shared.predictions, shared.as_json()
    return Outcome(
        judged,
        Result.of(method.config.method, method, judged, len(data.classes)),
        details,
        method.listing(data.evaluation, device),
    )


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        reused: it was finished before, with the same configuration and data.
        class_scores: where a method's class scores come from, if that depends on the streams; else empty.
    """

    folder: Path
    result: Result
    reused: bool
    class_scores: str = ""

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {self.result})"

    def judged(self) -> Judged:
        """What the method said of the videos. Raises UserError where it cannot be read."""
        return METHODS[self.result.method].judged.load(self.folder / PREDICTIONS)

    def predictions(self) -> Predictions:
        """The same of a method that gives class scores. Raises UserError for another."""
        judged = self.judged()
        if not isinstance(judged, Predictions):
            raise UserError(
                f"{self.folder}: a run of {self.result.method}, which says more than class scores"
            )
        return judged

    def details(self) -> dict[str, Any]:
        """Further results of the method (`Method.details`). Raises UserError where they cannot be read."""
        path = self.folder / DETAILS
        return read_json(path) if path.exists() else {}


@dataclass(frozen=True)
class Listener:
    """Callbacks for the progress of a run; by default none."""

    note: Callable[[str], None] = lambda line: None
    epoch: Callable[[Epoch], None] = lambda epoch: None
    earlier: Callable[[Sequence[Epoch]], None] = lambda history: None
    """Called with the epochs of earlier calls, if any, when training begins."""


def open_data(config: RunConfig, cache: FeatureCache, labels: LabelSet) -> Dataset:
    """The dataset of a run. Raises UserError where configuration, cache and labels do not fit."""
    config.check()
    method = METHODS[config.method]
    return open_dataset(
        cache,
        labels,
        method.streams(config, cache),
        config,
        l2=config.input_norm == "l2",
        pool=method.pool(config),
        held_out=method.held_out(config),
    )


def run_key(config: RunConfig, cache: FeatureCache, labels: LabelSet) -> str:
    """SHA-256 of all that decides a run's result: the options that its method reads, the labels, the features.

    Equal for two label files or caches with the same content, wherever they are and however sharded.
    """
    return key_of(config, open_data(config, cache, labels))


def key_of(config: RunConfig, data: Dataset) -> str:
    """`run_key` for data that is already open."""
    return _key(_description(config, data))


def run_method(
    config: RunConfig,
    cache: FeatureCache,
    labels: LabelSet,
    folder: Path,
    *,
    device: str = "auto",
    listener: Listener | None = None,
    ranks: Ranks | None = None,
) -> Run:
    """Train and evaluate a method; continue an unfinished run in the folder, or reuse a finished one.

    A run that an earlier version finished is evaluated again with its weights.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "cuda", …
        ranks: of several processes that train together; this is the first. It tells the others whether there is
            anything to train, in which they `assist`.

    Raises:
        UserError: the request does not fit the data, or the folder holds another run or cannot be written to.
    """
    listener = listener or Listener()
    ranks = ranks or Ranks()
    torch_device = ranks.device(choose_device(device))
    if ranks.size > 1 and not METHODS[config.method].splits_batches:
        raise UserError(
            f"{config.method} is trained by one process, whose batches cannot be divided; there are {ranks.size}"
        )
    data = open_data(config, cache, labels)
    for note in data.notes:
        listener.note(note)
    class_scores = METHODS[config.method].class_scores(data)
    if class_scores:
        listener.note(f"class scores: {class_scores}")
    content = _description(config, data)
    with alone(folder):
        remove_stale_temporaries(folder)
        if claim_folder(folder, content, unread=names_of(type(config)) - config.read_names()):
            if not (folder / RESULT).exists():
                listener.note(f"{folder}: going on with an unfinished run")
            elif of_earlier_version(folder):
                listener.note(f"{folder}: trained by an earlier version; judged again, not trained again")
            else:
                ranks.broadcast(False)
                return Run(folder, read_result(folder), True, class_scores)
        else:
            (folder / SETTLED).unlink(missing_ok=True)  # of another run, which came to nothing
        config = _settled(config, data, folder, torch_device, listener)
        result = _carry_out(config, data, folder, torch_device, listener, ranks)
        return Run(folder, result, False, class_scores)


def assist(
    config: RunConfig,
    cache: FeatureCache,
    labels: LabelSet,
    folder: Path,
    *,
    device: str = "auto",
    ranks: Ranks,
) -> None:
    """Take part in the training of the process that calls `run_method`.

    To be called if that process broadcast that there is something to train (`Ranks.broadcast`).

    Raises:
        UserError: as `run_method`.
    """
    torch_device = ranks.device(choose_device(device))
    data = open_data(config, cache, labels)
    method = make_method(with_settled(config, folder), data)
    _set_teacher(method, data, torch_device)
    _hand_over_runs(method, data, torch_device)
    _train(method, data, folder, device=torch_device, ranks=ranks)


def _train(method: Method, data: Dataset, folder: Path, **how: Any) -> list[Epoch]:
    """On the training videos that are not held out."""
    videos, (trained_on, held_out) = data.train, split(method, data.train)
    if len(held_out):
        videos = videos.part(trained_on.tolist())
        if method.teacher is not None:
            method.teacher = method.teacher[torch.from_numpy(trained_on)]
    return train(method, videos, folder, validation=validation_videos(method, data), **how)


def _best(config: RunConfig, best: Epoch, epochs: int) -> str:
    """Which epoch is best on the validation videos, in words."""
    stopped = f"stopped after epoch {epochs} of {config.epochs}; " if epochs < config.epochs else ""
    kept = "kept" if config.keep == "best" else "best, and the last one kept"
    return f"{stopped}epoch {best['epoch']} is {kept}: validation loss {best['validation_loss']:.4g}"


def _carry_out(
    config: RunConfig, data: Dataset, folder: Path, device: torch.device, listener: Listener, ranks: Ranks
) -> Result:
    method = make_method(config, data)
    for note in (*_on_rows(config, data.train), *method.notes(data)):
        listener.note(note)
    trained = (folder / RESULT).exists()
    ranks.broadcast(method.by_descent and not trained)
    if trained:
        read_weights(folder / WEIGHTS, method.model)
    else:
        for note in _on_validation(method, data):
            listener.note(note)
    if not trained and method.by_descent:
        _set_teacher(method, data, device)
        _hand_over_runs(method, data, device)
        history = _train(
            method,
            data,
            folder,
            device=device,
            on_epoch=listener.epoch,
            on_earlier=listener.earlier,
            ranks=ranks,
        )
        if best := best_epoch(method, history):
            listener.note(_best(method.config, best, len(history)))
    method.model.to(device).eval()
    with divergence_reported(method, folder, config.epochs):
        if not trained:
            method.finish(finishing_videos(method, data), device)
            write_weights(folder / WEIGHTS, method.model)
        outcome = judge(method, data, device)
    outcome.save(folder, method, device, processes=ranks.size)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return outcome.result


def _on_rows(config: RunConfig, videos: VideoSet) -> Iterator[str]:
    """For each number of rows that is above those of all training videos, what becomes of it."""
    counted = list(filter(counts_rows, fields(config)))
    longest = max(map(videos.length, range(len(videos)))) if counted else 0
    for option in counted:
        if (value := getattr(config, option.name)) > longest:
            yield (
                f"{flag_of(option)} {value}: no training video has more than {count(longest, 'rows')}; "
                f"{option.metadata['beyond']}"
            )


def _on_validation(method: Method, data: Dataset) -> Iterator[str]:
    """How many videos are held out, and for what."""
    config = method.config
    trained_on, held_out = split(method, data.train)
    if len(held_out):
        yield (
            f"--validation {config.validation:g}: {len(held_out):,} of these "
            f"{count(len(data.train), 'training videos')} held out, {len(trained_on):,} trained on"
        )
    if not method.by_descent and (config.validation or config.validation_subset):
        yield (
            f"{config.method} is not trained in epochs here: "
            + (
                "held-out videos are for its operating points"
                if method.fits_at_once
                else "nothing is validated"
            )
        )


def _settled(
    config: RunConfig, data: Dataset, folder: Path, device: torch.device, listener: Listener
) -> RunConfig:
    """A configuration with what it leaves to the training videos, which is found once."""
    if not (folder / SETTLED).exists():
        settled = METHODS[config.method].settle(config, data, device, listener.note)
        if settled is None:
            return config
        write_json(folder / SETTLED, asdict(settled))
    return with_settled(config, folder)


def settled_values(folder: Path) -> Mapping[str, Any]:
    """By field of a run's configuration, what its training videos have decided.

    Raises:
        UserError: the file that says so is damaged.
    """
    path = folder / SETTLED
    values = read_json(path).get("values") if path.exists() else {}
    if not isinstance(values, dict):
        raise not_ours(path)
    return values


def with_settled(config: RunConfig, folder: Path) -> RunConfig:
    """A run's configuration with what its training videos have decided. Raises UserError as `settled_values`."""
    try:
        return replace(config, **settled_values(folder))
    except TypeError as error:
        raise not_ours(folder / SETTLED) from error


def make_method(config: RunConfig, data: Dataset) -> Method:
    """A method that is not trained yet; its weights are drawn with the configuration's seed.

    Raises:
        UserError: configuration and data do not fit each other.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return METHODS[config.method](config, data)


def _set_teacher(method: Method, data: Dataset, device: torch.device) -> None:
    """Give a method that learns from a teacher the teacher's predictions for the training videos."""
    folder = getattr(method.config, "teacher", None)
    if folder is not None:
        method.teacher = teacher_probabilities(Path(folder), data, device=device)


def _hand_over_runs(method: Method, data: Dataset, device: torch.device) -> None:
    """Give a method that builds on other runs what these have trained."""
    config, trained = method.config, {}
    for name, folder in method.needs(config).items():
        method.check_needed(config, name, read_config(Path(folder)))
        trained[name], _ = _load_for("--" + name.replace("_", "-"), Path(folder), data)
    if trained:
        method.build_on(trained, data, device)


def load_method(folder: Path, config: RunConfig, data: Dataset) -> Method:
    """The trained method of a finished run, on the CPU and in evaluation mode.

    Args:
        config, data: of that run.

    Raises:
        UserError: the folder holds no finished run, or that of another model.
    """
    read_result(folder)
    method = make_method(with_settled(config, folder), data)
    read_weights(folder / WEIGHTS, method.model)
    method.sharing = read_sharing(folder)
    method.model.eval()
    return method


def read_sharing(folder: Path) -> Sharing | None:
    """How the videos of a finished run share a budget; None where they do not. Raises UserError where the file
    that says so is missing, damaged or of another run."""
    path, described = folder / SHARING, read_json(folder / CONFIG)
    try:
        point = described["data"].get("operating_point")
        if not path.exists():
            if point and "shared_budget" in point:
                raise UserError(f"{path}: is missing; it says how the videos of this run share a budget")
            return None
        content = read_json(path)
        if content["method"] != described["config"]["method"]:
            raise ValueError("it is of another method")
        return Sharing.from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise not_ours(path) from error


def teacher_probabilities(folder: Path, data: Dataset, *, device: torch.device) -> Tensor:
    """(M, C) float32 on the device: class probabilities of a finished run's method for the M training videos.

    They are the mean over as many draws as in its evaluation, if it draws at random.

    Args:
        folder: of the run.
        data: of the student.

    Raises:
        UserError: the run is not finished, or was trained for other classes or on other videos or features.
    """
    method, data = _load_for("teacher", folder, data)
    judged = evaluated(method, data.train, device)
    assert isinstance(judged, Predictions), "a teacher gives class scores"
    scores = judged.scores
    return torch.from_numpy(scores.mean(axis=0)).to(device)


def _load_for(purpose: str, folder: Path, data: Dataset) -> tuple[Method, Dataset]:
    """The trained method of another finished run, on the CPU, and its view of this run's data.

    Args:
        purpose: what it is for, as a message calls it.

    Raises:
        UserError: the run is not finished, or was trained for other classes or on other videos or features.
    """
    config, content = read_config(folder), read_json(folder / CONFIG)
    data = _data_of_other(folder, config, content, data, purpose)
    return load_method(folder, config, data), data


def _data_of_other(
    folder: Path, config: RunConfig, content: dict[str, Any], data: Dataset, purpose: str
) -> Dataset:
    """Another run's view of this one's data, which must be what that run was trained on."""

    def unfit(why: str) -> UserError:
        return UserError(f"{folder}: no {purpose} for this run, for it {why}")

    digests = content["data"]
    if tuple(content["classes"]) != data.classes:
        raise unfit("tells other classes apart")
    if content["multi_label"] != data.multi_label:
        how = "with several classes per video" if content["multi_label"] else "on one class per video"
        raise unfit(f"was trained {how}")
    if digests["labels"] != data.digest()["labels"]:
        raise unfit("was trained or evaluated on other videos, or on other labels of them")
    streams, pool, held_out = _streams_of_other(config, data.train)

    def view(videos: VideoSet) -> VideoSet:
        return replace(videos, streams=streams, l2=config.input_norm == "l2", pool=pool)

    data = replace(
        data, train=view(data.train), evaluation=view(data.evaluation), held_out=held_out, validation=None
    )
    for name, digest in data.digest().items():
        if name != GROUPS and digests.get(name) != digest:  # who is held out together is another matter
            raise unfit(f"was trained on other features of stream {name!r}")
    return data


def _streams_of_other(
    config: RunConfig, videos: VideoSet
) -> tuple[dict[Role, Stream], dict[str, Stream], dict[str, Stream]]:
    """The streams that another run reads (by role), chooses from and takes held-out scores of (by name): those
    that this one has open, or others of the same cache."""
    cache = FeatureCache(next(iter(videos.streams.values())).folder.parent)
    streams = {stream.name: stream for stream in videos.streams.values()}
    method = METHODS[config.method]
    return (
        {role: streams.get(name) or cache[name] for role, name in method.streams(config, cache).items()},
        {name: streams.get(name) or cache[name] for name in method.pool(config)},
        {name: cache[name] for name in method.held_out(config)},
    )


def read_grouping(folder: Path) -> Grouping | None:
    """How it was told which videos of a run belong together; None where it was not. Raises UserError where the
    folder holds no run, or one of another version."""
    content = read_json(folder / CONFIG)
    try:
        told = content[GROUPS]["told_by"] if GROUPS in content else None
        return None if told is None else Grouping(**told)
    except (KeyError, TypeError) as error:
        raise not_ours(folder / CONFIG) from error


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run: the options of its method and of its data, and what its training videos decided.

    Raises:
        UserError: the folder holds no run, or one of another version.
    """
    content = read_json(folder / CONFIG)
    try:
        values = {**content["config"], "multi_label": content["multi_label"], "skip_missing": True}
        values |= {name: content.get(name, False) for name in ("whole_only", "classes_present")}
        values |= {name: content["data"][name] for name in ("train_subset", "eval_subset")}
        values["validation_subset"] = content["data"].get("validation_subset")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        config = CONFIGS[values.pop("method")]
        return with_settled(config(**{**config.earlier, **values}), folder)
    except (KeyError, TypeError) as error:
        raise not_ours(folder / CONFIG) from error


def choose_device(name: str) -> torch.device:
    """Raises UserError for a device that this machine does not have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # which "meta", having no values, cannot
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: not to be had here ({str(error).splitlines()[0]})") from error
    return device


def read_result(folder: Path) -> Result:
    """The result of a finished run. Raises UserError where it is missing, damaged or of another version."""
    path = folder / RESULT
    content = read_json(path).get("result")
    if of_earlier_version(folder):
        raise UserError(
            f"{path}: of an earlier version; give the run's command again, which judges it again and does not "
            "train it again"
        )
    kinds = {field.name: _KINDS[str(field.type)] for field in fields(Result)}
    if (
        not isinstance(content, dict)
        or content.keys() != kinds.keys()
        or not all(isinstance(content[name], kind) for name, kind in kinds.items())
        or not all(
            isinstance(number, (int, float))
            for number in (*content["metrics"].values(), *content["gflops"].values())
        )
    ):
        raise not_ours(path)
    return Result(**content)


def of_earlier_version(folder: Path) -> bool:
    """Whether the folder's run is finished, and has costs in three columns: `run_method` evaluates it again."""
    content = read_json(folder / RESULT).get("result")
    return isinstance(content, dict) and "gflops_coarse" in content


def _description(config: RunConfig, data: Dataset) -> dict[str, Any]:
    # Names of subsets and the treatment of gaps are left out: the digests depend on their effect.
    options = config.decisive()
    pool = {name: json.loads(stream.spec.to_json()) for name, stream in data.train.pool.items()}
    if options.get("teacher") is not None:  # by its content, not its place
        options["teacher"] = read_json(Path(options["teacher"]) / CONFIG).get("key")
    for name, folder in METHODS[config.method].needs(config).items():
        options[name] = _weights_digest(Path(folder))
    return {
        "config": options,
        "data": {
            **data.digest(),
            **METHODS[config.method].decisive_data(data),
            "train_subset": data.train.subset,
            "eval_subset": data.evaluation.subset,
            **({"validation_subset": data.validation.subset} if data.validation else {}),
        },
        "classes": list(data.classes),
        "multi_label": data.multi_label,
        "whole_only": config.whole_only,
        "classes_present": config.classes_present,
        **({GROUPS: data.describe_groups()} if data.train.groups or data.evaluation.groups else {}),
        "skip_missing": config.skip_missing,
        "videos": {
            "train": len(data.train),
            "evaluation": len(data.evaluation),
            **({"validation": len(data.validation)} if data.validation else {}),
        },
        "streams": {role: json.loads(stream.spec.to_json()) for role, stream in data.train.streams.items()},
        **({"pool": pool} if pool else {}),
        "versions": _versions(),
    }


def claim_folder(folder: Path, content: Mapping[str, Any], *, unread: Collection[str] = ()) -> bool:
    """`claim` a folder for the run that the content of a config.json describes; its key is added."""
    described = {**content, "key": _key(content)}
    marks = (CHECKPOINT, RESULT)
    return claim(
        folder, described, decisive=_COMPARED, begun=marks, is_own=_FILES.__contains__, unread=unread
    )


def _weights_digest(folder: Path) -> str:
    """SHA-256 of what a finished run has trained. Raises UserError where there is none."""
    read_result(folder)
    try:
        return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{folder / WEIGHTS}: cannot be read: {error.strerror or error}") from error


def _key(content: Mapping[str, Any]) -> str:
    decisive = {part: content[part] for part in _COMPARED}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    try:
        thriftvid = version("thriftvid")
    except PackageNotFoundError:
        thriftvid = "not installed"
    return {
        "thriftvid": thriftvid,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
