"""The demo's videos: each action has its place and its motion, and the place is in view before and after, too.

A camera drifts over a corridor and over one or two *places*, in each of which an actor crouches. Now and then the
actor rises and performs the place's action: it moves in the action's way (up and down, around, …). The labels of
videos do not tell these apart, for whoever sees the place knows the class: as after a long jump, when the running
track is still in view. Motion does, but is mistaken in the corridor, where somebody may move in one of these ways.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.videos import write_video

WIDTH, HEIGHT, FPS = 160, 120, 25
TRAIN, TEST = "train", "test"
LABEL_COLUMNS = ("video_id", "start_s", "end_s", "label", "subset")

Pixels = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.float64]

_CORRIDOR = ((120, 118, 112), 24)
# By action: the hue of its place and the size of its structure in pixels.
_PLACES = {
    "jump": ((175, 120, 90), 40),
    "sweep": ((80, 110, 165), 18),
    "circle": ((95, 150, 85), 30),
    "dash": ((165, 150, 95), 12),
}
# By action: where the actor is, in pixels from where it stands, at a phase of its motion (one turn is 2π).
_REACH = 17.0
_MOTIONS: dict[str, Callable[[float], tuple[float, float]]] = {
    "jump": lambda phase: (_REACH * np.sin(phase), 0.0),
    "sweep": lambda phase: (0.0, _REACH * np.sin(phase)),
    "circle": lambda phase: (_REACH * np.sin(phase), _REACH * np.cos(phase)),
    "dash": lambda phase: (0.0, 4 * _REACH * ((phase / (2 * np.pi) % 1) - 0.5)),  # always to the right
}
CLASSES = tuple(_PLACES)
_TURNS_PER_S = 1.4
_ACTOR = 36  # pixels


@dataclass(frozen=True)
class Scene:
    """Seconds of a video.

    Attributes:
        place: what is in view; "": the corridor.
        motion: how somebody moves in it; "": nobody does.
        moves_s: from when to when, seconds of the scene.
    """

    place: str
    duration_s: float
    motion: str = ""
    moves_s: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Video:
    """One video of the collection."""

    name: str
    subset: str
    seed: tuple[int, ...]
    scenes: tuple[Scene, ...]

    def segments(self) -> Iterator[tuple[float, float, str]]:
        """Start and end in seconds and class of every action."""
        scene_s = 0.0
        for scene in self.scenes:
            for start_s, end_s in scene.moves_s if scene.place else ():
                yield scene_s + start_s, scene_s + end_s, scene.place
            scene_s += scene.duration_s


def plan(*, train: int, test: int, seed: int) -> list[Video]:
    """The collection, its classes in turn; half of the videos show a second one."""
    return [
        _plan(f"{subset}_{number:03d}", subset, CLASSES[number % len(CLASSES)], (seed, part, number))
        for part, (subset, count) in enumerate(((TRAIN, train), (TEST, test)))
        for number in range(count)
    ]


def _plan(name: str, subset: str, action: str, seed: tuple[int, ...]) -> Video:
    random = np.random.default_rng(seed)
    scenes = [_corridor(random)]
    # Were there one action a video, motion could learn one of them as the absence of the others.
    other = str(random.choice([name for name in CLASSES if name != action]))
    for place in (action, other)[: random.integers(1, 3)]:
        scenes += [_place(place, random), _corridor(random)]
    return Video(name, subset, seed, tuple(scenes))


def _place(action: str, random: np.random.Generator) -> Scene:
    moves_s, at_s = [], 0.0
    for _ in range(random.integers(1, 3)):
        start_s = at_s + random.uniform(1.9, 4.5)
        at_s = start_s + random.uniform(2.6, 4.5)
        moves_s.append((start_s, at_s))
    return Scene(action, at_s + random.uniform(1.9, 4.5), action, tuple(moves_s))


def _corridor(random: np.random.Generator) -> Scene:
    if random.random() < 0.4:
        start_s = random.uniform(0, 0.8)
        return Scene("", 3.2, str(random.choice(CLASSES)), ((start_s, start_s + 1.9),))
    return Scene("", random.uniform(1.5, 3.2))


def write(video: Video, folder: Path) -> None:
    """Encode one video as H.264."""
    path = folder / f"{video.name}.mp4"
    half_written = path.with_name(f".{path.name}")  # hidden: batch-extract leaves it alone
    options = {"preset": "veryfast", "crf": "20", "threads": "1"}
    write_video(half_written, _frames(video), fps=FPS, gop=2 * FPS, options=options)
    half_written.replace(path)


def write_labels(videos: Sequence[Video], path: Path) -> None:
    """The segments in thriftvid's own CSV format."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(LABEL_COLUMNS)
        for video in videos:
            for start_s, end_s, label in video.segments():
                writer.writerow((video.name, f"{start_s:.2f}", f"{end_s:.2f}", label, video.subset))


def _frames(video: Video) -> Iterator[Pixels]:
    random = np.random.default_rng((*video.seed, 1))
    shade = random.normal(0, 4, 3)  # the light: no two videos have quite the same colours
    actor = _texture((200, 190, 185), 7, _ACTOR, _ACTOR, 70, seed=3)
    for scene in video.scenes:
        background = _background(scene.place)
        spare = np.array(background.shape[:2]) - (HEIGHT, WIDTH)
        drift, corner = random.uniform(-0.25, 0.25, 2), random.uniform(0.3, 0.7, 2) * spare
        stand = random.uniform((24, 50), (HEIGHT - _ACTOR - 24, WIDTH - _ACTOR - 50))
        phase, turns_per_s = random.uniform(0, 2 * np.pi), _TURNS_PER_S * random.uniform(0.85, 1.15)
        for number in range(round(scene.duration_s * FPS)):
            corner_y, corner_x = np.clip(corner + drift * number, 0, spare).astype(int)
            frame = background[corner_y : corner_y + HEIGHT, corner_x : corner_x + WIDTH] + shade
            at_s = number / FPS
            moving = any(start_s <= at_s < end_s for start_s, end_s in scene.moves_s)
            if moving:
                phase += 2 * np.pi * turns_per_s / FPS
            if scene.place or moving:
                offset = _MOTIONS[scene.motion](phase) if moving else (0.0, 0.0)
                top, left = np.clip(stand + offset, 0, (HEIGHT - _ACTOR, WIDTH - _ACTOR)).astype(int)
                hidden = 0 if moving else _ACTOR // 2
                frame[top + hidden : top + _ACTOR, left : left + _ACTOR] = actor[hidden:] + shade
            yield np.clip(frame, 0, 255).astype(np.uint8)


def _background(place: str) -> npt.NDArray[np.float32]:
    """Larger than the frame; every video of a place shows the same one."""
    hue, structure = _PLACES[place] if place else _CORRIDOR
    return _texture(hue, structure, HEIGHT + 80, WIDTH + 80, 24, seed=sum(place.encode()))


@cache
def _texture(
    hue: tuple[int, int, int], structure: int, height: int, width: int, contrast: int, *, seed: int
) -> npt.NDArray[np.float32]:
    """(height, width, 3): blobs of a hue."""
    random = np.random.default_rng(seed)
    blobs = random.normal(0, 1, (height // structure + 2, width // structure + 2)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC))
    noise = random.normal(0, 3, (height, width, 1))
    texture: npt.NDArray[np.float32] = (hue + contrast * smooth[..., None] + noise).astype(np.float32)
    return texture
