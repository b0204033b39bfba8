"""Fig. 3 of the model selection paper: the weight of costs in training, clips per video, and costs by class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from policy.selection.area import Comparison, Drawn, compare
from policy.selection.controls import single_models
from policy.sheets.sheet import Column, Picture, Sheet, Value
from policy.tables.exhibits import selection_parts as parts
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.plots import classes
from policy.tables.plots.classes import ClassPoint
from policy.tables.report import row_word

ROWS = (
    Column("method", "method"),
    Column("clips", "clips"),
    Column("GFLOPs", "gflops", 2),
    Column("HIT@1 %", "top1_percent"),
    Column("from GFLOPs", "from_gflops", 2),
    Column("to", "to_gflops", 2),
    *parts.ABOVE_RANDOM,
)
CLASSES = (
    Column("class", "class"),
    Column("videos", "videos"),
    Column("GFLOPs", "gflops", 2),
    Column("HIT@1 %", "top1_percent"),
)


def make(material: Material) -> Exhibit:
    """(a) from the rows that differ in α, (b) from those with a number of clips, (c) from the emphasised one."""
    rows = material.table.experiments
    main = parts.emphasised(material)
    alphas = {one.name: parts.select(material, one.name) for one in rows if "rows" not in one.settings}
    clips = {one.name: parts.select(material, one.name) for one in rows if "rows" in one.settings}
    ours = alphas[main]
    curves, compared = parts.with_controls(material, alphas.values(), ours)
    alone = {name: _alone(one, material) for name, one in clips.items()}

    summary = [_row(material, name, one, compared) for name, one in alphas.items()]
    others = [name for name in parts.BUDGET_OF_CONTROL if name != parts.RANDOM]
    summary += [[name, None, None, None, *_area(compared, name)] for name in others]
    summary += [_row(material, name, one, alone[name]) for name, one in clips.items()]
    points = parts.point_rows(curves, compared)
    for name, selected in clips.items():
        points += parts.curve_rows(selected.name, selected.curves, alone[name], "at")
    pictures = [
        parts.hit_picture(
            material,
            parts.lines_with_controls(alphas.values(), compared),
            "(a)",
            "the weight α of costs in training",
            "GFLOPs per video, a curve of thresholds for each α",
        )
    ]
    row = row_word(stream.spec for stream in material.trained(main)[0].data.train.pool.values())
    about_clips = "Numbers of clips: the cache has too few clips of a video to compare them."
    if clips:
        judged = _clips(material, main)
        about_clips = (
            f"Numbers of clips: selectors of their own, each compared with random selection of as many clips. "
            f"{ours.name} judges by {judged} clips."
        )
        lines = [replace(parts.line(ours.name, "proposed", compared), name=f"{judged} clips")]
        lines += [parts.line(one.name, "baseline", alone[name]) for name, one in clips.items()]
        alt = "GFLOPs per video, a curve of thresholds for each number of clips"
        pictures.append(parts.hit_picture(material, lines, "(b)", "clips per video", alt))
    by_class = _classes(material, main)
    drawing = classes.draw([one for one, _ in by_class], **material.titles(" (c)"), accuracy=parts.HIT)
    caption = f"(c) {material.table.title}: classes, {ours.name}"
    pictures.append(
        Picture(drawing.png, "HIT@1 of each class against the mean GFLOPs of its videos", caption)
    )
    class_rows: list[list[Value]] = [[one.name, videos, one.gflops, one.percent] for one, videos in by_class]
    return Exhibit(
        material.report,
        (
            Sheet(material.report.heading, ROWS, summary),
            Sheet("Curves", parts.curve_columns(ours.table), points, detail=True),
            Sheet("Classes", CLASSES, class_rows, detail=True),
        ),
        tuple(pictures),
        notes=(
            "GFLOPs and HIT@1 of the first table are at the run's own threshold. A curve is one trained selector "
            f"at other thresholds; low, high and bands are 95 % bootstrap intervals over {material.drawn}.",
            *parts.area_notes(compared),
            about_clips,
            *([f"A clip is a {row} of these models."] if row != "clip" else []),
            f"Classes: {ours.name} at its own threshold, over the evaluation videos of each class and all seeds.",
            parts.CONTROLS_NOTE,
        ),
    )


def _alone(selected: parts.Selected, material: Material) -> Comparison:
    """Compared with random selection from its own pool."""
    curves: dict[str, Drawn] = {
        selected.name: selected.curves,
        parts.RANDOM: single_models(selected.table),
    }
    return compare(curves, resamples=material.resamples)


def _row(material: Material, row: str, selected: parts.Selected, compared: Comparison) -> list[Value]:
    means = material.means(row, "gflops", "top1_percent")
    return [selected.name, _clips(material, row), *means, *_area(compared, selected.name)]


def _area(compared: Comparison, name: str) -> list[Value]:
    above = parts.in_points(compared.area_above(name, parts.RANDOM))
    return [*(compared.budgets or (None, None)), *above]


def _clips(material: Material, row: str) -> str:
    """The number of clips by which a row judges a video."""
    rows = material.selecting(row).rows
    return "all" if rows is None else str(rows)


def _classes(material: Material, row: str) -> list[tuple[ClassPoint, int]]:
    """Every class that has a video, with its number of videos, by rising cost."""
    trained = material.trained(row)
    predictions = [one.run.predictions() for one in trained]
    gflops = np.mean([one.gflops.mean(axis=0) for one in predictions], axis=0)
    correct = np.mean([one.correct.mean(axis=0) for one in predictions], axis=0)
    points = [
        (ClassPoint(name, float(gflops[has].mean()), float(100 * correct[has].mean())), int(has.sum()))
        for name, has in zip(trained[0].data.classes, predictions[0].labels.T, strict=True)
        if has.any()
    ]
    return sorted(points, key=lambda point: (point[0].gflops, point[0].name))
