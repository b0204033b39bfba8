"""Functions that users call: of a wrong type a line says what is taken, and lines name arguments, not options.

What they have to say is said by code that commands call as well, in the words of their options.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from cache_schema.errors import UserError
from cache_schema.names import did_you_mean

P = ParamSpec("P")
R = TypeVar("R")

_NUMBERS: dict[Any, Any] = {int: Integral, float: Real}  # those of NumPy, too
_LONGEST = 60
_OPTION = re.compile(r"`[^`]*`|(?<![\w-])--(?P<option>[a-z]+(?:-[a-z]+)*)")


def checks_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function raise UserError for an argument that is not of its annotation's type."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        kinds = get_type_hints(function)
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in signature.parameters.values()):
            for name in kwargs.keys() - signature.parameters.keys():
                near = did_you_mean(name, [one for one in signature.parameters if one != "self"])
                raise UserError(f"{function.__name__} takes no argument {name!r}{near}")
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            open_ended = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            if name in kinds and not open_ended and not _fits(value, kinds[name]):
                found = repr(value)
                if len(found) > _LONGEST:
                    found = f"{found[: _LONGEST - 1]}…"
                raise UserError(f"{name}: {' or '.join(_words(kinds[name]))} is taken, not {found}")
        return function(*args, **kwargs)

    return checked


def speaks_python(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let the lines that a function raises, or gives to its `note`, name arguments: `usage`, not --usage.

    Within a command they stay as they are.

    Args:
        names: what an option (with "_" for "-") is called in Python, where that is something else.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        note_parameter = inspect.signature(function).parameters.get("note")

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            if click.get_current_context(silent=True) is not None:
                return function(*args, **kwargs)
            given: dict[str, Any] = kwargs
            if note_parameter is not None:
                note = given.get("note", note_parameter.default)
                if callable(note):
                    given["note"] = lambda line: note(in_python(line, names))
            try:
                return function(*args, **kwargs)
            except UserError as error:
                error.args = (in_python(str(error), names), *error.args[1:])
                raise

        return called

    return decorate


def in_python(line: str, names: Mapping[str, str]) -> str:
    """A line with names of arguments for those of options, but for commands between backticks.

    Args:
        names: as of `speaks_python`.
    """

    def name(match: re.Match[str]) -> str:
        if match["option"] is None:
            return match[0]
        usual = match["option"].replace("-", "_")
        return names.get(usual, usual)

    return _OPTION.sub(name, line)


def _fits(value: Any, kind: Any) -> bool:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in args)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin is collections.abc.Callable:
        return callable(value)
    if origin is collections.abc.Mapping:
        return isinstance(value, origin) and all(
            _fits(one, args[0]) and _fits(other, args[1]) for one, other in value.items()
        )
    if origin is collections.abc.Sequence:  # or an array, a set, a generator
        if isinstance(value, (str, bytes, collections.abc.Mapping)) or not hasattr(value, "__iter__"):
            return False
        return not hasattr(value, "__len__") or all(_fits(one, args[0]) for one in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, _NUMBERS.get(kind, origin or kind))


def _words(kind: Any) -> list[str]:
    """What is taken: "str", "Path", "a list of str or Path"."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return list(dict.fromkeys(word for one in args for word in _words(one)))
    if origin is Literal:
        return [repr(one) for one in args]
    if origin is collections.abc.Callable:
        return ["a function"]
    if origin is collections.abc.Mapping:
        return [f"a dict of {' or '.join(_words(args[1]))}"]
    if origin is collections.abc.Sequence:
        return [f"a list of {' or '.join(_words(args[0]))}"]
    if kind is NoneType:
        return ["None"]
    return ["Path" if origin is os.PathLike else str(kind.__name__)]
