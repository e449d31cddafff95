"""Small detectors and batches for the tests: the recipes themselves with fewer RoIs and narrow heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from frcnn.config import Config
from frcnn.model.detector import FasterRCNN
from frcnn.model.preprocess import pad_batch
from frcnn.recipes import recipe
from frcnn.structures import ImageBatch, Targets

Object = tuple[Sequence[float], int]


def change(config: Config, **sections: dict[str, Any]) -> Config:
    """A copy of ``config`` with some values of some sections replaced."""
    update = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update=update)


def small(name: str, **sections: dict[str, Any]) -> Config:
    """A recipe with few proposals and RoIs, narrow heads, no pretrained weights, and ``sections`` on top."""
    config = change(
        recipe(name),
        backbone={"weights": "none"},
        proposals={"pre_nms_train": 60, "post_nms_train": 40, "pre_nms_test": 60, "post_nms_test": 30},
        roi={"hidden": 32, "batch_size": 16, "dropout": 0.0},
        rpn={"batch_size": 32},
    )
    return change(config, **sections)


def build(config: Config, classes: int = 3, seed: int = 0) -> FasterRCNN:
    """A detector with repeatable random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FasterRCNN(config, classes).eval()


def batch_of(config: Config, sizes: Sequence[tuple[int, int]], seed: int = 0) -> ImageBatch:
    """Pictures of noise in these (height, width) sizes, as the loader pads them."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randint(0, 256, (3, h, w), generator=generator, dtype=torch.uint8) for h, w in sizes]
    return pad_batch(images, list(sizes), config.preprocess)


def targets_of(
    objects: Sequence[Sequence[Object]], ignored: Sequence[Sequence[bool]] | None = None
) -> Targets:
    """(box, label) lists of every picture, padded to a multiple of 8 objects."""
    most = max((len(o) for o in objects), default=0)
    g = -(-max(most, 1) // 8) * 8
    boxes, labels = torch.zeros(len(objects), g, 4), torch.full((len(objects), g), -1)
    ignore = torch.zeros(len(objects), g, dtype=torch.bool)
    for i, items in enumerate(objects):
        for j, (box, label) in enumerate(items):
            boxes[i, j], labels[i, j] = torch.tensor(box), label
            ignore[i, j] = bool(ignored and ignored[i][j])
    return Targets(boxes, labels, ignore)
