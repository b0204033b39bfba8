"""What the selection paper's Table 2 costs with the optical flow that its motion model needs.

The paper's figures leave the estimation of flow out. RAFT is a network and has a count; TV-L1 and DIS are
iterations on pixels, for which multiply-accumulates mean little.
"""

from __future__ import annotations

from dataclasses import dataclass

from policy.tables.costs.components import backbone
from policy.tables.costs.printed import BETA, FLOW_ALONE, OURS, TWO_STREAM

PAIRS = 16
"""Pairs of frames of a 16-frame flow clip: one field for each, the last with the frame that follows."""

RAFT_GMACS = {"raft_small": 11.51, "raft_large": 51.95}
"""10⁹ MACs for a pair of 256² frames, 12 refinements: counted on torchvision's networks with
torch.utils.flop_counter, two of its operations as one (tests/test_tables_costs.py counts again)."""

X3D_M, RGB, FLOW = (backbone(name).counted for name in ("x3d_m", "i3d_rgb_dense16", "i3d_flow_dense16"))


@dataclass(frozen=True)
class FlowRow:
    """A method of Table 2, in 10⁹ MACs for one clip.

    Attributes:
        rgb: what does not depend on flow.
        motion: share of the clips for which flow is estimated and the flow network runs.
    """

    what: str
    printed: str
    rgb: float
    motion: float

    def gmacs(self, estimator: str | None) -> float:
        """With the flow's estimation by a network of RAFT_GMACS, or None for without."""
        estimation = PAIRS * RAFT_GMACS[estimator] if estimator else 0.0
        return self.rgb + self.motion * (FLOW + estimation)


FLOW_ROWS = (
    FlowRow("two-stream I3D", TWO_STREAM, RGB, 1.0),
    FlowRow("I3D flow alone", FLOW_ALONE, 0.0, 1.0),
    FlowRow("Ours: X3D-M, 0.7 of clips I3D flow", OURS, X3D_M, BETA.paper),
)
ESTIMATORS = (None, *RAFT_GMACS)
