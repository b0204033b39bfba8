"""Write one immutable shard atomically; read one without copying."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from cache_schema.errors import CacheError
from cache_schema.files import check_writable, remove_stale_temporaries, replacing_hdf5
from cache_schema.schema import SCHEMA_VERSION, StreamSpec, VideoRecord, numbers_of, ranges

_STRING_COLUMNS = ("id", "source", "fingerprint", "status", "error")
_SINCE_2 = ("lost", "decoder", "remarks")
_NUMBER_COLUMNS = {"offsets": np.int64, "duration_s": np.float64, "fps": np.float64, "checksum": np.uint32}


def write_shard(
    folder: Path, spec: StreamSpec, records: Sequence[VideoRecord], *, tools: Mapping[str, str]
) -> Path:
    """Write the records as one shard of the stream's folder and return its path.

    The shard appears under its name complete and on disk, or not at all: temporary name, close, fsync,
    rename, fsync of the folder. Its name is a digest of its content, so that a shard written twice is one.

    Raises:
        ValueError: a record does not fit the spec, or an id occurs twice.
        CacheError: the folder cannot be written to.
    """
    if not records:
        raise ValueError("a shard holds at least one video")
    _check_records(spec, records)
    columns = _columns(records)
    header = _header_checksum(SCHEMA_VERSION, spec.to_json(), spec.weights_digest, dict(tools), columns)
    path = folder / f"shard-{header[:16]}.h5"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing_hdf5(path) as file:
            _write_rows(file, spec, records)
            for name, values in columns.items():
                file.create_dataset(f"videos/{name}", data=values)
            file.attrs["schema_version"] = SCHEMA_VERSION
            file.attrs["spec"] = np.bytes_(spec.to_json().encode())
            file.attrs["weights_digest"] = np.bytes_(spec.weights_digest.encode())
            file.attrs["tools"] = np.bytes_(json.dumps(dict(tools), sort_keys=True).encode())
            file.attrs["header_checksum"] = np.bytes_(header.encode())
    except OSError as error:
        raise CacheError(f"{folder}: cannot write a shard: {error.strerror or error}") from error
    return path


def prepare_folder(folder: Path) -> None:
    """Check that a stream's folder can be made and written to, and delete what killed writers left there.

    Raises:
        CacheError: it cannot be written to.
    """
    try:
        check_writable(folder)
        remove_stale_temporaries(folder)
    except OSError as error:
        raise CacheError(f"{folder}: cannot write to the cache: {error.strerror or error}") from error


class Shard:
    """A shard opened for reading: the header in memory, the rows as views of the memory-mapped file.

    Opening checks the header against its checksum; a video's rows are checked the first time they are read.

    Raises:
        CacheError: the file is cut, damaged, of another schema version, or not a shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Not by its name: HDF5 refuses a file that this process has open with other properties (h5py's own
            # default locking is one), and one that a program had open for writing when it died. A shard never
            # changes, so there is nothing to lock either; some network file systems cannot.
            with path.open("rb") as content, h5py.File(content, "r") as file:
                self._identity = _identity(os.fstat(content.fileno()))
                self._read_header(file)
        except CacheError:
            raise
        except Exception as error:  # h5py turns damage into many kinds: OSError, KeyError, RuntimeError, …
            if isinstance(error, MemoryError):
                raise CacheError(f"{path}: cannot be read: not enough memory") from error
            if isinstance(error, OSError) and error.errno is not None:  # the system's, not HDF5's
                raise CacheError(f"{path}: cannot be read: {os.strerror(error.errno)}") from error
            detail = " ".join(str(error).split())
            raise damaged(path, f"not a readable HDF5 shard ({detail})") from error

    def _read_header(self, file: h5py.File) -> None:
        version = int(file.attrs["schema_version"]) if "schema_version" in file.attrs else None
        if version is None or not 1 <= version <= SCHEMA_VERSION:
            found = "no schema version" if version is None else f"schema {version}"
            raise CacheError(
                f"{self.path}: {found}, but this program reads schema 1 to {SCHEMA_VERSION}; use the "
                "version of thriftvid that wrote the cache, or extract into a new one"
            )
        spec_json = bytes(file.attrs["spec"]).decode()
        weights_digest = bytes(file.attrs["weights_digest"]).decode()
        self.tools: dict[str, str] = json.loads(bytes(file.attrs["tools"]))
        names = (*_string_columns(version), *_NUMBER_COLUMNS)
        columns = {name: file[f"videos/{name}"][()] for name in names}
        header = _header_checksum(version, spec_json, weights_digest, self.tools, columns)
        if bytes(file.attrs["header_checksum"]).decode() != header:
            raise damaged(self.path, "its header does not match its checksum")
        self.spec = StreamSpec.from_json(spec_json, precision=self.tools.get("precision", ""))
        self.digest = header
        self.ids = tuple(_text(columns["id"]))
        self.sources = tuple(_text(columns["source"]))
        self.fingerprints = tuple(_text(columns["fingerprint"]))
        judged = list(zip(_text(columns["status"]), _text(columns["error"]), strict=True))
        self.errors = tuple(reason if status == "failed" else None for status, reason in judged)
        self.damages = tuple(reason if status == "partial" else None for status, reason in judged)
        unknown = np.zeros(len(self.ids), "S1")  # in schema 1
        self._lost, self.decoders, remarks = (tuple(_text(columns.get(name, unknown))) for name in _SINCE_2)
        self.remarks = tuple(tuple(lines.split("\n")) if lines else () for lines in remarks)
        self.offsets: npt.NDArray[np.int64] = columns["offsets"]
        self.durations_s: npt.NDArray[np.float64] = columns["duration_s"]
        self.fps: npt.NDArray[np.float64] = columns["fps"]
        self.checksums: npt.NDArray[np.uint32] = columns["checksum"]
        rows = int(self.offsets[-1])
        dim, classes = self.spec.feature_dim, self.spec.num_classes
        self._features = self._block(file, "features", np.dtype(np.float16), rows, dim)
        self._spans = self._block(file, "spans", np.dtype(np.float64), rows, 2)
        self._scores = self._block(file, "scores", np.dtype(np.float16), rows, classes) if classes else None
        self._checked = np.zeros(len(self.ids), np.bool_)

    def _block(self, file: h5py.File, name: str, dtype: np.dtype[Any], rows: int, columns: int) -> _Block:
        dataset = file[name]
        if dataset.shape != (rows, columns) or dataset.dtype != dtype or dataset.chunks is not None:
            raise damaged(self.path, f"dataset {name!r} is not a contiguous {(rows, columns)} {dtype} array")
        return _Block(dtype, columns, dataset.id.get_offset() if dataset.size else 0)

    def __len__(self) -> int:
        return len(self.ids)

    def record(self, index: int) -> VideoRecord:
        """The video at a position. Its arrays are read-only views of the file; nothing is copied.

        Raises:
            CacheError: the rows do not match their checksum.
        """
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        try:
            content = _mapped(self.path, self._identity)
            features = self._features.rows(content, start, stop)
            spans = self._spans.rows(content, start, stop)
            scores = None if self._scores is None else self._scores.rows(content, start, stop)
        except (TypeError, ValueError) as error:  # the file has become shorter than its datasets
            raise damaged(self.path, "it was cut") from error
        if not self._checked[index]:
            if rows_checksum(features, scores, spans) != self.checksums[index]:
                raise damaged(self.path, f"the rows of video {self.ids[index]!r} do not match their checksum")
            self._checked[index] = True
        return VideoRecord(
            id=self.ids[index],
            features=features,
            scores=scores,
            spans=spans,
            duration_s=float(self.durations_s[index]),
            fps=float(self.fps[index]),
            source=self.sources[index],
            fingerprint=self.fingerprints[index],
            error=self.errors[index],
            damage=self.damages[index],
            lost=numbers_of(self._lost[index]),
            decoder=self.decoders[index],
            remarks=self.remarks[index],
        )

    def records(self) -> Iterator[VideoRecord]:
        return (self.record(i) for i in range(len(self)))


@dataclass(frozen=True)
class _Block:
    """Where a contiguous dataset lies in its file: `offset` in bytes."""

    dtype: np.dtype[Any]
    columns: int
    offset: int

    def rows(self, content: npt.NDArray[np.uint8], start: int, stop: int) -> npt.NDArray[Any]:
        at = self.offset + start * self.columns * self.dtype.itemsize
        rows: npt.NDArray[Any] = np.ndarray((stop - start, self.columns), self.dtype, content, at)
        return rows


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _mappings() -> int:
    """How many shards may stay mapped: each keeps a file descriptor, and a process needs others too."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if allowed == resource.RLIM_INFINITY else min(4096, allowed // 4)


@lru_cache(maxsize=_mappings())
def _mapped(path: Path, identity: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """The bytes of a shard, as a plain array: slicing the memmap subclass costs several times as much.

    A cache may have more shards than can be mapped at once; hence only the last ones stay so, and those whose rows
    somebody still holds. To read random videos of more shards than stay mapped costs twice the time.
    """
    try:
        if _identity(path.stat()) != identity:
            raise CacheError(f"{path}: was replaced while it was being read; start again")
        content: npt.NDArray[np.uint8] = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    except OSError as error:
        raise CacheError(f"{path}: cannot be read: {error.strerror or error}") from error
    return content


def damaged(path: Path, reason: str) -> CacheError:
    return CacheError(f"{path}: damaged shard: {reason}; delete it and run batch-extract again")


def rows_checksum(
    features: npt.NDArray[Any], scores: npt.NDArray[Any] | None, spans: npt.NDArray[Any]
) -> int:
    """CRC-32 over the bytes of a video's features, scores (where there are any) and spans."""
    checksum = zlib.crc32(np.ascontiguousarray(features).data)
    if scores is not None:
        checksum = zlib.crc32(np.ascontiguousarray(scores).data, checksum)
    return zlib.crc32(np.ascontiguousarray(spans).data, checksum)


def _check_records(spec: StreamSpec, records: Sequence[VideoRecord]) -> None:
    ids = [record.id for record in records]
    if len(set(ids)) != len(ids):
        raise ValueError("a video id occurs twice in one shard")
    for record in records:
        rows = len(record.features)
        scores_shape = None if record.scores is None else record.scores.shape
        if (
            record.features.shape != (rows, spec.feature_dim)
            or record.features.dtype != np.float16
            or record.spans.shape != (rows, 2)
            or record.spans.dtype != np.float64
            or scores_shape != ((rows, spec.num_classes) if spec.num_classes else None)
            or (record.scores is not None and record.scores.dtype != np.float16)
        ):
            raise ValueError(f"video {record.id!r}: its arrays do not fit stream {spec.name}")
        if (record.error is None) != (rows > 0):
            raise ValueError(f"video {record.id!r}: has rows exactly when it has no error")
        if record.damage is not None and (record.error is not None or not record.damage):
            raise ValueError(f"video {record.id!r}: partial without a reason, or failed as well")
        every = rows + len(record.lost)
        in_order = numbers_of(ranges(record.lost)) == record.lost and max(record.lost, default=-1) < every
        if record.lost and (record.damage is None or not in_order):
            raise ValueError(f"video {record.id!r}: lacks rows that it cannot, or is not partial")
        if any(not remark or "\n" in remark for remark in record.remarks):
            raise ValueError(f"video {record.id!r}: a remark is a line")


def _write_rows(file: h5py.File, spec: StreamSpec, records: Sequence[VideoRecord]) -> None:
    file.create_dataset("features", data=np.concatenate([r.features for r in records]))
    file.create_dataset("spans", data=np.concatenate([r.spans for r in records]))
    if spec.num_classes:
        file.create_dataset(
            "scores", data=np.concatenate([r.scores for r in records if r.scores is not None])
        )


def _columns(records: Sequence[VideoRecord]) -> dict[str, npt.NDArray[Any]]:
    rows = [len(r.features) for r in records]
    return {
        "id": _bytes([r.id for r in records]),
        "source": _bytes([r.source for r in records]),
        "fingerprint": _bytes([r.fingerprint for r in records]),
        "status": _bytes([_status(r) for r in records]),
        "error": _bytes([r.error or r.damage or "" for r in records]),
        "lost": _bytes([ranges(r.lost) for r in records]),
        "decoder": _bytes([r.decoder for r in records]),
        "remarks": _bytes(["\n".join(r.remarks) for r in records]),
        "offsets": np.concatenate([[0], np.cumsum(rows)]).astype(np.int64),
        "duration_s": np.array([r.duration_s for r in records], np.float64),
        "fps": np.array([r.fps for r in records], np.float64),
        "checksum": np.array([rows_checksum(r.features, r.scores, r.spans) for r in records], np.uint32),
    }


def _status(record: VideoRecord) -> str:
    if record.error is not None:
        return "failed"
    return "ok" if record.damage is None else "partial"


def _string_columns(version: int) -> tuple[str, ...]:
    return (*_STRING_COLUMNS, *(_SINCE_2 if version > 1 else ()))


def _bytes(strings: Sequence[str]) -> npt.NDArray[np.bytes_]:
    # A width of zero is no HDF5 type.
    encoded = [s.encode() for s in strings]
    return np.array(encoded, dtype=f"S{max(1, *map(len, encoded))}")


def _text(column: npt.NDArray[np.bytes_]) -> list[str]:
    return [value.decode() for value in column.tolist()]


def _header_checksum(
    version: int,
    spec_json: str,
    weights_digest: str,
    tools: Mapping[str, str],
    columns: Mapping[str, npt.NDArray[Any]],
) -> str:
    digest = hashlib.sha256()
    parts: list[bytes] = [
        str(version).encode(),
        spec_json.encode(),
        weights_digest.encode(),
        json.dumps(tools, sort_keys=True).encode(),
    ]
    for name in _string_columns(version):
        parts.append(json.dumps([value.hex() for value in columns[name].tolist()]).encode())
    for name, dtype in _NUMBER_COLUMNS.items():
        parts.append(np.ascontiguousarray(columns[name], dtype=dtype).tobytes())
    for part in parts:  # each preceded by its length, so that no two headers feed the same bytes
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
