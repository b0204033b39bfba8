"""The methods by their name on the command line; the only module that knows every family.

Other packages add methods by entry points (docs/extending.md): those of the group `GROUPS[0]` are configurations,
which import no torch, those of `GROUPS[1]` the methods, both by the method's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeVar

from cache_schema import UserError
from cache_schema.names import did_you_mean, some
from policy.config import RunConfig, counts_rows, flag_of, names_of, names_streams
from policy.recipes import DEFAULT_RECIPE, halved, recipes_of, with_recipe

if TYPE_CHECKING:  # it imports torch, for which --help has no time
    from policy.method import Method

T = TypeVar("T")

PLACES: Mapping[str, tuple[str, str, str]] = {
    "liteeval": ("liteeval", "config:LiteEvalConfig", "method:LiteEvalMethod"),
    "uniform": ("baselines", "config:UniformConfig", "uniform:Uniform"),
    "uniform-cf": ("baselines", "config:UniformCFConfig", "uniform:UniformCF"),
    "lstm": ("baselines", "config:FineLSTMConfig", "lstm:FineLSTM"),
    "lstm-cf": ("baselines", "config:CoarseFineLSTMConfig", "lstm:CoarseFineLSTM"),
    "frame-glimpse": ("baselines", "config:FrameGlimpseConfig", "frame_glimpse:FrameGlimpse"),
    "fast-forward": ("baselines", "config:FastForwardConfig", "fast_forward:FastForward"),
    "liteeval-rl": ("liteeval", "config:LiteEvalRLConfig", "liteeval_rl:LiteEvalRL"),
    "coarse-only": ("baselines", "config:CoarseOnlyConfig", "lstm:CoarseOnly"),
    "adaframe": ("samplers", "adaframe_config:AdaFrameConfig", "adaframe:AdaFrame"),
    "random-gating": ("liteeval", "config:RandomGatingConfig", "random_gating:RandomGating"),
    "frame-exit": ("samplers", "rows_config:FrameExitConfig", "frame_exit:FrameExit"),
    "scsampler": ("samplers", "rows_config:SCSamplerConfig", "scsampler:SCSampler"),
    "confidence-exit": ("samplers", "rows_config:ConfidenceExitConfig", "confidence_exit:ConfidenceExit"),
    "motion-difference": (
        "samplers",
        "rows_config:MotionDifferenceConfig",
        "motion_difference:MotionDifference",
    ),
    "selector": ("selection", "config:SelectorConfig", "method:Selector"),
    "selector-cascade": ("selection", "config:SelectorCascadeConfig", "sequential:SelectorCascade"),
    "localization-selector": (
        "localization",
        "config:LocalizationSelectorConfig",
        "selector:LocalizationSelector",
    ),
    "ar-net": ("samplers", "ar_net_config:ARNetConfig", "ar_net:ARNet"),
    "wtalc": ("localization", "config:WTALCConfig", "method:WTALC"),
}
"""By name: the family, and in it the places of the configuration and of the method."""


GROUPS = ("thriftvid.configurations", "thriftvid.methods")


@cache
def from_packages() -> Mapping[str, tuple[EntryPoint, EntryPoint]]:
    """Configuration and method of other packages, by the method's name.

    Raises:
        UserError: a package names one without the other, or as a method that there is.
    """
    configs, methods = ({point.name: point for point in entry_points(group=group)} for group in GROUPS)
    for name, point in {**configs, **methods}.items():
        if name in PLACES:
            raise UserError(
                f"{_package(point)} adds the method {name}, which there is: it must rename its own"
            )
        if name not in configs or name not in methods:
            missing = GROUPS[name in configs]
            raise UserError(f"{_package(point)} adds the method {name} without an entry point in {missing}")
    return {name: (point, methods[name]) for name, point in configs.items()}


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name if point.dist else point.module}"


class _Registry(Mapping[str, T]):
    """Knows the names, and imports a class when it is asked for.

    Args:
        part: of `PLACES`, and one more than that of `GROUPS`.
    """

    def __init__(self, part: int) -> None:
        self._part = part

    def __getitem__(self, name: str) -> T:
        place = PLACES.get(name)
        if place is None:
            return self._loaded(from_packages()[name][self._part - 1])
        resolved: T = resolve_name(f"policy.{place[0]}.{place[self._part]}")
        return resolved

    @staticmethod
    def _loaded(point: EntryPoint) -> T:
        try:
            loaded: T = point.load()
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"{_package(point)}: its method {point.name} cannot be imported: {error}; repair or uninstall it"
            ) from error
        return loaded

    def __contains__(self, name: object) -> bool:  # without an import
        return name in PLACES or name in from_packages()

    def __iter__(self) -> Iterator[str]:
        yield from PLACES
        yield from from_packages()

    def __len__(self) -> int:
        return len(PLACES) + len(from_packages())


CONFIGS: Mapping[str, type[RunConfig]] = _Registry(1)
"""The options of each method; these need no torch."""
METHODS: Mapping[str, type[Method]] = _Registry(2)


def config_of(method: str) -> type[RunConfig]:
    """The options of a method. Raises UserError, which names those most like it, where there is no such method."""
    if method not in CONFIGS:
        close = did_you_mean(method, CONFIGS)
        raise UserError(f"no method {method!r}; there are: {', '.join(CONFIGS)}{close}")
    return CONFIGS[method]


_ALIKE = ((names_streams, "names its streams by"), (counts_rows, "counts rows by"))
"""Options that stand for each other in different methods, and in words what they do."""


def instead_of(method: str, name: str) -> str:
    """What to say of an option that a method does not have, as the end of a message: which of its own stands for
    it, or which methods have it.

    Args:
        name: of the field, or as commands have it, "--coarse"; others are named alike.

    Returns:
        Empty where no method has it, or this one does.
    """

    def is_it(option: Field[Any]) -> bool:
        return name == option.name or name in flag_of(option).split("/")

    config = CONFIGS[method]
    having = {
        other: option
        for other, its_config in CONFIGS.items()
        for option in fields(its_config)
        if is_it(option) and option.name in its_config.read_names()
    }
    if method in having or not having:
        return ""
    if any(is_it(option) and option.name not in config.read_names() for option in fields(config)):
        return f"; nothing of {method} is trained by gradient descent"
    for alike, does in _ALIKE:
        own = [
            f"{flag_of(option) if name.startswith('--') else option.name} "
            f"({re.split('[.;](?: |$)', option.metadata['help'])[0]})"
            for option in fields(config)
            if alike(option)
        ]
        if own and any(map(alike, having.values())):
            return f"; {method} {does} {' and '.join(own)}"
    return f"; it is an option of {some(having, str)}"


def configure(method: str, values: Mapping[str, Any], **more: Any) -> RunConfig:
    """A method's configuration from those values that it reads; `more` takes precedence over `values`.

    Raises:
        UserError: there is no such method.
        TypeError: one of the values is not an option of any method.
    """
    config, values = config_of(method), {**values, **more}
    options = config.read_names()
    unknown = values.keys() - options
    if unknown and (unknown := unknown - names_of(*CONFIGS.values())):
        raise TypeError(f"no method reads {', '.join(sorted(unknown))}")
    taken = {name: value for name, value in values.items() if name in options}
    return config(**halved(taken, config, {}))


def usual_recipe(method: str) -> str | None:
    """What a method is trained with where no recipe is named: those that take streams of frames, and that gradient
    descent trains, share one."""
    from policy.selection.config import SelectionConfig

    config = CONFIGS[method]
    of_frames = names_of(config) & {"coarse", "fine", "streams"} and not issubclass(config, SelectionConfig)
    return DEFAULT_RECIPE if of_frames and recipes_of(config) else None


def completed(method: str, values: Mapping[str, Any], recipe: str | None = None) -> RunConfig:
    """A method's configuration as `train-policy` trains it.

    Args:
        values: what the user has given.
        recipe: sets the fields that are not given.

    Raises:
        UserError: as `configure`; or values contradict each other.
    """
    from policy.selection.config import SelectionConfig, with_given

    config = configure(method, values)
    if isinstance(config, SelectionConfig):
        return with_given(config, recipe, values)
    return with_recipe(config, recipe, values)


def repeated(method: str, of_run: Mapping[str, Any], values: Mapping[str, Any]) -> RunConfig:
    """The configuration of a run, with other values for some fields.

    Args:
        of_run: of its fields, as config.json has them.
        values: what the user has given.

    Raises:
        UserError: as `completed`.
    """
    from policy.selection.config import SelectionConfig, check_read, usual_drops, with_schedule

    fields = {**CONFIGS[method].earlier, **of_run}
    kept = CONFIGS[method](**fields)
    for one, other in (("threshold", "budget"), ("budget", "threshold")):  # each would set the other
        if one in values and other not in values:
            fields.pop(other, None)
    config = CONFIGS[method](**{**fields, **values})
    if not isinstance(config, SelectionConfig):
        return config
    assert isinstance(kept, SelectionConfig)
    check_read(config, values)
    given = {*values, *[name for name in ("budget", "threshold") if fields.get(name) is not None][:1]}
    if kept.lr_drop != usual_drops(kept.epochs):
        given.add("lr_drop")
    return with_schedule(config, given)
