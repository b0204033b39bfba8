"""Every row of a clip stream is made of exactly the frames on screen at its instants.

The reference decodes everything with PyAV and picks frames by a loop over the definition in `cache_schema.schema`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.videos import noisy_frames, write_video
from cache_schema import Preprocessing, Sampling
from extract.cutting import Cutter
from extract.decode import Video, read_video
from extract.transform import resize_and_crop
from extract.views import View

SMALL = Preprocessing(36, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FLOW = Preprocessing(40, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), flow="dis")
SAMPLINGS = {
    "frames": Sampling(fps=3.0),
    "snippets": Sampling("snippets", fps=30.0, frames=32, window=64, rows_per_s=1.0),
    "clips": Sampling("clips", fps=30.0, frames=13, window=78, clips=10),
    "one clip": Sampling("clips", fps=30.0, frames=4, window=48, clips=1),
    "crops": Sampling("clips", fps=30.0, frames=4, window=48, clips=3, crops=3),
    "dense": Sampling("dense", fps=25.0, frames=16, window=16),
}


def instants(sampling: Sampling, duration_s: float) -> list[list[float]]:
    """By the definition, one instant at a time."""
    if sampling.kind == "frames":
        return [[k / sampling.fps] for k in range(math.ceil(duration_s * sampling.fps - 1e-6))]
    window_s = sampling.window / sampling.fps
    if sampling.kind == "snippets":
        count = math.ceil(duration_s * sampling.rows_per_s - 1e-6)
        starts = [k / sampling.rows_per_s - sampling.window // 2 / sampling.fps for k in range(count)]
    elif sampling.kind == "dense":
        starts = [k * window_s for k in range(max(1, math.floor(duration_s / window_s + 1e-6)))]
    else:
        room = max(0.0, duration_s - window_s)
        starts = [
            room * k / (sampling.clips - 1) if sampling.clips > 1 else room / 2 for k in range(sampling.clips)
        ]
    ticks = [math.floor(j * (sampling.window - 1) / (sampling.frames - 1)) for j in range(sampling.frames)]
    return [[min(max(start + tick / sampling.fps, 0.0), duration_s) for tick in ticks] for start in starts]


def cut(path: Path, *views: View, **how: Any) -> tuple[list[NDArray[Any]], Cutter]:
    """All rows of each view, and the cutter."""
    cutter = Cutter(read_video(path, **how), views)
    rows: list[list[NDArray[Any]]] = [[] for _ in views]
    for chunk in cutter.chunks():
        assert chunk.first_row == sum(map(len, rows[chunk.view]))
        rows[chunk.view].append(chunk.pixels)
    return [np.concatenate(parts) for parts in rows], cutter


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "a.mp4"
    write_video(path, noisy_frames(125, width=64, height=48), fps=25, gop=24, options={"bf": "3"})
    return path


def everything(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def expected(path: Path, sampling: Sampling, duration_s: float, rate: float) -> NDArray[np.uint8]:
    frames = everything(path)
    rows = []
    for row in instants(sampling, duration_s):
        numbers = [min(len(frames) - 1, math.floor(t * rate + 1e-6)) for t in row]
        for place in (1,) if sampling.crops == 1 else (0, 1, 2):
            clip = [resize_and_crop(frames[number], SMALL, place) for number in numbers]
            rows.append(clip[0] if sampling.kind == "frames" else np.stack(clip))
    return np.stack(rows)


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_rows_are_the_frames_on_screen(video: Path, name: str, decoder: str) -> None:
    sampling = SAMPLINGS[name]
    [rows], cutter = cut(video, View(sampling, SMALL), decoder=decoder)
    assert np.array_equal(rows, expected(video, sampling, 5.0, 25))
    seen = [[row[0], row[-1]] for row in instants(sampling, 5.0) for _ in range(sampling.crops)]
    np.testing.assert_allclose(cutter.spans[0], seen, atol=1e-9)
    assert cutter.decoded == cutter.frames


def test_one_pass_serves_every_view(video: Path) -> None:
    views = [View(sampling, SMALL) for sampling in SAMPLINGS.values()]
    together, cutter = cut(video, *views)
    decoded_alone = 0
    for view, rows in zip(views, together, strict=True):
        [alone], by_itself = cut(video, view)
        decoded_alone += by_itself.frames
        assert np.array_equal(rows, alone) and rows.shape[1:] == view.row_shape and rows.dtype == view.dtype
    assert cutter.frames <= 125 < decoded_alone


@pytest.mark.parametrize("frames", [1, 3, 15, 16, 17, 31, 32])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_videos_shorter_than_a_clip(tmp_path: Path, name: str, frames: int) -> None:
    """What precedes the video shows its first frame, what follows it its last; no video is without a row."""
    path = tmp_path / "short.mp4"
    write_video(path, noisy_frames(frames, width=64, height=48), fps=25)
    sampling = SAMPLINGS[name]
    [rows], cutter = cut(path, View(sampling, SMALL))
    assert np.array_equal(rows, expected(path, sampling, frames / 25, 25))
    assert len(rows) >= 1 and len(rows) == len(cutter.spans[0])
    assert cutter.spans[0].min() >= 0 and cutter.spans[0].max() <= frames / 25 + 1e-9
    if name == "dense":
        assert len(rows) == max(1, frames // 16)


@pytest.mark.parametrize(("name", "max_rows"), [("frames", 5), ("clips", 1), ("crops", 3), ("dense", 2)])
def test_chunks_keep_their_bound(video: Path, name: str, max_rows: int) -> None:
    view = View(SAMPLINGS[name], SMALL)
    row_bytes = int(np.prod(view.row_shape))
    cutter = Cutter(read_video(video), [view])
    sizes = [len(chunk.pixels) for chunk in cutter.chunks(max_bytes=int(row_bytes * (max_rows + 0.9)))]
    assert max(sizes) == max_rows and sum(sizes) == len(cutter.spans[0])


@pytest.mark.parametrize(("width", "height"), [(64, 48), (48, 64), (48, 48)])
def test_three_crops_lie_along_the_long_side(width: int, height: int) -> None:
    # Colour tells the place: red grows along x, green along y.
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0] = np.linspace(0, 255, width)[None, :]
    frame[..., 1] = np.linspace(0, 255, height)[:, None]
    crops = [
        resize_and_crop(frame, Preprocessing(48, 48, "bilinear", SMALL.mean, SMALL.std), p) for p in range(3)
    ]
    along = 0 if width > height else 1
    means = [crop[..., along].mean() for crop in crops]
    if width == height:
        assert all(np.array_equal(crop, crops[1]) for crop in crops)
        return
    assert means[0] < means[1] < means[2]
    lying = frame if width > height else frame.swapaxes(0, 1)
    upright = crops if width > height else [crop.swapaxes(0, 1) for crop in crops]
    for crop, left in zip(upright, (0, 8, 16), strict=True):
        assert np.array_equal(crop, lying[:, left : left + 48])


def test_a_clip_of_a_slow_video_shows_frames_again(tmp_path: Path) -> None:
    path = tmp_path / "slow.mp4"
    write_video(path, noisy_frames(10, width=64, height=48), fps=2)
    [rows], cutter = cut(path, View(SAMPLINGS["dense"], SMALL))
    assert np.array_equal(rows, expected(path, SAMPLINGS["dense"], 5.0, 2))
    assert cutter.frames <= 10


class PatchyVideo(Video):
    """Pictures made up, of which some do not decode right."""

    def __init__(self, duration_s: float, lost: set[int]) -> None:
        self.duration_s, self.fps, self._lost = duration_s, 25.0, lost

    def numbers_at(self, times_s: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.clip(np.floor(times_s * 25 + 1e-6), 0, round(self.duration_s * 25) - 1).astype(np.int64)

    def frames(self, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint8] | None]:
        for number in numbers.tolist():
            picture = np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)
            yield None if number in self._lost else picture


@settings(max_examples=25)
@given(
    length=st.integers(8, 150),
    lost=st.sets(st.integers(0, 150), max_size=40),
    chosen=st.lists(st.sampled_from([*SAMPLINGS]), min_size=1, max_size=3, unique=True),
    max_bytes=st.sampled_from([1, 20_000, 6 << 20]),
)
def test_rows_that_show_a_lost_frame_are_left_out_and_no_others(
    length: int, lost: set[int], chosen: list[str], max_bytes: int
) -> None:
    duration_s = length / 25
    views = [View(SAMPLINGS[name], SMALL) for name in chosen]
    whole = given_by(Cutter(PatchyVideo(duration_s, set()), views), max_bytes)
    patchy = Cutter(PatchyVideo(duration_s, lost), views)
    rows = given_by(patchy, max_bytes)
    for view, given_rows, every, out in zip(views, rows, whole, patchy.lost, strict=True):
        shown = patchy._video.numbers_at(np.array(instants(view.sampling, duration_s)))
        expected = [
            bool(lost.intersection(clip)) for clip in shown.tolist() for _ in range(view.sampling.crops)
        ]
        assert np.flatnonzero(expected).tolist() == list(out)
        kept = [row for row, gone in zip(every, expected, strict=True) if not gone]
        assert len(given_rows) == len(kept) and all(map(np.array_equal, given_rows, kept))


def test_flow_over_a_lost_frame_is_no_row() -> None:
    """Of 17 frames each, for 16 pairs: clip 1 begins with the last frame that clip 0 needs."""
    view = View(Sampling("dense", fps=25.0, frames=16, window=16), FLOW)
    cutter = Cutter(PatchyVideo(2.6, {16}), [view])
    [rows] = given_by(cutter, 6 << 20)
    assert cutter.lost == [(0, 1)] and len(rows) == 2


def given_by(cutter: Cutter, max_bytes: int) -> list[list[NDArray[Any]]]:
    """The rows of each view."""
    rows: list[list[NDArray[Any]]] = [[] for _ in cutter.spans]
    for view, first_row, pixels in cutter.chunks(max_bytes=max_bytes):
        assert first_row == len(rows[view])
        rows[view] += list(pixels)
    return rows
