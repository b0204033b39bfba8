"""Packages that only some need: imported when they are, with a line that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType

from cache_schema.errors import UserError


def need(package: str, extra: str, purpose: str) -> ModuleType:
    """Import a package. Raises UserError where it is not installed.

    Args:
        extra: of this distribution, that brings it.
        purpose: what needs it, as the first words of the line.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{purpose} needs {package}: pip install 'thriftvid[{extra}]'") from error
