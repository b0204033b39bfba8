"""Class probabilities from a stream's class scores (:mod:`.linear_head` fits them on its features instead).

`--out-of-fold STREAM=OTHER[,OTHER…]` takes those of training videos from models that have not seen them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit, log_softmax, logsumexp

from cache_schema import CacheError, Stream, StreamSpec, UserError
from cache_schema.command import count
from cache_schema.names import some
from cache_schema.scores import kind_of
from policy.data.batches import RowChoice, VideoSet, batched
from policy.networks.macs import linear_macs
from policy.networks.temperature import Calibration, calibration_sample
from policy.selection.pool import Floats, IntArray

_VIDEOS_AT_A_TIME = 128
_SUMS_TO_ONE = 0.02
_OTHER_CLASSES = "--heads linear fits a classifier of the labels' classes on its features"
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
    """The stream's class scores of the labels' classes alone (the 200 of Mini-Kinetics among Kinetics-400's).

    A softmax or, with several classes per video, a sigmoid of each row's logits is averaged over the rows; in
    logarithms, for sums of logits over frames are probabilities of exactly 0 and 1 to float32, and yet in order.

    Attributes:
        columns: (C,), the column of the class scores for each class of the labels.
    """

    stream: Stream
    columns: IntArray

    def macs(self, rows: IntArray) -> IntArray:
        """Of the stream's whole classifier, on each row."""
        return rows * linear_macs(self.stream.spec.feature_dim, self.stream.spec.num_classes)

    def scores(self, videos: VideoSet, which: Sequence[int], rows: RowChoice) -> Floats:
        """(m, C): logarithms of the mean probabilities or, with several classes per video, their log-odds."""
        means = np.empty((len(which), len(self.columns)), np.float32)
        start = 0
        for part in batched(which, _VIDEOS_AT_A_TIME):
            of_rows = [videos.scores_of(self.stream, video, rows) for video in part]
            each = row_logs(np.concatenate(of_rows), self.columns, videos.multi_label)
            counts = np.array([len(video) for video in of_rows])
            sums = np.logaddexp.reduceat(each, np.cumsum(counts) - counts)
            means[start : start + len(part)] = mean_scores(sums, counts[:, None])
            start += len(part)
        return means


def row_logs(scores: npt.NDArray[np.floating[Any]], columns: IntArray, multi_label: bool) -> Floats:
    """(N, 1, C): log-probabilities of the classes, from each row's class scores (N, C'). With several classes per
    video (N, 2, C), of having each and of not having it."""
    logits = scores[:, columns].astype(np.float32)
    if multi_label:
        return np.asarray(np.stack([log_expit(logits), log_expit(-logits)], axis=1))
    return np.asarray(log_softmax(logits, axis=1)[:, None])


def mean_scores(sums: Floats, counts: IntArray | int) -> Floats:
    """(…, C): as `ScoreHead.scores` has them.

    Args:
        sums: (…, 1 or 2, C), `row_logs` of some rows, summed as probabilities.
        counts: of rows.
    """
    if sums.shape[-2] == 1:
        return np.asarray(sums[..., 0, :] - np.log(counts).astype(np.float32))
    return np.asarray(sums[..., 0, :] - sums[..., 1, :])


@dataclass(frozen=True)
class CalibratedHead:
    """A stream's class scores, on the scale that all models of a pool share.

    Attributes:
        kind: what the class scores look like; empty where they were not calibrated.
        saturated: share of the training videos whose best class has a probability of exactly 1 to float32, without
            the calibration.
    """

    head: ScoreHead | HeldOutHead
    calibration: Calibration
    kind: str = ""
    saturated: float = 0.0

    def macs(self, rows: IntArray) -> IntArray:
        return self.head.macs(rows)

    def probabilities(self, videos: VideoSet, which: Sequence[int], rows: RowChoice) -> Floats:
        return self.calibration(self.head.scores(videos, which, rows))


def calibrated_head(head: ScoreHead | HeldOutHead, videos: VideoSet, rows: RowChoice) -> CalibratedHead:
    """With the temperature (for several classes per video: slope and shift) that makes the classes of the training
    videos most likely. It is one number, or two: fitted without a fold of the videos it would be the same."""
    targets = videos.trained_labels
    sample = calibration_sample(targets)
    scores = head.scores(videos, sample.tolist(), rows)
    plain = Calibration(1.0, 0.0, videos.multi_label)
    saturated = float((plain(scores).max(axis=1) == 1).mean())
    calibration = Calibration.fit(scores, targets[sample], videos.multi_label)
    stream = head.heads[0].stream if isinstance(head, HeldOutHead) else head.stream
    return CalibratedHead(head, calibration, _kind(stream, videos), saturated)


def _kind(stream: Stream, videos: VideoSet) -> str:
    """What a stream's class scores are: logits, or log-probabilities, whose exponentials add up to 1."""
    video = next((v for v in range(len(videos)) if videos.ids[v] in stream), None)
    if video is None or videos.multi_label:
        return "logits"
    sums = logsumexp(videos.scores_of(stream, video).astype(np.float64), axis=1)
    return "log-probabilities" if np.abs(sums).max() < _SUMS_TO_ONE else "logits"


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
            f"{len(classes)} classes: if these are among them, say which is which with --classes FILE, a name for "
            f"each column; if not, {_OTHER_CLASSES}"
        )
    if len(names) != spec.num_classes:
        raise UserError(
            f"--classes names {count(len(names), 'columns')}, but stream {spec.name!r} has "
            f"{count(spec.num_classes, 'class scores')}"
        )
    places = {name: place for place, name in enumerate(names)}
    missing = [name for name in classes if name not in places]
    if missing:
        raise CacheError(
            f"stream {spec.name!r} has no class scores for {len(missing)} of the {len(classes)} classes of the "
            f"labels: {some(missing)}; it has {some(names)}: {_OTHER_CLASSES}"
        )
    return np.array([places[name] for name in classes], np.int64)


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

    def scores(self, videos: VideoSet, which: Sequence[int], rows: RowChoice) -> Floats:
        """As `ScoreHead.scores`."""
        scores = np.empty((len(which), len(self.heads[0].columns)), np.float32)
        source = np.array([self.source.get(videos.ids[video], 0) for video in which], np.int64)
        for place in np.unique(source):
            part = np.asarray(which)[source == place].tolist()
            scores[source == place] = self.heads[place].scores(videos, part, rows)
        return scores


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
