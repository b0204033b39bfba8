"""From streams of a cache to what the models of a pool say of videos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cache_schema import CacheError, FeatureCache, Stream, UserError
from cache_schema.costs import stream_cost
from policy.data.batches import VideoSet
from policy.data.opening import Dataset
from policy.selection.config import PoolConfig, SelectorConfig
from policy.selection.heads import Head, ScoreHead, every_score, held_out_head, parse_held_out, score_head
from policy.selection.linear_head import class_targets, fit_linear_head
from policy.selection.pool import Floats, ModelName, PoolTable, parse_models

IntArray = npt.NDArray[np.int64]

_KEPT_BYTES = 1 << 29
"""Probabilities that take no more are kept in memory; those of HVU's training videos would take 12 GB."""


@dataclass(frozen=True)
class Member:
    """A model of a pool.

    Attributes:
        head: what makes class probabilities of it; None: nothing, there are only features to look at.
    """

    name: ModelName
    stream: Stream
    head: Head | None

    def rows(self, length: int) -> IntArray:
        """Those of a video of `length` rows that it looks at."""
        return self.name.rows_of(length, self.stream.spec.sampling.crops)

    def head_macs(self, rows: IntArray) -> IntArray:
        """(M,), of its head alone, for videos of which it looks at `rows` (M,)."""
        return np.zeros_like(rows) if self.head is None else self.head.macs(rows)

    def macs(self, videos: VideoSet) -> IntArray:
        """(M,): of its backbone, by the cost table, and its head."""
        counts = np.array([len(self.rows(self.stream.rows(video))) for video in videos.ids], np.int64)
        return counts * stream_cost(self.stream.spec).macs + self.head_macs(counts)

    def probabilities(self, videos: VideoSet) -> Floats:
        """(M, C): class probabilities."""
        return self.part(videos, range(len(videos)))

    def part(self, videos: VideoSet, which: Sequence[int]) -> Floats:
        """`probabilities` of some of the videos."""
        assert self.head is not None
        return self.head.probabilities(videos, which, self.rows)


class CacheTable(PoolTable):
    """A table whose probabilities are taken from the cache when they are asked for.

    They are kept if they are few, or as soon as somebody asks for all of them (`probabilities`).
    """

    def __init__(self, members: Sequence[Member], videos: VideoSet) -> None:
        shape = len(videos), len(members), videos.labels.shape[1]
        # Not the base's, which asks for the probabilities; nor by assignment, for a table does not change.
        vars(self).update(
            models=tuple(member.name.stream for member in members),
            video_ids=videos.ids,
            labels=videos.labels,
            first=videos.first,
            multi_label=videos.multi_label,
            macs=np.stack([member.macs(videos) for member in members], axis=1),
            _members=members,
            _videos=videos,
            _keeps=4 * np.prod(shape, dtype=np.int64) <= _KEPT_BYTES,
        )

    _members: Sequence[Member]
    _videos: VideoSet
    _keeps: bool

    @cached_property
    def probabilities(self) -> Floats:
        """(M, N, C)."""
        return self._read(range(len(self)))

    def part(self, videos: slice) -> Floats:
        if self._keeps or "probabilities" in vars(self):
            return self.probabilities[videos]
        return self._read(range(len(self))[videos])

    def of_model(self, model: int) -> Floats:
        if self._keeps or "probabilities" in vars(self):
            return self.probabilities[:, model]
        return self._members[model].probabilities(self._videos)

    def _read(self, which: range) -> Floats:
        probabilities = np.empty((len(which), len(self._members), self.labels.shape[1]), np.float32)
        for n, member in enumerate(self._members):
            probabilities[:, n] = member.part(self._videos, which)
        return probabilities


@dataclass(frozen=True)
class Pool:
    """Models to choose from.

    Attributes:
        members: N, the cheapest first: by the mean cost of their backbones over the videos of the cache.
        notes: what the user should know of how they were opened, a line each.
    """

    members: tuple[Member, ...]
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(config: PoolConfig, data: Dataset) -> Pool:
        """The models that a configuration names, with their heads.

        Raises:
            UserError: the models are not fit to be a pool, one has no class scores or not for all classes, or
                `score_classes` or `out_of_fold` do not fit them.
        """
        names = parse_models(config.models, config.rows)
        streams = {name.stream: data.train.pool[name.stream] for name in names}
        held_out = parse_held_out(config.out_of_fold, list(streams))
        if config.heads == "linear" and held_out:
            raise UserError("give --out-of-fold or --heads linear, whose scores are out of fold by --folds")
        unnamed = [] if config.heads == "linear" else _unnamed([*streams.values(), *data.held_out.values()])
        if config.score_classes and not unnamed:
            raise UserError("--classes: there is no stream here whose class scores are without names")
        members = tuple(_member(name, streams[name.stream], held_out, config, data) for name in names)
        ordered = sorted(members, key=lambda member: mean_backbone_macs(member.name, member.stream))
        return Pool(tuple(ordered), tuple(_notes(config, data, unnamed)))

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.name.stream for member in self.members)

    def table(self, videos: VideoSet) -> PoolTable:
        """What the models say of videos. When it is read, class scores that are not finite, or a damaged shard,
        raise CacheError."""
        return CacheTable(self.members, videos)


def mean_backbone_macs(name: ModelName, stream: Stream) -> float:
    """Of a model's backbone for a video, on average over all videos of the stream."""
    crops = stream.spec.sampling.crops
    counts = stream.row_counts()
    if name.rows is not None:
        counts = np.minimum(counts, name.rows * crops)
    return float(counts.sum()) / max(1, len(counts)) * stream_cost(stream.spec).macs


def cheapest_stream(config: PoolConfig, cache: FeatureCache) -> str:
    """The stream of the first model of `Pool.members`."""
    names = parse_models(config.models, config.rows)
    return min(names, key=lambda name: mean_backbone_macs(name, cache[name.stream])).stream


def held_out_streams(config: PoolConfig) -> tuple[str, ...]:
    """Names of the streams that `Pool.of` expects in `Dataset.held_out`."""
    streams = [name.stream for name in parse_models(config.models, config.rows)]
    others = parse_held_out(config.out_of_fold, streams).values()
    return tuple(dict.fromkeys(name for names in others for name in names))


def own_member(config: SelectorConfig, data: Dataset, pool: Pool) -> Member:
    """The model that the selector is mounted on: one of the pool, or that of any other stream.

    Raises:
        UserError: it has no class scores, or probabilities, and the selector is to look at them.
    """
    stream = data.train.streams["coarse"]
    for member in pool:
        if member.stream.name == stream.name:
            return member
    name = ModelName(stream.name, config.rows)
    if config.selector_input == "features" and not config.confidence_input:
        # Charged for its classifier, if it has one, as what a network does when it runs.
        count = stream.spec.num_classes
        return Member(name, stream, ScoreHead(stream, np.arange(count)) if count else None)
    if config.heads == "linear":
        return Member(name, stream, _linear(name, stream, config, data))
    if not stream.spec.num_classes:
        raise CacheError(
            f"stream {stream.name!r} has no class scores for the selector to look at; give --selector-input "
            "features"
        )
    return Member(name, stream, every_score(stream, data.train))


def _member(
    name: ModelName,
    stream: Stream,
    held_out: Mapping[str, Sequence[str]],
    config: PoolConfig,
    data: Dataset,
) -> Member:
    if config.heads == "linear":
        return Member(name, stream, _linear(name, stream, config, data))
    own = score_head(stream, data.classes, config.score_classes, data.train)
    if stream.name not in held_out:
        return Member(name, stream, own)
    others = [data.held_out[other] for other in held_out[stream.name]]
    heads = [score_head(other, data.classes, config.score_classes, data.train) for other in others]
    return Member(name, stream, held_out_head(own, heads, data.train))


def _linear(name: ModelName, stream: Stream, config: PoolConfig, data: Dataset) -> Head:
    rows = Member(name, stream, None).rows
    return fit_linear_head(stream, data.train, rows, folds=config.folds, seed=config.seed)


def _unnamed(streams: Sequence[Stream]) -> list[str]:
    return [stream.name for stream in streams if stream.spec.num_classes and stream.spec.classes is None]


def _notes(config: PoolConfig, data: Dataset, unnamed: Sequence[str]) -> Iterator[str]:
    if unnamed and not config.score_classes:
        yield (
            f"class scores without names in {', '.join(unnamed)}: taken to be of the labels' classes in sorted "
            "order; --classes FILE says otherwise"
        )
    for name in parse_models(config.models, config.rows):
        stream = data.train.pool[name.stream]
        most = int(stream.row_counts().max(initial=0)) // stream.spec.sampling.crops
        if name.rows is not None and name.rows > most:
            yield f"{stream.name}: no video has {name.rows} clips or frames; all are looked at, at most {most}"
    if config.heads == "linear" and config.folds == 1:
        yield (
            "linear heads judge the videos that they were fitted on (--folds 1): the affinities of the training "
            "videos are optimistic"
        )
    elif config.heads == "linear":
        single = int((class_targets(data.train).sum(axis=0) == 1).sum())
        if single:
            which = "1 class has" if single == 1 else f"{single} classes have"
            yield (
                f"{which} a single training video: the linear head that judges it out of fold knows no example"
            )
