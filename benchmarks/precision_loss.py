"""How far features computed in bfloat16 are from those in float32, and what is trained on them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.pictures import Labels, Pictures, lite_weights
from cache_schema import to_float16
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.batcher import Batcher


def computed(batcher: Batcher, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Features and scores as the cache keeps them."""
    rows = [*batcher.add(None, 0, pixels), *batcher.flush()]
    features = to_float16(np.concatenate([one.features for one in rows]), "features")
    scores = None if rows[0].scores is None else np.concatenate([one.scores for one in rows])
    return features, scores


def cosines(features: NDArray[Any], others: NDArray[Any]) -> list[str]:
    """Of the pictures' features with the others: the median, the lowest, the lowest without what they share."""
    a, b = (array.astype(np.float64) for array in (features, others))
    shared = a.mean(axis=0)
    each, centred = (
        (x * y).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
        for x, y in ((a, b), (a - shared, b - shared))
    )
    return [f"{value:.6f}" for value in (np.median(each), each.min(), centred.min())]


COSINES = ("cosine, median", "lowest", "lowest centred")
TRAINED = ("pictures", "fp32 %", "bf16 %", "on fp32, tested bf16 %", "bf16 − fp32", *COSINES, "same class")


def trained(
    number: int, size: int, tasks: dict[str, tuple[Pictures, Labels]], splits: int
) -> list[list[str]] | None:
    """The second table's lines for an EfficientNet-Lite; None: its weights are not installed."""
    import torch  # after extract, which tells OpenMP how to wait

    request = parse_stream(f"timm:tf_efficientnet_lite{number}@{size}")
    with tempfile.TemporaryDirectory() as folder:
        weights = lite_weights(number, Path(folder))
        if weights is None:
            return None
        cpu = torch.device("cpu")
        batchers = [
            Batcher(Backbone(request, weights=str(weights), device=cpu, precision=precision), 16)
            for precision in ("fp32", "bf16")
        ]
    lines = []
    for task, (pixels, labels) in tasks.items():
        (fp32, scores), (bf16, others) = (computed(batcher, pixels) for batcher in batchers)
        assert scores is not None and others is not None
        same = (scores.argmax(axis=1) == others.argmax(axis=1)).mean()
        accuracies = accuracies_of(fp32, bf16, labels, splits)
        cells = [f"{100 * mean:.2f} ± {100 * spread:.2f}" for mean, spread in map(mean_spread, accuracies)]
        mean, spread = mean_spread([b - a for a, b in zip(accuracies[0], accuracies[1], strict=True)])
        difference = f"{100 * mean:+.2f} ± {100 * spread / np.sqrt(splits):.2f}"
        lines.append(
            [
                f"lite{number}, {task}",
                str(len(labels)),
                *cells,
                difference,
                *cosines(fp32, bf16),
                f"{same:.1%}",
            ]
        )
    return lines


def accuracies_of(fp32: NDArray[Any], bf16: NDArray[Any], labels: Labels, splits: int) -> list[list[float]]:
    """Of each split, trained and tested on fp32; on bf16; trained on fp32 and tested on bf16."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    accuracies: list[list[float]] = [[], [], []]
    chooser = StratifiedShuffleSplit(splits, train_size=0.3, random_state=0)
    for train, test in chooser.split(fp32, labels):
        models = []
        for features in (fp32, bf16):
            # All components: the same regression, in as many dimensions as pictures instead of features.
            model = make_pipeline(StandardScaler(), PCA(), LogisticRegression(C=0.01, max_iter=1000))
            models.append(model.fit(features[train].astype(np.float64), labels[train]))
        for kept, model, features in zip(accuracies, (*models, models[0]), (fp32, bf16, bf16), strict=True):
            kept.append(float(model.score(features[test].astype(np.float64), labels[test])))
    return accuracies


def mean_spread(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1))
