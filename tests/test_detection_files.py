"""Detections in files: what is written is read again, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema import LabelError, UserError
from cache_schema.annotations import Segment, VideoLabel
from policy.evaluation.detection import Detections
from policy.localization.detections import ground_truth, read, write_csv, write_json

CLASSES = ("Billiards", "Diving, high", 'the "long" jump')
VIDEOS = (
    VideoLabel("v_a", ("Billiards",), "test", aliases=("a",)),
    VideoLabel("video b", ("Billiards",), "test"),
    VideoLabel("ü", ("Billiards",), "test"),
)
IDS = [video.video_id for video in VIDEOS]
WRITERS = {"found.json": write_json, "found.csv": write_csv}


def detections_of(rows: list[tuple[int, int, float, float, float]]) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 5)
    indices = table[:, :2].astype(np.int64)
    return Detections(indices[:, 0], indices[:, 1], table[:, 2:4], table[:, 4])


SECONDS = st.floats(-1e6, 1e6)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 2),
        SECONDS,
        SECONDS,
        st.floats(allow_nan=False, allow_infinity=False),
    )
)


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=50)
@given(rows=ROWS)
def test_read_as_written(
    tmp_path_factory: pytest.TempPathFactory, name: str, rows: list[tuple[int, int, float, float, float]]
) -> None:
    """To the bit, by video."""
    path = tmp_path_factory.getbasetemp() / name
    rows = sorted(rows, key=lambda row: row[0])
    rows = [(video, label, min(a, b), max(a, b), score) for video, label, a, b, score in rows]
    written = detections_of(rows)
    WRITERS[name](path, written, IDS, CLASSES)
    found = read(path, VIDEOS, CLASSES)
    np.testing.assert_array_equal(found.videos, written.videos)
    np.testing.assert_array_equal(found.classes, written.classes)
    np.testing.assert_array_equal(found.spans, written.spans)
    np.testing.assert_array_equal(found.scores, written.scores)


def test_json_has_what_the_kit_of_activitynet_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_json(path, detections_of([(1, 0, 0.5, 2.0, 0.75)]), IDS, CLASSES)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert {"version", "results", "external_data"} <= set(content)
    assert content["results"] == {
        "v_a": [],
        "video b": [{"label": "Billiards", "score": 0.75, "segment": [0.5, 2.0]}],
        "ü": [],
    }


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    write_csv(path, detections_of([(1, 1, 0.5, 2.0, 0.75)]), IDS, CLASSES)
    text = path.read_text(encoding="utf-8")
    assert text == 'video_id,label,start_s,end_s,score\nvideo b,"Diving, high",0.5,2.0,0.75\n'


def test_aliases_and_numbers_as_text(tmp_path: Path) -> None:
    """ActivityNet's JSON names videos without the v_ of their files, and some write numbers as texts."""
    path = tmp_path / "found.json"
    detection = {"label": "Billiards", "score": "0.5", "segment": ["1", "2.5"]}
    path.write_text(json.dumps({"results": {"a": [detection]}}), encoding="utf-8-sig")
    found = read(path, VIDEOS, CLASSES)
    assert found.videos.tolist() == [0]
    assert found.spans.tolist() == [[1, 2.5]]


def good() -> dict[str, Any]:
    return {"label": "Billiards", "score": 0.5, "segment": [1, 2]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "detection 2: the score is nan, which is not a finite number"),
        ({"score": float("inf")}, "detection 2: the score is inf"),
        ({"score": None}, "detection 2: the score is None"),
        ({"score": True}, "detection 2: the score is True"),
        ({"score": 10**400}, "detection 2: the score is 1000"),
        ({"score": "much"}, "detection 2: the score is 'much'"),
        ({"segment": [2, 1]}, "detection 2: the end, 1 s, is before the start, 2 s"),
        ({"segment": [2, "x"]}, "detection 2: the end is 'x'"),
        ({"segment": [2]}, "detection 2: not as in"),
        ({"segment": 2}, "detection 2: not as in"),
        ({"segment": [[1], 2]}, r"detection 2: the start is \[1\]"),
        ({"label": "Billard"}, "detection 2: 'Billard' is not one of the 3 classes"),
        ({"label": 0}, "detection 2: 0 is not one of the 3 classes"),
        ({"label": ["Billiards"]}, "detection 2: .* is not one of the 3 classes"),
    ],
)
def test_wrong_detections_in_json(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"results": {"video b": [good(), {**good(), **change}]}}))
    with pytest.raises(UserError, match=f"found.json, video 'video b', {message}"):
        read(path, VIDEOS, CLASSES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"results": ' + "1" * 5000 + "}", "not JSON"),
        ("[]", "no detections in ActivityNet's form"),
        ('{"database": {}}', "no detections in ActivityNet's form"),
        ('{"results": []}', "no detections in ActivityNet's form"),
        ('{"results": {"ü": {}}}', "video 'ü': not a list of detections"),
        ('{"results": {"ü": [3]}}', "video 'ü', detection 1: not as in"),
        ('{"results": {"ü": [{}]}}', "video 'ü', detection 1: not as in .*'segment'"),
        ('{"results": {"ü": [], "v_a": [], "ü": []}}', "'ü' occurs twice"),
    ],
)
def test_wrong_json(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "found.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        read(path, VIDEOS, CLASSES)
    assert str(error.value).startswith(str(path))


HEADER = "video_id,label,start_s,end_s,score\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'video_id'"),
        ("video_id,label,start_s,end_s\nü,Billiards,1,2\n", "no column 'score'"),
        (HEADER + "ü,Billiards,1,2,0.5\nü,Billiards,1,2,nan\n", "line 3: the score is 'nan'"),
        (HEADER + "ü,Billiards,1,2\n", "line 2: the score is ''"),
        (HEADER + "ü,Billiards,1,,1\n", "line 2: the end is ''"),
        (HEADER + "ü,Billiards,2,1,1\n", "line 2: the end, 1 s, is before the start, 2 s"),
        (HEADER + "ü,Diving,1,2,1\n", "line 2: 'Diving' is not one of the 3 classes"),
        (HEADER + "ü,Diving, high,1,2,1\n", "line 2: more values than columns"),
        (HEADER + "ü,Billiards,1,2,1,7\n", "line 2: more values than columns"),
        (HEADER + 'ü,"Billiards,1,2,1\n', "line 2: not CSV"),
        (HEADER + "x,Billiards,1,2,1\n", "line 2: video 'x' is not in the .*, whose ids are such as 'v_a'$"),
        (HEADER + "".join(f"{v},Billiards,1,2,1\n" for v in "xyxz"), "video 'x' .*, nor are 2 others$"),
    ],
)
def test_wrong_csv(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "found.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        read(path, VIDEOS, CLASSES)
    assert str(error.value).startswith(str(path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read(tmp_path / "found.json", VIDEOS, CLASSES)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read(tmp_path / "folder.csv", VIDEOS, CLASSES)
    with pytest.raises(UserError, match=r"from a \.json file"):
        read(tmp_path / "found.pkl", VIDEOS, CLASSES)
    for name in WRITERS:
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UserError, match="not a text file in UTF-8"):
            read(tmp_path / name, VIDEOS, CLASSES)


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_written_halfway(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        WRITERS[name](tmp_path / "missing" / name, detections_of([]), IDS, CLASSES)
    path = tmp_path / name
    path.write_text("before")
    with pytest.raises(IndexError):
        WRITERS[name](path, detections_of([(0, 0, 0, 1, 1), (7, 0, 0, 1, 1)]), IDS, CLASSES)
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_ground_truth() -> None:
    videos = (
        VideoLabel("v", ("b",), "test", (Segment("b", 1, 2), Segment("a", 0, 5)), ambiguous=((7.0, 8.0),)),
        VideoLabel("w", ("a",), "test"),
        VideoLabel("x", ("a",), "test", (Segment("a", 3, 4),)),
    )
    truth = ground_truth(videos, ("a", "b"))
    assert truth.videos.tolist() == [0, 0, 2]
    assert truth.classes.tolist() == [1, 0, 0]
    assert truth.spans.tolist() == [[1, 2], [0, 5], [3, 4]]
    assert truth.ambiguous_videos.tolist() == [0]
    assert truth.ambiguous_spans.tolist() == [[7, 8]]
    assert ground_truth((), ("a",)).spans.shape == (0, 2)
    with pytest.raises(LabelError, match="video 'v': the label 'b'"):
        ground_truth(videos, ("a",))
