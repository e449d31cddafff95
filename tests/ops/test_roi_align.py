"""The gather RoIAlign against torchvision's operator and its own plain reference, forward and backward."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import Tensor

from frcnn.ops import assign_levels, pyramid_roi_align, pyramid_roi_align_reference
from frcnn.ops.roi_align import Method

STRIDES = (4, 8, 16, 32)
METHODS: tuple[Method, ...] = ("bags", "gather", "levels")


def pyramid(
    images: int = 2, channels: int = 5, height: int = 96, width: int = 160, seed: int = 0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(images, channels, height // s, width // s, generator=generator) for s in STRIDES]
    return [m.to(memory_format=torch.channels_last).requires_grad_() for m in maps]


def rois(images: int = 2, count: int = 40, seed: int = 0) -> Tensor:
    """Boxes of all sizes, so that every level is used; some reach over the border."""
    generator = torch.Generator().manual_seed(seed)
    scale = 2 ** (3 + torch.rand(images, count, 1, generator=generator) * 7)
    side = scale * (0.6 + torch.rand(images, count, 2, generator=generator))
    corner = torch.rand(images, count, 2, generator=generator) * torch.tensor([160.0, 96.0]) - 10
    return torch.cat([corner, corner + side], -1)


def torchvisions(maps: list[Tensor], boxes: Tensor, levels: Tensor, aligned: bool) -> Tensor:
    """Their operator on every level, each RoI taken from its level."""
    n, r = boxes.shape[:2]
    image = torch.arange(n).repeat_interleave(r)[:, None].float()
    flat = torch.cat([image, boxes.view(-1, 4)], 1)
    every = torch.stack(
        [
            torchvision.ops.roi_align(m, flat, 7, 1 / s, 2, aligned)
            for m, s in zip(maps, STRIDES[: len(maps)], strict=True)
        ]
    )
    return every[levels.flatten(), torch.arange(n * r)].view(n, r, -1, 7, 7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 0, 4), (3, 0, 4), (0, 0, 4), (0, 4, 4)])
def test_nothing_gives_nothing(shape: tuple[int, ...], method: Method) -> None:
    maps = pyramid(images=shape[0])
    pooled = pyramid_roi_align(maps, torch.zeros(shape), STRIDES, method=method)
    assert pooled.shape == (*shape[:2], 5, 7, 7)
    pooled.sum().backward()
    for feature in maps:
        assert feature.grad is not None and feature.grad.eq(0).all()


@pytest.mark.parametrize("strides", [STRIDES, (8, 16, 32), (16,), (32, 32)])
def test_levels_equal_torchvisions_mapper(strides: tuple[int, ...]) -> None:
    if len(set(strides)) == len(strides):
        first, last = int(math.log2(strides[0])), int(math.log2(strides[-1]))
        mapper = torchvision.ops.poolers.LevelMapper(first, last)
        boxes = rois(1, 500)[0]
        exact = torch.tensor([[0.0, 0, s, s] for s in (111.9, 112, 224, 447.9, 448, 896)])
        boxes = torch.cat([boxes, exact])
        assert assign_levels(boxes, strides).equal(mapper([boxes]))
    else:
        assert assign_levels(rois(1, 50)[0], strides).eq(0).all(), (
            "both maps have stride 32: the first is used"
        )


def test_levels_of_strange_boxes_exist() -> None:
    strange = torch.tensor(
        [[0.0, 0, 0, 0], [9, 9, 1, 1], [0, 0, 1e9, 1e9], [math.nan] * 4, [0, 0, math.inf, 3]]
    )
    levels = assign_levels(strange, STRIDES)
    assert ((levels >= 0) & (levels < 4)).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("aligned", [False, True])
def test_forward_and_gradient_equal_torchvision(aligned: bool, method: Method) -> None:
    maps, boxes = pyramid(), rois()
    levels = assign_levels(boxes, STRIDES)
    assert levels.unique().tolist() == [0, 1, 2, 3]
    ours = pyramid_roi_align(maps, boxes, STRIDES, aligned=aligned, method=method)
    theirs = torchvisions(maps, boxes, levels, aligned)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    signal = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    mine = torch.autograd.grad((ours * signal).sum(), maps)
    yours = torch.autograd.grad((theirs * signal).sum(), maps)
    for a, b in zip(mine, yours, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_equals_torchvisions_multi_scale_pooler() -> None:
    maps, boxes = pyramid(), rois()
    pooler = torchvision.ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    named = {str(i): m for i, m in enumerate(maps)}
    theirs = pooler(named, list(boxes), [(96, 160)] * 2).view(2, 40, 5, 7, 7)
    torch.testing.assert_close(pyramid_roi_align(maps, boxes, STRIDES), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("aligned", "size", "samples"), [(False, 3, 1), (True, 2, 3), (False, 1, 2)])
def test_equals_the_reference(aligned: bool, size: int, samples: int) -> None:
    maps, boxes = [m.detach() for m in pyramid(channels=2)], rois(count=6)
    settings = (STRIDES, size, samples, aligned)
    torch.testing.assert_close(
        pyramid_roi_align(maps, boxes, *settings), pyramid_roi_align_reference(maps, boxes, *settings)
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("aligned", [False, True])
def test_degenerate_and_outside_boxes_equal_both(aligned: bool, method: Method) -> None:
    maps = [m.detach() for m in pyramid(images=1)]
    strange = torch.tensor(
        [
            [
                [10.0, 10, 10, 10],  # a point
                [50, 60, 20, 30],  # inverted
                [-300, -300, -200, -200],  # outside
                [500, 500, 900, 900],
                [-50, -50, 400, 300],  # larger than the picture
                [158, 94, 162, 98],  # over the corner
                [-4, -4, 0, 0],  # touches the first cell from outside
            ]
        ]
    )
    levels = assign_levels(strange, STRIDES)
    ours = pyramid_roi_align(maps, strange, STRIDES, aligned=aligned, method=method)
    torch.testing.assert_close(ours, torchvisions(maps, strange, levels, aligned), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours, pyramid_roi_align_reference(maps, strange, STRIDES, aligned=aligned))
    assert ours[0, 2].eq(0).all() and ours[0, 3].eq(0).all()


@pytest.mark.parametrize("method", METHODS)
def test_boxes_that_are_not_finite_do_not_crash(method: Method) -> None:
    maps, boxes = pyramid(images=1), rois(1, 4)
    boxes[0, 0], boxes[0, 1, 2], boxes[0, 2, 0] = math.nan, math.inf, -math.inf
    pooled = pyramid_roi_align(maps, boxes, STRIDES, method=method)
    assert pooled.isfinite().all()
    torch.testing.assert_close(pooled[:, 3:], pyramid_roi_align(maps, boxes[:, 3:], STRIDES))
    pooled.sum().backward()
    assert all(m.grad is not None and m.grad.isfinite().all() for m in maps)


def test_levels_may_be_given() -> None:
    maps, boxes = pyramid(), rois()
    levels = torch.arange(40).remainder(4).expand(2, -1)
    ours = pyramid_roi_align(maps, boxes, STRIDES, levels=levels)
    torch.testing.assert_close(ours, torchvisions(maps, boxes, levels, False), rtol=1e-4, atol=1e-5)
    assert not ours.allclose(pyramid_roi_align(maps, boxes, STRIDES))


def test_bfloat16_keeps_its_type_within_tolerance() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.rand(2, 5, 96 // s, 160 // s, generator=generator).bfloat16() for s in STRIDES
    ]  # unit features
    boxes = rois()
    ours = pyramid_roi_align(maps, boxes, STRIDES)
    exact = pyramid_roi_align([m.float() for m in maps], boxes, STRIDES)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), exact, rtol=0, atol=1.5e-2)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_maps_do_not_move_the_boxes(method: Method) -> None:
    """In bf16 1001 is 1000, and the 259th picture would be the 260th."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(260, 1, 2, 1100 // s, generator=generator).bfloat16() for s in STRIDES]
    boxes = torch.tensor([[[1001.0, 0, 1029, 6]]]).expand(260, 1, 4)
    ours = pyramid_roi_align(maps, boxes, STRIDES, method=method)
    exact = pyramid_roi_align([m.float() for m in maps], boxes, STRIDES, method=method)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), exact, rtol=0, atol=1.5e-2)


def test_the_gradient_of_bfloat16_is_summed_in_float32() -> None:
    """A thousand copies of a RoI add up on the same rows: summed in bfloat16 they would stop at 256."""
    maps = [m.detach().bfloat16().requires_grad_() for m in pyramid(images=1)]
    boxes = torch.tensor([[[8.0, 8, 40, 40]] * 1000])
    pyramid_roi_align(maps, boxes, STRIDES).float().sum().backward()
    exact = [m.detach().float().requires_grad_() for m in maps]
    pyramid_roi_align(exact, boxes, STRIDES).sum().backward()
    assert exact[0].grad is not None and exact[0].grad.max() > 400
    for ours, theirs in zip(maps, exact, strict=True):
        assert ours.grad is not None and theirs.grad is not None and ours.grad.dtype == torch.bfloat16
        torch.testing.assert_close(ours.grad.float(), theirs.grad, rtol=1e-2, atol=1e-2)


def test_other_memory_orders_give_the_same() -> None:
    maps, boxes = pyramid(), rois()
    rows_first = [m.detach().contiguous().requires_grad_() for m in maps]
    ours = pyramid_roi_align(maps, boxes, STRIDES)
    torch.testing.assert_close(ours, pyramid_roi_align(rows_first, boxes, STRIDES), rtol=0, atol=0)
    ours.square().sum().backward()
    pyramid_roi_align(rows_first, boxes, STRIDES).square().sum().backward()
    for a, b in zip(maps, rows_first, strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)


def test_the_operator_is_registered_as_torch_wants() -> None:
    maps, boxes = pyramid(), rois(count=5)
    arguments = (maps, boxes, assign_levels(boxes, STRIDES), list(STRIDES), 7, 2, False)
    torch.library.opcheck(torch.ops.frcnn.roi_align_bags.default, arguments)


def test_no_gradient_flows_into_boxes() -> None:
    boxes = rois(count=3).requires_grad_()
    pyramid_roi_align(pyramid(), boxes, STRIDES).sum().backward()
    assert boxes.grad is None


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="4 feature maps and 3 strides"):
        pyramid_roi_align(pyramid(), rois(), STRIDES[:3])
    with pytest.raises(ValueError, match="sampling_ratio must be at least 1, got 0"):
        pyramid_roi_align(pyramid(), rois(), STRIDES, sampling_ratio=0)
