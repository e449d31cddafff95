"""Room 12 (training): the four losses as one record (Faster R-CNN, equation 1; Fast R-CNN, equations 1 to 3).

Letters: N images, A anchors, S sampled anchors, R sampled RoIs, K classes.

Every loss is a sum over what was sampled divided by its number, so an image without objects gives a finite
loss and, through the zero-weighted terms, a gradient in every parameter on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from frcnn.boxes import ciou, decode_deltas, giou
from frcnn.config import BoxLoss, Normaliser, RoiConfig, RpnConfig
from frcnn.model.cascade import RoiStage, stage_configs
from frcnn.model.coding import decode_boxes
from frcnn.structures import Losses, RoiCounts, RoiSamples, RpnOutput, Samples, TensorRecord

ONES = (1.0, 1.0, 1.0, 1.0)
TINY = torch.finfo(torch.float32).tiny
STAGE_WEIGHT = 0.5
"""Of each further stage against the one before (Cascade R-CNN's reference code: 1, 0.5, 0.25)."""


@dataclass(frozen=True)
class LossInputs(TensorRecord):
    """What a loss may look at; a loss of your own takes this and returns ``Losses``.

    Attributes:
        rpn: the RPN's output.
        rpn_samples: (N, S) anchors drawn.
        rpn_box_targets: (N, S, 4) their deltas, 0 where not foreground.
        rois: (N, R) RoIs drawn, with targets.
        class_logits: (N, R, K + 1), background last.
        deltas: (N, R, K or 1, 4).
        later: further stages of a cascade.
    """

    rpn: RpnOutput
    rpn_samples: Samples
    rpn_box_targets: Tensor
    rois: RoiSamples
    class_logits: Tensor
    deltas: Tensor
    later: tuple[RoiStage, ...] = ()


def default_losses(
    inputs: LossInputs,
    rpn_config: RpnConfig,
    roi_config: RoiConfig,
    later: Sequence[RoiConfig] | None = None,
) -> Losses:
    """The losses that the configuration describes.

    ``later``: the configurations of a cascade's further stages, made beforehand where the step is compiled;
    None: made from ``roi_config``.
    """
    objectness, rpn_box = rpn_losses(inputs.rpn, inputs.rpn_samples, inputs.rpn_box_targets, rpn_config)
    roi_class, roi_box = roi_losses(inputs.rois, inputs.class_logits, inputs.deltas, roi_config)
    configs = stage_configs(roi_config)[1:] if later is None else later
    for i, (stage, config) in enumerate(zip(inputs.later, configs, strict=True)):
        more_class, more_box = roi_losses(stage.rois, stage.class_logits, stage.deltas, config)
        roi_class = roi_class + STAGE_WEIGHT ** (i + 1) * more_class
        roi_box = roi_box + STAGE_WEIGHT ** (i + 1) * more_box
    return Losses(objectness, rpn_box, roi_class, roi_box)


def rpn_losses(
    rpn: RpnOutput, samples: Samples, box_targets: Tensor, config: RpnConfig
) -> tuple[Tensor, Tensor]:
    """Objectness and box loss of the sampled anchors: scalars, weighted."""
    valid, foreground = samples.valid, samples.foreground
    asked = config.batch_size * len(valid)
    count = _divisor(config.class_normaliser, valid, foreground, asked)
    if rpn.objectness_logits.dim() == 3:
        logits = rpn.objectness_logits.gather(1, samples.index[..., None].expand(-1, -1, 2))  # (N, S, 2)
        each = F.cross_entropy(logits.flatten(0, 1), foreground.long().flatten(), reduction="none").view_as(
            valid
        )
    else:
        logits = rpn.objectness_logits.gather(1, samples.index)  # (N, S)
        each = F.binary_cross_entropy_with_logits(logits, foreground.float(), reduction="none")
    objectness = (each * valid).sum() / count
    index = samples.index[..., None].expand(-1, -1, 4)
    deltas = rpn.deltas.gather(1, index)  # (N, S, 4)
    if config.box_loss in ("giou", "ciou"):
        boxes = rpn.anchors.expand(len(valid), -1, -1).gather(1, index)
        weights, limit = config.delta_weights, config.max_log_scale
        pred = decode_deltas(boxes, deltas, weights, limit)
        each_box = _iou_loss(pred, decode_deltas(boxes, box_targets, weights, limit), config.box_loss)
        each_box = torch.where(foreground, each_box, each_box * 0)
    else:
        each_box = _delta_loss(deltas, box_targets, config)  # (N, S)
    divisor = _divisor(config.box_normaliser, valid, foreground, asked)
    return objectness, config.box_weight * (each_box * foreground).sum() / divisor


def roi_losses(
    rois: RoiSamples, class_logits: Tensor, deltas: Tensor, config: RoiConfig
) -> tuple[Tensor, Tensor]:
    """Classification and box loss of the sampled RoIs: scalars, weighted.

    The box loss looks at the true class's deltas only, or at the one set of a class-agnostic head; a head
    without boxes has none. With class weights the classification loss is divided by the sum of the weights of
    what was drawn, as in a weighted negative log-likelihood.
    """
    count = rois.valid.sum().clamp(min=1)
    labels = rois.labels.clamp(min=0)
    each = F.cross_entropy(class_logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(rois.valid)
    weights = _class_weights(rois, labels, class_logits.shape[-1], config)
    if weights is None:
        classification = (each * rois.valid).sum() / count
    else:
        classification = (each * weights).sum() / weights.sum().clamp(min=TINY)
    if not deltas.shape[2]:
        return classification, deltas.sum() * 0
    column = (
        torch.where(rois.foreground, rois.labels, 0) if deltas.shape[2] > 1 else torch.zeros_like(rois.labels)
    )
    chosen = deltas.gather(2, column[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]  # (N, R, 4)
    if config.box_loss in ("giou", "ciou"):
        pred = decode_boxes(rois.boxes, chosen, config)
        truth = decode_boxes(rois.boxes, rois.box_targets, config)
        each_box = _iou_loss(pred, truth, config.box_loss)
    else:
        each_box = _delta_loss(chosen, rois.box_targets, config)
    asked = config.batch_size * len(rois.valid)
    divisor = _divisor(config.box_normaliser, rois.valid, rois.foreground, asked)
    each_box = torch.where(rois.foreground, each_box, each_box * 0)
    return classification, config.box_weight * each_box.sum() / divisor


@torch.no_grad()
def roi_counts(rois: RoiSamples, class_logits: Tensor) -> RoiCounts:
    """How many RoIs (N, R) got their class, or the background, from logits (N, R, K + 1)."""
    right = (class_logits.argmax(-1) == rois.labels) & rois.valid
    background = rois.valid & ~rois.foreground
    masks = (right & rois.foreground, right & background, rois.foreground, background)
    return RoiCounts(*(mask.sum().float() for mask in masks))


@torch.no_grad()
def _class_weights(rois: RoiSamples, labels: Tensor, columns: int, config: RoiConfig) -> Tensor | None:
    """(N, R) weights of what was drawn, 0 where not valid; None where all are equal."""
    if not config.class_weights and config.background_weight == "fixed":
        return None
    background = labels == columns - 1
    weights = rois.valid.float()
    if config.class_weights:
        # one number of the host after the other: as a tensor they would be copied to the device
        for k, weight in enumerate(config.class_weights):
            weights = torch.where(labels == k, weights * weight, weights)
    if config.background_weight == "fg_over_bg":
        # at least 1 to 1: without an object among them the background would teach nothing at all
        fg, bg = rois.foreground.sum().clamp(min=1), (background & rois.valid).sum().clamp(min=1)
        weights = torch.where(background, weights * (fg / bg), weights)
    return weights


def _divisor(kind: Normaliser, valid: Tensor, foreground: Tensor, asked: int) -> Tensor | int:
    """What a summed loss is divided by: what was drawn, its positives, or what should have been drawn."""
    if kind == "batch_size":
        return asked
    return (valid if kind == "sampled" else foreground).sum().clamp(min=1)


def _iou_loss(pred: Tensor, truth: Tensor, kind: BoxLoss) -> Tensor:
    """Of boxes (..., 4) -> one value a box."""
    return 1 - (giou if kind == "giou" else ciou)(pred, truth)


def _delta_loss(pred: Tensor, target: Tensor, config: RpnConfig | RoiConfig) -> Tensor:
    """Sum over the four deltas -> one value a box."""
    if config.inside_weights != ONES:
        pred, target = _weigh(pred, config.inside_weights), _weigh(target, config.inside_weights)
    if config.box_loss == "l1" or config.beta == 0:
        each = F.l1_loss(pred, target, reduction="none")
    else:
        each = F.smooth_l1_loss(pred, target, beta=config.beta, reduction="none")
    return (each if config.outside_weights == ONES else _weigh(each, config.outside_weights)).sum(-1)


def _weigh(deltas: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    return torch.stack([d * w for d, w in zip(deltas.unbind(-1), weights, strict=True)], -1)
