"""What model selection, and its combination with a cascade, can be asked for."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, get_args

import click

from cache_schema import UserError
from cache_schema.annotations.class_names import read_class_names
from policy.config import NOT_NEGATIVE, POSITIVE, InputNorm, RunConfig, option

SelectorInput = Literal["scores", "features", "scores+features"]
WhenNone = Literal["largest", "most-confident"]
SelectorAnswer = Literal["weighted", "mean", "largest", "learned"]
Decisions = Literal["auto", "logistic", "perceptron"]
MOST_STAGED = 8
"""Models of a pool for which every set has its regressions."""


@dataclass(frozen=True, kw_only=True)
class PoolConfig(RunConfig):
    """A pool of models. The model on `coarse`, by default the cheapest of the pool, always runs."""

    earlier: ClassVar[Mapping[str, Any]] = {"decisions": "perceptron"}
    tuned_of_regressions: ClassVar[tuple[str, ...]] = ("answer=weighted,mean,largest", "temperature")

    models: tuple[str, ...] = option(
        (),
        "A model of the pool: a stream with class scores, or STREAM:ROWS to judge a video by so many of its clips "
        "or frames; repeat it.",
        flag="--model",
        metavar="STREAM[:ROWS]",
    )
    rows: int | None = option(
        None,
        "Clips or frames of a video for each model; by default all that the cache has.",
        POSITIVE,
        sets_cost=True,
    )
    score_classes: tuple[str, ...] = option(
        (),
        "Names of the class scores' columns, one in each line or as in kinetics_classnames.json, for streams "
        "that do not say; by default they are taken to be the labels' classes in sorted order.",
        flag="--classes",
        metavar="FILE",
        type=click.Path(path_type=Path),
        parse=read_class_names,
    )
    heads: Literal["scores", "linear"] = option(
        "scores",
        "scores: the class scores of the streams; linear: a linear classifier fitted on the features of each "
        "stream, averaged over a video's rows.",
    )
    folds: int = option(
        5,
        "Of linear heads: so many, each fitted without the videos it judges, say how good a model is on the "
        "training videos; 1: one head that has seen them.",
        POSITIVE,
    )
    temperature: Literal["fitted", "none"] | None = option(
        None,
        "Of class scores: fitted on the training videos, so that the probabilities of all models mean the same; "
        "none: as they are, which is the default with --decisions perceptron. Linear heads are always fitted.",
    )
    out_of_fold: tuple[str, ...] = option(
        (),
        "For the training videos take the class scores of other streams, whose models have not seen them; repeat "
        "it.",
        metavar="STREAM=OTHER[,OTHER…]",
    )
    coarse: str | None = option(
        None,
        "Stream of the model that always runs, which the selector looks at; by default the cheapest of the pool.",
        flag="--input",
        metavar="STREAM",
    )
    decisions: Decisions = option(
        "logistic",
        "logistic: regularised regressions on how sure models are, whether they agree, and of which class; "
        "perceptron: a network on their class scores, trained as the options below say.",
        type=click.Choice([kind for kind in get_args(Decisions) if kind != "auto"]),
    )
    lr_drop: tuple[int, ...] = option(
        (),
        "Epochs after which the learning rate falls to a tenth; repeat it. By default after two and four fifths "
        "of them (Sec. 4.1: epochs 2 and 4 of 5).",
        POSITIVE,
    )
    input_norm: InputNorm = option(
        "standard",
        "standard: zero mean, unit variance per input over the training videos (our addition); l2: each row of "
        "features to length 1; none: as it is.",
    )

    @property
    def is_logistic(self) -> bool:
        """Whether regressions decide, which gradient descent does not train; of "auto" until it is settled."""
        return self.decisions != "perceptron"

    @property
    def searched(self) -> tuple[str, ...]:
        return self.tuned_of_regressions if self.is_logistic else self.tuned

    @property
    def fits_temperature(self) -> bool:
        """`temperature`, or its default."""
        return self.temperature == "fitted" or (self.temperature is None and self.is_logistic)


@dataclass(frozen=True, kw_only=True)
class SelectorConfig(PoolConfig):
    # Sec. 4.1 of the paper trains 5 epochs at 1e-3, and has "a simple multi-layer perceptron".
    method = "selector"
    tuned = ("lr", "weight_decay", "epochs", "selector_hidden")
    tuned_of_regressions = ("answer=weighted,mean,chosen", "temperature")

    epochs: int = option(5, "Passes over the training videos.", POSITIVE, search=(5, 100))
    lr: float = option(1e-3, "Learning rate of Adam.", POSITIVE, search=(1e-4, 1e-2))
    seed: int = option(0, "Of weights and order of videos.", NOT_NEGATIVE)
    # Sec. 4.2: 5e-5 to 5e-3, and 5e-4 for the curve of Fig. 3a.
    alpha: float = option(
        5e-4,
        "Weight of a model's share of the pool's cost against its loss (α of Eq. 2).",
        NOT_NEGATIVE,
        search=(5e-5, 5e-3),
        sets_cost=True,
    )
    affinity: Literal["hard", "soft"] = option(
        "hard",
        "hard: the model of least loss + α·cost (Eq. 2); soft: a distribution over the models (Eq. 1).",
    )
    affinity_tau: float = option(0.1, "Temperature of the soft one, in nats.", POSITIVE)
    affinity_loss: Literal["entropy", "error"] = option(
        "entropy",
        "entropy: cross-entropy, or binary cross-entropy with several classes per video; error: 1 where the "
        "best-scored class is wrong.",
    )
    selector_input: SelectorInput = option("scores", "What is seen of that model.")
    confidence_input: bool = option(False, "See also how sure its class scores are.")
    selector_hidden: int = option(256, "Units of the selector's hidden layer.", POSITIVE)
    answer: Literal["weighted", "mean", "chosen"] | None = option(
        None,
        "Of what has run, the model that is looked at and the chosen one: weighted: a weighted sum of their "
        "log-probabilities, the weights fitted; mean: the mean of these; chosen: the chosen model's. By default "
        "weighted, with --decisions perceptron chosen.",
    )
    target: Literal["affinity", "loss"] = option(
        "affinity", "What is learned: the affinity, or every model's loss, which goes by price."
    )
    rule: Literal["threshold", "price"] = option(
        "threshold",
        "threshold: the cheapest model whose confidence reaches --threshold (Sec. 3.4); price: the model whose "
        "confidence, less --threshold for each of its GFLOPs, is largest.",
    )
    threshold: float | None = option(
        None,
        "On the confidence in a model, or the price of a GFLOP; by default 1/N for N models, which one always "
        "reaches.",
        NOT_NEGATIVE,
        sets_cost=True,
    )
    budget: float | None = option(
        None,
        "Mean GFLOPs per video, all included; finds the threshold or price on the training videos.",
        POSITIVE,
        metavar="GFLOPS",
        sets_cost=True,
    )
    when_none: WhenNone = option(
        "largest",
        "Which model runs where none reaches the threshold: the largest, or the one of most confidence.",
    )

    @property
    def answers_by(self) -> SelectorAnswer:
        """`answer`, or its default; "largest" for the chosen one."""
        answer = self.answer or ("weighted" if self.is_logistic else "chosen")
        return "largest" if answer == "chosen" else answer

    def check_together(self) -> None:
        if self.is_logistic and self.selector_input != "scores":
            raise UserError(
                f"--selector-input {self.selector_input} is for the perceptron: give --decisions perceptron"
            )
        if not self.is_logistic and self.answer in ("weighted", "mean"):
            raise UserError(f"--answer {self.answer} is for other decisions: give --decisions logistic")

    @property
    def by_price(self) -> bool:
        """Whether models are chosen by price rather than by a threshold."""
        return self.is_logistic or self.target == "loss" or self.rule == "price"

    @property
    def sees_scores(self) -> bool:
        """Whether the selector looks at class scores, or at how sure they are."""
        return self.selector_input != "features" or self.confidence_input

    @property
    def sees_features(self) -> bool:
        """Whether the selector looks at features."""
        return self.selector_input != "scores"


@dataclass(frozen=True, kw_only=True)
class SelectorCascadeConfig(PoolConfig):
    method = "selector-cascade"
    tuned = ("lr", "weight_decay", "selector_hidden")

    epochs: int = option(100, "Passes over the training videos.", POSITIVE)
    lr: float = option(3e-3, "Learning rate of Adam.", POSITIVE, search=(1e-4, 1e-2))
    weight_decay: float = option(1e-4, "Of Adam.", NOT_NEGATIVE, search=(1e-6, 1e-2))
    coarse: str | None = option(
        None,
        "Stream of the model that runs first, one of the pool; by default its cheapest.",
        flag="--input",
        metavar="STREAM",
    )
    decisions: Decisions = option(
        "auto",
        "logistic: regularised regressions on how sure models are, whether they agree, and of which class; "
        "perceptron: a network on their class scores, trained as the options below say; auto: with 100 training "
        "videos of each class or more the one that is better on held-out parts of them, else logistic.",
    )
    selector_input: SelectorInput = option(
        "scores",
        "What is seen of that model; of the others always the class scores.",
        type=click.Choice([kind for kind in get_args(SelectorInput) if kind != "features"]),
    )
    selector_hidden: int = option(256, "Units of the networks' hidden layers.", POSITIVE)
    answer: SelectorAnswer | None = option(
        None,
        "Of all models that ran: weighted: a weighted sum of their log-probabilities, the weights fitted for each "
        "set of models; mean: the mean of these; largest: that of the largest model; learned: the perceptron's. "
        "By default weighted, with --decisions perceptron learned.",
    )
    threshold: float | None = option(
        0.01,
        "Of a GFLOP: by how much it must raise the chance of a right answer.",
        NOT_NEGATIVE,
        flag="--price",
        sets_cost=True,
    )
    budget: float | None = option(
        None,
        "Mean GFLOPs per video; sets the price on the training videos.",
        POSITIVE,
        metavar="GFLOPS",
        sets_cost=True,
    )

    by_price: ClassVar[bool] = True
    sees_scores: ClassVar[bool] = True

    @property
    def answers_by(self) -> SelectorAnswer:
        """`answer`, or its default."""
        return self.answer or ("weighted" if self.is_logistic else "learned")

    @property
    def sees_features(self) -> bool:
        """Whether the networks look at the first model's features, too."""
        return self.selector_input != "scores"

    def check_together(self) -> None:
        if self.answer == ("learned" if self.is_logistic else "weighted"):
            of = "perceptron" if self.is_logistic else "logistic"
            raise UserError(f"--answer {self.answer} is for other decisions: give --decisions {of}")
        if self.selector_input == "features":  # as a table may ask of all its rows
            raise UserError(
                "selector-cascade answers with class scores: give --selector-input scores+features"
            )
        if self.is_logistic and self.sees_features:
            raise UserError(
                "--selector-input scores+features is for the perceptron: give --decisions perceptron"
            )
        if self.is_logistic and len(self.models) > MOST_STAGED:
            raise UserError(
                f"a pool of {len(self.models)} models: every set of them has its regressions, which at most "
                f"{MOST_STAGED} can have; give --decisions perceptron"
            )


SelectionConfig: TypeAlias = SelectorConfig | SelectorCascadeConfig
"""Of methods that choose from a pool."""

PAPER: Mapping[str, Any] = {
    "decisions": "perceptron",
    "temperature": "none",
    "answer": "chosen",
    "selector_input": "scores",
    "confidence_input": False,
    "alpha": 5e-4,
    "affinity": "hard",
    "affinity_loss": "entropy",
    "target": "affinity",
    "rule": "threshold",
    "epochs": 5,
    "lr": 1e-3,
}
"""The selector of the paper's text, Sec. 3 and 4.1."""

OF_PERCEPTRON = (
    *("epochs", "batch", "lr", "weight_decay", "lr_drop", "grad_clip", "input_norm", "selector_hidden"),
    *(
        "selector_input",
        "confidence_input",
        "alpha",
        "affinity",
        "affinity_tau",
        "affinity_loss",
        "target",
        "rule",
    ),
    *("when_none", "validation", "validation_subset", "keep", "patience"),
)
"""Options that regressions do not read."""

S = TypeVar("S", bound=SelectionConfig)


def with_given(config: S, recipe: str | None, given: Container[str]) -> S:
    """As `with_schedule`, and with a recipe's values for all that is not given.

    Args:
        recipe: "paper", or none.

    Raises:
        UserError: as `with_schedule` and `check_read`.
    """
    if recipe:
        config = replace(config, **{name: value for name, value in PAPER.items() if name not in given})
    if isinstance(config, SelectorCascadeConfig) and "threshold" in given and "budget" in given:
        raise UserError("give --price or --budget, which sets the price")
    check_read(config, given)
    return with_schedule(config, given)


def with_schedule(config: S, given: Container[str]) -> S:
    """The learning rate falls to a tenth after two and four fifths of the epochs, unless `lr_drop` is given.

    Sec. 4.1 has epochs 2 and 4 of 5. Small collections need more epochs, and a rate that does not fall at once.

    Args:
        given: names of the options that the user has given a value.

    Raises:
        UserError: as `check_given`; or the selector goes by price, which has no usual value, and neither a price
            nor a budget is given.
    """
    check_given(config, given)
    no_price = "threshold" not in given and "budget" not in given and not config.is_logistic
    if isinstance(config, SelectorConfig) and config.by_price and no_price:
        how = "--target loss" if config.target == "loss" else "--rule price"
        raise UserError(
            f"{how} weighs models by the price of a GFLOP: give --budget GFLOPS, which finds it, or the price "
            "itself as --threshold (0.01: ten GFLOPs must bring a tenth)"
        )
    if "lr_drop" in given:
        return config
    return replace(config, lr_drop=usual_drops(config.epochs))


def usual_drops(epochs: int) -> tuple[int, ...]:
    """`lr_drop` where it is not given: two and four fifths of the epochs."""
    return tuple(drop for drop in (2 * epochs // 5, 4 * epochs // 5) if drop)


def check_read(config: SelectionConfig, given: Container[str]) -> None:
    """Raises UserError where an option is given that what decides does not read."""
    unread = [name for name in OF_PERCEPTRON if name in given]
    if config.is_logistic and unread:
        raise UserError(
            f"--{unread[0].replace('_', '-')} is about the perceptron, and regressions decide: give --decisions "
            "perceptron"
        )


def check_given(config: SelectionConfig, given: Container[str]) -> None:
    """Raises UserError where options contradict each other: a threshold and a budget, which would set it; folds
    without linear heads; a rule that the target does not have; or a threshold on confidences above 1."""
    if "threshold" in given and "budget" in given:
        raise UserError("give --threshold or --budget, which sets the threshold")
    if "folds" in given and config.heads != "linear":
        raise UserError(
            "--folds is about linear heads: give --heads linear, or for class scores --out-of-fold"
        )
    if not isinstance(config, SelectorConfig):
        return
    if config.target == "loss" and "rule" in given and config.rule != "price":
        raise UserError(
            f"--rule {config.rule} is for --target affinity; expected losses are weighed by price"
        )
    if config.threshold is not None and 1 < config.threshold < math.inf and not config.by_price:
        raise UserError(f"--threshold {config.threshold:g}: no confidence is larger than 1")


def threshold_of(config: SelectionConfig, models: int) -> float:
    """The threshold or price of a configuration.

    Where it has none: 1/N, which the largest of N confidences that sum to 1 always reaches, so that no video is
    left to `when_none`; as a price 0.01, at which ten GFLOPs must bring a tenth.
    """
    if config.threshold is not None:
        return config.threshold
    return 0.01 if config.by_price else 1 / models
