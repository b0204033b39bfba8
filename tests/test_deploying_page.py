"""The code of docs/deploying.md does what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import policy
from benchmarks.videos import numbered_frames, write_video
from cache_schema import FeatureCache
from cache_schema.annotations import LabelSet, VideoLabel
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.batch import extract
from extract.pipeline import Settings
from extract.sources import find_videos
from policy.runs import run_method
from tests.test_run_policy import LITEEVAL, STREAMS

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

PAGE = (Path(__file__).parents[1] / "docs/deploying.md").read_text(encoding="utf-8")
CODE = dict(re.findall(r"^```python (\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
FPS, SECONDS = 5, 6


def pictures(seed: int) -> list[NDArray[np.uint8]]:
    return list(numbered_frames(FPS * SECONDS, first=50 * seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a LiteEval that was trained on six videos, of which "video.mp4" has the first one's frames."""
    folder = tmp_path_factory.mktemp("page")
    lossless: dict[str, Any] = {"codec": "libx264rgb", "pix_fmt": "rgb24", "options": {"qp": "0"}}
    (folder / "videos").mkdir()
    for path, seed in [(folder / "video.mp4", 0), *((folder / f"videos/v{n}.mp4", n) for n in range(6))]:
        write_video(path, pictures(seed), fps=FPS, **lossless)
    backbones = {
        name: Backbone(parse_stream(stream), weights="random:0", device=torch.device("cpu"))
        for name, stream in STREAMS.items()
    }
    extract(find_videos([folder / "videos"]), backbones, folder / "cache", Settings(1, 16, 120.0))
    labels = [VideoLabel(f"v{n}", ("ab"[n % 2],), "train" if n < 4 else "test") for n in range(6)]
    cache = FeatureCache(folder / "cache")
    run_method(
        LITEEVAL, cache, LabelSet(folder / "l.csv", tuple(labels)), folder / "runs/liteeval", device="cpu"
    )
    return folder


class Source:
    """A camera of OpenCV that is unplugged in the end."""

    def __init__(self, number: int) -> None:
        import cv2

        self._frames: Iterator[Any] = (cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in pictures(number))

    def read(self) -> tuple[bool, Any]:
        frame = next(self._frames, None)
        return frame is not None, frame


def test_a_camera(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2")
    monkeypatch.chdir(folder)
    instants_s = iter([1000 + number / FPS for number in range(FPS * SECONDS)])
    monkeypatch.setattr(cv2, "VideoCapture", Source)
    given: dict[str, Any] = {}
    with monkeypatch.context() as patched:
        patched.setattr("time.monotonic", lambda: next(instants_s))
        exec(CODE["live"], given)
    camera = policy.open_run("runs/liteeval").camera()
    expected = []
    for number, frame in enumerate(pictures(0)):
        camera.push(frame, number / FPS)
        expected.append(next(iter(camera.answer)))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == expected
    assert given["camera"].session.frames == SECONDS
    assert given["camera"].answer == pytest.approx(camera.answer)


def test_a_phone(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(folder)
    run = policy.open_run("runs/liteeval")
    run.export_onnx("phone", backbones=dict.fromkeys(STREAMS))
    given: dict[str, Any] = {}
    cheap, expensive = STREAMS
    exec(CODE["phone"].replace("mobilenetv2_112", cheap).replace("resnet101_224", expensive), given)
    camera = run.camera()
    for number, frame in enumerate(pictures(0)):
        camera.push(frame, number / FPS)
    camera.end()
    label, probability = next(iter(camera.answer.items()))
    printed = capsys.readouterr().out.split()
    assert printed[0] == label
    assert float(printed[1]) == pytest.approx(probability, abs=1e-2)  # cut out up to half a pixel beside
    assert given["seconds"] == SECONDS
