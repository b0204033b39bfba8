"""A trace of run-policy as pictures: frames are those that were looked at, in the colours of what was computed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from benchmarks.videos import numbered_frames, write_video
from extract.sources import SourceVideo
from policy.deploy.engine import Step
from policy.deploy.trace_file import TracedVideo, read_trace
from policy.tables import traces
from policy.tables.cli import paper_tables
from policy.tables.plots import steps as plot
from policy.tables.plots.filmstrip import FRAMES
from policy.tables.plots.steps import Lane, Shown, Steps
from policy.tables.plots.style import BLUE, BY_COST, GREEN
from policy.tables.traces import Look
from tests.test_plots import cut_off, texts
from tests.test_timeline import HOSTILE

FPS = 10
STREAMS = ("cheap", "dear")


def line(
    video_id: str, steps: Sequence[tuple[str, Sequence[float], float]], **changed: Any
) -> dict[str, Any]:
    """Of a video whose rows see single instants; a step is its stream, instants and GFLOPs so far."""
    content = {
        "video_id": video_id,
        "duration_s": 8.0,
        "gflops": {"cheap": 0.8, "dear": 4.0, "policy network": 0.1},
        "answer": {"cat": 0.75, "dog": 0.25},
        "steps": [
            {"stream": name, "rows": [*range(len(at_s))], "spans_s": [[s, s] for s in at_s], "gflops": gflops}
            for name, at_s, gflops in steps
        ],
    }
    return content | changed


LITEEVAL = [
    step
    for second in range(8)
    for step in [("cheap", [second], second + 0.1), *[("dear", [second], second + 0.5)] * (second in (2, 5))]
]
SELECTOR = [("cheap", [0, 2, 4, 6], 0.4), ("dear", [1, 2, 3], 4.9)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(("a", "b")):
        write_video(folder / f"{name}.mp4", numbered_frames(8 * FPS, first=100 * number), fps=FPS)
    return folder


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    return path


def command(*words: str | Path) -> Result:
    return CliRunner().invoke(paper_tables, ["trace", *map(str, words)])


def error_of(result: Result) -> str:
    assert result.exit_code == 2 and "Traceback" not in result.stderr, result.stderr
    *_, last = result.stderr.splitlines()
    assert last.startswith("Error: ")
    return last


# --- which instants, and what was computed there ---


def traced(*steps: tuple[str, Sequence[tuple[float, float]], float], duration_s: float = 10.0) -> TracedVideo:
    made = [
        Step(name, np.arange(len(spans)), np.array(spans, float), gflops) for name, spans, gflops in steps
    ]
    return TracedVideo("v", duration_s, {"cheap": 1.0, "dear": 9.0}, {}, made)


def test_flow_and_the_picture_that_it_stands_beside_are_one_instant() -> None:
    """Flow sees a frame more, so that its middle is half a frame later."""
    clips = [(0.0, 0.6), (0.64, 1.24), (1.28, 1.88)]
    later = [(start, end + 0.04) for start, end in clips]
    video = traced(("cheap", clips, 1.0), ("dear", later[1:2], 4.0), ("dear", later[2:], 7.0))
    found = traces.looks(video, STREAMS)
    assert [(round(look.at_s, 3), look.lane, look.gflops) for look in found] == [
        (0.3, 0, 1.0),
        (0.94, 1, 4.0),
        (1.58, 1, 7.0),
    ]


def test_rows_of_one_instant_count_once() -> None:
    """Three crops of each of two clips, and a single row of another model in between."""
    crops = [span for span in ((0.0, 2.0), (4.0, 6.0)) for _ in range(3)]
    found = traces.looks(traced(("cheap", crops, 1.0), ("dear", [(3.0, 3.0)], 5.0)), STREAMS)
    assert [(look.at_s, look.lane, look.gflops) for look in found] == [
        (1.0, 0, 1.0),
        (3.0, 1, 5.0),
        (5.0, 0, 1.0),
    ]
    (alone,) = traces.looks(traced(("dear", [(0.0, 0.0)], 5.0), duration_s=0.1), STREAMS)
    assert (alone.at_s, alone.lane) == (0.0, 1)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(1, 40))
def test_thinning_is_even_and_keeps_the_dearest(lanes: list[int], limit: int) -> None:
    found = [Look(float(place), lane, 0.0) for place, lane in enumerate(lanes)]
    shown, n = traces.thinned(found, limit)
    assert len(shown) <= limit and len(shown) == -(-len(found) // n)
    assert n == 1 or -(-len(found) // (n - 1)) > limit  # no finer one would do
    for place, look in enumerate(shown):
        group = lanes[place * n : (place + 1) * n]
        first = place * n + group.index(max(group))
        assert look == found[first]


def test_streams_by_the_cost_of_a_row() -> None:
    first = traced(("dear", [(0.0, 0.0)], 9.0), ("cheap", [(0.0, 0.0)] * 5, 10.0))
    assert traces.by_cost([first]) == ["cheap", "dear"]
    few = TracedVideo("w", 1.0, {"other": 3.0}, {}, [Step("other", np.arange(1), np.zeros((1, 2)), 3.0)])
    assert traces.by_cost([first, few]) == ["cheap", "other", "dear"]


def test_a_stream_that_was_never_computed_is_named(folder: Path, tmp_path: Path) -> None:
    only_cheap = line("a", [("cheap", [1, 2], 0.2)], streams={"dear": 2.0, "cheap": 0.1})
    path = write(tmp_path / "t.jsonl", only_cheap)
    assert traces.by_cost(read_trace(path).values()) == ["cheap", "dear"]
    result = command(path, folder, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    (video,) = json.loads(result.stdout)["videos"]
    assert (video["rows_cheap"], video["rows_dear"]) == (2, 0)
    drawn = traces.drawing(read_trace(path)["a"], SourceVideo("a", folder / "a.mp4"), STREAMS)
    assert [lane.note for lane in drawn.lanes] == ["2 rows, 0.800 GFLOPs", "not computed"]


def test_of_many_videos_some_from_the_cheapest_to_the_dearest() -> None:
    videos = {str(n): TracedVideo(str(n), 1.0, {"cheap": float(n)}, {}, []) for n in range(9)}
    sources = [SourceVideo(str(n), Path(f"{n}.mp4")) for n in (8, 3, 0, 5, 1, 7, 20)]
    assert [video.video_id for video, _ in traces.chosen(videos, sources, 3)] == ["0", "3", "8"]
    assert [video.video_id for video, _ in traces.chosen(videos, sources, 1)] == ["0"]
    assert len(traces.chosen(videos, sources, 50)) == 6


# --- the picture ---


@pytest.mark.parametrize(("steps", "marked"), [(LITEEVAL, [2, 5]), (SELECTOR, [1, 2, 3])])
def test_frames_are_those_that_were_looked_at(
    steps: list[tuple[str, Sequence[float], float]], marked: list[int], folder: Path, tmp_path: Path
) -> None:
    video = read_trace(write(tmp_path / "t.jsonl", line("a", steps)))["a"]
    drawn = traces.drawing(video, SourceVideo("a", folder / "a.mp4"), STREAMS)
    seconds = sorted({second for _, at_s, _ in steps for second in at_s})
    assert [frame.at_s for frame in drawn.frames] == seconds
    assert [frame.at_s for frame in drawn.frames if frame.lane] == marked
    for frame in drawn.frames:  # the video's own, at that second
        true = np.asarray(list(numbered_frames(8 * FPS))[int(frame.at_s) * FPS], np.float64)
        scaled = np.asarray(Image.fromarray(true.astype(np.uint8)).resize(frame.picture.shape[1::-1]), float)
        assert np.abs(frame.picture - scaled).mean() < 12
    figure = plot.draw(drawn).figure
    shown = [text.get_text() for text in texts(figure)]
    assert "a: cat 75%" in shown and "8.0 s of video, 4.90 GFLOPs" in shown
    coloured = [text.get_text() for text in texts(figure) if to_hex(text.get_color()) == GREEN.lower()]
    assert [text.split("\n")[0] for text in coloured] == [f"{second}.0 s" for second in marked]
    green = np.array([round(255 * part) for part in to_rgb(GREEN)])
    (mosaic,) = (np.asarray(image.get_array()) for image in figure.images)
    high, broad = drawn.frames[0].picture.shape[:2]
    border = (high + 10) * (broad + 10) - high * broad
    assert (mosaic == green).all(axis=2).sum() == len(marked) * border
    (axes,) = figure.axes
    bars = [len(lane.get_paths()) for lane in axes.collections]
    assert bars == [sum(len(at_s) for name, at_s, _ in steps if name == stream) for stream in STREAMS]
    assert cut_off(figure) == []


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("shape", [(90, 160, 3), (90, 20, 3), (90, 90, 3)])
def test_nothing_overlaps_or_is_cut(name: str, shape: tuple[int, ...]) -> None:
    picture = np.zeros(shape, np.uint8)
    frames = [Shown(picture, 9999.0 + n, n % 9, 99999.0) for n in range(FRAMES)]
    lanes = [Lane(f"{name} {n}", np.full((3, 2), float(n)), f"3 rows, {99999:,} GFLOPs") for n in range(9)]
    drawn = Steps(name, name, 12345.0, lanes, frames, name)
    figure = plot.draw(drawn).figure
    assert cut_off(figure) == []
    captions = [
        text for text in texts(figure) if text.get_text().endswith(" GFLOPs") and "\n" in text.get_text()
    ]
    assert len(captions) == FRAMES
    boxes = [text.get_window_extent() for text in captions]
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])
    assert "\n" not in plot.describe(drawn) and "\x00" not in plot.describe(drawn)


def test_colours_tell_streams_apart_as_long_as_there_are_enough() -> None:
    assert len({plot.colour_of(n) for n in range(len(BY_COST))}) == len(BY_COST)
    assert plot.colour_of(1) == GREEN and plot.colour_of(2) == BLUE
    assert plot.colour_of(0) not in {plot.colour_of(n) for n in range(1, 40)}


@pytest.mark.parametrize(
    ("gflops", "text"),
    [
        (0.0, "0.00"),
        (0.01234, "0.0123"),
        (1.2e-8, "0.000000012"),
        (9.0, "9.00"),
        (11.68, "11.7"),
        (99.96, "100"),
        (12345.6, "12,346"),
    ],
)
def test_gflops_have_three_digits(gflops: float, text: str) -> None:
    assert plot.gflops_text(gflops) == f"{text} GFLOPs"


# --- the command ---


def test_what_is_written(folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", line("a", LITEEVAL), line("b", SELECTOR), line("elsewhere", SELECTOR))
    result = command(path, folder, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    videos = json.loads(result.stdout)["videos"]
    assert [(one["video_id"], one["answer"], one["rows_cheap"], one["rows_dear"]) for one in videos] == [
        ("a", "cat", 8, 2),
        ("b", "cat", 4, 3),
    ]
    for name in ("figure.png", "figure-2.png"):
        Image.open(BytesIO((tmp_path / "out" / name).read_bytes())).verify()
    page = (tmp_path / "out/report.html").read_text()
    assert "2 videos drawn, from the cheapest to the dearest of 2 that are given" in page
    one = command(path, folder, "--out", tmp_path / "one", "--most", "1")
    assert one.exit_code == 0 and not (tmp_path / "one/figure-2.png").exists()
    assert f"$ paper-tables trace {path} {folder} --out {tmp_path / 'one'} --most 1" in one.stdout


def test_a_video_that_cannot_be_drawn_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes((folder / "a.mp4").read_bytes())
    (tmp_path / "b.mp4").write_bytes(b"no video")
    short = tmp_path / "c.mp4"
    write_video(short, numbered_frames(2 * FPS), fps=FPS)
    path = write(tmp_path / "t.jsonl", *(line(name, LITEEVAL) for name in "abc"))
    videos = [tmp_path / f"{name}.mp4" for name in "abc"]
    result = command(path, *videos, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "failed: b: " in result.stderr
    assert "lasts 2.0 s, but a row of the trace is of second 7.0" in result.stderr
    assert (tmp_path / "out/figure.png").exists() and not (tmp_path / "out/figure-2.png").exists()


GOOD = line("a", SELECTOR)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "3",
        json.dumps(GOOD)[:-9],
        json.dumps({**GOOD, "steps": []}),
        json.dumps({**GOOD, "duration_s": float("nan")}),
        json.dumps({**GOOD, "gflops": {"cheap": "much"}}),
        json.dumps({**GOOD, "answer": [1]}),
        json.dumps({**GOOD, "steps": [{"stream": "cheap", "rows": [0], "spans_s": [[0]], "gflops": 1}]}),
        json.dumps({**GOOD, "steps": [{"stream": "cheap", "rows": [], "spans_s": [], "gflops": 1}]}),
        json.dumps(
            {**GOOD, "steps": [{"stream": "cheap", "rows": [10**30], "spans_s": [[0, 0]], "gflops": 1}]}
        ),
        json.dumps({key: value for key, value in GOOD.items() if key != "video_id"}),
        "[" * 100_000,
    ],
)
def test_a_damaged_line(content: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{content}\n")
    message = error_of(command(path, folder, "--out", tmp_path / "out"))
    assert f"{path}: line 2 is not of a trace, or not whole" in message
    assert not (tmp_path / "out").exists()


def test_requests_that_are_wrong(folder: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "out", write(tmp_path / "t.jsonl", line("other", SELECTOR))
    message = error_of(command(path, folder, "--out", out))
    assert "none of the 2 videos is among the 1 of the trace, such as 'other'" in message
    assert "no such file" in error_of(command(path, tmp_path / "none.mp4", "--out", out))
    assert "cannot be read" in error_of(command(tmp_path / "none.jsonl", folder, "--out", out))
    assert "cannot be read" in error_of(command(tmp_path, folder, "--out", out))
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert "is empty" in error_of(command(tmp_path / "empty.jsonl", folder, "--out", out))
    assert not out.exists()
    write(path, line("a", SELECTOR))
    out.write_text("a file")
    assert str(out) in error_of(command(path, folder, "--out", out)) and out.read_text() == "a file"


def test_traces_of_earlier_versions_have_no_answer(folder: Path, tmp_path: Path) -> None:
    earlier = {key: value for key, value in line("a", SELECTOR).items() if key != "answer"}
    path = write(tmp_path / "t.jsonl", earlier)
    video = read_trace(path)["a"]
    assert traces.drawing(video, SourceVideo("a", folder / "a.mp4"), STREAMS).title == "a"
    assert command(path, folder, "--out", tmp_path / "out").exit_code == 0
