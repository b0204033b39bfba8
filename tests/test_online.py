"""Online recognition: frame by frame what the batch model says, and until then what it costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from cache_schema import FeatureCache, UserError, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from policy.baselines.config import UniformConfig
from policy.baselines.uniform import Uniform
from policy.config import Cell, InputNorm
from policy.data.batches import VideoSet
from policy.deploy.session import open_session
from policy.evaluation.operating import Curve
from policy.evaluation.predictions import Predictions
from policy.liteeval.config import LiteEvalConfig
from policy.liteeval.method import GatedMethod, LiteEvalMethod
from policy.liteeval.model import LiteEval
from policy.liteeval.online import emissions, first_rows, seq_k, uniform_k, uniform_watched, watched
from policy.liteeval.session import AHEAD, LiteEvalSession
from policy.method import evaluate
from policy.registry import METHODS, configure
from policy.runs import open_data, run_method
from tests.caches import make_record, make_spec
from tests.planted import write_planted

COARSE_MACS, FINE_MACS = 80_000_000, 7_800_000_000  # of the planted streams
DIM, CLASSES, HIDDEN = 10, 4, 12
CPU = torch.device("cpu")
CONFIG = LiteEvalConfig(
    coarse="coarse_112",
    fine="fine_224",
    epochs=1,
    batch=5,
    lr=1e-3,
    coarse_hidden=6,
    fine_hidden=HIDDEN,
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureCache, LabelSet]:
    folder = tmp_path_factory.mktemp("planted")
    return write_planted(folder, train=8, test=12, classes=CLASSES, dim=DIM, lengths=(4, 9))


@pytest.fixture(scope="module")
def liteeval(planted: tuple[FeatureCache, LabelSet]) -> tuple[LiteEvalMethod, VideoSet]:
    return make_liteeval(planted, CONFIG)


def make_liteeval(
    planted: tuple[FeatureCache, LabelSet], config: LiteEvalConfig
) -> tuple[LiteEvalMethod, VideoSet]:
    """Random weights, and a gate that opens now and then: the videos need no training to be different."""
    data = open_data(config, *planted)
    torch.manual_seed(3)
    method = LiteEvalMethod(config, data)
    with torch.no_grad():
        method.model.gate.weight.mul_(3)
        method.model.threshold.fill_(0.5)
    used = evaluate(method, data.evaluation, device=CPU).fine_rows[0]
    assert len(set(used.tolist())) > 3
    return method, data.evaluation


def make_uniform(planted: tuple[FeatureCache, LabelSet]) -> tuple[Uniform, VideoSet]:
    config = configure("uniform", vars(CONFIG), frames=4)
    assert isinstance(config, UniformConfig)
    data = open_data(config, *planted)
    torch.manual_seed(0)
    return Uniform(config, data), data.evaluation


def features(videos: VideoSet, index: int) -> tuple[Tensor, Tensor]:
    coarse, fine = (videos.features(role, index) for role in ("coarse", "fine"))
    return torch.from_numpy(np.array(coarse)), torch.from_numpy(np.array(fine))


# --- frame by frame ---


def session_of(method: LiteEvalMethod, videos: VideoSet) -> LiteEvalSession:
    return LiteEvalSession(method.model, *(videos.streams[role].spec for role in method.roles))


def feed(session: LiteEvalSession, coarse: Tensor, fine: Tensor) -> tuple[list[bool], Tensor]:
    """Gates, and the logits after each frame."""
    gates, logits = [], []
    for seen, detail in zip(coarse, fine, strict=True):
        gates.append(session.look(seen))
        assert session.wants_fine == gates[-1]
        if gates[-1]:
            session.fine(detail)
        logits.append(session.logits)
    return gates, torch.stack(logits)


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    sync=st.booleans(),
    threshold=st.sampled_from([-1e9, -0.3, 0.0, 0.3, 1e9]),
    seed=st.integers(0, 1000),
)
def test_a_session_says_what_the_batch_model_says(
    lengths: list[int], sync: bool, threshold: float, seed: int
) -> None:
    torch.manual_seed(seed)
    model = LiteEval(
        coarse_dim=3, fine_dim=4, num_classes=5, coarse_hidden=2, fine_hidden=6, sync=sync
    ).double()
    with torch.no_grad():
        model.gate.weight.mul_(4)
        model.threshold.fill_(threshold)
    coarse, fine = ([torch.randn(n, dim, dtype=torch.float64) for n in lengths] for dim in (3, 4))

    def pack(parts: list[Tensor]) -> PackedSequence:
        return pack_sequence(parts, enforce_sorted=False)

    with torch.no_grad():
        batch = model.eval()(pack(coarse), pack(fine))
        expected = [model.classifier(states) for states in batch.split(batch.states)]
    session = LiteEvalSession(
        model, make_spec("small", dim=3, macs_per_row=1000), make_spec("large", dim=4, macs_per_row=100_000)
    )
    for video, gates in enumerate(batch.split(batch.gates)):
        session.begin()
        said, logits = feed(session, coarse[video], fine[video])
        assert said == (gates > 0).tolist()
        assert torch.allclose(logits, expected[video], atol=1e-12)
        assert torch.allclose(session.probabilities, batch.logits[video].softmax(0), atol=1e-12)
        assert (session.frames, session.fine_features) == (len(gates), gates.sum())
        opened = int(gates.sum())
        assert session.macs == (
            model.cost.total(steps=len(gates), opened=opened) + 1000 * len(gates) + 100_000 * opened
        )


@pytest.mark.slow
@settings(max_examples=25)
@given(
    data=st.data(),
    lengths=st.lists(st.integers(1, 2 * AHEAD + 3), min_size=1, max_size=4),
    cell=st.sampled_from(get_args(Cell)),
    sync=st.booleans(),
    threshold=st.sampled_from([-1e9, -0.3, 0.0, 0.3, 1e9]),
)
def test_videos_together_as_each_alone(
    data: st.DataObject, lengths: list[int], cell: Cell, sync: bool, threshold: float
) -> None:
    """Whichever take rows together, and how many: gates, answers and costs are those of the whole video."""
    torch.manual_seed(len(lengths))
    model = LiteEval(
        coarse_dim=3, fine_dim=4, num_classes=5, coarse_hidden=2, fine_hidden=6, sync=sync, cell=cell
    ).double()
    with torch.no_grad():
        model.gate.weight.mul_(4)
        model.threshold.fill_(threshold)
    coarse, fine = ([torch.randn(n, dim, dtype=torch.float64) for n in lengths] for dim in (3, 4))
    with torch.no_grad():
        expected = model.eval()(*(pack_sequence(parts, enforce_sorted=False) for parts in (coarse, fine)))
    small, large = (
        make_spec("small", dim=3, macs_per_row=1000),
        make_spec("large", dim=4, macs_per_row=100_000),
    )
    first = LiteEvalSession(model, small, large)
    sessions = [first, *(first.another() for _ in lengths[1:])]
    given = [{"small": list[int](), "large": list[int]()} for _ in lengths]
    for session, length in zip(sessions, lengths, strict=True):
        spans = np.arange(2.0 * length).reshape(-1, 2)
        session.begin({"small": spans, "large": spans})
    while waiting := [video for video, session in enumerate(sessions) if session.wanted() is not None]:
        some = data.draw(st.lists(st.sampled_from(waiting), min_size=1, unique=True))
        rows = []
        for video in some:
            wanted = sessions[video].wanted()
            assert wanted is not None and 1 <= len(wanted.rows) <= AHEAD
            assert np.array_equal(wanted.spans_s[:, 0], 2 * wanted.rows)
            taken = wanted.rows[: data.draw(st.integers(1, len(wanted.rows)))].tolist()
            given[video][wanted.stream] += taken
            rows.append(((coarse if wanted.stream == "small" else fine)[video][taken], None))
        assert LiteEvalSession.take_together([sessions[video] for video in some], rows) == [None] * len(some)
        for video in some:
            counts = {name: len(taken) for name, taken in given[video].items()}
            session = sessions[video]
            assert session.fine_features == counts["large"] and session.frames <= counts["small"]
            assert session.macs_by_name == {
                "small": 1000 * counts["small"],
                "large": 100_000 * counts["large"],
                "LiteEval networks": model.cost.total(steps=session.frames, opened=counts["large"]),
            }
    for video, gates in enumerate(expected.split(expected.gates)):
        assert given[video]["small"] == list(range(lengths[video]))
        assert given[video]["large"] == gates.nonzero().squeeze(1).tolist()
        assert torch.allclose(sessions[video].logits, expected.logits[video], atol=1e-12)


def test_of_videos_together_one_is_refused(liteeval: tuple[LiteEvalMethod, VideoSet]) -> None:
    first = session_of(*liteeval)
    sessions = [first, first.another(), first.another()]
    spans = {name: np.zeros((4, 2)) for name in first.streams}
    for session in sessions:
        session.begin(spans)
    rows = np.random.default_rng(0).normal(size=(2, DIM)).astype(np.float32)
    errors = LiteEvalSession.take_together(
        sessions, [(rows, None), (rows * np.float32(np.nan), None), (rows, None)]
    )
    assert errors[0] is errors[2] is None and "are not finite" in str(errors[1])
    assert [session.macs_by_name["coarse_112"] for session in sessions] == [
        2 * COARSE_MACS,
        0,
        2 * COARSE_MACS,
    ]
    assert torch.allclose(sessions[0].probabilities, sessions[2].probabilities, atol=1e-6)
    wanted = sessions[1].wanted()
    assert wanted is not None and wanted.rows.tolist() == [0, 1, 2, 3]


def test_a_session_refuses_what_makes_no_sense(liteeval: tuple[LiteEvalMethod, VideoSet]) -> None:
    session = session_of(*liteeval)
    coarse, fine = np.zeros(DIM, np.float32), np.ones(DIM, np.float16)
    with pytest.raises(ValueError, match="no fine features were asked for"):
        session.fine(fine)
    with pytest.raises(ValueError, match=r"coarse features have shape \(9,\), not \(10,\)"):
        session.look(coarse[:9])
    with pytest.raises(ValueError, match=r"shape \(1, 10\), not \(10,\)"):
        session.look(coarse[None])
    with pytest.raises(ValueError, match="coarse features of frame 1 are not finite"):
        session.look(coarse + np.nan)
    assert session.frames == 0  # nothing of that was seen
    model = liteeval[0].model
    before = float(model.threshold)
    try:
        model.threshold.fill_(-np.inf)
        assert session.look(coarse)
        with pytest.raises(ValueError, match="frame 1 waits for its fine features"):
            session.look(coarse)
        with pytest.raises(ValueError, match=r"fine features have shape \(11,\), not \(10,\)"):
            session.fine(np.zeros(11))
        with pytest.raises(ValueError, match="fine features of frame 1 are not finite"):
            session.fine(fine * np.inf)
        session.fine(fine)
        model.threshold.fill_(np.inf)
        assert not session.look(coarse)
        with pytest.raises(ValueError, match="no fine features were asked for"):
            session.fine(fine)
    finally:
        model.threshold.fill_(before)
    assert (session.frames, session.fine_features) == (2, 1)


@pytest.mark.parametrize(("input_norm", "multi_label"), [("standard", False), ("l2", True)])
def test_session_of_a_run(
    input_norm: InputNorm, multi_label: bool, planted: tuple[FeatureCache, LabelSet], tmp_path: Path
) -> None:
    """Fed what is in the cache, it says what the run's predictions hold, at the same cost."""
    cache, labels = planted
    several: tuple[str, ...] = (*labels.videos[0].labels, "class 1")
    many = LabelSet(labels.source, (replace(labels.videos[0], labels=several), *labels.videos[1:]))
    config = replace(CONFIG, input_norm=input_norm, epochs=2)
    run = run_method(config, cache, many if multi_label else labels, tmp_path / "run", device="cpu")
    predicted = run.predictions()
    session = open_session(run.folder)
    assert isinstance(session, LiteEvalSession)
    assert session.classes == tuple(f"class {c}" for c in range(CLASSES))
    for video, video_id in enumerate(predicted.video_ids):
        session.begin()
        raw = [
            torch.from_numpy(np.array(cache[name][video_id].features)) for name in ("coarse_112", "fine_224")
        ]
        gates, _ = feed(session, *raw)
        rows = slice(*predicted.offsets[video : video + 2])
        assert gates == predicted.gates[0, rows].tolist()
        assert np.allclose(session.probabilities, predicted.scores[0, video], atol=1e-6)
        assert session.macs == predicted.ledger.total[0, video]


def test_a_session_needs_a_finished_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder of train-policy"):
        open_session(tmp_path)


# --- emissions ---


def check_point(
    said: Predictions, method: LiteEvalMethod, videos: VideoSet, video: int, frames: int, fine: int | None
) -> None:
    """One video against a session, stopped after so many frames or so many fine features."""
    session = session_of(method, videos)
    coarse, details = features(videos, video)
    gates = np.zeros(len(coarse), np.uint8)
    for row in range(frames):
        if session.look(coarse[row]):
            session.fine(details[row])
            gates[row] = 1
            if session.fine_features == fine:
                break
    assert said.row_counts[video] == session.frames
    assert np.array_equal(said.gates[0, said.offsets[video] : said.offsets[video + 1]], gates)
    assert np.allclose(said.scores[0, video], session.probabilities, atol=1e-6)
    networks = method.model.cost.total(steps=session.frames, opened=session.fine_features)
    assert {name: int(spent[0, video]) for name, spent in said.ledger.items()} == {
        "coarse_112": COARSE_MACS * session.frames,
        "fine_224": FINE_MACS * session.fine_features,
        "LiteEval networks": networks,
    }


def test_emissions(liteeval: tuple[LiteEvalMethod, VideoSet]) -> None:
    method, videos = liteeval
    curve = emissions(method, videos, [1, 3, 2, 99], device=CPU)
    assert [point.value for point in curve.points] == [1, 3, 2, 99]
    for point in curve.points:
        for video in range(len(videos)):
            check_point(point.predictions, method, videos, video, videos.length(video), int(point.value))
    whole = evaluate(method, videos, device=CPU)
    never = curve.points[-1].predictions
    assert np.array_equal(never.gates, whole.gates)
    assert set(never.ledger) == set(whole.ledger)
    assert all(np.array_equal(spent, whole.ledger[name]) for name, spent in never.ledger.items())
    assert np.allclose(never.scores, whole.scores, atol=1e-6)
    assert (np.diff(curve.gflops[[0, 2, 1, 3]]) > 0).all()


def test_watched(liteeval: tuple[LiteEvalMethod, VideoSet]) -> None:
    method, videos = liteeval
    curve = watched(method, videos, [0.01, 0.5, 1.0], device=CPU)
    for point in curve.points:
        for video in range(len(videos)):
            rows = max(1, int(np.ceil(point.value * videos.length(video))))
            check_point(point.predictions, method, videos, video, rows, None)


def test_first_rows_is_not_misled_by_rounding() -> None:
    for length in range(1, 400):
        for tenths in range(1, 11):
            assert first_rows(length, tenths / 10) == -(-length * tenths // 10)


def test_one_pass_and_few_rows_classified(liteeval: tuple[LiteEvalMethod, VideoSet]) -> None:
    """However many budgets: the network runs once per batch, and the classifier on no more than its videos."""
    method, videos = liteeval
    passes, classified = [], []
    hooks = [
        method.model.register_forward_hook(lambda *_: passes.append(1)),
        method.model.classifier.register_forward_hook(lambda _, given, __: classified.append(len(given[0]))),
    ]
    try:
        emissions(method, videos, range(1, 9), device=CPU)
        watched(method, videos, [k / 10 for k in range(1, 11)], device=CPU)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(passes) == 2 * 3  # 12 videos in batches of 5
    assert max(classified) == 5


def test_what_cannot_be_emitted(
    liteeval: tuple[LiteEvalMethod, VideoSet], planted: tuple[FeatureCache, LabelSet]
) -> None:
    method, videos = liteeval
    with pytest.raises(ValueError, match="K must be at least 1, not 0"):
        emissions(method, videos, [2, 0], device=CPU)
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match="shares must be above 0 and at most 1"):
            watched(method, videos, [share], device=CPU)
    config = configure("random-gating", vars(CONFIG), usage=0.3)
    data = open_data(config, *planted)
    drawn = METHODS["random-gating"](config, data)
    assert isinstance(drawn, GatedMethod)
    with pytest.raises(ValueError, match="drawn"):
        emissions(drawn, videos, [1], device=CPU)


# --- the paper's baselines ---


def mean_score(method: Uniform, videos: VideoSet, video: int, rows: list[int]) -> np.ndarray:
    """Mean of the softmax of each frame's logits."""
    with torch.no_grad():
        logits = method.model["fine"](torch.from_numpy(np.array(videos.features("fine", video)[rows])))
    return np.asarray(logits.softmax(1).mean(0))


def check_frames(said: Predictions, method: Uniform, videos: VideoSet, rows: list[list[int]]) -> None:
    per_row = FINE_MACS + DIM * CLASSES
    for video, chosen in enumerate(rows):
        assert np.allclose(said.scores[0, video], mean_score(method, videos, video, chosen), atol=1e-6)
        gates = said.gates[0, said.offsets[video] : said.offsets[video + 1]]
        assert np.flatnonzero(gates).tolist() == chosen
        assert said.ledger.total[0, video] == len(chosen) * per_row


def test_uniform_k(liteeval: tuple[LiteEvalMethod, VideoSet], planted: tuple[FeatureCache, LabelSet]) -> None:
    method, videos = make_uniform(planted)
    for point in emissions(*liteeval, [1, 2, 6], device=CPU).points:
        k, watched_rows = int(point.value), point.predictions.row_counts
        said = uniform_k(method, videos, watched_rows, k, device=CPU)
        assert said.value == k
        # The middles of k equal parts of the rows watched, or all of them.
        rows = [
            [int((part + 0.5) * last / k) for part in range(k)] if last > k else list(range(last))
            for last in watched_rows.tolist()
        ]
        check_frames(said.predictions, method, videos, rows)
    assert min(videos.length(i) for i in range(len(videos))) < 6  # so that there was one with K' < K


def test_seq_k(planted: tuple[FeatureCache, LabelSet]) -> None:
    method, videos = make_uniform(planted)
    for k in (1, 6):
        rows = [list(range(min(k, videos.length(video)))) for video in range(len(videos))]
        check_frames(seq_k(method, videos, k, device=CPU).predictions, method, videos, rows)


def test_uniform_watched(planted: tuple[FeatureCache, LabelSet]) -> None:
    method, videos = make_uniform(planted)
    curve = uniform_watched(method, videos, [0.5, 1.0], device=CPU)
    assert np.allclose(curve.points[1].predictions.scores, evaluate(method, videos, device=CPU).scores)
    rows = [
        [int((part + 0.5) * half / 2) for part in range(2)]
        for half in (-(-videos.length(video) // 2) for video in range(len(videos)))
    ]
    check_frames(curve.points[0].predictions, method, videos, rows)
    more = uniform_watched(method, videos, [1.0], frames=100, device=CPU).points[0].predictions
    assert more.fine_rows[0].tolist() == [videos.length(video) for video in range(len(videos))]


def test_baselines_on_the_streams_own_scores(tmp_path: Path) -> None:
    names = ("b", "a")  # the labels' classes are sorted
    spec = replace(make_spec("fine_224", dim=3, classes=2), classes=names)
    records = [make_record(f"v{k}", 5, dim=3, classes=2) for k in range(4)]
    write_shard(tmp_path / "fine_224", spec, records, tools={"thriftvid": "test"})
    labels = tuple(VideoLabel(f"v{k}", (names[k % 2],), "train" if k < 2 else "test") for k in range(4))
    method, videos = make_uniform((FeatureCache(tmp_path), LabelSet(tmp_path / "labels.csv", labels)))
    said = uniform_k(method, videos, np.array([3, 5]), 1, device=CPU).predictions
    for video, row in enumerate([1, 2]):
        own = records[2 + video].scores
        assert own is not None
        expected = np.exp(own[row, ::-1].astype(float))
        assert np.allclose(said.scores[0, video], expected / expected.sum(), atol=1e-6)


def test_what_the_baselines_refuse(planted: tuple[FeatureCache, LabelSet]) -> None:
    method, videos = make_uniform(planted)
    ones = np.ones(len(videos), np.int64)
    for watched_rows in (ones[1:], ones * 0, ones * 10):
        with pytest.raises(ValueError, match="watched_rows must be"):
            uniform_k(method, videos, watched_rows, 1, device=CPU)
    for attempt in (
        lambda: uniform_k(method, videos, ones, 0, device=CPU),
        lambda: seq_k(method, videos, 0, device=CPU),
        lambda: uniform_watched(method, videos, [0.5], frames=0, device=CPU),
    ):
        with pytest.raises(ValueError, match="K must be at least 1, not 0"):
            attempt()


def test_figures_of_a_curve(liteeval: tuple[LiteEvalMethod, VideoSet]) -> None:
    curve: Curve = emissions(*liteeval, [1, 2], device=CPU)
    said = curve.points[1].predictions
    assert curve.gflops[1] == pytest.approx(said.ledger.total.mean() / 1e9)
    assert curve.top1[1] == said.top1()
    assert curve.mean_average_precision[1] == said.mean_average_precision()
