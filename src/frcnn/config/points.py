"""FCOS: points instead of anchors, one stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from frcnn.config.section import Factor, Section, Share


class FcosConfig(Section):
    """FCOS, which S2 is compared with (Tian et al. 2019); read only where ``detector`` is ``fcos``."""

    size_ranges: tuple[tuple[Factor, Factor | None], ...] = ((0, 64), (64, 128), (128, None))
    """Of every level: a point is positive where its largest distance to the object's sides lies in
    [low, high]; None: no limit."""
    convs: int = Field(2, ge=0)
    """3x3 convolutions of the class branch and of the box branch."""
    channels: int = Field(64, gt=0)
    norm: Literal["none", "group"] = "none"
    """After these convolutions; ``group`` in the paper."""
    centre_radius: float = Field(0.0, ge=0)
    """Only points within so many strides of an object's centre are positive; 0: all points inside it."""
    focal_alpha: Share = 0.25
    focal_gamma: float = Field(2.0, ge=0)
    distances: Literal["clip", "exp"] = "clip"
    """How the head says distances: as they are, cut at 0 when boxes are made (S2), or as exp(s x) with a
    learnt s for each level (the paper)."""
    box_loss: Literal["l1", "giou"] = "l1"
    """On the distances in strides (S2), or on boxes (the paper's is an IoU loss), which needs ``exp``."""
    box_weight: float = Field(1.0, ge=0)
    centerness_weight: float = Field(1.0, ge=0)
    pre_nms: int = Field(1000, gt=0)
    """Best (point, class) pairs of every level before NMS."""
    score_threshold: float = Field(0.05, ge=0, le=1)
    """Of the geometric mean of class probability and centerness."""
    nms_iou: float = Field(0.6, ge=0, le=1)
    max_dets: int = Field(100, gt=0)
    min_size: float = Field(1e-2, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> FcosConfig:
        for low, high in self.size_ranges:
            if high is not None and low >= high:
                raise ValueError(f"size range ({low:g}, {high:g}) must be (low, high), low below high")
        if self.box_loss == "giou" and self.distances == "clip":
            raise ValueError(
                "box_loss 'giou' learns nothing from distances that are cut at 0; set distances 'exp' too"
            )
        return self
