"""Table 10 of the LiteEval paper: seconds per video."""

from __future__ import annotations

import numpy as np

from policy.deploy.speed import Runtimes, Subject, measure
from policy.sheets.sheet import Column, Sheet, Value
from policy.tables.datasets import dataset_title
from policy.tables.exhibits.exhibit import Exhibit, Material

COLUMNS = (
    Column("method", "method"),
    Column("GFLOPs", "gflops", 2),
    Column("mAP %", "map_percent"),
    Column("seconds per video", "seconds", 4),
    Column("coarse", "coarse_seconds", 4),
    Column("fine", "fine_seconds", 4),
    Column("networks", "network_seconds", 5),
)
PAPER_S = {"dpn-10": 0.058, "slowfast-10": 0.047, "lstm": 0.061, "liteeval": 0.041}
"""As printed, for a TITAN X and batches of 16."""


def make(material: Material) -> Exhibit:
    """Rows it reads: all of the table. What decides over time is measured with the runs of the first seed."""
    names = [one.name for one in material.table.experiments]
    times = _times(material, names)
    dataset = material.table.datasets[0]
    columns = (
        *COLUMNS,
        Column(f"{dataset_title(dataset)} GFLOPs, paper", "paper_gflops", 2),
        Column("mAP %, paper", "paper_map_percent"),
        Column("seconds, paper", "paper_seconds", 3),
    )
    rows: list[list[Value]] = []
    for one, row, time in zip(material.table.experiments, material.report.rows, times.rows, strict=True):
        results = [run.result for run in material.runs[one.name]]
        printed = one.published.get(dataset, {})
        rows.append(
            [
                row.title,
                float(np.mean([result.gflops_mean for result in results])),
                float(np.mean([100 * result.metrics["mean_average_precision"] for result in results])),
                time.seconds,
                time.streams_s.get("coarse", 0.0),
                time.streams_s.get("fine", 0.0),
                time.networks_s,
                printed["gflops"].value if "gflops" in printed else None,
                printed["map_percent"].value if "map_percent" in printed else None,
                PAPER_S.get(one.name),
            ]
        )
    missing = dict.fromkeys(time.reason for time in times.rows if time.reason)
    notes = (
        f"Measured on {times.machine}, batches of {times.batch}, networks of random weights of the streams' "
        "sizes; decoding is not in it. Only times of one run compare with each other. The paper's are for a "
        "TITAN X and batches of 16.",
        *(f"No time: {reason}." for reason in missing),
    )
    return Exhibit(material.report, (Sheet(material.heading, columns, rows),), notes=notes)


def _times(material: Material, names: list[str]) -> Runtimes:
    subjects = []
    for name in names:
        trained = material.trained(name)[0]
        subjects.append(Subject(name, trained.method(), trained.evaluation, trained.run.predictions()))
    return measure(subjects, device=material.device, report=material.say)
