"""Pictures of chosen frames, and seconds on this machine: what only videos and backbones can tell."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from benchmarks.videos import numbered_frames, read_frame_number, write_video
from cache_schema import FeatureCache, Sampling, StreamSpec, UserError, write_shard
from extract.backbones import BUILT_IN, parse_stream
from extract.backbones.backbone import Backbone
from policy.data.batches import Batch, VideoSet
from policy.data.opening import Dataset, open_dataset
from policy.deploy import speed
from policy.deploy.frames import find_videos, thumbnails
from policy.deploy.speed import Subject, build, forward_pass, measure, policy_seconds, request_of
from policy.deploy.timing import Machine, medians
from policy.method import Method, evaluate
from policy.registry import METHODS, configure
from tests.caches import make_spec
from tests.planted import write_planted

CPU = torch.device("cpu")
TINY = "timm:resnet10t@32"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of 25 numbered frames each."""
    path = tmp_path_factory.mktemp("videos") / "sub" / "v.mp4"
    path.parent.mkdir()
    write_video(path, numbered_frames(100), fps=25)
    return path


def test_thumbnails_are_the_frames_on_screen(video: Path) -> None:
    times = np.array([0.0, 3.0, 1.0, 1.01, 3.99])
    pictures = thumbnails(video, times, height=128)
    assert [read_frame_number(picture) for picture in pictures] == [0, 75, 25, 25, 99]
    spans = np.stack([times, times], axis=1)
    again = thumbnails(video, spans, height=128)
    assert all((a == b).all() for a, b in zip(pictures, again, strict=True))
    (middle,) = thumbnails(video, np.array([[1.0, 3.0]]), height=128)
    assert read_frame_number(middle) == 50
    assert thumbnails(video, np.empty(0)) == []


def test_thumbnails_of_a_folder_of_frames(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames" / "v"
    folder.mkdir(parents=True)
    with av.open(str(video)) as container:
        for number, frame in enumerate(container.decode(video=0), 1):
            frame.to_image().save(folder / f"img_{number:05}.png")
    for root in (tmp_path, folder.parent):
        found = find_videos([root], ["v"])
        assert found == {"v": folder}
    pictures = thumbnails(folder, np.array([0.0, 3.0, 1.0]), frames_fps=25, height=128)
    assert [read_frame_number(picture) for picture in pictures] == [0, 75, 25]


def test_thumbnails_keep_the_shape(video: Path) -> None:
    (small,) = thumbnails(video, np.array([0.0]), height=32)
    assert small.shape == (32, 48, 3) and small.dtype == np.uint8
    assert read_frame_number(small) == 0


def test_trouble_with_a_file_names_it(video: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"v\.mp4: lasts 4\.0 s, but .* second 60\.0"):
        thumbnails(video, np.array([0.0, 60.0]))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    for path in (broken, tmp_path / "missing.mp4"):
        with pytest.raises(UserError, match=path.name) as caught:
            thumbnails(path, np.array([0.0]))
        assert "\n" not in str(caught.value)


def test_videos_are_found_by_either_kind_of_id(tmp_path: Path) -> None:
    for name in ("a/one.mp4", "a/two.mkv", "b/two.mkv", "b/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = find_videos([tmp_path], ["one", "a/one", "b/two", "two", "absent"])
    assert found == {
        "one": tmp_path / "a/one.mp4",
        "a/one": tmp_path / "a/one.mp4",
        "b/two": tmp_path / "b/two.mkv",  # "two" are two
    }
    with pytest.raises(UserError, match=r"none of the 1 videos is there, 'absent'"):
        find_videos([tmp_path], ["absent"])
    with pytest.raises(UserError, match="no such file or folder"):
        find_videos([tmp_path / "nowhere"], ["one"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no videos in"):
        find_videos([tmp_path / "empty"], ["one"])


@pytest.mark.slow
def test_policy_imports_extract_only_where_it_is_used() -> None:
    code = (
        "import sys, policy.deploy.frames, policy.deploy.speed, policy.sheets.page; "
        "import policy.tables.plots.filmstrip; "
        "sys.exit(any(name.split('.')[0] == 'extract' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", [*BUILT_IN, "timm:resnet18@64"])
def test_what_a_stream_was_made_by_follows_from_its_spec(name: str) -> None:
    request = parse_stream(name)
    flow = f"{request.flow} random:0" if request.flow else None
    resize = request.resize or request.size
    spec = make_spec(
        request.name,
        backbone=request.network,
        sampling=request.sampling,
        preprocessing=replace(make_spec().preprocessing, resize=resize, crop=request.size, flow=flow),
    )
    assert request_of(spec) == replace(request, resize=resize)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Time stands still but for what a test adds to the last element."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    yield now


def seconds_per_row(stream: StreamSpec | str, batch: int, repeats: int) -> float:
    request = parse_stream(stream) if isinstance(stream, str) else request_of(stream)
    return medians({"": forward_pass(build(request, CPU), batch)}, repeats, CPU)[""] / batch


def test_the_median_time_of_a_batch_is_divided_by_its_rows(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([9.0, 8.0, 2.0, 4.0, 99.0, 50.0])  # the first does not count
    seen = []

    def call(self: Backbone, pixels: torch.Tensor) -> None:
        seen.append((self.spec.backbone, tuple(pixels.shape), pixels.dtype))
        clock[0] += next(seconds)

    monkeypatch.setattr(Backbone, "__call__", call)
    assert seconds_per_row(TINY, batch=2, repeats=3) == 2.0
    assert seen == [("timm:resnet10t", (2, 32, 32, 3), torch.uint8)] * 4
    assert seconds_per_row(TINY, batch=2, repeats=3) == 25.0  # one of 99 s is not repeated


def test_a_real_backbone_takes_time() -> None:
    assert seconds_per_row(TINY, batch=2, repeats=1) > 0


@pytest.mark.slow
def test_clips_take_time_too() -> None:
    seen = replace(make_spec().preprocessing, resize=130, crop=130)
    clips = make_spec(
        "x3d", backbone="x3d_xs", preprocessing=seen, sampling=Sampling("clips", 30.0, 4, 8, clips=1)
    )
    assert seconds_per_row(clips, batch=1, repeats=1) > 0


def test_a_stream_that_cannot_be_timed_is_named() -> None:
    with pytest.raises(UserError, match="unknown stream 'nonsense'"):
        seconds_per_row("nonsense", batch=1, repeats=1)
    with pytest.raises(UserError, match="no backbone 'somebody:net' to time"):
        seconds_per_row(make_spec("theirs", backbone="somebody:net"), batch=1, repeats=1)
    with pytest.raises(UserError, match="X3D-XS takes clips"):
        seconds_per_row(make_spec("small", backbone="x3d_xs"), batch=1, repeats=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Planted videos; the coarse stream says that resnet10t made it, the fine one an unknown network."""
    folder = tmp_path_factory.mktemp("planted")
    cache, labels = write_planted(folder, train=20, test=20, dim=6)
    stream = cache["coarse_112"]
    spec = replace(
        stream.spec,
        name="resnet10t_32",
        backbone="timm:resnet10t",
        preprocessing=replace(stream.spec.preprocessing, resize=32, crop=32),
    )
    write_shard(folder / spec.name, spec, [stream[video] for video in stream], tools={})
    return open_dataset(FeatureCache(folder), labels, {"coarse": "resnet10t_32", "fine": "fine_224"})


def made(name: str, data: Dataset) -> tuple[Method, Subject]:
    torch.manual_seed(0)
    config = configure(
        name, {"coarse_hidden": 4, "fine_hidden": 8, "usage": 0.5, "frames": 5, "gate_draws": 2}
    )
    method = METHODS[name](config, data)
    predictions = evaluate(method, data.evaluation, device=CPU)
    return method, Subject(name, method, data.evaluation, predictions)


def test_a_policy_is_timed_on_every_video_once(
    data: Dataset, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    method, _ = made("lstm-cf", data)
    predict = type(method).predict
    sizes = []

    def slow(self: Method, batch: object, generator: torch.Generator) -> object:
        answer = predict(self, batch, generator)  # type: ignore[arg-type]
        sizes.append(len(answer.scores))
        clock[0] += 0.5 * len(answer.scores)
        return answer

    monkeypatch.setattr(type(method), "predict", slow)
    seconds = policy_seconds(method, data.evaluation, batch=8, repeats=2, device=CPU)
    assert sizes == [8] * 6 + [4] * 3  # 20 videos; each batch once unmeasured, twice measured
    assert seconds == pytest.approx(0.5)


def test_of_many_videos_a_sample_is_timed(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    method, _ = made("lstm-cf", data)
    monkeypatch.setattr(speed, "SAMPLED", 3)
    timed: list[int] = []
    read = VideoSet.batch

    def batch(self: VideoSet, indices: Sequence[int], *more: Any, **named: Any) -> Batch:
        timed.extend(indices)
        return read(self, indices, *more, **named)

    monkeypatch.setattr(VideoSet, "batch", batch)
    assert policy_seconds(method, data.evaluation, batch=2, repeats=1, device=CPU) > 0
    assert timed == [0, 1, 8, 9, 18, 19]


def test_rows_add_up(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    _, coarse = made("coarse-only", data)
    _, both = made("random-gating", data)
    said: list[str] = []
    monkeypatch.setattr(speed, "build", lambda request, device: request)
    monkeypatch.setattr(speed, "forward_pass", lambda backbone, batch: lambda: backbone)
    monkeypatch.setattr(
        speed, "medians", lambda works, repeats, device: dict.fromkeys(works, 1.6)
    )  # each batch
    runtimes = measure([coarse, both], device=CPU, report=said.append)
    lengths = np.diff(coarse.predictions.offsets)
    row = runtimes.rows[0]
    assert row.title == "coarse-only" and row.reason == ""
    assert row.streams_s == {"coarse": pytest.approx(0.1 * lengths.mean())}
    assert row.networks_s == pytest.approx(2 * 1.6 / 20)  # two batches of 16
    assert row.seconds == pytest.approx(0.1 * lengths.mean() + 0.16)
    assert runtimes.batch == 16 and said[0] == "timing resnet10t_32, fine_224"


def test_a_backbone_made_elsewhere_has_no_time(data: Dataset) -> None:
    subjects = [made(name, data)[1] for name in ("coarse-only", "liteeval", "lstm")]
    coarse, lite, lstm = measure(subjects, device=CPU, batch=4, repeats=1).rows
    assert coarse.seconds is not None and coarse.seconds > coarse.networks_s > 0
    for row in (lite, lstm):
        assert row.seconds is None and row.streams_s["fine"] is None and row.networks_s > 0
        assert row.reason.startswith("fine_224: ") and "tiny" in row.reason
    assert lite.streams_s["coarse"] == coarse.streams_s["coarse"] and set(lstm.streams_s) == {"fine"}


def test_every_fine_row_is_charged(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "build", lambda request, device: request)
    monkeypatch.setattr(speed, "forward_pass", lambda backbone, batch: lambda: None)
    monkeypatch.setattr(speed, "medians", lambda works, repeats, device: dict.fromkeys(works, 4.0))
    _, subject = made("random-gating", data)
    (row,) = measure([subject], device=CPU, batch=4).rows
    gates = subject.predictions.gates
    assert 0.3 < gates.mean() < 0.7
    assert row.streams_s["fine"] == pytest.approx(gates.sum() / len(gates) / 20)  # a second each


def test_the_machine_is_named() -> None:
    machine = Machine.of(CPU)
    assert machine.processor and machine.threads == torch.get_num_threads()
    assert str(machine) == f"{machine.processor}, {machine.threads} CPU threads, torch {torch.__version__}"
