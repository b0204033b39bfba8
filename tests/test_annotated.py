"""From annotated segments to what detections are compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cache_schema import FeatureCache
from cache_schema.annotations import LabelSet, Segment, VideoLabel
from policy.config import DataConfig
from policy.data.opening import open_dataset, segments_of
from policy.evaluation.annotated import ground_truth_of
from policy.evaluation.detection import GroundTruth
from tests.caches import make_spec, write_stream

CLASSES = ("jump", "run", "swim")
SPANS = st.tuples(st.floats(0, 50), st.floats(50, 99))
VIDEOS = st.lists(
    st.tuples(st.lists(st.tuples(st.sampled_from(CLASSES), SPANS)), st.lists(SPANS, max_size=2)), max_size=5
)


def rows(truth: GroundTruth) -> tuple[list[object], list[object]]:
    segments = zip(
        truth.videos.tolist(), truth.classes.tolist(), map(tuple, truth.spans.tolist()), strict=True
    )
    ambiguous = zip(truth.ambiguous_videos.tolist(), map(tuple, truth.ambiguous_spans.tolist()), strict=True)
    return list(segments), list(ambiguous)


@given(videos=VIDEOS)
def test_ground_truth_has_every_segment_in_order(
    videos: list[tuple[list[tuple[str, tuple[float, float]]], list[tuple[float, float]]]],
) -> None:
    labels = [
        VideoLabel(
            str(v),
            CLASSES,
            "test",
            tuple(Segment(label, *span) for label, span in shown),
            ambiguous=tuple(spans),
        )
        for v, (shown, spans) in enumerate(videos)
    ]
    truth = ground_truth_of(segments_of(labels, CLASSES))
    expected: list[object] = []
    ambiguous: list[object] = []
    for v, (shown, spans) in enumerate(videos):
        for label, span in shown:
            expected.append((v, CLASSES.index(label), span))
        for span in spans:
            ambiguous.append((v, span))
    assert rows(truth) == (expected, ambiguous)
    assert truth.videos.dtype == truth.classes.dtype == np.int64 and truth.spans.dtype == np.float64
    assert truth.spans.shape == (len(expected), 2) and truth.ambiguous_spans.shape == (len(ambiguous), 2)


def test_ground_truth_of_the_videos_in_a_cache(tmp_path: Path) -> None:
    labels = LabelSet(
        tmp_path / "segments.csv",
        (
            VideoLabel("gone", ("run",), "test", (Segment("run", 0, 1),)),
            VideoLabel("a", ("run", "jump"), "train", (Segment("run", 0, 1),)),
            VideoLabel(
                "b",
                ("run", "jump"),
                "test",
                (Segment("run", 2, 3), Segment("jump", 0, 1)),
                ambiguous=((4, 5),),
            ),
            VideoLabel("c", ("jump",), "test"),
            VideoLabel("d", (), "test", ambiguous=((0, 9),)),
        ),
    )
    write_stream(tmp_path, make_spec("fine", dim=2), dict.fromkeys("abcd", 9), seed=0)
    data = open_dataset(FeatureCache(tmp_path), labels, {"fine": "fine"}, DataConfig(skip_missing=True))
    assert data.evaluation.ids == ("b", "c", "d")
    assert rows(ground_truth_of(data.evaluation.segments)) == (
        [(0, 1, (2.0, 3.0)), (0, 0, (0.0, 1.0))],
        [(0, (4.0, 5.0)), (2, (0.0, 9.0))],
    )
