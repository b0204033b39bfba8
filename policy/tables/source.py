"""Cache and labels of a table, opened once, and the datasets that its rows read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cache_schema import FeatureCache
from cache_schema.annotations import LabelSet
from policy.config import RunConfig
from policy.data.opening import Dataset
from policy.registry import METHODS
from policy.runs import open_data
from policy.selection.config import PoolConfig

_Kind = tuple[object, ...]


@dataclass(frozen=True)
class Source:
    """Attributes:
    labels: of the videos on which every row is judged.
    notes: remarks for the user, a line each.
    datasets: by what distinguishes the rows' data (`_kind`).
    """

    cache: FeatureCache
    labels: LabelSet
    notes: tuple[str, ...]
    datasets: dict[_Kind, Dataset]

    @staticmethod
    def open(configs: Iterable[RunConfig], cache: FeatureCache, labels: LabelSet) -> Source:
        """Args:
            configs: of all runs; their seeds and training options do not matter.

        Raises:
            UserError: configuration, cache and labels do not match.
        """
        # Those that read most streams first: their notes hold for the others.
        by_roles = sorted(configs, key=lambda config: -_streams_of(config))
        kinds = {_kind(config): config for config in by_roles}
        datasets = {kind: open_data(config, cache, labels) for kind, config in kinds.items()}
        first = next(iter(datasets.values()))
        notes = list(first.notes)
        matched = [_matched(data, labels) for data in datasets.values()]
        common = set.intersection(*matched)
        if any(videos != common for videos in matched):
            # Only with --skip-missing or --whole-only: all rows must be judged on videos that every row has.
            more = len(matched[0] - common)
            if more:
                notes.append(f"{more:,} more left out, which other streams of the table lack")
            kept = tuple(v for v in labels.videos if v.video_id in common)
            labels = replace(labels, videos=kept, notes=())
            datasets = {kind: open_data(skipping(config), cache, labels) for kind, config in kinds.items()}
        return Source(cache, labels, tuple(notes), datasets)

    def dataset(self, config: RunConfig) -> Dataset:
        return self.datasets[_kind(config)]


def skipping(config: RunConfig) -> RunConfig:
    """The configuration for data whose missing videos have been reported."""
    return replace(config, skip_missing=True)


def _kind(config: RunConfig) -> _Kind:
    """The settings that decide how a dataset is opened and may differ between the rows of a table."""
    method = METHODS[config.method]
    streams = ((role, getattr(config, role)) for role in method.roles)
    pool = (tuple(method.pool(config)), tuple(method.held_out(config)))
    # Which model of a pool is the cheapest depends on how many rows each judges by.
    cheapest = isinstance(config, PoolConfig) and config.coarse is None and (config.models, config.rows)
    return (*streams, config.stream_names(), *pool, cheapest, config.input_norm == "l2")


def _streams_of(config: RunConfig) -> int:
    method = METHODS[config.method]
    return len(config.stream_names()) + len(method.held_out(config))


def _matched(data: Dataset, labels: LabelSet) -> set[str]:
    """The dataset's videos by their ids in the labels, which may differ from those in the cache."""
    ids = {*data.train.ids, *data.evaluation.ids}
    return {v.video_id for v in labels.videos if not ids.isdisjoint((v.video_id, *v.aliases))}
