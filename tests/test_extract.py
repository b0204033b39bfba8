"""batch-extract end to end: the right rows under the right names, and whatever goes wrong told in one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import psutil
import pytest
import timm
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from safetensors.torch import save_file

from benchmarks.videos import (
    media_data,
    noisy_frames,
    numbered_frames,
    read_frame_number,
    rotate_mp4,
    write_audio,
    write_video,
)
from cache_schema import FeatureCache, Sampling, VideoRecord
from cache_schema.cache import shard_paths
from cache_schema.cli import feature_cache
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.batch import extract as extract_by_one
from extract.cli import batch_extract
from extract.decode import open_video
from extract.pipeline import Settings
from extract.sources import find_videos
from extract.transform import resize_and_crop
from extract.workers import AwakeClock, DecodeJob, Finished, Frames, Opened, decode_all
from tests.test_decode import B_FRAMES, FASTSTART, rows_of, trim_by_edit_list

STREAM, NAME = "timm:test_resnet@64", "test_resnet_64"
Frame = NDArray[np.uint8]
Float32Array = NDArray[np.float32]
OTHER, OTHER_NAME = "timm:test_convnext@64", "test_convnext_64"


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos by name: their length in seconds at 25 fps."""
    folder = tmp_path_factory.mktemp("originals")
    for name, seconds in (("a", 3.2), ("b", 2.0), ("c", 0.4)):
        write_video(folder / f"{name}.mp4", numbered_frames(round(seconds * 25)), fps=25)
    return folder


@pytest.fixture
def videos(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "videos"))


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What went to standard error, line by line, but for what streams cost."""
        assert "Traceback" not in self.err + self.out
        return [line for line in self.err.splitlines() if " GFLOPs a row, " not in line]

    @property
    def error(self) -> str:
        """The one line of a request that was refused."""
        assert self.code == 2 and self.out == ""
        *notes, line = self.lines
        assert not any(note.startswith(("Error", "Traceback")) for note in notes)
        assert line.startswith("Error: ")
        return line


def extract(videos: Path | list[Path], cache: Path, *options: str | Path, stream: str = STREAM) -> Ran:
    named = videos if isinstance(videos, list) else [videos]
    arguments = [*named, "--cache", cache, "--stream", stream, "--workers", "1", *options]
    if "--weights" not in options:
        arguments += ["--weights", "random:0"]
    result = CliRunner().invoke(batch_extract, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def answer(ran: Ran) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(ran.out)
    return parsed


def check(*command: str | Path) -> Ran:
    result = CliRunner().invoke(feature_cache, [str(argument) for argument in command])
    return Ran(result.exit_code, result.stdout, result.stderr)


def frames_by_pyav(path: Path) -> list[Frame]:
    with av.open(str(path)) as container:
        frames = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        return [frame.astype(np.uint8, copy=False) for frame in frames]


def assert_rows(record: VideoRecord, path: Path, numbers: list[int], stream: str = STREAM) -> None:
    frames = frames_by_pyav(path)
    features = assert_features(record, [frames[n] for n in numbers], stream)
    # The network tells these frames apart: equal rows would pass for any order.
    assert len(np.unique(features.round(3), axis=0)) == len(numbers)


def assert_features(record: VideoRecord, frames: Sequence[Frame], stream: str = STREAM) -> Float32Array:
    """The rows are what the network makes of these frames; returns the features."""
    backbone = Backbone(parse_stream(stream), weights="random:0", device=torch.device("cpu"))
    pixels = np.stack([resize_and_crop(frame, backbone.spec.preprocessing) for frame in frames])
    features, scores = backbone(torch.from_numpy(pixels))
    assert record.features.shape == features.shape
    assert record.scores is not None and scores is not None
    np.testing.assert_allclose(record.features, features.numpy(), atol=2e-3, rtol=2e-3)
    np.testing.assert_allclose(record.scores, scores.numpy(), atol=2e-3, rtol=2e-3)
    found: Float32Array = features.numpy()
    return found


# ------------------------------------------------------------------------------------------------ the right rows


@pytest.mark.slow
def test_rows_are_the_frames_at_whole_seconds(videos: Path, tmp_path: Path) -> None:
    ran = extract(videos, tmp_path / "cache", "--json", "--batch", "4")
    assert ran.code == 0
    told = answer(ran)
    assert sum(told.pop("decoders").values()) == 3
    assert told == {
        "cache": str(tmp_path / "cache"),
        "streams": [NAME],
        "videos": 3,
        "extracted": 3,
        "already_there": 0,
        "failed": {},
        "partial": {},
        "remarks": {},
        "frames_decoded": 7,
        "left_out": {},
    }
    stream = FeatureCache(tmp_path / "cache")[NAME]
    assert list(stream) == ["a", "b", "c"]
    for name, numbers, seconds in (("a", [0, 25, 50, 75], 3.2), ("b", [0, 25], 2.0), ("c", [0], 0.4)):
        record = stream[name]
        assert_rows(record, videos / f"{name}.mp4", numbers)
        assert record.spans.tolist() == [[k, k] for k in range(len(numbers))]
        assert record.duration_s == pytest.approx(seconds) and record.fps == pytest.approx(25)
        assert record.source == str(videos / f"{name}.mp4")
    assert stream.spec.weights == "random:0" and stream.spec.sampling.fps == 1.0
    assert check("verify", tmp_path / "cache").code == 0


@pytest.mark.slow
def test_another_rate_is_another_stream(videos: Path, tmp_path: Path) -> None:
    assert extract(videos, tmp_path / "cache", "--fps", "2").code == 0
    stream = FeatureCache(tmp_path / "cache")[f"{NAME}@2fps"]
    assert stream.spec.sampling.fps == 2.0
    assert stream["a"].spans[:, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert_rows(stream["a"], videos / "a.mp4", [0, 12, 25, 37, 50, 62, 75])


@pytest.mark.slow
def test_two_streams_from_one_decode(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extract.workers._SERVE", "tests.bad_decoders:recording")
    ran = extract(videos, tmp_path / "cache", "--stream", OTHER, "--json")
    assert ran.code == 0 and answer(ran)["frames_decoded"] == 7
    assert [path.read_text() for path in videos.glob("*.decoded")] == ["once\n"] * 3
    cache = FeatureCache(tmp_path / "cache")
    assert cache.streams == (OTHER_NAME, NAME)
    assert_rows(cache[NAME]["a"], videos / "a.mp4", [0, 25, 50, 75])
    assert_rows(cache[OTHER_NAME]["a"], videos / "a.mp4", [0, 25, 50, 75], OTHER)


@pytest.mark.slow
def test_one_network_at_two_sizes(videos: Path, tmp_path: Path) -> None:
    assert extract(videos, tmp_path / "cache", "--stream", "timm:test_resnet@96").code == 0
    cache = FeatureCache(tmp_path / "cache")
    assert_rows(cache[NAME]["a"], videos / "a.mp4", [0, 25, 50, 75])
    assert_rows(cache["test_resnet_96"]["a"], videos / "a.mp4", [0, 25, 50, 75], "timm:test_resnet@96")


@pytest.mark.slow
@pytest.mark.parametrize("shard_size", [1, 2, 3])
def test_shards_and_batches_change_no_row(videos: Path, tmp_path: Path, shard_size: int) -> None:
    extract(videos, tmp_path / "one")
    extract(videos, tmp_path / "many", "--shard-size", str(shard_size), "--workers", "2")
    one, many = (FeatureCache(tmp_path / name)[NAME] for name in ("one", "many"))
    assert len(many.shards) == -(-3 // shard_size)
    assert one.digest() == many.digest()


@pytest.mark.slow
def test_long_videos_make_smaller_shards(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(videos, tmp_path / "one")
    monkeypatch.setattr("extract.pipeline.SHARD_BYTES", 1)
    assert extract(videos, tmp_path / "many").code == 0
    one, many = (FeatureCache(tmp_path / name)[NAME] for name in ("one", "many"))
    assert [len(shard) for shard in many.shards] == [1, 1, 1]
    assert one.digest() == many.digest()


@pytest.mark.slow
def test_a_slow_video_holds_up_no_other(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards fill in the order in which videos are done: a killed run loses one, not one per slow video."""
    monkeypatch.setattr("extract.workers._SERVE", "tests.bad_decoders:misbehaving")
    # The second video of ten: its decoder waits until four shards, all the others could fill, are there.
    shutil.copy(videos / "a.mp4", videos / "a_last.mp4")
    for i in range(6):
        shutil.copy(videos / "c.mp4", videos / f"z{i}.mp4")
    options = ("--deadline", "300", "--workers", "2", "--batch", "1", "--shard-size", "2")
    ran = extract(videos, tmp_path / "cache", *options)
    assert ran.code == 0, ran.lines
    stream = FeatureCache(tmp_path / "cache")[NAME]
    assert sorted(stream) == sorted(path.stem for path in videos.iterdir())
    assert [len(shard) for shard in stream.shards] == [2] * 5


# -------------------------------------------------------------------------------------------- only what is missing


@pytest.mark.slow
def test_a_second_run_does_only_what_is_missing(videos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    extract(videos, cache)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.h5")}
    ran = extract(videos, cache, "--json")
    assert ran.code == 0
    assert (answer(ran)["extracted"], answer(ran)["already_there"], answer(ran)["frames_decoded"]) == (
        0,
        3,
        0,
    )
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.h5")} == before

    write_video(videos / "new.mp4", numbered_frames(30, first=200), fps=25)
    ran = extract(videos, cache, "--json")
    assert (answer(ran)["extracted"], answer(ran)["already_there"], answer(ran)["frames_decoded"]) == (
        1,
        3,
        2,
    )

    ran = extract(videos, cache, "--stream", OTHER, "--json")
    assert (answer(ran)["extracted"], answer(ran)["already_there"]) == (4, 0)
    opened = FeatureCache(cache)
    assert list(opened[NAME]) == list(opened[OTHER_NAME]) == ["a", "b", "c", "new"]
    assert len(opened[NAME].shards) == 2 and len(opened[OTHER_NAME].shards) == 1


@pytest.mark.slow
def test_failures_are_known_retried_and_healed(videos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (videos / "broken.mp4").write_bytes(b"these are words")
    ran = extract(videos, cache, "--json")
    assert ran.code == 1 and list(answer(ran)["failed"]) == ["broken"]
    assert any(line.startswith("failed: broken: not a video") for line in ran.lines)
    assert FeatureCache(cache)[NAME].failures["broken"].startswith("not a video")
    shards = len(list(cache.rglob("*.h5")))

    ran = extract(videos, cache, "--json")
    assert ran.code == 1 and answer(ran)["already_there"] == 3
    assert "known from an earlier run; --retry-failed" in answer(ran)["failed"]["broken"]
    assert len(list(cache.rglob("*.h5"))) == shards

    ran = extract(videos, cache, "--retry-failed", "--json")
    assert ran.code == 1 and "earlier" not in answer(ran)["failed"]["broken"]

    # Replaced by another broken file: tried anew, and then as known as the first.
    (videos / "broken.mp4").write_bytes(b"")
    ran = extract(videos, cache, "--json")
    assert answer(ran)["failed"] == {"broken": "empty file"}
    assert "earlier run" in answer(extract(videos, cache, "--json"))["failed"]["broken"]

    shutil.copy(videos / "a.mp4", videos / "broken.mp4")
    ran = extract(videos, cache, "--json")
    assert ran.code == 0 and answer(ran)["extracted"] == 1
    stream = FeatureCache(cache)[NAME]
    assert not stream.failures and np.array_equal(stream["broken"].features, stream["a"].features)
    assert extract(videos, cache).code == 0
    assert check("verify", cache).code == 0


@pytest.mark.slow
def test_an_id_from_another_file_is_refused(videos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    extract(videos, cache)
    before = FeatureCache(cache)[NAME].digest()
    shutil.copy(videos / "b.mp4", videos / "a.mp4")
    ran = extract(videos, cache, "--stream", OTHER)
    assert ran.code == 1
    [line] = [line for line in ran.lines if line.startswith("failed: ")]
    drop = f"feature-cache drop {cache} --all-streams --video a"
    assert line == (
        "failed: a: it has changed since it was extracted; "
        f"`{drop}` takes out its old rows, and the next run extracts it anew"
    )
    assert FeatureCache(cache)[NAME].digest() == before
    assert list(FeatureCache(cache)[OTHER_NAME]) == ["b", "c"]
    (tmp_path / "other").mkdir()
    (videos / "a.mp4").rename(tmp_path / "other/a.mp4")
    [line] = [line for line in extract(tmp_path / "other", cache).lines if line.startswith("failed: ")]
    assert line.startswith("failed: a: the cache has this id from a file with other content")
    assert check(*drop.split()[1:]).code == 0
    assert extract(tmp_path / "other", cache).code == 0
    assert len(FeatureCache(cache)[NAME]["a"].features) == 2


# ------------------------------------------------------------------------------------------------- bad requests


def test_a_stream_made_otherwise_is_refused(videos: Path, tmp_path: Path) -> None:
    extract(videos, tmp_path / "cache")
    error = extract(videos, tmp_path / "cache", "--weights", "random:1").error
    assert f"stream {NAME} is there already, but made otherwise (weights random:0 is not random:1" in error
    assert f"`feature-cache drop {tmp_path / 'cache'} --stream {NAME}` makes room for it" in error


@pytest.mark.slow
def test_weights_for_one_stream_by_either_of_its_names(videos: Path, tmp_path: Path) -> None:
    for number, name in enumerate((STREAM, NAME)):
        assert extract(videos, tmp_path / str(number), "--weights", f"{name}=random:1").code == 0
        assert FeatureCache(tmp_path / str(number))[NAME].spec.weights == "random:1"
    error = extract(videos, tmp_path / "other", "--weights", "resnet=random:1").error
    assert f"'resnet' is none of the streams asked for ({STREAM})" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stream", "resnet_51"], "unknown stream 'resnet_51'"),
        (["--stream", "timm:resnet_51@64"], "has no network 'resnet_51'"),
        (["--weights", "random"], "say which seed"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors: cannot read the weights: No such file"),
        (["--weights", f"{OTHER}=random:1"], "is none of the streams asked for"),
        (["--device", "gpu"], "--device gpu: not to be had here"),
        (["--device", "cuda:77"], "--device cuda:77: not to be had here"),
        (["--device", "meta"], "--device meta: not to be had here"),
        (["--fps", "0"], "--fps 0: the rate must be above 0"),
        (["--fps", "nan"], "--fps nan: the rate must be above 0"),
    ],
)
def test_wrong_options(videos: Path, tmp_path: Path, options: list[str], message: str) -> None:
    assert message in extract(videos, tmp_path / "cache", *options).error
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.slow
def test_wrong_paths(videos: Path, tmp_path: Path) -> None:
    assert "nowhere: no such file or folder" in extract(tmp_path / "nowhere", tmp_path / "cache").error
    (tmp_path / "empty").mkdir()
    assert "no videos in" in extract(tmp_path / "empty", tmp_path / "cache").error
    (tmp_path / "file").touch()
    assert "cannot write to the cache" in extract(videos, tmp_path / "file").error
    assert "cannot write to the cache" in extract(videos, Path("/proc/cache")).error


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.find(b"a.mp4")] ^= 0x20  # in the header: rows are checked when they are read
    path.write_bytes(content)


def age(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "message"),
    [(cut, "damaged shard"), (flip, "damaged shard"), (age, "schema 3, but this program")],
)
def test_a_damaged_cache_is_told(
    videos: Path, tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    cache = tmp_path / "cache"
    extract(videos, cache)
    [path] = shard_paths(cache / NAME)
    harm(path)
    content = path.read_bytes()
    error = extract(videos, cache).error
    assert message in error and path.name in error
    assert path.read_bytes() == content
    assert message in check("info", cache).error
    verified = check("verify", cache)
    assert verified.code == 1 and len(verified.lines) == 1 and message in verified.lines[0]


def test_a_flipped_byte_in_the_rows_is_told_when_they_are_read(videos: Path, tmp_path: Path) -> None:
    extract(videos, tmp_path)
    [path] = shard_paths(tmp_path / NAME)
    with h5py.File(path) as file:
        at = file["features"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    verified = check("verify", tmp_path)
    assert verified.code == 1
    assert verified.lines == [
        f"{path}: damaged shard: the rows of video 'a' do not match their checksum; "
        "delete it and run batch-extract again"
    ]


# ---------------------------------------------------------------------------------------------------- bad videos


Expected = dict[str, list[int]]


def write_odd_videos(folder: Path) -> Expected:
    """Videos that look bad but can be read; for each the frames that its rows must show."""
    right: Expected = {}

    def write(name: str, numbers: list[int], count: int = 60, **how: Any) -> Path:
        write_video(folder / name, numbered_frames(count), fps=25, **how)
        right[Path(name).stem] = numbers
        return folder / name

    write("plain.mp4", [0, 25, 50])
    write("shorter_than_a_second.mp4", [0], count=5)
    write("no_timestamps.avi", [0, 25, 50], codec="mpeg4", options={"bf": "2"})
    starts_s = np.cumsum([0.0, *np.random.default_rng(5).choice([0.01, 0.04, 0.3], 59)]).tolist()
    seconds = range(int(starts_s[-1]) + 1)
    shown = [max(i for i, s in enumerate(starts_s) if s <= k + 1e-6) for k in seconds]
    write("variable_rate.mp4", shown, pts=starts_s, options=B_FRAMES)
    edited = write("edit_list.mp4", [30, 55, 80], count=100, gop=24, options=B_FRAMES)
    trim_by_edit_list(edited, start_s=30 / 25, duration_s=60 / 25)
    lying = (np.rot90(frame).copy() for frame in numbered_frames(30))
    write_video(folder / "rotated.mp4", lying, fps=25)
    rotate_mp4(folder / "rotated.mp4", 90)
    right["rotated"] = [0, 25]
    shutil.copy(folder / "plain.mp4", folder / os.fsdecode(b"caf\xe9.mp4"))
    right["caf\\xe9"] = [0, 25, 50]
    return right


def write_bad_videos(folder: Path) -> dict[str, str]:
    """Files that cannot be read; for each, as it is named, how its reason begins."""
    (folder / "words.mp4").write_bytes(b"these are words\n" * 100)
    (folder / "empty.mp4").touch()
    write_audio(folder / "sound.mp4", duration_s=2)
    write_video(folder / "cut.mp4", numbered_frames(350), fps=25, container_options=FASTSTART)
    (folder / "cut.mp4").write_bytes((folder / "cut.mp4").read_bytes()[:-20_000])
    write_video(folder / "damaged.mp4", noisy_frames(75), fps=25, gop=75)
    first, last = media_data(folder / "damaged.mp4")
    content = bytearray((folder / "damaged.mp4").read_bytes())
    content[(first + last) // 2 : (first + last) // 2 + 2000] = bytes(2000)
    (folder / "damaged.mp4").write_bytes(content)
    for name in ("x", "y"):
        (folder / name).mkdir()
        write_video(folder / name / "twice.mp4", numbered_frames(25), fps=25)
    return {
        "words": "not a video",
        "empty": "empty file",
        "sound": "no video stream (audio only)",
        "cut": "truncated",
        "damaged": "damaged packets",
        str(folder / "x/twice.mp4"): "its id 'twice' is also that of",
        str(folder / "y/twice.mp4"): "its id 'twice' is also that of",
    }


@pytest.mark.slow
def test_all_bad_input_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    right, wrong = write_odd_videos(folder), write_bad_videos(folder)
    ran = extract(folder, tmp_path / "cache", "--json", "--workers", "2")
    assert ran.code == 1
    failed = answer(ran)["failed"]
    assert set(failed) == set(wrong)
    for name, reason in wrong.items():
        assert failed[name].startswith(reason)
        [line] = [line for line in ran.lines if line.startswith(f"failed: {name}: ")]
        assert reason in line
    stream = FeatureCache(tmp_path / "cache")[NAME]
    assert set(stream) == set(right)
    for video in find_videos([folder]).videos:
        if video.id in right:
            frames = rows_of(open_video(video.path, fps=1))
            assert [read_frame_number(frame) for frame in frames] == right[video.id]
            assert_features(stream[video.id], list(frames))


def test_a_file_that_vanishes_is_named(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{videos}/a.mp4\n{videos}/gone.mp4\n")
    ran = extract(tmp_path / "list.txt", tmp_path / "cache")
    assert ran.code == 1 and f"failed: {videos}/gone.mp4: no such file" in ran.lines


@pytest.mark.slow
def test_features_beyond_float16_name_the_video_and_spare_other_streams(videos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet")
    state = model.state_dict()
    last = [name for name in state if name.endswith("bn3.weight") or name.endswith("bn2.weight")][-1]
    state[last] = torch.full_like(state[last], 1e8)
    save_file(state, tmp_path / "huge.safetensors")
    options = ["--weights", f"{STREAM}={tmp_path / 'huge.safetensors'}", "--stream", OTHER]
    ran = extract(videos, tmp_path / "cache", *options, "--weights", "random:0", "--json")
    assert ran.code == 1 and set(answer(ran)["failed"]) == {"a", "b", "c"}
    assert all("beyond float16's 65504" in reason for reason in answer(ran)["failed"].values())
    cache = FeatureCache(tmp_path / "cache")
    assert len(cache[OTHER_NAME]) == 3 and len(cache[NAME]) == 0
    assert check("verify", tmp_path / "cache").code == 0


# ----------------------------------------------------------------------------------------------- bad decoders


def decoders() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE and "extract.workers" in " ".join(process.cmdline())
    ]


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extract.workers._SERVE", "tests.bad_decoders:misbehaving")


@pytest.mark.slow
@pytest.mark.usefixtures("misbehaving")
def test_what_decodes_of_a_damaged_video_is_kept_where_that_is_asked_for(
    videos: Path, originals: Path, tmp_path: Path
) -> None:
    shutil.copy(originals / "a.mp4", videos / "a_lost30-55_odd.mp4")
    shutil.copy(originals / "b.mp4", videos / "b_lost0-50.mp4")
    damage = "damaged at 1.2 s; 1 of 4 rows lost"
    cache = tmp_path / "cache"
    refused = extract(videos, tmp_path / "refused", "--batch", "3", "--json")
    assert refused.code == 1 and answer(refused)["partial"] == {}
    assert answer(refused)["failed"] == {
        "a_lost30-55_odd": "damaged at 1.2 s",
        "b_lost0-50": "damaged at 0.0 s",
    }

    ran = extract(videos, cache, "--damaged", "keep", "--batch", "3")
    assert ran.code == 1 and ran.out.startswith(
        "5 videos: 4 extracted (13 frames), 0 already there, 1 failed, 1 partial;"
    )
    cost, *_ = ran.err.splitlines()
    assert cost.startswith(f"{NAME}: 0.0") and cost.endswith(" GFLOPs a row, a frame every second")
    assert ran.lines == [
        "remark: 1 × an odd file, e.g. 'a_lost30-55_odd'",
        f"partial: a_lost30-55_odd: {damage}",
        "failed: b_lost0-50: damaged at 0.0 s; 2 of 2 rows lost",
    ]
    stream = FeatureCache(cache)[NAME]
    record = stream["a_lost30-55_odd"]
    assert_rows(record, videos / "a.mp4", [0, 25, 75])
    assert record.spans.tolist() == [[0, 0], [1, 1], [3, 3]] and record.numbers.tolist() == [0, 1, 3]
    assert (record.damage, record.remarks, record.error) == (damage, ("an odd file",), None)
    assert stream.partial == {"a_lost30-55_odd": damage} and list(stream.failures) == ["b_lost0-50"]
    assert sum(stream.decoders().values()) == 4 and "" not in stream.decoders()
    assert check("verify", cache).code == 0
    # Whole videos have the same rows, whatever is asked for of others.
    assert stream.digest("abc") == FeatureCache(tmp_path / "refused")[NAME].digest("abc")


def cut_short(content: bytes) -> bytes:
    return content[: len(content) * 6 // 10]


def overwritten(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + np.random.default_rng(1).bytes(300) + content[at + 300 :]


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], dict[str, Any]]] = {
    "cut_moov_first.mp4": (cut_short, {"container_options": FASTSTART}),
    "cut_matroska.mkv": (cut_short, {}),
    "cut_mpeg4.avi": (cut_short, {"codec": "mpeg4"}),
    "hit_b_frames.mp4": (overwritten, {"options": B_FRAMES}),
}


def blocks(count: int) -> Iterator[Frame]:
    """Frames that a network tells apart, and that cost a codec something."""
    for number in range(count):
        random = np.random.default_rng(number)
        colours = np.kron(random.integers(20, 236, (6, 8, 3)), np.ones((8, 8, 1), np.int64))
        yield (colours + random.integers(-20, 20, colours.shape)).astype(np.uint8)


@pytest.mark.slow
def test_every_row_kept_of_a_damaged_file_is_that_of_the_whole_one(tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    for folder in (whole, damaged):
        folder.mkdir()
    for name, (harm, how) in DAMAGED.items():
        write_video(whole / name, blocks(150), fps=25, gop=25, **how)
        (damaged / name).write_bytes(harm((whole / name).read_bytes()))
    options = ("--fps", "5", "--json")
    assert extract(whole, tmp_path / "right", *options).code == 0
    refused = extract(damaged, tmp_path / "refused", *options)
    ran = extract(damaged, tmp_path / "kept", "--damaged", "keep", *options)
    assert refused.code == 1 and ran.code == 0, ran.lines
    names = {Path(name).stem for name in DAMAGED}
    assert set(answer(refused)["failed"]) == set(answer(ran)["partial"]) == names
    right, kept = (FeatureCache(tmp_path / cache)[f"{NAME}@5fps"] for cache in ("right", "kept"))
    for name in names:
        record, numbers = kept[name], kept[name].numbers
        assert 10 < len(numbers) < 30, (name, record.damage)
        assert answer(ran)["partial"][name].startswith(answer(refused)["failed"][name])
        expected = right[name].features.astype(np.float32)
        apart = np.abs(expected[:, None] - expected).max(axis=2) + 9 * np.eye(len(expected))
        assert apart.min() > 0.008
        np.testing.assert_allclose(record.features, expected[numbers], atol=3e-3)
        assert np.array_equal(record.spans[:, 0], numbers / 5)
    assert check("verify", tmp_path / "kept").code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("misbehaving")
def test_a_partial_video_is_there_and_known_to_be_partial(videos: Path, tmp_path: Path) -> None:
    """And only who asks for partial videos is told that all went well."""
    shutil.copy(videos / "a.mp4", videos / "d_lost30-55.mp4")
    cache, keep = tmp_path / "cache", ("--damaged", "keep", "--json")
    assert extract(videos, cache, *keep).code == 0
    damage = "damaged at 1.2 s; 1 of 4 rows lost"
    known = {"d_lost30-55": f"{damage} (known from an earlier run; --retry-failed tries again)"}
    for options, code in ((keep, 0), (("--json",), 1)):
        ran = extract(videos, cache, *options)
        told = answer(ran)
        assert (ran.code, told["already_there"], told["frames_decoded"]) == (code, 4, 0)
        assert told["partial"] == known and told["failed"] == {}
    # Tried again: what comes of it is told, and what was kept stays.
    ran = extract(videos, cache, "--retry-failed", *keep)
    assert (ran.code, answer(ran)["extracted"], answer(ran)["partial"]) == (0, 1, {"d_lost30-55": damage})
    ran = extract(videos, cache, "--retry-failed", "--json")
    assert ran.code == 1 and answer(ran)["failed"] == {"d_lost30-55": "damaged at 1.2 s"}
    assert list(FeatureCache(cache)[NAME].partial) == ["d_lost30-55"]
    # In another stream there is nothing of it yet.
    ran = extract(videos, cache, "--stream", OTHER, *keep)
    assert ran.code == 0 and answer(ran)["extracted"] == 4 and len(FeatureCache(cache)[OTHER_NAME]) == 4
    assert check("verify", cache).code == 0


@pytest.mark.slow
def test_a_good_copy_takes_the_place_of_a_part(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "d_lost30-55"
    shutil.copy(videos / "a.mp4", videos / f"{name}.mp4")
    with monkeypatch.context() as patch:
        patch.setattr("extract.workers._SERVE", "tests.bad_decoders:misbehaving")
        assert extract(videos, tmp_path / "cache", "--damaged", "keep").code == 0
    write_video(videos / f"{name}.mp4", numbered_frames(80, first=300), fps=25)
    ran = extract(videos, tmp_path / "cache", "--json")
    assert ran.code == 0 and (answer(ran)["extracted"], answer(ran)["partial"]) == (1, {})
    stream = FeatureCache(tmp_path / "cache")[NAME]
    assert_rows(stream[name], videos / f"{name}.mp4", [0, 25, 50, 75])
    assert not stream.partial and check("verify", tmp_path / "cache").code == 0
    assert answer(extract(videos, tmp_path / "cache", "--json"))["already_there"] == 4
    # Of a whole one, it is not known which is meant.
    shutil.copy(videos / "a.mp4", videos / f"{name}.mp4")
    assert (
        "it has changed since it was extracted"
        in answer(extract(videos, tmp_path / "cache", "--json"))["failed"][name]
    )


@pytest.mark.usefixtures("misbehaving")
def test_a_stream_of_which_nothing_is_left_fails_alone(videos: Path, tmp_path: Path) -> None:
    """Two rates of one network, so that both come from one decoding."""
    shutil.copy(videos / "a.mp4", videos / "d_lost0-76.mp4")
    device = torch.device("cpu")
    requests = [parse_stream(STREAM, fps=fps) for fps in (1.0, 25.0)]
    backbones = {r.name: Backbone(r, weights="random:0", device=device) for r in requests}
    settings = Settings(decode_workers=1, batch=16, deadline_s=60, keep_damaged=True)
    outcome = extract_by_one(find_videos([videos / "d_lost0-76.mp4"]), backbones, tmp_path, settings)
    assert outcome.failed == {"d_lost0-76": "damaged at 0.0 s; 4 of 4 rows lost"}
    assert outcome.partial == {"d_lost0-76": "damaged at 0.0 s; 76 of 80 rows lost"}
    cache = FeatureCache(tmp_path)
    assert list(cache[NAME].failures) == ["d_lost0-76"] and not len(cache[NAME])
    record = cache[f"{NAME}@25fps"]["d_lost0-76"]
    assert record.numbers.tolist() == [76, 77, 78, 79] and record.spans[:, 0].tolist() == [
        3.04,
        3.08,
        3.12,
        3.16,
    ]


@pytest.mark.slow
def test_the_decoder_can_be_chosen(videos: Path, tmp_path: Path) -> None:
    for decoder in ("decord", "pyav"):
        ran = extract(videos, tmp_path / decoder, "--decoder", decoder, "--json")
        assert ran.code == 0 and answer(ran)["decoders"] == {decoder: 3}
        stream = FeatureCache(tmp_path / decoder)[NAME]
        assert stream.decoders() == {decoder: 3} and {stream[v].decoder for v in stream} == {decoder}
        assert_rows(stream["a"], videos / "a.mp4", [0, 25, 50, 75])


@pytest.mark.slow
@pytest.mark.usefixtures("misbehaving")
def test_decoders_that_hang_or_crash(videos: Path, tmp_path: Path) -> None:
    for name in ("hang", "crash", "die_midway"):
        shutil.copy(videos / "a.mp4", videos / f"a_{name}.mp4")
    ran = extract(videos, tmp_path / "cache", "--deadline", "10", "--workers", "2", "--json")
    assert ran.code == 1 and decoders() == []
    assert answer(ran)["failed"] == {
        "a_hang": "the decoder got no further for 10 s: given up, and again with PyAV",
        "a_crash": "the decoder crashed (SIGSEGV), and again with PyAV",
        "a_die_midway": "the decoder crashed (exit code 3), and again with PyAV",
    }
    stream = FeatureCache(tmp_path / "cache")[NAME]
    assert list(stream) == ["a", "b", "c"]
    assert_rows(stream["a"], videos / "a.mp4", [0, 25, 50, 75])


@pytest.mark.slow
@pytest.mark.usefixtures("misbehaving")
def test_what_decord_is_lost_with_pyav_decodes(videos: Path, tmp_path: Path) -> None:
    """Rows that were there before a decoder died in the middle must not be there twice, nor be missing."""
    for name in ("hang", "crash", "die_midway", "die_midway_lost30-55"):
        shutil.copy(videos / "a.mp4", videos / f"a_decord_{name}.mp4")
    options = ("--deadline", "10", "--workers", "2", "--batch", "3", "--damaged", "keep", "--json")
    ran = extract(videos, tmp_path / "cache", *options)
    assert ran.code == 0 and answer(ran)["failed"] == {} and decoders() == []
    stream = FeatureCache(tmp_path / "cache")[NAME]
    for name in ("a", "a_decord_hang", "a_decord_crash", "a_decord_die_midway"):
        assert_rows(stream[name], videos / "a.mp4", [0, 25, 50, 75])
    assert_rows(stream["a_decord_die_midway_lost30-55"], videos / "a.mp4", [0, 25, 75])


def jobs_of(paths: list[Path]) -> list[DecodeJob]:
    view = Backbone(parse_stream(STREAM), weights="random:0", device=torch.device("cpu")).view
    return [DecodeJob(i, path, (view,)) for i, path in enumerate(paths)]


@pytest.mark.slow
def test_a_hanging_decoder_is_found_while_the_consumer_is_slow(videos: Path) -> None:
    hang = videos / "hang.mp4"
    shutil.copy(videos / "a.mp4", hang)
    target = "tests.bad_decoders:misbehaving"
    paths = [hang] + [videos / "c.mp4"] * 4000
    ended = 0
    for message in decode_all(jobs_of(paths), workers=2, deadline_s=3, target=target):
        time.sleep(0.05)  # 4000 videos of three messages: ten minutes, if the hanging one is found no sooner
        if isinstance(message, Finished):
            ended += 1
            if message.key == 0:
                assert message.error is not None
                break
    assert ended < 4000
    assert decoders() == []


def test_time_that_all_were_stopped_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("extract.workers.time.monotonic", lambda: now_s)
    clock = AwakeClock()
    for now_s in (100.5, 101.0):
        assert clock() == now_s - 100
    now_s = 4000.0  # Ctrl-Z, and an hour later fg
    assert clock() <= 1 + 5
    awake_s = clock()
    now_s = 4002.0
    assert clock() == awake_s + 2


@pytest.mark.slow
def test_a_slow_consumer_does_not_make_decoders_late(tmp_path: Path) -> None:
    # One second of a thousand frames: three hundred messages, of which the queue holds eight.
    write_video(tmp_path / "a.mp4", numbered_frames(1000, width=64, height=48), fps=1000)
    [job] = jobs_of([tmp_path / "a.mp4"])
    large = replace(job.views[0].preprocessing, resize=320, crop=320)
    quick = replace(job.views[0], sampling=Sampling(fps=1000), preprocessing=large)
    started = time.monotonic()
    for message in decode_all([replace(job, views=(quick,))], workers=1, deadline_s=3):
        if isinstance(message, Opened):
            time.sleep(3 + 2)
        if isinstance(message, Finished):
            assert message.error is None
    assert time.monotonic() - started > 3 + 2


def test_a_consumer_that_leaves_early_leaves_nobody_behind(videos: Path) -> None:
    messages = decode_all(jobs_of([videos / "a.mp4"] * 50), workers=2, deadline_s=60)
    assert isinstance(next(messages), Opened)
    assert decoders()
    messages.close()
    assert decoders() == []


@pytest.mark.slow
def test_messages_are_small(tmp_path: Path) -> None:
    # What is in memory is bounded by messages, so a message must be: a long video is many.
    write_video(tmp_path / "long.mp4", numbered_frames(600, width=64, height=48), fps=1)
    messages = decode_all(jobs_of([tmp_path / "long.mp4"]), workers=1, deadline_s=60)
    parts = [message.pixels for message in messages if isinstance(message, Frames)]
    assert sum(map(len, parts)) == 600 and len(parts) >= 2
    assert max(part.nbytes for part in parts) <= 1 << 20


def test_jobs_that_cannot_be_listed_are_our_error() -> None:
    def jobs() -> Iterator[DecodeJob]:
        yield from jobs_of([Path("x")] * (1 // len([])))

    with pytest.raises(ZeroDivisionError):
        list(decode_all(jobs(), workers=1, deadline_s=1))


# ------------------------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.slow
def test_interrupted_is_one_line_and_resumable(videos: Path, tmp_path: Path) -> None:
    for i in range(12):  # decoders stay at these until interrupted
        shutil.copy(videos / "a.mp4", videos / f"stay_{i:02d}.mp4")
    code = (
        "import extract.workers as w; w._SERVE = 'tests.bad_decoders:misbehaving'; "
        "from extract.cli import batch_extract; batch_extract()"
    )
    arguments = [videos, "--cache", tmp_path / "cache", "--stream", STREAM, "--weights", "random:0"]
    arguments += ["--shard-size", "1", "--workers", "2", "--batch", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[1],
    )
    while not list(tmp_path.glob(f"cache/{NAME}/*.h5")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the group
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (130, "")
    passing = (" frames/s, ", " GFLOPs a row, ")  # progress, every half minute, and what streams cost
    told = [line for line in err.splitlines() if not any(words in line for words in passing)]
    assert told == ["interrupted; run the same command again to finish"]
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert 0 < len(FeatureCache(tmp_path / "cache")[NAME]) <= 3
    assert extract(videos, tmp_path / "cache").code == 0
    assert len(FeatureCache(tmp_path / "cache")[NAME]) == 15


def test_help_is_quick_and_shows_an_example() -> None:
    code = (
        "import sys; from extract.cli import batch_extract; assert 'torch' not in sys.modules; "
        "batch_extract(['--help'])"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "batch-extract VIDEOS/ --cache CACHE --stream mobilenetv2_112" in shown
    assert max(map(len, shown.splitlines())) <= 90
