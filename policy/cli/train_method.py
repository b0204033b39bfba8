"""What all commands of train-policy that train a method do, and the options that are for all of them."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cache_schema import FeatureCache, UserError
from cache_schema.annotations import LabelSet
from cache_schema.command import (
    AS_JSON,
    DEVICE,
    given_labels,
    options,
)
from cache_schema.names import some
from policy.config import RunConfig
from policy.options import (
    command_words,
    given_options,
    given_settings,
)
from policy.registry import completed, instead_of, repeated

if TYPE_CHECKING:
    from policy.training.distributed import Ranks
    from policy.training.loop import Epoch

Log = Callable[[str], None]

RUN = options(
    click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder."),
    DEVICE,
    click.option("--tensorboard", is_flag=True, help="Write scalars for TensorBoard to OUT/tensorboard."),
    click.option("--wandb", metavar="PROJECT", help="Log scalars to this project of Weights & Biases."),
    click.option(
        "--log-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Append what is printed, and a line for each epoch, to this file, with the time.",
    ),
    AS_JSON,
)


class MethodCommand(click.Command):
    """A command of a method. Of an option that only others have it says which of its own does that."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            option = error.option_name
            instead = instead_of(str(self.name), option) or self._beside(ctx, option)
            if not instead:
                raise
            raise click.UsageError(f"No such option '{option}'{instead}.", ctx) from error

    @staticmethod
    def _beside(ctx: click.Context, option: str) -> str:
        """Which methods have an option that is no field, as the end of a message; empty where none has."""
        group = ctx.parent.command if ctx.parent else None
        commands = group.commands.values() if isinstance(group, click.Group) else ()
        having = [
            str(one.name)
            for one in commands
            if isinstance(one, MethodCommand) and any(option in parameter.opts for parameter in one.params)
        ]
        return f"; it is an option of {some(having, str)}" if having else ""


def train_method(method: str, given: dict[str, Any], **more: Any) -> None:
    """Train a method with the options of the running command.

    Args:
        more: fields that no option sets.
    """
    config, leads = _config(method, given, more), True
    # Before torch is imported, which takes seconds; of several processes the first will do it.
    opened = None if "TORCHELASTIC_RUN_ID" in os.environ else _open(config, given)

    from policy.training.distributed import PeerLost, joined
    from policy.training.stopping import Terminated, exit_code, terminable

    try:
        with terminable(), joined() as ranks:
            leads = ranks.leads
            with _logged(given["log_file"] if leads else None) as log:
                _train(config, given, ranks, opened, log)
    except (Terminated, KeyboardInterrupt) as stop:
        if leads:
            click.echo("stopped; give the same command again to go on", err=True)
        raise SystemExit(exit_code(stop)) from stop
    except PeerLost as lost:  # the other process has said why
        raise SystemExit(1) from lost


def _config(method: str, given: Mapping[str, Any], more: Mapping[str, Any]) -> RunConfig:
    values, recipe = {**given_settings(), **more}, given.get("recipe")
    if given["of_run"] is None:
        return completed(method, values, recipe)
    if "recipe" in given_options():
        raise UserError("give --recipe or --config, which has all options already")
    return repeated(method, given["of_run"], values)


def _open(config: RunConfig, given: dict[str, Any]) -> tuple[FeatureCache, LabelSet]:
    """What a configuration is to be trained on. Raises UserError for what is wrong at first sight."""
    config.check()
    cache = FeatureCache(given["cache"])
    for name in config.stream_names():
        cache[name]
    return cache, given_labels(given)


def _train(
    config: RunConfig,
    given: dict[str, Any],
    ranks: Ranks,
    opened: tuple[FeatureCache, LabelSet] | None,
    log: Log,
) -> None:
    from policy.runs import Listener, assist, run_method
    from policy.training.scalars import Scalars

    # The others wait until the first process has checked everything, so that a mistake is reported once.
    if not ranks.leads and not ranks.broadcast():
        return
    cache, labels = opened or _open(config, given)
    if not ranks.leads:
        assist(config, cache, labels, given["out"], device=given["device"], ranks=ranks)
        return

    def say(line: str) -> None:
        click.echo(line, err=True)
        log(line)

    with (
        Scalars(given["out"], tensorboard=given["tensorboard"], wandb=given["wandb"]) as scalars,
        _progress(config.epochs) as on_epoch,
    ):

        def epoch(metrics: Epoch) -> None:
            on_epoch(metrics)
            scalars.epoch(metrics)
            log(_epoch_text(metrics, config.epochs))

        def earlier(history: Sequence[Epoch]) -> None:
            for metrics in history[-1:]:
                on_epoch(metrics)
            scalars.earlier(history)

        listener = Listener(say, epoch, earlier)
        run = run_method(
            config, cache, labels, given["out"], device=given["device"], listener=listener, ranks=ranks
        )
        scalars.result(run.result.as_json())
    if run.reused:
        say(f"{run.folder}: had already been finished with this configuration and data")
    from policy.cli.result_text import result_text

    details = run.details()
    text = result_text(config, run.result, details, run.folder, run.class_scores)
    log(text)
    if given["as_json"]:
        result = {**run.result.as_json(), "folder": str(run.folder), "reused": run.reused}
        result |= {"details": details} if details else {}
        text = json.dumps(result, indent=2, ensure_ascii=False)
    click.echo(text)


@contextmanager
def _logged(path: Path | None) -> Iterator[Log]:
    """Lines are appended to a file, if there is one: first the command, at last what has ended the block.

    Raises:
        UserError: it cannot be written to.
    """
    if path is None:
        yield lambda line: None
        return
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--log-file {path}: cannot be written to: {error.strerror or error}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.Logger("train-policy")  # of its own, whatever else is logged in this process
    logger.addHandler(handler)
    context = click.get_current_context()
    names = {str(parameter.name) for parameter in context.command.params}
    logger.info(shlex.join(["train-policy", str(context.info_name), *command_words(names)]))

    def log(text: str) -> None:
        for line in filter(None, text.splitlines()):
            logger.info(line)

    try:
        yield log
    except UserError as error:
        logger.error("Error: %s", error)
        raise
    except BaseException as error:
        logger.error("ended by %s", type(error).__name__, exc_info=isinstance(error, Exception))
        raise
    finally:
        handler.close()


def _epoch_text(epoch: Epoch, epochs: int) -> str:
    numbers = (f"{name.replace('_', ' ')} {value:.4g}" for name, value in epoch.items() if name != "epoch")
    return f"epoch {epoch['epoch']} of {epochs}: {', '.join(numbers)}"


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
            names = ("loss", "usage", "validation_loss", "validation_top1", "validation_video_map")
            metrics = ", ".join(
                f"{name.replace('_', ' ')} {epoch[name]:.3f}" for name in names if name in epoch
            )
            progress.update(task, completed=epoch["epoch"], metrics=metrics)

        yield on_epoch
