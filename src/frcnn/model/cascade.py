"""Part of room 11: further stages, each refining the boxes of the one before (Cai and Vasconcelos 2018).

Letters: N images, R RoIs of an image, G padded objects, K classes.

A detector of one stage is a cascade of length 1. Each further stage has a head of its own, is trained with
the boxes that the stage before has moved, matched at a higher IoU, and predicts finer deltas. Departures from
the paper (section 4): the scores of a box are those of its mean logits over the stages, not the mean of its
probabilities; boxes may be per class, then a box moves by the deltas of its likeliest class; and the objects
among the RoIs stay there in every stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from frcnn.boxes import clip
from frcnn.config import RoiConfig
from frcnn.model.coding import decode_boxes
from frcnn.model.matching import match_rois
from frcnn.model.sampling import roi_samples
from frcnn.structures import Proposals, RoiSamples, Samples, Targets, TensorRecord


@dataclass(frozen=True)
class RoiStage(TensorRecord):
    """One stage of the second part: the RoIs it was trained with and what it made of them.

    Attributes:
        rois: (N, R) with targets.
        class_logits: (N, R, K + 1), background last.
        deltas: (N, R, K or 1, 4).
    """

    rois: RoiSamples
    class_logits: Tensor
    deltas: Tensor


def stage_configs(config: RoiConfig) -> tuple[RoiConfig, ...]:
    """The configuration of every stage; the first is ``config`` itself.

    Stage i = 1, 2, ... is positive from ``cascade[i - 1]`` on and background below. Its deltas are weighted
    i + 1 times as much, because they are that much smaller (the paper's reference code: 10, 20, 30).
    """
    later = [
        config.model_copy(
            update={
                "positive_iou": threshold,
                "negative_iou": (0.0, threshold),
                "delta_weights": tuple((i + 2) * weight for weight in config.delta_weights),
            }
        )
        for i, threshold in enumerate(config.cascade)
    ]
    return (config, *later)


@torch.no_grad()
def move_boxes(
    boxes: Tensor, class_logits: Tensor, deltas: Tensor, sizes: Tensor, config: RoiConfig
) -> Tensor:
    """Boxes as a stage leaves them to the next.

    Args:
        boxes: (N, R, 4) that the stage looked at.
        class_logits: (N, R, K + 1), background last.
        deltas: (N, R, K or 1, 4).
        sizes: (N, 2) true picture sizes.
        config: of the stage.

    Returns:
        (N, R, 4) inside the pictures.
    """
    column = class_logits[..., :-1].argmax(-1)
    column = column if deltas.shape[2] > 1 else torch.zeros_like(column)
    chosen = deltas.gather(2, column[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
    return clip(decode_boxes(boxes, chosen, config), sizes)


@torch.no_grad()
def next_samples(
    stage: RoiStage,
    boxes: Tensor,
    targets: Targets,
    config: RoiConfig,
    noise: Tensor,
    draw: Callable[[Tensor, Tensor, int, int], Samples],
) -> RoiSamples:
    """What the next stage is trained with: all RoIs of the stage before, moved and matched anew.

    Args:
        stage: before.
        boxes: (N, R, 4) where its RoIs are now.
        targets: (N, G) objects.
        config: of the next stage.
        noise: (N, R) uniform numbers; they only decide the order.
        draw: the sampler; it may take all.
    """
    rois, count = stage.rois, boxes.shape[1]
    candidates = Proposals(boxes, rois.valid.float(), rois.gt_index, rois.valid)
    matches = match_rois(candidates, targets, config)
    samples = draw(matches.labels, noise[:, :count], count, count)
    return roi_samples(candidates, matches, samples, targets, config, stage.class_logits.shape[-1] - 1)
