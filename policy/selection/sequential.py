"""Selection combined with a cascade: models run one after another; a network says which is worth running next.

Where a selector decides once, from the smallest model, and a cascade asks each model only how sure it is, this
looks after each model at all that has been said, and answers with all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cache_schema import UserError
from policy.data.batches import Batch, VideoSet
from policy.data.opening import Dataset
from policy.method import (
    IntArray,
    Losses,
    Moment,
    Prediction,
    class_probabilities,
)
from policy.selection.config import SelectorCascadeConfig, threshold_of
from policy.selection.curve import SelectionCurve
from policy.selection.network import mean_features
from policy.selection.pool import BoolArray, FloatArray, Masks, PoolTable, only
from policy.selection.pool_method import POINTS, PoolMethod
from policy.selection.rule import check_budget, prices_between, rates, walk, within_budget
from policy.selection.sequential_network import Evidence, SequentialNetwork, answered, expected
from policy.selection.session import GFLOPS, NETWORK, CascadeSession
from policy.session import Session, TrainedRun
from policy.training.losses import classification_loss

_CANDIDATES = 400
"""Prices from which a budget chooses."""
_HALVINGS = 20
"""Of the distance between two of them."""
_VIDEOS_AT_A_TIME = 1024


class SelectorCascade(PoolMethod):
    """The smallest model always runs; then the one of most gain for its price, or none, and so on.

    Learned are the answer of a set of models, by its classification loss, and the chance that the answer would be
    right after one more, on the training videos with models run in random order. With one step only it is a
    selector that predicts every model's error; were the chances constants, a confidence cascade with a threshold
    for each stage. Relatives: committee cascades, which average what has run (Wang et al. 2020, the paper's [47]),
    FrugalML (Chen et al. 2020), and Jitkrittum et al. 2023 on what confidence alone cannot decide.
    """

    title = "Selection and cascade"

    config: SelectorCascadeConfig
    model: SequentialNetwork
    own_place: int

    def __init__(self, config: SelectorCascadeConfig, data: Dataset) -> None:
        super().__init__(config, data)
        stream = data.train.streams["coarse"].name
        if stream not in self.pool_of_models.names:
            raise UserError(f"--input {stream}: the model that runs first must be one of the pool")
        self.own_place = self.pool_of_models.names.index(stream)
        self.own = self.pool_of_models.members[self.own_place]
        table, more = self.look(data.train)
        self.gflops = table.mean_macs / 1e9
        classes, models = len(data.classes), len(self.pool_of_models.names)
        self.model = SequentialNetwork(classes, models, more.shape[1], config.selector_hidden)
        if config.input_norm == "standard":
            parts = np.array_split(np.arange(len(table)), -(-len(table) // _VIDEOS_AT_A_TIME))
            self.model.scale.fit(self.evidence(data.train, part).inputs for part in parts)
        if config.budget is not None:
            least = self.own.macs(data.train) + self.model.macs
            check_budget(config.budget, float(least.mean() / 1e9))

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session | None:
        return CascadeSession(run, device)

    def session_tensors(self) -> Mapping[str, Tensor]:
        return {**super().session_tensors(), GFLOPS: torch.from_numpy(self.gflops)}

    def seen(self, videos: VideoSet, table: PoolTable) -> Tensor:
        """(M, E) float32: of the first model, beside its class scores."""
        if self.config.selector_input == "scores+features":
            return torch.from_numpy(mean_features(self.own, videos))
        return torch.zeros(len(table), 0)

    def evidence(self, videos: VideoSet, chosen: IntArray, device: torch.device | None = None) -> Evidence:
        """Of the chosen videos (m,) of a set."""
        table, more = self.look(videos)
        probabilities = torch.from_numpy(table.probabilities[chosen]).to(device)
        return Evidence.of(
            probabilities, more[torch.from_numpy(chosen)].to(device), multi_label=self.multi_label
        )

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        """Of the answers after each model, in random order, and of the chances expected before; means of both."""
        assert batch.videos is not None
        targets = batch.targets
        evidence = self.evidence(batch.videos, np.array(batch.indices), targets.device)
        order = self._random_order(len(targets), generator).to(targets.device)
        steps = torch.arange(self.model.models, device=targets.device)
        ran = order.argsort(1) <= steps[:, None, None]  # (N, B, N): after each step, which
        answers, chances = self.model(evidence, ran, generator)
        every = targets.expand(self.model.models, *targets.shape)
        answer_loss = classification_loss(answers.flatten(0, 1), every.flatten(0, 1))
        right = self._right(answered(self.config.answer, evidence, answers, ran), every)[1:]
        expected_right = chances[:-1].gather(2, order.T[1:, :, None])[:, :, 0]
        chance_loss = functional.binary_cross_entropy_with_logits(expected_right, right)
        return {"loss": answer_loss + chance_loss, "answer": answer_loss, "chance": chance_loss}

    def _random_order(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, N): models, that which always runs first."""
        drawn = torch.rand(count, self.model.models, generator=generator)
        drawn[:, self.own_place] = -1
        return drawn.argsort(1)

    def _right(self, best: Tensor, targets: Tensor) -> Tensor:
        """(...): 1 where the class is one that is trained on (hit@1); targets as in a batch."""
        if not self.multi_label:
            return (best == targets).float()
        return targets.gather(-1, best[..., None])[..., 0]

    def finish(self, videos: VideoSet, device: torch.device) -> None:
        price = threshold_of(self.config, self.model.models)
        if self.config.budget is not None:
            walks = self.walks(videos, device)

            def cost(value: float) -> float:
                return float(walks.curve(np.array([value])).gflops[0])

            prices = walks.prices(_CANDIDATES)
            price = within_budget(self.config.budget, prices, cost)
            lower = float(prices[prices < price].max(initial=0.0))
            for _ in range(_HALVINGS):  # between two prices many videos may decide otherwise
                middle = (lower + price) / 2
                if cost(middle) <= self.config.budget:
                    price = middle
                else:
                    lower = middle
        self.model.price.fill_(price)

    def walks(self, videos: VideoSet, device: torch.device) -> Walks:
        """What is decided for videos, at any price; each look is taken once."""
        return Walks(self, videos, device)

    def curve(self, videos: VideoSet, device: torch.device, *, points: int = POINTS) -> SelectionCurve:
        """At prices of these very videos, which only spread the points: at each, what is decided for a video
        depends on nothing but that video.

        Args:
            points: at most so many.
        """
        walks = self.walks(videos, device)
        return walks.curve(walks.prices(points))

    @torch.no_grad()
    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        assert batch.videos is not None
        table, _ = self.look(batch.videos)
        mine = np.array(batch.indices)
        walks = Walks(self, batch.videos, batch.targets.device, mine)
        ran = walks.at(float(self.model.price))
        spent = self.models_macs(ran, table.macs[mine])
        # The first look is charged for every video.
        looks = _members(ran, self.model.models).sum(axis=1) - 1
        spent[NETWORK] = looks * self.model.macs
        return Prediction(torch.from_numpy(walks.scores(ran)), further_macs=spent)

    @property
    def threshold(self) -> float:
        """The price that it decides at."""
        return float(self.model.price)

    @property
    def look_macs(self) -> int:
        """Of the network, after each model."""
        return self.model.macs

    def at_threshold(self, videos: VideoSet, device: torch.device) -> SelectionCurve:
        """The one point that it decides at."""
        return self.walks(videos, device).curve(np.array([self.threshold]))


class Walks:
    """What a method decides for M videos of a set at any price, each look at a set of models taken once."""

    def __init__(
        self, method: SelectorCascade, videos: VideoSet, device: torch.device, chosen: IntArray | None = None
    ) -> None:
        self.method, self.videos, self.device = method, videos, device
        self.chosen = np.arange(len(videos)) if chosen is None else chosen
        self.start = 1 << method.own_place
        self._sure: dict[int, FloatArray] = {}
        self._best: dict[int, IntArray] = {}
        self._chances: dict[int, FloatArray] = {}

    def look(self, mask: int, videos: IntArray) -> tuple[FloatArray, FloatArray]:
        """As `policy.selection.rule.Look`."""
        self._take(mask, videos)
        return self._sure[mask][videos], self._chances[mask][videos]

    def at(self, price: float) -> Masks:
        """(M,): the models that run."""
        return walk(self.look, len(self.chosen), self.start, self.method.gflops, price)

    def prices(self, points: int) -> FloatArray:
        """(≤ points,), descending to 0, by rising cost: about equally many decisions lie between them."""
        return prices_between(rates(self.look, len(self.chosen), self.start, self.method.gflops), points)

    def curve(self, prices: FloatArray) -> SelectionCurve:
        """Of all videos of the set.

        Args:
            prices: (P,).
        """
        assert len(self.chosen) == len(self.videos)
        ran = np.stack([self.at(float(price)) for price in prices])
        table, _ = self.method.look(self.videos)
        answering = only(_largest(ran)) if self.method.config.answer == "largest" else ran
        nothing = np.zeros(len(table), np.int64)
        return SequentialCurve(self.method.title, table, prices, ran, answering, nothing, self)

    def best(self, mask: int, videos: IntArray) -> IntArray:
        """(m,): the class that is answered after a set of models."""
        self._take(mask, videos)
        return self._best[mask][videos]

    @torch.no_grad()
    def scores(self, ran: Masks) -> npt.NDArray[np.float32]:
        """(M, C): class probabilities of the answer after sets of models (M,)."""
        method = self.method
        answers = []
        for part in _parts(len(self.chosen)):
            evidence = method.evidence(self.videos, self.chosen[part], self.device)
            on = torch.from_numpy(_members(ran[part], method.model.models)).to(self.device)
            if method.config.answer == "learned":
                probabilities = (
                    class_probabilities(method.model(evidence, on)[0], method.multi_label).cpu().numpy()
                )
            else:
                table, _ = method.look(self.videos)
                voting = on.cpu().numpy()
                if method.config.answer == "largest":
                    voting = np.arange(voting.shape[1]) == _largest(ran[part])[:, None]
                weights = voting / voting.sum(axis=1, keepdims=True)
                probabilities = np.einsum("mn,mnc->mc", weights, table.probabilities[self.chosen[part]])
            answers.append(probabilities.astype(np.float32))
        return np.concatenate(answers)

    @torch.no_grad()
    def _take(self, mask: int, videos: IntArray) -> None:
        """Look at a set for those of the videos for which that has not been done."""
        count, models = len(self.chosen), self.method.model.models
        if mask not in self._sure:
            self._sure[mask] = np.full(count, np.nan)
            self._best[mask] = np.zeros(count, np.int64)
            self._chances[mask] = np.empty((count, models))
        new = videos[np.isnan(self._sure[mask][videos])]
        for part in _parts(len(new)):
            these = new[part]
            evidence = self.method.evidence(self.videos, self.chosen[these], self.device)
            on = torch.from_numpy(_members(np.full(len(these), mask, np.uint32), models)).to(self.device)
            answer, chances = self.method.model(evidence, on)
            best = answered(self.method.config.answer, evidence, answer, on)
            sure, chances = expected(answer, chances, best, multi_label=self.method.multi_label)
            self._sure[mask][these] = sure.cpu().numpy()
            self._best[mask][these] = best.cpu().numpy()
            self._chances[mask][these] = chances.cpu().numpy()


@dataclass(frozen=True)
class SequentialCurve(SelectionCurve):
    """A curve whose answers may be learned, and whose network looks once after each model.

    Attributes:
        walks: that it was made of.
    """

    walks: Walks

    @cached_property
    def macs(self) -> IntArray:
        """(P, M)."""
        looks = _members(self.ran, len(self.table.models)).sum(axis=-1)
        return np.asarray(self.table.spent(self.ran) + looks * self.walks.method.model.macs)

    @cached_property
    def correct(self) -> BoolArray:
        """(P, M): hit@1."""
        right = np.zeros(self.ran.shape, np.bool_)
        for mask in np.unique(self.ran):
            at = self.ran == mask
            videos = np.flatnonzero(at.any(axis=0))
            hit = np.zeros(len(self.table), np.bool_)
            hit[videos] = self.table.labels[videos, self.walks.best(int(mask), videos)]
            right |= at & hit
        return right

    def scores(self, point: int) -> npt.NDArray[np.float32]:
        """(M, C): class probabilities at a point."""
        return self.walks.scores(self.ran[point])


def _members(ran: Masks, models: int) -> BoolArray:
    """(..., N): the sets as rows of truth values."""
    return (ran[..., None] >> np.arange(models, dtype=np.uint32) & 1).astype(np.bool_)


def _largest(ran: Masks) -> IntArray:
    """(...): the dearest model of each set."""
    return np.asarray(np.floor(np.log2(ran)), np.int64)


def _parts(count: int) -> list[slice]:
    return [slice(start, start + _VIDEOS_AT_A_TIME) for start in range(0, count, _VIDEOS_AT_A_TIME)]


__all__ = ["SelectorCascade", "SequentialCurve", "Walks"]
