"""THUMOS'14 temporal annotations: the publisher's files, one for each class, or a JSON in ActivityNet's layout.

http://crcv.ucf.edu/THUMOS14. A line of HighJump_val.txt is "video_validation_0000264 3.1 5.7", in seconds;
Ambiguous_test.txt has the spans in which nothing is judged. Of the 1,010 validation and 1,574 test videos,
those with one of 20 classes are annotated: 200 and 213. The validation videos are those to train on (the
benchmark's training videos are trimmed), and their subset is called "train" here. The files are looked for in
the folder that is given, and below it in folders that are called as the publisher's
(TH14_Temporal_annotations_test, annotation, …).

The JSON is what public code passes on: gt.json of BaS-Net (times are strings), thumos14.json of ActionFormer,
thumos_14_anno.json of OpenTAD (where a label "Ambiguous" marks ambiguous spans). split_train.txt and
split_test.txt beside it list the videos of either subset that are used; others are left out. Of a folder with
both forms the publisher's files are read.

Papers evaluate different sets of the test videos: `thumos14_sets`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from cache_schema.annotations.labels import LabelSet, Segment, VideoLabel
from cache_schema.annotations.published import lines, start_of, wrong
from cache_schema.annotations.published_segments import (
    MALFORMED,
    check_classes,
    classes_of,
    finite,
    read_database,
    segments_of,
    without_empty_segments,
)
from cache_schema.annotations.thumos14_sets import USUAL_SET, of_set
from cache_schema.errors import LabelError

CLASSES = (
    "BaseballPitch", "BasketballDunk", "Billiards", "CleanAndJerk", "CliffDiving", "CricketBowling", "CricketShot",
    "Diving", "FrisbeeCatch", "GolfSwing", "HammerThrow", "HighJump", "JavelinThrow", "LongJump", "PoleVault",
    "Shotput", "SoccerPenalty", "TennisSwing", "ThrowDiscus", "VolleyballSpiking",
)  # fmt: skip

AMBIGUOUS = "Ambiguous"
_FORM = "'VIDEO START END', seconds"
_FILE = re.compile(r"(?P<label>[A-Z][A-Za-z]+)_(?P<split>val|test)\.txt")
_FOLDER = re.compile(r"th(umos)?_?(20)?14.*|annotations?|val(idation)?|test", re.IGNORECASE)
_DEEPEST = 4  # TH14/TH14_Temporal_Annotations_Test/annotations/annotation
_VIDEO = re.compile(r"video_(?P<split>validation|test)_\d{7}")
_JSON_START = re.compile(r'"database"\s*:\s*\{\s*"video_(validation|test)_\d{7}"')
_JSON_NAMES = ("gt.json", "thumos14.json", "thumos_14_anno.json")
_SUBSET = {"val": "train", "validation": "train", "test": "test"}
_JSON_SUBSETS = {
    "train": {"train", "training", "val", "validation"},
    "test": {"test", "testing", "val", "validation"},
}


def fits(path: Path) -> bool:
    """Whether this is a folder with the files of classes or with a JSON of these videos, or such a JSON."""
    return bool(_files(path)) or _json(path) is not None


def read(path: Path, video_set: str = USUAL_SET) -> LabelSet:
    """Read the files of a folder, or a JSON.

    Args:
        video_set: a key of `thumos14_sets.VIDEO_SETS`.

    Raises:
        LabelError: a file is missing, a line or entry is wrong, or a test video of the set is not annotated.
    """
    files = _files(path)
    json = _json(path)
    if files:
        labels = _read_files(path, files)
    elif json is not None:
        labels = _read_json(path, json)
    else:
        raise LabelError(
            f"{path}: expected the annotations of THUMOS'14: a folder with {CLASSES[0]}_test.txt and the files of "
            f"the other {len(CLASSES) - 1} classes, or a JSON of videos such as video_test_0000004"
        )
    return of_set(labels, video_set)


def read_ambiguous(path: Path) -> dict[str, list[tuple[float, float]]]:
    """The spans of each video in a file such as Ambiguous_test.txt. Raises LabelError where a line is wrong."""
    spans = defaultdict(list)
    for video_id, start_s, end_s in _rows(path):
        spans[video_id].append((start_s, end_s))
    return spans


def _files(path: Path) -> dict[tuple[str, str], Path]:
    """By split (val, test) and class, the files of a folder and of those below it that are called as published."""
    found: dict[tuple[str, str], Path] = {}
    for file in _entries(path, _DEEPEST) if path.is_dir() else ():
        named = _FILE.fullmatch(file.name)
        if named is None:
            continue
        key = named["split"], named["label"]
        if key in found:
            raise LabelError(f"{path}: both {found[key]} and {file}; name a folder with one of them")
        found[key] = file
    # Other benchmarks have such names, too, and W-TALC's folder has the ambiguous spans alone.
    return found if any(label in CLASSES for _, label in found) else {}


def _entries(folder: Path, depth: int) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if depth and _FOLDER.fullmatch(entry.name) and entry.is_dir():
            yield from _entries(entry, depth - 1)
        else:
            yield entry


def _read_files(path: Path, files: Mapping[tuple[str, str], Path]) -> LabelSet:
    segments: defaultdict[str, list[Segment]] = defaultdict(list)
    ambiguous: dict[str, list[tuple[float, float]]] = {}
    notes: list[str] = []
    splits = [split for split in ("val", "test") if any(split == other for other, _ in files)]
    for split in splits:
        labels = {label for other, label in files if other == split}
        unknown = sorted(labels.difference(CLASSES, {AMBIGUOUS}))
        if unknown:
            raise LabelError(f"{files[split, unknown[0]]}: {unknown[0]} is no class of THUMOS'14")
        absent = [label for label in CLASSES if label not in labels]
        if absent:
            raise LabelError(f"{path}: no {absent[0]}_{split}.txt, which the others of its kind need")
        for label in CLASSES:
            for video_id, start_s, end_s in _rows(files[split, label]):
                segments[video_id].append(Segment(label, start_s, end_s))
        if AMBIGUOUS in labels:
            ambiguous |= read_ambiguous(files[split, AMBIGUOUS])
        else:
            notes.append(f"{path}: no {AMBIGUOUS}_{split}.txt: no span is known as ambiguous")
    videos = [
        VideoLabel(
            video_id=video_id,
            labels=classes_of(segments[video_id]),
            subset=_subset(video_id),
            segments=tuple(segments[video_id]),
            ambiguous=tuple(ambiguous.get(video_id, ())),
        )
        for video_id in sorted(
            {*segments, *ambiguous}, key=lambda video_id: (_subset(video_id) == "test", video_id)
        )
    ]
    kept, on_times = without_empty_segments(path, videos, {})
    return LabelSet(path, kept, (*notes, *on_times))


def _rows(path: Path) -> Iterator[tuple[str, float, float]]:
    """Video, start and end of each line; a file of one split has its videos alone."""
    named = _FILE.fullmatch(path.name)
    for number, line in lines(path):
        try:
            video_id, start, end = line.split()
            row = video_id, finite(start), finite(end)
        except ValueError as error:
            raise wrong(f"{path}, line {number}", line, _FORM) from error
        if not _VIDEO.fullmatch(video_id) or (named and _subset(video_id) != _SUBSET[named["split"]]):
            raise LabelError(
                f"{path}, line {number}: {video_id!r} is no video of THUMOS'14 that belongs in this file"
            )
        yield row


def _subset(video_id: str) -> str:
    found = _VIDEO.fullmatch(video_id)
    assert found is not None
    return _SUBSET[found["split"]]


def _json(path: Path) -> Path | None:
    files = [path / name for name in _JSON_NAMES] if path.is_dir() else [path]
    return next(
        (file for file in files if file.suffix == ".json" and _JSON_START.search(start_of(file))), None
    )


def _read_json(path: Path, file: Path) -> LabelSet:
    videos: list[VideoLabel] = []
    durations_s: dict[str, float] = {}
    for video_id, entry in read_database(file, "THUMOS'14").items():
        if not _VIDEO.fullmatch(video_id):
            raise LabelError(f"{file}: {video_id!r} is no video of THUMOS'14")
        try:
            everything = segments_of(entry)
            subset = str(entry["subset"])
            if "duration" in entry:
                durations_s[video_id] = finite(entry["duration"])
        except MALFORMED as error:
            raise LabelError(
                f"{file}: video {video_id!r} is not annotated as in ActivityNet's layout: {error!r}"
            ) from error
        if subset.lower() not in _JSON_SUBSETS[_subset(video_id)]:
            raise LabelError(f"{file}: video {video_id!r} is in subset {subset!r}, but its name says another")
        segments = tuple(one for one in everything if one.label != AMBIGUOUS)
        labels = classes_of(segments)
        check_classes(file, video_id, labels, CLASSES)
        videos.append(
            VideoLabel(
                video_id=video_id,
                labels=labels,
                subset=_subset(video_id),
                segments=segments,
                ambiguous=tuple((one.start_s, one.end_s) for one in everything if one.label == AMBIGUOUS),
            )
        )
    kept, notes = without_empty_segments(file, videos, durations_s)
    if not any(video.ambiguous for video in kept):
        notes = (
            f"{file}: has no ambiguous spans, in which detections are forgiven; the publisher's files have",
            *notes,
        )
    return _of_splits(LabelSet(path, kept, notes), file.parent)


def _of_splits(labels: LabelSet, folder: Path) -> LabelSet:
    """The videos that the lists beside a JSON have; all where there are no lists."""
    videos = labels.videos
    notes: list[str] = []
    for subset in ("train", "test"):
        file = folder / f"split_{subset}.txt"
        if not file.is_file():
            continue
        listed = {line: number for number, line in lines(file)}
        annotated = {video.video_id for video in videos if video.subset == subset}
        absent = [video_id for video_id in listed if video_id not in annotated]
        if absent:
            raise LabelError(
                f"{file}, line {listed[absent[0]]}: {absent[0]!r} is no {subset} video that is annotated in "
                f"{labels.source}"
            )
        videos = tuple(v for v in videos if v.subset != subset or v.video_id in listed)
        if len(annotated) > len(listed):
            notes.append(
                f"{file}: lists {len(listed)} of {len(annotated)} annotated videos, the others are left out"
            )
    return LabelSet(labels.source, videos, (*labels.notes, *notes))
