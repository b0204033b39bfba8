"""Fig. 4 of the LiteEval paper: how fine features are spread over the videos of a class."""

from __future__ import annotations

import numpy as np

from policy.sheets.sheet import Column, Picture, Sheet, Value
from policy.tables.exhibits.exhibit import Exhibit, Material
from policy.tables.plots import distribution

COLUMNS = (
    Column("class", "class"),
    Column("videos", "videos"),
    Column("mean", "mean", 2),
    Column("std", "std", 2),
    Column("least", "least"),
    Column("first quartile", "first_quartile", 2),
    Column("median", "median", 2),
    Column("third quartile", "third_quartile", 2),
    Column("most", "most"),
)


def make(material: Material) -> Exhibit:
    """Rows it reads: liteeval. A video counts once for each seed."""
    said = [one.run.predictions() for one in material.trained("liteeval")]
    classes = material.trained("liteeval")[0].data.classes
    usage = {
        name: np.concatenate([one.fine_rows[0][one.labels[:, c]] for one in said]).astype(np.float64)
        for c, name in enumerate(classes)
    }
    order = sorted((name for name in classes if len(usage[name])), key=lambda name: -usage[name].mean())
    rows = [_row(name, usage[name], len(said)) for name in order]
    title = material.table.title
    picture = distribution.render(usage, title=title, subtitle=material.subtitle)
    drawn = len(distribution.chosen(usage))
    notes = ["Fine features per video, over the evaluation videos of each class and all seeds."]
    if drawn < len(order):
        notes.append(
            f"The figure shows {drawn} of {len(order)} classes: those with the highest means, the lowest, and the "
            "widest spread between."
        )
    return Exhibit(
        material.report,
        (Sheet(material.heading, COLUMNS, rows),),
        (Picture(picture, "Box plot of the fine features per video of each class, means as yellow dots"),),
        notes=tuple(notes),
    )


def _row(name: str, values: np.ndarray[tuple[int], np.dtype[np.float64]], seeds: int) -> list[Value]:
    first, median, third = (float(value) for value in np.percentile(values, (25, 50, 75)))
    return [
        name,
        len(values) // seeds,
        float(values.mean()),
        float(values.std()),
        int(values.min()),
        first,
        median,
        third,
        int(values.max()),
    ]
