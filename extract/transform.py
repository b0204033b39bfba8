"""A decoded frame to a network's input pixels, as timm's evaluation transform does it, in uint8."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cache_schema import Preprocessing

UInt8Array = npt.NDArray[np.uint8]

_FILTERS: dict[str, Any] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}


def resize_and_crop(frame: UInt8Array, preprocessing: Preprocessing, place: int = 1) -> UInt8Array:
    """Resize the short side, cut out a square.

    Args:
        frame: (H, W, 3).
        place: where on the long side: 0 at its start (left or top), 1 in its middle, 2 at its end.

    Returns:
        (crop, crop, 3).
    """
    height, width = frame.shape[:2]
    resize, crop = preprocessing.resize, preprocessing.crop
    # torchvision's Resize: the long side is rounded down; its CenterCrop rounds half to even.
    if width <= height:
        new_width, new_height = resize, int(resize * height / width)
    else:
        new_width, new_height = int(resize * width / height), resize
    left, top = round((new_width - crop) / 2), round((new_height - crop) / 2)
    if place != 1 and new_width != new_height:
        end = max(new_width, new_height) - crop
        left, top = (left, end * place // 2) if height > width else (end * place // 2, top)
    # Only the pixels of the crop are computed: `box` is where it lies in the frame.
    scale_x, scale_y = width / new_width, height / new_height
    box = (left * scale_x, top * scale_y, (left + crop) * scale_x, (top + crop) * scale_y)
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize((crop, crop), _FILTERS[preprocessing.interpolation], box=box))


def resize_short_side(frame: UInt8Array, preprocessing: Preprocessing) -> UInt8Array:
    """The whole frame (H, W, 3), its short side resized: what flow is computed on."""
    height, width = frame.shape[:2]
    scale = preprocessing.resize / min(height, width)
    size = max(preprocessing.resize, int(width * scale)), max(preprocessing.resize, int(height * scale))
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize(size, _FILTERS[preprocessing.interpolation]))
