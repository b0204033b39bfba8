"""Methods that were trained on a part of the training videos each, and judge the others."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cache_schema import UserError
from policy.data.groups import independent, random_folds
from policy.data.opening import Dataset
from policy.method import Calibration, Method
from policy.training.loop import train

FOLDS = 5


def cross_fitted(method: Method, data: Dataset, device: torch.device, folds: int = FOLDS) -> Calibration:
    """The training videos in parts, whole groups each, with a method that was trained on the other parts alone."""
    videos, seed = data.train, method.config.seed
    folds = min(folds, independent(len(videos), videos.groups))
    if len(videos) < 2:
        raise UserError(
            "a single training video is too few to find an operating point on: --calibrate-subset"
        )
    fold = random_folds(len(videos), folds, seed, videos.groups)
    parts = []
    for number in range(folds):
        others = videos.part(np.flatnonzero(fold != number).tolist())
        with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(seed)
            refitted = method.refitted(replace(data, train=others), device)
            train(refitted, others, Path(folder), device=device)
        refitted.model.eval()
        parts.append((refitted, videos.part(np.flatnonzero(fold == number).tolist())))
    return parts
