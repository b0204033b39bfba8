"""SlowFast 8×8 with ResNet-50: clips in, penultimate features and class logits out.

Feichtenhofer, Fan, Malik, He: SlowFast Networks for Video Recognition (https://arxiv.org/abs/1812.03982).
The parameters' names are those of pytorchvideo's model zoo, whose checkpoint loads unchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extract.backbones.video_layers import (
    KINETICS_CLASSES,
    MODEL_ZOO,
    Bottleneck,
    Classifier,
    ResidualBlock,
    Stage,
    Variant,
    check_clip,
    conv,
    initialise,
    window_means,
)

# https://github.com/facebookresearch/SlowFast/blob/main/configs/Kinetics/SLOWFAST_8x8_R50.yaml; a clip holds the
# frames of the fast pathway.
SLOWFAST_8X8_R50 = Variant(32, 2, 224, 256, (3, 4, 6, 3), f"{MODEL_ZOO}/SLOWFAST_8x8_R50.pyth")

# The frames that the slow pathway sees: torch.linspace(0, 31, 8).long(), as released. Not quite every fourth.
SLOW_FRAMES = (0, 4, 8, 13, 17, 22, 26, 31)

_RATIO = 8  # the slow pathway has so many times the channels of the fast one
_STEM = 64  # channels of the slow pathway after its stem
_WIDTHS = (256, 512, 1024, 2048)  # channels of the slow pathway after each stage
_SLOW_KERNELS = (1, 1, 3, 3)  # each stage's first convolution in time: the slow pathway's, and the fast one's
_FAST_KERNELS = (3, 3, 3, 3)


class SlowFast(nn.Module):
    """SlowFast 8×8 R50: one pathway sees 8 frames with many channels, the other 32 frames with few.

    Args:
        num_classes: C, the number of logits.

    Attributes:
        feature_dim: D = 2304, of which 2048 are the slow pathway's and the last 256 the fast one's.

    The head averages each pathway over all time and over a window of 7×7 positions, as large as the last map of
    a training crop, which slides over a larger map (2×2 places at 256²). The features are the mean over these
    places, so that at 256² the map's middle weighs more than its edge, as in the release. The logits are the
    mean of the places' logits: in evaluation the linear layer `blocks[6].proj` of the features.
    """

    def __init__(self, num_classes: int = KINETICS_CLASSES) -> None:
        super().__init__()
        self.variant = SLOWFAST_8X8_R50
        self.feature_dim = _WIDTHS[-1] + _WIDTHS[-1] // _RATIO
        self.num_classes = num_classes
        slow, fast = (1, 7, 7), (5, 7, 7)
        blocks: list[nn.Module] = [
            _Pathways(_Stem(_STEM, slow), _Stem(_STEM // _RATIO, fast), _Fusion(_STEM // _RATIO))
        ]
        before = _STEM
        for depth, width, slow_kernel, fast_kernel in zip(
            self.variant.depths, _WIDTHS, _SLOW_KERNELS, _FAST_KERNELS, strict=True
        ):
            narrow = width // _RATIO
            stride = 1 if before == _STEM else 2
            blocks.append(
                _Pathways(
                    # The slow pathway's input is widened by what the fusion before it took from the fast one.
                    _stage(depth, before + 2 * before // _RATIO, width, slow_kernel, stride),
                    _stage(depth, before // _RATIO, narrow, fast_kernel, stride),
                    None if width == _WIDTHS[-1] else _Fusion(narrow),
                )
            )
            before = width
        blocks += [_Pool(self.variant.window), Classifier(self.feature_dim, num_classes)]
        self.blocks = nn.ModuleList(blocks)
        initialise(self)

    def forward_features(self, clip: Tensor) -> Tensor:
        """Penultimate features.

        Args:
            clip: (B, 3, 32, H, W), normalised; H and W at least 32.

        Returns:
            (B, 2304).

        Raises:
            ValueError: clip has another shape.
        """
        return self._positions(clip).mean(dim=(2, 3, 4))

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 2304) and logits (B, C) of a clip as for `forward_features`, in one pass."""
        positions = self._positions(clip)
        return positions.mean(dim=(2, 3, 4)), self.blocks[-1](positions)

    def _positions(self, clip: Tensor) -> Tensor:
        """(B, 2304, 1, h, w): the features at each place of the head's window."""
        check_clip(clip, "SlowFast", self.variant)
        # Views and one copy: an index tensor would have to be sent to the device for every clip.
        slow, fast = torch.stack([clip[:, :, frame] for frame in SLOW_FRAMES], dim=2), clip
        *stages, pool, _ = self.blocks
        for stage in stages:
            slow, fast = stage(slow, fast)
        positions: Tensor = pool(slow, fast)
        return positions


class _Pathways(nn.Module):
    """The same step on both pathways, after which the slow one is told of the fast one."""

    def __init__(self, slow: nn.Module, fast: nn.Module, fusion: _Fusion | None) -> None:
        super().__init__()
        self.multipathway_blocks = nn.ModuleList([slow, fast])
        self.multipathway_fusion = fusion

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        slow, fast = self.multipathway_blocks[0](slow), self.multipathway_blocks[1](fast)
        if self.multipathway_fusion is not None:
            slow = self.multipathway_fusion(slow, fast)
        return slow, fast


class _Stem(nn.Module):
    def __init__(self, width: int, kernel: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv = conv(3, width, kernel, stride=(1, 2, 2))
        self.norm = nn.BatchNorm3d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)), inplace=True)
        return F.max_pool3d(x, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))


class _Fusion(nn.Module):
    """Append the fast pathway to the slow one's channels: every fourth frame, seen with its neighbours."""

    def __init__(self, narrow: int) -> None:
        super().__init__()
        self.conv_fast_to_slow = conv(narrow, 2 * narrow, (7, 1, 1), stride=(4, 1, 1))
        self.norm = nn.BatchNorm3d(2 * narrow)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        lateral = F.relu(self.norm(self.conv_fast_to_slow(fast)), inplace=True)
        return torch.cat([slow, lateral], dim=1)


class _Pool(nn.Module):
    """Mean of each pathway over all time and a sliding window of positions, channels side by side."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        return torch.cat([window_means(x, self.window) for x in (slow, fast)], dim=1)


def _stage(depth: int, before: int, width: int, time_kernel: int, stride: int) -> Stage:
    """Residual blocks, of which the first has the stride in height and width."""
    inside = width // 4
    blocks = []
    for index in range(depth):
        first = index == 0
        bottleneck = Bottleneck(
            (before if first else width, inside, width),
            kernel_a=(time_kernel, 1, 1),
            kernel_b=(1, 3, 3),
            stride=stride if first else 1,
            groups=1,
            norm_b=nn.BatchNorm3d(inside),
            act_b=nn.ReLU(inplace=True),
        )
        shortcut = conv(before, width, (1, 1, 1), stride=(1, stride, stride)) if first else None
        blocks.append(ResidualBlock(bottleneck, shortcut, nn.BatchNorm3d(width) if first else None))
    return Stage(blocks)
