"""What a run is asked to do: every choice that can change its result, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from cache_schema import UserError

InputNorm = Literal["standard", "l2", "none"]
INPUT_NORMS: tuple[InputNorm, ...] = ("standard", "l2", "none")
Cell = Literal["lstm", "gru", "sru"]
CELLS: tuple[Cell, ...] = ("lstm", "gru", "sru")
GateState = Literal["hidden", "hidden+cell"]
GATE_STATES: tuple[GateState, ...] = ("hidden", "hidden+cell")
UsageLoss = Literal["video", "batch", "constrained"]
USAGE_LOSSES: tuple[UsageLoss, ...] = ("video", "batch", "constrained")
Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
Affinity = Literal["hard", "soft"]
AFFINITIES: tuple[Affinity, ...] = ("hard", "soft")
AffinityLoss = Literal["entropy", "error"]
AFFINITY_LOSSES: tuple[AffinityLoss, ...] = ("entropy", "error")
SelectorInput = Literal["scores", "features", "scores+features"]
SELECTOR_INPUTS: tuple[SelectorInput, ...] = ("scores", "features", "scores+features")
SelectorTarget = Literal["affinity", "loss"]
SELECTOR_TARGETS: tuple[SelectorTarget, ...] = ("affinity", "loss")
SelectionRule = Literal["threshold", "price"]
SELECTION_RULES: tuple[SelectionRule, ...] = ("threshold", "price")
WhenNone = Literal["largest", "most-confident"]
WHEN_NONE: tuple[WhenNone, ...] = ("largest", "most-confident")
SelectorAnswer = Literal["learned", "largest", "mean"]
SELECTOR_ANSWERS: tuple[SelectorAnswer, ...] = ("learned", "largest", "mean")
Heads = Literal["scores", "linear"]
HEADS: tuple[Heads, ...] = ("scores", "linear")


@dataclass(frozen=True)
class RunConfig:
    """One run of one method. A method reads only some of these; `relevant` picks them.

    Attributes:
        method: a key of `policy.registry.METHODS`.
        coarse, fine: names of streams of the cache.
        train_subset, eval_subset: of the label file; None takes the usual names (`policy.data.opening`).
        multi_label: False trains on each video's first class; None asks the labels.
        skip_missing: leave out videos that have labels but no features, or features but no labels.
        whole_only: leave out videos that are partial in the cache.
        seed: of weights, order of videos and all draws (gates, locations, jumps).
        epochs, batch, lr: of Adam; batch in videos. Sec. 4.1: lr 1e-4, batch 128 on ActivityNet.
        grad_clip: largest norm of the gradient; None does not clip.
        weight_decay: of Adam, added to the gradient.
        lr_drop: after how many epochs the learning rate falls to a tenth, each time.
        precision: of the recurrent networks' matrix products in training; weights, states and sums stay float32.
        input_norm: "standard" (our addition) brings each feature to zero mean and unit variance over the
            training videos, "l2" each frame's features to length 1 (as the authors' released code), "none"
            neither (as Sec. 3 has it).
        frames: K of the methods that look at K uniformly spaced frames. Sec. 4.2.1: 25.
        coarse_hidden, fine_hidden: units of the LSTMs. Sec. 4.1: 64 and 512 on ActivityNet.
        sync: Eq. 5; False is the ablation of Table 8.
        cell: of both recurrent networks of LiteEval. Table 6.
        coarse_projection, fine_projection: outputs of a learned layer (batch norm, linear, batch norm, ReLU) that
            the features of each stream pass first; 0 is no such layer.
        gate_state: what the gate sees of the fine network beside the coarse features: its hidden state (Eq. 2),
            or its cell state, too.
        noise: scale of the Gumbel noise; 1 is Eq. 8.
        gamma, lam: γ and λ of Eq. 7, of LiteEval and LiteEval-RL. Sec. 4.1: λ = 2.
        lam_start: λ at the beginning, from which it grows linearly, epoch by epoch; None is λ throughout.
        usage_loss: "video" is Eq. 7, "batch" the same for the mean of a batch, "constrained" a Lagrange multiplier
            that is learned and, after training, a gate threshold at which the training videos' usage is γ.
        step_loss: weight of the classification loss averaged over all steps, beside that of the last step.
        distill: weight of what a teacher says of the training videos (Hinton et al., 2015).
        distill_tau: temperature of that comparison.
        teacher: run folder of the teacher, a finished run on the same videos (LSTM+CF, say).
        warmup: share of the epochs during which the usage aimed at falls from 1 to γ (of random
            gating, to `usage`); see `policy.liteeval.method`. 0 is Eq. 7 as it stands.
        tau_start, tau_end: the Gumbel-softmax temperature falls exponentially between the two, epoch by epoch.
            Sec. 3.2 anneals it and gives no values; 5 is AR-Net's and AdaMML's start.
        tau_decay: if given, τ = tau_start · exp(−tau_decay · step) instead, not below tau_end, the steps counted
            anew in each epoch.
        usage: of random gating, the probability that a gate opens.
        gate_draws: of random gating, how many draws of the gates its metrics are averaged over.
        glimpses: K of FrameGlimpse, how many times it looks. Table 1: 29.9 and 32.9 GFLOPs, 4 frames at 7.82.
        location_std: of FrameGlimpse, standard deviation of the Gaussian from which locations are drawn in
            training, as a share of the video.
        strides: of FastForward, how many strides it chooses from: 1, 2, 4, … frames.
        frame_price: of FastForward, what each frame after the first takes off a reward that is at most 1.
        models: of model selection, the pool: streams with class scores, each "STREAM" or "STREAM:ROWS". What the
            selector looks at is `coarse`, by default the cheapest of them.
        rows: clips or frames by which a model judges a video, evenly spread; None: all that the cache has.
        score_classes: names of the columns of class scores, for streams that do not say.
        heads: "scores" takes the class scores of the streams; "linear" fits a linear classifier on the features of
            each (our addition).
        folds: of linear heads: how many, each fitted without the videos that it judges, give the affinities of the
            training videos; 1 is one head that has seen them all.
        out_of_fold: "STREAM=OTHER,OTHER", streams that have the class scores of training videos from models that
            had not been trained on these, in place of STREAM's own.
        alpha: α of Eq. 2. Sec. 4.2: 5e-5 to 5e-3, and 5e-4 for the curve of Fig. 3a.
        affinity: "hard" is the pseudo-label of Eq. 2, "soft" a distribution over the models for Eq. 1.
        affinity_tau: of the soft one, the temperature in nats; towards 0 it becomes the hard one.
        affinity_loss: L_cls of Eq. 2: "entropy" is the paper's, "error" 1 where the best-scored class is wrong.
        selector_input: what the selector sees of its model: the class scores (Sec. 4.1), the features, or both.
        confidence_input: it also sees how sure these scores are (our addition).
        selector_hidden: units of its hidden layer. The paper has "a simple multi-layer perceptron".
        target: what it learns: "affinity" (Eq. 1) or, our addition, the "loss" of every model.
        rule: how its confidences decide: "threshold" is Sec. 3.4; "price" (our addition) takes the model whose
            confidence, less a price for each GFLOP, is largest. Target "loss" goes by price alone.
        threshold: on its confidences (Sec. 3.4); where it goes by price, that of a GFLOP. None: see
            `policy.selection.schedule.threshold_of`.
        budget: mean GFLOPs per video that the training videos may cost, which sets the threshold; None takes
            `threshold`.
        answer: of several models that ran one after another: "learned" from the class scores of all, that of the
            "largest", or their "mean".
        when_none: which model runs where none clears the threshold: the largest, or the one of most confidence.
    """

    method: str
    coarse: str | None = None
    fine: str | None = None
    train_subset: str | None = None
    eval_subset: str | None = None
    multi_label: bool | None = None
    skip_missing: bool = False
    whole_only: bool = False
    seed: int = 0
    epochs: int = 100
    batch: int = 128
    lr: float = 1e-4
    grad_clip: float | None = None
    weight_decay: float = 0.0
    lr_drop: tuple[int, ...] = ()
    precision: Precision = "float32"
    input_norm: InputNorm = "standard"
    frames: int = 25
    coarse_hidden: int = 64
    fine_hidden: int = 512
    sync: bool = True
    cell: Cell = "lstm"
    coarse_projection: int = 0
    fine_projection: int = 0
    gate_state: GateState = "hidden"
    noise: float = 1.0
    gamma: float = 0.05
    lam: float = 2.0
    lam_start: float | None = None
    usage_loss: UsageLoss = "video"
    step_loss: float = 0.0
    distill: float = 0.0
    distill_tau: float = 2.0
    teacher: str | None = None
    warmup: float = 0.0
    tau_start: float = 5.0
    tau_end: float = 0.5
    tau_decay: float | None = None
    usage: float | None = None
    gate_draws: int = 10
    glimpses: int = 4
    location_std: float = 0.1
    strides: int = 6
    frame_price: float = 0.01
    models: tuple[str, ...] = ()
    rows: int | None = None
    score_classes: tuple[str, ...] = ()
    heads: Heads = "scores"
    folds: int = 5
    out_of_fold: tuple[str, ...] = ()
    alpha: float = 5e-4
    affinity: Affinity = "hard"
    affinity_tau: float = 0.1
    affinity_loss: AffinityLoss = "entropy"
    selector_input: SelectorInput = "scores"
    confidence_input: bool = False
    selector_hidden: int = 256
    target: SelectorTarget = "affinity"
    rule: SelectionRule = "threshold"
    threshold: float | None = None
    budget: float | None = None
    answer: SelectorAnswer = "learned"
    when_none: WhenNone = "largest"

    def check(self) -> None:
        """Raises UserError, one line, where a value makes no sense."""
        for field in fields(self):
            value = getattr(self, field.name)
            _require(not isinstance(value, float) or math.isfinite(value), field.name, "must be finite", self)
        for name in ("epochs", "batch", "lr", "frames", "coarse_hidden", "fine_hidden", "gate_draws"):
            _require(getattr(self, name) > 0, name, "must be positive", self)
        for name in ("selector_hidden", "folds", "affinity_tau"):
            _require(getattr(self, name) > 0, name, "must be positive", self)
        for name in ("rows", "budget"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, "must be positive", self)
        for name in ("tau_start", "tau_end", "distill_tau", "glimpses", "location_std", "strides"):
            _require(getattr(self, name) > 0, name, "must be positive", self)
        for name in ("gamma", "warmup"):
            _require(0 <= getattr(self, name) <= 1, name, "must be between 0 and 1", self)
        _require(self.usage is None or 0 <= self.usage <= 1, "usage", "must be between 0 and 1", self)
        for name in ("lam", "frame_price", "weight_decay", "noise", "step_loss", "distill", "alpha"):
            _require(getattr(self, name) >= 0, name, "must not be negative", self)
        for name in ("coarse_projection", "fine_projection"):
            _require(getattr(self, name) >= 0, name, "must not be negative", self)
        for name in ("lam_start", "tau_decay", "threshold"):
            value = getattr(self, name)
            _require(value is None or value >= 0, name, "must not be negative", self)
        _require(all(epoch > 0 for epoch in self.lr_drop), "lr_drop", "must be positive", self)
        _require(self.grad_clip is None or self.grad_clip > 0, "grad_clip", "must be positive", self)
        _require(self.seed >= 0, "seed", "must not be negative", self)
        choices: dict[str, tuple[str, ...]] = {
            "input_norm": INPUT_NORMS,
            "cell": CELLS,
            "gate_state": GATE_STATES,
            "usage_loss": USAGE_LOSSES,
            "precision": PRECISIONS,
            "affinity": AFFINITIES,
            "affinity_loss": AFFINITY_LOSSES,
            "selector_input": SELECTOR_INPUTS,
            "target": SELECTOR_TARGETS,
            "rule": SELECTION_RULES,
            "answer": SELECTOR_ANSWERS,
            "when_none": WHEN_NONE,
            "heads": HEADS,
        }
        for name, values in choices.items():
            _require(getattr(self, name) in values, name, f"must be one of {', '.join(values)}", self)
        self._check_together()

    def _check_together(self) -> None:
        """What makes sense alone, and not beside another value."""
        _require(
            self.gate_state == "hidden" or self.cell != "gru",
            "gate_state",
            "must be hidden with a GRU, which has no cell state",
            self,
        )
        if self.distill > 0 and self.teacher is None:
            raise UserError(
                "distill needs a teacher: a finished run on the same videos, of lstm-cf for example"
            )
        if self.method == "selector-cascade" and self.selector_input == "features":
            raise UserError(
                "selector-cascade answers with class scores: give --selector-input scores+features"
            )
        if self.teacher is not None and not self.distill:
            raise UserError("a teacher has no say without distill: give it a weight, 1 for example")

    def relevant(self, names: Iterable[str]) -> dict[str, Any]:
        """The values of the fields that a method reads, by name, ready for JSON."""
        chosen = set(names)
        values = {name: value for name, value in asdict(self).items() if name in chosen}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _require(condition: bool, name: str, what: str, config: RunConfig) -> None:
    if not condition:
        value = getattr(config, name)
        said = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        raise UserError(f"{name.replace('_', '-')} {what}, not {said}")
