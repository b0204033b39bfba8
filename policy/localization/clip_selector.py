"""Which model answers for a clip: the selector (Sec. 3.1), both models and their scales, as one module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from policy.data.batches import Role
from policy.evaluation.detection import FloatArray
from policy.localization.config import ClipAnswer, LocalizationSelectorConfig
from policy.localization.levels import ActivationLevels, comparable
from policy.localization.motion_affinity import MOTION, BoolArray
from policy.localization.network import WTALCNetwork
from policy.networks.perceptron import Perceptron

Features = npt.NDArray[np.float16]

SELECTOR = "clip selector"
NETWORKS: Mapping[Role, str] = {
    "appearance": "W-TALC appearance network",
    "motion": "W-TALC motion network",
}
"""Names of the networks in the ledger of costs."""
NEVER = float(np.nextafter(1.0, 2.0))
"""A threshold that no confidence reaches."""


class ClipSelector(nn.Module):
    """A perceptron on the appearance stream's rows, and the two models between which it chooses.

    Attributes:
        models: by role, trained elsewhere and frozen; none until `build_on`.
        folds: selectors that each have not seen a part of the training videos; none but in training.
        levels: (2, 2, C), of appearance and motion, low and high (`ActivationLevels`).
        threshold: () confidence in motion from which a clip uses it.
    """

    levels: Tensor
    threshold: Tensor

    def __init__(self, config: LocalizationSelectorConfig, feature_dim: int, num_classes: int) -> None:
        """Args: feature_dim: of the appearance stream."""
        super().__init__()
        self.sees_activations = config.selector_input == "features+activations"
        inputs = feature_dim + (num_classes if self.sees_activations else 0)
        self.selector = Perceptron(inputs, config.selector_hidden, 2)
        self.folds = nn.ModuleList()
        self.models = nn.ModuleDict()
        self.register_buffer("levels", torch.zeros(2, 2, num_classes, dtype=torch.float64))
        self.register_buffer("threshold", torch.tensor(0.5, dtype=torch.float64))

    def build_on(self, models: Mapping[Role, WTALCNetwork]) -> None:
        """Take copies of two trained models."""
        self.models = nn.ModuleDict({role: deepcopy(models[role]) for role in NETWORKS})
        self.models.requires_grad_(False)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As any module does; the models, which are other runs', have the sizes of the state.

        Raises:
            RuntimeError: the state is of another module.
        """
        if not self.models:
            self.build_on({role: _sized(state_dict, f"models.{role}.") for role in NETWORKS})
        return super().load_state_dict(state_dict, strict, assign)

    def train(self, mode: bool = True) -> ClipSelector:
        """As any module does; the models stay as they are, without dropout."""
        super().train(mode)
        self.models.eval()
        return self

    def network(self, role: Role) -> WTALCNetwork:
        """One of the models."""
        network = self.models[role]
        assert isinstance(network, WTALCNetwork)
        return network

    @torch.no_grad()
    def activations(self, role: Role, rows: Features) -> FloatArray:
        """(T, C): class logits of clips (T, D) by one of the models, on its own scale."""
        logits: Tensor = self.network(role)(self._tensor(rows)).logits
        return np.asarray(logits.double().cpu().numpy())

    def comparable_motion(self, activations: FloatArray) -> FloatArray:
        """(T, C): activations of the motion model on the scale of the appearance model's."""
        low_high: Any = self.levels.cpu().numpy()
        appearance, motion = (ActivationLevels(*of_model) for of_model in low_high)
        return comparable(activations, motion, appearance)

    def inputs(self, rows: Features, appearance: FloatArray) -> Tensor:
        """(T, D'): what a selector sees of clips.

        Args:
            rows: (T, D) of the appearance stream.
            appearance: (T, C) activations of its model.
        """
        features = self._tensor(rows).float()
        return (
            torch.cat([features, self._tensor(appearance).float()], 1) if self.sees_activations else features
        )

    @torch.no_grad()
    def confidences(self, inputs: Tensor, fold: int | None = None) -> FloatArray:
        """(T,): P(M_motion, x) of the clips; by the selector of a fold, if one is named."""
        network = self.selector if fold is None else self.folds[fold]
        logits: Tensor = network(inputs)
        return np.asarray(logits.double().softmax(1)[:, MOTION].cpu().numpy())

    def chosen(self, confidences: FloatArray) -> BoolArray:
        """(T,): whether a clip is confident enough to use motion."""
        return np.asarray(confidences >= float(self.threshold))

    def _tensor(self, values: npt.NDArray[Any]) -> Tensor:
        # A copy, for a slice of the cache is read-only, which torch cannot express.
        return torch.from_numpy(np.array(values)).to(self.threshold.device)


def answers(answer: ClipAnswer, appearance: FloatArray, motion: FloatArray, chosen: BoolArray) -> FloatArray:
    """(T, C): the sequence in which each clip is answered by the model that was chosen for it, or by both.

    W-TALC's network judges each clip by itself, so that this is what would come of running a model only there.

    Args:
        appearance, motion: (T, C), comparable; of motion only the rows of chosen clips are looked at.
        chosen: (T,), whether motion was chosen.
    """
    sequence: FloatArray = appearance.copy()
    sequence[chosen] = motion[chosen] if answer == "motion" else (appearance[chosen] + motion[chosen]) / 2
    return sequence


def threshold_of_share(confidences: Sequence[FloatArray], share: float) -> float:
    """The threshold that at most this share of all clips reaches; 0 for all of them.

    Args:
        confidences: (T,) of each video.
    """
    if share >= 1:
        return 0.0
    ranked = np.sort(np.concatenate(confidences))[::-1]
    count = int(share * len(ranked))
    # Between two values, so that rounding elsewhere does not matter.
    return float(ranked[count - 1] + ranked[count]) / 2 if count else NEVER


def _sized(state: Mapping[str, Any], prefix: str) -> WTALCNetwork:
    """A network for the weights that a state has under a prefix. Raises RuntimeError where there are none."""
    try:
        hidden, inputs = state[f"{prefix}hidden.weight"].shape
        classes = len(state[f"{prefix}classifier.bias"])
    except (KeyError, ValueError, TypeError) as error:
        raise RuntimeError(f"no W-TALC network under {prefix}") from error
    return WTALCNetwork(inputs, hidden, classes, standardize=f"{prefix}scale.mean" in state)
