"""A report as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict

from policy.tables.cells import SHOWN, cells
from policy.tables.datasets import DATASETS
from policy.tables.experiment import Published
from policy.tables.report import MEASURES, Report, Row


def markdown(report: Report, figure: str | None = None) -> str:
    """Args:
    figure: path of the figure as seen from the file that this is written to.
    """
    titles = [
        f"{dataset.title} {what}, paper" for dataset in DATASETS.values() for what in ("mAP %", "GFLOPs")
    ]
    header = ["method", *SHOWN.values(), *titles]
    lines = [f"# {report.table.title}", "", line(header), line(["---", *["---:"] * (len(header) - 1)])]
    group = "methods"
    for row in cells(report, tuple(DATASETS)):
        if row.group != group:
            group = row.group
            lines.append(line([f"*{group}*", *[""] * (len(header) - 1)]))
        published = [cell for pair in row.published.values() for cell in pair]
        words = [row.title, *row.ours.values(), *published]
        lines.append(line([f"**{word}**" for word in words] if row.emphasised else words))
    if figure is not None:
        lines += ["", f"![Accuracy against computation per video]({figure})"]
    lines += ["", *(f"- {sentence}" for sentence in report.state), "", "```sh", report.command, "```"]
    return "\n".join(lines) + "\n"


def comma_separated(report: Report) -> str:
    """One line per row, numbers only; an empty field is a value that does not exist."""
    measures = [f"{measure}_{what}" for measure in MEASURES for what in ("mean", "std")]
    paper = [f"paper_{name}_{what}" for name in DATASETS for what in ("map_percent", "gflops")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "group", "status", "runs", *measures, *paper])
    for row in report.rows:
        writer.writerow(
            [
                row.experiment.title,
                row.experiment.group,
                "built" if row.built else "not built yet",
                len(row.runs),
                *_measured(row),
                *_printed(row),
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
        "rows": [_row(row) for row in report.rows],
        "state": report.state,
        "command": report.command,
    }
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


def _row(row: Row) -> dict[str, object]:
    return {
        "name": row.experiment.title,
        "group": row.experiment.group,
        "status": "built" if row.built else "not built yet",
        "ours": {measure: asdict(spread) for measure, spread in row.measures.items()},
        "paper": {name: asdict(value) for name, value in row.experiment.published.items()},
        "runs": [
            {"folder": str(run.folder), "reused": run.reused, "result": asdict(run.result)}
            for run in row.runs
        ],
    }


def _measured(row: Row) -> list[str]:
    if not row.built:
        return [""] * (2 * len(MEASURES))
    spreads = row.measures.values()
    return [_number(value) for spread in spreads for value in (spread.mean, spread.std)]


def _printed(row: Row) -> list[str]:
    values: list[Published | None] = [row.experiment.published.get(name) for name in DATASETS]
    return [
        text
        for value in values
        for text in ((f"{value.map_percent:.1f}", f"{value.gflops:.1f}") if value else ("", ""))
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def line(words: list[str]) -> str:
    """A row of a Markdown table."""
    escaped = [word.replace("|", r"\|") for word in words]
    return f"| {' | '.join(escaped)} |"
