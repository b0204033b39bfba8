"""Selection on raw video: models run one after another, each on the same rows of a video as in training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cache_schema import StreamSpec, UserError
from policy.networks.temperature import Calibration
from policy.selection.config import SelectionConfig, SelectorCascadeConfig, SelectorConfig
from policy.selection.graphs import cascade_graphs, selector_graphs
from policy.selection.heads import score_columns
from policy.selection.linear_head import WholeHead
from policy.selection.network import confidences_of, decide, selector_inputs
from policy.selection.pool import Floats, ModelName, combined, log_scores, parse_models
from policy.selection.raw_model import RawModel
from policy.selection.rule import next_models
from policy.selection.staged import SelectorHeads, cascade_network, selector_network
from policy.session import FloatArray, Graph, Rows, Session, TrainedRun, Wanted, checked_rows
from policy.training.checkpoint import read_weights

NETWORK = "selector network"
"""Its name in the ledger of costs."""
_SUM = 1e-2
"""How far a sum of probabilities may be from 1: they may have been rounded to float16."""
GFLOPS = "gflops"
"""(N,) in `TrainedRun.tensors`: mean cost of each model, by which a cascade decides."""


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
        calibration = Calibration.of(run.tensors, name.stream, multi_label=run.multi_label)
        l2 = config.input_norm == "l2"
        return RawModel(name, spec, columns, calibration, head, sees_features, l2, run.multi_label)

    @property
    def ran(self) -> tuple[str, ...]:
        return tuple(model.name.stream for model in self._begun if model is not self._current)

    def begin(self, spans_s: Mapping[str, FloatArray], *, video_id: str = "") -> None:
        for name, spec in self.streams.items():
            if name in spans_s and len(spans_s[name]) < spec.sampling.crops:
                raise ValueError(
                    f"spans of {name}: {len(spans_s[name])} rows are no clip, which has {spec.sampling.crops}"
                )
        super().begin(spans_s, video_id=video_id)

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

    def _so_far(self) -> Floats:
        """(N, C): class probabilities of the pool's models that have run; of others something that has no say."""
        probabilities = np.full((len(self.models), len(self.classes)), 0.5, np.float32)
        for n, name in enumerate(self.models):
            if name in self.ran:
                probabilities[n] = self._raw[name].probabilities
        return probabilities

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
        count = self._classes_of(first)
        inputs = selector_inputs(
            self._config,
            torch.zeros(1, count),
            torch.zeros(1, first.spec.feature_dim),
            multi_label=run.multi_label,
        )
        network = selector_network(
            self._config, inputs.shape[1], len(self.models), multi_label=run.multi_label
        )
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
        if isinstance(self._network, SelectorHeads) and name == self.chosen:
            scores = log_scores(torch.from_numpy(self._so_far()[None]), self._multi_label)
            weights = self._network.answers[self.models.index(name)].cpu()
            self._answer = combined(scores, weights, self._multi_label).numpy()[0]
        return None if self.chosen == name else self.chosen

    def choose(
        self,
        probabilities: Rows | None = None,
        features: Rows | None = None,
    ) -> list[str]:
        """A model for each of M videos. If it is `looks_at`, its answer is there already.

        Args:
            probabilities: (M, C), the mean over a video's clips or frames. Of a model outside the pool all its
                classes, in its own order.
            features: (M, D), the mean, too; with `--input-norm l2` over rows of length 1.

        Raises:
            ValueError: what it was trained on is missing, not of this shape, or not finite; or probabilities are
                below 0, above 1 or, with one class per video, do not add up to 1.
        """
        config = self._config
        parts = (
            (config.sees_scores, "probabilities", probabilities),
            (config.sees_features, "features", features),
        )
        for needed, name, values in parts:
            if needed and values is None:
                raise ValueError(f"this selector looks at {name} of {self.looks_at}: give them")
        tensors = [
            self._checked(values, name) if needed and values is not None else None
            for needed, name, values in parts
        ]
        inputs = selector_inputs(config, *tensors, multi_label=self._multi_label)
        confidences = confidences_of(config, self._network, inputs.to(self._device))
        gflops = self._network.gflops.cpu().numpy()
        chosen = decide(config, confidences, gflops, float(self._network.threshold))
        return [self.models[n] for n in chosen]

    def _checked(self, values: Rows, name: str) -> Tensor:
        """(M, C) probabilities or (M, D) features of the model that looks, as a tensor."""
        first, probabilities = self._raw[self.looks_at], name == "probabilities"
        width = self._classes_of(first) if probabilities else first.spec.feature_dim
        what = f"{name} of {self.looks_at}"
        tensor = checked_rows(values, (len(values) if values.ndim else 0, width), what).float().cpu()
        if not probabilities:
            return tensor
        if ((tensor < 0) | (tensor > 1)).any():
            raise ValueError(
                f"{what} are between 0 and 1, and these are not: are they class scores (logits)?"
            )
        sums = tensor.sum(1)
        if not self._multi_label and not torch.allclose(sums, torch.ones_like(sums), atol=_SUM):
            raise ValueError(
                f"{what} add up to 1 in each row, not to {float(sums[(sums - 1).abs().argmax()]):.3g}"
            )
        return tensor

    def _classes_of(self, model: RawModel) -> int:
        return len(self.classes) if model.columns is None else len(model.columns)

    def graphs(self) -> Sequence[Graph]:
        models = [self._raw[name] for name in self.models]
        first = self._raw[self.looks_at]
        return selector_graphs(self._config, self._network, first, models, multi_label=self._multi_label)

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
        first = self.models.index(self.looks_at)
        network = cascade_network(
            self._config,
            len(self.classes),
            len(self.models),
            features,
            first,
            multi_label=run.multi_label,
        )
        read_weights(run.weights, network)
        self._network = network.eval().to(device)

    @torch.no_grad()
    def _decide(self, last: RawModel) -> str | None:
        first_features = np.empty(0, np.float32)
        if self._config.sees_features:
            first_features = self._raw[self.looks_at].features
        probabilities, features = (
            torch.from_numpy(array)[None].to(self._device) for array in (self._so_far(), first_features)
        )
        mask, price = sum(1 << self.models.index(name) for name in self.ran), float(self._network.price)
        answer, sure, chances = self._network.look(probabilities, features, mask)
        self._answer = answer[0].cpu().numpy()
        following = next_models(mask, sure.cpu().numpy(), chances.cpu().numpy(), self._gflops, price)[0]
        return None if following < 0 else self.models[following]

    def graphs(self) -> Sequence[Graph]:
        return cascade_graphs(
            self._config.answers_by,
            self._network,
            [self._raw[name] for name in self.models],
            self._gflops.tolist(),
            looks_at=self.looks_at,
            sees_features=self._config.sees_features,
            multi_label=self._multi_label,
        )

    @property
    def _network_macs(self) -> int:
        return self._network.macs * len(self.ran)


def _of_an_earlier_version(run: TrainedRun) -> UserError:
    return UserError(
        f"{run.weights.parent}: a run of an earlier version, which did not keep what raw video needs: train it "
        "again in another folder"
    )
