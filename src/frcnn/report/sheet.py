"""A contact sheet of what the network sees: pictures varied, resized and padded, with their boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from frcnn.config import PreprocessConfig
from frcnn.data.feed.loader import Batch
from frcnn.drawing import annotate
from frcnn.model.preprocess import to_uint8

CELL = 460
"""Longest side of a picture on the sheet; smaller padded pictures are shown smaller, at one scale for all."""
SHEET_SIDE = 16_000
"""Of a JPEG, in pixels; cells shrink where a sheet would be larger."""
GAP, LINE = 14, 18
GROUND, INK, FAINT = (24, 25, 28), (236, 236, 236), (150, 152, 158)
HATCH = ((44, 46, 52), (58, 61, 68))


@dataclass(frozen=True)
class Shown:
    """A picture as the network sees it.

    Attributes:
        pixels: (h, w, 3) uint8, without padding and normalisation.
        padded: (height, width) with the padding.
        boxes: (g, 4) float32, pixels.
        labels: (g,) int64, -1 for a region without a class.
        ignore: (g,) bool.
        name: of its file, and where a tile of it begins.
    """

    pixels: NDArray[np.uint8]
    padded: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    name: str


def shown_pictures(batch: Batch, spec: PreprocessConfig) -> list[Shown]:
    """The pictures of a batch, with their boxes."""
    targets, height, width = batch.targets, *batch.images.pixels.shape[-2:]
    pictures = []
    for i, path in enumerate(batch.paths):
        real = targets.real[i] | targets.ignore[i]
        boxes, labels, ignore = (values[i][real].cpu().numpy() for values in vars(targets).values())
        pixels = to_uint8(batch.images, i, spec)
        window = batch.windows[i] if batch.windows else None
        name = PurePath(path).name + ("" if window is None else f" at {window[0]},{window[1]}")
        pictures.append(Shown(pixels, (height, width), boxes, labels, ignore, name))
    return pictures


def contact_sheet(pictures: Sequence[Shown], classes: Sequence[str], title: Sequence[str]) -> Image.Image:
    """Draw pictures in rows.

    Boxes are in the colours of their classes, with names; ignored ones are thin, dashed and gray; padding is
    hatched. Below each picture stand its size, padded size, boxes and file.

    Args:
        pictures: at least one.
        classes: names of the labels.
        title: lines above the pictures.

    Returns:
        An RGB picture.

    Raises:
        ValueError: when there are no pictures.
    """
    if not pictures:
        raise ValueError("no pictures to show; give a data set that has some")
    columns = math.ceil(math.sqrt(len(pictures)))
    cell = min(CELL, (SHEET_SIDE - 400) // columns - GAP - 2 * LINE)
    scale = cell / max(max(shown.padded) for shown in pictures)
    tiles = [_drawn(shown, classes, scale) for shown in pictures]
    step = max(*(tile.width for tile in tiles), 180) + GAP
    rows = [range(i, min(i + columns, len(tiles))) for i in range(0, len(tiles), columns)]
    heights = [max(tiles[i].height for i in row) + GAP + 2 * LINE for row in rows]
    top = GAP + LINE * len(title) + GAP // 2
    sheet = Image.new("RGB", (columns * step + GAP, top + sum(heights)), GROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, line in enumerate(title):
        draw.text((GAP, GAP + i * LINE), _fitting(draw, line, sheet.width - 2 * GAP, font), INK, font)
    for row, height in zip(rows, heights, strict=True):
        for x, i in enumerate(row):
            sheet.paste(tiles[i], (left := GAP + x * step, top))
            for k, line in enumerate(_caption(pictures[i])):
                place = (left, top + tiles[i].height + 2 + k * LINE)
                draw.text(place, _fitting(draw, line, step - GAP, font), (INK, FAINT)[k], font)
        top += height
    return sheet


def _drawn(shown: Shown, classes: Sequence[str], scale: float) -> Image.Image:
    height, width = shown.pixels.shape[:2]
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    small = Image.fromarray(shown.pixels).resize(size, resampling)
    ratio = np.tile(np.divide(size, (width, height)), 2)
    drawn = annotate(small, shown.boxes * ratio, shown.labels, classes, ignore=shown.ignore)
    padded = _hatched(tuple(max(round(side * scale), size[1 - k]) for k, side in enumerate(shown.padded)))
    padded.paste(drawn, (0, 0))
    return padded


def _hatched(size: tuple[int, ...]) -> Image.Image:
    rows, columns = np.indices(size)
    stripes = ((rows + columns) // 5 % 2).astype(np.intp)
    return Image.fromarray(np.array(HATCH, np.uint8)[stripes])


def _caption(shown: Shown) -> tuple[str, str]:
    height, width = shown.pixels.shape[:2]
    ignored = int(shown.ignore.sum())
    count = len(shown.ignore) - ignored
    boxes = f"{count} box{'' if count == 1 else 'es'}" + (f", {ignored} ignored" if ignored else "")
    return f"{width}x{height} in {shown.padded[1]}x{shown.padded[0]}, {boxes}", shown.name


def _fitting(
    draw: ImageDraw.ImageDraw, text: str, room: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    """The text, cut where it is too long."""
    if draw.textlength(text, font) <= room:
        return text
    while text and draw.textlength(text + "...", font) > room:
        text = text[:-1]
    return text + "..."
