"""Whether the cached videos are as long as the benchmark's own list says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cache_schema import FeatureCache, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from policy.data.opening import open_dataset
from tests.caches import make_record, make_spec


def cache_of(folder: Path, lengths: dict[str, tuple[float, float]]) -> FeatureCache:
    """Videos of so many seconds and frames a second, two to a shard."""
    spec = make_spec()
    records = [replace(make_record(v, 3), duration_s=s, fps=fps) for v, (s, fps) in lengths.items()]
    for i in range(0, len(records), 2):
        write_shard(folder / spec.name, spec, records[i : i + 2], tools={"thriftvid": "test"})
    return FeatureCache(folder)


def notes_on(folder: Path, lengths: dict[str, tuple[float, float]], **listed: VideoLabel) -> list[str]:
    labels = LabelSet(Path("lists"), tuple(replace(v, video_id=name) for name, v in listed.items()))
    data = open_dataset(cache_of(folder, lengths), labels, {"fine": "tiny_8"})
    return [note for note in data.notes if "as listed" in note]


def listing(frames: int | None, subset: str = "train", frames_per_s: float | None = None) -> VideoLabel:
    return VideoLabel("", ("x",), subset, frames=frames, frames_per_s=frames_per_s)


def test_videos_of_another_length_than_listed(tmp_path: Path) -> None:
    lengths = {"a": (10.0, 25.0), "b": (120.0, 29.97), "c": (8.0, 25.0), "d": (4.0, 25.0), "e": (9.0, 25.0)}
    notes = notes_on(
        tmp_path,
        lengths,
        d=listing(104, "val"),
        e=listing(None),
        c=listing(250),
        b=listing(3600),
        a=listing(253),
    )
    assert notes == [
        "lists: 2 of 4 videos are not as long in the cache as listed, most of all 'c': 200 frames, not 250"
    ]


def test_lengths_at_the_rate_at_which_they_were_listed(tmp_path: Path) -> None:
    lengths = {"a": (10.0, 25.0), "b": (10.0, 24.0), "c": (5.0, 60.0), "d": (float("nan"), 0.0)}
    listed = {name: listing(300, "val" if name == "a" else "train", 30.0) for name in lengths}
    assert notes_on(tmp_path, lengths, **listed) == [
        "lists: 1 of 4 videos is not as long in the cache as listed, most of all 'c': 150 frames, not 300"
    ]


def test_lengths_that_agree_are_not_mentioned(tmp_path: Path) -> None:
    lengths = {"a": (10.0, 25.0), "b": (10.0, 25.0)}
    assert notes_on(tmp_path, lengths, a=listing(250), b=listing(255, "val")) == []
