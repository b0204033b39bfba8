"""What run-policy writes: a line for each video, and beside it what was decided and found.

PREDICTIONS.csv          the likeliest classes of each video, and what they cost
PREDICTIONS.failed.csv   the videos without an answer, and why; not there where there is none
TRACE.jsonl              if asked for: every step of each video, a line for each video (policy.deploy.trace_file)
DETECTIONS               if asked for: segments, as .csv or as ActivityNet's .json (policy.localization.detections)

A video is done when its line in the CSV is complete. What was written for one that is not is dropped when the
files are opened again, so that a call that was killed at any moment can be given once more. A trace or detections
that are there before the CSV is belong to another one, and are refused.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np

from cache_schema import UserError
from cache_schema.annotations import VideoLabel
from cache_schema.run_folder import write_atomically
from policy.deploy.engine import Answer
from policy.deploy.trace_file import trace_line
from policy.evaluation.detection import Detections
from policy.localization import detections as detection_files

_AFTER = ("gflops", "expensive_share", "duration_s", "damage", "run", "fingerprint")
_EVERY_S = 10.0  # a file of detections is written as a whole
_RUN_DIGITS = 12


_FAILED = ("video_id", "reason", "damaged", "run", "fingerprint")


@dataclass(frozen=True)
class Failed:
    """Why a video had no answer in an earlier call. keep_damaged: one from its beginning would have done."""

    reason: str
    fingerprint: str
    keep_damaged: bool


@dataclass(frozen=True)
class Done:
    """A video of an earlier call. damage: why its answer is not that of all of it; else empty."""

    fingerprint: str
    damage: str


class PredictionsFile:
    """The files of one request, open for more videos.

    Attributes:
        done: by id, the videos that are in it.
        failed: by id, those that had no answer in an earlier call.
        untraced: how many of those found when it was opened are not in the trace, if there is one.

    Args:
        run_key: of the run's config.json, which tells its predictions from those of others.
        top: how many classes a line has.

    Raises:
        UserError: a file cannot be read or written, or holds something else, or another program writes to it.
    """

    def __init__(
        self,
        path: Path,
        *,
        run_key: str,
        classes: Sequence[str],
        top: int,
        trace: Path | None = None,
        detections: Path | None = None,
    ) -> None:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; --out is the name of a CSV file")
        self._path, self._classes, self._top = path, classes, min(top, len(classes))
        self._run = run_key[:_RUN_DIGITS]
        self._failed_path = path.with_suffix(".failed.csv")
        paths = [path, self._failed_path, *(other for other in (trace, detections) if other is not None)]
        if len({other.absolute() for other in paths}) < len(paths):
            raise UserError(f"{path}: predictions, trace and detections are different files")
        if detections is not None and detections.suffix.lower() not in (".csv", ".json"):
            raise UserError(f"{detections}: detections are written to a .csv or a .json file")
        self._detections_path = detections
        pairs = (f"{name}_{rank}" for rank in range(1, self._top + 1) for name in ("label", "probability"))
        self._columns = ("video_id", *pairs, *_AFTER)
        self._found: dict[str, Detections] = {}
        self._lines: list[str] = []
        self._trace_lines: list[str] = []
        self._failed_lines: list[str] = []
        self._flushed_s = time.monotonic()
        self._new, self._begun = [one for one in paths if not one.exists()], False
        self._file = self._opened()
        try:
            begun = self._read()
            self.done = begun or {}
            self.failed = self._read_failed()
            self.untraced = 0
            self._trace = None if trace is None else self._open_trace(trace, begun is None)
            if detections is not None and detections.exists():
                self._found = _read_detections(detections, begun, classes)
            if begun is None:
                with _writing(path):
                    self._file.truncate(0)
                _append(self._file, [_csv_line(self._columns)])
        except BaseException:
            self._file.close()
            self._remove_new()
            raise

    def __enter__(self) -> PredictionsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close it; of a request that was refused before its first video nothing is left."""
        self.close()
        if kind is not None and not self._begun:
            self._remove_new()

    def _remove_new(self) -> None:
        for path in self._new:
            path.unlink(missing_ok=True)

    def add(self, answer: Answer, fingerprint: str) -> None:
        """Write what was found out about a video, or keep it until a few seconds' worth is there."""
        self._begun = True
        video_id = answer.video.id
        best = np.argsort(-answer.probabilities, kind="stable")[: self._top]
        pairs = [part for n in best for part in (self._classes[n], f"{answer.probabilities[n]:.6f}")]
        computed, available = answer.expensive_rows
        after = (
            f"{sum(answer.gflops.values()):.6f}",
            f"{computed / available:.6f}",
            f"{answer.duration_s:.3f}",
            answer.damage,
            self._run,
            fingerprint,
        )
        self._lines.append(_csv_line((video_id, *pairs, *after)))
        if self._trace is not None:
            best_first = {self._classes[n]: float(answer.probabilities[n]) for n in best}
            self._trace_lines.append(trace_line(answer, self._run, best_first))
        if self._detections_path is not None and answer.detections is not None:
            self._found[video_id] = answer.detections
        self.done[video_id] = Done(fingerprint, answer.damage)
        self._flush_now_and_then()

    def add_failed(self, video_id: str, reason: str, fingerprint: str, *, keep_damaged: bool) -> None:
        """Write why a video has no answer, or keep it as `add` does."""
        self._begun = True
        damaged = "keep" if keep_damaged else "refuse"
        line = (video_id, " ".join(reason.split()), damaged, self._run, fingerprint)
        self._failed_lines.append(_csv_line(line))
        self._flush_now_and_then()

    def _flush_now_and_then(self) -> None:
        if self._detections_path is None or time.monotonic() - self._flushed_s > _EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write what is kept, the CSV last: what is in it is in the others. Raises UserError where that fails."""
        lines, trace_lines, self._lines, self._trace_lines = self._lines, self._trace_lines, [], []
        failed_lines, self._failed_lines = self._failed_lines, []
        self._flushed_s = time.monotonic()
        if failed_lines:
            with _writing(self._failed_path), self._failed_path.open("ab", buffering=0) as file:
                header = [] if file.tell() else [_csv_line(_FAILED)]
                _append(file, [*header, *failed_lines])
        if self._detections_path is not None:
            _write_detections(self._detections_path, self._found, self._classes)
        if self._trace is not None:
            _append(self._trace, trace_lines)
        if lines:
            _append(self._file, lines)

    def close(self) -> None:
        """Write what is kept, and let others at the files."""
        try:
            self.flush()
        finally:
            self._file.close()
            if self._trace is not None:
                self._trace.close()

    def _opened(self) -> IO[bytes]:
        with _writing(self._path):
            file = self._path.open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise UserError(f"{self._path}: another program is writing to it") from error
        except OSError:
            pass  # a file system without locks
        return file

    def _read(self) -> dict[str, Done] | None:
        """The videos in the CSV; a last line that was not written to its end is cut off. None: the file is new."""
        with _writing(self._path):
            self._file.seek(0)
            content = self._file.read()
            whole = content[: content.rfind(b"\n") + 1]
            if not whole:
                if not _csv_line(self._columns).encode().startswith(content):
                    raise _another(self._path, "is something else")
                return None
        header, rows = _rows(self._path, whole, "predictions")
        if header != self._columns:
            what = (
                "has predictions of another --top"
                if header[-len(_AFTER) :] == _AFTER
                else "is something else"
            )
            raise _another(self._path, what)
        if any(row["run"] != self._run for row in rows):
            raise _another(self._path, "has predictions of another run")
        with _writing(self._path):
            self._file.truncate(len(whole))
        return {row["video_id"]: Done(row["fingerprint"], row["damage"]) for row in rows}

    def _read_failed(self) -> dict[str, Failed]:
        """The videos that failed in earlier calls of this run and are not done; the others' lines are dropped."""
        path = self._failed_path
        with _writing(path):
            content = path.read_bytes() if path.exists() else b""
        header = _csv_line(_FAILED).encode()
        if not (content.startswith(header) or header.startswith(content)):
            raise _another(path, "is something else")
        _, rows = _rows(path, content[: content.rfind(b"\n") + 1] or header, "failures")
        latest = {
            row["video_id"]: row
            for row in rows
            if row["run"] == self._run and row["video_id"] not in self.done
        }
        lines = [_csv_line(_FAILED), *(_csv_line(tuple(row.values())) for row in latest.values())]
        if not latest:
            with _writing(path):
                path.unlink(missing_ok=True)
        elif (kept := "".join(lines).encode()) != content:
            write_atomically(path, kept)
        return {
            video_id: Failed(row["reason"], row["fingerprint"], row["damaged"] == "keep")
            for video_id, row in latest.items()
        }

    def _open_trace(self, path: Path, new: bool) -> IO[bytes]:
        """The trace, without lines of videos that are not done. new: no call has begun with these predictions."""
        kept: list[bytes] = []
        traced: set[str] = set()
        with _writing(path):
            content = path.read_bytes() if path.exists() else b""
        for line in content.splitlines(keepends=True):
            try:
                traced_line = json.loads(line)
                video_id, run = traced_line["video_id"], traced_line.get("run", self._run)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                if line.endswith(b"\n"):
                    raise _another(path, "is no trace") from error
                continue  # it was not written to its end
            if new or run != self._run:
                raise _another(path, f"has the trace of {'other predictions' if new else 'another run'}")
            if video_id in self.done and line.endswith(b"\n"):
                kept.append(line)
                traced.add(video_id)
        self.untraced = len(self.done.keys() - traced)
        if b"".join(kept) != content:
            write_atomically(path, b"".join(kept))
        with _writing(path):
            return path.open("ab", buffering=0)


def _write_detections(path: Path, found: Mapping[str, Detections], classes: Sequence[str]) -> None:
    none = Detections(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2)), np.empty(0))
    parts = [none, *(replace(part, videos=np.full(len(part), n)) for n, part in enumerate(found.values()))]
    joined = Detections(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("videos", "classes", "spans", "scores")
        )
    )
    json_form = path.suffix.lower() == ".json"
    write = detection_files.write_json if json_form else detection_files.write_csv
    write(path, joined, list(found), classes)


def _read_detections(
    path: Path, done: Container[str] | None, classes: Sequence[str]
) -> dict[str, Detections]:
    """By video that is done, what an earlier call found in it. None: no call has begun with these predictions."""
    with _writing(path):
        text = path.read_text(encoding="utf-8", errors="replace")
    try:  # of videos whose line in the CSV was never written, too
        if path.suffix.lower() == ".json":
            ids = list(json.loads(text)["results"])
        else:
            rows = csv.DictReader(io.StringIO(text, newline=""))
            ids = list(dict.fromkeys(row["video_id"] for row in rows))
    except (ValueError, KeyError, TypeError, RecursionError, csv.Error):
        ids = []  # what is read next says what is wrong
    found = detection_files.read(path, [VideoLabel(video, (), "") for video in ids], classes)
    if done is None:
        if ids:
            raise _another(path, "has detections of other predictions")
        return {}
    columns = (found.videos, found.classes, found.spans, found.scores)
    return {
        video: Detections(*(column[found.videos == n] for column in columns))
        for n, video in enumerate(ids)
        if video in done
    }


def _rows(path: Path, content: bytes, what: str) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """The header of a CSV and its rows. Raises UserError where it is none, so not one of `what`."""
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
        header = tuple(next(reader))
        return header, [dict(zip(header, row, strict=True)) for row in reader]
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise _another(path, f"is no file of {what}") from error


def _another(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}; choose another file")


def _csv_line(values: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _append(file: IO[bytes], lines: Sequence[str]) -> None:
    """Write lines to the disk: all of them, or nothing where there is no room."""
    content = "".join(lines).encode()
    with _writing(Path(file.name)):
        size = os.fstat(file.fileno()).st_size
        try:
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                os.ftruncate(file.fileno(), size)
            raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: cannot be written: there is no folder {path.parent}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read or written: {error.strerror or error}") from error
