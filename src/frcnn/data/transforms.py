"""Variation of the training pictures: horizontal flip, size, light. Every random choice can be repeated.

What is drawn is kept apart from what is done: ``draw_variation`` takes a generator, returns a ``Variation``;
the other functions are pure and never change their input. The generator of a picture depends on (seed, epoch,
index) only, so that neither the number of loader processes nor a resumed run changes a picture.

Boxes are (g, 4) float32, (x1, y1, x2, y2), half-open, in pixels; sizes are (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageStat

from frcnn.config import DataConfig

MIN_SIDE = 1.0
"""Boxes with a side below this many pixels, after resizing, are ignored: they show nothing to learn from."""


def sample_generator(seed: int, *position: int) -> np.random.Generator:
    """The generator that belongs to a place in a run, such as (epoch, index); ``position`` is not negative.

    Generators of different places are independent, also for neighbouring seeds.
    """
    return np.random.default_rng(np.random.SeedSequence(seed % 2**64, spawn_key=position))


@dataclass(frozen=True)
class Variation:
    """What is done to one picture. The defaults do nothing.

    Attributes:
        flip: left becomes right.
        brightness: factor on all values.
        contrast: factor on the distance from the picture's mean gray.
        saturation: factor on the distance from gray, pixel by pixel.
    """

    flip: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0


def draw_variation(config: DataConfig, generator: np.random.Generator) -> Variation:
    """Draw what is done to a picture. Switching one option off does not change what the others draw."""
    chance, *light = generator.random(4).tolist()
    ranges = (config.brightness, config.contrast, config.saturation)
    return Variation(chance < config.flip, *(1 + r * (2 * u - 1) for r, u in zip(ranges, light, strict=True)))


def scale_jitter(limits: tuple[float, float], generator: np.random.Generator) -> float:
    """A factor on the size of a picture, drawn evenly between the two limits."""
    return float(generator.uniform(*limits))


def vary_image(image: Image.Image, variation: Variation) -> Image.Image:
    """Apply a variation to an RGB picture; a new picture, or the same object where nothing is to do."""
    image = flip_image(image) if variation.flip else image
    return photometric(image, variation.brightness, variation.contrast, variation.saturation)


def flip_image(image: Image.Image) -> Image.Image:
    """Mirror left and right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def flip_boxes(boxes: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """Mirror boxes (g, 4) in a picture ``width`` pixels wide: x1' = width - x2, x2' = width - x1."""
    flipped = boxes.copy()
    flipped[:, 0], flipped[:, 2] = width - boxes[:, 2], width - boxes[:, 0]
    return flipped


def photometric(image: Image.Image, brightness: float, contrast: float, saturation: float) -> Image.Image:
    """Multiply brightness, then contrast around the mean gray, then saturation; factors of 1 do nothing.

    Brightness and contrast are one table of 256 values, so a picture is read and written at most twice.
    """
    if brightness != 1 or contrast != 1:
        mean = ImageStat.Stat(image.convert("L")).mean[0] * brightness if contrast != 1 else 0.0
        values = np.arange(256) * brightness
        table = np.rint((values - mean) * contrast + mean).clip(0, 255).astype(int).tolist()
        image = image.point(table * len(image.getbands()))
    return ImageEnhance.Color(image).enhance(saturation) if saturation != 1 else image


def resize_boxes(
    boxes: NDArray[np.float32],
    ignore: NDArray[np.bool_],
    original_size: tuple[int, int],
    size: tuple[int, int],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Carry boxes (g, 4) from a picture of ``original_size`` to ``size``, each axis by its own ratio.

    Returns:
        The boxes, and ``ignore`` (g,) with those added that have a side below ``MIN_SIDE`` now.
    """
    ratio = np.divide(size[::-1], original_size[::-1]).astype(np.float32)
    resized = boxes * np.tile(ratio, 2)
    small = (resized[:, 2:] - resized[:, :2]).min(1, initial=np.inf) < MIN_SIDE
    return resized, ignore | small
