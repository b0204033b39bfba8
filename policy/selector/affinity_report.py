"""The label distribution for a terminal, and for scripts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from policy.config import RunConfig
from policy.selector.distribution import PAPER, LabelDistribution, label_distributions, relabelled
from policy.selector.pool import PoolTable
from policy.tables.terminal import console_for, stripped, wrapped

_HARDLY = 0.01


def describe_affinities(table: PoolTable, config: RunConfig, alphas: Sequence[float]) -> dict[str, Any]:
    """Ready for JSON."""
    return {
        "videos": len(table),
        "models": list(table.models),
        "model_gflops": (table.mean_macs / 1e9).tolist(),
        "model_top1": table.correct.mean(axis=0).tolist(),
        "affinity": config.affinity,
        "alphas": [asdict(row) for row in label_distributions(table, config, alphas)],
        "relabelled_between": list(PAPER),
        "relabelled": relabelled(table, config, *PAPER),
    }


def render_affinities(
    table: PoolTable,
    config: RunConfig,
    alphas: Sequence[float],
    *,
    colour: bool = False,
    width: int | None = None,
) -> str:
    """Args:
    width: of the terminal in characters, by default as it is; no table is narrower than its numbers.
    """
    width = width or shutil.get_terminal_size().columns
    shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)
    shown.add_column("α", justify="right", no_wrap=True)
    for model in table.models:
        shown.add_column(model, justify="right", no_wrap=True)
    for title in ("GFLOPs", "top-1 %"):
        shown.add_column(title, justify="right", no_wrap=True)
    for row in label_distributions(table, config, alphas):
        shown.add_row(*_cells(row))
    shown.add_section()
    for title, values in (
        ("GFLOPs", [f"{value:.2f}" for value in table.mean_macs / 1e9]),
        ("top-1 %", [f"{value:.1f}" for value in 100 * table.correct.mean(axis=0)]),
    ):
        shown.add_row(title, *values, "", "")
    console = console_for([shown], colour=colour, width=width)
    kind = "soft affinity" if config.affinity == "soft" else "model affinity"
    with console.capture() as captured:
        console.print(Text(f"Of {len(table):,} training videos, % with each {kind}", style="bold"))
        console.print()
        console.print(shown)
    return "\n".join([*stripped(captured.get()), "", *wrapped(_state(table, config), width)]) + "\n"


def _cells(row: LabelDistribution) -> list[str]:
    shares = [f"{100 * share:.1f}" for share in row.shares]
    return [f"{row.alpha:g}", *shares, f"{row.gflops:.2f}", f"{100 * row.top1:.1f}"]


def _state(table: PoolTable, config: RunConfig) -> list[str]:
    drawn = ", drawn by its affinities" if config.affinity == "soft" else ""
    lines = [
        f"GFLOPs and top-1: were each video judged by the model that it is labelled with{drawn}. The labels know "
        "the answers, a selector does not.",
    ]
    moved = relabelled(table, config, *PAPER)
    if moved < _HARDLY:
        low, high = PAPER
        lines.append(
            f"Between α = {low:g} and {high:g}, the paper's range, {100 * moved:.2g} % of the labels change: α "
            "hardly matters there, and it is the threshold that trades accuracy for computation."
        )
    return lines
