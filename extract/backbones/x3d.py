"""X3D-XS, -S, -M and -L: clips in, penultimate features and class logits out.

Feichtenhofer: X3D: Expanding Architectures for Efficient Video Recognition (https://arxiv.org/abs/2004.04730).
The parameters' names are those of pytorchvideo's model zoo, whose checkpoints load unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping

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

# Frames and strides: https://github.com/facebookresearch/SlowFast/blob/main/MODEL_ZOO.md; crops: configs/Kinetics/
# X3D_*.yaml there; depths (1, 2, 5, 3)·2.2, for L ·5, rounded up: the paper's Table 1 and section 4.
X3D_VARIANTS: Mapping[str, Variant] = {
    "xs": Variant(4, 12, 160, 182, (3, 5, 11, 7), f"{MODEL_ZOO}/X3D_XS.pyth"),
    "s": Variant(13, 6, 160, 182, (3, 5, 11, 7), f"{MODEL_ZOO}/X3D_S.pyth"),
    "m": Variant(16, 5, 224, 256, (3, 5, 11, 7), f"{MODEL_ZOO}/X3D_M.pyth"),
    "l": Variant(16, 5, 312, 356, (5, 10, 25, 15), f"{MODEL_ZOO}/X3D_L.pyth"),
}

_STEM = 24
# Of each stage: channels of its output, inside its bottlenecks (2.25 times as many), and inside
# squeeze-and-excitation (1/16 of those, rounded to a multiple of 8).
_STAGES = ((24, 54, 8), (48, 108, 8), (96, 216, 16), (192, 432, 32))
_FEATURES = 2048


class X3D(nn.Module):
    """X3D of one variant.

    Args:
        variant: "xs", "s", "m" or "l", see X3D_VARIANTS.
        num_classes: C, the number of logits.

    Attributes:
        feature_dim: D = 2048.

    The head slides a window as large as the last map of a training crop. A larger clip has several positions
    (each test crop of X3D_VARIANTS 2×2, of "l" 3×3). Each position has its own 2048 non-negative values; the
    features are their mean over the positions. The logits are the mean of the positions' logits, so in
    evaluation they are the linear layer `blocks[5].proj` of the features. pytorchvideo's release averages the
    softmax of the positions instead, which at one position is the softmax of these logits.

    Raises:
        ValueError: there is no such variant.
    """

    def __init__(self, variant: str, num_classes: int = KINETICS_CLASSES) -> None:
        super().__init__()
        if variant not in X3D_VARIANTS:
            raise ValueError(f"no X3D variant {variant!r}: use {', '.join(X3D_VARIANTS)}")
        self.name = f"X3D-{variant.upper()}"
        self.variant = X3D_VARIANTS[variant]
        self.feature_dim = _FEATURES
        self.num_classes = num_classes
        inputs = (_STEM, *(width for width, _, _ in _STAGES[:-1]))
        stages = [
            _stage(depth, before, *widths)
            for depth, before, widths in zip(self.variant.depths, inputs, _STAGES, strict=True)
        ]
        self.blocks = nn.ModuleList([_Stem(), *stages, _Head(self.variant.window, num_classes)])
        initialise(self)

    def forward_features(self, clip: Tensor) -> Tensor:
        """Penultimate features.

        Args:
            clip: (B, 3, frames, H, W), normalised; H and W at least 32.

        Returns:
            (B, 2048).

        Raises:
            ValueError: clip has another shape.
        """
        return self._positions(clip).mean(dim=(2, 3, 4))

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 2048) and logits (B, C) of a clip as for `forward_features`, in one pass."""
        positions = self._positions(clip)
        return positions.mean(dim=(2, 3, 4)), self.blocks[-1](positions)

    def _positions(self, clip: Tensor) -> Tensor:
        """(B, 2048, 1, h, w): the features at each position of the head's window."""
        check_clip(clip, self.name, self.variant)
        *body, head = self.blocks
        x = clip
        for block in body:
            x = block(x)
        assert isinstance(head, _Head)
        positions: Tensor = head.pool(x)
        return positions


class _Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = _StemConvolutions()
        self.norm = nn.BatchNorm3d(_STEM)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class _StemConvolutions(nn.Module):
    """Across space, then, channel by channel, across time. The checkpoints call the first conv_t, not conv_xy."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_t = conv(3, _STEM, (1, 3, 3), stride=(1, 2, 2))
        self.conv_xy = conv(_STEM, _STEM, (5, 1, 1), groups=_STEM)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_xy(self.conv_t(x))
        return out


class _SqueezeExcitation(nn.Module):
    """Scale each channel by what all channels' means say (https://arxiv.org/abs/1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv3d(channels, squeezed, 1), nn.ReLU(), nn.Conv3d(squeezed, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.block(x.mean(dim=(2, 3, 4), keepdim=True))
        return x * scale


class _Head(Classifier):
    """`pool` gives the features at each position of the window; calling the head on them gives the logits."""

    def __init__(self, window: int, num_classes: int) -> None:
        super().__init__(_FEATURES, num_classes)
        self.pool = _ProjectedPool(window)


class _ProjectedPool(nn.Module):
    def __init__(self, window: int) -> None:
        super().__init__()
        width, inside, _ = _STAGES[-1]
        self.window = window
        self.pre_conv = conv(width, inside, (1, 1, 1))
        self.pre_norm = nn.BatchNorm3d(inside)
        self.post_conv = conv(inside, _FEATURES, (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.pre_norm(self.pre_conv(x)), inplace=True)
        return F.relu(self.post_conv(window_means(x, self.window)))


def _stage(depth: int, before: int, width: int, inside: int, squeezed: int) -> Stage:
    """Residual blocks, of which the first halves height and width, and every other squeezes and excites."""
    blocks = []
    for index in range(depth):
        first = index == 0
        bottleneck = Bottleneck(
            (before if first else width, inside, width),
            kernel_a=(1, 1, 1),
            kernel_b=(3, 3, 3),
            stride=2 if first else 1,
            groups=inside,
            norm_b=nn.Sequential(
                nn.BatchNorm3d(inside),
                _SqueezeExcitation(inside, squeezed) if index % 2 == 0 else nn.Identity(),
            ),
            act_b=nn.SiLU(),
        )
        shortcut = conv(before, width, (1, 1, 1), stride=(1, 2, 2)) if first else None
        # As released: the first stage keeps its number of channels, and its shortcut has no normalisation.
        norm = nn.BatchNorm3d(width) if first and before != width else None
        blocks.append(ResidualBlock(bottleneck, shortcut, norm))
    return Stage(blocks)
