"""What the report says beside its figures: the remarks, each once and numbered, and how to read it."""

from __future__ import annotations

from functools import cache

from policy.tables.costs.backbones import BACKBONES, Backbone
from policy.tables.costs.figure import Figure
from policy.tables.costs.printed import COMPUTED, LEARNED

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


def backbone_remark(backbone: Backbone) -> str:
    """Why a count is not the printed figure, or is so only in some way."""
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


def not_adding_up() -> list[Figure]:
    """The figures to be careful with: those that do not add up, or only in mixed units."""
    return [figure for figure in COMPUTED if figure.verdict != "adds up"]
