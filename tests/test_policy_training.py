"""A run can be stopped at any moment and comes to the same bits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet, read_labels
from policy.config import RunConfig
from policy.runs import Listener, read_result, run_key, run_method
from policy.training import CHECKPOINT, Epoch
from tests.planted import write_planted, write_planted_labels

CONFIG = RunConfig(
    "liteeval",
    coarse="coarse_112",
    fine="fine_224",
    epochs=6,
    batch=8,
    lr=1e-3,
    coarse_hidden=6,
    fine_hidden=12,
    grad_clip=5.0,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small, on cores that others use too, spend their time waiting for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


def test_a_killed_run_goes_on(planted: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=80)
    run_method(config, *opened(planted), tmp_path / "undisturbed", device="cpu")
    options = {
        "--cache": planted,
        "--labels": planted / "labels.csv",
        "--coarse": "coarse_112",
        "--fine": "fine_224",
        "--epochs": 80,
        "--batch": 8,
        "--lr": 1e-3,
        "--coarse-hidden": 6,
        "--fine-hidden": 12,
        "--grad-clip": 5.0,
        "--device": "cpu",
        "--out": tmp_path / "run",
    }
    words = [str(word) for pair in options.items() for word in pair]
    program = "from policy.cli import train_policy; train_policy()"
    # As many threads as here, or sums are rounded otherwise.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", program, "liteeval", *words], env=environment)
    deadline = time.monotonic() + 120
    while not ((tmp_path / "run" / "metrics.jsonl").exists() and len(log(tmp_path / "run")) >= 3):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "run" / "result.json").exists()
    run_method(config, *opened(planted), tmp_path / "run", device="cpu")
    assert same_run(tmp_path / "run", tmp_path / "undisturbed")


def test_a_finished_run_is_reused(planted: Path, undisturbed: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir() if path.suffix}
    run = run_method(CONFIG, *opened(planted), undisturbed, device="cpu")
    assert run.reused
    assert run.result == read_result(undisturbed)
    assert before == {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir() if path.suffix}
    # What the method does not read does not matter.
    assert run_method(replace(CONFIG, frames=3), *opened(planted), undisturbed, device="cpu").reused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lr": 1e-2}, r"another value of lr \(0.001, not 0.01\)"),
        ({"gamma": 0.1}, "another value of gamma"),
        ({"seed": 7}, "another value of seed"),
        ({"eval_subset": "train", "train_subset": "test"}, "another content of eval-subset"),
    ],
)
def test_a_folder_holds_one_run(
    change: dict[str, object], said: str, planted: Path, undisturbed: Path
) -> None:
    with pytest.raises(UserError, match=said):
        run_method(replace(CONFIG, **change), *opened(planted), undisturbed, device="cpu")  # type: ignore[arg-type]


def test_other_features_are_another_run(planted: Path, undisturbed: Path, tmp_path: Path) -> None:
    cache, labels = write_planted(tmp_path / "cache", train=24, test=12, classes=4, dim=10, seed=1)
    with pytest.raises(UserError, match="another content of coarse-112"):
        run_method(CONFIG, cache, labels, undisturbed, device="cpu")
    assert run_key(CONFIG, cache, labels) != run_key(CONFIG, *opened(planted))


def test_the_key_of_a_run(planted: Path, undisturbed: Path, tmp_path: Path) -> None:
    cache, labels = write_planted(tmp_path / "copy", train=24, test=12, classes=4, dim=10)
    key = run_key(CONFIG, *opened(planted))
    assert key == run_key(CONFIG, cache, labels)
    assert key == run_key(replace(CONFIG, frames=3, train_subset="train"), cache, labels)
    assert key != run_key(replace(CONFIG, gamma=0.2), cache, labels)
    assert key != run_key(replace(CONFIG, method="lstm-cf"), cache, labels)
    assert key == json.loads((undisturbed / "config.json").read_text())["key"]


def test_folders_that_are_no_run_folders(planted: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear to me")
    with pytest.raises(UserError, match="neither empty nor a run folder"):
        run_method(CONFIG, *opened(planted), tmp_path, device="cpu")
    with pytest.raises(UserError, match="cannot be used as a run folder"):
        run_method(CONFIG, *opened(planted), tmp_path / "thesis.tex" / "run", device="cpu")
    with pytest.raises(UserError, match="not a finished run"):
        read_result(tmp_path)


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
        content = json.dumps({"result": {**held["result"], "usage": "often"}})
    path.write_text(content)
    said = r"run/result\.json: not a result of this version; delete the run folder"
    with pytest.raises(UserError, match=said):
        read_result(folder)
    with pytest.raises(UserError, match=said):
        run_method(CONFIG, *opened(planted), folder, device="cpu")


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
        ({"method": "liteeval-2"}, "no method 'liteeval-2'"),
        ({"coarse_hidden": 64}, "coarse.hidden.*64.*fine.hidden.*12"),
    ],
)
def test_configurations_that_make_no_sense(
    change: dict[str, object], said: str, planted: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        run_method(replace(CONFIG, **change), *opened(planted), tmp_path / "run", device="cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["abacus", "meta"])
def test_devices_that_are_not_there(device: str, planted: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no device '{device}'"):
        run_method(CONFIG, *opened(planted), tmp_path / "run", device=device)
