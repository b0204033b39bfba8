"""Decoding in worker processes that may crash or hang without ending the run.

Each worker has its own pipe, so that one killed in the middle of a message harms no other. A thread of this
process listens to all of them, keeps the deadlines, replaces workers that die, and hands what arrives to the
consumer through a bounded queue; when the consumer is slower than the decoders, they wait. A video that a decoder
crashes on or does not finish is given to PyAV, in another worker, before it counts as failed, unless its decoder
was asked for.

Workers are plain Python processes, not `multiprocessing`'s: those import the caller's main module first, which
here means torch (seconds for each worker, and again for each that crashed), and cannot be started from a
process that is itself a worker of joblib or Dask.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from extract.views import PixelArray, View

_TICK_S = 0.2
_EXIT_S = 5.0
_START_S = 120.0  # to import the decoders, on a machine that is busy
_ALIVE_S = 1.0
_QUEUE_LENGTH = 8
_SERVE = "extract.workers:serve"
# The worker finds modules where this process does, wherever it was started.
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from extract.workers import main; main()"


@dataclass(frozen=True)
class DecodeJob:
    """One video to decode. `key`: the caller's name for it in the answers; the rest as in `read_video`.

    only_open: find out what its rows would be, and end without them.
    """

    key: int
    path: Path
    views: tuple[View, ...]
    decoder: str = "auto"
    keep_damaged: bool = False
    frames_fps: float | None = None
    only_open: bool = False


class Opened(NamedTuple):
    """A video can be read: its rows will follow. Once more for the same video: forget the rows so far.

    spans: for each view (N, 2) float64, the first and last instant of each row in seconds.
    """

    key: int
    duration_s: float
    fps: float
    spans: tuple[npt.NDArray[np.float64], ...]
    frames: int


class Frames(NamedTuple):
    """Rows first_row, first_row + 1, … of one view: pixels (n, *row_shape); so far `decoded` frames were.

    Rows that are lost are not counted: after rows 0 and 2 of five, the next one has number 2.
    """

    key: int
    view: int
    first_row: int
    pixels: PixelArray
    decoded: int


class Finished(NamedTuple):
    """All rows of a video have been sent; or it failed, and rows that were sent must be forgotten.

    decoder, remarks, damage: what `Video` has to say in the end.
    lost: of each view, the numbers of the rows announced that have not been sent, because they do not decode
        right; empty where there are none in any.
    """

    key: int
    error: str | None
    decoder: str = ""
    remarks: tuple[str, ...] = ()
    damage: str | None = None
    lost: tuple[tuple[int, ...], ...] = ()


Message = Opened | Frames | Finished


def decode_all(
    jobs: Iterable[DecodeJob], *, workers: int, deadline_s: float, target: str | None = None
) -> Generator[Message, None, None]:
    """Decode videos in parallel. Every job ends with exactly one Finished, whatever becomes of its worker.

    Args:
        jobs: taken one by one as workers fall idle.
        deadline_s: seconds that a decoder may take without getting a frame further.
        target: what a worker runs, as "module:function"; for tests that simulate a decoder which hangs or
            crashes.
    """
    pool = _Pool(iter(jobs), workers, deadline_s, target or _SERVE)
    listener = threading.Thread(target=pool.run, name="decode-listener", daemon=True)
    listener.start()
    try:
        while (message := pool.answers.get()) is not None:
            if isinstance(message, BaseException):
                raise message
            yield message
    finally:
        pool.stopping.set()
        with contextlib.suppress(queue.Empty):  # the listener may be waiting to put
            while True:
                pool.answers.get_nowait()
        listener.join()


class AwakeClock:
    """Seconds that this process has been running, as long as it looks at least every few seconds.

    A program that is stopped for an hour (Ctrl-Z, a virtual machine that is taken away for a while) has its
    decoders stopped with it, and they are not late when all go on.
    """

    _LONGEST_S = 5.0  # between two looks of one that runs

    def __init__(self) -> None:
        self._looked_s = time.monotonic()
        self._awake_s = 0.0

    def __call__(self) -> float:
        now_s = time.monotonic()
        self._awake_s += min(now_s - self._looked_s, self._LONGEST_S)
        self._looked_s = now_s
        return self._awake_s


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    ready: bool = False  # it has imported the decoders: what it does from now on is the video's time
    job: DecodeJob | None = None
    seen_s: float = 0.0  # when it was last looked at, on the pool's clock
    spent_s: float = 0.0  # without a sign of life


@dataclass
class _Pool:
    jobs: Iterator[DecodeJob]
    size: int
    deadline_s: float
    target: str
    again: list[DecodeJob] = field(default_factory=list)  # for PyAV, whatever was lost with them before
    troubles: dict[int, str] = field(default_factory=dict)  # what happened before that, by key
    stopping: threading.Event = field(default_factory=threading.Event)
    clock: AwakeClock = field(default_factory=AwakeClock)
    answers: queue.Queue[Message | BaseException | None] = field(
        default_factory=lambda: queue.Queue(maxsize=_QUEUE_LENGTH)
    )

    def run(self) -> None:
        workers: list[_Worker] = []
        try:
            self._listen(workers)
            self._put(None)
        except BaseException as error:  # ours: raised again where the answers are read
            self._put(error)
        finally:
            for worker in workers:
                _kill(worker)

    def _listen(self, workers: list[_Worker]) -> None:
        while not self.stopping.is_set():
            workers[:] = [
                worker for worker in workers if worker.job is not None or worker.process.poll() is None
            ]
            for worker in workers:
                if worker.job is None and (job := self._next()) is not None:
                    self._assign(worker, job)
            while len(workers) < self.size and (job := self._next()) is not None:
                workers.append(self._start())
                self._assign(workers[-1], job)
            busy = [worker for worker in workers if worker.job is not None]
            if not busy:
                return
            ready = set(wait([worker.pipe for worker in busy], timeout=_TICK_S))
            now_s = self.clock()
            for worker in busy:
                if worker.pipe in ready:
                    # Held up by a slow consumer, perhaps: that time is not the worker's.
                    alive = self._receive(worker)
                    worker.seen_s, worker.spent_s = self.clock(), 0.0
                else:
                    # It has sent nothing since it was last looked at, so nobody but itself held it up.
                    worker.spent_s += max(0.0, now_s - worker.seen_s)
                    worker.seen_s = now_s
                    alive = self._in_time(worker)
                if not alive:
                    workers.remove(worker)

    def _next(self) -> DecodeJob | None:
        return self.again.pop() if self.again else next(self.jobs, None)

    def _start(self) -> _Worker:
        return _Worker(*start_process(self.target))

    def _assign(self, worker: _Worker, job: DecodeJob) -> None:
        worker.job, worker.spent_s = job, 0.0
        worker.seen_s = self.clock()
        with contextlib.suppress(OSError):  # it died while idle: found at the next wait
            worker.pipe.send(job)

    def _receive(self, worker: _Worker) -> bool:
        assert worker.job is not None
        try:
            message: Message | None = worker.pipe.recv()
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs on its way out
                worker.process.wait(_EXIT_S)
            _kill(worker)
            self._lost(worker.job, f"the decoder crashed ({how_it_ended(worker.process.returncode)})")
            return False
        if message is None:
            worker.ready = True
            return True
        if isinstance(message, Finished):
            if message.error is not None and (before := self.troubles.get(message.key)):
                message = message._replace(error=_both(before, message.error))
            worker.job = None
        self._put(message)
        return True

    def _in_time(self, worker: _Worker) -> bool:
        allowed_s = self.deadline_s if worker.ready else _START_S
        if worker.spent_s <= allowed_s:
            return True
        assert worker.job is not None
        _kill(worker)
        self._lost(worker.job, f"the decoder got no further for {allowed_s:.0f} s: given up")
        return False

    def _lost(self, job: DecodeJob, reason: str) -> None:
        """A worker is gone: PyAV may still decode its video."""
        if job.decoder == "auto":
            self.troubles[job.key] = reason
            self.again.append(replace(job, decoder="pyav"))
        else:
            before = self.troubles.get(job.key)
            self._put(Finished(job.key, _both(before, reason) if before else reason))

    def _put(self, answer: Message | BaseException | None) -> None:
        while not self.stopping.is_set():
            self.clock()
            with contextlib.suppress(queue.Full):
                self.answers.put(answer, timeout=_TICK_S)
                return


def start_process(target: str) -> tuple[subprocess.Popen[bytes], Connection]:
    """A process that runs a function with one end of a pipe, and the other end. It ends with this process.

    Ctrl-C reaches every process of the terminal, but is the caller's to handle: this one never sees it.

    Args:
        target: as "module:function".
    """
    ours, theirs = Pipe()
    # A new process inherits the mask of the thread that starts it: in no moment could it be interrupted.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with theirs:
            arguments = [json.dumps(sys.path), str(theirs.fileno()), str(os.getpid()), target]
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process, ours


def main() -> None:
    """What a worker process runs: sys.argv[2:] has the pipe's descriptor, the parent's id and the target."""
    descriptor, parent, target = sys.argv[2:]
    _end_with_parent(int(parent))
    os.dup2(2, 1)  # what libraries print is no part of the command's answer
    module, _, function = target.partition(":")
    getattr(importlib.import_module(module), function)(Connection(int(descriptor)))


def serve(
    pipe: Connection, work: Callable[[DecodeJob, Callable[[], None]], Iterator[Message]] | None = None
) -> None:
    """Decode one job after another until the other side is gone; None says that it is ready, or still at it.

    `work` is `decode`, but for tests and for other ways to cut a video up.
    """
    work = work or decode
    reported_s = float("-inf")

    def alive() -> None:
        nonlocal reported_s
        if time.monotonic() - reported_s > _ALIVE_S:
            pipe.send(None)
            reported_s = time.monotonic()

    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        import extract.cutting  # noqa: F401 - what takes long to import is no part of a video's time

        alive()
        while True:
            job: DecodeJob = pipe.recv()
            for message in work(job, alive):
                pipe.send(message)


def decode(job: DecodeJob, alive: Callable[[], None] = lambda: None) -> Iterator[Message]:
    """Decode one video in this process, calling `alive` whenever it has got further."""
    from extract.cutting import Cutter
    from extract.decode import VideoError, read_video

    try:
        video = read_video(
            job.path, decoder=job.decoder, keep_damaged=job.keep_damaged, frames_fps=job.frames_fps
        )
        cutter = Cutter(video, job.views, alive)
        yield Opened(job.key, video.duration_s, video.fps, tuple(cutter.spans), cutter.frames)
        for chunk in () if job.only_open else cutter.chunks():
            yield Frames(job.key, *chunk, cutter.decoded)
        lost = tuple(cutter.lost) if any(cutter.lost) else ()
        assert video.damage is not None or not lost
        remarks = tuple(map(_line, video.remarks))
        yield Finished(job.key, None, video.decoder, remarks, video.damage and _line(video.damage), lost)
    except VideoError as error:
        yield Finished(job.key, _line(str(error)))
    except MemoryError:
        yield Finished(job.key, "not enough memory to decode it")
    except Exception as error:
        # Ours, not the video's: the run goes on, but the traceback must not be lost.
        traceback.print_exc()
        yield Finished(job.key, f"unexpected {type(error).__name__}: {_line(str(error))}")


def _line(text: str) -> str:
    return " ".join(text.split())


def _end_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies: a decoder that hangs would never notice."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before this was asked for
        os._exit(1)


def _kill(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.wait()
    worker.pipe.close()


def _both(first: str, pyav: str) -> str:
    return f"{first}, and again with PyAV" if first == pyav else f"{first}; with PyAV: {pyav}"


def how_it_ended(exit_code: int | None) -> str:
    """The end of a process in words."""
    if exit_code is not None and exit_code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
