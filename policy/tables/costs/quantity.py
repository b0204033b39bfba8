"""Numbers that are known twice: as the papers print them, and as counted."""

from __future__ import annotations

from dataclasses import dataclass

from cache_schema.costs import OPERATIONS_PER_MAC, Convention

_SUM, _PRODUCT, _ATOM = 0, 1, 2
"""How tightly a formula's text holds together, for its parentheses."""


@dataclass(frozen=True)
class Quantity:
    """A cost, or a number in a formula of costs. Arithmetic keeps all of its sides in step.

    Attributes:
        text: the formula with the papers' figures, such as "25·7.82".
        paper: its value by the papers' figures, in their GFLOPs.
        slack: how far `paper` may be off because the papers round: half a unit of each last digit, carried on.
        counted: its value as counted, in 10⁹ multiply-accumulates (MACs); nan where only training would tell.
        counted_as_printed: the same with each backbone in the unit that its printed figure seems to follow.
        units: those units; more than one is a mixture.
    """

    text: str
    paper: float
    slack: float
    counted: float
    counted_as_printed: float
    units: frozenset[Convention] = frozenset()
    binding: int = _ATOM

    def __add__(self, other: Quantity) -> Quantity:
        return self._sum(other, "+", 1)

    def __sub__(self, other: Quantity) -> Quantity:
        return self._sum(other, "−", -1)

    def __mul__(self, other: Quantity) -> Quantity:
        return Quantity(
            f"{self._inside(_PRODUCT)}·{other._inside(_PRODUCT)}",
            self.paper * other.paper,
            abs(self.paper) * other.slack + abs(other.paper) * self.slack,
            self.counted * other.counted,
            self.counted_as_printed * other.counted_as_printed,
            self.units | other.units,
            _PRODUCT,
        )

    def __rmul__(self, times: float) -> Quantity:
        return exact(times) * self

    def __truediv__(self, other: Quantity) -> Quantity:
        ratio = self.paper / other.paper
        return Quantity(
            f"{self._inside(_PRODUCT)} / {other._inside(_ATOM)}",
            ratio,
            (self.slack + abs(ratio) * other.slack) / abs(other.paper),  # to first order
            self.counted / other.counted,
            self.counted_as_printed / other.counted_as_printed,
            self.units | other.units,
            _PRODUCT,
        )

    def _sum(self, other: Quantity, sign: str, factor: int) -> Quantity:
        return Quantity(
            f"{self.text} {sign} {other._inside(_SUM if factor == 1 else _PRODUCT)}",
            self.paper + factor * other.paper,
            self.slack + other.slack,
            self.counted + factor * other.counted,
            self.counted_as_printed + factor * other.counted_as_printed,
            self.units | other.units,
            _SUM,
        )

    def _inside(self, binding: int) -> str:
        return self.text if self.binding >= binding else f"({self.text})"

    @property
    def mixed(self) -> bool:
        return len(self.units) > 1


def exact(value: float) -> Quantity:
    """A number that nobody rounded, such as 25 frames."""
    return Quantity(f"{value:g}", value, 0.0, value, value)


def printed(text: str, counted: float | None = None, unit: Convention | None = None) -> Quantity:
    """A number as a paper prints it, good to half a unit of its last digit.

    Args:
        counted: 10⁹ MACs, for a cost that is counted too. Elsewhere the number stands for itself.
        unit: what the paper's figure counts.
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
    """A cost that the papers do not print: the count stands in for it."""
    return Quantity(text, macs / 1e9, 0.0, macs / 1e9, macs / 1e9)


def half_unit(text: str) -> float:
    """Half a unit of the last digit: 0.05 of "195.5", 0.5 of "56"."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


def percent(part: Quantity, whole: Quantity) -> Quantity:
    """part as a percentage of whole."""
    return _in_percent(part / whole)


def saved_percent(part: Quantity, whole: Quantity) -> Quantity:
    """What is saved where part is spent and not whole, as a percentage of whole."""
    return _in_percent(exact(1) - part / whole)


def _in_percent(ratio: Quantity) -> Quantity:
    return Quantity(
        ratio.text,
        100 * ratio.paper,
        100 * ratio.slack,
        100 * ratio.counted,
        100 * ratio.counted_as_printed,
        ratio.units,
        ratio.binding,
    )
