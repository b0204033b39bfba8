"""Whether a table shows what LiteEval is for, claim by claim, on whatever data it is of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policy.sheets.words import gflops_text
from policy.tables.experiment import MEASURES
from policy.tables.report import Report, Row

MARGIN_POINTS = 2.0
"""Of accuracy: nearer than that is as good, further away is clearly better."""
COST_SHARE = 0.5
SAME_COST = 1.02
"""Costs up to this ratio are the same: random gates hit their usage by chance."""


@dataclass(frozen=True)
class Verdict:
    """A claim, with the numbers that decide it."""

    holds: bool
    claim: str

    def __str__(self) -> str:
        return f"{'Yes' if self.holds else 'NO'}: {self.claim}."


def verdicts(report: Report) -> tuple[Verdict, ...]:
    """Those of a table that has them and whose row of LiteEval was built."""
    built = [row for row in report.rows if row.built]
    ours = next((row for row in built if row.experiment.emphasised), None)
    if not report.table.verdicts or ours is None:
        return ()
    return tuple(_verdicts(report, ours, [row for row in built if row is not ours]))


def _verdicts(report: Report, ours: Row, others: list[Row]) -> Iterator[Verdict]:
    measure = report.table.accuracy
    name = MEASURES[measure].removesuffix(" %")
    title = ours.title

    def accuracy(row: Row) -> float:
        return row.measures[measure].mean

    def gflops(row: Row) -> float:
        return row.measures["gflops"].mean

    def of_method(method: str) -> Row | None:
        return next((row for row in others if row.experiment.method == method), None)

    if (rival := of_method("lstm-cf")) is not None:
        yield Verdict(
            accuracy(rival) - accuracy(ours) <= MARGIN_POINTS,
            f"{title} is within {MARGIN_POINTS:g} points of {rival.title}: {name} {accuracy(ours):.1f} to "
            f"{accuracy(rival):.1f}",
        )
        share = gflops(ours) / gflops(rival)
        yield Verdict(
            share <= COST_SHARE,
            f"{title} costs no more than {COST_SHARE:.0%} of {rival.title}'s GFLOPs: {share:.0%} of them",
        )
    if (chance := of_method("random-gating")) is not None:
        above = accuracy(ours) - accuracy(chance)
        yield Verdict(
            above >= MARGIN_POINTS,
            f"{title} is clearly above gates that open at random as often: {_apart(above)} of {name}",
        )
    as_good = [
        f"{row.title} ({accuracy(row):.1f} at {gflops_text(gflops(row))} GFLOPs)"
        for row in others
        # LiteEval-RL is the same network, its gates learned in another way.
        if row.experiment.method != "liteeval-rl"
        and gflops(row) <= SAME_COST * gflops(ours)
        and accuracy(row) >= accuracy(ours)
    ]
    at = f"{accuracy(ours):.1f} at {gflops_text(gflops(ours))} GFLOPs"
    found = f"; as good for no more are {', '.join(as_good)}" if as_good else ""
    yield Verdict(
        not as_good, f"No baseline or control is as good as {title} ({at}) for no more GFLOPs{found}"
    )


def _apart(points: float) -> str:
    """By how much one is above the other, in words."""
    apart = round(points, 1)
    if not apart:
        return "they are level to a tenth of a point"
    return f"by {apart:.1f} points" if apart > 0 else f"it is below them by {-apart:.1f} points"
