"""Training videos that are held out: they tell which epoch is best, and operating points are found on them."""

from __future__ import annotations

import numpy as np

from cache_schema import UserError
from cache_schema.annotations.groups import held_out_groups
from policy.data.batches import VideoSet, uniform_rows
from policy.method import IntArray, Method


def split(method: Method, videos: VideoSet) -> tuple[IntArray, IntArray]:
    """Positions of the training videos that a method is trained on, and of those that are held out from it.

    The latter are the share `validation` of its configuration, of each class as nearly as possible, and whole
    groups; drawn by its seed. Without that option there are none.

    Raises:
        UserError: too few videos, or groups: one of the two has none.
    """
    share = method.validation
    if not share:
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


def calibration_videos(method: Method, videos: VideoSet) -> VideoSet:
    """The training videos on which an operating point is found: those that are held out, else all of them."""
    _, held_out = split(method, videos)
    return videos.part(held_out.tolist()) if len(held_out) else videos
