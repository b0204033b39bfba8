"""What the shards of a stream hold, as one table of columns in memory.

A table has a line for every entry of every shard, ordered by video id (as UTF-8), of one id a whole video before
partial ones, those with more rows first, and these before failures, then by the shard's name: a video's first line
is the one that counts. Columns are plain arrays, which processes map and share; a video is found by the CRC-32 of
its id.
"""

from __future__ import annotations

import bisect
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from cache_schema.schema import StreamSpec
from cache_schema.shard import Shard

_PIECE = 1 << 20

Integers = npt.NDArray[Any]


@dataclass(frozen=True)
class Strings:
    """Texts end to end, as UTF-8. Text i is content[ends[i] : ends[i + 1]]."""

    content: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    @staticmethod
    def of(texts: Sequence[str]) -> Strings:
        encoded = [text.encode() for text in texts]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return Strings(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def raw(self, i: int) -> bytes:
        return self.content[self.ends[i] : self.ends[i + 1]].tobytes()

    def __getitem__(self, i: int) -> str:
        return self.raw(i).decode()

    def take(self, order: Integers) -> Strings:
        lengths = np.diff(self.ends)[order]
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        content = np.empty(ends[-1], np.uint8)
        for i in range(0, len(order), _PIECE):  # in pieces: there is an index for every byte
            at, size = self.ends[:-1][order[i : i + _PIECE]], lengths[i : i + _PIECE]
            start, stop = ends[i], ends[min(i + _PIECE, len(order))]
            shift = np.repeat(at - (ends[i : i + len(size)] - start), size)
            content[start:stop] = self.content[shift + np.arange(stop - start)]
        return Strings(content, ends)

    @staticmethod
    def join(parts: Sequence[Strings]) -> Strings:
        starts = np.cumsum([0, *(part.ends[-1] for part in parts)])
        ends = [part.ends[1:] + start for part, start in zip(parts, starts, strict=False)]
        return Strings(
            np.concatenate([p.content for p in parts]), np.concatenate([[0], *ends]).astype(np.int64)
        )


@dataclass(frozen=True)
class Entries:
    """Columns of the table, from the shards' headers. An entry is number `position` in shard number `shard`.

    `error` is why it is failed or partial, else empty; `remarks` are joined by line ends.
    """

    id: Strings
    fingerprint: Strings
    error: Strings
    remarks: Strings
    decoder: npt.NDArray[np.bytes_]
    failed: npt.NDArray[np.bool_]
    shard: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    checksum: npt.NDArray[np.uint32]
    crc: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.shard)

    @staticmethod
    def of(shard: Shard, number: int = 0) -> Entries:
        count = len(shard)
        return Entries(
            id=Strings.of(shard.ids),
            fingerprint=Strings.of(shard.fingerprints),
            error=Strings.of([a or b or "" for a, b in zip(shard.errors, shard.damages, strict=True)]),
            remarks=Strings.of(["\n".join(remarks) for remarks in shard.remarks]),
            decoder=np.array([decoder.encode() for decoder in shard.decoders]),
            failed=np.array([error is not None for error in shard.errors], np.bool_),
            shard=np.full(count, number, np.int32),
            position=np.arange(count, dtype=np.int32),
            rows=np.diff(shard.offsets).astype(np.int64),
            checksum=shard.checksums.astype(np.uint32),
            crc=np.array([zlib.crc32(video_id.encode()) for video_id in shard.ids], np.uint32),
        )

    @property
    def partial(self) -> npt.NDArray[np.bool_]:
        return np.asarray((np.diff(self.error.ends) > 0) & ~self.failed)

    @property
    def precedence(self) -> npt.NDArray[np.int64]:
        """Of two entries of a video, the one with the smaller value counts."""
        whole = np.where(self.partial, -self.rows, np.iinfo(np.int64).min)
        return np.where(self.failed, 0, whole)

    def take(self, order: Integers) -> Entries:
        taken: dict[str, Any] = {}
        for column in fields(self):
            values = getattr(self, column.name)
            taken[column.name] = values.take(order) if isinstance(values, Strings) else values[order]
        return Entries(**taken)

    @staticmethod
    def join(parts: Sequence[Entries]) -> Entries:
        joined: dict[str, Any] = {}
        for column in fields(Entries):
            values = [getattr(part, column.name) for part in parts]
            joined[column.name] = Strings.join(values) if column.type == "Strings" else np.concatenate(values)
        return Entries(**joined)

    def renumbered(self, numbers: Integers) -> Entries:
        columns = {column.name: getattr(self, column.name) for column in fields(self)}
        return Entries(**{**columns, "shard": numbers[self.shard].astype(np.int32)})

    def same(self, other: Entries) -> bool:
        return all(
            np.array_equal(a.content, b.content) and np.array_equal(a.ends, b.ends)
            if isinstance(a, Strings)
            else np.array_equal(a, b)
            for a, b in ((getattr(self, c.name), getattr(other, c.name)) for c in fields(self))
        )


@dataclass(frozen=True)
class ShardFile:
    """A shard's file and what its header says of the whole shard. `digest` is the header's checksum."""

    name: str
    size: int
    mtime_ns: int
    digest: str
    tools: str  # JSON


@dataclass(frozen=True)
class Table:
    """What a stream's shards hold. `shards` are in order of name, `entries` in the order above.

    Attributes:
        by_crc: numbers of the entries, ordered by `crc`; equal ones stay in order.
        crcs: `crc` in that order.
        first: number of the first entry of each video.
    """

    spec: StreamSpec
    shards: tuple[ShardFile, ...]
    entries: Entries
    by_crc: Integers
    crcs: npt.NDArray[np.uint32]
    first: Integers = field(repr=False)

    @staticmethod
    def of(spec: StreamSpec, shards: Sequence[ShardFile], entries: Entries) -> Table:
        """From entries that are in order."""
        by_crc = np.argsort(entries.crc, kind="stable")
        return Table(spec, tuple(shards), entries, by_crc, entries.crc[by_crc], _first(entries))

    def find(self, video_id: str) -> int | None:
        """The number of a video's first entry, the one that counts; None where it has none."""
        raw = video_id.encode(errors="surrogateescape")
        crc = np.uint32(zlib.crc32(raw))
        at = int(self.crcs.searchsorted(crc))
        while at < len(self.crcs) and self.crcs[at] == crc:
            entry = int(self.by_crc[at])
            if self.entries.id.raw(entry) == raw:
                return entry
            at += 1
        return None

    def all_of(self, video_id: str) -> Iterator[int]:
        """The numbers of all entries of a video, in order."""
        entry = self.find(video_id)
        raw = b"" if entry is None else self.entries.id.raw(entry)
        while entry is not None and entry < len(self.entries) and self.entries.id.raw(entry) == raw:
            yield entry
            entry += 1


def combined(base: Entries | None, parts: Sequence[Entries]) -> Entries:
    """Entries in order, from some that are (`base`) and those of new shards."""
    if base is None:
        joined = Entries.join(parts)
        return joined.take(_order(joined))
    if not parts:
        # A shard's number follows its name, and so do those that are left.
        return base
    new = Entries.join(parts)
    if 8 * len(new) > len(base):
        joined = Entries.join([base, new])
        return joined.take(_order(joined))
    new = new.take(_order(new))

    def key_of(entries: Entries) -> Callable[[int], tuple[bytes, int, int]]:
        precedence = entries.precedence
        return lambda entry: (entries.id.raw(entry), int(precedence[entry]), int(entries.shard[entry]))

    key, key_of_new = key_of(base), key_of(new)
    places = [bisect.bisect_left(range(len(base)), key_of_new(i), key=key) for i in range(len(new))]
    order = np.insert(np.arange(len(base)), places, np.arange(len(base), len(base) + len(new)))
    return Entries.join([base, new]).take(order)


def _order(entries: Entries) -> Integers:
    ids = [entries.id.raw(i) for i in range(len(entries))]
    by_rank = np.lexsort((entries.shard, entries.precedence)).tolist()
    return np.array(sorted(by_rank, key=ids.__getitem__), np.int64)  # stable


def _first(entries: Entries) -> Integers:
    first = np.ones(len(entries), np.bool_)
    for i in np.flatnonzero(entries.crc[1:] == entries.crc[:-1]).tolist():
        first[i + 1] = entries.id.raw(i) != entries.id.raw(i + 1)
    return np.flatnonzero(first)
