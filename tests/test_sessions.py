"""Sessions of all families: one loop on raw rows says and costs what the run does for the videos of a cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema import FeatureCache, Sampling, UserError
from policy.config import RunConfig
from policy.deploy.session import open_session, spans_of
from policy.runs import Run, run_method
from policy.session import Session, Wanted
from tests.caches import PREPROCESSING, make_spec
from tests.planted import plant

LITEEVAL = RunConfig(
    "liteeval",
    coarse="coarse_112",
    fine="fine_224",
    epochs=2,
    batch=5,
    lr=1e-3,
    coarse_hidden=6,
    fine_hidden=12,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def liteeval(tmp_path_factory: pytest.TempPathFactory) -> Run:
    planted = plant(tmp_path_factory.mktemp("planted"), train=8, test=6, classes=4, dim=10, lengths=(4, 9))
    folder = tmp_path_factory.mktemp("run")
    return run_method(LITEEVAL, planted.cache, planted.labels, folder, device="cpu")


def drive(session: Session, cache: FeatureCache, video_id: str, most: int = 10**9) -> list[Wanted]:
    """Give a session what it wants of a video, at most so many rows at a time. Returns what it wanted."""
    videos = {name: cache[name][video_id] for name in session.streams}
    session.begin({name: video.spans for name, video in videos.items()})
    trace = []
    while (wanted := session.wanted()) is not None:
        trace.append(wanted)
        video, rows = videos[wanted.stream], wanted.rows[:most]
        assert np.array_equal(wanted.spans_s, video.spans[wanted.rows])
        session.take(video.features[rows], None if video.scores is None else video.scores[rows])
    return trace


def check_run(run: Run, cache: FeatureCache, most: int = 10**9) -> Session:
    """A session of a run answers, and is charged, as the run's predictions have it."""
    session, predicted = open_session(run.folder), run.predictions()
    for video, video_id in enumerate(predicted.video_ids):
        drive(session, cache, video_id, most)
        assert np.allclose(session.probabilities, predicted.scores[0, video], atol=1e-6)
        assert session.macs == pytest.approx(1e9 * predicted.gflops[0, video], abs=0.1)
        assert all(name in cache or " " in name for name in session.spent)
    return session


@pytest.mark.parametrize(
    "change", [{}, {"input_norm": "l2"}, {"method": "liteeval-rl", "input_norm": "none"}]
)
def test_liteeval_answers_as_its_run(change: Mapping[str, Any], tmp_path: Path) -> None:
    planted = plant(tmp_path / "cache", train=8, test=6, classes=4, dim=10, lengths=(4, 9))
    config = replace(LITEEVAL, **change)
    run = run_method(config, planted.cache, planted.labels, tmp_path / "run", device="cpu")
    session = check_run(run, planted.cache)
    gates, offsets = run.predictions().gates[0], run.predictions().offsets
    for video, video_id in enumerate(run.predictions().video_ids):
        trace = drive(session, planted.cache, video_id)
        opened = [int(wanted.rows[0]) for wanted in trace if wanted.stream == "fine_224"]
        assert opened == np.flatnonzero(gates[offsets[video] : offsets[video + 1]]).tolist()


def test_what_cannot_be_taken(liteeval: Run) -> None:
    session = open_session(liteeval.folder)
    assert session.wanted() is None
    row = np.zeros((1, 10), np.float16)
    with pytest.raises(ValueError, match="no rows are wanted"):
        session.take(row)
    spans = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"spans of fine_224: of shape \(0,\), not \(T, 2\)"):
        session.begin({"coarse_112": spans})
    with pytest.raises(ValueError, match="not 3 of coarse_112 and 2 of fine_224"):
        session.begin({"coarse_112": spans, "fine_224": spans[:2]})
    with pytest.raises(ValueError, match=r"spans of coarse_112: of shape \(0, 2\)"):
        session.begin({"coarse_112": spans[:0], "fine_224": spans[:0]})
    session.begin({"coarse_112": spans, "fine_224": spans})
    for wrong, problem in [
        (row[0], "coarse_112: give from 1 to 1 rows"),
        (row[:0], "coarse_112: give from 1 to 1 rows"),
        (np.zeros((2, 10)), "coarse_112: give from 1 to 1 rows"),
        (row[:, :9], r"features of coarse_112 have shape \(1, 9\), not \(1, 10\)"),
        (row + np.float16(np.nan), "features of coarse_112 are not finite"),
        (None, "coarse_112: give from 1 to 1 rows"),
    ]:
        with pytest.raises(ValueError, match=problem):
            session.take(wrong)
        assert session.wanted() is not None and session.spent["coarse_112"] == 0
    with pytest.raises(ValueError, match=r"class scores of coarse_112 have shape \(1, 3\), not \(1, 0\)"):
        session.take(row, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="this policy looks at features of coarse_112: give them"):
        session.take(scores=np.zeros((1, 0)))
    while session.wanted() is not None:
        session.take(torch.zeros(1, 10))
    with pytest.raises(ValueError, match="no rows are wanted"):
        session.take(row)


# --- the spans of a video ---


@settings(max_examples=50, deadline=None)
@given(
    duration_s=st.floats(0, 1000),
    sampling=st.sampled_from(
        [
            Sampling(),
            Sampling("clips", fps=15.0, frames=13, window=73, clips=10, crops=3),
            Sampling("dense", fps=25.0, frames=16, window=16),
            Sampling("snippets", fps=30.0, frames=8, window=64, rows_per_s=1.0),
        ]
    ),
    flow=st.sampled_from([None, "dis"]),
)
def test_spans_are_those_of_the_sampling(duration_s: float, sampling: Sampling, flow: str | None) -> None:
    spec = make_spec(sampling=sampling, preprocessing=replace(PREPROCESSING, flow=flow))
    spans_s = spans_of(spec, duration_s)
    assert spans_s.ndim == 2 and spans_s.shape[1] == 2 and len(spans_s) % sampling.crops == 0
    assert len(spans_s) == sampling.clips * sampling.crops or sampling.kind != "clips"
    assert (spans_s >= 0).all() and (spans_s <= duration_s).all()
    assert (np.diff(spans_s, axis=1) >= 0).all() and (np.diff(spans_s[:, 0]) >= 0).all()


def test_spans_of_what_nobody_knows() -> None:
    spec = make_spec("scores", sampling=Sampling("clips", frames=0, window=0, fps=0.0, clips=4))
    with pytest.raises(
        UserError, match="stream 'scores' was imported: which frames its rows saw is not known"
    ):
        spans_of(spec, 10.0)
