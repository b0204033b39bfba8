"""Predictions of a trained method on videos, what each cost, and how good they are."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cache_schema import UserError
from cache_schema.costs import stream_cost
from cache_schema.run_folder import write_atomically
from policy.accounting import Costs, IntArray, costs
from policy.data import VideoSet, batches, read_ahead
from policy.method import Method
from policy.metrics import mean_average_precision, top1


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
        macs: (R, M, 3) int64: of the coarse backbone, of the fine one, of the method's own networks.
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


@torch.no_grad()
def evaluate(method: Method, videos: VideoSet, *, device: torch.device) -> Predictions:
    """Run a method on videos. Draws, where it has any, follow from the seed of its configuration."""
    method.model.to(device).eval()
    generator = torch.Generator().manual_seed(method.config.seed)
    lengths = np.array([videos.length(i) for i in range(len(videos))], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    looked = [method.rows(int(length)) for length in lengths]
    seen = np.array([len(rows) for rows in looked], np.int64)

    scores = np.empty((method.draws, *videos.labels.shape), np.float32)
    gates = np.zeros((method.draws, int(offsets[-1])), np.uint8)
    macs = np.empty((method.draws, len(videos), 3), np.int64)
    for draw in range(method.draws):
        start = 0
        read = batches(videos, method.config.batch, rows=method.rows, scored=method.scored)
        for batch in read_ahead(read) if device.type != "cpu" else read:
            predicted = method.predict(batch.to(device), generator)
            stop = start + len(predicted.scores)
            scores[draw, start:stop] = predicted.scores.float().cpu().numpy()
            for k, video in enumerate(range(start, stop)):
                rows = looked[video] + offsets[video]
                if predicted.gates is not None:
                    gates[draw, rows] = predicted.gates[k].cpu().numpy() > 0
                else:
                    gates[draw, rows] = "fine" in method.roles
            start = stop
        fine = np.add.reduceat(gates[draw].astype(np.int64), offsets[:-1])
        spent = _costs(method, videos, seen, fine)
        macs[draw] = np.stack([spent.coarse, spent.fine, spent.networks], axis=1)
    return Predictions(videos.ids, videos.labels, scores, offsets, gates, seen, macs)


def _costs(method: Method, videos: VideoSet, seen: IntArray, fine: IntArray) -> Costs:
    per_row = {role: stream_cost(videos.streams[role].spec).macs for role in method.roles}
    return costs(
        coarse_rows=seen if "coarse" in method.roles else 0,
        fine_rows=fine,
        networks=method.network_macs(seen, fine),
        coarse_macs=per_row.get("coarse", 0),
        fine_macs=per_row.get("fine", 0),
    )
