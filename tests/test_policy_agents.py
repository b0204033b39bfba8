"""FrameGlimpse, FastForward and LiteEval-RL: they learn, their gradients are right, they pay for what they see."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet, VideoLabel
from policy.baselines.fast_forward import STOP, JumpAgent
from policy.baselines.frame_glimpse import GlimpseAgent
from policy.cli.train_policy import train_policy
from policy.config import TrainingConfig, method_options, names_of
from policy.data.batches import Batch
from policy.liteeval.liteeval_rl import LiteEvalRL
from policy.liteeval.loss import liteeval_loss
from policy.method import Method, Moment
from policy.networks.packing import lengths_of, packed_rows
from policy.registry import CONFIGS, METHODS, configure
from policy.runs import Listener, open_data, run_method
from policy.training.loop import CHECKPOINT, Epoch
from policy.training.losses import policy_gradient, recognition_reward
from tests.planted import write_planted, write_planted_labels
from tests.signposts import FINE_MACS, at_either_end, one_jump_away, write_signposts

AGENTS = ("frame-glimpse", "fast-forward", "liteeval-rl")
CONFIG: dict[str, Any] = {
    "coarse": "coarse_112",
    "fine": "fine_224",
    "epochs": 60,
    "batch": 32,
    "lr": 3e-3,
    "coarse_hidden": 8,
    "fine_hidden": 32,
    "glimpses": 2,
    "location_std": 0.2,
    "strides": 4,
    "frame_price": 0.05,
}
SMALL = CONFIG | {"epochs": 3, "batch": 6, "coarse_hidden": 3, "fine_hidden": 5, "glimpses": 3}
DIM, CLASSES = 6, 4
Data = tuple[FeatureCache, LabelSet]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("small")
    return write_planted(folder, train=16, test=9, classes=CLASSES, dim=DIM, lengths=(4, 9))


def made(name: str, data: Data, *, several: bool = False, config: Mapping[str, Any] = SMALL) -> Method:
    """A method with random weights, of which the decisions differ from video to video."""
    cache, labels = data
    if several:
        labels = LabelSet(labels.source, tuple(_with_class_0(video) for video in labels.videos))
    own = configure(name, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        method = METHODS[name](own, open_data(own, cache, labels))
        with torch.no_grad():
            for parameter in method.model.parameters():
                parameter.add_(torch.randn_like(parameter))
    return method


def _with_class_0(video: VideoLabel) -> VideoLabel:
    return replace(video, labels=tuple(dict.fromkeys((*video.labels, "class 0"))))


def batch_of(method: Method, lengths: Sequence[int], *, several: bool = False) -> Batch:
    random = torch.Generator().manual_seed(len(lengths))
    videos = [torch.randn(length, DIM, generator=random) * 2 for length in lengths]
    targets = torch.arange(len(lengths)) % CLASSES
    return Batch(
        {role: pack_sequence([v + (role == "fine") for v in videos], False) for role in method.roles},
        F.one_hot(targets, CLASSES).float() if several else targets,
    )


# --- they learn ---


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_frame_glimpse_goes_where_the_class_is_shown(seed: int, tmp_path: Path) -> None:
    """A look at any frame says at which end the class is shown; the first two looks would both miss it."""
    data = write_signposts(tmp_path / "cache", at_either_end, seed=seed)
    config = configure("frame-glimpse", CONFIG, seed=seed)
    start = run_method(replace(config, lr=1e-9, epochs=1), *data, tmp_path / "start", device="cpu").result
    assert start.metrics["top1"] < 0.45
    run = run_method(config, *data, tmp_path / "run", device="cpu")
    assert run.result.metrics["top1"] > 0.9 and run.result.metrics["mean_average_precision"] > 0.9
    assert run.result.metrics["fine_features_mean"] <= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_fast_forward_jumps_to_where_the_class_is_shown_and_stops(seed: int, tmp_path: Path) -> None:
    """The first frame says whether the class is shown 4 or 8 frames later, and nowhere else."""
    data = write_signposts(tmp_path / "cache", one_jump_away, seed=seed)
    run = run_method(configure("fast-forward", CONFIG, seed=seed), *data, tmp_path / "run", device="cpu")
    assert run.result.metrics["top1"] > 0.9 and run.result.metrics["mean_average_precision"] > 0.9
    assert run.result.metrics["fine_features_mean"] < 4  # of 12 to 20
    said = run.predictions()
    assert said.gates[0, said.offsets[:-1]].all()  # it starts at the first frame


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_liteeval_rl_looks_where_it_pays(seed: int, tmp_path: Path) -> None:
    """Half of the classes show in the coarse features; the best without fine ones is 75 % of the videos."""
    data = write_planted(
        tmp_path / "cache", seed=seed, train=128, test=64, classes=4, dim=16, lengths=(5, 10), noise=0.5
    )
    config = configure("liteeval-rl", CONFIG, epochs=30, batch=16, seed=seed)
    run = run_method(config, *data, tmp_path / "run", device="cpu")
    assert run.result.metrics["top1"] > 0.9 and run.result.metrics["mean_average_precision"] > 0.9
    assert run.result.metrics["usage"] < 0.3
    said = run.predictions()
    readable = said.labels[:, :2].any(axis=1)
    assert said.usage[0, ~readable].mean() > said.usage[0, readable].mean()


@pytest.mark.slow
def test_a_higher_price_buys_fewer_frames(tmp_path: Path) -> None:
    data = write_signposts(tmp_path / "cache", one_jump_away)
    configs = {price: configure("fast-forward", CONFIG, epochs=20, frame_price=price) for price in (0.0, 1.0)}
    seen = [
        run_method(config, *data, tmp_path / str(price), device="cpu").result.metrics["fine_features_mean"]
        for price, config in configs.items()
    ]
    assert seen[1] == pytest.approx(1, abs=0.2) and seen[0] > seen[1] + 0.5


# --- REINFORCE against the expectation ---


def monte_carlo(
    method: Method, video: dict[str, Tensor], target: Tensor, *, chunks: int = 20, copies: int = 2000
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and standard error of the gradients of `losses`, from batches of copies of one video."""
    generator = torch.Generator().manual_seed(11)
    inputs: dict[str, PackedSequence] = {
        role: PackedSequence(
            rows.repeat_interleave(copies, 0),
            torch.full((len(rows),), copies),
            torch.arange(copies),
            torch.arange(copies),
        )
        for role, rows in video.items()
    }
    batch = Batch(inputs, target.expand(copies, *target.shape))
    drawn = []
    for _ in range(chunks):
        method.model.zero_grad()
        loss = method.losses(batch, Moment(1.0), generator)["loss"]
        assert isinstance(loss, Tensor)
        loss.backward()  # type: ignore[no-untyped-call]
        drawn.append({n: p.grad.clone() for n, p in method.model.named_parameters() if p.grad is not None})
    return {
        name: (
            (stack := torch.stack([gradients[name] for gradients in drawn])).mean(0),
            stack.std(0) / chunks**0.5,
        )
        for name in drawn[0]
    }


def assert_gradients(method: Method, video: dict[str, Tensor], target: Tensor, expected: Tensor) -> None:
    """What `losses` gives on average is the gradient of `expected`, within the error of an average."""
    named = {n: p for n, p in method.model.named_parameters() if not n.startswith("value")}
    gradients = torch.autograd.grad(expected, list(named.values()))
    drawn = monte_carlo(method, video, target)
    reached = 0.0
    for name, gradient in zip(named, gradients, strict=True):
        mean, error = drawn[name]
        scale = gradient.abs().max()
        assert ((mean - gradient).abs() <= 5 * error + 1e-3 * scale + 1e-9).all(), name
        reached = max(reached, float(scale))
    assert reached > 1e-2


def one(
    name: str, small: Data, config: Mapping[str, Any], rows: int, several: bool
) -> tuple[Method, Tensor, Tensor]:
    """A small method in float64, a video (rows, D) and its target."""
    method = made(name, small, several=several, config=config)
    method.model.double().train()
    video = torch.randn(rows, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    target = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64) if several else torch.tensor(2)
    return method, video, target


@pytest.mark.parametrize("several", [False, True])
def test_fast_forward_follows_the_gradient_of_the_expected_reward(several: bool, small: Data) -> None:
    config = SMALL | {"fine_hidden": 3, "strides": 2, "frame_price": 0.3}
    method, video, target = one("fast-forward", small, config, 4, several)
    agent = method.model
    assert isinstance(agent, JumpAgent)
    with torch.no_grad():  # decisions far from certain
        agent.decision.weight.mul_(0.3)
        agent.decision.bias.zero_()

    def journeys(row: int, h: Tensor, c: Tensor) -> list[tuple[Tensor, Tensor, int]]:
        """Every way to go on from a row: its probability, the logits at its end, its number of frames."""
        place = video.new_tensor([[(row + 0.5) / len(video)]])
        h, c = agent.cell(torch.cat([agent.scale(video[row : row + 1]), place], 1), (h, c))
        decisions = agent.decision(h).softmax(1)[0]
        ways = []
        for decision, jump in enumerate((0, 1, 2)):
            if decision == STOP or row + jump >= len(video):
                ways.append((decisions[decision], agent.classifier(h), 1))
            else:
                onward = journeys(row + jump, h, c)
                ways += [(decisions[decision] * p, logits, frames + 1) for p, logits, frames in onward]
        return ways

    zero = video.new_zeros(1, 3)
    ways = journeys(0, zero, zero)
    assert len(ways) > 10 and sum(p.item() for p, _, _ in ways) == pytest.approx(1)
    terms = [
        p.detach() * classification(logits, target) - p * (reward(logits, target) - 0.3 * frames)
        for p, logits, frames in ways
    ]
    assert_gradients(method, {"fine": video}, target, torch.stack(terms).sum())


@pytest.mark.parametrize("several", [False, True])
def test_frame_glimpse_follows_the_gradient_of_the_expected_reward(several: bool, small: Data) -> None:
    """Two glimpses of a video of two frames, the expectation as a sum over a grid of both locations."""
    config = SMALL | {"fine_hidden": 3, "glimpses": 2, "location_std": 0.3}
    method, video, target = one("frame-glimpse", small, config, 2, several)
    agent = method.model
    assert isinstance(agent, GlimpseAgent)
    with torch.no_grad():
        agent.start.copy_(torch.tensor([-0.5, 0.7]))

    step = 0.02  # 0, 1/2 and 1, where another frame is seen, are edges of the grid's cells
    grid = torch.arange(-1.5 + step / 2, 2.5, step, dtype=torch.float64)
    first, second = (axis.flatten() for axis in torch.meshgrid(grid, grid, indexing="ij"))
    h = c = video.new_zeros(len(first), 3)
    probability = torch.ones_like(first)
    for k, location in enumerate((first, second)):
        mean = (h @ agent.locate.weight[0] + agent.start[k]).sigmoid()
        density = (-0.5 * ((location - mean) / 0.3) ** 2).exp() / (0.3 * (2 * np.pi) ** 0.5)
        probability = probability * density * step
        seen = agent.scale(video[(location >= 0.5).long()])
        h, c = agent.cell(torch.cat([seen, location.clamp(0, 1)[:, None]], 1), (h, c))
    assert probability.sum().item() == pytest.approx(1, abs=1e-3)
    logits = agent.classifier(h)
    terms = probability.detach() * classification(logits, target) - probability * reward(logits, target)
    assert_gradients(method, {"fine": video}, target, terms.sum())


@pytest.mark.parametrize("several", [False, True])
def test_liteeval_rl_follows_the_gradient_of_the_expected_loss(several: bool, small: Data) -> None:
    """All 16 gate sequences of a video of 4 frames: the expectation of Eq. 7 itself."""
    config = SMALL | {"gamma": 0.3}
    method, fine, target = one("liteeval-rl", small, config, 4, several)
    assert isinstance(method, LiteEvalRL)
    coarse = fine.flip(0) / 2
    with torch.no_grad():
        method.model.gate.weight.mul_(0.3)
    packed = [pack_sequence([video]) for video in (coarse, fine)]
    terms, total = [], 0.0
    for sequence in itertools.product((0.0, 1.0), repeat=4):
        gates = torch.tensor(sequence, dtype=torch.float64)
        out = method.model(*packed, gates=gates)
        probability = torch.where(gates > 0, out.probabilities, 1 - out.probabilities).prod()
        loss = liteeval_loss(out.logits, out.usage, target[None], gamma=0.3, lam=2.0)
        terms.append(probability * loss.total)
        total += probability.item()
    assert total == pytest.approx(1)
    assert_gradients(method, {"coarse": coarse, "fine": fine}, target, torch.stack(terms).sum())


def classification(logits: Tensor, target: Tensor) -> Tensor:
    """(n,): −y·log p, written out."""
    if target.is_floating_point():
        p = logits.sigmoid()
        return -(target * p.log() + (1 - target) * (1 - p).log()).sum(1)
    return -logits.softmax(1)[:, target].log()


def reward(logits: Tensor, target: Tensor) -> Tensor:
    """(n,): the share of the probabilities on the video's classes, written out, as a constant."""
    if target.is_floating_point():
        p = logits.detach().sigmoid()
        return p[:, target > 0].sum(1) / p.sum(1)
    return logits.detach().softmax(1)[:, target]


def test_recognition_reward() -> None:
    logits = torch.tensor([[0.0, np.log(3.0)], [0.0, 0.0]])
    assert recognition_reward(logits, torch.tensor([1, 0])).tolist() == pytest.approx([0.75, 0.5])
    several = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert recognition_reward(logits, several).tolist() == pytest.approx([0.75 / 1.25, 1.0])
    nowhere = recognition_reward(torch.full((1, 2), -200.0), torch.tensor([[1.0, 0.0]]))
    assert nowhere.isfinite().all()


def test_policy_gradient_has_no_value() -> None:
    log_probability = torch.tensor([-1.0, -2.0], requires_grad=True)
    advantage = torch.tensor([0.5, -3.0], requires_grad=True)
    term = policy_gradient(log_probability, advantage)
    term.backward()  # type: ignore[no-untyped-call]
    assert term.item() == 0 and advantage.grad is None
    assert log_probability.grad is not None and log_probability.grad.tolist() == [-0.5, 3.0]


@pytest.mark.parametrize("name", AGENTS)
def test_the_logged_loss_is_that_without_the_policy(name: str, small: Data) -> None:
    method = made(name, small)
    losses = method.losses(batch_of(method, [5, 3, 7]), Moment(0.0), torch.Generator().manual_seed(0))
    said = {key: float(torch.as_tensor(value).detach()) for key, value in losses.items()}
    if name == "liteeval-rl":
        assert said["loss"] >= said["classification"] > 0
    else:
        assert said["loss"] == pytest.approx(said["classification"] + said["value_error"], rel=1e-6)
        assert said["reward"] <= 1


# --- what they see ---


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", AGENTS)
def test_frames_that_were_not_chosen_do_not_matter(name: str, several: bool, small: Data) -> None:
    method = made(name, small, several=several)
    method.model.eval()
    batch = batch_of(method, LENGTHS, several=several)
    with torch.no_grad():
        before = method.predict(batch, torch.Generator())
    assert before.gates is not None
    fine = batch.inputs["fine"]
    lengths = lengths_of(fine).tolist()
    assert [len(gates) for gates in before.gates] == lengths == LENGTHS
    data = torch.full_like(fine.data, torch.nan)
    for video, gates in enumerate(before.gates):
        rows = gates.nonzero().squeeze(1)
        places = packed_rows(fine, torch.full_like(rows, video), rows)
        data[places] = fine.data[places]
    assert data.isnan().any() and not data.isnan().all()
    with torch.no_grad():
        hidden = Batch({**batch.inputs, "fine": fine._replace(data=data)}, batch.targets)
        after = method.predict(hidden, torch.Generator())
    assert torch.equal(before.scores, after.scores) and after.scores.isfinite().all()
    assert after.gates is not None and all(map(torch.equal, before.gates, after.gates))


LENGTHS = [6, 1, 9, 4, 9, 2, 30]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", AGENTS)
def test_any_length_as_one_by_one(name: str, several: bool, small: Data) -> None:
    method = made(name, small, several=several)
    method.model.eval()
    batch = batch_of(method, LENGTHS, several=several)
    with torch.no_grad():
        together = method.predict(batch, torch.Generator())
        assert together.gates is not None
        for video, length in enumerate(LENGTHS):
            rows = torch.arange(length)
            places = packed_rows(batch.inputs["fine"], torch.full_like(rows, video), rows)
            alone = Batch(
                {role: pack_sequence([packed.data[places]], False) for role, packed in batch.inputs.items()},
                batch.targets[video : video + 1],
            )
            said = method.predict(alone, torch.Generator())
            assert said.gates is not None
            assert torch.equal(said.gates[0], together.gates[video])
            assert torch.allclose(said.scores[0], together.scores[video], atol=1e-6)


def test_fast_forward_never_sees_past_the_end_and_starts_at_the_first_frame(small: Data) -> None:
    method = made("fast-forward", small)
    batch = batch_of(method, LENGTHS)
    for seed in range(5):
        out = method.model(batch.inputs["fine"], torch.Generator().manual_seed(seed))
        for video, length in enumerate(LENGTHS):
            mine = out.rows[out.videos == video].tolist()
            assert mine[0] == 0 and mine[-1] < length
            assert {b - a for a, b in itertools.pairwise(mine)} <= {1, 2, 4, 8}
            assert out.steps[out.videos == video].tolist() == list(range(len(mine)))


def test_frame_glimpse_starts_at_uniform_locations() -> None:
    agent = GlimpseAgent(DIM, 5, CLASSES, glimpses=4, std=0.1)
    with torch.no_grad():
        agent.locate.weight.zero_()
        out = agent(pack_sequence([torch.zeros(16, DIM), torch.zeros(3, DIM)]))
    assert out.rows.tolist() == [[2, 6, 10, 14], [0, 1, 1, 2]]


# --- what they pay ---


@pytest.fixture(scope="module")
def trained(small: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name in AGENTS:
        run_method(configure(name, SMALL), *small, folder / name, device="cpu")
    return {name: folder / name for name in AGENTS}


def test_frame_glimpse_pays_once_for_a_frame_and_for_every_step(
    small: Data, trained: dict[str, Path]
) -> None:
    run = run_method(configure("frame-glimpse", SMALL), *small, trained["frame-glimpse"])
    said = run.predictions()
    assert run.reused and set(said.ledger) == {"fine_224", "FrameGlimpse agent"}
    assert (said.fine_rows[0] >= 1).all() and (said.fine_rows[0] <= 3).all()
    assert said.ledger["fine_224"][0].tolist() == (said.fine_rows[0] * FINE_MACS).tolist()
    # Three steps of an LSTM of 5 units on 6 features and a location, each after a location; 4 classes.
    assert said.ledger["FrameGlimpse agent"][0].tolist() == [3 * (4 * 5 * (6 + 1 + 5) + 5) + 5 * 4] * 9

    method = made("frame-glimpse", small)
    assert isinstance(method.model, GlimpseAgent)
    with torch.no_grad():
        method.model.start.fill_(-20.0)
        method.model.locate.weight.zero_()
        gates = method.predict(batch_of(method, [4, 2]), torch.Generator()).gates
    assert gates is not None and [g.tolist() for g in gates] == [[1, 0, 0, 0], [1, 0]]


def test_fast_forward_pays_for_the_frames_it_visits(small: Data, trained: dict[str, Path]) -> None:
    said = run_method(configure("fast-forward", SMALL), *small, trained["fast-forward"]).predictions()
    visited = said.fine_rows[0]
    assert set(said.ledger) == {"fine_224", "FastForward agent"} and (visited >= 1).all()
    assert said.ledger["fine_224"][0].tolist() == (visited * FINE_MACS).tolist()
    # At each frame an LSTM step and one of 5 decisions; at the end 4 classes.
    agent = said.ledger["FastForward agent"][0]
    assert agent.tolist() == (visited * (4 * 5 * (6 + 1 + 5) + 5 * 5) + 5 * 4).tolist()


# --- runs ---


@pytest.mark.parametrize("name", AGENTS)
def test_a_stopped_run_comes_to_the_same_bits(
    name: str, small: Data, trained: dict[str, Path], tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        if epoch["epoch"] == 2:
            raise Stop

    torch.rand(3)  # whatever the program has drawn before
    config = configure(name, SMALL)
    with pytest.raises(Stop):
        run_method(config, *small, tmp_path / "run", device="cpu", listener=Listener(epoch=stop))
    assert (tmp_path / "run" / CHECKPOINT).exists()
    run_method(config, *small, tmp_path / "run", device="cpu")
    ours, theirs = (load_file(f / "model.safetensors") for f in (tmp_path / "run", trained[name]))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    contents = [(f / "predictions.npz").read_bytes() for f in (tmp_path / "run", trained[name])]
    assert contents[0] == contents[1]
    logs = [
        [
            {key: value for key, value in json.loads(line).items() if key != "seconds"}
            for line in (f / "metrics.jsonl").read_text().splitlines()
        ]
        for f in (tmp_path / "run", trained[name])
    ]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("name", AGENTS)
def test_options_are_what_a_method_reads(name: str, small: Data) -> None:
    read: set[str] = set()

    class Watched(CONFIGS[name]):  # type: ignore[misc, valid-type]
        def __getattribute__(self, attribute: str) -> object:
            read.add(attribute)
            return super().__getattribute__(attribute)

    cache, labels = small
    plain = configure(name, SMALL)
    method = METHODS[name](Watched(**vars(plain)), open_data(plain, cache, labels))
    batch = batch_of(method, [5, 3])
    method.losses(batch, Moment(0.5), torch.Generator())
    method.model.eval()
    method.predict(batch, torch.Generator())
    method.network_macs(np.array([5]), np.array([2]))
    names = names_of(*CONFIGS.values()) - names_of(TrainingConfig)
    assert read & names == set(method_options(CONFIGS[name])) - {"coarse", "fine", "validation"}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("glimpses", 0, "glimpses must be positive, not 0"),
        ("location_std", 0.0, "location-std must be positive, not 0.0"),
        ("strides", 0, "strides must be positive, not 0"),
        ("frame_price", -0.1, "frame-price must not be negative, not -0.1"),
    ],
)
def test_options_that_make_no_sense(name: str, value: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        for method in AGENTS:
            configure(method, CONFIG, **{name: value}).check()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("frame-glimpse", ["--glimpses", "2", "--location-std", "0.2"]),
        ("fast-forward", ["--strides", "3", "--frame-price", "0.02"]),
        ("liteeval-rl", ["--coarse", "coarse_112", "--coarse-hidden", "3", "--gamma", "0.1", "--lam", "1"]),
    ],
)
def test_on_the_command_line(name: str, words: list[str], small: Data, tmp_path: Path) -> None:
    cache, labels = small
    write_planted_labels(labels, tmp_path / "labels.csv")
    data = ["--cache", str(cache.folder), "--labels", str(tmp_path / "labels.csv"), "--fine", "fine_224"]
    small_words = ["--epochs", "1", "--fine-hidden", "5", "--device", "cpu", "--out", str(tmp_path / "run")]
    plain = ["--recipe", "none", "--json"]
    result = CliRunner().invoke(train_policy, [name, *data, *small_words, *words, *plain])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["title"] == METHODS[name].title
    held = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    added = {option.name for option in fields(CONFIGS[name]) if option.metadata["added"]}
    assert set(method_options(CONFIGS[name])) - added <= held.keys()
    assert held.keys().isdisjoint(added)  # at their defaults, as in runs from before them
