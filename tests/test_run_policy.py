"""run-policy: the answers of the cached evaluation from video files, and no more work than the policy wants."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from benchmarks.videos import media_data, numbered_frames, write_video
from cache_schema import FeatureCache, Sampling, StreamSpec, UserError
from cache_schema.annotations import LabelSet, VideoLabel
from extract.backbones import parse_stream
from extract.backbones.backbone import Backbone
from extract.batch import extract
from extract.decode_packets import Findings
from extract.decode_video import Video
from extract.pipeline import Settings as ExtractSettings
from extract.sources import SourceVideo, find_videos
from extract.views import View
from policy.baselines.config import FastForwardConfig, FineLSTMConfig, FrameGlimpseConfig
from policy.cli.run_policy import run_policy
from policy.config import RunConfig
from policy.deploy.engine import Answer, Failure, Settings
from policy.deploy.engine import run_policy as run_engine
from policy.deploy.network import Backbones
from policy.deploy.session import open_session
from policy.deploy.trace_file import read_trace
from policy.deploy.videos import Frames, Open, RawVideo, Want
from policy.liteeval.config import LiteEvalConfig, RandomGatingConfig
from policy.liteeval.session import LiteEvalSession
from policy.localization.config import LocalizationSelectorConfig, WTALCConfig
from policy.localization.detections import read as read_detections
from policy.localization.judged import Localizations
from policy.runs import WEIGHTS, Run, run_method
from policy.samplers.ar_net_config import ARNetConfig
from policy.selection.config import SelectorCascadeConfig, SelectorConfig
from policy.session import Rows, Session, Wanted
from tests.caches import make_spec

CPU = torch.device("cpu")
CHEAP, DEAR = "test_convnext_64", "test_resnet_96"
STREAMS = {CHEAP: "timm:test_convnext@64", DEAR: "timm:test_resnet@96"}
FPS = 10
SECONDS = {f"v{n:02d}": 3 + 2 * (n % 4) for n in range(12)}  # lengths of the videos
CLASSES = ("left", "right")
TEST = tuple(SECONDS)[6:]

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Collection:
    """Videos that batch-extract has extracted, and their labels."""

    videos: Path
    cache: FeatureCache
    labels: LabelSet

    def source(self, video_id: str) -> SourceVideo:
        return SourceVideo(video_id, self.videos / f"{video_id}.mp4")


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = tmp_path_factory.mktemp("collection")
    (folder / "videos").mkdir()
    random = np.random.default_rng(0)
    labels = []
    for number, (name, seconds) in enumerate(SECONDS.items()):
        frames = list(numbered_frames(seconds * FPS, first=100 * number))
        label = CLASSES[number % 2]
        for second in range(seconds):  # a square at the class's side, in some of the seconds
            for frame in frames[second * FPS : (second + 1) * FPS] if random.random() < 0.5 else ():
                frame[70:120, slice(10, 60) if label == "left" else slice(130, 180)] = (250, 40, 40)
        write_video(folder / "videos" / f"{name}.mp4", frames, fps=FPS)
        labels.append(VideoLabel(name, (label,), "test" if name in TEST else "train"))
    backbones = {
        name: Backbone(parse_stream(stream), weights="random:0", device=CPU)
        for name, stream in STREAMS.items()
    }
    outcome = extract(
        find_videos([folder / "videos"]), backbones, folder / "cache", ExtractSettings(1, 16, 120.0)
    )
    assert outcome.extracted == len(SECONDS) and not outcome.failed
    return Collection(
        folder / "videos",
        FeatureCache(folder / "cache"),
        LabelSet(folder / "labels.csv", tuple(labels)),
    )


LITEEVAL = LiteEvalConfig(
    coarse=CHEAP,
    fine=DEAR,
    epochs=3,
    batch=3,
    lr=1e-2,
    coarse_hidden=6,
    fine_hidden=12,
    gamma=0.4,
    usage_loss="constrained",
)


@pytest.fixture(scope="module")
def liteeval(collection: Collection, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A policy whose gate is open for some of the rows, wherever training has left it."""
    run = run_method(
        LITEEVAL, collection.cache, collection.labels, tmp_path_factory.mktemp("run"), device="cpu"
    )
    assert 0.1 < run.predictions().gates.mean() < 0.9
    return run


def engine_for(session: Session, **options: Any) -> Backbones:
    weights = dict.fromkeys(session.streams, "random:0")
    return Backbones(session.streams, weights=weights, device=CPU, **options)


def answers(
    run: Run, sources: Sequence[SourceVideo], how: Settings | None = None, **options: Any
) -> dict[str, Answer]:
    session = open_session(run.folder)
    found = {}
    for outcome in run_engine(sources, session, engine_for(session), how or Settings(4), **options):
        assert isinstance(outcome, Answer), outcome
        found[outcome.video.id] = outcome
    return found


def to_half(rows: Rows) -> Rows:
    """As the cache has them."""
    return np.asarray(rows).astype(np.float16)


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a request that was refused."""
        assert self.code == 2 and self.out == "" and "Traceback" not in self.err
        *_, line = self.err.splitlines()
        assert line.startswith("Error: ")
        return line


def command(run: Run | Path, videos: Path | list[Path], out: Path, *options: str | Path) -> Ran:
    folder = run.folder if isinstance(run, Run) else run
    named = videos if isinstance(videos, list) else [videos]
    arguments = [folder, *named, "--out", out, "--in-flight", "3", *options]
    result = CliRunner().invoke(run_policy, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def lines_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["video_id"]: row for row in csv.DictReader(file, strict=True)}


def wait_for_lines(process: subprocess.Popen[bytes], path: Path, count: int) -> None:
    """Until a process has written so many of a file."""
    deadline_s = time.monotonic() + 300
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.01)


def traced(path: Path) -> dict[str, dict[str, Any]]:
    return {line["video_id"]: line for line in map(json.loads, path.read_text().splitlines())}


# ------------------------------------------------------------------------------------------------ the same answers


def opened_rows(answer: Answer) -> list[int]:
    return [row for step in answer.steps if step.stream == DEAR for row in step.rows.tolist()]


@pytest.mark.slow
def test_liteeval_answers_as_in_its_cache(collection: Collection, liteeval: Run) -> None:
    predicted = liteeval.predictions()
    sources = [collection.source(video) for video in predicted.video_ids]
    rounded, plain = answers(liteeval, sources, adapt=to_half), answers(liteeval, sources)
    wrong = rows = 0
    for number, video in enumerate(predicted.video_ids):
        gates = predicted.gates[0, slice(*predicted.offsets[number : number + 2])]
        # Rounded as the cache is, nothing differs but the order of additions.
        assert opened_rows(rounded[video]) == np.flatnonzero(gates).tolist()
        np.testing.assert_allclose(rounded[video].probabilities, predicted.scores[0, number], atol=1e-4)
        np.testing.assert_allclose(plain[video].probabilities, predicted.scores[0, number], atol=2e-3)
        wrong += len(set(opened_rows(plain[video])) ^ set(np.flatnonzero(gates).tolist()))
        rows += len(gates)
        assert sum(rounded[video].gflops.values()) == pytest.approx(predicted.gflops[0, number], abs=1e-9)
        assert rounded[video].expensive_rows == (int(gates.sum()), len(gates))
    assert wrong <= 0.001 * rows


MODELS = (CHEAP, DEAR)
POOL: dict[str, Any] = {"models": MODELS, "heads": "linear", "folds": 2, "epochs": 3, "batch": 3}


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        FineLSTMConfig(fine=DEAR, frames=3, epochs=1, batch=3, fine_hidden=4),
        FrameGlimpseConfig(fine=DEAR, glimpses=4, epochs=2, batch=3, fine_hidden=4, lr=0.1),
        FastForwardConfig(fine=DEAR, strides=2, epochs=2, batch=3, fine_hidden=4),
        RandomGatingConfig(
            coarse=CHEAP, fine=DEAR, usage=0.4, seed=5, epochs=1, batch=3, coarse_hidden=4, fine_hidden=6
        ),
        ARNetConfig(streams=(DEAR, CHEAP), epochs=4, batch=3, policy_hidden=4, lr=3e-2),
        SelectorConfig(**POOL, target="loss"),
        SelectorCascadeConfig(**POOL, budget=0.04, threshold=None),
    ],
    ids=lambda config: config.method,
)
def test_others_answer_as_in_their_cache(collection: Collection, config: RunConfig, tmp_path: Path) -> None:
    run = run_method(config, collection.cache, collection.labels, tmp_path, device="cpu")
    predicted = run.predictions()
    sources = [collection.source(video) for video in predicted.video_ids]
    rounded, plain = answers(run, sources, adapt=to_half), answers(run, sources)
    for number, video in enumerate(predicted.video_ids):
        np.testing.assert_allclose(rounded[video].probabilities, predicted.scores[0, number], atol=1e-4)
        np.testing.assert_allclose(plain[video].probabilities, predicted.scores[0, number], atol=2e-3)
        for found in (rounded[video], plain[video]):  # the same models, and rows of them
            assert sum(found.gflops.values()) == pytest.approx(predicted.gflops[0, number], abs=1e-9)


REAL = os.environ.get("THRIFTVID_VIDEOS")


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="THRIFTVID_VIDEOS names no folder of videos")
def test_real_videos_get_the_answers_of_their_cache(liteeval: Run, tmp_path: Path) -> None:
    """What cannot be extracted has no answer, for the same reason."""
    from policy.finished import predict_run

    sources = find_videos([Path(str(REAL))])
    session = open_session(liteeval.folder)
    built = {
        name: Backbone(parse_stream(stream), weights="random:0", device=CPU)
        for name, stream in STREAMS.items()
    }
    outcome = extract(sources, built, tmp_path / "cache", ExtractSettings(1, 16, 120.0))
    cached = predict_run(liteeval.folder, FeatureCache(tmp_path / "cache"))
    for adapt, tolerance in ((to_half, 1e-4), (np.asarray, 2e-3)):
        found = {}
        failed = {}
        for one in run_engine(sources.videos, session, engine_for(session), Settings(4), adapt=adapt):
            if isinstance(one, Failure):
                failed[one.video.id] = one.reason
            else:
                found[one.video.id] = one.probabilities
        assert failed == outcome.failed and found.keys() == set(cached.video_ids)
        for video, probabilities in zip(cached.video_ids, cached.probabilities, strict=True):
            np.testing.assert_allclose(found[video], probabilities, atol=tolerance)


@pytest.fixture(scope="module")
def localizers(collection: Collection, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("localizers")

    def trained(name: str, config: RunConfig) -> Run:
        return run_method(config, collection.cache, collection.labels, folder / name, device="cpu")

    small: dict[str, Any] = {"hidden": 8, "epochs": 2, "epoch_steps": 3, "batch": 4, "pairs": 1, "lr": 1e-2}
    return {
        "both": trained("both", WTALCConfig(appearance=CHEAP, motion=DEAR, **small)),
        "cheap": trained("cheap", WTALCConfig(appearance=CHEAP, **small)),
        "dear": trained("dear", WTALCConfig(motion=DEAR, **small)),
        "selector": trained(
            "selector",
            LocalizationSelectorConfig(
                appearance=CHEAP,
                motion=DEAR,
                appearance_run=str(folder / "cheap"),
                motion_run=str(folder / "dear"),
                epochs=2,
                beta=0.5,
            ),
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both", "selector"])
@pytest.mark.parametrize("ending", [".json", ".csv"])
def test_localizers_find_what_they_find_in_their_cache(
    collection: Collection, localizers: Mapping[str, Run], name: str, ending: str, tmp_path: Path
) -> None:
    run = localizers[name]
    judged = run.judged()
    assert isinstance(judged, Localizations)
    written = tmp_path / f"found{ending}"
    videos = [collection.videos / f"{video}.mp4" for video in judged.video_ids]
    half = videos[: len(videos) // 2]
    for some in (half, videos):  # the second call adds to what the first has found
        ran = command(run, some, tmp_path / "out.csv", "--detections", written)
        assert ran.code == 0, ran.err
    labels = [video for video in collection.labels.videos if video.video_id in judged.video_ids]
    classes = open_session(run.folder).classes
    ours = read_detections(written, labels, classes)
    theirs = read_detections(run.folder / f"detections{ending}", labels, classes)

    def ordered(found: Any) -> NDArray[np.float64]:
        columns = np.column_stack([found.videos, found.classes, found.spans, found.scores])
        return columns[np.lexsort(columns.T[3::-1])]

    assert len(theirs) > 0
    np.testing.assert_allclose(ordered(ours), ordered(theirs), atol=5e-3)


# ------------------------------------------------------------------------------------------------ what is written


@pytest.mark.slow
def test_what_is_written(collection: Collection, liteeval: Run, tmp_path: Path) -> None:
    out, trace = tmp_path / "out.csv", tmp_path / "trace.jsonl"
    ran = command(liteeval, collection.videos, out, "--top", "1", "--trace", trace, "--json")
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    assert (summary["videos"], summary["predicted"], summary["failed"]) == (12, 12, {})
    parts = [summary["decoding_seconds"], summary["policy_seconds"], *summary["network_seconds"].values()]
    assert len(parts) == 4 and all(part > 0 for part in parts)
    assert sum(parts[1:]) < summary["seconds"]  # one after another; decoding goes on beside them
    rows, steps = lines_of(out), traced(trace)
    predicted = liteeval.predictions()
    assert rows.keys() == steps.keys() == SECONDS.keys()
    for number, video in enumerate(predicted.video_ids):
        row, best = rows[video], int(predicted.scores[0, number].argmax())
        assert row["label_1"] == CLASSES[best]
        assert float(row["probability_1"]) == pytest.approx(predicted.scores[0, number, best], abs=2e-3)
        assert float(row["duration_s"]) == SECONDS[video]
        coarse = [step for step in steps[video]["steps"] if step["stream"] == CHEAP]
        seconds = list(range(SECONDS[video]))
        assert [row for step in coarse for row in step["rows"]] == seconds
        assert [span for step in coarse for span in step["spans_s"]] == [[s, s] for s in seconds]
        fine = len(steps[video]["steps"]) - len(coarse)
        assert float(row["expensive_share"]) == pytest.approx(fine / SECONDS[video], abs=1e-6)
        assert float(row["gflops"]) == pytest.approx(steps[video]["steps"][-1]["gflops"], abs=1e-6)
        assert read_trace(trace)[video].answer == {CLASSES[best]: float(row["probability_1"])}
        assert [*read_trace(trace)[video].streams] == [CHEAP, DEAR]  # whether a gate has opened or not
    assert summary["expensive_share"] == pytest.approx(
        sum(float(row["expensive_share"]) * SECONDS[video] for video, row in rows.items())
        / sum(SECONDS.values()),
        abs=1e-6,
    )
    again = command(liteeval, collection.videos, out, "--top", "1", "--trace", trace)
    assert again.code == 0 and "0 predicted, 12 already there" in again.out


@pytest.mark.slow
def test_one_after_another_as_many_together(collection: Collection, liteeval: Run) -> None:
    sources = [collection.source(video) for video in SECONDS]
    alone, together = (answers(liteeval, sources, Settings(count)) for count in (1, 7))
    assert list(alone) == list(SECONDS)  # in order
    for video, answer in alone.items():
        np.testing.assert_allclose(answer.probabilities, together[video].probabilities, atol=1e-4)
        assert opened_rows(answer) == opened_rows(together[video])
    again = answers(liteeval, sources, Settings(7))
    assert list(again) == list(together)
    for video, answer in again.items():  # to the last bit, whichever decoder was quicker
        assert np.array_equal(answer.probabilities, together[video].probabilities)


# -------------------------------------------------------------------------------------------------- what it takes


@pytest.mark.slow
def test_seconds_are_counted_where_they_are_spent(
    collection: Collection, liteeval: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, calls = ("v00", "v01"), 0
    wanted = LiteEvalSession.wanted

    def slow(self: LiteEvalSession) -> Wanted | None:
        nonlocal calls
        calls += 1
        time.sleep(0.01)
        return wanted(self)

    monkeypatch.setattr(LiteEvalSession, "wanted", slow)
    busy = Settings(2, target="tests.bad_processes:busy")
    found = answers(liteeval, [collection.source(video) for video in names], busy)
    policy_s = sum(answer.spent.policy_s for answer in found.values())
    assert 0.01 * calls <= policy_s < 0.01 * calls + 5
    for answer in found.values():
        # It is busy for 0.5 s of CPU when it opens a video, and sleeps for 3 s.
        assert 0.5 <= answer.spent.decoding_s < 3


def test_the_last_line_says_what_took_the_time(collection: Collection, liteeval: Run, tmp_path: Path) -> None:
    ran = command(liteeval, [collection.videos / "v00.mp4"], tmp_path / "out.csv")
    pattern = r"[\d.]+ s: decoding [\d.]+ s of CPU, networks [\d.]+ s, policy [\d.]+ s"
    assert ran.code == 0 and re.fullmatch(pattern, ran.out.splitlines()[-1])
    again = command(liteeval, [collection.videos / "v00.mp4"], tmp_path / "out.csv")
    [line] = again.out.splitlines()  # nothing was done, so nothing is said of how quickly
    assert line == f"1 video: 0 predicted, 1 already there, 0 failed; {tmp_path / 'out.csv'}"


# --------------------------------------------------------------------------------------------- only what is wanted


@pytest.mark.slow
def test_only_wanted_rows_are_computed(collection: Collection, liteeval: Run) -> None:
    session = open_session(liteeval.folder)
    backbones = engine_for(session)
    sources = [collection.source(video) for video in SECONDS]
    outcomes = list(run_engine(sources, session, backbones, Settings(4)))
    opened = sum(len(opened_rows(outcome)) for outcome in outcomes if isinstance(outcome, Answer))
    assert backbones.rows == {CHEAP: sum(SECONDS.values()), DEAR: opened}
    assert sum(outcome.frames_decoded for outcome in outcomes if isinstance(outcome, Answer)) == sum(
        SECONDS.values()
    )


def test_a_backbone_is_built_when_it_is_first_wanted(
    collection: Collection, liteeval: Run, tmp_path: Path
) -> None:
    closed = with_threshold(liteeval, 1e9, tmp_path / "closed")
    session = open_session(closed)
    wrong = Backbones(
        session.streams, weights={CHEAP: "random:0", DEAR: str(tmp_path / "none.safetensors")}, device=CPU
    )
    outcomes = list(run_engine([collection.source("v00")], session, wrong, Settings(2)))
    assert isinstance(outcomes[0], Answer) and outcomes[0].expensive_rows == (0, SECONDS["v00"])


def with_threshold(run: Run, threshold: float, folder: Path) -> Path:
    """The same run with another threshold of its gate."""
    shutil.copytree(run.folder, folder)
    tensors = load_file(folder / WEIGHTS)
    tensors["threshold"].fill_(threshold)
    save_file(tensors, folder / WEIGHTS)
    return folder


class Hasty(Session):
    """A session that is sure after so many rows of one stream."""

    def __init__(self, spec: StreamSpec, rows: int) -> None:
        super().__init__({spec.name: spec}, CLASSES)
        self._name, self._rows = spec.name, rows
        self._restart()

    def _restart(self) -> None:
        self._taken = 0

    def wanted(self) -> Any:
        from policy.session import Wanted

        spans_s = self._spans_s.get(self._name, np.empty((0, 2)))[: self._rows]
        rows = np.arange(self._taken, min(self._taken + 1, len(spans_s)))
        return Wanted(self._name, rows, spans_s[rows]) if len(rows) else None

    def _see(self, stream: str, features: Any, scores: Any) -> None:
        self._taken += 1

    @property
    def probabilities(self) -> torch.Tensor:
        return torch.full((2,), 0.5)

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        return {self._name: self._taken}


class OpenInShort(LiteEvalSession):
    """Its gate is open in the first row of videos that have few, and nowhere else."""

    def _opens(self, learned: bool) -> bool:
        return self.frames == 1 and len(self._spans_s[CHEAP]) < 10


def test_a_video_does_not_wait_until_another_ends(
    collection: Collection, liteeval: Run, tmp_path: Path
) -> None:
    """Even where that one has more rows of another stream at any time."""
    write_video(tmp_path / "long.mp4", numbered_frames(60 * FPS), fps=FPS)
    trained = open_session(liteeval.folder)
    assert isinstance(trained, LiteEvalSession)
    session = OpenInShort(trained.model, *trained.streams.values())
    sources = [SourceVideo("long", tmp_path / "long.mp4"), collection.source("v00")]
    outcomes = list(run_engine(sources, session, engine_for(session), Settings(2)))
    assert [outcome.video.id for outcome in outcomes] == ["v00", "long"]
    rows = [outcome.expensive_rows for outcome in outcomes if isinstance(outcome, Answer)]
    assert rows == [(1, SECONDS["v00"]), (0, 60)]


@pytest.mark.slow
def test_a_policy_that_stops_early_decodes_less(tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", numbered_frames(60 * FPS), fps=FPS)
    spec = Backbone(parse_stream(STREAMS[CHEAP]), weights="random:0", device=CPU).spec
    session = Hasty(spec, 3)
    for decoder, most in (("pyav", 3 + 4), ("decord", 60)):
        outcomes = list(
            run_engine(
                [SourceVideo("long", tmp_path / "long.mp4")],
                session,
                engine_for(session),
                Settings(1, decoder=decoder),
            )
        )
        assert isinstance(outcomes[0], Answer)
        assert 3 <= outcomes[0].frames_decoded <= most


@pytest.mark.slow
def test_few_frames_of_a_long_video_are_kept(collection: Collection, liteeval: Run, tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", numbered_frames(40 * FPS), fps=FPS)
    long = SourceVideo("long", tmp_path / "long.mp4")
    frame = 192 * 128 * 3
    usual = answers(liteeval, [long])["long"]
    assert usual.frames_held == usual.frames_decoded == 40
    for room in (1, 2, 3, 7):
        how = Settings(1, kept_bytes=2 * room * frame)
        tight = answers(liteeval, [long, collection.source("v00")], how)["long"]
        assert tight.frames_held == room
        assert tight.frames_decoded == 40  # and none again
        np.testing.assert_allclose(tight.probabilities, usual.probabilities, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both", "selector"])
def test_what_is_no_more_there_is_decoded_again(
    collection: Collection, localizers: Mapping[str, Run], name: str
) -> None:
    source = collection.source("v03")
    usual = answers(localizers[name], [source])["v03"]
    tight = answers(localizers[name], [source], Settings(1, kept_bytes=1))["v03"]
    assert usual.frames_decoded == SECONDS["v03"] and tight.frames_held == 1
    assert tight.frames_decoded >= usual.frames_decoded
    np.testing.assert_allclose(tight.probabilities, usual.probabilities, atol=1e-5)


class Counted(Video):
    """Frames that are their own number; it says which were decoded."""

    def __init__(self, count: int, log: list[int]) -> None:
        super().__init__(np.arange(count) / 10, duration_s=count / 10, findings=Findings())
        self.decoder, self._log = "pyav", log

    def frames(self, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint8] | None]:
        for number in numbers.tolist():
            self._log.append(number)
            yield np.full((1, 1, 3), number, np.uint8)


@settings(max_examples=200)
@given(
    st.sets(st.integers(0, 60), min_size=1),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8), st.integers(0, 6)), max_size=12),
    st.integers(1, 12),
)
def test_frames_in_any_order(numbers: set[int], requests: list[tuple[int, int, int]], capacity: int) -> None:
    """Requests are a place in the numbers, how many from there, and how often decoding may go ahead after it."""
    log: list[int] = []
    every = sorted(numbers)
    frames = Frames(
        Counted(61, log), lambda decoder: Counted(61, log), np.array(every), max_bytes=3 * capacity
    )
    for start, length, ahead in requests:
        wanted = every[start % len(every) :][:length]
        for number in wanted:
            assert (frames.get(number, lambda: np.array(wanted)) == number).all()  # noqa: B023
        before = len(log)
        while len(log) - before < ahead and frames.decode_ahead():
            pass
        assert len(log) - before <= max(1, capacity // 2)
    assert frames.held <= capacity and frames.decoded == len(log)
    assert set(log) <= numbers


@settings(max_examples=200)
@given(st.sets(st.integers(0, 60), min_size=1), st.integers(0, 60), st.integers(1, 40), st.integers(1, 20))
def test_frames_that_stay_are_not_decoded_again(
    numbers: set[int], start: int, capacity: int, ahead: int
) -> None:
    log: list[int] = []
    every = sorted(numbers)
    frames = Frames(
        Counted(61, log), lambda decoder: Counted(61, log), np.array(every), max_bytes=3 * capacity
    )
    frames.most_ahead = ahead
    rest = np.array(every[start % len(every) :])
    frames.get(rest[0], lambda: rest)
    stay = [number for number in rest if number == rest[0] or frames.stay(rest[0], number)]
    assert len(stay) >= min(len(rest), capacity - min(ahead, capacity // 2))
    for number in stay:
        frames.get(number, lambda: rest)
    while frames.decode_ahead():
        pass
    before = len(log)
    for number in stay:
        assert (frames.get(number, lambda: rest) == number).all()
    assert len(log) == before and frames.held <= capacity


def test_clips_are_those_that_are_extracted(tmp_path: Path) -> None:
    """Rows on demand, in an order of their own, show the frames of batch-extract's rows."""
    from extract.cutting import Cutter
    from extract.decode import read_video

    path = tmp_path / "video.mp4"
    write_video(path, numbered_frames(80), fps=FPS)
    preprocessing = replace(make_spec().preprocessing, resize=128, crop=128)
    views = {
        "clips": View(Sampling("clips", fps=5.0, frames=4, window=8, clips=3, crops=3), preprocessing),
        "dense": View(Sampling("dense", fps=10.0, frames=3, window=6), preprocessing),
        "flow": View(Sampling("dense", fps=5.0, frames=2, window=6), replace(preprocessing, flow="dis")),
    }
    cutter = Cutter(read_video(path), tuple(views.values()))
    rows: dict[int, list[Any]] = {}
    for chunk in cutter.chunks():
        rows.setdefault(chunk.view, []).append(chunk.pixels)
    for max_bytes in (1, 1 << 30):
        video = RawVideo(Open(path, views, "auto", None, max_bytes))
        for number, name in reversed(list(enumerate(views))):
            expected = np.concatenate(rows[number])
            assert np.array_equal(video.spans_s[name], cutter.spans[number])
            some = np.arange(1, len(expected), 2)
            parts: list[Any] = []
            while left := len(some) - sum(map(len, parts)):  # as many at a time as there is room for
                parts.append(video.cut(Want(name, some[-left:], left)))
            assert len(parts) == 1 or max_bytes == 1
            assert np.array_equal(np.concatenate(parts), expected[some])
            assert np.array_equal(video.cut(Want(name, some, 1)), expected[some[:1]])


# ------------------------------------------------------------------------------------------------ resume


@pytest.mark.slow
def test_goes_on_after_a_line_that_was_not_written_to_its_end(
    collection: Collection, liteeval: Run, tmp_path: Path
) -> None:
    out, trace = tmp_path / "out.csv", tmp_path / "trace.jsonl"
    assert command(liteeval, collection.videos, out, "--trace", trace).code == 0
    whole, whole_trace = out.read_bytes(), trace.read_bytes()
    places = [at for at, byte in enumerate(whole) if byte == ord("\n")]
    for cut, cut_trace in ((places[4] + 9, len(whole_trace)), (places[0] - 3, 40)):
        out.write_bytes(whole[:cut])
        trace.write_bytes(whole_trace[:cut_trace])
        ran = command(liteeval, collection.videos, out, "--trace", trace)
        assert ran.code == 0, ran.err
        assert ("8 predicted, 4 already there" if cut > places[4] else "12 predicted") in ran.out
        assert lines_of(out).keys() == traced(trace).keys() == SECONDS.keys()
        assert len(trace.read_text().splitlines()) == len(SECONDS)
    trace.unlink()
    out.write_bytes(whole[: places[4] + 1])
    assert "lacks 4 videos" in command(liteeval, collection.videos, out, "--trace", trace).err


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_goes_on_after_a_kill(
    collection: Collection, liteeval: Run, how: signal.Signals, tmp_path: Path
) -> None:
    out, videos = tmp_path / "out.csv", tmp_path / "videos"
    videos.mkdir()
    for copy in "abc":  # enough that it cannot be done before the signal comes
        for video in SECONDS:
            shutil.copy(collection.videos / f"{video}.mp4", videos / f"{copy}{video}.mp4")
    words = [liteeval.folder, videos, "--out", out, "--in-flight", "1"]
    code = "from policy.cli.run_policy import run_policy; run_policy()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    wait_for_lines(process, out, 3)
    process.send_signal(how)
    _, error = process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert b"Traceback" not in error
    before = lines_of(out) if how == signal.SIGINT else {}
    ran = command(liteeval, videos, out)
    assert ran.code == 0 and f"{3 * len(SECONDS)} predicted" not in ran.out
    assert len(lines_of(out)) == 3 * len(SECONDS) and before.items() <= lines_of(out).items()


def test_other_content_in_the_output(
    collection: Collection, liteeval: Run, localizers: Mapping[str, Run], tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    videos = Path(shutil.copytree(collection.videos, tmp_path / "videos"))
    one = videos / "v00.mp4"
    assert command(liteeval, one, out).code == 0
    before = out.read_bytes()
    assert "has predictions of another run" in command(localizers["cheap"], one, out).error
    assert "has predictions of another --top" in command(liteeval, one, out, "--top", "1").error
    (tmp_path / "notes.txt").write_text("hello")
    for text in ("hello", "hello\n", "a,b\n1\n", '"a\n'):
        (tmp_path / "notes.txt").write_text(text)
        assert "choose another file" in command(liteeval, one, tmp_path / "notes.txt").error
        assert (tmp_path / "notes.txt").read_text() == text
        if text.endswith("\n"):
            assert "is no trace" in command(liteeval, one, out, "--trace", tmp_path / "notes.txt").error
    assert "there is no folder" in command(liteeval, one, tmp_path / "none" / "out.csv").error
    shutil.copy(videos / "v01.mp4", one)
    ran = command(liteeval, one, out)
    assert ran.code == 1 and "v00: the output has it already, of a file with another content" in ran.err
    assert out.read_bytes() == before


@pytest.mark.slow
def test_a_full_disk(collection: Collection, liteeval: Run, tmp_path: Path) -> None:
    """Nothing half-written stays, and the same call goes on when there is room."""
    out, trace = tmp_path / "out.csv", tmp_path / "trace.jsonl"
    videos = [collection.videos / f"v{number:02d}.mp4" for number in range(4)]
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (20, 400, 1500):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, usual[1]))  # of a file, in bytes
        try:
            ran = command(liteeval, videos, out, "--trace", trace)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        assert "cannot be read or written: " in ran.error
        assert all(not path.exists() or path.read_bytes()[-1:] in (b"", b"\n") for path in (out, trace))
    assert command(liteeval, videos, out, "--trace", trace).code == 0
    assert lines_of(out).keys() == traced(trace).keys() == {path.stem for path in videos}


def test_detections_that_cannot_be_gone_on_with(
    collection: Collection, localizers: Mapping[str, Run], tmp_path: Path
) -> None:
    run, video = localizers["cheap"], collection.videos / "v00.mp4"
    for number, (name, content, problem) in enumerate(
        [
            ("found.json", b"{", "not JSON"),
            ("found.json", b"[]", "no detections in ActivityNet's form"),
            ("found.json", b'{"results": {"v00": 3}}', "not a list of detections"),
            ("found.csv", b"a,b\n1,2\n", "no column 'video_id'"),
            ("found.csv", b"\xff\x00", "found.csv"),
            ("found.txt", b"", "a .csv or a .json file"),
        ]
    ):
        path = tmp_path / name
        path.write_bytes(content)
        assert problem in command(run, video, tmp_path / f"{number}.csv", "--detections", path).error
        assert path.read_bytes() == content


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.slow
def test_a_broken_video_is_named_and_the_others_are_done(
    collection: Collection, liteeval: Run, tmp_path: Path
) -> None:
    videos = Path(shutil.copytree(collection.videos, tmp_path / "videos"))
    (videos / "v02.mp4").write_bytes(b"no video")
    content = bytearray((videos / "v03.mp4").read_bytes())
    start, end = media_data(videos / "v03.mp4")
    content[(start + 2 * end) // 3 : end - 200] = bytes(end - 200 - (start + 2 * end) // 3)
    (videos / "v03.mp4").write_bytes(content)
    out = tmp_path / "out.csv"
    ran = command(liteeval, videos, out, "--json")
    assert ran.code == 1
    failed = json.loads(ran.out)["failed"]
    assert failed.keys() == {"v02", "v03"} and "failed: v02: " in ran.err
    assert lines_of(out).keys() == SECONDS.keys() - failed.keys()
    # What came before the damage, where that is asked for.
    kept = command(liteeval, videos, out, "--damaged", "keep", "--json")
    summary = json.loads(kept.out)
    assert kept.code == 1 and summary["failed"].keys() == {"v02"} and summary["partial"].keys() == {"v03"}
    assert summary["predicted"] == 1 and lines_of(out)["v03"]["damage"] == summary["partial"]["v03"]
    assert summary["partial"]["v03"].startswith("damaged")
    (videos / "v02.mp4").unlink()
    assert command(liteeval, videos, out, "--damaged", "keep").code == 0
    assert command(liteeval, videos, out).code == 1  # it is not what was asked for now


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("cut.mkv", {}),
        ("cut.mp4", {"container_options": {"movflags": "faststart"}}),
        ("cut.ts", {}),
    ],
)
def test_what_there_is_of_a_file_that_was_cut(
    name: str, how: dict[str, Any], liteeval: Run, tmp_path: Path
) -> None:
    """It is refused when it is opened, unless what there is was asked for: as many rows as batch-extract keeps."""
    path = tmp_path / name
    write_video(path, numbered_frames(12 * FPS), fps=FPS, **how)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    source = SourceVideo("cut", path)
    session = open_session(liteeval.folder)
    (failure,) = run_engine([source], session, engine_for(session), Settings(1))
    assert isinstance(failure, Failure) and failure.reason
    answer = answers(liteeval, [source], Settings(1, keep_damaged=True))["cut"]
    kept = sum(len(step.rows) for step in answer.steps if step.stream == CHEAP)
    assert answer.damage == failure.reason

    backbone = Backbone(parse_stream(STREAMS[CHEAP]), weights="random:0", device=CPU)
    how_kept = ExtractSettings(decode_workers=1, batch=4, deadline_s=120.0, keep_damaged=True)
    cache = tmp_path / "cache"
    outcome = extract(find_videos([path]), {CHEAP: backbone}, cache, how_kept)
    assert outcome.partial.keys() == {"cut"}
    assert 4 <= kept == len(FeatureCache(cache)[CHEAP]["cut"].spans) < 12


@pytest.mark.slow
def test_a_decoder_that_crashes_or_hangs(collection: Collection, liteeval: Run, tmp_path: Path) -> None:
    names = ("a", "crash", "crash-once", "hang", "hang-once", "z")
    sources = []
    for name in names:
        shutil.copy(collection.videos / "v00.mp4", tmp_path / f"{name}.mp4")
        sources.append(SourceVideo(name, tmp_path / f"{name}.mp4"))
    session = open_session(liteeval.folder)
    how = Settings(2, deadline_s=1.0, target="tests.bad_processes:misbehaving")
    found = {outcome.video.id: outcome for outcome in run_engine(sources, session, engine_for(session), how)}
    reasons = {name: outcome.reason for name, outcome in found.items() if isinstance(outcome, Failure)}
    assert found.keys() == set(names)
    assert reasons == {
        "crash": "the decoder crashed (SIGKILL)",
        "hang": "the decoder got no further for 1 s: given up",
    }
    usual = found["a"]
    assert isinstance(usual, Answer)
    for outcome in found.values():
        if isinstance(outcome, Answer):
            np.testing.assert_allclose(outcome.probabilities, usual.probabilities, atol=1e-5)


@pytest.mark.slow
def test_other_weights_are_refused(collection: Collection, liteeval: Run, tmp_path: Path) -> None:
    out, videos = tmp_path / "out.csv", collection.videos
    ran = command(liteeval, videos, out, "--weights", f"{CHEAP}=random:1")
    digests = [
        Backbone(parse_stream(STREAMS[CHEAP]), weights=f"random:{seed}", device=CPU).spec.weights_digest
        for seed in (0, 1)
    ]
    assert (
        all(digest in ran.error for digest in digests) and f"{CHEAP}': weights random:1 are not" in ran.error
    )
    assert "is none of the streams" in command(liteeval, videos, out, "--weights", "other=random:0").error
    # Of weights from a file the run cannot say where they are.
    state = Backbone(parse_stream(STREAMS[CHEAP]), weights="random:0", device=CPU)
    spec = state.spec
    with pytest.raises(UserError, match=f"say where it is, by --weights {CHEAP}=FILE or"):
        Backbones({CHEAP: replace(spec, weights="file")}, weights={}, device=CPU)
    with pytest.raises(UserError, match="none that can be built here"):
        Backbones({CHEAP: replace(spec, backbone="imported")}, weights={}, device=CPU)


def test_what_cannot_be_run(collection: Collection, liteeval: Run, tmp_path: Path) -> None:
    out, videos = tmp_path / "out.csv", collection.videos
    assert (
        "no run folder of train-policy (no such folder)" in command(tmp_path / "nothing", videos, out).error
    )
    unfinished = Path(shutil.copytree(liteeval.folder, tmp_path / "unfinished"))
    (unfinished / "result.json").unlink()
    assert "not a finished run" in command(unfinished, videos, out).error
    assert "finds no segments" in command(liteeval, videos, out, "--detections", tmp_path / "a.csv").error
    assert not out.exists()
    assert "no such file" in command(liteeval, tmp_path / "none", out).error
    assert (
        "--device nonsense: not to be had here"
        in command(liteeval, videos, out, "--device", "nonsense").error
    )
