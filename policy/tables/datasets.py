"""The data sets on which the papers evaluate, and their settings for each (Sec. 4.1 of both)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PaperDataset:
    """Attributes:
    settings: configuration fields: units of the LSTMs and videos per step; empty where the paper gives none.
    train_videos, eval_videos: sizes of the paper's splits; None where it does not give them.
    about: the paper rounds these two.
    of_pools: configuration fields of methods that choose from a pool of models.
    models: the pool, the cheapest first, where it differs from the pool of a table's rows.
    """

    title: str
    settings: Mapping[str, int] = field(default_factory=dict)
    train_videos: int | None = None
    eval_videos: int | None = None
    about: bool = False
    of_pools: Mapping[str, int] = field(default_factory=dict)
    models: tuple[str, ...] = ()

    def differs(self, train_videos: int, eval_videos: int) -> str:
        """The sizes of the paper's splits in words, if they differ from these; else empty."""
        if self.train_videos is None or self.eval_videos is None:
            return ""
        slack, about = (0.05, "about ") if self.about else (0.0, "")
        pairs = ((self.train_videos, train_videos), (self.eval_videos, eval_videos))
        if all(abs(theirs - ours) <= slack * theirs for theirs, ours in pairs):
            return ""
        return f"{about}{self.train_videos:,} training and {self.eval_videos:,} evaluation videos of {self.title}"


def _sizes(coarse_hidden: int, fine_hidden: int, batch: int) -> dict[str, int]:
    return {"coarse_hidden": coarse_hidden, "fine_hidden": fine_hidden, "batch": batch}


LITEEVAL: Mapping[str, PaperDataset] = {
    "fcvid": PaperDataset("FCVID", _sizes(512, 2048, 256), 45_611, 45_612),
    "activitynet": PaperDataset("ActivityNet", _sizes(64, 512, 128), 10_024, 4_926),
    "kinetics": PaperDataset("Kinetics", _sizes(1024, 2048, 512), 240_000, 20_000, about=True),
    "breakfast": PaperDataset("Breakfast"),
}
# Sec. 4.3 has 3 clips for Mini-Kinetics and 2 for HVU; for Kinetics-400 the paper gives no number.
SELECTION: Mapping[str, PaperDataset] = {
    "kinetics400": PaperDataset("Kinetics-400", {}, 250_000, 20_000, about=True),
    "mini-kinetics": PaperDataset("Mini-Kinetics", of_pools={"rows": 3}),
    "hvu": PaperDataset(
        "HVU",
        {},
        470_000,
        30_000,
        about=True,
        of_pools={"rows": 2, "epochs": 1},
        models=("efficientnet_b0_224", "x3d_m"),
    ),
}
LOCALIZATION: Mapping[str, PaperDataset] = {
    "thumos14": PaperDataset("Thumos'14", {}, 200, 212),
    "multithumos": PaperDataset("MultiThumos", {}, 200, 212),
}
DATASETS: Mapping[str, PaperDataset] = {**LITEEVAL, **SELECTION, **LOCALIZATION}


def dataset_title(name: str) -> str:
    """The name as the paper writes it; other names stay as they are."""
    return DATASETS[name].title if name in DATASETS else name
