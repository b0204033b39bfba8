"""A survey finds every kind of disagreement, and none where there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result

from benchmarks.plain import NoVideo, Showing
from benchmarks.survey import main, survey_file, write_examples
from benchmarks.videos import noisy_frames, numbered_frames, read_frame_number, rotate_mp4, write_video
from tests import bad_readers

pytestmark = pytest.mark.slow  # each makes and decodes videos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole videos, one cut off, one damaged; and files that are none."""
    place = tmp_path_factory.mktemp("collection")
    write_examples(place)
    (place / "notes").mkdir()
    (place / "notes" / "words.mp4").write_text("these are words\n" * 100)
    write_video(
        place / "notes" / "photo.png",
        numbered_frames(1),
        fps=1,
        codec="png",
        pix_fmt="rgb24",
        container="image2",
    )
    return place


def survey(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--jobs", "1"])


def kinds_of(path: Path, reader: Any) -> set[str]:
    return {kind for kind, _ in survey_file(path, read=reader).disagreements}


def test_no_disagreement(folder: Path) -> None:
    result = survey(folder, "--thorough")
    assert result.exit_code == 0, result.output
    assert "4 videos (2 other files)" in result.stdout
    findings = {f["path"]: f for f in json.loads(survey(folder, "--json").stdout)}
    assert set(findings) == {"whole.mp4", "whole.avi", "cut.avi", "damaged.mp4"}
    for name in ("whole.mp4", "whole.avi"):
        assert findings[name]["plain"] == "plays"
        assert findings[name]["frames"] == 60 and findings[name]["rows"] == 3
        assert all(o["refused"] is None and o["difference"] <= 2 for o in findings[name]["ours"])
    for name in ("cut.avi", "damaged.mp4"):
        assert findings[name]["plain"] != "plays"
        assert findings[name]["ours"][0]["refused"]


@pytest.mark.parametrize(
    ("reader", "kinds"),
    [
        ("refusing", {"false refusal"}),
        ("brighter", {"wrong rows"}),
        ("hardly_brighter", set()),
        ("later", {"wrong rows"}),
        ("shorter", {"wrong rows"}),
        ("squeezed", {"wrong rows"}),
        ("pyav_brighter", {"decoders"}),
        ("pyav_refusing", {"decoders"}),
        ("trusting", set()),
    ],
)
def test_of_a_whole_file(folder: Path, reader: str, kinds: set[str]) -> None:
    assert kinds_of(folder / "whole.mp4", getattr(bad_readers, reader)) == kinds


@pytest.mark.parametrize("name", ["cut.avi", "damaged.mp4"])
@pytest.mark.parametrize(
    ("reader", "kinds"), [("refusing", set()), ("trusting", {"missed damage"})], ids=["refusing", "trusting"]
)
def test_of_a_damaged_file(folder: Path, name: str, reader: str, kinds: set[str]) -> None:
    assert kinds_of(folder / name, getattr(bad_readers, reader)) == kinds


@pytest.mark.slow
def test_what_ends_a_process(folder: Path, tmp_path: Path) -> None:
    for name in ("traceback.mp4", "crash.mp4", "hang.mp4", "none.mp4"):
        shutil.copy(folder / "whole.mp4", tmp_path / name)
    result = survey(tmp_path, "--deadline", 10, "--reader", "tests.bad_readers:failing", "--json")
    assert result.exit_code == 1
    found = {f["path"]: f["disagreements"] for f in json.loads(result.stdout)}
    assert found.pop("none.mp4") == []
    assert {path: kind for path, [[kind, _]] in found.items()} == dict.fromkeys(found, "failure")
    assert "KeyError" in found["traceback.mp4"][0][1]
    assert "SIGSEGV" in found["crash.mp4"][0][1]
    assert "10 s" in found["hang.mp4"][0][1]


def test_disagreements_are_told(folder: Path) -> None:
    result = survey(folder, "--reader", "tests.bad_readers:refusing")
    assert result.exit_code == 1
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "false refusal" in result.stdout and "whole.avi" in result.stdout
    assert "a test has auto refuse it" in " ".join(result.stdout.split())


def test_a_sample_is_the_same_for_the_same_seed(folder: Path) -> None:
    once, again, other = (
        [f["path"] for f in json.loads(survey(folder, "--limit", 3, "--seed", seed, "--json").stdout)]
        for seed in (1, 1, 5)
    )
    assert once == again
    assert once != other and len(once) <= 3


# ------------------------------------------------------------------------------------------- the reference


def test_frames_of_a_whole_file(tmp_path: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "b.mp4": {"options": {"bf": "3", "preset": "veryfast"}},
        "b.ts": {"options": {"bf": "3", "preset": "veryfast"}},
        "b.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
        "bare.h264": {"options": {"bf": "3", "preset": "veryfast"}},
    }
    for name, how in kinds.items():
        write_video(tmp_path / name, numbered_frames(60), fps=25, **how)
        showing = Showing(tmp_path / name)
        assert showing.heard == [] and showing.missing is None
        assert showing.starts_s == pytest.approx([n / 25 for n in range(60)], abs=1e-6)
        assert [read_frame_number(frame) for frame in showing.frames(range(60))] == list(range(60))
        assert [read_frame_number(row) for row in showing.rows(fps=2)] == [0, 12, 25, 37, 50]


def test_a_variable_rate(tmp_path: Path) -> None:
    starts_s = [0.0, 0.1, 1.0, 1.5, 3.2, 3.3]
    write_video(tmp_path / "a.mkv", numbered_frames(6), fps=25, pts=starts_s)
    showing = Showing(tmp_path / "a.mkv")
    assert showing.starts_s == pytest.approx(starts_s, abs=1e-3)
    assert [read_frame_number(row) for row in showing.rows()] == [0, 2, 3, 3]


def test_a_recording_from_the_middle(tmp_path: Path) -> None:
    write_video(tmp_path / "whole.ts", numbered_frames(100), fps=25, gop=24)
    content = (tmp_path / "whole.ts").read_bytes()
    (tmp_path / "a.ts").write_bytes(content[len(content) // 8 // 188 * 188 :])
    showing = Showing(tmp_path / "a.ts")
    first, *_ = [read_frame_number(row) for row in showing.rows()]
    assert first == 24 and showing.heard == []


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turned(tmp_path: Path, degrees: int) -> None:
    lying = (np.rot90(frame, degrees // 90).copy() for frame in numbered_frames(30))
    write_video(tmp_path / "a.mp4", lying, fps=25)
    rotate_mp4(tmp_path / "a.mp4", degrees)
    assert [read_frame_number(row) for row in Showing(tmp_path / "a.mp4").rows()] == [0, 25]


def test_mirrored(tmp_path: Path) -> None:
    """As front cameras write it: the first number of the display matrix is -1."""
    path = tmp_path / "a.mp4"
    write_video(path, (np.ascontiguousarray(frame[:, ::-1]) for frame in numbered_frames(30)), fps=25)
    content = bytearray(path.read_bytes())
    at = content.find(b"tkhd") + 44
    content[at : at + 4] = (-(1 << 16)).to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    assert [read_frame_number(row) for row in Showing(path).rows()] == [0, 25]


def test_damage_is_put_down_to_what_needs_it(tmp_path: Path) -> None:
    """Only a frame of the second of four groups is damaged."""
    path = tmp_path / "a.avi"
    write_video(path, noisy_frames(96), fps=24, gop=24, codec="mpeg4", options={"q": "4"})
    with av.open(str(path)) as container:
        packet = next(p for n, p in enumerate(container.demux(video=0)) if n == 30)
        middle = packet.pos + 8 + packet.size // 2
    content = bytearray(path.read_bytes())
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    showing = Showing(path)
    assert showing.heard_of([40])
    assert showing.heard_of([0, 23, 29]) == [] and showing.heard_of(range(50, 90)) == []


def test_no_video(folder: Path) -> None:
    for name in ("words.mp4", "photo.png"):
        with pytest.raises(NoVideo):
            Showing(folder / "notes" / name)
