"""FrameGlimpse: an agent that looks at K frames, each time choosing the next from anywhere in the video.

After Yeung, Russakovsky, Mori and Fei-Fei (CVPR 2016), whose agent emits detections, a decision to stop and the
next location to look. For recognition (LiteEval paper, Sec. 4.2.1: an agent that chooses "a small number of
frames") the locations are kept; the class is read from the last state, after a fixed number of glimpses.

What the LiteEval paper leaves open, and what is done here:

- K. Its costs, 29.9 and 32.9 GFLOPs at 7.82 per frame, are 3.8 and 4.2 frames: 4.
- At first the glimpses are the middles of K equal parts of the video, and training moves them: each glimpse has
  its own bias. With one bias for all, an agent looks at the middle again and again for a long time (on
  synthetic features at 1.8 different frames of 4 glimpses), and a baseline should not lose by that.
- The agent knows its location: it is an input beside the features.
- The reward is `recognition_reward` after the last glimpse; the baseline is learned from the state in which
  each location was chosen. No gradient flows from it to the state.

Once trained it may take fewer glimpses, the first of the K, and say the class then. It was trained to say it after
the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from cache_schema import UserError
from policy.baselines.agent import Agent, AgentMethod, drawn_location, row_at
from policy.baselines.config import FrameGlimpseConfig
from policy.config import ReadoutKind, RunConfig
from policy.data.batches import Batch, Role, VideoSet
from policy.evaluation.operating import OperatingTarget
from policy.method import IntArray, Losses, Moment, Prediction, class_probabilities
from policy.networks.macs import linear_macs, lstm_step_macs
from policy.networks.packing import lengths_of, marked, packed_rows
from policy.networks.readout import Readout
from policy.networks.standardize import Standardize
from policy.session import FloatArray
from policy.training.losses import classification_loss, policy_gradient, recognition_reward


@dataclass(frozen=True)
class Glimpses:
    """The glimpses of an agent at B videos, in the caller's order.

    Attributes:
        logits: (B, C) after the last glimpse.
        rows: (B, K) int64, the frames of the glimpses.
        log_probabilities: (B, K) log densities of the locations, up to a constant.
        values: (B, K) the reward expected before each glimpse.
    """

    logits: Tensor
    rows: Tensor
    log_probabilities: Tensor
    values: Tensor


class GlimpseAgent(Agent):
    """LSTM over the glimpses; from its state a location in [0, 1], a value and, at the end, the classes.

    Args:
        dim: D of the features.
        glimpses: K.
        std: of the Gaussian around the emitted location, in training, as a share of the video.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        num_classes: int,
        glimpses: int,
        std: float,
        readout: ReadoutKind = "last",
    ) -> None:
        super().__init__()
        self.scale = Standardize(dim)
        self.cell = nn.LSTMCell(dim + 1, hidden)
        self.locate = nn.Linear(hidden, 1, bias=False)
        # Biases of the K locations: their sigmoids are the middles of K equal parts.
        self.start = nn.Parameter(torch.logit((torch.arange(glimpses) + 0.5) / glimpses))
        self.value = nn.Linear(hidden, 1)
        self.readout = Readout(readout, hidden)
        self.classifier = nn.Linear(hidden, num_classes)
        self.register_buffer("threshold", torch.tensor(float(glimpses)))
        self.std = std

    @property
    def looks(self) -> int:
        """How many of the K glimpses it takes: the threshold."""
        return int(self.threshold)

    def forward(self, features: PackedSequence, noise: Tensor | None = None) -> Glimpses:
        """Look at B videos, (N, D) features packed; only rows of glimpses are read.

        Args:
            noise: (B, K) standard normal, for locations around the emitted ones; None uses the emitted ones.
        """
        lengths = lengths_of(features)
        videos = torch.arange(len(lengths), device=lengths.device)
        h = c = self.value.weight.new_zeros(len(lengths), self.cell.hidden_size)
        reading = self.readout.start(h, len(lengths))
        rows, log_probabilities, values = [], [], []
        for k in range(self.looks):
            place, log_probability = drawn_location(
                self.location(h, k), self.std, None if noise is None else noise[:, k]
            )
            log_probabilities.append(log_probability)
            values.append(self.value(h.detach()).squeeze(1))
            row = row_at(place, lengths)
            inputs = self.scale(features.data[packed_rows(features, videos, row)])
            h, c = self.visit(inputs, place, h, c)
            reading = self.readout.step(reading, h)
            rows.append(row)
        return Glimpses(
            self.classifier(reading.value),
            *(torch.stack(parts, 1) for parts in (rows, log_probabilities, values)),
        )

    def location(self, h: Tensor, k: int) -> Tensor:
        """(n,), of glimpse k from the states (n, H) before it."""
        location: Tensor = (self.locate(h).squeeze(1) + self.start[k]).sigmoid()
        return location

    def following(
        self, visited: Sequence[int], length: int, h: Tensor, *context: Tensor
    ) -> tuple[int, Tensor] | None:
        if len(visited) == self.looks:
            return None
        place = self.location(h, len(visited))
        return int(row_at(place, torch.tensor([length], device=place.device))), place

    def macs(self, steps: IntArray) -> dict[str, IntArray]:
        # The value is for training only.
        step = lstm_step_macs(self.cell.input_size, self.cell.hidden_size)
        step += linear_macs(self.cell.hidden_size, 1) + self.readout.step_macs
        classifier = linear_macs(self.cell.hidden_size, self.classifier.out_features)
        return {"FrameGlimpse agent": steps * step + classifier}


class FrameGlimpse(AgentMethod):
    """Trained by the classification loss, and REINFORCE for the locations. Its threshold is the number of
    glimpses."""

    title = "FrameGlimpse"

    config: FrameGlimpseConfig
    model: GlimpseAgent

    @classmethod
    def agent(cls, config: RunConfig, dims: Mapping[Role, int], num_classes: int) -> GlimpseAgent:
        assert isinstance(config, FrameGlimpseConfig)
        return GlimpseAgent(
            dims["fine"],
            config.fine_hidden,
            num_classes,
            config.glimpses,
            config.location_std,
            config.readout,
        )

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        fine = batch.inputs["fine"]
        noise = torch.randn(len(batch.targets), self.config.glimpses, generator=generator)
        out: Glimpses = self.model(fine, noise.to(fine.data.device))
        reward = recognition_reward(out.logits, batch.targets)
        advantage = reward[:, None] - out.values
        classification = classification_loss(out.logits, batch.targets)
        policy = policy_gradient(out.log_probabilities.flatten(), advantage.flatten()) / len(reward)
        value = F.mse_loss(out.values, reward[:, None].expand_as(out.values))
        return {
            "loss": classification + policy + value,
            "classification": classification,
            "value_error": value,
            "reward": reward.mean(),
        }

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        fine = batch.inputs["fine"]
        out: Glimpses = self.model(fine)
        videos = torch.arange(len(out.rows), device=out.rows.device).repeat_interleave(out.rows.shape[1])
        # A frame that is looked at again is not computed again.
        gates = marked(lengths_of(fine), videos, out.rows.flatten())
        return Prediction(class_probabilities(out.logits, self.multi_label), gates)

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        # A step for each glimpse, even if several are of the same frame.
        return self.model.macs(np.full_like(row_counts, self.model.looks))

    @property
    def value_name(self) -> str:
        return "number of glimpses"

    def thresholds(self, videos: VideoSet, device: torch.device) -> FloatArray:
        return np.arange(1, self.config.glimpses + 1, dtype=np.float64)

    def check_target(self, target: OperatingTarget) -> None:
        super().check_target(target)
        if target.kind == "threshold" and target.value not in range(1, self.config.glimpses + 1):
            raise UserError(
                f"{target}: of frame-glimpse it is how many glimpses it takes, from 1 to the "
                f"{self.config.glimpses} that it was trained for"
            )
