"""train-policy: cache and labels in, a trained policy in a run folder out."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import READERS, read_labels
from cache_schema.command import tells_mistakes
from policy.config import (
    AFFINITIES,
    AFFINITY_LOSSES,
    CELLS,
    GATE_STATES,
    HEADS,
    INPUT_NORMS,
    PRECISIONS,
    SELECTOR_ANSWERS,
    SELECTOR_INPUTS,
    SELECTOR_TARGETS,
    USAGE_LOSSES,
    WHEN_NONE,
    RunConfig,
)
from policy.recipes import RECIPES, with_recipe
from policy.selector.schedule import with_schedule

if TYPE_CHECKING:
    from policy.distributed import Ranks
    from policy.training import Epoch

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
    setting(
        "--heads",
        "scores: the class scores of the streams; linear: a linear classifier fitted on the features of each.",
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
SELECTOR = options(
    setting(
        "--alpha", "Weight of a model's share of the pool's cost against its loss (α of Eq. 2).", type=float
    ),
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
    setting("--selector-input", "What is seen of that model.", type=click.Choice(SELECTOR_INPUTS)),
    setting("--confidence-input", "See also how sure its class scores are.", is_flag=True),
    setting("--selector-hidden", "Units of the selector's hidden layer.", type=int),
    setting(
        "--target",
        "What is learned: the affinity, or every model's loss; then the threshold is the price of a GFLOP.",
        type=click.Choice(SELECTOR_TARGETS),
    ),
    setting("--threshold", "The cheapest model whose confidence reaches it is run.", type=float),
    setting(
        "--budget",
        "Mean GFLOPs per video; sets the threshold on the training videos.",
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
SELECTOR_OPTIMIZATION = options(
    setting("--epochs", "Passes over the training videos.", type=int, default=5),
    setting("--batch", "Videos per step.", type=int),
    setting("--lr", "Learning rate of Adam.", type=float, default=1e-3),
    setting("--weight-decay", "Of Adam.", type=float),
    LR_DROP,
    GRAD_CLIP,
    SELECTOR_INPUT_NORM,
)


@click.group()
@click.version_option(package_name="thriftvid")
def train_policy() -> None:
    """Train a policy from a feature cache, or one of the methods it is compared with.

    \b
    Example:
      train-policy liteeval --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --gamma 0.05 --out runs/liteeval
    """


@train_policy.command()
@options(DATA, COARSE, FINE, RECIPE, LITEEVAL, TEACHER, NETWORK, TRAINING, RUN)
@tells_mistakes
def liteeval(**given: Any) -> None:
    """LiteEval: coarse features of every frame, fine ones where a learned gate opens.

    A run that was stopped goes on where it stopped when the same command is given again.

    \b
    Example:
      train-policy liteeval --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --gamma 0.05 --out runs/liteeval
    """
    _run("liteeval", given)


@train_policy.command()
@options(DATA, FINE, FRAMES, TRAINING, RUN)
@tells_mistakes
def uniform(**given: Any) -> None:
    """Uniform: class scores of K uniformly spaced frames, averaged.

    Uses the cache's class scores where they cover the classes of the labels, else fits a linear classifier.

    \b
    Example:
      train-policy uniform --cache CACHE --labels labels.csv --fine resnet101_224 --frames 25 --out runs/uniform
    """
    _run("uniform", given)


@train_policy.command()
@options(DATA, COARSE, FINE, FRAMES, TRAINING, RUN)
@tells_mistakes
def uniform_cf(**given: Any) -> None:
    """Uniform+CF: as uniform, with the mean of coarse and fine class scores.

    \b
    Example:
      train-policy uniform-cf --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --out runs/uniform-cf
    """
    _run("uniform-cf", given)


@train_policy.command()
@options(DATA, FINE, FRAMES, FINE_HIDDEN, TRAINING, RUN)
@tells_mistakes
def lstm(**given: Any) -> None:
    """LSTM: one LSTM over the fine features of K uniformly spaced frames.

    \b
    Example:
      train-policy lstm --cache CACHE --labels labels.csv --fine resnet101_224 --out runs/lstm
    """
    _run("lstm", given)


@train_policy.command()
@options(DATA, COARSE, FINE, FRAMES, FINE_HIDDEN, TRAINING, RUN)
@tells_mistakes
def lstm_cf(**given: Any) -> None:
    """LSTM+CF: one LSTM over coarse and fine features of K uniformly spaced frames.

    \b
    Example:
      train-policy lstm-cf --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --out runs/lstm-cf
    """
    _run("lstm-cf", given)


@train_policy.command()
@options(DATA, FINE, FRAME_GLIMPSE, FINE_HIDDEN, TRAINING, RUN)
@tells_mistakes
def frame_glimpse(**given: Any) -> None:
    """FrameGlimpse: an agent looks at K frames, each time choosing the next from anywhere in the video.

    Trained with REINFORCE. A frame that it looks at again is computed, and charged, once.

    \b
    Example:
      train-policy frame-glimpse --cache CACHE --labels labels.csv --fine resnet101_224 --glimpses 4 \\
        --out runs/frame-glimpse
    """
    _run("frame-glimpse", given)


@train_policy.command()
@options(DATA, FINE, FAST_FORWARD, FINE_HIDDEN, TRAINING, RUN)
@tells_mistakes
def fast_forward(**given: Any) -> None:
    """FastForward: an agent starts at the first frame and decides at each how far to jump, or to stop.

    Trained with REINFORCE, for recognition minus a price per frame.

    \b
    Example:
      train-policy fast-forward --cache CACHE --labels labels.csv --fine resnet101_224 --frame-price 0.01 \\
        --out runs/fast-forward
    """
    _run("fast-forward", given)


@train_policy.command()
@options(DATA, COARSE, FINE, RECIPE, EQ_7, NETWORK, TRAINING, RUN)
@tells_mistakes
def liteeval_rl(**given: Any) -> None:
    """LiteEval-RL: LiteEval with gates learned by REINFORCE instead of Gumbel-softmax.

    \b
    Example:
      train-policy liteeval-rl --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --gamma 0.05 --out runs/liteeval-rl
    """
    _run("liteeval-rl", given)


@train_policy.command()
@options(DATA, COARSE, FINE_HIDDEN, TRAINING, RUN)
@tells_mistakes
def coarse_only(**given: Any) -> None:
    """Null control: an LSTM over the coarse features of every frame.

    \b
    Example:
      train-policy coarse-only --cache CACHE --labels labels.csv --coarse mobilenetv2_112 --out runs/coarse-only
    """
    _run("coarse-only", given)


@train_policy.command()
@options(
    DATA,
    COARSE,
    FINE,
    setting("--usage", "Probability that a gate opens.", type=float),
    click.option("--like", type=click.Path(path_type=Path), help="A finished run whose usage to match."),
    setting("--gate-draws", "Draws of the gates that the metrics are averaged over.", type=int),
    RECIPE,
    WARMUP,
    NETWORK,
    TRAINING,
    RUN,
)
@tells_mistakes
def random_gating(like: Path | None, **given: Any) -> None:
    """Null control: LiteEval's network, trained and evaluated with gates that open at random.

    \b
    Example:
      train-policy random-gating --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --like runs/liteeval --out runs/random-gating
    """
    from policy.runs import read_result

    if (like is None) == (given["usage"] is None):
        raise UserError("say how often random gates open: either --usage or --like RUN")
    if like is not None:
        given["usage"] = read_result(like).usage
    _run("random-gating", given)


@train_policy.command()
@options(
    DATA,
    POOL,
    setting(
        "--input",
        "Stream of the model that always runs, which the selector looks at; by default the cheapest of the pool.",
        field="coarse",
        metavar="STREAM",
    ),
    SELECTOR,
    SELECTOR_OPTIMIZATION,
    setting("--seed", "Of weights and order of videos.", type=int),
    RUN,
)
@tells_mistakes
def selector(**given: Any) -> None:
    """Model selection: per video, the cheapest model of a pool that will get it right.

    A perceptron on the predictions of one model says which model should judge the video. Class scores come from
    streams of the cache: extracted, or imported with feature-cache import.

    \b
    Example:
      train-policy selector --cache CACHE --labels labels.csv \\
        --model x3d_xs --model x3d_s --model x3d_m --model x3d_l --budget 8 --out runs/selector
    """
    _run("selector", given)


@train_policy.command()
@options(
    DATA,
    POOL,
    setting(
        "--input",
        "Stream of the model that runs first, one of the pool; by default its cheapest.",
        field="coarse",
        metavar="STREAM",
    ),
    setting(
        "--selector-input",
        "What is seen of that model; of the others always the class scores.",
        type=click.Choice([kind for kind in SELECTOR_INPUTS if kind != "features"]),
    ),
    setting("--selector-hidden", "Units of the networks' hidden layers.", type=int),
    setting(
        "--answer",
        "learned: from the class scores of all models that ran; largest: that of the largest of them; mean: the "
        "mean of their class probabilities.",
        type=click.Choice(SELECTOR_ANSWERS),
    ),
    setting(
        "--price",
        "Of a GFLOP: by how much it must raise the chance of a right answer.",
        field="threshold",
        type=float,
        default=0.01,
    ),
    setting(
        "--budget",
        "Mean GFLOPs per video; sets the price on the training videos.",
        type=float,
        metavar="GFLOPS",
    ),
    setting("--epochs", "Passes over the training videos.", type=int),
    setting("--batch", "Videos per step.", type=int),
    setting("--lr", "Learning rate of Adam.", type=float, default=3e-3),
    setting("--weight-decay", "Of Adam.", type=float, default=1e-4),
    LR_DROP,
    GRAD_CLIP,
    SELECTOR_INPUT_NORM,
    setting("--seed", "Of weights, order of videos and draws.", type=int),
    RUN,
)
@tells_mistakes
def selector_cascade(**given: Any) -> None:
    """Selection and cascade in one: models run one after another, as long as the next is worth its price.

    After each model a network looks at the class scores of all that have run, and says how likely a right answer
    is now, and after each of the others.

    \b
    Example:
      train-policy selector-cascade --cache CACHE --labels labels.csv \\
        --model x3d_xs --model x3d_s --model x3d_m --model x3d_l --budget 8 --out runs/selector-cascade
    """
    if {"threshold", "budget"} <= given_options():
        raise UserError("give --price or --budget, which sets the price")
    _run("selector-cascade", given)


def given_options() -> set[str]:
    """The options of the running command that the user has given a value."""
    context = click.get_current_context()
    return {
        name
        for name in context.params
        if context.get_parameter_source(name) not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    }


def _run(method: str, given: dict[str, Any]) -> None:
    from policy.distributed import PeerLost, joined
    from policy.stopping import Terminated, terminable

    settings = {name: value for name, value in given.items() if name in DEFAULTS}
    asked = given_options()
    config = with_recipe(RunConfig(method=method, **settings), given.get("recipe"), asked)
    if method in ("selector", "selector-cascade"):
        config = with_schedule(config, asked)
    leads = True
    try:
        with terminable(), joined() as ranks:
            leads = ranks.leads
            _train(config, given, ranks)
    except (Terminated, KeyboardInterrupt) as stop:
        if leads:
            click.echo("stopped; give the same command again to go on", err=True)
        # What shells expect of a program that a signal has ended.
        raise SystemExit(128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)) from stop
    except PeerLost as lost:  # the other process has said why
        raise SystemExit(1) from lost


def _train(config: RunConfig, given: dict[str, Any], ranks: Ranks) -> None:
    from policy.runs import Listener, assist, run_method
    from policy.tensorboard import Scalars

    # The others wait until the first one has found nothing to complain about: one process tells a mistake.
    if not ranks.leads and not ranks.told():
        return
    config.check()
    cache = FeatureCache(given["cache"])
    labels = read_labels(given["labels"], given["labels_format"])
    if not ranks.leads:
        assist(config, cache, labels, given["out"], device=given["device"], ranks=ranks)
        return
    scalars = Scalars(given["out"] if given["tensorboard"] else None)
    with _progress(config.epochs) as on_epoch:

        def epoch(said: Epoch) -> None:
            on_epoch(said)
            scalars.epoch(said)

        def earlier(history: Sequence[Epoch]) -> None:
            for said in history[-1:]:
                on_epoch(said)
            scalars.earlier(history)

        listener = Listener(lambda line: click.echo(line, err=True), epoch, earlier)
        run = run_method(
            config, cache, labels, given["out"], device=given["device"], listener=listener, ranks=ranks
        )
        scalars.result(run.result)
    if run.reused:
        click.echo(f"{run.folder}: had already been finished with this configuration and data", err=True)
    result = run.result
    if given["as_json"]:
        said = {**asdict(result), "folder": str(run.folder), "reused": run.reused}
        details = run.details()
        if details:
            said["details"] = details
        click.echo(json.dumps(said, indent=2, ensure_ascii=False))
        return
    if result.method == "selector":
        from policy.selector.text import render

        click.echo(render(result, run.details(), run.folder))
        return
    percent = 100 * result.usage
    lines = {
        "videos": f"{result.videos} of {result.classes} classes",
        **({"class scores": run.class_scores} if run.class_scores else {}),
        "mAP": f"{100 * result.mean_average_precision:.1f} %",
        "top-1": f"{100 * result.top1:.1f} %",
        "GFLOPs per video": f"{result.gflops_mean:.2f} ± {result.gflops_std:.2f}  (coarse "
        f"{result.gflops_coarse:.2f}, fine {result.gflops_fine:.2f}, networks {result.gflops_networks:.3f}; "
        "10⁹ multiply-accumulates)",
        "fine features": f"{result.fine_features_mean:.2f} ± {result.fine_features_std:.2f} of "
        f"{result.rows_mean:.1f} frames (usage {percent:.1f} %)",
        "folder": str(run.folder),
    }
    width = max(map(len, lines))
    click.echo(result.title)
    for name, value in lines.items():
        click.echo(f"  {name:<{width}}  {value}")


@contextmanager
def _progress(epochs: int) -> Iterator[Callable[[Any], None]]:
    """A bar on standard error; nothing where that is not a terminal."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("training", total=epochs, said="")

        def on_epoch(epoch: Any) -> None:
            shown = ", ".join(f"{n} {epoch[n]:.3f}" for n in ("loss", "usage") if n in epoch)
            progress.update(task, completed=epoch["epoch"], said=shown)

        yield on_epoch
