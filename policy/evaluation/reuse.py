"""What a dearer operating point of a policy need not compute again where a cheaper one was computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from policy.evaluation.ledger import Ledger
from policy.evaluation.predictions import Predictions

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reuse:
    """Where a dearer point does not go on from the cheaper one, it is computed beside it: networks again, and of
    streams the rows that are not there yet. Predictions are of one draw each.

    Attributes:
        incremental: a dearer point contains the cheaper (`Method.is_incremental`).
        gated: the stream whose backbone ran where gates are open, if there is one; of others `Predictions.ran`
            says where.
    """

    incremental: bool
    gated: str | None = None

    def macs(self, there: Predictions, more: Predictions) -> dict[str, IntArray]:
        """(M,) by name: what it takes to go from one point to a dearer one."""
        extra = {}
        for name, spent in more.ledger.items():
            macs, before = spent[0], there.ledger.get(name, np.zeros_like(spent))[0]
            ran, ran_before = self._rows(more, name), self._rows(there, name)
            if self.incremental:
                macs = np.maximum(macs - before, 0)
            elif ran is not None and ran_before is not None:
                rows, new = (
                    np.add.reduceat(each.astype(np.int64), more.offsets[:-1])
                    for each in (ran, ran & ~ran_before)
                )
                macs = macs // np.maximum(rows, 1) * new
            extra[name] = macs
        return extra

    def _rows(self, point: Predictions, stream: str) -> npt.NDArray[np.bool_] | None:
        """(N,): on which rows a stream's backbone ran; None of a network."""
        if stream == self.gated:
            return np.asarray(point.gates[0] > 0)
        ran = point.ran.get(stream)
        return None if ran is None else ran[0]

    def extra_gflops(self, points: Sequence[Predictions]) -> FloatArray:
        """(P, P, M): what it costs to go from one point to a dearer one."""
        return np.array([[sum(self.macs(a, b).values()) for b in points] for a in points], np.float64) / 1e9

    def answered(self, points: Sequence[Predictions], start: int, ends: IntArray) -> Predictions:
        """Each video as the point says at which it ends, with all that was computed on the way from the start.

        Args:
            ends: (M,), numbers of points.
        """
        first, videos = points[start], np.arange(len(ends))
        row_ends, rows = np.repeat(ends, first.lengths), np.arange(int(first.offsets[-1]))
        gates = np.stack([point.gates[0] for point in points])[row_ends, rows]
        macs = {}
        further = [self.macs(first, point) for point in points]
        for name, spent in first.ledger.items():
            added = np.stack([each[name] for each in further])[ends, videos]
            macs[name] = (spent[0] + np.where(ends > start, added, 0))[None]
        return replace(
            first,
            scores=np.stack([point.scores[0] for point in points])[ends, videos][None],
            gates=(gates if self.incremental else gates | first.gates[0])[None],
            row_counts=np.stack([point.row_counts for point in points])[ends, videos],
            ledger=Ledger(macs),
            ran={},
        )
