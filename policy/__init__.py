"""Stage 2: small networks that decide which backbone is worth running, trained from a feature cache.

`policy.train(…)` trains one, `policy.Run.load("runs/x")` opens a trained one, and `policy.PaddedDataset` is a
cache for networks of your own (docs/python.md). `policy.open_run("runs/x")` is for cameras and rows
(docs/online.md).
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it imports torch, for which --help has no time
    from policy.api import Run, train
    from policy.data.padded import PaddedDataset, pad
    from policy.deploy.trained import open_run

__all__ = ["PaddedDataset", "Run", "open_run", "pad", "train"]

_PLACES = {
    "PaddedDataset": "policy.data.padded",
    "Run": "policy.api",
    "open_run": "policy.deploy.trained",
    "pad": "policy.data.padded",
    "train": "policy.api",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return resolve_name(f"{_PLACES[name]}:{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
