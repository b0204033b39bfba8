"""What decisions cost, in multiply-accumulates (MACs; both papers call 10⁹ of them a GFLOP).

Backbones come from the cost table (`cache_schema.costs`), per row that was really computed; a policy's own
networks count theirs (`policy.networks.macs`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


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
