"""Methods that look at all rows of cheap streams, and at the most salient ones of a video in the fine stream."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cache_schema import FeatureCache, StreamSpec
from cache_schema.costs import stream_cost
from policy.baselines.uniform import CLASSIFIER, score_columns, source_of_scores
from policy.config import RunConfig
from policy.data.batches import Batch, Role, VideoSet, unit_length
from policy.data.opening import Dataset
from policy.evaluation.operating import (
    Curve,
    OperatingTarget,
    TargetKind,
    doubled_up_to,
    most_rows,
    whole_rows,
)
from policy.method import Calibration, IntArray, Method, Prediction
from policy.networks.packing import lengths_of, marked, packed_rows, split_videos
from policy.networks.standardize import Standardize, unit_parts
from policy.samplers.judge import RowJudge
from policy.samplers.rows_config import TopRowsConfig
from policy.samplers.shared import further_streams
from policy.session import AlignedSession, Graph, Session, TrainedRun, Wanted, side_by_side
from policy.training.checkpoint import read_weights


class SalientRows(nn.Module):
    """What says how salient rows are, and what their fine features are of.

    Args:
        specs: by role.

    Attributes:
        cheap: the roles of the cheap streams, whose features stand side by side.
        top_rows: () int64, K.
    """

    top_rows: Tensor

    def __init__(
        self,
        config: TopRowsConfig,
        specs: Mapping[Role, StreamSpec],
        classes: Sequence[str],
        *,
        multi_label: bool,
    ) -> None:
        super().__init__()
        self.cheap = tuple(role for role in specs if role != "fine")
        self.scale = Standardize(sum(specs[role].feature_dim for role in self.cheap))
        self.fine = RowJudge(specs["fine"], classes, multi_label=multi_label)
        self.register_buffer("top_rows", torch.tensor(config.top_rows))

    @abstractmethod
    def saliency(self, features: Tensor) -> Tensor:
        """(T,) of all rows of a video, from the features (T, D) of the cheap streams side by side."""

    def saliency_macs(self) -> dict[str, int]:
        """Of a row, by the network's name."""
        return {}

    def chosen(self, features: Tensor) -> Tensor:
        """The K most salient rows of a video, in order; all of them where there are no more. Of equally salient
        ones the first."""
        ranked = self.saliency(features).argsort(descending=True, stable=True)
        return ranked[: int(self.top_rows)].sort().values


class SalientRowsMethod(Method):
    """Averages class probabilities of the fine stream over the K most salient rows."""

    roles: ClassVar[tuple[Role, ...]] = ("coarse", "fine")
    gated = "fine"
    operating_targets: ClassVar[tuple[TargetKind, ...]] = ("usage", "threshold", "budget")
    value_buffer = "top_rows"
    is_incremental = True

    network: ClassVar[type[SalientRows]]

    config: TopRowsConfig
    model: SalientRows

    def __init__(self, config: TopRowsConfig, data: Dataset) -> None:
        super().__init__(config, data)
        self.specs = {role: stream.spec for role, stream in data.train.streams.items()}
        for role in self.specs:
            if role != "fine" or score_columns(self.specs[role], data.classes) is None:
                data.train.feature_dim(role)  # which raises the user's error where there are none
        self.model = self.network(config, self.specs, data.classes, multi_label=data.multi_label)
        if config.input_norm == "standard":
            self.model.scale.fit(self._cheap(data.train, index) for index in range(len(data.train)))
            self.model.fine.fit_scale(data.train, "fine")

    @classmethod
    def streams(cls, config: RunConfig, cache: FeatureCache) -> dict[Role, str]:
        return further_streams(config, super().streams(config, cache))

    @classmethod
    def class_scores(cls, data: Dataset) -> str:
        return source_of_scores(data.train.streams["fine"].spec, data.classes)

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session:
        assert isinstance(run.config, TopRowsConfig)
        network = cls.network(run.config, run.streams, run.classes, multi_label=run.multi_label)
        read_weights(run.weights, network)
        return SalientRowsSession(
            network.to(device).eval(), run.streams, run.classes, l2=run.config.input_norm == "l2"
        )

    @property
    def scored(self) -> tuple[Role, ...]:
        return ("fine",) if self.model.fine.columns is not None else ()

    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        packed = (batch.scores if self.scored else batch.inputs)["fine"]
        chosen = [self.model.chosen(features) for features in self.cheap_videos(batch)]
        counts = torch.tensor([len(rows) for rows in chosen], device=packed.data.device)
        videos, rows = (
            torch.arange(len(chosen), device=counts.device).repeat_interleave(counts),
            torch.cat(chosen),
        )
        judged = self.model.fine(packed.data[packed_rows(packed, videos, rows)])
        sums = judged.new_zeros(len(chosen), judged.shape[1]).index_add(0, videos, judged)
        lengths = lengths_of(packed)
        further = {
            spec.name: lengths.cpu().numpy() * stream_cost(spec).macs
            for role, spec in self.specs.items()
            if role not in self.roles
        }
        return Prediction(sums / counts[:, None], marked(lengths, videos, rows), further)

    def cheap_videos(self, batch: Batch) -> list[Tensor]:
        """(T, D) of each video of a batch."""
        streams = [batch.inputs[role] for role in self.model.cheap]
        rows = torch.cat([packed.data for packed in streams], 1)
        return split_videos(rows, streams[0].batch_sizes, streams[0].unsorted_indices)

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        saliency = {name: row_counts * macs for name, macs in self.model.saliency_macs().items()}
        return {**saliency, CLASSIFIER: gated_counts * self.model.fine.macs}

    def _cheap(self, videos: VideoSet, index: int) -> Tensor:
        parts = [videos.features(role, index) for role in self.model.cheap]
        return torch.from_numpy(np.concatenate(parts, 1).astype(np.float32))

    # --- operating points: K ---

    @property
    def value_name(self) -> str:
        return "number of fine rows"

    def value_at(self, target: OperatingTarget, calibration: Calibration, device: torch.device) -> float:
        ((_, videos),) = calibration
        lengths = np.array([videos.length(index) for index in range(len(videos))])
        every = np.arange(1, lengths.max() + 1)
        fine = np.minimum(every[:, None], lengths)  # (K, M)
        if target.kind == "usage":
            return most_rows(target, (fine / lengths).mean(1))
        macs = {role: stream_cost(spec).macs for role, spec in self.specs.items()}
        cheap = sum(macs[role] for role in self.model.cheap) + sum(self.model.saliency_macs().values())
        of_videos = cheap * lengths + (macs["fine"] + self.model.fine.macs) * fine
        return most_rows(target, of_videos.mean(1) / 1e9)

    def set_value(self, value: float, target: OperatingTarget) -> None:
        self.model.top_rows.fill_(whole_rows(value, target))

    def operating_curve(self, videos: VideoSet, calibration: VideoSet, *, device: torch.device) -> Curve:
        """At K of 1, 2, 4, … and all rows."""
        counts = doubled_up_to(max(map(videos.length, range(len(videos)))))
        return self.at_values(counts, videos, device=device)


class SalientRowsSession(AlignedSession):
    """Wants all rows of each cheap stream, then the most salient ones of the fine stream, which give its answer.

    Args:
        network: trained; on its device, in evaluation mode.
        l2: features are brought to length 1 first.
    """

    def __init__(
        self, network: SalientRows, specs: Mapping[Role, StreamSpec], classes: tuple[str, ...], *, l2: bool
    ) -> None:
        super().__init__({spec.name: spec for spec in specs.values()}, classes)
        self.network, self._specs, self._l2 = network, specs, l2
        self._restart()

    def _restart(self) -> None:
        self._length = len(next(iter(self._spans_s.values()), ()))
        self._rows: dict[Role, IntArray] = {role: np.arange(self._length) for role in self.network.cheap}
        self._taken: dict[Role, list[Tensor]] = {role: [] for role in self._specs}

    def _role(self) -> Role | None:
        """Of the stream whose rows are wanted."""
        return next((role for role, rows in self._rows.items() if self._count(role) < len(rows)), None)

    def _count(self, role: Role) -> int:
        return sum(map(len, self._taken[role]))

    def wanted(self) -> Wanted | None:
        role = self._role() if self._spans_s else None
        if role is None:
            return None
        name, rows = self._specs[role].name, self._rows[role][self._count(role) :]
        return Wanted(name, rows, self._spans_s[name][rows])

    @torch.no_grad()
    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        role = self._role()
        assert role is not None  # something was wanted
        if role == "fine" and self.network.fine.columns is not None:
            rows = self._need(stream, "class scores", scores)
        else:
            rows = self._need(stream, "features", features)
            rows = torch.from_numpy(unit_length(rows.cpu().numpy())) if self._l2 else rows
        self._taken[role].append(rows.to(self.network.top_rows.device))
        if "fine" not in self._rows and self._role() is None:
            self._rows["fine"] = self._chosen()

    def _chosen(self) -> IntArray:
        cheap = torch.cat([torch.cat(self._taken[role]) for role in self.network.cheap], 1)
        return np.asarray(self.network.chosen(cheap).cpu().numpy(), np.int64)

    @property
    def operating_value(self) -> Tensor:
        return self.network.top_rows

    @torch.no_grad()
    def resume(self) -> None:
        self._rows["fine"] = np.append(self._rows["fine"], np.setdiff1d(self._chosen(), self._rows["fine"]))

    @property
    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """(C,): of the classes; the same for all until a fine row was taken."""
        if not self._taken["fine"]:
            return torch.full((len(self.classes),), 1 / len(self.classes))
        mean: Tensor = self.network.fine(torch.cat(self._taken["fine"])).mean(0)
        return mean.cpu()

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        macs = {spec.name: self._count(role) * stream_cost(spec).macs for role, spec in self._specs.items()}
        if "fine" in self._rows:
            macs |= {name: self._length * of_row for name, of_row in self.network.saliency_macs().items()}
        return macs | {CLASSIFIER: self._count("fine") * self.network.fine.macs}

    def graphs(self) -> Sequence[Graph]:
        cheap, fine = [self._specs[role] for role in self.network.cheap], self._specs["fine"]
        dims = [stream.feature_dim for stream in cheap]
        return (
            Graph(
                "saliency",
                _Saliency(self.network, dims, self._l2),
                {"features": torch.zeros(3, sum(dims))},
                ("saliency",),
                {**side_by_side(cheap), "top_rows": int(self.network.top_rows)},
                rows=True,
                row_outputs=True,
            ),
            Graph(
                "answer",
                _Answer(self.network.fine, self._l2),
                self.network.fine.graph_inputs(fine, 3),
                ("probabilities",),
                {"stream": fine.name, "input_scaling": "inside: rows as the backbone gives them"},
                rows=True,
            ),
        )


class _Saliency(nn.Module):
    """All rows of a video, features (T, ΣD) of the cheap streams side by side, to how salient they are (T,)."""

    def __init__(self, network: SalientRows, dims: Sequence[int], l2: bool) -> None:
        super().__init__()
        self.network, self.dims, self.l2 = network, dims, l2

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        return (self.network.saliency(unit_parts(features, self.dims) if self.l2 else features),)


class _Answer(nn.Module):
    """Some rows of the fine stream, whichever the judge reads, to the class probabilities (C,)."""

    def __init__(self, judge: RowJudge, l2: bool) -> None:
        super().__init__()
        self.judge, self.l2 = judge, l2

    def forward(self, features: Tensor | None = None, scores: Tensor | None = None) -> tuple[Tensor, ...]:
        return (self.judge.of_graph(features, scores, l2=self.l2).mean(0),)
