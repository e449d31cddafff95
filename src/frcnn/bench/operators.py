"""The operators beside torchvision's: RoIAlign over the pyramid, NMS, matching of anchors.

Letters: N images, R RoIs an image, L levels, C channels, A anchors, G objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import MultiScaleRoIAlign, batched_nms, box_iou

from frcnn.bench.workload import Side
from frcnn.model.anchors import Anchors
from frcnn.model.matching import match_anchors
from frcnn.ops import nms_mask, pyramid_roi_align
from frcnn.ops.roi_align import Method
from frcnn.recipes import recipe
from frcnn.structures import Targets

STRIDES = (4, 8, 16, 32)
Call = Callable[[], object]


@dataclass(frozen=True)
class Pair:
    """One operator on both sides, with the same input.

    Attributes:
        name: with its sizes.
        ours, theirs: calls.
        difference: largest difference of the results, or the number of boxes decided otherwise.
    """

    name: str
    ours: Call
    theirs: Call
    difference: float


def random_boxes(shape: tuple[int, ...], height: int, width: int, generator: torch.Generator) -> Tensor:
    """(*shape, 4) boxes inside the picture, sides from 8 pixels to the picture's, small ones more often."""
    limit = torch.tensor([width, height], dtype=torch.float32)
    side = 8 * (limit / 8) ** torch.rand(*shape, 2, generator=generator)
    corner = torch.rand(*shape, 2, generator=generator) * (limit - side)
    return torch.cat([corner, corner + side], -1)


def roi_align_pairs(
    device: torch.device,
    images: int,
    rois: int,
    height: int,
    width: int,
    channels: int = 256,
    method: Method = "auto",
) -> list[Pair]:
    """RoIAlign (7x7, 2 samples a side) forward, and forward with backward; each side gets maps in the memory
    order it likes.
    """
    generator = torch.Generator().manual_seed(0)
    height, width = (-(-side // 32) * 32 for side in (height, width))
    plain = [
        torch.rand(images, channels, height // s, width // s, generator=generator).to(device) for s in STRIDES
    ]
    ours = [each.clone(memory_format=torch.channels_last).requires_grad_() for each in plain]
    theirs = [each.clone().requires_grad_() for each in plain]
    boxes = random_boxes((images, rois), height, width, generator).to(device)
    gradient = torch.rand(images, rois, channels, 7, 7, generator=generator).to(device)
    operator = MultiScaleRoIAlign([str(i) for i in range(len(STRIDES))], 7, 2)
    named = {str(i): each for i, each in enumerate(theirs)}
    lists = list(boxes)

    def our_forward() -> Tensor:
        return pyramid_roi_align(ours, boxes, STRIDES, 7, 2, method=method)

    def their_forward() -> Tensor:
        pooled: Tensor = operator(named, lists, [(height, width)] * images)
        return pooled

    def our_both() -> None:
        _forget(ours)
        our_forward().backward(gradient)

    def their_both() -> None:
        _forget(theirs)
        their_forward().backward(gradient.flatten(0, 1))

    def no_grad(call: Call) -> Call:
        return torch.no_grad()(call)

    forward = (our_forward().detach().flatten(0, 1) - their_forward().detach()).abs().max().item()
    our_both(), their_both()
    both = max(_gap(a, b) for a, b in zip(ours, theirs, strict=True))
    size = f"{images} x {rois} RoIs, {channels} channels, {height}x{width}"
    size += "" if method == "auto" else f", {method}"
    return [
        Pair(f"RoIAlign forward, {size}", no_grad(our_forward), no_grad(their_forward), forward),
        Pair(f"RoIAlign forward and backward, {size}", our_both, their_both, both),
    ]


def _forget(maps: list[Tensor]) -> None:
    for each in maps:
        each.grad = None


def _gap(a: Tensor, b: Tensor) -> float:
    assert a.grad is not None and b.grad is not None
    return (a.grad - b.grad).abs().max().item()


def nms_pairs(
    device: torch.device, height: int, width: int, counts: tuple[int, int], images: Sequence[int] = (1,)
) -> list[Pair]:
    """NMS by pyramid level as proposals need it, and by class as post-processing does.

    Args:
        device: that both sides compute on.
        height: of the pictures.
        width: likewise.
        counts: boxes of a picture, by level and by class.
        images: pictures at once, one pair for each. torchvision's takes one picture after the other.
    """
    found = []
    kinds = (("level", 5, 0.7, counts[0]), ("class", 90, 0.5, counts[1]))
    for several in images:
        for name, groups, threshold, count in kinds:
            generator = torch.Generator().manual_seed(1)
            boxes = random_boxes((several, count), height, width, generator)
            scores = torch.rand(several, count, generator=generator).sort(descending=True).values
            group = torch.randint(0, groups, (several, count), generator=generator)
            title = f"NMS by {name}, {f'{several} x ' if several > 1 else ''}{count} boxes"
            found.append(_nms_pair(title, boxes, scores, group, threshold, device))
    return found


def _nms_pair(
    name: str, boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, device: torch.device
) -> Pair:
    boxes, scores, groups = (value.to(device) for value in (boxes, scores, groups))

    def ours() -> Tensor:
        return nms_mask(boxes, threshold, groups)

    def theirs() -> list[Tensor]:
        return [batched_nms(*one, threshold) for one in zip(boxes, scores, groups, strict=True)]

    kept = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=device)
    for row, index in zip(kept, theirs(), strict=True):
        row[index] = True
    return Pair(name, ours, theirs, float((ours() != kept).sum()))


def matching_call(
    side: Side, objects: int, device: torch.device, size: tuple[int, int] = (800, 1333)
) -> Call:
    """Anchors of ``r50-fpn`` to ``objects`` objects in one picture -> labels (A,): 1, 0 or -1."""
    config = recipe("r50-fpn")
    height, width = (-(-side // 32) * 32 for side in size)
    anchors = Anchors(config.anchors, [*STRIDES, 64])(height, width, device)
    boxes = random_boxes((objects,), *size, torch.Generator().manual_seed(2)).to(device)
    sizes = torch.tensor([size], dtype=torch.float32, device=device)
    labels = torch.zeros(1, objects, dtype=torch.long, device=device)
    targets = Targets(boxes[None], labels, torch.zeros_like(labels, dtype=torch.bool))
    matcher = Matcher(config.rpn.positive_iou, config.rpn.negative_iou, allow_low_quality_matches=True)

    def ours() -> Tensor:
        return match_anchors(anchors, sizes, targets, config.rpn).labels[0]

    def theirs() -> Tensor:
        index: Tensor = matcher(box_iou(boxes, anchors))
        return torch.where(index >= 0, 1, torch.where(index == Matcher.BELOW_LOW_THRESHOLD, 0, -1))

    return ours if side == "frcnn" else theirs


def anchors_at(size: tuple[int, int]) -> int:
    """Number of anchors of ``r50-fpn``."""
    height, width = (-(-side // 32) * 32 for side in size)
    return sum(Anchors(recipe("r50-fpn").anchors, [*STRIDES, 64]).level_sizes(height, width))
