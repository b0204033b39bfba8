"""Options of the commands, made from the fields of configurations; related ones as one decorator."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from click.core import ParameterSource

from cache_schema.command import LABELS_FORMAT
from policy.config import DataConfig, TrainingConfig, types_of
from policy.recipes import DEFAULT_RECIPE, NO_RECIPE, RECIPES

C = TypeVar("C", bound=Callable[..., Any])


def options(*decorators: Callable[[Any], Any]) -> Callable[[C], C]:
    """Several options as one decorator, in the order in which --help shows them."""

    def decorate(command: C) -> C:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


class Setting(click.Option):
    """An option for a field of a configuration, of the same name."""

    def __init__(self, *args: Any, parse: Callable[[Any], Any] | None = None, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.parse = parse


def setting(config: type, name: str) -> Callable[[C], C]:
    """The option for a field."""
    option = next(option for option in fields(config) if option.name == name)
    metadata, kind, default = option.metadata, types_of(config)[name], option.default
    if NoneType in get_args(kind):
        (kind,) = set(get_args(kind)) - {NoneType}
    of_kind: dict[str, Any] = {"type": kind}
    if metadata["type"] is not None:
        of_kind = {"type": metadata["type"]}
    elif get_origin(kind) is Literal:
        of_kind = {"type": click.Choice(get_args(kind))}
    elif get_origin(kind) is tuple:
        of_kind = {"type": get_args(kind)[0], "multiple": True}
    elif kind is bool:
        of_kind = {"is_flag": True}
    return click.option(
        metadata["flag"] or f"--{name.replace('_', '-')}",
        name,
        cls=Setting,
        default=None if metadata["parse"] else default,
        show_default=default is not None and default != (),  # zero is shown, unlike click's own rule
        **{key: metadata[key] for key in ("parse", "help", "metavar", "required")},
        **of_kind,
    )


def settings(config: type, *names: str, without: Container[str] = ()) -> Callable[[C], C]:
    """The options for some fields; by default for all of them."""
    names = names or tuple(option.name for option in fields(config))
    return options(*(setting(config, name) for name in names if name not in without))


def training(config: type[TrainingConfig], *, without: Container[str] = ()) -> Callable[[C], C]:
    """The options for the training, with the defaults of a configuration."""
    return settings(config, *(option.name for option in fields(TrainingConfig)), without=without)


DATA = options(
    click.option("--cache", required=True, type=click.Path(path_type=Path), help="Feature cache."),
    click.option(
        "--labels",
        required=True,
        type=click.Path(path_type=Path),
        help="Annotation file, or the folder of a benchmark's own files.",
    ),
    LABELS_FORMAT,
    settings(DataConfig),
)


def recipe(default: str | None = DEFAULT_RECIPE, note: str = "") -> Callable[[C], C]:
    """--recipe. Of a default that depends on other options (None) `note` says what it is."""
    values = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in RECIPES["robust"].items())
    return click.option(
        "--recipe",
        type=click.Choice([*sorted(RECIPES), NO_RECIPE]),
        default=default,
        show_default=True,
        help=f"Sets what is not given. robust: what needs no tuning ({values}; docs/robust.md); paper: its text; "
        f"released: its authors' code (docs/recipes.md); {NO_RECIPE}: the defaults that stand here.{note}",
    )


def given_options() -> frozenset[str]:
    """The names of the running command's options to which the user gave a value."""
    context = click.get_current_context()
    return frozenset(
        name
        for name in context.params
        if context.get_parameter_source(name) not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    )


def given_settings() -> dict[str, Any]:
    """The fields to which the user gave a value, by name."""
    context, names = click.get_current_context(), given_options()
    return {
        option.name: option.parse(context.params[option.name])
        if option.parse
        else context.params[option.name]
        for option in context.command.params
        if isinstance(option, Setting) and option.name in names
    }


def command_words(names: Container[str], **changed: Any) -> list[str]:
    """The options and arguments of the running command that the user gave, as words of a command line.

    Args:
        names: of the parameters that are taken.
        changed: values in place of the user's; None leaves one out.
    """
    context = click.get_current_context()
    words: list[str] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        value = changed.get(name, context.params[name])
        default = context.get_parameter_source(name) is not ParameterSource.COMMANDLINE
        if name in names and not default and value is not None:
            words += option_words(parameter, value)
    return words


def option_words(parameter: click.Parameter, value: Any) -> list[str]:
    """A parameter with a value, as words of a command line."""
    if not isinstance(parameter, click.Option):
        return [*map(str, value if isinstance(value, tuple) else [value])]
    if parameter.is_flag:
        return [*(parameter.opts[:1] if value else parameter.secondary_opts[:1])]
    values = value if parameter.multiple else [value]
    return [word for each in values for word in (parameter.opts[0], str(each))]
