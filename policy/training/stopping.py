"""SIGTERM and Ctrl-C: during a training they take effect between two steps, anywhere else at once."""

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


def exit_code(stop: BaseException) -> int:
    """What shells expect of a program that SIGTERM (Terminated) or Ctrl-C (KeyboardInterrupt) has ended."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises Terminated in this block, so that half-written files are removed.

    Outside the main thread, where Python cannot handle signals, nothing changes.
    """

    def end(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    if not _in_main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class DeferredSignals:
    """SIGTERM and Ctrl-C that arrived and were not handled yet; true if there are any."""

    def __init__(self) -> None:
        self._pending: list[int] = []
        self._handlers: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._pending)

    def deliver(self) -> None:
        """Handle them as would have been done when they arrived. Returns if their handlers do."""
        while self._pending:
            signum = self._pending.pop()
            handler = self._handlers[signum]
            if callable(handler):
                handler(signum, None)
            else:  # the default of the system: the process ends
                signal.signal(signum, handler)
                signal.raise_signal(signum)

    def _install(self) -> None:
        for signum in _STOPPING:
            handler = signal.getsignal(signum)
            if handler not in (signal.SIG_IGN, None):
                self._handlers[signum] = handler
                signal.signal(signum, self._note)

    def _restore(self) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._pending.append(signum)
        # A second one does not wait.
        signal.signal(signum, self._handlers[signum])


@contextmanager
def deferred_signals() -> Iterator[DeferredSignals]:
    """SIGTERM and Ctrl-C wait until they are delivered, at the latest at the end of the block.

    A second one does not wait. If an error ends the block, deferred signals are dropped, as it ends the program
    anyway. Outside the main thread nothing is deferred.
    """
    signals = DeferredSignals()
    if _in_main_thread():
        signals._install()
    try:
        yield signals
    finally:
        signals._restore()
    signals.deliver()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
