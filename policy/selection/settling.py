"""`--decisions auto`: regressions or a perceptron, whichever has the larger area on videos that are held out.

Both are compared by what they do for training videos that were not among their examples. Gradient-boosted trees
are no candidate: in `benchmarks.selection_real`, which fits them, they are nowhere better by more than chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policy.selection.area import FEWEST_RESAMPLES, compare
from policy.selection.controls import single_models
from policy.selection.curve import SelectionCurve
from policy.selection.pool import BoolArray, IntArray, PoolTable

FEWEST_OF_A_CLASS = 100
"""Training videos of each class, on average. With fewer the perceptron learns them by heart, and is not tried."""
MOST_COMPARED = 4000
"""Training videos on which the two are compared: enough to tell them apart, and a few minutes at most."""
PARTS = 5
"""Of these videos, each held out once."""
POINTS_OF_A_PART = 10
"""Prices, found on each part of the videos, at which curves are drawn."""
REGRESSIONS: Mapping[str, Any] = {"decisions": "logistic"}
_ERRORS = 2 * 1.96
"""Standard errors in a 95 % interval."""


@dataclass(frozen=True)
class JoinedCurve(SelectionCurve):
    """A curve of videos in parts, for each of which another method decides, at the same prices."""

    macs: IntArray = field(kw_only=True)
    correct: BoolArray = field(kw_only=True)

    @staticmethod
    def of(table: PoolTable, parts: Sequence[SelectionCurve]) -> JoinedCurve:
        """Args:
        table: of all videos.
        """
        ids = [video for part in parts for video in part.table.video_ids]
        places = {video: place for place, video in enumerate(ids)}
        order = [places[video] for video in table.video_ids]
        ran, answering, macs, correct = (
            np.concatenate(of_parts, axis=1)[:, order]
            for of_parts in zip(*((c.ran, c.answering, c.macs, c.correct) for c in parts), strict=True)
        )
        nothing = np.zeros(len(table), np.int64)
        first = parts[0]
        return JoinedCurve(
            first.name, table, first.values, ran, answering, nothing, macs=macs, correct=correct
        )


def too_few(videos: int, classes: int) -> str:
    """Why the perceptron is not tried on so many training videos; empty where it is."""
    if videos >= FEWEST_OF_A_CLASS * classes:
        return ""
    return f"for a perceptron {videos:,} training videos of {classes} classes are too few"


def better(regressions: SelectionCurve, perceptron: SelectionCurve) -> tuple[str, Mapping[str, Any]]:
    """The better one, "perceptron" or "logistic", and figures for JSON: points of HIT@1, means over budgets.

    The larger area decides, however small the lead: the perceptron, which has been trained on fewer videos than it
    would be, is at a disadvantage already. Equal ones are the regressions.

    Args:
        regressions, perceptron: what they do for videos that are held out, on one table.
    """
    curves = {"logistic": regressions, "perceptron": perceptron, "random": single_models(regressions.table)}
    compared = compare(curves, resamples=FEWEST_RESAMPLES)
    lead = compared.area_above("perceptron", "logistic")
    areas = {name: compared.area_above(name, "random") for name in ("logistic", "perceptron")}
    if lead is None:  # all models cost the same
        return "logistic", {}
    error = (lead.high - lead.low) / _ERRORS
    figures = {
        "videos": len(regressions.table),
        "above_random": {name: 100 * area.value for name, area in areas.items() if area is not None},
        "lead_of_perceptron": 100 * lead.value,
        "standard_error": 100 * error,
    }
    return ("perceptron" if lead.value > 0 else "logistic"), figures
