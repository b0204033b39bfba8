"""The code of docs/extending.md does what the page says."""

from __future__ import annotations

import json
import re
import shutil
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import cache_schema.annotations as labels_of
from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet, read_labels
from extract import backbones
from policy import registry
from policy.cli.train_policy import add_commands, train_policy
from policy.deploy.session import open_session
from policy.runs import run_method
from policy.tables.cli import paper_tables
from policy.tables.reading import EXPERIMENTS, read_table
from tests.planted import write_planted, write_planted_labels

PAGE = (Path(__file__).parents[1] / "docs/extending.md").read_text(encoding="utf-8")
CODE = dict(re.findall(r"^```(?:python|toml) ([\w-]+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


def module(name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """As if the file were there."""
    made = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, made)
    parent, _, child = name.rpartition(".")
    monkeypatch.setattr(sys.modules[parent], child, made, raising=False)
    exec(compile(code, name, "exec"), vars(made))
    return made


def test_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    line: dict[str, Any] = eval("{" + CODE["network"] + "}", vars(backbones))
    named = {name: replace(request, name=name) for name, request in line.items()}  # as BUILT_IN does
    monkeypatch.setattr(backbones, "BUILT_IN", {**backbones.BUILT_IN, **named})
    request = backbones.parse_stream("resnet10t_64")
    assert (request.network, request.size) == ("timm:resnet10t", 64)


def test_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = module("cache_schema.annotations.toy", CODE["data-set"], monkeypatch)
    line: dict[str, labels_of.Format] = eval("{" + CODE["formats"] + "}", {**vars(labels_of), "toy": toy})
    monkeypatch.setattr(labels_of, "FORMATS", {**labels_of.FORMATS, **line})
    path = tmp_path / "lists.txt"
    path.write_text("train a beach\ntest b forest\n")
    found = read_labels(path, "toy").videos
    assert [(one.video_id, one.labels, one.subset) for one in found] == [
        ("a", ("beach",), "train"),
        ("b", ("forest",), "test"),
    ]


@pytest.mark.slow
def test_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, labels = planted(tmp_path)
    import policy.baselines

    assert policy.baselines
    module("policy.baselines.mean_feature", CODE["method"], monkeypatch)
    monkeypatch.setattr(registry, "PLACES", {**registry.PLACES, **eval("{" + CODE["registry"] + "}")})
    commands = dict(train_policy.commands)
    monkeypatch.setattr(train_policy, "commands", commands)
    before = set(commands)
    add_commands()
    assert set(commands) - before == {"mean-feature"}
    shown = CliRunner().invoke(train_policy, ["mean-feature", "--help"])
    assert shown.exit_code == 0 and "--shrink" in shown.output and "Mean feature: a linear" in shown.output
    wrong = ["--shrink", "2", "--cache", str(tmp_path), "--labels", "x", "--fine", "f", "--out", "o"]
    assert (
        "shrink must be between 0 and 1" in CliRunner().invoke(train_policy, ["mean-feature", *wrong]).output
    )
    config = registry.configure("mean-feature", {"fine": "fine_224", "epochs": 30, "batch": 8, "lr": 0.01})
    result = run_method(config, cache, labels, tmp_path / "run", device="cpu").result
    assert result.title == "Mean feature" and result.metrics["top1"] > 0.5
    assert set(result.gflops) == {"fine_224", "mean classifier"}
    with pytest.raises(UserError, match=r"run: mean-feature has no session: it runs on caches alone"):
        open_session(tmp_path / "run")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page's method as pip would install it, and nothing of it in this repository."""
    folder = tmp_path / "packages"
    about = folder / "their_package-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    points = CODE["entry-points"].replace("project.entry-points.", "").replace('"', "")
    (about / "entry_points.txt").write_text(points)
    (folder / "mean_feature.py").write_text(CODE["method"])
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "mean_feature", raising=False)
    registry.from_packages.cache_clear()
    yield about / "entry_points.txt"
    monkeypatch.undo()
    registry.from_packages.cache_clear()
    sys.modules.pop("mean_feature", None)


@pytest.mark.slow
def test_a_method_of_another_package(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, labels = planted(tmp_path)
    write_planted_labels(labels, tmp_path / "labels.csv")
    monkeypatch.setattr(train_policy, "commands", dict(train_policy.commands))
    add_commands()
    given = ["--cache", str(cache.folder), "--labels", str(tmp_path / "labels.csv"), "--epochs", "2"]
    run = ["mean-feature", *given, "--fine", "fine_224", "--out", str(tmp_path / "run")]
    trained = CliRunner().invoke(train_policy, run)
    assert trained.exit_code == 0 and "Mean feature" in trained.output, trained.output
    # In the leaderboard, whose own rows take longer than this test may.
    board = tmp_path / "board"
    board.mkdir()
    for name in ("table.toml", "01-uniform.toml", "16-coarse-only.toml"):
        shutil.copy(EXPERIMENTS / "policies" / name, board / name)
    streams = ["--coarse", "coarse_112", "--fine", "fine_224"]
    table = ["run", str(board), *given, *streams, "--seeds", "1", "--runs", str(tmp_path / "runs"), "--json"]
    shown = CliRunner().invoke(paper_tables, table)
    assert shown.exit_code == 0, shown.output
    leaderboard, _, commands, _ = json.loads(shown.stdout)["sheets"]
    assert {row["policy"] for row in leaderboard["rows"]} == {
        "Uniform",
        "Coarse only",
        "Mean feature",
        "oracle",
    }
    (command,) = (row["command"] for row in commands["rows"] if row["policy"] == "Mean feature")
    assert command.startswith("train-policy mean-feature --cache ") and "--fine fine_224" in command


def test_a_package_that_does_not_fit_is_named(package: Path) -> None:
    def points(text: str) -> None:
        package.write_text(text)
        registry.from_packages.cache_clear()

    config, method = (f"[thriftvid.{group}]" for group in ("configurations", "methods"))
    points(f"{config}\nmean-feature = mean_feature:MeanFeatureConfig\n")
    with pytest.raises(
        UserError, match=r"their-package adds the method mean-feature without .* thriftvid\.methods"
    ):
        _ = "mean-feature" in registry.METHODS
    points(f"{config}\nlstm = mean_feature:MeanFeatureConfig\n{method}\nlstm = mean_feature:MeanFeature\n")
    with pytest.raises(UserError, match=r"their-package adds the method lstm, which there is"):
        list(registry.CONFIGS)
    assert registry.CONFIGS["lstm"].method == "lstm"  # the others work on
    points(f"{config}\nmean-feature = nothing:A\n{method}\nmean-feature = nothing:B\n")
    with pytest.raises(
        UserError, match=r"their-package: its method mean-feature cannot be imported: .*nothing"
    ):
        registry.CONFIGS["mean-feature"]


def planted(folder: Path) -> tuple[FeatureCache, LabelSet]:
    return write_planted(folder / "cache", train=40, test=20, classes=3, dim=8, lengths=(3, 6))


def test_a_table(tmp_path: Path) -> None:
    (tmp_path / "table.toml").write_text(CODE["table"])
    (tmp_path / "01-lstm.toml").write_text(CODE["row"])
    table = read_table(tmp_path)
    assert [(row.name, row.method) for row in table.experiments] == [("lstm", "lstm")]
