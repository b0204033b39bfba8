"""Proposals and their suppression against plain transcriptions, and on corner cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.evaluation.detection import Detections, FloatArray
from policy.localization.proposals import (
    THRESHOLDS,
    class_scores,
    clip_edges,
    contrast_proposals,
    unit_range,
    wtalc_proposals,
)
from policy.localization.suppression import soft_nms

SEEDS = st.integers(0, 10_000)
Row = tuple[int, int, float, float, float]
"""Video, class, start, end, score."""


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


def rows_of(detections: Detections) -> list[Row]:
    columns = (detections.videos, detections.classes, *detections.spans.T, detections.scores)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def assert_same(detections: Detections, expected: Sequence[Row]) -> None:
    rows = rows_of(detections)
    assert [row[:2] for row in rows] == [row[:2] for row in sorted(expected)]
    assert np.array(rows).ravel() == pytest.approx(np.array(sorted(expected)).ravel(), abs=1e-9)


def plain_runs(above: Sequence[bool]) -> list[tuple[int, int]]:
    runs, at = [], 0
    for value, members in groupby(above):
        count = len(list(members))
        if value and count >= 2:
            runs.append((at, at + count))
        at += count
    return runs


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


def plain_wtalc(video: int, logits: FloatArray, spans: FloatArray) -> list[Row]:
    edges = clip_edges(spans)
    found: list[Row] = []
    for c in range(logits.shape[1]):
        sequence = [float(value) for value in logits[:, c]]
        top = sorted(sequence, reverse=True)[: max(1, len(sequence) // 8)]
        score = sum(top) / len(top)
        if score <= 0:
            continue
        threshold = max(sequence) - 0.5 * (max(sequence) - min(sequence))
        for start, end in plain_runs([value > threshold for value in sequence]):
            best = max(sequence[start:end]) + 0.7 * score
            found.append((video, c, float(edges[start]), float(edges[end]), best))
    return found


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


def plain_contrast(video: int, logits: FloatArray, spans: FloatArray, scores: FloatArray) -> list[Row]:
    edges = clip_edges(spans)
    found: list[Row] = []
    for c in range(logits.shape[1]):
        if scores[c] <= 0:
            continue
        low, high = float(logits[:, c].min()), float(logits[:, c].max())
        unit = [(float(value) - low) / (high - low) if high > low else 0.0 for value in logits[:, c]]
        probability = math.exp(scores[c]) / sum(math.exp(score) for score in scores)
        for start, end in {run for level in THRESHOLDS for run in plain_runs([u > level for u in unit])}:
            margin = math.ceil((end - start) / 4)
            inner = unit[start:end]
            outer = unit[max(0, start - margin) : start] + unit[end : end + margin]
            contrast = sum(inner) / len(inner) - (sum(outer) / len(outer) if outer else 0.0)
            score = contrast + 0.2 * probability
            found.append((video, c, float(edges[start]), float(edges[end]), score))
    return found


def plain_iou(one: Row, other: Row) -> float:
    shared = max(0.0, min(one[3], other[3]) - max(one[2], other[2]))
    union = one[3] - one[2] + other[3] - other[2] - shared
    return shared / union if union else 0.0


def plain_soft_nms(rows: Sequence[Row], sigma: float = 0.3, least: float = 1e-3) -> list[Row]:
    left = sorted(row for row in rows if row[4] >= least)
    kept = []
    while left:
        best = max(left, key=lambda row: row[4])
        left.remove(best)
        kept.append(best)
        weighed = []
        for row in left:
            same = row[:2] == best[:2]
            score = row[4] * math.exp(-(plain_iou(row, best) ** 2) / sigma) if same else row[4]
            if score >= least:
                weighed.append((*row[:4], score))
        left = weighed
    return kept


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
    logits = np.array([[3.0], [3.0], [3.0], [1.0]])[:3]
    logits[0] = 2.9
    found = contrast_proposals(
        [logits], [dense_spans(3, 1.0)], class_scores(logits)[None], thresholds=(-0.1,)
    )
    assert_same(found, [(0, 0, 0, 3, 2 / 3 + 0.2)])


@given(SEEDS, st.floats(0.1, 10), st.floats(0, 5))
def test_scale_and_shift_of_logits_move_no_share(seed: int, scale: float, shift: float) -> None:
    activations, _, _ = random_videos(seed, videos=1)
    unit = unit_range(activations[0])
    assert unit.min() >= 0 and unit.max() <= 1
    assert unit_range(scale * activations[0] + shift) == pytest.approx(unit, abs=1e-9)


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
