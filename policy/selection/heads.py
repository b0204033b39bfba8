"""Class probabilities from a stream's class scores (:mod:`.linear_head` fits them on its features instead).

`--out-of-fold STREAM=OTHER[,OTHER…]` takes those of training videos from models that have not seen them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from cache_schema import CacheError, Stream, StreamSpec, UserError
from cache_schema.scores import kind_of
from policy.data.batches import RowChoice, VideoSet, batched
from policy.networks.macs import linear_macs
from policy.selection.pool import Floats, IntArray

_VIDEOS_AT_A_TIME = 128
_SAMPLED = 256
"""Videos whose scores are looked at to tell probabilities from logits."""


class Head(Protocol):
    """Class probabilities of videos, and what they cost beyond the backbone."""

    def macs(self, rows: IntArray) -> IntArray:
        """(M,) for M videos, by the number of rows (M,) that are looked at."""

    def probabilities(self, videos: VideoSet, which: Sequence[int], rows: RowChoice) -> Floats:
        """(m, C) of the videos at positions `which` of a set."""


@dataclass(frozen=True)
class ScoreHead:
    """The stream's class scores: a softmax or, with several classes per video, a sigmoid of the logits of the
    labels' classes alone (the 200 of Mini-Kinetics among Kinetics-400's), averaged over the rows.

    Attributes:
        columns: (C,), the column of the class scores for each class of the labels.
    """

    stream: Stream
    columns: IntArray

    def macs(self, rows: IntArray) -> IntArray:
        """Of the stream's whole classifier, on each row."""
        return rows * linear_macs(self.stream.spec.feature_dim, self.stream.spec.num_classes)

    def probabilities(self, videos: VideoSet, which: Sequence[int], rows: RowChoice) -> Floats:
        probabilities = np.empty((len(which), len(self.columns)), np.float32)
        start = 0
        for part in batched(which, _VIDEOS_AT_A_TIME):
            scores = [videos.scores_of(self.stream, video, rows) for video in part]
            each = row_probabilities(np.concatenate(scores), self.columns, videos.multi_label)
            counts = np.array([len(video) for video in scores])
            sums = np.add.reduceat(each, np.cumsum(counts) - counts)
            probabilities[start : start + len(part)] = sums / counts[:, None].astype(np.float32)
            start += len(part)
        return probabilities


def row_probabilities(scores: npt.NDArray[np.floating[Any]], columns: IntArray, multi_label: bool) -> Floats:
    """(N, C): of each row's class scores (N, C'), as `ScoreHead` has them."""
    logits = scores[:, columns].astype(np.float32)
    return np.asarray(expit(logits) if multi_label else softmax(logits, axis=1))


def score_head(stream: Stream, columns: IntArray, videos: VideoSet) -> ScoreHead:
    """The head of a stream with class scores.

    Args:
        columns: as `ScoreHead.columns`.
        videos: the scores of some of them are checked to be logits.

    Raises:
        CacheError: they are probabilities: between 0 and 1 throughout and adding up to 1 in each row or, with
            several classes per video, only the former.
    """
    sample = range(0, len(videos), -(-len(videos) // _SAMPLED))
    scores = [videos.scores_of(stream, video) for video in sample if videos.ids[video] in stream]
    kind = kind_of(np.concatenate(scores)) if scores and scores[0].shape[1] > 1 else "logits"
    if kind == "softmax" or (kind == "sigmoid" and videos.multi_label):
        how = ", adding up to 1 in each row" if kind == "softmax" else ""
        raise CacheError(
            f"stream {stream.name!r}: its class scores are probabilities (from 0 to 1{how}), where logits are "
            f"expected: import them again with feature-cache import --kind {kind}"
        )
    return ScoreHead(stream, columns)


def score_columns(spec: StreamSpec, classes: Sequence[str], names: Sequence[str] = ()) -> IntArray:
    """(C,): the column of a stream's class scores for each class of the labels.

    Args:
        names: of the columns, for a stream without; where neither has names, and there are as many columns as
            classes, they are taken to be in sorted order, as the classes are.

    Raises:
        UserError: the stream has no class scores, or not for all classes.
    """
    if not spec.num_classes:
        raise CacheError(
            f"stream {spec.name!r} has no class scores, which model selection needs: extract it with a "
            "classifier (finetune-backbone makes one), import scores (feature-cache import), or give --heads "
            "linear, which fits one on its features"
        )
    names = spec.classes or tuple(names)
    if not names:
        if spec.num_classes == len(classes):
            return np.arange(len(classes), dtype=np.int64)
        raise CacheError(
            f"stream {spec.name!r} has {spec.num_classes} class scores without names, and the labels have "
            f"{len(classes)} classes: say which is which with --classes FILE, a name for each column"
        )
    if len(names) != spec.num_classes:
        raise UserError(
            f"--classes names {len(names)} columns, but stream {spec.name!r} has {spec.num_classes} class scores"
        )
    places = {name: place for place, name in enumerate(names)}
    missing = [name for name in classes if name not in places]
    if missing:
        raise CacheError(
            f"stream {spec.name!r} has no class scores for {len(missing)} of the {len(classes)} classes of the "
            f"labels: {_some(missing)}; its own are {_some(names)}"
        )
    return np.array([places[name] for name in classes], np.int64)


def _some(names: Sequence[str]) -> str:
    """The first three."""
    return ", ".join(map(repr, names[:3])) + (", …" if len(names) > 3 else "")


# --- out of fold ---


def parse_held_out(texts: Sequence[str], streams: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By stream of the pool, the streams that hold its scores of training videos.

    Args:
        streams: of the pool.

    Raises:
        UserError: a text is not STREAM=OTHER[,OTHER…], names a stream that is not in the pool, or one twice.
    """
    held_out: dict[str, tuple[str, ...]] = {}
    for text in texts:
        stream, equals, others = text.partition("=")
        names = tuple(others.split(","))
        if not stream or not equals or not all(names):
            raise UserError(
                f"out-of-fold {text!r}: give STREAM=OTHER[,OTHER…], with training videos in each OTHER that its "
                "model has not seen"
            )
        if stream not in streams:
            raise UserError(f"out-of-fold {text!r}: {stream!r} is no model of the pool: {', '.join(streams)}")
        if stream in held_out:
            raise UserError(f"out-of-fold is given twice for {stream!r}; separate streams by commas")
        if len(set(names)) < len(names) or stream in names:
            raise UserError(f"out-of-fold {text!r}: a stream occurs twice")
        held_out[stream] = names
    return held_out


@dataclass(frozen=True)
class HeldOutHead:
    """Judges training videos by the first of other streams that holds them, all other videos by the stream itself.

    Attributes:
        heads: of the stream itself, then of the others.
        source: by id of a training video, its place in `heads`.
    """

    heads: tuple[ScoreHead, ...]
    source: Mapping[str, int]

    def macs(self, rows: IntArray) -> IntArray:
        """Of the stream's own classifier."""
        return self.heads[0].macs(rows)

    def probabilities(self, videos: VideoSet, which: Sequence[int], rows: RowChoice) -> Floats:
        probabilities = np.empty((len(which), len(self.heads[0].columns)), np.float32)
        source = np.array([self.source.get(videos.ids[video], 0) for video in which], np.int64)
        for place in np.unique(source):
            part = np.asarray(which)[source == place].tolist()
            probabilities[source == place] = self.heads[place].probabilities(videos, part, rows)
        return probabilities


def held_out_head(
    head: ScoreHead, others: Sequence[ScoreHead], train: VideoSet, more: Sequence[str] = ()
) -> HeldOutHead:
    """The head of a stream and of those with its scores of training videos.

    Args:
        more: ids of further videos that are judged by the others.

    Raises:
        UserError: one of these videos is in none of the others.
    """
    places = {
        video: next((place for place, other in enumerate(others, 1) if video in other.stream), 0)
        for video in (*train.ids, *more)
    }
    missing = [video for video, place in places.items() if not place]
    if missing:
        names = ",".join(other.stream.name for other in others)
        rest = f", nor are {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise UserError(
            f"out-of-fold {head.stream.name}={names}: video {missing[0]!r} of subset {train.subset!r} is in none "
            f"of these{rest}; each training video needs the scores of a model that has not seen it"
        )
    return HeldOutHead((head, *others), places)
