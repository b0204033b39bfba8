"""Selection on raw video: models run one after another, each on the rows that it was judged by in training."""

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
from policy.selection.network import SelectorNetwork, assembled, confidences_of, decide
from policy.selection.pool import ModelName, parse_models
from policy.selection.rule import next_models
from policy.selection.sequential_network import Evidence, SequentialNetwork, answered, expected
from policy.session import FloatArray, Session, TrainedRun, Wanted
from policy.training.checkpoint import read_weights

IntArray = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

NETWORK = "selector network"
"""Its name in a ledger."""
GFLOPS = "gflops"
"""(N,) in `TrainedRun.tensors`: what the models cost on average, by which a cascade decides."""


@dataclass(frozen=True)
class RawModel:
    """A model as it judges videos that are in no cache.

    Attributes:
        columns: where its class scores have the classes; None: they are not looked at.
        head: what makes class probabilities of its features instead, if anything does.
        sees_features: whether the mean of the features is looked at.
        l2: of rows brought to length 1.
    """

    name: ModelName
    spec: StreamSpec
    columns: IntArray | None
    head: WholeHead | None
    sees_features: bool
    l2: bool
    multi_label: bool

    def macs(self, rows: int) -> int:
        """Of its backbone, and of its head or classifier, on so many rows of a video."""
        spec = self.spec
        classifier = linear_macs(spec.feature_dim, spec.num_classes) * rows
        if self.head is not None:
            classifier = self.head.macs * bool(rows)
        return rows * stream_cost(spec).macs + classifier


class Judgement:
    """What a model says of one video, from the rows that were taken so far.

    Attributes:
        rows: those of the video that it looks at.
        count: how many of them were taken.
    """

    def __init__(self, model: RawModel, length: int) -> None:
        self.model = model
        self.rows = model.name.rows_of(length, model.spec.sampling.crops)
        self.count = 0
        self._features = np.zeros(model.spec.feature_dim)  # sums over the rows
        self._probabilities = np.zeros(0 if model.columns is None else len(model.columns))

    @property
    def left(self) -> IntArray:
        """Those of `rows` that are still to be taken."""
        return self.rows[self.count :]

    def add(self, features: Tensor | None, scores: Tensor | None) -> None:
        """The next rows. What the model looks at must be there."""
        model = self.model
        if model.sees_features:
            assert features is not None
            rows = features.float().cpu().numpy()
            self._features += (unit_length(rows) if model.l2 else rows).sum(axis=0, dtype=np.float64)
            taken = len(rows)
        if model.columns is not None:
            assert scores is not None
            each = row_probabilities(scores.float().cpu().numpy(), model.columns, model.multi_label)
            self._probabilities += each.sum(axis=0, dtype=np.float64)
            taken = len(each)
        self.count += taken

    @property
    def features(self) -> Floats | None:
        """(D,): mean over the rows."""
        return np.asarray(self._features / self.count, np.float32) if self.model.sees_features else None

    @property
    def probabilities(self) -> Floats | None:
        """(C,): mean over the rows; of a linear head, what it says of their mean."""
        if self.model.head is not None:
            assert self.features is not None
            (said,) = self.model.head(self.features[None])
            return np.asarray(said)
        if self.model.columns is None:
            return None
        return np.asarray(self._probabilities / self.count, np.float32)


class PoolSession(Session):
    """Models of a pool on a video, one after another.

    Its answer changes when a model has seen all its rows. Until the first one has, it is what that one says of
    those it has seen; and as long as no model of the pool has seen any, the same for all classes.

    Attributes:
        looks_at: the stream of the model that runs first, on every video.
        models: names of the pool's streams, the cheapest first.
        ran: names of the models that have seen all their rows of this video, in order.
    """

    def __init__(self, run: TrainedRun, device: torch.device) -> None:
        config = run.config
        assert isinstance(config, (SelectorConfig, SelectorCascadeConfig)), (
            "the methods of this family have no other"
        )
        first = run.streams["coarse"]
        # The cache may call it otherwise than its specification does.
        self.looks_at = next((name for name, spec in run.pool.items() if spec == first), first.name)
        self.models = tuple(run.pool)
        super().__init__({self.looks_at: first, **run.pool}, run.classes)
        self._config: SelectionConfig = config
        self._multi_label, self._device = run.multi_label, device
        names = {name.stream: name for name in parse_models(config.models, config.rows)}
        names.setdefault(self.looks_at, ModelName(self.looks_at, config.rows))
        self._raw = {name: self._raw_model(run, names[name], spec) for name, spec in self.streams.items()}
        self._current: Judgement | None = None
        self._judgements: dict[str, Judgement] = {}
        self._answer: Floats | None = None

    def _raw_model(self, run: TrainedRun, name: ModelName, spec: StreamSpec) -> RawModel:
        config, columns, head = self._config, None, None
        is_first, in_pool = name.stream == self.looks_at, name.stream in run.pool
        shows_confidence = isinstance(config, SelectorConfig) and config.confidence_input
        shows_scores = config.selector_input != "features" or shows_confidence
        if in_pool or shows_scores:
            if config.heads == "linear":
                try:
                    head = WholeHead.of(run.tensors, name.stream, multi_label=run.multi_label)
                except KeyError as error:
                    raise _of_an_earlier_version(run) from error
            elif in_pool:
                columns = score_columns(spec, run.classes, config.score_classes)
            else:
                columns = np.arange(spec.num_classes)
        sees_features = head is not None or (is_first and config.selector_input != "scores")
        l2 = config.input_norm == "l2"
        return RawModel(name, spec, columns, head, sees_features, l2, run.multi_label)

    @property
    def ran(self) -> tuple[str, ...]:
        return tuple(name for name, judged in self._judgements.items() if judged is not self._current)

    def begin(self, spans_s: Mapping[str, FloatArray]) -> None:
        for name, spec in self.streams.items():
            if name in spans_s and len(spans_s[name]) < spec.sampling.crops:
                raise ValueError(
                    f"spans of {name}: {len(spans_s[name])} rows are no clip, which has {spec.sampling.crops}"
                )
        super().begin(spans_s)

    def _restart(self) -> None:
        self._judgements, self._answer = {}, None
        self._run(self.looks_at)

    def _run(self, name: str) -> None:
        self._current = self._judgements[name] = Judgement(self._raw[name], len(self._spans_s[name]))

    def wanted(self) -> Wanted | None:
        if self._current is None:
            return None
        name, rows = self._current.model.name.stream, self._current.left
        return Wanted(name, rows, self._spans_s[name][rows])

    def _see(self, stream: str, features: Tensor | None, scores: Tensor | None) -> None:
        current = self._current
        assert current is not None
        if current.model.sees_features:
            self._need(stream, "features", features)
        if current.model.columns is not None:
            self._need(stream, "class scores", scores)
        current.add(features, scores)
        if not len(current.left):
            self._current = None
            following = self._decide(current)
            if following is not None:
                self._run(following)

    @abstractmethod
    def _decide(self, last: Judgement) -> str | None:
        """Which model is next, if any, after the last one has seen all its rows. Sets the answer."""

    @property
    def probabilities(self) -> Tensor:
        answer, current = self._answer, self._current
        if (
            answer is None
            and current is not None
            and current.count
            and current.model.name.stream in self.models
        ):
            answer = current.probabilities
        if answer is None:
            count = len(self.classes)
            answer = np.full(count, 0.5 if self._multi_label else 1 / count, np.float32)
        return torch.from_numpy(answer)

    @property
    def macs_by_name(self) -> Mapping[str, int]:
        streams = {name: judged.model.macs(judged.count) for name, judged in self._judgements.items()}
        return {**streams, NETWORK: self._network_macs}

    @property
    @abstractmethod
    def _network_macs(self) -> int:
        """Of the policy's own network, on this video so far."""


class SelectorSession(PoolSession):
    """One model looks at a video, and names the one that judges it::

        for name in session.choose(probabilities):
            ...

    As a session it does so video by video: it wants the rows of the model that looks, then those of the model that
    is chosen, if that is another. It chooses as the run does for videos of its cache.

    Attributes:
        chosen: the model whose answer is taken; None before it is known.
    """

    _config: SelectorConfig

    def __init__(self, run: TrainedRun, device: torch.device) -> None:
        super().__init__(run, device)
        first = self._raw[self.looks_at]
        count = len(self.classes) if first.columns is None else len(first.columns)
        shown = assembled(
            self._config,
            np.zeros((1, count), np.float32),
            np.zeros((1, first.spec.feature_dim), np.float32),
            multi_label=run.multi_label,
        )
        network = SelectorNetwork(shown.shape[1], self._config.selector_hidden, len(self.models))
        read_weights(run.weights, network)
        self._network = network.eval().to(device)

    def _restart(self) -> None:
        self.chosen: str | None = None
        super()._restart()

    def _decide(self, last: Judgement) -> str | None:
        name = last.model.name.stream
        if self.chosen is None:
            shown = (None if said is None else said[None] for said in (last.probabilities, last.features))
            (self.chosen,) = self.choose(*shown)
        if name in self.models:
            self._answer = last.probabilities
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
        wanted = {
            "probabilities": self._config.selector_input != "features" or self._config.confidence_input,
            "features": self._config.selector_input != "scores",
        }
        given = {"probabilities": probabilities, "features": features}
        for name, needed in wanted.items():
            if needed and given[name] is None:
                raise ValueError(f"this selector looks at {name} of {self.looks_at}: give them")
        seen = assembled(
            self._config,
            None if probabilities is None else np.asarray(probabilities, np.float32),
            None if features is None else np.asarray(features, np.float32),
            multi_label=self._multi_label,
        )
        confidences = confidences_of(self._config, self._network, torch.from_numpy(seen).to(self._device))
        gflops = self._network.gflops.cpu().numpy()
        chosen = decide(self._config, confidences, gflops, float(self._network.threshold))
        return [self.models[n] for n in chosen]

    @property
    def _network_macs(self) -> int:
        return self._network.macs if self.chosen is not None else 0


class CascadeSession(PoolSession):
    """After each model a network looks at all that was said, answers, and says which is worth running next."""

    _config: SelectorCascadeConfig

    def __init__(self, run: TrainedRun, device: torch.device) -> None:
        super().__init__(run, device)
        if GFLOPS not in run.tensors:
            raise _of_an_earlier_version(run)
        self._gflops = run.tensors[GFLOPS].numpy()
        self._sees_features = self._config.selector_input != "scores"
        more = self.streams[self.looks_at].feature_dim if self._sees_features else 0
        network = SequentialNetwork(len(self.classes), len(self.models), more, self._config.selector_hidden)
        read_weights(run.weights, network)
        self._network = network.eval().to(device)

    @torch.no_grad()
    def _decide(self, last: Judgement) -> str | None:
        # Of a model that has not run the network sees nothing, whatever stands in its place.
        said = np.full((len(self.models), len(self.classes)), 0.5, np.float32)
        ran = sorted(self.models.index(name) for name in self.ran)
        for n in ran:
            said[n] = self._judgements[self.models[n]].probabilities
        more = self._judgements[self.looks_at].features if self._sees_features else np.empty(0, np.float32)
        evidence = Evidence.of(*self._batch_of_one(said, more), multi_label=self._multi_label)
        (on,) = self._batch_of_one(np.isin(np.arange(len(self.models)), ran))
        answer, chances = self._network(evidence, on)
        kind = self._config.answer
        best = answered(kind, evidence, answer, on)
        sure, chances = expected(answer, chances, best, multi_label=self._multi_label)
        if kind == "learned":
            self._answer = class_probabilities(answer, self._multi_label)[0].cpu().numpy()
        else:
            self._answer = said[ran[-1]] if kind == "largest" else said[ran].mean(axis=0)
        mask, price = sum(1 << n for n in ran), float(self._network.price)
        following = next_models(mask, sure.cpu().numpy(), chances.cpu().numpy(), self._gflops, price)[0]
        return None if following < 0 else self.models[following]

    def _batch_of_one(self, *arrays: npt.NDArray[Any] | None) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(array)[None].to(self._device) for array in arrays)

    @property
    def _network_macs(self) -> int:
        return self._network.macs * len(self.ran)


def _of_an_earlier_version(run: TrainedRun) -> UserError:
    return UserError(
        f"{run.weights.parent}: a run of an earlier version, which did not keep what raw video needs: train it "
        "again in another folder"
    )


__all__ = ["CascadeSession", "PoolSession", "SelectorSession"]
