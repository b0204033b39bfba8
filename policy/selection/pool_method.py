"""What methods that choose among the models of a pool have in common."""

from __future__ import annotations

import csv
import io
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cache_schema import FeatureCache
from policy.config import RunConfig
from policy.data.batches import Role, VideoSet, batched
from policy.data.groups import random_folds
from policy.data.opening import Dataset
from policy.evaluation.operating import OperatingTarget, TargetKind
from policy.evaluation.predictions import Judged
from policy.method import Calibration, IntArray, Method, Moment
from policy.selection.config import (
    PoolConfig,
    SelectionConfig,
    SelectorCascadeConfig,
    SelectorConfig,
    check_given,
    threshold_of,
)
from policy.selection.controls import POINTS
from policy.selection.curve import SelectionCurve
from policy.selection.heads import CalibratedHead, parse_held_out
from policy.selection.linear_head import LinearHead, assign_folds, mean_features
from policy.selection.logistic import FOLDS
from policy.selection.network import SelectorNetwork
from policy.selection.notes import pool_notes
from policy.selection.opening import Member, Pool, cheapest_stream, input_model
from policy.selection.pool import FloatArray, Floats, Masks, PoolTable, contains, parse_models
from policy.selection.report import describe
from policy.selection.sequential_network import SequentialNetwork
from policy.selection.session import NETWORK, PoolSession
from policy.selection.staged import CascadeHeads, SelectorHeads, price_within
from policy.session import TrainedRun
from policy.training.cross_fitting import cross_fitted


class PoolMethod(Method):
    """A method with a pool of models, and one model, of the pool or not, that always runs.

    Attributes:
        input_model: the model that always runs, which the network looks at.
        input_place: its place in the pool; None: it is outside.
        affinities: (M, N) of the training videos; None where something else is learned.
    """

    roles: ClassVar[tuple[Role, ...]] = ("coarse",)
    operating_targets: ClassVar[tuple[TargetKind, ...]] = ("threshold", "budget")
    cross_fits = True
    describes_training = True
    session_class: ClassVar[type[PoolSession]]

    config: SelectionConfig
    model: SelectorNetwork | SelectorHeads | SequentialNetwork | CascadeHeads
    input_model: Member
    input_place: int | None
    affinities: Tensor | None = None

    def __init__(
        self, config: SelectionConfig, data: Dataset, pool: Pool | None = None, first: Member | None = None
    ) -> None:
        """Args: pool, first: the models and the one that always runs, where they are there already."""
        super().__init__(config, data)
        self.data = data
        self.pool_of_models = pool or Pool.of(config, data)
        self._looks: dict[int, tuple[VideoSet, PoolTable, Tensor]] = {}

    @classmethod
    def streams(cls, config: RunConfig, cache: FeatureCache) -> dict[Role, str]:
        assert isinstance(config, PoolConfig)
        return {"coarse": config.coarse or cheapest_stream(config, cache)}

    @classmethod
    def pool(cls, config: RunConfig) -> Sequence[str]:
        assert isinstance(config, PoolConfig)
        return tuple(model.stream for model in parse_models(config.models))

    @classmethod
    def held_out(cls, config: RunConfig) -> Sequence[str]:
        assert isinstance(config, PoolConfig)
        others = parse_held_out(config.out_of_fold, cls.pool(config)).values()
        return tuple(dict.fromkeys(name for names in others for name in names))

    @classmethod
    def session(cls, run: TrainedRun, device: torch.device) -> PoolSession:
        return cls.session_class(run, device)

    @classmethod
    def restored(cls, run: TrainedRun, data: Dataset) -> PoolMethod:
        config = run.config
        assert isinstance(config, (SelectorConfig, SelectorCascadeConfig))
        pool = Pool.of(config, data, run)
        # Whether the training videos kept a budget says nothing of these.
        method = cls(replace(config, budget=None), data, pool, input_model(config, data, pool, run))
        method.config, method.affinities = config, None
        return method

    @classmethod
    def cost_target(cls, config: RunConfig) -> OperatingTarget | None:
        assert isinstance(config, (SelectorConfig, SelectorCascadeConfig))
        return None if config.budget is None else OperatingTarget("budget", config.budget)

    def refitted(self, data: Dataset, device: torch.device) -> PoolMethod:
        config = replace(self.config, budget=None)
        return type(self)(config, data, self.pool_of_models, self.input_model)

    def check_target(self, target: OperatingTarget) -> None:
        super().check_target(target)
        config = self._at(target)
        config.check()
        check_given(config, {target.kind})

    @property
    def value_name(self) -> str:
        return "price of a GFLOP" if self.config.by_price else "threshold on the confidence"

    def set_value(self, value: float, target: OperatingTarget) -> None:
        self.config = self._at(target)
        self.threshold = value

    def _at(self, target: OperatingTarget) -> SelectionConfig:
        """The configuration that asks for a target."""
        is_budget = target.kind == "budget"
        return replace(
            self.config,
            budget=target.value if is_budget else None,
            threshold=None if is_budget else target.value,
        )

    @classmethod
    def keeps_spending(cls, config: RunConfig) -> bool:
        assert isinstance(config, PoolConfig)
        return config.is_logistic

    def value_at(self, target: OperatingTarget, calibration: Calibration, device: torch.device) -> float:
        if not calibration and isinstance(self.model, (SelectorHeads, CascadeHeads)):
            return price_within(self.model.spending, target.value)
        for method, _ in calibration:
            method.model.to(device).eval()
        return self.within(target.value, calibration, device)

    def finish(self, videos: VideoSet, device: torch.device) -> None:
        budget = self.config.budget
        if isinstance(self.model, (SelectorHeads, CascadeHeads)):
            self.fit(videos, device)
        if budget is None:
            self.threshold = threshold_of(self.config, len(self.pool_of_models.names))
        elif isinstance(self.model, (SelectorHeads, CascadeHeads)):
            self.threshold = price_within(self.model.spending, budget)
        else:  # videos that it was trained on would cost something else
            self.threshold = self.within(budget, cross_fitted(self, self.data, device), device)

    @abstractmethod
    def fit(self, videos: VideoSet, device: torch.device) -> None:
        """Fit what decides by regressions to the training videos, and what each price costs on these."""

    def held_out_folds(self, videos: VideoSet) -> IntArray:
        """(M,): of training videos, for the held-out predictions of regressions."""
        if videos.groups:  # whose classes need not be spread evenly, where a fold is so small a part
            return random_folds(len(videos), FOLDS, self.config.seed, videos.groups)
        return assign_folds(videos.trained_labels, min(FOLDS, len(videos)), self.config.seed)

    @abstractmethod
    def within(self, budget: float, calibration: Calibration, device: torch.device) -> float:
        """The threshold or price that spends most of a budget, in mean GFLOPs per video of the calibration videos.

        Raises:
            UserError: none keeps it.
        """

    @abstractmethod
    def costs(self, videos: VideoSet, device: torch.device) -> Callable[[float], IntArray]:
        """From a threshold or price to the MACs (M,) of videos."""

    def expected_cost(self, calibration: Calibration, device: torch.device) -> Callable[[float], float]:
        """From a threshold or price to mean GFLOPs per video, as new videos would cost it.

        The methods that `cross_fitted` has trained on parts have learned from fewer videos, and spend some per
        cent more at the same price. How much more is counted on the videos that each of them was trained on, as
        this one was, too; it is taken off what they spend on the calibration videos.
        """
        parts = [(method, videos) for method, videos in calibration if isinstance(method, PoolMethod)]
        others = [method for method, _ in parts if method is not self]
        held_out = [method.costs(videos, device) for method, videos in parts]
        trained_on = [method.costs(method.data.train, device) for method in others]
        ours = [self.costs(self.data.train, device)] if others else []

        def mean(costs: Sequence[Callable[[float], IntArray]], value: float) -> float:
            return float(np.concatenate([cost(value) for cost in costs]).mean() / 1e9)

        def cost(value: float) -> float:
            more = mean(trained_on, value) - mean(ours, value) if others else 0.0
            return mean(held_out, value) - more

        return cost

    def session_tensors(self) -> Mapping[str, Tensor]:
        """The linear heads, or the calibrations of class scores."""
        tensors: dict[str, Tensor] = {}
        for member in (*self.pool_of_models, self.input_model):
            if isinstance(member.head, LinearHead):
                tensors |= member.head.whole.tensors(member.name.stream)
            elif isinstance(member.head, CalibratedHead):
                tensors |= member.head.calibration.tensors(member.name.stream)
        return tensors

    def notes(self, data: Dataset) -> Sequence[str]:
        tables = (self.look(videos)[0] for videos in (data.train, data.evaluation))
        return list(pool_notes(self.config, data, self.pool_of_models, *tables))

    @torch.no_grad()
    def validation_loss(self, judged: Judged, videos: VideoSet, device: torch.device) -> float:
        """What the perceptron is trained on, of these videos."""
        generator, total = torch.Generator().manual_seed(self.config.seed), 0.0
        for part in batched(range(len(videos)), self.config.batch):
            batch = videos.batch(part, read=False).to(device)
            total += len(part) * float(self.losses(batch, Moment(1.0), generator)["loss"])
        return total / len(videos)

    @property
    def reads(self) -> bool:
        return False  # what its network needs of a video is kept (`look`)

    def rows(self, length: int) -> IntArray:
        return self.input_model.rows(length)

    def look(self, videos: VideoSet) -> tuple[PoolTable, Tensor]:
        """The pool's predictions for videos, and the network's `inputs`. Kept."""
        if id(videos) not in self._looks:  # the set is kept, too: no other can take its id
            table = self.pool_of_models.table(videos)
            self._looks[id(videos)] = videos, table, self.inputs(videos, table)
        return self._looks[id(videos)][1:]

    @cached_property
    def _calibrated_pool(self) -> Pool:
        return self.pool_of_models.calibrated(self.data.train)

    def calibrated(self, videos: VideoSet) -> PoolTable:
        """The pool's predictions with fitted temperatures, whatever the network looks at: for the cascades and
        averages that it is compared with, which take the confidence of all models alike."""
        if self.config.fits_temperature:
            return self.look(videos)[0]
        return self._calibrated_pool.table(videos)

    @abstractmethod
    def inputs(self, videos: VideoSet, table: PoolTable) -> Tensor:
        """(M, D) float32: what the network sees of videos beside the pool's table, which it may see as well."""

    def input_features(self, videos: VideoSet) -> Floats:
        """(M, E): of the input model, means over its rows of a video."""
        stream, rows = self.input_model.stream, self.input_model.rows
        every = range(len(videos))
        return mean_features(stream, videos, every, rows, needed_by="--selector-input features")

    def network_macs(self, row_counts: IntArray, gated_counts: IntArray) -> dict[str, IntArray]:
        classifier = {self.input_model.name.stream: self.input_model.head.macs(row_counts)}
        return classifier | {NETWORK: np.full_like(row_counts, self.model.macs)}

    def models_macs(self, ran: Masks, macs: IntArray) -> dict[str, IntArray]:
        """(m,) by name: of the models of the pool that ran beside the one that always does.

        Args:
            ran: (m,).
            macs: (m, N) of the models.
        """
        return {
            name: np.where(contains(ran, n), macs[:, n], 0)
            for n, name in enumerate(self.pool_of_models.names)
            if n != self.input_place
        }

    def listing(self, videos: VideoSet, device: torch.device) -> str:
        """A line for each video: the model that answers (of several all that do), those that ran, and the cost."""
        point = self.at_threshold(videos, device)
        table = point.table
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["video_id", "answers", "ran", "gflops"])

        def names(mask: int) -> str:
            return "+".join(table.models[n] for n in table.members(mask))

        columns = table.video_ids, point.answering[0].tolist(), point.ran[0].tolist(), point.macs[0].tolist()
        for video_id, answering, ran, macs in zip(*columns, strict=True):
            writer.writerow([video_id, names(answering), names(ran), f"{macs / 1e9:.6g}"])
        return text.getvalue()

    def details(self, data: Dataset, device: torch.device) -> Mapping[str, Any]:
        _, inputs = self.look(data.evaluation)
        return describe(
            self.config,
            input_model={
                "model": self.input_model.name.stream,
                "in_pool": self.input_place is not None,
                "gflops": float(self.input_model.macs(data.evaluation).mean() / 1e9),
                "inputs": inputs.shape[1],
                "network_gflops": self.model.macs / 1e9,
            },
            point=self.at_threshold(data.evaluation, device),
            curve=self.curve(data.evaluation, device),
            calibrated=self.calibrated(data.evaluation),
            training=self.calibrated(data.train),
            affinities=self.affinities,
        )

    @property
    @abstractmethod
    def threshold(self) -> float:
        """The threshold, or price, that it decides at."""

    @threshold.setter
    @abstractmethod
    def threshold(self, value: float) -> None: ...

    def at_threshold(self, videos: VideoSet, device: torch.device) -> SelectionCurve:
        """The one point that it decides at."""
        return self.curve(videos, device, values=np.array([self.threshold]))

    @abstractmethod
    def curve(
        self,
        videos: VideoSet,
        device: torch.device,
        *,
        points: int = POINTS,
        values: FloatArray | None = None,
    ) -> SelectionCurve:
        """The method at several thresholds or prices, by rising cost.

        Args:
            points: at most so many.
            values: (P,), the thresholds or prices. By default they follow from these very videos, which only
                spreads the points: at each, the decision for a video depends on nothing but that video.
        """
