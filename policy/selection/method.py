"""The model selector as a method: trained on model affinities, judged by the model it chooses for each video."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from policy.data.batches import Batch, VideoSet
from policy.data.opening import Dataset
from policy.method import Calibration, IntArray, Losses, Moment, Prediction
from policy.selection.affinity import affinities, qualities
from policy.selection.combining import answer_weights
from policy.selection.config import SelectorConfig
from policy.selection.controls import POINTS
from policy.selection.curve import SelectionCurve
from policy.selection.logistic import fit_stage
from policy.selection.network import SelectorNetwork, confidences_of, decide, selector_inputs
from policy.selection.opening import Member, Pool, input_model
from policy.selection.pool import FloatArray, Masks, PoolTable, combined, log_scores, only
from policy.selection.pool_method import PoolMethod
from policy.selection.rule import check_budget, prices, thresholds, within_budget
from policy.selection.session import SelectorSession
from policy.selection.staged import SPENDING_POINTS, SelectorHeads, selector_network, spending


class Selector(PoolMethod):
    """A perceptron on one model's predictions of a video says which model of a pool should judge it.

    The input model always runs and is always charged. Sec. 3.1, 3.2 and 3.4.
    """

    title = "Model selection"
    session_class = SelectorSession

    config: SelectorConfig
    model: SelectorNetwork | SelectorHeads

    def __init__(
        self, config: SelectorConfig, data: Dataset, pool: Pool | None = None, first: Member | None = None
    ) -> None:
        super().__init__(config, data, pool, first)
        self.input_model = first or input_model(config, data, self.pool_of_models)
        names, stream = self.pool_of_models.names, self.input_model.name.stream
        self.input_place = names.index(stream) if stream in names else None
        table, inputs = self.look(data.train)
        gflops = table.mean_macs / 1e9
        if self.input_place is not None:
            gflops[self.input_place] = 0
        self._targets: dict[int, Tensor] = {}
        if not config.is_logistic and config.target == "affinity":
            self.affinities = self.targets(data.train)
        self.model = selector_network(config, inputs.shape[1], len(names), multi_label=data.multi_label)
        self.model.gflops.copy_(torch.from_numpy(gflops))
        if config.input_norm == "standard" and isinstance(self.model, SelectorNetwork):
            self.model.scale.fit([inputs])
        if config.budget is not None:
            cheapest = np.full((1, len(table)), self.gflops.argmin())
            least = self.decided(table, np.zeros(1), cheapest, data.train)
            check_budget(config.budget, float(least.gflops[0]))

    @property
    def gflops(self) -> FloatArray:
        """(N,), what choosing each model costs beyond what is spent anyway, mean over the training videos."""
        return np.asarray(self.model.gflops.cpu().numpy(), np.float64)

    @property
    def threshold(self) -> float:
        return float(self.model.threshold)

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.model.threshold.fill_(value)

    def inputs(self, videos: VideoSet, table: PoolTable) -> Tensor:
        """(M, D) float32, the network's inputs."""
        scores = None
        if self.input_place is not None:
            scores = table.of_model(self.input_place)
        elif self.config.sees_scores:
            scores = self.input_model.probabilities(videos)
        features = self.input_features(videos) if self.config.sees_features else None
        tensors = (None if values is None else torch.tensor(values) for values in (scores, features))
        return selector_inputs(self.config, *tensors, multi_label=videos.multi_label)

    def targets(self, videos: VideoSet) -> Tensor:
        """(M, N) of a perceptron: `affinities`, or with target "loss" `qualities`. Kept."""
        table, _ = self.look(videos)
        if id(table) not in self._targets:  # `look` keeps the table
            by_loss, config = self.config.target == "loss", self.config
            values = qualities(table, config) if by_loss else affinities(table, config, config.alpha)
            self._targets[id(table)] = torch.from_numpy(values).float()
        return self._targets[id(table)]

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        """Eq. 1, the mean over the videos, so that the learning rate need not follow the batch."""
        assert batch.videos is not None
        _, inputs = self.look(batch.videos)
        chosen, device = torch.tensor(batch.indices), batch.targets.device
        logits = self.model(inputs[chosen].to(device))
        targets = self.targets(batch.videos)[chosen].to(device)
        if self.config.target == "loss":
            return {"loss": functional.binary_cross_entropy_with_logits(logits, targets)}
        return {"loss": functional.cross_entropy(logits, targets)}

    def fit(self, videos: VideoSet, device: torch.device) -> None:
        model, (table, inputs) = self.model, self.look(videos)
        assert isinstance(model, SelectorHeads)
        model.cpu()
        places = np.arange(len(table.models))
        answering = self.answering(places)
        weights = answer_weights(self.config.answers_by, table, answering.tolist())
        model.answers.copy_(torch.from_numpy(np.stack([weights[mask] for mask in answering.tolist()])))
        right = table.correct_of(np.tile(answering[:, None], len(table)), weights)
        features, best = model.seen(inputs)
        fold = self.held_out_folds(videos)
        fitted = fit_stage(features.numpy(), best.numpy(), right.T, fold, inputs.shape[1])
        model.heads.take(0, places.tolist(), fitted)

        def cost(price: float) -> float:
            chosen = self.choose(fitted.held_out, price)[None]
            return float(self.decided(table, np.array([price]), chosen, videos).gflops[0])

        model.spending.copy_(spending(self.values(fitted.held_out, SPENDING_POINTS), cost))
        model.to(device)

    def answering(self, chosen: IntArray) -> Masks:
        """The sets of models that answer where each is chosen: it alone, or with the model that is looked at."""
        if self.input_place is None or self.config.answers_by == "largest":
            return only(chosen)
        return only(chosen) | only(self.input_place)

    def within(self, budget: float, calibration: Calibration, device: torch.device) -> float:
        parts = []
        for method, videos in calibration:
            assert isinstance(method, Selector)
            parts.append(method.confidences(videos, device))
        return within_budget(
            budget, self.values(np.concatenate(parts), None), self.expected_cost(calibration, device)
        )

    def costs(self, videos: VideoSet, device: torch.device) -> Callable[[float], IntArray]:
        confidences, table = self.confidences(videos, device), self.look(videos)[0]

        def cost(value: float) -> IntArray:
            chosen = self.choose(confidences, value)[None]
            return np.asarray(self.decided(table, np.array([value]), chosen, videos).macs[0])

        return cost

    def confidences(self, videos: VideoSet, device: torch.device) -> FloatArray:
        """(M, N), as `confidences_of`."""
        _, inputs = self.look(videos)
        return confidences_of(self.config, self.model, inputs.to(device))

    def choose(self, confidences: FloatArray, value: float) -> IntArray:
        """(M,): a model for each video from the confidences in all of them, at a threshold or price."""
        return decide(self.config, confidences, self.gflops, value)

    def values(self, confidences: FloatArray, points: int | None) -> FloatArray:
        """Thresholds or prices by rising cost, as `thresholds` and `prices` return them."""
        order = self.gflops.argsort(kind="stable")
        ordered = confidences[:, order]
        if self.config.by_price:
            return prices(ordered, self.gflops[order], points)
        return thresholds(ordered, self.config.when_none, points)

    def curve(
        self,
        videos: VideoSet,
        device: torch.device,
        *,
        points: int = POINTS,
        values: FloatArray | None = None,
    ) -> SelectionCurve:
        confidences = self.confidences(videos, device)
        if values is None:
            values = self.values(confidences, points)
        chosen = np.stack([self.choose(confidences, float(value)) for value in values])
        return self.decided(self.look(videos)[0], values, chosen, videos)

    def decided(
        self, table: PoolTable, values: FloatArray, chosen: IntArray, videos: VideoSet
    ) -> SelectionCurve:
        """Choices (P, M) of a model, charged with what the selector itself costs."""
        answering, ran = self.answering(chosen), only(chosen)
        overhead = np.full(len(table), self.model.macs, np.int64)
        if self.input_place is None:
            overhead += self.input_model.macs(videos)
        else:
            ran = ran | only(self.input_place)
        weights = None
        if isinstance(self.model, SelectorHeads):
            answers, places = self.model.answers.cpu().numpy(), np.arange(len(table.models))
            weights = dict(zip(self.answering(places).tolist(), answers, strict=True))
        return SelectionCurve(self.title, table, values, ran, answering, overhead, weights=weights)

    @torch.no_grad()
    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        assert batch.videos is not None
        table, inputs = self.look(batch.videos)
        indices = np.array(batch.indices)
        inputs = inputs[torch.from_numpy(indices)].to(batch.targets.device)
        chosen = self.choose(confidences_of(self.config, self.model, inputs), self.threshold)
        further = self.models_macs(only(chosen), table.macs[indices])
        if isinstance(self.model, SelectorNetwork):
            return Prediction(torch.from_numpy(table.probabilities[indices, chosen]), further_macs=further)
        scores = log_scores(torch.from_numpy(table.probabilities[indices]), self.multi_label)
        weights = self.model.answers.cpu()[torch.from_numpy(chosen)]
        return Prediction(combined(scores, weights, self.multi_label), further_macs=further)
