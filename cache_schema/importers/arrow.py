"""Tables of Arrow: a parquet file with a line for each row, and a data set of Hugging Face's, saved to disk.

What `feature-cache export` writes, and such of others with the same columns. pyarrow is an extra; nothing in these
formats is executed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from cache_schema.annotations.table import VIDEO_COLUMNS, plain
from cache_schema.columns import ID, NUMBER, SECONDS, meaning
from cache_schema.errors import UserError
from cache_schema.extras import need
from cache_schema.files import printable
from cache_schema.importers.folder import described, read_list, spans_in_order, spec_of
from cache_schema.importers.rows import Rows, Source, What, check_ids, place_of, rows_of
from cache_schema.schema import Array, Float64Array
from cache_schema.tools.datasets import CLASSES, SPEC, STATE
from cache_schema.tools.export import LIST_NAME

PARQUET = ".parquet"
DATASET_DICT = "dataset_dict.json"
_INDEX = "__index_level_0__"  # pandas' name of an index without one
_LINES = 4096  # of a parquet table, read at once
_VIDEOS = 64  # of a data set, likewise


class ParquetTable(Source):
    """A parquet file: video_id, perhaps row, start_s and end_s, and a column for each class, or feature.

    The lines of a video are one below the other. The `videos.csv` of an export beside it has the rest.

    Raises:
        UserError: pyarrow is not installed, or the file is no such table.
    """

    def __init__(self, path: Path, what: What | None) -> None:
        parquet: Any = need("pyarrow.parquet", "parquet", f"{printable(path)}: a parquet file")
        self._path = path
        with _readable(path):
            self._file = parquet.ParquetFile(path)
            names = list(self._file.schema_arrow.names)
            id_column = _id_column(names)
            if not id_column:
                raise UserError(f"{printable(path)}: no column {ID!r}; it has: {', '.join(names[:10])}")
            ids = self._file.read(columns=[id_column])[id_column].to_pylist()
        metadata = self._file.schema_arrow.metadata or {}
        if SPEC in metadata:
            self.spec = spec_of(metadata[SPEC], path)
        self._columns = [name for name in names if name not in (id_column, _INDEX, NUMBER, *SECONDS)]
        self._seconds = all(name in names for name in SECONDS)
        if not self._columns or len(set(names)) < len(names):
            raise UserError(
                f"{printable(path)}: beside {id_column} a column for each class, or feature, is expected"
            )
        self._what, self.classes = meaning(self._columns, what)
        starts = [n for n, video in enumerate(ids) if n == 0 or video != ids[n - 1]]
        self._ends = [*starts, len(ids)]
        if any(not isinstance(ids[start], str) for start in starts):
            raise UserError(f"{printable(path)}: its {id_column} are no texts")
        self.ids = check_ids([ids[start] for start in starts], path)  # lines of a video that are apart, too
        self._listed = read_list(path.parent / LIST_NAME, key="id")

    def __iter__(self) -> Iterator[Rows]:
        for video_id, columns in zip(self.ids, self._videos(), strict=True):
            place = place_of(video_id, self._path)
            values = np.stack([columns[name] for name in self._columns], axis=1)
            spans = None
            if self._seconds:
                seconds = np.stack([columns[name] for name in SECONDS], axis=1).astype(np.float64)
                spans = spans_in_order(seconds, len(values), place)
            arrays: dict[str, Any] = {self._what: rows_of(values, self._what, place)}
            listed = self._listed.get(video_id, {})
            about = described(listed, place, printable(Path(self._path.name)))
            yield Rows(video_id, place, **arrays, spans=spans, **about)

    def _videos(self) -> Iterator[dict[str, Array]]:
        """The columns of each video, in order."""
        names = [*self._columns, *(SECONDS if self._seconds else ())]
        left = {name: np.empty(0) for name in names}
        ends = iter(self._ends[1:])
        end, start = next(ends, None), 0
        with _readable(self._path):
            for batch in self._file.iter_batches(batch_size=_LINES, columns=names):
                for name in names:
                    column = _numbers(batch.column(name), name, self._path)
                    left[name] = np.concatenate([left[name], column]) if len(left[name]) else column
                done = start
                while end is not None and end - start <= len(left[names[0]]):
                    yield {name: left[name][done - start : end - start] for name in names}
                    done, end = end, next(ends, None)
                left = {name: values[done - start :] for name, values in left.items()}
                start = done


class SavedDataset(Source):
    """A line for each video: what `Dataset.save_to_disk` of Hugging Face's datasets, or an export, has written, or
    parquet files of such a data set.

    Columns: video_id, or called alike (`VIDEO_COLUMNS`); features, scores or both, lists of T rows, or one row;
    perhaps spans, duration_s, fps, source, fingerprint, partial and lost.

    Args:
        files: of parquet; None: those of Arrow in the folder.
        array: name of the column to take, in place of features and scores.

    Raises:
        UserError: pyarrow is not installed, or the folder is no such data set.
    """

    def __init__(
        self,
        folder: Path,
        what: What | None,
        *,
        files: Sequence[Path] | None = None,
        array: str | None = None,
    ) -> None:
        need("pyarrow", "hf" if files is None else "parquet", f"{printable(folder)}: a data set")
        self._files = files or [folder / name for name in _data_files(folder)]
        with _readable(self._files[0]):
            schema = self._schema(self._files[0])
        usual: tuple[What, ...] = ("features", "scores")
        self._columns: dict[What, str] = {
            name: name for name in usual if name in schema.names and what in (None, name)
        }
        if array is not None:
            self._columns = {what or "features": array} if array in schema.names else {}
        self._id = _id_column(schema.names)
        names = f"it has: {', '.join(schema.names)}"
        if not self._columns:
            wanted = f"column {array!r}" if array else f"columns {ID} and features, or scores"
            raise UserError(f"{printable(folder)}: no {wanted}; {names}; --array NAME says which is meant")
        if not self._id:
            raise UserError(f"{printable(folder)}: no column {ID!r}, or 'id', of the videos' ids; {names}")
        metadata = schema.metadata or {}
        if "scores" in self._columns and CLASSES in metadata:
            self.classes = _classes(metadata[CLASSES], folder)
        if array is None and SPEC in metadata:
            self.spec = spec_of(metadata[SPEC], folder)
        ids: list[str] = []
        for path in self._files:
            with _readable(path):
                for batch in self._batches(path):
                    ids += batch.column(self._id).to_pylist()
        if any(not isinstance(video_id, str) for video_id in ids):
            raise UserError(f"{printable(folder)}: its {self._id} are no texts")
        self.ids = check_ids(ids, folder)

    @staticmethod
    def _schema(path: Path) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if path.suffix == PARQUET:
            return pq.read_schema(path)
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            return stream.schema

    @staticmethod
    def _batches(path: Path) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if path.suffix == PARQUET:
            yield from pq.ParquetFile(path).iter_batches(batch_size=_VIDEOS)
            return
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            for batch in stream:
                for start in range(0, batch.num_rows, _VIDEOS):
                    yield batch.slice(start, _VIDEOS)

    def __iter__(self) -> Iterator[Rows]:
        for path in self._files:
            with _readable(path):
                for batch in self._batches(path):
                    yield from self._rows(batch, path)

    def _rows(self, batch: Any, path: Path) -> Iterator[Rows]:
        names = batch.schema.names
        texts = {
            name: batch.column(name).to_pylist()
            for name in ("source", "fingerprint", "partial", "lost", "duration_s", "fps")
            if name in names
        }
        for number, video_id in enumerate(batch.column(self._id).to_pylist()):
            place = place_of(video_id, path)
            arrays: dict[str, Any] = {
                what: rows_of(_matrix(batch.column(name), number, place), what, place)
                for what, name in self._columns.items()
            }
            if len({len(values) for values in arrays.values()}) > 1:
                raise UserError(f"{place}: as many rows of features as of scores are expected")
            rows = len(next(iter(arrays.values())))
            spans: Float64Array | None = None
            if "spans" in names:
                spans = spans_in_order(_matrix(batch.column("spans"), number, place), rows, place)
            about = described(
                {name: column[number] for name, column in texts.items()}, place, printable(Path(path.name))
            )
            yield Rows(video_id, place, **arrays, spans=spans, **about)


def open_parquet(path: Path, what: What | None, array: str | None) -> Source:
    """A parquet file with a line for each row, or for each video, whose rows are lists then.

    Raises:
        UserError: as these.
    """
    parquet: Any = need("pyarrow.parquet", "parquet", f"{printable(path)}: a parquet file")
    with _readable(path):
        schema = parquet.read_schema(path)
    wanted = [array] if array else ["features", "scores"]
    kinds = [str(field.type) for field in schema if field.name in wanted]
    if array or any("list" in kind for kind in kinds):
        return SavedDataset(path, what, files=[path], array=array)
    return ParquetTable(path, what)


def _id_column(names: Sequence[str]) -> str:
    """Which column has the videos' ids, in tables without another the index of pandas; empty: none."""
    known = {plain(name): name for name in reversed(names)}
    return next((known[name] for name in VIDEO_COLUMNS if name in known), _INDEX if _INDEX in names else "")


def _data_files(folder: Path) -> list[str]:
    """Names of a data set's files of Arrow. Raises UserError where that is not what they are."""
    path = folder / STATE
    try:
        names = [file["filename"] for file in json.loads(path.read_text(encoding="utf-8"))["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{printable(path)}: cannot be read as that of a data set: {error}") from error
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise UserError(f"{printable(path)}: names no files beside it")
    return names


def _classes(content: bytes, folder: Path) -> tuple[str, ...]:
    try:
        names = json.loads(content)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{printable(folder)}: its class names are no list of texts")
    return tuple(names)


def _matrix(column: Any, number: int, place: str) -> Array:
    """A video's cell as (T, D), or (D,) where it is one row. Raises UserError where it is neither."""
    values = column[number].values if column[number].is_valid and hasattr(column[number], "values") else None
    if values is None:
        raise UserError(f"{place}: no list of numbers where its rows should be")
    rows = len(values)
    nested = hasattr(values, "flatten") and hasattr(values.type, "value_type")
    flat = values.flatten() if nested else values
    if nested:
        widths = set(_widths(values))
        if len(widths) > 1:
            raise UserError(f"{place}: its rows are not of one length")
    numbers = _numbers(flat, "rows", place)
    return numbers.reshape(rows, -1) if nested and rows else numbers


def _widths(values: Any) -> Sequence[int]:
    if hasattr(values.type, "list_size"):
        return [values.type.list_size]
    return [end - start for start, end in pairwise(values.offsets.to_pylist())]


def _numbers(column: Any, name: str, where: Path | str) -> Array:
    """A column as numbers; those that are missing are NaN. Raises UserError where it has none."""
    array: Array = column.to_numpy(zero_copy_only=False)
    if array.dtype.kind not in "iuf":
        raise UserError(f"{where}: {name!r} is {column.type}, which is no type of numbers")
    return array


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises UserError for what pyarrow raises of a file that cannot be read."""
    import pyarrow as pa

    try:
        yield
    except OSError as error:
        raise UserError(f"{printable(path)}: cannot be read: {error.strerror or error}") from error
    except (pa.ArrowException, MemoryError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise UserError(f"{printable(path)}: not a readable file of {path.suffix[1:]}: {first}") from error
