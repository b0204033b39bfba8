"""`--out-of-fold STREAM=OTHER[,OTHER…]`: class scores of training videos from models that have not seen them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache_schema import UserError
from policy.data.batches import RowChoice, VideoSet
from policy.selection.heads import ScoreHead

IntArray = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def parse_held_out(texts: Sequence[str], streams: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By stream of the pool, those with its scores of training videos.

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
    """Judges training videos by the first of other streams that holds them, all others by its own.

    Attributes:
        source: by id of a training video, its place in `others`.
    """

    own: ScoreHead
    others: tuple[ScoreHead, ...]
    source: Mapping[str, int]

    def macs(self, rows: IntArray) -> IntArray:
        """Of its own classifier."""
        return self.own.macs(rows)

    def probabilities(self, videos: VideoSet, which: Sequence[int], rows: RowChoice) -> Floats:
        said = np.empty((len(which), len(self.own.columns)), np.float32)
        positions = np.asarray(which)
        source = np.array([self.source.get(videos.ids[video], -1) for video in which], np.int64)
        for place in np.unique(source):
            head = self.own if place < 0 else self.others[place]
            mine = source == place
            said[mine] = head.probabilities(videos, positions[mine].tolist(), rows)
        return said


def held_out_head(own: ScoreHead, others: Sequence[ScoreHead], train: VideoSet) -> HeldOutHead:
    """Raises UserError where a training video is in none of the others."""
    source: dict[str, int] = {}
    missing = []
    for video in train.ids:
        place = next((place for place, head in enumerate(others) if video in head.stream), None)
        if place is None:
            missing.append(video)
        else:
            source[video] = place
    if missing:
        names = ",".join(head.stream.name for head in others)
        more = f", nor are {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise UserError(
            f"out-of-fold {own.stream.name}={names}: video {missing[0]!r} of subset {train.subset!r} is in none "
            f"of these{more}; each training video needs the scores of a model that has not seen it"
        )
    return HeldOutHead(own, tuple(others), source)
