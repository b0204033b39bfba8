"""RAFT (Teed and Deng, ECCV 2020) from torchvision: optical flow by a network, where the clips are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from cache_schema import UserError
from extract.backbones.downloads import fetching, require_torch_download
from extract.backbones.weights import load_into, random_seed, read_weights

RAFT_NAMES = ("raft_large", "raft_small")
MIN_SIZE = 128


class RaftFlow(nn.Module):
    """Clips in, flow between their consecutive frames out.

    Keep it in float32 (its refinements add up fractions of a pixel) and in evaluation mode, as it comes: pairs do
    not see one another then.

    Args:
        raft: a torchvision RAFT, see `create_raft`.
        pairs_at_once: how many pairs one forward may hold, which bounds its memory.
        updates: refinements of each field; torchvision's 12.
    """

    def __init__(self, raft: nn.Module, *, pairs_at_once: int = 16, updates: int = 12) -> None:
        super().__init__()
        if pairs_at_once < 1 or updates < 1:
            raise ValueError(f"pairs_at_once {pairs_at_once}, updates {updates}: both must be at least 1")
        self.raft = raft
        self.pairs_at_once = pairs_at_once
        self.updates = updates
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> RaftFlow:
        return super().train(False)

    @torch.inference_mode()
    def forward(self, clip: Tensor) -> Tensor:
        """Estimate the flow.

        Args:
            clip: (B, T + 1, 3, H, W) RGB in 0 to 255, T ≥ 1; H and W multiples of 8, 128 or more.

        Returns:
            (B, T, 2, H, W) float32, x before y, in pixels, as `extract.flow.flow_between` defines it, not cut
            off; exactly 0 between equal frames.

        Raises:
            ValueError: a clip of another shape.
        """
        _check(clip)
        first, second = clip[:, :-1].flatten(0, 1), clip[:, 1:].flatten(0, 1)
        starts = range(0, len(first), self.pairs_at_once)
        chunks = [slice(start, start + self.pairs_at_once) for start in starts]
        flow = torch.cat([self._pairs(first[chunk], second[chunk]) for chunk in chunks])
        return flow.view(clip.shape[0], clip.shape[1] - 1, *flow.shape[1:])

    def _pairs(self, first: Tensor, second: Tensor) -> Tensor:
        fields = self.raft(
            first.float() / 127.5 - 1, second.float() / 127.5 - 1, num_flow_updates=self.updates
        )
        still = (first == second).flatten(1).all(1)[:, None, None, None]
        flow: Tensor = torch.where(still, 0.0, fields[-1])
        return flow


def create_raft(name: str, weights: str) -> tuple[nn.Module, str]:
    """A RAFT of torchvision, and what to call its weights in a StreamSpec.

    Args:
        name: "raft_large" or "raft_small".
        weights: "pretrained" (torchvision's default), "pretrained:NAME" with NAME one of torchvision's for this
            network (C_T_SKHT_V2 and so on), "random:SEED", or the path of a file in torchvision's layout.

    Raises:
        UserError: no such network or weights, or weights that do not fit or cannot be downloaded.
    """
    if name not in RAFT_NAMES:
        raise UserError(f"no flow network {name!r}: use {' or '.join(RAFT_NAMES)}")
    kind, _, tag = weights.partition(":")
    if kind == "pretrained":
        return _pretrained(name, tag)
    if kind == "random":
        with random_seed(weights):
            return get_model(name), weights
    raft = get_model(name)
    state, _ = read_weights(Path(weights))
    load_into(raft, state, Path(weights))
    return raft, "file"


def _pretrained(name: str, wanted: str) -> tuple[nn.Module, str]:
    known: Any = get_model_weights(name)
    wanted = wanted or "DEFAULT"
    if wanted not in known.__members__:
        raise UserError(f"{name} has no weights {wanted!r}: use {', '.join(w.name for w in known)}")
    with fetching(f"the pretrained weights of {name}", f", or give the file {known[wanted].url}"):
        require_torch_download(known[wanted].url)
        raft = get_model(name, weights=known[wanted])
    return raft, f"pretrained:{known[wanted].name}"


def _check(clip: Tensor) -> None:
    if clip.ndim != 5 or clip.shape[2] != 3 or clip.shape[1] < 2:
        raise ValueError(
            f"RAFT takes clips of (B, T, 3, H, W), two frames or more, not of {tuple(clip.shape)}"
        )
    height, width = clip.shape[3:]
    if height % 8 or width % 8 or min(height, width) < MIN_SIZE:
        raise ValueError(
            f"RAFT needs sides that are multiples of 8, {MIN_SIZE} or more, not {height}×{width}"
        )
