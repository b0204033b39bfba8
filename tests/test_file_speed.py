"""Table 10 from video files: what is timed, what is shown, what is refused before anything is trained."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from benchmarks.videos import numbered_frames, write_video
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.batch import extract
from extract.pipeline import Settings
from extract.sources import find_videos
from policy.deploy import file_speed
from policy.deploy.timing import spread_evenly
from policy.runs import read_result
from policy.tables.cli import paper_tables

FPS = 5
SECONDS = {f"v{n}": 2 + n % 3 for n in range(8)}
TEST = ("v4", "v5", "v6", "v7")
CHEAP, DEAR = "test_convnext_64", "test_resnet_96"
STREAMS = {CHEAP: "timm:test_convnext@64", DEAR: "timm:test_resnet@96"}
TABLE = """
title = "Seconds"
source = "our own"
measures = ["map_percent", "gflops"]
datasets = []
exhibit = "runtime"
videos = true
"""
ROWS = {
    "01-lstm": f'title = "LSTM"\nmethod = "lstm"\n[streams]\nfine = "{DEAR}"\n',
    "02-liteeval": f'title = "LiteEval"\nmethod = "liteeval"\n[streams]\ncoarse = "{CHEAP}"\nfine = "{DEAR}"\n',
    "03-random": f'title = "Random"\nmethod = "random-gating"\nusage_of = "liteeval"\n[streams]\n'
    f'coarse = "{CHEAP}"\nfine = "{DEAR}"\n',
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos/, cache/, labels.csv and my-table/."""
    folder = tmp_path_factory.mktemp("timed")
    (folder / "videos").mkdir()
    for number, (name, seconds) in enumerate(SECONDS.items()):
        frames = numbered_frames(seconds * FPS, first=100 * number)
        write_video(folder / "videos" / f"{name}.mp4", frames, fps=FPS)
    backbones = {
        name: Backbone(parse_stream(stream), weights="random:0", device=torch.device("cpu"))
        for name, stream in STREAMS.items()
    }
    extract(find_videos([folder / "videos"]), backbones, folder / "cache", Settings(1, 16, 120.0))
    lines = [f"{name},{'ab'[n % 2]},{'test' if name in TEST else 'train'}" for n, name in enumerate(SECONDS)]
    (folder / "labels.csv").write_text("\n".join(["video_id,label,subset", *lines]) + "\n")
    (folder / "my-table").mkdir()
    for name, content in {"table": TABLE, **ROWS}.items():
        (folder / "my-table" / f"{name}.toml").write_text(content)
    return folder


def table(place: Path, *words: object) -> Result:
    given = ["run", place / "my-table", "--cache", place / "cache", "--labels", place / "labels.csv"]
    given += ["--device", "cpu", "--epochs", 1, "--batch", 4, "--coarse-hidden", 4, "--fine-hidden", 8]
    given += ["--seeds", 1, "--resamples", 0, *words]
    return CliRunner().invoke(paper_tables, [str(word) for word in given])


@pytest.mark.slow
def test_every_part_has_its_seconds(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_speed, "REPEATS", 1)
    runs, out = tmp_path / "runs", tmp_path / "out"
    result = table(place, "--runs", runs, "--out", out, "--videos", place / "videos")
    assert result.exit_code == 0, result.output
    with (out / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["method"], int(row["batch"])): row for row in csv.DictReader(file)}
    assert rows.keys() == {(method, batch) for method in ("LSTM", "LiteEval", "Random") for batch in (1, 16)}
    folders = [path.parent for path in runs.glob("*/result.json")]
    cached = {folder.name.split("-")[0]: read_result(folder).gflops_mean for folder in folders}
    for (method, _), row in rows.items():
        seconds = {part: row[f"{part}_seconds"] for part in ("decoding", "coarse", "fine", "policy", "clock")}
        # What was timed is what the table's runs decide: the videos are those of the evaluation.
        if method != "Random":
            assert float(row["gflops"]) == pytest.approx(cached[method.lower()], rel=1e-3)
        taken = {part: float(value) for part, value in seconds.items()}
        assert all(taken[part] > 0 for part in ("decoding", "policy", "clock"))
        assert (taken["coarse"] > 0) == (method != "LSTM")
        # Decoding goes on beside the others, which follow each other.
        assert taken["coarse"] + taken["fine"] + taken["policy"] < taken["clock"]
    assert max(map(len, result.stdout.splitlines()[:12])) <= 100  # no wider than a pipe


def test_savings_are_shares_of_the_all_fine_method() -> None:
    from policy.tables.exhibits.liteeval_runtime import _shares

    def seconds(gflops: float, coarse: float, fine: float, clock: float) -> file_speed.FileSeconds:
        return file_speed.FileSeconds(gflops, 0.5, {"c": coarse, "f": fine}, 0.1, clock)

    all_fine = seconds(10.0, 0.0, 3.9, 5.0)
    # 80 % of the GFLOPs, 60 % of the computing (4.0 to 1.6 s), 40 % of the clock.
    shares = _shares(seconds(2.0, 1.0, 0.5, 3.0), all_fine)
    assert shares == pytest.approx([80, 60, 40, 0.75, 0.5])
    assert _shares(all_fine, all_fine) == []


def test_what_is_missing_is_said_before_anything_is_trained(place: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("".join(f"{place / 'videos' / name}.mp4\n" for name in ("v4", "v7")))
    (tmp_path / "empty").mkdir()
    for words, message in (
        (["--videos", few], "--videos: 2 of the 4 videos of subset 'test' have no file, 'v5' for example"),
        (["--videos", tmp_path / "nowhere"], "no such file or folder of videos"),
        (["--videos", tmp_path / "empty"], "no videos in"),
        (["--weights", "random:1"], "--weights: of the networks that are timed on --videos"),
        (["--videos", place / "videos", "--weights", "other=random:1"], "'other' is none of the streams"),
    ):
        result = table(place, "--runs", tmp_path / "runs", *words)
        assert result.exit_code == 2 and "Traceback" not in result.output
        assert message in result.stderr.splitlines()[-1]
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("count", "places"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, [*range(10)]), (99, [*range(10)])]
)
def test_some_are_spread_over_all(count: int, places: list[int]) -> None:
    assert spread_evenly(range(10), count) == places
    assert spread_evenly([], count) == []
