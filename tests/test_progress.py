"""What a run shows on a terminal: one line, its time left to be seen."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from extract.pipeline import Progress
from extract.progress import show_progress


def shown(monkeypatch: pytest.MonkeyPatch, *states: Progress, width: int = 80, terminal: bool = True) -> str:
    """What is left on the line, or the last line, after all these reports."""
    drawn = io.StringIO()
    console = Console(file=drawn, width=width, force_terminal=terminal, color_system=None)
    with show_progress(console) as report:
        for state in states:
            with monkeypatch.context() as patch:
                patch.setattr(Progress, "elapsed_s", 5000.0)
                report(state)
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", drawn.getvalue())
    return text.replace("\r", "\n").rstrip("\n").splitlines()[-1]


def large(done: int) -> Progress:
    failures = dict.fromkeys(map(str, range(999)), "damaged")
    return Progress(130_000, done, frames_done=61_728_000, failures=failures)


@pytest.mark.parametrize("width", [80, 120])
def test_a_large_run_fits_the_line_with_its_time_left(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    line = shown(monkeypatch, Progress(0), large(0), large(100_000), width=width)
    assert len(line) == width and line.startswith("━━━━")
    assert line.endswith("100000/130000 videos, 12345.6 frames/s, 999 failed, left 0:25:00")
    slow = shown(monkeypatch, large(10), width=width)
    assert len(slow) == width and slow.endswith(
        "    10/130000 videos, 12345.6 frames/s, 999 failed, left 18054:10:00"
    )


def test_a_run_that_is_done_says_how_long_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    line = shown(monkeypatch, large(100_000), large(130_000))
    assert line.endswith("130000/130000 videos, 12345.6 frames/s, 999 failed, took 1:23:20")


def test_before_anything_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    line = shown(monkeypatch, Progress(1_000_000))
    assert len(line) <= 80 and line.endswith("      0/1000000 videos, 0.0 frames/s, 0 failed, left ?")


def test_a_log_file_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    line = shown(monkeypatch, large(100_000), terminal=False)
    assert line == "100000 of 130000 videos, 12345.6 frames/s, 999 failed, left 0:25:00"
