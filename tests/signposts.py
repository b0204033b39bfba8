"""Caches for agents that see fine features only: what is on screen says where in the video the class is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache_schema import FeatureCache, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from tests.caches import make_record, make_spec

FINE_MACS = 7_800_000_000
Place = Callable[[int, int], slice]
"""From a video's sign (0 or 1) and its length to the rows on which its class is shown."""


def at_either_end(sign: int, length: int) -> slice:
    """The first or the last fifth."""
    rows = length // 5
    return slice(length - rows, length) if sign else slice(0, rows)


def one_jump_away(sign: int, length: int) -> slice:
    """Row 4 or row 8."""
    row = 8 if sign else 4
    return slice(row, row + 1)


def write_signposts(
    folder: Path,
    place: Place,
    *,
    seed: int = 0,
    train: int = 192,
    test: int = 64,
    classes: int = 4,
    dim: int = 16,
) -> tuple[FeatureCache, LabelSet]:
    """Write stream fine_224, videos of 12 to 20 rows: the sign everywhere, and the class where `place` says."""
    random = np.random.default_rng(seed)
    vectors = 4 * np.linalg.qr(random.standard_normal((dim, dim)))[0]
    records, videos = [], []
    for index in range(train + test):
        label, sign = index % classes, int(random.integers(2))
        length = int(random.integers(12, 21))
        fine: npt.NDArray[np.float64] = 0.3 * random.standard_normal((length, dim)) + vectors[sign]
        fine[place(sign, length)] += vectors[2 + label]
        video_id = f"video_{index:04d}"
        records.append(make_record(video_id, length, dim=dim, features=fine))
        videos.append(VideoLabel(video_id, (f"class {label}",), "train" if index < train else "test"))
    spec = replace(make_spec("fine_224", dim=dim), macs_per_row=FINE_MACS)
    write_shard(folder / spec.name, spec, records, tools={"thriftvid": "test"})
    return FeatureCache(folder), LabelSet(folder / "labels.csv", tuple(videos))
