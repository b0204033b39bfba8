"""Take videos, failures or a whole stream out of a cache.

Shards are never changed: one that holds a video to be dropped is written anew without it, then the old one is
deleted. Killed between the two, the cache holds the other videos twice, with the same rows, and readers use one of
them; the same request deletes the old shard then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cache_schema.cache import Stream, shard_paths
from cache_schema.errors import CacheError
from cache_schema.files import fsync, remove_stale_temporaries
from cache_schema.index import INDEX_NAME
from cache_schema.shard import write_shard


@dataclass
class Plan:
    """What a drop takes out of a stream.

    Attributes:
        positions: by shard number, the positions of the entries to drop.
        videos, failures: how many videos with rows, and how many failed ones, will be gone.
        rows: how many rows these videos have.
        bytes: size of the shards that will be rewritten or deleted.
        unknown: requested ids that have no such entry in the stream.
    """

    stream: Stream
    positions: dict[int, list[int]] = field(default_factory=dict)
    videos: int = 0
    failures: int = 0
    rows: int = 0
    bytes: int = 0
    unknown: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, int]:
        """The counts, for JSON."""
        rewritten = len(self.positions) - self.shards_deleted
        return {
            **{
                name: getattr(self, name)
                for name in ("videos", "failures", "rows", "bytes", "shards_deleted")
            },
            "shards_rewritten": rewritten,
        }

    @property
    def shards_deleted(self) -> int:
        """Shards of which nothing is left."""
        shards = self.stream.shards
        return sum(len(shards[number]) == len(gone) for number, gone in self.positions.items())


def plan_drop(
    stream: Stream,
    video_ids: Collection[str] | None = None,
    *,
    failed: bool = False,
    partial: bool = False,
) -> Plan:
    """Plan to drop every entry of the videos, or of all videos if none are named.

    Args:
        failed, partial: drop failed entries alone, partial ones alone, or both.
    """
    plan = Plan(stream)
    table, entries = stream.table, stream.table.entries
    may_go = np.full(len(entries), not (failed or partial))
    if failed:
        may_go |= entries.failed
    if partial:
        may_go |= entries.partial
    if video_ids is None:
        chosen = np.flatnonzero(may_go)
    else:
        of_videos = {video_id: list(table.all_of(video_id)) for video_id in sorted(set(video_ids))}
        plan.unknown = [video_id for video_id, found in of_videos.items() if not may_go[found].any()]
        named = np.array([entry for found in of_videos.values() for entry in found], np.int64)
        chosen = named[may_go[named]]
    # Other entries may stand behind the one that counts: a failure behind rows that a later run got.
    first = chosen[np.isin(chosen, table.first)]
    plan.failures = int(entries.failed[first].sum())
    plan.videos = len(first) - plan.failures
    plan.rows = int(entries.rows[first].sum())
    for entry in chosen.tolist():
        plan.positions.setdefault(int(entries.shard[entry]), []).append(int(entries.position[entry]))
    plan.bytes = sum(table.shards[number].size for number in plan.positions)
    return plan


def drop(plan: Plan, report: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Carry a plan out.

    Args:
        report: called with the number of shards done, and of all.

    Raises:
        CacheError: the cache cannot be written to, or a shard's other rows are damaged.
    """
    stream = plan.stream
    remove_stale_temporaries(stream.folder)
    for done, (number, positions) in enumerate(sorted(plan.positions.items())):
        report(done, len(plan.positions))
        shard, gone = stream.shards[number], set(positions)
        if len(gone) < len(shard):
            opened = shard.open()
            rest = [opened.record(i) for i in range(len(shard)) if i not in gone]
            write_shard(stream.folder, stream.spec, rest, tools=shard.tools)
        _unlink(shard.path)
    _leave_if_empty(stream.folder)
    report(len(plan.positions), len(plan.positions))


def drop_stream(folder: Path, report: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Delete a stream's folder; if it holds files that are not the cache's, they and the folder stay.

    Raises:
        CacheError: something cannot be deleted.
    """
    paths = shard_paths(folder)
    for done, path in enumerate(paths):
        report(done, len(paths))
        _unlink(path, last=path is paths[-1])
    _leave_if_empty(folder)
    report(len(paths), len(paths))


def _unlink(path: Path, *, last: bool = True) -> None:
    try:
        path.unlink(missing_ok=True)
        if last:
            fsync(path.parent)
    except OSError as error:
        raise CacheError(f"{path}: cannot be deleted: {error.strerror or error}") from error


def _leave_if_empty(folder: Path) -> None:
    if shard_paths(folder):
        return
    remove_stale_temporaries(folder)
    (folder / INDEX_NAME).unlink(missing_ok=True)
    with suppress(OSError):  # something else lies there
        folder.rmdir()
