"""Seconds per video on this machine (LiteEval, Table 10): backbones, and a policy's own networks.

A video's time is, for each stream, the number of rows computed times the seconds of its backbone for a row, plus
the time of the method's networks on cached features. All parts are measured in turn within one run, so that a
busy minute of the machine affects all rows of the table alike; compare only rows of one run. Decoding, resizing
and copies to the device are left out: they are the same for all methods or, where a method skips frames, in its
favour. Optical flow counts where a network estimates it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cache_schema import StreamSpec, UserError
from policy.data.batches import Role, VideoSet, batched
from policy.deploy.timing import Machine, medians, spread_evenly
from policy.evaluation.predictions import Predictions
from policy.method import Method

if TYPE_CHECKING:
    from extract.backbones import StreamRequest
    from extract.backbones.backbone import Backbone

BATCH = 16
"""Videos, or rows of a backbone, in a batch (Sec. 4.2, Runtime)."""
REPEATS = 5
SAMPLED = 16


@dataclass(frozen=True)
class Subject:
    """A method to be timed.

    Attributes:
        method: trained or not: its weights only affect its decisions, which are in `predictions`.
        videos: the videos of the predictions, with the streams that the method reads.
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
        networks_s: of the method's networks.
        reason: why there is no time; else empty.
    """

    title: str
    streams_s: Mapping[Role, float | None]
    networks_s: float
    reason: str = ""

    @property
    def seconds(self) -> float | None:
        """All together; None where a part is missing."""
        parts = [seconds for seconds in self.streams_s.values() if seconds is not None]
        return sum(parts) + self.networks_s if len(parts) == len(self.streams_s) else None


@dataclass(frozen=True)
class Runtimes:
    """Rows measured in one run, which can be compared."""

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

    Methods that read a stream whose backbone `extract` cannot build (features made elsewhere) get no time.

    Args:
        batch: videos, and rows of a backbone, in a batch.
        repeats: how often each is timed; the median counts. What takes more than 10 s is timed once.
        report: called with what is timed next.
    """
    specs = dict.fromkeys(_spec(subject, role) for subject in subjects for role in subject.method.roles)
    works: dict[StreamSpec, Callable[[], object]] = {}
    reasons: dict[StreamSpec, str] = {}
    for spec in specs:
        try:
            works[spec] = forward_pass(build(request_of(spec), device), batch)
        except UserError as error:
            reasons[spec] = f"{spec.name}: {error}"
    report(f"timing {', '.join(spec.name for spec in works) or 'no backbone'}")
    per_row = {spec: seconds / batch for spec, seconds in medians(works, repeats, device).items()}
    works.clear()  # and with them the backbones

    rows = []
    for subject in subjects:
        report(f"timing the networks of {subject.title}")
        streams_s: dict[Role, float | None] = {}
        problems = []
        for role, count in _rows_per_video(subject).items():
            spec = _spec(subject, role)
            streams_s[role] = per_row[spec] * count if spec in per_row else None
            problems += [reasons[spec]] if spec in reasons else []
        networks_s = policy_seconds(
            subject.method, subject.videos, batch=batch, repeats=repeats, device=device
        )
        rows.append(RuntimeRow(subject.title, streams_s, networks_s, "; ".join(problems)))
    return Runtimes(tuple(rows), Machine.of(device), batch)


def policy_seconds(
    method: Method, videos: VideoSet, *, device: torch.device, batch: int = BATCH, repeats: int = REPEATS
) -> float:
    """Seconds of a method's networks per video, on features that are on the device already.

    The mean over the videos of at most SAMPLED batches, spread evenly over the set.
    """
    method.model.to(device).eval()
    sampled = spread_evenly(batched(range(len(videos)), batch), SAMPLED)
    total_s = 0.0
    for part in sampled:
        inputs = videos.batch(part, method.rows, method.scored, read=method.reads).to(device)

        def predict() -> object:
            generator = torch.Generator().manual_seed(method.config.seed)
            return method.predict(inputs, generator)  # noqa: B023  # called before the next batch is read

        total_s += medians({"": predict}, repeats, device)[""]
    return total_s / sum(map(len, sampled))


def request_of(spec: StreamSpec) -> StreamRequest:
    """The request with which batch-extract makes such a stream.

    Raises:
        UserError: its backbone is not one of ours.
    """
    from extract.backbones import StreamRequest, is_known

    if not is_known(spec.backbone):
        raise UserError(f"no backbone {spec.backbone!r} to time")
    view = spec.preprocessing
    flow = None if view.flow is None else view.flow.partition(" ")[0]  # the weights follow it
    return StreamRequest(spec.name, spec.backbone, view.crop, spec.sampling, view.resize, flow)


def build(request: StreamRequest, device: torch.device) -> Backbone:
    """A backbone with random weights, on which its time does not depend.

    Raises:
        UserError: it cannot be built, or not for such an input.
    """
    from extract.backbones.backbone import Backbone

    try:
        return Backbone(request, weights="random:0", device=device)
    except ValueError as error:
        raise UserError(str(error)) from error


def forward_pass(backbone: Backbone, batch: int) -> Callable[[], object]:
    """A forward pass on black pixels that are on the device: the time does not depend on them either."""
    pixels = torch.zeros((batch, *backbone.view.row_shape), dtype=torch.uint8, device=backbone.device)
    if backbone.view.flow_here:
        pixels = pixels.half()
    return lambda: backbone(pixels)


def _rows_per_video(subject: Subject) -> dict[Role, float]:
    """How many rows each backbone computes for a video, mean over videos (and draws)."""
    method, predictions = subject.method, subject.predictions
    return {
        role: float(
            np.mean(
                [method.stream_rows(role, predictions.row_counts, rows) for rows in predictions.fine_rows]
            )
        )
        for role in method.roles
    }


def _spec(subject: Subject, role: Role) -> StreamSpec:
    return subject.videos.streams[role].spec
