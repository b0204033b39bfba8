"""A budget that is kept: minimise the classification loss subject to mean usage ≤ γ, instead of Eq. 7.

Eq. 7 comes to γ only where recognition has nothing to gain from more usage, for its price vanishes at γ. A
Lagrange multiplier μ ≥ 0 is a price that is found, by gradient ascent on

    L(θ, μ) = classification + μ (mean usage − γ) + λ (mean usage − γ)²

The last term is the damping of the differential multiplier method (Platt and Barr, "Constrained Differential
Optimization", NIPS 1987): without it descent in θ and ascent in μ circle around their saddle point.

It is an inequality: γ is what may be spent, and a multiplier that could fall below 0 would reward opening gates
that help nobody. What is left over is given out at the end, by the threshold at which the training videos use γ
(`policy.liteeval.calibration`): the gates that were drawn in training do not open as often as those that are taken
at test.
"""

from __future__ import annotations

from torch import Tensor


def ascend(multiplier: Tensor, gap: Tensor | float, *, rate: Tensor | float) -> None:
    """A step up the gradient of L in μ, which is the gap, in place; not below 0.

    Args:
        multiplier: μ, a scalar. Not a parameter: the size of Adam's steps says nothing of the gap, and weight
            decay and clipping would pull at it.
        gap: mean usage − γ of a batch.
        rate: of the step.
    """
    multiplier.add_(rate * gap).clamp_(min=0)
