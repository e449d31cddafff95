"""Non-maximum suppression with a fixed output shape.

Letters: B rows (images), k boxes a row. torchvision's operator returns as many indices as survive, a shape
that depends on the data; this one returns a mask, so a compiled or exported graph has one shape for all
pictures.

On the CPU, torchvision's operator serves every row and group. On a GPU that would make the host wait for the
length of every answer, so kernels of our own do it there (``nms_triton.py``) where Triton is installed.
"""

from __future__ import annotations

import importlib.util

import torch
import torchvision
from torch import Tensor

MOST_ON_GPU = 16384
"""Most boxes a row for the kernels, whose bits then take 32 MB a row; more go row by row, with host syncs."""


@torch.library.custom_op("frcnn::nms_mask", mutates_args=())
def _nms_mask(boxes: Tensor, iou_threshold: float, groups: Tensor | None, valid: Tensor | None) -> Tensor:
    if boxes.is_cuda and boxes.shape[1] <= MOST_ON_GPU and importlib.util.find_spec("triton"):
        from frcnn.ops.nms_triton import nms_mask_triton

        return nms_mask_triton(boxes, iou_threshold, groups, valid)
    keep = boxes.new_zeros(boxes.shape[:2], dtype=torch.bool)
    for row in range(boxes.shape[0]):  # inside the operator: the graph sees one node whatever B is
        index = torch.arange(boxes.shape[1], device=boxes.device)
        if valid is not None:
            index = index[valid[row]]
        if groups is not None:  # bring every group together, each still best first
            group, order = groups[row][index].sort(stable=True)
            index, sizes = index[order], group.unique_consecutive(return_counts=True)[1].tolist()
        else:
            sizes = [len(index)]
        for part in index.split(sizes):
            keep[row, _survivors(boxes[row], part, iou_threshold)] = True
    return keep


def _survivors(boxes: Tensor, index: Tensor, iou_threshold: float) -> Tensor:
    """Indices that survive among boxes[index], which stand best first."""
    order = torch.arange(len(index), 0, -1, dtype=torch.float32, device=boxes.device)
    return index[torchvision.ops.nms(boxes[index], order, iou_threshold)]


@_nms_mask.register_fake
def _(boxes: Tensor, iou_threshold: float, groups: Tensor | None, valid: Tensor | None) -> Tensor:
    return boxes.new_empty(boxes.shape[:2], dtype=torch.bool)


def nms_mask(
    boxes: Tensor, iou_threshold: float, groups: Tensor | None = None, valid: Tensor | None = None
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

    Returns:
        (B, k) bool.

    Raises:
        ValueError: when a shape does not fit.
    """
    if boxes.dim() != 3 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must be (B, k, 4), got {tuple(boxes.shape)}")
    for name, value in (("groups", groups), ("valid", valid)):
        if value is not None and value.shape != boxes.shape[:2]:
            raise ValueError(
                f"{name} must be {tuple(boxes.shape[:2])} as boxes are, got {tuple(value.shape)}"
            )
    return _nms_mask(boxes.detach().float(), iou_threshold, groups, valid)


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
