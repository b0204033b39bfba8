"""LiteEval-RL: LiteEval's network, its gates learned by REINFORCE instead of Gumbel-softmax (Sec. 4.2.1).

The LiteEval paper gives neither the reward nor the baseline. Here the expectation of Eq. 7 is minimised over
gates that open with the probabilities of Eq. 2. Its gradient has two parts: that of Eq. 7 for the sampled gates,
and −(reward − baseline) · ∇ log π of those gates, where the reward is minus Eq. 7 of the video. So γ, λ and the
warm-up mean what they mean in LiteEval, and only the estimator of the gates' gradient differs.

The baseline is the reward of the same video with the gates of evaluation (self-critical training: Rennie et al.,
CVPR 2017). Losses differ far more between videos than between samples of gates: a moving average of the reward
would leave that difference in the gradient as noise, while this baseline cancels it. It costs one more forward
pass, and adds no parameter to LiteEval's network and nothing to a checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from policy.data.batches import Batch
from policy.liteeval.loss import liteeval_loss
from policy.liteeval.method import LearnedGating
from policy.liteeval.model import LiteEvalOutput
from policy.method import Losses, Moment
from policy.networks.packing import video_of_row
from policy.training.losses import classification_losses, policy_gradient


class LiteEvalRL(LearnedGating):
    """Predicts and is charged as LiteEval is."""

    title = "LiteEval-RL"

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        coarse, fine = batch.inputs["coarse"], batch.inputs["fine"]
        gamma, lam = self.target_usage(moment.progress), self.penalty_weight(moment)

        def reward(out: LiteEvalOutput) -> Tensor:
            """(B,): minus Eq. 7 of each video."""
            return -classification_losses(out.logits, batch.targets) - lam * (out.usage - gamma) ** 2

        with torch.no_grad():
            # Hard Gumbel-softmax *is* a sample of the gates; only its gradient is not wanted here.
            gates = self.model(coarse, fine, generator=generator).gates
            self.model.eval()
            baseline = reward(self.model(coarse, fine))
            self.model.train()
        dropout = self.config.dropout
        out: LiteEvalOutput = self.model(coarse, fine, gates=gates, generator=generator, dropout=dropout)
        loss = liteeval_loss(out.logits, out.usage, batch.targets, gamma=gamma, lam=lam)
        log_probabilities = -F.binary_cross_entropy_with_logits(out.log_odds, gates, reduction="none")
        advantage = (reward(out) - baseline).detach()
        video = video_of_row(coarse).to(gates.device)
        policy = policy_gradient(log_probabilities, advantage[video]) / len(advantage)
        losses: Losses = {
            "loss": loss.total + policy,
            "classification": loss.classification,
            "usage": out.usage.detach().mean(),
            "target_usage": gamma,
            "lam": lam,
            "advantage": advantage.mean(),
        }
        return self.with_step_loss(losses, out, batch)
