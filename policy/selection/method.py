"""The model selector as a method: trained on model affinities, judged by the model it chooses for each video."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from policy.data.batches import Batch, VideoSet
from policy.data.opening import Dataset
from policy.method import IntArray, Losses, Moment, Prediction
from policy.selection.affinity import affinities, qualities
from policy.selection.config import SelectorConfig, threshold_of
from policy.selection.curve import SelectionCurve
from policy.selection.network import SelectorNetwork, confidences_of, decide, selector_input
from policy.selection.opening import own_member
from policy.selection.pool import PoolTable, only
from policy.selection.pool_method import POINTS, PoolMethod
from policy.selection.rule import (
    check_budget,
    prices,
    thresholds,
    within_budget,
)
from policy.selection.session import SelectorSession
from policy.session import Session, TrainedRun

FloatArray = npt.NDArray[np.float64]


class Selector(PoolMethod):
    """A perceptron on one model's predictions of a video says which model of a pool should judge it.

    Its own model always runs and is always charged. Sec. 3.1, 3.2 and 3.4.

    Attributes:
        gflops: (N,), what choosing each model costs beyond what is spent anyway, mean over the training videos.
        order: the models by `gflops`, the cheapest first, in which the rule meets them.
        targets: (M, N) of the training videos: `affinities`, or with target "loss" `qualities`.
    """

    title = "Model selection"

    config: SelectorConfig
    model: SelectorNetwork

    def __init__(self, config: SelectorConfig, data: Dataset) -> None:
        super().__init__(config, data)
        self.own = own_member(config, data, self.pool_of_models)
        names = self.pool_of_models.names
        self.own_place = names.index(self.own.name.stream) if self.own.name.stream in names else None
        table, inputs = self.look(data.train)
        self.gflops = table.mean_macs / 1e9
        if self.own_place is not None:
            self.gflops[self.own_place] = 0
        self.order = self.gflops.argsort(kind="stable")
        learned = (
            affinities(table, config, config.alpha)
            if config.target == "affinity"
            else qualities(table, config)
        )
        self.targets = torch.from_numpy(learned).float()
        self.model = SelectorNetwork(inputs.shape[1], config.selector_hidden, len(names))
        self.model.gflops.copy_(torch.from_numpy(self.gflops))
        if config.input_norm == "standard":
            self.model.scale.fit([inputs])
        if config.budget is not None:
            cheapest = np.full((1, len(table)), self.order[0])
            check_budget(
                config.budget, float(self.decided(table, np.zeros(1), cheapest, data.train).gflops[0])
            )

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> Session | None:
        return SelectorSession(run, device)

    def seen(self, videos: VideoSet, table: PoolTable) -> Tensor:
        """(M, D) float32, the network's inputs."""
        scores = None
        if self.own_place is not None:
            scores = table.of_model(self.own_place)
        elif self.own.head is not None:
            scores = self.own.probabilities(videos)
        return torch.from_numpy(selector_input(self.config, self.own, videos, scores))

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        """Eq. 1, the mean over the videos, so that the learning rate need not follow the batch."""
        assert batch.videos is not None
        _, inputs = self.look(batch.videos)
        chosen = torch.tensor(batch.indices)
        device = batch.targets.device
        logits = self.model(inputs[chosen].to(device))
        targets = self.targets[chosen].to(device)
        if self.config.target == "loss":
            return {"loss": functional.binary_cross_entropy_with_logits(logits, targets)}
        return {"loss": functional.cross_entropy(logits, targets)}

    def finish(self, videos: VideoSet, device: torch.device) -> None:
        threshold = threshold_of(self.config, len(self.pool_of_models.names))
        if self.config.budget is not None:
            said = self.confidences(videos, device)
            table, _ = self.look(videos)

            def cost(value: float) -> float:
                chosen = self.choose(said, value)
                return float(self.decided(table, np.array([value]), chosen[None], videos).gflops[0])

            threshold = within_budget(self.config.budget, self.values(said, None), cost)
        self.model.threshold.fill_(threshold)

    @torch.no_grad()
    def confidences(self, videos: VideoSet, device: torch.device) -> FloatArray:
        """(M, N): P(M_k, x) of Sec. 3.4 or, with target "loss", exp(−loss) as it is expected of each model."""
        _, inputs = self.look(videos)
        return self._said(inputs, device)

    def _said(self, inputs: Tensor, device: torch.device) -> FloatArray:
        return confidences_of(self.config, self.model, inputs.to(device))

    def choose(self, said: FloatArray, value: float) -> IntArray:
        """(M,): a model for each video from what is said of all of them, at a threshold or price."""
        return decide(self.config, said, self.gflops, value)

    def values(self, said: FloatArray, points: int | None) -> FloatArray:
        """Thresholds or prices by rising cost, as `thresholds` and `prices` have them."""
        ordered = said[:, self.order]
        if self.config.by_price:
            return prices(ordered, self.gflops[self.order], points)
        return thresholds(ordered, self.config.when_none, points)

    @property
    def threshold(self) -> float:
        """Or price, that it decides at."""
        return float(self.model.threshold)

    @property
    def look_macs(self) -> int:
        """Of the network, for a video."""
        return self.model.macs

    @property
    def labelled(self) -> Tensor | None:
        """(M, N): affinities of the training videos; None where losses are learned."""
        return self.targets if self.config.target == "affinity" else None

    def at_threshold(self, videos: VideoSet, device: torch.device) -> SelectionCurve:
        """The one point that it decides at."""
        chosen = self.choose(self.confidences(videos, device), self.threshold)
        table, _ = self.look(videos)
        return self.decided(table, np.array([self.threshold]), chosen[None], videos)

    def curve(self, videos: VideoSet, device: torch.device, *, points: int = POINTS) -> SelectionCurve:
        """The selector at thresholds of these very videos, which only spread the points evenly: at each the choice
        for a video depends on nothing but that video.

        Args:
            points: at most so many.
        """
        said = self.confidences(videos, device)
        table, _ = self.look(videos)
        values = self.values(said, points)
        chosen = np.stack([self.choose(said, float(value)) for value in values])
        return self.decided(table, values, chosen, videos)

    def decided(
        self, table: PoolTable, values: FloatArray, chosen: IntArray, videos: VideoSet
    ) -> SelectionCurve:
        """Choices (P, M) of a model, charged with what the selector itself costs."""
        answering = only(chosen)
        ran = answering if self.own_place is None else answering | only(self.own_place)
        overhead = np.full(len(table), self.model.macs, np.int64)
        if self.own_place is None:
            overhead = overhead + self.own.macs(videos)
        return SelectionCurve(self.title, table, values, ran, answering, overhead)

    @torch.no_grad()
    def predict(self, batch: Batch, generator: torch.Generator) -> Prediction:
        assert batch.videos is not None
        table, inputs = self.look(batch.videos)
        mine = np.array(batch.indices)
        said = self._said(inputs[torch.from_numpy(mine)], batch.targets.device)
        chosen = self.choose(said, float(self.model.threshold))
        spent = self.models_macs(only(chosen), table.macs[mine])
        return Prediction(torch.from_numpy(table.probabilities[mine, chosen]), further_macs=spent)
