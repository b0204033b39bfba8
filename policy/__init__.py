"""Stage 2: small networks that decide which backbone is worth running, trained from a feature cache.

`policy.open_run("runs/x")` opens a trained one (docs/online.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it imports torch, for which --help has no time
    from policy.deploy.trained import open_run

__all__ = ["open_run"]


def __getattr__(name: str) -> Any:
    if name == "open_run":
        from policy.deploy.trained import open_run

        return open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
