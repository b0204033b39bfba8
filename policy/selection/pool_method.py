"""What methods that choose among the models of a pool have in common."""

from __future__ import annotations

import csv
import io
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cache_schema import FeatureCache
from policy.config import RunConfig
from policy.data.batches import Role, VideoSet
from policy.data.opening import Dataset
from policy.method import IntArray, Method
from policy.selection.config import PoolConfig, SelectionConfig
from policy.selection.curve import SelectionCurve
from policy.selection.linear_head import LinearHead
from policy.selection.opening import Member, Pool, cheapest_stream, held_out_streams
from policy.selection.plausibility import suspicions
from policy.selection.pool import Masks, PoolTable, parse_models
from policy.selection.report import describe
from policy.selection.session import NETWORK

POINTS = 50
"""Thresholds or prices of a curve."""


class PoolMethod(Method):
    """A method with a pool of models, one of which, or another one, always runs.

    Attributes:
        own: the model that always runs.
        own_place: of it in the pool; None: it is outside.
    """

    roles: ClassVar[tuple[Role, ...]] = ("coarse",)

    config: SelectionConfig
    own: Member
    own_place: int | None

    def __init__(self, config: SelectionConfig, data: Dataset) -> None:
        super().__init__(config, data)
        self.pool_of_models = Pool.of(config, data)
        self._seen: list[tuple[VideoSet, PoolTable, Tensor]] = []

    @classmethod
    def streams(cls, config: RunConfig, cache: FeatureCache) -> dict[Role, str]:
        assert isinstance(config, PoolConfig)
        return {"coarse": config.coarse or cheapest_stream(config, cache)}

    @classmethod
    def pool(cls, config: RunConfig) -> Sequence[str]:
        assert isinstance(config, PoolConfig)
        return tuple(model.stream for model in parse_models(config.models))

    @classmethod
    def held_out(cls, config: RunConfig) -> Sequence[str]:
        assert isinstance(config, PoolConfig)
        return held_out_streams(config)

    def session_tensors(self) -> Mapping[str, Tensor]:
        """The linear heads, if these judge."""
        tensors: dict[str, Tensor] = {}
        for member in (*self.pool_of_models, self.own):
            if isinstance(member.head, LinearHead):
                tensors |= member.head.whole.tensors(member.name.stream)
        return tensors

    def notes(self, data: Dataset) -> Sequence[str]:
        (train, _), (evaluation, _) = self.look(data.train), self.look(data.evaluation)
        pool = self.pool_of_models
        return [*pool.notes, *suspicions(self.config, pool, train, evaluation)]

    @property
    def reads(self) -> bool:
        return False  # what it sees of a video is kept (`look`)

    def rows(self, length: int) -> IntArray:
        return self.own.rows(length)

    def look(self, videos: VideoSet) -> tuple[PoolTable, Tensor]:
        """What the pool says of videos, and `seen` of them. Kept."""
        for known, table, seen in self._seen:
            if known is videos:
                return table, seen
        table = self.pool_of_models.table(videos)
        seen = self.seen(videos, table)
        self._seen.append((videos, table, seen))
        return table, seen

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        classifier = {self.own.name.stream: self.own.head_macs(row_counts)}
        return classifier | {NETWORK: np.full_like(row_counts, self.look_macs)}

    def models_macs(self, ran: Masks, macs: IntArray) -> dict[str, IntArray]:
        """(m,) by name: of the models of the pool that ran beside its own.

        Args:
            ran: (m,).
            macs: (m, N) of the models.
        """
        return {
            name: np.where(ran >> np.uint32(n) & 1, macs[:, n], 0)
            for n, name in enumerate(self.pool_of_models.names)
            if n != self.own_place
        }

    def listing(self, videos: VideoSet, device: torch.device) -> str:
        """A line for each video: the model that answers (of several all that do), those that ran, and the cost."""
        point = self.at_threshold(videos, device)
        table = point.table
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["video_id", "answers", "ran", "gflops"])

        def names(mask: int) -> str:
            return "+".join(table.models[n] for n in table.members(mask))

        columns = table.video_ids, point.answering[0].tolist(), point.ran[0].tolist(), point.macs[0].tolist()
        for video_id, answering, ran, macs in zip(*columns, strict=True):
            writer.writerow([video_id, names(answering), names(ran), f"{macs / 1e9:.6g}"])
        return text.getvalue()

    def details(self, data: Dataset, device: torch.device) -> Mapping[str, Any]:
        (training, _), (_, inputs) = self.look(data.train), self.look(data.evaluation)
        return describe(
            self.config,
            own={
                "model": self.own.name.stream,
                "in_pool": self.own_place is not None,
                "gflops": float(self.own.macs(data.evaluation).mean() / 1e9),
                "inputs": inputs.shape[1],
                "network_gflops": self.look_macs / 1e9,
            },
            point=self.at_threshold(data.evaluation, device),
            curve=self.curve(data.evaluation, device),
            training=training,
            labelled=self.labelled,
        )

    @property
    @abstractmethod
    def look_macs(self) -> int:
        """Of its network, each time it is asked about a video."""

    @property
    def labelled(self) -> Tensor | None:
        """(M, N): affinities of the training videos; None where something else is learned."""
        return None

    @abstractmethod
    def curve(self, videos: VideoSet, device: torch.device, *, points: int = POINTS) -> SelectionCurve:
        """At thresholds (or prices) of these very videos, which only spread the points: at each, what is decided
        for a video depends on nothing but that video.

        Args:
            points: at most so many.
        """

    @abstractmethod
    def at_threshold(self, videos: VideoSet, device: torch.device) -> SelectionCurve:
        """The one point that it decides at."""

    @abstractmethod
    def seen(self, videos: VideoSet, table: PoolTable) -> Tensor:
        """(M, D) float32: what it sees of videos beside the pool's table, which it may see as well."""
