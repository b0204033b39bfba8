"""Videos to feature-cache shards: each video decoded once, for every stream asked for.

`extract.extract("VIDEOS", "CACHE", ["resnet101_224"])` does what batch-extract does (docs/python.md).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what is not asked for is not imported
    from extract.api import Extraction, extract

__all__ = ["Extraction", "extract"]

# Decoders and the network share the cores. OpenMP's threads wait for each other by spinning, and where a decoder
# has taken one's core the others burn theirs until it is back: let them sleep. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in __all__:
        from extract import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
