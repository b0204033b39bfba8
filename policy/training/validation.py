"""Videos that a method is judged on after each epoch: they tell which is best, and operating points are found on
them.

They are a subset of the labels, or a share of the training videos that is held out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import numpy as np
import torch

from cache_schema import UserError
from cache_schema.annotations.groups import held_out_groups
from policy.data.batches import VideoSet, uniform_rows
from policy.data.opening import Dataset
from policy.method import IntArray, Method


def split(method: Method, videos: VideoSet) -> tuple[IntArray, IntArray]:
    """Positions of the training videos that a method is trained on, and of those that are held out from it.

    The latter are the share `validation` of its configuration, of each class as nearly as possible, and whole
    groups; drawn by its seed. Without that option, or of a method that is trained neither in epochs nor at once
    (`Method.fits_at_once`), there are none.

    Raises:
        UserError: too few videos, or groups: one of the two has none.
    """
    share = method.config.validation
    if not share or not _holds_out(method):
        return np.arange(len(videos)), np.arange(0)
    count = round(share * len(videos))
    if not 0 < count < len(videos):
        raise UserError(f"validation {share:g} of {len(videos)} training videos leaves none on one side")
    if videos.groups:
        chosen = held_out_groups(videos.groups, videos.trained_labels, share, method.config.seed)
        return np.flatnonzero(~chosen), np.flatnonzero(chosen)
    shuffled = np.random.default_rng(method.config.seed).permutation(len(videos))
    by_class = shuffled[np.argsort(videos.first[shuffled], kind="stable")]
    held_out = np.sort(by_class[uniform_rows(len(videos), count)])
    return np.setdiff1d(np.arange(len(videos)), held_out), held_out


def _holds_out(method: Method) -> bool:
    return method.by_descent or method.fits_at_once


def validation_videos(method: Method, data: Dataset) -> VideoSet | None:
    """The videos that are held out, and judged after each epoch if there are epochs; None where there are none."""
    if not _holds_out(method) or data.validation is not None:
        return data.validation if _holds_out(method) else None
    _, held_out = split(method, data.train)
    return data.train.part(held_out.tolist()) if len(held_out) else None


def calibration_videos(method: Method, data: Dataset) -> VideoSet:
    """The videos on which an operating point is found: those for validation, else all training videos."""
    return validation_videos(method, data) or data.train


def finishing_videos(method: Method, data: Dataset) -> VideoSet:
    """The videos that `Method.finish` is called with: those to find an operating point on or, of a method that it
    fits, all that are not held out."""
    if method.by_descent or not method.fits_at_once:
        return calibration_videos(method, data)
    trained_on, held_out = split(method, data.train)
    return data.train.part(trained_on.tolist()) if len(held_out) else data.train


def validate(method: Method, videos: VideoSet, device: torch.device) -> dict[str, float]:
    """The "validation_loss" of the current weights, and the method's metrics and mean GFLOPs, "validation_…".

    Operating points are found on these very videos.
    """
    with as_trained_so_far(method):
        method.finish(videos, device)
        judged = method.evaluate(videos, device=device)
        numbers = {
            "loss": method.validation_loss(judged, videos, device),
            **judged.metrics(),
            "gflops": float(judged.gflops.mean()),
        }
    return {f"validation_{name}": value for name, value in numbers.items()}


@contextmanager
def as_trained_so_far(method: Method) -> Iterator[None]:
    """In the middle of a training, a copy of the model in evaluation mode: whatever a block does with the method,
    its training goes on as if nothing had been."""
    model, config = method.model, method.config
    method.model = deepcopy(model).eval()
    try:
        yield
    finally:
        method.model, method.config = model, config
