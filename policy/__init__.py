"""Stage 2: small networks that decide which backbone is worth running, trained from a feature cache.

`policy.train(…)` trains one, `policy.Run.load("runs/x")` opens a trained one, and `policy.PaddedDataset` is a
cache for networks of your own (docs/python.md). `policy.open_run("runs/x")` is for cameras and rows
(docs/online.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_schema.lazy import lazy_names

if TYPE_CHECKING:  # it imports torch, for which --help has no time
    from policy.api import Run, train
    from policy.data.padded import PaddedDataset, pad
    from policy.deploy.trained import open_run

__all__ = ["PaddedDataset", "Run", "open_run", "pad", "train"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PaddedDataset": "policy.data.padded",
        "Run": "policy.api",
        "open_run": "policy.deploy.trained",
        "pad": "policy.data.padded",
        "train": "policy.api",
    },
)
