"""What a run would do, and about how long it would take: some of its videos are opened, and a few extracted."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cache_schema import StreamSpec
from cache_schema.command import count, size
from cache_schema.costs import stream_cost
from extract.backbones import StreamRequest
from extract.backbones.backbone import Backbone
from extract.pipeline import Progress, Settings, Work, extract_shards
from extract.planning import Plan, make_plan, streams_there
from extract.sources import Sources, SourceVideo
from extract.views import View
from extract.workers import DecodeJob, Finished, Opened, decode_all

# For so long videos are opened, and then for as long some of them extracted; what is under way has as long again.
WINDOW_S = 5.0
_FLOAT16_BYTES, _SPAN_BYTES = 2, 16

_Missing = tuple[SourceVideo, tuple[str, ...]]  # a video, and the streams that are to be extracted of it


@dataclass(frozen=True)
class StreamForecast:
    """What would be added to a stream.

    Attributes:
        gflops: of its network for all these rows, 10⁹ multiply-accumulates.
    """

    there: int
    videos: int
    rows: int
    bytes: int
    gflops: float


@dataclass(frozen=True)
class Forecast:
    """What a run would do.

    Attributes:
        videos: named by the request.
        there: in the cache already, in every stream, in part at least.
        partial: reasons by id, of those that are there in part.
        failed: reasons by id, of those known to fail from an earlier run.
        refused: reasons by id or file, of those that would not be tried.
        missing: how many would be extracted.
        opened: how many of these were opened; where it was not all, what follows is extrapolated.
        unreadable: reasons by id, of those that could not be opened.
        duration_s: of all that would be extracted.
        seconds: that it would take; None: nothing to extract, or nothing could be measured.
        worked_s: for how long this was measured.
    """

    videos: int
    there: int
    partial: Mapping[str, str]
    failed: Mapping[str, str]
    refused: Mapping[str, str]
    missing: int
    opened: int
    unreadable: Mapping[str, str]
    duration_s: float
    streams: Mapping[str, StreamForecast]
    seconds: float | None
    worked_s: float

    @property
    def failures(self) -> dict[str, str]:
        """Reasons by id or file, of all that would fail as far as is known."""
        return {**self.failed, **self.refused, **self.unreadable}

    def to_json(self) -> dict[str, Any]:
        return {
            "videos": self.videos,
            "already_there": self.there,
            "partial": dict(self.partial),
            "failed_earlier": dict(self.failed),
            "refused": dict(self.refused),
            "to_extract": self.missing,
            "opened": self.opened,
            "unreadable": dict(self.unreadable),
            "hours": self.duration_s / 3600,
            "streams": {name: vars(stream) for name, stream in self.streams.items()},
            "seconds": self.seconds,
            "measured_s": self.worked_s,
        }

    def lines(self) -> Iterator[str]:
        """The same for people, in lines that fit 80 columns."""
        about = "" if self.opened == self.missing else "about "
        of_video = f", {about}{_time(self.duration_s)} of video" if self.missing else ""
        topics = [
            ("videos", f"{self.videos:,}"),
            ("in the cache", f"{self.there:,}" + f", {len(self.partial):,} in part" * bool(self.partial)),
            ("failed earlier", f"{len(self.failed):,}"),
            ("refused", f"{len(self.refused):,}"),
            ("to extract", f"{self.missing:,}{of_video}"),
        ]
        if self.opened < self.missing or self.unreadable:
            topics.append(("opened", f"{self.opened:,} of those, {len(self.unreadable):,} cannot be read"))
        for name, stream in self.streams.items():
            if stream.videos:
                rows = f"{about}{count(stream.rows, 'rows')} of {count(stream.videos, 'videos')}"
                topics.append((name, f"{rows}, {size(stream.bytes)}"))
        if self.missing:
            gflops = sum(stream.gflops for stream in self.streams.values())
            topics.append(("networks", f"{about}{gflops:,.0f} GFLOPs"))
        if self.seconds is not None:
            topics.append(
                ("time", f"about {_time(self.seconds)}, estimated from {_time(self.worked_s)} of it")
            )
        width = max(len(topic) for topic, _ in topics)
        yield from (f"{topic:{width}}  {line}" for topic, line in topics)
        yield "nothing was written to the cache"


@dataclass(frozen=True)
class _Opened:
    """A missing video that was opened: how long it is, the frames that its rows show, and its rows by stream."""

    video: SourceVideo
    streams: tuple[str, ...]
    duration_s: float = 0.0
    frames: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None


def foresee(
    sources: Sources,
    backbones: Mapping[str, Backbone],
    specs: Mapping[str, StreamSpec],
    cache: Path,
    settings: Settings,
    *,
    retry_failed: bool = False,
    jobs: int = 1,
) -> Forecast:
    """Find out what `extract` would do. Nothing is written but a few rows, to a temporary folder.

    Of many videos some are drawn and opened, always the same ones. How long it takes is measured on those, in this
    process and its decoders, and divided by `jobs`.

    Args:
        specs: of the streams that would be extracted; the backbones may have other weights, by `stand_in`.

    Raises:
        CacheError: as `extract` does.
    """
    plan = make_plan(sources.videos, specs, cache, retry_failed=retry_failed, read_only=True)
    missing = _drawn(plan)
    opened = _open(missing, {name: backbone.view for name, backbone in backbones.items()}, settings)
    readable = [video for video in opened if video.error is None]
    frames_per_s, worked_s = _extract(readable, backbones, settings) if readable else (0.0, 0.0)
    times = len(missing) / max(len(opened), 1)
    frames = times * sum(video.frames for video in readable)
    return Forecast(
        videos=len(sources.videos) + len(sources.refused),
        there=plan.present,
        partial=plan.partial,
        failed=plan.failed,
        refused=dict(sources.refused) | plan.refused,
        missing=len(missing),
        opened=len(opened),
        unreadable={video.video.id: video.error for video in opened if video.error is not None},
        duration_s=times * sum(video.duration_s for video in readable),
        streams={name: _stream(spec, missing, opened, sources, plan) for name, spec in specs.items()},
        seconds=frames / frames_per_s / jobs if frames_per_s else None,
        worked_s=worked_s,
    )


def stand_in(weights: str) -> str:
    """Weights with which a network is as quick and gives as many numbers: pretrained ones may not be there."""
    return "random:0" if weights == "pretrained" else weights


def specs_of(
    backbones: Mapping[str, Backbone], requests: Mapping[str, tuple[StreamRequest, str]], cache: Path
) -> dict[str, StreamSpec]:
    """What backbones with weights by `stand_in` would be with those of the requests.

    Raises:
        CacheError: the cache is damaged.
    """
    there = streams_there([*requests.values()], cache, precision="auto")
    specs = {name: backbone.spec for name, backbone in backbones.items()}
    for name, (_, weights) in requests.items():
        if weights != stand_in(weights):
            spec = specs[name]
            specs[name] = (
                replace(there[name].spec, precision=spec.precision)
                if name in there
                else replace(spec, weights=weights, weights_digest="")
            )
    return specs


def _drawn(plan: Plan) -> list[_Missing]:
    """What is missing, in random order; but first one of those that lack the same streams, for each such kind."""
    chance = random.Random(0)
    kinds = [[(video, streams) for video in videos] for streams, videos in plan.missing.items()]
    for kind in kinds:
        chance.shuffle(kind)
    others = [missing for kind in kinds for missing in kind[1:]]
    chance.shuffle(others)
    return [kind[0] for kind in kinds] + others


def _open(missing: Sequence[_Missing], views: Mapping[str, View], settings: Settings) -> list[_Opened]:
    """Open videos until the time is up."""
    clock = _Clock()

    def jobs() -> Iterator[DecodeJob]:
        for key, (video, streams) in enumerate(missing):
            if clock.windows > 1:
                return
            yield DecodeJob(
                key,
                video.path,
                _views(streams, views),
                settings.decoder,
                settings.keep_damaged,
                video.frames_fps,
                only_open=True,
            )

    opened: dict[int, _Opened] = {}
    messages = decode_all(
        jobs(),
        workers=settings.decode_workers,
        deadline_s=settings.deadline_s,
        target=settings.decode_target,
    )
    with contextlib.closing(messages):
        for message in messages:
            clock.start()
            video, streams = missing[message.key]
            if isinstance(message, Opened):
                spans = dict(zip(_views(streams, views), message.spans, strict=True))
                rows = {name: len(spans[views[name]]) for name in streams}
                opened[message.key] = _Opened(video, streams, message.duration_s, message.frames, rows)
            elif isinstance(message, Finished) and message.error is not None:
                opened[message.key] = _Opened(video, streams, error=message.error)
            if clock.windows > 2:
                break
    return list(opened.values())


def _extract(
    opened: Sequence[_Opened], backbones: Mapping[str, Backbone], settings: Settings
) -> tuple[float, float]:
    """Extract videos until the time is up; returns frames a second, and how many seconds it took."""
    clock = _Clock()
    progress = Progress(len(opened))

    def work() -> Iterator[Work]:
        for video in opened:
            if clock.windows > 1:
                return
            yield Work((video.video,), video.streams)

    def report(progress: Progress) -> None:
        clock.start()
        if clock.windows > 2 and progress.frames_done:
            raise _Enough

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Enough):
        extract_shards(
            work(),
            backbones,
            Path(folder),
            settings,
            shard_size=256,
            tools={},
            progress=progress,
            report=report,
        )
    return progress.frames_done / clock.elapsed_s, clock.elapsed_s


class _Enough(Exception):
    pass


class _Clock:
    """Runs from the first `start`: the processes have then started."""

    def __init__(self) -> None:
        self._started_s: float | None = None

    def start(self) -> None:
        if self._started_s is None:
            self._started_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return 0.0 if self._started_s is None else max(time.monotonic() - self._started_s, 1e-6)

    @property
    def windows(self) -> float:
        return self.elapsed_s / WINDOW_S


def _views(streams: Sequence[str], views: Mapping[str, View]) -> tuple[View, ...]:
    return tuple(dict.fromkeys(views[name] for name in streams))


def _stream(
    spec: StreamSpec,
    missing: Sequence[_Missing],
    opened: Sequence[_Opened],
    sources: Sources,
    plan: Plan,
) -> StreamForecast:
    lacking = {video.id for video, streams in missing if spec.name in streams}
    counts = [video.rows.get(spec.name, 0) for video in opened if spec.name in video.streams]
    rows = round(sum(counts) * len(lacking) / max(len(counts), 1))
    return StreamForecast(
        there=len(sources.videos) - len(lacking | plan.failed.keys() | plan.refused.keys()),
        videos=len(lacking),
        rows=rows,
        bytes=rows * (_FLOAT16_BYTES * (spec.feature_dim + spec.num_classes) + _SPAN_BYTES),
        gflops=rows * stream_cost(spec).gflops(),
    )


def _time(seconds: float) -> str:
    """A length of time for people."""
    for unit, most, unit_s in (("s", 90, 1), ("min", 90, 60), ("h", 48, 3600)):
        if seconds < most * unit_s:
            return f"{seconds / unit_s:.{1 if seconds < 10 * unit_s else 0}f} {unit}"
    return f"{seconds / 86400:,.1f} days"
