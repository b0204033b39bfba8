"""A budget that the videos of a collection share."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from policy.evaluation.collection import Chances, Costs, Rule, Sharing, Steps, looks
from policy.evaluation.ledger import Ledger
from policy.evaluation.predictions import Predictions
from policy.evaluation.rehearsal import Rehearsal
from policy.evaluation.reuse import Reuse

Floats = npt.NDArray[np.float64]


def test_what_an_answer_looks_like() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]])
    sure, certain = looks(scores)
    entropy = -sum(p * np.log(p) for p in scores[0])
    assert sure == pytest.approx([np.log(0.7 / 0.3), np.log(0.7 / 0.2), entropy])
    assert certain[0] > sure[0] and certain[1] > sure[1] and certain[2] < sure[2]


@given(
    arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(0, 1, width=32))
)
def test_every_answer_has_finite_looks(scores: npt.NDArray[np.float32]) -> None:
    assert np.isfinite(looks(scores)).all()


def drawn(
    random: np.random.Generator, points: int, videos: int
) -> tuple[list[Floats], npt.NDArray[np.bool_]]:
    """Looks, and answers that are right the oftener the surer they look, and the dearer the point."""
    looked = [random.normal(0, 2, (videos, 3)) + point for point in range(points)]
    right = np.stack([random.random(videos) < 1 / (1 + np.exp(-each[:, 0])) for each in looked])
    return looked, right


def test_chances_are_calibrated() -> None:
    random = np.random.default_rng(0)
    chances = Chances.fit(*drawn(random, 2, 4000))
    looked, right = drawn(random, 2, 4000)
    now, later = chances.at(0, looked[0])
    for low in (0.1, 0.4, 0.7):
        bin_of = (now > low) & (now < low + 0.2)
        assert right[0][bin_of].mean() == pytest.approx(now[bin_of].mean(), abs=0.05)
    assert later.mean() == pytest.approx(right[1].mean(), abs=0.03)


def test_a_point_that_is_always_right_has_a_chance_below_one() -> None:
    chances = Chances.fit([np.zeros((8, 3))] * 2, np.array([[False] * 8, [True] * 8]))
    assert chances.at(0, np.zeros((1, 3))).ravel() == pytest.approx([1 / 10, 9 / 10])


def naive(chances: Chances, looked: list[Floats], extra: Floats, rule: Rule) -> list[tuple[int, int, float]]:
    """The greedy rule with plain loops: of all videos and points the step that pays most, again and again."""
    points, videos = len(looked), len(looked[0])
    at = [rule.start] * videos
    steps: list[tuple[int, int, float]] = []
    while True:
        best: tuple[float, int, int, float] | None = None
        for video in range(videos):
            seen = at[video] if rule.further else rule.start
            chance = chances.at(seen, looked[seen][video : video + 1])[:, 0]
            for point in range(at[video] + 1, points):
                gain = chance[point - seen] - chance[at[video] - seen]
                paid = extra[seen, at[video], video] if at[video] > seen else 0
                cost = extra[seen, point, video] - paid
                if gain > 0 and (best is None or gain / cost > best[0]):
                    best = gain / cost, video, point, cost
        if best is None:
            return steps
        _, video, point, cost = best
        steps.append((video, point, float(cost)))
        at[video] = point


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("further", [True, False])
def test_the_step_that_pays_most_comes_first(further: bool, start: int) -> None:
    random = np.random.default_rng(1)
    chances = Chances.fit(*drawn(random, 4, 200))
    looked, _ = drawn(random, 4, 12)
    totals = np.cumsum(random.uniform(0.5, 2, (4, 12)), axis=0)
    extra = np.maximum(totals[None] - totals[:, None], 0)
    rule = Rule(start, further)
    chance = [chances.at(point, each) for point, each in enumerate(looked)]
    steps = rule.steps(chance, extra, extra)
    expected = naive(chances, looked, extra, rule)
    assert [*zip(steps.videos, steps.points, steps.costs.round(9), strict=True)] == [
        (video, point, pytest.approx(cost)) for video, point, cost in expected
    ]
    assert (np.diff(steps.prices) <= 0).all()
    for taken in range(len(expected) + 1):
        at = [start] * 12
        for video, point, _ in expected[:taken]:
            at[video] = point
        assert steps.ends(taken, start, 12).tolist() == at


def test_steps_of_one_price_are_taken_together() -> None:
    steps = Steps(np.array([3.0, 2.0, 2.0, 1.0]), np.arange(4), np.ones(4, np.int64), np.ones(4))
    assert [steps.within(budget) for budget in (0.5, 1, 2, 3, 4, 9)] == [0, 1, 1, 3, 4, 4]


def collection(random: np.random.Generator, videos: int) -> list[Predictions]:
    """Two points: half of the videos are right at once and look so; the others are so at the dear point alone."""
    easy = np.arange(videos) < videos / 2
    sure = np.where(easy, random.uniform(0.8, 1.0, videos), random.uniform(0.4, 0.6, videos))
    cheap = np.stack([sure, 1 - sure], axis=1)
    labels = np.stack([easy, ~easy], axis=1)  # the second class, where it is not right at once
    cheap[~easy & (sure < 0.5)] = cheap[~easy & (sure < 0.5)][:, ::-1]
    dear = np.where(labels, 0.95, 0.05)
    return [at_cost(cheap, labels, np.ones(videos)), at_cost(dear, labels, np.full(videos, 10.0))]


def at_cost(scores: Floats, labels: npt.NDArray[np.bool_], gflops: Floats) -> Predictions:
    """Of videos of one row."""
    videos = len(scores)
    return Predictions(
        tuple(map(str, range(videos))),
        labels,
        scores.astype(np.float32)[None],
        np.arange(videos + 1),
        np.zeros((1, videos), np.uint8),
        np.ones(videos, np.int64),
        Ledger({"a network": (gflops * 1e9).astype(np.int64)[None]}),
    )


@pytest.mark.parametrize("further", [True, False])
def test_what_is_unsure_gets_the_budget(further: bool) -> None:
    random, reuse = np.random.default_rng(0), Reuse(further)
    rehearsal = Rehearsal.of(collection(random, 400), reuse)
    points = collection(random, 400)
    looked = [looks(each.class_probabilities) for each in points]
    for share in (0.2, 0.4):
        budget = 1 + share * (9 if further else 10)
        sharing = rehearsal.sharing(budget, [0.0, 1.0])
        shared = reuse.answered(points, 0, sharing.last_points(looked, points[0].lengths))
        assert shared.gflops.mean() == pytest.approx(budget, rel=0.15)
        assert shared.top1() > 0.5 + 0.5 * share + 0.1  # the same budget, spent on videos at random


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.booleans(), st.integers(0, 99), st.floats(0, 1.2))
def test_a_price_keeps_a_budget(points: int, further: bool, seed: int, share: float) -> None:
    """Of the videos on which it is found: what they spend is within the budget, and a step more is not."""
    random = np.random.default_rng(seed)
    videos = 30
    labels = np.eye(3, dtype=np.bool_)[random.integers(0, 3, videos)]
    totals = np.cumsum(random.integers(1, 3, (points, videos)), axis=0).astype(np.float64)
    answers = [at_cost(random.dirichlet(np.ones(3), videos), labels, total) for total in totals]
    reuse = Reuse(incremental=further)
    rehearsal = Rehearsal.of(answers, reuse)
    budget = float(totals[0].mean() + share * (totals[-1] - totals[0] + 1).mean())
    sharing = rehearsal.sharing(budget, range(points))
    looked = [looks(answer.class_probabilities) for answer in answers]
    ends = sharing.last_points(looked, answers[0].lengths)
    spent = reuse.answered(answers, sharing.rule.start, ends).gflops[0]
    assert spent.mean() <= budget * (1 + 1e-9)
    chance = [sharing.chances.at(point, each) for point, each in enumerate(looked)]
    steps = sharing.rule.steps(chance, sharing.costs.of(answers[0].lengths), rehearsal.extra)
    taken = steps.prices >= sharing.price
    assert ends.tolist() == steps.ends(int(taken.sum()), sharing.rule.start, videos).tolist()
    if not taken.all():
        next_price = steps.prices == steps.prices[~taken].max()
        assert spent.sum() + steps.costs[next_price].sum() > budget * videos * (1 - 1e-9)
    again = Sharing.from_json(json.loads(json.dumps(sharing.as_json())))
    assert again.last_points(looked, answers[0].lengths).tolist() == ends.tolist()


def test_groups_are_judged_by_regressions_that_have_not_seen_them() -> None:
    """Of two groups, what is right in one is wrong in the other: unseen, they look like each other."""
    sure = np.tile([0.6, 0.9], 20)
    is_first = np.repeat([True, False], 20)
    correct = (sure > 0.7) == is_first
    scores = np.stack([sure, 1 - sure], axis=1)
    labels = np.stack([correct, ~correct], axis=1)
    answers = at_cost(scores, labels, np.ones(40))
    apart = replace(answers, groups=tuple(np.where(is_first, "a", "b")))
    unseen = Rehearsal.of([apart], Reuse(True)).unseen[0][0]
    assert np.corrcoef(unseen, correct)[0, 1] < -0.9


def predictions(gates: list[int], coarse: list[int], network: int) -> Predictions:
    """Of two videos of two and three rows; a row of either stream costs 10⁹ MACs."""
    fine_rows, coarse_rows = np.array([gates], np.uint8), np.array([coarse], np.bool_)
    counts = [np.add.reduceat(rows.astype(np.int64), [0, 2], axis=1) for rows in (fine_rows, coarse_rows)]
    macs = {
        "fine_224": counts[0] * 10**9,
        "coarse_112": counts[1] * 10**9,
        "a network": np.full((1, 2), network * 10**9),
    }
    return Predictions(
        ("a", "b"),
        np.ones((2, 1), np.bool_),
        np.ones((1, 2, 1), np.float32),
        np.array([0, 2, 5]),
        fine_rows,
        np.array([2, 3]),
        Ledger(macs),
        ran={"coarse_112": coarse_rows},
    )


ALL = [1, 1, 1, 1, 1]


def test_rows_that_are_there_are_not_computed_again() -> None:
    beside = Reuse(incremental=False, gated="fine_224")
    cheap, dear = predictions([1, 0, 0, 0, 1], ALL, 1), predictions([1, 1, 1, 1, 0], ALL, 1)
    extra = beside.extra_gflops([cheap, dear])
    assert extra[0, 1] == pytest.approx([1 + 1, 2 + 1])  # fine rows that are new, and the network again
    fewer = predictions([1, 0, 0, 0, 1], [0, 1, 1, 0, 0], 1)  # coarse rows, too
    assert beside.extra_gflops([fewer, dear])[0, 1] == pytest.approx([1 + 1 + 1, 2 + 2 + 1])
    goes_on = Reuse(incremental=True).extra_gflops([cheap, dear])
    assert goes_on[0, 1] == pytest.approx(dear.gflops[0] - cheap.gflops[0])


def test_answers_at_the_points_where_videos_end() -> None:
    cheap, dear = predictions([1, 0, 0, 0, 1], ALL, 1), predictions([1, 1, 1, 1, 0], ALL, 1)
    dear = replace(dear, scores=np.full_like(dear.scores, 0.5))
    beside = Reuse(incremental=False, gated="fine_224")
    found = beside.answered([cheap, dear], 0, np.array([0, 1]))
    assert found.scores[0].tolist() == [[1.0], [0.5]]
    assert found.gates[0].tolist() == [1, 0, 1, 1, 1]  # of the second video, rows of both points
    assert found.gflops[0] == pytest.approx([2 + 1 + 1, 3 + 3 + 2])
    goes_on = Reuse(incremental=True).answered([cheap, dear], 0, np.array([0, 1]))
    assert goes_on.gates[0].tolist() == [1, 0, 1, 1, 0]
    assert goes_on.gflops[0] == pytest.approx([cheap.gflops[0, 0], dear.gflops[0, 1]])


def test_costs_follow_the_length_of_a_video() -> None:
    lengths = np.array([2, 4, 10])
    extra = np.zeros((2, 2, 3))
    extra[0, 1] = 1 + 0.5 * lengths
    costs = Costs.fit(extra, lengths)
    assert costs.of(np.array([6, 1]))[0, 1] == pytest.approx([4.0, 1.5])
    alike = Costs.fit(np.full((1, 1, 3), 6.0), np.array([3, 3, 3]))
    assert alike.of(np.array([3]))[0, 0] == pytest.approx([6.0])
    falling = Costs.fit(np.stack([[[4.0, 2.0, 1.0]]]), lengths)
    assert (falling.of(np.array([1000]))[0, 0] > 0).all()
