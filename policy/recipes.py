"""Recipes by name: a paper's text, its authors' released code, and one that need not be tuned."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cache_schema import UserError
from policy.config import RunConfig, names_of

R = TypeVar("R", bound=RunConfig)


@dataclass(frozen=True)
class HalfOf:
    """Stands for half of another option's value."""

    option: str

    def __str__(self) -> str:
        return f"half of {self.option.replace('_', '-')}"


RECIPES: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "input_norm": "none",
        "coarse_projection": 0,
        "fine_projection": 0,
        "gate_state": "hidden",
        "noise": 1.0,
        "usage_loss": "video",
        "lam": 2.0,
        "lam_start": None,
        "lam_growth": "linear",
        "tau_start": 5.0,
        "tau_end": 0.5,
        "tau_decay": None,
        "lr": 1e-4,
        "weight_decay": 0.0,
        "lr_drop": (),
        "grad_clip": None,
    },
    "released": {
        "input_norm": "l2",
        "coarse_projection": 512,
        "fine_projection": 2048,
        "gate_state": "hidden+cell",
        "noise": 0.5,
        "usage_loss": "batch",
        "lam": 2.0,
        "lam_start": 1.0,
        "lam_growth": "step",
        "tau_start": 1.0,
        "tau_end": 0.5,
        "tau_decay": 1e-4,
        "lr": 1e-4,
        "weight_decay": 1e-4,
        "lr_drop": (40, 80),
        "grad_clip": 5.0,
        "multi_label": False,
    },
    "robust": {
        "coarse_hidden": HalfOf("fine_hidden"),
        "gate_hidden": 64,
        "usage_loss": "constrained",
        "warmup": 0.5,
        "readout": "attention",
        "dropout": 0.3,
        "classifier": "cross-validated",
        "batch": 32,
        "lr": 1e-3,
    },
}
"""What each recipe sets of LiteEval and of what it is compared with; docs/recipes.md has the first two side by
side, docs/robust.md the third. Methods of other papers have values of their own in place of the first two
(`RunConfig.published`). Sources: the paper, Sec. 3 and 4.1, which leaves τ's values open (5 is AR-Net's and
AdaMML's start); the code that its authors released in 2022, for FCVID; `benchmarks.robust`."""


DEFAULT_RECIPE = "robust"
"""What the commands train with where neither a recipe nor the paper's data set is given."""
NO_RECIPE = "none"
"""Stands for the defaults of the options themselves."""


def recipes_of(config: type[RunConfig]) -> Mapping[str, Mapping[str, Any]]:
    """The recipes that there are for a method, by name; none for one that is not trained by gradient descent."""
    if not config.by_descent:
        return {}
    return (
        RECIPES if config.published is None else {**config.published, DEFAULT_RECIPE: RECIPES[DEFAULT_RECIPE]}
    )


def with_recipe(config: R, name: str | None, given: Collection[str] = ()) -> R:
    """A configuration with a recipe's values for all its fields except the `given` ones.

    Args:
        name: `NO_RECIPE`, like None, changes nothing.

    Raises:
        UserError: there is no such recipe for the method.
    """
    if name is None or name == NO_RECIPE:
        return config
    recipes = recipes_of(type(config))
    if name not in recipes:
        there_are = ", ".join([*sorted(recipes), NO_RECIPE]) if recipes else "none at all"
        raise UserError(
            f"--recipe {name}: for {config.method} there is no such recipe; there are: {there_are}"
        )
    names = type(config).read_names() - set(given)
    values = {field: value for field, value in recipes[name].items() if field in names}
    return replace(config, **halved(values, type(config), vars(config)))


def halved(values: Mapping[str, Any], config: type[RunConfig], others: Mapping[str, Any]) -> dict[str, Any]:
    """The values without a `HalfOf`, which is taken of `values`, `others` or the configuration's default."""
    fields = {**{name: getattr(config, name) for name in names_of(config)}, **others, **values}
    return {
        name: max(1, fields[value.option] // 2) if isinstance(value, HalfOf) else value
        for name, value in values.items()
    }
