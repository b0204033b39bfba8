"""paper-tables detections: figures that are known beforehand, sets of videos, and requests that are wrong.

THRIFTVID_DATA names a folder with the published annotations of THUMOS'14; without it their tests are skipped.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from benchmarks import plain_detection
from cache_schema import UserError
from cache_schema.annotations import LabelSet, read_labels
from cache_schema.annotations.thumos14 import CLASSES
from policy.data.opening import segments_of
from policy.evaluation.annotated import ground_truth_of
from policy.evaluation.detection import ACTIVITYNET_IOUS, PROTOCOLS, THUMOS14_IOUS, Detections, GroundTruth
from policy.localization.detections import write_csv, write_json
from policy.tables.cli import paper_tables
from policy.tables.detections import judge, parse_ious

PUBLISHED = os.environ.get("THRIFTVID_DATA")
needs_published_files = pytest.mark.skipif(not PUBLISHED, reason="THRIFTVID_DATA names no folder")
DISPUTED = ("video_test_0000270", "video_test_0001292", "video_test_0001496")
SPAN_S, EVERY_S = 48.0, 160.0
"""75 and 250 of W-TALC's clips."""


def command(*words: object) -> Result:
    return CliRunner().invoke(paper_tables, ["detections", *map(str, words)])


def judged(*words: object) -> dict[str, Any]:
    result = command(*words, "--json")
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def by_row(content: dict[str, Any], key: str) -> dict[tuple[str, str], float]:
    return {(row["protocol"], row["video_set"]): row[key] for row in content["rows"]}


def write_annotations(path: Path, shown: Iterable[tuple[str, str, float, float]]) -> Path:
    """A JSON of THUMOS'14 videos: video, label, start and end."""
    database: dict[str, Any] = {}
    for video, label, start, end in shown:
        entry = database.setdefault(video, {"subset": "test", "annotations": []})
        entry["annotations"].append({"label": label, "segment": [str(start), str(end)]})
    path.write_text(json.dumps({"database": database}))
    return path


def write_detections(path: Path, found: Iterable[tuple[str, str, float, float, float]]) -> Path:
    results: dict[str, Any] = {}
    for video, label, start, end, score in found:
        results.setdefault(video, []).append({"label": label, "score": score, "segment": [start, end]})
    path.write_text(json.dumps({"results": results}))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Twelve videos, three of them disputed; each with four segments far apart, one of them Diving."""
    ids = [*(f"video_test_{n:07d}" for n in range(1, 10)), *DISPUTED]
    shown = [
        (video, "Diving" if place % 3 == 2 else CLASSES[n], place * EVERY_S, place * EVERY_S + SPAN_S)
        for n, video in enumerate(ids)
        for place in range(4)
        if video != "video_test_0001292"
    ]
    ambiguous = [(video, "Ambiguous", 800.0, 900.0) for video in ("video_test_0001292", "video_test_0000001")]
    return write_annotations(tmp_path / "gt.json", [*shown, *ambiguous])


def segments_in(path: Path) -> list[tuple[str, str, float, float]]:
    labels = read_labels(path, "thumos14-213")
    return [(v.video_id, s.label, s.start_s, s.end_s) for v in labels.videos for s in v.segments]


def test_ground_truth_is_found(small: Path, tmp_path: Path) -> None:
    """Its segments as detections: 100 by every protocol, on every set, as JSON and as CSV, surely."""
    found = [(*segment, 0.5) for segment in segments_in(small)]
    path = write_detections(tmp_path / "found.json", found)
    content = judged(path, "--annotations", small, "--resamples", 50)
    assert content["ious"] == [*THUMOS14_IOUS]
    assert [row["videos"] for row in content["rows"]] == 3 * [12, 11, 10, 9]
    assert [row["segments"] for row in content["rows"]] == 3 * [44, 44, 36, 36]
    for end in ("", "_low", "_high"):
        assert {*by_row(content, f"average_map_percent{end}").values()} == {100.0}
    with (tmp_path / "found.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video_id", "label", "start_s", "end_s", "score"), *found])
    again = judged(tmp_path / "found.csv", "--annotations", small, "--resamples", 50)
    assert again["rows"] == content["rows"]


def test_shifted_ground_truth(small: Path, tmp_path: Path) -> None:
    """By a third of the length IoU is 32 s of 64: a half. Strictly above, four of seven thresholds are passed."""
    found = [
        (v, label, start + SPAN_S / 3, end + SPAN_S / 3, 0.5) for v, label, start, end in segments_in(small)
    ]
    path = write_detections(tmp_path / "found.json", found)
    content = judged(path, "--annotations", small, "--resamples", 0)
    for iou in THUMOS14_IOUS:
        for (protocol, _), percent in by_row(content, f"map_percent_at_{iou:g}").items():
            assert percent == (100 if iou < 0.5 or (iou == 0.5 and protocol != "thumos14") else 0)
    averages = by_row(content, "average_map_percent")
    assert averages["thumos14", "thumos14-210"] == pytest.approx(400 / 7)
    assert averages["activitynet", "thumos14-210"] == pytest.approx(500 / 7)
    assert content["rows"][0]["average_map_percent_low"] is None


def test_sets_and_ambiguous_spans(tmp_path: Path) -> None:
    """Two surer detections are false: one in a video of ambiguous spans alone, the other on an ambiguous span."""
    one, ambiguous_alone = "video_test_0000001", "video_test_0001292"
    annotations = write_annotations(
        tmp_path / "gt.json",
        [
            *((video, "Diving", 0.0, 48.0) for video in (one, "video_test_0000270", "video_test_0001496")),
            *((video, "Ambiguous", 800.0, 900.0) for video in (one, ambiguous_alone)),
        ],
    )
    found = [(v, "Diving", 0.0, 48.0, 0.5) for v in (one, "video_test_0000270", "video_test_0001496")]
    found += [(ambiguous_alone, "Diving", 100.0, 148.0, 1.0), (one, "Diving", 850.0, 950.0, 1.0)]
    path = write_detections(tmp_path / "found.json", found)
    content = judged(path, "--annotations", annotations, "--resamples", 0)
    averages = by_row(content, "average_map_percent")
    expected: dict[str, dict[int, float]] = {
        "thumos14": {213: (1 / 2 + 2 / 3 + 3 / 4) / 3, 212: 1, 211: 1 / 2, 210: 1},
        "activitynet": {213: 3 / 5, 212: 3 / 4, 211: 1 / 3, 210: 1 / 2},
        "wtalc": {213: 1, 212: 1, 211: 1, 210: 1},
    }
    for protocol, by_size in expected.items():
        for size, precision in by_size.items():
            assert averages[protocol, f"thumos14-{size}"] == pytest.approx(100 * precision)
    assert "video_test_0001292: ambiguous spans alone." in content["state"]


def test_only_the_sets_that_are_annotated(tmp_path: Path) -> None:
    """Files as BaS-Net's lack the three videos: only the set of 210 is judged, and what is found there is not."""
    annotations = write_annotations(tmp_path / "gt.json", [("video_test_0000001", "Diving", 0.0, 48.0)])
    found = [
        ("video_test_0000001", "Diving", 0.0, 48.0, 0.5),
        ("video_test_0000270", "Diving", 0.0, 48.0, 0.9),
    ]
    content = judged(write_detections(tmp_path / "found.json", found), "--annotations", annotations)
    assert [row["video_set"] for row in content["rows"]] == 3 * ["thumos14-210"]
    assert {*by_row(content, "average_map_percent").values()} == {100.0}
    assert any("Not judged: 1 detection in 1 video" in line for line in content["state"])


def test_own_annotations(tmp_path: Path) -> None:
    """A CSV of segments, detections by the CSV; a class without detections counts as 0 and is named."""
    annotations = tmp_path / "segments.csv"
    annotations.write_text(
        "video_id,start_s,end_s,label,subset\n"
        "a,0,48,run,val\na,160,208,jump,val\nb,0,48,run,val\nc,0,48,run,train\n"
    )
    found = tmp_path / "found.csv"
    found.write_text("video_id,label,start_s,end_s,score\na,run,0,48,0.9\nb,run,0,48,0.5\n")
    content = judged(found, "--annotations", annotations, "--ious", "0.5", "--per-class")
    assert content["subset"] == "val"
    assert content["ious"] == [0.5]
    assert [row["video_set"] for row in content["rows"]] == 3 * ["val"]
    assert {*by_row(content, "average_map_percent").values()} == {50.0}
    classes = {(row["protocol"], row["class"]): row["ap_percent_at_0.5"] for row in content["classes"]}
    assert classes == {(p, label): ap for p in PROTOCOLS for label, ap in (("jump", 0.0), ("run", 100.0))}
    (note,) = (line for line in content["state"] if "No detections" in line)
    assert "1 of 2 classes" in note and "jump" in note and "mAP of 0" in note


def activitynet(path: Path) -> Path:
    database = {
        "x": {
            "subset": "validation",
            "annotations": [{"label": "Polo", "segment": [0, 48]}],
            "duration": 100,
        },
        "y": {"subset": "training", "annotations": [{"label": "Polo", "segment": [0, 48]}], "duration": 100},
        "z": {"subset": "testing", "annotations": [], "duration": 100},
    }
    path.write_text(json.dumps({"database": database}))
    return path


def test_activitynet(tmp_path: Path) -> None:
    """Its ids without v_, its ten thresholds; detections of other subsets are counted."""
    annotations = activitynet(tmp_path / "activity_net.v1-3.min.json")
    found = [("x", "Polo", 0.0, 30.0, 0.5), ("y", "Polo", 0.0, 48.0, 0.9), ("z", "Polo", 0.0, 48.0, 0.9)]
    path = write_detections(tmp_path / "found.json", found)
    refused = command(path, "--annotations", annotations)
    assert refused.exit_code == 2
    assert "1 of subset 'testing' and 1 of subset 'training' and 1 of subset 'validation'" in refused.output
    content = judged(path, "--annotations", annotations, "--subset", "validation")
    assert content["ious"] == [*ACTIVITYNET_IOUS]
    # 30 s of 48 are 0.625, which is above three of the ten.
    assert by_row(content, "average_map_percent")["activitynet", "validation"] == pytest.approx(30)
    assert any("Not judged: 2 detections in 2 videos" in line for line in content["state"])
    shown = command(path, "--annotations", annotations, "--subset", "validation").stdout
    header = next(line for line in shown.splitlines() if line.startswith("IoU"))
    assert header.split() == ["IoU", "0.5", "0.75", "0.95", "average"]


def test_multithumos_has_five_thresholds(tmp_path: Path) -> None:
    annotations = tmp_path / "segments.csv"
    annotations.write_text("video_id,start_s,end_s,label\nvideo_test_0000001,0,48,Sit\n")
    path = write_detections(tmp_path / "found.json", [("video_test_0000001", "Sit", 0.0, 48.0, 0.5)])
    assert judged(path, "--annotations", annotations)["ious"] == [*THUMOS14_IOUS[:5]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.1:0.7:0.1", THUMOS14_IOUS), ("0.5:0.95:0.05", ACTIVITYNET_IOUS), ("0.5", (0.5,)), ("1", (1.0,))],
)
def test_thresholds(text: str, expected: tuple[float, ...]) -> None:
    """The decimals that are written, not sums of rounded ones, because IoU may equal them."""
    assert parse_ious(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "half",
            "nan",
            "0",
            "1.01",
            "0.1:0.7",
            "0.1:0.7:0.1:1",
            "0:0.5:0.1",
            "0.5:1.1:0.1",
            "0.7:0.1:0.1",
        ),
        *("0.1:0.75:0.1", "0.1:0.7:0", "0.1:0.7:-0.1", "0.1:inf:0.1", "0.1:0.5:0.000001"),
    ],
)
def test_thresholds_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--ious"):
        parse_ious(text)


def test_what_it_prints(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 80 columns, with intervals where they fit, and as files."""
    monkeypatch.setenv("COLUMNS", "80")
    found = [(v, label, start, end, 0.5) for v, label, start, end in segments_in(small)]
    false = [(v, "Diving", 500.0 + n, 548.0 + n, 0.6) for v, *_ in found for n in range(2)]
    path = write_detections(tmp_path / "found.json", [*found[::2], *false])
    result = command(path, "--annotations", small, "--per-class", "--out", tmp_path / "out")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert sum("videos" in line and "[" in line for line in lines) == 2 * 3 * 4
    assert sum(line.startswith("Diving") for line in lines) == 1
    assert lines[-1].startswith("$ paper-tables detections ")
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["report.html", "table-2.csv", "table.csv", "table.md", "table.tex"]
    with (tmp_path / "out" / "table.csv").open(newline="") as file:
        assert len([*csv.DictReader(file)]) == 12


def test_wrong_requests(small: Path, tmp_path: Path) -> None:
    """One line each, exit code 2; tests/test_detection_files.py has those of the file itself."""
    unknown = write_detections(tmp_path / "unknown.json", [("x", "Diving", 0.0, 1.0, 0.5)])
    nothing = write_detections(tmp_path / "nothing.json", [])
    whole = tmp_path / "labels.csv"
    whole.write_text("video_id,label,subset\nx,Diving,test\n")
    for words, message in (
        ((unknown, "--annotations", small), "video 'x' is not in the annotations"),
        ((nothing, "--annotations", small), "nothing.json: no detections; say with --subset"),
        ((nothing, "--annotations", small, "--subset", "dev"), "no subset 'dev'"),
        ((unknown, "--annotations", whole), "subset 'test' has no segments"),
        ((unknown, "--annotations", tmp_path / "none.json"), "cannot read the labels"),
        ((nothing, "--annotations", small, "--ious", "2"), "--ious 2"),
    ):
        result = command(*words)
        assert result.exit_code == 2, result.output
        (line,) = result.output.splitlines()
        assert message in line


def test_nothing_found(small: Path, tmp_path: Path) -> None:
    """An empty file is no mistake: a method may find nothing."""
    path = write_detections(tmp_path / "nothing.json", [])
    content = judged(path, "--annotations", small, "--subset", "test", "--resamples", 20)
    assert {*by_row(content, "average_map_percent").values()} == {0.0}


# ------------------------------------------------------------------------------------------- published files


@pytest.fixture(scope="module")
def published() -> tuple[Path, LabelSet, GroundTruth, list[str]]:
    path = Path(PUBLISHED or "") / "thumos14"
    labels = read_labels(path, "thumos14-213")
    videos = sorted(labels.subset("test"), key=lambda video: video.video_id)
    truth = ground_truth_of(segments_of(videos, labels.classes))
    return path, labels, truth, [video.video_id for video in videos]


Published = tuple[Path, LabelSet, GroundTruth, list[str]]


def averages_of(published: Published, spans: Any, tmp_path: Path) -> dict[str, list[float]]:
    """mAP in percent at each threshold by protocol, on 212 videos, of a detection for each segment.

    Those that are longer in W-TALC's clips have higher scores: last come those of no length.
    """
    _, labels, truth, ids = published
    clips = np.diff(np.rint(spans * 25 / 16))[:, 0]
    found = Detections(truth.videos, truth.classes, spans, clips)
    write_json(tmp_path / "found.json", found, ids, labels.classes)
    rows = judged(tmp_path / "found.json", "--annotations", published[0], "--resamples", 0)["rows"]
    return {
        row["protocol"]: [row[f"map_percent_at_{iou:g}"] for iou in THUMOS14_IOUS]
        for row in rows
        if row["video_set"] == "thumos14-212"
    }


@needs_published_files
def test_published_ground_truth_is_found(published: Published, tmp_path: Path) -> None:
    """100 by both kits. W-TALC's code misses what has no length on its clips, or touches an ambiguous span."""
    _, labels, truth, _ = published
    found = averages_of(published, truth.spans, tmp_path)
    assert found["thumos14"] == found["activitynet"] == [100.0] * 7
    starts, ends = np.rint(truth.spans.T * 25 / 16)
    lost = starts >= ends
    assert lost.sum() == 17
    for video, span in zip(truth.ambiguous_videos, truth.ambiguous_spans * 25 / 16, strict=True):
        start, end = np.rint(span)
        lost |= (truth.videos == video) & (np.minimum(ends, end) > np.maximum(starts, start))
    shares = [(~lost)[truth.classes == c].mean() for c in range(len(labels.classes))]
    assert found["wtalc"] == pytest.approx([100 * np.mean(shares)] * 7)


@needs_published_files
def test_published_ground_truth_shifted(published: Published, tmp_path: Path) -> None:
    """By a fifth of each length IoU is 0.8 to 1.2, two thirds: found up to 0.6, and at 0.7 others by chance."""
    truth = published[2]
    found = averages_of(published, truth.spans + np.diff(truth.spans) / 5, tmp_path)
    for protocol in ("thumos14", "activitynet"):
        assert found[protocol][:6] == pytest.approx([100.0] * 6, abs=0.05)
        assert found[protocol][6] < 0.05


@needs_published_files
def test_published_noisy(published: Published, tmp_path: Path) -> None:
    """As plain loops have it, on the smaller classes."""
    path, labels, truth, ids = published
    random = np.random.default_rng(0)
    size = len(truth.videos)
    spans = np.sort(truth.spans + np.diff(truth.spans) * random.normal(0, 0.25, (size, 2)), axis=1)
    found = Detections(
        np.where(random.random(size) < 0.9, truth.videos, random.permutation(truth.videos)),
        truth.classes,
        spans,
        random.integers(0, 50, size) / 50,  # with ties
    )
    write_csv(tmp_path / "found.csv", found, ids, labels.classes)
    judgement = judge(tmp_path / "found.csv", read_labels(path, "thumos14-212"), resamples=0)
    in_set = judgement.sets["thumos14-212"]
    assert in_set.sum() == 212
    for label in ("BaseballPitch", "GolfSwing", "SoccerPenalty"):
        number = labels.classes.index(label)
        for protocol in PROTOCOLS:
            precision = judgement.scores[protocol]["thumos14-212"].precision[number]
            for place in (0, 3, 6):
                expected = plain_detection.average_precision(
                    found, truth, THUMOS14_IOUS[place], protocol, number
                )
                assert precision[place] == pytest.approx(100 * expected)
