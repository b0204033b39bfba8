"""The backbones as the papers print them, beside the cost table's counts."""

from __future__ import annotations

from dataclasses import dataclass

from cache_schema.costs import OPERATIONS_PER_MAC, Cost, cost_table
from policy.networks.macs import linear_macs
from policy.tables.costs.quantity import Quantity, half_unit, printed

_OWN_PAPER = "its own paper"
"""Neither paper prints the figure by itself; this is what the backbone's authors publish."""


@dataclass(frozen=True)
class Backbone:
    """What a paper prints for one row of a stream, and what else a counter may have counted.

    Attributes:
        stream: a key of `cache_schema.costs.cost_table`.
        where: the place.
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
        """The papers' figure as they print it: with two decimals, I3D's with none."""
        paper = self.cost.paper
        assert paper is not None, "only streams that have one are here"
        return f"{paper:g}" if paper.is_integer() else f"{paper:.2f}"

    @property
    def quantity(self) -> Quantity:
        return printed(self.printed, self.cost.gflops(), self.cost.paper_unit)

    @property
    def ways(self) -> dict[str, float]:
        """The count in 10⁹ of the unit that the printed figure follows, by what is counted."""
        per_mac = OPERATIONS_PER_MAC[self.cost.paper_unit]
        features = self.cost.macs
        classifier = features + linear_macs(self.feature_dim, self.classes)
        ways = {"features": features, "+ classifier": classifier}
        if self.batch_norm:
            ways["+ batch norm"] = classifier + self.batch_norm
        return {way: macs * per_mac / 1e9 for way, macs in ways.items()}

    @property
    def counted_way(self) -> str | None:
        """Which of the ways rounds to the printed figure; None if none does."""
        figure, half = float(self.printed), half_unit(self.printed)
        return next((way for way, value in self.ways.items() if abs(value - figure) <= half), None)


BACKBONES = (
    Backbone("mobilenetv2_112", "LiteEval, Sec. 4.1", 1280, 1000, batch_norm=1_701_088),
    Backbone("resnet101_224", "LiteEval, Sec. 4.1", 2048, 1000, batch_norm=16_231_936),
    Backbone("dpn107_224", "LiteEval, Sec. 4.1", 2688, 1000, batch_norm=41_078_464),
    Backbone("slowfast_8x8_256", "LiteEval, Sec. 4.1", 2304, 400),
    Backbone("efficientnet_b0_224", _OWN_PAPER, 1280, 1000, batch_norm=6_737_696),
    Backbone("x3d_xs", _OWN_PAPER, 2048, 400),
    Backbone("x3d_s", _OWN_PAPER, 2048, 400),
    Backbone("x3d_m", "Selection, Table 1", 2048, 400),
    Backbone("x3d_l", _OWN_PAPER, 2048, 400),
    Backbone("x3d_m_dense16", "Selection, Table 2", 2048, 400),
    Backbone("i3d_rgb_dense16", "Selection, Table 2", 1024, 400),
    Backbone("i3d_flow_dense16", "Selection, Table 2", 1024, 400),
)
"""Table 1 of the model selection paper prints X3D-M twice and three times, Table 2 in the sum with I3D."""

BY_STREAM = {backbone.stream: backbone for backbone in BACKBONES}


def backbone(stream: str) -> Quantity:
    """The cost of one row."""
    return BY_STREAM[stream].quantity
