"""Sessions of all families: one loop on raw rows says and costs what the run does for the videos of a cache."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cache_schema import FeatureCache, Sampling, UserError, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from policy.baselines.config import UniformConfig
from policy.config import RunConfig
from policy.deploy.session import open_session, spans_of
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.gate import DrawnGates
from policy.liteeval.session import LiteEvalSession
from policy.method import Method
from policy.registry import METHODS, configure
from policy.runs import Run, run_method
from policy.selection.config import SelectorCascadeConfig, SelectorConfig
from policy.selection.session import PoolSession, SelectorSession
from policy.session import Session
from tests.caches import PREPROCESSING, make_record, make_spec
from tests.planted import plant
from tests.sessions import drive

LITEEVAL = LiteEvalConfig(
    coarse="coarse_112",
    fine="fine_224",
    epochs=2,
    batch=5,
    lr=1e-3,
    coarse_hidden=6,
    fine_hidden=12,
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def liteeval(tmp_path_factory: pytest.TempPathFactory) -> Run:
    planted = plant(tmp_path_factory.mktemp("planted"), train=8, test=6, classes=4, dim=10, lengths=(4, 9))
    folder = tmp_path_factory.mktemp("run")
    return run_method(LITEEVAL, planted.cache, planted.labels, folder, device="cpu")


def check_run(run: Run, cache: FeatureCache, most: int = 10**9) -> Session:
    """A session of a run answers, and is charged, as the run's predictions have it."""
    session, predicted = open_session(run.folder), run.predictions()
    for video, video_id in enumerate(predicted.video_ids):
        drive(session, cache, video_id, most)
        assert session.video_id == video_id
        assert np.allclose(session.probabilities, predicted.scores[0, video], atol=1e-6)
        assert session.macs == pytest.approx(1e9 * predicted.gflops[0, video], abs=0.1)
        assert all(name in cache or " " in name for name in session.macs_by_name)
    return session


def test_every_method_has_a_session() -> None:
    base = vars(Method)["session"].__func__
    assert [name for name in METHODS if METHODS[name].session.__func__ is base] == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("liteeval", {}),
        ("liteeval", {"input_norm": "l2"}),
        ("liteeval", {"readout": "mean"}),
        ("liteeval", {"readout": "attention", "cell": "gru"}),
        ("random-gating", {"readout": "max", "usage": 0.4}),
        ("liteeval-rl", {"input_norm": "none", "fine": "coarse_112"}),
        ("random-gating", {"usage": 0.4, "gate_draws": 2, "seed": 3}),
    ],
)
def test_liteeval_answers_as_its_run(method: str, change: Mapping[str, Any], tmp_path: Path) -> None:
    planted = plant(tmp_path / "cache", train=8, test=6, classes=4, dim=10, lengths=(4, 9))
    config = configure(method, vars(LITEEVAL), **change)
    run = run_method(config, planted.cache, planted.labels, tmp_path / "run", device="cpu")
    session = check_run(run, planted.cache)
    gates, offsets = run.predictions().gates[0], run.predictions().offsets
    for video, video_id in enumerate(run.predictions().video_ids):
        # Each row is wanted of the coarse stream, and once more where the gate opens.
        opened, looked = [], 0
        for wanted in drive(session, planted.cache, video_id):
            first = int(wanted.rows[0])
            if first < looked:
                opened.append(first)
            else:
                looked = first + len(wanted.rows)
        assert opened == np.flatnonzero(gates[offsets[video] : offsets[video + 1]]).tolist()


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("uniform", {"frames": 4}),
        ("uniform-cf", {"frames": 4, "input_norm": "l2"}),
        ("lstm", {"frames": 100}),
        ("lstm-cf", {"frames": 5, "fine": "coarse_112"}),
        ("lstm-cf", {"frames": 5, "input_norm": "l2"}),
        ("coarse-only", {}),
        ("coarse-only", {"readout": "attention"}),
        ("frame-glimpse", {"glimpses": 5}),
        ("frame-glimpse", {"glimpses": 5, "readout": "attention"}),
        ("fast-forward", {"strides": 2, "readout": "mean"}),
        ("frame-glimpse", {"glimpses": 3, "input_norm": "l2", "multi_label": True}),
        ("fast-forward", {"strides": 2}),
        ("fast-forward", {"input_norm": "l2", "multi_label": True}),
    ],
)
@pytest.mark.parametrize("most", [1, 10**9])
def test_baselines_answer_as_their_runs(
    method: str, change: Mapping[str, Any], most: int, tmp_path: Path
) -> None:
    planted = plant(tmp_path / "cache", train=8, test=6, classes=4, dim=10, lengths=(4, 9))
    config = configure(method, vars(LITEEVAL), **change)
    run = run_method(config, planted.cache, planted.labels, tmp_path / "run", device="cpu")
    session = check_run(run, planted.cache, most)
    with pytest.raises(ValueError, match=r"spans of .*: of shape"):
        session.begin({})
    session.begin({name: np.zeros((3, 2)) for name in session.streams})
    assert session.probabilities.tolist() == [0.25] * 4 and session.macs == 0


def test_others_take_rows_together_as_each_alone(tmp_path: Path) -> None:
    planted = plant(tmp_path / "cache", train=8, test=6, classes=4, dim=10, lengths=(4, 9))
    config = configure("lstm-cf", vars(LITEEVAL), frames=5)
    predicted = run_method(
        config, planted.cache, planted.labels, tmp_path / "run", device="cpu"
    ).predictions()
    first = open_session(tmp_path / "run")
    sessions = {video_id: first.another() for video_id in predicted.video_ids}
    for video_id, session in sessions.items():
        session.begin({name: planted.cache[name][video_id].spans for name in session.streams})
    while waiting := {video_id: s for video_id, s in sessions.items() if s.wanted() is not None}:
        rows = []
        for video_id, session in waiting.items():
            wanted = session.wanted()
            assert wanted is not None
            rows.append((planted.cache[wanted.stream][video_id].features[wanted.rows], None))
        assert not any(type(first).take_together([*waiting.values()], rows))
    for scores, session in zip(predicted.scores[0], sessions.values(), strict=True):
        assert np.allclose(session.probabilities, scores, atol=1e-6)


@pytest.mark.parametrize("method", ["frame-glimpse", "fast-forward"])
def test_agents_want_the_frames_that_they_visit(method: str, tmp_path: Path) -> None:
    """Each once, in the order of the visits; here by hand-made weights that go back and forth."""
    planted = plant(tmp_path / "cache", train=8, test=6, classes=4, dim=10, lengths=(8, 16))
    config = configure(method, vars(LITEEVAL), epochs=1, glimpses=4, strides=2)
    run = run_method(config, planted.cache, planted.labels, tmp_path / "run", device="cpu")
    tensors = load_file(run.folder / "model.safetensors")
    if method == "frame-glimpse":
        tensors["locate.weight"].zero_()
        tensors["start"].copy_(torch.logit(torch.tensor([0.7, 0.1, 0.7, 0.4])))
        expected = {length: [int(0.7 * length), int(0.1 * length), int(0.4 * length)] for length in range(17)}
    else:
        tensors["decision.weight"].zero_()
        tensors["decision.bias"].copy_(torch.tensor([0.0, 0.0, 1.0]))  # two frames further
        expected = {length: list(range(0, length, 2)) for length in range(17)}
    save_file(tensors, run.folder / "model.safetensors")
    session = open_session(run.folder)
    for video_id in run.predictions().video_ids:
        trace = drive(session, planted.cache, video_id)
        length = len(planted.cache["fine_224"][video_id].features)
        assert [wanted.rows.tolist() for wanted in trace] == [[row] for row in expected[length]]


@settings(max_examples=50)
@given(usage=st.floats(0, 1), seed=st.integers(0, 2**32 - 1), parts=st.lists(st.integers(0, 9), max_size=6))
def test_gates_are_drawn_by_seed_and_video(usage: float, seed: int, parts: list[int]) -> None:
    """However many at a time, and whatever was drawn before."""
    gates, again = DrawnGates(usage, seed), DrawnGates(usage, seed)
    gates.begin("a")
    again.next(3)
    again.begin("a")
    assert gates.next(sum(parts)).tolist() == [gate for part in parts for gate in again.next(part)]


def test_gates_of_other_videos_and_seeds_are_others() -> None:
    gates, drawn = DrawnGates(0.3, 1), []
    for name in ("a", "b", "ab", "b\udcff", ""):
        gates.begin(name)
        drawn.append(gates.next(4000))
    drawn.append(DrawnGates(0.3, 2).next(4000))
    assert np.abs(np.corrcoef(drawn) - np.eye(len(drawn))).max() < 0.08
    assert np.abs(np.mean(drawn, axis=1) - 0.3).max() < 0.04


def test_random_gating_on_a_video_of_unknown_length(tmp_path: Path) -> None:
    planted = plant(tmp_path / "cache", train=8, test=6, classes=4, dim=10, lengths=(4, 9))
    config = configure("random-gating", vars(LITEEVAL), usage=0.5)
    run = run_method(config, planted.cache, planted.labels, tmp_path / "run", device="cpu")
    session, predicted = open_session(run.folder), run.predictions()
    assert isinstance(session, LiteEvalSession)
    for number, video_id in enumerate(predicted.video_ids):
        session.begin(video_id=video_id)
        videos = planted.cache["coarse_112"][video_id], planted.cache["fine_224"][video_id]
        for coarse, fine in zip(*(video.features for video in videos), strict=True):
            if session.look(coarse):
                session.fine(fine)
        assert np.allclose(session.probabilities, predicted.scores[0, number], atol=1e-6)
        assert session.fine_features == predicted.fine_rows[0, number]


def test_what_cannot_be_taken(liteeval: Run) -> None:
    session = open_session(liteeval.folder)
    assert session.wanted() is None
    row = np.zeros((1, 10), np.float16)
    with pytest.raises(ValueError, match="no rows are wanted"):
        session.take(row)
    spans = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"spans of fine_224: of shape \(0,\), not \(T, 2\)"):
        session.begin({"coarse_112": spans})
    with pytest.raises(ValueError, match="not 3 of coarse_112 and 2 of fine_224"):
        session.begin({"coarse_112": spans, "fine_224": spans[:2]})
    with pytest.raises(ValueError, match=r"spans of coarse_112: of shape \(0, 2\)"):
        session.begin({"coarse_112": spans[:0], "fine_224": spans[:0]})
    session.begin({"coarse_112": spans, "fine_224": spans})
    for wrong, problem in [
        (row[0], "coarse_112: give from 1 to 3 rows"),
        (row[:0], "coarse_112: give from 1 to 3 rows"),
        (np.zeros((4, 10)), "coarse_112: give from 1 to 3 rows"),
        (row[:, :9], r"features of coarse_112 have shape \(1, 9\), not \(1, 10\)"),
        (row + np.float16(np.nan), "features of coarse_112 are not finite"),
        (None, "coarse_112: give from 1 to 3 rows"),
    ]:
        with pytest.raises(ValueError, match=problem):
            session.take(wrong)
        assert session.wanted() is not None and session.macs_by_name["coarse_112"] == 0
    with pytest.raises(ValueError, match=r"class scores of coarse_112 have shape \(1, 3\), not \(1, 0\)"):
        session.take(row, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="this policy looks at features of coarse_112: give them"):
        session.take(scores=np.zeros((1, 0)))
    while session.wanted() is not None:
        session.take(torch.zeros(1, 10))
    with pytest.raises(ValueError, match="no rows are wanted"):
        session.take(row)


# --- pools of models ---

MODELS = ("m0", "m1", "m2")
SELECTOR = SelectorConfig(
    decisions="perceptron",
    models=MODELS,
    epochs=20,
    batch=8,
    lr=1e-2,
    selector_hidden=8,
    target="loss",
    budget=4.0,
)
REGRESSIONS = SelectorConfig(models=MODELS, threshold=0.005)
STAGED = SelectorCascadeConfig(models=MODELS, threshold=0.005)
CASCADE = SelectorCascadeConfig(
    decisions="perceptron",
    models=MODELS,
    epochs=20,
    batch=8,
    lr=1e-2,
    weight_decay=0.0,
    threshold=None,
    selector_hidden=8,
    budget=4.0,
)
COUNT, DIM, ROWS = 5, 6, {"m0": 5, "m1": 4, "m2": 6, "other": 3}
NAMES = tuple("edcba")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureCache, LabelSet]:
    """Models with features and scores, of classes in an order of their own, the better the dearer.

    m2 has clips with three crops; the classes of "other" are not the labels'.
    """
    folder, random = tmp_path_factory.mktemp("pool"), np.random.default_rng(0)
    labels = random.integers(COUNT, size=60)
    for place, (name, rows) in enumerate(ROWS.items()):
        known = name != "other"
        classes = (*NAMES, "f") if known else ("x", "y", "z")
        sampling = (
            Sampling("clips", fps=5.0, frames=4, window=8, clips=2, crops=3) if name == "m2" else Sampling()
        )
        spec = make_spec(
            name, dim=DIM, classes=len(classes), macs_per_row=10**8 * 4 ** (place % 3), sampling=sampling
        )
        records = []
        for video, label in enumerate(labels.tolist()):
            record = make_record(f"v{video:02d}", rows, dim=DIM, classes=len(classes), seed=place)
            assert record.scores is not None
            if known:
                record.scores[:, NAMES.index("abcde"[label])] += place + random.normal()
            record.features[:, label] += 1
            records.append(record)
        write_shard(folder / name, replace(spec, classes=classes), records, tools={"thriftvid": "test"})
    videos = (
        VideoLabel(f"v{video:02d}", ("abcde"[label],), "train" if video < 40 else "test")
        for video, label in enumerate(labels.tolist())
    )
    return FeatureCache(folder), LabelSet(folder / "labels.csv", tuple(videos))


def test_uniform_averages_the_class_scores_of_its_stream(
    pool: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    run = run_method(UniformConfig(fine="m1", frames=3), *pool, tmp_path, device="cpu")
    session = check_run(run, pool[0], 2)
    session.begin({"m1": np.zeros((4, 2))})
    with pytest.raises(ValueError, match="this policy looks at class scores of m1: give them"):
        session.take(np.zeros((1, DIM)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        SELECTOR,
        replace(SELECTOR, models=("m0:2", "m1", "m2:1"), selector_input="scores+features", input_norm="l2"),
        replace(SELECTOR, coarse="m1", confidence_input=True, target="affinity", rule="price"),
        replace(SELECTOR, coarse="other", rows=2),
        replace(SELECTOR, coarse="other", selector_input="features"),
        replace(SELECTOR, heads="linear", folds=2, input_norm="l2"),
        replace(SELECTOR, heads="linear", folds=2, coarse="other", multi_label=True),
        replace(SELECTOR, heads="linear", folds=2, coarse="other", selector_input="features"),
        REGRESSIONS,
        replace(REGRESSIONS, coarse="m1", rows=2),
        replace(REGRESSIONS, coarse="other", answer="mean", threshold=0.05),
        replace(REGRESSIONS, heads="linear", folds=2, multi_label=True),
        replace(REGRESSIONS, answer="chosen", multi_label=True),
        CASCADE,
        STAGED,
        replace(STAGED, answer="largest", models=("m2", "m0:2", "m1:3"), coarse="m1", threshold=0.05),
        replace(STAGED, answer="mean", multi_label=True),
        replace(STAGED, heads="linear", folds=2, budget=6.0),
        replace(CASCADE, answer="largest", models=("m2", "m0:2", "m1:3"), coarse="m1"),
        replace(CASCADE, answer="mean", selector_input="scores+features", input_norm="l2", multi_label=True),
        replace(CASCADE, heads="linear", folds=2, budget=6.0),
    ],
)
def test_a_pool_answers_as_its_run(
    config: RunConfig, pool: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    run = run_method(config, *pool, tmp_path / "run", device="cpu")
    check_run(run, pool[0], most=1)
    session = check_run(run, pool[0])
    assert isinstance(session, PoolSession)
    with (run.folder / "choices.csv").open(newline="") as file:
        choices = {row["video_id"]: row for row in csv.DictReader(file)}
    ran = set()
    for video_id, choice in choices.items():
        drive(session, pool[0], video_id, most=2)
        expected = {*choice["ran"].split("+"), session.looks_at}
        assert set(session.ran) == expected and session.ran[0] == session.looks_at
        ran.add(session.ran)
        if isinstance(session, SelectorSession):
            assert session.chosen in choice["answers"].split("+")
    assert len(ran) > 1


@pytest.mark.slow
def test_the_answer_of_a_selector_at_any_time(pool: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    for coarse in ("m0", "other"):
        folder = tmp_path / coarse
        run_method(replace(SELECTOR, coarse=coarse), *pool, folder, device="cpu")
        session = open_session(folder)
        assert isinstance(session, SelectorSession)
        assert session.probabilities.tolist() == pytest.approx([0.2] * COUNT)
        for video_id in run_method(replace(SELECTOR, coarse=coarse), *pool, folder).predictions().video_ids:
            videos = {name: pool[0][name][video_id] for name in session.streams}
            session.begin({name: video.spans for name, video in videos.items()})
            assert session.probabilities.tolist() == pytest.approx([0.2] * COUNT)
            assert session.chosen is None and session.macs_by_name == {coarse: 0, "selector network": 0}
            answers = []
            while (wanted := session.wanted()) is not None:
                scores = videos[wanted.stream].scores
                assert scores is not None
                session.take(scores=scores[wanted.rows[:1]])  # features are not looked at
                answers.append((wanted.stream, session.probabilities))
            first = [answer for stream, answer in answers if stream == coarse]
            assert len(first) == ROWS[coarse] and all(
                float(answer.sum()) == pytest.approx(1) for answer in first
            )
            assert len({tuple(answer.tolist()) for answer in first}) == (
                1 if coarse == "other" else ROWS[coarse]
            )


@pytest.fixture(scope="module")
def cascade(pool: tuple[FeatureCache, LabelSet], tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = replace(CASCADE, selector_input="scores+features", input_norm="l2")
    return run_method(config, *pool, tmp_path_factory.mktemp("cascade"), device="cpu")


@settings(max_examples=30)
@given(data=st.data(), video=st.integers(0, 19))
def test_it_does_not_matter_how_many_rows_come_at_a_time(
    data: st.DataObject, video: int, pool: tuple[FeatureCache, LabelSet], cascade: Run
) -> None:
    video_id = cascade.predictions().video_ids[video]
    whole, parts = open_session(cascade.folder), open_session(cascade.folder)
    drive(whole, pool[0], video_id)
    parts.begin({name: pool[0][name][video_id].spans for name in parts.streams})
    while (wanted := parts.wanted()) is not None:
        record = pool[0][wanted.stream][video_id]
        rows = wanted.rows[: data.draw(st.integers(1, len(wanted.rows)))]
        assert record.scores is not None
        before = parts.macs
        parts.take(torch.from_numpy(record.features[rows]).double(), record.scores[rows].astype(np.float32))
        assert parts.macs > before
        assert parts.probabilities.shape == (COUNT,) and parts.probabilities.isfinite().all()
    assert torch.allclose(parts.probabilities, whole.probabilities, atol=1e-6)
    assert parts.macs_by_name == whole.macs_by_name


@pytest.mark.slow
def test_what_a_pool_cannot_take(pool: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    run_method(SELECTOR, *pool, tmp_path / "run", device="cpu")
    session = open_session(tmp_path / "run")
    spans = {name: np.zeros((6, 2)) for name in session.streams}
    with pytest.raises(ValueError, match="spans of m2: 2 rows are no clip, which has 3"):
        session.begin({**spans, "m2": spans["m2"][:2]})
    session.begin(spans)
    scores = np.zeros((7, 6))
    with pytest.raises(ValueError, match="m0: give from 1 to 6 rows"):
        session.take(scores=scores)
    with pytest.raises(ValueError, match="m0: give from 1 to 6 rows, as many of features as of scores"):
        session.take(np.zeros((5, DIM)), scores[:6])
    with pytest.raises(ValueError, match=r"class scores of m0 have shape \(2, 5\), not \(2, 6\)"):
        session.take(scores=scores[:2, :5])
    with pytest.raises(ValueError, match="class scores of m0 are not finite"):
        session.take(scores=scores[:1] - np.inf)
    with pytest.raises(ValueError, match="this policy looks at class scores of m0: give them"):
        session.take(np.zeros((6, DIM)))
    assert session.macs == 0
    session.take(scores=scores[:4])
    wanted = session.wanted()
    assert wanted is not None and wanted.rows.tolist() == [4, 5]
    with pytest.raises(ValueError, match="m0: give from 1 to 2 rows"):
        session.take(scores=scores[:3])


@pytest.mark.slow
def test_choose_takes_probabilities(pool: tuple[FeatureCache, LabelSet], tmp_path: Path) -> None:
    run_method(replace(SELECTOR, coarse="other"), *pool, tmp_path / "one", device="cpu")
    run_method(replace(SELECTOR, multi_label=True), *pool, tmp_path / "several", device="cpu")
    one, several = (open_session(str(tmp_path / name)) for name in ("one", "several"))
    assert isinstance(one, SelectorSession) and isinstance(several, SelectorSession)
    assert len(one.choose(np.array([[0.2, 0.3, 0.5], [1, 0, 0]], np.float16))) == 2
    halves = np.random.default_rng(0).dirichlet(np.ones(3), 20).astype(np.float16)
    chosen = one.choose(halves)
    assert one.choose(torch.from_numpy(halves).requires_grad_()) == chosen and len(set(chosen)) > 1
    assert one.choose(np.full((0, 3), 0.5)) == []
    assert len(several.choose(np.array([[0.9, 0.8, 0.1, 0, 1]]))) == 1
    for wrong, problem in [
        ([[0.2, 0.3, 0.4]], "probabilities of other add up to 1 in each row, not to 0.9"),
        ([[2.0, -1.0, 0.0]], r"probabilities of other are between 0 and 1.* class scores \(logits\)"),
        ([[np.nan, 0.5, 0.5]], "probabilities of other are not finite"),
        ([[0.5, 0.5]], r"probabilities of other have shape \(1, 2\), not \(1, 3\)"),
        ([0.2, 0.3, 0.5], r"probabilities of other have shape \(3,\), not \(3, 3\)"),
    ]:
        with pytest.raises(ValueError, match=problem):
            one.choose(np.array(wrong))
    with pytest.raises(ValueError, match="probabilities of m0 are between 0 and 1"):
        several.choose(np.array([[1.5, 0, 0, 0, 0]]))


@pytest.mark.slow
@pytest.mark.parametrize("config", [CASCADE, replace(SELECTOR, heads="linear", folds=2)])
def test_a_run_that_kept_too_little(
    config: RunConfig, pool: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    run_method(config, *pool, tmp_path / "run", device="cpu")
    (tmp_path / "run" / "session.safetensors").unlink()
    with pytest.raises(UserError, match="did not keep what raw video needs: train it again"):
        open_session(tmp_path / "run")


# --- the spans of a video ---


@settings(max_examples=50)
@given(
    duration_s=st.floats(0, 1000),
    sampling=st.sampled_from(
        [
            Sampling(),
            Sampling("clips", fps=15.0, frames=13, window=73, clips=10, crops=3),
            Sampling("dense", fps=25.0, frames=16, window=16),
            Sampling("snippets", fps=30.0, frames=8, window=64, rows_per_s=1.0),
        ]
    ),
    flow=st.sampled_from([None, "dis"]),
)
def test_spans_are_those_of_the_sampling(duration_s: float, sampling: Sampling, flow: str | None) -> None:
    spec = make_spec(sampling=sampling, preprocessing=replace(PREPROCESSING, flow=flow))
    spans_s = spans_of(spec, duration_s)
    assert spans_s.ndim == 2 and spans_s.shape[1] == 2 and len(spans_s) % sampling.crops == 0
    assert len(spans_s) == sampling.clips * sampling.crops or sampling.kind != "clips"
    assert (spans_s >= 0).all() and (spans_s <= duration_s).all()
    assert (np.diff(spans_s, axis=1) >= 0).all() and (np.diff(spans_s[:, 0]) >= 0).all()


def test_spans_of_what_nobody_knows() -> None:
    spec = make_spec("scores", sampling=Sampling("clips", frames=0, window=0, fps=0.0, clips=4))
    with pytest.raises(
        UserError, match="stream 'scores' was imported: which frames its rows saw is not known"
    ):
        spans_of(spec, 10.0)
