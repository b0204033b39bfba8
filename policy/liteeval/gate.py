"""The conditional gate: is this frame worth the fine features? (Eq. 2, 8 and 9)"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from policy.networks.gated import GateInput

CLOSED = 0
"""Index in b_t of "reuse the past" (B_t = 0)."""
OPEN = 1
"""Index in b_t of "compute fine features" (B_t = 1). The authors' code has the two the other way round."""


class ConditionalGate(nn.Linear):
    """b_t = W_g [v^c_t, h^f_{t−1}] + bias, two unnormalised log-probabilities (Eq. 2).

    A softmax over two entries, with or without Gumbel noise, depends on their difference only. The recurrence
    therefore works with one number per step, the log-odds b_t[OPEN] − b_t[CLOSED].

    Args:
        coarse_dim: D_c of the coarse features as the recurrent networks see them.
        fine_hidden: H_f.
        sees_cell_state: the input is [v^c_t, h^f_{t−1}, c^f_{t−1}], as in the authors' code.
        hidden: units of a hidden layer (ReLU) on v^c_t whose output is added to the log-odds; 0 is Eq. 2. Our
            addition: where features are informative is not always a linear question.
    """

    def __init__(
        self, coarse_dim: int, fine_hidden: int, *, sees_cell_state: bool = False, hidden: int = 0
    ) -> None:
        super().__init__(coarse_dim + fine_hidden * (2 if sees_cell_state else 1), 2)
        self.coarse_dim = coarse_dim
        self.fine_hidden = fine_hidden
        self.sees_cell_state = sees_cell_state
        self.hidden = (
            nn.Sequential(nn.Linear(coarse_dim, hidden), nn.ReLU(), nn.Linear(hidden, 1, bias=False))
            if hidden
            else None
        )

    def gate_input(self, coarse: Tensor) -> GateInput:
        """The log-odds from features (N, D_c) and bias, and the weights of the fine network's state."""
        weight = self.weight[OPEN] - self.weight[CLOSED]
        coarse_weight, state_weight = weight[: self.coarse_dim], weight[self.coarse_dim :]
        log_odds = coarse @ coarse_weight + (self.bias[OPEN] - self.bias[CLOSED])
        return GateInput(
            log_odds=log_odds if self.hidden is None else log_odds + self.hidden(coarse).squeeze(1),
            state_weight=state_weight[: self.fine_hidden],
            cell_weight=state_weight[self.fine_hidden :] if self.sees_cell_state else None,
        )


def gumbel_pairs(count: int, generator: torch.Generator) -> Tensor:
    """(count, 2) independent Gumbel variables G = −log(−log U) (Eq. 8), on the generator's device."""
    # −log U is exponential; torch's own sampler never returns 0, so G is always finite.
    exponential = torch.empty(count, 2, device=generator.device).exponential_(generator=generator)
    return -exponential.log()


class DrawnGates:
    """Gates of a video that open independently with one probability: the same ones for the same seed and id.

    Args:
        usage: that probability.
        seed: of the draw.
    """

    def __init__(self, usage: float, seed: int) -> None:
        self.usage, self._seed = usage, seed
        self.begin("")

    def begin(self, video_id: str) -> None:
        """Go to the first row of a video."""
        words = video_id.encode("utf-8", "surrogateescape")  # a file's name may be any bytes
        self._random = np.random.Generator(np.random.PCG64([self._seed, *words]))

    def next(self, rows: int) -> npt.NDArray[np.bool_]:
        """(rows,): whether the gates of the next rows open. It does not matter how many are drawn at a time."""
        return self._random.random(rows) < self.usage
