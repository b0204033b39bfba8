"""A report as cells of text, before anything is known of terminals or Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from policy.tables.experiment import MEASURES, METHODS_GROUP, Measure
from policy.tables.report import Report, Row, Spread

NOT_BUILT = "not built yet"
NO_VALUE = "–"

_MOST_DECIMALS = 4


@dataclass(frozen=True)
class Cells:
    """One row.

    Attributes:
        title: with a mark where streams are replaced.
        heading: the name of its group, if it is the first of one that is not the table's main group.
        columns: texts of the table's own columns.
        ours: by measure of the table.
        published: per data set of the paper and measure that it prints, as it prints them.
        emphasised: the paper proposes it.
    """

    title: str
    heading: str
    columns: Sequence[str]
    ours: Mapping[Measure, str]
    published: Mapping[str, Mapping[Measure, str]]
    emphasised: bool


def cells(report: Report, *, intervals: bool = True) -> Iterator[Cells]:
    """The rows.

    Args:
        intervals: add them, where there are any.
    """
    table = report.table
    decimals = {measure: _decimals(report, measure) for measure in table.measures}
    group = METHODS_GROUP
    for row in report.rows:
        one = row.experiment
        yield Cells(
            title=row.title,
            heading=one.group if one.group != group else "",
            columns=one.columns or ("",) * len(table.columns),
            ours=_ours(row, decimals, intervals),
            published={
                name: {
                    measure: value.text if (value := one.published.get(name, {}).get(measure)) else NO_VALUE
                    for measure in table.printed
                }
                for name in table.datasets
            },
            emphasised=one.emphasised,
        )
        group = one.group


def titles(measures: Sequence[Measure]) -> list[str]:
    """Of columns."""
    return [MEASURES[measure] for measure in measures]


def _ours(row: Row, decimals: Mapping[Measure, int], intervals: bool) -> dict[Measure, str]:
    if not row.built:
        first = NOT_BUILT if row.status == "not built yet" else NO_VALUE
        return {measure: NO_VALUE if place else first for place, measure in enumerate(decimals)}
    return {m: _spread(row.measures[m], digits, intervals) for m, digits in decimals.items()}


def _spread(value: Spread, decimals: int, interval: bool) -> str:
    text = f"{value.mean:.{decimals}f}"
    if value.std is not None:
        text += f" ± {value.std:.{decimals}f}"
    if interval and value.low is not None and value.high is not None:
        text += f" [{value.low:.{decimals}f}, {value.high:.{decimals}f}]"
    return text


def _decimals(report: Report, measure: Measure) -> int:
    """As many as Table 1 prints (one for mAP and GFLOPs), or what two digits of the smallest mean take."""
    if measure != "gflops":
        return 1
    means = [row.measures[measure].mean for row in report.rows if row.built]
    smallest = min((mean for mean in means if mean > 0), default=1.0)
    decimals = 1
    while smallest * 10**decimals < 9.5 and decimals < _MOST_DECIMALS:
        decimals += 1
    return decimals
