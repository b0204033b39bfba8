"""Properties of the sampling arithmetic, against definitions written out as loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_schema import Sampling
from extract.sampling import CLOCK_TOLERANCE_S, clip_times, frames_on_screen, sample_times

RATES = st.sampled_from([1.0, 2.0, 0.5, 0.1, 25.0, 30.0, 30000 / 1001, 7.3])
STARTS = st.lists(st.floats(0, 50, allow_nan=False), min_size=1, max_size=60).map(sorted)


@given(duration_s=st.floats(0, 500), fps=RATES)
def test_sample_times_are_all_the_instants_before_the_end(duration_s: float, fps: float) -> None:
    expected = [0.0]
    while len(expected) / fps < duration_s - min(CLOCK_TOLERANCE_S, 0.25 / fps):
        expected.append(len(expected) / fps)
    assert sample_times(duration_s=duration_s, fps=fps).tolist() == expected


@given(
    ticks=st.integers(1, 300),
    fps=st.sampled_from([25.0, 30.0, 30000 / 1001]),
    window=st.integers(1, 40),
    stride=st.integers(0, 40),
)
def test_dense_clips_are_all_that_fit(ticks: int, fps: float, window: int, stride: int) -> None:
    expected, start = [], 0
    while start == 0 or start + window <= ticks:
        expected.append([min(start + tick, ticks) / fps for tick in range(window)])
        start += stride or window
    sampling = Sampling("dense", fps=fps, frames=window, window=window, stride=stride)
    assert np.allclose(clip_times(sampling, duration_s=ticks / fps), expected)


@pytest.mark.parametrize(
    ("duration_s", "fps", "rows"),
    [
        (10.0, 1, 10),
        (10.0000001, 1, 10),  # float32 noise
        (9.9999999, 1, 10),
        (float(np.float32(3600.1)) - 0.1, 1, 3600),
        (10.001, 1, 11),  # a millisecond is a remainder
        (0.04, 1, 1),
        (0.0, 1, 1),
        (30 * 1001 / 30000, 30000 / 1001, 30),
        (1.5, 0.5, 1),
        (0.01, 1000, 10),  # the tolerance shrinks with the period
    ],
)
def test_number_of_rows(duration_s: float, fps: float, rows: int) -> None:
    assert len(sample_times(duration_s=duration_s, fps=fps)) == rows


@pytest.mark.parametrize(
    ("duration_s", "fps"), [(-1, 1), (np.nan, 1), (np.inf, 1), (1, 0), (1, -2), (1, np.nan)]
)
def test_nonsense_is_refused(duration_s: float, fps: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        sample_times(duration_s=duration_s, fps=fps)


@given(
    starts=STARTS,
    times=st.lists(st.floats(0, 60), max_size=20),
    tolerance_s=st.sampled_from([0.0, 1e-6, 5e-4]),
)
def test_frame_on_screen_is_the_last_that_has_started(
    starts: list[float], times: list[float], tolerance_s: float
) -> None:
    found = frames_on_screen(
        frame_starts_s=np.array(starts), times_s=np.array(times, np.float64), tolerance_s=tolerance_s
    )
    expected = [
        max([number for number, start in enumerate(starts) if start <= time + tolerance_s], default=0)
        for time in times
    ]
    assert found.tolist() == expected


@given(starts=STARTS, fps=RATES)
def test_rows_never_go_back_and_begin_with_the_first_frame(starts: list[float], fps: float) -> None:
    relative = np.array(starts) - starts[0]
    times_s = sample_times(duration_s=float(relative[-1]) + 0.04, fps=fps)
    shown = frames_on_screen(frame_starts_s=relative, times_s=times_s)
    assert np.all(np.diff(shown) >= 0)
    assert relative[shown[0]] <= 1e-6


def test_a_rounded_start_counts_as_at_the_instant() -> None:
    # 30 fps in Matroska's milliseconds: frame 2 starts at 66.67 ms, written as 67.
    starts_s = np.array([0, 33, 67, 100]) / 1000
    times_s = np.arange(4) / 30
    assert frames_on_screen(frame_starts_s=starts_s, times_s=times_s, tolerance_s=5e-4).tolist() == [
        0,
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("starts", [[], [0.0, 2.0, 1.0]])
def test_frames_must_exist_and_be_in_order(starts: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no frames|decreases"):
        frames_on_screen(frame_starts_s=np.array(starts, np.float64), times_s=np.zeros(1))
