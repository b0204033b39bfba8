"""Several processes train what one would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from cache_schema import write_shard
from cache_schema.annotations import read_labels
from policy.baselines.config import FineLSTMConfig
from policy.runs import run_method
from policy.training.distributed import Ranks
from tests.caches import make_record, make_spec
from tests.planted import write_planted, write_planted_labels

PROGRAM = "from policy.cli.train_policy import train_policy; train_policy()"


pytestmark = pytest.mark.usefixtures("one_thread")


@given(st.integers(1, 9), st.integers(1, 5))
def test_shares_are_the_batch(videos: int, size: int) -> None:
    batch = list(range(10, 10 + videos))
    shares = [Ranks(rank, size).share(batch) for rank in range(size)]
    assert sorted(v for mine, weight in shares for v in mine if weight) == batch
    assert sum(weight for _, weight in shares) == pytest.approx(1)
    for mine, weight in shares:
        assert mine and (weight == 0 or weight == pytest.approx(len(mine) / videos))


def test_processes_draw_their_own() -> None:
    def drawn(rank: int, *moment: int) -> list[float]:
        common = torch.Generator().manual_seed(5)
        before = common.get_state()
        values = torch.rand(4, generator=Ranks(rank, 2).generator(common, *moment)).tolist()
        assert torch.equal(common.get_state(), before)
        return values

    moments = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    assert len({tuple(drawn(*moment)) for moment in moments}) == len(moments)
    assert drawn(1, 2, 3, 4) == drawn(1, 2, 3, 4)
    alone = torch.Generator()
    assert Ranks().generator(alone, 1, 2, 3) is alone


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*start, "--no-python", sys.executable, "-c", PROGRAM, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    # 25 videos in batches of 8: the last batch leaves nothing for the second process.
    cache, labels = write_planted(tmp_path / "cache", train=25, test=8, classes=4, dim=10)
    write_planted_labels(labels, tmp_path / "labels.csv")
    config = FineLSTMConfig(fine="fine_224", epochs=4, batch=8, lr=1e-2, fine_hidden=8, grad_clip=0.5)
    config = replace(config, weight_decay=0.01, lr_drop=(2,))
    one, two = tmp_path / "one", tmp_path / "two"
    run_method(config, cache, read_labels(tmp_path / "labels.csv"), one, device="cpu")
    words = [
        *("lstm", "--cache", tmp_path / "cache", "--labels", tmp_path / "labels.csv", "--fine", "fine_224"),
        *("--epochs", 4, "--batch", 8, "--lr", 1e-2, "--fine-hidden", 8, "--grad-clip", 0.5),
        *("--weight-decay", 0.01, "--lr-drop", 2, "--recipe", "none", "--device", "cpu", "--out", two),
    ]
    done = torchrun(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "LSTM" and done.stdout.count("mAP") == 1
    assert done.stderr.count("videos of subset 'train' for training") == 1
    assert json.loads((two / "result.json").read_text())["processes"] == 2
    expected, found = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    logs = [
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (one, two)
    ]
    assert logs[1] == pytest.approx(logs[0], rel=1e-5)


@pytest.mark.slow
def test_an_error_of_one_process_ends_both(tmp_path: Path) -> None:
    spec = make_spec("fine_224", dim=6)
    records = [make_record(f"v{i}", 5, dim=6) for i in range(8)]
    records[3] = make_record("v3", 5, dim=6, features=np.full((5, 6), np.nan))  # read by one of the two
    write_shard(tmp_path / "cache" / spec.name, spec, records, tools={})
    lines = [f"v{i},class {i % 2},{'train' if i < 6 else 'test'}" for i in range(8)]
    (tmp_path / "labels.csv").write_text("video_id,label,subset\n" + "\n".join(lines) + "\n")
    done = torchrun(
        *("lstm", "--cache", tmp_path / "cache", "--labels", tmp_path / "labels.csv", "--fine", "fine_224"),
        *("--epochs", 500, "--batch", 4, "--fine-hidden", 8, "--input-norm", "none", "--device", "cpu"),
        *("--out", tmp_path / "run"),
    )
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert said == ["Error: video 'v3' in stream 'fine_224': its features are not finite"]
    assert not (tmp_path / "run" / "result.json").exists()
