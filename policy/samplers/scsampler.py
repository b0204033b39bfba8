"""SCSampler: the fine backbone runs on the rows that cheap features say are most salient.

After Korbar, Tran and Torresani (ICCV 2019). Two of their samplers, as we know the paper, whose text we could not
check; the code that AR-Net's authors wrote for their comparison has both:

- ranking: of two rows of a training video, the one that the expensive classifier scores higher for the
  video's class is to be more salient, by a margin;
- classes: a classifier of cheap rows is trained, and its largest class probability is the saliency.

What is other on a cache, and what was left open:

- Cheap backbones are as they were extracted; a perceptron reads the features of all cheap streams side by side.
- The expensive scores of a training video are those of a classifier that was not fitted to it (cross-validation):
  of those that a classifier was fitted to it is sure at any row. Class scores of the cache are taken as they are.
- Each row is compared with one other of its video, drawn anew in each epoch: on average the loss is that of all
  pairs, which that code has. Two rows with the same score are not compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from cache_schema import StreamSpec
from policy.data.batches import Batch, Role, VideoSet
from policy.data.opening import Dataset
from policy.method import Losses, Moment, class_probabilities
from policy.networks.macs import linear_macs
from policy.networks.packing import mean_per_video, video_of_row
from policy.networks.readout import dropped
from policy.samplers.judge import notes_on_scores
from policy.samplers.rows_config import SCSamplerConfig, TopRowsConfig
from policy.samplers.salient_rows import SalientRows, SalientRowsMethod
from policy.training.losses import classification_losses


class Sampler(SalientRows):
    """A perceptron on cheap features, to class logits or to saliency."""

    def __init__(
        self,
        config: TopRowsConfig,
        specs: Mapping[Role, StreamSpec],
        classes: Sequence[str],
        *,
        multi_label: bool,
    ) -> None:
        assert isinstance(config, SCSamplerConfig)
        super().__init__(config, specs, classes, multi_label=multi_label)
        self.by_class, self.multi_label = config.saliency == "classes", multi_label
        inputs, outputs = len(self.scale.mean), len(classes) if self.by_class else 1
        self.hidden = nn.Linear(inputs, config.saliency_hidden)
        self.output = nn.Linear(config.saliency_hidden, outputs)
        self.macs = linear_macs(inputs, config.saliency_hidden) + linear_macs(config.saliency_hidden, outputs)

    def logits(
        self, features: Tensor, dropout: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """(N, D) to class logits (N, C), or saliency (N, 1)."""
        hidden = F.relu(self.hidden(dropped(self.scale(features), dropout, generator)))
        logits: Tensor = self.output(dropped(hidden, dropout, generator))
        return logits

    def saliency(self, features: Tensor) -> Tensor:
        logits = self.logits(features)
        return class_probabilities(logits, self.multi_label).amax(1) if self.by_class else logits[:, 0]

    def saliency_macs(self) -> dict[str, int]:
        return {"SCSampler network": self.macs}


class SCSampler(SalientRowsMethod):
    """Trained to rank a video's rows as the fine stream does, or to classify cheap rows."""

    title = "SCSampler"
    network = Sampler

    config: SCSamplerConfig
    model: Sampler

    def __init__(self, config: SCSamplerConfig, data: Dataset) -> None:
        super().__init__(config, data)
        self.fine_scores: list[Tensor] = []
        """(T,) of each training video, of its class in each row; before training there are none."""

    def notes(self, data: Dataset) -> Sequence[str]:
        return [*notes_on_scores([self.specs["fine"]], data.classes)]

    @torch.no_grad()
    def prepare(self, videos: VideoSet, device: torch.device) -> None:
        parts = self.model.fine.fit(videos, "fine", self.config.seed)
        if self.model.by_class:
            return
        # A single video cannot be held out: equal scores, from which nothing is learned.
        self.fine_scores = [torch.zeros(videos.length(index)) for index in range(len(videos))]
        targets = torch.from_numpy(videos.trained_labels).to(device)
        for places, judged in parts:
            for index in places.tolist():
                rows = torch.from_numpy(np.array(self.model.fine.rows_of(videos, "fine", index))).to(device)
                self.fine_scores[index] = judged(rows)[:, targets[index]].mean(1)

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        first = batch.inputs[self.model.cheap[0]]
        features = torch.cat([batch.inputs[role].data for role in self.model.cheap], 1)
        logits = self.model.logits(features, self.config.dropout, generator)
        if self.model.by_class:
            video = video_of_row(first).to(logits.device)
            losses = classification_losses(logits, batch.targets[video])
            return {"loss": mean_per_video(losses[:, None], first).mean()}
        by_video = pad_sequence([self.fine_scores[index] for index in batch.indices], batch_first=True)
        step = torch.arange(len(first.batch_sizes)).repeat_interleave(first.batch_sizes)
        scores = by_video.to(logits)[video_of_row(first), step]
        partner = drawn_partners(first.batch_sizes, generator).to(logits.device)
        order = (scores - scores[partner]).sign()
        ahead = logits[:, 0] - logits[partner, 0]
        losses = F.relu(self.config.ranking_margin - order * ahead) * order.abs()
        right = ((order * ahead > 0) | (order == 0)).to(losses)
        return {
            "loss": mean_per_video(losses[:, None], first).mean(),
            "ranked_right": mean_per_video(right[:, None], first).mean().detach(),
        }


def drawn_partners(batch_sizes: Tensor, generator: torch.Generator) -> Tensor:
    """(N,) int64, for each row of packed videos another row of its video, or itself where there is no other.

    All rows of a video are as many places apart from their partners, modulo its length; how many is drawn.
    """
    lengths = (batch_sizes[:, None] > torch.arange(int(batch_sizes[0]))).sum(0)  # longest first
    drawn = torch.rand(len(lengths), generator=generator)
    shift = 1 + (drawn * (lengths - 1)).long().clamp_max(lengths - 2).clamp_min(0)
    starts = batch_sizes.cumsum(0) - batch_sizes
    place = torch.cat([torch.arange(n) for n in batch_sizes.tolist()])
    step = torch.arange(len(batch_sizes)).repeat_interleave(batch_sizes)
    return starts[(step + shift[place]) % lengths[place]] + place
