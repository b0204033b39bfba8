"""Labels as people have them: published splits, lists, JSON, folders and tables, each as a twin of its real form.

THRIFTVID_DATA names a folder with published files themselves; without it the tests of those are skipped.
"""

from __future__ import annotations

import codecs
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema import FeatureCache, LabelError
from cache_schema.annotations import LabelSet, read_labels
from cache_schema.annotations.video_names import ids_of, without_ending
from extract.path_lists import parse_list
from extract.sources import find_videos
from policy.config import DataConfig
from policy.data.opening import Dataset, open_dataset
from tests.caches import make_spec, write_stream

PUBLISHED = os.environ.get("THRIFTVID_DATA")
needs_published_files = pytest.mark.skipif(not PUBLISHED, reason="THRIFTVID_DATA names no folder")


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def shown(labels: LabelSet) -> list[tuple[str, str, str]]:
    return [(video.video_id, ";".join(video.labels), video.subset) for video in labels.videos]


def names(labels: LabelSet) -> list[set[str]]:
    """All ids of each video."""
    return [{video.video_id, *video.aliases} for video in labels.videos]


def message(path: Path, *arguments: Any, **options: Any) -> str:
    with pytest.raises(LabelError) as caught:
        read_labels(path, *arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -------------------------------------------------------------------------------------------- published splits

UCF: dict[str, str | bytes] = {
    "classInd.txt": "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n",
    "trainlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n"
    "HandstandPushups/v_HandStandPushups_g08_c01.avi 2\r\n",
    "testlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\r\n",
    "trainlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1\n",
    "testlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi\n",
}


def test_ucf101(tmp_path: Path) -> None:
    first = read_labels(write(tmp_path, UCF))
    assert shown(first) == [
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01", "ApplyEyeMakeup", "train"),
        ("HandstandPushups/v_HandStandPushups_g08_c01", "HandstandPushups", "train"),
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01", "ApplyEyeMakeup", "test"),
    ]
    assert "v_ApplyEyeMakeup_g08_c01" in names(first)[0]
    assert read_labels(tmp_path, split=1).videos == first.videos
    assert read_labels(tmp_path / "testlist01.txt").videos == first.videos
    second = read_labels(tmp_path, split=2)
    assert second.videos == read_labels(tmp_path / "trainlist02.txt").videos
    assert Counter(video.subset for video in second.videos) == {"train": 1, "test": 1}
    (tmp_path / "classInd.txt").unlink()
    assert read_labels(tmp_path).videos == first.videos


def test_ucf101_in_the_folder_of_its_archive(tmp_path: Path) -> None:
    write(tmp_path / "ucfTrainTestlist", UCF)
    assert read_labels(tmp_path, split=2).subsets == ("train", "test")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"testlist01.txt": None}, "testlist01.txt: no such file; split 1 of UCF-101"),
        ({"trainlist01.txt": ""}, "trainlist01.txt: no videos in it"),
        (
            {"trainlist01.txt": "v_ApplyEyeMakeup_g08_c01.avi 1\n"},
            "line 1: 'v_ApplyEyeMakeup_g08_c01.avi 1' is not",
        ),
        ({"trainlist01.txt": "ApplyEyeMakeup/a.avi one\n"}, "line 1: 'ApplyEyeMakeup/a.avi one' is not"),
        ({"trainlist01.txt": "Archery/a.avi 3\n"}, "line 1: class 'Archery' is not in classInd.txt"),
        (
            {"trainlist01.txt": "ApplyEyeMakeup/a.avi 2\n"},
            "line 1: class 2, but 'ApplyEyeMakeup' is 1 in classInd.txt",
        ),
        (
            {"testlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi\n"},
            "occurs twice, first in trainlist01.txt, line 1",
        ),
        ({"classInd.txt": b"\xff\xfe\x00"}, "not a text file"),
    ],
)
def test_what_is_wrong_with_ucf101(changed: dict[str, Any], expected: str, tmp_path: Path) -> None:
    write(tmp_path, {name: text for name, text in {**UCF, **changed}.items() if text is not None})
    assert expected in message(tmp_path)


def test_a_split_that_there_is_not(tmp_path: Path) -> None:
    for split in (0, 3):
        assert f"trainlist0{split}.txt: no such file" in message(write(tmp_path, UCF), split=split)
    table = write(tmp_path / "t", {"labels.csv": "video_id,label,subset\na,x,train\n"}) / "labels.csv"
    assert "csv has no splits to choose from; leave split out" in message(table, split=1)
    assert "csv names its classes itself; leave class_file out" in message(table, class_file=table)


HMDB: dict[str, str | bytes] = {
    "brush_hair_test_split1.txt": "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \r\n"
    "#20_brush_hair_0.avi 2 \r\nb.avi 0 \r\n",
    "cartwheel_test_split1.txt": "(Rad)Schlag_die_Bank!_cartwheel_f.avi 1 \n",
    "brush_hair_test_split2.txt": "b.avi 1 \n",
}


def test_hmdb51(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, HMDB))
    assert shown(labels) == [
        ("brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0", "brush_hair", "train"),
        ("brush_hair/#20_brush_hair_0", "brush_hair", "test"),
        ("brush_hair/b", "brush_hair", "unused"),
        ("cartwheel/(Rad)Schlag_die_Bank!_cartwheel_f", "cartwheel", "train"),
    ]
    assert "#20_brush_hair_0" in names(labels)[1]
    assert shown(read_labels(tmp_path, split=2)) == [("brush_hair/b", "brush_hair", "train")]
    assert (
        read_labels(tmp_path / "brush_hair_test_split2.txt").videos == read_labels(tmp_path, split=2).videos
    )
    assert "no files CLASS_test_split3.txt" in message(tmp_path, split=3)
    write(tmp_path, {"cartwheel_test_split1.txt": "a.avi 3\n"})
    assert "cartwheel_test_split1.txt, line 1: 'a.avi 3' is not 'VIDEO.avi 1'" in message(tmp_path)
    write(tmp_path, {"cartwheel_test_split1.txt": ""})
    assert "cartwheel_test_split1.txt: no videos in it" in message(tmp_path)


def test_the_split_of_breakfast_is_chosen_alike(tmp_path: Path) -> None:
    name = "P16_cam01_P16_cereals"
    write(tmp_path, {"videos.txt": f"{name}\nP03_cam01_P03_tea\n"})
    path = tmp_path / "videos.txt"
    assert read_labels(path, split=2).videos == read_labels(path, "breakfast-s2").videos
    assert "no splits to choose from" in message(path, "breakfast-s2", split=2)


# ------------------------------------------------------------------------------------------------------- lists

KINETICS_LISTS: dict[str, str | bytes] = {
    "kinetics400_train_list_videos.txt": "abseiling/a b.mp4 0\nyoga/c.mp4 1\n",
    "kinetics400_val_list_videos.txt": "abseiling/d.mp4 0\n",
    "label_map_k400.txt": "abseiling\nyoga\n",
}


def test_lists_of_videos(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, KINETICS_LISTS))
    assert shown(labels) == [
        ("abseiling/a b", "abseiling", "train"),
        ("yoga/c", "yoga", "train"),
        ("abseiling/d", "abseiling", "val"),
    ]
    assert any("label_map_k400.txt, counted from 0" in note for note in labels.notes)
    alone = read_labels(tmp_path / "kinetics400_val_list_videos.txt")
    assert {*shown(alone)} == {*shown(labels)}  # with the list beside it that is called alike
    assert any("kinetics400_train_list_videos.txt beside it" in note for note in alone.notes)


def test_lists_of_frames_with_several_splits(tmp_path: Path) -> None:
    files = {
        f"ucf101_{subset}_split_{split}_rawframes.txt": f"A/v_{subset}{split} 163 0\nB/w_{subset}{split} 9 1\n"
        for subset in ("train", "val")
        for split in (1, 2)
    }
    write(tmp_path, {**files, "classInd.txt": "1 Apple\n2 Bear\n"})
    for split in (None, 1, 2):
        labels = read_labels(tmp_path, split=split)
        assert {video.video_id for video in labels.videos} == {
            f"{name}_{subset}{split or 1}" for name in ("A/v", "B/w") for subset in ("train", "val")
        }
        assert labels.classes == ("Apple", "Bear")
        assert {video.frames for video in labels.videos} == {163, 9}
    assert "no lists of split 4" in message(tmp_path, split=4)
    write(tmp_path, {"ucf101_train_split_1_videos.txt": "A/v.avi 0\n"})
    assert "both ucf101_train_split_1_rawframes.txt and ucf101_train_split_1_videos.txt list" in message(
        tmp_path
    )
    assert len(read_labels(tmp_path / "ucf101_train_split_1_rawframes.txt").videos) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.mp4 1\nb.mp4 1 3 5\n", [("a", "1", None), ("b", "1;3;5", None)]),
        ("a 163 1 3\nb 122 2\n", [("a", "1;3", 163), ("b", "2", 122)]),
        ("a.mp4 163 1\nb.mp4 122 2\n", [("a", "1", 163), ("b", "2", 122)]),
        ("x/a.mp4,1\nx/b, c.mp4,2\n", [("x/a", "1", None), ("x/b, c", "2", None)]),
        ('"x, y/a.mp4",1\n', [("x, y/a", "1", None)]),
        ("a b.mp4\t1\n", [("a b", "1", None)]),
        ("C:\\data\\run\\a.mp4;1\n", [("C:\\data\\run\\a", "1", None)]),
        ("\ufeffa 1\r\n\r\n  b   2 \r\n", [("a", "1", None), ("b", "2", None)]),
        ("v_sJFgo9H6zNo 4169 33\n", [("v_sJFgo9H6zNo", "33", 4169)]),
    ],
)
def test_forms_of_lists(text: str, expected: list[tuple[str, str, int | None]], tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, {"some.txt": text}) / "some.txt")
    numbers = [";".join(name.removeprefix("class ") for name in video.labels) for video in labels.videos]
    found = [(v.video_id, number, v.frames) for v, number in zip(labels.videos, numbers, strict=True)]
    assert found == expected
    assert labels.subsets == ("",)


def test_classes_by_name_in_a_list(tmp_path: Path) -> None:
    write(tmp_path, {"train.csv": "run/a.mp4,running fast\n", "val.csv": "b.mp4,swimming\n"})
    assert shown(read_labels(tmp_path)) == [("run/a", "running fast", "train"), ("b", "swimming", "val")]
    write(tmp_path, {"val.csv": "b.mp4,1\n"})
    assert "val.csv, line 1: has a class by number, where lines before have a class by name" in message(
        tmp_path
    )


def test_what_a_form_is_taken_for_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path, {"some.txt": "a.mp4 1 2\nb.mp4 3 4\n"}) / "some.txt"
    guessed = read_labels(path)
    assert [video.frames for video in guessed.videos] == [1, 3]
    assert any(
        "taken for 'PATH FRAMES LABEL'" in note and "--format list-labels" in note for note in guessed.notes
    )
    several = read_labels(path, "list-labels")
    assert [video.labels for video in several.videos] == [("class 1", "class 2"), ("class 3", "class 4")]
    assert not any("taken for" in note for note in several.notes)


def test_lists_of_slowfast_have_no_header(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "train.csv": "/data/k400/run/a.mp4 0\n/data/k400/swim/b.mp4 1\n",
            "val.csv": "/data/k400/run/c.mp4 0\n",
            "test.csv": "/data/k400/swim/d.mp4 1\n",
            "classids.json": '{"run": 0, "swim": 1}',
        },
    )
    labels = read_labels(tmp_path)
    assert labels.subsets == ("train", "val", "test") and labels.classes == ("run", "swim")
    assert {"a", "run/a", "k400/run/a", "/data/k400/run/a.mp4"} <= names(labels)[0]


@pytest.mark.parametrize(
    ("classes", "numbers", "expected"),
    [
        ("run\nswim\n", "01", ["run", "swim"]),
        ("run\nswim\n", "12", ["run", "swim"]),
        ("1 run\n2 swim\n", "01", ["run", "swim"]),
        ("1 run\n2 swim\n", "12", ["run", "swim"]),
        ("0,run\n1,swim\n", "01", ["run", "swim"]),
        ("id,name\n1,swim\n0,run\n", "01", ["run", "swim"]),
        ("100 m run\nswim\n", "01", ["100 m run", "swim"]),
        ('{"swim": 1, "run": 0}', "01", ["run", "swim"]),
    ],
)
def test_files_that_name_classes(classes: str, numbers: str, expected: list[str], tmp_path: Path) -> None:
    name = "names.json" if classes[0] == "{" else "names.txt"
    write(tmp_path, {"list.txt": "".join(f"v{number}.mp4 {number}\n" for number in numbers), name: classes})
    labels = read_labels(tmp_path / "list.txt", class_file=tmp_path / name)
    assert [video.labels[0] for video in labels.videos] == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"train.txt": "a.mp4 0\nb.mp4 2\n"}, "train.txt, line 2: has class 2, but"),
        (
            {"train.txt": "a.mp4 0\na.avi 1\n"},
            "train.txt, line 2: video 'a.avi' occurs twice, first in line 1, of class",
        ),
        ({"train.txt": "a.mp4 0\n./a.mp4 0\n"}, "line 2: video './a.mp4' occurs twice, first in line 1"),
        ({"train.txt": "a.mp4 0\nb.mp4\n"}, "line 2: 'b.mp4' is not 'PATH LABEL'"),
        (
            {"train.txt": "a.mp4 0\nb.mp4 -1\n"},
            "has a class by name, '-1', where lines before have a class by number",
        ),
        ({"train.txt": "a 0 1\n"}, "line 1: video 'a' has 0 frames"),
        ({"train.txt": "a 20 1\nb 1\n", "f": "list-frames"}, "line 2: 'b' is not 'PATH FRAMES LABEL'"),
        ({"train.txt": "a.mp4 0\n", "val.txt": "\n"}, "val.txt: no videos in it"),
        ({"train.txt": "", "f": "list"}, "train.txt: no videos in it"),
        ({"train.txt": b"\x00\xff\x80\x00", "f": "list"}, "train.txt: not a text file"),
        ({"train.txt": "a.mp4 0\n", "classes.txt": "x\n"}, "both classes.txt and label_map.txt name classes"),
    ],
)
def test_what_is_wrong_with_a_list(files: dict[str, Any], expected: str, tmp_path: Path) -> None:
    form = files.pop("f", None) if "f" in files else None
    write(tmp_path, {"label_map.txt": "run\nswim\n", **files})
    assert expected in message(tmp_path / "train.txt", form)


# -------------------------------------------------------------------------------------------------------- JSON


def test_json_of_mmaction2(tmp_path: Path) -> None:
    train = [
        {"filename": "some/a.mp4", "label": [1, 0]},
        {"filename": "some/b.mp4", "label": [1], "total_frames": 30},
    ]
    val = [{"frame_dir": "some/c", "total_frames": 163, "label": 0}]
    write(
        tmp_path,
        {"x_train.json": json.dumps(train), "x_val.json": json.dumps(val), "label_map.txt": "run\nswim\n"},
    )
    labels = read_labels(tmp_path)
    assert shown(labels) == [
        ("some/a", "swim;run", "train"),
        ("some/b", "swim", "train"),
        ("some/c", "run", "val"),
    ]
    assert [video.frames for video in labels.videos] == [None, 30, 163]
    assert read_labels(tmp_path / "x_train.json").videos == labels.videos


def test_json_of_hvu_in_mmaction2(tmp_path: Path) -> None:
    entry = {"frame_dir": "abc_000001", "total_frames": 300, "label": {"action": [180], "object": [15, 3]}}
    labels = read_labels(write(tmp_path, {"list.json": json.dumps([entry])}) / "list.json")
    assert labels.videos[0].labels == ("action 180", "object 15", "object 3")


def test_json_of_openmmlab_2(tmp_path: Path) -> None:
    content = {"metainfo": {"classes": ["run", "swim"]}, "data_list": [{"filename": "a.mp4", "label": 1}]}
    path = write(tmp_path, {"any.json": json.dumps(content)}) / "any.json"
    assert shown(read_labels(path)) == [("a", "swim", "")]
    content["metainfo"] = {"classes": ["run"]}
    assert "video 1 of 1: has class 1, but metainfo names 1" in message(
        write(tmp_path, {"any.json": json.dumps(content)}) / "any.json"
    )


def test_json_of_activitynet_in_mmaction2(tmp_path: Path) -> None:
    def entry(label: str) -> dict[str, Any]:
        annotations = [{"segment": [1.5, 4.0], "label": label}]
        return {"duration_second": 30.5, "duration_frame": 900, "annotations": annotations, "fps": 30.0}

    train, val = {"v_abc": entry("Polo"), "v_v_d": entry("BMX")}, {"v_-x": entry("Polo")}
    write(tmp_path, {"anet_anno_train.json": json.dumps(train), "anet_anno_val.json": json.dumps(val)})
    labels = read_labels(tmp_path)
    assert shown(labels) == [("v_abc", "Polo", "train"), ("v_v_d", "BMX", "train"), ("v_-x", "Polo", "val")]
    assert [video.aliases for video in labels.videos] == [("abc",), ("v_d",), ("-x",)]
    assert labels.videos == read_labels(tmp_path / "anet_anno_train.json").videos
    assert labels.videos[0].segments[0].end_s == 4.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not JSON"),
        ("[" * 200_000, "nested too deeply"),
        ("{}", "expected an array of objects"),
        ("[]", "no videos in it"),
        ("[1]", "video 1 of 1: is not an object"),
        ('[{"label": 1}]', "video 1 of 1: has no path"),
        ('[{"filename": "a", "label": -1}]', "has the label -1, which is no class"),
        ('[{"filename": "a", "label": []}]', "has the label [], which is no class"),
        ('[{"filename": "a", "label": [true]}]', "has the label [True], which is no class"),
        ('[{"filename": "a"}]', "has the label None, which is no class"),
        ('[{"filename": "a", "label": 1}, {"filename": "b", "label": "x"}]', "by number and classes by name"),
        (
            '[{"filename": "a", "label": 1}, {"filename": "a.mp4", "label": 2}]',
            "'a.mp4' occurs twice, first in 'a'",
        ),
    ],
)
def test_what_is_wrong_with_a_json_list(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in message(write(tmp_path, {"some.json": text}) / "some.json", "json-list")


# ----------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("start", ["", "train/", "Validation/"])
def test_a_folder_for_each_class(start: str, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = dict.fromkeys(
        (
            f"{start}run/a.mp4",
            f"{start}run/person 1/b.MOV",
            f"{start}swim/c.avi",
            f"{start}swim/frames/img_00001.jpg",
        ),
        b"",
    )
    hidden: dict[str, str | bytes] = {
        ".cache/x/y.mp4": b"",
        f"{start}run/.z.mp4": b"",
        f"{start}run/notes.txt": b"",
    }
    labels = read_labels(write(tmp_path, files | hidden))
    subset = {"": "", "train/": "train", "Validation/": "val"}[start]
    assert {*shown(labels)} == {
        (f"{start}run/a", "run", subset),
        (f"{start}run/person 1/b", "run", subset),
        (f"{start}swim/c", "swim", subset),
        (f"{start}swim/frames", "swim", subset),
    }


def test_videos_in_no_class_are_counted(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(("run/a.mp4", "b.mp4", "c.mp4"), b""))
    assert read_labels(tmp_path).notes == (f"{tmp_path}: 2 videos lie in no folder of a class",)


def test_folders_that_link_to_each_other(tmp_path: Path) -> None:
    write(tmp_path, {"run/a.mp4": b""})
    (tmp_path / "run" / "again").symlink_to(tmp_path)
    assert len(read_labels(tmp_path).videos) == 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["train/run/a.mp4", "swim/b.mp4"],
            "folder 'train' is called after a subset, 'swim' beside it is not",
        ),
        (["run/a.mp4", "run/a.avi"], "video 'run/a.mp4' occurs twice, first in 'run/a.avi'"),
        (["train/a.mp4"], "no videos in folders of classes; expected train/CLASS/VIDEO.mp4"),
        (["run/notes.txt"], "a folder without files, and without videos in folders of classes"),
        (["a.mp4"], "a folder with 1 .mp4 (a.mp4), of which none is a known file of labels"),
    ],
)
def test_folders_that_are_none_of_classes(files: list[str], expected: str, tmp_path: Path) -> None:
    assert expected in message(write(tmp_path, dict.fromkeys(files, b"")))


HF_CSV = "file_name,label,duration\n0001.mp4,dog,3\nsub/0002.mp4,cat,4\n"
HF_LINES = (
    '{"file_name": "0001.mp4", "label": "dog"}\n{"file_name": "sub/0002.mp4", "label": ["cat", "dog"]}\n'
)


def test_video_folder_of_hugging_face(tmp_path: Path) -> None:
    write(tmp_path, {"train/metadata.csv": HF_CSV, "test/metadata.jsonl": HF_LINES, "train/0001.mp4": b""})
    labels = read_labels(tmp_path)
    assert {*shown(labels)} == {
        ("train/0001", "dog", "train"),
        ("train/sub/0002", "cat", "train"),
        ("test/0001", "dog", "test"),
        ("test/sub/0002", "cat;dog", "test"),
    }
    one = read_labels(tmp_path / "train" / "metadata.csv")
    assert shown(one) == [("0001", "dog", ""), ("sub/0002", "cat", "")]


def test_paths_say_the_subset_in_metadata(tmp_path: Path) -> None:
    text = "file_name;label\ntrain/0001.mp4;dog\nvalidation/0002.mp4;cat\n"
    assert shown(read_labels(write(tmp_path, {"metadata.csv": text}))) == [
        ("train/0001", "dog", "train"),
        ("validation/0002", "cat", "val"),
    ]


def test_what_is_wrong_with_metadata(tmp_path: Path) -> None:
    write(tmp_path, {"metadata.csv": "file_name,text\na.mp4,hello\n"})
    assert "metadata.csv: no column 'label' among file_name, text" in message(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    write(tmp_path, {"metadata.jsonl": HF_LINES + "{\n"})
    assert "metadata.jsonl, line 3: not JSON" in message(tmp_path)
    (tmp_path / "metadata.jsonl").unlink()
    pytest.importorskip("pyarrow")
    write(tmp_path, {"metadata.parquet": b"PAR1"})
    assert "metadata.parquet: not a readable file of parquet" in message(tmp_path)


@pytest.mark.parametrize("names", [None, ["cat", "dog"]])
def test_metadata_in_parquet(names: list[str] | None, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    labels: list[Any] = ["dog", "cat"] if names is None else [1, 0]
    about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table({"file_name": ["0001.mp4", "sub/0002.mp4"], "label": labels, "fps": [25, 30]})
    (tmp_path / "train").mkdir()
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(about)}) if names else table,
        tmp_path / "train/metadata.parquet",
    )
    expected = [("train/0001", "dog", "train"), ("train/sub/0002", "cat", "train")]
    assert shown(read_labels(tmp_path)) == expected


# ------------------------------------------------------------------------------------------------------ tables

EXPECTED = [("1", "swim, freestyle", "train"), ("2", "run", "test")]
TABLES: dict[str, str | bytes] = {
    "plain": 'video_id,label,subset\n1,"swim, freestyle",train\n2,run,test\n',
    "semicolons": "video_id;label;subset\r\n1;swim, freestyle;train\r\n2;run;test\r\n",
    "tabs": "video_id\tlabel\tsubset\n1\tswim, freestyle\ttrain\n2\trun\ttest\n",
    "Excel says what divides": "sep=;\r\nvideo_id;label;subset\r\n1;swim, freestyle;train\r\n2;run;test\r\n",
    "a mark in front": codecs.BOM_UTF8 + b'video_id,label,subset\n1,"swim, freestyle",train\n2,run,test\n',
    "Unicode text of Excel": "video_id\tlabel\tsubset\r\n1\tswim, freestyle\ttrain\r\n2\trun\ttest\r\n".encode(
        "utf-16"
    ),
    "blanks": 'video_id, label, subset\n1, "swim, freestyle", train\n2, run, test\n',
    "capitals": 'Video ID,Label,Subset\n1,"swim, freestyle",train\n2,run,test\n',
    "index of pandas": ',video_id,label,subset\n0,1,"swim, freestyle",train\n1,2,run,test\n',
    "index of R": '"","video.id","video_id","label","subset"\n"1","x","1","swim, freestyle","train"\n'
    '"2","y","2","run","test"\n',
    "row names of R": '"video_id","label","subset"\n"1","1","swim, freestyle","train"\n"2","2","run","test"\n',
    "write.table of R": '"video_id" "label" "subset"\n"1" "1" "swim, freestyle" "train"\n"2" "2" "run" "test"\n',
    "empty columns": 'video_id,label,subset,,\n1,"swim, freestyle",train,,\n2,run,test,,\n',
    "empty columns that the first line lacks": 'video_id,label,subset\n1,"swim, freestyle",train,,\n2,run,test\n',
    "empty rows": 'video_id,label,subset\n1,"swim, freestyle",train\n,,\n2,run,test\n,,\n\n',
    "other names": 'filename,class,split,fps\n1,"swim, freestyle",train,25\n2,run,test,30\n',
    "other order": 'subset,note,label,video_id\ntrain,x,"swim, freestyle",1\ntest,,run,2\n',
    "endings": 'video_id,label,subset\n1.mp4,"swim, freestyle",train\n2.AVI,run,test\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_as_spreadsheets_and_libraries_write_them(name: str, tmp_path: Path) -> None:
    for file in ("labels.csv", "labels.txt"):
        assert shown(read_labels(write(tmp_path, {file: TABLES[name]}) / file)) == EXPECTED


def test_tables_without_a_subset_are_called_after_theirs(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"my_train.csv": "video,label\na,x\n", "my_test.csv": "video,label\nb,x\n", "other.csv": "q\n"},
    )
    expected = [("a", "x", "train"), ("b", "x", "test")]
    assert shown(read_labels(tmp_path)) == expected
    alone = read_labels(tmp_path / "my_train.csv")
    assert shown(alone) == expected
    assert alone.notes == (f"{tmp_path / 'my_train.csv'}: read with my_test.csv beside it",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "video_id,label,subset\na,run,train\nb,swim, freestyle,train\n",
            "line 3: 4 fields, not the 3 of the first line",
        ),
        ("video_id;label;subset\na;run;swim;train\n", "line 2: 4 fields, .* with ';' in it needs quotes"),
        ("video_id,label,subset\na,run\n", "line 2: no subset for video 'a'"),
        ("video_id,label,Label\na,run,run\n", "two columns 'label' in the first line"),
        (
            "name,text\na,b\n",
            "no column 'video_id' among name, text; the first line must be video_id,label,subset",
        ),
        ("video_id,text\na,b\n", "no column 'label' among video_id, text"),
        (
            "video_id,label,subset\na.mp4,x,train\na.avi,y,train\n",
            "line 3: video 'a.avi' occurs twice, .* of class 'x'",
        ),
    ],
)
def test_what_is_wrong_with_a_table(text: str, expected: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"labels.csv": text}) / "labels.csv"
    with pytest.raises(LabelError, match=expected):
        read_labels(path)


def test_segments_as_a_spreadsheet_writes_them(tmp_path: Path) -> None:
    text = "Video ID;Start_s;End_s;Label;Subset;\r\na.mp4;12,5;20;surfing;test;\r\n;;;;;\r\n".encode("utf-16")
    labels = read_labels(write(tmp_path, {"segments.csv": text}) / "segments.csv")
    assert shown(labels) == [("a", "surfing", "test")]
    assert [(s.start_s, s.end_s) for s in labels.videos[0].segments] == [(12.5, 20.0)]


def test_more_fields_than_the_first_line_in_kineticss_files(tmp_path: Path) -> None:
    text = "label,youtube_id,time_start,time_end,split\nrun, fast,abc,0,10,train\n"
    assert "line 2: 6 fields, not the 5" in message(write(tmp_path, {"train.csv": text}) / "train.csv")


# ---------------------------------------------------------------------------- what is no file of labels at all


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "x.txt",
            "Hello, this is a readme\nof a benchmark\n",
            "its first line is 'Hello, this is a readme'; a table's",
        ),
        ("x.txt", "y" * 500, f"its first line is '{'y' * 60}…', which names a video and no class"),
        (
            "x.txt",
            "a/b.mp4\n",
            "its first line is 'a/b.mp4', which names a video and no class",
        ),
        ("x.txt", "", "it is empty"),
        ("x.bin", b"\x89HDF\r\n\x1a\n\0\0", r"it is no text, but begins with the bytes b'\x89HDF"),
        ("x.yaml", "{a: 1}", "its first line is '{a: 1}'; of JSON, '[{\"filename\": …, \"label\": …}, …]'"),
        ("trainlist1.txt", "x y z\n", "trainlist1.txt is nearly trainlist01.txt (format_name ucf101)"),
        ("x.json", '{"a": 1}', 'it has no "database" of videos'),
    ],
)
def test_formats_that_are_not_known(name: str, content: str | bytes, expected: str, tmp_path: Path) -> None:
    said = message(write(tmp_path, {name: content}) / name)
    assert expected in said and len(said) < 400 + len(str(tmp_path))


def test_names_that_are_nearly_those_of_a_benchmark(tmp_path: Path) -> None:
    said = message(write(tmp_path, {"anet_train_videos.txt": "x y z\n"}))
    assert "anet_train_videos.txt is nearly anet_train_video.txt (format_name activitynet-lists)" in said


def test_two_kinds_of_labels_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, {"a_train.csv": "video,label\na,x\n", "b_train.txt": "c.mp4 0\n", "run/x.mp4": b""})
    assert "holds labels of csv and of list; say which with format_name" in message(tmp_path)
    assert shown(read_labels(tmp_path, "list")) == [("c", "class 0", "train")]


# ------------------------------------------------------------------------------- ids in lists and in the cache


def test_a_list_meets_all_that_batch_extract_calls_a_video(tmp_path: Path) -> None:
    listed = ["run/a.mp4", "swim/b.c.avi", "swim/d.mp4"]
    write(tmp_path / "data", dict.fromkeys(listed, b"x"))
    lists = {
        "relative": listed,
        "absolute": [str(tmp_path / "data" / name) for name in listed],
        "bare": [Path(name).name for name in listed],
    }
    for kind, paths in lists.items():
        text = "".join(f"{path} {label}\n" for label, path in enumerate(paths))
        labels = read_labels(write(tmp_path, {f"{kind}.txt": text}) / f"{kind}.txt")
        for folder, ids in ((tmp_path / "data", "stem"), (tmp_path / "data", "path"), (tmp_path, "path")):
            found = {video.id for video in find_videos([folder], ids=ids).videos}  # type: ignore[arg-type]
            if (kind, ids) != ("bare", "path") and not (kind == "relative" and folder == tmp_path):
                assert all(len(found & ids_of_video) == 1 for ids_of_video in names(labels)), (
                    kind,
                    folder,
                    ids,
                )


def test_the_same_list_extracts_and_labels(tmp_path: Path) -> None:
    write(tmp_path, {**UCF, "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": b"x"})
    named = parse_list((tmp_path / "trainlist01.txt").read_bytes(), tmp_path, folders=False)
    assert [path.name for path in named.found] == ["v_ApplyEyeMakeup_g08_c01.avi"]


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "c.d", "e f"]), min_size=1, max_size=4).map("/".join),
        unique=True,
        max_size=12,
    ),
    st.sampled_from(["", ".mp4", ".AVI"]),
)
def test_no_id_stands_for_two_videos(paths: list[str], ending: str) -> None:
    ids = [*ids_of([path + ending for path in paths])]
    counted = Counter(name for one in ids for name in one)
    assert max(counted.values(), default=1) == 1
    for path, one in zip(paths, ids, strict=True):
        assert one[0] == path == without_ending(path + ending)
        stem = path.rpartition("/")[2]
        if sum(other.rpartition("/")[2] == stem for other in paths) == 1:
            assert stem in one


# --------------------------------------------------------------------------------------- dividing, and a pilot


def undivided(folder: Path, count: int = 50, classes: int = 5) -> Path:
    rows = "".join(f"v{i:02d},class {i % classes}\n" for i in range(count))
    return write(folder, {"labels.csv": "video_id,label\n" + rows + "alone,rare\n"}) / "labels.csv"


def test_a_share_of_each_class_is_set_aside(tmp_path: Path) -> None:
    path = undivided(tmp_path)
    labels = read_labels(path, val_fraction=0.2)
    assert Counter((v.labels[0], v.subset) for v in labels.videos) == {
        **{(f"class {c}", "train"): 8 for c in range(5)},
        **{(f"class {c}", "val"): 2 for c in range(5)},
        ("rare", "train"): 1,
    }
    assert labels.notes == (
        f"{path}: 10 of 51 videos, 0.2 of each class, are set aside as subset 'val', drawn with seed 0 "
        "(--split N draws others)",
    )
    assert read_labels(path, val_fraction=0.2).videos == labels.videos
    assert read_labels(path, val_fraction=0.2, split=0).videos == labels.videos
    other = read_labels(path, val_fraction=0.2, split=1)
    assert shown(other) != shown(labels) and sorted(other.subsets) == sorted(labels.subsets)


def test_labels_that_cannot_be_divided(tmp_path: Path) -> None:
    path = undivided(tmp_path)
    assert "val_fraction 0.001 sets none of 51 videos aside" in message(path, val_fraction=0.001)
    write(tmp_path, UCF)
    assert "has subsets already (train, test); leave val_fraction out" in message(
        tmp_path, "ucf101", val_fraction=0.2
    )


def opened(folder: Path, labels: LabelSet, ids: list[str], **options: Any) -> Dataset:
    write_stream(folder / "cache", make_spec(), dict.fromkeys(ids, 3))
    return open_dataset(FeatureCache(folder / "cache"), labels, {"fine": "tiny_8"}, DataConfig(**options))


def test_labels_without_subsets_name_the_option(tmp_path: Path) -> None:
    path = undivided(tmp_path)
    ids = [video.video_id for video in read_labels(path).videos]
    with pytest.raises(
        LabelError, match=r"which to judge .*--val-fraction 0.2 sets a fifth of the videos of each class"
    ):
        opened(tmp_path, read_labels(path), ids)
    data = opened(tmp_path, read_labels(path, val_fraction=0.2), ids)
    assert (len(data.train), len(data.evaluation)) == (41, 10)


@pytest.mark.parametrize(
    ("subsets", "expected"),
    [
        (("one", "two"), "say with --train-subset which of one, two to use$"),
        (("train", "two"), "say with --eval-subset which of train, two to use$"),
        (
            ("train", "train"),
            "say with --eval-subset which of train to use; or divide its videos with --val-fraction",
        ),
    ],
)
def test_unknown_subsets_name_the_option(subsets: tuple[str, str], expected: str, tmp_path: Path) -> None:
    rows = "".join(f"v{i},x,{subset}\n" for i, subset in enumerate(subsets))
    path = write(tmp_path, {"labels.csv": "video_id,label,subset\n" + rows}) / "labels.csv"
    with pytest.raises(LabelError, match=expected):
        opened(tmp_path, read_labels(path), ["v0", "v1"])


def test_subsets_in_capitals(tmp_path: Path) -> None:
    text = "video_id,label,subset\na,x,Train\nb,x,VALID\n"
    labels = read_labels(write(tmp_path, {"labels.csv": text}) / "labels.csv")
    data = opened(tmp_path, labels, ["a", "b"])
    assert (data.train.subset, data.evaluation.subset) == ("Train", "VALID")


PILOT = """video_id,label,subset
a,x;only trained,train
b,y,train
c,only trained,train
d,x,val
e,y;only judged,val
f,only judged,val
absent,z,train
"""


def test_a_pilot_on_a_part_of_a_benchmark(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, {"labels.csv": PILOT}) / "labels.csv")
    with pytest.raises(
        LabelError, match=r"'only judged' of subset 'val' without .*--classes-present leaves such classes out"
    ):
        opened(tmp_path, labels, [*"abcdef"], skip_missing=True)
    data = opened(tmp_path, labels, [*"abcdef"], skip_missing=True, classes_present=True)
    assert data.classes == ("x", "y")
    assert (data.train.ids, data.evaluation.ids) == (("a", "b"), ("d", "e"))
    assert data.train.labels.tolist() == data.evaluation.labels.tolist() == [[True, False], [False, True]]
    assert [note for note in data.notes if "left out" in note][1:] == [
        "2 of 5 classes have videos in the cache both for training and for evaluation; left out: 3 classes: "
        "'only judged', 'only trained', 'z'",
        "1 video of subset 'train' of other classes left out",
        "1 video of subset 'val' of other classes left out",
    ]
    with pytest.raises(LabelError, match="no class has videos in the cache both"):
        opened(tmp_path / "other", labels, ["c", "f"], skip_missing=True, classes_present=True)


def test_a_pilot_on_the_first_class_of_each_video(tmp_path: Path) -> None:
    text = "video_id,label,subset\na,y;x,train\nb,x,train\nc,z;x,train\nd,x,val\ne,z,val\n"
    labels = read_labels(write(tmp_path, {"labels.csv": text}) / "labels.csv")
    data = opened(tmp_path, labels, [*"abcde"], multi_label=False, classes_present=True)
    assert data.classes == ("x", "z")
    assert data.train.targets([0, 1, 2]).tolist() == [0, 0, 1]


def test_all_classes_present(tmp_path: Path) -> None:
    text = "video_id,label,subset\na,x,train\nb,x,val\n"
    labels = read_labels(write(tmp_path, {"labels.csv": text}) / "labels.csv")
    plain, pilot = (
        opened(tmp_path, labels, ["a", "b"], classes_present=present) for present in (False, True)
    )
    assert plain.digest() == pilot.digest() and plain.notes == pilot.notes


# ----------------------------------------------------------------------------------------------- real and long


@pytest.mark.slow
@pytest.mark.parametrize("form", ["table", "list", "same names"])
def test_long_files(form: str, tmp_path: Path) -> None:
    count = 200_000  # in hours, were it quadratic
    rows = {
        "table": lambda i: f"v{i:07d},class {i % 200}\n",
        "list": lambda i: f"c{i % 200}/v{i:07d}.mp4 {i % 200}\n",
        "same names": lambda i: f"/data/c{i % 200}/{i // 200}/clip.mp4 {i % 200}\n",
    }[form]
    text = ("video_id,label\n" if form == "table" else "") + "".join(map(rows, range(count)))
    assert len(read_labels(write(tmp_path, {"x.csv": text}) / "x.csv", val_fraction=0.2).videos) == count


@pytest.mark.parametrize(
    "line", ["1 " * 100_000, "a.mp4 " + " " * 200_000, "/" * 200_000 + ".mp4 1", "," * 200_000]
)
def test_long_lines(line: str, tmp_path: Path) -> None:
    for name, form in (
        ("x.csv", "list"),
        ("x.csv", "csv"),
        ("trainlist01.txt", "ucf101"),
        ("b_test_split1.txt", "hmdb51"),
    ):
        write(tmp_path, {name: line, "testlist01.txt": line, "classInd.txt": line})
        try:
            read_labels(tmp_path / name, form)
        except LabelError as error:
            assert len(str(error)) < 1000 + len(str(tmp_path))


@needs_published_files
def test_the_published_files_at_hand() -> None:
    data = Path(str(PUBLISHED))
    ucf = read_labels(data / "cases" / "ucf_labels")
    assert Counter(video.subset for video in ucf.videos) == {"train": 1, "test": 1}
    for name in ("semicolon", "spacehdr", "trailing_empty"):
        labels = read_labels(data / "cases" / f"{name}.csv")
        assert labels.classes == ("jump", "run", "swim, freestyle", "walk") and len(labels.videos) == 40
    assert "line 4: 4 fields" in message(data / "cases" / "unquoted_comma.csv")
    # The real lists of Mini-Kinetics, as lists of no benchmark in particular.
    lists = read_labels(data / "mini_kinetics" / "mini_kinetics_train.txt", "list")
    assert Counter(video.subset for video in lists.videos) == {"train": 121_070, "val": 9_864}
    known = {video.video_id: video.labels for video in read_labels(data / "mini_kinetics").videos}
    assert {video.video_id: video.labels for video in lists.videos} == known
