"""Tables and figures as sections of one page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from policy.tables import html
from policy.tables.cells import cells, titles
from policy.tables.datasets import dataset_title
from policy.tables.exhibits.exhibit import Exhibit
from policy.tables.report import Report

_FIGURE = "Accuracy against computation per video"
_CROSSES = "; crosses are the paper's values."


def of_report(report: Report, png: bytes) -> html.Section:
    """A table with its figure."""
    table = report.table
    paper = [
        f"{dataset_title(name)} {what}, paper" for name in table.datasets for what in titles(table.printed)
    ]
    rows, groups, emphasised = [], {}, set()
    for place, row in enumerate(cells(report)):
        published = [text for values in row.published.values() for text in values.values()]
        rows.append([row.title, *row.columns, *row.ours.values(), *published])
        if row.heading:
            groups[place] = row.heading
        if row.emphasised:
            emphasised.add(place)
    caption = f"{_FIGURE}{_CROSSES if report.dataset in table.datasets else '.'}"
    return html.Section(
        _id(table.name),
        table.title,
        (
            html.Table(
                caption=table.title,
                header=["method", *table.columns, *titles(table.measures), *paper],
                rows=rows,
                emphasised=frozenset(emphasised),
                groups=groups,
            ),
            html.Figure(png, f"{table.title}: accuracy against GFLOPs per video", caption),
            html.Facts(report.state),
            html.Command(report.command),
        ),
    )


def of_exhibit(exhibit: Exhibit) -> html.Section:
    """A figure, its thumbnails and the numbers behind it."""
    table = exhibit.report.table
    blocks: list[html.Block] = []
    if exhibit.thumbnails:
        blocks += exhibit.thumbnails
    else:
        blocks += [html.Figure(one.png, one.alt, one.caption or table.title) for one in exhibit.pictures]
    first, details = (
        [
            html.Table(caption=sheet.title, header=sheet.header, rows=sheet.words, notes=sheet.notes)
            for sheet in exhibit.sheets
            if sheet.detail == detail
        ]
        for detail in (False, True)
    )
    said = html.Facts(exhibit.state), html.Command(exhibit.report.command)
    return html.Section(_id(table.name), table.title, (*blocks, *first, *said, *details))


def _id(name: str) -> str:
    """Of a section, from whatever a table's folder is called."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"table-{name}" if not name[:1].isalpha() else name)


def render(title: str, sections: Sequence[html.Section], intro: Sequence[html.Block] = ()) -> bytes:
    """The page."""
    return html.render(html.Page(title, intro, sections)).encode()
