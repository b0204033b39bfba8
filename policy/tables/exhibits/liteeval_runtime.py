"""Table 10 of the LiteEval paper: seconds per video, of the networks alone or from file to answer."""

from __future__ import annotations

import torch

from policy.deploy.file_speed import REPEATS, FileSeconds, TimedVideos, measure_files
from policy.deploy.network import choose_precision
from policy.deploy.speed import BATCH, Subject, measure
from policy.deploy.timing import Machine
from policy.sheets.sheet import Column, Sheet, Value
from policy.tables.datasets import dataset_title
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.experiment import Experiment, Measure

COLUMNS = (
    Column("method", "method"),
    Column("GFLOPs", "gflops", 2),
    Column("mAP %", "map_percent"),
    Column("seconds per video", "seconds", 4),
    Column("coarse", "coarse_seconds", 4),
    Column("fine", "fine_seconds", 4),
    Column("networks", "network_seconds", 5),
)
_OF_EACH = (Column("method", "method"), Column("on", "processor"), Column("batch", "batch"))
FROM_FILES = (
    *_OF_EACH,
    Column("mAP %", "map_percent"),
    Column("GFLOPs", "gflops", 2),
    Column("decoding s", "decoding_seconds", 4),
    Column("coarse s", "coarse_seconds", 4),
    Column("fine s", "fine_seconds", 4),
    Column("policy s", "policy_seconds", 4),
    Column("clock s", "clock_seconds", 4),
)
SAVED = (
    *_OF_EACH,
    Column("GFLOPs %", "gflops_saved_percent"),
    Column("computing %", "computing_saved_percent"),
    Column("clock %", "clock_saved_percent"),
    Column("computing / GFLOPs", "computing_saved_over_gflops", 3),
    Column("clock / GFLOPs", "clock_saved_over_gflops", 3),
)
PAPER_S = {"dpn-10": 0.058, "slowfast-10": 0.047, "lstm": 0.061, "liteeval": 0.041}
"""Seconds per video as printed, for a TITAN X and batches of 16."""
ALL_FINE = ("lstm-cf", "lstm")
"""Methods that have fine features of every frame they look at. Savings are against the first that a row has."""
LEAST_SAVED = 0.01
"""Of the GFLOPs; of less, a share is chance."""


def make(material: Material) -> Exhibit:
    """From all rows of the table, with --videos from their files; policies are those of the first seed."""
    timed = material.order.timed
    return _of_networks(material) if timed is None else _from_files(material, timed)


def _of_networks(material: Material) -> Exhibit:
    dataset = next(iter(material.table.datasets), "")
    columns = list(COLUMNS)
    if dataset:
        columns += [
            Column(f"{dataset_title(dataset)} GFLOPs, paper", "paper_gflops", 2),
            Column("mAP %, paper", "paper_map_percent"),
            Column("seconds, paper", "paper_seconds", 3),
        ]
    subjects = []
    for row in material.report.rows:
        trained = material.trained(row.name)[0]
        subjects.append(Subject(row.name, trained.method(), trained.evaluation, trained.run.predictions()))
    times = measure(subjects, device=material.device, report=material.say)
    rows: list[list[Value]] = []
    for row, time in zip(material.report.rows, times.rows, strict=True):
        rows.append(
            [
                row.title,
                *material.means(row.name, "gflops", "map_percent"),
                time.seconds,
                time.streams_s.get("coarse", 0.0),
                time.streams_s.get("fine", 0.0),
                time.networks_s,
                *_printed(row.experiment, dataset),
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


def _printed(row: Experiment, dataset: str) -> list[Value]:
    """The paper's GFLOPs, mAP and seconds; nothing for a table that it does not print."""
    if not dataset:
        return []
    values = row.published.get(dataset, {})
    measures: tuple[Measure, ...] = ("gflops", "map_percent")
    return [*(values[name].value if name in values else None for name in measures), PAPER_S.get(row.name)]


def _from_files(material: Material, timed: TimedVideos) -> Exhibit:
    dataset = next(iter(material.table.datasets), "")
    columns = list(FROM_FILES)
    if dataset:
        paper = dataset_title(dataset)
        columns += [
            Column("GFLOPs", "paper_gflops", 2, paper=paper),
            Column("mAP %", "paper_map_percent", paper=paper),
            Column("seconds", "paper_seconds", 3, paper=paper),
        ]
    runs = {row.name: material.runs(row.name)[0].folder for row in material.report.rows}
    all_fine = _all_fine(material)
    rows: list[list[Value]] = []
    saved: list[list[Value]] = []
    groups: dict[int, str] = {}
    machines: list[str] = []
    missing: dict[str, None] = {}
    for device in dict.fromkeys((torch.device("cpu"), material.device)):
        precision = choose_precision("auto", device, material.say)
        processor = "CPU" if device.type == "cpu" else "GPU"
        machines.append(f"{processor}: {Machine.of(device)}, {precision}")
        for batch in (1, BATCH):
            groups[len(rows)] = ""
            times, reasons = measure_files(
                runs, timed, device=device, precision=precision, batch=batch, report=material.say
            )
            missing |= dict.fromkeys(reasons.values())
            for row in material.report.rows:
                place: list[Value] = [row.title, processor, batch]
                printed = _printed(row.experiment, dataset)
                seconds = _seconds(material, row.name, times.get(row.name))
                rows.append(
                    [
                        *place,
                        *material.means(row.name, "map_percent"),
                        *seconds,
                        *(printed if batch == BATCH else [None] * len(printed)),
                    ]
                )
                if all_fine in times and row.name in times:
                    shares = _shares(times[row.name], times[all_fine])
                    saved += [[*place, *shares]] if shares else []
    sheets = [Sheet(material.report.heading, columns, rows, groups=groups)]
    if saved:
        sheets.append(Sheet(f"Saved, against {material.title(all_fine)}", SAVED, saved))
    notes = (
        f"Seconds and GFLOPs per video, mean over {len(timed.sources)} evaluation videos from their files; "
        f"policies of the first seed, the median of {REPEATS} runs. {'; '.join(machines)}.",
        f"A batch of {BATCH}: so many videos at work together, and rows in a forward pass. Decoding is in CPU "
        "seconds of the processes that decode, resize and cut out while the networks compute: the clock, from the "
        "first file to the last answer, may show less than the sum. What is done once (starting processes, "
        "building networks) is in none of it.",
        "Computing is coarse, fine and policy, without decoding. Computing / GFLOPs, clock / GFLOPs: the saved "
        "share of seconds over the saved share of GFLOPs; 1 is all that they promise.",
        "Only times of one run compare with each other. The paper's are for a TITAN X and batches of 16.",
        *(f"No time: {reason}." for reason in missing),
    )
    return Exhibit(material.report, tuple(sheets), notes=notes)


def _all_fine(material: Material) -> str:
    """The row against which savings are counted; empty if there is none."""
    rows = {row.experiment.method: row.name for row in reversed(material.report.rows)}
    return next((rows[method] for method in ALL_FINE if method in rows), "")


def _seconds(material: Material, name: str, time: FileSeconds | None) -> list[Value]:
    """The cells from GFLOPs to the clock."""
    if time is None:
        return [None] * 6
    config = material.order.requests[name].config
    streams = [time.streams_s.get(getattr(config, role, ""), 0.0) for role in ("coarse", "fine")]
    return [time.gflops, time.decoding_s, *streams, time.policy_s, time.clock_s]


def _shares(time: FileSeconds, all_fine: FileSeconds) -> list[Value]:
    """The cells of what is saved; none where it is next to nothing."""
    gflops = 1 - time.gflops / all_fine.gflops
    if gflops < LEAST_SAVED:
        return []
    computing, clock = 1 - time.computing_s / all_fine.computing_s, 1 - time.clock_s / all_fine.clock_s
    return [100 * gflops, 100 * computing, 100 * clock, computing / gflops, clock / gflops]
