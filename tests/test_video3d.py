"""Clip streams: what the registry says of them, released files of weights, and rows from pixels."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.videos import noisy_frames, write_video
from cache_schema import Preprocessing, Sampling, UserError
from cache_schema.costs import stream_cost
from extract.backbones import BUILT_IN, parse_stream
from extract.backbones import video3d as video3d_module
from extract.backbones.backbone import Backbone
from extract.backbones.i3d import I3D
from extract.backbones.slowfast import SLOWFAST_8X8_R50, SlowFast
from extract.backbones.weights import weights_digest
from extract.backbones.x3d import X3D, X3D_VARIANTS
from extract.cutting import Cutter
from extract.decode import read_video
from extract.views import View

CPU = torch.device("cpu")


def build(stream: str, weights: str = "random:0", **options: Any) -> Backbone:
    return Backbone(parse_stream(stream, **options), weights=weights, device=CPU)


def clips(backbone: Backbone, count: int = 1) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *backbone.view.row_shape), generator=random, dtype=torch.uint8)


# -------------------------------------------------------------------------------------------------- the registry


@pytest.mark.parametrize("variant", X3D_VARIANTS)
def test_x3d_streams_are_sampled_as_the_networks_were_tested(variant: str) -> None:
    request, constants = BUILT_IN[f"x3d_{variant}"], X3D_VARIANTS[variant]
    window = constants.frames * constants.stride
    assert request.sampling == Sampling("clips", fps=30.0, frames=constants.frames, window=window, clips=10)
    assert (request.size, request.resize) == (constants.train_crop, constants.test_crop)
    three = parse_stream(f"x3d_{variant}", crops=3)
    assert (three.size, three.resize, three.sampling.crops) == (constants.test_crop, constants.test_crop, 3)


def test_slowfast_snippets_are_64_frames_long() -> None:
    sampling = BUILT_IN["slowfast_8x8_256"].sampling
    assert (sampling.frames, sampling.window) == (32, SLOWFAST_8X8_R50.frames * SLOWFAST_8X8_R50.stride)
    assert sampling.kind == "snippets" and sampling.rows_per_s == 1


def test_names_say_what_is_unusual() -> None:
    assert parse_stream("x3d_m", clips=3).name == "x3d_m@3clips"
    assert parse_stream("x3d_m", clips=3, crops=3).name == "x3d_m@3clips@3crops"
    assert parse_stream("x3d_m", clips=10, crops=1) == BUILT_IN["x3d_m"]
    assert parse_stream("slowfast_8x8_256", fps=2).name == "slowfast_8x8_256@2fps"
    assert parse_stream("slowfast_8x8_256", fps=2).sampling.rows_per_s == 2
    assert parse_stream("i3d_flow_dense16", flow="dis").name == "i3d_flow_dense16@dis"
    assert parse_stream("i3d_flow_dense16", flow="tvl1") == BUILT_IN["i3d_flow_dense16"]
    # An option of another kind of stream changes nothing: several streams share one command.
    assert parse_stream("x3d_m", fps=2, flow="dis") == BUILT_IN["x3d_m"]
    small = parse_stream("i3d_flow_dense16", flow="dis", size=112)
    assert (small.name, small.size, small.resize) == ("i3d_flow_dense16@112px@dis", 112, 128)
    assert parse_stream("i3d_flow_dense16", size=224) == BUILT_IN["i3d_flow_dense16"]
    assert (
        parse_stream("x3d_s", size=182, crops=3).size == 207
    )  # of 182 · 182 / 160: the height of the picture
    assert parse_stream("resnet101_224", size=112) == BUILT_IN["resnet101_224"]
    assert parse_stream("resnet101_224", clips=2, crops=3) == BUILT_IN["resnet101_224"]
    for options in ({"clips": 0}, {"crops": 2}):
        with pytest.raises(UserError, match=f"--{next(iter(options))}"):
            parse_stream("x3d_m", **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--flow farneback: use tvl1"):
        parse_stream("i3d_flow_dense16", flow="farneback")
    with pytest.raises(UserError, match="--size 16: from 32 to 1024 pixels"):
        parse_stream("i3d_flow_dense16", size=16)


@pytest.mark.slow
def test_three_crops_cost_more() -> None:
    assert stream_cost(build("x3d_xs").spec).macs == pytest.approx(0.6044e9, rel=1e-3)
    assert stream_cost(build("x3d_xs", clips=3).spec).macs == pytest.approx(0.6044e9, rel=1e-3)
    # A smaller picture costs less in proportion; the last maps' sides are rounded up.
    assert stream_cost(build("x3d_xs", size=112).spec).macs == pytest.approx(0.49 * 0.6044e9, rel=0.1)
    # With the classifier, at each of the four places of its window, 0.844.
    macs = stream_cost(build("x3d_xs", crops=3).spec).macs + 4 * 2048 * 400
    assert macs == pytest.approx(0.844e9, rel=1e-3)


# ------------------------------------------------------------------------------------------------------- weights


@pytest.mark.slow
def test_a_released_file_of_the_model_zoo_gives_its_rows(tmp_path: Path) -> None:
    torch.manual_seed(3)
    released = X3D("xs").eval()
    path = tmp_path / "X3D_XS.pyth"
    torch.save({"model_state": released.state_dict(), "epoch": 300, "cfg": "TRAIN:\n  ENABLE: True"}, path)
    backbone = build("x3d_xs", str(path))
    assert backbone.spec.weights == "file" and backbone.spec.weights_digest == weights_digest(released)
    pixels = clips(backbone, 2)
    normalised = (pixels.double() / 255 - 0.45) / 0.225
    with torch.inference_mode():
        features, logits = released(normalised.permute(0, 4, 1, 2, 3).float())
    ours = backbone(pixels)
    assert ours[1] is not None
    torch.testing.assert_close(ours[0], features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours[1], logits, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_released_file_of_i3d_lacks_counters(tmp_path: Path) -> None:
    torch.manual_seed(3)
    old = {k: v for k, v in I3D(3).state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "rgb_imagenet.pt")
    backbone = build("i3d_rgb_dense16", str(tmp_path / "rgb_imagenet.pt"))
    assert backbone.spec.feature_dim == 1024 and backbone.spec.num_classes == 400


@pytest.mark.slow
@pytest.mark.parametrize("network", ["x3d_xs", "slowfast_8x8_256", "i3d_rgb_dense16"])
def test_a_file_of_other_classes_names_them(network: str, tmp_path: Path) -> None:
    model = {"x3d_xs": X3D("xs", 2), "slowfast_8x8_256": SlowFast(2)}.get(network, I3D(3, 2))
    save_file(model.state_dict(), tmp_path / "tuned.safetensors", {"classes": '["left", "right"]'})
    spec = build(network, str(tmp_path / "tuned.safetensors")).spec
    assert spec.num_classes == 2 and spec.classes == ("left", "right")


def test_weights_of_another_network_are_told(tmp_path: Path) -> None:
    torch.save(X3D("l").state_dict(), tmp_path / "l.pth")
    with pytest.raises(
        UserError, match=r"l\.pth: weights of another network: has unknown blocks\.1\.res_blocks\.3"
    ):
        build("x3d_m", str(tmp_path / "l.pth"))
    torch.save(I3D(2).state_dict(), tmp_path / "flow.pt")
    with pytest.raises(UserError, match=r"does not fit: Conv3d_1a_7x7\.conv3d\.weight is \(64, 2"):
        build("i3d_rgb_dense16", str(tmp_path / "flow.pt"))


@pytest.mark.slow
def test_released_weights_come_from_the_folder_of_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    asked: list[str] = []

    def download(url: str, path: str, progress: bool) -> None:
        asked.append(url)
        torch.save({"model_state": X3D("xs").state_dict()}, path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(video3d_module, "require_connection", lambda url: None)
    for _ in range(2):
        assert build("x3d_xs", "pretrained").spec.weights == "pretrained:pytorchvideo_k400"
    assert asked == [X3D_VARIANTS["xs"].url]

    def unreachable(url: str, path: str, progress: bool) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(
        UserError, match=r"weights of x3d_s cannot be had \(no route to host\).*fetch https://"
    ):
        build("x3d_s", "pretrained")


def test_every_released_checkpoint_has_an_address() -> None:
    for family in video3d_module.FAMILIES.values():
        assert family.url.startswith("https://")


# ---------------------------------------------------------------------------------------------------------- flow


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A textured picture that moves two pixels a frame to the right, at 25 frames a second."""
    path = tmp_path_factory.mktemp("videos") / "moving.mp4"
    texture = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(texture).resize((480, 240), Image.Resampling.BICUBIC))
    frames = [wide[:, 100 - 2 * i : 420 - 2 * i] for i in range(33)]
    write_video(path, frames, fps=25, options={"crf": "4"})
    return path


def test_flow_rows_are_the_flow_between_the_frames_on_screen(moving: Path) -> None:
    cv2: Any = importlib.import_module("cv2")  # whose types lack what is used here
    preprocessing = Preprocessing(120, 104, "bilinear", (0.5,) * 3, (0.5,) * 3, flow="dis")
    view = View(Sampling("dense", fps=25.0, frames=16, window=16), preprocessing)
    cutter = Cutter(read_video(moving), [view])
    rows = np.concatenate([chunk.pixels for chunk in cutter.chunks()])
    assert rows.shape == (2, 16, 104, 104, 2) and rows.dtype == np.float16
    np.testing.assert_allclose(cutter.spans[0], [[0, 16 / 25], [16 / 25, 32 / 25]])
    with av.open(str(moving)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    small = [np.asarray(Image.fromarray(f).resize((160, 120), Image.Resampling.BILINEAR)) for f in frames]
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in small]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for row in range(2):
        for t in range(16):
            flow = dis.calc(grey[16 * row + t], grey[16 * row + t + 1], None)
            np.testing.assert_array_equal(rows[row, t], flow[8:112, 28:132].astype(np.float16))
    # Two pixels to the right of a picture halved in size: one.
    assert np.median(rows[..., 0]) == pytest.approx(1, abs=0.1) and abs(np.median(rows[..., 1])) < 0.1


@pytest.mark.slow
def test_a_flow_network_takes_flow_in_twentieths() -> None:
    backbone = build("i3d_flow_dense16", flow="dis")
    assert backbone.spec.preprocessing.flow == "dis" and backbone.view.flow_here
    torch.manual_seed(0)
    network = I3D(2).eval()
    pixels = torch.randn(1, *backbone.view.row_shape).mul(9).half()
    features, _ = backbone(pixels)
    with torch.inference_mode():
        expected, _ = network(pixels.float().clamp(-20, 20).div(20).permute(0, 4, 1, 2, 3))
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_raft_estimates_flow_beside_the_network(moving: Path) -> None:
    backbone = build("i3d_flow_dense16", flow="raft_small")
    assert backbone.spec.preprocessing.flow == "raft_small random:0"
    assert backbone.view.row_shape == (17, 256, 256, 3) and backbone.view.dtype == np.uint8
    chunk = next(iter(Cutter(read_video(moving), [backbone.view]).chunks()))
    features, scores = backbone(torch.from_numpy(chunk.pixels[:1]))
    assert features.shape == (1, 1024) and scores is not None and torch.isfinite(features).all()
    # A clip in which nothing moves has no flow, whatever the network's weights: the rows of zeros.
    still = torch.from_numpy(chunk.pixels[:1, :1]).expand(1, 17, -1, -1, -1)
    torch.manual_seed(0)
    with torch.inference_mode():
        expected, _ = I3D(2).eval()(torch.zeros(1, 2, 16, 224, 224))
    torch.testing.assert_close(backbone(still)[0], expected, atol=1e-4, rtol=1e-4)


def test_missing_opencv_is_told_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="pip install opencv-contrib-python-headless"):
        build("i3d_flow_dense16")


def test_a_row_for_every_crop(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, noisy_frames(50), fps=25)
    backbone = build("x3d_xs", clips=2, crops=3)
    cutter = Cutter(read_video(path), [backbone.view])
    rows = np.concatenate([chunk.pixels for chunk in cutter.chunks()])
    assert rows.shape == (6, 4, 182, 182, 3) and len(cutter.spans[0]) == 6
    features, _ = backbone(torch.from_numpy(rows[:2]))
    assert features.shape == (2, 2048) and math.isfinite(float(features.sum()))
