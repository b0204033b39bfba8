"""A document as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from policy.sheets.sheet import Document, Sheet

# ---------------------------------------------------------------------------------------------------- Markdown


def markdown(document: Document, pictures: Sequence[str] = ()) -> str:
    """Args:
    pictures: their paths, relative to the Markdown file.
    """
    shown = [
        line
        for picture, path in zip(document.pictures, pictures, strict=False)
        for line in ("", f"![{picture.brief or picture.alt}]({path})")
    ]
    tables = [
        line for place, sheet in enumerate(document.main) for line in markdown_table(sheet, titled=place > 0)
    ]
    lines = [
        f"# {document.title}",
        *([*tables, *shown] if document.label else [*shown, *tables]),
        "",
        *(f"- {sentence}" for sentence in document.state),
        "",
        "```sh",
        document.command,
        "```",
        *(line for sheet in document.details for line in markdown_table(sheet)),
    ]
    return "\n".join(lines) + "\n"


def markdown_table(sheet: Sheet, *, titled: bool = True) -> list[str]:
    """The lines of a table below its title."""
    lines = ["", f"## {sheet.title}"] if titled else []
    lines += ["", _markdown_row(sheet.header)]
    lines.append(_markdown_row(["---:" if numeric else "---" for numeric in sheet.numeric]))
    for index, words in enumerate(sheet.words):
        if group := sheet.groups.get(index):
            lines.append(_markdown_row([f"*{group}*", *[""] * (len(words) - 1)]))
        strong = [f"**{word}**" if word else "" for word in words] if index in sheet.emphasised else words
        lines.append(_markdown_row(strong))
    return lines


def _markdown_row(words: Sequence[str]) -> str:
    escaped = [word.replace("|", r"\|") for word in words]
    return f"| {' | '.join(escaped)} |"


# ------------------------------------------------------------------------------------------------- CSV and JSON


def comma_separated(sheet: Sheet, *, digits: int = 6) -> str:
    """CSV, floats with `digits` significant digits; an empty field is a value that does not exist."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.key for column in sheet.columns])
    for row in sheet.rows:
        writer.writerow(["" if v is None else f"{v:.{digits}g}" if isinstance(v, float) else v for v in row])
    return text.getvalue()


def as_json(document: Document) -> str:
    everything = {**document.record, "state": document.state, "command": document.command}
    return json.dumps(everything, indent=2, ensure_ascii=False) + "\n"


# ------------------------------------------------------------------------------------------------------- LaTeX

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # Characters that the default fonts of an engine may lack.
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "γ": r"$\gamma$",
    "λ": r"$\lambda$",
    "τ": r"$\tau$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "†": r"$^\dagger$",
    "–": "--",
    "…": r"\dots{}",
    **{digit: f"$^{power}$" for power, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}


def escape(text: str) -> str:
    """Escape text for LaTeX's text mode. Letters of other scripts stay: XeLaTeX and LuaLaTeX set them."""
    return "".join(_ESCAPED.get(character, character) for character in text)


def latex(document: Document) -> str:
    """A `table` environment for each main sheet, to \\input; needs booktabs."""
    lines = [r"% Needs \usepackage{booktabs}. Made by:"]
    lines += [f"% {part}" for part in document.command.splitlines()]
    for sheet in document.main:
        lines += [r"\begin{table}", r"  \centering", rf"  \caption{{{escape(sheet.title)}}}"]
        if document.label:
            lines.append(rf"  \label{{tab:{document.label}}}")
        lines += _tabular(sheet)
        if document.label:
            lines.append(r"  \par\medskip\footnotesize\raggedright")
            lines += [f"  {escape(sentence)}" for sentence in document.state]
        lines.append(r"\end{table}")
    if not document.label:
        lines += [f"% {sentence}" for sentence in document.state]
    return "\n".join(lines) + "\n"


def _tabular(sheet: Sheet) -> list[str]:
    places = "".join("r" if numeric else "l" for numeric in sheet.numeric)
    lines = [rf"  \begin{{tabular}}{{{places}}}", r"    \toprule"]
    if any(above for above, _ in sheet.column_groups):
        lines += _spanning(sheet.column_groups)
    lines += [f"    {_latex_row([column.title for column in sheet.columns])}", r"    \midrule"]
    for index, words in enumerate(sheet.words):
        if group := sheet.groups.get(index):
            if lines[-1] != r"    \midrule":
                lines.append(r"    \midrule")
            lines.append(rf"    \multicolumn{{{len(words)}}}{{l}}{{\emph{{{escape(group)}}}}} \\")
        lines.append(f"    {_latex_row(words, bold=index in sheet.emphasised)}")
    return [*lines, r"    \bottomrule", r"  \end{tabular}"]


def _spanning(groups: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """A row of headings above the columns, and a thin rule under each that is not empty."""
    headings, rules, end = [], [], 0
    for above, titles in groups:
        first, end = end + 1, end + len(titles)
        headings.append(rf"\multicolumn{{{len(titles)}}}{{c}}{{{escape(above)}}}")
        if above:
            rules.append(rf"\cmidrule(lr){{{first}-{end}}}")
    return [rf"    {' & '.join(headings)} \\", f"    {' '.join(rules)}"]


def _latex_row(words: Sequence[str], *, bold: bool = False) -> str:
    cells = " & ".join(rf"\textbf{{{escape(word)}}}" if bold and word else escape(word) for word in words)
    # Directly after the \\ of the previous row, [ and * would be its arguments.
    return rf"{'{}' if cells.startswith(('[', '*')) else ''}{cells} \\"
