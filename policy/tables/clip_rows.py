"""Adapt the rows that localize actions to a cache, and to the cost that the paper prints."""

from __future__ import annotations

from dataclasses import replace

from cache_schema import FeatureCache, UserError
from cache_schema.costs import cost_table, gflops, stream_cost
from policy.tables.experiment import Experiment, PaperTable
from policy.tables.source import Source
from policy.tables.streams import Substitution

SELECTOR = "localization-selector"


def within_cache(table: PaperTable, streams: Substitution, cache: FeatureCache) -> PaperTable:
    """The table without the rows of which the cache lacks a stream that the emphasised row does not read, or with
    what the paper prints of them alone; notes name them."""
    [needed] = [set(row.reads) for row in table.experiments if row.emphasised]
    left_out: dict[str, list[str]] = {}
    rows = []
    for row in table.experiments:
        missing = [paper for paper in row.reads if paper not in needed and streams.stream(paper) not in cache]
        for paper in missing:
            left_out.setdefault(paper, []).append(row.title)
        if not missing:
            rows.append(row)
        elif row.published:
            rows.append(replace(row, method=None, streams={}, lists={}, settings={}, usage_of=None))
    notes = [
        f"Not trained, for the cache has no stream {streams.stream(paper)}: {', '.join(titles)}."
        for paper, titles in left_out.items()
    ]
    return replace(table, experiments=tuple(rows), notes=(*table.notes, *notes))


def at_paper_cost(table: PaperTable, streams: Substitution, cache: FeatureCache) -> PaperTable:
    """The table with budgets that pay for the share of clips with motion for which the paper's cost pays.

    The paper prints 43.8 = 4.73 + 0.698 · 56, in two conventions (`paper_gflops`). Our budgets are in 10⁹
    multiply-accumulates.
    """
    rows = []
    for row in table.experiments:
        printed = [values["gflops"].value for values in row.published.values() if "gflops" in values]
        if row.method == SELECTOR and printed:
            appearance, motion = (row.streams[role] for role in ("appearance", "motion"))
            share = (printed[0] - paper_gflops(appearance)) / paper_gflops(motion)
            cheap, expensive = (
                stream_cost(cache[streams.stream(paper)].spec).gflops() for paper in (appearance, motion)
            )
            budget = round(cheap + share * expensive, 6)
            rows.append(replace(row, settings={**row.settings, "budget": budget}))
        else:
            rows.append(row)
    return replace(table, experiments=tuple(rows))


def paper_gflops(paper: str, cache: FeatureCache | None = None, ours: str = "") -> float:
    """What a clip of a stream costs as the model selection paper counts: X3D once per multiply-accumulate, I3D
    twice.

    Args:
        paper: the paper's stream.
        ours: a stream of the cache that stands in its place: counted in the same unit.
    """
    known = cost_table().get(paper)
    if cache is None or ours == paper:
        assert known is not None, "only streams of the cost table are asked for without a cache"
        return known.gflops(known.paper_unit) if known.paper is None else known.paper
    return gflops(stream_cost(cache[ours].spec).macs, known.paper_unit if known else "mac")


def clip_costs(row: Experiment, streams: Substitution, cache: FeatureCache) -> dict[str, tuple[float, float]]:
    """By role: GFLOPs of a clip in multiply-accumulates, and as the paper counts."""
    return {
        role: (
            stream_cost(cache[streams.stream(paper)].spec).gflops(),
            paper_gflops(paper, cache, streams.stream(paper)),
        )
        for role, paper in row.streams.items()
    }


def check_segments(source: Source) -> None:
    """Raises UserError where no evaluation video has a segment."""
    data = next(iter(source.datasets.values()))
    if not any(map(len, data.evaluation.segments)):
        raise UserError(
            f"{source.labels.source}: no segments of the videos of subset {data.evaluation.subset!r}, by which "
            "detections are judged"
        )
