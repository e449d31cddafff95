"""How training varies its pictures: named presets, and a key for each part of them.

Naming a preset switches every part of this file on or off; keys that are named beside it win.
``docs/augment.md`` shows what the parts do to a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from frcnn.config.section import Pixels, Positive, Section, Share

Preset = Literal["recipe", "none", "light", "strong", "aerial", "inspection"]

_COLOUR = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "none": {"flip": 0.0},
    "light": {"flip": 0.5, "scale_jitter": (0.8, 1.25), **_COLOUR},
    "strong": {
        "flip": 0.5,
        "scale_jitter": (0.8, 1.25),
        "zoom_out": 0.25,
        "iou_crop": 0.5,
        "mosaic": 0.25,
        "copy_paste": 0.25,
        "brightness": 0.3,
        "contrast": 0.3,
        "saturation": 0.4,
        "hue": 0.03,
    },
    "aerial": {
        "flip": 0.5,
        "flip_vertical": 0.5,
        "quarter_turns": 0.75,
        "large_scale_jitter": (0.75, 1.5),
        "copy_paste": 0.25,
        **_COLOUR,
        "hue": 0.01,
    },
    "inspection": {
        "flip": 0.5,
        "flip_vertical": 0.5,
        "quarter_turns": 0.75,
        "scale_jitter": (0.9, 1.1),
        "brightness": 0.15,
        "contrast": 0.15,
    },
}
"""What each preset contains; a key that it does not name is off."""


class VariationConfig(Section):
    """How training varies its pictures; evaluation and prediction never do."""

    augment: Preset = "recipe"
    """A preset; ``recipe``: the keys below as the recipe has them."""
    flip: Share = 0.5
    """Probability of a horizontal flip."""
    flip_vertical: Share = 0.0
    """Probability of a vertical flip."""
    quarter_turns: Share = 0.0
    """Probability of a turn by 90, 180 or 270 degrees, each as likely; 0.75: all four directions are."""
    scale_jitter: tuple[Positive, Positive] = (1.0, 1.0)
    """The short side is multiplied by a number drawn between the two, for a whole batch."""
    multi_scale: tuple[Pixels, ...] = ()
    """Short sides, one of them drawn for each batch, in place of ``preprocess.min_size``; the limit of the
    long side moves along."""
    large_scale_jitter: tuple[Positive, Positive] = (1.0, 1.0)
    """What is seen in a picture is magnified by a number drawn between the two: cropped above 1, put
    somewhere on a plain ground below."""
    zoom_out: Share = 0.0
    """Probability that a picture shrinks on a plain ground ..."""
    zoom_out_limit: float = Field(2.0, ge=1)
    """... whose sides are at most this many times as long."""
    iou_crop: Share = 0.0
    """Probability of a crop that keeps an object by a drawn least overlap (SSD)."""
    mosaic: Share = 0.0
    """Probability that a picture and three others share the place of one."""
    copy_paste: Share = 0.0
    """Probability that objects of another picture are pasted in, by their boxes."""
    min_visible: Share = 0.3
    """A box that is cut to less than this share of its area becomes one to ignore; tiles do so, too."""
    brightness: float = Field(0.0, ge=0, lt=1)
    contrast: float = Field(0.0, ge=0, lt=1)
    saturation: float = Field(0.0, ge=0, lt=1)
    """Each is a factor drawn between 1 - value and 1 + value."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Largest turn of the colours, as a share of the colour circle."""

    def describe(self) -> str:
        """The parts that are on, with their keys; ``nothing is varied`` where none is."""
        parts: list[str] = []
        for name in VARIED:
            value = getattr(self, name)
            if isinstance(value, tuple) and name.endswith("jitter"):
                parts += [] if value == (1, 1) else [f"{name} {value[0]:g} to {value[1]:g}"]
            elif value:
                shown = ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"
                parts.append(f"{name} {shown}")
        return "; ".join(parts) or "nothing is varied"

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        name = values.get("augment") if isinstance(values, dict) else None
        return {**PRESETS[name], **values} if isinstance(name, str) and name in PRESETS else values

    @model_validator(mode="after")
    def _ranges(self) -> VariationConfig:
        for name in ("scale_jitter", "large_scale_jitter"):
            limits = getattr(self, name)
            if limits[0] > limits[1]:
                raise ValueError(f"{name} {limits} must be (smallest, largest)")
        return self


_OWN = ("augment", "zoom_out_limit", "min_visible")
VARIED = tuple(name for name in VariationConfig.model_fields if name not in _OWN)
"""The keys that a preset decides about."""
