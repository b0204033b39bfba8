"""Clip selection on raw video: all clips of the cheap stream, then the motion of those that it chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cache_schema import StreamSpec
from cache_schema.costs import stream_cost
from policy.data.batches import Role, unit_length
from policy.evaluation.detection import Detections
from policy.localization.clip_selector import NETWORKS, SELECTOR, ClipSelector, Features, answers
from policy.localization.config import LocalizationSelectorConfig
from policy.localization.localize import localize, video_probabilities
from policy.localization.motion_affinity import BoolArray
from policy.session import AlignedSession, FloatArray, IntArray, Wanted


class _Decided(NamedTuple):
    """When all clips of the cheap stream are there: its activations (T, C), and the clips that use motion (K,)."""

    activations: FloatArray
    chosen: IntArray


class ClipSession(AlignedSession):
    """Its answer is about the clips of which the cheap stream's rows were taken; with the motion that was.

    Args:
        model: trained; it is put in evaluation mode.
        config: how it answers, and how proposals are made.
    """

    def __init__(
        self,
        model: ClipSelector,
        appearance: StreamSpec,
        motion: StreamSpec,
        config: LocalizationSelectorConfig,
        *,
        classes: tuple[str, ...],
    ) -> None:
        super().__init__({spec.name: spec for spec in (appearance, motion)}, classes)
        self.model, self._config = model.eval(), config
        self._specs: Mapping[Role, StreamSpec] = {"appearance": appearance, "motion": motion}
        self._restart()

    def _restart(self) -> None:
        self._taken: dict[Role, int] = dict.fromkeys(self._specs, 0)
        # All that may come, for a video of hours comes in thousands of parts.
        self._room: dict[Role, Features] = {
            role: np.empty((len(self._spans_s.get(spec.name, ())), spec.feature_dim), np.float16)
            for role, spec in self._specs.items()
        }
        self._decided: _Decided | None = None

    def wanted(self) -> Wanted | None:
        if not self._spans_s:
            return None
        if self._decided is None:
            return self._next("appearance", np.arange(self._clips))
        return self._next("motion", self._decided.chosen)

    def _next(self, role: Role, clips: IntArray) -> Wanted | None:
        """Those of clips whose rows were not taken yet."""
        name, left = self._specs[role].name, clips[self._taken[role] :]
        return Wanted(name, left, self._spans_s[name][left]) if len(left) else None

    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        role: Role = "appearance" if stream == self._specs["appearance"].name else "motion"
        # As the cache has it.
        rows = self._need(stream, "features", features).half().cpu().numpy()
        rows = unit_length(rows) if self._config.input_norm == "l2" else rows
        taken = self._taken[role]
        self._taken[role] += len(rows)
        self._room[role][taken : self._taken[role]] = rows
        if role == "appearance" and self._taken[role] == self._clips:
            cheap = self._rows(role)
            activations = self.model.activations("appearance", cheap)
            confidences = self.model.confidences(self.model.inputs(cheap, activations))
            self._decided = _Decided(activations, np.flatnonzero(self.model.chosen(confidences)))

    def _rows(self, role: Role) -> Features:
        """(n, D) float16: what was taken."""
        return self._room[role][: self._taken[role]]

    @property
    def _clips(self) -> int:
        return len(self._spans_s[self._specs["appearance"].name])

    @property
    def gates(self) -> BoolArray:
        """(T,): the clips of which motion was taken."""
        used = np.zeros(self._taken["appearance"], np.bool_)
        if self._decided is not None:
            used[self._decided.chosen[: self._taken["motion"]]] = True
        return used

    @property
    def activations(self) -> FloatArray:
        """(T, C): what answers for the clips of which the cheap stream's rows were taken."""
        if self._decided is None:
            return self.model.activations("appearance", self._rows("appearance"))
        gates, appearance = self.gates, self._decided.activations
        motion = np.full_like(appearance, np.nan)
        if gates.any():
            motion[gates] = self.model.comparable_motion(
                self.model.activations("motion", self._rows("motion"))
            )
        return answers(self._config.answer, appearance, motion, gates)

    @property
    def detections(self) -> Detections:
        """What was found; the video is number 0."""
        activations, rows = self.activations, self._rows("appearance")
        spans_s = self._spans_s.get(self._specs["appearance"].name, np.zeros((0, 2)))[: len(rows)]
        return localize(self._config, [activations], [spans_s], [rows])

    @property
    def probabilities(self) -> Tensor:
        """(C,): of the classes in the video; the same for all until a clip was taken."""
        return video_probabilities(torch.from_numpy(self.activations))

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        streams: dict[str, int] = {}
        for role, spec in self._specs.items():
            count = self._taken[role]
            streams |= {
                spec.name: count * stream_cost(spec).macs,
                NETWORKS[role]: count * self.model.network(role).macs,
            }
        selected = self._taken["appearance"] if self._decided is not None else 0
        return {**streams, SELECTOR: selected * self.model.selector.macs}
