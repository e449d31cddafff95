"""Part of room 3: depthwise convolutions that are learnt on a CPU, with gradients as quick as themselves.

The CPU library is fast at a depthwise convolution and at most of its gradients: not at that of a kernel
wider than three, nor, in bf16, at the input's where there is a stride. For those it falls back to plain
loops, up to a hundred times as slow. Here they are put together from what it is fast at: a wide kernel's
gradient from a few columns of the kernel at a time, and the input's as a convolution of the gradient, spread
out by the stride, with the turned kernel.

Letters: N images, C channels, H, W a map's size, k a kernel's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from frcnn.model.fused import NONE, Activation, before_activation, convolve

Pair = tuple[int, int]
Arguments = tuple[Pair, Pair, Pair]
"""Stride, padding, dilation, in the order of PyTorch's operators."""
WIDEST = 3
"""Columns of a kernel whose gradient the CPU library computes fast."""


def depthwise(
    x: Tensor,
    weight: Tensor,
    shift: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    act: Activation = NONE,
) -> Tensor:
    """Each channel convolved with its own kernel.

    Args:
        x: (N, C, H, W) in the format to compute in.
        weight: (C, 1, k, k), in that format or fp32.
        shift: (C,), likewise.
        stride: of the convolution.
        padding: zeros on the left, right, top and bottom, as ``F.pad`` takes them.
        dilation: of the kernel.
        act: applied to the result, in one call, where it is not ``NONE``.

    Returns:
        (N, C, H', W') in ``x``'s format. Gradients come in the format of what they belong to.
    """
    made: Tensor = _Depthwise.apply(x, weight, shift, tuple(stride), tuple(padding), tuple(dilation), act)
    return made


class _Depthwise(torch.autograd.Function):
    """The shift's gradient is a plain sum: inside the library's call it took up to 8 ms more."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        shift: Tensor,
        stride: Pair,
        padding: Sequence[int],
        dilation: Pair,
        act: Activation,
    ) -> Tensor:
        """See ``depthwise``."""
        left, right, top, bottom = padding
        ctx.size, ctx.padding, ctx.padded = x.shape[2:], padding, False
        ctx.arguments = stride, (top, left), dilation
        if left != right or top != bottom:  # which the library does not do
            ctx.padded, ctx.arguments = True, (stride, (0, 0), dilation)
            rows, columns = x.shape[2] + top + bottom, x.shape[3] + left + right
            x = _window(x, -top, -left, rows, columns)
        kernel, added, groups = weight.to(x.dtype), shift.to(x.dtype), len(weight)
        if act == NONE:
            with torch.autocast("cpu", enabled=False):
                out = F.conv2d(x, kernel, added, *ctx.arguments, groups)
        else:
            stride, sides, dilation = ctx.arguments
            out = convolve(x, kernel, added, (sides, stride, dilation), groups, act)
        ctx.act = act
        ctx.save_for_backward(x, weight, *([] if act == NONE else [out]))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of x in its format, of weight and shift as these are."""
        (x, weight, *out), grad = ctx.saved_tensors, grads[0]
        grad = before_activation(grad, out[0], ctx.act) if out else grad
        stride, _, dilation = ctx.arguments
        to_x, to_weight, to_shift = ctx.needs_input_grad[:3]
        single = torch.promote_types(x.dtype, torch.float32)
        towards_x = towards_weight = towards_shift = None
        with torch.autocast("cpu", enabled=False):
            if to_x and _turns(x, weight, ctx.arguments, ctx.padding):
                towards_x = _towards_input(grad, weight.to(grad.dtype), ctx.size, stride, ctx.padding)
            elif to_x:  # the library does not read the input's values
                shape = x if x.dtype == single else torch.empty_like(x, dtype=single)
                whole = _library(grad.to(single), shape, weight.to(single), ctx.arguments, 0)
                whole = F.pad(whole, [-side for side in ctx.padding]) if ctx.padded else whole
                towards_x = whole.to(x.dtype)
            if to_weight:
                format = x.dtype if dilation == (1, 1) else single
                low = grad.to(format), x.to(format), weight.to(format)
                towards_weight = _towards_weight(*low, ctx.arguments).to(weight.dtype)
        if to_shift:
            towards_shift = grad.sum((0, 2, 3), dtype=single)
        return towards_x, towards_weight, towards_shift, None, None, None, None


def _turns(x: Tensor, weight: Tensor, arguments: Arguments, padding: Sequence[int]) -> bool:
    """Whether the input's gradient is made as a convolution with the turned kernel: it must cover the
    padding, and with a stride, which wastes most of the products, only low formats gain by it.
    """
    stride, _, dilation = arguments
    covered = dilation == (1, 1) and max(padding) < min(weight.shape[2:])
    return covered and (stride == (1, 1) or x.dtype.itemsize < 4)


def _towards_input(grad: Tensor, weight: Tensor, size: Pair, stride: Pair, padding: Sequence[int]) -> Tensor:
    """Map (N, C, H', W') -> (N, C, H, W): the gradient of an input of ``size``, without its padding.

    Rows and columns alike, pixel i of the input gets the sum over m of weight[k - 1 - m] * spread[i + m],
    where the gradient's pixel j is spread[j * stride + k - 1 - top]. Each padding is less than k.
    """
    left, right, top, bottom = padding
    turned, (height, width) = weight.flip(2, 3), weight.shape[2:]
    above, before = height - 1 - top, width - 1 - left
    if stride == (1, 1) and (left, top) == (right, bottom):
        return F.conv2d(grad, turned, None, 1, (above, before), 1, len(weight))
    spread = _empty(grad, size[0] + height - 1, size[1] + width - 1).zero_()
    rows, columns = slice(above, None, stride[0]), slice(before, None, stride[1])
    spread[:, :, rows, columns][:, :, : grad.shape[2], : grad.shape[3]] = grad
    return F.conv2d(spread, turned, None, 1, 0, 1, len(weight))


def _towards_weight(grad: Tensor, x: Tensor, weight: Tensor, arguments: Arguments) -> Tensor:
    """(C, 1, k, k): the gradient of a kernel, of at most ``WIDEST`` of its columns at a time."""
    (stride, (top, left), dilation), width = arguments, weight.shape[3]
    if width <= WIDEST or dilation != (1, 1):
        return _library(grad, x, weight, arguments, 1)
    start = 0
    parts: list[Tensor] = []
    for columns in _shares(width):
        reach = (grad.shape[3] - 1) * stride[1] + columns
        seen = _window(x, -top, start - left, x.shape[2] + 2 * top, reach)
        part = weight[:, :, :, start : start + columns]
        parts.append(_library(grad, seen, part, (stride, (0, 0), dilation), 1))
        start += columns
    return torch.cat(parts, 3)


def _shares(width: int) -> list[int]:
    """A kernel's columns in twos and threes: of a single one the library is slow, too, where a stride is."""
    threes = (width - 2 * (-width % 3)) // WIDEST
    return [WIDEST] * threes + [2] * (-width % 3)


def _window(x: Tensor, top: int, left: int, rows: int, columns: int) -> Tensor:
    """(N, C, rows, columns) of ``x`` (N, C, H, W) from row ``top`` and column ``left``, zeros outside of it.

    ``F.pad`` does the same, but fills everything with zeros first.
    """
    above, before = min(max(-top, 0), rows), min(max(-left, 0), columns)
    inside = x[:, :, max(top, 0) : max(top + rows, 0), max(left, 0) : max(left + columns, 0)]
    below, behind = above + inside.shape[2], before + inside.shape[3]
    window = _empty(x, rows, columns)
    window[:, :, :above] = 0
    window[:, :, below:] = 0
    window[:, :, above:below, :before] = 0
    window[:, :, above:below, behind:] = 0
    window[:, :, above:below, before:behind] = inside
    return window


def _empty(like: Tensor, rows: int, columns: int) -> Tensor:
    """In channels-last memory, as the maps of every network of ours are."""
    size = *like.shape[:2], rows, columns
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _library(grad: Tensor, x: Tensor, weight: Tensor, arguments: Arguments, of: int) -> Tensor:
    """The CPU library's gradient of the input (``of`` 0) or the weight (1), all in one format."""
    wanted = [of == 0, of == 1, False]
    made: Tensor = torch.ops.aten.convolution_backward(
        grad, x, weight, None, *arguments, False, [0, 0], len(weight), wanted
    )[of]
    return made
