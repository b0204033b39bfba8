"""An exhibit as Markdown, CSV, LaTeX, JSON, and for a terminal."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from policy.console import LONGEST_LINE, console_for, plain_table, stripped, wrapped
from policy.tables.exhibits.exhibit import Exhibit
from policy.tables.exhibits.sheet import Sheet
from policy.tables.latex import escape
from policy.tables.text import line


def markdown(exhibit: Exhibit, figures: Sequence[str] = ()) -> str:
    """Args:
    figures: paths of the pictures as seen from the file that this is written to.
    """
    lines = [f"# {exhibit.report.table.title}"]
    for picture, figure in zip(exhibit.pictures, figures, strict=False):
        lines += ["", f"![{picture.alt}]({figure})"]
    for sheet in exhibit.sheets:
        if not sheet.detail:
            lines += _section(sheet, titled=sheet is not exhibit.sheets[0])
    lines += [
        "",
        *(f"- {sentence}" for sentence in exhibit.state),
        "",
        "```sh",
        exhibit.report.command,
        "```",
    ]
    for sheet in exhibit.sheets:
        if sheet.detail:
            lines += _section(sheet, titled=True)
    return "\n".join(lines) + "\n"


def _section(sheet: Sheet, *, titled: bool) -> list[str]:
    rules = ["---:" if numeric else "---" for numeric in sheet.numeric]
    table = ["", line(sheet.header), line(rules), *map(line, sheet.words)]
    return ["", f"## {sheet.title}", *table] if titled else table


def comma_separated(sheet: Sheet) -> str:
    """Numbers as they are; an empty field is a value that does not exist."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.key for column in sheet.columns])
    for row in sheet.rows:
        writer.writerow(["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in row])
    return text.getvalue()


def latex(exhibit: Exhibit) -> str:
    """A `table` environment for each sheet that fits on a page, to \\input; needs booktabs."""
    lines = [r"% Needs \usepackage{booktabs}. Made by:", f"% {exhibit.report.command}"]
    for sheet in (one for one in exhibit.sheets if not one.detail):
        places = "".join("r" if numeric else "l" for numeric in sheet.numeric)
        lines += [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape(sheet.title)}}}",
            rf"  \begin{{tabular}}{{{places}}}",
            r"    \toprule",
            f"    {_row(sheet.header)}",
            r"    \midrule",
            *(f"    {_row(words)}" for words in sheet.words),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    return "\n".join([*lines, *(f"% {sentence}" for sentence in exhibit.state)]) + "\n"


def _row(words: list[str]) -> str:
    return rf"{' & '.join(map(escape, words))} \\"


def as_json(exhibit: Exhibit) -> str:
    """Every number, and where the runs are."""
    report = exhibit.report
    said = {
        "table": report.table.name,
        "title": report.table.title,
        "labels": report.labels_name,
        "seeds": report.seeds,
        "sheets": [
            {
                "title": sheet.title,
                "rows": [
                    dict(zip((column.key for column in sheet.columns), row, strict=True))
                    for row in sheet.rows
                ],
            }
            for sheet in exhibit.sheets
        ],
        "runs": {row.experiment.name: [str(run.folder) for run in row.runs] for row in report.rows},
        "state": exhibit.state,
        "command": report.command,
    }
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


def terminal(exhibit: Exhibit, *, colour: bool = False, width: int | None = None) -> str:
    """Args:
    width: of the terminal in characters, by default as it is; no table is narrower than its numbers.
    """
    width = width or shutil.get_terminal_size((LONGEST_LINE, 24)).columns
    shown = [sheet for sheet in exhibit.sheets if not sheet.detail]
    tables = [_table(sheet) for sheet in shown]
    console = console_for(tables, colour=colour, width=width)
    with console.capture() as captured:
        for sheet, table in zip(shown, tables, strict=True):
            console.print(Text(sheet.title, style="bold"), end="\n\n")
            console.print(table)
            console.print()
    elsewhere = [
        f"{sheet.title}: {len(sheet.rows)} rows, in the files of --out and in --json."
        for sheet in exhibit.sheets
        if sheet.detail
    ]
    below = [*wrapped([*elsewhere, *exhibit.state], width), f"$ {exhibit.report.command}"]
    return "\n".join([*stripped(captured.get()), "", *below]) + "\n"


def _table(sheet: Sheet) -> Table:
    table = plain_table()
    for title, numeric in zip(sheet.header, sheet.numeric, strict=True):
        table.add_column(title, justify="right" if numeric else "left", no_wrap=True)
    for words in sheet.words:
        table.add_row(*map(Text, words))
    return table
