"""Part of rooms 3, 4 and 6: 3x3 convolutions with a quarter of the multiplications, in fp32 on a CPU.

Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2016, section 4.1): a tile of 6x6 pixels and the 3x3
kernel are transformed, multiplied point by point, and transformed back to 4x4 outputs. Summed over channels
the multiplications are 36 matrix products, which take 36 / (16 * 9) of the operations. The transforms are two
more products with small constant matrices, made for a piece of the map at a time, so that it stays in the
cache. The gradients are made in the same way: towards the input it is the convolution with the turned kernel,
and the kernel's is the sum over tiles of the transformed pixels times the transformed gradient.

What the transforms cost in accuracy depends on the points (``POINTS``); with these the largest error is less
than twice that of a plain convolution in fp32. In bf16 it would be larger than bf16's own.

Letters: N images, H, W a map's size, C and C' channels, T tiles of a piece, h, w rows and columns of tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.model import fused, products
from frcnn.model.fused import NONE, Activation, activate, computed_in, fuses, pack

Made = TypeVar("Made")
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
"""Where the polynomials are evaluated, beside infinity. With 256 channels the largest error is 1.5e-5 of
values up to 6.6; with 0, 1, -1, 2, -2 it is 5.3e-5 (a plain convolution: 0.9e-5)."""
OUT, KERNEL, TILE = 4, 3, 6
GEOMETRY = ((1, 1), (1, 1), (1, 1))
"""Padding, stride and dilation of a ``Conv3x3``."""
KEPT = 16
"""Weights a convolution keeps for detection, each for another size of map."""
KEPT_KERNELS = 4
"""Transformed ones among them, which are larger: 9 MB with 256 channels. Nearly all sizes share one."""
CHANNELS, SIDE = 128, 16
"""Of the smallest convolution; in smaller ones the transforms take as long as they save."""
LEARNT_CHANNELS, LEARNT_TILES = 256, 256
"""Of the smallest convolution whose kernel's gradient is made so, too: its products are MKL's."""
PIECE = 128
"""Tiles of a piece, or up to half as many more: with 256 channels 5 MB in each stage. With many fewer the
products are slow, and with many more they leave the cache."""
ONES = TILE + 1
"""The point (1, 1), whose powers are all 1: what is added there comes back in every output."""


def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """The transforms of outputs (4, 6), kernel (6, 3) and pixels (6, 6), float64.

    Cook and Toom's algorithm, transposed: column j of the first holds the powers of point j, row j of the
    second the same over the product of its distances to the others, row j of the third the coefficients of
    the polynomial that is 0 at all the others; the last ones stand for infinity.
    """
    finite = len(POINTS)
    outputs, kernel, pixels = (torch.zeros(n, m, dtype=torch.float64) for n, m in ((4, 6), (6, 3), (6, 6)))
    for j, point in enumerate(POINTS):
        others = [p for i, p in enumerate(POINTS) if i != j]
        distance = 1.0
        for other in others:
            distance *= point - other
        outputs[:, j] = torch.tensor([point**i for i in range(OUT)])
        kernel[j] = torch.tensor([point**i / distance for i in range(KERNEL)])
        pixels[j, :finite] = _polynomial(others)
    outputs[-1, -1] = kernel[-1, -1] = 1.0
    pixels[-1] = _polynomial(POINTS)
    return outputs, kernel, pixels


def _polynomial(roots: tuple[float, ...] | list[float]) -> Tensor:
    """Coefficients of the product of (x - root), the constant first."""
    found = torch.ones(1, dtype=torch.float64)
    for root in roots:
        found = F.pad(found, (1, 0)) - root * F.pad(found, (0, 1))
    return found


_OUTPUTS, _KERNEL, _PIXELS = _matrices()
BACK = torch.kron(_OUTPUTS, _OUTPUTS).float()
"""(16, 36)"""
FORTH = torch.kron(_PIXELS, _PIXELS).float()
"""(36, 36)"""
KERNELS = torch.kron(_KERNEL, _KERNEL).float()
"""(36, 9)"""


def suits(
    x: Tensor,
    weight: Tensor,
    stride: object = (1, 1),
    padding: object = (1, 1),
    dilation: object = (1, 1),
    groups: int = 1,
) -> bool:
    """Whether a convolution of ``x`` (N, C, H, W) with ``weight`` (C', C, k, k) is made in this way.

    Not where the transformed kernel is larger than the map: it would need much memory for little.
    """
    plain = (stride, padding, dilation, groups) == ((1, 1), (1, 1), (1, 1), 1)
    if not plain or tuple(weight.shape[-2:]) != (KERNEL, KERNEL) or x.device.type != "cpu":
        return False
    if x.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    if torch.get_float32_matmul_precision() == "medium":  # transforms in bf16 would be too coarse
        return False
    if min(weight.shape[:2]) < CHANNELS or min(x.shape[2:]) < SIDE:
        return False
    tiles = x.shape[0] * (x.shape[2] // OUT) * (x.shape[3] // OUT)
    return 4 * tiles >= max(weight.shape[:2])


@dataclass(frozen=True)
class Kernel:
    """A transformed kernel, in the order that is quick for pieces of so many tiles."""

    packed: Tensor
    channels: int
    """C', of the output."""


@dataclass(frozen=True)
class Piece:
    """How much of a map is made at a time: ``rows`` and ``columns`` of tiles, of all pictures."""

    rows: int
    columns: int
    tiles: int


def piece_of(size: Sequence[int]) -> Piece:
    """The piece for maps (N, C, H, W) of this ``size``: whole rows, unless these are too long already."""
    n, h, w = max(size[0], 1), max(-(-size[2] // OUT), 1), max(-(-size[3] // OUT), 1)
    columns = -(-w // min(max(round(n * w / PIECE), 1), w))
    rows = max(round(PIECE / (n * columns)), 1)
    rows = -(-h // -(-h // rows))  # all pieces alike: 13 rows are 7 and 7, one of them made twice
    return Piece(rows, columns, n * rows * columns)


def laid_out_for(size: Sequence[int]) -> int:
    """Tiles that a kernel is laid out for. The library's order is the same for all but small pieces."""
    tiles = piece_of(size).tiles
    return PIECE if 2 * tiles >= PIECE else tiles


def transform(weight: Tensor) -> Tensor:
    """Weights (C', C, 3, 3) -> (36, C', C), four times as large."""
    out, channels = weight.shape[:2]
    return (KERNELS.to(weight.dtype) @ weight.reshape(-1, KERNEL * KERNEL).T).view(-1, out, channels)


def kernel_for(transformed: Tensor, size: Sequence[int]) -> Kernel:
    """What ``transform`` made, laid out for maps (N, C, H, W) of this ``size``; right for those of any."""
    return Kernel(products.pack(transformed, laid_out_for(size)), transformed.shape[1])


def convolve(x: Tensor, kernel: Kernel, shift: Tensor | None, act: Activation = NONE) -> Tensor:
    """Map (N, C, H, W) -> (N, C', H, W), channels last: zeros around, plus ``shift`` (C',), activated.

    Args:
        x: float32.
        kernel: of ``kernel_for``, quickest where that was for maps of this size.
        shift: added; None: nothing.
        act: as ``fused.activation`` says.
    """
    (n, _, height, width), made = x.shape, kernel.channels
    h, w = -(-height // OUT), -(-width // OUT)
    whole = torch.empty(n, made, OUT * h, OUT * w, dtype=x.dtype, memory_format=torch.channels_last)
    out = whole.permute(0, 2, 3, 1).view(n, h, OUT, w, OUT, made)
    added = None
    if shift is not None:
        added = x.new_zeros(TILE * TILE, made)
        added[ONES] = shift
    for rows, columns, tiles in _pieces(x, alike=True):
        product = products.side_by_side(FORTH @ tiles, kernel.packed, added)  # (T, 36, C')
        strip = BACK @ product  # (T, 16, C')
        activate(strip, act)
        size = n, rows.stop - rows.start, columns.stop - columns.start, OUT, OUT, made
        out[:, rows, :, columns].copy_(strip.view(size).transpose(2, 3))
    if (OUT * h, OUT * w) == (height, width):
        return whole  # no view of it, which autograd would not let others write to
    return whole[:, :, :height, :width].clone(memory_format=torch.channels_last)


def _pieces(x: Tensor, alike: bool) -> Iterator[tuple[slice, slice, Tensor]]:
    """Pieces of a map (N, C, H, W): which rows and columns of tiles, and the pixels (T, 36, C), zeros around.

    Args:
        x: the map.
        alike: all of them are of that size, and the last ones overlap; else each tile is seen once.
    """
    n, c, height, width = x.shape
    h, w, piece = -(-height // OUT), -(-width // OUT), piece_of(x.shape)
    pads = (0, 0, 1, OUT * w + 1 - width, 1, OUT * h + 1 - height)
    padded = F.pad(x.permute(0, 2, 3, 1), pads).contiguous()  # (N, 4h + 2, 4w + 2, C)
    image, row = padded.stride(0), padded.stride(1)
    strides = (image, OUT * row, OUT * c, row, c, 1)
    for rows in _spans(h, piece.rows, alike):
        for columns in _spans(w, piece.columns, alike):
            shape = (n, rows.stop - rows.start, columns.stop - columns.start, TILE, TILE, c)
            first = OUT * (rows.start * row + columns.start * c)
            yield rows, columns, padded.as_strided(shape, strides, first).reshape(-1, TILE * TILE, c)


def _spans(length: int, step: int, alike: bool) -> Iterator[slice]:
    """``step`` after step; the last one begins earlier where they are to be ``alike``, else it is shorter."""
    for first in range(0, length, step):
        last = min(first + step, length)
        yield slice(last - step if alike else first, last)


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """(C', C, 3, 3) from the input (N, C, H, W) and the gradient of the output (N, C', H, W)."""
    n, c, height, width = x.shape
    h, w, made = -(-height // OUT), -(-width // OUT), grad.shape[1]
    pads = (0, 0, 0, OUT * w - width, 0, OUT * h - height)
    blocks = F.pad(grad.permute(0, 2, 3, 1), pads).contiguous().view(n, h, OUT, w, OUT, made)
    total = x.new_zeros(TILE * TILE, made, c)
    for rows, columns, tiles in _pieces(x, alike=False):
        block = blocks[:, rows, :, columns].transpose(2, 3).reshape(-1, OUT * OUT, made)
        back = BACK.T @ block  # (T, 36, C')
        total.baddbmm_(back.permute(1, 2, 0), (FORTH @ tiles).transpose(0, 1))
    return (KERNELS.T @ total.flatten(1)).view(KERNEL, KERNEL, made, c).permute(2, 3, 0, 1)


def _towards_weight(x: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient of ``weight`` in the way that is quicker."""
    if (
        min(weight.shape[:2]) >= LEARNT_CHANNELS
        and x.shape[0] * (x.shape[2] // OUT) * (x.shape[3] // OUT) >= LEARNT_TILES
    ):
        return weight_gradient(x, grad)
    made = _plain(x, grad, weight, [False, True, False])[1]
    assert made is not None
    return made


def _plain(x: Tensor, grad: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor | None, ...]:
    """The library's gradients of x, weight and shift."""
    made: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        grad, x, weight, [len(weight)], (1, 1), (1, 1), (1, 1), False, (0, 0), 1, wanted
    )
    return tuple(one if want else None for one, want in zip(made, wanted, strict=True))


class _Learnt(torch.autograd.Function):
    """The convolution with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, shift: Tensor | None) -> Tensor:  # type: ignore[override]
        """As ``convolve``, with a weight (C', C, 3, 3)."""
        ctx.save_for_backward(x, weight)
        return convolve(x, kernel_for(transform(weight), x.shape), shift)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and shift."""
        (x, weight), (grad,) = ctx.saved_tensors, grads
        to_x, to_weight, to_shift = ctx.needs_input_grad
        if torch.is_grad_enabled():  # gradients of these are wanted, which plain convolutions have
            return _plain(x, grad, weight, [to_x, to_weight, to_shift])
        turned = weight.flip(2, 3).transpose(0, 1) if to_x else weight
        return (
            convolve(grad, kernel_for(transform(turned), grad.shape), None) if to_x else None,
            _towards_weight(x, grad, weight) if to_weight else None,
            grad.sum((0, 2, 3)) if to_shift else None,
        )


def learnt(x: Tensor, weight: Tensor, shift: Tensor | None) -> Tensor:
    """The convolution of ``suits`` while gradients are recorded: weight (C', C, 3, 3), shift (C',)."""
    out: Tensor = _Learnt.apply(x, weight, shift)
    return out


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with stride 1 that is made in this way where that suits."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        """As ``nn.Conv2d`` with padding 1, with the same parameters."""
        super().__init__(in_channels, out_channels, KERNEL, padding=1, bias=bias)
        self._kept: tuple[tuple[object, ...], Tensor, dict[tuple[object, ...], Any]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy transforms for itself."""
        return {**super().__getstate__(), "_kept": None}

    def train(self, mode: bool = True) -> Self:
        """As that of every module; ``forget``s."""
        self.forget()
        return super().train(mode)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Moved, or of another format: what is kept would hold the old memory."""
        self.forget()
        return super()._apply(fn, recurse)

    def forward(self, input: Tensor, act: Activation = NONE) -> Tensor:
        """Map (N, C, H, W) -> (N, C', H, W), activated, in one call where nothing is recorded on a CPU."""
        learns = torch.is_grad_enabled()
        if learns:
            self.forget()
        if suits(input, self.weight):
            if not learns:
                return convolve(input, self._kernel(input.shape), self.bias, act)
            out = learnt(input, self.weight, self.bias)
        elif act != NONE and not learns and input.numel() and fuses(input, computed_in(input)):
            x = input.to(computed_in(input))
            shift = None if self.bias is None else self.bias.to(x.dtype)
            return fused.convolve(x, self._packed(x), shift, GEOMETRY, 1, act)
        else:
            out = super().forward(input)
        activate(out, act)
        return out

    def forget(self) -> None:
        """Transform anew next time: somebody learns, perhaps in a way that no version tells."""
        self._kept = None

    def _kernel(self, size: Sequence[int]) -> Kernel:
        """Transformed, for maps of this size."""
        name = ("kernel", laid_out_for(size))
        return self._keep(name, lambda: kernel_for(transform(self.weight), size), KEPT_KERNELS)

    def _packed(self, x: Tensor) -> Tensor:
        """As the library wants it for maps of this size."""
        name = ("packed", x.dtype, x.shape)
        return self._keep(name, lambda: pack(self.weight.to(x.dtype), GEOMETRY, 1, x.shape), KEPT)

    def _keep(self, name: tuple[object, ...], make: Callable[[], Made], most: int) -> Made:
        """Kept while the weight does not change, the latest ``most`` of a kind (the first of the name). A
        weight made in inference mode has no version to tell.
        """
        if self.weight.is_inference():
            return make()
        state, kept = (self.weight.data_ptr(), self.weight._version), self._kept
        if kept is None or kept[0] != state:
            fresh: dict[tuple[object, ...], Any] = {}
            # read and written once, as other threads may do the same; the weight is held, so that no other
            # one gets its address
            self._kept = kept = (state, self.weight.detach(), fresh)
        made = kept[2]
        found = made.get(name)
        if found is None:
            found = make()
        made.pop(name, None)
        made[name] = found  # as the latest
        alike = [key for key in list(made) if key[0] == name[0]]
        for key in alike[:-most]:
            made.pop(key, None)
        return found
