"""Tasks on which it is known where to look, planted ones and of real pictures in sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.pictures import digits, places
from cache_schema import FeatureCache, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from tests.caches import make_record, make_spec
from tests.planted import Planted, plant

Floats = npt.NDArray[np.float64]
Generator = np.random.Generator

CLASSES = 10


@dataclass(frozen=True)
class Task:
    """Attributes:
    write: from folder, seed, numbers of videos for training and for evaluation to the task's cache.
    gamma: the usage that is asked for, somewhat above the share of informative rows.
    """

    write: Callable[[Path, int, int, int], Planted]
    gamma: float


@dataclass(frozen=True)
class Shown:
    """A video. Attributes:
    coarse, fine: features, (T, D) each.
    informative: (T,).
    """

    label: int
    coarse: Floats
    fine: Floats
    informative: npt.NDArray[np.bool_]


def _planted(folder: Path, seed: int, train: int, test: int, **options: object) -> Planted:
    return plant(folder, seed=seed, train=train, test=test, dim=32, readable_signal=2.0, **options)  # type: ignore[arg-type]


def _digits(folder: Path, seed: int, train: int, test: int) -> Planted:
    """8 to 16 rows; in one or two of them, one after the other, a digit is clear. In the others another one is, or
    nothing, at a quarter of the contrast. Coarse: the means of the four quarters of the picture."""

    def video(random: Generator, bank: _Bank) -> Shown:
        label, length = int(random.integers(CLASSES)), int(random.integers(8, 17))
        on = int(random.integers(1, 3))
        start = int(random.integers(0, length - on + 1))
        informative = np.zeros(length, np.bool_)
        informative[start : start + on] = True
        clear = bank.draw(random, label)
        rows = [
            clear if shown else 0.25 * bank.draw(random, int(random.integers(CLASSES)))
            for shown in informative
        ]
        fine = np.stack(rows) + random.normal(0, 0.25, (length, 8, 8))
        coarse = fine.reshape(length, 2, 4, 2, 4).mean((2, 4)) + random.normal(0, 0.05, (length, 2, 2))
        return Shown(label, coarse.reshape(length, -1), fine.reshape(length, -1), informative)

    return _write(folder, seed, train, test, _digit_bank(), video)


def _held_digits(folder: Path, seed: int, train: int, test: int) -> Planted:
    """25 to 35 rows, as of words that are spoken. For six of them, about the middle, a digit is held up in so much
    noise that a row alone does not tell which; before and after it others, half of their contrast."""

    def video(random: Generator, bank: _Bank) -> Shown:
        label, length = int(random.integers(CLASSES)), int(random.integers(25, 36))
        start = int(random.integers(length // 4, 3 * length // 4 - 6))
        informative = np.zeros(length, np.bool_)
        informative[start : start + 6] = True
        held = bank.draw(random, label)
        before, after = (0.5 * bank.draw(random, int(random.integers(CLASSES))) for _ in range(2))
        rows = [held if shown else before if row < start else after for row, shown in enumerate(informative)]
        fine = np.stack(rows) + random.normal(0, 0.6, (length, 8, 8))
        coarse = fine.reshape(length, 2, 4, 2, 4).mean((2, 4))
        return Shown(label, coarse.reshape(length, -1), fine.reshape(length, -1), informative)

    return _write(folder, seed, train, test, _digit_bank(), video)


def _places(folder: Path, seed: int, train: int, test: int) -> Planted:
    """12 to 20 rows, crops of photographs: for two or three rows of the place that is the class, in all others of
    ten others. Coarse: the mean colours of the four quarters of the crop; fine: 8×8 pixels."""

    def video(random: Generator, bank: _Bank) -> Shown:
        label, length = int(random.integers(CLASSES)), int(random.integers(12, 21))
        on = int(random.integers(2, 4))
        start = int(random.integers(0, length - on + 1))
        informative = np.zeros(length, np.bool_)
        informative[start : start + on] = True
        rows = [
            bank.draw(random, label if shown else int(random.integers(CLASSES, 2 * CLASSES)))
            for shown in informative
        ]
        fine = np.stack(rows)
        coarse = fine.reshape(length, 2, 4, 2, 4, 3).mean((2, 4))
        return Shown(label, coarse.reshape(length, -1), fine.reshape(length, -1), informative)

    return _write(folder, seed, train, test, _place_bank(), video)


@dataclass(frozen=True)
class _Bank:
    """Pictures by class, of which training and evaluation have different ones."""

    pictures: tuple[Floats, ...]

    def draw(self, random: Generator, label: int) -> Floats:
        of_class = self.pictures[label]
        return np.asarray(of_class[random.integers(len(of_class))])

    def halves(self) -> Iterator[_Bank]:
        for half in range(2):
            yield _Bank(tuple(of_class[half::2] for of_class in self.pictures))


@cache
def _digit_bank() -> _Bank:
    pictures, labels = digits(8)
    grey = pictures[..., 0] / 255
    return _Bank(tuple(grey[labels == digit] for digit in range(CLASSES)))


@cache
def _place_bank() -> _Bank:
    """The classes are the first ten places in an order that mixes the photographs."""
    pictures, labels = places(8, 40)
    order = np.random.default_rng(0).permutation(labels.max() + 1)
    return _Bank(tuple(pictures[labels == place] / 255 for place in order))


def _write(
    folder: Path,
    seed: int,
    train: int,
    test: int,
    bank: _Bank,
    video: Callable[[Generator, _Bank], Shown],
) -> Planted:
    random = np.random.default_rng(seed)
    coarse: list[VideoRecord] = []
    fine: list[VideoRecord] = []
    labels, informative = [], {}
    for subset, count, part in zip(("train", "test"), (train, test), bank.halves(), strict=True):
        for index in range(count):
            shown, video_id = video(random, part), f"{subset}_{index:05d}"
            informative[video_id] = shown.informative
            for records, features in ((coarse, shown.coarse), (fine, shown.fine)):
                length, dim = features.shape
                records.append(make_record(video_id, length, dim=dim, features=features))
            labels.append(VideoLabel(video_id, (f"class {shown.label}",), subset))
    for name, records, macs in (("coarse_112", coarse, 80), ("fine_224", fine, 7800)):
        dim = records[0].features.shape[1]
        spec = replace(make_spec(name, dim=dim), macs_per_row=macs * 1_000_000)
        write_shard(folder / name, spec, records, tools={"thriftvid": "benchmark"})
    return Planted(FeatureCache(folder), LabelSet(folder / "labels.csv", tuple(labels)), informative)


TASKS: Mapping[str, Task] = {
    "planted, anywhere": Task(partial(_planted, lengths=(8, 20)), 0.13),
    "planted, late": Task(partial(_planted, lengths=(20, 30), place=(0.75, 1.0)), 0.075),
    "planted, signal 3": Task(partial(_planted, lengths=(8, 20), signal=3.0), 0.13),
    "digits, one clear": Task(_digits, 0.15),
    "digits, held": Task(_held_digits, 0.25),
    "places": Task(_places, 0.2),
}
