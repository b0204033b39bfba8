"""The data sets on which the LiteEval paper evaluates, and what it sets differently for each (Sec. 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PaperDataset:
    """Attributes:
    coarse_hidden, fine_hidden: units of the LSTMs.
    batch: videos per step.
    train_videos, eval_videos: of the splits the paper uses.
    """

    title: str
    coarse_hidden: int
    fine_hidden: int
    batch: int
    train_videos: int
    eval_videos: int


DATASETS: Mapping[str, PaperDataset] = {
    "fcvid": PaperDataset("FCVID", 512, 2048, 256, 45_611, 45_612),
    "activitynet": PaperDataset("ActivityNet", 64, 512, 128, 10_024, 4_926),
}
