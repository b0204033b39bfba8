"""The report: for a terminal, and as Markdown, CSV and JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from policy.sheets import terminal
from policy.sheets.markup import as_json as json_of
from policy.sheets.markup import comma_separated, markdown_table
from policy.sheets.sheet import NO_VALUE, Column, Document, Sheet, Value
from policy.tables.costs import wording
from policy.tables.costs.components import BACKBONES, ESTIMATORS, FLOW_ROWS, Backbone, FlowRow
from policy.tables.costs.printed import COMPUTED, LEARNED
from policy.tables.costs.quantity import Figure
from policy.tables.costs.wording import FLOW_STATE, STATE, TITLE, backbone_remark, remarks
from policy.tables.output import write_files

COSTS_MD, COSTS_CSV = "costs.md", "costs.csv"
COMMAND = "paper-tables costs"

T = TypeVar("T")


@dataclass(frozen=True)
class Field(Generic[T]):
    """A column of a section.

    Attributes:
        text: its text for a row.
        terminal, markdown: its titles; None leaves it out there.
        number: align it to the right in a terminal.
    """

    text: Callable[[T], str]
    terminal: str | None
    markdown: str | None
    number: bool = False


def render(*, colour: bool = False, width: int | None = None) -> str:
    """The report for a terminal of `width` characters, by default its actual width."""
    width = width or terminal.terminal_width()
    learned = [figure for figure in LEARNED if figure.learned == "training"]
    sheets = [
        _sheet("1. Backbones: one row each", BACKBONES, _BACKBONES),
        _grouped("2. Figures that need no training", COMPUTED, _COMPUTED),
        _grouped(
            "3. Figures that depend on what was learned, and what follows for the rest", learned, _LEARNED
        ),
        _flow_sheet("4. Localization with the estimation of flow (Selection, Table 2)"),
    ]
    tables, _ = terminal.print_sheets(sheets, colour=colour, width=width, title=TITLE)
    numbered = [f"[{number}] {remark}" for remark, number in remarks().items()]
    lines = [
        *tables,
        "",
        *terminal.wrapped([_quoted(), FLOW_STATE], width),
        "",
        *terminal.wrapped(numbered, width, indent="    "),
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
        _sheet("Backbones: one row each", BACKBONES, _BACKBONES, markdown=True),
        _sheet("Figures that need no training", COMPUTED, _COMPUTED, markdown=True),
        _sheet("Figures that depend on what was learned", LEARNED, _LEARNED, markdown=True),
        _sheet("Localization with the estimation of flow", FLOW_ROWS, _FLOW, markdown=True),
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
    """A line per figure of the papers; an empty field is a value that does not exist.

    `counted` is in 10⁹ multiply-accumulates (MACs), `counted_two_per_mac` twice that, `counted_as_printed` with
    each backbone in the unit of its printed figure; `difference` is `printed` minus `counted`. For a backbone,
    `inferred_what` is what its printed figure includes.
    """
    rows = _rows()
    keys = list(rows[-1])  # of a figure; a backbone has only some of them
    values = [[row.get(key) for key in keys] for row in rows]
    return comma_separated(Sheet(TITLE, [Column(key, key) for key in keys], values), digits=7)


def as_json() -> str:
    """All figures and the flow section as JSON."""
    record = {
        "title": TITLE,
        "figures": _rows(),
        "flow_gmacs_per_clip": [_flow(row) for row in FLOW_ROWS],
    }
    return json_of(Document("costs", TITLE, state=[*STATE, FLOW_STATE], command=COMMAND, record=record))


# ---------------------------------------------------------------------------------------------------- sections


def _with_remark(word: str, remark: str) -> str:
    return f"{word} {_reference(remark)}" if remark else word


def _reference(remark: str) -> str:
    return f"[{remarks()[remark]}]" if remark else ""


def _formula(figure: Figure) -> str:
    return figure.formula.text if figure.formula else ""


def _off(backbone: Backbone) -> str:
    return wording.off_percent(float(backbone.printed), backbone.quantity.counted_as_printed)


_BACKBONES: Sequence[Field[Backbone]] = (
    Field(lambda row: row.stream, "stream", None),
    Field(lambda row: f"`{row.stream}`", None, "stream"),
    Field(lambda row: row.printed, "printed", "printed", number=True),
    Field(lambda row: row.where, "in", "in"),
    Field(lambda row: f"{row.cost.gflops():.3f}", "counted", "GMACs", number=True),
    Field(lambda row: f"{row.cost.gflops('flop'):.3f}", "twice", "two per MAC", number=True),
    Field(_off, "off %", "printed is off by %", number=True),
    Field(lambda row: _with_remark(wording.backbone_verdict(row), backbone_remark(row)), "adds up", None),
    Field(wording.backbone_verdict, None, "adds up"),
    Field(lambda row: _reference(backbone_remark(row)), None, "remark"),
)
_WHERE: Sequence[Field[Figure]] = (
    Field(lambda row: f" {row.what}", "", None),
    Field(lambda row: row.where, None, "where"),
    Field(lambda row: row.what, None, "what"),
)
_VERDICT: Sequence[Field[Figure]] = (
    Field(lambda row: row.verdict, None, "verdict"),
    Field(lambda row: _reference(row.remark), None, "remark"),
)
_COMPUTED: Sequence[Field[Figure]] = (
    *_WHERE,
    Field(lambda row: row.printed + wording.unit(row), "printed", "printed", number=True),
    Field(_formula, "formula", "formula"),
    Field(wording.by_paper, "gives", "gives", number=True),
    Field(lambda row: wording.number(row.counted), "counted", "counted, GMACs", number=True),
    Field(lambda row: wording.number(row.counted_two_per_mac), None, "two per MAC"),
    Field(lambda row: wording.number(row.difference), None, "difference"),
    Field(lambda row: wording.off_percent(row.value, row.counted), "off %", None, number=True),
    Field(lambda row: _with_remark(wording.SHORT[row.verdict], row.remark), "adds up", None),
    *_VERDICT,
)
_LEARNED: Sequence[Field[Figure]] = (
    *_WHERE,
    Field(lambda row: row.printed, "printed", "printed", number=True),
    Field(_formula, "of it", "of it"),
    Field(lambda row: f"{row.formula.paper:.2f}" if row.formula else "", "gives", None, number=True),
    Field(lambda row: f"{row.formula.paper:.2f}" if row.formula else NO_VALUE, None, "gives"),
    Field(lambda row: wording.number(row.counted), None, "counted, GMACs"),
    Field(lambda row: wording.rest(row) if row.formula else "", "rest", None, number=True),
    Field(wording.rest, None, "rest"),
    Field(lambda row: _with_remark(wording.inferred(row), row.remark), "that is", None),
    Field(wording.inferred, None, "that is"),
    *_VERDICT,
)
_FLOW: Sequence[Field[FlowRow]] = (
    Field(lambda row: row.what, None, "method"),
    Field(lambda row: row.printed, None, "printed"),
    Field(lambda row: f"{row.gmacs(None):.1f}", None, "GMACs without"),
    Field(lambda row: f"{row.gmacs('raft_small'):.1f}", None, "with RAFT small"),
    Field(lambda row: f"{row.gmacs('raft_large'):.1f}", None, "with RAFT large"),
)


def _sheet(title: str, rows: Iterable[T], fields: Sequence[Field[T]], *, markdown: bool = False) -> Sheet:
    titles = [field.markdown if markdown else field.terminal for field in fields]
    shown = [(name, field) for name, field in zip(titles, fields, strict=True) if name is not None]
    columns = [Column(name, numeric=field.number and not markdown) for name, field in shown]
    return Sheet(title, columns, [[field.text(row) for _, field in shown] for row in rows], ruled=False)


def _grouped(title: str, figures: Sequence[Figure], fields: Sequence[Field[Figure]]) -> Sheet:
    """Figures under the place where they are printed, in the papers' order."""
    before = ["", *(figure.where for figure in figures)]
    groups = {
        index: figure.where
        for index, (figure, previous) in enumerate(zip(figures, before, strict=False))
        if figure.where != previous
    }
    return replace(_sheet(title, figures, fields), groups=groups)


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
        "rest": figure.rest.paper if figure.rest else None,
        "rest_rounding": figure.rest.slack if figure.rest else None,
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
