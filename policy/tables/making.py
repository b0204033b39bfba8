"""Make a table or exhibit from a checked request: carry out its runs, and report them."""

from __future__ import annotations

from collections.abc import Callable

from policy.runs import choose_device
from policy.tables.exhibits import WITH_INTERVALS, Exhibit, Material, make
from policy.tables.progress import ShownProgress
from policy.tables.report import Report, make_report
from policy.tables.requests import Order
from policy.tables.running import carry_out
from policy.tables.uncertainty import find_intervals


def fill(ordered: Order, command: str, say: Callable[[str], None]) -> Report | Exhibit:
    """Train what is missing, and make the table or its exhibit.

    Args:
        command: the command line that makes it again.
        say: receives remarks, a line each.

    Raises:
        UserError: a run cannot be made, or a folder cannot be used.
    """
    table, setting = ordered.table, ordered.setting
    for note in ordered.source.notes:
        say(note)
    progress = ShownProgress(len(set(ordered.requests.values())) * len(setting.seeds))
    runs = carry_out(ordered, progress)
    resamples = setting.resamples if table.exhibit is None or table.exhibit in WITH_INTERVALS else 0
    intervals = find_intervals(
        runs, setting.runs, resamples=resamples, workers=setting.workers, progress=progress
    )
    spread = "mean ± standard deviation" if resamples or table.exhibit is None else "mean"
    report = make_report(ordered, runs, intervals, command=command, spread=spread)
    if table.exhibit is None:
        return report
    device = choose_device("auto" if setting.workers.elsewhere else setting.device)
    return make(table.exhibit, Material(report, ordered, device, say))
