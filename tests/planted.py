"""A cache with a planted structure: coarse features say when to look, fine ones what is there.

Half of the classes can be read from the coarse features of any frame. The videos of the others share one
scene; a detail is on screen for 2 to 4 consecutive frames. The coarse features show that something is there,
only the fine features of those frames what it is. Which frames these are is known: an oracle opens the gate there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pack_sequence

from cache_schema import FeatureCache, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from policy.data.batches import Batch
from policy.data.opening import Dataset
from policy.evaluation.predictions import Predictions
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.method import LiteEvalMethod
from policy.liteeval.model import LiteEvalOutput
from policy.method import Losses, Moment, Prediction, class_probabilities, evaluate
from policy.runs import open_data
from policy.training.loop import train as train_method
from policy.training.losses import classification_loss
from tests.caches import make_record, make_spec

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Planted:
    """A planted cache and what is known of it.

    Attributes:
        informative: by video, (T,) of True where the fine features say more than the coarse ones: where an oracle
            opens the gate.
    """

    cache: FeatureCache
    labels: LabelSet
    informative: Mapping[str, npt.NDArray[np.bool_]]


def plant(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 120,
    test: int = 60,
    classes: int = 10,
    dim: int = 64,
    noise: float = 1.0,
    signal: float = 5.0,
    readable_signal: float | None = None,
    lengths: tuple[int, int] = (8, 20),
    place: tuple[float, float] = (0.0, 1.0),
    readable: int | None = None,
    shown: tuple[int, int] = (2, 4),
) -> Planted:
    """Write streams coarse_112 and fine_224.

    Args:
        noise: standard deviation of each feature.
        signal: length of the vectors that tell classes, scenes and details apart.
        readable_signal: of those that tell the readable classes apart, if another. They are then in the coarse
            features only; of a weak signal it takes many frames to be sure.
        lengths: least and largest number of rows of a video.
        place: the part of a video, from 0 to 1, within which its detail is on screen.
        readable: how many of the classes can be read from the coarse features; by default half of them.
        shown: for how many rows a detail is on screen, at least and at most.
    """
    random = np.random.default_rng(seed)
    coarse_scene, fine_scene = (directions(random, classes + 2, dim) * signal for _ in range(2))
    readable = classes // 2 if readable is None else readable
    if readable_signal is not None:
        coarse_scene[:readable] *= readable_signal / signal
        fine_scene[:readable] = 0
    coarse_records: list[VideoRecord] = []
    fine_records: list[VideoRecord] = []
    videos = []
    informative = {}
    for index in range(train + test):
        video_id, label = f"video_{index:04d}", index % classes
        length = int(random.integers(lengths[0], lengths[1] + 1))
        coarse, fine = (random.standard_normal((length, dim)) * noise for _ in range(2))
        detail = slice(0, 0)
        if label < readable:
            coarse += coarse_scene[label]
            fine += fine_scene[label]
        else:
            on = int(random.integers(shown[0], shown[1] + 1))
            first, last = int(place[0] * length), int(place[1] * length) - on
            start = int(random.integers(first, max(first, last) + 1))
            detail = slice(start, start + on)
            coarse += coarse_scene[classes]
            fine += fine_scene[classes]
            coarse[detail] += coarse_scene[classes + 1]
            fine[detail] += fine_scene[label]
        informative[video_id] = np.zeros(length, np.bool_)
        informative[video_id][detail] = True
        coarse_records.append(make_record(video_id, length, dim=dim, features=coarse))
        fine_records.append(make_record(video_id, length, dim=dim, features=fine))
        videos.append(VideoLabel(video_id, (f"class {label}",), "train" if index < train else "test"))
    for name, records, macs in (("coarse_112", coarse_records, 80), ("fine_224", fine_records, 7800)):
        spec = replace(make_spec(name, dim=dim), macs_per_row=macs * 1_000_000)
        write_shard(folder / name, spec, records, tools={"thriftvid": "test"})
    return Planted(FeatureCache(folder), LabelSet(folder / "labels.csv", tuple(videos)), informative)


def write_planted(folder: Path, **options: Any) -> tuple[FeatureCache, LabelSet]:
    """`plant`, for those who need not know which rows are informative."""
    planted = plant(folder, **options)
    return planted.cache, planted.labels


class OracleGating(LiteEvalMethod):
    """LiteEval's network, trained and judged with its gates open on the informative rows, and on no other."""

    def __init__(self, config: LiteEvalConfig, data: Dataset, planted: Planted) -> None:
        super().__init__(config, data)
        self.planted, self.videos = planted, data.train

    @property
    def constrained(self) -> bool:
        return False  # its usage is given

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        return {"loss": classification_loss(self._run(batch).logits, batch.targets)}

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        out = self._run(batch)
        return Prediction(class_probabilities(out.logits, self.multi_label), out.split(out.gates))

    def _run(self, batch: Batch) -> LiteEvalOutput:
        rows = [self.planted.informative[self.videos.ids[index]] for index in batch.indices]
        gates = pack_sequence([torch.from_numpy(each).float() for each in rows], enforce_sorted=False).data
        out: LiteEvalOutput = self.model(batch.inputs["coarse"], batch.inputs["fine"], gates=gates)
        return out


def oracle(config: LiteEvalConfig, planted: Planted, folder: Path) -> Predictions:
    """What LiteEval's network says when it is told where to look; `folder` is for its training."""
    data = open_data(config, planted.cache, planted.labels)
    torch.manual_seed(config.seed)
    method = OracleGating(config, data, planted)
    folder.mkdir(parents=True, exist_ok=True)
    cpu = torch.device("cpu")
    train_method(method, data.train, folder, device=cpu)
    method.videos = data.evaluation
    return evaluate(method, data.evaluation, device=cpu)


def directions(random: np.random.Generator, count: int, dim: int) -> Rows:
    """(count, dim) unit vectors."""
    vectors = random.standard_normal((count, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def write_planted_labels(labels: LabelSet, path: Path) -> None:
    """Write them as the generic CSV."""
    lines = [f"{video.video_id},{';'.join(video.labels)},{video.subset}\n" for video in labels.videos]
    path.write_text("video_id,label,subset\n" + "".join(lines), encoding="utf-8")
