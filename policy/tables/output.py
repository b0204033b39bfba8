"""A report's files in a folder: table.md, table.csv, table.tex and figure.png."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from cache_schema import UserError
from cache_schema.run_folder import write_atomically
from policy.tables import figure, latex, text
from policy.tables.report import Report

TABLE_MD, TABLE_CSV, TABLE_TEX, FIGURE_PNG = "table.md", "table.csv", "table.tex", "figure.png"


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


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write the files, each atomically, and return their paths. Raises UserError if one cannot be written."""
    contents = {
        TABLE_MD: text.markdown(report, FIGURE_PNG).encode(),
        TABLE_CSV: text.comma_separated(report).encode(),
        TABLE_TEX: latex.latex(report).encode(),
        FIGURE_PNG: figure.render(report),
    }
    return write_files(contents, folder)


def write_files(contents: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write files by name, each atomically, and return their paths. Raises UserError if one cannot be written."""
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]
