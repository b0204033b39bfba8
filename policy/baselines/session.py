"""Baselines on raw video: rows that are known beforehand, of each stream, then one prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cache_schema import StreamSpec
from cache_schema.costs import stream_cost
from policy.data.batches import Role, every_row, uniform_rows, unit_length
from policy.session import AlignedSession, Graph, IntArray, Wanted


def graph_facts(specs: Mapping[Role, StreamSpec], rows: int | str) -> dict[str, object]:
    """What one must know to use an exported baseline.

    Args:
        rows: how many rows of a video it looks at, or "all".
    """
    return {
        "streams": {role: spec.name for role, spec in specs.items()},
        "rows": rows,
        "input_scaling": "inside: rows as the backbones give them",
    }


class FixedRowsSession(AlignedSession):
    """Wants its rows of all streams, in turn. Its answer is from the rows of which all streams were taken.

    Args:
        specs: of the streams that it reads.
        frames: how many evenly spaced rows of a video it looks at; None: at all.
        predict: from the rows (n, D) of each stream, n at least 1, class probabilities (C,).
        network_macs: from the number of rows to the MACs of the networks, by name.
        scored: the roles of which it reads class scores (n, C') instead of features.
        l2: features are brought to length 1 first.
        graphs: makes those for other runtimes.
    """

    def __init__(
        self,
        specs: Mapping[Role, StreamSpec],
        classes: tuple[str, ...],
        *,
        frames: int | None,
        predict: Callable[[Mapping[Role, Tensor]], Tensor],
        network_macs: Callable[[IntArray], Mapping[str, IntArray]],
        scored: Collection[Role] = (),
        l2: bool = False,
        graphs: Callable[[], Sequence[Graph]] = tuple,
    ) -> None:
        super().__init__({spec.name: spec for spec in specs.values()}, classes)
        self._specs, self._predict, self._network_macs = specs, predict, network_macs
        self._frames = None if frames is None else torch.tensor(frames)
        self._scored, self._l2, self._graphs = scored, l2, graphs
        self._restart()

    def _restart(self) -> None:
        self._taken = dict.fromkeys(self.streams, 0)
        self._parts: dict[Role, list[Tensor]] = {role: [] for role in self._specs}

    def wanted(self) -> Wanted | None:
        if not self._spans_s:
            return None
        name = min(self._taken, key=lambda name: self._taken[name])
        spans_s = self._spans_s[name]
        length = len(spans_s)
        rows = every_row(length) if self._frames is None else uniform_rows(length, int(self._frames))
        rows = rows[self._taken[name] :]
        return Wanted(name, rows, spans_s[rows]) if len(rows) else None

    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        parts: dict[Role, Tensor] = {}
        for role, spec in self._specs.items():
            if spec.name != stream:
                continue
            if role in self._scored:
                parts[role] = self._need(stream, "class scores", scores).float()
            else:
                rows = self._need(stream, "features", features).float()
                parts[role] = torch.from_numpy(unit_length(rows.cpu().numpy())).float() if self._l2 else rows
        for role, part in parts.items():
            self._parts[role].append(part)
        self._taken[stream] += len(next(iter(parts.values())))

    @property
    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """(C,): of the classes; the same for all until a row was taken."""
        count = min(self._taken.values())
        if not count:
            return torch.full((len(self.classes),), 1 / len(self.classes))
        return self._predict({role: torch.cat(parts)[:count] for role, parts in self._parts.items()}).cpu()

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        count = min(self._taken.values())
        macs: Counter[str] = Counter()
        for spec in self._specs.values():  # added, for two may be one stream
            macs[spec.name] += self._taken[spec.name] * stream_cost(spec).macs
        if count:
            networks = self._network_macs(np.array([count]))
            macs.update({name: int(of_video[0]) for name, of_video in networks.items()})
        return macs

    @property
    def operating_value(self) -> Tensor | None:
        return self._frames

    def graphs(self) -> Sequence[Graph]:
        return self._graphs()
