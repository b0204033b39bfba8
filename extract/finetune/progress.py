"""What a run of fine-tuning shows of its progress: a bar on a terminal, lines in a log file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from extract.finetune.training import Epoch, Listener, Progress


@contextmanager
def show_training(console: Console, *, metric: str) -> Iterator[Listener]:
    """A bar with rate and time left on a terminal, elsewhere a line now and then; a line for each epoch on both.

    Args:
        metric: what accuracy is measured by, "mAP" or "top-1".
    """

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    def epoch(done: Epoch) -> None:
        say(
            f"epoch {done['epoch']}: loss {done['train_loss']:.3f}, validation {done['val_loss']:.3f}, {metric} "
            f"{100 * done['val_videos']:.1f} % of videos ({100 * done['val_rows']:.1f} % row by row), "
            f"{done['seconds']:.0f} s"
        )

    if not console.is_terminal:
        yield Listener(note=say, progress=_Lines(say), epoch=epoch)
        return
    with ProgressBar(
        TextColumn("epoch {task.fields[epoch]} of {task.fields[epochs]}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:.1f} rows/s, loss {task.fields[loss]:.3f}; left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("training", total=None, epoch=0, epochs=0, rate=0.0, loss=float("nan"))

        def report(progress: Progress) -> None:
            bar.update(
                task,
                total=progress.videos_total,
                completed=progress.videos_done,
                epoch=progress.epoch,
                epochs=progress.epochs,
                rate=progress.rows_done / progress.elapsed_s,
                loss=progress.loss,
            )

        yield Listener(note=say, progress=report, epoch=epoch)


class _Lines:
    """Progress for a log file: a line every half minute."""

    EVERY_S = 30.0

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._printed_s = 0.0

    def __call__(self, progress: Progress) -> None:
        elapsed_s = progress.elapsed_s
        if elapsed_s - self._printed_s < self.EVERY_S:
            return
        self._printed_s = elapsed_s
        left_s = elapsed_s / max(progress.videos_done, 1) * (progress.videos_total - progress.videos_done)
        self._say(
            f"epoch {progress.epoch} of {progress.epochs}, {progress.videos_done} of {progress.videos_total} "
            f"visits to videos, {progress.rows_done / elapsed_s:.1f} rows/s, loss {progress.loss:.3f}, "
            f"about {timedelta(seconds=round(left_s))} left"
        )
