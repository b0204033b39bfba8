"""LiteEval on a video that arrives frame by frame; it says for which frames it wants the fine features."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policy.data.batches import unit_length
from policy.liteeval.model import LiteEval

Features = Tensor | NDArray[np.floating[Any]]


class LiteEvalStream:
    """One video, as it arrives (Algorithm 1)::

        stream = LiteEvalStream(model)
        for frame in video:
            if stream.look(coarse_features(frame)):
                stream.fine(fine_features(frame))
            print(stream.probabilities)

    It decides and predicts as the model does when it is given the whole video at once. `open_stream` in
    `policy.deploy.streaming` makes one from a run folder.

    Attributes:
        frames: looked at so far.
        fine_features: number of frames so far whose fine features were wanted and given.
        wants_fine: whether the last frame's fine features are still to be given.

    Args:
        model: trained; it is put in evaluation mode.
        l2: the model was trained on features brought to length 1 (input_norm "l2"): do the same to those given,
            so that a backbone's output can be passed on as it is.
        multi_label: the model was trained with a sigmoid for each class instead of a softmax.
        coarse_macs, fine_macs: cost of each backbone for one frame, if `macs` is to include it.
        classes: names of the C classes, for display.
    """

    def __init__(
        self,
        model: LiteEval,
        *,
        l2: bool = False,
        multi_label: bool = False,
        coarse_macs: int = 0,
        fine_macs: int = 0,
        classes: tuple[str, ...] = (),
    ) -> None:
        self.model = model.eval()
        self.classes = classes
        self._l2 = l2
        self._multi_label = multi_label
        self._coarse_macs, self._fine_macs = coarse_macs, fine_macs
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Forget everything: the next frame is the first of another video."""
        self.frames = 0
        self.fine_features = 0
        self._coarse_state, self._fine_state = self.model.initial_state(1)
        self._waiting: Tensor | None = None  # the coarse features of a frame that wants fine ones

    @property
    def wants_fine(self) -> bool:
        return self._waiting is not None

    @torch.no_grad()
    def look(self, coarse: Features) -> bool:
        """See the next frame's coarse features (D_c,).

        Returns:
            Whether its fine features are wanted: then `fine` comes next; else the frame is done.

        Raises:
            ValueError: the frame before still waits for its fine features, or these are not D_c finite numbers.
        """
        if self._waiting is not None:
            raise ValueError(f"frame {self.frames} waits for its fine features: call fine() before look()")
        checked = self._checked(coarse, len(self.model.coarse_scale.mean), "coarse")
        log_odds, self._coarse_state = self.model.look(checked, self._coarse_state, self._fine_state)
        self.frames += 1
        if bool(log_odds > self.model.threshold):
            self._waiting = checked
            return True
        self._update(checked, checked.new_empty(0, len(self.model.fine_scale.mean)))
        return False

    @torch.no_grad()
    def fine(self, features: Features) -> None:
        """See the fine features (D_f,) of the frame for which `look` returned True.

        Raises:
            ValueError: they were not wanted, or are not D_f finite numbers.
        """
        if self._waiting is None:
            raise ValueError("no fine features were asked for: call fine() only after look() returned True")
        checked = self._checked(features, len(self.model.fine_scale.mean), "fine")
        self._update(self._waiting, checked)
        self._waiting = None
        self.fine_features += 1

    def _update(self, coarse: Tensor, fine: Tensor) -> None:
        """End a step: (1, D_c) and (1, D_f), or (0, D_f) where the gate is closed."""
        opened = torch.arange(len(fine), device=coarse.device)
        self._fine_state = self.model.update(coarse, fine, opened, self._coarse_state, self._fine_state)

    @property
    @torch.no_grad()
    def logits(self) -> Tensor:
        """(C,): after the frames that are done; before the first, those of the zero state."""
        logits: Tensor = self.model.classifier(self._fine_state.h)
        return logits[0]

    @property
    def probabilities(self) -> Tensor:
        """(C,): of the classes, after the frames that are done."""
        return self.logits.sigmoid() if self._multi_label else self.logits.softmax(0)

    @property
    def macs(self) -> int:
        """Multiply-accumulates so far, with one prediction: the networks' and, if known, the backbones'."""
        networks = self.model.cost.total(steps=self.frames, opened=self.fine_features)
        return int(networks) + self.frames * self._coarse_macs + self.fine_features * self._fine_macs

    def _checked(self, features: Features, dim: int, name: str) -> Tensor:
        """(1, D), as the model takes them."""
        if features.shape != (dim,):
            raise ValueError(f"{name} features have shape {tuple(features.shape)}, not ({dim},)")
        # A copy, for a slice of the cache is read-only, which torch cannot express.
        tensor = features if isinstance(features, Tensor) else torch.from_numpy(np.array(features))
        if not tensor.isfinite().all():
            raise ValueError(f"{name} features of frame {self.frames + (name == 'coarse')} are not finite")
        if self._l2:
            tensor = torch.from_numpy(unit_length(tensor.detach().cpu().numpy()))
        return tensor.to(self.model.classifier.weight.device)[None]
