"""Videos that belong together, of one person or from one source: which they are, and what keeps them together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache_schema.annotations import videos_csv
from cache_schema.annotations.labels import Grouping, LabelSet, VideoLabel
from cache_schema.annotations.table import VIDEO_COLUMNS, Table, columns_of, open_table, plain
from cache_schema.annotations.video_names import listed_id, tails
from cache_schema.errors import LabelError, UserError
from cache_schema.names import did_you_mean, some


def grouped(labels: LabelSet, grouping: Grouping) -> LabelSet:
    """The same labels, with the group of each video.

    Raises:
        LabelError: the file has no such column, a video has no group or two, or its id does not match the pattern.
    """
    if grouping.pattern is None:
        groups = _of_column(labels.source, grouping)
    else:
        groups = _of_ids([video.video_id for video in labels.videos], labels.source, grouping)
    videos = tuple(replace(video, group=groups.get(video.video_id, "")) for video in labels.videos)
    groups_of(videos, labels.source)
    return replace(labels, videos=videos, grouping=grouping)


def _of_column(path: Path, grouping: Grouping) -> dict[str, str]:
    """By id of a video."""
    lines: dict[str, tuple[str, str]] = {}
    if path.is_dir() and not videos_csv.fits(path):
        raise _no_table(path, grouping)
    for file in videos_csv.table_files(path).values():
        if columns_of(file).keys().isdisjoint(VIDEO_COLUMNS):
            raise _no_table(file, grouping)
        with open_table(file) as table:
            for place, video_id, group in _rows(file, table, grouping):
                if not group:
                    raise LabelError(
                        f"{place}: no {grouping.column} for video {video_id!r}; of one that belongs to no other, "
                        "its id will do"
                    )
                first, line = lines.setdefault(video_id, (group, place))
                if first != group:
                    raise LabelError(
                        f"{place}: video {video_id!r} is of {grouping.column} {group!r}, but of {first!r} in "
                        f"{line.rpartition(', ')[2]}"
                    )
    return {video_id: group for video_id, (group, _) in lines.items()}


def _rows(file: Path, table: Table, grouping: Grouping) -> Iterator[tuple[str, str, str]]:
    """Place, id and group of each row of a table."""
    name = str(grouping.column)
    videos, groups = table.column(VIDEO_COLUMNS), table.column([plain(name)])
    if videos is None or groups is None:
        found = ", ".join(filter(None, table.columns)) + did_you_mean(name, filter(None, table.columns))
        raise LabelError(f"{file}: no column {name!r} for {grouping}; it has: {found}")
    for line, row in table.rows:
        yield f"{file}, line {line}", listed_id(row[videos]), row[groups]


def _no_table(path: Path, grouping: Grouping) -> LabelError:
    return LabelError(
        f"{path}: {grouping} is for a CSV with a column video_id; --group-pattern takes groups from the ids"
    )


def _of_ids(ids: Sequence[str], path: Path, grouping: Grouping) -> dict[str, str]:
    pattern = re.compile(str(grouping.pattern))
    groups: dict[str, str] = {}
    for name in ids:
        # The beginning of an id, which "^" stands for, is also that of the file's name, or of a folder of it.
        found = filter(None, map(pattern.search, tails(name)))
        if group := next((one[1] for one in found if one[1]), ""):
            groups[name] = group
    if missing := [name for name in ids if name not in groups]:
        raise LabelError(
            f"{path}: {grouping} finds no group in the ids of {len(missing):,} of {len(ids):,} videos: "
            f"{some(missing)}"
        )
    return groups


def groups_of(videos: Sequence[VideoLabel], source: Path) -> tuple[str, ...]:
    """The group of each video; empty where nothing is known of that. Raises LabelError where some have none."""
    groups = tuple(video.group for video in videos)
    if not any(groups):
        return ()
    if without := [video.video_id for video in videos if not video.group]:
        raise LabelError(
            f"{source}: no group for {len(without):,} of {len(videos):,} videos: {some(without)}"
        )
    return groups


def in_both(train: Sequence[str], other: Sequence[str], subsets: tuple[str, str]) -> str:
    """A warning of groups with videos in the training subset and in another; empty where there are none.

    Args:
        train, other: the group of each video.
    """
    both = set(train).intersection(other)
    if not both:
        return ""
    training, judged = (sum(group in both for group in groups) for groups in (train, other))
    which = "1 group has" if len(both) == 1 else f"{len(both):,} groups have"
    return (
        f"WARNING: {which} videos in both subsets, {some(sorted(both))}: {training:,} of {subsets[0]!r}, "
        f"{judged:,} of {subsets[1]!r}; what is measured on {subsets[1]!r} is higher than it will be on new groups"
    )


def uninformative(groups: Sequence[str], subset: str) -> str:
    """A warning where the groups of a subset tell nothing: all videos are of one, or each of its own; else empty.

    Args:
        groups: of each video; empty where nothing is known of that.
    """
    if len(groups) < 2 or 1 < len(set(groups)) < len(groups):
        return ""
    if len(set(groups)) == 1:
        return (
            f"WARNING: all videos of subset {subset!r} are of one group, {groups[0]!r}: none can be held out "
            "apart from the others, and intervals have no width"
        )
    each = f"each video of subset {subset!r} is a group of its own, {some(groups)}"
    return f"WARNING: {each}: the same as without groups"


def onehot(videos: Sequence[VideoLabel]) -> npt.NDArray[np.bool_]:
    """(M, C): the classes of each video, in sorted order."""
    from sklearn.preprocessing import MultiLabelBinarizer

    return np.asarray(MultiLabelBinarizer().fit_transform(video.labels for video in videos), np.bool_)


def check_several(groups: Sequence[str]) -> None:
    """Raises UserError where all videos are of one group."""
    if len(set(groups)) == 1:
        raise UserError(
            f"all videos to train on are of one group, {groups[0]!r}: none can be held out; --group-column or "
            "--group-pattern must tell several apart"
        )


def held_out_groups(
    groups: Sequence[str], labels: npt.NDArray[np.bool_], share: float, seed: int
) -> npt.NDArray[np.bool_]:
    """(M,): which of M videos to hold out: whole groups, of each class as nearly the share as these allow.

    A class keeps a video that is not held out: a group that has all of a class is never taken. At least one group
    is. Not scikit-learn's GroupShuffleSplit, which takes a share of the groups, whatever their sizes and classes.

    Args:
        labels: (M, C), the classes of each video.

    Raises:
        UserError: there is one group alone, or every group has all videos of some class.
    """
    check_several(groups)
    names, group = np.unique(groups, return_inverse=True)
    left = labels.sum(axis=0)
    of_group = np.zeros((len(names), len(left)), np.int64)
    np.add.at(of_group, group, labels)
    sizes = np.bincount(group)
    # In the order of their rarest class, so that each class comes by in turn; at random within a class.
    rarest = np.where(of_group > 0, left, len(groups) + 1).argmin(axis=1)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(rarest[shuffled], kind="stable")]

    def spared(number: int) -> bool:
        return bool((of_group[number] < left)[of_group[number] > 0].all())

    held: list[int] = []
    due = 0.0
    for number in order:
        due += share * sizes[number]
        if due >= sizes[number] / 2 and spared(number):
            held.append(number)
            left = left - of_group[number]
            due -= sizes[number]
    if not held:
        possible = [number for number in order if spared(number)]
        if not possible:
            raise UserError(
                f"no videos can be held out by group: each of the {len(names)} groups has all videos of some class"
            )
        held = [min(possible, key=lambda number: int(sizes[number]))]
    return np.isin(group, held)
