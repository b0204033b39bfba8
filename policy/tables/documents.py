"""Tables and exhibits as documents, which `policy.sheets` renders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict

from policy.sheets.sheet import Column, Document, Picture, Sheet, Value
from policy.tables import figure
from policy.tables.datasets import dataset_title
from policy.tables.exhibits.exhibit import Exhibit
from policy.tables.experiment import MEASURES, METHODS_GROUP, Experiment, Measure, Printed
from policy.tables.report import Report, Row
from policy.tables.verdicts import Verdict, verdicts

NOT_BUILT = "not built yet"
_MOST_DECIMALS = 4
_FIGURE = "Accuracy against computation per video"


def document(content: Report | Exhibit, *, drawn: bool) -> Document:
    """A table or an exhibit; `drawn`: with a table's figure, which takes a second."""
    if isinstance(content, Exhibit):
        return of_exhibit(content)
    return of_report(content, figure.draw(content).png if drawn else None)


def of_report(report: Report, png: bytes | None = None) -> Document:
    """A table, with its figure as PNG if there is one."""
    table, judged = report.table, verdicts(report)
    pictures = []
    if png is not None:
        crosses = "; crosses are the paper's values." if report.dataset in table.datasets else "."
        alt = f"{table.title}: accuracy against GFLOPs per video"
        pictures.append(Picture(png, alt, f"{_FIGURE}{crosses}", _FIGURE))
    return Document(
        id=_id(table.name),
        title=table.title,
        sheets=[_shown(report)],
        state=(*map(str, judged), *report.state),
        command=report.command,
        pictures=pictures,
        record={
            "table": table.name,
            "title": table.title,
            "source": table.source,
            "labels": report.labels_name,
            "dataset": report.dataset,
            "seeds": report.seeds,
            "rows": [_record(row, report) for row in report.rows],
            "verdicts": [asdict(verdict) for verdict in judged],
        },
        data=[_complete(report), *([_claims(judged)] if judged else [])],
        # \ref takes letters, digits and hyphens.
        label=re.sub(r"[^A-Za-z0-9]", "-", table.name),
    )


def of_exhibit(exhibit: Exhibit) -> Document:
    """A figure with the numbers behind it."""
    report = exhibit.report
    data = [sheet.plain for sheet in exhibit.sheets]
    return Document(
        id=_id(report.table.name),
        title=report.table.title,
        sheets=exhibit.sheets,
        state=(*exhibit.notes, *report.state),
        command=report.command,
        pictures=exhibit.pictures,
        thumbnails=exhibit.thumbnails,
        record={
            "table": report.table.name,
            "title": report.table.title,
            "labels": report.labels_name,
            "seeds": report.seeds,
            "sheets": [{"title": sheet.title, "rows": sheet.records} for sheet in data],
            "runs": {row.experiment.name: [str(run.folder) for run in row.runs] for row in report.rows},
        },
        data=data,
    )


def _id(name: str) -> str:
    """The id of a section, from any name of a table's folder."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"table-{name}" if not name[:1].isalpha() else name)


def _shown(report: Report) -> Sheet:
    """Our values beside the paper's."""
    table = report.table
    columns = [
        Column("method", numeric=False),
        *(Column(title, numeric=False) for title in table.columns),
        *(
            Column(MEASURES[measure], decimals=_decimals(report, measure), numeric=True, heading="ours")
            for measure in table.measures
        ),
        *(
            Column(
                MEASURES[measure], numeric=True, paper=dataset_title(name), emphasised=name == report.dataset
            )
            for name in table.datasets
            for measure in table.printed
        ),
    ]
    rows: list[list[Value]] = []
    groups, group = {}, METHODS_GROUP
    for index, row in enumerate(report.rows):
        experiment = row.experiment
        if experiment.group != group:
            groups[index] = group = experiment.group
        printed = [
            _printed(experiment, name, measure) for name in table.datasets for measure in table.printed
        ]
        rows.append(
            [
                row.title,
                *experiment.columns,
                *_ours(row, table.measures),
                *(value.text if value else None for value in printed),
            ]
        )
    emphasised = frozenset(n for n, row in enumerate(report.rows) if row.experiment.emphasised)
    return Sheet(table.title, columns, rows, groups=groups, emphasised=emphasised)


def _ours(row: Row, measures: Sequence[Measure]) -> list[Value]:
    if row.built:
        return [row.measures.get(measure) for measure in measures]
    return [NOT_BUILT if row.status == "not built yet" else None, *[None] * (len(measures) - 1)]


def _decimals(report: Report, measure: Measure) -> int:
    """One, as in the papers' tables, or for GFLOPs enough to show two digits of the smallest mean."""
    if measure != "gflops":
        return 1
    means = [row.measures[measure].mean for row in report.rows if row.built]
    smallest = min((mean for mean in means if mean > 0), default=1.0)
    enough = (decimals for decimals in range(1, _MOST_DECIMALS) if smallest * 10**decimals >= 9.5)
    return next(enough, _MOST_DECIMALS)


def _complete(report: Report) -> Sheet:
    """All measures that some row has, as plain numbers, for CSV."""
    table = report.table
    measures = [measure for measure in MEASURES if any(measure in row.measures for row in report.rows)]
    # The paper's ± is over videos; where it prints one, there is a column for it.
    paper = [
        (name, measure, part)
        for name in table.datasets
        for measure in table.printed
        for part in ("", "_std")
        if not part or any(_digits(row.experiment, name, measure, part) for row in report.rows)
    ]
    keys = [
        *("name", "group", "status", "runs"),
        *(f"{measure}_{what}" for measure in measures for what in ("mean", "std", "low", "high")),
        *(f"paper_{name}_{measure}{part}" for name, measure, part in paper),
        "substituted",
        *table.columns,
    ]
    rows: list[list[Value]] = []
    for row in report.rows:
        experiment = row.experiment
        spreads = [row.measures.get(measure) for measure in measures]
        numbers = ([s.mean, s.std, s.low, s.high] if s else [None] * 4 for s in spreads)
        rows.append(
            [
                *(experiment.title, experiment.group, row.status, len(row.runs)),
                *(value for four in numbers for value in four),
                *(_digits(experiment, *key) for key in paper),
                " ".join(f"{theirs}={ours}" for theirs, ours in row.substituted.items()),
                *experiment.columns,
            ]
        )
    return Sheet(table.title, [Column(key, key) for key in keys], rows)


def _claims(judged: Sequence[Verdict]) -> Sheet:
    """The verdicts, for CSV."""
    columns = [Column("holds", "holds"), Column("claim", "claim")]
    return Sheet("Verdicts", columns, [["yes" if one.holds else "no", one.claim] for one in judged])


def _record(row: Row, report: Report) -> dict[str, object]:
    """The row with every run, for JSON."""
    experiment = row.experiment
    return {
        "name": experiment.title,
        "experiment": experiment.name,
        "group": experiment.group,
        "status": row.status,
        "substituted": dict(row.substituted),
        "columns": dict(zip(report.table.columns, experiment.columns, strict=False)),
        "ours": {measure: asdict(spread) for measure, spread in row.measures.items()},
        "paper": {
            name: {
                measure: {"value": value.value, "printed": value.text} for measure, value in values.items()
            }
            for name, values in experiment.published.items()
        },
        "runs": [
            {"folder": str(run.folder), "reused": run.reused, "result": run.result.as_json()}
            for run in row.runs
        ],
    }


def _printed(experiment: Experiment, dataset: str, measure: Measure) -> Printed | None:
    return experiment.published.get(dataset, {}).get(measure)


def _digits(experiment: Experiment, dataset: str, measure: Measure, part: str) -> str | None:
    """The printed digits before the ±, or for the part "_std" those after it."""
    value = _printed(experiment, dataset, measure)
    if value is None:
        return None
    return value.std if part else value.mean
