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


def resize_and_crop(frame: UInt8Array, preprocessing: Preprocessing) -> UInt8Array:
    """Resize the short side, cut out the centre.

    Args:
        frame: (H, W, 3).

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
    # Only the pixels of the crop are computed: `box` is where it lies in the frame.
    scale_x, scale_y = width / new_width, height / new_height
    box = (left * scale_x, top * scale_y, (left + crop) * scale_x, (top + crop) * scale_y)
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize((crop, crop), _FILTERS[preprocessing.interpolation], box=box))


def transform_frames(frames: UInt8Array, preprocessing: Preprocessing) -> UInt8Array:
    """(n, H, W, 3) to (n, crop, crop, 3)."""
    return np.stack([resize_and_crop(frame, preprocessing) for frame in frames])
