"""Class scores: a cache holds logits, people often have probabilities. Tell them apart, turn them into logits."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from cache_schema.errors import UserError
from cache_schema.schema import Array, Float64Array

Kind = Literal["logits", "softmax", "sigmoid"]

# Below this a probability is taken for it: its logarithm, −16.6, is one that float16 knows to 0.1 %.
FLOOR = 2.0**-24
# What rounding to float16, or to four decimals in a CSV of many classes, makes of a sum of 1 and of a value of 1.
_SUM_TOLERANCE, _TOLERANCE = 0.02, 1e-3


def kind_of(scores: Array) -> Kind:
    """What scores (T, C) look like.

    "softmax": from 0 to 1, and each row sums to 1. "sigmoid": from 0 to 1. All else is "logits".
    """
    values = scores.astype(np.float64)
    if not _in_range(values).all():
        return "logits"
    return "softmax" if _summing(values).all() else "sigmoid"


def to_logits(scores: Array, kind: Kind, place: str) -> Float64Array:
    """Logits (T, C) whose softmax, or sigmoid, is the given probabilities; logits as they are.

    Of softmax probabilities p that is log p, of a sigmoid's log p − log(1 − p), with p kept at least FLOOR (and a
    sigmoid's at most 1 − FLOOR).

    Raises:
        UserError: the values are not of that kind.
    """
    values = scores.astype(np.float64)
    if kind == "logits":
        return values
    if not _in_range(values).all():
        worst = values[~_in_range(values)][0]
        raise UserError(
            f"{place}: a score of {worst:.4g} is no probability, but --kind {kind} says that it is one"
        )
    if kind == "sigmoid":
        values = values.clip(FLOOR, 1 - FLOOR)
        return np.log(values) - np.log1p(-values)
    if not _summing(values).all():
        total = values.sum(axis=1)[~_summing(values)][0]
        raise UserError(
            f"{place}: its scores sum to {total:.4g}, not to 1 as --kind softmax says; where each class has a "
            "probability of its own, the kind is sigmoid"
        )
    return np.asarray(np.log(values.clip(FLOOR, 1)))


def _in_range(values: Float64Array) -> npt.NDArray[np.bool_]:
    return np.asarray((values >= 0) & (values <= 1 + _TOLERANCE))


def _summing(values: Float64Array) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(values.sum(axis=1) - 1) <= _SUM_TOLERANCE)
