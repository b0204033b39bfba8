"""finetune-backbone end to end: it learns, resumes to the same bits, and its weights are batch-extract's."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.videos import media_data, write_video
from cache_schema import FeatureCache
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone, build_network
from extract.cli import batch_extract
from extract.finetune.cli import finetune_backbone
from extract.finetune.cutting import ValidationJob
from extract.finetune.metrics import classification_loss
from extract.finetune.network import build
from extract.finetune.progress import show_training
from extract.finetune.samples import decode_in_order
from extract.finetune.training import Progress

STREAM, NAME = "timm:test_resnet@64", "test_resnet_64"
CLASSES = ("blue", "green", "red")
TRAIN, VAL = 6, 3  # videos of each class


pytestmark = pytest.mark.usefixtures("one_thread")


def tinted_frames(tints: Sequence[str], seed: int, count: int = 16) -> list[NDArray[np.uint8]]:
    """Coarse grey noise that changes slowly, some channels of it brighter."""
    random = np.random.default_rng(seed)
    grey = random.integers(20, 150, (9, 12, 1))
    gain = np.array([70 if name in tints else 0 for name in ("red", "green", "blue")])
    frames = (
        np.clip(grey + gain + random.integers(-15, 15, (9, 12, 3)), 0, 255).astype(np.uint8)
        for _ in range(count)
    )
    return [frame.repeat(8, axis=0).repeat(8, axis=1) for frame in frames]


def write_collection(folder: Path) -> Path:
    """Videos of three tints, and their labels."""
    lines = ["video_id,label,subset"]
    for c, name in enumerate(CLASSES):
        for i in range(TRAIN + VAL):
            video_id = f"{name}_{i}"
            write_video(folder / f"{video_id}.mp4", tinted_frames([name], 100 * c + i), fps=8)
            lines.append(f"{video_id},{name},{'training' if i < TRAIN else 'validation'}")
    labels = folder / "labels.csv"
    labels.write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("tinted"))


@pytest.fixture
def videos(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "videos"))


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a request that was refused."""
        assert self.code == 2 and self.out == "" and "Traceback" not in self.err
        line = self.err.splitlines()[-1]
        assert line.startswith("Error: ")
        return line

    @property
    def answer(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed


DEFAULTS: dict[str, str | int] = {
    "--stream": STREAM,
    "--weights": "random:0",
    "--lr": "3e-3",
    "--epochs": 2,
    "--batch": 16,
    "--workers": 1,
    "--device": "cpu",
}


def arguments(videos: Path, out: Path, *flags: str, **changed: object) -> list[str]:
    options: dict[str, object] = {"--labels": videos / "labels.csv", **DEFAULTS, "--out": out}
    options |= {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    return [str(videos), *(str(w) for pair in options.items() for w in pair if pair[1] is not None), *flags]


def finetune(videos: Path, out: Path, *flags: str, **changed: object) -> Ran:
    result = CliRunner().invoke(finetune_backbone, arguments(videos, out, *flags, **changed))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_run(a: Path, b: Path) -> bool:
    """Weights, and all metrics but the clock's."""
    logs = [[{k: v for k, v in said.items() if k != "seconds"} for said in log(f)] for f in (a, b)]
    files = [(f / "weights.safetensors").read_bytes() for f in (a, b)]
    return logs[0] == logs[1] and files[0] == files[1]


@pytest.fixture(scope="module")
def finished(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the default arguments."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    ran = finetune(originals, folder)
    assert ran.code == 0, ran.err
    return folder


# -------------------------------------------------------------------------------------------------- what it does


@pytest.mark.slow
def test_it_learns_and_its_weights_are_a_stream_with_scores(originals: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ran = finetune(originals, run, "--json", epochs=6)
    assert ran.code == 0, ran.err
    answer = ran.answer
    assert answer["metric"] == "top-1" and answer["classes"] == 3
    assert answer["val_videos"] >= 0.85, log(run)
    assert {path.name for path in run.iterdir()} == {
        ".lock", "config.json", "metrics.jsonl", "result.json", "weights.safetensors",
    }  # fmt: skip
    best = max(log(run), key=lambda said: (said["val_videos"], -said["val_loss"]))
    assert best["epoch"] == answer["epoch"] and best["val_videos"] == answer["val_videos"]
    with safe_open(run / "weights.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["classes"]) == list(CLASSES)

    weights = run / "weights.safetensors"
    words = [
        originals,
        "--cache",
        tmp_path / "cache",
        "--stream",
        STREAM,
        "--weights",
        weights,
        "--workers",
        "1",
    ]
    extracted = CliRunner().invoke(batch_extract, [str(word) for word in words])
    assert extracted.exit_code == 0, extracted.stderr
    stream = FeatureCache(tmp_path / "cache")[NAME]
    assert stream.spec.classes == CLASSES and stream.spec.num_classes == 3

    # The same frames, through the model as it is trained and validated.
    start = build(parse_stream(STREAM), str(weights), CLASSES, seed=5)
    assert not start.new_head
    trainee = start.trainee.eval()
    video = "green_7"
    job = ValidationJob(0, originals / f"{video}.mp4", (trainee.view,))
    (sample,) = decode_in_order(iter([job]), workers=1, deadline_s=60, ahead=4)
    assert sample.pixels is not None
    with torch.inference_mode():
        logits = trainee(torch.from_numpy(sample.pixels))
    scores = stream[video].scores
    assert scores is not None and scores.shape == logits.shape
    np.testing.assert_allclose(scores, logits, atol=5e-3, rtol=5e-3)
    _, direct = Backbone(parse_stream(STREAM), weights=str(weights), device=torch.device("cpu"))(
        torch.from_numpy(sample.pixels)
    )
    torch.testing.assert_close(logits, direct, atol=1e-5, rtol=1e-5)


def test_the_next_command_is_named(originals: Path, finished: Path) -> None:
    again = finetune(originals, finished)
    assert again.code == 0
    assert "already been finished" in again.err
    summary, following = again.out.splitlines()
    assert "is the best, top-1" in summary
    assert following == (
        f"next: batch-extract {originals} --cache CACHE --stream {STREAM} --weights {finished}/weights.safetensors"
    )


@pytest.mark.slow
def test_several_labels(videos: Path, tmp_path: Path) -> None:
    lines = (videos / "labels.csv").read_text().splitlines()
    for i in range(4):
        write_video(videos / f"both_{i}.mp4", tinted_frames(["red", "blue"], 900 + i), fps=8)
        lines.append(f"both_{i},red;blue,{'training' if i < 3 else 'validation'}")
    (videos / "labels.csv").write_text("\n".join(lines) + "\n")
    ran = finetune(videos, tmp_path / "run", "--json", epochs=6)
    assert ran.code == 0
    assert "3 of 21 training videos have several classes" in ran.err
    assert ran.answer["metric"] == "mAP"
    assert ran.answer["val_videos"] > 0.8, log(tmp_path / "run")
    ran = finetune(videos, tmp_path / "single", "--json", "--single-label", epochs=1)
    assert ran.answer["metric"] == "top-1"
    assert "each video's first class alone" in ran.err


def test_weights_of_the_same_classes_keep_their_classifier(
    originals: Path, finished: Path, tmp_path: Path
) -> None:
    given = finished / "weights.safetensors"
    ran = finetune(originals, tmp_path / "run", "--json", weights=given, lr="1e-8", epochs=1)
    before = load_file(given)
    after = load_file(tmp_path / "run" / "weights.safetensors")
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-5, rtol=1e-5)
    result = json.loads((finished / "result.json").read_text())
    assert ran.answer["val_videos"] == result["val_videos"]  # no worse than where it began


def test_only_the_head(originals: Path, tmp_path: Path) -> None:
    """Also: a file's classifier of other classes is replaced."""
    backbone = build(parse_stream(STREAM), "random:3", tuple("abcd"), seed=0).trainee.parameters_of
    given = tmp_path / "four.safetensors"
    before = {name: value.contiguous() for name, value in backbone.state_dict().items()}
    save_file(before, given, metadata={"classes": json.dumps(list("abcd"))})
    finetune(originals, tmp_path / "run", "--head-only", weights=given, epochs=1)
    after = load_file(tmp_path / "run" / "weights.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert after["fc.weight"].shape[0] == 3


@pytest.mark.parametrize(
    ("weights", "batch_norm", "moves"), [("random", "auto", True), ("file", "auto", False)]
)
def test_batch_norm(
    weights: str, batch_norm: str, moves: bool, originals: Path, finished: Path, tmp_path: Path
) -> None:
    given = str(finished / "weights.safetensors") if weights == "file" else "random:0"
    finetune(originals, tmp_path / "run", weights=given, batch_norm=batch_norm, epochs=1)
    before = build(parse_stream(STREAM), given, CLASSES, seed=0).trainee.parameters_of.state_dict()
    after = load_file(tmp_path / "run" / "weights.safetensors")
    means = [name for name in before if name.endswith("running_mean")]
    assert means
    assert all(torch.equal(before[name], after[name]) != moves for name in means)


def test_a_share_of_the_training_videos(originals: Path, tmp_path: Path) -> None:
    ran = finetune(originals, tmp_path / "run", "--json", val_fraction=0.34, epochs=1)
    assert ran.answer["train_videos"] == 12 and ran.answer["validation_videos"] == 6
    assert "6 of the 18 videos of subset 'training' set aside" in ran.err


@pytest.mark.slow
def test_sgd_and_bf16(originals: Path, tmp_path: Path) -> None:
    ran = finetune(originals, tmp_path / "run", "--json", optimizer="sgd", lr=None, precision="bf16")
    assert ran.code == 0
    held = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (held["lr"], held["precision"], held["optimizer"]) == (0.01, "bf16", "sgd")
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert weights["fc.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    "stream",
    ["x3d_xs"] + [pytest.param(s, marks=pytest.mark.slow) for s in ("slowfast_8x8_256", "i3d_flow_dense16")],
)
def test_a_new_classifier_of_clips(stream: str) -> None:
    """All else is as it was."""
    request = parse_stream(stream)
    before = build_network(request, "random:2").parameters.state_dict()
    start = build(request, "random:2", CLASSES, seed=0)
    after = start.trainee.parameters_of.state_dict()
    assert start.new_head and len(start.trainee.head) == 2
    for name, value in after.items():
        if name in start.trainee.head:
            assert value.shape[0] == 3 and before[name].shape[0] == 400
        else:
            assert torch.equal(value, before[name])


@pytest.mark.slow
def test_clips(videos: Path, tmp_path: Path) -> None:
    for path in [*videos.glob("*_[1-57-8].mp4")]:
        path.unlink()
    options = {"epochs": 1, "frames_per_video": 2, "batch": 3, "val_rows": 2}
    ran = finetune(videos, tmp_path / "run", "--skip-missing", "--json", stream="x3d_xs", **options)
    assert ran.code == 0 and ran.answer["train_videos"] == 3
    weights = tmp_path / "run" / "weights.safetensors"
    words = [
        videos,
        "--cache",
        tmp_path / "cache",
        "--stream",
        "x3d_xs",
        "--clips",
        "1",
        "--weights",
        weights,
    ]
    extracted = CliRunner().invoke(batch_extract, [*map(str, words), "--workers", "1"])
    assert extracted.exit_code == 0, extracted.stderr
    stream = FeatureCache(tmp_path / "cache")["x3d_xs@1clips"]
    assert stream.spec.classes == CLASSES
    scores = stream["red_0"].scores
    assert scores is not None and scores.shape == (1, 3)


# ------------------------------------------------------------------------------------- the same bits, and resumed


@pytest.mark.slow
def test_the_same_bits_with_other_workers(originals: Path, finished: Path, tmp_path: Path) -> None:
    torch.manual_seed(12345)  # whatever the program has drawn before
    finetune(originals, tmp_path / "run", workers=3)
    assert same_run(tmp_path / "run", finished)
    finetune(originals, tmp_path / "other", seed=1)
    assert not same_run(tmp_path / "other", finished)


VICTIM = """
import importlib, pathlib, sys, time
module, name, count, marker = (sys.argv.pop(1) for _ in range(4))
module = importlib.import_module("extract.finetune." + module)
function, calls = getattr(module, name), []
def stopping(*arguments):
    calls.append(1)
    if len(calls) == int(count):
        pathlib.Path(marker).touch()
        time.sleep(1000)
    return function(*arguments)
setattr(module, name, stopping)
from extract.finetune.cli import finetune_backbone
finetune_backbone()
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(originals: Path, finished: Path, tmp_path: Path) -> None:
    moments = [
        ("training", "write_checkpoint", 1),  # after the first epoch, its weights written, its checkpoint not
        ("training", "write_atomically", 2),  # its checkpoint written, its line of metrics not
        ("training", "classification_loss", 2),  # in the second epoch's second step
        ("runs", "write_json", 1),  # all done but the result
    ]
    # As many threads as here, or sums are rounded otherwise.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed, histories = tmp_path / "killed", []
    for i, (module, name, count) in enumerate(moments):
        marker = tmp_path / f"there {i}"
        words = [module, name, str(count), str(marker), *arguments(originals, killed)]
        process = subprocess.Popen([sys.executable, "-c", VICTIM, *words], env=environment)
        deadline = time.monotonic() + 500
        while not marker.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (killed / "result.json").exists()
        histories.append(len(log(killed)))
    assert histories == [0, 0, 1, 2]
    ran = finetune(originals, killed)
    assert "going on with an unfinished run" in ran.err
    assert same_run(killed, finished)
    assert {path.name for path in killed.iterdir()} == {path.name for path in finished.iterdir()}


@pytest.mark.slow
def test_an_interrupted_run_goes_on(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"optimizer": "sgd", "lr": 0.01}
    finetune(originals, tmp_path / "undisturbed", **options)
    calls = []

    def interrupting(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return classification_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("extract.finetune.training.classification_loss", interrupting)
        ran = finetune(originals, tmp_path / "run", **options)
    assert ran.code == 130 and "run the same command again to finish" in ran.err
    assert len(log(tmp_path / "run")) == 1
    assert finetune(originals, tmp_path / "run", **options).code == 0
    assert same_run(tmp_path / "run", tmp_path / "undisturbed")


def test_a_damaged_checkpoint(originals: Path, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"half")
    assert "checkpoint.safetensors: cannot be read; delete" in finetune(originals, tmp_path / "run").error


def test_a_folder_holds_one_run(originals: Path, finished: Path, tmp_path: Path) -> None:
    assert (
        "another value of --lr (0.003 → 0.1); choose another" in finetune(originals, finished, lr=0.1).error
    )
    said = finetune(originals, finished, weights="random:1").error
    assert 'another value of --weights ("random:0" → "random:1")' in said
    (tmp_path / "thesis.tex").write_text("dear to me")
    assert "neither empty nor a run folder" in finetune(originals, tmp_path).error


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extract.finetune.progress._Lines.EVERY_S", 0.0)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=110)
    with show_training(console, metric="top-1") as listener:
        progress = Progress(epochs=3, videos_total=30, epoch=1, videos_done=5, rows_done=15, loss=1.5)
        listener.progress(progress)
        said = {
            "epoch": 1,
            "train_loss": 1,
            "val_loss": 2,
            "val_videos": 0.5,
            "val_rows": 0.25,
            "seconds": 9.0,
        }
        listener.epoch(said)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue()
    assert "epoch 1: loss 1.000, validation 2.000, top-1 50.0 % of videos (25.0 % row by row), 9 s" in lines
    assert "rows/s, loss 1.500" in lines and "epoch 1 of 3" in lines and "left" in lines


# ---------------------------------------------------------------------------------------------- what can go wrong


def test_a_damaged_video_is_named_and_left_out(videos: Path, tmp_path: Path) -> None:
    damaged = videos / "red_1.mp4"
    content = bytearray(damaged.read_bytes())
    first, last = media_data(damaged)
    damaged.write_bytes(content[: (first + last) // 2])
    (videos / "blue_7.mp4").write_text("no video")
    ran = finetune(videos, tmp_path / "run", "--json")
    assert ran.code == 1
    assert set(ran.answer["failed"]) == {"red_1", "blue_7"}
    assert "left out: red_1: " in ran.err and "failed: blue_7: " in ran.err
    assert "Traceback" not in ran.err
    assert len(log(tmp_path / "run")) == 2
    again = finetune(videos, tmp_path / "run")
    assert again.code == 1 and "failed: red_1: " in again.err


def test_too_few_videos_that_can_be_read(videos: Path, tmp_path: Path) -> None:
    for path in videos.glob("*_[6-8].mp4"):
        path.write_text("no video")
    error = finetune(videos, tmp_path / "run").error
    assert "5 of the 9 videos to validate on cannot be read, too many to go on; the first: blue_6: " in error


BAD = [
    ({"stream": "resnet"}, "unknown stream 'resnet'"),
    ({"stream": "timm:resnetty@64"}, "has no network 'resnetty'"),
    ({"stream": "timm:deit_base_distilled_patch16_224@224"}, "no single classifier"),
    ({"flow": "dis"}, "timm:test_resnet@64 does not look at flow"),
    ({"train_subset": "practice"}, "no subset 'practice'; it has: training, validation"),
    ({"val_subset": "testing"}, "no subset 'testing'"),
    ({"val_subset": "training"}, "both for training and for validation"),
    ({"val_fraction": 0.01}, "leaves none to validate on"),
    ({"val_fraction": 0.7}, "--val-fraction must be above 0 and at most 0.5"),
    ({"val_fraction": 0.1, "val_subset": "validation"}, "not both"),
    ({"epochs": 0}, "--epochs must be positive, not 0"),
    ({"lr": -1}, "--lr must be positive"),
    ({"lr": 1e30}, "in epoch 1 the loss is not finite any more"),
    ({"lr": 1e39}, "in epoch 1 the loss is not finite any more"),
    ({"weights": "nowhere.safetensors"}, "nowhere.safetensors: cannot read the weights"),
    ({"weights": "random:x"}, "say which seed"),
    ({"device": "abacus"}, "--device abacus: not to be had here"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("changed", "said"), BAD)
def test_requests_that_make_no_sense(
    changed: dict[str, object], said: str, originals: Path, tmp_path: Path
) -> None:
    assert said in finetune(originals, tmp_path / "run", **changed).error


def test_weights_of_another_architecture(originals: Path, tmp_path: Path) -> None:
    other = build(parse_stream("timm:test_convnext@64"), "random:0", CLASSES, seed=0).trainee.parameters_of
    save_file({k: v.contiguous() for k, v in other.state_dict().items()}, tmp_path / "other.safetensors")
    said = finetune(originals, tmp_path / "run", weights=tmp_path / "other.safetensors").error
    assert "weights of another network" in said


def test_labels_and_videos_that_do_not_fit(videos: Path, tmp_path: Path) -> None:
    (videos / "red_0.mp4").unlink()
    said = finetune(videos, tmp_path / "run").error
    assert "no file for 1 video of 'training' ('red_0'); --skip-missing leaves such videos out" in said
    write_video(videos / "stray.mp4", tinted_frames(["red"], 5), fps=8)
    assert "no label for 1 video ('stray')" in finetune(videos, tmp_path / "run").error
    ran = finetune(videos, tmp_path / "run", "--skip-missing", "--json", epochs=1)
    assert ran.code == 0 and ran.answer["train_videos"] == 17
    for path in videos.glob("*_[6-8].mp4"):
        path.unlink()
    said = finetune(videos, tmp_path / "other", "--skip-missing").error
    assert "no video of subset 'validation' is among the files given" in said
    lines = (videos / "labels.csv").read_text().replace("red_3,red,training", "red_3,pink,validation")
    (videos / "labels.csv").write_text(lines)
    said = finetune(videos, tmp_path / "other", "--skip-missing").error
    assert "1 class ('pink') to validate, but not to train on" in said
