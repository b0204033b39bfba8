"""run-policy on runs, outputs and videos that are not what it expects: one clear line, and nothing lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.videos import numbered_frames, write_video
from cache_schema import UserError
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.sources import SourceVideo
from policy.deploy import engine
from policy.deploy.engine import Answer, Failure, Settings, Spent, Step
from policy.deploy.engine import run_policy as run_engine
from policy.deploy.predictions_file import PredictionsFile
from policy.evaluation.detection import Detections
from policy.runs import Run
from policy.session import FloatArray
from tests import test_run_policy
from tests.test_bad_places import disk, mount
from tests.test_run_policy import (
    CHEAP,
    CPU,
    FPS,
    SECONDS,
    Collection,
    Hasty,
    command,
    engine_for,
    lines_of,
    traced,
)

collection = test_run_policy.collection
liteeval = test_run_policy.liteeval

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------------------------------ runs


def changed(run: Run, folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a run with another content in one of its files."""
    copy = Path(shutil.copytree(run.folder, folder))
    content = json.loads((copy / name).read_text())
    change(content)
    (copy / name).write_text(json.dumps(content))
    return copy


def of_an_earlier_version(content: dict[str, Any]) -> None:
    content["result"] = {"gflops_coarse": 1.0}


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("config.json", lambda c: c["config"].update(method="of tomorrow"), "not a config of this version"),
        ("config.json", lambda c: c["config"].update(tomorrow=1), "not a config of this version"),
        ("config.json", lambda c: c["streams"]["coarse"].update(tomorrow=1), "not a config of this version"),
        ("config.json", lambda c: c.pop("classes"), "not a config of this version"),
        ("result.json", of_an_earlier_version, "of an earlier version; give the run's command again"),
        ("result.json", lambda c: c.clear(), "not a result of this version"),
        (
            "config.json",
            lambda c: c["streams"]["coarse"].update(backbone="imported"),
            "is none that can be built here",
        ),
        (
            "config.json",
            lambda c: c["streams"]["coarse"].update(backbone="timm:of_tomorrow"),
            "has no network 'of_tomorrow'",
        ),
    ],
)
def test_a_run_that_is_not_of_this_version(
    collection: Collection,
    liteeval: Run,
    name: str,
    change: Callable[[dict[str, Any]], None],
    problem: str,
    tmp_path: Path,
) -> None:
    run = changed(liteeval, tmp_path / "run", name, change)
    assert problem in command(run, collection.videos / "v00.mp4", tmp_path / "out.csv").error


def test_a_run_that_is_a_file(collection: Collection, tmp_path: Path) -> None:
    video = collection.videos / "v00.mp4"
    assert (
        f"{video}: no run folder of train-policy (a file); give"
        in command(video, video, tmp_path / "out.csv").error
    )


# ------------------------------------------------------------------------------------------------ outputs


def answer(video: str, classes: int = 2) -> Answer:
    found = Detections(np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([[0.0, 1.0]]), np.array([0.5]))
    step = Step("stream", np.arange(3), np.zeros((3, 2)), 1.0)
    return Answer(
        SourceVideo(video, Path(f"{video}.mp4")),
        duration_s=3.0,
        probabilities=np.linspace(0, 1, classes),
        gflops={"stream": 1.0},
        expensive_rows=(1, 3),
        detections=found,
        steps=(step,),
        frames_decoded=3,
        frames_held=3,
        spent=Spent(),
    )


def opened(folder: Path, run: str = "a" * 12, out: str = "out.csv", **options: Any) -> PredictionsFile:
    return PredictionsFile(folder / out, run_key=run, classes=("left", "right"), top=1, **options)


FILES = {"trace": "trace.jsonl", "detections": "found.json"}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("run", ["a" * 12, "b" * 12])
def test_files_of_other_predictions_are_not_overwritten(tmp_path: Path, name: str, run: str) -> None:
    """Of another run, or of the same one with another --out."""
    other = tmp_path / FILES[name]
    options: dict[str, Any] = {name: other}
    file = opened(tmp_path, **options)
    for video in ("v0", "v1"):
        file.add(answer(video), "content")
    file.close()
    before = other.read_bytes()
    for _ in range(2):
        with pytest.raises(UserError, match=f"{other}: has .* other predictions; choose another file"):
            opened(tmp_path, run, "new.csv", **options)
        assert other.read_bytes() == before
    file = opened(tmp_path, **options)  # its own goes on
    assert file.done.keys() == {"v0", "v1"}
    file.close()
    assert other.read_bytes() == before


def test_a_trace_of_another_run(tmp_path: Path) -> None:
    for run, out, trace in (("a" * 12, "a.csv", "trace.jsonl"), ("b" * 12, "b.csv", "b.jsonl")):
        file = opened(tmp_path, run, out, trace=tmp_path / trace)
        file.add(answer("v0"), "content")
        file.close()
    before = (tmp_path / "b.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"b\.jsonl: has the trace of another run"):
        opened(tmp_path, "a" * 12, "a.csv", trace=tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_bytes() == before


def test_outputs_that_are_no_files(collection: Collection, liteeval: Run, tmp_path: Path) -> None:
    videos, out = collection.videos / "v00.mp4", tmp_path / "out.csv"
    (tmp_path / "folder").mkdir()
    (tmp_path / "out.failed.csv").write_text("notes\n")
    assert "is a folder; --out is the name of a CSV file" in command(liteeval, videos, tmp_path).error
    assert "out.failed.csv: is something else" in command(liteeval, videos, out).error
    assert (tmp_path / "out.failed.csv").read_text() == "notes\n"
    (tmp_path / "out.failed.csv").unlink()
    same = command(liteeval, videos, out, "--trace", out)
    assert "predictions, trace and detections are different files" in same.error
    assert "Is a directory" in command(liteeval, videos, out, "--trace", tmp_path / "folder").error
    command(liteeval, videos, out, "--trace", tmp_path / "t.jsonl", "--weights", "other=random:1")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]  # nothing of what was refused


@pytest.mark.parametrize("room", [*range(4096, 5 * 4096, 4096)])
def test_a_full_disk(tmp_path: Path, room: int) -> None:
    """Whatever there is no room for is named, and the next call goes on with all files in step."""
    with disk(tmp_path / "disk", f"{room}") as folder:
        paths: dict[str, Any] = {name: folder / file for name, file in FILES.items()}
        problem = f"{folder}/.*: {os.strerror(errno.ENOSPC)}"

        def fill() -> None:
            file = opened(folder, **paths)
            with pytest.raises(UserError, match=problem):
                for number in range(200):
                    file.add(answer(f"v{number}"), "content")
                    file.add_failed(f"f{number}", "damaged", "content", keep_damaged=False)
                    file.flush()
            file.close()

        try:
            fill()
        except UserError as error:  # already the header has no room
            assert os.strerror(errno.ENOSPC) in str(error)
        mount("-o", "remount,size=10m", folder)
        file = opened(folder, **paths)
        done, failed = set(file.done), set(file.failed)
        assert len(done) < 200 and len(failed) < 200 and file.untraced == 0
        for number in range(200):
            if f"v{number}" not in done:
                file.add(answer(f"v{number}"), "content")
        file.close()
        assert lines_of(folder / "out.csv").keys() == traced(paths["trace"]).keys()
        assert len(lines_of(folder / "out.csv")) == len(paths["trace"].read_text().splitlines()) == 200
        assert len(json.loads(paths["detections"].read_text())["results"]) == 200


# ------------------------------------------------------------------------------------------------ failures


@pytest.fixture
def videos(collection: Collection, tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    shutil.copy(collection.videos / "v00.mp4", tmp_path / "videos")
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    return tmp_path / "videos"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the videos that the engine was given."""
    ids: list[str] = []

    def noting(videos: Iterator[SourceVideo], *rest: Any) -> Any:
        def noted() -> Iterator[SourceVideo]:
            for video in videos:
                ids.append(video.id)
                yield video

        return run_engine(noted(), *rest)

    monkeypatch.setattr(engine, "run_policy", noting)
    return ids


@pytest.mark.slow
def test_what_failed_is_known_to_the_next_call(
    collection: Collection, liteeval: Run, videos: Path, tried: list[str], tmp_path: Path
) -> None:
    out, failed = tmp_path / "out.csv", tmp_path / "out.failed.csv"
    first = command(liteeval, videos, out)
    assert first.code == 1 and "failed: broken: " in first.err and tried == ["broken", "v00"]
    assert lines_of(failed).keys() == {"broken"} and lines_of(out).keys() == {"v00"}
    reason = lines_of(failed)["broken"]["reason"]
    again = command(liteeval, videos, out)
    assert again.code == 1 and tried == ["broken", "v00"]
    assert f"failed: broken: {reason} (known from an earlier call; --retry-failed tries again)" in again.err
    assert "0 predicted, 1 already there, 1 failed" in again.out
    # What was asked for is something else now, once.
    for _ in range(2):
        assert command(liteeval, videos, out, "--damaged", "keep").code == 1
    assert tried == ["broken", "v00", "broken"]
    assert command(liteeval, videos, out, "--retry-failed").code == 1
    assert tried == ["broken", "v00", "broken", "broken"]
    # A file with another content is another video.
    shutil.copy(collection.videos / "v01.mp4", videos / "broken.mp4")
    assert command(liteeval, videos, out).code == 0
    assert lines_of(out).keys() == {"v00", "broken"} and command(liteeval, videos, out).code == 0
    assert not failed.exists()


def test_failures_of_another_run_are_nobodys(tmp_path: Path) -> None:
    for run, known in (("a" * 12, set()), ("a" * 12, {"v0"}), ("b" * 12, set())):
        file = opened(tmp_path, run, f"{run}.csv")
        assert file.failed.keys() == known
        file.add_failed("v0", "a reason, with a comma", "content", keep_damaged=True)
        file.close()
        (tmp_path / f"{'b' * 12}.failed.csv").write_bytes((tmp_path / f"{'a' * 12}.failed.csv").read_bytes())
    cut = (tmp_path / f"{'a' * 12}.failed.csv").read_bytes()[:-20]
    (tmp_path / f"{'a' * 12}.failed.csv").write_bytes(cut)  # a line that was not written to its end
    file = opened(tmp_path, "a" * 12, f"{'a' * 12}.csv")
    assert file.failed["v0"].reason == "a reason, with a comma"
    file.close()


def test_a_video_that_is_replaced_while_it_is_read(
    collection: Collection, liteeval: Run, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.csv"
    (videos / "broken.mp4").unlink()

    def replacing(*arguments: Any) -> Any:
        for outcome in run_engine(*arguments):
            shutil.copy(collection.videos / "v01.mp4", videos / "v00.mp4")
            yield outcome

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run_policy", replacing)
        ran = command(liteeval, videos, out)
    assert ran.code == 1 and "failed: v00: the file was changed while it was read" in ran.err
    assert not lines_of(out)
    assert command(liteeval, videos, out).code == 0
    assert float(lines_of(out)["v00"]["duration_s"]) == SECONDS["v01"]


# ------------------------------------------------------------------------------------------------ videos


def test_odd_names(collection: Collection, liteeval: Run, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "loop").symlink_to(folder)
    (folder / "self.mp4").symlink_to(folder / "self.mp4")
    for name in (b"two\nlines.mp4", b'\xff, "quoted".mp4', b"twice.mp4", b"below/twice.mp4"):
        shutil.copy(collection.videos / "v00.mp4", folder / os.fsdecode(name))
    out, trace = tmp_path / "out.csv", tmp_path / "trace.jsonl"
    ran = command(liteeval, folder, out, "--trace", trace)
    assert ran.code == 1
    failed = [line for line in ran.err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 3 and sum("its id 'twice' is also that of" in line for line in failed) == 2
    assert any("self.mp4: " in line and "symbolic links" in line for line in failed)
    assert len(lines_of(out)) == 2 and lines_of(out).keys() == traced(trace).keys()
    assert not any("\n" in video for video in lines_of(out))
    again = command(liteeval, folder, out, "--trace", trace)
    assert "0 predicted, 2 already there, 3 failed" in again.out


class Picky(Hasty):
    """A session for videos of two rows and more."""

    def begin(self, spans_s: Mapping[str, FloatArray], *, video_id: str = "") -> None:
        if any(len(spans) < 2 for spans in spans_s.values()):
            raise ValueError("1 row is no clip, which has 2")
        super().begin(spans_s, video_id=video_id)


@pytest.mark.slow
def test_a_video_shorter_than_a_clip(tmp_path: Path) -> None:
    """It has one row, as in the cache, whose last frame stays on screen; unless the policy wants more."""
    write_video(tmp_path / "short.mp4", numbered_frames(3), fps=FPS)
    source = SourceVideo("short", tmp_path / "short.mp4")
    spec = Backbone(parse_stream("x3d_xs_dense16", size=32), weights="random:0", device=CPU).spec
    assert spec.sampling.window / spec.sampling.fps > 0.3
    for session in (Hasty(spec, 3), Picky(spec, 3)):
        (outcome,) = run_engine([source], session, engine_for(session), Settings(1))
        if isinstance(session, Picky):
            assert outcome == Failure(source, "1 row is no clip, which has 2")
        else:
            assert isinstance(outcome, Answer) and [len(step.rows) for step in outcome.steps] == [1]


@pytest.mark.slow
def test_rows_that_are_not_finite_fail_their_video_alone(collection: Collection) -> None:
    spec = Backbone(parse_stream(test_run_policy.STREAMS[CHEAP]), weights="random:0", device=CPU).spec
    session = Hasty(spec, 3)

    def spoil(rows: Any) -> Any:
        rows = torch.as_tensor(np.array(rows))
        return torch.full_like(rows, float("nan")) if next(count) == 2 else rows

    count = iter(range(1000))  # features and class scores of each row
    sources = [collection.source(video) for video in ("v00", "v01")]
    outcomes = list(run_engine(sources, session, engine_for(session), Settings(1), adapt=spoil))
    assert outcomes[0] == Failure(sources[0], f"features of {spec.name} are not finite")
    assert isinstance(outcomes[1], Answer)
    kept = replace(Settings(1), keep_damaged=True)
    count = iter(range(1000))
    (outcome, _) = run_engine(sources, session, engine_for(session), kept, adapt=spoil)
    assert isinstance(outcome, Answer) and outcome.damage == f"features of {spec.name} are not finite"
