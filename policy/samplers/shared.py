"""What samplers share: any number of streams, and nothing that is trained by descent."""

from __future__ import annotations

import torch

from cache_schema import UserError
from policy.config import RunConfig
from policy.data.batches import Batch, Role
from policy.method import Losses, Method, Moment
from policy.samplers.rows_config import FurtherStreamsConfig


def further_streams(config: RunConfig, names: dict[Role, str]) -> dict[Role, str]:
    """The streams of a configuration by role, with the further ones. Raises UserError where one is named twice."""
    assert isinstance(config, FurtherStreamsConfig)
    names = names | {f"stream {number}": name for number, name in enumerate(config.further_streams, 1)}
    every = list(names.values())
    if twice := next((name for name in every if every.count(name) > 1), None):
        raise UserError(f"stream {twice!r} is named twice, and would be read twice: leave one out")
    return names


class FittedAtOnce(Method):
    """Nothing of it is trained by gradient descent: `finish` fits what there is."""

    fits_at_once = True

    @property
    def by_descent(self) -> bool:
        return False

    def losses(self, batch: Batch, moment: Moment, generator: torch.Generator) -> Losses:
        raise NotImplementedError("nothing is trained by gradient descent")
