"""Part of room 3: a convolution and its activation as one call on a CPU.

The CPU library runs a convolution faster whose weights lie in its own order, and applies an activation while
the result is still in the cache. PyTorch has this as an operator for its compiler; where a version of PyTorch
lacks it, plain convolutions give the same numbers. Measured with r50-fpn's convolutions at 800 x 1066, one
thread, fp32: 3.26 -> 3.03 s, of which 2.81 s is what the processor can do. While gradients are recorded the
weights stay as they are, and what is saved is the pass over the map that an activation by itself takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Activation = tuple[str, tuple[float, ...]]
NONE: Activation = ("none", ())
RELU: Activation = ("relu", ())
FORMATS = (torch.float32, torch.bfloat16)


def _available() -> bool:
    names = ("_convolution_pointwise", "_reorder_convolution_weight")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


AVAILABLE = _available()


def _low_available() -> bool:
    """Whether the operator computes in bf16 on this processor; where it does not, it is an error."""
    known = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    supported: bool = known is not None and known()
    return supported


LOW_AVAILABLE = _low_available()


def switched_on() -> bool:
    """Whether nobody has switched the library off."""
    flag: bool = torch.backends.mkldnn.enabled  # type: ignore[assignment]
    return flag


def activation(module: nn.Module) -> Activation | None:
    """What the operator calls a module; None for one that it does not know."""
    if type(module) is nn.Identity:
        return NONE
    if type(module) is nn.ReLU:
        return RELU
    return ("hardtanh", (0.0, 6.0)) if type(module) is nn.ReLU6 else None


def fuses(x: Tensor, made_in: torch.dtype | None = None) -> bool:
    """Whether ``x``, the input or output of a convolution, is on the way through fused ones.

    Args:
        x: on any device.
        made_in: format of the convolution; None: that of ``x``, which autocast may change.
    """
    made_in = x.dtype if made_in is None else made_in
    return (
        AVAILABLE
        and switched_on()
        and x.device.type == "cpu"
        and made_in in FORMATS
        and (made_in == torch.float32 or LOW_AVAILABLE)
        and not torch.compiler.is_compiling()
    )


def computed_in(x: Tensor) -> torch.dtype:
    """The format that a convolution of ``x`` on the CPU computes in: autocast's where that is on."""
    low = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64  # which it leaves alone
    return torch.get_autocast_dtype("cpu") if low else x.dtype


def pack(weight: Tensor, geometry: Sequence[Sequence[int]], groups: int, input_size: Sequence[int]) -> Tensor:
    """Weights (C', C / groups, k, k) in the order that is best for inputs (N, C, H, W) of this size.

    Args:
        weight: as they are, in the format to compute in.
        geometry: padding, stride, dilation.
        groups: of the convolution.
        input_size: padding by hand included. For another size they are reordered in every call, which costs
            more than the order brings.
    """
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weight, *map(list, geometry), groups, list(input_size)
    )
    return packed


def convolve(
    x: Tensor,
    packed: Tensor,
    shift: Tensor | None,
    geometry: Sequence[Sequence[int]],
    groups: int,
    act: Activation,
) -> Tensor:
    """Map (N, C, H, W) -> (N, C', H', W') in one call; all in the format of ``packed``."""
    name, scalars = act
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, packed, shift, *map(list, geometry), groups, name, list(scalars), ""
    )
    return out


def learnt(
    x: Tensor,
    weight: Tensor,
    shift: Tensor,
    geometry: Sequence[Sequence[int]],
    groups: int,
    act: Activation,
) -> Tensor:
    """As ``convolve``, with gradients.

    Args:
        x: (N, C, H, W) in the format to compute in.
        weight: (C', C / groups, k, k), in that format or fp32.
        shift: (C',), likewise.
        geometry: padding, stride, dilation.
        groups: of the convolution.
        act: applied to the result.

    Returns:
        (N, C', H', W') in ``x``'s format. Gradients come in the format of what they belong to.
    """
    made: Tensor = _Learnt.apply(x, weight, shift, tuple(map(tuple, geometry)), groups, act)
    return made


class _Learnt(torch.autograd.Function):
    """The gradients are put together of operators that have gradients themselves."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        shift: Tensor,
        geometry: Sequence[Sequence[int]],
        groups: int,
        act: Activation,
    ) -> Tensor:
        """See ``learnt``."""
        ctx.geometry, ctx.groups, ctx.act, ctx.shift_format = geometry, groups, act, shift.dtype
        out = convolve(x, weight.to(x.dtype), shift.to(x.dtype), geometry, groups, act)
        ctx.save_for_backward(x, weight, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of x in its format, of weight and shift as these are."""
        x, weight, out = ctx.saved_tensors
        padding, stride, dilation = map(list, ctx.geometry)
        wanted = list(ctx.needs_input_grad[:3])
        towards_x, towards_weight, towards_shift = torch.ops.aten.convolution_backward(
            before_activation(grads[0], out, ctx.act),
            x,
            weight.to(x.dtype),
            [len(weight)],
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            ctx.groups,
            wanted,
        )
        return (
            towards_x if wanted[0] else None,
            towards_weight.to(weight.dtype) if wanted[1] else None,
            towards_shift.to(ctx.shift_format) if wanted[2] else None,
            *(None, None, None),
        )


def activate(x: Tensor, act: Activation) -> Tensor:
    """In place."""
    name, limits = act
    if name == "relu":
        return x.relu_()
    return x.clamp_(*limits) if name == "hardtanh" else x


def before_activation(grad: Tensor, out: Tensor, act: Activation) -> Tensor:
    """The gradient of what the activation was given, from that of its output ``out``."""
    name, limits = act
    if name == "relu":
        made: Tensor = torch.ops.aten.threshold_backward(grad, out, 0)
        return made
    if name == "hardtanh":
        made = torch.ops.aten.hardtanh_backward(grad, out, *limits)
        return made
    return grad


class FusedActivation(nn.Module):
    """An activation that the convolution before it has applied already, wherever ``fuses`` says so."""

    def __init__(self, inner: nn.Module) -> None:
        """``inner`` is the activation itself."""
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) -> the same shape."""
        return x if fuses(x) else self.inner(x)
