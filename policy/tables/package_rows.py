"""Methods of other packages as rows of a table."""

from __future__ import annotations

from dataclasses import fields, replace

from policy.config import names_of
from policy.registry import CONFIGS, METHODS, from_packages
from policy.tables.experiment import Experiment, PaperTable

GROUP = "methods of other packages"


def with_packages(table: PaperTable) -> PaperTable:
    """The table with a row for each such method, on the table's coarse and fine stream; notes name those that need
    anything else."""
    streams = {role: names[0] for role, names in table.streams.items() if names}
    rows, left_out = [], []
    for name in from_packages():
        config = CONFIGS[name]
        reads = {role: stream for role, stream in streams.items() if role in names_of(config)}
        required = {option.name for option in fields(config) if option.metadata["required"]}
        if reads and required <= reads.keys():
            rows.append(Experiment(name, METHODS[name].title, name, GROUP, reads))
        else:
            left_out.append(name)
    notes = [
        f"Left out, as it needs other options than --coarse and --fine: {name}, of another package."
        for name in left_out
    ]
    return replace(table, experiments=(*table.experiments, *rows), notes=(*table.notes, *notes))
