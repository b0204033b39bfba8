"""Lists with a video in each line, as TSN, mmaction2, SlowFast and VideoMAE read them, without a header.

A line is "PATH LABEL", "PATH LABEL LABEL…" where videos have several classes, or "PATH FRAMES LABEL…" where
frames of videos were extracted, divided by blanks, tabs, commas or semicolons; a path may have blanks. Labels
are numbers from 0, or names. Which of the forms it is: frames, where all lines have two numbers or more, unless
each path is that of a video file and lines differ in how many numbers they have. The formats list-labels and
list-frames say it.

Files are called after their subset, as in train.csv and val.csv (SlowFast), kinetics400_train_list_videos.txt and
kinetics400_val_list_videos.txt (mmaction2), or ucf101_train_split_1_rawframes.txt, which has several splits.

Numbers become names by a file that names the classes: label_map_k400.txt, classInd.txt, classids.json, …
(`class_names`); it is given, or lies beside the lists. The forms of mmaction2's lists are those of its
RawframeDataset and VideoDataset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from cache_schema.annotations.class_names import CLASS_FILES, NumberedClasses, check_unused
from cache_schema.annotations.labels import Entry, LabelSet, label_set
from cache_schema.annotations.list_files import siblings_note, subset_files, subset_of
from cache_schema.annotations.published import lines, number_in, start_of, wrong
from cache_schema.errors import LabelError
from cache_schema.names import LIST_SUFFIXES, VIDEO_SUFFIXES, ending

Form = Literal["labels", "frames"]

_FORMS = (
    "'PATH LABEL', with more labels where a video has them",
    "'PATH FRAMES LABEL', with more labels where a video has them",
)
"""Without and with numbers of frames."""
_SEPARATORS = ",;\t"


class _Line(NamedTuple):
    """A line of a list: its path, the numbers behind it, or the name of its class."""

    path: str
    numbers: tuple[int, ...]
    name: str
    subset: str
    file: Path
    number: int

    @property
    def place(self) -> str:
        return f"{self.file}, line {self.number}"


def fits(path: Path) -> bool:
    """Whether this is such a list, by its first line, or a folder with one that is called after a subset."""
    if path.is_dir():
        return any(subset_of(file.name) and file.is_file() and fits(file) for file in path.iterdir())
    if ending(path.name) not in LIST_SUFFIXES or CLASS_FILES.fullmatch(path.name):
        return False
    first = next((line.strip() for line in start_of(path).split("\n") if line.strip()), "")
    if not first or (not first.isprintable() and "\t" not in first):
        return False
    name, numbers, label = _parsed(first, _separator(first))
    return bool(name and (numbers or label)) and not name.endswith(":")


def read(
    path: Path, *, split: int | None = None, class_file: Path | None = None, form: Form | None = None
) -> LabelSet:
    """Read a list and those beside it that are called alike, or the lists of a folder.

    Args:
        split: of a folder with lists of several splits; None: the first.
        class_file: names the classes; None: one that lies beside the lists, if there is one.
        form: of the lines; None: by the rule above.

    Raises:
        LabelError: a line is of another form, a class has no name, or a video occurs twice.
    """
    files = subset_files(path, fits, split)
    listed: list[_Line] = []
    for subset, file in files.items():
        before = len(listed)
        listed += _lines(file, subset)
        if len(listed) == before:
            raise LabelError(f"{file}: no videos in it")
    notes = [*siblings_note(path, files)]
    if odd := next((line for line in listed if bool(line.name) is not bool(listed[0].name)), None):
        raise LabelError(f"{odd.place}: has a {_kind(odd)}, where lines before have a {_kind(listed[0])}")
    if listed[0].name:
        check_unused(class_file, path)
        entries = [Entry(line.path, (line.name,), line.subset, line.file, line.number) for line in listed]
        return label_set(path, entries, notes)
    frames = form == "frames" or (form is None and _has_frames(listed))
    if form is None and len(listed[0].numbers) > 1:
        other = "list-labels" if frames else "list-frames"
        notes.append(f"{path}: lines are taken for {_FORMS[frames]}; --format {other} if they are not")
    if short := next((line for line in listed if len(line.numbers) < 1 + frames), None):
        raise wrong(short.place, short.path, _FORMS[frames])
    if clip := next((line for line in listed if frames and not line.numbers[0]), None):
        raise LabelError(
            f"{clip.place}: video {clip.path!r} has 0 frames; clips of videos, 'PATH OFFSET FRAMES LABEL', are "
            "not read"
        )
    classes = NumberedClasses.of(path, class_file, (n for line in listed for n in line.numbers[frames:]))
    entries = [
        Entry(
            line.path,
            classes.names(line.numbers[frames:], line.place),
            line.subset,
            line.file,
            line.number,
            line.numbers[0] if frames else None,
        )
        for line in listed
    ]
    return label_set(path, entries, (*notes, *classes.notes))


def _has_frames(listed: Sequence[_Line]) -> bool:
    """Whether the first number of each line is that of its frames, and not that of a class."""
    counts = {len(line.numbers) for line in listed}
    if min(counts) < 2:
        return False
    return len(counts) == 1 or not all(ending(line.path) in VIDEO_SUFFIXES for line in listed)


def _kind(line: _Line) -> str:
    return f"class by name, {line.name!r}" if line.name else "class by number"


def _lines(file: Path, subset: str) -> Iterator[_Line]:
    separator = None
    for number, text in lines(file):
        if number == 1 or separator is None:
            separator = _separator(text)
        path, numbers, name = _parsed(text, separator)
        if not path or not (numbers or name):
            raise wrong(f"{file}, line {number}", text, "'PATH LABEL' or 'PATH FRAMES LABEL'")
        yield _Line(path, numbers, name, subset, file, number)


def _separator(line: str) -> str:
    """What divides the fields of a list with this line; " ": any white space."""
    head, _, last = max((line.rpartition(mark) for mark in _SEPARATORS), key=lambda parts: len(parts[0]))
    mark = line[len(head)] if head else ""
    return mark if mark and (_is_number(last) or ending(head.strip(' "')) in VIDEO_SUFFIXES) else " "


def _parsed(line: str, separator: str) -> tuple[str, tuple[int, ...], str]:
    """Path, numbers behind it, and where there are none the name of the class."""
    blank = separator == " "
    fields = line.split() if blank else line.split(separator)
    count = next((i for i, field in enumerate(reversed(fields)) if not _is_number(field)), len(fields) - 1)
    if count:
        path = line.rsplit(None if blank else separator, count)[0]
        return path.strip(' \t"'), tuple(map(number_in, fields[len(fields) - count :])), ""
    at = next((i for i, field in enumerate(fields) if ending(field.strip(' "')) in VIDEO_SUFFIXES), None)
    if at is None or at + 1 == len(fields) or (not blank and at + 2 != len(fields)):
        return "", (), ""
    path, name = (separator.join(part) for part in (fields[: at + 1], fields[at + 1 :]))
    return path.strip(' "'), (), name.strip(' "')


def _is_number(field: str) -> bool:
    stripped = field.strip()
    return stripped.isascii() and stripped.isdigit() and len(stripped) < 10
