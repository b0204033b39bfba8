"""Encoded videos whose frames say which frame they are: for tests, benchmarks and the demo.

A frame carries its number as a row of black and white squares, wide enough to survive lossy coding and chroma
subsampling, so that a test can ask *which* frame a decoder returned and not only how many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise, repeat
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

NUMBER_BITS = 12
_TICKS_PER_SECOND = 90_000  # divides the usual rates, NTSC's 30000/1001 included
_AUDIO_RATE_HZ = 16_000


def numbered_frames(
    count: int, *, width: int = 192, height: int = 128, first: int = 0
) -> Iterator[NDArray[np.uint8]]:
    """Yield `count` RGB frames (height, width, 3), each painted with its own number, `first` onwards.

    The top half holds the code (most significant bit left); the bottom half is a moving gradient, so that the
    frames cost a codec something and cropping or turning them shows. Width must leave 4 pixels for each bit.
    """
    if width < 4 * NUMBER_BITS or height < 8:
        raise ValueError(f"{width}x{height} is too small for {NUMBER_BITS} legible bits")
    for number in range(first, first + count):
        frame = np.empty((height, width, 3), np.uint8)
        frame[..., 0] = (np.arange(width) * 255 // width)[None, :]
        frame[..., 1] = (np.arange(height) * 255 // height)[:, None]
        frame[..., 2] = (number * 5) % 256
        bits = [(number >> bit) & 1 for bit in reversed(range(NUMBER_BITS))]
        edges = np.linspace(0, width, NUMBER_BITS + 1).astype(int)
        for bit, left, right in zip(bits, edges[:-1], edges[1:], strict=True):
            frame[: height // 2, left:right] = 235 if bit else 20
        yield frame


def noisy_frames(count: int, *, width: int = 192, height: int = 128) -> list[NDArray[np.uint8]]:
    """Numbered frames with noise: their packets are long, as those of camera pictures are."""
    random = np.random.default_rng(3)
    return [
        np.clip(frame + random.integers(-12, 12, frame.shape), 0, 255).astype(np.uint8)
        for frame in numbered_frames(count, width=width, height=height)
    ]


def read_frame_number(frame: NDArray[np.uint8]) -> int:
    """Return the number that `numbered_frames` painted on an upright frame (H, W, 3), after any lossy coding.

    Raises ValueError where a square is neither dark nor bright: the frame is damaged, or not upright.
    """
    height, width = frame.shape[:2]
    edges = np.linspace(0, width, NUMBER_BITS + 1)
    number = 0
    for left, right in pairwise(edges):
        # The middle of the square: coding artefacts gather at its edges.
        margin = (right - left) / 4
        square = frame[height // 8 : 3 * height // 8, round(left + margin) : max(round(right - margin), 1)]
        level = float(square.mean())
        if 90 < level < 165:
            raise ValueError(f"a grey square ({level:.0f}): not a numbered frame")
        number = 2 * number + int(level > 128)
    return number


def write_video(
    path: Path | str,
    frames: Iterable[NDArray[np.uint8]],
    *,
    fps: Fraction | float,
    codec: str = "libx264",
    pts: Iterable[float] | None = None,
    container: str | None = None,
    pix_fmt: str = "yuv420p",
    gop: int = 48,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    audio_s: float | None = None,
) -> None:
    """Encode RGB frames (H, W, 3) to `path`.

    `fps` is the nominal rate; `pts` gives each frame its own instant in seconds instead (a variable rate).
    `container` is libav's name of the format where the file name does not tell it. `gop` is the number of
    frames between key frames. `options` go to the encoder (preset "superfast" for libx264, its fastest with the
    entropy coding that most videos have; "ultrafast" for libx265), `container_options` to the muxer. `audio_s`
    adds that many seconds of a quiet tone (AAC; PCM in AVI).
    """
    rate = Fraction(fps).limit_denominator(1001)
    # Codecs that take only whole ticks of the rate (MPEG-4, MJPEG) get them; `pts` need a fine clock.
    time_base = 1 / rate if pts is None else Fraction(1, _TICKS_PER_SECOND)
    instants = repeat(None) if pts is None else pts
    encoder_options = dict(options or {})
    if codec == "libx264":
        encoder_options.setdefault("preset", "superfast")
    if codec == "libx265":
        encoder_options.setdefault("preset", "ultrafast")
        encoder_options.setdefault("x265-params", "log-level=none")
    muxer_options = {
        "fflags": "+bitexact",
        **(container_options or {}),
    }  # else Matroska has random numbers in it
    with av.open(str(path), "w", format=container, options=muxer_options) as output:
        stream = None
        sound = None
        if audio_s is not None:
            audio_codec = "pcm_s16le" if output.format.name == "avi" else "aac"
            sound = output.add_stream(audio_codec, rate=_AUDIO_RATE_HZ)
        for number, (frame, instant) in enumerate(zip(frames, instants, strict=False)):
            if stream is None:
                stream = output.add_stream(codec, rate=rate, options=encoder_options)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = pix_fmt
                stream.gop_size = gop
                stream.codec_context.time_base = time_base
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.time_base = time_base
            picture.pts = number if instant is None else round(instant / time_base)
            output.mux(stream.encode(picture))
        if stream is not None:
            output.mux(stream.encode(None))
        if sound is not None and audio_s is not None:
            for chunk in _tone(audio_s):
                output.mux(sound.encode(chunk))
            output.mux(sound.encode(None))


def write_audio(path: Path | str, *, duration_s: float, container: str | None = None) -> None:
    """Write a file that holds a tone and no picture."""
    write_video(path, (), fps=1, audio_s=duration_s, container=container)


def _tone(duration_s: float) -> Iterator[av.AudioFrame]:
    """Yield a 440 Hz tone, mono, 16-bit, in frames of 1024 samples."""
    total = round(duration_s * _AUDIO_RATE_HZ)
    for start in range(0, total, 1024):
        instants = np.arange(start, min(start + 1024, total)) / _AUDIO_RATE_HZ
        samples = (2000 * np.sin(2 * np.pi * 440 * instants)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = _AUDIO_RATE_HZ
        frame.pts = start
        frame.time_base = Fraction(1, _AUDIO_RATE_HZ)
        yield frame


def rotate_mp4(path: Path, degrees: int) -> None:
    """Rewrite the display matrix of an MP4 or MOV so that players turn the picture clockwise by `degrees`.

    The matrix is the nine 32-bit numbers at byte 40 of a version-0 `tkhd` box (ISO/IEC 14496-12, 8.3.2).
    Raises ValueError for an angle that is no quarter turn, or a file without such a box.
    """
    cos_sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}
    if degrees not in cos_sin:
        raise ValueError(f"rotation of {degrees} degrees: only 0, 90, 180 and 270 are quarter turns")
    cos, sin = cos_sin[degrees]
    one = 1 << 16  # 16.16 fixed point
    matrix = [cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30]
    content = bytearray(path.read_bytes())
    box = content.find(b"tkhd")
    if box < 0 or content[box + 4] != 0:
        raise ValueError(f"{path.name}: no version-0 tkhd box")
    _put(content, box + 44, matrix)
    path.write_bytes(content)


def media_data(path: Path) -> tuple[int, int]:
    """Return the first and last byte of the MP4's mdat box."""
    content = path.read_bytes()
    at = content.find(b"mdat")
    return at + 4, at - 4 + int.from_bytes(content[at - 4 : at], "big")


def _put(content: bytearray, at: int, numbers: Sequence[int]) -> None:
    for index, number in enumerate(numbers):
        content[at + 4 * index : at + 4 * index + 4] = number.to_bytes(4, "big", signed=True)
