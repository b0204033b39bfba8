"""Timelines of a run that localizes: what is drawn is what the run says, of the videos that a plain loop ranks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import StepPatch

from cache_schema import UserError
from policy.evaluation.detection import THUMOS14_IOUS, Detections, GroundTruth
from policy.evaluation.detection_map import video_average_precision
from policy.localization.judged import Localizations
from policy.registry import configure
from policy.runs import PREDICTIONS, Run, run_method
from policy.tables import timelines
from policy.tables.cli import paper_tables
from policy.tables.plots import timeline
from policy.tables.plots.style import BLUE, GREEN, ORANGE, VERMILLION
from policy.tables.plots.timeline import LANES, Found, Timeline, Track, lanes_of
from tests.planted_actions import plant_actions
from tests.test_localization_selector import Planted, plant
from tests.test_plots import cut_off, texts

Floats = npt.NDArray[np.float64]
NONE = np.zeros((0, 2))
HOSTILE = [
    "<script>alert(1)</script>",
    "$\\frac{1}{",
    "a\nb|c\x00",
    "\udcff",
    "キャンプ",
    "v " * 200,
    "</title>&amp;",
]
pytestmark = pytest.mark.usefixtures("one_thread")


# --- the measure ---


def plain_precision(
    detections: list[tuple[int, float, float, float]],
    segments: list[tuple[int, float, float]],
    ambiguous: list[tuple[float, float]],
) -> float:
    """Of one video: detections (class, start, end, score), segments (class, start, end)."""

    def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
        return min(one[1], other[1]) - max(one[0], other[0])

    values = []
    for iou in THUMOS14_IOUS:
        correct: set[int] = set()
        for label, *span in segments:
            best, chosen = iou, -1
            for n, (of, start, end, score) in enumerate(detections):
                common = overlap((start, end), tuple(span))
                if n in correct or of != label or common <= 0:
                    continue
                value = common / (max(end, span[1]) - min(start, span[0]))
                higher = chosen >= 0 and value == best and score > detections[chosen][3]
                if value > best or higher:
                    best, chosen = value, n
            if chosen >= 0:
                correct.add(chosen)
        total, found, counted = 0.0, 0, 0
        for n in sorted(range(len(detections)), key=lambda n: -detections[n][3]):
            forgiven = any(overlap(detections[n][1:3], one) > 0 for one in ambiguous)
            found += n in correct
            counted += n in correct or not forgiven
            total += found / counted if n in correct else 0.0
        values.append(total / len(segments))
    return float(np.mean(values))


SPANS = st.tuples(st.integers(0, 12), st.integers(1, 6)).map(lambda at: (float(at[0]), float(at[0] + at[1])))


@given(st.data())
def test_precision_of_a_video_is_what_plain_loops_compute(data: st.DataObject) -> None:
    """Three videos, of which the last has no segments; all scores differ."""
    labels, scores = st.integers(0, 2), iter(data.draw(st.permutations(range(30))))
    found = [
        [
            (data.draw(labels), *data.draw(SPANS), float(next(scores)))
            for _ in range(data.draw(st.integers(0, 8)))
        ]
        for _ in range(3)
    ]
    true = [
        [(data.draw(labels), *data.draw(SPANS)) for _ in range(count)]
        for count in (data.draw(st.integers(1, 4)), 2, 0)
    ]
    ambiguous = [[data.draw(SPANS) for _ in range(data.draw(st.integers(0, 1)))] for _ in range(3)]
    got = video_average_precision(detections_of(found), truth_of(true, ambiguous), 3, THUMOS14_IOUS)
    expected = [plain_precision(*of_video) for of_video in zip(found[:2], true, ambiguous, strict=False)]
    np.testing.assert_allclose(got[:2], expected, rtol=1e-12)
    assert np.isnan(got[2])


def detections_of(found: list[list[tuple[int, float, float, float]]]) -> Detections:
    rows = np.array([(m, *one) for m, of_video in enumerate(found) for one in of_video]).reshape(-1, 5)
    return Detections(rows[:, 0].astype(int), rows[:, 1].astype(int), rows[:, 2:4], rows[:, 4])


def truth_of(
    true: list[list[tuple[int, float, float]]], ambiguous: list[list[tuple[float, float]]]
) -> GroundTruth:
    rows = np.array([(m, *one) for m, of_video in enumerate(true) for one in of_video]).reshape(-1, 4)
    spans = np.array([(m, *one) for m, of_video in enumerate(ambiguous) for one in of_video]).reshape(-1, 3)
    return GroundTruth(
        rows[:, 0].astype(int), rows[:, 1].astype(int), rows[:, 2:], spans[:, 0].astype(int), spans[:, 1:]
    )


def test_what_a_video_does_not_show_counts_against_it() -> None:
    true = truth_of([[(0, 0.0, 4.0)]], [[]])
    alone = detections_of([[(0, 0.0, 4.0, 1.0)]])
    beside = detections_of([[(0, 0.0, 4.0, 1.0), (2, 8.0, 9.0, 2.0)]])
    assert video_average_precision(alone, true, 1, [0.5]).tolist() == [1.0]
    assert video_average_precision(beside, true, 1, [0.5]).tolist() == [0.5]


@pytest.mark.parametrize(
    ("precisions", "expected"),
    [
        ([0.2, 0.9, 0.5], {1: "best", 2: "median", 0: "worst"}),
        ([0.2, 0.9, 0.5, 0.4], {1: "best", 2: "median", 0: "worst"}),
        ([0.5, 0.5, 0.5], {2: "best", 1: "median", 0: "worst"}),
        ([np.nan, 0.1], {1: "best and median and worst"}),
        ([0.3, 0.7], {1: "best and median", 0: "worst"}),
        ([np.nan], {}),
    ],
)
def test_ranks(precisions: list[float], expected: dict[int, str]) -> None:
    """Of equal videos the first id comes first."""
    assert timelines.ranked(np.array(precisions), ["d", "c", "b", "a"][: len(precisions)]) == expected


# --- a drawing ---


def found(*rows: tuple[float, float, float, timeline.Verdict]) -> Found:
    return Found(
        np.array([row[:2] for row in rows]).reshape(-1, 2),
        np.array([row[2] for row in rows]),
        [row[3] for row in rows],
    )


def track(name: str = "jump", **changes: Any) -> Track:
    motion = np.array([np.nan, 4.0, -3.0, np.nan])
    given = Track(
        name,
        True,
        np.array([[1.0, 2.0]]),
        found((1.0, 2.5, 7.25, "correct"), (3.0, 4.0, -1.5, "false")),
        found((0.5, 4.0, 3.0, "not judged")),
        np.array([1.0, 2.0, 3.0, 4.0]),
        motion,
        np.array([1.0, 4.0, -3.0, 4.0]),
        0.5,
    )
    return replace(given, **changes)


def video(*tracks: Track, **changes: Any) -> Timeline:
    uses = np.array([False, True, True, False])
    given = Timeline("v1: best", "W", 4.0, tracks or (track(),), np.array([[3.2, 3.6]]), np.arange(5.0), uses)
    return replace(given, **changes)


def bars(axes: Axes, label: str) -> list[tuple[float, float]]:
    """Starts and ends of the bars with a label, in seconds."""
    extents = [
        path.get_extents()
        for one in axes.collections
        if isinstance(one, PolyCollection) and one.get_label() == label
        for path in one.get_paths()
    ]
    return [(extent.x0, extent.x1) for extent in extents]


def steps(axes: Axes) -> dict[str, StepPatch]:
    return {str(one.get_label()): one for one in axes.patches if isinstance(one, StepPatch)}


def test_what_is_drawn_is_what_is_given() -> None:
    figure = timeline.draw(video()).figure
    strip, bands, curves = figure.axes
    assert bars(strip, "motion") == [(1, 2), (2, 3)]
    assert bars(strip, "appearance") == [(0, 1), (3, 4)]
    assert bars(bands, "truth") == [(1, 2)]
    assert bars(bands, "ambiguous") == [(3.2, 3.6)]
    assert bars(bands, "found") == [(1, 2.5), (3, 4)]
    assert bars(bands, "appearance alone") == [(0.5, 4)]
    assert [text.get_text() for text in bands.texts] == ["7.25", "−1.5", "3"]
    lines: dict[str, Any] = {name: step.get_data() for name, step in steps(curves).items()}
    assert lines.keys() == {"appearance", "motion", "answer"}
    np.testing.assert_array_equal(lines["motion"].values, [np.nan, 4, -3, np.nan])
    np.testing.assert_array_equal(lines["answer"].values, [1, 4, -3, 4])
    np.testing.assert_array_equal(lines["appearance"].edges, [0, 1, 2, 3, 4])
    (threshold,) = [line for line in curves.lines if line.get_label() == "threshold"]
    assert np.asarray(threshold.get_ydata()).tolist() == [0.5, 0.5]
    assert all(axes.get_xlim() == (0, 4) for axes in figure.axes)
    assert cut_off(figure) == []


def test_verdicts_differ_in_colour_and_without() -> None:
    _, bands, _ = timeline.draw(video()).figure.axes
    correct, false = [one for one in bands.collections if one.get_label() == "found"]
    assert to_rgb(np.asarray(correct.get_facecolor())[0]) == to_rgb(GREEN) and not correct.get_hatch()
    assert to_rgb(np.asarray(false.get_edgecolor())[0]) == to_rgb(VERMILLION) and false.get_hatch()
    light, dark = (np.dot(to_rgb(colour), [0.299, 0.587, 0.114]) for colour in (ORANGE, BLUE))
    assert light - dark > 0.25, "the models differ in grey"


def test_better_scores_are_higher() -> None:
    rows = [(k, k + 0.8, score, "false") for k, score in enumerate([5.0, 9.0, 7.0])]
    _, bands, _ = timeline.draw(video(track(found=found(*rows), alone=None))).figure.axes  # type: ignore[arg-type]
    heights = [
        one.get_paths()[0].get_extents().height for one in bands.collections if one.get_label() == "found"
    ]
    assert heights[0] < heights[2] < heights[1]


@given(st.lists(st.tuples(SPANS, st.integers(-5, 5)), max_size=25))
def test_lanes(rows: list[tuple[tuple[float, float], int]]) -> None:
    """None overlap in a lane; what is left out overlaps something better in every lane."""
    given_rows = found(*((*span, float(score), "false") for span, score in rows))
    lanes = lanes_of(given_rows)
    for n, ((start, end), score) in enumerate(rows):
        overlapping = [
            m
            for m, ((at, until), _) in enumerate(rows)
            if m != n and lanes[m] >= 0 and at < end and start < until
        ]
        if lanes[n] >= 0:
            assert lanes[n] not in {lanes[m] for m in overlapping}
        else:
            assert {lanes[m] for m in overlapping if rows[m][1] >= score} == {*range(LANES)}


def test_what_is_left_out_is_said() -> None:
    many = found(*((0.0, 4.0, float(n), "false") for n in range(10)))
    figure = timeline.draw(video(track(found=many))).figure
    assert len(bars(figure.axes[1], "found")) == LANES
    assert any("7 not drawn" in text.get_text() for text in texts(figure))


@pytest.mark.parametrize(
    "given_video",
    [
        video(track(truth=NONE, has_label=False), ambiguous=NONE),
        video(track(found=found(), alone=found())),
        video(
            track(
                found=found(),
                alone=None,
                truth=NONE,
                appearance=None,
                motion=None,
                answer=None,
                threshold=None,
            ),
            uses_motion=None,
            edges=None,
        ),
        video(track(motion=np.full(4, np.nan))),
        video(
            track(appearance=np.ones(1), motion=np.ones(1), answer=np.ones(1), threshold=None),
            edges=np.array([0.0, 4.0]),
            uses_motion=np.ones(1, bool),
        ),
        video(
            *(track(f"class {n}") for n in range(4)), omitted="Not drawn: 56 more classes " + "name, " * 56
        ),
        *(video(track(name), title=f"{name}: best", omitted=name) for name in HOSTILE),
    ],
)
def test_odd_videos_are_drawn(given_video: Timeline) -> None:
    figure = timeline.draw(given_video).figure
    assert cut_off(figure) == []
    assert "\n" not in timeline.describe(given_video) and "\x00" not in timeline.describe(given_video)


def test_thousands_of_clips_are_drawn() -> None:
    random, count = np.random.default_rng(0), 5000
    values = random.standard_normal(count)
    long = track(appearance=values, motion=values, answer=values)
    drawing = timeline.draw(video(long, edges=np.linspace(0, 4, count + 1), uses_motion=values > 0))
    assert len(bars(drawing.figure.axes[0], "motion")) == (values > 0).sum()


def test_a_drawing_in_words() -> None:
    words = timeline.describe(video())
    assert words.startswith(
        "v1: best. W. 4.0 seconds. Clips with motion: 1.0 to 3.0 s. jump: true from 1.0 to 2.0 s;"
    )
    assert "found 1.0 to 2.5 s (correct), 3.0 to 4.0 s (false)" in words
    assert "Ambiguous: 3.2 to 3.6 s." in words


# --- of runs ---


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("timeline"), train=12, test=5)


@pytest.fixture(scope="module")
def run(planted: Planted) -> Run:
    return planted.select("selector", budget=25, epochs=3)


def command(*words: object) -> Result:
    return CliRunner().invoke(paper_tables, ["timeline", *map(str, words)])


def message(*words: object) -> str:
    result = command(*words)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    return result.stderr


def altered(run: Run, folder: Path, **changes: Any) -> Path:
    """A copy of a run whose predictions have other arrays; None leaves one out."""
    folder.mkdir()
    for name in ("config.json", "result.json"):
        (folder / name).write_bytes((run.folder / name).read_bytes())
    with np.load(run.folder / PREDICTIONS) as file:
        arrays = {**file} | {name.replace("__", "/"): array for name, array in changes.items()}
    np.savez(folder / PREDICTIONS, **{name: array for name, array in arrays.items() if array is not None})
    return folder


def of_run(run: Run) -> Localizations:
    judged = run.judged()
    assert isinstance(judged, Localizations)
    return judged


def test_the_best_the_median_and_the_worst_video(run: Run, tmp_path: Path) -> None:
    result = command(run.folder, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    judged = of_run(run)
    plain = {}
    for m, video_id in enumerate(judged.video_ids):
        detections, truth = judged.detections, judged.truth
        plain[video_id] = plain_precision(
            [
                (int(label), *span, float(score))
                for of, label, span, score in zip(*vars(detections).values(), strict=True)
                if of == m
            ],
            [
                (int(label), *span)
                for of, label, span in zip(truth.videos, truth.classes, truth.spans, strict=True)
                if of == m
            ],
            [],
        )
    order = sorted(plain, key=lambda video_id: (-plain[video_id], video_id))
    drawn = json.loads(result.stdout)["videos"]
    assert [(one["rank"], one["video_id"]) for one in drawn] == [
        ("best", order[0]),
        ("median", order[2]),
        ("worst", order[4]),
    ]
    for one in drawn:
        assert one["average_precision"] == pytest.approx(100 * plain[one["video_id"]])
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "figure.png",
        "figure-3.png",
        "report.html",
    }
    assert (tmp_path / "out/report.html").read_text().count('alt="video_') == 3


def test_a_timeline_has_the_values_of_its_run(run: Run) -> None:
    judged, opened = of_run(run), timelines.read_run(run.folder)
    assert judged.gates is not None and judged.appearance is not None
    assert judged.motion is not None and judged.spans is not None
    video_id = judged.video_ids[3]
    (shown,) = timelines.choose(opened, [video_id])
    clips = slice(judged.offsets[3], judged.offsets[4])
    assert shown.timeline.uses_motion is not None and shown.timeline.edges is not None
    assert shown.timeline.uses_motion.tolist() == judged.gates[clips].astype(bool).tolist()
    assert shown.timeline.edges[0] == judged.spans[clips][0, 0]
    assert shown.timeline.end_s == judged.spans[clips][-1, 1]
    for one in shown.timeline.tracks:
        label = judged.classes.index(one.name)
        rows = (judged.detections.videos == 3) & (judged.detections.classes == label)
        assert sorted(one.found.scores) == sorted(judged.detections.scores[rows])
        assert {*map(tuple, one.found.spans)} == {*map(tuple, judged.detections.spans[rows])}
        true = (judged.truth.videos == 3) & (judged.truth.classes == label)
        np.testing.assert_array_equal(one.truth, judged.truth.spans[true])
        assert one.appearance is not None and one.motion is not None and one.answer is not None
        np.testing.assert_array_equal(one.appearance, judged.appearance[clips, label])
        np.testing.assert_array_equal(one.motion, judged.motion[clips, label])
        gates = judged.gates[clips].astype(bool)
        np.testing.assert_array_equal(one.answer, np.where(gates, one.motion, one.appearance))
        if len(one.found.scores):
            assert one.threshold is not None
            above = one.answer > one.threshold
            starts = np.flatnonzero(np.diff(above.astype(int), prepend=0) == 1)
            assert {*one.found.spans[:, 0]} <= {*shown.timeline.edges[starts]}


def test_appearance_alone_finds_what_its_run_found(run: Run, planted: Planted) -> None:
    """The model's activations are kept as float16, so that times are equal and scores nearly so."""
    alone_run = of_run(planted.models["appearance"])
    for m, shown in enumerate(timelines.choose(timelines.read_run(run.folder), of_run(run).video_ids)):
        for one in shown.timeline.tracks:
            rows = (alone_run.detections.videos == m) & (
                alone_run.detections.classes == alone_run.classes.index(one.name)
            )
            assert one.alone is not None
            np.testing.assert_allclose(
                np.sort(one.alone.spans, axis=0), np.sort(alone_run.detections.spans[rows], axis=0)
            )
            np.testing.assert_allclose(
                np.sort(one.alone.scores), np.sort(alone_run.detections.scores[rows]), rtol=2e-3, atol=2e-2
            )


def test_one_video_is_drawn_as_among_all(run: Run) -> None:
    opened = timelines.read_run(run.folder)
    every = timelines.choose(opened, opened.found.video_ids)
    (one,) = timelines.choose(opened, [every[3].video_id])
    assert one.precision_alone == every[3].precision_alone is not None
    assert timeline.describe(one.timeline) == timeline.describe(every[3].timeline)


def test_verdicts(run: Run, tmp_path: Path) -> None:
    """By hand: a good one, a worse one of the same segment, one elsewhere, one there that is ambiguous."""
    placed = {
        "detections__videos": np.full(4, 2),
        "detections__classes": np.full(4, 1),
        "detections__spans": np.array([[1.0, 5.0], [2.0, 5.5], [8.0, 9.0], [12.0, 13.0]]),
        "detections__scores": np.array([1.0, 2.0, 3.0, 4.0]),
        "truth__videos": np.array([2]),
        "truth__classes": np.array([1]),
        "truth__spans": np.array([[1.0, 5.0]]),
        "truth__ambiguous_videos": np.array([2]),
        "truth__ambiguous_spans": np.array([[12.5, 20.0]]),
    }
    folder = altered(run, tmp_path / "placed", **placed)
    opened = timelines.read_run(folder)
    (shown,) = timelines.choose(opened, [opened.found.video_ids[2]])
    (of_class,) = [one.found for one in shown.timeline.tracks if one.name == "class 1"]
    verdicts = dict(zip(of_class.scores.tolist(), of_class.verdicts, strict=True))
    assert verdicts == {1.0: "correct", 2.0: "false", 3.0: "false", 4.0: "not judged"}
    assert shown.timeline.ambiguous.tolist() == [[12.5, 20.0]]


def test_activations_of_a_wtalc_run_come_from_the_cache(planted: Planted, tmp_path: Path) -> None:
    rgb = planted.models["appearance"]
    opened = timelines.read_run(rgb.folder)
    assert all(one.answer is None for one in timelines.choose(opened)[0].timeline.tracks)
    filled = timelines.with_activations(opened, planted.cache, planted.labels, "cpu")
    for shown in timelines.choose(filled):
        for one in shown.timeline.tracks:
            assert one.answer is not None
            if len(one.found.scores):
                assert one.threshold == pytest.approx((one.answer.max() + one.answer.min()) / 2)
    with pytest.raises(UserError, match="other features or labels"):
        other, labels = plant_actions(tmp_path / "other", seed=5, train=12, test=5)
        timelines.with_activations(opened, other, labels, "cpu")


def test_runs_of_before_times_were_kept(run: Run, planted: Planted, tmp_path: Path) -> None:
    assert "earlier version" in message(altered(run, tmp_path / "old", spans=None), "--out", tmp_path / "out")
    old = altered(planted.models["motion"], tmp_path / "wtalc", spans=None)
    assert command(old, "--out", tmp_path / "out").exit_code == 0
    filled = timelines.with_activations(
        timelines.read_run(planted.models["motion"].folder), planted.cache, planted.labels, "cpu"
    )
    assert timelines.choose(filled)[0].timeline.edges is not None


def test_a_run_without_segments_draws_videos_that_are_named(run: Run, tmp_path: Path) -> None:
    none = {name: np.zeros(0, np.int64) for name in ("truth__videos", "truth__classes")}
    folder = altered(run, tmp_path / "unjudged", truth__spans=NONE, **none)
    assert "--video" in message(folder, "--out", tmp_path / "out")
    (shown,) = timelines.choose(timelines.read_run(folder), ["video_0013"])
    assert shown.precision is None and shown.rank == ""
    assert {verdict for one in shown.timeline.tracks for verdict in one.found.verdicts} <= {"not judged"}
    assert command(folder, "--video", "video_0013", "--out", tmp_path / "out").exit_code == 0


def test_a_run_that_found_nothing(run: Run, tmp_path: Path) -> None:
    nothing = {name: np.zeros(0, np.int64) for name in ("videos", "classes")} | {
        "spans": NONE,
        "scores": np.zeros(0),
    }
    folder = altered(
        run, tmp_path / "nothing", **{f"detections__{name}": array for name, array in nothing.items()}
    )
    for shown in timelines.choose(timelines.read_run(folder)):
        assert shown.precision == 0
        assert timeline.draw(shown.timeline).png.startswith(b"\x89PNG")


def test_sixty_classes(run: Run, tmp_path: Path) -> None:
    """Each detected twice in one video: its own class comes first, then the best-scored ones."""
    judged = of_run(run)
    names = np.array([*judged.classes, *(f"more {n}" for n in range(57))])
    count = 60
    wide = {
        "classes": names,
        "labels": np.pad(judged.labels, ((0, 0), (0, 57))),
        "scores": np.pad(judged.scores, ((0, 0), (0, 57))),
        **{name: np.pad(getattr(judged, name), ((0, 0), (0, 57))) for name in ("appearance", "motion")},
        "detections__videos": np.zeros(2 * count, np.int64),
        "detections__classes": np.repeat(np.arange(count), 2),
        "detections__spans": np.tile([[1.0, 2.0], [4.0, 6.0]], (count, 1)),
        "detections__scores": np.repeat(np.arange(count) / 2, 2),
    }
    (shown,) = timelines.choose(
        timelines.read_run(altered(run, tmp_path / "wide", **wide)), [judged.video_ids[0]]
    )
    own = judged.classes[int(judged.labels[0].argmax())]
    assert [one.name for one in shown.timeline.tracks] == [own, "more 56", "more 55", "more 54"]
    assert shown.timeline.omitted.startswith(
        "Not drawn: 56 more classes, with 0 true segments and 112 detections"
    )
    assert cut_off(timeline.draw(shown.timeline).figure) == []


@pytest.mark.slow
def test_ids_stay_text(run: Run, tmp_path: Path) -> None:
    ids = np.array(HOSTILE[:3] + HOSTILE[4:6])
    folder = altered(run, tmp_path / "hostile", video_ids=ids)
    words = [word for video_id in ids for word in ("--video", str(video_id))]
    result = command(folder, *words, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert [one["video_id"] for one in json.loads(result.stdout)["videos"]] == ids.tolist()
    page = (tmp_path / "out/report.html").read_text()
    assert "<script" not in page and page.count('<img src="data:image/png') == 5
    table = (tmp_path / "out/table.md").read_text().splitlines()
    assert sum(line.startswith("| ") for line in table) == 2 + 5


def test_wrong_requests(run: Run, planted: Planted, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert "no video 'video_001' among the 5" in message(run.folder, "--video", "video_001", *out)
    assert "'video_0013'" in message(run.folder, "--video", "video_013", *out)
    assert "no run folder of train-policy (it has no config.json)" in message(tmp_path, *out)
    labels = ("--labels", tmp_path / "labels.csv")
    assert "give both" in message(run.folder, *labels, *out)
    (tmp_path / "labels.csv").write_text("video_id,label,subset\nv,a,train\n")
    assert "leave out" in message(run.folder, *labels, "--cache", planted.folder / "cache", *out)
    (tmp_path / "file").write_text("")
    assert "cannot write" in message(run.folder, "--out", tmp_path / "file")
    uniform = configure("uniform", {"fine": "rgb_dense16", "frames": 3, "epochs": 1})
    other = run_method(uniform, planted.cache, planted.labels, tmp_path / "uniform", device="cpu")
    assert "a run of uniform, which finds no segments" in message(other.folder, *out)


def test_pictures_for_a_page(run: Run) -> None:
    pictures = timelines.timelines(run.folder)
    assert len(pictures) == 3
    assert all(one.png.startswith(b"\x89PNG") and "average precision" in one.caption for one in pictures)
