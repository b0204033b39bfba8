"""What samplers share: any number of streams."""

from __future__ import annotations

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
