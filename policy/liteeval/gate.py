"""The conditional gate: does this frame deserve the fine features? (Eq. 2, 8 and 9)"""

import torch
from torch import Tensor, nn

CLOSED = 0
"""Index in b_t of "reuse the past" (B_t = 0)."""
OPEN = 1
"""Index in b_t of "compute fine features" (B_t = 1). The authors' code has the two the other way round."""


class ConditionalGate(nn.Linear):
    """b_t = W_g [v^c_t, h^f_{t−1}] + bias, two unnormalised log-probabilities (Eq. 2).

    A softmax over two entries, with or without Gumbel noise, depends on their difference only. The recurrence
    therefore works with one number per step, the log-odds b_t[OPEN] − b_t[CLOSED].
    """

    def __init__(self, coarse_dim: int, fine_hidden: int) -> None:
        super().__init__(coarse_dim + fine_hidden, 2)
        self.coarse_dim = coarse_dim

    def coarse_log_odds(self, coarse: Tensor) -> Tensor:
        """The part of the log-odds that v^c and the bias give: (N, D_c) -> (N,)."""
        weight = self.weight[OPEN, : self.coarse_dim] - self.weight[CLOSED, : self.coarse_dim]
        return coarse @ weight + (self.bias[OPEN] - self.bias[CLOSED])

    def state_weight(self) -> Tensor:
        """(H_f,): its product with h^f_{t−1} is the rest of the log-odds."""
        return self.weight[OPEN, self.coarse_dim :] - self.weight[CLOSED, self.coarse_dim :]


def gumbel_pairs(count: int, generator: torch.Generator) -> Tensor:
    """(count, 2) independent Gumbel variables G = −log(−log U) (Eq. 8), on the generator's device."""
    # −log U is exponential; torch's own sampler never returns 0, so G is always finite.
    exponential = torch.empty(count, 2, device=generator.device).exponential_(generator=generator)
    return -exponential.log()
