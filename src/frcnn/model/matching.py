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
        best_of_ignored: (N, A) bool: as ``best_of_object``, for ignored objects.
    """

    best: Tensor
    index: Tensor
    best_of_object: Tensor
    ignored_area: Tensor
    ignored_iou: Tensor
    best_of_ignored: Tensor


@torch.no_grad()
def overlaps(
    boxes: Tensor,
    targets: Targets,
    usable: Tensor | None = None,
    rule: IgnoreRule = "ioa",
    chunk: int = CHUNK,
) -> Overlaps:
    """Stream over the objects.

    Args:
        boxes: anchors (A, 4), or RoIs (N, A, 4).
        targets: (N, G) objects.
        usable: (N, A) bool; other anchors overlap nothing. None: all are usable.
        rule: what ignored boxes are: regions (``ioa``), objects (``iou``), or objects where they have a class
            (``by_kind``). Of regions the area is summed, of objects the best IoU is kept.
        chunk: objects looked at together.
    """
    gt, real = targets.boxes.float(), targets.real
    regions, hard = split_ignored(targets, rule)
    boxes = boxes.float().expand(gt.shape[0], -1, 4)
    n, a = boxes.shape[:2]
    own, theirs = area(boxes)[:, None], area(gt)[..., None]  # (N, 1, A), (N, G, 1)
    # objects before anchors: every operation then runs along the anchors, which lie side by side in memory
    x1, y1, x2, y2 = boxes.transpose(1, 2).contiguous()[:, :, None].unbind(1)  # (N, 1, A) each
    best, ignored_area, ignored_iou = (torch.zeros(n, a, device=boxes.device) for _ in range(3))
    index = torch.zeros(n, a, dtype=torch.long, device=boxes.device)
    forced, avoided = (torch.zeros(n, a, dtype=torch.bool, device=boxes.device) for _ in range(2))
    for start in range(0, gt.shape[1] if a else 0, chunk):  # over chunks of objects, not over images
        part = slice(start, start + chunk)
        gx1, gy1, gx2, gy2 = gt[:, part, None].unbind(-1)  # (N, g, 1) each
        shared = (torch.minimum(x2, gx2) - torch.maximum(x1, gx1)).clamp_(min=0)  # (N, g, A)
        shared = shared.mul_((torch.minimum(y2, gy2) - torch.maximum(y1, gy1)).clamp_(min=0))
        if usable is not None:
            shared = shared * usable[:, None]
        overlap = shared / (own + theirs[:, part] - shared).clamp_(min=TINY)
        if regions is not None:
            ignored_area += (shared * regions[:, part, None]).sum(1)
        if hard is not None:
            skipped = overlap * hard[:, part, None]
            ignored_iou = torch.maximum(ignored_iou, skipped.amax(1))
            avoided |= _best_anchors(skipped)
        overlap = overlap * real[:, part, None]
        forced |= _best_anchors(overlap)
        top, where = overlap.max(1)  # the first of equals
        index = torch.where(top > best, where + start, index)  # > keeps the earlier object on ties
        best = torch.maximum(best, top)
    return Overlaps(best, index, forced, ignored_area / own[:, 0].clamp(min=TINY), ignored_iou, avoided)


def split_ignored(targets: Targets, rule: IgnoreRule) -> tuple[Tensor | None, Tensor | None]:
    """(N, G) bool masks of the ignored boxes that count as regions, and as objects; None: there are none."""
    if rule == "ioa":
        return targets.ignore, None
    if rule == "iou":
        return None, targets.ignore
    return targets.ignore & (targets.labels < 0), targets.ignore & (targets.labels >= 0)


def _best_anchors(overlap: Tensor) -> Tensor:
    """(N, A) bool: anchors with the best overlap, above 0, of some object; overlap (N, g, A)."""
    reach = overlap.amax(2, keepdim=True)  # (N, g, 1)
    return (overlap == torch.where(reach > 0, reach, 2.0)).any(1)  # no overlap is 2


def dense_overlaps(
    boxes: Tensor, targets: Targets, usable: Tensor | None = None, rule: IgnoreRule = "ioa"
) -> Overlaps:
    """The same from the full N x A x G table: simple, public for matchers of your own, and costly with many
    objects.
    """
    n, g = targets.labels.shape
    boxes = boxes.float().expand(n, -1, 4)
    a = boxes.shape[1]
    if a == 0 or g == 0:
        zero = torch.zeros(n, a, device=boxes.device)
        return Overlaps(zero, zero.long(), zero.bool(), zero, zero, zero.bool())
    table = iou(boxes, targets.boxes)  # (N, A, G)
    shared = intersection(boxes, targets.boxes)
    if usable is not None:
        table, shared = table * usable[..., None], shared * usable[..., None]
    none = torch.zeros_like(targets.ignore)
    regions, hard = split_ignored(targets, rule)
    regions, hard = none if regions is None else regions, none if hard is None else hard
    mine, theirs = table * targets.real[:, None], table * hard[:, None]
    index = mine.argmax(-1)
    best = mine.amax(-1)
    forced, avoided = (
        ((values == values.amax(1, keepdim=True)) & (values > 0)).any(-1) for values in (mine, theirs)
    )
    ignored_area = (shared * regions[:, None]).sum(-1) / area(boxes).clamp(min=TINY)
    index = torch.where(best > 0, index, 0)
    return Overlaps(best, index, forced, ignored_area, theirs.amax(-1), avoided)


def ignored(found: Overlaps, threshold: float, best_anchor: bool = False, above: bool = False) -> Tensor:
    """(N, A) bool: anchors that lie in a region to ignore or would be positive for an object to ignore.

    Args:
        found: overlaps under an ``ignore_rule``.
        threshold: IoU that makes positive.
        best_anchor: an object's best anchors are positive, too.
        above: ``threshold`` itself is not enough.
    """
    hard = found.ignored_iou > threshold if above else found.ignored_iou >= threshold
    hard = hard & (found.ignored_iou > 0)  # a threshold of 0 makes nothing of an anchor that touches nothing
    if best_anchor:
        hard = hard | found.best_of_ignored
    return hard | (found.ignored_area > 0.5)


@torch.no_grad()
def match_anchors(anchors: Tensor, sizes: Tensor, targets: Targets, config: RpnConfig) -> Matches:
    """Labels of the RPN's anchors.

    Positive: IoU at least ``positive_iou``, or the best anchor(s) of an object (all of them on ties), where
    that best is above 0: an object that no anchor touches makes no anchor positive. Background: best IoU
    under ``negative_iou``. Neither: in between, outside the picture (``inside_only``), or in a region to
    ignore; positives win over regions, unless ``ignore_wins``.

    Args:
        anchors: (A, 4).
        sizes: (N, 2) true picture sizes.
        targets: (N, G) objects.
        config: thresholds.
    """
    usable = inside(anchors, sizes) if config.inside_only else None  # (N, A)
    found = overlaps(anchors, targets, usable, config.ignore_rule)
    positive = found.best >= config.positive_iou
    if config.best_anchor:
        positive = positive | found.best_of_object
    low = config.negative_iou
    negative = found.best <= low if config.negative_at_edge else found.best < low
    skipped = ignored(found, config.positive_iou, config.best_anchor)
    labels = _labels(positive, negative, skipped, config.ignore_wins)
    if usable is not None:
        labels = labels.masked_fill(~usable, -1)
    return Matches(labels, found.index)


@torch.no_grad()
def match_rois(proposals: Proposals, targets: Targets, config: RoiConfig) -> Matches:
    """Labels of proposals (N, P) for the second stage: 1 object, 0 background, -1 neither, not valid or
    ignored.
    """
    found = overlaps(proposals.boxes, targets, rule=config.ignore_rule)
    low, high = config.negative_iou
    edge, above = config.positive_iou, not config.positive_at_edge
    positive = found.best > edge if above else found.best >= edge
    negative = (found.best >= low) & (found.best < high)
    if above and high == edge:
        negative = negative | (found.best == edge)
    skipped = ignored(found, edge, above=above)
    labels = _labels(positive, negative, skipped, config.ignore_wins)
    return Matches(labels.masked_fill(~proposals.valid, -1), found.index)


def _labels(positive: Tensor, negative: Tensor, skipped: Tensor, ignore_wins: bool) -> Tensor:
    """1, 0 or -1 of every anchor; who is positive and to be skipped is positive, or with ``ignore_wins``
    not.
    """
    labels = torch.where(negative & ~skipped, 0, -1)
    if ignore_wins:
        positive = positive & ~skipped
    return labels.masked_fill(positive, 1)
