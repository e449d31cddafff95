"""Room 8 (training): which anchors and RoIs stand for which object (Faster R-CNN, section 3.1.2).

Letters: N images, A anchors (or RoIs), G padded objects, g objects of a chunk.

The matcher streams over chunks of objects and keeps, per anchor, the best overlap so far: memory is N x A x g
instead of N x A x G, so 2,000 objects cost no more than eight. Its result equals the dense matcher's, ties
included: where overlaps tie, the first object wins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from frcnn.boxes import area, inside, intersection, iou
from frcnn.config import IgnoreRule, RoiConfig, RpnConfig
from frcnn.structures import Matches, Proposals, Targets, TensorRecord

CHUNK = 8
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Overlaps(TensorRecord):
    """What is known of every anchor's overlap with the objects of its image.

    Attributes:
        best: (N, A) best IoU with a real object.
        index: (N, A) int64, that object; 0 where no real object overlaps.
        best_of_object: (N, A) bool: no anchor overlaps some object more than this one does (and it does
            overlap).
        ignored_area: (N, A) summed share of the anchor's own area under ignore boxes (overlapping ones count
            twice).
        ignored_iou: (N, A) best IoU with an ignored object.
    """

    best: Tensor
    index: Tensor
    best_of_object: Tensor
    ignored_area: Tensor
    ignored_iou: Tensor


@torch.no_grad()
def overlaps(boxes: Tensor, targets: Targets, usable: Tensor | None = None, chunk: int = CHUNK) -> Overlaps:
    """Stream over the objects.

    Args:
        boxes: anchors (A, 4), or RoIs (N, A, 4).
        targets: (N, G) objects.
        usable: (N, A) bool; other anchors overlap nothing. None: all are usable.
        chunk: objects looked at together.
    """
    gt, real, ignored = targets.boxes.float(), targets.real, targets.ignore
    boxes = boxes.float().expand(gt.shape[0], -1, 4)
    n, a = boxes.shape[:2]
    own, theirs = area(boxes)[:, None], area(gt)[..., None]  # (N, 1, A), (N, G, 1)
    # objects before anchors: every operation then runs along the anchors, which lie side by side in memory
    x1, y1, x2, y2 = boxes.transpose(1, 2).contiguous()[:, :, None].unbind(1)  # (N, 1, A) each
    best, ignored_area, ignored_iou = (torch.zeros(n, a, device=boxes.device) for _ in range(3))
    index = torch.zeros(n, a, dtype=torch.long, device=boxes.device)
    forced = torch.zeros(n, a, dtype=torch.bool, device=boxes.device)
    for start in range(0, gt.shape[1] if a else 0, chunk):  # over chunks of objects, not over images
        part = slice(start, start + chunk)
        gx1, gy1, gx2, gy2 = gt[:, part, None].unbind(-1)  # (N, g, 1) each
        shared = (torch.minimum(x2, gx2) - torch.maximum(x1, gx1)).clamp_(min=0)  # (N, g, A)
        shared = shared.mul_((torch.minimum(y2, gy2) - torch.maximum(y1, gy1)).clamp_(min=0))
        if usable is not None:
            shared = shared * usable[:, None]
        overlap = shared / (own + theirs[:, part] - shared).clamp_(min=TINY)
        learnt, skipped = real[:, part, None], ignored[:, part, None]  # (N, g, 1)
        ignored_area += (shared * skipped).sum(1)
        ignored_iou = torch.maximum(ignored_iou, (overlap * skipped).amax(1))
        overlap = overlap * learnt
        reach = overlap.amax(2, keepdim=True)  # (N, g, 1)
        forced |= (overlap == torch.where(reach > 0, reach, 2.0)).any(1)  # no overlap is 2
        top, where = overlap.max(1)  # the first of equals
        index = torch.where(top > best, where + start, index)  # > keeps the earlier object on ties
        best = torch.maximum(best, top)
    return Overlaps(best, index, forced, ignored_area / own[:, 0].clamp(min=TINY), ignored_iou)


def dense_overlaps(boxes: Tensor, targets: Targets, usable: Tensor | None = None) -> Overlaps:
    """The same from the full N x A x G table: simple, public for matchers of your own, and costly with many
    objects.
    """
    n, g = targets.labels.shape
    boxes = boxes.float().expand(n, -1, 4)
    a = boxes.shape[1]
    if a == 0 or g == 0:
        zero = torch.zeros(n, a, device=boxes.device)
        return Overlaps(zero, zero.long(), zero.bool(), zero, zero)
    table = iou(boxes, targets.boxes)  # (N, A, G)
    shared = intersection(boxes, targets.boxes)
    if usable is not None:
        table, shared = table * usable[..., None], shared * usable[..., None]
    theirs = targets.ignore[:, None]
    mine = table * targets.real[:, None]
    index = mine.argmax(-1)
    best = mine.amax(-1)
    reach = mine.amax(1, keepdim=True)
    forced = ((mine == reach) & (reach > 0)).any(-1)
    ignored_area = (shared * theirs).sum(-1) / area(boxes).clamp(min=TINY)
    return Overlaps(best, torch.where(best > 0, index, 0), forced, ignored_area, (table * theirs).amax(-1))


def ignored(found: Overlaps, rule: IgnoreRule, threshold: float) -> Tensor:
    """(N, A) bool: anchors that lie in a region to ignore.

    ``ioa`` (regions): more than half of the anchor lies under ignore boxes. ``iou`` (hard objects): the
    anchor would have been positive (at ``threshold``) for an ignored object.
    """
    return found.ignored_area > 0.5 if rule == "ioa" else found.ignored_iou >= threshold


@torch.no_grad()
def match_anchors(anchors: Tensor, sizes: Tensor, targets: Targets, config: RpnConfig) -> Matches:
    """Labels of the RPN's anchors.

    Positive: IoU at least ``positive_iou``, or the best anchor(s) of an object (all of them on ties), where
    that best is above 0: an object that no anchor touches makes no anchor positive. Background: best IoU
    under ``negative_iou``. Neither: in between, outside the picture (``inside_only``), or in a region to
    ignore; positives win over regions.

    Args:
        anchors: (A, 4).
        sizes: (N, 2) true picture sizes.
        targets: (N, G) objects.
        config: thresholds.
    """
    usable = inside(anchors, sizes) if config.inside_only else None  # (N, A)
    found = overlaps(anchors, targets, usable)
    positive = found.best >= config.positive_iou
    if config.best_anchor:
        positive = positive | found.best_of_object
    labels = torch.where(found.best < config.negative_iou, 0, -1)
    labels = labels.masked_fill(ignored(found, config.ignore_rule, config.positive_iou), -1)
    labels = labels.masked_fill(positive, 1)
    if usable is not None:
        labels = labels.masked_fill(~usable, -1)
    return Matches(labels, found.index)


@torch.no_grad()
def match_rois(proposals: Proposals, targets: Targets, config: RoiConfig) -> Matches:
    """Labels of proposals (N, P) for the second stage: 1 object, 0 background, -1 neither, not valid or
    ignored.
    """
    found = overlaps(proposals.boxes, targets)
    low, high = config.negative_iou
    positive = found.best >= config.positive_iou
    labels = torch.where((found.best >= low) & (found.best < high), 0, -1)
    labels = labels.masked_fill(ignored(found, config.ignore_rule, config.positive_iou), -1)
    labels = labels.masked_fill(positive, 1)
    return Matches(labels.masked_fill(~proposals.valid, -1), found.index)
