"""A report as LaTeX: a booktabs table with a header row for ours and for each data set of the paper."""

from __future__ import annotations

from itertools import pairwise

from policy.tables.cells import Cells, cells, titles
from policy.tables.datasets import dataset_title
from policy.tables.report import Report

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
    # What no engine's default fonts need have.
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
    """Text as it stands, for LaTeX's text mode. Letters of other scripts stay: XeLaTeX and LuaLaTeX set them."""
    return "".join(_ESCAPED.get(character, character) for character in text)


def latex(report: Report) -> str:
    """A `table` environment to \\input; needs booktabs. The state is set below it, the command is a comment."""
    table = report.table
    paper = titles(table.printed)
    texts = 1 + len(table.columns)
    groups = [("", texts), ("ours", len(table.measures))]
    groups += [(f"paper, {dataset_title(name)}", len(paper)) for name in table.datasets]
    width = sum(count for _, count in groups)
    lines = [
        r"% Needs \usepackage{booktabs}. Made by:",
        *(f"% {part}" for part in report.command.splitlines()),
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape(table.title)}}}",
        rf"  \label{{tab:{_label(table.name)}}}",
        rf"  \begin{{tabular}}{{{'l' * texts}{'r' * (width - texts)}}}",
        r"    \toprule",
        f"    {_spanning(groups)}",
        f"    {_rules(groups)}",
        f"    {_row(['method', *table.columns, *titles(table.measures), *paper * len(table.datasets)])}",
        r"    \midrule",
    ]
    for row in cells(report):
        if row.heading:
            if lines[-1] != r"    \midrule":
                lines.append(r"    \midrule")
            lines.append(rf"    \multicolumn{{{width}}}{{l}}{{\emph{{{escape(row.heading)}}}}} \\")
        lines.append(f"    {_row(_words(row), bold=row.emphasised)}")
    lines += [r"    \bottomrule", r"  \end{tabular}", r"  \par\medskip\footnotesize\raggedright"]
    lines += [f"  {escape(sentence)}" for sentence in report.state]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _words(row: Cells) -> list[str]:
    published = [text for values in row.published.values() for text in values.values()]
    return [row.title, *row.columns, *row.ours.values(), *published]


def _row(words: list[str], *, bold: bool = False) -> str:
    said = " & ".join(rf"\textbf{{{escape(word)}}}" if bold and word else escape(word) for word in words)
    # After the \\ of the row before, these two would be its arguments.
    return rf"{'{}' if said.startswith(('[', '*')) else ''}{said} \\"


def _spanning(groups: list[tuple[str, int]]) -> str:
    said = [rf"\multicolumn{{{count}}}{{c}}{{{escape(title)}}}" for title, count in groups if count]
    return rf"{' & '.join(said)} \\"


def _rules(groups: list[tuple[str, int]]) -> str:
    """A thin rule under each group that has a title."""
    ends = [0]
    for _, count in groups:
        ends.append(ends[-1] + count)
    spans = zip(groups, pairwise(ends), strict=True)
    return " ".join(
        rf"\cmidrule(lr){{{before + 1}-{last}}}"
        for (title, count), (before, last) in spans
        if title and count
    )


def _label(name: str) -> str:
    """What \\ref takes: letters, digits and hyphens."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)
