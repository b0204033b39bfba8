"""The frames of a video, those with fine features in green borders (LiteEval, Fig. 5)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from policy.sheets.sheet import Thumbnail, Thumbnails
from policy.sheets.words import drawn, one_line
from policy.tables.plots.style import DPI, GREEN, INK, WIDTH_IN, Drawing, fit, heading, new_figure

Picture = npt.NDArray[np.uint8]

FRAMES = 32
"""The largest number of frames shown of a video."""

_BORDER, _GAP = 5, 4  # pixels
_EDGE = 20  # to the right and left of the frames
_TITLE, _TIMES, _ROOM = 34, 24, 18  # pixels above a strip, below each row of it, after it
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class Strip:
    """Frames of one video.

    Attributes:
        frames: n RGB pictures (H, W, 3), all of one size.
        opened: (n,), whether the fine backbone ran on each.
        times_s: (n,), when each is on screen, in seconds.
        note: shown after the title, such as `thinned`.
    """

    title: str
    frames: Sequence[Picture]
    opened: Sequence[bool]
    times_s: Sequence[float]
    note: str = ""

    def __post_init__(self) -> None:
        n = len(self.frames)
        if not n or len(self.opened) != n or len(self.times_s) != n:
            raise ValueError(
                f"{self.title}: {n} frames, {len(self.opened)} decisions, {len(self.times_s)} times"
            )
        if len({frame.shape for frame in self.frames}) > 1:
            raise ValueError(f"{self.title}: frames of several sizes")


def shown_rows(opened: npt.ArrayLike, limit: int = FRAMES) -> npt.NDArray[np.int64]:
    """Which of a video's rows to show, in order: all, or of a long video those opened and those nearest to them.

    If more are opened than can be shown, evenly spread ones of them; if none is opened, evenly spread rows.

    Args:
        opened: (T,) flags.
    """
    flags = np.asarray(opened, bool)
    if len(flags) <= limit:
        return np.arange(len(flags), dtype=np.int64)
    green = np.flatnonzero(flags)
    if len(green) == 0 or len(green) >= limit:
        candidates = green if len(green) else np.arange(len(flags))
        places = np.linspace(0, len(candidates) - 1, limit).round().astype(np.int64)
        return np.asarray(candidates[places], np.int64)
    distance = np.abs(np.arange(len(flags))[:, None] - green).min(axis=1)
    return np.asarray(np.sort(np.argsort(distance, kind="stable")[:limit]), np.int64)


def thinned(shown: Sequence[int] | npt.NDArray[np.int64], opened: npt.ArrayLike) -> str:
    """How many rows of a video are shown, and how many opened ones; empty if all rows are shown."""
    flags = np.asarray(opened, bool)
    if len(shown) == len(flags):
        return ""
    green, shown_green = int(flags.sum()), int(flags[np.asarray(shown)].sum())
    which = "all" if shown_green == green else f"{shown_green:,} of"
    return f"{len(shown):,} of {len(flags):,} frames shown, with {which} {green:,} green ones"


def draw(strips: Sequence[Strip], *, title: str, subtitle: str = "") -> Drawing:
    """Draw Fig. 5: the strips below each other, each in as many rows as needed.

    Raises:
        ValueError: no strip.
    """
    if not strips:
        raise ValueError(f"{title}: no video to draw")
    width, top = round(WIDTH_IN * DPI), round(0.62 * DPI)
    mosaics = [_mosaic(strip, width - 2 * _EDGE) for strip in strips]
    height = top + sum(_TITLE + len(mosaic) + _ROOM for mosaic in mosaics)
    figure = new_figure(height / DPI)
    heading(figure, title, subtitle)
    y = top
    for strip, mosaic in zip(strips, mosaics, strict=True):
        text = one_line(f"{strip.title}: {strip.note}" if strip.note else strip.title)
        place = _EDGE / width, 1 - (y + _TITLE / 2) / height
        artist = figure.text(*place, drawn(text, 400), fontsize=8, va="center")
        fit(figure, artist, text, width - 2 * _EDGE)
        y += _TITLE
        figure.figimage(mosaic, xo=_EDGE, yo=height - y - len(mosaic), origin="upper")
        _times(figure, strip, y, width, height)
        y += len(mosaic) + _ROOM
    return Drawing(figure)


def block(strip: Strip) -> Thumbnails:
    """The strip as a block of a page."""
    images = []
    for frame, opened, time_s in zip(strip.frames, map(bool, strip.opened), strip.times_s, strict=True):
        alt = f"frame at {time_s:g} s{', fine features computed' * opened}"
        images.append(Thumbnail(_jpeg(frame), alt, f"{time_s:g} s", opened))
    return Thumbnails(strip.title, images, strip.note)


def _mosaic(strip: Strip, width: int) -> Picture:
    """(h, w, 3): frames with their borders, row by row, and room for the times below each row."""
    tall, wide = _tile(strip)
    columns = _columns(strip, width)
    rows = -(-len(strip.frames) // columns)
    size = rows * (tall + _TIMES), min(columns, len(strip.frames)) * (wide + _GAP) - _GAP
    picture = np.full((*size, 3), 255, np.uint8)
    green = np.array([round(255 * part) for part in to_rgb(GREEN)], np.uint8)
    for place, (frame, opened) in enumerate(zip(strip.frames, strip.opened, strict=True)):
        top, left = place // columns * (tall + _TIMES), place % columns * (wide + _GAP)
        if opened:
            picture[top : top + tall, left : left + wide] = green
        picture[top + _BORDER : top + tall - _BORDER, left + _BORDER : left + wide - _BORDER] = frame
    return picture


def _tile(strip: Strip) -> tuple[int, int]:
    height, width = strip.frames[0].shape[:2]
    return height + 2 * _BORDER, width + 2 * _BORDER


def _columns(strip: Strip, width: int) -> int:
    return max(1, (width + _GAP) // (_tile(strip)[1] + _GAP))


def _times(figure: Figure, strip: Strip, y: int, width: int, height: int) -> None:
    tall, wide = _tile(strip)
    columns = _columns(strip, width - 2 * _EDGE)
    for place, (time_s, opened) in enumerate(zip(strip.times_s, strip.opened, strict=True)):
        figure.text(
            (_EDGE + place % columns * (wide + _GAP) + wide / 2) / width,
            1 - (y + (place // columns + 1) * (tall + _TIMES) - _TIMES / 2) / height,
            f"{time_s:g} s",
            fontsize=6,
            color=GREEN if opened else INK,
            fontweight="bold" if opened else "normal",
            ha="center",
            va="center",
        )


def _jpeg(frame: Picture) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(content, format="JPEG", quality=_JPEG_QUALITY)
    return content.getvalue()
