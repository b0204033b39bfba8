"""The table of a stream, kept in a file so that opening need not read every shard's header.

    CACHE/resnet101_224/index.h5

The shards are the truth, the file is a view that may be deleted at any time. It says of each shard its name, size
and time of change; where one of these differs the entries are dropped and the shard's header is read. A file that
does not match its checksums is not used at all. It is replaced as a whole and at once, so that of two who write it
the last one wins, and both are right.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from cache_schema.errors import CacheError
from cache_schema.files import replacing_hdf5
from cache_schema.schema import StreamSpec
from cache_schema.shard import Shard
from cache_schema.table import Entries, ShardFile, Strings, Table, combined

INDEX_NAME = "index.h5"
INDEX_VERSION = 2
# A stream of no more new shards than this opens in a moment without the file.
WRITE_ABOVE = 64

_THREADS, _AT_ONCE = 16, 1024
# Where HDF5 keeps a shard's header: in the first bytes, and behind the rows.
_HEAD_BYTES, _TAIL_BYTES = 16 << 10, 256 << 10

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Opened:
    """A table as found: partly from the index, partly from headers.

    Attributes:
        headers: by number, shards whose header was read; at most `keep` of them.
        read: how many headers were read.
        gone: how many shards of the index have vanished or changed.
        trouble: why an index that is there was not used.
    """

    table: Table
    headers: dict[int, Shard]
    read: int
    gone: int
    trouble: str | None


def open_table(folder: Path, *, use_index: bool = True, keep: int = 0) -> Opened | None:
    """The table of a stream's folder; None where there are no shards.

    Args:
        use_index: False: read every header.
        keep: how many opened shards to return at most.

    Raises:
        CacheError: a shard is damaged, or shards disagree about what the stream is.
    """
    for _ in range(20):
        try:
            return _open_table(folder, use_index=use_index, keep=keep)
        except _GoneMeanwhile:  # somebody drops videos; what was in the shard is in a new one, or is to go
            continue
    raise CacheError(
        f"{folder}: shards keep vanishing while they are read; try again when nobody changes the cache"
    )


class _GoneMeanwhile(Exception):
    pass


def _open_table(folder: Path, *, use_index: bool, keep: int) -> Opened | None:
    found = shard_files(folder)
    if not found:
        return None
    known, trouble = None, None
    if use_index:
        try:
            known = read_index(folder)
        except CacheError as error:
            trouble = str(error)
    numbers = {(name, size, mtime_ns): i for i, (name, size, mtime_ns) in enumerate(found)}
    old = [] if known is None else [numbers.get((s.name, s.size, s.mtime_ns), -1) for s in known.shards]
    kept = {number: i for i, number in enumerate(old) if number >= 0}
    if known is not None and len(kept) == len(found) == len(old):
        return Opened(known, {}, 0, 0, None)

    files: list[ShardFile | None] = [None] * len(found)
    for number, i in kept.items():
        assert known is not None
        files[number] = known.shards[i]
    spec = known.spec if known is not None and kept else None
    spec_of = found[next(iter(kept))][0] if kept else ""
    new: list[Entries] = []
    headers: dict[int, Shard] = {}
    missing = [number for number in range(len(found)) if number not in kept]

    paths = [folder / found[number][0] for number in missing]
    for number, path in zip(missing, _warmed(paths), strict=True):
        try:
            shard = Shard(path)
        except CacheError as error:
            if not path.exists():
                raise _GoneMeanwhile from error
            raise
        if spec is None:
            spec, spec_of = shard.spec, path.name
        if shard.spec != spec:
            raise CacheError(
                f"{path}: made with another stream specification than {spec_of} "
                "beside it; keep one of them, or extract into a new cache"
            )
        files[number] = ShardFile(*found[number], shard.digest, json.dumps(shard.tools, sort_keys=True))
        new.append(Entries.of(shard, number))
        if len(headers) < keep:
            headers[number] = shard
    assert spec is not None
    shards = [file for file in files if file is not None]
    base = None if known is None or not kept else known.entries
    if base is not None:
        places = np.array(old)
        base = base.take(np.flatnonzero(places[base.shard] >= 0)).renumbered(places)
    table = Table.of(spec, shards, combined(base, new))
    return Opened(table, headers, len(missing), len(old) - len(kept), trouble)


def shard_files(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size in bytes and modification time in ns of a stream's complete shards, in order of name."""
    try:
        with os.scandir(folder) as listing:
            entries = [e for e in listing if e.name.startswith("shard-") and e.name.endswith(".h5")]
    except OSError as error:
        raise CacheError(f"{folder}: cannot read the cache: {error.strerror or error}") from error

    def state(entry: os.DirEntry[str]) -> tuple[str, int, int] | None:
        try:
            status = entry.stat()
        except FileNotFoundError:  # dropped since the folder was listed
            return None
        except OSError as error:
            raise CacheError(f"{entry.path}: cannot be read: {error.strerror or error}") from error
        return entry.name, status.st_size, status.st_mtime_ns

    states = _in_threads(state, entries) if len(entries) > WRITE_ABOVE else map(state, entries)
    return sorted(known for known in states if known is not None)


def _in_threads(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """The function's results in order. Threads wait for a slow disk in parallel; few results are held at once."""
    if len(items) < 4:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for start in range(0, len(items), _AT_ONCE):
                yield from pool.map(function, items[start : start + _AT_ONCE])
        finally:
            pool.shutdown(cancel_futures=True)


def _warmed(paths: Sequence[Path]) -> Iterator[Path]:
    """The paths, each after the system has read the part of the file that holds its header.

    HDF5 takes one caller at a time, so opening in threads is no quicker; waiting for disk or network is.
    """

    def warm(path: Path) -> Path:
        with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:  # opening will tell
            file.read(_HEAD_BYTES)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            file.read(_TAIL_BYTES)
        return path

    return _in_threads(warm, paths)


def write_index(folder: Path, table: Table) -> None:
    """Write the index of a stream's folder.

    Raises:
        OSError: the folder cannot be written to.
    """
    tools = sorted({shard.tools for shard in table.shards})
    tool_number = {text: i for i, text in enumerate(tools)}
    columns: dict[str, npt.NDArray[Any]] = {
        "shards/name": np.array([s.name.encode() for s in table.shards]),
        "shards/size": np.array([s.size for s in table.shards], np.int64),
        "shards/mtime_ns": np.array([s.mtime_ns for s in table.shards], np.int64),
        "shards/digest": np.array([s.digest.encode() for s in table.shards]),
        "shards/tools": np.array([tool_number[s.tools] for s in table.shards], np.int32),
        "by_crc": table.by_crc,
        "crcs": table.crcs,
        "first": table.first,
    }
    for column in fields(Entries):
        value = getattr(table.entries, column.name)
        if isinstance(value, Strings):
            columns[f"{column.name}/content"], columns[f"{column.name}/ends"] = value.content, value.ends
        else:
            columns[column.name] = value.view(np.uint8) if value.dtype == np.bool_ else value
    about = {
        "version": INDEX_VERSION,
        "spec": table.spec.to_json(),
        "tools": tools,
        "columns": {name: _crc(values) for name, values in columns.items()},
    }
    text = json.dumps(about, sort_keys=True).encode()
    with replacing_hdf5(folder / INDEX_NAME) as file:
        for name, values in columns.items():
            file.create_dataset(name, data=values)
        file.attrs["about"] = np.bytes_(text)
        file.attrs["about_crc"] = zlib.crc32(text)


def read_index(folder: Path) -> Table | None:
    """The table in the index file, up to date or not; None where there is no file, or it is of an earlier version.

    Raises:
        CacheError: it is damaged, or of a later version.
    """
    path = folder / INDEX_NAME
    try:
        # The file may be replaced at any time, by one with other offsets: one descriptor for both ways of reading.
        with path.open("rb") as content, h5py.File(content, "r") as file:
            text = bytes(file.attrs["about"])
            about = json.loads(text)
            if int(file.attrs["about_crc"]) != zlib.crc32(text):
                raise ValueError("its description does not match its checksum")
            if about["version"] < INDEX_VERSION:
                return None
            if about["version"] > INDEX_VERSION:
                raise ValueError(f"version {about['version']}, this program writes {INDEX_VERSION}")
            mapped = np.asarray(np.memmap(content, np.uint8, mode="r"))
            columns = {name: _mapped_column(file[name], mapped) for name in about["columns"]}
        for name, values in columns.items():
            if _crc(values) != about["columns"][name]:
                raise ValueError(f"column {name} does not match its checksum")
        shards = [
            ShardFile(bytes(name).decode(), size, mtime_ns, bytes(digest).decode(), about["tools"][tools])
            for name, size, mtime_ns, digest, tools in zip(
                *(columns[f"shards/{c.name}"].tolist() for c in fields(ShardFile)), strict=True
            )
        ]
        kept: dict[str, Any] = {}
        for c in fields(Entries):
            if c.type == "Strings":
                kept[c.name] = Strings(columns[f"{c.name}/content"], columns[f"{c.name}/ends"])
            else:
                kept[c.name] = columns[c.name].view(np.bool_) if c.name == "failed" else columns[c.name]
        entries = Entries(**kept)
        spec = StreamSpec.from_json(about["spec"])
        return Table(spec, tuple(shards), entries, columns["by_crc"], columns["crcs"], columns["first"])
    except FileNotFoundError:
        return None
    except Exception as error:  # as with a shard: damage has many kinds
        detail = " ".join(str(error).split())
        raise CacheError(
            f"{path}: the index cannot be used ({detail}), so every shard's header is read; "
            "`feature-cache verify --repair-index` writes it anew"
        ) from error


def _mapped_column(dataset: h5py.Dataset, content: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    if dataset.chunks is not None:
        raise ValueError(f"dataset {dataset.name!r} is not contiguous")
    if not dataset.size:
        return np.empty(dataset.shape, dataset.dtype)
    column: npt.NDArray[Any] = np.ndarray(dataset.shape, dataset.dtype, content, dataset.id.get_offset())
    return column


def _crc(values: npt.NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data)


def keep_index(folder: Path, opened: Opened) -> None:
    """Write the index if it would have made opening much quicker and the folder can be written to."""
    if opened.read > WRITE_ABOVE or opened.gone > WRITE_ABOVE:
        with contextlib.suppress(OSError, RuntimeError):
            write_index(folder, opened.table)


def differing(index: Table) -> Callable[[Shard], bool]:
    """A function that tells whether the index contradicts a shard's header. Of a changed file: False."""
    by_shard = np.argsort(index.entries.shard, kind="stable")
    starts = np.searchsorted(index.entries.shard[by_shard], np.arange(len(index.shards) + 1))
    numbers = {shard.name: i for i, shard in enumerate(index.shards)}

    def differs(shard: Shard) -> bool:
        number = numbers.get(shard.path.name)
        if number is None:
            return False
        known, state = index.shards[number], shard.path.stat()
        if (known.size, known.mtime_ns) != (state.st_size, state.st_mtime_ns):
            return False  # the index is not asked about it
        lines = by_shard[starts[number] : starts[number + 1]]
        lines = lines[np.argsort(index.entries.position[lines])]
        same = (known.digest, json.loads(known.tools)) == (
            shard.digest,
            shard.tools,
        ) and shard.spec == index.spec
        return not same or not index.entries.take(lines).same(Entries.of(shard, number))

    return differs
