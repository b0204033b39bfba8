"""Segments that a method found in videos, judged by detection mAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cache_schema.frames import table_of
from policy.evaluation.detection import (
    ACTIVITYNET_IOUS,
    MULTITHUMOS_IOUS,
    PROTOCOLS,
    THUMOS14_IOUS,
    Detections,
    FloatArray,
    GroundTruth,
    match,
)
from policy.evaluation.detection_map import (
    average_precision,
    bootstrap_interval,
    mean_over_classes,
    weighted_average_precision,
)
from policy.evaluation.ledger import IntArray, Ledger
from policy.evaluation.metrics import Interval, mean_average_precision, resampled_weights
from policy.evaluation.predictions import DETECTIONS, Judged, read_arrays, write_arrays
from policy.localization.detections import write_csv, write_json

if TYPE_CHECKING:
    import pandas as pd

IOUS = tuple(sorted({*THUMOS14_IOUS, *ACTIVITYNET_IOUS}))
AVERAGES = {f"{ious[0]:g}:{ious[-1]:g}": ious for ious in (MULTITHUMOS_IOUS, THUMOS14_IOUS, ACTIVITYNET_IOUS)}
"""Over which thresholds of IoU papers average, by how these are written."""
_PARTS = {"detections": Detections, "truth": GroundTruth}
_OF_CLIPS = ("gates", "appearance", "motion", "spans")
"""Fields that may be None, and are not in a file then."""


@dataclass(frozen=True, eq=False)
class Localizations(Judged):
    """Detections in M videos.

    Attributes:
        labels: (M, C) bool.
        classes: names of the C classes.
        scores: (M, C) float32, class probabilities of the videos.
        truth: the annotated segments; without any, only the class probabilities can be judged.
        gates: (N,) uint8, of a method that chooses clips: 1 on those that use motion.
        appearance, motion: (N, C) float16, its two models' activations of the clips, comparable; of motion NaN
            where it did not run.
        spans: (N, 2) float64 seconds, first and last instant that each clip saw; None in files of before they were
            kept.
    """

    video_ids: tuple[str, ...]
    classes: tuple[str, ...]
    labels: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float32]
    offsets: IntArray
    ledger: Ledger
    detections: Detections
    truth: GroundTruth
    gates: npt.NDArray[np.uint8] | None = None
    appearance: npt.NDArray[np.float16] | None = None
    motion: npt.NDArray[np.float16] | None = None
    spans: FloatArray | None = None
    groups: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Localizations(videos {len(self.video_ids):,}, classes {len(self.classes):,}: "
            f"detections {len(self.detections):,}, {self.gflops.mean():.3f} GFLOPs per video)"
        )

    def to_frame(self) -> pd.DataFrame:
        """The detections as a table of pandas, those of a video together, the surest first.

        The index is the video's id and the rank from 1 on; columns are class, start_s, end_s and score.

        Raises:
            UserError: pandas is not installed.
        """
        found = self.detections
        order = np.lexsort((-found.scores, found.videos))
        videos = found.videos[order]
        first = np.searchsorted(videos, videos)
        columns = {
            "video_id": [self.video_ids[video] for video in videos],
            "rank": np.arange(1, len(videos) + 1) - first,
            "class": [self.classes[number] for number in found.classes[order]],
            "start_s": found.spans[order, 0],
            "end_s": found.spans[order, 1],
            "score": found.scores[order],
        }
        return table_of(columns, index=("video_id", "rank"))

    @property
    def class_probabilities(self) -> npt.NDArray[np.float32]:
        return self.scores

    def metrics(self) -> Mapping[str, float]:
        """In [0, 1]: the detection mAP (`metric_name`) by each of `PROTOCOLS` at each of `IOUS`, and averaged over
        each of `AVERAGES`; "video_map", the mAP of the videos' class probabilities; and of a method that chooses
        clips "usage", the share of all clips that use motion."""
        shown = {"video_map": mean_average_precision(self.scores, self.labels)}
        if self.gates is not None:
            shown["usage"] = float(self.gates.mean())
        if not len(self.truth.videos):
            return shown
        return shown | detection_metrics(self.detections, self.truth, self.labels.shape[1])

    @classmethod
    def main_metric(cls, metrics: Mapping[str, float], *, multi_label: bool) -> tuple[str, str]:
        averaged = f"{THUMOS14_IOUS[0]:g}:{THUMOS14_IOUS[-1]:g}"
        name = metric_name("thumos14", averaged)
        return (name, f"detection mAP {averaged}") if name in metrics else ("video_map", "video-level mAP")

    @classmethod
    def intervals(cls, runs: Sequence[Localizations], *, resamples: int) -> Mapping[str, Interval]:
        """Also of each detection mAP of `metrics` (`bootstrap_interval`)."""
        found = {**super().intervals(runs, resamples=resamples)}
        if not len(runs[0].truth.videos):
            return found
        weights = resampled_weights(len(runs[0].video_ids), resamples, 0, runs[0].groups)
        values = [run.metrics() for run in runs]
        for protocol in PROTOCOLS:
            # (I, B), the mean over the runs.
            resampled = np.mean([run._resampled(protocol, weights) for run in runs], axis=0)
            of_iou = dict(zip(IOUS, resampled, strict=True))
            for iou, ious in (*((f"{iou:g}", (iou,)) for iou in IOUS), *AVERAGES.items()):
                name = metric_name(protocol, iou)
                value = float(np.mean([of_run[name] for of_run in values]))
                found[name] = bootstrap_interval(value, np.mean([of_iou[one] for one in ious], axis=0))
        return found

    def _resampled(self, protocol: str, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """(I, B) detection mAP at `IOUS` under each column of weights (M, B)."""
        matching = match(self.detections, self.truth, IOUS, protocol)
        return mean_over_classes(weighted_average_precision(matching, self.labels.shape[1], weights))

    @classmethod
    def summary(
        cls, metrics: Mapping[str, float], rows_mean: float, cost: Mapping[str, str]
    ) -> Mapping[str, str]:
        columns = [*(f"{iou:g}" for iou in THUMOS14_IOUS), *AVERAGES]
        lines = {}
        if len(metrics.keys() - {"video_map", "usage"}):
            lines["detection mAP % at IoU"] = " ".join(f"{column:>{_width(column)}}" for column in columns)
            for name, protocol in PROTOCOLS.items():
                values = ((column, 100 * metrics[metric_name(name, column)]) for column in columns)
                lines[f"  {protocol.title}"] = " ".join(
                    f"{value:{_width(column)}.1f}" for column, value in values
                )
        else:
            lines["detection mAP"] = "none, for the labels give no segments of these videos"
        return {
            **lines,
            "video-level mAP": f"{100 * metrics['video_map']:.1f} %",
            **({"motion": f"in {100 * metrics['usage']:.1f} % of the clips"} if "usage" in metrics else {}),
            "clips": f"{rows_mean:.1f} per video",
            **cost,
        }

    def save(self, path: Path) -> None:
        """Write as an .npz that NumPy reads with allow_pickle=False; the arrays have the fields' names, those of
        detections and truth "detections/NAME" and "truth/NAME", those of the ledger "macs/NAME". Beside it the
        detections as detections.json and detections.csv."""
        arrays: dict[str, npt.NDArray[Any]] = {"classes": np.array(self.classes)}
        arrays |= {name: getattr(self, name) for name in ("labels", "scores", "offsets")}
        of_clips = {name: getattr(self, name) for name in _OF_CLIPS}
        arrays |= {name: array for name, array in of_clips.items() if array is not None}
        for part in _PARTS:
            arrays |= {f"{part}/{name}": array for name, array in vars(getattr(self, part)).items()}
        write_arrays(path, self, arrays)
        for name, write in zip(DETECTIONS, (write_json, write_csv), strict=True):
            write(path.with_name(name), self.detections, self.video_ids, self.classes)

    @classmethod
    def load(cls, path: Path) -> Localizations:
        with read_arrays(path) as (video_ids, ledger, arrays):
            fields: dict[str, Any] = {name: array for name, array in arrays.items() if "/" not in name}
            fields["classes"] = tuple(map(str, fields["classes"]))
            for part, kind in _PARTS.items():
                start = f"{part}/"
                fields[part] = kind(
                    **{
                        name.removeprefix(start): array
                        for name, array in arrays.items()
                        if name.startswith(start)
                    }
                )
            return cls(video_ids, ledger=ledger, **fields)


def detection_metrics(detections: Detections, truth: GroundTruth, classes: int) -> dict[str, float]:
    """The detection mAP by each of `PROTOCOLS` at each of `IOUS`, and averaged over each of `AVERAGES`.

    Args:
        classes: C.
    """
    shown: dict[str, float] = {}
    for name in PROTOCOLS:
        precisions = mean_over_classes(average_precision(match(detections, truth, IOUS, name), classes))
        by_iou = dict(zip(IOUS, precisions, strict=True))
        shown |= {metric_name(name, f"{iou:g}"): float(value) for iou, value in by_iou.items()}
        for over, ious in AVERAGES.items():
            shown[metric_name(name, over)] = float(np.mean([by_iou[iou] for iou in ious]))
    return shown


def metric_name(protocol: str, iou: str) -> str:
    """Of a detection mAP: "thumos14_map_0.5", "thumos14_map_0.1:0.7"."""
    return f"{protocol}_map_{iou}"


def _width(column: str) -> int:
    return max(5, len(column))
