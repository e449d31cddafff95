"""Part of rooms 3, 4, 6 and 11: matrix products in fp32 on a CPU, made by the library of the convolutions.

PyTorch hands products of float32 matrices to MKL, which on processors of other makers than its own takes less
than half of the machine: 195 GFLOP/s on two cores that do 450 in the library that makes the convolutions
(oneDNN), and that makes those in bf16 anyway. So they are made there. Where PyTorch has no MKL, or lacks the
operators, the plain products give the same numbers.

Letters: R rows, C and C' columns in and out, G products at once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from frcnn.model.fused import switched_on

LEAST = 1 << 22
"""Multiplications of the smallest product: smaller ones take no longer than a call."""
NO_GEOMETRY = ([0, 0], [1, 1], [1, 1])
"""Padding, stride and dilation of a convolution that is a product."""


def _available() -> bool:
    names = ("_linear_pointwise", "_convolution_pointwise", "_reorder_convolution_weight")
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return both and all(hasattr(torch.ops.mkldnn, name) for name in names)


AVAILABLE = _available()


def usable() -> bool:
    """Whether the operators are there and nobody has switched their library off."""
    return AVAILABLE and switched_on()


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether the product of ``x`` (R, C) with ``weight`` (C', C) is made in this way."""
    if not usable() or torch.compiler.is_compiling() or x.device.type != "cpu" or x.ndim != 2:
        return False
    if type(x) not in (Tensor, nn.Parameter) or type(weight) not in (Tensor, nn.Parameter):
        return False  # others, such as those of tracers, may not know the operator
    if x.dtype != torch.float32 or weight.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    return len(x) * weight.numel() >= LEAST


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As ``F.linear``: (R, C) times (C', C) turned, plus (C',) -> (R, C').

    Gradients of gradients are made where it does not ``suits``, and refused where it does, as are those of
    ``torch.func``.
    """
    if not suits(x, weight):
        return F.linear(x, weight, bias)
    made: Tensor = _Linear.apply(x, weight, bias)
    return made


class Linear(nn.Linear):
    """A fully connected layer that is made in this way where that suits."""

    def forward(self, input: Tensor) -> Tensor:
        """(R, C) -> (R, C')."""
        return linear(input, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    """The product with its gradients, which are products as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        """See ``linear``."""
        ctx.save_for_backward(x, weight)
        return _product(x.contiguous(), weight.contiguous(), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of x, weight and bias.

        The library takes its second matrix turned or not. What it takes turned must be whole in memory: of
        anything else it makes the product in plain loops, a thousand times as slow.
        """
        (x, weight), grad = ctx.saved_tensors, grads[0].contiguous()
        to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.contiguous().T, None) if to_x else None,
            _product(grad.T.contiguous(), x.contiguous().T, None) if to_weight else None,
            grad.sum(0) if to_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(R, C) and (C', C) -> (R, C')."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return made


def pack(weights: Tensor, rows: int) -> Tensor:
    """Matrices (G, C', C) in the order in which ``side_by_side`` is quick for so many ``rows``."""
    groups, out, columns = weights.shape
    if not usable() or weights.dtype != torch.float32 or weights.device.type != "cpu":
        return weights
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weights.reshape(groups * out, columns, 1, 1), *NO_GEOMETRY, groups, [1, groups * columns, rows, 1]
    )
    return packed


def side_by_side(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """G products as one convolution with G groups: (R, G, C) with ``pack``ed (G, C', C) -> (R, G, C').

    Args:
        x: whole in memory, so that the rows are the pixels of a map with G C channels, channels last.
        packed: for so many rows; for others each call packs them anew.
        bias: (G, C'), added; None: nothing.
    """
    rows, groups, columns = x.shape
    if not packed.is_mkldnn:
        made = torch.bmm(x.transpose(0, 1), packed.transpose(1, 2)).transpose(0, 1).contiguous()
        return made if bias is None else made + bias
    map = x.view(1, rows, 1, groups * columns).permute(0, 3, 1, 2)
    flat = None if bias is None else bias.flatten()
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        map, packed, flat, *NO_GEOMETRY, groups, "none", [], ""
    )
    return out.permute(0, 2, 3, 1).view(rows, groups, -1)
