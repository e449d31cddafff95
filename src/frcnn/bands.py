"""Pictures with any number of 8-bit channels, because Pillow's have 1, 3 or 4.

One and three channels are Pillow's own pictures ("L" and "RGB"); for other numbers ``Bands`` holds one Pillow
picture for each channel and has the part of Pillow's interface that pictures on their way to the network
need.

Letters: h, w the size of a picture, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels: TypeAlias = "Image.Image | Bands"
_MODES = {1: "L", 3: "RGB"}


class Bands:
    """A picture of C channels.

    Attributes:
        layers: C pictures of mode "L" and of one size.
    """

    def __init__(self, layers: Sequence[Image.Image]) -> None:
        """Raises ValueError when there is no layer, or they differ in size or are not of mode "L"."""
        self.layers = tuple(layers)
        if len({layer.size for layer in self.layers}) != 1 or {layer.mode for layer in self.layers} != {"L"}:
            found = ", ".join(f"{i.mode} {i.width}x{i.height}" for i in self.layers[:4])
            raise ValueError(f"channels must be gray pictures of one size, at least one, got {found or '0'}")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as Pillow has it."""
        return self.layers[0].size

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.size[1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """(h, w, C) uint8."""
        return np.stack([np.asarray(layer) for layer in self.layers], 2).astype(dtype or np.uint8, copy=False)

    def copy(self) -> Bands:
        """Another picture of the same values."""
        return Bands([layer.copy() for layer in self.layers])

    def transpose(self, method: Image.Transpose) -> Bands:
        """Mirrored or turned."""
        return Bands([layer.transpose(method) for layer in self.layers])

    def crop(self, box: tuple[int, int, int, int]) -> Bands:
        """The part inside (x1, y1, x2, y2)."""
        return Bands([layer.crop(box) for layer in self.layers])

    def resize(
        self,
        size: tuple[int, int],
        resample: Image.Resampling = Image.Resampling.BILINEAR,
        box: tuple[float, float, float, float] | None = None,
        reducing_gap: float | None = None,
    ) -> Bands:
        """``box``, or all of it, as (width, height) ``size``."""
        return Bands([layer.resize(size, resample, box, reducing_gap) for layer in self.layers])

    def paste(self, picture: Bands, place: tuple[int, int], mask: Image.Image | None = None) -> None:
        """Put another picture of as many channels at (x, y), in place."""
        for layer, other in zip(self.layers, picture.layers, strict=True):
            layer.paste(other, place, mask)


def from_array(values: NDArray[np.uint8]) -> Pixels:
    """A picture of (h, w, C) values."""
    if values.shape[2] == 1:
        return Image.fromarray(np.ascontiguousarray(values[:, :, 0]))
    if values.shape[2] == 3:
        return Image.fromarray(np.ascontiguousarray(values))
    return Bands([Image.fromarray(np.ascontiguousarray(v)) for v in np.moveaxis(values, 2, 0)])


def to_array(picture: Pixels) -> NDArray[np.uint8]:
    """(h, w, C) values that the caller may change."""
    values = np.array(picture)
    return values[:, :, None] if values.ndim == 2 else values


def channels_of(picture: Pixels) -> int:
    """C."""
    return len(picture.layers) if isinstance(picture, Bands) else len(picture.getbands())


def blank(size: tuple[int, int], colour: Sequence[int]) -> Pixels:
    """A picture of (width, height) ``size`` with a value for each channel."""
    mode = _MODES.get(len(colour))
    if mode is not None:
        return Image.new(mode, size, tuple(colour) if mode == "RGB" else colour[0])
    return Bands([Image.new("L", size, value) for value in colour])


def viewable(picture: Pixels | NDArray[np.uint8]) -> Image.Image:
    """An RGB picture to look at: of more than three channels the first three, of fewer the first as gray."""
    if isinstance(picture, np.ndarray):
        picture = from_array(picture)
    if isinstance(picture, Bands):
        shown = picture.layers[:3] if len(picture.layers) > 3 else picture.layers[:1] * 3
        return Image.merge("RGB", shown)
    return picture.convert("RGB") if picture.mode != "RGB" else picture
