"""LSTM, LSTM+CF and coarse only: one LSTM, classes from its last hidden state or another readout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from policy.baselines.config import CoarseFineLSTMConfig, CoarseOnlyConfig, FineLSTMConfig
from policy.baselines.even_rows import EvenRows
from policy.baselines.session import FixedRowsSession, graph_facts
from policy.config import ReadoutKind
from policy.data.batches import Batch, Role, every_row, uniform_rows
from policy.data.opening import Dataset
from policy.method import IntArray, Losses, Method, Moment, Prediction, class_probabilities
from policy.networks.macs import linear_macs, lstm_step_macs
from policy.networks.packing import last_rows, mean_per_video, video_of_row
from policy.networks.readout import Reading, Readout, dropped
from policy.networks.standardize import Standardize, fit_scale, unit_rows
from policy.session import Graph, Session, TrainedRun
from policy.training.checkpoint import read_weights
from policy.training.losses import classification_loss, classification_losses

LSTMConfig: TypeAlias = FineLSTMConfig | CoarseFineLSTMConfig | CoarseOnlyConfig


class LSTMClassifier(nn.Module):
    """Scaled features of one or more streams, side by side -> LSTM -> classifier on what is read of its states."""

    def __init__(self, dims: list[int], hidden: int, num_classes: int, readout: ReadoutKind = "last") -> None:
        super().__init__()
        self.scales = nn.ModuleList(Standardize(dim) for dim in dims)
        self.lstm = nn.LSTM(sum(dims), hidden)
        self.readout = Readout(readout, hidden)
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, streams: list[PackedSequence]) -> Tensor:
        """Packed (N, D) per stream -> logits (B, C) in the caller's order."""
        return last_steps(self.every_step(streams), streams[0])

    def every_step(
        self, streams: list[PackedSequence], dropout: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Packed (N, D) per stream -> logits (N, C) after every step, packed alike.

        Args:
            dropout: share of the features, and of what the classifier reads, that is left out.
            generator: of dropout, on the CPU.
        """
        scaled = [scale(s.data) for scale, s in zip(self.scales, streams, strict=True)]
        inputs = dropped(torch.cat(scaled, 1), dropout, generator)
        states: PackedSequence = self.lstm(streams[0]._replace(data=inputs))[0]
        read = self.readout(states.data, streams[0].batch_sizes.tolist())
        logits: Tensor = self.classifier(dropped(read, dropout, generator))
        return logits

    def macs(self, row_counts: IntArray) -> dict[str, IntArray]:
        """(M,) of videos with so many rows, by the network's name in the ledger."""
        step = lstm_step_macs(self.lstm.input_size, self.lstm.hidden_size) + self.readout.step_macs
        classifier = linear_macs(self.lstm.hidden_size, self.classifier.out_features)
        return {"LSTM network": row_counts * step + classifier}


def last_steps(rows: Tensor, packed: PackedSequence) -> Tensor:
    """(B, C) of each video's last step, in the caller's order, of rows (N, C) laid out as ``packed``."""
    last = rows[last_rows(packed.batch_sizes).to(rows.device)]
    return last if packed.unsorted_indices is None else last[packed.unsorted_indices]


def step_loss(logits: Tensor, targets: Tensor, packed: PackedSequence) -> Tensor:
    """Classification loss of the prediction after every step: mean over a video's steps, then over videos.

    Not in the paper, whose loss is of the last step only. It makes predictions at any time useful.

    Args:
        logits: (N, C), laid out as ``packed``.
        targets: of the B videos, in the caller's order, as `classification_loss` takes them.
        packed: any features of the videos.
    """
    video = video_of_row(packed).to(targets.device)
    losses = classification_losses(logits, targets[video])
    return mean_per_video(losses[:, None], packed).mean()


class _Step(nn.Module):
    """A frame's features (1, D) of each stream, and h and c (1, H), to those after it and the classes."""

    def __init__(self, model: LSTMClassifier, roles: Sequence[Role], l2: bool, multi_label: bool) -> None:
        super().__init__()
        self.model, self.roles, self.l2, self.multi_label = model, roles, l2, multi_label

    def forward(
        self,
        h: Tensor,
        c: Tensor,
        coarse: Tensor | None = None,
        fine: Tensor | None = None,
        read_value: Tensor | None = None,
        read_log_weight: Tensor | None = None,
        read_steps: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        given = {"coarse": coarse, "fine": fine}
        rows = [features for role in self.roles if (features := given[role]) is not None]
        scaled = [
            scale(unit_rows(features) if self.l2 else features)
            for scale, features in zip(self.model.scales, rows, strict=True)
        ]
        _, (h, c) = self.model.lstm(torch.cat(scaled, 1)[None], (h[None], c[None]))
        read, states = h[0], [h[0], c[0]]
        reading = Reading.of(read_value, read_log_weight, read_steps)
        if reading is not None:
            reading = self.model.readout.step(reading, read)
            read, states = reading.value, [*states, *(part.clone() for part in reading)]
        return *states, class_probabilities(self.model.classifier(read), self.multi_label)


class _LSTM(Method):
    config: LSTMConfig
    model: LSTMClassifier

    def __init__(self, config: LSTMConfig, data: Dataset) -> None:
        super().__init__(config, data)
        dims = [data.train.feature_dim(role) for role in self.roles]
        self.model = LSTMClassifier(dims, config.fine_hidden, len(data.classes), config.readout)
        if config.input_norm == "standard":
            for role, scale in zip(self.roles, self.model.scales, strict=True):
                assert isinstance(scale, Standardize)
                fit_scale(scale, data.train, role, self.rows)

    @classmethod
    def rows_looked_at(cls, config: LSTMConfig, length: int) -> IntArray:
        """Of a video of `length` rows."""
        return every_row(length)

    def rows(self, length: int) -> IntArray:
        return self.rows_looked_at(self.config, length)

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session:
        config = run.config
        assert isinstance(config, (FineLSTMConfig, CoarseFineLSTMConfig, CoarseOnlyConfig)), (
            "the methods of this family have no other"
        )
        specs = {role: run.streams[role] for role in cls.roles}
        dims = [spec.feature_dim for spec in specs.values()]
        model = LSTMClassifier(dims, config.fine_hidden, len(run.classes), config.readout)
        read_weights(run.weights, model)
        model.to(device).eval()

        states = {name: torch.zeros(1, config.fine_hidden) for name in ("h", "c")}
        states |= model.readout.states("read")

        def predict(rows: Mapping[Role, Tensor]) -> Tensor:
            packed = [pack_sequence([rows[role].to(device)]) for role in cls.roles]
            return class_probabilities(model(packed), run.multi_label)[0]

        l2 = config.input_norm == "l2"
        return FixedRowsSession(
            specs,
            run.classes,
            frames=None if isinstance(config, CoarseOnlyConfig) else config.frames,
            predict=predict,
            network_macs=model.macs,
            l2=l2,
            graphs=lambda: [
                Graph(
                    "step",
                    _Step(model, cls.roles, l2, run.multi_label),
                    {
                        **{role: torch.zeros(1, spec.feature_dim) for role, spec in specs.items()},
                        **states,
                    },
                    (*(f"{name}_next" for name in states), "probabilities"),
                    graph_facts(specs, "all" if isinstance(config, CoarseOnlyConfig) else config.frames),
                )
            ],
        )

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        streams, config = self._streams(batch), self.config
        logits = self.model.every_step(streams, config.dropout, generator)
        classification = classification_loss(last_steps(logits, streams[0]), batch.targets)
        if not config.step_loss:
            return {"loss": classification}
        every_step = step_loss(logits, batch.targets, streams[0])
        loss = classification + config.step_loss * every_step
        return {"loss": loss, "classification": classification, "step_loss": every_step}

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        return Prediction(class_probabilities(self.model(self._streams(batch)), self.multi_label))

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        return self.model.macs(row_counts)

    def _streams(self, batch: Batch) -> list[PackedSequence]:
        return [batch.inputs[role] for role in self.roles]


class FineLSTM(EvenRows, _LSTM):
    """LSTM: fine features of K uniformly spaced frames."""

    title = "LSTM"
    roles: ClassVar[tuple[Role, ...]] = ("fine",)

    config: FineLSTMConfig | CoarseFineLSTMConfig

    @classmethod
    def rows_looked_at(cls, config: LSTMConfig, length: int) -> IntArray:
        assert not isinstance(config, CoarseOnlyConfig)
        return uniform_rows(length, config.frames)


class CoarseFineLSTM(FineLSTM):
    """LSTM+CF: coarse and fine features of K uniformly spaced frames, concatenated."""

    title = "LSTM+CF"
    roles = ("coarse", "fine")


class CoarseOnly(_LSTM):
    """Null control: the coarse features of every frame and no fine ones, with the LSTM of the others."""

    title = "Coarse only"
    roles: ClassVar[tuple[Role, ...]] = ("coarse",)
