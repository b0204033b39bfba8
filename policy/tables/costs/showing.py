"""The report: for a terminal, and as Markdown, CSV and JSON."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from policy.sheets import terminal
from policy.sheets.markup import as_json as json_of
from policy.sheets.markup import comma_separated, markdown_table
from policy.sheets.sheet import NO_VALUE, Column, Document, Sheet, Value
from policy.tables.costs import wording
from policy.tables.costs.components import BACKBONES, Backbone
from policy.tables.costs.flow import ESTIMATORS, FLOW_ROWS, FlowRow
from policy.tables.costs.printed import COMPUTED, LEARNED
from policy.tables.costs.quantity import Figure
from policy.tables.costs.wording import FLOW_STATE, STATE, TITLE, backbone_remark, remarks
from policy.tables.output import write_files

COSTS_MD, COSTS_CSV = "costs.md", "costs.csv"
COMMAND = "paper-tables costs"

T = TypeVar("T")
Columns = Mapping[str, Callable[[T], str]]
"""By its title, what a column says of a row."""


def render(*, colour: bool = False, width: int | None = None) -> str:
    """Args:
    width: of the terminal in characters, by default as it is. No table is narrower than its numbers.
    """
    width = width or terminal.terminal_width()
    learned = [figure for figure in LEARNED if figure.learned == "training"]
    sheets = [
        _sheet("1. Backbones: one row each", BACKBONES, _BACKBONES, left=(0, 2, 6)),
        _grouped("2. Figures that need no training", COMPUTED, _COMPUTED, left=(0, 2, 6)),
        _grouped(
            "3. Figures that depend on what was learned, and what follows for the rest",
            learned,
            _LEARNED,
            left=(0, 2, 5),
        ),
        _flow_sheet("4. Localization with the estimation of flow (Selection, Table 2)"),
    ]
    tables, _ = terminal.print_sheets(sheets, colour=colour, width=width, title=TITLE)
    noted = [f"[{number}] {remark}" for remark, number in remarks().items()]
    lines = [
        *tables,
        "",
        *terminal.wrapped([_quoted(), FLOW_STATE], width),
        "",
        *terminal.wrapped(noted, width, indent="    "),
        "",
        *terminal.wrapped(STATE, width),
    ]
    return "\n".join(lines) + "\n"


def write_report(folder: Path) -> list[Path]:
    """Write costs.md and costs.csv and return their paths. Raises UserError if one cannot be written."""
    return write_files({COSTS_MD: markdown().encode(), COSTS_CSV: csv_of_figures().encode()}, folder)


def markdown() -> str:
    """The sections of the terminal, with their remarks."""
    sheets = (
        _sheet("Backbones: one row each", BACKBONES, _BACKBONES_MARKDOWN),
        _sheet("Figures that need no training", COMPUTED, _COMPUTED_MARKDOWN),
        _sheet("Figures that depend on what was learned", LEARNED, _LEARNED_MARKDOWN),
        _sheet("Localization with the estimation of flow", FLOW_ROWS, _FLOW_MARKDOWN),
    )
    lines = [
        f"# {TITLE}",
        *(line for sheet in sheets for line in markdown_table(sheet)),
        "",
        FLOW_STATE,
        "",
        "## Remarks",
        "",
        *(f"{number}. {remark}" for remark, number in remarks().items()),
        "",
        *(f"- {sentence}" for sentence in STATE),
        "",
        "```sh",
        COMMAND,
        "```",
    ]
    return "\n".join(lines) + "\n"


def csv_of_figures() -> str:
    """One line per figure of the papers, numbers plain; an empty field is a value that does not exist.

    `counted` is in 10⁹ multiply-accumulates (MACs), `counted_two_per_mac` twice that, `counted_as_printed` with
    each backbone in the unit of its printed figure; `difference` is `printed` less `counted`. Of a backbone,
    `inferred_what` is what its printed figure counts.
    """
    rows = _rows()
    keys = list(rows[-1])  # of a figure; a backbone has only some of them
    values = [[row.get(key) for key in keys] for row in rows]
    return comma_separated(Sheet(TITLE, [Column(key, key) for key in keys], values), digits=7)


def as_json() -> str:
    """The same as JSON, and the flow section."""
    record = {
        "title": TITLE,
        "figures": _rows(),
        "flow_gmacs_per_clip": [_flow(row) for row in FLOW_ROWS],
    }
    return json_of(Document("costs", TITLE, state=[*STATE, FLOW_STATE], command=COMMAND, record=record))


# ---------------------------------------------------------------------------------------------------- sections


def _noted(word: str, remark: str) -> str:
    return f"{word} {_reference(remark)}" if remark else word


def _reference(remark: str) -> str:
    return f"[{remarks()[remark]}]" if remark else ""


def _formula(figure: Figure) -> str:
    return figure.formula.text if figure.formula else ""


def _gives(figure: Figure, otherwise: str) -> str:
    return f"{figure.formula.paper:.2f}" if figure.formula else otherwise


def _off(backbone: Backbone) -> str:
    return wording.off_percent(float(backbone.printed), backbone.quantity.counted_as_printed)


_BACKBONES: Columns[Backbone] = {
    "stream": lambda one: one.stream,
    "printed": lambda one: one.printed,
    "in": lambda one: one.where,
    "counted": lambda one: f"{one.cost.gflops():.3f}",
    "twice": lambda one: f"{one.cost.gflops('flop'):.3f}",
    "off %": _off,
    "adds up": lambda one: _noted(wording.backbone_verdict(one), backbone_remark(one)),
}
_BACKBONES_MARKDOWN: Columns[Backbone] = {
    "stream": lambda one: f"`{one.stream}`",
    "printed": _BACKBONES["printed"],
    "in": _BACKBONES["in"],
    "GMACs": _BACKBONES["counted"],
    "two per MAC": _BACKBONES["twice"],
    "printed is off by %": _off,
    "adds up": wording.backbone_verdict,
    "remark": lambda one: _reference(backbone_remark(one)),
}
_COMPUTED: Columns[Figure] = {
    "": lambda one: f" {one.what}",
    "printed": lambda one: one.printed + wording.unit(one),
    "formula": _formula,
    "gives": wording.by_paper,
    "counted": lambda one: wording.number(one.counted),
    "off %": lambda one: wording.off_percent(one.value, one.counted),
    "adds up": lambda one: _noted(wording.SHORT[one.verdict], one.remark),
}
_WHERE: Columns[Figure] = {"where": lambda one: one.where, "what": lambda one: one.what}
_VERDICT: Columns[Figure] = {"verdict": lambda one: one.verdict, "remark": lambda one: _reference(one.remark)}
_COMPUTED_MARKDOWN: Columns[Figure] = {
    **_WHERE,
    "printed": _COMPUTED["printed"],
    "formula": _formula,
    "gives": wording.by_paper,
    "counted, GMACs": _COMPUTED["counted"],
    "two per MAC": lambda one: wording.number(one.counted_two_per_mac),
    "difference": lambda one: wording.number(one.difference),
    **_VERDICT,
}
_LEARNED: Columns[Figure] = {
    "": lambda one: f" {one.what}",
    "printed": lambda one: one.printed,
    "of it": _formula,
    "gives": lambda one: _gives(one, ""),
    "rest": lambda one: wording.rest(one) if one.formula else "",
    "that is": lambda one: _noted(wording.inferred(one), one.remark),
}
_LEARNED_MARKDOWN: Columns[Figure] = {
    **_WHERE,
    "printed": _LEARNED["printed"],
    "of it": _formula,
    "gives": lambda one: _gives(one, NO_VALUE),
    "counted, GMACs": _COMPUTED["counted"],
    "rest": wording.rest,
    "that is": wording.inferred,
    **_VERDICT,
}
_FLOW_MARKDOWN: Columns[FlowRow] = {
    "method": lambda one: one.what,
    "printed": lambda one: one.printed,
    "GMACs without": lambda one: f"{one.gmacs(None):.1f}",
    "with RAFT small": lambda one: f"{one.gmacs('raft_small'):.1f}",
    "with RAFT large": lambda one: f"{one.gmacs('raft_large'):.1f}",
}


def _sheet(title: str, rows: Iterable[T], columns: Columns[T], left: Collection[int] | None = None) -> Sheet:
    """Args:
    left: places of the columns of text; None for all.
    """
    aligned = [
        Column(name, numeric=left is not None and place not in left) for place, name in enumerate(columns)
    ]
    return Sheet(title, aligned, [[of(row) for of in columns.values()] for row in rows], ruled=False)


def _grouped(title: str, figures: Iterable[Figure], columns: Columns[Figure], left: Collection[int]) -> Sheet:
    """Under the place where they are printed, in the papers' order."""
    figures = list(figures)
    before = ["", *(figure.where for figure in figures)]
    begun = {
        n: one.where for n, (one, last) in enumerate(zip(figures, before, strict=False)) if one.where != last
    }
    return replace(_sheet(title, figures, columns, left), groups=begun)


def _flow_sheet(title: str) -> Sheet:
    titles = ("", "printed", "GMACs without", "2 per MAC", "+ RAFT small", "+ RAFT large")
    rows: list[list[Value]] = []
    for row in FLOW_ROWS:
        gmacs = [row.gmacs(estimator) for estimator in ESTIMATORS]
        rows.append([row.what, row.printed, *(f"{v:.1f}" for v in (gmacs[0], 2 * gmacs[0], *gmacs[1:]))])
    *others, ours = FLOW_ROWS
    for row in others:
        share = [f"{100 * ours.gmacs(e) / row.gmacs(e):.0f} %" for e in ESTIMATORS]
        printed = f"{100 * float(ours.printed) / float(row.printed):.0f} %"
        rows.append([f"Ours, of {row.what}", printed, share[0], share[0], *share[1:]])
    return Sheet(title, [Column(name, numeric=bool(name)) for name in titles], rows)


def _quoted() -> str:
    figures = [figure for figure in LEARNED if figure.learned == "quoted"]
    values = "; ".join(f"{figure.what}: {figure.printed}" for figure in figures)
    reference = _reference(figures[0].remark)
    return f"Quoted by the selection paper's Table 1, not computed again {reference}: {values}."


# ------------------------------------------------------------------------------------------------- every figure


def _rows() -> list[dict[str, Value]]:
    backbones = [_backbone_row(backbone) for backbone in BACKBONES]
    computed = [_figure_row("no training", figure) for figure in COMPUTED]
    return [*backbones, *computed, *(_figure_row("learned", figure) for figure in LEARNED)]


def _backbone_row(backbone: Backbone) -> dict[str, Value]:
    cost, value = backbone.cost, float(backbone.printed)
    return {
        "section": "backbones",
        "where": backbone.where,
        "what": backbone.stream,
        "unit": "GFLOPs",
        "printed": backbone.printed,
        "counted": cost.gflops(),
        "counted_two_per_mac": cost.gflops("flop"),
        "counted_as_printed": cost.gflops(cost.paper_unit),
        "difference": value - cost.gflops(),
        "verdict": "does not add up" if backbone.counted_way is None else "adds up",
        "inferred_what": backbone.counted_way,
        "remark": backbone_remark(backbone),
    }


def _figure_row(section: str, figure: Figure) -> dict[str, Value]:
    formula, inferred = figure.formula, figure.inferred
    return {
        "section": section,
        "where": figure.where,
        "what": figure.what,
        "unit": figure.unit,
        "printed": figure.printed,
        "formula": formula.text if formula else None,
        "by_paper": formula.paper if formula else None,
        "by_paper_rounding": formula.slack if formula else None,
        "counted": figure.counted,
        "counted_two_per_mac": figure.counted_two_per_mac,
        "counted_as_printed": figure.counted_as_printed,
        "difference": figure.difference,
        "verdict": figure.verdict,
        "rest": figure.rest,
        "rest_rounding": figure.rest_half_width,
        "inferred": inferred.value.paper if inferred else None,
        "inferred_rounding": inferred.value.slack if inferred else None,
        "inferred_what": inferred.what if inferred else None,
        "remark": figure.remark,
    }


def _flow(row: FlowRow) -> dict[str, Value]:
    return {
        "what": row.what,
        "printed": row.printed,
        **{estimator or "without": row.gmacs(estimator) for estimator in ESTIMATORS},
    }
