"""docs/python.md, and the notebook that is made of it, do what they say."""

from __future__ import annotations

import json
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.notebook import NOTEBOOK, PAGE, notebook_of
from policy.evaluation.operating import Curve

pytestmark = pytest.mark.usefixtures("one_thread")

WITHOUT_PANDAS = find_spec("pandas") is None


def test_the_notebook_is_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert NOTEBOOK.read_text(encoding="utf-8") == notebook_of(page), "run python -m benchmarks.notebook"
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code == [block.strip() for block in re.findall(r"^```python \w+\n(.*?)^```", page, re.M | re.S)]


@pytest.mark.slow
def test_the_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    given: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not writable")  # of PyTorch, on rows of a cache
        for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and not (WITHOUT_PANDAS and "to_frame" in source):
                exec(compile(source, NOTEBOOK.name, "exec"), given)
    printed = capsys.readouterr().out
    assert "48 videos: 48 extracted" in printed and "liteeval has no option 'gama'" in printed
    curve: Curve = given["curve"]
    assert (np.diff(curve.gflops) > 0).all()
    # Half of the videos can be told by colour; the others once the gate opens where their stripes are.
    assert curve.top1[0] < 0.7 and curve.top1[3] > 0.9 and given["run"].result.metrics["top1"] > 0.9
    assert given["run"].result.metrics["usage"] == pytest.approx(0.25, abs=0.1)
    assert given["means"].shape == (8, 512) and Path("curve.png").stat().st_size > 1000
    assert next(iter(given["answers"])) == "new" and "red rows" in repr(given["answers"])
