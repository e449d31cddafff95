"""Variation of the training pictures one by one: flips, quarter turns, size, light and colour.

What is drawn is kept apart from what is done: ``draw_variation`` takes a generator, returns a ``Variation``;
the other functions are pure and never change their input. The generator of a picture depends on (seed, epoch,
index) only, so that neither the number of loader processes nor a resumed run changes a picture. Crops and
mixtures of several pictures are in ``views.py`` and ``mixing.py``.

Pictures are Pillow's and boxes numpy arrays, because that was measured to be as fast as
``torchvision.transforms.v2`` or faster (``docs/performance.md``); the tests hold the boxes to v2's.

Boxes are (g, 4) float32, (x1, y1, x2, y2), half-open, in pixels; sizes are (height, width).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageStat

from frcnn.bands import Bands, Pixels
from frcnn.config import Config, DataConfig

MIN_SIDE = 1.0
"""Boxes with a side below this many pixels, after resizing, are ignored: they show nothing to learn from."""
LARGE = 16
"""Times the pixels of the network: larger pictures are resized before their colours are varied even without a
preset. Below that, what a recipe shows stays the same to the bit."""
_ORIENT = {
    (False, 1): Image.Transpose.ROTATE_90,
    (False, 2): Image.Transpose.ROTATE_180,
    (False, 3): Image.Transpose.ROTATE_270,
    (True, 0): Image.Transpose.FLIP_LEFT_RIGHT,
    (True, 1): Image.Transpose.TRANSPOSE,
    (True, 2): Image.Transpose.FLIP_TOP_BOTTOM,
    (True, 3): Image.Transpose.TRANSVERSE,
}
"""(flip, quarter turns) -> the one operation that does both."""
_GRAY = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([_GRAY, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = np.linalg.inv(_YIQ)


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
        turns: quarter turns against the clock, 0 to 3, after the flip.
        brightness: factor on all values.
        contrast: factor on the distance from the picture's mean gray.
        saturation: factor on the distance from gray, pixel by pixel.
        hue: turn of the colours, as a share of the colour circle. None: light is varied step by step, as
            without a preset, so that what a recipe shows stays the same to the bit.
    """

    flip: bool = False
    turns: int = 0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float | None = None


def draw_variation(config: DataConfig, generator: np.random.Generator, turned: bool = False) -> Variation:
    """Draw what is done to a picture. Switching one option off does not change what the others draw.

    Args:
        config: the limits.
        generator: of this picture.
        turned: whether its batch lies on its side (``turned_chance``).
    """
    chance, *light = generator.random(4).tolist()
    upside_down, half, hue = generator.random(3).tolist()
    ranges = (config.brightness, config.contrast, config.saturation)
    factors = [1 + r * (2 * u - 1) for r, u in zip(ranges, light, strict=True)]
    each = config.quarter_turns / 3
    turns = int(turned) + 2 * (half < (0.5 if turned else each / (1 - 2 * each)))
    flip, vertical = chance < config.flip, upside_down < config.flip_vertical
    colours = config.augment != "recipe" or config.hue > 0
    return Variation(
        flip != vertical,  # a vertical flip is a horizontal one and half a turn
        (turns + 2 * vertical) % 4,
        *factors,
        hue=config.hue * (2 * hue - 1) if colours else None,
    )


def turned_chance(config: DataConfig) -> float:
    """How often a batch lies on its side. It is drawn for a batch, so that pictures of like shape stay so."""
    return config.quarter_turns * 2 / 3


def scale_jitter(limits: tuple[float, float], generator: np.random.Generator) -> float:
    """A factor on the size of a picture, drawn evenly between the two limits."""
    return float(generator.uniform(*limits))


def largest_scale(config: Config) -> float:
    """The largest factor on the limits of the size that a batch may get; at least 1."""
    sizes = [side / config.preprocess.min_size for side in config.data.multi_scale]
    return max(1.0, config.data.scale_jitter[1] * max(sizes, default=1.0))


def vary_image(image: Pixels, variation: Variation, size: tuple[int, int] | None = None) -> Pixels:
    """Apply a variation to a picture; a new picture, or the same object where nothing is to do.

    Args:
        image: the picture.
        variation: what is done to it.
        size: (height, width) that the network gets. Larger pictures are resized before their colours are
            varied, which takes time by the pixel; without a preset only much larger ones. None: none are.
    """
    image = orient_image(image, variation.flip, variation.turns)
    limit = LARGE if variation.hue is None else 1
    if size is not None and image.width * image.height > limit * size[0] * size[1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)  # as the network's pictures are resized
    return vary_light(image, variation)


def vary_light(image: Pixels, variation: Variation) -> Pixels:
    """The part of a variation that changes colours; without RGB these are brightness and contrast."""
    if isinstance(image, Bands) or image.mode != "RGB":
        return _vary_channels(image, variation.brightness, variation.contrast)
    light = (variation.brightness, variation.contrast, variation.saturation)
    return photometric(image, *light) if variation.hue is None else recolour(image, *light, variation.hue)


def _vary_channels(image: Pixels, brightness: float, contrast: float) -> Pixels:
    """Brightness and contrast of all channels alike, around the mean of all."""
    if (brightness, contrast) == (1, 1):
        return image
    layers = image.layers if isinstance(image, Bands) else (image,)
    mean = float(np.mean([ImageStat.Stat(layer).mean[0] for layer in layers])) * brightness
    table = np.rint((np.arange(256) * brightness - mean) * contrast + mean).clip(0, 255).astype(int).tolist()
    varied = [layer.point(table) for layer in layers]
    return Bands(varied) if isinstance(image, Bands) else varied[0]


def orient_image(image: Pixels, flip: bool, turns: int) -> Pixels:
    """Mirror left and right, then turn by quarters against the clock."""
    operation = _ORIENT.get((flip, turns))
    return image if operation is None else image.transpose(operation)


def orient_boxes(
    boxes: NDArray[np.float32], size: tuple[int, int], flip: bool, turns: int
) -> NDArray[np.float32]:
    """Carry boxes (g, 4) along with ``orient_image``; ``size`` is that of the picture before."""
    height, width = size
    boxes = flip_boxes(boxes, width) if flip else boxes
    x1, y1, x2, y2 = boxes.T
    if turns == 1:
        boxes = np.stack([y1, width - x2, y2, width - x1], 1)
    elif turns == 2:
        boxes = np.stack([width - x2, height - y2, width - x1, height - y1], 1)
    elif turns == 3:
        boxes = np.stack([height - y2, x1, height - y1, x2], 1)
    return boxes


def flip_image(image: Pixels) -> Pixels:
    """Mirror left and right."""
    return orient_image(image, True, 0)


def flip_boxes(boxes: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """Mirror boxes (g, 4) in a picture ``width`` pixels wide: x1' = width - x2, x2' = width - x1."""
    flipped = boxes.copy()
    flipped[:, 0], flipped[:, 2] = width - boxes[:, 2], width - boxes[:, 0]
    return flipped


def recolour(
    image: Image.Image, brightness: float, contrast: float, saturation: float, hue: float
) -> Image.Image:
    """``photometric`` and a turn of the colours as one matrix, which reads and writes an RGB picture once.

    Hue is turned in YIQ, where gray stays gray and lightness stays; values are cut at 0 and 255 at the end.
    """
    if (brightness, contrast, saturation, hue) == (1, 1, 1, 0):
        return image
    angle = 2 * math.pi * hue
    cos, sin = math.cos(angle) * saturation, math.sin(angle) * saturation
    turn = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    matrix = _RGB @ turn @ _YIQ * (brightness * contrast)
    mean = ImageStat.Stat(image.convert("L")).mean[0] if contrast != 1 else 0.0
    offset = mean * brightness * (1 - contrast)
    rows = tuple(value for row in matrix.tolist() for value in (*row, offset))
    return image.convert("RGB", rows)


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
