"""HVU: the publisher's CSVs, "Tags,youtube_id,time_start,time_end" with the tags of a clip joined by "|".

https://github.com/holistic-video-understanding/HVU-Dataset: HVU_Train_V1.0 and HVU_Val_V1.0, read as .csv or in
the .zip in which they are published, and HVU_Tags_Categories_V1.0.csv ("Tag,Category"), which divides the 3,142
tags into six categories. Where that file is in the same folder, every tag must be in it, and the formats
hvu-action, hvu-attribute, … keep the tags of one category: a clip without any of those has no labels. The training
CSV was not at hand when this was written.

Clips are cut from YouTube videos, often several from one, at seconds and halves of a second. Their names in use:
ID_000101_000103, whole seconds as in Kinetics, and the same with a "_" at the end, which is what the publisher's
downloader (HVU-Downloader) leaves; ID_001015_001035, tenths of a second (MMAction2); and the YouTube id alone. All
are looked for, each where it means one clip. The seconds become no segment: the clip is the whole video.

Evaluation is by mAP: Diba et al. (ECCV 2020, https://arxiv.org/abs/1904.11451) report it for each category, and as
overall result the mean of these six, which is not the mean over the 3,142 classes. MMAction2's evaluation for a
category is over the clips that have a tag of it; with hvu-CATEGORY it is here.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from cache_schema.annotations.labels import LabelSet, VideoLabel
from cache_schema.annotations.published import open_zipped, start_of, wrong
from cache_schema.errors import LabelError

COLUMNS = ("Tags", "youtube_id", "time_start", "time_end")
CATEGORIES = ("action", "attribute", "concept", "event", "object", "scene")

_LIST = re.compile(r"hvu_(?P<subset>train|val)(_v[\d.]+)?\.(?P<kind>csv|zip)", re.IGNORECASE)
_TAGS = re.compile(r"hvu_(tags_)?categories(_v[\d.]+)?\.csv", re.IGNORECASE)
_EXPECTED = "HVU's HVU_Train_V1.0 and HVU_Val_V1.0, as .csv or .zip"
_TAG_COLUMNS = ("Tag", "Category")
_LONGEST_S = 1e6  # more is no time in a video, and would not fit the file names' six digits


class _Clip(NamedTuple):
    youtube_id: str
    start_s: float
    end_s: float
    labels: tuple[str, ...]
    subset: str


def fits(path: Path) -> bool:
    """Whether this is one of the files, by its name or first line, or a folder with one."""
    if path.is_dir():
        return any(_LIST.fullmatch(entry.name) for entry in path.iterdir())
    return _LIST.fullmatch(path.name) is not None or (
        path.suffix.lower() == ".csv" and start_of(path).partition("\n")[0].strip() == ",".join(COLUMNS)
    )


def read(path: Path, category: str | None = None) -> LabelSet:
    """Read the files of a folder, a .csv before a .zip of the same subset, or a single one.

    470,000 clips with 19 tags each take about 10 s of a core and 0.5 GB of memory.

    Args:
        category: one of CATEGORIES, whose tags alone are kept; None: all tags are.

    Raises:
        LabelError: a line is wrong, a clip occurs twice, a tag is in no category, or a zip holds no such CSV.
    """
    files = _files(path)
    folder = path if path.is_dir() else path.parent
    tags = _Tags(_categories(folder), category, folder)
    clips: list[_Clip] = []
    places: dict[str, str] = {}
    for subset, file in files.items():
        before = len(clips)
        for line, clip in _clips(file, subset, tags):
            name = _tenths(clip)
            if name in places:
                raise LabelError(
                    f"{file}, line {line}: the clip of {clip.youtube_id!r} from {clip.start_s:g} to "
                    f"{clip.end_s:g} s occurs twice, first {places[name]}; delete one of them"
                )
            places[name] = f"in {file.name}, line {line}"
            clips.append(clip)
        if len(clips) == before:
            raise LabelError(f"{file}: no clips in it")
    del places
    return LabelSet(path, tuple(_videos(clips)))


def _files(path: Path) -> dict[str, Path]:
    """The file of each subset; a .csv goes before the .zip that it was unpacked from."""
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        named = _LIST.fullmatch(file.name)
        if named is None:
            continue
        kinds = found.setdefault(named["subset"].lower(), {})
        kind = named["kind"].lower()
        if kind in kinds:
            raise LabelError(
                f"{path}: both {kinds[kind].name} and {file.name} list the {named['subset'].lower()} videos; "
                "name a folder with one of them"
            )
        kinds[kind] = file
    if not found:
        raise LabelError(f"{path}: expected {_EXPECTED}: the name says which subset it is")
    return {
        subset: found[subset].get("csv") or found[subset]["zip"]
        for subset in ("train", "val")
        if subset in found
    }


class _Tags:
    """Turns tags into labels; each tag is checked once, and all clips share its text.

    Args:
        categories: the category of each tag; None where there is no file of them.
        kept: the category whose tags are kept; None: all are.
    """

    def __init__(self, categories: dict[str, str] | None, kept: str | None, folder: Path) -> None:
        if kept is not None and categories is None:
            raise LabelError(
                f"{folder}: no HVU_Tags_Categories_V1.0.csv, which says which tags are of the category {kept!r}"
            )
        self._categories, self._kept = categories, kept
        self._labels: dict[str, str | None] = {}  # None: of another category

    def labels(self, joined: str) -> tuple[str, ...]:
        """The labels of a clip. Raises ValueError where a tag is empty or unknown."""
        known = self._labels
        labels = dict[str, None]()
        for tag in joined.split("|"):
            if tag not in known:
                known[tag] = self._label(tag)
            label = known[tag]
            if label is not None:
                labels[label] = None
        return tuple(labels)

    def _label(self, tag: str) -> str | None:
        label = tag.strip()
        if not label:
            raise ValueError("an empty tag between '|'")
        if self._categories is None:
            return label
        try:
            category = self._categories[label]
        except KeyError:
            raise ValueError(f"tag {label!r} is not in the file of the tags' categories beside it") from None
        return label if self._kept in {None, category} else None


def _categories(folder: Path) -> dict[str, str] | None:
    files = [entry for entry in sorted(folder.iterdir()) if _TAGS.fullmatch(entry.name)]
    if not files:
        return None
    if len(files) > 1:
        raise LabelError(
            f"{folder}: both {files[0].name} and {files[1].name} divide the tags; keep one of them"
        )
    (file,) = files
    categories: dict[str, str] = {}
    for line, (tag, category) in _rows(file, _TAG_COLUMNS):
        if category not in CATEGORIES:
            raise LabelError(
                f"{file}, line {line}: {category!r} is no category; they are {', '.join(CATEGORIES)}"
            )
        if not tag or tag in categories:
            raise LabelError(f"{file}, line {line}: {f'tag {tag!r} occurs twice' if tag else 'no tag'}")
        categories[tag] = category
    if not categories:
        raise LabelError(f"{file}: no tags in it")
    return categories


def _clips(file: Path, subset: str, tags: _Tags) -> Iterator[tuple[int, _Clip]]:
    """Each clip with the number of its line."""
    for line, (joined, youtube_id, start, end) in _rows(file, COLUMNS):
        try:
            if not youtube_id:
                raise ValueError("no youtube_id")
            if not joined:
                raise ValueError(f"no tags for clip {youtube_id!r}")
            yield line, _Clip(youtube_id, *_stretch(start, end), tags.labels(joined), subset)
        except ValueError as error:
            raise LabelError(f"{file}, line {line}: {error}") from error


def _stretch(start: str, end: str) -> tuple[float, float]:
    try:
        start_s, end_s = float(start), float(end)
    except ValueError:
        start_s = end_s = -1.0
    if not 0 <= start_s < end_s < _LONGEST_S:
        raise ValueError(f"from {start!r} to {end!r} is no stretch of seconds")
    return start_s, end_s


def _rows(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """The number and the stripped fields of each line after the header that is not blank."""
    form = ",".join(columns)
    with _opened(file) as text:
        # Strict, or a quote that is never closed would swallow the lines after it.
        reader = csv.reader(text, strict=True)
        before = 0
        try:
            header = next(reader, [])
            if tuple(name.strip() for name in header) != columns:
                raise wrong(f"{file}, line 1", ",".join(header), f"the header {form!r}")
            before = reader.line_num
            for row in reader:
                if len(row) == len(columns):
                    yield reader.line_num, [field.strip() for field in row]
                elif row:
                    raise LabelError(
                        f"{file}, line {reader.line_num}: {len(row)} fields, not the {len(columns)} of {form!r}"
                    )
                before = reader.line_num
        except csv.Error as error:
            raise LabelError(f"{file}, line {before + 1}: not CSV ({error})") from error
        except UnicodeDecodeError as error:
            raise LabelError(f"{file}: not a text file in UTF-8") from error


def _opened(file: Path) -> TextIO:
    if file.suffix.lower() == ".zip":
        return open_zipped(file, ".csv")
    return file.open(encoding="utf-8-sig", newline="")


def _videos(clips: list[_Clip]) -> Iterator[VideoLabel]:
    of_id = Counter(clip.youtube_id for clip in clips)
    # Only clips of one video can go by the same name.
    of_name = Counter(name for clip in clips if of_id[clip.youtube_id] > 1 for name in _names(clip))
    for clip in clips:
        alone = of_id[clip.youtube_id] == 1
        names = [name for name in _names(clip) if alone or of_name[name] == 1] or [_tenths(clip)]
        video_id, *aliases = [*names, clip.youtube_id] if alone else names
        yield VideoLabel(video_id, clip.labels, clip.subset, aliases=tuple(aliases))


def _names(clip: _Clip) -> dict[str, None]:
    whole = f"{clip.youtube_id}_{int(clip.start_s):06d}_{int(clip.end_s):06d}"
    return dict.fromkeys((whole, f"{whole}_", _tenths(clip)))


def _tenths(clip: _Clip) -> str:
    return f"{clip.youtube_id}_{int(clip.start_s * 10):06d}_{int(clip.end_s * 10):06d}"
