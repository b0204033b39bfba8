"""A cache for networks of your own: a Dataset of PyTorch, and batches padded to their longest video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet, read_labels
from cache_schema.arguments import checks_arguments, in_python, speaks_python
from cache_schema.files import StrPath
from policy.config import DataConfig
from policy.data.opening import ALL, open_videos, unlabelled


class Item(NamedTuple):
    """A video.

    Attributes:
        features: by stream (T, D) float32, or the class logits (T, C). A copy, which may be written to.
        target: () int64, the class; with several classes per video (C,) float32 of 0 and 1; without labels −1.
    """

    video_id: str
    features: dict[str, Tensor]
    target: Tensor


class PaddedBatch(NamedTuple):
    """B videos.

    Attributes:
        features: by stream (B, T, D) float32, T the rows of its longest video; after a video's rows zeros.
        lengths: by stream (B,) int64, rows of each video.
        mask: by stream (B, T) bool, True where there are rows. Attention of PyTorch takes ~mask as
            `key_padding_mask`.
        targets: (B,) or (B, C), as of an Item.
    """

    video_ids: tuple[str, ...]
    features: dict[str, Tensor]
    lengths: dict[str, Tensor]
    mask: dict[str, Tensor]
    targets: Tensor


class PaddedDataset(Dataset[Item]):
    """The videos of a cache that have rows in all of some streams; for a DataLoader with `collate_fn=pad`.

    Attributes:
        video_ids: M ids in the cache, in the order of the labels, or without labels of the cache.
        classes: names of the C classes; empty without labels.
        notes: what the user should know, a line each.

    Args:
        streams: their names, or one.
        labels: a file, the folder of a benchmark, or a LabelSet.
        subset: of the labels; may be left out where they have one only.
        scores: give class logits in place of features.
        multi_label: whether targets are all classes of a video, or its first; by default all where some video has
            several.
        skip_missing: leave out videos without features.
        whole_only: leave out videos of which only a part could be decoded.

    Raises:
        UserError: cache, labels and streams do not fit each other.
    """

    @speaks_python(format="labels_format")
    @checks_arguments
    def __init__(
        self,
        cache: StrPath | FeatureCache,
        streams: str | Sequence[str],
        labels: StrPath | LabelSet | None = None,
        *,
        subset: str | None = None,
        labels_format: str | None = None,
        scores: bool = False,
        multi_label: bool | None = None,
        skip_missing: bool = False,
        whole_only: bool = False,
    ) -> None:
        cache = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
        self._names = tuple(dict.fromkeys([streams] if isinstance(streams, str) else streams))
        if not self._names:
            raise UserError("no stream to read: name at least one")
        for name in self._names:
            spec = cache[name].spec
            if not (spec.num_classes if scores else spec.feature_dim):
                raise UserError(
                    f"{cache.folder}: stream {name!r} has no {'scores' if scores else 'features'}"
                )
        self._scores = scores
        if labels is None:
            if subset is not None:
                raise UserError(f"subset {subset!r}: of which labels? Give them, too")
            shared = set.intersection(*(set(cache[name]) for name in self._names))
            ids = [video for video in cache[self._names[0]] if video in shared]
            labels = unlabelled(cache, ids)
        elif not isinstance(labels, LabelSet):
            labels = read_labels(labels, labels_format)
        if subset is None:
            if len(labels.subsets) > 1:
                raise UserError(f"{labels.source}: which subset? It has: {', '.join(labels.subsets)}")
            subset = next(iter(labels.subsets), ALL)
        self.classes = labels.classes
        first, *others = self._names
        self._videos, notes = open_videos(
            cache,
            {first: first},
            labels,
            subset,
            self.classes,
            DataConfig(skip_missing=skip_missing, whole_only=whole_only),
            multi_label=labels.multi_label if multi_label is None else multi_label,
            pool=others,
        )
        self.notes = tuple(in_python(line, {}) for line in notes)
        self.video_ids = self._videos.ids

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, index: int) -> Item:
        """Video number `index`, from 0 on.

        Raises:
            IndexError: there is none.
            CacheError: a value is not finite, or the shard is damaged.
        """
        index = range(len(self))[index]
        videos, read = self._videos, {}
        for name in self._names:
            stream = videos.streams.get(name) or videos.pool[name]
            rows = (videos.scores_of if self._scores else videos.features_of)(stream, index)
            read[name] = torch.from_numpy(rows.astype(np.float32))
        target = videos.targets([index])[0] if self.classes else torch.tensor(-1)
        return Item(videos.ids[index], read, target)

    def __repr__(self) -> str:
        what = "class logits" if self._scores else "features"
        return (
            f"PaddedDataset({what} of {' and '.join(self._names)}: videos {len(self):,}, "
            f"classes {len(self.classes):,})"
        )


def pad(items: Sequence[Item]) -> PaddedBatch:
    """Several videos as a batch, each stream padded with zeros to the rows of its longest video."""
    names = list(items[0].features)
    rows: Mapping[str, list[Tensor]] = {name: [item.features[name] for item in items] for name in names}
    lengths = {name: torch.tensor([len(one) for one in rows[name]]) for name in names}
    return PaddedBatch(
        tuple(item.video_id for item in items),
        {name: pad_sequence(rows[name], batch_first=True) for name in names},
        lengths,
        {name: torch.arange(int(count.max())) < count[:, None] for name, count in lengths.items()},
        torch.stack([item.target for item in items]),
    )
