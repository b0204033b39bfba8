"""The report as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from policy.tables.cells import NO_VALUE
from policy.tables.costs import cells
from policy.tables.costs.backbones import BACKBONES, Backbone
from policy.tables.costs.figure import Figure
from policy.tables.costs.flow import ESTIMATORS, FLOW_ROWS, FlowRow
from policy.tables.costs.printed import COMPUTED, LEARNED
from policy.tables.costs.report import FLOW_STATE, STATE, TITLE, backbone_remark, remarks
from policy.tables.output import write_files
from policy.tables.text import line

COSTS_MD, COSTS_CSV = "costs.md", "costs.csv"
COMMAND = "paper-tables costs"

_COLUMNS = (
    "section",
    "where",
    "what",
    "unit",
    "printed",
    "formula",
    "by_paper",
    "by_paper_rounding",
    "counted",
    "counted_two_per_mac",
    "counted_as_printed",
    "difference",
    "verdict",
    "rest",
    "rest_rounding",
    "inferred",
    "inferred_rounding",
    "inferred_what",
    "remark",
)


def write_report(folder: Path) -> list[Path]:
    """Write costs.md and costs.csv and return their paths. Raises UserError if one cannot be written."""
    return write_files({COSTS_MD: markdown().encode(), COSTS_CSV: comma_separated().encode()}, folder)


def comma_separated() -> str:
    """One line per figure of the papers, numbers plain; an empty field is a value that does not exist.

    `counted` is in 10⁹ multiply-accumulates (MACs), `counted_two_per_mac` twice that, `counted_as_printed` with
    each backbone in the unit of its printed figure; `difference` is `printed` less `counted`. Of a backbone,
    `inferred_what` is what its printed figure counts.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for row in _rows():
        writer.writerow({name: _plain(value) for name, value in row.items()})
    return text.getvalue()


def as_json() -> str:
    """The same as JSON, and the flow section."""
    said = {
        "title": TITLE,
        "figures": _rows(),
        "flow_gmacs_per_clip": [_flow(row) for row in FLOW_ROWS],
        "state": [*STATE, FLOW_STATE],
        "command": COMMAND,
    }
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


def markdown() -> str:
    """The sections of the terminal, with their remarks."""
    numbers = remarks()
    lines = [
        f"# {TITLE}",
        *_table(
            "Backbones: one row each", _BACKBONE_TITLES, [_backbone_cells(b, numbers) for b in BACKBONES]
        ),
        *_table(
            "Figures that need no training", _COMPUTED_TITLES, [_computed_cells(f, numbers) for f in COMPUTED]
        ),
        *_table(
            "Figures that depend on what was learned",
            _LEARNED_TITLES,
            [_learned_cells(f, numbers) for f in LEARNED],
        ),
        *_table(
            "Localization with the estimation of flow", _FLOW_TITLES, [_flow_cells(r) for r in FLOW_ROWS]
        ),
        "",
        FLOW_STATE,
        "",
        "## Remarks",
        "",
        *(f"{number}. {remark}" for remark, number in numbers.items()),
        "",
        *(f"- {sentence}" for sentence in STATE),
        "",
        "```sh",
        COMMAND,
        "```",
    ]
    return "\n".join(lines) + "\n"


_BACKBONE_TITLES = (
    "stream",
    "printed",
    "in",
    "GMACs",
    "two per MAC",
    "printed is off by %",
    "adds up",
    "remark",
)
_COMPUTED_TITLES = (
    *(
        "where",
        "what",
        "printed",
        "formula",
        "gives",
        "counted, GMACs",
        "two per MAC",
        "difference",
        "verdict",
    ),
    "remark",
)
_LEARNED_TITLES = (
    *("where", "what", "printed", "of it", "gives", "counted, GMACs", "rest", "that is", "verdict", "remark"),
)
_FLOW_TITLES = ("method", "printed", "GMACs without", "with RAFT small", "with RAFT large")


def _backbone_cells(backbone: Backbone, numbers: dict[str, int]) -> list[str]:
    return [
        f"`{backbone.stream}`",
        backbone.printed,
        backbone.where,
        f"{backbone.cost.gflops():.3f}",
        f"{backbone.cost.gflops('flop'):.3f}",
        cells.off_percent(float(backbone.printed), backbone.quantity.counted_as_printed),
        cells.backbone_verdict(backbone),
        _reference(backbone_remark(backbone), numbers),
    ]


def _computed_cells(figure: Figure, numbers: dict[str, int]) -> list[str]:
    return [
        figure.where,
        figure.what,
        figure.printed + cells.unit(figure),
        figure.formula.text if figure.formula else "",
        cells.by_paper(figure),
        cells.number(figure.counted),
        cells.number(figure.counted_two_per_mac),
        cells.number(figure.difference),
        figure.verdict,
        _reference(figure.remark, numbers),
    ]


def _learned_cells(figure: Figure, numbers: dict[str, int]) -> list[str]:
    return [
        figure.where,
        figure.what,
        figure.printed,
        figure.formula.text if figure.formula else "",
        f"{figure.formula.paper:.2f}" if figure.formula else NO_VALUE,
        cells.number(figure.counted),
        cells.rest(figure),
        cells.inferred(figure),
        figure.verdict,
        _reference(figure.remark, numbers),
    ]


def _flow_cells(row: FlowRow) -> list[str]:
    return [row.what, row.printed, *(f"{row.gmacs(estimator):.1f}" for estimator in ESTIMATORS)]


def _reference(remark: str, numbers: dict[str, int]) -> str:
    return f"[{numbers[remark]}]" if remark else ""


def _table(title: str, titles: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    head = [line(list(titles)), line(["---"] * len(titles))]
    return ["", f"## {title}", "", *head, *(line(row) for row in rows)]


def _rows() -> list[dict[str, object]]:
    backbones = [_backbone_row(backbone) for backbone in BACKBONES]
    computed = [_figure_row("no training", figure) for figure in COMPUTED]
    return [*backbones, *computed, *(_figure_row("learned", figure) for figure in LEARNED)]


def _backbone_row(backbone: Backbone) -> dict[str, object]:
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


def _figure_row(section: str, figure: Figure) -> dict[str, object]:
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


def _flow(row: FlowRow) -> dict[str, object]:
    return {
        "what": row.what,
        "printed": row.printed,
        **{estimator or "without": row.gmacs(estimator) for estimator in ESTIMATORS},
    }


def _plain(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else value
