"""Check every checksum and invariant of a cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache_schema.cache import shard_paths
from cache_schema.errors import CacheError
from cache_schema.index import differing, open_table, read_index, write_index
from cache_schema.schema import IMPORTED, StreamSpec, VideoRecord
from cache_schema.shard import Shard

# Of seconds that others have measured.
_CLOCK_S = 2e-3


@dataclass(frozen=True)
class Checked:
    """A checked shard: the videos with rows, by id, how many rows it holds, and a line for each problem."""

    path: Path
    videos: tuple[str, ...]
    rows: int
    problems: tuple[str, ...]


def verify_stream(folder: Path) -> Iterator[Checked]:
    """Check the shards of a stream's folder one by one; no problem ends the check."""
    first: Shard | None = None
    shard_of: dict[str, Path] = {}
    try:
        kept = read_index(folder)
    except CacheError:  # `index_trouble` tells
        kept = None
    differs = None if kept is None else differing(kept)
    for path in shard_paths(folder):
        try:
            shard = Shard(path)
        except CacheError as error:
            if path.exists():  # else somebody has dropped it since
                yield Checked(path, (), 0, (str(error),))
            continue
        problems, videos = [], []
        if differs is not None and differs(shard):
            problems.append(
                f"{path}: the stream's index says something else of it: run `feature-cache verify --repair-index`"
            )
        first = first or shard
        if shard.spec != first.spec:
            problems.append(f"{path}: its stream specification differs from that of {first.path.name}")
        if shard.spec.name != folder.name:
            problems.append(f"{path}: a shard of stream {shard.spec.name!r} in the folder of {folder.name!r}")
        for index, video_id in enumerate(shard.ids):
            try:
                record = shard.record(index)
            except CacheError as error:
                problems.append(str(error))
                continue
            problems += [f"{path}: video {video_id!r}: {problem}" for problem in _broken(shard.spec, record)]
            if record.error is None:
                videos.append(video_id)
            if record.error is None and record.damage is None:  # a whole one may come after what was partial
                if video_id in shard_of:
                    problems.append(f"{path}: video {video_id!r} is also in {shard_of[video_id].name}")
                shard_of[video_id] = path
        yield Checked(path, tuple(videos), int(shard.offsets[-1]), tuple(problems))


def index_trouble(folder: Path) -> str | None:
    """Why the index of a stream's folder cannot be used; None if it can, or if there is none."""
    try:
        read_index(folder)
    except CacheError as error:
        return str(error)
    return None


def repair_index(folder: Path) -> None:
    """Rewrite the index of a stream's folder from its shards.

    Raises:
        CacheError: a shard is damaged, or the folder cannot be written to.
    """
    opened = open_table(folder, use_index=False)
    if opened is None:
        return
    try:
        write_index(folder, opened.table)
    except OSError as error:
        raise CacheError(f"{folder}: cannot write the index: {error.strerror or error}") from error


def _broken(spec: StreamSpec, record: VideoRecord) -> Iterator[str]:
    """Invariants that no checksum covers, because the rows may have been wrong when they were written."""
    if (record.error is None) != (len(record.features) > 0):
        yield "has rows exactly when it has no error, but not here"
    if not np.isfinite(record.features).all():
        yield "features are not finite"
    if record.scores is not None and not np.isfinite(record.scores).all():
        yield "scores are not finite"
    if spec.sampling.kind == "clips" and spec.weights == IMPORTED and np.isnan(record.spans).all():
        return  # where a clip lies depends on the length of the video, which may be unknown
    starts, ends = record.spans[:, 0], record.spans[:, 1]
    if not (np.isfinite(record.spans).all() and (starts <= ends).all() and (np.diff(starts) >= 0).all()):
        yield "spans are not finite and in order"
    if spec.sampling.kind == "frames" and not np.array_equal(starts, ends):
        yield "a row of single frames spans more than an instant"
    if record.lost and spec.sampling.kind == "frames":
        there_s = record.numbers / spec.sampling.fps
        if not np.allclose(starts, there_s, rtol=0, atol=_CLOCK_S):
            yield "the rows that it lacks are not those that its spans leave out"
