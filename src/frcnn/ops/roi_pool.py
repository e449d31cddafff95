"""RoI max-pooling of the classic detectors (Fast R-CNN, section 2.1), on a single feature level.

Letters: N images, R RoIs an image, C channels, P output side.

torchvision's operator rounds RoIs to whole cells and includes the end cell, a legacy "+ 1" that the published
VGG16 detectors have too; it is kept here and nowhere else.
"""

from __future__ import annotations

import math

import torch
import torchvision
from torch import Tensor


def roi_pool(feature: Tensor, boxes: Tensor, stride: int, output_size: int = 7) -> Tensor:
    """Largest value of every bin of every RoI.

    Args:
        feature: (N, C, H, W).
        boxes: (N, R, 4) in pixels of the padded pictures.
        stride: pixels a cell.
        output_size: P, bins a side.

    Returns:
        (N, R, C, P, P), computed in float32, returned in the feature's dtype.
    """
    n, r = boxes.shape[:2]
    boxes = boxes.detach().float().nan_to_num(0.0, 0.0, 0.0).clamp(-1e6, 1e6)
    image = torch.arange(n, device=boxes.device, dtype=torch.float32)[:, None, None].expand(n, r, 1)
    rois = torch.cat([image, boxes], -1).view(n * r, 5)
    pooled = torchvision.ops.roi_pool(feature.float().contiguous(), rois, output_size, 1.0 / stride)
    return pooled.view(n, r, feature.shape[1], output_size, output_size).to(feature.dtype)


def roi_pool_reference(feature: Tensor, boxes: Tensor, stride: int, output_size: int = 7) -> Tensor:
    """The same as ``roi_pool`` bin by bin in plain Python: slow and obvious, for tests."""
    n, r = boxes.shape[:2]
    _, c, height, width = feature.shape
    out = torch.zeros(n, r, c, output_size, output_size)
    for i in range(n):
        for j in range(r):
            x1, y1, x2, y2 = (math.floor(float(v) / stride + 0.5) for v in boxes[i, j])
            h, w = max(y2 - y1 + 1, 1) / output_size, max(x2 - x1 + 1, 1) / output_size
            for py in range(output_size):
                for px in range(output_size):
                    top, bottom = math.floor(py * h) + y1, math.ceil((py + 1) * h) + y1
                    left, right = math.floor(px * w) + x1, math.ceil((px + 1) * w) + x1
                    top, bottom = min(max(top, 0), height), min(max(bottom, 0), height)
                    left, right = min(max(left, 0), width), min(max(right, 0), width)
                    if bottom > top and right > left:
                        out[i, j, :, py, px] = feature[i, :, top:bottom, left:right].amax((1, 2))
    return out
