"""Fig. 3 of the model selection paper: the weight of costs in training, clips per video, and what classes cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from policy.selection.area import Comparison, Drawn, compare
from policy.selection.controls import single_models
from policy.sheets.sheet import Column, Picture, Sheet, Value
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.exhibits.selection import (
    ABOVE_RANDOM,
    CONTROLS_NOTE,
    HIT,
    POINT,
    RANDOM,
    Selected,
    area_notes,
    at_own_point,
    beside_controls,
    controls,
    curve_columns,
    curve_rows,
    in_points,
    line,
    point_rows,
    select,
)
from policy.tables.plots import classes
from policy.tables.plots.classes import ClassPoint
from policy.tables.plots.curves import accuracy_against_cost

ROWS = (
    Column("method", "method"),
    Column("clips", "clips"),
    Column("GFLOPs", "gflops", 2),
    Column("HIT@1 %", "top1_percent"),
    Column("from GFLOPs", "from_gflops", 2),
    Column("to", "to_gflops", 2),
    *ABOVE_RANDOM,
)
CLASSES = (
    Column("class", "class"),
    Column("videos", "videos"),
    Column("GFLOPs", "gflops", 2),
    Column("HIT@1 %", "top1_percent"),
)


def make(material: Material) -> Exhibit:
    """Rows it reads: for (a) those that differ in α, for (b) those of some clips, for (c) the emphasised one."""
    rows = material.table.experiments
    [main] = [one.name for one in rows if one.emphasised]
    alphas = {one.name: select(material, one.name) for one in rows if "rows" not in one.settings}
    clips = {one.name: select(material, one.name) for one in rows if "rows" in one.settings}
    ours = alphas[main]
    curves = {**{one.name: one.curves for one in alphas.values()}, **controls(ours)}
    compared = compare(curves, resamples=material.resamples)
    alone = {name: _alone(one, material) for name, one in clips.items()}

    first = [_row(material, name, one, compared) for name, one in alphas.items()]
    first += [[name, None, None, None, *_area(compared, name)] for name in POINT if name != RANDOM]
    first += [_row(material, name, one, alone[name]) for name, one in clips.items()]
    points = point_rows(curves, compared)
    for name, one in clips.items():
        points += curve_rows(one.name, one.curves, alone[name], "at")
    by_class = _classes(material, main)
    judged = _clips(material, main)
    pictures = [_of_alphas(material, alphas, compared), _of_classes(material, ours, by_class)]
    if clips:
        pictures.insert(1, _of_clips(material, ours, judged, compared, clips, alone))
        about_clips = (
            f"Numbers of clips: selectors of their own, each compared with random selection of as many clips. "
            f"{ours.name} judges by {judged} clips."
        )
    else:
        about_clips = "Numbers of clips: the cache has too few clips of a video to compare them."
    return Exhibit(
        material.report,
        (
            Sheet(material.heading, ROWS, first),
            Sheet("Curves", curve_columns(ours.table), points, detail=True),
            Sheet(
                "Classes",
                CLASSES,
                [[one.name, n, one.gflops, one.percent] for one, n in by_class],
                detail=True,
            ),
        ),
        tuple(pictures),
        notes=(
            "GFLOPs and HIT@1 of the first table are at the run's own threshold. A curve is one trained selector "
            "at other thresholds; low, high and bands are 95 % bootstrap intervals over videos.",
            *area_notes(compared),
            about_clips,
            f"Classes: {ours.name} at its own threshold, over the evaluation videos of each class and all seeds.",
            CONTROLS_NOTE,
        ),
    )


def _of_alphas(material: Material, alphas: Mapping[str, Selected], compared: Comparison) -> Picture:
    title = material.table.title
    png = beside_controls(alphas.values(), compared, title=f"{title} (a)", subtitle=material.subtitle)
    alt = "HIT@1 against GFLOPs per video, a curve of thresholds for each α"
    return Picture(png, alt, f"(a) {title}: the weight α of costs in training")


def _of_clips(
    material: Material,
    ours: Selected,
    judged: str,
    compared: Comparison,
    clips: Mapping[str, Selected],
    alone: Mapping[str, Comparison],
) -> Picture:
    title = material.table.title
    png = accuracy_against_cost(
        [
            replace(line(ours.name, "proposed", compared), name=f"{judged} clips"),
            *(line(one.name, "baseline", alone[name]) for name, one in clips.items()),
        ],
        title=f"{title} (b)",
        subtitle=material.subtitle,
        accuracy=HIT,
    )
    alt = "HIT@1 against GFLOPs per video, a curve of thresholds for each number of clips"
    return Picture(png, alt, f"(b) {title}: clips per video")


def _of_classes(material: Material, ours: Selected, by_class: list[tuple[ClassPoint, int]]) -> Picture:
    title = material.table.title
    png = classes.render(
        [one for one, _ in by_class], title=f"{title} (c)", subtitle=material.subtitle, accuracy=HIT
    )
    alt = "HIT@1 of each class against the mean GFLOPs of its videos"
    return Picture(png, alt, f"(c) {title}: classes, {ours.name}")


def _alone(one: Selected, material: Material) -> Comparison:
    """With random selection of its own pool."""
    curves: dict[str, Drawn] = {one.name: one.curves, RANDOM: single_models(one.table)}
    return compare(curves, resamples=material.resamples)


def _row(material: Material, row: str, one: Selected, compared: Comparison) -> list[Value]:
    return [
        one.name,
        _clips(material, row),
        *at_own_point(material, row),
        *_area(compared, one.name),
    ]


def _area(compared: Comparison, name: str) -> list[Value]:
    return [*(compared.budgets or (None, None)), *in_points(compared.area_above(name, RANDOM))]


def _clips(material: Material, row: str) -> str:
    """By how many a row judges."""
    rows = material.selecting(row).rows
    return "all" if rows is None else str(rows)


def _classes(material: Material, row: str) -> list[tuple[ClassPoint, int]]:
    """Every class with its number of videos, by rising cost; those without a video are left out."""
    trained = material.trained(row)
    said = [one.run.predictions() for one in trained]
    gflops = np.mean([one.gflops.mean(axis=0) for one in said], axis=0)
    correct = np.mean([one.correct.mean(axis=0) for one in said], axis=0)
    labels = said[0].labels
    found = [
        (ClassPoint(name, float(gflops[mine].mean()), float(100 * correct[mine].mean())), int(mine.sum()))
        for name, mine in zip(trained[0].data.classes, labels.T, strict=True)
        if mine.any()
    ]
    return sorted(found, key=lambda one: (one[0].gflops, one[0].name))
