"""2-D backbones are timm's own: the same pixels in, the same features out; weights are told apart, or refused."""

from __future__ import annotations

import json
import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from cache_schema import Preprocessing, Sampling, UserError
from cache_schema.costs import cost_table, gflops
from extract.backbones import BUILT_IN, StreamRequest, downloads, names_of, parse_stream, weights_by_stream
from extract.backbones.backbone import Backbone, count_macs
from extract.backbones.weights import weights_digest
from extract.batcher import Batcher
from extract.transform import resize_and_crop
from tests.caches import make_spec

CPU = torch.device("cpu")
TINY = "timm:test_resnet@96"


def build(stream: str = TINY, weights: str = "random:0") -> Backbone:
    return Backbone(parse_stream(stream), weights=weights, device=CPU)


@cache
def tiny() -> Backbone:
    return build()


def timm_transform(model: Any, size: int) -> Callable[[Image.Image], Tensor]:
    data: Any = timm.data
    config = data.resolve_data_config({"input_size": (3, size, size)}, model=model)
    transform: Callable[[Image.Image], Tensor] = data.create_transform(**config, is_training=False)
    return transform


def picture(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Noise over a gradient: high and low frequencies."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(0, 160, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    return np.clip(ramp + random.integers(-40, 40, (height, width, 3)), 0, 255).astype(np.uint8)


# ---------------------------------------------------------------------------------------------- preprocessing

SHAPES = [(360, 640), (640, 360), (1080, 1920), (241, 317), (333, 250), (224, 224), (7, 5), (1, 1), (3, 200)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(
    ("size", "name"), [(112, "mobilenetv2_100"), (224, "resnet101"), (97, "test_vit"), (224, "dpn107")]
)
def test_preprocessing_is_timms(shape: tuple[int, int], size: int, name: str) -> None:
    with torch.device("meta"):
        model: Any = timm.create_model(name)
    config = model.pretrained_cfg
    ours = Preprocessing(
        int(size / config["crop_pct"]), size, config["interpolation"], config["mean"], config["std"]
    )
    frame = picture(*shape)
    theirs = timm_transform(model, size)(Image.fromarray(frame))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config["mean"], config["std"]))
    grey_levels = ((theirs * std + mean) * 255).permute(1, 2, 0).numpy()
    difference = np.abs(resize_and_crop(frame, ours) - grey_levels).round()
    # Pillow rounds to grey levels between its two passes, and takes them in the order that is cheaper: for the
    # whole picture and for the crop alone not always the same.
    assert np.quantile(difference, 0.995) <= 1
    assert difference.mean() < 0.35


# ------------------------------------------------------------------------------------------ features and scores


@pytest.mark.slow
@pytest.mark.parametrize(
    "stream",
    [TINY, "timm:mobilenetv2_035@112", "timm:resnet10t@97", "timm:test_vit@160", "timm:test_convnext@64"],
)
def test_rows_are_what_timm_computes(stream: str) -> None:
    backbone = build(stream)
    request = parse_stream(stream)
    torch.manual_seed(0)
    options: dict[str, Any] = {"img_size": request.size} if "vit" in stream else {}
    model: Any = timm.create_model(request.network.removeprefix("timm:"), **options).eval()
    frames = [picture(180, 320, seed) for seed in range(3)]
    x = torch.stack([timm_transform(model, request.size)(Image.fromarray(frame)) for frame in frames])
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(x), pre_logits=True)
        logits = model(x)
    pixels = np.stack([resize_and_crop(frame, backbone.spec.preprocessing) for frame in frames])
    features, scores = backbone(torch.from_numpy(pixels))
    assert scores is not None
    assert features.shape == (3, backbone.spec.feature_dim) and scores.shape == (3, backbone.spec.num_classes)
    # The only difference is a grey level here and there, of a resize that computes the crop alone.
    torch.testing.assert_close(features, expected, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(scores, logits, atol=5e-3, rtol=5e-3)
    # On the very same pixels there is none.
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    )
    same = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.inference_mode():
        torch.testing.assert_close(
            features, model.forward_head(model.forward_features(same), pre_logits=True), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(scores, model(same), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["mobilenetv2_112", "timm:resnet10t@224", "efficientnet_b0_224"])
def test_a_row_does_not_depend_on_its_neighbours(stream: str) -> None:
    # An interrupted run has other batches than an undisturbed one, and must end with the same bits.
    backbone = build(stream)
    crop = backbone.spec.preprocessing.crop
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (16, crop, crop, 3), dtype=np.uint8)
    features, scores = backbone(torch.from_numpy(frames))
    others = random.integers(0, 256, frames.shape, dtype=np.uint8)
    order = random.permutation(16)
    others[order[:5]] = frames[:5]
    moved, moved_scores = backbone(torch.from_numpy(others))
    assert scores is not None and moved_scores is not None
    assert torch.equal(moved[order[:5]], features[:5])
    assert torch.equal(moved_scores[order[:5]], scores[:5])


def test_a_network_without_classifier_has_no_scores(tmp_path: Path) -> None:
    torch.manual_seed(0)
    headless = timm.create_model("test_resnet", num_classes=0)
    save_file(headless.state_dict(), tmp_path / "headless.safetensors")
    backbone = build(weights=str(tmp_path / "headless.safetensors"))
    features, scores = backbone(torch.zeros(2, 96, 96, 3, dtype=torch.uint8))
    assert scores is None and backbone.spec.num_classes == 0 and features.shape[0] == 2


# ------------------------------------------------------------------------------------------------------- costs


@pytest.mark.slow
@pytest.mark.parametrize("stream", BUILT_IN)
def test_costs(stream: str) -> None:
    counted = count_macs(parse_stream(stream))
    cost = cost_table()[stream]
    assert counted == cost.macs
    if cost.paper is None:  # no paper has these
        assert stream in ("x3d_xs_dense16", "x3d_s_dense16", "x3d_l_dense16") or "_lite" in stream
        return
    # The paper has 56 for both kinds of I3D, of two operations per multiply-accumulate: 2·27.8 and 2·25.6.
    tolerance = 0.1 if stream.startswith("i3d") else 0.015
    assert gflops(counted, cost.paper_unit) == pytest.approx(cost.paper, rel=tolerance)


def test_costs_by_hand() -> None:
    """Sum over the convolutions of what each one's shape says; the classifier does not count."""
    model = timm.create_model("test_resnet").eval()
    macs = []

    def count(layer: Any, _: Any, output: Tensor) -> None:
        height, width = output.shape[2:]
        macs.append(height * width * layer.weight.numel())

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        model(torch.zeros(1, 3, 96, 96))
    assert tiny().spec.macs_per_row == count_macs(StreamRequest("a", "timm:test_resnet", 96)) == sum(macs)


# ------------------------------------------------------------------------------------------------------ weights


@pytest.mark.slow
def test_random_weights_are_told_by_their_seed() -> None:
    state = torch.random.get_rng_state()
    again, other = build(), build(weights="random:1")
    assert torch.equal(state, torch.random.get_rng_state())  # nobody else's randomness is touched
    assert again.spec == tiny().spec
    assert again.spec.weights == "random:0"
    assert other.spec.weights_digest != tiny().spec.weights_digest
    frame = torch.from_numpy(picture(96, 96)[None])
    assert torch.equal(again(frame)[0], tiny()(frame)[0])
    assert not torch.equal(other(frame)[0], tiny()(frame)[0])


@pytest.mark.parametrize(
    "weights", ["random", "random:", "random:-1", "random:x", "random:²", "random:" + "9" * 40]
)
def test_random_needs_a_seed(weights: str) -> None:
    with pytest.raises(UserError, match="say which seed"):
        build(weights=weights)


def trained(classes: int = 7) -> Any:
    torch.manual_seed(5)
    return timm.create_model("test_resnet", num_classes=classes)


@pytest.mark.slow
def test_weights_from_a_file(tmp_path: Path) -> None:
    model = trained()
    names = [f"action {i}" for i in range(7)]
    path = tmp_path / "mine.safetensors"
    save_file(model.state_dict(), path, metadata={"classes": json.dumps(names)})
    backbone = build(weights=str(path))
    assert backbone.spec.weights == "file"
    assert backbone.spec.classes == tuple(names)
    assert backbone.spec.num_classes == 7
    assert backbone.spec.weights_digest == weights_digest(model)


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "lightning-like"])
def test_weights_from_a_checkpoint(tmp_path: Path, wrap: str) -> None:
    model = trained()
    state = {f"module.{name}" if wrap == "state_dict" else name: v for name, v in model.state_dict().items()}
    content = {
        "plain": state,
        "state_dict": {"epoch": 3, "state_dict": state},
        "model": {"model": state, "optimizer": {"lr": 0.1}},
        "lightning-like": {"model": {"state_dict": state}, "step": torch.tensor(3)},
    }[wrap]
    path = tmp_path / "mine.pth"
    torch.save(content, path)
    if wrap == "lightning-like":
        with pytest.raises(UserError, match=r"mine\.pth"):
            build(weights=str(path))
        return
    spec = build(weights=str(path)).spec
    assert (spec.weights_digest, spec.num_classes, spec.classes) == (weights_digest(model), 7, None)


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_convnext").state_dict(), path)
    with pytest.raises(
        UserError,
        match=r"other\.safetensors: .* other names: it has head\.\S+, .* and \d+ more; conv1\.\S+, .* and "
        r"\d+ more are wanted; docs/extracting\.md#weights-by-other-names",
    ):
        build(weights=str(path))
    state = trained().state_dict()
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("conv1.")}, path)
    with pytest.raises(UserError, match=r"weights of another network: lacks conv1\.\S+"):
        build(weights=str(path))
    extra = {**state, "alien.weight": torch.zeros(3)}
    save_file(extra, path)
    with pytest.raises(UserError, match=r"has unknown alien\.weight"):
        build(weights=str(path))
    wide = next(name for name, tensor in state.items() if tensor.ndim == 4)
    save_file({**state, wide: torch.zeros(1, 2, 3, 3)}, path)
    with pytest.raises(UserError, match=rf"does not fit: {wide} is \(1, 2, 3, 3\), not"):
        build(weights=str(path))


class Bomb:
    """Unpickling it touches a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "it ran"
    path = tmp_path / "evil.pth"
    content = {"state_dict": trained().state_dict(), "hyper": Bomb(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"evil\.pth: refused: .* could run code") as caught:
        build(weights=str(path))
    assert "\n" not in str(caught.value)
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(UserError, match=r"evil\.pkl"):
        build(weights=str(tmp_path / "evil.pkl"))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.weights"])
@pytest.mark.parametrize("content", ["empty", "text", "noise", "cut", "folder", "missing", "list", "number"])
def test_files_that_hold_no_weights(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    if content == "cut":
        (save_file if name.endswith("safetensors") else torch.save)(trained().state_dict(), path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif content == "folder":
        path.mkdir()
    elif content in ("list", "number"):
        torch.save([1, 2] if content == "list" else 3, path)
    elif content != "missing":
        path.write_bytes(
            {"empty": b"", "text": b"these are words\n" * 50, "noise": np.random.default_rng(1).bytes(3000)}[
                content
            ]
        )
    with pytest.raises(UserError, match=name.replace(".", r"\.")) as caught:
        build(weights=str(path))
    assert "\n" not in str(caught.value)


def test_classes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    names = ["a", "crane", "b", "crane", "c", "d", "a"]
    save_file(trained().state_dict(), path, metadata={"classes": json.dumps(names)})
    cranes = ("crane (column 1)", "crane (column 3)")
    assert build(weights=str(path)).spec.classes == (
        *("a (column 0)", cranes[0], "b", cranes[1], "c", "d"),
        "a (column 6)",
    )


@pytest.mark.parametrize("classes", ["not json", '["too", "few"]', '"word"', "[1, 2, 3, 4, 5, 6, 7]", "3"])
def test_class_names_that_do_not_fit(tmp_path: Path, classes: str) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(trained().state_dict(), path, metadata={"classes": classes})
    with pytest.raises(UserError, match=r"mine\.safetensors"):
        build(weights=str(path))


def test_pretrained_without_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(
        UserError, match=r"pretrained weights of test_resnet cannot be had .*--weights"
    ) as caught:
        build(weights="pretrained")
    assert "\n" not in str(caught.value) and "touched" not in str(caught.value)


def test_weights_of_a_repository_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the hub's folder of downloads, as its client lays it out."""
    import huggingface_hub.constants

    torch.manual_seed(9)
    model = timm.create_model("test_resnet", num_classes=5)
    folder = tmp_path / "models--somebody--test_resnet.mine"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("0" * 40)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    config = {"architecture": "test_resnet", "num_classes": 5, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (snapshot / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    stream = "timm:hf-hub:somebody/test_resnet.mine@64"
    assert parse_stream(stream) == parse_stream(stream.removeprefix("timm:"))
    spec = build(stream, "pretrained").spec
    assert (spec.name, spec.weights) == ("test_resnet.mine_64", "pretrained:hf-hub:somebody/test_resnet.mine")
    assert (spec.weights_digest, spec.num_classes) == (weights_digest(model), 5)
    assert spec.preprocessing.mean == (0.1, 0.2, 0.3)
    with pytest.raises(
        UserError, match=r"hf-hub:nobody/nothing cannot be had \(.*config\.json of a network of timm"
    ) as caught:
        build("timm:hf-hub:nobody/nothing@64", "pretrained")
    assert "\n" not in str(caught.value)


def test_a_hub_out_of_reach_is_told_without_retries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    tries: list[object] = []

    def no_network(*place: object, **_: object) -> None:
        tries.append(place[0])
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waits for another try"))
    reason = r"cannot be had \(huggingface\.co cannot be reached: Name or service not known\)"
    with pytest.raises(UserError, match=f"pretrained weights of test_resnet {reason}"):
        build(weights="pretrained")
    assert len(tries) == 1
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False  # it may be back when it is tried again


def test_a_firewall_that_swallows_packets_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer(*_: object, **__: object) -> list[object]:
        Event().wait(1)
        return []

    monkeypatch.setattr(downloads, "PATIENCE_S", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", no_answer)
    with pytest.raises(OSError, match=r"weights\.test cannot be reached: no answer within 0\.05 s"):
        downloads.require_connection("https://weights.test/a.pth")


def test_behind_a_proxy_it_is_the_proxy_that_must_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        downloads.require_connection("https://weights.test/a.pth")
    with pytest.raises(OSError, match=r"127\.0\.0\.1 cannot be reached"):
        downloads.require_connection("https://weights.test/a.pth")


# -------------------------------------------------------------------------------------------------- the registry


def test_stream_names() -> None:
    assert parse_stream("resnet101_224") == StreamRequest("resnet101_224", "timm:resnet101", 224)
    assert parse_stream("timm:resnet18@160").name == "resnet18_160"
    assert parse_stream("mobilenetv2_112", fps=2).name == "mobilenetv2_112@2fps"
    assert parse_stream("timm:resnet18@160", fps=0.5) == StreamRequest(
        "resnet18_160@0.5fps", "timm:resnet18", 160, Sampling(fps=0.5)
    )
    for unknown in (
        "resnet101",
        "",
        "timm:resnet18",
        "timm:resnet18@0",
        "timm:a/b@224",
        "timm:@224",
        "timm:é@224",
    ):
        with pytest.raises(UserError, match="unknown stream"):
            parse_stream(unknown)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="--fps"):
            parse_stream("resnet101_224", fps=fps)


def test_the_names_that_a_stream_goes_by() -> None:
    seen = Preprocessing(73, 64, "bicubic", (0.5,) * 3, (0.5,) * 3)
    specs = {
        name: make_spec(name, backbone=f"timm:{network}", preprocessing=replace(seen, crop=size))
        for name, network, size in (
            ("a_64", "a", 64),
            ("a_64@2fps", "a", 64),
            ("b_64@2fps", "b", 64),
            ("c", "c", 32),
        )
    }
    names = names_of(specs)
    assert names == {
        **{name: name for name in specs},  # not timm:a@64, which could be either
        **{"b_64": "b_64@2fps", "timm:b@64": "b_64@2fps", "timm:c@32": "c"},
    }
    assert weights_by_stream(["random:1", "b_64=random:2", "timm:c@32=random:3"], names) == {
        **{"a_64": "random:1", "a_64@2fps": "random:1", "b_64@2fps": "random:2", "c": "random:3"}
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "stream", ["timm:resnet999@224", "timm:test_vit@101", "timm:vgg11@8", "timm:inception_v3@20"]
)
def test_networks_that_cannot_be_had(stream: str) -> None:
    with pytest.raises(UserError) as caught:
        build(stream)
    assert "\n" not in str(caught.value) and stream.split(":")[1].split("@", maxsplit=1)[0] in str(
        caught.value
    )


# ---------------------------------------------------------------------------------------------------- batching


class Echo:
    """Stands in for a Backbone: a row is the first pixel of its frame."""

    device = CPU

    class view:
        row_shape = (1, 1, 3)
        dtype = np.dtype(np.uint8)

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: set[int] = set()

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.batches.append(len(pixels))
        self.threads.add(torch.get_num_threads())
        return pixels[:, 0, 0, :2].float(), pixels[:, 0, 0, 2:].float()


@pytest.fixture(scope="module")
def torch_threads() -> Iterator[None]:
    """Gives torch its threads back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("torch_threads")
@settings(max_examples=80)
@given(
    size=st.integers(1, 9),
    threads=st.integers(1, 4),
    videos=st.lists(st.lists(st.integers(1, 12), max_size=4), max_size=5),
)
def test_any_split_of_frames_gives_every_row_once(size: int, threads: int, videos: list[list[int]]) -> None:
    """`videos`: for each, how many frames each `add` brings."""
    torch.set_num_threads(threads)
    backbone = Echo()
    batcher = Batcher(backbone, size)  # type: ignore[arg-type]
    random = np.random.default_rng(0)
    frames = {
        i: random.integers(0, 256, (sum(parts), 1, 1, 3), dtype=np.uint8) for i, parts in enumerate(videos)
    }
    found = {i: np.full((sum(parts), 3), -1.0) for i, parts in enumerate(videos)}
    seen = dict.fromkeys(frames, 0)

    def keep(rows: Any) -> None:
        assert rows.first_row == seen[rows.owner]  # in order, none twice
        seen[rows.owner] += len(rows.features)
        found[rows.owner][rows.first_row : seen[rows.owner]] = np.hstack([rows.features, rows.scores])

    for i, parts in enumerate(videos):
        at = 0
        for count in parts:
            for rows in batcher.add(i, at, frames[i][at : at + count]):
                keep(rows)
            at += count
    for rows in batcher.flush():
        keep(rows)
    for i in frames:
        assert np.array_equal(found[i], frames[i][:, 0, 0])
    total = sum(map(len, frames.values()))
    # Always full, none more than needed; every thread has an equal part of a batch, and of torch's threads.
    shares = min(threads, size)
    part = -(-size // shares)
    assert backbone.batches == [part] * shares * -(-total // (shares * part))
    assert backbone.threads <= {threads // shares} and torch.get_num_threads() == threads
