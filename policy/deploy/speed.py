"""Seconds per video on this machine (LiteEval, Table 10): backbones, and a policy's own networks.

A video's time is, of each stream, the rows that were computed times the seconds of its backbone for a row, and the
method's networks on cached features. All parts are measured in turn within one run, so that a busy minute of the
machine falls on all rows alike, and only rows of one run are to be compared. Decoding, resizing and copies to the
device are no part of it, as they are the same for all methods or, where a method skips frames, in its favour.
Optical flow counts where a network estimates it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cache_schema import StreamSpec, UserError
from policy.data.batches import Role, VideoSet, batches
from policy.deploy.timing import Machine, medians
from policy.evaluation.predictions import Predictions
from policy.method import Method

if TYPE_CHECKING:
    from extract.backbones import StreamRequest
    from extract.backbones.backbone import Backbone

BATCH = 16
"""Videos, or rows of a backbone, that are computed together (Sec. 4.2, Runtime)."""
REPEATS = 5
SAMPLED = 16


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
        streams_s: of the backbones, by role; None where one cannot be timed.
        networks_s: of the method's own networks.
        reason: why there is no time; empty where there is one.
    """

    title: str
    streams_s: Mapping[Role, float | None]
    networks_s: float
    reason: str = ""

    @property
    def seconds(self) -> float | None:
        """All together; None where a part is missing."""
        known = [seconds for seconds in self.streams_s.values() if seconds is not None]
        return sum(known) + self.networks_s if len(known) == len(self.streams_s) else None


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
    per_row = {spec: seconds / batch for spec, seconds in medians(works, repeats, device).items()}
    works.clear()  # and with them the backbones

    rows = []
    for subject in subjects:
        report(f"timing the networks of {subject.title}")
        spent: dict[Role, float | None] = {}
        why = []
        for role, count in _rows_per_video(subject).items():
            spec = _spec(subject, role)
            spent[role] = per_row[spec] * count if spec in per_row else None
            why += [reasons[spec]] if spec in reasons else []
        networks = policy_seconds(subject.method, subject.videos, batch=batch, repeats=repeats, device=device)
        rows.append(RuntimeRow(subject.title, spent, networks, "; ".join(why)))
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
    return medians({"": work}, repeats, device)[""] / batch


def policy_seconds(
    method: Method, videos: VideoSet, *, device: torch.device, batch: int = BATCH, repeats: int = REPEATS
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

        total += medians({"": predict}, repeats, device)[""]
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


def build(request: StreamRequest, device: torch.device) -> Backbone:
    """A backbone with random weights, which do not decide how long it takes.

    Raises:
        UserError: it cannot be built, or not for such an input.
    """
    from extract.backbones.backbone import Backbone

    try:
        return Backbone(request, weights="random:0", device=device)
    except ValueError as error:
        raise UserError(str(error)) from error


def forward_pass(backbone: Backbone, batch: int) -> Callable[[], object]:
    """On a batch of black pixels that lies on the device: nor do they decide how long it takes."""
    pixels = torch.zeros((batch, *backbone.view.row_shape), dtype=torch.uint8, device=backbone.device)
    if backbone.view.flow_here:
        pixels = pixels.half()
    return lambda: backbone(pixels)


def _forward(request: StreamRequest, batch: int, device: torch.device) -> Callable[[], object]:
    """Raises UserError as `build` does."""
    return forward_pass(build(request, device), batch)


def _rows_per_video(subject: Subject) -> dict[Role, float]:
    """How many rows each backbone computes for a video, mean over videos (and draws)."""
    method, said = subject.method, subject.predictions
    return {
        role: float((said.fine_rows if role == method.gated else said.row_counts).mean())
        for role in method.roles
    }


def _spec(subject: Subject, role: Role) -> StreamSpec:
    return subject.videos.streams[role].spec
