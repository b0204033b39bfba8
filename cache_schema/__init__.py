"""The contract between extraction and policies: what a feature cache, a cost table and labels are.

    from cache_schema import FeatureCache
    cache = FeatureCache("CACHE")
    cache["resnet101_224"]["video_id"].features    # (T, D) float16, zero-copy

Imports neither torch nor decord, and nothing of the other rooms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_schema.cache import FeatureCache, Stream
from cache_schema.errors import CacheError, LabelError, MissingVideoError, UserError
from cache_schema.lazy import lazy_names
from cache_schema.schema import SCHEMA_VERSION, Preprocessing, Sampling, StreamSpec, VideoRecord, to_float16
from cache_schema.shard import Shard, write_shard

if TYPE_CHECKING:  # not imported unless they are wanted
    from cache_schema.importers.api import import_features
    from cache_schema.tools.datasets import export_features

__all__ = [
    "SCHEMA_VERSION",
    "CacheError",
    "FeatureCache",
    "LabelError",
    "MissingVideoError",
    "Preprocessing",
    "Sampling",
    "Shard",
    "Stream",
    "StreamSpec",
    "UserError",
    "VideoRecord",
    "export_features",
    "import_features",
    "to_float16",
    "write_shard",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "export_features": "cache_schema.tools.datasets",
        "import_features": "cache_schema.importers.api",
    },
)
