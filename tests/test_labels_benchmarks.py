"""The benchmarks' own label files, in the layouts in which they are published, and what may be wrong with them.

THRIFTVID_DATA names a folder with the published files themselves; without it the tests of those are skipped.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from cache_schema import FeatureCache, LabelError
from cache_schema.annotations import LabelSet, read_labels
from policy.data.opening import open_dataset
from tests.caches import make_spec, write_stream

PUBLISHED = os.environ.get("THRIFTVID_DATA")
needs_published_files = pytest.mark.skipif(not PUBLISHED, reason="THRIFTVID_DATA names no folder")


def folder_of(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def said(labels: LabelSet) -> list[tuple[str, tuple[str, ...], str]]:
    return [(v.video_id, v.labels, v.subset) for v in labels.videos]


ANET = {
    "action_name.csv": "action\nArm wrestling\nBMX\nPolo\n",
    "anet_train_video.txt": "v_a 4169 2\nv__b 20 0\n",
    "anet_val_video_multi_label.txt": "v_c 300 1 0\r\nv_v_d 301 1",
}
MINI = {
    "mini_kinetics_train.txt": "-tcD0 142 0\nv_KW 300 199\n",
    "mini_kinetics_val.txt": "\ufeff7LSJ 299 0\n\n",
}
KINETICS = {
    "train.csv": 'label,youtube_id,time_start,time_end,split,is_cc\n"wrapping ""it"", up",-3B,59,69,train,0\n',
    "validate.csv": "label,youtube_id,time_start,time_end,split\nabseiling,_db,104,114,validate\n",
    "test.csv": "youtube_id,time_start,time_end,split\nxyz,0.0,10.0,test\n",
}
FCVID = {
    "FCVID_VideoName_TrainTestSplit.txt": "dog/a b.flv train\ndog\\c.mp4\ttest\ncat/c.avi test\nd.e train\n",
    "FCVID_Label.txt": "0 1 0\n1 0 1\n1.0 0.0 0.0\n0 0 0\n",
}
BREAKFAST = {
    "train.split1.bundle": "#bundle\nP16_cam01_P16_cereals.txt\nP54_stereo01_P54_tea.txt\n",
    "test.split1.bundle": "P03_webcam02_P03_scrambledegg.txt\n",
    "train.split2.bundle": "P03_webcam02_P03_scrambledegg.txt\nP54_stereo01_P54_tea.txt\n",
    "test.split2.bundle": "P16_cam01_P16_cereals.txt\n",
}


def test_activitynet_lists(tmp_path: Path) -> None:
    labels = read_labels(folder_of(tmp_path, ANET))
    assert said(labels) == [
        ("v_a", ("Polo",), "training"),
        ("v__b", ("Arm wrestling",), "training"),
        ("v_c", ("BMX", "Arm wrestling"), "validation"),
        ("v_v_d", ("BMX",), "validation"),
    ]
    assert [v.frames for v in labels.videos] == [4169, 20, 300, 301]
    assert [v.aliases for v in labels.videos] == [("a",), ("_b",), ("c",), ("v_d",)]
    assert {v.frames_per_s for v in labels.videos} == {None}
    assert labels.multi_label
    alone = read_labels(tmp_path / "anet_train_video.txt")
    assert alone.videos == labels.videos[:2]


def test_mini_kinetics(tmp_path: Path) -> None:
    labels = read_labels(folder_of(tmp_path, MINI))
    assert said(labels) == [
        ("-tcD0", ("class 0",), "train"),
        ("v_KW", ("class 199",), "train"),
        ("7LSJ", ("class 0",), "val"),
    ]
    assert [(v.frames, v.frames_per_s) for v in labels.videos] == [(142, 30.0), (300, 30.0), (299, 30.0)]


def kinetics_400(rows: str) -> dict[str, str]:
    return {"train.csv": "label,youtube_id,time_start,time_end,split\n" + rows}


def test_mini_kinetics_beside_kinetics(tmp_path: Path) -> None:
    """Names of the classes and of the clips' files; a video that Kinetics' files lack is known by its id alone."""
    lists = {**MINI, "mini_kinetics_train.txt": MINI["mini_kinetics_train.txt"] + "gone 300 199\n"}
    rows = '"running ""it""",-tcD0,5,15,train\nyoga,v_KW,10.0,20.0,train\nrunning,other,0,10,train\n'
    folder_of(tmp_path, {**lists, **kinetics_400(rows)})
    labels = read_labels(tmp_path, "mini-kinetics")
    assert said(labels) == [
        ("-tcD0", ('running "it"',), "train"),
        ("v_KW", ("yoga",), "train"),
        ("gone", ("yoga",), "train"),
        ("7LSJ", ('running "it"',), "val"),
    ]
    aliases = [("-tcD0_000005_000015",), ("v_KW_000010_000020",), (), ()]
    assert [v.aliases for v in labels.videos] == aliases
    assert [v.frames for v in labels.videos] == [142, 300, 300, 299]
    # A list that is named is no question of which benchmark is meant; the folder is.
    assert read_labels(tmp_path / "mini_kinetics_train.txt").videos == labels.videos[:3]
    with pytest.raises(
        LabelError, match=r"labels of mini-kinetics and of kinetics; say which with format_name"
    ):
        read_labels(tmp_path)
    write_stream(tmp_path / "cache", make_spec(), {"-tcD0_000005_000015": 3, "v_KW": 3, "gone": 3, "7LSJ": 3})
    sets = open_dataset(FeatureCache(tmp_path / "cache"), labels, {"fine": "tiny_8"})
    assert sets.classes == ('running "it"', "yoga")


def test_kinetics_files_that_err_a_little(tmp_path: Path) -> None:
    """A few videos of another class, of two clips, or of none that is told do not change a class."""
    videos = [f"{'ab'[k % 2]}{k}" for k in range(20)]
    rows = [f"{'running' if video[0] == 'a' else 'yoga'},{video},1,11,train" for video in videos]
    rows[0] = "jumping,a0,1,11,train"
    rows += ["jumping,a2,20,30,train", "yoga,b1,20,30,train"]
    lists = {"mini_kinetics_train.txt": "".join(f"{v} 300 {'ab'.index(v[0])}\n" for v in videos)}
    withheld = {"test.csv": "youtube_id,time_start,time_end,split\na4,20,30,test\n"}
    folder_of(tmp_path, {**lists, **kinetics_400("\n".join(rows)), **withheld})
    labels = read_labels(tmp_path, "mini-kinetics")
    assert {v.labels for v in labels.videos if v.video_id[0] == "a"} == {("running",)}
    assert {v.labels for v in labels.videos if v.video_id[0] == "b"} == {("yoga",)}
    aliases = {v.video_id: v.aliases for v in labels.videos}
    assert aliases["a0"] == ("a0_000001_000011",)  # its only clip, whatever it is called
    assert aliases["a2"] == ("a2_000001_000011",)  # of two, the one of its class
    assert aliases["a4"] == ("a4_000001_000011",)
    assert aliases["b1"] == ()  # both are


def test_kinetics(tmp_path: Path) -> None:
    labels = read_labels(folder_of(tmp_path, KINETICS))
    assert said(labels) == [
        ("xyz_000000_000010", (), "test"),
        ("-3B_000059_000069", ('wrapping "it", up',), "train"),
        ("_db_000104_000114", ("abseiling",), "val"),
    ]
    assert [v.aliases for v in labels.videos] == [("xyz",), ("-3B",), ("_db",)]
    assert all(v.segments == () and v.frames is None for v in labels.videos)
    assert said(read_labels(tmp_path / "validate.csv")) == said(labels)[2:]


def test_a_youtube_id_of_two_clips_is_nobodys(tmp_path: Path) -> None:
    rows = "run,a,0,10,train\njump,a,10,20,train\nrun,b,0,10,val\n"
    labels = read_labels(
        folder_of(tmp_path, {"k.csv": f"label,youtube_id,time_start,time_end,split\n{rows}"})
    )
    assert [v.aliases for v in labels.videos] == [(), (), ("b",)]


def test_kinetics_json(tmp_path: Path) -> None:
    entry = {"annotations": {"label": "testifying", "segment": [84.0, 94.0]}, "duration": 10.0, "url": "u"}
    withheld = {"annotations": {"segment": [0, 10]}, "subset": "test"}
    text = json.dumps({"---Q": {**entry, "subset": "validate"}, "x": withheld}, indent=1)
    expected = [("---Q_000084_000094", ("testifying",), "val"), ("x_000000_000010", (), "test")]
    labels = read_labels(folder_of(tmp_path, {"validate.json": text}))
    assert said(labels) == expected
    assert labels.videos[0].aliases == ("---Q",)
    assert said(read_labels(tmp_path / "validate.json")) == expected
    # A release that has both forms says the same twice.
    assert len(read_labels(folder_of(tmp_path, KINETICS)).videos) == 3


def test_fcvid(tmp_path: Path) -> None:
    labels = read_labels(folder_of(tmp_path, FCVID))
    assert said(labels) == [
        ("a b", ("class 1",), "train"),
        ("dog/c", ("class 0", "class 2"), "test"),
        ("cat/c", ("class 0",), "test"),
        ("d.e", (), "train"),
    ]
    assert [v.aliases for v in labels.videos] == [("dog/a b",), (), (), ()]
    assert read_labels(tmp_path / "FCVID_Label.txt").videos == labels.videos


def test_fcvid_lists(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = {"fcvid_train.txt": "x/a.flv 3\nb 4 5 4\n", "fcvid_test.txt": "c 3\n"}
    labels = read_labels(folder_of(tmp_path / "plain", plain))
    assert said(labels) == [
        ("a", ("class 3",), "train"),
        ("b", ("class 4", "class 5"), "train"),
        ("c", ("class 3",), "test"),
    ]
    assert (labels.videos[0].aliases, labels.videos[0].frames) == (("x/a",), None)
    commas = {"fcvid_train_split.txt": "a b,900,3\n", "fcvid_val_split.txt": "c, 70, 3, 1\n"}
    labels = read_labels(folder_of(tmp_path, commas))
    assert [(*v, n.frames) for v, n in zip(said(labels), labels.videos, strict=True)] == [
        ("a b", ("class 3",), "train", 900),
        ("c", ("class 3", "class 1"), "val", 70),
    ]


def test_breakfast(tmp_path: Path) -> None:
    labels = read_labels(folder_of(tmp_path, BREAKFAST))
    assert said(labels) == [
        ("P16_cam01_P16_cereals", ("cereals",), "train"),
        ("P54_stereo01_P54_tea", ("tea",), "train"),
        ("P03_webcam02_P03_scrambledegg", ("scrambledegg",), "test"),
    ]
    assert [v.aliases for v in labels.videos] == [
        ("P16/cam01/P16_cereals",),
        ("P54/stereo/P54_tea_ch0", "P54/stereo/P54_tea_ch1"),
        ("P03/webcam02/P03_scrambledegg",),
    ]
    second = read_labels(tmp_path, "breakfast-s2")
    assert {v.video_id for v in second.subset("test")} == {"P16_cam01_P16_cereals"}
    assert read_labels(tmp_path / "test.split2.bundle").subsets == ("test",)


@pytest.mark.parametrize(
    ("split", "tested"), [(1, range(3, 16)), (2, range(16, 29)), (3, range(29, 42)), (4, range(42, 55))]
)
def test_breakfast_splits_by_person(split: int, tested: range, tmp_path: Path) -> None:
    names = "\n".join(f"videos/P{n:02d}_cam01_P{n:02d}_tea.avi" for n in range(3, 55))
    path = folder_of(tmp_path, {"all.txt": names}) / "all.txt"
    labels = read_labels(path, f"breakfast-s{split}")
    assert {int(v.video_id[1:3]) for v in labels.subset("test")} == set(tested)
    assert {v.subset for v in labels.videos} == {"train", "test"}
    assert (said(read_labels(path)) == said(labels)) == (split == 1)


WRONG: list[tuple[dict[str, str], dict[str, str | None], str]] = [
    # A published folder, what is changed in it (None: deleted), and what is said.
    (ANET, {"action_name.csv": None}, r"action_name.csv: no such file; it names the classes"),
    (ANET, {"action_name.csv": "Polo\n"}, r"action_name.csv, line 1: 'Polo' is not the header"),
    (ANET, {"action_name.csv": "action\n"}, r"action_name.csv: no classes"),
    (ANET, {"action_name.csv": "action\na\n\nb\n"}, r"action_name.csv, line 3: empty"),
    (ANET, {"action_name.csv": "action\na\nb\na\n"}, r"action_name.csv, line 4: class 'a' occurs twice"),
    (ANET, {"action_name.csv": "action\na\nb\n"}, r"anet_train_video.txt, line 1: .*class 2, .* 0 to 1"),
    (ANET, {"anet_train_video.txt": "v_a 9 1\nv_b 9\n"}, r"anet_train_video.txt, line 2: 'v_b 9' is not 'NAME "),
    (ANET, {"anet_train_video.txt": "v_a 9 1\n\nv_a 9 1\n"}, r"line 3: video 'v_a' occurs twice, .* line 1$"),
    (ANET, {"anet_train_video.txt": "v_c 9 1\n"}, r"multi_label.txt, line 1: .*twice, first in anet_train_.*1$"),
    (ANET, {"anet_train_video.txt": "\n"}, r"anet_train_video.txt: no videos"),
    (ANET, {"anet_val_video.txt": "v_c 9 1\n"}, r"both anet_val_video.txt and anet_val_video_multi_label.txt"),
    (ANET, {"mini_kinetics_val.txt": "x 9 1\n"}, r"activitynet-lists and of mini-kinetics; say which"),
    (MINI, {"mini_kinetics_val.txt": "x 300 -1\n"}, r"mini_kinetics_val.txt, line 1: 'x 300 -1' is not"),
    (MINI, {"mini_kinetics_val.txt": "x 1_0 1\n"}, r"line 1: 'x 1_0 1' is not"),
    (MINI, {"mini_kinetics_val.txt": "x 300 ²\n"}, r"line 1: 'x 300 ²' is not"),
    (MINI, {"mini_kinetics_val.txt": f"x 300 {'1' * 9999}\n"}, r"line 1: 'x 300 1{54}…' is not"),
    (MINI, {"mini_kinetics_val.txt": "v_a,9,1\n"}, r"line 1: 'v_a,9,1' is not"),
    (KINETICS, {"train.csv": KINETICS["train.csv"] + "run,,0,10,train,0\n"}, r"line 3: no youtube_id"),
    (KINETICS, {"train.csv": KINETICS["train.csv"] + ",x,0,10,train,0\n"}, r"line 3: no label for clip 'x'"),
    (KINETICS, {"train.csv": KINETICS["train.csv"] + "run,x,0,10\n"}, r"line 3: no split for clip 'x'"),
    (KINETICS, {"train.csv": KINETICS["train.csv"] + "run,x,10,9,train,0\n"}, r"line 3: from '10' to '9' is no"),
    (KINETICS, {"train.csv": KINETICS["train.csv"] + "run,x,a,9,train,0\n"}, r"line 3: from 'a' to '9' is no"),
    (KINETICS, {"train.csv": KINETICS["train.csv"] + "run,x,nan,9,train,0\n"}, r"line 3: from 'nan' to"),
    (KINETICS, {"train.csv": KINETICS["train.csv"] + 'run,"x,0,9,train,0\n'}, r"line 3: not CSV"),
    (KINETICS, {"train.csv": KINETICS["train.csv"] + "a,-3B,59,69,val,0\n"}, r"line 3: clip .* first at .*line 2"),
    (KINETICS, {"train.csv": KINETICS["train.csv"].split("\n", maxsplit=1)[0]}, r"train.csv: no clips"),
    (FCVID, {"FCVID_Label.txt": None}, r"FCVID_Label.txt: no such file; .* belong together"),
    (FCVID, {"FCVID_Label.txt": "0 1\n"}, r"TrainTestSplit.txt has more lines than FCVID_Label.txt"),
    (FCVID, {"FCVID_Label.txt": "0 1\n" * 5}, r"FCVID_Label.txt has more lines than"),
    (FCVID, {"FCVID_Label.txt": "0 1\n0 1 0\n"}, r"FCVID_Label.txt, line 2: 3 values, .* have 2"),
    (FCVID, {"FCVID_Label.txt": "0 1\n0 2\n"}, r"FCVID_Label.txt, line 2: '2' is not 0 or 1"),
    (FCVID, {"FCVID_VideoName_TrainTestSplit.txt": "a train\na test\n"}, r"line 2: video 'a' occurs twice, .* 1"),
    (FCVID, {"FCVID_VideoName_TrainTestSplit.txt": "a\n"}, r"line 1: 'a' is not 'NAME train'"),
    (FCVID, {"FCVID_VideoName_TrainTestSplit.txt": "", "FCVID_Label.txt": ""}, r"no videos in it"),
    (BREAKFAST, {"test.split1.bundle": None}, r"no test.split1.bundle, which split s1 .* needs"),
    (BREAKFAST, {"test.split1.bundle": "rgb-01-1.txt\n"}, r"line 1: 'rgb-01-1.txt' is not a video of Breakfast"),
    (BREAKFAST, {"test.split1.bundle": "P03_cam01_P03_toast\n"}, r"line 1: .* is not a video of Breakfast"),
    (BREAKFAST, {"test.split1.bundle": "P03_cam01_P04_tea\n"}, r"line 1: .* is not a video of Breakfast"),
    (BREAKFAST, {"test.split1.bundle": "P60_cam01_P60_tea\n"}, r"line 1: .*are P03 to P54, not P60"),
    (BREAKFAST, {"test.split1.bundle": "#bundle\nP20_cam01_P20_tea\n"}, r"line 2: .* is a train video of split"),
    (BREAKFAST, {"test.split1.bundle": "P03_cam01_P03_tea\n" * 2}, r"line 2: .*occurs twice, first at .*line 1"),
    (BREAKFAST, {"test.split1.bundle": "#\n", "train.split1.bundle": ""}, r"no videos in it"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "changed", "message"), WRONG)
def test_what_is_wrong_with_published_files(
    files: dict[str, str], changed: dict[str, str | None], message: str, tmp_path: Path
) -> None:
    remaining = {name: text for name, text in {**files, **changed}.items() if text is not None}
    with pytest.raises(LabelError, match=message) as caught:
        read_labels(folder_of(tmp_path, remaining))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("yoga,v_KW,0,10,train\n", r"have none of the videos of 1 of the 2 classes: 0; put all"),
        ("yoga,other,0,10,train\n", r"have none of the videos of 2 of the 2 classes: 0, 199; put all"),
        ("yoga,v_KW,0,10,train\nyoga,7LSJ,0,10,val\n", r"class 0 and of class 199 are both 'yoga'"),
        (
            "yoga,v_KW,0,10,train\njumping,7LSJ,0,10,val\nrunning,-tcD0,0,10,train\n",
            r"class 0 are of several classes .*: 1 of 'running', 1 of 'jumping'",
        ),
        ("yoga,v_KW,10,0,train\n", r"train.csv, line 2: from '10' to '0' is no stretch"),
    ],
)
def test_kinetics_files_that_are_not_those_of_the_lists(rows: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        read_labels(folder_of(tmp_path, {**MINI, **kinetics_400(rows)}), "mini-kinetics")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("activitynet-lists", "expected ActivityNet's anet_train_video.txt"),
        ("mini-kinetics", "expected mini_kinetics_train.txt"),
        ("kinetics", "no column 'youtube_id'"),
        ("fcvid", "expected FCVID's"),
        ("breakfast", "line 1: .* is not a video of Breakfast"),
    ],
)
def test_another_file_than_the_format_that_is_named(name: str, message: str, tmp_path: Path) -> None:
    folder_of(tmp_path, {"labels.csv": "video_id,label,subset\na,x,train\n"})
    with pytest.raises(LabelError, match=message):
        read_labels(tmp_path / "labels.csv", name)
    if name in {"activitynet-lists", "mini-kinetics", "kinetics", "fcvid"}:
        with pytest.raises(LabelError, match="expected"):
            read_labels(tmp_path, name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a Kinetics annotation file"),
        ('{"x": {"subset": "val"}}', "clip 'x' is not annotated"),
        ('{"x": {"subset": "val", "annotations": {"label": 3, "segment": [0, 1]}}}', "the label is no text"),
        ('{"x": {"subset": "val", "annotations": {"label": "a", "segment": [0]}}}', "clip 'x' is not annotated"),
        ('{"x": {"subset": "val", "annotations": {"label": "a", "segment": [0, "b"]}}}', "from 0 to 'b' is no"),
        ("[" * 200_000, "nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_kinetics_json(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=message):
        read_labels(folder_of(tmp_path, {"k.json": text}) / "k.json", "kinetics")


def test_formats_are_told_apart(tmp_path: Path) -> None:
    folder_of(tmp_path, {"notes.txt": "run fast\n", "labels.csv": "video_id,label,subset\na,x,train\n"})
    with pytest.raises(
        LabelError, match=r"no format that is known: a folder with .*1 \.csv.*; name the file"
    ):
        read_labels(tmp_path)
    with pytest.raises(LabelError, match="no format that is known: its first line is 'run fast'"):
        read_labels(tmp_path / "notes.txt")
    with pytest.raises(LabelError, match=r"mini_kinetics_train.txt: cannot read the labels: No such file"):
        read_labels(tmp_path / "mini_kinetics_train.txt")
    with pytest.raises(LabelError, match="No such file"):
        read_labels(tmp_path / "nowhere", "breakfast")
    (tmp_path / "mini_kinetics_val.txt").write_bytes(b"caf\xe9 300 1\n")
    with pytest.raises(LabelError, match=r"mini_kinetics_val.txt: not a text file in UTF-8"):
        read_labels(tmp_path)
    # Two benchmarks in one folder are a question, not a guess.
    for name, text in ANET.items():
        (tmp_path / name).write_text(text)
    assert len(read_labels(tmp_path, "activitynet-lists").videos) == 4


@pytest.mark.slow
def test_long_lists(tmp_path: Path) -> None:
    names = (f"video{i:07d} 300 {i % 200}\n" for i in range(200_000))
    folder_of(tmp_path, {"mini_kinetics_train.txt": "".join(names)})
    assert len(read_labels(tmp_path).videos) == 200_000  # in hours, were it quadratic


def test_clips_are_found_under_both_of_their_names(tmp_path: Path) -> None:
    labels = read_labels(folder_of(tmp_path, KINETICS))
    write_stream(tmp_path / "cache", make_spec(), {"-3B": 3, "_db_000104_000114": 3})
    cache = FeatureCache(tmp_path / "cache")
    with pytest.raises(LabelError, match="class: 'abseiling' of subset 'val' without a video"):
        open_dataset(cache, labels, {"fine": "tiny_8"})  # both were found


@needs_published_files
def test_activitynet_as_published() -> None:
    labels = read_labels(Path(str(PUBLISHED)) / "activitynet")
    assert Counter(v.subset for v in labels.videos) == {"training": 10_024, "validation": 4_926}
    assert len(labels.classes) == 200
    assert sum(len(v.labels) > 1 for v in labels.videos) == 7
    first = labels.videos[0]
    assert (first.video_id, first.aliases, first.frames) == ("v_sJFgo9H6zNo", ("sJFgo9H6zNo",), 4169)
    assert first.labels == ("Fun sliding down",)


@needs_published_files
def test_mini_kinetics_as_published() -> None:
    labels = read_labels(Path(str(PUBLISHED)) / "mini_kinetics")
    assert Counter(v.subset for v in labels.videos) == {"train": 121_070, "val": 9_864}
    assert set(labels.classes) == {f"class {n}" for n in range(200)}
    assert not labels.multi_label


@needs_published_files
def test_mini_kinetics_as_published_beside_kinetics(tmp_path: Path) -> None:
    """Against Kinetics' files made of the list: it has every other of 400 classes, a clip in 30 is gone."""
    published = Path(str(PUBLISHED)) / "mini_kinetics" / "mini_kinetics_val.txt"
    text = published.read_text()
    clips = [(name, 2 * int(number)) for name, _, number in map(str.split, text.splitlines())]
    kept = [(k, *clip) for k, clip in enumerate(clips) if k % 30]
    rows = [f'"name, {number:03d}",{name},{k},{k + 10},x\n' for k, name, number in kept]
    rows += [f'"name, {number:03d}",other{number},0,10,x\n' for number in range(1, 400, 2)]
    folder_of(tmp_path, {published.name: text, **kinetics_400("".join(rows))})
    labels = read_labels(tmp_path, "mini-kinetics")
    assert [(v.video_id, v.labels) for v in labels.videos] == [(n, (f"name, {c:03d}",)) for n, c in clips]
    assert sum(not v.aliases for v in labels.videos) == len(clips) - len(kept)
    assert labels.videos[1].aliases == ("DcwyDVypfYg_000001_000011",)


@needs_published_files
@pytest.mark.slow
def test_mini_kinetics_numbers_follow_the_sorted_names() -> None:
    """As HVU's validation clips of the same videos tell them."""
    actions: defaultdict[str, set[str]] = defaultdict(set)
    for video in read_labels(Path(str(PUBLISHED)) / "hvu", "hvu-action").videos:
        actions[video.video_id[:11]].update(video.labels)
    anywhere = Counter(action for of_video in actions.values() for action in of_video)
    shared: defaultdict[int, list[str]] = defaultdict(list)
    for video in read_labels(Path(str(PUBLISHED)) / "mini_kinetics").videos:
        if video.video_id in actions:
            shared[int(video.labels[0].removeprefix("class "))].append(video.video_id)
    names = []
    for _, videos in sorted(shared.items()):
        here = Counter(action for video in videos for action in actions[video])
        # The action that most of a number's videos have, and few others.
        names.append(
            max(here, key=lambda action: here[action] / len(videos) * here[action] / anywhere[action])
        )
        assert here[names[-1]] >= 0.95 * len(videos)
    assert len(names) == 192
    assert names == sorted(set(names))
