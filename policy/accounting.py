"""What decisions cost, in multiply-accumulates (MACs; both papers call 10⁹ of them a GFLOP).

Backbones come from the cost table (`cache_schema.costs`), per row that was really computed. A policy's own
networks are counted here by their matrix products, as backbone counters do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def lstm_step_macs(input_dim: int, hidden: int) -> int:
    """One step of an LSTM: four gates, each a product with the input and with the last hidden state."""
    return 4 * hidden * (input_dim + hidden)


def gru_step_macs(input_dim: int, hidden: int) -> int:
    """One step of a GRU: an LSTM's with three blocks instead of four."""
    return 3 * hidden * (input_dim + hidden)


def sru_step_macs(input_dim: int, hidden: int) -> int:
    """One step of an SRU: candidate, two gates and, where the sizes differ, the highway; none sees the state."""
    return (3 if input_dim == hidden else 4) * hidden * input_dim


def linear_macs(inputs: int, outputs: int) -> int:
    """One linear layer on one vector."""
    return inputs * outputs


@dataclass(frozen=True)
class Costs:
    """MACs of M videos by what they were spent on, each (M,) int64."""

    coarse: IntArray
    fine: IntArray
    networks: IntArray
    """The policy's own: recurrent networks, gate, classifiers."""

    @property
    def total(self) -> IntArray:
        return self.coarse + self.fine + self.networks


def costs(
    *,
    coarse_rows: IntArray | int,
    fine_rows: IntArray | int,
    networks: IntArray,
    coarse_macs: int = 0,
    fine_macs: int = 0,
) -> Costs:
    """Charge each video for the rows that were computed for it.

    Args:
        coarse_rows, fine_rows: (M,), rows on which the backbone ran.
        networks: (M,), MACs of the policy's own networks.
        coarse_macs, fine_macs: of the backbone for one row.
    """
    ones = np.ones_like(networks, dtype=np.int64)
    return Costs(
        coarse=ones * coarse_rows * coarse_macs,
        fine=ones * fine_rows * fine_macs,
        networks=networks.astype(np.int64),
    )
