"""Room 6: the region proposal network's head (Faster R-CNN, section 3.1).

Letters: N images, L levels, A anchors of a picture, B anchors of a cell, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from frcnn.config import RpnConfig
from frcnn.model.winograd import Conv3x3


class RpnHead(nn.Module):
    """3x3 convolutions and two 1x1 outputs, shared by all levels.

    All layers start from N(0, 0.01) with zero bias, as in the paper: a fresh network's objectness is then
    near 0.5 everywhere (loss ln 2), and its deltas near 0.
    """

    def __init__(self, in_channels: int, anchors_per_cell: int, config: RpnConfig) -> None:
        """Build for features of ``in_channels`` with B anchors a cell."""
        super().__init__()
        width = config.hidden_channels or in_channels
        self.outputs = 2 if config.objectness == "softmax" else 1
        self.grouped = config.channel_order == "grouped"
        layers: list[nn.Module] = []
        for i in range(config.depth):
            layers += [
                Conv3x3(in_channels if i == 0 else width, width),
                nn.ReLU(inplace=True),
            ]
        self.conv = nn.Sequential(*layers)
        kernel, padding = config.output_kernel, config.output_kernel // 2
        self.objectness = nn.Conv2d(width, anchors_per_cell * self.outputs, kernel, padding=padding)
        self.deltas = nn.Conv2d(width, anchors_per_cell * 4, kernel, padding=padding)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps (N, C, H_l, W_l) -> logits (N, A) or (N, A, 2) and deltas (N, A, 4), float32, rows first."""
        logits: list[Tensor] = []
        deltas: list[Tensor] = []
        for feature in features:
            hidden = self.conv(feature)
            logits.append(self._flatten_logits(self.objectness(hidden)))
            deltas.append(self.deltas(hidden).permute(0, 2, 3, 1).flatten(1))  # (N, H W B 4)
        all_logits = torch.cat(logits, 1).float()
        all_deltas = torch.cat(deltas, 1).float()
        if self.outputs == 2:
            all_logits = all_logits.unflatten(1, (all_logits.shape[1] // 2, 2))  # (N, A, 2)
        return all_logits, all_deltas.unflatten(1, (all_deltas.shape[1] // 4, 4))  # (N, A, 4)

    def _flatten_logits(self, output: Tensor) -> Tensor:
        rows_first = output.permute(0, 2, 3, 1)  # (N, H, W, B * outputs)
        if self.outputs == 2 and self.grouped:  # all background, then all object: bring the pair together
            n, h, w, _ = rows_first.shape
            rows_first = rows_first.view(n, h, w, 2, -1).transpose(-1, -2)
        return rows_first.flatten(1)
