"""W-TALC end to end on planted actions: what it finds, what decides a run, what it refuses."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from cache_schema import FeatureCache, Sampling, UserError, VideoRecord, write_shard
from cache_schema.annotations import LabelSet, Segment
from policy.cli.train_policy import train_policy
from policy.deploy.session import open_session
from policy.evaluation.detection import PROTOCOLS
from policy.evaluation.metrics import mean_average_precision
from policy.localization.detections import read as read_detections
from policy.localization.judged import Localizations
from policy.localization.loss import Clips
from policy.localization.method import WTALC
from policy.localization.sampling import crop, draw_batches
from policy.localization.session import WTALCSession
from policy.method import evaluate
from policy.registry import configure
from policy.runs import Listener, Run, load_method, open_data, read_result, run_key, run_method
from policy.training.distributed import Ranks
from tests.caches import make_spec
from tests.planted_actions import CLIP_S, DENSE, STREAMS, plant_actions, small
from tests.sessions import drive

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureCache, LabelSet]:
    return plant_actions(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def run(planted: tuple[FeatureCache, LabelSet], tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = configure("wtalc", small(epochs=4))
    return run_method(config, *planted, tmp_path_factory.mktemp("runs") / "run", device="cpu")


def judged(run: Run) -> Localizations:
    found = run.judged()
    assert isinstance(found, Localizations)
    return found


def trained_weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "model.safetensors")


def log(run: Run) -> list[dict[str, float]]:
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def without_segments(labels: LabelSet, subset: str) -> LabelSet:
    videos = (replace(v, segments=()) if v.subset == subset else v for v in labels.videos)
    return LabelSet(labels.source, tuple(videos))


def test_actions_are_found_by_training_on_labels_alone(run: Run) -> None:
    metrics = run.result.metrics
    assert metrics["video_map"] == 1
    for protocol in PROTOCOLS:
        assert metrics[f"{protocol}_map_0.5"] > 0.9
        thresholds = [f"{protocol}_map_{k / 10:g}" for k in range(1, 8)]
        assert metrics[f"{protocol}_map_0.1:0.7"] == pytest.approx(np.mean([metrics[t] for t in thresholds]))
    assert run.result == read_result(run.folder)
    assert [line["epoch"] for line in log(run)] == [1, 2, 3, 4]
    for line in log(run):
        assert line["loss"] == pytest.approx(0.5 * line["mil"] + 0.5 * line["co_activity"])


@pytest.mark.parametrize(
    "change",
    [
        {"motion": None},
        {"appearance": None},
        {"input_norm": "standard"},
        {"input_norm": "l2", "lr": 0.02},
        {"precision": "bfloat16"},
        {"proposals": "contrast"},
        {"action_bytes": True},
        {"proposals": "contrast", "action_bytes": True},
    ],
)
def test_other_ways_find_them_too(
    change: dict[str, Any], planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    found = run_method(configure("wtalc", small(**change)), *planted, tmp_path / "run", device="cpu")
    assert found.result.metrics["activitynet_map_0.5"] > 0.8


def test_labels_that_say_nothing_find_nothing(planted: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    """A null control: with the labels of training videos shuffled, detection is no better than by chance."""
    cache, labels = planted
    names = [video.labels for video in labels.videos if video.subset == "train"]
    shuffled = iter(np.random.default_rng(0).permutation(np.array(names)).tolist())
    videos = [
        replace(video, labels=tuple(next(shuffled))) if video.subset == "train" else video
        for video in labels.videos
    ]
    found = run_method(
        configure("wtalc", small()),
        cache,
        LabelSet(labels.source, tuple(videos)),
        tmp_path / "run",
        device="cpu",
    )
    assert found.result.metrics["activitynet_map_0.5"] < 0.6


def test_segments_of_training_videos_change_nothing(
    run: Run, planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    cache, labels = planted
    bare = without_segments(labels, "train")
    config = configure("wtalc", small(epochs=4))
    assert run_key(config, cache, bare) == run_key(config, cache, labels)
    other = run_method(config, cache, bare, tmp_path / "run", device="cpu")
    for name in ("model.safetensors", "predictions.npz"):
        assert (other.folder / name).read_bytes() == (run.folder / name).read_bytes()


def test_segments_of_evaluation_videos_decide_a_run(run: Run, planted: tuple[FeatureCache, LabelSet]) -> None:
    cache, labels = planted
    last = labels.videos[-1]
    moved = replace(
        last, segments=(replace(last.segments[0], end_s=last.segments[0].end_s + 1), *last.segments[1:])
    )
    vague = replace(last, ambiguous=((1.0, 2.0),))
    config = configure("wtalc", small(epochs=4))
    for changed in (moved, vague):
        other = LabelSet(labels.source, (*labels.videos[:-1], changed))
        with pytest.raises(UserError, match="another content of segments"):
            run_method(config, cache, other, run.folder, device="cpu")
        # Of other methods they decide nothing.
        of_others = configure("coarse-only", {"coarse": "rgb_dense16"})
        assert run_key(of_others, cache, other) == run_key(of_others, cache, labels)


def test_what_a_run_keeps(run: Run, planted: tuple[FeatureCache, LabelSet]) -> None:
    kept = judged(run)
    assert kept.metrics() == run.result.metrics
    assert kept.scores.shape == kept.labels.shape == (12, 3)
    assert np.allclose(kept.scores.sum(axis=1), 1, atol=1e-5)
    assert run.result.metrics["video_map"] == mean_average_precision(kept.scores, kept.labels)
    cache, labels = planted
    test = [video for video in labels.videos if video.subset == "test"]
    assert kept.video_ids == tuple(video.video_id for video in test)
    expected = [
        (k, int(s.label.removeprefix("class ")), s.start_s, s.end_s)
        for k, v in enumerate(test)
        for s in v.segments
    ]
    truth = kept.truth
    assert list(zip(truth.videos, truth.classes, *truth.spans.T, strict=True)) == expected
    assert kept.lengths.tolist() == [cache["rgb_dense16"].rows(video.video_id) for video in test]
    for name, macs in STREAMS.items():  # every row of both
        assert kept.ledger[name].tolist() == [(kept.lengths * macs).tolist()]
    assert kept.ledger["W-TALC network"].tolist() == [(kept.lengths * (32 * 32 + 32 * 3)).tolist()]
    with pytest.raises(UserError, match="a run of wtalc, which says more than class scores"):
        run.predictions()


def test_detections_of_a_run_are_files_that_anybody_reads(
    run: Run, planted: tuple[FeatureCache, LabelSet]
) -> None:
    kept, videos = judged(run), planted[1].subset("test")
    for name in ("detections.json", "detections.csv"):
        found = read_detections(run.folder / name, videos, kept.classes)
        by_video = np.argsort(kept.detections.videos, kind="stable")  # as JSON has them
        for part, array in vars(found).items():
            assert np.array_equal(array, getattr(kept.detections, part)[by_video]), (name, part)


def test_damaged_predictions(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    with np.load(run.folder / "predictions.npz") as held:
        arrays = dict(held)
    for name in ("detections/spans", "labels", "video_ids"):
        np.savez(path, **{key: array for key, array in arrays.items() if key != name})
        with pytest.raises(UserError, match="cannot be read as predictions"):
            Localizations.load(path)


def test_activations_are_what_numpy_computes(run: Run, planted: tuple[FeatureCache, LabelSet]) -> None:
    config = configure("wtalc", small(epochs=4))
    method = load_method(run.folder, config, open_data(config, *planted))
    assert isinstance(method, WTALC)
    data = open_data(config, *planted)
    weights = {name: tensor.double().numpy() for name, tensor in trained_weights(run).items()}
    found = method.activations(data.evaluation, CPU)
    for video_id, logits, probabilities in zip(data.evaluation.ids, found, judged(run).scores, strict=True):
        rows = np.concatenate([planted[0][name][video_id].features for name in STREAMS], axis=1).astype(
            np.float64
        )
        hidden = np.maximum(rows @ weights["hidden.weight"].T + weights["hidden.bias"], 0)
        expected = hidden @ weights["classifier.weight"].T + weights["classifier.bias"]
        assert np.allclose(logits, expected, atol=1e-4)
        highest = np.sort(expected, axis=0)[::-1][: -(-len(rows) // 8)].mean(axis=0)
        odds = np.exp(highest - highest.max())
        assert np.allclose(probabilities, odds / odds.sum(), atol=1e-5)
    assert np.allclose(evaluate(method, data.evaluation, device=CPU).scores[0], judged(run).scores, atol=1e-6)


def test_a_prediction_does_not_depend_on_the_videos_beside_it(
    run: Run, planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    cache, labels = planted
    few = LabelSet(labels.source, (*labels.subset("train"), *labels.subset("test")[::3]))
    config = configure("wtalc", small(epochs=4, skip_missing=True))
    other = judged(run_method(config, cache, few, tmp_path / "run", device="cpu"))
    full = judged(run)
    chosen = np.flatnonzero(full.detections.videos % 3 == 0)
    assert other.detections.spans == pytest.approx(full.detections.spans[chosen])
    assert other.detections.scores == pytest.approx(full.detections.scores[chosen], abs=1e-4)


class Stop(Exception):
    pass


def test_a_killed_run_comes_to_the_same_bits(
    planted: tuple[FeatureCache, LabelSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within epochs, of which the drawn batches are half done. Crops and dropout are drawn as well."""
    config = configure("wtalc", small(epochs=3, epoch_steps=7, max_clips=20))
    whole = run_method(config, *planted, tmp_path / "whole", device="cpu")
    monkeypatch.setattr("policy.training.loop.CHECKPOINT_EVERY_S", 0)
    for steps in (3, 5, 9):  # so many are completed, the next one fails
        with monkeypatch.context() as patched, pytest.raises(Stop):
            patched.setattr(WTALC, "losses", failing_at(steps + 1, WTALC.losses))
            run_method(config, *planted, tmp_path / "killed", device="cpu")
    killed = run_method(config, *planted, tmp_path / "killed", device="cpu")
    for name in ("model.safetensors", "predictions.npz"):
        assert (killed.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert log(killed) == log(whole)


def failing_at(number: int, function: Callable[..., Any]) -> Callable[..., Any]:
    calls = count(1)

    def replaced(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            raise Stop
        return function(*args, **kwargs)

    return replaced


@given(st.integers(0, 1000), st.integers(0, 4))
def test_batches_are_drawn_as_released(seed: int, pairs: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.random((8, 5)) < 0.3
    labels[:, 4] = False  # of no video
    labels[~labels.any(axis=1), 0] = True
    drawn = draw_batches(labels, 6, 10, pairs, torch.Generator().manual_seed(seed)).view(6, 10)
    for batch in drawn.numpy():
        for first, second in batch[: 2 * pairs].reshape(-1, 2):
            assert (labels[first] & labels[second]).any()
    assert set(drawn.flatten().tolist()) <= set(range(8))


def test_classes_are_equally_likely_and_a_video_can_meet_itself() -> None:
    labels = np.zeros((10, 2), np.bool_)
    labels[:9, 0] = True  # nine videos of one class, one of the other
    labels[9, 1] = True
    drawn = draw_batches(labels, 4000, 3, 1, torch.Generator().manual_seed(0)).view(4000, 3).numpy()
    rare = (drawn[:, 0] == 9).mean()
    assert abs(rare - 0.5) < 0.04 and np.array_equal(drawn[:, 0] == 9, drawn[:, 1] == 9)
    common = drawn[drawn[:, 0] < 9]
    assert abs((common[:, 0] == common[:, 1]).mean() - 1 / 9) < 0.03
    counts = Counter(drawn[:, 2].tolist())
    assert all(abs(counts[video] / 4000 - 0.1) < 0.02 for video in range(10))


def test_crops_are_stretches_of_a_video() -> None:
    lengths = torch.tensor([3, 7, 5])
    clips = Clips(
        torch.arange(3).repeat_interleave(lengths), torch.cat([torch.arange(n) for n in (3, 7, 5)]), lengths
    )
    generator = torch.Generator().manual_seed(0)
    starts: list[Counter[int]] = [Counter() for _ in lengths]
    for _ in range(600):
        cropped, kept = crop(clips, 5, generator)
        assert cropped.lengths.tolist() == [3, 5, 5]
        for video in range(3):
            mine = clips.steps[kept & (clips.videos == video)].tolist()
            assert mine == list(range(mine[0], mine[0] + len(mine)))
            assert cropped.steps[cropped.videos == video].tolist() == list(range(len(mine)))
            starts[video][mine[0]] += 1
    assert [set(count) for count in starts] == [{0}, {0, 1, 2}, {0}]
    assert all(abs(count / 600 - 1 / 3) < 0.1 for count in starts[1].values())


@pytest.mark.slow
def test_several_classes_a_video(tmp_path: Path) -> None:
    cache, labels = plant_actions(tmp_path / "cache", train=36, several=True)
    notes: list[str] = []
    listener = Listener(note=notes.append)
    config = configure("wtalc", small(epochs=6))
    both = run_method(config, cache, labels, tmp_path / "both", device="cpu", listener=listener)
    assert any("several classes: trained as multi-label, on all of them" in note for note in notes)
    assert both.result.metrics["activitynet_map_0.5"] > 0.8
    first = run_method(replace(config, multi_label=False), cache, labels, tmp_path / "first", device="cpu")
    assert any((trained_weights(both)[n] != trained_weights(first)[n]).any() for n in trained_weights(both))


def test_a_session_finds_what_the_run_found(run: Run, planted: tuple[FeatureCache, LabelSet]) -> None:
    session, expected = open_session(run.folder), judged(run)
    assert isinstance(session, WTALCSession) and list(session.streams) == list(STREAMS)
    assert session.probabilities.tolist() == pytest.approx([1 / 3] * 3) and not len(session.detections)
    for number, video_id in enumerate(expected.video_ids):
        videos = {name: planted[0][name][video_id] for name in STREAMS}
        steps = drive(session, planted[0], video_id, most=20)
        trace = [(wanted.stream, row) for wanted in steps for row in wanted.rows[:20].tolist()]
        # In turn, each in order.
        assert [name for name, row in trace[:40]] == [name for name in STREAMS for _ in range(20)]
        assert sorted(trace, key=lambda pair: list(STREAMS).index(pair[0])) == [
            (name, row) for name in STREAMS for row in range(len(videos[name].spans))
        ]
        assert np.allclose(session.probabilities, expected.scores[number], atol=1e-5)
        mine = expected.detections.videos == number
        assert session.detections.spans == pytest.approx(expected.detections.spans[mine])
        assert session.detections.scores == pytest.approx(expected.detections.scores[mine], abs=1e-4)
        assert {name: macs[0, number] for name, macs in expected.ledger.items()} == session.macs_by_name
    with pytest.raises(ValueError, match="as many rows in each of the streams, not 2 of "):
        session.begin({name: np.zeros((2 + i, 2)) for i, name in enumerate(STREAMS)})


def test_an_answer_before_the_end_is_that_of_the_clips_so_far(
    run: Run, planted: tuple[FeatureCache, LabelSet]
) -> None:
    session = open_session(run.folder)
    assert isinstance(session, WTALCSession)
    videos = {name: planted[0][name]["video_0030"] for name in STREAMS}
    session.begin({name: video.spans for name, video in videos.items()})
    session.take(videos["rgb_dense16"].features)
    assert session.macs_by_name["W-TALC network"] == 0 and session.probabilities.tolist() == pytest.approx(
        [1 / 3] * 3
    )
    session.take(videos["flow_dense16"].features[:25])
    assert session.activations.shape == (25, 3) and session.detections.spans.max() <= 25 * CLIP_S
    assert session.probabilities.argmax() == judged(run).scores[6].argmax()


Words = list[str]


def words(cache: FeatureCache, labels: Path, out: Path, *more: object) -> Words:
    streams = ["--appearance", "rgb_dense16", "--motion", "flow_dense16", "--lr", "5e-3"]
    sizes = ["--epochs", "2", "--epoch-steps", "20", "--device", "cpu"]
    given = [
        "wtalc",
        "--cache",
        str(cache.folder),
        "--labels",
        str(labels),
        *streams,
        *sizes,
        "--out",
        str(out),
    ]
    return [*given, *map(str, more)]


@pytest.fixture(scope="module")
def label_file(planted: tuple[FeatureCache, LabelSet]) -> Path:
    """ActivityNet's JSON, in which the subsets are called otherwise."""
    cache, labels = planted
    database = {
        video.video_id: {
            "subset": {"train": "training", "test": "validation"}[video.subset],
            "duration": 30.0,
            "annotations": [{"label": s.label, "segment": [s.start_s, s.end_s]} for s in video.segments],
        }
        for video in labels.videos
    }
    path = cache.folder.parent / "activity_net.v1-3.min.json"
    path.write_text(json.dumps({"version": "1.3", "taxonomy": [], "database": database}))
    return path


def test_what_is_printed(planted: tuple[FeatureCache, LabelSet], label_file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(train_policy, words(planted[0], label_file, tmp_path / "run"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "W-TALC"
    metrics = read_result(tmp_path / "run").metrics
    columns = next(line for line in lines if "detection mAP % at IoU" in line).split("IoU")[1].split()
    assert columns == ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.1:0.5", "0.1:0.7", "0.5:0.95"]
    for name, protocol in PROTOCOLS.items():
        (line,) = (line for line in lines if protocol.title in line)
        values = line.split(protocol.title)[1].split()
        assert values == [f"{100 * metrics[f'{name}_map_{column}']:.1f}" for column in columns]
    assert re.search(r"video-level mAP +\d+\.\d %", result.stdout)
    assert re.search(
        r"GFLOPs per video +[\d.]+ ± [\d.]+  \(appearance [\d.]+, motion [\d.]+, networks 0.0", result.stdout
    )
    again = CliRunner().invoke(train_policy, words(planted[0], label_file, tmp_path / "run", "--json"))
    shown = json.loads(again.stdout)
    assert shown["reused"] and shown["thumos14_map_0.5"] == metrics["thumos14_map_0.5"]


def test_without_segments_nothing_is_judged(planted: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    cache, labels = planted
    path = tmp_path / "labels.csv"
    rows = (f"{v.video_id},{v.labels[0]},{v.subset}" for v in labels.videos)
    path.write_text("\n".join(["video_id,label,subset", *rows]))
    result = CliRunner().invoke(train_policy, words(cache, path, tmp_path / "run"))
    assert result.exit_code == 0, result.output
    assert "the labels give no segments of the videos of subset 'test'" in result.stderr
    assert re.search(r"detection mAP +none, for the labels give no segments of these videos", result.stdout)
    assert read_result(tmp_path / "run").metrics.keys() == {"video_map"}
    assert len(Localizations.load(tmp_path / "run" / "predictions.npz").detections)


Change = Callable[[VideoRecord], VideoRecord]


def rewritten(
    planted: tuple[FeatureCache, LabelSet], folder: Path, change: Change, *, sampling: Sampling = DENSE
) -> FeatureCache:
    """The planted cache with another flow_dense16."""
    for name in STREAMS:
        of_flow = name == "flow_dense16"
        records = [planted[0][name][video.video_id] for video in planted[1].videos]
        records = [change(record) for record in records] if of_flow else records
        spec = replace(make_spec(name, dim=16), sampling=sampling if of_flow else DENSE)
        write_shard(folder / name, spec, records, tools={})
    return FeatureCache(folder)


def with_spans(change: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> Change:
    return lambda record: replace(record, spans=change(record.spans))


def refusal(planted: tuple[FeatureCache, LabelSet], cache: FeatureCache, out: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as raised:
        run_method(configure("wtalc", small(epochs=1, **settings)), cache, planted[1], out, device="cpu")
    message = str(raised.value)
    assert "\n" not in message
    return message


SPREAD = Sampling("clips", fps=25.0, frames=16, window=16, clips=10)


@pytest.mark.parametrize(
    ("change", "sampling", "problem"),
    [
        (lambda spans: spans * np.nan, DENSE, "when its rows are is not known"),
        (lambda spans: spans[::-1], DENSE, "row 1 does not begin after row 0"),
        (
            lambda spans: np.repeat(spans[::3], 3, axis=0)[: len(spans)],
            DENSE,
            "row 1 does not begin after row 0",
        ),
        (lambda spans: spans + 4 * spans[:, :1], SPREAD, "clips are spread over the video, with gaps"),
    ],
)
def test_streams_without_clips_that_follow_one_another(
    change: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    sampling: Sampling,
    problem: str,
    planted: tuple[FeatureCache, LabelSet],
    tmp_path: Path,
) -> None:
    cache = rewritten(planted, tmp_path / "cache", with_spans(change), sampling=sampling)
    told = refusal(planted, cache, tmp_path / "run", appearance=None)
    assert "stream 'flow_dense16', video 'video_0000'" in told and problem in told
    assert "x3d_m_dense16" in told


def test_streams_of_other_instants(planted: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    late = rewritten(planted, tmp_path / "late", with_spans(lambda spans: spans + 0.4))
    told = refusal(planted, late, tmp_path / "run")
    assert "video 'video_0000': row" in told and "choose two that see the same instants" in told
    # Flow sees a frame more, which is no other instant.
    flow = rewritten(planted, tmp_path / "flow", with_spans(lambda spans: spans + np.array([0, 1 / 25])))
    assert run_method(
        configure("wtalc", small(epochs=1)), flow, planted[1], tmp_path / "flow run", device="cpu"
    ).result.videos


def test_dense_clips_of_the_same_windows_go_together(
    planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    """Which of their frames a network saw does not matter; how long they are does."""
    half = Sampling("dense", fps=25.0, frames=8, window=16)
    cache = rewritten(planted, tmp_path / "half", lambda record: record, sampling=half)
    config = configure("wtalc", small(epochs=1))
    assert run_method(config, cache, planted[1], tmp_path / "run", device="cpu").result.videos
    longer = Sampling("dense", fps=25.0, frames=16, window=32)
    cache = rewritten(planted, tmp_path / "longer", lambda record: record, sampling=longer)
    assert "look at different instants" in refusal(planted, cache, tmp_path / "other")


def test_other_bad_input(planted: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    cache, labels = planted
    told = refusal(planted, cache, tmp_path / "run", appearance=None, motion=None)
    assert told == (
        "wtalc needs an appearance stream, a motion stream or both; the cache has: flow_dense16, rgb_dense16"
    )
    assert "appearance and motion are both flow_dense16" in refusal(
        planted, cache, tmp_path / "run", appearance="flow_dense16"
    )
    assert "batch must be at least 6, for 3 pairs, not 5" in refusal(
        planted, cache, tmp_path / "run", batch=5
    )
    assert "dropout must be at least 0 and less than 1" in refusal(
        planted, cache, tmp_path / "run", dropout=1.0
    )
    with pytest.raises(UserError, match="wtalc is trained by one process"):
        run_method(
            configure("wtalc", small()), cache, labels, tmp_path / "run", device="cpu", ranks=Ranks(0, 2)
        )
    rare = replace(labels.videos[-1], labels=("class 9",), segments=(Segment("class 9", 0, 1),))
    with pytest.raises(
        UserError, match="1 class: 'class 9' of subset 'test' without a video in subset 'train'"
    ):
        run_method(
            configure("wtalc", small()),
            cache,
            LabelSet(labels.source, (*labels.videos[:-1], rare)),
            tmp_path / "run",
            device="cpu",
        )

    def broken(record: VideoRecord) -> VideoRecord:
        features = record.features.copy()
        features[3, 2] = np.nan if record.id == "video_0005" else 0
        return replace(record, features=features)

    damaged = rewritten(planted, tmp_path / "cache", broken)
    assert refusal(planted, damaged, tmp_path / "run", input_norm="standard") == (
        "video 'video_0005' in stream 'flow_dense16': its features are not finite"
    )
