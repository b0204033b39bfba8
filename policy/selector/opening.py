"""From streams with class scores to what the models of a pool say of videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from cache_schema import FeatureCache, Stream
from cache_schema.costs import stream_cost
from cache_schema.errors import CacheError
from policy.accounting import linear_macs
from policy.config import RunConfig
from policy.data import Dataset, VideoSet, uniform_rows
from policy.selector.models import ModelName, parse_models
from policy.selector.pool import MOST_MODELS, PoolTable

IntArray = npt.NDArray[np.int64]

_VIDEOS_AT_A_TIME = 1024


@dataclass(frozen=True)
class Member:
    """A model of a pool.

    Attributes:
        columns: (C,), those of its class scores that it is judged by: where they have the classes of the labels.
    """

    name: ModelName
    stream: Stream
    columns: IntArray

    @property
    def classifier_macs(self) -> int:
        """Of a row."""
        return linear_macs(self.stream.spec.feature_dim, self.stream.spec.num_classes)

    @property
    def macs_per_row(self) -> int:
        """Of its backbone, by the cost table, and its classifier."""
        return stream_cost(self.stream.spec).macs + self.classifier_macs

    def rows(self, length: int) -> IntArray:
        """Those of a video of `length` rows that it looks at."""
        return uniform_rows(length, length if self.name.rows is None else self.name.rows)

    def macs(self, videos: VideoSet) -> IntArray:
        """(M,)."""
        counts = [len(self.rows(self.stream.rows(video))) for video in videos.ids]
        return np.array(counts, np.int64) * self.macs_per_row

    def probabilities(self, videos: VideoSet) -> npt.NDArray[np.float32]:
        """(M, C): class probabilities, the mean over the rows.

        A softmax or, with several classes per video, a sigmoid of the logits of its columns alone.
        """
        said = np.empty((len(videos), len(self.columns)), np.float32)
        for start in range(0, len(videos), _VIDEOS_AT_A_TIME):
            part = range(start, min(start + _VIDEOS_AT_A_TIME, len(videos)))
            scores = [videos.scores_of(self.stream, video, self.rows) for video in part]
            logits = np.concatenate(scores)[:, self.columns].astype(np.float32)
            each = expit(logits) if videos.multi_label else softmax(logits, axis=1)
            counts = np.array([len(rows) for rows in scores])
            first = np.concatenate([[0], np.cumsum(counts[:-1])])
            said[part.start : part.stop] = np.add.reduceat(each, first) / counts[:, None]
        return said


@dataclass(frozen=True)
class Pool:
    """Models to choose from.

    Attributes:
        members: N, by their mean cost on the training videos, the cheapest first.
    """

    members: tuple[Member, ...]

    @staticmethod
    def of(config: RunConfig, data: Dataset) -> Pool:
        """The models that a configuration names.

        Raises:
            UserError: there are too few or too many, or one has no class scores, or not for all classes.
        """
        members = []
        for name in parse_models(config.models, config.rows):
            stream = data.train.pool[name.stream]
            members.append(Member(name, stream, score_columns(stream, data.classes, config.score_classes)))
        if len(members) > MOST_MODELS:
            raise CacheError(f"a pool of {len(members)} models; at most {MOST_MODELS} are possible")
        return Pool(tuple(sorted(members, key=lambda member: float(member.macs(data.train).mean()))))

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.name.stream for member in self.members)

    def table(self, videos: VideoSet) -> PoolTable:
        """What the models say of videos.

        Raises:
            CacheError: class scores are not finite, or a shard is damaged.
        """
        return PoolTable(
            models=self.names,
            video_ids=videos.ids,
            labels=videos.labels,
            first=videos.first,
            multi_label=videos.multi_label,
            probabilities=np.stack([member.probabilities(videos) for member in self.members], axis=1),
            macs=np.stack([member.macs(videos) for member in self.members], axis=1),
        )


def cheapest_stream(config: RunConfig, cache: FeatureCache) -> str:
    """The stream of the pool's model that costs least for a video, on average over the cache."""

    def cost(name: ModelName) -> float:
        stream = cache[name.stream]
        rows = sum(len(uniform_rows(stream.rows(v), name.rows or stream.rows(v))) for v in stream)
        return stream_cost(stream.spec).macs * rows / max(1, len(stream))

    return min(parse_models(config.models, config.rows), key=cost).stream


def own_member(config: RunConfig, data: Dataset, pool: Pool) -> Member:
    """The model that the selector is mounted on: one of the pool, or that of any other stream.

    Raises:
        UserError: it has no class scores, and the selector is to look at them.
    """
    stream = data.train.streams["coarse"]
    for member in pool:
        if member.stream.name == stream.name:
            return member
    if not stream.spec.num_classes and (config.selector_input != "features" or config.confidence_input):
        raise CacheError(
            f"stream {stream.name!r} has no class scores for the selector to look at; give --selector-input "
            "features"
        )
    return Member(ModelName(stream.name, config.rows), stream, np.arange(stream.spec.num_classes))


def score_columns(stream: Stream, classes: Sequence[str], names: Sequence[str] = ()) -> IntArray:
    """(C,): where a stream's class scores have the classes of the labels.

    Args:
        names: of the columns, for a stream that does not say; where neither does, and there are as many columns as
            classes, they are taken to be in sorted order, as the classes are.

    Raises:
        CacheError: the stream has no class scores, or not for all classes.
    """
    spec = stream.spec
    if not spec.num_classes:
        raise CacheError(
            f"stream {stream.name!r} has no class scores, which model selection needs: extract it with a "
            "classifier (batch-extract finetune), import scores (feature-cache import), or give --heads linear, "
            "which fits one on its features"
        )
    known = spec.classes or tuple(names)
    if not known:
        if spec.num_classes == len(classes):
            return np.arange(len(classes), dtype=np.int64)
        raise CacheError(
            f"stream {stream.name!r} has {spec.num_classes} class scores without names, and the labels have "
            f"{len(classes)} classes: say which is which with --classes FILE, a name for each column"
        )
    if len(known) != spec.num_classes:
        raise CacheError(
            f"--classes names {len(known)} columns, but stream {stream.name!r} has {spec.num_classes} class scores"
        )
    places = {name: place for place, name in enumerate(known)}
    missing = [name for name in classes if name not in places]
    if missing:
        named = ", ".join(map(repr, missing[:3])) + (", …" if len(missing) > 3 else "")
        raise CacheError(
            f"stream {stream.name!r} has no class scores for {len(missing)} of the {len(classes)} classes of the "
            f"labels: {named}; its own are {', '.join(map(repr, known[:3]))}, …"
        )
    return np.array([places[name] for name in classes], np.int64)
