"""Fig. 6 of the model selection paper: clip selection with several ways to make proposals."""

from __future__ import annotations

from string import ascii_lowercase as _LETTERS

from policy.localization.curve import RANDOM
from policy.sheets.sheet import Picture
from policy.tables.exhibits import localization_curves as curves
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.exhibits.localization_curves import Measured
from policy.tables.plots.curves import Kind, Line


def make(material: Material) -> Exhibit:
    """From all rows of clip selection, each with its own controls."""
    rows = [one for one in material.table.experiments if one.method == "localization-selector"]
    selected = [curves.select(material, one.name) for one in rows]
    measured = Measured.on(material.report.dataset)
    together: list[Line] = []
    panels: list[Picture] = []
    for row, one in zip(rows, selected, strict=True):
        kind: Kind = "proposed" if row.emphasised else "baseline"
        together.append(one.selector.line(f"{one.name}, selected", kind, measured))
        together.append(one.curves[RANDOM].line(f"{one.name}, random clips", "control", measured))
        lines = [one.selector.line(one.name, "proposed", measured), *one.control_lines(measured)]
        panel = f"({_LETTERS[len(panels) + 1]})"
        panels.append(curves.picture(material, lines, panel, f"{one.name} and all controls", measured))
    first = curves.picture(material, together, "(a)", "clips selected and at random", measured)
    return Exhibit(
        material.report,
        (
            curves.summary_sheet(material, selected, measured),
            curves.alone_sheet({one.name: one for one in selected}, measured),
            curves.curves_sheet(selected),
        ),
        (first, *panels),
        notes=(
            measured.note,
            *curves.NOTES,
            "All curves are of the same two W-TALC models; ActionBytes is our reading of its post-processing, of "
            "which there is no public code.",
        ),
    )
