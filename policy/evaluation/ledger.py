"""Costs by stream and network, in multiply-accumulates (MACs; both papers call 10⁹ of them a GFLOP).

Backbones are charged by the cost table (`cache_schema.costs`) for each row that is computed; a policy's own
networks count theirs (`policy.networks.macs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


class Ledger(Mapping[str, IntArray]):
    """MACs of M videos by the name of a stream or network.

    A stream has its name in the cache. The name of a method's network has a space in it, which that of a stream
    may not have: "LiteEval networks". What cost nothing may be left out.

    Args:
        macs: name -> (M,) int64, or (R, M) for R draws; of at least one stream or network, all of one shape.

    Raises:
        ValueError: there is none, or shapes differ.
    """

    def __init__(self, macs: Mapping[str, IntArray]) -> None:
        self._macs = {name: np.asarray(array, np.int64) for name, array in macs.items()}
        if len({array.shape for array in self._macs.values()}) != 1:
            raise ValueError("a ledger has at least one entry, and all entries are of one shape")

    @staticmethod
    def summed(parts: Iterable[Mapping[str, IntArray]]) -> Ledger:
        """All parts; a name that several have gets the sum."""
        macs: dict[str, IntArray] = {}
        for part in parts:
            macs |= {name: macs[name] + array if name in macs else array for name, array in part.items()}
        return Ledger(macs)

    @staticmethod
    def of_draws(draws: Sequence[Ledger]) -> Ledger:
        """(M,) of each of R draws, which have the same names, to (R, M)."""
        return Ledger({name: np.stack([draw[name] for draw in draws]) for name in draws[0]})

    @property
    def total(self) -> IntArray:
        """(M,) or (R, M): of all names."""
        return np.asarray(sum(self._macs.values()), np.int64)

    @property
    def gflops(self) -> dict[str, float]:
        """10⁹ MACs by name, means over videos (and draws)."""
        return {name: float(array.mean() / 1e9) for name, array in self._macs.items()}

    def __getitem__(self, name: str) -> IntArray:
        return self._macs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._macs)

    def __len__(self) -> int:
        return len(self._macs)


def charge(streams: Iterable[tuple[str, IntArray, int]], networks: Mapping[str, IntArray]) -> Ledger:
    """Charge each of M videos for the rows that were computed for it, and for the policy's networks.

    Args:
        streams: for each its name, (M,) numbers of rows on which its backbone ran, and the MACs of one row.
        networks: (M,) MACs by name.
    """
    return Ledger.summed([*({name: rows * macs} for name, rows, macs in streams), networks])
