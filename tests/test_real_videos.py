"""Videos from elsewhere: every row is the frame that a plain reading by PyAV shows at its instant.

The files are those of a folder that is named by hand:

    THRIFTVID_VIDEOS=/path/to/videos python -m pytest tests/test_real_videos.py -rs

The reference (`benchmarks/plain.py`) shares no code with `extract`: it decodes every frame, one thread, in order,
and looks up who is on screen by the definition. What cannot be decoded without a complaint must be refused with a
reason.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch  # noqa: F401 - before decord, which a network would crash after
from click.testing import CliRunner
from numpy.typing import NDArray

from benchmarks.plain import Showing
from cache_schema import Sampling
from extract.cli import batch_extract
from extract.cutting import Cutter
from extract.decode import VideoError, open_video, read_video
from extract.transform import resize_and_crop
from extract.views import View
from tests.test_cutting import SMALL, instants

FOLDER = os.environ.get("THRIFTVID_VIDEOS")
FILES = sorted(path for path in Path(FOLDER).iterdir() if path.is_file()) if FOLDER else []
# 1 fps frames, SlowFast's snippets, X3D's clips and dense clips of 16 frames, as the built-in streams have them.
SAMPLINGS = {
    "frames": Sampling(fps=1.0),
    "snippets": Sampling("snippets", fps=30.0, frames=32, window=64, rows_per_s=1.0),
    "clips": Sampling("clips", fps=30.0, frames=4, window=48, clips=10),
    "dense": Sampling("dense", fps=25.0, frames=16, window=16),
}


def shown_clips(showing: Showing, samplings: list[Sampling]) -> list[NDArray[np.uint8]]:
    """For each sampling its rows, cut to `SMALL`: (N, T, 32, 32, 3), of frames (N, 32, 32, 3)."""
    small = [resize_and_crop(frame, SMALL) for frame in showing.frames(range(len(showing.starts_s)))]
    cut = []
    for sampling in samplings:
        rows = [[showing.at(t) for t in row] for row in instants(sampling, showing.duration_s)]
        clips = np.stack([np.stack([small[number] for number in row]) for row in rows])
        cut.append(clips[:, 0] if sampling.kind == "frames" else clips)
    return cut


def clips_of(path: Path, samplings: list[Sampling], decoder: str = "auto") -> list[NDArray[Any]]:
    """What `extract` makes of them, in one pass."""
    cutter = Cutter(
        read_video(path, decoder=decoder or "auto"), [View(sampling, SMALL) for sampling in samplings]
    )
    rows: list[list[NDArray[Any]]] = [[] for _ in samplings]
    for chunk in cutter.chunks():
        rows[chunk.view].append(chunk.pixels)
    return [np.concatenate(parts) for parts in rows]


def rows_of(path: Path) -> NDArray[np.uint8]:
    return np.concatenate([frames for _, frames in open_video(path, fps=1).chunks()])


def difference(ours: NDArray[Any], theirs: NDArray[Any]) -> int:
    """The largest, in grey levels. Memory is that of one row more."""
    assert ours.shape == theirs.shape
    return max(
        int(np.abs(our.astype(np.int16) - their).max()) for our, their in zip(ours, theirs, strict=True)
    )


def assert_shown(path: Path, decoder: str = "auto") -> None:
    """Every row of every sampling is what a player would show."""
    showing = Showing(path)
    assert not showing.heard
    if decoder == "auto":
        assert difference(rows_of(path), np.stack(showing.rows())) == 0
    samplings = list(SAMPLINGS.values())
    for name, ours, theirs in zip(
        SAMPLINGS, clips_of(path, samplings, decoder), shown_clips(showing, samplings), strict=True
    ):
        assert difference(ours, theirs) == 0, name


def reason(path: Path, sampling: Sampling) -> str:
    with pytest.raises(VideoError) as caught:
        clips_of(path, [sampling])
    message = str(caught.value)
    assert message and "\n" not in message
    return message


pytestmark = pytest.mark.skipif(not FILES, reason="no files: THRIFTVID_VIDEOS names no folder of videos")
whole = pytest.mark.parametrize(
    "path", [path for path in FILES if "corrupt" not in path.name], ids=lambda path: path.name
)
damaged = pytest.mark.parametrize(
    "path", [path for path in FILES if "corrupt" in path.name], ids=lambda path: path.name
)


@whole
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_every_row_is_what_is_on_screen(path: Path, decoder: str) -> None:
    assert_shown(path, decoder)


@damaged
@pytest.mark.parametrize("name", SAMPLINGS)
def test_a_damaged_file_is_refused_with_a_reason(path: Path, name: str) -> None:
    assert reason(path, SAMPLINGS[name])


def test_all_in_one_run(tmp_path: Path) -> None:
    """Exit code 1 exactly where there is a damaged file, which is named with its reason."""
    assert FOLDER is not None
    arguments = [FOLDER, "--cache", tmp_path, "--stream", "timm:test_resnet@64", "--weights", "random:0"]
    result = CliRunner().invoke(batch_extract, [*map(str, arguments), "--workers", "2", "--json"])
    bad = {path.stem for path in FILES if "corrupt" in path.name}
    assert result.exit_code == (1 if bad else 0)
    failed = json.loads(result.stdout)["failed"]
    assert set(failed) == bad
    for name, why in failed.items():
        assert f"failed: {name}: {why}" in result.stderr.splitlines()
