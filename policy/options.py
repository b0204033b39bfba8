"""Options of the commands, each for a field of RunConfig; several that belong together as one decorator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from cache_schema.annotations import READERS
from cache_schema.annotations.class_names import read_class_names
from policy.config import (
    AFFINITIES,
    AFFINITY_LOSSES,
    CELLS,
    GATE_STATES,
    HEADS,
    INPUT_NORMS,
    PRECISIONS,
    SELECTION_RULES,
    SELECTOR_INPUTS,
    SELECTOR_TARGETS,
    USAGE_LOSSES,
    WHEN_NONE,
    RunConfig,
)
from policy.recipes import RECIPES

C = TypeVar("C", bound=Callable[..., Any])

DEFAULTS = {field.name: field.default for field in fields(RunConfig)}


def options(*decorators: Callable[[C], C]) -> Callable[[C], C]:
    """Several options as one decorator, in the order in which --help shows them."""

    def decorate(command: C) -> C:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def setting(flag: str, help_text: str, *, field: str | None = None, **more: Any) -> Callable[[C], C]:
    """An option for a field of RunConfig, by default that of the same name, with its default."""
    name = field or flag.partition("/")[0].removeprefix("--").replace("-", "_")
    default = more.pop("default", DEFAULTS[name])
    # Zero is no default to hide, None is.
    shown = default is not None and default != ()
    return click.option(flag, name, default=default, show_default=shown, help=help_text, **more)


COARSE = setting("--coarse", "Stream with the cheap features.", metavar="STREAM", required=True)
FINE = setting("--fine", "Stream with the expensive features.", metavar="STREAM", required=True)
DATA = options(
    click.option("--cache", required=True, type=click.Path(path_type=Path), help="Feature cache."),
    click.option(
        "--labels",
        required=True,
        type=click.Path(path_type=Path),
        help="Annotation file, or the folder of a benchmark's own files.",
    ),
    click.option(
        "--format",
        "labels_format",
        type=click.Choice(sorted(READERS)),
        help="Format of the labels; by default what names and first lines say.",
    ),
    setting("--train-subset", "Subset to train on; by default the usual name that has labels."),
    setting("--eval-subset", "Subset to evaluate on; by default the usual name that has labels."),
    setting(
        "--multi-label/--single-label",
        "Train a sigmoid for each class, or a softmax on each video's first class in the file (Eq. 6 and 7); "
        "evaluation keeps all classes of a video either way (mAP, and top-1 as hit@1). By default multi-label "
        "where some video has several classes.",
        type=bool,
    ),
    setting("--skip-missing", "Leave out videos without features or without labels.", is_flag=True),
    setting("--whole-only", "Leave out videos of which only a part could be decoded.", is_flag=True),
)
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, …")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON for scripts.")
RUN = options(
    click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder."),
    DEVICE,
    click.option("--tensorboard", is_flag=True, help="Write scalars for TensorBoard to OUT/tensorboard."),
    AS_JSON,
)
OPTIMIZATION = options(
    setting("--epochs", "Passes over the training videos.", type=int),
    setting("--batch", "Videos per step.", type=int),
    setting("--lr", "Learning rate of Adam.", type=float),
    setting("--weight-decay", "Of Adam.", type=float),
    setting(
        "--lr-drop",
        "Epochs after which the learning rate falls to a tenth; repeat it.",
        type=int,
        multiple=True,
    ),
    setting("--grad-clip", "Largest norm of the gradient; by default none.", type=float),
    setting(
        "--input-norm",
        "standard: zero mean, unit variance per feature over the training videos (our addition); l2: each "
        "frame to length 1; none: as extracted.",
        type=click.Choice(INPUT_NORMS),
    ),
)
TRAINING = options(OPTIMIZATION, setting("--seed", "Of weights, order of videos and draws.", type=int))
FRAMES = setting("--frames", "K, uniformly spaced frames per video.", type=int)
COARSE_HIDDEN = setting("--coarse-hidden", "Units of the coarse LSTM.", type=int)
FINE_HIDDEN = setting("--fine-hidden", "Units of the fine LSTM.", type=int)
SYNC = setting("--sync/--no-sync", "Copy the coarse state where the gate is closed (Eq. 5).")
NETWORK = options(
    COARSE_HIDDEN,
    FINE_HIDDEN,
    SYNC,
    setting("--cell", "Recurrent networks (Table 6).", type=click.Choice(CELLS)),
    setting("--coarse-projection", "Width of a learned layer before the coarse features; 0: none.", type=int),
    setting("--fine-projection", "The same for the fine features.", type=int),
    setting(
        "--gate-state", "What the gate sees of the fine network's state.", type=click.Choice(GATE_STATES)
    ),
    setting("--precision", "Of matrix products in training.", type=click.Choice(PRECISIONS)),
)
RECIPE = click.option(
    "--recipe",
    type=click.Choice(sorted(RECIPES)),
    help="Set what is not given as the paper's text has it, or as its authors' released code (docs/recipes.md).",
)
WARMUP = setting(
    "--warmup", "Share of the epochs over which the usage in training falls from 1 to its target.", type=float
)
EQ_7 = options(
    setting("--gamma", "Target usage of fine features (Eq. 7).", type=float),
    setting("--lam", "Weight of the usage penalty (Eq. 7).", type=float),
    setting("--lam-start", "λ at the beginning, growing linearly to --lam; by default --lam.", type=float),
    WARMUP,
)
LITEEVAL = options(
    EQ_7,
    setting("--tau-start", "Gumbel-softmax temperature at the start.", type=float),
    setting("--tau-end", "Gumbel-softmax temperature at the end.", type=float),
    setting("--tau-decay", "Let it fall by exp(-this) each step instead, anew in each epoch.", type=float),
    setting("--noise", "Scale of the Gumbel noise.", type=float),
    setting(
        "--usage-loss",
        "video: Eq. 7; batch: for the mean of a batch; constrained: a learned multiplier, and a gate threshold "
        "that makes the usage of the training videos γ.",
        type=click.Choice(USAGE_LOSSES),
    ),
    setting("--step-loss", "Weight of the classification loss averaged over all steps.", type=float),
)
TEACHER = options(
    setting(
        "--distill", "Weight of a teacher's opinion of the training videos; needs --teacher.", type=float
    ),
    setting("--distill-tau", "Temperature of that comparison.", type=float),
    setting(
        "--teacher",
        "The teacher: run folder of a finished run on the same videos.",
        type=click.Path(exists=True, file_okay=False),
    ),
)
FRAME_GLIMPSE = options(
    setting("--glimpses", "K of FrameGlimpse: how many times it looks.", type=int),
    setting(
        "--location-std",
        "Of FrameGlimpse: spread of the locations drawn in training, as a share of the video.",
        type=float,
    ),
)
FAST_FORWARD = options(
    setting("--strides", "Of FastForward: how many strides it chooses from, 1, 2, 4, … frames.", type=int),
    setting(
        "--frame-price",
        "Of FastForward: what a frame after the first takes off a reward of at most 1.",
        type=float,
    ),
)


POOL = options(
    setting(
        "--model",
        "A model of the pool: a stream with class scores, or STREAM:ROWS to judge a video by so many of its clips "
        "or frames; repeat it.",
        field="models",
        multiple=True,
        metavar="STREAM[:ROWS]",
    ),
    setting(
        "--rows", "Clips or frames of a video for each model; by default all that the cache has.", type=int
    ),
    click.option(
        "--classes",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Names of the class scores' columns, one in each line or as in kinetics_classnames.json, for streams "
        "that do not say; by default they are taken to be the labels' classes in sorted order.",
    ),
    setting(
        "--heads",
        "scores: the class scores of the streams; linear: a linear classifier fitted on the features of each "
        "stream, averaged over a video's rows.",
        type=click.Choice(HEADS),
    ),
    setting(
        "--folds",
        "Of linear heads: so many, each fitted without the videos it judges, say how good a model is on the "
        "training videos; 1: one head that has seen them.",
        type=int,
    ),
    setting(
        "--out-of-fold",
        "For the training videos take the class scores of other streams, whose models have not seen them; repeat "
        "it.",
        multiple=True,
        metavar="STREAM=OTHER[,OTHER…]",
    ),
)
AFFINITY = options(
    setting(
        "--affinity",
        "hard: the model of least loss + α·cost (Eq. 2); soft: a distribution over the models (Eq. 1).",
        type=click.Choice(AFFINITIES),
    ),
    setting("--affinity-tau", "Temperature of the soft one, in nats.", type=float),
    setting(
        "--affinity-loss",
        "entropy: cross-entropy, or binary cross-entropy with several classes per video; error: 1 where the "
        "best-scored class is wrong.",
        type=click.Choice(AFFINITY_LOSSES),
    ),
)
SELECTOR = options(
    setting(
        "--alpha", "Weight of a model's share of the pool's cost against its loss (α of Eq. 2).", type=float
    ),
    AFFINITY,
    setting("--selector-input", "What is seen of that model.", type=click.Choice(SELECTOR_INPUTS)),
    setting("--confidence-input", "See also how sure its class scores are.", is_flag=True),
    setting("--selector-hidden", "Units of the selector's hidden layer.", type=int),
    setting(
        "--target",
        "What is learned: the affinity, or every model's loss, which goes by price.",
        type=click.Choice(SELECTOR_TARGETS),
    ),
    setting(
        "--rule",
        "threshold: the cheapest model whose confidence reaches --threshold (Sec. 3.4); price: the model whose "
        "confidence, less --threshold for each of its GFLOPs, is largest.",
        type=click.Choice(SELECTION_RULES),
    ),
    setting(
        "--threshold",
        "On the confidence in a model, or the price of a GFLOP; by default 1/N for N models, which one always "
        "reaches.",
        type=float,
    ),
    setting(
        "--budget",
        "Mean GFLOPs per video, all included; finds the threshold or price on the training videos.",
        type=float,
        metavar="GFLOPS",
    ),
    setting(
        "--when-none",
        "Which model runs where none reaches the threshold: the largest, or the one of most confidence.",
        type=click.Choice(WHEN_NONE),
    ),
)
LR_DROP = setting(
    "--lr-drop",
    "Epochs after which the learning rate falls to a tenth; repeat it. By default after two and four fifths "
    "of them (Sec. 4.1: epochs 2 and 4 of 5).",
    type=int,
    multiple=True,
)
GRAD_CLIP = setting("--grad-clip", "Largest norm of the gradient; by default none.", type=float)
SELECTOR_INPUT_NORM = setting(
    "--input-norm",
    "standard: zero mean, unit variance per input over the training videos (our addition); l2: each row of "
    "features to length 1; none: as it is.",
    type=click.Choice(INPUT_NORMS),
)
SELECTOR_DEFAULTS = {"epochs": 5, "lr": 1e-3}
"""Of model selection (Sec. 4.1 of its paper), where they are not those of LiteEval."""
SELECTOR_CASCADE_DEFAULTS = {"epochs": 100, "lr": 3e-3, "weight_decay": 1e-4, "threshold": 0.01}
"""Of selection combined with a cascade."""
SELECTOR_OPTIMIZATION = options(
    setting("--epochs", "Passes over the training videos.", type=int, default=SELECTOR_DEFAULTS["epochs"]),
    setting("--batch", "Videos per step.", type=int),
    setting("--lr", "Learning rate of Adam.", type=float, default=SELECTOR_DEFAULTS["lr"]),
    setting("--weight-decay", "Of Adam.", type=float),
    LR_DROP,
    GRAD_CLIP,
    SELECTOR_INPUT_NORM,
)


def given_options() -> set[str]:
    """The options of the running command that the user has given a value."""
    context = click.get_current_context()
    return {
        name
        for name in context.params
        if context.get_parameter_source(name) not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    }


def given_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of RunConfig that options set; --classes names a file, of which the content counts."""
    settings = {name: value for name, value in given.items() if name in DEFAULTS}
    if given.get("classes") is not None:
        settings["score_classes"] = read_class_names(given["classes"])
    return settings
