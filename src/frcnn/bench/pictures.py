"""The pictures of a benchmark: generated scenes, or the first ones of a data set."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from frcnn.bench.workload import Side, Workload
from frcnn.config import PreprocessConfig
from frcnn.data.open import open_dataset
from frcnn.data.pictures.image import read_image
from frcnn.data.sample import DataError
from frcnn.data.scenes.generate import make_scene
from frcnn.data.scenes.shapes import CLASSES
from frcnn.model.preprocess import target_size

SEED = 0


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded picture with its objects.

    Attributes:
        pixels: (h, w, 3) uint8.
        boxes: (g, 4) float32, (x1, y1, x2, y2).
        labels: (g,) int64.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def chw(self) -> torch.Tensor:
        """(3, h, w) uint8, sharing memory."""
        return torch.from_numpy(self.pixels).permute(2, 0, 1)


def load_photos(workload: Workload) -> tuple[list[Photo], tuple[str, ...]]:
    """As many pictures as the batch needs, each with an object, and the names of the classes.

    Raises:
        DataError: when a data set has no picture with an object.
    """
    if workload.data:
        return _from_folder(workload.data, workload.batch)
    photos: list[Photo] = []
    index = 0
    while len(photos) < workload.batch:
        photo = _scene(index, workload.height, workload.width)
        if len(photo.labels):
            photos.append(photo)
        index += 1
    return photos, CLASSES


def _scene(index: int, height: int, width: int) -> Photo:
    """A generated scene, stretched to exactly this size."""
    scene = make_scene(SEED, index)
    image = scene.image.resize((width, height), Image.Resampling.BICUBIC)
    factor = np.array([width / scene.image.width, height / scene.image.height] * 2, np.float32)
    shown = [item for item in scene.objects if not item.difficult]
    boxes = np.array([item.box for item in shown], np.float32).reshape(-1, 4) * factor
    boxes = np.minimum(boxes, np.array([width, height] * 2, np.float32))  # rounding may pass the border
    return Photo(np.array(image), boxes, np.array([item.label for item in shown], np.int64))


def _from_folder(folder: str, count: int) -> tuple[list[Photo], tuple[str, ...]]:
    dataset = open_dataset(folder)
    photos: list[Photo] = []
    for sample in dataset:
        usable = ~sample.ignore & (sample.boxes[:, 2:] > sample.boxes[:, :2]).all(1)
        if usable.any():
            pixels = np.array(read_image(sample.path)[0])
            photos.append(Photo(pixels, sample.boxes[usable], sample.labels[usable]))
        if len(photos) == count:
            break
    if not photos:
        raise DataError(f"{folder}: no picture has a box; give a data set with objects")
    repeated = (photos * -(-count // len(photos)))[:count]  # a small set fills a batch by repeating
    return repeated, dataset.classes


def decode_seconds(photos: list[Photo], side: Side, spec: PreprocessConfig, repeats: int = 3) -> float:
    """Least time to decode a batch from JPEG files: ours as the loader reads them, torchvision's users'
    with Pillow at full size.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, photo in enumerate(photos):
            files.append(Path(folder) / f"{i}.jpg")
            Image.fromarray(photo.pixels).save(files[-1], quality=93)
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            for file, photo in zip(files, photos, strict=True):
                if side == "frcnn":
                    height, width = photo.pixels.shape[:2]
                    needed = target_size(height, width, spec) if spec.method == "pillow" else None
                    np.asarray(read_image(file, needed)[0])
                else:
                    with Image.open(file) as image:
                        np.asarray(image.convert("RGB"))
            times.append(time.perf_counter() - began)
    return min(times)
