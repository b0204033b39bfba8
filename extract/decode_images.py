"""Frames of a folder of numbered pictures, as a video of these pictures would show them.

Each picture is turned upright (EXIF) and into RGB: grey and palettes are expanded, of 16 bits the upper 8 kept,
transparency is dropped, as encoders of videos do. Pictures of different sizes keep them.

What is detected: pictures that are cut off or empty; any damage to a PNG, which has checksums; in JPEG what
libav's decoder notices, as in a video of the codec MJPEG (Pillow's own takes a hole of zeros for a picture). In
WebP, TIFF and what is not compressed little else, for want of checksums.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cache_schema.files import printable
from extract.decode_index import complaints, heard
from extract.decode_packets import Findings, VideoError
from extract.decode_video import Video
from extract.frame_folders import frame_names, gaps

# By content, whatever the name; not all that Pillow knows, for some of which it runs other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "TGA", "JPEG2000")
# What libav says where the codes of a picture are wrong; not of metadata, which many cameras write wrong.
_WRONG_CODES = re.compile(r"error y=|error count|error dc|overread|bad vlc")


class FrameFolder(Video):
    """A folder of pictures, `frames_fps` of them a second. Made by `extract.decode.read_video`.

    Raises VideoError where the folder cannot be read, or where it cannot be told which pictures are its frames.
    """

    def __init__(self, folder: Path, *, frames_fps: float, findings: Findings) -> None:
        try:
            names = frame_names(folder)
        except OSError as error:
            raise VideoError(error.strerror or error) from error
        super().__init__(
            np.arange(len(names)) / frames_fps, duration_s=len(names) / frames_fps, findings=findings
        )
        self.decoder = "images"
        self._folder = folder
        self._names = list(names.values())
        if missing := gaps(list(names)):
            findings.remark(
                f"numbers are missing, first after {printable(names[missing[0]])} ({len(missing)} gaps); the "
                "pictures are shown one after another all the same"
            )

    def frames(self, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint8] | None]:
        """As `Video.frames`; reads the pictures asked for and no other."""
        for number in numbers.tolist():
            try:
                picture = self._picture(number)
            except VideoError as error:
                self._findings.refuse(error)
                yield None
            else:
                yield picture

    def _picture(self, number: int) -> NDArray[np.uint8]:
        name = self._names[number]
        try:
            content = (self._folder / name).read_bytes()
        except OSError as error:
            raise VideoError(f"{printable(name)}: {error.strerror or error}") from error
        if not content:
            raise VideoError(f"{printable(name)}: empty file")
        try:
            return _decoded(content)
        except VideoError as error:
            raise VideoError(f"{printable(name)}: {error}") from error


def _decoded(content: bytes) -> NDArray[np.uint8]:
    """A picture as RGB (H, W, 3), upright. Raises VideoError where it is damaged or no picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures, and of metadata
        try:
            image: Any = Image.open(io.BytesIO(content), formats=_FORMATS)
            image.load()
            rgb = _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
        except UnidentifiedImageError as error:
            raise VideoError("not a picture, or damaged") from error
        except Exception as error:  # Pillow raises nearly every kind for damage in one format or another
            raise VideoError(f"damaged: {error}") from error
    if image.format in ("JPEG", "MPO") and (complaint := _complaint(content)) is not None:
        raise VideoError(f"damaged: {complaint}")
    return np.asarray(rgb)


def _eight_bits(image: Any) -> Any:
    """A grey picture of 16 bits with 8 of them: conversion to RGB would cut off all that is brighter than 255."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        raise ValueError("more than 16 bits a pixel")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _complaint(jpeg: bytes) -> str | None:
    """What libav finds wrong with the codes of a JPEG. Where it cannot read the kind at all, it has no say."""
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    with heard() as logs, contextlib.suppress(av.FFmpegError):
        decoder.decode(av.Packet(jpeg))
    return next((error for error in complaints(logs) if _WRONG_CODES.search(error)), None)
