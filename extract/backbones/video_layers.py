"""What X3D and SlowFast share: 3-D residual blocks, with the parameter names of pytorchvideo's checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

MODEL_ZOO = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"
KINETICS_CLASSES = 400

# Pixels per position of the last map: height and width are halved five times, rounding up; time never is.
_SPACING = 32


@dataclass(frozen=True)
class Variant:
    """A network as it was released: what it was trained and tested on, and where its parameters are.

    Attributes:
        frames: frames in a clip.
        stride: frames of the source video from one frame of a clip to the next.
        train_crop: side of the square that it was trained on, in pixels.
        test_crop: side of the square for testing, and of the short side that three such squares cover, in pixels.
        depths: residual blocks of the four stages.
        url: checkpoint of pytorchvideo's model zoo, trained on Kinetics-400.
    """

    frames: int
    stride: int
    train_crop: int
    test_crop: int
    depths: tuple[int, int, int, int]
    url: str

    @property
    def window(self) -> int:
        """Side of the head's pooling window, in positions of the last map: one training crop fills it."""
        return -(-self.train_crop // _SPACING)


class Bottleneck(nn.Module):
    """Three convolutions: to fewer (X3D: more) channels, across space, and to the output's channels.

    Args:
        widths: channels before, inside and after.
        kernel_a, kernel_b: kernels of the first two convolutions, (T, H, W), all odd; the third is 1×1×1.
        stride: of the second convolution in height and width.
        groups: of the second convolution.
        norm_b: what follows the second convolution, before `act_b`.
        act_b: ReLU (SlowFast) or Swish (X3D).
    """

    def __init__(
        self,
        widths: tuple[int, int, int],
        *,
        kernel_a: tuple[int, int, int],
        kernel_b: tuple[int, int, int],
        stride: int,
        groups: int,
        norm_b: nn.Module,
        act_b: nn.Module,
    ) -> None:
        super().__init__()
        before, inside, after = widths
        self.conv_a = conv(before, inside, kernel_a)
        self.norm_a = nn.BatchNorm3d(inside)
        self.conv_b = conv(inside, inside, kernel_b, stride=(1, stride, stride), groups=groups)
        self.norm_b = norm_b
        self.act_b = act_b
        self.conv_c = conv(inside, after, (1, 1, 1))
        self.norm_c = nn.BatchNorm3d(after)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T, ⌈H/stride⌉, ⌈W/stride⌉)."""
        x = F.relu(self.norm_a(self.conv_a(x)), inplace=True)
        x = self.act_b(self.norm_b(self.conv_b(x)))
        out: Tensor = self.norm_c(self.conv_c(x))
        return out


class ResidualBlock(nn.Module):
    """ReLU of a bottleneck plus a shortcut.

    Args:
        branch2: the bottleneck.
        shortcut: convolution where its output has another shape than its input, else None.
        shortcut_norm: normalisation after that convolution, if any.
    """

    def __init__(
        self, branch2: nn.Module, shortcut: nn.Module | None, shortcut_norm: nn.Module | None
    ) -> None:
        super().__init__()
        # nn.Identity has no parameters, so it leaves no names in a checkpoint.
        self.branch1_conv = shortcut or nn.Identity()
        self.branch1_norm = shortcut_norm or nn.Identity()
        self.branch2 = branch2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T, H', W')."""
        return F.relu(self.branch1_norm(self.branch1_conv(x)) + self.branch2(x), inplace=True)


class Stage(nn.Module):
    """Residual blocks, one after another."""

    def __init__(self, blocks: Sequence[ResidualBlock]) -> None:
        super().__init__()
        self.res_blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T, H', W')."""
        out: Tensor = self.res_blocks(x)
        return out


class Classifier(nn.Module):
    """Dropout and a linear layer at every position, then the mean over the positions."""

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.proj = nn.Linear(feature_dim, num_classes)

    def forward(self, positions: Tensor) -> Tensor:
        """(B, D, 1, h, w) to logits (B, C)."""
        # Averaging first would give the same; this is what was released, and what its published cost counts.
        logits: Tensor = self.proj(self.dropout(positions.permute(0, 2, 3, 4, 1)))
        return logits.mean(dim=(1, 2, 3))


def conv(
    before: int,
    after: int,
    kernel: tuple[int, int, int],
    *,
    stride: tuple[int, int, int] = (1, 1, 1),
    groups: int = 1,
) -> nn.Conv3d:
    """Convolution without bias, padded so that at stride 1 the size stays; kernel and stride are (T, H, W)."""
    t, h, w = kernel
    padding = (t // 2, h // 2, w // 2)
    return nn.Conv3d(before, after, kernel, stride, padding, groups=groups, bias=False)


def window_means(x: Tensor, window: int) -> Tensor:
    """Means of (B, C, T, H, W) over all time and a square that slides over space: (B, C, 1, H', W').

    Where the map is smaller than the square, the mean is over all of it.
    """
    sides = [min(window, side) for side in x.shape[3:]]
    # In two steps, because torch's avg_pool3d knows no bfloat16 on CPUs.
    return F.avg_pool2d(x.mean(dim=2), sides, stride=1).unsqueeze(2)


def initialise(model: nn.Module) -> None:
    """Draw parameters as for the released networks' training.

    Convolutions after He et al. (https://arxiv.org/abs/1502.01852, by fan out), the classifier from N(0, 0.01²),
    biases 0; the last BatchNorm of every bottleneck has scale 0, so that at first only shortcuts count
    (https://arxiv.org/abs/1706.02677, section 5.1).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, nn.Conv3d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Bottleneck):
            nn.init.zeros_(module.norm_c.weight)


def check_clip(clip: Tensor, name: str, variant: Variant) -> None:
    """Raises ValueError unless clip is (B, 3, frames, H, W), H and W at least 32."""
    frames = variant.frames
    if clip.ndim != 5 or clip.shape[1:3] != (3, frames) or min(clip.shape[3:]) < _SPACING:
        raise ValueError(
            f"{name} takes clips (B, 3, {frames}, H, W) with H and W from {_SPACING}, not {tuple(clip.shape)}"
        )
