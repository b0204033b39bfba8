"""What decisions cost and on what, in multiply-accumulates (MACs; both papers call 10⁹ of them a GFLOP).

Backbones come from the cost table (`cache_schema.costs`), per row that was really computed; a policy's own
networks count theirs (`policy.networks.macs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


class Ledger(Mapping[str, IntArray]):
    """MACs of M videos by the name of the stream or network that they were spent on.

    A stream has its name in the cache. The name of a method's own network has a space in it, which no stream's may
    have: "LiteEval networks". What cost nothing may be left out.

    Args:
        macs: name -> (M,) int64, or (R, M) for R draws; of at least one stream or network, all of one shape.

    Raises:
        ValueError: there is none, or shapes differ.
    """

    def __init__(self, macs: Mapping[str, IntArray]) -> None:
        self._macs = {name: np.asarray(spent, np.int64) for name, spent in macs.items()}
        if len({spent.shape for spent in self._macs.values()}) != 1:
            raise ValueError("a ledger has at least one entry, and all entries are of one shape")

    @staticmethod
    def summed(parts: Iterable[Mapping[str, IntArray]]) -> Ledger:
        """All parts; of a name that several have, the sum."""
        macs: dict[str, IntArray] = {}
        for part in parts:
            macs |= {name: macs[name] + spent if name in macs else spent for name, spent in part.items()}
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
        return {name: float(spent.mean() / 1e9) for name, spent in self._macs.items()}

    def __getitem__(self, name: str) -> IntArray:
        return self._macs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._macs)

    def __len__(self) -> int:
        return len(self._macs)


def charge(streams: Iterable[tuple[str, IntArray, int]], networks: Mapping[str, IntArray]) -> Ledger:
    """Charge each of M videos for the rows that were computed for it, and for the policy's own networks.

    Args:
        streams: of each its name, (M,) rows on which its backbone ran, and the backbone's MACs for one row.
        networks: (M,) MACs by name.
    """
    return Ledger.summed([*({name: rows * macs} for name, rows, macs in streams), networks])
