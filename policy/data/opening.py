"""A cache and labels, opened as one dataset: the videos for training and for evaluation, checked to fit."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt

from cache_schema import FeatureCache, Stream
from cache_schema.annotations import Grouping, LabelSet, VideoLabel
from cache_schema.annotations.groups import groups_of, in_both, uninformative
from cache_schema.annotations.labels import TRAIN_SUBSETS, VAL_SUBSETS, leave_out
from cache_schema.command import count
from cache_schema.costs import gflops_digits, stream_cost
from cache_schema.errors import CacheError, LabelError
from cache_schema.names import some
from cache_schema.tools.describe import sampling_in_words
from policy.config import DataConfig
from policy.data.batches import Pairs, Role, Segments, VideoSet
from policy.data.coverage import differing_lengths, paired_rows, segments_beyond_the_end

EVAL_SUBSETS = (*VAL_SUBSETS, "testing", "test")

ALL = "all"
"""The subset that the videos of a cache without labels are in."""
GROUPS = "groups"
"""Their name among the digests of a dataset."""


@dataclass(frozen=True)
class Dataset:
    """What a method trains on and is judged on.

    Attributes:
        classes: names of the C classes.
        notes: shown before training, one line each.
        held_out: streams with class scores of training videos, by name; the model of each was not trained on the
            videos in it.
        judges_training: whether the videos for evaluation are training videos that are held out, which `held_out`
            has scores of, too.
        grouping: how it is told which videos belong together; None where it is not.
        validation: the videos of the subset that is judged after each epoch, if there is one.
    """

    train: VideoSet
    evaluation: VideoSet
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    held_out: Mapping[str, Stream] = field(default_factory=dict)
    judges_training: bool = False
    grouping: Grouping | None = None
    validation: VideoSet | None = None

    @property
    def multi_label(self) -> bool:
        return self.train.multi_label

    def describe_groups(self) -> dict[str, Any]:
        """For config.json: how the groups were told, how many there are, and those that are in both subsets."""
        parts = self.train.groups, self.evaluation.groups
        return {
            "told_by": None if self.grouping is None else asdict(self.grouping),
            "train": len(set(parts[0])),
            "evaluation": len(set(parts[1])),
            "in_both": sorted(set(parts[0]).intersection(parts[1])),
        }

    def digest(self) -> dict[str, str]:
        """SHA-256 of the labels used, of the groups if there are any, and per stream of the features used;
        all of videos for validation as one."""
        return dict(self._digest)

    @cached_property
    def _digest(self) -> dict[str, str]:
        # Cached, because a table needs it for each of its runs.
        ids = [*self.train.ids, *self.evaluation.ids]
        content: dict[str, Any] = {"classes": self.classes, "multi_label": self.multi_label}
        content |= {"train": _class_indices(self.train), "evaluation": _class_indices(self.evaluation)}
        if not self.multi_label and (self.train.labels.sum(axis=1) > 1).any():
            content["first"] = self.train.first.tolist()
        groups = [self.train.groups, self.evaluation.groups]
        digests = {
            "labels": _sha256(content),
            **({GROUPS: _sha256(groups)} if any(groups) else {}),
            **{stream.name: stream.digest(ids) for stream in self.train.streams.values()},
            **{name: stream.digest(ids) for name, stream in self.train.pool.items()},
            **{
                f"held-out {name}": stream.digest([video for video in self.train.ids if video in stream])
                for name, stream in self.held_out.items()
            },
        }
        if self.validation is not None:
            streams = [*self.train.streams.values(), *self.train.pool.values()]
            features = [stream.digest(self.validation.ids) for stream in streams]
            digests["validation"] = _sha256([_class_indices(self.validation), features])
        return digests


def _class_indices(videos: VideoSet) -> list[list[Any]]:
    """Each video's id and the indices of its classes."""
    pairs = zip(videos.ids, videos.labels, strict=True)
    return [[video, np.flatnonzero(row).tolist()] for video, row in pairs]


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def open_dataset(
    cache: FeatureCache,
    labels: LabelSet,
    streams: Mapping[Role, str],
    config: DataConfig | None = None,
    *,
    l2: bool = False,
    pool: Sequence[str] = (),
    held_out: Sequence[str] = (),
) -> Dataset:
    """Match labels and features.

    A video of the labels is looked up in the cache by its id, then by its aliases. Videos of other subsets, and
    videos whose labels the benchmark keeps back, are ignored. Any other video that lacks features or labels is an
    error, or with `skip_missing` is left out, which the notes mention. Videos that are partial in the cache are
    used, unless `whole_only`; the notes count them. Where the labels give lengths of videos, the notes also say
    which differ in the cache.

    Args:
        streams: names of the streams that are read, by role.
        config: by default that of no option. A subset of None is the first of TRAIN_SUBSETS and EVAL_SUBSETS with
            labels. `multi_label` of None is whether some video of the file has several classes; False trains on
            the first class of each video in the file, as with the one-hot y of Eq. 7, and evaluates with all.
        pool: names of the streams to choose from; they must have the same videos, but may be sampled differently.
        held_out: names of streams for `Dataset.held_out`, which need not have all videos.

    Raises:
        UserError: labels and features do not fit each other (LabelError), the two streams do not
            (CacheError), or one of them is missing.
    """
    config = config or DataConfig()
    by_role = {role: cache[name] for role, name in streams.items()}
    by_name = {name: cache[name] for name in pool}
    others = {name: cache[name] for name in held_out}
    all_streams = {**by_name, **{stream.name: stream for stream in by_role.values()}}
    _check_sampling(by_role)
    multi_label = labels.multi_label if config.multi_label is None else config.multi_label
    notes = [*labels.notes, *_on_prices(by_role)]
    if config.multi_label is None and multi_label:
        labelled = [video for video in labels.videos if video.labels]
        count = sum(len(video.labels) > 1 for video in labelled)
        notes.append(
            f"{_of(count, len(labelled), 'videos')} several classes: trained as multi-label, on all of them; "
            "--single-label trains on each video's first class instead"
        )
    _check_labelled(labels, all_streams.values(), config.skip_missing, notes)
    classes = labels.classes
    partial = frozenset(v for s in (*all_streams.values(), *others.values()) for v in s.partial)
    pairs = {} if config.whole_only else paired_rows(by_role, partial)
    left_out = partial if config.whole_only else frozenset[str]()
    found: list[tuple[str, str, tuple[str, ...], list[VideoLabel]]] = []
    for purpose, requested, usual in (
        ("training", config.train_subset, TRAIN_SUBSETS),
        ("evaluation", config.eval_subset, EVAL_SUBSETS),
        *([("validation", config.validation_subset, ())] if config.validation_subset else ()),
    ):
        subset = requested or usual_subset(
            labels,
            [name for name in usual if name != config.validation_subset],
            "--train-subset" if purpose == "training" else "--eval-subset",
        )
        of_subset = labels.judged(subset) if purpose == "evaluation" else labels.subset(subset)
        matched = _match(all_streams, of_subset, labels, config.skip_missing, notes, pairs, left_out)
        found.append((purpose, subset, *matched))
    if config.classes_present:
        (_, _, _, learned), (_, _, _, judged_videos), *_ = found
        classes = _present(learned, judged_videos, labels, multi_label, notes)
        found = [
            (purpose, subset, *_of_classes(ids, videos, classes, notes))
            for purpose, subset, ids, videos in found
        ]
    parts: list[VideoSet] = []
    matches: list[tuple[str, VideoLabel]] = []
    for purpose, subset, ids, videos in found:
        matches += zip(ids, videos, strict=True)
        trains = purpose == "training"  # which sees labels alone
        of_labels = _onehot(videos, classes)
        held = () if trains else segments_of(videos, classes), groups_of(videos, labels.source)
        parts.append(VideoSet(subset, by_role, ids, *of_labels, multi_label, l2, by_name, pairs, *held))
        notes.append(f"{_counted(len(ids))} of subset {subset!r} for {purpose}")
    (train, evaluation, *validation), (_, *judged) = parts, parts
    unused = Counter(v.subset for v in labels.videos if v.subset not in {part.subset for part in parts})
    for subset, count in unused.items():  # also the misspelt
        notes.append(f"{_counted(count)} of subset {subset!r} not used")
    if len(classes) == 1 and not multi_label:
        notes.append(
            f"only one class, {classes[0]!r}: there is nothing to tell apart, and every score is perfect"
        )
    used = [video_id for part in parts for video_id in part.ids]
    if count := len(partial.intersection(used)):
        are = "is" if count == 1 else "are"
        notes.append(
            f"{count:,} of {_counted(len(used))} {are} partial: the rows that the cache has are used; "
            "--whole-only leaves such videos out"
        )
    _check_apart(dict(zip(("training", "evaluation", "validation"), parts, strict=False)), labels)
    _check_videos([*by_role.values()], [*by_name.values()], used, pairs)
    if differing := differing_lengths(next(iter(by_role.values())), labels, matches):
        notes.append(differing)
    notes += _on_segments(evaluation, labels)
    notes += [*_on_classes(train, judged, labels, classes), *_on_groups(labels, classes, judged, train)]
    return Dataset(
        train,
        evaluation,
        classes,
        tuple(notes),
        others,
        grouping=labels.grouping,
        validation=validation[0] if validation else None,
    )


def unlabelled(cache: FeatureCache, ids: Iterable[str]) -> LabelSet:
    """What stands for the labels of videos that have none: all are of subset `ALL`."""
    return LabelSet(cache.folder, tuple(VideoLabel(video, (), ALL) for video in ids))


def open_videos(
    cache: FeatureCache,
    streams: Mapping[Role, str],
    labels: LabelSet,
    subset: str,
    classes: tuple[str, ...],
    config: DataConfig,
    *,
    multi_label: bool,
    l2: bool = False,
    pool: Sequence[str] = (),
) -> tuple[VideoSet, list[str]]:
    """The videos of one subset, to be judged by a policy that is trained already, and notes as `Dataset.notes`.

    Args:
        labels: of these videos, all without labels where predictions are all that is wanted.
        classes: that the policy knows.
        config: its subsets are not looked at.
        multi_label: as the policy was trained.

    Raises:
        UserError: as `open_dataset`, or a video is of a class that is not among `classes`.
    """
    by_role = {role: cache[name] for role, name in streams.items()}
    by_name = {name: cache[name] for name in pool}
    all_streams = {**by_name, **{stream.name: stream for stream in by_role.values()}}
    _check_sampling(by_role)
    of_subset = [video for video in labels.videos if video.subset == subset]
    if any(video.labels for video in labels.videos):
        of_subset = list(labels.judged(subset))
    named = {name for video in of_subset for name in video.labels}
    unknown = sorted(named.difference(classes))
    if unknown and not config.classes_present:
        which = _some(unknown, "classes")
        raise LabelError(
            f"{labels.source}: {which} of subset {subset!r} that the run does not know; --classes-present leaves "
            "them out"
        )
    partial = frozenset(video for stream in all_streams.values() for video in stream.partial)
    pairs = {} if config.whole_only else paired_rows(by_role, partial)
    left_out = partial if config.whole_only else frozenset[str]()
    notes = list(labels.notes)
    ids, videos = _match(all_streams, of_subset, labels, config.skip_missing, notes, pairs, left_out)
    if unknown:
        ids, videos = _of_classes(ids, videos, classes, notes)
        if not ids:
            raise LabelError(f"{labels.source}: no video of subset {subset!r} has a class that the run knows")
    _check_videos([*by_role.values()], [*by_name.values()], ids, pairs)
    of_labels, segments = _onehot(videos, classes), segments_of(videos, classes)
    groups = groups_of(videos, labels.source)
    found = VideoSet(subset, by_role, ids, *of_labels, multi_label, l2, by_name, pairs, segments, groups)
    if differing := differing_lengths(
        next(iter(by_role.values())), labels, list(zip(ids, videos, strict=True))
    ):
        notes.append(differing)
    notes += _on_segments(found, labels)
    notes += _on_groups(labels, classes, [found])
    return found, notes


def _check_labelled(
    labels: LabelSet, streams: Iterable[Stream], skip_missing: bool, notes: list[str]
) -> None:
    """Cached videos without labels are left out, which becomes a note, or raise LabelError."""
    labelled_ids = {name for video in labels.videos for name in (video.video_id, *video.aliases)}
    cached_ids = {video for stream in streams for video in stream}
    unlabelled = sorted(cached_ids - labelled_ids)
    if unlabelled and labels.videos and len(unlabelled) == len(cached_ids):
        raise LabelError(
            f"{labels.source}: none of its {len(labels.videos):,} videos is in the cache: ids are "
            f"{labels.videos[0].video_id!r}, … here and {unlabelled[0]!r}, … there"
        )
    if unlabelled:
        which = _some(unlabelled, "cached videos")
        leave_out(f"{labels.source}: no label for {which}", skip_missing, notes)


def _check_apart(parts: Mapping[str, VideoSet], labels: LabelSet) -> None:
    """Raises LabelError where a video is in two parts; these by purpose."""
    for (purpose, part), (other_purpose, other) in combinations(parts.items(), 2):
        if both := set(part.ids) & set(other.ids):
            which = _some(sorted(both), "videos")
            raise LabelError(
                f"{labels.source}: {which} both for {purpose} and {other_purpose}; choose other subsets"
            )


def _present(
    train: Sequence[VideoLabel],
    evaluation: Sequence[VideoLabel],
    labels: LabelSet,
    multi_label: bool,
    notes: list[str],
) -> tuple[str, ...]:
    """The classes that are trained and judged; a note has the others. Raises LabelError where there are none."""
    learned = {name for video in train for name in (video.labels if multi_label else video.labels[:1])}
    classes = learned.intersection(name for video in evaluation for name in video.labels)
    left_out = sorted(set(labels.classes) - classes)
    if not classes:
        raise LabelError(
            f"{labels.source}: no class has videos in the cache both for training and for evaluation"
        )
    if left_out:
        notes.append(
            f"{len(classes):,} of {len(labels.classes):,} classes have videos in the cache both for training and "
            f"for evaluation; left out: {_some(left_out, 'classes')}"
        )
    return tuple(sorted(classes))


def _of_classes(
    ids: Sequence[str], videos: Sequence[VideoLabel], classes: Sequence[str], notes: list[str]
) -> tuple[tuple[str, ...], list[VideoLabel]]:
    """Videos with their labels and segments of some classes; those that have none are left out, as a note says."""
    kept = frozenset(classes)
    chosen = []
    for video_id, video in zip(ids, videos, strict=True):
        of_kept = video.of_classes(kept)
        if of_kept.labels or not video.labels:
            chosen.append((video_id, of_kept))
    if len(chosen) < len(videos):
        notes.append(
            f"{_counted(len(videos) - len(chosen))} of subset {videos[0].subset!r} of other classes left out"
        )
    return tuple(video_id for video_id, _ in chosen), [video for _, video in chosen]


def _on_classes(
    train: VideoSet, judged: Sequence[VideoSet], labels: LabelSet, classes: tuple[str, ...]
) -> Iterator[str]:
    """Notes on the classes. Raises LabelError where some cannot be learned."""
    first_of = int((train.labels.sum(axis=1) > 1).sum()) if not train.multi_label else 0
    if first_of:
        yield f"{_of(first_of, len(train), 'training videos')} several classes: trained on the first"
    for part in judged:
        untrained = part.labels.any(axis=0) & ~train.trained_classes()
        if untrained.any():
            names = [classes[c] for c in np.flatnonzero(untrained)]
            raise LabelError(
                f"{labels.source}: {_some(names, 'classes')} of subset {part.subset!r} without a "
                f"video in subset {train.subset!r}{' of which it is the first class' if first_of else ''}; "
                "--classes-present leaves such classes out"
            )
        unseen = [classes[c] for c in np.flatnonzero(~part.labels.any(axis=0))]
        if unseen:
            which = _some(unseen, "classes")
            yield f"{which} without a video in subset {part.subset!r}: mAP is over the others"


def _on_segments(evaluation: VideoSet, labels: LabelSet) -> Iterator[str]:
    """What to know of the segments by which videos are judged, if there are any."""
    if not any(map(len, evaluation.segments)):
        return
    bare = [
        video_id
        for video_id, one, onehot in zip(evaluation.ids, evaluation.segments, evaluation.labels, strict=True)
        if onehot.any() and not len(one)
    ]
    if bare:
        which = _some(bare, "videos")
        yield f"{labels.source}: no segments, so that all that is found is wrong, in {which}"
    beyond = segments_beyond_the_end(
        next(iter(evaluation.streams.values())), evaluation.ids, evaluation.segments
    )
    if beyond:
        yield f"{labels.source}: {beyond}"


def _on_groups(
    labels: LabelSet, classes: Sequence[str], judged: Sequence[VideoSet], train: VideoSet | None = None
) -> Iterator[str]:
    """What to know of the groups of videos, if there are any."""
    parts = [*([train] if train else []), *judged]
    if counts := [f"{len(set(part.groups)):,} in subset {part.subset!r}" for part in parts if part.groups]:
        yield f"groups of videos ({labels.grouping or 'as labelled'}): {', '.join(counts)}"
    yield from filter(None, (uninformative(part.groups, part.subset) for part in parts))
    for part in judged:
        if train and (crossing := in_both(train.groups, part.groups, (train.subset, part.subset))):
            yield crossing
    if train and (one := _of_one_group(train)):
        which = _some([classes[c] for c in one], "classes")
        yield f"{which}, with all training videos in one group: what is fitted without that has no example of it"


def _of_one_group(videos: VideoSet) -> list[int]:
    """The classes of which all videos are of one group, unless all others are, too."""
    if len(set(videos.groups)) < 2:
        return []
    group, labels = np.unique(videos.groups, return_inverse=True)[1], videos.trained_labels
    return [
        c for c in np.flatnonzero(labels.any(axis=0)).tolist() if len(np.unique(group[labels[:, c]])) == 1
    ]


def segments_digest(videos: VideoSet) -> str:
    """SHA-256 of the segments and ambiguous spans of videos: of what a localization is judged by, with the labels.

    No part of `Dataset.digest`, for methods that are judged by labels alone do not depend on it.
    """
    held = [
        [video, one.classes.tolist(), one.spans.tolist(), one.ambiguous.tolist()]
        for video, one in zip(videos.ids, videos.segments, strict=True)
    ]
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()


def usual_subset(labels: LabelSet, names: Sequence[str], option: str = "--eval-subset") -> str:
    """The first of the names that has labels. Raises LabelError, which names the option, where none does."""
    found = labels.usual_subset(names)
    if found is None:
        raise labels.no_subset(names, option)
    return found


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
        left_out: ids of videos to leave out because they are partial.
    """
    ids, matched, missing, partial = [], [], {}, 0
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
            matched.append(video)
    if missing:
        subset = videos[0].subset
        problems = [f"{video_id!r} ({reason})" for video_id, reason in missing.items()]
        which = f"{_counted(len(missing))} of subset {subset!r}: {some(problems, str)}"
        leave_out(f"{labels.source}: no features for {which}", skip_missing, notes)
    if partial:
        notes.append(f"{_counted(partial)} of subset {videos[0].subset!r} left out as partial")
    if not matched:
        whole = "whole in the cache" if partial else "in the cache"
        raise LabelError(f"{labels.source}: no video of subset {videos[0].subset!r} has features {whole}")
    return tuple(ids), matched


def _reason(streams: Mapping[str, Stream], names: Sequence[str]) -> str:
    for stream in streams.values():
        for name in names:
            if name in stream.failures:
                return f"failed in extraction: {stream.failures[name]}"
    spellings = {s.name: next((n for n in names if n in s), None) for s in streams.values()}
    if absent := [stream for stream, spelling in spellings.items() if spelling is None]:
        return f"not in {' nor '.join(absent)}"
    of_streams = ", ".join(f"{spelling!r} in {stream}" for stream, spelling in spellings.items())
    return f"its id differs between streams: {of_streams}; extract or import them with ids spelled alike"


def _onehot(
    videos: Sequence[VideoLabel], classes: tuple[str, ...]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """`labels` and `first` of a VideoSet."""
    place = {name: c for c, name in enumerate(classes)}
    onehot = np.zeros((len(videos), len(classes)), np.bool_)
    for row, video in zip(onehot, videos, strict=True):
        row[[place[name] for name in video.labels]] = True
    # A video without labels, which has ambiguous spans, is judged and never trained on.
    return onehot, np.array([place[video.labels[0]] if video.labels else 0 for video in videos], np.int64)


def segments_of(videos: Sequence[VideoLabel], classes: Sequence[str]) -> tuple[Segments, ...]:
    """The annotated segments of M videos, as `VideoSet.segments` has them; classes are numbered as given.

    Raises:
        LabelError: a segment is of another class.
    """
    place = {name: c for c, name in enumerate(classes)}
    for video in videos:
        for segment in video.segments:
            if segment.label not in place:
                raise LabelError(
                    f"video {video.video_id!r} has a segment of class {segment.label!r}, which no video has as "
                    "label"
                )
    empty = Segments(np.zeros(0, np.int64), np.zeros((0, 2)))
    return tuple(
        Segments(
            np.array([place[segment.label] for segment in video.segments], np.int64),
            np.array([(s.start_s, s.end_s) for s in video.segments], np.float64).reshape(-1, 2),
            np.array(video.ambiguous, np.float64).reshape(-1, 2),
        )
        if video.segments or video.ambiguous
        else empty
        for video in videos
    )


def _check_sampling(streams: Mapping[Role, Stream]) -> None:
    first, *others = streams.values()
    for other in others:
        if grid(other) != grid(first):
            raise CacheError(
                f"streams {first.name!r} and {other.name!r} look at different instants "
                f"({_rate(first)} and {_rate(other)}): choose two that are sampled alike"
            )


def _on_prices(streams: Mapping[Role, Stream]) -> Iterator[str]:
    """A warning where the coarse features cost more than the fine ones: no gate saves anything then."""
    if streams.keys() >= {"coarse", "fine"}:
        coarse, fine = (stream_cost(streams[role].spec) for role in ("coarse", "fine"))
        if coarse.macs > fine.macs:
            yield (
                f"warning: the coarse stream {coarse.stream} costs {gflops_digits(coarse.gflops(), 3)} GFLOPs a "
                f"row, the fine one, {fine.stream}, {gflops_digits(fine.gflops(), 3)}: are they the wrong "
                "way round?"
            )


def grid(stream: Stream) -> Hashable:
    """What decides the instants of rows: streams go together where it is equal.

    A snippet is centred on its instant, so it goes with the frame there. Of dense clips their windows decide,
    whichever of their frames were looked at.
    """
    sampling = stream.spec.sampling
    if sampling.kind == "frames":
        return sampling.fps
    if sampling.kind == "dense":
        return replace(sampling, frames=1)
    return sampling.rows_per_s if sampling.kind == "snippets" else sampling


def _rate(stream: Stream) -> str:
    sampling = stream.spec.sampling
    if sampling.kind not in ("frames", "snippets"):  # whose rows are at no rate
        return sampling_in_words(sampling)
    rate = sampling.rows_per_s if sampling.kind == "snippets" else sampling.fps
    return f"{sampling.kind} at {rate:g} fps"


def _check_videos(
    streams: Sequence[Stream], pool: Sequence[Stream], ids: Sequence[str], pairs: Mapping[str, Pairs]
) -> None:
    """Whether a video has the same rows in all of `streams`, and is the same file everywhere, if that is known."""
    first, *others = streams
    for other, video_id in product(others, ids):
        rows = first.rows(video_id), other.rows(video_id)
        if rows[0] != rows[1] and video_id not in pairs:
            raise CacheError(
                f"video {video_id!r} has {rows[0]} rows in stream {first.name!r} but {rows[1]} in "
                f"{other.name!r}: extract it again"
            )
    for other, video_id in product([*others, *pool], ids):
        prints = first.fingerprint(video_id), other.fingerprint(video_id)
        if all(prints) and prints[0] != prints[1]:
            raise CacheError(
                f"video {video_id!r} was another file when stream {first.name!r} was extracted than for "
                f"{other.name!r}: extract it again"
            )


def _of(count: int, total: int, what: str) -> str:
    return f"{count} of {total} {what} {'has' if count == 1 else 'have'}"


def _counted(videos: int) -> str:
    return count(videos, "videos")


def _some(names: Sequence[str], things: str) -> str:
    """ "3 videos: 'a', 'b', 'c'": how many, and the first few of them."""
    return f"{count(len(names), things)}: {some(names)}"
