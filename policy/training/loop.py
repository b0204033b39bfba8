"""The one training loop: Adam, checkpoints, resumed to the same bits wherever it was stopped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache_schema import UserError
from cache_schema.run_folder import write_atomically
from policy.data.batches import Batch, VideoSet, batched, fed
from policy.method import Losses, Method, Moment
from policy.training.checkpoint import read_checkpoint, write_checkpoint
from policy.training.distributed import Ranks
from policy.training.stopping import DeferredSignals, deferred_signals
from policy.training.validation import validate

Epoch = Mapping[str, float]
"""One line of metrics.jsonl: "epoch" (from 1), the values of `Method.losses` averaged over videos, "lr", with
validation videos those of `policy.training.validation.validate`, and "seconds"."""

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"
_WILD = 1e6
"""Weights this large are of a training that has diverged."""
CHECKPOINT_EVERY_S = 600.0
"""How often a long epoch is saved before its end. It only affects how much work a kill loses."""


def train(
    method: Method,
    videos: VideoSet,
    folder: Path,
    *,
    device: torch.device,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_earlier: Callable[[Sequence[Epoch]], None] = lambda history: None,
    ranks: Ranks | None = None,
    validation: VideoSet | None = None,
) -> list[Epoch]:
    """Train a method on a set of videos, or go on where a checkpoint in the folder stopped.

    Each epoch visits the videos in a new order (`Method.epoch_order`). The model of the last epoch is the result,
    or with validation videos, unless the configuration has `keep` of "last", that of the best (`best_epoch`).
    SIGTERM and Ctrl-C wait for the current step, and for a checkpoint after it.

    Args:
        folder: for the checkpoint and metrics.jsonl.
        on_epoch: called after each epoch of this call, when its checkpoint is written.
        on_earlier: called before the first of them with those of earlier calls.
        ranks: of several processes that share each batch. Each calls this; only the first one writes and calls
            back.
        validation: videos that are judged after each epoch, and not trained on; `patience` goes by them.

    Returns:
        All epochs, including those of earlier calls.

    Raises:
        UserError: the loss is no longer finite, or the folder cannot be written to.
    """
    training = _Training(method, videos, folder, device, ranks or Ranks(), validation)
    leads = training.ranks.leads
    if leads:
        # Lines written after the last checkpoint belong to an epoch that will be repeated.
        write_atomically(folder / METRICS, "".join(map(_line, training.history)).encode())
        on_earlier(training.history)
    method.model.train()
    with deferred_signals() as stop:
        while not training.ended():
            with divergence_reported(method, folder, len(training.history) + 1):
                epoch = training.epoch(stop)
            if leads:
                training.save()
                with (folder / METRICS).open("a", encoding="utf-8") as file:
                    file.write(_line(epoch))
                on_epoch(epoch)
                stop.deliver()
    if training.best:
        method.model.load_state_dict(training.best)
    return training.history


def best_epoch(method: Method, history: Sequence[Epoch]) -> Epoch | None:
    """The first epoch of least "validation_loss" among those whose weights may be the final ones
    (`Method.validates`); None if there is none yet."""
    counted = [
        epoch
        for number, epoch in enumerate(history)
        if "validation_loss" in epoch and method.validates(_progress(method, number))
    ]
    return min(counted, key=lambda epoch: epoch["validation_loss"], default=None)


@contextmanager
def divergence_reported(method: Method, folder: Path, epoch: int) -> Iterator[None]:
    """With weights that are not finite, or close to it, anything may fail: errors of a block become one UserError.

    Args:
        folder: of the run.
        epoch: from 1, the one at work or the last.
    """
    try:
        yield
    except (ArithmeticError, IndexError, RuntimeError, ValueError) as error:
        weights = (values.detach().abs().max() for values in method.model.parameters())
        tame = all(bool(largest < _WILD) for largest in weights)  # which NaN is not
        if tame and "overflow" not in str(error):
            raise
        raise UserError(
            f"{folder}: in epoch {epoch} the loss is not finite any more: try a lower --lr than "
            f"{method.config.lr:g}, or --grad-clip"
        ) from error


def _progress(method: Method, epochs: int) -> float:
    """`Moment.progress` of the epoch after so many."""
    return epochs / max(1, method.config.epochs - 1)


class _Training:
    """A method, its optimiser and their progress."""

    def __init__(
        self,
        method: Method,
        videos: VideoSet,
        folder: Path,
        device: torch.device,
        ranks: Ranks,
        validation: VideoSet | None,
    ) -> None:
        self.method, self.videos, self.device, self.ranks = method, videos, device, ranks
        self.validation = validation
        self.best: dict[str, Tensor] = {}  # weights of the best epoch, if they are to be kept
        self.model = method.model.to(device)
        method.prepare(videos, device)
        config = method.config
        # One implementation everywhere, so that a resumed run computes what an undisturbed one does.
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay, foreach=False
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.path = folder / CHECKPOINT
        self.done = _Done()
        if self.path.exists():
            state, order, self.best = read_checkpoint(self.path, self.model, self.optimizer, self.generator)
            try:
                self.done = _Done.of(state, order)
            except (KeyError, TypeError) as error:
                raise UserError(
                    f"{self.path}: a checkpoint of another version; delete it to start again"
                ) from error
        ranks.same_weights(self.model)

    @property
    def history(self) -> list[Epoch]:
        return self.done.history

    def ended(self) -> bool:
        """Whether all epochs are done, or the last ones were in vain; the same on all processes."""
        config, history = self.method.config, self.history
        if len(history) >= config.epochs:
            return True
        if self.validation is None or config.patience is None:
            return False
        best = best_epoch(self.method, history) if self.ranks.leads else None
        return self.ranks.broadcast(best is not None and len(history) - best["epoch"] >= config.patience)

    def save(self) -> None:
        done = self.done
        write_checkpoint(
            self.path, self.model, self.optimizer, self.generator, done.state(), done.order, self.best
        )

    def epoch(self, stop: DeferredSignals) -> Epoch:
        """Do an epoch, or the rest of one. Between steps signals in `stop` are delivered, after a checkpoint."""
        done, config = self.done, self.method.config
        started = saved = time.monotonic()
        progress = _progress(self.method, len(done.history))
        rate = config.lr * 0.1 ** sum(len(done.history) >= drop for drop in config.lr_drop)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if done.order is None:
            done.order = self.method.epoch_order(self.videos, self.generator)
        steps = batched(done.order.tolist(), config.batch)
        shares = [self.ranks.share(step) for step in steps[done.step :]]
        method, parts = self.method, [part for part, _ in shares]
        batches = fed(
            self.videos, parts, self.device, rows=method.rows, scored=method.scored, read=method.reads
        )
        for batch, (_, weight) in zip(batches, shares, strict=True):
            losses = self._step(batch, Moment(progress, done.step), weight)
            done.add(losses, len(steps[done.step]))
            if self.ranks.leads and done.step < len(steps):
                if stop or time.monotonic() - saved > CHECKPOINT_EVERY_S:
                    done.seconds += time.monotonic() - started
                    started = saved = time.monotonic()
                    self.save()
                stop.deliver()
        epoch = {"epoch": len(done.history) + 1, **done.means(), "lr": rate}
        if self.validation and self.ranks.leads:
            epoch |= self._validate(self.validation, epoch)
        # All processes have the same means: one message is enough.
        if self.ranks.leads and not all(map(math.isfinite, epoch.values())):
            raise ValueError("a loss is not finite")
        epoch["seconds"] = round(done.seconds + time.monotonic() - started, 3)
        self.done = _Done([*done.history, epoch])
        return epoch

    def _validate(self, videos: VideoSet, epoch: Epoch) -> dict[str, float]:
        """What the current weights come to; they are kept if there are no better ones."""
        found = validate(self.method, videos, self.device)
        epoch = {**epoch, **found}
        if self.method.config.keep == "best" and best_epoch(self.method, [*self.history, epoch]) is epoch:
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        return found

    def _step(self, batch: Batch, moment: Moment, weight: float) -> Losses:
        """A step of the optimiser on this process's share of a batch. Returns the losses of the whole batch."""
        self.optimizer.zero_grad(set_to_none=True)
        numbers = self.method.config.seed, len(self.history), moment.step
        losses = self.method.losses(batch, moment, self.ranks.generator(self.generator, *numbers))
        loss = losses["loss"]
        assert isinstance(loss, Tensor)
        loss.backward()  # type: ignore[no-untyped-call]
        losses = self.ranks.average(self.model, losses, weight)
        if self.method.config.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.method.config.grad_clip)
        self.optimizer.step()
        self.method.after_step(losses)
        return losses


@dataclass
class _Done:
    """Progress of a training: with weights, optimiser and generator, all that a checkpoint holds.

    Attributes:
        history: the complete epochs. order: (n,) order of the videos in the current epoch; None between epochs.
        step: number of the current epoch's steps that are done. sums, count: of the losses, and of the videos,
        of those steps. Sums stay on the device of the values, so that
            no batch waits for it.
        seconds: duration of those steps.
    """

    history: list[Epoch] = field(default_factory=list)
    order: Tensor | None = None
    step: int = 0
    sums: dict[str, Any] = field(default_factory=dict)
    count: int = 0
    seconds: float = 0.0

    def add(self, losses: Losses, videos: int) -> None:
        for name, value in losses.items():
            detached = value.detach().double() if isinstance(value, Tensor) else value
            self.sums[name] = self.sums.get(name, 0.0) + detached * videos
        self.count += videos
        self.step += 1

    def means(self) -> dict[str, float]:
        return {name: float(total) / self.count for name, total in self.sums.items()}

    def state(self) -> dict[str, Any]:
        """All except the order, for JSON, which keeps every bit of a float."""
        sums = {name: float(total) for name, total in self.sums.items()}
        return {
            "history": self.history,
            "epoch": {"step": self.step, "sums": sums, "count": self.count, "seconds": self.seconds},
        }

    @staticmethod
    def of(state: Mapping[str, Any], order: Tensor | None) -> _Done:
        """Raises KeyError or TypeError for a checkpoint that is not of this version."""
        return _Done(history=state["history"], order=order, **state["epoch"])


def _line(epoch: Epoch) -> str:
    return json.dumps(epoch) + "\n"
