"""What a selector is compared with: the models by themselves and at random, their average, cascades, the oracle.

Each is a SelectionCurve on a pool's table, its points by rising cost. Nothing but the models is charged.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from policy.evaluation.curves import oracle_choices, upper_hull
from policy.selection.combining import answer_weights
from policy.selection.curve import SelectionCurve
from policy.selection.pool import AnswerWeights, FloatArray, Masks, PoolTable, all_of, only
from policy.selection.rule import choose, thresholds

POINTS = 50
"""Thresholds or prices of a curve, at most."""
NEVER = 2.0
"""A threshold that no probability reaches."""

_SHARES = (0.25, 0.5, 0.75)
_DRAWS = 3


def single_models(table: PoolTable) -> SelectionCurve:
    """Each model by itself: N points, whose value is the model's place in the pool.

    The upper hull (`policy.evaluation.curves`) of their HIT@1 is random selection: mixing is linear in any mean
    over videos. mAP is none: see `random_mixtures`.
    """
    places = np.arange(len(table.models))
    return _curve("Single models", table, places, only(places))


def random_mixtures(
    table: PoolTable, *, shares: tuple[float, ...] = _SHARES, draws: int = _DRAWS, seed: int = 0
) -> tuple[SelectionCurve, ...]:
    """Random selection for mAP, which ranks the scores of different models against each other.

    Of two models that are neighbours on the hull of mAP against cost, the dearer one runs for a share of the
    videos, drawn at random. Costs and mAP of random selection are the means over the draws, point by point.

    Args:
        shares: in (0, 1), ascending.

    Returns:
        A curve for each draw. The value of a point is the place k of the cheaper model on the hull plus the share.
    """
    single = single_models(table)
    corners = upper_hull(single.gflops, single.mean_average_precision)
    random = np.random.default_rng(seed)
    curves = []
    for _ in range(draws):
        ranks = random.random(len(table))
        values: list[float] = []
        chosen = []
        for k, (cheaper, dearer) in enumerate(pairwise(corners)):
            for share in (0.0, *shares):
                values.append(k + share)
                chosen.append(np.where(ranks < share, dearer, cheaper))
        values.append(len(corners) - 1)
        chosen.append(np.full(len(table), corners[-1]))
        curves.append(_curve("Random selection", table, np.array(values), only(np.stack(chosen))))
    return tuple(curves)


def ensemble(table: PoolTable) -> SelectionCurve:
    """The mean of the log-probabilities of the cheapest models, 1 to all N: N points, the number the value."""
    counts = np.arange(1, len(table.models) + 1)
    every = np.array([all_of(int(count)) for count in counts], np.uint32)
    return _curve("Ensemble", table, counts, every)


def cascade(
    table: PoolTable,
    training: PoolTable,
    *,
    committee: bool = False,
    weights: AnswerWeights | None = None,
    points: int = POINTS,
) -> SelectionCurve:
    """Models from the cheapest up, until the largest class probability reaches a threshold τ, the value; it is the
    same for all models.

    All that ran are charged; the last one that ran answers, and is compared with τ. With `committee`, the mean of
    all that ran answers and is compared: Wang et al., "Wisdom of Committees" (2012.01988), the paper's [47].

    Args:
        training: the models' predictions for the training videos, which spread the thresholds: from one to the
            next equally many videos stop elsewhere, from 0, where only the cheapest model runs, to `NEVER`.
        weights: of a committee's answer, by set of models; by default it is the mean.
        points: at most so many.
    """
    confidences, on_training = (
        _committee_confidence(each, weights) if committee else each.confidence for each in (table, training)
    )
    values = thresholds(on_training, "largest", points - 1)
    values = np.append(values[values < NEVER], NEVER)
    last = np.stack([choose(confidences, float(value), "largest") for value in values])
    ran = np.asarray((np.uint32(2) << last.astype(np.uint32)) - np.uint32(1), np.uint32)
    name = "Committee cascade" if committee else "Confidence cascade"
    curve = _curve(name, table, values, ran, ran if committee else only(last))
    return replace(curve, weights=weights)


def weighted_cascade(table: PoolTable, training: PoolTable) -> SelectionCurve:
    """A committee cascade whose answers are weighted sums of log-probabilities. The weights are fitted to the
    training videos: models that say nothing new do no harm."""
    sets = [all_of(count + 1) for count in range(len(table.models))]
    return cascade(table, training, committee=True, weights=answer_weights("weighted", training, sets))


def oracle(table: PoolTable, *, points: int = POINTS) -> SelectionCurve:
    """The best choice of one model per video, knowing the labels: the cheapest that is right (hit@1), traded
    against cost as `policy.evaluation.curves.oracle_choices`; the value is the price, in videos per GFLOP.

    Args:
        points: at most so many.
    """
    prices, chosen = oracle_choices(table.macs.T / 1e9, table.correct.T, points)
    return _curve("Oracle", table, prices[::-1], only(chosen[::-1]))


def _curve(
    name: str, table: PoolTable, values: npt.NDArray[np.number], ran: Masks, answering: Masks | None = None
) -> SelectionCurve:
    """Sets of models (P, M), or (P,) for all videos alike."""
    if ran.ndim == 1:
        ran = np.tile(ran[:, None], len(table))
    answering, overhead = ran if answering is None else answering, np.zeros(len(table), np.int64)
    return SelectionCurve(name, table, values.astype(np.float64), ran, answering, overhead)


def _committee_confidence(table: PoolTable, weights: AnswerWeights | None) -> FloatArray:
    """(M, N): the largest class probability of the answer of the models up to each."""
    sets = np.arange(1, len(table.models) + 1)
    answers = (table.scores_of(np.full(len(table), all_of(int(n)), np.uint32), weights) for n in sets)
    return np.stack([answer.max(axis=1) for answer in answers], axis=1).astype(np.float64)
