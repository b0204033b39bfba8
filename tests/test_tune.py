"""train-policy tune: what is tried, on which videos, what is best, and that a killed study goes on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import assume, given
from hypothesis import strategies as st

from cache_schema import FeatureCache, UserError, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, Segment, VideoLabel, read_labels
from cache_schema.errors import LabelError
from policy.cli.train_policy import train_policy
from policy.cli.tune import tune
from policy.registry import CONFIGS, METHODS, configure
from policy.runs import run_method
from policy.selection.config import SelectorCascadeConfig, SelectorConfig
from policy.sheets import terminal
from policy.tuning.folds import HELD_OUT, fold_labels
from policy.tuning.problem import Measured, Problem
from policy.tuning.report import Findings, Tried
from policy.tuning.space import Range, ranges_of, values_of
from tests.caches import make_spec
from tests.clusters import ROOT, dask
from tests.planted import write_planted, write_planted_labels
from tests.planted_actions import plant_actions
from tests.test_policy_cli import told

SMALL = ["--epochs", "3", "--batch", "8", "--device", "cpu", "--fine-hidden", "8"]
LSTM = ["lstm", "--recipe", "none", "--fine", "fine_224", *SMALL]
LITEEVAL = ["liteeval", "--recipe", "none", "--coarse", "coarse_112", "--fine", "fine_224"]
LITEEVAL += ["--coarse-hidden", "4", *SMALL]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coarse and fine features, and class scores of two models."""
    folder = tmp_path_factory.mktemp("planted")
    _, labels = write_planted(folder, train=36, test=12, classes=4, dim=8, lengths=(3, 6))
    write_planted_labels(labels, folder / "labels.csv")
    random = np.random.default_rng(0)
    for name, macs in (("small", 1_000_000), ("large", 9_000_000)):
        records = [
            VideoRecord(
                id=video.video_id,
                features=np.zeros((3, 2), np.float16),
                scores=random.normal(0, 2, (3, 4)).astype(np.float16),
                spans=np.zeros((3, 2)),
            )
            for video in labels.videos
        ]
        spec = make_spec(name, dim=2, classes=4, macs_per_row=macs)
        write_shard(folder / name, spec, records, tools={"thriftvid": "test"})
    return folder


def words(planted: Path, *more: object, labels: Path | None = None) -> list[str]:
    method, *rest = map(str, more)
    data = ["--cache", str(planted), "--labels", str(labels or planted / "labels.csv")]
    return ["tune", method, *data, *rest]


def run(planted: Path, *more: object, labels: Path | None = None) -> Result:
    return CliRunner().invoke(train_policy, words(planted, *more, labels=labels))


def found(planted: Path, *more: object, labels: Path | None = None) -> dict[str, Any]:
    """The answer in JSON, without what a clock says."""
    result = run(planted, *more, "--json", labels=labels)
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    for trial in (*answer["trials"], *answer["best"]):
        trial.pop("minutes")
    return answer


# --- what comes of it ---


@pytest.mark.slow
def test_a_study_and_the_command_that_repeats_the_best(planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "a study"
    result = run(planted, *LITEEVAL, "--gamma", "0.95", "--trials", "4", "--validation", "0.3", "--out", out)
    assert result.exit_code == 0, result.output
    for line in ("The best of 4 trials", "to train the best on all training videos:", "usage 95 %"):
        assert line in result.stdout
    assert "[4/4] trial 3: " in result.stderr and "trial 0: lr 0.0001, usage-loss video" in result.stderr
    (command,) = (out / "best.txt").read_text().splitlines()
    assert command == result.stdout.splitlines()[-1]
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert len((out / "table.csv").read_text().splitlines()) == 1 + 4
    assert not (out / "trials").exists()

    answer = found(
        planted, *LITEEVAL, "--gamma", "0.95", "--trials", "4", "--validation", "0.3", "--out", out
    )
    (best,) = answer["best"]
    assert best["command"] == command and len(answer["trials"]) == 4
    name, *arguments = shlex.split(command)
    assert name == "train-policy"
    trained = CliRunner().invoke(train_policy, arguments)
    assert trained.exit_code == 0, trained.output
    config = json.loads((out / "best/config.json").read_text())["config"]
    expected = {**best["values"], "gamma": 0.95, "epochs": 3, "fine_hidden": 8}
    assert {option: config[option] for option in expected} == expected


@pytest.mark.slow
def test_a_trial_is_what_training_on_the_fold_gives(planted: Path, tmp_path: Path) -> None:
    options = ["--gamma", "0.3", "--tune", "lr=0.003:0.03", "--tune", "usage-loss", "--trials", "3"]
    answer = found(planted, *LITEEVAL, *options, "--folds", "2", "--out", tmp_path / "study")
    labels = read_labels(planted / "labels.csv")
    parts = fold_labels(labels, "train", folds=2, validation=None, seed=0)
    for trial in answer["trials"]:
        for fold, part in enumerate(parts):
            values = {"coarse": "coarse_112", "fine": "fine_224", "coarse_hidden": 4, "fine_hidden": 8}
            values |= {"epochs": 3, "batch": 8, "gamma": 0.3, "eval_subset": HELD_OUT, **trial["values"]}
            folder = tmp_path / f"{trial['trial']}-{fold}"
            result = run_method(
                configure("liteeval", values), FeatureCache(planted), part, folder, device="cpu"
            )
            measured = trial["folds"][fold]
            assert measured["accuracy"] == result.result.metrics["top1"]
            assert measured["cost"] == result.result.metrics["usage"]
            assert measured["gflops"] == result.result.gflops_mean


@pytest.mark.slow
def test_videos_for_evaluation_change_nothing(planted: Path, tmp_path: Path) -> None:
    """Other labels of them, other features, or none of them at all."""
    labels = read_labels(planted / "labels.csv")
    options = [*LITEEVAL, "--gamma", "0.3", "--trials", "3", "--folds", "2", "--train-subset", "train"]
    expected = found(planted, *options, "--out", tmp_path / "as they are")
    other = LabelSet(
        labels.source,
        tuple(
            replace(video, labels=("class 3", "class 0")) if video.subset == "test" else video
            for video in labels.videos
        ),
    )
    write_planted_labels(other, tmp_path / "other.csv")
    relabelled = found(planted, *options, "--out", tmp_path / "relabelled", labels=tmp_path / "other.csv")
    cache = tmp_path / "cache"
    random = np.random.default_rng(1)
    tested = {video.video_id for video in labels.videos if video.subset == "test"}
    for name in ("coarse_112", "fine_224"):
        stream = FeatureCache(planted)[name]
        records = [
            replace(
                stream[video],
                features=random.standard_normal(stream[video].features.shape).astype(np.float16) * 9,
            )
            if video in tested
            else stream[video]
            for video in stream
        ]
        write_shard(cache / name, stream.spec, records, tools={"thriftvid": "test"})
    refeatured = found(cache, *options, "--out", tmp_path / "refeatured", labels=planted / "labels.csv")
    for answer in (relabelled, refeatured):
        assert answer["trials"] == expected["trials"]


@pytest.mark.slow
def test_the_same_seed_tries_the_same(planted: Path, tmp_path: Path) -> None:
    options = [*LSTM, "--trials", "12", "--validation", "0.3"]
    first, second = (found(planted, *options, "--out", tmp_path / name) for name in "ab")
    assert first["trials"] == second["trials"]
    other = found(planted, *options, "--seed", "1", "--out", tmp_path / "c")
    tried = [[trial["values"] for trial in answer["trials"][1:]] for answer in (first, other)]
    assert not [values for values in tried[0] if values in tried[1]]


@pytest.mark.slow
def test_a_study_goes_on_with_more_trials(planted: Path, tmp_path: Path) -> None:
    options = [*LSTM, "--validation", "0.3", "--out", tmp_path / "study"]
    few = found(planted, *options, "--trials", "3")
    more = found(planted, *options, "--trials", "5")
    at_once = found(planted, *options[:-1], tmp_path / "at once", "--trials", "5")
    assert more["trials"][:3] == few["trials"] and more["trials"] == at_once["trials"]
    assert found(planted, *options, "--trials", "2")["trials"] == more["trials"]


@pytest.mark.slow
def test_pruned_trials_are_in_the_table(planted: Path, tmp_path: Path) -> None:
    options = ["--tune", "lr=1e-6:0.05", "--epochs", "10", "--trials", "12", "--folds", "2"]
    answer = found(planted, *LSTM, *options, "--out", tmp_path / "study")
    states = Counter(trial["state"] for trial in answer["trials"])
    assert states["pruned"] >= 2 and states["complete"] >= 5 and states.total() == 12
    pruned = [trial for trial in answer["trials"] if trial["state"] == "pruned"]
    assert all("% of its training" in trial["note"] and trial["values"]["lr"] for trial in pruned)
    text = (tmp_path / "study/table.md").read_text()
    assert text.count("| pruned |") == states["pruned"]
    kept = found(planted, *LSTM, *options, "--no-prune", "--out", tmp_path / "all")
    assert {trial["state"] for trial in kept["trials"]} == {"complete"}


def test_trials_that_fail_are_in_the_table(planted: Path, tmp_path: Path) -> None:
    options = [*LITEEVAL, "--gamma", "0.3", "--tune", "coarse-hidden=4,16", "--trials", "6"]
    options.remove("--coarse-hidden")
    options.remove("4")
    answer = found(planted, *options, "--validation", "0.3", "--out", tmp_path / "study")
    for trial in answer["trials"]:
        too_many = trial["values"]["coarse_hidden"] == 16
        assert trial["state"] == ("failed" if too_many else "complete")
        assert ("coarse-hidden (16) must not exceed" in trial["note"]) == too_many
    assert len(answer["trials"]) == 6 and answer["best"][0]["values"]["coarse_hidden"] == 4


def test_where_an_option_sets_the_cost_there_is_a_front(planted: Path, tmp_path: Path) -> None:
    options = ["--tune", "gamma=0.05:0.9", "--tune", "lr=0.003:0.03", "--usage-loss", "constrained"]
    answer = found(
        planted, *LITEEVAL, *options, "--trials", "8", "--validation", "0.4", "--out", tmp_path / "s"
    )
    complete = answer["trials"]
    best = answer["best"]
    assert [trial["cost"] for trial in best] == sorted(trial["cost"] for trial in best)
    for trial in best:  # nothing is as accurate and cheaper
        better = [
            other
            for other in complete
            if other["accuracy"] >= trial["accuracy"] and other["cost"] < trial["cost"]
        ]
        assert not better
    assert len({trial["command"] for trial in best}) == len(best)
    assert len((tmp_path / "s/best.txt").read_text().splitlines()) == len(best)


@pytest.mark.slow
def test_a_command_that_exceeds_the_cost_says_so(planted: Path, tmp_path: Path) -> None:
    """One trial of a gate that is fully open at the beginning, asked for next to nothing."""
    options = ["--gamma", "0.001", "--tune", "lr=0.00001:0.00002", "--trials", "1", "--validation", "0.3"]
    result = run(planted, *LITEEVAL, *options, "--out", tmp_path / "s")
    assert result.exit_code == 0, result.output
    comment, command = (tmp_path / "s/best.txt").read_text().splitlines()
    assert comment.startswith("# No trial kept the cost, usage 0.1 %: the nearest, trial 0, spent usage ")
    *_, headline, last = result.stdout.splitlines()
    assert headline == "to train that nearest one on all training videos:" and last == command


POOL = ["--model", "small", "--model", "large"]
PERCEPTRON = [*POOL, "--decisions", "perceptron"]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("selector", [*PERCEPTRON, "--budget", "0.02", "--tune", "lr"]),
        ("selector", [*PERCEPTRON, "--tune", "affinity", "--tune", "alpha"]),
        ("selector-cascade", [*PERCEPTRON, "--budget", "0.02", "--epochs", "2"]),
        ("selector-cascade", [*POOL, "--budget", "0.02", "--tune", "answer=weighted,mean"]),
        ("uniform", ["--fine", "fine_224", "--tune", "frames=1:6", "--epochs", "2"]),
        ("random-gating", [*LITEEVAL[1:], "--usage", "0.2", "--gate-draws", "2"]),
    ],
)
def test_methods(method: str, options: list[str], planted: Path, tmp_path: Path) -> None:
    device = [] if "--device" in options else ["--device", "cpu"]
    out = ["--trials", "3", "--validation", "0.3", "--out", tmp_path / "study"]
    answer = found(planted, method, *options, *device, *out)
    assert [trial["state"] for trial in answer["trials"]] == ["complete"] * 3
    assert all(0 <= trial["accuracy"] <= 1 and trial["gflops"] > 0 for trial in answer["trials"])


def test_localization(tmp_path: Path) -> None:
    """Judged by the segments of the videos that are held out, or without segments by their classes."""
    _, labels = plant_actions(tmp_path / "cache", train=12, test=6, lengths=(20, 25))
    lines = [
        f"{video.video_id},{segment.start_s},{segment.end_s},{segment.label},{video.subset}"
        for video in labels.videos
        for segment in video.segments
    ]
    (tmp_path / "segments.csv").write_text("\n".join(["video_id,start_s,end_s,label,subset", *lines]))
    write_planted_labels(labels, tmp_path / "classes.csv")
    options = [
        "wtalc",
        "--appearance",
        "rgb_dense16",
        "--epochs",
        "1",
        "--epoch-steps",
        "3",
        "--device",
        "cpu",
    ]
    options += ["--trials", "2", "--validation", "0.3"]
    for name, metric in (("segments", "detection mAP 0.1:0.7"), ("classes", "video-level mAP")):
        out = tmp_path / name
        answer = found(tmp_path / "cache", *options, "--out", out, labels=tmp_path / f"{name}.csv")
        assert {trial["metric"] for trial in answer["trials"]} == {metric}


# --- how it ends and goes on ---


def begin(planted: Path, *more: object) -> subprocess.Popen[str]:
    code = "from policy.cli.train_policy import train_policy; train_policy()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *words(planted, *more)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(journal: Path, text: str, process: subprocess.Popen[str]) -> None:
    while not (journal.exists() and text in journal.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_studies_end_as_undisturbed_ones(planted: Path, tmp_path: Path) -> None:
    options = [*LSTM, "--epochs", "20", "--trials", "5", "--folds", "2", "--no-prune"]
    expected = found(planted, *options, "--out", tmp_path / "undisturbed")
    out = tmp_path / "killed"
    for moment in ('"trial_id":1,"user_attr":{"folds"', '"trial_id":3,"user_attr"'):
        process = begin(planted, *options, "--out", out)
        wait_for(out / "journal.jsonl", moment, process)
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    with (out / "journal.jsonl").open("a") as journal:  # as of a process that died when it wrote
        journal.write('{"op_code":8,"trial')
    (out / "journal.jsonl.lock").symlink_to(out / "journal.jsonl")
    started = time.monotonic()
    answer = found(planted, *options, "--out", out)
    assert time.monotonic() - started < 25  # Optuna itself waits 30 s for the lock
    assert [trial["state"] for trial in answer["trials"]].count("stopped") >= 2

    def complete(of: dict[str, Any]) -> list[Any]:
        return [
            {name: value for name, value in trial.items() if name != "trial"}
            for trial in of["trials"]
            if trial["state"] == "complete"
        ]

    assert complete(answer) == complete(expected) and len(complete(answer)) == 5


@pytest.mark.slow
def test_sigterm_is_answered_in_a_line(planted: Path, tmp_path: Path) -> None:
    options = [*LSTM, "--epochs", "300", "--trials", "2", "--validation", "0.3", "--out", tmp_path / "study"]
    process = begin(planted, *options)
    wait_for(tmp_path / "study/journal.jsonl", '"step":5', process)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert error.splitlines()[-1] == "stopped; give the same command again to go on"


@pytest.mark.slow
def test_several_jobs_make_as_many_trials(planted: Path, tmp_path: Path) -> None:
    options = ["--trials", "7", "--validation", "0.3", "--out", tmp_path / "study"]
    answer = found(planted, *LSTM, *options, "--jobs", "2")
    assert sorted(trial["trial"] for trial in answer["trials"]) == list(range(7))
    assert {trial["state"] for trial in answer["trials"]} <= {"complete", "pruned"}
    assert len({json.dumps(trial["values"]) for trial in answer["trials"]}) == 7


def test_videos_that_are_held_out_are_judged_out_of_fold(planted: Path, tmp_path: Path) -> None:
    """Models that know every training video by heart are judged by the scores of others, which know nothing."""
    labels = read_labels(planted / "labels.csv")
    for name in ("small", "large"):
        for kind in ("heart", "others"):
            records = [
                VideoRecord(
                    id=video.video_id,
                    features=np.zeros((1, 2), np.float16),
                    scores=(
                        9.0 * (np.arange(4) == int(video.labels[0][-1]) + (kind == "others"))[None]
                    ).astype(np.float16),
                    spans=np.zeros((1, 2)),
                )
                for video in labels.videos
                if kind == "heart" or video.subset == "train"
            ]
            spec = make_spec(f"{name}_{kind}", dim=2, classes=4, macs_per_row=10**6 * (1 + (name == "large")))
            write_shard(tmp_path / "cache" / spec.name, spec, records, tools={"thriftvid": "test"})
    pool = [
        "--model",
        "small_heart",
        "--model",
        "large_heart",
        "--decisions",
        "perceptron",
        "--epochs",
        "1",
        "--device",
        "cpu",
    ]
    options = [*pool, "--tune", "lr", "--trials", "1", "--tune-folds", "2"]
    others = [word for n in ("small", "large") for word in ("--out-of-fold", f"{n}_heart={n}_others")]
    for more, accuracy in (([], 1.0), (others, 0.0)):
        out = ["--out", tmp_path / f"study {accuracy}"]
        answer = found(tmp_path / "cache", "selector", *options, *more, *out, labels=planted / "labels.csv")
        assert answer["trials"][0]["accuracy"] == accuracy


@pytest.mark.slow
def test_on_a_dask_cluster(planted: Path, tmp_path: Path) -> None:
    with ExitStack() as cluster:
        address = "tcp://127.0.0.1:8931"
        cluster.enter_context(dask("scheduler", "--host", "127.0.0.1", "--port", "8931", "--no-dashboard"))
        cluster.enter_context(dask("worker", address, "--nthreads", "1", "--no-dashboard"))
        time.sleep(5)
        options = ["--trials", "3", "--validation", "0.3", "--out", tmp_path / "study"]
        answer = found(planted, *LSTM, *options, "--backend", "dask", "--scheduler", address)
    assert [trial["state"] for trial in answer["trials"]] == ["complete"] * 3


@pytest.mark.slow
def test_minutes(planted: Path, tmp_path: Path) -> None:
    options = [*LSTM, "--validation", "0.3", "--minutes", "0.02", "--out", tmp_path / "study"]
    answer = found(planted, *options)
    assert 1 <= len(answer["trials"]) < 100
    assert len(found(planted, *options)["trials"]) > len(answer["trials"])


# --- what it refuses ---


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--tune", "speed"], "--tune speed: lstm has no such option; it can tune "),
        (["--tune", "gamma"], "--tune gamma: lstm has no such option"),
        (["--tune", "lr", "--lr", "0.1"], "--tune lr: --lr is given, which fixes it"),
        (["--tune", "lr", "--tune", "lr=1:2"], "--tune lr: is there twice"),
        (["--tune", "lr-drop"], "--tune lr-drop: only numbers, switches and choices can be tuned"),
        (["--tune", "seed"], "--tune seed: the luckiest seed"),
        (["--tune", "eval-subset"], "--tune eval-subset: it says which videos there are"),
        (["--tune", "lr=quick"], "--tune lr: 'quick' is not a number"),
        (["--tune", "frames=1.5:3"], "--tune frames: '1.5' is not an integer"),
        (["--tune", "lr=0:1"], "--tune lr must be positive, not 0"),
        (["--tune", "lr=1:0.1"], "--tune lr=1:0.1: 1.0 is not below 0.1"),
        (["--tune", "input-norm=l3"], "--tune input-norm must be one of standard, l2, none, not l3"),
        (["--tune", "input-norm=a:b"], "--tune input-norm=a:b: give values"),
        (
            ["--lr", "1", "--weight-decay", "0", "--readout", "mean", "--dropout", "0"],
            "all of lr, weight_decay, readout, dropout are given",
        ),
        (["--folds", "37"], "36 videos of subset 'train' for 37 folds"),
        (["--validation", "0.01"], "leaves none to judge"),
        (["--folds", "2", "--validation", "0.1"], "give --folds or --validation"),
        (["--backend", "dask"], "--backend dask and --scheduler ADDRESS go together"),
        (["--scheduler", "tcp://x"], "--backend dask and --scheduler ADDRESS go together"),
        (["--train-subset", "val"], "no subset 'val'; it has: train, test"),
        (["--fine", "medium"], "no stream 'medium'"),
        (["--device", "abacus"], "--device abacus: not to be had here"),
        (["--epochs", "0"], "epochs must be positive"),
    ],
)
def test_mistakes(more: list[str], line: str, planted: Path, tmp_path: Path) -> None:
    assert line in told(run(planted, *LSTM, "--out", tmp_path / "study", *more))


def test_methods_that_build_on_runs_are_refused(planted: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "study"]
    streams = [
        "--appearance",
        "fine_224",
        "--appearance-run",
        "a",
        "--motion",
        "coarse_112",
        "--motion-run",
        "b",
    ]
    line = told(run(planted, "localization-selector", *streams, *out))
    assert "with --appearance-run and --motion-run cannot be tuned: it builds on finished runs" in line
    teacher = ["--teacher", tmp_path, "--distill", "1"]
    assert "with --teacher cannot be tuned" in told(run(planted, *LITEEVAL, *teacher, *out))
    assert "needs the usage to match" in told(run(planted, "random-gating", *LITEEVAL[1:], *out))


def test_folders_and_journals(planted: Path, tmp_path: Path) -> None:
    options = [*LSTM, "--trials", "1", "--out", tmp_path / "study"]
    found(planted, *options, "--validation", "0.3")
    assert "holds a run with another value of folds (null → 3)" in told(run(planted, *options))
    ranges = ["--validation", "0.3", "--tune", "lr"]
    assert "with another range of dropout" in told(run(planted, *options, *ranges))
    labels = tmp_path / "labels.csv"
    labels.write_text(
        (planted / "labels.csv").read_text().replace("video_0000,class 0", "video_0000,class 1")
    )
    assert "another content of labels" in told(run(planted, *options, "--validation", "0.3", labels=labels))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    assert "neither empty nor a run folder" in told(run(planted, *LSTM, "--out", tmp_path / "mine"))
    for content in (b"not JSON\n", b'{"op_code": 5}\n', b"\xff\n"):
        (tmp_path / "study/journal.jsonl").write_bytes(content)
        assert "cannot be read as a journal" in told(run(planted, *options, "--validation", "0.3"))


def test_a_class_that_a_fold_would_lack(planted: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    text = (planted / "labels.csv").read_text()
    labels.write_text(
        text.replace("video_0000,class 0", "video_0000,rare").replace("9,class 1,test", "9,rare,test")
    )
    line = told(run(planted, *LSTM, "--out", tmp_path / "study", labels=labels))
    assert "class 'rare' of subset 'train' cannot be learned where its only video would be held out" in line


def test_no_trial_at_all(planted: Path, tmp_path: Path) -> None:
    options = [*LITEEVAL, "--fine-hidden", "3", "--trials", "2", "--out", tmp_path / "study"]
    assert "coarse-hidden (4) must not exceed fine-hidden (3)" in told(run(planted, *options))
    options = [*LITEEVAL, "--lam", "1e300", "--tune", "lr", "--trials", "2", "--out", tmp_path / "other"]
    assert "no trial could be completed: " in told(run(planted, *options))


def test_without_optuna(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    line = told(run(planted, *LSTM, "--out", tmp_path / "study"))
    assert "pip install '.[tune]' in the checkout" in line


@pytest.mark.slow
def test_optuna_is_loaded_by_tuning_alone() -> None:
    code = "import sys, policy.cli.train_policy, policy.runs; assert not {'optuna'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize("method", CONFIGS)
def test_help_shows_a_full_example(method: str) -> None:
    result = CliRunner().invoke(train_policy, ["tune", method, "--help"])
    assert result.exit_code == 0
    example = result.output.partition("Example:")[2].partition("Options:")[0]
    line = example.replace("\\\n", " ").strip().splitlines()[-1]
    assert line.split()[:3] == ["train-policy", "tune", method]
    known = {option for parameter in tune.commands[method].params for option in parameter.opts}
    given_options = {word for word in line.split() if word.startswith("--")}
    assert {"--cache", "--labels", "--trials", "--out"} <= given_options <= known


# --- its parts ---


def test_usual_ranges_are_within_the_limits_of_the_options() -> None:
    for method, config in CONFIGS.items():
        plain = config()
        for one in ranges_of(plain, (), ()):
            for value in one.choices or (one.low, one.high):
                changed: dict[str, Any] = {one.name: value}
                replace(plain, **changed).check_each()
        assert METHODS[method].judged.main_metric({"top1": 0.5}, multi_label=False)[1]


@pytest.mark.parametrize("kind", [SelectorConfig, SelectorCascadeConfig])
def test_regressions_are_searched_for_what_they_have(
    kind: type[SelectorConfig | SelectorCascadeConfig],
) -> None:
    plain = kind(models=("a", "b"))
    ranges = ranges_of(plain, (), {"models"})
    assert {one.name for one in ranges} == {"answer", "temperature"}
    for one in ranges:
        for value in one.choices:
            changed: dict[str, Any] = {one.name: value}
            replace(plain, **changed).check()
    assert [one.name for one in ranges_of(plain, (), {"answer"})] == ["temperature"]
    perceptron = replace(plain, decisions="perceptron")
    assert "lr" in {one.name for one in ranges_of(perceptron, (), {"models", "decisions"})}


LABELS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True).map(tuple)


@given(st.lists(st.tuples(LABELS, st.sampled_from(["train", "test"])), min_size=4, max_size=40), st.data())
def test_every_training_video_is_held_out_once_and_no_other_is_known(
    videos: list[tuple[tuple[str, ...], str]], data: st.DataObject
) -> None:
    labels = LabelSet(
        Path("labels"),
        tuple(
            VideoLabel(f"v{number}", named, subset, (Segment(named[0], 0, 1),), aliases=(f"w{number}",))
            for number, (named, subset) in enumerate(videos)
        ),
    )
    trained = [video for video in labels.videos if video.subset == "train"]
    assume(trained)
    folds = data.draw(st.integers(2, 5))
    try:
        parts = fold_labels(labels, "train", folds=folds, validation=None, seed=data.draw(st.integers(0, 9)))
    except LabelError as error:
        assert "for" in str(error) or "cannot be learned" in str(error)
        assert len(trained) < folds or "cannot be learned" in str(error)
        return
    held = [[v.video_id for v in part.videos if v.subset == HELD_OUT] for part in parts]
    assert sorted(chain.from_iterable(held)) == sorted(video.video_id for video in trained)
    assert max(map(len, held)) - min(map(len, held)) <= 1
    for part in parts:
        fit = [video for video in part.videos if video.subset == "train"]
        assert {name for v in fit for name in v.labels} == {name for v in trained for name in v.labels}
        for before, after in zip(labels.videos, part.videos, strict=True):
            if before.subset == "test":
                assert (after.labels, after.segments, after.aliases) == ((), (), before.aliases)
            else:
                assert replace(after, subset="train") == before
    for name in "abcd":  # spread evenly, by the first class
        firsts = [sum(v.labels[0] == name for v in trained if v.video_id in part) for part in held]
        assert max(firsts) - min(firsts) <= 1


def problem(gamma: float = 0.1, ranges: Sequence[Range] = ()) -> Problem:
    config = configure("liteeval", {"gamma": gamma})
    ranges = tuple(ranges or ranges_of(config, ("lr",), ()))
    return Problem("liteeval", {"gamma": gamma}, None, ranges, (), "train")


MEASURED = st.builds(Measured, st.just("top-1"), st.floats(0, 1), st.floats(0, 1), st.floats(0, 9))


@given(MEASURED, MEASURED)
def test_a_trial_that_keeps_the_cost_is_better_than_one_that_does_not(one: Measured, other: Measured) -> None:
    asked = problem()
    kept = [asked.keeps_cost(each) for each in (one, other)]
    values = [asked.values_for_optuna(each) for each in (one, other)]
    assert kept == [each.cost <= 1.1 * 0.1 for each in (one, other)]
    if kept == [True, True]:
        assert (values[0] > values[1]) == (one.accuracy > other.accuracy)
    elif kept == [True, False]:
        assert values[0] > values[1]
    elif kept == [False, False] and one.cost < other.cost:
        assert values[0] >= values[1]


def test_the_best_keeps_the_cost_and_the_front_shows_all() -> None:
    asked = problem()
    measured = [(0.7, 0.02), (0.9, 0.4), (0.8, 0.105), (0.75, 0.2), (0.7, 0.01)]
    trials = tuple(
        Tried(number, "complete", {}, (one,), asked.keeps_cost(one), 1.0, "", asked.values_for_optuna(one))
        for number, one in enumerate(Measured("top-1", *each, 1.0) for each in measured)
    )
    pruned = Tried(5, "pruned", {}, (), False, 0.1, "", ())
    findings = Findings(asked, (*trials, pruned), 10)
    assert [trial.number for trial in findings.best] == [2]
    assert [trial.number for trial in findings.ranked] == [2, 4, 0, 3, 1]
    assert [trial.number for trial in findings.front] == [4, 2, 1]
    assert findings.caution == ""
    dear = Findings(asked, (trials[1], trials[3]), 10)
    caution = (
        "No trial kept the cost, usage 10 %: the nearest, trial 3, spent usage 20.0 %; tune other options"
    )
    assert dear.caution.startswith(caution) and dear.caution in dear.state
    with pytest.raises(UserError, match="no trial could be completed: give it more time"):
        assert Findings(asked, (pruned,), 10).best


def tried(number: int, usage: float, ranges: Sequence[Range]) -> Tried:
    """One of three folds, with the longest values of its ranges."""
    measured = (Measured("top-1", 0.8123, usage, 194.5),) * 3
    numbers = {"lr": 0.000123, "warmup": 0.346}
    values = {
        one.name: max(one.choices, key=lambda one: len(str(one)))
        if one.choices
        else numbers.get(one.name, 0.123)
        for one in ranges
    }
    asked = problem(ranges=ranges)
    rank_by = asked.values_for_optuna(measured[0])
    return Tried(number, "complete", values, measured, asked.keeps_cost(measured[0]), 1.0, "", rank_by)


def test_the_table_fits_a_terminal_and_parts_what_exceeds_the_cost() -> None:
    ranges = ranges_of(configure("liteeval", {}), (), ())
    trials = tuple(tried(number, usage, ranges) for number, usage in enumerate((0.3, 0.1)))
    shown = terminal.render(Findings(problem(ranges=ranges), trials, 10).document("", drawn=False), width=100)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 100
    kept, exceeds = (next(n for n, line in enumerate(lines) if line.split()[:1] == [one]) for one in "10")
    assert kept < lines.index("too dear") < exceeds


def test_searched_numbers_are_short_and_the_command_has_them_exactly() -> None:
    lr = problem().ranges[0]
    value = lr.short(0.00034567891234)
    assert value == 0.000346 and str(value) == "0.000346"
    assert (lr.short(lr.low * 0.9999), lr.short(lr.high * 1.0001)) == (lr.low, lr.high)
    assert values_of({"lr": 0.00034567891234}, [lr]) == {"lr": value}
