"""Decoded videos in the order in which they were asked for, by worker processes that finish in any order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from extract.finetune.cutting import SERVE, Pause, TrainingJob, ValidationJob
from extract.views import PixelArray
from extract.workers import DecodeJob, Finished, Frames, Opened, decode_all

_PAUSE = -1

Job = TrainingJob | ValidationJob


class Sample(NamedTuple):
    """What came of a job: its rows (N, *row_shape), or why there are none."""

    job: Job
    pixels: PixelArray | None
    error: str | None


def decode_in_order(
    jobs: Iterator[Job], *, workers: int, deadline_s: float, ahead: int, target: str | None = None
) -> Generator[Sample]:
    """Decode videos in parallel; yield a Sample for each job, in the jobs' order.

    Args:
        jobs: taken one by one as workers fall idle, in another thread. Their keys are given here.
        deadline_s: as for `decode_all`.
        ahead: so many videos at most are being decoded, or are decoded and wait for one before them.
        target: for tests, as for `decode_all`.
    """
    window = _Window(jobs, ahead)
    parts: dict[int, list[PixelArray]] = {}
    done: dict[int, Sample] = {}
    with closing(
        decode_all(window, workers=workers, deadline_s=deadline_s, target=target or SERVE)
    ) as messages:
        for message in messages:
            if isinstance(message, Opened):  # for the second time, perhaps
                parts[message.key] = []
            elif isinstance(message, Frames):
                parts[message.key].append(message.pixels)
            elif message.key != _PAUSE:
                done[message.key] = _sample(window, message, parts.pop(message.key, []))
            # One for each message: while a long row of them is taken, the decoders go on.
            if window.taken in done:
                yield window.take(done)
    while window.taken in done:
        yield window.take(done)


def in_batches(videos: Iterable[tuple[int, PixelArray]], size: int) -> Iterator[tuple[PixelArray, list[int]]]:
    """Rows of videos (index, (N, …)) in batches of `size`, the last perhaps smaller: rows, and whose they are."""
    held: list[PixelArray] = []
    owners: list[int] = []
    for index, rows in videos:
        held.append(rows)
        owners += [index] * len(rows)
        if len(owners) >= size:
            pixels = np.concatenate(held)
            whole = len(owners) - len(owners) % size
            for at in range(0, whole, size):
                yield pixels[at : at + size], owners[at : at + size]
            held, owners = [pixels[whole:]], owners[whole:]
    if owners:
        yield np.concatenate(held), owners


def _sample(window: _Window, finished: Finished, parts: list[PixelArray]) -> Sample:
    job = window.given.pop(finished.key)
    return Sample(job, None if finished.error else np.concatenate(parts), finished.error)


class _Window:
    """Jobs for `decode_all`: numbered, and no more than `ahead` of them beyond what has been taken.

    When there are as many, an idle worker gets a pause instead: the iterator is called by the thread that listens
    to the workers, so it cannot wait.
    """

    def __init__(self, jobs: Iterator[Job], ahead: int) -> None:
        self._jobs, self._ahead = jobs, ahead
        self._numbered = 0
        self.taken = 0
        self.given: dict[int, Job] = {}

    def __iter__(self) -> Iterator[DecodeJob]:
        return self

    def __next__(self) -> DecodeJob:
        if self._numbered - self.taken >= self._ahead:
            return Pause(_PAUSE, Path(), ())
        job = replace(next(self._jobs), key=self._numbered)
        self.given[job.key] = job
        self._numbered += 1
        return job

    def take(self, done: dict[int, Sample]) -> Sample:
        sample = done.pop(self.taken)
        self.taken += 1
        return sample
