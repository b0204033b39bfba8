"""When a selector's learning rate falls."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from cache_schema import UserError
from policy.config import RunConfig


def with_schedule(config: RunConfig, asked: Container[str]) -> RunConfig:
    """The learning rate falls to a tenth after two and four fifths of the epochs, where nothing else is asked for.

    Sec. 4.1 has epochs 2 and 4 of 5. Small collections need more epochs, and a rate that does not fall at once.

    Args:
        asked: names of the options that the user has given a value.

    Raises:
        UserError: both a threshold and a budget, which would set it, are given, or folds of no heads.
    """
    if "threshold" in asked and "budget" in asked:
        raise UserError("give --threshold or --budget, which sets the threshold")
    if "folds" in asked and config.heads != "linear":
        raise UserError(
            "--folds is about linear heads: give --heads linear, or for class scores --out-of-fold"
        )
    if "lr_drop" in asked:
        return config
    drops = (2 * config.epochs // 5, 4 * config.epochs // 5)
    return replace(config, lr_drop=tuple(drop for drop in drops if drop))
