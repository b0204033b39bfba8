"""--config, --set, --log-file and --wandb of train-policy."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from policy.cli.train_policy import train_policy
from policy.registry import CONFIGS, configure, repeated
from policy.runs import read_config
from policy.selection.config import SelectorCascadeConfig, SelectorConfig
from tests.planted import write_planted, write_planted_labels

HIDDEN = ["--coarse-hidden", "6", "--fine-hidden", "12"]
STREAMS = ["--coarse", "coarse_112", "--fine", "fine_224"]
LITEEVAL: list[object] = [
    "liteeval",
    *STREAMS,
    *HIDDEN,
    "--epochs",
    "2",
    "--batch",
    "8",
    "--lr-drop",
    "1",
    "--grad-clip",
    "3",
]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    write_planted_labels(write_planted(folder, train=16, test=8, classes=4, dim=8)[1], folder / "labels.csv")
    return folder


@pytest.fixture(scope="module")
def first(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with options of every kind: numbers, none, several, flags, a recipe's."""
    out = tmp_path_factory.mktemp("runs") / "first"
    assert (
        run(planted, *LITEEVAL, "--recipe", "robust", "--no-sync", "--single-label", "--out", out).exit_code
        == 0
    )
    return out


def run(planted: Path, *words: object) -> Result:
    method, *rest = map(str, words)
    data = ["--cache", str(planted), "--labels", str(planted / "labels.csv"), "--device", "cpu"]
    return CliRunner().invoke(train_policy, [method, *data, *rest])


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())["config"]
    return config


def line_of(result: Result) -> str:
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return result.stderr.strip().splitlines()[-1]


# --- --config ---


@pytest.mark.parametrize("name", ["config.json", ""])
def test_a_run_is_repeated(name: str, planted: Path, first: Path, tmp_path: Path) -> None:
    again = run(planted, "liteeval", "--config", first / name, "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "again", first))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert read_config(tmp_path / "again") == read_config(first)
    # It is this run: in its own folder there is nothing to do.
    assert "already been finished" in run(planted, "liteeval", "--config", first, "--out", first).stderr


def test_what_is_given_wins(planted: Path, first: Path, tmp_path: Path) -> None:
    words = ["--lr", "2e-3", "--lr-drop", "2", "--sync", "--fine-hidden", "10", "--out", tmp_path / "other"]
    assert run(planted, "liteeval", "--config", first, *words).exit_code == 0
    changed = {"lr": 2e-3, "lr_drop": [2], "sync": True, "fine_hidden": 10}
    assert config_of(tmp_path / "other") == {**config_of(first), **changed}


def test_random_gates_of_a_run(planted: Path, tmp_path: Path) -> None:
    words = [*STREAMS, *HIDDEN, "--epochs", "1", "--usage", "0.3", "--out", tmp_path / "first"]
    assert run(planted, "random-gating", *words).exit_code == 0
    result = run(planted, "random-gating", "--config", tmp_path / "first", "--out", tmp_path / "again")
    assert result.exit_code == 0, result.output
    assert config_of(tmp_path / "again")["usage"] == 0.3


def test_a_teacher_is_named_again(planted: Path, tmp_path: Path) -> None:
    assert run(planted, "lstm-cf", *STREAMS, "--epochs", "1", "--out", tmp_path / "teacher").exit_code == 0
    teacher = ["--teacher", tmp_path / "teacher"]
    result = run(planted, *LITEEVAL, "--distill", "1", *teacher, "--out", tmp_path / "student")
    assert result.exit_code == 0, result.output
    words = ["--config", tmp_path / "student", "--out", tmp_path / "again"]
    assert "distill needs a teacher" in line_of(run(planted, "liteeval", *words))
    assert run(planted, "liteeval", *words, *teacher).exit_code == 0
    assert config_of(tmp_path / "again") == config_of(tmp_path / "student")


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"method": "lstm"}, r"config.json: of a run of lstm: give it to train-policy lstm$"),
        ({"lrr": 1e-3}, r"config.json: there is no field 'lrr'; did you mean lr"),
        ({"lr": "quick"}, r"config.json: lr: 'quick' is not a valid float.$"),
        ({"epochs": 2.5}, r"config.json: epochs: '2.5' is not a valid integer.$"),
        ({"epochs": None}, r"config.json: epochs: 'None' is not a valid integer.$"),
        ({"epochs": [2]}, r"config.json: epochs: \[2\] is not what it takes.$"),
        ({"lr_drop": 3}, r"config.json: lr_drop: 3 is not what it takes.$"),
        ({"cell": "rnn"}, r"config.json: cell: 'rnn' is not one of 'lstm', 'gru', 'sru'.$"),
        ({"epochs": -1}, r"epochs must be positive, not -1$"),
        ({"sync": "maybe"}, r"config.json: sync: 'maybe' is not a valid boolean"),
    ],
)
def test_a_config_that_is_none(
    changed: dict[str, Any], line: str, planted: Path, first: Path, tmp_path: Path
) -> None:
    content = json.loads((first / "config.json").read_text())
    content["config"] |= changed
    (tmp_path / "config.json").write_text(json.dumps(content))
    words = ["--config", tmp_path / "config.json", "--out", tmp_path / "run"]
    assert re.search(line, line_of(run(planted, "liteeval", *words)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "config.json: no such file"),
        ("", "config.json: cannot be read"),
        ("[]", "config.json: not a config"),
        ("{}", "config.json: not the config.json of a run of train-policy"),
        ('{"config": {"lr": 1}}', "not the config.json of a run of train-policy"),
        ('{"config": {"method": "liteeval"}}', "not the config.json of a run of train-policy"),
        ('{"config": [], "data": []}', "not the config.json of a run of train-policy"),
    ],
)
def test_a_file_that_is_no_config(content: str | None, line: str, planted: Path, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    words = ["--config", tmp_path / "config.json", "--out", tmp_path / "run"]
    assert line in line_of(run(planted, "liteeval", *words))


def test_a_recipe_would_say_nothing(planted: Path, first: Path, tmp_path: Path) -> None:
    words = ["--config", first, "--recipe", "paper", "--out", tmp_path / "run"]
    assert "give --recipe or --config" in line_of(run(planted, "liteeval", *words))


def test_without_a_config_streams_are_required(planted: Path, tmp_path: Path) -> None:
    assert "coarse" in line_of(run(planted, "liteeval", "--out", tmp_path))


def test_every_method_can_be_repeated() -> None:
    for method, command in train_policy.commands.items():
        options = {parameter.name for parameter in command.params}
        assert ({"of_run", "assigned", "log_file", "wandb"} <= options) == (method in CONFIGS)


def test_a_threshold_takes_the_place_of_a_budget() -> None:
    cascade: dict[str, Any] = {"models": ("a", "b"), "threshold": 0.01, "budget": 8.0, "lr_drop": (40, 80)}
    cascade["decisions"] = "logistic"
    assert repeated("selector-cascade", cascade, {}) == SelectorCascadeConfig(**cascade)
    config = repeated("selector-cascade", cascade, {"threshold": 0.5})
    assert isinstance(config, SelectorCascadeConfig) and (config.threshold, config.budget) == (0.5, None)
    priced = {"models": ("a", "b"), "threshold": 0.5, "target": "loss", "decisions": "perceptron"}
    config = repeated("selector", priced, {"budget": 3.0})
    assert isinstance(config, SelectorConfig) and (config.threshold, config.budget) == (None, 3.0)


def test_the_usual_schedule_follows_the_epochs() -> None:
    """A selector's learning rate falls after two and four fifths of them, unless the run was told otherwise."""
    usual = {"models": ("a", "b"), "decisions": "perceptron", "epochs": 5, "lr_drop": (2, 4)}
    assert repeated("selector", usual, {"epochs": 50}).lr_drop == (20, 40)
    assert repeated("selector", {**usual, "lr_drop": (1,)}, {"epochs": 50}).lr_drop == (1,)
    assert repeated("selector", usual, {"epochs": 50, "lr_drop": (3,)}).lr_drop == (3,)


def test_runs_that_had_options_of_descent_without_reading_them(planted: Path, tmp_path: Path) -> None:
    """As earlier versions left them: they are the same run, are opened, and are done again."""
    words = ["motion-difference", *STREAMS, "--top-rows", "2"]
    assert run(planted, *words, "--out", tmp_path / "run").exit_code == 0
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    content["config"] |= {"epochs": 20, "lr": 1e-3, "weight_decay": 0.0, "lr_drop": [9], "grad_clip": None}
    path.write_text(json.dumps(content))
    assert "had already been finished" in run(planted, *words, "--out", tmp_path / "run").stderr
    other = run(planted, *words[:-1], "3", "--out", tmp_path / "run")
    assert line_of(other).endswith("another value of top-rows (2 → 3); choose another folder")
    assert (
        read_config(tmp_path / "run").decisive()
        == configure(
            "motion-difference", {"coarse": "coarse_112", "fine": "fine_224", "top_rows": 2}
        ).decisive()
    )
    assert run(planted, "motion-difference", "--config", path, "--out", tmp_path / "again").exit_code == 0
    assert read_config(tmp_path / "again").decisive() == read_config(tmp_path / "run").decisive()


# --- --set ---


def test_fields_are_set_by_their_names(planted: Path, first: Path, tmp_path: Path) -> None:
    sets = ["lr=2e-3", "lr_drop=1,2", "grad-clip=none", "sync=true", "fine=fine_224", "coarse = coarse_112"]
    words = [word for text in sets for word in ("--set", text)]
    more = [*HIDDEN, "--epochs", "1", "--out", tmp_path / "run"]
    result = run(planted, "liteeval", *words, *more)
    assert result.exit_code == 0, result.output
    changed = {"lr": 2e-3, "lr_drop": [1, 2], "grad_clip": None, "sync": True, "fine": "fine_224"}
    assert changed.items() <= config_of(tmp_path / "run").items()
    result = run(
        planted, "liteeval", "--config", first, "--set", "grad_clip=None", "--out", tmp_path / "other"
    )
    assert result.exit_code == 0, result.output
    assert config_of(tmp_path / "other") == {**config_of(first), "grad_clip": None}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["lrate=1e-3"], "--set lrate=1e-3: there is no field 'lrate'; did you mean"),
        (["l=1"], "did you mean lr"),
        (["lr"], "--set lr: give NAME=VALUE, such as --set lr=1e-3"),
        (["lr=fast"], "--set lr=fast: 'fast' is not a valid float."),
        (["lr=none"], "--set lr=none: 'none' is not a valid float."),
        (["lr=-1"], "lr must be positive, not -1.0"),
        (["lr=1", "lr=2"], "--set lr=2: lr is set twice"),
        (["epochs=3"], "epochs is given twice: as an option, and with --set"),
    ],
)
def test_sets_that_make_no_sense(words: list[str], line: str, planted: Path, tmp_path: Path) -> None:
    sets = [word for text in words for word in ("--set", text)]
    assert line in line_of(run(planted, *LITEEVAL, *sets, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# --- --log-file ---


def test_a_log_file_has_all_that_was_printed(planted: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    for _ in ("trained", "reused"):
        result = run(planted, *LITEEVAL, "--out", tmp_path / "run", "--log-file", log)
        assert result.exit_code == 0, result.output
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", line) for line in lines)
    text = "\n".join(line[24:] for line in lines)
    for printed in filter(None, (result.stdout + result.stderr).splitlines()):
        assert printed in text
    assert text.count("train-policy liteeval --cache") == 2
    epochs = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for n, epoch in enumerate(epochs, 1):
        assert text.count(f"epoch {n} of 2: loss {epoch['loss']:.4g}") == 1


def test_a_log_file_says_what_has_ended_a_training(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.txt"
    words = [*LITEEVAL, "--out", tmp_path / "run", "--log-file", log]
    assert run(planted, *words, "--train-subset", "trian").exit_code == 2
    assert "Error: " in log.read_text() and "no subset 'trian'" in log.read_text()

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("policy.runs.make_method", interrupt)
    assert run(planted, *words).exit_code == 130
    assert "ended by KeyboardInterrupt" in log.read_text()

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("policy.runs.make_method", fail)
    assert isinstance(run(planted, *words).exception, ZeroDivisionError)
    assert "ended by ZeroDivisionError" in log.read_text() and "Traceback" in log.read_text()


def test_a_log_file_that_cannot_be_written(planted: Path, tmp_path: Path) -> None:
    words = [*LITEEVAL, "--out", tmp_path / "run", "--log-file", tmp_path / "none" / "log.txt"]
    assert "--log-file" in (line := line_of(run(planted, *words))) and "cannot be written to" in line
    assert not (tmp_path / "run").exists()


# --- --wandb ---


class FakeRun:
    """Drops what is not of the step at hand or a later one, as the package does."""

    def __init__(self, logged: dict[int, dict[str, float]]) -> None:
        self.logged, self.step, self.exit_codes = logged, max(logged, default=-1) + 1, list[int]()

    def log(self, values: dict[str, float], step: int) -> None:
        if step >= self.step - 1:
            self.logged.setdefault(step, {}).update(values)
            self.step = step + 1

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


class FakeWandB(SimpleNamespace):
    """What is used of the package; a run that is begun again goes on."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__(logged={}, started=[], runs=[])

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **how: Any) -> FakeRun:
        self.started.append(how)
        self.runs.append(FakeRun(self.logged.setdefault(how["id"], {})))
        return self.runs[-1]  # type: ignore[no-any-return]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandB:
    fake = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_weights_and_biases(planted: Path, tmp_path: Path, wandb: FakeWandB) -> None:
    folder = tmp_path / "run"
    words = [*LITEEVAL, "--validation", "0.25", "--out", folder, "--wandb", "cheap videos"]
    result = run(planted, *words)
    assert result.exit_code == 0, result.output
    (started,), (one,) = wandb.started, wandb.runs
    assert (started["project"], started["name"], started["dir"]) == ("cheap videos", "run", folder)
    assert started["config"] == config_of(folder) and one.exit_codes == [0]
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert one.logged.keys() == {1, 2}
    for epoch in epochs:
        logged = one.logged[epoch["epoch"]]
        assert (logged["train/loss"], logged["validation/top1"]) == (epoch["loss"], epoch["validation_top1"])
    assert (
        one.logged[2]["evaluation/top1"]
        == json.loads((folder / "result.json").read_text())["result"]["metrics"]["top1"]
    )
    # A finished run is not begun again.
    assert run(planted, *words).exit_code == 0 and len(wandb.runs) == 1


def test_a_stopped_run_goes_on_in_weights_and_biases(
    planted: Path, tmp_path: Path, wandb: FakeWandB, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["liteeval", *STREAMS, *HIDDEN, "--epochs", "3", "--out", tmp_path / "run", "--wandb", "p"]

    def stop(self: FakeRun, values: dict[str, float], step: int) -> None:
        log(self, values, step)
        raise KeyboardInterrupt

    log = FakeRun.log
    with monkeypatch.context() as patched:
        patched.setattr(FakeRun, "log", stop)
        assert run(planted, *words).exit_code == 130
    assert run(planted, *words).exit_code == 0
    (logged,) = wandb.logged.values()
    assert [one.exit_codes for one in wandb.runs] == [[1], [0]] and logged.keys() == {1, 2, 3}
    epochs = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [logged[step]["train/loss"] for step in (1, 2, 3)] == [epoch["loss"] for epoch in epochs]


def test_without_an_account(
    planted: Path, tmp_path: Path, wandb: FakeWandB, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FakeWandB, **how: Any) -> FakeRun:
        raise self.Error("no API key configured")

    monkeypatch.setattr(FakeWandB, "init", refuse)
    line = line_of(run(planted, *LITEEVAL, "--out", tmp_path / "run", "--wandb", "p"))
    assert line == "Error: --wandb p: no API key configured (WANDB_MODE=offline needs no account)"


def test_wandb_is_not_installed(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    line = line_of(run(planted, *LITEEVAL, "--out", tmp_path / "run", "--wandb", "p"))
    assert "--wandb needs a package that is not installed: pip install '.[wandb]' in the checkout" in line
    assert not (tmp_path / "run").exists()


def test_wandb_is_imported_only_where_it_is_wanted(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert run(planted, *LITEEVAL, "--epochs", "1", "--out", tmp_path / "run").exit_code == 0
