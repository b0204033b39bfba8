"""Several processes that train one model, started by torchrun: each computes a share of every batch.

All processes have the same weights and the same generator, draw the same order of videos and make the same
steps, so that the state that the first one writes is that of all. Only the first one writes, reports and
evaluates.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from cache_schema import UserError
from policy.method import Losses

# Opening a large cache and checking its features takes long; a process that has died is noticed at once.
_PATIENCE = timedelta(hours=4)


class PeerLost(Exception):
    """Another process of this training has ended, and has printed the reason."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, seen from one of them. By default, a process that trains alone.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """The device of this process: on a machine with several GPUs each process takes another one."""
        if self.size == 1 or device.type != "cuda":
            return device
        if _local_rank() >= torch.cuda.device_count():
            raise UserError(f"more processes than this machine has GPUs ({torch.cuda.device_count()})")
        return torch.device("cuda", _local_rank())

    def share(self, batch: Sequence[int]) -> tuple[Sequence[int], float]:
        """This process's videos of a batch, and which fraction of it they are.

        If a batch has fewer videos than there are processes, some compute another's video with weight 0, so
        that the same parameters have gradients everywhere.
        """
        part = batch[self.rank :: self.size]
        return (part, len(part) / len(batch)) if part else (batch[:1], 0.0)

    def generator(self, common: torch.Generator, *moment: int) -> torch.Generator:
        """The generator of a step: the common one, or with several processes one for this process and step.

        The common one is not used then, so that it gives the same orders of videos everywhere.

        Args:
            moment: the seed, and numbers that identify the step.
        """
        if self.size == 1:
            return common
        seed = np.random.SeedSequence((*moment, self.rank)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(seed[0]))

    def average(self, model: nn.Module, losses: Losses, weight: float) -> Losses:
        """Replace gradients by those of the whole batch, and return its losses.

        A loss that is a mean over videos becomes the mean over the batch. Any other (Eq. 7 with the usage of a
        batch) becomes the mean of the processes' losses.

        Args:
            model: with the gradients of this process's part of the batch.
            losses: of this part.
            weight: the fraction of the batch that it is.
        """
        if self.size == 1:
            return losses
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        like = gradients[0]
        values = torch.stack(
            [torch.as_tensor(v, device=like.device).detach().to(like) for v in losses.values()]
        )
        parts = [*gradients, values]
        sums = torch.cat([part.flatten() for part in parts]).mul_(weight)
        with _peers():
            dist.all_reduce(sums)
        for part, total in zip(parts, torch.split(sums, [part.numel() for part in parts]), strict=True):
            part.copy_(total.view_as(part))
        return dict(zip(losses, values, strict=True))

    def same_weights(self, model: nn.Module) -> None:
        """Give all processes the first one's parameters and buffers."""
        if self.size > 1:
            with _peers():
                for tensor in model.state_dict().values():
                    dist.broadcast(tensor, 0)

    def broadcast(self, flag: bool = False) -> bool:
        """The first process's flag, on all processes; the others wait for it."""
        if self.size == 1:
            return flag
        tensor = torch.tensor([flag], dtype=torch.uint8)
        with _peers():
            dist.broadcast(tensor, 0)
        return bool(tensor)


@contextmanager
def joined() -> Iterator[Ranks]:
    """The processes that torchrun started; without torchrun, this one alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        yield Ranks()
        return
    if _local_rank() < torch.cuda.device_count():  # or all would take memory of the first GPU
        torch.cuda.set_device(_local_rank())
    # Tensors on the CPU use gloo even where there are GPUs: it notices at once when a process has died.
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _local_rank() -> int:
    return int(os.environ["LOCAL_RANK"])


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "peer" not in str(error):  # gloo: "Connection closed by peer", "… reset by peer"
            raise
        raise PeerLost from error
