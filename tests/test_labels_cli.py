"""Labels in every form on the command lines: one way for all commands, from videos to a trained policy."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from benchmarks.videos import write_video
from cache_schema import FeatureCache
from extract.cli import batch_extract
from extract.finetune.cli import finetune_backbone
from policy.cli.train_policy import train_policy
from policy.tables.cli import paper_tables
from tests.caches import make_spec, write_stream
from tests.test_finetune import tinted_frames

pytestmark = pytest.mark.usefixtures("one_thread")

COMMON = {"--format", "--split", "--class-file", "--group-column", "--group-pattern", "--val-fraction"}


def commands(group: click.Command, name: str) -> list[tuple[str, click.Command]]:
    if not isinstance(group, click.Group):
        return [(name, group)]
    return [found for sub, command in group.commands.items() for found in commands(command, f"{name} {sub}")]


def test_all_commands_that_take_labels_take_the_same_options() -> None:
    found = [
        *commands(train_policy, "train-policy"),
        *commands(paper_tables, "paper-tables"),
        ("finetune-backbone", finetune_backbone),
    ]
    options = {name: {word for one in command.params for word in one.opts} for name, command in found}
    with_labels = {name for name, words in options.items() if "--labels" in words}
    assert {
        "finetune-backbone",
        "train-policy liteeval",
        "train-policy evaluate",
        "paper-tables liteeval-1",
    } <= with_labels
    # A timeline has no use for groups.
    groups = {"--group-column", "--group-pattern"}
    lacking = {name: COMMON - options[name] for name in with_labels}
    assert {name: words for name, words in lacking.items() if words} == {"paper-tables timeline": groups}
    trains = {name for name in with_labels if "--train-subset" in options[name]}
    assert all("--classes-present" in options[name] for name in {*trains, "train-policy evaluate"})


def run(cache: Path, labels: Path, out: Path, *words: str) -> Result:
    given = ["uniform", "--cache", str(cache), "--labels", str(labels), "--fine", "tiny_8", "--out", str(out)]
    return CliRunner().invoke(train_policy, [*given, "--epochs", "1", "--device", "cpu", *words])


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    videos = [f"v_{name}_g{group:02d}_c01" for name in ("Archery", "Bowling") for group in range(10)]
    write_stream(tmp_path / "cache", make_spec(), dict.fromkeys(videos, 3))
    return tmp_path / "cache"


def ucf(folder: Path) -> Path:
    folder.mkdir()
    (folder / "classInd.txt").write_text("1 Archery\n2 Bowling\n")
    paths = [
        f"{name}/v_{name}_g{group:02d}_c01.avi {number}"
        for group in range(10)
        for number, name in ((1, "Archery"), (2, "Bowling"))
    ]
    for split, tested in (("01", range(4)), ("02", range(4, 10))):
        test = [path for at, path in enumerate(paths) if at // 2 in tested]
        (folder / f"trainlist{split}.txt").write_text("\n".join(path for path in paths if path not in test))
        (folder / f"testlist{split}.txt").write_text("\n".join(path.rpartition(" ")[0] for path in test))
    return folder


def test_a_split_of_ucf101_is_trained_and_evaluated(cache: Path, tmp_path: Path) -> None:
    labels = ucf(tmp_path / "ucf")
    for split, judged in (("1", 8), ("2", 12)):
        result = run(cache, labels, tmp_path / f"run{split}", "--split", split, "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["videos"] == judged
    words = [
        "evaluate",
        str(tmp_path / "run2"),
        "--cache",
        str(cache),
        "--labels",
        str(labels),
        "--split",
        "2",
        "--json",
    ]
    result = CliRunner().invoke(train_policy, words)
    assert result.exit_code == 0 and json.loads(result.stdout)["videos"] == 12, result.output
    mistake = run(cache, labels, tmp_path / "run3", "--split", "3")
    assert mistake.exit_code == 2 and "trainlist03.txt: no such file; split 3 of UCF-101" in mistake.stderr


def test_a_format_that_there_is_not(cache: Path, tmp_path: Path) -> None:
    mistake = run(cache, tmp_path, tmp_path / "run", "--format", "ucf-101")
    assert mistake.exit_code == 2
    assert (
        "no format of labels is called 'ucf-101': docs/labels.md shows all; did you mean ucf101"
        in mistake.stderr
    )
    assert "breakfast" not in mistake.stderr


def test_a_share_is_set_aside_for_every_seed_alike(cache: Path, tmp_path: Path) -> None:
    rows = [f"{video},{video[2:9]}\n" for video in FeatureCache(cache)["tiny_8"]]
    labels = tmp_path / "labels.csv"
    labels.write_text("video_id,label\n" + "".join(rows))
    mistake = run(cache, labels, tmp_path / "none")
    assert (
        mistake.exit_code == 2
        and "--val-fraction 0.2 sets a fifth of the videos of each class" in mistake.stderr
    )
    digests = []
    for number, words in enumerate((["--seed", "0"], ["--seed", "1"], ["--split", "1"])):
        result = run(cache, labels, tmp_path / str(number), "--val-fraction", "0.2", *words)
        assert result.exit_code == 0, result.output
        seed = 1 if "--split" in words else 0
        assert (
            f"4 of 20 videos, 0.2 of each class, are set aside as subset 'val', drawn with seed {seed}"
            in result.stderr
        )
        config = json.loads((tmp_path / str(number) / "config.json").read_text())
        assert config["videos"] == {"train": 16, "evaluation": 4}
        digests.append(config["data"]["labels"])
    assert digests[0] == digests[1] != digests[2]
    grouped = run(cache, labels, tmp_path / "g", "--val-fraction", "0.2", "--group-pattern", r"_(g\d)")
    assert grouped.exit_code == 2  # all are of one group
    grouped = run(cache, labels, tmp_path / "g", "--val-fraction", "0.2", "--group-pattern", r"_(g\d\d)")
    assert grouped.exit_code == 0, grouped.output
    assert "as nearly as groups allow" in grouped.stderr and "WARNING" not in grouped.stderr


def test_a_pilot_is_trained_and_evaluated(cache: Path, tmp_path: Path) -> None:
    labels = tmp_path / "lists"
    labels.mkdir()
    train = [f"v_Archery_g0{group}_c01.avi 0" for group in range(8)] + ["v_absent.avi 2"]
    train += [f"v_Bowling_g0{group}_c01.avi 1" for group in range(8)]
    (labels / "train.txt").write_text("\n".join(train))
    (labels / "val.txt").write_text(
        "\n".join(["v_Archery_g08_c01.avi 0", "v_Archery_g09_c01.avi 3", "v_Bowling_g08_c01.avi 1"])
    )
    plain = run(cache, labels, tmp_path / "run", "--skip-missing")
    assert plain.exit_code == 2 and "--classes-present leaves such classes out" in plain.stderr
    pilot = run(cache, labels, tmp_path / "run", "--skip-missing", "--classes-present")
    assert pilot.exit_code == 0, pilot.output
    assert "2 of 4 classes have videos in the cache both for training and for evaluation" in pilot.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["classes"] == ["class 0", "class 1"] and config["classes_present"]
    words = [
        "evaluate",
        str(tmp_path / "run"),
        "--cache",
        str(cache),
        "--labels",
        str(labels),
        "--skip-missing",
        "--json",
    ]
    result = CliRunner().invoke(train_policy, words)
    assert result.exit_code == 0 and json.loads(result.stdout)["videos"] == 2, result.output
    assert "1 video of subset 'val' of other classes left out" in result.stderr


@pytest.mark.slow
def test_from_class_folders_to_a_policy(tmp_path: Path) -> None:
    """One folder is videos and labels: a backbone is fine-tuned, and a policy judged, on the same division."""
    root = tmp_path / "videos"
    for c, name in enumerate(("red", "blue")):
        for i in range(5):
            (root / name).mkdir(parents=True, exist_ok=True)
            write_video(root / name / f"{name} {i}.mp4", tinted_frames([name], 10 * c + i), fps=8)
    stream = ["--stream", "timm:test_resnet@64", "--weights", "random:0", "--device", "cpu"]
    common = ["--labels", str(root), "--val-fraction", "0.2"]
    words = [str(root), *common, *stream, "--out", str(tmp_path / "tuned"), "--epochs", "1", "--json"]
    tuned = CliRunner().invoke(finetune_backbone, words)
    assert tuned.exit_code == 0, tuned.output
    answer = json.loads(tuned.stdout)
    assert (answer["train_videos"], answer["validation_videos"], answer["classes"]) == (8, 2, 2)
    assert "2 of 10 videos, 0.2 of each class, are set aside as subset 'val'" in tuned.stderr
    extracted = CliRunner().invoke(batch_extract, [str(root), "--cache", str(tmp_path / "cache"), *stream])
    assert extracted.exit_code == 0, extracted.output
    words = [
        "uniform",
        "--cache",
        str(tmp_path / "cache"),
        *common,
        "--fine",
        "test_resnet_64",
        "--epochs",
        "1",
    ]
    trained = CliRunner().invoke(
        train_policy, [*words, "--device", "cpu", "--out", str(tmp_path / "run"), "--json"]
    )
    assert trained.exit_code == 0, trained.output
    assert json.loads(trained.stdout)["videos"] == 2


def test_finetuning_needs_subsets_or_a_share(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("a", "b"):
        (tmp_path / "run" / f"{name}.mp4").write_bytes(b"no video")
    words = [
        str(tmp_path),
        "--labels",
        str(tmp_path),
        "--stream",
        "timm:test_resnet@64",
        "--out",
        str(tmp_path / "out"),
    ]
    mistake = CliRunner().invoke(finetune_backbone, words)
    assert (
        mistake.exit_code == 2
        and "--val-fraction 0.2 sets a fifth of the videos of each class" in mistake.stderr
    )
