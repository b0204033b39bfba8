"""Frames of many videos through one backbone, in batches that are always full."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cache_schema import UserError
from extract.backbones.backbone import Backbone
from extract.views import PixelArray


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of one video, computed: features (n, D) and scores (n, C) or None, float32."""

    owner: Any
    first_row: int
    features: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32] | None


class Batcher:
    """Collects rows' pixels until a batch is full, then computes it.

    The last batch of a run is filled up with black: a forward pass of another size may take another path through
    the libraries and differ in the last bit, and an interrupted run must end with the same rows.

    On a CPU each of torch's threads takes an equal part of the batch through the whole network. They meet once a
    batch: threads that share the work of every layer meet hundreds of times, and wait for those from which a
    decoder has just taken the core; and a part's activations are more likely to fit into a core's cache. So that
    the parts are equal, a batch may be a few rows larger than `size`.

    On a GPU two batches are under way: while one is computed, the next is filled in pinned memory and copied
    over. Rows then come one batch late, and the last ones from `flush`.
    """

    def __init__(self, backbone: Backbone, size: int) -> None:
        self._backbone = backbone
        view = backbone.view
        self._gpu = backbone.device.type == "cuda"
        self._parts = 1 if self._gpu else min(torch.get_num_threads(), size)
        self._threads = _sharing_threads(self._parts) if self._parts > 1 else None
        shape = (-(-size // self._parts) * self._parts, *view.row_shape)
        dtype = torch.from_numpy(np.zeros(0, view.dtype)).dtype
        # A buffer is filled again only after the batch that was copied from it has been read back.
        self._buffers = [
            torch.zeros(shape, dtype=dtype, pin_memory=self._gpu) for _ in range(2 if self._gpu else 1)
        ]
        self._filled = 0
        self._segments: list[_Segment] = []
        self._running: _Running | None = None
        self._copying: torch.cuda.Stream | None = None

    def add(self, owner: Any, first_row: int, pixels: PixelArray) -> Iterator[Rows]:
        """Take in rows (n, *row_shape) of one video; yield the rows of batches that have been computed."""
        taken = 0
        while taken < len(pixels):
            buffer = self._buffers[0]
            count = min(len(buffer) - self._filled, len(pixels) - taken)
            buffer[self._filled : self._filled + count] = torch.from_numpy(pixels[taken : taken + count])
            self._segments.append((owner, first_row + taken, count))
            self._filled += count
            taken += count
            if self._filled == len(buffer):
                yield from self._compute()

    def flush(self) -> Iterator[Rows]:
        """Compute what has been taken in and yield its rows, video by video."""
        if self._segments:
            self._buffers[0][self._filled :] = 0
            yield from self._compute()
        yield from self._read_back()

    def _compute(self) -> Iterator[Rows]:
        try:
            yield from self._computed()
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"a batch of {len(self._buffers[0])} does not fit into the GPU's memory: use a smaller --batch"
            ) from error

    def _computed(self) -> Iterator[Rows]:
        segments, self._segments, self._filled = self._segments, [], 0
        if not self._gpu:
            self._running = _Running(segments, *self._forward(self._buffers[0]), None)
            yield from self._read_back()
            return
        started = self._queue_on_gpu(segments)
        self._buffers.reverse()
        yield from self._read_back()
        self._running = started

    def _forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self._threads is None:
            return self._backbone(pixels)
        features, scores = zip(*self._threads.map(self._backbone, pixels.chunk(self._parts)), strict=True)
        return torch.cat(features), None if scores[0] is None else torch.cat(scores)

    def _queue_on_gpu(self, segments: list[_Segment]) -> _Running:
        """Copy over, compute and copy back, all of it behind what is under way: nothing is waited for here."""
        device = self._backbone.device
        with torch.cuda.device(device):
            computing = torch.cuda.current_stream()
            if self._copying is None:
                self._copying = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            with torch.cuda.stream(self._copying):
                pixels = self._buffers[0].to(device, non_blocking=True)
            computing.wait_stream(self._copying)
            pixels.record_stream(computing)  # its memory is not the copying stream's to use again before
            features, scores = self._backbone(pixels)
            host = [None if part is None else _to_pinned(part) for part in (features, scores)]
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(computing)
        assert host[0] is not None
        return _Running(segments, host[0], host[1], done)

    def _read_back(self) -> Iterator[Rows]:
        """The rows of the batch that is under way, once it is done."""
        running, self._running = self._running, None
        if running is None:
            return
        if running.done is not None:
            running.done.synchronize()
        features = running.features.numpy()
        scores = None if running.scores is None else running.scores.numpy()
        start = 0
        for owner, first_row, count in running.segments:
            at = slice(start, start + count)
            start += count
            yield Rows(owner, first_row, features[at], None if scores is None else scores[at])


_Segment = tuple[Any, int, int]  # a video, the first of its rows and how many


@dataclass
class _Running:
    """A batch under way: complete when `done`, on a GPU, has happened."""

    segments: list[_Segment]
    features: torch.Tensor
    scores: torch.Tensor | None
    done: torch.cuda.Event | None


def _sharing_threads(count: int) -> ThreadPoolExecutor:
    """Threads that have equal shares of torch's."""
    available = torch.get_num_threads()
    all_there = Barrier(count)

    def start(_number: int) -> None:
        torch.get_num_threads()  # else it would take, when it first computes, what was last set in any thread
        torch.set_num_threads(available // count)
        all_there.wait()

    threads = ThreadPoolExecutor(count, "forward")
    list(threads.map(start, range(count)))
    torch.set_num_threads(available)
    return threads


def _to_pinned(tensor: torch.Tensor) -> torch.Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
