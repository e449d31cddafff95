"""RoI max-pooling against torchvision's operator and its own plain reference."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import Tensor

from frcnn.ops import roi_pool, roi_pool_reference


def feature(images: int = 2) -> Tensor:
    return torch.randn(images, 3, 12, 20, generator=torch.Generator().manual_seed(0))


def rois(images: int = 2, count: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(images, count, 2, generator=generator) * torch.tensor([300.0, 180.0]) - 20
    return torch.cat([corner, corner + torch.rand(images, count, 2, generator=generator) * 200], -1)


@pytest.mark.parametrize("shape", [(1, 0, 4), (3, 0, 4), (0, 0, 4)])
def test_nothing_gives_nothing(shape: tuple[int, ...]) -> None:
    assert roi_pool(feature(shape[0]), torch.zeros(shape), 16).shape == (*shape[:2], 3, 7, 7)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_equals_the_reference_and_torchvision(size: int) -> None:
    maps, boxes = feature(), rois()
    ours = roi_pool(maps, boxes, 16, size)
    torch.testing.assert_close(ours, roi_pool_reference(maps, boxes, 16, size), rtol=0, atol=0)
    theirs = torchvision.ops.roi_pool(maps, list(boxes), size, 1 / 16)
    assert ours.flatten(0, 1).equal(theirs)


def test_gradient_goes_to_the_largest_cell() -> None:
    maps = feature().requires_grad_()
    boxes = torch.tensor([[[0.0, 0, 319, 191]], [[0.0, 0, 159, 95]]])
    roi_pool(maps, boxes, 16, 1).sum().backward()
    assert maps.grad is not None
    for i, c in ((0, 0), (1, 2)):
        area = maps[i, c] if i == 0 else maps[i, c, :7, :11]
        assert maps.grad[i, c].sum() == 1
        assert maps.grad[i, c][maps[i, c] == area.max()].item() == 1


def test_strange_boxes_are_finite_and_equal_the_reference() -> None:
    maps = feature(1)
    strange = torch.tensor(
        [[[10.0, 10, 10, 10], [90, 90, 20, 20], [-300, -300, -200, -200], [900, 900, 950, 950]]]
    )
    ours = roi_pool(maps, strange, 16)
    assert ours.equal(roi_pool_reference(maps, strange, 16))
    assert ours[0, 2:].eq(0).all()
    broken = torch.tensor([[[math.nan] * 4, [0, 0, math.inf, 5], [-math.inf, 0, 5, 5]]])
    assert roi_pool(maps, broken, 16).isfinite().all()


def test_bfloat16_is_pooled_exactly_and_keeps_its_type() -> None:
    maps, boxes = feature().bfloat16(), rois()
    pooled = roi_pool(maps, boxes, 16)
    assert pooled.dtype == torch.bfloat16
    assert pooled.float().equal(roi_pool(maps.float(), boxes, 16))
