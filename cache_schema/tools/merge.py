"""Merge caches from several machines into one.

All conflicts are found before anything is written. Then complete shards appear in the target one after the other:
killed at any moment, the target is a valid cache, and the same request does the rest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cache_schema.cache import FeatureCache, Stream
from cache_schema.errors import CacheError
from cache_schema.files import fsync, replacing
from cache_schema.schema import differences
from cache_schema.shard import prepare_folder, write_shard

_NAMED = 5


@dataclass
class Merged:
    """What a merge did: shards taken over whole or in part, and videos that are new in some stream of the target.

    Attributes:
        videos, failed: a video counts once, in however many streams it is new.
        streams: those to which videos or failures were added.
    """

    shards_whole: int = 0
    shards_in_part: int = 0
    shards_present: int = 0
    videos: int = 0
    failed: int = 0
    streams: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class _Part:
    """What the target lacks of one shard of a source: the ids of entries by position, and which of them failed."""

    stream: Stream
    number: int
    wanted: Mapping[int, str]
    failed: frozenset[int]

    @property
    def whole(self) -> bool:
        return len(self.wanted) == len(self.stream.shards[self.number])


def merge(
    sources: Sequence[Path],
    target: Path,
    *,
    link: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Merged:
    """Add to the target what the sources hold and it does not.

    A video that several caches hold is kept once: the target's, else the first source's. A partial one is taken
    only if no cache has it whole, a failure only if none has rows of it.

    Args:
        target: a cache, which is made if need be.
        link: make hard links, not copies, of shards that are taken over whole.
        report: called with the number of shards done, and of all.

    Raises:
        CacheError: caches disagree about a stream or a video, one is damaged, or the target cannot be written.
    """
    caches = [FeatureCache(source) for source in sources]
    for source in sources:
        if target.is_dir() and target.samefile(source):
            raise CacheError(f"{source}: is both a source and the cache to merge into")
    before = FeatureCache(target) if target.is_dir() else None
    names = sorted({name for cache in caches for name in cache})
    if not names:
        raise CacheError(f"{', '.join(map(str, sources))}: no streams here, so nothing to merge")
    here = {name: before[name] if before and name in before else None for name in names}
    there = {name: [cache[name] for cache in caches if name in cache] for name in names}
    for name in names:
        _check_streams([*filter(None, [here[name]]), *there[name]])
    conflicts = [c for name in names for c in _conflicts([*filter(None, [here[name]]), *there[name]])]
    if conflicts:
        more = f"; and {len(conflicts) - _NAMED:,} more" if len(conflicts) > _NAMED else ""
        raise CacheError(
            f"{len(conflicts):,} under the same id from files with other content: "
            f"{'; '.join(conflicts[:_NAMED])}{more}; nothing was merged: rename them, or drop one of the two"
        )
    for name in names:
        _check_writable(target / name, there[name] if link else [])

    merged = Merged()
    videos: set[str] = set()
    failed: set[str] = set()
    total = sum(len(stream.shards) for streams in there.values() for stream in streams)
    looked_at = 0
    for name in names:
        shards_before = merged.shards_whole + merged.shards_in_part
        for place, stream in enumerate(there[name]):
            rivals = [*filter(None, [here[name]]), *there[name][:place]]
            for part in _parts(stream, rivals, there[name][place + 1 :]):
                report(looked_at, total)
                looked_at += 1
                _take(part, target / name, link=link, merged=merged)
                for position, video_id in part.wanted.items():
                    (failed if position in part.failed else videos).add(video_id)
        merged.streams += merged.shards_whole + merged.shards_in_part > shards_before
    report(total, total)
    merged.videos, merged.failed = len(videos), len(failed)
    return merged


def _check_streams(streams: Sequence[Stream]) -> None:
    """Raise CacheError unless all have the same specification."""
    first = streams[0]
    for stream in streams[1:]:
        if difference := differences(first.spec, stream.spec):
            raise CacheError(
                f"{stream.folder}: another stream than {first.folder} ({difference}); nothing was merged"
            )


def _conflicts(streams: Sequence[Stream]) -> list[str]:
    """Videos with rows from different files in several streams. A whole one and a partial one do not conflict."""
    found = []
    for place, stream in enumerate(streams):
        for video_id in stream if place else ():
            whole = _is_whole(stream, video_id)
            others = (other for other in streams[:place] if video_id in other)
            first = next((other for other in others if _is_whole(other, video_id) == whole), None)
            if first is not None and first.content(video_id) != stream.content(video_id):
                found.append(f"video {video_id!r} in {first.folder} and {stream.folder}")
    return found


def _is_whole(stream: Stream, video_id: str) -> bool:
    return video_id in stream and video_id not in stream.partial


def _check_writable(folder: Path, linked: Sequence[Stream]) -> None:
    """Check now, before all the reading, that the folder takes files, and links to the shards of `linked`."""
    prepare_folder(folder)
    place = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    for stream in linked:
        if stream.folder.stat().st_dev != place.stat().st_dev:
            raise CacheError(f"{stream.folder}: on another file system than {folder}: leave out --link")


def _parts(stream: Stream, rivals: Sequence[Stream], later: Sequence[Stream]) -> Iterator[_Part]:
    """What to take of each shard of a source; `rivals` are the target and earlier sources, `later` the rest."""
    entries = stream.table.entries
    wanted: list[dict[int, str]] = [{} for _ in stream.shards]
    failed: list[set[int]] = [set() for _ in stream.shards]
    for entry in map(int, stream.table.first):
        video_id = entries.id[entry]
        shard, position = int(entries.shard[entry]), int(entries.position[entry])
        if not entries.failed[entry]:
            whole = video_id not in stream.partial
            better = any(_is_whole(other, video_id) for other in (*rivals, *(() if whole else later)))
            if not better and (whole or not any(video_id in rival for rival in rivals)):
                wanted[shard][position] = video_id
            continue
        if any(video_id in other for other in (*rivals, *later)):
            continue
        contents = set()
        for failure in stream.table.all_of(video_id):
            content = entries.fingerprint[failure]
            if content in contents or any(rival.failure(video_id, content) is not None for rival in rivals):
                continue
            contents.add(content)
            shard, position = int(entries.shard[failure]), int(entries.position[failure])
            wanted[shard][position] = video_id
            failed[shard].add(position)
    for number, ids in enumerate(wanted):
        yield _Part(stream, number, dict(sorted(ids.items())), frozenset(failed[number]))


def _take(part: _Part, folder: Path, *, link: bool, merged: Merged) -> None:
    if not part.wanted:
        merged.shards_present += 1
        return
    origin = part.stream.shards[part.number]
    if part.whole:
        path = folder / origin.path.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if link:
                with suppress(FileExistsError):
                    os.link(origin.path, path)
                fsync(folder)
            else:
                shard = origin.open()
                for _ in shard.records():  # all is read anyway: no damaged rows are handed on
                    pass
                with replacing(path) as temporary:
                    shutil.copyfile(origin.path, temporary)
        except OSError as error:
            raise CacheError(f"{path}: cannot take over a shard: {error.strerror or error}") from error
        merged.shards_whole += 1
    else:
        shard = origin.open()
        records = [shard.record(position) for position in part.wanted]
        path = write_shard(folder, part.stream.spec, records, tools=origin.tools)
        merged.shards_in_part += 1
    merged.bytes += path.stat().st_size
