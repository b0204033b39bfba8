"""The registry: which network a stream's name stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cache_schema import UserError
from cache_schema.schema import check_stream_name


@dataclass(frozen=True)
class StreamRequest:
    """A 2-D backbone at a resolution and a sampling rate, by the name its stream has in the cache."""

    name: str
    timm_name: str
    size: int
    fps: float = 1.0


BUILT_IN: Mapping[str, tuple[str, int]] = {
    "mobilenetv2_112": ("mobilenetv2_100", 112),
    "resnet101_224": ("resnet101", 224),
    "dpn107_224": ("dpn107", 224),
    "efficientnet_b0_224": ("efficientnet_b0", 224),
}

MAX_FPS = 1000.0

_TIMM = re.compile(r"timm:(?P<name>.+)@(?P<size>[1-9]\d*)")


def parse_stream(text: str, *, fps: float = 1.0) -> StreamRequest:
    """The stream that a user names: a built-in one, or timm:NAME@SIZE.

    The stream of timm:NAME@SIZE is called NAME_SIZE; a rate other than one frame a second is added to
    the name: resnet101_224@2fps.

    Raises:
        UserError: no such stream, or a rate that is not positive.
    """
    if not 0 < fps <= MAX_FPS:
        raise UserError(f"--fps {fps:g}: the rate must be above 0 and at most {MAX_FPS:g}")
    if text in BUILT_IN:
        name, (timm_name, size) = text, BUILT_IN[text]
    elif match := _TIMM.fullmatch(text):
        timm_name, size = match["name"], int(match["size"])
        name = f"{timm_name}_{size}"
    else:
        raise UserError(
            f"unknown stream {text!r}: use {', '.join(BUILT_IN)}, or timm:NAME@SIZE such as timm:resnet18@224"
        )
    name = name if fps == 1.0 else f"{name}@{fps:g}fps"
    try:
        check_stream_name(name)
    except ValueError as error:
        raise UserError(f"unknown stream {text!r}: {error}") from error
    return StreamRequest(name, timm_name, size, fps)
