"""A folder with a file for each video: npy, or npz or CSV as `feature-cache export` writes them."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cache_schema.columns import SECONDS, meaning, of_digits
from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.arrays import map_npy, open_npz
from cache_schema.importers.rows import Rows, Source, What, check_ids, place_of, rows_of
from cache_schema.schema import Array, Float64Array, StreamSpec, numbers_of
from cache_schema.tools.export import LIST_COLUMNS, LIST_NAME, SPEC_NAME

KINDS = frozenset({".npy", ".npz"})
TEXT_KINDS = frozenset({".csv"})
_NUMBERS = ("duration_s", "fps")
_FEATS = "feats"  # as ActionFormer and others call features
# Of lists that were exported when no video could be partial.
_COLUMNS_BEFORE = tuple(column for column in LIST_COLUMNS if column not in {"partial", "lost"})


class Folder(Source):
    """The npy and npz files below a folder, or where there are none the CSVs, in order of id; no hidden files.

    A video's id is its file's path below the folder without its ending. The `videos.csv` of an export goes before
    that, and has what an npy file has no room for: duration, rate, source and fingerprint.

    Args:
        what: which array to import; None: all that an npz file has, and of an npy file features.
        array: the name of the arrays in npz files; None: the usual ones.
        id_of: gives a file's id from its path below the folder, in place of that path; None: not to be read.

    Raises:
        UserError: there is nothing to import, an id occurs twice, or a file that is listed is missing.
    """

    def __init__(
        self,
        folder: Path,
        what: What | None,
        *,
        array: str | None = None,
        id_of: Callable[[Path], str | None] | None = None,
    ) -> None:
        self._folder, self._what, self._array = folder, what, array
        self._listed = read_list(folder / LIST_NAME, key="file")
        if array is None and (folder / SPEC_NAME).exists():
            self.spec = read_spec(folder / SPEC_NAME)
        found: dict[str, Path] = {}
        names = set()
        files = sorted(files_below(folder))
        kinds = KINDS if any(file.suffix.lower() in KINDS for file in files) else TEXT_KINDS
        for path in files:
            below = path.relative_to(folder)
            name = printable(below)
            if path.suffix.lower() in kinds and not (name == LIST_NAME and self._listed):
                names.add(name)
                usual = id_of(below) if id_of else name[: -len(path.suffix)]
                video_id = self._listed.get(name, {"id": usual})["id"]
                if video_id is None:
                    continue
                if (other := found.setdefault(video_id, path)) is not path:
                    raise UserError(
                        f"{printable(folder)}: video {video_id!r} occurs twice, as "
                        f"{printable(other.relative_to(folder))} and as {name}"
                    )
            elif name != SPEC_NAME and (name != LIST_NAME or not self._listed):
                self.ignored += 1
        if absent := next((name for name in self._listed if name not in names), None):
            raise UserError(
                f"{printable(folder / LIST_NAME)}: lists {absent}, which is not there: export again, or delete "
                "the line"
            )
        if not found:
            raise UserError(f"{printable(folder)}: no npy, npz or CSV files below this folder")
        self._videos = sorted(found.items())
        self.ids = check_ids([video_id for video_id, _ in self._videos], folder)
        if kinds is TEXT_KINDS:
            first = self._videos[0][1]
            self._columns = _csv_columns(first)
            self._what, self.classes = meaning(self._columns, what)

    def __iter__(self) -> Iterator[Rows]:
        for video_id, path in self._videos:
            place = place_of(video_id, path)
            name = printable(path.relative_to(self._folder))
            listed = self._listed.get(name, {})
            read = {".npy": self._npy, ".csv": self._csv}.get(path.suffix.lower(), self._npz)
            arrays = read(path, place)
            yield Rows(video_id, place, **{**described(listed, place, name), **arrays})

    def _csv(self, path: Path, place: str) -> dict[str, Any]:
        what = self._what or "features"
        columns, spans, values = _read_csv(path, place)
        if columns != self._columns:
            raise UserError(f"{place}: other columns than {printable(self._videos[0][1])} has")
        return {
            what: rows_of(values, what, place),
            "spans": spans_in_order(spans, len(values), place),
        }

    def _npy(self, path: Path, place: str) -> dict[str, Any]:
        what = self._what or "features"
        if self._array is not None:
            raise UserError(f"{place}: an npy file has one array, without a name: leave out --array")
        return {what: rows_of(map_npy(path), what, place)}

    def _npz(self, path: Path, place: str) -> dict[str, Any]:
        wanted: dict[What, str] = {"features": "features", "scores": "scores"}
        if self._array is not None:
            wanted = {self._what or "features": self._array}
        elif self._what is not None:
            wanted = {self._what: self._what}
        with open_npz(path) as file:
            if self._array is None and "features" in wanted and "features" not in file.names:
                wanted["features"] = _FEATS
            arrays: dict[str, Any] = {
                what: rows_of(file[name], what, place) for what, name in wanted.items() if name in file.names
            }
            if not arrays:
                names = ", ".join(file.names) or "none"
                expected = " or ".join(map(repr, [self._array] if self._array else wanted))
                raise UserError(
                    f"{place}: no array {expected}; it has: {names}; --array NAME says which is meant"
                )
            if len({len(values) for values in arrays.values()}) > 1:
                raise UserError(f"{place}: as many rows of features as of scores are expected")
            rows = len(next(iter(arrays.values())))
            spans = spans_in_order(file["spans"], rows, place) if "spans" in file.names else None
            seconds = {name: _number(file[name] if name in file.names else None, place) for name in _NUMBERS}
        return {**arrays, "spans": spans, **seconds}


def files_below(folder: Path) -> Iterator[Path]:
    """The files below a folder, without hidden ones; links to folders are followed, each folder visited once."""
    visited: set[str] = set()

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror or error}") from error

    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(root)
        if real in visited:  # links may lead back
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in names if not name.startswith("."))


def _csv_columns(path: Path) -> list[str]:
    """The columns of a video's CSV, but for its seconds. Raises UserError where it is none."""
    with _reading_csv(path) as lines:
        header = next(lines, [])
    if tuple(header[:2]) != SECONDS or len(header) < 3:
        raise UserError(
            f"{printable(path)}: the first line of a video's CSV must be {','.join(SECONDS)},NAME,…; a CSV of all "
            "videos is imported as a file"
        )
    return header[2:]


def _read_csv(path: Path, place: str) -> tuple[list[str], Float64Array, Float64Array]:
    """The columns of a video's CSV, (T, 2) seconds, and (T, D) numbers."""
    columns = _csv_columns(path)
    with _reading_csv(path) as lines:
        next(lines)
        cells = [line for line in lines if line]
    if other := next((n for n, line in enumerate(cells, 2) if len(line) != len(columns) + 2), None):
        raise UserError(
            f"{place}, line {other}: {len(cells[other - 2])} cells, but {len(columns) + 2} in the first"
        )
    try:
        numbers = np.array(of_digits(cells), np.float64).reshape(-1, len(columns) + 2)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from error
    return columns, numbers[:, :2], numbers[:, 2:]


@contextlib.contextmanager
def _reading_csv(path: Path) -> Iterator[Iterator[list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield csv.reader(file, strict=True)
    except OSError as error:
        raise UserError(f"{printable(path)}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{printable(path)}: not CSV in UTF-8: {error}") from error


def read_list(path: Path, *, key: Literal["file", "id"]) -> dict[str, dict[str, str]]:
    """The lines of an export's list by file name, or id; empty where there is none, or it is not an export's."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            if tuple(table.fieldnames or ()) not in {LIST_COLUMNS, _COLUMNS_BEFORE}:
                return {}
            listed = {line[key]: line for line in table}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{printable(path)}: cannot be read: {reason}") from error
    if cut := next((name for name, line in listed.items() if set(map(type, line.values())) != {str}), None):
        raise UserError(f"{printable(path)}: the line of {cut} is not whole; export again")
    return listed


def read_spec(path: Path) -> StreamSpec:
    """What an export's stream is. Raises UserError where the file does not say it."""
    try:
        return spec_of(path.read_bytes(), path)
    except OSError as error:
        raise UserError(f"{printable(path)}: cannot be read: {error.strerror or error}") from error


def spec_of(content: bytes, path: Path) -> StreamSpec:
    """The same from its JSON."""
    try:
        return StreamSpec.from_json(content.decode())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{printable(path)}: does not say what its stream is ({error}): export again"
        ) from error


def spans_in_order(spans: Array, rows: int, place: str) -> Float64Array:
    """Seconds that a file gives, or NaN for all. Raises UserError where they are neither."""
    if spans.shape != (rows, 2) or spans.dtype.kind != "f":
        raise UserError(
            f"{place}: its spans are {spans.dtype} of shape {spans.shape}, not seconds of shape {(rows, 2)}"
        )
    seconds = spans.astype(np.float64)
    starts, ends = seconds.T
    in_order = np.isfinite(seconds).all() and (starts <= ends).all() and (np.diff(starts) >= 0).all()
    if not (in_order or np.isnan(seconds).all()):
        raise UserError(f"{place}: its spans are not finite and in order")
    return seconds


def _partial(listed: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The `damage` and `lost` of a video in an export's list."""
    damage, text = listed.get("partial") or None, listed.get("lost") or ""
    try:
        lost = numbers_of(text)
    except ValueError as error:
        raise UserError(f"{place}: rows that it lacks, in {LIST_NAME}: {error}") from error
    if lost and damage is None:
        raise UserError(f"{place}: lacks rows {text} and is not partial, in {LIST_NAME}: export again")
    return {"damage": damage, "lost": lost}


def described(listed: Mapping[str, Any], place: str, source: str) -> dict[str, Any]:
    """What a list, or a table, says of a video beside its rows, as fields of `Rows`.

    Args:
        source: used where it says none.
    """
    return {
        **{name: _number(listed.get(name), place) for name in _NUMBERS},
        "source": listed.get("source", source) or "",
        "fingerprint": listed.get("fingerprint") or "",
        **_partial(listed, place),
    }


def _number(value: Array | str | None, place: str) -> float:
    """A duration or rate; NaN where there is none. Raises UserError where it is something else."""
    try:
        return float("nan") if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{place}: its duration or rate is not a number: {value!r:.60}") from error
