"""Several streams out of one source: halves of its rows, or parts that lie in files of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from cache_schema.annotations.video_names import listed_id
from cache_schema.command import count
from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.importers.rows import Rows, Source, some_of

RGB_AND_FLOW = ("rgb", "flow")
# Released features of RGB and flow differ by the frame that the last flow would need, or by a clip at the end.
_SPARE_ROWS = 2


class Changed(Source):
    """Another source's videos, each changed on its way."""

    def __init__(self, source: Source, change: Callable[[Rows], Rows]) -> None:
        self.ids, self.classes, self.ignored = source.ids, source.classes, source.ignored
        self._source, self._change = source, change

    def __iter__(self) -> Iterator[Rows]:
        return map(self._change, self._source)

    def outlines(self) -> Iterator[Rows]:
        return map(self._change, self._source.outlines())


def without_endings(source: Source) -> tuple[Source, list[str]]:
    """The same videos under ids without the ending of a video, as batch-extract and labels have them.

    An export's ids are those of a cache, and stay; so do all where two would be the same.

    Returns:
        The videos, and notes to show the user.
    """
    new_ids = {video_id: listed_id(video_id) for video_id in source.ids}
    changed = [f"{new_id} for {old}" for old, new_id in new_ids.items() if new_id != old]
    if source.spec is not None or not changed:
        return source, []
    if len(set(new_ids.values())) < len(new_ids):
        return source, ["ids keep the videos' endings, without which two would be the same"]
    renamed = Changed(source, lambda rows: replace(rows, id=new_ids[rows.id]))
    renamed.ids = tuple(new_ids.values())
    return renamed, [f"ids are without the videos' endings, {changed[0]}, as those of labels"]


def sources_of(
    path: Path, parts: Mapping[str, Source], streams: int
) -> tuple[Mapping[str, Source], list[str]]:
    """As many sources as streams are wanted: the parts rgb and flow, or the halves of the only one.

    Args:
        path: where the parts are from, for messages.

    Returns:
        The sources by what they are, and notes to show the user.

    Raises:
        UserError: there are not that many, or rgb and flow are not of the same clips.
    """
    if streams > 2:
        raise UserError("--stream is given once, or twice for rgb and flow")
    if len(parts) == streams == 1:
        return parts, []
    if len(parts) == 1:
        (source,) = parts.values()
        return {
            "the first half of each row": Changed(source, lambda rows: _half(rows, 0)),
            "the second half of each row": Changed(source, lambda rows: _half(rows, 1)),
        }, []
    if streams == 2 and set(RGB_AND_FLOW) <= parts.keys():
        return _aligned({name: parts[name] for name in RGB_AND_FLOW})
    both = "give two streams (--stream RGB --stream FLOW), or " if set(RGB_AND_FLOW) <= parts.keys() else ""
    raise UserError(f"{printable(path)}: holds {', '.join(parts)}: {both}say which with --array")


def _half(rows: Rows, number: int) -> Rows:
    features = rows.features
    if features is None:
        raise UserError(f"{rows.place}: two streams are the halves of features; these are scores")
    columns = features.shape[1]
    if columns % 2:
        raise UserError(
            f"{rows.place}: rows of {columns:,} features have no halves, which two streams would be"
        )
    half = slice(number * columns // 2, (number + 1) * columns // 2)
    return replace(rows, features=features[:, half], scores=None)


def _aligned(parts: Mapping[str, Source]) -> tuple[Mapping[str, Source], list[str]]:
    """Parts with the same rows of the same videos: spare rows at the end of the longer one are left out."""
    first, second = parts
    lengths = {
        name: {rows.id: (len(rows), rows.place) for rows in source.outlines()}
        for name, source in parts.items()
    }
    for name, other in ((first, second), (second, first)):
        if alone := sorted(lengths[name].keys() - lengths[other].keys()):
            place = lengths[name][alone[0]][1]
            raise UserError(f"{place}: has {name} but no {other}: add it, or leave the video out")
    shortest: dict[str, int] = {}
    for video_id, (ours, place) in lengths[first].items():
        theirs, _ = lengths[second][video_id]
        if abs(ours - theirs) > _SPARE_ROWS:
            raise UserError(
                f"{place}: {ours:,} rows of {first}, but {theirs:,} of {second}: these are not of the same clips; "
                "get the video's features again, or leave it out"
            )
        if ours != theirs:
            shortest[video_id] = min(ours, theirs)
    if not shortest:
        return parts, []
    note = (
        f"{first} and {second} differ by one or two rows in {count(len(shortest), 'videos')}; the last rows of "
        f"the longer one are left out: {some_of(shortest)}"
    )

    def trim(rows: Rows) -> Rows:
        number = shortest.get(rows.id, len(rows))
        spans = None if rows.spans is None else rows.spans[:number]
        assert rows.features is not None
        return replace(rows, features=rows.features[:number], spans=spans)

    return {name: Changed(source, trim) for name, source in parts.items()}, [note]
