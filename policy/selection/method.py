"""The model selector as a method: trained on model affinities, judged by the model it chooses for each video."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from policy.data.batches import Batch, VideoSet
from policy.data.opening import Dataset
from policy.method import Calibration, IntArray, Losses, Moment, Prediction
from policy.selection.affinity import affinities, qualities
from policy.selection.config import SelectorConfig, threshold_of
from policy.selection.controls import POINTS
from policy.selection.curve import SelectionCurve
from policy.selection.network import SelectorNetwork, confidences_of, decide, selector_inputs
from policy.selection.opening import Member, Pool, input_model
from policy.selection.pool import FloatArray, PoolTable, only
from policy.selection.pool_method import PoolMethod
from policy.selection.rule import check_budget, prices, thresholds, within_budget
from policy.selection.session import SelectorSession


class Selector(PoolMethod):
    """A perceptron on one model's predictions of a video says which model of a pool should judge it.

    The input model always runs and is always charged. Sec. 3.1, 3.2 and 3.4.

    Attributes:
        targets: (M, N) of the training videos: `affinities`, or with target "loss" `qualities`.
    """

    title = "Model selection"
    session_class = SelectorSession

    config: SelectorConfig
    model: SelectorNetwork

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
        if config.target == "affinity":
            self.targets = torch.from_numpy(affinities(table, config, config.alpha)).float()
            self.affinities = self.targets
        else:
            self.targets = torch.from_numpy(qualities(table, config)).float()
        self.model = SelectorNetwork(inputs.shape[1], config.selector_hidden, len(names))
        self.model.gflops.copy_(torch.from_numpy(gflops))
        if config.input_norm == "standard":
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

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        """Eq. 1, the mean over the videos, so that the learning rate need not follow the batch."""
        assert batch.videos is not None
        _, inputs = self.look(batch.videos)
        chosen, device = torch.tensor(batch.indices), batch.targets.device
        logits, targets = self.model(inputs[chosen].to(device)), self.targets[chosen].to(device)
        if self.config.target == "loss":
            return {"loss": functional.binary_cross_entropy_with_logits(logits, targets)}
        return {"loss": functional.cross_entropy(logits, targets)}

    def finish(self, videos: VideoSet, device: torch.device) -> None:
        budget = self.config.budget
        if budget is None:
            self.threshold = threshold_of(self.config, len(self.pool_of_models.names))
        else:
            self.threshold = self.within(budget, [(self, videos)], device)

    def within(self, budget: float, calibration: Calibration, device: torch.device) -> float:
        parts = []
        for method, videos in calibration:
            assert isinstance(method, Selector)
            parts.append((method.confidences(videos, device), method.look(videos)[0], videos))

        def cost(value: float) -> float:
            macs = [
                self.decided(table, np.array([value]), self.choose(confidences, value)[None], videos).macs
                for confidences, table, videos in parts
            ]
            return float(np.concatenate(macs, axis=1).mean() / 1e9)

        return within_budget(budget, self.values(np.concatenate([part[0] for part in parts]), None), cost)

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
        answering = ran = only(chosen)
        overhead = np.full(len(table), self.model.macs, np.int64)
        if self.input_place is None:
            overhead += self.input_model.macs(videos)
        else:
            ran = answering | only(self.input_place)
        return SelectionCurve(self.title, table, values, ran, answering, overhead)

    @torch.no_grad()
    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        assert batch.videos is not None
        table, inputs = self.look(batch.videos)
        indices = np.array(batch.indices)
        inputs = inputs[torch.from_numpy(indices)].to(batch.targets.device)
        chosen = self.choose(confidences_of(self.config, self.model, inputs), self.threshold)
        further = self.models_macs(only(chosen), table.macs[indices])
        return Prediction(torch.from_numpy(table.probabilities[indices, chosen]), further_macs=further)
