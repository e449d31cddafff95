"""The region proposal network, its training, and what becomes a proposal."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from frcnn.config.section import (
    BoxLoss,
    Factors4,
    IgnoreRule,
    Normaliser,
    Positive,
    Sampling,
    Section,
    Weights4,
)

MAX_LOG_SCALE = math.log(1000 / 16)


class RpnConfig(Section):
    """The region proposal network and its training."""

    first_level: int = Field(0, ge=0)
    """Finest level that has anchors; RoIs are pooled from all."""
    output_kernel: Literal[1, 3] = 1
    """Side of the output convolutions; 3 in reference system S2."""
    objectness: Literal["sigmoid", "softmax"] = "sigmoid"
    """One logit an anchor (torchvision, S2), or two (the paper, S0, S1, S3, S4)."""
    channel_order: Literal["interleaved", "grouped"] = "interleaved"
    """Of the two-way softmax's channels: per anchor, or all background then all foreground (S1)."""
    hidden_channels: int = Field(0, ge=0)
    """0: as many as the features have."""
    depth: int = Field(1, gt=0)
    """Number of 3x3 convolutions before the outputs."""
    positive_iou: float = Field(0.7, ge=0, le=1)
    """From this overlap with an object on an anchor is foreground (the paper, section 3.1.2; 0.6 in S2)."""
    negative_iou: float = Field(0.3, ge=0, le=1)
    """Below this best overlap an anchor is background; between the two it is not trained."""
    negative_at_edge: bool = False
    """An IoU of exactly ``negative_iou`` is background (S2), not neutral (the paper)."""
    best_anchor: bool = True
    """The anchors with an object's best overlap are positive whatever that is (above 0)."""
    inside_only: bool = False
    """Only anchors inside the picture are trained (the paper, section 3.3; S0, S1, S3, S4)."""
    batch_size: int = Field(256, gt=0)
    positive_fraction: float = Field(0.5, gt=0, le=1)
    sampling: Sampling = "per_image"
    """``per_batch``: ``batch_size`` times the pictures are drawn from all pictures together (S2)."""
    class_normaliser: Literal["sampled", "batch_size"] = "sampled"
    """The losses are divided by what was drawn, by the positives, or by what should have been drawn (S2)."""
    box_loss: BoxLoss = "smooth_l1"
    """On deltas (``smooth_l1``: the paper; ``l1``: S2), or on boxes (``giou``, ``ciou``)."""
    beta: float = Field(1 / 9, ge=0)
    """Where smooth L1 turns from a square to a line: 1 in the paper, 1/9 in torchvision."""
    box_normaliser: Normaliser = "sampled"
    """What the summed box loss is divided by: anchors drawn (torchvision), positives (S0, S1), or S2's."""
    box_weight: float = Field(1.0, ge=0)
    """Lambda of the paper's equation 1: 10 there."""
    inside_weights: Factors4 = (1.0, 1.0, 1.0, 1.0)
    """On the difference of each delta to its target, before the loss (Fast R-CNN's reference code) ..."""
    outside_weights: Factors4 = (1.0, 1.0, 1.0, 1.0)
    """... and on each delta's loss."""
    delta_weights: Weights4 = (1.0, 1.0, 1.0, 1.0)
    max_log_scale: Positive = MAX_LOG_SCALE
    """Largest logarithm by which a decoded side grows; log(224 / 8) in S2."""
    ignore_rule: IgnoreRule = "ioa"
    """Which anchors ignored boxes take out: those that lie in them by more than half (``ioa``, for regions),
    those that they would make positive (``iou``, for hard objects), or each box by what it is (``by_kind``).
    """
    ignore_wins: bool = False
    """An anchor that is positive and in a region to ignore is ignored (S1), not trained as an object."""

    @model_validator(mode="after")
    def _order(self) -> RpnConfig:
        if self.negative_iou > self.positive_iou:
            raise ValueError(f"negative_iou {self.negative_iou} is above positive_iou {self.positive_iou}")
        return self


class ProposalConfig(Section):
    """Which anchors become proposals."""

    pre_nms_train: int = Field(2000, gt=0)
    """Best anchors of every level before NMS."""
    post_nms_train: int = Field(2000, gt=0)
    """Proposals after NMS, of a picture or of every level (``post_nms_scope``)."""
    pre_nms_test: int = Field(1000, gt=0)
    post_nms_test: int = Field(1000, gt=0)
    """The same two in detection: 6,000 and 300 in the paper."""
    nms_iou: float = Field(0.7, ge=0, le=1)
    post_nms_scope: Literal["image", "level"] = "image"
    """``level`` in S2."""
    min_size: float = Field(1e-3, ge=0)
    """Smaller proposals are dropped; in pixels of the resized or the original picture (``min_size_unit``)."""
    min_size_unit: Literal["resized", "original"] = "resized"
    min_size_stage: Literal["before_topk", "after_topk"] = "after_topk"
    """Before the best are chosen (the paper's code, S1), or after (torchvision, S2)."""
    score_threshold: float = Field(0.0, ge=0, le=1)
