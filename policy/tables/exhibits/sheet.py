"""A plain table of names and numbers, the same for every form of output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NO_VALUE = "–"

Value = str | float | int | None


@dataclass(frozen=True)
class Column:
    """Attributes:
    key: in CSV and JSON.
    decimals: of a float as it is shown.
    """

    title: str
    key: str
    decimals: int = 1


@dataclass(frozen=True)
class Sheet:
    """Attributes:
    rows: a value per column; None is a value that does not exist.
    notes: below the table, a sentence each.
    detail: it is long: it comes after all that is said of the others, and terminals and LaTeX do not have it.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    notes: Sequence[str] = ()
    detail: bool = False

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"{self.title}: rows and columns do not fit")

    @property
    def header(self) -> list[str]:
        return [column.title for column in self.columns]

    @property
    def words(self) -> list[list[str]]:
        """The rows as they are shown."""
        return [
            [_shown(value, column) for value, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]

    @property
    def numeric(self) -> list[bool]:
        """Per column, whether it holds numbers."""
        return [
            not any(isinstance(row[place], str) for row in self.rows) for place in range(len(self.columns))
        ]


def _shown(value: Value, column: Column) -> str:
    if value is None:
        return NO_VALUE
    return f"{value:.{column.decimals}f}" if isinstance(value, float) else str(value)
