"""What every file format comes down to: videos with rows, one after another, each under its id."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cache_schema.errors import UserError
from cache_schema.files import printable
from cache_schema.schema import Array, Float64Array, StreamSpec

What = Literal["features", "scores"]

ID_COLUMN = "video_id"
_LONGEST_ID = 4096  # bytes


@dataclass(frozen=True)
class Rows:
    """A video read from a file.

    Attributes:
        place: the video and its file, for messages.
        features: (T, D) numbers of any type, or None.
        scores: (T, C), or None; not both are None.
        spans: (T, 2) first and last second that each row saw, if the file has them.
        damage, lost: of a partial video, as in `VideoRecord`.
    """

    id: str
    place: str
    features: Array | None = None
    scores: Array | None = None
    spans: Float64Array | None = None
    duration_s: float = float("nan")
    fps: float = float("nan")
    source: str = ""
    fingerprint: str = ""
    damage: str | None = None
    lost: tuple[int, ...] = ()

    def __len__(self) -> int:
        values = self.scores if self.features is None else self.features
        assert values is not None
        return len(values)


class Source(ABC):
    """Videos to import. Every iteration reads them from the start, never all into memory at once.

    Attributes:
        ids: of the videos, in order.
        classes: names of the scores' columns, if the file has them.
        spec: of the stream that an export is of, which has these rows; None: it is none, or does not say.
        ignored: how many files of a folder are of kinds that are not read.
    """

    ids: Sequence[str]
    classes: tuple[str, ...] | None = None
    spec: StreamSpec | None = None
    ignored: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def __iter__(self) -> Iterator[Rows]: ...

    def outlines(self) -> Iterator[Rows]:
        """The videos in the same order for the shapes and types of their rows, whose values need not be read."""
        return iter(self)


def rows_of(values: Array, what: str, place: str) -> Array:
    """A video's array as (T, D): a vector is one row.

    Raises:
        UserError: it is neither (T, D) nor (D,), is empty, or does not hold numbers.
    """
    if values.dtype.kind not in "iuf":
        raise UserError(f"{place}: its {what} are of type {values.dtype}, which is no type of numbers")
    if values.ndim not in (1, 2) or not values.size:
        expected = "(rows, columns) is expected" if values.size else "no rows in it: leave the video out"
        raise UserError(f"{place}: its {what} have shape {values.shape}; {expected}")
    return values if values.ndim == 2 else values[None]


@contextmanager
def reading_table(path: Path) -> Iterator[None]:
    """For reading a CSV. Raises UserError where the file cannot be read, or is no text."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{printable(path)}: cannot be read: {error.strerror or error}") from error
    except UnicodeError as error:
        raise UserError(f"{printable(path)}: not CSV in UTF-8: {error}") from error


def place_of(video_id: str, path: Path) -> str:
    """A video and its file, for messages."""
    return f"{printable(path)}: video {video_id!r}"


def some_of(ids: Iterable[str], most: int = 5) -> str:
    """The first ids in words, and how many there are beside them."""
    quoted = [repr(video_id) for video_id in ids]
    more = len(quoted) - most
    return ", ".join(quoted[:most]) + (f" and {more:,} more" if more > 0 else "")


def texts_of(array: Array, name: str, path: Path) -> tuple[str, ...]:
    """The strings in an array (M,) of Unicode or of UTF-8 bytes. Raises UserError if it holds anything else."""
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise UserError(
            f"{printable(path)}: its {name} are {array.dtype} of shape {array.shape}; a row of text is expected: "
            f"np.array({name}, dtype=str)"
        )
    try:
        return tuple(text.decode() if isinstance(text, bytes) else text for text in array.tolist())
    except UnicodeDecodeError as error:
        raise UserError(f"{printable(path)}: one of its {name} is not UTF-8: {error.object!r}") from error


def check_ids(ids: Sequence[str], path: Path) -> tuple[str, ...]:
    """Return the ids as they are.

    Raises:
        UserError: naming the first that a shard cannot hold, or that occurs twice.
    """
    numbers: dict[str, int] = {}
    for number, video_id in enumerate(ids, 1):
        if reason := _refused(video_id):
            raise UserError(f"{printable(path)}: id {number} of {len(ids)} {reason}")
        if numbers.setdefault(video_id, number) != number:
            raise UserError(
                f"{printable(path)}: video {video_id!r} occurs twice, as id {numbers[video_id]} and as id {number}"
            )
    return tuple(ids)


def _refused(video_id: str) -> str | None:
    if not video_id.strip():
        return "is empty"
    if "\0" in video_id:
        return f"has a zero byte: {video_id!r:.60}"
    try:
        encoded = video_id.encode()
    except UnicodeEncodeError:
        return f"is not Unicode text: {video_id!r:.60}"
    return f"has {len(encoded):,} bytes: {video_id!r:.60}…" if len(encoded) > _LONGEST_ID else None
