"""The components of printed costs: backbones beside the cost table's counts, LiteEval's networks, optical flow."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cache_schema.costs import OPERATIONS_PER_MAC, Cost, cost_table
from policy.liteeval.cost import PolicyCost
from policy.networks.macs import linear_macs, lstm_step_macs
from policy.tables.costs.quantity import Inferred, Quantity, counted_only, exact, half_unit, printed
from policy.tables.datasets import LITEEVAL
from policy.tables.reading import EXPERIMENTS, read_table

_ITS_PAPER = "its own paper"
"""Neither paper prints the figure by itself; the backbone's authors publish it."""


@dataclass(frozen=True)
class Backbone:
    """The printed cost of one row of a stream, and what the paper's counter may have included.

    Attributes:
        stream: a key of `cache_schema.costs.cost_table`.
        where: paper and table or section.
        feature_dim, classes: of the classifier with which the backbone was trained (ImageNet or Kinetics-400).
        batch_norm: values that batch normalisation scales in one row, counted on timm's network at this input;
            0 where the figure does not include them.
    """

    stream: str
    where: str
    feature_dim: int
    classes: int
    batch_norm: int = 0

    @property
    def cost(self) -> Cost:
        return cost_table()[self.stream]

    @property
    def printed(self) -> str:
        """The figure as the papers print it: with two decimals, or for I3D with none."""
        paper = self.cost.paper
        assert paper is not None, "only streams that have one are here"
        return f"{paper:g}" if paper.is_integer() else f"{paper:.2f}"

    @property
    def quantity(self) -> Quantity:
        return printed(self.printed, self.cost.gflops(), self.cost.paper_unit)

    @property
    def ways(self) -> dict[str, float]:
        """The count by what it includes, in 10⁹ of the unit that the printed figure seems to follow."""
        per_mac = OPERATIONS_PER_MAC[self.cost.paper_unit]
        features = self.cost.macs
        classifier = features + linear_macs(self.feature_dim, self.classes)
        ways = {"features": features, "+ classifier": classifier}
        if self.batch_norm:
            ways["+ batch norm"] = classifier + self.batch_norm
        return {way: macs * per_mac / 1e9 for way, macs in ways.items()}

    @property
    def counted_way(self) -> str | None:
        """The way of counting that rounds to the printed figure; None if none does."""
        figure, half = float(self.printed), half_unit(self.printed)
        return next((way for way, value in self.ways.items() if abs(value - figure) <= half), None)


BACKBONES = (
    Backbone("mobilenetv2_112", "LiteEval, Sec. 4.1", 1280, 1000, batch_norm=1_701_088),
    Backbone("resnet101_224", "LiteEval, Sec. 4.1", 2048, 1000, batch_norm=16_231_936),
    Backbone("dpn107_224", "LiteEval, Sec. 4.1", 2688, 1000, batch_norm=41_078_464),
    Backbone("slowfast_8x8_256", "LiteEval, Sec. 4.1", 2304, 400),
    Backbone("efficientnet_b0_224", _ITS_PAPER, 1280, 1000, batch_norm=6_737_696),
    Backbone("x3d_xs", _ITS_PAPER, 2048, 400),
    Backbone("x3d_s", _ITS_PAPER, 2048, 400),
    Backbone("x3d_m", "Selection, Table 1", 2048, 400),
    Backbone("x3d_l", _ITS_PAPER, 2048, 400),
    Backbone("x3d_m_dense16", "Selection, Table 2", 2048, 400),
    Backbone("i3d_rgb_dense16", "Selection, Table 2", 1024, 400),
    Backbone("i3d_flow_dense16", "Selection, Table 2", 1024, 400),
)
"""Table 1 of the model selection paper prints X3D-M twice and three times, Table 2 in the sum with I3D."""

BY_STREAM = {backbone.stream: backbone for backbone in BACKBONES}


def backbone(stream: str) -> Quantity:
    """The cost of one row."""
    return BY_STREAM[stream].quantity


COARSE = "mobilenetv2_112"

_CLASSES = {"FCVID": 239, "ActivityNet": 200, "Kinetics": 400, "Breakfast": 10}
_SIZES = {dataset.title: dataset.settings for dataset in LITEEVAL.values()}


def lstm(inputs: int, hidden: int) -> Quantity:
    """One step of an LSTM, for which the papers print no cost."""
    return counted_only(f"LSTM {hidden}", lstm_step_macs(inputs, hidden))


def policy_cost(dataset: str, fine: str) -> PolicyCost:
    """MACs of LiteEval's networks on a data set of Sec. 4.1 with a fine stream."""
    sizes = _SIZES[dataset] or _SIZES["FCVID"]  # the paper gives none for Breakfast
    return PolicyCost.of(
        coarse_dim=BY_STREAM[COARSE].feature_dim,
        fine_dim=BY_STREAM[fine].feature_dim,
        num_classes=_CLASSES[dataset],
        coarse_hidden=sizes["coarse_hidden"],
        fine_hidden=sizes["fine_hidden"],
    )


def _figure(stream: str) -> Quantity:
    """A backbone at the figure of Sec. 4.1, taken as exact: Table 2 has 1642.75 = 25·65.71 to the last digit."""
    return replace(backbone(stream), slack=0.0)


def _step(cost: PolicyCost) -> Quantity:
    """The cost of every step: the coarse backbone, the coarse LSTM and the gate."""
    return _figure(COARSE) + counted_only("coarse LSTM, gate", cost.coarse_step + cost.gate_step)


def fine_part(features: str, stream: str) -> Quantity:
    """The cost of printed fine features in their backbone."""
    return printed(features) * _figure(stream)


def steps(total: str, features: str, dataset: str, fine: str) -> Inferred:
    """How many steps a printed cost pays for, after its fine features."""
    cost = policy_cost(dataset, fine)
    # One product, so that the features' rounding counts only once.
    opened = printed(features) * (_figure(fine) + counted_only("fine LSTM", cost.fine_step))
    rest = printed(total) - opened - counted_only("classifier", cost.classifier)
    return Inferred(rest / _step(cost), "steps")


def fine_features(total: str, dataset: str, fine: str, every: int) -> Inferred:
    """How many fine features a printed cost pays for, after `every` steps."""
    cost = policy_cost(dataset, fine)
    rest = printed(total) - exact(every) * _step(cost) - counted_only("classifier", cost.classifier)
    opened = rest / (_figure(fine) + counted_only("fine LSTM", cost.fine_step))
    return Inferred(opened, f"fine, {100 * opened.paper / every:.1f} %")


def rows(total: Quantity, stream: str, what: str) -> Inferred:
    """How many rows of a backbone a cost pays for."""
    return Inferred(total / backbone(stream), what)


# Optical flow, which the motion model of the selection paper's Table 2 needs. The paper's figures do not include
# its estimation. RAFT is a network and has a count; TV-L1 and DIS are iterations on pixels, for which MACs mean
# little.

TWO_STREAM, FLOW_ALONE, OURS = (
    row.published["thumos14"]["gflops"].mean
    for name in ("liu", "actionbytes-flow", "selection")
    for row in read_table(EXPERIMENTS / "selection-2").experiments
    if row.name == name
)
"""GFLOPs in the selection paper's Table 2: two-stream I3D, I3D on flow, and the paper's method at β = 0.7."""

BETA = exact(0.7)
"""Share of clips for the motion model that the selection paper trains for (Sec. 5.2)."""

PAIRS = 16
"""Pairs of frames of a 16-frame flow clip; the last is with the frame after the clip."""

RAFT_GMACS = {"raft_small": 11.51, "raft_large": 51.95}
"""10⁹ MACs for a pair of 256² frames, 12 refinements: counted on torchvision's networks with
torch.utils.flop_counter, which counts two operations per MAC (tests/test_tables_costs.py counts again)."""

_X3D_M, _RGB, _FLOW = (backbone(name).counted for name in ("x3d_m", "i3d_rgb_dense16", "i3d_flow_dense16"))


@dataclass(frozen=True)
class FlowRow:
    """A method of Table 2, in 10⁹ MACs for one clip.

    Attributes:
        rgb: the cost that does not depend on flow.
        motion: share of clips for which flow is estimated and the flow network runs.
    """

    what: str
    printed: str
    rgb: float
    motion: float

    def gmacs(self, estimator: str | None) -> float:
        """The cost with flow estimated by a network of RAFT_GMACS, or without estimation for None."""
        estimation = PAIRS * RAFT_GMACS[estimator] if estimator else 0.0
        return self.rgb + self.motion * (_FLOW + estimation)


FLOW_ROWS = (
    FlowRow("two-stream I3D", TWO_STREAM, _RGB, 1.0),
    FlowRow("I3D flow alone", FLOW_ALONE, 0.0, 1.0),
    FlowRow("Ours: X3D-M, 0.7 of clips I3D flow", OURS, _X3D_M, BETA.paper),
)
ESTIMATORS = (None, *RAFT_GMACS)
