"""Labelled videos of a cache, and batches of them: variable length, packed, never padded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from cache_schema import Stream
from cache_schema.command import count
from cache_schema.errors import CacheError

Role = str
"""What a method calls a stream that it reads: "coarse", "fine"."""
IntArray = npt.NDArray[np.int64]
HalfArray = npt.NDArray[np.float16]
RowChoice = Callable[[int], IntArray]
"""From the number of rows of a video to the rows that a method looks at: in order, none twice."""
Rows = RowChoice | Sequence[IntArray]
"""Which rows are looked at: a choice by length, or the rows of each of the M videos of a set."""

Pairs = Mapping[Role, IntArray]
"""By stream, the rows of a video that the other streams have too, in order."""

_UNIT_LENGTH_CHUNK = 1 << 15
"""This many values stay in a core's cache, and torch does not split them among threads, which would wait for each
other thousands of times in an epoch."""


def every_row(length: int) -> IntArray:
    """All rows."""
    return np.arange(length, dtype=np.int64)


def uniform_rows(length: int, count: int) -> IntArray:
    """The middles of `count` equal parts of a video; all rows of a video that has fewer."""
    if length <= count:
        return every_row(length)
    return ((2 * np.arange(count, dtype=np.int64) + 1) * length) // (2 * count)


def unit_length(features: npt.NDArray[np.floating[Any]]) -> HalfArray:
    """The "l2" input norm: a copy of rows (T, D), or of one row (D,), scaled to length 1; zeros stay zeros.

    As LiteEval's released code does for each frame. Other types are rounded to float16 first, as in the cache.
    """
    unit = torch.from_numpy(features.astype(np.float16))
    rows = unit.view(-1, unit.shape[-1])
    for part in torch.split(rows, max(1, _UNIT_LENGTH_CHUNK // rows.shape[1])):
        exact = part.float()
        part.copy_(exact.div_(torch.linalg.vector_norm(exact, dim=1, keepdim=True).clamp_min_(1e-12)))
    return unit.numpy()


@dataclass(frozen=True)
class Batch:
    """B videos.

    Attributes:
        inputs: per stream the features (N, D) float16, packed (longest video first); N is the sum of the
            lengths. All streams are packed alike. Empty where nothing was read.
        targets: (B,) int64 class indices, or with several labels per video (B, C) float32 of 0 and 1; in the
            caller's order.
        scores: class logits (N, C') float16 of the streams of which they were requested, packed alike.
        indices: B, the videos' positions in the `ids` of their set.
        videos: that set, where the batch was read from one.
    """

    inputs: Mapping[Role, PackedSequence]
    targets: Tensor
    scores: Mapping[Role, PackedSequence] = field(default_factory=dict)
    indices: tuple[int, ...] = ()
    videos: VideoSet | None = None

    def to(self, device: torch.device) -> Batch:
        """A copy on the device. Copies to a GPU are asynchronous: what is computed there waits for them."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=device.type == "cuda")

        return Batch(
            {role: _mapped(packed, moved) for role, packed in self.inputs.items()},
            moved(self.targets),
            {role: _mapped(packed, moved) for role, packed in self.scores.items()},
            self.indices,
            self.videos,
        )


def _mapped(packed: PackedSequence, change: Callable[[Tensor], Tensor]) -> PackedSequence:
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None and back is not None
    return PackedSequence(change(packed.data), packed.batch_sizes, change(order), change(back))


@dataclass(frozen=True)
class Segments:
    """Where in a video classes are shown: S segments, in the order of the labels; they may overlap.

    Attributes:
        classes: (S,) int64 class index.
        spans: (S, 2) float64, start and end in seconds.
        ambiguous: (A, 2) float64, seconds: spans of no class, in which nothing can be judged.
    """

    classes: IntArray
    spans: npt.NDArray[np.float64]
    ambiguous: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class VideoSet:
    """The labelled videos of one subset with the streams a method reads.

    Attributes:
        ids: M ids in the cache.
        labels: (M, C) bool.
        first: (M,) class index, the first of each video's labels in the file.
        multi_label: train on all labels of a video; else on the first.
        l2: scale each frame's features to length 1 when reading them.
        pool: the streams whose class scores a method chooses from, by name; their rows need not be at the instants
            of `streams`.
        pairs: by id of a video that is partial in one of several `streams`, the rows of each stream at instants of
            which all have rows. Only these are used.
        segments: M, of a set for evaluation; empty ones for a video whose labels give none. A set to train on has
            none of them.
        groups: M, equal for videos that belong together; empty where nothing is known of that.
    """

    subset: str
    streams: Mapping[Role, Stream]
    ids: tuple[str, ...]
    labels: npt.NDArray[np.bool_]
    first: IntArray
    multi_label: bool
    l2: bool = False
    pool: Mapping[str, Stream] = field(default_factory=dict)
    pairs: Mapping[str, Pairs] = field(default_factory=dict)
    segments: Sequence[Segments] = ()
    groups: tuple[str, ...] = ()
    _checked: set[tuple[str, int, str]] = field(default_factory=set, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def drawn(self) -> str:
        """What bootstrap samples of a set for evaluation are of, in words."""
        groups = f"{count(len(set(self.groups)), 'groups')} of " if self.groups else ""
        return f"{groups}the evaluation videos"

    def part(self, indices: Sequence[int]) -> VideoSet:
        """Some of the videos, by position."""
        places = list(indices)
        return replace(
            self,
            ids=tuple(self.ids[place] for place in places),
            labels=self.labels[places],
            first=self.first[places],
            segments=tuple(self.segments[place] for place in places) if self.segments else (),
            groups=tuple(self.groups[place] for place in places) if self.groups else (),
        )

    def length(self, index: int) -> int:
        """T, rows of a video."""
        role, stream = next(iter(self.streams.items()))
        pairs = self.pairs.get(self.ids[index])
        return stream.rows(self.ids[index]) if pairs is None else len(pairs[role])

    def feature_dim(self, role: Role) -> int:
        """D of a stream.

        Raises:
            CacheError: it has no features, because only scores were imported.
        """
        spec = self.streams[role].spec
        if not spec.feature_dim:
            raise CacheError(
                f"stream {spec.name!r} has no features, only class scores: choose another one, or a method that "
                "takes scores (uniform does, where their class names cover the labels')"
            )
        return spec.feature_dim

    def features(self, role: Role, index: int, rows: RowChoice = every_row) -> HalfArray:
        """(T, D) of a video, or of the chosen rows: a view of the cache, or with `l2` a copy.

        Raises:
            CacheError: a value is not finite, or the shard is damaged.
        """
        return self.features_of(self.streams[role], index, self._paired(role, index, rows))

    def features_of(self, stream: Stream, index: int, rows: RowChoice = every_row) -> HalfArray:
        """`features` of any stream that holds the video."""
        features = self._finite(stream[self.ids[index]].features, stream, index, "features")
        features = _chosen(features, rows)
        return unit_length(features) if self.l2 else features

    def scores(self, role: Role, index: int, rows: RowChoice = every_row) -> HalfArray:
        """(T, C') class logits of a video, or of the chosen rows: a view of the cache.

        Raises:
            CacheError: a value is not finite, the stream has no scores, or the shard is damaged.
        """
        return self.scores_of(self.streams[role], index, self._paired(role, index, rows))

    def scores_of(self, stream: Stream, index: int, rows: RowChoice = every_row) -> HalfArray:
        """`scores` of any stream that holds the video."""
        scores = stream[self.ids[index]].scores
        if scores is None:
            raise CacheError(f"stream {stream.name!r} has no class scores")
        return _chosen(self._finite(scores, stream, index, "class scores"), rows)

    def spans(self, role: Role, index: int) -> npt.NDArray[np.float64]:
        """(T, 2): first and last second that each row of a video saw."""
        spans = self.streams[role][self.ids[index]].spans
        return spans[self._paired(role, index, every_row)(len(spans))]

    def _paired(self, role: Role, index: int, rows: RowChoice) -> RowChoice:
        """`rows` of what the set uses of a video, as a choice among all rows of a stream."""
        pairs = self.pairs.get(self.ids[index])
        return rows if pairs is None else lambda length: pairs[role][rows(len(pairs[role]))]

    def targets(self, indices: Sequence[int]) -> Tensor:
        """What the loss compares with: see `Batch.targets`."""
        places = np.asarray(indices, np.int64)
        if self.multi_label:
            return torch.from_numpy(self.labels[places].astype(np.float32))
        return torch.from_numpy(self.first[places])

    @property
    def trained_labels(self) -> npt.NDArray[np.bool_]:
        """(M, C): the classes that videos are trained to have: all, or without `multi_label` the first."""
        if self.multi_label:
            return self.labels
        return np.asarray(np.arange(self.labels.shape[1]) == self.first[:, None])

    def trained_classes(self) -> npt.NDArray[np.bool_]:
        """(C,): the classes that occur in what `targets` gives."""
        trained = np.zeros(self.labels.shape[1], np.bool_)
        trained[np.flatnonzero(self.labels.any(axis=0)) if self.multi_label else self.first] = True
        return trained

    def batch(
        self,
        indices: Sequence[int],
        rows: Rows = every_row,
        scored: Sequence[Role] = (),
        *,
        read: bool = True,
        pinned: bool = False,
    ) -> Batch:
        """Read and pack some videos.

        Args:
            indices: positions in `ids`.
            rows: which rows of each.
            scored: the streams of which class scores are read instead of features.
            read: False leaves out the rows: the batch has only indices and targets.
            pinned: in page-locked memory, from which copies to a GPU are asynchronous.
        """
        if not read:
            return Batch({}, self.targets(indices), indices=tuple(indices), videos=self)
        choices = [_choice(rows, i) for i in indices]
        lengths = [len(choice(self.length(i))) for i, choice in zip(indices, choices, strict=True)]
        layout = _Packing.of(np.array(lengths, np.int64))

        def packed(rows_of: Callable[[Role, int, RowChoice], HalfArray], role: Role) -> PackedSequence:
            videos = zip(indices, choices, strict=True)
            return layout.pack((rows_of(role, i, choice) for i, choice in videos), pinned)

        return Batch(
            inputs={role: packed(self.features, role) for role in self.streams if role not in scored},
            targets=self.targets(indices),
            scores={role: packed(self.scores, role) for role in scored},
            indices=tuple(indices),
            videos=self,
        )

    def _finite(self, values: HalfArray, stream: Stream, index: int, what: str) -> HalfArray:
        if (stream.name, index, what) in self._checked:
            return values
        # Exponent bits all set: infinite or NaN. Several times quicker than isfinite on float16.
        if ((values.view(np.uint16) & 0x7C00) == 0x7C00).any():
            raise CacheError(
                f"video {self.ids[index]!r} in stream {stream.name!r}: its {what} are not finite"
            )
        self._checked.add((stream.name, index, what))
        return values


@dataclass(frozen=True)
class _Packing:
    """Where torch's packed layout puts row t of video b: time-major, the longest video first."""

    batch_sizes: Tensor
    sorted_indices: Tensor
    unsorted_indices: Tensor
    places: list[IntArray]

    @staticmethod
    def of(lengths: IntArray) -> _Packing:
        if not len(lengths) or lengths.min() < 1:
            raise ValueError("a batch holds at least one video, and each at least one row")
        order = np.argsort(-lengths, kind="stable")
        running = (lengths[:, None] > np.arange(lengths.max())).sum(axis=0)
        starts = np.cumsum(running) - running
        unsorted = np.argsort(order)
        places = [starts[:length] + position for length, position in zip(lengths, unsorted, strict=True)]
        return _Packing(
            torch.from_numpy(running), torch.from_numpy(order), torch.from_numpy(unsorted), places
        )

    def pack(self, videos: Iterator[HalfArray], pinned: bool) -> PackedSequence:
        first = next(videos)
        shape = int(self.batch_sizes.sum()), first.shape[1]
        packed = torch.empty(shape, dtype=torch.float16, pin_memory=pinned)
        data = packed.numpy()
        for rows, places in zip(chain([first], videos), self.places, strict=True):
            data[places] = rows
        return PackedSequence(packed, self.batch_sizes, self.sorted_indices, self.unsorted_indices)


def batched(positions: Sequence[int], size: int) -> list[Sequence[int]]:
    """Parts of `size` positions; the last may be smaller."""
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def fed(
    videos: VideoSet,
    parts: Iterable[Sequence[int]],
    device: torch.device,
    *,
    rows: Rows = every_row,
    scored: Sequence[Role] = (),
    read: bool = True,
) -> Iterator[Batch]:
    """Batches of the given positions on a device: the next one is read while the caller works on one.

    On the CPU nothing is read ahead: it would take cores from the network (benchmarks/feeding.py).
    """
    pinned = device.type == "cuda"
    batches = (videos.batch(part, rows, scored, read=read, pinned=pinned) for part in parts)
    return (batch.to(device) for batch in (batches if device.type == "cpu" else read_ahead(batches)))


def read_ahead(source: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches; while the caller works on one, a thread reads the next."""
    with ThreadPoolExecutor(1) as reader:
        pending = reader.submit(next, source, None)
        while (batch := pending.result()) is not None:
            pending = reader.submit(next, source, None)
            yield batch


def _chosen(values: HalfArray, rows: RowChoice) -> HalfArray:
    chosen = rows(len(values))
    return values if len(chosen) == len(values) else values[chosen]


def _choice(rows: Rows, index: int) -> RowChoice:
    return rows if callable(rows) else lambda length: rows[index]
