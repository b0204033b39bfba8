"""Costs of the recurrent networks, the gate and the classifier of LiteEval."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from policy.config import Cell, GateState
from policy.networks.cells import NETWORKS
from policy.networks.macs import linear_macs

Count = TypeVar("Count", int, float, npt.NDArray[np.int64])


@dataclass(frozen=True)
class PolicyCost:
    """Multiply-accumulates (MACs) of LiteEval's networks, without the backbones.

    Only matrix products are counted, as in counters of backbones: the elementwise part of an LSTM is below 0.1 %.
    The papers' "GFLOPs" are 10⁹ of these MACs; ``torch.utils.flop_counter`` counts two for each.
    """

    coarse_step: int
    """Coarse network, Eq. 1, paid at every step."""
    gate_step: int
    """Gate, Eq. 2, paid at every step."""
    fine_step: int
    """Fine network, Eq. 3, paid at opened steps only: a closed step copies (Eq. 5), which multiplies nothing."""
    classifier: int
    """Classifier, Eq. 6, paid once per prediction."""
    coarse_projection: int = 0
    """Learned layer on the coarse features, paid at every step."""
    fine_projection: int = 0
    """Learned layer on the fine features, paid at opened steps only."""
    readout_step: int = 0
    """Readout by attention, paid at every step."""

    @classmethod
    def of(
        cls,
        *,
        coarse_dim: int,
        fine_dim: int,
        num_classes: int,
        coarse_hidden: int,
        fine_hidden: int,
        cell: Cell = "lstm",
        coarse_projection: int = 0,
        fine_projection: int = 0,
        gate_state: GateState = "hidden",
        gate_hidden: int = 0,
        readout_step: int = 0,
    ) -> "PolicyCost":
        """From arguments of :class:`policy.liteeval.model.LiteEval`; `readout_step` is that of its readout."""
        coarse, fine = coarse_projection or coarse_dim, fine_projection or fine_dim
        step_macs = NETWORKS[cell].step_macs
        return cls(
            coarse_step=step_macs(coarse, coarse_hidden),
            gate_step=linear_macs(coarse + fine_hidden * (1 if gate_state == "hidden" else 2), 2)
            + linear_macs(coarse, gate_hidden)
            + linear_macs(gate_hidden, 1),
            fine_step=step_macs(coarse + fine, fine_hidden),
            classifier=linear_macs(fine_hidden, num_classes),
            coarse_projection=linear_macs(coarse_dim, coarse_projection),
            fine_projection=linear_macs(fine_dim, fine_projection),
            readout_step=readout_step,
        )

    def total(self, *, steps: Count, opened: Count, predictions: int = 1) -> Count:
        """MACs of a video with ``steps`` steps, ``opened`` of them opened; or (M,) of M videos."""
        return (
            steps * (self.coarse_projection + self.coarse_step + self.gate_step + self.readout_step)
            + opened * (self.fine_projection + self.fine_step)
            + predictions * self.classifier
        )
