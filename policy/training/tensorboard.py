"""A run's scalars for TensorBoard: those of metrics.jsonl, and the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache_schema import UserError
from policy.training.loop import Epoch

FOLDER = "tensorboard"
"""In the run folder."""


class Scalars:
    """Writes "train/…" of each epoch, and "evaluation/…" at the last one; nothing before `earlier` is called.

    A resumed run writes its earlier epochs again and makes TensorBoard drop the old ones: whatever a kill cut off,
    each epoch is shown once.

    Args:
        folder: the run folder; None writes nothing.

    Raises:
        UserError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._writer: Any = None
        self._epoch = 0
        if folder is not None:
            _summary_writer()  # fail now rather than when training begins

    def earlier(self, history: Sequence[Epoch]) -> None:
        """Training begins, after these epochs."""
        if self._folder is not None:
            self._writer = _summary_writer()(self._folder / FOLDER, purge_step=1)
        for epoch in history:
            self.epoch(epoch)

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is complete."""
        self._epoch = int(epoch["epoch"])
        self._add("train", {name: value for name, value in epoch.items() if name != "epoch"})

    def result(self, result: Mapping[str, Any]) -> None:
        """The run is complete; the numbers of its result are shown if anything was trained."""
        numbers = dict(result)
        for group, by_name in result.items():
            if isinstance(by_name, Mapping):
                numbers |= {f"{group}/{name}": value for name, value in by_name.items()}
        numbers = {name: value for name, value in numbers.items() if type(value) in (int, float)}
        self._add("evaluation", numbers)

    def _add(self, group: str, values: dict[str, float]) -> None:
        if self._writer is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, self._epoch)
        self._writer.flush()


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            "--tensorboard needs a package that is not installed: pip install 'thriftvid[tensorboard]'"
        ) from error
    return SummaryWriter
