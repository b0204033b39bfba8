"""What a run shows of its progress: a bar on a terminal, lines in a log file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as ProgressBar
from rich.table import Column

from extract.pipeline import Progress


@contextmanager
def show_progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A bar with rate and time left on a terminal; elsewhere a line now and then."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with ProgressBar(
        BarColumn(bar_width=None, table_column=Column(ratio=1)),  # what the others leave of the line
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn(
            "videos, {task.fields[rate]:.1f} frames/s, {task.fields[failed]} failed, {task.fields[time]}"
        ),
        console=console,
        expand=True,
    ) as bar:
        task = bar.add_task("extracting", total=None, rate=0.0, failed=0, time=_time(Progress(0)))

        def report(progress: Progress) -> None:
            bar.update(
                task,
                total=progress.videos_total,
                completed=progress.videos_done,
                rate=progress.frames_done / progress.elapsed_s,
                failed=len(progress.failures),
                time=_time(progress),
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
        self._console.print(
            f"{progress.videos_done} of {progress.videos_total} videos, "
            f"{progress.frames_done / elapsed_s:.1f} frames/s, {len(progress.failures)} failed, "
            f"{_time(progress)}",
            highlight=False,
        )


def _time(progress: Progress) -> str:
    """How long a run will go on if its videos take as long as so far; how long it took, when all are done."""
    done, total = progress.videos_done, progress.videos_total
    if not done:
        return "left ?"
    word, seconds = "took", progress.elapsed_s
    if done < total:
        word, seconds = "left", seconds / done * (total - done)
    minutes, seconds = divmod(round(seconds), 60)
    return f"{word} {minutes // 60}:{minutes % 60:02}:{seconds:02}"
