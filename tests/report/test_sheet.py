"""The contact sheet: everything that the network sees is on it, with its boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from frcnn.config import PreprocessConfig
from frcnn.data.feed.loader import Batch
from frcnn.drawing import class_color
from frcnn.report.sheet import GROUND, HATCH, Shown, contact_sheet, shown_pictures
from frcnn.structures import ImageBatch, Targets

CLASSES = ("cat", "dog")


def shown(size: tuple[int, int] = (60, 80), padded: tuple[int, int] = (64, 96), count: int = 2) -> Shown:
    boxes = np.array([[5, 30, 30, 55], [40, 10, 70, 50]], np.float32)[:count]
    pixels = np.full((*size, 3), 200, np.uint8)
    return Shown(pixels, padded, boxes, np.arange(count), np.arange(count) == 1, "x.jpg")


def test_no_pictures() -> None:
    with pytest.raises(ValueError, match="no pictures to show"):
        contact_sheet([], CLASSES, ["nothing"])


def test_a_picture_without_boxes() -> None:
    sheet = contact_sheet([shown(count=0)], CLASSES, ["title"])
    assert sheet.mode == "RGB"
    assert min(sheet.size) > 100


def test_boxes_ignored_ones_and_padding_are_shown() -> None:
    pixels = np.asarray(contact_sheet([shown()], CLASSES, ["title"]))
    colours = {tuple(c) for c in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}
    assert class_color(0) in colours, "the object"
    assert class_color(1) not in colours, "an ignored one has no colour"
    assert (235, 235, 235) in colours, "but dashes"
    assert set(HATCH) <= colours
    assert tuple(pixels[0, 0]) == GROUND


def test_rows_are_as_high_as_their_pictures() -> None:
    flat, high = shown((20, 80), (32, 96), 0), shown((90, 60), (96, 64), 0)
    together = contact_sheet([flat, flat, high], CLASSES, [])
    apart = contact_sheet([high, high, high], CLASSES, [])
    assert together.height < apart.height
    assert contact_sheet([flat] * 9, CLASSES, []).width > contact_sheet([flat] * 4, CLASSES, []).width


@pytest.mark.parametrize("floats", [False, True])
def test_pictures_of_a_batch(floats: bool) -> None:
    spec = PreprocessConfig()
    pixels = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    pixels[:, :, :60, :80] = 120
    images = ImageBatch(pixels, torch.tensor([[60.0, 80]]), torch.ones(1, 2), torch.tensor([[60.0, 80]]))
    if floats:
        mean, std = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.std))
        images = replace(images, pixels=(pixels / 255 - mean) / std)
    boxes = torch.tensor([[[1.0, 2, 30, 40], [5, 5, 9, 9], [0, 0, 0, 0]]])
    targets = Targets(boxes, torch.tensor([[1, -1, -1]]), torch.tensor([[False, True, False]]))
    [picture] = shown_pictures(Batch(images, targets, (1,), ("a/b.jpg",)), spec)
    assert picture.pixels.shape == (60, 80, 3)
    assert np.abs(picture.pixels.astype(int) - 120).max() <= 1
    assert picture.padded == (64, 96)
    assert picture.boxes.tolist() == [[1, 2, 30, 40], [5, 5, 9, 9]]
    assert picture.ignore.tolist() == [False, True]
    assert picture.name == "b.jpg"
    tile = Batch(images, targets, (1,), ("a/b.jpg",), (), ((30, 40, 110, 100),))
    assert shown_pictures(tile, spec)[0].name == "b.jpg at 30,40"
