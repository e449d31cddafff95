"""RoIAlign on the CPU: one ``embedding_bag`` a level, on the map itself, with a gradient of the same kind.

Letters: N images, R RoIs an image, L levels, C channels, P output side, M = N R, T taps of a bin.

An operator of its own because it looks at the data: RoIs are brought together by level, so that no table of
all levels is needed. Rows and weights are made again for the gradient, not kept. The gradient of a map is the
transposed sum: every feature row gathers the bins that read it, found by sorting the taps by row. It is
deterministic, and sums in float32 also for bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from frcnn.ops.roi_taps import Grid, level_numbers, taps


def roi_align_bags(
    features: Sequence[Tensor], boxes: Tensor, levels: Tensor, strides: Sequence[int], grid: Grid
) -> Tensor:
    """Pool finite boxes (N, R, 4) from L maps (N, C, H_l, W_l) at ``levels`` (N, R) -> (N, R, P, P, C)."""
    return _pool(list(features), boxes, levels, list(strides), *grid)


@torch.library.custom_op("frcnn::roi_align_bags", mutates_args=())
def _pool(
    features: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor,
    strides: Sequence[int],
    size: int,
    samples: int,
    aligned: bool,
) -> Tensor:
    (n, r), c, bins = levels.shape, features[0].shape[1], size * size
    if n * r == 0:
        return features[0].new_zeros(n, r, size, size, c)
    shapes = [(f.shape[2], f.shape[3]) for f in features]
    order, counts, index, weight = _by_level(boxes, levels, strides, shapes, Grid(size, samples, aligned))
    rois, rows = order.split(counts), index.split([k * bins for k in counts])
    weights = weight.to(features[0].dtype).split([k * bins for k in counts])
    # the level with most RoIs writes the result itself (others have no taps there); the rest are copied in
    main = counts.index(max(counts))
    lengths = torch.where(levels.flatten() == main, index.shape[1], 0).to(torch.int32)
    lengths = lengths[:, None].expand(n * r, bins).flatten()
    starts = lengths.cumsum(0, dtype=torch.int32) - lengths
    pooled = _bags(features[main], rows[main].flatten(), weights[main].flatten(), starts)
    pooled = pooled.view(n * r, bins, c)
    for level, count in enumerate(counts):
        if count and level != main:
            part = _bags(features[level], rows[level], weights[level])
            pooled.index_copy_(0, rois[level], part.view(count, bins, c))
    return pooled.view(n, r, size, size, c)


def _bags(feature: Tensor, index: Tensor, weight: Tensor, starts: Tensor | None = None) -> Tensor:
    table = feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1])  # a view of channels-last memory
    return F.embedding_bag(index, table, starts, per_sample_weights=weight, mode="sum")


def _by_level(
    boxes: Tensor, levels: Tensor, strides: Sequence[int], shapes: Sequence[tuple[int, int]], grid: Grid
) -> tuple[Tensor, list[int], Tensor, Tensor]:
    """RoIs (M,) in the order of their levels, how many each level has, and their taps (M P P, T) in it."""
    n, r = levels.shape
    level, order = levels.flatten().sort(stable=True)
    counts = level.bincount(minlength=len(strides)).tolist()
    heights, widths = [h for h, _ in shapes], [w for _, w in shapes]
    height, width, stride = level_numbers(level, heights, widths, strides)
    image = torch.div(order, r, rounding_mode="floor").to(torch.int32)
    index, weight = taps(boxes.reshape(n * r, 4)[order], stride, height, width, image * height * width, grid)
    return order, counts, index, weight


@_pool.register_fake
def _(
    features: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor,
    strides: Sequence[int],
    size: int,
    samples: int,
    aligned: bool,
) -> Tensor:
    return features[0].new_empty(*levels.shape, size, size, features[0].shape[1])


@torch.library.custom_op("frcnn::roi_align_bags_backward", mutates_args=())
def _pool_backward(
    grad: Tensor,
    boxes: Tensor,
    levels: Tensor,
    strides: Sequence[int],
    heights: Sequence[int],
    widths: Sequence[int],
    samples: int,
    aligned: bool,
) -> list[Tensor]:
    (n, r), (size, c) = levels.shape, grad.shape[-2:]
    shapes, grid = list(zip(heights, widths, strict=True)), Grid(size, samples, aligned)
    if n * r == 0:
        return [_empty_map(grad, n, h, w).zero_() for h, w in shapes]
    order, counts, index, weight = _by_level(boxes, levels, strides, shapes, grid)
    table = grad.reshape(-1, c)  # (bins, C)
    bins = order.to(torch.int32)[:, None] * size**2 + torch.arange(size**2, dtype=torch.int32)  # (M, P P)
    parts = [count * size**2 for count in counts]
    taps_of = zip(bins.split(counts), index.split(parts), weight.split(parts), strict=True)
    maps = []
    for (h, w), (readers, rows, weights) in zip(shapes, taps_of, strict=True):
        found = _transposed(table, readers.flatten(), rows, weights, n * h * w)
        maps.append(found.view(n, h, w, c).permute(0, 3, 1, 2))
    return maps


def _transposed(grad: Tensor, bins: Tensor, index: Tensor, weight: Tensor, rows: int) -> Tensor:
    """Gradient (rows, C) of one map from bins (K,) of the table ``grad`` and their taps (K, T)."""
    count = index.shape[1]
    index = index.flatten()
    order = index.sort(stable=True).indices
    lengths = index.bincount(minlength=rows)
    starts = (lengths.cumsum(0) - lengths).to(torch.int32)
    readers = bins[torch.div(order, count, rounding_mode="floor")]
    weights = weight.flatten()[order].to(grad.dtype)
    return F.embedding_bag(readers, grad, starts, per_sample_weights=weights, mode="sum")


def _empty_map(like: Tensor, n: int, height: int, width: int) -> Tensor:
    return like.new_empty(n, height, width, like.shape[-1]).permute(0, 3, 1, 2)


@_pool_backward.register_fake
def _(
    grad: Tensor,
    boxes: Tensor,
    levels: Tensor,
    strides: Sequence[int],
    heights: Sequence[int],
    widths: Sequence[int],
    samples: int,
    aligned: bool,
) -> list[Tensor]:
    return [_empty_map(grad, levels.shape[0], h, w) for h, w in zip(heights, widths, strict=True)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, boxes, levels, ctx.strides, _, ctx.samples, ctx.aligned = inputs
    ctx.heights, ctx.widths = [f.shape[2] for f in features], [f.shape[3] for f in features]
    ctx.save_for_backward(boxes, levels)  # the maps themselves are not needed


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    boxes, levels = ctx.saved_tensors
    maps = _pool_backward(grad, boxes, levels, ctx.strides, ctx.heights, ctx.widths, ctx.samples, ctx.aligned)
    return maps, None, None, None, None, None, None


_pool.register_autograd(_backward, setup_context=_setup)
