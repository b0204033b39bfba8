"""What is shown of judged detections (`policy.tables.detections`)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cache_schema.annotations.thumos14_sets import USUAL_SET
from policy.evaluation.detection import THUMOS14_IOUS, BoolArray
from policy.sheets.sheet import INTERVALS, Column, Document, Sheet, Value
from policy.tables.detections import Judgement

TITLE = "Detection mAP by protocol and set of videos, in %"
ABOUT: Mapping[str, str] = {
    "thumos14": "thumos14: the kit of 2015. Each segment takes the free detection with the highest IoU, if it is "
    "above the threshold; other detections on ambiguous spans are forgiven.",
    "activitynet": "activitynet: ActivityNet's kit. Each detection, the highest score first, takes the free "
    "segment with the highest IoU, if it is at least the threshold. Ambiguous spans are ignored, precision is "
    "interpolated.",
    "wtalc": "wtalc: W-TALC's code. Times are rounded to clips of 0.64 s. Each detection, the highest score "
    "first, takes the first free segment with at least this IoU; detections on ambiguous spans are left out.",
}
_MOST_COLUMNS = 7
_PRINTED = (0.5, 0.75, 0.95)
"""Those of ActivityNet's ten thresholds that papers print."""
_PARTS = ((0.1, 0.5), (0.3, 0.7))
"""Papers on THUMOS'14 average over these parts of its thresholds, too."""


def document(judgement: Judgement, command: str, *, per_class: bool) -> Document:
    """Args:
    per_class: with a table of the classes, in the usual set of videos.
    """
    ious, rows, class_rows = judgement.ious, _rows(judgement), _class_rows(judgement)
    averaged = f"{ious[0]:g}" if len(ious) == 1 else f"the {len(ious)} from {ious[0]:g} to {ious[-1]:g}"
    return Document(
        id="detections",
        title=TITLE,
        sheets=[*_sheets(judgement), *([_class_sheet(judgement)] if per_class else [])],
        state=[
            f"{judgement.path}, judged by the segments in {judgement.labels.source}.",
            *judgement.notes,
            f"Thresholds of IoU: {averaged}; --ious sets others. mAP is over the classes that have segments.",
            *ABOUT.values(),
            *([f"{INTERVALS} over {judgement.drawn}."] if judgement.resamples else []),
        ],
        command=command,
        record={
            "title": TITLE,
            "detections": str(judgement.path),
            "annotations": str(judgement.labels.source),
            "subset": judgement.subset,
            "ious": ious.tolist(),
            "rows": rows.records,
            **({"classes": class_rows.records} if per_class else {}),
        },
        data=[rows, *([class_rows] if per_class else [])],
        label="detections",
    )


def _sheets(judgement: Judgement) -> list[Sheet]:
    """mAP at each threshold and their average; for THUMOS'14 averages over parts of the thresholds, too."""
    ious = judgement.ious
    printed = np.isin(ious, _PRINTED)
    shown = ious[printed] if len(ious) > _MOST_COLUMNS and printed.any() else ious
    every = np.ones(len(ious), np.bool_)
    plain = {f"{iou:g}": ious == iou for iou in shown}
    if len(ious) == 1:
        return [_sheet(TITLE, judgement, {}, plain)]
    sheets = [_sheet(TITLE, judgement, plain, {"average": every})]
    if tuple(ious) == THUMOS14_IOUS:
        parts = {f"{first:g} to {last:g}": (ious >= first) & (ious <= last) for first, last in _PARTS}
        sheets.append(_sheet("Averages over other thresholds that papers give, in %", judgement, {}, parts))
    return sheets


def _sheet(
    title: str, judgement: Judgement, plain: Mapping[str, BoolArray], averages: Mapping[str, BoolArray]
) -> Sheet:
    """A row for each set of videos, grouped by protocol.

    Args:
        plain, averages: by title of the column, over which thresholds it is; `averages` have their intervals.
    """
    rows: list[list[Value]] = []
    groups = {}
    for protocol, scores in judgement.scores.items():
        groups[len(rows)] = protocol
        for name, score in scores.items():
            cells: list[Value] = [score.mean(thresholds).mean for thresholds in plain.values()]
            cells += [score.mean(thresholds) for thresholds in averages.values()]
            rows.append([f" {judgement.sets[name].sum():,} videos", *cells])
    columns = [Column("IoU"), *(Column(heading) for heading in (*plain, *averages))]
    return Sheet(title, columns, rows, groups=groups)


def _rows(judgement: Judgement) -> Sheet:
    """All that is known of each protocol and set of videos, for scripts."""
    ious = judgement.ious
    means = {f"map_percent_at_{iou:g}": ious == iou for iou in ious}
    means["average_map_percent"] = np.ones(len(ious), np.bool_)
    keys = ["protocol", "video_set", "videos", "segments", "detections"]
    keys += [key + end for key in means for end in ("", "_low", "_high")]
    rows: list[list[Value]] = []
    for protocol, scores in judgement.scores.items():
        for name, score in scores.items():
            chosen = judgement.sets[name]
            counts = (chosen, chosen[judgement.truth.videos], chosen[judgement.detections.videos])
            row: list[Value] = [protocol, name, *(int(rows_of.sum()) for rows_of in counts)]
            for thresholds in means.values():
                spread = score.mean(thresholds)
                row += [spread.mean, spread.low, spread.high]
            rows.append(row)
    return Sheet(TITLE, [Column(key, key) for key in keys], rows)


def _class_rows(judgement: Judgement) -> Sheet:
    """Average precision of each class that has segments, for scripts."""
    name = _usual_set(judgement)
    keys = ["protocol", "video_set", "class", "segments", "detections"]
    keys += [*(f"ap_percent_at_{iou:g}" for iou in judgement.ious), "average_ap_percent"]
    rows: list[list[Value]] = []
    for protocol, scores in judgement.scores.items():
        for number, (label, segments, found) in _counts(judgement).items():
            precision = scores[name].precision[number]
            rows.append(
                [protocol, name, label, segments, found, *precision.tolist(), float(precision.mean())]
            )
    return Sheet("Average precision of each class", [Column(key, key) for key in keys], rows)


def _class_sheet(judgement: Judgement) -> Sheet:
    """Average precision of each class, averaged over the thresholds."""
    name = _usual_set(judgement)
    rows: list[list[Value]] = []
    for number, counted in _counts(judgement).items():
        averages = [float(scores[name].precision[number].mean()) for scores in judgement.scores.values()]
        rows.append([*counted, *averages])
    columns = [Column(heading) for heading in ("class", "segments", "detections", *judgement.scores)]
    videos = judgement.sets[name].sum()
    return Sheet(
        f"Average precision of each class, averaged over IoU, in %: {videos:,} videos", columns, rows
    )


def _counts(judgement: Judgement) -> dict[int, tuple[str, int, int]]:
    """Of each class that has segments in the usual set: its name, how many, and how many detections there are."""
    chosen = judgement.sets[_usual_set(judgement)]
    truth, detections, classes = judgement.truth, judgement.detections, judgement.labels.classes
    segments = np.bincount(truth.classes[chosen[truth.videos]], minlength=len(classes)).tolist()
    found = np.bincount(detections.classes[chosen[detections.videos]], minlength=len(classes)).tolist()
    return {c: (label, segments[c], found[c]) for c, label in enumerate(classes) if segments[c]}


def _usual_set(judgement: Judgement) -> str:
    return USUAL_SET if USUAL_SET in judgement.sets else next(iter(judgement.sets))
