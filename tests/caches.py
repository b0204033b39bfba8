"""Small caches made in the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cache_schema import Preprocessing, StreamSpec, VideoRecord, write_shard

PREPROCESSING = Preprocessing(256, 224, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def make_spec(name: str = "tiny_8", *, dim: int = 8, classes: int = 0, **more: object) -> StreamSpec:
    values: dict[str, object] = {
        "name": name,
        "backbone": "timm:tiny",
        "weights": "random:0",
        "weights_digest": "0" * 64,
        "preprocessing": PREPROCESSING,
        "feature_dim": dim,
        "num_classes": classes,
        "macs_per_row": 1_000_000,
        "precision": "fp32",
    }
    return StreamSpec(**{**values, **more})  # type: ignore[arg-type]


def make_record(
    video_id: str, rows: int, *, dim: int = 8, classes: int = 0, seed: int = 0, features: object = None
) -> VideoRecord:
    random = np.random.default_rng([seed, *video_id.encode()])
    instants = np.arange(rows, dtype=np.float64)
    values = random.standard_normal((rows, dim)) if features is None else np.asarray(features)
    return VideoRecord(
        id=video_id,
        features=values.astype(np.float16),
        scores=random.standard_normal((rows, classes)).astype(np.float16) if classes else None,
        spans=np.stack([instants, instants], axis=1),
        duration_s=float(rows),
        fps=25.0,
        source=f"{video_id}.mp4",
        fingerprint=f"print of {video_id}",
    )


def make_partial(
    video_id: str, rows: int, lost: Sequence[int], *, damage: str = "damaged at 3 s", **more: Any
) -> VideoRecord:
    """`make_record` without some of its rows."""
    return without_rows(make_record(video_id, rows, **more), lost, damage=damage)


def without_rows(whole: VideoRecord, lost: Sequence[int], *, damage: str = "damaged at 3 s") -> VideoRecord:
    """A record as it would be if some rows did not decode."""
    kept = [row for row in range(len(whole.spans)) if row not in lost]
    return replace(
        whole,
        features=whole.features[kept],
        scores=None if whole.scores is None else whole.scores[kept],
        spans=whole.spans[kept],
        damage=damage,
        lost=tuple(lost),
    )


def write_stream(
    cache: Path, spec: StreamSpec, videos: Mapping[str, int], *, shard_size: int = 4, seed: int = 0
) -> list[Path]:
    """Write videos (id -> rows) in shards of `shard_size`."""
    records = [
        make_record(video_id, rows, dim=spec.feature_dim, classes=spec.num_classes, seed=seed)
        for video_id, rows in videos.items()
    ]
    return [
        write_shard(cache / spec.name, spec, records[i : i + shard_size], tools={"thriftvid": "test"})
        for i in range(0, len(records), shard_size)
    ]
