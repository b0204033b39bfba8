"""What a selector's options mean together: its learning rate, and where it decides."""

from __future__ import annotations

import math
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
        UserError: both a threshold and a budget, which would set it, are given; neither is, and the selector goes
            by price, of which there is no usual one; a rule that its target does not have; folds of no
            heads; or a confidence above 1.
    """
    if "threshold" in asked and "budget" in asked:
        raise UserError("give --threshold or --budget, which sets the threshold")
    if "folds" in asked and config.heads != "linear":
        raise UserError(
            "--folds is about linear heads: give --heads linear, or for class scores --out-of-fold"
        )
    if config.target == "loss" and "rule" in asked and config.rule != "price":
        raise UserError(
            f"--rule {config.rule} is for --target affinity; expected losses are weighed by price"
        )
    if config.threshold is not None and 1 < config.threshold < math.inf and not by_price(config):
        raise UserError(f"--threshold {config.threshold:g}: no confidence is larger than 1")
    given = "threshold" in asked or "budget" in asked
    if config.method == "selector" and by_price(config) and not given:
        how = "--target loss" if config.target == "loss" else "--rule price"
        raise UserError(
            f"{how} weighs models by the price of a GFLOP: give --budget GFLOPS, which finds it, or the price "
            "itself as --threshold (0.01: ten GFLOPs must bring a tenth)"
        )
    if "lr_drop" in asked:
        return config
    drops = (2 * config.epochs // 5, 4 * config.epochs // 5)
    return replace(config, lr_drop=tuple(drop for drop in drops if drop))


def by_price(config: RunConfig) -> bool:
    """Whether models are chosen by price rather than by a threshold."""
    return config.method == "selector-cascade" or config.target == "loss" or config.rule == "price"


def threshold_of(config: RunConfig, models: int) -> float:
    """The threshold or price that a configuration gives.

    Where it gives none: 1/N, which the largest of N confidences that sum to 1 always reaches, so that no video is
    left to `when_none`; of prices 0.01, for which ten GFLOPs must bring a tenth.
    """
    if config.threshold is not None:
        return config.threshold
    return 0.01 if by_price(config) else 1 / models
