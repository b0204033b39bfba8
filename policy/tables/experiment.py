"""What a table is: rows, each one method with the values that a paper prints for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Group = Literal["methods", "null controls"]


@dataclass(frozen=True)
class Published:
    """What a paper prints for a method on a data set: mAP in percent, cost in GFLOPs per video."""

    map_percent: float
    gflops: float


@dataclass(frozen=True)
class Experiment:
    """One row.

    Attributes:
        title: as the paper prints it.
        method: a key of `policy.runs.METHODS`; None where the method is not built yet.
        published: the paper's values by data set, a key of `datasets.DATASETS`.
        usage_of: the method whose run with the same seed says how often gates open here.
    """

    title: str
    method: str | None = None
    group: Group = "methods"
    published: Mapping[str, Published] = field(default_factory=dict)
    usage_of: str | None = None


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper.

    Attributes:
        source: the paper and the number of the table in it.
        experiments: in the paper's order, then what we add.
        emphasis: the method that the paper proposes.
    """

    name: str
    title: str
    source: str
    experiments: Sequence[Experiment]
    emphasis: str
