"""The configuration: one frozen, typed tree, written once; every section has a file of its own.

A recipe (``recipes.py``) is a function that returns a ``Config``; a checkpoint stores the ``Config`` it was
made with; ``settings.py`` reads and changes it. Neither imports torch, so that the command line can read a
configuration in milliseconds.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from frcnn.config.data import DataConfig, PreprocessConfig
from frcnn.config.features import AnchorConfig, BackboneConfig, FpnConfig
from frcnn.config.first_stage import MAX_LOG_SCALE, ProposalConfig, RpnConfig
from frcnn.config.points import FcosConfig
from frcnn.config.second_stage import RoiConfig
from frcnn.config.section import (
    BoxLoss,
    Factor,
    Factors4,
    IgnorePolicy,
    IgnoreRule,
    Normaliser,
    Pixels,
    Positive,
    Precision,
    Sampling,
    Section,
    Share,
    Weights4,
)
from frcnn.config.training import EvalConfig, TrainConfig
from frcnn.config.variation import PRESETS, VARIED, VariationConfig

__all__ = [
    "MAX_LOG_SCALE",
    "PRESETS",
    "VARIED",
    "AnchorConfig",
    "BackboneConfig",
    "BoxLoss",
    "Config",
    "DataConfig",
    "EvalConfig",
    "Factor",
    "Factors4",
    "FcosConfig",
    "FpnConfig",
    "IgnorePolicy",
    "IgnoreRule",
    "Normaliser",
    "Pixels",
    "Positive",
    "Precision",
    "PreprocessConfig",
    "ProposalConfig",
    "RoiConfig",
    "RpnConfig",
    "Sampling",
    "Section",
    "Share",
    "TrainConfig",
    "VariationConfig",
    "Weights4",
]


class Config(Section):
    """Everything that decides what a run does."""

    recipe: str = "custom"
    detector: Literal["two_stage", "rpn", "fcos"] = "two_stage"
    """``rpn``: proposals alone (S0); ``fcos``: points instead of anchors, one stage."""
    data: DataConfig = DataConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    backbone: BackboneConfig = BackboneConfig()
    fpn: FpnConfig = FpnConfig()
    anchors: AnchorConfig = AnchorConfig()
    rpn: RpnConfig = RpnConfig()
    proposals: ProposalConfig = ProposalConfig()
    roi: RoiConfig = RoiConfig()
    fcos: FcosConfig = FcosConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()

    @model_validator(mode="after")
    def _sizes(self) -> Config:
        if self.data.multi_scale and self.preprocess.fixed_size is not None:
            raise ValueError(
                f"data.multi_scale {self.data.multi_scale} changes nothing, because preprocess.fixed_size "
                f"stretches every picture to {self.preprocess.fixed_size}; leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _levels(self) -> Config:
        levels = len(self.backbone.levels) + (self.fpn.channels > 0 and self.fpn.extra_pool)
        names = [f"level {i}" for i in range(self.rpn.first_level, levels)]
        if self.detector == "fcos":
            if len(self.fcos.size_ranges) != levels:
                raise ValueError(
                    f"fcos.size_ranges for {len(self.fcos.size_ranges)} levels, the features have {levels}; "
                    "give a (low, high) for each"
                )
        elif not names:
            raise ValueError(
                f"rpn.first_level {self.rpn.first_level} leaves none of the {levels} levels of the features; "
                "make it smaller"
            )
        elif len(self.anchors.sizes) != len(names):
            raise ValueError(
                f"anchors.sizes for {len(self.anchors.sizes)} levels, the features have {len(names)}: "
                f"{', '.join(names)}; give a list of sizes for each"
            )
        if not self.fpn.channels and len(self.backbone.levels) != 1:
            raise ValueError(
                f"without a pyramid (fpn.channels 0) one backbone level is used, not {self.backbone.levels}"
            )
        if self.detector != "two_stage":
            return self
        if self.roi.pool == "roipool" and levels != 1:
            raise ValueError("roi.pool 'roipool' works on a single level; use 'roialign' with a pyramid")
        if self.roi.box_regression == "none" and self.roi.cascade:
            raise ValueError(
                "roi.cascade moves boxes and roi.box_regression 'none' has nothing to move them with; "
                "leave one of the two out"
            )
        return self

    @property
    def max_dets(self) -> int:
        """Most detections of a picture, from the section that the detector reads."""
        return self.fcos.max_dets if self.detector == "fcos" else self.roi.max_dets

    @property
    def score_threshold(self) -> float:
        """Least score of a detection, from the section that the detector reads."""
        return self.fcos.score_threshold if self.detector == "fcos" else self.roi.score_threshold

    def with_limits(self, max_dets: int, score_threshold: float | None = None) -> Config:
        """The same with other limits of detection; None: the threshold stays."""
        name = "fcos" if self.detector == "fcos" else "roi"
        threshold = self.score_threshold if score_threshold is None else score_threshold
        limits = {"max_dets": max_dets, "score_threshold": threshold}
        section: Section = getattr(self, name)
        return self.model_copy(update={name: section.model_copy(update=limits)})
