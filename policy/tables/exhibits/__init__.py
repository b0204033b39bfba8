"""Exhibits are more than a table of runs: the papers' figures and runtimes, and what goes beyond the papers."""

from collections.abc import Mapping
from importlib import import_module

from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.experiment import ExhibitName

MAKERS: Mapping[ExhibitName, str] = {
    "budgets": "liteeval_budgets:make",
    "frames": "liteeval_frames:by_frame",
    "localization-ablation": "localization_ablation:make",
    "localization-methods": "localization_methods:make",
    "localization-table": "localization_table:make",
    "online": "liteeval_online:at_budgets",
    "policies": "policies:make",
    "runtime": "liteeval_runtime:make",
    "selection-alpha": "selection_alpha:make",
    "selection-budgets": "selection_budgets:make",
    "selection-inputs": "selection_inputs:make",
    "selection-table": "selection_table:make",
    "usage": "liteeval_frames:by_class",
    "watched": "liteeval_online:while_watched",
}
"""By the name in a table's `exhibit`, the module here and its function; imported when one is made."""
WITH_INTERVALS: frozenset[ExhibitName] = frozenset({"localization-table"})
"""Those that show bootstrap intervals of their runs."""


def make(name: ExhibitName, material: Material) -> Exhibit:
    """The exhibit of this name."""
    module, _, function = MAKERS[name].partition(":")
    exhibit: Exhibit = getattr(import_module(f"{__name__}.{module}"), function)(material)
    return exhibit


__all__ = ["MAKERS", "WITH_INTERVALS", "Exhibit", "Material", "make"]
