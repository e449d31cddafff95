"""Room 3: the feature extractor, a timm model (or torchvision's MobileNetV3) cut to the levels that are used.

Letters: N images, C channels, H, W padded picture. Paper: Faster R-CNN, section 3.1 (shared convolutional
layers).

A backbone declares its channels and strides; nothing is guessed from a forward pass.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from frcnn.config import BackboneConfig
from frcnn.model.norms import freeze_norms, group_norms
from frcnn.model.stem import RGB, widen_stem
from frcnn.model.trunks import TORCHVISION, TorchvisionFeatures


class Backbone(nn.Module):
    """Features of a picture at the declared strides.

    Attributes:
        channels: of each level.
        strides: pixels a cell of each level.
        stem: name of the first convolution where it reads another number of channels than three, else "".
    """

    def __init__(self, config: BackboneConfig, channels: int = RGB) -> None:
        """Build without weights (``frcnn.weights.imagenet`` loads them), for pictures of ``channels``.

        Raises:
            ValueError: when timm (or torchvision) does not know the name or the levels.
        """
        super().__init__()
        if config.name.startswith(TORCHVISION):
            trunk = TorchvisionFeatures(config.name, config.levels)
            self.net: nn.Module = trunk
            self.channels, self.strides, self._stages = trunk.channels, trunk.strides, trunk.stages
        else:
            self.net = _timm_features(config)
            info: Any = self.net.feature_info
            self.channels, self.strides = info.channels(), info.reduction()
            self._stages = _all_stages(config.name)
        self.stem = "" if channels == RGB else widen_stem(self.net, channels)
        _set_norm(self.net, config)
        if config.weights != "none" and config.freeze:
            self.freeze(config.freeze)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Pixels (N, channels, H, W) -> one map (N, C_l, H / stride_l, W / stride_l) for each level."""
        return list(self.net(pixels))

    def freeze(self, power: int) -> None:
        """Stop training of everything up to stride 2^power; later stages are not touched.

        A first convolution whose weights were made for other channels than it reads goes on training.
        """
        last = [module for reduction, module in self._stages if reduction <= 2**power]
        if not last:
            return
        names = [name for name, _ in self.net.named_modules()]
        flat = [name.replace(".", "_") for name in names]
        end = max(i for i, name in enumerate(flat) if name == last[-1] or name.startswith(last[-1] + "_"))
        for name in names[1 : end + 1]:
            for parameter in self.net.get_submodule(name).parameters(recurse=False):
                parameter.requires_grad_(self.stem != "" and name == self.stem)


def _timm_features(config: BackboneConfig) -> nn.Module:
    if not timm.is_model(config.name):
        near = timm.list_models(f"*{config.name[:6]}*")[:3]
        raise ValueError(
            f"timm has no model {config.name!r}; near it are {near}, all are in timm.list_models()"
        )
    return timm.create_model(
        config.name, pretrained=False, features_only=True, out_indices=config.levels, scriptable=False
    )


def _all_stages(name: str) -> list[tuple[int, str]]:
    """(stride, last module with every dot as ``_``) of all stages, also those that are not used."""
    with torch.device("meta"):  # names only, no memory
        info: Any = timm.create_model(name, pretrained=False).feature_info
    return [(stage["reduction"], stage["module"].replace(".", "_")) for stage in info]


def _set_norm(net: nn.Module, config: BackboneConfig) -> None:
    """Make the batch norm what the configuration says, in place."""
    norm = config.resolved_norm
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and config.norm_eps is not None:
            module.eps = config.norm_eps
    if norm == "frozen":
        freeze_norms(net)
    elif norm == "group":
        group_norms(net)
