"""Fig. 5 of the model selection paper: disparity, β and random clips, pseudo-labels, selector backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from policy.localization.curve import BINS, RGB_ONLY
from policy.sheets.sheet import Column, Picture, Sheet, Value
from policy.tables.exhibits import localization_curves as curves
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.exhibits.localization_curves import Measured, Selected
from policy.tables.experiment import Experiment
from policy.tables.plots import histogram
from policy.tables.plots.curves import Kind, Line

GROUNDS = ("foreground", "background")

_BACKBONES = (
    "(d): our selector looks at the stream of the cheap model, which therefore changes with it; each selector's "
    "own controls are in the tables."
)
DISPARITY = (
    Column("disparity from", "from", 2),
    Column("to", "to", 2),
    *(Column(f"{ground}, clips", ground) for ground in GROUNDS),
    *(Column(f"{ground} %", f"{ground}_percent") for ground in GROUNDS),
)


def make(material: Material) -> Exhibit:
    """(a) and the controls from the emphasised row, (b) from the rows that differ from it in β, (c) from those
    with other targets, (d) from those with other cheap streams."""
    rows = [one for one in material.table.experiments if one.method == "localization-selector"]
    [main] = [one for one in rows if one.emphasised]
    selected = {one.name: curves.select(material, one.name) for one in rows}
    ours, measured = selected[main.name], Measured.on(material.report.dataset)
    of_beta = [one for one in rows if one.streams == main.streams and "target" not in one.settings]
    of_target = [one for one in rows if one.streams == main.streams and "target" in one.settings]
    of_stream = [one for one in rows if one.streams != main.streams]
    by_beta = {one.settings.get("beta"): one for one in of_beta}
    # Beside other targets, the usual one with the same β.
    compared = [by_beta[beta] for one in of_target if (beta := one.settings.get("beta")) in by_beta]

    counts = _disparity(material, main.name)
    panels: list[Picture] = [_histogram(material, counts)] if counts else []
    for panel, what, group in (
        ("(b)", "the share β of clips that is taught to use motion", of_beta),
        ("(c)", "motion-affinity and pseudo-labels", [*compared, *of_target]),
    ):
        if len(group) > 1:
            lines = [*_lines(group, main, selected, measured), *ours.control_lines(measured)]
            panels.append(curves.picture(material, lines, panel, what, measured))
    if of_stream:
        cheap = main.streams["appearance"].removesuffix("_dense16")
        looks_at = replace(ours, name=ours.name.replace(main.title, f"on {cheap}"))
        lines = _lines([main, *of_stream], main, {**selected, main.name: looks_at}, measured)
        lines += ours.control_lines(measured)
        lines.append(_alone([selected[one.name] for one in of_stream], of_stream, measured))
        panels.append(
            curves.picture(material, lines, "(d)", "the stream that the selector looks at", measured)
        )
    by_stream = {one.streams["appearance"]: selected[one.name] for one in (main, *of_stream)}
    return Exhibit(
        material.report,
        (
            curves.summary_sheet(material, selected.values(), measured),
            curves.alone_sheet(by_stream, measured),
            *([_disparity_sheet(counts)] if counts else []),
            curves.curves_sheet(selected.values()),
        ),
        tuple(panels),
        notes=(
            measured.note,
            *curves.NOTES,
            _about_disparity(counts),
            f"The controls that are drawn are those of {ours.name}, which all selectors on its streams share.",
            *([_BACKBONES] if of_stream else []),
        ),
    )


def _lines(
    group: Sequence[Experiment], main: Experiment, selected: Mapping[str, Selected], measured: Measured
) -> list[Line]:
    lines = []
    for one in dict.fromkeys(row.name for row in group):
        kind: Kind = "proposed" if one == main.name else "baseline"
        lines.append(selected[one].selector.line(selected[one].name, kind, measured))
    return lines


def _alone(selected: Sequence[Selected], rows: Sequence[Experiment], measured: Measured) -> Line:
    """The cheap models of other streams."""
    lines = [one.curves[RGB_ONLY].line("", "models", measured) for one in selected]
    xs, ys = ([value for line in lines for value in getattr(line, axis)] for axis in ("xs", "ys"))
    labels = [f"{one.streams['appearance'].removesuffix('_dense16')} only" for one in rows]
    return Line("one model, or both", "models", xs, ys, labels=labels)


def _disparity(material: Material, row: str) -> dict[str, list[int]]:
    """Clips in each bin of disparity, of all seeds; none where all are in segments, or none is."""
    found = [run.details()["disparity"] for run in material.runs(row)]
    counts = {ground: np.sum([one[ground] for one in found], axis=0).tolist() for ground in GROUNDS}
    return counts if all(map(sum, counts.values())) else {}


def _histogram(material: Material, counts: Mapping[str, Sequence[int]]) -> Picture:
    drawing = histogram.draw(
        counts,
        **material.titles(" (a)"),
        x_label="disparity between appearance and motion (Eq. 3)",
        y_label="% of the clips",
    )
    caption = f"(a) {material.table.title}: disparity in actions and in background"
    return Picture(drawing.png, "Histograms of disparity in actions and in background", caption)


def _disparity_sheet(counts: Mapping[str, Sequence[int]]) -> Sheet:
    rows: list[list[Value]] = [
        [
            number / BINS,
            (number + 1) / BINS,
            *(counts[ground][number] for ground in GROUNDS),
            *(100 * counts[ground][number] / sum(counts[ground]) for ground in GROUNDS),
        ]
        for number in range(BINS)
    ]
    return Sheet("Disparity", DISPARITY, rows, detail=True)


def _about_disparity(counts: Mapping[str, Sequence[int]]) -> str:
    if not counts:
        return "(a): no distributions of disparity, for all clips are in segments, or none is."
    foreground, background = (histogram.mean_of(counts[ground]) for ground in GROUNDS)
    return (
        f"(a): clips whose centre is in a segment of one of the video's classes (foreground; mean disparity "
        f"{foreground:.3f}) and the others ({background:.3f}); the paper has the background further to the right."
    )
