"""Which frames of a video the gate asked a closer look at (LiteEval, Fig. 5): thumbnails, green borders."""

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
from policy.tables.plots.style import DPI, GREEN, INK, WIDTH_IN, fit, heading, new_figure, png

Picture = npt.NDArray[np.uint8]

FRAMES = 32
"""How many frames of a video are shown at most."""

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
        note: what else there is to know, `thinned` for example.
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


def chosen(opened: Sequence[bool] | npt.NDArray[np.bool_], limit: int = FRAMES) -> npt.NDArray[np.int64]:
    """Which of a video's rows to show, in order: all, or of a long video those opened and those nearest to them.

    Where more are opened than can be shown, evenly spread ones of them are; where none is, of all rows.
    """
    flags = np.asarray(opened, bool)
    if len(flags) <= limit:
        return np.arange(len(flags), dtype=np.int64)
    looked = np.flatnonzero(flags)
    if len(looked) == 0 or len(looked) >= limit:
        among = looked if len(looked) else np.arange(len(flags))
        return np.asarray(among[np.linspace(0, len(among) - 1, limit).round().astype(np.int64)], np.int64)
    distance = np.abs(np.arange(len(flags))[:, None] - looked).min(axis=1)
    return np.asarray(np.sort(np.argsort(distance, kind="stable")[:limit]), np.int64)


def thinned(
    shown: Sequence[int] | npt.NDArray[np.int64], opened: Sequence[bool] | npt.NDArray[np.bool_]
) -> str:
    """What to say of a video of which not all rows are shown; nothing where all are."""
    flags = np.asarray(opened, bool)
    if len(shown) == len(flags):
        return ""
    looked = int(flags.sum())
    there = int(flags[np.asarray(shown)].sum())
    which = "all" if there == looked else f"{there:,} of"
    return f"{len(shown):,} of {len(flags):,} frames shown, with {which} {looked:,} green ones"


def render(strips: Sequence[Strip], *, title: str, subtitle: str = "") -> bytes:
    """Fig. 5 as a PNG: the strips one below the other, each in as many rows as it takes.

    Raises:
        ValueError: no strip.
    """
    return png(draw(strips, title=title, subtitle=subtitle))


def draw(strips: Sequence[Strip], *, title: str, subtitle: str = "") -> Figure:
    if not strips:
        raise ValueError(f"{title}: no video to draw")
    width, top = round(WIDTH_IN * DPI), round(0.62 * DPI)
    mosaics = [_mosaic(strip, width - 2 * _EDGE) for strip in strips]
    height = top + sum(_TITLE + len(mosaic) + _ROOM for mosaic in mosaics)
    figure = new_figure(height / DPI)
    heading(figure, title, subtitle)
    y = top
    for strip, mosaic in zip(strips, mosaics, strict=True):
        said = one_line(f"{strip.title}: {strip.note}" if strip.note else strip.title)
        made = figure.text(
            _EDGE / width, 1 - (y + _TITLE / 2) / height, drawn(said, 400), fontsize=8, va="center"
        )
        fit(figure, made, said, width - 2 * _EDGE)
        y += _TITLE
        figure.figimage(mosaic, xo=_EDGE, yo=height - y - len(mosaic), origin="upper")
        _times(figure, strip, y, width, height)
        y += len(mosaic) + _ROOM
    return figure


def block(strip: Strip) -> Thumbnails:
    """The same as a block of a page."""
    return Thumbnails(
        title=strip.title,
        images=tuple(
            Thumbnail(
                _jpeg(frame),
                f"frame at {time:g} s{', fine features computed' * looked}",
                f"{time:g} s",
                looked,
            )
            for frame, looked, time in zip(strip.frames, map(bool, strip.opened), strip.times_s, strict=True)
        ),
        note=strip.note,
    )


def _mosaic(strip: Strip, width: int) -> Picture:
    """Frames with their borders, row by row, room for the times below each row; (h, w, 3), as narrow as can be."""
    tall, wide = _tile(strip)
    columns = _columns(strip, width)
    rows = -(-len(strip.frames) // columns)
    picture = np.full(
        (rows * (tall + _TIMES), min(columns, len(strip.frames)) * (wide + _GAP) - _GAP, 3), 255, np.uint8
    )
    green = np.array([round(255 * part) for part in to_rgb(GREEN)], np.uint8)
    for place, (frame, looked) in enumerate(zip(strip.frames, strip.opened, strict=True)):
        top, left = place // columns * (tall + _TIMES), place % columns * (wide + _GAP)
        if looked:
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
    for place, (time, looked) in enumerate(zip(strip.times_s, strip.opened, strict=True)):
        figure.text(
            (_EDGE + place % columns * (wide + _GAP) + wide / 2) / width,
            1 - (y + (place // columns + 1) * (tall + _TIMES) - _TIMES / 2) / height,
            f"{time:g} s",
            fontsize=6,
            color=GREEN if looked else INK,
            fontweight="bold" if looked else "normal",
            ha="center",
            va="center",
        )


def _jpeg(frame: Picture) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(content, format="JPEG", quality=_JPEG_QUALITY)
    return content.getvalue()
