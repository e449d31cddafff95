"""The second stage: pooling, head, training and post-processing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from frcnn.config.section import (
    BoxLoss,
    Factor,
    Factors4,
    IgnoreRule,
    Normaliser,
    Sampling,
    Section,
    Share,
    Weights4,
)

OF_BOX_LOSS = ("box_loss", "box_weight", "inside_weights", "outside_weights", "target_mean", "target_std")
"""Keys that mean something only where the head moves boxes."""


class RoiConfig(Section):
    """The second stage: pooling, head, training and post-processing."""

    pool: Literal["roialign", "roipool"] = "roialign"
    """Bilinear samples (Mask R-CNN, section 3), or the largest value of whole cells (Fast R-CNN)."""
    pool_edges: Literal["round", "truncate"] = "round"
    """How ``roipool`` cuts boxes to whole cells: as torchvision's operator, or as reference system S3."""
    output_size: int = Field(7, gt=0)
    sampling_ratio: int = Field(2, gt=0)
    aligned: bool = False
    head: Literal["two_fc", "vgg", "conv_fc", "conv"] = "two_fc"
    hidden: int = Field(1024, gt=0)
    """Width of the fully connected layers."""
    convs: int = Field(4, ge=0)
    """Convolutions of the ``conv_fc`` head (256 channels, batch norm) and of the ``conv`` head (no norm, no
    fully connected layer)."""
    conv_channels: int = Field(64, gt=0)
    """Of the ``conv`` head."""
    dropout: float = Field(0.0, ge=0, lt=1)
    box_regression: Literal["per_class", "agnostic", "none"] = "per_class"
    """``none``: detections are the proposals' boxes (S2)."""
    cascade: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """IoU from which a RoI is positive in each further stage (Cascade R-CNN); none: one stage."""
    gt_proposals: Literal["exact", "jittered", "none"] = "exact"
    """Whether the objects themselves join the proposals in training, or copies with moved sides (S1)."""
    gt_jitter: float = Field(0.025, ge=0, lt=0.5)
    """Largest shift of a side of a jittered copy, as a share of the object's width or height."""
    positive_iou: float = Field(0.5, ge=0, le=1)
    positive_at_edge: bool = True
    """An IoU of exactly ``positive_iou`` is positive (the paper), not background (S2)."""
    negative_iou: tuple[Share, Share] = (0.0, 0.5)
    """Background RoIs have a best overlap in [low, high)."""
    batch_size: int = Field(512, gt=0)
    positive_fraction: float = Field(0.25, gt=0, le=1)
    sampling: Sampling = "per_image"
    class_weights: tuple[Factor, ...] = ()
    """Of the classes in their order, background last, in the classification loss; none: all equal."""
    background_weight: Literal["fixed", "fg_over_bg"] = "fixed"
    """``fg_over_bg``: all background RoIs drawn together count as much as all foreground ones (S1)."""
    box_loss: BoxLoss = "smooth_l1"
    """On deltas (``smooth_l1``: the paper, ``l1``), or on boxes (``giou``: Rezatofighi et al. 2019; ``ciou``:
    Zheng et al. 2020)."""
    beta: float = Field(1 / 9, ge=0)
    """Where smooth L1 turns from a square to a line: 1 in the paper, 1/9 in torchvision."""
    box_normaliser: Normaliser = "sampled"
    """What the summed box loss is divided by: RoIs drawn (torchvision), or positives (S1)."""
    box_weight: float = Field(1.0, ge=0)
    inside_weights: Factors4 = (1.0, 1.0, 1.0, 1.0)
    outside_weights: Factors4 = (1.0, 1.0, 1.0, 1.0)
    """As those of the RPN."""
    delta_weights: Weights4 = (10.0, 10.0, 5.0, 5.0)
    target_mean: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    target_std: Weights4 = (1.0, 1.0, 1.0, 1.0)
    """Mean and deviation of the (weighted) deltas in the data: the head learns normalised ones."""
    ignore_rule: IgnoreRule = "ioa"
    ignore_wins: bool = False
    score_threshold: float = Field(0.05, ge=0, le=1)
    nms_iou: float = Field(0.5, ge=0, le=1)
    max_dets: int = Field(100, gt=0)
    min_size: float = Field(1e-2, ge=0)
    candidates: int = Field(4096, gt=0)
    """(RoI, class) pairs that enter the last NMS."""

    @model_validator(mode="after")
    def _range(self) -> RoiConfig:
        if self.negative_iou[0] >= self.negative_iou[1]:
            raise ValueError(f"negative_iou {self.negative_iou} must be (low, high), low below high")
        return self

    @model_validator(mode="after")
    def _moves_nothing(self) -> RoiConfig:
        if self.box_regression != "none":
            return self
        fields = type(self).model_fields
        given = [
            f"{name} {getattr(self, name)}"
            for name in OF_BOX_LOSS
            if getattr(self, name) != fields[name].default
        ]
        if given:
            raise ValueError(
                f"{', '.join(given)} is for a box loss, and with box_regression 'none' there is no box "
                "to learn; leave it out, or set box_regression 'per_class'"
            )
        return self
