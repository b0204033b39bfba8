"""Which streams an import makes: their sources and specifications, all checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from cache_schema.command import count
from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.instants import Timing
from cache_schema.importers.layouts import LAYOUTS, Opened
from cache_schema.importers.lengths import check_lengths, with_lengths
from cache_schema.importers.lists import Lengths, read_lengths
from cache_schema.importers.parts import sources_of, without_endings
from cache_schema.importers.rows import Source
from cache_schema.importers.stream import kept_of, like_stream, macs_per_row, make_spec
from cache_schema.schema import StreamSpec

_I3D_DIM = 1024

T = TypeVar("T")


@dataclass(frozen=True)
class StreamOptions:
    """The user's options on streams: each is given once for all of them, once for each, or not at all.

    Attributes:
        names: empty: as usual of the layout.
        like: built-in streams, whose costs and samplings are taken.
    """

    names: Sequence[str] = ()
    macs: Sequence[float] = ()
    gflops: Sequence[float] = ()
    like: Sequence[str] = ()


@dataclass(frozen=True)
class PlannedStream:
    """A stream to make.

    Attributes:
        exported: whether its videos are an export of `feature-cache`, whose scores are logits.
    """

    spec: StreamSpec
    videos: Source
    exported: bool = False


def plan_streams(
    path: Path,
    opened: Opened,
    options: StreamOptions,
    timing: Timing,
    *,
    layout: str | None = None,
    lengths: Path | None = None,
    keep_lengths: bool = False,
    classes: Sequence[str] | None = None,
    classes_from: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[PlannedStream], list[str]]:
    """The streams that become of a file or folder, and notes to show the user.

    Args:
        layout: what the user says that it is; None: as it is recognised.
        lengths: a list of the videos' lengths; None: the one that lies beside it, if any.
        keep_lengths: whether rows that contradict lengths are imported as they are.
        classes: names of the scores' columns, from a file; None: those that the source has.
        report: called with the number of videos whose lengths were compared, and of all.

    Raises:
        UserError: options are missing, or contradict each other or the first video; or rows contradict the
            length of a video.
    """
    layout = layout or opened.layout
    usual = None if layout is None else LAYOUTS[layout]
    only = next(iter(opened.parts.values())) if len(opened.parts) == 1 and not layout else None
    exported = None if only is None else only.spec
    names = options.names or (usual.streams if usual else ()) or ((exported.name,) if exported else ())
    if not names:
        raise UserError(
            "name the stream to make: --stream NAME; RGB and flow are two: --stream NAME --stream NAME"
        )
    if len(set(names)) < len(names):
        raise UserError(f"--stream {names[0]} is given twice, and RGB and flow are two streams")
    if opened.sampling is not None and (timing != Timing() or layout != opened.layout):
        raise UserError(
            f"{printable(path)}: its files say when rows are: leave out --format, --fps, --clip-frames, --stride "
            "and --clips"
        )
    likes = _for_each(names, options.like, "--like")
    models = [None if like is None else like_stream(like) for like in likes]
    macs = _for_each(names, options.macs, "--macs-per-row")
    gflops = _for_each(names, options.gflops, "--gflops-per-row")
    parts, notes = sources_of(path, opened.parts, len(names))
    beside = lengths or opened.lengths
    listed = Lengths() if beside is None else read_lengths(beside)
    planned = []
    for number, (name, part) in enumerate(zip(names, parts.values(), strict=True)):
        model = models[number]
        videos, about_ids = without_endings(part)
        notes += about_ids
        first = next(iter(videos))
        kept = kept_of(exported, first) if exported and part is only else None
        if usual and not options.names and first.features is not None and first.features.shape[1] != _I3D_DIM:
            raise UserError(
                f"{first.place}: {first.features.shape[1]:,} features, and {name} has {_I3D_DIM:,}: name the "
                "streams with --stream"
            )
        like = usual.sampling if usual and usual.sampling else model.sampling if model else None
        if kept and not model and timing == Timing():
            sampling = kept.sampling
            notes.append(f"an export of stream {kept.name}, whose sampling is taken")
        else:
            sampling = opened.sampling or replace(timing, like=like).sampling(first)
        notes += check_lengths(videos, sampling, listed, keep_all=keep_lengths, report=report)
        spec = make_spec(
            name,
            first,
            macs=macs_per_row(name, macs=macs[number], gflops=gflops[number], like=model, kept=kept),
            sampling=sampling,
            classes=classes or videos.classes or (kept.classes if kept else None),
            classes_from=classes_from or path,
        )
        planned.append(PlannedStream(spec, with_lengths(videos, sampling, listed), kept is not None))
    notes = [*_about(layout, timing, dict(zip(names, parts, strict=True))), *notes]
    return planned, list(dict.fromkeys(notes))


def _for_each(names: Sequence[str], values: Sequence[T], option: str) -> Sequence[T | None]:
    """The option's value for each stream."""
    if len(values) > 1 and len(values) != len(names):
        raise UserError(
            f"{option} is given {len(values)} times for {count(len(names), 'streams')}: once for all, or once "
            "for each"
        )
    if not values:
        return [None] * len(names)
    return values if len(values) == len(names) else [values[0]] * len(names)


def _about(layout: str | None, timing: Timing, parts: Mapping[str, str]) -> Iterator[str]:
    """What was made of the files.

    Args:
        parts: what each stream is of.
    """
    if layout is not None:
        usual = LAYOUTS[layout]
        clips = ", whose usual clips are taken; --fps, --clip-frames and --stride say otherwise"
        yield f"read as {layout}: {usual.title}{clips if usual.sampling and timing == Timing() else ''}"
    if len(parts) > 1:
        yield ", ".join(f"{name} is {part}" for name, part in parts.items())
