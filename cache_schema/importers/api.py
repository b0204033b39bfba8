"""Import from Python: the function that `feature-cache import` calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Literal, cast

from cache_schema.annotations.class_names import read_class_names
from cache_schema.arguments import checks_arguments, speaks_python
from cache_schema.command import count
from cache_schema.costs import gflops, gflops_digits
from cache_schema.errors import UserError
from cache_schema.files import StrPath
from cache_schema.importers import open_source
from cache_schema.importers.importing import Imported, import_stream, looks_like
from cache_schema.importers.instants import Timing
from cache_schema.importers.lists import read_ids
from cache_schema.importers.planning import PlannedStream, StreamOptions, plan_streams
from cache_schema.importers.rows import What, check_ids
from cache_schema.schema import StreamSpec
from cache_schema.scores import Kind

EACH = "each"
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class ImportedStream:
    """A stream that was made, or added to.

    Attributes:
        imported: how many videos, rows and shards are new, and how many videos were there.
        kind: what its scores were taken for.
    """

    spec: StreamSpec
    imported: Imported
    kind: Kind


def _quietly(task: str) -> AbstractContextManager[Report]:
    return nullcontext(lambda done, total: None)


@speaks_python(stream="streams", format="layout", into="cache")
@checks_arguments
def import_features(
    source: StrPath,
    cache: StrPath,
    streams: str | Sequence[str] = (),
    *,
    layout: str | None = None,
    gflops_per_row: float | Sequence[float] = (),
    macs_per_row: float | Sequence[float] = (),
    like: str | Sequence[str] = (),
    fps: float | Literal["each"] | None = None,
    clip_frames: int | None = None,
    stride: int | None = None,
    clips: int | None = None,
    lengths: StrPath | None = None,
    allow_other_lengths: bool = False,
    kind: Kind | None = None,
    classes: StrPath | Sequence[str] | None = None,
    ids: StrPath | Sequence[str] | None = None,
    array: str | None = None,
    what: What | None = None,
    shard_size: int = 256,
    note: Callable[[str], None] = print,
    progress: Callable[[str], AbstractContextManager[Report]] = _quietly,
) -> list[ImportedStream]:
    """Make class scores or features streams of a cache; the arguments are the options of feature-cache import.

    Args:
        source: a file or a folder (docs/import.md).
        cache: folder, made if need be.
        streams: the stream to make, or to add to; two of RGB and flow. Of an export, by default its own.
        layout: as --format.
        gflops_per_row, macs_per_row, like: once, or for each stream.
        classes, ids: a file, or they themselves.
        note: is called with each line that the user should know.
        progress: gives, for what is being done, a context of a function that is called with how much is done, and
            the total.

    Raises:
        UserError: it cannot be read, options are missing or contradict each other or the files, or the cache has
            other rows of a video.
    """
    path, names = Path(source), _texts(streams)
    opened = open_source(
        path,
        stream=names[0] if names else None,
        what=what,
        ids=None if ids is None else _ids(ids),
        array=array,
        layout=layout,
    )
    macs, in_gflops = _numbers(macs_per_row), _numbers(gflops_per_row)
    classes_from = Path(classes) if isinstance(classes, (str, os.PathLike)) else None
    with progress("looking at the videos") as report:
        planned, notes = plan_streams(
            path,
            opened,
            StreamOptions(names, macs=macs, gflops=in_gflops, like=_texts(like)),
            Timing(
                None if isinstance(fps, str) else fps,
                clip_frames,
                clips,
                stride=stride,
                fps_varies=fps == EACH,
            ),
            layout=layout,
            lengths=None if lengths is None else Path(lengths),
            keep_lengths=allow_other_lengths,
            classes=read_class_names(classes_from) if classes_from else cast(Sequence[str] | None, classes),
            classes_from=classes_from,
            report=report,
        )
    score_kind = _kind(path, planned, kind, progress)
    done = []
    for stream in planned:
        with progress(f"importing {stream.spec.name}") as report:
            imported = import_stream(
                stream.videos, stream.spec, Path(cache), kind=score_kind, shard_size=shard_size, report=report
            )
        notes += _notes(stream, Path(cache), cost_given=bool(macs or in_gflops))
        done.append(ImportedStream(stream.spec, imported, score_kind))
    for line in dict.fromkeys(notes):
        note(line)
    return done


def _kind(
    source: Path,
    planned: Sequence[PlannedStream],
    kind: Kind | None,
    progress: Callable[[str], AbstractContextManager[Report]],
) -> Kind:
    """What the scores are. Raises UserError where they look like probabilities and nobody says so."""
    with_scores = [stream for stream in planned if stream.spec.num_classes]
    if kind is not None and not with_scores:
        raise UserError("--kind is about scores, but there are none, only features")
    for stream in (one for one in with_scores if kind is None and not one.exported):
        with progress("looking at the scores") as report:
            likely_kind = looks_like(stream.videos, report)
        if likely_kind != "logits":
            raise UserError(_probabilities(source, likely_kind))
    return kind or "logits"


def _probabilities(source: Path, kind: Kind) -> str:
    sums = "and sum to 1" if kind == "softmax" else "without summing to 1"
    return (
        f"{source}: logits are expected, but all scores lie in [0, 1] {sums}, as probabilities of a {kind} do: "
        f"give --kind {kind}, or --kind logits if they are logits"
    )


def _notes(stream: PlannedStream, cache: Path, *, cost_given: bool) -> Iterator[str]:
    """What to know of a stream that was imported."""
    spec = stream.spec
    if spec.sampling.clips == 1 and spec.sampling.frames == 0 and not cost_given:
        yield (
            f"a video costs one row, {gflops_digits(gflops(spec.macs_per_row))} GFLOPs; where that is the mean of "
            "several clips or crops, say what all of them cost (--gflops-per-row, under a name that is not built "
            "in)"
        )
    if spec.num_classes and spec.classes is None:
        yield (
            "without class names nothing says which column is which class: model selection takes them for the "
            "labels' classes in sorted order, other methods do not use such scores. To name them, give "
            f"`feature-cache drop {cache} --stream {spec.name} --yes`, then this again with --classes FILE, a "
            "name a line in the order of the columns"
        )
    if ignored := stream.videos.ignored:
        yield (f"{count(ignored, 'files')} in the folder neither npy nor npz: not read")


def _texts(values: str | Sequence[str]) -> Sequence[str]:
    return [values] if isinstance(values, str) else values


def _numbers(values: float | Sequence[float]) -> Sequence[float]:
    return [float(values)] if isinstance(values, Real) else cast(Sequence[float], values)


def _ids(ids: StrPath | Sequence[str]) -> tuple[str, ...]:
    if isinstance(ids, (str, os.PathLike)):
        return read_ids(Path(ids))
    return check_ids(ids, Path("ids"))
