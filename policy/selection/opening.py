"""From streams of a cache to the models of a pool, and their predictions for videos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from cache_schema import CacheError, FeatureCache, Stream, UserError
from cache_schema.costs import stream_cost
from policy.data.batches import VideoSet
from policy.data.opening import Dataset
from policy.networks.temperature import Calibration
from policy.selection.config import PoolConfig, SelectionConfig
from policy.selection.heads import (
    CalibratedHead,
    Head,
    HeldOutHead,
    ScoreHead,
    calibrated_head,
    held_out_head,
    parse_held_out,
    score_columns,
    score_head,
)
from policy.selection.linear_head import LinearHead, WholeHead, fit_linear_head
from policy.selection.pool import Floats, IntArray, ModelName, PoolTable, parse_models
from policy.session import TrainedRun

_KEPT_BYTES = 1 << 29
"""Probabilities that take no more are kept in memory; those of HVU's training videos would take 12 GB."""


@dataclass(frozen=True)
class Member:
    """A model of a pool.

    Attributes:
        head: gives its class probabilities.
    """

    name: ModelName
    stream: Stream
    head: Head

    def rows(self, length: int) -> IntArray:
        """The rows that it looks at of a video of `length` rows."""
        return self.name.rows_of(length, self.stream.spec.sampling.crops)

    def macs(self, videos: VideoSet) -> IntArray:
        """(M,): of its backbone, by the cost table, and its head."""
        counts = np.array([len(self.rows(self.stream.rows(video))) for video in videos.ids], np.int64)
        return counts * stream_cost(self.stream.spec).macs + self.head.macs(counts)

    def probabilities(self, videos: VideoSet, which: Sequence[int] | None = None) -> Floats:
        """(M, C): class probabilities, or (m, C) of the videos at some positions."""
        return self.head.probabilities(videos, range(len(videos)) if which is None else which, self.rows)


class CacheTable(PoolTable):
    """A table whose probabilities are taken from the cache when they are needed.

    They are kept if they are few, or once all of them have been needed together (`probabilities`).
    """

    _members: Sequence[Member]
    _videos: VideoSet
    _is_small: bool

    def __init__(self, members: Sequence[Member], videos: VideoSet) -> None:
        shape = len(videos), len(members), videos.labels.shape[1]
        # Not the base's, which takes the probabilities; nor by assignment, for a table does not change.
        vars(self).update(
            models=tuple(member.name.stream for member in members),
            video_ids=videos.ids,
            labels=videos.labels,
            first=videos.first,
            multi_label=videos.multi_label,
            macs=np.stack([member.macs(videos) for member in members], axis=1),
            groups=videos.groups,
            _members=members,
            _videos=videos,
            _is_small=4 * np.prod(shape, dtype=np.int64) <= _KEPT_BYTES,
        )

    @cached_property
    def probabilities(self) -> Floats:
        """(M, N, C)."""
        return self._read(range(len(self)))

    @property
    def _is_kept(self) -> bool:
        return self._is_small or "probabilities" in vars(self)

    def part(self, videos: slice) -> Floats:
        return self.probabilities[videos] if self._is_kept else self._read(range(len(self))[videos])

    def of_model(self, model: int) -> Floats:
        if self._is_kept:
            return self.probabilities[:, model]
        return self._members[model].probabilities(self._videos)

    def _read(self, which: range) -> Floats:
        probabilities = np.empty((len(which), len(self._members), self.labels.shape[1]), np.float32)
        for n, member in enumerate(self._members):
            probabilities[:, n] = member.probabilities(self._videos, which)
        return probabilities


@dataclass(frozen=True)
class Pool:
    """Models to choose from.

    Attributes:
        members: N, the cheapest first: by the mean cost of their backbones over the videos of the cache.
    """

    members: tuple[Member, ...]

    @staticmethod
    def of(config: PoolConfig, data: Dataset, trained: TrainedRun | None = None) -> Pool:
        """The models that a configuration names, with their heads.

        Args:
            trained: a finished run, whose order and linear heads are taken; the training videos are not needed.

        Raises:
            UserError: the models are not fit to be a pool, one has no class scores or not for all classes, or
                `score_classes` or `out_of_fold` do not fit them.
        """
        names = parse_models(config.models, config.rows)
        streams = {name.stream: data.train.pool[name.stream] for name in names}
        held_out = {} if trained else parse_held_out(config.out_of_fold, list(streams))
        if config.heads == "linear" and held_out:
            raise UserError("give --out-of-fold or --heads linear, whose scores are out of fold by --folds")
        if config.score_classes and not unnamed_streams(config, data):
            raise UserError("--classes: there is no stream here whose class scores are without names")
        members = [
            Member(name, stream, _head(name, stream, held_out, config, data, trained))
            for name, stream in zip(names, streams.values(), strict=True)
        ]
        if trained:
            places = {name: place for place, name in enumerate(trained.pool)}
            members.sort(key=lambda member: places[member.name.stream])
        else:
            members.sort(key=lambda member: mean_backbone_macs(member.name, member.stream))
        return Pool(tuple(members))

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.name.stream for member in self.members)

    def calibrated(self, train: VideoSet) -> Pool:
        """The same models, with the temperature of each one's class scores fitted to training videos."""
        members = (
            replace(member, head=calibrated_head(member.head.head, train, member.rows))
            if isinstance(member.head, CalibratedHead)
            else member  # linear heads are fitted already
            for member in self.members
        )
        return Pool(tuple(members))

    def table(self, videos: VideoSet) -> PoolTable:
        """The models' predictions. When it is read, class scores that are not finite, or a damaged shard, raise
        CacheError."""
        return CacheTable(self.members, videos)


def unnamed_streams(config: PoolConfig, data: Dataset) -> list[str]:
    """Names of the streams that are read for their class scores, but do not name these."""
    streams = (data.train.pool[name.stream] for name in parse_models(config.models))
    return [
        stream.name
        for stream in (*streams, *data.held_out.values())
        if config.heads == "scores" and stream.spec.num_classes and stream.spec.classes is None
    ]


def mean_backbone_macs(name: ModelName, stream: Stream) -> float:
    """Of a model's backbone for a video, on average over all videos of the stream."""
    counts = stream.row_counts()
    if name.rows is not None:
        counts = np.minimum(counts, name.rows * stream.spec.sampling.crops)
    return float(counts.sum()) / max(1, len(counts)) * stream_cost(stream.spec).macs


def cheapest_stream(config: PoolConfig, cache: FeatureCache) -> str:
    """The stream of the first model of `Pool.members`."""
    names = parse_models(config.models, config.rows)
    return min(names, key=lambda name: mean_backbone_macs(name, cache[name.stream])).stream


def input_model(
    config: SelectionConfig, data: Dataset, pool: Pool, trained: TrainedRun | None = None
) -> Member:
    """The model that the selector looks at: one of the pool, or that of any other stream.

    Args:
        trained: as `Pool.of` has it.

    Raises:
        UserError: it has no class scores, or probabilities, and the selector is to look at them.
    """
    stream = data.train.streams["coarse"]
    for member in pool:
        if member.stream.name == stream.name:
            return member
    name, count = ModelName(stream.name, config.rows), stream.spec.num_classes
    plain = Calibration(1.0, 0.0, data.multi_label)
    if not config.sees_scores:
        # Charged for its classifier, if it has one, because a network that runs computes it, too.
        return Member(name, stream, CalibratedHead(ScoreHead(stream, np.arange(count)), plain))
    if config.heads == "linear":
        return Member(name, stream, _linear_head(name, stream, config, data, trained))
    if not count:
        raise CacheError(
            f"stream {stream.name!r} has no class scores for the selector to look at; give --selector-input "
            "features"
        )
    return Member(name, stream, CalibratedHead(score_head(stream, np.arange(count), data.train), plain))


def _head(
    name: ModelName,
    stream: Stream,
    held_out: Mapping[str, Sequence[str]],
    config: PoolConfig,
    data: Dataset,
    trained: TrainedRun | None,
) -> Head:
    if config.heads == "linear":
        return _linear_head(name, stream, config, data, trained)
    head, *others = (
        score_head(source, score_columns(source.spec, data.classes, config.score_classes), data.train)
        for source in (stream, *(data.held_out[other] for other in held_out.get(stream.name, ())))
    )
    whole: ScoreHead | HeldOutHead = head
    if others:
        judged = data.evaluation.ids if data.judges_training else ()
        whole = held_out_head(head, others, data.train, judged)
    if trained:
        calibration = Calibration.of(trained.tensors, name.stream, multi_label=trained.multi_label)
        return CalibratedHead(whole, calibration)
    if not config.fits_temperature:
        return CalibratedHead(whole, Calibration(1.0, 0.0, data.multi_label))
    return calibrated_head(whole, data.train, partial(name.rows_of, crops=stream.spec.sampling.crops))


def _linear_head(
    name: ModelName, stream: Stream, config: PoolConfig, data: Dataset, trained: TrainedRun | None
) -> Head:
    if trained:
        whole = WholeHead.of(trained.tensors, name.stream, multi_label=trained.multi_label)
        return LinearHead(stream, whole, (), {})
    rows = partial(name.rows_of, crops=stream.spec.sampling.crops)
    return fit_linear_head(stream, data.train, rows, folds=config.folds, seed=config.seed)
