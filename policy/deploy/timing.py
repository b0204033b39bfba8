"""How long work takes, and on which machine."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

Key = TypeVar("Key")
Item = TypeVar("Item")

_LONG_S = 10.0  # what takes longer is timed once: over so long a time chance hardly matters


@dataclass(frozen=True)
class Machine:
    """The machine of a measurement.

    Attributes:
        processor: name of the GPU, or of the CPU.
        threads: of torch on the CPU.
    """

    processor: str
    threads: int
    torch_version: str

    @staticmethod
    def of(device: torch.device) -> Machine:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()
        return Machine(name, torch.get_num_threads(), torch.__version__)

    def __str__(self) -> str:
        return f"{self.processor}, {self.threads} CPU threads, torch {self.torch_version}"


def medians(
    works: Mapping[Key, Callable[[], object]], repeats: int, device: torch.device
) -> dict[Key, float]:
    """Median seconds of each, run in turn, after a warm-up that does not count.

    What takes more than 10 s is timed once.
    """
    first = {key: _seconds(work, device) for key, work in works.items()}
    times: dict[Key, list[float]] = {key: [] for key in works}
    for turn in range(repeats):
        for key, work in works.items():
            if turn == 0 or first[key] <= _LONG_S:
                times[key].append(_seconds(work, device))
    return {key: statistics.median(seconds) for key, seconds in times.items()}


def spread_evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` items, the first and the last among them where there are several."""
    count = min(len(items), count)
    return [items[place * (len(items) - 1) // max(count - 1, 1)] for place in range(count)]


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _finish(device)
    started = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    """Wait for a GPU's queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cpu() -> str:
    """The CPU's name on Linux; elsewhere the kind of processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
