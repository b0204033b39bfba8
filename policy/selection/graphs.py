"""A selector, and the answers of its models, as networks for other runtimes: they take rows of backbones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from policy.method import class_probabilities
from policy.selection.config import SelectorConfig
from policy.selection.least_squares import Calibration
from policy.selection.network import SelectorNetwork, as_confidences, selector_inputs
from policy.selection.raw_model import RawModel
from policy.selection.staged import SelectorHeads
from policy.session import Graph


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
    if isinstance(
        network, SelectorHeads
    ):  # of the logarithms (log-odds) of the answers of what ran, then a shift
        rule["answer_weights"] = network.answers.tolist()
    return (
        Graph("selector", selector, _inputs(first), ("confidences",), {**_facts(first), **rule}, rows=True),
        *(
            Graph(
                f"answer-{model.name.stream}",
                _Answer(model, multi_label),
                _inputs(model, answers=True),
                ("probabilities",),
                _facts(model),
                rows=True,
            )
            for model in models
        ),
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

    def __init__(self, model: RawModel, multi_label: bool) -> None:
        super().__init__()
        self.raw, self.multi_label = model, multi_label
        if model.columns is not None:
            self.register_buffer("columns", torch.from_numpy(model.columns))
        if model.head is not None:
            self.scale = model.head.scale
            self.register_buffer("weights", torch.from_numpy(model.head.linear.weights))
            self.register_buffer("bias", torch.from_numpy(model.head.linear.bias))

    def forward(self, features: Tensor | None = None, scores: Tensor | None = None) -> tuple[Tensor, ...]:
        return (self.probabilities(None if features is None else self.mean(features), scores)[0],)

    def mean(self, features: Tensor) -> Tensor:
        """(1, D): of the rows, brought to length 1 if the model was trained so."""
        if self.raw.l2:
            exact = features.half().float()
            features = exact / torch.linalg.vector_norm(exact, dim=1, keepdim=True).clamp_min(1e-12)
            features = features.half().float()
        return features.mean(0, keepdim=True)

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
