"""How much damage goes unnoticed? The figures that `extract/decode.py` quotes.

    python -m benchmarks.damage
    python -m benchmarks.damage --quick        # a smoke test of seconds

For each codec, three seconds of noisy video are damaged in one random place of the picture data, many times, and
sampled at one row a second. An outcome is *right* (the rows of the whole file, because no row needed what was
hit), *refused* (VideoError), or *wrong*: other rows passed for right; "remarked" counts those of the right and the
wrong ones that came with a remark. The largest mean error of a wrong row is given in grey levels; "rows" where
another number of them was taken for all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import av
import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import markdown
from benchmarks.videos import noisy_frames, write_video
from extract.decode import VideoError, open_video

CODECS: dict[str, tuple[str, dict[str, Any]]] = {
    "H.264": ("mp4", {"options": {"preset": "veryfast", "bf": "3"}}),
    "H.264 Baseline": ("mp4", {"options": {"preset": "ultrafast"}}),
    "H.264 in TS": ("ts", {"options": {"preset": "veryfast", "bf": "3"}}),
    "HEVC": ("mp4", {"codec": "libx265"}),
    "MPEG-4": ("mp4", {"codec": "mpeg4"}),
    "MPEG-4 in AVI": ("avi", {"codec": "mpeg4", "options": {"bf": "2"}}),
    "MPEG-2 in TS": ("ts", {"codec": "mpeg2video", "options": {"bf": "2"}}),
    "VP9": ("webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    "AV1": ("mp4", {"codec": "libsvtav1", "options": {"preset": "12"}}),
}
Random = np.random.Generator


def flip_bit(content: bytearray, at: int, random: Random) -> None:
    content[at] ^= 1 << int(random.integers(8))


def overwrite(content: bytearray, at: int, random: Random) -> None:
    content[at : at + 200] = random.bytes(200)


def lose(content: bytearray, at: int, random: Random) -> None:
    content[at : at + 2000] = bytes(2000)


DAMAGES: dict[str, Callable[[bytearray, int, Random], None]] = {
    "one bit flipped": flip_bit,
    "200 random bytes": overwrite,
    "2000 zeros": lose,
}


class Outcome(NamedTuple):
    """error: the largest mean error of a row in grey levels, infinite where rows are missing; None: refused."""

    error: float | None
    remarked: bool = False


def rows_of(path: Path) -> tuple[NDArray[np.uint8], bool]:
    """The rows, and whether there was a remark."""
    video = open_video(path, fps=1)
    return np.concatenate([frames for _, frames in video.chunks()]), bool(video.remarks)


def picture_data(path: Path) -> tuple[int, int]:
    """Where packets of pictures begin and end in a file."""
    with av.open(str(path)) as container:
        places = [(p.pos, p.pos + p.size) for p in container.demux(video=0) if p.size and p.pos is not None]
    return min(begin for begin, _ in places), max(end for _, end in places)


def harmed(whole: Path, harm: Callable[[bytearray, int, Random], None], random: Random) -> Outcome:
    """What becomes of one damage."""
    first, last = picture_data(whole)
    content = bytearray(whole.read_bytes())
    harm(content, int(random.integers(first, last - 2000)), random)
    path = whole.with_stem("damaged")
    path.write_bytes(content)
    try:
        rows, remarked = rows_of(path)
    except VideoError:
        return Outcome(None)
    right, _ = rows_of(whole)
    if rows.shape != right.shape:
        return Outcome(float("inf"), remarked)
    error = np.abs(rows.astype(np.int16) - right).mean(axis=(1, 2, 3)).max()
    return Outcome(float(error), remarked)


def line(codec: str, damage: str, outcomes: list[Outcome]) -> list[str]:
    refused = sum(outcome.error is None for outcome in outcomes)
    wrong = [outcome.error for outcome in outcomes if outcome.error]
    finite = [error for error in wrong if np.isfinite(error)]
    largest = [f"{max(finite):.2f}"] if finite else []
    if len(finite) < len(wrong):
        largest.append("rows")
    counts = len(outcomes) - refused - len(wrong), refused, len(wrong), sum(o.remarked for o in outcomes)
    return [codec, damage, *map(str, counts), " and ".join(largest) or "–"]


@click.command(help=__doc__)
@click.option("--files", default=60, show_default=True, help="Damaged files of each kind.")
@click.option("--seed", default=11, show_default=True)
@click.option("--quick", is_flag=True, help="Three files of each kind.")
def main(*, files: int, seed: int, quick: bool) -> None:
    files = 3 if quick else files
    table = []
    with tempfile.TemporaryDirectory() as folder:
        for codec, (ending, how) in CODECS.items():
            whole = Path(folder) / f"whole.{ending}"
            write_video(whole, noisy_frames(75), fps=25, gop=24, **how)
            for damage, harm in DAMAGES.items():
                random = np.random.default_rng(seed)
                table.append(line(codec, damage, [harmed(whole, harm, random) for _ in range(files)]))
    click.echo(f"{files} files of each kind\n")
    header = ["codec", "damage", "right", "refused", "wrong", "remarked", "largest error"]
    click.echo(markdown(header, table))


if __name__ == "__main__":
    main()
