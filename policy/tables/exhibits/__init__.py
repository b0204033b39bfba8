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
from policy.tables.experiment import ExhibitName

MAKERS: Mapping[ExhibitName, Callable[[Material], Exhibit]] = {
    "budgets": budgets.make,
    "frames": frames.make,
    "online": online.make,
    "runtime": runtime.make,
    "selection-alpha": selection_alpha.make,
    "selection-budgets": selection_budgets.make,
    "selection-inputs": selection_inputs.make,
    "selection-table": selection_table.make,
    "usage": usage.make,
    "watched": watched.make,
}
"""By what a table's `exhibit` says."""

__all__ = ["MAKERS", "Exhibit", "Material"]
