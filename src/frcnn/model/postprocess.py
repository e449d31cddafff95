"""Room 13: from the heads' outputs to detections in original pixels (Faster R-CNN, section 3.3).

Letters: N images, P proposals, K classes, k candidates, D detections.

A fixed number of (proposal, class) candidates enters one class-aware NMS. Greedy NMS decides a box by better
boxes only, so cutting the tail changes nothing as long as enough survive; ``Detections.exact`` says whether
that held.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from frcnn.boxes import clip
from frcnn.config import RoiConfig
from frcnn.model.coding import decode_boxes
from frcnn.ops import nms_mask
from frcnn.structures import Detections, ImageBatch, Proposals


@dataclass(frozen=True)
class Limits:
    """What a caller wants to see, where that differs from the configuration; None keeps it.

    Attributes:
        score: a detection's score is above this.
        floors: (K,) least score of each class, on the device; with it ``score`` is not looked at.
        max_dets: most detections of a picture.
        candidates: (RoI, class) pairs that enter NMS; with FCOS (point, class) pairs of every level.
    """

    score: float | None = None
    floors: Tensor | None = None
    max_dets: int | None = None
    candidates: int | None = None


@torch.no_grad()
def postprocess(
    proposals: Proposals,
    class_logits: Tensor,
    deltas: Tensor,
    batch: ImageBatch,
    config: RoiConfig,
    limits: Limits | None = None,
) -> Detections:
    """The best detections of every picture, after NMS within each class.

    Args:
        proposals: (N, P).
        class_logits: (N, P, K + 1), background last.
        deltas: (N, P, K, 1 or 0, 4).
        batch: for true and original sizes.
        config: thresholds and counts.
        limits: replace some of them.
    """
    n, p, columns = class_logits.shape
    k = columns - 1
    limits = limits or Limits()
    most = config.max_dets if limits.max_dets is None else limits.max_dets
    # 1. candidates: the best (proposal, class) pairs above the threshold
    probability = class_logits.float().softmax(-1)[..., :k]  # (N, P, K), background dropped
    wanted = above(probability, config.score_threshold, limits) & proposals.valid[..., None]
    wanted = wanted.flatten(1)  # (N, P K)
    probability = probability.flatten(1)
    count = min(p * k, config.candidates if limits.candidates is None else limits.candidates)
    scores, pair = torch.where(wanted, probability, -1.0).topk(count, dim=1)  # (N, k)
    roi_index, labels = pair // k, pair % k

    # 2. decode only those
    rows = torch.arange(n, device=pair.device)[:, None]
    boxes = proposals.boxes[rows, roi_index]
    if deltas.shape[2]:  # else the head gives classes only
        column = labels if deltas.shape[2] > 1 else torch.zeros_like(labels)
        boxes = clip(decode_boxes(boxes, deltas.detach()[rows, roi_index, column], config), batch.sizes)
    valid = (scores >= 0) & ((boxes[..., 2:] - boxes[..., :2]) >= config.min_size).all(-1)

    # 3. NMS within each class, then the best of what survives
    valid = nms_mask(boxes, config.nms_iou, groups=labels, valid=valid)
    kept, order = torch.where(valid, scores, -1.0).topk(min(most, count), dim=1)  # (N, D)
    exact = (wanted.sum(1) <= count) | (valid.sum(1) >= most)
    valid = kept >= 0

    # 4. back to the original picture
    boxes = torch.where(valid[..., None], to_original(boxes[rows, order], batch), 0.0)
    return Detections(boxes, kept.clamp(min=0), labels[rows, order], valid, roi_index[rows, order], exact)


@torch.no_grad()
def propose(
    proposals: Proposals, batch: ImageBatch, max_dets: int, limits: Limits | None = None
) -> Detections:
    """Proposals (N, P) as detections of the one class, scored by objectness, in original pixels."""
    limits = limits or Limits()
    n, p = proposals.scores.shape
    most = min(max_dets if limits.max_dets is None else limits.max_dets, p)
    boxes, scores, valid = proposals.boxes[:, :most], proposals.scores[:, :most], proposals.valid[:, :most]
    if limits.floors is not None:
        valid = valid & (scores >= limits.floors[0])
    elif limits.score is not None:
        valid = valid & (scores > limits.score)
    boxes = to_original(boxes, batch)
    boxes, scores = torch.where(valid[..., None], boxes, 0.0), torch.where(valid, scores, 0.0)
    index = torch.arange(most, device=boxes.device).expand(n, -1)
    exact = torch.ones(n, dtype=torch.bool, device=boxes.device)
    return Detections(boxes, scores, torch.zeros_like(index), valid, index, exact)


def above(scores: Tensor, threshold: float, limits: Limits) -> Tensor:
    """(N, M, K) bool: which scores (N, M, K) of K classes are enough; ``threshold``: the configuration's.

    Floors of the classes are told apart before anything is cut by number, so that a crowd of one class cannot
    push out another.
    """
    if limits.floors is None:
        return scores > (threshold if limits.score is None else limits.score)
    return scores >= limits.floors


def to_original(boxes: Tensor, batch: ImageBatch) -> Tensor:
    """Boxes (N, M, 4) of the resized pictures in pixels of the original ones, each axis by its own ratio, and
    clipped.
    """
    ratio = batch.original_sizes / batch.sizes  # (N, 2) (y, x)
    return clip(boxes * ratio.flip(-1).repeat(1, 2)[:, None], batch.original_sizes)  # (x, y, x, y)
