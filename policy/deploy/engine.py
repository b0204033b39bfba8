"""A trained policy on many videos at once: only what sessions want is decoded, resized and computed.

Each video in flight has a session, and a process that decodes it (`policy.deploy.videos`). When every session has
the rows that it wants, or the first of them, the stream of which most rows are there is computed, of all videos
together; then those sessions go on together, and say what they want next. Meanwhile the decoders go a few frames
further, and one more video is being opened. What is computed together depends only on the videos and their order,
not on which decoder was quicker, so that the same call gives the same bits.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from operator import length_hint
from typing import TYPE_CHECKING

from cache_schema.costs import stream_cost
from policy.deploy.network import Backbones
from policy.evaluation.detection import Detections
from policy.session import FloatArray, IntArray, Localizer, Rows, Session, Wanted

if TYPE_CHECKING:
    from extract.sources import SourceVideo
    from extract.views import PixelArray
    from policy.deploy.videos import Message, Open, VideoProcess, Want

_TICK_S = 1.0
_PATIENCE = 4  # batches that are computed while a video waits
_MOST_ROWS = 4096  # that a process is told of at once
_START_S = 120.0  # to import the decoders, on a machine that is busy


@dataclass(frozen=True)
class Settings:
    """How a run uses the machine.

    Attributes:
        in_flight: videos that are at work together.
        kept_bytes: of decoded frames, those of all videos in flight together.
        deadline_s: seconds that a decoder may take without getting a frame further.
        decoder: "auto", "decord" or "pyav".
        keep_damaged: where a video fails in the middle, its answer is that from the rows so far.
        target: what a video's process runs, for tests.
    """

    in_flight: int = 8
    kept_bytes: int = 1 << 30
    deadline_s: float = 120.0
    decoder: str = "auto"
    keep_damaged: bool = False
    target: str = "policy.deploy.videos:serve"


@dataclass(frozen=True, eq=False)
class Step:
    """Rows that a session was given at once.

    Attributes:
        rows, spans_s: (n,) and (n, 2), as in Wanted.
        gflops: of the video up to and including this step.
    """

    stream: str
    rows: IntArray
    spans_s: FloatArray
    gflops: float


@dataclass
class Spent:
    """Seconds that went into a video so far, beside those of the backbones.

    Attributes:
        decoding_s: CPU seconds of its process, which decodes, cuts out and resizes while others compute. What was
            decoded ahead and wanted no more is counted for the process's next video.
        policy_s: in its session; of what sessions do together, an equal part.
    """

    decoding_s: float = 0.0
    policy_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Answer:
    """What a policy says of a video.

    Attributes:
        probabilities: (C,) of the classes.
        gflops: by the name of the stream or network, 10⁹ MACs.
        expensive_rows: how many rows of the dearest stream were computed, of how many that it has.
        detections: of a policy that localizes; the video is number 0.
        steps: in order.
        frames_decoded: by its process, those of further passes too, and those that nobody wanted in the end.
        frames_held: the most decoded frames that were kept at once.
        spent: also for what came to nothing.
        damage: with `keep_damaged`, why the video is not whole; `steps` go as far as it is. Else empty.
        streams: GFLOPs of a row of every stream that the policy may compute, whether it did or not.
    """

    video: SourceVideo
    duration_s: float
    probabilities: FloatArray
    gflops: Mapping[str, float]
    expensive_rows: tuple[int, int]
    detections: Detections | None
    steps: Sequence[Step]
    frames_decoded: int
    frames_held: int
    spent: Spent
    damage: str = ""
    streams: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Answer({self.video.id!r}: {self.duration_s:g} s, {self.expensive_rows[0]:,} of "
            f"{self.expensive_rows[1]:,} expensive rows, {sum(self.gflops.values()):.3f} GFLOPs)"
        )


@dataclass(frozen=True)
class Failure:
    """Why there is no answer for a video."""

    video: SourceVideo
    reason: str
    spent: Spent = field(default_factory=Spent, compare=False)


@dataclass(eq=False)
class _Flight:
    """A video on its way.

    Attributes:
        waits: for its process, whose answer is due.
        silent_s: since when the process has sent nothing.
        wanted: what its session wants, and `pixels` of the first of these rows where they have come.
        passed_over: how many batches have been computed since without them.
    """

    video: SourceVideo
    session: Session
    process: VideoProcess
    decoder: str
    waits: bool = True
    silent_s: float = 0.0
    duration_s: float = 0.0
    wanted: Wanted | None = None
    pixels: PixelArray | None = None
    passed_over: int = 0
    steps: list[Step] = field(default_factory=list)
    available: dict[str, int] = field(default_factory=dict)
    frames_decoded: int = 0
    frames_held: int = 0
    damage: str = ""
    spent: Spent = field(default_factory=Spent)
    outcome: Answer | Failure | None = None


def run_policy(
    videos: Iterable[SourceVideo],
    session: Session,
    backbones: Backbones,
    settings: Settings,
    *,
    adapt: Callable[[Rows], Rows] = lambda rows: rows,
) -> Generator[Answer | Failure, None, None]:
    """Apply a policy to videos. Yields what became of each, in the order in which they are done.

    Args:
        videos: taken one by one. An iterator that has none for now is asked again while others are at work.
        session: of the policy; the networks of its copies for several videos are its own.
        adapt: changes features and class scores before a session takes them, for tests.

    Raises:
        UserError: as `Backbones.__call__`.
    """
    videos_at_once = max(1, min(settings.in_flight, length_hint(videos, settings.in_flight)))
    engine = Engine(session, backbones, replace(settings, in_flight=videos_at_once), adapt)
    with contextlib.closing(engine):
        yield from engine.run(iter(videos))


class Engine:
    """Applies a policy to videos, as `run_policy` does, several times with the same processes. To be closed."""

    def __init__(
        self,
        session: Session,
        backbones: Backbones,
        settings: Settings,
        adapt: Callable[[Rows], Rows] = lambda rows: rows,
    ) -> None:
        from extract.workers import AwakeClock

        self._backbones, self._settings, self._adapt = backbones, settings, adapt
        self._sessions = [session]
        self._dearest = max(session.streams, key=lambda name: stream_cost(session.streams[name]).macs)
        self._idle: list[VideoProcess] = []
        self._flights: list[_Flight] = []  # in the order of the videos; those beyond `in_flight` only open
        self._clock = AwakeClock()

    def start_processes(self, videos: int) -> None:
        """Start the processes that so many videos will take, and wait until they can decode."""
        from policy.deploy.videos import VideoProcess

        count = min(self._settings.in_flight + 1, videos)
        self._idle += [VideoProcess(self._settings.target) for _ in range(count)]
        for process in self._idle:
            process.receive()

    def run(self, videos: Iterator[SourceVideo]) -> Iterator[Answer | Failure]:
        """Yields what became of each video, in the order in which they are done."""
        while True:
            # One more than are in flight is being opened.
            while len(self._flights) <= self._settings.in_flight and (video := next(videos, None)):
                self._start(video)
            if not self._flights:
                return
            while any(flight.waits for flight in self._active):
                self._listen()
            ended = [flight for flight in self._active if flight.outcome is not None]
            for flight in ended:
                self._flights.remove(flight)
                self._sessions.append(flight.session)
                self._idle.append(flight.process)
                assert flight.outcome is not None
                yield flight.outcome
            if not ended:
                self._compute()

    def close(self) -> None:
        """End all processes."""
        for process in [*self._idle, *(flight.process for flight in self._flights)]:
            process.kill()

    @property
    def _active(self) -> list[_Flight]:
        return self._flights[: self._settings.in_flight]

    def _start(self, video: SourceVideo) -> None:
        from policy.deploy.videos import VideoProcess

        session = self._sessions.pop() if len(self._sessions) > 1 else self._sessions[0].another()
        process = self._idle.pop() if self._idle else VideoProcess(self._settings.target)
        flight = _Flight(video, session, process, self._settings.decoder)
        self._flights.append(flight)
        self._open(flight)

    def _open(self, flight: _Flight) -> None:
        from policy.deploy.videos import Open

        video, settings = flight.video, self._settings
        order = Open(
            video.path,
            self._backbones.views,
            flight.decoder,
            video.frames_fps,
            max_bytes=settings.kept_bytes // (settings.in_flight + 1),
            keep_damaged=settings.keep_damaged,
        )
        self._send(flight, order)

    def _send(self, flight: _Flight, order: Open | Want) -> None:
        flight.process.send(order)
        flight.waits, flight.silent_s = True, self._clock()

    def _listen(self) -> None:
        """Take what the processes have sent; wait for it if there is nothing."""
        from extract.workers import how_it_ended

        waiting = {flight.process.pipe: flight for flight in self._flights if flight.waits}
        ready = wait(list(waiting), timeout=_TICK_S)
        now_s = self._clock()
        for pipe, flight in waiting.items():
            if pipe in ready:
                try:
                    message = flight.process.receive()
                except EOFError:
                    self._lost(flight, f"the decoder crashed ({how_it_ended(flight.process.kill())})")
                    continue
                flight.silent_s = now_s
                if message is not None:
                    self._receive(flight, message)
            elif now_s - flight.silent_s > (
                allowed_s := self._settings.deadline_s if flight.process.ready else _START_S
            ):
                flight.process.kill()
                self._lost(flight, f"the decoder got no further for {allowed_s:.0f} s: given up")

    def _lost(self, flight: _Flight, reason: str) -> None:
        """A process is gone: PyAV may still decode its video."""
        from policy.deploy.videos import VideoProcess

        flight.process = VideoProcess(self._settings.target)
        if flight.decoder == "auto":
            flight.decoder = "pyav"
            flight.steps.clear()
            self._open(flight)
        else:
            self._fail(flight, reason)

    def _receive(self, flight: _Flight, message: Message) -> None:
        from policy.deploy.videos import Failed, Opened

        flight.waits = False
        flight.spent.decoding_s += message.cpu_s
        if isinstance(message, Failed):
            self._fail(flight, message.reason)
        elif isinstance(message, Opened):
            flight.duration_s = message.duration_s
            flight.available = {name: len(spans_s) for name, spans_s in message.spans_s.items()}
            try:
                with _policy_at_work(flight):
                    flight.session.begin(message.spans_s, video_id=flight.video.id)
            except ValueError as error:  # streams that do not fit together, in this video
                self._fail(flight, str(error))
                return
            self._go_on(flight)
        else:
            flight.pixels, flight.damage = message.pixels, message.damage
            flight.frames_decoded, flight.frames_held = message.decoded, message.held

    def _go_on(self, flight: _Flight) -> None:
        """Order what the session wants next; if nothing, the video is done."""
        from policy.deploy.videos import Want

        with _policy_at_work(flight):
            flight.pixels, flight.passed_over, flight.wanted = None, 0, flight.session.wanted()
        if flight.wanted is None:
            flight.outcome = self._answer(flight, flight.damage)
            return
        wanted = flight.wanted
        # Of every video so many that they fill a batch together.
        share = math.ceil(self._backbones.batch_rows(wanted.stream) / self._settings.in_flight)
        self._send(flight, Want(wanted.stream, wanted.rows[:_MOST_ROWS], min(len(wanted.rows), share)))

    def _compute(self) -> None:
        """A batch of the stream of which most rows are there, and what the sessions make of it.

        No video waits long for others that want another stream: meanwhile its decoder would stand still.
        """
        flights = sorted(self._active, key=lambda flight: -flight.passed_over)
        streams: Counter[str] = Counter()
        for flight in flights:
            assert flight.wanted is not None and flight.pixels is not None
            streams[flight.wanted.stream] += len(flight.pixels)
            flight.passed_over += 1
        [(stream, _)] = streams.most_common(1)
        if flights[0].passed_over > _PATIENCE and flights[0].wanted is not None:
            stream = flights[0].wanted.stream
        batch: list[_Flight] = []
        pixels: list[PixelArray] = []
        left = self._backbones.batch_rows(stream)
        for flight in flights:
            if flight.wanted is not None and flight.wanted.stream == stream and flight.pixels is not None:
                left -= len(flight.pixels)
                if left < 0:
                    break
                batch.append(flight)
                pixels.append(flight.pixels)
        rows_of_each = [
            (self._adapt(features), None if scores is None else self._adapt(scores))
            for features, scores in self._backbones(stream, pixels)
        ]
        sessions = [flight.session for flight in batch]
        with _policy_at_work(*batch):
            errors = type(sessions[0]).take_together(sessions, rows_of_each)
        for flight, error in zip(batch, errors, strict=True):
            if error is not None:  # rows that are not finite
                self._fail(flight, str(error))
                continue
            assert flight.wanted is not None and flight.pixels is not None
            of = slice(len(flight.pixels))
            flight.steps.append(
                Step(stream, flight.wanted.rows[of], flight.wanted.spans_s[of], flight.session.macs / 1e9)
            )
            self._go_on(flight)

    def _fail(self, flight: _Flight, reason: str) -> None:
        flight.waits = False
        if self._settings.keep_damaged and flight.steps:
            flight.outcome = self._answer(flight, reason)
        else:
            flight.outcome = Failure(flight.video, reason, flight.spent)

    def _answer(self, flight: _Flight, damage: str) -> Answer:
        session, dearest = flight.session, self._dearest
        computed = {row for step in flight.steps if step.stream == dearest for row in step.rows.tolist()}
        with _policy_at_work(flight):
            probabilities = session.probabilities.double().cpu().numpy()
            detections = session.detections if isinstance(session, Localizer) else None
        return Answer(
            video=flight.video,
            duration_s=flight.duration_s,
            probabilities=probabilities,
            gflops={name: macs / 1e9 for name, macs in session.macs_by_name.items()},
            expensive_rows=(len(computed), flight.available[dearest]),
            detections=detections,
            steps=tuple(flight.steps),
            frames_decoded=flight.frames_decoded,
            frames_held=flight.frames_held,
            spent=flight.spent,
            damage=damage,
            streams={name: stream_cost(spec).gflops() for name, spec in session.streams.items()},
        )


@contextlib.contextmanager
def _policy_at_work(*flights: _Flight) -> Iterator[None]:
    """Count what is done as the policy's work on these videos."""
    started_s = time.perf_counter()
    try:
        yield
    finally:
        for flight in flights:
            flight.spent.policy_s += (time.perf_counter() - started_s) / len(flights)
