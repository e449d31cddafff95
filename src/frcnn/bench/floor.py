"""How fast this machine convolves, and so how fast a network could be if it did nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from frcnn.bench.turns import timed
from frcnn.bench.workload import Format, computing_in


class Shape(NamedTuple):
    """A convolution: input and output channels, kernel side, input height and width."""

    channels: int
    out: int
    kernel: int
    height: int
    width: int

    @property
    def flops(self) -> int:
        """Multiplications and additions of one picture."""
        return 2 * self.channels * self.out * self.kernel**2 * self.height * self.width


SHAPES = (
    Shape(64, 64, 3, 200, 272),
    Shape(128, 128, 3, 100, 136),
    Shape(256, 256, 3, 50, 68),
    Shape(512, 512, 3, 25, 34),
    Shape(256, 256, 3, 200, 272),
    Shape(64, 256, 1, 200, 272),
    Shape(512, 128, 1, 100, 136),
    Shape(1024, 256, 1, 50, 68),
)
"""Of ResNet-50 with a pyramid at 800x1066: most of its arithmetic is done in such ones."""
QUICK_SHAPES = (Shape(32, 32, 3, 32, 32), Shape(64, 32, 1, 32, 32))


@torch.inference_mode()
def convolution_rate(
    device: torch.device, name: Format, shapes: tuple[Shape, ...] = SHAPES, seconds: float = 4.0
) -> float:
    """FLOP a second over all ``shapes`` together, each at its best, channels-last, input and weights already
    in the format.
    """
    dtype = torch.bfloat16 if name == "bf16" else torch.float32
    batch = 16 if device.type == "cuda" else 1
    work, spent = 0.0, 0.0
    for shape in shapes:
        pixels = torch.rand(batch, shape.channels, shape.height, shape.width, device=device, dtype=dtype)
        weight = torch.rand(shape.out, shape.channels, shape.kernel, shape.kernel, device=device, dtype=dtype)
        x, w = (value.to(memory_format=torch.channels_last) for value in (pixels, weight))
        with computing_in("tf32" if name == "tf32" else "fp32", device):
            spent += _best(x, w, shape.kernel // 2, device, seconds / len(shapes))
        work += batch * shape.flops
    return work / spent


def _best(x: Tensor, weight: Tensor, padding: int, device: torch.device, seconds: float) -> float:
    """Least seconds of one convolution."""

    def convolve() -> Tensor:
        return F.conv2d(x, weight, padding=padding)

    convolve()
    times = [timed(convolve, device) for _ in range(3)]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append(timed(convolve, device))
    return min(times)


def convolution_flops(call: Callable[[], object]) -> int:
    """Floating-point operations in the convolutions of ``call``, both passes where it has both; matrix
    products, such as fully connected layers, are left out.

    It counts plain convolutions only, as torchvision's networks make them. Ours call operators of the library
    and make some convolutions with fewer multiplications, of which nothing is seen here.
    """
    own = {torch.ops.aten.convolution_backward: _backward_flops}
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        call()
    counts = counter.get_flop_counts().get("Global", {})  # empty where there was nothing to count
    return sum(count for operator, count in counts.items() if "convolution" in str(operator))


def _backward_flops(
    above: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    output_padding: object,
    groups: int,
    wanted: Sequence[bool],
    **_: object,
) -> int:
    """Of the gradients of a convolution, from the shapes of the gradient above it, the input and the weight
    (C', C / groups, ...).

    Each multiplication of the forward pass has one in the input's gradient and one in the weight's. torch's
    own formula forgets the groups in the weight's, and so counts it C times in a depthwise layer.
    """
    places = prod((x if transposed else above)[2:])
    return 2 * x[0] * places * prod(weight) * sum(wanted[:2])  # the third is the bias's
