"""A selector, and the answers of its models, as networks for other runtimes: they take rows of backbones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from policy.method import class_probabilities
from policy.networks.standardize import unit_rows
from policy.networks.temperature import Calibration
from policy.selection.config import SelectorAnswer, SelectorConfig
from policy.selection.network import SelectorNetwork, as_confidences, selector_inputs
from policy.selection.pool import combined
from policy.selection.raw_model import RawModel
from policy.selection.sequential_network import Evidence, SequentialNetwork, answered, expected
from policy.selection.staged import CascadeHeads, SelectorHeads
from policy.session import Graph


def cascade_graphs(
    answer: SelectorAnswer,
    network: SequentialNetwork | CascadeHeads,
    models: Sequence[RawModel],
    gflops: Sequence[float],
    *,
    looks_at: str,
    sees_features: bool,
    multi_label: bool,
) -> Sequence[Graph]:
    """The graphs "cascade", after each model, and "answer-NAME" for each model.

    Args:
        answer: `SelectorCascadeConfig.answers_by`.
        models: of the pool, the cheapest first, and `gflops` what each costs.
        looks_at: the one that runs first; `sees_features`: whether the network sees the mean of its features.
    """
    count = len(models)
    rule = {
        "models": [model.name.stream for model in models],
        "gflops": list(gflops),
        "price": float(network.price),
        "looks_at": looks_at,
        "next": "the model of largest chances - price * gflops that has not run, if that is above sure",
    }
    first = next(model for model in models if model.name.stream == looks_at)
    inputs = {"probabilities": torch.full((count, network.classes), 0.5), "ran": torch.eye(count)[0]}
    if sees_features:
        inputs["mean_features"] = torch.zeros(first.spec.feature_dim)
    cascade: nn.Module = (
        _StagedCascade(network)
        if isinstance(network, CascadeHeads)
        else _Cascade(answer, network, multi_label)
    )
    return (
        Graph("cascade", cascade, inputs, ("answer", "sure", "chances"), rule),
        *(
            _answer_graph(model, multi_label, gives_features=sees_features and model is first)
            for model in models
        ),
    )


def selector_graphs(
    config: SelectorConfig,
    network: SelectorNetwork | SelectorHeads,
    first: RawModel,
    models: Sequence[RawModel],
    *,
    multi_label: bool,
) -> Sequence[Graph]:
    """The graphs "selector" and, for each model of the pool, "answer-NAME".

    Args:
        first: the model that looks at each video.
        models: of the pool, the cheapest first.
    """
    rule: dict[str, object] = {
        "rule": "price" if config.by_price else "threshold",
        "price" if config.by_price else "threshold": float(network.threshold),
        "when_none": config.when_none,
        "looks_at": first.name.stream,
        "models": [model.name.stream for model in models],
        "gflops": network.gflops.tolist(),
    }
    selector = _Selector(config, network, first, multi_label)
    if isinstance(network, SelectorHeads):
        # Where each model is chosen: of the logarithms (log-odds) of all models; then a shift of log-odds.
        rule["answer_weights"] = network.answers.tolist()
    return (
        Graph("selector", selector, _inputs(first), ("confidences",), {**_facts(first), **rule}, rows=True),
        *(_answer_graph(model, multi_label) for model in models),
    )


def _answer_graph(model: RawModel, multi_label: bool, *, gives_features: bool = False) -> Graph:
    """Args: gives_features: the mean of the features, too."""
    return Graph(
        f"answer-{model.name.stream}",
        _Answer(model, multi_label, gives_features=gives_features),
        _inputs(model, answers=not gives_features),
        ("probabilities", "mean_features") if gives_features else ("probabilities",),
        _facts(model),
        rows=True,
    )


def _inputs(model: RawModel, *, answers: bool = False) -> dict[str, Tensor]:
    """Examples of what a model looks at; of its features only for an answer from them."""
    sees_features = model.head is not None if answers else model.sees_features
    features = {"features": torch.zeros(3, model.spec.feature_dim)} if sees_features else {}
    scores = {} if model.columns is None else {"scores": torch.zeros(3, model.spec.num_classes)}
    return {**features, **scores}


def _facts(model: RawModel) -> dict[str, object]:
    return {
        "stream": model.name.stream,
        "rows": "all" if model.name.rows is None else model.name.rows,
        "crops": model.spec.sampling.crops,
        "input_scaling": "inside: rows as the backbone gives them, features and class scores (logits)",
    }


class _Answer(nn.Module):
    """The rows of a video that a model looks at, to its probabilities (C,); as `RawModel` has them."""

    def __init__(self, model: RawModel, multi_label: bool, *, gives_features: bool = False) -> None:
        super().__init__()
        self.raw, self.multi_label, self.gives_features = model, multi_label, gives_features
        if model.columns is not None:
            self.register_buffer("columns", torch.from_numpy(model.columns))
        if model.head is not None:
            self.scale = model.head.scale
            self.register_buffer("weights", torch.from_numpy(model.head.linear.weights))
            self.register_buffer("bias", torch.from_numpy(model.head.linear.bias))

    def forward(self, features: Tensor | None = None, scores: Tensor | None = None) -> tuple[Tensor, ...]:
        mean = None if features is None else self.mean(features)
        probabilities = self.probabilities(mean, scores)[0]
        return (probabilities,) if mean is None or not self.gives_features else (probabilities, mean[0])

    def mean(self, features: Tensor) -> Tensor:
        """(1, D): of the rows, brought to length 1 if the model was trained so."""
        rows = unit_rows(features).float() if self.raw.l2 else features
        return rows.mean(0, keepdim=True)

    def probabilities(self, mean: Tensor | None, scores: Tensor | None) -> Tensor:
        """(1, C)."""
        if self.raw.head is not None:
            assert mean is not None
            fitted = self.scale(mean) @ self.get_buffer("weights") + self.get_buffer("bias")
            return self.calibrated(self.raw.head.calibration, fitted)
        assert scores is not None
        logits = scores[:, self.get_buffer("columns")]
        if self.multi_label:
            has, lacks = logsigmoid(logits).logsumexp(0), logsigmoid(-logits).logsumexp(0)
            return self.calibrated(self.raw.calibration, (has - lacks)[None])
        return self.calibrated(self.raw.calibration, logits.log_softmax(1).logsumexp(0, keepdim=True))

    def calibrated(self, calibration: Calibration, scores: Tensor) -> Tensor:
        """(1, C)."""
        return class_probabilities(calibration.slope * scores + calibration.shift, self.multi_label)


class _Selector(_Answer):
    """The same rows to the confidences (N,) in each model."""

    def __init__(
        self,
        config: SelectorConfig,
        network: SelectorNetwork | SelectorHeads,
        first: RawModel,
        multi_label: bool,
    ) -> None:
        super().__init__(first, multi_label)
        self.config, self.network = config, network

    def forward(self, features: Tensor | None = None, scores: Tensor | None = None) -> tuple[Tensor, ...]:
        mean = None if features is None else self.mean(features)
        sees = self.config.sees_scores
        probabilities = self.probabilities(mean, scores) if sees else None
        inputs = selector_inputs(self.config, probabilities, mean, multi_label=self.multi_label)
        return (as_confidences(self.config, self.network(inputs)).float()[0],)


class _Cascade(nn.Module):
    """What `CascadeSession` decides by, after the models that ran."""

    def __init__(self, answer: SelectorAnswer, network: SequentialNetwork, multi_label: bool) -> None:
        super().__init__()
        self.answer, self.network, self.multi_label = answer, network, multi_label

    def forward(
        self, probabilities: Tensor, ran: Tensor, mean_features: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The answer (C,), the chance () that it is right, and that it would be after each further model (N,).

        Args:
            probabilities: (N, C), whatever they are where models have not run.
            ran: (N,) of 0 and 1, which have.
            mean_features: (D,) of the first.
        """
        on = ran[None] > 0.5
        known = torch.where(on[0][:, None], probabilities, 0.5)[None]
        features = probabilities.new_zeros(1, 0) if mean_features is None else mean_features[None]
        evidence = Evidence.of(known, features, multi_label=self.multi_label)
        logits, further = self.network(evidence, on)
        best = answered(self.answer, evidence, logits, on)
        sure, chances = expected(logits, further, best, multi_label=self.multi_label)
        return self._answer(evidence, logits, ran), sure.float()[0], chances.float()[0]

    def _answer(self, evidence: Evidence, logits: Tensor, ran: Tensor) -> Tensor:
        if self.answer == "learned":
            return class_probabilities(logits, self.multi_label)[0]
        if self.answer == "largest":
            last = (ran * torch.arange(len(ran))).argmax()
            return evidence.probabilities[0].index_select(0, last[None])[0]
        weights = torch.cat([ran / ran.sum(), ran.new_zeros(1)])
        return combined(evidence.scores, weights, self.multi_label)[0]


class _StagedCascade(nn.Module):
    """The same of regressions. A graph has no sets: it looks after each of them, and takes the one that ran."""

    def __init__(self, network: CascadeHeads) -> None:
        super().__init__()
        self.network = network
        self.sets = [mask for mask in range(1 << network.models) if mask >> network.first & 1]

    def forward(self, probabilities: Tensor, ran: Tensor) -> tuple[Tensor, ...]:
        """As `_Cascade.forward`."""
        known = torch.where(ran[:, None] > 0.5, probabilities, 0.5)[None]
        looks = [self.network.look(known, probabilities.new_zeros(1, 0), mask) for mask in self.sets]
        members = torch.tensor([[mask >> n & 1 for n in range(self.network.models)] for mask in self.sets])
        place = (members == (ran > 0.5)).all(1).int().argmax()[None]
        parts = (torch.cat(each).float().index_select(0, place)[0] for each in zip(*looks, strict=True))
        return tuple(parts)
