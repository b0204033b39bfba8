"""A report as cells of text, before anything is known of terminals or Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from policy.tables.experiment import Group
from policy.tables.report import Measure, Report, Row, Spread

SHOWN: Mapping[Measure, str] = {
    "map_percent": "mAP %",
    "top1_percent": "top-1 %",
    "gflops": "GFLOPs",
    "fine_features": "fine features",
}
"""The measures that have a column, and its title."""

NOT_BUILT = "not built yet"
NO_VALUE = "–"

_MOST_DECIMALS = 4


@dataclass(frozen=True)
class Cells:
    """One row.

    Attributes:
        ours: by measure of SHOWN.
        published: per data set of the paper, mAP and GFLOPs as it prints them.
        emphasised: the method that the paper proposes.
    """

    title: str
    group: Group
    ours: Mapping[Measure, str]
    published: Mapping[str, tuple[str, str]]
    emphasised: bool


def cells(report: Report, datasets: tuple[str, ...]) -> Iterator[Cells]:
    """The rows, with the paper's values for some of its data sets."""
    decimals = {measure: _decimals(report, measure) for measure in SHOWN}
    for row in report.rows:
        published = row.experiment.published
        yield Cells(
            title=row.experiment.title,
            group=row.experiment.group,
            ours=_ours(row, decimals),
            published={
                name: (f"{value.map_percent:.1f}", f"{value.gflops:.1f}")
                if (value := published.get(name))
                else (NO_VALUE, NO_VALUE)
                for name in datasets
            },
            emphasised=row.experiment.method == report.table.emphasis,
        )


def _ours(row: Row, decimals: Mapping[Measure, int]) -> dict[Measure, str]:
    if not row.built:
        return {m: NOT_BUILT if place == 0 else NO_VALUE for place, m in enumerate(SHOWN)}
    return {measure: _spread(row.measures[measure], decimals[measure]) for measure in SHOWN}


def _spread(value: Spread, decimals: int) -> str:
    mean = f"{value.mean:.{decimals}f}"
    return mean if value.std is None else f"{mean} ± {value.std:.{decimals}f}"


def _decimals(report: Report, measure: Measure) -> int:
    """As many as the paper prints (one for mAP and GFLOPs), or what two digits of the smallest mean take."""
    if measure != "gflops":
        return 1
    means = [row.measures[measure].mean for row in report.rows if row.built]
    smallest = min((mean for mean in means if mean > 0), default=1.0)
    decimals = 1
    while smallest * 10**decimals < 9.5 and decimals < _MOST_DECIMALS:
        decimals += 1
    return decimals
