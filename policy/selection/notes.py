"""What the user should know of a pool: how it was opened, and whether its accuracy is plausible."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cache_schema.command import count
from policy.data.opening import Dataset
from policy.selection.config import PoolConfig
from policy.selection.heads import CalibratedHead, parse_held_out
from policy.selection.opening import Pool, unnamed_streams
from policy.selection.pool import PoolTable, parse_models

_BETTER = 0.05
"""Accuracy on training videos above that on others that is worth a note."""
_SATURATED = 0.5
"""Share of training videos."""
_SAME = 1e-6
"""Probabilities that differ by less are the same."""
_SURE = 4.0
"""Standard errors."""
_NEAR_CHANCE = 0.02
"""Accuracy above chance (or three times chance, if less) that a few classes in the right order by luck explain."""


def pool_notes(
    config: PoolConfig, data: Dataset, pool: Pool, train: PoolTable, evaluation: PoolTable
) -> Iterator[str]:
    """A line for each thing."""
    yield from _how_opened(config, data)
    yield from _scales(pool)
    yield from _alike(train)
    yield from _no_better_than_chance(config, pool, train)
    if config.heads == "scores":
        yield from _trained_on(config, train, evaluation)


def _how_opened(config: PoolConfig, data: Dataset) -> Iterator[str]:
    unnamed = unnamed_streams(config, data)
    if unnamed and not config.score_classes:
        yield (
            f"class scores without names in {', '.join(unnamed)}: taken to be of the labels' classes in sorted "
            "order; --classes FILE says otherwise"
        )
    for name in parse_models(config.models, config.rows):
        stream = data.train.pool[name.stream]
        most = int(stream.row_counts().max(initial=0)) // stream.spec.sampling.crops
        if name.rows is not None and name.rows > most:
            yield f"{stream.name}: no video has {name.rows} clips or frames; all are looked at, at most {most}"
    if config.heads == "linear" and config.folds == 1:
        yield (
            "linear heads judge the videos that they were fitted on (--folds 1): the affinities of the training "
            "videos are optimistic"
        )
    elif config.heads == "linear":
        single = int((data.train.trained_labels.sum(axis=0) == 1).sum())
        if single:
            have = "has" if single == 1 else "have"
            yield (
                f"{count(single, 'classes')} {have} a single training video: the linear head that judges it out "
                "of fold knows no example"
            )


def _scales(pool: Pool) -> Iterator[str]:
    """One line on the temperatures of all models, one for those whose scores are saturated."""
    heads = {m.name.stream: m.head for m in pool if isinstance(m.head, CalibratedHead) and m.head.kind}
    if heads:
        each = (f"{name} {head.kind}, {1 / head.calibration.slope:.3g}" for name, head in heads.items())
        yield f"class scores and the temperatures that they are divided by: {'; '.join(each)}"
    saturated = {name: head.saturated for name, head in heads.items() if head.saturated > _SATURATED}
    if saturated:
        shares = ", ".join(f"{name} on {100 * share:.0f} %" for name, share in saturated.items())
        yield (
            f"without that the best class would have probability 1 on most training videos ({shares}), as where "
            "logits were summed over frames; the temperature puts them right"
        )


def _alike(table: PoolTable) -> Iterator[str]:
    """A line for each model that says the same of every training video, or the same as a cheaper one."""
    models = range(len(table.models))
    if len(table) < 2:
        return
    constant = np.ones(len(models), np.bool_)
    same = np.ones((len(models), len(models)), np.bool_)
    first = table.part(slice(0, 1))[0]
    for _, part in table.parts():
        constant &= (np.abs(part - first) < _SAME).all(axis=(0, 2))
        for a in models:
            for b in range(a):
                same[a, b] &= bool((np.abs(part[:, a] - part[:, b]) < _SAME).all())
    for n, name in enumerate(table.models):
        twins = [table.models[b] for b in range(n) if same[n, b] and not constant[n]]
        if constant[n]:
            yield f"WARNING: {name} predicts the same for all training videos: leave it out"
        elif twins:
            yield f"WARNING: {name} predicts what {twins[0]} does for all training videos: leave one of them out"


def _no_better_than_chance(config: PoolConfig, pool: Pool, table: PoolTable) -> Iterator[str]:
    chance = float(table.labels.mean())
    least = chance + min(3 * chance, _NEAR_CHANCE)
    for n, member in enumerate(pool):
        right = float(table.correct[:, n].mean())
        if right > least or chance == 1:  # with a single class all are right
            continue
        why = ""
        if config.heads == "scores" and member.stream.spec.classes is None:
            order = "of --classes" if config.score_classes else "in which they were taken (--classes FILE)"
            why = f"; its class scores seem to be in another order than that {order}"
        yield (
            f"WARNING: {member.name.stream} is right on {100 * right:.3g} % of the training videos, hardly more "
            f"than chance ({100 * chance:.3g} %){why}"
        )


def _trained_on(config: PoolConfig, train: PoolTable, evaluation: PoolTable) -> Iterator[str]:
    """One line for all models that seem to know the training videos and whose scores are not held out."""
    held_out = parse_held_out(config.out_of_fold, train.models)
    on_training, on_others = train.correct.mean(axis=0), evaluation.correct.mean(axis=0)
    variance = on_training * (1 - on_training) / len(train) + on_others * (1 - on_others) / len(evaluation)
    gap = on_training - on_others
    optimistic = gap > np.maximum(_BETTER, _SURE * np.sqrt(variance))
    models = [n for n, model in enumerate(train.models) if optimistic[n] and model not in held_out]
    if models:
        worst = max(models, key=lambda n: float(gap[n]))
        more = f" (and {len(models) - 1} more such)" if len(models) > 1 else ""
        yield (
            f"{train.models[worst]} is right on {100 * on_training[worst]:.1f} % of the training videos and "
            f"{100 * on_others[worst]:.1f} % of those for evaluation{more}: if it was trained on the former, "
            "its affinities are optimistic; --out-of-fold, or --heads linear, uses scores of models that have not "
            "seen a video"
        )
