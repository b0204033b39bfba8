"""What a run shows of its progress: a bar on a terminal, lines in a log file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from extract.pipeline import Progress


@contextmanager
def show_progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A bar with rate and time left on a terminal; elsewhere a line now and then."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with ProgressBar(
        TextColumn("extracting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("videos, {task.fields[rate]:.1f} frames/s, {task.fields[failed]} failed; took"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("extracting", total=None, rate=0.0, failed=0)

        def report(progress: Progress) -> None:
            bar.update(
                task,
                total=progress.videos_total,
                completed=progress.videos_done,
                rate=progress.frames_done / progress.elapsed_s,
                failed=len(progress.failures),
            )

        yield report


class _Lines:
    """Progress for a log file: a line every half minute."""

    EVERY_S = 30.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed_s = 0.0

    def __call__(self, progress: Progress) -> None:
        elapsed_s = progress.elapsed_s
        if elapsed_s - self._printed_s < self.EVERY_S:
            return
        self._printed_s = elapsed_s
        left = "?"
        if progress.videos_done:
            left = f"{elapsed_s / progress.videos_done * (progress.videos_total - progress.videos_done):.0f}"
        self._console.print(
            f"{progress.videos_done} of {progress.videos_total} videos, "
            f"{progress.frames_done / elapsed_s:.1f} frames/s, {len(progress.failures)} failed, "
            f"about {left} s left",
            highlight=False,
        )
