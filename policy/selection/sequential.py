"""Selection combined with a cascade: models run one after another; a network says which is worth running next.

A selector decides once, from the smallest model, and a cascade looks only at how sure each model is. This looks at
the predictions of all models that have run, after each of them, and answers with all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cache_schema import UserError
from policy.config import RunConfig
from policy.data.batches import Batch, VideoSet
from policy.data.opening import Dataset
from policy.method import Calibration, IntArray, Losses, Moment, Note, Prediction, Settled
from policy.selection.combining import answer_weights
from policy.selection.config import SelectorCascadeConfig
from policy.selection.controls import POINTS
from policy.selection.curve import SelectionCurve
from policy.selection.logistic import fit_stage
from policy.selection.opening import Member, Pool
from policy.selection.pool import BoolArray, FloatArray, Floats, Masks, PoolTable, all_of, membership, only
from policy.selection.pool_method import PoolMethod
from policy.selection.rule import check_budget, prices_between, rates, walk, within_budget
from policy.selection.sequential_network import Evidence, SequentialNetwork, answered
from policy.selection.session import GFLOPS, NETWORK, CascadeSession
from policy.selection.settling import (
    MOST_COMPARED,
    POINTS_OF_A_PART,
    REGRESSIONS,
    JoinedCurve,
    better,
    too_few,
)
from policy.selection.staged import SPENDING_POINTS, CascadeHeads, cascade_network, spending
from policy.session import TrainedRun
from policy.training.cross_fitting import FOLDS, cross_fitted
from policy.training.losses import classification_loss

_CANDIDATES = 400
"""Prices among which a budget is looked for."""
_HALVINGS = 20
"""Of the distance between two of them."""
_VIDEOS_AT_A_TIME = 1024


class SelectorCascade(PoolMethod):
    """The smallest model always runs; then the one of most gain for its price, or none, and so on.

    It learns the answer of a set of models, and the chance that the answer would be right after one more: by
    regressions for each set, or by a perceptron that is trained with models run in random order. With a single
    step it is a selector that predicts every model's error; with constant chances, a confidence cascade with a
    threshold for each stage. Relatives: committee cascades, which average what has run (Wang et al. 2020, the
    paper's [47]), FrugalML (Chen et al. 2020), and Jitkrittum et al. 2023 on what confidence alone cannot decide.
    """

    title = "Selection and cascade"
    session_class = CascadeSession

    config: SelectorCascadeConfig
    model: SequentialNetwork | CascadeHeads
    input_place: int

    def __init__(
        self,
        config: SelectorCascadeConfig,
        data: Dataset,
        pool: Pool | None = None,
        first: Member | None = None,
    ) -> None:
        super().__init__(config, data, pool, first)
        stream = data.train.streams["coarse"].name
        if stream not in self.pool_of_models.names:
            raise UserError(f"--input {stream}: the model that runs first must be one of the pool")
        self.input_place = self.pool_of_models.names.index(stream)
        self.input_model = self.pool_of_models.members[self.input_place]
        table, features = self.look(data.train)
        self.gflops = table.mean_macs / 1e9
        classes, models = len(data.classes), len(self.pool_of_models.names)
        self.model = cascade_network(
            config, classes, models, features.shape[1], self.input_place, multi_label=data.multi_label
        )
        if config.input_norm == "standard" and isinstance(self.model, SequentialNetwork):
            parts = np.array_split(np.arange(len(table)), -(-len(table) // _VIDEOS_AT_A_TIME))
            self.model.scale.fit(self.evidence(data.train, part).inputs for part in parts)
        if config.budget is not None:
            least = self.input_model.macs(data.train) + self.model.macs
            check_budget(config.budget, float(least.mean() / 1e9))

    def session_tensors(self) -> Mapping[str, Tensor]:
        return {**super().session_tensors(), GFLOPS: torch.from_numpy(self.gflops)}

    @classmethod
    def restored(cls, run: TrainedRun, data: Dataset) -> PoolMethod:
        method = super().restored(run, data)
        assert isinstance(method, SelectorCascade)
        method.gflops = run.tensors[GFLOPS].numpy()
        return method

    def refitted(self, data: Dataset, device: torch.device) -> PoolMethod:
        method = super().refitted(data, device)
        assert isinstance(method, SelectorCascade)
        method.gflops = self.gflops
        return method

    @property
    def threshold(self) -> float:
        return float(self.model.price)

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.model.price.fill_(value)

    def inputs(self, videos: VideoSet, table: PoolTable) -> Tensor:
        """(M, E) float32: of the first model, beside its class scores."""
        if not self.config.sees_features:
            return torch.zeros(len(table), 0)
        return torch.from_numpy(self.input_features(videos))

    def seen(
        self, videos: VideoSet, chosen: IntArray, device: torch.device | None = None
    ) -> tuple[Tensor, Tensor]:
        """Probabilities (m, N, C) and features (m, E) of the chosen videos (m,) of a set."""
        table, features = self.look(videos)
        probabilities = torch.from_numpy(table.probabilities[chosen]).to(device)
        return probabilities, features[torch.from_numpy(chosen)].to(device)

    def evidence(self, videos: VideoSet, chosen: IntArray, device: torch.device | None = None) -> Evidence:
        """The same for the perceptron."""
        return Evidence.of(*self.seen(videos, chosen, device), multi_label=self.multi_label)

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        """Of the answers after each model, in random order, and of the chances predicted before; means of both."""
        assert batch.videos is not None
        targets = batch.targets
        evidence = self.evidence(batch.videos, np.array(batch.indices), targets.device)
        order = self._random_order(len(targets), generator).to(targets.device)
        steps = torch.arange(self.model.models, device=targets.device)
        ran = order.argsort(1) <= steps[:, None, None]  # (N, B, N): after each step, which
        answers, chances = self.model(evidence, ran, generator)
        every = targets.expand(self.model.models, *targets.shape)
        answer_loss = classification_loss(answers.flatten(0, 1), every.flatten(0, 1))
        right = self._right(answered(self.config.answers_by, evidence, answers, ran), every)[1:]
        expected_right = chances[:-1].gather(2, order.T[1:, :, None])[:, :, 0]
        chance_loss = functional.binary_cross_entropy_with_logits(expected_right, right)
        return {"loss": answer_loss + chance_loss, "answer": answer_loss, "chance": chance_loss}

    def _random_order(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, N): models, beginning with the one that always runs."""
        ranks = torch.rand(count, self.model.models, generator=generator)
        ranks[:, self.input_place] = -1
        return ranks.argsort(1)

    def _right(self, best: Tensor, targets: Tensor) -> Tensor:
        """(...): 1 where a class (...) is one of the targets (hit@1), which are as in a batch."""
        if not self.multi_label:
            return (best == targets).float()
        return targets.gather(-1, best[..., None])[..., 0]

    @classmethod
    def settle(cls, config: RunConfig, data: Dataset, device: torch.device, note: Note) -> Settled | None:
        assert isinstance(config, SelectorCascadeConfig)
        if config.decisions != "auto":
            return None
        if config.answer == "weighted":  # which only regressions have
            return Settled(REGRESSIONS, {})
        if why := too_few(len(data.train), len(data.classes)):
            note(f"--decisions auto: logistic; {why}")
            return Settled(REGRESSIONS, {})
        chosen = np.random.default_rng(config.seed).permutation(len(data.train))[:MOST_COMPARED]
        data = replace(data, train=data.train.part(np.sort(chosen).tolist()))
        note(
            f"--decisions auto: logistic and perceptron are compared on {len(chosen):,} training videos, in "
            f"{FOLDS} parts that are held out"
        )
        regressions = cls(replace(config, **REGRESSIONS), data)
        held_out = regressions.fit_held_out(data.train, device)
        perceptron: dict[str, Any] = {
            "decisions": "perceptron",
            "temperature": config.temperature or "fitted",
        }
        network = cls(replace(config, **perceptron), data, regressions.pool_of_models)
        walks = []
        for method, videos in cross_fitted(network, data, device):
            assert isinstance(method, SelectorCascade)
            walks.append(Walks(method, videos, device))
        prices = np.unique(np.concatenate([part.prices(POINTS_OF_A_PART) for part in walks]))[::-1]
        joined = JoinedCurve.of(held_out.table, [part.curve(prices) for part in walks])
        name, figures = better(held_out.curve(held_out.prices(len(prices))), joined)
        if figures:
            areas = " and ".join(f"{of} {area:.2f}" for of, area in figures["above_random"].items())
            note(
                f"--decisions auto: {name}; areas above random selection, in points of HIT@1, held out: {areas}, "
                f"± {figures['standard_error']:.2f} between them"
            )
        return Settled(perceptron if name == "perceptron" else REGRESSIONS, figures)

    def fit(self, videos: VideoSet, device: torch.device) -> None:
        model, walks = self.model, self.fit_held_out(videos, device)
        assert isinstance(model, CascadeHeads)

        def cost(price: float) -> float:
            return float(walks.curve(np.array([price])).gflops[0])

        model.spending.copy_(spending(walks.prices(SPENDING_POINTS), cost))

    def fit_held_out(self, videos: VideoSet, device: torch.device) -> HeldOutWalks:
        """Fit answers and regressions; what they decide for training videos that were not among their examples."""
        model, (table, _) = self.model, self.look(videos)
        assert isinstance(model, CascadeHeads)
        model.cpu()
        count, every = model.models, all_of(model.models)
        first = 1 << self.input_place
        sets = [mask for mask in range(every + 1) if mask & first]
        weights = answer_weights(self.config.answers_by, table, sets)
        for mask, of_set in weights.items():
            model.answers[mask] = torch.from_numpy(of_set)
        right = {mask: table.correct_of(np.full(len(table), mask, np.uint32), weights) for mask in sets}
        fold, classes = self.held_out_folds(videos), table.labels.shape[1]
        chances = np.zeros((every + 1, len(table), count))
        for mask in sets[:-1]:
            seen = [model.seen(torch.from_numpy(part), mask)[1:] for _, part in table.parts()]
            features, best = (torch.cat(each).numpy() for each in zip(*seen, strict=True))
            places = [n for n in range(count) if n == self.input_place or not mask >> n & 1]
            outcomes = np.stack([right[mask | 1 << n] for n in places], axis=1)
            fitted = fit_stage(features, best, outcomes, fold, classes)
            model.heads.take(mask, places, fitted)
            chances[mask][:, places] = fitted.held_out

        model.to(device)
        return HeldOutWalks(self, videos, device, chances)

    def within(self, budget: float, calibration: Calibration, device: torch.device) -> float:
        walks = []
        for method, videos in calibration:
            assert isinstance(method, SelectorCascade)
            walks.append(Walks(method, videos, device))
        cost = self.expected_cost(calibration, device)
        prices = np.unique(np.concatenate([of_part.prices(_CANDIDATES) for of_part in walks]))[::-1]
        price = within_budget(budget, prices, cost)
        lower = float(prices[prices < price].max(initial=0.0))
        for _ in range(_HALVINGS):  # between two prices many videos may decide otherwise
            middle = (lower + price) / 2
            if cost(middle) <= budget:
                price = middle
            else:
                lower = middle
        return price

    def costs(self, videos: VideoSet, device: torch.device) -> Callable[[float], IntArray]:
        walks = Walks(self, videos, device)
        return lambda price: walks.curve(np.array([price])).macs[0]

    def curve(
        self,
        videos: VideoSet,
        device: torch.device,
        *,
        points: int = POINTS,
        values: FloatArray | None = None,
    ) -> SelectionCurve:
        walks = Walks(self, videos, device)
        return walks.curve(walks.prices(points) if values is None else values)

    @torch.no_grad()
    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        assert batch.videos is not None
        table, _ = self.look(batch.videos)
        indices = np.array(batch.indices)
        walks = Walks(self, batch.videos, batch.targets.device, indices)
        ran = walks.at(self.threshold)
        spent = self.models_macs(ran, table.macs[indices])
        # `network_macs` charges every video for the first look.
        spent[NETWORK] = (_looks(ran, self.model.models) - 1) * self.model.macs
        return Prediction(torch.from_numpy(walks.scores(ran)), further_macs=spent)


class Walks:
    """Decisions of a method for M videos of a set, at any price; each look at a set of models is taken once."""

    def __init__(
        self, method: SelectorCascade, videos: VideoSet, device: torch.device, chosen: IntArray | None = None
    ) -> None:
        self.method, self.videos, self.device = method, videos, device
        self.chosen = np.arange(len(videos)) if chosen is None else chosen
        self.start = 1 << method.input_place
        self._looks: dict[int, tuple[FloatArray, IntArray, FloatArray]] = {}

    def look(self, mask: int, videos: IntArray) -> tuple[FloatArray, FloatArray]:
        """As `policy.selection.rule.Look`."""
        sure, _, chances = self._look(mask, videos)
        return sure, chances

    def best(self, mask: int, videos: IntArray) -> IntArray:
        """(m,): the predicted class after a set of models."""
        return self._look(mask, videos)[1]

    def at(self, price: float) -> Masks:
        """(M,): the models that run."""
        return walk(self.look, len(self.chosen), self.start, self.method.gflops, price)

    def prices(self, points: int) -> FloatArray:
        """(≤ points,), descending to 0, by rising cost: about equally many decisions change between them."""
        return prices_between(rates(self.look, len(self.chosen), self.start, self.method.gflops), points)

    def curve(self, prices: FloatArray) -> SelectionCurve:
        """Of all videos of the set.

        Args:
            prices: (P,).
        """
        assert len(self.chosen) == len(self.videos)
        ran = np.stack([self.at(float(price)) for price in prices])
        table, _ = self.method.look(self.videos)
        overhead = np.zeros(len(table), np.int64)
        return SequentialCurve(self.method.title, table, prices, ran, self._answering(ran), overhead, self)

    @torch.no_grad()
    def scores(self, ran: Masks) -> Floats:
        """(M, C): class probabilities of the answer after sets of models (M,)."""
        method, answers = self.method, []
        for part in _parts(len(self.chosen)):
            probabilities, features = method.seen(self.videos, self.chosen[part], self.device)
            answer = np.empty((len(probabilities), probabilities.shape[2]), np.float32)
            for mask in np.unique(ran[part]).tolist():
                at = ran[part] == mask
                looked = method.model.look(probabilities[at], features[at], mask)
                answer[at] = looked.answer.cpu().numpy()
            answers.append(answer)
        return np.concatenate(answers)

    def _answering(self, ran: Masks) -> Masks:
        """Of the models that ran, those that answer: all, or the dearest."""
        if self.method.config.answers_by != "largest":
            return ran
        return only(np.floor(np.log2(ran)).astype(np.int64))

    @torch.no_grad()
    def _look(self, mask: int, videos: IntArray) -> tuple[FloatArray, IntArray, FloatArray]:
        """As `look`, with the predicted class (m,) between the two. Looks are kept."""
        method, count, models = self.method, len(self.chosen), self.method.model.models
        if mask not in self._looks:
            self._looks[mask] = np.full(count, np.nan), np.zeros(count, np.int64), np.empty((count, models))
        looks = self._looks[mask]
        new = videos[np.isnan(looks[0][videos])]
        for part in _parts(len(new)):
            seen = method.seen(self.videos, self.chosen[new[part]], self.device)
            answer, sure, chances = method.model.look(*seen, mask)
            for array, values in zip(looks, (sure, answer.argmax(1), chances), strict=True):
                array[new[part]] = values.cpu().numpy()
        sure_of, best_of, chances_of = looks
        return sure_of[videos], best_of[videos], chances_of[videos]


class HeldOutWalks(Walks):
    """The same by given chances.

    Args:
        chances: (2^N, M, N), as `Look.chances`, of each set of models.
    """

    def __init__(
        self, method: SelectorCascade, videos: VideoSet, device: torch.device, chances: FloatArray
    ) -> None:
        super().__init__(method, videos, device)
        self.chances = chances

    @property
    def table(self) -> PoolTable:
        """Of the videos."""
        return self.method.look(self.videos)[0]

    def look(self, mask: int, videos: IntArray) -> tuple[FloatArray, FloatArray]:
        chances = self.chances[mask, videos]
        return chances[:, self.method.input_place], chances


@dataclass(frozen=True)
class SequentialCurve(SelectionCurve):
    """A curve whose answers may be learned, and whose network looks once after each model.

    Attributes:
        walks: give the answers.
    """

    walks: Walks

    @cached_property
    def macs(self) -> IntArray:
        """(P, M)."""
        looks = _looks(self.ran, len(self.table.models))
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

    def scores(self, point: int) -> Floats:
        """(M, C): class probabilities at a point."""
        return self.walks.scores(self.ran[point])


def _looks(ran: Masks, models: int) -> IntArray:
    """(…,): one after each model."""
    return np.asarray(membership(ran, models).sum(axis=-1))


def _parts(count: int) -> list[slice]:
    return [slice(start, start + _VIDEOS_AT_A_TIME) for start in range(0, count, _VIDEOS_AT_A_TIME)]
