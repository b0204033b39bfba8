"""Ours: every policy on one cache at many budgets, without training it again, as a leaderboard."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from cache_schema.costs import stream_cost
from policy.data.batches import VideoSet
from policy.evaluation.curves import FloatArray, oracle_choices
from policy.evaluation.operating import Curve, OperatingPoint
from policy.evaluation.rehearsal import Rehearsal
from policy.method import Method
from policy.options import config_words
from policy.registry import completed, usual_recipe
from policy.sheets.sheet import Column, Picture, Sheet, Value, with_ends
from policy.sheets.words import gflops_text
from policy.tables.exhibits.areas import Outcomes, area, as_values, gain
from policy.tables.exhibits.exhibit import Exhibit, Material, Trained
from policy.tables.experiment import CONTROLS_GROUP
from policy.tables.plots.curves import Kind, Line
from policy.tables.plots.multiples import draw_multiples
from policy.tables.report import Row
from policy.training.sharing import reuse_of, shared_predictions
from policy.training.validation import calibration_videos, validation_videos

SHARES = (0.05, 0.1, 0.25, 0.5)
"""Of what the dearest point of all policies costs: the budgets of the leaderboard."""
STEPS = 30
"""A collection is spent on at so many budgets."""
PRICES = 30
"""Trade-offs of the oracle."""
ORACLE = "oracle"
VALUE = "value: what sets a point, a number of rows or looks, a threshold in log-odds, a margin or a price"

POINTS = (
    Column("policy", "policy"),
    Column("seed", "seed", 0),
    Column("value", "value", 4),
    Column("GFLOPs", "gflops", 3),
    Column("top-1 %", "top1_percent"),
)
STREAMS = (
    Column("stream", "stream"),
    Column("weights", "weights"),
    Column("GFLOPs per row", "gflops_per_row", 4),
    Column("read by", "read_by"),
)
COMMANDS = (Column("policy", "policy"), Column("command", "command"))


@dataclass(frozen=True)
class Policy:
    """What came of a row; everything by seed.

    Attributes:
        values: what sets each point.
        shared: the same policy where a collection shares a budget; empty where that was not computed.
    """

    row: Row
    curves: tuple[Outcomes, ...]
    values: tuple[tuple[float, ...], ...]
    shared: tuple[Outcomes, ...]

    @property
    def name(self) -> str:
        return self.row.title

    @property
    def is_control(self) -> bool:
        return self.row.experiment.group == CONTROLS_GROUP


def make(material: Material) -> Exhibit:
    """From all rows, each a policy or a null control."""
    policies = [_policy(material, row) for row in material.report.rows if row.built]
    high = max(float(curve.costs.max()) for policy in policies for curve in policy.curves)
    guess = _guess(material)
    from_nothing = {
        policy.name: [curve.from_nothing(guess) for curve in policy.curves] for policy in policies
    }
    areas = {
        policy.name: area(from_nothing[policy.name], (0.0, high), material.resamples) for policy in policies
    }
    policies.sort(key=lambda policy: -areas[policy.name].value)
    budgets = [share * high for share in SHARES]
    oracles = _oracles([policy for policy in policies if not policy.is_control] or policies)
    best = [curve.from_nothing(guess) for curve in oracles]
    board: list[list[Value]] = []
    for place, policy in enumerate(policies, 1):
        as_trained = material.means(policy.row.name, "gflops", "top1_percent", "map_percent")
        heights = [_height(from_nothing[policy.name], budget) for budget in budgets]
        pairs = list(zip(policy.shared, policy.curves, strict=True)) if policy.shared else []
        shared = as_values(gain(pairs, material.resamples) if pairs else None)
        board.append([place, policy.name, *as_trained, *as_values(areas[policy.name]), *heights, *shared])
    of_oracle = [_height(best, budget) for budget in budgets]
    of_best = area(best, (0.0, high), 0).value
    board.append([None, ORACLE, *[None] * 3, of_best, *[None] * 2, *of_oracle, *[None] * 3])
    drawing = draw_multiples(
        [
            _line(policy.name, _kind(policy), policy.curves, from_nothing[policy.name], high)
            for policy in policies
        ],
        _line(ORACLE, "oracle", oracles, best, high),
        **material.titles(),
    )
    alt = "Top-1 accuracy against GFLOPs per video, a small panel for each policy, in the order of the leaderboard"
    return Exhibit(
        material.report,
        (
            Sheet(material.report.heading, _columns(budgets), board),
            Sheet("What a row of each stream costs", STREAMS, [*_streams(material)]),
            Sheet("How each row is trained", COMMANDS, [*_commands(material, policies)], detail=True),
            Sheet(f"Points of each policy ({VALUE})", POINTS, [*_points(policies)], detail=True),
        ),
        (Picture(drawing.png, alt),),
        notes=(
            "A curve is one training at other thresholds, prices or numbers of rows, each found without the "
            "evaluation videos; as trained: at its own.",
            "Mixing two points, video by video, is a policy, too, and so is answering the most frequent class of "
            "the training videos, which costs nothing. So a policy is worth the convex hull of its points and of "
            "that answer: it stands at each budget, which are 5, 10, 25 and 50 % of the dearest point of all.",
            f"Area: the mean of that hull over all budgets up to {gflops_text(high)} GFLOPs; low and high are the "
            f"ends of its 95 % bootstrap interval over {material.drawn}.",
            _on_sharing(policies),
            "Ranks are by area; where intervals overlap, they say little. Oracle: for each video the cheapest "
            "point of any policy that is right, traded against cost: with hindsight, and among many points, it is "
            "hardly a bound. In the picture a line is what a policy is worth, dots are its own; grey: the others.",
        ),
    )


def _policy(material: Material, row: Row) -> Policy:
    curves, values, shared = [], [], []
    for one in material.trained(row.name):
        material.say(f"{row.title}, seed {one.config.seed}: at its budgets")
        method = one.method()
        calibration = calibration_videos(method, one.data)
        curve = method.operating_curve(one.evaluation, calibration, device=material.device)
        curves.append(Outcomes.of(curve))
        values.append(tuple(point.value for point in curve.points))
        held_out = validation_videos(method, one.data)
        if held_out is not None and (spent := _shared(method, one, curve, held_out, material)) is not None:
            shared.append(spent)
    return Policy(row, tuple(curves), tuple(values), tuple(shared) if len(shared) == len(curves) else ())


def _shared(
    method: Method, one: Trained, curve: Curve, held_out: VideoSet, material: Material
) -> Outcomes | None:
    """The collection's outcomes at the budgets of the policy's points; None of one point, or of drawn gates."""
    fitted = method.operating_curve(held_out, held_out, device=material.device)
    judged = {point.value: point for point in curve.points}
    held = [point for point in fitted.by_cost().points if point.value in judged]
    if len(held) < 2 or method.draws > 1:
        return None
    reuse = reuse_of(method, one.data.evaluation)
    rehearsal = Rehearsal.of([point.predictions for point in held], reuse)
    values = [point.value for point in held]
    alike = replace(curve, points=tuple(judged[value] for value in values))
    budgets = [float(point.predictions.gflops.mean()) for point in held]
    sharing = [rehearsal.sharing(budget, values) for budget in budgets]
    shared = [
        OperatingPoint(budget, shared_predictions(each, alike, reuse))
        for budget, each in zip(budgets, sharing, strict=True)
    ]
    return Outcomes.of(Curve(curve.name, tuple(shared)))


def _oracles(policies: Sequence[Policy]) -> list[Outcomes]:
    """By seed, the best choice among the points of all policies for each video."""
    found = []
    for curves in zip(*(policy.curves for policy in policies), strict=True):
        gflops = np.concatenate([curve.gflops for curve in curves])
        correct = np.concatenate([curve.correct for curve in curves]) > 0.5
        _, choices = oracle_choices(gflops, correct, PRICES)
        videos = np.arange(gflops.shape[1])
        found.append(
            Outcomes(gflops[choices, videos], correct[choices, videos].astype(np.float64), curves[0].groups)
        )
    return found


def _guess(material: Material) -> FloatArray:
    """(M,): whether the class that most training videos have is one of a video's."""
    data = material.trained(material.report.rows[0].name)[0].data
    return data.evaluation.labels[:, data.train.labels.sum(axis=0).argmax()].astype(np.float64)


def _height(curves: Sequence[Outcomes], budget: float) -> float:
    """Mean over seeds."""
    return float(np.mean([curve.height(budget) for curve in curves]))


def _columns(budgets: Sequence[float]) -> list[Column]:
    return [
        Column("rank", "rank", 0),
        Column("policy", "policy"),
        Column("GFLOPs", "gflops", 2, heading="as trained"),
        Column("top-1 %", "top1_percent", heading="as trained"),
        Column("mAP %", "map_percent", heading="as trained"),
        *with_ends(Column("mean", "area_percent", heading="area %")),
        *(
            Column(gflops_text(budget), f"top1_percent_at_{share:g}", heading="top-1 % at GFLOPs")
            for share, budget in zip(SHARES, budgets, strict=True)
        ),
        *with_ends(Column("gain", "shared_gain", 2, heading="shared, points")),
    ]


def _kind(policy: Policy) -> Kind:
    return "control" if policy.is_control else "proposed" if policy.row.experiment.emphasised else "baseline"


def _line(
    name: str, kind: Kind, curves: Sequence[Outcomes], from_nothing: Sequence[Outcomes], high: float
) -> Line:
    """All points of all seeds, and what the policy is worth from the cheapest of them on, mean over seeds."""
    points = sorted(
        (float(cost), float(top1))
        for curve in curves
        for cost, top1 in zip(curve.costs, curve.top1, strict=True)
    )
    budgets = np.geomspace(points[0][0], max(high, points[0][0]), STEPS)
    hull = [(float(budget), _height(from_nothing, budget)) for budget in budgets]
    return Line(name, kind, [x for x, _ in points], [y for _, y in points], hull=hull)


def _points(policies: Sequence[Policy]) -> Iterator[list[Value]]:
    for policy in policies:
        for seed, curve, values in zip(count(), policy.curves, policy.values, strict=False):
            for value, cost, top1 in zip(values, curve.costs, curve.top1, strict=True):
                yield [policy.name, seed, value, float(cost), float(top1)]


def _streams(material: Material) -> Iterator[list[Value]]:
    """What a row of each stream costs, and which rows read it."""
    read_by: dict[str, list[str]] = {}
    for row in material.report.rows:
        for stream in material.order.requests[row.name].config.stream_names():
            read_by.setdefault(stream, []).append(row.title)
    everywhere = len(material.report.rows)
    for name, titles in read_by.items():
        spec = material.order.source.cache[name].spec
        readers = "all" if len(titles) == everywhere else ", ".join(titles)
        yield [name, spec.weights, float(stream_cost(spec).macs / 1e9), readers]


def _commands(material: Material, policies: Sequence[Policy]) -> Iterator[list[Value]]:
    """The command that trains each row's first seed, from what `train-policy` does by itself."""
    setting = material.order.setting
    data = ["--cache", str(setting.cache.folder), "--labels", str(setting.labels.source)]
    for policy in policies:
        config = material.order.requests[policy.row.name].config
        streams = {name: getattr(config, name) for name in ("coarse", "fine") if hasattr(config, name)}
        usual = completed(config.method, streams, usual_recipe(config.method))
        given = [word for role, stream in streams.items() for word in (f"--{role}", str(stream))]
        words = [*data, *given, *config_words(config, usual), "--out", f"runs/{policy.row.name}"]
        yield [policy.name, shlex.join(["train-policy", config.method, *words])]


def _on_sharing(policies: Sequence[Policy]) -> str:
    if not any(policy.shared for policy in policies):
        return (
            "No policy was spent on the collection as a whole: how sure its answers are is found on videos that "
            "were held out from its training; give --validation 0.2 or --validation-subset."
        )
    return (
        "Shared: by how much the collection gains where its videos share a budget, spent where the answers so far "
        "promise most (docs/policies.md), above the same policy spent alike on all of them, over all budgets; how "
        "sure its answers are is found on the validation videos. –: a single point, drawn gates, or "
        "no such videos."
    )
