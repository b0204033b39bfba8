"""Several processes that train one model, started by torchrun: each computes a share of every batch.

All processes hold the same weights and the same generator, draw the same order of videos and make the same steps,
so that what the first one writes is the state of all. It alone writes, reports and evaluates.
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

# Opening a large cache, and checking its features, takes its time; a process that has died is noticed at once.
_PATIENCE = timedelta(hours=4)


class PeerLost(Exception):
    """Another process of this training has ended, and has said why."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a training as one of them sees them. By itself, a process that trains alone.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether it is this process that writes and reports."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """This process's own: of several GPUs of a machine, each process takes one."""
        if self.size == 1 or device.type != "cuda":
            return device
        if _local_rank() >= torch.cuda.device_count():
            raise UserError(f"more processes than this machine has GPUs ({torch.cuda.device_count()})")
        return torch.device("cuda", _local_rank())

    def share(self, batch: Sequence[int]) -> tuple[Sequence[int], float]:
        """The videos of a batch that are this process's, and their share of it.

        Of a batch with fewer videos than processes, some compute a video of another with weight 0: the same
        parameters then have gradients everywhere.
        """
        mine = batch[self.rank :: self.size]
        return (mine, len(mine) / len(batch)) if mine else (batch[:1], 0.0)

    def generator(self, common: torch.Generator, *moment: int) -> torch.Generator:
        """What a step draws from: the common generator, or of several processes one made for this and the moment.

        The common one is left alone then, so that it goes on giving the same orders of videos everywhere.

        Args:
            moment: numbers that tell one step from another, and one seed.
        """
        if self.size == 1:
            return common
        seed = np.random.SeedSequence((*moment, self.rank)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(seed[0]))

    def average(self, model: nn.Module, losses: Losses, weight: float) -> Losses:
        """Make gradients those of the whole batch, and return the losses of it.

        A loss that is a mean over videos becomes the mean over the batch. Of another (Eq. 7 with the usage of a
        batch), it becomes the mean of what the processes make of their shares.

        Args:
            model: with the gradients of this process's share, which are replaced.
            losses: of this process's share.
            weight: that share.
        """
        if self.size == 1:
            return losses
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        like = gradients[0]
        said = torch.stack(
            [torch.as_tensor(v, device=like.device).detach().to(like) for v in losses.values()]
        )
        parts = [*gradients, said]
        sums = torch.cat([part.flatten() for part in parts]).mul_(weight)
        with _peers():
            dist.all_reduce(sums)
        for part, total in zip(parts, torch.split(sums, [part.numel() for part in parts]), strict=True):
            part.copy_(total.view_as(part))
        return dict(zip(losses, said, strict=True))

    def same_weights(self, model: nn.Module) -> None:
        """Give all processes the first one's parameters and buffers."""
        if self.size > 1:
            with _peers():
                for tensor in model.state_dict().values():
                    dist.broadcast(tensor, 0)

    def told(self, go: bool = False) -> bool:
        """Whether there is something to train: the first process says so, the others wait for it."""
        if self.size == 1:
            return go
        answer = torch.tensor([go], dtype=torch.uint8)
        with _peers():
            dist.broadcast(answer, 0)
        return bool(answer)


@contextmanager
def joined() -> Iterator[Ranks]:
    """The processes that torchrun has started; without torchrun, this one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        yield Ranks()
        return
    if _local_rank() < torch.cuda.device_count():  # or all would begin by taking memory of the first one
        torch.cuda.set_device(_local_rank())
    # What is on the CPU goes by gloo also where there are GPUs: it notices at once when a process has died.
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
