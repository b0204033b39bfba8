"""Flow finds known motions, with the usual sign and order of axes; RAFT is torchvision's, some pairs at a time."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import get_model, get_model_weights

from cache_schema import UserError
from extract.backbones.raft import RAFT_NAMES, RaftFlow, create_raft
from extract.flow import METHODS, Float32Array, UInt8Array, clip_and_scale, clip_flow, flow_between

HEIGHT, WIDTH = 64, 96
PRESET = "DISOPTICAL_FLOW_PRESET_MEDIUM"
both = pytest.mark.parametrize("method", METHODS)


def texture(height: int, width: int, seed: int = 0) -> UInt8Array:
    """A picture with detail of about 8 px, its colours independent."""
    noise = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(noise, (height, width), mode="bicubic")[0].permute(1, 2, 0)
    return (smooth.clamp(0, 1) * 255).byte().numpy()


def moved(u: int, v: int) -> tuple[UInt8Array, UInt8Array]:
    """Two views of a wall: what the first shows at (y, x), the second shows at (y + v, x + u)."""
    wall, margin = texture(HEIGHT + 32, WIDTH + 32), 16
    views = [
        wall[margin - dy : margin - dy + HEIGHT, margin - dx : margin - dx + WIDTH]
        for dy, dx in ((0, 0), (v, u))
    ]
    return views[0], views[1]


# ----------------------------------------------------------------------------------------------------- OpenCV


@both
@pytest.mark.parametrize(("u", "v"), [(3, 0), (-3, 0), (0, 2), (0, -2), (4, -3)])
def test_known_translations(method: str, u: int, v: int) -> None:
    first, second = moved(u, v)
    if v >= 0 and u >= 0:  # the definition, in pixels
        np.testing.assert_array_equal(second[v:, u:], first[: HEIGHT - v, : WIDTH - u])
    flow = flow_between(first, second, method)
    assert flow.shape == (HEIGHT, WIDTH, 2)
    assert flow.dtype == np.float32
    inside = flow[12:-12, 12:-12]
    assert np.abs(np.median(inside, axis=(0, 1)) - (u, v)).max() < 0.1
    assert np.abs(inside - (u, v)).mean() < 0.2


@pytest.mark.slow
@both
def test_a_clip_is_its_pairs_and_the_same_again(method: str) -> None:
    frames = np.stack([*moved(2, 1), texture(HEIGHT, WIDTH, seed=1), moved(0, 0)[0]])[:, :32, :40]
    flow = clip_flow(frames, method)
    assert flow.shape == (3, 32, 40, 2)
    for t in range(3):
        np.testing.assert_array_equal(flow[t], flow_between(frames[t], frames[t + 1], method))
    np.testing.assert_array_equal(clip_flow(frames, method), flow)
    np.testing.assert_array_equal(clip_flow(list(frames), method), flow)


@both
def test_equal_frames_are_zero_and_cost_nothing(method: str) -> None:
    first, second = moved(3, 0)
    flow = clip_flow(np.stack([first, second, second, second]), method)
    assert flow[0].any()
    assert not flow[1:].any()
    with mock.patch("cv2.cvtColor", side_effect=AssertionError("computed")):
        assert not flow_between(first, first.copy(), method).any()


def test_one_thread() -> None:
    import cv2

    cv2.setNumThreads(2)
    flow_between(*moved(1, 0), "dis")
    assert cv2.getNumThreads() == 1


def test_views_that_are_not_contiguous() -> None:
    first, second = moved(3, 1)
    np.testing.assert_array_equal(
        flow_between(first[:, ::-1], second[:, ::-1], "dis"),
        flow_between(first[:, ::-1].copy(), second[:, ::-1].copy(), "dis"),
    )


def test_clip_and_scale() -> None:
    flow = np.array([-35, -20, -5, 0, 10, 20, 20.5], np.float32)
    scaled = clip_and_scale(flow)
    assert scaled.dtype == np.float32
    assert scaled.tolist() == [-1, -1, -0.25, 0, 0.5, 1, 1]
    assert clip_and_scale(flow, bound_px=10.0).tolist() == [-1, -1, -0.5, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((1, 32, 32, 3), np.uint8), "two frames or more, not 1"),
        (np.zeros((2, 32, 32, 3), np.float32), "float32"),
        (np.zeros((2, 32, 32), np.uint8), r"\(32, 32\) uint8"),
        (np.zeros((2, 15, 32, 3), np.uint8), "frames of 16×16 or more, not 15×32"),
        ([np.zeros((32, w, 3), np.uint8) for w in (32, 40)], r"\(32, 32, 3\) uint8, \(32, 40, 3\) uint8"),
    ],
)
def test_frames_that_do_not_fit(frames: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clip_flow(frames, "dis")


def test_no_such_method() -> None:
    with pytest.raises(ValueError, match="no flow method 'farneback': use tvl1 or dis"):
        flow_between(*moved(1, 0), "farneback")


@both
def test_without_opencv(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="pip install opencv-contrib-python-headless") as caught:
        flow_between(*moved(1, 0), method)
    assert "\n" not in str(caught.value)


def test_an_opencv_without_its_contributed_part(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module("cv2")
    plain = types.ModuleType("cv2")
    for name in ("setNumThreads", "cvtColor", "COLOR_RGB2GRAY", "DISOpticalFlow_create", PRESET):
        setattr(plain, name, getattr(real, name))
    monkeypatch.setitem(sys.modules, "cv2", plain)
    flow_between(*moved(1, 0), "dis")
    with pytest.raises(UserError, match=r"pip uninstall every opencv-\* package") as caught:
        flow_between(*moved(1, 0), "tvl1")
    assert "\n" not in str(caught.value)


@both
def test_what_is_left_of_an_opencv_that_another_overwrote(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", types.ModuleType("cv2"))  # a folder without files imports as this
    with pytest.raises(UserError, match="is not in the OpenCV that is installed"):
        flow_between(*moved(1, 0), method)


# ------------------------------------------------------------------------------------------------------- RAFT


def raft_clip(batch: int = 1, frames: int = 4, height: int = 128, width: int = 136) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (batch, frames, 3, height, width), generator=generator).float()


@pytest.mark.slow
@pytest.mark.parametrize("name", RAFT_NAMES)
def test_raft_is_torchvision_s_pair_by_pair(name: str) -> None:
    raft, chosen = create_raft(name, "random:7")
    assert chosen == "random:7"
    clip = raft_clip(frames=3)
    flow = RaftFlow(raft, updates=2)(clip)
    assert flow.shape == (1, 2, 2, 128, 136)
    assert flow.dtype == torch.float32

    torch.manual_seed(7)
    theirs: Any = get_model(name).eval()
    pixels = clip[0] / 255 * 2 - 1
    with torch.inference_mode():
        for t in range(2):
            expected = theirs(pixels[t : t + 1], pixels[t + 1 : t + 2], num_flow_updates=2)[-1][0]
            torch.testing.assert_close(flow[0, t], expected, rtol=1e-3, atol=1e-3)
    assert float(flow.abs().mean()) > 0.01  # random, but not nothing


@pytest.mark.slow
def test_chunks_change_nothing_and_bound_the_pairs() -> None:
    raft, _ = create_raft("raft_small", "random:0")
    clip = raft_clip(batch=2, frames=4)
    whole = RaftFlow(raft, pairs_at_once=6, updates=2)(clip)
    seen: list[int] = []
    with raft.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0]))):
        chunked = RaftFlow(raft, pairs_at_once=4, updates=2)(clip)
    assert seen == [4, 2]
    assert chunked.shape == (2, 3, 2, 128, 136)
    torch.testing.assert_close(chunked, whole, rtol=1e-3, atol=1e-3)


def test_raft_gives_equal_frames_no_motion() -> None:
    raft, _ = create_raft("raft_small", "random:0")
    clip = raft_clip(frames=3)
    clip[:, 2] = clip[:, 1]
    flow = RaftFlow(raft, updates=1)(clip)
    assert flow[:, 0].any()
    assert not flow[:, 1].any()


def test_raft_from_a_file_and_not_from_another_s(tmp_path: Path) -> None:
    raft, _ = create_raft("raft_small", "random:1")
    path = tmp_path / "raft.pth"
    torch.save(raft.state_dict(), path)
    read, chosen = create_raft("raft_small", str(path))
    assert chosen == "file"
    for name, tensor in raft.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor)
    with pytest.raises(UserError, match="weights of another network"):
        create_raft("raft_large", str(path))


def test_raft_pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    known: Any = get_model_weights("raft_small")
    state = create_raft("raft_small", "random:2")[0].state_dict()
    monkeypatch.setattr(type(known.DEFAULT), "get_state_dict", lambda *_, **__: state)
    monkeypatch.setattr("extract.backbones.downloads.require_connection", lambda url: None)
    raft, chosen = create_raft("raft_small", "pretrained")
    assert chosen == "pretrained:C_T_V2"
    assert torch.equal(next(iter(raft.state_dict().values())), next(iter(state.values())))
    assert create_raft("raft_small", "pretrained:C_T_V1")[1] == "pretrained:C_T_V1"


def test_raft_pretrained_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Found out by a connection of seconds, not by a download that waits for minutes."""
    known: Any = get_model_weights("raft_small")
    download = mock.Mock()
    monkeypatch.setattr(type(known.DEFAULT), "get_state_dict", download)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    unreachable = mock.Mock(side_effect=OSError("no route\nto host"))
    monkeypatch.setattr("extract.backbones.downloads.require_connection", unreachable)
    with pytest.raises(UserError, match=r"cannot be had \(no route\).*https://.*\.pth") as caught:
        create_raft("raft_small", "pretrained")
    assert "\n" not in str(caught.value)
    assert not download.called
    path = tmp_path / "checkpoints" / Path(known.DEFAULT.url).name
    path.parent.mkdir()
    path.touch()
    download.return_value = create_raft("raft_small", "random:2")[0].state_dict()
    assert create_raft("raft_small", "pretrained")[1] == "pretrained:C_T_V2"  # torch has it already


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("raft_huge", "random:0", "use raft_large or raft_small"),
        ("raft_small", "random:x", "say which seed"),
        ("raft_small", "pretrained:KITTI", "has no weights 'KITTI': use C_T_V1, C_T_V2"),
        ("raft_small", "no/such/file.pth", "cannot read the weights"),
    ],
)
def test_raft_that_there_is_not(name: str, weights: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_raft(name, weights)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 2, 3, 128, 132), "multiples of 8, 128 or more, not 128×132"),
        ((1, 2, 3, 120, 128), "not 120×128"),
        ((1, 1, 3, 128, 128), "two frames or more"),
        ((2, 3, 128, 128), "takes clips of"),
        ((1, 2, 2, 128, 128), "takes clips of"),
    ],
)
def test_raft_refuses_other_clips(shape: tuple[int, ...], message: str) -> None:
    raft = RaftFlow(torch.nn.Identity())
    with pytest.raises(ValueError, match=message) as caught:
        raft(torch.empty(shape, device="meta"))
    assert "\n" not in str(caught.value)


def test_at_least_one_pair_at_once() -> None:
    with pytest.raises(ValueError, match="pairs_at_once 0"):
        RaftFlow(torch.nn.Identity(), pairs_at_once=0)


# -------------------------------------------------------------------------------------------------------- both


@both
def test_clipped_flow_of_a_fast_motion(method: str) -> None:
    first, second = moved(12, 0)
    flow: Float32Array = clip_and_scale(flow_between(first, second, method), bound_px=6.0)
    assert float(np.abs(flow).max()) == 1
    assert float(np.median(flow[16:-16, 16:-16, 0])) == 1
