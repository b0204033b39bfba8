"""A Dask cluster to work on: for extraction and for training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cache_schema import UserError

_TIMEOUT_S = 20


@contextlib.contextmanager
def cluster(address: str) -> Iterator[int]:
    """Connect to a scheduler; joblib's "dask" backend then uses it. Yields how many jobs its workers do at once.

    Raises:
        UserError: Dask is not installed, nobody answers, or the scheduler has no workers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError("a Dask cluster needs Dask: pip install 'thriftvid[dask]'") from error
    try:
        client = Client(address, timeout=_TIMEOUT_S)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"--scheduler {address}: no Dask scheduler answers there ({type(error).__name__}); start one with "
            "`dask scheduler`, which prints its address"
        ) from error
    with client:
        slots = sum(client.nthreads().values())
        if not slots:
            raise UserError(
                f"--scheduler {address}: it has no workers; start some with `dask worker {address} --nthreads 1`"
            )
        yield slots
