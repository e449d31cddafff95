"""Room 4: the feature pyramid (Lin et al. 2017, section 3); a single level is a pyramid of length 1.

Letters: N images, L levels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.config import FpnConfig
from frcnn.model.winograd import Conv3x3


class FeaturePyramid(nn.Module):
    """Top-down pathway with lateral connections, and one more pooled level for the RPN.

    The paper's nearest-neighbour upsampling and 3x3 smoothing; like torchvision it has no activation.
    """

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], config: FpnConfig) -> None:
        """Build for backbone maps of ``in_channels`` at ``strides``."""
        super().__init__()
        self.extra_pool = config.extra_pool
        width = config.channels
        self.channels = width
        self.strides: list[int] = [*strides, *([strides[-1] * 2] if config.extra_pool else [])]
        self.inner = nn.ModuleList(_conv(c, width, 1, config.norm) for c in in_channels)
        self.output = nn.ModuleList(
            nn.Identity() if i < config.smooth_from else _conv(width, width, 3, config.norm)
            for i in range(len(in_channels))
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Backbone maps, finest first -> pyramid maps (N, C, H_l, W_l), finest first."""
        top = self.inner[-1](maps[-1])
        levels = [self.output[-1](top)]
        for i in range(len(maps) - 2, -1, -1):  # a loop over levels, not over images
            lateral = self.inner[i](maps[i])
            top = F.interpolate(top, size=lateral.shape[-2:], mode="nearest").add_(lateral)
            levels.insert(0, self.output[i](top))
        if self.extra_pool:
            levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))
        return levels


class SingleLevel(nn.Module):
    """The pyramid of length 1: the classic detectors use their one feature map as it is."""

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int]) -> None:
        """Build for one map."""
        super().__init__()
        self.channels = in_channels[0]
        self.strides = [strides[0]]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The map itself."""
        return list(maps)


def _conv(in_channels: int, channels: int, kernel: int, norm: str) -> nn.Sequential:
    bias = norm == "none"
    wide = kernel == 3
    conv = Conv3x3(in_channels, channels, bias) if wide else nn.Conv2d(in_channels, channels, 1, bias=bias)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return nn.Sequential(conv) if norm == "none" else nn.Sequential(conv, nn.BatchNorm2d(channels))
