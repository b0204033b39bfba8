"""How much damage goes unnoticed? The figures of docs/damage.md.

    python -m benchmarks.damage
    python -m benchmarks.damage --folder FOLDER       # keep the videos, so that another version can judge the same
    python -m benchmarks.damage --quick               # a smoke test of seconds

For each codec, three seconds of noisy video (3,000 bytes a picture) are damaged in one random place of the picture
data, many times, and sampled at one row a second. An outcome is *right* (the rows of the whole file: no row needed
what was hit), *refused* (VideoError), or *wrong*: other rows passed for right. "needless" are those of the refused
whose rows, in a plain decoding of every frame, are those of the whole file; "remarked" counts those of the right
and the wrong ones that came with a remark. The largest mean error of a wrong row is given in grey levels; "rows"
where another number of them was taken for all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.plain import NoVideo, Showing
from benchmarks.tables import as_written, markdown
from benchmarks.videos import noisy_frames, write_video
from extract.decode import VideoError, open_video

# "mbtree" makes x264 write other bits each time.
X264 = {"preset": "veryfast", "bf": "3", "mbtree": "0"}
CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    "H.264": ("mp4", "libx264", X264),
    "H.264 Baseline": ("mp4", "libx264", {"preset": "ultrafast"}),
    "H.264 in TS": ("ts", "libx264", X264),
    "HEVC": ("mp4", "libx265", {}),
    "HEVC in TS": ("ts", "libx265", {}),
    "MPEG-4": ("mp4", "mpeg4", {}),
    "MPEG-4 in AVI": ("avi", "mpeg4", {"bf": "2"}),
    "MPEG-2": ("mpg", "mpeg2video", {"bf": "2"}),
    "MPEG-2 in TS": ("ts", "mpeg2video", {"bf": "2"}),
    "VP8": ("webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    "VP9": ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "AV1": ("mp4", "libsvtav1", {"preset": "12"}),
    "MJPEG in AVI": ("avi", "mjpeg", {}),
    "WMV": ("wmv", "wmv2", {}),
    "FLV": ("flv", "flv", {}),
}
Random = np.random.Generator
Harm = Callable[[bytearray, int, Random], None]
Rows = list[NDArray[np.uint8]]


def flip_bit(content: bytearray, at: int, random: Random) -> None:
    content[at] ^= 1 << int(random.integers(8))


def overwrite(content: bytearray, at: int, random: Random) -> None:
    content[at : at + 200] = random.bytes(200)


def lose(content: bytearray, at: int, random: Random) -> None:
    content[at : at + 2000] = bytes(2000)


DAMAGES: dict[str, Harm] = {
    "one bit flipped": flip_bit,
    "200 random bytes": overwrite,
    "2000 zeros": lose,
}


class Outcome(NamedTuple):
    """error: the largest mean error of a row in grey levels, infinite where rows are missing; None: refused.

    reason: of the refusal. needless: refused, and played right.
    """

    error: float | None
    remarked: bool = False
    reason: str = ""
    needless: bool = False

    def __str__(self) -> str:
        if self.error is None:
            return f"refused{' needlessly' * self.needless}: {self.reason}"
        return f"wrong: {self.error:.2f}" if self.error else "right"


def rows_of(path: Path) -> tuple[Rows, bool]:
    """The rows, and whether there was a remark."""
    video = open_video(path, fps=1)
    return [frame for _, frames in video.chunks() for frame in frames], bool(video.remarks)


def error_of(rows: Rows, right: Rows) -> float:
    """The largest mean error of a row."""
    if [row.shape for row in rows] != [row.shape for row in right]:
        return float("inf")
    return max(float(np.abs(a.astype(np.int16) - b).mean()) for a, b in zip(rows, right, strict=True))


def plays_right(path: Path, right: Rows) -> bool:
    try:
        return error_of(Showing(path).rows(), right) == 0
    except (NoVideo, IndexError, ValueError):  # frames are missing
        return False


def picture_data(path: Path) -> tuple[int, int]:
    """Where packets of pictures begin and end in a file."""
    with av.open(str(path)) as container:
        places = [(p.pos, p.pos + p.size) for p in container.demux(video=0) if p.size and p.pos is not None]
    return min(begin for begin, _ in places), max(end for _, end in places)


def damaged(whole: Path, harm: Harm, name: str, count: int, seed: int) -> list[Path]:
    """Copies with one damage each. Those that are there already are taken as they are."""
    random = np.random.default_rng(seed)
    first, last = picture_data(whole)
    paths = [whole.with_stem(f"{name}_{number:03d}") for number in range(count)]
    for path in paths:
        content = bytearray(whole.read_bytes())
        harm(content, int(random.integers(first, last - 2000)), random)
        if not path.exists():
            path.write_bytes(content)
    return paths


def outcome_of(path: Path, right: Rows) -> Outcome:
    """What becomes of one damage."""
    try:
        rows, remarked = rows_of(path)
    except VideoError as error:
        return Outcome(None, reason=str(error), needless=plays_right(path, right))
    return Outcome(error_of(rows, right), remarked)


def line(codec: str, damage: str, outcomes: list[Outcome]) -> list[str]:
    refused = sum(outcome.error is None for outcome in outcomes)
    wrong = [outcome.error for outcome in outcomes if outcome.error]
    finite = [error for error in wrong if np.isfinite(error)]
    largest = [f"{max(finite):.2f}"] if finite else []
    if len(finite) < len(wrong):
        largest.append("rows")
    needless, remarked = sum(o.needless for o in outcomes), sum(o.remarked for o in outcomes)
    counts = len(outcomes) - refused - len(wrong), refused, needless, len(wrong), remarked
    return [codec, damage, *map(str, counts), " and ".join(largest) or "–"]


@click.command(help=as_written(__doc__))
@click.option("--files", default=60, show_default=True, help="Damaged files of each kind.")
@click.option("--seed", default=11, show_default=True)
@click.option(
    "--bits", default="600k", show_default=True, help="A second; a picture is a 200th of that in bytes."
)
@click.option("--quick", is_flag=True, help="Three files of each kind.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Keep the videos; judge those that are there."
)
@click.option("--list", "listed", is_flag=True, help="Every file's outcome, too.")
def main(*, files: int, seed: int, quick: bool, bits: str, folder: Path | None, listed: bool) -> None:
    files = 3 if quick else files
    table = []
    with tempfile.TemporaryDirectory() as temporary:
        for codec, (ending, encoder, options) in CODECS.items():
            place = (folder or Path(temporary)) / codec.lower().replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            whole = place / f"whole.{ending}"
            if not whole.exists():
                write_video(
                    whole,
                    noisy_frames(75),
                    fps=25,
                    gop=24,
                    codec=encoder,
                    pix_fmt="yuvj420p" if encoder == "mjpeg" else "yuv420p",
                    options={**options, "b": bits},
                )
            right, _ = rows_of(whole)
            for damage, harm in DAMAGES.items():
                paths = damaged(whole, harm, damage.replace(" ", "_"), files, seed)
                outcomes = [outcome_of(path, right) for path in paths]
                table.append(line(codec, damage, outcomes))
                for path, outcome in zip(paths, outcomes, strict=True) if listed else ():
                    click.echo(f"{place.name}/{path.name}: {outcome}")
    click.echo(f"{files} files of each kind\n")
    header = ["codec", "damage", "right", "refused", "needless", "wrong", "remarked", "largest error"]
    click.echo(markdown(header, table))


if __name__ == "__main__":
    main()
