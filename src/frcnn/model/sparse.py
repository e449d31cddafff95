"""Part of room 6: the RPN head while it learns on a CPU, with gradients only where there are any.

The RPN's losses look at 256 anchors of a picture, so at most as many cells have a gradient: 2 % of those
of a 320 x 426 picture, fewer of a larger one. Convolutions do not know, and multiply zeros for the rest; with
a pyramid of 256 channels the head's are a fifth of all that a step computes. Here the cells with a gradient
are looked up, and what belongs to them is a few products of matrices with one row a cell: the same sums
without the zeros (and without what is infinite times zero). Where more than ``MOST`` of the cells have one (a
loss over all anchors), convolutions are faster and do it.

On a GPU the host would have to wait for the number of cells, so plain convolutions stay there.

Letters: N images, L levels, H, W a map's size, C channels of a map, D of a hidden one, K of the outputs, M
cells with a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from frcnn.model import winograd

MOST = 0.2
"""Of the cells of all levels. With 256 channels both ways take the same time at a third; the patches of a
cell take nine times its memory."""
TAPS = 9


@dataclass(frozen=True)
class Layers:
    """The head's last hidden layer and its outputs; all in the format to compute in."""

    hidden: Tensor
    """(D, C, 3, 3)"""
    hidden_shift: Tensor
    """(D,)"""
    output: Tensor
    """(K, D, 1, 1)"""
    output_shift: Tensor
    """(K,)"""

    def flat(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All of them in a row."""
        return self.hidden, self.hidden_shift, self.output, self.output_shift


def few(anchors: int, maps: Sequence[Tensor]) -> bool:
    """Whether losses that look at so many anchors of maps (N, C, H_l, W_l) leave most cells without."""
    return anchors <= MOST * sum(map[:, 0].numel() for map in maps)


def outputs(maps: Sequence[Tensor], layers: Layers) -> list[Tensor]:
    """Maps (N, C, H_l, W_l) -> outputs (N, K, H_l, W_l); all in the format of the layers.

    Gradients of gradients are not made, nor those of ``torch.func``.
    """
    found: tuple[Tensor, ...] = _Head.apply(*layers.flat(), *maps)
    return list(found)


def _forward(map: Tensor, layers: Layers, transformed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The hidden map and the outputs, recorded where gradients are and the kernel is not ``transformed``."""
    if not winograd.suits(map, layers.hidden):
        hidden = F.conv2d(map, layers.hidden, layers.hidden_shift, padding=1)
    elif transformed is None:
        hidden = winograd.learnt(map, layers.hidden, layers.hidden_shift)
    else:
        kernel = winograd.kernel_for(transformed, map.shape)
        hidden = winograd.convolve(map, kernel, layers.hidden_shift)
    hidden.relu_()
    return hidden, F.conv2d(hidden, layers.output, layers.output_shift)


class _Head(torch.autograd.Function):
    """The head with its gradients."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Tensors are those of ``Layers``, then the maps."""
        layers, maps = Layers(*tensors[:4]), tensors[4:]
        with torch.autocast("cpu", enabled=False):
            any_suits = any(winograd.suits(map, layers.hidden) for map in maps)
            transformed = winograd.transform(layers.hidden) if any_suits else None
            hidden, found = zip(*(_forward(map, layers, transformed) for map in maps), strict=True)
        ctx.save_for_backward(*tensors, *hidden)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of the parameters and the maps."""
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        layers, maps, hidden = Layers(*saved[:4]), saved[4 : -len(grads)], saved[-len(grads) :]
        needed: tuple[bool, ...] = ctx.needs_input_grad
        cells = [cells_of(grad) for grad in grads]
        with torch.autocast("cpu", enabled=False):
            if not few(sum(len(where.index) for where in cells), grads):
                return tuple(_dense(saved[: -len(grads)], grads, needed))
            above = torch.cat([where.rows(grad) for where, grad in zip(cells, grads, strict=True)])
            seen = torch.cat([where.rows(map) for where, map in zip(cells, hidden, strict=True)])
            before = (above @ layers.output.flatten(1)).masked_fill(seen <= 0, 0)  # (M, D), before the ReLU
            return (
                _hidden_gradient(before, maps, cells) if needed[0] else None,
                before.sum(0) if needed[1] else None,
                (above.T @ seen)[:, :, None, None] if needed[2] else None,
                above.sum(0) if needed[3] else None,
                *_map_gradients(before, layers.hidden, cells, needed[4:]),
            )


def _dense(tensors: Sequence[Tensor], grads: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
    """Gradients by convolutions; they are computed forwards once more, to be recorded."""
    with torch.enable_grad():
        copies = [tensor.detach().requires_grad_(need) for tensor, need in zip(tensors, needed, strict=True)]
        found = [_forward(map, Layers(*copies[:4]))[1] for map in copies[4:]]
    wanted = [copy for copy in copies if copy.requires_grad]
    pairs = [(one, grad) for one, grad in zip(found, grads, strict=True) if one.requires_grad]
    made = iter(torch.autograd.grad([one for one, _ in pairs], wanted, [grad for _, grad in pairs]))
    return [next(made) if need else None for need in needed]


def _hidden_gradient(before: Tensor, maps: Sequence[Tensor], cells: Sequence[_Cells]) -> Tensor:
    """Of the 3x3 kernel (D, C, 3, 3), from the hidden layer's gradient (M, D)."""
    patches = torch.cat([where.patches(map) for where, map in zip(cells, maps, strict=True)])  # (M, 9, C)
    return (before.T @ patches.flatten(1)).unflatten(1, (3, 3, -1)).permute(0, 3, 1, 2)


def _map_gradients(
    before: Tensor, kernel: Tensor, cells: Sequence[_Cells], needed: Sequence[bool]
) -> list[Tensor | None]:
    """Of the maps (N, C, H_l, W_l) that need one, from the hidden layer's gradient (M, D)."""
    flat = kernel.permute(0, 2, 3, 1).flatten(1)  # (D, 9 C)
    parts = before.split([len(where.index) for where in cells])
    found: list[Tensor | None] = []
    for part, where, need in zip(parts, cells, needed, strict=True):
        found.append(where.spread((part @ flat).unflatten(1, (TAPS, -1))) if need else None)
    return found


@dataclass(frozen=True)
class _Cells:
    """Cells of one level that have a gradient."""

    images: int
    height: int
    width: int
    index: Tensor
    """(M,) int64, of the flattened N x H x W."""

    def rows(self, map: Tensor) -> Tensor:
        """Of a map (N, C, H, W), these cells' (M, C)."""
        return _table(map).index_select(0, self.index)

    def patches(self, map: Tensor) -> Tensor:
        """Of a map (N, C, H, W), what a 3x3 kernel sees around these cells: (M, 9, C), zeros outside."""
        y, x = self._around(-1)
        inside = (y >= 0) & (y < self.height) & (x >= 0) & (x < self.width)  # (M, 9)
        image = (self.index // (self.height * self.width))[:, None]
        at = (image * self.height + y) * self.width + x
        found = _table(map).index_select(0, at.where(inside, 0).flatten()).view(*at.shape, map.shape[1])
        found[~inside] = 0
        return found

    def spread(self, patches: Tensor) -> Tensor:
        """The sum of patches (M, 9, C) at where they come from: a map (N, C, H, W), channels last."""
        y, x = self._around(0)
        high, wide, channels = self.height + 2, self.width + 2, patches.shape[2]
        image = (self.index // (self.height * self.width))[:, None]
        at = (image * high + y) * wide + x  # with a border, so that no two cells share a place for one tap
        sums = torch.promote_types(patches.dtype, torch.float32)  # rounded once, as a convolution does
        table = torch.zeros(self.images * high * wide, channels, dtype=sums, device=patches.device)
        for tap in range(TAPS):
            place = at[:, tap]
            table.index_copy_(0, place, table.index_select(0, place) + patches[:, tap])
        inner = table.view(self.images, high, wide, channels)[:, 1:-1, 1:-1]
        return inner.permute(0, 3, 1, 2).to(patches.dtype)

    def _around(self, first: int) -> tuple[Tensor, Tensor]:
        """Rows and columns (M, 9) of the nine taps, of which the first is at ``first``."""
        inner, taps = self.index % (self.height * self.width), torch.arange(TAPS, device=self.index.device)
        y, x = inner // self.width + first, inner % self.width + first
        return y[:, None] + taps // 3, x[:, None] + taps % 3


def cells_of(grad: Tensor) -> _Cells:
    """Cells of a gradient (N, K, H, W) that is not zero (or is no number) in some channel."""
    images, _, height, width = grad.shape
    return _Cells(images, height, width, (grad != 0).any(1).flatten().nonzero().squeeze(1))


def _table(map: Tensor) -> Tensor:
    """(N, C, H, W) -> (N H W, C), without a copy where channels are last."""
    return map.permute(0, 2, 3, 1).reshape(-1, map.shape[1])
