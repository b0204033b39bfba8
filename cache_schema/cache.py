"""A folder of shards as mappings: `cache[stream][video_id]` gives a VideoRecord without copying."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from cache_schema.errors import CacheError, MissingVideoError
from cache_schema.schema import StreamSpec, VideoRecord
from cache_schema.shard import Shard


class FeatureCache(Mapping[str, "Stream"]):
    """The streams of a cache folder by name. Shards are opened when a stream is first asked for.

    Args:
        folder: the cache; a folder without streams is an empty cache.

    Raises:
        CacheError: there is no such folder; from `cache[name]`: no such stream, or a damaged shard.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise CacheError(f"{self.folder}: no such cache folder; make one with batch-extract")
        self._opened: dict[str, Stream] = {}

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams, in order."""
        try:
            folders = [entry for entry in self.folder.iterdir() if entry.is_dir()]
            return tuple(sorted(entry.name for entry in folders if any(shard_paths(entry))))
        except OSError as error:
            raise CacheError(f"{self.folder}: cannot read the cache: {error.strerror or error}") from error

    def __getitem__(self, name: str) -> Stream:
        if name not in self._opened:
            if name not in self.streams:
                known = ", ".join(self.streams) or "none"
                raise CacheError(f"{self.folder}: no stream {name!r} in this cache; it has: {known}")
            self._opened[name] = Stream(self.folder / name)
        return self._opened[name]

    def __contains__(self, name: object) -> bool:
        return name in self.streams

    def __iter__(self) -> Iterator[str]:
        return iter(self.streams)

    def __len__(self) -> int:
        return len(self.streams)


class Stream(Mapping[str, VideoRecord]):
    """The videos of one stream that have rows, by id, in order; `failures` names the others.

    Where several shards hold a video, a readable entry goes before a failed one, and among equals the
    first shard by name counts.

    Raises:
        CacheError: a shard is damaged, or shards of the folder disagree about what the stream is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards = [Shard(path) for path in shard_paths(folder)]
        if not self.shards:
            raise CacheError(f"{folder}: no shards here")
        self.spec: StreamSpec = self.shards[0].spec
        found: dict[str, tuple[Shard, int]] = {}
        failed: dict[str, list[tuple[Shard, int]]] = {}
        for shard in self.shards:
            if shard.spec != self.spec:
                raise CacheError(
                    f"{shard.path}: made with another stream specification than {self.shards[0].path.name} "
                    "beside it; keep one of them, or extract into a new cache"
                )
            for index, (video_id, error) in enumerate(zip(shard.ids, shard.errors, strict=True)):
                if error is None:
                    found.setdefault(video_id, (shard, index))
                else:
                    failed.setdefault(video_id, []).append((shard, index))
        self._found = dict(sorted(found.items()))
        self._failed = {k: places for k, places in sorted(failed.items()) if k not in found}
        self.failures: dict[str, str] = {
            k: shard.errors[i] or "" for k, [(shard, i), *_] in self._failed.items()
        }

    @property
    def name(self) -> str:
        return self.folder.name

    def __getitem__(self, video_id: str) -> VideoRecord:
        try:
            shard, index = self._found[video_id]
        except KeyError:
            if video_id in self.failures:
                reason = f"could not be read when it was extracted: {self.failures[video_id]}"
            else:
                reason = f"is not in stream {self.name!r} of {self.folder.parent}"
            raise MissingVideoError(f"video {video_id!r} {reason}") from None
        return shard.record(index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._found

    def rows(self, video_id: str) -> int:
        """T of a video, from the header alone."""
        shard, index = self._found[video_id]
        return int(shard.offsets[index + 1] - shard.offsets[index])

    def fingerprint(self, video_id: str) -> str | None:
        """Fingerprint of the file that a video's rows were taken from; None: no rows of it."""
        place = self._found.get(video_id)
        return place and place[0].fingerprints[place[1]]

    def failure(self, video_id: str, fingerprint: str) -> str | None:
        """Why a file with this content could not be read; None: it was not tried, or has rows."""
        for shard, index in self._failed.get(video_id, ()):
            if shard.fingerprints[index] == fingerprint:
                return shard.errors[index]
        return None

    def source(self, video_id: str) -> str:
        """Name of the file that a video was taken from."""
        shard, index = self._found[video_id]
        return shard.sources[index]

    def digest(self, video_ids: Iterable[str] | None = None) -> str:
        """SHA-256 of what the stream says about some videos (all by default), however they are sharded."""
        digest = hashlib.sha256(self.spec.to_json().encode())
        for video_id in sorted(self if video_ids is None else video_ids):
            shard, index = self._found[video_id]
            digest.update(f"\n{shard.checksums[index]:08x} {video_id}".encode())
        return digest.hexdigest()


def shard_paths(folder: Path) -> list[Path]:
    """The complete shards of a stream's folder, in order of name."""
    return sorted(folder.glob("shard-*.h5"))
