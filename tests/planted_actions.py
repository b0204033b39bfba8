"""A cache of dense clips with planted actions, in which appearance and motion are high; when they are is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cache_schema import FeatureCache, Sampling, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, Segment, VideoLabel
from tests.caches import make_spec

DENSE = Sampling("dense", fps=25.0, frames=16, window=16)
CLIP_S = 16 / 25
STREAMS = {"rgb_dense16": 4_730_000_000, "flow_dense16": 56_000_000_000}
"""Names, and MACs of a clip."""


def plant_actions(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 24,
    test: int = 12,
    classes: int = 3,
    dim: int = 16,
    signal: float = 6.0,
    lengths: tuple[int, int] = (30, 50),
    several: bool = False,
    context: bool = False,
) -> tuple[FeatureCache, LabelSet]:
    """Write both streams.

    Args:
        signal: length of the vector that a class adds to the noise of a clip in which it is shown.
        lengths: least and largest number of clips of a video.
        several: every fourth video shows another class, too.
        context: for 4 to 6 clips after an action appearance stays as it was, but for a vector that is the same for
            all classes: where an action has been, and is over. Motion shows nothing there.
    """
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((len(STREAMS), classes, dim))
    vectors *= signal / np.linalg.norm(vectors, axis=2, keepdims=True)
    place = random.standard_normal(dim) if context else np.zeros(dim)
    records: list[list[VideoRecord]] = [[] for _ in STREAMS]
    labels = []
    for index in range(train + test):
        video_id, length = f"video_{index:04d}", int(random.integers(lengths[0], lengths[1] + 1))
        shown = [index % classes]
        if several and index % 4 == 0:
            shown.append((index + 1 + index // 4 % (classes - 1)) % classes)
        features = random.standard_normal((len(STREAMS), length, dim))
        segments = []
        for nth in range(3):  # an action in each third
            start = nth * length // 3 + int(random.integers(1, 4))
            end = start + int(random.integers(3, 6))
            label = shown[nth % len(shown)]
            features[:, start:end] += vectors[:, None, label]
            if context:
                over = min(end + int(random.integers(4, 7)), (nth + 1) * length // 3)
                features[0, end:over] += vectors[0, label] + place
            segments.append(Segment(f"class {label}", start * CLIP_S, end * CLIP_S))
        labels.append(
            VideoLabel(
                video_id,
                tuple(f"class {label}" for label in shown),
                "train" if index < train else "test",
                tuple(segments),
            )
        )
        starts = np.arange(length) * CLIP_S
        for rows, of_stream in zip(features, records, strict=True):
            of_stream.append(
                VideoRecord(
                    id=video_id,
                    features=rows.astype(np.float16),
                    spans=np.stack([starts, starts + 15 / 25], axis=1),
                    duration_s=length * CLIP_S,
                    fps=25.0,
                )
            )
    for (name, macs), of_stream in zip(STREAMS.items(), records, strict=True):
        spec = replace(make_spec(name, dim=dim), macs_per_row=macs, sampling=DENSE)
        write_shard(folder / name, spec, of_stream, tools={"thriftvid": "test"})
    return FeatureCache(folder), LabelSet(folder / "labels.json", tuple(labels))


def small(**more: Any) -> dict[str, Any]:
    """Settings of a training of seconds."""
    return {
        "appearance": "rgb_dense16",
        "motion": "flow_dense16",
        "epochs": 2,
        "epoch_steps": 40,
        "lr": 5e-3,
        **more,
    }
