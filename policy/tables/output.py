"""The files of a table or figure in a folder: table.md, .csv and .tex, figure.png and report.html."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cache_schema import UserError
from cache_schema.run_folder import write_atomically
from policy.tables import figure, html, latex, page, text
from policy.tables.exhibits import forms
from policy.tables.exhibits.exhibit import Exhibit
from policy.tables.report import Report

TABLE_MD, TABLE_CSV, TABLE_TEX, FIGURE_PNG = "table.md", "table.csv", "table.tex", "figure.png"
REPORT_HTML = "report.html"


def check_folder(folder: Path) -> None:
    """Make the folder and try to write in it: hours of training later is too late to find out.

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot write the table there: {error.strerror or error}") from error


@dataclass(frozen=True)
class Files:
    """Attributes:
    contents: by name of the file.
    section: the same for a page.
    """

    contents: Mapping[str, bytes]
    section: html.Section

    def write(self, folder: Path) -> list[Path]:
        """Write them with a page of their own. Raises UserError if one cannot be written."""
        pages = {REPORT_HTML: page.render(self.section.title, [self.section])}
        return write_files({**self.contents, **pages}, folder)


def of_report(report: Report) -> Files:
    """A table's."""
    png = figure.render(report)
    contents = {
        TABLE_MD: text.markdown(report, FIGURE_PNG).encode(),
        TABLE_CSV: text.comma_separated(report).encode(),
        TABLE_TEX: latex.latex(report).encode(),
        FIGURE_PNG: png,
    }
    return Files(contents, page.of_report(report, png))


def of_exhibit(exhibit: Exhibit) -> Files:
    """A figure's; table.csv is of its first sheet, table-2.csv of the second, and so with its pictures."""
    pictures = {_numbered(FIGURE_PNG, n): one.png for n, one in enumerate(exhibit.pictures, 1)}
    contents = {
        TABLE_MD: forms.markdown(exhibit, [*pictures]).encode(),
        TABLE_TEX: forms.latex(exhibit).encode(),
    }
    for number, sheet in enumerate(exhibit.sheets, 1):
        contents[_numbered(TABLE_CSV, number)] = forms.comma_separated(sheet).encode()
    return Files({**contents, **pictures}, page.of_exhibit(exhibit))


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else name.replace(".", f"-{number}.")


def write_files(contents: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write files by name, each atomically, and return their paths. Raises UserError if one cannot be written."""
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]
