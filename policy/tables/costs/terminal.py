"""The report for a terminal, or for a pipe."""

from __future__ import annotations

import shutil

from rich.table import Table
from rich.text import Text

from policy.console import LONGEST_LINE, console_for, plain_table, stripped, wrapped
from policy.tables.costs import cells
from policy.tables.costs.backbones import BACKBONES
from policy.tables.costs.figure import Figure
from policy.tables.costs.flow import ESTIMATORS, FLOW_ROWS
from policy.tables.costs.printed import COMPUTED, LEARNED
from policy.tables.costs.report import FLOW_STATE, STATE, TITLE, backbone_remark, grouped, remarks


def render(*, colour: bool = False, width: int | None = None) -> str:
    """Args:
    width: of the terminal in characters, by default as it is. No table is narrower than its numbers.
    """
    width = width or shutil.get_terminal_size((LONGEST_LINE, 24)).columns
    numbers = remarks()
    tables = {
        "1. Backbones: one row each": _backbones(numbers),
        "2. Figures that need no training": _computed(numbers),
        "3. Figures that depend on what was learned, and what follows for the rest": _learned(numbers),
        "4. Localization with the estimation of flow (Selection, Table 2)": _flow(),
    }
    console = console_for(list(tables.values()), colour=colour, width=width)
    with console.capture() as captured:
        console.print(Text(TITLE, style="bold"))
        for title, table in tables.items():
            console.print(Text(f"\n{title}", style="bold"), end="\n\n")
            console.print(table)
    lines = [
        *stripped(captured.get()),
        "",
        *wrapped([_quoted(numbers), FLOW_STATE], width),
        "",
        *wrapped([f"[{number}] {remark}" for remark, number in numbers.items()], width, indent="    "),
        "",
        *wrapped(STATE, width),
    ]
    return "\n".join(lines) + "\n"


def _quoted(numbers: dict[str, int]) -> str:
    figures = [figure for figure in LEARNED if figure.learned == "quoted"]
    said = "; ".join(f"{figure.what}: {figure.printed}" for figure in figures)
    return (
        f"Quoted by the selection paper's Table 1, not computed again [{numbers[figures[0].remark]}]: {said}."
    )


def _backbones(numbers: dict[str, int]) -> Table:
    table = _table("stream", "printed", "in", "counted", "twice", "off %", "adds up")
    for backbone in BACKBONES:
        as_printed = backbone.quantity.counted_as_printed
        table.add_row(
            backbone.stream,
            backbone.printed,
            backbone.where,
            f"{backbone.cost.gflops():.3f}",
            f"{backbone.cost.gflops('flop'):.3f}",
            cells.off_percent(float(backbone.printed), as_printed),
            _noted(cells.backbone_verdict(backbone), backbone_remark(backbone), numbers),
        )
    return _aligned(table, left=(0, 2, 6))


def _computed(numbers: dict[str, int]) -> Table:
    table = _table("", "printed", "formula", "gives", "counted", "off %", "adds up")
    for where, figures in grouped(COMPUTED):
        _begin(table, where)
        for figure in figures:
            table.add_row(
                f" {figure.what}",
                figure.printed + cells.unit(figure),
                figure.formula.text if figure.formula else "",
                cells.by_paper(figure),
                cells.number(figure.counted),
                cells.off_percent(figure.value, figure.counted),
                _noted(cells.SHORT[figure.verdict], figure.remark, numbers),
            )
    return _aligned(table, left=(0, 2, 6))


def _learned(numbers: dict[str, int]) -> Table:
    table = _table("", "printed", "of it", "gives", "rest", "that is")
    for where, figures in grouped(figure for figure in LEARNED if figure.learned == "training"):
        _begin(table, where)
        for figure in figures:
            table.add_row(*_learned_row(figure, numbers))
    return _aligned(table, left=(0, 2, 5))


def _learned_row(figure: Figure, numbers: dict[str, int]) -> list[str]:
    return [
        f" {figure.what}",
        figure.printed,
        figure.formula.text if figure.formula else "",
        f"{figure.formula.paper:.2f}" if figure.formula else "",
        cells.rest(figure) if figure.formula else "",
        _noted(cells.inferred(figure), figure.remark, numbers),
    ]


def _flow() -> Table:
    table = _table("", "printed", "GMACs without", "2 per MAC", "+ RAFT small", "+ RAFT large")
    for row in FLOW_ROWS:
        gmacs = [row.gmacs(estimator) for estimator in ESTIMATORS]
        table.add_row(row.what, row.printed, *(f"{v:.1f}" for v in (gmacs[0], 2 * gmacs[0], *gmacs[1:])))
    *others, ours = FLOW_ROWS
    for row in others:
        share = [f"{100 * ours.gmacs(e) / row.gmacs(e):.0f} %" for e in ESTIMATORS]
        printed = f"{100 * float(ours.printed) / float(row.printed):.0f} %"
        table.add_row(f"Ours, of {row.what}", printed, share[0], share[0], *share[1:])
    return _aligned(table, left=(0,))


def _table(*titles: str) -> Table:
    table = plain_table()
    for title in titles:
        table.add_column(title, no_wrap=True)
    return table


def _aligned(table: Table, left: tuple[int, ...]) -> Table:
    for place, column in enumerate(table.columns):
        column.justify = "left" if place in left else "right"
    return table


def _begin(table: Table, where: str) -> None:
    table.add_row(Text(where, style="italic"))


def _noted(word: str, remark: str, numbers: dict[str, int]) -> str:
    return f"{word} [{numbers[remark]}]" if remark else word
