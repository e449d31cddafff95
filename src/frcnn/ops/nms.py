"""Non-maximum suppression with a fixed output shape.

Letters: B rows (images), k boxes a row. torchvision's operator returns as many indices as survive, a shape
that depends on the data; this one returns a mask, so a compiled or exported graph has one shape for all
pictures.

On the CPU, torchvision's operator serves every row and group. It uses one thread, so large groups are dealt
out to as many threads as torch has. On a GPU that would make the host wait for the length of every answer, so
kernels of our own do it there (``nms_triton.py``) where Triton is installed.
"""

from __future__ import annotations

import importlib.util
import math
from concurrent.futures import ThreadPoolExecutor

import torch
import torchvision
from torch import Tensor

MOST_ON_GPU = 16384
"""Most boxes a row for the kernels, whose bits then take 32 MB a row; more go row by row, with host syncs."""

WORTH_THREADS = 500
"""Boxes of a group from which threads gain: four groups of 250 take 1.2 ms with one and with two, of 500 4.3
and 2.6 ms."""
MOST_THREADS = 8
"""That a call starts, since others on a large machine may call at the same time."""
AHEAD = 1.75
"""Boxes that are looked at first for one that must survive. Trained RPNs lose a fifth to a third of their
boxes, the best ones more, so this is enough for nearly every picture; where it is not, all are looked at."""


@torch.library.custom_op("frcnn::nms_mask", mutates_args=())
def _nms_mask(
    boxes: Tensor,
    iou_threshold: float,
    groups: Tensor | None,
    valid: Tensor | None,
    scores: Tensor | None = None,
    enough: int = 0,
) -> Tensor:
    if boxes.is_cuda and boxes.shape[1] <= MOST_ON_GPU and importlib.util.find_spec("triton"):
        from frcnn.ops.nms_triton import nms_mask_triton

        return nms_mask_triton(boxes, iou_threshold, groups, valid)
    if scores is None or boxes.is_cuda or enough == 0 or boxes.shape[1] <= AHEAD * enough:
        return _greedy(boxes, iou_threshold, groups, valid)
    valid = torch.ones_like(scores, dtype=torch.bool) if valid is None else valid
    ranked = scores.masked_fill(~valid, float("-inf"))
    least = ranked.topk(math.ceil(AHEAD * enough), dim=1).values[:, -1:]
    first = valid & ~(ranked < least)  # the others are worse and suppress none of them
    keep = _greedy(boxes, iou_threshold, groups, first)
    short = ((keep.sum(1) < enough) & (first != valid).any(1)).nonzero().squeeze(1)
    if len(short):
        rest = None if groups is None else groups[short]
        keep[short] = _greedy(boxes[short], iou_threshold, rest, valid[short])
    return keep


def _greedy(boxes: Tensor, iou_threshold: float, groups: Tensor | None, valid: Tensor | None) -> Tensor:
    keep = boxes.new_zeros(boxes.shape[:2], dtype=torch.bool)
    parts: list[tuple[int, Tensor]] = []
    for row in range(boxes.shape[0]):  # inside the operator: the graph sees one node whatever B is
        index = torch.arange(boxes.shape[1], device=boxes.device)
        if valid is not None:
            index = index[valid[row]]
        if groups is not None:  # bring every group together, each still best first
            group, order = groups[row][index].sort(stable=True)
            index, sizes = index[order], group.unique_consecutive(return_counts=True)[1].tolist()
        else:
            sizes = [len(index)]
        parts += [(row, part) for part in index.split(sizes)]
    large = [part for part in parts if len(part[1]) >= WORTH_THREADS]
    threads = min(len(large), torch.get_num_threads(), MOST_THREADS) if boxes.device.type == "cpu" else 1
    if threads > 1:

        def survivors(part: tuple[int, Tensor]) -> Tensor:
            row, index = part
            return _survivors(boxes[row], index, iou_threshold)

        with ThreadPoolExecutor(threads) as pool:  # torch lets go of Python's lock inside its operators
            found = list(pool.map(survivors, large))
        for (row, _), index in zip(large, found, strict=True):
            keep[row, index] = True
        parts = [part for part in parts if len(part[1]) < WORTH_THREADS]
    for row, part in parts:
        keep[row, _survivors(boxes[row], part, iou_threshold)] = True
    return keep


def _survivors(boxes: Tensor, index: Tensor, iou_threshold: float) -> Tensor:
    """Indices that survive among boxes[index], which stand best first."""
    order = torch.arange(len(index), 0, -1, dtype=torch.float32, device=boxes.device)
    return index[torchvision.ops.nms(boxes[index], order, iou_threshold)]


@_nms_mask.register_fake
def _(
    boxes: Tensor,
    iou_threshold: float,
    groups: Tensor | None,
    valid: Tensor | None,
    scores: Tensor | None = None,
    enough: int = 0,
) -> Tensor:
    return boxes.new_empty(boxes.shape[:2], dtype=torch.bool)


def nms_mask(
    boxes: Tensor,
    iou_threshold: float,
    groups: Tensor | None = None,
    valid: Tensor | None = None,
    scores: Tensor | None = None,
    enough: int = 0,
) -> Tensor:
    """Greedy NMS of every row: which boxes survive.

    A box is suppressed when its IoU with a better surviving box of the same row and group is above the
    threshold. Groups are compared exactly (no shift of coordinates, which costs 0.014 px at class 90).
    Computed in float32.

    Args:
        boxes: (B, k, 4), best first (within a group, where there are groups).
        iou_threshold: in [0, 1].
        groups: (B, k) integers; only boxes of the same group suppress each other. None: all are one group.
        valid: (B, k) bool; other boxes neither suppress nor survive. None: all.
        scores: (B, k) floats, in every group falling. With them only so many survivors are wanted:
        enough: of a row, those with the best scores. Whether others survive is then not told on a CPU, where
            NMS takes a time that grows with the square of the boxes.

    Returns:
        (B, k) bool.

    Raises:
        ValueError: when a shape does not fit.
    """
    if boxes.dim() != 3 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must be (B, k, 4), got {tuple(boxes.shape)}")
    beside = {"groups": groups, "valid": valid, "scores": scores}
    for name, value in beside.items():
        if value is not None and value.shape != boxes.shape[:2]:
            raise ValueError(
                f"{name} must be {tuple(boxes.shape[:2])} as boxes are, got {tuple(value.shape)}"
            )
    if enough < 0 or (enough > 0 and scores is None):
        raise ValueError(
            f"enough must be 0, or a number of survivors with scores that say which; got {enough}"
        )
    return _nms_mask(boxes.detach().float(), iou_threshold, groups, valid, scores, enough)


def nms_mask_reference(
    boxes: Tensor, iou_threshold: float, groups: Tensor | None = None, valid: Tensor | None = None
) -> Tensor:
    """The same as ``nms_mask``, box by box in plain Python: slow and obvious, for tests."""
    keep = torch.zeros(boxes.shape[:2], dtype=torch.bool)
    for row in range(boxes.shape[0]):
        survivors: list[int] = []
        for i in range(boxes.shape[1]):
            if valid is not None and not valid[row, i]:
                continue
            rivals = [j for j in survivors if groups is None or groups[row, j] == groups[row, i]]
            if all(_pair_iou(boxes[row, i], boxes[row, j]) <= iou_threshold for j in rivals):
                survivors.append(i)
        keep[row, survivors] = True
    return keep


def _pair_iou(a: Tensor, b: Tensor) -> float:
    ax1, ay1, ax2, ay2 = a.float()
    bx1, by1, bx2, by2 = b.float()
    shared = (min(ax2, bx2) - max(ax1, bx1)).clamp(min=0) * (min(ay2, by2) - max(ay1, by1)).clamp(min=0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    return float(shared / union) if union > 0 else 0.0
