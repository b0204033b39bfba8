"""A session: a trained policy on raw video. It says which rows it wants next, takes them, and predicts.

    session = open_session(folder)  # policy.deploy.session
    for video in videos:
        session.begin({name: spans_of(spec, video.duration_s) for name, spec in session.streams.items()})
        while (wanted := session.wanted()) is not None:
            session.take(*run_backbone(wanted.stream, video, wanted.spans_s))  # features and class scores
        print(session.probabilities, session.macs_by_name)

The caller decodes videos and runs backbones; one session per video lets it batch rows of several videos, and
`take_together` the policy's own steps.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache_schema import StreamSpec
from policy.config import RunConfig
from policy.evaluation.detection import Detections

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Rows = Tensor | npt.NDArray[np.floating[Any]]
AnySession = TypeVar("AnySession", bound="Session")


@dataclass(frozen=True, eq=False)
class Wanted:
    """Rows that a session needs before it can go on.

    Attributes:
        stream: name of the stream whose backbone is to run.
        rows: (n,), n ≥ 1, increasing: positions in the stream's spans that `begin` got.
        spans_s: (n, 2), first and last second that each of them covers.
    """

    stream: str
    rows: IntArray
    spans_s: FloatArray


@dataclass(frozen=True, eq=False)
class Graph:
    """A network of a policy, for runtimes that have nothing of ours.

    Attributes:
        inputs: example of each input by its name, which is that of an argument of the module's `forward`.
        outputs: their names.
        facts: what else one must know to use it, for JSON.
        rows: whether the first axis of all inputs may have any length.
        row_outputs: whether the outputs have that axis, too.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    facts: Mapping[str, object]
    rows: bool = False
    row_outputs: bool = False


def side_by_side(streams: Iterable[StreamSpec]) -> dict[str, object]:
    """What one must know of an input "features" of rows of several streams."""
    return {
        "streams": [stream.name for stream in streams],
        "features": "of the streams side by side, in this order, as the backbones give them",
    }


class Session(ABC):
    """One video at a time. After `begin`: `wanted` and `take` in turn, until nothing is wanted.

    Attributes:
        streams: by name, the streams of which it may want rows.
        classes: names of the C classes.
        video_id: of the video that it has begun.
    """

    def __init__(self, streams: Mapping[str, StreamSpec], classes: tuple[str, ...]) -> None:
        self.streams, self.classes = streams, classes
        self.video_id = ""
        self._spans_s: Mapping[str, FloatArray] = {}

    def begin(self, spans_s: Mapping[str, FloatArray], *, video_id: str = "") -> None:
        """Drop the last video and begin another.

        Args:
            spans_s: for each of the streams (T, 2), T ≥ 1: first and last second of each row.
            video_id: its id in a cache, from which a policy draws that decides at random.

        Raises:
            ValueError: a stream is missing, its spans are of another shape, or T is not what the policy needs.
        """
        for name in self.streams:
            shape = np.shape(spans_s.get(name, ()))
            if len(shape) != 2 or shape[0] < 1 or shape[1] != 2:
                raise ValueError(f"spans of {name}: of shape {shape}, not (T, 2) with T at least 1")
        self._spans_s = {name: np.asarray(spans_s[name], np.float64) for name in self.streams}
        self.video_id = video_id
        self._restart()

    def another(self: AnySession) -> AnySession:
        """A session for another video at the same time, with the same networks. It has not begun."""
        networks = {id(value): value for value in vars(self).values() if isinstance(value, nn.Module)}
        session = copy.deepcopy(self, networks)  # which holds for copied what stands there by its id
        session._spans_s = {}
        return session

    @abstractmethod
    def _restart(self) -> None:
        """Drop the state of the last video; the spans are those of the next."""

    @abstractmethod
    def wanted(self) -> Wanted | None:
        """The rows to take next, the same until they are taken. None: the video is done, or none has begun."""

    def take(self, features: Rows | None = None, scores: Rows | None = None) -> None:
        """Take the wanted rows, in order: all of them, or the first m.

        Args:
            features: (m, D), as the backbone gives them, not normalised.
            scores: (m, C'), class logits of all classes of the stream. Either may be left out if the policy does
                not look at it.

        Raises:
            ValueError: nothing is wanted, rows are of another shape or not finite, or something that the policy
                looks at is left out. The session does not change then.
        """
        self._take(features, scores)
        self._advance((self,))

    @classmethod
    def take_together(
        cls: type[AnySession],
        sessions: Sequence[AnySession],
        rows: Sequence[tuple[Rows | None, Rows | None]],
    ) -> list[ValueError | None]:
        """`take` of several videos, whose steps are computed together where that is quicker.

        Args:
            sessions: of one policy, made by `another`.
            rows: for each its features and its class scores.

        Returns:
            For each the error that `take` raises; None where the rows were taken.
        """
        errors: list[ValueError | None] = []
        for session, (features, scores) in zip(sessions, rows, strict=True):
            try:
                session._take(features, scores)
            except ValueError as error:
                errors.append(error)
            else:
                errors.append(None)
        taken = [session for session, error in zip(sessions, errors, strict=True) if error is None]
        if taken:
            cls._advance(taken)
        return errors

    def _take(self, features: Rows | None, scores: Rows | None) -> None:
        wanted = self.wanted()
        if wanted is None:
            raise ValueError("no rows are wanted: the video is done, or none has begun")
        spec, parts = self.streams[wanted.stream], {"features": features, "class scores": scores}
        counts = {rows.shape[0] if rows.ndim == 2 else 0 for rows in parts.values() if rows is not None}
        count = counts.pop() if len(counts) == 1 else 0
        if not 1 <= count <= len(wanted.rows):
            raise ValueError(
                f"{wanted.stream}: give from 1 to {len(wanted.rows)} rows, as many of features as of scores"
            )
        checked = [
            None if rows is None else checked_rows(rows, (count, width), f"{what} of {wanted.stream}")
            for (what, rows), width in zip(parts.items(), (spec.feature_dim, spec.num_classes), strict=True)
        ]
        self._see(wanted.stream, *checked)

    @abstractmethod
    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        """`take` of rows that are known to be wanted, of the right shape and finite."""

    @classmethod  # noqa: B027  # most have nothing to do
    def _advance(cls: type[AnySession], sessions: Sequence[AnySession]) -> None:
        """What videos, at least one, compute when they have taken rows, and may compute together.

        Nothing by default, for sessions that do all in `_see`.
        """

    @property
    @abstractmethod
    def probabilities(self) -> Tensor:
        """(C,): of the classes, from what was taken so far."""

    @property
    def answer(self) -> dict[str, float]:
        """The probability of each class, the most likely first."""
        ranked = self.probabilities.sort(descending=True, stable=True)
        return {
            self.classes[number]: chance
            for number, chance in zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        }

    @property
    @abstractmethod
    def macs_by_name(self) -> Mapping[str, int]:
        """Multiply-accumulates (MACs) so far, with one prediction, by the name of the stream or of the policy's
        network, which has a space in it."""

    @property
    def macs(self) -> int:
        """Their sum."""
        return sum(self.macs_by_name.values())

    @property
    def operating_value(self) -> Tensor | None:
        """The threshold, price or number of rows that it decides by, to be changed in place; None where there is
        none. Sessions for other videos may have the same."""
        return None

    def resume(self) -> None:  # noqa: B027  # most see by themselves that there is more to do
        """Go on with a video that was done, after a change of `operating_value` that computes more of it.

        Only of a method that `is_incremental`.
        """

    def graphs(self) -> Sequence[Graph]:
        """The policy's networks for other runtimes; none where nobody has written them."""
        return ()

    def _need(self, stream: str, what: str, rows: Tensor | None) -> Tensor:
        """The rows. Raises ValueError where they were left out."""
        if rows is None:
            raise ValueError(f"this policy looks at {what} of {stream}: give them")
        return rows


@runtime_checkable
class Localizer(Protocol):
    """A session that finds segments, too."""

    @property
    def detections(self) -> Detections:
        """What was found so far; the video is number 0."""


class AlignedSession(Session):
    """A session whose streams all have as many rows of a video, at the same instants."""

    def begin(self, spans_s: Mapping[str, FloatArray], *, video_id: str = "") -> None:
        """As any session does. Raises ValueError, too, where streams have other numbers of rows."""
        check_lengths(self.streams, spans_s)
        super().begin(spans_s, video_id=video_id)


def check_lengths(streams: Iterable[str], spans_s: Mapping[str, FloatArray]) -> None:
    """Raises ValueError where a video has more rows in one of the streams than in another."""
    lengths = {name: len(spans_s[name]) for name in streams if name in spans_s}
    if len(set(lengths.values())) > 1:
        found = " and ".join(f"{length} of {name}" for name, length in lengths.items())
        raise ValueError(f"a video has as many rows in each of the streams, not {found}")


def checked_rows(rows: Rows, shape: tuple[int, ...], what: str, place: str = "") -> Tensor:
    """The rows as a tensor.

    Raises:
        ValueError: they are of another shape or not finite; `place` ends the message on the latter.
    """
    if tuple(rows.shape) != shape:
        raise ValueError(f"{what} have shape {tuple(rows.shape)}, not {shape}")
    # A copy, because torch has no read-only tensors for slices of the cache.
    tensor = rows.detach() if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows))
    if not tensor.isfinite().all():
        raise ValueError(f"{what}{place} are not finite")
    return tensor


@dataclass(frozen=True)
class TrainedRun:
    """What a session needs of a finished run's folder; neither the cache nor the labels are needed.

    Attributes:
        weights: the file of the model's parameters and buffers.
        streams: by role.
        pool: by name, the streams from which it chooses, the cheapest first.
        tensors: further tensors that its method keeps for sessions (`Method.session_tensors`).
    """

    weights: Path
    config: RunConfig
    streams: Mapping[str, StreamSpec]
    pool: Mapping[str, StreamSpec]
    tensors: Mapping[str, Tensor]
    classes: tuple[str, ...]
    multi_label: bool
