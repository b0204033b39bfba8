"""How much damage goes unnoticed? The figures that `extract/decode.py` quotes.

    python -m benchmarks.damage
    python -m benchmarks.damage --quick        # a smoke test of seconds

For each codec, three seconds of noisy video are damaged in one random place of the picture data, many times, and
sampled at one row a second. An outcome is *right* (the rows of the whole file, because no row needed what was
hit), *refused* (VideoError), or *wrong*: other rows passed for right; then the largest mean error of a row is
given, in grey levels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.videos import media_data, noisy_frames, write_video
from extract.decode import VideoError, open_video

CODECS: dict[str, dict[str, Any]] = {
    "H.264": {"options": {"preset": "veryfast", "bf": "3"}},
    "H.264 Baseline": {"options": {"preset": "ultrafast"}},
    "HEVC": {"codec": "libx265"},
    "MPEG-4": {"codec": "mpeg4"},
    "VP9": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
}


def flip_bit(content: bytearray, at: int, random: np.random.Generator) -> None:
    content[at] ^= 1 << int(random.integers(8))


def overwrite(content: bytearray, at: int, random: np.random.Generator) -> None:
    content[at : at + 200] = random.bytes(200)


def lose(content: bytearray, at: int, random: np.random.Generator) -> None:
    content[at : at + 2000] = bytes(2000)


DAMAGES: dict[str, Callable[[bytearray, int, np.random.Generator], None]] = {
    "one bit flipped": flip_bit,
    "200 random bytes": overwrite,
    "2000 zeros": lose,
}


def rows_of(path: Path) -> NDArray[np.uint8]:
    return np.concatenate([frames for _, frames in open_video(path, fps=1).chunks()])


@click.command(help=__doc__)
@click.option("--files", default=60, show_default=True, help="Damaged files of each kind.")
@click.option("--seed", default=11, show_default=True)
@click.option("--quick", is_flag=True, help="Three files of each kind.")
def main(*, files: int, seed: int, quick: bool) -> None:
    files = 3 if quick else files
    click.echo(f"{files} files of each kind")
    click.echo(f"{'codec':16}{'damage':18}{'right':>7}{'refused':>9}{'wrong':>7}{'largest error':>15}")
    with tempfile.TemporaryDirectory() as folder:
        for codec, how in CODECS.items():
            whole = Path(folder) / "whole.mp4"
            write_video(whole, noisy_frames(75), fps=25, gop=24, **how)
            for damage, harm in DAMAGES.items():
                random = np.random.default_rng(seed)
                errors = [harmed(whole, harm, random) for _ in range(files)]
                wrong = [error for error in errors if error]
                largest = f"{max(wrong):.2f}" if wrong else "–"
                counts = f"{errors.count(0.0):7}{errors.count(None):9}{len(wrong):7}"
                click.echo(f"{codec:16}{damage:18}{counts}{largest:>15}")


def harmed(
    whole: Path, harm: Callable[[bytearray, int, np.random.Generator], None], random: np.random.Generator
) -> float | None:
    """The largest mean error of a row, in grey levels, after one damage; None: it was noticed."""
    first, last = media_data(whole)
    content = bytearray(whole.read_bytes())
    harm(content, int(random.integers(first, last - 2000)), random)
    path = whole.with_name("damaged.mp4")
    path.write_bytes(content)
    try:
        rows = rows_of(path)
    except VideoError:
        return None
    right = rows_of(whole)
    if rows.shape != right.shape:
        return float("inf")
    return float(np.abs(rows.astype(np.int16) - right).mean(axis=(1, 2, 3)).max())


if __name__ == "__main__":
    main()
