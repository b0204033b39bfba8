"""SIGTERM and Ctrl-C: they stop a command between two steps of a training, and anywhere else at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Terminated(BaseException):
    """SIGTERM, as KeyboardInterrupt is Ctrl-C."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises Terminated in this block, so that what is half-written is cleared away.

    Outside the main thread, where Python has no say in signals, nothing changes.
    """

    def end(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    if not _in_charge():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Held:
    """SIGTERM and Ctrl-C that have come and not been acted upon. False: none has."""

    def __init__(self) -> None:
        self._came: list[int] = []
        self._handlers: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._came)

    def deliver(self) -> None:
        """Act upon them, as would have been done when they came. Returns where their handlers do."""
        while self._came:
            signum = self._came.pop()
            handler = self._handlers[signum]
            if callable(handler):
                handler(signum, None)
            else:  # the system's own way: the process ends
                signal.signal(signum, handler)
                signal.raise_signal(signum)

    def _hold(self) -> None:
        for signum in _STOPPING:
            handler = signal.getsignal(signum)
            if handler not in (signal.SIG_IGN, None):
                self._handlers[signum] = handler
                signal.signal(signum, self._note)

    def _release(self) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._came.append(signum)
        # Who asks twice does not want to wait.
        signal.signal(signum, self._handlers[signum])


@contextmanager
def held_back() -> Iterator[Held]:
    """SIGTERM and Ctrl-C wait until they are delivered, at the latest at the end of the block.

    A second one does not wait. An error that ends the block ends the program, too: what was held back is dropped.
    Outside the main thread nothing is held back.
    """
    held = Held()
    if _in_charge():
        held._hold()
    try:
        yield held
    finally:
        held._release()
    held.deliver()


def _in_charge() -> bool:
    return threading.current_thread() is threading.main_thread()
