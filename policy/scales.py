"""Input scales from the training videos."""

from __future__ import annotations

import numpy as np
import torch

from policy.data import Role, RowChoice, VideoSet, every_row
from policy.liteeval.standardize import Standardize


def fit_scale(scale: Standardize, videos: VideoSet, role: Role, rows: RowChoice = every_row) -> None:
    """Fit mean and std to those rows of the training videos that a method looks at."""
    arrays = (videos.features(role, i) for i in range(len(videos)))
    scale.fit(torch.from_numpy(a[rows(len(a))].astype(np.float32)) for a in arrays)
