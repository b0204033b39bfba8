"""Does extraction keep a GPU busy, and what limits it: decoding or the network?

    python -m benchmarks.gpu                              # on a machine with a GPU
    python -m benchmarks.gpu --device cpu --quick         # a smoke test of seconds, anywhere

Everything is in bf16, channels last and, on a GPU, with copies that are pinned and asynchronous: what
batch-extract does there by itself. In turn:

- the bare network on batches that lie on the device already, over batch sizes: its best rate;
- the forward pass as extraction does it (`extract.batcher`), fed from memory with frames as decoders send them:
  to be at least 0.8 of the best rate. It is the rate when computation is the limit;
- decoding alone, what arrives is thrown away, with 1, 4 and 16 worker processes: the rate when decoding is;
- extraction end to end with as many.

"busy" is the share of the whole during which a forward pass was under way, by CUDA events around each; "by the
driver" is the mean of what it reports (NVML), where that can be asked. On a CPU, where nothing is asynchronous,
"busy" is the share of the time that was spent in the network.
"""

from __future__ import annotations

import contextlib
import importlib
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.extraction import HEIGHT, WIDTH, Pixels, decoded, end_to_end, video_folder, write_videos
from benchmarks.tables import as_written, load, machine, markdown, seconds_of
from extract.backbones import parse_stream
from extract.backbones.backbone import PRECISIONS, Backbone, build_network
from extract.batcher import Batcher
from extract.devices import find_device
from extract.pipeline import Settings
from extract.sources import Sources
from extract.workers import Frames

TARGET = 0.8


class BusyBackbone(Backbone):
    """A backbone that keeps account of when it computes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._spent_s = 0.0
        self._events: list[tuple[Any, Any]] = []

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.device.type != "cuda":
            started = time.perf_counter()
            answer = super().__call__(pixels)
            self._spent_s += time.perf_counter() - started
            return answer
        events: Any = torch.cuda.Event
        start, end = events(enable_timing=True), events(enable_timing=True)
        start.record()
        answer = super().__call__(pixels)
        end.record()
        self._events.append((start, end))
        return answer

    def busy_s(self) -> float:
        """Seconds computed since it was last asked. On a GPU, waits until all of it has ended."""
        wait_for(self.device)
        spent_s: float = self._spent_s + sum(start.elapsed_time(end) for start, end in self._events) / 1000
        self._spent_s, self._events = 0.0, []
        return spent_s


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def driver_utilisation(device: torch.device) -> Iterator[list[float]]:
    """Collects what the driver says of the GPU, 0 to 1, ten times a second; nothing where it cannot be asked."""
    shares: list[float] = []
    if device.type != "cuda":
        yield shares
        return
    try:
        importlib.import_module("pynvml")
        torch.cuda.utilization(device)
    except Exception:  # not installed, or not allowed in this container
        yield shares
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            shares.append(torch.cuda.utilization(device) / 100)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield shares
    finally:
        over.set()
        thread.join()


def bare_rate(stream: str, device: torch.device, precision: str, batch: int, at_least_s: float) -> float:
    """Frames a second of the network alone, normalised batches on its device."""
    request = parse_stream(stream)
    layout, dtype = torch.channels_last, PRECISIONS[precision]
    model = build_network(request, "random:0").model.eval().requires_grad_(False)
    model = model.to(device, dtype).to(memory_format=layout)
    frames = torch.randn(batch, 3, request.size, request.size, device=device, dtype=dtype)
    frames = frames.contiguous(memory_format=layout)

    def go(times: int) -> float:
        wait_for(device)
        started = time.perf_counter()
        for _ in range(times):
            model(frames)
        wait_for(device)
        return time.perf_counter() - started

    with torch.inference_mode():
        go(3 if device.type == "cuda" else 1)  # libraries choose their algorithms
        times = max(1, round(at_least_s / go(1)))
        return times * batch / go(times)


def from_memory_rate(backbone: Backbone, pixels: Pixels, batch: int, at_least_s: float) -> float:
    """Frames a second through `Batcher`, fed as the pipeline feeds it, until all rows are back in memory."""

    def go(times: int) -> float:
        started = time.perf_counter()
        batcher = Batcher(backbone, batch)
        for _ in range(times):
            for chunk in pixels:
                deque(batcher.add(None, 0, chunk), maxlen=0)
        deque(batcher.flush(), maxlen=0)
        return time.perf_counter() - started

    frames = sum(map(len, pixels))
    go(max(1, 2 * batch // frames) if backbone.device.type == "cuda" else 1)
    times = max(1, round(at_least_s / go(1)), 4 * batch // frames if at_least_s > 1 else 1)
    return times * frames / go(times)


@click.command(help=as_written(__doc__))
@click.option(
    "--stream",
    "streams",
    multiple=True,
    default=["mobilenetv2_112", "resnet101_224"],
    show_default=True,
    help="Of frames; may be repeated.",
)
@click.option("--device", "device_name", default="auto", show_default=True)
@click.option("--precision", type=click.Choice(list(PRECISIONS)), default="bf16", show_default=True)
@click.option("--batch", default=128, show_default=True, help="Frames in extraction's forward pass.")
@click.option("--videos", default=64, show_default=True)
@click.option("--seconds", default=60, show_default=True, help="Length of each video.")
@click.option(
    "--workers",
    "worker_counts",
    type=click.IntRange(1),
    multiple=True,
    default=[1, 4, 16],
    show_default=True,
    help="May be repeated.",
)
@click.option("--repeats", default=3, show_default=True, help="Timed runs of each; medians count.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Keep the videos here. [default: a temporary one]"
)
@click.option("--quick", is_flag=True, help="Three videos of 8 s, mobilenetv2_112, batches of 8, once.")
def main(
    *,
    streams: tuple[str, ...],
    device_name: str,
    precision: str,
    batch: int,
    videos: int,
    seconds: int,
    worker_counts: tuple[int, ...],
    repeats: int,
    folder: Path | None,
    quick: bool,
) -> None:
    sizes, at_least_s = [16, 32, 64, 128, 256, 512, 1024], 3.0
    if quick:
        streams, batch, videos, seconds, worker_counts, repeats = ("mobilenetv2_112",), 8, 3, 8, (1, 2), 1
        sizes, at_least_s = [4, 8], 0.2
    device = find_device(device_name)
    torch.backends.cudnn.benchmark = False  # as in extraction
    with video_folder(folder) as place:
        sources = write_videos(place, videos=videos, seconds=seconds)
        click.echo(
            f"{videos} videos of {seconds} s, {WIDTH}×{HEIGHT} H.264; {precision} on {device}, batch {batch}; "
            f"medians of {repeats}; load {load()}; {machine()}\n"
        )
        networks, whole = [], []
        for stream in streams:
            backbone = BusyBackbone(
                parse_stream(stream), weights="random:0", device=device, precision=precision
            )
            settings = [Settings(workers, batch, 120.0) for workers in worker_counts]
            pixels = [m.pixels for m in decoded(sources, backbone, settings[-1]) if isinstance(m, Frames)]
            bare: dict[int, list[float]] = {size: [] for size in sizes}
            fed = []
            for _ in range(repeats):
                for size in sizes:
                    bare[size].append(bare_rate(stream, device, precision, size, at_least_s))
                fed.append(from_memory_rate(backbone, pixels, batch, at_least_s))
            rate = statistics.median(fed)
            networks.append(
                network_row(stream, {size: statistics.median(bare[size]) for size in sizes}, rate)
            )
            compute = rate * videos / sum(map(len, pixels))
            whole += [end_to_end_row(sources, backbone, s, place, repeats, compute) for s in settings]
    header = ["stream", "bare network frames/s", "at batch", "from memory frames/s", "ratio"]
    click.echo(markdown([*header, f"at least {TARGET}"], networks))
    click.echo("\nVideos/s, and what share of the time the device was busy:\n")
    header = ["stream", "workers", "compute-bound", "decode-bound", "end to end", "of the slower", "busy"]
    click.echo(markdown([*header, "by the driver"], whole))


def network_row(stream: str, bare: dict[int, float], fed: float) -> list[str]:
    best = max(bare, key=lambda size: bare[size])
    ratio = fed / bare[best]
    met = "yes" if ratio >= TARGET else "NO"
    return [stream, f"{bare[best]:,.0f}", str(best), f"{fed:,.0f}", f"{ratio:.2f}", met]


def end_to_end_row(
    sources: Sources, backbone: BusyBackbone, settings: Settings, folder: Path, repeats: int, compute: float
) -> list[str]:
    """Rates in videos a second, given that of the network; end to end to the slower of both; the share busy."""
    count = len(sources.videos)
    decode, whole, busy, driver = [], [], [], []
    for _ in range(repeats):
        decode.append(count / seconds_of(lambda: deque(decoded(sources, backbone, settings), maxlen=0)))
        backbone.busy_s()
        with driver_utilisation(backbone.device) as shares:
            took_s = seconds_of(lambda: end_to_end(sources, backbone, settings, folder))
        whole.append(count / took_s)
        busy.append(backbone.busy_s() / took_s)
        driver.append(float(np.mean(shares)) if shares else float("nan"))
    slower = min(compute, statistics.median(decode))
    told = statistics.median(driver)
    return [
        backbone.spec.name,
        str(settings.decode_workers),
        f"{compute:.2f}",
        f"{statistics.median(decode):.2f}",
        f"{statistics.median(whole):.2f}",
        f"{statistics.median(whole) / slower:.2f}",
        f"{statistics.median(busy):.0%}",
        "–" if np.isnan(told) else f"{told:.0%}",
    ]


if __name__ == "__main__":
    main()
