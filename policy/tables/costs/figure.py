"""A printed figure, what it should be, and the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from policy.tables.costs.quantity import Quantity, half_unit

Verdict = Literal[
    "adds up", "adds up only in mixed units", "does not add up", "needs training", "quoted from others"
]
Unit = Literal["GFLOPs", "%", "fine features"]


@dataclass(frozen=True)
class Inferred:
    """What the rest of a learned figure comes to, by the papers' figures: `value` of `what`."""

    value: Quantity
    what: str


@dataclass(frozen=True)
class Figure:
    """One figure as a paper prints it.

    Attributes:
        where: paper and table or section.
        formula: what it should be; of a learned figure the part that follows from its other columns; None
            where nothing does.
        learned: it depends on what a policy learned, or on another paper's method.
        inferred: of a learned figure, what its rest comes to.
        remark: why it does not add up, or what else there is to know.
        half: how far the printed value may be off, by default half a unit of its last digit.
    """

    where: str
    what: str
    printed: str
    formula: Quantity | None = None
    unit: Unit = "GFLOPs"
    learned: Literal["no", "training", "quoted"] = "no"
    inferred: Inferred | None = None
    remark: str = ""
    half: float | None = None

    @property
    def value(self) -> float:
        return float(self.printed)

    @property
    def half_width(self) -> float:
        return half_unit(self.printed) if self.half is None else self.half

    @property
    def verdict(self) -> Verdict:
        """A sum adds up where what is printed and the papers' own figures meet within their rounding."""
        if self.learned == "quoted":
            return "quoted from others"
        if self.learned == "training" or self.formula is None:
            return "needs training"
        apart = abs(self.formula.paper - self.value)
        if apart > self.half_width + self.formula.slack + 1e-9:
            return "does not add up"
        return "adds up only in mixed units" if self.formula.mixed else "adds up"

    @property
    def counted(self) -> float | None:
        """In 10⁹ multiply-accumulates, or the figure's own unit; None where only training would tell."""
        return _known(self.formula.counted) if self.formula else None

    @property
    def counted_two_per_mac(self) -> float | None:
        counted = self.counted
        return 2 * counted if counted is not None and self.unit == "GFLOPs" else None

    @property
    def counted_as_printed(self) -> float | None:
        return _known(self.formula.counted_as_printed) if self.formula else None

    @property
    def difference(self) -> float | None:
        """Printed less counted; of a learned figure, less the part that is counted."""
        return None if self.counted is None else self.value - self.counted

    @property
    def rest(self) -> float | None:
        """Of a learned figure, what the papers' own figures leave."""
        if self.learned != "training" or self.formula is None:
            return None
        return self.value - self.formula.paper

    @property
    def rest_half_width(self) -> float | None:
        if self.rest is None or self.formula is None:
            return None
        return self.half_width + self.formula.slack


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
