"""What a finished selector has to say beyond its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from policy.data import Dataset

if TYPE_CHECKING:
    from policy.selector.method import Selector


def describe(method: Selector, data: Dataset, device: torch.device) -> Mapping[str, Any]:
    """Ready for JSON."""
    return {"threshold": float(method.model.threshold)}
