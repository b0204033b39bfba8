"""Exhibits are more than a table of runs: the papers' figures and runtimes, and what goes beyond the papers."""

from collections.abc import Callable, Mapping

from policy.tables.exhibits import (
    liteeval_budgets,
    liteeval_frames,
    liteeval_online,
    liteeval_runtime,
    localization_ablation,
    localization_methods,
    localization_table,
    policies,
    selection_alpha,
    selection_budgets,
    selection_inputs,
    selection_table,
)
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.experiment import ExhibitName

MAKERS: Mapping[ExhibitName, Callable[[Material], Exhibit]] = {
    "budgets": liteeval_budgets.make,
    "frames": liteeval_frames.by_frame,
    "localization-ablation": localization_ablation.make,
    "localization-methods": localization_methods.make,
    "localization-table": localization_table.make,
    "online": liteeval_online.at_budgets,
    "policies": policies.make,
    "runtime": liteeval_runtime.make,
    "selection-alpha": selection_alpha.make,
    "selection-budgets": selection_budgets.make,
    "selection-inputs": selection_inputs.make,
    "selection-table": selection_table.make,
    "usage": liteeval_frames.by_class,
    "watched": liteeval_online.while_watched,
}
"""By the name in a table's `exhibit`."""
WITH_INTERVALS: frozenset[ExhibitName] = frozenset({"localization-table"})
"""Those that show bootstrap intervals of their runs."""

__all__ = ["MAKERS", "WITH_INTERVALS", "Exhibit", "Material"]
