"""Decode ∥ forward ∥ write: the shards of a run, one after another, while the decoders run ahead."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cache_schema import StreamSpec, VideoRecord, to_float16, write_shard
from cache_schema.files import printable
from cache_schema.schema import Float16Array, Float64Array
from extract.backbones.backbone import Backbone
from extract.batcher import Batcher, Rows
from extract.sources import SourceVideo, fingerprint
from extract.views import View
from extract.workers import DecodeJob, Finished, Frames, Opened, decode_all

# Of rows, in all streams, that a shard may have; as many again are being written meanwhile, from one more copy.
SHARD_BYTES = 512 << 20


@dataclass(frozen=True)
class Work:
    """Videos that lack the same streams."""

    videos: tuple[SourceVideo, ...]
    streams: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """How a run uses the machine.

    Attributes:
        decode_workers: processes that decode.
        batch: frames in a forward pass; of clips, as many as have that many frames, at least one.
        deadline_s: seconds that a decoder may take without getting a frame further.
        decoder: "auto", "decord" or "pyav".
        keep_damaged: of a video that does not decode right as a whole, keep the rows that do.
        decode_target: what a worker process runs, as "module:function"; for tests that simulate a decoder
            that hangs or crashes.
    """

    decode_workers: int
    batch: int
    deadline_s: float
    decoder: str = "auto"
    keep_damaged: bool = False
    decode_target: str | None = None


@dataclass
class Progress:
    """What a run has done so far; handed to the caller whenever it changes.

    Attributes:
        videos_done: videos whose rows are all computed, or that failed.
        frames_done: frames that have been decoded.
        failures: reasons by video id.
        partial: the same of videos of which there are rows, but not all.
        remarks: by video id, what is odd about the file and harmless.
        decoders: how many videos each decoder decoded.
    """

    videos_total: int
    videos_done: int = 0
    frames_done: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    partial: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    decoders: Counter[str] = field(default_factory=Counter)
    started_s: float = field(default_factory=time.monotonic)

    def add(self, other: Progress) -> None:
        """Count what another process has done, too."""
        self.videos_done += other.videos_done
        self.frames_done += other.frames_done
        self.failures |= other.failures
        self.partial |= other.partial
        self.remarks |= other.remarks
        self.decoders += other.decoders

    @property
    def elapsed_s(self) -> float:
        return max(time.monotonic() - self.started_s, 1e-9)


def extract_shards(
    work: Iterable[Work],
    backbones: Mapping[str, Backbone],
    cache: Path,
    settings: Settings,
    *,
    shard_size: int,
    tools: Mapping[str, str],
    progress: Progress,
    report: Callable[[Progress], None] = lambda progress: None,
    written: Callable[[Sequence[SourceVideo]], None] = lambda videos: None,
) -> None:
    """Extract videos into shards of the cache.

    A shard takes the next `shard_size` videos that are done, whatever their order, or fewer where they are so long
    that their rows would fill the memory: one slow video holds up no other, and a run that is killed loses the
    shard it was filling and the videos it was at.
    A video that fails becomes an entry without rows: in every stream where it cannot be decoded, in one where
    only that one's rows cannot be kept, or none of them decodes. Shards are written by a thread while the next
    ones are computed.

    Args:
        work: taken one by one as decoders fall idle, by another thread than the caller's.
        progress: kept up to date, and handed to `report`.
        written: called with the videos of a shard when every stream has it, by another thread.

    Raises:
        CacheError: a shard cannot be written.
    """
    run = _Run(work, backbones, cache, settings, shard_size, tools, progress, report, written)
    batchers = {
        name: Batcher(backbone, max(1, settings.batch // backbone.spec.sampling.frames))
        for name, backbone in backbones.items()
    }
    with contextlib.ExitStack() as stack:
        run.writer = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="shard-writer"))
        messages = decode_all(
            run.jobs(),
            workers=settings.decode_workers,
            deadline_s=settings.deadline_s,
            target=settings.decode_target,
        )
        stack.enter_context(contextlib.closing(messages))
        for message in messages:
            run.raise_failed_writes()
            video = run.decoding[message.key]
            if isinstance(message, Opened):
                run.opened(video, message)
            elif isinstance(message, Frames):
                run.count_frames(video, message.decoded)
                for name in video.group.streams_of(message.view):
                    for rows in batchers[name].add(video, message.first_row, message.pixels):
                        run.take(name, rows)
            else:
                del run.decoding[message.key]
                run.decoded(video, message)
            report(run.progress)
        for name, batcher in batchers.items():
            for rows in batcher.flush():
                run.take(name, rows)
        run.write_rest()
    run.raise_failed_writes()


@dataclass
class _Group:
    """What is being extracted of one Work; `done` is the shard that is filling."""

    streams: Mapping[str, View]
    done: list[_Video] = field(default_factory=list)
    nbytes: int = 0

    @property
    def views(self) -> tuple[View, ...]:
        """What decoders are asked for: once what several streams see."""
        return tuple(dict.fromkeys(self.streams.values()))

    def streams_of(self, view: int) -> list[str]:
        return [name for name, seen_view in self.streams.items() if seen_view == self.views[view]]


@dataclass(eq=False)
class _Video:
    """A video on its way: done when it cannot be decoded, or when the rows of every stream are there."""

    source: SourceVideo
    group: _Group
    specs: Mapping[str, StreamSpec]
    fingerprint: str
    opened: Opened | None = None
    frames_decoded: int = 0
    finished: Finished | None = None
    closed: bool = False
    error: str | None = None
    stream_errors: dict[str, str] = field(default_factory=dict)
    missing_rows: int = 0
    features: dict[str, Float16Array] = field(default_factory=dict)
    scores: dict[str, Float16Array] = field(default_factory=dict)

    def open(self, opened: Opened) -> None:
        self.opened = opened
        for name in self.group.streams:
            spec, rows = self.specs[name], len(self._spans(name))
            self.missing_rows += rows
            self.features[name] = np.empty((rows, spec.feature_dim), np.float16)
            if spec.num_classes:
                self.scores[name] = np.empty((rows, spec.num_classes), np.float16)

    def finish(self, finished: Finished) -> None:
        """All that there is of it has been sent."""
        self.finished = finished
        if finished.error is not None:
            self.fail(finished.error)
            return
        for stream in self.group.streams:
            lost = self._lost(stream)
            self.missing_rows -= len(lost)
            if lost and len(lost) == len(self._spans(stream)):
                self._fail_in(stream, self._damage(stream) or "")

    def _spans(self, stream: str) -> Float64Array:
        assert self.opened is not None
        return self.opened.spans[self._view(stream)]

    def _lost(self, stream: str) -> tuple[int, ...]:
        assert self.finished is not None
        return self.finished.lost[self._view(stream)] if self.finished.lost else ()

    def _view(self, stream: str) -> int:
        return self.group.views.index(self.group.streams[stream])

    def _damage(self, stream: str) -> str | None:
        """Why a stream has only a part of it."""
        if self.finished is None or self.finished.damage is None:
            return None
        lost = len(self._lost(stream))
        return self.finished.damage + (f"; {lost} of {len(self._spans(stream))} rows lost" if lost else "")

    def again(self) -> _Video:
        """The same video from the start; this one's rows, some of which may still be in a batch, are nobody's."""
        self.fail("decoded again")
        self.closed = True
        return _Video(self.source, self.group, self.specs, self.fingerprint)

    def take(self, stream: str, rows: Rows) -> None:
        if self.error is not None:
            return
        at = slice(rows.first_row, rows.first_row + len(rows.features))
        self.missing_rows -= len(rows.features)
        if stream in self.stream_errors:
            return
        try:
            self.features[stream][at] = to_float16(rows.features, f"features of {stream}")
            if rows.scores is not None:
                self.scores[stream][at] = to_float16(rows.scores, f"scores of {stream}")
        except ValueError as error:
            self._fail_in(stream, str(error))

    def _fail_in(self, stream: str, reason: str) -> None:
        self.stream_errors[stream] = reason
        self.features.pop(stream, None)
        self.scores.pop(stream, None)

    def fail(self, reason: str) -> None:
        self.error = reason
        self.features.clear()
        self.scores.clear()

    @property
    def nbytes(self) -> int:
        return sum(rows.nbytes for part in (self.features, self.scores) for rows in part.values())

    @property
    def reason(self) -> str | None:
        """Why it lacks rows in some stream."""
        return self.error or next(iter(self.stream_errors.values()), None)

    @property
    def damage(self) -> str | None:
        """Why some stream has only a part of it."""
        return next(filter(None, map(self._damage, self.features)), None)

    @property
    def is_done(self) -> bool:
        return self.finished is not None and (self.error is not None or self.missing_rows == 0)

    def record(self, stream: str) -> VideoRecord:
        source = printable(self.source.path)
        error = self.error or self.stream_errors.get(stream)
        if error is not None or self.opened is None or self.finished is None:
            error = error or "not decoded"
            return VideoRecord.failed(
                self.specs[stream], self.source.id, error, source=source, fingerprint=self.fingerprint
            )
        lost, spans = self._lost(stream), self._spans(stream)
        rows = slice(
            len(spans) - len(lost)
        )  # those that are lost were left out when the others were numbered
        scores = self.scores.pop(stream, None)
        return VideoRecord(
            id=self.source.id,
            features=self.features.pop(stream)[rows],
            scores=None if scores is None else scores[rows],
            spans=np.delete(spans, lost, axis=0),
            duration_s=self.opened.duration_s,
            fps=self.opened.fps,
            source=source,
            fingerprint=self.fingerprint,
            damage=self._damage(stream),
            lost=lost,
            decoder=self.finished.decoder,
            remarks=self.finished.remarks,
        )


class _Run:
    """The state of one run: which videos are where between the decoders and their shards."""

    def __init__(
        self,
        work: Iterable[Work],
        backbones: Mapping[str, Backbone],
        cache: Path,
        settings: Settings,
        shard_size: int,
        tools: Mapping[str, str],
        progress: Progress,
        report: Callable[[Progress], None],
        written: Callable[[Sequence[SourceVideo]], None],
    ) -> None:
        self.work = work
        self.specs = {name: backbone.spec for name, backbone in backbones.items()}
        self._views = {name: backbone.view for name, backbone in backbones.items()}
        self.cache, self.settings, self.shard_size, self.tools = cache, settings, shard_size, tools
        self.progress, self.report, self.written = progress, report, written
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._begun = self._ended = 0  # videos; one counted by the decoders' thread, the other by ours
        self.decoding: dict[int, _Video] = {}
        self.writer: ThreadPoolExecutor
        self._writes: list[Future[None]] = []

    def jobs(self) -> Iterator[DecodeJob]:
        """Every planned video, taken by the decoders' listener thread as they fall idle."""
        key = 0
        for part in self.work:
            group = self._groups.setdefault(
                part.streams, _Group({name: self._views[name] for name in part.streams})
            )
            for source in part.videos:
                try:
                    content = fingerprint(source.path, source.frames_fps)
                except OSError:  # the decoder will meet the same trouble and say so
                    content = ""
                video = _Video(source, group, self.specs, content)
                self.decoding[key] = video
                self._begun += 1
                yield DecodeJob(
                    key,
                    source.path,
                    group.views,
                    decoder=self.settings.decoder,
                    keep_damaged=self.settings.keep_damaged,
                    frames_fps=source.frames_fps,
                )
                key += 1

    def opened(self, video: _Video, message: Opened) -> None:
        """A decoder begins with a video, for the second time perhaps: PyAV, after decord was lost with it."""
        if video.opened is not None:
            self.decoding[message.key] = video = video.again()
        video.open(message)

    def take(self, stream: str, rows: Rows) -> None:
        """Rows of one video have been computed."""
        video: _Video = rows.owner
        video.take(stream, rows)
        self._close_if_done(video)

    def count_frames(self, video: _Video, decoded: int) -> None:
        self.progress.frames_done += decoded - video.frames_decoded
        video.frames_decoded = decoded

    def decoded(self, video: _Video, message: Finished) -> None:
        """A decoder is done with a video; its last rows may still wait in a batch."""
        video.finish(message)
        if message.error is None and video.opened is not None:
            self.count_frames(video, video.opened.frames)
        self._close_if_done(video)

    def _close_if_done(self, video: _Video) -> None:
        if video.closed or not video.is_done:
            return
        video.closed = True
        self._ended += 1
        self.progress.videos_done += 1
        self._note(video)
        group = video.group
        group.done.append(video)
        group.nbytes += video.nbytes
        if len(group.done) == self.shard_size or group.nbytes > SHARD_BYTES:
            self._submit(group)
        self.report(self.progress)

    def _note(self, video: _Video) -> None:
        """What the run will have to tell of a video."""
        assert video.finished is not None
        video_id, progress = video.source.id, self.progress
        if video.reason is not None:
            progress.failures[video_id] = video.reason
        if video.damage is not None:
            progress.partial[video_id] = video.damage
        if video.features:
            progress.decoders[video.finished.decoder] += 1
        if video.finished.remarks:
            progress.remarks[video_id] = video.finished.remarks

    def write_rest(self) -> None:
        """Write the shards that did not become full."""
        if lost := self._begun - self._ended:  # a decoder kept rows back: our mistake
            raise RuntimeError(f"{lost} videos ended without all their rows and without an error")
        for group in self._groups.values():
            if group.done:
                self._submit(group)

    def _submit(self, group: _Group) -> None:
        while len(self._writes) > 1:  # what waits to be written is in memory
            self._writes.pop(0).result()
        videos, group.done, group.nbytes = group.done, [], 0
        self._writes.append(self.writer.submit(self._write, tuple(group.streams), videos))

    def _write(self, streams: Sequence[str], videos: Sequence[_Video]) -> None:
        for name in streams:
            records = [video.record(name) for video in videos]
            write_shard(self.cache / name, self.specs[name], records, tools=self.tools)
        self.written([video.source for video in videos])

    def raise_failed_writes(self) -> None:
        """A run whose shards cannot be written must not go on."""
        while self._writes and self._writes[0].done():
            self._writes.pop(0).result()
