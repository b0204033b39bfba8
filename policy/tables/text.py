"""A report as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict

from policy.tables.cells import cells, titles
from policy.tables.datasets import dataset_title
from policy.tables.experiment import MEASURES, Measure
from policy.tables.report import Report, Row


def markdown(report: Report, figure: str | None = None) -> str:
    """Args:
    figure: path of the figure as seen from the file that this is written to.
    """
    table = report.table
    paper = [
        f"{dataset_title(name)} {what}, paper" for name in table.datasets for what in titles(table.printed)
    ]
    header = ["method", *table.columns, *titles(table.measures), *paper]
    lines = [
        f"# {table.title}",
        "",
        line(header),
        line(["---", *["---"] * len(table.columns), *["---:"] * (len(table.measures) + len(paper))]),
    ]
    for row in cells(report):
        if row.heading:
            lines.append(line([f"*{row.heading}*", *[""] * (len(header) - 1)]))
        published = [text for values in row.published.values() for text in values.values()]
        words = [row.title, *row.columns, *row.ours.values(), *published]
        lines.append(line([f"**{word}**" if word else "" for word in words] if row.emphasised else words))
    if figure is not None:
        lines += ["", f"![Accuracy against computation per video]({figure})"]
    lines += ["", *(f"- {sentence}" for sentence in report.state), "", "```sh", report.command, "```"]
    return "\n".join(lines) + "\n"


def comma_separated(report: Report) -> str:
    """One line per row, numbers only; an empty field is a value that does not exist."""
    table = report.table
    measures = [f"{measure}_{what}" for measure in MEASURES for what in ("mean", "std", "low", "high")]
    # The paper's ± is over videos; where it prints one, it has a field of its own.
    paper = [
        (name, measure, part)
        for name in table.datasets
        for measure in table.printed
        for part in ("mean", "std")
        if part == "mean" or any(_printed(row, name, measure, part) for row in report.rows)
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    titles_of_paper = [
        f"paper_{name}_{measure}{'' if part == 'mean' else '_std'}" for name, measure, part in paper
    ]
    writer.writerow(
        ["name", "group", "status", "runs", *measures, *titles_of_paper, "substituted", *table.columns]
    )
    for row in report.rows:
        one = row.experiment
        writer.writerow(
            [
                one.title,
                one.group,
                row.status,
                len(row.runs),
                *_measured(row),
                *(_printed(row, name, measure, part) for name, measure, part in paper),
                " ".join(f"{theirs}={ours}" for theirs, ours in row.substituted.items()),
                *(one.columns or [""] * len(table.columns)),
            ]
        )
    return text.getvalue()


def as_json(report: Report) -> str:
    """Everything, run by run."""
    said = {
        "table": report.table.name,
        "title": report.table.title,
        "source": report.table.source,
        "labels": report.labels_name,
        "dataset": report.dataset,
        "seeds": report.seeds,
        "rows": [_row(row, report) for row in report.rows],
        "state": report.state,
        "command": report.command,
    }
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


def _row(row: Row, report: Report) -> dict[str, object]:
    one = row.experiment
    return {
        "name": one.title,
        "experiment": one.name,
        "group": one.group,
        "status": row.status,
        "substituted": dict(row.substituted),
        "columns": dict(zip(report.table.columns, one.columns, strict=False)),
        "ours": {measure: asdict(spread) for measure, spread in row.measures.items()},
        "paper": {
            name: {
                measure: {"value": value.value, "printed": value.text} for measure, value in values.items()
            }
            for name, values in one.published.items()
        },
        "runs": [
            {"folder": str(run.folder), "reused": run.reused, "result": run.result.as_json()}
            for run in row.runs
        ],
    }


def _measured(row: Row) -> list[str]:
    if not row.built:
        return [""] * (4 * len(MEASURES))
    spreads = [row.measures[measure] for measure in MEASURES]
    return [_number(v) for spread in spreads for v in (spread.mean, spread.std, spread.low, spread.high)]


def _printed(row: Row, dataset: str, measure: Measure, part: str) -> str:
    value = row.experiment.published.get(dataset, {}).get(measure)
    if value is None:
        return ""
    return value.mean if part == "mean" else value.std or ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def line(words: list[str]) -> str:
    """A row of a Markdown table."""
    escaped = [word.replace("|", r"\|") for word in words]
    return f"| {' | '.join(escaped)} |"
