"""Policies on imported streams: they learn and cost what they do on the same rows extracted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cache_schema import FeatureCache
from cache_schema.costs import cost_table
from policy.cli.train_policy import train_policy
from tests.cache_commands import run
from tests.planted import write_planted, write_planted_labels

SMALL = ("--epochs", "2", "--batch", "8", "--device", "cpu", "--json")
LITEEVAL = ("--coarse-hidden", "6", "--fine-hidden", "12", "--gamma", "0.2")
TRAIN, TEST, CLASSES = 16, 8, 4


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache and labels.csv beside its streams."""
    folder = tmp_path_factory.mktemp("planted")
    write_planted_labels(
        write_planted(folder, train=TRAIN, test=TEST, classes=CLASSES, dim=8)[1], folder / "labels.csv"
    )
    return folder


def train(method: str, cache: Path, labels: Path, out: Path, *words: str) -> dict[str, Any]:
    options = ("--cache", str(cache), "--labels", str(labels), "--out", str(out), *SMALL, *words)
    result = CliRunner().invoke(train_policy, [method, *options])
    assert result.exit_code == 0, result.output
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def test_liteeval_on_two_folders_is_liteeval_on_the_cache(extracted: Path, tmp_path: Path) -> None:
    for stream in ("coarse_112", "fine_224"):
        words = ("--stream", stream, "--out", tmp_path / stream, "--format", "npy")
        assert run("export", extracted, *words)[0] == 0
        (tmp_path / stream / "videos.csv").unlink()  # as if others had made them
        macs = str(FeatureCache(extracted)[stream].spec.macs_per_row)
        said = ("--stream", stream, "--fps", "1", "--macs-per-row", macs)
        assert run("import", tmp_path / stream, *said, "--into", tmp_path / "cache")[0] == 0
    labels, streams = extracted / "labels.csv", ("--coarse", "coarse_112", "--fine", "fine_224", *LITEEVAL)
    expected = train("liteeval", extracted, labels, tmp_path / "one", *streams)
    found = train("liteeval", tmp_path / "cache", labels, tmp_path / "two", *streams)
    figures = {key for key in expected if isinstance(expected[key], float)} - {"seconds"}
    assert {"mean_average_precision", "gflops_mean", "usage"} <= figures
    assert {key: found[key] for key in figures} == {key: expected[key] for key in figures}


def test_uniform_averages_imported_scores(extracted: Path, tmp_path: Path) -> None:
    """Features and scores as npz, and the scores alone, as probabilities: the figures are computed here again."""
    random = np.random.default_rng(0)
    labels = extracted / "labels.csv"
    with labels.open() as file:
        _, *lines = [line.strip().split(",") for line in file]
    names = sorted({label for _, label, _ in lines})
    logits = {v: random.normal(0, 2, (6, CLASSES)) + (np.array(names) == label) for v, label, _ in lines}
    features = tmp_path / "both"
    features.mkdir()
    for video_id, values in logits.items():
        np.savez(features / f"{video_id}.npz", features=random.normal(size=(6, 5)), scores=values)
    p = {v: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for v, x in logits.items()}
    np.savez(tmp_path / "alone.npz", ids=[*p], classes=names, alone=np.stack([*p.values()]))
    (tmp_path / "classes.txt").write_text("\n".join(names))
    into, cost = ("--into", tmp_path / "cache"), ("--gflops-per-row", "2")
    both = ("--stream", "both", "--fps", "1", "--classes", tmp_path / "classes.txt")
    assert run("import", features, *both, *into, *cost)[0] == 0
    alone = ("--stream", "alone", "--kind", "softmax")
    assert run("import", tmp_path / "alone.npz", *alone, *into, *cost)[0] == 0

    test = [(video_id, label) for video_id, label, subset in lines if subset == "test"]
    right = [names[int(p[v][[1, 3, 5]].mean(axis=0).argmax())] == label for v, label in test]
    assert 0 < np.mean(right) < 1
    macs = {"both": 5 * CLASSES, "alone": 0}  # of the classifier, for a row
    for stream in ("both", "alone"):
        words = ("--fine", stream, "--frames", "3")
        told = train("uniform", tmp_path / "cache", labels, tmp_path / "runs" / stream, *words)
        assert told["top1"] == pytest.approx(np.mean(right))
        assert told["gflops_mean"] == pytest.approx(3 * (2 + macs[stream] / 1e9))


def test_uniform_pays_for_clips_of_flow(tmp_path: Path) -> None:
    """Features as BaS-Net has them: the built-in stream that they become has its cost."""
    random = np.random.default_rng(0)
    labels = {f"v{i}": "cat" if i % 2 else "dog" for i in range(12)}
    for video, label in labels.items():
        for part in ("rgb", "flow"):
            path = tmp_path / "features/train" / part / f"{video}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, random.normal(label == "cat", 1, (8, 1024)).astype(np.float32))
    assert run("import", tmp_path / "features", "--into", tmp_path / "cache")[0] == 0
    lines = [f"{v},{label},{'test' if i > 7 else 'train'}" for i, (v, label) in enumerate(labels.items())]
    (tmp_path / "labels.csv").write_text("\n".join(["video_id,label,subset", *lines]))
    words = ("--fine", "i3d_flow_dense16", "--frames", "4")
    answer = train("uniform", tmp_path / "cache", tmp_path / "labels.csv", tmp_path / "run", *words)
    cost = cost_table()["i3d_flow_dense16"].gflops() + 2 * 1024 / 1e9
    assert answer["gflops_mean"] == pytest.approx(4 * cost)


@pytest.mark.parametrize("method", ["uniform", "lstm", "frame-glimpse", "fast-forward", "liteeval"])
def test_scores_alone_are_no_features(method: str, extracted: Path, tmp_path: Path) -> None:
    ids = list(FeatureCache(extracted)["fine_224"])
    np.savez(tmp_path / "a.npz", ids=ids, scores=np.random.default_rng(0).normal(size=(len(ids), CLASSES)))
    words = ("--stream", "mine", "--like", "x3d_m", "--into", tmp_path / "cache")
    code, out, _ = run("import", tmp_path / "a.npz", *words)
    assert code == 0 and "note: without class names" in out
    streams = ("--fine", "mine", *(("--coarse", "mine", *LITEEVAL) if method == "liteeval" else ()))
    data = ("--cache", str(tmp_path / "cache"), "--labels", str(extracted / "labels.csv"))
    result = CliRunner().invoke(
        train_policy, [method, *data, *streams, *SMALL, "--out", str(tmp_path / "run")]
    )
    assert result.exit_code == 2, result.output
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "stream 'mine' has no features, only class scores" in line
    assert result.stderr.splitlines()[-1] == line
