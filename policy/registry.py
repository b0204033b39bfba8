"""The methods by their name on the command line; the only module that knows every family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeVar

from cache_schema import UserError
from policy.config import RunConfig, names_of
from policy.recipes import DEFAULT_RECIPE, with_recipe

if TYPE_CHECKING:  # it imports torch, for which --help has no time
    from policy.method import Method

T = TypeVar("T")

_PLACES = {
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
    "selector": ("selection", "config:SelectorConfig", "method:Selector"),
    "selector-cascade": ("selection", "config:SelectorCascadeConfig", "sequential:SelectorCascade"),
    "localization-selector": (
        "localization",
        "config:LocalizationSelectorConfig",
        "selector:LocalizationSelector",
    ),
    "wtalc": ("localization", "config:WTALCConfig", "method:WTALC"),
}
"""By name: the family, and in it the places of the configuration and of the method."""


class _Registry(Mapping[str, T]):
    """Knows the names, and imports a class when it is asked for.

    Args:
        part: of `_PLACES`.
    """

    def __init__(self, part: int) -> None:
        self._part = part

    def __getitem__(self, name: str) -> T:
        place = _PLACES[name]
        resolved: T = resolve_name(f"policy.{place[0]}.{place[self._part]}")
        return resolved

    def __contains__(self, name: object) -> bool:  # without an import
        return name in _PLACES

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


CONFIGS: Mapping[str, type[RunConfig]] = _Registry(1)
"""The options of each method; these need no torch."""
METHODS: Mapping[str, type[Method]] = _Registry(2)


def configure(method: str, values: Mapping[str, Any], **more: Any) -> RunConfig:
    """A method's configuration from those values that it reads; `more` takes precedence over `values`.

    Raises:
        UserError: there is no such method.
        TypeError: one of the values is not an option of any method.
    """
    if method not in CONFIGS:
        raise UserError(f"no method {method!r}; there are: {', '.join(CONFIGS)}")
    config, values = CONFIGS[method], {**values, **more}
    options = names_of(config)
    unknown = values.keys() - options
    if unknown and (unknown := unknown - names_of(*CONFIGS.values())):
        raise TypeError(f"no method reads {', '.join(sorted(unknown))}")
    return config(**{name: value for name, value in values.items() if name in options})


def usual_recipe(method: str) -> str | None:
    """What a method is trained with where no recipe is named: those that take streams of frames share one."""
    from policy.selection.config import SelectionConfig

    config = CONFIGS[method]
    of_frames = names_of(config) & {"coarse", "fine"} and not issubclass(config, SelectionConfig)
    return DEFAULT_RECIPE if of_frames else None


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
