"""The demo's videos: some classes can be told apart at a glance, others only by a detail shown for seconds.

Every video is a camera drifting over a scene. Four *plain* classes are four scenes. Four *detail* classes share
two more: for two to four seconds somebody holds up a card, and the class is the scene with what is printed on the
card, fine columns or fine rows. At 224 pixels the stripes can be seen; at 112 they are finer than the sampling and
the card is plain. So coarse features say whether there is something to look at, and when; fine features say what.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.videos import write_video

WIDTH, HEIGHT, FPS = 320, 240, 12
TRAIN, TEST = "train", "test"

Pixels = npt.NDArray[np.uint8]

# Hue (red, green, blue) of a scene and the size of its structure in pixels.
_SCENES = {
    "beach": ((205, 180, 130), 60),
    "forest": ((60, 120, 60), 14),
    "harbour": ((70, 100, 160), 30),
    "street": ((120, 110, 115), 20),
    "stage": ((125, 75, 90), 40),
    "cellar": ((85, 75, 60), 26),
}
PLAIN_CLASSES = ("beach", "forest", "harbour", "street")
DETAIL_CLASSES = ("stage_columns", "stage_rows", "cellar_columns", "cellar_rows")
CLASSES = (*PLAIN_CLASSES, *DETAIL_CLASSES)

_CARD_SIZE = 90  # pixels
_CARD_COLOUR = (130, 205, 215)
# A stripe and its gap, in pixels, and how far it is from the card's colour. At 224 (resized by 0.98) a period is
# 2.6 samples; at 112 (by 0.53) it is 1.4, beyond what the sampling can show.
_PERIOD, _CONTRAST = 2.67, 60


@dataclass(frozen=True)
class Clip:
    """One video of the collection: everything about it follows from `seed`."""

    name: str
    label: str
    subset: str
    seed: tuple[int, ...]


def plan(*, videos_per_class: int, seed: int, test_share: float = 0.4) -> list[Clip]:
    """The collection, `videos_per_class` of each class, the last `test_share` of them for testing."""
    train = round(videos_per_class * (1 - test_share))
    return [
        Clip(f"{label}_{i:03d}", label, TRAIN if i < train else TEST, (seed, number, i))
        for number, label in enumerate(CLASSES)
        for i in range(videos_per_class)
    ]


def write_clip(clip: Clip, folder: Path) -> None:
    """Encode one video of 8 to 20 seconds (most of them short) as H.264."""
    random = np.random.default_rng(clip.seed)
    duration_s = float(np.clip(8 + random.exponential(2.5), 8, 20))
    path = folder / f"{clip.name}.mp4"
    half_written = path.with_name(f".{path.name}")  # hidden: batch-extract leaves it alone
    write_video(
        half_written,
        _frames(clip.label, round(duration_s * FPS), random),
        fps=FPS,
        gop=2 * FPS,
        options={"preset": "veryfast", "crf": "20", "threads": "1"},
    )
    half_written.replace(path)


def write_labels(clips: list[Clip], path: Path) -> None:
    """The labels in thriftvid's own CSV format."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("video_id", "label", "subset"))
        writer.writerows((clip.name, clip.label, clip.subset) for clip in clips)


def _frames(label: str, count: int, random: np.random.Generator) -> Iterator[Pixels]:
    place, _, pattern = label.partition("_")
    shade = random.normal(0, 5, 3)  # the light: no two videos have quite the same colours
    scene = np.clip(_scene(place) + shade, 0, 255).astype(np.uint8)
    shown = np.zeros(count, np.bool_)
    if pattern:
        length = int(random.uniform(2.2, 4) * FPS)
        start = int(random.integers(0, count - length))
        shown[start : start + length] = True
    card = _card(pattern, random)
    top, left = (int(random.integers(24, limit - 24 - _CARD_SIZE)) for limit in (HEIGHT, WIDTH))
    spare = np.array([scene.shape[0] - HEIGHT, scene.shape[1] - WIDTH])
    drift = random.uniform(-0.6, 0.6, size=2)
    start = random.uniform(0.3, 0.7, size=2) * spare
    for number in range(count):
        y, x = np.clip(start + drift * number, 0, spare).astype(int)
        frame = scene[y : y + HEIGHT, x : x + WIDTH].copy()
        if shown[number]:
            frame[top : top + _CARD_SIZE, left : left + _CARD_SIZE] = card
        yield frame


@cache
def _scene(place: str) -> npt.NDArray[np.float32]:
    """The place, larger than the frame: blobs of its hue. Every video of it shows the same one."""
    hue, structure = _SCENES[place]
    random = np.random.default_rng(list(place.encode()))
    height, width = HEIGHT + 160, WIDTH + 160
    blobs = random.normal(0, 255, (height // structure + 1, width // structure + 1)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC)) / 255
    noise = random.normal(0, 3, (height, width, 1))
    return (np.array(hue) + 22 * smooth[..., None] + noise).astype(np.float32)


def _card(pattern: str, random: np.random.Generator) -> Pixels:
    """The card with its stripes, (size, size, 3); its colour is the same whatever the pattern."""
    wave = np.cos(2 * np.pi * (np.arange(_CARD_SIZE) / _PERIOD + random.random()))
    stripes = np.broadcast_to(wave if pattern == "columns" else wave[:, None], (_CARD_SIZE, _CARD_SIZE))
    colour = np.array(_CARD_COLOUR) + random.normal(0, 5, 3)
    pixels: Pixels = np.clip(colour + _CONTRAST * stripes[..., None], 0, 255).astype(np.uint8)
    return pixels
