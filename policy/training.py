"""The one training loop: Adam, a checkpoint after each epoch, resumed to the same bits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache_schema import UserError
from cache_schema.run_folder import write_atomically
from policy.checkpoint import read_checkpoint, write_checkpoint
from policy.data import VideoSet, batches, read_ahead
from policy.method import Losses, Method, Moment

Epoch = Mapping[str, float]
"""One line of metrics.jsonl: "epoch" (from 1), what `Method.losses` said, averaged over videos, "lr",
"seconds"."""

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"


def train(
    method: Method,
    videos: VideoSet,
    folder: Path,
    *,
    device: torch.device,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train a method on a set of videos, or go on where a checkpoint in the folder stopped.

    Each epoch visits every video once in a new order. The model of the last epoch is the result: nothing is
    selected on videos that were not trained on.

    Args:
        folder: for the checkpoint and metrics.jsonl.
        on_epoch: called after each epoch of this call, its checkpoint written.

    Returns:
        All epochs, also those of earlier calls.

    Raises:
        UserError: the loss is no longer finite, or the folder cannot be written to.
    """
    config = method.config
    model = method.model.to(device)
    # One implementation everywhere, so that a resumed run computes what an undisturbed one does.
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay, foreach=False
    )
    generator = torch.Generator().manual_seed(config.seed)
    checkpoint = folder / CHECKPOINT
    history: list[Epoch] = []
    if checkpoint.exists():
        history = read_checkpoint(checkpoint, model, optimizer, generator)["history"]
    # Lines that were written after the last checkpoint belong to an epoch that is done again.
    write_atomically(folder / METRICS, "".join(map(_line, history)).encode())

    model.train()
    for epoch in range(len(history), config.epochs):
        started = time.monotonic()
        progress = epoch / max(1, config.epochs - 1)
        rate = config.lr * 0.1 ** sum(epoch >= drop for drop in config.lr_drop)
        for group in optimizer.param_groups:
            group["lr"] = rate
        order = torch.randperm(len(videos), generator=generator).tolist()
        means = _Means()
        read = batches(videos, config.batch, rows=method.rows, scored=method.scored, order=order)
        # On the CPU there is nobody to read ahead for: the thread would only take the cores from the network.
        for step, batch in enumerate(read_ahead(read) if device.type != "cpu" else read):
            losses = method.losses(batch.to(device), Moment(progress, step), generator)
            loss = losses["loss"]
            assert isinstance(loss, Tensor)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if config.grad_clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
            optimizer.step()
            method.after_step(losses)
            means.add(losses, len(batch.targets))
        said = {"epoch": epoch + 1, **means.values(), "lr": rate}
        if not all(abs(value) < float("inf") for value in said.values()):
            raise UserError(
                f"{folder}: in epoch {epoch + 1} the loss is not finite any more; try a lower learning rate or "
                "--grad-clip"
            )
        said["seconds"] = round(time.monotonic() - started, 3)
        history.append(said)
        write_checkpoint(checkpoint, model, optimizer, generator, {"history": history})
        with (folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(_line(said))
        on_epoch(said)
    return history


class _Means:
    """Means over videos, added up where the values are, so that no batch waits for the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}
        self.count = 0

    def add(self, losses: Losses, videos: int) -> None:
        for name, value in losses.items():
            detached = value.detach().double() if isinstance(value, Tensor) else value
            self.sums[name] = self.sums.get(name, 0.0) + detached * videos
        self.count += videos

    def values(self) -> dict[str, float]:
        return {name: float(total) / self.count for name, total in self.sums.items()}


def _line(epoch: Epoch) -> str:
    return json.dumps(epoch) + "\n"
