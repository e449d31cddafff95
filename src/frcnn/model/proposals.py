"""Room 7: from anchors to proposals (Faster R-CNN, section 3.1; numbers per recipe).

Letters: N images, L levels, A anchors, k candidates before NMS, P proposals.

Select first, compute after: the best anchors of every level are chosen on their logits, and only those are
decoded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from frcnn.boxes import clip, decode_deltas
from frcnn.config import ProposalConfig, RpnConfig
from frcnn.ops import nms_mask
from frcnn.structures import Proposals, RpnOutput


@dataclass(frozen=True)
class ProposalLimits:
    """How many anchors of a level enter NMS, and how many proposals of a picture leave it."""

    pre_nms: int
    post_nms: int
    per_level: bool = False

    def count(self, level_sizes: tuple[int, ...]) -> int:
        """P: the number of (padded) proposals for these levels."""
        entering = [min(self.pre_nms, size) for size in level_sizes]
        if self.per_level:
            return sum(min(self.post_nms, size) for size in entering)
        return min(self.post_nms, sum(entering))


def limits(config: ProposalConfig, training: bool) -> ProposalLimits:
    """The limits of the configuration for training or for detection."""
    per_level = config.post_nms_scope == "level"
    if training:
        return ProposalLimits(config.pre_nms_train, config.post_nms_train, per_level)
    return ProposalLimits(config.pre_nms_test, config.post_nms_test, per_level)


@torch.no_grad()
def select_proposals(
    rpn: RpnOutput,
    sizes: Tensor,
    config: ProposalConfig,
    rpn_config: RpnConfig,
    limits: ProposalLimits,
    scales: Tensor | None = None,
) -> Proposals:
    """The best boxes of every image, by objectness, after NMS within each level.

    Args:
        rpn: what the RPN says of every anchor.
        sizes: (N, 2) true picture sizes; boxes are cut to them, not to the padding.
        config: thresholds.
        rpn_config: the deltas' weights and limit.
        limits: numbers before and after NMS.
        scales: (N, 2) resized / original per axis (y, x), where ``min_size`` counts original pixels.

    Returns:
        (N, P) proposals, best first; P depends on the padded size only.
    """
    scores = rpn.scores.detach()  # (N, A)
    deltas = rpn.deltas.detach()
    n, weights, most = scores.shape[0], rpn_config.delta_weights, rpn_config.max_log_scale
    least: float | Tensor = config.min_size
    if config.min_size_unit == "original" and scales is not None:
        least = config.min_size * scales.flip(-1)[:, None]  # (N, 1, 2) (x, y)
    if config.min_size_stage == "before_topk":
        boxes = clip(decode_deltas(rpn.anchors, deltas, weights, most), sizes)
        scores = scores.masked_fill(~_large(boxes, least), float("-inf"))

    # 1. the best of every level
    index_per_level: list[Tensor] = []
    level_per_level: list[Tensor] = []
    start = 0
    for level, size in enumerate(rpn.level_sizes):
        index = scores[:, start : start + size].topk(min(limits.pre_nms, size), dim=1).indices + start
        index_per_level.append(index)
        level_per_level.append(torch.full_like(index, level))
        start += size
    index, level = torch.cat(index_per_level, 1), torch.cat(level_per_level, 1)  # (N, k)

    # 2. decode only those
    anchors = rpn.anchors[index]  # (N, k, 4)
    boxes = decode_deltas(anchors, deltas.gather(1, index[..., None].expand(-1, -1, 4)), weights, most)
    boxes = clip(boxes, sizes)
    logits = scores.gather(1, index)
    probability = logits.sigmoid()  # of object minus background: the softmax probability too

    # 3. drop what is small or unlikely, then NMS in every level; dropped means not valid, the shape stays
    valid = _large(boxes, least) & (probability >= config.score_threshold) & logits.isfinite()
    count = limits.count(rpn.level_sizes)
    if not limits.per_level:
        valid = nms_mask(boxes, config.nms_iou, level, valid, logits, count)
    else:  # within a level the candidates stand best first
        valid = nms_mask(boxes, config.nms_iou, level, valid)
        ranks = [part.cumsum(1) for part in valid.split([i.shape[1] for i in index_per_level], 1)]
        valid = valid & (torch.cat(ranks, 1) <= limits.post_nms)

    # 4. the best of all levels
    ranked = torch.where(valid, probability, -1.0)
    best, order = ranked.topk(count, dim=1)  # (N, P)
    rows = torch.arange(n, device=boxes.device)[:, None]
    kept = best >= 0
    boxes = torch.where(kept[..., None], boxes[rows, order], 0.0)
    return Proposals(boxes, best.clamp(min=0), level[rows, order], kept)


def given_proposals(boxes: Tensor) -> Proposals:
    """Proposals from elsewhere: boxes (N, P, 4), best first, those without area only padding."""
    valid = (boxes[..., 2:] > boxes[..., :2]).all(-1)
    return Proposals(boxes, valid.float(), torch.zeros_like(valid, dtype=torch.long), valid)


def _large(boxes: Tensor, min_size: float | Tensor) -> Tensor:
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides >= min_size).all(-1)
