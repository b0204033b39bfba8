"""Frames pushed one by one get the answers that the extracted rows of the same video get."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import policy
from benchmarks.videos import write_video
from cache_schema import FeatureCache, Sampling, StreamSpec, UserError, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from extract.backbones import StreamRequest
from extract.backbones.backbone import Backbone
from extract.cutting import Cutter
from extract.decode import read_video
from policy.baselines.agent import AgentSession
from policy.baselines.fast_forward import JumpAgent
from policy.baselines.frame_glimpse import GlimpseAgent
from policy.config import RunConfig
from policy.deploy.camera import Camera
from policy.deploy.trained import TrainedPolicy
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.model import LiteEval
from policy.liteeval.session import LiteEvalSession
from policy.localization.config import WTALCConfig
from policy.localization.network import WTALCNetwork
from policy.localization.session import WTALCSession
from policy.runs import run_method
from policy.selection.config import SelectorCascadeConfig, SelectorConfig
from policy.session import Session
from tests.caches import make_spec

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

Frame = NDArray[np.uint8]
Rows = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32] | None]]
"""By stream: spans, features and scores of a video."""
CPU = torch.device("cpu")
FPS, COUNT = 10.0, 41
DURATION_S = COUNT / FPS
CLIPS = Sampling("clips", fps=10.0, frames=4, window=13, clips=2, crops=3)
DENSE = Sampling("dense", fps=10.0, frames=9, window=12)
REQUESTS = (
    StreamRequest("cheap", "timm:test_resnet", 64, Sampling(fps=2.0)),
    StreamRequest("dear", "timm:test_convnext", 96, Sampling(fps=2.0)),
    StreamRequest("clips", "x3d_xs", 32, CLIPS, 40),
    StreamRequest("looks", "x3d_xs", 32, replace(DENSE, frames=4), 40),
    StreamRequest("moves", "i3d_flow", 64, DENSE, 64, "dis"),
)
CLASSES = ("left", "right")


def pictures(seed: int) -> list[Frame]:
    """Frames of squares, each unlike the one before, so that a row of another frame is another row."""
    squares = np.random.default_rng(seed).integers(0, 256, (COUNT, 3, 4, 3), np.uint8)
    return list(squares.repeat(32, axis=1).repeat(32, axis=2))


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    return {request.name: Backbone(request, weights="random:0", device=CPU) for request in REQUESTS}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    paths = {f"v{n}": folder / f"v{n}.mkv" for n in range(6)}
    for n, path in enumerate(paths.values()):
        write_video(path, pictures(n), fps=FPS, codec="ffv1", pix_fmt="bgr0")
    return paths


@pytest.fixture(scope="module")
def rows(videos: dict[str, Path], backbones: dict[str, Backbone]) -> dict[str, Rows]:
    """As stage 1 computes them."""
    found: dict[str, Rows] = {}
    for video_id, path in videos.items():
        cutter = Cutter(read_video(path), [backbone.view for backbone in backbones.values()])
        parts: list[list[tuple[Tensor, Tensor | None]]] = [[] for _ in backbones]
        for chunk in cutter.chunks():
            backbone = list(backbones.values())[chunk.view]
            parts[chunk.view].append(backbone(torch.from_numpy(chunk.pixels)))
        found[video_id] = {}
        for name, spans, part in zip(backbones, cutter.spans, parts, strict=True):
            scores = [values for _, values in part if values is not None]
            features = torch.cat([values for values, _ in part])
            found[video_id][name] = spans, features.numpy(), torch.cat(scores).numpy() if scores else None  # type: ignore[index]
    return found


@pytest.fixture(scope="module")
def cache(
    rows: dict[str, Rows], backbones: dict[str, Backbone], tmp_path_factory: pytest.TempPathFactory
) -> tuple[FeatureCache, LabelSet]:
    folder = tmp_path_factory.mktemp("cache")
    for name, backbone in backbones.items():
        records = []
        for video_id, streams in rows.items():
            spans, features, scores = streams[name]
            halves = None if scores is None else scores.astype(np.float16)
            record = VideoRecord(
                video_id, features.astype(np.float16), spans, halves, DURATION_S, FPS, video_id, video_id
            )
            records.append(record)
        write_shard(folder / name, backbone.spec, records, tools={"thriftvid": "test"})
    labels = (
        VideoLabel(video_id, (CLASSES[n % 2],), "train" if n < 4 else "test")
        for n, video_id in enumerate(rows)
    )
    return FeatureCache(folder), LabelSet(folder / "labels.csv", tuple(labels))


def make_liteeval(cheap: StreamSpec, dear: StreamSpec, *, open_share: float = 0.5) -> LiteEvalSession:
    """Random weights, and a gate that opens on that share of rows of noise."""
    torch.manual_seed(1)
    model = LiteEval(
        coarse_dim=cheap.feature_dim,
        fine_dim=dear.feature_dim,
        num_classes=2,
        coarse_hidden=6,
        fine_hidden=12,
    )
    with torch.no_grad():
        model.gate.weight.mul_(30)
        model.threshold.fill_({0.0: 1e9, 1.0: -1e9}.get(open_share, 0.0))
    return LiteEvalSession(model, cheap, dear, classes=CLASSES)


def make_wtalc(*specs: StreamSpec) -> WTALCSession:
    torch.manual_seed(1)
    model = WTALCNetwork(sum(spec.feature_dim for spec in specs), 8, 2)
    return WTALCSession(model, specs, WTALCConfig(), l2=False, classes=CLASSES)


def frames_of(path: Path) -> Iterator[tuple[float, Frame]]:
    video = read_video(path)
    numbers = np.arange(len(video.frame_starts_s))
    for at_s, frame in zip(video.frame_starts_s.tolist(), video.frames(numbers), strict=True):
        assert frame is not None
        yield at_s, frame


def give_rows(session: Session, streams: Rows) -> None:
    """A session's whole video, from rows of stage 1."""
    session.begin({name: streams[name][0] for name in session.streams})
    while (wanted := session.wanted()) is not None:
        _, features, scores = streams[wanted.stream]
        session.take(features[wanted.rows], None if scores is None else scores[wanted.rows])


def check_camera(
    camera: Camera, reference: Session, videos: dict[str, Path], rows: dict[str, Rows]
) -> set[int]:
    """Pushed frames come to what rows of stage 1 come to. Returns what the videos cost."""
    costs = set()
    for video_id, path in videos.items():
        camera.begin()
        for at_s, frame in frames_of(path):
            camera.push(frame, 1000.5 + at_s)
        camera.end(1000.5 + DURATION_S)
        give_rows(reference, rows[video_id])
        assert torch.allclose(camera.session.probabilities, reference.probabilities, atol=1e-4)
        assert camera.session.macs_by_name == reference.macs_by_name
        assert list(camera.answer) == [CLASSES[n] for n in reference.probabilities.argsort(descending=True)]
        assert camera.answer == pytest.approx(reference.answer, abs=1e-4)
        costs.add(camera.session.macs)
    return costs


@pytest.mark.parametrize("duration_s", [None, DURATION_S])
def test_liteeval(
    duration_s: float | None, videos: dict[str, Path], rows: dict[str, Rows], backbones: dict[str, Backbone]
) -> None:
    sessions = [make_liteeval(backbones["cheap"].spec, backbones["dear"].spec) for _ in range(2)]
    camera = Camera(sessions[0], {}, duration_s, CPU)
    assert len(check_camera(camera, sessions[1], videos, rows)) > 1
    assert camera.done == (duration_s is not None)


def test_localization(videos: dict[str, Path], rows: dict[str, Rows], backbones: dict[str, Backbone]) -> None:
    """Clips without an end known beforehand, one stream of optical flow."""
    sessions = [make_wtalc(backbones["looks"].spec, backbones["moves"].spec) for _ in range(2)]
    few = dict([*videos.items()][:2])
    check_camera(Camera(sessions[0], {}, DURATION_S, CPU), sessions[1], few, rows)


@pytest.mark.parametrize("jumps", [False, True])
def test_agents(
    jumps: bool, videos: dict[str, Path], rows: dict[str, Rows], backbones: dict[str, Backbone]
) -> None:
    """That go back and forth, or stop."""
    spec = backbones["cheap"].spec
    torch.manual_seed(2)
    agent = JumpAgent(spec.feature_dim, 8, 2, 2) if jumps else GlimpseAgent(spec.feature_dim, 8, 2, 5, 0.1)
    agent.scale.fit(streams["cheap"][1] for streams in rows.values())
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.mul_(3)
    sessions = [AgentSession(agent, spec, classes=CLASSES, l2=False, multi_label=False) for _ in range(2)]
    camera = Camera(sessions[0], {}, DURATION_S, CPU)
    assert len(check_camera(camera, sessions[1], videos, rows)) > 1 and camera.done
    with pytest.raises(UserError, match="looks at a whole video before it chooses: give duration_s"):
        Camera(sessions[0], {}, None, CPU)


LITEEVAL = LiteEvalConfig(
    coarse="cheap", fine="dear", epochs=1, batch=4, lr=1e-3, coarse_hidden=6, fine_hidden=12
)
MODELS = ("cheap", "dear", "clips")
SELECTOR = SelectorConfig(
    decisions="perceptron",
    models=MODELS,
    epochs=4,
    batch=4,
    lr=1e-2,
    selector_hidden=4,
    heads="linear",
    folds=2,
    threshold=0.34,
    when_none="most-confident",
)
CASCADE = SelectorCascadeConfig(
    models=MODELS, epochs=4, batch=4, lr=1e-2, selector_hidden=4, heads="linear", folds=2, threshold=0.01
)


@pytest.mark.slow
@pytest.mark.parametrize("config", [SELECTOR, CASCADE])
def test_a_pool(
    config: RunConfig,
    videos: dict[str, Path],
    rows: dict[str, Rows],
    cache: tuple[FeatureCache, LabelSet],
    tmp_path: Path,
) -> None:
    """From the run folder, with a model of clips of three crops; `--heads linear` keeps the heads it needs."""
    run_method(config, *cache, tmp_path / "run", device="cpu")
    opened = policy.open_run(str(tmp_path / "run"))
    camera = opened.camera(duration_s=DURATION_S)
    check_camera(camera, opened.session(), videos, rows)
    with pytest.raises(UserError, match="looks at a whole video before it chooses: give duration_s"):
        opened.camera()


def test_an_opened_run(cache: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    run_method(LITEEVAL, *cache, tmp_path / "run", device="cpu")
    opened = policy.open_run(tmp_path / "run")
    assert isinstance(opened, TrainedPolicy) and opened.classes == CLASSES
    assert {name: spec.sampling.fps for name, spec in opened.streams.items()} == {"cheap": 2.0, "dear": 2.0}
    lines = str(opened).splitlines()
    assert lines[0] == "LiteEval: 2 classes" and len(lines) == 3
    assert "cheap: 2 frames a second, resized to" in lines[1] and "timm:test_resnet" in lines[1]
    one, other = opened.session(), opened.session()
    one.begin({name: np.zeros((1, 2)) for name in opened.streams})
    assert one.wanted() is not None and other.wanted() is None
    with pytest.raises(UserError, match="no run folder of train-policy"):
        policy.open_run(tmp_path)


# --- which frame a row shows ---


class Mean:
    """Instead of a backbone: features are the mean of the pixels, which it keeps."""

    def __init__(self, spec: StreamSpec) -> None:
        self.spec, self.means = spec, list[float]()

    def __call__(self, pixels: Tensor) -> tuple[Tensor, None]:
        means = pixels.float().mean((1, 2, 3))
        self.means += means.tolist()
        return means[:, None], None


def backbones_instead(*specs: StreamSpec) -> tuple[dict[str, Mean], Callable[..., Mean]]:
    """What is built, by stream, and what builds it."""
    built: dict[str, Mean] = {}

    def build(request: StreamRequest, **_: object) -> Mean:
        built[request.name] = Mean(next(spec for spec in specs if spec.name == request.name))
        return built[request.name]

    return built, build


TINY = [
    make_spec(name, dim=1, sampling=Sampling(fps=3.0), preprocessing=replace(backbone, crop=8, resize=8))
    for backbone in [make_spec().preprocessing]
    for name in ("coarse", "fine")
]


def plain(value: int) -> Frame:
    return np.full((8, 8, 3), value, np.uint8)


@settings(max_examples=60)
@given(
    gaps=st.lists(st.sampled_from([1e-9, 5e-7, 0.01, 1 / 30, 0.1, 1 / 3, 1.0]), min_size=1, max_size=30),
    rest_s=st.sampled_from([0.0, 0.2, 1.1]),
    start_s=st.sampled_from([0.0, -3.0, 12.3]),
    known=st.booleans(),
)
def test_a_row_shows_what_was_on_screen(
    gaps: list[float], rest_s: float, start_s: float, known: bool
) -> None:
    starts_s = np.concatenate([[0.0], np.cumsum(gaps)])
    built, build = backbones_instead(*TINY)
    session = make_liteeval(*TINY, open_share=0.0)
    end_s = float(starts_s[-1] + rest_s)
    with patch("extract.backbones.backbone.Backbone", build):
        camera = Camera(session, {}, max(end_s, 1e-3) if known else None, CPU)
        pushed = [start_s + float(at_s) for at_s in starts_s]
        if len(set(pushed)) < len(pushed):  # too close for this clock
            return
        for number, at_s in enumerate(pushed):
            camera.push(plain(number), at_s)
        camera.end(start_s + end_s)
    shown = [at_s - start_s for at_s in pushed]
    rows, expected = 0, []
    while rows == 0 or rows / 3 < end_s - 5e-4:
        expected.append(max(k for k, at_s in enumerate(shown) if k == 0 or at_s <= rows / 3 + 1e-6))
        rows += 1
    # An instant as near as that to the end, or to a frame's start, may be either's: clocks round.
    assert abs(len(built["coarse"].means) - len(expected)) <= 1
    near = {k for k in range(rows) if np.abs(starts_s - k / 3 - 1e-6).min() < 3e-6}
    for row, (mean, frame) in enumerate(zip(built["coarse"].means, expected, strict=False)):
        assert mean == frame or row in near
    assert "fine" not in built  # whose backbone nobody has wanted


def test_the_frame_that_was_pushed_may_be_overwritten() -> None:
    built, build = backbones_instead(*TINY)
    with patch("extract.backbones.backbone.Backbone", build):
        camera = Camera(make_liteeval(*TINY, open_share=1.0), {}, None, CPU)
        frame = plain(7)
        for at_s in (0.0, 0.3, 0.6):
            camera.push(frame, at_s)
            frame += 1
    assert built["coarse"].means == built["fine"].means == [7.0, 8.0]


# --- what cannot be pushed ---


def test_wrong_frames() -> None:
    _, build = backbones_instead(*TINY)
    with patch("extract.backbones.backbone.Backbone", build):
        camera = Camera(make_liteeval(*TINY), {}, None, CPU)
        with pytest.raises(ValueError, match="no frame has come yet"):
            camera.end()
        camera.push(plain(1), 5.0)
        before = camera.answer
        wrong: list[tuple[Any, float, str]] = [
            (plain(1), 5.0, "a frame of second 5 after that of second 5: frames come in order"),
            (plain(1), 4.0, "a frame of second 4 after that of second 5: frames come in order"),
            (plain(1), math.nan, "instant is a number of seconds, not nan"),
            (plain(1), math.inf, "instant is a number of seconds, not inf"),
            (plain(1)[:4], 6.0, "a frame of 8×4 pixels after frames of 8×8: begin"),
            (plain(1)[..., 0], 6.0, r"shape \(H, W, 3\), RGB, not \(8, 8\)"),
            (plain(1)[..., :2], 6.0, r"shape \(H, W, 3\), RGB, not \(8, 8, 2\)"),
            (plain(1)[:0], 6.0, r"shape \(H, W, 3\), RGB, not \(0, 8, 3\)"),
            (plain(1).astype(np.float32), 6.0, "uint8, not an array of float32"),
            (None, 6.0, "uint8, not NoneType"),
        ]
        for frame, at_s, problem in wrong:
            with pytest.raises(ValueError, match=problem):
                camera.push(frame, at_s)
        with pytest.raises(ValueError, match="cannot end at second 4: its last frame is of 5"):
            camera.end(4.0)
        assert camera.answer == before and camera.session.macs_by_name["coarse"] == 1_000_000
        camera.push(plain(1), 6.0)
        camera.begin()
        camera.push(np.zeros((4, 5, 3), np.uint8), 0.0)


def test_wrong_weights(backbones: dict[str, Backbone]) -> None:
    cheap, dear = backbones["cheap"].spec, backbones["dear"].spec

    def camera(coarse: StreamSpec, duration_s: float | None = None, **weights: str) -> Camera:
        return Camera(make_liteeval(coarse, dear), weights, duration_s, CPU)

    frame = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(UserError, match="stream 'cheap': weights random:1 are not those"):
        camera(cheap, cheap="random:1").push(frame, 0.0)
    with pytest.raises(UserError, match=r"weights from a file .* or weights={'cheap': FILE}"):
        camera(replace(cheap, weights="file"))
    camera(replace(cheap, weights="file"), cheap="random:0").push(frame, 0.0)
    with pytest.raises(UserError, match="weights for 'chep', which is none of the streams: cheap, dear"):
        camera(cheap, chep="random:0")
    unknown = Sampling("clips", frames=0, window=0, fps=0.0, clips=4)
    with pytest.raises(UserError, match="stream 'cheap' was imported"):
        camera(replace(cheap, sampling=unknown), 4.0)
    for duration_s in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="duration_s is a positive number of seconds"):
            camera(cheap, duration_s)


def test_importing_policy_is_quick() -> None:
    code = "import sys, policy; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="module 'policy' has no attribute 'open_runs'"):
        policy.open_runs  # noqa: B018


# --- docs/online.md ---

PAGE = (Path(__file__).parents[1] / "docs/online.md").read_text(encoding="utf-8")
CODE = dict(re.findall(r"^```python (\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


def test_the_page(
    cache: tuple[FeatureCache, LabelSet],
    rows: dict[str, Rows],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run_method(LITEEVAL, *cache, tmp_path / "runs/liteeval", device="cpu")
    write_video(
        tmp_path / "video.mp4", pictures(3), fps=FPS, codec="libx264rgb", pix_fmt="rgb24", options={"qp": "0"}
    )
    loop: dict[str, Any] = {}
    exec(CODE["camera"], loop)
    pushed = loop["camera"].session
    # The last row is of second 4, at which the last frame starts.
    assert pushed.frames == len(rows["v3"]["cheap"][1])

    def backbone(stream: str, spans_s: NDArray[np.float64]) -> tuple[Any, Any]:
        places = np.searchsorted(rows["v3"][stream][0][:, 0], spans_s[:, 0])
        return rows["v3"][stream][1][places], None

    given: dict[str, Any] = {"duration_s": DURATION_S, "backbone": backbone}
    exec(CODE["rows"], given)
    assert pushed.answer == pytest.approx(given["session"].answer, abs=1e-2)  # two decoders differ a little
    assert "cheap: 2 frames a second" in capsys.readouterr().out
