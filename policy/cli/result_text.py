"""A result in a terminal, whatever the method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache_schema.command import count
from policy.config import RunConfig
from policy.registry import METHODS
from policy.runs import Result
from policy.selection.config import SelectionConfig


def result_text(
    config: RunConfig,
    result: Result,
    details: Mapping[str, Any],
    folder: Path,
    class_scores: str = "",
) -> str:
    """What a run came to: of a selector beside its controls, of others a line for each figure.

    Args:
        details: empty where there are none.
        class_scores: as `Run.class_scores`.
    """
    if isinstance(config, SelectionConfig) and details:
        from policy.cli.selection_text import render

        return render(result, details, folder)
    method = METHODS[config.method]
    further = dict(result.gflops)
    roles: dict[str | None, list[str]] = {}
    for role in method.roles:
        roles.setdefault(getattr(config, role), []).append(role)
    streams = [f"{' and '.join(of)} {further.pop(name, 0.0):.2f}" for name, of in roles.items() if name]
    # Those that a method chooses from; the name of a network has a space in it.
    streams += [f"{name} {further.pop(name):.2f}" for name in list(further) if " " not in name]
    cost = (
        f"{result.gflops_mean:.2f} ± {result.gflops_std:.2f}  ({', '.join(streams)}, networks "
        f"{sum(further.values()):.3f}; 10⁹ multiply-accumulates)"
    )
    summary = dict(method.judged.summary(result.metrics, result.rows_mean, {"GFLOPs per video": cost}))
    if isinstance(config, SelectionConfig):
        summary.pop("fine features")  # of which a pool has none
    lines = {
        "videos": f"{result.videos} of {count(result.classes, 'classes')}",
        **({"class scores": class_scores} if class_scores else {}),
        **summary,
        "folder": str(folder),
    }
    width = max(map(len, lines))
    shown = [result.title, *(f"  {name:<{width}}  {value}" for name, value in lines.items())]
    return "\n".join([*shown, *(f"  {line}" for line in method.details_lines(details))])
