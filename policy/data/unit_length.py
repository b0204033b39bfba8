"""The "l2" input normalisation: each frame's features brought to length 1, as LiteEval's released code does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

# So many values stay in a core's cache, and torch does not share them among threads, which would have to wait for
# each other thousands of times in an epoch.
_CHUNK = 1 << 15


def unit_length(features: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float16]:
    """A copy of rows (T, D), or of one row (D,), divided by their lengths; a row of zeros stays one.

    What is not float16 is rounded to it first, as the cache does.
    """
    unit = torch.from_numpy(features.astype(np.float16))
    rows = unit.view(-1, unit.shape[-1])
    for part in torch.split(rows, max(1, _CHUNK // rows.shape[1])):
        exact = part.float()
        part.copy_(exact.div_(torch.linalg.vector_norm(exact, dim=1, keepdim=True).clamp_min_(1e-12)))
    return unit.numpy()
