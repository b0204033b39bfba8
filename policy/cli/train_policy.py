"""train-policy: cache and labels in, a trained policy in a run folder out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cache_schema import FeatureCache, UserError
from cache_schema.command import (
    AS_JSON,
    given_labels,
    options,
    tells_mistakes,
)
from policy.cli.export import export
from policy.cli.finished_runs import evaluate, predict
from policy.cli.train_method import RUN, MethodCommand, train_method
from policy.cli.tune import add_tuning, tune
from policy.config import method_options
from policy.options import (
    DATA,
    REPEATED,
    given_options,
    given_settings,
    recipe,
    setting,
    settings,
    training,
)
from policy.recipes import recipes_of
from policy.registry import CONFIGS, PLACES, usual_recipe
from policy.selection.config import PoolConfig, SelectorConfig, with_schedule

_BROKEN: list[UserError] = []
"""Why methods of other packages have no command; every other one says so, and nothing else."""


@click.group()
@click.version_option(package_name="thriftvid")
@tells_mistakes
def train_policy() -> None:
    """Train a policy from a feature cache, or one of the methods it is compared with.

    \b
    Example:
      train-policy liteeval --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --gamma 0.05 --out runs/liteeval
    """
    for error in _BROKEN:
        raise error


def _trains(method: str, **after: Callable[[Any], Any]) -> Callable[[Callable[..., None]], click.Command]:
    """A command that trains a method, with an option for each field of its configuration, and --recipe.

    Args:
        after: options of the command alone, by the field that they follow.
    """
    config = CONFIGS[method]
    if usual_recipe(method):
        streams = [name for name in ("coarse", "fine", "streams") if name in method_options(config)]
        after = {streams[-1]: recipe(recipes_of(config), config.read_names()), **after}

    def decorate(command: Callable[..., None]) -> click.Command:
        pairs = ((setting(config, name), after.get(name)) for name in method_options(config))
        fields = [decorator for pair in pairs for decorator in pair if decorator]
        checked: Callable[..., None] = tells_mistakes(command)
        return train_policy.command(cls=MethodCommand)(
            options(DATA, *fields, training(config), REPEATED, RUN)(checked)
        )

    return decorate


@_trains("liteeval")
def liteeval(**given: Any) -> None:
    """LiteEval: coarse features of every frame, fine ones where a learned gate opens.

    A run that was stopped goes on where it stopped when the same command is given again.

    \b
    Example:
      train-policy liteeval --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --gamma 0.05 --out runs/liteeval
    """
    train_method("liteeval", given)


@_trains("liteeval-rl")
def liteeval_rl(**given: Any) -> None:
    """LiteEval-RL: LiteEval with gates learned by REINFORCE instead of Gumbel-softmax.

    \b
    Example:
      train-policy liteeval-rl --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --gamma 0.05 --out runs/liteeval-rl
    """
    train_method("liteeval-rl", given)


LIKE = click.option("--like", type=click.Path(path_type=Path), help="A finished run whose usage to match.")


@_trains("random-gating", usage=LIKE)
def random_gating(like: Path | None, **given: Any) -> None:
    """Null control: LiteEval's network, trained and evaluated with gates that open at random.

    \b
    Example:
      train-policy random-gating --cache CACHE --labels labels.csv \\
        --coarse mobilenetv2_112 --fine resnet101_224 --like runs/liteeval --out runs/random-gating
    """
    from policy.runs import read_result

    usage = given_settings().get("usage", None if like else (given["of_run"] or {}).get("usage"))
    if (like is None) == (usage is None):
        raise UserError("say how often random gates open: either --usage or --like RUN")
    train_method("random-gating", given, usage=read_result(like).metrics["usage"] if like else usage)


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
    data = open_data(config, FeatureCache(given["cache"]), given_labels(given))
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
    train_method("selector", given)


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
    train_method("selector-cascade", given)


def add_commands() -> None:
    """A command for each method that needs nothing but its configuration, whose docstring is the help."""
    try:
        configs = dict(CONFIGS)
    except UserError as error:
        _BROKEN.append(error)
        configs = {method: CONFIGS[method] for method in PLACES}
    for method, config in configs.items():
        if method not in train_policy.commands:

            def command(method: str = method, **given: Any) -> None:
                train_method(method, given)

            command.__name__, command.__doc__ = method, config.__doc__
            _trains(method)(command)
        if method not in tune.commands:
            add_tuning(method, train_policy.commands[method])


add_commands()
train_policy.add_command(tune)
train_policy.add_command(evaluate)
train_policy.add_command(predict)
train_policy.add_command(export)
