"""Fig. 5 of the LiteEval paper: the frames for which fine features were computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cache_schema import UserError
from policy.deploy.frames import find_videos, thumbnails
from policy.evaluation.predictions import Predictions
from policy.sheets.sheet import Column, Picture, Sheet, Value
from policy.tables.exhibits.exhibit import Exhibit, Material, Trained
from policy.tables.plots import filmstrip
from policy.tables.plots.filmstrip import Strip

VIDEOS = 6
COLUMNS = (
    Column("video", "video"),
    Column("classes", "classes"),
    Column("frames", "frames"),
    Column("fine features", "fine_features"),
    Column("at seconds", "seconds"),
)


def make(material: Material) -> Exhibit:
    """Rows it reads: liteeval, its first seed."""
    trained = material.trained("liteeval")[0]
    said, videos = trained.run.predictions(), trained.evaluation
    there = None if material.videos is None else find_videos(material.videos, said.video_ids)
    known = np.array([there is None or one in there for one in said.video_ids])
    chosen = _chosen(said, known)
    title = material.table.title
    rows = [_row(trained, said, index) for index in chosen]
    notes = [
        f"Videos of the evaluation subset that LiteEval (seed {trained.config.seed}) recognises, each of another "
        "class where there are enough, from those with the fewest fine features to those with the most."
    ]
    if there is None:
        notes.append("Give the folder of the videos (--videos) to see the frames.")
        return Exhibit(material.report, (Sheet(material.heading, COLUMNS, rows),), notes=tuple(notes))
    strips = []
    for index in chosen:
        video_id = said.video_ids[index]
        opened = _gates(said, index)
        shown = filmstrip.chosen(opened)
        spans = videos.spans("fine", index)[shown]
        strips.append(
            Strip(
                f"{', '.join(_classes(trained, said, index))} ({video_id})",
                thumbnails(there[video_id], spans, frames_fps=videos.streams["fine"][video_id].fps),
                opened[shown].tolist(),
                spans.mean(axis=1).tolist(),
                filmstrip.thinned(shown, opened),
            )
        )
    return Exhibit(
        material.report,
        (Sheet(material.heading, COLUMNS, rows),),
        (
            Picture(
                filmstrip.render(strips, title=title, subtitle=material.subtitle),
                "Frames of some videos; those for which fine features were computed have green borders",
            ),
        ),
        thumbnails=tuple(filmstrip.block(strip) for strip in strips),
        notes=tuple(notes),
    )


def _chosen(said: Predictions, known: npt.NDArray[np.bool_]) -> list[int]:
    """Which videos to show: recognised ones at even steps of usage, each class once where that is possible.

    Raises:
        UserError: no recognised video with a fine feature.
    """
    good = np.flatnonzero(known & said.correct[0] & (said.fine_rows[0] > 0))
    if not len(good):
        raise UserError("no video that LiteEval recognises has a fine feature: there is no frame to show")
    order = good[np.argsort(said.usage[0][good], kind="stable")]
    taken: list[int] = []
    classes: set[int] = set()
    for again in (False, True):
        for start in np.linspace(0, len(order) - 1, VIDEOS).round().astype(int).tolist():
            if len(taken) == min(VIDEOS, len(order)):
                break
            # The nearest from here on that is of a new class.
            for index in [*order[start:].tolist(), *order[:start].tolist()]:
                mine = set(np.flatnonzero(said.labels[index]).tolist())
                if index not in taken and (again or classes.isdisjoint(mine)):
                    taken.append(index)
                    classes |= mine
                    break
    return sorted(taken, key=lambda index: float(said.usage[0][index]))


def _row(trained: Trained, said: Predictions, index: int) -> Sequence[Value]:
    video_id, opened = said.video_ids[index], _gates(said, index)
    spans = trained.evaluation.spans("fine", index)
    seconds = ", ".join(f"{second:g}" for second in spans[opened].mean(axis=1).tolist())
    classes = ", ".join(_classes(trained, said, index))
    return [video_id, classes, len(opened), int(opened.sum()), seconds]


def _gates(said: Predictions, index: int) -> npt.NDArray[np.bool_]:
    """(T,) of a video, in the first draw."""
    return said.gates[0, said.offsets[index] : said.offsets[index + 1]] > 0


def _classes(trained: Trained, said: Predictions, index: int) -> list[str]:
    return [trained.data.classes[c] for c in np.flatnonzero(said.labels[index])]


__all__ = ["make"]
