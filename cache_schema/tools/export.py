"""Export a stream as one file per video, for other tools."""

from __future__ import annotations

import csv
import hashlib
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache_schema.cache import Stream
from cache_schema.columns import SECONDS, What, column_names, digits
from cache_schema.errors import CacheError, UserError
from cache_schema.files import remove_stale_temporaries, replacing
from cache_schema.run_folder import write_atomically
from cache_schema.schema import StreamSpec, VideoRecord, ranges

FORMS = ("npy", "npz", "csv")
LIST_NAME = "videos.csv"
SPEC_NAME = "thriftvid-stream.json"
"""Beside the list: what the stream is (`exported_spec`)."""
LIST_COLUMNS = (
    "id",
    "file",
    "rows",
    "columns",
    "duration_s",
    "fps",
    "first_s",
    "last_s",
    "source",
    "fingerprint",
    "partial",
    "lost",
)

# File systems take 255 bytes in a name; what temporary names and the ending add has to fit too.
_LONGEST = 150

Layout = dict[str, tuple[object, object]]
"""By array, its shape and type; of a CSV, how many rows and which columns it has."""


@dataclass
class Exported:
    """What an export did: files written, files there already, and by video id why it is partial or failed.

    Partial videos have files, with the rows that there are; failed ones have none.
    """

    written: int = 0
    present: int = 0
    partial: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def export(
    stream: Stream,
    out: Path,
    *,
    video_ids: Iterable[str] | None = None,
    form: str = "npz",
    what: What | None = None,
    dtype: str = "float16",
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write the videos of a stream below a folder, and `videos.csv` that lists them.

    The list says why a video is partial, and the numbers of the rows that it lacks; `thriftvid-stream.json` beside
    it what the stream is, its cost and its sampling.

    An npy file is the features, or the scores, (T, D). An npz file has `features` (T, D), `scores` (T, C) where
    the stream has them, `spans` (T, 2) in seconds, `duration_s` and `fps`; `what` keeps only one of the first two.
    A csv file has a line for each row: start_s, end_s, and the scores, or where there are none the features, in
    the fewest digits that say them exactly.
    A file that is there already is complete, and stays if its arrays have the same shapes and types.

    Raises:
        UserError: the stream has no scores, or no features, or the folder cannot be written to.
    """
    if form == "npy":
        what = what or "features"
    elif form == "csv":
        what = what or usual_columns(stream)
    if what is not None:
        check_has(stream, what)
    columns = column_names(stream.spec, what) if form == "csv" and what else ()
    exported = Exported()
    ids = chosen_ids(stream, video_ids)
    try:
        out.mkdir(parents=True, exist_ok=True)
        root = out.resolve()
        remove_stale_temporaries(out)
        with (
            replacing(out / LIST_NAME) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            write_atomically(out / SPEC_NAME, exported_spec(stream.spec, what).to_json().encode())
            table = csv.writer(file)
            table.writerow(LIST_COLUMNS)
            for record in readable(stream, ids, exported, report):
                video_id = record.id
                name = file_name(video_id, form)
                arrays = _arrays(record, what, dtype, form)
                reason = _write(
                    root / name, root, arrays, form, columns, overwrite=overwrite, exported=exported
                )
                if reason is None:
                    if record.damage is not None:
                        exported.partial[video_id] = record.damage
                    table.writerow(list_line(record, name, next(iter(arrays.values())).shape[1]))
                else:
                    exported.failed[video_id] = reason
    except OSError as error:
        raise UserError(f"{error.filename or out}: cannot be written: {error.strerror or error}") from error
    return exported


def readable(
    stream: Stream, ids: Sequence[str], exported: Exported, report: Callable[[int, int], None]
) -> Iterator[VideoRecord]:
    """The videos that have rows; the others are noted as failed."""
    for number, video_id in enumerate(ids):
        report(number, len(ids))
        try:
            record = stream[video_id]
        except CacheError as error:
            exported.failed[video_id] = stream.failures.get(video_id, str(error))
        else:
            yield record
    report(len(ids), len(ids))


def chosen_ids(stream: Stream, video_ids: Iterable[str] | None) -> list[str]:
    """In order: those that are wanted, or all that the stream has or has failed at."""
    return sorted(set(stream) | set(stream.failures) if video_ids is None else set(video_ids))


def exported_spec(spec: StreamSpec, what: What | None) -> StreamSpec:
    """What an export says of its stream: of features or scores alone, a stream that has only these.

    Without features a row's scores cost all that they take, the classifier included.
    """
    if what == "features":
        return replace(spec, num_classes=0, classes=None)
    if what == "scores":
        macs = spec.macs_per_row + spec.feature_dim * spec.num_classes
        return replace(spec, feature_dim=0, macs_per_row=macs)
    return spec


def usual_columns(stream: Stream) -> What:
    """Of formats that have one kind of columns: scores where there are any."""
    return "scores" if stream.spec.num_classes else "features"


def check_has(stream: Stream, what: What) -> None:
    """Raise UserError where a stream has none of these."""
    if what == "scores" and not stream.spec.num_classes:
        raise UserError(f"{stream.folder}: this stream has no scores; use --what features")
    if what == "features" and not stream.spec.feature_dim:
        raise UserError(f"{stream.folder}: this stream has no features; use --what scores")


def _arrays(record: VideoRecord, what: str | None, dtype: str, form: str) -> dict[str, npt.NDArray[Any]]:
    both = {"features": record.features, "scores": record.scores}
    chosen = {
        name: values.astype(dtype, copy=False)
        for name, values in both.items()
        if values is not None and values.shape[1] and what in {None, name}
    }
    if form == "npy":
        return {"": next(iter(chosen.values()))}
    if form == "csv":
        return {"": next(iter(chosen.values())), "spans": record.spans}
    rest = {"spans": record.spans, "duration_s": np.float64(record.duration_s), "fps": np.float64(record.fps)}
    return {**chosen, **{name: np.asarray(value) for name, value in rest.items()}}


def _write(
    path: Path,
    root: Path,
    arrays: dict[str, npt.NDArray[Any]],
    form: str,
    columns: tuple[str, ...],
    *,
    overwrite: bool,
    exported: Exported,
) -> str | None:
    """Write a video's file, unless it is there. Returns why that failed, or None."""
    try:
        if path.exists() and not overwrite:
            expected: Layout = {name: (values.shape, values.dtype) for name, values in arrays.items()}
            if form == "csv":
                expected = {"": (len(arrays[""]), [*SECONDS, *columns])}
            if _layout(path, form) != expected:
                return f"{path} is there and is something else: use --overwrite, or another --out"
            exported.present += 1
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.resolve().is_relative_to(root):
            return f"{path.parent} is a link that leads out of {root}"
        with replacing(path) as temporary:
            if form == "csv":
                _write_csv(temporary, arrays, columns)
            elif form == "npy":
                with temporary.open("wb") as file:
                    np.save(file, next(iter(arrays.values())), allow_pickle=False)
            else:
                with temporary.open("wb") as file:
                    np.savez(file, **arrays)  # type: ignore[arg-type]
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        return f"{error.filename or path} is in the way: use another --out"
    exported.written += 1
    return None


def _write_csv(path: Path, arrays: dict[str, npt.NDArray[Any]], columns: tuple[str, ...]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow([*SECONDS, *columns])
        seconds, values = digits(arrays["spans"]), digits(arrays[""])
        table.writerows([*two, *row] for two, row in zip(seconds, values, strict=True))


def _layout(path: Path, form: str) -> Layout | None:
    """What is in a file; None if it is not an export's."""
    try:
        if form == "csv":
            with path.open(encoding="utf-8", newline="") as text:
                lines = csv.reader(text, strict=True)
                header = next(lines)
                return {"": (sum(len(line) == len(header) for line in lines), header)}
        if form == "npy":
            kept = np.load(path, mmap_mode="r", allow_pickle=False)
            return {"": (kept.shape, kept.dtype)}
        layout: Layout = {}
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    version = np.lib.format.read_magic(member)
                    read = np.lib.format.read_array_header_1_0
                    if version != (1, 0):
                        return None
                    shape, _, dtype = read(member)
                    layout[name.removesuffix(".npy")] = shape, dtype
        return layout
    except (ValueError, zipfile.BadZipFile, EOFError, csv.Error, StopIteration):
        return None


def file_name(video_id: str, form: str) -> str:
    """A video's path below the folder: different for different ids, and never outside.

    "/" separates folders. "%", a leading dot and characters that some file system refuses are written as %XX; an
    empty name is "%", and a very long one ends in a digest.
    """
    *folders, name = (_safe(part) for part in video_id.split("/"))
    # A folder "a.npz" would be in the way of the video "a", and "videos.csv" of the list.
    folders = [re.sub(r"\.(?=(npy|npz|csv)$)", "%2E", folder) for folder in folders]
    if (
        not folders and f"{name}.{form}".lower() == LIST_NAME
    ):  # on some file systems small letters are large ones
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return "/".join([*folders, f"{name}.{form}"])


def _safe(part: str) -> str:
    escaped = re.sub(r'^\.|[%\\:*?"<>|\x00-\x1f\x7f]', lambda match: f"%{ord(match[0]):02X}", part)
    if len(escaped.encode()) > _LONGEST:
        digest = hashlib.sha256(part.encode()).hexdigest()[:32]
        return f"{escaped.encode()[: _LONGEST - 40].decode(errors='ignore')}%~{digest}"
    return escaped or "%"


def list_line(record: VideoRecord, name: str, columns: int) -> list[object]:
    """A video's line in the list, of its LIST_COLUMNS."""
    first, last = float(record.spans[0, 0]), float(record.spans[-1, 1])
    seconds = [record.duration_s, record.fps, first, last]
    origin = [record.source, record.fingerprint, record.damage or "", ranges(record.lost)]
    return [record.id, name, len(record.spans), columns, *seconds, *origin]
