"""Room 6: the region proposal network's head (Faster R-CNN, section 3.1).

Letters: N images, L levels, A anchors of a picture, B anchors of a cell, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.config import RpnConfig
from frcnn.model import sparse
from frcnn.model.fused import RELU, computed_in
from frcnn.model.winograd import Conv3x3

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class RpnHead(nn.Module):
    """3x3 convolutions and two 1x1 outputs, shared by all levels.

    All layers start from N(0, 0.01) with zero bias, as in the paper: a fresh network's objectness is then
    near 0.5 everywhere (loss ln 2), and its deltas near 0.
    """

    def __init__(self, in_channels: int, anchors_per_cell: int, config: RpnConfig) -> None:
        """Build for features of ``in_channels`` with B anchors a cell."""
        super().__init__()
        width = config.hidden_channels or in_channels
        self.looked_at = config.batch_size
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
        for scores, moves in self._outputs(features):
            logits.append(self._flatten_logits(scores))
            deltas.append(moves.permute(0, 2, 3, 1).flatten(1))  # (N, H W B 4)
        all_logits = torch.cat(logits, 1).float()
        all_deltas = torch.cat(deltas, 1).float()
        if self.outputs == 2:
            all_logits = all_logits.unflatten(1, (all_logits.shape[1] // 2, 2))  # (N, A, 2)
        return all_logits, all_deltas.unflatten(1, (all_deltas.shape[1] // 4, 4))  # (N, A, 4)

    def _outputs(self, features: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Of each level, (N, B * outputs, H_l, W_l) and (N, B * 4, H_l, W_l).

        On a CPU both come from one convolution, and ``sparse`` makes it while gradients are recorded.
        """
        if features[0].device.type != "cpu" or torch.compiler.is_compiling() or not self._as_built():
            hidden = [self.conv(feature) for feature in features]
            return [(self.objectness(map), self.deltas(map)) for map in hidden]
        weight = torch.cat([self.objectness.weight, self.deltas.weight])
        shift = torch.cat([_shift(self.objectness), _shift(self.deltas)])
        if torch.is_grad_enabled() and sparse.few(self.looked_at * len(features[0]), features):
            made = self._learnt(features, weight, shift)
        else:
            made = [F.conv2d(self._hidden(feature), weight, shift) for feature in features]
        counts = [self.objectness.out_channels, self.deltas.out_channels]
        return [(scores, moves) for scores, moves in (both.split(counts, 1) for both in made)]

    def _hidden(self, map: Tensor) -> Tensor:
        """What ``conv`` makes of a map, as it is built."""
        for module in self.conv:
            if isinstance(module, Conv3x3):
                map = module(map, RELU)
        return map

    def _learnt(self, features: Sequence[Tensor], weight: Tensor, shift: Tensor) -> list[Tensor]:
        """Outputs (N, B * outputs + B * 4, H_l, W_l) of the levels, with gradients at few cells."""
        *first, last, _ = self.conv
        assert isinstance(last, Conv3x3)
        last.forget()
        maps = list(features)
        for module in first:
            maps = [module(map) for map in maps]
        dtype = computed_in(maps[0])
        tensors = (tensor.to(dtype) for tensor in (last.weight, _shift(last), weight, shift))
        return sparse.outputs([map.to(dtype) for map in maps], sparse.Layers(*tensors))

    def _as_built(self) -> bool:
        """Whether every layer is one of ours and nobody listens to it, so that others may do its work."""
        outputs = [self.objectness, self.deltas]
        if type(self.conv) is not nn.Sequential or any(type(m) is not nn.Conv2d for m in outputs):
            return False
        layers = list(self.conv)
        kinds = [Conv3x3, nn.ReLU] * max(len(layers) // 2, 1)
        if [type(layer) for layer in layers] != kinds:
            return False
        plain = all(_geometry(m) == ((3, 3), (1, 1)) for m in layers[::2]) and all(
            _geometry(m) == ((1, 1), (0, 0)) for m in outputs
        )
        touched = any(getattr(m, hooks) for m in (self.conv, *layers, *outputs) for hooks in HOOKS)
        return plain and not touched and not any("forward" in vars(m) for m in (*layers, *outputs))

    def _flatten_logits(self, output: Tensor) -> Tensor:
        rows_first = output.permute(0, 2, 3, 1)  # (N, H, W, B * outputs)
        if self.outputs == 2 and self.grouped:  # all background, then all object: bring the pair together
            n, h, w, _ = rows_first.shape
            rows_first = rows_first.view(n, h, w, 2, -1).transpose(-1, -2)
        return rows_first.flatten(1)


def _geometry(conv: nn.Module) -> tuple[object, object] | None:
    """Kernel and padding of a convolution with nothing else to it; None: there is."""
    assert isinstance(conv, nn.Conv2d)
    rest = (conv.stride, conv.dilation, conv.groups, conv.padding_mode)
    plain = rest == ((1, 1), (1, 1), 1, "zeros") and conv.bias is not None
    return (conv.kernel_size, conv.padding) if plain else None


def _shift(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
