"""Numbers, verdicts and numbered remarks of the report, as text for the terminal and Markdown."""

from __future__ import annotations

from functools import cache

from policy.sheets.sheet import NO_VALUE
from policy.tables.costs.components import BACKBONES, Backbone
from policy.tables.costs.printed import COMPUTED, LEARNED
from policy.tables.costs.quantity import Figure, Quantity, Verdict

TITLE = "The papers' costs, computed again"

STATE = (
    "Counted: 10⁹ multiply-accumulates (MACs), which both papers call a GFLOP, from the cost table (see "
    "feature-cache costs) and LiteEval's own matrix products. Where two per MAC are counted, it says so.",
    "A figure adds up where it and its formula meet within half a unit of every last digit that the papers print.",
    "LiteEval's Tables 3, 6, 8 and 9 print no costs, and figures only positions in a plot.",
)

FLOW_STATE = (
    "GMACs for one clip. RAFT: 16 pairs of 256² frames a clip, 12 refinements, only for the clips whose motion is "
    "looked at. TV-L1 and DIS are iterations on pixels, not networks: their multiply-accumulates have no "
    "meaningful count. The papers' figures include no estimation of flow."
)

_CLASSIFIER = (
    "Counters differ in what they count: up to the features, with the classifier on which the backbone was "
    "trained, or also one operation for each value that batch normalisation scales. With all of it ResNet-101 is "
    "7.818 and DPN-107 18.340; the cost table keeps the features' 7.799 and 18.296."
)
_FLOW_NETWORK = (
    "By two per MAC the RGB network's 55.6 is 56, but the flow network, whose input has two channels rather than "
    "three, is 51.2: the paper prints 56 for both."
)
_SLOWFAST_SIZE = "At 256²; at the 224² that Sec. 4.1 names for fine features it would be 50.3."

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
    """The formula's value with as many decimals as are printed, and up to two if it differs from that."""
    if figure.formula is None:
        return NO_VALUE
    digits = len(figure.printed.partition(".")[2])
    if float(f"{figure.formula.paper:.{digits}f}") != figure.value:
        digits = max(digits, min(digits + 1, 2))
    return f"{figure.formula.paper:.{digits}f}"


def off_percent(printed: float, counted: float | None) -> str:
    """Printed minus counted, in percent of the counted figure."""
    if counted is None or counted == 0:
        return NO_VALUE
    off = 100 * (printed - counted) / counted
    return f"{off:+.1f}" if abs(off) >= 0.05 else "0.0"


def unit(figure: Figure) -> str:
    return " %" if figure.unit == "%" else ""


def quantity(value: Quantity) -> str:
    """A number and how far rounding may have moved it, with at most two decimals."""
    digits = 0 if value.slack >= 0.95 else 1 if value.slack >= 0.095 else 2
    return f"{value.paper:.{digits}f} ± {value.slack:.{digits}f}"


def inferred(figure: Figure) -> str:
    if figure.inferred is None:
        return NO_VALUE
    return f"{quantity(figure.inferred.value)} {figure.inferred.what}"


def rest(figure: Figure) -> str:
    return quantity(figure.rest) if figure.rest else NO_VALUE


def backbone_verdict(backbone: Backbone) -> str:
    way = backbone.counted_way
    if way is None:
        return "no"
    return "yes" if way == "features" else f"yes, {way}"


def backbone_remark(backbone: Backbone) -> str:
    """Why a count differs from the printed figure, or agrees only when more is counted."""
    if backbone.cost.paper_unit == "flop":
        return _FLOW_NETWORK
    if backbone.stream.startswith("slowfast"):
        return _SLOWFAST_SIZE
    return "" if backbone.counted_way == "features" else _CLASSIFIER


@cache
def remarks() -> dict[str, int]:
    """Every remark and its number, in the order of the report."""
    every = [backbone_remark(backbone) for backbone in BACKBONES]
    every += [figure.remark for figure in (*COMPUTED, *LEARNED)]
    return {remark: number for number, remark in enumerate(dict.fromkeys(filter(None, every)), 1)}
