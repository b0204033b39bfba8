"""A cache with a planted structure: coarse features say when to look, fine ones what is there.

Half of the classes can be read from the coarse features of any frame. The videos of the others share one
scene; a detail is on screen for 2 to 4 consecutive frames. The coarse features show that something is there,
only the fine features of those frames what it is.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache_schema import FeatureCache, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from tests.caches import make_record, make_spec

Rows = npt.NDArray[np.float64]


def write_planted(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 120,
    test: int = 60,
    classes: int = 10,
    dim: int = 64,
    noise: float = 1.0,
    signal: float = 5.0,
    lengths: tuple[int, int] = (8, 20),
) -> tuple[FeatureCache, LabelSet]:
    """Write streams coarse_112 and fine_224 and return the cache and its labels.

    Args:
        noise: standard deviation of each feature.
        signal: length of the vectors that tell classes, scenes and details apart.
        lengths: least and largest number of rows of a video.
    """
    random = np.random.default_rng(seed)
    coarse_scene, fine_scene = (_directions(random, classes + 2, dim) * signal for _ in range(2))
    readable = classes // 2
    coarse_records: list[VideoRecord] = []
    fine_records: list[VideoRecord] = []
    videos = []
    for index in range(train + test):
        label = index % classes
        length = int(random.integers(lengths[0], lengths[1] + 1))
        coarse, fine = (random.standard_normal((length, dim)) * noise for _ in range(2))
        if label < readable:
            coarse += coarse_scene[label]
            fine += fine_scene[label]
        else:
            on = int(random.integers(2, 5))
            start = int(random.integers(0, length - on + 1))
            coarse += coarse_scene[classes]
            fine += fine_scene[classes]
            coarse[start : start + on] += coarse_scene[classes + 1]
            fine[start : start + on] += fine_scene[label]
        video_id = f"video_{index:04d}"
        coarse_records.append(make_record(video_id, length, dim=dim, features=coarse))
        fine_records.append(make_record(video_id, length, dim=dim, features=fine))
        videos.append(VideoLabel(video_id, (f"class {label}",), "train" if index < train else "test"))
    for name, records, macs in (("coarse_112", coarse_records, 80), ("fine_224", fine_records, 7800)):
        spec = replace(make_spec(name, dim=dim), macs_per_row=macs * 1_000_000)
        write_shard(folder / name, spec, records, tools={"thriftvid": "test"})
    return FeatureCache(folder), LabelSet(folder / "labels.csv", tuple(videos))


def _directions(random: np.random.Generator, count: int, dim: int) -> Rows:
    """(count, dim) unit vectors."""
    vectors = random.standard_normal((count, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def write_planted_labels(labels: LabelSet, path: Path) -> None:
    """Write them as the generic CSV."""
    lines = [f"{video.video_id},{';'.join(video.labels)},{video.subset}\n" for video in labels.videos]
    path.write_text("video_id,label,subset\n" + "".join(lines), encoding="utf-8")
