"""Adapt the rows that choose from a pool of models to a data set, a cache, or a pool of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cache_schema import FeatureCache
from policy.selection.config import SelectorConfig
from policy.selection.opening import cheapest_stream
from policy.selection.pool import ModelName, parse_models
from policy.tables.datasets import DATASETS
from policy.tables.experiment import Experiment, PaperTable
from policy.tables.streams import Substitution


def of_dataset(table: PaperTable, dataset: str | None) -> PaperTable:
    """The table with the paper's pool for a data set."""
    models = DATASETS[dataset].models if dataset is not None else ()
    return _with_models(table, models) if models else table


def at_paper_costs(table: PaperTable, dataset: str | None) -> PaperTable:
    """The table with the costs that the paper prints for a data set as the rows' budgets."""

    def adapted(row: Experiment) -> Experiment:
        printed = row.published.get(dataset or "", {}).get("gflops")
        if printed is None or not row.models:
            return row
        return replace(row, settings={**row.settings, "budget": printed.value})

    return replace(table, experiments=tuple(map(adapted, table.experiments)))


def at_budget(table: PaperTable) -> PaperTable:
    """The table without the rows' own thresholds and prices, which the user's budget determines instead."""
    rows = (
        replace(row, settings={name: value for name, value in row.settings.items() if name != "threshold"})
        for row in table.experiments
    )
    return replace(table, experiments=tuple(rows))


def with_pool(table: PaperTable, models: Sequence[str], rows: int | None, cache: FeatureCache) -> PaperTable:
    """The table with the user's pool in all rows that choose from one.

    Args:
        models: "STREAM" or "STREAM:ROWS" each, in any order.
        rows: rows of a video for models without ":ROWS"; None: all in the cache.

    Raises:
        UserError: the models are no pool, or the cache lacks one.
    """
    ours = _by_cost(models, rows, cache)
    note = f"Pool: {', '.join(ours)}, in place of the paper's {', '.join(table.pool)}."
    return _with_models(table, ours, note)


def within_cache(
    table: PaperTable, substitution: Substitution, rows: int | None, cache: FeatureCache
) -> PaperTable:
    """The table without the rows that need at least as many clips as the cache has, by which other rows judge.

    Args:
        rows: clips by which the other rows judge; None: all in the cache.
    """
    streams = [cache[substitution.stream(paper)] for paper in table.pool]
    most = min(max((stream.rows(video) for video in stream), default=0) for stream in streams)
    fewest = min(rows or most, most)
    rows_within = [row for row in table.experiments if row.settings.get("rows", 0) < fewest]
    return replace(table, experiments=tuple(rows_within))


def _with_models(table: PaperTable, models: Sequence[str], note: str = "") -> PaperTable:
    """The table with other models, the cheapest first.

    A selector's own model keeps its rank; rows in which it would be the most expensive one are left out.
    """
    rows = []
    for row in table.experiments:
        coarse = row.streams.get("coarse")
        if not row.models or coarse not in row.pool:
            rows.append(replace(row, models=tuple(models) if row.models else ()))
        elif (rank := row.pool.index(coarse)) < len(models) - 1:
            stream = ModelName.parse(models[rank]).stream
            title = row.title.replace(coarse, stream)
            rows.append(replace(row, title=title, streams={"coarse": stream}, models=tuple(models)))
    notes = (*table.notes, note) if note else table.notes
    return replace(table, experiments=tuple(rows), notes=notes)


def _by_cost(models: Sequence[str], rows: int | None, cache: FeatureCache) -> tuple[str, ...]:
    """The models, the cheapest first."""
    left = {name.stream: text for name, text in zip(parse_models(models), models, strict=True)}
    ordered = []
    while len(left) > 1:
        config = SelectorConfig(models=tuple(left.values()), rows=rows)
        ordered.append(left.pop(cheapest_stream(config, cache)))
    return (*ordered, *left.values())
