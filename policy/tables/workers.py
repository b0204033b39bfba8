"""Where the work of a table is done: in this process, in several, or on a Dask cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

from joblib import Parallel, delayed, parallel_config

from cache_schema import UserError
from cache_schema.command import cluster

T = TypeVar("T")
R = TypeVar("R")

_DEATHS = ("TerminatedWorkerError", "BrokenProcessPool", "KilledWorker")  # loky's and Dask's names

_turn = threading.Lock()


@dataclass(frozen=True)
class Workers:
    """Attributes:
    jobs: processes of this machine.
    scheduler: address of the scheduler of a Dask cluster, which replaces them.
    """

    jobs: int = 1
    scheduler: str | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether paths must be valid on other machines."""
        return self.scheduler is not None

    def each(self, here: Callable[[T], R], away: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
        """Yield results as they become available.

        Args:
            here: does a task in this process.
            away: does it in another process, to which the function is pickled.

        Raises:
            UserError: the cluster cannot be reached, or a process died.
        """
        if not self.elsewhere and (self.jobs == 1 or len(tasks) <= 1):
            yield from map(here, tasks)
            return
        if not tasks:
            return
        with ExitStack() as stack:
            slots, backend = self.jobs, "loky"
            if self.scheduler is not None:
                slots, backend = stack.enter_context(cluster(self.scheduler)), "dask"
            # Parallel itself would not know "dask".
            stack.enter_context(parallel_config(backend=backend, n_jobs=min(slots, len(tasks))))
            parallel = Parallel(return_as="generator_unordered", batch_size=1)
            try:
                yield from parallel(delayed(_InTurn(away))(task) for task in tasks)
            except Exception as error:
                if type(error).__name__ not in _DEATHS:
                    raise
                raise UserError(
                    "a process that trains was ended from outside, perhaps for lack of memory; run the same "
                    "command again, with fewer --jobs"
                ) from error


class _InTurn(Generic[T, R]):
    """One task at a time in each process, whose threads share torch's generator of initial weights."""

    def __init__(self, function: Callable[[T], R]) -> None:
        self.function = function

    def __call__(self, task: T) -> R:
        with _turn:
            return self.function(task)
