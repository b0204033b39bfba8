"""Numbers as words, the same in the terminal and in Markdown."""

from __future__ import annotations

from policy.sheets.sheet import NO_VALUE
from policy.tables.costs.backbones import Backbone
from policy.tables.costs.figure import Figure, Verdict
from policy.tables.costs.quantity import Quantity

SHORT: dict[Verdict, str] = {
    "adds up": "yes",
    "adds up only in mixed units": "if mixed",
    "does not add up": "no",
    "needs training": "needs training",
    "quoted from others": "quoted",
}


def number(value: float | None) -> str:
    """With three decimals, from 10 on with two."""
    if value is None:
        return NO_VALUE
    return f"{value:.{2 if abs(value) >= 10 else 3}f}"


def by_paper(figure: Figure) -> str:
    """The formula's value by the papers' figures: as many digits as are printed, up to two where they differ."""
    if figure.formula is None:
        return NO_VALUE
    digits = len(figure.printed.partition(".")[2])
    value = f"{figure.formula.paper:.{digits}f}"
    return (
        value
        if float(value) == figure.value
        else f"{figure.formula.paper:.{max(digits, min(digits + 1, 2))}f}"
    )


def off_percent(printed: float, counted: float | None) -> str:
    """How far the printed figure is above the counted one, in percent of the counted one."""
    if counted is None or counted == 0:
        return NO_VALUE
    off = 100 * (printed - counted) / counted
    return f"{off:+.1f}" if abs(off) >= 0.05 else "0.0"


def unit(figure: Figure) -> str:
    return " %" if figure.unit == "%" else ""


def spread(value: float, half_width: float) -> str:
    """A number and how far rounding may have moved it, to the digit that says so."""
    digits = 0 if half_width >= 0.95 else 1 if half_width >= 0.095 else 2
    return f"{value:.{digits}f} ± {half_width:.{digits}f}"


def quantity(value: Quantity) -> str:
    return spread(value.paper, value.slack)


def inferred(figure: Figure) -> str:
    if figure.inferred is None:
        return NO_VALUE
    return f"{quantity(figure.inferred.value)} {figure.inferred.what}"


def rest(figure: Figure) -> str:
    if figure.rest is None or figure.rest_half_width is None:
        return NO_VALUE
    return spread(figure.rest, figure.rest_half_width)


def backbone_verdict(backbone: Backbone) -> str:
    way = backbone.counted_way
    if way is None:
        return "no"
    return "yes" if way == "features" else f"yes, {way}"
