"""Options of the commands, made from the fields of configurations; related ones as one decorator."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from click.core import ParameterSource

from cache_schema import UserError
from cache_schema.command import VAL_FRACTION, RequestError, label_options, options
from cache_schema.names import did_you_mean
from cache_schema.run_folder import CONFIG, read_json
from policy.config import DataConfig, RunConfig, TrainingConfig, flag_of, names_of, types_of
from policy.recipes import DEFAULT_RECIPE, NO_RECIPE

C = TypeVar("C", bound=Callable[..., Any])


class Setting(click.Option):
    """An option for a field of a configuration, of the same name.

    Attributes:
        parse, is_run: as `policy.config.option` has them.
        optional: whether the field may be None.
    """

    def __init__(
        self,
        *args: Any,
        parse: Callable[[Any], Any] | None = None,
        is_run: bool = False,
        optional: bool = False,
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        self.parse, self.is_run, self.optional = parse, is_run, optional

    def field_value(self, value: object, context: click.Context) -> Any:
        """The field's value from that of a config.json. Raises BadParameter where it is none."""
        if value is None and self.optional:
            return None
        if isinstance(value, list) != (self.multiple or self.parse is not None):
            raise click.BadParameter(f"{value!r} is not what it takes.", context, self)
        if not isinstance(value, list):
            return self.type.convert(str(value), self, context)
        if self.parse is not None:  # it names a file, whose content is kept
            return tuple(map(str, value))
        return tuple(self.type.convert(str(each), self, context) for each in value)

    def text_value(self, text: str, context: click.Context) -> Any:
        """The field's value from text. Raises BadParameter where it is none."""
        if text.lower() == "none" and self.optional:
            return None
        if self.parse is not None:
            return self.parse(self.type.convert(text, self, context))
        return self.field_value(text.split(",") if self.multiple else text, context)


def setting(config: type, name: str) -> Callable[[C], C]:
    """The option for a field."""
    option = next(option for option in fields(config) if option.name == name)
    metadata, kind, default = option.metadata, types_of(config)[name], option.default
    optional = NoneType in get_args(kind)
    if optional:
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
        flag_of(option),
        name,
        cls=Setting,
        default=None if metadata["parse"] else default,
        show_default=default is not None and default != (),  # zero is shown, unlike click's own rule
        optional=optional,
        **{key: metadata[key] for key in ("parse", "help", "metavar", "required", "is_run")},
        **of_kind,
    )


def settings(config: type, *names: str, without: Container[str] = ()) -> Callable[[C], C]:
    """The options for some fields; by default for all of them."""
    names = names or tuple(option.name for option in fields(config))
    return options(*(setting(config, name) for name in names if name not in without))


def training(config: type[RunConfig], *, without: Container[str] = ()) -> Callable[[C], C]:
    """The options for the training, those that a configuration reads, with its defaults."""
    names = (option.name for option in fields(TrainingConfig) if option.name in config.read_names())
    return settings(config, *names, without=without)


DATA = options(
    click.option("--cache", required=True, type=click.Path(path_type=Path), help="Feature cache."),
    click.option(
        "--labels",
        required=True,
        type=click.Path(path_type=Path),
        help="Annotation file, or a folder of annotation files or of videos (docs/labels.md).",
    ),
    label_options,
    VAL_FRACTION,
    settings(DataConfig),
)


def recipe(
    recipes: Mapping[str, Mapping[str, Any]],
    names: Container[str],
    default: str | None = DEFAULT_RECIPE,
    note: str = "",
) -> Callable[[C], C]:
    """--recipe.

    Args:
        recipes: those that there are.
        names: of the command's fields.
        note: of a default that depends on other options (None): what it is.
    """
    robust = recipes[DEFAULT_RECIPE].items()
    values = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in robust if name in names)
    texts = {
        "paper": "paper: its text",
        "released": "released: its authors' code",
        DEFAULT_RECIPE: f"{DEFAULT_RECIPE}: what needs no tuning ({values}; docs/robust.md)",
        NO_RECIPE: f"{NO_RECIPE}: the defaults that stand here",
    }
    choices = [*sorted(recipes), NO_RECIPE]
    return click.option(
        "--recipe",
        type=click.Choice(choices),
        default=default,
        show_default=True,
        help=f"Sets what is not given (docs/recipes.md). {'; '.join(texts[name] for name in choices)}.{note}",
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
    """The fields to which the user gave a value, by name: with an option, or with --set.

    Raises:
        UserError: with both.
    """
    context, names = click.get_current_context(), given_options()
    given = {
        option.name: option.parse(context.params[option.name])
        if option.parse
        else context.params[option.name]
        for option in context.command.params
        if isinstance(option, Setting) and option.name in names
    }
    assigned: dict[str, Any] = context.params.get("assigned") or {}
    if twice := sorted(given.keys() & assigned.keys()):
        raise UserError(f"{twice[0]} is given twice: as an option, and with --set")
    return given | assigned


def _settings_of(context: click.Context) -> dict[str, Setting]:
    """The fields that a command has options for."""
    return {str(one.name): one for one in context.command.params if isinstance(one, Setting)}


def _no_field(name: str, fields: Mapping[str, Setting], where: str) -> RequestError:
    close = did_you_mean(name, fields, cutoff=0.5) or f"; there are: {', '.join(sorted(fields))}"
    return RequestError(f"{where}: there is no field {name!r}{close}")


def _supply(context: click.Context, values: Mapping[str, Any]) -> None:
    """What the user would else have to give as an option."""
    required = {name for name, one in _settings_of(context).items() if one.required and name in values}
    context.default_map = {**(context.default_map or {}), **{name: values[name] for name in required}}


def _assigned(context: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> dict[str, Any]:
    """Values of fields by name, of texts NAME=VALUE."""
    fields, values = _settings_of(context), {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise RequestError(f"--set {text}: give NAME=VALUE, such as --set lr=1e-3")
        if name not in fields:
            raise _no_field(name, fields, f"--set {text}")
        if name in values:
            raise RequestError(f"--set {text}: {name} is set twice")
        try:
            values[name] = fields[name].text_value(value.strip(), context)
        except click.BadParameter as error:
            raise RequestError(f"--set {text}: {error.message}") from error
    _supply(context, values)
    return values


def _of_run(context: click.Context, parameter: click.Parameter, path: Path | None) -> dict[str, Any] | None:
    """Values of fields by name, of the run that a config.json describes, except those that name other runs."""
    if path is None:
        return None
    path = path / CONFIG if path.is_dir() else path
    fields, values = _settings_of(context), {}
    try:
        if not path.exists():
            raise UserError(f"{path}: no such file")
        content = read_json(path)
        method = content["config"]["method"]
        if method != context.command.name:
            raise UserError(f"{path}: of a run of {method}: give it to train-policy {method}")
        kept = {
            name: content["data"].get(name) for name in ("train_subset", "eval_subset", "validation_subset")
        }
        kept |= {
            name: content[name] for name in ("multi_label", "whole_only", "skip_missing") if name in content
        }
        for name, value in {**content["config"], **kept}.items():
            # Runs of earlier versions have options of the training that their method does not read.
            if name == "method" or (name not in fields and name in names_of(TrainingConfig)):
                continue
            if name not in fields:
                raise _no_field(name, fields, str(path))
            if not fields[name].is_run:
                try:
                    values[name] = fields[name].field_value(value, context)
                except click.BadParameter as error:
                    raise UserError(f"{path}: {name}: {error.message}") from error
        told = content["groups"]["told_by"] if "groups" in content else None
        groups = {f"group_{name}": value for name, value in (told or {}).items() if value is not None}
    except UserError as error:
        raise RequestError(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"{path}: not the config.json of a run of train-policy") from error
    context.default_map = {**(context.default_map or {}), **groups}
    _supply(context, values)
    return values


REPEATED = options(
    click.option(
        "--config",
        "of_run",
        type=click.Path(path_type=Path),
        is_eager=True,
        callback=_of_run,
        metavar="RUN/config.json",
        help="Do a run again: all options are those of its config.json, but for those that are given.",
    ),
    click.option(
        "--set",
        "assigned",
        multiple=True,
        is_eager=True,
        callback=_assigned,
        metavar="NAME=VALUE",
        help="Set an option by its name in config.json, to none where that is possible; repeat it.",
    ),
)


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


def config_words(config: RunConfig, usual: RunConfig) -> list[str]:
    """What a configuration has otherwise than another of its method, as words of the method's command line."""
    words: list[str] = []
    for option in fields(config):
        value = getattr(config, option.name)
        if value == getattr(usual, option.name):
            continue
        on, _, off = flag_of(option).partition("/")
        if isinstance(value, bool):
            words.append(on if value else off)
        elif value is not None:
            words += [
                word for one in (value if isinstance(value, tuple) else [value]) for word in (on, str(one))
            ]
    return words


def option_words(parameter: click.Parameter, value: Any) -> list[str]:
    """A parameter with a value, as words of a command line."""
    if not isinstance(parameter, click.Option):
        return [*map(str, value if isinstance(value, tuple) else [value])]
    if parameter.is_flag:
        return [*(parameter.opts[:1] if value else parameter.secondary_opts[:1])]
    values = value if parameter.multiple else [value]
    return [word for each in values for word in (parameter.opts[0], str(each))]
