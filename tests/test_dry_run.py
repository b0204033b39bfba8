"""batch-extract --dry-run: what a run would do, as it is then done, and nothing touched."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.videos import numbered_frames, write_video
from cache_schema import FeatureCache
from extract import dry_run
from extract.dry_run import Forecast, StreamForecast
from tests.test_extract import NAME, OTHER, OTHER_NAME, Ran, answer, extract

SECONDS = {"a": 3.2, "b": 2.0, "c": 0.4}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    for name, seconds in SECONDS.items():
        write_video(folder / f"{name}.mp4", numbered_frames(round(seconds * 25)), fps=25)
    (folder / "f").mkdir()
    for number, frame in enumerate(numbered_frames(10)):
        Image.fromarray(frame).save(folder / f"f/{number}.png")
    return folder


@pytest.fixture
def videos(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "videos"))


def run(videos: Path, cache: Path, *options: str) -> Ran:
    return extract(videos, cache, "--stream", OTHER, "--frames-fps", "5", *options)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything in it, with sizes and times of change."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in [folder, *folder.rglob("*")]}


@pytest.mark.slow
def test_it_says_what_a_run_then_does(videos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "deep/cache"
    before = files(tmp_path)
    dry = run(videos, cache, "--dry-run", "--json")
    assert dry.code == 0 and dry.err == ""
    assert files(tmp_path) == before
    told = answer(dry)
    assert told.pop("seconds") > 0 and told.pop("measured_s") > 0
    assert told["hours"] == pytest.approx((sum(SECONDS.values()) + 2) / 3600)
    assert run(videos, cache).code == 0
    opened = FeatureCache(cache)
    for name in (NAME, OTHER_NAME):
        records = list(opened[name].values())
        assert told["streams"][name] == {
            "there": 0,
            "videos": 4,
            "rows": sum(len(record.spans) for record in records),
            "bytes": sum(
                rows.nbytes
                for record in records
                for rows in (record.features, record.scores, record.spans)
                if rows is not None
            ),
            "gflops": pytest.approx(
                sum(len(record.spans) for record in records) * opened[name].spec.macs_per_row / 1e9
            ),
        }
    expected = {"videos": 4, "to_extract": 4, "opened": 4, "already_there": 0, "cache": str(cache)}
    assert {key: told[key] for key in expected} == expected


@pytest.mark.slow
def test_nothing_is_left_to_do(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    assert run(videos, cache, "--shard-size", "1").code == 0
    (cache / NAME / ".tmp-shard-of-a-killed-run.h5").touch()
    monkeypatch.setattr("cache_schema.index.WRITE_ABOVE", 0)  # opening it otherwise would write an index
    before = files(tmp_path)
    dry = run(videos, cache, "--dry-run", "--json")
    assert files(tmp_path) == before and dry.code == 0
    told = answer(dry)
    assert (told["already_there"], told["to_extract"], told["seconds"]) == (4, 0, None)
    assert told["streams"][NAME] == {"there": 4, "videos": 0, "rows": 0, "bytes": 0, "gflops": 0}
    assert run(videos, cache, "--dry-run").out.splitlines() == [
        "videos          4",
        "in the cache    4",
        "failed earlier  0",
        "refused         0",
        "to extract      0",
        "nothing was written to the cache",
    ]


@pytest.mark.slow
def test_what_would_fail_is_named(videos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (videos / "broken.mp4").write_bytes(b"no video")
    assert extract(videos, cache, "--frames-fps", "5").code == 1
    shutil.copy(videos / "b.mp4", videos / "a.mp4")  # replaced
    shutil.copytree(videos / "f", videos / "deep/f")  # another of its name
    (videos / "new.mp4").write_bytes(b"no video either")
    (videos / "notes.txt").touch()
    dry = extract(videos, cache, "--frames-fps", "5", "--dry-run", "--json")
    assert dry.code == 0
    told = answer(dry)
    assert told["videos"] == 7 and told["already_there"] == 2 and told["left_out"] == {".txt": 1}
    assert list(told["failed_earlier"]) == ["broken"]
    assert set(told["refused"]) == {"a", str(videos / "f"), str(videos / "deep/f")}
    assert (told["to_extract"], list(told["unreadable"]), told["seconds"]) == (1, ["new"], None)
    named = [line.split(": ")[1] for line in dry.lines if line.startswith("would fail: ")]
    assert named == [*told["failed_earlier"], *told["refused"], *told["unreadable"]]
    retried = answer(extract(videos, cache, "--frames-fps", "5", "--dry-run", "--json", "--retry-failed"))
    assert (retried["to_extract"], retried["failed_earlier"]) == (2, {})


@pytest.mark.slow
def test_of_many_videos_some_are_opened(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All alike, so that what some of them say of all is exact."""
    for number in range(40):
        shutil.copy(videos / "b.mp4", tmp_path / f"{number}.mp4")
    shutil.rmtree(videos)
    monkeypatch.setattr(dry_run, "WINDOW_S", 1e-9)
    dry = extract(tmp_path, tmp_path / "cache", "--dry-run", "--json")
    told = answer(dry)
    assert 0 < told["opened"] < 40 and told["to_extract"] == 40
    assert told["hours"] == pytest.approx(40 * 2.0 / 3600)
    assert told["streams"][NAME]["rows"] == 80 and told["seconds"] > 0
    lines = extract(tmp_path, tmp_path / "cache", "--dry-run").out.splitlines()
    assert "to extract      40, about 80 s of video" in lines
    assert any(line.startswith(f"{NAME}  about 80 rows of 40 videos") for line in lines)


def test_a_wrong_request_ends_as_a_run_would(videos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert extract(videos, cache).code == 0
    error = extract(videos, cache, "--dry-run", "--weights", "random:1").error
    assert f"stream {NAME} is there already, but made otherwise" in error
    (tmp_path / "file").touch()
    assert "no such cache folder" in extract(videos, tmp_path / "file", "--dry-run").error


def test_large_numbers_fit_80_columns() -> None:
    stream = StreamForecast(there=1_000_000, videos=900_000, rows=156_000_000, bytes=10**14, gflops=1e12)
    reasons: dict[str, Any] = {str(number): "damaged" for number in range(12_345)}
    forecast = Forecast(
        videos=10_000_000,
        there=1_000_000,
        partial=reasons,
        failed=reasons,
        refused=reasons,
        missing=9_000_000,
        opened=12_345,
        unreadable=reasons,
        duration_s=1e10,
        streams={"efficientnet_b0_224@12.5fps": stream},
        seconds=1e8,
        worked_s=9.9,
    )
    lines = list(forecast.lines())
    assert max(map(len, lines)) <= 80
    assert "about 1,157.4 days" in lines[-2] and "about 115,740.7 days of video" in lines[4]
