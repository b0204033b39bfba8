"""Pools of models with planted affinities: how likely each model is right depends on a video's group, and the
smallest model's scores show the group.

Classes belong to groups. On a video of group g, model n is right with probability RIGHT[g][n], independently;
where it is wrong it names another class of the same group. So the group, and nothing else of use, can be read from
the smallest model's scores, and the best that a selector can do with them is known: the best model for each group
at a given price (`informed`). How sure the models are says nothing, unless `telling`: then a model that is wrong
is less sure, as real ones are, and a confidence cascade has something to go by.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache_schema import FeatureCache, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from policy.evaluation.curves import upper_hull
from policy.selection.curve import SelectionCurve
from tests.caches import make_spec

Floats = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

GFLOPS = (0.6, 2.0, 4.7, 18.4)
"""Of the four models, as X3D's."""
RIGHT: Floats = np.array(
    [
        [0.95, 0.95, 0.95, 0.95],  # easy for all
        [0.30, 0.90, 0.90, 0.92],  # the second model is enough
        [0.20, 0.30, 0.85, 0.90],
        [0.15, 0.20, 0.30, 0.90],  # only the largest
    ]
)
"""(G, N): chance that a model is right on a video of a group."""


@dataclass(frozen=True)
class PlantedPool:
    """A cache with streams m0, m1, …, and what is known of them.

    Attributes:
        group: by video, its group.
        right: (G, N).
        gflops: (N,) per video.
    """

    cache: FeatureCache
    labels: LabelSet
    group: dict[str, int]
    right: Floats
    gflops: Floats

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(f"m{n}" for n in range(len(self.gflops)))

    def accuracy(self, curve: SelectionCurve) -> Floats:
        """(P,): what the choices of a curve are right of on average, by the planted chances."""
        group = [self.group[video] for video in curve.table.video_ids]
        return np.asarray(self.right[group, np.log2(curve.answering).astype(np.int64)].mean(axis=1))

    def gain(self, curve: SelectionCurve) -> float:
        """Of what the best choice per group gains over random selection at equal cost, on average over the costs
        that all reach, the share that a curve of single models gains. All three by the planted chances, on the
        very videos of the curve.

        Random selection is the hull of the single models; between two points of the others lies what tossing a
        coin for each video would give.
        """
        group = np.array([self.group[video] for video in curve.table.video_ids])
        informed = np.array([self.informed(price, group) for price in (*np.geomspace(2, 1e-4, 300), 0.0)]).T
        single = self.gflops, self.right[group].mean(axis=0)
        hull = upper_hull(*single)
        costs = curve.gflops, self.accuracy(curve)
        low = max(informed[1].min(), costs[0].min())
        high = min(informed[1].max(), costs[0].max(), single[0].max())
        budgets = np.linspace(low, high, 1000)
        random = np.interp(budgets, single[0][hull], single[1][hull]).mean()
        best = np.interp(budgets, informed[1], informed[0]).mean()
        found = np.interp(budgets, *costs).mean()
        return float((found - random) / (best - random))

    def informed(self, price: float, group: IntArray | None = None) -> tuple[float, float]:
        """Expected accuracy and GFLOPs of the best choice per group, at a price in accuracy per GFLOP; the
        smallest model always runs.

        Args:
            group: of the videos; by default groups are equally frequent.
        """
        group = np.arange(len(self.right)) if group is None else group
        further = np.where(np.arange(len(self.gflops)) == 0, 0.0, self.gflops)
        chosen = (self.right - price * further).argmax(axis=1)[group]
        return float(self.right[group, chosen].mean()), float(self.gflops[0] + further[chosen].mean())


def plant_pool(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 1000,
    test: int = 1000,
    classes_per_group: int = 5,
    right: Floats = RIGHT,
    gflops: tuple[float, ...] = GFLOPS,
    rows: int = 1,
    telling: bool = False,
) -> PlantedPool:
    """Write the streams: class scores with a feature of no use, `rows` alike rows for each video.

    Args:
        telling: wrong answers are less sure than right ones, on average.
    """
    random = np.random.default_rng(seed)
    groups, models = right.shape
    count = groups * classes_per_group
    names = tuple(f"class {c:03d}" for c in range(count))
    label = random.integers(count, size=train + test)
    group = label // classes_per_group
    ids = [f"video{v:06d}" for v in range(train + test)]
    for n in range(models):
        is_right = random.random(len(label)) < right[group, n]
        other = (label - group * classes_per_group + random.integers(1, classes_per_group, len(label))) % (
            classes_per_group
        ) + group * classes_per_group
        said = np.where(is_right, label, other)
        sure = random.normal(6.0, 1.0, len(label)) - (2.5 * ~is_right if telling else 0.0)
        logits = random.normal(0.0, 0.5, (len(label), count))
        logits[np.arange(len(label)), said] += sure
        spec = make_spec(
            f"m{n}",
            dim=1,
            classes=count,
            macs_per_row=round(gflops[n] / rows * 1e9) - count,
        )
        spec = type(spec)(**{**vars(spec), "classes": names})
        records = [
            VideoRecord(
                id=ids[v],
                features=np.zeros((rows, 1), np.float16),
                scores=np.repeat(logits[v : v + 1], rows, axis=0).astype(np.float16),
                spans=np.zeros((rows, 2)),
            )
            for v in range(len(label))
        ]
        for start in range(0, len(records), 256):
            write_shard(folder / f"m{n}", spec, records[start : start + 256], tools={"thriftvid": "test"})
    videos = tuple(
        VideoLabel(ids[v], (names[label[v]],), "train" if v < train else "test") for v in range(len(ids))
    )
    return PlantedPool(
        FeatureCache(folder),
        LabelSet(Path("labels.csv"), videos),
        {ids[v]: int(group[v]) for v in range(len(ids))},
        right,
        np.array(gflops),
    )
