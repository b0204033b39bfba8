"""What the command lines of all rooms share: how a user's mistake is told, and the exit codes.

0: done. 1: done, but some videos failed, each named with its reason. 2: the request itself was wrong.
130: interrupted by Ctrl-C.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click

from cache_schema.errors import UserError

SOME_FAILED = 1

P = ParamSpec("P")
R = TypeVar("R")


class RequestError(click.ClickException):
    """One line on standard error and exit code 2, as click does for a wrong option."""

    exit_code = 2


class Interrupted(click.ClickException):
    """Ctrl-C: one line and the exit code that shells expect. Click's own 1 would mean that it was done."""

    exit_code = 128 + signal.SIGINT

    def __init__(self) -> None:
        super().__init__("interrupted; run the same command again to finish")


def tells_mistakes(command: Callable[P, R]) -> Callable[P, R]:
    """A UserError becomes one line and exit code 2, Ctrl-C one and 130. All else is our mistake: a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            raise RequestError(" ".join(str(error).split())) from error
        except KeyboardInterrupt as interrupt:
            raise Interrupted from interrupt

    return run
