"""What samplers share: any number of streams, and values that are moved and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from cache_schema import UserError
from policy.config import RunConfig
from policy.data.batches import Role
from policy.samplers.rows_config import FurtherStreamsConfig


def further_streams(config: RunConfig, names: dict[Role, str]) -> dict[Role, str]:
    """The streams of a configuration by role, with the further ones. Raises UserError where one is named twice."""
    assert isinstance(config, FurtherStreamsConfig)
    names = names | {f"stream {number}": name for number, name in enumerate(config.further_streams, 1)}
    every = list(names.values())
    if twice := next((name for name in every if every.count(name) > 1), None):
        raise UserError(f"stream {twice!r} is named twice, and would be read twice: leave one out")
    return names


@contextmanager
def held_at(buffer: Tensor, value: float) -> Iterator[None]:
    """Within it a buffer has this value; afterwards the one before."""
    before = buffer.clone()
    buffer.fill_(value)
    try:
        yield
    finally:
        buffer.copy_(before)
