"""Where options are searched: ranges of the fields of a method's configuration.

A range is given ("lr=1e-4:1e-2" from one number to another, "cell=lstm,gru" one of some values), or is that of the
field (`policy.config.option`), or follows from its type, limit and default.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from cache_schema import UserError
from cache_schema.names import did_you_mean
from policy.config import SHARE, DataConfig, RunConfig, flag_of, names_of, types_of

if TYPE_CHECKING:  # a dependency that only tuning has
    from optuna import Trial

Choice = str | bool | int | float
_AROUND = {int: 4.0, float: 10.0}
"""A number is searched from its default divided by this to its default times this."""
_LOG_FROM = 10.0  # times the lower end: from here on the logarithm is searched


@dataclass(frozen=True)
class Range:
    """The values of an option among which tuning chooses.

    Attributes:
        name: of the field.
        choices: the values, if they are not those from `low` to `high`.
        whole: of a number: whether it is an integer.
        sets_cost: whether the option decides by itself how much a policy computes.
    """

    name: str
    choices: tuple[Choice, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    sets_cost: bool = False

    @property
    def log(self) -> bool:
        """Whether the logarithm is searched."""
        return self.low > 0 and self.high >= _LOG_FROM * self.low

    def draw(self, trial: Trial) -> Choice:
        """The value that a trial takes."""
        if self.choices:
            chosen = trial.suggest_categorical(self.name, self.choices)
            assert chosen is not None
            return chosen
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return self.short(trial.suggest_float(self.name, self.low, self.high, log=self.log))

    def short(self, value: Choice) -> Choice:
        """A number of three digits, so that the command that repeats a trial can be read, and is exact."""
        if not isinstance(value, float):
            return value
        return min(max(float(f"{value:.3g}"), self.low), self.high)

    def nearest(self, value: Choice | None) -> Choice:
        """The value in the range that is nearest to another, or the first of it."""
        if self.choices:
            return value if value is not None and value in self.choices else self.choices[0]
        nearest = min(max(value, self.low), self.high) if isinstance(value, (int, float)) else self.low
        return int(nearest) if self.whole else nearest

    def __str__(self) -> str:
        if self.choices:
            return ",".join(map(shown, self.choices))
        return f"{self.low:g}:{self.high:g}"


def ranges_of(config: RunConfig, texts: Sequence[str], given: Collection[str]) -> tuple[Range, ...]:
    """The ranges to search.

    Args:
        config: as it is without tuning.
        texts: NAME, NAME=LOW:HIGH or NAME=VALUE,VALUE,…; by default what is `searched` and not given.
        given: names of the fields that the user has given a value.

    Raises:
        UserError: there is no such option, it is given, or it cannot be tuned so.
    """
    options = [field for field in fields(config) if field.name in config.read_names()]
    by_flag = {_flag(field): field for field in options}
    by_flag |= {field.name.replace("_", "-"): field for field in options}
    if not texts:
        usual = {text.partition("=")[0]: text for text in config.searched}
        texts = [text for name, text in usual.items() if name not in given]
        if not texts:
            raise UserError(f"all of {', '.join(usual)} are given: say what to tune with --tune")
    ranges: dict[str, Range] = {}
    for text in texts:
        flag, _, extent = text.partition("=")
        field = by_flag.get(flag.strip().removeprefix("--").replace("_", "-"))
        if field is None:
            names = [_flag(one) for one in options if _why_not(config, one) is None]
            raise UserError(
                f"--tune {flag}: {config.method} has no such option; it can tune {', '.join(names)}"
                f"{did_you_mean(flag, names)}"
            )
        if field.name in given:
            raise UserError(
                f"--tune {flag}: --{_flag(field)} is given, which fixes it; leave out one of the two"
            )
        if field.name in ranges:
            raise UserError(f"--tune {flag}: is there twice")
        if why := _why_not(config, field):
            raise UserError(f"--tune {flag}: {why}")
        ranges[field.name] = _range(config, field, extent.strip())
    return tuple(ranges.values())


def describe(config: type[RunConfig]) -> str:
    """What is tuned by default and where, in words."""
    by_name = {field.name: field for field in fields(config)}
    plain = config()
    parts = (text.partition("=") for text in plain.searched)
    ranges = ((_flag(by_name[name]), _range(plain, by_name[name], extent)) for name, _, extent in parts)
    return ", ".join(f"{flag}={extent}" for flag, extent in ranges)


def values_of(params: Mapping[str, Choice], ranges: Sequence[Range]) -> dict[str, Choice]:
    """A trial's parameters in the order of the ranges."""
    return {one.name: one.short(params[one.name]) for one in ranges if one.name in params}


def _flag(field: Field[Any]) -> str:
    return flag_of(field).partition("/")[0].removeprefix("--")


def _why_not(config: RunConfig, field: Field[Any]) -> str | None:
    """Why an option cannot be tuned, if it cannot."""
    kind = _kind(config, field)
    if field.name in names_of(DataConfig):
        return "it says which videos there are, and how they are judged"
    if field.name == "seed":
        return "the luckiest seed is no better than the others on new videos"
    if kind not in (bool, int, float) and get_origin(kind) is not Literal:
        return "only numbers, switches and choices can be tuned"
    return None


def _kind(config: RunConfig, field: Field[Any]) -> Any:
    """The type of a field, without None."""
    kind = types_of(type(config))[field.name]
    if NoneType in get_args(kind):
        (kind,) = set(get_args(kind)) - {NoneType}
    return kind


def _range(config: RunConfig, field: Field[Any], extent: str) -> Range:
    """The range of a field: that in a text or, where it is empty, the usual one."""
    kind, cost = _kind(config, field), bool(field.metadata["sets_cost"])
    if extent and ":" not in extent:
        values = tuple(_parsed(config, field, word.strip()) for word in extent.split(","))
        return Range(field.name, tuple(dict.fromkeys(values)), sets_cost=cost)
    if kind is bool:
        return Range(field.name, (True, False), sets_cost=cost)
    if get_origin(kind) is Literal:
        if extent:
            raise UserError(
                f"--tune {_flag(field)}={extent}: give values, {','.join(get_args(kind))} for example"
            )
        return Range(field.name, get_args(kind), sets_cost=cost)
    if extent:
        low, high = (_parsed(config, field, word.strip()) for word in extent.split(":", 1))
        if not float(low) < float(high):
            raise UserError(f"--tune {_flag(field)}={extent}: {low} is not below {high}")
    elif field.metadata["search"]:
        low, high = field.metadata["search"]
    elif field.metadata["limit"] is SHARE:
        low, high = 0.0, 1.0
    elif default := getattr(config, field.name):
        low, high = default / _AROUND[kind], default * _AROUND[kind]
    else:
        raise UserError(f"--tune {_flag(field)}: say from where to where, as --tune {_flag(field)}=LOW:HIGH")
    if kind is int:
        low, high = max(1, round(low)), round(high)
    return Range(field.name, (), float(low), float(high), kind is int, cost)


def _parsed(config: RunConfig, field: Field[Any], word: str) -> Any:
    """A value of a field. Raises UserError where it is none, or out of its limits."""
    kind = _kind(config, field)
    switches = {"yes": True, "no": False}
    try:
        value = switches[word] if kind is bool else word if get_origin(kind) is Literal else kind(word)
    except (KeyError, ValueError) as error:
        what = {bool: "yes or no", int: "an integer", float: "a number"}[kind]
        raise UserError(f"--tune {_flag(field)}: {word!r} is not {what}") from error
    changed: dict[str, Any] = {field.name: value}
    try:
        replace(config, **changed).check_each()
    except UserError as error:
        raise UserError(f"--tune {error}") from error
    return value


def shown(value: Choice) -> str:
    """A value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
