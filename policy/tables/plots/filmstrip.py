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

EDGE = 20
"""Pixels to the right and left of the frames."""
_BORDER, _GAP = 5, 4  # pixels
_TITLE, _LINE, _ROOM = 34, 24, 18  # pixels above a strip, of each line below a frame, after a strip
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

    @property
    def tiles(self) -> Tiles:
        captions = [f"{time_s:g} s" for time_s in self.times_s]
        return Tiles(self.frames, [GREEN if opened else None for opened in self.opened], captions)


@dataclass(frozen=True)
class Tiles:
    """Pictures row by row, as many beside each other as there is room for.

    Attributes:
        frames: n RGB pictures (H, W, 3), all of one size.
        colours: n, of the borders and captions; None: no border.
        captions: n, all of as many lines.
        room: at least so many pixels wide is a picture's place.
    """

    frames: Sequence[Picture]
    colours: Sequence[str | None]
    captions: Sequence[str]
    room: int = 0

    def height(self, width: int) -> int:
        """In pixels, where there are `width` of them."""
        return -(-len(self.frames) // self._columns(width)) * self._pitch[0]

    def draw(self, figure: Figure, top: int) -> None:
        """Draw them between the edges of a figure, `top` pixels below its upper edge."""
        width, height = round(figure.bbox.width), round(figure.bbox.height)
        mosaic = self._mosaic(width - 2 * EDGE)
        figure.figimage(mosaic, xo=EDGE, yo=height - top - len(mosaic), origin="upper")
        (tall, wide), columns = self._pitch, self._columns(width - 2 * EDGE)
        below = (len(self.frames[0]) + 2 * _BORDER + tall) / 2  # the middle of a caption
        for place, (caption, colour) in enumerate(zip(self.captions, self.colours, strict=True)):
            figure.text(
                (EDGE + place % columns * wide + (wide - _GAP) / 2) / width,
                1 - (top + place // columns * tall + below) / height,
                caption,
                fontsize=6,
                color=colour or INK,
                fontweight="bold" if colour else "normal",
                ha="center",
                va="center",
                linespacing=1.1,
            )

    def _mosaic(self, width: int) -> Picture:
        """(h, w, 3): frames with their borders, and room for the captions below each row."""
        (tall, wide), columns = self._pitch, self._columns(width)
        size = self.height(width), min(columns, len(self.frames)) * wide - _GAP
        picture = np.full((*size, 3), 255, np.uint8)
        high, broad = self.frames[0].shape[:2]
        inset = (wide - _GAP - broad - 2 * _BORDER) // 2
        for place, (frame, colour) in enumerate(zip(self.frames, self.colours, strict=True)):
            top, left = place // columns * tall, place % columns * wide + inset
            if colour is not None:
                picture[top : top + high + 2 * _BORDER, left : left + broad + 2 * _BORDER] = [
                    round(255 * part) for part in to_rgb(colour)
                ]
            picture[top + _BORDER :, left + _BORDER :][:high, :broad] = frame
        return picture

    @property
    def _pitch(self) -> tuple[int, int]:
        """Pixels from one to the next, downwards and to the right."""
        height, width = self.frames[0].shape[:2]
        lines = 1 + self.captions[0].count("\n")
        return height + 2 * _BORDER + lines * _LINE, max(width + 2 * _BORDER, self.room) + _GAP

    def _columns(self, width: int) -> int:
        return max(1, (width + _GAP) // self._pitch[1])


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
    heights = [strip.tiles.height(width - 2 * EDGE) for strip in strips]
    height = top + sum(_TITLE + tall + _ROOM for tall in heights)
    figure = new_figure(height / DPI)
    heading(figure, title, subtitle)
    y = top
    for strip, tall in zip(strips, heights, strict=True):
        text = one_line(f"{strip.title}: {strip.note}" if strip.note else strip.title)
        place = EDGE / width, 1 - (y + _TITLE / 2) / height
        artist = figure.text(*place, drawn(text, 400), fontsize=8, va="center")
        fit(figure, artist, text, width - 2 * EDGE)
        strip.tiles.draw(figure, y + _TITLE)
        y += _TITLE + tall + _ROOM
    return Drawing(figure)


def block(strip: Strip) -> Thumbnails:
    """The strip as a block of a page."""
    images = []
    for frame, opened, time_s in zip(strip.frames, map(bool, strip.opened), strip.times_s, strict=True):
        alt = f"frame at {time_s:g} s{', fine features computed' * opened}"
        images.append(Thumbnail(_jpeg(frame), alt, f"{time_s:g} s", opened))
    return Thumbnails(strip.title, images, strip.note)


def _jpeg(frame: Picture) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(content, format="JPEG", quality=_JPEG_QUALITY)
    return content.getvalue()
