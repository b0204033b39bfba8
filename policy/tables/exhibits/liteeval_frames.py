"""Figs. 4 and 5 of the LiteEval paper: in which videos, and for which frames, fine features are computed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cache_schema import UserError
from policy.deploy.frames import find_videos, thumbnails
from policy.evaluation.predictions import Predictions
from policy.sheets.sheet import Column, Picture, Sheet, Value
from policy.tables.exhibits.exhibit import Exhibit, Material, Trained
from policy.tables.plots import distribution, filmstrip
from policy.tables.plots.filmstrip import Strip

CLASSES = (
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
VIDEOS = (
    Column("video", "video"),
    Column("classes", "classes"),
    Column("frames", "frames"),
    Column("fine features", "fine_features"),
    Column("at seconds", "seconds"),
)
SHOWN_VIDEOS = 6


def by_class(material: Material) -> Exhibit:
    """Fig. 4, from the row `liteeval`: fine features per video by class. A video counts once for each seed."""
    runs = material.trained("liteeval")
    predictions, classes = [trained.run.predictions() for trained in runs], runs[0].data.classes
    usage = {
        name: np.concatenate([one.fine_rows[0][one.labels[:, c]] for one in predictions]).astype(np.float64)
        for c, name in enumerate(classes)
    }
    order = sorted((name for name in classes if len(usage[name])), key=lambda name: -usage[name].mean())
    rows = [_class_row(name, usage[name], len(runs)) for name in order]
    drawing = distribution.draw(usage, **material.titles())
    shown = len(distribution.drawn_classes(usage))
    notes = ["Fine features per video, over the evaluation videos of each class and all seeds."]
    if shown < len(order):
        notes.append(
            f"The figure shows {shown} of {len(order)} classes: those with the highest means, the lowest, and the "
            "widest spread between."
        )
    alt = "Box plot of the fine features per video of each class, means as yellow dots"
    return Exhibit(
        material.report,
        (Sheet(material.report.heading, CLASSES, rows),),
        (Picture(drawing.png, alt),),
        notes=tuple(notes),
    )


def _class_row(name: str, values: npt.NDArray[np.float64], seeds: int) -> list[Value]:
    quartiles = map(float, np.percentile(values, (25, 50, 75)))
    spread = float(values.mean()), float(values.std())
    return [name, len(values) // seeds, *spread, int(values.min()), *quartiles, int(values.max())]


def by_frame(material: Material) -> Exhibit:
    """Fig. 5, from the first seed of the row `liteeval`: the frames for which fine features were computed."""
    trained = material.trained("liteeval")[0]
    predictions, videos = trained.run.predictions(), trained.evaluation
    places = material.order.setting.videos
    paths = find_videos(places, predictions.video_ids) if places else None
    present = np.array([paths is None or video_id in paths for video_id in predictions.video_ids])
    indices = _shown_videos(predictions, present)
    sheet = Sheet(material.report.heading, VIDEOS, [_video_row(trained, predictions, i) for i in indices])
    notes = [
        f"Videos of the evaluation subset that LiteEval (seed {trained.config.seed}) recognises, each of another "
        "class where there are enough, from those with the fewest fine features to those with the most."
    ]
    if paths is None:
        notes.append("Give the folder of the videos (--videos) to see the frames.")
        return Exhibit(material.report, (sheet,), notes=tuple(notes))
    strips = []
    for index in indices:
        video_id = predictions.video_ids[index]
        opened = _gates(predictions, index)
        shown = filmstrip.shown_rows(opened)
        spans = videos.spans("fine", index)[shown]
        strips.append(
            Strip(
                f"{_classes(trained, predictions, index)} ({video_id})",
                thumbnails(paths[video_id], spans, frames_fps=videos.streams["fine"][video_id].fps),
                opened[shown].tolist(),
                spans.mean(axis=1).tolist(),
                filmstrip.thinned(shown, opened),
            )
        )
    alt = "Frames of some videos; those for which fine features were computed have green borders"
    return Exhibit(
        material.report,
        (sheet,),
        (Picture(filmstrip.draw(strips, **material.titles()).png, alt),),
        thumbnails=tuple(map(filmstrip.block, strips)),
        notes=tuple(notes),
    )


def _shown_videos(predictions: Predictions, present: npt.NDArray[np.bool_]) -> list[int]:
    """Which videos to show: recognised ones at even steps of usage, each class once where that is possible.

    Args:
        present: (M,), whether the video itself is at hand.

    Raises:
        UserError: no recognised video with a fine feature.
    """
    good = np.flatnonzero(present & predictions.correct[0] & (predictions.fine_rows[0] > 0))
    if not len(good):
        raise UserError("no video that LiteEval recognises has a fine feature: there is no frame to show")
    usage = predictions.usage[0]
    order = good[np.argsort(usage[good], kind="stable")]
    shown: list[int] = []
    classes: set[int] = set()
    for repeat_classes in (False, True):
        for start in np.linspace(0, len(order) - 1, SHOWN_VIDEOS).round().astype(int).tolist():
            if len(shown) == min(SHOWN_VIDEOS, len(order)):
                break
            # The nearest from here on that is of a new class.
            for index in [*order[start:].tolist(), *order[:start].tolist()]:
                labels = set(np.flatnonzero(predictions.labels[index]).tolist())
                if index not in shown and (repeat_classes or classes.isdisjoint(labels)):
                    shown.append(index)
                    classes |= labels
                    break
    return sorted(shown, key=lambda index: float(usage[index]))


def _video_row(trained: Trained, predictions: Predictions, index: int) -> list[Value]:
    opened = _gates(predictions, index)
    middles_s = trained.evaluation.spans("fine", index)[opened].mean(axis=1).tolist()
    seconds = ", ".join(f"{second:g}" for second in middles_s)
    classes = _classes(trained, predictions, index)
    return [predictions.video_ids[index], classes, len(opened), int(opened.sum()), seconds]


def _gates(predictions: Predictions, index: int) -> npt.NDArray[np.bool_]:
    """(T,) of a video, in the first draw."""
    return predictions.gates[0, predictions.offsets[index] : predictions.offsets[index + 1]] > 0


def _classes(trained: Trained, predictions: Predictions, index: int) -> str:
    return ", ".join(trained.data.classes[c] for c in np.flatnonzero(predictions.labels[index]))
