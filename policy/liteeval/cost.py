"""What the recurrent networks, the gate and the classifier of a policy cost."""

from dataclasses import dataclass

from policy.accounting import linear_macs, lstm_step_macs


@dataclass(frozen=True)
class PolicyCost:
    """Multiply-accumulates (MACs) of LiteEval's own networks; the backbones' cost is not included.

    Only matrix products are counted, as backbone counters do: the elementwise part of an LSTM is below 0.1 %
    of it. The papers' "GFLOPs" are 10⁹ of these MACs; ``torch.utils.flop_counter`` counts two for each.
    """

    coarse_step: int
    """Coarse LSTM, Eq. 1, paid at every step."""
    gate_step: int
    """Gate, Eq. 2, paid at every step."""
    fine_step: int
    """Fine LSTM, Eq. 3, paid at opened steps only: a closed step copies (Eq. 5), which multiplies nothing."""
    classifier: int
    """Classifier, Eq. 6, paid once per prediction."""

    @classmethod
    def of(
        cls, *, coarse_dim: int, fine_dim: int, num_classes: int, coarse_hidden: int, fine_hidden: int
    ) -> "PolicyCost":
        """Count from the sizes."""
        return cls(
            coarse_step=lstm_step_macs(coarse_dim, coarse_hidden),
            gate_step=linear_macs(coarse_dim + fine_hidden, 2),
            fine_step=lstm_step_macs(coarse_dim + fine_dim, fine_hidden),
            classifier=linear_macs(fine_hidden, num_classes),
        )

    def total(self, *, steps: float, opened: float, predictions: float = 1) -> float:
        """MACs of a video with ``steps`` steps, ``opened`` of them opened (or the means over many videos)."""
        return (
            steps * (self.coarse_step + self.gate_step)
            + opened * self.fine_step
            + predictions * self.classifier
        )
