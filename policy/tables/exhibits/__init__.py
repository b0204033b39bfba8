"""What is more than a table of runs: figures of the paper, its runtimes, and what goes beyond it."""

from collections.abc import Callable, Mapping

from policy.tables.exhibits import budgets, frames, online, runtime, usage, watched
from policy.tables.exhibits.exhibit import Exhibit, Material

MAKERS: Mapping[str, Callable[[Material], Exhibit]] = {
    "liteeval-10": runtime.make,
    "liteeval-fig2": online.make,
    "liteeval-fig3": watched.make,
    "liteeval-fig4": usage.make,
    "liteeval-fig5": frames.make,
    "liteeval-budgets": budgets.make,
}
"""By the names of `catalogue.EXHIBITS`."""

__all__ = ["MAKERS", "Exhibit", "Material"]
