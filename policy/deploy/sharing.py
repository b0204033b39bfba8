"""A policy on raw video whose videos share a budget: each goes on as long as that promises enough."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from cache_schema.costs import stream_cost
from policy.evaluation.collection import Sharing, looks
from policy.method import moved
from policy.session import FloatArray, Rows, Session, Wanted

_Row = tuple[Tensor | None, Tensor | None]
"""Features and class scores of one row."""


class SharedSession(Session):
    """The session of a policy at an operating point and, where its answer promises it, at dearer ones.

    A policy whose points go on from each other goes on. Another is begun again at the point that was chosen; rows
    that are there already are not computed again.

    Args:
        inner: of the policy.
    """

    def __init__(self, inner: Session, sharing: Sharing) -> None:
        super().__init__(inner.streams, inner.classes)
        self._inner, self._sharing = inner, sharing
        self._restart()

    def begin(self, spans_s: Mapping[str, FloatArray], *, video_id: str = "") -> None:
        """As the policy's own session does, with its errors."""
        self._point = self._sharing.rule.start
        with self._deciding():
            self._inner.begin(spans_s, video_id=video_id)
        super().begin(spans_s, video_id=video_id)
        self._go_on()

    def another(self) -> SharedSession:
        session = copy.copy(self)
        session._inner = self._inner.another()
        session._spans_s = {}
        session._restart()
        return session

    def _restart(self) -> None:
        self._point = self._sharing.rule.start
        self._ended = not self._spans_s
        # Of a policy that is begun again: what is there from before.
        self._rows: dict[str, dict[int, _Row]] = {name: {} for name in self.streams}
        self._earlier_macs: Counter[str] = Counter()
        self._earlier_answer: Tensor | None = None

    def wanted(self) -> Wanted | None:
        with self._deciding():
            wanted = None if self._ended else self._inner.wanted()
        if wanted is None or self._sharing.rule.further:
            return wanted
        known = [row in self._rows[wanted.stream] for row in wanted.rows.tolist()]
        new = slice(known.index(True) if True in known else None)  # the first is not known: `_go_on`
        return Wanted(wanted.stream, wanted.rows[new], wanted.spans_s[new])

    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        with self._deciding():
            wanted = self._inner.wanted()
            assert wanted is not None
            self._inner._see(stream, features, scores)
        if not self._sharing.rule.further:
            count = len(features if features is not None else scores if scores is not None else ())
            for place, row in enumerate(wanted.rows[:count].tolist()):
                one = slice(place, place + 1)
                self._rows[stream][row] = (
                    None if features is None else features[one],
                    None if scores is None else scores[one],
                )

    @classmethod
    def _advance(cls, sessions: Sequence[SharedSession]) -> None:
        by_point: dict[int, list[SharedSession]] = {}
        for session in sessions:
            by_point.setdefault(session._point, []).append(session)
        for together in by_point.values():
            with together[0]._deciding():
                inner = [session._inner for session in together]
                type(inner[0])._advance(inner)
        for session in sessions:
            session._go_on()

    def _go_on(self) -> None:
        """Up to a row that is not there, or to the end."""
        while not self._ended:
            with self._deciding():
                wanted = self._inner.wanted()
                if wanted is not None:
                    known = self._known(wanted)
                    if not known:
                        return
                    features, scores = (_joined(parts) for parts in zip(*known, strict=True))
                    self._inner.take(features, scores)
                    continue
            self._to_next_point()

    def _known(self, wanted: Wanted) -> list[_Row]:
        """The first of the rows, up to one that is not there."""
        known = []
        for row in wanted.rows.tolist():
            if row not in self._rows[wanted.stream]:
                break
            known.append(self._rows[wanted.stream][row])
        return known

    def _to_next_point(self) -> None:
        further, start = self._sharing.rule.further, self._sharing.rule.start
        point = self._point if further or self._point == start else None
        if point is not None:
            looked = looks(self.probabilities[None].double().cpu().numpy())
            length = len(next(iter(self._spans_s.values())))
            point = self._next(looked[0], length)
        if point is None or point == self._point:
            self._ended = True
            return
        if further:
            self._point = point
            with self._deciding():
                self._inner.resume()
            return
        with self._deciding():
            networks = {
                name: macs for name, macs in self._inner.macs_by_name.items() if name not in self.streams
            }
            self._earlier_answer = self._inner.probabilities
        self._earlier_macs.update(networks)
        self._point = point
        with self._deciding():
            self._inner.begin(self._spans_s, video_id=self.video_id)

    def _next(self, looked: FloatArray, length: int) -> int | None:
        """The next point or, where the answer at the start decides, the last one."""
        point = self._sharing.next_point(self._point, looked, length)
        if self._sharing.rule.further:
            return point
        last = point
        while point is not None:
            last, point = point, self._sharing.next_point(point, looked, length)
        return last

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        """The policy's network decides as at the point where this video is; sessions of others share it."""
        value = self._inner.operating_value
        assert value is not None, "a policy that shares has values to decide by"
        with moved(value, self._sharing.values[self._point]):
            yield

    @property
    def probabilities(self) -> Tensor:
        """(C,): of the classes; while a policy is begun again, those from before."""
        if self._earlier_answer is not None and not self._ended:
            return self._earlier_answer
        with self._deciding():
            return self._inner.probabilities

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        with self._deciding():
            macs = Counter(self._inner.macs_by_name)
        if not self._sharing.rule.further:
            for name, rows in self._rows.items():
                macs[name] = len(rows) * stream_cost(self.streams[name]).macs
        macs.update(self._earlier_macs)
        return macs


def _joined(parts: Sequence[Tensor | None]) -> Rows | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None
