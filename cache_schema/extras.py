"""Packages that only some need, and extras install: imported when they are needed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from cache_schema.errors import UserError


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


def need(package: str, extra: str, what: str) -> ModuleType:
    """Import a package of an extra for `what`. Raises UserError, with how to install it, where it is missing."""
    with needs_extra(extra, what):
        return importlib.import_module(package)
