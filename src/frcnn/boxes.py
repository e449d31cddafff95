"""Pure geometry of boxes (x1, y1, x2, y2): float32, absolute pixels, half-open (width = x2 - x1, never + 1).

Letters: M, G numbers of boxes, N images. Leading dimensions broadcast. All arithmetic is done in float32,
also for half-precision input and under autocast, because a coordinate above 1,024 has no exact half-precision
neighbour.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import torch
from torch import Tensor

Weights = tuple[float, float, float, float]
MAX_LOG_SCALE = math.log(1000.0 / 16)
"""A decoded side is at most 62.5 times its reference: keeps exp finite (the value of Detectron and
torchvision)."""


def area(boxes: Tensor) -> Tensor:
    """Area of boxes (..., 4) -> (...), pixels squared; 0 for inverted boxes."""
    boxes = boxes.float()
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Shared area of every pair of a (..., M, 4) and b (..., G, 4) -> (..., M, G), pixels squared."""
    a, b = a.float()[..., :, None, :], b.float()[..., None, :, :]
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp_(min=0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp_(min=0)
    return width.mul_(height)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every pair of a (..., M, 4) and b (..., G, 4) -> (..., M, G) in [0, 1].

    Boxes without area have IoU 0 with everything, never NaN.
    """
    shared = intersection(a, b)
    union = area(a)[..., :, None] + area(b)[..., None, :] - shared
    return shared / union.clamp(min=torch.finfo(torch.float32).tiny)


def ioa(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over the area of a, for every pair of a (..., M, 4) and b (..., G, 4) -> (..., M, G) in
    [0, 1].
    """
    return intersection(a, b) / area(a)[..., :, None].clamp(min=torch.finfo(torch.float32).tiny)


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (..., M, 4) cut to pictures of sizes (..., 2) (height, width); the argument stays as it was."""
    height, width = sizes[..., 0, None].to(boxes), sizes[..., 1, None].to(boxes)  # (..., 1)
    limits = torch.stack([width, height, width, height], dim=-1)  # (..., 1, 4)
    return torch.minimum(boxes.clamp(min=0), limits)


def inside(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Whether boxes (..., M, 4) lie wholly in pictures of sizes (..., 2) -> (..., M) bool; the border counts
    as in.
    """
    height, width = sizes[..., 0, None].to(boxes), sizes[..., 1, None].to(boxes)
    low = (boxes[..., 0] >= 0) & (boxes[..., 1] >= 0)
    return low & (boxes[..., 2] <= width) & (boxes[..., 3] <= height)


def encode_deltas(reference: Tensor, boxes: Tensor, weights: Weights = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Offsets (dx, dy, dw, dh) that lead from reference (..., 4) to boxes (..., 4) -> (..., 4) float32.

    Faster R-CNN, equation 2: dx = (x - xa) / wa, dw = log(w / wa), times ``weights``. Sides are held above
    1e-6 px, so that a degenerate box gives a large finite number instead of an infinite loss.
    """
    reference, boxes = reference.float(), boxes.float()
    size_ref = (reference[..., 2:] - reference[..., :2]).clamp(min=1e-6)
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-6)
    centre_ref = reference[..., :2] + 0.5 * size_ref
    centre = boxes[..., :2] + 0.5 * size
    deltas = torch.cat([(centre - centre_ref) / size_ref, torch.log(size / size_ref)], dim=-1)
    return _each(deltas, weights, operator.mul)


def decode_deltas(
    reference: Tensor,
    deltas: Tensor,
    weights: Weights = (1.0, 1.0, 1.0, 1.0),
    max_log_scale: float = MAX_LOG_SCALE,
) -> Tensor:
    """Boxes (..., 4) float32 from reference (..., 4) and deltas (..., 4): the inverse of ``encode_deltas``.

    dw and dh are limited to ``max_log_scale``; the caller's tensors are not changed.
    """
    reference, deltas = reference.float(), deltas.float()
    deltas = _each(deltas, weights, operator.truediv)
    size_ref = reference[..., 2:] - reference[..., :2]
    centre = deltas[..., :2] * size_ref + (reference[..., :2] + 0.5 * size_ref)
    half = 0.5 * torch.exp(deltas[..., 2:].clamp(max=max_log_scale)) * size_ref
    return torch.cat([centre - half, centre + half], dim=-1)


def _each(deltas: Tensor, weights: Weights, apply: Callable[[Tensor, float], Tensor]) -> Tensor:
    """Weigh the four deltas by numbers of the host; as a tensor they would be copied to the device."""
    if tuple(weights) == (1.0, 1.0, 1.0, 1.0):
        return deltas
    return torch.stack([apply(d, w) for d, w in zip(deltas.unbind(-1), weights, strict=True)], dim=-1)


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU of paired boxes a (..., 4) and b (..., 4) -> (...) (Zheng et al. 2020, equation 10).

    IoU, less the distance of the centres as a share of the hull's diagonal, less a term for other proportions
    (whose weight carries no gradient, as in the paper).
    """
    a, b = a.float(), b.float()
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=1e-6)
    shared = size[..., 0] * size[..., 1]
    overlap = shared / (area(a) + area(b) - shared).clamp(min=1e-6)
    apart = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2).square().sum(-1)
    sides_a, sides_b = ((box[..., 2:] - box[..., :2]).clamp(min=1e-6) for box in (a, b))
    angle = torch.atan(sides_b[..., 0] / sides_b[..., 1]) - torch.atan(sides_a[..., 0] / sides_a[..., 1])
    shape = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        weight = shape / (1 - overlap + shape).clamp(min=1e-6)
    return overlap - apart / hull.square().sum(-1) - weight * shape


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of paired boxes a (..., 4) and b (..., 4) -> (...) in [-1, 1] (Rezatofighi et al.
    2019).
    """
    a, b = a.float(), b.float()
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0)
    shared, outer = size[..., 0] * size[..., 1], (hull[..., 0] * hull[..., 1]).clamp(min=1e-6)
    union = area(a) + area(b) - shared
    return shared / union.clamp(min=1e-6) - (outer - union) / outer
