"""HVU's label files as published, and what may be wrong with them.

THRIFTVID_DATA names a folder with the published files themselves; without it the tests of those are skipped.
"""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache_schema import FeatureCache, LabelError
from cache_schema.annotations import LabelSet, read_labels
from cache_schema.annotations.hvu import CATEGORIES
from policy.data.opening import open_dataset
from tests.caches import make_spec, write_stream

PUBLISHED = os.environ.get("THRIFTVID_DATA")
needs_published_files = pytest.mark.skipif(not PUBLISHED, reason="THRIFTVID_DATA names no folder")

HEADER = "Tags,youtube_id,time_start,time_end\n"
TRAIN, VAL, TAGS = "HVU_Train_V1.0.csv", "HVU_Val_V1.0.csv", "HVU_Tags_Categories_V1.0.csv"
HVU = {
    TRAIN: f"{HEADER}lawn|running|grass,aaaaaaaaaaa,101.5,103.5\ngrass,aaaaaaaaaaa,3,5\n"
    "running|lawn,-bbbbbbbbbb,0,10\n",
    VAL: f"{HEADER}grass|dusk,ccccccccccc,770,780\n",
    TAGS: "Tag,Category\nrunning,action\nlawn,scene\ngrass,object\ndusk,concept\n",
}


def folder_of(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def zip_of(path: Path, members: dict[str, str], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def said(labels: LabelSet) -> list[tuple[str, tuple[str, ...], str]]:
    return [(v.video_id, v.labels, v.subset) for v in labels.videos]


def test_published_layout(tmp_path: Path) -> None:
    labels = read_labels(folder_of(tmp_path, HVU))
    assert said(labels) == [
        ("aaaaaaaaaaa_000101_000103", ("lawn", "running", "grass"), "train"),
        ("aaaaaaaaaaa_000003_000005", ("grass",), "train"),
        ("-bbbbbbbbbb_000000_000010", ("running", "lawn"), "train"),
        ("ccccccccccc_000770_000780", ("grass", "dusk"), "val"),
    ]
    assert [v.aliases for v in labels.videos] == [
        ("aaaaaaaaaaa_000101_000103_", "aaaaaaaaaaa_001015_001035"),  # the YouTube id is that of two clips
        ("aaaaaaaaaaa_000003_000005_", "aaaaaaaaaaa_000030_000050"),
        ("-bbbbbbbbbb_000000_000010_", "-bbbbbbbbbb_000000_000100", "-bbbbbbbbbb"),
        ("ccccccccccc_000770_000780_", "ccccccccccc_007700_007800", "ccccccccccc"),
    ]
    assert labels.multi_label
    assert labels.classes == ("dusk", "grass", "lawn", "running")
    assert all(v.segments == () and v.frames is None for v in labels.videos)
    assert said(read_labels(tmp_path / VAL)) == said(labels)[3:]


def test_one_category(tmp_path: Path) -> None:
    folder_of(tmp_path, HVU)
    scenes = read_labels(tmp_path, "hvu-scene")
    assert [v.labels for v in scenes.videos] == [("lawn",), (), ("lawn",), ()]
    assert len(scenes.subset("train")) == 2
    with pytest.raises(LabelError, match="subset 'val' have no labels"):
        scenes.subset("val")
    kept = [read_labels(tmp_path, f"hvu-{category}") for category in CATEGORIES]
    for i, whole in enumerate(read_labels(tmp_path).videos):
        parts = [labels.videos[i] for labels in kept]
        assert {v.video_id for v in parts} == {whole.video_id}
        assert Counter(tag for v in parts for tag in v.labels) == Counter(whole.labels)


def test_zips_as_published_need_no_unpacking(tmp_path: Path) -> None:
    expected = read_labels(folder_of(tmp_path, HVU)).videos
    (tmp_path / "zipped").mkdir()
    folder_of(tmp_path / "zipped", {TAGS: HVU[TAGS], VAL: HVU[VAL]})
    zip_of(tmp_path / "zipped" / "HVU_Train_V1.0.zip", {TRAIN: HVU[TRAIN], f"__MACOSX/._{TRAIN}": "\0"})
    val = zip_of(tmp_path / "zipped" / "HVU_Val_V1.0.zip", {f"labels/{VAL}": HVU[VAL]})
    # Unpacked beside its zip, it is the same thing twice.
    assert read_labels(tmp_path / "zipped").videos == expected
    assert read_labels(val).videos == expected[3:]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(compression: int, tmp_path: Path) -> None:
    zip_of(tmp_path / "hvu_val.zip", {"hvu_val.csv": HVU[VAL]}, compression)
    assert len(read_labels(tmp_path).videos) == 1


def test_without_the_categories_any_tag_is_good(tmp_path: Path) -> None:
    # Names as MMAction2 has them; line ends of Windows, a byte order mark, and room around the fields.
    text = "\ufeff" + HVU[VAL].replace("grass|dusk", " grass |new|grass").replace("\n", "\r\n") + "\r\n"
    (tmp_path / "hvu_val.csv").write_bytes(text.encode())
    labels = read_labels(tmp_path)
    assert said(labels) == [("ccccccccccc_000770_000780", ("grass", "new"), "val")]
    with pytest.raises(LabelError, match=r"no HVU_Tags_Categories_V1.0.csv, .* category 'event'"):
        read_labels(tmp_path, "hvu-event")


def test_names_that_two_clips_have_are_nobodys(tmp_path: Path) -> None:
    # 0.5 to 2.5 s and 0 to 2 s are alike in whole seconds; 100 to 200 s in seconds is 10 to 20 s in tenths.
    spans = ["0.5,2.5", "0,2", "10,20", "100,200"]
    text = HEADER + "".join(f"grass,y,{span}\n" for span in spans)
    labels = read_labels(folder_of(tmp_path, {TRAIN: text}))
    assert [(v.video_id, v.aliases) for v in labels.videos] == [
        ("y_000005_000025", ()),
        ("y_000000_000020", ()),
        ("y_000010_000020", ("y_000010_000020_",)),
        ("y_000100_000200_", ("y_001000_002000",)),
    ]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    clips=st.lists(
        st.tuples(
            st.sampled_from("xy"), st.integers(0, 60).map(lambda n: n / 2), st.sampled_from([0.5, 2, 10, 100])
        ),
        min_size=1,
        unique=True,
    )
)
def test_every_name_means_one_clip(clips: list[tuple[str, float, float]], tmp_path: Path) -> None:
    rows = "".join(f"a,{name},{start:g},{start + length:g}\n" for name, start, length in clips)
    videos = read_labels(folder_of(tmp_path, {VAL: HEADER + rows})).videos
    owners = defaultdict(set)
    for i, video in enumerate(videos):
        for name in (video.video_id, *video.aliases):
            owners[name].add(i)
    assert len(videos) == len(clips)
    assert all(len(named) == 1 for named in owners.values())


WRONG: list[tuple[dict[str, str | None], str]] = [
    # What is changed in the published folder (None: deleted), and what is said.
    ({VAL: "Tags,id,time_start,time_end\na,b,0,1\n"}, rf"{VAL}, line 1: 'Tags,id,.*' is not the header 'Tags,you"),
    ({VAL: ""}, rf"{VAL}, line 1: '' is not the header"),
    ({VAL: HEADER}, rf"{VAL}: no clips in it"),
    ({VAL: f"{HEADER}grass,c,0,1\ngrass,d,0\n"}, rf"{VAL}, line 3: 3 fields, not the 4 of 'Tags,"),
    ({VAL: f"{HEADER}grass,lawn,c,0,1\n"}, r"line 2: 5 fields, not the 4"),
    ({VAL: f"{HEADER}grass||lawn,c,0,1\n"}, r"line 2: an empty tag between '\|'"),
    ({VAL: f"{HEADER}\ngrass|,c,0,1\n"}, r"line 3: an empty tag between '\|'"),
    ({VAL: f"{HEADER},c,0,1\n"}, r"line 2: no tags for clip 'c'"),
    ({VAL: f"{HEADER}grass, ,0,1\n"}, r"line 2: no youtube_id"),
    ({VAL: f"{HEADER}grass,c,0,1\ngras|lawn,d,0,1\n"}, r"line 3: tag 'gras' is not in .*categories"),
    ({VAL: f"{HEADER}grass,c,5,5\n"}, r"line 2: from '5' to '5' is no stretch of seconds"),
    ({VAL: f"{HEADER}grass,c,5,4.5\n"}, r"line 2: from '5' to '4.5' is no"),
    ({VAL: f"{HEADER}grass,c,-1,4\n"}, r"line 2: from '-1' to '4' is no"),
    ({VAL: f"{HEADER}grass,c,nan,4\n"}, r"line 2: from 'nan' to"),
    ({VAL: f"{HEADER}grass,c,0,inf\n"}, r"line 2: from '0' to 'inf'"),
    ({VAL: f"{HEADER}grass,c,0,x\n"}, r"line 2: from '0' to 'x'"),
    ({VAL: f"{HEADER}grass,c,0,1\nlawn,c,0.0,1\n"}, rf"line 3: the clip of 'c' from 0 to 1 s .* {VAL}, line 2"),
    ({VAL: f"{HEADER}grass,aaaaaaaaaaa,3,5\n"}, rf"line 2: the clip .*twice, first in {TRAIN}, line 3; del"),
    ({VAL: f'{HEADER}grass,c,0,1\n"grass,d,0,1\n\n\n'}, rf"{VAL}, line 3: not CSV"),
    ({"hvu_val.csv": HVU[VAL]}, rf"both {VAL} and hvu_val.csv list the val videos"),
    ({"hvu_categories.csv": HVU[TAGS]}, rf"both {TAGS} and hvu_categories.csv divide the tags"),
    ({TAGS: "grass,object\n"}, rf"{TAGS}, line 1: 'grass,object' is not the header 'Tag,Category'"),
    ({TAGS: "Tag,Category\n"}, rf"{TAGS}: no tags in it"),
    ({TAGS: "Tag,Category\ngrass,things\n"}, rf"{TAGS}, line 2: 'things' is no category; they are action, "),
    ({TAGS: "Tag,Category\n,object\n"}, rf"{TAGS}, line 2: no tag"),
    ({TAGS: f"{HVU[TAGS]}lawn,object\n"}, rf"{TAGS}, line 6: tag 'lawn' occurs twice"),
    ({TAGS: "Tag,Category\ngrass\n"}, rf"{TAGS}, line 2: 1 fields, not the 2"),
    ({"mini_kinetics_val.txt": "x 9 1\n"}, r"mini-kinetics and of hvu; say which with format_name"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "message"), WRONG)
def test_what_is_wrong_with_published_files(
    changed: dict[str, str | None], message: str, tmp_path: Path
) -> None:
    remaining = {name: text for name, text in {**HVU, **changed}.items() if text is not None}
    with pytest.raises(LabelError, match=message) as caught:
        read_labels(folder_of(tmp_path, remaining))
    assert "\n" not in str(caught.value)


def test_what_is_wrong_with_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "HVU_Val_V1.0.zip"
    zip_of(path, {"readme.txt": "labels"})
    with pytest.raises(LabelError, match=r"Val_V1.0.zip: holds no .csv file; unpack the one with the labels"):
        read_labels(path)
    zip_of(path, {VAL: HVU[VAL], TRAIN: HVU[TRAIN]})
    with pytest.raises(LabelError, match=rf"holds several .csv files, such as {TRAIN}, {VAL}"):
        read_labels(path)
    path.write_bytes(b"PK\3\4 and no more")
    with pytest.raises(LabelError, match=r"Val_V1.0.zip: not a zip that can be read \(.*; get it again"):
        read_labels(path)
    zip_of(path, {VAL: "Tags\n"})
    with pytest.raises(LabelError, match=r"Val_V1.0.zip, line 1: 'Tags' is not the header"):
        read_labels(path)
    with pytest.raises(LabelError, match=r"Train_V1.0.zip: cannot read the labels: No such file"):
        read_labels(tmp_path / "HVU_Train_V1.0.zip")


def test_a_zip_is_not_unpacked_without_end(tmp_path: Path) -> None:
    path = tmp_path / "HVU_Val_V1.0.zip"
    zip_of(path, {VAL: HVU[VAL]})
    content = path.read_bytes()
    directory = content.index(b"PK\1\2")  # the size that is unpacked is 24 bytes on
    huge = content[: directory + 24] + (3_000_000_000).to_bytes(4, "little") + content[directory + 28 :]
    path.write_bytes(huge)
    with pytest.raises(LabelError, match=rf"{VAL} has 3.0 GB unpacked, too much for a file of labels"):
        read_labels(path)


def test_a_damaged_zip_is_said_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "HVU_Val_V1.0.zip"
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        content = zip_of(path, {VAL: HVU[VAL]}, compression).read_bytes()
        refused = 0
        for place in range(len(content)):
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
            try:
                read_labels(path)
            except LabelError as error:
                assert "\n" not in str(error)
                refused += 1
        assert refused > len(content) // 3  # dates and the like may be anything


def test_text_of_another_encoding(tmp_path: Path) -> None:
    (tmp_path / VAL).write_bytes(f"{HEADER}caf".encode() + b"\xe9,c,0,1\n")
    with pytest.raises(LabelError, match=rf"{VAL}: not a text file in UTF-8"):
        read_labels(tmp_path)
    (tmp_path / VAL).unlink()
    zip_of(tmp_path / "HVU_Val_V1.0.zip", {VAL: ""})
    with zipfile.ZipFile(tmp_path / "HVU_Val_V1.0.zip", "w") as archive:
        archive.writestr(VAL, f"{HEADER}caf".encode() + b"\xe9,c,0,1\n")
    with pytest.raises(LabelError, match=r"HVU_Val_V1.0.zip: not a text file in UTF-8"):
        read_labels(tmp_path)


def test_formats_are_told_apart(tmp_path: Path) -> None:
    folder_of(tmp_path, {"mine.csv": HVU[VAL], "labels.csv": "video_id,label,subset\na,x,train\n"})
    with pytest.raises(LabelError, match=r"mine.csv: expected HVU's .*: the name says which subset it is"):
        read_labels(tmp_path / "mine.csv")
    with pytest.raises(LabelError, match=r"expected HVU's HVU_Train_V1.0 and HVU_Val_V1.0"):
        read_labels(tmp_path, "hvu")
    assert read_labels(tmp_path / "labels.csv").subsets == ("train",)


def test_clips_are_found_under_all_of_their_names(tmp_path: Path) -> None:
    labels = read_labels(folder_of(tmp_path, HVU))
    cached = [
        "aaaaaaaaaaa_000101_000103_",
        "aaaaaaaaaaa_000030_000050",
        "-bbbbbbbbbb",
        "ccccccccccc_000770_000780",
    ]
    write_stream(tmp_path / "cache", make_spec(), dict.fromkeys(cached, 3))
    with pytest.raises(LabelError, match="class: 'dusk' of subset 'val' without a video"):
        open_dataset(FeatureCache(tmp_path / "cache"), labels, {"fine": "tiny_8"})  # all were found


@needs_published_files
def test_hvu_as_published() -> None:
    folder = Path(str(PUBLISHED)) / "hvu"
    labels = read_labels(folder)
    assert {v.subset for v in labels.videos} == {"val"}
    assert (len(labels.videos), len(labels.classes)) == (31_171, 3_142)
    with zipfile.ZipFile(folder / "HVU_Val_V1.0.zip") as archive:
        text = archive.read(VAL).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [v.labels for v in labels.videos] == [tuple(row["Tags"].split("|")) for row in rows]
    first = labels.videos[0]
    assert first.video_id == "gD_G1b0wV5I_000101_000103"  # one of four of this video
    assert first.aliases == ("gD_G1b0wV5I_000101_000103_", "gD_G1b0wV5I_001015_001035")
    assert sum(row["youtube_id"] in v.aliases for row, v in zip(rows, labels.videos, strict=True)) == 28_827
    assert all(len(v.aliases) >= 2 for v in labels.videos)
    assert {c: len(read_labels(folder, f"hvu-{c}").classes) for c in ("action", "scene")} == {
        "action": 739,
        "scene": 248,
    }
