"""Pictures: which take part, how training varies them, how they become pixels."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from frcnn.config.section import IgnorePolicy, Pixels, Positive, Section
from frcnn.config.variation import VariationConfig

FormatChoice = Literal["auto", "kitti", "pennfudan", "voc", "coco", "yolo", "labelme", "csv"]


SMALLEST_TILE = 32
"""Pixels."""
MOST_CHANNELS = 256


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
    """Classes to use, in this order, named as after ``rename``; boxes of others are left out. Empty: all. A
    word is one class."""
    format: FormatChoice = "auto"
    """Which annotations to read where a folder holds several formats."""
    links: Literal["refuse", "follow"] = "refuse"
    """Links in the data set's folder that lead out of it."""
    bad_boxes: Literal["error", "drop"] = "error"
    """Boxes without area, not finite or fully outside."""
    on_bad_image: Literal["error", "skip"] = "error"
    exif: Literal["apply", "ignore"] = "apply"
    """``ignore``: pictures are used as they are stored, in training, evaluation and prediction."""
    dedupe: bool = False
    """Leave out boxes that repeat another one of their class in their picture (IoU above 0.99)."""
    group_by: str = ""
    """Regular expression on the paths of pictures: those with the same first group (or match) stay together
    where pictures are held out."""
    folds: int = Field(0, ge=0)
    """Divide the pictures into this many parts, one of which validates; 0: by ``val``."""
    fold: int = Field(0, ge=0)
    """Which part validates, from 0."""
    workers: int = Field(-1, ge=-1)
    """Loader processes; -1: one for every core but one, at most 8."""

    @field_validator("classes", mode="before")
    @classmethod
    def _one_class(cls, value: Any) -> Any:
        """One word is one class, not its letters."""
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _divided(self) -> DataConfig:
        try:
            re.compile(self.group_by)
        except re.error as error:
            raise ValueError(
                f"group_by {self.group_by!r} is not a regular expression ({error}); use one such as '^[^_]+'"
            ) from None
        if self.folds == 1 or (self.folds and self.fold >= self.folds) or (self.fold and not self.folds):
            raise ValueError(
                f"fold {self.fold} of {self.folds}: folds is 2 or more (0: none), fold is from 0 to folds - 1"
            )
        return self


class PreprocessConfig(Section):
    """From the picture file to the network's pixels; stored in the checkpoint and used by every command."""

    min_size: int = Field(800, gt=0)
    """The short side is resized to this ..."""
    max_size: int = Field(1333, gt=0)
    """... unless the long side would pass this."""
    fixed_size: tuple[Pixels, Pixels] | None = None
    """(height, width): stretch every picture to exactly this instead."""
    channels: int = Field(3, ge=1, le=MOST_CHANNELS)
    """Of a picture: 3 is RGB, 1 gray, others are of arrays and TIFF files that hold so many."""
    bits: Literal["auto", 8, 10, 12, 14, 16] = "auto"
    """Of pictures with more than 8 bits: the depth of their camera or scanner, by which all are scaled alike.
    ``auto``: of each picture the least that holds its largest value."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[Positive, ...] = (0.229, 0.224, 0.225)
    """Of every channel. Three numbers for another number of channels stand for their mean, once a channel."""
    pad_multiple: int = Field(32, gt=0)
    tile: int = Field(0, ge=0)
    """Cut pictures into tiles of this side, in pixels of the file; 0: whole pictures."""
    overlap: float = Field(0.2, ge=0.05, le=0.75)
    """Share of a tile that neighbouring ones have in common."""
    method: Literal["pillow", "torchvision"] = "pillow"
    """``pillow``: decode at reduced size, antialiased 8-bit resize, normalise on the device. ``torchvision``:
    normalise, then bilinear resize in float without antialias, exactly as torchvision's detectors do."""

    @model_validator(mode="before")
    @classmethod
    def _one_for_each(cls, values: Any) -> Any:
        """Mean and deviation of RGB, where pictures have another number of channels."""
        channels = values.get("channels", 3) if isinstance(values, dict) else 3
        if not isinstance(channels, int) or channels == 3 or not 1 <= channels <= MOST_CHANNELS:
            return values
        filled = dict(values)
        for name in ("mean", "std"):
            given: Any = filled.get(name, cls.model_fields[name].default)
            if type(given) in (list, tuple) and [type(v) in (int, float) for v in given] == [True] * 3:
                filled[name] = (sum(given) / 3,) * channels
        return filled

    @model_validator(mode="after")
    def _counts(self) -> PreprocessConfig:
        for name in ("mean", "std"):
            given = getattr(self, name)
            if len(given) != self.channels:
                raise ValueError(
                    f"{name} has {len(given)} numbers for {self.channels} channels; give one for each"
                )
        return self

    @model_validator(mode="after")
    def _sides(self) -> PreprocessConfig:
        if self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is below min_size {self.min_size}")
        if 0 < self.tile < SMALLEST_TILE:
            raise ValueError(
                f"tile {self.tile} shows too little at a time; use {SMALLEST_TILE} or more, or 0"
            )
        return self
