"""The files of a table or figure in a folder: table.md, .csv and .tex, figure.png and report.html."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cache_schema import UserError
from cache_schema.files import check_writable
from cache_schema.run_folder import write_atomically
from policy.sheets import page
from policy.sheets.markup import comma_separated, latex, markdown
from policy.sheets.sheet import Document

TABLE_MD, TABLE_CSV, TABLE_TEX, FIGURE_PNG = "table.md", "table.csv", "table.tex", "figure.png"
REPORT_HTML = "report.html"


def check_folder(folder: Path) -> None:
    """Try to write to the folder, before hours of training. A request that is refused leaves none.

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        check_writable(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot write the table there: {error.strerror or error}") from error


def write(document: Document, folder: Path) -> list[Path]:
    """Write all files of a document, with a page of its own, and return the paths.

    table.csv holds the first sheet, table-2.csv the second; pictures are numbered the same way.

    Raises:
        UserError: a file cannot be written.
    """
    pictures = {_numbered(FIGURE_PNG, n): one.png for n, one in enumerate(document.pictures, 1)}
    contents = {
        TABLE_MD: markdown(document, [*pictures]).encode(),
        TABLE_TEX: latex(document).encode(),
        **{_numbered(TABLE_CSV, n): comma_separated(one).encode() for n, one in enumerate(document.data, 1)},
        **pictures,
        REPORT_HTML: page.render(document.title, [document]).encode(),
    }
    return write_files(contents, folder)


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else name.replace(".", f"-{number}.")


def write_files(contents: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write files by name, each atomically; return their paths. Raises UserError if one cannot be written."""
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]
