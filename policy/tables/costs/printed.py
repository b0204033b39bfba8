"""Every cost that the two papers print, with the formula that should give it.

LiteEval is Wu et al., A Coarse-to-Fine Framework for Resource Efficient Video Recognition; Selection is Jain et
al., Conditional Model Selection for Efficient Video Understanding. Tables 3, 6, 8 and 9 of the first and all
figures of both print no costs, or only as positions in a plot. Values of tables that paper-tables makes are read
from the tables' files (policy/tables/experiments).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from math import nan

from policy.tables.costs.components import (
    BETA,
    BY_STREAM,
    COARSE,
    FLOW_ALONE,
    OURS,
    TWO_STREAM,
    backbone,
    fine_features,
    fine_part,
    lstm,
    rows,
    steps,
)
from policy.tables.costs.quantity import (
    Figure,
    Inferred,
    Quantity,
    counted_only,
    half_unit,
    percent,
    printed,
    saved_percent,
)
from policy.tables.datasets import DATASETS
from policy.tables.experiment import Measure, Printed, Published
from policy.tables.reading import EXPERIMENTS, read_table

MOBILENET = backbone(COARSE)
RESNET = backbone("resnet101_224")
DPN = backbone("dpn107_224")
SLOWFAST = backbone("slowfast_8x8_256")
X3D_XS, X3D_M = backbone("x3d_xs"), backbone("x3d_m")
I3D_RGB, I3D_FLOW = backbone("i3d_rgb_dense16"), backbone("i3d_flow_dense16")

RESNET_112 = counted_only("2.00", 2_003_906_560)
"""ResNet-101 at 112²: counted on timm's resnet101 up to its features, as the cost table counts the others."""

FCVID_STEPS, ACTIVITYNET_STEPS = 129, 138
"""The steps that the rows of Table 2 with printed fine features leave (see `components.steps`)."""

_INTRO, _TABLE_1, _SAVINGS = "LiteEval, Sec. 1", "LiteEval, Table 1", "LiteEval, Sec. 4.2.1"
_OFFLINE, _ONLINE = "LiteEval, Table 2 offline", "LiteEval, Table 2 online"
_TABLE_4, _TABLE_5 = "LiteEval, Table 4", "LiteEval, Table 5"
_TABLE_7, _TABLE_10, _SELECTION_1 = "LiteEval, Table 7", "LiteEval, Table 10", "Selection, Table 1"
_FOLDERS = {
    _TABLE_1: "liteeval-1",
    _OFFLINE: "liteeval-2",
    _ONLINE: "liteeval-2",
    _TABLE_4: "liteeval-4",
    _TABLE_5: "liteeval-5",
    _TABLE_7: "liteeval-7",
    _TABLE_10: "liteeval-10",
    _SELECTION_1: "selection-1",
}
"""The folder of experiments/ for each table."""

_LSTM_LEAVES = (
    "The LSTM's share of Table 1 is 0.5 on FCVID (20 million MACs a step) and 0.3 on ActivityNet (12 million), of "
    "Table 10 0.2 (20 million). The paper does not say how many units these baselines have: with those of the "
    "fine RNN, all four gates counted, it would be 34, 5 and 36 million. LSTM+CF pays no more for its wider input "
    "than LSTM."
)
_LSTM_SHARE = (
    "The two LSTMs of FCVID, opened at every step, are 0.61 % of a ResNet-101, ten times what is printed; the "
    "coarse one alone is 0.05 %. The LSTM of Table 1 (196.0 − 195.5) is 0.26 %."
)
_CUT = "Cut rather than rounded: 65.6 %."
_SAVED = "51.36 by the figures as printed, and 51.3 within their rounding: 95.1 may be 95.149."
_65_70 = "Tables 4 and 5 take 65.70 for SlowFast; Sec. 4.1 and Table 2 take 65.71."
_BREAKFAST_SPREAD = (
    "The spread of the cost, 390.10, is 5.9 snippets of 65.71: the spread of the fine features cannot be 0.06. "
    "(On Kinetics 144.10 is 2.19 snippets, printed as 2.20.)"
)
_FIXED_STEPS = (
    "The fine features taken off, 11.1 to 11.2 are left on FCVID and on ActivityNet alike: about 129 and 138 "
    "steps of coarse backbone, coarse LSTM and gate, and the opened steps of the fine LSTM. At 1 fps (Sec. 4.1) "
    "videos of 167 and 117 seconds on average would leave 14.4 and 9.5. A fixed number of steps seems to be "
    "charged: the authors' released code pads FCVID to 129 and counts the padding. (0.08 is taken as exact, as "
    "Table 2 multiplies the rounded figures.)"
)
_INVERTED = (
    "These rows do not print their fine features: they are inferred, and their share, with 129 steps on FCVID "
    "and 138 on ActivityNet, as Table 2 leaves them. So γ = 1, 3, 5 and 10 % buy about 6, 7, 8 and 13 % of the "
    "steps, and LiteEval-RL, which costs more than Uniform, sees more than its 25 frames."
)
_AT_MOST = (
    "Neither the frames that these methods look at nor the cost of their networks is printed: at most so many "
    "frames of ResNet-101, were all else free."
)
_KINETICS_STEPS = "Videos of 10 seconds at 1 fps (Sec. 4.1) would have 10 steps."
_BREAKFAST_STEPS = (
    "The videos last about 140 seconds, at 1 fps. The paper does not give the LSTMs' units for Breakfast: FCVID's "
    "are taken."
)
_HVU = (
    "More than X3D-M on both clips (9.46): even if every video took it, as much as 5 frames of EfficientNet-B0 "
    "(B0, 0.39 by its own paper) would be left, which is therefore the least that the selector sees. How "
    "many frames it does see is not printed."
)
_MINI_KINETICS = (
    "The selector's X3D-XS (0.60, by its own paper) always runs, on 3 clips if not on fewer: what is left pays "
    "for X3D-L (18.37) in at most one video of nine."
)
_QUOTED = (
    "Carried over from other papers, with networks that are not in the cost table or usage that was learned. The "
    "LiteEval paper itself has no Mini-Kinetics."
)
_TWO_PER_MAC = (
    "I3D's 56 counts two per multiply-accumulate, all else in the two papers one: the RGB network has "
    f"{I3D_RGB.counted:.1f} GMACs ({2 * I3D_RGB.counted:.1f} counted twice), the flow network, whose input has "
    f"two channels, {I3D_FLOW.counted:.1f} ({2 * I3D_FLOW.counted:.1f}); 56 is printed for both."
)
_ONE_UNIT = X3D_M + BETA * I3D_FLOW
_MIXED = (
    "X3D-M counts one per multiply-accumulate and I3D two: 4.73 + 0.7·56 = 43.9, and 43.8 takes 69.8 % of clips "
    "(on test videos the share is learned) or a figure of 55.8 rounded to 56. Counted, this mixture is "
    f"{_ONE_UNIT.counted_as_printed:.1f}; in one unit it is {_ONE_UNIT.counted:.1f} (one per MAC) or "
    f"{2 * _ONE_UNIT.counted:.1f} (two): {percent(_ONE_UNIT, I3D_RGB + I3D_FLOW).counted:.0f} % of two-stream I3D "
    f"and {percent(_ONE_UNIT, I3D_FLOW).counted:.0f} % of I3D flow, rather than 39 % and 78 %."
)


_KEYS = {dataset.title: name for name, dataset in DATASETS.items()}
_BOTH = ("FCVID", "ActivityNet")


@cache
def _published(table: str) -> Mapping[str, Mapping[str, Published]]:
    return {one.name: one.published for one in read_table(EXPERIMENTS / table).experiments}


def _cell(where: str, row: str, dataset: str, measure: Measure = "gflops") -> Printed:
    """The value of a paper's table in a row; the data set is named as in the paper."""
    return _published(_FOLDERS[where])[row][_KEYS[dataset]][measure]


def _gflops(where: str, row: str, dataset: str) -> str:
    return _cell(where, row, dataset).mean


def _fine(where: str, row: str, dataset: str) -> Printed:
    """A row's fine features. Table 10 does not print them; its LiteEval is that of Table 2."""
    if where == _TABLE_10:
        where, row = _OFFLINE, "liteeval-slowfast"
    return _cell(where, row, dataset, "fine_features")


def _learned_total(text: str) -> Quantity:
    """A printed total that cannot be counted without training."""
    return printed(text, counted=nan)


def _liteeval(where: str, row: str, dataset: str, stream: str, remark: str = "") -> Figure:
    """A LiteEval row whose fine features are printed."""
    total, fine = _gflops(where, row, dataset), _fine(where, row, dataset).mean
    name = {"dpn107_224": "DPN", "slowfast_8x8_256": "SlowFast"}[stream]
    return _learned(
        where,
        f"{name}, {dataset}",
        total,
        steps(total, fine, dataset, stream),
        remark,
        fine_part(fine, stream),
    )


def _learned(
    where: str, what: str, total: str, inferred: Inferred, remark: str, formula: Quantity | None = None
) -> Figure:
    return Figure(where, what, total, formula, learned="training", inferred=inferred, remark=remark)


def _without_fine(where: str, what: str, dataset: str, row: str) -> Figure:
    """A LiteEval row with a ResNet-101 whose fine features are not printed."""
    total = _gflops(where, row, dataset)
    every = {"FCVID": FCVID_STEPS, "ActivityNet": ACTIVITYNET_STEPS}[dataset]
    inferred = fine_features(total, dataset, "resnet101_224", every)
    return _learned(where, f"{what}, {dataset}", total, inferred, _INVERTED)


def _skipping(what: str, row: str, dataset: str) -> Figure:
    total = _gflops(_TABLE_1, row, dataset)
    inferred = rows(printed(total), "resnet101_224", "frames")
    return _learned(_TABLE_1, f"{what}, {dataset}", total, inferred, _AT_MOST)


def _ours(dataset: str, always: Quantity, stream: str, what: str, remark: str) -> Figure:
    """The selection paper's own row: what remains beside `always`, in rows of a stream."""
    total = _gflops(_SELECTION_1, "selection", dataset)
    inferred = rows(printed(total) - always, stream, what)
    return _learned(_SELECTION_1, f"Ours, {dataset}", total, inferred, remark, always)


def _quoted(what: str, row: str, dataset: str, more: str = "") -> Figure:
    total = _gflops(_SELECTION_1, row, dataset)
    return Figure(_SELECTION_1, f"{what}, {dataset}{more}", total, learned="quoted", remark=_QUOTED)


def _sum(where: str, what: str, row: str, dataset: str, formula: Quantity, remark: str = "") -> Figure:
    """A table's figure that is a sum of costs."""
    return Figure(where, what, _gflops(where, row, dataset), formula, remark=remark)


def _saved(where: str, what: str, text: str, part: str, whole: Quantity, remark: str = "") -> Figure:
    """The percentage saved where the learned total `part` is spent instead of `whole`."""
    return Figure(where, what, text, saved_percent(_learned_total(part), whole), "%", remark=remark)


def _as_printed(quantity: Quantity, text: str) -> Quantity:
    """A sum that the paper prints as one number."""
    return replace(quantity, text=text, paper=float(text), slack=half_unit(text), binding=2)


def _spread_of_fine(where: str, dataset: str, remark: str = "") -> Figure:
    """The spread of fine features that would alone explain the cost's.

    The mean cost of everything else is taken as the slack, assuming that it varies by no more.
    """
    total, fine = _cell(where, "liteeval", dataset), _fine(where, "liteeval", dataset)
    cost = _learned_total(total.std or "")
    rest = total.value - fine.value * SLOWFAST.paper
    spread = replace(cost, slack=cost.slack + rest) / SLOWFAST
    return Figure(where, "± of fine features", fine.std or "", spread, "fine features", remark=remark)


_UNIFORM = printed(_gflops(_TABLE_1, "uniform", "FCVID"), 25 * RESNET.counted)
_UNIFORM_CF = printed(_gflops(_TABLE_1, "uniform-cf", "FCVID"), 25 * (RESNET + MOBILENET).counted)
_SLOWFAST_10 = printed(_gflops(_OFFLINE, "slowfast-10", "FCVID"), (10 * SLOWFAST).counted)
_BOTH_WIDE = BY_STREAM["resnet101_224"].feature_dim + BY_STREAM[COARSE].feature_dim
_BOTH_LSTMS = replace(lstm(1280, 512) + lstm(_BOTH_WIDE, 2048), text="LSTMs", binding=2)

COMPUTED = (
    Figure(_INTRO, "saved by 112² input", "74", saved_percent(RESNET_112, RESNET), "%"),
    _sum(_TABLE_1, "Uniform (both)", "uniform", "FCVID", 25 * RESNET),
    _sum(_TABLE_1, "Uniform+CF (both)", "uniform-cf", "FCVID", 25 * (RESNET + MOBILENET)),
    *(
        _sum(_TABLE_1, f"{what}, {dataset}", row, dataset, frames + 25 * lstm(width, units), _LSTM_LEAVES)
        for what, row, frames, width in (
            ("LSTM", "lstm", _UNIFORM, 2048),
            ("LSTM+CF", "lstm-cf", _UNIFORM_CF, _BOTH_WIDE),
        )
        for dataset, units in (("FCVID", 2048), ("ActivityNet", 512))
    ),
    *(
        _saved(_SAVINGS, f"saved, {dataset}", text, _gflops(_TABLE_1, "liteeval", dataset), _UNIFORM, remark)
        for dataset, text, remark in (("FCVID", "51.8", ""), ("ActivityNet", "51.3", _SAVED))
    ),
    *(
        _sum(_OFFLINE, f"{what}-{k} (both)", f"{what.lower()}-{k}", "FCVID", k * cost)
        for what, cost in (("DPN", DPN), ("SlowFast", SLOWFAST))
        for k in (10, 25)
    ),
    _saved(
        "LiteEval, Sec. 4.2.2",
        "saved, DPN, FCVID",
        "65",
        _gflops(_OFFLINE, "liteeval-dpn", "FCVID"),
        printed(_gflops(_OFFLINE, "dpn-25", "FCVID")),
        _CUT,
    ),
    *(_sum(_ONLINE, f"DPN, {k} frames (both)", f"dpn-online-{k}", "FCVID", k * DPN) for k in (4, 6, 9)),
    *(
        _sum(_TABLE_4, f"SlowFast, {k} snippets", f"slowfast-{k}", "Kinetics", k * SLOWFAST, _65_70)
        for k in (3, 5, 10)
    ),
    _spread_of_fine(_TABLE_4, "Kinetics"),
    *(
        _sum(_TABLE_5, f"SlowFast, {k} snippets", f"slowfast-{k}", "Breakfast", k * SLOWFAST, _65_70)
        for k in (3, 8, 10)
    ),
    _spread_of_fine(_TABLE_5, "Breakfast", _BREAKFAST_SPREAD),
    Figure(
        "LiteEval, Sec. 4.3",
        "LSTMs, of ResNet-101",
        "0.06",
        percent(_BOTH_LSTMS, RESNET),
        "%",
        remark=_LSTM_SHARE,
    ),
    _sum(_TABLE_10, "DPN-10", "dpn-10", "FCVID", 10 * DPN),
    _sum(_TABLE_10, "SlowFast-10", "slowfast-10", "FCVID", 10 * SLOWFAST),
    _sum(_TABLE_10, "LSTM", "lstm", "FCVID", _SLOWFAST_10 + 10 * lstm(2304, 2048), _LSTM_LEAVES),
    _sum(_SELECTION_1, "X3D-M, 2 clips", "x3d-m", "HVU", 2 * X3D_M),
    _sum(_SELECTION_1, "X3D-M, 3 clips", "x3d-m", "Mini-Kinetics", 3 * X3D_M),
    Figure("Selection, Table 2", "two-stream I3D, 7×", TWO_STREAM, I3D_RGB + I3D_FLOW, remark=_TWO_PER_MAC),
    Figure("Selection, Table 2", "ActionBytes (flow)", FLOW_ALONE, I3D_FLOW, remark=_TWO_PER_MAC),
    Figure("Selection, Table 2", "Ours (β = 0.7)", OURS, _ONE_UNIT, remark=_MIXED),
    Figure(
        "Selection, Sec. 5.3",
        "of two-stream, about",
        "40",
        percent(_as_printed(_ONE_UNIT, OURS), _as_printed(I3D_RGB + I3D_FLOW, TWO_STREAM)),
        "%",
        remark=_MIXED,
        half=5,  # "about": one digit counts
    ),
    Figure(
        "Selection, Sec. 5.3",
        "of I3D flow",
        "78",
        percent(_as_printed(_ONE_UNIT, OURS), I3D_FLOW),
        "%",
        remark=_MIXED,
    ),
)
"""Figures that need no training."""

LEARNED = (
    *(_skipping("FrameGlimpse", "frame-glimpse", dataset) for dataset in _BOTH),
    *(_skipping("FastForward", "fast-forward", dataset) for dataset in _BOTH),
    *(_without_fine(_TABLE_1, "LiteEval-RL", dataset, "liteeval-rl") for dataset in _BOTH),
    *(_without_fine(_TABLE_1, "LiteEval", dataset, "liteeval") for dataset in _BOTH),
    *(_liteeval(_OFFLINE, "liteeval-dpn", dataset, "dpn107_224", _FIXED_STEPS) for dataset in _BOTH),
    *(
        _liteeval(_OFFLINE, "liteeval-slowfast", dataset, "slowfast_8x8_256", _FIXED_STEPS)
        for dataset in _BOTH
    ),
    *(
        _liteeval(_ONLINE, f"liteeval-online-{k}", dataset, "dpn107_224")
        for k in (3, 5, 9)
        for dataset in _BOTH
    ),
    _liteeval(_TABLE_4, "liteeval", "Kinetics", "slowfast_8x8_256", _KINETICS_STEPS),
    _liteeval(_TABLE_5, "liteeval", "Breakfast", "slowfast_8x8_256", _BREAKFAST_STEPS),
    *(
        _without_fine(_TABLE_7, f"γ = {gamma}", "FCVID", f"gamma-{gamma}")
        for gamma in ("0.01", "0.03", "0.05", "0.10")
    ),
    _liteeval(_TABLE_10, "liteeval", "FCVID", "slowfast_8x8_256", _FIXED_STEPS),
    _ours("HVU", 2 * X3D_M, "efficientnet_b0_224", "B0 frames", _HVU),
    _ours("Mini-Kinetics", 3 * X3D_XS, "x3d_l", "X3D-L clips", _MINI_KINETICS),
    _quoted("3D ResNet-18", "resnet-18", "HVU", ", a clip"),
    _quoted("HATNet", "hatnet", "HVU", ", a clip"),
    _quoted("FrameExit", "frameexit-coarse", "HVU", ", β = 1e−2"),
    _quoted("FrameExit", "frameexit-fine", "HVU", ", β = 1e−3"),
    _quoted("LiteEval", "liteeval", "Mini-Kinetics"),
    _quoted("SCSampler", "scsampler", "Mini-Kinetics"),
    _quoted("ARNet", "ar-net", "Mini-Kinetics"),
    _quoted("FrameExit", "frameexit", "Mini-Kinetics"),
)
"""Figures that depend on what a policy learned, or are another paper's."""
