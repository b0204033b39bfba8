"""Export a stream as one data set of Arrow: a parquet table, or a data set of Hugging Face.

OUT/scores.parquet, or features.parquet   a line for each row: video_id, row, start_s, end_s, a column for each
                                          class, or feature
OUT/videos.csv                            beside it, as of the other exports

OUT/data-00000.arrow, …                   a line for each video: video_id, features (T, D), scores (T, C), spans
                                          (T, 2), and what videos.csv says
OUT/dataset_info.json, OUT/state.json     which `datasets.load_from_disk` reads

pyarrow is an extra. OUT appears as a whole, or not at all.
"""

from __future__ import annotations

import csv
import json
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cache_schema.arguments import checks_arguments, speaks_python
from cache_schema.cache import Stream
from cache_schema.columns import ID, NUMBER, SECONDS, What, column_names
from cache_schema.errors import UserError
from cache_schema.extras import need
from cache_schema.files import (
    StrPath,
    making_folder,
    missing_folders,
    remove_empty,
    remove_stale_temporaries,
)
from cache_schema.schema import Array, StreamSpec, VideoRecord, ranges
from cache_schema.tools.export import (
    LIST_COLUMNS,
    LIST_NAME,
    Exported,
    check_has,
    chosen_ids,
    export,
    exported_spec,
    list_line,
    readable,
    usual_columns,
)

FORMS = ("parquet", "hf")
TABLES = ("scores.parquet", "features.parquet")
STATE, INFO = "state.json", "dataset_info.json"
CLASSES = b"thriftvid.classes"
"""Of a schema's metadata: names of the columns of scores, as a JSON list."""
SPEC = b"thriftvid.stream"
"""Likewise: what the stream is (`exported_spec`), as JSON."""

# Of rows in memory, and in a file of arrow.
_PART_BYTES, _FILE_BYTES = 16 << 20, 500 << 20
_TEXTS = ("source", "fingerprint", "partial", "lost")


@speaks_python(format="form")
@checks_arguments
def export_features(
    stream: Stream,
    out: StrPath,
    *,
    form: Literal["npy", "npz", "csv", "parquet", "hf"] = "npz",
    what: What | None = None,
    dtype: Literal["float16", "float32"] | None = None,
    video_ids: Sequence[str] | None = None,
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write a stream, `cache["NAME"]`, for other tools; the arguments are the options of feature-cache export.

    Args:
        form: as --format.
        video_ids: only these.
        report: called with the number of videos before each, and of all.

    Returns:
        What was written. Videos that failed are in it, with the reason, and are no error.

    Raises:
        UserError: as `export` and `export_dataset`, or an option does not go with the form.
    """
    if form == "csv" and dtype is not None:
        raise UserError("--dtype: a CSV has digits, which say the cache's numbers exactly: leave it out")
    if form not in FORMS:
        return export(
            stream,
            Path(out),
            form=form,
            what=what,
            dtype=dtype or "float16",
            video_ids=video_ids,
            overwrite=overwrite,
            report=report,
        )
    if overwrite:
        raise UserError(f"--overwrite: --format {form} writes a folder as a whole: choose another --out")
    return export_dataset(
        stream, Path(out), form=form, what=what, dtype=dtype, video_ids=video_ids, report=report
    )


def export_dataset(
    stream: Stream,
    out: Path,
    *,
    form: str,
    video_ids: Iterable[str] | None = None,
    what: What | None = None,
    dtype: str | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write the videos of a stream to a folder that is not there yet, or is empty.

    Args:
        form: one of FORMS. Videos that failed are in neither.
        what: only these; a parquet table has either, by default scores where there are any.
        dtype: float16, or float32, which every reader of parquet knows: the default of that.

    Raises:
        UserError: pyarrow is not installed, the stream has none of these, the folder holds something, or it cannot
            be written to.
    """
    purpose = "--format parquet" if form == "parquet" else "--format hf"
    need("pyarrow", form, purpose)
    if form == "parquet":
        what = what or usual_columns(stream)
    if what is not None:
        check_has(stream, what)
    exported = Exported()
    write = _write_parquet if form == "parquet" else _write_hf
    missing = missing_folders(out.parent)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(
                f"{out}: is there already, and {purpose} writes a folder as a whole: choose another --out"
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(out.parent)
        with making_folder(out) as folder:
            records = readable(stream, chosen_ids(stream, video_ids), exported, report)
            write(folder, stream.spec, _counted(records, exported), what, dtype)
            if not exported.written:
                raise UserError(
                    f"{stream.folder}: none of these videos has rows, so that there is nothing to write"
                )
    except OSError as error:
        raise UserError(f"{error.filename or out}: cannot be written: {error.strerror or error}") from error
    finally:
        remove_empty(missing)  # of what was refused; else the last holds what was written
    return exported


def _counted(records: Iterable[VideoRecord], exported: Exported) -> Iterator[VideoRecord]:
    """The same, counted."""
    for record in records:
        exported.written += 1
        if record.damage is not None:
            exported.partial[record.id] = record.damage
        yield record


def _parts(records: Iterator[VideoRecord]) -> Iterator[list[VideoRecord]]:
    """Some of the videos at a time, as many as memory is spent on."""
    part: list[VideoRecord] = []
    size = 0
    for record in records:
        part.append(record)
        size += record.features.nbytes + (0 if record.scores is None else record.scores.nbytes)
        if size > _PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _write_parquet(
    folder: Path, spec: StreamSpec, records: Iterator[VideoRecord], what: What | None, dtype: str | None
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert what is not None
    names = column_names(spec, what)
    if taken := {ID, NUMBER, *SECONDS}.intersection(names):
        raise UserError(f"a class is called {min(taken)!r}, as a column of the table is: export as npz or hf")
    values_of_type = pa.float16() if dtype == "float16" else pa.float32()
    schema = pa.schema(
        [(ID, pa.string()), (NUMBER, pa.int64()), *((name, pa.float64()) for name in SECONDS)]
        + [(name, values_of_type) for name in names],
        metadata={SPEC: exported_spec(spec, what).to_json()},
    )
    file_name = f"{what}.parquet"
    with (
        (folder / LIST_NAME).open("w", encoding="utf-8", newline="") as file,
        pq.ParquetWriter(folder / file_name, schema, compression="zstd") as writer,
    ):
        table = csv.writer(file)
        table.writerow(LIST_COLUMNS)
        for part in _parts(records):
            table.writerows(list_line(record, file_name, len(names)) for record in part)
            rows = np.concatenate([np.asarray(getattr(record, what)) for record in part])
            spans = np.concatenate([record.spans for record in part])
            ids = np.repeat(np.array([record.id for record in part], object), [len(r.spans) for r in part])
            columns = [
                pa.array(ids, pa.string()),
                pa.array(np.concatenate([record.numbers for record in part])),
            ]
            columns += [_missing_as_null(pa, column) for column in spans.T]
            columns += [pa.array(column.astype(values_of_type.to_pandas_dtype())) for column in rows.T]
            writer.write_table(pa.table(columns, schema=schema))


def _missing_as_null(pa: Any, values: Array) -> Any:
    return pa.array(values, mask=np.isnan(values))


def _write_hf(
    folder: Path, spec: StreamSpec, records: Iterator[VideoRecord], what: What | None, dtype: str | None
) -> None:
    import pyarrow as pa

    dtype = dtype or "float16"
    held = {"features": spec.feature_dim, "scores": spec.num_classes}
    widths = {name: width for name, width in held.items() if width and what in (None, name)}
    kinds: dict[str, tuple[str, int]] = {**{name: (dtype, width) for name, width in widths.items()}}
    kinds["spans"] = ("float64", len(SECONDS))
    features = {
        ID: _value("string"),
        **{
            name: {"feature": {**_list(_value(of), width)}, "_type": "Sequence"}
            for name, (of, width) in kinds.items()
        },
        "duration_s": _value("float64"),
        "fps": _value("float64"),
        **{name: _value("string") for name in _TEXTS},
    }
    schema = pa.schema(
        [
            (ID, pa.string()),
            *((name, pa.list_(pa.list_(_arrow_type(pa, of), width))) for name, (of, width) in kinds.items()),
            ("duration_s", pa.float64()),
            ("fps", pa.float64()),
            *((name, pa.string()) for name in _TEXTS),
        ],
        metadata={
            SPEC: exported_spec(spec, what).to_json(),
            **({CLASSES: json.dumps(spec.classes)} if "scores" in kinds and spec.classes else {}),
        },
    )
    files: list[str] = []
    writer, size = None, math.inf
    try:
        for part in _parts(records):
            if size > _FILE_BYTES:
                if writer is not None:
                    writer.close()
                files.append(f"data-{len(files):05}.arrow")
                writer, size = pa.ipc.new_stream(folder / files[-1], schema), 0
            batch = pa.record_batch(_hf_columns(pa, part, kinds), schema=schema)
            assert writer is not None
            writer.write_batch(batch)
            size += batch.nbytes
    finally:
        if writer is not None:
            writer.close()
    info = {"citation": "", "description": _about(spec), "features": features, "homepage": "", "license": ""}
    state: dict[str, object] = {
        "_data_files": [{"filename": name} for name in files],
        "_fingerprint": uuid.uuid4().hex[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    for name, content in ((INFO, info), (STATE, state)):
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def _hf_columns(pa: Any, part: list[VideoRecord], kinds: Mapping[str, tuple[str, int]]) -> list[Any]:
    ends = np.cumsum([0, *(len(record.spans) for record in part)], dtype=np.int32)
    columns = [pa.array([record.id for record in part], pa.string())]
    for name, (dtype, width) in kinds.items():
        values = np.concatenate([np.asarray(getattr(record, name), dtype) for record in part])
        rows = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)
        columns.append(pa.ListArray.from_arrays(pa.array(ends), rows))
    columns += [
        pa.array([getattr(record, name) for record in part], pa.float64()) for name in ("duration_s", "fps")
    ]
    texts = [(r.source, r.fingerprint, r.damage or "", ranges(r.lost)) for r in part]
    return columns + [pa.array(list(column), pa.string()) for column in zip(*texts, strict=True)]


def _arrow_type(pa: Any, dtype: str) -> Any:
    return pa.from_numpy_dtype(np.dtype(dtype))


def _value(dtype: str) -> dict[str, object]:
    return {"dtype": dtype, "_type": "Value"}


def _list(of: dict[str, object], length: int) -> dict[str, object]:
    return {"feature": of, "length": length, "_type": "Sequence"}


def _about(spec: StreamSpec) -> str:
    sampling = json.dumps({name: value for name, value in asdict(spec.sampling).items() if value})
    return (
        f"Stream {spec.name} of thriftvid: {spec.backbone} with weights {spec.weights}, sampling {sampling}"
    )
