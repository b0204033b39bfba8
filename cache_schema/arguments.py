"""Arguments that users give to functions: a wrong type is a line that says what is taken, not a traceback."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import os
from collections.abc import Callable
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from cache_schema.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

_NUMBERS: dict[Any, Any] = {int: Integral, float: Real}  # those of NumPy, too
_LONGEST = 60


def checks_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function raise UserError for an argument that is not of its annotation's type."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        kinds = get_type_hints(function)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            open_ended = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            if name in kinds and not open_ended and not _fits(value, kinds[name]):
                found = repr(value)
                if len(found) > _LONGEST:
                    found = f"{found[: _LONGEST - 1]}…"
                raise UserError(f"{name}: {' or '.join(_words(kinds[name]))} is taken, not {found}")
        return function(*args, **kwargs)

    return checked


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
