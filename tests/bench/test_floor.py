"""The convolutions of a step, and the rate of the machine."""

from __future__ import annotations

import itertools
import time

import pytest
import torch
from torch import nn

from frcnn.bench.floor import Shape, convolution_flops, convolution_rate

CPU = torch.device("cpu")


def test_flops_of_nothing_and_of_a_convolution() -> None:
    assert convolution_flops(lambda: None) == 0
    layer, x = nn.Conv2d(3, 5, 3, padding=1), torch.rand(1, 3, 8, 10)
    assert convolution_flops(lambda: layer(x)) == Shape(3, 5, 3, 8, 10).flops == 2 * 3 * 5 * 9 * 80


def test_matrix_products_are_left_out() -> None:
    layer, x = nn.Linear(4, 6), torch.rand(5, 4, requires_grad=True)
    assert convolution_flops(lambda: layer(x).sum().backward()) == 0


LAYERS = [
    pytest.param(nn.Conv2d(4, 6, 3, padding=1), 2 * 6 * 4 * 9 * 80, id="plain"),
    pytest.param(nn.Conv2d(4, 6, 3, stride=2, padding=1), 2 * 6 * 4 * 9 * 20, id="strided"),
    pytest.param(nn.Conv2d(8, 12, 3, groups=4), 2 * 12 * 2 * 9 * 48, id="grouped"),
    pytest.param(nn.Conv2d(8, 8, 5, padding=2, groups=8), 2 * 8 * 25 * 80, id="depthwise"),
    pytest.param(nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), 2 * 4 * 3 * 4 * 80, id="transposed"),
]
"""Seen by two pictures of 8 x 10."""


@pytest.mark.parametrize(("layer", "forward"), LAYERS)
def test_each_gradient_counts_as_much_as_the_forward_pass(
    layer: nn.Conv2d | nn.ConvTranspose2d, forward: int
) -> None:
    x = torch.rand(2, layer.in_channels, 8, 10)
    assert convolution_flops(lambda: layer(x)) == 2 * forward
    assert convolution_flops(lambda: layer(x).sum().backward()) == 2 * 2 * forward  # the weight's
    x.requires_grad_()
    assert convolution_flops(lambda: layer(x).sum().backward()) == 3 * 2 * forward
    assert layer.bias is not None
    fixed = layer.weight.detach(), layer.bias.detach()
    call = torch.nn.functional.conv_transpose2d if layer.transposed else torch.nn.functional.conv2d
    options = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}
    assert convolution_flops(lambda: call(x, *fixed, **options).sum().backward()) == 2 * 2 * forward


def test_the_rate_is_that_of_a_convolution_by_itself() -> None:
    shape = Shape(64, 64, 3, 64, 64)
    layer, x = nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False), torch.rand(1, 64, 64, 64)
    layer(x)
    seconds: list[float] = []
    for _ in range(10):
        began = time.perf_counter()
        layer(x)
        seconds.append(time.perf_counter() - began)
    assert 0.05 < convolution_rate(CPU, "fp32", (shape,), 0.1) / (shape.flops / min(seconds)) < 20


def test_a_rate_is_in_operations_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that counts calls: the time of a round does not depend on its work."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    small, large = (convolution_rate(CPU, "bf16", (Shape(4, 4, 3, side, side),), 9.0) for side in (8, 16))
    assert large == pytest.approx(4 * small)
