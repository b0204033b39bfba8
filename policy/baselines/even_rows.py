"""Methods that look at K evenly spaced rows: once they are trained, K can be changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from cache_schema.costs import stream_cost
from policy.data.batches import VideoSet, uniform_rows
from policy.evaluation.ledger import charge
from policy.evaluation.operating import (
    Curve,
    OperatingPoint,
    OperatingTarget,
    TargetKind,
    doubled_up_to,
    most_rows,
    whole_rows,
)
from policy.method import Calibration, Method, evaluate, row_offsets


class EvenRows(Method):
    """K is the `frames` of its configuration; of a video that has fewer rows, all."""

    gated = "fine"
    operating_targets: ClassVar[tuple[TargetKind, ...]] = ("usage", "threshold", "budget")
    trained_for_cost = True

    config: Any

    def value_at(self, target: OperatingTarget, calibration: Calibration, device: torch.device) -> float:
        ((_, videos),) = calibration
        lengths = np.diff(row_offsets(videos))
        every = np.arange(1, lengths.max() + 1)
        looked_at = np.minimum(every[:, None], lengths)
        if target.kind == "usage":
            return most_rows(target, (looked_at / lengths).mean(1))
        costs = [(stream.name, stream_cost(stream.spec).macs) for stream in videos.streams.values()]
        ledgers = [
            charge([(name, rows, macs) for name, macs in costs], self.network_macs(rows, rows))
            for rows in looked_at
        ]
        return most_rows(target, np.array([ledger.total.mean() for ledger in ledgers]) / 1e9)

    @property
    def value_name(self) -> str:
        return "number of rows"

    def set_value(self, value: float, target: OperatingTarget) -> None:
        self.config = replace(self.config, frames=whole_rows(value, target))

    @property
    def has_values(self) -> bool:
        return True

    def at_values(self, values: Iterable[float], videos: VideoSet, *, device: torch.device) -> Curve:
        lengths, points = np.diff(row_offsets(videos)).tolist(), []
        for value in values:
            rows = [uniform_rows(length, int(value)) for length in lengths]
            points.append(OperatingPoint(value, evaluate(self, videos, device=device, rows=rows)))
        return Curve(self.title, tuple(points))

    def operating_curve(self, videos: VideoSet, calibration: VideoSet, *, device: torch.device) -> Curve:
        """On fewer rows than it was trained on, and on more: 1, 2, 4, … and all.

        Rows of a point are not among those of the next.
        """
        most = max(map(videos.length, range(len(videos))))
        return self.at_values(doubled_up_to(most), videos, device=device)
