"""--group-column and --group-pattern on the command lines: of runs, of what is made of them, and of mistakes."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click import Command
from click.testing import CliRunner, Result

from cache_schema import UserError
from cache_schema.annotations import Grouping, LabelSet, VideoLabel
from cache_schema.errors import LabelError
from extract.finetune.choices import Choices
from extract.finetune.collection import Collection, divide
from extract.sources import Sources, SourceVideo
from policy.cli.selection_text import render
from policy.cli.train_policy import train_policy
from policy.evaluation.predictions import Predictions
from policy.registry import configure
from policy.runs import load_method, make_method, open_data, run_method
from policy.selection.linear_head import LinearHead
from policy.selection.pool_method import PoolMethod
from policy.tables.cli import paper_tables
from policy.training.cross_fitting import cross_fitted
from tests.planted import write_planted
from tests.pools import PlantedPool, plant_pool

STREAMS = ["--coarse", "coarse_112", "--fine", "fine_224"]
SMALL = ["--epochs", "1", "--coarse-hidden", "4", "--fine-hidden", "8", "--device", "cpu"]
pytestmark = pytest.mark.usefixtures("one_thread")


def person(place: int) -> str:
    """Each four videos in a row are of a person."""
    return f"p{place // 4:02d}"


def write_labels(labels: LabelSet, path: Path) -> Path:
    rows = [
        f"{video.video_id},{video.labels[0]},{video.subset},{person(place)},room {place % 2}\n"
        for place, video in enumerate(labels.videos)
    ]
    path.write_text("video_id,label,subset,person,room\n" + "".join(rows))
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    _, labels = write_planted(folder, train=24, test=12, classes=2, dim=4, lengths=(3, 5))
    write_labels(labels, folder / "labels.csv")
    return folder


def call(command: Command, cache: Path, *words: object, labels: Path | None = None) -> Result:
    given = ["--cache", cache, "--labels", labels or cache / "labels.csv", *words]
    return CliRunner().invoke(command, [*map(str, given)])


def train(cache: Path, method: str, out: Path, *words: object) -> Result:
    return call(train_policy.commands[method], cache, *STREAMS, *SMALL, "--out", out, *words)


def line_of(result: Result) -> str:
    """The one line on standard error of a mistake."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "liteeval"
    result = train(cache, "liteeval", out, "--validation", 0.25, "--group-column", "person")
    assert result.exit_code == 0, result.output
    assert (
        "groups of videos (--group-column person): 6 in subset 'train', 3 in subset 'test'" in result.stderr
    )
    assert "WARNING" not in result.stderr
    # Of six people with four videos each the nearest to a quarter is one, or two.
    held = sum(
        video in ("4", "8") for video in re.findall(r"0\.25: (\d+) of these 24 training", result.stderr)
    )
    assert held == 1
    return out


def test_how_many_videos_are_held_out(cache: Path, tmp_path: Path) -> None:
    result = train(cache, "liteeval", tmp_path / "run", "--validation", 0.25)
    assert result.exit_code == 0, result.output
    assert "--validation 0.25: 6 of these 24 training videos held out, 18 trained on\n" in result.stderr


def test_groups_are_part_of_a_run(cache: Path, run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    assert config["groups"]["told_by"] == {"column": "person", "pattern": None}
    assert Predictions.load(run / "predictions.npz").groups == tuple(map(person, range(24, 36)))
    words = ["--validation", 0.25]
    again = train(cache, "liteeval", run, *words, "--group-column", "person")
    assert again.exit_code == 0 and "had already been finished" in again.stderr
    # Another option that groups them in the same way is the same run.
    again = train(cache, "liteeval", run, *words, "--group-column", "room")
    assert "holds a run with another content of groups" in line_of(again)
    assert "holds a run with another content of groups" in line_of(train(cache, "liteeval", run, *words))


def test_a_run_is_done_again_with_its_groups(cache: Path, run: Path) -> None:
    words = ["--config", run / "config.json", "--out", run, "--device", "cpu"]
    again = call(train_policy.commands["liteeval"], cache, *words)
    assert again.exit_code == 0, again.output
    assert "had already been finished" in again.stderr


def test_groups_in_both_subsets(cache: Path, tmp_path: Path) -> None:
    result = train(cache, "uniform", tmp_path / "run", "--group-column", "room")
    assert result.exit_code == 2  # it has no coarse stream
    words = ["--fine", "fine_224", "--epochs", 1, "--out", tmp_path / "run", "--group-column", "room"]
    result = call(train_policy.commands["uniform"], cache, *words)
    assert result.exit_code == 0
    assert "WARNING: 2 groups have videos in both subsets, 'room 0', 'room 1': 24 of 'train'" in result.stderr
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())["groups"]
    assert recorded["in_both"] == ["room 0", "room 1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--group-column", "persn"],
            "no column 'persn' for --group-column persn; it has: video_id, label, subset",
        ),
        (
            ["--group-column", "person", "--group-pattern", "(.)"],
            "give --group-column or --group-pattern, not both",
        ),
        (["--group-pattern", "video_("], "--group-pattern video_(: is no regular expression: "),
        (["--group-pattern", "clip_(.*)"], "finds no group in the ids of 36 of 36 videos: 'video_0000', "),
        (
            ["--group-column", "subset", "--validation", 0.5],
            "all videos to train on are of one group, 'train'",
        ),
        (
            ["--group-column", "label", "--validation", 0.5],
            "each of the 2 groups has all videos of some class",
        ),
    ],
)
def test_mistakes(words: list[object], message: str, cache: Path, tmp_path: Path) -> None:
    assert message in line_of(train(cache, "liteeval", tmp_path / "run", *words))


def evaluate(run: Path, cache: Path, *words: object, labels: Path | None = None) -> Result:
    return call(train_policy.commands["evaluate"], cache, run, "--device", "cpu", *words, labels=labels)


def test_a_finished_run_keeps_its_groups(cache: Path, run: Path, tmp_path: Path) -> None:
    result = evaluate(run, cache, "--out", tmp_path / "again")
    assert result.exit_code == 0, result.output
    assert "groups of videos (--group-column person): 3 in subset 'test'" in result.stderr
    assert Predictions.load(tmp_path / "again" / "predictions.npz").groups == tuple(
        map(person, range(24, 36))
    )
    text = (cache / "labels.csv").read_text()
    shared = tmp_path / "shared.csv"
    shared.write_text(text.replace(",p08,", ",p00,"))
    result = evaluate(run, cache, labels=shared)
    assert "WARNING: 1 group has videos in both subsets, 'p00': 4 of 'train', 4 of 'test'" in result.stderr
    bare = tmp_path / "bare.csv"
    bare.write_text(text.replace("person", "who"))
    result = evaluate(run, cache, "--out", tmp_path / "bare", labels=bare)
    assert result.exit_code == 0
    assert "bare.csv: no column 'person' for --group-column person" in result.stderr
    assert "here each video is on its own, intervals are over videos" in result.stderr
    assert Predictions.load(tmp_path / "bare" / "predictions.npz").groups == ()
    assert "no column 'person'" in line_of(evaluate(run, cache, "--group-column", "person", labels=bare))
    spoilt = shutil.copytree(run, tmp_path / "spoilt")
    damaged: tuple[object, ...] = ([], {"told_by": 3}, {"told_by": {"colour": "red"}})
    for told in damaged:
        config = json.loads((run / "config.json").read_text()) | {"groups": told}
        (spoilt / "config.json").write_text(json.dumps(config))
        assert "config.json: not a config of this version" in line_of(evaluate(spoilt, cache))
    result = evaluate(run, cache, "--group-column", "who", labels=bare)
    assert "groups of videos (--group-column who): 3" in result.stderr


def test_tuning_by_group(cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    tune = train_policy.commands["tune"]
    words = [
        "--fine",
        "fine_224",
        "--epochs",
        1,
        "--trials",
        1,
        "--device",
        "cpu",
        "--group-column",
        "person",
    ]
    command = tune.commands["uniform"]  # type: ignore[attr-defined]
    result = call(command, cache, *words, "--folds", 2, "--out", tmp_path / "study")
    assert result.exit_code == 0, result.output
    assert "fold 1 of 2: groups of videos (--group-column person): 3 in subset 'train', 3 in" in result.stderr
    assert "--group-column person" in (tmp_path / "study" / "best.txt").read_text()
    line = line_of(call(command, cache, *words, "--folds", 7, "--out", tmp_path / "other"))
    assert "7 folds need as many groups of videos, and there are 6: ask for fewer" in line


def test_a_table_by_group(cache: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine"
    table.mkdir()
    (table / "table.toml").write_text(
        'title = "Mine"\nsource = "ours"\nmeasures = ["map_percent"]\ndatasets = []\n'
    )
    (table / "row.toml").write_text(
        'title = "Uniform"\nmethod = "uniform"\n[streams]\nfine = "fine_224"\n[settings]\nepochs = 1\n'
    )

    def made(*words: object) -> tuple[Result, dict[str, float]]:
        given = ["--runs", tmp_path / "runs", "--seeds", 1, "--device", "cpu", "--resamples", 200, "--json"]
        given += ["--recipe", "none"]  # which leaves something to be uncertain of
        result = call(paper_tables.commands["run"], cache, table, *given, *words)
        assert result.exit_code == 0, result.output
        return result, json.loads(result.stdout)["rows"][0]["ours"]["map_percent"]

    _, alone = made()
    _, by_person = made("--group-column", "person", "--out", tmp_path / "out")
    _, by_id = made("--group-pattern", r"(video_\d+)", "--out", tmp_path / "by-id")
    assert alone["mean"] == by_person["mean"] == by_id["mean"]
    assert (
        (by_id["low"], by_id["high"])
        == (alone["low"], alone["high"])
        != (by_person["low"], by_person["high"])
    )
    text = (tmp_path / "out" / "table.md").read_text()
    assert "Groups of videos (--group-column person): 6 for training and 3 for evaluation; held out" in text
    assert "the 95 % bootstrap interval over 3 groups of the evaluation videos." in text
    assert "--group-column person" in (tmp_path / "out" / "table.md").read_text()
    result, _ = made("--group-column", "room", "--out", tmp_path / "room")
    assert "WARNING: 2 groups have videos in both subsets" in result.stderr
    assert "WARNING: 2 groups have videos in both subsets" in (tmp_path / "room" / "table.md").read_text()


def test_a_table_counts_its_validation_videos(cache: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine"
    table.mkdir()
    (table / "table.toml").write_text(
        'title = "Mine"\nsource = "ours"\nmeasures = ["map_percent"]\ndatasets = []\n'
    )
    (table / "row.toml").write_text(
        'title = "LSTM"\nmethod = "lstm"\n[streams]\nfine = "fine_224"\n'
        "[settings]\nepochs = 1\nfine_hidden = 8\n"
    )
    lines = (cache / "labels.csv").read_text().splitlines()
    lines[13:25] = [line.replace(",train,", ",other,") for line in lines[13:25]]
    (tmp_path / "three.csv").write_text("\n".join(lines) + "\n")

    def made(*words: object, labels: Path | None = None) -> str:
        given = ["--runs", tmp_path / "runs", "--seeds", 1, "--device", "cpu", "--resamples", 0, *words]
        result = call(paper_tables.commands["run"], cache, table, *given, labels=labels)
        assert result.exit_code == 0, result.output
        return " ".join(result.stdout.split())

    text = made("--validation-subset", "other", labels=tmp_path / "three.csv")
    assert "12 videos for training (train), 12 for validation (other) and 12 for evaluation (test) in" in text
    assert "validation on subset 'other'" in text and "validation 0.0" not in text
    text = made("--validation", 0.25)
    assert "24 videos for training (train), of which 25 % held out for validation and 12 for" in text
    assert "validation 0.25" in text


def test_anybody_s_detections_by_group(tmp_path: Path) -> None:
    ids = [f"v{place:02d}" for place in range(12)]
    random = np.random.default_rng(0)
    truth = "video_id,start_s,end_s,label,person\n" + "".join(
        f"{name},10,20,jump,{person(place)}\n" for place, name in enumerate(ids)
    )
    found = "video_id,label,start_s,end_s,score\n" + "".join(
        f"{name},jump,{10 + random.integers(0, 9)},20,{random.random():.3f}\n" for name in ids
    )
    (tmp_path / "truth.csv").write_text(truth)
    (tmp_path / "found.csv").write_text(found)

    def judged(*words: str) -> dict[str, float]:
        given = [str(tmp_path / "found.csv"), "--annotations", str(tmp_path / "truth.csv"), "--json"]
        result = CliRunner().invoke(paper_tables.commands["detections"], [*given, *words])
        assert result.exit_code == 0, result.output
        row: dict[str, float] = json.loads(result.stdout)["rows"][0]
        return row

    alone, by_person = judged(), judged("--group-column", "person", "--out", str(tmp_path / "out"))
    ends = ("average_map_percent_low", "average_map_percent_high")
    assert alone["average_map_percent"] == by_person["average_map_percent"]
    assert [alone[end] for end in ends] != [by_person[end] for end in ends]
    assert (
        "the 95 % bootstrap interval over 3 groups of videos (--group-column person)."
        in (tmp_path / "out" / "table.md").read_text()
    )


# --- selection ---


def grouped_pool(folder: Path, train: int, test: int) -> tuple[PlantedPool, LabelSet]:
    planted = plant_pool(folder / "cache", train=train, test=test, classes_per_group=2)
    videos = tuple(replace(v, group=person(n)) for n, v in enumerate(planted.labels.videos))
    return planted, replace(planted.labels, videos=videos, grouping=Grouping("person"))


@pytest.mark.slow
def test_selection_by_group(tmp_path: Path) -> None:
    planted, labels = grouped_pool(tmp_path, 60, 40)
    config = configure("selector", {"models": planted.models})
    run = run_method(config, planted.cache, labels, tmp_path / "run", device="cpu")
    data = open_data(config, planted.cache, labels)
    method = load_method(run.folder, config, data)
    assert isinstance(method, PoolMethod)
    fold = method.held_out_folds(data.train)
    assert len({*zip(data.train.groups, fold.tolist(), strict=True)}) == len({*fold.tolist()}) == 15
    bare = run_method(config, planted.cache, planted.labels, tmp_path / "bare", device="cpu")
    by_group, by_video = (one.details()["comparisons"]["top1"]["above_random"] for one in (run, bare))
    assert by_group["ensemble"]["value"] == by_video["ensemble"]["value"]
    assert by_group["ensemble"]["low"] != by_video["ensemble"]["low"]
    texts = [render(one.result, one.details(), one.folder) for one in (run, bare)]
    assert "bootstrap over 10 groups of videos." in " ".join(texts[0].split())
    assert "bootstrap over videos." in " ".join(texts[1].split())


def test_linear_heads_are_fitted_without_whole_groups(tmp_path: Path) -> None:
    planted, labels = grouped_pool(tmp_path, 48, 8)
    config = configure("selector", {"models": planted.models, "heads": "linear", "folds": 3})
    data = open_data(config, planted.cache, labels)
    method = make_method(config, data)
    assert isinstance(method, PoolMethod)
    for member in method.pool_of_models:
        assert isinstance(member.head, LinearHead)
        fold = [member.head.fold_of[name] for name in data.train.ids]
        assert len({*zip(data.train.groups, fold, strict=True)}) == 12 and len({*fold}) == 3
    more = configure("selector", {"models": planted.models, "heads": "linear", "folds": 13})
    with pytest.raises(UserError, match="13 folds need as many groups of videos, and there are 12"):
        make_method(more, data)


def test_a_perceptron_is_cross_fitted_by_group(tmp_path: Path) -> None:
    planted, labels = grouped_pool(tmp_path, 40, 20)
    values = {
        "models": planted.models,
        "decisions": "perceptron",
        "epochs": 1,
        "budget": None,
        "threshold": 0.5,
    }
    config = configure("selector", values)
    run = run_method(config, planted.cache, labels, tmp_path / "run", device="cpu")
    data = open_data(config, planted.cache, labels)
    method = load_method(run.folder, config, data)
    parts = [set(videos.groups) for _, videos in cross_fitted(method, data, torch.device("cpu"), folds=3)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 10


# --- finetune-backbone ---


def collection(groups: dict[str, str], labels: dict[str, str], **choices: Any) -> Collection:
    """Of videos without files, which is as good here."""
    sources = Sources(tuple(SourceVideo(name, Path(f"{name}.mp4")) for name in sorted(groups)))
    videos = [
        VideoLabel(name, (labels[name],), "val" if name.startswith("val") else "train", group=groups[name])
        for name in sorted(groups)
    ]
    read = LabelSet(Path("labels.csv"), tuple(videos), grouping=Grouping("person"))
    return divide(sources, read, replace(Choices("resnet101_224"), **choices))


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_the_validation_part_of_a_backbone_is_of_whole_groups(fraction: float) -> None:
    names = [f"v{place:02d}" for place in range(60)]
    groups = {name: person(place) for place, name in enumerate(names)}
    labels = {name: "xyz"[place % 3] for place, name in enumerate(names)}
    divided = collection(groups, labels, val_fraction=fraction)
    train_groups, held = ({groups[v.id] for v in part.videos} for part in (divided.train, divided.validation))
    assert not train_groups & held
    assert len(divided.train) + len(divided.validation) == 60
    assert len(divided.validation) == pytest.approx(60 * fraction, abs=2)


def test_a_backbone_and_groups_that_do_not_fit() -> None:
    names = ["a", "b", "c", "val_d"]
    labels = dict.fromkeys(names, "x")
    with pytest.raises(
        LabelError, match=r"labels.csv, subset 'train': all videos to train on are of one group, 'p'"
    ):
        collection(dict.fromkeys(names, "p"), labels, val_fraction=0.5)
    notes = collection({"a": "p", "b": "q", "c": "p", "val_d": "p"}, labels).notes
    (warning,) = [note for note in notes if "WARNING" in note]
    assert "1 group has videos in both subsets, 'p': 2 of 'train', 1 of 'val'" in warning
    with pytest.raises(UserError, match="give --group-column or --group-pattern, not both"):
        assert Choices("resnet101_224", group_column="a", group_pattern="(b)").grouping
