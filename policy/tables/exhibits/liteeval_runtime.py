"""Table 10 of the LiteEval paper: seconds per video."""

from __future__ import annotations

from policy.deploy.speed import Subject, measure
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
"""Seconds per video as printed, for a TITAN X and batches of 16."""


def make(material: Material) -> Exhibit:
    """From all rows of the table; decisions over time are those of the first seed's runs."""
    dataset = material.table.datasets[0]
    columns = (
        *COLUMNS,
        Column(f"{dataset_title(dataset)} GFLOPs, paper", "paper_gflops", 2),
        Column("mAP %, paper", "paper_map_percent"),
        Column("seconds, paper", "paper_seconds", 3),
    )
    subjects = []
    for row in material.report.rows:
        trained = material.trained(row.name)[0]
        subjects.append(Subject(row.name, trained.method(), trained.evaluation, trained.run.predictions()))
    times = measure(subjects, device=material.device, report=material.say)
    rows: list[list[Value]] = []
    for row, time in zip(material.report.rows, times.rows, strict=True):
        printed = row.experiment.published.get(dataset, {})
        rows.append(
            [
                row.title,
                *material.means(row.name, "gflops", "map_percent"),
                time.seconds,
                time.streams_s.get("coarse", 0.0),
                time.streams_s.get("fine", 0.0),
                time.networks_s,
                printed["gflops"].value if "gflops" in printed else None,
                printed["map_percent"].value if "map_percent" in printed else None,
                PAPER_S.get(row.name),
            ]
        )
    missing = dict.fromkeys(time.reason for time in times.rows if time.reason)
    notes = (
        f"Measured on {times.machine}, batches of {times.batch}, networks of random weights of the streams' "
        "sizes; decoding is not in it. Only times of one run compare with each other. The paper's are for a "
        "TITAN X and batches of 16.",
        *(f"No time: {reason}." for reason in missing),
    )
    return Exhibit(material.report, (Sheet(material.report.heading, columns, rows),), notes=notes)
