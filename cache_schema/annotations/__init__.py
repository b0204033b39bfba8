"""Labels, splits and temporal segments: one reader for each published file format.

A reader takes the path of a file, or of a folder with files, and returns a LabelSet; adding a format is adding a
file here and a line to FORMATS, with what tells its files from others by their names or first lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from cache_schema.annotations import (
    activitynet,
    breakfast,
    class_folders,
    fcvid,
    groups,
    hf_videofolder,
    hmdb51,
    hvu,
    json_lists,
    kinetics,
    mini_kinetics,
    multithumos,
    segments_csv,
    thumos14,
    thumos14_sets,
    ucf101,
    video_lists,
    videos_csv,
    wtalc,
)
from cache_schema.annotations.dividing import divided
from cache_schema.annotations.labels import Grouping, LabelSet, Segment, VideoLabel
from cache_schema.annotations.unknown import unknown
from cache_schema.arguments import checks_arguments, speaks_python
from cache_schema.errors import LabelError
from cache_schema.files import StrPath


@dataclass(frozen=True)
class Format:
    """A format of labels.

    Attributes:
        read: takes a path, and as keywords `split`, where there are several, and `class_file`, where classes may
            be numbers.
        fits: whether a path is of this format, by names and first lines; None: only --format says so.
        general: fits of many files; looked at where nothing else fits.
        example: a file of it, or what one looks like, for a message.
    """

    read: Callable[..., LabelSet]
    fits: Callable[[Path], bool] | None = None
    general: bool = False
    example: str = ""


FORMATS: Mapping[str, Format] = {
    "csv": Format(
        videos_csv.read, videos_csv.fits, True, "a table whose first line is video_id,label,subset"
    ),
    "segments-csv": Format(segments_csv.read, segments_csv.fits),
    "list": Format(
        video_lists.read, video_lists.fits, True, "'PATH LABEL' or 'PATH FRAMES LABEL' in each line"
    ),
    "list-labels": Format(partial(video_lists.read, form="labels")),
    "list-frames": Format(partial(video_lists.read, form="frames")),
    "json-list": Format(json_lists.read, json_lists.fits, True, '[{"filename": …, "label": …}, …]'),
    "hf-videofolder": Format(hf_videofolder.read, hf_videofolder.fits, example="metadata.csv"),
    "class-folders": Format(class_folders.read, class_folders.fits, True, "CLASS/VIDEO.mp4"),
    "ucf101": Format(ucf101.read, ucf101.fits, example="trainlist01.txt"),
    "hmdb51": Format(hmdb51.read, hmdb51.fits, example="brush_hair_test_split1.txt"),
    "activitynet": Format(activitynet.read_json, activitynet.fits_json, example="activity_net.v1-3.min.json"),
    "activitynet-lists": Format(activitynet.read_txt, activitynet.fits_txt, example="anet_train_video.txt"),
    "mini-kinetics": Format(mini_kinetics.read, mini_kinetics.fits, example="mini_kinetics_train.txt"),
    "kinetics": Format(kinetics.read, kinetics.fits),
    "fcvid": Format(fcvid.read, fcvid.fits, example=fcvid.VIDEOS),
    "breakfast": Format(breakfast.read, breakfast.fits, example="train.split1.bundle"),
    **{f"breakfast-s{split}": Format(partial(breakfast.read, split=split)) for split in (1, 2, 3, 4)},
    "hvu": Format(hvu.read, hvu.fits, example="HVU_Train_V1.0.csv"),
    **{f"hvu-{category}": Format(partial(hvu.read, category=category)) for category in hvu.CATEGORIES},
    "thumos14": Format(thumos14.read, thumos14.fits, example="detclasslist.txt"),
    **{name: Format(partial(thumos14.read, video_set=name)) for name in thumos14_sets.VIDEO_SETS},
    "wtalc": Format(wtalc.read, wtalc.fits, example="Thumos14reduced-Annotations"),
    "wtalc-212": Format(partial(wtalc.read, video_set="thumos14-212")),
    "multithumos": Format(multithumos.read, multithumos.fits, example="multithumos.json"),
}
_BY_SUFFIX = {".csv": "csv", ".tsv": "csv", ".json": "activitynet"}
"""Where nothing fits: their readers say what is lacking."""


@speaks_python(format="format_name", group_column="Grouping's column", group_pattern="Grouping's pattern")
@checks_arguments
def read_labels(
    path: StrPath,
    format_name: str | None = None,
    grouping: Grouping | None = None,
    *,
    split: int | None = None,
    class_file: StrPath | None = None,
    val_fraction: float | None = None,
    divides: bool = True,
) -> LabelSet:
    """Read an annotation file, or a folder of annotation files or of videos.

    Args:
        format_name: a key of FORMATS; None: told from names and first lines.
        grouping: which videos belong together; None: nothing is known of that.
        split: which of several published splits; with `val_fraction` the seed that videos are drawn with.
        class_file: names the classes of a list that has numbers.
        val_fraction: the share of videos that are set aside as subset "val", of labels without subsets.
        divides: False leaves that to the caller.

    Raises:
        LabelError: a file cannot be read, is not in that format, or contradicts itself; a video has no group.
    """
    path = Path(path)
    try:
        name = format_name or _format_of(path)
        read = FORMATS[name].read
        taken = signature(read).parameters.keys() - getattr(read, "keywords", {}).keys()
        given: dict[str, Any] = {"split": split, "class_file": class_file and Path(class_file)}
        given = {option: value for option, value in given.items() if value is not None}
        for option in given.keys() - taken:
            if option == "class_file":
                raise LabelError(f"{path}: format {name} names its classes itself; leave --class-file out")
            if val_fraction is None:
                raise LabelError(f"{path}: format {name} has no splits to choose from; leave --split out")
        labels = read(path, **{option: value for option, value in given.items() if option in taken})
        labels = groups.grouped(labels, grouping) if grouping else labels
    except OSError as error:
        raise LabelError(
            f"{error.filename or path}: cannot read the labels: {error.strerror or error}"
        ) from error
    except UnicodeError as error:
        raise LabelError(f"{path}: not a text file in UTF-8 (Excel saves one as 'CSV UTF-8')") from error
    return divided(labels, val_fraction, split or 0) if divides and val_fraction is not None else labels


def _format_of(path: Path) -> str:
    for general in (False, True):
        names = [
            name for name, one in FORMATS.items() if one.general is general and one.fits and one.fits(path)
        ]
        if len(names) > 1 and names[-1] == "class-folders":  # files say more than folders
            names.pop()
        if len(names) > 1:
            raise LabelError(f"{path}: holds labels of {' and of '.join(names)}; say which with --format")
        if names:
            return names[0]
    path.stat()  # what is not there is in no unknown format
    if not path.is_dir() and (name := _BY_SUFFIX.get(path.suffix.lower())):
        return name
    raise unknown(path, {name: one.example for name, one in FORMATS.items() if one.example})


__all__ = ["FORMATS", "Grouping", "LabelSet", "Segment", "VideoLabel", "read_labels"]
