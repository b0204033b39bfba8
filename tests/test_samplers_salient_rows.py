"""SCSampler and motion difference: which rows they choose, what they learn from, what they cost."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn.utils.rnn import pack_sequence

from cache_schema import FeatureCache, UserError, write_shard
from cache_schema.annotations import LabelSet, VideoLabel
from policy.data.batches import uniform_rows
from policy.deploy.session import open_session
from policy.evaluation.operating import OperatingTarget, doubled_up_to
from policy.evaluation.predictions import Predictions
from policy.finished import evaluate_run
from policy.method import Method, Moment
from policy.registry import configure
from policy.runs import Listener, load_method, open_data, run_method
from policy.samplers.motion_difference import Changes
from policy.samplers.rows_config import MotionDifferenceConfig
from policy.samplers.salient_rows import SalientRowsMethod
from policy.samplers.scsampler import SCSampler, drawn_partners
from policy.training.loop import Epoch
from tests.caches import make_record, make_spec
from tests.planted import Planted, write_planted
from tests.planted_rows import plant_rows
from tests.sessions import drive

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    **{"coarse": "coarse_112", "fine": "fine_224", "top_rows": 3},
    **{"epochs": 3, "batch": 6, "lr": 1e-2, "saliency_hidden": 5},
}
DIM, CLASSES = 6, 4
COARSE_MACS, FINE_MACS = 80_000_000, 7_800_000_000
Data = tuple[FeatureCache, LabelSet]
BOTH = ("scsampler", "motion-difference")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Also with a second cheap stream, and one that has class scores and no features worth it."""
    folder = tmp_path_factory.mktemp("small")
    cache, labels = write_planted(folder, train=16, test=9, classes=CLASSES, dim=DIM, lengths=(1, 12))
    lengths = {video: cache["fine_224"].rows(video) for video in cache["fine_224"]}
    write_shard(
        folder / "cheap",
        make_spec("cheap", dim=3),
        [make_record(v, n, dim=3) for v, n in lengths.items()],
        tools={},
    )
    names = tuple(f"class {label}" for label in (3, 1, 0, 2, 9))
    spec = replace(make_spec("scored", dim=2, classes=5), classes=names)
    write_shard(
        folder / "scored", spec, [make_record(v, n, dim=2, classes=5) for v, n in lengths.items()], tools={}
    )
    return FeatureCache(folder), labels


def trained(name: str, data: Data, folder: Path, **more: Any) -> SalientRowsMethod:
    config = configure(name, {**SMALL, **more})
    run_method(config, *data, folder, device="cpu")
    method = load_method(folder, config, open_data(config, *data))
    assert isinstance(method, SalientRowsMethod)
    return method


# --- what they choose ---


@torch.no_grad()
def test_changes_row_by_row() -> None:
    random = np.random.default_rng(0)
    network = Changes(
        MotionDifferenceConfig(top_rows=2),
        {"coarse": make_spec(dim=3), "fine": make_spec(dim=2)},
        "ab",
        multi_label=False,
    )
    for length in (1, 2, 7):
        features = random.standard_normal((length, 3)).astype(np.float32)
        expected = []
        for row in range(length):
            neighbours = [other for other in (row - 1, row + 1) if 0 <= other < length]
            distances = [np.sqrt(((features[row] - features[other]) ** 2).sum()) for other in neighbours]
            expected.append(sum(distances) / len(distances) if distances else 0.0)
        assert np.allclose(network.saliency(torch.from_numpy(features)), expected, atol=1e-6)
        chosen = sorted(sorted(range(length), key=lambda row: -expected[row])[:2])
        assert network.chosen(torch.from_numpy(features)).tolist() == chosen
    still = torch.ones(5, 3)
    assert network.saliency(still).tolist() == [0.0] * 5 and network.chosen(still).tolist() == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("scsampler", {}),
        ("scsampler", {"saliency": "classes"}),
        ("scsampler", {"further_streams": ("cheap",), "multi_label": True}),
        ("scsampler", {"saliency": "classes", "input_norm": "l2", "multi_label": True}),
        ("scsampler", {"fine": "scored", "input_norm": "none"}),
        ("motion-difference", {"further_streams": ("cheap",)}),
        ("motion-difference", {"input_norm": "l2", "multi_label": True}),
        ("motion-difference", {"fine": "scored", "top_rows": 100}),
    ],
)
def test_predictions_in_plain_numpy_and_sessions(
    name: str, change: dict[str, Any], small: Data, tmp_path: Path
) -> None:
    method = trained(name, small, tmp_path / "run", **change)
    found = method.evaluate(open_data(method.config, *small).evaluation, device=CPU)
    assert isinstance(found, Predictions)
    weights = {key: value.numpy() for key, value in load_file(tmp_path / "run" / "model.safetensors").items()}
    cache, several, l2 = small[0], bool(change.get("multi_label")), method.config.input_norm == "l2"

    def features(stream: str, video: str) -> Any:
        rows = cache[stream][video].features.astype(np.float64)
        if l2:
            rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float64)
        return rows

    def chances(logits: Any) -> Any:
        if several:
            return 1 / (1 + np.exp(-logits))
        return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)

    session = open_session(tmp_path / "run")
    cheap = ["coarse_112", *change.get("further_streams", ())]
    fine = change.get("fine", "fine_224")
    for number, video in enumerate(found.video_ids):
        x = np.concatenate([features(stream, video) for stream in cheap], axis=1)
        x = (x - weights["scale.mean"]) / weights["scale.std"]
        length = len(x)
        if name == "scsampler":
            hidden = np.maximum(x @ weights["hidden.weight"].T + weights["hidden.bias"], 0)
            logits = hidden @ weights["output.weight"].T + weights["output.bias"]
            saliency = chances(logits).max(axis=1) if change.get("saliency") == "classes" else logits[:, 0]
        else:
            steps = [np.linalg.norm(after - before) for before, after in pairwise(x)]
            around = [[*steps[max(0, row - 1) : row], *steps[row : row + 1]] for row in range(length)]
            saliency = np.array([np.mean(each) if each else 0.0 for each in around])
        rows = np.sort(np.argsort(-saliency, kind="stable")[: change.get("top_rows", 3)])
        if fine == "scored":
            scores = cache[fine][video].scores
            assert scores is not None
            logits = scores[rows][:, [2, 1, 3, 0]].astype(np.float64)
        else:
            z = (features(fine, video)[rows] - weights["fine.frames.scale.mean"]) / weights[
                "fine.frames.scale.std"
            ]
            logits = z @ weights["fine.frames.classifier.weight"].T + weights["fine.frames.classifier.bias"]
        gates = found.gates[0, found.offsets[number] : found.offsets[number + 1]]
        assert np.flatnonzero(gates).tolist() == rows.tolist()
        assert np.allclose(found.scores[0, number], chances(logits).mean(axis=0), atol=1e-4)

        trace = drive(session, cache, video, most=2)
        assert [w.stream for w in trace] == sorted([w.stream for w in trace], key=[*cheap, fine].index)
        assert [w.rows[0] for w in trace if w.stream == fine] == rows[::2].tolist()
        assert np.allclose(session.probabilities, found.scores[0, number], atol=1e-6)
        assert dict(session.macs_by_name) == {key: macs[0, number] for key, macs in found.ledger.items()}
    session.begin({stream: np.zeros((3, 2)) for stream in session.streams})
    assert session.probabilities.tolist() == [0.25] * 4 and session.macs == 0


@pytest.mark.parametrize("saliency", ["ranking", "classes"])
def test_costs(saliency: str, small: Data, tmp_path: Path) -> None:
    method = trained("scsampler", small, tmp_path / "run", saliency=saliency, further_streams=("cheap",))
    found = method.evaluate(open_data(method.config, *small).evaluation, device=CPU)
    assert isinstance(found, Predictions)
    network = (DIM + 3) * 5 + 5 * (CLASSES if saliency == "classes" else 1)
    for number, length in enumerate(found.lengths.tolist()):
        assert {key: macs[0, number] for key, macs in found.ledger.items()} == {
            "coarse_112": length * COARSE_MACS,
            "cheap": length * 1_000_000,
            "fine_224": min(length, 3) * FINE_MACS,
            "SCSampler network": length * network,
            "frame classifier": min(length, 3) * DIM * CLASSES,
        }


# --- what SCSampler learns from ---


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2**31))
def test_partners_are_other_rows_of_the_same_video(lengths: list[int], seed: int) -> None:
    lengths = sorted(lengths, reverse=True)
    rows = [torch.tensor([[video, row] for row in range(n)]) for video, n in enumerate(lengths)]
    packed = pack_sequence(rows)
    partner = drawn_partners(packed.batch_sizes, torch.Generator().manual_seed(seed))
    for (video, row), (other_video, other_row) in zip(
        packed.data.tolist(), packed.data[partner].tolist(), strict=True
    ):
        assert video == other_video and (row != other_row or lengths[video] == 1)
    assert sorted(partner.tolist()) == list(range(sum(lengths)))


def test_all_partners_are_drawn_equally_often() -> None:
    generator = torch.Generator().manual_seed(0)
    batch_sizes = pack_sequence([torch.zeros(5), torch.zeros(3)]).batch_sizes
    of_first = [int(drawn_partners(batch_sizes, generator)[0]) for _ in range(4000)]
    counts = np.bincount(of_first, minlength=8)[[2, 4, 6, 7]]  # rows 1 to 4 of the first video
    assert counts.sum() == 4000 and np.abs(counts / 4000 - 0.25).max() < 0.03


def test_the_mean_loss_and_gradient_are_those_of_all_pairs(
    small: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all shifts, which are drawn equally often, for videos of one length."""
    config = configure("scsampler", SMALL, ranking_margin=0.3)
    method = SCSampler(config, open_data(config, *small))  # type: ignore[arg-type]
    videos = open_data(config, *small).train
    of_length = [n for n in range(len(videos)) if videos.length(n) == 5 or videos.length(n) == 6][:1]
    length = videos.length(of_length[0])
    batch = videos.batch(of_length, method.rows)
    scores = torch.tensor([0.2, 0.9, 0.2, 0.5, 0.1, 0.9])[:length]
    method.fine_scores = [scores] * len(videos)
    parameters = list(method.model.hidden.parameters()) + list(method.model.output.parameters())
    total = torch.zeros(())
    for shift in range(1, length):
        monkeypatch.setattr(
            "policy.samplers.scsampler.drawn_partners",
            lambda *_, s=shift: (torch.arange(length) + s) % length,
        )
        total = total + method.losses(batch, Moment(0.0), torch.Generator())["loss"] / (length - 1)
    gradients = torch.autograd.grad(total, parameters)
    saliency = method.model.saliency(method.cheap_videos(batch)[0])
    expected = torch.zeros(())
    for i in range(length):
        for j in range(length):
            if scores[i] > scores[j]:
                expected = expected + 2 * torch.relu(0.3 - (saliency[i] - saliency[j])) / length / (
                    length - 1
                )
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, parameters), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_video_is_scored_by_a_classifier_that_was_not_fitted_to_it(tmp_path: Path) -> None:
    """Of features that say nothing, a classifier that was fitted to a video is sure of its class."""
    random = np.random.default_rng(0)
    folder = tmp_path / "cache"
    records = [make_record(f"v{n}", 3, dim=60, features=random.standard_normal((3, 60))) for n in range(40)]
    for name in ("coarse_112", "fine_224"):
        write_shard(folder / name, make_spec(name, dim=60), records, tools={})
    videos = tuple(VideoLabel(f"v{n}", ("ab"[n % 2],), "train" if n < 32 else "test") for n in range(40))
    config = configure("scsampler", SMALL)
    data = open_data(config, FeatureCache(folder), LabelSet(folder / "labels.csv", videos))
    method = SCSampler(config, data)  # type: ignore[arg-type]
    method.prepare(data.train, CPU)
    held_out = torch.stack(method.fine_scores)
    fitted = torch.stack(
        [
            method.model.fine(torch.from_numpy(data.train.features("fine", n).copy()))[:, data.train.first[n]]
            for n in range(32)
        ]
    ).detach()
    assert fitted.mean() > held_out.mean() + 0.15 and abs(held_out.mean() - 0.5) < 0.15


def test_a_stopped_run_comes_to_the_same_bits(small: Data, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        if epoch["epoch"] == 2:
            raise Stop

    config = configure("scsampler", SMALL, dropout=0.3)
    with pytest.raises(Stop):
        run_method(config, *small, tmp_path / "stopped", device="cpu", listener=Listener(epoch=stop))
    for name in ("stopped", "whole"):
        run_method(config, *small, tmp_path / name, device="cpu")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("stopped", "whole"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


# --- they find what is worth it ---


def gains(method: Method, planted: Planted) -> list[float]:
    """By how much of the oracle's gain over uniformly spaced rows the choice of K rows gains, for K of 1, 2 and 4.

    The oracle knows which rows tell the class, and its answer is the same classifier's.
    """
    assert isinstance(method, SalientRowsMethod)
    videos = open_data(method.config, planted.cache, planted.labels).evaluation
    curve = {
        point.value: point.predictions for point in method.operating_curve(videos, videos, device=CPU).points
    }
    shares = []
    for count in (1, 2, 4):
        right = np.zeros(2)
        for number, video in enumerate(videos.ids):
            rows = torch.from_numpy(videos.features("fine", number).copy())
            telling = np.flatnonzero(planted.informative[video])[:count]
            for way, chosen in enumerate((uniform_rows(len(rows), count), telling)):
                right[way] += int(method.model.fine(rows)[chosen].mean(0).argmax()) == videos.first[number]
        uniform, oracle = right / len(videos)
        shares.append((curve[count].top1() - uniform) / (oracle - uniform))
    print("shares of the oracle's gain:", [round(float(share), 2) for share in shares])
    return shares


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_scsampler_finds_the_few_rows_that_tell(seed: int, tmp_path: Path) -> None:
    planted = plant_rows(tmp_path / "cache", seed=seed, train=120, test=80, rows=30, easy=0.0)
    settings = {"epochs": 20, "batch": 32, "lr": 3e-3, "saliency_hidden": 32, "seed": seed}
    method = trained("scsampler", (planted.cache, planted.labels), tmp_path / "run", **settings)
    assert min(gains(method, planted)) >= 0.8


def test_motion_difference_finds_the_rows_where_something_appears(tmp_path: Path) -> None:
    planted = plant_rows(tmp_path / "cache", train=80, test=60, rows=20, easy=0.0, coarse_noise=0.2)
    method = trained("motion-difference", (planted.cache, planted.labels), tmp_path / "run")
    assert min(gains(method, planted)) >= 0.8


# --- budgets ---


@pytest.mark.parametrize("name", BOTH)
def test_one_training_has_many_budgets(name: str, small: Data, tmp_path: Path) -> None:
    method = trained(name, small, tmp_path / "run")
    data = open_data(method.config, *small)
    longest = max(data.evaluation.length(n) for n in range(len(data.evaluation)))
    curve = method.operating_curve(data.evaluation, data.train, device=CPU)
    assert [point.value for point in curve.points] == doubled_up_to(longest)
    assert int(method.model.top_rows) == 3 and (np.diff(curve.gflops) > 0).all()
    gates = [point.predictions.gates for point in curve.points]
    assert all((less <= more).all() for less, more in pairwise(gates))
    for point in curve.points:
        predictions = point.predictions
        assert np.array_equal(predictions.fine_rows[0], np.minimum(predictions.lengths, point.value))
    assert gates[-1].all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["usage", "budget"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", BOTH)
def test_a_target_is_kept_and_as_many_rows_as_it_pays_for(
    name: str, kind: Any, share: float, small: Data, tmp_path: Path
) -> None:
    method = trained(name, small, tmp_path / "run", further_streams=("cheap",))
    videos = open_data(method.config, *small).train

    def spent(count: int) -> float:
        method.set_value(count, OperatingTarget("threshold", count))
        judged = method.evaluate(videos, device=CPU)
        assert isinstance(judged, Predictions)
        return float((judged.usage if kind == "usage" else judged.gflops).mean())

    possible = {count: spent(count) for count in range(1, 13)}
    wanted = possible[1] + share * (possible[12] - possible[1])
    value = method.move_to(OperatingTarget(kind, wanted), [(method, videos)], CPU)
    assert spent(int(value)) == max(each for each in possible.values() if each <= wanted * (1 + 1e-9))
    with pytest.raises(UserError, match=rf"--{kind} 0\.01: the least that is possible is .*, with one row"):
        method.move_to(OperatingTarget(kind, 0.01), [(method, videos)], CPU)


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, 2.5, -1.0])
def test_k_is_a_whole_number(value: float, small: Data, tmp_path: Path) -> None:
    trained("motion-difference", small, tmp_path / "run")
    with pytest.raises(UserError, match="K, the number of rows, is a whole number and at least 1"):
        evaluate_run(tmp_path / "run", *small, target=OperatingTarget("threshold", value))


def test_a_finished_run_is_moved(small: Data, tmp_path: Path) -> None:
    trained("scsampler", small, tmp_path / "run", further_streams=("cheap",))
    target = OperatingTarget("threshold", 1.0)
    moved = evaluate_run(tmp_path / "run", *small, target=target, out=tmp_path / "moved")
    assert moved.result.metrics["fine_features_mean"] == 1
    session = open_session(tmp_path / "moved")
    drive(session, small[0], moved.outcome.judged.video_ids[0])
    assert session.macs == moved.outcome.judged.ledger.total[0, 0]


# --- what does not fit ---


@pytest.mark.parametrize("name", BOTH)
def test_streams_that_do_not_fit(name: str, small: Data, tmp_path: Path) -> None:
    cache, labels = small
    for change, problem in (
        (
            {"coarse": None},
            f"{name} needs a coarse stream; the cache has: cheap, coarse_112, fine_224, scored",
        ),
        ({"fine": None}, f"{name} needs a fine stream"),
        ({"fine": "coarse_112"}, "stream 'coarse_112' is named twice"),
        ({"further_streams": ("other",)}, "no stream 'other' in this cache"),
    ):
        with pytest.raises(UserError, match=problem):
            open_data(configure(name, {**SMALL, **change}), cache, labels)
    scores_only = make_spec("bare", dim=0, classes=CLASSES)
    records = [
        replace(
            make_record(v, cache["cheap"].rows(v), dim=0, classes=CLASSES),
            features=np.zeros((cache["cheap"].rows(v), 0), np.float16),
        )
        for v in cache["cheap"]
    ]
    for stream in ("coarse_112", "fine_224"):
        write_shard(
            tmp_path / stream, cache[stream].spec, [cache[stream][v] for v in cache[stream]], tools={}
        )
    write_shard(tmp_path / "bare", scores_only, records, tools={})
    config = configure(name, SMALL, coarse="bare")
    with pytest.raises(UserError, match="stream 'bare' has no features, only class scores"):
        run_method(config, FeatureCache(tmp_path), labels, tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("top_rows", 0, "top-rows must be positive, not 0"),
        ("saliency_hidden", 0, "saliency-hidden must be positive"),
        ("ranking_margin", -1.0, "ranking-margin must not be negative"),
        ("saliency", "motion", "saliency must be one of ranking, classes"),
    ],
)
def test_options_that_make_no_sense(name: str, value: Any, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        configure("scsampler", SMALL, **{name: value}).check()
