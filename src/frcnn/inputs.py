"""What users hand in as a picture, and as targets, brought into one form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from frcnn.data.image import read_image, to_rgb
from frcnn.data.tiles import tile_windows
from frcnn.structures import ImageBatch, Targets

Picture: TypeAlias = "str | Path | Image.Image | np.ndarray | Tensor"


class Rgb(NamedTuple):
    """A picture in memory: 8-bit RGB, and its (height, width) as the user knows it."""

    pixels: Image.Image | np.ndarray
    size: tuple[int, int]


class Piece(NamedTuple):
    """A picture, or a tile of one, on its way to the network.

    Attributes:
        index: of the picture.
        picture: all of it.
        rgb: the piece.
        window: where the piece lies, (x1, y1, x2, y2); None: it is the whole picture.
        last: whether it is the picture's last one.
    """

    index: int
    picture: Rgb
    rgb: Rgb
    window: tuple[int, int, int, int] | None
    last: bool


def cut_pictures(pictures: Sequence[Picture], tile: int, overlap: float) -> Iterator[Piece]:
    """Read pictures one after another and cut those that are larger than a tile.

    Args:
        pictures: what users hand in.
        tile: side in pixels; 0: whole pictures.
        overlap: share of a tile that the next one has in common with it.

    Raises:
        DataError, ValueError: as ``read_picture``.
    """
    for index, picture in enumerate(pictures):
        rgb = read_picture(picture)
        windows = tile_windows(rgb.size, tile, overlap).tolist()
        if len(windows) == 1:
            yield Piece(index, rgb, rgb, None, True)
            continue
        for k, (x1, y1, x2, y2) in enumerate(windows):
            pixels = rgb.pixels
            whole = isinstance(pixels, Image.Image)
            part = pixels.crop((x1, y1, x2, y2)) if whole else pixels[y1:y2, x1:x2]
            yield Piece(index, rgb, Rgb(part, (y2 - y1, x2 - x1)), (x1, y1, x2, y2), k == len(windows) - 1)


def read_picture(picture: Picture) -> Rgb:
    """A file, PIL picture, array or tensor as RGB.

    Raises:
        DataError: naming a file that cannot be read.
        ValueError: naming the shape, type or range of an array that cannot be understood.
    """
    if isinstance(picture, str | Path):
        return Rgb(*read_image(picture))
    pixels = as_rgb(picture)
    size = (pixels.height, pixels.width) if isinstance(pixels, Image.Image) else pixels.shape[:2]
    return Rgb(pixels, (int(size[0]), int(size[1])))


def as_rgb(picture: Image.Image | np.ndarray | Tensor) -> Image.Image | np.ndarray:
    """A picture in memory as RGB with 8 bits.

    Raises:
        ValueError: naming the shape, type or range that cannot be understood.
    """
    if isinstance(picture, Image.Image):
        return to_rgb(ImageOps.exif_transpose(picture))
    values = (
        picture.detach().cpu().permute(1, 2, 0).numpy()
        if isinstance(picture, Tensor)
        else np.asarray(picture)
    )
    if values.ndim != 3 or values.shape[2] != 3:
        want = "(3, h, w)" if isinstance(picture, Tensor) else "(h, w, 3)"
        raise ValueError(
            f"a picture of shape {tuple(picture.shape)} cannot be used; {want} in RGB order is expected"
        )
    if values.dtype == np.uint8:
        return values
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"a picture of {values.dtype} cannot be used; give uint8, or floats between 0 and 1")
    if values.size and not (values.min() >= 0 and values.max() <= 1.5):
        raise ValueError(
            f"a float picture must lie in 0..1, this one in {values.min():.3g}..{values.max():.3g}; "
            "divide by 255, or give uint8 (pixels are normalised here, not by the caller)"
        )
    return np.round(values.clip(0, 1) * 255).astype(np.uint8)


def collate_targets(targets: Sequence[Mapping[str, Any]], batch: ImageBatch) -> Targets:
    """Plain per-picture targets in original pixels -> padded ``Targets`` in pixels of the batch."""
    if len(targets) != len(batch):
        raise ValueError(f"{len(targets)} targets for {len(batch)} pictures; give one for each")
    most = max([len(t["labels"]) for t in targets], default=0)
    n, g = len(batch), -(-max(most, 1) // 8) * 8
    boxes, labels = torch.zeros(n, g, 4), torch.full((n, g), -1)
    ignore = torch.zeros(n, g, dtype=torch.bool)
    for i, target in enumerate(targets):  # on the host, before the step
        count = len(target["labels"])
        boxes[i, :count] = torch.as_tensor(target["boxes"], dtype=torch.float32).reshape(-1, 4)
        labels[i, :count] = torch.as_tensor(target["labels"], dtype=torch.int64)
        if "ignore" in target:
            ignore[i, :count] = torch.as_tensor(target["ignore"], dtype=torch.bool)
    scales = batch.scales.cpu()[:, None, [1, 0, 1, 0]]
    return Targets(boxes * scales, labels, ignore).to(batch.pixels.device)


def as_list(images: Picture | Sequence[Picture]) -> list[Picture]:
    """One picture or many -> a list."""
    if isinstance(images, str | Path | Image.Image):
        return [images]
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 3:
        return [images]
    return list(images)
