"""Progress of a table's runs on standard error: a bar on a terminal, an occasional line elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import click
from rich import progress as bars
from rich.console import Console

from cache_schema.command import count
from policy.training.loop import METRICS


class Working(NamedTuple):
    """A run in progress: its name, and how many epochs it will have."""

    name: str
    epochs: int


class Progress:
    """Receives the progress of a table, and shows nothing."""

    def reused(self, title: str, runs: int) -> None:
        """Runs of a row existed already."""

    def trained(self, name: str, folder: Path, *, seconds: float, how: str) -> None:
        """A run is finished; `how` is "trained", "evaluated" or the like."""

    def note(self, line: str) -> None:
        """Something else is finished."""

    def watch(self, active: Mapping[Path, Working]) -> AbstractContextManager[None]:
        """A context in which these run folders are worked on."""
        return nullcontext()


class ShownProgress(Progress):
    """Shows the progress on standard error.

    Trainings may run in other processes, so epochs are counted as lines of the metrics file in each run folder.
    """

    def __init__(self, runs: int, *, live: bool | None = None) -> None:
        """Args:
        runs: number of runs of the whole table.
        live: draw a bar; by default if standard error is a terminal.
        """
        self.runs = runs
        self.done = 0
        self.live = sys.stderr.isatty() if live is None else live
        self.active: dict[Path, Working] = {}
        self.bar = bars.Progress(
            bars.TextColumn("training"),
            bars.BarColumn(),
            bars.TextColumn("{task.fields[count]}"),
            bars.TextColumn("{task.fields[current]}"),
            bars.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not self.live,
        )
        self.task = self.bar.add_task("training", total=float(runs), count="", current="")

    def reused(self, title: str, runs: int) -> None:
        self.done += runs
        self._say(f"{title}: {_runs(runs)} reused")

    def trained(self, name: str, folder: Path, *, seconds: float, how: str) -> None:
        self.done += 1
        self.active.pop(folder, None)
        self._show()
        self._say(f"{name}: {how} in {_duration(seconds)}, {folder}")

    def note(self, line: str) -> None:
        click.echo(line, err=True)

    @contextmanager
    def watch(self, active: Mapping[Path, Working]) -> Iterator[None]:
        if not active:
            yield
            return
        self.active = dict(active)
        self._show()
        over = threading.Event()
        watcher = threading.Thread(target=self._look, args=(over,), daemon=True)
        with self.bar:
            watcher.start()
            try:
                yield
            finally:
                over.set()
                watcher.join()

    def _look(self, over: threading.Event) -> None:
        while not over.wait(0.5 if self.live else 30.0):
            epochs = {run: n for folder, run in list(self.active.items()) if (n := _epochs(folder))}
            lines = [f"{run.name}: epoch {n} of {run.epochs}" for run, n in epochs.items()]
            if self.live:
                others = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
                share = sum(n / run.epochs for run, n in epochs.items())
                self._show(share, f"{lines[0]}{others}" if lines else "")
            elif lines:
                self._say("; ".join(lines))

    def _show(self, share: float = 0.0, current: str = "") -> None:
        count = f"{self.done}/{self.runs} runs"
        self.bar.update(self.task, completed=self.done + share, count=count, current=current)

    def _say(self, line: str) -> None:
        numbered = f"[{self.done:>{len(str(self.runs))}}/{self.runs}] {line}"
        if self.live:
            # The bar's console moves the bar out of the way.
            self.bar.console.print(numbered, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(numbered, err=True)


def _epochs(folder: Path) -> int:
    """The number of finished epochs of a run."""
    try:
        return (folder / METRICS).read_bytes().count(b"\n")
    except OSError:
        return 0


def _runs(number: int) -> str:
    return count(number, "runs")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
