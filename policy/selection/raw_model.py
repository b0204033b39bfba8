"""A model of a pool on a video that is in no cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cache_schema import StreamSpec
from cache_schema.costs import stream_cost
from policy.data.batches import unit_length
from policy.networks.macs import linear_macs
from policy.networks.temperature import Calibration
from policy.selection.heads import mean_scores, row_logs
from policy.selection.linear_head import WholeHead
from policy.selection.pool import Floats, IntArray, ModelName


@dataclass(eq=False)
class RawModel:
    """A model on videos that are in no cache, and its prediction for the current one from the rows taken so far.

    Attributes:
        columns: of its class scores, that of each class; None: they are not looked at.
        calibration: of its class scores.
        head: gives class probabilities from its features instead, if anything does.
        sees_features: whether the mean of the features is looked at.
        l2: of rows brought to length 1.
        rows: those of the video that it looks at.
        count: how many of them were taken.
    """

    name: ModelName
    spec: StreamSpec
    columns: IntArray | None
    calibration: Calibration
    head: WholeHead | None
    sees_features: bool
    l2: bool
    multi_label: bool

    def begin(self, length: int) -> None:
        """Forget the video before; the next has `length` rows."""
        self.rows, self.count = self.name.rows_of(length, self.spec.sampling.crops), 0
        self._features = np.zeros(self.spec.feature_dim)  # sums over the rows
        # Sums of probabilities over the rows, as logarithms.
        self._logs = np.full(
            (1 + self.multi_label, 0 if self.columns is None else len(self.columns)), -np.inf
        )

    @property
    def left(self) -> IntArray:
        """Those of `rows` that are still to be taken."""
        return self.rows[self.count :]

    def add(self, features: Tensor | None, scores: Tensor | None) -> None:
        """The next rows. What the model does not look at may be None."""
        if self.sees_features and features is not None:
            rows = features.float().cpu().numpy()
            self._features += (unit_length(rows) if self.l2 else rows).sum(axis=0, dtype=np.float64)
        if self.columns is not None and scores is not None:
            each = row_logs(scores.float().cpu().numpy(), self.columns, self.multi_label)
            self._logs = np.logaddexp(self._logs, np.logaddexp.reduce(each, axis=0))
        self.count += max(len(part) for part in (features, scores) if part is not None)

    @property
    def features(self) -> Floats:
        """(D,): mean over the rows."""
        return np.asarray(self._features / self.count, np.float32)

    @property
    def probabilities(self) -> Floats | None:
        """(C,): mean over the rows, calibrated; with a linear head, its prediction from the mean features. None:
        neither class scores nor a head are looked at."""
        if self.head is not None:
            return np.asarray(self.head(self.features[None])[0])
        if self.columns is None:
            return None
        scores = mean_scores(self._logs[None].astype(np.float32), self.count)
        return np.asarray(self.calibration(scores)[0])

    @property
    def macs(self) -> int:
        """Of its backbone, and of its head or classifier, on the rows so far."""
        classifier = linear_macs(self.spec.feature_dim, self.spec.num_classes) * self.count
        if self.head is not None:
            classifier = self.head.macs * bool(self.count)
        return self.count * stream_cost(self.spec).macs + classifier
