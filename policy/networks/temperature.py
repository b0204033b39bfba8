"""From scores to calibrated probabilities, by one or two numbers that are fitted by likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit, log_softmax, softmax
from torch import Tensor

Floats = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

_BOUNDS = ((np.log(1e-4), np.log(1000.0)), (-30.0, 30.0))
"""Of log(slope) and shift: scores that tell all apart, or nothing, have no best one."""
_CALIBRATED_ON = 1 << 20
"""Scores, at most, that a calibration is fitted to: it has two numbers to find."""


@dataclass(frozen=True)
class Calibration:
    """From scores to probabilities: softmax(slope · s), sigmoid(slope · s + shift).

    One temperature, 1 / slope (Guo et al., 2017), or for multi-label one sigmoid (Platt, 1999), for all classes.
    """

    slope: float
    shift: float
    multi_label: bool

    def tensors(self, stream: str) -> dict[str, Tensor]:
        """By name, for a file that may have those of other streams, too."""
        return {f"{stream}/calibration": torch.tensor([self.slope, self.shift], dtype=torch.float64)}

    @staticmethod
    def of(tensors: Mapping[str, Tensor], stream: str, *, multi_label: bool) -> Calibration:
        """The inverse of `tensors`; where this stream's is not among them, one that changes nothing."""
        slope, shift = tensors.get(f"{stream}/calibration", torch.tensor([1.0, 0.0])).tolist()
        return Calibration(slope, shift, multi_label)

    @staticmethod
    def fit(scores: Floats, targets: BoolArray, multi_label: bool) -> Calibration:
        """Of least cross-entropy on (n, C) scores; targets (n, C), one in each row without `multi_label`.

        Targets are a little less than certain, as Platt's (1999): scores that are right throughout stay finite.
        """
        from scipy.optimize import minimize  # a quarter of a second, for those that train alone

        start = [np.log(5.0)]
        if multi_label:
            share = np.clip(targets.mean(), 1e-6, 1 - 1e-6)
            start.append(np.log(share / (1 - share)))
        optimum = minimize(
            _binary_loss if multi_label else _loss,
            start,
            (scores.astype(np.float64), less_certain(targets, multi_label)),
            jac=True,
            method="L-BFGS-B",
            bounds=_BOUNDS[: len(start)],
        )
        shift = float(optimum.x[1]) if multi_label else 0.0
        return Calibration(float(np.exp(optimum.x[0])), shift, multi_label)

    def __call__(self, scores: Floats) -> Floats:
        """(M, C) -> (M, C)."""
        logits = np.float32(self.slope) * scores + np.float32(self.shift)
        return np.asarray(expit(logits) if self.multi_label else softmax(logits, axis=1), np.float32)


def calibration_sample(targets: BoolArray) -> IntArray:
    """Places of the examples, of targets (M, C), that a calibration is fitted to: evenly spread."""
    return np.arange(0, len(targets), -(-targets.size // _CALIBRATED_ON))


def _loss(at: FloatArray, scores: FloatArray, targets: FloatArray) -> tuple[float, FloatArray]:
    """Cross-entropy at log(slope), and its gradient."""
    slope = np.exp(at[0])
    logs = log_softmax(slope * scores, axis=1)
    by_slope = ((np.exp(logs) - targets) * scores).sum() / len(scores)
    return float(-(targets * logs).sum() / len(scores)), np.array([by_slope * slope])


def less_certain(targets: BoolArray, multi_label: bool) -> FloatArray:
    """(n, C): as if one more example had had each of the other answers."""
    if multi_label:
        has, lacks = targets.sum(), (~targets).sum()
        return np.asarray(np.where(targets, (has + 1) / (has + 2), 1 / (lacks + 2)))
    examples, classes = targets.shape
    return np.asarray((examples * targets + 1 / classes) / (examples + 1))


def _binary_loss(at: FloatArray, scores: FloatArray, targets: FloatArray) -> tuple[float, FloatArray]:
    """Binary cross-entropy at log(slope) and shift, and its gradient."""
    slope = np.exp(at[0])
    logits = slope * scores + at[1]
    excess = expit(logits) - targets
    loss = float((np.logaddexp(0, logits) - targets * logits).mean())
    return loss, np.array([(excess * scores).mean() * slope, excess.mean()])
