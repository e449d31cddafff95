"""Backbone, pyramid and anchors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from frcnn.config.section import Section


class BackboneConfig(Section):
    """The feature extractor."""

    name: str = "tf_efficientnet_lite0"
    """A timm model name, ``vgg16``, or ``torchvision/mobilenet_v3_large``."""
    levels: tuple[int, ...] = (1, 2, 3, 4)
    """Feature indices taken from timm (1 = stride 4 for most), or torchvision's ``features``."""
    norm: Literal["auto", "frozen", "batch", "group"] = "auto"
    """What becomes of the backbone's batch norm; ``auto``: frozen where pretrained weights are loaded, else
    trained."""
    norm_eps: float | None = Field(None, ge=0)
    """Epsilon of the batch norm; None: the backbone's own."""
    freeze: int = Field(0, ge=0)
    """Everything up to stride 2^freeze keeps its pretrained weights (0: nothing; no effect from scratch)."""
    weights: str = "none"
    """``package``: the ImageNet weights that an installed package carries; ``none``; or a file."""

    @property
    def resolved_norm(self) -> Literal["frozen", "batch", "group"]:
        """The norm that is really built."""
        if self.norm == "auto":
            return "batch" if self.weights == "none" else "frozen"
        return self.norm


class FpnConfig(Section):
    """The feature pyramid. ``channels`` 0 means none: the backbone's single level is used as it is."""

    channels: int = Field(256, ge=0)
    norm: Literal["none", "batch"] = "none"
    smooth_from: int = Field(0, ge=0)
    """Levels before this one go without the pyramid's 3x3 convolution, which costs most on fine maps."""
    extra_pool: bool = True
    """One more level, the last one max-pooled by 2, for the RPN only."""


class AnchorConfig(Section):
    """Anchor boxes of every cell."""

    sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    """Square root of the area, pixels, for every level."""
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height / width."""
    rounding: Literal["none", "torchvision", "pyfrcnn"] = "none"
    """Corners as they come, rounded as torchvision's, or with the whole sides of the paper's code (S1)."""
    centre: float = Field(0.5, ge=0, le=1)
    """Where in its cell an anchor is centred, as a share of the stride."""
    stride: Literal["declared", "from_padding"] = "declared"
    """The backbone's own, or padded picture / map in whole pixels, as torchvision counts."""

    @model_validator(mode="after")
    def _not_empty(self) -> AnchorConfig:
        if not self.sizes or not all(self.sizes) or not self.ratios:
            raise ValueError("sizes and ratios need at least one value for every level")
        if min(min(s) for s in self.sizes) <= 0 or min(self.ratios) <= 0:
            raise ValueError("sizes and ratios must be above 0")
        if len({len(s) for s in self.sizes}) > 1:
            raise ValueError("every level needs the same number of sizes, because the RPN head is shared")
        return self
