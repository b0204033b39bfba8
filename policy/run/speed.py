"""Seconds per video on this machine (LiteEval, Table 10): backbones, and a policy's own networks.

A video's time is its coarse rows times the seconds of the coarse backbone for a row, its fine rows times those of
the fine one, and the method's networks on cached features. All parts are measured in turn within one run, so
that a busy minute of the machine falls on all rows alike, and only rows of one run are to be compared. Decoding,
resizing and copies to the device are no part of it, as they are the same for all methods or, where a method skips
frames, in its favour. Optical flow counts where a network estimates it.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from cache_schema import StreamSpec, UserError
from policy.data import Role, VideoSet, batches
from policy.evaluation import Predictions
from policy.method import Method

if TYPE_CHECKING:
    from extract.backbones import StreamRequest

Key = TypeVar("Key")

BATCH = 16
"""Videos, or rows of a backbone, that are computed together (Sec. 4.2, Runtime)."""
REPEATS = 5
SAMPLED = 16
_LONG_S = 10.0  # what takes longer is timed once: it is long enough for its share of chance to be small


@dataclass(frozen=True)
class Machine:
    """What was measured on.

    Attributes:
        processor: name of the GPU, or of the CPU.
        threads: that torch computes with on the CPU.
    """

    processor: str
    threads: int
    torch_version: str

    @staticmethod
    def of(device: torch.device) -> Machine:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()
        return Machine(name, torch.get_num_threads(), torch.__version__)

    def __str__(self) -> str:
        return f"{self.processor}, {self.threads} CPU threads, torch {self.torch_version}"


@dataclass(frozen=True)
class Subject:
    """A method whose time is wanted.

    Attributes:
        method: trained, or not: its weights decide nothing but its decisions, which are in `predictions`.
        videos: of which the predictions are, with the streams that it reads.
    """

    title: str
    method: Method
    videos: VideoSet
    predictions: Predictions


@dataclass(frozen=True)
class RuntimeRow:
    """Seconds per video, mean over videos (and draws).

    Attributes:
        coarse_s, fine_s: of the backbones; None where one cannot be timed.
        networks_s: of the method's own networks.
        reason: why there is no time; empty where there is one.
    """

    title: str
    coarse_s: float | None
    fine_s: float | None
    networks_s: float
    reason: str = ""

    @property
    def seconds(self) -> float | None:
        """All together; None where a part is missing."""
        if self.coarse_s is None or self.fine_s is None:
            return None
        return self.coarse_s + self.fine_s + self.networks_s


@dataclass(frozen=True)
class Runtimes:
    """Rows that were measured together."""

    rows: tuple[RuntimeRow, ...]
    machine: Machine
    batch: int


def measure(
    subjects: Sequence[Subject],
    *,
    device: torch.device,
    batch: int = BATCH,
    repeats: int = REPEATS,
    report: Callable[[str], None] = lambda what: None,
) -> Runtimes:
    """Time methods, the backbones of all of them in turn.

    A backbone that `extract` cannot build (of features made elsewhere) leaves its rows without a time.

    Args:
        batch: videos, and rows of a backbone, that are computed together.
        repeats: how often each is timed; the median counts. What takes more than 10 s is timed once.
        report: told what comes next.
    """
    specs = dict.fromkeys(_spec(subject, role) for subject in subjects for role in subject.method.roles)
    works: dict[StreamSpec, Callable[[], object]] = {}
    reasons: dict[StreamSpec, str] = {}
    for spec in specs:
        try:
            works[spec] = _forward(request_of(spec), batch, device)
        except UserError as error:
            reasons[spec] = f"{spec.name}: {error}"
    report(f"timing {', '.join(spec.name for spec in works) or 'no backbone'}")
    per_row = {spec: seconds / batch for spec, seconds in _medians(works, repeats, device).items()}
    works.clear()  # and with them the backbones

    rows = []
    for subject in subjects:
        report(f"timing the networks of {subject.title}")
        spent: dict[Role, float | None] = {"coarse": 0.0, "fine": 0.0}
        why = []
        for role, count in _rows_per_video(subject).items():
            spec = _spec(subject, role)
            spent[role] = per_row[spec] * count if spec in per_row else None
            why += [reasons[spec]] if spec in reasons else []
        networks = policy_seconds(subject.method, subject.videos, batch=batch, repeats=repeats, device=device)
        rows.append(RuntimeRow(subject.title, spent["coarse"], spent["fine"], networks, "; ".join(why)))
    return Runtimes(tuple(rows), Machine.of(device), batch)


def seconds_per_row(
    stream: StreamSpec | str, *, device: torch.device, batch: int = BATCH, repeats: int = REPEATS
) -> float:
    """Median seconds of a backbone's forward pass on a batch that lies on the device, divided by its rows.

    Args:
        stream: of a cache, or a name that batch-extract knows.

    Raises:
        UserError: no such stream, or a backbone that cannot be built.
    """
    from extract.backbones import parse_stream

    request = parse_stream(stream) if isinstance(stream, str) else request_of(stream)
    work = _forward(request, batch, device)
    return _medians({"": work}, repeats, device)[""] / batch


def policy_seconds(
    method: Method,
    videos: VideoSet,
    *,
    device: torch.device,
    batch: int = BATCH,
    repeats: int = REPEATS,
) -> float:
    """Seconds of a method's own networks per video, on features that lie on the device.

    The mean over the videos of at most SAMPLED batches, spread evenly over the set.
    """
    method.model.to(device).eval()
    starts = range(0, len(videos), batch)
    count = min(len(starts), SAMPLED)
    chosen = [starts[i * (len(starts) - 1) // max(count - 1, 1)] for i in range(count)]
    order = [i for start in chosen for i in range(start, min(start + batch, len(videos)))]
    total = 0.0
    for read in batches(
        videos, batch, rows=method.rows, scored=method.scored, order=order, read=method.reads
    ):
        moved = read.to(device)

        def predict() -> object:
            generator = torch.Generator().manual_seed(method.config.seed)
            return method.predict(moved, generator)  # noqa: B023  # called before the next batch is read

        total += _medians({"": predict}, repeats, device)[""]
    return total / len(order)


def request_of(spec: StreamSpec) -> StreamRequest:
    """What batch-extract is asked for to make such a stream.

    Raises:
        UserError: its backbone is not one of ours.
    """
    from extract.backbones import StreamRequest
    from extract.backbones.video3d import FAMILIES

    if not spec.backbone.startswith("timm:") and spec.backbone not in FAMILIES:
        raise UserError(f"no backbone {spec.backbone!r} to time")
    seen = spec.preprocessing
    flow = None if seen.flow is None else seen.flow.partition(" ")[0]  # behind it are the weights
    return StreamRequest(spec.name, spec.backbone, seen.crop, spec.sampling, seen.resize, flow)


def _forward(request: StreamRequest, batch: int, device: torch.device) -> Callable[[], object]:
    """A forward pass with random weights on black pixels: neither decides how long it takes.

    Raises:
        UserError: the backbone cannot be built, or not for such an input.
    """
    from extract.backbones.backbone import Backbone

    try:
        backbone = Backbone(request, weights="random:0", device=device)
    except ValueError as error:
        raise UserError(str(error)) from error
    pixels = torch.zeros((batch, *backbone.view.row_shape), dtype=torch.uint8, device=device)
    if backbone.view.flow_here:
        pixels = pixels.half()
    return lambda: backbone(pixels)


def _rows_per_video(subject: Subject) -> dict[Role, float]:
    """How many rows each backbone computes for a video, mean over videos (and draws)."""
    counts: Mapping[Role, float] = {
        "coarse": float(subject.predictions.seen.mean()),
        "fine": float(subject.predictions.fine_rows.mean()),
    }
    return {role: counts[role] for role in subject.method.roles}


def _spec(subject: Subject, role: Role) -> StreamSpec:
    return subject.videos.streams[role].spec


def _medians(
    works: Mapping[Key, Callable[[], object]], repeats: int, device: torch.device
) -> dict[Key, float]:
    """Median seconds of each, after a first time that does not count, run in turn."""
    first = {key: _seconds(work, device) for key, work in works.items()}
    times: dict[Key, list[float]] = {key: [] for key in works}
    for turn in range(repeats):
        for key, work in works.items():
            if turn == 0 or first[key] <= _LONG_S:
                times[key].append(_seconds(work, device))
    return {key: statistics.median(seconds) for key, seconds in times.items()}


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _finish(device)
    started = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    """Wait for what a GPU was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cpu() -> str:
    """What Linux calls it; elsewhere the kind of processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
