"""The per-backbone cost table, in both conventions.

A *MAC* is one multiply-accumulate. Both papers call 10⁹ MACs a "GFLOP" (except, it seems, for I3D); counting
the multiplication and the addition apart gives twice as many. Costs are kept as MACs; a convention is chosen
where they are shown.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Literal

import numpy as np

from cache_schema.schema import Sampling, StreamSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Convention = Literal["mac", "flop"]
OPERATIONS_PER_MAC: Mapping[Convention, int] = {"mac": 1, "flop": 2}


def gflops(macs: float, convention: Convention = "mac") -> float:
    """10⁹ operations: the papers' unit with "mac", two operations per multiply-accumulate with "flop"."""
    return macs * OPERATIONS_PER_MAC[convention] / 1e9


def gflops_digits(gflops: float, digits: int = 4) -> str:
    """GFLOPs for people: so many significant digits at most, and never an exponent."""
    return np.format_float_positional(gflops, digits, unique=False, fractional=False, trim="-")


_SIZE = re.compile(r"\d+px")


@dataclass(frozen=True)
class Cost:
    """One backbone: what a row costs, and what the papers print for it.

    Attributes:
        macs: counted multiply-accumulates for one row, up to the features.
        paper: the papers' figure in their GFLOPs, where they give one.
        paper_unit: the convention that the papers' figure seems to follow.
        sampling: what a row of the built-in stream sees.
    """

    stream: str
    title: str
    macs: int
    paper: float | None = None
    paper_unit: Convention = "mac"
    sampling: Sampling = field(default_factory=Sampling)

    def gflops(self, convention: Convention = "mac") -> float:
        return gflops(self.macs, convention)


@cache
def cost_table() -> Mapping[str, Cost]:
    """The costs of the built-in streams by stream name, from costs.toml beside this file."""
    with resources.files("cache_schema").joinpath("costs.toml").open("rb") as file:
        raw = tomllib.load(file)
    return {
        stream: Cost(**{**entry, "stream": stream, "sampling": Sampling(**entry.get("sampling", {}))})
        for stream, entry in raw.items()
    }


def built_in_cost(stream: str) -> Cost | None:
    """The table's cost of a stream, if it has one; another rate ("x3d_m@3clips") does not change it, another input
    size ("x3d_m@160px") does."""
    name, *changes = stream.split("@")
    return None if any(_SIZE.fullmatch(change) for change in changes) else cost_table().get(name)


def stream_cost(spec: StreamSpec) -> Cost:
    """The cost of one row: from the table if the stream is built in, else as counted when it was extracted."""
    # Three crops are larger ones.
    known = None if spec.sampling.crops > 1 else built_in_cost(spec.name)
    return known or Cost(stream=spec.name, title=spec.name, macs=spec.macs_per_row)
