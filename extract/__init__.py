"""Videos to feature-cache shards: each video decoded once, for every stream asked for.

`extract.extract("VIDEOS", "CACHE", ["resnet101_224"])` does what batch-extract does (docs/python.md).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache_schema.lazy import lazy_names

if TYPE_CHECKING:  # what is not asked for is not imported
    from extract.api import Extraction, extract

__all__ = ["Extraction", "extract"]

# Decoders and the network share the cores. OpenMP's threads wait for each other by spinning, and where a decoder
# has taken one's core the others burn theirs until it is back: let them sleep. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(__all__, "extract.api"))
