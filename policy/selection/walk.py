"""Running the models of a pool one after another, as long as the next is worth its price."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from policy.selection.pool import FloatArray, IntArray, Masks, all_of

Look = Callable[[int, IntArray], tuple[FloatArray, FloatArray]]
"""From a set of models that have run, and (m,) videos, to (m,) the chance that the answer is right and (m, N) that
it would be after one more model."""
_TRIED = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Quantiles of the prices that decide at first, at which it is seen what decides later."""


def walk(look: Look, count: int, start: int, gflops: FloatArray, price: float) -> Masks:
    """(count,): the models that run for each of so many videos.

    After each model comes that of `next_models`. Models may be passed over, and run later.

    Args:
        start: the set that has run before anything is decided.
        gflops: (N,), cost of each model.
        price: chance of a right answer that a GFLOP must bring.
    """
    ran = np.full(count, start, np.uint32)
    live = np.arange(count) if start != all_of(len(gflops)) else np.arange(0)
    while len(live):
        goes_on = np.zeros(count, np.bool_)
        for mask in np.unique(ran[live]):
            videos = live[ran[live] == mask]
            sure, chances = look(int(mask), videos)
            following = next_models(int(mask), sure, chances, gflops, price)
            goes_on[videos] = further = following >= 0
            ran[videos[further]] |= np.uint32(1) << following[further].astype(np.uint32)
        live = np.flatnonzero(goes_on & (ran != all_of(len(gflops))))
    return ran


def next_models(
    mask: int, sure: FloatArray, chances: FloatArray, gflops: FloatArray, price: float
) -> IntArray:
    """(m,): the model that is next for each of m videos, after a set of models; −1: none is worth its price.

    It is the one of largest chance − price · GFLOPs, of equal ones the first; unless that is no more than the
    chance that the answer is right already.

    Args:
        sure, chances: as `Look` gives them.
        gflops, price: as `walk` has them.
    """
    worth = np.where(_has(mask, len(gflops)), -np.inf, chances - price * gflops)
    return np.where(worth.max(axis=1) > sure, worth.argmax(axis=1), -1)


def rates(look: Look, count: int, start: int, gflops: FloatArray) -> FloatArray:
    """Ascending: prices at which some video would just run a model, given what is known on walks at a few prices.

    What decides on a walk at another price is among these or close to them.
    """
    free = _rates_at(look, count, gflops, {start, *walk(look, count, start, gflops, 0.0).tolist()})
    at = {start}
    for price in (0.0, *np.quantile(free, _TRIED).tolist()) if len(free) else (0.0,):
        at.update(walk(look, count, start, gflops, price).tolist())
    return _rates_at(look, count, gflops, at)


def _rates_at(look: Look, count: int, gflops: FloatArray, sets: set[int]) -> FloatArray:
    found = []
    for mask in sorted(sets - {all_of(len(gflops))}):
        sure, chances = look(mask, np.arange(count))
        left = ~_has(mask, len(gflops)) & (gflops > 0)
        found.append(((chances - sure[:, None])[:, left] / gflops[left]).ravel())
    every = np.concatenate([np.zeros(0), *found])
    return np.unique(every[every > 0])


def _has(mask: int, models: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(N,)."""
    return (mask >> np.arange(models) & 1).astype(np.bool_)
