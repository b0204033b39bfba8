"""What does optical flow cost, by each of the ways that there are?

    python -m benchmarks.flow
    python -m benchmarks.flow --quick        # a smoke test of seconds

One pair of frames at a time, on one thread of the CPU: a textured picture that moves and turns a little. The
OpenCV methods are run alternately and the medians are shown; RAFT (random weights: they do not change its time) is
run once after a smaller pair for warming up, with its 12 refinements. RAFT needs sides that are multiples of 8: it
sees the frame cut down to them. GMACs are 10⁹ multiply-accumulates a pair, where that is the unit.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import click
import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.tables import as_written
from extract.backbones.network import count
from extract.backbones.raft import MIN_SIZE, RAFT_NAMES, RaftFlow, create_raft
from extract.flow import METHODS, UInt8Array, flow_between

REFERENCE = "dis"


def pair(height: int, width: int, seed: int) -> UInt8Array:
    """(2, H, W, 3): the second frame is the first one moved by up to some 8 px and turned by 1°."""
    generator = torch.Generator().manual_seed(seed)
    octaves = [
        F.interpolate(
            torch.rand(1, 3, height // n, width // n, generator=generator), (height, width), mode="bicubic"
        )
        for n in (4, 16, 64)
    ]
    picture = torch.stack(octaves).mean(0)
    turned = torch.tensor([[[1.0, -0.0175, 0.03], [0.0175, 1.0, -0.02]]])
    grid = F.affine_grid(turned, [1, 3, height, width], align_corners=False)
    second = F.grid_sample(picture, grid, padding_mode="reflection", align_corners=False)
    frames: UInt8Array = (torch.cat([picture, second]).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(frames)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def raft_cost(name: str, frames: UInt8Array) -> tuple[float, int]:
    """Seconds and multiply-accumulates for a pair."""
    network, _ = create_raft(name, "random:0")
    raft = RaftFlow(network)
    height, width = (n // 8 * 8 for n in frames.shape[1:3])
    clip = torch.from_numpy(frames[None, :, :height, :width]).permute(0, 1, 4, 2, 3).float()
    raft(clip[..., :MIN_SIZE, :MIN_SIZE])
    took = seconds(lambda: raft(clip))
    return took, count(raft.to("meta"), clip.to("meta"))


@click.command(help=as_written(__doc__))
@click.option("--height", default=256, show_default=True, type=click.IntRange(MIN_SIZE))
@click.option("--width", default=340, show_default=True, type=click.IntRange(MIN_SIZE))
@click.option(
    "--repeats", default=5, show_default=True, help="Timed runs of each OpenCV method, alternating."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--quick", is_flag=True, help="160×128, twice.")
def main(*, height: int, width: int, repeats: int, seed: int, quick: bool) -> None:
    if quick:
        height, width, repeats = 128, 160, 2
    torch.set_num_threads(1)
    frames = pair(height, width, seed)
    times: dict[str, list[float]] = {method: [] for method in METHODS}
    flow_between(frames[0], frames[1], REFERENCE)  # OpenCV's import
    for _ in range(repeats):
        for method in METHODS:
            times[method].append(seconds(lambda method=method: flow_between(frames[0], frames[1], method)))  # type: ignore[misc]
    rows = [(method, statistics.median(times[method]), 0) for method in METHODS]
    rows += [(name, *raft_cost(name, frames)) for name in RAFT_NAMES]
    unit = {name: took for name, took, _ in rows}[REFERENCE]

    click.echo(f"one pair of {width}×{height}, one thread")
    click.echo(f"{'':12}{'ms':>10}{'times ' + REFERENCE:>12}{'GMACs':>9}")
    for name, took, macs in rows:
        cost = f"{macs / 1e9:.1f}" if macs else "–"
        click.echo(f"{name:12}{took * 1000:10,.1f}{took / unit:12,.1f}{cost:>9}")


if __name__ == "__main__":
    main()
