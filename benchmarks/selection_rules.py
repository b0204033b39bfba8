"""Other ways to combine selection with a cascade, for `benchmarks.selection_real`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from policy.data.opening import Dataset
from policy.evaluation.curves import upper_hull
from policy.selection.curve import SelectionCurve
from policy.selection.pool import FloatArray, IntArray, Masks, PoolTable, all_of, only
from policy.selection.sequential import HeldOutWalks, SelectorCascade, SequentialCurve, Walks
from policy.selection.settling import PARTS
from policy.selection.staged import CascadeHeads

LEVELS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Of confidence, from which thresholds are fitted."""
PRICES = (0.0, *np.geomspace(1e-3, 0.5, 16).tolist())
POINTS = 50

Decision = tuple[Masks, Masks]
"""(M,) which models ran, (M,) which answer."""


def fitted_cascade(table: PoolTable, training: PoolTable, *, committee: bool = False) -> SelectionCurve:
    """A threshold for each stage, and stages left out: those combinations that are best on the training videos.

    A temperature for each model would change nothing: a threshold for each stage follows.
    """
    others = range(1, len(table.models))
    ways = [
        ((0, *chain), levels)
        for count in range(len(table.models))
        for chain in combinations(others, count)
        for levels in product(LEVELS, repeat=count)
    ]

    def decide(on: PoolTable, way: int) -> Decision:
        return _cascade(on, *ways[way], committee=committee)

    return _best_on_training("fitted", table, training, len(ways), decide)


def entry_and_cascade(
    of_train: FloatArray, of_test: FloatArray
) -> Callable[[PoolTable, PoolTable], SelectionCurve]:
    """A selector chooses the model that comes after the first, a cascade goes on from there.

    Price and threshold are those pairs that are best on the training videos.

    Args:
        of_train, of_test: (M, N), what the selector expects of each model.
    """

    def curve(table: PoolTable, training: PoolTable) -> SelectionCurve:
        ways = list(product(PRICES, (0.0, *LEVELS)))
        gflops = training.mean_macs / 1e9 * (np.arange(len(training.models)) > 0)

        def decide(on: PoolTable, way: int) -> Decision:
            price, level = ways[way]
            expected = of_test if on is table else of_train
            last = (expected - price * gflops).argmax(axis=1)
            ran = only(last) | np.uint32(1)
            for n in range(1, len(on.models)):
                further = (last == n - 1) & (on.confidence[:, n - 1] < level)
                last[further] = n
                ran[further] |= np.uint32(1 << n)
            return ran, only(last)

        return _best_on_training("entry", table, training, len(ways), decide)

    return curve


def stacked_cascade(method: SelectorCascade, data: Dataset) -> SelectionCurve:
    """The cheapest first, with the learned answers of what has run, until these are sure enough."""
    walks = Walks(method, data.evaluation, torch.device("cpu"))
    count, models = len(data.evaluation), len(method.gflops)
    every = np.arange(count)
    sure = np.stack([walks.look(all_of(n + 1), every)[0] for n in range(models - 1)], axis=1)
    levels = np.quantile(sure, np.linspace(0, 1, POINTS))
    ran = []
    for level in (0.0, *np.unique(levels), 2.0):
        enough = np.concatenate([sure >= level, np.ones((count, 1), np.bool_)], axis=1)
        ran.append((2 << enough.argmax(axis=1)) - 1)
    masks = np.stack(ran).astype(np.uint32)
    table, _ = method.look(data.evaluation)
    values = np.arange(len(masks), dtype=np.float64)
    return SequentialCurve("stacked", table, values, masks, masks, np.zeros(count, np.int64), walks)


def boosted_trees(method: SelectorCascade, data: Dataset) -> tuple[SelectionCurve, SelectionCurve]:
    """Gradient-boosted trees in the place of a method's regressions, with the same answers and the same inputs.

    Returns:
        What they do for training videos, in five parts that are held out, and for the evaluation videos.
    """
    network = method.model
    assert isinstance(network, CascadeHeads)
    models, first = network.models, method.input_place
    training, table = method.look(data.train)[0], method.look(data.evaluation)[0]
    sets = [mask for mask in range(1 << models) if mask >> first & 1]
    weights = {mask: network.answers[mask].numpy() for mask in sets}
    right = {mask: training.correct_of(np.full(len(training), mask, np.uint32), weights) for mask in sets}
    fold = method.held_out_folds(data.train) % PARTS
    chances = [np.zeros((1 << models, len(each), models)) for each in (training, table)]
    for mask in sets[:-1]:
        train, test = (_seen(network, each, mask) for each in (training, table))
        for n in range(models):
            if n == first or not mask >> n & 1:
                outcome = right[mask | 1 << n]
                for number in range(PARTS):
                    out = fold == number
                    chances[0][mask, out, n] = _boosted(train[~out], outcome[~out], train[out])
                chances[1][mask, :, n] = _boosted(train, outcome, test)
    cpu = torch.device("cpu")
    walks = [
        HeldOutWalks(method, *each)
        for each in zip((data.train, data.evaluation), (cpu, cpu), chances, strict=True)
    ]
    held_out, new = (each.curve(each.prices(POINTS)) for each in walks)
    return held_out, new


def _seen(network: CascadeHeads, table: PoolTable, mask: int) -> npt.NDArray[np.float32]:
    """What the regressions see, and the number of the best class."""
    parts = [network.seen(torch.from_numpy(part), mask)[1:] for _, part in table.parts()]
    return np.concatenate([np.column_stack([each.numpy() for each in part]) for part in parts])


def _boosted(
    train: npt.NDArray[np.float32], right: npt.NDArray[np.bool_], test: npt.NDArray[np.float32]
) -> FloatArray:
    if right.all() or not right.any():
        return np.full(len(test), float(right.mean()))
    trees = HistGradientBoostingClassifier(
        max_iter=60, learning_rate=0.08, max_leaf_nodes=8, min_samples_leaf=40, random_state=0
    )
    return np.asarray(trees.fit(train, right).predict_proba(test)[:, 1])


def _cascade(table: PoolTable, chain: Sequence[int], levels: Sequence[float], *, committee: bool) -> Decision:
    ran = np.zeros(len(table), np.uint32)
    last = np.zeros(len(table), np.int64)
    live = np.ones(len(table), np.bool_)
    for n, level in zip(chain, (*levels, np.inf), strict=True):
        ran[live] |= np.uint32(1 << n)
        last[live] = n
        so_far = [m for m in chain if m <= n]
        sure = (
            table.probabilities[:, so_far].mean(axis=1).max(axis=1) if committee else table.confidence[:, n]
        )
        live &= sure < level
    return ran, ran if committee else only(last)


def _best_on_training(
    name: str, table: PoolTable, training: PoolTable, ways: int, decide: Callable[[PoolTable, int], Decision]
) -> SelectionCurve:
    """Those ways that are corners of the upper hull on the training videos."""
    fitted = _decided(name, training, range(ways), decide)
    return _decided(name, table, upper_hull(fitted.gflops, fitted.top1), decide)


def _decided(
    name: str,
    table: PoolTable,
    ways: Iterator[int] | Sequence[int] | IntArray,
    decide: Callable[[PoolTable, int], Decision],
) -> SelectionCurve:
    chosen = [int(way) for way in ways]
    ran, answering = zip(*(decide(table, way) for way in chosen), strict=True)
    return _curve(name, table, np.array(chosen, np.float64), np.stack(ran), np.stack(answering))


def _curve(name: str, table: PoolTable, values: FloatArray, ran: Masks, answering: Masks) -> SelectionCurve:
    return SelectionCurve(name, table, values, ran, answering, np.zeros(len(table), np.int64))
