"""What commands do before there is work: no network's library is imported for help, a mistake or nothing to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.startup import COMMANDS, EXTRACT, STREAMS, TABLE, TRAIN
from benchmarks.videos import numbered_frames, write_video
from cache_schema import FeatureCache
from tests.caches import make_spec, write_stream
from tests.clusters import ROOT

HEAVY = ("torch", "timm", "sklearn", "matplotlib", "decord")
WRONG = "video,name\nv0,a\n"


def answer(line: str, folder: Path) -> tuple[str, list[str]]:
    """What a command says, and which heavy libraries it has imported for that."""
    name, *words = line.split()
    module, _, function = COMMANDS[name].partition(":")
    code = f"""
import sys
from {module} import {function} as command
try:
    command({words!r}, prog_name={name!r})
finally:
    print([heavy for heavy in {HEAVY!r} if heavy in sys.modules], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    *said, imported = done.stderr.splitlines()
    assert imported.startswith("["), done.stderr
    return "\n".join([*said, done.stdout]), imported.strip("[]").split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("startup")
    (place / "videos").mkdir()
    (place / "videos" / "v0.mp4").touch()
    videos = {f"v{n}": 2 for n in range(4)}
    for name in ("resnet10t_64", "mobilenetv2_112"):
        write_stream(place / "cache", make_spec(name, dim=4), videos)
    rows = [f"v{n},{'ab'[n % 2]},{'train' if n < 2 else 'val'}" for n in range(4)]
    (place / "labels.csv").write_text("\n".join(["video_id,label,subset", *rows]))
    (place / "wrong.csv").write_text(WRONG)
    return place


@pytest.mark.parametrize(
    ("line", "message"),
    [
        *((f"{name} --help", "Example:") for name in COMMANDS),
        (EXTRACT.replace("mobilenetv2_112", "mobilenetv2_11"), "; did you mean mobilenetv2_112?"),
        (EXTRACT.replace("random:0", "weights.pt"), "weights.pt: cannot read the weights"),
        (TRAIN.replace("resnet10t_64", "resnet10t_65"), "no stream 'resnet10t_65' in this cache"),
        (TRAIN.replace("labels.csv", "wrong.csv"), "wrong.csv: no column 'label'"),
        (f"{TRAIN} --gamma 7", "gamma must be between 0 and 1"),
        (TABLE.replace("resnet10t_64", "resnet10t_65"), "no stream 'resnet10t_65' in this cache"),
        (TABLE.replace("labels.csv", "wrong.csv"), "wrong.csv: no column 'label'"),
        ("run-policy no-run videos --out predictions.csv", "no-run: no run folder of train-policy"),
    ],
)
def test_help_and_mistakes_import_no_network(line: str, message: str, folder: Path) -> None:
    said, imported = answer(line, folder)
    assert message in said
    assert imported == []


@pytest.mark.slow
def test_nothing_to_extract_imports_no_network(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "v0.mp4", numbered_frames(30), fps=10)
    extracted, imported = answer(EXTRACT, tmp_path)
    assert "1 video: 1 extracted" in extracted and "'torch'," in imported
    again, imported = answer(EXTRACT, tmp_path)
    assert "1 video: 0 extracted (0 frames), 1 already there, 0 failed" in again
    assert imported == []
    # Where it cannot be told without the network, it is made.
    for changed, message in (
        (EXTRACT.replace("random:0", "random:1"), "made otherwise (weights random:0 is not random:1"),
        (f"{EXTRACT} --retry-failed", "1 already there"),
    ):
        said, imported = answer(changed, tmp_path)
        assert message in said and imported
    (tmp_path / "videos" / "v1.mp4").write_bytes(b"none")
    for _ in range(2):  # known to fail: not tried again, and named
        said, imported = answer(EXTRACT, tmp_path)
        assert "2 videos: 0 extracted (0 frames), 1 already there, 1 failed" in said
    assert "failed: v1: " in said and imported == []
    assert list(FeatureCache(tmp_path / "cache")["mobilenetv2_112"]) == ["v0"]


@pytest.mark.slow
def test_a_dry_run_needs_no_pretrained_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "v0.mp4", numbered_frames(30), fps=10)
    dry = EXTRACT.replace(STREAMS, "--stream timm:resnet10t@64 --device cpu --dry-run")
    said, _ = answer(dry, tmp_path)
    assert "resnet10t_64    3 rows of 1 video" in said and "nothing was written" in said
    answer(dry.replace("--dry-run", "--weights random:0"), tmp_path)
    said, _ = answer(dry, tmp_path)  # no weights that it has been told of are these
    assert "made otherwise (weights random:0 is not pretrained" in said
