"""Models of a pool as they are named: a stream, and how many of its rows a video is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache_schema import UserError
from policy.data.batches import uniform_rows
from policy.selection.pool import MOST_MODELS


@dataclass(frozen=True)
class ModelName:
    """ "x3d_s" or "x3d_s:3".

    Attributes:
        rows: clips or frames of a video, evenly spread; None: all that the cache has.
    """

    stream: str
    rows: int | None = None

    def rows_of(self, length: int, crops: int) -> npt.NDArray[np.int64]:
        """Those of a video of `length` rows that it looks at; of a clip with several crops all, or none."""
        clips = length // crops
        chosen = uniform_rows(clips, clips if self.rows is None else self.rows)
        return np.asarray((chosen[:, None] * crops + np.arange(crops)).ravel(), np.int64)

    @staticmethod
    def parse(text: str, rows: int | None = None) -> ModelName:
        """Args:
            rows: where the text says nothing.

        Raises:
            UserError: the text is neither STREAM nor STREAM:ROWS.
        """
        stream, colon, count = text.partition(":")
        if not stream or (colon and not (count.isascii() and count.isdigit() and int(count) > 0)):
            raise UserError(
                f"model {text!r}: give STREAM, or STREAM:ROWS with a number of rows, as in x3d_s:3"
            )
        return ModelName(stream, int(count) if colon else rows)


def parse_models(texts: Sequence[str], rows: int | None = None) -> tuple[ModelName, ...]:
    """The models of a pool, in the order given.

    Raises:
        UserError: there are fewer than two or too many, a stream occurs twice, or a text is no model.
    """
    models = tuple(ModelName.parse(text, rows) for text in texts)
    streams = [model.stream for model in models]
    if len(models) < 2:
        given = f"only {streams[0]!r}" if streams else "none"
        raise UserError(
            f"a pool needs at least two models to choose from; given: {given} (--model STREAM, repeated)"
        )
    if len(models) > MOST_MODELS:
        raise UserError(f"a pool of {len(models)} models; at most {MOST_MODELS} are possible")
    for stream in streams:
        if streams.count(stream) > 1:
            raise UserError(f"model {stream!r} is given twice")
    return models
