"""Random tables of what a pool of models says of videos, without a cache."""

from __future__ import annotations

import numpy as np

from policy.selection.curve import SelectionCurve
from policy.selection.pool import PoolTable, only


def random_table(
    seed: int,
    *,
    videos: int = 40,
    models: int = 3,
    classes: int = 5,
    multi_label: bool = False,
    coarse: bool = False,
) -> PoolTable:
    """Dearer models are right more often, and those that are right are surer; costs differ from video to video.

    Args:
        coarse: probabilities are quarters, so that many are equal, and costs are the same for all videos.
    """
    random = np.random.default_rng(seed)
    first = random.integers(classes, size=videos)
    labels = np.zeros((videos, classes), np.bool_)
    labels[np.arange(videos), first] = True
    if multi_label:
        labels |= random.random(labels.shape) < 0.3
    logits = random.normal(0, 1, (videos, models, classes))
    logits[np.arange(videos)[:, None], np.arange(models), first[:, None]] += random.normal(
        np.linspace(0.5, 2.5, models), 1.5, (videos, models)
    )
    probabilities = 1 / (1 + np.exp(-logits)) if multi_label else np.exp(logits)
    if not multi_label:
        probabilities /= probabilities.sum(axis=2, keepdims=True)
    macs = np.sort(random.integers(1, 30, models)) * 10**9 + np.arange(models)
    per_video = np.tile(macs, (videos, 1))
    if coarse:
        probabilities = (probabilities * 4).round() / 4
    else:
        per_video *= random.integers(1, 4, (videos, 1))
    return PoolTable(
        models=tuple(f"m{n}" for n in range(models)),
        video_ids=tuple(f"v{v}" for v in range(videos)),
        labels=labels,
        first=first,
        multi_label=multi_label,
        probabilities=probabilities.astype(np.float32),
        macs=per_video,
    )


def averaged(probabilities: np.ndarray, multi_label: bool) -> np.ndarray:
    """(S, C) -> (C,): the mean of S models' log-probabilities or, with several classes, of their log-odds."""
    if len(probabilities) == 1:
        return np.asarray(probabilities[0])
    clipped = probabilities.astype(np.float64).clip(1e-7, 1 - np.float64(np.float32(1e-7)))
    if multi_label:
        return np.asarray(1 / (1 + np.exp(-np.log(clipped / (1 - clipped)).mean(axis=0))))
    powers = np.exp(np.log(clipped).mean(axis=0))
    return np.asarray(powers / powers.sum())


def random_choices(table: PoolTable, seed: int, points: int = 6, name: str = "chosen") -> SelectionCurve:
    """A model for each video, drawn at random, at each of some points."""
    chosen = only(np.random.default_rng(seed).integers(len(table.models), size=(points, len(table))))
    nothing = np.zeros(len(table), np.int64)
    return SelectionCurve(name, table, np.arange(points, dtype=np.float64), chosen, chosen, nothing)
