"""FCOS: one stage, points instead of anchors (Tian et al. 2019); what reference system S2 is compared with.

Letters: N images, L levels, A points, K classes, k candidates, D detections.

Backbone, pyramid, pictures, training and evaluation are those of the other detectors. Departures from the
paper, each of them a key of ``FcosConfig`` where the paper's way is wanted:
    - distances are what the layer says, cut at 0 when boxes are made (``distances: clip``, S2); the paper
      has exp(s x) with a learnt s for each level (``exp``).
    - the box loss is L1 on distances in strides (S2); the paper has an IoU loss (``box_loss: giou``); that
      its code weights it by the target of the centerness is left out.
    - two convolutions a branch without a norm (S2); the paper has four with GroupNorm (``convs``, ``norm``).
    - centerness is read from the box branch, as in the paper's later version and in S2.
    - the score is the geometric mean of class probability and centerness (S2); the paper has the product,
      which ranks the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.boxes import clip, giou
from frcnn.config import Config, FcosConfig
from frcnn.model.network import Network, Regions, Seen, Stage
from frcnn.model.norms import groups
from frcnn.model.parts import Parts
from frcnn.model.points import Points, decode_distances, match_points, per_point, point_targets, within
from frcnn.model.postprocess import Limits, above, to_original
from frcnn.model.winograd import Conv3x3
from frcnn.ops import nms_mask
from frcnn.structures import (
    Detections,
    FcosLosses,
    FcosOutput,
    ImageBatch,
    Matches,
    Noise,
    Targets,
    Trace,
)

PRIOR = 0.01
"""Probability of every class that a fresh network gives (Lin et al. 2017, RetinaNet, section 4.1): the many
background points then do not drown the few others in the first steps."""
MAX_LOG_STRIDES = math.log(1e4)
"""Largest logarithm of a distance in strides: keeps exp finite."""
ALL_CANDIDATES = 2**31 - 1
"""More (point, class) pairs than there are."""


class FcosHead(nn.Module):
    """A class branch and a box branch of 3x3 convolutions, shared by all levels."""

    def __init__(self, in_channels: int, num_classes: int, levels: int, config: FcosConfig) -> None:
        """Build for features of ``in_channels``, K classes and L levels."""
        super().__init__()
        width = config.channels if config.convs else in_channels
        self.class_branch = _branch(in_channels, config)
        self.box_branch = _branch(in_channels, config)
        self.classes = nn.Conv2d(width, num_classes, 3, padding=1)
        self.distances = nn.Conv2d(width, 4, 3, padding=1)
        self.centerness = nn.Conv2d(width, 1, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(levels)) if config.distances == "exp" else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(self.classes.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps (N, C, H_l, W_l) -> class logits (N, A, K), and (N, A, 5): distances to the left, top, right
        and bottom side in strides, and the logit of centerness; float32, rows first.
        """
        logits: list[Tensor] = []
        boxes: list[Tensor] = []
        for level, feature in enumerate(features):
            logits.append(_rows_first(self.classes(self.class_branch(feature))))
            hidden = self.box_branch(feature)
            distances = self.distances(hidden).float()
            if self.scales is not None:
                distances = (self.scales[level] * distances).clamp(max=MAX_LOG_STRIDES).exp()
            both = torch.cat([distances, self.centerness(hidden).float()], 1)
            boxes.append(_rows_first(both))
        return torch.cat(logits, 1), torch.cat(boxes, 1)


def _branch(in_channels: int, config: FcosConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = config.channels
    for i in range(config.convs):
        layers.append(Conv3x3(in_channels if i == 0 else width, width))
        if config.norm == "group":
            layers.append(nn.GroupNorm(groups(width), width))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _rows_first(maps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H W, C) float32."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2).float()


class Fcos(Network):
    """Backbone, pyramid and one head."""

    losses: type[FcosLosses] = FcosLosses  # type: ignore[assignment, misc]

    def __init__(self, config: Config, num_classes: int, parts: Parts | None = None) -> None:
        """Build with random weights.

        Raises:
            ValueError: when the configuration does not fit the backbone, there is no class, or a part is
                replaced that FCOS does not have.
        """
        super().__init__(config, num_classes, parts)
        if self.parts.replaced:
            raise ValueError(
                f"part {self.parts.replaced[0]} is replaced, and recipe {config.recipe!r} (detector fcos) "
                "has no such part; leave it out, or use a recipe with anchors"
            )
        self.anchors = Points(config.fcos, self.strides)
        self.head = FcosHead(self.fpn.channels, num_classes, len(self.strides), config.fcos)
        self.to(memory_format=torch.channels_last)
        self.freeze(config.train.freeze)

    def stages(
        self,
        batch: ImageBatch,
        anchors: Tensor,
        targets: Targets | None = None,
        noise: Noise | None = None,
        detect: bool = False,
        limits: Limits | None = None,
        regions: Regions | None = None,
    ) -> Trace:
        """The image's path; points come from outside, so this part compiles as one graph."""
        if batch.given is not None:
            raise ValueError(
                f"recipe {self.config.recipe!r} (detector fcos) has no second stage to look at given "
                "proposals; leave them out"
            )
        batch, features, logits, boxes = (regions.see if regions else self.see)(batch)
        sizes = self.anchors.level_sizes(*batch.pixels.shape[-2:])
        strides = per_point(self.strides, sizes, anchors.device)
        fcos = FcosOutput(logits, boxes[..., :4], boxes[..., 4], anchors, strides, sizes)
        trace = Trace(batch, features, None, fcos=fcos)
        config = self.config.fcos
        if targets is not None:
            matches = match_points(anchors, batch.sizes, targets, config, self.strides, sizes)
            trace = replace(trace, rpn_matches=matches, losses=fcos_losses(fcos, matches, targets, config))
        if targets is None or detect:
            trace = replace(trace, detections=find_objects(fcos, batch, config, limits))
        return trace

    def see(self, batch: ImageBatch) -> Seen:
        """Normalised pictures, their maps, class logits (N, A, K), and as deltas (N, A, 5) distances and
        centerness: network only.
        """
        batch, features = self.extract(batch)
        return Seen(batch, features, *self.head(features))

    def draw_noise(self, batch: ImageBatch, targets: Targets, seed: int) -> Noise:
        """Nothing is sampled: every point is trained. Empty (N, 0)."""
        nothing = torch.zeros(len(batch), 0, device=batch.pixels.device)
        return Noise(nothing, nothing)

    def stage_modules(self) -> dict[Stage, tuple[nn.Module, ...]]:
        """The modules of each stage that ``train.freeze`` names: there is no RPN and no second stage."""
        return {"backbone": (self.backbone, self.fpn)}

    def everything(self, trace: Trace, limits: Limits | None) -> Detections:
        """The detections of a trace once more, without the candidate limit before NMS."""
        assert trace.fcos is not None
        unlimited = replace(limits or Limits(), candidates=ALL_CANDIDATES)
        return find_objects(trace.fcos, trace.batch, self.config.fcos, unlimited)


def fcos_losses(output: FcosOutput, matches: Matches, targets: Targets, config: FcosConfig) -> FcosLosses:
    """The three losses, each a sum divided by the number of positive points of the batch (at least 1).

    The focal loss takes every point that is positive or background; L1 is the mean over the four sides, so
    that ``box_weight`` means about the same for either box loss.
    """
    labels, distances, central = point_targets(output.points, output.strides, matches, targets)
    positive = matches.labels == 1
    count = positive.sum().clamp(min=1)
    classes = torch.arange(output.class_logits.shape[-1], device=labels.device)
    wanted = labels[..., None] == classes  # (N, A, K)
    each = focal_loss(output.class_logits, wanted, config.focal_alpha, config.focal_gamma)
    classification = (each * (matches.labels >= 0)[..., None]).sum() / count
    if config.box_loss == "giou":
        pred = decode_distances(output.points, output.distances, output.strides)
        truth = decode_distances(output.points, distances, output.strides)
        each_box = 1 - giou(pred, truth)
    else:
        each_box = F.l1_loss(output.distances, distances, reduction="none").mean(-1)
    each_central = F.binary_cross_entropy_with_logits(output.centerness_logits, central, reduction="none")
    return FcosLosses(
        classification,
        config.box_weight * (each_box * positive).sum() / count,
        config.centerness_weight * (each_central * positive).sum() / count,
    )


def focal_loss(logits: Tensor, wanted: Tensor, alpha: float, gamma: float) -> Tensor:
    """-a (1 - p)^g log p, with p the probability of what is wanted (Lin et al. 2017, equation 5).

    Written with softplus, which is exact for large logits and has a finite gradient for every ``gamma``.

    Args:
        logits: any shape, float32.
        wanted: bool of the same shape.
        alpha: weight of what is wanted; 1 - alpha of the rest.
        gamma: 0 is the plain cross-entropy.
    """
    right = torch.where(wanted, logits, -logits)  # the logit of p
    weight = torch.where(wanted, alpha, 1 - alpha)
    return weight * torch.exp(-gamma * F.softplus(right)) * F.softplus(-right)


@torch.no_grad()
def find_objects(
    output: FcosOutput, batch: ImageBatch, config: FcosConfig, limits: Limits | None = None
) -> Detections:
    """The best detections of every picture, after NMS within each class.

    Args:
        output: what the head says of every point.
        batch: for true and original sizes.
        config: thresholds and counts.
        limits: replace some of them.
    """
    limits = limits or Limits()
    most = config.max_dets if limits.max_dets is None else limits.max_dets
    # 1. candidates: the best (point, class) pairs of every level above the threshold, best first
    k, probability = output.class_logits.shape[-1], output.scores  # (N, A, K)
    wanted = above(probability, config.score_threshold, limits)
    wanted = wanted & within(output.points, batch.sizes)[..., None]
    count = config.pre_nms if limits.candidates is None else limits.candidates
    scores, pair, bound = _best_pairs(torch.where(wanted, probability, -1.0), output.level_sizes, count)
    index, labels = pair // k, pair % k

    # 2. decode only those
    rows = torch.arange(len(pair), device=pair.device)[:, None]
    boxes = decode_distances(output.points[index], output.distances[rows, index], output.strides[index])
    boxes = clip(boxes, batch.sizes)
    valid = (scores >= 0) & ((boxes[..., 2:] - boxes[..., :2]) >= config.min_size).all(-1)

    # 3. NMS within each class, then the best of what survives
    valid = nms_mask(boxes, config.nms_iou, groups=labels, valid=valid)
    kept, order = torch.where(valid, scores, -1.0).topk(min(most, scores.shape[1]), dim=1)  # (N, D)
    # greedy NMS decides a box by better ones only: whatever scores as much as all that was cut is as it would
    # be without the cut
    exact = bound <= (kept[:, -1] if kept.shape[1] == most else -1.0)
    valid = kept >= 0

    # 4. back to the original picture
    boxes = torch.where(valid[..., None], to_original(boxes[rows, order], batch), 0.0)
    return Detections(boxes, kept.clamp(min=0), labels[rows, order], valid, index[rows, order], exact)


def _best_pairs(scores: Tensor, level_sizes: Sequence[int], most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of every level, sorted: scores (N, k) and pairs (N, k) into A x K; and (N,) the best
    score that a pair left out may have, -1 where none was.

    Args:
        scores: (N, A, K), -1 for pairs that are not wanted.
        level_sizes: points of each level.
        most: pairs of a level.
    """
    n, _, k = scores.shape
    found: list[tuple[Tensor, Tensor]] = []
    start, bound = 0, scores.new_full((n,), -1.0)
    for size in level_sizes:
        level = scores[:, start : start + size].flatten(1)  # (N, size K)
        best, pair = level.topk(min(most, size * k), dim=1)
        if most < size * k:
            cut = (level >= 0).sum(1) > most
            bound = torch.where(cut, torch.maximum(bound, best[:, -1]), bound)
        found.append((best, pair + start * k))
        start += size
    best, pair = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    best, order = best.sort(dim=1, descending=True, stable=True)
    return best, pair.gather(1, order), bound
