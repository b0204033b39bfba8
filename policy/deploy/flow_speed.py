"""Seconds of optical flow on this machine, which no cost in multiply-accumulates says."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from cache_schema import UserError
from extract.flow import METHODS, UInt8Array, flow_between
from policy.deploy.timing import Machine

HEIGHT, WIDTH = 256, 340
"""Of a frame whose short side is what I3D is given."""
REPEATS = 3


@dataclass(frozen=True)
class FlowTimes:
    """Attributes:
    pair_s: by method ("tvl1", "dis"), seconds of one core for a pair of frames; none where OpenCV is missing.
    note: where and how that was measured, or why it was not.
    """

    pair_s: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


def measure_flow(*, report: Callable[[str], None]) -> FlowTimes:
    """Time each method on a pair of frames in which a texture moves.

    Args:
        report: receives a line before the work.
    """
    report("seconds of optical flow")
    first, second = _pair()
    try:
        seconds = {
            name: statistics.median(_seconds(first, second, name) for _ in range(REPEATS)) for name in METHODS
        }
    except UserError as error:
        return FlowTimes(note=f"No seconds of optical flow: {error}.")
    return FlowTimes(
        seconds,
        f"Seconds: of one core, for frames of {WIDTH}×{HEIGHT}, by OpenCV on "
        f"{Machine.of(torch.device('cpu')).processor}; python -m benchmarks.flow measures RAFT, too.",
    )


def _seconds(first: UInt8Array, second: UInt8Array, method: str) -> float:
    """Of the processor, for others may be at work: OpenCV has one thread here."""
    started = time.process_time()
    flow_between(first, second, method)
    return time.process_time() - started


def _pair() -> tuple[UInt8Array, UInt8Array]:
    """(H, W, 3) twice: blobs of several sizes, moved by 5 px to the right and 3 px down."""
    generator = torch.Generator().manual_seed(0)
    blobs = [
        torch.nn.functional.interpolate(
            torch.rand(1, 3, HEIGHT // size, WIDTH // size, generator=generator),
            (HEIGHT + 3, WIDTH + 5),
            mode="bicubic",
        )
        for size in (4, 16, 64)
    ]
    picture = (255 * torch.stack(blobs).mean(0)).clamp(0, 255).byte()[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(picture[3:, 5:]), np.ascontiguousarray(picture[:-3, :-5])
