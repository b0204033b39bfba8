"""Rows as columns with names, as CSV and parquet have them: what the names mean, and digits that are exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cache_schema.schema import Array, StreamSpec

What = Literal["features", "scores"]

ID, NUMBER = "video_id", "row"
SECONDS = ("start_s", "end_s")
"""First and last second that a row saw; empty where that is not known."""
_PREFIX = {"features": "feature_", "scores": "score_"}


def column_names(spec: StreamSpec, what: What) -> tuple[str, ...]:
    """The classes' names, or feature_0, feature_1, …; score_0, … where classes have no names."""
    if what == "scores" and spec.classes is not None:
        return spec.classes
    count = spec.feature_dim if what == "features" else spec.num_classes
    return _numbered(what, count)


def meaning(names: Sequence[str], wanted: What | None) -> tuple[What, tuple[str, ...] | None]:
    """What columns of these names hold, unless that is said, and the classes' names, if they are."""
    for what in _PREFIX:
        if tuple(names) == _numbered(what, len(names)):
            return wanted or ("features" if what == "features" else "scores"), None
    return wanted or "scores", None if wanted == "features" else tuple(names)


def _numbered(what: str, count: int) -> tuple[str, ...]:
    return tuple(f"{_PREFIX[what]}{number}" for number in range(count))


def digits(values: Array) -> list[list[str]]:
    """Numbers as text, a list for each row: the fewest digits that are no other number of their type; NaN is
    empty."""
    return [["" if text == "nan" else text for text in row] for row in values.astype(str).tolist()]


def of_digits(cells: Sequence[Sequence[str]]) -> list[list[float]]:
    """The inverse of `digits`. Raises ValueError where a cell is no number."""
    return [[float(cell) if cell.strip() else float("nan") for cell in row] for row in cells]
