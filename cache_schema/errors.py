"""Errors that are somebody's mistake and not ours: one line, no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A request that cannot be carried out. Its message is one line: what is wrong, and what to do."""


class CacheError(UserError):
    """A cache that is missing, damaged, or of another schema version."""


class MissingVideoError(CacheError, KeyError):
    """A video that a stream does not hold; says why where the reason is known."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class LabelError(UserError):
    """An annotation file that cannot be read or does not fit the cache."""


def how_to_install(extra: str) -> str:
    """The command that installs an extra, which is on no package index."""
    return f"pip install '.[{extra}]' in the checkout of thriftvid"


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """For imports of packages that an extra installs. Raises UserError where one is missing.

    Args:
        what: that needs them, the beginning of the message: "--tensorboard".
    """
    try:
        yield
    except ImportError as error:
        raise UserError(f"{what} needs a package that is not installed: {how_to_install(extra)}") from error
