"""The rows of the model selection paper's tables, as they are for a data set, a cache and a pool of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from cache_schema import FeatureCache
from policy.selection.config import SelectorConfig
from policy.selection.opening import cheapest_stream
from policy.selection.pool import ModelName, parse_models
from policy.tables.datasets import DATASETS
from policy.tables.experiment import Experiment, PaperTable
from policy.tables.streams import Substitution


def of_dataset(table: PaperTable, dataset: str | None) -> PaperTable:
    """With the pool that the paper has for a data set."""
    models = DATASETS[dataset].models if dataset is not None else ()
    return _with_models(table, models) if models else table


def at_paper_costs(table: PaperTable, dataset: str | None) -> PaperTable:
    """Its operating points are where the training videos cost what the paper prints for the data set."""

    def adapted(one: Experiment) -> Experiment:
        printed = one.published.get(dataset or "", {}).get("gflops")
        if printed is None or not one.models:
            return one
        return replace(one, settings={**one.settings, "budget": printed.value})

    return replace(table, experiments=tuple(map(adapted, table.experiments)))


def at_budget(table: PaperTable) -> PaperTable:
    """Without the rows' own prices: the budget that is asked for sets them, as it sets thresholds."""

    def adapted(one: Experiment) -> Experiment:
        return replace(one, settings={k: v for k, v in one.settings.items() if k != "threshold"})

    return replace(table, experiments=tuple(map(adapted, table.experiments)))


def with_pool(table: PaperTable, models: Sequence[str], rows: int | None, cache: FeatureCache) -> PaperTable:
    """With a pool of the user's in all rows that choose from one.

    Args:
        models: "STREAM" or "STREAM:ROWS" each, in any order.
        rows: of a video by which a model judges that does not say it itself; None: all that the cache has.

    Raises:
        UserError: the models are no pool, or the cache lacks one.
    """
    ours = _by_cost(models, rows, cache)
    theirs = ", ".join(table.pool)
    return _with_models(table, ours, note=f"Pool: {', '.join(ours)}, in place of the paper's {theirs}.")


def within_cache(
    table: PaperTable, chosen: Substitution, rows: int | None, cache: FeatureCache
) -> PaperTable:
    """Without the rows that would judge by as many clips as the cache has, or more: others judge by all of them.

    Args:
        rows: that all others judge by; None: all that the cache has.
    """

    streams = [cache[chosen.stream(paper)] for paper in table.pool]
    most = min(max((stream.rows(video) for video in stream), default=0) for stream in streams)
    fewest = min(rows or most, most)
    kept = [one for one in table.experiments if one.settings.get("rows", 0) < fewest]
    return replace(table, experiments=tuple(kept))


def _with_models(table: PaperTable, models: Sequence[str], note: str = "") -> PaperTable:
    """With other models, the cheapest first, in place of each row's.

    What a selector looks at is of the same rank among them as before; where that is the dearest's, the row goes.
    """

    def adapted(one: Experiment) -> Iterable[Experiment]:
        looks_at = one.streams.get("coarse")
        if not one.models or looks_at not in one.pool:
            yield replace(one, models=tuple(models) if one.models else ())
            return
        rank = one.pool.index(looks_at)
        if rank < len(models) - 1:
            stream = ModelName.parse(models[rank]).stream
            title = one.title.replace(looks_at, stream)
            yield replace(one, title=title, streams={"coarse": stream}, models=tuple(models))

    rows = tuple(new for one in table.experiments for new in adapted(one))
    return replace(table, experiments=rows, notes=(*table.notes, note) if note else table.notes)


def _by_cost(models: Sequence[str], rows: int | None, cache: FeatureCache) -> tuple[str, ...]:
    """The cheapest first."""
    texts: Mapping[str, str] = {
        name.stream: text for name, text in zip(parse_models(models), models, strict=True)
    }
    ordered: list[str] = []
    while len(left := [text for text in texts.values() if text not in ordered]) > 1:
        ordered.append(texts[cheapest_stream(SelectorConfig(models=tuple(left), rows=rows), cache)])
    return (*ordered, *left)
