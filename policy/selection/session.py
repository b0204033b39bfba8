"""Selection on raw video: models run one after another, each on the same rows of a video as in training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache_schema import StreamSpec, UserError
from cache_schema.costs import stream_cost
from policy.data.batches import unit_length
from policy.method import class_probabilities
from policy.networks.macs import linear_macs
from policy.selection.config import SelectionConfig, SelectorCascadeConfig, SelectorConfig
from policy.selection.heads import row_probabilities, score_columns
from policy.selection.linear_head import WholeHead
from policy.selection.network import SelectorNetwork, confidences_of, decide, selector_inputs
from policy.selection.pool import Floats, IntArray, ModelName, parse_models
from policy.selection.rule import next_models
from policy.selection.sequential_network import Evidence, SequentialNetwork, answered, expected
from policy.session import FloatArray, Session, TrainedRun, Wanted
from policy.training.checkpoint import read_weights

NETWORK = "selector network"
"""Its name in the ledger of costs."""
GFLOPS = "gflops"
"""(N,) in `TrainedRun.tensors`: mean cost of each model, by which a cascade decides."""


@dataclass(eq=False)
class RawModel:
    """A model on videos that are in no cache, and its prediction for the current one from the rows taken so far.

    Attributes:
        columns: of its class scores, that of each class; None: they are not looked at.
        head: gives class probabilities from its features instead, if anything does.
        sees_features: whether the mean of the features is looked at.
        l2: of rows brought to length 1.
        rows: those of the video that it looks at.
        count: how many of them were taken.
    """

    name: ModelName
    spec: StreamSpec
    columns: IntArray | None
    head: WholeHead | None
    sees_features: bool
    l2: bool
    multi_label: bool

    def begin(self, length: int) -> None:
        """Forget the video before; the next has `length` rows."""
        self.rows, self.count = self.name.rows_of(length, self.spec.sampling.crops), 0
        self._features = np.zeros(self.spec.feature_dim)  # sums over the rows
        self._probabilities = np.zeros(0 if self.columns is None else len(self.columns))

    @property
    def left(self) -> IntArray:
        """Those of `rows` that are still to be taken."""
        return self.rows[self.count :]

    def add(self, features: Tensor | None, scores: Tensor | None) -> None:
        """The next rows. What the model does not look at may be None."""
        if self.sees_features and features is not None:
            rows = features.float().cpu().numpy()
            self._features += (unit_length(rows) if self.l2 else rows).sum(axis=0, dtype=np.float64)
        if self.columns is not None and scores is not None:
            each = row_probabilities(scores.float().cpu().numpy(), self.columns, self.multi_label)
            self._probabilities += each.sum(axis=0, dtype=np.float64)
        self.count += max(len(part) for part in (features, scores) if part is not None)

    @property
    def features(self) -> Floats:
        """(D,): mean over the rows."""
        return np.asarray(self._features / self.count, np.float32)

    @property
    def probabilities(self) -> Floats | None:
        """(C,): mean over the rows; with a linear head, its prediction from the mean features. None: neither
        class scores nor a head are looked at."""
        if self.head is not None:
            return np.asarray(self.head(self.features[None])[0])
        return None if self.columns is None else np.asarray(self._probabilities / self.count, np.float32)

    @property
    def macs(self) -> int:
        """Of its backbone, and of its head or classifier, on the rows so far."""
        classifier = linear_macs(self.spec.feature_dim, self.spec.num_classes) * self.count
        if self.head is not None:
            classifier = self.head.macs * bool(self.count)
        return self.count * stream_cost(self.spec).macs + classifier


class PoolSession(Session):
    """Models of a pool on a video, one after another.

    Its answer changes when a model has looked at all its rows. Until the first one has, the answer is that model's
    prediction from its rows so far; before any row of a model of the pool, all classes are equally likely.

    Attributes:
        looks_at: the stream of the model that runs first, on every video.
        models: names of the pool's streams, the cheapest first.
        ran: names of the models that have looked at all their rows of this video, in order.
    """

    def __init__(self, run: TrainedRun, device: torch.device) -> None:
        config = run.config
        assert isinstance(config, (SelectorConfig, SelectorCascadeConfig)), (
            "the methods of this family have no other"
        )
        first = run.streams["coarse"]
        # Its name in the cache may differ from that in its specification.
        self.looks_at = next((name for name, spec in run.pool.items() if spec == first), first.name)
        self.models = tuple(run.pool)
        super().__init__({self.looks_at: first, **run.pool}, run.classes)
        self._config: SelectionConfig = config
        self._multi_label, self._device = run.multi_label, device
        names = {name.stream: name for name in parse_models(config.models, config.rows)}
        names.setdefault(self.looks_at, ModelName(self.looks_at, config.rows))
        self._raw = {name: self._raw_model(run, names[name], spec) for name, spec in self.streams.items()}
        self._begun: list[RawModel] = []
        self._current: RawModel | None = None
        self._answer: Floats | None = None

    def _raw_model(self, run: TrainedRun, name: ModelName, spec: StreamSpec) -> RawModel:
        config, columns, head = self._config, None, None
        in_pool = name.stream in run.pool
        if in_pool or config.sees_scores:
            if config.heads == "linear":
                try:
                    head = WholeHead.of(run.tensors, name.stream, multi_label=run.multi_label)
                except KeyError as error:
                    raise _of_an_earlier_version(run) from error
            elif in_pool:
                columns = score_columns(spec, run.classes, config.score_classes)
            else:
                columns = np.arange(spec.num_classes)
        sees_features = head is not None or (name.stream == self.looks_at and config.sees_features)
        return RawModel(name, spec, columns, head, sees_features, config.input_norm == "l2", run.multi_label)

    @property
    def ran(self) -> tuple[str, ...]:
        return tuple(model.name.stream for model in self._begun if model is not self._current)

    def begin(self, spans_s: Mapping[str, FloatArray]) -> None:
        for name, spec in self.streams.items():
            if name in spans_s and len(spans_s[name]) < spec.sampling.crops:
                raise ValueError(
                    f"spans of {name}: {len(spans_s[name])} rows are no clip, which has {spec.sampling.crops}"
                )
        super().begin(spans_s)

    def _restart(self) -> None:
        self._begun, self._answer = [], None
        self._run(self.looks_at)

    def _run(self, name: str) -> None:
        self._current = self._raw[name]
        self._current.begin(len(self._spans_s[name]))
        self._begun.append(self._current)

    def wanted(self) -> Wanted | None:
        if self._current is None:
            return None
        name, rows = self._current.name.stream, self._current.left
        return Wanted(name, rows, self._spans_s[name][rows])

    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        model = self._raw[stream]
        if model.sees_features:
            self._need(stream, "features", features)
        if model.columns is not None:
            self._need(stream, "class scores", scores)
        model.add(features, scores)
        if not len(model.left):
            self._current = None
            following = self._decide(model)
            if following is not None:
                self._run(following)

    @abstractmethod
    def _decide(self, last: RawModel) -> str | None:
        """The model that runs next, if any, after the last one has looked at all its rows. Sets the answer."""

    @property
    def probabilities(self) -> Tensor:
        answer, first = self._answer, self._current
        if answer is None and first and first.count and first.name.stream in self.models:
            answer = first.probabilities
        if answer is None:
            count = len(self.classes)
            answer = np.full(count, 0.5 if self._multi_label else 1 / count, np.float32)
        return torch.from_numpy(answer)

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        return {**{model.name.stream: model.macs for model in self._begun}, NETWORK: self._network_macs}

    @property
    @abstractmethod
    def _network_macs(self) -> int:
        """Of the policy's own network, on this video so far."""


class SelectorSession(PoolSession):
    """One model looks at a video, and names the one that judges it::

        for name in session.choose(probabilities):
            ...

    As a session it goes video by video: it wants the rows of the model that looks, then those of the model that is
    chosen, if that is another. It chooses as the run does for videos of its cache.

    Attributes:
        chosen: the model whose answer is taken; None before it is known.
    """

    _config: SelectorConfig

    def __init__(self, run: TrainedRun, device: torch.device) -> None:
        super().__init__(run, device)
        first = self._raw[self.looks_at]
        count = len(self.classes) if first.columns is None else len(first.columns)
        inputs = selector_inputs(
            self._config,
            np.zeros((1, count), np.float32),
            np.zeros((1, first.spec.feature_dim), np.float32),
            multi_label=run.multi_label,
        )
        network = SelectorNetwork(inputs.shape[1], self._config.selector_hidden, len(self.models))
        read_weights(run.weights, network)
        self._network = network.eval().to(device)

    def _restart(self) -> None:
        self.chosen: str | None = None
        super()._restart()

    def _decide(self, last: RawModel) -> str | None:
        name, probabilities = last.name.stream, last.probabilities
        if self.chosen is None:
            batch = None if probabilities is None else probabilities[None]
            (self.chosen,) = self.choose(batch, last.features[None])
        if name in self.models:
            self._answer = probabilities
        return None if self.chosen == name else self.chosen

    def choose(
        self,
        probabilities: npt.NDArray[np.floating[Any]] | None = None,
        features: npt.NDArray[np.floating[Any]] | None = None,
    ) -> list[str]:
        """A model for each of M videos. If it is `looks_at`, its answer is there already.

        Args:
            probabilities: (M, C), the mean over a video's clips or frames. Of a model outside the pool all its
                classes, in its own order.
            features: (M, D), the mean, too; with `--input-norm l2` over rows of length 1.

        Raises:
            ValueError: what it was trained on is missing, or not of this shape.
        """
        config = self._config
        parts = (
            (config.sees_scores, "probabilities", probabilities),
            (config.sees_features, "features", features),
        )
        for needed, name, values in parts:
            if needed and values is None:
                raise ValueError(f"this selector looks at {name} of {self.looks_at}: give them")
        arrays = (None if values is None else np.asarray(values, np.float32) for _, _, values in parts)
        inputs = selector_inputs(config, *arrays, multi_label=self._multi_label)
        confidences = confidences_of(config, self._network, torch.from_numpy(inputs).to(self._device))
        gflops = self._network.gflops.cpu().numpy()
        chosen = decide(config, confidences, gflops, float(self._network.threshold))
        return [self.models[n] for n in chosen]

    @property
    def _network_macs(self) -> int:
        return self._network.macs if self.chosen is not None else 0


class CascadeSession(PoolSession):
    """After each model a network looks at all predictions so far, answers, and names the next model, if any."""

    _config: SelectorCascadeConfig

    def __init__(self, run: TrainedRun, device: torch.device) -> None:
        super().__init__(run, device)
        if GFLOPS not in run.tensors:
            raise _of_an_earlier_version(run)
        self._gflops = run.tensors[GFLOPS].numpy()
        features = self.streams[self.looks_at].feature_dim if self._config.sees_features else 0
        network = SequentialNetwork(
            len(self.classes), len(self.models), features, self._config.selector_hidden
        )
        read_weights(run.weights, network)
        self._network = network.eval().to(device)

    @torch.no_grad()
    def _decide(self, last: RawModel) -> str | None:
        # The network hides models that have not run, whatever stands in their place.
        probabilities = np.full((len(self.models), len(self.classes)), 0.5, np.float32)
        ran = sorted(self.models.index(name) for name in self.ran)
        for n in ran:
            probabilities[n] = self._raw[self.models[n]].probabilities
        features = np.empty(0, np.float32)
        if self._config.sees_features:
            features = self._raw[self.looks_at].features
        *inputs, on = (
            torch.from_numpy(array)[None].to(self._device)
            for array in (probabilities, features, np.isin(np.arange(len(self.models)), ran))
        )
        evidence = Evidence.of(*inputs, multi_label=self._multi_label)
        answer, chances = self._network(evidence, on)
        kind = self._config.answer
        best = answered(kind, evidence, answer, on)
        sure, chances = expected(answer, chances, best, multi_label=self._multi_label)
        if kind == "learned":
            self._answer = class_probabilities(answer, self._multi_label)[0].cpu().numpy()
        else:
            self._answer = probabilities[ran[-1]] if kind == "largest" else probabilities[ran].mean(axis=0)
        mask, price = sum(1 << n for n in ran), float(self._network.price)
        following = next_models(mask, sure.cpu().numpy(), chances.cpu().numpy(), self._gflops, price)[0]
        return None if following < 0 else self.models[following]

    @property
    def _network_macs(self) -> int:
        return self._network.macs * len(self.ran)


def _of_an_earlier_version(run: TrainedRun) -> UserError:
    return UserError(
        f"{run.weights.parent}: a run of an earlier version, which did not keep what raw video needs: train it "
        "again in another folder"
    )
