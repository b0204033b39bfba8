"""FrameExit: rows in a fixed order, pooled by their maximum, until a gate says that they are enough.

After Ghodrati, Ehteshami Bejnordi and Habibian (CVPR 2021). Their released code, which is for inference alone, has
the order of rows, accumulated max pooling, a classifier after each row, and after each but the first and the last
a gate that reads the pooled features now and a row before. As we know the paper, whose text we could not check,
all are trained together: the classifiers by the classification loss after each row, the gates by whether that loss
is low enough by then (`losses`).

What is other on a cache, and what was left open:

- The backbones are as they were extracted; the authors fine-tuned theirs with the rest.
- After the first row a threshold on the confidence decides, as in the released code; in the paper's Fig. 2 there
  is a gate, too.
- Rows are the middles of T equal parts of the video (in the released code they go from its first frame to its
  last); a video with fewer rows is read in the order of its own number of rows, and its last one is an exit
  without a gate.
- Losses are means over a video's rows, then over videos. The gates' gradients reach the layer of the rows, too.
- The released gate says whether to go on. So does ours, in log-odds, and a threshold on them moves the trained
  policy; the confidence after the first row is brought to the same scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cache_schema import StreamSpec
from policy.data.batches import Batch, Role
from policy.data.opening import Dataset
from policy.method import Losses, Moment, class_probabilities
from policy.networks.macs import linear_macs
from policy.networks.projection import batch_norm
from policy.networks.readout import dropped
from policy.networks.standardize import Standardize, fit_scale, unit_parts
from policy.samplers.exits import ExitMethod, ExitNetwork, Exits, ExitSession, unsure
from policy.samplers.rows_config import FrameExitConfig
from policy.session import Graph, Session, TrainedRun, side_by_side
from policy.training.losses import classification_losses

GATE_UNITS = 128, 64
"""Of the released gate's two layers."""


class Layer(nn.Module):
    """Linear, batch norm, ReLU: (N, D) -> (N, H). A single row, which has no variance, is normalised as in
    evaluation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs)
        self.macs = linear_macs(inputs, outputs)

    def forward(self, rows: Tensor) -> Tensor:
        values = self.linear(rows)
        normed = self.norm(values) if len(rows) > 1 else batch_norm(values, self.norm)
        return F.relu(normed)


class Gate(nn.Module):
    """Pooled features (n, H), now and a row before, to the log-odds (n,) of going on."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Layer(hidden, GATE_UNITS[0]), Layer(*GATE_UNITS))
        self.decide = nn.Linear(2 * GATE_UNITS[1], 1)

    def forward(self, now: Tensor, before: Tensor) -> Tensor:
        read = torch.stack(torch.tensor_split(self.layers(torch.cat([now, before])), 2), 1)
        log_odds: Tensor = self.decide(read.flatten(1)).squeeze(1)
        return log_odds


def gate_macs(hidden: int) -> int:
    """Of a `Gate`."""
    of_one = linear_macs(hidden, GATE_UNITS[0]) + linear_macs(*GATE_UNITS)
    return 2 * of_one + linear_macs(2 * GATE_UNITS[1], 1)


class FrameExitNetwork(ExitNetwork):
    """Features of a row, of all streams side by side, to what to do after it.

    Args:
        dims: D of each stream.
        rows: T, exits; the first of them and the last have no gate.
        first_confidence: above which the first one is taken.
    """

    def __init__(
        self,
        dims: Mapping[Role, int],
        hidden: int,
        num_classes: int,
        rows: int,
        first_confidence: float,
        *,
        multi_label: bool,
    ) -> None:
        super().__init__(tuple(dims), rows)
        self.scales = nn.ModuleDict({role: Standardize(dim) for role, dim in dims.items()})
        self.layer = Layer(sum(dims.values()), hidden)
        self.classifiers = nn.ModuleList(nn.Linear(hidden, num_classes) for _ in range(rows))
        self.gates = nn.ModuleList(Gate(hidden) for _ in range(1, rows - 1))
        self.classifier_macs, self.gate_macs = linear_macs(hidden, num_classes), gate_macs(hidden)
        self.first_confidence, self.multi_label = first_confidence, multi_label

    def forward(self, inputs: Mapping[Role, Tensor], lengths: Tensor) -> Exits:
        logits, going_on = self.every_exit(inputs, lengths)
        place = torch.arange(logits.shape[1], device=lengths.device)
        return Exits(
            going_on.masked_fill(place >= lengths[:, None], torch.inf),
            class_probabilities(logits, self.multi_label),
            torch.minimum(place + 1, lengths[:, None]),
        )

    def every_exit(
        self,
        inputs: Mapping[Role, Tensor],
        lengths: Tensor,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, K, C) after each row, and log-odds (B, K) of going on; 0 where there is no choice.

        Args:
            inputs, lengths: as of `forward`.
            dropout: share of the features, and of what the classifiers read, that is left out.
            generator: of dropout, on the CPU.
        """
        scaled = torch.cat([self.scales[role](inputs[role]) for role in self.roles], 2)
        videos, count = scaled.shape[:2]
        is_row = torch.arange(count, device=lengths.device) < lengths[:, None]
        rows = self.layer(dropped(scaled[is_row], dropout, generator))
        # Zero where there is no row, which is no maximum of what a ReLU has left.
        by_place = rows.new_zeros(videos, count, rows.shape[1]).masked_scatter(is_row[:, :, None], rows)
        pooled = [*accumulate(by_place.unbind(1), torch.maximum)]  # several times as quick as cummax
        read = torch.split(dropped(torch.cat(pooled), dropout, generator), videos)
        pairs = zip(self.classifiers, read, strict=False)
        logits = torch.stack([classifier(features) for classifier, features in pairs], 1)
        going_on = [unsure(class_probabilities(logits[:, 0], self.multi_label), self.first_confidence)]
        for place, gate in zip(range(1, count), self.gates, strict=False):
            chooses = lengths > place + 1
            log_odds = logits.new_zeros(videos)
            if chooses.any():
                decided = gate(pooled[place][chooses], pooled[place - 1][chooses])
                log_odds = log_odds.masked_scatter(chooses, decided)
            going_on.append(log_odds)
        going_on += [logits.new_zeros(videos)] * (count - len(going_on))
        return logits, torch.stack(going_on, 1)

    def macs(self, rows: int, steps: int) -> dict[str, int]:
        gates = max(0, min(steps, rows - 1) - 1)
        # The first exit is taken or left by what its classifier says; the others need it where they are taken.
        classifiers = min(steps, 2)
        of_rows = steps * self.layer.macs + gates * self.gate_macs + classifiers * self.classifier_macs
        return {"FrameExit network": of_rows}

    def graphs(self, specs: Mapping[Role, StreamSpec], *, l2: bool) -> Sequence[Graph]:
        streams = [specs[role] for role in self.roles]
        dims = [stream.feature_dim for stream in streams]
        states = {"pooled": torch.zeros(1, self.layer.linear.out_features), "steps": torch.zeros(1)}
        return (
            Graph(
                "step",
                _Step(self, dims, l2),
                {"features": torch.zeros(1, sum(dims)), **states},
                ("log_odds", *(f"{name}_next" for name in states), "probabilities"),
                {**side_by_side(streams), **self.graph_facts()},
            ),
        )


class _Step(nn.Module):
    """What to do after a row, features (1, ΣD) of all streams side by side, and the class probabilities.

    All exits are computed, and that of the row is taken: which it is, the graph is told.
    """

    def __init__(self, network: FrameExitNetwork, dims: Sequence[int], l2: bool) -> None:
        super().__init__()
        self.network, self.dims, self.l2, self.rows = network, list(dims), l2, int(network.rows)

    def forward(self, features: Tensor, pooled: Tensor, steps: Tensor) -> tuple[Tensor, ...]:
        """Log-odds (1,) of going on, `pooled` and `steps` after the row, and class probabilities (1, C).

        Args:
            pooled: (1, H), the maximum of the rows before, zeros before the first.
            steps: (1,), how many rows that were.
        """
        network, rows = self.network, self.rows
        parts = torch.split(unit_parts(features, self.dims) if self.l2 else features, self.dims, 1)
        scaled = [network.scales[role](part) for role, part in zip(network.roles, parts, strict=True)]
        now = torch.maximum(pooled, network.layer(torch.cat(scaled, 1)))
        logits = torch.stack([classifier(now) for classifier in network.classifiers[:rows]])
        probabilities = class_probabilities(logits, network.multi_label)  # (T, 1, C)
        first = unsure(probabilities[0], network.first_confidence)
        going_on = [first, *(gate(now, pooled) for gate in network.gates[: max(0, rows - 2)])]
        last = [torch.zeros_like(first)] * (rows - len(going_on))
        place = steps.long().clamp_max(rows - 1)
        log_odds, answer = (
            values.index_select(0, place)[0] for values in (torch.stack([*going_on, *last]), probabilities)
        )
        return log_odds, now, steps + 1, answer


class FrameExit(ExitMethod):
    """Trained by the classification loss after each row, and gates that are told by it whether to stop."""

    title = "FrameExit"
    splits_batches = False  # batch norm has one process's mean and variance, and late exits few videos

    config: FrameExitConfig
    model: FrameExitNetwork

    def __init__(self, config: FrameExitConfig, data: Dataset) -> None:
        dims = {role: data.train.feature_dim(role) for role in data.train.streams}
        network = frame_exit_network(config, dims, len(data.classes), multi_label=data.multi_label)
        super().__init__(config, data, network)
        self.cap_rows(data.train)
        if config.input_norm == "standard":
            for role, scale in network.scales.items():
                assert isinstance(scale, Standardize)
                fit_scale(scale, data.train, role, self.rows)

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session:
        config = run.config
        assert isinstance(config, FrameExitConfig)
        dims = {role: spec.feature_dim for role, spec in run.streams.items()}
        network = frame_exit_network(config, dims, len(run.classes), multi_label=run.multi_label)
        return ExitSession.of_run(network, run, device)

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        """Classification and gates, each a mean over a video's exits, then over videos.

        A gate is to go on after t rows where the loss is above ε_t = β·exp(t/2), as we know the paper.
        """
        lengths, inputs = self.inputs(batch)
        logits, going_on = self.model.every_exit(inputs, lengths, self.config.dropout, generator)
        count = logits.shape[1]
        losses = torch.stack([classification_losses(each, batch.targets) for each in logits.unbind(1)], 1)
        rows = torch.arange(1, count + 1, device=losses.device)
        classification = (losses * (rows <= lengths[:, None])).sum(1) / lengths
        too_high = (losses.detach() > self.config.beta * (rows / 2).exp()).to(losses)
        has_gate = (rows > 1) & (rows < lengths[:, None])
        of_gates = F.binary_cross_entropy_with_logits(going_on, too_high, reduction="none") * has_gate
        gates = of_gates.sum(1) / lengths
        return {
            "loss": (classification + gates).mean(),
            "classification": classification.mean(),
            "gates": gates.mean(),
        }


def frame_exit_network(
    config: FrameExitConfig, dims: Mapping[Role, int], num_classes: int, *, multi_label: bool
) -> FrameExitNetwork:
    """The network that a configuration asks for."""
    return FrameExitNetwork(
        dims,
        config.row_hidden,
        num_classes,
        config.frames,
        config.first_confidence,
        multi_label=multi_label,
    )
