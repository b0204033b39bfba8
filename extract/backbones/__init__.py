"""The registry: which network a stream's name stands for, and what it sees of a video."""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

from cache_schema import Sampling, StreamSpec, UserError
from cache_schema.files import StrPath
from cache_schema.names import did_you_mean
from cache_schema.schema import check_stream_name

FAMILIES: Mapping[str, str] = {
    "timm": "timm2d",
    "torchvision": "torchvision_models",
    "transformers": "hugging_face",
    **dict.fromkeys(("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"), "lite"),
    **dict.fromkeys(("x3d_xs", "x3d_s", "x3d_m", "x3d_l"), "video3d"),
    **dict.fromkeys(("slowfast_8x8", "i3d_rgb", "i3d_flow"), "video3d"),
}
"""By network (or what stands before its colon) the module of this folder that has it."""


def is_known(network: str) -> bool:
    """Whether there is a family for such a network."""
    return network.partition(":")[0] in FAMILIES


def family_of(network: str) -> ModuleType:
    """The module that has a network: its `build` and `count_macs` take a StreamRequest."""
    return import_module(f"{__name__}.{FAMILIES[network.partition(':')[0]]}")


@dataclass(frozen=True)
class StreamRequest:
    """A network, its input and its sampling, by the name that their stream has in the cache.

    network: one of FAMILIES, such as "timm:NAME" or "x3d_xs".
    size: pixels along each side of the network's input.
    resize: pixels of the short side before that is cut out; None: as the network's own configuration says.
    flow: how optical flow is estimated, where it is the input.
    folder: of a network of transformers from a folder that is not where `network` says any more: where it is.
    """

    name: str
    network: str
    size: int
    sampling: Sampling = field(default_factory=Sampling)
    resize: int | None = None
    flow: str | None = None
    folder: str | None = None


def moved(request: StreamRequest, backbone: str) -> StreamRequest:
    """The request for a network from a folder, of which a stream says that it was elsewhere, as that stream's.

    Whether it is the same network its weights say.

    Args:
        backbone: of the stream.
    """
    there, here = Path(backbone), Path(request.network)
    is_folder = backbone.startswith("transformers:/") and request.network.startswith("transformers:/")
    if not is_folder or there == here or there.name != here.name:
        return request
    return replace(request, network=backbone, folder=request.network.partition(":")[2])


def _frames(timm_name: str, size: int) -> StreamRequest:
    return StreamRequest("", f"timm:{timm_name}", size)


def _clips(network: str, size: int, resize: int, *, frames: int, stride: int) -> StreamRequest:
    # The test protocol of X3D: 10 clips a video, one central crop of the size trained on; 30 frames a second,
    # as in Kinetics (https://github.com/facebookresearch/SlowFast/blob/main/configs/Kinetics/X3D_M.yaml).
    sampling = Sampling("clips", fps=30.0, frames=frames, window=frames * stride, clips=10)
    return StreamRequest("", network, size, sampling, resize)


def _dense16(
    network: str, size: int, resize: int, *, frames: int = 16, flow: str | None = None
) -> StreamRequest:
    """Clips of 16 frames at 25 a second, end to end, of which the network sees so many, evenly spread."""
    return StreamRequest(
        "", network, size, Sampling("dense", fps=25.0, frames=frames, window=16), resize, flow
    )


BUILT_IN: Mapping[str, StreamRequest] = {
    name: replace(request, name=name)
    for name, request in {
        "mobilenetv2_112": _frames("mobilenetv2_100", 112),
        "resnet101_224": _frames("resnet101", 224),
        "dpn107_224": _frames("dpn107", 224),
        "efficientnet_b0_224": _frames("efficientnet_b0", 224),
        "efficientnet_lite0_112": StreamRequest("", "efficientnet_lite0", 112, resize=128),
        "efficientnet_lite1_240": StreamRequest("", "efficientnet_lite1", 240, resize=272),
        "efficientnet_lite2_260": StreamRequest("", "efficientnet_lite2", 260, resize=292),
        "slowfast_8x8_256": StreamRequest(
            "",
            "slowfast_8x8",
            256,
            Sampling("snippets", fps=30.0, frames=32, window=64, rows_per_s=1.0),
            256,
        ),
        "x3d_xs": _clips("x3d_xs", 160, 182, frames=4, stride=12),
        "x3d_s": _clips("x3d_s", 160, 182, frames=13, stride=6),
        "x3d_m": _clips("x3d_m", 224, 256, frames=16, stride=5),
        "x3d_l": _clips("x3d_l", 312, 356, frames=16, stride=5),
        "x3d_xs_dense16": _dense16("x3d_xs", 160, 182, frames=4),
        "x3d_s_dense16": _dense16("x3d_s", 160, 182, frames=13),
        "x3d_m_dense16": _dense16("x3d_m", 224, 256),
        "x3d_l_dense16": _dense16("x3d_l", 312, 356),
        "i3d_rgb_dense16": _dense16("i3d_rgb", 224, 256),
        "i3d_flow_dense16": _dense16("i3d_flow", 224, 256, flow="tvl1"),
    }.items()
}

# Of torchvision's networks of clips: frames, how many a second, the size of the input and the short side before,
# as its weights were tested (https://docs.pytorch.org/vision/stable/models.html#video-classification).
_TORCHVISION_CLIPS: Mapping[str, tuple[int, float, int, int]] = {
    **dict.fromkeys(("mvit_v1_b", "mvit_v2_s"), (16, 7.5, 224, 256)),
    **dict.fromkeys(("swin3d_t", "swin3d_s", "swin3d_b"), (32, 15.0, 224, 256)),
    **dict.fromkeys(("r3d_18", "mc3_18", "r2plus1d_18"), (16, 15.0, 112, 128)),
    "s3d": (128, 15.0, 224, 256),
}

FLOWS = ("tvl1", "dis", "raft_large", "raft_small")

MAX_FPS = 1000.0
SIZES = range(32, 1025)
"""Pixels; below, the last layers of these networks have nothing left to see."""

_TIMM = re.compile(r"(timm:|(?=hf-hub:))(?P<name>(?P<hub>hf-hub:([^/]+/)?)?.+)@(?P<size>[1-9]\d*)")
_TORCHVISION = re.compile(r"torchvision:(?P<name>\w+)(@(?P<size>[1-9]\d*))?")


def parse_stream(
    text: str,
    *,
    fps: float | None = None,
    clips: int | None = None,
    crops: int | None = None,
    flow: str | None = None,
    size: int | None = None,
) -> StreamRequest:
    """The stream that a user names: a built-in one, timm:NAME@SIZE, torchvision:NAME[@SIZE] or
    transformers:REPOSITORY.

    The stream of timm:NAME@SIZE is called NAME_SIZE, as that of timm:hf-hub:OWNER/NAME@SIZE, a repository of the
    hub that timm can read; that of torchvision:NAME is torchvision_NAME_SIZE.
    Where something else than usual is asked for, the name says so: resnet101_224@2fps, x3d_m@3clips, x3d_m@3crops,
    i3d_flow_dense16@dis, i3d_flow_dense16@112px.

    Args:
        fps: rows a second, of frames and snippets; 1 where not given.
        clips: clips a video, 10 where not given; and
        crops: 1 or 3, of the streams that spread clips over a video. Three crops are of the size that the
            network is tested at (182 for one trained at 160), as in its protocol.
        flow: one of FLOWS, of the stream whose input is optical flow.
        size: pixels along each side of the input, of networks that see clips; the short side of the frame is
            resized in proportion.

    Raises:
        UserError: no such stream, or one to which an option does not apply.
    """
    if text in BUILT_IN:
        request = BUILT_IN[text]
    elif match := _TIMM.fullmatch(text):
        short = match["name"].removeprefix(match["hub"] or "")
        request = StreamRequest(f"{short}_{match['size']}", f"timm:{match['name']}", int(match["size"]))
    elif text.startswith("transformers:"):
        request = import_module(f"{__name__}.hugging_face").request_for(text.partition(":")[2])
    elif match := _TORCHVISION.fullmatch(text):
        request = _of_torchvision(text, match["name"], int(match["size"] or 0))
    else:
        raise UserError(
            f"unknown stream {text!r}: use {', '.join(BUILT_IN)}, timm:NAME@SIZE such as timm:resnet18@224, or "
            f"torchvision:NAME of {', '.join(_TORCHVISION_CLIPS)}, torchvision:NAME@SIZE of its networks of "
            f"frames, or transformers:REPOSITORY{did_you_mean(text, BUILT_IN)}"
        )
    request = _at_size(request, size)
    request = _at_rate(request, fps)
    request = _with_clips(request, clips)
    request = _with_crops(request, crops)
    request = _with_flow(request, flow)
    try:
        check_stream_name(request.name)
    except ValueError as error:
        raise UserError(f"unknown stream {text!r}: {error}") from error
    return request


def _of_torchvision(text: str, name: str, size: int) -> StreamRequest:
    if name in _TORCHVISION_CLIPS:
        frames, fps, usual, resize = _TORCHVISION_CLIPS[name]
        size = size or usual
        sampling = Sampling("clips", fps=fps, frames=frames, window=frames, clips=10)
        short_side: int | None = resize * size // usual
    elif size:
        sampling, short_side = Sampling(), None
    else:
        raise UserError(f"unknown stream {text!r}: say at which size, as in {text}@224")
    return StreamRequest(f"torchvision_{name}_{size}", f"torchvision:{name}", size, sampling, short_side)


def _at_size(request: StreamRequest, size: int | None) -> StreamRequest:
    if size is None or request.resize is None or size == request.size:
        return request
    if size not in SIZES:
        raise UserError(f"--size {size}: from {SIZES[0]} to {SIZES[-1]} pixels")
    resize = round(request.resize * size / request.size)
    return replace(request, name=f"{request.name}@{size}px", size=size, resize=resize)


def _at_rate(request: StreamRequest, fps: float | None) -> StreamRequest:
    sampling = request.sampling
    if fps is None or sampling.kind not in ("frames", "snippets"):
        return request
    if not 0 < fps <= MAX_FPS:
        raise UserError(f"--fps {fps:g}: the rate must be above 0 and at most {MAX_FPS:g}")
    frames = sampling.kind == "frames"
    if fps == (sampling.fps if frames else sampling.rows_per_s):
        return request
    sampling = replace(sampling, fps=fps) if frames else replace(sampling, rows_per_s=fps)
    return replace(request, name=f"{request.name}@{fps:g}fps", sampling=sampling)


def _with_clips(request: StreamRequest, clips: int | None) -> StreamRequest:
    if clips is None or request.sampling.kind != "clips" or clips == request.sampling.clips:
        return request
    if clips < 1:
        raise UserError(f"--clips {clips}: at least one")
    sampling = replace(request.sampling, clips=clips)
    return replace(request, name=f"{request.name}@{clips}clips", sampling=sampling)


def _with_crops(request: StreamRequest, crops: int | None) -> StreamRequest:
    if crops is None or request.sampling.kind != "clips" or crops == 1:
        return request
    if crops != 3:
        raise UserError(f"--crops {crops}: 1 (the centre) or 3 (both ends too)")
    sampling = replace(request.sampling, crops=3)
    # The protocol's three crops are as high as the resized picture.
    return replace(
        request, name=f"{request.name}@3crops", sampling=sampling, size=request.resize or request.size
    )


def _with_flow(request: StreamRequest, flow: str | None) -> StreamRequest:
    if flow is None or request.flow is None or flow == request.flow:
        return request
    if flow not in FLOWS:
        raise UserError(f"--flow {flow}: use {', '.join(FLOWS)}")
    return replace(request, name=f"{request.name}@{flow}", flow=flow)


Weights = StrPath | Sequence[StrPath] | Mapping[str, StrPath]
"""Of all streams, or by stream: "pretrained", "random:SEED" or a file."""


def weight_words(weights: Weights) -> list[str]:
    """Weights as --weights takes them."""
    if isinstance(weights, Mapping):
        return [f"{stream}={os.fspath(value)}" for stream, value in weights.items()]
    if isinstance(weights, (str, os.PathLike)):
        return [os.fspath(weights)]
    return [os.fspath(value) for value in weights]


def weights_by_stream(weights: Sequence[str], streams: Mapping[str, str]) -> dict[str, str]:
    """STREAM=WEIGHTS for that stream, a plain WEIGHTS for the rest; streams for which none are given are left out.

    Args:
        streams: names of streams as a user may write them, each with the name that it stands for; the latter are
            understood, too.

    Raises:
        UserError: a STREAM is none of them, or WEIGHTS are a file that is not there.
    """
    names = tuple(dict.fromkeys(streams.values()))
    chosen: dict[str, str] = {}
    rest: dict[str, str] = {}
    for value in weights:
        stream, equals, given = value.partition("=")
        stream = streams.get(stream, stream)
        if equals and stream in names:
            chosen[stream] = given
        elif equals and not Path(value).exists():
            raise UserError(
                f"--weights {value}: {stream!r} is none of the streams asked for ({', '.join(names)})"
                f"{did_you_mean(stream, streams)}"
            )
        else:
            rest = dict.fromkeys(names, value)
    found = {**rest, **chosen}
    for value in found.values():  # before torch is imported for it
        if value not in ("pretrained", "random") and ":" not in value and not Path(value).exists():
            raise UserError(f"{value}: cannot read the weights: {os.strerror(errno.ENOENT)}")
    return found


def names_of(streams: Mapping[str, StreamSpec]) -> dict[str, str]:
    """By all names that a stream goes by, the one that it has in `streams`.

    Besides that one they are its name without what is unusual (resnet101_224 of resnet101_224@2fps) and, of timm
    and torchvision, that of --stream (timm:resnet18@224). A name that several streams go by is that of the one so
    called, or of none.
    """
    others = [
        (other, name)
        for name, spec in streams.items()
        for other in {name.partition("@")[0], f"{spec.backbone}@{spec.preprocessing.crop}"}
    ]
    times = Counter(other for other, _ in others)
    return {other: name for other, name in others if times[other] == 1} | {name: name for name in streams}


def absolute_weights(weights: str) -> str:
    """A file of weights by a path that other processes, wherever they were started, find it by."""
    return str(Path(weights).absolute()) if Path(weights).exists() else weights
