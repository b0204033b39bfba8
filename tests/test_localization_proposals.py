"""Proposals, soft-NMS and ActionBytes against plain transcriptions, on corner cases and on planted videos."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.evaluation.detection import Detections, FloatArray
from policy.localization.action_bytes import (
    Propose,
    action_byte_proposals,
    byte_means,
    change_boundaries,
    to_boundaries,
)
from policy.localization.proposals import (
    class_scores,
    clip_edges,
    contrast_candidates,
    contrast_proposals,
    wtalc_proposals,
)
from policy.localization.suppression import soft_nms, span_iou
from tests.plain_proposals import Row, plain_contrast, plain_soft_nms, plain_wtalc, rows_of
from tests.planted_activations import PlantedVideos, plain_map, plant_activations

SEEDS = st.integers(0, 10_000)


def dense_spans(clips: int, seconds: float = 0.64) -> FloatArray:
    starts = np.arange(clips) * seconds
    return np.stack([starts, starts + seconds], axis=1)


def random_videos(
    seed: int, *, videos: int = 3, classes: int = 4, whole_numbers: bool = True
) -> tuple[list[FloatArray], list[FloatArray], FloatArray]:
    """Smooth logits of random lengths, some below zero throughout, some with ties."""
    random = np.random.default_rng(seed)
    activations = []
    for _ in range(videos):
        steps = random.normal(size=(int(random.integers(1, 40)), classes))
        smooth = steps.cumsum(axis=0) + random.normal(0, 3, classes)
        activations.append(smooth.round() if whole_numbers and random.random() < 0.3 else smooth)
    scores = np.stack([class_scores(logits) for logits in activations])
    return activations, [dense_spans(len(logits)) for logits in activations], scores


def assert_same(detections: Detections, expected: Sequence[Row]) -> None:
    rows = rows_of(detections)
    assert [row[:2] for row in rows] == [row[:2] for row in sorted(expected)]
    assert np.array(rows).ravel() == pytest.approx(np.array(sorted(expected)).ravel(), abs=1e-9)


# --- class scores and edges ---


@pytest.mark.parametrize(("clips", "top"), [(1, 1), (7, 1), (8, 1), (15, 1), (16, 2), (100, 12)])
def test_class_scores_are_of_the_top_eighth(clips: int, top: int) -> None:
    logits = np.random.default_rng(clips).normal(size=(clips, 3))
    for c, score in enumerate(class_scores(logits)):
        assert score == pytest.approx(sum(sorted(logits[:, c].tolist())[-top:]) / top)


def test_without_clips_no_class_counts() -> None:
    assert class_scores(np.zeros((0, 2))).tolist() == [-math.inf, -math.inf]
    nothing: tuple[list[FloatArray], list[FloatArray], FloatArray] = (
        [np.zeros((0, 2))], [np.zeros((0, 2))], np.full((1, 2), -np.inf)
    )  # fmt: skip
    assert len(wtalc_proposals(*nothing)) == len(contrast_proposals(*nothing)) == 0


def test_edges_of_clips_that_touch_overlap_and_leave_gaps() -> None:
    assert clip_edges(dense_spans(3)) == pytest.approx([0, 0.64, 1.28, 1.92])
    overlapping = np.array([[0, 16], [4, 20], [8, 24]]) / 30
    assert clip_edges(overlapping) == pytest.approx([0, 10 / 30, 14 / 30, 24 / 30])
    single_frames = np.array([[0, 0], [1, 1], [2, 2]], np.float64)
    assert clip_edges(single_frames) == pytest.approx([0, 0.5, 1.5, 2])
    assert clip_edges(np.array([[3.0, 4.0]])) == pytest.approx([3, 4])


# --- W-TALC ---


@given(SEEDS)
def test_wtalc_proposals(seed: int) -> None:
    activations, spans, scores = random_videos(seed)
    expected = [
        row
        for video, (logits, seconds) in enumerate(zip(activations, spans, strict=True))
        for row in plain_wtalc(video, logits, seconds)
    ]
    assert_same(wtalc_proposals(activations, spans, scores), expected)


def one_class(*logits: float) -> Detections:
    activations = np.array(logits, np.float64)[:, None]
    return wtalc_proposals([activations], [dense_spans(len(logits), 1.0)], class_scores(activations)[None])


def test_wtalc_corner_cases() -> None:
    assert_same(
        one_class(0, 4, 4, 0), [(0, 0, 1, 3, 4 + 0.7 * 4)]
    )  # T < 8: the highest clip is the class's score
    assert_same(one_class(4, 4, 0, 3, 3), [(0, 0, 0, 2, 6.8), (0, 0, 3, 5, 5.8)])  # first and last clip
    assert len(one_class(0, 4, 0, 4)) == 0  # runs of one clip
    assert len(one_class(2, 2, 2)) == 0  # nothing is above the middle of a range that is a point
    assert len(one_class(0, 2, 2, 4)) == 0  # two clips are at the threshold, not above it
    assert len(one_class(-9, -1, -1, -9)) == 0  # a class at or below zero
    assert len(one_class(-9, 0, 0, -9)) == 0
    assert len(one_class(5)) == 0
    assert_same(one_class(*[-8] * 6, 2, 2), [(0, 0, 6, 8, 3.4)])  # the threshold itself may be below zero


# --- inner minus outer ---


@given(SEEDS)
def test_contrast_proposals(seed: int) -> None:
    activations, spans, scores = random_videos(seed, whole_numbers=False)
    expected = [
        row
        for video, (logits, seconds) in enumerate(zip(activations, spans, strict=True))
        for row in plain_contrast(video, logits, seconds, scores[video])
    ]
    found = contrast_proposals(activations, spans, scores)
    assert_same(found, plain_soft_nms(expected))


def test_a_run_that_is_the_whole_video_has_nothing_around_it() -> None:
    logits = np.array([[2.0], [3.0], [4.0]])
    found = contrast_proposals(
        [logits], [dense_spans(3, 1.0)], class_scores(logits)[None], thresholds=(-0.1,)
    )
    assert_same(found, [(0, 0, 0, 3, 3 + 0.2 * 4)])


def test_contrast_stays_in_logits() -> None:
    """A faint trace in one video ranks below a clear action in another; of shares of a range both were 1."""
    faint, clear = (np.array([-1.0] * 8 + [height] * 8 + [-1.0] * 8)[:, None] for height in (0.5, 8.0))
    activations, spans = [faint, clear], [dense_spans(24)] * 2
    found = contrast_proposals(activations, spans, np.stack([class_scores(each) for each in activations]))
    assert found.videos.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([1.5 + 0.1, 9 + 1.6])


# --- soft-NMS ---


def random_detections(seed: int, count: int) -> Detections:
    random = np.random.default_rng(seed)
    starts = random.uniform(0, 30, count)
    return Detections(
        videos=random.integers(0, 3, count),
        classes=random.integers(0, 2, count),
        spans=np.stack([starts, starts + random.exponential(5, count)], axis=1),
        scores=random.uniform(-0.1, 1, count),
    )


@given(SEEDS, st.integers(0, 40), st.sampled_from([0.1, 0.3, 0.5]))
def test_soft_nms(seed: int, count: int, sigma: float) -> None:
    detections = random_detections(seed, count)
    assert_same(soft_nms(detections, sigma=sigma), plain_soft_nms(rows_of(detections), sigma))


@given(SEEDS)
def test_soft_nms_keeps_the_best_and_raises_no_score(seed: int) -> None:
    detections = random_detections(seed, 30)
    kept = soft_nms(detections)
    before = {row[:4]: row[4] for row in rows_of(detections)}
    assert all(row[4] <= before[row[:4]] + 1e-12 for row in rows_of(kept))
    for video, c in {row[:2] for row in rows_of(kept)}:
        of_group = [score for (v, k, _, _), score in before.items() if (v, k) == (video, c)]
        assert max(row[4] for row in rows_of(kept) if row[:2] == (video, c)) == pytest.approx(max(of_group))


def test_soft_nms_of_the_same_twice() -> None:
    twice = Detections(
        np.zeros(2, np.int64), np.zeros(2, np.int64), np.array([[1.0, 2.0]] * 2), np.array([0.5, 0.5])
    )
    assert sorted(soft_nms(twice).scores) == pytest.approx([0.5 * math.exp(-1 / 0.3), 0.5])


def test_disjoint_detections_are_left_alone() -> None:
    apart: npt.NDArray[np.float64] = np.array([[0.0, 1.0], [1.0, 2.0], [5.0, 6.0]])
    detections = Detections(np.zeros(3, np.int64), np.zeros(3, np.int64), apart, np.array([0.2, 0.9, 0.5]))
    assert soft_nms(detections).scores.tolist() == [0.2, 0.9, 0.5]


# --- ActionBytes ---


def plain_boundaries(features: FloatArray) -> list[int]:
    unit = []
    for row in features.tolist():
        length = math.sqrt(sum(value**2 for value in row))
        unit.append([value / length if length else 0.0 for value in row])
    changes = [math.dist(unit[t], unit[t + 1]) for t in range(len(unit) - 1)]
    if not changes:
        return []
    median = statistics.median(changes)
    limit = median + 3 * 1.4826 * statistics.median(abs(change - median) for change in changes)
    found = []
    for t, change in enumerate(changes):
        before = changes[t - 1] if t else 0.0
        after = changes[t + 1] if t + 1 < len(changes) else 0.0
        if change > limit and change >= before and change >= after:
            found.append(t + 1)
    return found


@given(SEEDS)
def test_change_boundaries(seed: int) -> None:
    random = np.random.default_rng(seed)
    stretches = [random.normal(size=5) for _ in range(int(random.integers(1, 6)))]
    rows = np.concatenate([row + random.normal(0, 0.2, (int(random.integers(1, 9)), 5)) for row in stretches])
    assert change_boundaries(rows).tolist() == plain_boundaries(rows)
    assert change_boundaries(8 * rows).tolist() == plain_boundaries(rows)


def test_boundaries_of_videos_that_hardly_are() -> None:
    random = np.random.default_rng(0)
    for clips in (0, 1):
        assert len(change_boundaries(random.normal(size=(clips, 4)))) == 0
    assert len(change_boundaries(np.ones((30, 4)))) == 0
    assert len(change_boundaries(np.zeros((30, 4)))) == 0
    still = np.repeat(np.eye(3), [4, 1, 6], axis=0)
    assert change_boundaries(still).tolist() == [4, 5]
    still[4] = 0
    assert change_boundaries(still).tolist() == [4, 5]


def test_few_boundaries_where_all_changes_are_alike() -> None:
    rows = np.random.default_rng(0).normal(size=(20_000, 64))
    assert len(change_boundaries(rows)) < 0.005 * len(rows)


@given(SEEDS)
def test_byte_means(seed: int) -> None:
    random = np.random.default_rng(seed)
    activations = random.normal(size=(int(random.integers(1, 30)), 3))
    boundaries = np.flatnonzero(random.random(len(activations)) < 0.2)
    boundaries = boundaries[boundaries > 0]
    cuts = [0, *boundaries.tolist(), len(activations)]
    averaged = byte_means(activations, boundaries)
    for start, end in pairwise(cuts):
        for t in range(start, end):
            assert averaged[t] == pytest.approx(
                [sum(column[start:end]) / (end - start) for column in activations.T]
            )


@given(SEEDS)
def test_to_boundaries(seed: int) -> None:
    random = np.random.default_rng(seed)
    detections = random_detections(seed, 30)
    spans = [dense_spans(60) for _ in range(3)]
    boundaries = [np.unique(random.integers(1, 60, random.integers(0, 8))) for _ in range(3)]
    moved = to_boundaries(detections, spans, boundaries)
    for d, (start, end) in enumerate(detections.spans.tolist()):
        edges = [0.64 * b for b in boundaries[int(detections.videos[d])]]
        for before, after in ((start, moved.spans[d, 0]), (end, moved.spans[d, 1])):
            near = min(edges, key=lambda edge: abs(edge - before), default=math.inf)
            reachable = abs(near - before) <= 0.25 * (end - start)
            assert after == pytest.approx(near if reachable else before)
    assert (span_iou(moved.spans, detections.spans) >= 0.5 - 1e-9).all()
    assert np.array_equal(moved.scores, detections.scores)


METHODS: dict[str, Propose] = {"wtalc": wtalc_proposals, "contrast": contrast_candidates}


def maps_at_70(name: str, planted: PlantedVideos) -> tuple[float, float]:
    """mAP at an IoU of 0.7 without ActionBytes and with them."""
    arguments = (planted.activations, planted.spans, planted.scores)
    propose = METHODS[name]
    with_bytes = action_byte_proposals(propose, *arguments, planted.features)
    return tuple(
        plain_map(found, planted.truth, 0.7) for found in (soft_nms(propose(*arguments)), with_bytes)
    )  # type: ignore[return-value]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_action_bytes_sharpen_what_is_blurred(name: str, seed: int) -> None:
    without, with_bytes = maps_at_70(name, plant_activations(seed, blur=4))
    assert with_bytes > without + 0.08


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("blur", [0, 4])
def test_action_bytes_leave_a_video_without_changes_alone(name: str, blur: float) -> None:
    without, with_bytes = maps_at_70(name, plant_activations(3, videos=80, blur=blur, feature_changes=False))
    assert with_bytes > without - 0.02


def test_action_bytes_of_a_video_without_clips() -> None:
    nothing = np.zeros((0, 2))
    found = action_byte_proposals(
        wtalc_proposals, [nothing], [nothing], np.full((1, 2), -np.inf), [np.zeros((0, 5))]
    )
    assert len(found) == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_contrast_finds_more_than_one_threshold(seed: int) -> None:
    """At equal input: actions weaker than half of a video's strongest are below W-TALC's threshold."""
    planted = plant_activations(seed, blur=1)
    arguments = (planted.activations, planted.spans, planted.scores)
    for iou in (0.3, 0.5, 0.7):
        contrast = plain_map(contrast_proposals(*arguments), planted.truth, iou)
        assert contrast > plain_map(wtalc_proposals(*arguments), planted.truth, iou) + 0.03
