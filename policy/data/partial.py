"""Partial videos, of which the cache lacks rows: which they are, and which rows of two streams go together."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cache_schema import Stream

R = TypeVar("R")


def partial_videos(streams: Iterable[Stream]) -> frozenset[str]:
    """Ids of the videos of which some stream has a part."""
    return frozenset(video for stream in streams for video in stream.partial)


def paired_rows(
    streams: Mapping[R, Stream], videos: Iterable[str]
) -> dict[str, Mapping[R, npt.NDArray[np.int64]]]:
    """By id of a video of which one of several streams has a part, the rows of each that all of them have.

    Rows are told by their numbers in what the sampling gives, for the streams are sampled alike: position k of one
    that lacks a row is another instant than position k of one that does not.

    Raises:
        CacheError: a shard is damaged.
    """
    pairs: dict[str, Mapping[R, npt.NDArray[np.int64]]] = {}
    every = streams.values()
    for video in videos if len(streams) > 1 else ():
        if all(video in stream for stream in every) and any(video in stream.partial for stream in every):
            numbers = {role: stream[video].numbers for role, stream in streams.items()}
            common = functools.reduce(np.intersect1d, numbers.values())
            pairs[video] = {role: np.searchsorted(there, common) for role, there in numbers.items()}
    return pairs
