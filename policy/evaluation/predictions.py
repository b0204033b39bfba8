"""Predictions of a trained method on videos, what each cost, and how good they are."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cache_schema import UserError
from cache_schema.costs import stream_cost
from cache_schema.run_folder import write_atomically
from policy.data.batches import Batch, VideoSet, batches, read_ahead
from policy.evaluation.ledger import Costs, IntArray, costs
from policy.evaluation.metrics import (
    Interval,
    mean_average_precision,
    percentile_interval,
    resampled_weights,
    top1,
    weighted_mean,
    weighted_mean_average_precision,
)
from policy.method import Method, Prediction


@dataclass(frozen=True)
class Predictions:
    """What a method said about M videos with N rows in all, in R draws (1 where nothing is drawn).

    Attributes:
        video_ids: M.
        labels: (M, C) bool.
        scores: (R, M, C) float32, class probabilities.
        offsets: (M+1,) int64; the rows of video m are offsets[m]:offsets[m+1].
        gates: (R, N) uint8, 1 on the rows on which the fine backbone ran.
        seen: (M,) int64, rows that the method looked at.
        macs: (R, M, 3) int64: of the coarse backbone, of the fine one (of what was chosen from a pool), of the
            method's own networks.
    """

    video_ids: tuple[str, ...]
    labels: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float32]
    offsets: IntArray
    gates: npt.NDArray[np.uint8]
    seen: IntArray
    macs: IntArray

    @property
    def lengths(self) -> IntArray:
        """(M,): T of each video."""
        return np.diff(self.offsets)

    @property
    def fine_rows(self) -> IntArray:
        """(R, M): fine features computed per video."""
        return np.add.reduceat(self.gates.astype(np.int64), self.offsets[:-1], axis=1)

    @property
    def usage(self) -> npt.NDArray[np.float64]:
        """(R, M): share of a video's rows on which the fine backbone ran."""
        return np.asarray(self.fine_rows / self.lengths)

    @property
    def gflops(self) -> npt.NDArray[np.float64]:
        """(R, M): 10⁹ MACs per video, all included."""
        return np.asarray(self.macs.sum(axis=2) / 1e9)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(R, M): whether the best-scored class is one of the video's; of equal scores the first class counts."""
        return np.asarray(self.labels[np.arange(len(self.labels)), self.scores.argmax(axis=2)])

    def mean_average_precision(self) -> float:
        """mAP, averaged over the draws."""
        return float(np.mean([mean_average_precision(draw, self.labels) for draw in self.scores]))

    def top1(self) -> float:
        """Top-1, or with several classes per video hit@1, averaged over the draws."""
        return float(np.mean([top1(draw, self.labels) for draw in self.scores]))

    def save(self, path: Path) -> None:
        """Write as an .npz that NumPy reads with allow_pickle=False; the arrays have the fields' names."""
        content = io.BytesIO()
        np.savez_compressed(content, **{**vars(self), "video_ids": np.array(self.video_ids)})
        write_atomically(path, content.getvalue())

    @staticmethod
    def load(path: Path) -> Predictions:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return Predictions(**{**arrays, "video_ids": tuple(map(str, arrays["video_ids"]))})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: cannot be read as predictions: {error}") from error


Predict = Callable[[Batch, torch.Generator], Prediction]
"""As `Method.predict`."""


@torch.no_grad()
def evaluate(
    method: Method,
    videos: VideoSet,
    *,
    device: torch.device,
    rows: Sequence[IntArray] | None = None,
    predict: Predict | None = None,
    draws: int | None = None,
) -> Predictions:
    """Run a method on videos. Draws, where it has any, follow from the seed of its configuration.

    Args:
        rows: per video those it looks at, instead of `method.rows`.
        predict: the same network under another rule, instead of `method.predict`.
        draws: how often, instead of `method.draws`.
    """
    method.model.to(device).eval()
    generator = torch.Generator().manual_seed(method.config.seed)
    predict = predict or method.predict
    draws = draws or method.draws
    offsets = row_offsets(videos)
    looked = rows or [method.rows(int(length)) for length in np.diff(offsets)]
    seen = np.array([len(chosen) for chosen in looked], np.int64)

    scores = np.empty((draws, *videos.labels.shape), np.float32)
    gates = np.zeros((draws, int(offsets[-1])), np.uint8)
    further = np.zeros((draws, len(videos)), np.int64)
    for draw in range(draws):
        start = 0
        read = batches(videos, method.config.batch, rows=looked, scored=method.scored, read=method.reads)
        for batch in read_ahead(read) if device.type != "cpu" else read:
            predicted = predict(batch.to(device), generator)
            stop = start + len(predicted.scores)
            scores[draw, start:stop] = predicted.scores.float().cpu().numpy()
            if predicted.further_macs is not None:
                further[draw, start:stop] = predicted.further_macs.cpu().numpy()
            for k, video in enumerate(range(start, stop)):
                at = looked[video] + offsets[video]
                if predicted.gates is not None:
                    gates[draw, at] = predicted.gates[k].cpu().numpy() > 0
                else:
                    gates[draw, at] = "fine" in method.roles
            start = stop
    charged = with_costs(method, videos, scores, offsets, gates, seen)
    charged.macs[..., 1] += further
    return charged


def row_offsets(videos: VideoSet) -> IntArray:
    """(M+1,): where each video's rows begin, and where the last ends, were all rows laid end to end."""
    lengths = [videos.length(i) for i in range(len(videos))]
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def with_costs(
    method: Method,
    videos: VideoSet,
    scores: npt.NDArray[np.float32],
    offsets: IntArray,
    gates: npt.NDArray[np.uint8],
    seen: IntArray,
) -> Predictions:
    """What was decided, charged by the cost table and for the method's networks; arrays as in Predictions."""
    macs = np.empty((len(gates), len(videos), 3), np.int64)
    for draw, opened in enumerate(gates):
        fine = np.add.reduceat(opened.astype(np.int64), offsets[:-1])
        spent = _costs(method, videos, seen, fine)
        macs[draw] = np.stack([spent.coarse, spent.fine, spent.networks], axis=1)
    return Predictions(videos.ids, videos.labels, scores, offsets, gates, seen, macs)


def intervals(
    runs: Sequence[Predictions], *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Bootstrap intervals of mean_average_precision, top1, gflops, usage and fine_features (means over videos).

    Videos are drawn with replacement, the same ones for every run, and each figure is averaged over the runs (and
    their draws): the interval says how far it depends on which videos happen to be in the evaluation subset, and
    not on the seeds, of which there are too few to be drawn again.

    Args:
        runs: one method's predictions of the same videos; several for several seeds.
        resamples: how many bootstrap samples. The same seed draws the same ones for every method.

    Raises:
        ValueError: no run, or the runs have different videos or labels, or no video has a class.
    """
    if not runs:
        raise ValueError("no predictions to take an interval of")
    labels = runs[0].labels
    for other in runs[1:]:
        if other.video_ids != runs[0].video_ids or not np.array_equal(other.labels, labels):
            raise ValueError("the runs have different videos or labels")
    weights = resampled_weights(len(labels), resamples, seed)
    mean_ap = float(np.mean([run.mean_average_precision() for run in runs]))
    resampled = [
        np.mean([weighted_mean_average_precision(draw, labels, weights) for draw in run.scores], axis=0)
        for run in runs
    ]
    said = {"mean_average_precision": percentile_interval(mean_ap, np.mean(resampled, axis=0), confidence)}
    per_video: dict[str, Callable[[Predictions], npt.NDArray[np.float64]]] = {
        "top1": lambda run: run.correct.astype(np.float64),
        "gflops": lambda run: run.gflops,
        "usage": lambda run: run.usage,
        "fine_features": lambda run: run.fine_rows.astype(np.float64),
    }
    for name, measure in per_video.items():
        values = np.mean([measure(run).mean(axis=0) for run in runs], axis=0)
        said[name] = percentile_interval(float(values.mean()), weighted_mean(values, weights), confidence)
    return said


def _costs(method: Method, videos: VideoSet, seen: IntArray, fine: IntArray) -> Costs:
    per_row = {role: stream_cost(videos.streams[role].spec).macs for role in method.roles}
    return costs(
        coarse_rows=seen if "coarse" in method.roles else 0,
        fine_rows=fine,
        networks=method.network_macs(seen, fine),
        coarse_macs=per_row.get("coarse", 0),
        fine_macs=per_row.get("fine", 0),
    )
