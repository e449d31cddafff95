"""Random weights that find something: without them post-processing would have nothing to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

SIDE = 256
"""Pictures are looked at in this size (short side): enough for statistics."""
LOGIT_SPREAD, DELTA_SPREAD, CLASS_SPREAD, BOX_SPREAD = 2.0, 0.2, 2.0, 0.5
PAIRS = 300
"""(RoI, class) pairs above the score threshold in a picture, as a trained detector may have."""


@torch.no_grad()
def enliven(model: Any, images: Sequence[Tensor]) -> None:
    """Fit the batch norm and the outputs of a torchvision detector to the pictures, in place.

    Args:
        model: torchvision's ``FasterRCNN`` with random weights and ``BatchNorm2d``.
        images: (3, h, w) floats in 0..1.
    """
    _small_branches(model)
    spec = model.transform
    transform = GeneralizedRCNNTransform(SIDE, 2 * SIDE, spec.image_mean, spec.image_std)
    batch, _ = transform(list(images[:2]))
    features = model.backbone.train()(batch.tensors)  # one pass sets the statistics
    model.eval()
    features = model.backbone(batch.tensors)
    head = model.rpn.head
    logits, deltas = head(list(features.values()))
    head.cls_logits.weight.mul_(LOGIT_SPREAD / _spread(logits))
    head.bbox_pred.weight.mul_(DELTA_SPREAD / _spread(deltas))
    proposals, _ = model.rpn(batch, features)
    pooled = model.roi_heads.box_roi_pool(features, proposals, batch.image_sizes)
    hidden = model.roi_heads.box_head(pooled)
    _spread_classes(model, hidden, PAIRS * len(proposals))


def _small_branches(model: nn.Module) -> None:
    """Residual branches that add little, as in trained networks: rounding is then not amplified."""
    for name, norm in model.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # cumulative
            low, high = (0.05, 0.2) if name.endswith("bn3") else (0.7, 1.3)
            nn.init.uniform_(norm.weight, low, high)
            nn.init.normal_(norm.bias, std=0.1)


def _spread(maps: Sequence[Tensor]) -> float:
    return float(torch.cat([each.flatten() for each in maps]).std())


def _spread_classes(model: Any, hidden: Tensor, pairs: int) -> None:
    """Class rows that look at what differs between RoIs, and a background that leaves ``pairs`` of them."""
    predictor = model.roi_heads.box_predictor
    mean = hidden.mean(0)
    length = (hidden - mean).pow(2).sum(1).mean().sqrt()
    for layer, size in ((predictor.cls_score, CLASS_SPREAD), (predictor.bbox_pred, BOX_SPREAD)):
        nn.init.normal_(layer.weight, std=float(size / length))
        layer.bias.copy_(-layer.weight @ mean)
    logits = predictor.cls_score(hidden)
    low, high = -20.0, 40.0
    for _ in range(30):  # bisection: the higher the background, the fewer are found
        middle = (low + high) / 2
        shifted = logits.clone()
        shifted[:, 0] += middle
        found = int((shifted.softmax(1)[:, 1:] > model.roi_heads.score_thresh).sum())
        low, high = (middle, high) if found > pairs else (low, middle)
    predictor.cls_score.bias[0] += (low + high) / 2
