"""The benchmarks run: their figures are for people, and no test depends on them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("extraction", "usual_script", "second_stream", "memory", "gpu --device cpu"),
        *("flow", "opening", "reading", "damage", "feeding --device cpu"),
        *("decoding", "survey", "cpu_forward"),
        *("liteeval_step", "liteeval_evaluation", "late_steps", "wtalc_step"),
        *("selection_speed", "selection_real", "selection_gain", "detection_speed"),
        *("localization_proposals", "localization_figures", "operating_points", "run_policy"),
        *("same_answers", "robust", "startup", "policies", "shared_budget"),
    ],
)
def test_quick_run(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *f"benchmarks.{name}".split(), "--quick"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 4
