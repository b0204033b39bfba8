"""Disparity, affinity, comparable activations and controls against plain transcriptions and on planted models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.evaluation.detection import FloatArray
from policy.localization.controls import (
    clip_truth,
    frame_motion,
    oracle_clips,
    random_clips,
    regular_clips,
)
from policy.localization.levels import activation_levels, comparable
from policy.localization.motion_affinity import (
    MOTION,
    RGB,
    BoolArray,
    affinity,
    disparity,
    pseudo_labels,
    threshold,
    top_clips,
)
from policy.localization.proposals import class_scores, wtalc_proposals
from tests.planted_activations import plant_models, selected_map

SEEDS = st.integers(0, 10_000)
BETAS = st.one_of(st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]), st.floats(0, 1))


def random_pair(seed: int, classes: int = 4) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Activations of two models in one video and its labels; some clips are alike."""
    random = np.random.default_rng(seed)
    rgb = random.normal(0, 3, (int(random.integers(1, 25)), classes))
    motion = rgb + random.normal(0, 2, rgb.shape) * (random.random((len(rgb), 1)) < 0.7)
    labels = np.zeros(classes, np.bool_)
    labels[random.choice(classes, size=int(random.integers(1, 3)), replace=False)] = True
    return rgb, motion, labels


# --- Eq. 3 ---


def plain_disparity(rgb: FloatArray, motion: FloatArray, classes: Sequence[int]) -> list[float]:
    differences = [max(abs(float(rgb[t, c]) - float(motion[t, c])) for c in classes) for t in range(len(rgb))]
    gamma = max(differences)
    return [difference / gamma if gamma else 0.0 for difference in differences]


@given(SEEDS)
def test_disparity(seed: int) -> None:
    rgb, motion, labels = random_pair(seed)
    found = disparity(rgb, motion, labels)
    assert found == pytest.approx(plain_disparity(rgb, motion, np.flatnonzero(labels).tolist()))
    assert found.min() >= 0 and found.max() in (0, 1)
    assert disparity(motion, rgb, labels) == pytest.approx(found)


@given(SEEDS, st.floats(0.01, 100), st.floats(-50, 50))
def test_a_scale_and_a_shift_of_both_models_change_no_disparity(
    seed: int, scale: float, shift: float
) -> None:
    rgb, motion, labels = random_pair(seed)
    moved = disparity(scale * rgb + shift, scale * motion + shift, labels)
    assert moved == pytest.approx(disparity(rgb, motion, labels), abs=1e-9)


@given(SEEDS)
def test_classes_that_a_video_has_not_change_no_disparity(seed: int) -> None:
    rgb, motion, labels = random_pair(seed)
    elsewhere = np.where(labels, motion, 1e6)
    assert np.array_equal(disparity(rgb, elsewhere, labels), disparity(rgb, motion, labels))


def test_models_that_agree() -> None:
    rgb = np.ones((3, 2))
    assert disparity(rgb, rgb, np.array([True, False])).tolist() == [0, 0, 0]
    assert len(disparity(rgb[:0], rgb[:0], np.array([True, False]))) == 0


# --- τ and Eq. 4 ---


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=20), BETAS)
def test_exactly_the_top_share_is_chosen(values: list[float], beta: float) -> None:
    chosen = top_clips(np.array(values), beta)
    assert chosen.sum() == round(beta * len(values))
    ranked = sorted(range(len(values)), key=lambda t: (-values[t], t))
    assert sorted(ranked[: chosen.sum()]) == np.flatnonzero(chosen).tolist()


def plain_affinity(disparities: Sequence[float], beta: float) -> list[tuple[float, float]]:
    clips = range(len(disparities))
    motion = sorted(clips, key=lambda t: (-disparities[t], t))[: round(beta * len(disparities))]
    tau = max((disparities[t] for t in clips if t not in motion), default=0.0)
    rows = []
    for t in clips:
        weight = abs(disparities[t] - tau) + 1
        rows.append((0.0, weight) if t in motion else (weight, 0.0))
    return rows


@given(SEEDS, BETAS)
def test_affinity(seed: int, beta: float) -> None:
    values = disparity(*random_pair(seed))
    weights = affinity(values, beta)
    assert weights == pytest.approx(np.array(plain_affinity(values.tolist(), beta)))
    assert ((weights > 0).sum(axis=1) == 1).all()
    assert weights.max() <= 2 and weights.max(axis=1).min() >= 1


@given(SEEDS, BETAS)
def test_what_lies_above_the_threshold_is_chosen(seed: int, beta: float) -> None:
    values = disparity(*random_pair(seed))
    chosen = top_clips(values, beta)
    tau = threshold(values, chosen)
    assert chosen[values > tau].all()
    assert (values[~chosen] <= tau).all()
    assert np.array_equal(pseudo_labels(chosen).argmax(axis=1) == MOTION, chosen)
    assert np.array_equal(affinity(values, beta) > 0, pseudo_labels(chosen) > 0)


def test_affinity_by_hand() -> None:
    weights = affinity(np.array([0.1, 1.0, 0.4, 0.6]), 0.5)
    assert weights[:, RGB] == pytest.approx([1.3, 0, 1.0, 0])
    assert weights[:, MOTION] == pytest.approx([0, 1.6, 0, 1.2])
    assert affinity(np.array([0.2, 1.0]), 1.0)[:, MOTION] == pytest.approx([1.2, 2.0])
    assert affinity(np.array([0.2, 1.0]), 0.0)[:, RGB] == pytest.approx([1.8, 1.0])


# --- two models on one scale ---


def plain_levels(activations: Sequence[FloatArray], labels: BoolArray, c: int) -> tuple[float, float]:
    low, high = [], []
    for video, logits in enumerate(activations):
        if labels[video, c]:
            ranked = sorted(float(value) for value in logits[:, c])
            count = max(1, len(ranked) // 8)
            low.append(sum(ranked[:count]) / count)
            high.append(sum(ranked[-count:]) / count)
    return sum(low) / len(low), sum(high) / len(high)


def test_levels() -> None:
    models = plant_models(0, videos=20, classes=3)
    levels = activation_levels(models.motion, models.labels)
    for c in range(3):
        assert (levels.low[c], levels.high[c]) == pytest.approx(plain_levels(models.motion, models.labels, c))


@given(SEEDS, st.floats(0.05, 20), st.floats(-30, 30))
def test_scale_and_shift_of_a_model_are_undone(seed: int, scale: float, shift: float) -> None:
    random = np.random.default_rng(seed)
    labels = np.ones((3, 2), np.bool_)
    rgb, motion = ([random.normal(0, 3, (9, 2)) for _ in range(3)] for _ in range(2))
    reference = activation_levels(rgb, labels)
    plain = comparable(motion[0], activation_levels(motion, labels), reference)
    other = [scale * logits + shift for logits in motion]
    assert comparable(other[0], activation_levels(other, labels), reference) == pytest.approx(plain, abs=1e-6)
    assert comparable(rgb[0], reference, reference) == pytest.approx(rgb[0])


def test_levels_meet() -> None:
    models = plant_models(1)
    reference = activation_levels(models.rgb, models.labels)
    levels = activation_levels(models.motion, models.labels)
    moved = activation_levels([comparable(m, levels, reference) for m in models.motion], models.labels)
    assert moved.low == pytest.approx(reference.low)
    assert moved.high == pytest.approx(reference.high)


def test_a_class_without_a_training_video() -> None:
    with pytest.raises(ValueError, match="no training video has class 1"):
        activation_levels([np.zeros((3, 2))], np.array([[True, False]]))


def test_a_model_that_says_the_same_everywhere_is_shifted() -> None:
    labels = np.ones((1, 1), np.bool_)
    reference = activation_levels([np.array([[1.0], [5.0]])], labels)
    same = activation_levels([np.array([[7.0], [7.0]])], labels)
    assert comparable(np.array([[7.0]]), same, reference).tolist() == [[1.0]]


@pytest.mark.parametrize(("scale", "shift"), [(3.0, -6.0), (0.3, 2.0)])
def test_what_happens_without(scale: float, shift: float) -> None:
    """The models' scales spoil both the choice of clips by disparity and the sequence that is made of them."""
    models = plant_models(5, videos=120, scale=scale, shift=shift)
    reference = activation_levels(models.rgb[:60], models.labels[:60])
    levels = activation_levels(models.motion[:60], models.labels[:60])
    moved = [comparable(logits, levels, reference) for logits in models.motion]
    test = range(60, 120)

    def by_disparity(motion: Sequence[FloatArray]) -> float:
        half = [
            top_clips(disparity(*each), 0.5) for each in zip(models.rgb, motion, models.labels, strict=True)
        ]
        return selected_map(models, motion, half, test)

    rgb_only = selected_map(models, moved, [np.zeros(len(rgb), np.bool_) for rgb in models.rgb], test)
    assert by_disparity(moved) > rgb_only + 0.1
    assert by_disparity(models.motion) < by_disparity(moved) - 0.1


def test_comparable_motion_keeps_its_proposals() -> None:
    """A line that rises moves no proposal of W-TALC's, nor their order, in classes that count both ways."""
    models = plant_models(2, scale=0.5, shift=0.0)
    reference = activation_levels(models.rgb, models.labels)
    levels = activation_levels(models.motion, models.labels)
    moved = [comparable(logits, levels, reference) for logits in models.motion]
    scores, moved_scores = (
        np.stack([class_scores(logits) for logits in each]) for each in (models.motion, moved)
    )
    counted = (scores > 0) & (moved_scores > 0)
    assert counted.any()
    before = wtalc_proposals(models.motion, models.spans, np.where(counted, scores, -1))
    after = wtalc_proposals(moved, models.spans, np.where(counted, moved_scores, -1))
    assert np.array_equal(before.spans, after.spans)
    for c in range(5):
        mine = before.classes == c
        assert np.array_equal(np.argsort(before.scores[mine]), np.argsort(after.scores[mine]))


def test_disparity_is_higher_in_the_place_after_an_action() -> None:
    """Fig. 5-a: where only RGB is active, as much as in no clip where both models see the action."""
    models = plant_models(3)
    reference = activation_levels(models.rgb, models.labels)
    levels = activation_levels(models.motion, models.labels)
    foreground, background = [], []
    for video, (rgb, motion, labels) in enumerate(zip(models.rgb, models.motion, models.labels, strict=True)):
        values = disparity(rgb, comparable(motion, levels, reference), labels)
        mine = models.truth.videos == video
        inside = clip_truth(models.spans[video], models.truth.spans[mine], models.truth.classes[mine], 5).any(
            axis=1
        )
        foreground.append(values[inside])
        background.append(values[~inside])
    assert np.concatenate(background).mean() > np.concatenate(foreground).mean() + 0.05


# --- controls ---


@given(st.integers(0, 60), BETAS, SEEDS)
def test_controls_take_the_same_number_of_clips(clips: int, share: float, seed: int) -> None:
    for chosen in (random_clips(clips, share, np.random.default_rng(seed)), regular_clips(clips, share)):
        assert chosen.shape == (clips,) and chosen.dtype == np.bool_
        assert chosen.sum() == round(share * clips)


def test_random_clips_are_the_generators() -> None:
    one, same = (random_clips(50, 0.4, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(one, same)
    often = np.mean([random_clips(50, 0.4, np.random.default_rng(seed)) for seed in range(400)], axis=0)
    assert often == pytest.approx(np.full(50, 0.4), abs=0.12)


def test_every_nth_clip() -> None:
    assert np.flatnonzero(regular_clips(12, 1 / 3)).tolist() == [1, 4, 7, 10]
    assert np.flatnonzero(regular_clips(10, 0.5)).tolist() == [1, 3, 5, 7, 9]
    assert regular_clips(5, 1.0).all() and not regular_clips(5, 0.0).any()


@given(st.integers(1, 80), st.floats(0.05, 1))
def test_regular_clips_are_regular(clips: int, share: float) -> None:
    steps = np.diff(np.flatnonzero(regular_clips(clips, share)))
    assert not len(steps) or steps.max() - steps.min() <= 1


def test_frame_motion() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 3))
    unit = [row / math.sqrt(sum(row**2)) for row in rows]
    steps = [math.dist(unit[t], unit[t + 1]) for t in range(5)]
    expected = [steps[0], *((steps[t - 1] + steps[t]) / 2 for t in range(1, 5)), steps[4]]
    assert frame_motion(rows) == pytest.approx(expected)
    assert frame_motion(rows[:1]).tolist() == [0]
    assert len(frame_motion(rows[:0])) == 0


def test_clip_truth() -> None:
    spans = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])
    segments, classes = np.array([[0.5, 2.5], [3.4, 3.6], [0.0, 0.4]]), np.array([1, 0, 0])
    assert clip_truth(spans, segments, classes, 3).tolist() == [
        [False, True, False],
        [False, True, False],
        [False, False, False],
        [True, False, False],
    ]
    assert not clip_truth(spans, np.zeros((0, 2)), np.zeros(0, np.int64), 3).any()


def test_the_oracle_takes_what_gains_most_and_nothing_that_loses() -> None:
    truth = np.array([[True], [True], [False], [False]])
    rgb = np.array([[2.0], [-3.0], [1.0], [-2.0]])
    motion = np.array([[-1.0], [3.0], [-1.0], [2.0]])
    assert oracle_clips(rgb, motion, truth, 0.25).tolist() == [False, True, False, False]
    assert oracle_clips(rgb, motion, truth, 0.5).tolist() == [False, True, True, False]
    assert oracle_clips(rgb, motion, truth, 1.0).tolist() == [False, True, True, False]


def test_controls_in_the_order_that_one_expects() -> None:
    models = plant_models(4)
    reference = activation_levels(models.rgb, models.labels)
    levels = activation_levels(models.motion, models.labels)
    moved = [comparable(logits, levels, reference) for logits in models.motion]
    random = np.random.default_rng(0)
    oracle = []
    for video, (rgb, motion) in enumerate(zip(models.rgb, moved, strict=True)):
        truth = models.truth_of(range(video, video + 1))
        inside = clip_truth(models.spans[video], truth.spans, truth.classes, 5)
        oracle.append(oracle_clips(rgb, motion, inside, 0.3))
    at_random = [random_clips(len(rgb), 0.3, random) for rgb in models.rgb]
    assert selected_map(models, moved, oracle) > selected_map(models, moved, at_random) + 0.1
