"""Batches: packed as torch packs, and nothing wrong goes through silently."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence

from cache_schema import CacheError, FeatureCache, Sampling, write_shard
from cache_schema.annotations import LabelSet, Segment, VideoLabel
from cache_schema.errors import LabelError
from policy.baselines.config import UniformConfig
from policy.data.batches import VideoSet, batched, read_ahead, uniform_rows
from policy.data.opening import open_dataset, segments_digest
from policy.networks.packing import mean_per_video, video_of_row
from policy.runs import key_of
from tests.caches import make_record, make_spec, write_stream

TOOLS = {"thriftvid": "test"}


def label_set(videos: dict[str, str], subset: str = "train") -> LabelSet:
    return LabelSet(Path("labels.csv"), tuple(VideoLabel(v, (c,), subset) for v, c in videos.items()))


def video_set(folder: Path, lengths: list[int], *, l2: bool = False, classes: int = 0) -> VideoSet:
    videos = {f"v{i}": length for i, length in enumerate(lengths)}
    write_stream(folder, make_spec("coarse", dim=5), videos, seed=1)
    write_stream(folder, make_spec("fine", dim=7, classes=classes), videos, seed=2)
    cache = FeatureCache(folder)
    first = np.arange(len(videos)) % 3
    labels = np.zeros((len(videos), 3), np.bool_)
    labels[np.arange(len(videos)), first] = True
    streams = {"coarse": cache["coarse"], "fine": cache["fine"]}
    return VideoSet("train", streams, tuple(videos), labels, first, multi_label=False, l2=l2)


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=7), random=st.randoms(use_true_random=False))
def test_a_batch_is_what_torch_would_pack(
    lengths: list[int], random: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    videos = video_set(tmp_path_factory.mktemp("cache"), lengths)
    order = list(range(len(lengths)))
    random.shuffle(order)  # type: ignore[attr-defined]
    batch = videos.batch(order)
    for role, packed in batch.inputs.items():
        arrays = [torch.from_numpy(videos.features(role, i).copy()) for i in order]
        expected = pack_sequence(arrays, enforce_sorted=False)
        assert torch.equal(packed.batch_sizes, expected.batch_sizes)
        # Among videos of equal length the order is free: compare by video.
        for video, array in enumerate(arrays):
            assert torch.equal(packed.data[video_of_row(packed) == video], array)
    assert batch.targets.tolist() == [i % 3 for i in order]


def test_rows_are_chosen_per_video_and_scores_packed_alike(tmp_path: Path) -> None:
    videos = video_set(tmp_path, [9, 2, 4], classes=4)
    batch = videos.batch([0, 1, 2], lambda length: uniform_rows(length, 3), scored=["fine"])
    assert set(batch.inputs) == {"coarse"}
    packed = batch.scores["fine"]
    assert torch.equal(packed.batch_sizes, batch.inputs["coarse"].batch_sizes)
    for video, rows in enumerate(([1, 4, 7], [0, 1], [0, 2, 3])):
        expected = videos.streams["fine"][f"v{video}"].scores
        assert expected is not None
        assert np.array_equal(packed.data[video_of_row(packed) == video].numpy(), expected[rows])


def test_a_batch_for_a_method_that_keeps_its_inputs(tmp_path: Path) -> None:
    videos = video_set(tmp_path, [9, 2, 4])
    batch = videos.batch([2, 0], read=False)
    assert not batch.inputs and not batch.scores
    assert batch.indices == (2, 0) and batch.videos is videos
    assert torch.equal(batch.targets, videos.batch([2, 0]).targets)


def test_every_video_is_in_one_batch(tmp_path: Path) -> None:
    videos = video_set(tmp_path, [3, 1, 4, 1, 5])
    parts = map(videos.batch, batched([4, 0, 3, 1, 2], 2))
    sizes = [len(batch.targets) for batch in read_ahead(parts)]
    assert sizes == [2, 2, 1]


@given(length=st.integers(1, 400), count=st.integers(1, 60))
def test_uniform_rows(length: int, count: int) -> None:
    rows = uniform_rows(length, count)
    assert len(rows) == min(length, count)
    assert rows[0] >= 0 and rows[-1] < length
    gaps = np.diff(rows)
    if len(gaps):
        assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1
    # As much is left out before the first as after the last, to within the rounding.
    assert abs(rows[0] - (length - 1 - rows[-1])) <= 1


def test_l2_norm(tmp_path: Path) -> None:
    # Wide and long enough to be computed in several parts; a row of zeros has no direction.
    features = np.random.default_rng(0).standard_normal((50, 1500)).astype(np.float16)
    features[3] = 0
    write_shard(tmp_path / "fine", make_spec("fine", dim=1500), [
        make_record("v", 50, dim=1500, features=features)
    ], tools=TOOLS)  # fmt: skip
    streams = {"fine": FeatureCache(tmp_path)["fine"]}
    one, first = np.ones((1, 1), np.bool_), np.zeros(1, np.int64)
    videos = VideoSet("train", streams, ("v",), one, first, multi_label=False, l2=True)
    exact = features.astype(np.float64)
    exact /= np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12)
    found = videos.features("fine", 0)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-7)  # half a unit of float16's last digit
    assert np.array_equal(streams["fine"]["v"].features, features)  # the cache's own stay as they are
    chosen = videos.batch([0], lambda length: uniform_rows(length, 3)).inputs["fine"].data
    assert np.array_equal(chosen.numpy(), found[uniform_rows(50, 3)])


def test_means_per_video(tmp_path: Path) -> None:
    videos = video_set(tmp_path, [2, 5, 3])
    packed = videos.batch([0, 1, 2]).inputs["coarse"]
    expected = [videos.features("coarse", i).astype(np.float64).mean(axis=0) for i in range(3)]
    assert np.allclose(mean_per_video(packed.data.double(), packed).numpy(), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_name_the_video(bad: float, tmp_path: Path) -> None:
    features = np.ones((3, 8))
    features[1, 2] = bad
    record = make_record("spoilt", 3, features=features)
    write_shard(tmp_path / "tiny_8", make_spec(), [record], tools=TOOLS)
    stream = FeatureCache(tmp_path)["tiny_8"]
    labels, first = np.ones((1, 1), np.bool_), np.zeros(1, np.int64)
    videos = VideoSet("train", {"fine": stream}, ("spoilt",), labels, first, multi_label=False)
    with pytest.raises(CacheError, match=r"'spoilt' in stream 'tiny_8'.*not finite"):
        videos.batch([0])


def both(cache: Path, fine_rows: int = 4, fine_fps: float = 1.0) -> FeatureCache:
    write_stream(cache, make_spec("coarse"), {"a": 4, "b": 4})
    write_stream(cache, make_spec("fine", sampling=Sampling(fps=fine_fps)), {"a": 4, "b": fine_rows})
    return FeatureCache(cache)


PAIR = {"coarse": "coarse", "fine": "fine"}
LABELS = LabelSet(Path("l.csv"), (VideoLabel("a", ("x",), "train"), VideoLabel("b", ("x",), "test")))


def annotated(**shown: list[Segment]) -> LabelSet:
    """Videos a to d, of which c and d are to be judged."""
    classes = {"a": ("run",), "b": ("run", "jump"), "c": ("jump", "run"), "d": ("jump",)}
    return LabelSet(
        Path("segments.csv"),
        tuple(
            VideoLabel(video, labels, "train" if video in "ab" else "test", tuple(shown.get(video, ())))
            for video, labels in classes.items()
        ),
    )


def test_training_sees_labels_alone(tmp_path: Path) -> None:
    """Segments of training videos change nothing: not what a method is given, nor the key of its run."""
    write_stream(tmp_path, make_spec("fine", dim=2), dict.fromkeys("abcd", 9), seed=0)
    cache = FeatureCache(tmp_path)
    config = UniformConfig(fine="fine")
    judged = {"c": [Segment("run", 1.5, 4.0), Segment("jump", 0.0, 2.5), Segment("run", 6, 7)]}
    variants = [
        {},
        {"a": [Segment("run", 0.0, 1.0)]},
        {"a": [Segment("run", 5.0, 8.0), Segment("run", 1, 2)], "b": [Segment("jump", 0, 8)]},
        {"b": [Segment("swim", -3.0, 1e9)]},  # not even a class that is no label
    ]
    opened = [open_dataset(cache, annotated(**judged, **shown), {"fine": "fine"}) for shown in variants]
    first = opened[0]
    for data in opened:
        assert data.train.segments == () and data.classes == ("jump", "run") and data.notes == first.notes
        assert data.digest() == first.digest() and key_of(config, data) == key_of(config, first)
        assert segments_digest(data.evaluation) == segments_digest(first.evaluation)
    shown, nothing = first.evaluation.segments
    assert shown.classes.tolist() == [1, 0, 1] and len(shown) == 3
    assert shown.spans.tolist() == [[1.5, 4.0], [0.0, 2.5], [6.0, 7.0]]
    assert len(nothing) == 0 and nothing.spans.shape == (0, 2)


def test_segments_to_judge_by_have_a_digest_of_their_own(tmp_path: Path) -> None:
    """Runs that are judged by labels are the same runs, whatever the segments are."""
    write_stream(tmp_path, make_spec("fine", dim=2), dict.fromkeys("abcd", 9), seed=0)
    cache = FeatureCache(tmp_path)
    labels = [
        annotated(),
        annotated(c=[Segment("run", 1, 2)]),
        annotated(c=[Segment("run", 1, 2.5)]),
        annotated(c=[Segment("jump", 1, 2)]),
        annotated(d=[Segment("jump", 1, 2)]),
    ]
    ambiguous = [replace(v, ambiguous=((0, 1),)) if v.video_id == "c" else v for v in labels[1].videos]
    labels.append(replace(labels[1], videos=tuple(ambiguous)))
    opened = [open_dataset(cache, one, {"fine": "fine"}) for one in labels]
    assert len({segments_digest(data.evaluation) for data in opened}) == len(labels)
    assert len({key_of(UniformConfig(fine="fine"), data) for data in opened}) == 1
    again = open_dataset(cache, labels[1], {"fine": "fine"}).evaluation
    assert segments_digest(again) == segments_digest(opened[1].evaluation)


def test_notes_on_segments(tmp_path: Path) -> None:
    """Those of the labels come first; what ends after the cached video, of 9 s, is counted."""
    write_stream(tmp_path, make_spec("fine", dim=2), dict.fromkeys("abcd", 9), seed=0)
    cache = FeatureCache(tmp_path)
    late = [Segment("run", 1, 9.9), Segment("run", 9, 14), Segment("jump", 20, 22)]
    labels = replace(annotated(a=late, c=late), notes=("the publisher's times are odd",))
    notes = open_dataset(cache, labels, {"fine": "fine"}).notes
    assert notes[0] == "the publisher's times are odd"
    assert "segments.csv: no segments, so that all that is found is wrong, in 1 video: 'd'" in notes
    beyond = (
        "segments that end after their video does in the cache: 2, latest of all in 'c': at 22.0 s of 9.0"
    )
    assert f"segments.csv: {beyond}" in notes
    without = open_dataset(cache, annotated(a=late), {"fine": "fine"}).notes
    assert not any("segments" in note for note in without)
    unknown = annotated(c=[Segment("swim", 1, 2)])
    with pytest.raises(
        LabelError, match="video 'c' has a segment of class 'swim', which no video has as label"
    ):
        open_dataset(cache, unknown, {"fine": "fine"})


def test_coarse_features_that_cost_more_than_fine_ones_are_a_warning(tmp_path: Path) -> None:
    for name, macs in (("small", 10**8), ("large", 2 * 10**9)):
        write_stream(tmp_path, make_spec(name, dim=2, macs_per_row=macs), dict.fromkeys("abcd", 9), seed=0)
    cache, labels = FeatureCache(tmp_path), annotated()
    roles = {"coarse": "small", "fine": "large"}
    assert not any("warning" in note for note in open_dataset(cache, labels, roles).notes)
    roles = {"coarse": "large", "fine": "small"}
    warning = "warning: the coarse stream large costs 2 GFLOPs a row, the fine one, small, 0.1: "
    assert f"{warning}are they the wrong way round?" in open_dataset(cache, labels, roles).notes


def test_a_video_with_ambiguous_spans_alone_is_judged_and_not_trained_on(tmp_path: Path) -> None:
    write_stream(tmp_path, make_spec("fine", dim=2), dict.fromkeys("abcdef", 9), seed=0)
    bare = [
        VideoLabel(video, (), subset, ambiguous=((1, 2),))
        for video, subset in (("e", "train"), ("f", "test"))
    ]
    labels = annotated(c=[Segment("run", 1, 2)])
    labels = replace(labels, videos=(*labels.videos, *bare))
    data = open_dataset(FeatureCache(tmp_path), labels, {"fine": "fine"})
    assert (data.train.ids, data.evaluation.ids) == (("a", "b"), ("c", "d", "f"))
    assert not data.evaluation.labels[2].any()
    assert data.evaluation.segments[2].ambiguous.tolist() == [[1.0, 2.0]]
    assert any("in 1 video: 'd'" in note for note in data.notes)


def test_streams_of_different_lengths_name_the_video(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="video 'b' has 4 rows in stream 'coarse' but 5 in 'fine'"):
        open_dataset(both(tmp_path, 5), LABELS, PAIR)


def test_a_video_without_fine_features_is_named(tmp_path: Path) -> None:
    write_stream(tmp_path, make_spec("coarse"), {"a": 4, "b": 4})
    write_stream(tmp_path, make_spec("fine"), {"a": 4})
    said = r"no features for 1 video of subset 'test': 'b' \(not in fine\); --skip-missing leaves"
    with pytest.raises(LabelError, match=said):
        open_dataset(FeatureCache(tmp_path), LABELS, PAIR)


def test_ids_that_each_stream_spells_otherwise(tmp_path: Path) -> None:
    write_stream(tmp_path, make_spec("coarse"), {"a": 4, "run/b": 4})
    write_stream(tmp_path, make_spec("fine"), {"a": 4, "b": 4})
    train, test = LABELS.videos
    labels = replace(LABELS, videos=(train, replace(test, aliases=("run/b",))))
    differing = (
        r"'b' \(its id differs between streams: 'run/b' in coarse, 'b' in fine; extract or import them"
    )
    with pytest.raises(LabelError, match=differing):
        open_dataset(FeatureCache(tmp_path), labels, PAIR)
    with pytest.raises(LabelError, match=differing):
        open_dataset(FeatureCache(tmp_path), labels, {"coarse": "coarse"}, pool=("coarse", "fine"))


def test_streams_of_different_sampling(tmp_path: Path) -> None:
    cache = both(tmp_path, fine_fps=2.0)
    with pytest.raises(CacheError, match="at 1 fps and frames at 2 fps"):
        open_dataset(cache, LABELS, PAIR)


def test_clips_are_at_no_rate(tmp_path: Path) -> None:
    write_stream(tmp_path, make_spec("coarse"), {"a": 4, "b": 4})
    clips = Sampling("clips", fps=0.0, frames=0, window=0, clips=4)
    write_stream(tmp_path, make_spec("fine", sampling=clips), {"a": 4, "b": 4})
    with pytest.raises(CacheError, match=r"\(frames at 1 fps and 4 rows a video, of unknown instants\)"):
        open_dataset(FeatureCache(tmp_path), LABELS, PAIR)


def test_streams_of_different_files(tmp_path: Path) -> None:
    write_stream(tmp_path, make_spec("coarse"), {"a": 4, "b": 4})
    records = [make_record("a", 4), replace(make_record("b", 4), fingerprint="of another file")]
    write_shard(tmp_path / "fine", make_spec("fine"), records, tools=TOOLS)
    with pytest.raises(CacheError, match="video 'b' was another file"):
        open_dataset(FeatureCache(tmp_path), LABELS, PAIR)
