"""W-TALC on raw video: all clips of its streams, then what is found in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cache_schema import StreamSpec
from cache_schema.costs import stream_cost
from policy.data.batches import unit_length
from policy.evaluation.detection import Detections
from policy.localization.config import ProposalsConfig
from policy.localization.localize import localize, video_probabilities
from policy.localization.network import WTALCNetwork
from policy.networks.standardize import unit_parts
from policy.session import AlignedSession, Graph, Wanted, side_by_side

NETWORK = "W-TALC network"
"""Its name in the ledger of costs."""


class WTALCSession(AlignedSession):
    """Wants all rows of its streams, in turn. Its answer is about the clips of which all streams were taken.

    Args:
        model: trained; it is put in evaluation mode.
        streams: that it was trained on, in that order.
        config: how proposals are made.
        l2: the model was trained on features brought to length 1.
    """

    def __init__(
        self,
        model: WTALCNetwork,
        streams: Sequence[StreamSpec],
        config: ProposalsConfig,
        *,
        l2: bool,
        classes: tuple[str, ...],
    ) -> None:
        super().__init__({spec.name: spec for spec in streams}, classes)
        self.model, self._config, self._l2 = model.eval(), config, l2
        self._restart()

    def _restart(self) -> None:
        self._features: dict[str, list[Tensor]] = {name: [] for name in self.streams}
        self._taken: Counter[str] = Counter()  # rows

    def wanted(self) -> Wanted | None:
        if not self._spans_s:
            return None
        # The streams take turns, so that one pass over a video's frames serves all of them.
        name = min(self._spans_s, key=lambda stream: self._taken[stream])
        taken, spans_s = self._taken[name], self._spans_s[name]
        return Wanted(name, np.arange(taken, len(spans_s)), spans_s[taken:]) if taken < len(spans_s) else None

    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        # As the cache has it.
        rows = self._need(stream, "features", features).half().cpu()
        self._features[stream].append(torch.from_numpy(unit_length(rows.numpy())) if self._l2 else rows)
        self._taken[stream] += len(rows)

    @property
    def features(self) -> Tensor:
        """(T, D) float16: of the clips of which all streams were taken, side by side."""
        count = self._complete
        parts = [
            torch.cat([torch.zeros(0, spec.feature_dim, dtype=torch.half), *self._features[name]])[:count]
            for name, spec in self.streams.items()
        ]
        return torch.cat(parts, 1)

    @property
    @torch.no_grad()
    def activations(self) -> Tensor:
        """(T, C): class logits of these clips."""
        logits: Tensor = self.model(self.features.to(self.model.hidden.weight.device)).logits
        return logits.cpu()

    @property
    def detections(self) -> Detections:
        """What was found; the video is number 0."""
        activations = self.activations.numpy()
        spans_s = next(iter(self._spans_s.values()), np.zeros((0, 2)))[: len(activations)]
        return localize(self._config, [activations], [spans_s], [self.features.numpy()])

    @property
    def probabilities(self) -> Tensor:
        """(C,): of the classes in the video; the same for all until a clip was taken."""
        return video_probabilities(self.activations)

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        streams = {name: self._taken[name] * stream_cost(spec).macs for name, spec in self.streams.items()}
        return {**streams, NETWORK: self._complete * self.model.macs}

    def graphs(self) -> Sequence[Graph]:
        dims = [spec.feature_dim for spec in self.streams.values()]
        facts = {
            **side_by_side(self.streams.values()),
            "activations": "class logits of each clip by itself",
        }
        return (
            Graph(
                "activations",
                _PerClip(self.model, dims, self._l2),
                {"features": torch.zeros(3, sum(dims))},
                ("activations",),
                facts,
                rows=True,
                row_outputs=True,
            ),
        )

    @property
    def _complete(self) -> int:
        """Of how many clips all streams were taken."""
        return min(self._taken[name] for name in self.streams)


class _PerClip(nn.Module):
    """Features (T, D) of clips, of all streams side by side, to class logits (T, C)."""

    def __init__(self, model: WTALCNetwork, dims: Sequence[int], l2: bool) -> None:
        super().__init__()
        self.model, self.dims, self.l2 = model, dims, l2

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        rows = unit_parts(features, self.dims) if self.l2 else features.half()
        return (self.model(rows).logits,)
