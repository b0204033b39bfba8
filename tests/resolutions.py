"""A cache of three streams in which a video shows its class at one of them alone; the cheapest says at which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache_schema import FeatureCache, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from tests.caches import make_record, make_spec

STREAMS = ("low_84", "middle_112", "high_224")
GFLOPS = (0.1, 1.0, 4.0)
"""Of a row."""


@dataclass(frozen=True)
class Resolutions:
    """Attributes:
    told_at: by video, the place of the stream that shows its class.
    """

    cache: FeatureCache
    labels: LabelSet
    told_at: dict[str, int]


def plant_resolutions(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 240,
    test: int = 150,
    classes: int = 4,
    dim: int = 16,
    lengths: tuple[int, int] = (6, 12),
    signal: float = 4.0,
) -> Resolutions:
    """Write the streams. All features are noise of variance 1, but for the class's direction in one stream, and in
    the cheapest a direction that says which one that is.

    Args:
        signal: length of these directions.
    """
    random = np.random.default_rng(seed)

    def directions(count: int) -> npt.NDArray[np.float64]:
        vectors = random.standard_normal((count, dim))
        return np.asarray(signal * vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    of_class, of_stream = [directions(classes) for _ in STREAMS], directions(len(STREAMS))
    records: list[list[object]] = [[] for _ in STREAMS]
    videos, told_at = [], {}
    for index in range(train + test):
        video_id, label, told = f"video_{index:04d}", int(random.integers(classes)), index % len(STREAMS)
        length = int(random.integers(lengths[0], lengths[1] + 1))
        for place, of_place in enumerate(records):
            features = random.standard_normal((length, dim))
            features += of_class[place][label] * (place == told) + of_stream[told] * (place == 0)
            of_place.append(make_record(video_id, length, dim=dim, features=features))
        videos.append(VideoLabel(video_id, (f"class {label}",), "train" if index < train else "test"))
        told_at[video_id] = told
    for name, gflops, of_place in zip(STREAMS, GFLOPS, records, strict=True):
        spec = replace(make_spec(name, dim=dim), macs_per_row=round(gflops * 1e9))
        write_shard(folder / name, spec, of_place, tools={"thriftvid": "test"})  # type: ignore[arg-type]
    return Resolutions(FeatureCache(folder), LabelSet(folder / "labels.csv", tuple(videos)), told_at)
