"""run-policy by several processes, on one machine's cores and GPUs or on the workers of a Dask cluster.

Each process has an engine of its own. The calling process hands out videos and takes answers; it alone writes. A
process of this machine has a few more videos than are in flight, and gets another one for each answer. A worker of
Dask gets a piece of work at a time, some videos, and answers for all of them at its end.

When a process dies, the videos that it was at are tried again, each alone in a process. Where that dies, too, the
video fails.
"""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import uuid4

import torch

from cache_schema import StreamSpec, UserError
from cache_schema.command import cluster, count
from policy.deploy.engine import Answer, Failure, Settings, run_policy
from policy.deploy.network import Backbones
from policy.deploy.session import open_session
from policy.session import Session

if TYPE_CHECKING:
    from extract.sources import SourceVideo

_SPARE = 2  # videos that wait in a process of this machine while answers are written
_PIECE = 4  # of a Dask worker: times the videos that it has in flight

Note = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """All that a process needs to run a policy.

    Attributes:
        run: its folder.
        weights: pairs of a stream and what --weights says of it, files by absolute paths.
        device: "cpu", "cuda:N", or "cuda" for whichever GPU of its machine is free.
        threads: of the networks on the CPU; None leaves them as they are.
        finished_ns: when the run was: a Dask worker, which lives long, opens a changed run anew.
    """

    run: Path
    weights: tuple[tuple[str, str], ...]
    device: str
    precision: str
    batch: int
    threads: int | None
    settings: Settings
    finished_ns: int

    def open(self, note: Note) -> tuple[Session, Backbones]:
        """The policy and its backbones, which are not built yet. Raises UserError as both do."""
        from extract.jobs import free_gpu

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = torch.device(free_gpu() if self.device == "cuda" else self.device)
        session = open_session(self.run, device=device)
        return session, self.backbones(session.streams, device, note)

    def backbones(
        self, streams: Mapping[str, StreamSpec], device: torch.device, note: Note = lambda line: None
    ) -> Backbones:
        """The backbones of the run's streams, each of which is built when it is first wanted."""
        return Backbones(
            streams,
            weights=dict(self.weights),
            device=device,
            precision=self.precision,
            batch=self.batch,
            note=note,
        )


class Ended(NamedTuple):
    """From a process: what became of a video, and what its backbones took since it last told of one."""

    outcome: Answer | Failure
    seconds: Mapping[str, float]
    rows: Mapping[str, int]


class Died(NamedTuple):
    """Of a process: it is gone, with the videos that it was at."""

    how: str


Message = Ended | Died | Exception | str
"""A str is what the user should know."""


def run_by_jobs(
    videos: Iterable[SourceVideo],
    recipe: Recipe,
    backbones: Backbones,
    *,
    total: int,
    jobs: int,
    scheduler: str | None = None,
    note: Note = lambda line: None,
) -> Generator[Answer | Failure, None, None]:
    """Apply a policy to videos by several processes. Yields what became of each, as they are done.

    Args:
        videos: `total` of them, taken one by one as they are handed out.
        backbones: whose `seconds` and `rows` count what those of all processes took. They are not built.
        jobs: how many processes; of a Dask cluster all workers are used.
        scheduler: of that cluster.

    Raises:
        UserError: as `run_policy`; the scheduler cannot be reached, or processes die again and again.
    """
    with contextlib.ExitStack() as stack:
        pool: _Pool
        if scheduler is None:
            pool = _Processes(recipe)
        else:
            jobs = stack.enter_context(cluster(scheduler))
            pool = _Tasks(recipe, most=max(1, min(_PIECE * recipe.settings.in_flight, -(-total // jobs))))
        stack.callback(pool.close)
        yield from _Sharing(iter(videos), pool, jobs, backbones, note).run()


@dataclass(eq=False)
class _Job:
    """A process, or what will be one when it is given a video.

    Attributes:
        at: by id, the videos that it was given and has not answered for.
        alone: these are one, with which a process has died before.
    """

    at: dict[str, SourceVideo] = field(default_factory=dict)
    alone: bool = False


class _Pool(Protocol):
    """Processes, and how to talk to them.

    Attributes:
        most: videos that a process may be at.
        step: how many it is given at once.
    """

    most: int
    step: int

    def give(self, job: _Job, videos: Sequence[SourceVideo]) -> None: ...

    def hear(self) -> Iterable[tuple[_Job, Message]]:
        """What processes tell, after a while."""

    def close(self) -> None: ...


class _Sharing:
    """Videos shared out among processes.

    Args:
        backbones: that count.
    """

    def __init__(
        self, videos: Iterator[SourceVideo], pool: _Pool, jobs: int, backbones: Backbones, note: Note
    ) -> None:
        self._videos, self._pool, self._backbones, self._note = videos, pool, backbones, note
        self._jobs = [_Job() for _ in range(jobs)]
        self._suspects: deque[SourceVideo] = deque()  # each was at work in a process that died
        self._noted: set[str] = set()
        self._deaths_in_vain = 0

    def run(self) -> Iterator[Answer | Failure]:
        while self._hand_out():
            for job, message in self._pool.hear():
                if isinstance(message, Exception):
                    raise message
                if isinstance(message, Died):
                    yield from self._bury(job, message.how)
                elif isinstance(message, Ended):
                    self._deaths_in_vain = 0
                    del job.at[message.outcome.video.id]
                    self._backbones.rows.update(message.rows)
                    for stream, seconds in message.seconds.items():
                        self._backbones.seconds[stream] += seconds
                    yield message.outcome
                elif message not in self._noted:  # every process has it to say
                    self._noted.add(message)
                    self._note(message)

    def _hand_out(self) -> bool:
        """Give each process what it may have, in turn, so that few videos are shared evenly. Returns whether any
        is at work."""
        again = True
        while again:
            again = False
            for job in self._jobs:
                part: list[SourceVideo] = []
                if self._suspects and not job.at:
                    part, job.alone = [self._suspects.popleft()], True
                elif len(job.at) + self._pool.step <= self._pool.most and not (job.alone and job.at):
                    part, job.alone = list(islice(self._videos, self._pool.step)), False
                if part:
                    job.at |= {video.id: video for video in part}
                    self._pool.give(job, part)
                    again = True
        return any(job.at for job in self._jobs)

    def _bury(self, job: _Job, how: str) -> Iterator[Failure]:
        """A process has died: its videos are tried again, or the one that was tried alone has failed."""
        self._deaths_in_vain += 1
        if self._deaths_in_vain > 2 * len(self._jobs):
            raise UserError(
                f"the processes that run the policy die again and again ({how}), perhaps for want of memory: use "
                "fewer --jobs, a smaller --batch, --in-flight or --memory; what is done is in the output"
            )
        lost, job.at = list(job.at.values()), {}
        if job.alone:
            for video in lost:
                yield Failure(video, f"the process at work on it died, twice ({how})")
        elif lost:
            self._suspects += lost
            self._note(f"a process died ({how}) with {count(len(lost), 'videos')}, each tried again alone")


# --- processes of this machine ---


class _Processes:
    """Each job is a process, started when it is first given a video, and again when it has died."""

    step = 1

    def __init__(self, recipe: Recipe) -> None:
        self.most = recipe.settings.in_flight + 1 + _SPARE
        self._recipe = recipe
        self._running: dict[_Job, tuple[Popen[bytes], Connection]] = {}

    def give(self, job: _Job, videos: Sequence[SourceVideo]) -> None:
        from extract.workers import start_process

        if job not in self._running:
            self._running[job] = start_process(f"{__name__}:serve")
            self._send(job, self._recipe)
        for video in videos:
            self._send(job, video)

    def _send(self, job: _Job, message: object) -> None:
        with contextlib.suppress(OSError):  # it has died: found when it is heard
            self._running[job][1].send(message)

    def hear(self) -> Iterator[tuple[_Job, Message]]:
        from extract.workers import how_it_ended

        jobs = {pipe: job for job, (_, pipe) in self._running.items()}
        for pipe in wait(list(jobs)):
            assert isinstance(pipe, Connection)
            job = jobs[pipe]
            try:
                yield job, pipe.recv()
            except (EOFError, OSError):
                process, _ = self._running.pop(job)
                pipe.close()
                yield job, Died(how_it_ended(process.wait()))

    def close(self) -> None:
        """End all of them, and with each its decoders."""
        for process, pipe in self._running.values():
            process.kill()
            pipe.close()
            process.wait()


class _Arriving(Iterator["SourceVideo"]):
    """The videos that a pipe brings; it has none for now where none has arrived."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __next__(self) -> SourceVideo:
        if not self._pipe.poll():
            raise StopIteration
        video: SourceVideo = self._pipe.recv()
        return video


def serve(pipe: Connection) -> None:
    """What a process of this machine runs, until the other end is closed."""
    try:
        recipe: Recipe = pipe.recv()
        session, backbones = recipe.open(note=pipe.send)
        while True:
            pipe.poll(None)
            for ended in _ended(_Arriving(pipe), recipe, session, backbones):
                pipe.send(ended)
    except (EOFError, BrokenPipeError):
        return
    except MemoryError:
        raise SystemExit("out of memory") from None  # as one that the system has killed for it
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()  # ours: it must not be lost
        pipe.send(error)


def _ended(
    videos: Iterable[SourceVideo], recipe: Recipe, session: Session, backbones: Backbones
) -> Iterator[Ended]:
    for outcome in run_policy(videos, session, backbones, recipe.settings):
        yield Ended(outcome, dict(backbones.seconds), dict(backbones.rows))
        backbones.seconds.clear()
        backbones.rows.clear()


# --- workers of a Dask cluster ---


class _Tasks:
    """Each job is a place at a worker, and a task of Dask what it is given."""

    def __init__(self, recipe: Recipe, most: int) -> None:
        from distributed import Client

        self.most = self.step = most
        self._recipe, self._client = recipe, Client.current()
        self._running: dict[Any, _Job] = {}

    def give(self, job: _Job, videos: Sequence[SourceVideo]) -> None:
        name = f"run-policy-{uuid4().hex}"
        task = self._client.submit(_run_piece, self._recipe, tuple(videos), name, key=name)
        self._running[task] = job

    def hear(self) -> Iterator[tuple[_Job, Message]]:
        from distributed import wait as wait_for

        try:
            done = wait_for(list(self._running), return_when="FIRST_COMPLETED").done
        except CancelledError as lost:
            raise UserError(
                "the connection to the Dask scheduler is lost; what is done is in the output"
            ) from lost
        for task in done:
            job = self._running.pop(task)
            error = task.exception()
            if error is not None:
                yield job, Died("a worker of Dask") if type(error).__name__ == "KilledWorker" else error
                continue
            for message in task.result():
                yield job, message

    def close(self) -> None:
        self._client.cancel(list(self._running))


def _run_piece(recipe: Recipe, videos: Sequence[SourceVideo], name: str) -> list[Message]:
    """A task of Dask: run the policy on videos, unless a worker has died with them."""
    from distributed import Event

    # Dask gives what a worker has died with to another, three times: this is for the caller to decide.
    begun = Event(name)
    if begun.is_set():
        return [Died("a worker of Dask")]
    begun.set()
    session, backbones, notes = _opened(recipe)
    ended = list(_ended(videos, recipe, session, backbones))
    return [*notes, *ended]


@functools.lru_cache(maxsize=1)
def _opened(recipe: Recipe) -> tuple[Session, Backbones, list[str]]:
    """The policy and its backbones, which later pieces of the same run find built; and what there was to note."""
    notes: list[str] = []
    return *recipe.open(notes.append), notes
