"""A run's scalars, those of metrics.jsonl and the result, for TensorBoard and for Weights & Biases."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from cache_schema import UserError
from cache_schema.extras import needs_extra
from cache_schema.run_folder import CONFIG, read_json
from policy.training.loop import Epoch

TENSORBOARD, WANDB = "tensorboard", "wandb"
"""Folders in the run folder."""
_VALIDATION = "validation_"


class Writer(Protocol):
    """What scalars are written with."""

    def begin(self) -> int:
        """Called before anything is written. Returns the last epoch that is there and must not be repeated."""

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        """Values by name, "train/loss"; several calls for an epoch are of different names."""

    def close(self, *, failed: bool) -> None:
        """Nothing more is written."""


class Scalars:
    """Writes "train/…" and "validation/…" of each epoch, and "evaluation/…" at the last one.

    Nothing is written before `earlier` is called. To be used in a with statement.

    Args:
        folder: the run folder.
        tensorboard: write to its folder `TENSORBOARD`.
        wandb: the project of Weights & Biases to write to.

    Raises:
        UserError: a package is not installed.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False, wandb: str | None = None) -> None:
        # A missing package is noticed now rather than when training begins.
        self._writers: list[Writer] = [TensorBoardWriter(folder)] if tensorboard else []
        self._writers += [WandBWriter(folder, wandb)] if wandb is not None else []
        self._begun: list[Writer] = []
        self._epoch = 0

    def __enter__(self) -> Scalars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._begun:
            writer.close(failed=error is not None)

    def earlier(self, history: Sequence[Epoch]) -> None:
        """Training begins, after these epochs."""
        for writer in self._writers:
            there = writer.begin()
            self._begun.append(writer)
            for epoch in history:
                if epoch["epoch"] > there:
                    writer.write(_of_epoch(epoch), int(epoch["epoch"]))
        self._epoch = len(history)

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is complete."""
        self._epoch = int(epoch["epoch"])
        self._write(_of_epoch(epoch))

    def result(self, result: Mapping[str, Any]) -> None:
        """The run is complete; the numbers of its result are shown if anything was trained."""
        numbers = dict(result)
        for group, by_name in result.items():
            if isinstance(by_name, Mapping):
                numbers |= {f"{group}/{name}": value for name, value in by_name.items()}
        self._write(
            {f"evaluation/{name}": value for name, value in numbers.items() if type(value) in (int, float)}
        )

    def _write(self, values: Mapping[str, float]) -> None:
        for writer in self._begun:
            writer.write(values, self._epoch)


def _of_epoch(epoch: Epoch) -> dict[str, float]:
    return {
        f"validation/{name.removeprefix(_VALIDATION)}"
        if name.startswith(_VALIDATION)
        else f"train/{name}": value
        for name, value in epoch.items()
        if name != "epoch"
    }


class TensorBoardWriter:
    """A resumed run writes its earlier epochs again and makes TensorBoard drop the old ones: whatever a kill cut
    off, each epoch is shown once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / TENSORBOARD
        with needs_extra("tensorboard", "--tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
        self._make: Any = SummaryWriter

    def begin(self) -> int:
        self._writer = self._make(self._folder, purge_step=1)
        return 0

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class WandBWriter:
    """The run there has the name of the run folder and its configuration, and goes on where this one does. As with
    every program, WANDB_MODE=offline keeps it in the run folder until `wandb sync`."""

    def __init__(self, folder: Path, project: str) -> None:
        self._folder, self._project = folder, project
        with needs_extra("wandb", "--wandb"):
            import wandb
        self._wandb: Any = wandb

    def begin(self) -> int:
        content = read_json(self._folder / CONFIG)
        identity = f"{content['key']} {self._folder.absolute()}"
        try:
            self._run = self._wandb.init(
                project=self._project,
                name=self._folder.absolute().name,
                id=hashlib.sha256(identity.encode()).hexdigest()[:16],
                resume="allow",
                dir=self._folder,
                config=content["config"],
                settings=self._wandb.Settings(console="off"),
            )
        except self._wandb.Error as error:
            raise UserError(
                f"--wandb {self._project}: {error} (WANDB_MODE=offline needs no account)"
            ) from error
        return max(0, int(self._run.step) - 1)  # the step that it expects next, 0 of a new run

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        self._run.log(dict(values), step=epoch)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
