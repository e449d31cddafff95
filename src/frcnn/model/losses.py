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

from frcnn.boxes import decode_deltas, giou
from frcnn.config import BoxLoss, RoiConfig, RpnConfig
from frcnn.model.cascade import RoiStage, stage_configs
from frcnn.structures import Losses, RoiSamples, RpnOutput, Samples, TensorRecord

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
    count = valid.sum().clamp(min=1)
    if rpn.objectness_logits.dim() == 3:
        logits = rpn.objectness_logits.gather(1, samples.index[..., None].expand(-1, -1, 2))  # (N, S, 2)
        each = F.cross_entropy(logits.flatten(0, 1), foreground.long().flatten(), reduction="none").view_as(
            valid
        )
    else:
        logits = rpn.objectness_logits.gather(1, samples.index)  # (N, S)
        each = F.binary_cross_entropy_with_logits(logits, foreground.float(), reduction="none")
    objectness = (each * valid).sum() / count
    deltas = rpn.deltas.gather(1, samples.index[..., None].expand(-1, -1, 4))
    each_box = _delta_loss(deltas, box_targets, config.box_loss, config.beta)  # (N, S)
    divisor = count if config.box_normaliser == "sampled" else foreground.sum().clamp(min=1)
    return objectness, config.box_weight * (each_box * foreground).sum() / divisor


def roi_losses(
    rois: RoiSamples, class_logits: Tensor, deltas: Tensor, config: RoiConfig
) -> tuple[Tensor, Tensor]:
    """Classification and box loss of the sampled RoIs: scalars, weighted.

    The box loss looks at the true class's deltas only, or at the one set of a class-agnostic head.
    """
    count = rois.valid.sum().clamp(min=1)
    each = F.cross_entropy(class_logits.flatten(0, 1), rois.labels.clamp(min=0).flatten(), reduction="none")
    classification = (each.view_as(rois.valid) * rois.valid).sum() / count
    column = (
        torch.where(rois.foreground, rois.labels, 0) if deltas.shape[2] > 1 else torch.zeros_like(rois.labels)
    )
    chosen = deltas.gather(2, column[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]  # (N, R, 4)
    if config.box_loss == "giou":
        pred = decode_deltas(rois.boxes, chosen, config.delta_weights)
        truth = decode_deltas(rois.boxes, rois.box_targets, config.delta_weights)
        each_box = 1 - giou(pred, truth)
    else:
        each_box = _delta_loss(chosen, rois.box_targets, config.box_loss, config.beta)
    divisor = count if config.box_normaliser == "sampled" else rois.foreground.sum().clamp(min=1)
    each_box = torch.where(rois.foreground, each_box, each_box * 0)
    return classification, config.box_weight * each_box.sum() / divisor


def _delta_loss(pred: Tensor, target: Tensor, kind: BoxLoss, beta: float) -> Tensor:
    """Sum over the four deltas -> one value a box."""
    if kind == "l1" or beta == 0:
        return F.l1_loss(pred, target, reduction="none").sum(-1)
    return F.smooth_l1_loss(pred, target, beta=beta, reduction="none").sum(-1)
