"""Labelled videos of a cache, and batches of them: variable length, packed, never padded."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from cache_schema import FeatureCache, Stream
from cache_schema.annotations import LabelSet, VideoLabel
from cache_schema.errors import CacheError, LabelError
from policy.lengths import differing_lengths
from policy.partial import paired_rows, partial_videos
from policy.unit_length import unit_length

Role = Literal["coarse", "fine"]
RowChoice = Callable[[int], npt.NDArray[np.int64]]
"""From the number of rows of a video to those of them that a method looks at: in order, none twice."""
Rows = RowChoice | Sequence[npt.NDArray[np.int64]]
"""Which rows are looked at: a choice by length, or those of each of the M videos of a set."""

Pairs = Mapping[Role, npt.NDArray[np.int64]]
"""Of each stream, those rows of a video that the others have, too, in order."""

TRAIN_SUBSETS = ("training", "train")
EVAL_SUBSETS = ("validation", "val", "testing", "test")

_NAMED = 3  # how many videos a message names before it only counts


class _Read(Protocol):
    def __call__(self, role: Role, index: int, rows: RowChoice) -> npt.NDArray[np.float16]: ...


def every_row(length: int) -> npt.NDArray[np.int64]:
    """All rows."""
    return np.arange(length, dtype=np.int64)


def uniform_rows(length: int, count: int) -> npt.NDArray[np.int64]:
    """The middles of `count` equal parts of a video; all rows of a video that has fewer."""
    if length <= count:
        return every_row(length)
    return ((2 * np.arange(count, dtype=np.int64) + 1) * length) // (2 * count)


@dataclass(frozen=True)
class Batch:
    """B videos.

    Attributes:
        inputs: per stream the features (N, D) float16, packed (longest video first); N is the sum of the
            lengths. Both streams are packed alike. Empty where nothing was to be read.
        targets: (B,) int64 class indices, or with several labels per video (B, C) float32 of 0 and 1; in the
            caller's order.
        scores: class logits (N, C') float16 of those streams for which they were asked, packed alike.
        indices: B, the videos' positions in the `ids` of their set.
        videos: that set, where the batch was read from one.
    """

    inputs: Mapping[Role, PackedSequence]
    targets: Tensor
    scores: Mapping[Role, PackedSequence] = field(default_factory=dict)
    indices: tuple[int, ...] = ()
    videos: VideoSet | None = None

    def to(self, device: torch.device) -> Batch:
        """A copy on the device. To a GPU the program does not wait for it; what is computed there does."""

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
class VideoSet:
    """The labelled videos of one subset with the streams a method reads.

    Attributes:
        ids: M ids in the cache.
        labels: (M, C) bool.
        first: (M,) class index, the first of each video's labels in the file.
        multi_label: train on all labels of a video; else on the first.
        l2: bring each frame's features to length 1 when reading them.
        pool: the streams whose class scores a method chooses from, by name; their rows need not be at the instants
            of `streams`.
        pairs: by id of a video that is partial in one of several `streams`, the rows of each that are at instants
            of which all have rows; they are what the set has of it.
    """

    subset: str
    streams: Mapping[Role, Stream]
    ids: tuple[str, ...]
    labels: npt.NDArray[np.bool_]
    first: npt.NDArray[np.int64]
    multi_label: bool
    l2: bool = False
    pool: Mapping[str, Stream] = field(default_factory=dict)
    pairs: Mapping[str, Pairs] = field(default_factory=dict)
    _checked: set[tuple[str, int, str]] = field(default_factory=set, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def length(self, index: int) -> int:
        """T, rows of a video."""
        role, stream = next(iter(self.streams.items()))
        pairs = self.pairs.get(self.ids[index])
        return stream.rows(self.ids[index]) if pairs is None else len(pairs[role])

    def feature_dim(self, role: Role) -> int:
        """D of a stream whose features are to be learned from.

        Raises:
            CacheError: it has none, because scores alone were imported.
        """
        spec = self.streams[role].spec
        if not spec.feature_dim:
            raise CacheError(
                f"stream {spec.name!r} has no features, only class scores: choose another one, or a method that "
                "takes scores (uniform does, where their class names cover the labels')"
            )
        return spec.feature_dim

    def features(self, role: Role, index: int, rows: RowChoice = every_row) -> npt.NDArray[np.float16]:
        """(T, D) of a video, or those of its rows that are chosen: a view of the cache, or with `l2` a copy.

        Raises:
            CacheError: a value is not finite, or the shard is damaged.
        """
        return self.features_of(self.streams[role], index, self._paired(role, index, rows))

    def features_of(self, stream: Stream, index: int, rows: RowChoice = every_row) -> npt.NDArray[np.float16]:
        """`features` of any stream that holds the video."""
        features = self._finite(stream[self.ids[index]].features, stream, index, "features")
        features = _chosen(features, rows)
        return unit_length(features) if self.l2 else features

    def scores(self, role: Role, index: int, rows: RowChoice = every_row) -> npt.NDArray[np.float16]:
        """(T, C') class logits of a video, or of those of its rows that are chosen: a view of the cache.

        Raises:
            CacheError: a value is not finite, the stream has no scores, or the shard is damaged.
        """
        return self.scores_of(self.streams[role], index, self._paired(role, index, rows))

    def scores_of(self, stream: Stream, index: int, rows: RowChoice = every_row) -> npt.NDArray[np.float16]:
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
        """From the number of a stream's rows to those that are chosen of what the set has of a video."""
        pairs = self.pairs.get(self.ids[index])
        return rows if pairs is None else lambda length: pairs[role][rows(len(pairs[role]))]

    def targets(self, indices: Sequence[int]) -> Tensor:
        """What the loss compares with: see `Batch.targets`."""
        chosen = np.asarray(indices, np.int64)
        if self.multi_label:
            return torch.from_numpy(self.labels[chosen].astype(np.float32))
        return torch.from_numpy(self.first[chosen])

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
            scored: the streams of which the class scores are wanted instead of the features.
            read: False: only which videos they are, and their targets.
            pinned: in page-locked memory, from which a GPU copies without the program waiting for it.
        """
        if not read:
            return Batch({}, self.targets(indices), indices=tuple(indices), videos=self)
        choices = [_choice(rows, i) for i in indices]
        lengths = [len(choice(self.length(i))) for i, choice in zip(indices, choices, strict=True)]
        layout = _Packing.of(np.array(lengths, np.int64))

        def packed(read: _Read, role: Role) -> PackedSequence:
            videos = zip(indices, choices, strict=True)
            return layout.pack((read(role, i, choice) for i, choice in videos), pinned)

        return Batch(
            inputs={role: packed(self.features, role) for role in self.streams if role not in scored},
            targets=self.targets(indices),
            scores={role: packed(self.scores, role) for role in scored},
            indices=tuple(indices),
            videos=self,
        )

    def _finite(
        self, values: npt.NDArray[np.float16], stream: Stream, index: int, what: str
    ) -> npt.NDArray[np.float16]:
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
    places: list[npt.NDArray[np.int64]]

    @staticmethod
    def of(lengths: npt.NDArray[np.int64]) -> _Packing:
        if not len(lengths) or lengths.min() < 1:
            raise ValueError("a batch holds at least one video, and each at least one row")
        order = np.argsort(-lengths, kind="stable")
        running = (lengths[:, None] > np.arange(lengths.max())).sum(axis=0)
        starts = np.cumsum(running) - running
        unsorted = np.empty_like(order)
        unsorted[order] = np.arange(len(order))
        places = [starts[:length] + position for length, position in zip(lengths, unsorted, strict=True)]
        return _Packing(
            torch.from_numpy(running), torch.from_numpy(order), torch.from_numpy(unsorted), places
        )

    def pack(self, videos: Iterator[npt.NDArray[np.float16]], pinned: bool) -> PackedSequence:
        first = next(videos)
        shape = int(self.batch_sizes.sum()), first.shape[1]
        packed = torch.empty(shape, dtype=torch.float16, pin_memory=pinned)
        data = packed.numpy()
        for rows, places in zip(chain([first], videos), self.places, strict=True):
            data[places] = rows
        return PackedSequence(packed, self.batch_sizes, self.sorted_indices, self.unsorted_indices)


def batches(
    videos: VideoSet,
    size: int,
    *,
    rows: Rows = every_row,
    scored: Sequence[Role] = (),
    order: Sequence[int] | None = None,
    read: bool = True,
) -> Iterator[Batch]:
    """Batches of `size` videos (the last may be smaller), in the given order or that of the set."""
    for part in batched(range(len(videos)) if order is None else order, size):
        yield videos.batch(part, rows, scored, read=read)


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

    Not on the CPU, where reading takes the cores from the network that it would save the time for
    (benchmarks/feeding.py).
    """
    away = device.type != "cpu"
    pinned = device.type == "cuda"
    coming = (videos.batch(part, rows, scored, read=read, pinned=pinned) for part in parts)
    return (batch.to(device) for batch in (read_ahead(coming) if away else coming))


def read_ahead(source: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches; while the caller works on one, a thread reads the next."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, source, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, source, None)
            yield batch


def _chosen(values: npt.NDArray[np.float16], rows: RowChoice) -> npt.NDArray[np.float16]:
    chosen = rows(len(values))
    return values if len(chosen) == len(values) else values[chosen]


def _choice(rows: Rows, index: int) -> RowChoice:
    return rows if callable(rows) else lambda length: rows[index]


@dataclass(frozen=True)
class Dataset:
    """What a method trains on and is judged on.

    Attributes:
        classes: names of the C classes.
        notes: what the user should know, a line each.
        held_out: streams with class scores of training videos, by name, each from a model that has not seen those
            that it holds.
    """

    train: VideoSet
    evaluation: VideoSet
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    held_out: Mapping[str, Stream] = field(default_factory=dict)

    @property
    def multi_label(self) -> bool:
        return self.train.multi_label

    def digest(self) -> dict[str, str]:
        """SHA-256 of the labels used and, per stream, of the features used."""
        return dict(self._digest)

    @cached_property
    def _digest(self) -> dict[str, str]:
        # Kept, because a table asks once for each of its runs.
        ids = [*self.train.ids, *self.evaluation.ids]
        said = {
            "classes": self.classes,
            "multi_label": self.multi_label,
            **{
                part: [[v, np.flatnonzero(row).tolist()] for v, row in zip(s.ids, s.labels, strict=True)]
                for part, s in (("train", self.train), ("evaluation", self.evaluation))
            },
        }
        several = self.train.labels.sum(axis=1) > 1
        if several.any() and not self.multi_label:
            said["first"] = self.train.first.tolist()
        labels = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        return {
            "labels": labels,
            **{stream.name: stream.digest(ids) for stream in self.train.streams.values()},
            **{name: stream.digest(ids) for name, stream in self.train.pool.items()},
            **{
                f"held-out {name}": stream.digest([video for video in self.train.ids if video in stream])
                for name, stream in self.held_out.items()
            },
        }


def open_dataset(
    cache: FeatureCache,
    labels: LabelSet,
    streams: Mapping[Role, str],
    *,
    train_subset: str | None = None,
    eval_subset: str | None = None,
    multi_label: bool | None = None,
    skip_missing: bool = False,
    whole_only: bool = False,
    l2: bool = False,
    pool: Sequence[str] = (),
    held_out: Sequence[str] = (),
) -> Dataset:
    """Match labels and features.

    A label's video is looked for in the cache by its id, then by its aliases. Videos of other subsets, and
    videos whose labels the benchmark keeps back, are passed over; anything else that lacks its counterpart
    is an error unless `skip_missing`, which leaves it out and says so in the notes. Videos that are partial in the
    cache are used, unless `whole_only`; the notes say how many there are. Where the labels say how long videos
    are, the notes also say which are not as long in the cache.

    Args:
        streams: names of the streams that are read, by role.
        pool: names of the streams that are chosen from; they must have the same videos, and may be sampled
            otherwise.
        held_out: names of streams for `Dataset.held_out`, which need not have all videos.
        train_subset, eval_subset: None takes the first of TRAIN_SUBSETS and EVAL_SUBSETS with labels.
        multi_label: None: when some video of the file has several classes. False trains on the first class of
            each video in the file, as with the one-hot y of Eq. 7; for evaluation a video keeps all.

    Raises:
        UserError: labels and features do not fit each other (LabelError), the two streams do not
            (CacheError), or one of them is missing.
    """
    opened = {role: cache[name] for role, name in streams.items()}
    chosen = {name: cache[name] for name in pool}
    others = {name: cache[name] for name in held_out}
    every: dict[str, Stream] = {**chosen, **{stream.name: stream for stream in opened.values()}}
    _check_sampling(opened)
    several = labels.multi_label if multi_label is None else multi_label
    notes: list[str] = []
    if multi_label is None and several:
        labelled = [video for video in labels.videos if video.labels]
        count = sum(len(video.labels) > 1 for video in labelled)
        notes.append(
            f"{_of(count, len(labelled), 'videos')} several classes: trained as multi-label, a sigmoid for each "
            "class; --single-label trains a softmax on each video's first class instead"
        )
    unlabelled = _unlabelled(every, labels)
    if unlabelled and labels.videos and len(unlabelled) == len({v for s in every.values() for v in s}):
        raise LabelError(
            f"{labels.source}: none of its {len(labels.videos):,} videos is in the cache: ids are "
            f"{labels.videos[0].video_id!r}, … here and {unlabelled[0]!r}, … there"
        )
    if unlabelled:
        _tell(
            f"{labels.source}: no label for {_some(_quoted(unlabelled), 'cached video', 'cached videos')}",
            skip_missing,
            notes,
        )

    classes = labels.classes
    partial = partial_videos([*every.values(), *others.values()])
    pairs = {} if whole_only else paired_rows(opened, partial)
    parts = []
    matched: list[tuple[str, VideoLabel]] = []
    for asked, usual in ((train_subset, TRAIN_SUBSETS), (eval_subset, EVAL_SUBSETS)):
        subset = asked or _usual_subset(labels, usual)
        ids, found = _match(
            every, labels.subset(subset), labels, skip_missing, notes, pairs, partial if whole_only else ()
        )
        matched += zip(ids, found, strict=True)
        parts.append(VideoSet(subset, opened, ids, *_indices(found, classes), several, l2, chosen, pairs))
        purpose = "training" if usual is TRAIN_SUBSETS else "evaluation"
        notes.append(f"{_counted(len(ids))} of subset {subset!r} for {purpose}")
    train, evaluation = parts
    unused = Counter(v.subset for v in labels.videos if v.subset not in {train.subset, evaluation.subset})
    for subset, count in unused.items():  # also the misspelt
        notes.append(f"{_counted(count)} of subset {subset!r} not used")
    if len(classes) == 1 and not several:
        notes.append(
            f"only one class, {classes[0]!r}: there is nothing to tell apart, and every score is perfect"
        )
    used = [*train.ids, *evaluation.ids]
    if count := len(partial.intersection(used)):
        are = "is" if count == 1 else "are"
        notes.append(
            f"{count:,} of {_counted(len(used))} {are} partial: the rows that the cache has are used; "
            "--whole-only leaves such videos out"
        )
    both = set(train.ids) & set(evaluation.ids)
    if both:
        which = _some(_quoted(sorted(both)), "video", "videos")
        raise LabelError(f"{labels.source}: {which} both for training and evaluation; choose other subsets")
    _check_lengths(opened, [video for video in used if video not in pairs])
    _check_files([*opened.values(), *chosen.values()], used)
    differing = differing_lengths(next(iter(opened.values())), labels, matched)
    if differing:
        notes.append(differing)
    notes += _on_classes(train, evaluation, labels)
    return Dataset(train, evaluation, classes, tuple(notes), others)


def _on_classes(train: VideoSet, evaluation: VideoSet, labels: LabelSet) -> Iterator[str]:
    """What to know of them. Raises LabelError where some cannot be learned."""
    classes = labels.classes
    first_of = int((train.labels.sum(axis=1) > 1).sum()) if not train.multi_label else 0
    if first_of:
        yield f"{_of(first_of, len(train), 'training videos')} several classes: trained on the first"
    untrained = evaluation.labels.any(axis=0) & ~train.trained_classes()
    if untrained.any():
        names = _quoted(classes[c] for c in np.flatnonzero(untrained))
        raise LabelError(
            f"{labels.source}: {_some(names, 'class', 'classes')} of subset {evaluation.subset!r} without a "
            f"video in subset {train.subset!r}{' of which it is the first class' if first_of else ''}"
        )
    unseen = _quoted(classes[c] for c in np.flatnonzero(~evaluation.labels.any(axis=0)))
    if unseen:
        which = _some(unseen, "class", "classes")
        yield f"{which} without a video in subset {evaluation.subset!r}: mAP is over the others"


def _usual_subset(labels: LabelSet, names: Sequence[str]) -> str:
    for name in names:
        if any(video.subset == name and video.labels for video in labels.videos):
            return name
    raise LabelError(
        f"{labels.source}: no subset named {' or '.join(names)} with labels; say which of "
        f"{', '.join(labels.subsets)} to use"
    )


def _match(
    streams: Mapping[str, Stream],
    videos: Sequence[VideoLabel],
    labels: LabelSet,
    skip_missing: bool,
    notes: list[str],
    pairs: Mapping[str, Pairs],
    left_out: Container[str],
) -> tuple[tuple[str, ...], list[VideoLabel]]:
    """Ids in the cache of the videos that every stream holds, and those videos.

    Args:
        pairs: as of a VideoSet; a video without any is missing.
        left_out: ids of partial videos that are not wanted.
    """
    ids, found, missing, partial = [], [], {}, 0
    for video in videos:
        names = (video.video_id, *video.aliases)
        cached = next((n for n in names if all(n in stream for stream in streams.values())), None)
        if cached is None:
            missing[video.video_id] = _reason(streams, names)
        elif cached in left_out:
            partial += 1
        elif not all(map(len, pairs.get(cached, {}).values())):
            missing[video.video_id] = (
                "partial, and no row of one stream is of the same instant as one of the other"
            )
        else:
            ids.append(cached)
            found.append(video)
    if missing:
        subset = videos[0].subset
        why = [f"{video_id!r} ({reason})" for video_id, reason in missing.items()]
        which = _some(why, f"video of subset {subset!r}", f"videos of subset {subset!r}")
        _tell(f"{labels.source}: no features for {which}", skip_missing, notes)
    if partial:
        notes.append(f"{_counted(partial)} of subset {videos[0].subset!r} left out as partial")
    if not found:
        whole = "whole in the cache" if partial else "in the cache"
        raise LabelError(f"{labels.source}: no video of subset {videos[0].subset!r} has features {whole}")
    return tuple(ids), found


def _reason(streams: Mapping[str, Stream], names: Sequence[str]) -> str:
    for stream in streams.values():
        for name in names:
            if name in stream.failures:
                return f"failed in extraction: {stream.failures[name]}"
    absent = [s.name for s in streams.values() if not any(n in s for n in names)]
    return f"not in {' nor '.join(absent)}"


def _unlabelled(streams: Mapping[str, Stream], labels: LabelSet) -> list[str]:
    known = {name for video in labels.videos for name in (video.video_id, *video.aliases)}
    return sorted({v for stream in streams.values() for v in stream if v not in known})


def _indices(
    videos: Sequence[VideoLabel], classes: tuple[str, ...]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """`labels` and `first` of a VideoSet."""
    place = {name: c for c, name in enumerate(classes)}
    onehot = np.zeros((len(videos), len(classes)), np.bool_)
    for row, video in zip(onehot, videos, strict=True):
        row[[place[name] for name in video.labels]] = True
    return onehot, np.array([place[video.labels[0]] for video in videos], np.int64)


def _check_sampling(streams: Mapping[Role, Stream]) -> None:
    first, *others = streams.values()
    for other in others:
        if _grid(other) != _grid(first):
            raise CacheError(
                f"streams {first.name!r} and {other.name!r} look at different instants "
                f"({_said(first)} and {_said(other)}): choose two that are sampled alike"
            )


def _grid(stream: Stream) -> object:
    """Where rows are. A snippet is around its instant: the frame there, and those of some seconds, go together."""
    sampling = stream.spec.sampling
    if sampling.kind == "frames":
        return sampling.fps
    return sampling.rows_per_s if sampling.kind == "snippets" else sampling


def _said(stream: Stream) -> str:
    sampling = stream.spec.sampling
    rate = sampling.rows_per_s if sampling.kind == "snippets" else sampling.fps
    return f"{sampling.kind} at {rate:g} fps"


def _check_lengths(streams: Mapping[Role, Stream], ids: Sequence[str]) -> None:
    first, *others = streams.values()
    for other in others:
        for video_id in ids:
            rows = first.rows(video_id), other.rows(video_id)
            if rows[0] != rows[1]:
                raise CacheError(
                    f"video {video_id!r} has {rows[0]} rows in stream {first.name!r} but {rows[1]} in "
                    f"{other.name!r}: extract it again"
                )


def _check_files(streams: Sequence[Stream], ids: Sequence[str]) -> None:
    """Whether a video is the same file in all streams, as far as they know."""
    first, *others = streams
    for other in others:
        for video_id in ids:
            prints = first.fingerprint(video_id), other.fingerprint(video_id)
            if all(prints) and prints[0] != prints[1]:
                raise CacheError(
                    f"video {video_id!r} was another file when stream {first.name!r} was extracted than for "
                    f"{other.name!r}: extract it again"
                )


def _tell(problem: str, skip_missing: bool, notes: list[str]) -> None:
    if not skip_missing:
        raise LabelError(f"{problem}; --skip-missing leaves such videos out")
    notes.append(f"{problem}; left out")


def _of(count: int, total: int, what: str) -> str:
    return f"{count} of {total} {what} {'has' if count == 1 else 'have'}"


def _counted(videos: int) -> str:
    return f"{videos:,} video{'' if videos == 1 else 's'}"


def _some(names: Sequence[str], one: str, many: str) -> str:
    """ "3 videos: 'a', 'b', 'c'": how many, and the first few of them."""
    more = ", …" if len(names) > _NAMED else ""
    return f"{len(names)} {one if len(names) == 1 else many}: {', '.join(names[:_NAMED])}{more}"


def _quoted(names: Iterable[str]) -> list[str]:
    return [repr(name) for name in names]
