"""Optical flow between frames on the CPU, by OpenCV: what the flow network of I3D looks at.

I3D's flow (github.com/google-deepmind/kinetics-i3d, README and issue 24) is TV-L1 between the grey frames of a
video at 25 fps, cut off at ±20 px and mapped to [−1, 1]. The program was not released; the README likens it to
OpenCV's CUDA version, whose default parameters those of the CPU version used here are (which has a median filter
besides). It belongs on frames that are already resized to a short side of 256 (issue 34: the released network does
better so). Theirs was stored in 256 steps and ours is not: a difference of at most 0.08 px. DIS (Kroeger et al.,
ECCV 2016) is about a hundred times as fast (`python -m benchmarks.flow`); its fields are others, and a network
does best on the kind that it was trained on.

This runs inside decode workers, of which there is one for each core: OpenCV is set to one thread in the process
that calls. The same frames give the same bits.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema import UserError

UInt8Array = NDArray[np.uint8]
Float32Array = NDArray[np.float32]

METHODS = ("tvl1", "dis")
BOUND_PX = 20.0
MIN_SIZE = 16  # below 13 DIS fails, or gives NaN
_PACKAGE = "opencv-contrib-python-headless"


def flow_between(first: UInt8Array, second: UInt8Array, method: str) -> Float32Array:
    """The way that each pixel of `first` goes to its place in `second`.

    Args:
        first, second: (H, W, 3) RGB.
        method: "tvl1" or "dis".

    Returns:
        (H, W, 2): x to the right, then y downwards, in pixels: second[y + v, x + u] shows what first[y, x]
        shows. Not cut off: see `clip_and_scale`.

    Raises:
        ValueError: frames of different sizes or below 16×16, or no such method.
        UserError: OpenCV, or its part that is needed, is not installed.
    """
    flow: Float32Array = clip_flow((first, second), method)[0]
    return flow


def clip_flow(frames: UInt8Array | Sequence[UInt8Array], method: str) -> Float32Array:
    """The flow from each frame of a clip to the next.

    Equal frames, such as those that pad a video's last clip, give exactly zero and cost nothing.

    Args:
        frames: (T + 1, H, W, 3) RGB.
        method: "tvl1" or "dis".

    Returns:
        (T, H, W, 2), each as `flow_between` has it.

    Raises:
        ValueError: fewer than two frames, frames of different sizes or below 16×16, or no such method.
        UserError: OpenCV, or its part that is needed, is not installed.
    """
    shape = _check(frames)
    cv2 = _opencv(method)
    flow = np.zeros((len(frames) - 1, *shape[:2], 2), np.float32)
    moving = [t for t in range(len(flow)) if not np.array_equal(frames[t], frames[t + 1])]
    grey = {
        at: cv2.cvtColor(np.ascontiguousarray(frames[at]), cv2.COLOR_RGB2GRAY)
        for at in {*moving, *(t + 1 for t in moving)}
    }
    for t in moving:
        flow[t] = _new_estimator(cv2, method).calc(grey[t], grey[t + 1], None)
    return flow


def clip_and_scale(flow: Float32Array, bound_px: float = BOUND_PX) -> Float32Array:
    """Flow in pixels, of any shape, cut off at ±bound_px and divided by it: in [−1, 1], as I3D was trained."""
    scaled: Float32Array = np.clip(flow, -bound_px, bound_px) / np.float32(bound_px)
    return scaled


def _check(frames: UInt8Array | Sequence[UInt8Array]) -> tuple[int, ...]:
    if len(frames) < 2:
        raise ValueError(f"flow needs two frames or more, not {len(frames)}")
    shape = frames[0].shape
    if len(shape) != 3 or shape[2] != 3 or any(f.dtype != np.uint8 or f.shape != shape for f in frames):
        kinds = sorted({f"{f.shape} {f.dtype}" for f in frames})
        raise ValueError(f"flow needs frames of one size, (H, W, 3) uint8, not {', '.join(kinds)}")
    if min(shape[:2]) < MIN_SIZE:
        raise ValueError(f"flow needs frames of {MIN_SIZE}×{MIN_SIZE} or more, not {shape[0]}×{shape[1]}")
    return shape


def _opencv(method: str) -> Any:
    if method not in METHODS:
        raise ValueError(f"no flow method {method!r}: use {' or '.join(METHODS)}")
    try:
        cv2: Any = importlib.import_module("cv2")  # its type stubs lack the estimators
    except ImportError as error:
        raise UserError(f"optical flow needs OpenCV ({error}): pip install {_PACKAGE}") from error
    # opencv-python has no TV-L1; where two of the packages were installed and one removed, cv2 is an empty shell.
    if not hasattr(cv2, "optflow" if method == "tvl1" else "DISOpticalFlow_create"):
        raise UserError(
            f"{method} flow is not in the OpenCV that is installed: pip uninstall every opencv-* package (they "
            f"overwrite one another), then pip install {_PACKAGE}"
        )
    cv2.setNumThreads(1)
    return cv2


def _new_estimator(cv2: Any, method: str) -> Any:
    """One for each pair: on small frames DIS changes its own settings, and the next pair would have other flow."""
    if method == "tvl1":
        return cv2.optflow.DualTVL1OpticalFlow_create()
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
