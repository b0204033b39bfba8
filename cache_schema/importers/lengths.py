"""Whether rows, at the rate declared for them, are as long as their videos; and the rates that lengths imply."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from cache_schema.command import count
from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.instants import spans_of, usual_spans
from cache_schema.importers.lists import Lengths
from cache_schema.importers.parts import Changed
from cache_schema.importers.rows import Rows, Source, some_of
from cache_schema.schema import Float64Array, Sampling, numbers_without

_USUAL_FPS = (10, 12, 12.5, 15, 20, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60)
# As parts of a length. Below the first, clocks differ: 29.97 is taken for 30. Beyond the second it is another
# rate: 24 and 25 are 4 % apart.
_CLOCKS, _ANOTHER = 0.002, 0.02


def with_lengths(source: Source, sampling: Sampling, lengths: Lengths) -> Source:
    """The videos with the list's lengths, and with instants where the sampling leaves their rates open."""

    def measured(rows: Rows) -> Rows:
        length_s = _length_s(rows, lengths)
        clock = _clock_of(rows, sampling, length_s)
        spans = rows.spans if clock is None else usual_spans(numbers_without(rows.lost, len(rows)), clock)
        return replace(rows, duration_s=length_s, spans=spans)

    return Changed(source, measured)


def _length_s(rows: Rows, lengths: Lengths) -> float:
    listed = lengths.of(rows.id)
    return rows.duration_s if math.isnan(listed) else listed


def _clock_of(rows: Rows, sampling: Sampling, length_s: float) -> Sampling | None:
    """The sampling at the rate that a video's file gives, or its rows and length imply; else None.

    Of the rates at which just so many clips fit the length, it is the one in the middle.
    """
    if sampling.kind != "dense" or sampling.fps or rows.spans is not None:
        return None
    frames = (len(rows) - 1) * sampling.step + sampling.window + (sampling.step - 1) / 2
    fps = frames / length_s if math.isnan(rows.fps) else rows.fps
    return None if math.isnan(fps) else replace(sampling, fps=fps, frames=sampling.window)


@dataclass(frozen=True)
class _Compared:
    """Rows beside the length of their video.

    Attributes:
        ratio: of both, about 1 where they fit.
        fits: whether they do, but for clocks and for what clips leave at the end, or add to it.
    """

    id: str
    place: str
    rows: int
    length_s: float
    ratio: float
    fits: bool


def check_lengths(
    source: Source,
    sampling: Sampling,
    lengths: Lengths,
    *,
    keep_all: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[str]:
    """Compare where rows end with the lengths of their videos. Yields notes to show the user.

    Args:
        keep_all: rows that are far too long or short are in a note, not an error.
        report: called with the number of videos before each, and of all.

    Raises:
        UserError: they are, with the rate that would fit; or a video's own rate is not known.
    """
    fps_varies = sampling.kind == "dense" and not sampling.fps
    first = next(source.outlines())
    of_files = not math.isnan(first.duration_s) and first.spans is None  # lengths of exports fit their spans
    if sampling.kind == "clips" or not (fps_varies or of_files or lengths.path):
        return
    compared: list[_Compared] = []
    implied_fps: dict[str, tuple[float, int]] = {}
    unlisted: list[str] = []
    for number, rows in enumerate(source.outlines()):
        report(number, len(source))
        length_s = _length_s(rows, lengths)
        clock = _clock_of(rows, sampling, length_s)
        if clock is not None and math.isnan(rows.fps):
            implied_fps[rows.id] = clock.fps, len(rows)
            continue
        spans = spans_of(rows, clock or sampling)
        if lengths.path is not None and math.isnan(lengths.of(rows.id)):
            unlisted.append(rows.id)
        if not math.isnan(length_s) and rows.damage is None:
            compared.append(_compare(rows, spans, clock or sampling, length_s))
    listed_in = "its files" if lengths.path is None else printable(lengths.path)
    if unlisted:
        yield f"{count(len(unlisted), 'videos')} not in {listed_in}, and not checked: {some_of(unlisted)}"
    if implied_fps:
        yield from _about_implied(implied_fps, listed_in)
    yield from _about_compared(compared, sampling, listed_in, keep_all=keep_all)
    yield from _about_claims(lengths, compared, sampling)


def _compare(rows: Rows, spans: Float64Array, sampling: Sampling, length_s: float) -> _Compared:
    (first_s, first_end_s), (last_s, end_s) = spans[0].tolist(), spans[-1].tolist()
    frame_s = 1 / sampling.fps if sampling.fps else 0.0
    clip_s = first_end_s - first_s + frame_s
    step_s = (last_s - first_s) / (len(rows) - 1) if len(rows) > 1 else clip_s
    spare_s = length_s - end_s - frame_s
    clocks_s = _CLOCKS * length_s
    return _Compared(
        rows.id,
        rows.place,
        len(rows),
        length_s,
        ratio=(end_s + frame_s + step_s / 2) / length_s,
        fits=-clip_s - clocks_s <= spare_s <= 2 * step_s + clocks_s,
    )


def _about_implied(implied_fps: Mapping[str, tuple[float, int]], listed_in: str) -> Iterator[str]:
    """Which rates videos have.

    Args:
        implied_fps: by video its rate, and how many rows say it.
    """
    slow, fast = min(implied_fps.values())[0], max(implied_fps.values())[0]
    yield (
        f"lengths in {listed_in}: by their rows, {count(len(implied_fps), 'videos')} are of {slow:.4g} to "
        f"{fast:.4g} frames a second"
    )
    # A row more or less is no other rate.
    odd = [video for video, (fps, rows) in implied_fps.items() if _off_usual(fps) > _ANOTHER + 1 / rows]
    if odd:
        yield (
            f"{count(len(odd), 'videos')} of no usual rate, {odd[0]!r} of {implied_fps[odd[0]][0]:.4g}: their "
            f"rows may be of a part of it, and are spread over all: {some_of(odd)}"
        )


def _about_compared(
    compared: Sequence[_Compared], sampling: Sampling, listed_in: str, *, keep_all: bool
) -> Iterator[str]:
    off = [video for video in compared if not video.fits]
    far = [video for video in off if abs(video.ratio - 1) > _ANOTHER]
    if far and not keep_all:
        raise UserError(_far(far, len(compared), sampling, listed_in))
    rate = f" at {sampling.fps:g} frames a second" if sampling.fps else ""
    if len(off) < len(compared):
        yield f"lengths in {listed_in}: rows of {count(len(compared) - len(off), 'videos')} fit them{rate}"
    if off:
        worst = max(off, key=lambda video: abs(video.ratio - 1))
        difference = "longer" if worst.ratio > 1 else "shorter"
        yield (
            f"lengths in {listed_in}: rows of {count(len(off), 'videos')} do not fit them{rate}, {worst.id!r} is "
            f"{abs(worst.ratio - 1):.1%} {difference}; kept as they are: {some_of(video.id for video in off)}"
        )


def _far(far: Sequence[_Compared], known: int, sampling: Sampling, listed_in: str) -> str:
    example = far[0]
    rows, videos = count(example.rows, "rows"), f"{len(far)} of {count(known, 'videos')}"
    rate = f"{sampling.fps:g} frames a second" if sampling.fps else "their own rates"
    anyway = "--allow-other-lengths imports them as they are"
    mend = "get their features again, or leave them out"
    if sampling.fps:
        ratio = median(video.ratio for video in far)
        agreeing = sum(abs(video.ratio / ratio - 1) <= _ANOTHER for video in far)
        if 2 * len(far) > known:  # the rate is wrong, not the videos
            proposal = (
                f"--fps {_nearest(ratio * sampling.fps):g}" if agreeing > 0.9 * len(far) else "--fps each"
            )
            return (
                f"{listed_in}: contradicts {rate} in {videos}: rows and lengths say {ratio * sampling.fps:.4g}, "
                f"as {example.id!r} with {rows} in {example.length_s:.1f} s does: give {proposal}; {anyway}"
            )
        if all(_off_usual(video.ratio * sampling.fps) <= _ANOTHER for video in far):
            mend = "give --fps each, for videos of several rates"
    return (
        f"{example.place}: at {rate} its {rows} last {example.ratio * example.length_s:.1f} s, but "
        f"{example.length_s:.1f} s according to {listed_in}; {videos} are far off: {mend}; {anyway}"
    )


def _about_claims(lengths: Lengths, compared: Sequence[_Compared], sampling: Sampling) -> Iterator[str]:
    wrong = [
        video.id
        for video in compared
        if sampling.fps and video.fits and abs(lengths.claimed_fps(video.id) / sampling.fps - 1) > _ANOTHER
    ]
    if wrong and lengths.fps_path is not None:
        yield (
            f"{printable(lengths.fps_path)} claims {lengths.claimed_fps(wrong[0]):g} frames a second of "
            f"{count(len(wrong), 'videos')}; their rows contradict it and fit {sampling.fps:g}, which is used"
        )


def _nearest(fps: float) -> float:
    """The usual rate next to it, or itself if none is near."""
    return min(_USUAL_FPS, key=lambda usual: abs(usual / fps - 1)) if _off_usual(fps) <= _ANOTHER else fps


def _off_usual(fps: float) -> float:
    """How far it is from the next usual rate, as a part of it."""
    return min(abs(usual / fps - 1) for usual in _USUAL_FPS)
