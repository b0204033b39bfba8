"""A session: a trained policy at work on raw video. It says which rows it wants next, takes them, and answers.

    session = open_session(folder)  # policy.deploy.session
    for video in videos:
        session.begin({name: spans_of(spec, video.duration_s) for name, spec in session.streams.items()})
        while (wanted := session.wanted()) is not None:
            session.take(*run_backbone(wanted.stream, video, wanted.spans_s))  # features and class scores
        print(session.probabilities, session.macs_by_name)

Whoever drives it decodes videos and runs backbones, of as many videos together as there are sessions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache_schema import StreamSpec
from policy.config import RunConfig

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Rows = Tensor | npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Wanted:
    """Rows that a session needs before it can go on.

    Attributes:
        stream: whose backbone is to run.
        rows: (n,), n ≥ 1, increasing: places in the spans of the stream with which the video began.
        spans_s: (n, 2), first and last second that each of them sees.
    """

    stream: str
    rows: IntArray
    spans_s: FloatArray


class Session(ABC):
    """One video at a time. After `begin`: `wanted` and `take` in turn, until nothing is wanted.

    Attributes:
        streams: by name, those of which it may want rows.
        classes: names of the C classes.
    """

    def __init__(self, streams: Mapping[str, StreamSpec], classes: tuple[str, ...]) -> None:
        self.streams, self.classes = streams, classes
        self._spans_s: Mapping[str, FloatArray] = {}

    def begin(self, spans_s: Mapping[str, FloatArray]) -> None:
        """Forget the video before and begin another.

        Args:
            spans_s: for each of the streams (T, 2), T ≥ 1: first and last second that each row of the video sees.

        Raises:
            ValueError: a stream is missing, its spans are of another shape, or T is not what the policy needs.
        """
        for name in self.streams:
            shape = np.shape(spans_s.get(name, ()))
            if len(shape) != 2 or shape[0] < 1 or shape[1] != 2:
                raise ValueError(f"spans of {name}: of shape {shape}, not (T, 2) with T at least 1")
        self._spans_s = {name: np.asarray(spans_s[name], np.float64) for name in self.streams}
        self._restart()

    @abstractmethod
    def _restart(self) -> None:
        """Forget the video before; the spans are those of the next."""

    @abstractmethod
    def wanted(self) -> Wanted | None:
        """The rows to be taken next, the same until they are. None: the video is done, or none has begun."""

    def take(self, features: Rows | None = None, scores: Rows | None = None) -> None:
        """Take the wanted rows, in order: all of them, or the first m.

        Args:
            features: (m, D), as the backbone gives them, not normalised.
            scores: (m, C'), class logits of all classes of the stream. What the policy does not look at may be
                left out.

        Raises:
            ValueError: nothing is wanted, these rows are not of that shape or not finite, or something that the
                policy looks at is left out. The session is as it was.
        """
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

    @property
    @abstractmethod
    def probabilities(self) -> Tensor:
        """(C,): of the classes, from what was taken so far."""

    @property
    @abstractmethod
    def macs_by_name(self) -> Mapping[str, int]:
        """Multiply-accumulates (MACs) so far, with one answer, by the name of the stream or of the policy's own
        network, which has a space in it."""

    @property
    def macs(self) -> int:
        """All that was spent."""
        return sum(self.macs_by_name.values())

    def _need(self, stream: str, what: str, rows: Tensor | None) -> Tensor:
        """Raises ValueError where rows that the policy looks at were left out."""
        if rows is None:
            raise ValueError(f"this policy looks at {what} of {stream}: give them")
        return rows


def checked_rows(rows: Rows, shape: tuple[int, ...], what: str, place: str = "") -> Tensor:
    """The same as a tensor.

    Raises:
        ValueError: they are of another shape or not finite; `place` says where they belong.
    """
    if tuple(rows.shape) != shape:
        raise ValueError(f"{what} have shape {tuple(rows.shape)}, not {shape}")
    # A copy, for a slice of the cache is read-only, which torch cannot express.
    tensor = rows.detach() if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows))
    if not tensor.isfinite().all():
        raise ValueError(f"{what}{place} are not finite")
    return tensor


@dataclass(frozen=True)
class TrainedRun:
    """What a finished run's folder holds for a session: neither the cache nor the labels are needed.

    Attributes:
        weights: the file of the model's parameters and buffers.
        streams: by role.
        pool: by name, the streams from which it chooses, the cheapest first.
        tensors: what else its method keeps for sessions (`Method.session_tensors`).
    """

    weights: Path
    config: RunConfig
    streams: Mapping[str, StreamSpec]
    pool: Mapping[str, StreamSpec]
    tensors: Mapping[str, Tensor]
    classes: tuple[str, ...]
    multi_label: bool


__all__ = ["Rows", "Session", "TrainedRun", "Wanted", "checked_rows"]
