"""A run can be stopped at any moment and comes to the same bits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import cache_schema.run_folder
import policy.evaluation.predictions
import policy.training.checkpoint
from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet, read_labels
from policy.cli.train_policy import train_policy
from policy.config import RunConfig
from policy.data.batches import Batch
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.method import LiteEvalMethod
from policy.method import Losses, Moment
from policy.recipes import with_recipe
from policy.registry import METHODS, configure
from policy.runs import Listener, read_result, run_key, run_method
from policy.training.loop import CHECKPOINT, Epoch
from tests.earlier import make_earlier
from tests.planted import write_planted, write_planted_labels

CONFIG = LiteEvalConfig(
    coarse="coarse_112",
    fine="fine_224",
    epochs=6,
    batch=8,
    lr=1e-3,
    coarse_hidden=6,
    fine_hidden=12,
    grad_clip=5.0,
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    write_planted_labels(
        write_planted(folder, train=24, test=12, classes=4, dim=10)[1], folder / "labels.csv"
    )
    return folder


def opened(planted: Path) -> tuple[FeatureCache, LabelSet]:
    return FeatureCache(planted), read_labels(planted / "labels.csv")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def log(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text().splitlines()


def same_run(a: Path, b: Path) -> bool:
    """Weights, predictions, result and all metrics but the clock's."""
    first, second = weights(a), weights(b)
    logs = [
        [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in log(f)] for f in (a, b)
    ]
    return (
        first.keys() == second.keys()
        and all(torch.equal(first[name], second[name]) for name in first)
        and logs[0] == logs[1]
        and (a / "predictions.npz").read_bytes() == (b / "predictions.npz").read_bytes()
        and read_result(a) == read_result(b)
    )


@pytest.fixture(scope="module")
def undisturbed(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run_method(CONFIG, *opened(planted), folder, device="cpu")
    return folder


def test_same_seed_same_bits(planted: Path, undisturbed: Path, tmp_path: Path) -> None:
    torch.manual_seed(12345)  # whatever the program has drawn before
    torch.rand(7)
    run_method(CONFIG, *opened(planted), tmp_path / "run", device="cpu")
    assert same_run(tmp_path / "run", undisturbed)
    run_method(replace(CONFIG, seed=1), *opened(planted), tmp_path / "other", device="cpu")
    assert not same_run(tmp_path / "other", undisturbed)


class Stop(Exception):
    pass


@pytest.mark.parametrize("stops", [(1,), (3,), (2, 4), (6,)])
def test_a_stopped_run_goes_on(
    stops: tuple[int, ...], planted: Path, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for stop in stops:

        def stopping(epoch: Epoch, stop: int = stop) -> None:
            if epoch["epoch"] == stop:
                raise Stop

        with pytest.raises(Stop):
            run_method(CONFIG, *opened(planted), folder, device="cpu", listener=Listener(epoch=stopping))
        assert (folder / CHECKPOINT).exists()
        # A line that was written without its checkpoint, as by a kill between the two.
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"epoch": 99')
    notes: list[str] = []
    run = run_method(CONFIG, *opened(planted), folder, device="cpu", listener=Listener(note=notes.append))
    assert not run.reused
    assert any("unfinished" in note for note in notes)
    assert same_run(folder, undisturbed)
    assert not (folder / CHECKPOINT).exists()


def words(planted: Path, out: Path, config: LiteEvalConfig = CONFIG) -> list[str]:
    """The command line of a run."""
    options = {
        "--cache": planted,
        "--labels": planted / "labels.csv",
        "--coarse": config.coarse,
        "--fine": config.fine,
        "--epochs": config.epochs,
        "--batch": config.batch,
        "--lr": config.lr,
        "--coarse-hidden": config.coarse_hidden,
        "--fine-hidden": config.fine_hidden,
        "--grad-clip": config.grad_clip,
        "--recipe": "none",
        "--device": "cpu",
        "--out": out,
    }
    return [config.method, *(str(word) for pair in options.items() for word in pair)]


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on(signum: signal.Signals, planted: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=80)
    run_method(config, *opened(planted), tmp_path / "undisturbed", device="cpu")
    program = "from policy.cli.train_policy import train_policy; train_policy()"
    # As many threads as here, or sums are rounded otherwise.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words(planted, tmp_path / "run", config)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not ((tmp_path / "run" / "metrics.jsonl").exists() and len(log(tmp_path / "run")) >= 3):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signum)
    _, said = process.communicate()
    if signum is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + signum
        assert said.splitlines()[-1] == "stopped; give the same command again to go on"
        assert "Traceback" not in said
    assert not (tmp_path / "run" / "result.json").exists()
    run_method(config, *opened(planted), tmp_path / "run", device="cpu")
    assert same_run(tmp_path / "run", tmp_path / "undisturbed")


def at_call(number: int, act: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, before whose call of this number (from 1) something else happens."""
    calls = count(1)

    def replaced(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            act()
        return function(*args, **kwargs)

    return replaced


STEPS = 3  # 24 videos in batches of 8

MOMENTS = {
    "before the first checkpoint": (LiteEvalMethod, "losses", 1),
    "in the first epoch": (LiteEvalMethod, "losses", 2),
    "in the last step of an epoch": (LiteEvalMethod, "losses", STEPS),
    "in the last step": (LiteEvalMethod, "losses", 6 * STEPS),
    "while a checkpoint is written": (policy.training.checkpoint, "write_atomically", 3),
    "before the weights are written": (LiteEvalMethod, "finish", 1),
    "in the evaluation": (LiteEvalMethod, "predict", 2),
    "while the predictions are written": (policy.evaluation.predictions, "write_atomically", 1),
    "while the result is written": (cache_schema.run_folder, "write_atomically", 2),
}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C does what it does in a terminal: what a shell starts in the background would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_run_is_told_to_stop(
    signum: signal.Signals,
    moment: str,
    planted: Path,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, name, number = MOMENTS[moment]
    folder, handler = tmp_path / "run", signal.getsignal(signum)
    with monkeypatch.context() as patched:
        act = partial(os.kill, os.getpid(), signum)
        patched.setattr(place, name, at_call(number, act, getattr(place, name)))
        result = CliRunner().invoke(train_policy, words(planted, folder))
    assert result.exit_code == 128 + signum, result.output
    assert result.stderr.splitlines()[-1] == "stopped; give the same command again to go on"
    assert not result.stdout
    assert (folder / CHECKPOINT).exists()
    assert not list(folder.glob(".*.tmp"))
    assert signal.getsignal(signum) is handler

    moments: list[Moment] = []
    losses = LiteEvalMethod.losses

    def noted(self: LiteEvalMethod, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        moments.append(moment)
        return losses(self, batch, moment, generator)

    monkeypatch.setattr(LiteEvalMethod, "losses", noted)
    result = CliRunner().invoke(train_policy, words(planted, folder))
    assert result.exit_code == 0, result.output
    assert "going on with an unfinished run" in result.stderr
    assert same_run(folder, undisturbed)
    if place is LiteEvalMethod:  # the step at hand was completed, and none is done twice
        assert len(moments) == 6 * STEPS - (number if name == "losses" else 6 * STEPS)


def test_who_asks_twice_does_not_wait(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it has waited")

    monkeypatch.setattr(LiteEvalMethod, "losses", at_call(2, twice, LiteEvalMethod.losses))
    result = CliRunner().invoke(train_policy, words(planted, tmp_path / "run"))
    assert result.exit_code == 143
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_outside_the_main_thread(planted: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Where Python allows no handlers of signals."""
    with ThreadPoolExecutor(1) as elsewhere:
        invoked = elsewhere.submit(CliRunner().invoke, train_policy, words(planted, tmp_path / "run"))
    assert invoked.result().exit_code == 0, invoked.result().output
    assert same_run(tmp_path / "run", undisturbed)


VARIANTS: dict[str, RunConfig] = {
    "as the paper": CONFIG,
    "as released": with_recipe(
        replace(CONFIG, lr_drop=(2, 3), coarse_projection=6, fine_projection=5, tau_decay=0.1),
        "released",
        ("lr", "lr_drop", "coarse_projection", "fine_projection", "tau_decay"),
    ),
    "with a budget": replace(CONFIG, usage_loss="constrained", weight_decay=0.01, step_loss=0.5),
    "by REINFORCE": configure("frame-glimpse", vars(CONFIG)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_long_epoch_is_saved_within(
    variant: str, planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(VARIANTS[variant], epochs=4)
    run_method(config, *opened(planted), tmp_path / "undisturbed", device="cpu")
    method, folder = METHODS[config.method], tmp_path / "run"
    monkeypatch.setattr("policy.training.loop.CHECKPOINT_EVERY_S", 0)

    def fail() -> None:
        raise Stop

    for steps in (2, 3, 4, 1):  # so many steps of each call are completed, the next one fails
        with monkeypatch.context() as patched, pytest.raises(Stop):
            patched.setattr(method, "losses", at_call(steps + 1, fail, method.losses))
            run_method(config, *opened(planted), folder, device="cpu")
    monkeypatch.setattr(method, "losses", at_call(4 * STEPS - 10 + 1, fail, method.losses))
    run_method(config, *opened(planted), folder, device="cpu")
    assert same_run(folder, tmp_path / "undisturbed")


def test_what_a_kill_left_half_written_goes(planted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    program = (
        "import os, pathlib, sys\n"
        "from cache_schema.run_folder import write_atomically\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "write_atomically(pathlib.Path(sys.argv[1]), bytes(100))"
    )
    folder.mkdir()
    subprocess.run([sys.executable, "-c", program, folder / CHECKPOINT], check=False)
    assert [path.name for path in folder.iterdir() if path.suffix == ".tmp"]
    run_method(replace(CONFIG, epochs=1), *opened(planted), folder, device="cpu")
    assert not [path.name for path in folder.iterdir() if path.suffix == ".tmp"]


def test_a_finished_run_is_reused(planted: Path, undisturbed: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir() if path.suffix}
    run = run_method(CONFIG, *opened(planted), undisturbed, device="cpu")
    assert run.reused
    assert run.result == read_result(undisturbed)
    assert before == {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir() if path.suffix}
    # What the method does not read does not matter.
    config = configure("liteeval", vars(CONFIG), frames=3)
    assert run_method(config, *opened(planted), undisturbed, device="cpu").reused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lr": 1e-2}, r"another value of lr \(0.001 → 0.01\); choose another folder"),
        ({"gamma": 0.1}, "another value of gamma"),
        ({"seed": 7}, "another value of seed"),
        (
            {"lr": 1e-2, "seed": 7, "readout": "mean", "skip_missing": True},
            r'another value of lr \(0.001 → 0.01\), readout \(null → "mean"\), seed \(0 → 7\); choose',
        ),
        (
            {"eval_subset": "train", "train_subset": "test"},
            r'content of eval-subset \("test" → "train"\), labels \("[0-9a-f]+… → .*, train-subset',
        ),
    ],
)
def test_a_folder_holds_one_run(
    change: dict[str, object], said: str, planted: Path, undisturbed: Path
) -> None:
    with pytest.raises(UserError, match=said):
        run_method(replace(CONFIG, **change), *opened(planted), undisturbed, device="cpu")  # type: ignore[arg-type]


def test_other_features_are_another_run(planted: Path, undisturbed: Path, tmp_path: Path) -> None:
    cache, labels = write_planted(tmp_path / "cache", train=24, test=12, classes=4, dim=10, seed=1)
    with pytest.raises(UserError, match=r"another content of coarse-112 .*, fine-224 "):
        run_method(CONFIG, cache, labels, undisturbed, device="cpu")
    assert run_key(CONFIG, cache, labels) != run_key(CONFIG, *opened(planted))


def test_the_key_of_a_run(planted: Path, undisturbed: Path, tmp_path: Path) -> None:
    cache, labels = write_planted(tmp_path / "copy", train=24, test=12, classes=4, dim=10)
    key = run_key(CONFIG, *opened(planted))
    assert key == run_key(CONFIG, cache, labels)
    assert key == run_key(configure("liteeval", vars(CONFIG), frames=3, train_subset="train"), cache, labels)
    assert key != run_key(replace(CONFIG, gamma=0.2), cache, labels)
    assert key != run_key(configure("lstm-cf", vars(CONFIG)), cache, labels)
    assert key == json.loads((undisturbed / "config.json").read_text())["key"]


def test_folders_that_are_no_run_folders(planted: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear to me")
    with pytest.raises(UserError, match="neither empty nor a run folder"):
        run_method(CONFIG, *opened(planted), tmp_path, device="cpu")
    with pytest.raises(UserError, match="cannot be used as a run folder"):
        run_method(CONFIG, *opened(planted), tmp_path / "thesis.tex" / "run", device="cpu")
    with pytest.raises(UserError, match="no run folder of train-policy"):
        read_result(tmp_path)
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"\(it has no config.json\); there are .*/first"):
        read_result(tmp_path)
    with pytest.raises(
        UserError, match=r"not a finished run: it has no result\.json; the command that began it"
    ):
        read_result(tmp_path / "first")


NOT_RESULTS = ["{}", "[]", '{"result": []}', '{"result": {"method": "liteeval"}}', '{"result": null}']


@pytest.mark.parametrize("content", [*NOT_RESULTS, "more", "text"])
def test_a_damaged_result(content: str, planted: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    path = folder / "result.json"
    held = json.loads(path.read_text())
    if content == "more":
        content = json.dumps({"result": {**held["result"], "speed": 1}})
    elif content == "text":
        content = json.dumps({"result": {**held["result"], "metrics": {"usage": "often"}}})
    path.write_text(content)
    said = r"run/result\.json: not a result of this version; delete the run folder"
    with pytest.raises(UserError, match=said):
        read_result(folder)
    with pytest.raises(UserError, match=said):
        run_method(CONFIG, *opened(planted), folder, device="cpu")


def test_a_run_of_an_earlier_version_is_judged_again(
    planted: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Its costs were in three columns. Nothing is trained again."""
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    make_earlier(folder)
    with pytest.raises(UserError, match="of an earlier version; give the run's command again"):
        read_result(folder)
    told: list[str] = []
    epochs: list[Epoch] = []
    listener = Listener(note=told.append, epoch=epochs.append)
    run = run_method(CONFIG, *opened(planted), folder, device="cpu", listener=listener)
    assert not run.reused and not epochs
    assert told[-1] == f"{folder}: trained by an earlier version; judged again, not trained again"
    for name in ("result.json", "predictions.npz", "model.safetensors", "config.json", "metrics.jsonl"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
    assert run_method(CONFIG, *opened(planted), folder, device="cpu").reused


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"config": [], "data": {}}', '{"config": {}, "data": null}']
)
def test_a_damaged_configuration(content: str, planted: Path, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"run/config\.json: not a config of this version; delete the run"):
        run_method(CONFIG, *opened(planted), tmp_path / "run", device="cpu")


def test_a_damaged_checkpoint(planted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def stop(epoch: Epoch) -> None:
        raise Stop

    with pytest.raises(Stop):
        run_method(CONFIG, *opened(planted), folder, device="cpu", listener=Listener(epoch=stop))
    content = (folder / CHECKPOINT).read_bytes()
    (folder / CHECKPOINT).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"checkpoint.safetensors: cannot be read"):
        run_method(CONFIG, *opened(planted), folder, device="cpu")


def test_two_programs_in_one_folder(planted: Path, tmp_path: Path) -> None:
    def again(epoch: Epoch) -> None:
        with pytest.raises(UserError, match="another program is at work"):
            run_method(CONFIG, *opened(planted), tmp_path / "run", device="cpu")
        raise Stop

    with pytest.raises(Stop):
        run_method(CONFIG, *opened(planted), tmp_path / "run", device="cpu", listener=Listener(epoch=again))


def test_a_loss_that_is_not_finite(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"epoch \d the loss is not finite"):
        run_method(replace(CONFIG, lr=1e37), *opened(planted), tmp_path / "run", device="cpu")


def test_a_checkpoint_of_another_version(planted: Path, tmp_path: Path) -> None:
    def stop(epoch: Epoch) -> None:
        raise Stop

    folder = tmp_path / "run"
    with pytest.raises(Stop):
        run_method(CONFIG, *opened(planted), folder, device="cpu", listener=Listener(epoch=stop))
    with safe_open(folder / CHECKPOINT, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, folder / CHECKPOINT, metadata={"state": '{"history": []}'})
    with pytest.raises(
        UserError, match=r"checkpoint\.safetensors: a checkpoint of another version; delete it"
    ):
        run_method(CONFIG, *opened(planted), folder, device="cpu")


def changed(change: dict[str, Any] | str) -> RunConfig:
    """With other values, or of another method."""
    return configure(change, vars(CONFIG)) if isinstance(change, str) else replace(CONFIG, **change)


@pytest.mark.parametrize("change", [{"lr": 1e-2}, "frame-glimpse", {"fine": "coarse_112"}])
def test_an_unfinished_run_holds_its_folder(
    change: dict[str, Any] | str, planted: Path, tmp_path: Path
) -> None:
    def stop(epoch: Epoch) -> None:
        raise Stop

    folder = tmp_path / "run"
    with pytest.raises(Stop):
        run_method(CONFIG, *opened(planted), folder, device="cpu", listener=Listener(epoch=stop))
    with pytest.raises(UserError, match=r"holds a run with another .*; choose another folder"):
        run_method(changed(change), *opened(planted), folder, device="cpu")
    cache, labels = write_planted(tmp_path / "cache", train=24, test=12, classes=4, dim=10, seed=1)
    with pytest.raises(UserError, match="holds a run with another content of coarse-112"):
        run_method(CONFIG, cache, labels, folder, device="cpu")


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: by tag, value by step. No step twice."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    shown = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert all(len(dict(points)) == len(points) for points in shown.values())
    return {tag: dict(points) for tag, points in shown.items()}


def test_tensorboard(
    planted: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    command = [*words(planted, folder), "--tensorboard"]
    for steps in (2 * STEPS + 1, 2 * STEPS):  # twice stopped in the middle of an epoch
        with monkeypatch.context() as patched:
            act = partial(os.kill, os.getpid(), signal.SIGTERM)
            patched.setattr(LiteEvalMethod, "losses", at_call(steps, act, LiteEvalMethod.losses))
            assert CliRunner().invoke(train_policy, command).exit_code == 143
    result = CliRunner().invoke(train_policy, command)
    assert result.exit_code == 0, result.output
    assert same_run(folder, undisturbed)
    shown = scalars(folder)
    epochs = [json.loads(line) for line in log(folder)]
    for name in ("loss", "usage", "lr"):
        assert shown[f"train/{name}"] == pytest.approx({e["epoch"]: e[name] for e in epochs}, rel=1e-6)
    held = read_result(folder)
    assert shown["evaluation/mean_average_precision"] == pytest.approx(
        {6: held.metrics["mean_average_precision"]}
    )
    for name, gflops in held.gflops.items():
        assert shown[f"evaluation/gflops/{name}"] == pytest.approx({6: gflops})
    # With scalars or without, it is the same run.
    result = CliRunner().invoke(train_policy, words(planted, folder))
    assert "had already been finished" in result.stderr
    assert scalars(folder) == shown


def test_tensorboard_is_not_installed(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = CliRunner().invoke(train_policy, [*words(planted, tmp_path / "run"), "--tensorboard"])
    assert result.exit_code == 2
    assert (
        "--tensorboard needs a package that is not installed: pip install '.[tensorboard]'"
        in result.stderr.splitlines()[-1]
    )
    assert not (tmp_path / "run").exists()


def test_nothing_in_a_run_folder_is_pickled(undisturbed: Path) -> None:
    names = {path.name for path in undisturbed.iterdir()}
    assert names == {
        ".lock", "config.json", "metrics.jsonl", "model.safetensors", "predictions.npz", "result.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gamma": 1.5}, "gamma must be between 0 and 1, not 1.5"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"epochs": -1}, "epochs must be positive"),
        ({"coarse": None}, "liteeval needs a coarse stream"),
        ({"fine": "resnet"}, "no stream 'resnet'"),
        ("liteeval-2", "no method 'liteeval-2'"),
        ({"coarse_hidden": 64}, "coarse.hidden.*64.*fine.hidden.*12"),
    ],
)
def test_configurations_that_make_no_sense(
    change: dict[str, Any] | str, said: str, planted: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        run_method(changed(change), *opened(planted), tmp_path / "run", device="cpu")


@pytest.mark.parametrize("device", ["abacus", "meta"])
def test_devices_that_are_not_there(device: str, planted: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--device {device}: not to be had here"):
        run_method(CONFIG, *opened(planted), tmp_path / "run", device=device)
