"""Depthwise convolutions and their gradients against plain ones in double precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from frcnn.model import fused
from frcnn.model.depthwise import WIDEST, _towards_input, depthwise
from frcnn.model.norms import FoldedConv, FrozenNorm, freeze_norms

CASES = [
    pytest.param((0, 4, 9, 10), (3, 3), (1, 1), (1, 1, 1, 1), id="no-pictures"),
    pytest.param((1, 1, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), id="one-pixel"),
    pytest.param((2, 4, 9, 10), (1, 1), (2, 2), (0, 0, 0, 0), id="1-stride-2"),
    pytest.param((2, 4, 9, 10), (2, 2), (1, 1), (0, 1, 0, 1), id="2-uneven"),
    pytest.param((2, 4, 9, 10), (3, 3), (1, 1), (1, 1, 1, 1), id="3"),
    pytest.param((2, 4, 9, 10), (3, 3), (2, 2), (1, 1, 1, 1), id="3-stride-2"),
    pytest.param((2, 4, 10, 9), (3, 3), (2, 2), (0, 1, 0, 1), id="3-stride-2-uneven"),
    pytest.param((2, 4, 10, 9), (3, 3), (2, 2), (1, 0, 0, 1), id="3-stride-2-uneven-both-ways"),
    pytest.param((2, 4, 9, 10), (3, 3), (1, 2), (1, 1, 1, 1), id="3-strides-differ"),
    pytest.param((2, 4, 9, 10), (3, 3), (3, 3), (0, 0, 0, 0), id="3-stride-3-rest-unseen"),
    pytest.param((2, 4, 9, 10), (3, 3), (2, 2), (4, 4, 4, 4), id="3-padded-beyond-the-kernel"),
    pytest.param((2, 4, 9, 10), (3, 3), (1, 1), (4, 3, 3, 4), id="3-uneven-beyond-the-kernel"),
    pytest.param((2, 4, 9, 10), (4, 4), (1, 1), (1, 2, 1, 2), id="4-uneven"),
    pytest.param((2, 4, 9, 10), (5, 5), (1, 1), (2, 2, 2, 2), id="5"),
    pytest.param((2, 4, 9, 10), (5, 5), (2, 2), (1, 2, 2, 1), id="5-stride-2-uneven"),
    pytest.param((2, 4, 9, 10), (5, 5), (1, 1), (0, 0, 0, 0), id="5-unpadded"),
    pytest.param((2, 4, 1, 1), (5, 5), (1, 1), (2, 2, 2, 2), id="5-of-one-pixel"),
    pytest.param((2, 4, 9, 10), (5, 3), (1, 1), (1, 1, 2, 2), id="5x3"),
    pytest.param((2, 4, 9, 10), (3, 5), (2, 2), (2, 2, 1, 1), id="3x5-stride-2"),
    pytest.param((2, 4, 9, 10), (7, 7), (2, 2), (3, 3, 3, 3), id="7-stride-2"),
    pytest.param((2, 4, 12, 13), (11, 11), (1, 1), (5, 5, 5, 5), id="11"),
    pytest.param((2, 2, 3, 3), (13, 13), (1, 1), (6, 6, 6, 6), id="13-parts-see-zeros-only"),
    pytest.param((2, 2, 2, 3), (9, 9), (3, 3), (4, 4, 4, 4), id="9-stride-3-parts-see-zeros-only"),
]
NEAR = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.float32: {"rtol": 1e-4, "atol": 1e-4},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
    torch.float16: {"rtol": 3e-3, "atol": 3e-3},
}
SUMS = 8
"""Gradients of weights are sums over pixels: the bound on their errors is that much larger in low formats."""


def reference(
    x: Tensor, weight: Tensor, shift: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: int
) -> Tensor:
    """Padded by hand, then PyTorch's own convolution."""
    stride = tuple(stride)
    return F.conv2d(F.pad(x, list(padding)), weight, shift, stride, 0, dilation, len(weight))  # type: ignore[arg-type]


def made(
    size: Sequence[int], kernel: Sequence[int], dtype: torch.dtype
) -> tuple[tuple[Tensor, ...], torch.Generator]:
    """Pixels, weight and shift; the pixels in ``dtype``, the others as they are trained."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(size, generator=generator, dtype=torch.float64).to(memory_format=torch.channels_last)
    weight = torch.rand((size[1], 1, *kernel), generator=generator, dtype=torch.float64) - 0.5
    shift = torch.rand(size[1], generator=generator, dtype=torch.float64)
    learnt = torch.promote_types(dtype, torch.float32)
    values = x.to(dtype), weight.to(learnt), shift.to(learnt)
    return tuple(value.requires_grad_() for value in values), generator


def assert_as_reference(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: tuple[int, int],
    padding: Sequence[int],
    dilation: int,
    dtype: torch.dtype,
) -> None:
    """Result and gradients, and the formats these come in."""
    values, generator = made(size, kernel, dtype)
    found = depthwise(*values, stride, padding, (dilation, dilation))
    doubles = [value.detach().double().requires_grad_() for value in values]
    expected = reference(*doubles, stride, padding, dilation)
    torch.testing.assert_close(found.double(), expected, **NEAR[dtype])
    wish = torch.rand(expected.shape, generator=generator, dtype=torch.float64).to(dtype)
    found.backward(wish)
    expected.backward(wish.double())
    for value, double in zip(values, doubles, strict=True):
        assert value.grad is not None and value.grad.dtype == value.dtype
        near = dict(NEAR[dtype])
        near["atol"] *= SUMS if value is not values[0] and dtype.itemsize == 2 else 1
        torch.testing.assert_close(value.grad.double(), double.grad, **near)


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), CASES)
def test_gradients(
    size: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, ...],
    dtype: torch.dtype,
) -> None:
    assert_as_reference(size, kernel, stride, padding, 1, dtype)


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (2, 2, 2, 2), (1, 2, 2, 1)])
def test_gradients_with_dilation(padding: tuple[int, ...], dtype: torch.dtype) -> None:
    assert_as_reference((2, 4, 11, 12), (3, 3), (2, 2), padding, 2, dtype)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [case for case in CASES if max(case.values[3]) < min(case.values[1])],  # others take the library's way
)
def test_gradient_of_the_input_in_doubles(
    size: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, ...]
) -> None:
    """The way of low formats under a stride, in a format that hides no error."""
    (x, weight, shift), generator = made(size, kernel, torch.float64)
    expected = reference(x, weight, shift, stride, padding, 1)
    wish = torch.rand(expected.shape, generator=generator, dtype=torch.float64)
    expected.backward(wish)
    found = _towards_input(wish, weight.detach(), (size[2], size[3]), stride, padding)
    torch.testing.assert_close(found, x.grad, **NEAR[torch.float64])


@pytest.mark.skipif(not fused.AVAILABLE, reason="this PyTorch has no fused convolution for the CPU")
@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), CASES[1:])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("act", [fused.RELU, ("hardtanh", (0.0, 0.5))])
def test_with_its_activation(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dtype: torch.dtype,
    act: fused.Activation,
) -> None:
    """In one call, the numbers and gradients of two; of what an activation lets through and what not."""
    if dtype == torch.bfloat16 and not fused.LOW_AVAILABLE:
        pytest.skip("no bf16 on this processor")
    together, generator = made(size, kernel, dtype)
    apart = [t.detach().clone().requires_grad_() for t in together]
    found = depthwise(*together, stride, padding, (1, 1), act)
    expected = fused.activate(depthwise(*apart, stride, padding, (1, 1)), act)
    assert found.dtype == dtype and torch.allclose(found, expected, **NEAR[dtype])
    towards = torch.rand(found.shape, generator=generator).to(dtype)
    found.backward(towards)
    expected.backward(towards)
    for mine, other in zip(together, apart, strict=True):
        assert mine.grad is not None and other.grad is not None and mine.grad.dtype == other.grad.dtype
        assert (mine.grad - other.grad).abs().max() <= 0.02 * max(float(other.grad.abs().max()), 1e-3)


def test_second_derivatives_are_refused() -> None:
    (x, weight, shift), _ = made((1, 2, 6, 7), (3, 3), torch.float64)
    found = depthwise(x, weight, shift, (2, 2), (0, 1, 0, 1), (1, 1)).square().sum()
    (first,) = torch.autograd.grad(found, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("size", [(2, 4, 9, 10), (2, 4, 10, 9)], ids=["even", "uneven"])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("low", [False, True], ids=["fp32", "bf16"])
def test_compiled_as_it_is(low: bool, kernel: int, size: tuple[int, ...]) -> None:
    """In one graph, with its gradients, padded as TensorFlow does."""
    torch.manual_seed(0)
    conv = Conv2dSame(4, 4, kernel, 2, groups=4, bias=False)
    folded = FoldedConv(conv, FrozenNorm(nn.BatchNorm2d(4).eval()))
    found: list[tuple[Tensor, ...]] = []
    for call in (folded, torch.compile(folded, backend="aot_eager", fullgraph=True)):
        x = torch.rand(size, generator=torch.Generator().manual_seed(1)).requires_grad_()
        conv.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            out = call(x)
        out.float().square().sum().backward()
        assert x.grad is not None and conv.weight.grad is not None
        found.append((out, x.grad, conv.weight.grad))
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain)


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_the_gradients_that_are_wanted(wanted: tuple[bool, ...]) -> None:
    values, _ = made((2, 4, 9, 10), (5, 5), torch.float32)
    values = tuple(v.detach().requires_grad_(w) for v, w in zip(values, wanted, strict=True))
    depthwise(*values, (2, 2), (1, 2, 1, 2), (1, 1)).sum().backward()
    assert tuple(value.grad is not None for value in values) == wanted


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixels_and_gradients_in_any_layout(layout: torch.memory_format) -> None:
    (x, weight, shift), _ = made((2, 4, 9, 10), (5, 5), torch.float32)
    pixels = x.detach().contiguous(memory_format=layout).requires_grad_()
    found = depthwise(pixels, weight, shift, (2, 2), (2, 2, 2, 2), (1, 1))
    found.backward(torch.ones(found.shape).contiguous(memory_format=layout))
    doubles = [value.detach().double().requires_grad_() for value in (x, weight, shift)]
    reference(*doubles, (2, 2), (2, 2, 2, 2), 1).sum().backward()
    torch.testing.assert_close(pixels.grad.double(), doubles[0].grad, **NEAR[torch.float32])
    torch.testing.assert_close(weight.grad.double(), doubles[1].grad, **NEAR[torch.float32])


class Backwards(TorchDispatchMode):
    """Notes what the CPU library is asked for: gradients of which kernels, with which strides."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch.dtype, int, tuple[int, ...], list[bool]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.calls.append((args[0].dtype, args[2].shape[3], tuple(args[4]), args[-1]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 6, 7, 8, 9])
def test_the_library_is_asked_only_for_what_it_is_fast_at(
    kernel: int, stride: int, dtype: torch.dtype
) -> None:
    values, _ = made((1, 4, 16, 16), (kernel, kernel), dtype)
    found = depthwise(*values, (stride, stride), (1, 1, 1, 1), (1, 1))
    with Backwards() as asked:
        found.backward(torch.ones_like(found))
    assert asked.calls
    for format, columns, strides, (to_x, to_weight, _) in asked.calls:
        assert to_x != to_weight
        assert not to_weight or 2 <= columns <= WIDEST
        assert not to_x or (strides == (2, 2) and format == torch.float32)


def test_more_outputs_than_inputs_are_no_depthwise_convolution() -> None:
    """Two kernels a channel."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(4, 8, 3, padding=1, groups=4), nn.BatchNorm2d(8).eval()
    x = torch.rand(1, 4, 6, 7)
    found = FoldedConv(conv, FrozenNorm(norm))(x)
    torch.testing.assert_close(found, norm(conv(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(
    "how", [{"padding": "same"}, {"padding": "valid"}, {"padding": 1, "padding_mode": "reflect"}], ids=str
)
def test_what_is_not_padded_with_a_number_of_zeros_stays_apart(how: dict[str, Any], groups: int) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(4, 4, 3, groups=groups, **how), nn.BatchNorm2d(4)
    norm.running_mean.uniform_()
    net = nn.Sequential(nn.Conv2d(3, 4, 1), conv, norm).eval()
    x = torch.rand(1, 3, 6, 7)
    expected = net(x)
    freeze_norms(net)
    assert net[1] is conv
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"padded .* cannot be folded; give a number of zeros"):
        FoldedConv(conv, FrozenNorm(norm))
