"""Videos of which some rows tell the class, and which these are is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cache_schema import FeatureCache, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from tests.caches import make_record, make_spec
from tests.planted import Planted, directions


def plant_rows(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 200,
    test: int = 100,
    classes: int = 4,
    dim: int = 16,
    rows: int = 10,
    telling: int = 2,
    easy: float = 0.5,
    signal: float = 6.0,
    coarse_noise: float = 1.0,
) -> Planted:
    """Write streams coarse_112 and fine_224.

    Args:
        telling: rows of a hard video that tell its class, anywhere in it; the others show a scene that all have.
        easy: share of the videos of which all rows tell the class.
        signal: length of the vectors that tell classes and scenes apart, with noise of 1 in each fine feature.
        coarse_noise: of each coarse feature. They show where hard videos' telling rows are, and no class.
    """
    random = np.random.default_rng(seed)
    scenes, spots = (directions(random, classes + 1, dim) * signal for _ in range(2))
    coarse_records, fine_records, videos, informative = [], [], [], {}
    for index in range(train + test):
        video_id, label = f"video_{index:04d}", index % classes
        is_easy = (index // classes) % 10 < round(10 * easy)
        tells = np.full(rows, is_easy)
        if not is_easy:
            tells[random.choice(rows, telling, replace=False)] = True
        fine = random.standard_normal((rows, dim)) + np.where(tells[:, None], scenes[label], scenes[classes])
        spot = np.where((tells & (not is_easy))[:, None], spots[0], spots[1])
        coarse = random.standard_normal((rows, dim)) * coarse_noise + spot
        coarse_records.append(make_record(video_id, rows, dim=dim, features=coarse))
        fine_records.append(make_record(video_id, rows, dim=dim, features=fine))
        informative[video_id] = tells
        videos.append(VideoLabel(video_id, (f"class {label}",), "train" if index < train else "test"))
    for name, records, macs in (("coarse_112", coarse_records, 40), ("fine_224", fine_records, 4000)):
        spec = replace(make_spec(name, dim=dim), macs_per_row=macs * 1_000_000)
        write_shard(folder / name, spec, records, tools={"thriftvid": "test"})
    return Planted(FeatureCache(folder), LabelSet(folder / "labels.csv", tuple(videos)), informative)
