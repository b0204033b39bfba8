"""LiteEval's objectives: Eq. 7 for a batch, a usage that is kept, a loss at every step, a teacher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet, VideoLabel
from policy.baselines.config import UniformConfig
from policy.baselines.lstm import step_loss
from policy.data.batches import Batch, VideoSet
from policy.data.opening import Dataset
from policy.liteeval.calibration import calibrated_threshold, usage_of
from policy.liteeval.config import LiteEvalConfig, UsageLoss
from policy.liteeval.loss import ascend, distillation_loss, liteeval_loss
from policy.liteeval.method import LiteEvalMethod, decided_usage
from policy.liteeval.model import LiteEval
from policy.method import Moment
from policy.registry import configure
from policy.runs import (
    Listener,
    load_method,
    open_data,
    read_config,
    read_result,
    run_key,
    run_method,
    teacher_probabilities,
)
from policy.selection.config import SelectorConfig
from policy.training.loop import Epoch
from tests.planted import write_planted
from tests.pools import plant_pool

CPU = torch.device("cpu")
CONFIG = LiteEvalConfig(
    coarse="coarse_112",
    fine="fine_224",
    epochs=4,
    batch=10,
    lr=1e-2,
    gamma=0.2,
    coarse_hidden=6,
    fine_hidden=12,
)
CONSTRAINED = replace(CONFIG, usage_loss="constrained", warmup=0.5)
Planted = tuple[FeatureCache, LabelSet]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return write_planted(tmp_path_factory.mktemp("planted"), train=24, test=12, classes=4, dim=10)


@pytest.fixture(scope="module")
def data(planted: Planted) -> Dataset:
    return open_data(CONFIG, *planted)


@pytest.fixture(scope="module")
def teacher(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    run_method(configure("lstm-cf", vars(CONFIG)), *planted, folder, device="cpu")
    return folder


def epochs(folder: Path) -> list[Epoch]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    exponential = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponential / exponential.sum(axis=-1, keepdims=True))


def sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-logits)))


# Eq. 7 for a batch


@given(usage=st.lists(st.floats(0, 1), min_size=1, max_size=8), gamma=st.floats(0, 1))
def test_usage_of_a_batch_is_the_released_loss_on_skips(usage: list[float], gamma: float) -> None:
    given_usage = torch.tensor(usage, dtype=torch.float64)
    logits, targets = torch.zeros(len(usage), 3), torch.zeros(len(usage), dtype=torch.int64)
    loss = liteeval_loss(logits, given_usage, targets, gamma=gamma, lam=1.5, of_batch=True)
    skips = 1 - np.array(usage)
    assert float(loss.usage_penalty) == pytest.approx((skips.mean() - (1 - gamma)) ** 2, abs=1e-12)
    assert float(loss.total) == pytest.approx(np.log(3) + 1.5 * float(loss.usage_penalty), abs=1e-6)


def test_lambda_grows_epoch_by_epoch(planted: Planted, tmp_path: Path) -> None:
    run_method(replace(CONFIG, lam=2.0, lam_start=1.0), *planted, tmp_path / "run", device="cpu")
    assert [epoch["lam"] for epoch in epochs(tmp_path / "run")] == pytest.approx([1, 4 / 3, 5 / 3, 2])


def test_lambda_of_the_released_code_starts_anew_in_every_epoch(planted: Planted, tmp_path: Path) -> None:
    """λ = 2 − exp(−step / epochs); of FCVID's 178 steps and 500 epochs it ends near 1.3."""
    config = replace(CONFIG, lam=2.0, lam_start=1.0, lam_growth="step")
    method = LiteEvalMethod(config, open_data(config, *planted))
    for step in range(5):
        for progress in (0.0, 1.0):
            expected = 2 - np.exp(-step / config.epochs)
            assert method.penalty_weight(Moment(progress, step)) == pytest.approx(expected)
    whole = LiteEvalMethod(replace(config, epochs=500), open_data(config, *planted))
    assert whole.penalty_weight(Moment(1.0, 177)) == pytest.approx(1.298, abs=1e-3)


# A loss at every step


@pytest.mark.parametrize("multi_label", [False, True])
def test_step_loss(multi_label: bool) -> None:
    random = np.random.default_rng(0)
    lengths, classes = [3, 1, 5], 4
    logits = [random.standard_normal((length, classes)) for length in lengths]
    labels = random.integers(0, 2, (3, classes)) if multi_label else random.integers(0, classes, 3)
    each = []
    for video, y in zip(logits, labels, strict=True):
        if multi_label:
            p = sigmoid(video)
            each.append(-(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axis=1).mean())
        else:
            each.append(-np.log(softmax(video)[:, y]).mean())
    packed = pack_sequence([torch.from_numpy(video) for video in logits], enforce_sorted=False)
    targets = torch.from_numpy(labels.astype(np.float64) if multi_label else labels)
    assert float(step_loss(packed.data, targets, packed)) == pytest.approx(np.mean(each))


def test_step_loss_makes_early_predictions_better(planted: Planted, data: Dataset, tmp_path: Path) -> None:
    def halfway(weight: float) -> float:
        folder = tmp_path / f"{weight}"
        config = replace(CONFIG, epochs=12, step_loss=weight)
        run_method(config, *planted, folder, device="cpu")
        method = load_method(folder, config, data)
        assert isinstance(method, LiteEvalMethod)
        batch = data.train.batch(range(len(data.train)))
        with torch.no_grad():
            out = method.model(batch.inputs["coarse"], batch.inputs["fine"])
            return float(
                step_loss(method.model.classifier(out.states), batch.targets, batch.inputs["coarse"])
            )

    assert halfway(1.0) < halfway(0.0)


# A usage that is kept


def method_of(config: LiteEvalConfig, data: Dataset) -> LiteEvalMethod:
    torch.manual_seed(0)
    method = LiteEvalMethod(config, data)
    method.model.train()
    return method


def losses(method: LiteEvalMethod, batch: Batch) -> dict[str, Tensor]:
    said = method.losses(batch, Moment(1.0), torch.Generator().manual_seed(1))
    return {name: torch.as_tensor(value).detach() for name, value in said.items()}


def test_the_multiplier_climbs_the_lagrangian(data: Dataset) -> None:
    method = method_of(CONSTRAINED, data)
    method.model.multiplier.fill_(0.7)
    batch = data.train.batch(range(10))
    before = losses(method, batch)
    multiplier = method.model.multiplier.requires_grad_()
    loss = method.losses(batch, Moment(1.0), torch.Generator().manual_seed(1))["loss"]
    assert isinstance(loss, Tensor)
    (gradient,) = torch.autograd.grad(loss, multiplier)
    multiplier.requires_grad_(False)
    assert float(gradient) == pytest.approx(float(before["usage"]) - CONSTRAINED.gamma)
    method.after_step(before)
    climbed = 0.7 + CONSTRAINED.lam * 10 / 24 * float(gradient)
    assert float(method.model.multiplier) == pytest.approx(climbed)
    # Eq. 7 for a batch, and the multiplier's price on top.
    penalty = 0.7 * float(gradient) + CONSTRAINED.lam * float(gradient) ** 2
    assert float(before["loss"]) == pytest.approx(float(before["classification"]) + penalty)


def test_a_multiplier_is_a_price_and_never_below_zero() -> None:
    multiplier = torch.tensor(0.1)
    ascend(multiplier, -0.5, rate=1.0)
    assert float(multiplier) == 0
    ascend(multiplier, torch.tensor(0.25), rate=2.0)
    assert float(multiplier) == 0.5


def test_only_the_constrained_loss_moves_the_multiplier(data: Dataset) -> None:
    kinds: tuple[UsageLoss, ...] = ("video", "batch")
    for kind in kinds:
        method = method_of(replace(CONFIG, usage_loss=kind), data)
        said = losses(method, data.train.batch(range(10)))
        method.after_step(said)
        assert float(method.model.multiplier) == 0
        method.finish(data.train, CPU)
        assert float(method.model.threshold) == 0


def test_a_constrained_usage_is_that_of_gates_without_noise(data: Dataset) -> None:
    batch = data.train.batch(range(10))
    method = method_of(CONSTRAINED, data)
    out = method.model(
        batch.inputs["coarse"], batch.inputs["fine"], generator=torch.Generator().manual_seed(3)
    )
    decided = decided_usage(out, batch)
    of_video = [float((odds > 0).double().mean()) for odds in out.split(out.log_odds)]
    np.testing.assert_allclose(decided.detach().numpy(), of_video, rtol=1e-6)
    drawn = [float(gates.mean()) for gates in out.split(out.gates)]
    np.testing.assert_allclose(out.usage.detach().numpy(), drawn, rtol=1e-6)
    assert of_video != pytest.approx(drawn)  # noise made a difference
    # And the gradient is that of the gates which were drawn.
    of_decided, of_drawn = (
        torch.autograd.grad(usage.sum(), method.model.gate.weight, retain_graph=True)
        for usage in (decided, out.usage)
    )
    torch.testing.assert_close(of_decided, of_drawn)


def model_of(videos: VideoSet, seed: int) -> LiteEval:
    torch.manual_seed(seed)
    dims = [stream.spec.feature_dim for stream in videos.streams.values()]
    return LiteEval(coarse_dim=dims[0], fine_dim=dims[1], num_classes=4, coarse_hidden=6, fine_hidden=12)


def used(model: LiteEval, videos: VideoSet, threshold: float) -> float:
    """The mean usage at a threshold, as an evaluation finds it."""
    batch = videos.batch(range(len(videos)))
    model.eval().threshold.fill_(threshold)
    with torch.no_grad():
        usage = float(model(batch.inputs["coarse"], batch.inputs["fine"]).usage.mean())
    model.threshold.zero_()
    return usage


@pytest.mark.slow
@settings(max_examples=15)
@given(gamma=st.floats(0, 1), seed=st.integers(0, 100))
def test_a_threshold_for_a_usage_against_brute_force(gamma: float, seed: int, data: Dataset) -> None:
    """Of a gate that does not see the state, on which all log-odds are known beforehand."""
    model = model_of(data.train, seed)
    with torch.no_grad():
        model.gate.weight[:, model.gate.coarse_dim :] = 0
    found = calibrated_threshold(model, data.train, gamma, batch=7, device=CPU)
    assert float(model.threshold) == 0  # found, not set
    every = usage_of(model, data.train, batch=7, device=CPU)
    ends = np.sort(every.log_odds)[[0, -1]] + [-1, 1]
    tried = np.sort(np.concatenate([every.log_odds, ends]))
    usages = [every.weights[every.log_odds > threshold].sum() for threshold in (tried[1:] + tried[:-1]) / 2]
    best = min(abs(usage - gamma) for usage in usages)
    assert abs(used(model, data.train, found) - gamma) <= max(best, 1e-3 * gamma) + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("gamma", [0.03, 0.2, 0.6])
def test_a_threshold_for_a_usage_where_the_state_matters(gamma: float, seed: int, data: Dataset) -> None:
    model = model_of(data.train, seed)
    found = calibrated_threshold(model, data.train, gamma, batch=7, device=CPU)
    # A row of the shortest video is 1 of 8 in one of 24.
    assert abs(used(model, data.train, found) - gamma) <= 1 / 8 / 24
    # Of as many thresholds on a grid, none is better.
    grid = np.linspace(found - 0.2, found + 0.2, 50)
    best = min(abs(used(model, data.train, float(threshold)) - gamma) for threshold in grid)
    assert abs(used(model, data.train, found) - gamma) <= best + 1e-3


def test_a_constrained_run_keeps_its_budget(planted: Planted, data: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_method(CONSTRAINED, *planted, folder, device="cpu")
    method = load_method(folder, CONSTRAINED, data)
    assert isinstance(method, LiteEvalMethod)
    threshold = float(method.model.threshold)
    assert threshold != 0
    assert used(method.model, data.train, threshold) == pytest.approx(CONSTRAINED.gamma, abs=0.005)
    method.model.threshold.fill_(threshold)
    method.finish(data.train, CPU)
    assert float(method.model.threshold) == threshold


class Stop(Exception):
    pass


def test_a_stopped_constrained_run_goes_on(planted: Planted, teacher: Path, tmp_path: Path) -> None:
    config = replace(CONSTRAINED, step_loss=0.5, distill=1.0, teacher=str(teacher))
    run_method(config, *planted, tmp_path / "undisturbed", device="cpu")

    def stop(epoch: Epoch) -> None:
        if epoch["epoch"] == 3:
            assert epoch["multiplier"] > 0
            raise Stop

    with pytest.raises(Stop):
        run_method(config, *planted, tmp_path / "run", device="cpu", listener=Listener(epoch=stop))
    run_method(config, *planted, tmp_path / "run", device="cpu")
    for name in ("model.safetensors", "predictions.npz", "result.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_noise_of_scale_zero(data: Dataset) -> None:
    method = method_of(replace(CONFIG, noise=0.0), data)
    batch = data.train.batch(range(10))
    usages = {
        float(method.losses(batch, Moment(0.0), torch.Generator().manual_seed(seed))["usage"])
        for seed in range(3)
    }
    assert len(usages) == 1


# A teacher


@pytest.mark.parametrize("tau", [1.0, 2.5])
@pytest.mark.parametrize("multi_label", [False, True])
def test_distillation_loss(tau: float, multi_label: bool) -> None:
    random = np.random.default_rng(3)
    student, teacher_logits = random.standard_normal((2, 5, 4)) * 3
    if multi_label:
        p, q = sigmoid(teacher_logits / tau), sigmoid(student / tau)
        divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        probabilities = sigmoid(teacher_logits)
    else:
        p, q = softmax(teacher_logits / tau), softmax(student / tau)
        divergence = p * np.log(p / q)
        probabilities = softmax(teacher_logits)
    logits = torch.from_numpy(student).requires_grad_()
    taught = torch.from_numpy(probabilities)
    loss = distillation_loss(logits, taught, tau=tau, multi_label=multi_label)
    assert float(loss) == pytest.approx(tau**2 * divergence.sum(axis=1).mean())

    # The gradient is that of cross-entropy with soft targets.
    (gradient,) = torch.autograd.grad(loss, logits)
    soft = torch.from_numpy(p)
    if multi_label:
        entropy = F.binary_cross_entropy_with_logits(logits / tau, soft, reduction="sum")
    else:
        entropy = F.cross_entropy(logits / tau, soft, reduction="sum")
    (expected,) = torch.autograd.grad(tau**2 * entropy / len(student), logits)
    assert torch.allclose(gradient, expected)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_teacher_that_is_sure(multi_label: bool) -> None:
    certain = torch.eye(3)
    logits = torch.zeros(3, 3, requires_grad=True)
    loss = distillation_loss(logits, certain, tau=2.0, multi_label=multi_label)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert bool(loss.isfinite()) and bool(gradient.isfinite().all())
    assert bool((gradient.diagonal() < 0).all())


def test_what_the_teacher_says(teacher: Path, data: Dataset) -> None:
    said = teacher_probabilities(teacher, data, device=CPU)
    method = load_method(teacher, read_config(teacher), data)
    batch = data.train.batch(range(len(data.train)))
    with torch.no_grad():
        expected = method.predict(batch, torch.Generator()).scores
    assert torch.allclose(said, expected, atol=1e-6)


def test_a_teacher_that_chooses_from_a_pool(tmp_path: Path) -> None:
    pool = plant_pool(tmp_path / "cache", train=40, test=40, classes_per_group=2)
    config = SelectorConfig(models=("m0", "m1", "m2"), decisions="perceptron", epochs=1, budget=2.0)
    run_method(config, pool.cache, pool.labels, tmp_path / "teacher", device="cpu")
    own = open_data(UniformConfig(fine="m3"), pool.cache, pool.labels)
    said = teacher_probabilities(tmp_path / "teacher", own, device=CPU)
    data = open_data(config, pool.cache, pool.labels)
    method = load_method(tmp_path / "teacher", config, data)
    expected = method.predict(data.train.batch(range(40), read=False), torch.Generator()).scores
    assert torch.allclose(said, expected, atol=1e-6)


def test_a_teacher_is_asked_of_the_right_videos(teacher: Path, data: Dataset) -> None:
    method = method_of(replace(CONFIG, distill=1.0, distill_tau=3.0, teacher=str(teacher)), data)
    method.teacher = teacher_probabilities(teacher, data, device=CPU)
    indices = [17, 3, 20]
    batch = data.train.batch(indices)
    said = losses(method, batch)
    out = method.model(
        batch.inputs["coarse"],
        batch.inputs["fine"],
        temperature=CONFIG.tau_end,
        generator=torch.Generator().manual_seed(1),
    )
    taught = teacher_probabilities(teacher, data, device=CPU)[indices]
    expected = distillation_loss(out.logits, taught, tau=3.0, multi_label=False)
    assert float(said["distillation"]) == pytest.approx(float(expected), rel=1e-5)


def test_a_student_comes_nearer_to_its_teacher(planted: Planted, teacher: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=12, distill=3.0, teacher=str(teacher))
    run_method(config, *planted, tmp_path / "run", device="cpu")
    said = [epoch["distillation"] for epoch in epochs(tmp_path / "run")]
    assert said[-1] < 0.5 * said[0]
    # Whatever became of the teacher, the run can be read.
    read = read_config(tmp_path / "run")
    assert load_method(tmp_path / "run", read, open_data(CONFIG, *planted)).model is not None


def test_the_teacher_is_part_of_the_key(planted: Planted, teacher: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run_method(configure("lstm-cf", vars(CONFIG), seed=1), *planted, other, device="cpu")
    keys = {
        run_key(replace(CONFIG, distill=1.0, teacher=str(folder)), *planted) for folder in (teacher, other)
    }
    assert len(keys) == 2


def with_teacher(config: LiteEvalConfig, teacher: Path, planted: Planted, folder: Path) -> str:
    """What a run with this teacher says is wrong."""
    with pytest.raises(UserError) as raised:
        run_method(replace(config, distill=1.0, teacher=str(teacher)), *planted, folder, device="cpu")
    return str(raised.value)


def test_teachers_that_do_not_fit(planted: Planted, teacher: Path, tmp_path: Path) -> None:
    cache, labels = planted
    renamed = tuple(replace(video, labels=(f"the {video.labels[0]}",)) for video in labels.videos)
    fewer = tuple(
        replace(video, subset="spare") if i == 3 else video for i, video in enumerate(labels.videos)
    )
    other_features = write_planted(tmp_path / "cache", train=24, test=12, classes=4, dim=10, seed=1)
    changed: dict[str, tuple[LiteEvalConfig, Planted]] = {
        "tells other classes apart": (CONFIG, (cache, LabelSet(labels.source, renamed))),
        "was trained on one class per video": (replace(CONFIG, multi_label=True), planted),
        "was trained or evaluated on other videos": (CONFIG, (cache, LabelSet(labels.source, fewer))),
        "was trained on other features of stream 'coarse_112'": (CONFIG, other_features),
    }
    for number, (said, (config, where)) in enumerate(changed.items()):
        line = with_teacher(config, teacher, where, tmp_path / str(number))
        assert line.startswith(str(teacher)) and said in line and "\n" not in line


def test_teachers_that_are_none(planted: Planted, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="distill needs a teacher"):
        replace(CONFIG, distill=1.0).check()
    (tmp_path / "empty").mkdir()
    assert "config.json" in with_teacher(CONFIG, tmp_path / "empty", planted, tmp_path / "run")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_bytes((teacher / "config.json").read_bytes())
    assert "not a finished run" in with_teacher(CONFIG, unfinished, planted, tmp_path / "run")


def test_a_teacher_of_other_streams(planted: Planted, tmp_path: Path) -> None:
    """It reads a stream of the cache that the student does not."""
    run_method(configure("lstm", vars(CONFIG)), *planted, tmp_path / "fine-only", device="cpu")
    config = replace(CONFIG, fine="coarse_112", distill=1.0, teacher=str(tmp_path / "fine-only"))
    result = run_method(config, *planted, tmp_path / "run", device="cpu").result
    assert result == read_result(tmp_path / "run")


# Labels


def test_a_class_without_a_video_to_evaluate(planted: Planted) -> None:
    cache, labels = planted
    videos = [
        VideoLabel(video.video_id, ("rare",), video.subset) if i == 0 else video
        for i, video in enumerate(labels.videos)
    ]
    notes = open_data(CONFIG, cache, LabelSet(labels.source, tuple(videos))).notes
    assert "1 class: 'rare' without a video in subset 'test': mAP is over the others" in notes
    assert not any("mAP" in note for note in open_data(CONFIG, cache, labels).notes)
