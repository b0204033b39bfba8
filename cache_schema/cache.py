"""A folder of shards as mappings: `cache[stream][video_id]` gives a VideoRecord without copying."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from cache_schema.arguments import checks_arguments
from cache_schema.errors import CacheError, MissingVideoError, UserError
from cache_schema.files import StrPath
from cache_schema.frames import table_of, table_of_rows
from cache_schema.index import keep_index, open_table
from cache_schema.names import did_you_mean
from cache_schema.schema import StreamSpec, VideoRecord
from cache_schema.shard import Shard
from cache_schema.table import Strings

if TYPE_CHECKING:
    import pandas as pd

_SHARDS = "shard-*.h5"
# So many shards of a stream stay open: their headers in memory, and which of their rows have been checked.
_OPEN_SHARDS = 4096
_KNOWN_PLACES = 1 << 20


class FeatureCache(Mapping[str, "Stream"]):
    """The streams of a cache folder by name. Shards are opened when a stream is first asked for.

    Args:
        folder: the cache; a folder without streams is an empty cache.
        read_only: write nothing, not even an index that would make the next opening quicker.

    Raises:
        CacheError: there is no such folder; from `cache[name]`: no such stream, or a damaged shard.
    """

    @checks_arguments
    def __init__(self, folder: StrPath, *, read_only: bool = False) -> None:
        self.folder = Path(folder)
        self._read_only = read_only
        if not self.folder.is_dir():
            raise CacheError(f"{self.folder}: no such cache folder; make one with batch-extract")
        self._opened: dict[str, Stream] = {}

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams, in order."""
        try:
            folders = [entry for entry in self.folder.iterdir() if entry.is_dir()]
            return tuple(sorted(entry.name for entry in folders if any(entry.glob(_SHARDS))))
        except OSError as error:
            raise CacheError(f"{self.folder}: cannot read the cache: {error.strerror or error}") from error

    def __getitem__(self, name: str) -> Stream:
        if name not in self._opened:
            if name not in self.streams:
                raise self.no_stream(name)
            self._opened[name] = Stream(self.folder / name, read_only=self._read_only)
        return self._opened[name]

    def no_stream(self, name: str) -> CacheError:
        """The error for a stream that the cache does not have."""
        known = ", ".join(self.streams) or "none"
        close = did_you_mean(name, self.streams)
        return CacheError(f"{self.folder}: no stream {name!r} in this cache; it has: {known}{close}")

    def __contains__(self, name: object) -> bool:
        return name in self.streams

    def __iter__(self) -> Iterator[str]:
        return iter(self.streams)

    def __len__(self) -> int:
        return len(self.streams)

    def __repr__(self) -> str:
        try:
            names = ", ".join(self.streams) or "empty"
        except CacheError:
            names = "cannot be read"
        return f"FeatureCache({str(self.folder)!r}: {names})"


class StreamShard:
    """A shard of a stream as its table describes it, not opened yet."""

    __slots__ = ("_size", "digest", "path", "tools")

    def __init__(self, path: Path, size: int, digest: str, tools: dict[str, str]) -> None:
        self.path = path
        self.digest = digest
        self.tools = tools
        self._size = size

    def __len__(self) -> int:
        """How many videos it holds, including failed ones."""
        return self._size

    def open(self) -> Shard:
        """Read its header.

        Raises:
            CacheError: it is damaged, or differs from what the index says.
        """
        shard = Shard(self.path)
        if shard.digest != self.digest:
            raise CacheError(
                f"{self.path}: not what the stream's index says it is; run `feature-cache verify --repair-index`"
            )
        return shard


class Stream(Mapping[str, VideoRecord]):
    """The videos of one stream that have rows, by id, in order; `failures` names the others.

    If several shards hold a video, a whole entry goes before a partial one, and that before a failure; among
    equals the first shard by name counts. What shards hold comes from the stream's index if that is up to date,
    else from their headers.

    Attributes:
        failures: by video id, why it could not be read.
        partial: by id of the partial videos among those with rows, why they are partial.
        index_trouble: why the index is not used; None: it is used, or there is none.

    Raises:
        CacheError: a shard is damaged, or shards of the folder disagree about what the stream is.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder
        self._read_only = read_only
        self._read()

    def _read(self) -> None:
        opened = open_table(self.folder, keep=_OPEN_SHARDS)
        if opened is None:
            raise CacheError(f"{self.folder}: no shards here")
        if not self._read_only:
            keep_index(self.folder, opened)
        self.index_trouble = opened.trouble
        self.table = table = opened.table
        self.spec: StreamSpec = table.spec
        self._open = opened.headers
        # A search of the table takes longer than reading a short video.
        self._places: dict[str, tuple[int, int]] = {}
        sizes = np.bincount(table.entries.shard, minlength=len(table.shards)).tolist()
        tools: dict[str, dict[str, str]] = {shard.tools: json.loads(shard.tools) for shard in table.shards}
        self.shards = [
            StreamShard(self.folder / shard.name, size, shard.digest, tools[shard.tools])
            for shard, size in zip(table.shards, sizes, strict=True)
        ]
        failed = np.asarray(table.entries.failed[table.first])
        self._readable = table.first[~failed]
        self.failures = self._texts(table.entries.error, table.first[failed])
        self.partial = self._texts(table.entries.error, self._readable[table.entries.partial[self._readable]])

    def _texts(self, column: Strings, entries: npt.NDArray[np.int64]) -> dict[str, str]:
        """A column's text of each entry, by video id."""
        return {self.table.entries.id[entry]: column[entry] for entry in entries.tolist()}

    @property
    def name(self) -> str:
        return self.folder.name

    def __getitem__(self, video_id: str) -> VideoRecord:
        for _ in range(5):
            place = self._places.get(video_id)
            if place is None:
                entry = self._entry(video_id)
                if entry is None:
                    break
                place = int(self.table.entries.shard[entry]), int(self.table.entries.position[entry])
                if len(self._places) >= _KNOWN_PLACES:
                    self._places.clear()
                self._places[video_id] = place
            number, position = place
            try:
                return self._shard(number).record(position)
            except CacheError:
                if self.shards[number].path.exists():
                    raise
                self._read()  # `feature-cache drop` has put another shard in its place
        if video_id in self.failures:
            reason = f"could not be read when it was extracted: {self.failures[video_id]}"
        else:
            reason = f"is not in stream {self.name!r} of {self.folder.parent}"
        raise MissingVideoError(f"video {video_id!r} {reason}")

    def __iter__(self) -> Iterator[str]:
        ids = self.table.entries.id
        return (ids[entry] for entry in map(int, self._readable))

    def __len__(self) -> int:
        return len(self._readable)

    def __repr__(self) -> str:
        spec = self.spec
        columns = (("features", spec.feature_dim), ("scores", spec.num_classes))
        failed = f" ({len(self.failures):,} failed)" if self.failures else ""
        return (
            f"Stream({self.name!r}: videos {len(self):,}{failed}, "
            f"rows {self.total_rows():,}{''.join(f', {name} {number:,}' for name, number in columns if number)})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to open it: no rows, which a pickle would copy."""
        return {"folder": self.folder, "_read_only": self._read_only}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._read()

    def to_frame(
        self,
        what: Literal["videos", "features", "scores"] = "videos",
        video_ids: Iterable[str] | None = None,
    ) -> pd.DataFrame:
        """As a table of pandas.

        Args:
            what: videos: a line for each, those that failed too, with their rows, seconds, rate, source and what
                is wrong. features, scores: a line for each row, by video and number, with the seconds that it saw
                and a column of float32 for each feature, or class; all of it is in memory then.
            video_ids: only these, in this order.

        Raises:
            UserError: pandas is not installed, or the stream has no features, or scores.
            MissingVideoError: the stream does not hold one of them.
        """
        ids = [*self, *self.failures] if video_ids is None else list(video_ids)
        if what == "videos":
            return table_of(self._of_videos(ids), index=("video_id",))
        spec = self.spec
        number = spec.feature_dim if what == "features" else spec.num_classes
        if not number:
            raise UserError(f"{self.folder}: this stream has no {what}")
        names = spec.classes if what == "scores" else None
        ids = list(self) if video_ids is None else ids
        return table_of_rows([self[video_id] for video_id in ids], what, names or range(number))

    def _of_videos(self, ids: Sequence[str]) -> dict[str, Any]:
        """What the table of videos has of some, by column."""
        for video_id in ids:
            if video_id not in self.failures and video_id not in self:
                self[video_id]  # which raises the error that says so
        with_rows = [video_id for video_id in ids if video_id in self]
        lengths = dict(zip(with_rows, self.source_lengths(with_rows).tolist(), strict=True))
        columns: dict[str, Any] = {
            "video_id": ids,
            "rows": [self.rows(video_id) if video_id in lengths else 0 for video_id in ids],
        }
        for place, name in enumerate(("duration_s", "fps")):
            columns[name] = [lengths.get(video_id, (np.nan, np.nan))[place] for video_id in ids]
        columns["source"] = [self.source(video_id) if video_id in lengths else "" for video_id in ids]
        columns["status"] = [
            "failed" if video_id in self.failures else "partial" if video_id in self.partial else "ok"
            for video_id in ids
        ]
        reasons = {**self.failures, **self.partial}
        columns["reason"] = [reasons.get(video_id, "") for video_id in ids]
        return columns

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self._entry(video_id) is not None

    def _entry(self, video_id: str) -> int | None:
        """The table's entry of a video that has rows, else None."""
        entry = self.table.find(video_id)
        return None if entry is None or self.table.entries.failed[entry] else entry

    def _known(self, video_id: str) -> int:
        entry = self._entry(video_id)
        if entry is None:
            raise KeyError(video_id)
        return entry

    def _shard(self, number: int) -> Shard:
        shard = self._open.get(number)
        if shard is None:
            shard = self._open[number] = self.shards[number].open()
            for oldest in list(self._open)[:-_OPEN_SHARDS]:  # a copy: other threads may be at it
                self._open.pop(oldest, None)
        return shard

    def rows(self, video_id: str) -> int:
        """The number of rows, T, of a video; does not open its shard."""
        return int(self.table.entries.rows[self._known(video_id)])

    def row_counts(self) -> npt.NDArray[np.int64]:
        """(M,): `rows` of each video, in order."""
        return np.asarray(self.table.entries.rows[self._readable], np.int64)

    def total_rows(self) -> int:
        """The sum of `rows` over all videos."""
        return int(self.table.entries.rows[self._readable].sum())

    def remarks(self) -> dict[str, tuple[str, ...]]:
        """By video id, what is odd about its file but harmless; only of videos with such remarks."""
        remarks = self.table.entries.remarks
        remarked = self._readable[np.diff(remarks.ends)[self._readable] > 0]
        return {video: tuple(lines.split("\n")) for video, lines in self._texts(remarks, remarked).items()}

    def decoders(self) -> dict[str, int]:
        """How many videos each decoder decoded, the largest number first; "" where the decoder is not known."""
        names, counts = np.unique(self.table.entries.decoder[self._readable], return_counts=True)
        order = np.argsort(-counts, kind="stable").tolist()
        return {names[i].decode(): int(counts[i]) for i in order}

    def fingerprint(self, video_id: str) -> str | None:
        """The fingerprint of the file that a video's rows come from; None where it has no rows."""
        entry = self._entry(video_id)
        return None if entry is None else self.table.entries.fingerprint[entry]

    def content(self, video_id: str) -> str:
        """A text that is equal in two caches if a video is from the same file: its fingerprint, or if that is
        unknown a checksum of the rows.

        Raises:
            KeyError: it has no rows.
        """
        entry = self._known(video_id)
        return self.table.entries.fingerprint[entry] or f"rows {self.table.entries.checksum[entry]:08x}"

    def checksum(self, video_id: str) -> int:
        """CRC-32 of a video's rows, see `shard.rows_checksum`. Raises KeyError where it has none."""
        return int(self.table.entries.checksum[self._known(video_id)])

    def failure(self, video_id: str, fingerprint: str) -> str | None:
        """Why a file with this content could not be read; None if it was not tried, or if the video has rows."""
        entries = self.table.entries
        if self._entry(video_id) is not None:
            return None
        for entry in self.table.all_of(video_id):
            if entries.fingerprint[entry] == fingerprint:
                return entries.error[entry]
        return None

    def tried(self, video_id: str, fingerprint: str) -> bool:
        """Whether there is an entry, with rows or failed, of a file with this content."""
        entries = self.table.entries
        return any(entries.fingerprint[entry] == fingerprint for entry in self.table.all_of(video_id))

    def source(self, video_id: str) -> str:
        """The name of the file that a video's rows come from."""
        entry = self._known(video_id)
        position = int(self.table.entries.position[entry])
        return self._shard(int(self.table.entries.shard[entry])).sources[position]

    def source_lengths(self, video_ids: Sequence[str]) -> npt.NDArray[np.float64]:
        """(M, 2): duration in seconds, and average frames a second, of the videos' source files.

        Their product is the number of frames. Opens each shard once, and reads its header only.
        """
        entries = np.array([self._known(video_id) for video_id in video_ids], np.int64)
        lengths = np.empty((len(entries), 2))
        shards = self.table.entries.shard[entries]
        for video in np.argsort(shards, kind="stable"):  # shard by shard, however many there are
            shard = self._shard(int(shards[video]))
            position = int(self.table.entries.position[entries[video]])
            lengths[video] = shard.durations_s[position], shard.fps[position]
        return lengths

    def digest(self, video_ids: Iterable[str] | None = None) -> str:
        """SHA-256 of the specification and the rows of some videos (all by default), however they are sharded."""
        # Without the precision, which the first shards' specifications did not have: the rows tell it.
        digest = hashlib.sha256(replace(self.spec, precision="").to_json().encode())
        for video_id in sorted(self if video_ids is None else video_ids):
            digest.update(f"\n{self.checksum(video_id):08x} {video_id}".encode())
        return digest.hexdigest()


def shard_paths(folder: Path) -> list[Path]:
    """The complete shards of a stream's folder, in order of name."""
    return sorted(folder.glob(_SHARDS))
