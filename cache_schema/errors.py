"""Errors that are somebody's mistake and not ours: one line, no traceback."""

from __future__ import annotations


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
