"""Numbers known twice, as the papers print them and as counted, and the verdict on a printed figure."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from cache_schema.costs import OPERATIONS_PER_MAC, Convention

_SUM, _PRODUCT, _ATOM = 0, 1, 2
"""How tightly the outermost operation of a formula binds, which decides its parentheses."""


@dataclass(frozen=True)
class Quantity:
    """A cost, or a number in a formula of costs. Arithmetic applies to text, values and rounding alike.

    Attributes:
        text: the formula with the papers' figures, such as "25·7.82".
        paper: its value by the papers' figures, in their GFLOPs.
        slack: how far rounding in the papers may have moved `paper`: half a unit of each last digit, propagated.
        counted: its value as counted, in 10⁹ multiply-accumulates (MACs); nan if it depends on training.
        counted_as_printed: the same with each backbone in the unit that its printed figure seems to follow.
        units: these units; more than one is a mixture.
    """

    text: str
    paper: float
    slack: float
    counted: float
    counted_as_printed: float
    units: frozenset[Convention] = frozenset()
    binding: int = _ATOM

    def __add__(self, other: Quantity) -> Quantity:
        text = f"{self.text} + {other._inside(_SUM)}"
        return self._combined(other, operator.add, text, self.slack + other.slack, _SUM)

    def __sub__(self, other: Quantity) -> Quantity:
        text = f"{self.text} − {other._inside(_PRODUCT)}"
        return self._combined(other, operator.sub, text, self.slack + other.slack, _SUM)

    def __mul__(self, other: Quantity) -> Quantity:
        text = f"{self._inside(_PRODUCT)}·{other._inside(_PRODUCT)}"
        slack = abs(self.paper) * other.slack + abs(other.paper) * self.slack
        return self._combined(other, operator.mul, text, slack, _PRODUCT)

    def __rmul__(self, times: float) -> Quantity:
        return exact(times) * self

    def __truediv__(self, other: Quantity) -> Quantity:
        text = f"{self._inside(_PRODUCT)} / {other._inside(_ATOM)}"
        ratio = self.paper / other.paper
        slack = (self.slack + abs(ratio) * other.slack) / abs(other.paper)  # to first order
        return self._combined(other, operator.truediv, text, slack, _PRODUCT)

    def _combined(
        self, other: Quantity, operate: Callable[[float, float], float], text: str, slack: float, binding: int
    ) -> Quantity:
        return Quantity(
            text,
            operate(self.paper, other.paper),
            slack,
            operate(self.counted, other.counted),
            operate(self.counted_as_printed, other.counted_as_printed),
            self.units | other.units,
            binding,
        )

    def _inside(self, binding: int) -> str:
        return self.text if self.binding >= binding else f"({self.text})"

    @property
    def mixed(self) -> bool:
        return len(self.units) > 1


def exact(value: float) -> Quantity:
    """A number that is not rounded, such as 25 frames."""
    return Quantity(f"{value:g}", value, 0.0, value, value)


def printed(text: str, counted: float | None = None, unit: Convention | None = None) -> Quantity:
    """A number as a paper prints it, good to half a unit of its last digit.

    Args:
        counted: 10⁹ MACs, if the cost is counted, too; by default the printed number.
        unit: the unit of the paper's figure.
    """
    value = float(text)
    ours = value if counted is None else counted
    return Quantity(
        text,
        value,
        half_unit(text),
        ours,
        ours * (OPERATIONS_PER_MAC[unit] if unit else 1),
        frozenset({unit} if unit else ()),
    )


def counted_only(text: str, macs: float) -> Quantity:
    """A cost that the papers do not print, represented by its count."""
    return Quantity(text, macs / 1e9, 0.0, macs / 1e9, macs / 1e9)


def half_unit(text: str) -> float:
    """Half a unit of the last digit: 0.05 of "195.5", 0.5 of "56"."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


def percent(part: Quantity, whole: Quantity) -> Quantity:
    """`part` as a percentage of `whole`."""
    return _in_percent(part / whole)


def saved_percent(part: Quantity, whole: Quantity) -> Quantity:
    """The saving where `part` is spent instead of `whole`, as a percentage of `whole`."""
    return _in_percent(exact(1) - part / whole)


def _in_percent(ratio: Quantity) -> Quantity:
    return replace(
        ratio,
        paper=100 * ratio.paper,
        slack=100 * ratio.slack,
        counted=100 * ratio.counted,
        counted_as_printed=100 * ratio.counted_as_printed,
    )


Verdict = Literal[
    "adds up", "adds up only in mixed units", "does not add up", "needs training", "quoted from others"
]
Unit = Literal["GFLOPs", "%", "fine features"]


@dataclass(frozen=True)
class Inferred:
    """What the rest of a learned figure pays for, by the papers' figures: `value` of `what`."""

    value: Quantity
    what: str


@dataclass(frozen=True)
class Figure:
    """One figure as a paper prints it.

    Attributes:
        where: paper and table or section.
        formula: the expected value; for a learned figure the part that follows from the table's other columns, or
            None.
        learned: whether it depends on what a policy learned, or on another paper's method.
        inferred: for a learned figure, what its rest pays for.
        remark: why it does not add up, or another explanation.
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
        """A sum adds up if the printed value and the formula agree within their rounding."""
        if self.learned == "quoted":
            return "quoted from others"
        if self.learned == "training" or self.formula is None:
            return "needs training"
        difference = abs(self.formula.paper - self.value)
        if difference > self.half_width + self.formula.slack + 1e-9:
            return "does not add up"
        return "adds up only in mixed units" if self.formula.mixed else "adds up"

    @property
    def counted(self) -> float | None:
        """In 10⁹ multiply-accumulates, or the figure's own unit; None if it depends on training."""
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
        """Printed minus counted; for a learned figure, minus the part that is counted."""
        return None if self.counted is None else self.value - self.counted

    @property
    def rest(self) -> Quantity | None:
        """For a learned figure, printed minus the formula, by the papers' figures."""
        if self.learned != "training" or self.formula is None:
            return None
        return printed(self.printed) - self.formula


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
