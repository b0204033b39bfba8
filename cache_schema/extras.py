"""Packages that only some need: imported when they are."""

from __future__ import annotations

import importlib
from types import ModuleType

from cache_schema.errors import needs_extra


def need(package: str, extra: str, what: str) -> ModuleType:
    """Import a package of an extra for `what`. Raises UserError, with how to install it, where it is missing."""
    with needs_extra(extra, what):
        return importlib.import_module(package)
