"""FastForward: an agent that starts at the first frame and decides at each frame how far to jump, or to stop.

After Fan, Xu, Zhu, Yan, Ge and Yang (IJCAI 2018). The LiteEval paper (Sec. 4.2.1) compares with an agent that
learns "how many steps to jump forward at each time step with REINFORCE"; what it leaves open, and what is done
here:

- Jumps are of 1, 2, 4, … frames, beside stopping; a jump past the last frame ends the video like a stop.
- The agent knows its position in the video: it is an input beside the features.
- The reward is `recognition_reward` at the end minus a price for each frame after the first. A decision is
  credited with the price of the frames after it only, as it did not cause those before it.
- The baseline is learned from the state in which each decision was made. No gradient flows from it to the state.
- In training, decisions are sampled; in evaluation the most likely is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from policy.baselines.agent import Agent, AgentMethod, stopping_thresholds
from policy.baselines.config import FastForwardConfig
from policy.config import ReadoutKind, RunConfig
from policy.data.batches import Batch, Role, VideoSet, batched, fed
from policy.evaluation.predictions import Judged, Predictions
from policy.method import IntArray, Losses, Moment, Prediction, class_probabilities, moved
from policy.networks.macs import linear_macs, lstm_step_macs
from policy.networks.packing import lengths_of, marked, packed_rows
from policy.networks.readout import Reading, Readout
from policy.networks.standardize import Standardize
from policy.session import FloatArray
from policy.training.losses import classification_loss, policy_gradient, recognition_reward

STOP = 0
"""Index of the decision to stop; decision k jumps 2^(k−1) frames."""


@dataclass(frozen=True)
class Journey:
    """The decisions of an agent for B videos, in the caller's order, at M frames in all.

    Attributes:
        logits: (B, C) from each video's last state.
        videos, rows: (M,) int64, the frames visited.
        steps: (M,) int64, how many frames of the video were visited before.
        log_probabilities: (M,) of the decision at each frame.
        values: (M,) the reward expected there.
        log_odds: (M,) of stopping there.
    """

    logits: Tensor
    videos: Tensor
    rows: Tensor
    steps: Tensor
    log_probabilities: Tensor
    values: Tensor
    log_odds: Tensor


class JumpAgent(Agent):
    """LSTM over the frames visited; from its state a decision, a value and, at the end, the classes.

    Args:
        dim: D of the features.
        strides: number of strides, 1, 2, 4, … frames.
    """

    def __init__(
        self, dim: int, hidden: int, num_classes: int, strides: int, readout: ReadoutKind = "last"
    ) -> None:
        super().__init__()
        self.scale = Standardize(dim)
        self.cell = nn.LSTMCell(dim + 1, hidden)
        self.decision = nn.Linear(hidden, 1 + strides)
        self.value = nn.Linear(hidden, 1)
        self.readout = Readout(readout, hidden)
        self.classifier = nn.Linear(hidden, num_classes)
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, features: PackedSequence, generator: torch.Generator | None = None) -> Journey:
        """Jump through B videos, (N, D) features packed; only visited rows are read.

        Args:
            generator: for sampling decisions; None takes the most likely.
        """
        lengths = lengths_of(features)
        videos = torch.arange(len(lengths), device=lengths.device)
        rows = torch.zeros_like(videos)
        h = c = self.value.weight.new_zeros(len(lengths), self.cell.hidden_size)
        reading = self.readout.start(h, len(lengths))
        last = reading.value  # what is read of the videos that have ended
        steps: list[tuple[Tensor, ...]] = []
        while len(videos):
            inputs = self.scale(features.data[packed_rows(features, videos, rows)])
            h, c = self.visit(inputs, _place(rows, lengths[videos]).to(h), h, c)
            reading = self.readout.step(reading, h)
            log_probabilities = self.decision(h).log_softmax(1)
            if generator is None:
                decision = self.best(log_probabilities)
            else:
                # The largest of logits with Gumbel noise is a sample from their softmax.
                exponential = torch.empty(log_probabilities.shape).exponential_(generator=generator)
                decision = (log_probabilities.detach() - exponential.log().to(h)).argmax(1)
            log_probability = log_probabilities.gather(1, decision[:, None]).squeeze(1)
            value = self.value(h.detach()).squeeze(1)
            log_odds = stopping_log_odds(log_probabilities)
            steps.append((videos, rows, torch.full_like(rows, len(steps)), log_probability, value, log_odds))

            landing = _landing(rows, decision)
            running = (decision != STOP) & (landing < lengths[videos])
            last = last.index_copy(0, videos[~running], reading.value[~running])
            videos, rows, h, c = videos[running], landing[running], h[running], c[running]
            reading = Reading(*(part[running] for part in reading))
        return Journey(self.classifier(last), *(torch.cat(parts) for parts in zip(*steps, strict=True)))

    def best(self, log_probabilities: Tensor) -> Tensor:
        """(n,) int64: the decisions of evaluation, the most likely where the threshold is 0."""
        jump = 1 + log_probabilities[:, STOP + 1 :].argmax(1)
        return torch.where(stopping_log_odds(log_probabilities) >= self.threshold, STOP, jump)

    def following(
        self, visited: Sequence[int], length: int, h: Tensor, *context: Tensor
    ) -> tuple[int, Tensor] | None:
        row = torch.zeros(1, dtype=torch.int64, device=h.device)
        if visited:
            decision = self.best(self.decision(h).log_softmax(1))
            row = _landing(row + visited[-1], decision)
            if decision == STOP or row >= length:
                return None
        return int(row), _place(row, torch.full_like(row, length)).to(h)

    def macs(self, steps: IntArray) -> dict[str, IntArray]:
        # A step and a decision at every visited frame; the value is for training only.
        step = lstm_step_macs(self.cell.input_size, self.cell.hidden_size)
        step += linear_macs(self.cell.hidden_size, self.decision.out_features)
        step += self.readout.step_macs
        classifier = linear_macs(self.cell.hidden_size, self.classifier.out_features)
        return {"FastForward agent": steps * step + classifier}


def stopping_log_odds(log_probabilities: Tensor) -> Tensor:
    """(n,): of stopping against the likeliest jump."""
    return log_probabilities[:, STOP] - log_probabilities[:, STOP + 1 :].amax(1)


def _place(rows: Tensor, lengths: Tensor) -> Tensor:
    """(n,), between 0 and 1: the middle of a frame's part of the video."""
    return (rows + 0.5) / lengths


def _landing(rows: Tensor, decision: Tensor) -> Tensor:
    """(n,) int64: the rows to which decisions jump from these, if they jump."""
    return rows + 2 ** (decision - 1).clamp_min(0)


class FastForward(AgentMethod):
    """Trained by the classification loss, and REINFORCE for the jumps.

    Its threshold is on the log-odds of stopping against the likeliest jump: 0 is the likeliest decision, a higher
    one stops later.
    """

    title = "FastForward"

    config: FastForwardConfig
    model: JumpAgent

    @classmethod
    def agent(cls, config: RunConfig, dims: Mapping[Role, int], num_classes: int) -> JumpAgent:
        assert isinstance(config, FastForwardConfig)
        return JumpAgent(dims["fine"], config.fine_hidden, num_classes, config.strides, config.readout)

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        fine = batch.inputs["fine"]
        out: Journey = self.model(fine, generator)
        correct = recognition_reward(out.logits, batch.targets)
        frames = torch.bincount(out.videos, minlength=len(correct))
        remaining = frames[out.videos] - 1 - out.steps
        reward = correct[out.videos] - self.config.frame_price * remaining
        classification = classification_loss(out.logits, batch.targets)
        policy = policy_gradient(out.log_probabilities, reward - out.values) / len(correct)
        # Every video has the same weight, however many frames were visited.
        value = ((reward - out.values) ** 2 / frames[out.videos]).sum() / len(correct)
        return {
            "loss": classification + policy + value,
            "classification": classification,
            "value_error": value,
            "reward": (correct - self.config.frame_price * (frames - 1)).mean(),
            "usage": (frames / lengths_of(fine)).mean(),
        }

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        fine = batch.inputs["fine"]
        out: Journey = self.model(fine)
        gates = marked(lengths_of(fine), out.videos, out.rows)
        return Prediction(class_probabilities(out.logits, self.multi_label), gates)

    def validation_loss(self, judged: Judged, videos: VideoSet, device: torch.device) -> float:
        """With the price of the frames after the first."""
        assert isinstance(judged, Predictions)
        frames = float(judged.fine_rows.mean())
        return super().validation_loss(judged, videos, device) + self.config.frame_price * (frames - 1)

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        return self.model.macs(gated_counts)

    @property
    def value_name(self) -> str:
        return "threshold on the log-odds of stopping"

    @torch.no_grad()
    def thresholds(self, videos: VideoSet, device: torch.device) -> FloatArray:
        scores = []
        with moved(self.model.threshold, torch.inf):
            for batch in fed(videos, batched(range(len(videos)), self.config.batch), device):
                out: Journey = self.model(batch.inputs["fine"])
                videos_of, log_odds = out.videos.cpu().numpy(), out.log_odds.double().cpu().numpy()
                # The last frame ends the video by itself.
                scores += [log_odds[videos_of == video][:-1] for video in range(len(out.logits))]
        return stopping_thresholds(scores)
