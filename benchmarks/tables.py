"""What the benchmarks print: Markdown tables, and the circumstances in which their figures came about."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


def as_written(text: str | None) -> str:
    """A module's docstring as help: click would run the lines of examples and lists together."""
    return "\n\n".join(f"\b\n{part}" for part in (text or "").split("\n\n"))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is legible as it stands: the first column to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = [
        " | ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rule = " | ".join(
        "-" * (width - 1) + ":" if column else "-" * width for column, width in enumerate(widths)
    )
    return "\n".join(f"| {text} |" for text in [texts[0], rule, *texts[1:]])


def machine() -> str:
    """What the figures were measured on, in words."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{os.cpu_count()} cores ({_processor()}), {gpu}; {versions}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def load() -> str:
    """The machine's load: figures taken while others compute are worth less."""
    return f"{os.getloadavg()[0]:.1f}"


class Spent(NamedTuple):
    """Seconds by the clock, and of the processor: these tell more where others are at work on the machine."""

    clock_s: float
    processor_s: float

    def __str__(self) -> str:
        return f"{self.clock_s:.1f} ({self.processor_s:.1f})"


def spent_on(work: Callable[[], object]) -> Spent:
    """What work took. The processor's seconds are this process's and those of children that have ended by then."""
    before = sum(os.times()[:4])
    clock_s = seconds_of(work)
    return Spent(clock_s, sum(os.times()[:4]) - before)


def median(spent: Sequence[Spent]) -> Spent:
    return Spent(*map(statistics.median, zip(*spent, strict=True)))


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spent_in_turn(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Spent]:
    """Medians of what each took, run in turn, so that a busy minute of the machine falls on all of them alike."""
    taken: dict[str, list[Spent]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            taken[name].append(spent_on(work))
    return {name: median(spent) for name, spent in taken.items()}


def in_turn(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The same, in seconds by the clock."""
    return {name: spent.clock_s for name, spent in spent_in_turn(works, repeats).items()}
