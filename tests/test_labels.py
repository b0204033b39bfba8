"""Label files: what they say, what is wrong with them, and how they meet the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cache_schema import FeatureCache, LabelError, UserError, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel, read_labels
from policy.config import DataConfig
from policy.data.opening import Dataset, open_dataset
from tests.caches import make_record, make_spec

TOOLS = {"thriftvid": "test"}


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv(tmp_path: Path) -> None:
    text = "﻿video_id,label,subset\na,run,train\n'b,jump; run;jump,val\n"
    labels = read_labels(write(tmp_path, text))
    assert [(v.video_id, v.labels, v.subset) for v in labels.videos] == [
        ("a", ("run",), "train"),
        ("'b", ("jump", "run"), "val"),
    ]
    assert labels.classes == ("jump", "run")
    assert labels.multi_label
    assert labels.subsets == ("train", "val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'video_id'"),
        ("video_id,label,subset\n", "no videos"),
        ("video_id,label,subset\na,,train\n", "line 2: no label for video 'a'"),
        ("video_id,label,subset\na,x,train\n,x,train\n", "line 3: no video_id"),
        ("video_id,label,subset\na,x;;y,train\n", "line 2: an empty label"),
        ("video_id,label,subset\na,x,train\na,y,train\n", "video 'a' occurs twice"),
        ('video_id,label,subset\na,x,train\nb,"x,train\nc,x,train\n', "csv, line 3: not CSV"),
        (f"video_id,label,subset\na,{'x' * 200_000},train\n", "csv, line 2: not CSV .*limit"),
        ('"video_id,label,subset\na,x,train\n', "csv, line 1: not CSV"),
    ],
)
def test_what_is_wrong_with_a_csv(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=message):
        read_labels(write(tmp_path, text))


def test_activitynet(tmp_path: Path) -> None:
    def annotation(label: str) -> dict[str, object]:
        return {"label": label, "segment": [1.5, 4]}

    database = {
        "xx": {"subset": "training", "annotations": [annotation("Polo"), annotation("Polo")]},
        "yy": {"subset": "testing", "annotations": []},
    }
    # Some editors put a byte order mark in front.
    path = write(
        tmp_path, "\ufeff" + json.dumps({"version": "VERSION 1.3", "database": database}), "anet.json"
    )
    labels = read_labels(path)
    first, second = labels.videos
    assert (first.video_id, first.aliases, first.labels) == ("v_xx", ("xx",), ("Polo",))
    assert [(s.start_s, s.end_s) for s in first.segments] == [(1.5, 4.0)] * 2
    assert second.labels == ()
    assert not labels.multi_label
    with pytest.raises(LabelError, match="'testing' have no labels"):
        labels.subset("testing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", 'no "database"'),
        ("[" * 200_000, "anet.json: nested too deeply"),
        ("1" * 5000, "anet.json: not JSON"),
        (
            '{"database": {"xx": {"subset": "training", "annotations": [{"label": "a", "segment": [0, 1'
            f"{'0' * 400}]}}]}}}}}}",
            "video 'xx' is not annotated",
        ),
        ('{"database": {"xx": {"subset": "training"}}}', "video 'xx' is not annotated"),
    ],
)
def test_what_is_wrong_with_an_activitynet_file(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=message):
        read_labels(write(tmp_path, text, "anet.json"))


def test_files_that_are_no_label_files(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="in no format that is known: it is empty"):
        read_labels(write(tmp_path, "", "labels.txt"))
    with pytest.raises(LabelError, match="No such file"):
        read_labels(tmp_path / "missing.csv")
    (tmp_path / "latin.csv").write_bytes(b"video_id,label,subset\na,caf\xe9,train\n")
    with pytest.raises(LabelError, match="UTF-8"):
        read_labels(tmp_path / "latin.csv")


def cached(folder: Path, ids: list[str], failed: dict[str, str] | None = None) -> FeatureCache:
    spec = make_spec()
    records = [make_record(video_id, 3) for video_id in ids]
    records += [
        VideoRecord.failed(spec, video_id, error, source="s", fingerprint="f")
        for video_id, error in (failed or {}).items()
    ]
    write_shard(folder / spec.name, spec, records, tools=TOOLS)
    return FeatureCache(folder)


def labelled(*videos: tuple[str, str, str]) -> LabelSet:
    return LabelSet(
        Path("labels.csv"),
        tuple(VideoLabel(v, tuple(filter(None, c.split(";"))), subset) for v, c, subset in videos),
    )


def matched(cache: FeatureCache, labels: LabelSet, **options: Any) -> Dataset:
    return open_dataset(cache, labels, {"fine": "tiny_8"}, DataConfig(**options))


def test_labels_meet_the_cache(tmp_path: Path) -> None:
    cache = cached(tmp_path, ["a", "b", "held back", "of another subset"])
    labels = labelled(
        ("a", "x", "train"), ("b", "x", "val"), ("held back", "", "test"), ("of another subset", "x", "extra")
    )
    data = matched(cache, labels)
    assert (data.train.ids, data.evaluation.ids, data.classes) == (("a",), ("b",), ("x",))
    assert data.notes == (
        "1 video of subset 'train' for training",
        "1 video of subset 'val' for evaluation",
        "1 video of subset 'test' not used",
        "1 video of subset 'extra' not used",
        "only one class, 'x': there is nothing to tell apart, and every score is perfect",
    )


def test_usual_subsets_without_labels_are_passed_over(tmp_path: Path) -> None:
    labels = labelled(("a", "x", "training"), ("c", "", "validation"), ("b", "x", "testing"))
    assert matched(cached(tmp_path, ["a", "b"]), labels).evaluation.subset == "testing"


def test_unusual_subsets_must_be_named(tmp_path: Path) -> None:
    labels = labelled(("a", "x", "one"), ("b", "x", "two"))
    cache = cached(tmp_path, ["a", "b"])
    with pytest.raises(
        LabelError,
        match="no subset named training or train with labels; say with --train-subset which of one, two",
    ):
        matched(cache, labels)
    assert matched(cache, labels, train_subset="one", eval_subset="two").evaluation.ids == ("b",)
    with pytest.raises(LabelError, match="no subset 'three'"):
        matched(cache, labels, train_subset="three")
    with pytest.raises(LabelError, match="1 video: 'a' both for training and evaluation"):
        matched(cache, labels, train_subset="one", eval_subset="one")


def test_aliases(tmp_path: Path) -> None:
    videos = (
        VideoLabel("v_a", ("x",), "train", aliases=("a",)),
        VideoLabel("v_b", ("x",), "val", aliases=("b",)),
    )
    data = matched(cached(tmp_path, ["a", "v_b"]), LabelSet(Path("l.json"), videos))
    assert (data.train.ids, data.evaluation.ids) == (("a",), ("v_b",))


def test_videos_without_features(tmp_path: Path) -> None:
    cache = cached(tmp_path, ["a", "b"], {"torn": "no video stream"})
    labels = labelled(("a", "x", "train"), ("b", "x", "val"), ("torn", "x", "train"), ("gone", "x", "train"))
    said = r"no features for 2 videos of subset 'train': 'torn' \(failed in extraction: no video stream\), 'gone'"
    with pytest.raises(LabelError, match=said + ".*--skip-missing"):
        matched(cache, labels)
    data = matched(cache, labels, skip_missing=True)
    assert data.train.ids == ("a",)
    assert any("left out" in note for note in data.notes)


def test_videos_without_labels(tmp_path: Path) -> None:
    cache = cached(tmp_path, ["a", "b", "p", "q", "r", "s"])
    labels = labelled(("a", "x", "train"), ("b", "x", "val"))
    with pytest.raises(LabelError, match="no label for 4 cached videos: 'p', 'q', 'r', …"):
        matched(cache, labels)
    assert matched(cache, labels, skip_missing=True).train.ids == ("a",)


def test_nothing_in_common(tmp_path: Path) -> None:
    labels = labelled(("a", "x", "train"), ("b", "x", "val"))
    with pytest.raises(
        UserError, match="none of its 2 videos is in the cache: ids are 'a', … here and 'p', … there"
    ):
        matched(cached(tmp_path / "others", ["p"]), labels, skip_missing=True)
    with pytest.raises(UserError, match="no video of subset 'train' has features"):
        matched(cached(tmp_path / "some", ["b"]), labels, skip_missing=True)


def test_a_class_without_training_videos(tmp_path: Path) -> None:
    labels = labelled(("a", "x", "train"), ("b", "y", "val"))
    with pytest.raises(LabelError, match="1 class: 'y' of subset 'val' without a video in subset 'train'"):
        matched(cached(tmp_path, ["a", "b"]), labels)


def test_several_classes_per_video(tmp_path: Path) -> None:
    cache = cached(tmp_path, ["a", "b"])
    labels = labelled(("a", "x;y", "train"), ("b", "y", "val"))
    data = matched(cache, labels)
    assert data.multi_label
    assert data.train.targets([0]).tolist() == [[1.0, 1.0]]
    assert any(
        note.startswith("1 of 2 videos has several") and "--single-label" in note for note in data.notes
    )
    single = labelled(("a", "x", "train"), ("b", "x", "val"))
    assert matched(cache, single).train.targets([0]).tolist() == [0]
    assert matched(cache, single, multi_label=True).train.targets([0]).tolist() == [[1.0]]


def test_single_label_trains_on_the_first_class_and_judges_by_all(tmp_path: Path) -> None:
    cache = cached(tmp_path, ["a", "b", "c"])
    labels = labelled(("a", "y;x", "train"), ("b", "x", "train"), ("c", "x;y", "val"))
    data = matched(cache, labels, multi_label=False)
    assert not data.multi_label
    assert data.train.targets([0, 1]).tolist() == [1, 0]
    assert data.evaluation.labels.tolist() == [[True, True]]
    assert "1 of 2 training videos has several classes: trained on the first" in data.notes
    assert not any("--single-label" in note for note in data.notes)
    # Which class is the first decides what is trained.
    turned = labelled(("a", "x;y", "train"), ("b", "y", "train"), ("c", "x;y", "val"))
    again = labelled(("a", "x;y", "train"), ("b", "x", "train"), ("c", "x;y", "val"))
    assert matched(cache, turned, multi_label=False).train.targets([0, 1]).tolist() == [0, 1]
    with pytest.raises(
        LabelError, match="'y' of subset 'val' without a video in subset 'train' of which it is"
    ):
        matched(cache, again, multi_label=False)
    three = [
        matched(
            cache,
            labelled(("a", one, "train"), ("b", other, "train"), ("c", "x", "val")),
            multi_label=False,
        ).digest()
        for one, other in (("x;y", "x;y"), ("x;y", "y;x"), ("y;x", "x;y"))
    ]
    assert len({digest["labels"] for digest in three}) == 3


def test_the_digest_says_what_is_used_and_nothing_else(tmp_path: Path) -> None:
    cache = cached(tmp_path, ["a", "b"])
    labels = labelled(("a", "x", "train"), ("b", "x", "val"))
    digest = matched(cache, labels).digest()
    assert (
        digest == matched(cache, labelled(("a", "x", "train"), ("b", "x", "val"), ("c", "", "test"))).digest()
    )
    assert digest != matched(cache, labelled(("a", "y", "train"), ("b", "y", "val"))).digest()
    assert digest != matched(cache, labelled(("b", "x", "train"), ("a", "x", "val"))).digest()
