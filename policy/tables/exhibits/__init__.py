"""What is more than a table of runs: figures of the paper, its runtimes, and what goes beyond it."""

from collections.abc import Callable, Mapping

from policy.tables.exhibits import (
    budgets,
    frames,
    online,
    runtime,
    selection_alpha,
    selection_budgets,
    selection_inputs,
    selection_table,
    usage,
    watched,
)
from policy.tables.exhibits.exhibit import Exhibit, Material

MAKERS: Mapping[str, Callable[[Material], Exhibit]] = {
    "liteeval-10": runtime.make,
    "liteeval-fig2": online.make,
    "liteeval-fig3": watched.make,
    "liteeval-fig4": usage.make,
    "liteeval-fig5": frames.make,
    "liteeval-budgets": budgets.make,
    "selection-1": selection_table.make,
    "selection-fig3": selection_alpha.make,
    "selection-fig4": selection_inputs.make,
    "selection-budgets": selection_budgets.make,
}
"""By the names of `catalogue.EXHIBITS` and `catalogue.SELECTION`."""

__all__ = ["MAKERS", "Exhibit", "Material"]
