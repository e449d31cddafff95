"""Part of room 3: torchvision's own MobileNetV3, cut where its detectors cut it.

timm's network of that name has its layers in other places, so that weights of torchvision's detectors would
not fit it.

Letters: N images, C channels, H, W padded picture. Paper: Searching for MobileNetV3 (Howard et al. 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torchvision
from torch import Tensor, nn

TORCHVISION = "torchvision/"
"""What the name of a backbone of this kind begins with."""
NAMES = ("torchvision/mobilenet_v3_large",)
CLASSIFIER_EPS = 1e-3
"""Of the batch norm that torchvision's ImageNet weights were trained with; its detectors use 1e-5."""


class TorchvisionFeatures(nn.Module):
    """The ``features`` of a torchvision classifier up to the last one that is used; names stay theirs.

    Attributes:
        channels: of each level.
        strides: pixels a cell of each level.
        stages: (stride, name of the last module) of every stride up to the last level.
    """

    def __init__(self, name: str, levels: Sequence[int]) -> None:
        """Build without weights.

        Args:
            name: one of ``NAMES``.
            levels: indices into ``features``, in rising order.

        Raises:
            ValueError: for another name, or levels that the network does not have.
        """
        super().__init__()
        if name not in NAMES:
            raise ValueError(
                f"backbone.name {name!r}: of torchvision's backbones {', '.join(NAMES)} can be used; "
                "timm has the others under their plain names"
            )
        build = getattr(torchvision.models, name.removeprefix(TORCHVISION))
        features = build(weights=None, norm_layer=partial(nn.BatchNorm2d, eps=CLASSIFIER_EPS)).features
        rising = sorted(set(levels)) == list(levels)
        if not levels or not rising or not 0 <= levels[0] <= levels[-1] < len(features):
            raise ValueError(
                f"backbone.levels {tuple(levels)}: {name} has 0 to {len(features) - 1}, in rising order"
            )
        strides: list[int] = []
        for block in features:
            halves = any(isinstance(m, nn.Conv2d) and m.stride[0] == 2 for m in block.modules())
            strides.append((strides[-1] if strides else 1) * (2 if halves else 1))
        last_of = {stride: index for index, stride in enumerate(strides[: levels[-1] + 1])}
        self.stages = [(stride, str(index)) for stride, index in last_of.items()]
        self.channels = [int(features[level].out_channels) for level in levels]
        self.strides = [strides[level] for level in levels]
        self._levels = frozenset(levels)
        for index in range(levels[-1] + 1):
            self.add_module(str(index), features[index])

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Pixels (N, 3, H, W) -> one map (N, C_l, H / stride_l, W / stride_l) for each level."""
        maps: list[Tensor] = []
        for index, block in enumerate(self.children()):
            pixels = block(pixels)
            if index in self._levels:
                maps.append(pixels)
        return maps
