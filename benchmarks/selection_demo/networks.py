"""Four convolutional networks of different size, trained on frames: somebody's own models, nothing of thriftvid.

Each sees a video as the mean of its class probabilities over the frames of every second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

Frames = npt.NDArray[np.uint8]

FRAMES_PER_STEP = 64
FLIPS = 0.5


@dataclass(frozen=True)
class Size:
    """Attributes:
    pixels: of the square that is seen.
    width: channels of the first layer; each further one has twice as many, up to eight times.
    """

    name: str
    pixels: int
    width: int

    def network(self, classes: int) -> nn.Sequential:
        """Strided convolutions until at most 7 pixels are left; largest and mean response; a classifier."""
        layers: list[nn.Module] = []
        channels, pixels, out = 3, self.pixels, self.width
        while pixels > 7:
            layers += [nn.Conv2d(channels, out, 5 if channels == 3 else 3, 2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(out), nn.ReLU()]
            channels, pixels, out = out, pixels // 2, min(2 * out, 8 * self.width)
        return nn.Sequential(*layers, _Pooled(), nn.Linear(2 * channels, classes))

    def macs(self, classes: int) -> int:
        """Of one frame, counted by torch, which counts two operations for each."""
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            self.network(classes).eval()(torch.zeros(1, 3, self.pixels, self.pixels))
        return int(counter.get_total_flops()) // 2


class _Pooled(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2C)."""
        return torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], 1)


SIZES = (Size("tiny", 24, 4), Size("small", 64, 6), Size("medium", 192, 6), Size("large", 224, 12))


def out_of_fold(
    size: Size,
    videos: Sequence[Frames],
    labels: npt.NDArray[np.int64],
    train: npt.NDArray[np.bool_],
    *,
    classes: int,
    epochs: int,
    folds: int,
    report: Callable[[str], None],
) -> npt.NDArray[np.float32]:
    """(M, C) probabilities of all videos, by a network that has not been trained on the video.

    Args:
        videos: (T, pixels, pixels, 3) each.
        train: (M,), the videos that networks are trained on: `folds` networks judge these, and one more, of
            all of them, the others.
    """
    said = np.empty((len(videos), classes), np.float32)
    fold = np.full(len(videos), -1)
    for label in range(classes):  # each fold has its share of every class
        mine = np.flatnonzero(train & (labels == label))
        fold[mine] = np.arange(len(mine)) % folds
    for held_out in (*range(folds), -1):
        judged = np.flatnonzero(fold == held_out)
        taught = np.flatnonzero(train & (fold != held_out))
        network = _trained(
            size, [videos[v] for v in taught.tolist()], labels[taught], classes, epochs, seed=held_out + 1
        )
        for video in judged.tolist():
            said[video] = _probabilities(network, videos[video])
        right = (said[judged].argmax(1) == labels[judged]).mean()
        who = "all training videos" if held_out < 0 else f"all folds but {held_out + 1}"
        report(f"{size.name}: trained on {who}, right on {100 * right:.1f} % of {len(judged)} others")
    return said


def _trained(
    size: Size, videos: Sequence[Frames], labels: npt.NDArray[np.int64], classes: int, epochs: int, seed: int
) -> nn.Sequential:
    torch.manual_seed(seed)
    # Convolutions of a CPU are several times quicker with the channels of a pixel side by side.
    network = size.network(classes).to(memory_format=torch.channels_last)
    frames = torch.from_numpy(np.concatenate(videos)).permute(0, 3, 1, 2)
    targets = torch.from_numpy(np.repeat(labels, [len(video) for video in videos]))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-4)
    steps = epochs * -(-len(frames) // FRAMES_PER_STEP)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    network.train()
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(frames)), FRAMES_PER_STEP):
            seen = _scaled(frames[chosen])
            if torch.rand(()) < FLIPS:
                seen = seen.flip(3)
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(seen), targets[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def _probabilities(network: nn.Sequential, frames: Frames) -> npt.NDArray[np.float32]:
    logits = network(_scaled(torch.from_numpy(frames).permute(0, 3, 1, 2)))
    return np.asarray(logits.softmax(1).mean(0).numpy(), np.float32)


def _scaled(frames: Tensor) -> Tensor:
    return frames.float() / 128 - 1
