"""Whether what a pool says of videos can be: what its accuracy gives away."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from policy.selection.config import PoolConfig
from policy.selection.heads import parse_held_out
from policy.selection.opening import Pool
from policy.selection.pool import PoolTable

_BETTER = 0.05
"""Accuracy on training videos above that on others that is worth a word."""
_SURE = 4.0
"""Standard errors."""
_NEAR_CHANCE = 0.02
"""Accuracy above chance (or three times chance, if less) that comes of a few classes in their places by chance."""


def suspicions(config: PoolConfig, pool: Pool, train: PoolTable, evaluation: PoolTable) -> Iterator[str]:
    """A line for each model that is no better than chance, and one for those that know the training videos."""
    yield from _no_better_than_chance(config, pool, train)
    if config.heads == "scores":
        yield from _trained_on(config, train, evaluation)


def _no_better_than_chance(config: PoolConfig, pool: Pool, table: PoolTable) -> Iterator[str]:
    chance = float(table.labels.mean())
    least = chance + min(3 * chance, _NEAR_CHANCE)
    for n, member in enumerate(pool):
        right = float(table.correct[:, n].mean())
        if right > least or chance == 1:  # of a single class there is no telling
            continue
        spec = member.stream.spec
        why = ""
        if config.heads == "scores" and spec.classes is None:
            order = "of --classes" if config.score_classes else "in which they were taken (--classes FILE)"
            why = f"; its class scores seem to be in another order than that {order}"
        yield (
            f"WARNING: {member.name.stream} is right on {100 * right:.3g} % of the training videos, hardly more "
            f"than chance ({100 * chance:.3g} %){why}"
        )


def _trained_on(config: PoolConfig, train: PoolTable, evaluation: PoolTable) -> Iterator[str]:
    held_out = parse_held_out(config.out_of_fold, train.models)
    known, other = train.correct.mean(axis=0), evaluation.correct.mean(axis=0)
    variance = known * (1 - known) / len(train) + other * (1 - other) / len(evaluation)
    optimistic = known - other > np.maximum(_BETTER, _SURE * np.sqrt(variance))
    named = [n for n, model in enumerate(train.models) if optimistic[n] and model not in held_out]
    if named:
        worst = max(named, key=lambda n: float(known[n] - other[n]))
        more = f" (and {len(named) - 1} more such)" if len(named) > 1 else ""
        yield (
            f"{train.models[worst]} is right on {100 * known[worst]:.1f} % of the training videos and "
            f"{100 * other[worst]:.1f} % of those for evaluation{more}: if it was trained on the former, its "
            "affinities are optimistic; --out-of-fold, or --heads linear, uses scores of models that have not "
            "seen a video"
        )
