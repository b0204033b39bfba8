"""Predictions of a trained method, their costs and their quality."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cache_schema import UserError
from cache_schema.frames import table_of
from cache_schema.run_folder import write_atomically
from policy.evaluation.ledger import IntArray, Ledger
from policy.evaluation.metrics import (
    Interval,
    mean_average_precision,
    percentile_interval,
    resampled_weights,
    top1,
    weighted_mean,
    weighted_mean_average_precision,
)

if TYPE_CHECKING:
    import pandas as pd

DETECTIONS = ("detections.json", "detections.csv")
"""Beside the predictions of a method that localizes."""
_MACS = "macs/"
"""Before a name of the ledger, in a file."""
_NAMES = {"row_counts": "seen"}
_APART = ("video_ids", "ledger", "groups", "ran")
"""Fields that are not arrays in a file."""


class Judged(ABC):
    """Predictions for M videos: what those of all families have in common.

    Attributes:
        video_ids: M.
        offsets: (M+1,) int64; the rows of video m are offsets[m]:offsets[m+1].
        ledger: (R, M), in R draws (1 where nothing is drawn).
        groups: M, equal for videos that belong together; empty where nothing is known of that.
    """

    video_ids: tuple[str, ...]
    offsets: IntArray
    ledger: Ledger
    groups: tuple[str, ...] = ()

    @property
    def lengths(self) -> IntArray:
        """(M,): T of each video."""
        return np.diff(self.offsets)

    @property
    def gflops(self) -> npt.NDArray[np.float64]:
        """(R, M): 10⁹ MACs per video, all included."""
        return np.asarray(self.ledger.total / 1e9)

    @property
    def class_probabilities(self) -> npt.NDArray[np.float32]:
        """(M, C), means over the draws. Raises UserError where a family gives none."""
        raise UserError("this method gives no class probabilities of videos")

    @abstractmethod
    def metrics(self) -> Mapping[str, float]:
        """Quality by the family's measures. Their names differ from the fields of `Result`."""

    @classmethod
    def main_metric(cls, metrics: Mapping[str, float], *, multi_label: bool) -> tuple[str, str]:
        """Which of `metrics` the family is judged by first, the first of them by default: its name, and that in
        words."""
        first = next(iter(metrics))
        return first, first

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write to a run's folder. Raises UserError where it cannot be written."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> Judged:
        """Read what `save` wrote. Raises UserError where the file is missing, damaged or of an earlier version."""

    @classmethod
    def intervals(cls, runs: Sequence[Any], *, resamples: int) -> Mapping[str, Interval]:
        """95 % bootstrap intervals over the videos, of means over several runs of this class (one for each seed).

        By default of "gflops" per video. A sample has the same videos for all runs and methods, and whole groups.
        """
        weights = resampled_weights(len(runs[0].video_ids), resamples, 0, runs[0].groups)
        gflops = np.mean([run.gflops.mean(axis=0) for run in runs], axis=0)
        return {"gflops": percentile_interval(float(gflops.mean()), weighted_mean(gflops, weights))}

    @classmethod
    def summary(
        cls, metrics: Mapping[str, float], rows_mean: float, cost: Mapping[str, str]
    ) -> Mapping[str, str]:
        """What a command prints of a result, by the heading of its line.

        Args:
            metrics: as `metrics` gives them.
            rows_mean: rows of a video.
            cost: the line about costs, for its place among the others.
        """
        return {**{name: f"{value:.4g}" for name, value in metrics.items()}, **cost}


@dataclass(frozen=True)
class Predictions(Judged):
    """Class scores of M videos with N rows in all, in R draws.

    Attributes:
        labels: (M, C) bool.
        scores: (R, M, C) float32, class probabilities.
        gates: (R, N) uint8, 1 for rows on which the backbone of the gated stream ran (`Method.gated`).
        row_counts: (M,) int64, how many rows of each video the method looked at.
        ran: (R, N) bool or (1, N) for all draws, by the name of a stream that is not gated: rows on which its
            backbone ran. Not kept in files.
    """

    video_ids: tuple[str, ...]
    labels: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float32]
    offsets: IntArray
    gates: npt.NDArray[np.uint8]
    row_counts: IntArray
    ledger: Ledger
    groups: tuple[str, ...] = ()
    ran: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def fine_rows(self) -> IntArray:
        """(R, M): fine features computed per video."""
        return np.add.reduceat(self.gates.astype(np.int64), self.offsets[:-1], axis=1)

    @property
    def usage(self) -> npt.NDArray[np.float64]:
        """(R, M): share of a video's rows with fine features."""
        return np.asarray(self.fine_rows / self.lengths)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(R, M): whether the best-scored class is one of the video's; of equal scores the first class counts."""
        return np.asarray(self.labels[np.arange(len(self.labels)), self.scores.argmax(axis=2)])

    @property
    def class_probabilities(self) -> npt.NDArray[np.float32]:
        return np.asarray(self.scores.mean(axis=0), np.float32)

    def to_frame(self) -> pd.DataFrame:
        """As a table of pandas: a line for each video, of several draws their means.

        Columns: rows (T), fine_rows and usage; gflops; class, the number of the likeliest, and its probability;
        correct, 1 where that is one of the video's; and group, where there are any.

        Raises:
            UserError: pandas is not installed.
        """
        probabilities = self.class_probabilities
        columns: dict[str, Any] = {
            "video_id": self.video_ids,
            "rows": self.lengths,
            **{name: getattr(self, name).mean(axis=0) for name in ("fine_rows", "usage", "gflops")},
            "class": probabilities.argmax(axis=1),
            "probability": probabilities.max(axis=1),
            "correct": self.correct.mean(axis=0),
            **({"group": self.groups} if self.groups else {}),
        }
        return table_of(columns, index=("video_id",))

    def __repr__(self) -> str:
        return (
            f"Predictions(videos {len(self.video_ids):,}, classes {self.labels.shape[1]:,}: "
            f"mAP {100 * self.mean_average_precision():.1f} %, top-1 {100 * self.top1():.1f} %, "
            f"{self.gflops.mean():.3f} GFLOPs per video)"
        )

    def mean_average_precision(self) -> float:
        """mAP, averaged over the draws."""
        return float(np.mean([mean_average_precision(draw, self.labels) for draw in self.scores]))

    def top1(self) -> float:
        """Top-1, or with several classes per video hit@1, averaged over the draws."""
        return float(np.mean([top1(draw, self.labels) for draw in self.scores]))

    def metrics(self) -> Mapping[str, float]:
        """Both accuracies in [0, 1], whichever a benchmark uses; fine features computed per video ("# Fine Feat",
        Table 2), mean and standard deviation; and the share of a video's rows that have them."""
        return {
            "mean_average_precision": self.mean_average_precision(),
            "top1": self.top1(),
            "fine_features_mean": float(self.fine_rows.mean()),
            "fine_features_std": float(self.fine_rows.std()),
            "usage": float(self.usage.mean()),
        }

    @classmethod
    def main_metric(cls, metrics: Mapping[str, float], *, multi_label: bool) -> tuple[str, str]:
        return ("mean_average_precision", "mAP") if multi_label else ("top1", "top-1")

    @classmethod
    def summary(
        cls, metrics: Mapping[str, float], rows_mean: float, cost: Mapping[str, str]
    ) -> Mapping[str, str]:
        return {
            "mAP": f"{100 * metrics['mean_average_precision']:.1f} %",
            "top-1": f"{100 * metrics['top1']:.1f} %",
            **cost,
            "fine features": f"{metrics['fine_features_mean']:.2f} ± {metrics['fine_features_std']:.2f} of "
            f"{rows_mean:.1f} frames (usage {100 * metrics['usage']:.1f} %, the mean of each video's own share)",
        }

    @classmethod
    def intervals(cls, runs: Sequence[Predictions], *, resamples: int) -> Mapping[str, Interval]:
        return intervals(runs, resamples=resamples)

    def save(self, path: Path) -> None:
        """Write as an .npz that NumPy reads with allow_pickle=False; the arrays have the fields' names ("seen" for
        `row_counts`), those of the ledger "macs/NAME"."""
        arrays = {_NAMES.get(name, name): array for name, array in vars(self).items() if name not in _APART}
        write_arrays(path, self, arrays)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        with read_arrays(path) as (video_ids, ledger, arrays):
            arrays |= {field: arrays.pop(name) for field, name in _NAMES.items()}
            return cls(video_ids, **arrays, ledger=ledger)


def write_arrays(path: Path, judged: Judged, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays, ids, groups and ledger as an .npz without pickles. Raises UserError where that cannot be."""
    if judged.groups:
        arrays = {**arrays, "groups": np.array(judged.groups)}
    macs = {_MACS + name: spent for name, spent in judged.ledger.items()}
    content = io.BytesIO()
    np.savez_compressed(content, video_ids=np.array(judged.video_ids), **arrays, **macs)  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())


@contextmanager
def read_arrays(path: Path) -> Iterator[tuple[tuple[str, ...], Ledger, dict[str, Any]]]:
    """Ids, ledger and the other arrays that `write_arrays` wrote, for a block that makes an object of them; among
    these, where there are any, the groups, as a tuple.

    Raises:
        UserError: the file is missing or damaged, or the block found something missing or of another kind.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in file.files}
        video_ids = tuple(map(str, arrays.pop("video_ids")))
        if "groups" in arrays:
            arrays["groups"] = tuple(map(str, arrays["groups"]))
        macs = {name: arrays.pop(name) for name in list(arrays) if name.startswith(_MACS)}
        ledger = Ledger({name.removeprefix(_MACS): spent for name, spent in macs.items()})
        yield video_ids, ledger, arrays
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as predictions: {error}") from error


def intervals(
    runs: Sequence[Predictions], *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Bootstrap intervals of mean_average_precision, top1, gflops, usage and fine_features (means over videos).

    Videos are resampled with replacement, the same ones for every run, and whole groups of them; each figure is
    averaged over the runs (and their draws): the interval shows how much it depends on which videos happen to be
    in the evaluation subset, not on the seeds, which are too few to be resampled.

    Args:
        runs: one method's predictions of the same videos; several for several seeds.
        resamples: number of bootstrap samples. The same seed gives the same samples for every method.

    Raises:
        ValueError: no run, or the runs have different videos or labels, or no video has a class.
    """
    if not runs:
        raise ValueError("no predictions to take an interval of")
    labels = runs[0].labels
    for other in runs[1:]:
        if other.video_ids != runs[0].video_ids or not np.array_equal(other.labels, labels):
            raise ValueError("the runs have different videos or labels")
    weights = resampled_weights(len(labels), resamples, seed, runs[0].groups)
    mean_ap = float(np.mean([run.mean_average_precision() for run in runs]))
    resampled = [
        np.mean([weighted_mean_average_precision(draw, labels, weights) for draw in run.scores], axis=0)
        for run in runs
    ]
    result = {"mean_average_precision": percentile_interval(mean_ap, np.mean(resampled, axis=0), confidence)}
    per_video: dict[str, Callable[[Predictions], npt.NDArray[np.float64]]] = {
        "top1": lambda run: run.correct.astype(np.float64),
        "gflops": lambda run: run.gflops,
        "usage": lambda run: run.usage,
        "fine_features": lambda run: run.fine_rows.astype(np.float64),
    }
    for name, measure in per_video.items():
        values = np.mean([measure(run).mean(axis=0) for run in runs], axis=0)
        result[name] = percentile_interval(float(values.mean()), weighted_mean(values, weights), confidence)
    return result
