"""feature-cache import of features for localization, in twins of the layouts in which they are published.

THRIFTVID_DATA names a folder with published files themselves; without it the tests of those are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_schema import FeatureCache, Sampling, Stream
from cache_schema.costs import cost_table, stream_cost
from extract.backbones import BUILT_IN as BUILT_IN_STREAMS
from tests.cache_commands import files_of, run
from tests.test_cache_import import refused

PUBLISHED = os.environ.get("THRIFTVID_DATA")
needs_published_files = pytest.mark.skipif(not PUBLISHED, reason="THRIFTVID_DATA names no folder")

Features = npt.NDArray[np.float32]
BUILT_IN = ("i3d_rgb_dense16", "i3d_flow_dense16")
RGB_FLOW = ("--stream", "r", "--like", BUILT_IN[0], "--stream", "f", "--like", BUILT_IN[1])
ONE = ("--stream", "mine", "--gflops-per-row", "2")


def features(rows: int, columns: int, seed: int = 0) -> Features:
    return np.random.default_rng([rows, columns, seed]).normal(size=(rows, columns)).astype(np.float32)


def imported(cache: Path, *words: str | Path) -> tuple[dict[str, Stream], str]:
    """The streams of a cache after an import, and what the command printed."""
    code, out, err = run("import", *words, "--into", cache)
    assert code == 0, (out, err)
    assert run("verify", cache)[0] == 0
    opened = FeatureCache(cache)
    return {name: opened[name] for name in opened.streams}, out


def clips(rows: int, *, fps: float, window: int, stride: int) -> list[list[float]]:
    return [[k * stride / fps, (k * stride + window - 1) / fps] for k in range(rows)]


def write_wtalc(
    folder: Path,
    videos: Mapping[str, Features],
    *,
    lengths: Mapping[str, float] | None = None,
    network: str = "I3D",
    claimed_fps: int = 25,
) -> Path:
    annotations = folder / "Thumos14reduced-Annotations"
    annotations.mkdir(parents=True)
    np.save(annotations / "videoname.npy", np.array([name.encode() for name in videos]))
    if lengths is not None:
        np.save(annotations / "duration.npy", np.array([[lengths[name]] for name in videos]))
        np.save(annotations / "extracted_fps.npy", np.full(len(videos), claimed_fps))
    objects = np.empty(len(videos), object)
    objects[:] = list(videos.values())
    path = folder / f"Thumos14reduced-{network}-JOINTFeatures.npy"
    np.save(path, objects)
    return path


def write_files(folder: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> Path:
    for name, values in arrays.items():
        path = folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)
    return folder


def write_hdf5(path: Path, arrays: Mapping[str, npt.NDArray[Any]], **attributes: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values).attrs.update(attributes)
    return path


def write_lengths(path: Path, lengths: Mapping[str, float], **others: float) -> Path:
    database = {video: {"subset": "test", "duration": length, **others} for video, length in lengths.items()}
    path.write_text(json.dumps({"version": "1.3", "database": database}))
    return path


THUMOS = {"video_validation_0000051": features(20, 2048), "video_test_0000004": features(31, 2048)}


# Layouts


def test_wtalc(tmp_path: Path) -> None:
    lengths = {name: (len(rows) * 16 + 7) / 25 for name, rows in THUMOS.items()}
    path = write_wtalc(tmp_path, THUMOS, lengths=lengths, claimed_fps=10)
    streams, out = imported(tmp_path / "cache", path)
    assert tuple(sorted(streams)) == tuple(sorted(BUILT_IN))
    for half, name in enumerate(BUILT_IN):
        stream = streams[name]
        assert stream.spec.sampling == BUILT_IN_STREAMS[name].sampling
        assert json.loads(stream.spec.to_json())["sampling"] == {
            "kind": "dense", "fps": 25.0, "frames": 16, "window": 16, "rows_per_s": 0.0, "clips": 0, "crops": 1,
        }  # fmt: skip
        assert stream_cost(stream.spec).macs == stream.spec.macs_per_row == cost_table()[name].macs
        for video, rows in THUMOS.items():
            record = stream[video]
            expected = rows[:, half * 1024 : half * 1024 + 1024]
            assert np.array_equal(record.features, expected.astype(np.float16))
            assert np.allclose(record.spans, clips(len(rows), fps=25, window=16, stride=16))
            assert record.duration_s == lengths[video]
    for message in (
        "note: read as w-talc: ",
        "note: i3d_rgb_dense16 is the first half of each row, i3d_flow_dense16 is the second half of each row\n",
        "duration.npy: rows of 2 videos fit them at 25 frames a second\n",
        "extracted_fps.npy claims 10 frames a second of 2 videos; their rows contradict it and fit 25, which is",
    ):
        assert message in out, out
    before = files_of(tmp_path / "cache")
    assert out.count("2 videos with 51 rows") == 2
    assert imported(tmp_path / "cache", path)[1].count("0 videos with 0 rows") == 2
    assert files_of(tmp_path / "cache") == before


def test_wtalc_in_one_stream_and_by_other_lists(tmp_path: Path) -> None:
    path = write_wtalc(tmp_path, THUMOS)
    joint, _ = imported(tmp_path / "joint", path, *ONE)
    assert np.array_equal(
        joint["mine"]["video_test_0000004"].features, THUMOS["video_test_0000004"].astype("f2")
    )
    names = tmp_path / "Thumos14reduced-Annotations/videoname.npy"
    moved = path.rename(tmp_path / "features.npy")
    again, out = imported(tmp_path / "again", moved, "--ids", names, *ONE, "--format", "w-talc")
    assert again["mine"].digest() == joint["mine"].digest() and "read as w-talc" in out


def test_bas_net(tmp_path: Path) -> None:
    rows = {"a": (20, 20), "b": (31, 30), "c": (11, 13)}
    arrays = {
        f"{'test' if video == 'c' else 'train'}/{part}/{video}": features(count[part == "flow"], 1024, seed)
        for seed, (video, count) in enumerate(rows.items())
        for part in ("rgb", "flow")
    }
    folder = write_files(tmp_path / "features", arrays)
    streams, out = imported(tmp_path / "cache", folder)
    for part, name in zip(("rgb", "flow"), BUILT_IN, strict=True):
        assert {video: len(streams[name][video].features) for video in rows} == {"a": 20, "b": 30, "c": 11}
        expected = arrays[f"test/{part}/c"][:11].astype(np.float16)
        assert np.array_equal(streams[name]["c"].features, expected)
        assert streams[name].source("c") == f"test/{part}/c.npy"
    assert (
        "note: read as bas-net: " in out and "note: i3d_rgb_dense16 is rgb, i3d_flow_dense16 is flow\n" in out
    )
    assert "rgb and flow differ by one or two rows in 2 videos; the last rows of the longer one are" in out
    assert "left out: 'b', 'c'\n" in out
    moved = {f"{name.split('/')[1]}/x/{name.split('/')[2]}": values for name, values in arrays.items()}
    again, _ = imported(tmp_path / "again", write_files(tmp_path / "moved", moved))
    assert np.array_equal(again[BUILT_IN[1]]["b"].features, streams[BUILT_IN[1]]["b"].features)
    alone, _ = imported(tmp_path / "alone", folder, "--array", "flow", *ONE)
    assert len(alone["mine"]["c"].features) == 13


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_actionformer(form: str, tmp_path: Path) -> None:
    rows = features(40, 12)
    folder = write_files(tmp_path / "i3d_features", {"a": rows})
    if form == "npz":
        (folder / "a.npy").unlink()
        np.savez(folder / "a.npz", feats=rows)
    streams, out = imported(tmp_path / "cache", folder, "--format", "actionformer", *RGB_FLOW)
    assert np.array_equal(streams["f"]["a"].features, rows[:, 6:].astype(np.float16))
    assert np.allclose(streams["r"]["a"].spans, clips(40, fps=30, window=16, stride=4))
    assert [streams[name].spec.macs_per_row for name in "rf"] == [
        cost_table()[name].macs for name in BUILT_IN
    ]
    assert out.count("sampling: clips every 4 frames, 16 frames of 16 at 30 a second\n") == 2
    words = ("--fps", "24", "--stride", "8", "--clip-frames", "32", *ONE)
    changed, out = imported(tmp_path / "changed", folder, "--format", "actionformer", *words)
    assert np.allclose(changed["mine"]["a"].spans, clips(40, fps=24, window=32, stride=8))
    assert "usual clips" not in out
    without, _ = imported(tmp_path / "without", folder, *words)
    assert without["mine"].digest() == changed["mine"].digest()


def test_epic_kitchens(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    np.savez(tmp_path / "features/P01_01.npz", feats=features(9, 6), other=np.ones(3))
    streams, _ = imported(tmp_path / "cache", tmp_path / "features", "--format", "actionformer-epic", *ONE)
    assert np.allclose(streams["mine"]["P01_01"].spans, clips(9, fps=30, window=32, stride=16))
    named, _ = imported(tmp_path / "named", tmp_path / "features", "--array", "feats", "--fps", "1", *ONE)
    assert list(named["mine"]) == ["P01_01"]


def test_activitynet_c3d(tmp_path: Path) -> None:
    """Each video at its own rate: as many frames as its rows need, in the length that the annotations give."""
    rows, fps = {"aa": 100, "bb": 60}, {"aa": 29.97, "bb": 25.0}
    arrays = {f"v_{video}/c3d_features": features(count, 5) for video, count in rows.items()}
    path = write_hdf5(tmp_path / "sub_activitynet_v1-3.c3d.hdf5", arrays)
    frames = {video: (count - 1) * 8 + 16 + 3 for video, count in rows.items()}
    lengths = write_lengths(tmp_path / "anet.json", {video: frames[video] / fps[video] for video in rows})
    streams, out = imported(tmp_path / "cache", path, "--lengths", lengths, *ONE)
    assert streams["mine"].spec.sampling.kind == "dense"
    for video, count in rows.items():
        record = streams["mine"][f"v_{video}"]
        assert np.allclose(record.spans, clips(count, fps=fps[video], window=16, stride=8), rtol=0.005)
        assert record.duration_s == pytest.approx(frames[video] / fps[video])
    assert "sampling: clips of 16 frames every 8, at each video's own rate\n" in out
    assert "by their rows, 2 videos are of 25.03 to 29.99 frames a second\n" in out
    at_30, _ = imported(tmp_path / "at_30", path, "--fps", "30", *ONE)
    assert np.allclose(at_30["mine"]["v_bb"].spans, clips(60, fps=30, window=16, stride=8))


def test_hdf5_attributes(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "tsp.h5", {"v_a": features(9, 4)}, duration=9.7, fps=15.0)
    streams, out = imported(tmp_path / "cache", path, "--format", "tsp", *ONE)
    record = streams["mine"]["v_a"]
    assert (record.duration_s, record.fps) == (9.7, 15.0)
    assert np.allclose(record.spans, clips(9, fps=15, window=16, stride=16))
    assert "lengths in its files: rows of 1 video fit them at 15 frames a second" in out
    each, _ = imported(tmp_path / "each", path, "--format", "tsp", "--fps", "each", *ONE)
    assert np.array_equal(each["mine"]["v_a"].spans, record.spans)
    wrong = write_hdf5(tmp_path / "wrong.h5", {"v_a": features(9, 4)}, duration=20.0)
    assert "1 of 1 video: rows and lengths say" in refused(
        wrong, "--format", "tsp", *ONE, into=tmp_path / "no"
    )


def test_g_tad(tmp_path: Path) -> None:
    """RGB and flow of every frame, each in files of two subsets; flow lacks the last frame."""
    videos = {"val": {"v1": 250, "v2": 300}, "test": {"t1": 100}}
    for part in ("rgb", "flow"):
        for subset, rows in videos.items():
            arrays = {video: features(count - (part == "flow"), 6) for video, count in rows.items()}
            write_hdf5(tmp_path / f"tsn/{part}_{subset}.h5", arrays)
    (tmp_path / "lengths.csv").write_text("video_id;duration_s\n".replace(";", ",") + "v1,10\nv2,10\nt1,4\n")
    words = ("--format", "g-tad", "--lengths", tmp_path / "lengths.csv", *RGB_FLOW)
    streams, out = imported(tmp_path / "cache", tmp_path / "tsn", *words)
    assert "sampling: every frame, at each video's own rate\n" in out
    for name in "rf":
        assert {video: len(streams[name][video].features) for video in streams[name]} == {
            "v1": 249,
            "v2": 299,
            "t1": 99,
        }
        expected = [[k / 30, k / 30] for k in range(299)]
        assert np.allclose(streams[name]["v2"].spans, expected, rtol=0.005)


def as_video_features(
    frames: int, *, fps: float, stack: int, step: int
) -> tuple[list[list[float]], list[float]]:
    """What each row saw, and the instants that are written, of an extractor that reads frame after frame."""
    held, rows, instants = [], [], []
    for frame in range(frames):
        held.append(frame)
        if stack == 1:  # a row for every frame
            rows.append([frame / fps, frame / fps])
            instants.append(1000 * frame / fps)
        elif len(held) == stack + 1:  # the last one is for its flow alone
            rows.append([held[0] / fps, held[-2] / fps])
            instants.append(1000 * frame / fps)
            held = held[step:]
    return rows, instants


def write_video_features(
    folder: Path, videos: Mapping[str, tuple[int, float]], *, stack: int, step: int, keys: tuple[str, ...]
) -> dict[str, list[list[float]]]:
    spans = {}
    for video, (frames, fps) in videos.items():
        spans[video], instants = as_video_features(frames, fps=fps, stack=stack, step=step)
        arrays: dict[str, Any] = {f"{video}_{key}": features(len(instants), 4) for key in keys}
        arrays |= {f"{video}_fps": np.array(fps), f"{video}_timestamps_ms": np.array(instants)}
        write_files(folder, arrays)
    return spans


@pytest.mark.parametrize(
    ("stack", "step", "rates", "words"),
    [
        (64, 64, (25.0, 25.0), "clips end to end, 64 frames of 64 at 25 a second"),
        (24, 10, (29.97, 29.97), "clips every 10 frames, 24 frames of 24 at 29.97 a second"),
        (16, 16, (30.0, 19.62), "clips of 16 frames end to end, at each video's own rate"),
        (16, 4, (30.0, 24.0), "clips of 16 frames every 4, at each video's own rate"),
    ],
)
def test_video_features_of_stacks(
    stack: int, step: int, rates: tuple[float, float], words: str, tmp_path: Path
) -> None:
    folder = tmp_path / "output/i3d"
    videos = {"v_GGSY1Qvo990": (200, rates[0]), "a_b": (70, rates[1])}
    spans = write_video_features(folder, videos, stack=stack, step=step, keys=("rgb", "flow"))
    streams, out = imported(tmp_path / "cache", folder, *RGB_FLOW)
    assert out.count(f"sampling: {words}\n") == 2, out
    for name in "rf":
        assert streams[name].spec.sampling.kind == "dense"
        for video, (_, fps) in videos.items():
            assert np.allclose(streams[name][video].spans, spans[video])
            assert streams[name][video].fps == fps


@pytest.mark.parametrize(("fps", "words"), [(1.0, "a frame every second"), (25.0, "25 frames a second")])
def test_video_features_of_frames(fps: float, words: str, tmp_path: Path) -> None:
    spans = write_video_features(
        tmp_path / "out", {"a": (9, fps), "b": (7, fps)}, stack=1, step=1, keys=("clip",)
    )
    streams, out = imported(tmp_path / "cache", tmp_path / "out", *ONE)
    assert streams["mine"].spec.sampling == Sampling(fps=fps) and f"sampling: {words}\n" in out
    assert np.allclose(streams["mine"]["b"].spans, spans["b"])
    mixed = write_video_features(tmp_path / "out", {"c": (9, 30.0)}, stack=1, step=1, keys=("clip",))
    streams, out = imported(tmp_path / "mixed", tmp_path / "out", *ONE)
    assert "sampling: every frame, at each video's own rate\n" in out
    assert np.allclose(streams["mine"]["c"].spans, mixed["c"])


def test_video_features_without_instants(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "s3d", {"a_s3d": features(5, 4), "b_c_s3d": features(6, 4)})
    words = ("--format", "video-features", "--clip-frames", "64", "--fps", "25", *ONE)
    streams, _ = imported(tmp_path / "cache", folder, *words)
    assert sorted(streams["mine"]) == ["a", "b_c"]
    assert np.allclose(streams["mine"]["a"].spans, clips(5, fps=25, window=64, stride=64))


def test_json_of_two_streams(tmp_path: Path) -> None:
    path = write_wtalc(tmp_path, THUMOS)
    code, out, _ = run("import", path, "--into", tmp_path / "cache", "--json")
    assert code == 0
    assert [(answer["stream"], answer["videos"], answer["feature_dim"]) for answer in json.loads(out)] == [
        (BUILT_IN[0], 2, 1024),
        (BUILT_IN[1], 2, 1024),
    ]


# Rates and lengths

RATES = st.sampled_from([15.0, 24.0, 25.0, 29.97, 30.0, 60.0])


@settings(max_examples=25)
@given(
    fps=RATES,
    other=RATES,
    seconds=st.lists(st.floats(20, 300), min_size=3, max_size=5),
    window=st.sampled_from([8, 16, 64]),
    part=st.sampled_from([1, 2, 4]),
    padded=st.booleans(),
)
def test_a_rate_fits_its_lengths_and_no_other_does(
    fps: float,
    other: float,
    seconds: list[float],
    window: int,
    part: int,
    padded: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("lengths")
    stride = window // part
    counts = {}
    for number, length_s in enumerate(seconds):
        starts = range(0, round(length_s * fps), stride)
        whole = [start for start in starts if start + window <= round(length_s * fps)]
        counts[f"v{number}"] = len(starts if padded else whole)
    write_files(folder / "features", {video: features(count, 2) for video, count in counts.items()})
    lengths = write_lengths(folder / "l.json", dict(zip(counts, seconds, strict=True)))
    clip = ("--clip-frames", str(window), "--stride", str(stride), "--lengths", lengths, *ONE)
    words = ("import", folder / "features", *clip, "--into", folder / "cache")
    code, out, err = run(*words, "--fps", str(fps))
    assert code == 0 and f"rows of {len(seconds)} videos fit them at {fps:g} frames" in out, (out, err)
    shutil.rmtree(folder / "cache")
    code, out, err = run(*words, "--fps", str(other))
    if abs(other / fps - 1) < 0.01:
        assert code == 0
    elif code:
        assert ("contradicts" in err or "are far off" in err) and not (folder / "cache").exists()
    else:  # of a rate that is 4 % off, few clips in 20 s say little
        off = abs(other / fps - 1)
        assert off < 0.05 and off * min(seconds) < 3 * window / other, (fps, other, out)


def test_a_wrong_rate_says_the_right_one(tmp_path: Path) -> None:
    rows = {f"v{i}": 600 + i for i in range(12)}
    folder = write_files(tmp_path / "features", {video: features(count, 2) for video, count in rows.items()})
    words = (folder, "--clip-frames", "16", *ONE)

    def lengths(name: str, fps: Callable[[int], float]) -> tuple[str, Path]:
        seconds = {video: (count * 16 + 5) / fps(i) for i, (video, count) in enumerate(rows.items())}
        return "--lengths", write_lengths(tmp_path / f"{name}.json", seconds, fps=10)

    at_25, mixed = lengths("25", lambda i: 25), lengths("mixed", lambda i: 30 if i % 2 else 25)
    err = refused(*words, "--fps", "30", *at_25, into=tmp_path / "no")
    assert (
        "25.json: contradicts 30 frames a second in 12 of 12 videos: rows and lengths say 25.01, as 'v0'"
        in err
    )
    assert (
        "with 600 rows in 384.2 s does: give --fps 25; --allow-other-lengths imports them as they are" in err
    )
    anyway, out = imported(tmp_path / "anyway", *words, "--fps", "30", *at_25, "--allow-other-lengths")
    assert (
        "rows of 12 videos do not fit them at 30 frames a second, 'v" in out and "16.6% shorter; kept" in out
    )
    assert np.allclose(anyway["mine"]["v0"].spans, clips(600, fps=30, window=16, stride=16))
    _, out = imported(tmp_path / "25", *words, "--fps", "25", *at_25)
    assert (
        "25.json claims 10 frames a second of 12 videos; their rows contradict it and fit 25, which is" in out
    )
    assert "give --fps each" in refused(*words, "--fps", "25", *mixed, into=tmp_path / "no")
    assert "give --fps each" in refused(*words, "--fps", "15", *mixed, into=tmp_path / "no")
    each, out = imported(tmp_path / "each", *words, "--fps", "each", *mixed)
    assert "12 videos are of 25.01 to 30.01 frames a second" in out
    assert np.allclose(each["mine"]["v1"].spans, clips(601, fps=30, window=16, stride=16), rtol=2e-3)


def test_single_videos_that_do_not_fit(tmp_path: Path) -> None:
    rows = {f"v{i}": 600 for i in range(9)}
    folder = write_files(tmp_path / "features", {video: features(count, 2) for video, count in rows.items()})
    seconds = dict.fromkeys(rows, 600 * 16 / 25)
    words = (folder, "--clip-frames", "16", "--fps", "25", *ONE)
    near = write_lengths(tmp_path / "near.json", {**seconds, "v3": seconds["v3"] * 1.01})
    _, out = imported(tmp_path / "near", *words, "--lengths", near)
    assert "rows of 8 videos fit them" in out and "rows of 1 video do not fit them" in out
    assert "'v3' is 0.9% shorter; kept as they are: 'v3'\n" in out
    far = write_lengths(tmp_path / "far.json", {**seconds, "v3": 900.0})
    err = refused(*words, "--lengths", far, into=tmp_path / "no")
    assert f"{folder}/v3.npy: video 'v3': at 25 frames a second its 600 rows last 384.3 s, but 900.0 s" in err
    assert "1 of 9 videos are far off: get their features again, or leave them out" in err
    _, out = imported(tmp_path / "each", *words[:3], "--fps", "each", "--lengths", far, *ONE)
    assert "1 video of no usual rate, 'v3' of 10.68" in out
    some = write_lengths(tmp_path / "some.json", {"v0": seconds["v0"]})
    _, out = imported(tmp_path / "some", *words, "--lengths", some)
    assert "rows of 1 video fit them" in out and "8 videos not in" in out
    err = refused(*words[:3], "--fps", "each", "--lengths", some, *ONE, into=tmp_path / "no")
    assert "video 'v1': each video's clips are at its own rate" in err


# What is refused


def objects_of(*values: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        array = np.empty(len(values), object)
        array[:] = values
        return write_wtalc_file(folder, array)

    return write


def write_wtalc_file(folder: Path, array: npt.NDArray[Any]) -> Path:
    path = write_wtalc(folder, {"a": features(3, 4), "b": features(3, 4)})
    np.save(path, array, allow_pickle=True)
    return path


class Calls:
    """A pickle that runs a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def folder_of(**arrays: Any) -> Callable[[Path], Path]:
    named = {name.replace("__", "/"): np.asarray(values) for name, values in arrays.items()}
    return lambda folder: write_files(folder / "features", named)


def hdf5_of(**arrays: Any) -> Callable[[Path], Path]:
    named = {name.replace("__", "/"): np.asarray(values) for name, values in arrays.items()}
    return lambda folder: write_hdf5(folder / "a.h5", named)


def linked_hdf5(folder: Path) -> Path:
    write_hdf5(folder / "other.h5", {"a": ROWS})
    with h5py.File(folder / "a.h5", "w") as file:
        file["a"] = h5py.ExternalLink("other.h5", "/a")
    return folder / "a.h5"


def linked_part_hdf5(folder: Path) -> Path:
    write_hdf5(folder / "other.h5", {"a": ROWS})
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_group("a")["c3d_features"] = h5py.ExternalLink("other.h5", "/a")
    return folder / "a.h5"


def external_hdf5(folder: Path) -> Path:
    (folder / "secret").write_bytes(bytes(48))
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("a", (3, 4), "f4", external=[(str(folder / "secret"), 0, 48)])
    return folder / "a.h5"


def cut_hdf5(folder: Path) -> Path:
    path = write_hdf5(folder / "a.h5", {"a": features(300, 4)})
    path.write_bytes(path.read_bytes()[:4000])
    return path


ROWS = features(3, 4)
NAN = np.where(np.eye(3, 4), np.nan, ROWS).astype(np.float32)
AT_25 = ("--clip-frames", "16", "--fps", "25")
STAMPS = {"a_fps": 25.0, "a_timestamps_ms": [640.0, 1280.0, 1920.0]}


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (objects_of(ROWS, Calls()), (), "nothing in it was executed: it wants to call 'posix.system'"),
        (objects_of(ROWS, NAN), RGB_FLOW, "video 'b': its features are not finite"),
        (objects_of(ROWS, ROWS[:0]), RGB_FLOW, "video 'b': its features have shape (0, 4); no rows in it: leave"),
        (objects_of(ROWS, features(3, 6)), RGB_FLOW, "video 'b': it has 3 features a row, the stream 2"),
        (objects_of(ROWS, [1.0]), RGB_FLOW, "video 'b': a list, where an array is expected"),
        (objects_of(ROWS, ROWS[None]), RGB_FLOW, "video 'b': its features have shape (1, 3, 4); (rows, columns)"),
        (objects_of(ROWS), RGB_FLOW, "objects of shape (1,), where an array for each of 2 videos is expected"),
        (objects_of(features(3, 5), ROWS), RGB_FLOW, "video 'a': rows of 5 features have no halves"),
        (objects_of(ROWS, ROWS), (), "video 'a': 2 features, and i3d_rgb_dense16 has 1,024: name the streams"),
        (folder_of(train__rgb__a=ROWS, test__rgb__a=ROWS, test__flow__a=ROWS), RGB_FLOW,
         "video 'a' occurs twice, as test/rgb/a.npy and as train/rgb/a.npy"),
        (folder_of(rgb__a=ROWS, rgb__b=ROWS, flow__a=ROWS), RGB_FLOW, "b.npy: video 'b': has rgb but no flow"),
        (folder_of(rgb__a=ROWS, flow__a=ROWS, flow__b=ROWS), RGB_FLOW, "b.npy: video 'b': has flow but no rgb"),
        (folder_of(rgb__a=features(9, 4), flow__a=ROWS), RGB_FLOW, "video 'a': 9 rows of rgb, but 3 of flow"),
        (folder_of(rgb__a=ROWS, flow__a=ROWS, c=ROWS), RGB_FLOW, "c.npy: in no folder rgb or flow, as others are"),
        (folder_of(rgb__a=ROWS, flow__a=ROWS), ONE, "holds rgb, flow: give two streams (--stream RGB"),
        (folder_of(rgb__a=ROWS, flow__a=ROWS), (*ONE, "--array", "x"), "no 'x' in it; --array may be: rgb, flow"),
        (folder_of(a=ROWS), AT_25, "name the stream to make: --stream NAME"),
        (folder_of(a=ROWS), (*RGB_FLOW, "--stream", "x", *AT_25), "--like is given 2 times for 3 streams: once"),
        (folder_of(a=ROWS), (*ONE, "--stream", "mine", *AT_25), "--stream mine is given twice, and RGB and flow"),
        (folder_of(a=ROWS), (*ONE, "--stream", "f", "--stream", "g", *AT_25), "--stream is given once, or twice"),
        (folder_of(a=ROWS), (*ONE, "--stride", "4", "--fps", "25"), "--stride needs --clip-frames"),
        (folder_of(a=ROWS), (*ONE, "--stride", "4", "--clips", "3"), "--clips says that rows are spread"),
        (folder_of(a=ROWS), (*ONE, "--fps", "soon"), "'soon' is not a valid float"),
        (folder_of(a=ROWS), (*ONE, "--fps", "each"), "video 'a': each video's clips are at its own rate"),
        (folder_of(a=ROWS), (*ONE, "--what", "scores", "--stream", "f", "--fps", "1"), "these are scores"),
        (folder_of(a_rgb=ROWS, a_timestamps_ms=[0.0]), ONE, "a_timestamps_ms.npy: no a_fps.npy beside it"),
        (folder_of(a_rgb=ROWS, **STAMPS, b_rgb=ROWS), ONE, "b_rgb.npy: no b_timestamps_ms.npy beside it"),
        (folder_of(a_rgb=ROWS, **STAMPS, b_fps=1.0, b_timestamps_ms=[1.0]), ONE, "instants of 'b', but no"),
        (folder_of(a_rgb=ROWS, **STAMPS, b_rgb=[], b_fps=1.0, b_timestamps_ms=[]), ONE,
         "no rows of 1 video, as of videos that are shorter than a stack: leave their files out: 'b'"),
        (folder_of(a_rgb=ROWS[:2], **STAMPS), ONE, "video 'a': 2 rows, but 3 instants beside it"),
        (folder_of(a_rgb=ROWS[:0], **STAMPS), ONE, "video 'a': its features have shape (0, 4); no rows in it"),
        (folder_of(a_rgb=ROWS, **{**STAMPS, "a_fps": 0.0}), ONE, "a_fps.npy: 0.0 is no rate"),
        (folder_of(a_rgb=ROWS, **{**STAMPS, "a_fps": [25.0, 25.0]}), ONE, "a_fps.npy: [25.0, 25.0] is no rate"),
        (folder_of(a_rgb=ROWS, **{**STAMPS, "a_fps": np.nan}), ONE, "a_fps.npy: finite numbers are expected"),
        (folder_of(a_rgb=ROWS, **{**STAMPS, "a_timestamps_ms": [3.0, 1.0, 2.0]}), ONE, "not instants in order"),
        (folder_of(a_rgb=ROWS, **STAMPS), (*ONE, "--fps", "25"), "its files say when rows are: leave out"),
        (folder_of(a_rgb=ROWS, **STAMPS), (*ONE, "--format", "tsp"), "its files say when rows are: leave out"),
        (folder_of(a_rgb=ROWS, a_resnet=ROWS, **STAMPS), ONE, "holds resnet, rgb: say which with --array"),
        (folder_of(i3d__a_rgb=ROWS, i3d__a_fps=25.0, i3d__a_timestamps_ms=[1.0], clip__a_fps=1.0), ONE,
         "a_fps.npy: also in"),
        (hdf5_of(), ONE, "a.h5: no videos in it"),
        (hdf5_of(a=ROWS, b=NAN), (*ONE, *AT_25), "a.h5: video 'b': its features are not finite"),
        (hdf5_of(a=ROWS, b=ROWS[:0]), (*ONE, *AT_25), "video 'b': its features have shape (0, 4); no rows in it"),
        (hdf5_of(a=ROWS, b=features(3, 5)), (*ONE, *AT_25), "video 'b': it has 5 features a row, the stream 4"),
        (hdf5_of(a=ROWS, b=np.array([b"text"])), (*ONE, *AT_25), "video 'b': its features are of type"),
        (hdf5_of(a=ROWS, b__x=ROWS), (*ONE, *AT_25), "video 'b': a group, where other videos are datasets"),
        (hdf5_of(a__x=ROWS, b__y=ROWS), (*ONE, *AT_25), "video 'b': no dataset 'x', which other videos have"),
        (hdf5_of(a__x=ROWS, a__y=ROWS), (*ONE, *AT_25), "a.h5: holds x, y: say which with --array"),
        (hdf5_of(a__b__c=ROWS), (*ONE, *AT_25), "video 'a': a group without datasets; one for each video"),
        (hdf5_of(a=ROWS), (*ONE, "--what", "scores"), "a.h5: HDF5 is read as features"),
        (hdf5_of(a__c3d_features=ROWS), ONE, "each video's clips are at its own rate, which"),
        (linked_hdf5, (*ONE, *AT_25), "video 'a': 'a' is a link to elsewhere, which is not followed"),
        (linked_part_hdf5, (*ONE, *AT_25), "a.h5: video 'a': 'c3d_features' is a link to elsewhere"),
        (external_hdf5, (*ONE, *AT_25), "video 'a': its rows are in another file: give that one"),
        (cut_hdf5, (*ONE, *AT_25), "a.h5: not readable HDF5, cut or damaged"),
    ],
)  # fmt: skip
def test_one_line_that_names_the_file(
    make: Callable[[Path], Path],
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("import", make(tmp_path), *words, "--into", tmp_path / "cache")
    assert (code, out) == (2, ""), (code, out, err)
    line = err.splitlines()[-1]
    assert line.startswith("Error: ") and message in line, err
    assert not [*tmp_path.rglob("shard-*")] and not (tmp_path / "executed").exists()


@settings(max_examples=25)
@given(data=st.data())
def test_damage_is_one_line_or_none(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("damage")
    makes: list[tuple[Callable[[Path], Path], tuple[str, ...]]] = [
        (hdf5_of(a=ROWS, b=ROWS), (*ONE, *AT_25)),
        (hdf5_of(a__c3d_features=ROWS), (*ONE, "--fps", "30")),
        (objects_of(ROWS, ROWS), RGB_FLOW),
        (folder_of(a_rgb=ROWS, **STAMPS), ONE),
    ]
    make, words = data.draw(st.sampled_from(makes))
    source = make(folder)
    path = data.draw(st.sampled_from(sorted(source.iterdir()))) if source.is_dir() else source
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    code, _, err = run("import", source, *words, "--into", folder / "cache")
    assert (code == 0 and not err) or (code == 2 and err.count("\n") == 1 and str(folder) in err), (code, err)
    assert code == 2 or run("verify", folder / "cache")[0] == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.json", "[1]", "l.json: cannot be read as a list of lengths"),
        ("l.json", "{", "l.json: cannot be read as a list of lengths: not such a list"),
        ("l.json", '{"database": {"a": {"subset": "test"}}}', "l.json: no lengths in it"),
        ("l.json", '{"a": {"duration": "long"}}', "l.json: video 'a': 'long' is no length in seconds"),
        ("l.json", '{"a": {"duration": -1}}', "l.json: video 'a': -1 is no length in seconds"),
        ("l.csv", "video_id,seconds\na,1\n", "l.csv: no column 'duration_s' in its first line"),
        ("l.csv", "name,duration_s\na,1\n", "l.csv: no column 'video_id' in its first line"),
        ("l.csv", "video_id,duration_s\na,\n", "l.csv: video 'a': '' is no length in seconds"),
        ("none.json", "", "none.json: cannot be read as a list of lengths"),
    ],
)
def test_lists_of_lengths(name: str, text: str, message: str, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "features", {"a": ROWS})
    if text:
        (tmp_path / name).write_text(text)
    err = refused(folder, *AT_25, *ONE, "--lengths", tmp_path / name, into=tmp_path / "cache")
    assert message in err, err


def test_wtalc_lists_that_do_not_fit(tmp_path: Path) -> None:
    videos = {"a": ROWS, "b": ROWS}
    path = write_wtalc(tmp_path, videos, lengths={"a": 2.0, "b": 2.0})
    annotations = tmp_path / "Thumos14reduced-Annotations"
    np.save(annotations / "duration.npy", np.array([2.0]))
    err = refused(path, *RGB_FLOW, into=tmp_path / "cache")
    assert (
        "duration.npy: float64 of shape (1,), where a number for each of the 2 videos of videoname.npy" in err
    )
    np.save(annotations / "videoname.npy", np.array([b"a", b"a"]))
    assert "videoname.npy: video 'a' occurs twice" in refused(path, *RGB_FLOW, into=tmp_path / "cache")
    shutil.rmtree(annotations)
    err = refused(path, *RGB_FLOW, into=tmp_path / "cache")
    assert "which videos its arrays are of is in W-TALC's videoname.npy: " in err and "--ids" in err
    other = write_wtalc(tmp_path / "unt", videos, network="UNT")
    assert "name the stream to make" in refused_without_stream(other, tmp_path / "cache")
    assert "say where in a video its rows are" in refused(other, *ONE, into=tmp_path / "cache")


def refused_without_stream(path: Path, into: Path) -> str:
    code, out, err = run("import", path, "--into", into)
    assert (code, out) == (2, "")
    return err


def test_what_comes_before_a_bad_video_stays_and_the_rest_follows(tmp_path: Path) -> None:
    """Damage in the second half of a row: RGB is in the cache, and flow up to that video."""
    videos = {f"v{i}": features(5, 4, seed=i) for i in range(6)}
    videos["v4"][2, 3] = np.nan
    folder = write_files(tmp_path / "features", videos)
    words = ("import", folder, *AT_25, *RGB_FLOW, "--shard-size", "2", "--into", tmp_path / "cache")
    code, _, err = run(*words)
    assert code == 2 and f"{folder}/v4.npy: video 'v4': its features are not finite" in err
    assert [len(FeatureCache(tmp_path / "cache")[name]) for name in "rf"] == [6, 4]
    np.save(folder / "v4.npy", np.nan_to_num(videos["v4"]))
    before = files_of(tmp_path / "cache")
    out = run(*words)[1]
    assert "cache/r: 0 videos with 0 rows" in out and "cache/f: 2 videos with 10 rows" in out
    assert before.items() <= files_of(tmp_path / "cache").items()


# Published files


@needs_published_files
def test_published_cases(tmp_path: Path) -> None:
    cases = Path(PUBLISHED or "") / "cases"
    streams, _ = imported(tmp_path / "tsp", cases / "tsp.h5", "--format", "tsp", *ONE)
    assert {video: len(streams["mine"][video].features) for video in streams["mine"]} == {
        f"v_vid{i}": 6 for i in range(5)
    }
    streams, _ = imported(tmp_path / "i3d", cases / "video_features_output", *RGB_FLOW)
    for name in "rf":
        assert sorted(streams[name]) == ["v_GGSY1Qvo990", "v_ZNVhz7ctTq0"]
        record = streams[name]["v_ZNVhz7ctTq0"]
        assert record.spans[:, 0].tolist() == [0, 1, 2, 3, 4] and record.fps == 19.62


@needs_published_files
def test_published_wtalc_annotations(tmp_path: Path) -> None:
    """Features of 25 frames a second for W-TALC's own lists, which claim 10."""
    published = Path(PUBLISHED or "") / "wtalc_thumos14reduced"
    annotations = tmp_path / "Thumos14reduced-Annotations"
    annotations.mkdir()
    for path in published.glob("*.npy"):
        shutil.copyfile(path, annotations / path.name)
    lengths = np.load(annotations / "duration.npy").ravel()
    objects = np.empty(len(lengths), object)
    objects[:] = [features(max(1, int(length_s * 25 / 16)), 2) for length_s in lengths]
    np.save(tmp_path / "Thumos14reduced-I3D-JOINTFeatures.npy", objects, allow_pickle=True)
    streams, out = imported(tmp_path / "cache", tmp_path / "Thumos14reduced-I3D-JOINTFeatures.npy", *RGB_FLOW)
    assert len(streams["r"]) == 412 and streams["r"]["video_test_0001496"].duration_s > 0
    assert "rows of 412 videos fit them at 25 frames a second" in out
    assert "extracted_fps.npy claims 10 frames a second of 412 videos" in out
