"""The "l2" input normalisation: each frame's features brought to length 1, as LiteEval's released code does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def unit_length(features: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float16]:
    """Rows (T, D), or one row (D,), divided by their lengths; a row of zeros stays one."""
    values = features.astype(np.float32)
    norms = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.asarray((values / np.maximum(norms, 1e-12)).astype(np.float16))
