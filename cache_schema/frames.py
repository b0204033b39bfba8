"""Tables of pandas, which is an extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cache_schema.extras import need
from cache_schema.schema import VideoRecord

if TYPE_CHECKING:
    import pandas as pd


def table_of(columns: Mapping[str, Any], *, index: Sequence[str]) -> pd.DataFrame:
    """A table of columns of equal length, some of which are its index.

    Raises:
        UserError: pandas is not installed.
    """
    pandas: Any = need("pandas", "pandas", "a table")
    frame: pd.DataFrame = pandas.DataFrame(dict(columns)).set_index(list(index))
    return frame


def table_of_rows(
    records: Sequence[VideoRecord], what: Literal["features", "scores"], names: Sequence[object]
) -> pd.DataFrame:
    """The rows of videos, one below the other: start_s, end_s and a column for each of the names.

    The index is the video's id and the row's number among those that its sampling gives.

    Raises:
        UserError: pandas is not installed.
    """
    pandas: Any = need("pandas", "pandas", "a table")
    # In float32, for much of pandas takes no float16. An empty one first: np.concatenate wants at least one.
    values = [np.asarray(getattr(record, what), np.float32) for record in records]
    rows = np.concatenate([np.zeros((0, len(names)), np.float32), *values])
    spans = np.concatenate([np.zeros((0, 2)), *(record.spans for record in records)])
    index = pandas.MultiIndex.from_arrays(
        [
            np.repeat(np.array([record.id for record in records], object), list(map(len, values))),
            np.concatenate([np.zeros(0, np.int64), *(record.numbers for record in records)]),
        ],
        names=["video_id", "row"],
    )
    seconds = pandas.DataFrame(spans, columns=["start_s", "end_s"], index=index)
    frame: pd.DataFrame = pandas.concat(
        [seconds, pandas.DataFrame(rows, columns=list(names), index=index)], axis=1
    )
    return frame
