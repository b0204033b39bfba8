"""Annotations with segments, in the layouts in which they are published and as CSV, and what may be wrong there.

THRIFTVID_DATA names a folder with the published files themselves; without it the tests of those are skipped.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache_schema.annotations import LabelSet, read_labels
from cache_schema.annotations.multithumos import CLASSES as MULTITHUMOS_CLASSES
from cache_schema.annotations.thumos14 import CLASSES
from cache_schema.annotations.thumos14_sets import NOT_EVALUATED, VIDEO_SETS, missing_of_set, of_set
from cache_schema.annotations.video_names import without_ending
from cache_schema.errors import LabelError

PUBLISHED = os.environ.get("THRIFTVID_DATA")
needs_published_files = pytest.mark.skipif(not PUBLISHED, reason="THRIFTVID_DATA names no folder")
DISPUTED = ("video_test_0000270", "video_test_0001292", "video_test_0001496")

Shown = dict[str, list[tuple[str, float, float]]]


def shown(labels: LabelSet) -> Shown:
    return {v.video_id: [(s.label, s.start_s, s.end_s) for s in v.segments] for v in labels.videos}


def subsets(labels: LabelSet) -> dict[str, str]:
    return {v.video_id: v.subset for v in labels.videos}


def plain_thumos(folder: Path, split: str) -> tuple[Shown, dict[str, list[tuple[float, float]]]]:
    """Segments and ambiguous spans of the publisher's files, read line by line."""
    segments: Shown = {}
    ambiguous: dict[str, list[tuple[float, float]]] = {}
    for label in (*CLASSES, "Ambiguous"):
        for line in (folder / f"{label}_{split}.txt").read_text().splitlines():
            video, start, end = line.split()
            if label == "Ambiguous":
                ambiguous.setdefault(video, []).append((float(start), float(end)))
            else:
                segments.setdefault(video, []).append((label, float(start), float(end)))
    return segments, ambiguous


def write_thumos(folder: Path) -> Path:
    """The publisher's two folders: each class has a validation and a test video of its own."""
    for split, name, below in (
        ("val", "validation", "TH14_Temporal_annotations_validation/annotation"),
        ("test", "test", "TH14_Temporal_Annotations_Test/annotations/annotation"),
    ):
        (folder / below).mkdir(parents=True)
        for number, label in enumerate(CLASSES):
            lines = f"video_{name}_{number:07d}  1.5 {number + 2}.0\n"
            (folder / below / f"{label}_{split}.txt").write_text(lines)
        (folder / below / f"Ambiguous_{split}.txt").write_text(f"video_{name}_0000003  0.0 0.5\n")
    tests = folder / "TH14_Temporal_Annotations_Test/annotations/annotation"
    with (tests / "HammerThrow_test.txt").open("a") as file:
        file.write("video_test_0000270  10.0 11.0\n\n")
    with (tests / "CricketShot_test.txt").open("a") as file:
        file.write("video_test_0001496 19.7 21.1\nvideo_test_0000003 2 3\n")
    with (tests / "Ambiguous_test.txt").open("a") as file:
        file.write("video_test_0001292  1 2\n")
    (tests / "detclasslist.txt").write_text("7 BaseballPitch\n")
    return folder


def test_thumos_as_its_publisher_has_it(tmp_path: Path) -> None:
    labels = read_labels(write_thumos(tmp_path))
    segments = shown(labels)
    assert len(segments) == 2 * 20 + 3
    assert segments["video_validation_0000004"] == [("CliffDiving", 1.5, 6.0)]
    assert segments["video_test_0000003"] == [("CleanAndJerk", 1.5, 5.0), ("CricketShot", 2.0, 3.0)]
    by_id = {video.video_id: video for video in labels.videos}
    assert by_id["video_test_0000003"].labels == ("CleanAndJerk", "CricketShot")
    assert by_id["video_test_0000003"].ambiguous == ((0.0, 0.5),)
    only_ambiguous = by_id["video_test_0001292"]
    assert (only_ambiguous.labels, only_ambiguous.segments) == ((), ())
    assert only_ambiguous.ambiguous == ((1.0, 2.0),)
    assert Counter(subsets(labels).values()) == {"train": 20, "test": 20, f"test{NOT_EVALUATED}": 3}
    assert labels.classes == CLASSES


@pytest.mark.parametrize("name", VIDEO_SETS)
def test_sets_of_test_videos(name: str, tmp_path: Path) -> None:
    """Each leaves out what it says, and says so; the others stay known, whatever set they were read for."""
    write_thumos(tmp_path)
    labels = read_labels(tmp_path, name)
    out = {v for v, subset in subsets(labels).items() if subset == f"test{NOT_EVALUATED}"}
    assert out == set(VIDEO_SETS[name]) and len(labels.videos) == 43
    assert len(labels.judged("test")) == 20 + 3 - len(out) == int(name[-3:]) - 190
    assert len(labels.subset("train")) == 20
    (*_, said) = labels.notes or ("",)
    assert all(f"{video} ({reason})" in said for video, reason in VIDEO_SETS[name].items())
    for other in VIDEO_SETS:
        assert of_set(labels, other).videos == read_labels(tmp_path, other).videos
    assert read_labels(tmp_path).videos == read_labels(tmp_path, "thumos14-210").videos


def test_a_set_whose_videos_are_not_annotated(tmp_path: Path) -> None:
    labels = read_labels(write_json(tmp_path, database()))
    assert missing_of_set(labels, "thumos14-213") == list(DISPUTED)
    assert missing_of_set(labels, "thumos14-210") == []
    with pytest.raises(
        LabelError, match=r"of video_test_0001292, which the set thumos14-211 has; choose thumos14-210$"
    ):
        read_labels(tmp_path / "gt.json", "thumos14-211")
    validation = {k: v for k, v in database().items() if "validation" in k}
    assert not missing_of_set(read_labels(write_json(tmp_path, validation)), "thumos14-213")


THUMOS_FOLDER = "TH14_Temporal_annotations_validation/annotation"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Diving_val.txt", None, r"no Diving_val.txt, which the others"),
        ("Surfing_val.txt", "", r"Surfing_val.txt: Surfing is no class of THUMOS'14"),
        ("Diving_val.txt", "video_validation_0000001 1\n", r"Diving_val.txt, line 1: .* is not 'VIDEO START END'"),
        ("Diving_val.txt", "\nvideo_validation_0000001 1 x\n", r"Diving_val.txt, line 2: .* is not 'VIDEO START"),
        ("Diving_val.txt", "video_validation_0000001 1 inf\n", r"Diving_val.txt, line 1: .* is not 'VIDEO START"),
        ("Diving_val.txt", "video_validation_0000001 nan 2\n", r"Diving_val.txt, line 1: .* is not 'VIDEO START"),
        ("Diving_val.txt", "video_test_0000001 1 2\n", r"line 1: 'video_test_0000001' is no video .* this file"),
        ("Diving_val.txt", "v_QOlSCBRmfWY 1 2\n", r"Diving_val.txt, line 1: 'v_QOlSCBRmfWY' is no video of"),
        ("Ambiguous_val.txt", "video_validation_0000001\n", r"Ambiguous_val.txt, line 1: .* is not 'VIDEO"),
        ("Diving_val.txt", "caf\udce9 1 2\n", r"Diving_val.txt: not a text file in UTF-8"),
        ("test/Diving_val.txt", "", r"both .*Diving_val.txt and .*Diving_val.txt; name a folder with one"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_of_thumos(
    name: str, text: str | None, message: str, tmp_path: Path
) -> None:
    path = write_thumos(tmp_path) / THUMOS_FOLDER / name
    if text is None:
        path.unlink()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(LabelError, match=message) as caught:
        read_labels(tmp_path)
    assert "\n" not in str(caught.value)


def test_times_of_thumos_that_are_wrong_are_named(tmp_path: Path) -> None:
    path = write_thumos(tmp_path) / THUMOS_FOLDER
    (path / "Diving_val.txt").write_text("video_validation_0000001 5 5\nvideo_validation_0000002 -1 2\n")
    (path / "Ambiguous_val.txt").unlink()
    labels = read_labels(tmp_path)
    assert shown(labels)["video_validation_0000001"] == [("BasketballDunk", 1.5, 3.0)]
    assert ("Diving", -1.0, 2.0) in shown(labels)["video_validation_0000002"]
    assert {v.video_id: v.labels for v in labels.videos}["video_validation_0000001"][1] == "Diving"
    absent, empty, early, _ = labels.notes
    assert "no Ambiguous_val.txt" in absent
    assert "left out, 1 in all: 1 of 'video_validation_0000001' (Diving from 5 to 5 s)" in empty
    assert (
        "start before their video, 1 in all: 1 of 'video_validation_0000002' (Diving from -1 to 2 s)" in early
    )


def annotation(label: str, start: object, end: object) -> dict[str, object]:
    return {"label": label, "segment": [start, end]}


def database() -> dict[str, Any]:
    return {
        "video_test_0000004": {"subset": "test", "annotations": [annotation("Diving", "1.5", "2.5")]},
        "video_validation_0000051": {
            "subset": "train",
            "annotations": [annotation("HighJump", "0.1", "7"), annotation("Diving", "3", "4.0")],
        },
    }


def write_json(folder: Path, videos: dict[str, Any], name: str = "gt.json") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"version": "THUMOS14", "database": videos}))
    return folder / name


def test_thumos_as_json(tmp_path: Path) -> None:
    file = write_json(tmp_path, database())
    for path in (file, tmp_path):
        labels = read_labels(path)
        assert shown(labels) == {
            "video_test_0000004": [("Diving", 1.5, 2.5)],
            "video_validation_0000051": [("HighJump", 0.1, 7.0), ("Diving", 3.0, 4.0)],
        }
        assert list(subsets(labels).values()) == ["test", "train"]
        assert "no ambiguous spans" in labels.notes[0]
    # The publisher's files have more to say.
    write_thumos(tmp_path)
    assert len(read_labels(tmp_path).videos) == 43 and len(read_labels(file).videos) == 2


def test_thumos_as_json_of_others(tmp_path: Path) -> None:
    """ActionFormer's has durations and frames, OpenTAD's also the ambiguous spans; both call subsets otherwise."""
    videos = {
        "video_validation_0000051": {
            "subset": "Validation",
            "duration": 6.5,
            "fps": 30.0,
            "annotations": [{**annotation("HighJump", 0.1, 7), "label_id": 3}],
        },
        "video_test_0000004": {
            "subset": "validation",
            "duration": "9",
            "annotations": [annotation("Ambiguous", 3, 4), annotation("Diving", 1, 2)],
        },
    }
    labels = read_labels(write_json(tmp_path, videos, "thumos14.json"))
    assert list(subsets(labels).values()) == ["train", "test"]
    assert [v.ambiguous for v in labels.videos] == [(), ((3.0, 4.0),)]
    assert labels.classes == ("Diving", "HighJump")
    late, _ = labels.notes
    assert (
        "end after their video, 1 in all: 1 of 'video_validation_0000051' (HighJump from 0.1 to 7 s, of 6.5)"
        in late
    )


def test_split_files_say_which_videos_of_the_json_are_used(tmp_path: Path) -> None:
    more = {"video_test_0000005": {"subset": "test", "annotations": [annotation("Diving", 1, 2)]}}
    file = write_json(tmp_path, {**database(), **more})
    (tmp_path / "split_test.txt").write_text("video_test_0000005\n")
    (tmp_path / "split_train.txt").write_text("video_validation_0000051\n")
    labels = read_labels(file)
    assert list(shown(labels)) == ["video_validation_0000051", "video_test_0000005"]
    assert any("split_test.txt: lists 1 of 2 annotated videos" in note for note in labels.notes)
    (tmp_path / "split_test.txt").write_text("video_test_0000005\n\nvideo_test_0000006\n")
    with pytest.raises(LabelError, match=r"split_test.txt, line 3: 'video_test_0000006' is no test video"):
        read_labels(file)


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ({"video_test_0000004": {"subset": "test"}}, r"'video_test_0000004' is not annotated"),
        ({"video_test_0000004": {"annotations": []}}, r"'video_test_0000004' is not annotated"),
        ({"video_test_0000004": 3}, r"'video_test_0000004' is not annotated"),
        (
            {"video_test_0000004": {"subset": "test", "annotations": [annotation("Diving", "1", "NaN")]}},
            r"not annotated .*'NaN' is no time",
        ),
        (
            {"video_test_0000004": {"subset": "test", "annotations": [annotation("Diving", 1, [2])]}},
            r"not annotated",
        ),
        (
            {"video_test_0000004": {"subset": "test", "duration": "long", "annotations": []}},
            r"not annotated",
        ),
        (
            {"video_test_0000004": {"subset": "test", "annotations": [annotation("Surfing", 1, 2)]}},
            r"'video_test_0000004' has class 'Surfing', which is none of the benchmark's",
        ),
        ({"video_test_0000004": {"subset": "train", "annotations": []}}, r"in subset 'train', but its name"),
        (
            {"v_QOlSCBRmfWY": {"subset": "test", "annotations": []}},
            r"'v_QOlSCBRmfWY' is no video of THUMOS'14",
        ),
    ],
)
def test_what_is_wrong_with_a_json_of_thumos(videos: dict[str, Any], message: str, tmp_path: Path) -> None:
    first = {"video_test_0000001": {"subset": "test", "annotations": [annotation("Diving", 1, 2)]}}
    with pytest.raises(LabelError, match=message) as caught:
        read_labels(write_json(tmp_path, {**first, **videos}), "thumos14")
    assert "\n" not in str(caught.value)


def multithumos() -> dict[str, Any]:
    return {
        "video_validation_0000001": {
            "subset": "training",
            "duration": 10.0,
            "actions": [[21, 1.0, 2.5], [1, 3.0, 3.0], [65, 8.0, 10.25]],
        },
        "video_test_0000001": {"subset": "testing", "duration": 9.0, "actions": [[65, 0.0, 1.0]]},
    }


def test_multithumos(tmp_path: Path) -> None:
    (tmp_path / "multithumos.json").write_text(json.dumps(multithumos()))
    for path in (tmp_path, tmp_path / "multithumos.json"):
        labels = read_labels(path)
        assert shown(labels) == {
            "video_validation_0000001": [("Walk", 1.0, 2.5), ("NoHuman", 8.0, 10.25)],
            "video_test_0000001": [("NoHuman", 0.0, 1.0)],
        }
        assert labels.videos[0].labels == ("Walk", "BaseballPitch", "NoHuman")
        assert list(subsets(labels).values()) == ["training", "testing"]
        empty, late = labels.notes
        assert "left out, 1 in all: 1 of 'video_validation_0000001' (BaseballPitch from 3 to 3 s)" in empty
        assert (
            "after their video, 1 in all: 1 of 'video_validation_0000001' (NoHuman from 8 to 10.25 s, of 10)"
            in late
        )
    assert len(set(MULTITHUMOS_CLASSES)) == 65


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"actions": [[66, 1, 2]]}, r"class 66, but MultiTHUMOS numbers classes from 1 to 65"),
        ({"actions": [[0, 1, 2]]}, r"class 0, but"),
        ({"actions": [[True, 1, 2]]}, r"class True, but"),
        ({"actions": [["Walk", 1, 2]]}, r"class 'Walk', but"),
        ({"actions": [[1, 1]]}, r"'video_test_0000002' is not annotated as in MultiTHUMOS"),
        ({"actions": [[1, 1, float("inf")]]}, r"is not annotated .*inf is no time"),
        ({"actions": None}, r"is not annotated as in MultiTHUMOS"),
        ({"duration": None, "actions": []}, r"is not annotated as in MultiTHUMOS"),
    ],
)
def test_what_is_wrong_with_a_file_of_multithumos(
    entry: dict[str, Any], message: str, tmp_path: Path
) -> None:
    videos = {**multithumos(), "video_test_0000002": {"subset": "testing", "duration": 9.0, **entry}}
    (tmp_path / "any.json").write_text(json.dumps(videos))
    with pytest.raises(LabelError, match=message):
        read_labels(tmp_path / "any.json")


def array_of_lists(*elements: object) -> npt.NDArray[Any]:
    array = np.empty(len(elements), object)
    for place, element in enumerate(elements):
        array[place] = element
    return array


def write_wtalc(folder: Path, **changed: Any) -> Path:
    """Four videos; None: without that array."""
    arrays: dict[str, Any] = {
        "videoname": np.array([
            b"video_validation_0000001", b"video_test_0000001", b"video_test_0000270", b"video_test_0001496",
        ]),
        "subset": np.array([b"validation", b"test", b"test", b"test"]),
        "classlist": np.array([b"Diving", b"HighJump", b"Shotput"]),
        "labels_all": array_of_lists(["Diving", "Shotput"], ["Diving"], [], ["Shotput"]),
        "labels": array_of_lists(["Diving", "Diving"], ["HighJump"], ["Shotput"], ["Shotput"]),
        "segments": array_of_lists([[1.5, 2.0], (3, 4.25)], [[0.0, 9.5]], [[1.0, 2.0]], np.array([[1.0, 2.0]])),
        "duration": np.array([[9.0], [9.0], [9.0], [9.0]]),
        **changed,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    (folder / "Ambiguous_test.txt").write_text("video_test_0000001  5.0 6.0\n")
    return folder


def test_wtalc(tmp_path: Path) -> None:
    labels = read_labels(write_wtalc(tmp_path))
    assert shown(labels) == {
        "video_validation_0000001": [("Diving", 1.5, 2.0), ("Diving", 3.0, 4.25)],
        "video_test_0000001": [("HighJump", 0.0, 9.5)],
        "video_test_0000270": [("Shotput", 1.0, 2.0)],
        "video_test_0001496": [("Shotput", 1.0, 2.0)],
    }
    assert [v.labels for v in labels.videos] == [
        ("Diving", "Shotput"),
        ("Diving",),
        ("Shotput",),
        ("Shotput",),
    ]
    assert [v.ambiguous for v in labels.videos] == [(), ((5.0, 6.0),), (), ()]
    assert list(subsets(labels).values()) == ["train", "test", *[f"test{NOT_EVALUATED}"] * 2]
    differing, late, sets = labels.notes
    assert "for 3 of 4 videos" in differing and differing.endswith("taken: video_test_0000270")
    assert "1 of 'video_test_0000001' (HighJump from 0 to 9.5 s, of 9)" in late
    assert "thumos14-210 leaves out video_test_0000270" in sets
    assert len(read_labels(tmp_path, "wtalc-212").judged("test")) == 3


class Call:
    def __reduce__(self) -> Any:
        return os.system, ("touch canary",)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"segments": None}, r"segments.npy: cannot be read: No such file"),
        ({"duration": np.zeros((3, 1))}, r"duration.npy: of 3 videos, where videoname.npy has 4"),
        ({"subset": np.array(b"test")}, r"subset.npy: a single value"),
        (
            {"labels_all": array_of_lists(Call(), [], [], [])},
            r"labels_all.npy: refused, .* '(posix|nt).system'",
        ),
        (
            {"labels_all": array_of_lists(["Surfing"], [], [], [])},
            r"0000001' has class 'Surfing', which is none",
        ),
        ({"labels_all": array_of_lists([3], [], [], [])}, r"video 0 .* layout: int where a name should be"),
        ({"labels_all": array_of_lists([], [], [], None)}, r"video 3 .* is not annotated"),
        (
            {"labels": array_of_lists(["Diving"], ["Diving"], ["Diving"], ["Diving"])},
            r"video 0 .* not annotated",
        ),
        ({"segments": array_of_lists([[1, 2], [3]], [], [], [])}, r"video 0 .* not annotated"),
        ({"segments": array_of_lists([[1, 2], [3, np.nan]], [], [], [])}, r"video 0 .* is no time"),
        ({"segments": array_of_lists([[1, 2], [3, "x"]], [], [], [])}, r"video 0 .* not annotated"),
        ({"duration": array_of_lists([9], [], [], [])}, r"video 1 .* not annotated"),
        ({"videoname": np.array([b"a", b"\xff", b"c", b"d"])}, r"video 1 .* not annotated"),
        ({"videoname": np.array([b"a", b"b", b"a", b"d"])}, r"video 'a' occurs twice"),
    ],
)
def test_what_is_wrong_with_a_folder_of_wtalc(
    changed: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabelError, match=message) as caught:
        read_labels(write_wtalc(tmp_path / "annotations", **changed))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "canary").exists()


def test_the_files_of_another_benchmark(tmp_path: Path) -> None:
    (tmp_path / "anet.json").write_text(
        json.dumps({"database": {"QOlSCBRmfWY": {"subset": "training", "annotations": []}}})
    )
    for name, message in (
        ("thumos14", r"expected the annotations of THUMOS'14: a folder with BaseballPitch_test.txt"),
        ("multithumos", r"video 'database' is not annotated as in MultiTHUMOS"),
        ("wtalc", r"expected W-TALC's annotations: a folder with videoname, "),
    ):
        with pytest.raises(LabelError, match=message):
            read_labels(tmp_path / "anet.json", name)
    for name in ("thumos14", "wtalc", "multithumos", "activitynet"):
        with pytest.raises(LabelError):
            read_labels(tmp_path, name)
    (tmp_path / "many.json").write_text(json.dumps(multithumos()))
    with pytest.raises(LabelError, match=r'not an annotation file of ActivityNet: it has no "database"'):
        read_labels(tmp_path / "many.json", "activitynet")


def test_segments_of_activitynet(tmp_path: Path) -> None:
    videos = {
        "xx": {
            "subset": "training",
            "duration": 9.5,
            "annotations": [annotation("Polo", 1, 2), annotation("Polo", 4, 12), annotation("Curling", 3, 3)],
        },
        "yy": {"subset": "validation", "duration": 5, "annotations": [annotation("Polo", -0.5, 2)]},
        "zz": {"subset": "testing", "duration": 5, "annotations": []},
    }
    labels = read_labels(write_json(tmp_path, videos, "activity_net.v1-3.min.json"))
    assert shown(labels) == {
        "v_xx": [("Polo", 1.0, 2.0), ("Polo", 4.0, 12.0)],
        "v_yy": [("Polo", -0.5, 2.0)],
        "v_zz": [],
    }
    assert labels.videos[0].labels == ("Polo", "Curling")
    empty, early, late = labels.notes
    assert "1 of 'v_xx' (Curling from 3 to 3 s)" in empty
    assert "1 of 'v_yy' (Polo from -0.5 to 2 s)" in early
    assert "1 of 'v_xx' (Polo from 4 to 12 s, of 9.5)" in late
    with pytest.raises(LabelError, match=r"video 'yy' is not annotated as in ActivityNet: .*nan is no time"):
        videos["yy"]["annotations"] = [annotation("Polo", float("nan"), 2)]
        read_labels(write_json(tmp_path, videos))


def test_many_wrong_segments_are_a_short_note(tmp_path: Path) -> None:
    videos = {
        f"v{k}": {"subset": "training", "duration": 5, "annotations": [annotation("Polo", 1, 6 + k)] * 2}
        for k in range(5)
    }
    (late,) = read_labels(write_json(tmp_path, videos)).notes
    assert "10 in all: 2 of 'v_v4' (Polo from 1 to 10 s, of 5), 2 of 'v_v3'" in late and late.endswith(
        "of 5), …"
    )


def write_csv(folder: Path, text: str) -> Path:
    (folder / "segments.csv").write_text(text, encoding="utf-8")
    return folder / "segments.csv"


def test_a_csv_of_segments(tmp_path: Path) -> None:
    text = (
        "\ufeffvideo_id, start_s,end_s,label,subset,remark\n"
        "a,1.5,4,run,train,\n"
        'b,0,2,"jump, high",test,"x"\n'
        "\n"
        "a,0,3,jump,train,\n"
        "c,,,run,train,labelled as a whole\n"
        "a,2,4,run,train,\n"
    )
    labels = read_labels(write_csv(tmp_path, text))
    assert shown(labels) == {
        "a": [("run", 1.5, 4.0), ("jump", 0.0, 3.0), ("run", 2.0, 4.0)],
        "b": [("jump, high", 0.0, 2.0)],
        "c": [],
    }
    assert [v.labels for v in labels.videos] == [("run", "jump"), ("jump, high",), ("run",)]
    assert subsets(labels) == {"a": "train", "b": "test", "c": "train"}


def test_a_csv_without_subsets_is_to_judge_by(tmp_path: Path) -> None:
    labels = read_labels(write_csv(tmp_path, 'label,video_id,"end_s","start_s"\r\nrun,a,2,1\r\n'))
    assert shown(labels) == {"a": [("run", 1.0, 2.0)]} and labels.subsets == ("test",)


HEADER = "video_id,start_s,end_s,label,subset\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_id,start_s,end_s\n", r"segments.csv: no column 'label'; the first line must be video_id,"),
        ("video_id,start_s,end_s,label,label\n", r"two columns 'label'"),
        (HEADER, r"segments.csv: no videos in it"),
        (HEADER + "a,1,2,run\n", r"line 2: no subset for video 'a'"),
        (HEADER + "a,1,2,run,fast,train\n", r"line 2: 6 fields, not the 5 of .* ',' in it needs quotes"),
        (HEADER + "a,1,2,,train\n", r"line 2: no label for video 'a'"),
        (HEADER + ",1,2,run,train\n", r"line 2: no video_id for video '\(unnamed\)'"),
        (HEADER + "a,1,2,run, \n", r"line 2: no subset for video 'a'"),
        (
            HEADER + "a,1,2,run,train\na,3,4,run,test\n",
            r"line 3: .* of subset 'test', but of 'train' in line 2",
        ),
        (HEADER + "a,1,2,run,train\n\na,1.0,2,run,train\n", r"line 4: the segment of line 2 again"),
        (HEADER + "a,2,1,run,train\n", r"line 2: from 2 to 1 s is no segment: it must start at 0 s or later"),
        (HEADER + "a,1,1,run,train\n", r"line 2: from 1 to 1 s is no segment"),
        (HEADER + "a,-1,1,run,train\n", r"line 2: from -1 to 1 s is no segment"),
        (HEADER + "a,1,,run,train\n", r"line 2: from '1' to '' s is no segment"),
        (HEADER + "a,0:01,0:02,run,train\n", r"line 2: from '0:01' to '0:02' s is no segment"),
        (HEADER + "a,nan,2,run,train\n", r"line 2: from 'nan' to '2' s is no segment"),
        (HEADER + "a,1,1e999,run,train\n", r"line 2: from '1' to '1e999' s is no segment"),
        (HEADER + 'a,1,2,run,train\nb,1,2,"run,train\n', r"line 3: not CSV"),
        ('video_id,start_s,end_s,label,"subset\n', r"line 1: not CSV"),
    ],
)
def test_what_is_wrong_with_a_csv_of_segments(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        read_labels(write_csv(tmp_path, text))
    assert "\n" not in str(caught.value)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda name: name == name.strip() and name == without_ending(name)
)
TIMES = st.tuples(st.floats(0, 1e6), st.floats(1e-3, 1e6)).filter(lambda span: span[0] + span[1] > span[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    videos=st.dictionaries(
        NAMES,
        st.tuples(NAMES, st.lists(st.tuples(NAMES, TIMES), min_size=1, unique=True)),
        min_size=1,
        max_size=4,
    )
)
def test_what_a_csv_says_is_read(videos: dict[str, Any], tmp_path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["video_id", "start_s", "end_s", "label", "subset"])
    expected: Shown = {}
    for video, (subset, segments) in videos.items():
        for label, (start, length) in segments:
            writer.writerow([video, repr(start), repr(start + length), label, subset])
        expected[video] = list(dict.fromkeys((label, s, s + length) for label, (s, length) in segments))
        if len(expected[video]) < len(segments):
            return  # the same segment by rounding, which is an error
    labels = read_labels(write_csv(tmp_path, text.getvalue()))
    assert shown(labels) == expected
    assert subsets(labels) == {video: subset for video, (subset, _) in videos.items()}


@needs_published_files
@pytest.mark.parametrize("path", ["thumos14", "thumos14/test", "thumos14/validation"])
def test_thumos_as_published(path: str) -> None:
    folder = Path(str(PUBLISHED)) / "thumos14"
    labels = read_labels(Path(str(PUBLISHED)) / path, "thumos14-213" if "test" in path else None)
    splits = [split for split in ("validation", "test") if path in {"thumos14", f"thumos14/{split}"}]
    expected: Shown = {}
    ambiguous: dict[str, list[tuple[float, float]]] = {}
    for split in splits:
        segments, spans = plain_thumos(folder / split, split.removesuffix("idation"))
        expected |= {video: segments.get(video, []) for video in {*segments, *spans}}
        ambiguous |= spans
    assert shown(labels) == expected
    assert {v.video_id: list(v.ambiguous) for v in labels.videos if v.ambiguous} == ambiguous
    assert len(labels.videos) == sum({"validation": 200, "test": 213}[split] for split in splits)


@needs_published_files
def test_sets_of_thumos_as_published() -> None:
    path = Path(str(PUBLISHED)) / "thumos14"
    for name in VIDEO_SETS:
        labels = read_labels(path, name)
        assert (len(labels.subset("train")), len(labels.judged("test"))) == (
            200,
            int(name.removeprefix("thumos14-")),
        )
    only_ambiguous = [v.video_id for v in read_labels(path).videos if not v.segments]
    assert only_ambiguous == ["video_test_0001292"]
    json_labels = read_labels(path / "gt.json")
    full = shown(read_labels(path))
    assert {v: sorted(s) for v, s in shown(json_labels).items()} == {
        v: sorted(s) for v, s in full.items() if v not in DISPUTED
    }
    assert list(subsets(json_labels).values()).count("test") == 210


@needs_published_files
def test_wtalc_as_published() -> None:
    """Against numpy, which unpickles; its segments are THUMOS'14's."""
    path = Path(str(PUBLISHED)) / "wtalc_thumos14reduced"
    labels = read_labels(path)
    arrays = {
        name: np.load(path / f"{name}.npy", allow_pickle=True, encoding="latin1")
        for name in ("videoname", "labels_all", "labels", "segments")
    }
    names = [name.decode() for name in arrays["videoname"]]
    assert [v.video_id for v in labels.videos] == names
    for video, all_labels, own, times in zip(
        labels.videos, arrays["labels_all"], arrays["labels"], arrays["segments"], strict=True
    ):
        assert video.labels == tuple(all_labels) or (video.video_id, all_labels) == ("video_test_0000270", [])
        assert [(s.label, [s.start_s, s.end_s]) for s in video.segments] == list(zip(own, times, strict=True))
    official = shown(read_labels(Path(str(PUBLISHED)) / "thumos14"))
    assert {v: sorted(s) for v, s in shown(labels).items()} == {v: sorted(official[v]) for v in names}
    assert "28 of 412 videos" in labels.notes[0]
    assert Counter(subsets(labels).values()) == {"train": 200, "test": 210, f"test{NOT_EVALUATED}": 2}
    assert Counter(subsets(read_labels(path, "wtalc-212")).values()) == {"train": 200, "test": 212}
    assert "30 in all: 22 of 'video_test_0000270'" in labels.notes[1]


@needs_published_files
def test_multithumos_as_published() -> None:
    """Its first 20 classes have THUMOS'14's segments, which tells that they are numbered in the same order."""
    path = Path(str(PUBLISHED)) / "multithumos" / "multithumos.json"
    labels = read_labels(path)
    assert Counter(subsets(labels).values()) == {"training": 200, "testing": 213}
    assert len(labels.classes) == 65
    raw = json.loads(path.read_text())
    total = sum(len(entry["actions"]) for entry in raw.values())
    assert sum(map(len, shown(labels).values())) == total - 7
    assert "7 in all: 4 of 'video_test_0000737'" in labels.notes[0]
    assert "65 in all: 1 of 'video_test_0000950' (Run from 398.44 to 4000.36 s, of 1315.4)" in labels.notes[1]
    official = shown(read_labels(Path(str(PUBLISHED)) / "thumos14"))
    for video, segments in shown(labels).items():
        for label, start_s, end_s in segments:
            near = [abs(start_s - s) + abs(end_s - e) for name, s, e in official[video] if name == label]
            assert label not in CLASSES or min(near) < 0.1
    # As the publisher's files count them.
    counts = Counter(label for segments in shown(labels).values() for label, _, _ in segments)
    expected = {
        "Run": 3693,
        "Jump": 3496,
        "Walk": 3059,
        "NoHuman": 1176,
        "PatPerson": 46,
        "VolleyballBump": 15,
    }
    assert {label: counts[label] for label in expected} == expected
