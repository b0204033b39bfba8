"""Videos from elsewhere: every row is the frame that a plain reading by PyAV shows at its instant.

The files are those of a folder that is named by hand:

    THRIFTVID_VIDEOS=/path/to/videos python -m pytest tests/test_real_videos.py -rs

The reference shares no code with `extract`: it decodes every frame, one thread, in order, and looks up who is on
screen by the definition. What cannot be decoded without a complaint must be refused with a reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.logging
import numpy as np
import pytest
import torch  # noqa: F401 - before decord, which a network would crash after
from click.testing import CliRunner
from numpy.typing import NDArray

from cache_schema import Sampling
from extract.cli import batch_extract
from extract.cutting import Cutter
from extract.decode import VideoError, open_video, read_video
from extract.transform import resize_and_crop
from extract.views import View
from tests.test_cutting import SMALL, instants

FOLDER = os.environ.get("THRIFTVID_VIDEOS")
FILES = sorted(path for path in Path(FOLDER).iterdir() if path.is_file()) if FOLDER else []
# 1 fps frames, SlowFast's snippets, X3D's clips and dense clips of 16 frames, as the built-in streams have them.
SAMPLINGS = {
    "frames": Sampling(fps=1.0),
    "snippets": Sampling("snippets", fps=30.0, frames=32, window=64, rows_per_s=1.0),
    "clips": Sampling("clips", fps=30.0, frames=4, window=48, clips=10),
    "dense": Sampling("dense", fps=25.0, frames=16, window=16),
}


class Heard(NamedTuple):
    """A complaint of the decoder, and the packet that it was at."""

    packet: int
    text: str


@dataclass
class Showing:
    """What a player would show of a file. Made by decoding all of it, and on after an error.

    starts_s: when each frame comes on screen, in seconds after the first.
    tolerance_s: how far the container may have rounded that.
    heard: what the decoder said meanwhile; empty for a whole file.
    """

    path: Path
    starts_s: list[float] = field(default_factory=list)
    duration_s: float = 0.0
    tolerance_s: float = 1e-6
    heard: list[Heard] = field(default_factory=list)
    _needed: list[range] = field(
        default_factory=list
    )  # of each frame: from its key frame's packet to its own

    def __post_init__(self) -> None:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.ERROR)
        try:
            self._time()
        finally:
            av.logging.set_level(level)

    def _time(self) -> None:
        starts: list[float] = []
        keys: list[tuple[int, int | None]] = []
        packet_of: dict[int | None, int] = {}
        tick_s = length_s = 0.0
        with av.logging.Capture(local=False) as logs, av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 25)
            untimed = container.format.name in ("avi", "h264", "hevc")  # frames come in order, at the rate
            if container.format.name.startswith(("matroska", "flv")):  # whole milliseconds
                self.tolerance_s = 5e-4
            for at, packet in enumerate(packets_of(container)):
                packet_of[packet.pts] = at
                if packet.is_keyframe:
                    keys.append((at, packet.pts))
                for frame in self._decode(packet, at):
                    if not starts:
                        tick_s = 1 / rate if untimed else float(frame.time_base or 0)
                    begun = [k for k, pts in keys if untimed or pts is None or pts <= (frame.pts or 0)]
                    own = at if untimed else packet_of.get(frame.pts, at)
                    self._needed.append(range(begun[-1] if begun else 0, own + 1))
                    if frame.is_corrupt:
                        self.heard.append(Heard(own, "a frame is corrupt"))
                    starts.append(tick_s * (len(starts) if untimed else frame.pts or 0))
                    length_s = 1 / rate if untimed or not frame.duration else frame.duration * tick_s
                self.heard += [Heard(at, text.strip()) for _, _, text in logs]
                logs.clear()
        self.starts_s = [start_s - starts[0] for start_s in starts]
        self.duration_s = self.starts_s[-1] + length_s if starts else 0.0

    def _decode(self, packet: av.Packet[Any], at: int) -> list[av.VideoFrame]:
        try:
            return packet.decode()
        except av.FFmpegError as error:
            self.heard.append(Heard(at, str(error)))
            return []

    def heard_at(self, instant_s: float) -> list[str]:
        """What the decoder said of the packets that the frame on screen then needs."""
        needed = self._needed[self.at(instant_s)]
        return [text for at, text in self.heard if at in needed]

    def at(self, instant_s: float) -> int:
        """The number of the frame on screen: the last that began by then, before all of them the first."""
        begun = [number for number, s in enumerate(self.starts_s) if s <= instant_s + self.tolerance_s]
        return max(begun, default=0)

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Every frame in order, RGB (H, W, 3), turned as a player turns it."""
        with av.open(str(self.path)) as container:
            size: tuple[int, int] | None = None
            for packet in packets_of(container):
                for frame in self._decode(packet, -1):
                    size = size or (frame.width, frame.height)
                    picture = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
                    yield np.rot90(picture, round(frame.rotation / 90) % 4).astype(np.uint8, copy=False)

    def rows(self) -> NDArray[np.uint8]:
        """The frames at 0, 1, 2 ... s."""
        shown = [self.at(t) for [t] in instants(SAMPLINGS["frames"], self.duration_s)]
        wanted = set(shown)
        frames = {number: frame for number, frame in enumerate(self.frames()) if number in wanted}
        return np.stack([frames[number] for number in shown])

    def clips(self, samplings: list[Sampling]) -> list[NDArray[np.uint8]]:
        """For each sampling its rows, cut to `SMALL`: (N, T, 32, 32, 3), of frames (N, 32, 32, 3)."""
        small = [resize_and_crop(frame, SMALL) for frame in self.frames()]
        cut = []
        for sampling in samplings:
            rows = [[self.at(t) for t in row] for row in instants(sampling, self.duration_s)]
            clips = np.stack([np.stack([small[number] for number in row]) for row in rows])
            cut.append(clips[:, 0] if sampling.kind == "frames" else clips)
        return cut


def packets_of(container: av.container.InputContainer) -> Iterator[av.Packet[Any]]:
    """Of the first video stream, to be decoded by one thread; the one that ends it, too."""
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    yield from container.demux(stream)


def clips_of(path: Path, samplings: list[Sampling], decoder: str = "auto") -> list[NDArray[Any]]:
    """What `extract` makes of them, in one pass."""
    cutter = Cutter(
        read_video(path, decoder=decoder or "auto"), [View(sampling, SMALL) for sampling in samplings]
    )
    rows: list[list[NDArray[Any]]] = [[] for _ in samplings]
    for chunk in cutter.chunks():
        rows[chunk.view].append(chunk.pixels)
    return [np.concatenate(parts) for parts in rows]


def rows_of(path: Path) -> NDArray[np.uint8]:
    return np.concatenate([frames for _, frames in open_video(path, fps=1).chunks()])


def difference(ours: NDArray[Any], theirs: NDArray[Any]) -> int:
    """The largest, in grey levels. Memory is that of one row more."""
    assert ours.shape == theirs.shape
    return max(
        int(np.abs(our.astype(np.int16) - their).max()) for our, their in zip(ours, theirs, strict=True)
    )


def assert_shown(path: Path, decoder: str = "auto") -> None:
    """Every row of every sampling is what a player would show."""
    showing = Showing(path)
    assert not showing.heard
    if decoder == "auto":
        assert difference(rows_of(path), showing.rows()) == 0
    samplings = list(SAMPLINGS.values())
    for name, ours, theirs in zip(
        SAMPLINGS, clips_of(path, samplings, decoder), showing.clips(samplings), strict=True
    ):
        assert difference(ours, theirs) == 0, name


def reason(path: Path, sampling: Sampling) -> str:
    with pytest.raises(VideoError) as caught:
        clips_of(path, [sampling])
    message = str(caught.value)
    assert message and "\n" not in message
    return message


pytestmark = pytest.mark.skipif(not FILES, reason="no files: THRIFTVID_VIDEOS names no folder of videos")
whole = pytest.mark.parametrize(
    "path", [path for path in FILES if "corrupt" not in path.name], ids=lambda path: path.name
)
damaged = pytest.mark.parametrize(
    "path", [path for path in FILES if "corrupt" in path.name], ids=lambda path: path.name
)


@whole
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_every_row_is_what_is_on_screen(path: Path, decoder: str) -> None:
    assert_shown(path, decoder)


@damaged
@pytest.mark.parametrize("name", SAMPLINGS)
def test_a_damaged_file_is_refused_with_a_reason(path: Path, name: str) -> None:
    assert reason(path, SAMPLINGS[name])


def test_all_in_one_run(tmp_path: Path) -> None:
    """Exit code 1 exactly where there is a damaged file, which is named with its reason."""
    assert FOLDER is not None
    arguments = [FOLDER, "--cache", tmp_path, "--stream", "timm:test_resnet@64", "--weights", "random:0"]
    result = CliRunner().invoke(batch_extract, [*map(str, arguments), "--workers", "2", "--json"])
    bad = {path.stem for path in FILES if "corrupt" in path.name}
    assert result.exit_code == (1 if bad else 0)
    failed = json.loads(result.stdout)["failed"]
    assert set(failed) == bad
    for name, why in failed.items():
        assert f"failed: {name}: {why}" in result.stderr.splitlines()
