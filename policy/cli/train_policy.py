"""train-policy: cache and labels in, a trained policy in a run folder out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import read_labels
from cache_schema.command import AS_JSON, DEVICE, tells_mistakes
from policy.cli.export import export
from policy.cli.finished_runs import evaluate, predict
from policy.cli.tune import add_tuning, tune
from policy.config import RunConfig, method_options
from policy.options import (
    DATA,
    given_options,
    given_settings,
    options,
    recipe,
    setting,
    settings,
    training,
)
from policy.registry import CONFIGS, completed
from policy.selection.config import PoolConfig, SelectorConfig, with_schedule

if TYPE_CHECKING:
    from policy.training.distributed import Ranks
    from policy.training.loop import Epoch


RUN = options(
    click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder."),
    DEVICE,
    click.option("--tensorboard", is_flag=True, help="Write scalars for TensorBoard to OUT/tensorboard."),
    AS_JSON,
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


def _trains(method: str, **after: Callable[[Any], Any]) -> Callable[[Callable[..., None]], click.Command]:
    """A command that trains a method, with an option for each field of its configuration.

    Args:
        after: options of the command alone, by the field that they follow.
    """
    config = CONFIGS[method]

    def decorate(command: Callable[..., None]) -> click.Command:
        pairs = ((setting(config, name), after.get(name)) for name in method_options(config))
        fields = [decorator for pair in pairs for decorator in pair if decorator]
        checked: Callable[..., None] = tells_mistakes(command)
        return train_policy.command()(options(DATA, *fields, training(config), RUN)(checked))

    return decorate


@_trains("liteeval", fine=recipe())
def liteeval(**given: Any) -> None:
    """LiteEval: coarse features of every frame, fine ones where a learned gate opens.

    A run that was stopped goes on where it stopped when the same command is given again.

    \b
    Example:
      train-policy liteeval --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --gamma 0.05 --out runs/liteeval
    """
    _run("liteeval", given)


@_trains("liteeval-rl", fine=recipe())
def liteeval_rl(**given: Any) -> None:
    """LiteEval-RL: LiteEval with gates learned by REINFORCE instead of Gumbel-softmax.

    \b
    Example:
      train-policy liteeval-rl --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --gamma 0.05 --out runs/liteeval-rl
    """
    _run("liteeval-rl", given)


LIKE = click.option("--like", type=click.Path(path_type=Path), help="A finished run whose usage to match.")


@_trains("random-gating", usage=LIKE, gate_draws=recipe())
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
    usage = read_result(like).metrics["usage"] if like else given["usage"]
    _run("random-gating", given, usage=usage)


@train_policy.command()
@options(
    DATA,
    settings(SelectorConfig, *method_options(PoolConfig), without=("coarse", "decisions")),
    click.option(
        "--alpha",
        "alphas",
        type=float,
        multiple=True,
        help="α of Eq. 2; repeat it. By default the paper's range, 0 and a few larger ones.",
    ),
    settings(SelectorConfig, "affinity", "affinity_tau", "affinity_loss"),
    AS_JSON,
)
@tells_mistakes
def affinity(alphas: tuple[float, ...], as_json: bool, **given: Any) -> None:
    """What a selector would be told: which model each training video is labelled with, α by α.

    Trains nothing and writes nothing.

    \b
    Example:
      train-policy affinity --cache CACHE --labels labels.csv \\
        --model x3d_xs --model x3d_s --model x3d_m --model x3d_l --alpha 0 --alpha 5e-4
    """
    from policy.cli.selection_text import render_affinities
    from policy.runs import open_data
    from policy.selection.affinity import ALPHAS, describe_affinities
    from policy.selection.notes import pool_notes
    from policy.selection.opening import Pool

    config = with_schedule(SelectorConfig(decisions="perceptron", **given_settings()), given_options())
    for alpha in alphas:
        replace(config, alpha=alpha).check()
    data = open_data(
        config, FeatureCache(given["cache"]), read_labels(given["labels"], given["labels_format"])
    )
    for note in data.notes:
        click.echo(note, err=True)
    pool = Pool.of(config, data)
    table = pool.table(data.train)
    for note in pool_notes(config, data, pool, table, pool.table(data.evaluation)):
        click.echo(note, err=True)
    if as_json:
        described = describe_affinities(table, config, alphas or ALPHAS)
        click.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    colour = sys.stdout.isatty()
    click.echo(render_affinities(table, config, alphas or ALPHAS, colour=colour), nl=False)


@_trains(
    "selector",
    models=click.option(
        "--recipe", type=click.Choice(["paper"]), help="Set what is not given as the paper's text has it."
    ),
)
def selector(**given: Any) -> None:
    """Model selection: per video, the cheapest model of a pool that will get it right.

    What one model predicts for a video says which model should judge it. Class scores come from streams of the
    cache: extracted, or imported with feature-cache import. Of streams with features alone, --heads linear makes a
    pool as well.

    \b
    Example:
      train-policy selector --cache CACHE --labels labels.csv \\
        --model x3d_xs --model x3d_s --model x3d_m --model x3d_l --budget 8 --out runs/selector
    """
    _run("selector", given)


@_trains("selector-cascade")
def selector_cascade(**given: Any) -> None:
    """Selection and cascade in one: models run one after another, as long as the next is worth its price.

    After each model regressions on how sure those are that have run, and whether they agree, say how likely a
    right answer is now, and after each of the others. The answer is that of all models that ran.

    \b
    Example:
      train-policy selector-cascade --cache CACHE --labels labels.csv \\
        --model x3d_xs --model x3d_s --model x3d_m --model x3d_l --budget 8 --out runs/selector-cascade
    """
    _run("selector-cascade", given)


def add_commands() -> None:
    """A command for each method that needs nothing but its configuration, whose docstring is the help."""
    for method in CONFIGS:
        if method not in train_policy.commands:

            def command(method: str = method, **given: Any) -> None:
                _run(method, given)

            command.__name__, command.__doc__ = method, CONFIGS[method].__doc__
            streams = [role for role in ("coarse", "fine") if role in method_options(CONFIGS[method])]
            # Of those that LiteEval is compared with: what is trained alike shares a recipe.
            _trains(method, **({streams[-1]: recipe()} if streams else {}))(command)
        if method not in tune.commands:
            add_tuning(method, train_policy.commands[method])


add_commands()
train_policy.add_command(tune)
train_policy.add_command(evaluate)
train_policy.add_command(predict)
train_policy.add_command(export)


def _run(method: str, given: dict[str, Any], **more: Any) -> None:
    """Train a method with the options of the running command.

    Args:
        more: fields that no option sets.
    """
    from policy.training.distributed import PeerLost, joined
    from policy.training.stopping import Terminated, exit_code, terminable

    config = completed(method, {**given_settings(), **more}, given.get("recipe"))
    leads = True
    try:
        with terminable(), joined() as ranks:
            leads = ranks.leads
            _train(config, given, ranks)
    except (Terminated, KeyboardInterrupt) as stop:
        if leads:
            click.echo("stopped; give the same command again to go on", err=True)
        raise SystemExit(exit_code(stop)) from stop
    except PeerLost as lost:  # the other process has said why
        raise SystemExit(1) from lost


def _train(config: RunConfig, given: dict[str, Any], ranks: Ranks) -> None:
    from policy.runs import Listener, assist, run_method
    from policy.training.tensorboard import Scalars

    # The others wait until the first process has checked everything, so that a mistake is reported once.
    if not ranks.leads and not ranks.broadcast():
        return
    config.check()
    cache = FeatureCache(given["cache"])
    labels = read_labels(given["labels"], given["labels_format"])
    if not ranks.leads:
        assist(config, cache, labels, given["out"], device=given["device"], ranks=ranks)
        return
    scalars = Scalars(given["out"] if given["tensorboard"] else None)
    with _progress(config.epochs) as on_epoch:

        def epoch(metrics: Epoch) -> None:
            on_epoch(metrics)
            scalars.epoch(metrics)

        def earlier(history: Sequence[Epoch]) -> None:
            for metrics in history[-1:]:
                on_epoch(metrics)
            scalars.earlier(history)

        listener = Listener(lambda line: click.echo(line, err=True), epoch, earlier)
        run = run_method(
            config, cache, labels, given["out"], device=given["device"], listener=listener, ranks=ranks
        )
        scalars.result(run.result.as_json())
    if run.reused:
        click.echo(f"{run.folder}: had already been finished with this configuration and data", err=True)
    details = run.details()
    if given["as_json"]:
        result = {**run.result.as_json(), "folder": str(run.folder), "reused": run.reused}
        result |= {"details": details} if details else {}
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        from policy.cli.result_text import result_text

        click.echo(result_text(config, run.result, details, run.folder, run.class_scores))


@contextmanager
def _progress(epochs: int) -> Iterator[Callable[[Any], None]]:
    """A bar on standard error, if that is a terminal."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[metrics]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("training", total=epochs, metrics="")

        def on_epoch(epoch: Any) -> None:
            metrics = ", ".join(f"{name} {epoch[name]:.3f}" for name in ("loss", "usage") if name in epoch)
            progress.update(task, completed=epoch["epoch"], metrics=metrics)

        yield on_epoch
