"""From files to shards.

Shards appear one after the other, complete. Killed at any moment, the cache is a valid one, and the same request
does what is left, in the same shards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from cache_schema.cache import FeatureCache, Stream
from cache_schema.errors import CacheError, UserError
from cache_schema.importers.instants import spans_of
from cache_schema.importers.rows import Rows, Source
from cache_schema.schema import Array, Float16Array, StreamSpec, VideoRecord, differences, to_float16
from cache_schema.scores import Kind, kind_of, to_logits
from cache_schema.shard import prepare_folder, rows_checksum, write_shard

# Of rows that a shard may have, as where it is extracted.
_SHARD_BYTES = 512 << 20


@dataclass
class Imported:
    """What an import did: videos and rows that are new in the stream, and videos that were there already."""

    videos: int = 0
    rows: int = 0
    present: int = 0
    shards: int = 0


def looks_like(videos: Source, report: Callable[[int, int], None] = lambda done, total: None) -> Kind:
    """What kind the scores are: probabilities if those of all videos are. Stops at the first video with logits.

    Args:
        report: called before each video with the number of those read, and of all.
    """
    common: Kind = "softmax"
    for number, rows in enumerate(videos):
        report(number, len(videos))
        kind: Kind = "softmax" if rows.scores is None else kind_of(rows.scores)
        if kind == "logits":
            return kind
        common = kind if common == "softmax" else common
    return common


def import_stream(
    source: Source,
    spec: StreamSpec,
    cache: Path,
    *,
    kind: Kind = "logits",
    shard_size: int = 256,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Add the videos of a source to a stream of a cache, which is made if need be.

    Args:
        kind: what the source's scores are.
        shard_size: videos in a shard; fewer where their rows would fill the memory.
        report: called with the number of videos read, and of all.

    Raises:
        UserError: a video does not fit a shard, or the cache has other rows of it; the cache's stream of this name
            is another; or the cache cannot be written to. Shards written before stay.
    """
    stream = _open(cache, spec)
    tools = {"thriftvid": version("thriftvid")}
    imported = Imported()
    filling: list[VideoRecord] = []
    nbytes = 0
    for count, rows in enumerate(source):
        report(count, len(source))
        record = _record(rows, spec, kind)
        if stream is not None and rows.id in stream:
            _check_same(record, stream, rows.place)
            imported.present += 1
            continue
        filling.append(record)
        nbytes += record.features.nbytes + (0 if record.scores is None else record.scores.nbytes)
        if len(filling) == shard_size or nbytes > _SHARD_BYTES:
            _write(cache, spec, filling, tools, imported)
            filling, nbytes = [], 0
    if filling:
        _write(cache, spec, filling, tools, imported)
    report(len(source), len(source))
    return imported


def _open(cache: Path, spec: StreamSpec) -> Stream | None:
    """The stream that the cache has already, if any; its folder can be written to."""
    folder = cache / spec.name
    prepare_folder(folder)
    if not cache.exists():
        return None
    opened = FeatureCache(cache)
    if spec.name not in opened:
        return None
    stream = opened[spec.name]
    if stream.spec.classes is None and replace(spec, classes=None) == stream.spec != spec:
        raise CacheError(
            f"{folder}: this stream is there already, without class names, and shards are never changed: give "
            f"`feature-cache drop {cache} --stream {spec.name} --yes`, then this command again"
        )
    if difference := differences(spec, stream.spec):
        raise CacheError(
            f"{folder}: this stream is there already and is another ({difference}); give --stream another name, "
            f"or make room with `feature-cache drop {cache} --stream {spec.name}`"
        )
    return stream


def _record(rows: Rows, spec: StreamSpec, kind: Kind) -> VideoRecord:
    features = _fitting(rows.features, spec.feature_dim, "features", rows.place)
    scores = _fitting(rows.scores, spec.num_classes, "scores", rows.place)
    spans = spans_of(rows, spec.sampling)
    return VideoRecord(
        id=rows.id,
        features=np.zeros((len(rows), 0), np.float16)
        if features is None
        else _kept(features, "features", rows.place),
        scores=None if scores is None else _kept(to_logits(scores, kind, rows.place), "scores", rows.place),
        spans=spans,
        duration_s=rows.duration_s,
        fps=rows.fps,
        source=rows.source,
        fingerprint=rows.fingerprint,
        damage=rows.damage,
        lost=rows.lost,
    )


def _fitting(values: Array | None, columns: int, what: str, place: str) -> Array | None:
    found = 0 if values is None else values.shape[1]
    if found != columns:
        raise UserError(f"{place}: it has {found:,} {what} a row, the stream {columns:,}")
    return values


def _kept(values: Array, what: str, place: str) -> Float16Array:
    try:
        # The largest of integers has no absolute value of its type.
        return to_float16(values if values.dtype.kind == "f" else values.astype(np.float64), f"its {what}")
    except ValueError as error:
        raise UserError(f"{place}: {error}") from error


def _check_same(record: VideoRecord, stream: Stream, place: str) -> None:
    """Refuse a video whose rows, or whose source file where both are known, differ from those in the stream."""
    fingerprints = record.fingerprint, stream.fingerprint(record.id)
    checksum = rows_checksum(record.features, record.scores, record.spans)
    if checksum != stream.checksum(record.id) or (all(fingerprints) and fingerprints[0] != fingerprints[1]):
        raise CacheError(
            f"{place}: stream {stream.name} has other rows of it already; drop them (`feature-cache drop "
            f"{stream.folder.parent} --stream {stream.name} --video ID`), or import into another stream"
        )


def _write(
    cache: Path, spec: StreamSpec, records: list[VideoRecord], tools: Mapping[str, str], imported: Imported
) -> None:
    write_shard(cache / spec.name, spec, records, tools=tools)
    imported.videos += len(records)
    imported.rows += sum(len(record.features) for record in records)
    imported.shards += 1
