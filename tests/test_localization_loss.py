"""W-TALC's losses and network against plain transcriptions, and their gradients against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from policy.config import Precision
from policy.localization.loss import Clips, class_logits, co_activity_loss, mil_loss, padded
from policy.localization.network import WTALCNetwork, left_out

Array = npt.NDArray[np.float64]
SEEDS = st.integers(0, 10_000)


def plain_mil(videos: Sequence[Array], labels: Array) -> float:
    """Of logits (T, C) of each video."""
    total = 0.0
    for logits, label in zip(videos, labels, strict=True):
        k = math.ceil(len(logits) / 8)
        means = [sum(sorted(column, reverse=True)[:k]) / k for column in logits.T]
        log_total = math.log(sum(math.exp(mean) for mean in means))
        total -= sum(y / label.sum() * (mean - log_total) for y, mean in zip(label, means, strict=True))
    return total / len(videos)


def plain_co_activity(
    hidden: Sequence[Array], logits: Sequence[Array], labels: Array, pairs: int, margin: float
) -> float:
    total, count = 0.0, 0
    for pair in range(pairs):
        for c in range(labels.shape[1]):
            if not (labels[2 * pair, c] and labels[2 * pair + 1, c]):
                continue
            high, low = [], []
            for video in (2 * pair, 2 * pair + 1):
                activation = np.exp(logits[video][:, c])
                a = activation / activation.sum()
                clips = len(a)
                high.append(sum(a[t] * hidden[video][t] for t in range(clips)))
                low.append(sum((1 - a[t]) * hidden[video][t] for t in range(clips)) / max(clips - 1, 1))
            alike = distance(high[0], high[1])
            total += 0.5 * max(0.0, alike - distance(high[0], low[1]) + margin)
            total += 0.5 * max(0.0, alike - distance(high[1], low[0]) + margin)
            count += 1
    return total / count if count else 0.0


def distance(x: Array, y: Array) -> float:
    return 1 - float(x @ y) / (math.sqrt(float(x @ x)) * math.sqrt(float(y @ y)))


class Example:
    """A batch of videos of random lengths, their clips shuffled among each other."""

    def __init__(
        self, seed: int, *, videos: int = 5, classes: int = 4, width: int = 6, least: int = 2
    ) -> None:
        random = np.random.default_rng(seed)
        lengths = random.integers(least, 20, videos)
        self.labels = (random.random((videos, classes)) < 0.5).astype(np.float64)
        self.labels[np.arange(videos), random.integers(0, classes, videos)] = 1
        self.order = random.permutation(lengths.sum())
        places = np.array([(video, step) for video, length in enumerate(lengths) for step in range(length)])
        of_video, steps = torch.from_numpy(places[self.order]).T
        self.clips = Clips(of_video, steps, torch.from_numpy(lengths))
        self.logits, self.hidden = (
            torch.from_numpy(random.normal(size=(len(places), size)) * 2).requires_grad_()
            for size in (classes, width)
        )

    def of_videos(self, values: Tensor) -> list[Array]:
        """(N, …) of the shuffled clips -> (T, …) of each video."""
        in_order = np.empty_like(values.detach().numpy())
        in_order[self.order] = values.detach().numpy()
        return np.split(in_order, self.clips.lengths.cumsum(0)[:-1].numpy())

    def mil(self) -> Tensor:
        by_video = padded(self.logits, self.clips)
        return mil_loss(by_video, self.clips.lengths, torch.from_numpy(self.labels))

    def plain_mil(self) -> float:
        return plain_mil(self.of_videos(self.logits), self.labels)

    def co_activity(self) -> Tensor:
        by_video = padded(self.logits, self.clips)
        return co_activity_loss(self.hidden, by_video, self.clips, torch.from_numpy(self.labels), 2, 0.5)

    def plain_co_activity(self) -> float:
        hidden, logits = self.of_videos(self.hidden), self.of_videos(self.logits)
        return plain_co_activity(hidden, logits, self.labels, 2, 0.5)


def slopes(loss: Callable[[], float], values: Tensor, step: float = 1e-5) -> Array:
    """The gradient of a loss by central differences of each entry."""
    array = values.detach().numpy()  # the same memory
    found = np.zeros(array.shape)
    for place in np.ndindex(array.shape):
        kept = array[place]
        ends = []
        for shift in (step, -step):
            array[place] = kept + shift
            ends.append(loss())
        array[place] = kept
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found


@given(SEEDS)
def test_losses_are_those_of_the_transcription(seed: int) -> None:
    example = Example(seed, least=1)
    assert float(example.mil().detach()) == pytest.approx(example.plain_mil(), abs=1e-9)
    example = Example(seed)
    assert float(example.co_activity().detach()) == pytest.approx(example.plain_co_activity(), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_the_transcription(seed: int) -> None:
    example = Example(seed)
    for loss, plain, parts in [
        (example.mil, example.plain_mil, [example.logits]),
        (example.co_activity, example.plain_co_activity, [example.logits, example.hidden]),
    ]:
        gradients = torch.autograd.grad(loss(), parts)
        for part, gradient in zip(parts, gradients, strict=True):
            expected = slopes(plain, part)
            assert np.abs(expected).max() > 1e-3
            assert gradient.numpy() == pytest.approx(expected, abs=1e-6)


def test_class_logits_by_hand() -> None:
    """Of 9 clips the 2 highest count, of 8 the highest."""
    first, second = np.arange(9.0)[::-1], np.arange(8.0)
    logits = torch.from_numpy(np.concatenate([first, second]))[:, None]
    videos, steps = torch.tensor([0] * 9 + [1] * 8), torch.cat([torch.arange(9), torch.arange(8)])
    clips = Clips(videos, steps, torch.tensor([9, 8]))
    assert class_logits(padded(logits, clips), clips.lengths).tolist() == [[7.5], [7.0]]


def test_a_video_that_meets_itself_is_alike() -> None:
    """Distance 0 of the high features: what is left depends on high and low of the one video."""
    example = Example(0, videos=2)
    clips, keep = example.clips, example.clips.videos == 0
    twice = Clips(
        torch.cat([clips.videos[keep], clips.videos[keep] + 1]),
        clips.steps[keep].repeat(2),
        clips.lengths[:1].repeat(2),
    )
    labels = torch.tensor([[1.0, 0, 0, 0]] * 2).double()
    hidden, logits = example.hidden[keep].repeat(2, 1), example.logits[keep].repeat(2, 1)
    loss = co_activity_loss(hidden, padded(logits, twice), twice, labels, 1, 0.5)
    a = example.logits[keep][:, 0].softmax(0)
    high, low = a @ example.hidden[keep], (1 - a) @ example.hidden[keep] / (len(a) - 1)
    apart = distance(high.detach().numpy(), low.detach().numpy())
    assert float(loss.detach()) == pytest.approx(max(0.0, 0.5 - apart))


def test_pairs_without_a_common_class_have_no_loss() -> None:
    example = Example(1, videos=2)
    labels = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]).double()
    by_video = padded(example.logits, example.clips)
    assert float(co_activity_loss(example.hidden, by_video, example.clips, labels, 1, 0.5)) == 0


def test_videos_of_one_clip_and_dead_units_have_finite_gradients() -> None:
    """Their low features are zero, which have no direction."""
    clips = Clips(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([1, 1]))
    labels = torch.ones(2, 1)
    for hidden in (torch.ones(2, 3), torch.zeros(2, 3)):
        hidden.requires_grad_()
        logits = torch.zeros(2, 1, requires_grad=True)
        loss = co_activity_loss(hidden, padded(logits, clips), clips, labels, 1, 0.5)
        gradients = torch.autograd.grad(loss, [hidden, logits])
        assert math.isfinite(loss.detach()) and all(gradient.isfinite().all() for gradient in gradients)


def test_dropout_leaves_out_as_many_units_as_asked() -> None:
    for probability in (0.0, 0.3, 0.7):
        dropped = left_out(torch.empty(501, 203), probability, torch.Generator().manual_seed(1))
        assert dropped.shape == (501, 203)
        assert dropped.float().mean() == pytest.approx(probability, abs=0.006)
        assert dropped.float().mean(0) == pytest.approx(np.full(203, probability), abs=0.11)
    again, other = (left_out(torch.empty(7, 5), 0.5, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert torch.equal(again, left_out(torch.empty(7, 5), 0.5, torch.Generator().manual_seed(1)))
    assert not torch.equal(again, other)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_network_in_training_is_what_torch_computes(precision: Precision) -> None:
    """With the same units left out; the others count for more."""
    torch.manual_seed(0)
    network = WTALCNetwork(6, 8, 3, dropout=0.7, precision=precision).train()
    features = torch.randn(40, 6).half()
    found = network(features, torch.Generator().manual_seed(5))
    mask = ~left_out(torch.empty(40, 8), 0.7, torch.Generator().manual_seed(5)) / torch.tensor(0.3)
    hidden = torch.relu(features.float() @ network.hidden.weight.T + network.hidden.bias) * mask
    expected = hidden, hidden @ network.classifier.weight.T + network.classifier.bias
    close = {"float32": 1e-5, "bfloat16": 0.05}[precision]
    parameters = list(network.parameters())
    gradients = [torch.autograd.grad((h**2).sum() + (z**3).sum(), parameters) for h, z in (found, expected)]
    for ours, theirs in zip((*found, *gradients[0]), (*expected, *gradients[1]), strict=True):
        assert float((ours - theirs).detach().norm() / theirs.detach().norm()) < close
    network.eval()
    assert network(features).hidden.detach().numpy() == pytest.approx(
        torch.relu(features.float() @ network.hidden.weight.T + network.hidden.bias).detach().numpy(),
        abs=close,
    )
