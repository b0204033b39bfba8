"""Detection mAP against the protocols written as loops, and cases whose result is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import plain_detection
from benchmarks.detection_speed import Size, ours, planted
from policy.evaluation.detection import (
    ACTIVITYNET_IOUS,
    PROTOCOLS,
    THUMOS14_IOUS,
    Detections,
    GroundTruth,
    match,
)
from policy.evaluation.detection_map import (
    average_precision,
    bootstrap_interval,
    mean_over_classes,
    weighted_average_precision,
)
from policy.evaluation.metrics import percentile_interval, resampled_weights

Row = tuple[int, int, float, float]
"""Video, class, start and end in seconds."""
EVERY = pytest.mark.parametrize("protocol", PROTOCOLS)


def detections_of(rows: Sequence[Row], scores: Sequence[float]) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 4)
    indices = table[:, :2].astype(np.int64)
    return Detections(indices[:, 0], indices[:, 1], table[:, 2:], np.array(scores, np.float64))


def truth_of(rows: Sequence[Row], ambiguous: Sequence[tuple[int, float, float]] = ()) -> GroundTruth:
    segments, spans = detections_of(rows, [0] * len(rows)), np.array(ambiguous, np.float64).reshape(-1, 3)
    return GroundTruth(
        segments.videos, segments.classes, segments.spans, spans[:, 0].astype(np.int64), spans[:, 1:]
    )


def precision_of(
    rows: Sequence[Row],
    truth: Sequence[Row],
    iou: float,
    protocol: str,
    *,
    ambiguous: Sequence[tuple[int, float, float]] = (),
    scores: Sequence[float] | None = None,
) -> float:
    """Average precision of class 0; by default earlier rows have higher scores."""
    found = detections_of(rows, range(len(rows), 0, -1) if scores is None else scores)
    matching = match(found, truth_of(truth, ambiguous), [iou], protocol)
    return float(average_precision(matching, 1)[0, 0])


@st.composite
def problems(draw: st.DrawFn) -> tuple[Detections, GroundTruth, int]:
    """Few distinct times and scores, so that IoUs equal each other and thresholds, and scores each other."""
    videos, classes = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 3]))
    seed = draw(st.integers(0, 2**32 - 1))
    unit = draw(st.sampled_from([1.0, 0.1, 0.32, 0.64]))
    times = draw(st.integers(4, 40))
    random = np.random.default_rng(seed)

    def spans(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        start = random.integers(0, times, count)
        return np.stack([start, start + random.integers(0, times // 2, count)], 1) * unit

    found, segments, ambiguous = (draw(st.integers(0, most)) for most in (30, 12, 3))
    detections = Detections(
        random.integers(0, videos, found),
        random.integers(0, classes, found),
        spans(found),
        random.integers(0, draw(st.sampled_from([1, 4, 1000])), found) / 4,
    )
    truth = GroundTruth(
        random.integers(0, videos, segments),
        random.integers(0, classes, segments),
        spans(segments),
        random.integers(0, videos, ambiguous),
        spans(ambiguous),
    )
    return detections, truth, classes


@pytest.mark.slow
@settings(max_examples=500)
@given(problem=problems(), protocol=st.sampled_from([*PROTOCOLS]))
def test_as_the_loops(problem: tuple[Detections, GroundTruth, int], protocol: str) -> None:
    detections, truth, classes = problem
    thresholds = (*THUMOS14_IOUS, *ACTIVITYNET_IOUS[5:], 1.0)
    expected = [
        [plain_detection.average_precision(detections, truth, iou, protocol, c) for iou in thresholds]
        for c in range(classes)
    ]
    matching = match(detections, truth, thresholds, protocol)
    np.testing.assert_allclose(average_precision(matching, classes), expected, rtol=0, atol=1e-12)


@settings(max_examples=100)
@given(problem=problems(), protocol=st.sampled_from([*PROTOCOLS]), chosen=st.integers(0, 15))
def test_videos_do_not_influence_each_other(
    problem: tuple[Detections, GroundTruth, int], protocol: str, chosen: int
) -> None:
    """What is matched once for all videos serves any of them: as matched alone, and as weights of 0 and 1."""
    detections, truth, classes = problem
    among = np.array([bool(chosen >> n & 1) for n in range(4)])
    matching = match(detections, truth, THUMOS14_IOUS, protocol)
    found, segments, spans = (among[v] for v in (detections.videos, truth.videos, truth.ambiguous_videos))
    alone = match(
        Detections(
            detections.videos[found],
            detections.classes[found],
            detections.spans[found],
            detections.scores[found],
        ),
        GroundTruth(
            truth.videos[segments],
            truth.classes[segments],
            truth.spans[segments],
            truth.ambiguous_videos[spans],
            truth.ambiguous_spans[spans],
        ),
        THUMOS14_IOUS,
        protocol,
    )
    expected = average_precision(alone, classes)
    np.testing.assert_array_equal(average_precision(matching.of_videos(among), classes), expected)
    weights = among[:, None].astype(np.float32)
    weighted = weighted_average_precision(matching, classes, weights)[..., 0]
    np.testing.assert_allclose(weighted, expected, rtol=0, atol=1e-6)


@settings(max_examples=100)
@given(problem=problems(), protocol=st.sampled_from([*PROTOCOLS]), seed=st.integers(0, 1000))
def test_weights_are_copies_of_videos(
    problem: tuple[Detections, GroundTruth, int], protocol: str, seed: int
) -> None:
    """A bootstrap sample as weights is that of its videos' copies, which come into the ranking together."""
    detections, truth, classes = problem
    detections = Detections(  # no ties but those of copies
        detections.videos,
        detections.classes,
        detections.spans,
        np.random.default_rng(seed).permutation(len(detections)).astype(np.float64),
    )
    matching = match(detections, truth, THUMOS14_IOUS, protocol)
    weights = resampled_weights(4, 5, seed)
    for column, resampled in enumerate(
        np.moveaxis(weighted_average_precision(matching, classes, weights), 2, 0)
    ):
        counts = weights[:, column].astype(int)
        for c in range(classes):
            positives = counts[truth.videos[truth.classes == c]].sum()
            rows = np.flatnonzero(matching.classes == c)
            for place in range(len(THUMOS14_IOUS)):
                retrieved = found = 0
                points = []
                for row in rows:
                    copies = counts[matching.videos[row]]
                    retrieved += copies * (matching.correct[row, place] | matching.clear[row])
                    found += copies * matching.correct[row, place]
                    points.append((copies * matching.correct[row, place], found / max(retrieved, 1)))
                if PROTOCOLS[protocol].interpolated:
                    points = [(n, max(p for _, p in points[k:])) for k, (n, _) in enumerate(points)]
                expected = sum(n * p for n, p in points) / positives if positives else np.nan
                assert resampled[c, place] == pytest.approx(expected, rel=0, abs=1e-6, nan_ok=True)


def test_interval_around_the_value() -> None:
    """Of many videos with few segments per class, which samples with repeated videos rank better than they are."""
    size = Size("as ActivityNet", 800, 32, 1_250, 16_000, ACTIVITYNET_IOUS)
    matching, precision = ours(*planted(size, seed=0), size, "activitynet")
    value = float(mean_over_classes(precision).mean())
    weights = resampled_weights(size.videos, 200, seed=0)
    resampled = mean_over_classes(weighted_average_precision(matching, size.classes, weights)).mean(axis=0)
    as_they_are, moved = percentile_interval(value, resampled), bootstrap_interval(value, resampled)
    assert value < resampled.mean() - resampled.std()
    assert moved.low < value < moved.high
    assert moved.high - moved.low == pytest.approx(as_they_are.high - as_they_are.low)


def test_iou_that_equals_the_threshold() -> None:
    """Of [0, 4] and [0, 8] IoU is a half: not above it, as the THUMOS'14 kit wants."""
    found, truth = [(0, 0, 0.0, 4.0)], [(0, 0, 0.0, 8.0)]
    assert precision_of(found, truth, 0.5, "thumos14") == 0
    assert precision_of(found, truth, 0.49, "thumos14") == 1
    assert precision_of(found, truth, 0.5, "activitynet") == 1
    # 4 s are 6.25 clips and 8 s 12.5, which are 6 and 12.
    assert precision_of(found, truth, 0.5, "wtalc") == 1


@EVERY
def test_two_detections_of_one_segment(protocol: str) -> None:
    """One is false: for THUMOS'14 the one with the lower IoU, for the others the one with the lower score."""
    found, truth = [(0, 0, 0.0, 24.0), (0, 0, 0.0, 32.0)], [(0, 0, 0.0, 32.0)]
    assert precision_of(found, truth, 0.5, protocol) == (0.5 if protocol == "thumos14" else 1)
    assert precision_of(found[::-1], truth, 0.5, protocol) == 1


def test_first_or_best() -> None:
    """A detection takes the segment that it fits best, in W-TALC's code the first that it fits well enough."""
    truth = [(0, 0, 0.0, 32.0), (0, 0, 16.0, 48.0)]
    found = [(0, 0, 16.0, 48.0), (0, 0, 0.0, 32.0)]
    assert precision_of(found, truth, 0.9, "wtalc") == 1
    assert precision_of(found, truth, 0.3, "wtalc") == 1  # each takes the other's
    third = [(0, 0, 16.0, 48.0), (0, 0, 0.0, 16.0)]
    assert precision_of(third, truth, 0.3, "activitynet") == 1
    assert precision_of(third, truth, 0.3, "wtalc") == 0.5  # the first segment is taken, and [16, 48] too far


def test_segments_choose_in_the_order_of_the_annotations() -> None:
    """[0, 32] takes the detection that fits [8, 32] exactly, and the other does not overlap [8, 32] at all."""
    found = [(0, 0, 8.0, 32.0), (0, 0, 0.0, 8.0)]
    assert precision_of(found, [(0, 0, 0.0, 32.0), (0, 0, 8.0, 32.0)], 0.2, "thumos14") == 0.5
    assert precision_of(found, [(0, 0, 8.0, 32.0), (0, 0, 0.0, 32.0)], 0.2, "thumos14") == 1


def test_ambiguous_spans() -> None:
    """Two detections overlap the span: the one with the higher score is false, the other is correct."""
    found, truth = [(0, 0, 40.0, 60.0), (0, 0, 0.0, 34.0)], [(0, 0, 0.0, 32.0)]
    spans = [(0, 33.0, 64.0)]
    for protocol, without, within in (
        ("thumos14", 0.5, 1.0),  # forgiven
        ("activitynet", 0.5, 0.5),
        ("wtalc", 0.5, 0.0),  # both dropped, and nothing else is found
    ):
        assert precision_of(found, truth, 0.5, protocol) == without
        assert precision_of(found, truth, 0.5, protocol, ambiguous=spans) == within
        assert precision_of(found, truth, 0.5, protocol, ambiguous=[(1, 33.0, 64.0)]) == without
    # What only touches the span does not overlap it.
    touching = [(0, 34.0, 40.0), (0, 60.0, 64.0)]
    for protocol in PROTOCOLS:
        assert precision_of(found, truth, 0.5, protocol, ambiguous=touching) == 0.5


@EVERY
def test_equal_scores(protocol: str) -> None:
    """The earlier video comes first, whatever the order of the input; in a video the earlier in the input."""
    truth = [(0, 0, 0.0, 32.0), (1, 0, 0.0, 32.0)]
    right, wrong = (0, 0, 0.0, 32.0), (1, 0, 40.0, 80.0)
    for found in ([right, wrong], [wrong, right]):
        assert precision_of(found, truth, 0.5, protocol, scores=[1, 1]) == 0.5
    right, wrong = (1, 0, 0.0, 32.0), (0, 0, 40.0, 80.0)
    for found in ([right, wrong], [wrong, right]):
        assert precision_of(found, truth, 0.5, protocol, scores=[1, 1]) == 0.25
    right, wrong = (0, 0, 0.0, 32.0), (0, 0, 40.0, 80.0)
    assert precision_of([right, wrong], truth, 0.5, protocol, scores=[1, 1]) == 0.5
    assert precision_of([wrong, right], truth, 0.5, protocol, scores=[1, 1]) == 0.25


def test_equal_iou() -> None:
    """A detection amid two segments takes the later one, and a segment amid two detections the surer one."""
    truth = [(0, 0, 0.0, 32.0), (0, 0, 32.0, 64.0)]
    found = [(0, 0, 16.0, 48.0), (0, 0, 32.0, 64.0), (0, 0, 0.0, 32.0)]
    # ActivityNet: [16, 48] takes [32, 64]; [32, 64] is too late; [0, 32] gets its own.
    assert precision_of(found, truth, 0.3, "activitynet") == pytest.approx((1 + 2 / 3) / 2)
    one = [(0, 0, 0.0, 32.0)]
    assert precision_of([(0, 0, 0.0, 16.0), (0, 0, 16.0, 32.0)], one, 0.4, "thumos14") == 1


@EVERY
def test_empty(protocol: str) -> None:
    """A class without segments has no precision; without detections 0, also where the file is empty."""
    truth = truth_of([(0, 0, 0.0, 32.0), (1, 2, 0.0, 32.0)])
    found = detections_of([(0, 0, 0.0, 32.0), (0, 1, 0.0, 32.0)], [1, 1])
    precision = average_precision(match(found, truth, [0.5], protocol), 4)[:, 0]
    np.testing.assert_array_equal(precision, [1, np.nan, 0, np.nan])
    assert mean_over_classes(precision[:, None]) == [0.5]
    nothing = match(detections_of([], []), truth, [0.5], protocol)
    np.testing.assert_array_equal(average_precision(nothing, 4)[:, 0], [0, np.nan, 0, np.nan])
    no_truth = match(found, truth_of([]), [0.5, 0.6], protocol)
    assert np.isnan(average_precision(no_truth, 4)).all()
    assert np.isnan(mean_over_classes(average_precision(no_truth, 4))).all()


@EVERY
def test_spans_without_length(protocol: str) -> None:
    """They are never correct, not even for a segment without length, and are false when they are surer."""
    truth = [(0, 0, 0.0, 32.0)]
    assert precision_of([(0, 0, 16.0, 16.0)], truth, 0.1, protocol) == 0
    assert precision_of([(0, 0, 16.0, 16.0), truth[0]], truth, 0.1, protocol) == 0.5
    assert precision_of([(0, 0, 16.0, 16.0)], [(0, 0, 16.0, 16.0)], 0.1, protocol) == 0
    assert precision_of([(0, 0, 16.0, 8.0)], [(0, 0, 16.0, 8.0)], 0.1, protocol) == 0


@EVERY
def test_segments_that_touch(protocol: str) -> None:
    truth = [(0, 0, 0.0, 32.0), (0, 0, 32.0, 64.0)]
    assert precision_of(truth, truth, 0.9, protocol) == 1
    both = [(0, 0, 0.0, 64.0)]
    assert precision_of(both, truth, 0.4, protocol) == 0.5  # one of them
    assert precision_of(both, truth, 0.6, protocol) == 0


def test_video_without_segments() -> None:
    """What is found there is false; W-TALC's code leaves the video out."""
    found, truth = [(1, 0, 0.0, 32.0), (0, 0, 0.0, 32.0)], [(0, 0, 0.0, 32.0)]
    assert [precision_of(found, truth, 0.5, protocol) for protocol in PROTOCOLS] == [0.5, 0.5, 1]


def test_interpolation() -> None:
    """False, correct, correct of two: precision 1/2 and 2/3, of which ActivityNet's kit takes the higher."""
    truth = [(0, 0, 0.0, 32.0), (0, 0, 64.0, 96.0)]
    found = [(0, 0, 128.0, 160.0), *truth]
    expected = {"thumos14": (1 / 2 + 2 / 3) / 2, "activitynet": 2 / 3, "wtalc": (1 / 2 + 2 / 3) / 2}
    for protocol, precision in expected.items():
        assert precision_of(found, truth, 0.5, protocol) == pytest.approx(precision)


def test_clips_of_wtalc() -> None:
    """Clip n lasts from 0.64 n to 0.64 (n + 1) seconds. Of half a clip there is an even number."""
    clips = [(0, 0, 0.64 * n, 0.64 * (n + 3)) for n in range(0, 300, 5)]
    assert precision_of(clips, clips, 1.0, "wtalc") == 1
    nudged = [(0, 0, start + 0.3, end - 0.3) for _, _, start, end in clips]
    assert precision_of(nudged, clips, 1.0, "wtalc") == 1
    # [0.32, 0.96] is from clip 0.5 to 1.5: from 0 to 2. [0.96, 1.6] is from 1.5 to 2.5: of no length.
    assert precision_of([(0, 0, 0.0, 1.28)], [(0, 0, 0.32, 0.96)], 1.0, "wtalc") == 1
    assert precision_of([(0, 0, 0.96, 1.6)], [(0, 0, 0.96, 1.6)], 0.1, "wtalc") == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_cannot_be_matched(wrong: float) -> None:
    found, truth = detections_of([(0, 0, 0.0, 1.0)], [1]), truth_of([(0, 0, 0.0, 1.0)])
    for mistaken in (detections_of([(0, 0, 0.0, wrong)], [1]), detections_of([(0, 0, 0.0, 1.0)], [wrong])):
        with pytest.raises(ValueError, match="finite"):
            match(mistaken, truth, [0.5], "thumos14")
    with pytest.raises(ValueError, match="finite"):
        match(found, truth_of([(0, 0, 0.0, wrong)]), [0.5], "thumos14")
    with pytest.raises(ValueError, match="above 0"):
        match(found, truth, [0.0, 0.5], "activitynet")
    with pytest.raises(KeyError):
        match(found, truth, [0.5], "thumos15")
