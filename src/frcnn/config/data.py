"""Pictures: which take part, how training varies them, how they become pixels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from frcnn.config.section import IgnorePolicy, Pixels, Positive, Section
from frcnn.config.variation import VariationConfig

FormatChoice = Literal["auto", "kitti", "pennfudan", "voc", "coco", "yolo", "labelme", "csv"]


SMALLEST_TILE = 32
"""Pixels."""


class DataConfig(VariationConfig):
    """Which pictures and boxes take part, and how training varies them."""

    val: float = Field(0.2, ge=0, lt=1)
    """Share of the pictures held out where the data set names no validation split."""
    difficult: IgnorePolicy = "ignore"
    """VOC ``difficult`` objects."""
    crowd: IgnorePolicy = "ignore"
    """COCO ``iscrowd`` regions."""
    dontcare: IgnorePolicy = "ignore"
    """KITTI ``DontCare`` regions; they have no class, so ``object`` is refused."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Other names for classes; ``*`` stands for all that are not named: ``{"*": person}`` merges all."""
    classes: tuple[str, ...] = ()
    """Classes to use, in this order, named as after ``rename``; boxes of others are left out. Empty: all."""
    format: FormatChoice = "auto"
    """Which annotations to read where a folder holds several formats."""
    links: Literal["refuse", "follow"] = "refuse"
    """Links in the data set's folder that lead out of it."""
    bad_boxes: Literal["error", "drop"] = "error"
    """Boxes without area, not finite or fully outside."""
    on_bad_image: Literal["error", "skip"] = "error"
    workers: int = Field(-1, ge=-1)
    """Loader processes; -1: one for every core but one, at most 8."""


class PreprocessConfig(Section):
    """From the picture file to the network's pixels; stored in the checkpoint and used by every command."""

    min_size: int = Field(800, gt=0)
    """The short side is resized to this ..."""
    max_size: int = Field(1333, gt=0)
    """... unless the long side would pass this."""
    fixed_size: tuple[Pixels, Pixels] | None = None
    """(height, width): stretch every picture to exactly this instead."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    pad_multiple: int = Field(32, gt=0)
    tile: int = Field(0, ge=0)
    """Cut pictures into tiles of this side, in pixels of the file; 0: whole pictures."""
    overlap: float = Field(0.2, ge=0.05, le=0.75)
    """Share of a tile that neighbouring ones have in common."""
    method: Literal["pillow", "torchvision"] = "pillow"
    """``pillow``: decode at reduced size, antialiased 8-bit resize, normalise on the device. ``torchvision``:
    normalise, then bilinear resize in float without antialias, exactly as torchvision's detectors do."""

    @model_validator(mode="after")
    def _sides(self) -> PreprocessConfig:
        if self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is below min_size {self.min_size}")
        if 0 < self.tile < SMALLEST_TILE:
            raise ValueError(
                f"tile {self.tile} shows too little at a time; use {SMALLEST_TILE} or more, or 0"
            )
        return self
